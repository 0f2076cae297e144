package vswitch

import (
	"context"
	"fmt"
	"math/bits"
	"sync/atomic"

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
	Snap    int      // bytes of a frame that are copied; 0: all
}

// mirrorView is a mirror as a worker sees it.
type mirrorView struct {
	name    string
	vlans   *VLANSet
	outPort int         // a port id, or -1
	outVLAN int         // or -1
	rings   []*byteRing // one a worker; nil without a file
	snap    int
	copied  *atomic.Uint64
	missed  *atomic.Uint64
}

// outputSet is what a frame is put out by, and which mirrors want it for that: bits
// in bridgeView.mirrors.
type outputSet struct {
	n       int    // ports
	first   uint32 // of them
	in, out uint64 // mirrors: because it came in, because it leaves
	port    uint32 // the first it leaves by that is mirrored
}

// add notes that the frame leaves by p.
func (s *outputSet) add(p *portView) {
	if s.n == 0 {
		s.first = p.id
	}
	s.n++
	if p.dstMirrors != 0 && s.out == 0 {
		s.port = p.id
	}
	s.out |= p.dstMirrors
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
			m = &mirror{sw: s, bridge: b, sink: c.Sink, snap: c.Snap}
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
		name:  m.config.Name,
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
		s.writing.Go(func() { m.write(ctx, rings) }) // ended by setMirrorsLocked
	}
}

// mirror gives each mirror in set its copy of the frame.
func (w *worker) mirror(br *bridgeView, in *portView, f *frame.Frame, vid uint16, tag frame.Tag, set *outputSet, depth int) {
	was := w.quiet // a copy that went through a patch may be copied there
	w.quiet = true
	defer func() { w.quiet = was }()
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
			rec := w.seen(in, f, tag)
			if set.in&(1<<bit) == 0 {
				rec.port, rec.out = set.port, true
			}
			w.capture(br, in, m, f, tag, rec)
		case m.outPort >= 0:
			if out := w.snap.ports[m.outPort]; out != nil {
				copies = 1
				if g := w.cut(f, m.snap); g != nil {
					w.output(out, g, out.vlan.egress(vid, tag), depth)
				} else {
					w.dropOut(out, &frame.Out{F: f, Tag: tag}, DropBuffers)
				}
			}
		case m.outVLAN >= 0:
			// As OVS: what is in the VLAN already is there to be seen, and a copy of
			// a control frame would be taken for one by the switches on the way.
			v := uint16(m.outVLAN)
			if dst := f.Dst(); v == vid || linkLocal(&dst) {
				continue
			}
			g := w.cut(f, m.snap)
			for _, out := range br.ports {
				if !out.vlan.member(v) || !out.up() {
					continue
				}
				copies++
				if g != nil {
					w.output(out, g, out.vlan.egress(v, tag), depth)
				} else {
					w.dropOut(out, &frame.Out{F: f, Tag: tag}, DropBuffers)
				}
			}
		}
		if t := w.trace; t != nil {
			t.mirrored(m, copies)
		}
		m.copied.Add(uint64(copies))
		br.counters[w.id].mirrorCopies.Add(uint64(copies))
	}
}

// cut returns a copy of the frame's first n bytes, for a mirror whose copies are to
// fit where the frame itself would not: f itself if it is not longer, or if n is 0; nil
// when there is no buffer. A super-frame becomes one cut frame. It is released when all
// that is staged was sent.
func (w *worker) cut(f *frame.Frame, n int) *frame.Frame {
	if n == 0 || f.Len() <= max(n, frame.EthLen) {
		return f
	}
	if w.pool.Free() < w.buffers/3 {
		return nil // copies must not take the buffers that real frames need
	}
	g := w.pool.Get()
	if g == nil {
		return nil
	}
	g.Set(f.Bytes()[:max(n, frame.EthLen)])
	g.Port = f.Port
	w.cuts = append(w.cuts, g)
	return g
}

// repeats reports whether one of the mirrors in done gave its copy to where m
// would: as with OVS, a frame is copied once to a port or VLAN, however many mirrors
// lead there.
func (m *mirrorView) repeats(br *bridgeView, done uint64) bool {
	for ; done != 0 && m.rings == nil; done &= done - 1 {
		o := br.mirrors[bits.TrailingZeros64(done)]
		if o.rings == nil && o.outPort == m.outPort && o.outVLAN == m.outVLAN && o.snap == m.snap {
			return true
		}
	}
	return false
}
