package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Tunnel is what the options of a tunnel port say, defaults filled in.
type Tunnel struct {
	Type          Object
	Remote        string     // an address or a host name
	Local         netip.Addr // the zero Addr is any
	InKey, OutKey uint32     // an OutKey of 0 is no key, with GRE
	Port          uint16     // UDP; 0 with GRE
	TOS           uint8      // ECN bits 0
	TOSInherit    bool
	TTL           uint8 // 0 is the system's
	TTLInherit    bool
	DF            bool
	Csum, CsumSet bool // Csum holds where CsumSet does; else the type's own way is best
	Seq           bool // GRE
	MSSClamp      bool
	BFD           bool
	BFDMinRx      time.Duration
	BFDMinTx      time.Duration
}

// DefaultTunnelPort is the UDP port that IANA gave to tunnels of that type; 0
// for GRE, which has none.
func DefaultTunnelPort(o Object) uint16 {
	switch o {
	case VXLANPort:
		return 4789
	case GenevePort:
		return 6081
	}
	return 0
}

// Tunnel reads the options of a tunnel port in canonical form. ok is false for a
// port of another type.
func (p Port) Tunnel() (t Tunnel, ok bool) {
	if !p.Object().IsTunnel() {
		return Tunnel{}, false
	}
	o := p.Options
	t = Tunnel{
		Type: p.Object(), Remote: o.Text("remote_ip"),
		InKey: uint32(o.Int("key")), OutKey: uint32(o.Int("key")),
		Port: DefaultTunnelPort(p.Object()),
		DF:   o.Bool("df_default"), Csum: o.Bool("csum"), CsumSet: o.IsSet("csum"),
		Seq: o.Bool("seq"), MSSClamp: o.Bool("mss_clamp"),
		BFD:      o.Bool("bfd_enable"),
		BFDMinRx: time.Duration(o.Int("bfd_min_rx")) * time.Millisecond,
		BFDMinTx: time.Duration(o.Int("bfd_min_tx")) * time.Millisecond,
	}
	t.Local, _ = netip.ParseAddr(o.Text("local_ip"))
	if o.IsSet("in_key") {
		t.InKey = uint32(o.Int("in_key"))
	}
	if o.IsSet("out_key") {
		t.OutKey = uint32(o.Int("out_key"))
	}
	if o.IsSet("dst_port") {
		t.Port = uint16(o.Int("dst_port"))
	}
	t.TOSInherit = o.Text("tos") == "inherit"
	t.TOS = uint8(o.Int("tos"))
	t.TTLInherit = o.Text("ttl") == "inherit"
	t.TTL = uint8(o.Int("ttl"))
	return t, true
}

// Text reads an option of the mesh as its canonical spelling, or a mesh's default.
func (m Mesh) Text(name string) string {
	if v, ok := m.Options[name]; ok {
		return v
	}
	row := find(name)
	if row == nil || !row.Applies(MeshObject) {
		panic("config: a mesh has no option named " + name)
	}
	return cmp.Or(row.InMesh, row.Default)
}

// Type is the type of the mesh's tunnels.
func (m Mesh) Type() Object { return Object(m.Text("type")) }

// Peers lists the hosts of the mesh in the order given.
func (m Mesh) Peers() []string { return splitList(m.Options["peers"]) }

// checkTunnels judges each tunnel port by itself.
func (d *Document) checkTunnels(r *report) {
	for i := range d.Bridges {
		b := &d.Bridges[i]
		for _, p := range b.Ports {
			if !p.Object().IsTunnel() {
				continue
			}
			path := portPath(b.Name, p.Name)
			o := p.Options
			if !o.IsSet("remote_ip") {
				r.addf(path, "a tunnel port needs remote_ip: %s", find("remote_ip").Allowed())
			}
			for _, one := range []string{"in_key", "out_key"} {
				if o.IsSet("key") && o.IsSet(one) {
					r.addf(path+"."+one, "key is set, which is both in_key and out_key: want key alone, or in_key and out_key")
				}
			}
			for _, option := range []string{"key", "in_key", "out_key"} {
				checkKey(p.Object(), o[option], path+"."+option, r)
			}
			checkFamily(o["local_ip"], o["remote_ip"], path+".local_ip", r)
		}
	}
}

// checkKey judges that a key fits in the header of that type of tunnel.
func checkKey(kind Object, value, path string, r *report) {
	if n, ok := decimal(value); ok && n > maxVNI && kind != GREPort {
		allowed := fmt.Sprintf("0 to %d", maxVNI)
		r.add(&Error{Path: path, Value: value, Allowed: allowed,
			Message: fmt.Sprintf("\"%d\" is out of range: %s has 24 bits for it: want %s", n, string(kind), allowed)})
	}
}

// checkFamily judges that both ends are of one family, where that can be seen: of
// what family a host name's address is, resolving it will say.
func checkFamily(local, remote, path string, r *report) {
	l, err := netip.ParseAddr(local)
	if err != nil {
		return
	}
	if a, err := netip.ParseAddr(remote); err == nil && a.Is4() != l.Is4() {
		r.add(&Error{Path: path, Value: local,
			Message: fmt.Sprintf("%q is %s, and %q is %s: want both of one family", local, family(l), remote, family(a))})
	}
}

func family(a netip.Addr) string {
	if a.Is4() {
		return "IPv4"
	}
	return "IPv6"
}

// MeshPort is the name of the tunnel port of a mesh to one of its peers. No port of
// a document can have it: it holds a ':'. Mirrors may name it.
func MeshPort(mesh, peer string) string { return mesh + ":" + peer }

