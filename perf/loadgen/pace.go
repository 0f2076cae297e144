package loadgen

import (
	"golang.org/x/sys/unix"
)

const (
	// tick is the time between a paced sender's bursts, in nanoseconds. A sleep
	// and its wake-up cost a sender some 15 µs: at 50 µs they took 30 % of a core,
	// at 100 µs 15 %. Half a million frames a second are 50 frames a tick, which
	// the shortest of a switch's queues holds.
	tick = 100_000
	// burst is the most frames of one system call.
	burst = 64
)

// pacer says how many frames are due. Thread-safety: for one goroutine.
type pacer struct {
	rate  float64 // frames a nanosecond; 0 is without end
	start int64
	limit uint64 // frames at once
}

func newPacer(perSecond float64, start int64) pacer {
	p := pacer{rate: perSecond / 1e9, start: start, limit: burst}
	if share := 2 * p.rate * tick; share > burst {
		p.limit = uint64(share)
	}
	return p
}

// due returns how many frames to send at a time when so many have been sent.
func (p *pacer) due(now int64, sent uint64) uint64 {
	if p.rate == 0 {
		return p.limit
	}
	// A rate times a duration is meant to be whole, and may be a hair less.
	owed := uint64(float64(now-p.start)*p.rate + 1e-6)
	if owed <= sent {
		return 0
	}
	return min(owed-sent, p.limit)
}

// next returns when to send again: a tick on, or later where frames are rarer.
func (p *pacer) next(now int64, sent uint64) int64 {
	return max(now+tick, p.start+int64(float64(sent+1)/p.rate)+1)
}

// sleepUntil sleeps until a time of CLOCK_MONOTONIC, or a signal.
func sleepUntil(at int64) {
	ts := unix.NsecToTimespec(at)
	unix.ClockNanosleep(unix.CLOCK_MONOTONIC, unix.TIMER_ABSTIME, &ts, nil)
}

// sharpen asks for wake-ups on time from this thread's sleeps, and returns what
// undoes it (PR_SET_TIMERSLACK: up to 50 µs late otherwise).
func sharpen() (restore func()) {
	slack, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0)
	if err != nil || unix.Prctl(unix.PR_SET_TIMERSLACK, 1, 0, 0, 0) != nil {
		return func() {} // less even, no less right
	}
	return func() { unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0) }
}
