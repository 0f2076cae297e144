package ctl

import (
	"net/netip"
	"testing"

	"vswitch/ctl/config"
)

// TestLANVLAN: which VLAN the host's frames have on the LAN, by the modes of its port and of the uplink.
func TestLANVLAN(t *testing.T) {
	const none = 4095
	for _, c := range []struct {
		from, uplink config.Options
		want         uint16
	}{
		{nil, nil, 0},
		{config.Options{"tag": "50"}, nil, 50},
		{config.Options{"tag": "50"}, config.Options{"tag": "50"}, 0},
		{config.Options{"tag": "50"}, config.Options{"tag": "60"}, none},
		{nil, config.Options{"tag": "50"}, none},
		{config.Options{"tag": "50"}, config.Options{"tag": "50", "vlan_mode": "native-tagged"}, 50},
		{config.Options{"tag": "50"}, config.Options{"tag": "50", "vlan_mode": "native-untagged"}, 0},
		{config.Options{"tag": "60"}, config.Options{"tag": "50", "vlan_mode": "native-untagged"}, 60},
		{nil, config.Options{"tag": "50", "vlan_mode": "native-tagged"}, none},
		{config.Options{"tag": "50"}, config.Options{"trunks": "0,60"}, none},
		{config.Options{"tag": "50", "vlan_mode": "native-untagged"}, config.Options{"trunks": "50"}, 50},
	} {
		vlan, ok := lanVLAN(config.Port{Options: c.from}, config.Port{Options: c.uplink})
		if !ok {
			vlan = none
		}
		if vlan != c.want {
			t.Errorf("a port with %v, an uplink with %v: VLAN %d, want %d", c.from, c.uplink, vlan, c.want)
		}
	}
}

// TestOnLink: what the host routes in one VLAN says nothing of another.
func TestOnLink(t *testing.T) {
	networks := []hostNetwork{{0, netip.MustParsePrefix("192.0.2.0/24")}, {50, netip.MustParsePrefix("2001:db8::/64")}}
	for _, c := range []struct {
		vlan uint16
		addr string
		want bool
	}{{0, "192.0.2.7", true}, {0, "10.0.0.7", false}, {50, "10.0.0.7", true}, {50, "2001:db8:1::7", false}, {50, "2001:db8::7", true}, {0, "2001:db8:1::7", true}} {
		if got := onLink(networks, c.vlan, netip.MustParseAddr(c.addr)); got != c.want {
			t.Errorf("%s in VLAN %d: %t", c.addr, c.vlan, got)
		}
	}
}
