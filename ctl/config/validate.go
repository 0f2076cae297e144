package config

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
)

// The bounds of a document.
const (
	maxBridges    = 4096
	maxPorts      = 16384 // of one bridge
	maxMirrors    = 64    // of one bridge
	maxStaticMACs = 65536 // of one bridge
	maxMeshes     = 4096
)

// Validate judges the whole document and puts it in canonical form on the way
// (sorted, types written out, values in canonical spelling). The error is an
// *Error, or Errors when more than one thing is wrong: at most 20 of them and a
// count of the rest. What only the machine can know, such as whether an
// interface exists, is not judged here.
func (d *Document) Validate() error {
	r := &report{}
	// Bounds come first: what follows costs time and memory by the entry.
	if !d.bounded(r) {
		return r.err()
	}
	d.canonicalise(r)
	d.checkNames(r)
	d.checkPatches(r)
	d.checkPlugs(r)
	d.checkCaptures(r)
	d.checkTunnels(r)
	d.checkMeshes(r)
	d.checkUniqueTunnels(r)
	for i := range d.Bridges {
		b := &d.Bridges[i]
		checkVLANs(b.Options, bridgePath(b.Name), r)
		for _, p := range b.Ports {
			checkVLANs(p.Options, portPath(b.Name, p.Name), r)
		}
		for _, m := range b.Mirrors {
			d.checkMirror(b, m, r)
		}
		b.checkSFlow(r)
		b.checkFDB(r)
	}
	return r.err()
}

func (d *Document) bounded(r *report) bool {
	check := func(path, what string, n, limit int) {
		if n > limit {
			r.add(&Error{Path: path, Value: strconv.Itoa(n), Allowed: fmt.Sprintf("at most %d", limit),
				Message: fmt.Sprintf("%d %s are too many: want at most %d", n, what, limit)})
		}
	}
	check("bridges", "bridges", len(d.Bridges), maxBridges)
	check("meshes", "meshes", len(d.Meshes), maxMeshes)
	for i := range d.Bridges {
		b := &d.Bridges[i]
		path := bridgePath(b.Name)
		check(path+".ports", "ports", len(b.Ports), maxPorts)
		check(path+".mirrors", "mirrors", len(b.Mirrors), maxMirrors)
		check(path+".fdb", "static MACs", len(b.FDB), maxStaticMACs)
	}
	return len(r.errs) == 0
}

// checkNames judges names, and that each is used once: bridges (their local
// ports), interfaces, patch and tunnel ports share one space, mirrors have their
// bridge's, and meshes have their own.
func (d *Document) checkNames(r *report) {
	users := make(map[string]string) // by name: the path of who has it
	use := func(name, path string, limit int) {
		if why := badName(name, limit); why != "" {
			r.add(&Error{Path: path, Value: name, Message: shown(name) + " " + why})
			return
		}
		if first, taken := users[name]; taken && first == path {
			r.addf(path, "is there twice")
		} else if taken {
			r.add(&Error{Path: path, Value: name, Message: fmt.Sprintf("the name %q is taken by %s", name, first)})
		} else {
			users[name] = path
		}
	}
	for i := range d.Bridges {
		use(d.Bridges[i].Name, bridgePath(d.Bridges[i].Name), maxInterfaceName)
	}
	for i := range d.Bridges {
		b := &d.Bridges[i]
		for _, p := range b.Ports {
			use(p.Name, portPath(b.Name, p.Name), p.Object().nameLimit())
		}
		for j, m := range b.Mirrors {
			path := mirrorPath(b.Name, m.Name)
			if why := badName(m.Name, maxPatchName); why != "" {
				r.add(&Error{Path: path, Value: m.Name, Message: shown(m.Name) + " " + why})
			} else if j > 0 && b.Mirrors[j-1].Name == m.Name {
				r.addf(path, "is there twice")
			}
		}
	}
	for i, m := range d.Meshes {
		if why := badName(m.Name, maxMeshName); why != "" {
			r.add(&Error{Path: meshPath(m.Name), Value: m.Name, Message: shown(m.Name) + " " + why})
		} else if i > 0 && d.Meshes[i-1].Name == m.Name {
			r.addf(meshPath(m.Name), "is there twice")
		}
	}
}

