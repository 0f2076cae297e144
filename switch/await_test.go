package vswitch

import (
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSpinsOnlyAfterBriefWaits: a worker whose last wait was long blocks at once;
// one whose last wait was brief looks first, and finds what comes without a wake-up.
func TestSpinsOnlyAfterBriefWaits(t *testing.T) {
	sw := &Switch{start: time.Now(), options: Options{Buffers: 64, BusyPoll: time.Minute}}
	w, err := newWorker(sw, 0) // without its thread: driven by hand
	if err != nil {
		t.Fatal(err)
	}
	defer w.stop()
	fd := w.mailbox.wake
	ring := func() { unix.Write(fd, []byte{0: 1, 7: 0}) }
	quiet := func() { unix.Read(w.mailbox.wake, make([]byte, 8)) }
	wakeups := func() uint64 { return w.stats.wakeups.Load() }

	// The first wait blocks: nothing is known of the one before.
	time.AfterFunc(10*time.Millisecond, ring)
	if n := w.await(false); n != 1 || wakeups() != 1 || w.stats.spun.Load() != 0 {
		t.Fatalf("first wait: %d events, %d wakeups, spun %d ns; want 1, 1, 0", n, wakeups(), w.stats.spun.Load())
	}
	// It was brief by --busy-poll: the next one spins until something comes.
	quiet()
	time.AfterFunc(10*time.Millisecond, ring)
	if n := w.await(false); n != 1 || wakeups() != 1 {
		t.Fatalf("after a brief wait: %d events, %d wakeups; want 1 without another wakeup", n, wakeups())
	}
	spun, idle := w.stats.spun.Load(), w.stats.idle.Load()
	if spun < int64(5*time.Millisecond) || idle < spun {
		t.Errorf("spun %d ns of %d idle; want some 10 ms, and all of it idle", spun, idle)
	}
	// Spinning ends at its limit, in a block; and since that was no brief wait the
	// one after blocks at once.
	sw.options.BusyPoll = time.Millisecond
	for want := uint64(2); want <= 3; want++ {
		quiet()
		before := w.stats.spun.Load()
		time.AfterFunc(20*time.Millisecond, ring)
		if n := w.await(false); n != 1 || wakeups() != want {
			t.Fatalf("long wait: %d events, %d wakeups; want 1, %d", n, wakeups(), want)
		}
		if spins := w.stats.spun.Load() > before; spins != (want == 2) {
			t.Errorf("wakeup %d: spun is %t", want, spins)
		}
	}
	// One whose CPU another had for longer than it would have spun does not spin
	// again for a while: here whatever a look takes is longer.
	sw.options.BusyPoll, w.crowded, w.pause = 1, 0, 0
	for _, spins := range []bool{true, false} {
		w.brief = true
		before := w.stats.spun.Load()
		if n := w.await(false); n != 1 || w.stats.spun.Load() > before != spins {
			t.Errorf("on a crowded CPU: %d events, spun is %t, want %t", n, !spins, spins)
		}
	}
	if w.pause != crowdedLeast {
		t.Errorf("the first pause is %d ns, want %d", w.pause, crowdedLeast)
	}
	for range 20 {
		w.brief, w.crowded = true, 0
		w.await(false)
	}
	if left := w.crowded - sw.nanotime(); w.pause != crowdedMost || left <= 0 || left > crowdedMost {
		t.Errorf("after many the pause is %d ns, and %d of it are left; want %d", w.pause, left, crowdedMost)
	}
	sw.options.BusyPoll, w.crowded = time.Minute, 0
	for range 400 {
		w.brief = true
		w.await(false)
	}
	if w.pause > crowdedLeast {
		t.Errorf("after 400 good spins the next pause doubles %d ns", w.pause)
	}
	// Without --busy-poll nothing spins, ever.
	sw.options.BusyPoll, w.brief, w.crowded = 0, true, 0
	before := w.stats.spun.Load()
	if n := w.await(false); n != 1 || w.stats.spun.Load() != before {
		t.Errorf("without busy-poll: %d events, spun %d ns", n, w.stats.spun.Load()-before)
	}
}
