package ctl

import (
	"sync"
	"time"
)

// recentLimit is how long who asks what there is waits for what is under way.
const recentLimit = time.Second

// recent is something that is worked out anew for each who asks. Where that takes long,
// since it waits for an apply, who asks goes on with what was worked out last, and who asks
// after him does not wait at all: what there is, is said at once.
//
// Thread-safety: safe for concurrent use. work is called by one goroutine at a time.
type recent struct {
	work  func()
	start func(func()) // as sync.WaitGroup.Go, of who waits for work's end

	mu   sync.Mutex
	runs bool
	late bool          // somebody waited in vain for the work that is under way
	next chan struct{} // closed when the work is done that begins after now; nil: nobody asked
}

// ask has it worked out, and reports whether it is: it began after ask was called.
func (r *recent) ask(limit time.Duration) bool {
	r.mu.Lock()
	if r.next == nil {
		r.next = make(chan struct{})
	}
	done, late := r.next, r.late
	if !r.runs {
		r.runs = true
		r.start(r.run) // ends when nobody asks any more
	}
	r.mu.Unlock()
	if late {
		return false
	}
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-done:
		return true
	case <-timer.C:
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	select {
	case <-done:
		return true
	default:
	}
	r.late = true
	return false
}

func (r *recent) run() {
	for {
		r.mu.Lock()
		done := r.next
		r.next = nil
		if r.runs = done != nil; !r.runs {
			r.mu.Unlock()
			return
		}
		r.mu.Unlock()
		r.work()
		r.mu.Lock()
		r.late = false
		close(done)
		r.mu.Unlock()
	}
}
