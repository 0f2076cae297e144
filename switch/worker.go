package vswitch

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// worker is an OS thread that runs receive queues to completion: wait for queues
// with frames, read a batch, forward each frame, send what was staged.
//
// Thread-safety: all but mailbox and stats belong to the worker's own thread.
type worker struct {
	id int
	sw *Switch

	epfd    int
	slots   []slot // by the number in an epoll event
	events  [64]unix.EpollEvent
	brief   bool       // the last wait was: see await
	crowded int64      // until when on the switch's clock it does not spin
	pause   int64      // how long that was, the last time
	again   []*rxQueue // that hold frames of which epoll knows nothing
	turn    uint64     // of the loop

	snap      *snapshot // of the batch at hand
	now       uint32    // seconds on the switch's clock, of this turn
	nano      int64     // nanoseconds on the switch's clock, of this turn
	crossings int       // of patch ports by the frame at hand and its copies
	pool      *frame.Pool
	buffers   int // of the pool
	batch     *frame.Batch
	vectors   frame.Vectors
	quiet     bool       // what is staged is a copy: see frame.Out
	tx        []*txQueue // by port id; made at the first frame
	dirty     []*txQueue // with frames staged
	finished  []frame.Out
	cuts      []*frame.Frame // mirrors' copies, until all that is staged is sent
	answer    [1]frame.Out
	segmenter frame.Segmenter

	frames, drops *recorder // nil: no recorder
	hearing       *hearing  // nil: nobody wants to hear
	trace         *tracer   // of the frame at hand; nil but for frames that are traced

	measure int // batches until one is timed again
	random  rand.PCG

	mailbox mailbox
	stats   workerStats
}

// slot is one descriptor in the worker's epoll set.
type slot struct {
	fd     int
	events uint32
	rx     *rxQueue
	// Those that wait for it to be writable, the first to be served first.
	tx, txLast *txQueue
}

// rxQueue is one receive queue: of a port, or of an endpoint, whose frames say
// themselves which port they came in by.
type rxQueue struct {
	from     receiver
	port     uint32
	many     bool // of an endpoint
	index    int
	turn     uint64 // in which it was read last
	failures int    // calls in a row that ended in an error and brought no frame
}

// receiver is what Device and Endpoint have in common.
type receiver interface {
	FD(q int) int
	Recv(q int, b *frame.Batch, limit int) (n int, errno unix.Errno)
}

// maxFailures is after how many failures in a row a port's queue is given up: its
// descriptor reports an error for ever (the interface of a TAP is gone). The
// control side hears of it from netlink. An endpoint's sockets have no interface.
const maxFailures = 64

// workerStats are written by the worker and read by anybody.
type workerStats struct {
	batches, frames, wakeups atomic.Uint64
	idle                     atomic.Int64 // nanoseconds without work, spinning or blocked
	spun                     atomic.Int64 // nanoseconds of those spent spinning
	waiting                  atomic.Int64 // since when it blocks, on the switch's clock in nanoseconds; 0: it does not
	free                     atomic.Int64 // buffers

	sizes       [BatchBuckets]atomic.Uint64
	residence   [ResidenceBuckets]atomic.Uint64
	residedTime atomic.Int64 // nanoseconds
}

// resided notes how long a batch was in the switch, in nanoseconds.
func (s *workerStats) resided(took int64) {
	s.residence[min(bits.Len64(uint64(max(took-1, 0))/1000), ResidenceBuckets-1)].Add(1)
	s.residedTime.Add(took)
}

// mailbox brings calls from the control side to the worker's thread, between two
// batches.
type mailbox struct {
	mu    sync.Mutex
	calls []func(*worker)
	ended bool // the worker has; nobody answers
	wake  int  // eventfd
}

// wakeSlot is the mailbox's eventfd in worker.slots.
const wakeSlot = 0

