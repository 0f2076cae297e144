package vswitch

import (
	"encoding/binary"

	"vswitch/fdb"
	"vswitch/frame"
)

// Bounds on what one received frame may do: more means that bridges are patched
// together in a loop.
const (
	maxPatchDepth = 8  // patch ports that one copy goes through
	maxCrossings  = 64 // patch ports that all its copies go through together
)

// forward carries one frame through the bridge of the port it came in by. tag is
// the frame's tag there; depth counts the patch ports it went through. The frame
// must have passed Check.
//
// The order is that of docs/design.md, "The way of a frame".
func (w *worker) forward(in *portView, f *frame.Frame, tag frame.Tag, depth int) {
	br := w.snap.bridges[in.bridge]
	dst, src := f.Dst(), f.Src()

	// Port state and VLAN admission.
	if t := w.trace; t != nil {
		t.cameIn(w, br, in, f, tag, depth)
	}
	if in.mirrorOutput {
		w.dropIn(in, f, tag, DropMirrorPort)
		return
	}
	vid, why := in.vlan.admit(tag)
	if why != DropNone {
		w.dropIn(in, f, tag, why)
		return
	}
	if t := w.trace; t != nil {
		t.admitted(in, vid, tag)
	}
	if et := f.EtherType(); et != frame.EtherIPv4 && w.overhear(in, f, tag, vid, et) {
		return
	}
	outs := outputSet{in: in.srcMirrors}

	if linkLocal(&dst) && !br.forwardBPDU {
		w.dropIn(in, f, tag, DropReserved)
	} else {
		// Learn the source, look up the destination.
		why = w.learn(br, in, vid, &src)
		out, known := w.lookup(br, vid, &dst)
		if t := w.trace; t != nil {
			out, known = t.lookedUp(br, out, known, vid, &dst)
		}
		if !known && why == DropNone && f.Own {
			why = DropNobody
		}
		if !known && why == DropNone && in.storm != nil {
			why = in.storm.admit(&dst, w.nano)
			if t := w.trace; t != nil {
				t.admittedByStorm(in, why)
			}
		}

		// The output set; a reference to the frame is staged for each output.
		switch {
		case why != DropNone:
		case known:
			why = w.unicast(in, out, f, vid, tag, depth, &outs)
		default:
			why = w.flood(br, in, f, vid, tag, depth, &outs)
		}
		if outs.n == 0 {
			w.dropIn(in, f, tag, why)
		} else {
			if outs.n > 1 {
				br.counters[w.id].floodCopies.Add(uint64(outs.n - 1))
			}
			w.cameIn(in, f, tag, vid, &outs)
		}
	}

	if outs.in|outs.out != 0 {
		w.mirror(br, in, f, vid, tag, &outs, depth)
	}
}

// linkLocal reports whether a is 01:80:c2:00:00:00 to …:0f, which no bridge
// forwards (IEEE 802.1Q-2022, table 8-1).
func linkLocal(a *[6]byte) bool {
	return binary.BigEndian.Uint32(a[:]) == 0x0180c200 && a[4] == 0 && a[5] < 0x10
}

// learn notes behind which port src is. A MAC that flaps is held where it was: a
// frame from it by another port is one that runs in a loop, and ends here.
func (w *worker) learn(br *bridgeView, in *portView, vid uint16, src *[6]byte) Reason {
	if !in.up() || br.floodVLANs != nil && br.floodVLANs.Has(vid) {
		return DropNone
	}
	var outcome fdb.Outcome
	if t := w.trace; t != nil {
		outcome = t.learn(br, in, vid, src, w.now)
	} else {
		outcome = br.fdb.Learn(fdb.MakeKey(vid, src), fdb.Port(in.id), w.now)
	}
	if outcome == fdb.Held {
		return DropFlapping
	}
	return DropNone
}

// lookup returns the port behind which dst is, if that is known.
func (w *worker) lookup(br *bridgeView, vid uint16, dst *[6]byte) (out *portView, known bool) {
	if dst[0]&1 != 0 {
		return nil, false
	}
	id, ok := br.fdb.Lookup(fdb.MakeKey(vid, dst))
	if !ok || int(id) >= len(w.snap.ports) {
		return nil, false
	}
	out = w.snap.ports[id]
	return out, out != nil && out.bridge == br.id && !out.mirrorOutput
}

