package tunnel

import (
	"os"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
)

// rawEndpoints knows the GRE endpoints of this process. A raw socket without a
// local address is given a copy of what another one, with an address, receives too:
// that is the other's, as it would be with UDP, and no frame from an unknown source.
var rawEndpoints rawRegistry

// rawRegistry is described at rawEndpoints.
//
// Thread-safety: safe for concurrent use; has takes no lock.
type rawRegistry struct {
	mu       sync.Mutex
	all      map[*Endpoint]uint64 // to its network namespace
	specific atomic.Pointer[[]rawLocal]
}

// rawLocal is a local address that a GRE endpoint has.
type rawLocal struct {
	space uint64
	local peer
}

// add takes in an endpoint of the calling thread's network namespace.
func (r *rawRegistry) add(e *Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[*Endpoint]uint64{}
	}
	e.space = networkNamespace()
	r.all[e] = e.space
	r.publishLocked()
}

func (r *rawRegistry) remove(e *Endpoint) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, ok := r.all[e]; ok {
		delete(r.all, e)
		r.publishLocked()
	}
}

func (r *rawRegistry) publishLocked() {
	var specific []rawLocal
	for e, space := range r.all {
		if !e.config.Local.IsUnspecified() {
			specific = append(specific, rawLocal{space, peerOf(e.config.Local)})
		}
	}
	r.specific.Store(&specific)
}

// has reports whether an endpoint in e's network namespace has the local address to.
func (r *rawRegistry) has(e *Endpoint, to peer) bool {
	specific := r.specific.Load()
	return specific != nil && len(*specific) > 0 && slices.Contains(*specific, rawLocal{e.space, to})
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
