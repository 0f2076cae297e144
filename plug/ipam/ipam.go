// Package ipam gives addresses out of pools, each to one owner, and remembers it on disk
// before anybody uses it. It knows no bridge, container or runtime: owners are strings.
//
// Its one idea is that an address has one record, which is its lease or, after that, says
// when it was freed. Nothing is held for an address that nobody had yet: those are the gaps
// between the ones that have records, and the lowest gap is given first. When there is no
// gap, the address that was freed longest ago is given. So an address comes back as late as
// the pool allows, caches of it are cold by then, and the work is small however large or
// full the pool is. An owner that comes back gets what it had, as long as nobody else did:
// a change of the configuration that is taken back is one.
package ipam

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode/utf8"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
)

// Bounds.
const (
	// defaultMaxFreed is how many freed addresses of a pool, of one family, are remembered.
	// The oldest beyond are forgotten: they count as never given.
	defaultMaxFreed = 4096
	// maxProbes is how many addresses that others have by other means Lease steps over. It
	// is more than a /16 has.
	maxProbes = 1 << 17
	maxName   = 1024 // bytes of a pool's or an owner's name
)

// Pool is where addresses come from: config.Pool's meaning. Pools with different names
// are different networks, which may both have the same addresses.
type Pool struct {
	Name string // such as br0, or docker/10.1.0.0/16
	config.Pool
}

// Lease is an address that somebody has.
type Lease struct {
	Pool  string     `json:"pool"`
	Addr  netip.Addr `json:"address"`
	Owner string     `json:"owner"`
	Since time.Time  `json:"since"`
}

// Errors that a caller tells apart, with errors.Is.
var (
	ErrTaken = errors.New("address is taken")
	ErrFull  = errors.New("no address is left")
)

// database is *bbolt.DB.
type database interface {
	Update(func(*bbolt.Tx) error) error
}

// Store holds the leases.
//
// Thread-safety: safe for concurrent use.
type Store struct {
	db       database
	maxFreed int
	damaged  []string // since Open

	mu     sync.Mutex // guards what follows; held over a write
	nets   map[netKey]*network
	owners map[string][]place // what each owner has
	clock  time.Time          // of the last change: time of change never goes back
}

// netKey is one family of one pool.
type netKey struct {
	pool string
	v4   bool
}

// place is an address in a pool.
type place struct {
	pool string
	addr netip.Addr
}

func (p place) net() netKey { return netKey{p.pool, p.addr.Is4()} }

// network is what is known of one family of one pool. Its used are those that are leased or
// freed.
type network struct {
	leased map[netip.Addr]held
	freed  []vacant // the oldest first
	used   runs
}

// vacant is an address that was leased.
type vacant struct {
	addr  netip.Addr
	owner string // who had it last
}

// held is a lease in memory.
type held struct {
	owner string
	since time.Time
	key   string // of its record, if that is not the address's own
}

// Open reads the leases of db, which stays the caller's. Records that cannot be read are in
// Damaged.
func Open(db database) (*Store, error) {
	s := &Store{db: db, maxFreed: defaultMaxFreed, nets: map[netKey]*network{}, owners: map[string][]place{}}
	if err := s.load(); err != nil {
		return nil, fmt.Errorf("read the leases: %w", err)
	}
	return s, nil
}

// Damaged says which records could not be read by Open, and what became of them: their
// addresses, where they can be told, are leased to DamagedOwner.
func (s *Store) Damaged() []string { return slices.Clone(s.damaged) }

