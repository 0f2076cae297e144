package nat

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"vswitch/internal/lab"
)

var protocols = []string{"tcp", "udp"}

// knowsTheWay lets the host outside route to the containers, as a neighbour with bad
// intentions would.
func (g *ground) knowsTheWay() {
	g.out.MustExec("ip", "route", "add", "10.0.0.0/8", "via", host4)
	g.out.MustExec("ip", "route", "add", "fd00::/8", "via", host6)
}

func TestMasquerade(t *testing.T) {
	g := newGround(t)
	g.serve(g.out.Namespace, 80)
	g.serve(g.r1.Namespace, 80)
	g.serve(g.b1.Namespace, 80)
	g.served([]Gateway{red, blue})

	for _, proto := range protocols {
		g.reaches(g.r1.Namespace, proto, "192.0.2.9:80", host4)
		g.reaches(g.r1.Namespace, proto, "[2001:db8::9]:80", host6)
		g.reaches(g.b1.Namespace, proto, "192.0.2.9:80", host4)
		// Neighbours, and the host, see who it is.
		g.reaches(g.r2.Namespace, proto, "10.1.0.2:80", "10.1.0.3")
		g.reaches(g.r2.Namespace, proto, "[fd01::2]:80", "fd01::3")
		g.reaches(g.host.Namespace, proto, "10.1.0.2:80", "10.1.0.1")
	}
	for _, to := range []string{outside4, outside6} {
		if err := g.r1.Ping(to); err != nil {
			t.Error(err)
		}
	}
}

func TestNothingNewComesIn(t *testing.T) {
	g := newGround(t)
	g.serve(g.r1.Namespace, 80)
	g.serve(g.b1.Namespace, 80)
	g.knowsTheWay()
	g.served([]Gateway{red, blue})
	g.silent(g.out.Namespace, "10.1.0.2:80", "[fd01::2]:80")
	// Networks are isolated from each other.
	g.silent(g.r1.Namespace, "10.2.0.2:80", "[fd02::2]:80")
	for _, c := range []*lab.Namespace{g.out.Namespace, g.b1.Namespace} {
		if err := g.noPing(c, "10.1.0.2"); err != nil {
			t.Error(err)
		}
	}
}

func (g *ground) noPing(from *lab.Namespace, to string) error {
	if _, err := from.Exec("ping", "-n", "-c1", "-W1", to); err == nil {
		return fmt.Errorf("ping from %s to %s: answered", from.Name, to)
	}
	return nil
}

// A network that does not masquerade is open to whoever knows the way: other networks too, as
// Docker's routed ones are since 28, and whether or not it publishes a port besides.
func TestRouted(t *testing.T) {
	g := newGround(t)
	g.serve(g.out.Namespace, 80)
	g.serve(g.r1.Namespace, 80)
	g.serve(g.b1.Namespace, 80)
	g.knowsTheWay()
	routed := red
	routed.Masquerade = false
	g.served([]Gateway{routed, blue})
	for _, proto := range protocols {
		g.reaches(g.r1.Namespace, proto, "192.0.2.9:80", "10.1.0.2")
		g.reaches(g.out.Namespace, proto, "10.1.0.2:80", outside4)
		g.reaches(g.out.Namespace, proto, "[fd01::2]:80", outside6)
		g.reaches(g.b1.Namespace, proto, "10.1.0.2:80", "10.1.0.1") // masqueraded
		g.reaches(g.b1.Namespace, proto, "[fd01::2]:80", "fd01::1")
	}
	g.silent(g.r1.Namespace, "10.2.0.2:80", "[fd02::2]:80")
	other := blue
	other.Masquerade = false
	g.served([]Gateway{routed, other}, forward("", 8080, "tcp", "10.2.0.2:80", "blue"))
	for _, proto := range protocols {
		g.reaches(g.r1.Namespace, proto, "10.2.0.2:80", "10.1.0.2")
		g.reaches(g.b1.Namespace, proto, "[fd01::2]:80", "fd02::2")
	}
}

