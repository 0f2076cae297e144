package vswitch

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vswitch/fdb"
	"vswitch/frame"
)

// Options belong to a whole switch and do not change.
type Options struct {
	Workers  int           // forwarding threads, at least 1
	Buffers  int           // frame buffers a worker beyond its batch, for transmit rings and segments
	BusyPoll time.Duration // how long a worker that had work lately spins before it blocks; 0: not at all

	// Notify, if not nil, hears of MAC addresses. It is called by workers, with a
	// bridge's FDB locked: it must return at once and not call the switch.
	Notify func(Event)

	// Hear, if not nil, is told of ARP, ND and probes by a goroutine of the switch:
	// the sighting is how the frame came in. It may take its time; what comes
	// meanwhile waits in bounded rings.
	Hear func(Heard, *Sighting)

	Recorder RecorderOptions
}

// DefaultBuffers is Options.Buffers where nobody says otherwise: with BufferLen
// some 36 MB a worker, of which only what is used takes memory.
const DefaultBuffers = 512

// Event tells of a MAC address.
type Event struct {
	Kind   fdb.EventKind
	Bridge string
	VLAN   uint16
	MAC    [6]byte
	Port   string // where it is; for one that is gone, where it was
	From   string // EventMoved: where it was before
}

// BridgeConfig is what a bridge is told.
type BridgeConfig struct {
	FDB         fdb.Limits
	ForwardBPDU bool
	// FloodVLANs are VLANs in which nothing is learned, as OVS's flood_vlans: an
	// RSPAN VLAN's copies come by one port whoever sent them. nil: none. It is
	// immutable once given.
	FloodVLANs *VLANSet
}

// Equal reports whether two configurations are the same.
func (c BridgeConfig) Equal(o BridgeConfig) bool {
	return c.FDB == o.FDB && c.ForwardBPDU == o.ForwardBPDU && sameSet(c.FloodVLANs, o.FloodVLANs)
}

// Switch is the forwarding core of one daemon.
//
// Thread-safety: any method may be called from any goroutine.
type Switch struct {
	options Options
	start   time.Time
	workers []*worker
	snap    atomic.Pointer[snapshot]
	stepped atomic.Int64   // how far the wall clock was set since start, in nanoseconds; see wall
	running sync.WaitGroup // workers, age and hear
	writing sync.WaitGroup // mirrors' goroutines
	stop    chan struct{}  // ends age and hear

	recording sync.RWMutex // guards recorders' memory, which Close takes away; taken alone
	recorders []*recorder  // of each worker: of frames, of drops

	departedMu sync.Mutex // guards departed; taken last
	departed   []departed // ports that were removed

	shadowMu sync.Mutex // guards shadow; taken before mu
	shadow   *shadow    // nil: nothing was traced yet

	mu      sync.Mutex // guards the rest
	bridges map[string]*bridge
	ports   map[string]*port
	byID    []*port   // nil where an id is free
	free    []uint32  // ids that are
	byNum   []*bridge // by bridge id; nil where an id is free
	loads   []int     // queues each worker reads

	endpoints map[Endpoint][]assigned
	groups    map[string]int // numbers of split-horizon groups, from 1; never forgotten

	closed    bool // there are no workers to wait for
	watches   [MaxWatches]*Watch
	watchTurn uint32 // counts their changes
	live      *liveTrace

	together  int     // calls of Together under way
	pending   bool    // what the control side knows is not published yet
	unbound   []*port // that were attached since; Bind waits for the snapshot
	published int     // snapshots, for tests
}

// bridge is the control side's half of a bridge.
type bridge struct {
	id       int
	name     string
	config   BridgeConfig
	fdb      *fdb.FDB
	counters []bridgeCounters
	ports    map[string]*port
	mirrors  []*mirror
	removed  Counters // of ports that are gone
}

// New starts a switch with no bridge. Close ends it.
func New(o Options) (*Switch, error) {
	if o.Workers < 1 {
		return nil, fmt.Errorf("start switch: %d workers: must be at least 1", o.Workers)
	}
	if o.Buffers < frame.MaxBatch {
		return nil, fmt.Errorf("start switch: %d buffers: must be at least %d", o.Buffers, frame.MaxBatch)
	}
	if err := o.Recorder.Check(); err != nil {
		return nil, fmt.Errorf("start switch: %w", err)
	}
	s := &Switch{
		options: o, start: time.Now(), stop: make(chan struct{}),
		bridges: map[string]*bridge{}, ports: map[string]*port{}, loads: make([]int, o.Workers),
		endpoints: map[Endpoint][]assigned{}, groups: map[string]int{},
	}
	s.snap.Store(&snapshot{})
	for i := range o.Workers {
		w, err := newWorker(s, i)
		if err != nil {
			for _, w := range s.workers {
				w.stop()
			}
			s.closeRecorders()
			return nil, fmt.Errorf("start worker %d: %w", i, err)
		}
		s.workers = append(s.workers, w)
	}
	for _, w := range s.workers {
		s.running.Go(w.run) // ended by Close
		if w.hearing != nil {
			s.running.Go(func() { s.hear(w.hearing) }) // ended by Close
		}
	}
	s.running.Go(s.age) // ended by Close
	return s, nil
}

