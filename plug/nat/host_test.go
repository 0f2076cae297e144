package nat

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// A published port is claimed: a port that is in use is told, and nobody else gets ours.
func TestClaims(t *testing.T) {
	g := newGround(t)
	g.serve(g.r1.Namespace, 80)
	gateways := []Gateway{red, blue, {Interface: "inner", Subnets: prefixes("10.9.0.0/24"), Internal: true}}
	var taken net.Listener
	g.do(func() (err error) {
		taken, err = net.Listen("tcp4", "0.0.0.0:8080")
		return err
	})
	defer taken.Close()
	forwards := []Forward{
		forward("", 8080, "tcp", "10.1.0.2:80", "red"),
		forward("", 8080, "udp", "10.1.0.2:80", "red"),
		forward("", 8080, "tcp", "[fd01::2]:80", "red"),
		forward("", 8080, "udp", "10.2.0.2:80", "blue"),
		forward(host4, 8080, "udp", "10.2.0.2:80", "blue"),
		forward(host4, 8081, "tcp", "10.1.0.2:80", "red"),
		forward("10.1.0.1", 8081, "tcp", "10.2.0.2:80", "blue"),
		forward(host4, 8082, "tcp", "[fd01::2]:80", "red"),
		forward("192.0.2.77", 8082, "tcp", "10.1.0.2:80", "red"),
		forward("", 8083, "tcp", "10.9.0.2:80", "inner"),
		forward("", 8084, "tcp", "10.1.0.2:80", "green"),
		forward("", 8085, "sctp", "10.1.0.2:80", "red"),
		forward("", 8080, "udp", "10.1.0.2:80", "red"),
	}
	status := g.apply(gateways, forwards...)
	for i, want := range []string{
		"port 8080/tcp of the host is in use: ",
		"",
		"",
		"port 8080/udp of the host is published to 10.1.0.2:80 already",
		"port 8080/udp of 192.0.2.1 is published to 10.1.0.2:80 already",
		"",
		"",
		"the container's address fd01::2 is of another family than 192.0.2.1",
		"port 8082/tcp of 192.0.2.77 cannot be had: the host has no such address",
		"inner is internal",
		"green is not a gateway",
		`protocol "sctp" cannot be published`,
		"port 8080/udp of the host is published twice",
	} {
		if s := status[i]; s.Forward != forwards[i] || (s.Err == "") != (want == "") || !strings.HasPrefix(s.Err, want) {
			t.Errorf("status %d is %+v, want error %q", i, s, want)
		}
	}
	g.do(func() error { g.wall.nameHolders(map[int]claimKey{0: {port: 8080, proto: 6}}, time.Minute); return nil })
	if s, want := g.wall.Statuses()[0].Err, fmt.Sprintf("(process %d) has it", os.Getpid()); !strings.Contains(s, want) {
		t.Errorf("the status is %q, without %q", s, want)
	}
	// Somebody else's service goes on.
	g.do(func() error {
		c, err := net.Dial("tcp4", "127.0.0.1:8080")
		if err == nil {
			c.Close()
		}
		return err
	})
	// Ours are nobody else's.
	g.do(func() error {
		for _, addr := range []string{"0.0.0.0:8080", "192.0.2.1:8080", ":8080"} {
			if pc, err := net.ListenPacket("udp", addr); err == nil {
				pc.Close()
				return fmt.Errorf("udp %s can be taken from under a published port", addr)
			}
		}
		return nil
	})
	// Who came first keeps its port, whatever the order.
	status = g.apply(gateways, forwards[3], forwards[1])
	if status[0].Err == "" || status[1].Err != "" {
		t.Errorf("statuses are %+v", status)
	}
	// A port becomes free.
	status = g.apply(gateways, forwards[0])
	if status[0].Err == "" {
		t.Error("a port that is in use is published")
	}
	g.check()
	if s := g.wall.Statuses(); s[0].Err == "" {
		t.Error("a port that is in use is published by Check")
	}
	taken.Close()
	g.check()
	if s := g.wall.Statuses(); s[0].Err != "" {
		t.Errorf("a port that is free again: %s", s[0].Err)
	}
	g.reaches(g.out.Namespace, "tcp", "192.0.2.1:8080", outside4)
	// Given back.
	g.served(gateways)
	g.do(func() error {
		ln, err := net.Listen("tcp4", "0.0.0.0:8080")
		if err == nil {
			ln.Close()
		}
		return err
	})
}

