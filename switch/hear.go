package vswitch

import (
	"vswitch/frame"
)

// Heard is what the switch overhears for the control side: ARP, ND, and probes of its
// own kind (frame.EtherProbe), which go no further.
type Heard uint8

// What is heard.
const (
	HeardARP   Heard = iota + 1 // ARP, request or reply
	HeardND                     // IPv6 neighbour solicitation or advertisement
	HeardProbe                  // came in by a tunnel port, and ends here: the control side answers it
)

// Bounds of what is heard: a worker's ring, and frames a second of each worker. A host
// that asks for more in vain loses what it asked for, and nobody else's frames.
const (
	heardRingLen = 128 << 10
	heardRate    = 1000
	probeRate    = 1000
	portRate     = 250 // of one port, so that it cannot make the worker deaf for the others
	heardSnap    = frame.MaxLen
)

// hearing is a worker's end of what is overheard.
type hearing struct {
	ring       *byteRing
	ask, probe rate
	ports      []rate        // one a port, by its number
	wake       chan struct{} // of the goroutine that tells; a frame of these kinds is rare
}

// take takes a token of a port's, and then one of all ports'.
func (h *hearing) take(port uint32, all *rate, now int64) bool {
	for int(port) >= len(h.ports) {
		h.ports = append(h.ports, rate{})
		h.ports[len(h.ports)-1].set(portRate)
	}
	return h.ports[port].take(now) && all.take(now)
}

func newHearing() *hearing {
	h := &hearing{ring: newByteRing(heardRingLen), wake: make(chan struct{}, 1)}
	h.ask.set(heardRate)
	h.probe.set(probeRate)
	return h
}

// Offsets of what overhear looks at.
const (
	ip6NextHeader = frame.EthLen + 6
	icmp6Type     = frame.EthLen + frame.IPv6Len

	protoICMPv6 = 58
	icmp6NS     = 135 // neighbour solicitation, RFC 4861 section 4.3
	icmp6NA     = 136 // neighbour advertisement, section 4.4
)

// overhear gives a copy of ARP, ND and probes to the control side. It reports whether
// the frame ends here: a probe does. Other frames than IPv4 come by here.
func (w *worker) overhear(in *portView, f *frame.Frame, tag frame.Tag, vid uint16, etherType uint16) (ends bool) {
	b := f.Bytes()
	switch etherType {
	case frame.EtherARP:
		w.tell(HeardARP, in, f, tag, vid)
	case frame.EtherIPv6:
		if len(b) > icmp6Type && b[ip6NextHeader] == protoICMPv6 && (b[icmp6Type] == icmp6NS || b[icmp6Type] == icmp6NA) {
			w.tell(HeardND, in, f, tag, vid)
		}
	case frame.EtherProbe, frame.TPID8021Q, frame.TPID8021AD:
		if !f.Probe() || w.trace.isProbing() {
			return false
		}
		if !in.tunnel {
			// A container may not speak for the switch, nor let a tunnel port that takes
			// a tag off make it seem so.
			w.dropIn(in, f, tag, DropProbeRefused)
			return true
		}
		if etherType != frame.EtherProbe {
			return false // with a tag of its own it is somebody's frame
		}
		w.tell(HeardProbe, in, f, tag, vid)
		w.dropIn(in, f, tag, DropProbe)
		return true
	}
	return false
}

// tell writes a frame to the ring of what is heard, unless there were too many.
func (w *worker) tell(kind Heard, in *portView, f *frame.Frame, tag frame.Tag, vid uint16) {
	h := w.hearing
	if h == nil || w.trace.isDry() {
		return
	}
	limit := &h.ask
	if kind == HeardProbe {
		limit = &h.probe
	}
	if !h.take(in.id, limit, w.nano) {
		return
	}
	r := w.seen(in, f, tag)
	r.vid, r.n = vid, f.Len()
	r.output = uint32(kind) // nothing was put out yet: the field is free
	if h.ring.write(&r, f.Bytes()) {
		select {
		case h.wake <- struct{}{}:
		default:
		}
	}
}

// hear tells Options.Hear what a worker overheard, until the switch ends.
func (s *Switch) hear(h *hearing) {
	data := make([]byte, heardSnap)
	var rec record
	var x Sighting
	for {
		select {
		case <-s.stop:
			return
		case <-h.wake:
		}
		for h.ring.read(&rec, data) {
			kind := Heard(rec.output)
			s.sighting(&rec, data[:rec.n], &x)
			s.options.Hear(kind, &x)
		}
	}
}
