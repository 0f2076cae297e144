package vswitch

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strings"
	"sync/atomic"

	"vswitch/capture/filter"
	"vswitch/fdb"
	"vswitch/frame"
)

// Traced is the way of one frame through the pipeline.
type Traced struct {
	Sighting // how it came in
	Steps    []Step
	Left     []Sighting // the frames that left, or would: Data as it is sent, in memory of their own
	Drops    []Sighting // what was dropped on the way, each with its reason
}

// Step is one step of the pipeline, and what it decided.
type Step struct {
	Depth  int    // patch ports that the frame has gone through
	Bridge string // where it happened
	Port   string // which it is about; "": none
	Stage  string // see Stages
	Text   string // what was decided and why, in a sentence
	Reason Reason // of a drop
}

// Stages of the pipeline, in its order, as Step names them.
var Stages = []string{
	stageReceive, stageAdmission, stageLearn, stageLookup, stageStorm, stageFlood, stageOutput, stageMirror, stageTransmit, stageDrop,
}

const (
	stageReceive   = "receive"
	stageAdmission = "admission"
	stageLearn     = "learn"
	stageLookup    = "lookup"
	stageStorm     = "storm"
	stageFlood     = "flood"
	stageOutput    = "output"
	stageMirror    = "mirror"
	stageTransmit  = "transmit"
	stageDrop      = "drop"
)

// Trace carries a frame that comes in by a port through the pipeline, as it is this
// moment, without sending, counting or learning anything: the code is the workers'
// own, run on a copy of their snapshot. o is the offload state the frame comes with;
// data includes a VLAN tag, if there is one.
func (s *Switch) Trace(port string, data []byte, o frame.Offload) (*Traced, error) {
	return s.runShadow(port, data, o, false)
}

// TraceProbe is Trace of a frame that stands for another: one of the switch's own
// probes is not refused, nor does it end here.
func (s *Switch) TraceProbe(port string, data []byte, o frame.Offload) (*Traced, error) {
	return s.runShadow(port, data, o, true)
}

func (s *Switch) runShadow(port string, data []byte, o frame.Offload, probing bool) (*Traced, error) {
	s.shadowMu.Lock()
	defer s.shadowMu.Unlock()
	id, snap, err := s.numbered(port)
	if err == nil {
		var sh *shadow
		if sh, err = s.shadowLocked(snap); err == nil {
			return sh.run(id, data, o, probing), nil
		}
	}
	return nil, fmt.Errorf("trace a frame that comes in by port %s: %w", port, err)
}

// numbered returns a port's number, and the newest snapshot, in which it has it.
func (s *Switch) numbered(port string) (uint32, *snapshot, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[port]
	switch {
	case s.closed:
		return 0, nil, ErrClosed
	case p == nil:
		return 0, nil, ErrNotExist
	}
	s.publishPendingLocked()
	return p.id, s.snap.Load(), nil
}

// TraceLive calls each with the way of real frames that came in by a port (""; any) of a
// bridge ("": any) and match f, until n are through or ctx ends. Of each frame so much
// is told as liveBounds says. A worker traces at most some hundred frames a second; how many
// matched and were not traced is returned. There is one at a time.
func (s *Switch) TraceLive(ctx context.Context, bridge, port string, f *filter.Program, n int, each func(*Traced)) (missed uint64, err error) {
	live := &liveTrace{bridge: bridge, port: port, filter: f, out: make(chan *Traced, 64)}
	live.rate.set(liveRate)
	live.left.Store(int64(n))
	s.mu.Lock()
	if s.live != nil {
		s.mu.Unlock()
		return 0, ErrTracing
	}
	s.live = live
	s.watchersChangedLocked()
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.live = nil
		s.watchersChangedLocked()
	}()
	for ; n > 0; n-- {
		select {
		case <-ctx.Done():
			return live.missed.Load(), nil
		case <-s.stop:
			return live.missed.Load(), nil
		case t := <-live.out:
			each(t)
		}
	}
	return live.missed.Load(), nil
}

// ErrTracing is returned while another live trace is under way.
var ErrTracing = errors.New("somebody else traces live frames at the moment")

