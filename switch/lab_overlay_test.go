package vswitch_test

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// TestLabOverlay has containers with a tunnel of their own, as a container that
// runs Docker or Kubernetes has:
//
//	 vx0 172.16.0.1, fd07::1                  vx0 172.16.0.2, fd07::2
//	  │ VXLAN 7                                │
//	c1 eth0 ── veth-c1 ┐        ┌ veth-c2 ── eth0 c2
//	                   └── br0 ─┘   veth-c2 has offload=off in half of the cases
//
// A veth takes such a tunnel's super-frames whole, and then cannot say what they
// are: they have to be cut for every output.
func TestLabOverlay(t *testing.T) {
	t.Parallel()
	size := int64(64 << 20)
	if labRace {
		size = 8 << 20
	}
	n := newLabNet(t, 2, labOptions{addresses: true})
	underlay4 := [2]string{"10.0.0.1", "10.0.0.2"}
	underlay6 := [2]string{"fd00::1", "fd00::2"}
	for _, tt := range []struct {
		name     string
		underlay [2]string
		options  string
		offload  string
	}{
		{"IPv4 with checksums", underlay4, "udpcsum", "on"},
		{"IPv4 without", underlay4, "noudpcsum", "on"},
		{"IPv6 with checksums", underlay6, "udp6zerocsumrx", "on"},
		{"IPv6 without", underlay6, "udp6zerocsumtx udp6zerocsumrx", "on"},
		{"IPv4 with checksums, offload=off", underlay4, "udpcsum", "off"},
		{"IPv6 without, offload=off", underlay6, "udp6zerocsumtx udp6zerocsumrx", "off"},
	} {
		n.d.Ctl("set-port", n.c[1].Veth, "offload="+tt.offload)
		for i, c := range n.c {
			add := fmt.Sprintf("ip link add name vx0 type vxlan id 7 dstport 4789 dev eth0 local %s remote %s %s",
				tt.underlay[i], tt.underlay[1-i], tt.options)
			c.MustExec(strings.Fields(add)...)
			c.MustExec("ip", "address", "add", fmt.Sprintf("172.16.0.%d/24", i+1), "dev", "vx0")
			c.MustExec("ip", "address", "add", fmt.Sprintf("fd07::%d/64", i+1), "dev", "vx0", "nodad")
			c.MustExec("ip", "link", "set", "vx0", "up")
		}
		for _, addr := range []string{"172.16.0.2", "fd07::2"} {
			if err := n.c[0].Ping(addr); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			before := n.bridge("br0").Counters
			start := time.Now()
			if err := labTransfer(n.c[0].Namespace, n.c[1].Namespace, netip.MustParseAddr(addr), size); err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			// Whatever else runs, it is nowhere near the hours of a stream whose
			// every super-frame is lost.
			if took := time.Since(start); took > 20*time.Second {
				t.Errorf("%s: %d bytes to %s took %v", tt.name, size, addr, took)
			}
			after := n.bridge("br0").Counters
			if after.SplitCopies == before.SplitCopies {
				t.Errorf("%s: to %s no super-frame was cut", tt.name, addr)
			}
			for _, reason := range []string{"unsegmentable", "tx-rejected", "malformed", "mtu-exceeded"} {
				if lost := after.Drops[reason] - before.Drops[reason]; lost != 0 {
					t.Errorf("%s: to %s %d frames were dropped: %s", tt.name, addr, lost, reason)
				}
			}
			if err := labUDPSegments(n.c[0].Namespace, n.c[1].Namespace, netip.MustParseAddr(addr), 1300, 10); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		}
		if err := labTransfer(n.c[1].Namespace, n.c[0].Namespace, netip.MustParseAddr("172.16.0.1"), size/8); err != nil {
			t.Fatalf("%s, back: %v", tt.name, err)
		}
		for _, c := range n.c {
			c.MustExec("ip", "link", "del", "vx0")
		}
		if err := lab.Ping(n.c[0], n.c[1]); err != nil {
			t.Fatalf("%s: %v", tt.name, err)
		}
	}
}
