package ctl

import (
	"testing"
	"time"

	"vswitch/capture"
	"vswitch/ctl/api"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

func TestLedger(t *testing.T) {
	var l ledger
	a := api.Drop{Bridge: "br0", Port: "p1", Reason: vswitch.DropMTU.String()}
	missed := api.Drop{Bridge: "br0", Port: "p1", Reason: vswitch.DropMissed.String()}
	count := func(x api.Drop, n uint64) api.Drop { x.Count = n; return x }
	rates := func(second int, drops ...api.Drop) (r []float64) {
		l.rate(at(second), drops)
		for _, x := range drops {
			r = append(r, x.Rate)
		}
		return r
	}
	counts := func(drops ...api.Drop) map[dropKey]uint64 {
		all := map[dropKey]uint64{}
		for i := range drops {
			all[keyOf(&drops[i])] = drops[i].Count
		}
		return all
	}
	if r := rates(0, count(a, 100)); r[0] != 0 {
		t.Errorf("before any look: %v", r)
	}
	l.look(at(0), counts(count(a, 100)), counts(count(missed, 10)))
	if r := rates(1, count(a, 110)); r[0] != 10 {
		t.Errorf("after one look: %v", r)
	}
	l.look(at(2), counts(count(a, 120)), nil)
	// Since the older look, and one of another port, which was not there then.
	if r := rates(4, count(a, 140), count(api.Drop{Bridge: "br0", Port: "new"}, 8)); r[0] != 10 || r[1] != 2 {
		t.Errorf("after two: %v", r)
	}
	// Nothing was dropped since; the kernel was not asked what it lost.
	for _, second := range []int{4, 6, 8} {
		l.look(at(second), counts(count(a, 120)), nil)
	}
	if r := rates(8, count(a, 120), count(missed, 90)); r[0] != 0 || r[1] != 10 {
		t.Errorf("at rest: %v", r)
	}
	l.look(at(10), counts(count(a, 200)), counts(count(missed, 90)))
	if r := rates(10, count(a, 200), count(missed, 110)); r[0] != 40 || r[1] != 10 {
		t.Errorf("after rest: %v", r)
	}
	l.look(at(12), counts(count(a, 200)), nil)
	if r := rates(12, count(missed, 110)); r[0] != 10 {
		t.Errorf("since the kernel was asked last: %v", r)
	}
	// A port that was made anew counts from nothing.
	if r := rates(12, count(a, 8)); r[0] != 4 {
		t.Errorf("made anew: %v", r)
	}
}

func TestFlows(t *testing.T) {
	udp := []byte{0x45, 0, 0, 32, 0, 0, 0, 0, 64, frame.ProtoUDP, 0, 0, 10, 0, 0, 5, 10, 0, 0, 6, 0, 53, 0, 99, 0, 12, 0, 0}
	later := append([]byte{}, udp...)
	later[7] = 1 // a fragment that is not the first has no ports
	tcp6 := append([]byte{0x60, 0, 0, 0, 0xff, 0xff, 0, 64}, append(append(ip6.AsSlice(), ip6b.AsSlice()...), frame.ProtoTCP, 0, 0, 0, 0, 0, 0, 0, 0x13, 0x88, 0, 80)...)
	for _, tc := range []struct {
		b    []byte
		want api.FlowTalker
	}{
		{ether(macB, macA, frame.EtherIPv4, udp), api.FlowTalker{Proto: "udp", Src: "10.0.0.5", SrcPort: 53, Dst: "10.0.0.6", DstPort: 99}},
		{ether(macB, macA, frame.EtherIPv4, later), api.FlowTalker{Proto: "udp", Src: "10.0.0.5", Dst: "10.0.0.6"}},
		{ether(macB, macA, frame.EtherIPv4, udp[:20]), api.FlowTalker{Proto: "udp", Src: "10.0.0.5", Dst: "10.0.0.6"}},
		{ether(macB, macA, frame.EtherIPv4, udp[:19]), api.FlowTalker{Proto: "0x0800", Src: "02:00:00:00:00:0a", Dst: "02:00:00:00:00:0b"}},
		{ether(macB, macA, frame.EtherIPv6, tcp6), api.FlowTalker{Proto: "tcp", Src: "fe80::5", SrcPort: 5000, Dst: "2001:db8::6", DstPort: 80}},
		{arp(arpRequest, macA, ip4, ip4b), api.FlowTalker{Proto: "arp", Src: "02:00:00:00:00:0a", Dst: "ff:ff:ff:ff:ff:ff"}},
		{ether(macB, macA, 0x88cc, nil), api.FlowTalker{Proto: "0x88cc", Src: "02:00:00:00:00:0a", Dst: "02:00:00:00:00:0b"}},
		{ether(macB, macA, 38, nil), api.FlowTalker{Proto: "802.3", Src: "02:00:00:00:00:0a", Dst: "02:00:00:00:00:0b"}},
	} {
		x := &vswitch.Sighting{Bridge: "br0", Port: "p1", VLAN: 10, Direction: capture.Inbound, Data: tc.b, WireLen: 1000, Skipped: 9, Output: "p2", Outputs: 1}
		f, mac, ok := flowOf(x)
		if !ok || mac != macA {
			t.Fatalf("%x: %v, %v", tc.b, mac, ok)
		}
		flows := map[flow]*talk{}
		counted(flows, f, x, x.Output)
		counted(flows, f, x, x.Output)
		tc.want.Bridge, tc.want.VLAN, tc.want.Port, tc.want.Output, tc.want.Frames, tc.want.Bits = "br0", 10, "p1", "p2", 4, 32000
		if got := flowTalkers(flows, 5, 5); len(got) != 1 || got[0] != tc.want {
			t.Errorf("%+v, want %+v", got, tc.want)
		}
	}
}

// A flood of forged addresses fills no memory, and those who talk most are found
// nevertheless once they are known.
func TestTalkersAreBounded(t *testing.T) {
	all := map[place]*talk{}
	x := &vswitch.Sighting{WireLen: 60}
	big := &vswitch.Sighting{WireLen: 60000}
	counted(all, place{mac: macA}, big, "")
	full := 0
	for i := range maxTalkers + 10 {
		if !counted(all, place{mac: [6]byte{4, 0, 0, byte(i >> 16), byte(i >> 8), byte(i)}}, x, "") {
			full++
		}
	}
	if len(all) != maxTalkers || full != 11 {
		t.Errorf("%d told apart, %d not", len(all), full)
	}
	if keys := busiest(all, 3); len(keys) != 3 || keys[0].mac != macA {
		t.Errorf("%v", keys)
	}
}

// Sentences of an answer, without a switch.
func TestVerdict(t *testing.T) {
	now := at(0)
	ago := func(s int) *time.Time { x := at(-s); return &x }
	neighbor := api.Neighbor{Bridge: "br0", VLAN: 10, IP: "10.0.0.5", MAC: "02:00:00:00:00:0a", Port: "p1", By: byReply, LastSeen: *ago(240)}
	veth := api.WhyPlace{Bridge: "br0", VLAN: 10, MAC: "02:00:00:00:00:0a", Port: "p1", Type: "packet", State: api.PortUp, LastHeard: ago(2)}
	tunnel := api.WhyPlace{Bridge: "br0", MAC: "02:00:00:00:00:0a", Port: "m1:h2", Type: "vxlan", Remote: "192.0.2.2", State: api.PortDown, Reason: "BFD is down", LastHeard: ago(20)}
	aged := api.WhyPlace{Bridge: "br0", VLAN: 10, MAC: "02:00:00:00:00:0a", Port: "p1", Gone: "aged", GoneAt: ago(90)}
	for _, tc := range []struct {
		ip   bool
		out  api.Why
		want string
	}{
		{true, api.Why{Places: []api.WhyPlace{veth}, Neighbors: []api.Neighbor{neighbor}},
			"10.0.0.5 is 02:00:00:00:00:0a behind p1 of br0 in VLAN 10, up, last heard 2s ago"},
		{false, api.Why{Places: []api.WhyPlace{veth, veth, aged}}, "02:00:00:00:00:0a is behind p1 of br0 in VLAN 10, up, last heard 2s ago; and at 1 place more, see below"},
		{false, api.Why{Places: []api.WhyPlace{tunnel}}, "02:00:00:00:00:0a is behind m1:h2 of br0, a vxlan tunnel to 192.0.2.2, DOWN (BFD is down), last heard 20s ago"},
		{false, api.Why{Places: []api.WhyPlace{{Bridge: "br0", MAC: "02:00:00:00:00:0a", Port: "p1", Static: true, State: "up"}}}, "02:00:00:00:00:0a is behind p1 of br0, up, set by hand"},
		{true, api.Why{Places: []api.WhyPlace{{Bridge: "br0", MAC: "02:00:00:00:00:0a", Port: "br0", Own: true, State: "up"}}}, "10.0.0.5 is 02:00:00:00:00:0a, this host's own, at br0 of br0, up"},
		{true, api.Why{Places: []api.WhyPlace{aged}, Neighbors: []api.Neighbor{neighbor}},
			"10.0.0.5 is 02:00:00:00:00:0a, as an ARP reply at p1 said 4m ago; that MAC address is not known any more: it was behind p1 of br0 in VLAN 10 until it was silent for the aging time, 1m ago"},
		{false, api.Why{Places: []api.WhyPlace{aged}}, "02:00:00:00:00:0a is not known any more: it was behind p1 of br0 in VLAN 10 until it was silent for the aging time, 1m ago"},
		{true, api.Why{Bridge: "br0", Drops: []api.WhyDrop{{Bridge: "br0", Port: "p1", Reason: "mtu-exceeded", Count: 3, LastSeen: *ago(3)}}},
			"nobody has heard of 10.0.0.5 on br0; 3 frames that named it were dropped lately, the last one 3s ago at p1: mtu-exceeded"},
		{true, api.Why{Contradictions: []string{"x"}}, "nobody has heard of 10.0.0.5 on any bridge; beware, there is a contradiction"},
	} {
		in := &inquiry{now: now, out: tc.out}
		if in.out.Address = "02:00:00:00:00:0a"; tc.ip {
			in.ip, in.out.Address = ip4, "10.0.0.5"
		}
		if in.judge(); in.out.Verdict != tc.want {
			t.Errorf("got  %s\nwant %s", in.out.Verdict, tc.want)
		}
	}
	// Where addresses had to give way, it may have been heard of.
	in := &inquiry{now: now, ip: ip4, forgot: at(-5), out: api.Why{Address: "10.0.0.5"}}
	in.judge()
	if want := "10.0.0.5 is not remembered on any bridge; but more addresses were heard than are remembered, the last time 5s ago"; in.out.Verdict != want {
		t.Errorf("got  %s\nwant %s", in.out.Verdict, want)
	}
}
