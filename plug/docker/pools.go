package docker

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"

	"vswitch/ctl/config"
	"vswitch/plug/held"
)

// The IPAM driver. Its pools are of two kinds, which their IDs tell apart:
//
//	docker/10.1.0.0/16            Docker's own: an item pool/10.1.0.0/16
//	docker/10.1.0.0/16#2          the second that may have those addresses (overlap=true)
//	bridge/br0/4                  a bridge's pool of that family, which plugs lease of, too:
//	bridge/br0/4/10.0.0.128/25    nothing is kept of it, since the bridge says what it is
const (
	ownPool    = leasePrefix
	bridgePool = "bridge/"
)

// pool is what an item pool/ID keeps.
type pool struct {
	Subnet netip.Prefix
	Range  netip.Prefix // within Subnet
	Given  int          // how often it was given and not released
}

func poolOf(i held.Item) (p pool, ok bool) {
	if i.Owner != Owner || !strings.HasPrefix(i.Key, poolKey("")) || json.Unmarshal(i.Data, &p) != nil {
		return pool{}, false
	}
	return p, true
}

// The options of a pool (docker network create --ipam-opt), with what is allowed.
const (
	poolBridge  = "bridge"
	poolMesh    = "mesh"
	poolOverlap = "overlap"
)

type poolRequest struct {
	Pool, SubPool string
	Options       map[string]string
	V6            bool
}

type poolResponse struct {
	PoolID, Pool string
	Data         map[string]string
}

// What libnetwork calls gateways (netlabel.Gateway), in both directions.
const (
	gatewayKey     = "com.docker.network.gateway"
	requestTypeKey = "RequestAddressType"
)

func (d *Driver) requestPool(ctx context.Context, q poolRequest) (poolResponse, error) {
	subnet, err := readSubnet("subnet", q.Pool)
	if err != nil {
		return poolResponse{}, err
	}
	among, err := readSubnet("range", q.SubPool)
	if err != nil {
		return poolResponse{}, err
	}
	back, err := d.mine(ctx)
	if err != nil {
		return poolResponse{}, err
	}
	defer back()
	overlap, bridge := false, ""
	for name, v := range q.Options {
		switch name {
		case poolBridge:
			bridge = v
		case poolMesh:
			var ok bool
			if bridge, ok = d.o.Switch.MeshBridge(v); !ok {
				return poolResponse{}, fmt.Errorf("IPAM option mesh: %q is no mesh of the switch", v)
			}
		case poolOverlap:
			if v != "true" && v != "false" {
				return poolResponse{}, fmt.Errorf("IPAM option overlap: %q is not one; allowed: true, false", v)
			}
			overlap = v == "true"
		default:
			return poolResponse{}, fmt.Errorf("unknown IPAM option %s; allowed: %s, %s, %s", name, poolBridge, poolMesh, poolOverlap)
		}
	}
	if subnet.IsValid() {
		q.V6 = subnet.Addr().Is6()
	}
	if bridge != "" {
		return d.poolOfBridge(bridge, subnet, among, q.V6)
	}
	if !subnet.IsValid() && among.IsValid() {
		return poolResponse{}, fmt.Errorf("range %s needs the subnet that it is of", among)
	}
	return d.newPool(ctx, subnet, among, q.V6, overlap)
}

func readSubnet(what, text string) (netip.Prefix, error) {
	if text == "" {
		return netip.Prefix{}, nil
	}
	p, err := netip.ParsePrefix(text)
	if err != nil || p.Addr().Is4In6() || p.Addr().IsMulticast() || p.Bits() == 0 {
		return netip.Prefix{}, fmt.Errorf("%s %q is not a network that hosts can have", what, text)
	}
	return p.Masked(), nil
}