// A bridge with a NIC among its ports is a gateway when something behind it is published,
// and remains the way out of all other networks.
func TestUplink(t *testing.T) {
	g := newGround(t)
	g.serve(g.r1.Namespace, 80)
	g.serve(g.b1.Namespace, 80)
	g.host.Sysctl("net.ipv6.conf.blue.accept_ra", "1")
	for _, masquerade := range []bool{false, true} {
		lan := blue
		lan.Uplink, lan.Masquerade = true, masquerade
		g.served([]Gateway{red, lan}, forward("", 8080, "tcp", "10.2.0.2:80", "blue"))
		for _, proto := range protocols {
			g.reaches(g.r1.Namespace, proto, "10.2.0.2:80", "10.2.0.1")
			g.reaches(g.r1.Namespace, proto, "[fd02::2]:80", "fd02::1")
		}
		g.silent(g.b1.Namespace, "10.1.0.2:80", "[fd01::2]:80")
		if ra := strings.TrimSpace(g.host.MustExec("cat", "/proc/sys/net/ipv6/conf/blue/accept_ra")); ra != "1" {
			t.Errorf("accept_ra of an uplink is %s", ra)
		}
	}
	g.served([]Gateway{red, blue})
	g.silent(g.r1.Namespace, "10.2.0.2:80")
}

func TestInternal(t *testing.T) {
	g := newGround(t)
	g.serve(g.out.Namespace, 80)
	g.serve(g.host.Namespace, 80)
	g.serve(g.r1.Namespace, 80)
	g.serve(g.b1.Namespace, 80)
	g.knowsTheWay()
	inner := red
	inner.Internal = true
	status := g.apply([]Gateway{inner, blue},
		forward("", 8080, "tcp", "10.1.0.2:80", "red"), forward("", 8081, "tcp", "10.2.0.2:80", "blue"))
	if !strings.Contains(status[0].Err, "red is internal") || status[1].Err != "" {
		t.Errorf("statuses are %q and %q", status[0].Err, status[1].Err)
	}
	g.silent(g.r1.Namespace, "192.0.2.9:80", "[2001:db8::9]:80", "10.2.0.2:80", "192.0.2.1:8081")
	g.silent(g.out.Namespace, "10.1.0.2:80")
	g.silent(g.b1.Namespace, "10.1.0.2:80")
	for _, proto := range protocols {
		// The host itself, and neighbours.
		g.reaches(g.host.Namespace, proto, "10.1.0.2:80", "10.1.0.1")
		g.reaches(g.r1.Namespace, proto, "10.1.0.1:80", "10.1.0.2")
		g.reaches(g.r2.Namespace, proto, "10.1.0.2:80", "10.1.0.3")
	}

	// A connection from before ends as well.
	g.served([]Gateway{red, blue})
	c := g.dial(g.r1.Namespace, "192.0.2.9:80")
	g.served([]Gateway{inner, blue})
	c.SetDeadline(time.Now().Add(never))
	fmt.Fprintln(c, "?")
	if _, err := c.Read(make([]byte, 64)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("a connection of a network that became internal: %v", err)
	}
}

// dial is a TCP connection to what serve serves, whose greeting is read.
func (g *ground) dial(from *lab.Namespace, addr string) (c net.Conn) {
	g.t.Helper()
	err := from.Do(func() (err error) {
		c, err = net.DialTimeout("tcp", addr, soon)
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(soon))
	if _, err := c.Read(make([]byte, 64)); err != nil {
		g.t.Fatal(err)
	}
	return c
}

func TestPublish(t *testing.T) {
	g := newGround(t)
	g.serve(g.r1.Namespace, 80)
	var forwards []Forward
	for _, proto := range protocols {
		forwards = append(forwards,
			forward("", 8080, proto, "10.1.0.2:80", "red"),
			forward("", 8080, proto, "[fd01::2]:80", "red"),
			forward(host4, 8081, proto, "10.1.0.2:80", "red"),
			forward(host6, 8081, proto, "[fd01::2]:80", "red"),
			forward("127.0.0.1", 8082, proto, "10.1.0.2:80", "red"),
			forward("::1", 8082, proto, "[fd01::2]:80", "red"))
	}
	g.served([]Gateway{red, blue}, forwards...)
	for _, proto := range protocols {
		g.reaches(g.out.Namespace, proto, "192.0.2.1:8080", outside4)
		g.reaches(g.out.Namespace, proto, "[2001:db8::1]:8080", outside6)
		for _, addr := range []string{"127.0.0.1", "127.0.0.53", host4, "10.1.0.1", "10.2.0.1"} {
			g.reaches(g.host.Namespace, proto, addr+":8080", "10.1.0.1")
		}
		for _, addr := range []string{"::1", host6, "fd01::1", "fd02::1"} {
			g.reaches(g.host.Namespace, proto, "["+addr+"]:8080", "fd01::1")
		}
		// A neighbour, the container itself, and another network.
		for _, c := range []*lab.Container{g.r2, g.r1, g.b1} {
			g.reaches(c.Namespace, proto, "192.0.2.1:8080", "10.1.0.1")
			g.reaches(c.Namespace, proto, "[2001:db8::1]:8080", "fd01::1")
		}
		g.reaches(g.r2.Namespace, proto, "10.1.0.1:8080", "10.1.0.1")

		// At one address.
		g.reaches(g.out.Namespace, proto, "192.0.2.1:8081", outside4)
		g.reaches(g.out.Namespace, proto, "[2001:db8::1]:8081", outside6)
		g.reaches(g.host.Namespace, proto, "127.0.0.1:8082", "10.1.0.1")
		g.reaches(g.host.Namespace, proto, "[::1]:8082", "fd01::1")
	}
	g.silent(g.host.Namespace, "127.0.0.1:8081")
	g.silent(g.out.Namespace, "192.0.2.1:8082")
	g.silent(g.r2.Namespace, "192.0.2.1:8082")
	if g.check() {
		t.Error("something is missing")
	}
	// A port that is held, but not published to that address, is refused.
	if _, err := ask(g.host.Namespace, "tcp", "10.2.0.1:8081", soon); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("at an address where nothing is published: %v", err)
	}
}

