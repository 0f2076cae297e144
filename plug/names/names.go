// Package names is a DNS server for the containers of a bridge: it answers their names at the
// gateway's address, and asks the host's resolvers for all else. It knows no bridge and no
// container: a View is all it is told. It keeps no cache and does no recursion: the host's
// resolvers do.
//
// Its one idea is that a question is judged against one immutable zone, which the socket it
// came in by points to. Set swaps the pointer: a name is there or gone from one question to
// the next, and no socket is closed for it.
//
// # Theory of operation
//
//	question ─► judge ─┬─► nothing        no question at all: an answer, or a scrap
//	                   ├─► an answer      the zone knows it, or it is refused
//	                   └─► forward ─► the host's resolvers, in turn, UDP then TCP
//
// What the zone knows is answered by the goroutine that read it; what is forwarded has a
// goroutine of its own, of which there are at most maxForwards, and maxPerClient a client.
//
// A name of one label that nobody has does not exist: it is not asked of the host's resolvers,
// as with dnsmasq's domain-needed, because no domain is meant by it, and a container that is gone
// must be gone though those do not answer. Nor is a name below that of the bridge, unless the
// bridge is called like a top-level domain may be (letters only: dev, app), which would hide that
// domain. For the same reason a container that is called like a domain (www.example.com) is
// found below the bridge's name only. Answers of the zone may be kept for no time at all, as dnsmasq's local-ttl has it: the
// next container may have the address a second later, and asking again costs microseconds. For
// the same reason an answer that there is nothing has no SOA record, without which it is not
// kept (RFC 2308, section 5).
//
// Who is neither a client nor the host itself is refused: a gateway that answers all the world
// is an open resolver. The refusal is as short as the question, so it is of no use to who forges
// his address, and it tells who was configured wrongly what a silence would not.
package names

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

// Bounds of the server.
const (
	maxQuestion  = 4096             // bytes of a question, with its EDNS0 options
	maxForwards  = 1024             // questions that wait for the host's resolvers at once
	maxPerBridge = 256              // of those, from one bridge
	maxPerClient = 64               // of those, from one address
	maxConns     = 256              // TCP connections at once
	maxOnBridge  = 64               // of those, from one bridge
	maxPerPeer   = 8                // of those, from one address
	idleLimit    = 10 * time.Second // of a TCP connection between questions, and for an answer to be taken
	retryPeriod  = time.Second      // between attempts to listen
	port         = 53
)

var (
	mostForwards = share{maxForwards, maxPerBridge, maxPerClient}
	mostConns    = share{maxConns, maxOnBridge, maxPerPeer}
)

// View is one network's names.
type View struct {
	Bridge  string
	Listen  []netip.Addr   // UDP and TCP port 53 of each
	Clients []netip.Prefix // who is answered, beside the host itself
	Records []Record
	// Closed networks reach nobody elsewhere, nor do their questions: what the zone does not
	// know is refused, and not asked of the host's resolvers (CVE-2024-29018).
	Closed bool
}

// Record is a container: one or more names, one or more addresses. Several containers may have
// one name, which then has the addresses of all, in turn.
type Record struct {
	Names []string // lower case labels; the first is what PTR answers
	Addrs []netip.Addr
}

// Status is what became of a View.
type Status struct {
	Bridge string
	Listen []netip.AddrPort // where it is answered
	Err    string           // why not at all of them; "" it is
}

// Server answers for all views.
//
// Thread-safety: safe for concurrent use. Lock order: mu, then bounds.mu.
type Server struct {
	log    *slog.Logger
	hosts  *resolvConf
	bounds bounds
	own    ownAddresses
	// enter runs f where sockets are opened: a test has them in a namespace of its own.
	enter func(f func() error) error

	ctx     context.Context // ends what is forwarded
	cancel  context.CancelFunc
	running sync.WaitGroup
	asked   atomic.Pointer[map[netip.Addr]bool] // where this server listens

	mu        sync.Mutex // guards what follows
	views     []View
	listeners map[netip.Addr]*listener
	failed    map[netip.Addr]error
	retry     *time.Timer // runs while something failed
	closed    bool
}

// New opens nothing yet. resolvConf is the file that names the host's resolvers; it is read
// again when it changes.
func New(resolvConf string, log *slog.Logger) *Server {
	s := &Server{
		log: log, hosts: newResolvConf(resolvConf), enter: func(f func() error) error { return f() },
		listeners: map[netip.Addr]*listener{}, failed: map[netip.Addr]error{},
	}
	s.bounds = bounds{forwards: newCount(), conns: newCount()}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.asked.Store(&map[netip.Addr]bool{})
	return s
}