// Close removes all bridges and ends the workers.
func (s *Switch) Close() {
	var devices []closing
	s.mu.Lock()
	for name := range s.bridges {
		devices = append(devices, s.delBridgeLocked(name)...)
	}
	s.closed = true
	s.mu.Unlock()
	closeAll(devices)
	close(s.stop)
	for _, w := range s.workers {
		w.call((*worker).stop)
	}
	s.running.Wait()
	s.awaitSinks()
	s.closeRecorders()
	s.closeShadow()
}

// age takes old MACs out of the tables.
func (s *Switch) age() {
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		select {
		case <-s.stop:
			return
		case now := <-tick.C:
			s.followClock(now)
			for _, br := range s.snap.Load().bridges {
				if br != nil {
					br.fdb.Sweep(s.seconds(now), 0)
				}
			}
		}
	}
}

// seconds returns t on the switch's clock, which begins at 1.
func (s *Switch) seconds(t time.Time) uint32 { return uint32(t.Sub(s.start)/time.Second) + 1 }

// nanotime is the switch's clock in nanoseconds, above 0.
func (s *Switch) nanotime() int64 { return int64(time.Since(s.start)) + 1 }

// Time turns seconds on the switch's clock into a time of day.
func (s *Switch) Time(seconds uint32) time.Time {
	return s.wall(int64(seconds-1) * int64(time.Second))
}

// Uptime is how long the switch has run, whatever the wall clock did.
func (s *Switch) Uptime() time.Duration { return time.Since(s.start) }

// Now returns the switch's clock in seconds.
func (s *Switch) Now() uint32 { return s.seconds(time.Now()) }

// Errors of the calls below, wrapped with the name.
var (
	ErrExist    = errors.New("exists already")
	ErrNotExist = errors.New("does not exist")
	ErrClosed   = errors.New("the switch is closed")
)

// AddBridge makes a bridge without ports.
func (s *Switch) AddBridge(name string, c BridgeConfig) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bridges[name] != nil {
		return fmt.Errorf("add bridge %s: %w", name, ErrExist)
	}
	table, err := fdb.New(c.FDB, s.tell(name))
	if err != nil {
		return fmt.Errorf("add bridge %s: %w", name, err)
	}
	b := &bridge{
		name: name, config: c, fdb: table, ports: map[string]*port{},
		counters: make([]bridgeCounters, len(s.workers)),
	}
	b.id = freeIndex(&s.byNum)
	s.byNum[b.id] = b
	s.bridges[name] = b
	s.publishLocked()
	return nil
}

// freeIndex returns the index of a nil in list, which it makes longer if there is
// none.
func freeIndex[T any](list *[]*T) int {
	for i, v := range *list {
		if v == nil {
			return i
		}
	}
	*list = append(*list, nil)
	return len(*list) - 1
}

// tell returns what a bridge's FDB calls when a MAC comes, moves or goes.
func (s *Switch) tell(bridge string) func(fdb.Event) {
	if s.options.Notify == nil {
		return nil
	}
	return func(e fdb.Event) {
		s.options.Notify(Event{
			Kind: e.Kind, Bridge: bridge, VLAN: e.Key.VLAN(), MAC: e.Key.MAC(),
			Port: s.portName(uint32(e.Port)), From: s.portName(uint32(e.From)),
		})
	}
}

// SetBridge changes a bridge's configuration.
func (s *Switch) SetBridge(name string, c BridgeConfig) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bridges[name]
	if b == nil {
		return fmt.Errorf("set bridge %s: %w", name, ErrNotExist)
	}
	if c.FDB != b.config.FDB {
		if err := b.fdb.SetLimits(c.FDB); err != nil {
			return fmt.Errorf("set bridge %s: %w", name, err)
		}
	}
	flood := !sameSet(b.config.FloodVLANs, c.FloodVLANs)
	b.config = c
	s.publishLocked()
	if flood && c.FloodVLANs != nil {
		s.graceLocked()
		b.fdb.Flush(func(e fdb.Entry) bool { return c.FloodVLANs.Has(e.Key.VLAN()) })
	}
	return nil
}

// DelBridge removes a bridge with its ports and mirrors, and closes their
// devices.
func (s *Switch) DelBridge(name string) error {
	s.mu.Lock()
	if s.bridges[name] == nil {
		s.mu.Unlock()
		return fmt.Errorf("delete bridge %s: %w", name, ErrNotExist)
	}
	devices := s.delBridgeLocked(name)
	s.mu.Unlock()
	if err := closeAll(devices); err != nil {
		return fmt.Errorf("delete bridge %s: %w", name, err)
	}
	return nil
}

// delBridgeLocked returns the devices of the bridge's ports for the caller to close.
func (s *Switch) delBridgeLocked(name string) []closing {
	b := s.bridges[name]
	s.setMirrorsLocked(b, nil)
	devices := s.delPortsLocked(slices.Collect(maps.Values(b.ports)))
	delete(s.bridges, name)
	s.byNum[b.id] = nil
	s.publishLocked()
	s.graceLocked()
	return devices
}
