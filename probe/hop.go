package probe

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// Bounds of what a Hop holds.
const (
	// MaxText is how long a name may be in bytes; longer ones are cut.
	MaxText = 64
	// MaxDrops is how many drops a Hop tells of, and MaxNot of how many ports why not.
	MaxDrops = 4
	MaxNot   = 4
	maxOuts  = 64
)

// Hop is what one switch did with a Path.
type Hop struct {
	Span   uint32        `json:"s"` // of the copy that it got
	Host   string        `json:"host"`
	Bridge string        `json:"br"`
	Port   string        `json:"in"` // by which it came
	VLAN   uint16        `json:"vlan,omitempty"`
	Known  bool          `json:"known,omitempty"` // the target's MAC is in the bridge's table
	Outs   []Out         `json:"outs,omitempty"`
	More   int           `json:"more,omitempty"` // outputs that found no room in Outs
	Drops  []Drop        `json:"drops,omitempty"`
	Not    []string      `json:"not,omitempty"`  // where it leaves nowhere: which ports it did not leave by, and why
	Dwell  time.Duration `json:"dwell"`          // between hearing the Path and this report, in nanoseconds
	Loop   bool          `json:"loop,omitempty"` // it has been in this VLAN of this bridge before
	End    bool          `json:"end,omitempty"`  // its TTL ended here
	Other  *Elsewhere    `json:"other,omitempty"`
}

// Out is one port by which the frame would leave.
type Out struct {
	Bridge string  `json:"br,omitempty"` // where that is another one, behind a patch
	Port   string  `json:"p"`
	Type   string  `json:"t,omitempty"`
	Remote string  `json:"to,omitempty"` // of a tunnel
	Key    *uint32 `json:"key,omitempty"`
	Span   uint32  `json:"s,omitempty"` // of the copy that was sent there; 0: none was
}

// Drop is a copy that goes no further.
type Drop struct {
	Bridge string `json:"br,omitempty"` // where that is another one, behind a patch
	Port   string `json:"p"`
	Out    bool   `json:"out,omitempty"` // on its way out
	Reason string `json:"why"`
}

// Elsewhere is where a target is that is not in the frame's VLAN.
type Elsewhere struct {
	VLAN uint16 `json:"vlan"`
	Port string `json:"p"`
}

// Append appends the hop as a payload. Outputs for which there is no room are only
// counted; those that a copy was sent by go first.
func (h Hop) Append(b []byte) ([]byte, error) {
	h.Outs = sentFirst(h.Outs)
	if n := len(h.Outs); n > maxOuts {
		h.Outs, h.More = h.Outs[:maxOuts], h.More+n-maxOuts
	}
	h.Drops = h.Drops[:min(len(h.Drops), MaxDrops)]
	h.Not = h.Not[:min(len(h.Not), MaxNot)]
	h.clean()
	for {
		text, err := json.Marshal(h)
		if err != nil {
			return b, fmt.Errorf("write report: %w", err)
		}
		if len(text) <= MaxPayload {
			return append(b, text...), nil
		}
		switch {
		case len(h.Outs) > 0:
			h.Outs, h.More = h.Outs[:len(h.Outs)-1], h.More+1
		case len(h.Not) > 0:
			h.Not = nil
		case len(h.Drops) > 0:
			h.Drops = h.Drops[:len(h.Drops)-1]
		default:
			return b, fmt.Errorf("write report of %d bytes: %w", len(text), ErrPayload)
		}
	}
}

// sentFirst returns a copy of outs, those with a span first.
func sentFirst(outs []Out) []Out {
	var first, rest []Out
	for _, o := range outs {
		if o.Span != 0 {
			first = append(first, o)
		} else {
			rest = append(rest, o)
		}
	}
	return append(first, rest...)
}

// DecodeHop reads the payload of a Report. Text in it is printable, and no longer
// than MaxText.
func DecodeHop(b []byte) (Hop, error) {
	if len(b) > MaxPayload {
		return Hop{}, ErrPayload
	}
	var h Hop
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&h); err != nil {
		return Hop{}, fmt.Errorf("read report: %w", err)
	}
	if _, err := d.Token(); err != io.EOF {
		return Hop{}, fmt.Errorf("read report: %w: something follows it", ErrPayload)
	}
	if len(h.Outs) > maxOuts || len(h.Drops) > MaxDrops || len(h.Not) > MaxNot || h.More < 0 || h.Dwell < 0 || h.VLAN > 4095 || h.Other != nil && h.Other.VLAN > 4095 {
		return Hop{}, fmt.Errorf("read report: %w: a number is out of its range", ErrPayload)
	}
	h.clean()
	return h, nil
}

// clean makes text such that it may be shown. It changes what h's slices hold.
func (h *Hop) clean() {
	for _, s := range []*string{&h.Host, &h.Bridge, &h.Port} {
		*s = printable(*s)
	}
	h.Outs, h.Drops, h.Not = slices.Clone(h.Outs), slices.Clone(h.Drops), slices.Clone(h.Not)
	for i := range h.Not {
		h.Not[i] = printable(h.Not[i])
	}
	for i := range h.Outs {
		o := &h.Outs[i]
		o.Bridge, o.Port, o.Type, o.Remote = printable(o.Bridge), printable(o.Port), printable(o.Type), printable(o.Remote)
	}
	for i := range h.Drops {
		d := &h.Drops[i]
		d.Bridge, d.Port, d.Reason = printable(d.Bridge), printable(d.Port), printable(d.Reason)
	}
	if h.Other != nil {
		o := *h.Other
		o.Port = printable(o.Port)
		h.Other = &o
	}
}

// printable cuts a text to MaxText bytes and replaces what a terminal might obey.
func printable(s string) string {
	if len(s) > MaxText {
		s = s[:MaxText]
		for len(s) > 0 && !utf8.ValidString(s) {
			s = s[:len(s)-1]
		}
	}
	s = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != utf8.RuneError {
			return r
		}
		return '?'
	}, s)
	return s
}
