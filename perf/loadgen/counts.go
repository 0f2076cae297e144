package loadgen

import "time"

// Counts is what became of what was sent to a receiver. They add up:
//
//	Arrived = Distinct + Duplicated + Old
//	sent    = Distinct + Missing,  Missing = Lost + at most Unread
//
// A frame is counted once in the first line, whatever else it is.
type Counts struct {
	Arrived    uint64 // stamped frames read
	Bytes      uint64 // of them, without FCS
	Distinct   uint64 // no frame twice
	Duplicated uint64 // came again
	Reordered  uint64 // of Distinct: after a later one of their flow
	Old        uint64 // 130,000 frames late or more: reordered or duplicated, no telling
	Missing    uint64 // sent and not read
	Unread     uint64 // reached the interface and found no room in the ring
	Lost       uint64 // Missing less Unread: the switch's

	LossyFlows  int // flows with frames missing
	SilentFlows int // of them: all missing

	Foreign   uint64 // frames of others: ARP and the like
	Announced uint64 // Announce's, which a switch had no reason to forward here
	Damaged   uint64 // a Sender's, but not as long as it was, or of a flow beyond the receiver's
	Stale     uint64 // sent before Start

	First   int64      // arrival by Now; 0 where none
	Last    int64      // arrival by Now
	Latency *Histogram // from stamp to arrival
}

// PerSecond is the rate at which frames arrived, between the first and the last.
func (c Counts) PerSecond() float64 {
	if c.Arrived < 2 || c.Last <= c.First {
		return 0
	}
	return float64(c.Arrived-1) / time.Duration(c.Last-c.First).Seconds()
}

// session is the counting of one Start to Stop. Thread-safety: it belongs to the
// reader while that runs, and to the Receiver's owner otherwise.
type session struct {
	since   int64 // by Now
	ahead   int64 // wallAhead, of late
	tracks  *tracks
	counts  Counts
	latency Histogram
}

func newSession(flows int) *session { return &session{tracks: newTracks(flows)} }

func (s *session) reset(since int64) {
	s.since = since
	s.counts = Counts{}
	s.latency = Histogram{}
	s.tracks.reset()
}

// frame counts one frame. arrived is by Now, wire its whole length.
func (s *session) frame(b []byte, wire int, arrived int64) {
	c := &s.counts
	flow, seq, stamp, v := parse(b, wire)
	switch {
	case v == foreign:
		c.Foreign++
		return
	case v == damaged:
		c.Damaged++
		return
	case stamp < s.since:
		c.Stale++
		return
	case v == announced:
		c.Announced++
		return
	case uint64(flow) >= s.tracks.flows || seq == 1<<32-1:
		c.Damaged++
		return
	}
	c.Arrived++
	c.Bytes += uint64(wire)
	if c.First == 0 {
		c.First = arrived
	}
	c.Last = arrived
	s.latency.add(arrived - stamp)
	switch s.tracks.add(flow, seq) {
	case fresh:
		c.Distinct++
	case late:
		c.Distinct++
		c.Reordered++
	case double:
		c.Duplicated++
	case old:
		c.Old++
	}
}

// result compares what came with what was sent.
func (s *session) result(unread uint64, sent []Sent) Counts {
	c := s.counts
	latency := s.latency
	c.Latency = &latency
	c.Unread = unread
	for _, st := range sent {
		for flow := st.First; flow < st.First+st.Flows; flow++ {
			var came uint64
			if uint64(flow) < s.tracks.flows {
				came = s.tracks.arrived(flow)
			}
			want := st.Of(flow)
			if came >= want {
				continue
			}
			c.Missing += want - came
			c.LossyFlows++
			if came == 0 {
				c.SilentFlows++
			}
		}
	}
	c.Lost = c.Missing - min(c.Missing, unread)
	return c
}
