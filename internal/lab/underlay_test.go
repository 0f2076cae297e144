package lab_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// twoHosts is the usual topology of tests with tunnels:
//
//	c1 eth0 ── veth-c1 [host a] eth0 ── [underlay net] ── eth0 [host b] veth-c2 ── eth0 c2
//	10.0.0.1              192.0.2.1                       192.0.2.2              10.0.0.2
//
// The underlay's links are as cables are, with no offloads.
func twoHosts(t *testing.T) (l *lab.Lab, u *lab.Underlay, a, b *lab.Host, c1, c2 *lab.Container) {
	t.Helper()
	l = lab.New(t)
	u = l.Underlay("net", lab.UnderlayOptions{})
	a, b = l.Host("a"), l.Host("b")
	u.Join(a, "192.0.2.1/24", "2001:db8::1/64")
	u.Join(b, "192.0.2.2/24", "2001:db8::2/64")
	u.Offload(a, false)
	u.Offload(b, false)
	c1 = a.Container("c1", lab.Addr("10.0.0.1/24"), lab.MTU(1400))
	c2 = b.Container("c2", lab.Addr("10.0.0.2/24"), lab.MTU(1400))
	return l, u, a, b, c1, c2
}

// pingAndTCP is what two containers that a tunnel joins can do.
func pingAndTCP(t *testing.T, c1, c2 *lab.Container) {
	t.Helper()
	if err := lab.Ping(c1, c2); err != nil {
		t.Fatal(err)
	}
	for _, way := range [][2]*lab.Container{{c1, c2}, {c2, c1}} {
		if err := lab.Transfer(way[0], way[1], 1<<20); err != nil {
			t.Fatal(err)
		}
	}
}

// TestUnderlay cuts, mends and narrows the link of one of three hosts.
func TestUnderlay(t *testing.T) {
	t.Parallel()
	l, u, a, b, _, _ := twoHosts(t)
	c := l.Host("c")
	u.Join(c, "192.0.2.3/24")
	for _, addr := range []string{"192.0.2.2", "2001:db8::2", "192.0.2.3"} {
		if err := a.Ping(addr); err != nil {
			t.Fatal(err)
		}
	}
	fits := func(size int) error {
		_, err := a.Exec("ping", "-n", "-q", "-M", "do", "-c", "1", "-w", "1", "-s", fmt.Sprint(size-28), "192.0.2.2")
		return err
	}
	if err := fits(1500); err != nil {
		t.Fatal(err)
	}
	u.SetMTU(b, 1400)
	if err := fits(1500); err == nil {
		t.Error("1500 bytes went through a link of 1400")
	}
	if err := fits(1400); err != nil {
		t.Error(err)
	}

	wire := u.Conn(u.Port(a))
	u.Cut(b)
	lab.Eventually(t, 5*time.Second, func() error {
		if out := b.MustExec("ip", "-br", "link", "show", "eth0"); !strings.Contains(out, "NO-CARRIER") {
			return fmt.Errorf("cut off, yet %s", out)
		}
		return nil
	})
	if _, err := a.Exec("ping", "-n", "-q", "-c", "1", "-w", "1", "192.0.2.2"); err == nil {
		t.Error("a host that is cut off answers")
	}
	if err := a.Ping("192.0.2.3"); err != nil {
		t.Error(err)
	}
	if n := wire.Drain(); n == 0 {
		t.Error("nothing of that was to be seen on the wire")
	}
	u.Mend(b)
	for _, addr := range []string{"192.0.2.2", "2001:db8::2"} {
		if err := a.Ping(addr); err != nil {
			t.Error(err)
		}
	}
}

