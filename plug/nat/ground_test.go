package nat

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

// ground is what the tests of real traffic stand on. Bridges of the kernel are the
// gateways: an interface with an address is all that this package knows of one.
//
//	┌─ Host "h" ────────────────────────────────────────┐      ┌─ Host "out" ───────────┐
//	│ red  10.1.0.1/24 fd01::1/64 ── r1 .2, r2 .3       │      │                        │
//	│                                eth0 192.0.2.1/24 ─┼──────┼─ eth0 192.0.2.9/24     │
//	│ blue 10.2.0.1/24 fd02::1/64 ── b1 .2  2001:db8::1 │      │       2001:db8::9      │
//	└───────────────────────────────────────────────────┘      └────────────────────────┘
//
// Containers' addresses end in the same number in both families.
type ground struct {
	t          *testing.T
	lab        *lab.Lab
	host, out  *lab.Host
	r1, r2, b1 *lab.Container
	wall       *Firewall
}

var (
	red  = Gateway{Interface: "red", Subnets: prefixes("10.1.0.0/24", "fd01::/64"), Masquerade: true}
	blue = Gateway{Interface: "blue", Subnets: prefixes("10.2.0.0/24", "fd02::/64"), Masquerade: true}
)

const (
	outside4, outside6 = "192.0.2.9", "2001:db8::9"
	host4, host6       = "192.0.2.1", "2001:db8::1"
)

func prefixes(texts ...string) (all []netip.Prefix) {
	for _, s := range texts {
		all = append(all, netip.MustParsePrefix(s))
	}
	return all
}

func newGround(t *testing.T) *ground {
	t.Helper()
	l := lab.New(t)
	g := &ground{t: t, lab: l, host: l.Host("h"), out: l.Host("out")}
	// The kernel's bridges shall only bridge: br_netfilter would show the rules bridged packets.
	for _, key := range []string{"iptables", "ip6tables"} {
		g.do(func() error {
			err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+key, []byte("0"), 0)
			if errors.Is(err, os.ErrNotExist) {
				return nil // not loaded
			}
			return err
		})
	}
	// As strict as hosts are: what comes in must come in where answers go out.
	g.host.Sysctl("net.ipv4.conf.all.rp_filter", "1")
	g.host.Sysctl("net.ipv4.conf.default.rp_filter", "1")
	u := l.Underlay("net", lab.UnderlayOptions{})
	u.Join(g.host, host4+"/24", host6+"/64")
	u.Join(g.out, outside4+"/24", outside6+"/64")
	g.r1 = g.host.Container("r1", lab.Addr("10.1.0.2/24"), lab.Addr("fd01::2/64"))
	g.r2 = g.host.Container("r2", lab.Addr("10.1.0.3/24"), lab.Addr("fd01::3/64"))
	g.b1 = g.host.Container("b1", lab.Addr("10.2.0.2/24"), lab.Addr("fd02::2/64"))
	g.bridge("red", "1", g.r1, g.r2)
	g.bridge("blue", "2", g.b1)
	g.wall = g.newWall("0123456789abcdef")
	return g
}

func (g *ground) newWall(instance string) *Firewall {
	return New(instance, slog.New(slog.DiscardHandler))
}

// bridge makes a gateway of a bridge, and lets containers know it.
func (g *ground) bridge(name, net string, containers ...*lab.Container) {
	var ports []string
	for _, c := range containers {
		ports = append(ports, c.Veth)
	}
	g.host.KernelBridge(name, ports...)
	g.host.Sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "0")
	g.host.MustExec("ip", "addr", "add", "10."+net+".0.1/24", "dev", name)
	g.host.MustExec("ip", "addr", "add", "fd0"+net+"::1/64", "dev", name, "nodad")
	for _, c := range containers {
		c.MustExec("ip", "route", "add", "default", "via", "10."+net+".0.1")
		c.MustExec("ip", "route", "add", "default", "via", "fd0"+net+"::1")
	}
}

// do runs f in the host; all of a Firewall's methods must be called so.
func (g *ground) do(f func() error) {
	g.t.Helper()
	if err := g.host.Do(f); err != nil {
		g.t.Fatal(err)
	}
}

// apply is Apply that fails the test, with what became of the forwards.
func (g *ground) apply(gateways []Gateway, forwards ...Forward) (status []Status) {
	g.t.Helper()
	g.do(func() (err error) {
		status, err = g.wall.Apply(gateways, forwards)
		return err
	})
	return status
}

// served is apply of forwards that must all be reachable.
func (g *ground) served(gateways []Gateway, forwards ...Forward) {
	g.t.Helper()
	for _, s := range g.apply(gateways, forwards...) {
		if s.Err != "" {
			g.t.Fatalf("port %d/%s: %s", s.Port, s.Proto, s.Err)
		}
	}
}

func (g *ground) check() (missing bool) {
	g.t.Helper()
	g.do(func() (err error) {
		missing, err = g.wall.Check()
		return err
	})
	return missing
}

