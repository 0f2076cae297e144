package cni

import "testing"

// The daemon keeps attachments over its own restart; while it is away, every command says
// so, and ends.
func TestDaemonRestarts(t *testing.T) {
	g := newGround(t)
	c1, ns1 := sandbox(g.lab, "c1")
	_, ns2 := sandbox(g.lab, "c2")
	g.network("net1", "1.1.0", "")
	g.add("net1", ns1)
	to := g.add("net1", ns2).IPs[0].Address.IP.String()

	g.d.Restart()
	g.must("check", "net1", ns1)
	if err := c1.Ping(to); err != nil {
		t.Error(err)
	}
	g.d.Stop()
	for _, verb := range []string{"check", "status", "del"} {
		g.refused("there is no socket", verb, "net1", ns2)
	}
	g.d.Start()
	g.must("check", "net1", ns1)
	g.must("del", "net1", ns1)
	g.must("del", "net1", ns2)
	g.empty()
}
