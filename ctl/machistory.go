package ctl

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

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
// itself knows only where they are and when they were heard. The one of which nothing
// was told for longest goes first.
//
// It takes no more of a worker than a place in a queue does: what comes faster than
// historyQueue events in historyRest, some 80,000 a second, is counted and forgotten.
// A flood of new addresses finds slots that are there already, and leaves no garbage.
//
// Thread-safety: safe for concurrent use; take never waits.
type macHistory struct {
	events chan vswitch.Event
	lost   atomic.Uint64

	mu             sync.Mutex
	index          map[place]int32
	slots          []macSlot
	newest, oldest int32 // ends of the list in which slots are; none: it is empty
}

// macSlot is what is kept of a MAC address in a VLAN of a bridge.
type macSlot struct {
	at            place
	port          string
	learned, gone int64 // nanoseconds since 1970; 0: not known, not gone
	moves         []api.MACMove
	why           fdb.EventKind // of gone
	newer, older  int32
}

const none = -1

// macLife is what became of a MAC address in a VLAN of a bridge.
type macLife struct {
	port    string
	learned time.Time     // zero: before the daemon remembers
	moves   []api.MACMove // the latest last
	gone    time.Time     // zero: it was not said to be gone
	why     fdb.EventKind // of gone
}

func newMACHistory() *macHistory {
	return &macHistory{events: make(chan vswitch.Event, historyQueue), index: map[place]int32{}, newest: none, oldest: none}
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
	for range len(h.events) { // not what comes meanwhile: that may never end
		select {
		case e := <-h.events:
			h.remember(e, now)
		default:
			return // run was faster
		}
	}
}

func (h *macHistory) remember(e vswitch.Event, now time.Time) {
	h.mu.Lock()
	defer h.mu.Unlock()
	l := h.slotLocked(place{e.Bridge, e.VLAN, e.MAC})
	l.port = e.Port
	switch e.Kind {
	case fdb.EventNew:
		l.learned, l.gone = now.UnixNano(), 0
	case fdb.EventMoved:
		if len(l.moves) == lastMoves {
			copy(l.moves, l.moves[1:])
			l.moves = l.moves[:lastMoves-1]
		}
		l.moves, l.gone = append(l.moves, api.MACMove{Time: now, From: e.From, To: e.Port}), 0
	case fdb.EventAged, fdb.EventEvicted:
		l.gone, l.why = now.UnixNano(), e.Kind
	}
}

// slotLocked returns the slot of an address, as the newest.
func (h *macHistory) slotLocked(at place) *macSlot {
	i, ok := h.index[at]
	switch {
	case ok:
		h.unlinkLocked(i)
	case len(h.slots) < maxHistory:
		i = int32(len(h.slots))
		h.slots = append(h.slots, macSlot{at: at})
	default:
		i = h.oldest
		h.unlinkLocked(i)
		delete(h.index, h.slots[i].at)
		h.slots[i] = macSlot{at: at}
	}
	h.index[at] = i
	l := &h.slots[i]
	l.newer, l.older = none, h.newest
	if h.newest != none {
		h.slots[h.newest].newer = i
	} else {
		h.oldest = i
	}
	h.newest = i
	return l
}

func (h *macHistory) unlinkLocked(i int32) {
	l := &h.slots[i]
	if l.newer != none {
		h.slots[l.newer].older = l.older
	} else {
		h.newest = l.older
	}
	if l.older != none {
		h.slots[l.older].newer = l.newer
	} else {
		h.oldest = l.newer
	}
}

// of returns the lives of the MAC addresses that match.
func (h *macHistory) of(match func(place) bool) map[place]macLife {
	h.settle()
	h.mu.Lock()
	defer h.mu.Unlock()
	found := map[place]macLife{}
	for i := range h.slots {
		s := &h.slots[i]
		if !match(s.at) {
			continue
		}
		l := macLife{port: s.port, moves: slices.Clone(s.moves), why: s.why}
		if s.learned != 0 {
			l.learned = time.Unix(0, s.learned)
		}
		if s.gone != 0 {
			l.gone = time.Unix(0, s.gone)
		}
		found[s.at] = l
	}
	return found
}
