package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
)

// Underlay is the network between hosts: a switch that all are plugged into, or a
// router with a link and a network of its own to each. It is a namespace, so what
// is on the wire can be read there: u.Conn(u.Port(h)) receives what h sends.
//
//	┌─ Host "a" ────────────┐   ┌─ Underlay "net" ──┐   ┌─ Host "b" ────────────┐
//	│ eth0 192.0.2.1/24 ◄───┼───┼─► a    sw    b ◄──┼───┼─► eth0 192.0.2.2/24   │
//	└───────────────────────┘   └───────────────────┘   └───────────────────────┘
//
// Thread-safety: for the test's goroutine.
type Underlay struct {
	*Namespace
	options UnderlayOptions
	links   map[*Host]underlayLink
}

// UnderlayOptions says what the network is like.
type UnderlayOptions struct {
	MTU       int    // of all links; 0 is 1500
	Interface string // what it is called in the hosts; empty is eth0
	// Routed makes a router of it: hosts have different networks, the router has
	// the last address of each, and is the hosts' default gateway. It says so, by
	// ICMP, where a packet does not fit the next link.
	Routed bool
}

// underlayLink is one host's.
type underlayLink struct {
	host, port string // the interface in the host, and in the underlay
}

// switchName is the kernel bridge of an underlay that is not routed.
const switchName = "sw"

// Underlay makes a network without hosts.
func (l *Lab) Underlay(name string, o UnderlayOptions) *Underlay {
	l.t.Helper()
	if o.MTU == 0 {
		o.MTU = 1500
	}
	if o.Interface == "" {
		o.Interface = "eth0"
	}
	h := l.Host(name)
	u := &Underlay{Namespace: h.Namespace, options: o, links: make(map[*Host]underlayLink)}
	if !o.Routed {
		h.KernelBridge(switchName)
		return u
	}
	u.Sysctl("net.ipv4.ip_forward", "1")
	u.Sysctl("net.ipv6.conf.all.forwarding", "1")
	// An address must come back with its link.
	u.Sysctl("net.ipv6.conf.default.keep_addr_on_down", "1")
	// Each packet that does not fit is answered, not a few a second.
	u.Sysctl("net.ipv4.icmp_ratelimit", "0")
	u.Sysctl("net.ipv6.icmp.ratelimit", "0")
	return u
}

// Join plugs a host in and gives it addresses: u.Join(h, "192.0.2.1/24",
// "2001:db8::1/64"). A host is joined once to an underlay, and may be joined to
// several.
func (u *Underlay) Join(h *Host, addrs ...string) {
	u.lab.t.Helper()
	if err := u.join(h, addrs); err != nil {
		u.lab.t.Fatalf("lab: join %s to %s: %v", h.Name, u.Name, err)
	}
}

func (u *Underlay) join(h *Host, addrs []string) error {
	link := underlayLink{host: u.options.Interface, port: strings.TrimPrefix(h.Name, u.lab.name+"-")}
	if len(link.port) > 15 {
		return fmt.Errorf("host name %q is no interface name: longer than 15 bytes", link.port)
	}
	if _, twice := u.links[h]; twice {
		return errors.New("it is joined already")
	}
	u.links[h] = link
	var prefixes, gateways []netip.Prefix
	for _, addr := range addrs {
		prefix, err := netip.ParsePrefix(addr)
		if err != nil {
			return err
		}
		prefixes, gateways = append(prefixes, prefix), append(gateways, gateway(prefix))
	}
	err := h.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = link.host, u.options.MTU
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerMTU, veth.PeerNamespace = link.port, uint32(u.options.MTU), netlink.NsFd(u.fd)
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth pair: %w", err)
		}
		if err := addAddresses(link.host, prefixes); err != nil {
			return err
		}
		return up(link.host)
	})
	if err != nil {
		return err
	}
	err = u.Do(func() error {
		if u.options.Routed {
			if err := addAddresses(link.port, gateways); err != nil {
				return err
			}
			// A router asks for its neighbours from its link-local address.
			if err := sysctl("net/ipv6/conf/"+link.port+"/addr_gen_mode", "0"); err != nil {
				return err
			}
			return up(link.port)
		}
		if err := quietIPv6(link.port); err != nil {
			return err
		}
		sw, err := netlink.LinkByName(switchName)
		if err != nil {
			return err
		}
		port, err := netlink.LinkByName(link.port)
		if err != nil {
			return err
		}
		if err := netlink.LinkSetMaster(port, sw); err != nil {
			return err
		}
		return up(link.port)
	})
	if err != nil {
		return err
	}
	if err := u.running(link.port); err != nil {
		return err
	}
	if err := h.running(link.host); err != nil || !u.options.Routed {
		return err
	}
	return h.Do(func() error {
		for _, via := range gateways {
			if err := netlink.RouteAdd(&netlink.Route{Gw: via.Addr().AsSlice()}); err != nil {
				return fmt.Errorf("add default route: %w", err)
			}
		}
		return nil
	})
}

// gateway returns the router's address in a network: the last one, but for that of
// broadcast.
func gateway(p netip.Prefix) netip.Prefix {
	addr := p.Masked().Addr().AsSlice()
	for bit := p.Bits(); bit < len(addr)*8-1; bit++ {
		addr[bit/8] |= 0x80 >> (bit % 8)
	}
	last, _ := netip.AddrFromSlice(addr)
	return netip.PrefixFrom(last, p.Bits())
}

// Port returns the name of the host's link in the underlay.
func (u *Underlay) Port(h *Host) string { return u.link(h).port }

func (u *Underlay) link(h *Host) underlayLink {
	u.lab.t.Helper()
	link, ok := u.links[h]
	if !ok {
		u.lab.t.Fatalf("lab: %s has not joined %s", h.Name, u.Name)
	}
	return link
}

// SetMTU changes the MTU of both ends of a host's link.
func (u *Underlay) SetMTU(h *Host, mtu int) {
	u.lab.t.Helper()
	link := u.link(h)
	h.MustExec("ip", "link", "set", "dev", link.host, "mtu", strconv.Itoa(mtu))
	u.MustExec("ip", "link", "set", "dev", link.port, "mtu", strconv.Itoa(mtu))
}

// Offload turns offloads of both ends of a host's link on or off. With them off,
// what comes to the host and what leaves it is as it would be on a cable: no frame
// above the MTU, no unfinished checksum.
func (u *Underlay) Offload(h *Host, on bool) {
	u.lab.t.Helper()
	state := map[bool]string{true: "on", false: "off"}[on]
	link := u.link(h)
	for _, end := range []struct {
		in   *Namespace
		name string
	}{{h.Namespace, link.host}, {u.Namespace, link.port}} {
		// ethtool turns tso off with tx, but not back on.
		end.in.MustExec("ethtool", "-K", end.name, "tx", state, "tso", state, "gso", state)
	}
}

// Cut pulls a host's plug out of the underlay: its interface has no carrier. The
// others' links stay as they are.
func (u *Underlay) Cut(h *Host) {
	u.lab.t.Helper()
	u.MustExec("ip", "link", "set", "dev", u.link(h).port, "down")
}

// Mend puts the plug back.
func (u *Underlay) Mend(h *Host) {
	u.lab.t.Helper()
	link := u.link(h)
	u.MustExec("ip", "link", "set", "dev", link.port, "up")
	if err := errors.Join(u.running(link.port), h.running(link.host)); err != nil {
		u.lab.t.Fatalf("lab: mend %s: %v", link.port, err)
	}
}
