package wire_test

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"vswitch/plug/wire"
)

// failures are what a Plug is refused for, beside what the kernel runs out of.
var failures = []struct {
	name   string
	change func(*wire.Spec)
	is     error
	want   string // in the error
}{
	{"no host name", func(s *wire.Spec) { s.Host = "" }, nil, "host's end"},
	{"long host name", func(s *wire.Spec) { s.Host = "sixteen-bytes-xx" }, nil, "longer than 15"},
	{"pattern", func(s *wire.Spec) { s.Host = "p%d" }, nil, "not a name"},
	{"long name", func(s *wire.Spec) { s.IfName = "sixteen-bytes-xx" }, nil, `"sixteen-bytes-xx" is longer than 15`},
	{"slash", func(s *wire.Spec) { s.IfName = "a/b" }, nil, "not a name"},
	{"dots", func(s *wire.Spec) { s.IfName = ".." }, nil, "not a name"},
	{"space", func(s *wire.Spec) { s.IfName = "a b" }, nil, "not a name"},
	{"no alias", func(s *wire.Spec) { s.Alias = "" }, nil, "alias"},
	{"long alias", func(s *wire.Spec) { s.Alias = strings.Repeat("a", 256) }, nil, "alias"},
	{"no MAC", func(s *wire.Spec) { s.MAC = nil }, nil, "MAC address"},
	{"group MAC", func(s *wire.Spec) { s.MAC = []byte{1, 0, 0, 0, 0, 1} }, nil, "MAC address"},
	{"zero MAC", func(s *wire.Spec) { s.MAC = make([]byte, 6) }, nil, "MAC address"},
	{"small MTU", func(s *wire.Spec) { s.MTU = 67 }, nil, "MTU 67 is not between"},
	{"no MTU", func(s *wire.Spec) { s.MTU = 0 }, nil, "MTU 0 is not between"},
	{"small MTU for IPv6", func(s *wire.Spec) { s.MTU = 1279 }, nil, "between 1280 and"},
	{"large MTU", func(s *wire.Spec) { s.MTU = 65536 }, nil, "and 65535"},
	{"no address", func(s *wire.Spec) { s.Addresses = append(s.Addresses, netip.Prefix{}) }, nil, "is not an address"},
	{"multicast", func(s *wire.Spec) { s.Addresses = append(s.Addresses, prefixes("224.0.0.1/24")...) }, nil, "not an address of an interface"},
	{"loopback", func(s *wire.Spec) { s.Addresses = append(s.Addresses, prefixes("::1/128")...) }, nil, "not an address of an interface"},
	{"address twice", func(s *wire.Spec) { s.Addresses = append(s.Addresses, prefixes("10.1.0.5/16")...) }, nil, "there twice"},
	{"far gateway", func(s *wire.Spec) { s.Gateways = addrs("10.2.0.1") }, nil, "gateway 10.2.0.1: it is not reached"},
	{"own gateway", func(s *wire.Spec) { s.Gateways = addrs("10.1.0.5") }, nil, "container's own address"},
	{"two gateways", func(s *wire.Spec) { s.Gateways = addrs("10.1.0.1", "10.1.0.2") }, nil, "second default route"},
	{"gateway and route", func(s *wire.Spec) { s.Routes = append(s.Routes, route("0.0.0.0/0 10.1.0.2")) }, nil, "second default route"},
	{"far next hop", func(s *wire.Spec) { s.Routes = append(s.Routes, route("10.7.0.0/16 10.2.0.1")) }, nil, "not reached"},
	{"host bits", func(s *wire.Spec) { s.Routes = append(s.Routes, route("10.7.0.1/16")) }, nil, "not a network"},
	{"route twice", func(s *wire.Spec) { s.Routes = append(s.Routes, s.Routes[0]) }, nil, "there twice"},
	{"two families", func(s *wire.Spec) { s.Routes = append(s.Routes, route("10.7.0.0/16 fd00:1::1")) }, nil, "two families"},

	// Beside them the container has eth0 with 10.5.0.2/24 and a route, the host busy.
	{"taken name", func(s *wire.Spec) { s.IfName = "eth0" }, wire.ErrTaken, "interface eth0 already"},
	{"taken loopback", func(s *wire.Spec) { s.IfName = "lo" }, wire.ErrTaken, "interface lo already"},
	{"taken host name", func(s *wire.Spec) { s.Host = "busy" }, wire.ErrTaken, "busy is somebody else's"},
	{"taken host name, other kind", func(s *wire.Spec) { s.Host = "lo" }, wire.ErrTaken, "lo is somebody else's"},
	{"another port's", func(s *wire.Spec) { s.Host = "other" }, wire.ErrTaken, "other is somebody else's"},
	{"taken address", func(s *wire.Spec) { s.Addresses = append(s.Addresses, prefixes("10.5.0.2/32")...) }, wire.ErrAddressTaken, "10.5.0.2 on eth0 already"},
	{"taken IPv6 address", func(s *wire.Spec) { s.Addresses = append(s.Addresses, prefixes("fd00:5::2/48")...) }, wire.ErrAddressTaken, "fd00:5::2 on eth0 already"},
	// The last step but one: all that came before is taken back.
	{"taken route", func(s *wire.Spec) { s.Routes = append(s.Routes, route("10.66.0.0/16 10.1.0.1")) }, nil, "another to it already"},
	{"taken IPv6 route", func(s *wire.Spec) { s.Routes = append(s.Routes, route("fd00:66::/64 fd00:1::1")) }, nil, "another to it already"},
}

