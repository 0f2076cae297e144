package frame

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// colours is how many cache lines the starts of buffers are spread over; what
// a buffer has beyond Headroom and MaxLen pays for it.
const colours = 32

// A buffer shifted by the last colour still holds the longest frame.
const _ = uint(BufferLen - (colours-1)*64 - Headroom - MaxLen)

// Pool is one worker's frames. Their buffers lie in one anonymous mapping, so
// the garbage collector neither scans nor moves them, and a page that no frame
// ever reached takes no memory.
//
// Thread-safety: none; a pool belongs to one worker.
type Pool struct {
	arena []byte
	all   []Frame
	free  []*Frame
	// promised counts the free frames that will take the place, in their batch,
	// of frames that rings keep.
	promised int
}

// NewPool makes a pool of n frames. The error is that of mmap(2).
func NewPool(n int) (*Pool, error) {
	arena, err := unix.Mmap(-1, 0, n*BufferLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d frame buffers of %d bytes: %w", n, BufferLen, err)
	}
	p := &Pool{arena: arena, all: make([]Frame, n), free: make([]*Frame, n)}
	for i := range p.all {
		// Buffers a whole number of pages apart would put the headers of all
		// frames of a batch into the same few sets of the first-level cache:
		// shift each by some lines.
		start := i*BufferLen + i%colours*64
		p.all[i] = Frame{buf: arena[start : (i+1)*BufferLen : (i+1)*BufferLen], off: Headroom}
		// The free list is a stack: the frame used last is handed out first,
		// while its first cache lines are still warm.
		p.free[n-1-i] = &p.all[i]
	}
	return p, nil
}

// Close unmaps the buffers. No frame of the pool may be used afterwards.
func (p *Pool) Close() error {
	p.all, p.free = nil, nil
	return unix.Munmap(p.arena)
}

// Get takes an empty frame, held once by the caller, or returns nil when all
// are in use.
func (p *Pool) Get() *Frame {
	if len(p.free) <= p.promised {
		return nil
	}
	return p.take()
}

func (p *Pool) take() *Frame {
	f := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	f.refs = 1
	return f
}

// Free returns how many frames Get would still give.
func (p *Pool) Free() int { return len(p.free) - p.promised }

// Size returns how many frames the pool has in all.
func (p *Pool) Size() int { return len(p.all) }

// Keep says that one more holder keeps f, beyond the batch or the call that it
// is in. It returns false, and f is not kept, when the pool has no frame left to
// take f's place in its batch.
func (p *Pool) Keep(f *Frame) bool {
	if f.batched && f.refs == 1 {
		if len(p.free) <= p.promised {
			return false
		}
		p.promised++
	}
	f.refs++
	return true
}

// Release says that one holder lets f go. When nobody holds it any longer the
// frame is back in the pool.
func (p *Pool) Release(f *Frame) {
	f.refs--
	switch {
	case f.refs == 0:
		p.free = append(p.free, f)
	case f.refs == 1 && f.batched:
		p.promised--
	}
}
