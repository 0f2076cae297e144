package vswitch

import (
	"context"
	"errors"
	"fmt"
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
	BusyPoll time.Duration // how long a worker spins before it blocks; 0: not at all

	// Notify, if not nil, hears of MAC addresses. It is called by workers, with a
	// bridge's FDB locked: it must return at once and not call the switch.
	Notify func(Event)
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
}

// PortConfig is what a port is told.
type PortConfig struct {
	VLAN   VLAN
	Finish bool   // finish frames in software, even if the device needs it not
	TxRing int    // frames that wait when the device is full; 0 is DefaultTxRing
	Patch  bool   // a patch port: it has no device
	Peer   string // of a patch port: its other end
}

// DefaultTxRing is PortConfig.TxRing where nobody says otherwise.
const DefaultTxRing = 1024

// Switch is the forwarding core of one daemon.
//
// Thread-safety: any method may be called from any goroutine.
type Switch struct {
	options Options
	start   time.Time
	workers []*worker
	snap    atomic.Pointer[snapshot]
	running sync.WaitGroup // workers and age
	writing sync.WaitGroup // mirrors' goroutines
	stop    chan struct{}  // ends age

	mu      sync.Mutex // guards the rest
	bridges map[string]*bridge
	ports   map[string]*port
	byID    []*port   // nil where an id is free
	byNum   []*bridge // by bridge id; nil where an id is free
	loads   []int     // queues each worker reads
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

// port is the control side's half of a port.
type port struct {
	id       uint32
	name     string
	bridge   *bridge
	config   PortConfig
	device   Device // nil: the interface is not there, or a patch port
	queues   []assigned
	counters []portCounters
	link     link
	view     *portView // of the current snapshot

	missed     uint64 // by devices that the port had before
	missedSeen uint64 // at the last look
	missedLast uint32 // when it last grew
}

// assigned is a receive queue and the worker that reads it.
type assigned struct {
	worker int
	rx     *rxQueue
}

// New starts a switch with no bridge. Close ends it.
func New(o Options) (*Switch, error) {
	if o.Workers < 1 {
		return nil, fmt.Errorf("start switch: %d workers: must be at least 1", o.Workers)
	}
	if o.Buffers < frame.MaxBatch {
		return nil, fmt.Errorf("start switch: %d buffers: must be at least %d", o.Buffers, frame.MaxBatch)
	}
	s := &Switch{
		options: o, start: time.Now(), stop: make(chan struct{}),
		bridges: map[string]*bridge{}, ports: map[string]*port{}, loads: make([]int, o.Workers),
	}
	s.snap.Store(&snapshot{})
	for i := range o.Workers {
		w, err := newWorker(s, i)
		if err != nil {
			for _, w := range s.workers {
				w.stop()
			}
			return nil, fmt.Errorf("start worker %d: %w", i, err)
		}
		s.workers = append(s.workers, w)
	}
	for _, w := range s.workers {
		s.running.Go(w.run) // ended by Close
	}
	s.running.Go(s.age) // ended by Close
	return s, nil
}

// Close removes all bridges and ends the workers.
func (s *Switch) Close() {
	s.mu.Lock()
	for name := range s.bridges {
		s.delBridgeLocked(name)
	}
	s.mu.Unlock()
	close(s.stop)
	for _, w := range s.workers {
		w.call((*worker).stop)
	}
	s.running.Wait()
	s.awaitSinks()
}

// sinksLimit is how long Close waits for files to be written to their end.
const sinksLimit = 3 * time.Second

// awaitSinks waits for the mirrors' goroutines, unless a disk holds them.
func (s *Switch) awaitSinks() {
	done := make(chan struct{})
	go func() { // ended by the goroutines it waits for, or with the process
		s.writing.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(sinksLimit):
	}
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
	return s.start.Add(time.Duration(seconds-1) * time.Second)
}

// Now returns the switch's clock in seconds.
func (s *Switch) Now() uint32 { return s.seconds(time.Now()) }

// Errors of the calls below, wrapped with the name.
var (
	ErrExist    = errors.New("exists already")
	ErrNotExist = errors.New("does not exist")
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

// portName returns a port's name by its id, from the snapshot: no lock.
func (s *Switch) portName(id uint32) string {
	if ports := s.snap.Load().ports; int(id) < len(ports) && ports[id] != nil {
		return ports[id].name
	}
	return ""
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
	b.config = c
	s.publishLocked()
	return nil
}

// DelBridge removes a bridge with its ports and mirrors, and closes their
// devices.
func (s *Switch) DelBridge(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.bridges[name] == nil {
		return fmt.Errorf("delete bridge %s: %w", name, ErrNotExist)
	}
	s.delBridgeLocked(name)
	return nil
}

func (s *Switch) delBridgeLocked(name string) {
	b := s.bridges[name]
	s.setMirrorsLocked(b, nil)
	var devices []Device
	for _, p := range b.ports {
		if d := s.delPortLocked(p); d != nil {
			devices = append(devices, d)
		}
	}
	closeAll(devices)
	delete(s.bridges, name)
	s.byNum[b.id] = nil
	s.publishLocked()
	s.graceLocked()
}

// closeAll closes devices together: to close a packet socket is to wait for a
// grace period of the kernel, some 15 ms, and many can wait for the same one.
func closeAll(devices []Device) {
	var closing sync.WaitGroup
	atOnce := make(chan struct{}, 16) // each takes a thread
	for _, d := range devices {
		atOnce <- struct{}{}
		closing.Go(func() { // ends with the close
			d.Close()
			<-atOnce
		})
	}
	closing.Wait()
}

// AddPort adds a port that has no device yet, and forwards nothing; a patch port
// forwards as soon as its peer is there.
func (s *Switch) AddPort(bridge, name string, c PortConfig) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bridges[bridge]
	if b == nil {
		return fmt.Errorf("add port %s: bridge %s %w", name, bridge, ErrNotExist)
	}
	if s.ports[name] != nil {
		return fmt.Errorf("add port %s: %w", name, ErrExist)
	}
	p := &port{name: name, bridge: b, config: c, counters: make([]portCounters, len(s.workers))}
	p.id = uint32(freeIndex(&s.byID))
	s.byID[p.id] = p
	s.ports[name], b.ports[name] = p, p
	s.publishLocked()
	return nil
}

// SetPort changes a port's configuration. What was learned on it is forgotten
// when its VLANs change. A change of TxRing serves rings that are made from now
// on: those of the next device.
func (s *Switch) SetPort(name string, c PortConfig) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil {
		return fmt.Errorf("set port %s: %w", name, ErrNotExist)
	}
	if c.Patch != p.config.Patch {
		return fmt.Errorf("set port %s: a port does not become a patch port, nor a patch port another: remove it and add it anew", name)
	}
	vlans := !sameVLAN(&p.config.VLAN, &c.VLAN)
	p.config = c
	p.view = nil
	s.publishLocked()
	if vlans {
		s.graceLocked()
		p.bridge.fdb.FlushPort(fdb.Port(p.id))
	}
	return nil
}

