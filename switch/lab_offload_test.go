package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestLabDefaults sends TCP and UDP between containers and to the host with every
// offload at its default:
//
//	c1 eth0 10.0.0.1 ── veth-c1 ┐
//	c2 eth0 10.0.0.2 ── veth-c2 ┼ br0 10.0.0.254 (TAP) [host a: vswitchd]
//	               int0 (TAP) ──┘
//
// int0, an internal port, is moved into a namespace of its own (10.0.0.3), as a
// container without a veth pair would be.
func TestLabDefaults(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 2, labOptions{addresses: true})
	c1, c2 := n.c[0], n.c[1]
	n.d.Ctl("set-br", "br0", "ip=10.0.0.254/24,fd00::fe/64")
	n.d.Ctl("add-port", "br0", "int0", "type=internal", "ip=10.0.0.3/24")
	moved := n.Host("moved")
	n.h.MustExec("ip", "link", "set", "int0", "netns", moved.Name)
	moved.MustExec("ip", "address", "add", "10.0.0.3/24", "dev", "int0")
	moved.MustExec("ip", "address", "add", "fd00::3/64", "dev", "int0", "nodad")
	moved.MustExec("ip", "link", "set", "int0", "up")
	lab.Eventually(t, 5*time.Second, func() error { return moved.Ping("10.0.0.1") })

	size := int64(64 << 20)
	if labRace {
		size = 8 << 20
	}
	for _, way := range []struct {
		name       string
		from, to   *lab.Namespace
		addr       string
		size       int64
		toPort     string
		superframe bool
	}{
		{"c1 to c2", c1.Namespace, c2.Namespace, "10.0.0.2", size, c2.Veth, true},
		{"c1 to c2, IPv6", c1.Namespace, c2.Namespace, "fd00::2", size, c2.Veth, true},
		{"c2 to c1", c2.Namespace, c1.Namespace, "10.0.0.1", 8 << 20, c1.Veth, true},
		{"c2 to c1, IPv6", c2.Namespace, c1.Namespace, "fd00::1", 8 << 20, c1.Veth, true},
		{"c1 to the host", c1.Namespace, n.h.Namespace, "10.0.0.254", 8 << 20, "br0", true},
		{"c1 to the host, IPv6", c1.Namespace, n.h.Namespace, "fd00::fe", 8 << 20, "br0", true},
		{"the host to c1", n.h.Namespace, c1.Namespace, "10.0.0.1", 8 << 20, c1.Veth, true},
		{"the host to c1, IPv6", n.h.Namespace, c1.Namespace, "fd00::1", 8 << 20, c1.Veth, true},
		{"c1 to internal", c1.Namespace, moved.Namespace, "10.0.0.3", 8 << 20, "int0", true},
		{"internal to c1, IPv6", moved.Namespace, c1.Namespace, "fd00::1", 8 << 20, c1.Veth, true},
	} {
		addr := netip.MustParseAddr(way.addr)
		if err := way.from.Ping(way.addr); err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		before := n.port(way.toPort)
		if err := labTransfer(way.from, way.to, addr, way.size); err != nil {
			t.Fatalf("%s: %v", way.name, err)
		}
		// A worker counts a batch when it has sent it.
		var after api.PortCounters
		var frames, bytes uint64
		lab.Eventually(t, 5*time.Second, func() error {
			after = n.port(way.toPort)
			frames, bytes = after.TxFrames-before.TxFrames, after.TxBytes-before.TxBytes
			if bytes < uint64(way.size) {
				return fmt.Errorf("%s: %d bytes sent for a payload of %d", way.name, bytes, way.size)
			}
			return nil
		})
		if plain := bytes / 1500; frames > plain/4 {
			t.Errorf("%s: %d frames for %d bytes: super-frames were not kept whole (%d frames of 1500 bytes)", way.name, frames, bytes, plain)
		}
		if err := labUDPSegments(way.from, way.to, addr, 1400, 20); err != nil {
			t.Errorf("%s: %v", way.name, err)
		}
		if frames := n.port(way.toPort).TxFrames - after.TxFrames; frames > 40 {
			t.Errorf("%s: %d frames for 20 sends with UDP_SEGMENT", way.name, frames)
		}
	}
	if dropped := n.bridge("br0").Counters.Drops; dropped["malformed"]+dropped["tx-rejected"]+dropped["rx-unreadable"] != 0 {
		t.Errorf("drops: %v", dropped)
	}
}

// TestLabOffloadOff captures what a port with offload=off is sent:
//
//	c1 eth0 ── veth-c1 ┐
//	c2 eth0 ── veth-c2 ┴ br0    veth-c2 has offload=off
func TestLabOffloadOff(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 2, labOptions{addresses: true})
	c1, c2 := n.c[0], n.c[1]
	n.d.Ctl("set-port", c2.Veth, "offload=off")
	conn := c2.Conn()
	const size = 4 << 20
	for _, addr := range []string{"10.0.0.2", "fd00::2"} {
		if err := labTransfer(c1.Namespace, c2.Namespace, netip.MustParseAddr(addr), size); err != nil {
			t.Fatal(err)
		}
		if err := labUDPSegments(c1.Namespace, c2.Namespace, netip.MustParseAddr(addr), 1400, 10); err != nil {
			t.Fatal(err)
		}
	}
	if err := labTransfer(c2.Namespace, c1.Namespace, netip.MustParseAddr("10.0.0.1"), size); err != nil {
		t.Fatal(err)
	}
	frames, err := conn.Collect(300 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	if drops, err := conn.Drops(); err != nil || drops != 0 {
		t.Fatalf("the capture lost %d frames, %v", drops, err)
	}
	var payload, checked int
	for _, f := range frames {
		switch err := labFinished(f, 1500); {
		case errors.Is(err, errLabNoTransport):
			continue
		case err != nil && binary.BigEndian.Uint16(f[12:]) != 0x0806: // ARP
			t.Fatal(err)
		}
		checked++
		payload += len(f)
	}
	if least := 2 * size / 1448; checked < least || payload < 2*size {
		t.Errorf("captured %d frames with %d bytes, want at least %d with %d", checked, payload, least, 2*size)
	}
	st := n.settled()["br0"]
	if st.Counters.SplitCopies == 0 {
		t.Errorf("no super-frame was split: %+v", st.Counters)
	}
}

