package tunnel_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"testing"

	"vswitch/internal/lab"
)

// datagram is an Ethernet frame with IPv4 and UDP, as one flow sends it: nobody's
// address, so it is flooded, and complete.
func datagram(tos, ttl byte, sport uint16) []byte {
	b := make([]byte, 14+20+8+100)
	copy(b, "\x02\x00\x00\x00\x00\x99\x02\x00\x00\x00\x00\x01\x08\x00")
	ip := b[14:]
	copy(ip, []byte{0x45, tos, 0, 20 + 8 + 100, 0, 0, 0x40, 0, ttl, protoUDP, 0, 0, 10, 0, 0, 1, 10, 0, 0, 99})
	binary.BigEndian.PutUint16(ip[10:], ^naiveSum(ip[:20]))
	udp := ip[20:]
	binary.BigEndian.PutUint16(udp, sport)
	binary.BigEndian.PutUint16(udp[2:], 9)
	binary.BigEndian.PutUint16(udp[4:], 8+100)
	return b // its UDP checksum is 0: none
}

// TestHeaders reads every byte in front of a frame that leaves by a tunnel, and the
// frame's own.
func TestHeaders(t *testing.T) {
	n := newHosts(t, hostsConfig{cable: true})
	wire, c1 := n.net.Conn(n.net.Port(n.a)), n.c1.Conn()
	const csum = "cccc" // in want: any checksum that is right over what follows
	for _, test := range []struct {
		name     string
		options  []string
		port     uint16 // UDP
		want     string // header
		tos, ttl byte   // outer ones of a frame with TOS 0xb9 and TTL 17
		fragment bool   // it may be fragmented
		noSum    bool   // it has no UDP checksum
		v6       bool
	}{
		{name: "VXLAN", options: []string{"type=vxlan", "key=42"}, port: 4789, want: "0800000000002a00", tos: 1, ttl: 64},
		{name: "VXLAN without checksum", options: []string{"type=vxlan", "csum=false"}, port: 4789, want: "0800000000000000", tos: 1, ttl: 64, noSum: true},
		{name: "VXLAN to another port", options: []string{"type=vxlan", "out_key=0xabcdef", "in_key=1", "dst_port=8472", "tos=0x20", "ttl=3"},
			port: 8472, want: "08000000abcdef00", tos: 0x21, ttl: 3},
		{name: "VXLAN that inherits", options: []string{"type=vxlan", "tos=inherit", "ttl=inherit", "df_default=false"},
			port: 4789, want: "0800000000000000", tos: 0xb9, ttl: 17, fragment: true},
		{name: "VXLAN over IPv6", options: []string{"type=vxlan", "key=42", "tos=inherit"}, port: 4789, want: "0800000000002a00", tos: 0xb9, ttl: 64, v6: true},
		{name: "Geneve", options: []string{"type=geneve", "key=42"}, port: 6081, want: "0000655800002a00", tos: 1, ttl: 64},
		{name: "Geneve over IPv6", options: []string{"type=geneve", "key=42"}, port: 6081, want: "0000655800002a00", tos: 1, ttl: 64, v6: true},
		{name: "GRE", options: []string{"type=gre"}, want: "00006558", tos: 1, ttl: 64},
		{name: "GRE with a key", options: []string{"type=gre", "key=42"}, want: "200065580000002a", tos: 1, ttl: 64},
		{name: "GRE with it all", options: []string{"type=gre", "key=0xdeadbeef", "csum=true", "seq=true", "tos=inherit", "ttl=inherit"},
			want: "b0006558" + csum + "0000" + "deadbeef" + "00000000", tos: 0xb9, ttl: 17},
		{name: "GRE over IPv6", options: []string{"type=gre", "csum=true"}, want: "80006558" + csum + "0000", tos: 1, ttl: 64, v6: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			src, dst, protocol := n.near, n.far, byte(protoUDP)
			if test.v6 {
				src, dst = n.near6, n.far6
			}
			if test.port == 0 {
				protocol = protoGRE
			}
			n.d.Ctl(append([]string{"add-port", "br0", "t1", "remote_ip=" + dst}, test.options...)...)
			defer n.d.Ctl("del-port", "t1")
			wire.Drain()
			inner := datagram(0xb9, 17, 1000) // ECT(1), so the outer is too (RFC 6040)
			if err := c1.Send(inner); err != nil {
				t.Fatal(err)
			}
			o, err := next(wire, protocol)
			if err != nil {
				t.Fatal(err)
			}
			if o.src.String() != src || o.dst.String() != dst {
				t.Errorf("from %s to %s, want from %s to %s", o.src, o.dst, src, dst)
			}
			if o.tos != test.tos || o.ttl != test.ttl || !test.v6 && o.df == test.fragment {
				t.Errorf("TOS %#x, TTL %d, DF %v; want %#x, %d, %v", o.tos, o.ttl, o.df, test.tos, test.ttl, !test.fragment)
			}
			if o.dport != test.port || test.port != 0 && (o.udpSum == 0) != test.noSum {
				t.Errorf("UDP port %d, checksum %#x", o.dport, o.udpSum)
			}
			size := len(test.want) / 2
			if len(o.payload) != size+len(inner) {
				t.Fatalf("%d bytes, want %d and %d: %x", len(o.payload), size, len(inner), o.payload)
			}
			header := hex.EncodeToString(o.payload[:size])
			if len(test.want) > 12 && test.want[8:12] == csum {
				if naiveSum(o.payload) != 0xffff {
					t.Errorf("GRE checksum of %x is wrong", o.payload)
				}
				header = header[:8] + csum + header[12:]
			}
			if header != test.want {
				t.Errorf("header %s, want %s", header, test.want)
			}
			if !bytes.Equal(o.payload[size:], inner) {
				t.Errorf("inner frame\n%x, want\n%x", o.payload[size:], inner)
			}
		})
	}
}