func newWorker(sw *Switch, id int) (*worker, error) {
	w := &worker{id: id, sw: sw, finished: make([]frame.Out, 0, frame.MaxBatch)}
	var err error
	if w.pool, err = frame.NewPool(frame.MaxBatch + sw.options.Buffers); err != nil {
		return nil, err
	}
	w.buffers = w.pool.Size()
	if err := sw.addRecorders(w); err != nil {
		w.pool.Close()
		return nil, err
	}
	if sw.options.Hear != nil {
		w.hearing = newHearing()
	}
	w.batch = frame.NewBatch(w.pool)
	w.stats.free.Store(int64(w.pool.Free()))
	if w.epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		w.pool.Close()
		return nil, fmt.Errorf("create epoll instance: %w", err)
	}
	if w.mailbox.wake, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		unix.Close(w.epfd)
		w.pool.Close()
		return nil, fmt.Errorf("create eventfd: %w", err)
	}
	w.slots = append(w.slots, slot{fd: w.mailbox.wake})
	w.watch(wakeSlot, unix.EPOLLIN)
	return w, nil
}

// call runs f on the worker's thread, and returns when it has run. The worker
// has then let go of every snapshot that was not the newest when call began. Of a
// worker that has ended f is not run.
func (w *worker) call(f func(*worker)) {
	done := make(chan struct{})
	w.mailbox.mu.Lock()
	if w.mailbox.ended {
		w.mailbox.mu.Unlock()
		return
	}
	w.mailbox.calls = append(w.mailbox.calls, func(w *worker) {
		f(w)
		close(done)
	})
	one := [8]byte{0: 1}
	for {
		// The counter of an eventfd is never full here: EAGAIN cannot be.
		if _, err := unix.Write(w.mailbox.wake, one[:]); err != unix.EINTR {
			break
		}
	}
	w.mailbox.mu.Unlock()
	<-done
}

// run is the worker's loop. It ends when stop was called in its mailbox.
func (w *worker) run() {
	runtime.LockOSThread() // never unlocked: the thread ends with the worker
	more := false          // a queue may hold more than was read
	for w.mailbox.wake >= 0 {
		n := w.await(more)
		w.tick()
		w.turn++
		more = w.readAgain()
		mail := false
		for i := range w.events[:max(n, 0)] {
			ev := &w.events[i]
			if ev.Fd == wakeSlot {
				mail = true
				continue
			}
			// EPOLLERR alone may be an error that waits in a socket that has room.
			if ev.Events&(unix.EPOLLOUT|unix.EPOLLERR) != 0 {
				w.writable(int(ev.Fd))
			}
			if q := w.slots[ev.Fd].rx; ev.Events&^unix.EPOLLOUT != 0 && q != nil && w.read(q) {
				more = true
			}
		}
		if mail {
			w.readMail()
		}
	}
}

// writable sends what waits for slot s. One that filled its device again goes to the
// end of those that wait, so that each has its turn.
func (w *worker) writable(s int) {
	for q := w.slots[s].tx; q != nil; q = w.slots[s].tx {
		w.drain(q)
		if q.armed == s {
			w.unlink(q)
			w.link(q, s)
			return
		}
	}
}

// read reads a queue once a turn, and reports whether there may be more. An
// endpoint may have taken more out of its socket than a batch holds: it is read in
// the next turn, whether its descriptor is readable or not.
func (w *worker) read(q *rxQueue) (more bool) {
	if q.turn == w.turn {
		return false
	}
	q.turn = w.turn
	more = w.receive(q)
	if more && q.many {
		w.again = append(w.again, q)
	}
	return more
}

// readAgain reads the endpoints' queues that had more in the turn before.
func (w *worker) readAgain() (more bool) {
	n := len(w.again)
	for i := range n {
		more = w.read(w.again[i]) || more
	}
	w.again = w.again[:copy(w.again, w.again[n:])]
	return more
}

// tick takes the time, once a turn.
func (w *worker) tick() {
	now := time.Now()
	w.nano = int64(now.Sub(w.sw.start))
	w.now = w.sw.seconds(now)
	w.stats.free.Store(int64(w.pool.Free()))
}