// Answers carry errors of the network, too: path MTU discovery works through a gateway.
func TestICMPErrorsComeBack(t *testing.T) {
	g := newGround(t)
	g.serve(g.out.Namespace, 80)
	g.served([]Gateway{red})
	for _, addr := range []string{"192.0.2.9:81", "[2001:db8::9]:81"} { // nobody is there
		if _, err := ask(g.r1.Namespace, "udp", addr, soon); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("a closed port at %s: %v", addr, err)
		}
	}
}

// CVE-2020-8558: route_localnet lets whoever can send to the host talk to what listens
// at 127.0.0.1.
func TestLoopbackIsTheHostsOwn(t *testing.T) {
	g := newGround(t)
	// What a container with CAP_NET_ADMIN does: no loopback of its own, the host's
	// by its gateway.
	g.r1.MustExec("ip", "route", "del", "local", "127.0.0.0/8", "dev", "lo", "table", "local")
	g.r1.MustExec("ip", "route", "del", "local", "127.0.0.1", "dev", "lo", "table", "local")
	g.r1.MustExec("ip", "route", "add", "127.0.0.0/8", "via", "10.1.0.1", "dev", "eth0", "src", "10.1.0.2")
	g.r1.MustExec("ip", "-6", "route", "del", "local", "::1", "dev", "lo", "table", "local")
	g.r1.MustExec("ip", "-6", "route", "add", "::1", "via", "fd01::1", "dev", "eth0", "src", "fd01::2")
	g.served([]Gateway{red}, forward("", 8080, "tcp", "10.1.0.2:80", "red"), forward("", 8080, "tcp", "[fd01::2]:80", "red"))
	g.expectLocalnet("1", "local ::1 metric 4096 pref medium")
	attack := func(addr string) error { return g.hears("127.0.0.1:90", g.r1.Namespace, addr) }
	attack6 := func(addr string) error { return g.hears("[::1]:90", g.r1.Namespace, addr) }
	if attack("127.0.0.1:90") == nil || attack6("[::1]:90") == nil {
		t.Error("the host's loopback hears a container")
	}
	// The attack is one: without the guard's rules it works, for IPv4. The kernel itself
	// guards ::1.
	g.host.MustExec("nft", "flush", "chain", "inet", "vswitch-01234567", "guard")
	if err := attack("127.0.0.1:90"); err != nil {
		t.Errorf("the attack does not work without the guard: %v", err)
	}
	if attack6("[::1]:90") == nil {
		t.Error("the host's ::1 hears a container")
	}
	if !g.check() {
		t.Error("the guard is not missed")
	}
	if attack("127.0.0.1:90") == nil {
		t.Error("the guard is not back")
	}

	// Nothing is published any more: no need for it either.
	g.served([]Gateway{red})
	g.expectLocalnet("0", "")
}

