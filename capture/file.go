package capture

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// retryPause is how long a File lets a disk that failed rest.
const retryPause = time.Second

// FileOptions say where and how much.
type FileOptions struct {
	Options
	Path string // of the first file, such as /var/tmp/web.pcapng
	Size int64  // bytes after which the next file is begun; 0: no limit, and then Files means nothing
	// Files is how many files there are at most; 0 is 1. They are named
	// web.pcapng, web.1.pcapng, web.2.pcapng …, each closed when it is full;
	// after the last, the first is begun again. So the newest packets are in
	// the file changed last, Files*Size bounds the disk space, and a file
	// that a reader has open is never moved (tcpdump -C and -W do the same).
	Files int
	// Dirs are the directories that files may be written below; empty is
	// anywhere. Except are directories of somebody's own: what is below one
	// of them is refused, unless one of Dirs that is below it holds the file.
	Dirs, Except []string
}

// File writes packets to a rotating set of files, and survives what disks do.
//
// A new File never destroys an older capture without need: with several files it
// goes on with the one after the newest; a single file gets a new section behind
// what it holds (pcapng allows that; readers show it as one). An existing file
// that is no capture is refused, and so is what is outside the allowed directories
// and what a symbolic link leads to: the daemon that holds this is root, and the
// path may come from somebody who is not.
//
// When the disk fails, Write counts packets instead of writing them, and the file
// is opened again after a pause; meanwhile Status says why. A call lasts as long
// as the disk takes, so a File is fed by a goroutine of its own that drains a ring.
//
// Thread-safety: Write, Flush and Close are for one goroutine; Status is for any.
type File struct {
	o   FileOptions
	now func() time.Time
	// open is place.open; tests put disks that fail here.
	open func(path string) (file, error)

	f       file
	w       *Writer
	slot    int   // which file of the set
	over    bool  // what the slot holds makes way
	size    int64 // of the file: whole blocks only
	retryAt time.Time

	accounts map[Interface]*account
	last     *account // of the interface before, for runs of packets

	packets, bytes, dropped atomic.Uint64
	waiting                 atomic.Uint64 // packets in the buffer
	state                   atomic.Pointer[fileState]
}

// account counts one interface's packets that the disk does not have.
type account struct {
	Interface
	pending uint64 // in Writer's buffer
	missing uint64 // lost since the interface's last packet on disk
}

type fileState struct {
	path  string
	err   error
	since time.Time
}

// file is what File needs of *os.File.
type file interface {
	io.WriteCloser
	io.ReaderAt
	io.Seeker
	Stat() (os.FileInfo, error)
	Truncate(size int64) error
}

// FileStatus is how a File is doing.
type FileStatus struct {
	Path    string    // being written, or tried
	Packets uint64    // written
	Bytes   uint64    // written, in all files
	Dropped uint64    // packets that could not be written
	Err     error     // why it cannot write now; nil when it can
	Since   time.Time // of Err
}

// NewFile opens the set of files. The error says what is wrong with the path;
// the File is usable all the same, and tries again by itself, unless the options
// make no sense: then it is nil.
func NewFile(o FileOptions) (*File, error) {
	return newFile(o, place{o.Dirs, o.Except}.open, time.Now)
}

func newFile(o FileOptions, open func(string) (file, error), now func() time.Time) (*File, error) {
	if !filepath.IsAbs(o.Path) || strings.HasSuffix(o.Path, "/") {
		return nil, fmt.Errorf("capture file %q: not an absolute path of a file", o.Path)
	}
	o.Path = filepath.Clean(o.Path)
	if _, _, err := (place{dirs: o.Dirs}).split(o.Path); err != nil {
		return nil, err
	}
	if o.Size < 0 || o.Files < 0 {
		return nil, fmt.Errorf("capture file %s: size %d, files %d: must not be negative", o.Path, o.Size, o.Files)
	}
	if o.Files == 0 || o.Size == 0 {
		o.Files = 1
	}
	f := &File{o: o, open: open, now: now, accounts: make(map[Interface]*account)}
	f.slot, f.over = f.firstSlot(), o.Files > 1
	f.state.Store(&fileState{path: f.path(f.slot)})
	return f, f.resume()
}

// Write adds a packet, or counts it as dropped where that cannot be.
func (f *File) Write(p *Packet) {
	if f.w == nil && !f.retry() {
		f.account(p.Interface).missing += 1 + p.Dropped
		f.dropped.Add(1)
		return
	}
	a := f.account(p.Interface)
	q := *p
	q.Dropped += a.missing
	a.missing = 0
	a.pending += 1 + q.Dropped
	f.waiting.Add(1)
	if f.w.Write(&q) != nil {
		return // fail has counted it with the rest of the buffer
	}
	if f.o.Size > 0 && f.size+int64(f.w.Buffered()) >= f.o.Size {
		f.rotate()
	}
}

// account returns an interface's account, a new one where there is none.
func (f *File) account(i Interface) *account {
	if f.last != nil && f.last.Interface == i {
		return f.last
	}
	a := f.accounts[i]
	if a == nil {
		a = &account{Interface: i}
		f.accounts[i] = a
	}
	f.last = a
	return a
}

