package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
)

// checkPlugs judges plugs, and what bridges say of their containers' addresses. What
// only the machine can know, such as who the container is, is not judged here.
func (d *Document) checkPlugs(r *report) {
	type seat struct{ container, ifname string }
	seats := make(map[seat]string) // the path of who has it
	type hostPort struct {
		path string
		Publish
	}
	type socket struct {
		port  uint16
		proto string
	}
	published := make(map[socket][]hostPort)
	for i := range d.Bridges {
		b := &d.Bridges[i]
		b.checkPools(r)
		taken := b.ownAddresses()
		pools := b.Pools()
		for _, p := range b.Ports {
			g, ok := p.Plug()
			if !ok {
				continue
			}
			path := portPath(b.Name, p.Name)
			switch {
			case !p.Options.IsSet("container"):
				r.addf(path, "a plug needs container: %s", find("container").Allowed())
				continue
			case g.Container.Kind == RuntimeContainer:
				r.add(&Error{Path: path + ".container", Value: p.Options["container"], Allowed: find("container").Allowed(),
					Message: "a container that its runtime plugs cannot be plugged by the document"})
			}
			s := seat{g.Container.String(), g.IfName}
			if first, ok := seats[s]; ok {
				r.add(&Error{Path: path + ".ifname", Value: g.IfName, Message: fmt.Sprintf(
					"%s of %s is made by %s already: give this one another ifname", g.IfName, s.container, first)})
			} else {
				seats[s] = path
			}
			b.checkAddresses(p, g, path, pools, taken, r)
			if len(g.Publish) > 0 && !b.hasHostAddress() {
				r.addf(path+".publish", "the host cannot reach %s: give the bridge an address (set-br %s ip=…)", s.container, b.Name)
			}
			if len(g.Publish) > 0 && !p.Options.IsSet("ip") {
				r.addf(path+".publish", "%s has no address to publish: give the plug an ip", s.container)
			}
			for _, pub := range g.Publish {
				at := socket{pub.Port, pub.Proto}
				for _, other := range published[at] {
					if pub.clashes(other.Publish) {
						r.add(&Error{Path: path + ".publish", Value: pub.String(), Message: fmt.Sprintf(
							"port %d/%s of the host is published by %s already", pub.Port, pub.Proto, other.path)})
					}
				}
				published[at] = append(published[at], hostPort{path, pub})
			}
		}
	}
}

// addressKey is an address in one VLAN of a bridge: two VLANs may both have 10.0.0.5.
type addressKey struct {
	tag  string
	addr netip.Addr
}

// ownAddresses are those of the bridge's interfaces at the host, by who has them.
func (b *Bridge) ownAddresses() map[addressKey]string {
	taken := make(map[addressKey]string)
	for _, a := range b.Options.Prefixes("ip") {
		taken[addressKey{b.Options["tag"], a.Addr()}] = "bridge " + b.Name + " itself"
	}
	for _, p := range b.Ports {
		if p.Object() != InternalPort {
			continue
		}
		for _, a := range p.Options.Prefixes("ip") {
			taken[addressKey{p.Options["tag"], a.Addr()}] = "port " + p.Name
		}
	}
	return taken
}

func (b *Bridge) hasHostAddress() bool {
	return b.Options.IsSet("ip") || slices.ContainsFunc(b.Ports, func(p Port) bool {
		return p.Object() == InternalPort && p.Options.IsSet("ip") || p.Options["take_addresses"] == "true"
	})
}

// checkAddresses judges the addresses of one plug, and adds them to those taken.
func (b *Bridge) checkAddresses(p Port, g Plug, path string, pools []Pool, taken map[addressKey]string, r *report) {
	wrong := func(value, format string, args ...any) {
		r.add(&Error{Path: path + ".ip", Value: value, Message: fmt.Sprintf(format, args...)})
	}
	pool := func(v4 bool) *Pool {
		for i := range pools {
			if pools[i].Subnet.Addr().Is4() == v4 {
				return &pools[i]
			}
		}
		return nil
	}
	if (g.Auto4 && pool(true) == nil && (!g.Auto6 || pool(false) == nil)) || (g.Auto6 && !g.Auto4 && pool(false) == nil) {
		wrong(p.Options["ip"], "%s has no subnet to take an address of: set-br %[1]s ipam.subnet=…, or ip=…", b.Name)
	}
	for _, a := range g.Addresses {
		// A VLAN other than that of the bridge's own address is another network.
		if q := pool(a.Addr().Is4()); q != nil && p.Options["tag"] == b.Options["tag"] {
			switch {
			case !q.Subnet.Contains(a.Addr()):
				r.add(&Error{Path: path + ".ip", Value: a.String(), Allowed: "an address of " + q.Subnet.String(),
					Message: fmt.Sprintf("%s is outside of %s, the subnet of %s", a, q.Subnet, b.Name)})
			case a.Addr() == q.Gateway && taken[addressKey{p.Options["tag"], a.Addr()}] == "":
				wrong(a.String(), "%s is the gateway of %s", a.Addr(), b.Name)
			}
		}
		key := addressKey{p.Options["tag"], a.Addr()}
		switch who := taken[key]; {
		case strings.HasPrefix(who, "port ") && b.Port(who[len("port "):]).Object() == PlugPort:
			wrong(a.String(), "%s and port %s both have the address %s", who, p.Name, a.Addr())
			continue
		case who != "":
			wrong(a.String(), "%s is taken by %s", a.Addr(), who)
			continue
		}
		taken[key] = "port " + p.Name
	}
}

// checkPools judges what a bridge says of its containers' addresses.
func (b *Bridge) checkPools(r *report) {
	o, path := b.Options, bridgePath(b.Name)
	pools := b.Pools()
	within := func(a netip.Addr) bool {
		return slices.ContainsFunc(pools, func(p Pool) bool { return p.Subnet.Contains(a) })
	}
	for _, a := range o.Addresses("ipam.gateway") {
		if !within(a) {
			r.add(&Error{Path: path + ".ipam.gateway", Value: a.String(), Message: fmt.Sprintf("%s is in no subnet of the bridge: set ipam.subnet or ip", a)})
		}
	}
	for _, n := range o.Networks("ipam.range") {
		if !slices.ContainsFunc(pools, func(p Pool) bool { return p.Subnet.Contains(n.Addr()) && n.Bits() >= p.Subnet.Bits() }) {
			r.add(&Error{Path: path + ".ipam.range", Value: n.String(), Message: fmt.Sprintf("%s is not part of a subnet of the bridge: set ipam.subnet or ip", n)})
		}
	}
	if o["nat"] == "masquerade" && !o.IsSet("ip") {
		r.addf(path+".nat", "masquerade needs an address of the bridge, which is the gateway: set ip")
	}
	takers := 0
	for _, p := range b.Ports {
		if p.Object() == InternalPort && p.Options["nat"] == "masquerade" && !p.Options.IsSet("ip") {
			r.addf(portPath(b.Name, p.Name)+".nat", "masquerade needs an address of the port, which is the gateway: set ip")
		}
		if p.Options["take_addresses"] == "true" {
			if takers++; takers > 1 {
				r.addf(portPath(b.Name, p.Name)+".take_addresses", "another port of %s gave its addresses to the local port already", b.Name)
			}
		}
	}
}
