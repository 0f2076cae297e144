// Package craft makes frames that are put into the switch by hand, to trace or test with,
// from words such as "ip_dst=10.0.0.2 proto=tcp port=80". It knows nothing of a switch,
// and sends nothing. Frames that were seen before are read by capture/reader.
//
// Its one idea: a frame is whole and true. Lengths and checksums are right, so that
// what is made here could have come from a wire; a super-frame has the offload state
// with which Linux sends one.
//
// The words are the names that OVS's ovs-fields(7) has, or shorter ones; OVS's own are
// understood, too, so that what was given to ofproto/trace can be given here.
//
// It is vswitchctl's, and not the daemon's: gopacket/layers, which makes the frames, takes
// 6.3 MB of memory for its tables as soon as a program is linked with it.
package craft

import (
	"fmt"

	"vswitch/frame"
)

// Frame is a frame as it comes in by a port: its VLAN tag, if it has one, in the bytes.
type Frame struct {
	Data    []byte
	Offload frame.Offload // offsets are those with the tag
}

// Error is a word that cannot be understood, or does not go with the others.
type Error struct {
	Word    string // as it was given, such as port
	Value   string // "": none
	Allowed string // what it may be, or what to give instead
}

func (e *Error) Error() string {
	switch {
	case e.Value == "":
		return fmt.Sprintf("%s: %s", e.Word, e.Allowed)
	case len(e.Value) > 64:
		return fmt.Sprintf("%s=%.64q…: %s", e.Word, e.Value, e.Allowed)
	}
	return fmt.Sprintf("%s=%s: %s", e.Word, e.Value, e.Allowed)
}
