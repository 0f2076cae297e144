package config

import (
	"net/netip"
	"slices"
)

// What a bridge says of the addresses of its containers.

// Networks reads networks, in the order given.
func (o Options) Networks(name string) (list []netip.Prefix) {
	option(name, NetworkList)
	for _, word := range splitList(o[name]) {
		if p, err := netip.ParsePrefix(word); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// AddrRange is addresses First to Last, both included.
type AddrRange struct{ First, Last netip.Addr }

// Contains says whether a is one of the range.
func (r AddrRange) Contains(a netip.Addr) bool {
	return r.First.BitLen() == a.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// meets says whether any address of n is one of the range.
func (r AddrRange) meets(n netip.Prefix) bool {
	return r.First.BitLen() == n.Addr().BitLen() && r.First.Compare(lastOf(n)) <= 0 && n.Masked().Addr().Compare(r.Last) <= 0
}

func (r AddrRange) String() string {
	if r.First == r.Last {
		return r.First.String()
	}
	return r.First.String() + "-" + r.Last.String()
}

// AddrRanges reads ranges of addresses, in the order given.
func (o Options) AddrRanges(name string) (list []AddrRange) {
	option(name, RangeList)
	for _, word := range splitList(o[name]) {
		if r, _, ok := parseRange(word); ok {
			list = append(list, r)
		}
	}
	return list
}

// Pool is what a bridge's options say of the addresses of its containers, of one
// family.
type Pool struct {
	Subnet  netip.Prefix // masked
	Range   netip.Prefix // within Subnet
	Gateway netip.Addr   // the zero Addr: none
	Exclude []AddrRange  // of any family
	Own     []netip.Addr // the bridge's own addresses, which are nobody else's
}

// Pools are those of a bridge in canonical form: at most one of IPv4 and one of IPv6.
// Without ipam.subnet they are the subnets of the first address of each family of ip.
func (b *Bridge) Pools() (pools []Pool) {
	o := b.Options
	own := o.Prefixes("ip")
	subnets := o.Networks("ipam.subnet")
	if len(subnets) == 0 {
		for _, p := range own {
			if !slices.ContainsFunc(subnets, func(q netip.Prefix) bool { return q.Addr().Is4() == p.Addr().Is4() }) {
				subnets = append(subnets, p.Masked())
			}
		}
	}
	for _, subnet := range subnets {
		p := Pool{Subnet: subnet, Range: subnet, Exclude: o.AddrRanges("ipam.exclude")}
		for _, r := range o.Networks("ipam.range") {
			if r.Addr().Is4() == subnet.Addr().Is4() {
				p.Range = r
			}
		}
		for _, a := range own {
			p.Own = append(p.Own, a.Addr())
			if !p.Gateway.IsValid() && subnet.Contains(a.Addr()) {
				p.Gateway = a.Addr()
			}
		}
		for _, a := range o.Addresses("ipam.gateway") {
			if subnet.Contains(a) {
				p.Gateway = a
			}
		}
		pools = append(pools, p)
	}
	return pools
}