// A claim outlives whatever changes about its port, but its address.
func TestClaimsAreKept(t *testing.T) {
	g := newGround(t)
	k := claimKey{port: 8080, proto: 6}
	g.served([]Gateway{red, blue}, forward("", 8080, "tcp", "10.1.0.2:80", "red"))
	before, ok := g.wall.claims[k]
	if !ok {
		t.Fatalf("claims are %v", g.wall.claims)
	}
	g.served([]Gateway{red, blue}, forward("", 8080, "tcp", "10.2.0.2:80", "blue"), forward("", 8081, "tcp", "10.2.0.2:80", "blue"))
	if after := g.wall.claims[k]; after != before || len(g.wall.claims) != 2 {
		t.Errorf("the socket was %d, and is one of %v", before, g.wall.claims)
	}
	g.do(g.wall.Close)
	if len(g.wall.claims) != 0 {
		t.Errorf("claims after Close are %v", g.wall.claims)
	}
}

// What a killed process left is replaced, and does not stay open.
func TestKilledProcess(t *testing.T) {
	g := newGround(t)
	g.serve(g.r1.Namespace, 80)
	empty := g.host.MustExec("nft", "-s", "list", "ruleset")
	g.served([]Gateway{red}, forward("", 8080, "tcp", "10.1.0.2:80", "red"), forward("", 8080, "tcp", "[fd01::2]:80", "red"))
	g.expectLocalnet("1", "local ::1 metric 4096 pref medium")
	g.wall.giveUp()
	g.reaches(g.out.Namespace, "tcp", "192.0.2.1:8080", outside4) // nobody is needed for it to go on

	g.wall = g.newWall("0123456789abcdef")
	g.served([]Gateway{blue})
	g.silent(g.out.Namespace, "192.0.2.1:8080")
	g.expectLocalnet("0", "")
	g.served([]Gateway{red}, forward("", 8080, "tcp", "10.1.0.2:80", "red"))
	g.wall.giveUp()

	// Another that wants nothing removes it.
	g.wall = g.newWall("0123456789abcdef")
	g.served(nil)
	g.expectLocalnet("0", "")
	if after := g.host.MustExec("nft", "-s", "list", "ruleset"); after != empty {
		t.Errorf("rules were %q and are %q", empty, after)
	}
	// Two daemons are not in each other's way.
	other := g.newWall("fedcba9876543210")
	g.served([]Gateway{red})
	g.do(func() error { _, err := other.Apply([]Gateway{blue}, nil); return err })
	if tables := g.host.MustExec("nft", "list", "tables"); strings.Count(tables, "inet vswitch-") != 2 {
		t.Errorf("tables are %s", tables)
	}
	g.do(other.Close)
	if g.check() {
		t.Error("another daemon's end took something away")
	}
}

