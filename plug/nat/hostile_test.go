package nat

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// What a container tries that has CAP_NET_RAW or CAP_NET_ADMIN in its own namespace, on a
// host as distributions set it up: rp_filter is 2, accept_ra is 1.

// forge sends a datagram from a container with a source address that is not its own, as
// one with CAP_NET_RAW can, and returns nil when somebody hears it at an address.
func (g *ground) forge(from *lab.Container, src string, at *lab.Namespace, addr string) (err error) {
	g.t.Helper()
	a := netip.MustParseAddr(src)
	one := netip.PrefixFrom(a, a.BitLen()).String()
	add := []string{"ip", "addr", "add", one, "dev", "eth0"}
	if a.Is6() {
		add = append(add, "nodad")
	}
	from.MustExec(add...)
	defer from.MustExec("ip", "addr", "del", one, "dev", "eth0")
	var ear net.PacketConn
	err = at.Do(func() (err error) {
		ear, err = net.ListenPacket("udp", addr)
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	defer ear.Close()
	err = from.Do(func() error {
		c, err := (&net.Dialer{LocalAddr: net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0))}).Dial("udp", addr)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write([]byte("!"))
		return err
	})
	if err != nil {
		g.t.Errorf("forge %s: %v", src, err)
	}
	ear.SetReadDeadline(time.Now().Add(never))
	_, peer, err := ear.ReadFrom(make([]byte, 64))
	if host, _, _ := net.SplitHostPort(fmt.Sprint(peer)); err == nil && host != src {
		return fmt.Errorf("heard from %s", host)
	}
	return err
}

// Tunnels, and many a service, know their peers by address. No container has another's.
func TestForgedSources(t *testing.T) {
	g := newGround(t)
	for _, ifname := range []string{"all", "default", "red", "blue", "eth0"} {
		g.host.Sysctl("net.ipv4.conf."+ifname+".rp_filter", "2")
	}
	g.served([]Gateway{red, blue})
	forgeries := []struct{ src, to string }{
		{outside4, host4 + ":4789"},               // a tunnel's remote
		{"10.2.0.2", "10.2.0.1:4789"},             // another network's container
		{outside6, "[" + host6 + "]:4789"},        //
		{"fd02::2", "[fd02::1]:4789"},             //
		{host6, "[fd01::1]:4789"},                 // the host itself: the kernel knows of IPv4 only
		{"2001:db8:7::9", "[" + host6 + "]:4789"}, // nobody
	}
	g.r1.Ping("fd01::1") // whom to ask for its neighbour is not part of it
	for _, f := range forgeries {
		if err := g.forge(g.r1, f.src, g.host.Namespace, f.to); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("%s hears a container as %s: %v", f.to, f.src, err)
		}
	}
	// The forgery is one: without the guard it works. What is behind a container by a route
	// of the host's is none.
	g.host.MustExec("ip", "route", "add", "10.9.0.0/24", "via", "10.1.0.2")
	if err := g.forge(g.r1, "10.9.0.9", g.host.Namespace, "10.1.0.1:4789"); err != nil {
		t.Errorf("a network that the host has behind a container: %v", err)
	}
	g.host.MustExec("nft", "flush", "chain", "inet", "vswitch-01234567", "guard")
	g.r1.Ping("fd01::1") // whom to ask for its neighbour is not part of it
	for _, f := range forgeries {
		if err := g.forge(g.r1, f.src, g.host.Namespace, f.to); err != nil {
			t.Errorf("%s does not hear a container as %s without the guard: %v", f.to, f.src, err)
		}
	}
}