// poolOfBridge answers with the addresses that a bridge's plugs have.
func (d *Driver) poolOfBridge(name string, subnet, among netip.Prefix, v6 bool) (poolResponse, error) {
	id := bridgePool + name + "/4"
	if v6 {
		id = bridgePool + name + "/6"
	}
	p, err := d.bridgePool(name, v6)
	if err != nil {
		return poolResponse{}, err
	}
	// dockerd asks again and again, for ever, as long as a subnet that its user did not name
	// overlaps with a route of the host, and this one does (libnetwork, requestPoolHelper).
	if !subnet.IsValid() {
		return poolResponse{}, fmt.Errorf("IPAM option bridge: Docker wants the subnet of %s by name: give --subnet %s, too", name, p.Subnet)
	}
	if subnet != p.Subnet {
		return poolResponse{}, fmt.Errorf("subnet %s is not that of bridge %s; allowed: %s", subnet, name, p.Subnet)
	}
	if among.IsValid() {
		if !within(among, p.Subnet) {
			return poolResponse{}, fmt.Errorf("range %s is not part of %s, the subnet of bridge %s", among, p.Subnet, name)
		}
		id += "/" + among.String()
	}
	answer := poolResponse{PoolID: id, Pool: p.Subnet.String(), Data: map[string]string{}}
	if p.Gateway.IsValid() {
		answer.Data[gatewayKey] = netip.PrefixFrom(p.Gateway, p.Subnet.Bits()).String()
	}
	return answer, nil
}

func (d *Driver) bridgePool(name string, v6 bool) (config.Pool, error) {
	b, ok := d.o.Switch.Bridge(name)
	if !ok {
		return config.Pool{}, fmt.Errorf("IPAM option bridge: %q does not exist: vswitchctl add-br %[1]s", name)
	}
	for _, p := range b.Pools() {
		if p.Subnet.Addr().Is6() == v6 {
			return p, nil
		}
	}
	return config.Pool{}, fmt.Errorf("IPAM option bridge: %s has no subnet to take addresses of: vswitchctl set-br %[1]s ipam.subnet=…", name)
}

func within(p, of netip.Prefix) bool {
	return p.Addr().Is4() == of.Addr().Is4() && p.Bits() >= of.Bits() && of.Contains(p.Addr())
}

// newPool makes a pool of Docker's own.
func (d *Driver) newPool(ctx context.Context, subnet, among netip.Prefix, v6, overlap bool) (poolResponse, error) {
	var err error
	if !subnet.IsValid() {
		if subnet, err = d.freeSubnet(v6); err != nil {
			return poolResponse{}, err
		}
	}
	if !among.IsValid() {
		among = subnet
	}
	if !within(among, subnet) {
		return poolResponse{}, fmt.Errorf("range %s is not part of subnet %s", among, subnet)
	}
	p := pool{Subnet: subnet, Range: among, Given: 1}
	taken := map[string]bool{}
	for _, i := range d.o.Switch.Held() {
		o, ok := poolOf(i)
		if !ok {
			continue
		}
		taken[i.Key] = true
		if !o.Subnet.Overlaps(subnet) || overlap {
			continue
		}
		id := ownPool + strings.TrimPrefix(i.Key, poolKey(""))
		if o.Subnet == subnet && o.Range == among && len(d.leases.Leases(id)) == 0 {
			// Given before, and nobody took an address of it: Docker lost the answer, or asks
			// for two networks at once, of which the second will be refused.
			p.Given += o.Given
			return d.keepPool(ctx, strings.TrimPrefix(i.Key, poolKey("")), p)
		}
		return poolResponse{}, fmt.Errorf("subnet %s overlaps with %s, which Docker has already; allowed: another one, or --ipam-opt overlap=true", subnet, o.Subnet)
	}
	id := subnet.String()
	for n := 2; taken[poolKey(id)]; n++ {
		id = fmt.Sprintf("%s#%d", subnet, n)
	}
	if len(d.o.Switch.Held()) >= maxItems {
		return poolResponse{}, fmt.Errorf("Docker has %d networks and endpoints on the switch: that is all there may be", maxItems)
	}
	return d.keepPool(ctx, id, p)
}

