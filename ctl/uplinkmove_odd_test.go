package ctl

import (
	"fmt"
	"net/netip"
	"os/exec"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stackHere is what ip(8) says of the addresses of v0 and v1, whichever has some, and of the routes of this
// thread's namespace: in the kernel's order, with the two called V.
func stackHere() (string, error) {
	var all []string
	for _, c := range []string{"-o addr show dev v0", "-o addr show dev v1", "-4 route show table all", "-6 route show table all"} {
		out, err := exec.Command("ip", strings.Fields(c)...).CombinedOutput()
		if err != nil {
			return "", fmt.Errorf("ip %s: %w: %s", c, err, out)
		}
		for line := range strings.Lines(string(out)) {
			if strings.Contains(line, "fe80::") || strings.Contains(line, "table local") || strings.HasPrefix(line, "multicast") {
				continue
			}
			line = ending.ReplaceAllString(line, "$1 Nsec")
			line = strings.NewReplacer("v0", "V", "v1", "V").Replace(strings.TrimSpace(line))
			if n, rest, ok := strings.Cut(line, ": V"); ok && len(n) < 4 {
				line = "V" + rest
			}
			all = append(all, line)
		}
	}
	return strings.Join(all, "\n"), nil
}

var ending = regexp.MustCompile(`(valid_lft|preferred_lft|expires) [0-9]+sec`)

// TestMoveOddities moves what NICs have that is not an address with a default route, there and back. m0 is
// another NIC, whose routes nobody may touch.
func TestMoveOddities(t *testing.T) {
	m0 := []string{"link add m0 type veth peer name m1", "link set m0 up", "link set m1 up", "addr add 203.0.113.1/24 dev m0", "addr add 2001:db8:f::1/64 dev m0 nodad"}
	for name, commands := range map[string][]string{
		"default behind another NIC's":      append(m0, "route add default via 203.0.113.9 dev m0", "addr add 192.0.2.1/24 dev v0", "route append default via 192.0.2.9 dev v0"),
		"default before another NIC's":      append(m0, "addr add 192.0.2.1/24 dev v0", "route add default via 192.0.2.9 dev v0", "route append default via 203.0.113.9 dev m0"),
		"IPv6 default beside another NIC's": append(m0, "-6 route add default via 2001:db8:f::9 dev m0 metric 1024", "addr add 2001:db8::1/64 dev v0 nodad", "-6 route append default via 2001:db8::9 dev v0 metric 1024"),
		"IPv6 link beside another NIC's":    append(m0, "-6 route add 2001:db8:aa::/64 dev m0 metric 1024", "addr add 2001:db8::1/64 dev v0 nodad", "-6 route append 2001:db8:aa::/64 dev v0 metric 1024"),
		"another NIC's subnet":              append(m0, "addr add 203.0.113.2/24 dev v0", "addr add 2001:db8:f::2/64 dev v0 nodad"),
		"hops by two NICs": append(m0, "addr add 192.0.2.1/24 dev v0", "route add 10.0.0.0/8 nexthop via 192.0.2.9 dev v0 nexthop via 203.0.113.9 dev m0",
			"addr add 2001:db8::1/64 dev v0 nodad", "-6 route add 2001:db8:7::/48 nexthop via 2001:db8::9 dev v0 nexthop via 2001:db8:f::9 dev m0"),
		"point to point":                  {"addr add 10.0.0.1 peer 10.0.0.2/32 dev v0", "route add default via 10.0.0.2 dev v0", "addr add 10.0.1.1 peer 10.0.2.2/24 dev v0"},
		"a gateway outside of the subnet": {"addr add 10.0.0.1/32 dev v0", "route add 172.31.1.1 dev v0 scope link", "route add default via 172.31.1.1 dev v0 onlink"},
		"order": {"addr add 192.0.2.1/24 dev v0", "addr add 192.0.2.2/24 dev v0", "addr add 10.0.0.1/24 dev v0", "addr add 192.0.2.3/24 dev v0",
			"addr add 2001:db8::1/64 dev v0 nodad", "addr add 2001:db8::2/64 dev v0 nodad", "addr add 2001:db8::3/64 dev v0 nodad"},
		"metrics": {"addr add 192.0.2.1/24 dev v0 metric 100", "addr add 2001:db8::1/64 dev v0 nodad metric 100",
			"route add default via 192.0.2.9 dev v0 metric 50", "route add default via 192.0.2.8 dev v0 metric 60 mtu lock 1400 advmss 1300 initcwnd 20 quickack 1"},
		"scopes":                            {"addr add 192.0.2.1/24 dev v0 scope link", "addr add 192.0.3.1/24 dev v0 scope host", "addr add 192.0.4.1/24 brd 192.0.4.0 dev v0 scope site", "addr add fd00::1/64 dev v0 nodad mngtmpaddr"},
		"IPv4 by an IPv6 hop":               {"addr add 192.0.2.1/24 dev v0", "addr add 2001:db8::1/64 dev v0 nodad", "route add 10.0.0.0/8 via inet6 2001:db8::9 dev v0"},
		"IPv6 with lifetimes":               {"addr add 2001:db8::1/64 dev v0 nodad valid_lft 3000 preferred_lft 2000", "addr add 2001:db8::2/64 dev v0 nodad valid_lft 3000 preferred_lft 2000", "addr add 2001:db8:1::1/64 dev v0 nodad valid_lft 3000 preferred_lft 2000"},
		"tos and tables":                    {"addr add 192.0.2.1/24 dev v0", "route add 10.0.0.0/8 tos 0x10 via 192.0.2.9 dev v0", "route add 10.0.0.0/8 via 192.0.2.8 dev v0", "route add 10.0.0.0/8 via 192.0.2.7 dev v0 metric 9 table 100"},
		"IPv6 by source":                    {"addr add 2001:db8::1/64 dev v0 nodad", "-6 route add 2001:db8:7::/48 from 2001:db8::/64 via 2001:db8::9 dev v0", "-6 route add 2001:db8:7::/48 via 2001:db8::8 dev v0", "-6 route add default via 2001:db8::9 dev v0 pref high"},
		"two gateways":                      {"addr add 192.0.2.1/24 dev v0", "route add default via 192.0.2.9 dev v0", "route append default via 192.0.2.8 dev v0"},
		"two gateways behind another NIC's": append(m0, "route add default via 203.0.113.9 dev m0", "addr add 192.0.2.1/24 dev v0", "route append default via 192.0.2.9 dev v0", "route append default via 192.0.2.8 dev v0"),
		"gateways around another NIC's":     append(m0, "addr add 192.0.2.1/24 dev v0", "route add default via 192.0.2.9 dev v0", "route append default via 203.0.113.9 dev m0", "route append default via 192.0.2.8 dev v0"),
		"what has no way":                   {"addr add 192.0.2.1/24 dev v0", "route add blackhole 10.0.0.0/8", "route add unreachable default metric 4000"},
	} {
		t.Run(name, func(t *testing.T) {
			twoEnds(t, func(v0, v1 end) error {
				before, err := stackHere()
				if err != nil {
					return err
				}
				for _, way := range [][2]end{{v0, v1}, {v1, v0}} {
					all, err := everyAddressOn(way[0].index)
					if err != nil {
						return err
					}
					routes, err := routesBy(way[0].index, all)
					if err != nil {
						return err
					}
					if err := move(way[0], way[1], movable(all), routes); err != nil {
						return err
					}
					after, err := stackHere()
					if err != nil {
						return err
					}
					if after != before {
						t.Errorf("from %s to %s: was\n%s\nis\n%s", way[0].name, way[1].name, before, after)
					}
					if left, err := addressesOn(way[0].index); len(left) > 0 || err != nil {
						t.Errorf("%s has %d addresses still (%v)", way[0].name, len(left), err)
					}
				}
				return nil
			}, commands...)
		})
	}
}

// TestMissing: whatever step of a move, or of a move back, the daemon was killed at, the NIC and what is missing
// of the record make the record; unless somebody set the NIC up anew.
func TestMissing(t *testing.T) {
	address := func(s string) hostAddress { return hostAddress{Prefix: netip.MustParsePrefix(s)} }
	route := func(dst string, metric uint32) hostRoute {
		x := hostRoute{key: routeKey{dst: netip.MustParsePrefix(dst), metric: metric}, Words: []byte{unix.AF_INET}}
		if x.key.dst.Addr().Is6() {
			x.Words[0] = unix.AF_INET6
		}
		return x
	}
	rec := uplinkRecord{
		Addresses: []hostAddress{address("192.0.2.1/24"), address("192.0.2.2/24"), address("2001:db8::1/64"), address("2001:db8::2/64")},
		Routes:    []hostRoute{route("10.0.0.0/8", 0), route("0.0.0.0/0", 0), route("0.0.0.0/0", 9), route("::/0", 1024)},
	}
	for n := range len(rec.Addresses) + 1 {
		for m := range len(rec.Routes) + 1 {
			lost := rec.missing(rec.Addresses[:n], rec.Routes[m:])
			if !reflect.DeepEqual(append(slices.Clone(rec.Addresses[:n]), lost.Addresses...), rec.Addresses) ||
				!reflect.DeepEqual(append(lost.Routes, rec.Routes[m:]...), rec.Routes) {
				t.Errorf("with %d addresses, without %d routes: lacks %v, %v", n, m, lost.Addresses, lost.Routes)
			}
		}
	}
	lost := rec.missing([]hostAddress{address("192.0.2.1/24"), address("192.0.2.50/24")}, nil)
	if len(lost.Addresses) != 2 || len(lost.Routes) != 1 || lost.Addresses[0].Prefix.Addr().Is4() || lost.Routes[0].isIPv4() {
		t.Errorf("set up anew: lacks %v, %v, want what is IPv6", lost.Addresses, lost.Routes)
	}
}

// TestRoutesThatRoutersKeep: a route with a lifetime goes back with what is left of it where it
// is now: routers say anew how long it holds, and it was short when it moved.
func TestRoutesThatRoutersKeep(t *testing.T) {
	twoEnds(t, func(v0, _ end) error {
		addresses, err := addressesOn(v0.index)
		if err != nil {
			return err
		}
		routes, err := routesBy(v0.index, addresses)
		if err != nil {
			return err
		}
		now := time.Now()
		rec := &uplinkRecord{Time: now.Add(-time.Hour), Addresses: addresses, Routes: routes} // the route had 1000 s then
		left := func(here bool) (n uint32) {
			for _, g := range new(reconciler).stillLocked(rec, v0.index, here, now).Routes {
				if strings.HasPrefix(g.Text, "::/0") {
					n = g.Expires
				}
			}
			return n
		}
		if n := left(true); n < 900 || n > 1000 {
			t.Errorf("it goes back for %d s, want 1000 or a little less", n)
		}
		if n := left(false); n != 0 {
			t.Errorf("it has gone with its interface, and goes back for %d s", n)
		}
		return nil
	}, "addr add 2001:db8::1/64 dev v0 nodad", "-6 route add default via 2001:db8::9 dev v0 expires 1000")
}
