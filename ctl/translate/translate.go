// Package translate turns the desired document into what the switch is told: options
// into the configurations of bridges, ports, mirrors and static MACs. It opens nothing
// and decides nothing.
//
// Its one idea: there is one such translation. The daemon's reconciler and the offline
// test of a document mean the same by it, because they call the same functions.
package translate

import (
	"net"

	"vswitch/ctl/config"
	"vswitch/fdb"
	vswitch "vswitch/switch"
)

// Bridge turns a bridge's options into what the switch wants to be told.
func Bridge(b *config.Bridge) vswitch.BridgeConfig {
	return vswitch.BridgeConfig{
		FDB: fdb.Limits{
			Size: b.Options.Int("mac-table-size"), Aging: b.Options.Int("mac-aging-time"),
			FlapLimit: b.Options.Int("mac-flap-limit"), FlapHold: b.Options.Int("mac-flap-hold"),
		},
		ForwardBPDU: b.Options.Bool("forward-bpdu"),
		FloodVLANs:  floodVLANs(b.Options),
	}
}

// floodVLANs returns the VLANs in which a bridge learns nothing, or nil.
func floodVLANs(o config.Options) *vswitch.VLANSet {
	if !o.IsSet("flood_vlans") {
		return nil
	}
	return setOf(o.Ranges("flood_vlans"))
}

// Port turns a port's options into what the switch wants to be told.
func Port(p config.Port) vswitch.PortConfig {
	c := vswitch.PortConfig{VLAN: vlan(p.VLANs()), Storm: stormLimits(p.Options)}
	if p.Object() == config.PatchPort {
		c.Patch, c.Peer = true, p.Options.Text("peer")
		return c
	}
	if p.Object().IsTunnel() {
		c.Tunnel, c.Group, c.TxRing = true, p.Mesh, p.Options.Int("tx-ring")
		return c
	}
	if p.Object() != config.LocalPort {
		c.Finish = !p.Options.Bool("offload")
		c.TxRing = p.Options.Int("tx-ring")
	}
	return c
}

// stormLimits are those of a port's options.
func stormLimits(o config.Options) vswitch.StormLimits {
	return vswitch.StormLimits{Broadcast: o.Int("storm_broadcast"), Unknown: o.Int("storm_unknown"), Multicast: o.Int("storm_multicast")}
}

var vlanModes = map[config.VLANMode]vswitch.VLANMode{
	config.Access: vswitch.Access, config.Trunk: vswitch.Trunk,
	config.NativeTagged: vswitch.NativeTagged, config.NativeUntagged: vswitch.NativeUntagged,
}

func vlan(v config.VLANs) vswitch.VLAN {
	return vswitch.VLAN{Mode: vlanModes[v.Mode], Tag: v.Tag, Trunks: vlanSet(v.Trunks)}
}

// vlanSet turns ranges into a set; nil, which is all, where they hold them all.
func vlanSet(ranges []config.Range) *vswitch.VLANSet {
	if len(ranges) == 0 || len(ranges) == 1 && ranges[0].First == 0 && ranges[0].Last >= 4094 {
		return nil
	}
	return setOf(ranges)
}

func setOf(ranges []config.Range) *vswitch.VLANSet {
	set := new(vswitch.VLANSet)
	for _, r := range ranges {
		for v := r.First; v <= r.Last; v++ {
			set.Add(v)
		}
	}
	return set
}

// Mirror turns a mirror's options into what the switch wants to be told. Where it
// writes a file, the Sink is the caller's to add.
func Mirror(m config.Mirror) vswitch.MirrorConfig {
	o := m.Options
	c := vswitch.MirrorConfig{
		Name: m.Name, All: o.Bool("select_all"), Src: o.List("select_src_port"), Dst: o.List("select_dst_port"),
		OutPort: o.Text("output_port"), OutVLAN: -1, Snap: o.Int("snaplen"),
	}
	if o.IsSet("select_vlan") {
		c.VLANs = vlanSet(o.Ranges("select_vlan"))
	}
	if o.IsSet("output_vlan") {
		c.OutVLAN = o.Int("output_vlan")
	}
	return c
}

// Statics are a bridge's static MACs.
func Statics(b *config.Bridge) (all []vswitch.StaticMAC) {
	for _, m := range b.FDB {
		s := vswitch.StaticMAC{VLAN: uint16(m.VLAN), Port: m.Port}
		mac, _ := net.ParseMAC(m.MAC) // the document was validated
		copy(s.MAC[:], mac)
		all = append(all, s)
	}
	return all
}
