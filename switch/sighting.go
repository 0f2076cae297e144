package vswitch

import (
	"math"
	"time"

	"vswitch/capture"
	"vswitch/frame"
)

// Sighting is what the switch saw of one frame at one port: that it came in and what
// became of it there, that it left, or that it was dropped on its way out. What
// watches, the flight recorder and traces tell of frames are sightings.
type Sighting struct {
	Time      time.Time
	Bridge    string
	Port      string
	Direction capture.Direction // Inbound: it came in by Port; Outbound: it left, or should have
	VLAN      uint16            // the VLAN it is in on the bridge; 0 without, or where it was not admitted
	Reason    Reason            // why it was dropped; DropNone: it was not
	// Of an inbound frame that was not dropped: how many copies of it were put out,
	// and the first port of those.
	Outputs int
	Output  string
	Own     bool // made by the switch itself, such as an ICMP answer

	// How many frames were passed over since the last one, because they came faster
	// than the recorder's rate, or than Sample says: this one stands for them, too.
	Skipped uint64

	Tag     frame.Tag     // with which it came, or left
	Offload frame.Offload // as it came; offsets are those without the tag
	WireLen int           // bytes of the whole frame, tag included
	// Data is the frame, without the tag that stands in Tag, cut to the snap length;
	// an unfinished checksum is unfinished here: see Whole. It is only valid during
	// the call it is handed to.
	Data []byte
}

// Whole reports whether Data is the frame to its end.
func (s *Sighting) Whole() bool {
	n := len(s.Data)
	if s.Tag.Present() {
		n += frame.TagLen
	}
	return n >= s.WireLen
}

// seen makes the record of a frame at a port.
func (w *worker) seen(p *portView, f *frame.Frame, tag frame.Tag) record {
	r := record{at: w.nano, port: p.id, tag: tag, offload: f.Offload, wireLen: f.Len()}
	if tag.Present() {
		r.wireLen += frame.TagLen
	}
	return r
}

// seenOut makes the record of a frame that leaves by a port, or does not.
func (w *worker) seenOut(p *portView, o *frame.Out) record {
	r := w.seen(p, o.F, o.Tag)
	r.out, r.own = true, o.Own
	vid, why := p.vlan.admit(o.Tag)
	if why != DropNone {
		vid = o.Tag.VID()
	}
	r.vid = vid
	return r
}

// cameIn tells who looks of a frame that came in by a port and was put out by
// others.
func (w *worker) cameIn(in *portView, f *frame.Frame, tag frame.Tag, vid uint16, outs *outputSet) {
	recorded := w.frames.admit(w.nano)
	if !recorded && in.sawIn == 0 {
		return
	}
	r := w.seen(in, f, tag)
	r.vid, r.outputs, r.output = vid, uint16(min(outs.n, 1<<16-1)), outs.first
	if recorded {
		w.frames.write(&r, f.Bytes())
	}
	if in.sawIn != 0 {
		w.watched(in, in.sawIn, &r, f)
	}
}

// wentOut tells who watches a port of frames that it sent.
func (w *worker) wentOut(p *portView, outs []frame.Out) {
	for i := range outs {
		r := w.seenOut(p, &outs[i])
		w.watched(p, p.sawOut, &r, outs[i].F)
	}
}

// sighting turns a record into a sighting.
func (s *Switch) sighting(r *record, data []byte, x *Sighting) {
	*x = Sighting{
		Time: s.wall(r.at), Direction: capture.Inbound, VLAN: r.vid, Reason: r.reason, Outputs: int(r.outputs),
		Own: r.own, Skipped: uint64(r.skipped), Tag: r.tag, Offload: r.offload, WireLen: r.wireLen, Data: data,
	}
	x.Port, x.Bridge = s.names(r.port, r.at)
	if r.out {
		x.Direction = capture.Outbound
	}
	if r.outputs > 0 {
		x.Output, _ = s.names(r.output, r.at)
	}
}

// maxDeparted is how many removed ports are remembered by name.
const maxDeparted = 1024

// departed is a port that was removed; its number may be another's since.
type departed struct {
	id           uint32
	name, bridge string
	born, gone   int64 // on the switch's clock in nanoseconds; gone is math.MaxInt64 as long as it goes
}

// sameTurn is by how much a record's time may be before a port was made of which it
// tells: a worker takes the time once a turn.
const sameTurn = int64(time.Second)

// names returns the names of a port, and of its bridge, that had a number at a time
// on the switch's clock; of a port that has been removed too long ago, "".
func (s *Switch) names(id uint32, at int64) (port, bridge string) {
	snap := s.snap.Load()
	var p *portView
	if int(id) < len(snap.ports) {
		p = snap.ports[id]
	}
	if p == nil || p.born > at {
		if d, ok := s.hadNumber(id, at); ok {
			return d.name, d.bridge
		}
		if p == nil || p.born > at+sameTurn {
			return "", ""
		}
	}
	return p.name, snap.bridges[p.bridge].name
}

// hadNumber finds a port that was removed and had a number at a time.
func (s *Switch) hadNumber(id uint32, at int64) (departed, bool) {
	s.departedMu.Lock()
	defer s.departedMu.Unlock()
	for i := len(s.departed) - 1; i >= 0; i-- {
		if d := s.departed[i]; d.id == id && d.born <= at && at <= d.gone {
			return d, true
		}
	}
	return departed{}, false
}

// departLocked remembers a port that goes.
func (s *Switch) departLocked(p *port) {
	s.departedMu.Lock()
	defer s.departedMu.Unlock()
	if len(s.departed) == maxDeparted {
		s.departed = append(s.departed[:0], s.departed[maxDeparted/4:]...)
	}
	s.departed = append(s.departed, departed{p.id, p.name, p.bridge.name, p.born, math.MaxInt64})
}

// departedLocked notes that no worker has anything of the ports any more that go.
func (s *Switch) departedLocked() {
	s.departedMu.Lock()
	defer s.departedMu.Unlock()
	for i := len(s.departed) - 1; i >= 0 && s.departed[i].gone == math.MaxInt64; i-- {
		s.departed[i].gone = s.nanotime()
	}
}

// wall turns a time on the switch's clock into the time of day as it is now: that
// clock is monotonic, the other may have been set since the switch started.
func (s *Switch) wall(at int64) time.Time {
	return s.start.Round(0).Add(time.Duration(at + s.stepped.Load()))
}

// minStep is how far the wall clock must be from where it would be had nobody set
// it, for that to count: what is below is the noise of two readings.
const minStep = int64(time.Millisecond)

// followClock takes note of the wall clock, once a second.
func (s *Switch) followClock(now time.Time) {
	step := int64(now.Round(0).Sub(s.start.Round(0)) - now.Sub(s.start))
	if d := step - s.stepped.Load(); d > minStep || d < -minStep {
		s.stepped.Store(step)
	}
}
