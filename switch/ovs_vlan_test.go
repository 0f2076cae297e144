package vswitch

import (
	"testing"

	"vswitch/frame"
)

// TestNativePortKeepsVLAN0Out: what left a native port untagged would be in the
// native VLAN from there on.
func TestNativePortKeepsVLAN0Out(t *testing.T) {
	some := new(VLANSet)
	some.Add(0)
	some.Add(7)
	for _, c := range []struct {
		name string
		vlan VLAN
		want bool
	}{
		{"trunk", VLAN{Mode: Trunk}, true},
		{"trunk of some", VLAN{Mode: Trunk, Trunks: some}, true},
		{"native-tagged", VLAN{Mode: NativeTagged, Tag: 10}, false},
		{"native-untagged", VLAN{Mode: NativeUntagged, Tag: 10}, false},
		{"native-tagged that lists 0", VLAN{Mode: NativeTagged, Tag: 10, Trunks: some}, false},
		{"native VLAN 0", VLAN{Mode: NativeTagged, Tag: 0}, true},
		{"native VLAN 0, not listed", VLAN{Mode: NativeUntagged, Tag: 0, Trunks: new(VLANSet)}, true},
	} {
		if got := c.vlan.member(0); got != c.want {
			t.Errorf("%s: carries VLAN 0: %v, want %v", c.name, got, c.want)
		}
	}
}

// TestPriorityTagInVLAN0: a trunk keeps the tag for its priority, and only then.
func TestPriorityTagInVLAN0(t *testing.T) {
	for _, c := range []struct {
		name string
		vlan VLAN
		tci  uint16
		want bool
	}{
		{"priority 5", VLAN{}, 5 << 13, true},
		{"priority 0", VLAN{}, 0, false},
		{"priority 0, drop eligible", VLAN{}, 1 << 12, false},
		{"access", VLAN{Mode: Access}, 5 << 13, false},
		{"native-untagged", VLAN{Mode: NativeUntagged}, 5 << 13, false},
		{"native-tagged", VLAN{Mode: NativeTagged}, 5 << 13, true},
	} {
		in := frame.Tag{TPID: frame.TPID8021Q, TCI: c.tci}
		want := frame.Tag{}
		if c.want {
			want = in
		}
		if got := c.vlan.egress(0, in); got != want {
			t.Errorf("%s: leaves with %+v, want %+v", c.name, got, want)
		}
	}
}

// TestMirrorToVLAN: what is in the VLAN already is not copied into it, nor are
// control frames; and two mirrors into one VLAN make one copy.
func TestMirrorToVLAN(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{})
	b.must(b.SetMirrors("br0", []MirrorConfig{
		{Name: "a", Src: []string{"p1"}, OutVLAN: 30},
		{Name: "b", All: true, OutVLAN: 30},
	}))
	for _, c := range []struct {
		name   string
		dst    [6]byte
		vid    uint16
		copies int
	}{
		{"another VLAN", broadcast, 7, 1},
		{"the VLAN itself", broadcast, 30, 0},
		{"control", [6]byte{0x01, 0x80, 0xc2}, 7, 0},
	} {
		p := eth(c.dst, mac(1), 50)
		p.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: c.vid}
		p1.give(p)
		b.run()
		copies := 0
		for _, got := range p2.take() {
			if got.tag.VID() == 30 {
				copies++
			}
		}
		if c.vid == 30 {
			copies-- // the frame itself
		}
		if copies != c.copies {
			t.Errorf("%s: %d copies, want %d", c.name, copies, c.copies)
		}
	}
	b.balanced("br0")
}
