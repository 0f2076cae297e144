package vswitch

import (
	"time"
)

// RecorderOptions bound the flight recorder: what every worker remembers of the
// frames that it carried, and, apart, of those it dropped.
type RecorderOptions struct {
	Bytes int // of memory a worker, for both; 0: no recorder
	Snap  int // bytes of a frame that are kept, 64 to 2048
	Rate  int // frames a second and worker that are recorded, and as many drops; 0: all
}

// Recorded hands over, in order of time, what the recorder holds since a moment, and
// stops when each returns false. Inbound sightings tell of frames that went on, with
// where to; those with a reason of drops. Frames that left have none of their own.
func (s *Switch) Recorded(since time.Time, each func(*Sighting) bool) {}

// RecorderStats is how the recorder is doing.
type RecorderStats struct {
	RecorderOptions
	Frames, Drops uint64    // recorded since the start
	Skipped       uint64    // frames and drops that came faster than Rate
	Oldest        time.Time // of the frames it holds; zero: it holds none
	OldestDrop    time.Time
}

// Recorder returns how the recorder is doing.
func (s *Switch) Recorder() RecorderStats { return RecorderStats{} }
