package vswitch

import (
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// shadow is a worker that nobody runs: it carries frames through a private copy of
// the workers' snapshot, whose devices keep what they are given and whose counters
// nobody reads. What it tells of is what the workers' own code does.
type shadow struct {
	worker
	of     *snapshot // that snap is a copy of
	storms []stormCopy
}

// stormCopy is a storm control and the shadow's own copy of it.
type stormCopy struct{ from, to *storm }

// shadowBuffers are what a shadow needs beside its batch: segments of a super-frame.
const shadowBuffers = frame.MaxBatch

// shadowRingLen is enough for the copies of one frame to one capture file.
const shadowRingLen = 1 << 20

// shadowLocked returns the shadow of a snapshot. It needs shadowMu.
func (s *Switch) shadowLocked(snap *snapshot) (*shadow, error) {
	if s.shadow == nil {
		sh := &shadow{worker: worker{sw: s, finished: make([]frame.Out, 0, frame.MaxBatch)}}
		pool, err := frame.NewPool(frame.MaxBatch + shadowBuffers)
		if err != nil {
			return nil, err
		}
		sh.pool, sh.batch, sh.buffers = pool, frame.NewBatch(pool), pool.Size()
		s.shadow = sh
	}
	if s.shadow.of != snap {
		s.shadow.copySnapshot(snap)
	}
	return s.shadow, nil
}

func (s *Switch) closeShadow() {
	s.shadowMu.Lock()
	defer s.shadowMu.Unlock()
	if s.shadow != nil {
		s.shadow.pool.Close()
		s.shadow = nil
	}
}

// copySnapshot makes the shadow's snapshot anew.
func (sh *shadow) copySnapshot(from *snapshot) {
	to := &snapshot{ports: make([]*portView, len(from.ports)), bridges: make([]*bridgeView, len(from.bridges))}
	sh.storms = nil
	for i, p := range from.ports {
		if p == nil {
			continue
		}
		v := *p
		v.counters = make([]portCounters, 1)
		v.masks = masks{}
		if p.device != nil {
			v.device = keeper{p.device.Offloads()}
		}
		if p.storm != nil {
			v.storm = &storm{}
			sh.storms = append(sh.storms, stormCopy{p.storm, v.storm})
		}
		to.ports[i] = &v
	}
	for i, b := range from.bridges {
		if b == nil {
			continue
		}
		v := *b
		v.counters = make([]bridgeCounters, 1)
		v.ports = make([]*portView, len(b.ports))
		for j, p := range b.ports {
			v.ports[j] = to.ports[p.id]
		}
		v.mirrors = make([]*mirrorView, len(b.mirrors))
		for j, m := range b.mirrors {
			c := mirrorView{name: m.name, vlans: m.vlans, outPort: m.outPort, outVLAN: m.outVLAN, snap: m.snap}
			c.copied, c.missed = new(atomic.Uint64), new(atomic.Uint64)
			if m.rings != nil {
				c.rings = []*byteRing{newByteRing(shadowRingLen)}
			}
			v.mirrors[j] = &c
		}
		to.bridges[i] = &v
	}
	sh.of, sh.snap, sh.tx = from, to, nil
}

// run carries one frame through.
func (sh *shadow) run(port uint32, data []byte, o frame.Offload, probing bool) *Traced {
	sh.now, sh.nano = sh.sw.Now(), sh.sw.nanotime()
	for _, c := range sh.storms {
		c.to.copyFrom(c.from)
	}
	for _, b := range sh.snap.bridges {
		if b == nil {
			continue
		}
		for _, m := range b.mirrors {
			for _, r := range m.rings {
				r.tail.Store(r.head.Load()) // empty again
			}
		}
	}
	for _, q := range sh.tx {
		if q != nil {
			q.answers = answerLimit{} // nobody was answered by a trace
		}
	}
	sh.trace = newTracer(&sh.worker, dryBounds)
	sh.trace.dry, sh.trace.probing = true, probing
	f := sh.batch.Frames[0]
	f.Load(data, o)
	f.Port = port
	sh.batch.N = 1
	sh.carry(1)
	t := sh.trace
	sh.trace = nil
	t.end()
	return &t.Traced
}

// keeper is the device of a shadow's port: it takes all it is given. The tracer has
// seen it then.
type keeper struct{ offloads bool }

func (k keeper) Queues() int                                   { return 0 }
func (k keeper) FD(int) int                                    { return -1 }
func (k keeper) Recv(int, *frame.Batch, int) (int, unix.Errno) { return 0, unix.EAGAIN }
func (k keeper) SendFD(int) int                                { return -1 }
func (k keeper) Offloads() bool                                { return k.offloads }
func (k keeper) Missed() uint64                                { return 0 }
func (k keeper) Close() error                                  { return nil }
func (k keeper) Send(_ int, _ *frame.Vectors, out []frame.Out) (int, unix.Errno) {
	return len(out), 0
}
