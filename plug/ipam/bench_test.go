package ipam

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"
	"time"
)

// fill leases n addresses of p as one file would have them, without the disk.
func fill(s *Store, p Pool, n int) {
	a := p.Subnet.Addr().Next()
	for i := range n {
		s.hold(place{p.Name, a}, held{owner: fmt.Sprint("c", i), since: time.Now()})
		a = a.Next()
	}
}

// No pool is looked at address by address, however large or full. The bound is far from what it
// takes (microseconds), and farther from what a look at each would.
func TestLargePoolsAreQuick(t *testing.T) {
	s, _ := lazy(t)
	full := pool("br0", "10.0.0.0/16")
	fill(s, full, 1<<16-2)
	quick := func(what string, p Pool, want error) {
		t.Helper()
		start := time.Now()
		_, err := s.Lease(p, "late", nil)
		if took := time.Since(start); took > 500*time.Millisecond {
			t.Errorf("%s took %v", what, took)
		}
		if !errors.Is(err, want) {
			t.Errorf("%s: %v", what, err)
		}
		s.Release("", "late")
	}
	quick("a full /16", full, ErrFull)
	quick("a /8", pool("br1", "10.0.0.0/8"), nil)
	quick("a /64", pool("br1", "fd00::/64"), nil)
	quick("all of IPv6", pool("br1", "::/1"), nil)
	// Each second address is leased, and what is between is not of the range.
	a := netip.MustParseAddr("10.0.0.1")
	for i := range 1 << 15 {
		s.hold(place{"br2", a}, held{owner: fmt.Sprint("d", i)})
		a = a.Next().Next()
	}
	quick("holes", pool("br2", "10.0.0.0/16"), nil)
}

func benchLease(b *testing.B, p Pool, leased int, sync bool) {
	s, db := open(b)
	db.NoSync = !sync
	fill(s, p, leased)
	b.ReportAllocs()
	for i := range b.N {
		owner := fmt.Sprint("n", i)
		if _, err := s.Lease(p, owner, nil); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := s.Release("", owner); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

func BenchmarkLease(b *testing.B) {
	b.Run("empty/24", func(b *testing.B) { benchLease(b, pool("br0", "10.0.0.0/24"), 0, true) })
	b.Run("empty/24,no-sync", func(b *testing.B) { benchLease(b, pool("br0", "10.0.0.0/24"), 0, false) })
	b.Run("nearly-full/16,no-sync", func(b *testing.B) { benchLease(b, pool("br0", "10.0.0.0/16"), 1<<16-12, false) })
	b.Run("v6/64,no-sync", func(b *testing.B) { benchLease(b, pool("br0", "fd00::/64"), 1000, false) })
}

func BenchmarkLeaseAgain(b *testing.B) {
	s, _ := open(b)
	p := pool("br0", "10.0.0.0/16")
	mustLease(b, s, p, "c")
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.Lease(p, "c", nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkLeaseOfFull(b *testing.B) {
	s, _ := open(b)
	p := pool("br0", "10.0.0.0/16")
	fill(s, p, 1<<16-2)
	for b.Loop() {
		if _, err := s.Lease(p, "late", nil); !errors.Is(err, ErrFull) {
			b.Fatal(err)
		}
	}
}
