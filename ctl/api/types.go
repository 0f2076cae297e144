// Package api is how the world talks to the daemon: HTTP and JSON over a unix
// socket. It holds the words of that conversation (types.go), the server
// (server.go) and the client (client.go). It decides nothing: the server hands
// each request to a Service, which the daemon implements.
package api

import (
	"context"
	"time"

	"vswitch/ctl/config"
)

// Service is what the API serves. The daemon implements it; tests have a double.
// Methods are safe for concurrent use and return promptly; ctx ends with the
// client. An error that is an *Error reaches the client as it is; any other is
// an internal error.
type Service interface {
	CaptureService
	WhyService
	TraceService
	PathService
	MonitoringService
	PlugService

	Version() Version
	Status(ctx context.Context, bridge string) (Status, error) // bridge "" is all

	// Config returns the desired document; version 0 is the current one.
	Config(ctx context.Context, version uint64) (ConfigVersion, error)
	// Edit applies ops in order as one change: all or nothing.
	Edit(ctx context.Context, e Edit) (EditResult, error)
	// Apply replaces the whole document.
	Apply(ctx context.Context, doc config.Document, o ApplyOptions) (EditResult, error)
	// Confirm keeps the change that waits for it.
	Confirm(ctx context.Context) (EditResult, error)
	// Rollback makes an old version's document current, as a new version.
	Rollback(ctx context.Context, version uint64) (EditResult, error)
	// History lists stored versions, newest first.
	History(ctx context.Context) ([]HistoryEntry, error)

	FDB(ctx context.Context, q FDBQuery) ([]FDBEntry, error)
	FDBStats(ctx context.Context, bridge string) ([]FDBStats, error)
	FDBFlush(ctx context.Context, q FDBQuery) (FlushResult, error)

	// Tunnels lists tunnel ports, those of meshes among them; bridge "" is all.
	Tunnels(ctx context.Context, bridge string) ([]TunnelStatus, error)
	// Meshes lists meshes with what became of each peer; name "" is all.
	Meshes(ctx context.Context, name string) ([]MeshStatus, error)

	Drops(ctx context.Context, bridge, port string) ([]Drop, error)
	Stats(ctx context.Context, bridge, port string) ([]BridgeStats, error)
	Workers(ctx context.Context) ([]WorkerStats, error)

	// Subscribe returns a bounded stream of events; the caller must call cancel.
	// A subscriber that does not keep up misses events, never holds anybody up,
	// and is told by an event of kind "lost".
	Subscribe() (events <-chan Event, cancel func())
}

// Error is a refusal that names what is wrong. It is the JSON body of every
// answer with a status of 400 and above.
type Error struct {
	Status  int    `json:"-"`                 // HTTP status: 400 bad input, 404 unknown name, 409 conflict, 503 the store
	Message string `json:"error"`             // whole sentence, lower case, names field, value and what is allowed
	Field   string `json:"field,omitempty"`   // such as bridges[br0].ports[veth1].tag
	Value   string `json:"value,omitempty"`   // what was given
	Allowed string `json:"allowed,omitempty"` // what would be right
}

func (e *Error) Error() string { return e.Message }

// Version says who answers.
type Version struct {
	Version  string    `json:"version"`
	API      int       `json:"api"` // 1
	Go       string    `json:"go"`
	Kernel   string    `json:"kernel"`
	PID      int       `json:"pid"`
	Started  time.Time `json:"started"`
	RunDir   string    `json:"run_dir"`
	StateDir string    `json:"state_dir"`
}

// Status is what is true now.
type Status struct {
	ConfigVersion uint64          `json:"config_version"`
	Confirm       *PendingConfirm `json:"confirm,omitempty"`
	Warnings      []string        `json:"warnings,omitempty"` // such as: the store is read-only: …
	Bridges       []BridgeStatus  `json:"bridges"`
}

// PendingConfirm is a change that goes back by itself unless confirmed.
type PendingConfirm struct {
	Version  uint64    `json:"version"`  // that waits
	Previous uint64    `json:"previous"` // that comes back
	Deadline time.Time `json:"deadline"`
}

// BridgeStatus is one bridge, its local port among its ports.
type BridgeStatus struct {
	Name     string         `json:"name"`
	Options  map[string]any `json:"options,omitempty"` // as configured
	Ports    []PortStatus   `json:"ports"`
	Mirrors  []MirrorStatus `json:"mirrors,omitempty"`
	FDB      FDBStats       `json:"fdb"`
	Flaps    []FDBFlap      `json:"flaps,omitempty"` // the MACs that are held, since they flapped
	Counters BridgeCounters `json:"counters"`
}

