package config

import (
	"slices"
	"strings"
)

// Edits of meshes.

// mesh finds a mesh; its error names what is near.
func (e *editor) mesh(name string) (*Mesh, error) {
	if m := e.d.Mesh(name); m != nil {
		return m, nil
	}
	if name == "" {
		return nil, refuse("", "names no mesh")
	}
	var names []string
	for _, m := range e.d.Meshes {
		names = append(names, m.Name)
	}
	return nil, refuse(name, "no mesh is named %s%s", shown(name), didYouMean(name, names))
}

func (e *editor) addMesh(op Op) error {
	i, exists := e.d.meshIndex(op.Mesh)
	switch {
	case exists && !op.MayExist:
		return refuse(op.Mesh, "mesh %q exists already", op.Mesh)
	case !exists:
		if why := badName(op.Mesh, maxMeshName); why != "" {
			return refuse(op.Mesh, "%s %s", shown(op.Mesh), why)
		}
		e.d.Meshes = slices.Insert(e.d.Meshes, i, Mesh{Name: op.Mesh})
	}
	return setMesh(&e.d.Meshes[i], op.Options)
}

func (e *editor) setMesh(op Op) error {
	m, err := e.mesh(op.Mesh)
	if err != nil {
		return err
	}
	return setMesh(m, op.Options)
}

// setMesh sets options as they were typed. Beside `peers` there are `peers+`,
// which adds to the list that is there, and `peers-`, which takes from it:
// who adds the hundredth host need not know the others.
func setMesh(m *Mesh, typed Options) error {
	plus, isPlus := typed["peers+"]
	minus, isMinus := typed["peers-"]
	if isPlus || isMinus {
		if typed.IsSet("peers") {
			return refuse("", "peers is given beside peers+ or peers-: want the whole list, or what changes in it")
		}
		peers, err := editPeers(m.Peers(), plus, minus)
		if err != nil {
			return err
		}
		next := make(Options, len(typed))
		for name, value := range typed {
			next[name] = value
		}
		delete(next, "peers+")
		delete(next, "peers-")
		next["peers"] = strings.Join(peers, ",")
		typed = next
	}
	return set(&m.Options, typed, MeshObject, meshPath(m.Name))
}

// editPeers takes what stands in minus from peers and adds what stands in plus.
func editPeers(peers []string, plus, minus string) ([]string, error) {
	for _, word := range splitList(minus) {
		host, why := parseHost(word)
		if why != "" {
			host = word // it is not among them: say that
		}
		i := slices.Index(peers, host)
		if i < 0 {
			return nil, refuse(word, "%s is not among the peers%s", shown(word), didYouMean(word, peers))
		}
		peers = slices.Delete(peers, i, i+1)
	}
	return append(peers, splitList(plus)...), nil
}

func (e *editor) delMesh(op Op) error {
	m, err := e.mesh(op.Mesh)
	if err != nil {
		if op.IfExists && op.Mesh != "" {
			return nil
		}
		return err
	}
	name := m.Name
	e.d.Meshes = slices.DeleteFunc(e.d.Meshes, func(m Mesh) bool { return m.Name == name })
	return nil
}
