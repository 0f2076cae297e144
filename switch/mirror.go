package vswitch

import (
	"context"
	"math"
	"math/bits"
	"sync/atomic"
	"time"

	"vswitch/capture"
	"vswitch/frame"
)

// MirrorConfig says which frames of a bridge are copied, and where to. The words
// and their meaning are those of ovs-vswitchd.conf.db(5), table Mirror: a frame
// is copied once to a mirror, however many selections it meets.
type MirrorConfig struct {
	Name    string
	All     bool     // all ports' frames
	Src     []string // frames that come in by these ports
	Dst     []string // frames that leave by these ports
	VLANs   *VLANSet // only frames in these VLANs; nil: in any
	OutPort string   // copies leave by this port, which carries nothing else
	OutVLAN int      // copies are flooded in this VLAN (RSPAN); -1: not
	Sink    Sink     // copies are written to a file; nil: not
	Snap    int      // bytes of a frame that are copied to Sink; 0: all
}

// Sink is what a mirror's copies are written to, by one goroutine of the mirror's
// own: each call may wait for a disk, for ever if need be. A *capture.File is one.
type Sink interface {
	// Write takes one frame, its tag in the bytes and its checksum finished; a
	// super-frame is still one. p is the caller's again when it returns. What
	// cannot be written is for the sink to count and tell.
	Write(p *capture.Packet)
	// Flush is called first, when nothing waits to be written, and once a second.
	Flush()
	// Close is called last.
	Close() error
}

// mirrorView is a mirror as a worker sees it.
type mirrorView struct {
	vlans   *VLANSet
	outPort int         // a port id, or -1
	outVLAN int         // or -1
	rings   []*byteRing // one a worker; nil without a file
	snap    int
	copied  *atomic.Uint64
	missed  *atomic.Uint64
}

// mirrorSet gathers which mirrors want a frame: bits in bridgeView.mirrors.
type mirrorSet struct {
	in, out uint64 // because it came in, because it leaves
	port    uint32 // the first it leaves by that is mirrored
}

// add notes that the frame leaves by p.
func (s *mirrorSet) add(p *portView) {
	if p.dstMirrors != 0 && s.out == 0 {
		s.port = p.id
	}
	s.out |= p.dstMirrors
}

// mirror gives each mirror in set its copy of the frame.
func (w *worker) mirror(br *bridgeView, in *portView, f *frame.Frame, vid uint16, tag frame.Tag, set mirrorSet, depth int) {
	var done uint64
	for mask := set.in | set.out; mask != 0; mask &= mask - 1 {
		bit := bits.TrailingZeros64(mask)
		m := br.mirrors[bit]
		if m.vlans != nil && !m.vlans.Has(vid) || m.repeats(br, done) {
			continue
		}
		done |= 1 << bit
		copies := 0
		switch {
		case m.rings != nil:
			copies = 1
			rec := record{port: in.id}
			if set.in&(1<<bit) == 0 {
				rec.port, rec.out = set.port, true
			}
			w.capture(br, in, m, f, tag, rec)
		case m.outPort >= 0:
			if out := w.snap.ports[m.outPort]; out != nil {
				copies = 1
				w.output(out, f, out.vlan.egress(vid, tag), depth)
			}
		case m.outVLAN >= 0:
			// As OVS: what is in the VLAN already is there to be seen, and a copy of
			// a control frame would be taken for one by the switches on the way.
			v := uint16(m.outVLAN)
			if dst := f.Dst(); v == vid || linkLocal(&dst) {
				continue
			}
			for _, out := range br.ports {
				if out.vlan.member(v) && out.up() {
					copies++
					w.output(out, f, out.vlan.egress(v, tag), depth)
				}
			}
		}
		m.copied.Add(uint64(copies))
		br.counters[w.id].mirrorCopies.Add(uint64(copies))
	}
}

// repeats reports whether one of the mirrors in done gave its copy to where m
// would: as with OVS, a frame is copied once to a port or VLAN, however many mirrors
// lead there.
func (m *mirrorView) repeats(br *bridgeView, done uint64) bool {
	for ; done != 0 && m.rings == nil; done &= done - 1 {
		o := br.mirrors[bits.TrailingZeros64(done)]
		if o.rings == nil && o.outPort == m.outPort && o.outVLAN == m.outVLAN {
			return true
		}
	}
	return false
}

