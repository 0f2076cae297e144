package nat

import (
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// forgetLocked lets conntrack forget UDP flows to published ports that lead elsewhere now.
// A flow keeps the way that its first packet found, for as long as packets come: a client
// that never stops would send to the container of yesterday, or to the host, for ever. TCP
// connections end with their container.
func (f *Firewall) forgetLocked() {
	before := f.led
	f.led = f.serving
	changed := map[uint16]bool{}
	var v4, v6 bool
	note := func(k claimKey) {
		if k.proto == unix.IPPROTO_UDP {
			changed[k.port] = true
			v4, v6 = v4 || !k.v6, v6 || k.v6
		}
	}
	for k, t := range before {
		if f.serving[k] != t {
			note(k)
		}
	}
	for k, t := range f.serving {
		if before[k] != t {
			note(k)
		}
	}
	for _, family := range []struct {
		wanted bool
		number netlink.InetFamily
	}{{v4, unix.AF_INET}, {v6, unix.AF_INET6}} {
		if !family.wanted {
			continue
		}
		local, err := localAddresses()
		if err == nil {
			_, err = netlink.ConntrackDeleteFilters(netlink.ConntrackTable, family.number, staleFlow{changed, local, f.serving})
		}
		if err != nil {
			f.log.Warn("could not forget old flows to published ports", "err", err)
		}
	}
}

// staleFlow matches flows to an address of the host that go where they should not.
type staleFlow struct {
	ports   map[uint16]bool
	local   map[netip.Addr]bool
	serving map[claimKey]target
}

// MatchConntrackFlow is of netlink.CustomConntrackFilter.
func (s staleFlow) MatchConntrackFlow(flow *netlink.ConntrackFlow) bool {
	to, ok1 := netip.AddrFromSlice(flow.Forward.DstIP)
	end, ok2 := netip.AddrFromSlice(flow.Reverse.SrcIP)
	if !ok1 || !ok2 || flow.Forward.Protocol != unix.IPPROTO_UDP || !s.ports[flow.Forward.DstPort] {
		return false
	}
	to, end = to.Unmap(), end.Unmap()
	if !s.local[to] && !to.IsLoopback() {
		return false
	}
	k := claimKey{v6: to.Is6(), host: to, port: flow.Forward.DstPort, proto: unix.IPPROTO_UDP}
	t, ok := s.serving[k]
	if !ok {
		k.host = netip.Addr{}
		t, ok = s.serving[k]
	}
	if !ok {
		return end != to // is translated, and should not be
	}
	return netip.AddrPortFrom(end, flow.Reverse.SrcPort) != t.to
}

func localAddresses() (map[netip.Addr]bool, error) {
	all, err := net.InterfaceAddrs()
	if err != nil {
		return nil, err
	}
	local := map[netip.Addr]bool{}
	for _, a := range all {
		if n, ok := a.(*net.IPNet); ok {
			if addr, ok := netip.AddrFromSlice(n.IP); ok {
				local[addr.Unmap()] = true
			}
		}
	}
	return local, nil
}