// Set makes these the views, at once: a name that is in none is not answered any more. An
// address that cannot be listened at yet is tried again by the next Set and once a second.
// (Nothing is bound to an address that is not there, as IP_FREEBIND would: that its gateway
// is missing is what a view's status has to say.)
func (s *Server) Set(views []View) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.views = slices.Clone(views)
	zones := make(map[netip.Addr]*zone)
	for _, v := range views {
		z := newZone(v)
		for _, a := range v.Listen {
			if a = a.Unmap(); zones[a] == nil {
				zones[a] = z
			}
		}
	}
	for a, l := range s.listeners {
		if z := zones[a]; z != nil {
			l.zone.Store(z)
			continue
		}
		l.close()
		delete(s.listeners, a)
	}
	for a := range s.failed {
		if zones[a] == nil {
			delete(s.failed, a)
		}
	}
	for a, z := range zones {
		if s.listeners[a] == nil {
			s.listenLocked(a, z)
		}
	}
	s.settleLocked()
}

// listenLocked begins to answer at a, or notes why not.
func (s *Server) listenLocked(a netip.Addr, z *zone) {
	l, err := s.listen(a, z)
	if err != nil {
		if was := s.failed[a]; was == nil || was.Error() != err.Error() {
			s.log.Warn("names are not answered", "bridge", z.bridge, "address", a, "err", err)
		}
		s.failed[a] = err
		return
	}
	s.log.Info("names are answered", "bridge", z.bridge, "address", a)
	delete(s.failed, a)
	s.listeners[a] = l
}

// settleLocked ends a change: it notes where this server listens, and sees to it that what
// failed is tried again.
func (s *Server) settleLocked() {
	asked := make(map[netip.Addr]bool, len(s.listeners))
	for a := range s.listeners {
		asked[a.WithZone("")] = true
	}
	s.asked.Store(&asked)
	if len(s.failed) == 0 || s.closed {
		if s.retry != nil {
			s.retry.Stop()
			s.retry = nil
		}
		return
	}
	if s.retry == nil {
		s.retry = time.AfterFunc(retryPeriod, s.again)
	}
}

// again tries what failed.
func (s *Server) again() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.retry = nil
	for _, v := range s.views {
		var z *zone
		for _, a := range v.Listen {
			if a = a.Unmap(); s.failed[a] != nil && s.listeners[a] == nil {
				if z == nil {
					z = newZone(v)
				}
				s.listenLocked(a, z)
			}
		}
	}
	s.settleLocked()
}

// Status says what became of the views, in the order of Set.
func (s *Server) Status() []Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Status, 0, len(s.views))
	first := map[netip.Addr]string{} // whose an address is
	for _, v := range s.views {
		st := Status{Bridge: v.Bridge}
		var why []string
		for _, a := range v.Listen {
			a = a.Unmap()
			if other, ok := first[a]; ok {
				if other != v.Bridge {
					why = append(why, fmt.Sprintf("%s answers for %s already", a, other))
				}
				continue
			}
			first[a] = v.Bridge
			if err := s.failed[a]; err != nil {
				why = append(why, err.Error())
			} else if s.listeners[a] != nil {
				st.Listen = append(st.Listen, netip.AddrPortFrom(a, port))
			}
		}
		st.Err = strings.Join(why, "; ")
		all = append(all, st)
	}
	return all
}

// Close ends all, and waits for it.
func (s *Server) Close() error {
	s.mu.Lock()
	s.closed = true
	for _, l := range s.listeners {
		l.close()
	}
	clear(s.listeners)
	s.settleLocked()
	s.mu.Unlock()
	s.cancel()
	s.running.Wait()
	return nil
}

// explain says why an address cannot be listened at.
func explain(a netip.Addr, network string, err error) error {
	at := fmt.Sprintf("listen at %s, %s", netip.AddrPortFrom(a, port), network)
	var errno syscall.Errno
	if !errors.As(err, &errno) {
		return fmt.Errorf("%s: %w", at, err)
	}
	switch errno {
	case syscall.EADDRINUSE:
		return fmt.Errorf("%s: %w: another DNS server has it, there or at all addresses", at, errno)
	case syscall.EADDRNOTAVAIL:
		return fmt.Errorf("%s: %w: the host has no such address yet", at, errno)
	}
	return fmt.Errorf("%s: %w", at, errno)
}
