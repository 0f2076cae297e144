package vswitch

import (
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// txQueue is what one worker has to send by one port: what is staged during a
// batch, and, in its transmit ring, what the device would not take at once.
// Frames of the ring go first, so the order within a flow is kept.
//
// Thread-safety: none; it belongs to its worker.
type txQueue struct {
	port   *portView
	staged [frame.MaxBatch]frame.Out
	n      int
	dirty  bool // in worker.dirty
	// tunnelled says that a super-frame is staged that was encapsulated by its
	// sender (VXLAN in a container): a virtio-net header cannot tell the kernel, so
	// it is segmented in software for every output.
	tunnelled bool
	ring      outRing
	armed     int      // the slot whose descriptor it waits for; 0: none
	next      *txQueue // that waits for the same one
	answers   answerLimit
}

// outRing is a bounded FIFO of frames that its pool keeps for it. It takes no
// memory until its first use.
type outRing struct {
	outs    []frame.Out
	head, n int
}

// front returns frames at the head that lie in one piece, at most MaxBatch.
func (r *outRing) front() []frame.Out {
	return r.outs[r.head:min(r.head+r.n, len(r.outs), r.head+frame.MaxBatch)]
}

// pop takes n frames off the head.
func (r *outRing) pop(n int) {
	r.head = (r.head + n) % len(r.outs)
	r.n -= n
}

// push adds one frame at the tail; r is not full.
func (r *outRing) push(o frame.Out) {
	r.outs[(r.head+r.n)%len(r.outs)] = o
	r.n++
}

// stage notes that the frame leaves by out with tag, when the batch is through.
func (w *worker) stage(out *portView, f *frame.Frame, tag frame.Tag) {
	q := w.txQueue(out)
	q.staged[q.n] = frame.Out{F: f, Tag: tag, Quiet: w.quiet}
	q.n++
	q.tunnelled = q.tunnelled || f.Tunnelled
	if !q.dirty {
		q.dirty = true
		w.dirty = append(w.dirty, q)
	}
	if q.n == len(q.staged) {
		w.flush(q)
	}
}

// txQueue returns this worker's queue for a port. It is made at the first frame.
func (w *worker) txQueue(out *portView) *txQueue {
	if int(out.id) < len(w.tx) {
		if q := w.tx[out.id]; q != nil {
			q.port = out // of the newest snapshot
			return q
		}
	}
	for int(out.id) >= len(w.tx) {
		w.tx = append(w.tx, nil)
	}
	w.tx[out.id] = &txQueue{port: out}
	return w.tx[out.id]
}

// flushAll sends all that the batch staged.
func (w *worker) flushAll() {
	for i := 0; i < len(w.dirty); i++ {
		q := w.dirty[i]
		w.flush(q)
		q.dirty = false
	}
	w.dirty = w.dirty[:0]
	for _, f := range w.cuts {
		w.pool.Release(f)
	}
	w.cuts = w.cuts[:0]
}

// flush sends what is staged for one port.
func (w *worker) flush(q *txQueue) {
	outs := w.fitting(q)
	q.n = 0
	if q.port.finish || q.tunnelled {
		w.finish(q, outs)
	} else {
		w.send(q, outs)
	}
	q.tunnelled = false
}

// fitting drops the staged frames that are longer than the port's interface takes,
// super-frames by their segments, and returns the rest. A packet socket refuses
// plain ones by itself; nobody after us would notice the others, nor those that a
// TAP is given. Of a tunnel, in which tags take room too, the sender is told.
func (w *worker) fitting(q *txQueue) []frame.Out {
	outs := q.staged[:q.n]
	mtu := int(q.port.link.mtu.Load())
	if mtu == 0 {
		return outs
	}
	longest := mtu + frame.EthLen
	n := 0
	for _, o := range outs {
		length := o.F.Len()
		if o.F.Super() {
			length = o.F.SegmentLen()
		}
		if q.port.tunnel && o.Tag.Present() {
			length += frame.TagLen
		}
		if length > longest && (q.port.tunnel || length > longest+o.F.InnerTagLen()) {
			w.dropOut(q.port, &o, DropMTU)
			if q.port.tunnel && !o.Quiet && !q.port.mirrorOutput {
				w.answerTooBig(&o, mtu)
			}
			continue
		}
		outs[n] = o
		n++
	}
	return outs[:n]
}

// send sends outs behind what waits in the ring; what the device will not take
// now is put there too.
func (w *worker) send(q *txQueue, outs []frame.Out) {
	if q.ring.n > 0 {
		w.wait(q, outs)
		return
	}
	sent := w.try(q, outs)
	if sent < len(outs) {
		w.wait(q, outs[sent:])
		w.armOrDiscard(q)
	}
}

// try sends outs until the device is full, and returns how many it is done with:
// sent, or dropped with the reason that the device gave.
func (w *worker) try(q *txQueue, outs []frame.Out) (done int) {
	var frames, bytes uint64
	for done < len(outs) {
		n, errno := q.port.device.Send(w.id, &w.vectors, outs[done:])
		for i := done; i < done+n; i++ {
			bytes += uint64(outs[i].WireLen())
		}
		if q.port.sawOut != 0 {
			w.wentOut(q.port, outs[done:done+n])
		}
		if t := w.trace; t != nil {
			t.sent(w, q.port, outs[done:done+n])
		}
		frames += uint64(n)
		done += n
		if done == len(outs) || errno == unix.EAGAIN {
			break
		}
		w.dropOut(q.port, &outs[done], sendReason(errno))
		done++
	}
	if frames > 0 {
		q.port.counters[w.id].sent(frames, bytes)
	}
	return done
}

// wait puts outs into the port's transmit ring, as far as they fit.
func (w *worker) wait(q *txQueue, outs []frame.Out) {
	if q.ring.outs == nil {
		q.ring.outs = make([]frame.Out, q.port.ring)
	}
	for _, o := range outs {
		switch {
		case q.ring.n == len(q.ring.outs), q.ring.n > w.pool.Free()/2:
			// The second bound keeps a port that does not drain from taking all
			// buffers: a third is left to the others.
			w.dropOut(q.port, &o, DropRingFull)
		case !w.pool.Keep(o.F):
			w.dropOut(q.port, &o, DropBuffers)
		default:
			q.ring.push(o)
			if t := w.trace; t != nil {
				t.queued(q.port, q.ring.n)
			}
		}
	}
}

// drain sends from the ring, now that the device takes frames again.
func (w *worker) drain(q *txQueue) {
	w.snap = w.sw.snap.Load()
	if p := w.snap.port(q.port.id); p != nil && p.device == q.port.device {
		q.port = p // who watches it may have changed while it waited
	}
	for q.ring.n > 0 {
		outs := q.ring.front()
		done := w.try(q, outs)
		for i := range outs[:done] {
			w.pool.Release(outs[i].F)
		}
		q.ring.pop(done)
		if done < len(outs) {
			w.armOrDiscard(q)
			return
		}
	}
	w.disarm(q)
}

// armOrDiscard arms a queue. When that fails nobody would tell us to go on.
func (w *worker) armOrDiscard(q *txQueue) {
	if w.arm(q) != nil {
		w.discard(q, DropSendError)
	}
}

// finish sends outs of which some must be finished first: by a port that takes no
// super-frame and no unfinished checksum, all; by another, the tunnelled ones.
// Segments are made in buffers of their own, a checksum is completed in place,
// where it is as right for any other output.
func (w *worker) finish(q *txQueue, outs []frame.Out) {
	ready := w.finished[:0]
	flush := func() {
		w.send(q, ready)
		for i := range ready {
			if ready[i].Made {
				w.pool.Release(ready[i].F)
			}
		}
		ready = ready[:0]
	}
	for _, o := range outs {
		if !o.F.Super() || !q.port.finish && !o.F.Tunnelled {
			if q.port.finish && o.F.FinishChecksum() != nil {
				w.dropOut(q.port, &o, DropUnsegmentable)
				continue
			}
			if ready = append(ready, o); len(ready) == cap(ready) {
				flush()
			}
			continue
		}
		if w.segmenter.Start(o.F) != nil {
			w.dropOut(q.port, &o, DropUnsegmentable)
			continue
		}
		segments := uint64(0)
		for w.segmenter.More() {
			s := w.pool.Get()
			if s == nil && len(ready) > 0 {
				flush()
				s = w.pool.Get()
			}
			if s == nil { // the rest of the super-frame is lost, and counts as one
				w.dropOut(q.port, &o, DropBuffers)
				segments++
				break
			}
			w.segmenter.Next(s)
			segments++
			if ready = append(ready, frame.Out{F: s, Tag: o.Tag, Own: o.Own, Made: true}); len(ready) == cap(ready) {
				flush()
			}
		}
		if t := w.trace; t != nil {
			t.split(q.port, segments)
		}
		if segments > 1 {
			w.snap.bridges[q.port.bridge].counters[w.id].splitCopies.Add(segments - 1)
		}
	}
	flush()
}

// forget drops what waits for a port that goes, and everything about it.
func (w *worker) forget(id uint32) {
	if int(id) >= len(w.tx) || w.tx[id] == nil {
		return
	}
	q := w.tx[id]
	w.disarm(q)
	w.discard(q, DropPortRemoved)
	w.tx[id] = nil
}

// discard drops all that waits in the ring.
func (w *worker) discard(q *txQueue, why Reason) {
	for q.ring.n > 0 {
		outs := q.ring.front()
		for i := range outs {
			w.dropOut(q.port, &outs[i], why)
			w.pool.Release(outs[i].F)
		}
		q.ring.pop(len(outs))
	}
}
