package vswitch

import (
	"sync/atomic"

	"vswitch/fdb"
)

// snapshot is all that a worker knows of the configuration. It and what it points
// to is immutable, but for what is said to be atomic.
type snapshot struct {
	ports     []*portView   // by port id; nil where there is none
	bridges   []*bridgeView // by bridge id; nil where there is none
	watches   [MaxWatches]*Watch
	watchTurn uint32     // of which the bits in ports' masks are
	live      *liveTrace // nil: nobody traces live
}

// bridgeView is a bridge as a worker sees it.
type bridgeView struct {
	id          int
	name        string
	fdb         *fdb.FDB
	counters    []bridgeCounters // one a worker
	ports       []*portView      // that frames are flooded to: all but mirrors' outputs
	forwardBPDU bool
	mirrors     []*mirrorView // by bit in portView.srcMirrors and dstMirrors
	floodVLANs  *VLANSet      // in which nothing is learned; nil: none
}

// portView is a port as a worker sees it.
type portView struct {
	id       uint32
	name     string
	bridge   int
	device   Device         // nil: a patch port, or one without its interface
	counters []portCounters // one a worker
	link     *link          // atomic

	vlan         VLAN
	peer         int  // the other end of a patch port: a port id, or -1
	finish       bool // finish frames in software before sending
	ring         int  // bound of the transmit ring, in frames
	mirrorOutput bool // reserved for a mirror
	tunnel       bool
	group        int    // of ports that send each other nothing; 0: none
	storm        *storm // nil: no limit

	srcMirrors, dstMirrors uint64 // bits in bridgeView.mirrors
	masks                         // bits in snapshot.watches
	born                   int64  // on the switch's clock in nanoseconds
}

// up reports whether frames may be sent by the port. The link is told to old views
// and new ones alike, so a view that has no device, nor a peer, is not up whatever
// the link says: a worker may hold it while the device comes.
func (p *portView) up() bool { return (p.device != nil || p.peer >= 0) && p.link.up.Load() }

// link is the state of a port's interface, told by the control side.
type link struct {
	up  atomic.Bool  // frames may be sent to it
	mtu atomic.Int32 // bytes of payload; 0 is no limit
}

// maxMirrors is how many mirrors a bridge may have: bits in a word.
const maxMirrors = 64

// port returns the port of an id, or nil.
func (s *snapshot) port(id uint32) *portView {
	if int(id) < len(s.ports) {
		return s.ports[id]
	}
	return nil
}

// portName returns a port's name by its id, from the snapshot: no lock.
func (s *Switch) portName(id uint32) string {
	if ports := s.snap.Load().ports; int(id) < len(ports) && ports[id] != nil {
		return ports[id].name
	}
	return ""
}

// graceLocked waits until no worker uses an older snapshot than the newest.
func (s *Switch) graceLocked() {
	for _, w := range s.workers {
		w.call(func(*worker) {})
	}
}

// Together runs do, in which many ports may be added and attached for one snapshot:
// one for each would take a time that grows with the square of their number. Workers
// see what do did when Together returns, or sooner: whatever else is changed
// meanwhile, by anybody, publishes all, in the order in which it came.
func (s *Switch) Together(do func()) {
	s.mu.Lock()
	s.together++
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.together--; s.together == 0 {
			s.publishPendingLocked()
		}
	}()
	do()
}

// publishSoonLocked is publishLocked at the end of Together.
func (s *Switch) publishSoonLocked() {
	s.pending = true
	if s.together == 0 {
		s.publishLocked()
	}
}

// publishPendingLocked publishes what publishSoonLocked put off.
func (s *Switch) publishPendingLocked() {
	if s.pending {
		s.publishLocked()
	}
}

// publishLocked makes what the control side knows the workers' snapshot. Views
// that still hold are shared with the one before.
func (s *Switch) publishLocked() {
	s.pending = false
	s.published++
	snap := &snapshot{ports: make([]*portView, len(s.byID)), bridges: make([]*bridgeView, len(s.byNum)), watches: s.watches, watchTurn: s.watchTurn, live: s.live}
	for i, b := range s.byNum {
		if b != nil {
			snap.bridges[i] = b.newView()
		}
	}
	var down []*port // patch ports whose peer went
	for id, p := range s.byID {
		if p == nil {
			continue
		}
		if peer := s.peerLocked(p); p.view == nil || p.view.peer != peer {
			p.view = p.newView(peer)
			p.view.masks = s.masksLocked(p)
		}
		if p.config.Patch {
			if was := p.link.up.Swap(p.view.peer >= 0); was && p.view.peer < 0 {
				down = append(down, p)
			}
		}
		snap.ports[id] = p.view
		if br := snap.bridges[p.bridge.id]; !p.view.mirrorOutput {
			br.ports = append(br.ports, p.view)
		}
	}
	s.snap.Store(snap)
	for _, p := range s.unbound {
		p.device.(Bound).Bind(p.id) // every snapshot that a worker may load from now on has the port
	}
	s.unbound = nil
	if len(down) > 0 {
		s.graceLocked() // nobody learns on them any more
	}
	for _, p := range down {
		p.bridge.fdb.FlushPort(fdb.Port(p.id))
	}
}

func (b *bridge) newView() *bridgeView {
	v := &bridgeView{
		id: b.id, name: b.name, fdb: b.fdb, counters: b.counters,
		ports: make([]*portView, 0, len(b.ports)), forwardBPDU: b.config.ForwardBPDU, floodVLANs: b.config.FloodVLANs,
	}
	for _, m := range b.mirrors {
		mv := *m.view
		if p := b.ports[m.config.OutPort]; p != nil {
			mv.outPort = int(p.id)
		}
		v.mirrors = append(v.mirrors, &mv)
	}
	return v
}

func (p *port) newView(peer int) *portView {
	v := &portView{
		id: p.id, name: p.name, bridge: p.bridge.id, device: p.device, counters: p.counters,
		link: &p.link, vlan: p.config.VLAN, peer: peer, ring: p.config.TxRing, born: p.born,
	}
	if v.ring == 0 {
		v.ring = DefaultTxRing
	}
	v.tunnel, v.group, v.storm = p.config.Tunnel, p.group, p.storm
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
