package vswitch

import (
	"fmt"
	"sync"

	"vswitch/fdb"
)

// PortConfig is what a port is told.
type PortConfig struct {
	VLAN   VLAN
	Finish bool   // finish frames in software, even if the device needs it not
	TxRing int    // frames that wait when the device is full; 0 is DefaultTxRing
	Patch  bool   // a patch port: it has no device
	Peer   string // of a patch port: its other end

	// Tunnel says that the port leads to another host: its MTU counts the tag, and
	// the sender of a frame that does not fit is told by ICMP.
	Tunnel bool
	// Group names a split-horizon group, such as a mesh: a frame that came in by
	// one of its ports never leaves by another. "": none.
	Group string
	Storm StormLimits
}

// DefaultTxRing is PortConfig.TxRing where nobody says otherwise.
const DefaultTxRing = 1024

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
	group    int       // the number of config.Group
	storm    *storm    // nil: no limit
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
	p.group, p.storm = s.groupLocked(c.Group), newStorm(c.Storm)
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
	if c.Storm != p.config.Storm {
		p.storm = newStorm(c.Storm)
	}
	p.config = c
	p.group = s.groupLocked(c.Group)
	p.view = nil
	s.publishLocked()
	if vlans {
		s.graceLocked()
		p.bridge.fdb.FlushPort(fdb.Port(p.id))
	}
	return nil
}

func sameVLAN(a, b *VLAN) bool {
	return a.Mode == b.Mode && a.Tag == b.Tag && sameSet(a.Trunks, b.Trunks)
}

func sameSet(a, b *VLANSet) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
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
		rx := &rxQueue{port: p.id, from: d, index: q}
		if err := s.assignLocked(w, rx); err != nil {
			s.detachLocked(p).Close()
			return fmt.Errorf("attach a device to port %s: watch its queue: %w", name, err)
		}
		p.queues = append(p.queues, assigned{w, rx})
	}
	if b, ok := d.(Bound); ok {
		b.Bind(p.id) // every snapshot that a worker may load from now on has the port
	}
	return nil
}

// assignLocked gives a worker a queue to read.
func (s *Switch) assignLocked(w int, rx *rxQueue) (err error) {
	s.workers[w].call(func(w *worker) { err = w.addQueue(rx) })
	if err == nil {
		s.loads[w]++
	}
	return err
}

// unassignLocked takes queues from their workers: when it returns nothing is read
// from them any more.
func (s *Switch) unassignLocked(queues []assigned) {
	for _, q := range queues {
		s.workers[q.worker].call(func(w *worker) { w.removeQueue(q.rx) })
		s.loads[q.worker]--
	}
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
		s.graceLocked() // nobody learns on it any more
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
	s.unassignLocked(p.queues)
	p.queues = nil
	if b, ok := p.device.(Bound); ok {
		b.Unbind()
		s.graceLocked() // no worker has a frame of the port in hand
	}
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
