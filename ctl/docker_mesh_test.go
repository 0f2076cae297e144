package ctl_test

import (
	"fmt"
	"net/netip"

	"vswitch/internal/lab"
)

// dockerMesh is one network of two Dockers, by a mesh (scenario 12):
//
//	a: dockerd, vswitchd ── shop 10.9.0.1 ══ m0 (VXLAN over eth8) ══ shop 10.9.0.2 ── b: dockerd, vswitchd
//
// Each Docker gives addresses by itself and knows nothing of the other, so each has a part of
// the subnet: by the range of the bridge (then the same line makes the network on both), or by
// Docker's own --ip-range.
func dockerMesh(a, b *dockerGround) {
	t := a.t
	a.h.MustExec("ip", "link", "add", "eth8", "type", "veth", "peer", "name", "eth8", "netns", b.h.Name)
	for g, n := range map[*dockerGround]int{a: 1, b: 2} {
		g.h.MustExec("ip", "addr", "add", fmt.Sprintf("198.51.100.%d/24", n), "dev", "eth8")
		g.h.MustExec("ip", "link", "set", "eth8", "up")
		g.d.Ctl("add-br", "shop", fmt.Sprintf("ip=10.9.0.%d/24", n), fmt.Sprintf("ipam.range=10.9.0.%d/26", 64*n), "nat=masquerade")
		g.d.Ctl("mesh", "add", "m0", "bridge=shop", "key=7", "peers=198.51.100.1,198.51.100.2")
	}
	before := map[*dockerGround]string{a: a.left(), b: b.left()}
	shop := []string{"network", "create", "-d", "vswitch", "-o", "mesh=m0", "--ipam-driver", "vswitch", "--ipam-opt", "mesh=m0", "--subnet", "10.9.0.0/24", "shop"}
	for g, n := range map[*dockerGround]int{a: 1, b: 2} {
		g.Must(shop...)
		g.Must("network", "create", "-d", "vswitch", "-o", "mesh=m0", "-o", "vlan=20", "--subnet", "10.8.0.0/24",
			"--ip-range", fmt.Sprintf("10.8.0.%d/26", 64*n), "--gateway", fmt.Sprintf("10.8.0.%d", n), "blue")
		g.run("one", "--network", "shop")
		g.run("two", "--network", "blue")
	}
	// address is a container's, which is of its host's part of the network.
	address := func(g *dockerGround, network, container string) string {
		t.Helper()
		text := g.Must("inspect", "-f", "{{.NetworkSettings.Networks."+network+".IPAddress}}", container)
		part := map[string]string{"shop": "10.9.0.%d/26", "blue": "10.8.0.%d/26"}[network]
		part = fmt.Sprintf(part, map[*dockerGround]int{a: 64, b: 128}[g])
		if ip, err := netip.ParseAddr(text); err != nil || !netip.MustParsePrefix(part).Contains(ip) {
			t.Errorf("%s at %s has %q, want one of %s", container, g.h.Name, text, part)
		}
		return text
	}
	for network, container := range map[string]string{"shop": "one", "blue": "two"} {
		mine, theirs := address(a, network, container), address(b, network, container)
		a.reach(container, theirs, dockerOutside)
		b.reach(container, mine, dockerOutside)
		// A packet as large as the container may send goes through the tunnel, its VLAN tag included.
		mtu := map[string]int{"shop": 1450, "blue": 1446}[network]
		if out, _ := a.in(container, "cat", "/sys/class/net/eth0/mtu"); out != fmt.Sprint(mtu) {
			t.Errorf("the MTU in %s is %s, want %d", network, out, mtu)
		}
		if out, err := a.in(container, "ping", "-c3", "-i0.2", "-s", fmt.Sprint(mtu-28), theirs); err != nil {
			t.Errorf("%d bytes in %s: %v: %s", mtu, network, err, out)
		}
	}
	a.silent("one", address(b, "blue", "two")) // another VLAN

	// One host is away, and comes back; what it leaves is at nobody's expense.
	theirs := address(b, "shop", "one")
	b.d.Kill()
	a.Must("run", "--rm", "--network", "shop", lab.BusyboxImage, "ping", "-c1", "-W2", "one")
	a.silent("one", theirs)
	b.d.Start()
	a.reach("one", theirs)
	// The network is removed on one, and made again.
	b.Must("rm", "-f", "one", "two")
	b.Must("network", "rm", "shop", "blue")
	a.reach("one", "10.9.0.1", "10.9.0.2", dockerOutside)
	b.Must(shop...)
	b.run("one", "--network", "shop")
	a.reach("one", address(b, "shop", "one"))
	b.Must("rm", "-f", "one")
	b.Must("network", "rm", "shop")
	a.Must("rm", "-f", "one", "two")
	a.Must("network", "rm", "shop", "blue")
	for _, g := range []*dockerGround{a, b} {
		lab.Eventually(t, patient, func() error { return asBefore(g.left(), before[g]) })
		g.d.Ctl("mesh", "del", "m0")
		g.d.Ctl("del-br", "shop")
	}
	a.h.MustExec("ip", "link", "del", "eth8")
}
