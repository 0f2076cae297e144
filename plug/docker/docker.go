// Package docker is the remote network driver and the IPAM driver that dockerd finds at a
// plug-in socket. It turns Docker's networks into bridges and Docker's endpoints into ports,
// as items that it asks the switch to hold. It forwards nothing, and dresses no interface:
// Docker moves the container's end of a veth pair by itself.
//
// Its one idea: it has no state of its own. What Docker asked for is what the switch holds,
// on disk, and what exists is what the kernel says; so it does not matter which of dockerd
// and the switch is restarted, in what order, or how often Docker asks the same thing.
//
// It never calls Docker from inside a driver call: dockerd holds its locks over these, and
// would hang. What only Docker knows (which networks and endpoints there still are, what
// containers are called) is asked by the collector, when no call is under way.
//
//	docker network create   RequestPool, RequestAddress (gateway), CreateNetwork   ▶ item network/ID
//	docker run              RequestAddress, CreateEndpoint                         ▶ item endpoint/ID
//	                        Join                                                   ▶ veth pair
//	                        ProgramExternalConnectivity                            ▶ publish= of its port
//	container stops         RevokeExternalConnectivity, Leave                      ▶ no pair
//	                        DeleteEndpoint, ReleaseAddress                         ▶ no item
//	docker network rm       ReleaseAddress, ReleasePool, DeleteNetwork             ▶ nothing is left
package docker

import (
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"sync"
	"time"

	"vswitch/ctl/config"
	"vswitch/plug/held"
	"vswitch/plug/ipam"
)

// Owner is the owner of the driver's items.
const Owner = "docker"

// leasePrefix begins the owners of addresses that Docker asked for.
const leasePrefix = "docker/"

// OwnsLease says whether an address was given to Docker: its driver frees it.
func OwnsLease(owner string) bool { return strings.HasPrefix(owner, leasePrefix) }

// Switch is what the driver asks of the daemon.
type Switch interface {
	// Hold puts items and deletes keys of Owner's, durably and all or none, and makes it true.
	Hold(ctx context.Context, put []held.Item, del []string) error
	// Held lists the driver's items.
	Held() []held.Item
	// Bridge finds a bridge of the expanded document: the operator's, or a held one.
	Bridge(name string) (config.Bridge, bool)
	// MeshBridge is the bridge that a mesh of the operator's is in.
	MeshBridge(mesh string) (string, bool)
	// MTU is what containers on a bridge can send, in bytes: what its tunnels carry, of frames
	// that have a VLAN tag or none.
	MTU(bridge string, tagged bool) int
	// Alias is what an interface made for a port carries, so that leftovers are known.
	Alias(port string) string
	// Published are the ports of the host that the plugs of the expanded document have, by
	// the name of the plug's port.
	Published() map[string][]config.Publish
}

// leases is *ipam.Store.
type leases interface {
	Lease(pool ipam.Pool, owner string, taken func(netip.Addr) bool) (netip.Addr, error)
	Reserve(pool string, addr netip.Addr, owner string) error
	ReleaseAddr(pool string, addr netip.Addr) error
	Leases(pool string) []ipam.Lease
	Forget(pool string) error
}

// Options of a driver.
type Options struct {
	Switch Switch
	Leases *ipam.Store
	Docker string // API socket, asked by Collect alone
	Log    *slog.Logger
}

// Bounds of what Docker may ask for.
const (
	maxBody  = 1 << 20          // bytes of a request
	maxCalls = 64               // at a time; more wait
	maxItems = 16384            // networks, endpoints and pools
	maxID    = 128              // bytes of an ID; Docker's have 64
	callTime = 25 * time.Second // a call that takes longer is given up; Docker itself waits for ever
)

// Driver answers Docker.
//
// Thread-safety: safe for concurrent use. turn is held over each call that changes anything,
// since Docker calls from many goroutines and an address, a VLAN or a port of the host must
// not be given twice.
type Driver struct {
	o      Options
	leases leases
	wires  wires
	turn   chan struct{}
	slots  chan struct{}
	born   time.Time // what is older was asked of a process before this one

	mu      sync.Mutex // guards what follows
	under   int        // calls under way
	calls   uint64     // that began
	last    time.Time  // when one ended
	rolling uint64     // where the search for a free port of the host goes on
}

// New makes a driver.
func New(o Options) *Driver {
	return newDriver(o, o.Leases, kernel{})
}

func newDriver(o Options, l leases, w wires) *Driver {
	return &Driver{o: o, leases: l, wires: w, turn: make(chan struct{}, 1), slots: make(chan struct{}, maxCalls), born: time.Now()}
}

// Internal lists the interfaces of this host that are gateways of networks that Docker calls
// internal: nothing goes from there to elsewhere, nor comes from there.
func Internal(items []held.Item) (names []string) {
	for _, i := range items {
		n, ok := networkOf(i)
		if ok && n.Internal && n.Host != "" {
			names = append(names, n.Host)
		}
	}
	return names
}

// Keys of the items.
func networkKey(id string) string  { return "network/" + id }
func endpointKey(id string) string { return "endpoint/" + id }
func poolKey(id string) string     { return "pool/" + id }

// find returns the item of a key.
func (d *Driver) find(key string) (held.Item, bool) {
	for _, i := range d.o.Switch.Held() {
		if i.Key == key {
			return i, true
		}
	}
	return held.Item{}, false
}

// hold is Switch.Hold, with what every item has.
func (d *Driver) hold(ctx context.Context, put []held.Item, del ...string) error {
	for i := range put {
		put[i].Owner = Owner
		if put[i].Since.IsZero() {
			put[i].Since = time.Now()
		}
	}
	return d.o.Switch.Hold(ctx, put, del)
}