func (d *Driver) keepPool(ctx context.Context, id string, p pool) (poolResponse, error) {
	data, err := json.Marshal(p)
	if err != nil {
		return poolResponse{}, err
	}
	if err := d.hold(ctx, []held.Item{{Key: poolKey(id), Data: data}}); err != nil {
		return poolResponse{}, fmt.Errorf("keep pool %s: %w", p.Subnet, err)
	}
	return poolResponse{PoolID: ownPool + id, Pool: p.Subnet.String(), Data: map[string]string{}}, nil
}

// Where a subnet comes from when the user names none: the first /24 of these that neither a
// route or address of this host nor another network of Docker's overlaps. They are not those
// that Docker's own IPAM begins with (172.17.0.0/16 and on).
var defaultRanges = []netip.Prefix{netip.MustParsePrefix("10.208.0.0/12"), netip.MustParsePrefix("192.168.0.0/16")}

const (
	defaultBits4 = 24
	defaultBits6 = 64
	maxTries6    = 16
)

func (d *Driver) freeSubnet(v6 bool) (netip.Prefix, error) {
	used, err := d.wires.routes()
	if err != nil {
		return netip.Prefix{}, fmt.Errorf("look for a free subnet: %w", err)
	}
	for _, i := range d.o.Switch.Held() {
		if n, ok := networkOf(i); ok {
			used = append(used, n.Subnets...)
		}
		if p, ok := poolOf(i); ok {
			used = append(used, p.Subnet)
		}
	}
	free := func(p netip.Prefix) bool { return !slices.ContainsFunc(used, p.Overlaps) }
	if v6 {
		for range maxTries6 { // of 2^56
			a := [16]byte{0: 0xfd} // a unique local address (RFC 4193)
			_, _ = rand.Read(a[1:8])
			if p := netip.PrefixFrom(netip.AddrFrom16(a), defaultBits6); free(p) {
				return p, nil
			}
		}
	}
	for _, all := range defaultRanges {
		if v6 {
			break
		}
		for a := all.Addr(); all.Contains(a); {
			p := netip.PrefixFrom(a, defaultBits4)
			if free(p) {
				return p, nil
			}
			b := a.As4()
			if b[2]++; b[2] == 0 {
				if b[1]++; b[1] == 0 {
					break
				}
			}
			a = netip.AddrFrom4(b)
		}
	}
	return netip.Prefix{}, errors.New("no subnet is free that routes of this host leave: give --subnet")
}

// routes are the networks that this host knows a way to, other than the default routes.
func (kernel) routes() (list []netip.Prefix, err error) {
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list routes: %w", err)
	}
	for _, r := range routes {
		if r.Dst == nil {
			continue
		}
		a, ok := netip.AddrFromSlice(r.Dst.IP)
		bits, _ := r.Dst.Mask.Size()
		if ok && bits > 0 {
			list = append(list, netip.PrefixFrom(a.Unmap(), bits))
		}
	}
	return list, nil
}

type releasePoolRequest struct{ PoolID string }

func (d *Driver) releasePool(ctx context.Context, q releasePoolRequest) (none, error) {
	id, own := strings.CutPrefix(q.PoolID, ownPool)
	if !own {
		return none{}, nil // a bridge's pool stays what it is
	}
	back, err := d.mine(ctx)
	if err != nil {
		return none{}, err
	}
	defer back()
	i, ok := d.find(poolKey(id))
	p, isOne := poolOf(i)
	if !ok || !isOne {
		return none{}, nil
	}
	if p.Given--; p.Given > 0 {
		_, err := d.keepPool(ctx, id, p)
		return none{}, err
	}
	return none{}, d.dropPool(ctx, id)
}

// dropPool forgets a pool of Docker's own. The caller has the turn.
func (d *Driver) dropPool(ctx context.Context, id string) error {
	if err := d.hold(ctx, nil, poolKey(id)); err != nil {
		return fmt.Errorf("forget pool %s: %w", id, err)
	}
	return d.leases.Forget(ownPool + id)
}
