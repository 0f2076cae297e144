package ctl_test

import (
	"strings"
	"testing"

	"vswitch/internal/lab"
)

// TestMACNATAddressesInUse has containers notice addresses that the LAN and the host have.
func TestMACNATAddressesInUse(t *testing.T) {
	u := newUplink(t, lab.DaemonOptions{})
	c1 := u.a.Container("c1", lab.Addr("192.0.2.21/24"), lab.Addr("2001:db8::21/64"))
	u.d.Ctl("add-port", "br0", "eth1", "--take-addresses", "macnat=true")
	u.d.Ctl("add-port", "br0", c1.Veth)
	peer := &lab.Container{Namespace: u.peer.Namespace}
	if err := c1.Ping("192.0.2.9"); err != nil {
		t.Fatal(err)
	}
	// The peer has .9: whoever probes for it must hear so.
	out, err := c1.Exec("busybox", "arping", "-D", "-c", "3", "-w", "4", "-I", "eth0", "192.0.2.9")
	t.Logf("arping -D: %v\n%s", err, out)
	if !strings.Contains(out, "eply") {
		t.Errorf("a container that probes for an address in use hears nothing")
	}
	u.peer.MustExec("ip", "addr", "replace", "fe80::9/64", "dev", "eth1", "nodad")
	// The host's link-local address.
	var ll string
	lab.Eventually(t, patient, func() error {
		for _, f := range strings.Fields(u.a.MustExec("ip", "-6", "-o", "addr", "show", "dev", "br0", "scope", "link")) {
			if strings.HasPrefix(f, "fe80") {
				ll = strings.Split(f, "/")[0]
			}
		}
		return has(ll, "fe80")
	})
	if err := lab.Wait(patient, func() error { return peer.Ping(ll + "%eth1") }); err != nil {
		t.Log(u.a.MustExec("ip", "addr"), u.a.MustExec("ip", "-6", "route", "show", "table", "all"), u.peer.MustExec("ip", "-6", "neigh"), u.a.MustExec("ip", "-6", "neigh"), u.d.Ctl("show"))
		t.Fatalf("before: %v", err)
	}
	c1.MustExec("ip", "addr", "add", ll+"/64", "dev", "eth0", "nodad")
	out, _ = c1.Exec("ping", "-6", "-c", "1", "-W", "1", "-I", ll, "ff02::1%eth0")
	c1.Exec("ping", "-6", "-c", "1", "-W", "1", "-I", ll, "fe80::9%eth0")
	c1.MustExec("ip", "addr", "del", ll+"/64", "dev", "eth0")
	u.peer.MustExec("ip", "neigh", "flush", "dev", "eth1")
	if err := peer.Ping(ll + "%eth1"); err != nil {
		t.Errorf("the host's link-local address, after a container had it for a moment: %v", err)
	}
	t.Log(strings.Join(mustPort(t, u.d, "eth1").Notes, "; "))
}
