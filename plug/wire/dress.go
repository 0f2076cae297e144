package wire

import (
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// dress gives the container's end its addresses and routes, and takes those away that it
// had from us and shall have no more.
//
// What is new comes first, so that a failure finds the old things in their places. What
// goes may take others with it: the first IPv4 address of a subnet takes the others of
// the subnet (unless promote_secondaries is set), an address its routes. So what shall
// be there is looked for once more at the end.
func (w *work) dress(had *Spec) error {
	if err := w.addAddresses(had); err != nil {
		return err
	}
	if err := w.dropRoutes(had); err != nil {
		return err
	}
	if err := w.addRoutes(); err != nil {
		return err
	}
	dropped, err := w.dropAddresses(had)
	if err != nil || !dropped {
		return err
	}
	if err := w.addAddresses(had); err != nil {
		return err
	}
	return w.addRoutes()
}

func (w *work) addAddresses(had *Spec) error {
	have, err := addressList(w.in, w.peer)
	if err != nil {
		return err
	}
	for _, p := range w.s.Addresses {
		if slices.ContainsFunc(have, func(a netlink.Addr) bool { return prefixOf(a.IPNet) == p }) {
			continue
		}
		// IPv6 takes an address with one prefix length only.
		for _, a := range have {
			if q := prefixOf(a.IPNet); p.Addr().Is6() && q.Addr() == p.Addr() && slices.Contains(had.Addresses, q) {
				if err := w.dropAddress(a); err != nil {
					return err
				}
			}
		}
		if err := w.addAddress(p); err != nil {
			return fmt.Errorf("set address %s of %s: %w", p, w.s.IfName, err)
		}
		w.onFailure(func() { _ = w.in.AddrDel(w.peer, addrOf(p)) })
		w.fresh = true
	}
	return nil
}

func (w *work) addAddress(p netip.Prefix) error {
	err := w.in.AddrAdd(w.peer, addrOf(p))
	if err == nil || !p.Addr().Is6() || !errors.Is(err, unix.EACCES) {
		return err
	}
	// Docker turns IPv6 off in the containers of its IPv4 networks; this interface has
	// been asked to have it. Netlink has no way to say so.
	err = w.n.inside(func() error {
		return os.WriteFile("/proc/sys/net/ipv6/conf/"+w.s.IfName+"/disable_ipv6", []byte("0"), 0)
	})
	if err != nil {
		return fmt.Errorf("turn IPv6 on: %w", err)
	}
	w.onFailure(func() {
		_ = w.n.inside(func() error {
			return os.WriteFile("/proc/sys/net/ipv6/conf/"+w.s.IfName+"/disable_ipv6", []byte("1"), 0)
		})
	})
	return w.in.AddrAdd(w.peer, addrOf(p))
}

// dropAddresses takes away what w.s lacks of had, and says whether there was any.
func (w *work) dropAddresses(had *Spec) (dropped bool, err error) {
	have, err := addressList(w.in, w.peer)
	if err != nil {
		return false, err
	}
	goes := func(a netlink.Addr) bool {
		p := prefixOf(a.IPNet)
		return slices.Contains(had.Addresses, p) && !slices.Contains(w.s.Addresses, p)
	}
	for _, a := range have {
		if goes(a) {
			if err := w.dropAddress(a); err != nil {
				return true, err
			}
			dropped = true
		}
	}
	if !dropped {
		return false, nil
	}
	left, err := addressList(w.in, w.peer)
	if err != nil {
		return true, err
	}
	for _, a := range have {
		p := prefixOf(a.IPNet)
		if goes(a) || slices.ContainsFunc(left, func(b netlink.Addr) bool { return prefixOf(b.IPNet) == p }) {
			continue
		}
		a.Flags &^= unix.IFA_F_SECONDARY // that is for the kernel to say
		if err := w.in.AddrReplace(w.peer, &a); err != nil {
			return true, fmt.Errorf("put address %s of %s back: %w", p, w.s.IfName, err)
		}
	}
	return true, nil
}

func (w *work) dropAddress(a netlink.Addr) error {
	p := prefixOf(a.IPNet)
	err := w.in.AddrDel(w.peer, addrOf(p))
	if errors.Is(err, unix.EADDRNOTAVAIL) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove address %s of %s: %w", p, w.s.IfName, err)
	}
	w.onFailure(func() { _ = w.in.AddrReplace(w.peer, addrOf(p)) })
	return nil
}

// routes lists what there is, in the container's main table, of those in list, and the best
// default route of each family, whosever it is. The container may have made a million
// others: they are looked at one by one, and none is kept.
func (w *work) routes(list []Route) ([]netlink.Route, error) {
	for try := 1; ; try++ {
		var all []netlink.Route
		best := map[netip.Prefix]netlink.Route{}
		err := w.in.RouteListFilteredIter(netlink.FAMILY_ALL, &netlink.Route{Table: unix.RT_TABLE_MAIN}, netlink.RT_FILTER_TABLE, func(k netlink.Route) bool {
			if k.Type != unix.RTN_UNICAST {
				return true
			}
			if r, ok := w.ours(k); ok && slices.Contains(list, r) {
				all = append(all, k)
				return true
			}
			if dst := prefixOf(k.Dst); dst.Bits() == 0 {
				if b, ok := best[dst]; !ok || k.Priority < b.Priority {
					best[dst] = k
				}
			}
			return true
		})
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the container's routes: %w", err)
		}
		return slices.AppendSeq(all, maps.Values(best)), nil
	}
}

