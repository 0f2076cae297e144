package ctl

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"

	"golang.org/x/net/bpf"

	"vswitch/ctl/config"
	"vswitch/frame"
)

// outerPacket makes a tunnel packet, or nearly one.
func outerPacket(src, dst netip.Addr, proto uint8, port uint16, fragment int, key uint32) []byte {
	l4 := make([]byte, 24)
	if proto == frame.ProtoUDP {
		binary.BigEndian.PutUint16(l4[2:], port)
		binary.BigEndian.PutUint32(l4[12:], key<<8)
	} else {
		l4[0] = 0x20 // RFC 2890: a key follows
		binary.BigEndian.PutUint32(l4[4:], key)
	}
	b := make([]byte, frame.EthLen)
	if src.Is4() {
		binary.BigEndian.PutUint16(b[12:], frame.EtherIPv4)
		ip := make([]byte, 20, 24)
		if key%2 == 1 { // options
			ip = ip[:24]
		}
		ip[0], ip[9] = 0x40|byte(len(ip)/4), proto
		binary.BigEndian.PutUint16(ip[6:], uint16(fragment))
		copy(ip[12:], src.AsSlice())
		copy(ip[16:], dst.AsSlice())
		return append(append(b, ip...), l4...)
	}
	binary.BigEndian.PutUint16(b[12:], frame.EtherIPv6)
	ip := make([]byte, 40)
	ip[0], ip[6] = 0x60, proto
	copy(ip[8:], src.AsSlice())
	copy(ip[24:], dst.AsSlice())
	if fragment > 0 {
		ip[6] = 44
		ip = append(ip, proto, 0, byte(fragment>>5), byte(fragment<<3), 0, 0, 0, 1)
	}
	return append(append(b, ip...), l4...)
}

