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
	published := make(bindings)
	hosts := make(hostAddresses)
	for i := range d.Bridges {
		b := &d.Bridges[i]
		b.checkPools(r)
		hosts.add(b, r)
		taken := b.ownAddresses()
		macs := make(map[macKey]string) // the plug that has it
		pools := b.Pools()
		reached := b.hasHostAddress()
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
					"%s of %s is made by %s, too: give one of the two another ifname", g.IfName, s.container, first)})
			} else {
				seats[s] = path
			}
			if mac := p.Options["mac"]; mac != "" {
				key := macKey{p.Options.VLAN(), mac}
				if first, ok := macs[key]; ok {
					r.add(&Error{Path: path + ".mac", Value: mac, Allowed: "a MAC address that no other plug of " + b.Name + " has",
						Message: fmt.Sprintf("port %s has %s, too: give one of the two another, or unset it and let the switch choose", first, mac)})
				} else {
					macs[key] = p.Name
				}
			}
			b.checkAddresses(p, g, path, pools, taken, r)
			if len(g.Publish) > 0 && !reached {
				r.addf(path+".publish", "the host cannot reach %s: give the bridge an address (set-br %s ip=…)", s.container, b.Name)
			}
			if len(g.Publish) > 0 && !p.Options.IsSet("ip") {
				r.addf(path+".publish", "%s has no address to publish: give the plug an ip", s.container)
			}
			for _, pub := range g.Publish {
				if first, clash := published.add(pub, path); clash && !r.full() {
					r.add(&Error{Path: path + ".publish", Value: pub.String(), Message: fmt.Sprintf(
						"port %d/%s of the host is published by %s, too: take another port for one of the two", pub.Port, pub.Proto, first)})
				}
			}
		}
	}
}

// macKey is a MAC address in one VLAN of a bridge: each VLAN learns for itself.
type macKey struct {
	vlan int
	mac  string
}

// hostAddresses are those that the document gives to interfaces of the host.
type hostAddresses map[netip.Addr]hostAddress

type hostAddress struct {
	path   string // of who has it
	serves bool   // containers: it is their gateway, or answers their names
}

// add judges that no two interfaces of the host have one address, where containers are
// served at it: the host would answer them from either. Addresses of a link are for each
// link; one that comes without a network is lent from another interface, as those of
// unnumbered links are; and where there are no containers, whoever has an address twice may
// have put its interfaces into VRFs.
func (h hostAddresses) add(b *Bridge, r *report) {
	each := func(path string, o Options, serves bool) {
		serves = serves || o["nat"] == "masquerade"
		for _, p := range o.Prefixes("ip") {
			a := p.Addr()
			if p.IsSingleIP() || a.IsLinkLocalUnicast() {
				continue
			}
			first, taken := h[a]
			switch {
			case !taken:
				h[a] = hostAddress{path, serves}
			case (serves || first.serves) && !r.full():
				r.add(&Error{Path: path + ".ip", Value: p.String(), Allowed: "an address that no other interface of the host has",
					Message: fmt.Sprintf("%s has the address %s, too: give one of the two another", first.path, a)})
			}
		}
	}
	each(bridgePath(b.Name), b.Options, b.servesContainers())
	for _, p := range b.Ports {
		if p.Object() == InternalPort {
			each(portPath(b.Name, p.Name), p.Options, false)
		}
	}
}

func (b *Bridge) servesContainers() bool {
	return b.Options.IsSet("ipam.subnet") || slices.ContainsFunc(b.Ports, func(p Port) bool { return p.Object() == PlugPort })
}

// hostsOf says which addresses of a network a host can have, and whether a is one: the first
// and the last of an IPv4 network are the network itself and everybody (RFC 1122, section
// 3.2.1.3), but for links between two (RFC 3021).
func hostsOf(p netip.Prefix, a netip.Addr) (allowed string, why string) {
	p = p.Masked()
	if !p.Addr().Is4() || p.Bits() >= 31 {
		return "", ""
	}
	last := lastOf(p)
	allowed = fmt.Sprintf("%s to %s", p.Addr().Next(), last.Prev())
	switch a {
	case p.Addr():
		why = "the network address"
	case last:
		why = "the broadcast address"
	}
	return allowed, why
}

