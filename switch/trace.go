package vswitch

import (
	"context"
	"errors"

	"vswitch/capture/filter"
	"vswitch/frame"
)

// Traced is the way of one frame through the pipeline.
type Traced struct {
	Sighting // how it came in
	Steps    []Step
	Left     []Sighting // the frames that left, or would: Data as it is sent, in memory of their own
	Drops    []Sighting // what was dropped on the way, each with its reason
}

// Step is one step of the pipeline, and what it decided.
type Step struct {
	Depth  int    // patch ports that the frame has gone through
	Bridge string // where it happened
	Port   string // which it is about; "": none
	Stage  string // of docs/design.md: receive, admission, learn, lookup, storm, unicast, flood, output, patch, mirror, transmit, drop
	Text   string // what was decided and why, in a sentence
	Reason Reason // of a drop
}

// Trace carries a frame that comes in by a port through the pipeline, as it is this
// moment, without sending, counting or learning anything: the code is the workers'
// own, run on a copy of their snapshot. o is the offload state the frame comes with;
// data includes a VLAN tag, if there is one.
func (s *Switch) Trace(port string, data []byte, o frame.Offload) (*Traced, error) {
	return nil, errors.New("not built yet")
}

// TraceLive calls each with the way of real frames that came in by any of ports (nil:
// all) and match f, until n are through or ctx ends. A worker traces at most some
// hundred frames a second; how many matched and were not traced is returned.
func (s *Switch) TraceLive(ctx context.Context, ports []string, f *filter.Program, n int, each func(*Traced)) (missed uint64, err error) {
	return 0, errors.New("not built yet")
}