// Check puts back what somebody took away.
func TestCheck(t *testing.T) {
	g := newGround(t)
	g.serve(g.r1.Namespace, 80)
	const table = "inet vswitch-01234567"
	forwards := []Forward{forward("", 8080, "tcp", "10.1.0.2:80", "red"), forward("", 8080, "tcp", "[fd01::2]:80", "red")}
	g.served([]Gateway{red}, forwards...)
	page := g.host.MustExec("nft", "-s", "list", "table", "inet", "vswitch-01234567")
	if g.check() || g.check() {
		t.Error("something is missing from the start")
	}
	for _, command := range []string{
		"nft flush ruleset",
		"nft delete table " + table,
		"nft flush table " + table,
		"nft flush chain " + table + " forward",
		"nft flush set " + table + " gateways",
		"nft delete element " + table + " published4 { tcp . 8080 }",
		"sysctl -w net.ipv4.ip_forward=0",
		"sysctl -w net.ipv6.conf.all.forwarding=0",
		"sysctl -w net.ipv4.conf.red.forwarding=0",
		"sysctl -w net.ipv6.conf.red.forwarding=0",
		"sysctl -w net.ipv4.conf.red.route_localnet=0",
		"ip -6 route del local ::1 dev red table local",
	} {
		g.host.MustExec(strings.Fields(command)...)
		if !g.check() {
			t.Errorf("%s: nothing is missed", command)
		}
		if g.check() {
			t.Errorf("%s: something is still missed", command)
		}
		g.reaches(g.out.Namespace, "tcp", "192.0.2.1:8080", outside4)
		g.reaches(g.host.Namespace, "tcp", "[::1]:8080", "fd01::1")
	}
	if after := g.host.MustExec("nft", "-s", "list", "table", "inet", "vswitch-01234567"); after != page {
		t.Errorf("the table was\n%s\nand is\n%s", page, after)
	}
	// Others' changes are none of ours.
	g.host.MustExec("nft", "add", "table", "inet", "other")
	if g.check() {
		t.Error("another table makes something missing")
	}
	// An interface that comes later.
	g.served([]Gateway{red, {Interface: "late", Subnets: prefixes("10.3.0.0/24")}}, append(forwards, forward("", 8088, "tcp", "10.3.0.2:80", "late"))...)
	if g.check() {
		t.Error("an interface that is not there makes something missing")
	}
	g.host.KernelBridge("late")
	g.check()
	if on := g.host.MustExec("cat", "/proc/sys/net/ipv4/conf/late/route_localnet"); strings.TrimSpace(on) != "1" {
		t.Errorf("route_localnet of an interface that came later is %s", on)
	}
}

