package docker

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vswitch/ctl/config"
	"vswitch/plug/held"
)

// endpoint is what an item endpoint/ID keeps, beside its port.
type endpoint struct {
	ID        string
	Network   string
	Addresses []netip.Prefix `json:",omitempty"`
	MAC       string
	Given     bool      `json:",omitempty"` // the MAC is Docker's choice
	Asked     []binding `json:",omitempty"` // the ports of the host that Docker asked for

	// What the collector learns from Docker.
	Container string `json:",omitempty"` // name
}

func endpointOf(i held.Item) (e endpoint, ok bool) {
	if i.Owner != Owner || !strings.HasPrefix(i.Key, endpointKey("")) || len(i.Ports) != 1 || json.Unmarshal(i.Data, &e) != nil {
		return endpoint{}, false
	}
	return e, true
}

type createEndpointRequest struct {
	NetworkID, EndpointID string
	Interface             *struct {
		Address, AddressIPv6 string // 10.1.0.5/16
		MacAddress           string
	}
}

type createEndpointResponse struct{ Interface *endpointInterface }

// endpointInterface is what Docker left to the driver, and nothing else: it refuses an
// answer that repeats what it said itself.
type endpointInterface struct{ MacAddress string }

type endpointRequest struct{ NetworkID, EndpointID string }

// read reads what is asked for.
func (q *createEndpointRequest) read() (endpoint, error) {
	e := endpoint{ID: q.EndpointID, Network: q.NetworkID}
	if err := checkID("an endpoint", q.EndpointID); err != nil {
		return e, err
	}
	if err := checkID("a network", q.NetworkID); err != nil {
		return e, err
	}
	if q.Interface == nil {
		return e, nil
	}
	for _, text := range []string{q.Interface.Address, q.Interface.AddressIPv6} {
		if text == "" {
			continue
		}
		p, err := netip.ParsePrefix(text)
		if err != nil || p.Addr().Is4In6() {
			return e, fmt.Errorf("%q is not an address with a prefix length", text)
		}
		e.Addresses = append(e.Addresses, p)
	}
	if text := q.Interface.MacAddress; text != "" {
		mac, err := net.ParseMAC(text)
		if err != nil || len(mac) != 6 || mac[0]&1 != 0 {
			return e, fmt.Errorf("%q is not the MAC address of an interface", text)
		}
		e.MAC, e.Given = mac.String(), true
	}
	return e, nil
}

// macOf is the MAC address of an endpoint that Docker has none for: 02:42 and the IPv4
// address, as in Docker's own networks. An address that is given again after a restart then
// has the same, and what neighbours have in their ARP tables stays right.
func (e *endpoint) macOf() string {
	mac := net.HardwareAddr{0x02, 0x42, 0, 0, 0, 0}
	sum := sha256.Sum256([]byte(e.ID))
	copy(mac[2:], sum[:])
	for _, p := range e.Addresses {
		a := p.Addr().As16()
		copy(mac[2:], a[12:])
		if p.Addr().Is4() {
			break
		}
		sum = sha256.Sum256(a[:]) // the last bytes alone are alike in too many networks
		copy(mac[2:], sum[:])
	}
	return mac.String()
}

// portOf is the name of an endpoint's port.
func portOf(id string) string {
	return config.PlugName(config.ContainerRef{Kind: config.RuntimeContainer, Name: id}, "eth")
}

// port is the endpoint's port on its network's bridge.
func (e *endpoint) port(n *network) config.Port {
	o := config.Options{"container": config.RuntimeContainer + ":" + e.ID, "mac": e.MAC}
	var ips []string
	for _, a := range e.Addresses {
		ips = append(ips, a.String())
	}
	if len(ips) > 0 {
		o["ip"] = strings.Join(ips, ",")
	}
	if n.VLAN > 0 {
		o["tag"] = fmt.Sprint(n.VLAN)
	}
	if n.MTU > 0 {
		o["mtu"] = fmt.Sprint(n.MTU)
	}
	return config.Port{Name: portOf(e.ID), Type: string(config.PlugPort), Options: o}
}

func (d *Driver) createEndpoint(ctx context.Context, q createEndpointRequest) (createEndpointResponse, error) {
	e, err := q.read()
	if err != nil {
		return createEndpointResponse{}, err
	}
	back, err := d.mine(ctx)
	if err != nil {
		return createEndpointResponse{}, err
	}
	defer back()
	if e.MAC == "" {
		e.MAC = e.macOf()
	}
	answer := createEndpointResponse{}
	if !e.Given {
		answer.Interface = &endpointInterface{MacAddress: e.MAC}
	}
	on, ok := d.find(networkKey(e.Network))
	n, isOne := networkOf(on)
	if !ok || !isOne {
		return createEndpointResponse{}, fmt.Errorf("network %s is not known to the switch: remove it and create it again", e.Network)
	}
	if old, ok := d.find(endpointKey(e.ID)); ok {
		o, _ := endpointOf(old)
		if o.Network == e.Network && slices.Equal(o.Addresses, e.Addresses) && o.MAC == e.MAC {
			return answer, nil
		}
		return createEndpointResponse{}, fmt.Errorf("endpoint %s exists, and was asked for otherwise", e.ID)
	}
	if err := d.addEndpoint(ctx, &e, &n, on.Bridge); err != nil {
		return createEndpointResponse{}, fmt.Errorf("make endpoint %s: %w", e.ID, err)
	}
	return answer, nil
}