// Lease returns the address that owner has in pool, in the family of pool.Subnet, or gives
// it a free one: never the network's and broadcast addresses (IPv4), the subnet-router anycast
// address (IPv6), the gateway, what is excluded, pool.Own, what is leased, or what taken says
// somebody has by other means (nil: nobody). It is on disk when Lease returns. An owner whose
// address does not fit the pool any more gets another, and the old one is freed. Addresses
// freed last are given last, but to who had them.
//
// taken is not asked about an address that owner has already, and must not call s.
func (s *Store) Lease(pool Pool, owner string, taken func(netip.Addr) bool) (netip.Addr, error) {
	fail := func(err error) (netip.Addr, error) {
		return netip.Addr{}, fmt.Errorf("lease an address of %s for %s: %w", pool.Name, owner, err)
	}
	if err := cmp.Or(checkName("pool", pool.Name), checkName("owner", owner)); err != nil {
		return fail(err)
	}
	want, err := choose(pool.Pool)
	if err != nil {
		return fail(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	key := netKey{pool.Name, want.first.Is4()}
	var kept netip.Addr
	var misfits []place
	for _, p := range s.owners[owner] {
		switch {
		case p.net() != key:
		case !want.fits(p.addr):
			misfits = append(misfits, p)
		case !kept.IsValid() || p.addr.Less(kept):
			kept = p.addr
		}
	}
	if kept.IsValid() && len(misfits) == 0 {
		return kept, nil
	}
	slices.SortFunc(misfits, comparePlaces)
	ch := change{free: misfits}
	if !kept.IsValid() {
		n := s.nets[key]
		if n == nil {
			n = &network{}
		}
		a, err := n.pick(want, owner, taken)
		if err != nil {
			return fail(err)
		}
		kept, ch.give = a, &place{pool.Name, a}
		ch.owner = owner
	}
	if err := s.commitLocked(ch); err != nil {
		return fail(err)
	}
	return kept, nil
}

// Reserve gives owner that very address, which need not be in any range. The error says who has it.
func (s *Store) Reserve(pool string, addr netip.Addr, owner string) error {
	fail := func(err error) error {
		return fmt.Errorf("reserve %s of %s for %s: %w", addr, pool, owner, err)
	}
	if err := cmp.Or(checkName("pool", pool), checkName("owner", owner)); err != nil {
		return fail(err)
	}
	addr = addr.Unmap()
	if !addr.IsValid() || addr.Zone() != "" {
		return fail(errors.New("that is no address of a network"))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{pool, addr}
	if n := s.nets[p.net()]; n != nil {
		if l, ok := n.leased[addr]; ok {
			if l.owner == owner {
				return nil
			}
			return fail(fmt.Errorf("%w by %s since %s", ErrTaken, l.owner, l.since.Format(time.RFC3339)))
		}
	}
	if err := s.commitLocked(change{give: &p, owner: owner}); err != nil {
		return fail(err)
	}
	return nil
}

// Release takes back all that owner has in pool ("" is every pool). None is no error.
func (s *Store) Release(pool, owner string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	var back []place
	for _, p := range s.owners[owner] {
		if pool == "" || p.pool == pool {
			back = append(back, p)
		}
	}
	if len(back) == 0 {
		return nil
	}
	slices.SortFunc(back, comparePlaces)
	if err := s.commitLocked(change{free: back}); err != nil {
		return fmt.Errorf("release what %s has in %s: %w", owner, cmp.Or(pool, "all pools"), err)
	}
	return nil
}

// ReleaseAddr takes back one address of a pool. That nobody has it is no error.
func (s *Store) ReleaseAddr(pool string, addr netip.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := place{pool, addr.Unmap()}
	n := s.nets[p.net()]
	if n == nil {
		return nil
	}
	if _, ok := n.leased[p.addr]; !ok {
		return nil
	}
	if err := s.commitLocked(change{free: []place{p}}); err != nil {
		return fmt.Errorf("release %s of %s: %w", p.addr, pool, err)
	}
	return nil
}

// Forget takes back all that anybody has in pool, and what was freed is as never given: for
// a pool that is gone.
func (s *Store) Forget(pool string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.forgetLocked(pool); err != nil {
		return fmt.Errorf("forget the leases of %s: %w", pool, err)
	}
	return nil
}

// Leases lists what is given out, by pool and address; pool "" is all.
func (s *Store) Leases(pool string) []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Lease
	for key, n := range s.nets {
		if pool != "" && key.pool != pool {
			continue
		}
		for a, l := range n.leased {
			all = append(all, Lease{key.pool, a, l.owner, l.since})
		}
	}
	slices.SortFunc(all, compareLeases)
	return all
}

// Of lists what owner has, by pool and address.
func (s *Store) Of(owner string) []Lease {
	s.mu.Lock()
	defer s.mu.Unlock()
	var all []Lease
	for _, p := range s.owners[owner] {
		l := s.nets[p.net()].leased[p.addr]
		all = append(all, Lease{p.pool, p.addr, l.owner, l.since})
	}
	slices.SortFunc(all, compareLeases)
	return all
}

// Pools lists the pools of which anything is remembered, so that those that are gone can be
// forgotten.
func (s *Store) Pools() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	names := map[string]bool{}
	for key := range s.nets {
		names[key.pool] = true
	}
	return slices.Sorted(maps.Keys(names))
}

func comparePlaces(a, b place) int {
	return cmp.Or(strings.Compare(a.pool, b.pool), a.addr.Compare(b.addr))
}

func compareLeases(a, b Lease) int {
	return cmp.Or(strings.Compare(a.Pool, b.Pool), a.Addr.Compare(b.Addr))
}

// checkName judges the name of a pool or an owner, which becomes part of a record.
func checkName(what, name string) error {
	switch {
	case name == "":
		return fmt.Errorf("the %s has no name", what)
	case len(name) > maxName:
		return fmt.Errorf("the name of the %s is longer than %d bytes", what, maxName)
	case strings.ContainsRune(name, 0) || !utf8.ValidString(name):
		return fmt.Errorf("the name of the %s is no text", what)
	}
	return nil
}