// capture hands a copy of the frame to a capture file's ring; rec says by which
// port it came or goes.
func (w *worker) capture(br *bridgeView, in *portView, m *mirrorView, f *frame.Frame, tag frame.Tag, rec record) {
	n := f.Len()
	if m.snap > 0 {
		n = min(n, m.snap)
	}
	rec.at, rec.tag, rec.offload, rec.wireLen, rec.n = w.nano, tag, f.Offload, f.Len(), n
	if tag.Present() {
		rec.wireLen += frame.TagLen
	}
	if !m.rings[w.id].write(&rec, f.Bytes()) {
		m.missed.Add(1)
		w.drop(in, DropCaptureRing)
		return
	}
	br.counters[w.id].captured.Add(1)
}

// mirror is the control side's half of a mirror.
type mirror struct {
	config MirrorConfig // guarded by Switch.mu
	bridge *bridge
	view   *mirrorView // guarded by Switch.mu
	sink   Sink        // config.Sink and Snap, for write
	snap   int
	copied atomic.Uint64
	missed atomic.Uint64

	cancel context.CancelFunc // ends write

	// These belong to write.
	packet  capture.Packet // at hand
	clock   time.Time      // when the switch's clock began
	told    uint64         // of missed, to the sink
	flushed int            // the second in which the sink was flushed last
}

// capturePoll is how long a mirror's goroutine rests when it has nothing to
// write: a worker never wakes anybody for a copy. It is also how old a copy is
// before it is written: time for the other workers' copies that are older to
// come in, so that the file is in order.
const capturePoll = 2 * time.Millisecond

// write brings copies from the workers' rings to the sink until ctx ends, and
// then what is left.
func (m *mirror) write(ctx context.Context, rings []*byteRing, name func(port uint32) string) {
	defer m.sink.Close()
	data := make([]byte, frame.MaxLen+frame.TagLen)
	tick := time.NewTicker(capturePoll)
	defer tick.Stop()
	m.sink.Flush() // a sink that is opened late is opened now
	for {
		select {
		case <-ctx.Done():
			m.writeUntil(math.MaxInt64, rings, data, name)
			return
		case now := <-tick.C:
			if m.writeUntil(int64(now.Add(-capturePoll).Sub(m.clock)), rings, data, name) > 0 || now.Second() != m.flushed {
				// Also without a copy once a second: a sink whose disk failed tries
				// again then.
				m.sink.Flush()
				m.flushed = now.Second()
			}
		}
	}
}

// writeUntil writes, in order of time, what was copied before a moment, and
// returns how many copies that were.
func (m *mirror) writeUntil(limit int64, rings []*byteRing, data []byte, name func(port uint32) string) (n int) {
	for {
		var oldest *byteRing
		first := limit
		for _, r := range rings {
			if at, ok := r.peek(); ok && (at < first || at == first && oldest == nil) {
				oldest, first = r, at
			}
		}
		if oldest == nil {
			return n
		}
		m.writeOne(oldest, data, name)
		n++
	}
}

// writeOne writes a ring's oldest copy; there is one.
func (m *mirror) writeOne(r *byteRing, data []byte, name func(uint32) string) {
	var rec record
	b := data[frame.TagLen:]
	r.read(&rec, b)
	b = b[:rec.n]
	if whole := rec.wireLen; rec.n == whole || rec.tag.Present() && rec.n == whole-frame.TagLen {
		// Headers that cannot be finished are shown as they are, and so is the
		// checksum of a frame that is not here in full: nobody can verify that.
		_ = frame.Finish(b, &rec.offload)
	}
	if rec.tag.Present() {
		b = rec.tag.Insert(data[:frame.TagLen+rec.n])
	}
	if m.snap > 0 {
		b = b[:min(len(b), m.snap)]
	}
	p := &m.packet
	*p = capture.Packet{
		Time: m.clock.Add(time.Duration(rec.at)), Interface: capture.Interface{Name: name(rec.port)},
		Direction: capture.Inbound, Data: b, OrigLen: rec.wireLen,
	}
	if rec.out {
		p.Direction = capture.Outbound
	}
	missed := m.missed.Load()
	p.Dropped, m.told = missed-m.told, missed
	m.sink.Write(p)
}
