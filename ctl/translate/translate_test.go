package translate

import (
	"math/rand/v2"
	"testing"

	"vswitch/ctl/config"
	vswitch "vswitch/switch"
)

func TestVLANSet(t *testing.T) {
	if vlanSet(nil) != nil || vlanSet([]config.Range{{First: 0, Last: 4094}}) != nil || vlanSet([]config.Range{{First: 0, Last: 4095}}) != nil {
		t.Error("all VLANs are not nil, which is all")
	}
	rng := rand.New(rand.NewPCG(1, 2))
	for range 200 {
		var ranges []config.Range
		want := [4096]bool{}
		for next := uint16(rng.IntN(100)); next < 4000; {
			r := config.Range{First: next, Last: next + uint16(rng.IntN(90))}
			ranges = append(ranges, r)
			for v := r.First; v <= r.Last; v++ {
				want[v] = true
			}
			next = r.Last + 2 + uint16(rng.IntN(500))
		}
		set := vlanSet(ranges)
		for v := range want {
			if set.Has(uint16(v)) != want[v] {
				t.Fatalf("%v: VLAN %d is in: %v", ranges, v, !want[v])
			}
		}
	}
}

func TestPort(t *testing.T) {
	for _, c := range []struct {
		port config.Port
		want vswitch.PortConfig
	}{
		{config.Port{Name: "a", Type: "packet"}, vswitch.PortConfig{VLAN: vswitch.VLAN{Mode: vswitch.Trunk}, TxRing: 1024}},
		{config.Port{Name: "a", Type: "tap", Options: config.Options{"offload": "false", "tx-ring": "64", "tag": "7"}},
			vswitch.PortConfig{VLAN: vswitch.VLAN{Mode: vswitch.Access, Tag: 7}, TxRing: 64, Finish: true}},
		{config.Port{Name: "a", Type: "patch", Options: config.Options{"peer": "b"}},
			vswitch.PortConfig{VLAN: vswitch.VLAN{Mode: vswitch.Trunk}, Patch: true, Peer: "b"}},
		{(&config.Bridge{Name: "br0", Options: config.Options{"tag": "3", "vlan_mode": "native-untagged"}}).Local(),
			vswitch.PortConfig{VLAN: vswitch.VLAN{Mode: vswitch.NativeUntagged, Tag: 3}}},
	} {
		if got := Port(c.port); got != c.want {
			t.Errorf("%+v becomes %+v, want %+v", c.port, got, c.want)
		}
	}
}
