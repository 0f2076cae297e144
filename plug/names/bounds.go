package names

import (
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Who is answered, and how much of it at once.

// bounds counts what is under way.
//
// Thread-safety: safe for concurrent use.
type bounds struct {
	mu           sync.Mutex
	forwards     map[netip.Addr]int // by client
	conns        map[netip.Addr]int
	allForwards  int
	allConns     int
	lastComplain time.Time
}

func (b *bounds) take(by map[netip.Addr]int, all *int, a netip.Addr, max, each int) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if *all >= max || by[a] >= each {
		return false
	}
	*all++
	by[a]++
	return true
}

func (b *bounds) give(by map[netip.Addr]int, all *int, a netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*all--
	if by[a]--; by[a] == 0 {
		delete(by, a)
	}
}

// seldom is true once a minute.
func (b *bounds) seldom() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if time.Since(b.lastComplain) < time.Minute {
		return false
	}
	b.lastComplain = time.Now()
	return true
}

// ownAddresses are those of the host, not older than a second.
//
// Thread-safety: safe for concurrent use.
type ownAddresses struct {
	mu   sync.Mutex
	all  map[netip.Addr]bool
	read time.Time
}

func (o *ownAddresses) has(a netip.Addr, enter func(func() error) error) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if time.Since(o.read) > time.Second {
		o.read = time.Now()
		all := map[netip.Addr]bool{}
		err := enter(func() error {
			list, err := net.InterfaceAddrs()
			for _, x := range list {
				if p, err := netip.ParsePrefix(x.String()); err == nil {
					all[p.Addr().Unmap()] = true
				}
			}
			return err
		})
		if err == nil {
			o.all = all
		}
	}
	return o.all[a.WithZone("")]
}

// answers says whether the peer is one whose questions are answered.
func (s *Server) answers(z *zone, peer netip.Addr) bool {
	bare := peer.WithZone("")
	if slices.ContainsFunc(z.clients, func(p netip.Prefix) bool { return p.Contains(bare) }) {
		return true
	}
	return peer.IsLoopback() || s.own.has(peer, s.enter)
}