// addEndpoint holds a new endpoint. The caller has the turn.
func (d *Driver) addEndpoint(ctx context.Context, e *endpoint, n *network, bridge string) error {
	for _, a := range e.Addresses {
		if len(n.Subnets) > 0 && !slices.ContainsFunc(n.Subnets, func(p netip.Prefix) bool { return p.Contains(a.Addr()) }) {
			return fmt.Errorf("address %s is in no subnet of the network", a)
		}
	}
	i := held.Item{Key: endpointKey(e.ID), Bridge: bridge, Ports: []config.Port{e.port(n)}}
	if err := canonicalise(i.Ports[0].Options, config.PlugPort); err != nil {
		return err
	}
	stale, err := d.displaced(e)
	if err != nil {
		return err
	}
	if err := d.takeAddresses(i, e, n); err != nil {
		return err
	}
	if i.Data, err = json.Marshal(e); err != nil {
		return err
	}
	if len(d.o.Switch.Held()) >= maxItems {
		return fmt.Errorf("Docker has %d networks and endpoints on the switch: that is all there may be", maxItems)
	}
	if err := d.hold(ctx, []held.Item{i}, stale...); err != nil {
		_ = d.freeAddresses(i, *e) // the reason is err
		return err
	}
	return nil
}

// displaced takes the wires of endpoints that Docker has forgotten: it gives an address of a
// network to one endpoint at a time. It happens when dockerd cleaned up after a crash while
// the switch was away.
func (d *Driver) displaced(e *endpoint) (keys []string, err error) {
	for _, i := range d.o.Switch.Held() {
		o, ok := endpointOf(i)
		if !ok || o.Network != e.Network || !slices.ContainsFunc(o.Addresses, func(a netip.Prefix) bool { return slices.Contains(e.Addresses, a) }) {
			continue
		}
		if err := d.unwire(i); err != nil {
			return nil, err
		}
		d.o.Log.Info("Docker gave the address of an endpoint to another: the first is gone", "endpoint", o.ID, "container", o.Container)
		keys = append(keys, i.Key)
	}
	return keys, nil
}

// endpointLease is the owner of an endpoint's addresses in a pool of the operator's.
func endpointLease(id string) string { return leasePrefix + "endpoint/" + id }

// takeAddresses makes sure that nobody else on an operator's bridge has the endpoint's
// addresses: neither a plug whose address is written down, nor one that got it of the pool.
func (d *Driver) takeAddresses(i held.Item, e *endpoint, n *network) error {
	b, ok := d.o.Switch.Bridge(i.Bridge)
	if !ok {
		return fmt.Errorf("bridge %s, which the network is on, does not exist", i.Bridge)
	}
	for _, p := range b.Ports {
		g, ok := p.Plug()
		if !ok || g.Container.Kind == config.RuntimeContainer || p.Options.VLAN() != i.Ports[0].Options.VLAN() {
			continue
		}
		for _, a := range e.Addresses {
			if slices.ContainsFunc(g.Addresses, func(o netip.Prefix) bool { return o.Addr() == a.Addr() }) {
				return fmt.Errorf("address %s is taken by %s on %s", a.Addr(), g.Container, b.Name)
			}
		}
	}
	if d.holds(networkKey(n.ID), b.Name) || i.Ports[0].Options.VLAN() != b.Options.VLAN() {
		return nil // nobody else leases there
	}
	for _, a := range e.Addresses {
		if !slices.ContainsFunc(b.Pools(), func(p config.Pool) bool { return p.Subnet.Contains(a.Addr()) }) || d.leasedToDocker(b.Name, a.Addr()) {
			continue
		}
		if err := d.leases.Reserve(b.Name, a.Addr(), endpointLease(e.ID)); err != nil {
			_ = d.freeAddresses(i, *e) // the reason is err
			return err
		}
	}
	return nil
}

// leasedToDocker says whether Docker got an address by way of the IPAM driver.
func (d *Driver) leasedToDocker(pool string, a netip.Addr) bool {
	for _, l := range d.leases.Leases(pool) {
		if l.Addr == a {
			return OwnsLease(l.Owner)
		}
	}
	return false
}

// freeAddresses is takeAddresses undone.
func (d *Driver) freeAddresses(i held.Item, e endpoint) error {
	if len(e.Addresses) == 0 {
		return nil
	}
	for _, l := range d.leases.Leases(i.Bridge) {
		if l.Owner != endpointLease(e.ID) {
			continue
		}
		if err := d.leases.ReleaseAddr(i.Bridge, l.Addr); err != nil {
			return err
		}
	}
	return nil
}

