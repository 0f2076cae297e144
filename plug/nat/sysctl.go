package nat

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// sysctls is where the kernel's parameters of this network namespace are.
const sysctls = "/proc/sys/net"

func readSysctl(key string) (string, error) {
	b, err := os.ReadFile(filepath.Join(sysctls, key))
	return strings.TrimSpace(string(b)), err
}

// setSysctl writes a value where another is; a write has effects even without a change.
func setSysctl(key, value string) error {
	is, err := readSysctl(key)
	if err != nil || is == value {
		return err
	}
	return os.WriteFile(filepath.Join(sysctls, key), []byte(value), 0)
}

const (
	forwarding4 = "ipv4/ip_forward"
	forwarding6 = "ipv6/conf/all/forwarding"
)

// ofInterface is the switch for what comes in by one interface.
func ofInterface(family, ifname string) string { return family + "/conf/" + ifname + "/forwarding" }

func families(gateways []Gateway) (v4, v6 bool) {
	for _, g := range gateways {
		for _, s := range g.Subnets {
			v4 = v4 || s.Addr().Is4()
			v6 = v6 || s.Addr().Is6()
		}
	}
	return v4, v6
}

// forwardingKeys lists the switches that gateways need, the host's first: its own
// sets all interfaces', which somebody may have set otherwise since.
func forwardingKeys(gateways []Gateway) (keys []string) {
	v4, v6 := families(gateways)
	if v4 {
		keys = append(keys, forwarding4)
	}
	if v6 {
		keys = append(keys, forwarding6)
	}
	for _, g := range gateways {
		v4, v6 := families([]Gateway{g})
		if v4 {
			keys = append(keys, ofInterface("ipv4", g.Interface))
		}
		if v6 {
			keys = append(keys, ofInterface("ipv6", g.Interface))
		}
	}
	return keys
}

// forwardingEnabled says whether the host forwards what gateways need.
func forwardingEnabled(gateways []Gateway) bool {
	return !slices.ContainsFunc(forwardingKeys(gateways), func(key string) bool {
		on, _ := readSysctl(key)
		return on == "0"
	})
}

// enableForwarding makes the host a router for the families that gateways have. That is a
// property of the host, not of gateways: what comes back in from elsewhere is forwarded by
// the switch of the interface it comes in by.
func enableForwarding(gateways []Gateway) error {
	for _, key := range forwardingKeys(gateways) {
		on, err := readSysctl(key)
		if err == nil && on == "0" {
			if key == forwarding6 {
				err = keepRouterAdvertisements(gateways)
			}
			if err == nil {
				err = setSysctl(key, "1")
			}
		}
		gone := errors.Is(err, os.ErrNotExist) && key != forwarding4 && key != forwarding6
		if err != nil && !gone { // an interface that is not there yet gets it by Check
			return fmt.Errorf("enable forwarding: %w", err)
		}
	}
	return nil
}

// keepRouterAdvertisements lets interfaces that take router advertisements go on with it.
// A router takes none unless accept_ra is 2, and loses the default routes it had by them
// at the moment it becomes one (Documentation/networking/ip-sysctl.rst; rt6_purge_dflt_routers).
// Not so gateways, and interfaces to come: what is behind them may be containers, which
// are nobody to tell the host its routes.
func keepRouterAdvertisements(gateways []Gateway) error {
	interfaces, err := os.ReadDir(filepath.Join(sysctls, "ipv6/conf"))
	if err != nil {
		return err
	}
	for _, e := range interfaces {
		name := e.Name()
		if name == "all" || name == "default" || slices.ContainsFunc(gateways, func(g Gateway) bool { return g.Interface == name }) {
			continue
		}
		key := acceptRA(name)
		if is, err := readSysctl(key); err != nil || is != "1" {
			continue // gone, or does not take them
		}
		if err := setSysctl(key, "2"); err != nil && !errors.Is(err, os.ErrNotExist) {
			return fmt.Errorf("keep router advertisements on %s: %w", name, err)
		}
	}
	return nil
}

func acceptRA(ifname string) string { return "ipv6/conf/" + ifname + "/accept_ra" }

// hearNoRouters keeps containers from giving the host routes, a default route by themselves
// among them: any of them may send router advertisements (CVE-2020-13401). What forwards IPv6
// takes none, but a gateway of IPv4 alone does not forward it and has IPv6 all the same.
// Whoever wrote a 2 wants them.
func hearNoRouters(gateways []Gateway) error {
	for _, g := range gateways {
		if !g.closed() {
			continue
		}
		is, err := readSysctl(acceptRA(g.Interface))
		if err == nil && is == "1" {
			err = setSysctl(acceptRA(g.Interface), "0")
		}
		if err != nil && !errors.Is(err, os.ErrNotExist) { // not there yet: by Check
			return fmt.Errorf("refuse router advertisements on %s: %w", g.Interface, err)
		}
	}
	return nil
}

// hearsRouters says whether there is something for hearNoRouters to do.
func hearsRouters(gateways []Gateway) bool {
	return slices.ContainsFunc(gateways, func(g Gateway) bool {
		is, _ := readSysctl(acceptRA(g.Interface))
		return g.closed() && is == "1"
	})
}
