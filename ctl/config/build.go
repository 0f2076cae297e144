package config

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// builder turns a tree into a document, gathering what is wrong on the way.
type builder struct{ report }

func (b *builder) wrong(n *yaml.Node, path, format string, args ...any) {
	b.add(&Error{Path: path, Line: n.Line, Message: fmt.Sprintf(format, args...)})
}

// fields are the values of a mapping by key. Keys are checked by who reads them.
type fields struct {
	at     *yaml.Node
	keys   []*yaml.Node
	values map[string]*yaml.Node
}

// mapping reads n as a mapping whose keys are scalars, each written once.
func (b *builder) mapping(n *yaml.Node, path, what string) (fields, bool) {
	f := fields{at: n}
	if n.Kind != yaml.MappingNode {
		b.wrong(n, path, "%s is %s: want a mapping with a name", what, nodeKind(n))
		return f, false
	}
	f.values = make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		if k.Kind != yaml.ScalarNode {
			b.wrong(k, path, "a key is %s: want a word", nodeKind(k))
		} else if first := f.values[k.Value]; first != nil {
			b.wrong(k, path, "%s is written twice (first on line %d)", shown(k.Value), first.Line)
		} else {
			f.keys = append(f.keys, k)
			f.values[k.Value] = n.Content[i+1]
		}
	}
	return f, true
}

// entryPath is list[name], or list[#1] for an entry that has no name.
func entryPath(n *yaml.Node, list string, index int) string {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if k, v := n.Content[i], n.Content[i+1]; k.Kind == yaml.ScalarNode && k.Value == "name" && isName(v) {
			return entry(list, v.Value)
		}
	}
	return fmt.Sprintf("%s[#%d]", list, index+1)
}

func isName(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && !isNull(n) && n.Value != "" }

// name reads the name of an object that stands at index of a list.
func (b *builder) name(f fields, list string, index int) (name, path string, ok bool) {
	path = entryPath(f.at, list, index)
	switch n := f.values["name"]; {
	case n == nil:
		b.wrong(f.at, path, "has no name")
	case !isName(n):
		b.wrong(n, path+".name", "is %s: want a name", nodeKind(n))
	default:
		return n.Value, path, true
	}
	return "", path, false
}

// list calls each for the entries of a list. No value is an empty list.
func (b *builder) list(n *yaml.Node, path string, limit int, each func(i int, n *yaml.Node)) {
	switch {
	case n == nil || isNull(n):
	case n.Kind != yaml.SequenceNode:
		b.wrong(n, path, "is %s: want a list", nodeKind(n))
	case len(n.Content) > limit:
		b.wrong(n, path, "%d entries are too many: want at most %d", len(n.Content), limit)
	default:
		for i, c := range n.Content {
			each(i, c)
		}
	}
}

// once reports a name that its list holds already.
func (b *builder) once(seen map[string]int, n *yaml.Node, path, name string) bool {
	if first, ok := seen[name]; ok {
		b.wrong(n, path, "is there twice (first on line %d)", first)
		return false
	}
	seen[name] = n.Line
	return true
}

func (b *builder) document(n *yaml.Node) Document {
	d := Document{}
	f, ok := b.mapping(n, "", "the document")
	if !ok {
		return d
	}
	for _, k := range f.keys {
		if known := []string{"bridges", "meshes"}; !slices.Contains(known, k.Value) {
			b.wrong(k, "", "unknown key %s%s: want %s", shown(k.Value), didYouMean(k.Value, known), andList(known))
		}
	}
	list := f.values["bridges"]
	switch {
	case list == nil:
		b.wrong(n, "bridges", "is missing: write \"bridges: []\" to want no bridge")
		return d
	case isNull(list):
		b.wrong(list, "bridges", "has no value: write [] to want no bridge")
		return d
	}
	seen := map[string]int{}
	b.list(list, "bridges", maxBridges, func(i int, n *yaml.Node) {
		if br, ok := b.bridge(n, i); ok && b.once(seen, n, bridgePath(br.Name), br.Name) {
			d.Bridges = append(d.Bridges, br)
		}
	})
	meshes := map[string]int{}
	b.list(f.values["meshes"], "meshes", maxMeshes, func(i int, n *yaml.Node) {
		if m, ok := b.mesh(n, i); ok && b.once(meshes, n, meshPath(m.Name), m.Name) {
			d.Meshes = append(d.Meshes, m)
		}
	})
	return d
}

