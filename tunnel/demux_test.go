package tunnel

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"sync"
	"testing"
	"time"
	"unsafe"
)

// entry makes a port as far as a demux looks at it.
func entry(r peer, key uint32) *Port { return &Port{peer: r, inKey: key} }

// TestDemuxAgreesWithMap adds, removes and looks up at random, of few keys, so that
// tombstones and duplicates are many.
func TestDemuxAgreesWithMap(t *testing.T) {
	type id struct {
		r   peer
		key uint32
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	var d demux
	all := map[id]*Port{}
	for step := range 200_000 {
		k := id{peer{uint64(rnd.IntN(2)), mappedIPv4 | uint64(rnd.IntN(40))}, uint32(rnd.IntN(20))}
		switch rnd.IntN(4) {
		case 0:
			p := entry(k.r, k.key)
			if added := d.add(p); added != (all[k] == nil) {
				t.Fatalf("step %d: add of %v is %t", step, k, added)
			} else if added {
				all[k] = p
			}
		case 1:
			if p := all[k]; p != nil {
				d.remove(p)
				delete(all, k)
			} else {
				d.remove(entry(k.r, k.key)) // another one, that is not there
			}
		default:
			if p := d.find(k.r, k.key); p != all[k] {
				t.Fatalf("step %d: find of %v is %v, want %v", step, k, p, all[k])
			}
		}
		if d.live != len(all) {
			t.Fatalf("step %d: %d ports, want %d", step, d.live, len(all))
		}
	}
	if d.find(removed.peer, removed.inKey) != nil {
		t.Error("a tombstone is found")
	}
	if n := len(d.table.Load().slots); n > 8*4*800 {
		t.Errorf("%d slots for at most 800 ports", n)
	}
}

// TestDemuxKeepsWhatIsThere looks a port up that is there all the time, while others
// come and go.
func TestDemuxKeepsWhatIsThere(t *testing.T) {
	var d demux
	stays := entry(peer{0, mappedIPv4 | 1}, 7)
	d.add(stays)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() { // ends with stop
			for {
				select {
				case <-stop:
					return
				default:
				}
				if d.find(stays.peer, stays.inKey) != stays {
					t.Error("a port that stays was not found")
					return
				}
			}
		})
	}
	for i := range 20_000 {
		p := entry(peer{0, mappedIPv4 | uint64(2+i%500)}, uint32(i))
		d.add(p)
		if i%3 != 0 {
			d.remove(p)
		}
	}
	close(stop)
	wg.Wait()
}

// TestDemuxAddsFast bounds the cost of ten thousand ports.
func TestDemuxAddsFast(t *testing.T) {
	var d demux
	begin := time.Now()
	for i := range 10_000 {
		if !d.add(entry(peer{0, mappedIPv4 | uint64(i/100)}, uint32(i%100))) {
			t.Fatal("refused")
		}
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("10,000 ports took %v", took)
	}
}

func TestPeer(t *testing.T) {
	for _, s := range []string{"10.1.2.3", "255.255.255.255", "fd00::1", "::1"} {
		a := netip.MustParseAddr(s)
		if got := peerOf(a).addr(); got != a {
			t.Errorf("%s became %s", a, got)
		}
	}
}

// BenchmarkDemux looks up remotes in an order that no cache guesses.
func BenchmarkDemux(b *testing.B) {
	for _, n := range []int{1, 100, 10_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var d demux
			for i := range n {
				d.add(entry(peer{0, mappedIPv4 | uint64(i)}, 42))
			}
			order := rand.Perm(n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if d.find(peer{0, mappedIPv4 | uint64(order[i])}, 42) == nil {
					b.Fatal("not found")
				}
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}

// TestPortFillsItsSizeClass: one word more, and each port takes 32 bytes more.
func TestPortFillsItsSizeClass(t *testing.T) {
	if n := unsafe.Sizeof(Port{}); n > 288 {
		t.Errorf("a port takes %d bytes, want at most 288, a size class of Go's", n)
	}
}
