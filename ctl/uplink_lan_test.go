package ctl_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// TestUplinkBesideMacvlan has the same peers reached by our containers and by those of Docker's
// macvlan; and tagged ones by another switch's, where macvlan has its 802.1q mode:
//
//	peer 192.0.2.9 ────────────────────────┐
//	m: Docker, macvlan: m1 192.0.2.31 ─────┤
//	                                      lan ── eth1 [a: br0] ── c1 192.0.2.21, c50 10.50.0.21 (tag=50)
//	b50 10.50.0.22 (tag=50) ── [b: br0] ───┘      eth0 (management), on a network of its own
func TestUplinkBesideMacvlan(t *testing.T) {
	u := newUplink(t, lab.DaemonOptions{})
	net0 := u.Underlay("mgmt", lab.UnderlayOptions{})
	net0.Join(u.a, "203.0.113.1/24")
	net0.Join(u.peer, "203.0.113.9/24")
	managed := stackOf(u.a, "eth0")
	b, m := u.Host("b"), u.Host("m")
	u.lan.Join(b)
	u.lan.Join(m, "192.0.2.3/24")

	c1 := u.a.Container("c1", lab.Addr("192.0.2.21/24"))
	c50 := u.a.Container("c50", lab.Addr("10.50.0.21/24"))
	u.d.Ctl("add-port", "br0", "eth1", "--take-addresses")
	u.d.Ctl("add-port", "br0", c1.Veth)
	u.d.Ctl("add-port", "br0", c50.Veth, "tag=50")
	b50 := b.Container("b50", lab.Addr("10.50.0.22/24"))
	db := b.Daemon(lab.DaemonOptions{})
	db.Ctl("add-br", "br0")
	db.Ctl("add-port", "br0", "eth1")
	db.Ctl("add-port", "br0", b50.Veth, "tag=50")
	docker := m.Docker(lab.DockerOptions{})
	docker.Must("network", "create", "-d", "macvlan", "--subnet", "192.0.2.0/24", "-o", "parent=eth1", "lan")
	docker.Must("run", "-d", "--name", "m1", "--network", "lan", "--ip", "192.0.2.31", lab.BusyboxImage, "sleep", "1000")
	macvlan := func(addr string) error {
		_, err := docker.Docker("exec", "m1", "ping", "-c", "1", "-W", "3", addr)
		return err
	}

	for what, err := range map[string]error{
		"c1 to the peer":              c1.Ping("192.0.2.9"),
		"m1 to the peer":              macvlan("192.0.2.9"),
		"the peer to c1":              u.peer.Ping("192.0.2.21"),
		"the peer to m1":              u.peer.Ping("192.0.2.31"),
		"c1 to m1":                    c1.Ping("192.0.2.31"),
		"m1 to c1":                    macvlan("192.0.2.21"),
		"c1 to its host":              c1.Ping("192.0.2.1"),
		"the host to c1":              u.a.Ping("192.0.2.21"),
		"the host to the peer":        u.a.Ping("192.0.2.9"),
		"tagged, to another switch's": lab.Ping(c50, b50),
		"management":                  u.a.Ping("203.0.113.9"),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := macvlan("192.0.2.3"); err == nil {
		t.Error("a macvlan container reaches its host: docs/uplink.md says that it does not")
	}
	if err := lab.NoPing(c1, c50); err == nil {
		if _, err := c50.Exec("ping", "-c", "1", "-W", "1", "192.0.2.9"); err == nil {
			t.Error("VLAN 50 reaches the untagged LAN")
		}
	}
	if now := stackOf(u.a, "eth0"); !slices.Equal(now, managed) {
		t.Errorf("the management NIC changed: %q, was %q", now, managed)
	}

	// What c50 sends is tagged on the LAN.
	lan := u.lan.Conn(u.lan.Port(u.a))
	defer lan.Close()
	out := c50.Conn()
	defer out.Close()
	f := testFrame(c50.MAC, 0)
	want := append(bytes.Clone(f[:12]), 0x81, 0, 0, 50)
	want = append(want, f[12:]...)
	deadline := time.Now().Add(patient)
	for {
		out.Send(f)
		got, err := lan.Recv(50 * time.Millisecond)
		if err == nil && bytes.Equal(got, want) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("no tagged frame is on the LAN")
		}
	}
}