func (b *builder) mesh(n *yaml.Node, index int) (m Mesh, ok bool) {
	f, ok := b.mapping(n, entryPath(n, "meshes", index), "a mesh")
	if !ok {
		return m, false
	}
	name, path, ok := b.name(f, "meshes", index)
	if !ok {
		return m, false
	}
	m.Name, m.Options = name, b.options(f, MeshObject, path, "name")
	return m, true
}

func (b *builder) bridge(n *yaml.Node, index int) (br Bridge, ok bool) {
	f, ok := b.mapping(n, entryPath(n, "bridges", index), "a bridge")
	if !ok {
		return br, false
	}
	name, path, ok := b.name(f, "bridges", index)
	if !ok {
		return br, false
	}
	br.Name = name
	br.Options = b.options(f, BridgeObject, path, "name", "ports", "mirrors", "sflow", "fdb")
	br.SFlow = b.sflow(f.values["sflow"], sflowPath(name))
	ports, mirrors := map[string]int{}, map[string]int{}
	b.list(f.values["ports"], path+".ports", maxPorts, func(i int, n *yaml.Node) {
		if p, ok := b.port(n, path+".ports", i); ok && b.once(ports, n, portPath(name, p.Name), p.Name) {
			br.Ports = append(br.Ports, p)
		}
	})
	b.list(f.values["mirrors"], path+".mirrors", maxMirrors, func(i int, n *yaml.Node) {
		if m, ok := b.mirror(n, path+".mirrors", i); ok && b.once(mirrors, n, mirrorPath(name, m.Name), m.Name) {
			br.Mirrors = append(br.Mirrors, m)
		}
	})
	macs := map[StaticMAC]bool{}
	b.list(f.values["fdb"], path+".fdb", maxStaticMACs, func(i int, n *yaml.Node) {
		m, ok := b.static(n, fmt.Sprintf("%s.fdb[#%d]", path, i+1))
		key := StaticMAC{MAC: m.MAC, VLAN: m.VLAN}
		if ok && macs[key] {
			b.wrong(n, fdbPath(name, m), "is there twice")
		} else if ok {
			macs[key] = true
			br.FDB = append(br.FDB, m)
		}
	})
	return br, true
}

func (b *builder) port(n *yaml.Node, list string, index int) (p Port, ok bool) {
	f, ok := b.mapping(n, entryPath(n, list, index), "a port")
	if !ok {
		return p, false
	}
	name, path, ok := b.name(f, list, index)
	if !ok {
		return p, false
	}
	p.Name, p.Type = name, string(PacketPort)
	if t := f.values["type"]; t != nil {
		p.Type = t.Value
		e := checkPortType(p.Type)
		if t.Kind != yaml.ScalarNode || isNull(t) {
			e = &Error{Message: fmt.Sprintf("is %s: want %s", nodeKind(t), orList(PortTypes()))}
		}
		if e != nil {
			e.Path, e.Line = path+".type", t.Line
			b.add(e)
			return p, false
		}
		p.Type = string(p.Object())
	}
	p.Options = b.options(f, p.Object(), path, "name", "type")
	return p, true
}

func (b *builder) mirror(n *yaml.Node, list string, index int) (m Mirror, ok bool) {
	f, ok := b.mapping(n, entryPath(n, list, index), "a mirror")
	if !ok {
		return m, false
	}
	name, path, ok := b.name(f, list, index)
	if !ok {
		return m, false
	}
	m.Name, m.Options = name, b.options(f, MirrorObject, path, "name")
	return m, true
}

// sflow reads what a bridge exports. No value is nothing, as with lists; a mapping
// without options is something, in which the target is missing.
func (b *builder) sflow(n *yaml.Node, path string) Options {
	switch {
	case n == nil || isNull(n):
		return nil
	case n.Kind != yaml.MappingNode:
		b.wrong(n, path, "is %s: want a mapping with a target", nodeKind(n))
		return nil
	}
	f, _ := b.mapping(n, path, "sFlow")
	if o := b.options(f, SFlowObject, path); o != nil {
		return o
	}
	return Options{}
}

