package tunnel_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// drops returns what `vswitchctl drops` shows.
func (n *hosts) drops(d *lab.Daemon) string {
	n.Helper()
	return d.Ctl("drops")
}

// TestUnknownSource has a kernel's VXLAN send with a key that is nobody's, and from
// an address that is nobody's.
//
//	c1 ── [host a: vswitchd, VNI 42] ── underlay ──┬── [host b: vx0, VNI 99] ── c2
//	                                               └── [host c: vx0, VNI 42] ── c3
func TestUnknownSource(t *testing.T) {
	n := newHosts(t, hostsConfig{cable: true, mtu2: 1450})
	n.d.Ctl("add-port", "br0", "t1", "type=vxlan", "key=42", "remote_ip="+n.far)
	n.b.KernelVXLAN("vx0", 99, n.far, n.near)
	n.b.KernelBridge("br0", "vx0", n.c2.Veth)

	c := n.lab.Host("c")
	n.net.Join(c, "192.0.2.3/24")
	n.net.Offload(c, false)
	c3 := c.Container("c3", lab.Addr("10.0.0.3/24"))
	c.KernelVXLAN("vx0", 42, "192.0.2.3", n.near)
	c.KernelBridge("br0", "vx0", c3.Veth)

	for _, sender := range []struct {
		c      *lab.Container
		source string
	}{{n.c2, n.far + " key 99"}, {c3, "192.0.2.3 key 42"}} {
		if _, err := sender.c.Exec("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-w", "1", "10.0.0.1"); err == nil {
			t.Errorf("%s is let in", sender.source)
		}
		lab.Eventually(t, 5*time.Second, func() error {
			var drops []api.Drop
			if err := n.d.Get("/v1/drops", &drops); err != nil {
				return err
			}
			i := slices.IndexFunc(drops, func(d api.Drop) bool {
				return d.Reason == "tunnel-unknown-source" && d.Source == sender.source
			})
			if i < 0 || drops[i].Count == 0 || !strings.HasPrefix(drops[i].Port, "vxlan ") || drops[i].Help == "" {
				return fmt.Errorf("no drop from %s in %+v", sender.source, drops)
			}
			return nil
		})
		if out := n.drops(n.d); !strings.Contains(out, sender.source) {
			t.Errorf("drops do not name %s:\n%s", sender.source, out)
		}
	}
}

// TestRemoteByName has a remote_ip that is a name: nobody knows it, then it is a
// host, then that host moves to another address.
//
//	c1 ── [host a: vswitchd, remote_ip=far.example] ── underlay ── [host b: vswitchd] ── c2
func TestRemoteByName(t *testing.T) {
	n := newHosts(t, hostsConfig{names: map[string]string{"elsewhere.example": "192.0.2.77"}})
	bfd := []string{"type=vxlan", "key=42", "bfd_enable=true", "bfd_min_rx=100", "bfd_min_tx=100"}
	b := n.daemon(n.b, n.c2, lab.DaemonOptions{})
	b.Ctl(append([]string{"add-port", "br0", "t1", "remote_ip=" + n.near}, bfd...)...)
	n.d.Ctl(append([]string{"add-port", "br0", "t1", "remote_ip=far.example"}, bfd...)...)

	shows := func(state, addr, reason string) {
		t.Helper()
		lab.Eventually(t, 15*time.Second, func() error { // a name is kept for five seconds
			s, err := tunnelStatus(n.d)
			if err == nil && (s.State != state || s.Remote != "far.example" || s.RemoteAddr != addr || !strings.Contains(s.Reason, reason)) {
				err = fmt.Errorf("the tunnel to %s (%s) is %s: %q", s.Remote, s.RemoteAddr, s.State, s.Reason)
			}
			return err
		})
	}
	shows(api.PortWaiting, "", "far.example cannot be resolved")

	n.d.SetHosts(map[string]string{"far.example": n.far})
	shows(api.PortUp, n.far, "")
	n.exchange(t)
	if out := n.d.Ctl("tunnel", "show"); !strings.Contains(out, "far.example is "+n.far) {
		t.Errorf("tunnel show has not both the name and the address:\n%s", out)
	}

	const moved = "192.0.2.22"
	n.b.MustExec("ip", "addr", "add", moved+"/24", "dev", "eth0")
	n.d.SetHosts(map[string]string{"far.example": moved})
	b.Ctl("set-port", "t1", "local_ip="+moved)
	shows(api.PortUp, moved, "")
	n.exchange(t)
}
