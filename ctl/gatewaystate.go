package ctl

import (
	"cmp"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/plug/docker"
	"vswitch/plug/held"
	dnsnames "vswitch/plug/names"
	"vswitch/plug/nat"
)

// gatewayState is what is to be so.
type gatewayState struct {
	gateways []nat.Gateway
	forwards []nat.Forward
	rows     []api.PublishStatus // one a published port; State waiting where forward is -1
	forward  []int               // by row: its place in forwards, or -1
	views    []dnsnames.View
	peers    []nat.Peer     // ends of tunnels, which no container may speak to in the host's name
	mtus     map[string]int // of gateways whose MTU nobody said: what their containers have
}

// same says whether the firewall is asked for the same.
func (s *gatewayState) same(o *gatewayState) bool {
	return slices.Equal(s.forwards, o.forwards) && reflect.DeepEqual(s.gateways, o.gateways)
}

// gatewayState reads what is to be so from the document and the plugs.
func (d *Daemon) gatewayState() gatewayState {
	var s gatewayState
	doc := d.current()
	items := d.plugs.held.List(docker.Owner)
	internal, made := docker.Internal(items), madeByDocker(items)
	var uplinks map[string]bool
	uplinks, s.peers = d.reconciler.elsewhere()
	s.mtus = map[string]int{}
	d.reconciler.mu.Lock()
	carried := d.reconciler.plugMTUsLocked()
	d.reconciler.mu.Unlock()
	for i := range doc.Bridges {
		b := &doc.Bridges[i]
		view, named := d.viewOf(b)
		for _, p := range append([]config.Port{b.Local()}, b.Ports...) {
			if o := p.Object(); o != config.LocalPort && o != config.InternalPort {
				continue
			}
			gw, ok := gatewayOf(p)
			gw.Internal, gw.Uplink = slices.Contains(internal, p.Name), uplinks[b.Name]
			gw.Names = named && p.Name == b.Name
			stub, isMade := made[p.Name]
			gw.Stub = stub
			if ok && (gw.Masquerade || gw.Internal || isMade || d.publishes(b)) {
				s.gateways = append(s.gateways, gw)
				if !gw.Uplink && mtu(p) == 0 {
					s.mtus[p.Name] = gatewayMTU(gw, p, mtuOf(carried, b.Name))
				}
			}
		}
		d.publishedOf(b, &s)
		if named {
			view.Closed = slices.Contains(internal, b.Name)
			s.views = append(s.views, view)
		}
	}
	return s
}

// minMTU6 is the smallest MTU of IPv6 (RFC 8200): with less the kernel takes it off an interface,
// with its addresses.
const minMTU6 = 1280

// gatewayMTU is what a gateway's containers have, where its bridge carries so much.
func gatewayMTU(g nat.Gateway, p config.Port, carried int) int {
	if p.Options.VLAN() != 0 && carried < kernelMTU {
		carried -= 4 // a tunnel carries its tag, too
	}
	if slices.ContainsFunc(g.Subnets, func(s netip.Prefix) bool { return s.Addr().Is6() }) {
		return max(carried, minMTU6)
	}
	return max(carried, minInnerMTU)
}

// madeByDocker lists the interfaces of the host that were made to be gateways of Docker's
// networks, also of those that do not masquerade: for an operator's bridge that has an address and
// no nat, the host forwards what he has it forward. The value says that the bridge was made, too,
// so that only Docker's containers are on it.
func madeByDocker(items []held.Item) map[string]bool {
	made := map[string]bool{}
	for _, i := range items {
		if i.Makes && i.Options.IsSet("ip") {
			made[i.Bridge] = true
		}
		for _, p := range i.Ports {
			if p.Object() == config.InternalPort && p.Options.IsSet("ip") {
				made[p.Name] = false
			}
		}
	}
	return made
}

