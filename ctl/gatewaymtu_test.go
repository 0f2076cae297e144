package ctl

import (
	"net/netip"
	"testing"

	"vswitch/ctl/config"
	"vswitch/plug/nat"
)

// TestGatewayMTU: a gateway keeps its IPv6 addresses, whatever its tunnels carry.
func TestGatewayMTU(t *testing.T) {
	for _, c := range []struct {
		subnet, tag   string
		carried, want int
	}{
		{"10.0.0.0/24", "", 1450, 1450}, {"10.0.0.0/24", "7", 1450, 1446}, {"10.0.0.0/24", "7", 1500, 1500},
		{"10.0.0.0/24", "", 1230, 1230}, {"fd00::/64", "", 1230, 1280}, {"10.0.0.0/24", "7", 68, 68},
	} {
		p := config.Port{Name: "br0", Options: config.Options{}}
		if c.tag != "" {
			p.Options["tag"] = c.tag
		}
		if got := gatewayMTU(nat.Gateway{Subnets: []netip.Prefix{netip.MustParsePrefix(c.subnet)}}, p, c.carried); got != c.want {
			t.Errorf("%s, tag %s: %d carried: %d, want %d", c.subnet, c.tag, c.carried, got, c.want)
		}
	}
}