// receive reads one batch from a queue and carries it through. It reports
// whether the queue may hold more.
func (w *worker) receive(q *rxQueue) (more bool) {
	var from int64
	if w.measure <= 0 {
		from = w.sw.nanotime()
	}
	n, errno := q.from.Recv(q.index, w.batch, frame.MaxBatch)
	w.snap = w.sw.snap.Load()
	if errno != 0 && errno != unix.EAGAIN && errno != unix.EINTR {
		w.receiveFailed(q, n, errno)
	}
	if n == 0 {
		return false
	}
	q.failures = 0
	if !q.many {
		for _, f := range w.batch.Frames[:n] {
			f.Port = q.port
		}
	}
	w.carry(n)
	w.measure--
	if from != 0 {
		w.stats.resided(w.sw.nanotime() - from)
		// One in ResidenceSample, without the rhythm of queues that take turns.
		w.measure = int(w.random.Uint64() % (2*ResidenceSample - 1))
	}
	w.stats.sizes[bits.Len(uint(n-1))].Add(1)
	w.stats.batches.Add(1)
	w.stats.frames.Add(uint64(n))
	return n == frame.MaxBatch
}

// carry takes the first n frames of the batch through the switch, each from the port
// that it names, and sends what comes out.
func (w *worker) carry(n int) {
	var in *portView
	var frames, bytes uint64 // by in, not yet counted
	for _, f := range w.batch.Frames[:n] {
		if int(f.Port) >= len(w.snap.ports) || w.snap.ports[f.Port] == nil {
			continue // an endpoint that breaks its contract must not bring us down
		}
		if p := w.snap.ports[f.Port]; p != in {
			if frames > 0 {
				in.counters[w.id].received(frames, bytes)
			}
			in, frames, bytes = p, 0, 0
		}
		frames++
		bytes += uint64(f.WireLen())
		if live := w.snap.live; live != nil && live.wants(w, in, f) {
			w.traceLive(live, in, f)
			continue
		}
		w.accept(in, f)
	}
	w.flushAll()
	if frames > 0 {
		in.counters[w.id].received(frames, bytes)
	}
	w.batch.Renew()
}

// accept judges whether a frame is one, and forwards it.
func (w *worker) accept(in *portView, f *frame.Frame) {
	if f.Fault != frame.FaultNone {
		w.dropIn(in, f, f.Tag, faultReason(f.Fault))
		return
	}
	switch f.Check() {
	case nil:
		w.crossings = 0
		f.Tunnelled = f.Super() && f.Encapsulated()
		if f.NeedsCRC32c() {
			// SCTP: an interface would be told to write an Internet checksum.
			_ = f.FinishChecksum() // of a frame that Check found well
		}
		w.forward(in, f, f.Tag, 0)
	case frame.ErrShort:
		w.dropIn(in, f, f.Tag, DropShort)
	case frame.ErrLong:
		w.dropIn(in, f, f.Tag, DropLong)
	default:
		w.dropIn(in, f, f.Tag, DropMalformed)
	}
}

// receiveFailed takes note of an error that Recv met after n frames.
func (w *worker) receiveFailed(q *rxQueue, n int, errno unix.Errno) {
	if errno == unix.EINVAL && !q.many {
		w.snap.ports[q.port].counters[w.id].dropped(DropUnreadable, 1, w.now)
		return
	}
	if n > 0 || errno == unix.ENETDOWN {
		return // the interface went down; it may come back under the same socket
	}
	if q.failures++; q.failures == maxFailures && !q.many {
		w.unwatchQueue(q)
	}
}

// readMail runs the calls that the control side left.
func (w *worker) readMail() {
	var counter [8]byte
	unix.Read(w.mailbox.wake, counter[:])
	w.mailbox.mu.Lock()
	calls := w.mailbox.calls
	w.mailbox.calls = nil
	w.mailbox.mu.Unlock()
	for _, call := range calls {
		w.snap = w.sw.snap.Load()
		call(w)
	}
}