// ruleset is what nft(8) says of all tables but ours.
func (g *ground) ruleset() string {
	g.t.Helper()
	var others []string
	for _, table := range strings.Split(g.host.MustExec("nft", "-s", "list", "ruleset"), "\ntable ") {
		if table = strings.TrimPrefix(strings.TrimSpace(table), "table "); !strings.HasPrefix(table, "inet vswitch-") {
			others = append(others, table)
		}
	}
	return strings.Join(others, "\n")
}

func forward(host string, port int, proto, to, via string) Forward {
	f := Forward{Port: uint16(port), Proto: proto, To: netip.MustParseAddrPort(to), Interface: via}
	if host != "" {
		f.Host = netip.MustParseAddr(host)
	}
	return f
}

// serve answers at a port of all addresses of a namespace with the address it was asked
// from, over TCP and UDP. A connection goes on until the client ends it.
func (g *ground) serve(n *lab.Namespace, port int) {
	g.t.Helper()
	err := n.Do(func() error {
		for _, family := range []string{"4", "6"} {
			at := net.JoinHostPort(map[string]string{"4": "0.0.0.0", "6": "::"}[family], strconv.Itoa(port))
			ln, err := net.Listen("tcp"+family, at)
			if err != nil {
				return err
			}
			g.t.Cleanup(func() { ln.Close() })
			go func() { // ends with the listener
				for {
					c, err := ln.Accept()
					if err != nil {
						return
					}
					go func() { // ends with the connection
						defer c.Close()
						from, _, _ := net.SplitHostPort(c.RemoteAddr().String())
						fmt.Fprintln(c, from)
						io.Copy(c, c)
					}()
				}
			}()
			pc, err := net.ListenPacket("udp"+family, at)
			if err != nil {
				return err
			}
			g.t.Cleanup(func() { pc.Close() })
			go func() { // ends with the socket
				buf := make([]byte, 2048)
				for {
					_, from, err := pc.ReadFrom(buf)
					if err != nil {
						return
					}
					host, _, _ := net.SplitHostPort(from.String())
					pc.WriteTo([]byte(host+"\n"), from)
				}
			}()
		}
		return nil
	})
	if err != nil {
		g.t.Fatal(err)
	}
}

const (
	soon  = 3 * time.Second
	never = 300 * time.Millisecond // what is dropped stays away so long
)

var errSilence = errors.New("no answer")

// ask asks what serve serves from a namespace, and returns which address the server saw.
func ask(from *lab.Namespace, proto, addr string, limit time.Duration) (seen string, err error) {
	err = from.Do(func() error {
		c, err := net.DialTimeout(proto, addr, limit)
		if err != nil {
			return err
		}
		defer c.Close()
		if proto == "udp" {
			if _, err := c.Write([]byte("?")); err != nil {
				return err
			}
		}
		c.SetReadDeadline(time.Now().Add(limit))
		buf := make([]byte, 128)
		n, err := c.Read(buf)
		if err != nil {
			return fmt.Errorf("%w: %w", errSilence, err)
		}
		seen = string(bytes.TrimSpace(buf[:n]))
		return nil
	})
	return seen, err
}

// reaches says that an address answers, and sees the client as seen.
func (g *ground) reaches(from *lab.Namespace, proto, addr, seen string) {
	g.t.Helper()
	got, err := ask(from, proto, addr, soon)
	if err != nil {
		g.t.Errorf("%s from %s to %s: %v", proto, from.Name, addr, err)
	} else if got != seen {
		g.t.Errorf("%s from %s to %s: the server sees %s, want %s", proto, from.Name, addr, got, seen)
	}
}

// silent says that addresses do not answer, over TCP nor UDP.
func (g *ground) silent(from *lab.Namespace, addrs ...string) {
	g.t.Helper()
	var all sync.WaitGroup
	for _, addr := range addrs {
		for _, proto := range protocols {
			all.Go(func() {
				if seen, err := ask(from, proto, addr, never); err == nil {
					g.t.Errorf("%s from %s to %s: answered, and saw %s", proto, from.Name, addr, seen)
				}
			})
		}
	}
	all.Wait()
}

// flows lists the UDP flows to published ports that the host's conntrack knows.
func (g *ground) flows() (text string) {
	g.t.Helper()
	g.do(func() error {
		all, err := netlink.ConntrackTableList(netlink.ConntrackTable, unix.AF_INET)
		for _, f := range all {
			if f.Forward.Protocol == unix.IPPROTO_UDP && f.Forward.DstPort == 8080 {
				text += f.String() + "\n"
			}
		}
		return err
	})
	return text
}

// giveUp lets a Firewall go as its process's death would: the kernel closes its sockets.
func (f *Firewall) giveUp() {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, fd := range f.claims {
		unix.Close(fd)
		delete(f.claims, k)
	}
}