// crowd is what is in the way of some failures.
func crowd(g *ground) {
	g.t.Helper()
	eth0 := wire.Spec{
		Host: "other", Alias: "vswitch test other", IfName: "eth0", MTU: 1500, MAC: []byte{2, 0, 0, 0, 0, 5},
		Addresses: prefixes("10.5.0.2/24", "fd00:5::2/64"), Gateways: addrs("10.5.0.1"),
		Routes: []wire.Route{route("10.66.0.0/16 10.5.0.1"), route("fd00:66::/64 fd00:5::1")},
	}
	g.mustPlug(eth0, nil)
	g.l.Wire(g.h.Namespace, "busy", "", g.h.Namespace, "busy2", "")
}

func TestFailuresLeaveNothing(t *testing.T) {
	g := newGround(t)
	crowd(g)
	for _, tt := range failures {
		t.Run(tt.name, func(t *testing.T) {
			g := &ground{t: t, l: g.l, h: g.h, c: g.c}
			g.unchanged(func() { fails(g, tt.change, tt.is, tt.want, nil) })
		})
	}
}

// The same where a pair is there: it stays as it is, whatever was changed before the
// step that failed.
func TestFailuresLeaveThePair(t *testing.T) {
	g := newGround(t)
	crowd(g)
	had := spec()
	g.mustPlug(had, nil)
	for _, tt := range failures {
		t.Run(tt.name, func(t *testing.T) {
			g := &ground{t: t, l: g.l, h: g.h, c: g.c}
			change := func(s *wire.Spec) {
				*s = wire.Spec{
					Host: "p1", Alias: had.Alias, IfName: "eth2", MTU: 1300, MAC: []byte{2, 0, 0, 0, 0, 0x12},
					Addresses: prefixes("10.1.0.6/24", "10.1.0.5/25", "fd00:1::6/64", "fd00:1::5/48"),
					Gateways:  addrs("10.1.0.2", "fd00:1::2"),
					Routes:    []wire.Route{route("10.9.0.0/16 10.1.0.8"), route("10.11.0.0/16")},
				}
				tt.change(s)
			}
			g.unchanged(func() { fails(g, change, tt.is, tt.want, &had) })
		})
	}
}

func fails(g *ground, change func(*wire.Spec), is error, want string, had *wire.Spec) {
	g.t.Helper()
	s := spec()
	change(&s)
	p, err := g.plug(s, had)
	if err == nil {
		g.t.Fatalf("was plugged in: %+v", p)
	}
	if !strings.Contains(err.Error(), want) {
		g.t.Errorf("error %q does not say %q", err, want)
	}
	for _, e := range []error{wire.ErrTaken, wire.ErrAddressTaken, wire.ErrNoNamespace} {
		if errors.Is(err, e) != (e == is) {
			g.t.Errorf("errors.Is(%q, %q) is %v", err, e, e != is)
		}
	}
}
