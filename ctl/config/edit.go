package config

// Op is one step of an edit. Which fields are read depends on Op.
type Op struct {
	Op       string  `json:"op"` // add-bridge del-bridge set-bridge add-port del-port set-port add-mirror del-mirror add-sflow del-sflow add-fdb del-fdb add-mesh set-mesh del-mesh
	Bridge   string  `json:"bridge,omitempty"`
	Port     string  `json:"port,omitempty"`    // add-port del-port set-port, add-fdb
	Mirror   string  `json:"mirror,omitempty"`  // add-mirror del-mirror
	Mesh     string  `json:"mesh,omitempty"`    // add-mesh set-mesh del-mesh
	MAC      string  `json:"mac,omitempty"`     // add-fdb del-fdb
	VLAN     int     `json:"vlan,omitempty"`    // add-fdb del-fdb
	Options  Options `json:"options,omitempty"` // as typed: not yet canonical; an empty value unsets
	MayExist bool    `json:"may_exist,omitempty"`
	IfExists bool    `json:"if_exists,omitempty"`
}

// Change is one difference between two documents.
type Change struct {
	What string `json:"what"` // add, remove, change
	Path string `json:"path"` // such as bridges[br0].ports[veth1].tag
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
}
