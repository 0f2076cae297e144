package config

import (
	"fmt"
	"slices"
	"sort"
	"strings"
)

// OpError is an edit's step that could not be done. Err says why; it is an
// *Error, or Errors.
type OpError struct {
	Step int // counted from 1; 0 when the edit has one step
	Op   Op
	Err  error
}

func (e *OpError) Error() string {
	s := e.Op.String() + ": " + e.Err.Error()
	if e.Step > 0 {
		s = fmt.Sprintf("step %d: %s", e.Step, s)
	}
	return s
}

// Unwrap gives the reason.
func (e *OpError) Unwrap() error { return e.Err }

// String is the op as an error names it: add-port br0 veth1.
func (op Op) String() string {
	words := []string{op.Op}
	for _, w := range []string{op.Bridge, op.Mirror, op.Mesh, op.MAC, op.Port} {
		if w != "" {
			if !printable(w) {
				w = shown(w)
			}
			words = append(words, w)
		}
	}
	return strings.Join(words, " ")
}

// Apply does ops in order, all or none, and returns the document that comes of
// it, in canonical form and valid. It never changes d. The error is an *OpError
// when a step cannot be done, or what Validate says of the outcome.
func Apply(d Document, ops []Op) (Document, error) {
	next := d.Clone()
	next.canonicalise(&report{}) // what is wrong with d, Validate says below
	e := &editor{d: &next}
	for i, op := range ops {
		if err := e.do(op); err != nil {
			failed := &OpError{Op: op, Err: err}
			if len(ops) > 1 {
				failed.Step = i + 1
			}
			return Document{}, failed
		}
	}
	if err := next.Validate(); err != nil {
		if len(ops) == 1 {
			return Document{}, &OpError{Op: ops[0], Err: err}
		}
		return Document{}, err
	}
	return next, nil
}

// editor does ops on a document in canonical form, which it keeps in that form.
type editor struct{ d *Document }

func (e *editor) do(op Op) error {
	steps := map[string]func(Op) error{
		"add-bridge": e.addBridge, "del-bridge": e.delBridge, "set-bridge": e.setBridge,
		"add-port": e.addPort, "del-port": e.delPort, "set-port": e.setPort,
		"add-mirror": e.addMirror, "del-mirror": e.delMirror,
		"add-sflow": e.addSFlow, "del-sflow": e.delSFlow,
		"add-fdb": e.addFDB, "del-fdb": e.delFDB,
		"add-mesh": e.addMesh, "del-mesh": e.delMesh, "set-mesh": e.setMesh,
	}
	step := steps[op.Op]
	if step == nil {
		names := make([]string, 0, len(steps))
		for name := range steps {
			names = append(names, name)
		}
		slices.Sort(names)
		return refuse(op.Op, "unknown operation %s%s: want %s", shown(op.Op), didYouMean(op.Op, names), orList(names))
	}
	if len(op.Options) > 0 && (strings.HasPrefix(op.Op, "del-") || op.Op == "add-fdb") {
		return refuse("", "takes no options")
	}
	return step(op)
}

func refuse(value, format string, args ...any) *Error {
	return &Error{Value: value, Message: fmt.Sprintf(format, args...)}
}

// bridge finds a bridge; its error names what is near.
func (e *editor) bridge(name string) (*Bridge, error) {
	if b := e.d.Bridge(name); b != nil {
		return b, nil
	}
	if name == "" {
		return nil, refuse("", "names no bridge")
	}
	var names []string
	for _, b := range e.d.Bridges {
		names = append(names, b.Name)
	}
	return nil, refuse(name, "no bridge is named %s%s", shown(name), didYouMean(name, names))
}

// owner finds the bridge that has a port of that name, nil when none has.
func (e *editor) owner(port string) *Bridge {
	for i := range e.d.Bridges {
		if _, ok := e.d.Bridges[i].portIndex(port); ok {
			return &e.d.Bridges[i]
		}
	}
	return nil
}