// SplitMeshPort reads such a name.
func SplitMeshPort(port string) (mesh, peer string, ok bool) {
	mesh, peer, ok = strings.Cut(port, ":")
	return mesh, peer, ok && badName(mesh, maxMeshName) == "" && peer != "" && printable(peer)
}

// hasMeshPort reports whether port is that of a mesh of the bridge.
func (d *Document) hasMeshPort(bridge, port string) bool {
	mesh, peer, ok := SplitMeshPort(port)
	if !ok {
		return false
	}
	m := d.Mesh(mesh)
	return m != nil && m.Options["bridge"] == bridge && slices.Contains(m.Peers(), peer)
}

// checkMeshes judges each mesh by itself.
func (d *Document) checkMeshes(r *report) {
	var names []string
	ports := make(map[string]int, len(d.Bridges)) // by bridge: ports and peers
	for i := range d.Bridges {
		names = append(names, d.Bridges[i].Name)
		ports[d.Bridges[i].Name] = len(d.Bridges[i].Ports)
	}
	for _, m := range d.Meshes {
		path := meshPath(m.Name)
		bridge := m.Options["bridge"]
		n, there := ports[bridge]
		peers := m.Peers()
		switch {
		case bridge == "":
			r.addf(path, "a mesh needs bridge: %s", find("bridge").Allowed())
		case !there && !r.full():
			r.add(&Error{Path: path + ".bridge", Value: bridge,
				Message: fmt.Sprintf("no bridge is named %s%s", shown(bridge), didYouMean(bridge, names))})
		case there && n <= maxPorts && n+len(peers) > maxPorts:
			r.addf(path+".peers", "%s has more than %d ports with these peers: want at most %d", bridge, maxPorts, maxPorts)
		}
		if there {
			ports[bridge] = n + len(peers)
		}
		if len(peers) == 0 {
			r.addf(path, "a mesh needs peers: %s", find("peers").Allowed())
		}
		if m.Type() == GREPort && m.Options.IsSet("port") {
			r.addf(path+".port", "gre has no UDP port: unset it, or set type to vxlan or geneve")
		}
		checkKey(m.Type(), m.Options["key"], path+".key", r)
		for _, peer := range peers {
			before := len(r.errs)
			if checkFamily(m.Options["local_ip"], peer, path+".local_ip", r); len(r.errs) > before {
				break
			}
		}
		checkVLANs(m.Options, path, r)
	}
}

// identity is how the packets of one tunnel are told from those of others (OVS:
// Interface:type and options, "each tunnel must be uniquely identified"), the UDP
// port besides.
type identity struct {
	kind          Object
	local, remote string
	port          uint16
	key           uint32
}

// socket is what tunnels of one kind share, and none of another kind can: local is
// an address, "" for all, or "any" for whichever.
type socket struct {
	kind  Object
	port  uint16
	local string
}

var otherOverUDP = map[Object]Object{VXLANPort: GenevePort, GenevePort: VXLANPort}

func (i identity) String() string {
	s := fmt.Sprintf("%s to %s with key %d", string(i.kind), i.remote, i.key)
	if i.port != DefaultTunnelPort(i.kind) {
		s += " at port " + strconv.Itoa(int(i.port))
	}
	if i.local != "" {
		s += " from " + i.local
	}
	return s
}

// checkUniqueTunnels judges that no two tunnels, be they of ports or of meshes,
// have the same packets.
func (d *Document) checkUniqueTunnels(r *report) {
	users := make(map[identity]string) // the path of who has it
	sockets := make(map[socket]string)
	open := func(id identity, path string) {
		if other := otherOverUDP[id.kind]; other != "" {
			first := sockets[socket{other, id.port, ""}]
			if first == "" && id.local != "" {
				first = sockets[socket{other, id.port, id.local}]
			} else if first == "" {
				first = sockets[socket{other, id.port, "any"}]
			}
			if first != "" {
				r.add(&Error{Path: path, Value: strconv.Itoa(int(id.port)), Message: fmt.Sprintf(
					"UDP port %d is that of %s, which is %s: want another for %s, or a local_ip for both", id.port, first, string(other), string(id.kind))})
				return
			}
			sockets[socket{id.kind, id.port, id.local}] = path
			sockets[socket{id.kind, id.port, "any"}] = path
		}
	}
	use := func(id identity, path, at string) {
		if id.remote == "" {
			return // was reported
		}
		if first, taken := users[id]; taken {
			r.add(&Error{Path: at, Value: id.remote,
				Message: fmt.Sprintf("%s has a tunnel %s already: want another host, key, local_ip or UDP port", first, id)})
			return
		}
		users[id] = path
	}
	for i := range d.Bridges {
		b := &d.Bridges[i]
		for _, p := range b.Ports {
			if t, ok := p.Tunnel(); ok {
				path := portPath(b.Name, p.Name)
				id := identity{t.Type, p.Options["local_ip"], t.Remote, t.Port, t.InKey}
				open(id, path)
				use(id, path, path+".remote_ip")
			}
		}
	}
	for _, m := range d.Meshes {
		id := identity{kind: m.Type(), local: m.Options["local_ip"], port: DefaultTunnelPort(m.Type())}
		if m.Options.IsSet("port") {
			id.port = uint16(m.Options.Int("port"))
		}
		id.key = uint32(m.Options.Int("key"))
		open(id, meshPath(m.Name))
		for _, id.remote = range m.Peers() {
			use(id, meshPath(m.Name), meshPath(m.Name)+".peers")
		}
	}
}