// ours says whether r is the container's end's own, and which it is.
func (w *work) ours(r netlink.Route) (Route, bool) {
	if r.LinkIndex != w.peer.Attrs().Index || len(r.MultiPath) > 0 {
		return Route{}, false
	}
	via, _ := netip.AddrFromSlice(r.Gw)
	return Route{Dst: prefixOf(r.Dst), Via: via.Unmap()}, true
}

// all are a Spec's routes, in an order in which each next hop is reached by those before.
func (s *Spec) all() (list []Route) {
	for _, r := range s.Routes {
		if !r.Via.IsValid() {
			list = append(list, r)
		}
	}
	for _, r := range s.Routes {
		if r.Via.IsValid() {
			list = append(list, r)
		}
	}
	for _, gw := range s.Gateways {
		list = append(list, defaultRoute(gw))
	}
	return list
}

func defaultRoute(gw netip.Addr) Route {
	if gw.Is4() {
		return Route{Dst: netip.PrefixFrom(netip.IPv4Unspecified(), 0), Via: gw}
	}
	return Route{Dst: netip.PrefixFrom(netip.IPv6Unspecified(), 0), Via: gw}
}

func (w *work) dropRoutes(had *Spec) error {
	gone := slices.DeleteFunc(had.all(), func(r Route) bool { return slices.Contains(w.s.all(), r) })
	if len(gone) == 0 {
		return nil
	}
	have, err := w.routes(gone)
	if err != nil {
		return err
	}
	for _, k := range have {
		r, ok := w.ours(k)
		if !ok || !slices.Contains(gone, r) || k.Protocol == unix.RTPROT_KERNEL {
			continue // an address's own route goes with the address
		}
		if err := w.in.RouteDel(&k); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("remove route to %s: %w", r.Dst, err)
		}
		w.onFailure(func() { _ = w.in.RouteAddEcmp(&k) })
	}
	return nil
}

func (w *work) addRoutes() error {
	have, err := w.routes(w.s.all())
	if err != nil {
		return err
	}
	gateways := len(w.s.Routes) // where those of all begin
	for i, r := range w.s.all() {
		if slices.ContainsFunc(have, func(k netlink.Route) bool { q, ok := w.ours(k); return ok && q == r }) {
			continue
		}
		k := netlink.Route{LinkIndex: w.peer.Attrs().Index, Dst: netOf(r.Dst), Gw: net.IP(r.Via.AsSlice())}
		if !r.Via.IsValid() {
			k.Gw, k.Scope = nil, netlink.SCOPE_LINK
		}
		add := w.in.RouteAdd
		if i >= gateways {
			first, others := firstDefault(have, r.Dst)
			switch {
			case others && w.s.Soft:
				continue
			case others && first > 0:
				k.Priority = first - 1
			case others:
				// Created and not exclusive is what ip-route(8) calls prepend: it is
				// asked before those that are as good. IPv6 has no metric 0.
				add = w.in.RouteAddEcmp
			}
		}
		if err := add(&k); err != nil {
			if errors.Is(err, unix.EEXIST) {
				return fmt.Errorf("set route %s: the container has another to it already", r)
			}
			return fmt.Errorf("set route %s: %w", r, err)
		}
		w.onFailure(func() { _ = w.in.RouteDel(&k) })
	}
	return nil
}

// firstDefault returns the best metric of the default routes of a family, and whether
// there is any.
func firstDefault(have []netlink.Route, dst netip.Prefix) (metric int, ok bool) {
	for _, k := range have {
		if prefixOf(k.Dst) == dst && (!ok || k.Priority < metric) {
			metric, ok = k.Priority, true
		}
	}
	return metric, ok
}

func (r Route) String() string {
	if !r.Via.IsValid() {
		return r.Dst.String()
	}
	return r.Dst.String() + " via " + r.Via.String()
}

// addressList lists the addresses of an interface, or of all where l is nil.
func addressList(h *netlink.Handle, l netlink.Link) ([]netlink.Addr, error) {
	for try := 1; ; try++ {
		list, err := h.AddrList(l, netlink.FAMILY_ALL)
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list the container's addresses: %w", err)
		}
		return list, nil
	}
}

func addrOf(p netip.Prefix) *netlink.Addr {
	a := &netlink.Addr{IPNet: netOf(p)}
	if p.Addr().Is6() {
		// The address is of use when Plug returns, and its announcement is not held up
		// for a second. Whether it is taken is known to whoever gives addresses out;
		// optimistic DAD (RFC 4429) would have to be turned on by sysctl first, and its
		// advertisements must not override.
		a.Flags = unix.IFA_F_NODAD
	}
	return a
}

func addrsOf(list []netip.Prefix) (addrs []netip.Addr) {
	for _, p := range list {
		addrs = append(addrs, p.Addr())
	}
	return addrs
}

func netOf(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// prefixOf is the way back; of nothing it is the zero Prefix.
func prefixOf(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, _ := netip.AddrFromSlice(n.IP)
	bits, size := n.Mask.Size()
	if size == 32 {
		a = a.Unmap()
	}
	return netip.PrefixFrom(a, bits)
}
