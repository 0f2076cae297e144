package nat

import (
	"cmp"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// How the host's loopback addresses reach containers.
//
// A connection to 127.0.0.1:8080 has its destination rewritten on its way out, and then
// its source, which is 127.0.0.1 as well. The kernel must be talked into both: to route a
// packet of 127.0.0.1 out of a gateway, and to take an answer back whose destination is
// 127.0.0.1 again when conntrack is through with it.
//
// IPv4 has a switch for this, route_localnet. It opens the loopback to whoever can send
// to it (CVE-2020-8558), for which the chain "guard" is.
//
// IPv6 needs no switch on the way out. On the way back it looks for ::1 only among the
// routes of the interface that the answer came in by (rt6_need_strict, RT6_LOOKUP_F_IFACE),
// so that is where one is put, behind lo's own:
//
//	local ::1 dev br0 table local metric 4096
//
// It opens nothing: what says ::1 on the wire is dropped before it gets that far (RFC 4291,
// section 2.5.3; ip6_rcv_core).
//
// Both are there as long as the interface has published ports, and not longer.

// localnet is an interface by which a loopback address is reached.
type localnet struct {
	ifname string
	v6     bool
}

// loopbackMetric comes after that of lo's own route, 0.
const loopbackMetric = 4096

func (l localnet) sysctl() string { return "ipv4/conf/" + l.ifname + "/route_localnet" }

// isOpen says whether it is so already; known is false where the interface is not there,
// or not of that family.
func (l localnet) isOpen() (open, known bool) {
	if !l.v6 {
		on, err := readSysctl(l.sysctl())
		return on == "1", err == nil
	}
	if off, err := readSysctl("ipv6/conf/" + l.ifname + "/disable_ipv6"); err != nil || off != "0" {
		return false, false
	}
	route, err := l.route()
	if err != nil {
		return false, false
	}
	const filter = netlink.RT_FILTER_TABLE | netlink.RT_FILTER_DST | netlink.RT_FILTER_OIF
	found, err := netlink.RouteListFiltered(unix.AF_INET6, route, filter)
	return slices.ContainsFunc(found, func(r netlink.Route) bool { return r.Priority == loopbackMetric }), err == nil
}

func (l localnet) route() (*netlink.Route, error) {
	link, err := net.InterfaceByName(l.ifname)
	if err != nil {
		return nil, err
	}
	one := net.IPNet{IP: netip.IPv6Loopback().AsSlice(), Mask: net.CIDRMask(128, 128)}
	return &netlink.Route{
		LinkIndex: link.Index, Dst: &one, Table: unix.RT_TABLE_LOCAL, Type: unix.RTN_LOCAL, Priority: loopbackMetric,
	}, nil
}

// set opens or closes it. That there is nothing to do it to is no error.
func (l localnet) set(open bool) error {
	is, known := l.isOpen()
	if !known || is == open {
		return nil
	}
	var err error
	switch {
	case !l.v6 && open:
		err = setSysctl(l.sysctl(), "1")
	case !l.v6:
		err = setSysctl(l.sysctl(), "0")
	default:
		var route *netlink.Route
		if route, err = l.route(); err != nil {
			return nil
		}
		if open {
			err = netlink.RouteAdd(route)
		} else {
			err = netlink.RouteDel(route)
		}
	}
	for _, gone := range []error{os.ErrNotExist, os.ErrExist, unix.ENODEV, unix.ESRCH} {
		if errors.Is(err, gone) {
			return nil
		}
	}
	if err != nil {
		return fmt.Errorf("let the host's loopback address reach %s: %w", l.ifname, err)
	}
	return nil
}

// wantsLocalnet lists the interfaces that have published ports.
func wantsLocalnet(serving map[claimKey]target) []localnet {
	var all []localnet
	for k, t := range serving {
		if l := (localnet{t.via, k.v6}); !slices.Contains(all, l) {
			all = append(all, l)
		}
	}
	slices.SortFunc(all, func(a, b localnet) int { return cmp.Compare(a.ifname, b.ifname) })
	return all
}

// dropLocalnetLocked closes what is not wanted any more: before the rules go that guard it.
func (f *Firewall) dropLocalnetLocked(want []localnet) error {
	for _, l := range f.localnet {
		if !slices.Contains(want, l) {
			if err := l.set(false); err != nil {
				return err
			}
		}
	}
	f.localnet = slices.DeleteFunc(f.localnet, func(l localnet) bool { return !slices.Contains(want, l) })
	return nil
}

// addLocalnetLocked opens what is wanted: when the rules are there that guard it. An
// interface that is not there yet gets it by Check.
func (f *Firewall) addLocalnetLocked(want []localnet) error {
	for _, l := range want {
		if err := l.set(true); err != nil {
			return err
		}
		if !slices.Contains(f.localnet, l) {
			f.localnet = append(f.localnet, l)
		}
	}
	return nil
}

// localnetOpenLocked says whether the kernel has what addLocalnetLocked made; an interface
// that was made anew has not.
func (f *Firewall) localnetOpenLocked() bool {
	return !slices.ContainsFunc(f.localnet, func(l localnet) bool {
		open, known := l.isOpen()
		return known && !open
	})
}
