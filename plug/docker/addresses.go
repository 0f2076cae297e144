package docker

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vswitch/ctl/config"
	"vswitch/plug/held"
	"vswitch/plug/ipam"
)

// The addresses of the IPAM driver's pools: a gateway, one that the user names, or any.

type addressRequest struct {
	PoolID, Address string
	Options         map[string]string
}

type addressResponse struct {
	Address string // with a prefix length
	Data    map[string]string
}

// resolve finds the pool of an ID.
func (d *Driver) resolve(id string) (ipam.Pool, error) {
	if key, ok := strings.CutPrefix(id, ownPool); ok {
		i, ok := d.find(poolKey(key))
		p, isOne := poolOf(i)
		if !ok || !isOne {
			return ipam.Pool{}, fmt.Errorf("pool %s is not known", id)
		}
		return ipam.Pool{Name: id, Pool: config.Pool{Subnet: p.Subnet, Range: p.Range}}, nil
	}
	rest, ok := strings.CutPrefix(id, bridgePool)
	words := strings.SplitN(rest, "/", 3)
	if !ok || len(words) < 2 || words[1] != "4" && words[1] != "6" {
		return ipam.Pool{}, fmt.Errorf("pool %q is not one of the switch", id)
	}
	p, err := d.bridgePool(words[0], words[1] == "6")
	if err != nil {
		return ipam.Pool{}, err
	}
	if len(words) == 3 {
		r, err := readSubnet("range", words[2])
		if err != nil || !within(r, p.Subnet) {
			return ipam.Pool{}, fmt.Errorf("pool %s: the range is not part of %s any more", id, p.Subnet)
		}
		p.Range = r
	}
	return ipam.Pool{Name: words[0], Pool: p}, nil
}

func (d *Driver) requestAddress(ctx context.Context, q addressRequest) (addressResponse, error) {
	back, err := d.mine(ctx)
	if err != nil {
		return addressResponse{}, err
	}
	defer back()
	p, err := d.resolve(q.PoolID)
	if err != nil {
		return addressResponse{}, err
	}
	var want netip.Addr
	if q.Address != "" {
		if want, err = readAddress(q.Address); err != nil {
			return addressResponse{}, err
		}
		if !usable(want, p.Subnet) {
			return addressResponse{}, fmt.Errorf("address %s is not one that a host of %s can have", want, p.Subnet)
		}
	}
	switch {
	case q.Options[requestTypeKey] == gatewayKey:
		want, err = d.gateway(p, want)
	case want.IsValid():
		err = d.given(p, want)
	default:
		want, err = d.leases.Lease(p, uniqueOwner(), d.written(p))
	}
	if err != nil {
		return addressResponse{}, err
	}
	return addressResponse{Address: netip.PrefixFrom(want, p.Subnet.Bits()).String(), Data: map[string]string{}}, nil
}

// readAddress reads an address as Docker writes it, with or without a prefix length.
func readAddress(text string) (netip.Addr, error) {
	bare, _, _ := strings.Cut(text, "/")
	a, err := netip.ParseAddr(bare)
	if err != nil || a.Zone() != "" {
		return netip.Addr{}, fmt.Errorf("%q is not an address", text)
	}
	return a.Unmap(), nil
}

// usable says whether a host may have an address: the network's own and the broadcast
// address of IPv4 are nobody's, unless there are no others (RFC 3021).
func usable(a netip.Addr, subnet netip.Prefix) bool {
	if !subnet.Contains(a) {
		return false
	}
	if subnet.Bits() >= a.BitLen()-1 {
		return true
	}
	return a != subnet.Addr() && (a.Is6() || subnet.Contains(a.Next()))
}

// uniqueOwner is a new owner for an address: Docker does not say who it is for.
func uniqueOwner() string {
	var b [8]byte
	_, _ = rand.Read(b[:])
	return leasePrefix + hex.EncodeToString(b[:])
}

// gatewayOwner has the gateways of a pool.
func gatewayOwner(pool string) string { return leasePrefix + "gateway/" + pool }