func (b *builder) static(n *yaml.Node, path string) (m StaticMAC, ok bool) {
	f, ok := b.mapping(n, path, "a static MAC")
	if !ok {
		return m, false
	}
	ok = true
	keys := []string{"mac", "vlan", "port"}
	for _, k := range f.keys {
		v := f.values[k.Value]
		at := path + "." + k.Value
		var e *Error
		switch {
		case k.Value != "mac" && k.Value != "vlan" && k.Value != "port":
			e = &Error{Path: path, Line: k.Line, Message: fmt.Sprintf("unknown key %s%s: want %s",
				shown(k.Value), didYouMean(k.Value, keys), andList(keys))}
		case v.Kind != yaml.ScalarNode || isNull(v):
			e = &Error{Path: at, Message: "is " + nodeKind(v) + ": want one value"}
		case k.Value == "mac":
			m.MAC, e = find("mac").canonical(v.Value)
		case k.Value == "port":
			m.Port, e = find("peer").canonical(v.Value)
		case k.Value == "vlan":
			var text string
			text, e = find("tag").canonical(v.Value)
			m.VLAN, _ = decimal(text)
		}
		if e != nil {
			if e.Path == "" {
				e.Path = at
			}
			if e.Line == 0 {
				e.Line = v.Line
			}
			b.add(e)
			ok = false
		}
	}
	for _, need := range []string{"mac", "port"} {
		if f.values[need] == nil {
			b.wrong(n, path, "has no %s", need)
			ok = false
		}
	}
	return m, ok
}

// options reads what stands beside the keys that are no options.
func (b *builder) options(f fields, object Object, path string, others ...string) Options {
	var o Options
	for _, k := range f.keys {
		if slices.Contains(others, k.Value) {
			continue
		}
		v := f.values[k.Value]
		text, e := "", (*Error)(nil)
		if row := find(k.Value); (row == nil || !row.Applies(object)) && b.full() {
			continue
		}
		if _, e = lookup(object, k.Value); e != nil {
			e.Path, e.Line = path, k.Line
			if !strings.Contains(e.Message, "did you mean") {
				e.Message += didYouMean(k.Value, others)
			}
		} else if text, e = scalarText(v); e != nil {
			e.Path, e.Line = path+"."+k.Value, v.Line
		} else if text, e = canonicalOption(object, path, k.Value, text); e != nil {
			e.Line = v.Line
		}
		if e != nil {
			b.add(e)
			continue
		}
		if o == nil {
			o = Options{}
		}
		o[k.Value] = text
	}
	return o
}

// scalarText is a value as one string: a scalar as written, a list of scalars
// joined by commas.
func scalarText(n *yaml.Node) (string, *Error) {
	switch {
	case n.Kind == yaml.SequenceNode:
		if len(n.Content) == 0 {
			return "", &Error{Message: "is an empty list: leave the option out to unset it"}
		}
		words := make([]string, len(n.Content))
		for i, c := range n.Content {
			if c.Kind != yaml.ScalarNode || isNull(c) {
				return "", &Error{Message: "holds " + nodeKind(c) + ": want a list of plain values"}
			}
			words[i] = c.Value
		}
		return strings.Join(words, ","), nil
	case n.Kind != yaml.ScalarNode:
		return "", &Error{Message: "is " + nodeKind(n) + ": want a value or a list of values"}
	case isNull(n) || n.Value == "":
		return "", &Error{Message: "has no value: leave the option out to unset it"}
	}
	return n.Value, nil
}

func isNull(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null" }

// nodeKind says in a message what was found.
func nodeKind(n *yaml.Node) string {
	switch {
	case n.Kind == yaml.SequenceNode:
		return "a list"
	case n.Kind == yaml.MappingNode:
		return "a mapping"
	case isNull(n):
		return "nothing"
	case n.Value == "":
		return "an empty string"
	}
	return shown(n.Value)
}
