package docker

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	"vswitch/ctl/config"
	"vswitch/plug/held"
)

// network is what an item network/ID keeps.
type network struct {
	ID       string
	Options  map[string]string `json:",omitempty"` // as the user typed them
	Subnets  []netip.Prefix    `json:",omitempty"` // masked; at most one of each family
	Gateways []netip.Addr      `json:",omitempty"` // of the subnets, whoever has them
	Aux      []netip.Addr      `json:",omitempty"` // that Docker keeps from containers
	VLAN     int               `json:",omitempty"` // 0: none
	MTU      int               `json:",omitempty"` // bytes; 0: what the bridge's tunnels carry
	Internal bool              `json:",omitempty"`
	Host     string            `json:",omitempty"` // the interface of this host that has an address in it; "" none does

	// What the collector learns from Docker.
	Name   string            `json:",omitempty"`
	Labels map[string]string `json:",omitempty"`
}

// networkOf reads an item.
func networkOf(i held.Item) (n network, ok bool) {
	if i.Owner != Owner || !strings.HasPrefix(i.Key, networkKey("")) || json.Unmarshal(i.Data, &n) != nil {
		return network{}, false
	}
	return n, true
}

// same says whether both were asked for alike.
func (n network) same(o network) bool {
	return n.ID == o.ID && maps.Equal(n.Options, o.Options) && slices.Equal(n.Subnets, o.Subnets) && slices.Equal(n.Gateways, o.Gateways) &&
		slices.Equal(n.Aux, o.Aux) && n.Internal == o.Internal
}

// createNetworkRequest is NetworkDriver.CreateNetwork's (libnetwork, docs/remote.md).
type createNetworkRequest struct {
	NetworkID          string
	Options            map[string]json.RawMessage
	IPv4Data, IPv6Data []ipamData
}

type ipamData struct {
	Pool         string            // 10.1.0.0/16
	Gateway      string            // 10.1.0.1/16
	AuxAddresses map[string]string // 10.1.0.5/16 by a name
}

type networkRequest struct{ NetworkID string }

// Docker's own keys in a network's options.
const (
	genericKey  = "com.docker.network.generic"
	internalKey = "com.docker.network.internal"
)

// The options of a network, by the names that users type.
const (
	bridgeOption  = "bridge"
	vlanOption    = "vlan"
	meshOption    = "mesh"
	mtuOption     = "mtu"
	natOption     = "nat"
	gatewayOption = "gateway"
	dockerName    = "com.docker.network.bridge.name"
	dockerMTU     = "com.docker.network.driver.mtu"
)

// options are a network's, by name, with what is allowed.
var options = map[string]string{
	bridgeOption:  "the name of a bridge of the switch",
	vlanOption:    "1 to 4094",
	meshOption:    "the name of a mesh of the switch",
	mtuOption:     "68 to 65535",
	natOption:     "masquerade or none",
	gatewayOption: "switch or lan",
	dockerName:    "the name of an interface that is to be made, at most 15 bytes",
	dockerMTU:     "68 to 65535",
}

// refused names an option, its value and what is allowed.
func refused(option, value, why string) error {
	return fmt.Errorf("option %s: %q %s; allowed: %s", option, value, why, options[option])
}

// canonical reads an option's value as a document's option of that object would.
func canonical(option, value string, object config.Object, name string) (string, error) {
	o, err := config.Lookup(object, name)
	if err != nil {
		return "", err
	}
	text, err := o.Canonical(value)
	if err != nil {
		return "", refused(option, value, "is not one")
	}
	return text, nil
}

