package loadgen

import (
	"errors"
	"fmt"
	"math"
	"time"
)

// Destination says where a stream's frames go.
type Destination uint8

const (
	Learned   Destination = iota // flow i to DstMAC(i), which someone must announce
	Unknown                      // flow i to UnknownMAC(i): a switch floods it
	Broadcast                    // every flow to ff:ff:ff:ff:ff:ff
)

// Stream is what to send. Its frames take the flows in turn, and the sizes in
// turn: frame k is of flow k mod Flows, and number k div Flows of that flow.
type Stream struct {
	Sizes    []int         // lengths in bytes without FCS, MinLen to MaxLen: {60}, or IMIX()
	Flows    int           // how many; flow i is from SrcMAC(i), with an IP address and UDP port of its own
	First    int           // the first flow's number, so that several senders share a receiver
	To       Destination   // Learned unless told
	Reverse  bool          // from DstMAC(i) to SrcMAC(i) instead: the answering direction
	Rate     float64       // frames a second; 0 is as fast as it goes
	Duration time.Duration // ends the stream; or
	Count    uint64        // frames, whichever comes first. 0 is no bound; one must be set
}

// IMIX is the simple Internet mix, seven 64-byte, four 594-byte and one 1518-byte
// frame of twelve (FCS included), spread evenly.
func IMIX() []int {
	return []int{60, 590, 60, 60, 590, 60, 1514, 60, 590, 60, 590, 60}
}

// check returns what is wrong with the stream.
func (s *Stream) check() error {
	for _, size := range s.Sizes {
		if size < MinLen || size > MaxLen {
			return fmt.Errorf("stream: size %d is not between %d and %d", size, MinLen, MaxLen)
		}
	}
	switch {
	case len(s.Sizes) == 0:
		return errors.New("stream: no sizes")
	case s.Flows < 1 || s.First < 0 || s.First > MaxFlows-s.Flows:
		return fmt.Errorf("stream: flows %d and %d more are not between 0 and %d", s.First, s.Flows, MaxFlows)
	case s.To > Broadcast:
		return fmt.Errorf("stream: destination %d is none", s.To)
	case s.Rate < 0 || math.IsNaN(s.Rate) || math.IsInf(s.Rate, 0):
		return fmt.Errorf("stream: rate %v", s.Rate)
	case s.Duration < 0 || s.Duration == 0 && s.Count == 0:
		return errors.New("stream: neither a duration nor a count ends it")
	}
	return nil
}

// Sent is what became of a Stream, as far as its sender knows.
type Sent struct {
	Frames  uint64        // that the interface took
	Bytes   uint64        // of them, without FCS
	Refused uint64        // times the interface took no more for the moment; the frame was sent again
	Elapsed time.Duration // from the first frame to the end
	Started int64         // by Now
	First   int           // the stream's
	Flows   int
}

// PerSecond is the rate at which the interface took frames.
func (s Sent) PerSecond() float64 {
	if s.Elapsed <= 0 {
		return 0
	}
	return float64(s.Frames) / s.Elapsed.Seconds()
}

// Of returns how many frames of a flow were sent.
func (s Sent) Of(flow int) uint64 {
	i := flow - s.First
	if i < 0 || i >= s.Flows {
		return 0
	}
	n := s.Frames / uint64(s.Flows)
	if uint64(i) < s.Frames%uint64(s.Flows) {
		n++
	}
	return n
}