// addressKey is an address in one VLAN of a bridge: two VLANs may both have 10.0.0.5.
type addressKey struct {
	vlan int
	addr netip.Addr
}

// ownAddresses are those of the bridge's interfaces at the host, by who has them.
func (b *Bridge) ownAddresses() map[addressKey]string {
	taken := make(map[addressKey]string)
	for _, a := range b.Options.Prefixes("ip") {
		taken[addressKey{b.Options.VLAN(), a.Addr()}] = "bridge " + b.Name + " itself"
	}
	for _, p := range b.Ports {
		if p.Object() != InternalPort {
			continue
		}
		for _, a := range p.Options.Prefixes("ip") {
			taken[addressKey{p.Options.VLAN(), a.Addr()}] = "port " + p.Name
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
		if allowed, why := hostsOf(a, a.Addr()); why != "" {
			r.add(&Error{Path: path + ".ip", Value: a.String(), Allowed: allowed,
				Message: fmt.Sprintf("%s is %s of %s: want one of %s", a.Addr(), why, a.Masked(), allowed)})
			continue
		}
		if slices.Contains(g.Gateways, a.Addr()) {
			r.add(&Error{Path: path + ".gateway", Value: a.Addr().String(), Allowed: find("gateway").Allowed(),
				Message: fmt.Sprintf("%s is the container's own address: want that of its router, or none", a.Addr())})
		}
		// A VLAN other than that of the bridge's own address is another network.
		if q := pool(a.Addr().Is4()); q != nil && p.Options.VLAN() == b.Options.VLAN() {
			switch {
			case !q.Subnet.Contains(a.Addr()):
				r.add(&Error{Path: path + ".ip", Value: a.String(), Allowed: "an address of " + q.Subnet.String(),
					Message: fmt.Sprintf("%s is outside of %s, the subnet of %s", a, q.Subnet, b.Name)})
			case a.Addr() == q.Gateway && taken[addressKey{p.Options.VLAN(), a.Addr()}] == "":
				wrong(a.String(), "%s is the gateway of %s", a.Addr(), b.Name)
			}
		}
		key := addressKey{p.Options.VLAN(), a.Addr()}
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
		for _, p := range pools {
			if allowed, why := hostsOf(p.Subnet, a); why != "" {
				r.add(&Error{Path: path + ".ipam.gateway", Value: a.String(), Allowed: allowed,
					Message: fmt.Sprintf("%s is %s of %s: want one of %s", a, why, p.Subnet, allowed)})
			}
		}
	}
	for _, x := range o.AddrRanges("ipam.exclude") {
		if !slices.ContainsFunc(pools, func(p Pool) bool { return x.meets(p.Subnet) }) && !r.full() {
			e := &Error{Path: path + ".ipam.exclude", Value: x.String(), Message: fmt.Sprintf("%s is outside of every subnet of the bridge: set ipam.subnet or ip", x)}
			if len(pools) > 0 {
				e.Allowed = "addresses of " + orList(subnetTexts(pools))
			}
			r.add(e)
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
	if o["nat"] == "masquerade" && o.IsSet("ip") && o.IsSet("ipam.subnet") &&
		!slices.ContainsFunc(o.Prefixes("ip"), func(p netip.Prefix) bool { return within(p.Addr()) }) {
		subnets := orList(subnetTexts(pools))
		r.add(&Error{Path: path + ".nat", Value: "masquerade", Allowed: "ip with an address of " + subnets,
			Message: fmt.Sprintf("the bridge has no address of %s, and cannot be the gateway of its containers: add one to ip", subnets)})
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

func subnetTexts(pools []Pool) (list []string) {
	for _, p := range pools {
		list = append(list, p.Subnet.String())
	}
	return list
}