// The kernel's filter agrees with a plain look at the packet.
func TestOuterFilter(t *testing.T) {
	v4 := []netip.Addr{netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")}
	v6 := []netip.Addr{netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2"), netip.MustParseAddr("2001:db8:1::2")}
	kinds := []outerTunnel{{kind: config.VXLANPort, dport: 4789}, {kind: config.GenevePort, dport: 6081}, {kind: config.GREPort}, {kind: config.VXLANPort, dport: 8472}}
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(all []netip.Addr) netip.Addr { return all[random.IntN(len(all))] }
	passed := 0
	for round := range 400 {
		var tunnels []outerTunnel
		for range 1 + random.IntN(4) {
			x := kinds[random.IntN(len(kinds))]
			if x.remote = pick(v4); random.IntN(2) == 0 {
				x.remote = pick(v6)
			}
			tunnels = append(tunnels, x)
		}
		if round%10 == 0 { // more hosts than the filter tells apart
			for i := range 10 {
				tunnels = append(tunnels, outerTunnel{kind: config.VXLANPort, dport: 4789, remote: netip.AddrFrom4([4]byte{203, 0, 113, byte(i)})})
			}
		}
		ethernet := round%3 != 0
		raw, err := outerFilter(tunnels, ethernet)
		if err != nil {
			t.Fatal(err)
		}
		code, ok := bpf.Disassemble(raw)
		if !ok {
			t.Fatal("the program cannot be read back")
		}
		vm, err := bpf.NewVM(code)
		if err != nil {
			t.Fatal(err)
		}
		for range 100 {
			family := v4
			if random.IntN(2) == 0 {
				family = v6
			}
			src, dst := pick(family), pick(family)
			proto := []uint8{6, frame.ProtoUDP, protoGRE}[random.IntN(3)]
			port := []uint16{53, 4789, 6081, 8472}[random.IntN(4)]
			fragment := []int{0, 0, 100}[random.IntN(3)]
			b := outerPacket(src, dst, proto, port, fragment, random.Uint32N(4))
			if !ethernet {
				b = b[frame.EthLen:]
			}
			n, err := vm.Run(b)
			if err != nil {
				t.Fatal(err)
			}
			if got, want := n > 0, wanted(tunnels, src, dst, proto, port, fragment); got != want {
				t.Fatalf("%+v: %s > %s proto %d port %d fragment %d: %v, want %v", tunnels, src, dst, proto, port, fragment, got, want)
			}
			if n > 0 {
				passed++
			}
		}
	}
	if passed < 1000 {
		t.Errorf("only %d packets passed", passed)
	}
}

// wanted is the oracle of TestOuterFilter.
func wanted(tunnels []outerTunnel, src, dst netip.Addr, proto uint8, port uint16, fragment int) bool {
	var remotes []netip.Addr
	host, gre, ports := false, false, map[uint16]bool{}
	for _, x := range tunnels {
		host = host || x.remote == src || x.remote == dst
		gre = gre || x.kind == config.GREPort
		ports[x.dport] = x.kind != config.GREPort
		if !slices.Contains(remotes, x.remote) {
			remotes = append(remotes, x.remote)
		}
	}
	switch {
	case !host && len(remotes) <= mostRemotes:
		return false
	case src.Is6() && fragment > 0:
		return true
	case proto == protoGRE:
		return gre
	}
	return proto == frame.ProtoUDP && (fragment > 0 || ports[port])
}

func TestPacketID(t *testing.T) {
	a, b := netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	a6, b6 := netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
	for _, tc := range []struct {
		packet []byte
		want   packetID
		ok     bool
	}{
		{outerPacket(a, b, frame.ProtoUDP, 4789, 0, 42), packetID{src: a, dst: b, proto: 17, dport: 4789, key: 42}, true},
		{outerPacket(a, b, frame.ProtoUDP, 4789, 0, 43), packetID{src: a, dst: b, proto: 17, dport: 4789, key: 43}, true},
		{outerPacket(a6, b6, frame.ProtoUDP, 6081, 0, 42), packetID{src: a6, dst: b6, proto: 17, dport: 6081, key: 42}, true},
		{outerPacket(a, b, protoGRE, 0, 0, 7), packetID{src: a, dst: b, proto: 47, key: 7}, true},
		{outerPacket(a6, b6, protoGRE, 0, 0, 7), packetID{src: a6, dst: b6, proto: 47, key: 7}, true},
		{outerPacket(a, b, frame.ProtoUDP, 4789, 9, 42), packetID{src: a, dst: b, proto: 17, fragment: true}, true},
		{outerPacket(a6, b6, frame.ProtoUDP, 4789, 9, 42), packetID{src: a6, dst: b6, proto: 17, fragment: true}, true},
		{outerPacket(a, b, 6, 0, 0, 1), packetID{src: a, dst: b, proto: 6}, false},
	} {
		if got, ok := tunnelOf(tc.packet); ok != tc.ok || got != tc.want {
			t.Errorf("%+v, %v; want %+v", got, ok, tc.want)
		}
		for n := range tc.packet { // a packet that was cut is no panic
			tunnelOf(bytes.Clone(tc.packet[:n])[:n:n])
		}
	}
}

// Whose packet it is, is told by kind, host and key.
func TestOuterPort(t *testing.T) {
	host, other := netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("192.0.2.3")
	c := &outerCapture{tunnels: []outerTunnel{
		{bridge: "br0", port: "vx1", wanted: true, kind: config.VXLANPort, remote: host, dport: 4789, inKey: 1, outKey: 11},
		{bridge: "br0", port: "vx2", kind: config.VXLANPort, remote: host, dport: 4789, inKey: 2, outKey: 12},
		{bridge: "br0", port: "gre1", wanted: true, kind: config.GREPort, remote: host},
		{bridge: "br0", port: "gn1", kind: config.GenevePort, remote: other, dport: 6081, inKey: 1, outKey: 1},
	}}
	for _, tc := range []struct {
		id       packetID
		remote   netip.Addr
		outbound bool
		want     string
	}{
		{packetID{proto: 17, dport: 4789, key: 1}, host, false, "vx1"},
		{packetID{proto: 17, dport: 4789, key: 11}, host, true, "vx1"},
		{packetID{proto: 17, dport: 4789, key: 2}, host, false, ""}, // another port's
		{packetID{proto: 17, dport: 4789, key: 12}, host, true, ""},
		{packetID{proto: 17, dport: 4789, key: 3}, host, false, "vx1: key 3 is no port's"},
		{packetID{proto: 17, dport: 4789, key: 3}, host, true, ""}, // another program's
		{packetID{proto: 17, dport: 4789, key: 1}, other, false, ""},
		{packetID{proto: 17, dport: 6081, key: 1}, host, false, ""},
		{packetID{proto: 17, dport: 6081, key: 1}, other, false, ""},
		{packetID{proto: protoGRE}, host, false, "gre1"},
		{packetID{proto: protoGRE, key: 5}, host, false, "gre1: key 5 is no port's"},
		{packetID{proto: protoGRE, fragment: true}, host, false, "gre1: a fragment"},
		{packetID{proto: 17, fragment: true}, host, true, "vx1: a fragment"},
	} {
		got := ""
		if port, note := c.port(tc.id, tc.remote, tc.outbound); port != nil {
			if got = port.port; note != "" {
				got = fmt.Sprint(port.port, ": ", note)
			}
		}
		if got != tc.want {
			t.Errorf("%+v of %s, outbound %v: %q, want %q", tc.id, tc.remote, tc.outbound, got, tc.want)
		}
	}
}