// findPort finds a port of bridge, or of any bridge when bridge is empty.
func (e *editor) findPort(bridge, port string) (*Bridge, int, error) {
	if port == "" {
		return nil, 0, refuse("", "names no port")
	}
	if bridge == "" {
		if b := e.owner(port); b != nil {
			i, _ := b.portIndex(port)
			return b, i, nil
		}
	} else {
		b, err := e.bridge(bridge)
		if err != nil {
			return nil, 0, err
		}
		if i, ok := b.portIndex(port); ok {
			return b, i, nil
		}
		if other := e.owner(port); other != nil {
			return nil, 0, refuse(port, "%q is a port of %s, not of %s", port, other.Name, bridge)
		}
	}
	if e.d.Bridge(port) != nil {
		return nil, 0, refuse(port, "%q is the local port of its bridge: set-br %[1]s sets its options, and it goes with del-br %[1]s", port)
	}
	if mesh, peer, ok := SplitMeshPort(port); ok && e.d.Mesh(mesh) != nil && slices.Contains(e.d.Mesh(mesh).Peers(), peer) {
		return nil, 0, refuse(port, "%q is a port of mesh %s: mesh set %[2]s changes it, and it goes with mesh set %[2]s peers-=%[3]s", port, mesh, peer)
	}
	var names []string
	for _, b := range e.d.Bridges {
		if bridge == "" || bridge == b.Name {
			names = append(names, b.portNames()[1:]...)
		}
	}
	where := "no port"
	if bridge != "" {
		where = "no port of " + bridge
	}
	return nil, 0, refuse(port, "%s is named %s%s", where, shown(port), didYouMean(port, names))
}

// set sets and unsets options as they were typed, all or none.
func set(o *Options, typed Options, object Object, path string) error {
	r := &report{}
	next := make(Options, len(*o)+len(typed))
	for name, value := range *o {
		next[name] = value
	}
	for _, word := range typed.Names() {
		name := synonym(object, word)
		if strings.TrimSpace(typed[word]) == "" {
			if _, e := lookup(object, name); e != nil {
				e.Path = path
				r.add(e)
			}
			delete(next, name)
			continue
		}
		value, e := canonicalOption(object, path, name, typed[word])
		if e != nil {
			r.add(e)
		}
		next[name] = value
	}
	if err := r.err(); err != nil {
		return err
	}
	*o = next
	return nil
}

func (e *editor) addBridge(op Op) error {
	b := e.d.Bridge(op.Bridge)
	switch {
	case b != nil && !op.MayExist:
		return refuse(op.Bridge, "bridge %q exists already", op.Bridge)
	case b == nil:
		if why := badName(op.Bridge, maxInterfaceName); why != "" {
			return refuse(op.Bridge, "%s %s", shown(op.Bridge), why)
		}
		if owner := e.owner(op.Bridge); owner != nil {
			return refuse(op.Bridge, "the name %q is taken by %s", op.Bridge, portPath(owner.Name, op.Bridge))
		}
		i := sort.Search(len(e.d.Bridges), func(i int) bool { return e.d.Bridges[i].Name > op.Bridge })
		e.d.Bridges = slices.Insert(e.d.Bridges, i, Bridge{Name: op.Bridge})
		b = &e.d.Bridges[i]
	}
	return set(&b.Options, op.Options, BridgeObject, bridgePath(b.Name))
}

func (e *editor) delBridge(op Op) error {
	b, err := e.bridge(op.Bridge)
	if err != nil {
		if op.IfExists && op.Bridge != "" {
			return nil
		}
		return err
	}
	name := b.Name
	for _, m := range e.d.Meshes {
		if m.Options["bridge"] == name {
			return refuse(name, "mesh %q is in %s: delete the mesh first, or give it another bridge", m.Name, name)
		}
	}
	e.d.Bridges = slices.DeleteFunc(e.d.Bridges, func(b Bridge) bool { return b.Name == name })
	return nil
}

func (e *editor) setBridge(op Op) error {
	b, err := e.bridge(op.Bridge)
	if err != nil {
		return err
	}
	return set(&b.Options, op.Options, BridgeObject, bridgePath(b.Name))
}

// splitType takes the word `type` out of options as they were typed.
func splitType(typed Options) (word string, given bool, rest Options) {
	word, given = typed["type"]
	rest = make(Options, len(typed))
	for name, value := range typed {
		if name != "type" {
			rest[name] = value
		}
	}
	return strings.TrimSpace(word), given && strings.TrimSpace(word) != "", rest
}

