package ports

import (
	"fmt"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// HostAddresses lists the addresses of global scope that the host has in this network
// namespace, by interface index: one question to the kernel for all (RTM_GETADDR).
func HostAddresses() (map[int][]netip.Prefix, error) {
	all, err := netlink.AddrList(nil, netlink.FAMILY_ALL)
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	by := map[int][]netip.Prefix{}
	for _, a := range all {
		ip, ok := netip.AddrFromSlice(a.IP)
		if !ok || a.Scope != unix.RT_SCOPE_UNIVERSE {
			continue
		}
		bits, _ := a.Mask.Size()
		by[a.LinkIndex] = append(by[a.LinkIndex], netip.PrefixFrom(ip.Unmap(), bits))
	}
	return by, nil
}
