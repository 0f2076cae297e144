package ctl

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"vswitch/ctl/api"
	"vswitch/fdb"
	vswitch "vswitch/switch"
)

// Bounds of what is remembered of MAC addresses.
const (
	maxHistory   = 16 << 10 // MAC addresses, of all bridges together
	historyQueue = 4096     // events that wait to be remembered
	historyRest  = 50 * time.Millisecond
	lastMoves    = 4 // of a MAC address, with their times
)

// macHistory remembers when MAC addresses were learned, moved and went: the table
// itself knows only where they are and when they were heard.
//
// It takes no more of a worker than a place in a queue does: what comes faster than
// historyQueue events in historyRest, some 80,000 a second, is counted and forgotten.
//
// Thread-safety: safe for concurrent use; take never waits.
type macHistory struct {
	events chan vswitch.Event
	lost   atomic.Uint64

	mu    sync.Mutex
	table *simplelru.LRU[place, *macLife]
}

// macLife is what became of a MAC address in a VLAN of a bridge.
type macLife struct {
	port    string
	learned time.Time     // zero: before the daemon remembers
	moves   []api.MACMove // the latest last
	gone    time.Time     // zero: it was not said to be gone
	why     fdb.EventKind // of gone
}

func newMACHistory() *macHistory {
	table, err := simplelru.NewLRU[place, *macLife](maxHistory, nil)
	if err != nil {
		panic(err) // the size is a constant above zero
	}
	return &macHistory{events: make(chan vswitch.Event, historyQueue), table: table}
}

// take takes an event from a worker, which holds a MAC table's lock.
func (h *macHistory) take(e vswitch.Event) {
	if e.Kind == fdb.EventFlapping {
		return
	}
	select {
	case h.events <- e:
	default:
		h.lost.Add(1)
	}
}

// run remembers events until done is closed. It rests between looks, so that a flood
// of new addresses finds the queue full, which costs a worker nothing, and nobody
// awake.
func (h *macHistory) run(done <-chan struct{}) {
	rest := time.NewTimer(0)
	defer rest.Stop()
	<-rest.C
	for {
		select {
		case <-done:
			return
		case e := <-h.events:
			now := time.Now()
			h.remember(e, now)
			for range len(h.events) {
				h.remember(<-h.events, now)
			}
		}
		rest.Reset(historyRest)
		select {
		case <-done:
			return
		case <-rest.C:
		}
	}
}

// settle remembers what waits: who asks what became of an address wants to know of
// this moment.
func (h *macHistory) settle() {
	now := time.Now()
	for {
		select {
		case e := <-h.events:
			h.remember(e, now)
		default:
			return
		}
	}
}

func (h *macHistory) remember(e vswitch.Event, now time.Time) {
	key := place{e.Bridge, e.VLAN, e.MAC}
	h.mu.Lock()
	defer h.mu.Unlock()
	l, ok := h.table.Get(key)
	if !ok {
		l = &macLife{}
		h.table.Add(key, l)
	}
	l.port = e.Port
	switch e.Kind {
	case fdb.EventNew:
		l.learned, l.gone = now, time.Time{}
	case fdb.EventMoved:
		if len(l.moves) == lastMoves {
			l.moves = append(l.moves[:0], l.moves[1:]...)
		}
		l.moves, l.gone = append(l.moves, api.MACMove{Time: now, From: e.From, To: e.Port}), time.Time{}
	case fdb.EventAged, fdb.EventEvicted:
		l.gone, l.why = now, e.Kind
	}
}

// of returns the lives of the MAC addresses that match.
func (h *macHistory) of(match func(place) bool) map[place]macLife {
	h.settle()
	h.mu.Lock()
	defer h.mu.Unlock()
	found := map[place]macLife{}
	for _, k := range h.table.Keys() {
		if match(k) {
			l, _ := h.table.Peek(k)
			found[k] = *l
			moves := found[k]
			moves.moves = append([]api.MACMove(nil), l.moves...)
			found[k] = moves
		}
	}
	return found
}