// States of a port.
const (
	PortUp      = "up"      // forwarding
	PortDown    = "down"    // attached; the interface has no carrier
	PortWaiting = "waiting" // the interface does not exist (yet)
	PortError   = "error"   // could not be attached; Reason says why; it is retried
	PortSelf    = "self"    // a mesh's peer only: this host itself, to which no tunnel leads
)

// PortStatus is one port.
type PortStatus struct {
	Name     string         `json:"name"`
	Type     string         `json:"type"` // local, packet, tap, internal, plug, patch, vxlan, gre, geneve
	State    string         `json:"state"`
	Reason   string         `json:"reason,omitempty"`
	Since    time.Time      `json:"since"` // of State
	Options  map[string]any `json:"options,omitempty"`
	IfIndex  int            `json:"ifindex,omitempty"`
	MAC      string         `json:"mac,omitempty"`
	MTU      int            `json:"mtu,omitempty"`
	Workers  []int          `json:"workers,omitempty"` // one a queue
	RxRing   int            `json:"rx_ring,omitempty"` // slots of each queue's receive ring; 0: it has none
	Notes    []string       `json:"notes,omitempty"`   // such as: offload finished in software
	Tunnel   *TunnelStatus  `json:"tunnel,omitempty"`  // of a tunnel port
	Counters PortCounters   `json:"counters"`
}

// PortCounters counts frames and bytes since the port was added. A super-frame
// is one frame.
type PortCounters struct {
	RxFrames uint64            `json:"rx_frames"`
	RxBytes  uint64            `json:"rx_bytes"`
	RxMissed uint64            `json:"rx_missed"` // dropped by the kernel before they were read
	TxFrames uint64            `json:"tx_frames"`
	TxBytes  uint64            `json:"tx_bytes"`
	Dropped  uint64            `json:"dropped"` // sum of Drops
	Drops    map[string]uint64 `json:"drops,omitempty"`
}

// BridgeCounters add up: Received + Copies + Answers == Sent + Dropped, when no
// frame is in flight.
type BridgeCounters struct {
	Received     uint64            `json:"received"` // read by its ports, and missed by them
	FloodCopies  uint64            `json:"flood_copies"`
	MirrorCopies uint64            `json:"mirror_copies"`
	SplitCopies  uint64            `json:"split_copies"` // segments beyond the first, made in software
	Answers      uint64            `json:"answers"`      // ICMP that told a sender of a tunnel's MTU
	Sent         uint64            `json:"sent"`         // by ports, and to capture files
	Dropped      uint64            `json:"dropped"`
	Drops        map[string]uint64 `json:"drops,omitempty"`
}

// MirrorStatus is one mirror.
type MirrorStatus struct {
	Bridge  string         `json:"bridge,omitempty"` // left out where it stands in its bridge's status
	Name    string         `json:"name"`
	Options map[string]any `json:"options,omitempty"`
	State   string         `json:"state"` // up, error
	Reason  string         `json:"reason,omitempty"`
	Frames  uint64         `json:"frames"`            // copied to the output
	Dropped uint64         `json:"dropped,omitempty"` // that the output did not take
	File    string         `json:"file,omitempty"`    // being written
	Written uint64         `json:"written,omitempty"` // bytes, all files
}

// BridgeStats is what `stats` prints.
type BridgeStats struct {
	Bridge   string         `json:"bridge"`
	Counters BridgeCounters `json:"counters"`
	Ports    []PortStats    `json:"ports"`
}

// PortStats is one port's counters.
type PortStats struct {
	Port     string       `json:"port"`
	Counters PortCounters `json:"counters"`
}

// WorkerStats is one forwarding thread.
type WorkerStats struct {
	Worker    int      `json:"worker"`
	Ports     []string `json:"ports"`
	Batches   uint64   `json:"batches"`
	Frames    uint64   `json:"frames"`
	MeanBatch float64  `json:"mean_batch"` // frames a batch
	Busy      float64  `json:"busy"`       // share of the time since start with work, 0 to 1
	Spinning  float64  `json:"spinning"`   // share of it looking for work before it sleeps (--busy-poll)
	Wakeups   uint64   `json:"wakeups"`    // returns from a blocking epoll_wait
	Buffers   int      `json:"buffers"`
	Free      int      `json:"buffers_free"`
}

// Drop is one reason at one port.
type Drop struct {
	Bridge   string    `json:"bridge"`
	Port     string    `json:"port"` // where the frame came in, or could not leave; a tunnel's endpoint
	Reason   string    `json:"reason"`
	Count    uint64    `json:"count"`
	Rate     float64   `json:"rate"`             // frames a second, over the last two to four seconds
	Source   string    `json:"source,omitempty"` // of tunnel packets that are no port's: 10.0.0.9 key 42
	LastSeen time.Time `json:"last_seen"`        // to a second
	Help     string    `json:"help"`             // what it means and what to do

	// The last frame that was dropped so, or one of the same batch, in a line; left
	// out where the switch never had the frame, such as one that the kernel lost.
	LastFrame string          `json:"last_frame,omitempty"`
	Addresses *FrameAddresses `json:"addresses,omitempty"` // of LastFrame
}

