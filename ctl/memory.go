package ctl

import (
	"context"
	"os"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// A change, or a question about thousands of ports, leaves garbage worth several times
// what stays, and a switch that does nothing but forward allocates nothing: no other
// collection might come for hours. So memory that is not used goes back to the kernel
// once things are quiet. That takes some milliseconds of a core beside the workers.
const (
	idleMemory = 2 << 20                // bytes that may lie idle, or a quarter of what was used last
	tidyEvery  = 250 * time.Millisecond // between looks; one takes a few µs
	quietLooks = 2                      // in a row
	quietAlloc = 256 << 10              // bytes allocated between two looks, while things are quiet
)

// gcPercent is how much garbage may be beside what is used, until it is collected:
// half of Go's default, as the heap hardly moves but for large changes. Who sets
// GOGC knows better.
const gcPercent = 50

func boundGarbage() {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}

// tidy gives memory back until ctx ends.
func tidy(ctx context.Context) {
	look := time.NewTicker(tidyEvery)
	defer look.Stop()
	m := newMemory()
	for {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
			if m.grown() {
				m.free()
			}
		}
	}
}

// memory looks at the Go heap. What of it is used only a collection can tell: the old
// array of a MAC table that grew was in use, as it seems, when the last one ran.
//
// Thread-safety: none.
type memory struct {
	samples   []metrics.Sample
	allocated uint64 // in all, at the last look
	quiet     int    // looks in a row at which little was allocated
	held      uint64 // when it was given back last
}

func newMemory() *memory {
	return &memory{samples: []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, // in use, and not yet collected
		{Name: "/memory/classes/heap/free:bytes"},    // kept from the kernel, for later
		{Name: "/gc/heap/allocs:bytes"},
	}}
}

// look returns the bytes that are held, and those that were allocated ever.
func (m *memory) look() (held, allocated uint64) {
	metrics.Read(m.samples)
	return m.samples[0].Value.Uint64() + m.samples[1].Value.Uint64(), m.samples[2].Value.Uint64()
}

// grown reports whether much more is held than when it was given back last, and things
// are quiet.
func (m *memory) grown() bool {
	held, allocated := m.look()
	if m.quiet++; allocated-m.allocated >= quietAlloc {
		m.quiet = 0
	}
	m.allocated = allocated
	return m.quiet >= quietLooks && held > m.held+max(idleMemory, m.held/4)
}

// free collects, and gives back what is not used. If much is allocated meanwhile, a
// collection cannot tell what of it is used: then there will be another.
func (m *memory) free() {
	debug.FreeOSMemory()
	held, allocated := m.look()
	if allocated-m.allocated < quietAlloc {
		m.held = held
	}
	m.allocated = allocated
}
