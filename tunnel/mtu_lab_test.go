package tunnel_test

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

// TestFullSizeTCP leaves containers at the underlay's MTU of 1500, sets no MTU
// anywhere, and wants TCP not to notice.
//
//	c1 1500 ── [host a: vswitchd] ── underlay 1500 ── [host b: vswitchd] ── c2 1500
func TestFullSizeTCP(t *testing.T) {
	for _, test := range []struct {
		name    string
		cable   bool
		options []string
		mtu     int
	}{
		{"VXLAN", false, []string{"type=vxlan"}, 1450},
		{"VXLAN, as on a cable", true, []string{"type=vxlan"}, 1450},
		{"VXLAN, MSS left alone", false, []string{"type=vxlan", "mss_clamp=false"}, 1450},
		{"Geneve", false, []string{"type=geneve"}, 1450},
		{"GRE", false, []string{"type=gre"}, 1462},
		{"GRE with a key", true, []string{"type=gre", "key=1"}, 1458},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newHosts(t, hostsConfig{cable: test.cable})
			n.peer(test.options...)
			for _, inner := range []struct {
				addr   string
				header int // of IP and TCP with timestamps
			}{{"10.0.0.2", 52}, {"fd00::2", 72}} {
				s := n.stream(inner.addr)
				if err := s.Send(8<<20, 10*time.Second); err != nil {
					t.Fatal(err)
				}
				info, err := s.Info()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("to %s: MSS %d, path MTU %d, %d segments sent again", inner.addr, info.Snd_mss, info.Pmtu, info.Total_retrans)
				if got := int(info.Snd_mss) + inner.header; got != test.mtu {
					t.Errorf("to %s: packets of %d bytes, and %d would fit", inner.addr, got, test.mtu)
				}
				if info.Total_retrans > 100 {
					t.Errorf("to %s: %d segments were sent again", inner.addr, info.Total_retrans)
				}
			}
		})
	}
}

// stream opens a connection from container c1 to an address of c2.
func (n *hosts) stream(addr string) *lab.Stream {
	n.Helper()
	s, err := lab.OpenStream(n.c1.Namespace, n.c2.Namespace, addr)
	if err != nil {
		n.Fatal(err)
	}
	return s
}

// TestTooBig sends datagrams that must not be fragmented and do not fit, and asks
// the sender's kernel what it was told.
func TestTooBig(t *testing.T) {
	n := newHosts(t, hostsConfig{})
	n.peer("type=vxlan")
	for _, addr := range []string{"10.0.0.2", "fd00::2"} {
		u := n.udp(addr)
		header := 28
		if strings.Contains(addr, ":") {
			header = 48
		}
		if _, err := u.Write(make([]byte, 1450-header)); err != nil {
			t.Fatal(err)
		}
		if got := pathMTU(t, u); got != 1500 {
			t.Errorf("to %s: the path's MTU is %d before anything was too big", addr, got)
		}
		lab.Eventually(t, 5*time.Second, func() error {
			if _, err := u.Write(make([]byte, 1500-header)); err != nil && !errors.Is(err, syscall.EMSGSIZE) {
				return err
			}
			if got := pathMTU(t, u); got != 1450 {
				return fmt.Errorf("to %s: the path's MTU is %d, want 1450", addr, got)
			}
			return nil
		})
		if _, err := u.Write(make([]byte, 1451-header)); !errors.Is(err, syscall.EMSGSIZE) {
			t.Errorf("to %s: 1451 bytes: %v", addr, err)
		}
	}
	if drops := n.drops(n.d); !strings.Contains(drops, "mtu-exceeded") {
		t.Errorf("drops say\n%s", drops)
	}
}

// udp opens a socket in container c1, connected to an address of c2, whose packets
// must not be fragmented.
func (n *hosts) udp(addr string) *net.UDPConn {
	n.Helper()
	var u *net.UDPConn
	err := n.c1.Do(func() error {
		c, err := net.Dial("udp", net.JoinHostPort(addr, "9"))
		if err == nil {
			u = c.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		n.Fatal(err)
	}
	n.Cleanup(func() { u.Close() })
	raw, err := u.SyscallConn()
	if err == nil {
		control := raw.Control(func(fd uintptr) {
			if strings.Contains(addr, ":") {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_DO)
			} else {
				err = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_DO)
			}
		})
		err = errors.Join(control, err)
	}
	if err != nil {
		n.Fatal(err)
	}
	return u
}

