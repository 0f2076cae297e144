package ipam

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
)

func openDB(t testing.TB, path string) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: 10 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

func open(t testing.TB) (*Store, *bbolt.DB) {
	t.Helper()
	db := openDB(t, filepath.Join(t.TempDir(), "plugs.db"))
	s, err := Open(db)
	if err != nil {
		t.Fatal(err)
	}
	return s, db
}

// lazy is a store that does not wait for the disk: for tests of what it decides.
func lazy(t testing.TB) (*Store, *bbolt.DB) {
	s, db := open(t)
	db.NoSync, db.NoGrowSync = true, true
	return s, db
}

func pool(name, subnet string) Pool {
	p := netip.MustParsePrefix(subnet)
	return Pool{name, config.Pool{Subnet: p, Range: p}}
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func mustLease(t testing.TB, s *Store, p Pool, owner string) netip.Addr {
	t.Helper()
	a, err := s.Lease(p, owner, nil)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// all leases until the pool is full.
func all(t *testing.T, s *Store, p Pool) (got []string) {
	t.Helper()
	for i := range 300 {
		a, err := s.Lease(p, fmt.Sprint("c", i), nil)
		if errors.Is(err, ErrFull) {
			return got
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, a.String())
	}
	t.Fatal("the pool has no end")
	return nil
}

func TestWhatAPoolHolds(t *testing.T) {
	ex := func(a, b string) config.AddrRange { return config.AddrRange{First: addr(a), Last: addr(b)} }
	for _, c := range []struct {
		name string
		pool config.Pool
		want string
	}{
		{"network, broadcast", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/29")},
			"10.0.0.1 10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5 10.0.0.6"},
		{"gateway and own", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/29"), Gateway: addr("10.0.0.6"), Own: []netip.Addr{addr("10.0.0.1"), addr("fd00::1")}},
			"10.0.0.2 10.0.0.3 10.0.0.4 10.0.0.5"},
		{"excluded", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/29"), Exclude: []config.AddrRange{ex("10.0.0.3", "10.0.0.4"), ex("10.0.0.4", "10.0.0.5"), ex("fd00::", "fd00::ff"), ex("9.0.0.0", "10.0.0.1")}},
			"10.0.0.2 10.0.0.6"},
		{"all excluded", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/29"), Exclude: []config.AddrRange{ex("0.0.0.0", "255.255.255.255")}}, ""},
		{"range", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/24"), Range: netip.MustParsePrefix("10.0.0.128/30")},
			"10.0.0.128 10.0.0.129 10.0.0.130 10.0.0.131"},
		{"range at the end", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/24"), Range: netip.MustParsePrefix("10.0.0.252/30")},
			"10.0.0.252 10.0.0.253 10.0.0.254"},
		{"point to point, RFC 3021", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.4/31")}, "10.0.0.4 10.0.0.5"},
		{"with a gateway", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.4/31"), Gateway: addr("10.0.0.4")}, "10.0.0.5"},
		{"one", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.4/32")}, "10.0.0.4"},
		{"the last of all", config.Pool{Subnet: netip.MustParsePrefix("255.255.255.254/31")}, "255.255.255.254 255.255.255.255"},
		{"IPv6, no broadcast", config.Pool{Subnet: netip.MustParsePrefix("fd00::/126")}, "fd00::1 fd00::2 fd00::3"},
		{"RFC 6164", config.Pool{Subnet: netip.MustParsePrefix("fd00::/127")}, "fd00:: fd00::1"},
		{"one of IPv6", config.Pool{Subnet: netip.MustParsePrefix("fd00::7/128")}, "fd00::7"},
		{"the very last", config.Pool{Subnet: netip.MustParsePrefix("ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe/127")},
			"ffff:ffff:ffff:ffff:ffff:ffff:ffff:fffe ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff"},
		{"range of IPv6", config.Pool{Subnet: netip.MustParsePrefix("fd00::/64"), Range: netip.MustParsePrefix("fd00::1:0/127"), Gateway: addr("fd00::1:1")}, "fd00::1:0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, _ := lazy(t)
			if got := strings.Join(all(t, s, Pool{"br0", c.pool}), " "); got != c.want {
				t.Errorf("gave %s, not %s", got, c.want)
			}
		})
	}
}

func TestRefusedPools(t *testing.T) {
	s, _ := lazy(t)
	for _, p := range []Pool{
		{"br0", config.Pool{}},
		{"", pool("", "10.0.0.0/24").Pool},
		{"a\x00b", pool("", "10.0.0.0/24").Pool},
		{"br0", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/24"), Range: netip.MustParsePrefix("10.0.1.0/24")}},
		{"br0", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/24"), Range: netip.MustParsePrefix("10.0.0.0/16")}},
		{"br0", config.Pool{Subnet: netip.MustParsePrefix("10.0.0.0/24"), Range: netip.MustParsePrefix("fd00::/64")}},
	} {
		if a, err := s.Lease(p, "c", nil); err == nil {
			t.Errorf("%+v gave %s", p, a)
		}
	}
	if _, err := s.Lease(pool("br0", "10.0.0.0/24"), "", nil); err == nil {
		t.Error("nobody has an address")
	}
	for _, a := range []netip.Addr{{}, addr("fe80::1%eth0")} {
		if err := s.Reserve("br0", a, "c"); err == nil {
			t.Errorf("%s was reserved", a)
		}
	}
}

func TestKeepsAndReplaces(t *testing.T) {
	s, db := lazy(t)
	p := pool("br0", "10.0.0.0/24")
	p6 := pool("br0", "fd00::/64")
	first := mustLease(t, s, p, "web")
	six := mustLease(t, s, p6, "web")
	if first != mustLease(t, s, p, "web") || six != mustLease(t, s, p6, "web") || !six.Is6() {
		t.Error("an owner's address changed")
	}
	if other := mustLease(t, s, p, "db"); other == first {
		t.Error("two have one address")
	}
	if a := mustLease(t, s, pool("br1", "10.0.0.0/24"), "db"); a != first {
		t.Error("a pool of another name is not another network")
	}
	s, err := Open(db)
	if err != nil {
		t.Fatal(err)
	}
	if mustLease(t, s, p, "web") != first || mustLease(t, s, p6, "web") != six {
		t.Error("an address is not what it was before the store was opened again")
	}
	for _, change := range []struct {
		why string
		do  func(*Pool)
	}{
		{"gateway", func(p *Pool) { p.Gateway = first }},
		{"own", func(p *Pool) { p.Own = []netip.Addr{first} }},
		{"exclude", func(p *Pool) { p.Exclude = []config.AddrRange{{First: first, Last: first}} }},
		{"range", func(p *Pool) { p.Range = netip.MustParsePrefix("10.0.0.128/25") }},
		{"subnet", func(p *Pool) {
			p.Subnet = netip.MustParsePrefix("10.1.0.0/24")
			p.Range = p.Subnet
		}},
	} {
		q := p
		change.do(&q)
		now := mustLease(t, s, q, "web")
		c, err := choose(q.Pool)
		if err != nil || !c.fits(now) || now == first {
			t.Errorf("%s: %s became %s: %v", change.why, first, now, err)
		}
		if of := s.Of("web"); len(of) != 2 || of[0].Addr != now || of[1].Addr != six {
			t.Errorf("%s: web has %v", change.why, of)
		}
		if err := s.Release("br0", "web"); err != nil {
			t.Fatal(err)
		}
		if err := s.Reserve("br0", first, "web"); err != nil {
			t.Fatal(err)
		}
		if err := s.Reserve("br0", six, "web"); err != nil {
			t.Fatal(err)
		}
	}
}

func TestReserveSaysWhoHasIt(t *testing.T) {
	s, _ := lazy(t)
	a := mustLease(t, s, pool("br0", "10.0.0.0/24"), "docker:web eth1")
	err := s.Reserve("br0", a, "docker:db eth1")
	if !errors.Is(err, ErrTaken) || !strings.Contains(err.Error(), "10.0.0.1 of br0 for docker:db eth1") || !strings.Contains(err.Error(), "by docker:web eth1 since") {
		t.Error(err)
	}
	if err := s.Reserve("br0", a, "docker:web eth1"); err != nil {
		t.Error(err)
	}
	if err := s.Reserve("br0", netip.AddrFrom16(a.As16()), "docker:db eth1"); !errors.Is(err, ErrTaken) {
		t.Error("an address written as IPv6 is another one:", err)
	}
	if err := s.Reserve("br0", addr("192.0.2.9"), "docker:db eth1"); err != nil {
		t.Error("outside of any range:", err)
	}
	if err := s.ReleaseAddr("br0", a); err != nil {
		t.Error(err)
	}
	if err := s.ReleaseAddr("br0", a); err != nil {
		t.Error("nobody's:", err)
	}
	if err := s.Reserve("br0", a, "docker:db eth1"); err != nil {
		t.Error(err)
	}
	got := fmt.Sprint(len(s.Of("docker:web eth1")), len(s.Of("docker:db eth1")), len(s.Leases("br0")), len(s.Leases("br1")), s.Pools())
	if got != "0 2 2 0 [br0]" {
		t.Error(got)
	}
	if err := s.Forget("br0"); err != nil || len(s.Leases("")) != 0 || len(s.Pools()) != 0 || len(s.Of("docker:db eth1")) != 0 {
		t.Error(err, s.Leases(""), s.Pools())
	}
}

func TestFullNamesThePool(t *testing.T) {
	s, _ := lazy(t)
	p := pool("br0", "10.0.0.0/29")
	all(t, s, p)
	_, err := s.Lease(p, "late", nil)
	if !errors.Is(err, ErrFull) || err.Error() != "lease an address of br0 for late: no address is left in 10.0.0.0/29: 6 are leased" {
		t.Error(err)
	}
	_, err = s.Lease(pool("br1", "10.0.0.0/29"), "late", func(netip.Addr) bool { return true })
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "6 others have") {
		t.Error(err)
	}
	_, err = s.Lease(pool("br1", "fd00::/64"), "late", func(netip.Addr) bool { return true })
	if !errors.Is(err, ErrFull) || !strings.Contains(err.Error(), "131072") {
		t.Error(err)
	}
}

func TestFreedLastIsGivenLast(t *testing.T) {
	s, db := lazy(t)
	p := pool("br0", "10.0.0.0/29")
	all(t, s, p)
	order := []int{3, 0, 5, 1}
	var want []string
	for _, i := range order {
		owner := fmt.Sprint("c", i)
		want = append(want, s.Of(owner)[0].Addr.String())
		if err := s.Release("", owner); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(db)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for i := range order {
		got = append(got, mustLease(t, s, p, fmt.Sprint("n", i)).String())
	}
	if !slices.Equal(got, want) {
		t.Errorf("freed %s, given %s", want, got)
	}
}

// Who comes back gets what he had, also after a restart, unless somebody else has it by then.
func TestComesBack(t *testing.T) {
	s, db := lazy(t)
	p := pool("br0", "10.0.0.0/24")
	first, second := mustLease(t, s, p, "web"), mustLease(t, s, p, "db")
	for _, owner := range []string{"web", "db"} {
		if err := s.Release("br0", owner); err != nil {
			t.Fatal(err)
		}
	}
	s, err := Open(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Reserve("br0", second, "other"); err != nil {
		t.Fatal(err)
	}
	if got := mustLease(t, s, p, "web"); got != first {
		t.Errorf("web had %s and has %s", first, got)
	}
	if got := mustLease(t, s, p, "db"); got == second || got == first {
		t.Errorf("db has %s, which is another's", got)
	}
}

// A clock that is set back does not change who was freed first.
func TestClockSetBack(t *testing.T) {
	s, db := lazy(t)
	p := pool("br0", "10.0.0.0/30")
	mustLease(t, s, p, "a")
	mustLease(t, s, p, "b")
	s.clock = time.Now().Add(time.Hour)
	s.Release("", "b")
	s, err := Open(db)
	if err != nil {
		t.Fatal(err)
	}
	s.Release("", "a")
	if s, err = Open(db); err != nil {
		t.Fatal(err)
	}
	if got := mustLease(t, s, p, "c"); got != addr("10.0.0.2") {
		t.Error("the address freed last was given first:", got)
	}
}

// model is the naive store: it looks at each address.
type model struct {
	leased map[netip.Addr]string
	freed  []vacant
	max    int
}

func (m *model) free(a netip.Addr) {
	m.freed = append(m.freed, vacant{a, m.leased[a]})
	delete(m.leased, a)
	if len(m.freed) > m.max {
		m.freed = m.freed[1:]
	}
}

func (m *model) give(a netip.Addr, owner string) {
	m.leased[a] = owner
	m.freed = slices.DeleteFunc(m.freed, func(v vacant) bool { return v.addr == a })
}

func (m *model) lease(p Pool, owner string, taken func(netip.Addr) bool) netip.Addr {
	fits := func(a netip.Addr) bool {
		for _, x := range p.Exclude {
			if x.Contains(a) {
				return false
			}
		}
		ends := p.Subnet.Bits() < 31 && (a == p.Subnet.Addr() || !p.Subnet.Contains(a.Next()))
		return p.Range.Contains(a) && !ends && a != p.Gateway && !slices.Contains(p.Own, a)
	}
	var kept netip.Addr
	var misfits []netip.Addr
	for a := netip.MustParseAddr("10.0.0.0"); a.As4()[2] == 0; a = a.Next() {
		if m.leased[a] == owner {
			if !fits(a) {
				misfits = append(misfits, a)
			} else if !kept.IsValid() {
				kept = a
			}
		}
	}
	if !kept.IsValid() {
		for _, v := range m.freed { // the last of those that were the owner's
			if v.owner == owner && fits(v.addr) && !taken(v.addr) {
				kept = v.addr
			}
		}
		for a := p.Subnet.Addr(); p.Subnet.Contains(a) && !kept.IsValid(); a = a.Next() {
			if m.leased[a] == "" && !slices.ContainsFunc(m.freed, func(v vacant) bool { return v.addr == a }) && fits(a) && !taken(a) {
				kept = a
				break
			}
		}
		for _, v := range m.freed {
			if !kept.IsValid() && fits(v.addr) && !taken(v.addr) {
				kept = v.addr
			}
		}
		if !kept.IsValid() {
			return kept
		}
		defer m.give(kept, owner)
	}
	for _, a := range misfits {
		m.free(a)
	}
	return kept
}

func TestAgainstNaiveStore(t *testing.T) {
	for seed := range uint64(6) {
		r := rand.New(rand.NewPCG(seed, 1))
		s, db := lazy(t)
		s.maxFreed = 1 + int(seed)
		m := &model{leased: map[netip.Addr]string{}, max: s.maxFreed}
		some := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(r.IntN(24))}) }
		for step := range 600 {
			owner := fmt.Sprint("c", r.IntN(14))
			switch r.IntN(10) {
			case 0, 1, 2, 3, 4:
				p := pool("br0", "10.0.0.0/"+fmt.Sprint(28+r.IntN(4)))
				if r.IntN(3) == 0 {
					p.Range = netip.PrefixFrom(p.Subnet.Addr(), p.Subnet.Bits()+1)
				}
				if r.IntN(2) == 0 {
					p.Gateway = some()
				}
				if r.IntN(2) == 0 {
					a, b := some(), some()
					if b.Less(a) {
						a, b = b, a
					}
					p.Exclude, p.Own = []config.AddrRange{{First: a, Last: b}}, []netip.Addr{some()}
				}
				odd := r.IntN(4)
				taken := func(a netip.Addr) bool { return odd == 0 && a.As4()[3]%3 == 1 }
				got, err := s.Lease(p, owner, taken)
				want := m.lease(p, owner, taken)
				if got != want || (err != nil) != !want.IsValid() {
					t.Fatalf("seed %d step %d: lease of %+v for %s: %s (%v), not %s", seed, step, p, owner, got, err, want)
				}
			case 5:
				a := some()
				err := s.Reserve("br0", a, owner)
				who := m.leased[a]
				if (err != nil) != (who != "" && who != owner) {
					t.Fatalf("seed %d step %d: reserve %s, which %q has, for %s: %v", seed, step, a, who, owner, err)
				}
				if who == "" {
					m.give(a, owner)
				}
			case 6, 7:
				if err := s.Release("br0", owner); err != nil {
					t.Fatal(err)
				}
				for i := range byte(24) {
					if a := netip.AddrFrom4([4]byte{10, 0, 0, i}); m.leased[a] == owner {
						m.free(a)
					}
				}
			case 8:
				a := some()
				if err := s.ReleaseAddr("br0", a); err != nil {
					t.Fatal(err)
				}
				if m.leased[a] != "" {
					m.free(a)
				}
			case 9:
				max := s.maxFreed
				var err error
				if s, err = Open(db); err != nil {
					t.Fatal(err)
				}
				s.maxFreed = max
			}
			leases := s.Leases("")
			if len(leases) != len(m.leased) {
				t.Fatalf("seed %d step %d: %d leases, not %d", seed, step, len(leases), len(m.leased))
			}
			for _, l := range leases {
				if m.leased[l.Addr] != l.Owner {
					t.Fatalf("seed %d step %d: %s is %s's, not %q's", seed, step, l.Addr, l.Owner, m.leased[l.Addr])
				}
			}
			if n := s.nets[netKey{"br0", true}]; n != nil && !slices.Equal(n.freed, m.freed) {
				t.Fatalf("seed %d step %d: freed %v, not %v", seed, step, n.freed, m.freed)
			}
		}
	}
}

func TestConcurrentCallers(t *testing.T) {
	s, db := lazy(t)
	p := pool("br0", "10.0.0.0/26") // 62 addresses for 8 callers with 10 each: some find none
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 2))
			for range 300 {
				owner := fmt.Sprintf("g%d-%d", g, r.IntN(10))
				if r.IntN(3) == 0 {
					if err := s.Release("", owner); err != nil {
						t.Error(err)
					}
					continue
				}
				a, err := s.Lease(p, owner, nil)
				if errors.Is(err, ErrFull) {
					continue
				}
				if err != nil {
					t.Error(err)
					continue
				}
				// Only this goroutine speaks for owner, so the lease is still there.
				if of := s.Of(owner); len(of) != 1 || of[0].Addr != a {
					t.Errorf("%s was given %s and has %v", owner, a, of)
				}
			}
		})
	}
	wg.Wait()
	seen := map[netip.Addr]string{}
	for _, l := range s.Leases("") {
		if seen[l.Addr] != "" {
			t.Errorf("%s and %s have %s", seen[l.Addr], l.Owner, l.Addr)
		}
		seen[l.Addr] = l.Owner
	}
	again, err := Open(db)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.Equal(again.Leases(""), s.Leases("")) {
		t.Error("the disk says something else")
	}
}

func TestRunsAgainstMap(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 3))
	var set runs
	has := map[netip.Addr]bool{}
	for range 20000 {
		a := netip.AddrFrom4([4]byte{255, 255, 255, byte(192 + r.IntN(64))})
		if r.IntN(2) == 0 {
			set.add(a)
			has[a] = true
		} else {
			set.remove(a)
			delete(has, a)
		}
		b := netip.AddrFrom4([4]byte{255, 255, 255, byte(192 + r.IntN(64))})
		want := b
		for want.IsValid() && has[want] {
			want = want.Next()
		}
		if set.has(b) != has[b] || set.next(b) != want {
			t.Fatalf("%v: has %s is %v, next is %s, not %s", set, b, set.has(b), set.next(b), want)
		}
		for i := 1; i < len(set); i++ {
			if set[i-1].Last.Next().Compare(set[i].First) >= 0 {
				t.Fatalf("%v touch or are not in order", set)
			}
		}
	}
}