// liveRate is how many frames a second a live trace writes down. One takes some 5
// microseconds of a worker's time.
const liveRate = 500

// liveTrace is what workers know of a live trace.
type liveTrace struct {
	bridge, port string // "": all
	filter       *filter.Program
	rate         rate
	left         atomic.Int64 // frames to come
	missed       atomic.Uint64
	out          chan *Traced
}

// wantsPort reports whether what comes in by a port is to be traced.
func (l *liveTrace) wantsPort(p *port) bool {
	return (l.bridge == "" || l.bridge == p.bridge.name) && (l.port == "" || l.port == p.name)
}

// wants reports whether a frame is to be traced.
func (l *liveTrace) wants(w *worker, in *portView, f *frame.Frame) bool {
	if !in.live || l.left.Load() <= 0 || !l.filter.Match(f.Bytes(), f.Tag, f.WireLen()) {
		return false
	}
	if !l.rate.take(w.nano) {
		l.missed.Add(1)
		return false
	}
	if l.left.Add(-1) < 0 {
		l.left.Add(1) // another worker took the last place
		return false
	}
	return true
}

// traceLive forwards a frame and tells of its way. What was staged before it is sent
// first, so that what is sent meanwhile is the frame's own.
func (w *worker) traceLive(l *liveTrace, in *portView, f *frame.Frame) {
	w.flushAll()
	w.trace = newTracer(w, liveBounds)
	w.accept(in, f)
	w.flushAll()
	t := w.trace
	w.trace = nil
	t.end()
	select {
	case l.out <- &t.Traced:
	default:
		l.missed.Add(1)
		l.left.Add(1)
	}
}

// tracer writes down the way of one frame.
//
// Thread-safety: it belongs to its worker.
type tracer struct {
	Traced
	sw      *Switch
	snap    *snapshot
	bounds  bounds
	dry     bool // nothing is learned: the frame is not a real one
	probing bool // a probe goes on, as what it stands for would

	bridge  string
	depth   int
	begun   bool
	learned map[fdbKey]*portView // what the frame itself would have taught the tables
	more    int                  // steps and frames for which there was no place
}

// bounds are what one trace holds: a frame that is flooded to ten thousand ports shall
// not take a worker's time, nor the memory, for all of them.
type bounds struct {
	steps  int
	frames int // that left, and as many that were dropped
	bytes  int // of each
}

var (
	dryBounds  = bounds{1024, 256, math.MaxInt}
	liveBounds = bounds{128, 32, 256} // 90 µs of a worker for a flood to a thousand ports, of which 45 are the flood itself
)

func newTracer(w *worker, b bounds) *tracer { return &tracer{sw: w.sw, snap: w.snap, bounds: b} }

// end says what there was no place for.
func (t *tracer) end() {
	if t.more > 0 {
		t.Steps = append(t.Steps, Step{Bridge: t.bridge, Stage: stageTransmit, Text: fmt.Sprintf("and %d more steps and frames like these, which are not listed", t.more)})
	}
}

type fdbKey struct {
	table *fdb.FDB
	key   fdb.Key
}

func (t *tracer) isDry() bool     { return t != nil && t.dry }
func (t *tracer) isProbing() bool { return t != nil && t.probing }

// step writes a step down, and returns it; nil when there is no place.
func (t *tracer) step(stage string, p *portView, format string, args ...any) *Step {
	if len(t.Steps) == t.bounds.steps {
		t.more++
		return nil
	}
	x := Step{Depth: t.depth, Bridge: t.bridge, Stage: stage, Text: fmt.Sprintf(format, args...)}
	if p != nil {
		x.Port, x.Bridge = p.name, t.snap.bridges[p.bridge].name
	}
	t.Steps = append(t.Steps, x)
	return &t.Steps[len(t.Steps)-1]
}

// keep makes a sighting of a record that outlives the frame.
func (t *tracer) keep(r *record, f *frame.Frame) (x Sighting) {
	t.sw.sighting(r, slices.Clone(f.Bytes()[:min(f.Len(), t.bounds.bytes)]), &x)
	return x
}

