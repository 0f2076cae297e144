package config

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// The canonical form: lists sorted, a port's type written out, option values in
// canonical spelling. Everything that compares, prints or reads a document
// relies on it; Parse, Apply and Validate establish it.

// Clone shares nothing with d.
func (d Document) Clone() Document {
	c := Document{Bridges: slices.Clone(d.Bridges), Meshes: slices.Clone(d.Meshes)}
	for i := range c.Bridges {
		c.Bridges[i] = c.Bridges[i].Clone()
	}
	for i := range c.Meshes {
		c.Meshes[i].Options = maps.Clone(c.Meshes[i].Options)
	}
	return c
}

// Clone shares nothing with b.
func (b Bridge) Clone() Bridge {
	b.Options = maps.Clone(b.Options)
	b.Ports = slices.Clone(b.Ports)
	for i := range b.Ports {
		b.Ports[i].Options = maps.Clone(b.Ports[i].Options)
	}
	b.Mirrors = slices.Clone(b.Mirrors)
	for i := range b.Mirrors {
		b.Mirrors[i].Options = maps.Clone(b.Mirrors[i].Options)
	}
	b.SFlow = maps.Clone(b.SFlow)
	b.FDB = slices.Clone(b.FDB)
	return b
}

// Equal compares documents in canonical form. No options and empty options are
// equal, and so are no ports and an empty list of them.
func (d Document) Equal(other Document) bool {
	return slices.EqualFunc(d.Bridges, other.Bridges, Bridge.Equal) && slices.EqualFunc(d.Meshes, other.Meshes, Mesh.Equal)
}

// Equal compares bridges in canonical form.
func (b Bridge) Equal(o Bridge) bool {
	return b.Name == o.Name && maps.Equal(b.Options, o.Options) && slices.EqualFunc(b.Ports, o.Ports, Port.Equal) &&
		slices.EqualFunc(b.Mirrors, o.Mirrors, Mirror.Equal) && maps.Equal(b.SFlow, o.SFlow) && slices.Equal(b.FDB, o.FDB)
}

// Equal compares ports in canonical form.
func (p Port) Equal(o Port) bool {
	return p.Name == o.Name && p.Object() == o.Object() && p.Mesh == o.Mesh && maps.Equal(p.Options, o.Options)
}

// Equal compares mirrors in canonical form.
func (m Mirror) Equal(o Mirror) bool {
	return m.Name == o.Name && maps.Equal(m.Options, o.Options)
}

// Equal compares meshes in canonical form.
func (m Mesh) Equal(o Mesh) bool {
	return m.Name == o.Name && maps.Equal(m.Options, o.Options)
}

// Bridge finds a bridge by name in a document in canonical form, nil when there
// is none. The pointer is into d.
func (d *Document) Bridge(name string) *Bridge {
	if i, ok := slices.BinarySearchFunc(d.Bridges, name, func(b Bridge, n string) int { return cmp.Compare(b.Name, n) }); ok {
		return &d.Bridges[i]
	}
	return nil
}

// Mesh finds a mesh by name in a document in canonical form, nil when there is
// none. The pointer is into d.
func (d *Document) Mesh(name string) *Mesh {
	if i, ok := d.meshIndex(name); ok {
		return &d.Meshes[i]
	}
	return nil
}

func (d *Document) meshIndex(name string) (int, bool) {
	return slices.BinarySearchFunc(d.Meshes, name, func(m Mesh, n string) int { return cmp.Compare(m.Name, n) })
}

// Port finds a port by name in a bridge in canonical form, nil when there is
// none; the local port is not among them. The pointer is into b.
func (b *Bridge) Port(name string) *Port {
	if i, ok := b.portIndex(name); ok {
		return &b.Ports[i]
	}
	return nil
}

func (b *Bridge) portIndex(name string) (int, bool) {
	return slices.BinarySearchFunc(b.Ports, name, func(p Port, n string) int { return cmp.Compare(p.Name, n) })
}

func (b *Bridge) mirrorIndex(name string) (int, bool) {
	return slices.BinarySearchFunc(b.Mirrors, name, func(m Mirror, n string) int { return cmp.Compare(m.Name, n) })
}

func (b *Bridge) fdbIndex(mac string, vlan int) (int, bool) {
	return slices.BinarySearchFunc(b.FDB, StaticMAC{MAC: mac, VLAN: vlan}, compareMACs)
}