// TestMACNAT has a LAN that takes one MAC address from the host's port, and counts the others:
//
//	peer 192.0.2.9 ──── lan ──── eth1 [a: br0, macnat=true] ── c1 .21, c2 .22, c3 (DHCP), c50 (tag=50)
//	b50 (tag=50) ── b ───┘ port security: eth1's MAC alone
func TestMACNAT(t *testing.T) {
	u := newUplink(t, lab.DaemonOptions{})
	b := u.Host("b")
	u.lan.Join(b)
	c1 := u.a.Container("c1", lab.Addr("192.0.2.21/24"), lab.Addr("2001:db8::21/64"))
	c2 := u.a.Container("c2", lab.Addr("192.0.2.22/24"), lab.Addr("2001:db8::22/64"))
	c3 := u.a.Container("c3")
	c50 := u.a.Container("c50", lab.Addr("10.50.0.21/24"), lab.Addr("2001:db8:50::21/64"))
	b50 := b.Container("b50", lab.Addr("10.50.0.22/24"), lab.Addr("2001:db8:50::22/64"))
	db := b.Daemon(lab.DaemonOptions{})
	db.Ctl("add-br", "br0")
	db.Ctl("add-port", "br0", "eth1")
	db.Ctl("add-port", "br0", b50.Veth, "tag=50")

	nic := macOfLink(t, u.a, "eth1")
	u.lan.MustExec("nft", fmt.Sprintf(`table netdev security {
		counter others {}
		chain in {
			type filter hook ingress device "%s" priority 0;
			ether saddr != %s counter name others drop
		}
	}`, u.lan.Port(u.a), nic))
	others := func() string {
		text := u.lan.MustExec("nft", "list", "counter", "netdev", "security", "others")
		return regexp.MustCompile(`packets [0-9]+`).FindString(text)
	}

	u.d.Ctl("add-port", "br0", "eth1", "--take-addresses")
	for _, c := range []*lab.Container{c1, c2, c3} {
		u.d.Ctl("add-port", "br0", c.Veth)
	}
	u.d.Ctl("add-port", "br0", c50.Veth, "tag=50")
	if _, err := c1.Exec("ping", "-c", "1", "-W", "1", "192.0.2.9"); err == nil {
		t.Fatal("the LAN takes a container's own MAC: the test's port security does nothing")
	}
	u.d.Ctl("set-port", "eth1", "macnat=true")
	before := others()

	peer := &lab.Container{Namespace: u.peer.Namespace}
	tries := map[string]error{
		"c1, IPv4":       c1.Ping("192.0.2.9"),
		"c1, IPv6":       c1.Ping("2001:db8::9"),
		"c2, IPv4":       c2.Ping("192.0.2.9"),
		"peer to c2, v6": peer.Ping("2001:db8::22"),
		"peer to c1":     peer.Ping("192.0.2.21"),
		"c1 to c2":       lab.Ping(c1, c2),
		"c1 to its host": c1.Ping("192.0.2.1"),
		"peer to host":   peer.Ping("192.0.2.1"),
		"host to c2":     u.a.Ping("192.0.2.22"),
		"VLAN 50":        lab.Ping(c50, b50),
		"VLAN 50, back":  lab.Ping(b50, c50),
	}
	for what, err := range tries {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	neigh := u.peer.MustExec("ip", "neigh", "show", "dev", "eth1")
	if err := has(neigh, "192.0.2.21 lladdr "+nic, "192.0.2.22 lladdr "+nic, "192.0.2.1 lladdr "+nic, "2001:db8::21 lladdr "+nic); err != nil {
		t.Error(err)
	}

	for _, x := range []struct {
		from, to *lab.Namespace
		addr     string
		args     []string
	}{
		{c1.Namespace, u.peer.Namespace, "2001:db8::9", nil},
		{u.peer.Namespace, c2.Namespace, "192.0.2.22", nil},
		{c1.Namespace, u.peer.Namespace, "192.0.2.9", []string{"-u", "-b", "50M"}},
	} {
		r, err := lab.Iperf3To(x.from, x.to, x.addr, 1, x.args...)
		if err != nil || r.Bytes == 0 {
			t.Errorf("iperf3 to %s %q: %d bytes, %v", x.addr, x.args, r.Bytes, err)
		} else {
			t.Logf("iperf3 to %s %q: %.2f Gbit/s, %d retransmitted, %d of %d lost", x.addr, x.args, r.BitsPerSecond/1e9, r.Retransmits, r.LostPackets, r.Packets)
		}
	}

	lease(t, u, c3.Namespace, "eth0")
	if err := c3.Ping("192.0.2.9"); err != nil {
		t.Error(err)
	}
	if after := others(); after != before {
		t.Errorf("frames with another MAC reached the LAN: %s, were %s", after, before)
	}
	port := mustPort(t, u.d, "eth1")
	if err := has(strings.Join(port.Notes, "; "), "macnat:", "of 4096 inner addresses known", "its addresses are at br0"); err != nil {
		t.Error(err)
	}

	// After a start, containers that say nothing are reached by who knows them.
	for _, c := range []*lab.Container{c1, c2, c50} {
		c.MustExec("ip", "neigh", "flush", "all")
	}
	u.d.Kill()
	u.d.Start()
	began := time.Now()
	for _, addr := range []string{"192.0.2.21", "2001:db8::21", "192.0.2.22"} {
		if err := peer.Ping(addr); err != nil {
			t.Errorf("after a start: %v", err)
		}
	}
	if err := lab.Ping(b50, c50); err != nil {
		t.Errorf("after a start, in VLAN 50, where the host has no address: %v", err)
	}
	t.Logf("reached again after %v", time.Since(began))

	// Nobody takes the host's address: neither a neighbour's view of it changes, nor ours.
	c2.MustExec("ip", "addr", "add", "192.0.2.1/24", "dev", "eth0")
	c2.MustExec("busybox", "arping", "-c", "1", "-U", "-w", "1", "-I", "eth0", "192.0.2.1")
	if err := peer.Ping("192.0.2.1"); err != nil {
		t.Errorf("the host, after a container claimed its address: %v", err)
	}
	if err := has(strings.Join(mustPort(t, u.d, "eth1").Notes, "; "), "used an address of the host"); err != nil {
		t.Error(err)
	}

	// Nor in a VLAN: of an internal port, and of the local port that is moved into it, by whatever
	// mode of the uplink.
	b50.MustExec("ip", "addr", "add", "192.0.2.8/24", "dev", "eth0")
	robbed := func(when, addr string) {
		t.Helper()
		if err := b50.Ping(addr); err != nil {
			t.Errorf("%s, before: %v", when, err)
		}
		c50.MustExec("ip", "addr", "add", addr+"/24", "dev", "eth0")
		c50.MustExec("busybox", "arping", "-c", "1", "-U", "-w", "1", "-I", "eth0", addr)
		c50.MustExec("ip", "addr", "del", addr+"/24", "dev", "eth0")
		if err := b50.Ping(addr); err != nil {
			t.Errorf("%s, after a container claimed the address: %v", when, err)
		}
	}
	u.d.Ctl("add-port", "br0", "host50", "type=internal", "tag=50", "ip=10.50.0.1/24")
	waitPort(t, u.d, "host50", "up")
	robbed("an internal port", "10.50.0.1")
	u.d.Ctl("del-port", "host50")
	u.d.Ctl("set-br", "br0", "tag=50")
	robbed("the local port in VLAN 50", "192.0.2.1")
	u.d.Ctl("set-port", "eth1", "tag=50", "vlan_mode=native-tagged")
	robbed("the uplink native-tagged in VLAN 50", "192.0.2.1")
}

// lease gets an address by DHCP from the peer.
func lease(t *testing.T, u *uplinkLab, n *lab.Namespace, ifname string) {
	t.Helper()
	conf, script := filepath.Join(u.Dir(), "udhcpd.conf"), filepath.Join(u.Dir(), "lease.sh")
	for path, text := range map[string]string{
		conf: fmt.Sprintf("start 192.0.2.100\nend 192.0.2.120\ninterface eth1\nlease_file %s\npidfile %s\nopt subnet 255.255.255.0\nopt lease 600\n",
			filepath.Join(u.Dir(), "leases"), filepath.Join(u.Dir(), "udhcpd.pid")),
		script:                           "#!/bin/sh\n[ \"$1\" = bound ] && ip addr add $ip/24 dev $interface\nexit 0\n",
		filepath.Join(u.Dir(), "leases"): "",
	} {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	server := u.peer.Start("busybox", "udhcpd", "-f", conf)
	defer server.Kill()
	if out, err := n.Exec("busybox", "udhcpc", "-i", ifname, "-f", "-n", "-q", "-t", "10", "-T", "1", "-s", script); err != nil {
		t.Errorf("no lease: %v\n%s\n%s", err, out, server.Out)
	}
}