// checkPatches judges peers. A peer that is not there is no error: the port waits.
func (d *Document) checkPatches(r *report) {
	type place struct {
		bridge string
		port   *Port
	}
	ports := make(map[string]place)
	for i := range d.Bridges {
		b := &d.Bridges[i]
		ports[b.Name] = place{bridge: b.Name}
		for j := range b.Ports {
			ports[b.Ports[j].Name] = place{b.Name, &b.Ports[j]}
		}
	}
	claimed := make(map[string]string) // by peer: the patch port that names it
	for i := range d.Bridges {
		b := &d.Bridges[i]
		for _, p := range b.Ports {
			if p.Object() != PatchPort {
				continue
			}
			path := portPath(b.Name, p.Name) + ".peer"
			peer := p.Options["peer"]
			wrong := func(format string, args ...any) {
				r.add(&Error{Path: path, Value: peer, Message: fmt.Sprintf(format, args...)})
			}
			other, there := ports[peer]
			switch {
			case peer == "":
				wrong("a patch port needs a peer: the name of a patch port of another bridge")
			case peer == p.Name:
				wrong("a patch port cannot be its own peer")
			case there && (other.port == nil || other.port.Object() != PatchPort):
				wrong("%q is not a patch port", peer)
			case there && other.bridge == b.Name:
				wrong("%q is in the same bridge: want a patch port of another bridge", peer)
			case there && other.port.Options["peer"] != p.Name:
				wrong("%q is the peer of %q: want a patch port whose peer is %q", peer, other.port.Options["peer"], p.Name)
			case claimed[peer] != "":
				wrong("%q is the peer of %q already", peer, claimed[peer])
			default:
				claimed[peer] = p.Name
			}
		}
	}
}

// checkVLANs judges what tag, trunks and vlan_mode say together (OVS:
// vswitch.xml, Port table, "VLAN Configuration"). Where OVS ignores an option
// and logs it, the document is refused: nobody reads that log.
func checkVLANs(o Options, path string, r *report) {
	_, tag := o["tag"]
	trunks, hasTrunks := o["trunks"]
	mode := o.vlanMode()
	if _, known := vlanModes[mode]; !known {
		return // was reported as a value
	}
	switch {
	case mode == Access && !tag:
		r.addf(path+".vlan_mode", "access needs a tag")
	case mode.native() && !tag:
		r.addf(path+".vlan_mode", "%s needs a tag, the native VLAN", mode)
	case mode == Trunk && tag:
		r.add(&Error{Path: path + ".tag", Value: o["tag"], Message: "a trunk has no tag: " +
			"unset it, or set vlan_mode to native-tagged or native-untagged"})
	}
	if mode == Access && hasTrunks {
		r.add(&Error{Path: path + ".trunks", Value: trunks, Message: "an access port carries no trunks: " +
			"unset them, or set vlan_mode to native-tagged or native-untagged"})
	}
}

// checkMirror judges one mirror. An output_port that is selected by name is
// refused, since it carries copies only and would be copied to itself; under
// select_all it is simply not selected (OVS: Mirror:output_port reserves the port).
func (d *Document) checkMirror(b *Bridge, m Mirror, r *report) {
	path := mirrorPath(b.Name, m.Name)
	o := m.Options
	portCheck := func(option, port string) {
		if port != b.Name && b.Port(port) == nil && !r.full() {
			r.add(&Error{Path: path + "." + option, Value: port,
				Message: fmt.Sprintf("%s is not a port of %s%s", shown(port), b.Name, didYouMean(port, b.portNames()))})
		}
	}
	selected := false
	for _, option := range []string{"select_src_port", "select_dst_port"} {
		names := splitList(o[option])
		selected = selected || len(names) > 0
		for _, name := range names {
			if !d.hasMeshPort(b.Name, name) {
				portCheck(option, name)
			}
		}
		if out := o["output_port"]; out != "" && slices.Contains(names, out) {
			r.add(&Error{Path: path + "." + option, Value: out,
				Message: fmt.Sprintf("%q is the mirror's output_port: it carries copies only and cannot be mirrored", out)})
		}
	}
	if !selected && o["select_all"] != "true" {
		message := "selects nothing: want select_all=true, select_src_port or select_dst_port"
		if o["select_vlan"] != "" {
			message += " (select_vlan narrows what these select)"
		}
		r.addf(path, "%s", message)
	}

	var outputs []string
	for _, option := range []string{"output_port", "output_vlan", "output_pcap"} {
		if o[option] != "" {
			outputs = append(outputs, option)
		}
	}
	switch {
	case len(outputs) == 0:
		r.addf(path, "has no output: want one of output_port, output_vlan and output_pcap")
	case len(outputs) > 1:
		r.addf(path, "has %s: want only one of them", andList(outputs))
	}
	if out := o["output_port"]; out != "" {
		portCheck("output_port", out)
	}
	for _, option := range []string{"rotate", "files"} {
		if o[option] != "" && o["output_pcap"] == "" {
			r.addf(path+"."+option, "is for output_pcap only")
		}
	}
	if o["files"] != "" && o["rotate"] == "" {
		r.addf(path+".files", "needs rotate, the size at which a file is full")
	}
}