// Who watches need not wait for the next look.
func TestWatch(t *testing.T) {
	g := newGround(t)
	g.served([]Gateway{red})
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan struct{}, 100)
	ended := make(chan error, 1)
	go func() { // ends with ctx
		ended <- g.host.Do(func() error { return g.wall.Watch(ctx, func() { changes <- struct{}{} }) })
	}()
	told := func() bool {
		select {
		case <-changes:
			return true
		case <-time.After(2 * watchPause):
			return false
		}
	}
	lab.Eventually(t, soon, func() error { // it takes a moment to begin
		g.host.MustExec("nft", "add", "table", "inet", "other")
		g.host.MustExec("nft", "delete", "table", "inet", "other")
		if !told() {
			return errors.New("a change is not told")
		}
		return nil
	})
	for told() {
	}
	g.host.MustExec("nft", "flush", "ruleset")
	if !told() || !g.check() {
		t.Error("that all rules are gone is not told")
	}
	for end := time.Now().Add(soon); told(); { // what Check did is told as well, and then no more
		if g.check() {
			t.Error("something is missing again")
		}
		if time.Now().After(end) {
			t.Fatal("changes are told for ever")
		}
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// Sets grow, rules do not.
func TestThousandForwards(t *testing.T) {
	g := newGround(t)
	g.serve(g.r1.Namespace, 80)
	rules := func() int { return strings.Count(g.host.MustExec("nft", "list", "ruleset"), "comment") }
	g.served([]Gateway{red})
	few := rules()
	var forwards []Forward
	for i := range 1000 {
		forwards = append(forwards, forward("", 10000+i, protocols[i%2], "10.1.0.2:80", "red"))
	}
	start := time.Now()
	g.served([]Gateway{red}, forwards...)
	first := time.Since(start)
	start = time.Now()
	g.served([]Gateway{red}, forwards[1:]...)
	again := time.Since(start)
	start = time.Now()
	if g.check() {
		t.Error("something is missing")
	}
	checked := time.Since(start)
	t.Logf("1,000 forwards in %v; one fewer in %v; looked through in %v", first, again, checked)
	if limit := time.Second; first > limit || again > limit {
		t.Errorf("that is more than %v", limit)
	}
	if now := rules(); now != few {
		t.Errorf("%d rules and sets became %d", few, now)
	}
	g.reaches(g.out.Namespace, "tcp", "192.0.2.1:10998", outside4)
	g.reaches(g.out.Namespace, "udp", "192.0.2.1:10999", outside4)
}

// Forwarding is switched on for the families that are needed, and does not cost the host
// its default route, which it has by router advertisements.
func TestRouterAdvertisements(t *testing.T) {
	g := newGround(t)
	g.host.Sysctl("net.ipv6.conf.eth0.accept_ra", "1")
	g.host.Sysctl("net.ipv6.conf.red.accept_ra", "1")
	wire := g.out.Conn("eth0")
	has := func() bool {
		return strings.Contains(g.host.MustExec("ip", "-6", "route", "show", "default"), "via fe80::99 dev eth0 proto ra")
	}
	advertise := func(lifetime uint16, want bool) {
		t.Helper()
		lab.Eventually(t, soon, func() error {
			if err := wire.Send(advertisement(lifetime)); err != nil {
				return err
			}
			if has() != want {
				return fmt.Errorf("after an advertisement of %d s, default routes are %q", lifetime, g.host.MustExec("ip", "-6", "route", "show", "default"))
			}
			return nil
		})
	}
	advertise(1800, true)

	v4 := red
	v4.Subnets = red.Subnets[:1]
	g.served([]Gateway{v4})
	value := func(key string) string { return strings.TrimSpace(g.host.MustExec("cat", "/proc/sys/net/"+key)) }
	if a, b := value("ipv4/ip_forward"), value("ipv6/conf/all/forwarding"); a != "1" || b != "0" {
		t.Errorf("a gateway of IPv4 switches forwarding to %s, and of IPv6 to %s", a, b)
	}
	g.served([]Gateway{red})
	if b := value("ipv6/conf/all/forwarding"); b != "1" {
		t.Errorf("a gateway of IPv6 switches forwarding to %s", b)
	}
	if !has() {
		t.Error("the host lost its default route")
	}
	advertise(0, false) // and still listens
	advertise(1800, true)
	if is := value("ipv6/conf/red/accept_ra"); is != "0" {
		t.Errorf("accept_ra of the gateway is %s: containers can give the host routes", is)
	}
	// What is left on.
	g.do(g.wall.Close)
	if a, b := value("ipv4/ip_forward"), value("ipv6/conf/all/forwarding"); a != "1" || b != "1" {
		t.Errorf("Close switches forwarding to %s and %s", a, b)
	}
}

// advertisement is a frame with a router advertisement from fe80::99 to all nodes (RFC
// 4861, section 4.2), whose router is one for lifetime seconds.
func advertisement(lifetime uint16) []byte {
	src, dst := netip.MustParseAddr("fe80::99").AsSlice(), netip.MustParseAddr("ff02::1").AsSlice()
	ra := make([]byte, 16)
	ra[0], ra[4] = 134, 64 // type, hop limit to use
	binary.BigEndian.PutUint16(ra[6:], lifetime)
	pseudo := slices.Concat(src, dst, []byte{0, 0, 0, 16, 0, 0, 0, 58}, ra) // RFC 8200, section 8.1
	var sum uint32
	for i := 0; i < len(pseudo); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(pseudo[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	binary.BigEndian.PutUint16(ra[2:], ^uint16(sum))
	ethernet := []byte{0x33, 0x33, 0, 0, 0, 1, 2, 0, 0, 0, 0, 0x99, 0x86, 0xdd}
	ip := []byte{0x60, 0, 0, 0, 0, 16, 58, 255}
	return slices.Concat(ethernet, ip, src, dst, ra)
}

// Apply refuses what has no bound, and leaves all as it was.
func TestBounds(t *testing.T) {
	w := (&ground{}).newWall("0123456789abcdef")
	if _, err := w.Apply(make([]Gateway, maxGateways+1), nil); err == nil {
		t.Error("too many gateways are taken")
	}
	if _, err := w.Apply(nil, make([]Forward, maxForwards+1)); err == nil {
		t.Error("too many forwards are taken")
	}
	if missing, err := w.Check(); missing || err != nil {
		t.Errorf("Check says %t, %v", missing, err)
	}
}
