package bfd

import (
	"bytes"
	"errors"
	"testing"
	"testing/quick"
	"time"
)

// wire is the first packet of a session with Open vSwitch's defaults.
var wire = []byte{
	0x20, 0x40, 0x03, 0x18,
	0x12, 0x34, 0x56, 0x78,
	0x00, 0x00, 0x00, 0x00,
	0x00, 0x0f, 0x42, 0x40,
	0x00, 0x0f, 0x42, 0x40,
	0x00, 0x00, 0x00, 0x00,
}

func TestPacketBytes(t *testing.T) {
	for _, c := range []struct {
		name string
		p    Packet
		b    []byte
	}{
		{"first", Packet{
			State: Down, Multiplier: 3, MyDiscr: 0x12345678,
			DesiredMinTx: time.Second, RequiredMinRx: time.Second,
		}, wire},
		{"all fields", Packet{
			Diag: DiagReverseConcatenated, State: Up, Poll: true, ControlIndep: true, Demand: true,
			Multiplier: 255, MyDiscr: 1, YourDiscr: 0xfffffffe,
			DesiredMinTx: 100 * time.Millisecond, RequiredMinRx: maxInterval, MinEchoRx: time.Microsecond,
		}, []byte{
			0x28, 0xea, 0xff, 0x18,
			0, 0, 0, 1,
			0xff, 0xff, 0xff, 0xfe,
			0x00, 0x01, 0x86, 0xa0,
			0xff, 0xff, 0xff, 0xff,
			0, 0, 0, 1,
		}},
		{"final", Packet{Diag: DiagAdminDown, State: AdminDown, Final: true, Multiplier: 1, MyDiscr: 1},
			[]byte{0x27, 0x10, 1, 24, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}},
	} {
		if got := c.p.Append(nil); !bytes.Equal(got, c.b) {
			t.Errorf("%s: bytes\n%x, want\n%x", c.name, got, c.b)
		}
		if got, err := Parse(c.b); err != nil || got != c.p {
			t.Errorf("%s: parsed %+v, %v, want %+v", c.name, got, err, c.p)
		}
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		edit func(b []byte) []byte
		want error
	}{
		{"as it is", func(b []byte) []byte { return b }, nil},
		{"padded", func(b []byte) []byte { return append(b, 1, 2, 3) }, nil},
		{"longer, and that came", func(b []byte) []byte { b[3] = 26; return append(b, 1, 2) }, nil},
		{"nothing", func(b []byte) []byte { return nil }, ErrShort},
		{"short", func(b []byte) []byte { return b[:23] }, ErrShort},
		{"version 0", func(b []byte) []byte { b[0] = 0; return b }, ErrVersion},
		{"version 2", func(b []byte) []byte { b[0] = 0x40; return b }, ErrVersion},
		{"length below", func(b []byte) []byte { b[3] = 23; return b }, ErrLength},
		{"length beyond", func(b []byte) []byte { b[3] = 25; return b }, ErrLength},
		{"authenticated", func(b []byte) []byte { b[1] |= 0x04; b[3] = 26; return append(b, 0, 2) }, ErrAuth},
		{"multipoint", func(b []byte) []byte { b[1] |= 0x01; return b }, ErrMultipoint},
		{"multiplier", func(b []byte) []byte { b[2] = 0; return b }, ErrMultiplier},
		{"my discriminator", func(b []byte) []byte { copy(b[4:], []byte{0, 0, 0, 0}); return b }, ErrNoMyDiscr},
	} {
		if _, err := Parse(c.edit(bytes.Clone(wire))); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
	}
}

func TestPacketRoundTrip(t *testing.T) {
	err := quick.Check(func(p Packet, tx, rx, echo uint32) bool {
		p.Diag, p.State = p.Diag&maxDiag, p.State&3
		p.Multiplier, p.MyDiscr = max(p.Multiplier, 1), max(p.MyDiscr, 1)
		p.DesiredMinTx = time.Duration(tx) * time.Microsecond
		p.RequiredMinRx = time.Duration(rx) * time.Microsecond
		p.MinEchoRx = time.Duration(echo) * time.Microsecond
		got, err := Parse(p.Append(nil))
		return err == nil && got == p
	}, nil)
	if err != nil {
		t.Error(err)
	}
}

func TestNames(t *testing.T) {
	for _, c := range []struct {
		v    interface{ String() string }
		want string
	}{
		{AdminDown, "admin_down"}, {Down, "down"}, {Init, "init"}, {Up, "up"}, {State(4), "invalid"},
		{DiagNone, "No Diagnostic"}, {DiagExpired, "Control Detection Time Expired"},
		{DiagEchoFailed, "Echo Function Failed"}, {DiagNeighborDown, "Neighbor Signaled Session Down"},
		{DiagForwardingReset, "Forwarding Plane Reset"}, {DiagPathDown, "Path Down"},
		{DiagConcatenated, "Concatenated Path Down"}, {DiagAdminDown, "Administratively Down"},
		{DiagReverseConcatenated, "Reverse Concatenated Path Down"},
		{Diag(9), "Invalid Diagnostic"}, {Diag(31), "Invalid Diagnostic"},
	} {
		if got := c.v.String(); got != c.want {
			t.Errorf("%#v is called %q, want %q", c.v, got, c.want)
		}
	}
}
