package vswitch_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// TestLabHostIsolation: the host has an address on an interface that is no port,
// and a container asks for it. Without the switch the host answers; as a port of
// the switch nothing of the container's reaches it.
//
//	c1 eth0 10.0.0.1 ── veth-c1 ┐
//	c2 eth0 10.0.0.2 ── veth-c2 ┴ br0 [host a] up0 10.0.0.99 ── up0 [elsewhere]
func TestLabHostIsolation(t *testing.T) {
	t.Parallel()
	for _, kind := range []string{"tcx", "clsact"} {
		t.Run(kind, func(t *testing.T) {
			n := newLabNet(t, 2, labOptions{addresses: true, daemon: lab.DaemonOptions{Args: []string{"--ingress-stop", kind}}})
			c1, c2 := n.c[0], n.c[1]
			n.d.Ctl("del-port", c1.Veth)
			n.Wire(n.h.Namespace, "up0", "10.0.0.99/24", n.Host("elsewhere").Namespace, "up0", "")
			// The host has it both ways: a path to the container, and forwarding.
			n.h.Sysctl("net.ipv4.ip_forward", "1")
			n.h.MustExec("ip", "route", "add", "10.0.0.1/32", "dev", c1.Veth)

			in, other := c1.Conn(), c2.Conn()
			request := labARPRequest(c1.MAC, "10.0.0.1", "10.0.0.99")
			labSend(t, in, request)
			if labARPReply(t, in, c1.MAC, 5*time.Second) == nil {
				t.Fatal("the host does not answer ARP even without the switch: this test proves nothing")
			}
			clean := n.h.Snapshot()
			hook := func() string {
				var lines []string
				for _, line := range clean.Diff(n.h.Snapshot()) {
					if strings.HasSuffix(line, " on "+c1.Veth) {
						lines = append(lines, line)
					}
				}
				return strings.Join(lines, "; ")
			}

			n.d.Ctl("add-port", "br0", c1.Veth)
			want := map[string]string{
				"tcx":    "+ tcx program ingress on " + c1.Veth,
				"clsact": "+ qdisc clsact on " + c1.Veth + "; + tc filter bpf ingress on " + c1.Veth,
			}[kind]
			if got := hook(); got != want {
				t.Errorf("hooks on the port: %q, want %q", got, want)
			}
			in.Drain()
			other.Drain()
			labSend(t, in, request)
			// The host answers, if it does, while the frame is sent, so before the
			// answer of c2 to a later one can be there.
			if err := c1.Ping("10.0.0.2"); err != nil {
				t.Fatal(err)
			}
			if reply := labARPReply(t, in, c1.MAC, 200*time.Millisecond); reply != nil && bytes.Equal(reply[28:32], net.IPv4(10, 0, 0, 99).To4()) {
				t.Errorf("the host answers ARP: %x", reply)
			}
			if got, err := other.Collect(100 * time.Millisecond); err != nil || !labContains(got, request) {
				t.Errorf("c2 did not hear the request, %v", err)
			}
			// Past ARP: the frame carries the host's own address for the port's interface.
			link, err := n.h.Link(c1.Veth)
			if err != nil {
				t.Fatal(err)
			}
			c1.MustExec("ip", "neighbor", "add", "10.0.0.99", "lladdr", link.Attrs().HardwareAddr.String(), "dev", "eth0")
			if out, err := c1.Exec("ping", "-n", "-c", "2", "-i", "0.2", "-W", "1", "10.0.0.99"); err == nil {
				t.Errorf("the host answers echo requests:\n%s", out)
			}

			n.d.Ctl("del-port", c1.Veth)
			if got := hook(); got != "" {
				t.Errorf("left on the interface after del-port: %s", got)
			}
			labSend(t, in, request)
			if labARPReply(t, in, c1.MAC, 5*time.Second) == nil {
				t.Error("the host does not answer ARP after del-port: something stops frames still")
			}
		})
	}
}

func labContains(frames [][]byte, want []byte) bool {
	for _, f := range frames {
		if bytes.Equal(f, want) {
			return true
		}
	}
	return false
}

// labARPRequest asks who has target.
func labARPRequest(src net.HardwareAddr, sender, target string) []byte {
	f := append(append(append([]byte{}, labBroadcast...), src...), 0x08, 0x06, 0, 1, 0x08, 0, 6, 4, 0, 1)
	f = append(append(f, src...), net.ParseIP(sender).To4()...)
	f = append(append(f, make([]byte, 6)...), net.ParseIP(target).To4()...)
	return append(f, make([]byte, 18)...)
}

// labARPReply returns the next ARP reply to dst; nil when none comes in time.
func labARPReply(t *testing.T, c *lab.Conn, dst net.HardwareAddr, limit time.Duration) []byte {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		f, err := c.Recv(time.Until(deadline))
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return nil
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(f) >= 42 && bytes.Equal(f[:6], dst) && binary.BigEndian.Uint16(f[12:]) == 0x0806 && f[21] == 2 {
			return f
		}
	}
}