// What is published at 127.0.0.1 is for the host, though its neighbours can send it packets to that
// address, which the kernel would refuse if they were not translated before it looks.
func TestPublishedAtLoopbackIsTheHostsOwn(t *testing.T) {
	g := newGround(t)
	g.served([]Gateway{red}, forward("127.0.0.1", 8080, "udp", "10.1.0.2:80", "red"), forward("", 8081, "udp", "10.1.0.2:80", "red"))
	for _, route := range []string{"127.0.0.0/8", "127.0.0.1"} {
		g.out.MustExec("ip", "route", "del", "local", route, "dev", "lo", "table", "local")
	}
	g.out.MustExec("ip", "route", "add", "127.0.0.0/8", "via", host4, "dev", "eth0", "src", outside4)
	var ear net.PacketConn
	if err := g.r1.Do(func() (err error) { ear, err = net.ListenPacket("udp4", "0.0.0.0:80"); return err }); err != nil {
		t.Fatal(err)
	}
	defer ear.Close()
	hears := func(from *lab.Namespace, addr string) error {
		t.Helper()
		if _, err := ask(from, "udp", addr, 0); !errors.Is(err, errSilence) {
			t.Errorf("send to %s: %v", addr, err)
		}
		ear.SetReadDeadline(time.Now().Add(never))
		_, _, err := ear.ReadFrom(make([]byte, 64))
		return err
	}
	for _, addr := range []string{"127.0.0.1:8080", "127.0.0.1:8081"} {
		if hears(g.out.Namespace, addr) == nil {
			t.Errorf("a neighbour of the host reaches %s of it", addr)
		}
		if err := hears(g.host.Namespace, addr); err != nil {
			t.Errorf("the host does not reach its %s: %v", addr, err)
		}
	}
	// The attack is one: without the rule it works.
	page := g.host.MustExec("nft", "-a", "list", "chain", "inet", "vswitch-01234567", "arriving")
	for line := range strings.Lines(page) {
		if w := strings.Fields(line); strings.Contains(line, "asked from outside") {
			g.host.MustExec("nft", "delete", "rule", "inet", "vswitch-01234567", "arriving", "handle", w[len(w)-1])
		}
	}
	if err := hears(g.out.Namespace, "127.0.0.1:8080"); err != nil {
		t.Errorf("the attack does not work without the rule: %v", err)
	}
	if !g.check() {
		t.Error("the rule is not missed")
	}
}

// hears sends a datagram from a namespace, and returns nil when the host hears it at an
// address of its own.
func (g *ground) hears(at string, from *lab.Namespace, addr string) (err error) {
	g.t.Helper()
	var ear net.PacketConn
	g.do(func() (err error) {
		ear, err = net.ListenPacket("udp", at)
		return err
	})
	defer ear.Close()
	if _, err := ask(from, "udp", addr, 0); !errors.Is(err, errSilence) {
		g.t.Errorf("send to %s: %v", addr, err)
	}
	ear.SetReadDeadline(time.Now().Add(never))
	_, _, err = ear.ReadFrom(make([]byte, 64))
	return err
}

// expectLocalnet says how open red is to the loopback addresses.
func (g *ground) expectLocalnet(v4, v6 string) {
	g.t.Helper()
	if got := strings.TrimSpace(g.host.MustExec("cat", "/proc/sys/net/ipv4/conf/red/route_localnet")); got != v4 {
		g.t.Errorf("route_localnet is %s, want %s", got, v4)
	}
	if got := strings.TrimSpace(g.host.MustExec("ip", "-6", "route", "show", "::1", "dev", "red", "table", "local")); got != v6 {
		g.t.Errorf("the route of ::1 is %q, want %q", got, v6)
	}
}

