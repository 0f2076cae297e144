package wire

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"unicode"
)

// Bounds of a Spec.
const (
	minMTU   = 68    // ETH_MIN_MTU; RFC 791
	minMTU6  = 1280  // IPV6_MIN_MTU; RFC 8200 section 5: the kernel takes IPv6 off below
	maxMTU   = 65535 // ETH_MAX_MTU, which is veth's
	maxName  = 15    // IFNAMSIZ with its zero
	maxAlias = 255   // IFALIASZ with its zero
)

// Check says what is wrong with a Spec by itself: what no namespace could take.
func Check(s Spec) error {
	if why := badName(s.Host); why != "" {
		return fmt.Errorf("name of the host's end %q %s", s.Host, why)
	}
	if why := badName(s.IfName); why != "" {
		return fmt.Errorf("interface name %q %s", s.IfName, why)
	}
	if s.Alias == "" || len(s.Alias) > maxAlias || strings.ContainsFunc(s.Alias, unicode.IsControl) {
		return fmt.Errorf("alias %q is not 1 to %d printable bytes", s.Alias, maxAlias)
	}
	if len(s.MAC) != 6 || s.MAC[0]&1 != 0 || !slices.ContainsFunc(s.MAC, func(b byte) bool { return b != 0 }) {
		return fmt.Errorf("MAC address %q is not that of one interface", s.MAC)
	}
	low := minMTU
	if slices.ContainsFunc(s.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		low = minMTU6
	}
	if s.MTU < low || s.MTU > maxMTU {
		return fmt.Errorf("MTU %d is not between %d and %d", s.MTU, low, maxMTU)
	}
	if err := checkAddresses(s.Addresses); err != nil {
		return err
	}
	return checkRoutes(&s)
}

// badName says why the kernel does not take an interface's name (dev_valid_name), or
// takes it for a pattern (%d).
func badName(name string) string {
	switch {
	case name == "" || name == "." || name == "..":
		return "is not a name that the kernel takes"
	case len(name) > maxName:
		return fmt.Sprintf("is longer than %d bytes", maxName)
	case strings.ContainsAny(name, "/:%\x00") || strings.ContainsFunc(name, func(r rune) bool { return unicode.IsSpace(r) || unicode.IsControl(r) }):
		return "is not a name that the kernel takes"
	}
	return ""
}

func checkAddresses(list []netip.Prefix) error {
	for i, p := range list {
		if why := badUnicast(p.Addr()); !p.IsValid() || why != "" {
			return fmt.Errorf("address %s %s", p, why)
		}
		if slices.ContainsFunc(list[:i], func(q netip.Prefix) bool { return p.Addr() == q.Addr() }) {
			return fmt.Errorf("address %s is there twice", p.Addr())
		}
	}
	return nil
}

func badUnicast(a netip.Addr) string {
	switch {
	case !a.IsValid() || a.Zone() != "" || a.Is4In6():
		return "is not an address"
	case a.IsUnspecified() || a.IsMulticast() || a.IsLoopback() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		return "is not an address of an interface"
	}
	return ""
}

func checkRoutes(s *Spec) error {
	var defaults [2]bool // by family, of gateways and of routes alike
	family := func(a netip.Addr) *bool {
		if a.Is4() {
			return &defaults[0]
		}
		return &defaults[1]
	}
	for i, r := range s.Routes {
		if !r.Dst.IsValid() || r.Dst != r.Dst.Masked() || r.Dst.Addr().Zone() != "" || r.Dst.Addr().Is4In6() || r.Dst.Addr().IsMulticast() {
			return fmt.Errorf("route to %s: that is not a network", r.Dst)
		}
		if slices.ContainsFunc(s.Routes[:i], func(q Route) bool { return q.Dst == r.Dst }) {
			return fmt.Errorf("route to %s is there twice", r.Dst)
		}
		if r.Dst.Bits() == 0 {
			*family(r.Dst.Addr()) = true
		}
		if !r.Via.IsValid() {
			continue
		}
		if r.Via.Is4() != r.Dst.Addr().Is4() {
			return fmt.Errorf("route to %s via %s: they are of two families", r.Dst, r.Via)
		}
		if err := s.reaches(r.Via); err != nil {
			return fmt.Errorf("route to %s via %s: %w", r.Dst, r.Via, err)
		}
	}
	for _, gw := range s.Gateways {
		if why := badUnicast(gw); why != "" {
			return fmt.Errorf("gateway %s %s", gw, why)
		}
		if has := family(gw); *has {
			return fmt.Errorf("gateway %s is the second default route of its family", gw)
		} else {
			*has = true
		}
		if err := s.reaches(gw); err != nil {
			return fmt.Errorf("gateway %s: %w", gw, err)
		}
	}
	return nil
}

// reaches says why the next hop via cannot be reached by the interface itself.
func (s *Spec) reaches(via netip.Addr) error {
	if why := badUnicast(via); why != "" {
		return errors.New("it " + why)
	}
	for _, p := range s.Addresses {
		if p.Addr() == via {
			return errors.New("it is the container's own address")
		}
	}
	if via.Is6() && via.IsLinkLocalUnicast() {
		return nil
	}
	for _, p := range s.Addresses {
		if p.Masked().Contains(via) {
			return nil
		}
	}
	for _, r := range s.Routes {
		if !r.Via.IsValid() && r.Dst.Bits() > 0 && r.Dst.Contains(via) {
			return nil
		}
	}
	return errors.New("it is not reached: no address's subnet and no route on the link holds it")
}
