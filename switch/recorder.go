package vswitch

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// RecorderOptions bound the flight recorder: what every worker remembers of the
// frames that it carried, and, apart, of those it dropped.
type RecorderOptions struct {
	Bytes int // of memory a worker, for both; 0: no recorder
	Snap  int // bytes of a frame that are kept: MinRecorderSnap to MaxRecorderSnap
	Rate  int // frames a second and worker that are recorded, and as many drops; 0: all
}

// Bounds of RecorderOptions, and what they are where nobody says otherwise: at the
// default rate 8 MiB hold the last eight seconds of a worker that has more frames
// than that to carry, and all of one that has less.
const (
	MinRecorderBytes = 64 << 10
	MaxRecorderBytes = 1 << 30
	MinRecorderSnap  = 64
	MaxRecorderSnap  = 2048

	DefaultRecorderBytes = 8 << 20
	DefaultRecorderSnap  = 142 // with a record's head three cache lines
	DefaultRecorderRate  = 4096
)

// DefaultRecorder is a recorder as it is when nobody says otherwise.
func DefaultRecorder() RecorderOptions {
	return RecorderOptions{Bytes: DefaultRecorderBytes, Snap: DefaultRecorderSnap, Rate: DefaultRecorderRate}
}

// Check tells what is out of bounds.
func (o RecorderOptions) Check() error {
	switch {
	case o.Bytes == 0:
		return nil
	case o.Bytes < MinRecorderBytes || o.Bytes > MaxRecorderBytes:
		return fmt.Errorf("recorder of %d bytes a worker: must be 0 (none), or %d to %d", o.Bytes, MinRecorderBytes, MaxRecorderBytes)
	case o.Snap < MinRecorderSnap || o.Snap > MaxRecorderSnap:
		return fmt.Errorf("recorder keeps %d bytes of a frame: must be %d to %d", o.Snap, MinRecorderSnap, MaxRecorderSnap)
	case o.Rate < 0:
		return fmt.Errorf("recorder of %d frames a second: must be 0 (all) or more", o.Rate)
	}
	return nil
}

// recorder is one worker's memory of frames, or of drops: slots of equal size that
// are written round and round. It lies in a mapping of its own: it takes memory only
// as far as it was written, and the garbage collector does not count it.
//
// Thread-safety: the worker admits and writes, anybody reads. Nobody makes the worker
// wait: a slot that it cannot have, since a reader looks at another, is not written,
// and counts as skipped.
type recorder struct {
	// The worker's own.
	each, depth int64 // nanoseconds a frame, and of frames that may come at once; each 0: all
	full        int64 // see rate
	passed      uint32

	mu      sync.Mutex
	arena   []byte
	slot    int    // bytes of one
	written uint64 // slots ever

	recorded, skipped atomic.Uint64
}

// newRecorder makes a recorder in bytes of memory.
func newRecorder(bytes, snap, rate int) (*recorder, error) {
	slot := (recordLen + snap + 63) &^ 63
	arena, err := unix.Mmap(-1, 0, max(bytes/slot, 1)*slot, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d bytes for the recorder: %w", bytes, err)
	}
	r := &recorder{arena: arena, slot: slot}
	if rate > 0 {
		// A second's worth may come at once: the beginning of a connection is whole.
		r.each = max(int64(time.Second)/int64(rate), 1)
		r.depth = int64(time.Second)
	}
	return r, nil
}

// admit reports whether a frame at the time now is to be written; if not it counts
// among those that the next one stands for. A nil recorder admits none.
func (r *recorder) admit(now int64) bool {
	if r == nil {
		return false
	}
	if r.each == 0 {
		return true
	}
	if next := max(r.full, now) + r.each; next <= now+r.depth {
		r.full = next
		return true
	}
	r.passed++
	return false
}

// write records a frame that admit let in.
func (r *recorder) write(rec *record, data []byte) {
	if !r.mu.TryLock() {
		r.passed++
		return
	}
	b := r.arena[int(r.written%uint64(len(r.arena)/r.slot))*r.slot:][:r.slot]
	rec.n = copy(b[recordLen:], data)
	rec.skipped = r.passed
	rec.put((*[recordLen]byte)(b))
	r.written++
	r.mu.Unlock()
	rec.skipped = 0 // it is for others, too
	r.recorded.Add(1)
	if r.passed > 0 {
		r.skipped.Add(uint64(r.passed))
		r.passed = 0
	}
}