// unicast stages the frame for one output, or returns why not.
func (w *worker) unicast(in, out *portView, f *frame.Frame, vid uint16, tag frame.Tag, depth int, outs *outputSet) (why Reason) {
	switch {
	case out == in:
		return DropSamePort
	case out.group != 0 && out.group == in.group:
		return DropSplitHorizon
	case !out.vlan.member(vid):
		return DropVLANOutput
	}
	w.output(out, f, out.vlan.egress(vid, tag), depth)
	outs.add(out)
	return DropNone
}

// flood stages the frame for every port in its VLAN that is up, but for the one
// it came in by and those of its group. It returns why when there are none.
func (w *worker) flood(br *bridgeView, in *portView, f *frame.Frame, vid uint16, tag frame.Tag, depth int, outs *outputSet) (why Reason) {
	was := w.quiet
	w.quiet = true
	for _, out := range br.ports {
		if out == in || out.group != 0 && out.group == in.group || !out.vlan.member(vid) || !out.up() {
			if t := w.trace; t != nil {
				t.passedOver(in, out, vid)
			}
			continue
		}
		w.output(out, f, out.vlan.egress(vid, tag), depth)
		outs.add(out)
	}
	w.quiet = was
	return DropNoPort
}

// output stages the frame to leave by out with tag, or takes it through the
// patch. Either way out answers for it from here on: it sends it or drops it.
func (w *worker) output(out *portView, f *frame.Frame, tag frame.Tag, depth int) {
	if t := w.trace; t != nil {
		t.output(out, tag)
	}
	switch {
	case !out.up():
		w.dropOut(out, &frame.Out{F: f, Tag: tag}, DropPortDown)
	case out.peer >= 0:
		w.patch(out, f, tag, depth)
	default:
		w.stage(out, f, tag)
	}
}

// patch carries the frame into the bridge at the other end of a patch port.
func (w *worker) patch(out *portView, f *frame.Frame, tag frame.Tag, depth int) {
	if depth == maxPatchDepth || w.crossings == maxCrossings {
		w.dropOut(out, &frame.Out{F: f, Tag: tag}, DropPatchLoop)
		return
	}
	w.crossings++
	n := uint64(f.Len())
	if tag.Present() {
		n += frame.TagLen
	}
	out.counters[w.id].sent(1, n)
	if out.sawOut != 0 {
		r := w.seenOut(out, &frame.Out{F: f, Tag: tag})
		w.watched(out, out.sawOut, &r, f)
	}
	peer := w.snap.ports[out.peer]
	peer.counters[w.id].received(1, n)
	w.forward(peer, f, tag, depth+1)
	if t := w.trace; t != nil {
		t.bridge, t.depth = w.snap.bridges[out.bridge].name, depth
	}
}

// dropIn counts a frame that goes no further than the port it came in by.
func (w *worker) dropIn(p *portView, f *frame.Frame, tag frame.Tag, why Reason) {
	r := w.seen(p, f, tag)
	r.vid, _ = p.vlan.admit(tag)
	w.drop(p, &r, f, why, p.lostIn)
}

// dropOut counts a frame that does not leave by a port that it was put out by.
func (w *worker) dropOut(p *portView, o *frame.Out, why Reason) {
	r := w.seenOut(p, o)
	w.drop(p, &r, o.F, why, p.lostOut)
}

// drop counts a frame that goes no further, and tells who looks: those in mask, and
// the recorder.
func (w *worker) drop(p *portView, r *record, f *frame.Frame, why Reason, mask uint32) {
	r.reason = why
	c := p.counters[w.id].drop(why)
	c.add(1, w.now)
	c.keep(r, f.Bytes())
	if w.drops.admit(w.nano) {
		w.drops.write(r, f.Bytes())
	}
	if mask != 0 {
		w.watched(p, mask, r, f)
	}
	if t := w.trace; t != nil {
		t.dropped(w, p, r, f)
	}
}
