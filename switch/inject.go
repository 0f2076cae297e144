package vswitch

import (
	"errors"

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
func (s *Switch) Inject(port string, frames []Injected) error { return errors.New("not built yet") }

// Emit sends a frame of the switch's own out by a port, with tag; the pipeline has
// no part in it. It counts as an answer of the port's bridge.
func (s *Switch) Emit(port string, tag frame.Tag, data []byte) error {
	return errors.New("not built yet")
}

// Heard is what the switch overhears for the control side: ARP, ND, and probes of its
// own kind (frame.EtherProbe), which go no further.
type Heard uint8

// What is heard.
const (
	HeardARP   Heard = iota + 1 // ARP over Ethernet and IPv4, request or reply
	HeardND                     // IPv6 neighbour solicitation or advertisement
	HeardProbe                  // came in by a tunnel port, and ends here: the control side answers it
)
