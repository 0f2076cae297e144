package vswitch

import (
	"sync/atomic"

	"vswitch/fdb"
)

// snapshot is all that a worker knows of the configuration. It and what it points
// to is immutable, but for what is said to be atomic.
type snapshot struct {
	ports   []*portView   // by port id; nil where there is none
	bridges []*bridgeView // by bridge id; nil where there is none
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
	unlearned   *VLANSet      // mirrors' output VLANs; nil: none
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

	srcMirrors, dstMirrors uint64 // bits in bridgeView.mirrors
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