// A gateway of IPv4 alone has IPv6, too, as any interface, and would take a default route
// from whoever offers one (CVE-2020-13401).
func TestContainersAreNoRouters(t *testing.T) {
	g := newGround(t)
	g.host.Sysctl("net.ipv6.conf.red.accept_ra", "1")
	wire := g.r1.Namespace.Conn("eth0")
	routes := func() string { return g.host.MustExec("ip", "-6", "route", "show", "default") }
	advertise := func() {
		t.Helper()
		if err := wire.Send(advertisement(1800)); err != nil {
			t.Fatal(err)
		}
	}
	// The attack is one: it works before red is a gateway.
	lab.Eventually(t, soon, func() error {
		advertise()
		if !strings.Contains(routes(), "dev red proto ra") {
			return fmt.Errorf("routes are %q", routes())
		}
		return nil
	})
	g.host.MustExec("ip", "-6", "route", "flush", "proto", "ra")
	v4 := red
	v4.Subnets = red.Subnets[:1]
	g.served([]Gateway{v4})
	advertise()
	if err := g.r1.Ping("10.1.0.1"); err != nil { // which comes behind it
		t.Fatal(err)
	}
	if strings.Contains(routes(), "red") {
		t.Errorf("a container gave the host a default route: %q", routes())
	}
	// The interface is made anew, with the host's default.
	g.host.Sysctl("net.ipv6.conf.red.accept_ra", "1")
	if !g.check() || g.check() {
		t.Error("accept_ra is not missed, or missed twice")
	}
	// A network of containers that is routed is not another kind of network.
	v4.Masquerade, v4.Stub = false, true
	g.host.Sysctl("net.ipv6.conf.red.accept_ra", "1")
	g.served([]Gateway{v4})
	if is := strings.TrimSpace(g.host.MustExec("cat", "/proc/sys/net/ipv6/conf/red/accept_ra")); is != "0" {
		t.Errorf("accept_ra of a routed network of containers is %s", is)
	}
	for _, ifname := range []string{"all", "red"} {
		g.host.Sysctl("net.ipv4.conf."+ifname+".rp_filter", "2")
	}
	if err := g.forge(g.r1, "10.2.0.2", g.host.Namespace, "10.2.0.1:4789"); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a container of a routed network speaks as another's: %v", err)
	}
	// An operator who means it.
	g.host.Sysctl("net.ipv6.conf.red.accept_ra", "2")
	if g.check() {
		t.Error("what an operator set is put back")
	}
}

// What is masqueraded has the host's address, by which the far end of a tunnel knows it: a
// container that could speak to it would put frames into a network that it is no part of.
func TestNobodySpeaksForATunnel(t *testing.T) {
	g := newGround(t)
	for _, port := range []int{4789, 4790} {
		g.serve(g.out.Namespace, port)
	}
	g.served([]Gateway{red})
	all := []string{"192.0.2.9:4789", "[2001:db8::9]:4789"}
	for _, addr := range all { // the attack is one
		if _, err := ask(g.r1.Namespace, "udp", addr, soon); err != nil {
			t.Error(err)
		}
	}
	shield := func(peers ...Peer) {
		t.Helper()
		g.do(func() error { return g.wall.Shield(peers) })
	}
	far4, far6 := netip.MustParseAddr(outside4), netip.MustParseAddr(outside6)
	shield(Peer{far4, 4789}, Peer{far6, 4789}, Peer{far4, 4789}, Peer{far4, 0}, Peer{Port: 1})
	if g.check() {
		t.Error("something is missing")
	}
	for _, addr := range all {
		if seen, err := ask(g.r1.Namespace, "udp", addr, never); err == nil {
			t.Errorf("a container speaks to %s, as %s", addr, seen)
		}
		g.reaches(g.host.Namespace, "udp", addr, map[bool]string{true: host6, false: host4}[addr[0] == '['])
	}
	g.reaches(g.r1.Namespace, "udp", "192.0.2.9:4790", host4)
	g.reaches(g.r1.Namespace, "tcp", "192.0.2.9:4789", host4)

	// GRE with Ethernet in it, and with something else.
	ear := g.out.Conn("eth0")
	gre := func(proto byte) bool {
		return g.heardGRE(ear, append([]byte{0, 0, 0x65, proto}, make([]byte, 40)...))
	}
	if gre(0x58) || !gre(0x59) {
		t.Error("GRE is not told apart")
	}
	shield()
	if !gre(0x58) {
		t.Error("GRE is shut out without a tunnel")
	}
	g.reaches(g.r1.Namespace, "udp", all[0], host4)
}

// heardGRE sends a GRE packet from a container and says whether it came out.
func (g *ground) heardGRE(ear *lab.Conn, packet []byte) bool {
	g.t.Helper()
	ear.Drain()
	err := g.r1.Do(func() error {
		c, err := net.Dial("ip4:47", outside4)
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(packet)
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	frames, err := ear.Collect(never)
	if err != nil {
		g.t.Fatal(err)
	}
	for _, f := range frames {
		if len(f) > 38 && f[12] == 8 && f[13] == 0 && f[23] == 47 && f[36] == packet[2] && f[37] == packet[3] {
			return true
		}
	}
	return false
}