// addQueue begins to read a queue. It runs in the worker's mailbox.
func (w *worker) addQueue(q *rxQueue) error {
	s := w.slotFor(q.from.FD(q.index))
	if err := w.watch(s, w.slots[s].events|unix.EPOLLIN); err != nil {
		return err
	}
	w.slots[s].rx = q
	return nil
}

// removeQueue ends it. It runs in the worker's mailbox.
func (w *worker) removeQueue(q *rxQueue) {
	w.unwatchQueue(q)
	w.again = slices.DeleteFunc(w.again, func(a *rxQueue) bool { return a == q })
}

func (w *worker) unwatchQueue(q *rxQueue) {
	for i := range w.slots {
		if s := &w.slots[i]; s.rx == q {
			s.rx = nil
			w.watch(i, s.events&^unix.EPOLLIN)
		}
	}
}

// arm asks to be told when a queue can send again: when the descriptor that its
// device names is writable. Many tunnel ports wait for the same one.
func (w *worker) arm(q *txQueue) error {
	s := w.slotFor(q.port.device.SendFD(w.id))
	if q.armed == s {
		return nil
	}
	w.disarm(q)
	if err := w.watch(s, w.slots[s].events|unix.EPOLLOUT); err != nil {
		return err
	}
	w.link(q, s)
	return nil
}

// link puts q at the end of those that wait for slot s.
func (w *worker) link(q *txQueue, s int) {
	q.armed = s
	if last := w.slots[s].txLast; last != nil {
		last.next = q
	} else {
		w.slots[s].tx = q
	}
	w.slots[s].txLast = q
}

// unlink takes q off those that wait.
func (w *worker) unlink(q *txQueue) {
	s := &w.slots[q.armed]
	var before *txQueue
	for at := s.tx; at != q; at = at.next {
		before = at
	}
	if before != nil {
		before.next = q.next
	} else {
		s.tx = q.next
	}
	if s.txLast == q {
		s.txLast = before
	}
	q.armed, q.next = 0, nil
}

// disarm ends that.
func (w *worker) disarm(q *txQueue) {
	if q.armed == 0 {
		return
	}
	s := q.armed
	w.unlink(q)
	if w.slots[s].tx == nil {
		w.watch(s, w.slots[s].events&^unix.EPOLLOUT)
	}
}

// slotFor returns the slot of descriptor fd, a new one if it has none.
func (w *worker) slotFor(fd int) int {
	free := 0
	for i := 1; i < len(w.slots); i++ {
		switch w.slots[i].fd {
		case fd:
			return i
		case -1:
			free = i
		}
	}
	if free == 0 {
		w.slots = append(w.slots, slot{})
		free = len(w.slots) - 1
	}
	w.slots[free] = slot{fd: fd}
	return free
}

// watch makes events what epoll waits for at slot i's descriptor; with none the
// slot is free again.
func (w *worker) watch(i int, events uint32) error {
	s := &w.slots[i]
	op := unix.EPOLL_CTL_MOD
	switch {
	case events == 0 && s.events == 0:
		op = 0
	case events == 0:
		op = unix.EPOLL_CTL_DEL
	case s.events == 0:
		op = unix.EPOLL_CTL_ADD
	}
	if op != 0 {
		if err := unix.EpollCtl(w.epfd, op, s.fd, &unix.EpollEvent{Events: events, Fd: int32(i)}); err != nil && events != 0 {
			if s.events == 0 {
				*s = slot{fd: -1}
			}
			return err
		}
	}
	s.events = events
	if events == 0 {
		s.fd = -1
	}
	return nil
}

// stop ends the worker's loop; it runs in the worker's mailbox.
func (w *worker) stop() {
	w.mailbox.mu.Lock()
	w.mailbox.ended = true
	late := w.mailbox.calls
	unix.Close(w.mailbox.wake)
	w.mailbox.wake = -1
	w.mailbox.mu.Unlock()
	for _, call := range late {
		call(w)
	}
	unix.Close(w.epfd)
	w.pool.Close()
}
