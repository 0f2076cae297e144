package ctl

import (
	"testing"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ports"
)

// TestPlugMTUs gives containers what the narrowest way out of their bridge carries. A tunnel
// that is away for a moment carries what it did before: containers must not follow it down
// and up.
func TestPlugMTUs(t *testing.T) {
	tunnel := func(mtu, carried int) *portState {
		return &portState{bridge: "br0", port: config.Port{Name: "vx", Type: "vxlan"}, tunnel: &tunnelPort{mtu: mtu, carried: carried}, link: noLink}
	}
	self := tunnel(1300, 1300)
	self.state = api.PortSelf
	going := tunnel(1300, 1300)
	going.left = true
	nic := &portState{bridge: "br0", port: config.Port{Name: "eth0", Type: "packet"}, link: &ports.Link{Index: 2, MTU: 1400}}
	for name, c := range map[string]struct {
		ports []*portState
		want  int
	}{
		"nothing":                      {nil, 1500},
		"a tunnel":                     {[]*portState{tunnel(1420, 1420)}, 1420},
		"a path not known yet":         {[]*portState{tunnel(0, 0)}, 1450},
		"a jumbo path":                 {[]*portState{tunnel(8950, 8950)}, 1500},
		"a jumbo path, for now away":   {[]*portState{tunnel(0, 8950)}, 1500},
		"the narrower of two":          {[]*portState{tunnel(1420, 1420), tunnel(1380, 1380)}, 1380},
		"a NIC":                        {[]*portState{nic}, 1400},
		"this host itself as a peer":   {[]*portState{self}, 1500},
		"a port that is being removed": {[]*portState{going}, 1500},
	} {
		r := &reconciler{ports: map[string]*portState{}}
		for i, p := range c.ports {
			r.ports[string(rune('a'+i))] = p
		}
		mtus := r.plugMTUsLocked()
		if got := mtuOf(mtus, "br0"); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
		if got := mtuOf(mtus, "br1"); got != 1500 {
			t.Errorf("%s: another bridge has %d", name, got)
		}
	}
}
