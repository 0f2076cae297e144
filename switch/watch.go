package vswitch

import (
	"errors"

	"vswitch/capture/filter"
)

// WatchConfig says what a watch sees.
type WatchConfig struct {
	Bridge string          // "": all
	Ports  []string        // nil: all of Bridge; ports that come later are seen, too, by their names
	In     bool            // frames that come in, those dropped there among them
	Out    bool            // frames that leave, and those dropped on their way out
	Drops  bool            // only what was dropped
	Filter *filter.Program // nil: all
	Snap   int             // bytes of a frame that are kept; 0: all
	Sample int             // one in so many, at random, before Filter; 0 and 1: all
}

// Watch is a tap on the switch: sightings of its frames, through bounded rings.
//
// Thread-safety: Read is for one goroutine; the other methods for any.
type Watch struct{}

// Watch begins to watch. At most maxWatches at a time. Close ends it.
func (s *Switch) Watch(c WatchConfig) (*Watch, error) { return nil, errors.New("not built yet") }

// Read hands over, in order of time, what was seen up to a few milliseconds ago, and
// returns how many sightings that were. It never waits: call it every PollEvery.
func (w *Watch) Read(each func(*Sighting)) int { return 0 }

// Missed returns how many sightings found the ring full, and Pool how many frames
// could have been sampled, since the watch began.
func (w *Watch) Missed() uint64 { return 0 }

// Pool is described at Missed.
func (w *Watch) Pool() uint64 { return 0 }

// Close ends the watch. Read may be called once more, for the rest.
func (w *Watch) Close() {}