// elsewhere returns which bridges have a LAN behind them, by a NIC that is no plug, and the
// other ends of all tunnels.
func (r *reconciler) elsewhere() (uplinks map[string]bool, peers []nat.Peer) {
	for _, t := range r.outerTunnels(scope{}) {
		if t.remote.IsValid() {
			peers = append(peers, nat.Peer{Addr: t.remote, Port: t.dport})
		}
	}
	uplinks = map[string]bool{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.ports {
		if p.port.Object() != config.PacketPort {
			continue
		}
		o := p.port.Options
		nic := p.link.Index != 0 && p.link.Kind != "veth" && p.link.Kind != "tun"
		if nic || o.Bool("take_addresses") || o.Bool("macnat") {
			uplinks[p.bridge] = true
		}
	}
	return uplinks, peers
}

// gatewayOf reads a host port's options; ok is false where it has no address.
func gatewayOf(p config.Port) (g nat.Gateway, ok bool) {
	for _, a := range p.Options.Prefixes("ip") {
		g.Subnets = append(g.Subnets, a.Masked())
	}
	g.Interface, g.Masquerade = p.Name, p.Options.Text("nat") == "masquerade"
	return g, len(g.Subnets) > 0
}

func (d *Daemon) publishes(b *config.Bridge) bool {
	return slices.ContainsFunc(b.Ports, func(p config.Port) bool { return p.Options.IsSet("publish") })
}

// addressesOf are those that a plug has now, or that the document gives it.
func (d *Daemon) addressesOf(p config.Port, g config.Plug) (addrs []netip.Addr, names []string, why string) {
	prefixes := g.Addresses
	if g.Container.Kind != config.RuntimeContainer {
		st, ok := d.plugs.keeper.State(p.Name)
		if !ok || st.State != api.PlugPlugged && len(st.Addresses) == 0 {
			return nil, nil, st.Reason
		}
		prefixes, names = st.Addresses, st.Names
	}
	for _, a := range prefixes {
		addrs = append(addrs, a.Addr())
	}
	return addrs, names, ""
}

// publishedOf adds what a bridge's plugs publish.
func (d *Daemon) publishedOf(b *config.Bridge, s *gatewayState) {
	for _, p := range b.Ports {
		g, ok := p.Plug()
		if !ok || len(g.Publish) == 0 {
			continue
		}
		addrs, _, why := d.addressesOf(p, g)
		if near := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return hostSide(b, p, a) == "" }); len(near) > 0 {
			addrs = near
		}
		for _, pub := range g.Publish {
			host := "*"
			if pub.Host.IsValid() {
				host = pub.Host.String()
				if pub.Host.Is6() {
					host = "[" + host + "]"
				}
			}
			row := api.PublishStatus{
				Bridge: b.Name, Container: containerOf(g), Port: p.Name,
				Host: host + ":" + strconv.Itoa(int(pub.Port)) + "/" + pub.Proto, State: api.PortWaiting, Reason: why,
			}
			to := reachable(addrs, pub.Host)
			if len(to) == 0 {
				if row.Reason == "" {
					row.Reason = "the container has no address of that family"
				}
				s.rows, s.forward = append(s.rows, row), append(s.forward, -1)
			}
			for _, a := range to {
				row.To = netip.AddrPortFrom(a, pub.To).String()
				s.rows, s.forward = append(s.rows, row), append(s.forward, len(s.forwards))
				s.forwards = append(s.forwards, nat.Forward{
					Host: pub.Host, Port: pub.Port, Proto: pub.Proto, To: netip.AddrPortFrom(a, pub.To),
					Interface: cmp.Or(hostSide(b, p, a), b.Name),
				})
			}
		}
	}
}

// reachable chooses the container's addresses that a port of the host leads to: one of each
// family that the port has, which is that of host, or both where it names none.
func reachable(addrs []netip.Addr, host netip.Addr) (to []netip.Addr) {
	for _, v4 := range []bool{true, false} {
		if host.IsValid() && host.Is4() != v4 {
			continue
		}
		if i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == v4 }); i >= 0 {
			to = append(to, addrs[i])
		}
	}
	return to
}

// hostSide is the interface of the host in whose subnet a container is, or "".
func hostSide(b *config.Bridge, p config.Port, to netip.Addr) string {
	has := func(o config.Options) bool {
		return slices.ContainsFunc(o.Prefixes("ip"), func(n netip.Prefix) bool { return n.Masked().Contains(to) })
	}
	for _, q := range b.Ports {
		if q.Object() == config.InternalPort && q.Options.VLAN() == p.Options.VLAN() && has(q.Options) {
			return q.Name
		}
	}
	if has(b.Options) {
		return b.Name
	}
	return ""
}

// viewOf is what the name server answers on a bridge.
func (d *Daemon) viewOf(b *config.Bridge) (v dnsnames.View, ok bool) {
	o := b.Options
	if !o.Bool("dns") || !o.IsSet("ip") || !o.IsSet("ipam.subnet") && o.Text("nat") != "masquerade" {
		return v, false
	}
	v.Bridge = b.Name
	for _, a := range o.Prefixes("ip") {
		v.Listen, v.Clients = append(v.Listen, a.Addr()), append(v.Clients, a.Masked())
	}
	for _, p := range b.Ports {
		g, ok := p.Plug()
		if !ok {
			continue
		}
		addrs, known, _ := d.addressesOf(p, g)
		if len(addrs) == 0 {
			continue
		}
		if words := namesOf(g, known); len(words) > 0 {
			v.Records = append(v.Records, dnsnames.Record{Names: words, Addrs: addrs})
		}
	}
	return v, true
}

// namesOf are the names that a plug answers to: the container's own, those that its runtime
// knows, and the document's aliases.
func namesOf(g config.Plug, known []string) (all []string) {
	add := func(name string) {
		if name = strings.ToLower(name); name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	switch g.Container.Kind {
	case config.RuntimeContainer, config.PIDContainer:
	default:
		add(g.Container.Short())
	}
	for _, n := range known {
		add(n)
	}
	for _, n := range g.Aliases {
		add(n)
	}
	return all
}
