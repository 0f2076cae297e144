package ipam

import (
	"fmt"
	"net/netip"
	"slices"
	"sort"

	"vswitch/ctl/config"
)

// runs is a set of addresses of one family, as ranges in order of which no two touch.
type runs []config.AddrRange

// at is the index of the first range that ends at a or later.
func (r runs) at(a netip.Addr) int {
	return sort.Search(len(r), func(i int) bool { return r[i].Last.Compare(a) >= 0 })
}

func (r runs) has(a netip.Addr) bool {
	i := r.at(a)
	return i < len(r) && r[i].Contains(a)
}

// next is the lowest address from a on that is not in the set. It is the zero Addr if
// there is none.
func (r runs) next(a netip.Addr) netip.Addr {
	if i := r.at(a); i < len(r) && r[i].Contains(a) {
		return r[i].Last.Next()
	}
	return a
}

func (r *runs) add(a netip.Addr) {
	i := r.at(a)
	if i < len(*r) && (*r)[i].Contains(a) {
		return
	}
	below := i > 0 && (*r)[i-1].Last.Next() == a
	above := i < len(*r) && a.Next() == (*r)[i].First
	switch {
	case below && above:
		(*r)[i-1].Last = (*r)[i].Last
		*r = slices.Delete(*r, i, i+1)
	case below:
		(*r)[i-1].Last = a
	case above:
		(*r)[i].First = a
	default:
		*r = slices.Insert(*r, i, config.AddrRange{First: a, Last: a})
	}
}

func (r *runs) remove(a netip.Addr) {
	i := r.at(a)
	if i == len(*r) || !(*r)[i].Contains(a) {
		return
	}
	old := (*r)[i]
	switch {
	case old.First == old.Last:
		*r = slices.Delete(*r, i, i+1)
	case old.First == a:
		(*r)[i].First = a.Next()
	case old.Last == a:
		(*r)[i].Last = a.Prev()
	default:
		(*r)[i].Last = a.Prev()
		*r = slices.Insert(*r, i+1, config.AddrRange{First: a.Next(), Last: old.Last})
	}
}

// merge makes a set of ranges in any order that may overlap.
func merge(list []config.AddrRange) runs {
	slices.SortFunc(list, func(a, b config.AddrRange) int { return a.First.Compare(b.First) })
	var out runs
	for _, x := range list {
		if n := len(out); n > 0 && (out[n-1].Contains(x.First) || out[n-1].Last.Next() == x.First) {
			if out[n-1].Last.Less(x.Last) {
				out[n-1].Last = x.Last
			}
			continue
		}
		out = append(out, x)
	}
	return out
}

// choice is which addresses of a pool may be given: first to last, without those in never.
type choice struct {
	subnet      netip.Prefix
	first, last netip.Addr
	never       runs
}

// choose reads a pool.
func choose(p config.Pool) (choice, error) {
	subnet := p.Subnet.Masked()
	if !subnet.IsValid() || subnet.Addr().Is4In6() {
		return choice{}, fmt.Errorf("the pool has no subnet")
	}
	among := p.Range.Masked()
	if !among.IsValid() {
		among = subnet
	}
	if among.Addr().Is4() != subnet.Addr().Is4() || among.Bits() < subnet.Bits() || !subnet.Contains(among.Addr()) {
		return choice{}, fmt.Errorf("range %s is not part of %s", among, subnet)
	}
	c := choice{subnet: subnet, first: among.Addr(), last: lastOf(among)}
	var never []config.AddrRange
	one := func(a netip.Addr) {
		if a = a.Unmap().WithZone(""); a.IsValid() && a.Is4() == subnet.Addr().Is4() {
			never = append(never, config.AddrRange{First: a, Last: a})
		}
	}
	// The network's own and the broadcast address, and the subnet-router anycast address
	// (RFC 4291, section 2.6.1), which a link of two has not (RFC 3021, RFC 6164), and
	// a single address neither.
	if hostBits := subnet.Addr().BitLen() - subnet.Bits(); hostBits > 1 {
		one(subnet.Addr())
		if subnet.Addr().Is4() {
			one(lastOf(subnet))
		}
	}
	one(p.Gateway)
	for _, a := range p.Own {
		one(a)
	}
	for _, x := range p.Exclude {
		if x.First.IsValid() && x.First.Is4() == subnet.Addr().Is4() && x.Last.Is4() == x.First.Is4() && !x.Last.Less(x.First) {
			never = append(never, x)
		}
	}
	c.never = merge(never)
	return c, nil
}

func (c choice) fits(a netip.Addr) bool {
	return c.first.Compare(a) <= 0 && a.Compare(c.last) <= 0 && !c.never.has(a)
}

// next is the lowest address from a on that may be given and is not in used. It is the zero
// Addr if there is none. Each turn passes one range of never, of which there are few.
func (c choice) next(a netip.Addr, used runs) netip.Addr {
	for a.IsValid() && a.Compare(c.last) <= 0 {
		a = used.next(a)
		b := a
		if a.IsValid() {
			b = c.never.next(a)
		}
		if a == b {
			break
		}
		a = b
	}
	if !a.IsValid() || c.last.Less(a) {
		return netip.Addr{}
	}
	return a
}

// pick finds an address to give: the lowest that is not remembered, else that which was
// freed longest ago.
func (n *network) pick(c choice, owner string, taken func(netip.Addr) bool) (netip.Addr, error) {
	others := 0
	busy := func(a netip.Addr) bool {
		if taken == nil || !taken(a) {
			return false
		}
		others++
		return true
	}
	for _, v := range slices.Backward(n.freed) {
		if v.owner == owner && c.fits(v.addr) && !busy(v.addr) {
			return v.addr, nil
		}
	}
	for a := c.next(c.first, n.used); a.IsValid(); a = c.next(a.Next(), n.used) {
		if !busy(a) {
			return a, nil
		}
		if others == maxProbes {
			return netip.Addr{}, fmt.Errorf("%w among the %d that were tried, from %s on: others have them", ErrFull, others, c.first)
		}
	}
	for _, v := range n.freed {
		if c.fits(v.addr) && !busy(v.addr) {
			return v.addr, nil
		}
	}
	why := fmt.Sprintf("%d are leased", len(n.leased))
	if others > 0 {
		why += fmt.Sprintf(", %d others have", others)
	}
	where := c.subnet.String()
	if c.first != c.subnet.Addr() || c.last != lastOf(c.subnet) {
		where = fmt.Sprintf("%s to %s of %s", c.first, c.last, c.subnet)
	}
	return netip.Addr{}, fmt.Errorf("%w in %s: %s", ErrFull, where, why)
}

// lastOf is the highest address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}
