package wire_test

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
	"vswitch/plug/wire"
)

// The ground of every test here:
//
//	┌─ Host "h" ─────────┐        ┌─ Host "c": a container that is ─┐
//	│ wire.Plug runs     │  veth  │ a namespace and nothing else    │
//	│ here         p1 ◄──┼────────┼─► eth1                          │
//	└────────────────────┘        └─────────────────────────────────┘
type ground struct {
	t    *testing.T
	l    *lab.Lab
	h, c *lab.Host
}

func newGround(t *testing.T) *ground {
	t.Helper()
	l := lab.New(t)
	return &ground{t: t, l: l, h: l.Host("h"), c: l.Host("c")}
}

func path(n *lab.Host) string { return filepath.Join("/run/netns", n.Name) }

func (g *ground) plugInto(c *lab.Host, s wire.Spec, had *wire.Spec) (wire.Plugged, error) {
	return g.plugPath(path(c), s, had)
}

func (g *ground) plugPath(path string, s wire.Spec, had *wire.Spec) (p wire.Plugged, err error) {
	err = g.h.Do(func() error {
		n, err := wire.Open(path)
		if err != nil {
			return err
		}
		defer n.Close()
		p, err = wire.Plug(n, s, had)
		return err
	})
	return p, err
}

func (g *ground) plug(s wire.Spec, had *wire.Spec) (wire.Plugged, error) {
	return g.plugInto(g.c, s, had)
}

func (g *ground) mustPlug(s wire.Spec, had *wire.Spec) wire.Plugged {
	g.t.Helper()
	p, err := g.plug(s, had)
	if err != nil {
		g.t.Fatal(err)
	}
	return p
}

