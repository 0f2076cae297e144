package tunnel

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// endpoints knows the endpoints of this process, for what an endpoint with a local
// address and one without have to do with each other:
//
//   - UDP: the kernel gives what is sent to an address to the sockets of that
//     address. What is no port's there may be a port's of the one without.
//   - GRE: a raw socket without a local address is given a copy of what another one,
//     with an address, receives too: that is the other's, as it would be with UDP.
var endpoints registry

// registry is described at endpoints.
//
// Thread-safety: safe for concurrent use; hasRaw takes no lock.
type registry struct {
	mu  sync.Mutex
	all map[*Endpoint]bool
	raw atomic.Pointer[[]rawLocal]
}

// rawLocal is a local address that a GRE endpoint has.
type rawLocal struct {
	space uint64
	local peer
}

// add takes in an endpoint of the calling thread's network namespace.
func (r *registry) add(e *Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[*Endpoint]bool{}
	}
	e.space = networkNamespace()
	r.all[e] = true
	r.publishLocked()
}

func (r *registry) remove(e *Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.all, e)
	e.any.Store(nil)
	r.publishLocked()
}

func (r *registry) publishLocked() {
	var raw []rawLocal
	for e := range r.all {
		if e.config.Local.IsUnspecified() {
			continue
		}
		if e.config.Kind == GRE {
			raw = append(raw, rawLocal{e.space, peerOf(e.config.Local)})
		}
		e.any.Store(r.findLocked(e.space, e.config.any()))
	}
	r.raw.Store(&raw)
}

// findLocked returns the endpoint of a configuration in a network namespace.
func (r *registry) findLocked(space uint64, c EndpointConfig) *Endpoint {
	for e := range r.all {
		if e.space == space && e.config.Kind == c.Kind && e.config.Local == c.Local && e.config.Port == c.Port {
			return e
		}
	}
	return nil
}

// has reports whether there is an endpoint of a configuration in the calling thread's
// network namespace.
func (r *registry) has(c EndpointConfig) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.findLocked(networkNamespace(), c) != nil
}

// hasRaw reports whether a GRE endpoint in e's network namespace has the local address
// to.
func (r *registry) hasRaw(e *Endpoint, to peer) bool {
	raw := r.raw.Load()
	return raw != nil && len(*raw) > 0 && slices.Contains(*raw, rawLocal{e.space, to})
}

// networkNamespace returns the inode of the calling thread's network namespace, 0 if
// it cannot be told.
func networkNamespace() uint64 {
	st, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return 0
	}
	if s, ok := st.Sys().(*syscall.Stat_t); ok {
		return s.Ino
	}
	return 0
}
