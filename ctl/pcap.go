package ctl

import (
	"fmt"
	"sync/atomic"
	"time"

	"vswitch/capture"
)

// pcapFile is a mirror's capture file. It is opened, written and closed by the
// mirror's own goroutine in the switch and by nobody else, so a disk that hangs
// holds up nothing but captured frames.
//
// Thread-safety: Write, Flush and Close are for that goroutine; status is for
// any.
type pcapFile struct {
	options capture.FileOptions
	before  *pcapFile     // that has the same path and must close first; nil: none
	opened  chan struct{} // closed when the first try to open it is through
	closed  chan struct{} // closed when Close is through

	file  atomic.Pointer[capture.File] // nil: not opened yet
	wrong atomic.Pointer[string]       // why it will never be
	since atomic.Int64                 // when the call began that is under way, in nanoseconds since 1970; 0: none
}

// stuckAfter is how long a disk may take for one call before the mirror is said
// to be in error.
const stuckAfter = 5 * time.Second

func newPcapFile(o capture.FileOptions, before *pcapFile) *pcapFile {
	return &pcapFile{options: o, before: before, opened: make(chan struct{}), closed: make(chan struct{})}
}

// ready opens the file at the first call, after the one before it was closed.
func (p *pcapFile) ready() *capture.File {
	if f := p.file.Load(); f != nil || p.wrong.Load() != nil {
		return f
	}
	if p.before != nil {
		<-p.before.closed
		p.before = nil
	}
	// With an error comes a file that tries again by itself, and whose status says
	// why; or none, when its path is outside the directories for captures.
	f, err := capture.NewFile(p.options)
	defer close(p.opened)
	if f == nil {
		why := err.Error()
		p.wrong.Store(&why)
		return nil
	}
	p.file.Store(f)
	return f
}

// busy notes that a call is under way, for status; the caller defers what it
// returns.
func (p *pcapFile) busy() func() {
	p.since.Store(time.Now().UnixNano())
	return func() { p.since.Store(0) }
}

// Write is described at vswitch.Sink.
func (p *pcapFile) Write(packet *capture.Packet) {
	p.since.Store(packet.Time.UnixNano()) // no clock call a frame; it is milliseconds old
	if f := p.ready(); f != nil {
		f.Write(packet)
	}
	p.since.Store(0)
}

// Flush is described at vswitch.Sink. Its first call opens the file.
func (p *pcapFile) Flush() {
	defer p.busy()()
	if f := p.ready(); f != nil {
		f.Flush()
	}
}

// Close is described at vswitch.Sink.
func (p *pcapFile) Close() error {
	defer p.busy()()
	defer close(p.closed)
	if f := p.file.Load(); f != nil {
		return f.Close()
	}
	return nil
}

// status says how the file is doing: Err is nil while it is being opened.
func (p *pcapFile) status() capture.FileStatus {
	st := capture.FileStatus{Path: p.options.Path}
	if f := p.file.Load(); f != nil {
		st = f.Status()
	}
	if why := p.wrong.Load(); why != nil {
		st.Err = fmt.Errorf("%s", *why)
	}
	if since := p.since.Load(); since != 0 && st.Err == nil {
		if took := time.Since(time.Unix(0, since)); took > stuckAfter {
			st.Err = fmt.Errorf("the disk of %s has not answered for %s", st.Path, took.Round(time.Second))
			st.Since = time.Unix(0, since)
		}
	}
	return st
}