// TestLabMTU sends frames to ports that take them and ports that do not:
//
//	c1 eth0 MTU 9000 ── veth-c1 ┐
//	c2 eth0 MTU 9000 ── veth-c2 ┼ br0 MTU 1500 (TAP)
//	c3 eth0 MTU 1500 ── veth-c3 ┘
func TestLabMTU(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 2, labOptions{addresses: true, containers: []lab.ContainerOption{lab.MTU(9000)}})
	c1, c2 := n.c[0], n.c[1]
	c3 := n.h.Container("c3", lab.Addr("10.0.0.3/24"), lab.Addr("fd00::3/64"))
	n.d.Ctl("add-port", "br0", c3.Veth)
	n.d.Ctl("set-br", "br0", "ip=10.0.0.254/24")

	for _, ping := range [][]string{{"-s", "8972", "10.0.0.2"}, {"-s", "8952", "fd00::2"}} {
		c1.MustExec(append([]string{"ping", "-n", "-q", "-M", "do", "-c", "3", "-i", "0.2", "-w", "3"}, ping...)...)
	}
	for _, addr := range []string{"10.0.0.2", "fd00::2"} {
		if err := labTransfer(c1.Namespace, c2.Namespace, netip.MustParseAddr(addr), 16<<20); err != nil {
			t.Fatal(err)
		}
	}
	// The MSS of the handshake keeps TCP within the smaller MTU.
	for _, addr := range []string{"10.0.0.3", "fd00::3"} {
		if err := labTransfer(c1.Namespace, c3.Namespace, netip.MustParseAddr(addr), 4<<20); err != nil {
			t.Fatal(err)
		}
	}

	// Ports know where c3 and the host are, so each frame has one output.
	if err := c1.Ping("10.0.0.254"); err != nil {
		t.Fatal(err)
	}
	host, err := n.h.Link("br0")
	if err != nil {
		t.Fatal(err)
	}
	wire := c1.VnetConn("eth0")
	plain := func(dst net.HardwareAddr, payload int) []byte {
		return append(make([]byte, 10), labEther(dst, c1.MAC, string(bytes.Repeat([]byte{0xab}, payload)))...)
	}
	flow := func(dst net.HardwareAddr, six, udp bool) labFlow {
		f := labFlow{src: c1.MAC, dst: dst, srcIP: net.ParseIP("10.0.0.1"), dstIP: net.ParseIP("10.0.0.3"), udp: udp}
		if six {
			f.srcIP, f.dstIP = net.ParseIP("fd00::1"), net.ParseIP("fd00::3")
		}
		return f
	}
	data := bytes.Repeat([]byte("0123456789"), 2000)
	for _, out := range []struct {
		port string
		mac  net.HardwareAddr
	}{{c3.Veth, c3.MAC}, {"br0", host.Attrs().HardwareAddr}} {
		for _, test := range []struct {
			name  string
			frame []byte
			fits  bool
		}{
			{"plain, 1500 bytes", plain(out.mac, 1500), true},
			{"plain, 1501 bytes", plain(out.mac, 1501), false},
			{"plain, 9000 bytes", plain(out.mac, 9000), false},
			{"TCPv4 segments of 1500 bytes", flow(out.mac, false, false).partial(t, data, 1460), true},
			{"TCPv4 segments of 1501 bytes", flow(out.mac, false, false).partial(t, data, 1461), false},
			{"TCPv4 segments of 9000 bytes", flow(out.mac, false, false).partial(t, data, 8960), false},
			{"TCPv6 segments of 1500 bytes", flow(out.mac, true, false).partial(t, data, 1440), true},
			{"TCPv6 segments of 1501 bytes", flow(out.mac, true, false).partial(t, data, 1441), false},
			{"UDP segments of 1500 bytes", flow(out.mac, false, true).partial(t, data, 1472), true},
			{"UDP segments of 1501 bytes", flow(out.mac, false, true).partial(t, data, 1473), false},
		} {
			t.Run(out.port+" "+test.name, func(t *testing.T) {
				before := n.port(out.port)
				labSend(t, wire, test.frame)
				lab.Eventually(t, 5*time.Second, func() error {
					now := n.port(out.port)
					sent, dropped := now.TxFrames-before.TxFrames, now.Drops["mtu-exceeded"]-before.Drops["mtu-exceeded"]
					if test.fits && (sent == 0 || dropped != 0) || !test.fits && dropped != 1 {
						return errors.New("the frame was not sent or dropped as it should: " + labJSON(now))
					}
					return nil
				})
			})
		}
	}
}
