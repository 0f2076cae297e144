package ctl

import (
	"runtime"
	"runtime/debug"
	"testing"
)

// TestIdleMemoryIsSeen: garbage counts once nothing is allocated any more, and what is
// used does not.
func TestIdleMemoryIsSeen(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // as if no collection came for hours
	m := newMemory()
	debug.FreeOSMemory()
	m.wasted()
	if m.wasted() {
		t.Error("memory lies idle after all was given back")
	}
	used := make([]byte, 8*idleMemory)
	if m.wasted() {
		t.Error("it is not quiet while much is allocated")
	}
	debug.FreeOSMemory() // the collector knows of it
	m.wasted()
	if m.wasted() {
		t.Error("what is used counts as idle")
	}
	runtime.KeepAlive(used)
	for range 100 {
		used = make([]byte, idleMemory/10)
	}
	runtime.KeepAlive(used)
	m.wasted()
	if !m.wasted() {
		t.Error("garbage is not seen")
	}
	used = nil
	debug.FreeOSMemory()
	m.wasted()
	if m.wasted() {
		t.Error("memory lies idle after it was given back")
	}
}
