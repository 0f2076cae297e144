package ctl

import (
	"fmt"
	"log/slog"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"vswitch/ctl/api"
	"vswitch/fdb"
	vswitch "vswitch/switch"
)

// Bounds of the event stream, in events.
const (
	subscriberQueue = 4096 // that a subscriber may be behind before it misses some
	macQueue        = 4096 // MAC events that wait to be told
)

// hub gives every event to every subscriber. Nobody who tells of an event ever
// waits: a subscriber that is too slow misses some and is told how many.
//
// Thread-safety: safe for concurrent use.
type hub struct {
	log       *slog.Logger
	listening atomic.Int32 // subscribers; workers look here before they tell of a MAC
	macs      chan vswitch.Event
	macsLost  atomic.Uint64

	mu          sync.Mutex
	subscribers map[*subscriber]struct{}
}

type subscriber struct {
	events chan api.Event
	lost   int // since the last event that got through
}

func newHub(log *slog.Logger) *hub {
	return &hub{log: log, macs: make(chan vswitch.Event, macQueue), subscribers: map[*subscriber]struct{}{}}
}

// run turns MAC events of workers into events, until done is closed.
func (h *hub) run(done <-chan struct{}) {
	for {
		select {
		case <-done:
			return
		case e := <-h.macs:
			if lost := h.macsLost.Swap(0); lost > 0 {
				h.tell(api.Event{Kind: "lost", Message: fmt.Sprintf("%d MAC events were lost: they came faster than they could be told", lost)})
			}
			ev := macEvent(e)
			if e.Kind == fdb.EventFlapping {
				h.log.Warn(ev.Message, "bridge", e.Bridge)
			}
			h.tell(ev)
		}
	}
}

// mac takes a MAC event from a worker, which must not wait.
func (h *hub) mac(e vswitch.Event) {
	if h.listening.Load() == 0 && e.Kind != fdb.EventFlapping {
		return
	}
	select {
	case h.macs <- e:
	default:
		h.macsLost.Add(1)
	}
}

func macEvent(e vswitch.Event) api.Event {
	mac := net.HardwareAddr(e.MAC[:]).String()
	ev := api.Event{Bridge: e.Bridge, Port: e.Port, Detail: map[string]any{"mac": mac, "vlan": e.VLAN}}
	where := fmt.Sprintf("%s in VLAN %d", mac, e.VLAN)
	switch e.Kind {
	case fdb.EventNew:
		ev.Kind, ev.Message = "mac-learned", where+" learned on "+e.Port
	case fdb.EventMoved:
		ev.Kind, ev.Message = "mac-moved", fmt.Sprintf("%s moved from %s to %s", where, e.From, e.Port)
		ev.Detail["from"] = e.From
	case fdb.EventFlapping:
		ev.Kind, ev.Message = "mac-flapping", fmt.Sprintf(
			"%s flaps between %s and %s: is there a loop? It is held at %s", where, e.Port, e.From, e.Port)
		ev.Detail["other"] = e.From
	case fdb.EventAged:
		ev.Kind, ev.Message = "mac-aged", where+" not heard on "+e.Port+" for the aging time"
	case fdb.EventEvicted:
		ev.Kind, ev.Message = "mac-evicted", where+" on "+e.Port+" gave way: the table is full"
	}
	return ev
}

// tell gives an event to all subscribers.
func (h *hub) tell(e api.Event) {
	if e.Time.IsZero() {
		e.Time = time.Now()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	for s := range h.subscribers {
		s.offer(e)
	}
}

// offer gives an event to a subscriber that has room, after word of those that
// it missed.
func (s *subscriber) offer(e api.Event) {
	if s.lost > 0 {
		lost := api.Event{Time: e.Time, Kind: "lost", Message: fmt.Sprintf("%d events were lost: this reader was too slow", s.lost)}
		select {
		case s.events <- lost:
			s.lost = 0
		default:
		}
	}
	select {
	case s.events <- e:
	default:
		s.lost++
	}
}

// subscribe begins a stream; cancel ends it.
func (h *hub) subscribe() (events <-chan api.Event, cancel func()) {
	s := &subscriber{events: make(chan api.Event, subscriberQueue)}
	h.mu.Lock()
	h.subscribers[s] = struct{}{}
	h.mu.Unlock()
	h.listening.Add(1)
	return s.events, sync.OnceFunc(func() {
		h.listening.Add(-1)
		h.mu.Lock()
		delete(h.subscribers, s)
		h.mu.Unlock()
	})
}