// add adds a frame to those that left, or were dropped.
func (t *tracer) add(to *[]Sighting, r *record, f *frame.Frame) {
	if len(*to) == t.bounds.frames {
		t.more++
		return
	}
	*to = append(*to, t.keep(r, f))
}

// full notes one more step for which there may be no place: a flood comes by here for
// every port, and shall not even be put into words.
func (t *tracer) full() bool {
	if len(t.Steps) < t.bounds.steps {
		return false
	}
	t.more++
	return true
}

// name returns the name of a port in the snapshot of the trace.
func (t *tracer) name(id uint32) string {
	if p := t.snap.port(id); p != nil {
		return p.name
	}
	return "a port that is gone"
}

// begin notes how the frame came in.
func (t *tracer) begin(w *worker, in *portView, f *frame.Frame) {
	t.begun = true
	r := w.seen(in, f, f.Tag)
	r.vid, _ = in.vlan.admit(f.Tag)
	t.Sighting = t.keep(&r, f)
	what := ""
	if f.Super() {
		what = fmt.Sprintf(", a super-frame of segments of %d bytes", f.SegmentLen())
	}
	t.bridge = w.snap.bridges[in.bridge].name
	if f.Len() < frame.EthLen {
		t.step(stageReceive, in, "%d bytes, less than an Ethernet header", r.wireLen)
		return
	}
	t.step(stageReceive, in, "%s > %s, %d bytes, %s%s", macText(f.Src()), macText(f.Dst()), r.wireLen, tagged(f.Tag), what)
}

func (t *tracer) cameIn(w *worker, br *bridgeView, in *portView, f *frame.Frame, tag frame.Tag, depth int) {
	t.bridge, t.depth = br.name, depth
	if !t.begun {
		t.begin(w, in, f)
	} else {
		t.step(stageReceive, in, "through the patch, %s", tagged(tag))
	}
}

func (t *tracer) admitted(in *portView, vid uint16, tag frame.Tag) {
	switch {
	case in.vlan.Mode == Access:
		t.step(stageAdmission, in, "an access port: the frame is in VLAN %d", vid)
	case tag.VID() != 0:
		t.step(stageAdmission, in, "trunked: the frame is in VLAN %d by its tag", vid)
	case in.vlan.Mode == Trunk:
		t.step(stageAdmission, in, "a trunk, and no tag: the frame is in VLAN 0, as untagged frames of this bridge are")
	default:
		t.step(stageAdmission, in, "no tag: the frame is in the port's native VLAN %d", vid)
	}
}

// learn is what the pipeline calls in place of the table's Learn.
func (t *tracer) learn(br *bridgeView, in *portView, vid uint16, src *[6]byte, now uint32) (outcome fdb.Outcome) {
	k := fdb.MakeKey(vid, src)
	before, known := br.fdb.Lookup(k)
	if t.dry {
		outcome = br.fdb.Judge(k, fdb.Port(in.id), now)
	} else {
		outcome = br.fdb.Learn(k, fdb.Port(in.id), now)
	}
	was := ""
	if known {
		was = t.name(uint32(before))
	}
	what := macText(*src)
	switch outcome {
	case fdb.Known:
		t.step(stageLearn, in, "%s is known here", what)
	case fdb.Learned:
		t.step(stageLearn, in, "%s is new, and learned here", what)
	case fdb.Moved:
		t.step(stageLearn, in, "%s was behind %s, and moves here", what, was)
	case fdb.Static:
		t.step(stageLearn, in, "%s stays behind %s: a static entry says so", what, was)
	case fdb.Held:
		t.step(stageLearn, in, "%s flaps, and is held behind %s", what, was)
	default:
		t.step(stageLearn, in, "%s is not learned: it is no station's address, or the table is full", what)
	}
	if t.dry && (outcome == fdb.Learned || outcome == fdb.Moved || outcome == fdb.Known) {
		if t.learned == nil {
			t.learned = map[fdbKey]*portView{}
		}
		t.learned[fdbKey{br.fdb, k}] = in
	}
	return outcome
}

