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
	idleMemory = 4 << 20                // bytes that may lie idle, or a quarter of what is used
	tidyEvery  = 250 * time.Millisecond // between looks; one takes a few µs
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
			if m.wasted() {
				debug.FreeOSMemory()
			}
		}
	}
}

// memory looks at the Go heap.
//
// Thread-safety: none.
type memory struct {
	samples   []metrics.Sample
	allocated uint64 // in all, at the last look
}

func newMemory() *memory {
	return &memory{samples: []metrics.Sample{
		{Name: "/gc/heap/live:bytes"},                // found in use by the last collection
		{Name: "/memory/classes/heap/objects:bytes"}, // that, and all that was allocated since
		{Name: "/memory/classes/heap/free:bytes"},    // kept from the kernel, for later
		{Name: "/gc/heap/allocs:bytes"},
	}}
}

// wasted reports whether much memory lies idle and things are quiet.
func (m *memory) wasted() bool {
	metrics.Read(m.samples)
	live, objects, free, allocated := m.samples[0].Value.Uint64(), m.samples[1].Value.Uint64(), m.samples[2].Value.Uint64(), m.samples[3].Value.Uint64()
	quiet := allocated-m.allocated < quietAlloc
	m.allocated = allocated
	idle := free + objects - min(live, objects)
	return quiet && idle > max(idleMemory, live/4)
}
