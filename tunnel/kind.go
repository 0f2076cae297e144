package tunnel

import (
	"fmt"
	"strconv"

	"vswitch/frame"
)

// Kind is an encapsulation.
type Kind uint8

// The kinds.
const (
	VXLAN  Kind = iota // RFC 7348, in UDP
	GRE                // RFC 2784 and 2890, an Ethernet frame in it, in IP
	Geneve             // RFC 8926, in UDP
)

// String returns the name that a port's type has.
func (k Kind) String() string {
	switch k {
	case VXLAN:
		return "vxlan"
	case GRE:
		return "gre"
	case Geneve:
		return "geneve"
	}
	return "kind " + strconv.Itoa(int(k))
}

// DefaultPort returns the UDP port that IANA gave the kind, 0 for GRE.
func (k Kind) DefaultPort() uint16 {
	switch k {
	case VXLAN:
		return 4789
	case Geneve:
		return 6081
	}
	return 0
}

// checkKey refuses a key that has no room in the kind's header.
func (k Kind) checkKey(key uint32) error {
	if k != GRE && key > maxVNI {
		return fmt.Errorf("key %d: %s has 24 bits, 0 to %d", key, k, maxVNI)
	}
	return nil
}

const (
	// maxVNI is the largest network identifier of VXLAN and Geneve.
	maxVNI = 1<<24 - 1
	// etherTEB is the protocol number of an Ethernet frame in a tunnel
	// (transparent Ethernet bridging, RFC 7637 section 3.2).
	etherTEB = 0x6558
)

// header is what a tunnel header says.
type header struct {
	key     uint32
	len     int // bytes of the header; the inner frame follows
	fault   frame.Fault
	options int // Geneve: how many there are
	seq     uint32
	hasSeq  bool
}

// decode reads the tunnel header at the start of b, a UDP payload or what follows
// an IP header. It reports false for what is malformed: its key cannot be trusted.
func (k Kind) decode(b []byte) (h header, ok bool) {
	switch k {
	case VXLAN:
		return decodeVXLAN(b)
	case GRE:
		return decodeGRE(b)
	case Geneve:
		return decodeGeneve(b)
	}
	return h, false
}