// lookedUp notes what a lookup found; for a frame that is not real, with what it would
// have taught the table before.
func (t *tracer) lookedUp(br *bridgeView, out *portView, known bool, vid uint16, dst *[6]byte) (*portView, bool) {
	if p := t.learned[fdbKey{br.fdb, fdb.MakeKey(vid, dst)}]; p != nil {
		out, known = p, true
	}
	switch {
	case known:
		t.step(stageLookup, out, "%s is behind %s", macText(*dst), out.name)
	case *dst == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}:
		t.step(stageLookup, nil, "broadcast: flood")
	case dst[0]&1 != 0:
		t.step(stageLookup, nil, "%s is a multicast address: flood", macText(*dst))
	default:
		t.step(stageLookup, nil, "%s is not in the table in VLAN %d: flood", macText(*dst), vid)
	}
	return out, known
}

func (t *tracer) admittedByStorm(in *portView, why Reason) {
	if why == DropNone {
		t.step(stageStorm, in, "within the port's storm limits")
	}
}

// passedOver notes why a flood leaves a port out.
func (t *tracer) passedOver(in, out *portView, vid uint16) {
	if t.full() {
		return
	}
	switch {
	case out == in:
		t.step(stageFlood, out, "not back to where it came from")
	case out.group != 0 && out.group == in.group:
		t.step(stageFlood, out, "not: split horizon, the mesh's hosts have it from its sender")
	case !out.vlan.member(vid):
		t.step(stageFlood, out, "not: the port is not in VLAN %d", vid)
	default:
		t.step(stageFlood, out, "not: the port is down")
	}
}

func (t *tracer) output(out *portView, tag frame.Tag) {
	if t.full() {
		return
	}
	how := "put out"
	if out.peer >= 0 {
		how = "put out through the patch"
	}
	t.step(stageOutput, out, "%s, %s", how, tagged(tag))
}

func (t *tracer) mirrored(m *mirrorView, copies int) {
	to := "a capture file"
	switch {
	case m.rings != nil:
	case m.outPort >= 0:
		to = "its output port"
	default:
		to = fmt.Sprintf("VLAN %d", m.outVLAN)
	}
	t.step(stageMirror, nil, "mirror %s copies it to %s (%d)", m.name, to, copies)
}

func (t *tracer) dropped(w *worker, p *portView, r *record, f *frame.Frame) {
	if !t.begun {
		t.begin(w, p, f)
	}
	t.add(&t.Drops, r, f)
	if step := t.step(stageDrop, p, "%s: %s", r.reason, r.reason.Help()); step != nil {
		step.Reason = r.reason
	}
}

func (t *tracer) split(p *portView, segments uint64) {
	t.step(stageTransmit, p, "cut into %d segments in software: the port takes no super-frame like this", segments)
}

func (t *tracer) queued(p *portView, n int) {
	t.step(stageTransmit, p, "its device is full: the frame waits in the transmit ring, %d of them", n)
}

func (t *tracer) answered(to *portView, mtu int) {
	t.step(stageTransmit, to, "the sender is told by ICMP that a packet of %d bytes fits", mtu)
}

// sent notes what left by a port.
func (t *tracer) sent(w *worker, p *portView, outs []frame.Out) {
	verb := "sent"
	if t.dry {
		verb = "would be sent"
	}
	for i := range outs {
		if len(t.Left) < t.bounds.frames {
			r := w.seenOut(p, &outs[i])
			t.add(&t.Left, &r, outs[i].F)
		} else {
			t.more++
		}
		if t.full() {
			continue
		}
		t.step(stageTransmit, p, "%s: %d bytes, %s", verb, outs[i].WireLen(), tagged(outs[i].Tag))
	}
}

func macText(a [6]byte) string { return net.HardwareAddr(a[:]).String() }

// tagged says in words which tag a frame has.
func tagged(t frame.Tag) string {
	if !t.Present() {
		return "untagged"
	}
	var b strings.Builder
	fmt.Fprintf(&b, "tagged %d", t.VID())
	if t.TPID == frame.TPID8021AD {
		b.WriteString(" (802.1ad)")
	}
	if pcp := t.TCI >> 13; pcp != 0 {
		fmt.Fprintf(&b, " priority %d", pcp)
	}
	return b.String()
}