// checkCaptures judges that each capture file has one writer: two would make
// garbage of it. A mirror that rotates writes x.1.pcapng, x.2.pcapng … beside
// x.pcapng (capture.FileOptions). Two such names of different sets are never the
// same one, so it is enough to look at the first file of each.
func (d *Document) checkCaptures(r *report) {
	type writer struct {
		bridge, mirror string
		files          int
	}
	first := make(map[string]writer) // by path
	eachCapture := func(visit func(b *Bridge, m Mirror, file string)) {
		for i := range d.Bridges {
			for _, m := range d.Bridges[i].Mirrors {
				if file := m.Options["output_pcap"]; file != "" {
					visit(&d.Bridges[i], m, file)
				}
			}
		}
	}
	clash := func(b *Bridge, m Mirror, file string, w writer, how string) {
		r.add(&Error{Path: mirrorPath(b.Name, m.Name) + ".output_pcap", Value: file, Message: fmt.Sprintf(
			"%s is written by mirror %q of %s%s: each mirror needs files of its own", shown(file), w.mirror, w.bridge, how)})
	}
	eachCapture(func(b *Bridge, m Mirror, file string) {
		w := writer{b.Name, m.Name, 1}
		if m.Options["rotate"] != "" {
			w.files = m.Options.Int("files")
		}
		if other, taken := first[file]; taken {
			clash(b, m, file, other, " already")
			return
		}
		first[file] = w
	})
	eachCapture(func(b *Bridge, m Mirror, file string) {
		for _, set := range rotatedFrom(file) {
			if w, there := first[set.file]; there && set.slot < w.files {
				clash(b, m, file, w, fmt.Sprintf(" when it rotates (files=%d)", w.files))
			}
		}
	})
}

// rotated is a place in a set of capture files.
type rotated struct {
	file string // the first of the set
	slot int
}

// rotatedFrom lists the sets that a file can be a later file of: dir/x.2.pcapng is
// the third of dir/x.pcapng, and dir/x.2 the third of dir/x.
func rotatedFrom(file string) (sets []rotated) {
	add := func(stem, ext string) {
		number := path.Ext(stem)
		if n, ok := decimal(strings.TrimPrefix(number, ".")); ok && n > 0 && number == "."+strconv.Itoa(n) {
			sets = append(sets, rotated{strings.TrimSuffix(stem, number) + ext, n})
		}
	}
	ext := path.Ext(file)
	add(strings.TrimSuffix(file, ext), ext)
	if stem := strings.TrimSuffix(file, ext); path.Ext(stem) == "" {
		add(file, "")
	}
	return sets
}

// checkSFlow judges that what is exported has somewhere to go.
func (b *Bridge) checkSFlow(r *report) {
	if b.SFlow != nil && b.SFlow["target"] == "" {
		r.add(&Error{Path: sflowPath(b.Name) + ".target", Allowed: find("target").Allowed(),
			Message: "is missing: want " + find("target").Allowed()})
	}
}

// portNames lists the names a mirror or a static MAC may give, the local port first.
func (b *Bridge) portNames() []string {
	names := []string{b.Name}
	for _, p := range b.Ports {
		names = append(names, p.Name)
	}
	return names
}

func (b *Bridge) checkFDB(r *report) {
	path := bridgePath(b.Name) + ".fdb"
	if size := b.Options.Int("mac-table-size"); size > 0 && len(b.FDB) > size {
		r.addf(path, "%d static MACs do not fit in mac-table-size %d", len(b.FDB), size)
	}
	admitted := make(map[string]*VLANs)
	for i, m := range b.FDB {
		where := fdbPath(b.Name, m)
		if _, ok := parseMAC(m.MAC); !ok {
			e := find("mac").wrong(m.MAC, "is not a unicast MAC address")
			e.Path = where + ".mac"
			r.add(e)
		}
		if m.VLAN < 0 || m.VLAN > maxVLAN {
			r.add(&Error{Path: where + ".vlan", Value: strconv.Itoa(m.VLAN), Allowed: find("tag").Allowed(),
				Message: fmt.Sprintf("\"%d\" is not a VLAN: want %s", m.VLAN, find("tag").Allowed())})
			continue
		}
		if i > 0 && compareMACs(b.FDB[i-1], m) == 0 {
			r.addf(where, "is there twice")
		}
		v := admitted[m.Port]
		if v == nil {
			p := b.Port(m.Port)
			if m.Port == b.Name {
				local := b.Local()
				p = &local
			}
			if p == nil && r.full() {
				continue
			}
			if p == nil {
				r.add(&Error{Path: where + ".port", Value: m.Port,
					Message: fmt.Sprintf("%s is not a port of %s%s", shown(m.Port), b.Name, didYouMean(m.Port, b.portNames()))})
				continue
			}
			vlans := p.VLANs()
			v = &vlans
			admitted[m.Port] = v
		}
		if !v.Admits(uint16(m.VLAN)) {
			r.add(&Error{Path: where + ".vlan", Value: strconv.Itoa(m.VLAN), Allowed: v.allowed(),
				Message: fmt.Sprintf("port %s does not carry VLAN %d: want %s", m.Port, m.VLAN, v.allowed())})
		}
	}
}

// allowed says which VLANs are admitted.
func (v *VLANs) allowed() string {
	if v.Mode == Access {
		return strconv.Itoa(int(v.Tag))
	}
	return strings.ReplaceAll(vlanText(v.carried()), ",", ", ")
}