func (r *recorder) close() {
	if r != nil {
		unix.Munmap(r.arena)
	}
}

// cursor reads a recorder from its oldest record to the one that was the newest when
// it began.
type cursor struct {
	sw      *Switch
	r       *recorder
	at, end uint64
	rec     record
	data    []byte
	ok      bool // rec and data hold a record
}

// next takes the next record. Those that were overwritten meanwhile are passed over.
func (c *cursor) next() {
	c.sw.recording.RLock()
	defer c.sw.recording.RUnlock()
	if c.ok = false; c.sw.recorders == nil {
		return // closed
	}
	c.r.mu.Lock()
	defer c.r.mu.Unlock()
	if c.end == 0 {
		c.end = c.r.written
	}
	slots := uint64(len(c.r.arena) / c.r.slot)
	if c.r.written > slots {
		c.at = max(c.at, c.r.written-slots)
	}
	if c.ok = c.at < c.end; !c.ok {
		return
	}
	b := c.r.arena[int(c.at%slots)*c.r.slot:][:c.r.slot]
	c.rec.get((*[recordLen]byte)(b))
	c.data = append(c.data[:0], b[recordLen:recordLen+c.rec.n]...)
	c.at++
}

// since goes to the first record that is not before a time: records are in order.
func (c *cursor) since(at int64) {
	for c.next(); c.ok && c.rec.at < at; {
		c.next()
	}
}

// Recorded hands over, in order of time, what the recorder holds since a moment, and
// stops when each returns false. Inbound sightings tell of frames that went on, with
// where to; those with a reason of drops. Frames that left have none of their own. A
// frame that was dropped on its way out is told of as one that came in, too.
func (s *Switch) Recorded(since time.Time, each func(*Sighting) bool) {
	from := int64(since.Sub(s.wall(0)))
	var cursors []*cursor
	for _, r := range s.theRecorders() {
		c := &cursor{sw: s, r: r}
		c.since(from)
		cursors = append(cursors, c)
	}
	var x Sighting
	for {
		var oldest *cursor
		for _, c := range cursors {
			if c.ok && (oldest == nil || c.rec.at < oldest.rec.at) {
				oldest = c
			}
		}
		if oldest == nil {
			return
		}
		s.sighting(&oldest.rec, oldest.data, &x)
		if !each(&x) {
			return
		}
		oldest.next()
	}
}

// RecorderStats is how the recorder is doing.
type RecorderStats struct {
	RecorderOptions
	Frames, Drops uint64    // recorded since the start
	Skipped       uint64    // frames and drops that came faster than Rate
	Oldest        time.Time // of the frames it holds; zero: it holds none
	OldestDrop    time.Time
}

// Recorder returns how the recorder is doing.
func (s *Switch) Recorder() RecorderStats {
	st := RecorderStats{RecorderOptions: s.options.Recorder}
	for i, r := range s.theRecorders() {
		c := &cursor{sw: s, r: r}
		c.next()
		st.Skipped += r.skipped.Load()
		oldest := &st.Oldest
		if i%2 == 0 {
			st.Frames += r.recorded.Load()
		} else {
			st.Drops += r.recorded.Load()
			oldest = &st.OldestDrop
		}
		if at := s.wall(c.rec.at); c.ok && (oldest.IsZero() || at.Before(*oldest)) {
			*oldest = at
		}
	}
	return st
}

// theRecorders returns the recorders, none once the switch is closed.
func (s *Switch) theRecorders() []*recorder {
	s.recording.RLock()
	defer s.recording.RUnlock()
	return s.recorders
}

// dropsShare is the part of a recorder's memory that is for drops: 1/dropsShare.
const dropsShare = 4

// addRecorders gives a worker its recorders.
func (s *Switch) addRecorders(w *worker) (err error) {
	o := s.options.Recorder
	if o.Bytes == 0 {
		return nil
	}
	if w.frames, err = newRecorder(o.Bytes-o.Bytes/dropsShare, o.Snap, o.Rate); err != nil {
		return err
	}
	if w.drops, err = newRecorder(o.Bytes/dropsShare, o.Snap, o.Rate); err != nil {
		w.frames.close()
		return err
	}
	s.recorders = append(s.recorders, w.frames, w.drops)
	return nil
}

// closeRecorders gives the recorders' memory back, once the workers have ended.
func (s *Switch) closeRecorders() {
	s.recording.Lock()
	defer s.recording.Unlock()
	for _, r := range s.recorders {
		r.close()
	}
	s.recorders = nil
}