// Flush writes what is buffered, so that a reader sees it: call it when the ring
// has run dry. It also tries a failed disk again when it is time.
func (f *File) Flush() {
	if f.w == nil {
		f.retry()
		return
	}
	f.w.Flush()
}

// Close ends the current file with its statistics. The File takes no packets
// after it. The error is the one that kept packets from the disk at the end.
func (f *File) Close() error {
	if f.w == nil {
		return f.state.Load().err
	}
	err := f.w.Close()
	if err == nil {
		err = f.f.Close()
	}
	f.f, f.w = nil, nil
	f.retryAt = f.now().Add(1 << 62)
	return err
}

// Status says how it goes.
func (f *File) Status() FileStatus {
	s := f.state.Load()
	return FileStatus{
		Path: s.path, Err: s.err, Since: s.since,
		Packets: f.packets.Load(), Bytes: f.bytes.Load(), Dropped: f.dropped.Load(),
	}
}

// path names a file of the set: web.pcapng, web.1.pcapng, web.2.pcapng …
func (f *File) path(slot int) string {
	if slot == 0 {
		return f.o.Path
	}
	ext := filepath.Ext(f.o.Path)
	return strings.TrimSuffix(f.o.Path, ext) + "." + strconv.Itoa(slot) + ext
}

// firstSlot returns the file to begin with: the one after the newest that exists.
func (f *File) firstSlot() int {
	newest, slot := time.Time{}, 0
	for i := range f.o.Files {
		st, err := os.Lstat(f.path(i))
		if err != nil {
			// The rest of a set that was never full. One file in the
			// middle may have been deleted by somebody; that is a place
			// to write, too.
			continue
		}
		if !st.ModTime().Before(newest) {
			newest, slot = st.ModTime(), (i+1)%f.o.Files
		}
	}
	return slot
}

// rotate ends the current file and begins the next.
func (f *File) rotate() {
	if f.w.Close() != nil {
		return // fail has been told
	}
	err := f.f.Close()
	f.f, f.w = nil, nil
	f.slot, f.over = (f.slot+1)%f.o.Files, true
	if err == nil {
		err = f.begin()
	}
	if err != nil {
		f.fail(err)
	}
}

// retry opens the file again when it is time, and reports whether there is one.
func (f *File) retry() bool {
	return !f.now().Before(f.retryAt) && f.resume() == nil
}

// resume opens the file of the current slot, or notes why not.
func (f *File) resume() error {
	err := f.begin()
	if err != nil {
		f.fail(err)
	}
	return err
}

// begin opens the file of the current slot, and starts it over or adds a section
// to what it holds.
func (f *File) begin() error {
	path := f.path(f.slot)
	out, err := f.open(path)
	if err != nil {
		return fmt.Errorf("open capture file: %w", err)
	}
	size, err := wholeBlocks(out)
	if err == nil {
		if f.over || f.o.Size > 0 && size >= f.o.Size {
			size = 0
		}
		err = out.Truncate(size) // a torn block at the end, or all
	}
	if err == nil {
		_, err = out.Seek(size, io.SeekStart)
	}
	if err != nil {
		out.Close()
		return fmt.Errorf("begin capture file %s: %w", path, err)
	}
	f.f, f.size, f.over = out, size, false
	// Ports come and go; accounts that owe nothing need not stay.
	f.last = nil
	maps.DeleteFunc(f.accounts, func(_ Interface, a *account) bool { return a.missing == 0 })
	f.w = NewWriter(sink{f}, f.o.Options)
	// The section's head goes out at once: a disk that is still full says so
	// now, and a file that exists can be read.
	if err := f.w.Flush(); err != nil {
		return err
	}
	f.state.Store(&fileState{path: path})
	return nil
}

// sink is where Writer's blocks go.
type sink struct{ f *File }

// Write writes whole blocks or none: what a failed write left is cut off.
func (s sink) Write(b []byte) (int, error) {
	f := s.f
	n, err := f.f.Write(b)
	if err == nil && n < len(b) {
		err = io.ErrShortWrite
	}
	if err != nil {
		// Should this fail too, the next begin cuts it.
		f.f.Truncate(f.size)
		f.fail(err)
		return 0, err
	}
	f.size += int64(n)
	f.bytes.Add(uint64(n))
	f.packets.Add(f.waiting.Swap(0))
	for _, a := range f.accounts {
		a.pending = 0
	}
	return n, nil
}

// fail gives the file up for a while. What was buffered is lost, and counted.
func (f *File) fail(err error) {
	f.dropped.Add(f.waiting.Swap(0))
	for _, a := range f.accounts {
		a.missing += a.pending
		a.pending = 0
	}
	if f.f != nil {
		f.f.Close()
	}
	f.f, f.w = nil, nil
	now := f.now()
	f.retryAt = now.Add(retryPause)
	next := &fileState{path: f.path(f.slot), err: err, since: now}
	if last := f.state.Load(); last.err != nil {
		next.since = last.since
	}
	f.state.Store(next)
}