func sameVLAN(a, b *VLAN) bool {
	if a.Mode != b.Mode || a.Tag != b.Tag || (a.Trunks == nil) != (b.Trunks == nil) {
		return false
	}
	return a.Trunks == nil || *a.Trunks == *b.Trunks
}

// Attach gives a port its device, which is the switch's from then on, also when
// it fails. The port forwards once SetLink says that it is up.
func (s *Switch) Attach(name string, d Device) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil || p.device != nil || p.config.Patch {
		d.Close()
		return fmt.Errorf("attach a device to port %s: %w", name, map[bool]error{true: ErrNotExist, false: ErrExist}[p == nil])
	}
	p.device = d
	p.view = nil
	s.publishLocked()
	for q := range d.Queues() {
		w := s.leastLoadedLocked()
		rx := &rxQueue{port: p.id, device: d, index: q}
		var err error
		s.workers[w].call(func(w *worker) { err = w.addQueue(rx) })
		if err != nil {
			s.detachLocked(p).Close()
			return fmt.Errorf("attach a device to port %s: watch its queue: %w", name, err)
		}
		s.loads[w]++
		p.queues = append(p.queues, assigned{w, rx})
	}
	return nil
}

func (s *Switch) leastLoadedLocked() int {
	least := 0
	for w, n := range s.loads {
		if n < s.loads[least] {
			least = w
		}
	}
	return least
}