// FrameAddresses are a frame's.
type FrameAddresses struct {
	VLAN  int    `json:"vlan,omitempty"` // of its tag, or of the port where it had none
	Src   string `json:"src"`            // MAC
	Dst   string `json:"dst"`
	IPSrc string `json:"ip_src,omitempty"` // of an IP packet, or of what ARP or ND speaks of
	IPDst string `json:"ip_dst,omitempty"`
}

// FDBQuery selects entries; empty fields select all. VLAN -1 is all.
type FDBQuery struct {
	Bridge string `json:"bridge,omitempty"`
	Port   string `json:"port,omitempty"`
	MAC    string `json:"mac,omitempty"`
	VLAN   int    `json:"vlan"`
}

// FDBEntry is one MAC address.
type FDBEntry struct {
	Bridge string `json:"bridge"`
	VLAN   int    `json:"vlan"`
	MAC    string `json:"mac"`
	Port   string `json:"port"`
	Age    int    `json:"age"` // seconds since it was last heard
	Static bool   `json:"static,omitempty"`
}

// FDBStats is one bridge's table.
type FDBStats struct {
	Bridge  string    `json:"bridge"`
	Entries int       `json:"entries"`
	Static  int       `json:"static"`
	Size    int       `json:"size"` // mac-table-size
	Aging   int       `json:"aging"`
	Learned uint64    `json:"learned"`
	Expired uint64    `json:"expired"` // aged out
	Evicted uint64    `json:"evicted"` // pushed out of a full table
	Moved   uint64    `json:"moved"`
	Moves   []FDBMove `json:"moves,omitempty"` // the MACs that moved lately
}

// FDBMove is a MAC that changed ports.
type FDBMove struct {
	VLAN  int       `json:"vlan"`
	MAC   string    `json:"mac"`
	From  string    `json:"from"`
	To    string    `json:"to"`
	Count uint64    `json:"count"`
	Last  time.Time `json:"last"`
}

// FDBFlap is a MAC that changed ports too often, and is held at one of them.
type FDBFlap struct {
	VLAN  int       `json:"vlan"`
	MAC   string    `json:"mac"`
	Held  string    `json:"held"`  // port it is held at
	Other string    `json:"other"` // port that it was last heard at besides
	Count uint64    `json:"count"` // times it was found to flap
	Until time.Time `json:"until"` // when it may move again
}

// FlushResult counts what a flush removed.
type FlushResult struct {
	Flushed int `json:"flushed"`
}

// Edit is one change: its ops are applied in order, all or none.
type Edit struct {
	Ops     []config.Op `json:"ops"`
	Confirm float64     `json:"confirm,omitempty"` // seconds; above zero: go back unless confirmed in time
	Comment string      `json:"comment,omitempty"` // what history shows; vswitchctl puts its command line here
}

// ApplyOptions belong to Apply.
type ApplyOptions struct {
	Confirm time.Duration // above zero: go back unless Confirm comes in time
	Comment string
	DryRun  bool // judge and compare only: what `diff -f` does
}

// EditResult says what a change did, and what is true afterwards.
type EditResult struct {
	Version uint64          `json:"version"` // of the document that is now desired
	Changed bool            `json:"changed"` // false: it was so already; no new version was made
	Changes []config.Change `json:"changes,omitempty"`
	Ports   []PortStatus    `json:"ports,omitempty"`   // that the change touched: those not up, and those with a note that matters
	Mirrors []MirrorStatus  `json:"mirrors,omitempty"` // that the change touched and that do not work
	Confirm *PendingConfirm `json:"confirm,omitempty"`
}

// ConfigVersion is a stored document.
type ConfigVersion struct {
	Version  uint64          `json:"version"`
	Document config.Document `json:"document"`
}

// HistoryEntry is one stored version.
type HistoryEntry struct {
	Version uint64    `json:"version"`
	Time    time.Time `json:"time"`
	Comment string    `json:"comment,omitempty"`
	Current bool      `json:"current,omitempty"`
}

// Event is one line of `monitor`. Kinds: port-up, port-down, port-waiting,
// port-error, port-removed, mac-learned, mac-moved, mac-aged, mac-evicted,
// mac-flapping, address-conflict, bfd-up, bfd-down, mtu-changed, config, confirm, drops, mirror-error, mirror-up, resync, store, lost.
type Event struct {
	Time    time.Time      `json:"time"`
	Kind    string         `json:"kind"`
	Bridge  string         `json:"bridge,omitempty"`
	Port    string         `json:"port,omitempty"`
	Message string         `json:"message"`
	Detail  map[string]any `json:"detail,omitempty"`
}
