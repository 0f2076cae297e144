package ctl_test

import (
	"fmt"
	"strings"
	"testing"

	"vswitch/internal/lab"
)

// TestPlugHostile has a container do what it must not, on the ground of plugGround: speak with
// the gateway's MAC, and speak to a tunnel's other end as the host does.
func TestPlugHostile(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24", "nat=masquerade")
	g.d.Ctl("plug", g.one.Name, "br0", "--ip", "auto")
	g.d.Ctl("plug", g.two.Name, "br0", "--ip", "auto")
	pings(t, g.one, "10.0.0.1")
	pings(t, g.two, "10.0.0.1")

	// The gateway's MAC stays where it is, whoever speaks with it.
	mac := mustPort(t, g.d, "br0").MAC
	g.two.MustExec("ip", "link", "set", "eth1", "down")
	g.two.MustExec("ip", "link", "set", "eth1", "address", mac)
	g.two.MustExec("ip", "link", "set", "eth1", "up")
	for range 5 {
		g.two.Exec("ping", "-c1", "-W1", "-n", "10.0.0.99") // its question goes to all
		if out, err := g.one.Exec("ping", "-c1", "-W1", "-n", "10.0.0.1"); err != nil {
			t.Fatalf("the gateway's frames go to who has taken its MAC: %v: %s", err, out)
		}
	}
	if out := g.d.Ctl("fdb", "show", "br0", "mac="+mac); !strings.Contains(out, "br0") || strings.Contains(out, g.plug("netns:"+g.two.Name).Port) {
		t.Errorf("the gateway's MAC is\n%s", out)
	}
	g.d.Ctl("unplug", g.two.Name)

	// A tunnel's other end knows us by our address, which a masqueraded container has, too.
	g.d.Ctl("add-port", "br0", "vx", "type=vxlan", "remote_ip=192.0.2.2", "key=7")
	lab.Eventually(t, patient, func() error {
		if out, err := g.h.Exec("nft", "list", "ruleset"); err != nil || !strings.Contains(out, "192.0.2.2 . udp . 4789") {
			return fmt.Errorf("no rule keeps containers from the tunnel's end: %v\n%s", err, out)
		}
		return nil
	})
}

// TestPublishOnALAN leaves other bridges the way out by a bridge that a NIC is in, also when
// that bridge's containers publish ports.
//
//	[one] ── br0 10.0.0.1 nat ── host ── lan 192.0.2.1, eth9 a port with take_addresses ── outside
func TestPublishOnALAN(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24", "nat=masquerade")
	g.d.Ctl("add-br", "lan", "ip=198.51.100.1/24")
	g.d.Ctl("add-port", "lan", "eth9", "--take-addresses")
	g.d.Ctl("plug", g.one.Name, "br0", "--ip", "auto")
	pings(t, g.one, g.outside)
	g.d.Ctl("plug", g.two.Name, "lan", "--ip", "198.51.100.9/24")
	g.d.Ctl("publish", "lan", "8080:"+g.two.Name+":80")
	pings(t, g.two, "198.51.100.1")
	pings(t, g.one, g.outside)
}