// TestSourcePorts sees that flows are told apart by the outer source port, and that
// one flow keeps its port.
func TestSourcePorts(t *testing.T) {
	n := newHosts(t, hostsConfig{cable: true})
	n.d.Ctl("add-port", "br0", "t1", "type=vxlan", "remote_ip="+n.far)
	wire, c1 := n.net.Conn(n.net.Port(n.a)), n.c1.Conn()
	const flows = 64
	ports := make(map[uint16]bool)
	var first [flows]uint16
	for round := range 3 {
		for flow := range flows {
			if err := c1.Send(datagram(0, 64, uint16(1000+flow))); err != nil {
				t.Fatal(err)
			}
			o, err := next(wire, protoUDP)
			if err != nil {
				t.Fatal(err)
			}
			ports[o.sport] = true
			if round == 0 {
				first[flow] = o.sport
			} else if o.sport != first[flow] {
				t.Fatalf("flow %d came from port %d, and now from %d", flow, first[flow], o.sport)
			}
			if o.sport < 1024 {
				t.Fatalf("source port %d is a reserved one", o.sport)
			}
		}
	}
	if len(ports) < 8 {
		t.Errorf("%d flows leave from %d source ports", flows, len(ports))
	}
}

// TestInnerTags sees the VLAN tag that a frame has in the switch in the bytes that
// leave by a tunnel, and such a tag taken for a VLAN where it comes in.
func TestInnerTags(t *testing.T) {
	n := newHosts(t, hostsConfig{cable: true})
	n.peer("type=geneve", "key=7", "trunks=10,20")
	n.d.Ctl("set-port", n.c1.Veth, "tag=10")
	wire, in, out := n.net.Conn(n.net.Port(n.a)), n.c1.Conn(), n.c2.Conn()
	sent := datagram(0, 64, 1)
	tagged := append(append(bytes.Clone(sent[:12]), 0x81, 0, 0, 10), sent[12:]...)
	if err := in.Send(sent); err != nil {
		t.Fatal(err)
	}
	o, err := next(wire, protoUDP)
	if err != nil {
		t.Fatal(err)
	}
	if got := o.payload[8:]; !bytes.Equal(got, tagged) {
		t.Errorf("inner frame\n%x, want\n%x", got, tagged)
	}
	// c2's port is a trunk of all VLANs.
	if err := recvFrame(out, tagged); err != nil {
		t.Error(err)
	}
}

// recvFrame waits for a frame, whatever comes before it.
func recvFrame(c *lab.Conn, want []byte) error {
	for range 100 {
		got, err := c.Recv(lanLimit)
		if err != nil {
			return err
		}
		if bytes.Equal(got, want) {
			return nil
		}
	}
	return fmt.Errorf("a hundred other frames came")
}
