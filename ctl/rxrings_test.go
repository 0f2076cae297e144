package ctl_test

import (
	"testing"

	"vswitch/internal/lab"
)

// TestRxRingsAreBounded: ports have receive rings until --rx-rings is spent; the next
// one works without, and has one when another gave its back. What an option asks for
// is not of that share.
//
//	c1 ── c2 ── c3 ── br0      room for two rings of 512 KiB
func TestRxRingsAreBounded(t *testing.T) {
	l := lab.New(t)
	h := l.Host("h")
	c1 := h.Container("c1", lab.Addr("10.0.0.1/24"))
	c2 := h.Container("c2", lab.Addr("10.0.0.2/24"))
	c3 := h.Container("c3", lab.Addr("10.0.0.3/24"))
	d := h.Daemon(lab.DaemonOptions{Args: []string{"--rx-rings", "1048576"}})
	d.Ctl("add-br", "br0")
	rings := func(want ...int) {
		t.Helper()
		for i, c := range []*lab.Container{c1, c2, c3}[:len(want)] {
			if got := mustPort(t, d, c.Veth).RxRing; got != want[i] {
				t.Errorf("%s has a ring of %d slots, want %d", c.Veth, got, want[i])
			}
		}
	}
	d.Ctl("add-port", "br0", c1.Veth)
	d.Ctl("add-port", "br0", c2.Veth)
	d.Ctl("add-port", "br0", c3.Veth)
	rings(2048, 2048, 0)
	for _, c := range []*lab.Container{c1, c2} {
		if err := lab.Transfer(c, c3, 1<<20); err != nil {
			t.Error(err)
		}
		if err := lab.Transfer(c3, c, 1<<20); err != nil {
			t.Error(err)
		}
	}
	d.Ctl("set-port", c3.Veth, "n_rxq_desc=256")
	rings(2048, 2048, 256)
	d.Ctl("del-port", "br0", c1.Veth)
	d.Ctl("set-port", c3.Veth, "n_rxq_desc=auto")
	d.Ctl("add-port", "br0", c1.Veth)
	rings(0, 2048, 2048)
}
