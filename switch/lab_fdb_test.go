package vswitch_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// where returns the FDB of br0 as VLAN/MAC to port.
func (n *labNet) where() map[string]string {
	n.t.Helper()
	entries, err := n.client.FDB(context.Background(), api.FDBQuery{Bridge: "br0", VLAN: -1})
	if err != nil {
		n.t.Fatal(err)
	}
	all := map[string]string{}
	for _, e := range entries {
		all[fmt.Sprintf("%d/%s", e.VLAN, e.MAC)] = e.Port
	}
	return all
}

// learned waits until the FDB holds this MAC at that port.
func (n *labNet) learned(vlan int, mac net.HardwareAddr, port string) {
	n.t.Helper()
	lab.Eventually(n.t, 5*time.Second, func() error {
		if got := n.where()[fmt.Sprintf("%d/%s", vlan, mac)]; got != port {
			return fmt.Errorf("%s in VLAN %d is at %q, want %q", mac, vlan, got, port)
		}
		return nil
	})
}

func (n *labNet) fdbStats() api.FDBStats {
	n.t.Helper()
	st, err := n.client.FDBStats(context.Background(), "br0")
	if err != nil || len(st) != 1 {
		n.t.Fatalf("fdb stats: %+v, %v", st, err)
	}
	return st[0]
}

