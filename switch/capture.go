package vswitch

import (
	"context"
	"math"
	"sync/atomic"
	"time"

	"vswitch/capture"
	"vswitch/frame"
)

// sinksLimit is how long Close waits for files to be written to their end.
const sinksLimit = 3 * time.Second

// awaitSinks waits for the mirrors' goroutines, unless a disk holds them.
func (s *Switch) awaitSinks() {
	done := make(chan struct{})
	go func() { // ended by the goroutines it waits for, or with the process
		s.writing.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(sinksLimit):
	}
}

// Sink is what a mirror's copies are written to, by one goroutine of the mirror's
// own: each call may wait for a disk, for ever if need be. A *capture.File is one.
type Sink interface {
	// Write takes one frame, its tag in the bytes and its checksum finished; a
	// super-frame is still one. p is the caller's again when it returns. What
	// cannot be written is for the sink to count and tell.
	Write(p *capture.Packet)
	// Flush is called first, when nothing waits to be written, and once a second.
	Flush()
	// Close is called last.
	Close() error
}

// capture hands a copy of the frame to a capture file's ring; rec says by which
// port it came or goes.
func (w *worker) capture(br *bridgeView, in *portView, m *mirrorView, f *frame.Frame, tag frame.Tag, rec record) {
	n := f.Len()
	if m.snap > 0 {
		n = min(n, m.snap)
	}
	rec.n = n
	if !m.rings[w.id].write(&rec, f.Bytes()) {
		m.missed.Add(1)
		// The copy is lost, not the frame: it counts, and nobody sees it dropped.
		in.counters[w.id].dropped(DropCaptureRing, 1, w.now)
		return
	}
	br.counters[w.id].captured.Add(1)
}

// mirror is the control side's half of a mirror.
type mirror struct {
	sw     *Switch
	config MirrorConfig // guarded by Switch.mu
	bridge *bridge
	view   *mirrorView // guarded by Switch.mu
	sink   Sink        // config.Sink and Snap, for write
	snap   int
	copied atomic.Uint64
	missed atomic.Uint64

	cancel context.CancelFunc // ends write

	// These belong to write.
	packet  capture.Packet // at hand
	told    uint64         // of missed, to the sink
	flushed int            // the second in which the sink was flushed last
}

// capturePoll is how long a mirror's goroutine rests when it has nothing to
// write: a worker never wakes anybody for a copy. It is also how old a copy is
// before it is written: time for the other workers' copies that are older to
// come in, so that the file is in order.
const capturePoll = 2 * time.Millisecond

// write brings copies from the workers' rings to the sink until ctx ends, and
// then what is left.
func (m *mirror) write(ctx context.Context, rings []*byteRing) {
	defer m.sink.Close()
	data := make([]byte, frame.MaxLen+frame.TagLen)
	tick := time.NewTicker(capturePoll)
	defer tick.Stop()
	m.sink.Flush() // a sink that is opened late is opened now
	for {
		select {
		case <-ctx.Done():
			m.writeUntil(math.MaxInt64, rings, data)
			return
		case now := <-tick.C:
			if m.writeUntil(int64(now.Add(-capturePoll).Sub(m.sw.start)), rings, data) > 0 || now.Second() != m.flushed {
				// Also without a copy once a second: a sink whose disk failed tries
				// again then.
				m.sink.Flush()
				m.flushed = now.Second()
			}
		}
	}
}

// writeUntil writes, in order of time, what was copied before a moment, and
// returns how many copies that were.
func (m *mirror) writeUntil(limit int64, rings []*byteRing, data []byte) (n int) {
	for {
		first := oldest(rings, limit)
		if first == nil {
			return n
		}
		m.writeOne(first, data)
		n++
	}
}

// writeOne writes a ring's oldest copy; there is one.
func (m *mirror) writeOne(r *byteRing, data []byte) {
	var rec record
	b := data[frame.TagLen:]
	r.read(&rec, b)
	b = b[:rec.n]
	if whole := rec.wireLen; rec.n == whole || rec.tag.Present() && rec.n == whole-frame.TagLen {
		// Headers that cannot be finished are shown as they are, and so is the
		// checksum of a frame that is not here in full: nobody can verify that.
		_ = frame.Finish(b, &rec.offload)
	}
	if rec.tag.Present() && rec.n >= frame.AddrLen { // else it was cut before the place of the tag
		b = rec.tag.Insert(data[:frame.TagLen+rec.n])
	}
	if m.snap > 0 {
		b = b[:min(len(b), m.snap)]
	}
	name, _ := m.sw.names(rec.port, rec.at)
	p := &m.packet
	*p = capture.Packet{
		Time: m.sw.wall(rec.at), Interface: capture.Interface{Name: name},
		Direction: capture.Inbound, Data: b, OrigLen: rec.wireLen,
	}
	if rec.out {
		p.Direction = capture.Outbound
	}
	missed := m.missed.Load()
	p.Dropped, m.told = missed-m.told, missed
	m.sink.Write(p)
}