func spec() wire.Spec {
	return wire.Spec{
		Host: "p1", Alias: "vswitch test p1", IfName: "eth1", MTU: 1400,
		MAC:       net.HardwareAddr{0x02, 0, 0, 0, 0, 0x11},
		Addresses: prefixes("10.1.0.5/24", "fd00:1::5/64"),
		Gateways:  addrs("10.1.0.1", "fd00:1::1"),
		Routes:    []wire.Route{route("10.9.0.0/16 10.1.0.9"), route("10.8.0.0/16"), route("fd00:9::/64 fd00:1::9")},
	}
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

func addrs(list ...string) (out []netip.Addr) {
	for _, s := range list {
		out = append(out, netip.MustParseAddr(s))
	}
	return out
}

func route(s string) (r wire.Route) {
	words := strings.Fields(s)
	r.Dst = netip.MustParsePrefix(words[0])
	if len(words) > 1 {
		r.Via = netip.MustParseAddr(words[1])
	}
	return r
}

// state is all that a Plug could change in a namespace, a line each.
func (g *ground) state(n *lab.Host) (lines []string) {
	g.t.Helper()
	err := n.Do(func() error {
		lines = nil
		links, err := netlink.LinkList()
		if err != nil {
			return err
		}
		names := map[int]string{}
		for _, l := range links {
			a := l.Attrs()
			names[a.Index] = a.Name
			lines = append(lines, fmt.Sprintf("link %d %s %s mtu %d mac %s alias %q up %v",
				a.Index, a.Name, l.Type(), a.MTU, a.HardwareAddr, a.Alias, a.RawFlags&unix.IFF_UP != 0))
		}
		all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, a := range all {
			if a.IP.IsLinkLocalUnicast() || a.IP.IsLoopback() {
				continue // the kernel's own
			}
			if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) != 0 {
				return fmt.Errorf("address %s is not in use", a.IPNet)
			}
			lines = append(lines, fmt.Sprintf("address %s on %s", a.IPNet, names[a.LinkIndex]))
		}
		routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
		if err != nil {
			return err
		}
		for _, r := range routes {
			if r.Dst != nil && (r.Dst.IP.IsLinkLocalUnicast() || r.Dst.IP.IsMulticast()) {
				continue
			}
			via := "link"
			if r.Gw != nil {
				via = r.Gw.String()
			}
			lines = append(lines, fmt.Sprintf("route %s via %s on %s metric %d", r.Dst, via, names[r.LinkIndex], r.Priority))
		}
		return nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
	slices.Sort(lines)
	return lines
}

// unchanged runs f and fails the test when either namespace is not as it was.
func (g *ground) unchanged(f func()) {
	g.t.Helper()
	host, container := g.state(g.h), g.state(g.c)
	f()
	for _, d := range [][2][]string{{host, g.state(g.h)}, {container, g.state(g.c)}} {
		if diff := lab.Snapshot(d[0]).Diff(d[1]); len(diff) > 0 {
			g.t.Errorf("something is left:\n%s", strings.Join(diff, "\n"))
		}
	}
}

func (g *ground) has(n *lab.Host, want ...string) {
	g.t.Helper()
	have := g.state(n)
	for _, w := range want {
		if !slices.Contains(have, w) {
			g.t.Errorf("no %q in:\n%s", w, strings.Join(have, "\n"))
		}
	}
}

func (g *ground) hasNot(n *lab.Host, part string) {
	g.t.Helper()
	for _, line := range g.state(n) {
		if strings.Contains(line, part) {
			g.t.Errorf("there is %q", line)
		}
	}
}

func TestPlug(t *testing.T) {
	g := newGround(t)
	before := g.state(g.h)
	s := spec()
	p := g.mustPlug(s, nil)
	if !p.Made {
		t.Error("a pair that was not there is not said to be made")
	}
	g.has(g.c,
		fmt.Sprintf("link %d eth1 veth mtu 1400 mac 02:00:00:00:00:11 alias %q up true", p.Container, s.Alias),
		"address 10.1.0.5/24 on eth1", "address fd00:1::5/64 on eth1",
		"route 0.0.0.0/0 via 10.1.0.1 on eth1 metric 0", "route ::/0 via fd00:1::1 on eth1 metric 1024",
		"route 10.9.0.0/16 via 10.1.0.9 on eth1 metric 0", "route 10.8.0.0/16 via link on eth1 metric 0",
		"route fd00:9::/64 via fd00:1::9 on eth1 metric 1024",
	)
	host, err := g.h.Link("p1")
	if err != nil {
		t.Fatal(err)
	}
	a := host.Attrs()
	if a.Index != p.Host || a.Alias != s.Alias || a.MTU != 1400 || a.OperState != netlink.OperUp {
		t.Errorf("the host's end is %+v, want index %d", a, p.Host)
	}
	lo, err := g.c.Link("lo")
	if err != nil || lo.Attrs().RawFlags&unix.IFF_UP == 0 {
		t.Errorf("the container's loopback: up is no, or %v", err)
	}
	g.h.Do(func() error {
		list, err := netlink.AddrList(host, netlink.FAMILY_ALL)
		if err != nil || len(list) != 0 {
			t.Errorf("the host's end has addresses %v, error %v", list, err)
		}
		left, err := wire.Leftovers(func(host string) string { return "vswitch test " + host })
		if err != nil || len(left) != 0 {
			t.Errorf("what is whole is half made: %v, error %v", left, err)
		}
		if err := wire.Unplug("p1", "vswitch test p2"); !errors.Is(err, wire.ErrTaken) {
			t.Errorf("unplug of another's interface: %v", err)
		}
		for range 2 {
			if err := wire.Unplug("p1", s.Alias); err != nil {
				t.Error(err)
			}
		}
		return nil
	})
	if diff := lab.Snapshot(before).Diff(g.state(g.h)); len(diff) > 0 {
		t.Errorf("after unplug: %v", diff)
	}
	g.hasNot(g.c, "eth1")
}

// What was plugged talks at once, both families: the first frame is not lost.
func TestTalksAtOnce(t *testing.T) {
	g := newGround(t)
	peer := g.h.Container("peer", lab.Addr("10.1.0.1/24"), lab.Addr("fd00:1::1/64"))
	g.mustPlug(spec(), nil)
	g.h.KernelBridge("br", "p1", peer.Veth)
	for _, a := range peer.IPs {
		if err := g.c.Ping(a.String()); err != nil {
			t.Error(err)
		}
	}
}

// A container whose runtime turned IPv6 off gets it on the interface that asks for it.
func TestDisabledIPv6(t *testing.T) {
	g := newGround(t)
	g.c.Sysctl("net.ipv6.conf.all.disable_ipv6", "1")
	g.c.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	g.mustPlug(spec(), nil)
	g.has(g.c, "address fd00:1::5/64 on eth1", "route ::/0 via fd00:1::1 on eth1 metric 1024")
}

func TestOpenRefuses(t *testing.T) {
	g := newGround(t)
	fifo := filepath.Join(g.l.Dir(), "fifo")
	if err := unix.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	g.h.Do(func() error {
		for _, tt := range []struct{ path, want string }{
			{"/proc/thread-self/ns/net", "the host's own"},
			{path(g.h), "the host's own"},
			{"/proc/self/ns/mnt", "no network namespace"},
			{"/proc/self/ns/pid", "no network namespace"},
			{"/etc/passwd", "no network namespace"},
			{"/dev/null", "no network namespace"},
			{g.l.Dir(), "no network namespace"},
			{fifo, "no network namespace"},
			{"/run/netns/there-is-none", wire.ErrNoNamespace.Error()},
			{"/proc/4194304/ns/net", wire.ErrNoNamespace.Error()},
		} {
			n, err := wire.Open(tt.path)
			if err == nil {
				n.Close()
				t.Errorf("%s was opened", tt.path)
			} else if !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%s: %q, want %q", tt.path, err, tt.want)
			}
			if gone := tt.want == wire.ErrNoNamespace.Error(); gone != errors.Is(err, wire.ErrNoNamespace) {
				t.Errorf("%s: errors.Is(%v, ErrNoNamespace) is %v", tt.path, err, !gone)
			}
		}
		a, err := wire.Open(path(g.c))
		if err != nil {
			t.Fatal(err)
		}
		defer a.Close()
		b, err := wire.Open(path(g.c))
		if err != nil {
			t.Fatal(err)
		}
		defer b.Close()
		if a.ID() != b.ID() || a.ID() == (wire.ID{}) {
			t.Errorf("one namespace is %v and %v", a.ID(), b.ID())
		}
		return nil
	})
	if n, err := wire.Open("/proc/" + fmt.Sprint(os.Getpid()) + "/ns/net"); err == nil {
		n.Close()
		t.Error("this process's own namespace was opened")
	}
}