// sameType refuses to make a port another type: it would be another port.
func sameType(p *Port, word string, given bool) error {
	if !given || Object(word) == p.Object() {
		return nil
	}
	if e := checkPortType(word); e != nil {
		return e
	}
	return refuse(word, "the type of port %q is %s and cannot become %s: delete the port and add it again", p.Name, string(p.Object()), word)
}

func (e *editor) addPort(op Op) error {
	b, err := e.bridge(op.Bridge)
	if err != nil {
		return err
	}
	word, given, options := splitType(op.Options)
	owner := e.owner(op.Port)
	switch {
	case owner == nil && e.d.Bridge(op.Port) != nil:
		return refuse(op.Port, "the name %q is taken by the local port of bridge %s", op.Port, op.Port)
	case owner == nil:
		if bad := checkPortType(word); bad != nil {
			return bad
		}
		p := Port{Name: op.Port, Type: word}
		p.Type = string(p.Object())
		if why := badName(p.Name, p.Object().nameLimit()); why != "" {
			return refuse(p.Name, "%s %s", shown(p.Name), why)
		}
		if err := set(&p.Options, options, p.Object(), portPath(b.Name, p.Name)); err != nil {
			return err
		}
		i, _ := b.portIndex(p.Name)
		b.Ports = slices.Insert(b.Ports, i, p)
		return nil
	case owner != b:
		return refuse(op.Port, "%q is a port of %s already", op.Port, owner.Name)
	case !op.MayExist:
		return refuse(op.Port, "%q is a port of %s already", op.Port, b.Name)
	}
	p := b.Port(op.Port)
	if err := sameType(p, word, given); err != nil {
		return err
	}
	return set(&p.Options, options, p.Object(), portPath(b.Name, p.Name))
}

func (e *editor) setPort(op Op) error {
	b, i, err := e.findPort(op.Bridge, op.Port)
	if err != nil {
		return err
	}
	p := &b.Ports[i]
	word, given, options := splitType(op.Options)
	if err := sameType(p, word, given); err != nil {
		return err
	}
	options, err = publishing(p, options)
	if err != nil {
		return err
	}
	return set(&p.Options, options, p.Object(), portPath(b.Name, p.Name))
}

// publishing reads `publish+`, which adds to what a plug publishes, and `publish-`,
// which takes from it, beside the whole list.
func publishing(p *Port, typed Options) (Options, error) {
	plus, isPlus := typed["publish+"]
	minus, isMinus := typed["publish-"]
	if p.Object() != PlugPort || !isPlus && !isMinus {
		return typed, nil
	}
	if typed.IsSet("publish") {
		return nil, refuse("", "publish is given beside publish+ or publish-: want the whole list, or what changes in it")
	}
	list := splitList(p.Options["publish"])
	for _, word := range splitList(minus) {
		gone, err := ParsePublish(word)
		if err != nil {
			return nil, err
		}
		i := slices.Index(list, gone.String())
		if i < 0 {
			return nil, refuse(word, "%s is not published by port %q%s", shown(word), p.Name, didYouMean(word, list))
		}
		list = slices.Delete(list, i, i+1)
	}
	next := make(Options, len(typed))
	for name, value := range typed {
		next[name] = value
	}
	delete(next, "publish+")
	delete(next, "publish-")
	next["publish"] = strings.Join(append(list, splitList(plus)...), ",")
	return next, nil
}

func (e *editor) delPort(op Op) error {
	b, i, err := e.findPort(op.Bridge, op.Port)
	if err != nil {
		// As OVS: --if-exists forgives a port that is nowhere, not one that is elsewhere.
		if op.IfExists && op.Port != "" && e.owner(op.Port) == nil && e.d.Bridge(op.Port) == nil {
			return nil
		}
		return err
	}
	for _, m := range b.Mirrors {
		for _, option := range []string{"select_src_port", "select_dst_port", "output_port"} {
			if slices.Contains(splitList(m.Options[option]), op.Port) {
				return refuse(op.Port, "mirror %q of %s names %q in %s: delete the mirror first", m.Name, b.Name, op.Port, option)
			}
		}
	}
	b.Ports = slices.Delete(b.Ports, i, i+1)
	b.FDB = slices.DeleteFunc(b.FDB, func(m StaticMAC) bool { return m.Port == op.Port })
	return nil
}

