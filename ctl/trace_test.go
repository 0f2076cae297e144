package ctl

import (
	"strings"
	"testing"

	"vswitch/capture"
	"vswitch/ctl/api"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

func TestVerdictOfATrace(t *testing.T) {
	out := func(port string, vid uint16) vswitch.Sighting {
		s := vswitch.Sighting{Bridge: "br0", Port: port, Direction: capture.Outbound, WireLen: 60, Data: make([]byte, 60)}
		if vid != 0 {
			s.Tag = frame.Tag{TPID: frame.TPID8021Q, TCI: vid | 5<<13}
		}
		return s
	}
	own := out("a", 0)
	own.Own = true
	drop := func(port string, r vswitch.Reason) vswitch.Sighting {
		s := out(port, 0)
		s.Reason = r
		return s
	}
	many := make([]vswitch.Sighting, 7)
	drops := make([]vswitch.Sighting, 7)
	for i := range many {
		many[i] = out(string(rune('a'+i)), 0)
		drops[i] = drop(string(rune('a'+i)), vswitch.DropRingFull)
	}
	mtu := vswitch.DropMTU.Help()
	for _, tc := range []struct {
		left, drops []vswitch.Sighting
		steps       []vswitch.Step
		live        bool
		want        string
	}{
		{left: []vswitch.Sighting{out("a", 0)}, want: "would leave by a untagged"},
		{left: []vswitch.Sighting{out("a", 10), out("b", 0)}, live: true, want: "left by a tagged 10, b untagged"},
		{left: []vswitch.Sighting{out("a", 0), out("a", 0), out("a", 0)}, want: "would leave by a untagged in 3 frames"},
		{left: many, want: "would leave by a untagged, b untagged, c untagged, d untagged, e untagged and 2 more ports"},
		{left: []vswitch.Sighting{own}, drops: []vswitch.Sighting{drop("vx0", vswitch.DropMTU)},
			want: "its sender would be told by ICMP, by a untagged; would be dropped at vx0: mtu-exceeded: " + mtu},
		{left: []vswitch.Sighting{own, out("b", 0)}, drops: []vswitch.Sighting{drop("vx0", vswitch.DropMTU), drop("c", vswitch.DropPortDown)}, live: true,
			want: "left by b untagged; its sender was told by ICMP, by a untagged; dropped at vx0: mtu-exceeded: " + mtu + "; dropped at c: port-down"},
		{drops: drops, want: "would be dropped at a and 6 more times: tx-ring-full: " + vswitch.DropRingFull.Help()},
		{steps: []vswitch.Step{{Stage: "transmit", Port: "a"}}, live: true, want: "waits for a to take it"},
		{want: "goes nowhere"},
	} {
		got := NewTrace(&vswitch.Traced{Sighting: out("in", 0), Left: tc.left, Drops: tc.drops, Steps: tc.steps}, tc.live)
		if got.Verdict != tc.want {
			t.Errorf("got  %s\nwant %s", got.Verdict, tc.want)
		}
	}
}

func TestTraceFrameOfASighting(t *testing.T) {
	s := vswitch.Sighting{
		Bridge: "br0", Port: "a", VLAN: 10, WireLen: 9004, Data: make([]byte, 9000), Reason: vswitch.DropMTU, Own: true,
		Tag:     frame.Tag{TPID: frame.TPID8021AD, TCI: 10 | 3<<13},
		Offload: frame.Offload{GSOType: frame.GSOTCPv4, GSOSize: 1448},
	}
	f := traceFrame(&s)
	if f.Tag == nil || *f.Tag != (api.VLANTag{VID: 10, PCP: 3, TPID: "0x88a8"}) || f.GSOSize != 1448 || f.Length != 9004 || len(f.Data) != 2*api.MaxTraceData ||
		f.Reason != "mtu-exceeded" || !strings.Contains(f.Help, "longer") || !f.Own || f.VLAN != 10 || f.Summary == "" {
		t.Errorf("%+v", f)
	}
}