// Local is the bridge's local port: type local, and those options of the bridge
// that are its local port's.
func (b *Bridge) Local() Port {
	p := Port{Name: b.Name, Type: string(LocalPort), Options: Options{}}
	for name, value := range b.Options {
		if o := find(name); o != nil && o.Applies(LocalPort) {
			p.Options[name] = value
		}
	}
	return p
}

// Object is the port's type; the empty word is packet.
func (p Port) Object() Object {
	if p.Type == "" {
		return PacketPort
	}
	return Object(p.Type)
}

// compareMACs orders static MACs: by address, then VLAN.
func compareMACs(a, b StaticMAC) int {
	return cmp.Or(cmp.Compare(a.MAC, b.MAC), cmp.Compare(a.VLAN, b.VLAN))
}

// Paths name what an error or a change is about.

func bridgePath(bridge string) string { return entry("bridges", bridge) }

func portPath(bridge, port string) string { return entry(bridgePath(bridge)+".ports", port) }

func mirrorPath(bridge, mirror string) string { return entry(bridgePath(bridge)+".mirrors", mirror) }

func sflowPath(bridge string) string { return bridgePath(bridge) + ".sflow" }

func meshPath(mesh string) string { return entry("meshes", mesh) }

func fdbPath(bridge string, m StaticMAC) string {
	return entry(bridgePath(bridge)+".fdb", fmt.Sprintf("%d,%s", m.VLAN, m.MAC))
}

// entry is list[name]. A name that could not be one is quoted, so that it does
// no harm to a terminal.
func entry(list, name string) string {
	if len(name) > maxPatchName || !printable(name) {
		name = shown(name)
	}
	return list + "[" + name + "]"
}

// canonicalise puts d in canonical form and reports each value that has none. It
// writes nothing to a document that is canonical: others may be reading it.
func (d *Document) canonicalise(r *report) {
	for i := range d.Bridges {
		b := &d.Bridges[i]
		path := bridgePath(b.Name)
		b.Options.canonicalise(BridgeObject, path, r)
		for j := range b.Ports {
			p := &b.Ports[j]
			where := portPath(b.Name, p.Name)
			if p.Type == "" {
				p.Type = string(PacketPort)
			}
			if e := checkPortType(p.Type); e != nil {
				e.Path = where + ".type"
				r.add(e)
				continue // which options it may have depends on the type
			}
			p.Options.canonicalise(p.Object(), where, r)
		}
		for j := range b.Mirrors {
			b.Mirrors[j].Options.canonicalise(MirrorObject, mirrorPath(b.Name, b.Mirrors[j].Name), r)
		}
		b.SFlow.canonicalise(SFlowObject, sflowPath(b.Name), r)
		for j := range b.FDB {
			if mac, ok := parseMAC(b.FDB[j].MAC); ok {
				b.FDB[j].MAC = mac
			}
		}
	}
	for i := range d.Meshes {
		d.Meshes[i].Options.canonicalise(MeshObject, meshPath(d.Meshes[i].Name), r)
	}
	d.sort()
}

func (d *Document) sort() {
	for i := range d.Bridges {
		b := &d.Bridges[i]
		slices.SortStableFunc(b.Ports, func(x, y Port) int { return strings.Compare(x.Name, y.Name) })
		slices.SortStableFunc(b.Mirrors, func(x, y Mirror) int { return strings.Compare(x.Name, y.Name) })
		slices.SortStableFunc(b.FDB, compareMACs)
	}
	slices.SortStableFunc(d.Bridges, func(x, y Bridge) int { return strings.Compare(x.Name, y.Name) })
	slices.SortStableFunc(d.Meshes, func(x, y Mesh) int { return strings.Compare(x.Name, y.Name) })
}

// canonicalise rewrites only values that are not canonical, so that options in
// canonical form can be shared by readers.
func (o Options) canonicalise(object Object, path string, r *report) {
	for _, name := range o.Names() {
		if row := find(name); (row == nil || !row.Applies(object)) && r.full() {
			continue
		}
		value, e := canonicalOption(object, path, name, o[name])
		if e != nil {
			r.add(e)
		} else if value != o[name] {
			o[name] = value
		}
	}
}

// canonicalOption looks one option up and reads its value; the error has its path.
func canonicalOption(object Object, path, name, value string) (string, *Error) {
	row, e := lookup(object, name)
	if e != nil {
		e.Path = path
		return "", e
	}
	canonical, e := row.at(object).canonical(value)
	if e != nil {
		e.Path = path + "." + name
		return "", e
	}
	return canonical, nil
}

// Names lists the options that are set, sorted.
func (o Options) Names() []string {
	return slices.Sorted(maps.Keys(o))
}
