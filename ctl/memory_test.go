package ctl

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// TestIdleMemoryIsGivenBack: once things are quiet what grew is looked at, once, and
// only what is used is held then.
func TestIdleMemoryIsGivenBack(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // as if no collection came for hours
	m := newMemory()
	quiet := func() (grown bool) {
		for range 1 + quietLooks {
			grown = m.grown()
		}
		return grown
	}
	quiet()
	m.free()
	empty := m.held
	if quiet() {
		t.Error("it has grown since all was given back")
	}
	old := make([]byte, 8*idleMemory)
	if m.grown() {
		t.Error("it is not quiet while much is allocated")
	}
	runtime.GC() // finds it in use
	runtime.KeepAlive(old)
	if !quiet() {
		t.Error("what was used when the collector came is believed to be used for ever")
	}
	more := make([]byte, 8*idleMemory) // while it collects
	m.free()
	runtime.KeepAlive(more)
	if !quiet() {
		t.Error("what was allocated during a collection is believed to be used for ever")
	}
	m.free()
	if m.held > empty+idleMemory {
		t.Errorf("%d bytes are held after %d were given back", m.held, 16*idleMemory)
	}

	used := make([]byte, 8*idleMemory)
	quiet()
	m.free()
	if m.held < 8*idleMemory || quiet() {
		t.Errorf("of %d bytes in use %d are held, or looked at again and again", len(used), m.held)
	}
	runtime.KeepAlive(used)
}
