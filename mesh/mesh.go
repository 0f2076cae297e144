// Package mesh is hosts that tunnel to each other. It says what a mesh is made
// of: which tunnel ports, with which options. It opens no tunnel, resolves no
// name and does not know which of the peers is this host.
//
// Its one idea: a mesh is nothing but its ports. Expand writes them out, and
// everything that comes after sees ports alone.
package mesh

import (
	"cmp"
	"slices"
	"strconv"

	"vswitch/ctl/config"
)

// Expand returns d with the ports of its meshes in their bridges: one to each
// peer, with every option written out, and Mesh set to the mesh's name. The meshes
// are left in d. d is not changed, but is shared where nothing was added; it must
// be valid. The outcome is in canonical form.
func Expand(d config.Document) config.Document {
	if len(d.Meshes) == 0 {
		return d
	}
	out := config.Document{Bridges: slices.Clone(d.Bridges), Meshes: d.Meshes}
	grown := make(map[*config.Bridge]bool)
	for _, m := range d.Meshes {
		b := out.Bridge(m.Options["bridge"])
		if b == nil {
			continue // d is not valid
		}
		if !grown[b] {
			grown[b] = true
			b.Ports = slices.Clone(b.Ports)
		}
		b.Ports = append(b.Ports, Ports(m)...)
	}
	for b := range grown {
		slices.SortFunc(b.Ports, func(x, y config.Port) int { return cmp.Compare(x.Name, y.Name) })
	}
	return out
}

// Ports lists the tunnel ports that m stands for, in the order of its peers.
func Ports(m config.Mesh) []config.Port {
	kind := m.Type()
	common := config.Options{}
	for _, o := range config.OptionsFor(config.MeshObject) {
		value := m.Text(o.Name)
		switch {
		case o.Name == "bridge", o.Name == "type", o.Name == "peers":
			// what the ports are of, and where
		case o.Name == "port":
			if n := config.DefaultTunnelPort(kind); value == "" && n != 0 {
				value = strconv.Itoa(int(n))
			}
			if value != "" {
				common["dst_port"] = value
			}
		case value != "":
			common[o.Name] = value
		}
	}
	peers := m.Peers()
	ports := make([]config.Port, len(peers))
	for i, peer := range peers {
		o := make(config.Options, len(common)+1)
		for name, value := range common {
			o[name] = value
		}
		o["remote_ip"] = peer
		ports[i] = config.Port{Name: config.MeshPort(m.Name, peer), Type: string(kind), Options: o, Mesh: m.Name}
	}
	return ports
}
