package vswitch

import (
	"time"

	"vswitch/frame"
)

// A frame that does not fit into a tunnel is answered to its sender, as a router
// would: otherwise a path whose MTU is smaller than the container's is a black hole
// for all that is not TCP, and for TCP that was under way when the MTU fell. Only a
// frame to a MAC that is known is answered: of one that is flooded another copy may
// have arrived, over a path that takes it.

// answerLimit bounds the answers that go to one port, for a worker: 100 a second,
// 20 at once. A sender needs one for each path.
type answerLimit struct{ full int64 }

const (
	answerEach  = int64(time.Second) / 100
	answerDepth = 20 * answerEach
)

func (l *answerLimit) take(now int64) bool {
	next := max(l.full, now) + answerEach
	if next > now+answerDepth {
		return false
	}
	l.full = next
	return true
}

// giveBack returns what take took for nothing: who cannot be answered must not use
// up what those beside him need.
func (l *answerLimit) giveBack() { l.full -= answerEach }

// answerTooBig tells the sender of a frame, by the port that it came in by, which
// IP packet the tunnel takes: mtu bytes, less the tag that the frame leaves with.
func (w *worker) answerTooBig(o *frame.Out, mtu int) {
	in := w.snap.ports[o.F.Port]
	if in == nil || in.device == nil || !in.up() || in.mirrorOutput {
		return
	}
	mtu -= o.F.InnerTagLen()
	if o.Tag.Present() {
		mtu -= frame.TagLen
	}
	q := w.txQueue(in)
	if !q.answers.take(w.nano) {
		return
	}
	a := w.pool.Get()
	if a == nil {
		return
	}
	if !frame.TooBig(a, o.F, mtu) {
		q.answers.giveBack()
	} else {
		w.snap.bridges[in.bridge].counters[w.id].answers.Add(1)
		w.answer[0] = frame.Out{F: a, Tag: a.Tag, Own: true}
		if t := w.trace; t != nil {
			t.answered(in, mtu)
		}
		w.send(q, w.answer[:])
	}
	w.pool.Release(a)
}