// SetLink tells whether frames may be sent to a port's interface, and its MTU in
// bytes.
func (s *Switch) SetLink(name string, up bool, mtu int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil || p.device == nil {
		return
	}
	p.link.mtu.Store(int32(mtu))
	if was := p.link.up.Swap(up); was && !up {
		// Who was behind it may be behind another port now: let him be searched for.
		p.bridge.fdb.FlushPort(fdb.Port(p.id))
	}
}

// Detach takes a port's device away and closes it: its interface is gone. What
// was learned on the port is forgotten; the port, its configuration and its
// counters stay.
func (s *Switch) Detach(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil {
		return fmt.Errorf("detach port %s: %w", name, ErrNotExist)
	}
	return closeDevice(p.name, s.detachLocked(p))
}

// closeDevice closes what detachLocked returned.
func closeDevice(port string, d Device) error {
	if d == nil {
		return nil
	}
	if err := d.Close(); err != nil {
		return fmt.Errorf("close the device of port %s: %w", port, err)
	}
	return nil
}

// detachLocked returns the port's device, which nobody uses any more, for the
// caller to close; nil when it had none.
func (s *Switch) detachLocked(p *port) Device {
	if p.device == nil {
		return nil
	}
	// Nothing is read any more; then nothing is sent any more; then nobody knows
	// the device, and it can be closed.
	for _, q := range p.queues {
		s.workers[q.worker].call(func(w *worker) { w.removeQueue(q.rx) })
		s.loads[q.worker]--
	}
	p.queues = nil
	p.link.up.Store(false)
	d := p.device
	p.device = nil
	p.view = nil
	s.publishLocked()
	for _, w := range s.workers {
		w.call(func(w *worker) { w.forget(p.id) })
	}
	p.bridge.fdb.FlushPort(fdb.Port(p.id))
	p.missed += d.Missed()
	return d
}

// DelPort removes a port, and closes its device.
func (s *Switch) DelPort(name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil {
		return fmt.Errorf("delete port %s: %w", name, ErrNotExist)
	}
	return closeDevice(name, s.delPortLocked(p))
}

// delPortLocked returns the port's device for the caller to close, or nil.
func (s *Switch) delPortLocked(p *port) Device {
	d := s.detachLocked(p)
	delete(s.ports, p.name)
	delete(p.bridge.ports, p.name)
	s.byID[p.id] = nil
	s.publishLocked()
	s.graceLocked()
	p.bridge.fdb.DropPort(fdb.Port(p.id))
	c := s.countersLocked(p)
	p.bridge.removed.Add(&c)
	return d
}

// graceLocked waits until no worker uses an older snapshot than the newest.
func (s *Switch) graceLocked() {
	for _, w := range s.workers {
		w.call(func(*worker) {})
	}
}

// publishLocked makes what the control side knows the workers' snapshot. Views
// that still hold are shared with the one before.
func (s *Switch) publishLocked() {
	snap := &snapshot{ports: make([]*portView, len(s.byID)), bridges: make([]*bridgeView, len(s.byNum))}
	for i, b := range s.byNum {
		if b != nil {
			snap.bridges[i] = b.newView()
		}
	}
	for id, p := range s.byID {
		if p == nil {
			continue
		}
		if peer := s.peerLocked(p); p.view == nil || p.view.peer != peer {
			p.view = p.newView(peer)
		}
		if p.config.Patch {
			if was := p.link.up.Swap(p.view.peer >= 0); was && p.view.peer < 0 {
				p.bridge.fdb.FlushPort(fdb.Port(p.id))
			}
		}
		snap.ports[id] = p.view
		if br := snap.bridges[p.bridge.id]; !p.view.mirrorOutput {
			br.ports = append(br.ports, p.view)
		}
	}
	s.snap.Store(snap)
}

func (b *bridge) newView() *bridgeView {
	v := &bridgeView{
		id: b.id, name: b.name, fdb: b.fdb, counters: b.counters,
		ports: make([]*portView, 0, len(b.ports)), forwardBPDU: b.config.ForwardBPDU,
	}
	for _, m := range b.mirrors {
		mv := *m.view
		if p := b.ports[m.config.OutPort]; p != nil {
			mv.outPort = int(p.id)
		}
		v.mirrors = append(v.mirrors, &mv)
		if mv.outVLAN >= 0 {
			// Copies come by one port whoever sent them: learning from them would
			// take all senders there (OVS: flood_vlans).
			if v.unlearned == nil {
				v.unlearned = new(VLANSet)
			}
			v.unlearned.Add(uint16(mv.outVLAN))
		}
	}
	return v
}

