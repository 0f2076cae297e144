package mesh_test

import (
	"fmt"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// TestLabMoves moves a container from host to host; it keeps its MAC and its
// address:
//
//	c0 ── [a] ──┐
//	c0 ── [b] ──┼── underlay       x is on a, then b, then a, and so on;
//	c0 ── [c] ──┘                  c0 on c and on a talk to it
func TestLabMoves(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 3, containers: 1})
	n.mesh(n.hosts...)
	a, b, c := n.hosts[0], n.hosts[1], n.hosts[2]
	const ip, mac = "10.0.0.99", "02:00:00:00:00:99"
	plug := func(m *member, i int) *lab.Container {
		x := m.Container(fmt.Sprint("x", i), lab.Addr(ip+"/24"), lab.MAC(mac))
		m.d.Ctl("add-port", "br0", x.Veth)
		return x
	}
	reached := func(what string) {
		t.Helper()
		for _, m := range []*member{c, a, b} {
			start := time.Now()
			if _, err := m.c[0].Exec("ping", "-n", "-q", "-c", "1", "-W", "5", ip); err != nil { // the first is answered
				t.Errorf("%s: %s: %v", what, m.c[0].Name, err)
			}
			if took := time.Since(start); took > prompt && !raced {
				t.Errorf("%s: %s waited %v", what, m.c[0].Name, took)
			}
		}
	}
	x := plug(a, 0)
	reached("at first")
	if at := c.at(t, x.MAC); at != a.port("m0") {
		t.Errorf("c has x behind %q", at)
	}
	told := c.d.Events("mac-moved", "mac-flapping")
	for i, m := range []*member{b, a, b, a} {
		old := x.Host
		// Its old interface goes, or stays for a while: that host hears it from afar
		// all the same.
		if i%2 == 0 {
			x.Unplug()
		} else {
			x.MustExec("ip", "address", "flush", "dev", "eth0")
		}
		x = plug(m, i+1)
		if err := x.Conn().Send(announce(x)); err != nil { // it speaks, once
			t.Fatal(err)
		}
		lab.Eventually(t, patient, func() error {
			for _, other := range n.hosts {
				want := m.port("m0")
				if other == m {
					want = x.Veth
				}
				if at := other.at(t, x.MAC); at != want {
					return fmt.Errorf("after move %d %s has x behind %q, want %s", i+1, other.name, at, want)
				}
			}
			return nil
		})
		reached(fmt.Sprintf("%s to %s", old.Name, m.Host.Name))
	}
	lab.Eventually(t, patient, func() error {
		if moves := told.Of("mac-moved", ""); len(moves) != 4 {
			return fmt.Errorf("%d events of 4 moves: %+v", len(moves), moves)
		}
		return nil
	})
	if all := told.Of("mac-flapping", ""); len(all) > 0 {
		t.Errorf("who moves now and then flaps: %+v", all)
	}
	n.settled()
}
