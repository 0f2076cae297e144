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
	if in.mirrorOutput {
		w.drop(in, DropMirrorPort)
		return
	}
	vid, why := in.vlan.admit(tag)
	if why != DropNone {
		w.drop(in, why)
		return
	}
	copies := mirrorSet{in: in.srcMirrors}

	if linkLocal(&dst) && !br.forwardBPDU {
		w.drop(in, DropReserved)
	} else {
		// Learn the source, look up the destination.
		why = w.learn(br, in, vid, &src)
		out, known := w.lookup(br, vid, &dst)
		if !known && why == DropNone && in.storm != nil {
			why = in.storm.admit(&dst, w.nano)
		}

		// The output set; a reference to the frame is staged for each output.
		var outputs int
		switch {
		case why != DropNone:
		case known:
			outputs, why = w.unicast(in, out, f, vid, tag, depth, &copies)
		default:
			outputs, why = w.flood(br, in, f, vid, tag, depth, &copies)
		}
		switch {
		case outputs == 0:
			w.drop(in, why)
		case outputs > 1:
			br.counters[w.id].floodCopies.Add(uint64(outputs - 1))
		}
	}

	if copies.in|copies.out != 0 {
		w.mirror(br, in, f, vid, tag, copies, depth)
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
	if br.fdb.Learn(fdb.MakeKey(vid, src), fdb.Port(in.id), w.now) == fdb.Held {
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

// unicast stages the frame for one output. It returns 1, or 0 and why not.
func (w *worker) unicast(in, out *portView, f *frame.Frame, vid uint16, tag frame.Tag, depth int, copies *mirrorSet) (int, Reason) {
	if out == in {
		return 0, DropSamePort
	}
	if out.group != 0 && out.group == in.group {
		return 0, DropSplitHorizon
	}
	if out.vlan.member(vid) {
		w.output(out, f, out.vlan.egress(vid, tag), depth)
		copies.add(out)
		return 1, DropNone
	}
	return 0, DropVLANOutput
}

// flood stages the frame for every port in its VLAN that is up, but for the one
// it came in by and those of its group. It returns how many those are, and why when there are none.
func (w *worker) flood(br *bridgeView, in *portView, f *frame.Frame, vid uint16, tag frame.Tag, depth int, copies *mirrorSet) (outputs int, why Reason) {
	was := w.quiet
	w.quiet = true
	for _, out := range br.ports {
		if out == in || out.group != 0 && out.group == in.group || !out.vlan.member(vid) || !out.up() {
			continue
		}
		w.output(out, f, out.vlan.egress(vid, tag), depth)
		copies.add(out)
		outputs++
	}
	w.quiet = was
	return outputs, DropNoPort
}

// output stages the frame to leave by out with tag, or takes it through the
// patch. Either way out answers for it from here on: it sends it or drops it.
func (w *worker) output(out *portView, f *frame.Frame, tag frame.Tag, depth int) {
	switch {
	case !out.up():
		w.drop(out, DropPortDown)
	case out.peer >= 0:
		w.patch(out, f, tag, depth)
	default:
		w.stage(out, f, tag)
	}
}

// patch carries the frame into the bridge at the other end of a patch port.
func (w *worker) patch(out *portView, f *frame.Frame, tag frame.Tag, depth int) {
	if depth == maxPatchDepth || w.crossings == maxCrossings {
		w.drop(out, DropPatchLoop)
		return
	}
	w.crossings++
	n := uint64(f.Len())
	if tag.Present() {
		n += frame.TagLen
	}
	out.counters[w.id].sent(1, n)
	peer := w.snap.ports[out.peer]
	peer.counters[w.id].received(1, n)
	w.forward(peer, f, tag, depth+1)
}

// drop counts a frame that goes no further.
func (w *worker) drop(p *portView, why Reason) {
	p.counters[w.id].dropped(why, 1, w.now)
}