// Connections do not notice that the table is replaced under them.
func TestStreamsSurviveApply(t *testing.T) {
	g := newGround(t)
	g.serve(g.out.Namespace, 80)
	g.serve(g.r1.Namespace, 80)
	mine := forward("", 8080, "tcp", "10.1.0.2:80", "red")
	g.served([]Gateway{red}, mine)
	streams := []net.Conn{
		g.dial(g.out.Namespace, "192.0.2.1:8080"),
		g.dial(g.r1.Namespace, "192.0.2.9:80"),
		g.dial(g.host.Namespace, "127.0.0.1:8080"),
		g.dial(g.r2.Namespace, "192.0.2.1:8080"),
	}
	ends := []*lab.Namespace{g.out.Namespace, g.host.Namespace, g.r1.Namespace, g.r2.Namespace}
	var before []string
	for _, n := range ends {
		before = append(before, g.resent(n))
	}
	done := make(chan error, len(streams))
	stop := make(chan struct{})
	for _, c := range streams {
		go func() { // ends with stop
			done <- echo(c, stop)
		}()
	}
	others := [][]Forward{{mine}, {mine, forward("", 9000, "udp", "10.1.0.3:80", "red")}, {mine, forward("", 9001, "tcp", "[fd01::3]:80", "red")}}
	for i := range 20 {
		g.served([][]Gateway{{red}, {red, blue}}[i%2], others[i%3]...)
	}
	close(stop)
	for range streams {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	for i, n := range ends {
		if after := g.resent(n); after != before[i] {
			t.Errorf("%s had sent %s segments again, and now %s: some were lost", n.Name, before[i], after)
		}
	}
}

// resent counts the TCP segments that a namespace has sent again.
func (g *ground) resent(n *lab.Namespace) (count string) {
	g.t.Helper()
	for line := range strings.Lines(n.MustExec("cat", "/proc/net/snmp")) {
		if w := strings.Fields(line); w[0] == "Tcp:" && len(w) > 12 { // RetransSegs, RFC 4022
			count = w[12]
		}
	}
	return count
}

// echo sends lines through a connection until stop, and wants each back.
func echo(c net.Conn, stop <-chan struct{}) error {
	want, got := make([]byte, 1000), make([]byte, 1000)
	for i := 0; ; i++ {
		select {
		case <-stop:
			if i == 0 {
				return errors.New("not one line went through")
			}
			return nil
		default:
		}
		copy(want, fmt.Sprint("line ", i))
		c.SetDeadline(time.Now().Add(soon))
		if _, err := c.Write(want); err != nil {
			return err
		}
		for n := 0; n < len(got); {
			m, err := c.Read(got[n:])
			if err != nil {
				return err
			}
			n += m
		}
		if !bytes.Equal(got, want) {
			return errors.New("other bytes came back")
		}
	}
}

// A UDP flow whose packets never stop follows its port to another container, and away.
func TestFlowsFollowTheirPort(t *testing.T) {
	g := newGround(t)
	g.serve(g.r1.Namespace, 80)
	g.serve(g.b1.Namespace, 80)
	err := g.out.Do(func() error {
		c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.ParseIP(host4), Port: 8080})
		if err != nil {
			return err
		}
		defer c.Close()
		once := func(limit time.Duration) error {
			c.Write([]byte("?"))
			c.SetReadDeadline(time.Now().Add(limit))
			_, err := c.Read(make([]byte, 64))
			return err
		}
		g.served([]Gateway{red, blue}) // the port is nobody's yet
		if err := once(soon); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("before it is published: %v", err)
		}
		for _, to := range []struct{ addr, via, peer string }{
			{"10.1.0.2:80", "red", "10.1.0.2"}, {"10.2.0.2:80", "blue", "10.2.0.2"},
		} {
			g.served([]Gateway{red, blue}, forward("", 8080, "udp", to.addr, to.via))
			if err := once(soon); err != nil {
				return fmt.Errorf("published to %s: %w", to.addr, err)
			}
			if flows := g.flows(); !strings.Contains(flows, to.peer) {
				return fmt.Errorf("published to %s, but flows are\n%s", to.addr, flows)
			}
		}
		g.served([]Gateway{red, blue})
		if err := once(soon); !errors.Is(err, syscall.ECONNREFUSED) {
			return fmt.Errorf("not published any more: %v", err)
		}
		// Nor after a process that was killed, whose container is gone when the next one starts.
		for _, host := range []string{"", host4} {
			g.served([]Gateway{red, blue}, forward(host, 8080, "udp", "10.1.0.2:80", "red"))
			if err := once(soon); err != nil {
				return fmt.Errorf("published again: %w", err)
			}
			g.wall.giveUp()
			g.wall = g.newWall("0123456789abcdef")
			g.served([]Gateway{red, blue})
			if err := once(soon); !errors.Is(err, syscall.ECONNREFUSED) {
				return fmt.Errorf("published by a killed process: %v\n%s", err, g.flows())
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}