// gateway gives the address of a pool's gateway: what the bridge says, what the user says, or
// the first one of the range, since hosts that share a subnet over a mesh have a range each.
func (d *Driver) gateway(p ipam.Pool, want netip.Addr) (netip.Addr, error) {
	if !want.IsValid() && p.Gateway.IsValid() || want.IsValid() && (want == p.Gateway || slices.Contains(p.Own, want)) {
		if !want.IsValid() {
			want = p.Gateway
		}
		return want, nil // the operator's: nobody leases it
	}
	owner := gatewayOwner(p.Name)
	if want.IsValid() {
		return want, d.leases.Reserve(p.Name, want, owner)
	}
	if first := p.Range.Addr().Next(); usable(first, p.Subnet) && p.Range.Contains(first) {
		err := d.leases.Reserve(p.Name, first, owner)
		if !errors.Is(err, ipam.ErrTaken) {
			return first, err
		}
	}
	return d.leases.Lease(p, owner, d.written(p))
}

// given gives the very address that Docker asks for. One that Docker has, and that nothing
// of it uses, is given again: its release was lost while the switch was away, or Docker never
// heard that it was given, since the switch was killed before it said so. Who uses the pool of
// another driver's network, such as macvlan's, is not known here.
func (d *Driver) given(p ipam.Pool, want netip.Addr) error {
	if d.written(p)(want) || want == p.Gateway || slices.Contains(p.Own, want) {
		return fmt.Errorf("address %s of %s is taken", want, p.Subnet)
	}
	err := d.leases.Reserve(p.Name, want, uniqueOwner())
	if !errors.Is(err, ipam.ErrTaken) {
		return err
	}
	for _, l := range d.leases.Leases(p.Name) {
		past := l.Since.Before(d.born) || time.Since(l.Since) > young
		if l.Addr == want && OwnsLease(l.Owner) && l.Owner != gatewayOwner(p.Name) && past && d.drives(p) && !d.uses(p, want) {
			if err := d.leases.ReleaseAddr(p.Name, want); err != nil {
				return err
			}
			return d.leases.Reserve(p.Name, want, uniqueOwner()) // from now on: it is given once
		}
	}
	return err
}

// drives says whether a pool's addresses are those of a network of this driver's.
func (d *Driver) drives(p ipam.Pool) bool {
	return slices.ContainsFunc(d.o.Switch.Held(), func(i held.Item) bool {
		n, ok := networkOf(i)
		return ok && slices.Contains(n.Subnets, p.Subnet)
	})
}

// written says which addresses of a pool are somebody's without a lease: those written down
// for plugs of its bridge, and those that networks keep for themselves.
func (d *Driver) written(p ipam.Pool) func(netip.Addr) bool {
	taken := map[netip.Addr]bool{}
	for _, i := range d.o.Switch.Held() {
		if n, ok := networkOf(i); ok && slices.Contains(n.Subnets, p.Subnet) {
			for _, a := range slices.Concat(n.Gateways, n.Aux) {
				taken[a] = true
			}
		}
	}
	if b, ok := d.o.Switch.Bridge(p.Name); ok {
		for _, port := range b.Ports {
			if g, ok := port.Plug(); ok && g.Container.Kind != config.RuntimeContainer && port.Options.VLAN() == b.Options.VLAN() {
				for _, a := range g.Addresses {
					taken[a.Addr()] = true
				}
			}
		}
	}
	return func(a netip.Addr) bool { return taken[a] }
}

// uses says whether an endpoint has an address of a pool.
func (d *Driver) uses(p ipam.Pool, a netip.Addr) bool {
	for _, i := range d.o.Switch.Held() {
		if e, ok := endpointOf(i); ok && slices.Contains(e.Addresses, netip.PrefixFrom(a, p.Subnet.Bits())) && d.wired(i) {
			return true
		}
	}
	return false
}

type releaseAddressRequest struct{ PoolID, Address string }

func (d *Driver) releaseAddress(ctx context.Context, q releaseAddressRequest) (none, error) {
	a, err := readAddress(q.Address)
	if err != nil {
		return none{}, err
	}
	back, err := d.mine(ctx)
	if err != nil {
		return none{}, err
	}
	defer back()
	p, err := d.resolve(q.PoolID)
	if err != nil {
		return none{}, nil // what is gone with its pool is free
	}
	for _, l := range d.leases.Leases(p.Name) {
		if l.Addr == a && OwnsLease(l.Owner) {
			return none{}, d.leases.ReleaseAddr(p.Name, a)
		}
	}
	return none{}, nil
}
