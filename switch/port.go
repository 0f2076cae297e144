package vswitch

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

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

	born       int64  // on the switch's clock in nanoseconds
	missed     uint64 // by devices that the port had before
	missedSeen uint64 // at the last look
	missedLast uint32 // when it last grew
}

// assigned is a receive queue and the worker that reads it.
type assigned struct {
	worker int
	rx     *rxQueue
}

// closing is a device that its port's removal left to be closed.
type closing struct {
	port   string
	device Device
}

// close closes the device, if there is one.
func (c closing) close() error {
	if c.device == nil {
		return nil
	}
	if err := c.device.Close(); err != nil {
		return fmt.Errorf("close the device of port %s: %w", c.port, err)
	}
	return nil
}

// closesAtOnce is how many devices are closed at a time; each takes a thread.
const closesAtOnce = 16

// closeAll closes devices together: to close a packet socket is to wait for a
// grace period of the kernel, some 13 ms, and many can wait for the same one. Call
// it without a lock: a port that goes down must not wait for all that.
func closeAll(devices []closing) error {
	if len(devices) == 1 {
		return devices[0].close()
	}
	var running sync.WaitGroup
	errs := make([]error, len(devices))
	var next atomic.Int64
	for range min(closesAtOnce, len(devices)) {
		running.Go(func() { // ends when all are closed
			runtime.LockOSThread() // and the thread, too
			for i := next.Add(1) - 1; i < int64(len(devices)); i = next.Add(1) - 1 {
				errs[i] = devices[i].close()
			}
		})
	}
	running.Wait()
	return errors.Join(errs...)
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
	p := &port{name: name, bridge: b, config: c, counters: make([]portCounters, len(s.workers)), born: s.nanotime()}
	p.group, p.storm = s.groupLocked(c.Group), newStorm(c.Storm)
	if n := len(s.free); n > 0 {
		p.id, s.free = s.free[n-1], s.free[:n-1]
	} else {
		p.id = uint32(len(s.byID))
		s.byID = append(s.byID, nil)
	}
	s.byID[p.id] = p
	s.ports[name], b.ports[name] = p, p
	s.publishSoonLocked()
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
// it fails, and tells whether frames may be sent to its interface, and its MTU in
// bytes, as SetLink does later: were that told only after frames are read from it,
// what answers the first of them would be dropped, and an ARP request is repeated
// after a second.
func (s *Switch) Attach(name string, d Device, up bool, mtu int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[name]
	if p == nil || p.device != nil || p.config.Patch {
		d.Close()
		return fmt.Errorf("attach a device to port %s: %w", name, map[bool]error{true: ErrNotExist, false: ErrExist}[p == nil])
	}
	p.device = d
	p.view = nil
	p.link.mtu.Store(int32(mtu))
	p.link.up.Store(up)
	if _, ok := d.(Bound); ok {
		s.unbound = append(s.unbound, p)
	}
	if d.Queues() == 0 {
		s.publishSoonLocked()
		return nil
	}
	s.publishLocked()
	for q := range d.Queues() {
		w := s.leastLoadedLocked()
		rx := &rxQueue{port: p.id, from: d, index: q}
		if err := s.assignLocked(w, rx); err != nil {
			closeAll(s.detachLocked(p))
			return fmt.Errorf("attach a device to port %s: watch its queue: %w", name, err)
		}
		p.queues = append(p.queues, assigned{w, rx})
	}
	return nil
}

// assignLocked gives a worker a queue to read.
func (s *Switch) assignLocked(w int, rx *rxQueue) (err error) {
	if s.closed {
		return ErrClosed
	}
	s.workers[w].call(func(w *worker) { err = w.addQueue(rx) })
	if err == nil {
		s.loads[w]++
	}
	return err
}

// unassignLocked takes queues from their workers: when it returns nothing is read
// from them any more.
func (s *Switch) unassignLocked(queues []assigned) {
	for i, w := range s.workers {
		var of []*rxQueue
		for _, q := range queues {
			if q.worker == i {
				of = append(of, q.rx)
			}
		}
		if len(of) == 0 {
			continue
		}
		w.call(func(w *worker) {
			for _, q := range of {
				w.removeQueue(q)
			}
		})
		s.loads[i] -= len(of)
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
func (s *Switch) Detach(name string) error { return s.DetachPorts([]string{name}) }

// DetachPorts is Detach for ports that go together, as DelPorts is DelPort. Those
// that exist are detached, also when it fails.
func (s *Switch) DetachPorts(names []string) error {
	s.mu.Lock()
	ports, errs := s.portsLocked("detach", names)
	devices := s.detachLocked(ports...)
	s.mu.Unlock()
	return errors.Join(append(errs, closeAll(devices))...)
}

// portsLocked returns the ports of these names, each once, and an error for each
// name that has none, or is there twice.
func (s *Switch) portsLocked(what string, names []string) (ports []*port, errs []error) {
	named := map[string]bool{}
	for _, name := range names {
		if p := s.ports[name]; p != nil && !named[name] {
			named[name] = true
			ports = append(ports, p)
		} else {
			errs = append(errs, fmt.Errorf("%s port %s: %w", what, name, ErrNotExist))
		}
	}
	return ports, errs
}

// silenceLocked ends the reading of ports' frames: when it returns no worker has one
// in hand.
func (s *Switch) silenceLocked(ports ...*port) {
	var queues []assigned
	bound := false
	for _, p := range ports {
		queues = append(queues, p.queues...)
		p.queues = nil
		if b, ok := p.device.(Bound); ok {
			b.Unbind()
			bound = true
		}
	}
	s.unassignLocked(queues)
	if bound {
		s.graceLocked() // what an endpoint had read before
	}
	for _, p := range ports {
		p.link.up.Store(false)
	}
}

// forgetLocked makes workers drop what waits for ports of which the snapshot does not
// tell any more, or not of their devices: nobody uses those when it returns.
func (s *Switch) forgetLocked(ports ...*port) {
	for _, w := range s.workers {
		w.call(func(w *worker) {
			for _, p := range ports {
				w.forget(p.id)
			}
		})
	}
}

// detachLocked returns the devices of those ports that have one, which nobody uses
// any more, for the caller to close.
func (s *Switch) detachLocked(ports ...*port) (devices []closing) {
	ports = slices.DeleteFunc(ports, func(p *port) bool { return p.device == nil })
	if len(ports) == 0 {
		return nil
	}
	// Nothing is read any more; then nothing is sent any more; then nobody knows
	// the devices, and they can be closed.
	s.publishPendingLocked()
	s.silenceLocked(ports...)
	for _, p := range ports {
		devices = append(devices, closing{p.name, p.device})
		p.device, p.view = nil, nil
	}
	s.publishLocked()
	s.forgetLocked(ports...)
	for i, p := range ports {
		p.bridge.fdb.FlushPort(fdb.Port(p.id))
		p.missed += devices[i].device.Missed()
	}
	return devices
}

// DelPort removes a port, and closes its device.
func (s *Switch) DelPort(name string) error { return s.DelPorts([]string{name}) }

// DelPorts removes ports together, and closes their devices: one snapshot and two
// grace periods serve all. Those that can be removed are, also when it fails.
func (s *Switch) DelPorts(names []string) error {
	s.mu.Lock()
	ports, errs := s.portsLocked("delete", names)
	devices := s.delPortsLocked(ports)
	s.mu.Unlock()
	return errors.Join(append(errs, closeAll(devices))...)
}

// delPortsLocked returns the ports' devices for the caller to close. The order is
// detachLocked's.
func (s *Switch) delPortsLocked(ports []*port) (devices []closing) {
	if len(ports) == 0 {
		return nil
	}
	s.publishPendingLocked()
	s.silenceLocked(ports...)
	for _, p := range ports {
		s.departLocked(p)
		delete(s.ports, p.name)
		delete(p.bridge.ports, p.name)
		s.byID[p.id] = nil
	}
	s.publishLocked()
	s.forgetLocked(ports...)
	s.departedLocked()
	gone := map[*bridge][]fdb.Port{}
	for _, p := range ports {
		gone[p.bridge] = append(gone[p.bridge], fdb.Port(p.id))
		s.free = append(s.free, p.id)
		c := s.countersLocked(p)
		p.bridge.removed.Add(&c)
		if p.device != nil {
			devices = append(devices, closing{p.name, p.device})
		}
	}
	for b, ids := range gone {
		b.fdb.DropPorts(ids...)
	}
	return devices
}
