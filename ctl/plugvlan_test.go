package ctl

import (
	"net/netip"
	"testing"

	"vswitch/ctl/config"
)

// A plug is led by its bridge's address in the VLAN of that address alone. VLAN 0 is none:
// tag=0 says what not to set it says.
func TestPlugVLANs(t *testing.T) {
	d := &Daemon{plugs: &plugs{alias: func(port string) string { return port }}}
	for _, c := range []struct {
		bridge, port string
		led          bool
	}{{"", "", true}, {"", "0", true}, {"0", "", true}, {"10", "10", true}, {"", "10", false}, {"10", "0", false}} {
		options := func(tag string) config.Options {
			o := config.Options{"container": "netns:x", "ip": "auto"}
			if tag != "" {
				o["tag"] = tag
			}
			return o
		}
		b := &bridgePlugs{bridge: &config.Bridge{Name: "br0", Options: options(c.bridge)}, gateways: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, mtu: 1450}
		w, ok := d.want(b, config.Port{Name: "x", Type: "plug", Options: options(c.port)})
		if !ok || (len(w.Gateways) == 1) != c.led {
			t.Errorf("bridge with tag=%s, plug with tag=%s: led by %v", c.bridge, c.port, w.Gateways)
		}
	}
}
