package filter

import (
	"encoding/hex"
	"strings"
	"testing"

	"vswitch/frame"
)

// A TCP SYN from 10.0.0.1:40000 to 10.0.0.2:80.
var syn = unhex("020000000002 020000000001 0800" +
	"4500002800014000400666cd 0a000001 0a000002" +
	"9c400050 00000001 00000000 50020400 00000000")

func unhex(s string) []byte {
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		panic(err)
	}
	return b
}

func TestMatch(t *testing.T) {
	vlan5 := frame.Tag{TPID: frame.TPID8021Q, TCI: 3<<13 | 5}
	for _, c := range []struct {
		expr string
		tag  frame.Tag
		want bool
	}{
		{"", frame.Tag{}, true},
		{"tcp", frame.Tag{}, true},
		{"udp", frame.Tag{}, false},
		{"host 10.0.0.1 and tcp port 80", frame.Tag{}, true},
		{"src port 80", frame.Tag{}, false},
		{"tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn", frame.Tag{}, true},
		{"not net 10.0.0.0/8 or len = 54", frame.Tag{}, true},
		// The tag is part of the frame, at offset 12.
		{"tcp", vlan5, false},
		{"vlan", vlan5, true},
		{"vlan 5 and tcp", vlan5, true},
		{"vlan 6", vlan5, false},
		{"vlan 5 and vlan", vlan5, false},
		{"ether[10:4] = 0x00018100", vlan5, true},
		{"ether[14:4] = 0x60050800", vlan5, true},
		{"len = 58", vlan5, true},
		// The last byte is in reach, the one behind it is not.
		{"ether[57] = 0", vlan5, true},
		{"ether[58] = 0 or tcp", vlan5, false},
		{"not ether[58] = 0", vlan5, false},
	} {
		p, err := Compile(c.expr)
		if err != nil {
			t.Errorf("%s: %v", c.expr, err)
			continue
		}
		wire := len(syn)
		if c.tag.Present() {
			wire += 4
		}
		if got := p.Match(syn, c.tag, wire); got != c.want {
			t.Errorf("%q, tag %v: %v, want %v\n%s", c.expr, c.tag, got, c.want, p.Disassembly())
		}
	}
	if !(*Program)(nil).Match(syn, frame.Tag{}, len(syn)) {
		t.Error("a nil program does not take all")
	}
}

func TestMatchNoAllocs(t *testing.T) {
	p, err := Compile("host 10.0.0.1 and tcp port 80 and ip[ip[0] & 0xf] >= 0 and len > 5")
	if err != nil {
		t.Fatal(err)
	}
	tag := frame.Tag{TPID: frame.TPID8021Q, TCI: 5}
	if n := testing.AllocsPerRun(100, func() {
		p.Match(syn, frame.Tag{}, len(syn))
		p.Match(syn, tag, len(syn)+4)
	}); n != 0 {
		t.Errorf("%v allocations a match", n)
	}
}