type endpointInfoResponse struct{ Value map[string]any }

// endpointInfo is EndpointOperInfo. dockerd 20.10 shows none of it to users: it looks for
// values of its own Go types, which no remote driver can send.
func (d *Driver) endpointInfo(_ context.Context, q endpointRequest) (endpointInfoResponse, error) {
	i, ok := d.find(endpointKey(q.EndpointID))
	if !ok {
		return endpointInfoResponse{Value: map[string]any{}}, nil
	}
	v := map[string]any{"bridge": i.Bridge, "port": i.Ports[0].Name}
	for _, name := range []string{"ip", "mac", "tag", "mtu", "publish"} {
		if text := i.Ports[0].Options[name]; text != "" {
			v[name] = text
		}
	}
	return endpointInfoResponse{Value: v}, nil
}

func (d *Driver) deleteEndpoint(ctx context.Context, q endpointRequest) (none, error) {
	back, err := d.mine(ctx)
	if err != nil {
		return none{}, err
	}
	defer back()
	return none{}, d.dropEndpoint(ctx, q.EndpointID)
}

// dropEndpoint takes away an endpoint and what there is of it. The caller has the turn.
func (d *Driver) dropEndpoint(ctx context.Context, id string) error {
	i, ok := d.find(endpointKey(id))
	if !ok {
		return nil
	}
	if err := d.unwire(i); err != nil {
		return err
	}
	if err := d.hold(ctx, nil, i.Key); err != nil {
		return fmt.Errorf("remove endpoint %s: %w", id, err)
	}
	// Its address is free when nobody can use it any more.
	e, _ := endpointOf(i)
	return d.freeAddresses(i, e)
}

type joinRequest struct{ NetworkID, EndpointID, SandboxKey string }

type joinResponse struct {
	InterfaceName         interfaceName
	Gateway, GatewayIPv6  string `json:",omitempty"`
	DisableGatewayService bool   // else Docker adds an interface in its docker_gwbridge
}

// interfaceName says which interface Docker moves, and how it is called in the container:
// the prefix and the first number that is free.
type interfaceName struct{ SrcName, DstPrefix string }

func (d *Driver) join(ctx context.Context, q joinRequest) (joinResponse, error) {
	back, err := d.mine(ctx)
	if err != nil {
		return joinResponse{}, err
	}
	defer back()
	i, ok := d.find(endpointKey(q.EndpointID))
	e, isOne := endpointOf(i)
	if !ok || !isOne {
		return joinResponse{}, fmt.Errorf("endpoint %s is not known to the switch", q.EndpointID)
	}
	on, ok := d.find(networkKey(e.Network))
	n, isOne := networkOf(on)
	if !ok || !isOne {
		return joinResponse{}, fmt.Errorf("network %s is not known to the switch", e.Network)
	}
	p := i.Ports[0]
	w := wire{Host: p.Name, Peer: peerOf(e.ID), Alias: d.o.Switch.Alias(p.Name), MAC: p.Options.MAC("mac"), MTU: n.MTU}
	if w.MTU == 0 {
		w.MTU = d.o.Switch.MTU(i.Bridge, n.VLAN > 0)
	}
	if err := d.wires.make(w); err != nil {
		return joinResponse{}, fmt.Errorf("join endpoint %s: %w", e.ID, err)
	}
	answer := joinResponse{InterfaceName: interfaceName{SrcName: w.Peer, DstPrefix: "eth"}, DisableGatewayService: true}
	if n.Internal {
		return answer, nil
	}
	for _, a := range n.Gateways {
		if !slices.ContainsFunc(e.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() == a.Is4() }) {
			continue // no address of that family, no way out by it
		}
		if a.Is4() {
			answer.Gateway = a.String()
		} else {
			answer.GatewayIPv6 = a.String()
		}
	}
	return answer, nil
}

func (d *Driver) leave(ctx context.Context, q endpointRequest) (none, error) {
	back, err := d.mine(ctx)
	if err != nil {
		return none{}, err
	}
	defer back()
	if i, ok := d.find(endpointKey(q.EndpointID)); ok {
		return none{}, d.unwire(i)
	}
	return none{}, nil
}

// unwire removes an endpoint's pair.
func (d *Driver) unwire(i held.Item) error {
	name := i.Ports[0].Name
	return d.wires.remove(name, d.o.Switch.Alias(name))
}

// wired says whether the host's end of an endpoint's pair is there, or may still come: it
// goes with the container's namespace.
func (d *Driver) wired(i held.Item) bool {
	return time.Since(i.Since) < young || d.wires.there(i.Ports[0].Name)
}

// young is how long Docker may take from the first call for an endpoint to its Join.
const young = 10 * time.Second
