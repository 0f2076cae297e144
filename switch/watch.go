package vswitch

import (
	"errors"
	"fmt"
	"math/bits"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"vswitch/capture/filter"
	"vswitch/frame"
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
	Sample int             // one in so many, at random; 0 and 1: all. Not with Filter
}

// Bounds of watches.
const (
	// MaxWatches is how many there may be at a time: bits in a word.
	MaxWatches = 32
	// PollEvery is how often a watch is to be read.
	PollEvery = capturePoll
	// A watch that keeps little of each frame makes do with a smaller ring.
	smallSnap    = 512
	smallRingLen = 1 << 20
)

// ErrWatches is returned when there are MaxWatches.
var ErrWatches = errors.New("too many captures at a time")

// Watch is a tap on the switch: sightings of its frames, through bounded rings. What
// it sees is no part of the accounts: nothing that it misses is a drop.
//
// Thread-safety: Read is for one goroutine; the other methods for any.
type Watch struct {
	sw     *Switch
	config WatchConfig
	rings  []*byteRing  // one a worker
	state  []watchState // one a worker
	bit    int          // in the ports' masks; guarded by Switch.mu, -1: closed

	data []byte // Read's
}

// watchState is what a worker keeps for a watch. It fills cache lines of its own.
type watchState struct {
	skip   int // frames until the next sample
	passed uint32
	random rand.PCG

	missed, pool atomic.Uint64
	_            [cacheLine]byte
}

// Watch begins to watch. At most MaxWatches at a time. Close ends it.
func (s *Switch) Watch(c WatchConfig) (*Watch, error) {
	if c.Snap < 0 || c.Sample < 0 {
		return nil, fmt.Errorf("watch: snap length %d, sample %d: must not be negative", c.Snap, c.Sample)
	}
	if c.Sample > 1 && c.Filter != nil {
		return nil, errors.New("watch: a sample of filtered frames: how many each stands for would not be known")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	bit := slices.Index(s.watches[:], nil)
	if bit < 0 {
		return nil, fmt.Errorf("watch: %w: there can be %d", ErrWatches, MaxWatches)
	}
	n := captureRingLen
	if c.Snap > 0 && c.Snap <= smallSnap {
		n = smallRingLen
	}
	w := &Watch{
		sw: s, config: c, bit: bit, state: make([]watchState, len(s.workers)),
		data: make([]byte, frame.MaxLen+frame.TagLen),
	}
	for i := range s.workers {
		w.rings = append(w.rings, newByteRing(n))
		w.state[i].random.Seed(rand.Uint64(), rand.Uint64())
	}
	s.watches[bit] = w
	s.watchersChangedLocked()
	return w, nil
}

// watchersChangedLocked makes every port's masks anew.
func (s *Switch) watchersChangedLocked() {
	s.watchTurn++
	for _, p := range s.byID {
		if p != nil {
			p.view = nil
		}
	}
	s.publishLocked()
}

// Close ends the watch. Read may be called afterwards, for the rest.
func (w *Watch) Close() {
	w.sw.mu.Lock()
	defer w.sw.mu.Unlock()
	if w.bit < 0 {
		return
	}
	w.sw.watches[w.bit] = nil
	w.bit = -1
	w.sw.watchersChangedLocked()
	w.sw.graceLocked() // nobody writes to the rings any more
}

// masks are the watches, by bit, that see a port's frames.
type masks struct {
	sawIn, sawOut   uint32 // frames that came in and went on, frames that left
	lostIn, lostOut uint32 // frames that were dropped
	live            bool   // those that come in are for a live trace
	turn            uint32 // of Switch.watchTurn: a bit means another watch in another
}

// masksLocked returns the watches that see a port.
func (s *Switch) masksLocked(p *port) (m masks) {
	m.turn = s.watchTurn
	m.live = s.live != nil && s.live.wantsPort(p)
	for i, w := range s.watches {
		if w == nil || w.config.Bridge != "" && w.config.Bridge != p.bridge.name || w.config.Ports != nil && !slices.Contains(w.config.Ports, p.name) {
			continue
		}
		if w.config.In {
			m.lostIn |= 1 << i
		}
		if w.config.Out {
			m.lostOut |= 1 << i
		}
	}
	for i, w := range s.watches {
		if w != nil && w.config.Drops {
			continue
		}
		m.sawIn |= m.lostIn & (1 << i)
		m.sawOut |= m.lostOut & (1 << i)
	}
	return m
}

// watched gives the watches in mask, which is one of p's, the record of a frame, and
// its bytes.
func (w *worker) watched(p *portView, mask uint32, r *record, f *frame.Frame) {
	if p.turn != w.snap.watchTurn {
		return // what waited by an old view of the port: its bits are others' now
	}
	for ; mask != 0; mask &= mask - 1 {
		if x := w.snap.watches[bits.TrailingZeros32(mask)]; x != nil {
			x.take(w.id, r, f)
		}
	}
}

// take writes a frame to a worker's ring, if it is one of the sample and the filter
// wants it.
func (w *Watch) take(worker int, r *record, f *frame.Frame) {
	st := &w.state[worker]
	if w.config.Sample > 1 {
		st.pool.Add(1)
		if st.skip > 0 {
			st.skip--
			st.passed++
			return
		}
		// One in Sample on average, and no rhythm that traffic might share (sFlow
		// version 5, section 3.1, wants that).
		st.skip = int(st.random.Uint64() % uint64(2*w.config.Sample-1))
	}
	if w.config.Filter != nil && !w.config.Filter.Match(f.Bytes(), r.tag, r.wireLen) {
		return
	}
	x := *r
	x.n = f.Len()
	if w.config.Snap > 0 {
		x.n = min(x.n, w.config.Snap)
	}
	x.skipped = st.passed
	if !w.rings[worker].write(&x, f.Bytes()) {
		st.missed.Add(1)
		return
	}
	st.passed = 0
}

// Read hands over, in order of time, what was seen up to a few milliseconds ago, or,
// after Close, all; and returns how many sightings that were. It never waits: call it
// every PollEvery.
func (w *Watch) Read(each func(*Sighting)) (n int) {
	limit := w.sw.nanotime() - int64(PollEvery)
	w.sw.mu.Lock()
	closed := w.bit < 0
	w.sw.mu.Unlock()
	if closed {
		limit += int64(time.Hour)
	}
	var rec record
	var x Sighting
	for {
		r := oldest(w.rings, limit)
		if r == nil {
			return n
		}
		r.read(&rec, w.data)
		w.sw.sighting(&rec, w.data[:rec.n], &x)
		each(&x)
		n++
	}
}

// oldest returns the ring whose first record is the oldest of all, and from before
// limit; nil when there is none.
func oldest(rings []*byteRing, limit int64) (oldest *byteRing) {
	for _, r := range rings {
		if at, ok := r.peek(); ok && at < limit {
			oldest, limit = r, at
		}
	}
	return oldest
}

// Missed returns how many sightings found the ring full, and Pool how many frames
// could have been sampled, since the watch began.
func (w *Watch) Missed() (n uint64) {
	for i := range w.state {
		n += w.state[i].missed.Load()
	}
	return n
}

// Pool is described at Missed.
func (w *Watch) Pool() (n uint64) {
	for i := range w.state {
		n += w.state[i].pool.Load()
	}
	return n
}
