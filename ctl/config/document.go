// Package config is the desired configuration: one document that says what the
// switch should be. It knows how a document is written, read, edited, compared
// and judged, and knows nothing of what is true now: no interface, no counter,
// no MAC address that was learned.
//
// Its one idea is a single table of options (options.go): names, kinds, limits,
// defaults and help stand there once, and validation, "did you mean", the
// command's completion and the reference page all read it.
package config

// Document is the desired state of one daemon. In YAML and JSON:
//
//	bridges:
//	  - name: br0
//	    ip: 10.0.0.1/24
//	    mac-aging-time: 300
//	    ports:
//	      - name: veth1
//	        tag: 10
//	      - name: trunk0
//	        trunks: 10,20-30
//	    mirrors:
//	      - name: m0
//	        select_all: true
//	        output_pcap: /tmp/m0.pcapng
//	    sflow:
//	      target: 10.0.0.9:6343
//	      sampling: 400
//	    fdb:
//	      - mac: 02:00:00:00:00:01
//	        vlan: 10
//	        port: veth1
//	meshes:
//	  - name: m1
//	    bridge: br0
//	    key: 10
//	    peers: host1,host2,host3
//
// The options of a bridge, port, mirror or mesh stand beside its name; sFlow has no
// name, since a bridge has one at most. Bridges,
// ports, mirrors, meshes and static MACs are kept sorted by name (MAC), so that
// equal documents are equal bytes. Thread-safety: a Document is a value; Clone
// before a change.
type Document struct {
	Bridges []Bridge
	Meshes  []Mesh
}

// Bridge is one L2 switch. Its local port carries its name and is not listed.
type Bridge struct {
	Name    string
	Options Options
	Ports   []Port
	Mirrors []Mirror
	SFlow   Options // of what is exported by sFlow; nil: nothing is
	FDB     []StaticMAC
}

// Port is one interface's membership of a bridge. An interface name is used once
// in a document.
type Port struct {
	Name    string
	Type    string // packet (what an empty word means), tap, internal, patch, vxlan, gre, geneve
	Options Options
	Mesh    string // whose tunnel it is; never written: mesh.Expand sets it, a user's port has none
}

// Mirror copies chosen frames of its bridge to a port, a VLAN or a pcapng file.
type Mirror struct {
	Name    string
	Options Options
}

// Mesh is hosts that tunnel to each other. It stands for one tunnel port to each
// peer, in one bridge: see package mesh.
type Mesh struct {
	Name    string
	Options Options
}

// StaticMAC is a forwarding entry that learning cannot move.
type StaticMAC struct {
	MAC  string `json:"mac"`  // lower case, colons
	VLAN int    `json:"vlan"` // 0 to 4094; 0 is untagged
	Port string `json:"port"`
}

// Options holds an object's options by name, each in canonical spelling; an
// option that is not set is absent.
type Options map[string]string