func checkID(what, id string) error {
	ok := id != "" && len(id) <= maxID
	for _, r := range id {
		ok = ok && (r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z')
	}
	if !ok {
		return fmt.Errorf("%q is not the ID of %s", id, what)
	}
	return nil
}

// interfaceOf is the name of the interface that is made for a network: twelve digits, as
// Docker shows its IDs.
func interfaceOf(id string) string { return "vs-" + id[:min(len(id), 12)] }

// read reads what is asked for, without regard to what there is.
func (q *createNetworkRequest) read() (network, error) {
	n := network{ID: q.NetworkID}
	if err := checkID("a network", q.NetworkID); err != nil {
		return n, err
	}
	if text, ok := q.Options[genericKey]; ok {
		if err := json.Unmarshal(text, &n.Options); err != nil {
			return n, fmt.Errorf("the network's options are not words: %w", err)
		}
	}
	if text, ok := q.Options[internalKey]; ok {
		if err := json.Unmarshal(text, &n.Internal); err != nil {
			return n, fmt.Errorf("%s: %w", internalKey, err)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(n.Options)) {
		if _, ok := options[name]; !ok {
			return n, fmt.Errorf("unknown option %s of a network; allowed: %s", name, strings.Join(slices.Sorted(maps.Keys(options)), ", "))
		}
		if n.Options[name] == "" {
			return n, refused(name, "", "is no value")
		}
	}
	for _, family := range []struct {
		data []ipamData
		v4   bool
	}{{q.IPv4Data, true}, {q.IPv6Data, false}} {
		for _, data := range family.data {
			if err := n.subnet(data, family.v4); err != nil {
				return n, err
			}
		}
	}
	return n, nil
}

// subnet adds what Docker says of one pool.
func (n *network) subnet(data ipamData, v4 bool) error {
	p, err := netip.ParsePrefix(data.Pool)
	if err != nil || p.Addr().Is4() != v4 || p.Addr().Is4In6() {
		return fmt.Errorf("%q is not a subnet of the family it is given for", data.Pool)
	}
	if p.Bits() == 0 {
		return nil // the null IPAM driver: containers have no addresses
	}
	p = p.Masked()
	if slices.ContainsFunc(n.Subnets, func(o netip.Prefix) bool { return o.Addr().Is4() == v4 }) {
		return fmt.Errorf("subnet %s is the second of its family: a network has one of each", p)
	}
	n.Subnets = append(n.Subnets, p)
	within := func(what, text string) (netip.Addr, error) {
		a, err := netip.ParsePrefix(text)
		if err != nil {
			var addr netip.Addr
			addr, err = netip.ParseAddr(text)
			a = netip.PrefixFrom(addr, p.Bits())
		}
		if err != nil || !p.Contains(a.Addr()) {
			return netip.Addr{}, fmt.Errorf("%s %q is not an address of %s", what, text, p)
		}
		return a.Addr(), nil
	}
	if data.Gateway != "" {
		a, err := within("gateway", data.Gateway)
		if err != nil {
			return err
		}
		n.Gateways = append(n.Gateways, a)
	}
	for _, name := range slices.Sorted(maps.Keys(data.AuxAddresses)) {
		a, err := within("address "+name, data.AuxAddresses[name])
		if err != nil {
			return err
		}
		n.Aux = append(n.Aux, a)
	}
	return nil
}

// addresses are the gateways with their prefix lengths, as options of an interface say them.
func (n *network) addresses() string {
	var list []string
	for _, a := range n.Gateways {
		list = append(list, netip.PrefixFrom(a, n.bits(a)).String())
	}
	return strings.Join(list, ",")
}

// bits is the prefix length of the subnet that an address is in.
func (n *network) bits(a netip.Addr) int {
	for _, p := range n.Subnets {
		if p.Contains(a) {
			return p.Bits()
		}
	}
	return a.BitLen()
}

// item is how a network is held: with a bridge that is made for it, or with an internal port
// of one that there is as its gateway.
func (d *Driver) item(n *network) (held.Item, error) {
	i := held.Item{Key: networkKey(n.ID)}
	o := n.Options
	if err := n.numbers(); err != nil {
		return i, err
	}
	nat := "masquerade"
	if n.Internal {
		nat = "none"
	}
	if v, ok := o[natOption]; ok {
		if v != "masquerade" && v != "none" {
			return i, refused(natOption, v, "is not one")
		}
		if n.Internal && v == "masquerade" {
			return i, refused(natOption, v, "contradicts --internal")
		}
		nat = v
	}
	if v, ok := o[gatewayOption]; ok && v != "switch" && v != "lan" {
		return i, refused(gatewayOption, v, "is not one")
	}
	bridge, given := o[bridgeOption]
	if mesh, ok := o[meshOption]; ok {
		if given {
			return i, refused(meshOption, mesh, "is one of two: give a bridge or a mesh")
		}
		if bridge, given = d.o.Switch.MeshBridge(mesh); !given {
			return i, refused(meshOption, mesh, "is no mesh of the switch (vswitchctl mesh)")
		}
	}
	if given {
		return d.onBridge(i, n, bridge, nat)
	}
	return d.ownBridge(i, n, nat)
}

// numbers reads the VLAN and the MTU.
func (n *network) numbers() error {
	if v, ok := n.Options[vlanOption]; ok {
		text, err := canonical(vlanOption, v, config.PlugPort, "tag")
		if err != nil || text == "0" {
			return refused(vlanOption, v, "is not a VLAN")
		}
		n.VLAN = config.Options{"tag": text}.Int("tag")
	}
	for _, name := range []string{dockerMTU, mtuOption} {
		if v, ok := n.Options[name]; ok {
			text, err := canonical(name, v, config.PlugPort, "mtu")
			if err != nil {
				return err
			}
			n.MTU = config.Options{"mtu": text}.Int("mtu")
		}
	}
	return nil
}

// ownBridge makes a bridge for a network.
func (d *Driver) ownBridge(i held.Item, n *network, nat string) (held.Item, error) {
	for _, name := range []string{vlanOption, gatewayOption} {
		if v, ok := n.Options[name]; ok {
			return i, refused(name, v, "needs the bridge of the switch that it is meant for: give bridge or mesh, too")
		}
	}
	i.Bridge, i.Makes, i.Options = interfaceOf(n.ID), true, config.Options{}
	if name, ok := n.Options[dockerName]; ok {
		if _, err := canonical(dockerName, name, config.PlugPort, "ifname"); err != nil {
			return i, err
		}
		i.Bridge = name
	}
	if _, taken := d.o.Switch.Bridge(i.Bridge); taken && !d.holds(i.Key, i.Bridge) {
		return i, refused(dockerName, i.Bridge, "is a bridge of the switch already: give bridge="+i.Bridge+" to use it")
	}
	if d.wires.foreign(i.Bridge, d.o.Switch.Alias(i.Bridge)) { // which the network's rules would be for
		return i, refused(dockerName, i.Bridge, "is an interface of this host already")
	}
	if n.MTU > 0 {
		i.Options["mtu"] = fmt.Sprint(n.MTU)
	}
	if len(n.Gateways) > 0 {
		i.Options["ip"], n.Host = n.addresses(), i.Bridge
		if nat != "none" {
			i.Options["nat"] = nat
		}
	}
	return i, canonicalise(i.Options, config.BridgeObject)
}

// holds says whether the item of a key made a bridge.
func (d *Driver) holds(key, bridge string) bool {
	i, ok := d.find(key)
	return ok && i.Makes && i.Bridge == bridge
}

func canonicalise(o config.Options, object config.Object) error {
	for name, value := range o {
		row, err := config.Lookup(object, name)
		if err != nil {
			return err
		}
		if o[name], err = row.Canonical(value); err != nil {
			return err
		}
	}
	return nil
}

// onBridge puts a network on a bridge that there is.
func (d *Driver) onBridge(i held.Item, n *network, name, nat string) (held.Item, error) {
	i.Bridge = name
	if v, ok := n.Options[dockerName]; ok {
		return i, refused(dockerName, v, "is for a bridge that is made, and this network is on "+name)
	}
	b, ok := d.o.Switch.Bridge(name)
	if !ok {
		return i, refused(bridgeOption, name, "does not exist: vswitchctl add-br "+name)
	}
	lan := n.Options[gatewayOption] == "lan"
	if n.VLAN == 0 || fmt.Sprint(n.VLAN) == b.Options["tag"] {
		if err := n.fits(&b, lan); err != nil {
			return i, err
		}
		if v, ok := n.Options[natOption]; ok && v != b.Options.Text("nat") {
			return i, refused(natOption, v, fmt.Sprintf("is not what bridge %s has: vswitchctl set-br %[1]s nat=%s", name, v))
		}
		return i, nil
	}
	// A VLAN of its own: an internal port is its gateway, the operator's or ours.
	for _, p := range b.Ports {
		if p.Object() == config.InternalPort && p.Name != interfaceOf(n.ID) && p.Options["tag"] == fmt.Sprint(n.VLAN) &&
			slices.ContainsFunc(p.Options.Prefixes("ip"), func(a netip.Prefix) bool { return slices.Contains(n.Gateways, a.Addr()) }) {
			n.Host = p.Name
			return i, nil
		}
	}
	if lan || len(n.Gateways) == 0 {
		return i, nil
	}
	n.Host = interfaceOf(n.ID)
	p := config.Port{Name: n.Host, Type: string(config.InternalPort), Options: config.Options{"tag": fmt.Sprint(n.VLAN), "ip": n.addresses()}}
	if nat != "none" {
		p.Options["nat"] = nat
	}
	if n.MTU > 0 {
		p.Options["mtu"] = fmt.Sprint(n.MTU)
	}
	i.Ports = []config.Port{p}
	return i, canonicalise(p.Options, config.InternalPort)
}

// fits says whether a network may be in a bridge's own VLAN, whose addresses are the
// operator's. Where he says nothing of addresses, the gateway is somebody on the LAN.
func (n *network) fits(b *config.Bridge, lan bool) error {
	for _, pool := range b.Pools() {
		i := slices.IndexFunc(n.Subnets, func(p netip.Prefix) bool { return p.Addr().Is4() == pool.Subnet.Addr().Is4() })
		if i < 0 {
			continue
		}
		if n.Subnets[i] != pool.Subnet {
			return fmt.Errorf("subnet %s is not that of bridge %s: allowed: --subnet %s", n.Subnets[i], b.Name, pool.Subnet)
		}
		for _, a := range n.Gateways {
			if pool.Gateway.IsValid() && pool.Subnet.Contains(a) && a != pool.Gateway && !lan {
				return fmt.Errorf("gateway %s is not that of bridge %s: allowed: --gateway %s", a, b.Name, pool.Gateway)
			}
		}
		if slices.ContainsFunc(pool.Own, pool.Subnet.Contains) {
			if n.Internal {
				return fmt.Errorf("an internal network cannot be where bridge %s is the gateway of others: allowed: -o vlan= with a VLAN of its own, or another bridge", b.Name)
			}
			n.Host = b.Name
		}
	}
	return nil
}

// overlaps finds a network that n cannot be beside: one with the same addresses in the same
// VLAN of a bridge, or one that this host could not tell from it, since it has an address in both.
func (d *Driver) overlaps(n *network, i held.Item) error {
	for _, other := range d.o.Switch.Held() {
		o, ok := networkOf(other)
		if !ok || o.ID == n.ID {
			continue
		}
		if (other.Bridge != i.Bridge || o.VLAN != n.VLAN) && (n.Host == "" || o.Host == "") {
			continue
		}
		for _, p := range n.Subnets {
			for _, q := range o.Subnets {
				if p.Overlaps(q) {
					return fmt.Errorf("subnet %s overlaps with %s of Docker's network %s", p, q, cmp.Or(o.Name, o.ID[:min(len(o.ID), 12)]))
				}
			}
		}
	}
	return nil
}

func (d *Driver) createNetwork(ctx context.Context, q createNetworkRequest) (none, error) {
	back, err := d.mine(ctx)
	if err != nil {
		return none{}, err
	}
	defer back()
	n, err := q.read()
	if err != nil {
		return none{}, err
	}
	if old, ok := d.find(networkKey(n.ID)); ok {
		if o, ok := networkOf(old); ok && o.same(n) {
			return none{}, nil
		}
		return none{}, fmt.Errorf("network %s exists, and was asked for otherwise", n.ID)
	}
	i, err := d.item(&n)
	if err != nil {
		return none{}, err
	}
	if err := d.overlaps(&n, i); err != nil {
		return none{}, err
	}
	if len(d.o.Switch.Held()) >= maxItems {
		return none{}, fmt.Errorf("Docker has %d networks and endpoints on the switch: that is all there may be", maxItems)
	}
	if i.Data, err = json.Marshal(n); err != nil {
		return none{}, err
	}
	if err := d.hold(ctx, []held.Item{i}); err != nil {
		return none{}, fmt.Errorf("make network %s: %w", n.ID, err)
	}
	return none{}, nil
}

func (d *Driver) deleteNetwork(ctx context.Context, q networkRequest) (none, error) {
	back, err := d.mine(ctx)
	if err != nil {
		return none{}, err
	}
	defer back()
	return none{}, d.dropNetwork(ctx, q.NetworkID)
}

// dropNetwork takes away a network and the endpoints that are still in it. The caller has
// the turn.
func (d *Driver) dropNetwork(ctx context.Context, id string) error {
	if _, ok := d.find(networkKey(id)); !ok {
		return nil
	}
	del := []string{networkKey(id)}
	for _, i := range d.o.Switch.Held() {
		if e, ok := endpointOf(i); ok && e.Network == id {
			if err := d.unwire(i); err != nil {
				return err
			}
			if err := d.freeAddresses(i, e); err != nil {
				return err
			}
			del = append(del, i.Key)
		}
	}
	if err := d.hold(ctx, nil, del...); err != nil {
		return fmt.Errorf("remove network %s: %w", id, err)
	}
	return nil
}