// pathMTU asks the kernel for the MTU of a connected socket's path.
func pathMTU(t *testing.T, u *net.UDPConn) (mtu int) {
	t.Helper()
	raw, err := u.SyscallConn()
	if err == nil {
		control := raw.Control(func(fd uintptr) {
			if u.RemoteAddr().(*net.UDPAddr).IP.To4() != nil {
				mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_MTU)
			} else {
				mtu, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_IPV6, unix.IPV6_MTU)
			}
		})
		err = errors.Join(control, err)
	}
	if err != nil {
		t.Fatal(os.NewSyscallError("getsockopt", err))
	}
	return mtu
}

// TestMTULowered narrows the underlay under streams that run both ways, at the hosts'
// own links, or behind a router that says so:
//
//	c1 ── [host a: vswitchd] ── 1500 ── [router] ── 1500, then 1400 ── [host b: vswitchd] ── c2
func TestMTULowered(t *testing.T) {
	for _, test := range []struct {
		name   string
		routed bool
		six    bool
		kind   string
		mtu    int // inner, after
	}{
		{"VXLAN, own link", false, false, "vxlan", 1350},
		{"VXLAN, behind a router", true, false, "vxlan", 1350},
		{"VXLAN over IPv6, own link", false, true, "vxlan", 1330},
		{"VXLAN over IPv6, behind a router", true, true, "vxlan", 1330},
		{"Geneve, behind a router", true, false, "geneve", 1350},
		{"GRE, own link", false, false, "gre", 1362},
		{"GRE, behind a router", true, false, "gre", 1362},
		{"GRE over IPv6, behind a router", true, true, "gre", 1342},
	} {
		t.Run(test.name, func(t *testing.T) {
			n := newHosts(t, hostsConfig{underlay: lab.UnderlayOptions{Routed: test.routed}})
			if test.six {
				n.peerOver(n.near6, n.far6, "type="+test.kind)
			} else {
				n.peer("type=" + test.kind)
			}
			before, err := tunnelStatus(n.d)
			if err != nil {
				t.Fatal(err)
			}
			there := n.stream("10.0.0.2")
			back, err := lab.OpenStream(n.c2.Namespace, n.c1.Namespace, "fd00::1")
			if err != nil {
				t.Fatal(err)
			}
			streams := []*lab.Stream{there, back}
			for _, s := range streams {
				if err := s.Send(2<<20, 10*time.Second); err != nil {
					t.Fatal(err)
				}
			}
			// The link narrows while both send.
			done := make(chan error, len(streams))
			for _, s := range streams {
				go func() { done <- s.Send(32<<20, 20*time.Second) }() // ends with the bytes, or the time
			}
			if !test.routed {
				n.net.SetMTU(n.a, 1400)
			}
			n.net.SetMTU(n.b, 1400)
			for range streams {
				if err := <-done; err != nil {
					t.Error(err)
				}
			}
			for i, s := range streams {
				info, err := s.Info()
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("stream %d: MSS %d, path MTU %d, %d segments sent again", i, info.Snd_mss, info.Pmtu, info.Total_retrans)
				if int(info.Pmtu) != test.mtu {
					t.Errorf("stream %d: the sender's path MTU is %d, want %d", i, info.Pmtu, test.mtu)
				}
			}
			n.tunnelMTU(t, 1400, test.mtu)
			if test.routed {
				return // a router does not say that its link is wide again
			}
			n.net.SetMTU(n.a, 1500)
			n.net.SetMTU(n.b, 1500)
			n.tunnelMTU(t, 1500, before.MTU)
		})
	}
}

// tunnelMTU waits until the switch in host a says that these are its tunnel's path's
// MTU, and the largest inner packet.
func (n *hosts) tunnelMTU(t *testing.T, path, inner int) {
	t.Helper()
	lab.Eventually(t, 5*time.Second, func() error {
		status, err := tunnelStatus(n.d)
		if err == nil && (status.MTU != inner || status.PathMTU != path) {
			err = fmt.Errorf("the MTU is said to be %d of %d, want %d of %d", status.MTU, status.PathMTU, inner, path)
		}
		return err
	})
}