// TestLabFDB takes the table through its life:
//
//	c1 eth0 ── veth-c1 ┐
//	c2 eth0 ── veth-c2 ┼ br0
//	c3 eth0 ── veth-c3 ┘
func TestLabFDB(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 3, labOptions{})
	c1, c2, c3 := n.c[0], n.c[1], n.c[2]
	w1, w2, w3 := c1.Conn(), c2.Conn(), c3.Conn()
	speak := func(c *lab.Conn, src net.HardwareAddr, tags ...uint32) {
		t.Helper()
		labSend(t, c, labTagged(labEther(labBroadcast, src, "here I am"), tags...))
	}

	t.Run("unicast goes to one port", func(t *testing.T) {
		speak(w2, c2.MAC)
		n.learned(0, c2.MAC, c2.Veth)
		w3.Drain()
		labSend(t, w1, labEther(c2.MAC, c1.MAC, "for c2 alone"))
		labWant(t, w2, labEther(c2.MAC, c1.MAC, "for c2 alone"))
		labWantNone(t, w1, w3, labEther(labBroadcast, c1.MAC, "fence"))
	})
	t.Run("moves", func(t *testing.T) {
		mac := labMAC(1)
		speak(w1, mac)
		n.learned(0, mac, c1.Veth)
		for range 2 {
			speak(w2, mac)
			n.learned(0, mac, c2.Veth)
			speak(w1, mac)
			n.learned(0, mac, c1.Veth)
		}
		var stats []api.FDBStats
		n.d.CtlJSON(&stats, "fdb", "stats", "br0")
		if len(stats) != 1 || stats[0].Moved != 4 || len(stats[0].Moves) != 1 {
			t.Fatalf("fdb stats: %+v", stats)
		}
		if m := stats[0].Moves[0]; m.MAC != mac.String() || m.From != c2.Veth || m.To != c1.Veth || m.Count != 4 {
			t.Errorf("move: %+v", m)
		}
	})
	t.Run("static entries stay", func(t *testing.T) {
		mac := labMAC(2)
		n.d.Ctl("fdb", "add", "br0", mac.String(), c3.Veth)
		speak(w1, mac)
		labSend(t, w1, labEther(mac, c1.MAC, "to the static one"))
		w2.Drain()
		lab.Eventually(t, 5*time.Second, func() error {
			if f := labNext(t, w3, time.Second); string(f) != string(labEther(mac, c1.MAC, "to the static one")) {
				return fmt.Errorf("c3 received %x", f)
			}
			return nil
		})
		n.learned(0, mac, c3.Veth)
		n.d.Ctl("fdb", "flush", "br0")
		n.learned(0, mac, c3.Veth)
		n.d.Ctl("fdb", "del", "br0", mac.String())
		if at := n.where()["0/"+mac.String()]; at != "" {
			t.Errorf("after fdb del it is at %s", at)
		}
	})
	t.Run("flush", func(t *testing.T) {
		a, b := labMAC(10), labMAC(11)
		fill := func() {
			speak(w1, a)
			speak(w1, a, 0x8100_0014)
			speak(w2, b)
			speak(w2, b, 0x8100_0014)
			n.learned(0, a, c1.Veth)
			n.learned(20, a, c1.Veth)
			n.learned(0, b, c2.Veth)
			n.learned(20, b, c2.Veth)
		}
		for _, test := range []struct {
			args []string
			left []string
		}{
			{[]string{"br0", "port=" + c1.Veth}, []string{"0/" + b.String(), "20/" + b.String()}},
			{[]string{"br0", "vlan=20"}, []string{"0/" + a.String(), "0/" + b.String()}},
			{[]string{"br0", "mac=" + a.String()}, []string{"0/" + b.String(), "20/" + b.String()}},
			{[]string{"br0", "port=" + c2.Veth, "vlan=0"}, []string{"0/" + a.String(), "20/" + a.String(), "20/" + b.String()}},
			{[]string{"br0"}, nil},
		} {
			n.d.Ctl("fdb", "flush", "br0")
			fill()
			n.d.Ctl(append([]string{"fdb", "flush"}, test.args...)...)
			now := n.where()
			for _, key := range test.left {
				if now[key] == "" {
					t.Errorf("flush %v: %s is gone", test.args, key)
				}
			}
			if len(now) != len(test.left) {
				t.Errorf("flush %v left %v, want %v", test.args, now, test.left)
			}
		}
	})
	t.Run("never learned", func(t *testing.T) {
		n.d.Ctl("fdb", "flush", "br0")
		labSend(t, w1, labEther(c2.MAC, net.HardwareAddr{1, 0, 0, 0, 0, 1}, "multicast source"),
			labEther(c2.MAC, make(net.HardwareAddr, 6), "no source"))
		speak(w1, labMAC(20))
		n.learned(0, labMAC(20), c1.Veth)
		if now := n.where(); len(now) != 1 {
			t.Errorf("learned %v", now)
		}
	})
	t.Run("a full table", func(t *testing.T) {
		n.d.Ctl("fdb", "flush", "br0")
		n.d.Ctl("set-br", "br0", "mac-table-size=64")
		before := n.fdbStats().Evicted
		for i := range 5 {
			speak(w2, labMAC(100+i))
		}
		n.learned(0, labMAC(104), c2.Veth)
		const flood = 2000
		for i := range flood {
			speak(w1, labMAC(1000+i))
		}
		n.learned(0, labMAC(1000+flood-1), c1.Veth)
		now := n.where()
		if len(now) != 64 {
			t.Errorf("%d MAC addresses in a table of 64", len(now))
		}
		for i := range 5 {
			if now["0/"+labMAC(100+i).String()] != c2.Veth {
				t.Errorf("the flood of c1 drove out %s of c2", labMAC(100+i))
			}
		}
		if st := n.fdbStats(); st.Evicted-before != flood+5-64 {
			t.Errorf("%d were evicted, want %d", st.Evicted-before, flood+5-64)
		}
	})
	t.Run("aging", func(t *testing.T) {
		n.d.Ctl("set-br", "br0", "mac-aging-time=2", "mac-table-size=")
		n.d.Ctl("fdb", "flush", "br0")
		expired := n.fdbStats().Expired
		start := time.Now()
		speak(w1, labMAC(30))
		n.learned(0, labMAC(30), c1.Veth)
		lab.Eventually(t, 10*time.Second, func() error {
			speak(w2, labMAC(31)) // heard all the time
			if n.where()["0/"+labMAC(30).String()] != "" {
				return errors.New("it is still there")
			}
			return nil
		})
		// The clock has whole seconds.
		if gone := time.Since(start); gone < time.Second || gone > 6*time.Second {
			t.Errorf("aged out after %v, want 2 s", gone)
		}
		n.learned(0, labMAC(31), c2.Veth)
		if st := n.fdbStats(); st.Expired-expired != 1 {
			t.Errorf("%d aged out, want 1", st.Expired-expired)
		}
	})
	t.Run("link-local frames", func(t *testing.T) {
		frame := func(last byte) []byte {
			return labEther(net.HardwareAddr{1, 0x80, 0xc2, 0, 0, last}, c1.MAC, fmt.Sprint("control ", last))
		}
		w2.Drain()
		n.wantDrop(c1.Veth, "reserved-multicast", 16, func() {
			for last := range 16 {
				labSend(t, w1, frame(byte(last)))
			}
		})
		labWantNone(t, w1, w2, frame(0x10)) // which is none of them
		n.d.Ctl("set-br", "br0", "forward-bpdu=true")
		labSend(t, w1, frame(0), frame(0x0e))
		labWant(t, w2, frame(0), frame(0x0e))
	})
}