func (e *editor) addMirror(op Op) error {
	b, err := e.bridge(op.Bridge)
	if err != nil {
		return err
	}
	i, exists := b.mirrorIndex(op.Mirror)
	switch {
	case exists && !op.MayExist:
		return refuse(op.Mirror, "mirror %q of %s exists already", op.Mirror, b.Name)
	case !exists:
		if why := badName(op.Mirror, maxPatchName); why != "" {
			return refuse(op.Mirror, "%s %s", shown(op.Mirror), why)
		}
		b.Mirrors = slices.Insert(b.Mirrors, i, Mirror{Name: op.Mirror})
	}
	return set(&b.Mirrors[i].Options, op.Options, MirrorObject, mirrorPath(b.Name, op.Mirror))
}

func (e *editor) delMirror(op Op) error {
	b, err := e.bridge(op.Bridge)
	if err != nil {
		return err
	}
	i, exists := b.mirrorIndex(op.Mirror)
	if exists {
		b.Mirrors = slices.Delete(b.Mirrors, i, i+1)
		return nil
	}
	if op.IfExists && op.Mirror != "" {
		return nil
	}
	var names []string
	for _, m := range b.Mirrors {
		names = append(names, m.Name)
	}
	return refuse(op.Mirror, "no mirror of %s is named %s%s", b.Name, shown(op.Mirror), didYouMean(op.Mirror, names))
}

// addSFlow with MayExist sets options of what is exported already.
func (e *editor) addSFlow(op Op) error {
	b, err := e.bridge(op.Bridge)
	if err != nil {
		return err
	}
	if b.SFlow != nil && !op.MayExist {
		return refuse(op.Bridge, "%s has sFlow already: it has one at most; --may-exist sets its options", b.Name)
	}
	if b.SFlow == nil {
		b.SFlow = Options{}
	}
	return set(&b.SFlow, op.Options, SFlowObject, sflowPath(b.Name))
}

func (e *editor) delSFlow(op Op) error {
	b, err := e.bridge(op.Bridge)
	if err != nil {
		return err
	}
	if b.SFlow == nil && !op.IfExists {
		return refuse(op.Bridge, "%s has no sFlow", b.Name)
	}
	b.SFlow = nil
	return nil
}

// staticMAC reads the op's address, which may be typed in any notation.
func staticMAC(op Op) (string, error) {
	if mac, ok := parseMAC(op.MAC); ok {
		return mac, nil
	}
	e := find("mac").wrong(op.MAC, "is not a unicast MAC address")
	return "", e
}

// addFDB with MayExist moves an entry that is there to the port that is named.
func (e *editor) addFDB(op Op) error {
	b, err := e.bridge(op.Bridge)
	if err != nil {
		return err
	}
	mac, err := staticMAC(op)
	if err != nil {
		return err
	}
	m := StaticMAC{MAC: mac, VLAN: op.VLAN, Port: op.Port}
	if m.Port != b.Name {
		if _, _, err := e.findPort(b.Name, m.Port); err != nil {
			return err
		}
	}
	i, exists := b.fdbIndex(mac, op.VLAN)
	switch {
	case !exists:
		b.FDB = slices.Insert(b.FDB, i, m)
	case op.MayExist:
		b.FDB[i] = m
	default:
		return refuse(op.MAC, "MAC %s of VLAN %d is at port %s already", mac, op.VLAN, b.FDB[i].Port)
	}
	return nil
}

func (e *editor) delFDB(op Op) error {
	b, err := e.bridge(op.Bridge)
	if err != nil {
		return err
	}
	mac, err := staticMAC(op)
	if err != nil {
		return err
	}
	i, exists := b.fdbIndex(mac, op.VLAN)
	switch {
	case exists:
		b.FDB = slices.Delete(b.FDB, i, i+1)
	case !op.IfExists:
		return refuse(op.MAC, "%s has no static MAC %s in VLAN %d", b.Name, mac, op.VLAN)
	}
	return nil
}
