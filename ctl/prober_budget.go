package ctl

import (
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// What others' probes may take of this switch: so much a second, and so much at once.
// Each port has its own share, so that whoever is behind one tunnel cannot keep this
// switch from answering who is behind another; and all together have theirs, so that
// many cannot keep it from its other work.
//
// A path is the dearest: the pipeline is asked, and each copy is sent on by itself. A
// mesh of 500 hosts floods one by 500 tunnels.
var (
	shareEach = limits{
		paths: allowance{each: 10, burst: 20}, echoes: allowance{each: 200}, reports: allowance{each: 400}, copies: allowance{each: 200, burst: 400},
	}
	shareAll = limits{
		paths: allowance{each: 100}, echoes: allowance{each: 1000}, reports: allowance{each: 2000}, copies: allowance{each: 1000},
	}
)

// Bounds of what is remembered of ports and of copies that were sent on.
const (
	maxShares  = 4096  // ports; the one not heard for longest is forgotten
	relaysEach = 512   // copies that came in by one port
	maxRelays  = 16384 // by all
)

// limits is what probes may take.
type limits struct {
	paths   allowance // carried on
	echoes  allowance // answered
	reports allowance // passed back
	copies  allowance // of paths, sent on
}

// share is what the probes of one port may take.
type share struct {
	limits
	relays *simplelru.LRU[relayKey, struct{}] // those of its copies, the oldest of which goes first
}

// budget has every port's share, and where reports about copies go.
//
// Thread-safety: none; it belongs to the goroutine that answers.
type budget struct {
	all    limits
	ports  *simplelru.LRU[string, *share]
	relays *simplelru.LRU[relayKey, relay]
}

func newBudget() budget {
	b := budget{all: shareAll}
	b.ports, _ = simplelru.NewLRU[string, *share](maxShares, nil) // the sizes are
	b.relays, _ = simplelru.NewLRU[relayKey, relay](maxRelays, nil)
	return b // above zero
}

// of returns a port's share.
func (b *budget) of(port string) *share {
	if s, ok := b.ports.Get(port); ok {
		return s
	}
	s := &share{limits: shareEach}
	s.relays, _ = simplelru.NewLRU(relaysEach, func(key relayKey, _ struct{}) { b.relays.Remove(key) })
	b.ports.Add(port, s)
	return s
}

// remember notes where reports about a copy go that came in by the share's port.
func (b *budget) remember(s *share, key relayKey, r relay) {
	b.relays.Add(key, r)
	s.relays.Add(key, struct{}{})
}

// allowance lets so many things happen a second, and so many at once.
//
// Thread-safety: none; it belongs to one goroutine.
type allowance struct {
	each  float64
	burst float64 // 0: as many as each
	left  float64
	last  time.Time
}

func (a *allowance) take(now time.Time) bool {
	most := a.burst
	if most == 0 {
		most = a.each
	}
	if a.last.IsZero() {
		a.left = most
	} else {
		a.left = min(most, a.left+max(now.Sub(a.last).Seconds(), 0)*a.each)
	}
	a.last = now
	if a.left < 1 {
		return false
	}
	a.left--
	return true
}
