package config

import (
	"cmp"
	"slices"
)

// Diff says what changes from one document to another: a row for each bridge,
// port, mirror, sFlow, static MAC and mesh that comes or goes, and one for each option. Rows
// stand in the order of the documents, and Diff(to, from) is the same rows the
// other way about. Both documents must be in canonical form.
func Diff(from, to Document) []Change {
	d := &differ{}
	merge(from.Bridges, to.Bridges, func(a, b Bridge) int { return cmp.Compare(a.Name, b.Name) }, d.bridge)
	merge(from.Meshes, to.Meshes, func(a, b Mesh) int { return cmp.Compare(a.Name, b.Name) }, d.mesh)
	return d.rows
}

type differ struct{ rows []Change }

// merge walks two sorted lists and calls visit with what is in one of them (the
// other is nil) or in both.
func merge[T any](from, to []T, order func(a, b T) int, visit func(from, to *T)) {
	for len(from) > 0 || len(to) > 0 {
		way := 0
		switch {
		case len(from) == 0:
			way = 1
		case len(to) == 0:
			way = -1
		default:
			way = order(from[0], to[0])
		}
		switch {
		case way < 0:
			visit(&from[0], nil)
			from = from[1:]
		case way > 0:
			visit(nil, &to[0])
			to = to[1:]
		default:
			visit(&from[0], &to[0])
			from, to = from[1:], to[1:]
		}
	}
}

// entry adds a row when a list's entry comes or goes; text says what it is.
func (d *differ) entry(path string, gone, come bool, text string) {
	switch {
	case gone:
		d.rows = append(d.rows, Change{What: "remove", Path: path, From: text})
	case come:
		d.rows = append(d.rows, Change{What: "add", Path: path, To: text})
	}
}

func (d *differ) value(path, from, to string) {
	switch {
	case from == to:
	case from == "":
		d.rows = append(d.rows, Change{What: "add", Path: path, To: to})
	case to == "":
		d.rows = append(d.rows, Change{What: "remove", Path: path, From: from})
	default:
		d.rows = append(d.rows, Change{What: "change", Path: path, From: from, To: to})
	}
}

func (d *differ) options(path string, from, to Options) {
	names := append(from.Names(), to.Names()...)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		d.value(path+"."+name, from[name], to[name])
	}
}

func (d *differ) mesh(from, to *Mesh) {
	var none Mesh
	gone, come := to == nil, from == nil
	if come {
		from = &none
	}
	if gone {
		to = &none
	}
	path := meshPath(cmp.Or(from.Name, to.Name))
	d.entry(path, gone, come, "")
	d.options(path, from.Options, to.Options)
}

func (d *differ) bridge(from, to *Bridge) {
	var none Bridge
	gone, come := to == nil, from == nil
	if come {
		from = &none
	}
	if gone {
		to = &none
	}
	name := cmp.Or(from.Name, to.Name)
	path := bridgePath(name)
	d.entry(path, gone, come, "")
	d.options(path, from.Options, to.Options)
	merge(from.Ports, to.Ports, func(a, b Port) int { return cmp.Compare(a.Name, b.Name) }, func(from, to *Port) {
		var none Port
		gone, come := to == nil, from == nil
		if come {
			from = &none
		}
		if gone {
			to = &none
		}
		path := portPath(name, cmp.Or(from.Name, to.Name))
		if gone || come {
			text := from.Object()
			if come {
				text = to.Object()
			}
			d.entry(path, gone, come, string(text))
		} else {
			d.value(path+".type", string(from.Object()), string(to.Object()))
		}
		d.options(path, from.Options, to.Options)
	})
	merge(from.Mirrors, to.Mirrors, func(a, b Mirror) int { return cmp.Compare(a.Name, b.Name) }, func(from, to *Mirror) {
		var none Mirror
		gone, come := to == nil, from == nil
		if come {
			from = &none
		}
		if gone {
			to = &none
		}
		path := mirrorPath(name, cmp.Or(from.Name, to.Name))
		d.entry(path, gone, come, "")
		d.options(path, from.Options, to.Options)
	})
	d.entry(sflowPath(name), from.SFlow != nil && to.SFlow == nil, from.SFlow == nil && to.SFlow != nil, "")
	d.options(sflowPath(name), from.SFlow, to.SFlow)
	merge(from.FDB, to.FDB, compareMACs, func(from, to *StaticMAC) {
		var was, will string
		at := from
		if from != nil {
			was = from.Port
		}
		if to != nil {
			will, at = to.Port, to
		}
		d.value(fdbPath(name, *at), was, will)
	})
}