// TestRoutedUnderlay asks the router what fits its second link:
//
//	[host a] eth0 192.0.2.1 ── .254 [router] .254 ── 198.51.100.1 eth0 [host b]
//	                   MTU 1500              MTU 1300
func TestRoutedUnderlay(t *testing.T) {
	t.Parallel()
	l := lab.New(t)
	u := l.Underlay("net", lab.UnderlayOptions{Routed: true})
	a, b := l.Host("a"), l.Host("b")
	u.Join(a, "192.0.2.1/24", "2001:db8:1::1/64")
	u.Join(b, "198.51.100.1/24", "2001:db8:2::1/64")
	u.SetMTU(b, 1300)
	for _, addr := range []string{"198.51.100.1", "2001:db8:2::1"} {
		if err := a.Ping(addr); err != nil {
			t.Fatal(err)
		}
		out, _ := a.Exec("ping", "-n", "-M", "do", "-c", "2", "-i", "0.2", "-w", "2", "-s", "1400", addr)
		if !strings.Contains(out, "1300") {
			t.Errorf("nobody says that 1300 bytes fit:\n%s", out)
		}
	}
	u.Cut(b)
	u.Mend(b)
	for _, addr := range []string{"198.51.100.1", "2001:db8:2::1"} {
		if err := a.Ping(addr); err != nil {
			t.Error(err)
		}
	}
}

// TestKernelVXLAN joins containers by the kernel's VXLAN alone; they are left at
// an MTU that does not fit.
func TestKernelVXLAN(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, a, b string }{
		{"IPv4", "192.0.2.1", "192.0.2.2"},
		{"IPv6", "2001:db8::1", "2001:db8::2"},
	} {
		t.Run(test.name, func(t *testing.T) {
			_, _, a, b, c1, c2 := twoHosts(t)
			a.KernelVXLAN("vx0", 42, test.a, test.b)
			a.KernelBridge("br0", "vx0", c1.Veth)
			b.KernelVXLAN("vx0", 42, test.b, test.a)
			b.KernelBridge("br0", "vx0", c2.Veth)
			pingAndTCP(t, c1, c2)
		})
	}
}

// TestOVSTunnels joins containers by Open vSwitch's tunnels, to its like and to the
// kernel's VXLAN:
//
//	c1 ── veth-c1 [br0 t1 · br-phy eth0] ── net ── [eth0 br-phy · t1 br0] veth-c2 ── c2
func TestOVSTunnels(t *testing.T) {
	t.Parallel()
	l, u, a, b, c1, c2 := twoHosts(t)
	c := l.Host("c")
	u.Join(c, "192.0.2.3/24", "2001:db8::3/64")
	c3 := c.Container("c3", lab.Addr("10.0.0.3/24"), lab.MTU(1400))
	c.KernelVXLAN("vx0", 42, "192.0.2.3", "192.0.2.1")
	c.KernelBridge("br0", "vx0", c3.Veth)

	ends := []struct {
		ovs    *lab.OVS
		c      *lab.Container
		remote string
	}{{l.OVS(a), c1, "192.0.2.2"}, {l.OVS(b), c2, "192.0.2.1"}}
	for _, end := range ends {
		end.ovs.Underlay("br-phy", "eth0")
		end.ovs.AddBridge("br0")
		end.ovs.AddPort("br0", end.c.Veth)
		end.c.NoTxOffload()
	}

	t.Run("VXLAN with the kernel", func(t *testing.T) {
		ends[0].ovs.AddTunnel("br0", "t0", "type=vxlan", "options:remote_ip=192.0.2.3", "options:key=42")
		defer ends[0].ovs.Vsctl("del-port", "t0")
		pingAndTCP(t, c1, c3)
	})
	for _, test := range []struct {
		name     string
		settings []string
	}{
		{"VXLAN", []string{"type=vxlan", "options:key=7"}},
		{"GRE", []string{"type=gre", "options:key=7"}},
		{"GRE without key, with checksum", []string{"type=gre", "options:csum=true"}},
		{"Geneve", []string{"type=geneve", "options:key=7"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, end := range ends {
				settings := append([]string{"options:remote_ip=" + end.remote, "bfd:enable=true"}, test.settings...)
				end.ovs.AddTunnel("br0", "t1", settings...)
				defer end.ovs.Vsctl("del-port", "t1")
			}
			pingAndTCP(t, c1, c2)
			for _, end := range ends {
				lab.Eventually(t, 10*time.Second, func() error {
					bfd, err := end.ovs.BFD("t1")
					if err == nil && bfd["state"] != "up" {
						err = fmt.Errorf("bfd is %v", bfd)
					}
					return err
				})
			}
		})
	}
}
