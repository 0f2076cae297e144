// Package craft makes frames that are put into the switch by hand, to trace, replay or
// test with: from words such as "ip_dst=10.0.0.2 proto=tcp port=80", from hexadecimal
// digits, or from a capture file. It knows nothing of a switch, and sends nothing.
//
// Its one idea: a frame is whole and true. Lengths and checksums are right, so that
// what is made here could have come from a wire; a super-frame has the offload state
// with which Linux sends one.
//
// The words are the names that OVS's ovs-fields(7) has, or shorter ones; OVS's own are
// understood, too, so that what was given to ofproto/trace can be given here.
package craft

import (
	"encoding/hex"
	"fmt"
	"strings"

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

// Hex reads a frame from hexadecimal digits, with or without spaces, colons and dashes
// between them, and as tcpdump -xx prints them. An error is an *Error.
func Hex(text string) ([]byte, error) {
	var digits strings.Builder
	for _, f := range strings.Fields(text) {
		if strings.HasPrefix(f, "0x") && strings.HasSuffix(f, ":") {
			continue // an offset of tcpdump's
		}
		f = strings.TrimPrefix(f, "0x")
		digits.WriteString(strings.NewReplacer(":", "", "-", "").Replace(f))
	}
	s := digits.String()
	if len(s) > 2*frame.MaxLen {
		return nil, &Error{Word: "frame", Allowed: fmt.Sprintf("at most %d bytes are a frame", frame.MaxLen)}
	}
	for i := range len(s) {
		if !strings.ContainsRune("0123456789abcdefABCDEF", rune(s[i])) {
			return nil, &Error{Word: "frame", Allowed: fmt.Sprintf("%q is no hexadecimal digit", s[i:i+1])}
		}
	}
	if len(s)%2 != 0 {
		return nil, &Error{Word: "frame", Allowed: fmt.Sprintf("%d hexadecimal digits are half a byte too much, or too few", len(s))}
	}
	b, err := hex.DecodeString(s)
	if err != nil {
		return nil, &Error{Word: "frame", Allowed: err.Error()}
	}
	if len(b) == 0 {
		return nil, &Error{Word: "frame", Allowed: "hexadecimal digits are wanted, from the destination address on"}
	}
	return b, nil
}
