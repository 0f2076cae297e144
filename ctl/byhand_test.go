package ctl_test

import (
	"testing"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestOwnInterfacesByHand deletes, renames and takes down interfaces that the
// switch made, behind its back:
//
//	c1 10.0.0.1 ── veth-c1 [host a: vswitchd, br0 10.0.0.254, vm0] veth-c2 ── c2
func TestOwnInterfacesByHand(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{}, "ip=10.0.0.254/24")
	d := p.d
	ip := func(args ...string) { p.h.MustExec(append([]string{"ip", "link"}, args...)...) }
	d.Ctl("add-port", "br0", "vm0", "type=tap")
	waitPort(t, d, "vm0", api.PortDown, "nobody has attached")
	answered(t, p.c1, "10.0.0.254")
	before, mac := p.h.Snapshot(), mustPort(t, d, "br0").MAC
	asBefore := func() error {
		if err := same(before, p.h); err != nil {
			return err
		}
		_, err := portOf(d, "br0")
		return err
	}

	for _, step := range []struct {
		name string
		do   func()
	}{
		{"br0 deleted", func() { ip("del", "br0") }},
		{"vm0 deleted", func() { ip("del", "vm0") }},
		{"br0 taken down", func() { ip("set", "br0", "down") }},
		{"br0 renamed there and back", func() { ip("set", "br0", "name", "brx"); ip("set", "brx", "name", "br0") }},
		{"br0 given another MAC", func() { ip("set", "br0", "address", "02:00:00:00:00:99") }},
		{"br0 given another MTU, which no option forbids", func() { ip("set", "br0", "mtu", "1400"); ip("set", "br0", "mtu", "1500") }},
	} {
		step.do()
		if err := lab.Wait(patient, asBefore); err != nil {
			t.Errorf("%s: %v", step.name, err)
		}
		waitPort(t, d, "br0", api.PortUp)
		waitPort(t, d, "vm0", api.PortDown, "nobody has attached")
		lab.Eventually(t, patient, func() error { return has(mustPort(t, d, "br0").MAC, mac) })
		p.c1.MustExec("ip", "neigh", "flush", "dev", "eth0")
		answered(t, p.c1, "10.0.0.254")
	}
}
