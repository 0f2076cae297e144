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
	forwards     count
	conns        count
	lastComplain time.Time
}

// count is how many there are of something: of a client, of a bridge, and in all. A container
// may have as many addresses as its bridge's subnets, so what is bounded for a client is not
// yet for others.
type count struct {
	all     int
	bridges map[string]int
	clients map[netip.Addr]int
}

// share is how many of them there may be.
type share struct{ all, bridge, client int }

func newCount() count {
	return count{bridges: map[string]int{}, clients: map[netip.Addr]int{}}
}

func (b *bounds) take(c *count, bridge string, client netip.Addr, most share) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if c.all >= most.all || c.bridges[bridge] >= most.bridge || c.clients[client] >= most.client {
		return false
	}
	c.all++
	c.bridges[bridge]++
	c.clients[client]++
	return true
}

func (b *bounds) give(c *count, bridge string, client netip.Addr) {
	b.mu.Lock()
	defer b.mu.Unlock()
	c.all--
	if c.bridges[bridge]--; c.bridges[bridge] == 0 {
		delete(c.bridges, bridge)
	}
	if c.clients[client]--; c.clients[client] == 0 {
		delete(c.clients, client)
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
