package vswitch

import (
	"fmt"

	"vswitch/frame"
)

// Injected is a frame that is put into the switch by hand.
type Injected struct {
	Data    []byte // VLAN tag included
	Offload frame.Offload
}

// Inject carries frames through the switch as if they had come in by a port, in
// order: they are learned, forwarded, counted and seen like any other. len(frames) is
// at most frame.MaxBatch. It returns when they were sent, or queued.
func (s *Switch) Inject(port string, frames []Injected) error {
	if len(frames) > frame.MaxBatch {
		return fmt.Errorf("inject %d frames: at most %d at a time", len(frames), frame.MaxBatch)
	}
	return s.byHand("inject frames into", port, func(w *worker, id uint32) {
		for i, x := range frames {
			w.batch.Frames[i].Load(x.Data, x.Offload)
			w.batch.Frames[i].Port = id
		}
		w.batch.N = len(frames)
		w.carry(len(frames))
	})
}

// Emit sends a frame of the switch's own out by a port, with tag; the pipeline has
// no part in it. It counts as an answer of the port's bridge. len(data) is at most
// frame.MaxLen.
func (s *Switch) Emit(port string, tag frame.Tag, data []byte) error {
	if len(data) < frame.EthLen || len(data) > frame.MaxLen {
		return fmt.Errorf("send a frame of %d bytes by port %s: want %d to %d", len(data), port, frame.EthLen, frame.MaxLen)
	}
	return s.byHand("send a frame by", port, func(w *worker, id uint32) {
		p := w.snap.ports[id]
		f := w.batch.Frames[0]
		f.Set(data)
		f.Port = id
		w.batch.N = 1
		w.snap.bridges[p.bridge].counters[w.id].answers.Add(1)
		if o := (frame.Out{F: f, Tag: tag, Quiet: true, Own: true}); !p.up() || p.device == nil {
			w.dropOut(p, &o, DropPortDown)
		} else {
			q := w.txQueue(p)
			q.staged[0], q.n = o, 1
			w.flush(q)
		}
		w.batch.Renew()
	})
}

// byHand runs do on the thread of the worker that reads a port's first queue, with
// the port's number in that worker's snapshot. The worker's batch is empty then.
func (s *Switch) byHand(what, port string, do func(w *worker, id uint32)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[port]
	switch {
	case s.closed:
		return fmt.Errorf("%s port %s: %w", what, port, ErrClosed)
	case p == nil:
		return fmt.Errorf("%s port %s: %w", what, port, ErrNotExist)
	}
	s.publishPendingLocked()
	by := int(p.id) % len(s.workers)
	if len(p.queues) > 0 {
		by = p.queues[0].worker
	}
	s.workers[by].call(func(w *worker) {
		w.tick()
		do(w, p.id)
	})
	return nil
}
