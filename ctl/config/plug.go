package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
)

// How plugs are written: ports of type plug.

// Bounds of a plug's options.
const (
	maxRoutes    = 64
	maxAliases   = 16
	maxPublished = 256
	maxExcluded  = 256
	maxContainer = 255 // bytes of a container's name
)

// Route is one more route of a container.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr // the zero Addr is on the link
}

func (r Route) String() string {
	if !r.Via.IsValid() {
		return r.Dst.String()
	}
	return r.Dst.String() + " via " + r.Via.String()
}

// Publish is a port of the host that leads to a port of a container.
type Publish struct {
	Host  netip.Addr // an address of the host; the zero Addr is any
	Port  uint16     // of the host
	To    uint16     // of the container
	Proto string     // tcp, udp
}

func (p Publish) String() string {
	s := fmt.Sprintf("%d:%d/%s", p.Port, p.To, p.Proto)
	switch {
	case !p.Host.IsValid():
		return s
	case p.Host.Is6():
		return "[" + p.Host.String() + "]:" + s
	}
	return p.Host.String() + ":" + s
}

// Plug is what the options of a plug port say, defaults filled in.
type Plug struct {
	Container ContainerRef
	IfName    string
	Addresses []netip.Prefix // given by hand
	Auto4     bool           // lease an IPv4 address
	Auto6     bool           // lease an IPv6 address
	Gateways  []netip.Addr   // default routes that were asked for
	NoGateway bool           // none, whatever the bridge has
	Routes    []Route
	MAC       net.HardwareAddr // nil: the switch chooses
	MTU       int              // 0: what the bridge's tunnels carry
	Aliases   []string
	Publish   []Publish
}

// Plug reads the options of a plug port in canonical form. ok is false for a port of
// another type.
func (p Port) Plug() (g Plug, ok bool) {
	if p.Object() != PlugPort {
		return Plug{}, false
	}
	o := p.Options
	g = Plug{IfName: o.Text("ifname"), Addresses: o.Prefixes("ip"), MAC: o.MAC("mac"), MTU: o.Int("mtu")}
	g.Container, _ = parseContainer(o.Text("container"))
	has4 := slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() })
	has6 := slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	for _, word := range splitList(o["ip"]) {
		g.Auto4 = g.Auto4 || word == "auto4" || word == "auto" && !has4
		g.Auto6 = g.Auto6 || word == "auto6" || word == "auto" && !has6
	}
	g.NoGateway = o["gateway"] == "none"
	g.Gateways = o.Addresses("gateway")
	g.Routes, _, _ = parseRoutes(o["route"])
	g.Aliases = splitList(o["alias"])
	g.Publish, _, _ = parsePublished(o["publish"])
	return g, true
}

// Addresses reads addresses without prefix lengths, in the order given.
func (o Options) Addresses(name string) (list []netip.Addr) {
	option(name, AddressList)
	for _, word := range splitList(o[name]) {
		if a, err := netip.ParseAddr(word); err == nil {
			list = append(list, a)
		}
	}
	return list
}
