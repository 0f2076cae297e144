package wire

import (
	"net/netip"
	"testing"
)

// What Check lets pass is announced in frames of the right shape, and its routes are in
// an order the kernel takes.
func FuzzCheck(f *testing.F) {
	f.Add("p1", "vswitch test p1", "eth1", []byte{2, 0, 0, 0, 0, 1}, 1500, "10.1.0.5/24", "10.1.0.1", "10.9.0.0/16", "10.1.0.9")
	f.Add("p1", "a", "eth1", []byte{2, 0, 0, 0, 0, 1}, 1280, "fd00::5/64", "fe80::1", "::/0", "")
	f.Add("", "", "", []byte(nil), -1, "", "", "", "")
	f.Add("p%d", "a\x00", "..", []byte{1}, 1<<40, "::ffff:10.0.0.1/100", "fe80::1%eth0", "224.0.0.0/4", "0.0.0.0")
	f.Fuzz(func(t *testing.T, host, alias, ifname string, mac []byte, mtu int, addr, gw, dst, via string) {
		s := Spec{Host: host, Alias: alias, IfName: ifname, MAC: mac, MTU: mtu}
		// What cannot be parsed stands there as the zero value, unless it is empty.
		if addr != "" {
			p, _ := netip.ParsePrefix(addr)
			s.Addresses = append(s.Addresses, p)
		}
		if gw != "" {
			a, _ := netip.ParseAddr(gw)
			s.Gateways = append(s.Gateways, a)
		}
		if dst != "" {
			r := Route{}
			r.Dst, _ = netip.ParsePrefix(dst)
			r.Via, _ = netip.ParseAddr(via)
			s.Routes = append(s.Routes, r)
		}
		if Check(s) != nil {
			return
		}
		for _, a := range addrsOf(s.Addresses) {
			if f, want := announcement([6]byte(s.MAC), a), etherLen+arpLen; len(f) < want {
				t.Fatalf("the announcement of %s has %d bytes", a, len(f))
			}
		}
		onLink := true
		for _, r := range s.all() {
			if r.Via.IsValid() {
				onLink = false
			} else if !onLink {
				t.Fatalf("route %s comes behind those that may need it", r)
			}
			if prefixOf(netOf(r.Dst)) != r.Dst {
				t.Fatalf("route %s comes back as %s", r, prefixOf(netOf(r.Dst)))
			}
		}
	})
}