func (p *port) newView(peer int) *portView {
	v := &portView{
		id: p.id, name: p.name, bridge: p.bridge.id, device: p.device, counters: p.counters,
		link: &p.link, vlan: p.config.VLAN, peer: peer, ring: p.config.TxRing,
	}
	if v.ring == 0 {
		v.ring = DefaultTxRing
	}
	if p.device != nil {
		v.finish = p.config.Finish || !p.device.Offloads()
	}
	for i, m := range p.bridge.mirrors {
		src, dst := m.config.selects(p.name)
		if src {
			v.srcMirrors |= 1 << i
		}
		if dst {
			v.dstMirrors |= 1 << i
		}
		v.mirrorOutput = v.mirrorOutput || m.config.OutPort == p.name
	}
	return v
}

// peerLocked returns the port id of a patch port's other end, if that is there
// and names this one, or -1.
func (s *Switch) peerLocked(p *port) int {
	if !p.config.Patch {
		return -1
	}
	o := s.ports[p.config.Peer]
	if o == nil || o == p || !o.config.Patch || o.config.Peer != p.name {
		return -1
	}
	return int(o.id)
}

// selects reports whether frames that come in by a port, and that leave by it,
// are for the mirror.
func (c *MirrorConfig) selects(port string) (src, dst bool) {
	if c.OutPort == port {
		return false, false
	}
	if c.All {
		return true, true
	}
	for _, n := range c.Src {
		src = src || n == port
	}
	for _, n := range c.Dst {
		dst = dst || n == port
	}
	return src, dst
}

// SetMirrors makes configs the mirrors of a bridge. A mirror whose configuration
// is equal to one the bridge has, Sink included, goes on undisturbed; the Sink of
// any other that the bridge had is given what waits for it, and closed, after
// SetMirrors returned.
func (s *Switch) SetMirrors(bridge string, configs []MirrorConfig) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := s.bridges[bridge]
	if b == nil {
		return fmt.Errorf("set mirrors of bridge %s: %w", bridge, ErrNotExist)
	}
	if len(configs) > maxMirrors {
		return fmt.Errorf("set mirrors of bridge %s: %d mirrors: at most %d", bridge, len(configs), maxMirrors)
	}
	s.setMirrorsLocked(b, configs)
	return nil
}

func (s *Switch) setMirrorsLocked(b *bridge, configs []MirrorConfig) {
	old := map[string]*mirror{}
	for _, m := range b.mirrors {
		old[m.config.Name] = m
	}
	b.mirrors = nil
	for _, c := range configs {
		m := old[c.Name]
		if m == nil || m.sink != c.Sink || m.snap != c.Snap {
			m = &mirror{bridge: b, sink: c.Sink, snap: c.Snap, clock: s.start}
		} else {
			delete(old, c.Name)
		}
		m.config = c
		s.startMirrorLocked(m)
		b.mirrors = append(b.mirrors, m)
	}
	for _, p := range b.ports {
		p.view = nil
	}
	s.publishLocked()
	if len(old) == 0 {
		return
	}
	s.graceLocked() // nobody writes to the old ones' rings any more
	for _, m := range old {
		if m.cancel != nil {
			m.cancel()
		}
	}
}

// startMirrorLocked gives a mirror its new view, and, when it is new and writes a
// file, its rings and its goroutine.
func (s *Switch) startMirrorLocked(m *mirror) {
	v := &mirrorView{
		vlans: m.config.VLANs, outPort: -1, outVLAN: m.config.OutVLAN, snap: m.config.Snap,
		copied: &m.copied, missed: &m.missed,
	}
	if m.view != nil {
		v.rings = m.view.rings
	}
	isNew := m.view == nil
	if isNew && m.config.Sink != nil {
		for range s.workers {
			v.rings = append(v.rings, newByteRing(captureRingLen))
		}
	}
	m.view = v
	if isNew && m.config.Sink != nil {
		var ctx context.Context
		ctx, m.cancel = context.WithCancel(context.Background())
		rings := v.rings
		s.writing.Go(func() { m.write(ctx, rings, s.portName) }) // ended by setMirrorsLocked
	}
}
