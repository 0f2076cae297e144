package api

import "time"

// TunnelStatus is one tunnel port. Inside PortStatus, Bridge, Port, Type, State,
// Reason, Since and Counters are left out: they stand beside it.
type TunnelStatus struct {
	Bridge     string       `json:"bridge,omitempty"`
	Port       string       `json:"port,omitempty"`
	Type       string       `json:"type,omitempty"`        // vxlan, gre, geneve
	Mesh       string       `json:"mesh,omitempty"`        // whose port it is
	Endpoint   string       `json:"endpoint,omitempty"`    // socket it shares: vxlan 0.0.0.0:4789
	Remote     string       `json:"remote"`                // as configured
	RemoteAddr string       `json:"remote_addr,omitempty"` // what it resolved to
	LocalAddr  string       `json:"local_addr,omitempty"`  // that packets leave from
	InKey      *uint32      `json:"in_key,omitempty"`
	OutKey     *uint32      `json:"out_key,omitempty"`
	PathMTU    int          `json:"path_mtu,omitempty"` // bytes of the largest outer IP packet
	MTU        int          `json:"mtu,omitempty"`      // bytes of the largest inner IP packet
	State      string       `json:"state,omitempty"`    // as a port's
	Reason     string       `json:"reason,omitempty"`
	Since      time.Time    `json:"since,omitzero"`
	BFD        *BFDStatus   `json:"bfd,omitempty"`        // where it is on
	LastHeard  *time.Time   `json:"last_heard,omitempty"` // left out: never
	Counters   PortCounters `json:"counters,omitzero"`

	ControlRx      uint64 `json:"control_rx,omitempty"`      // BFD frames, which Counters leaves out
	ControlTx      uint64 `json:"control_tx,omitempty"`      //
	OptionsSkipped uint64 `json:"options_skipped,omitempty"` // Geneve
	SequenceGaps   uint64 `json:"sequence_gaps,omitempty"`   // GRE: frames that their numbers say are missing
	SequenceLate   uint64 `json:"sequence_late,omitempty"`   // GRE: frames that came after a later one
}

// BFDStatus is a tunnel's BFD session (RFC 5880).
type BFDStatus struct {
	State       string    `json:"state"` // admin_down, down, init, up
	RemoteState string    `json:"remote_state,omitempty"`
	Diag        string    `json:"diag,omitempty"` // why it went down last, as it sees it
	RemoteDiag  string    `json:"remote_diag,omitempty"`
	MinRx       int       `json:"min_rx,omitempty"` // milliseconds, negotiated
	MinTx       int       `json:"min_tx,omitempty"`
	Flaps       uint64    `json:"flaps"`
	Since       time.Time `json:"since,omitzero"` // of State
}

// MeshStatus is one mesh.
type MeshStatus struct {
	Name    string         `json:"name"`
	Bridge  string         `json:"bridge"`
	Options map[string]any `json:"options,omitempty"` // as configured
	Peers   []MeshPeer     `json:"peers"`             // in the order configured
}

// MeshPeer is one host of a mesh.
type MeshPeer struct {
	Peer      string     `json:"peer"`              // as configured
	Address   string     `json:"address,omitempty"` // what it resolved to
	Port      string     `json:"port,omitempty"`    // the tunnel port that leads there
	State     string     `json:"state"`             // as a port's, or self
	Reason    string     `json:"reason,omitempty"`
	Since     time.Time  `json:"since,omitzero"`
	BFD       *BFDStatus `json:"bfd,omitempty"`
	LastHeard *time.Time `json:"last_heard,omitempty"` // left out: never
}
