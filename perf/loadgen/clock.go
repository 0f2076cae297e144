package loadgen

import (
	"time"

	"golang.org/x/sys/unix"
)

// anchor ties CLOCK_MONOTONIC to the Go runtime's clock, which is the same one
// counted from another moment, and needs no system call to read.
var anchor = func() (a struct {
	mono int64
	at   time.Time
}) {
	// The closest of a few: a preempted read would be off for good.
	for closest, try := int64(1<<62), 0; try < 8; try++ {
		var ts unix.Timespec
		before := time.Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			panic("loadgen: read CLOCK_MONOTONIC: " + err.Error()) // Linux has it
		}
		took := int64(time.Since(before))
		if took < closest {
			closest = took
			a.mono, a.at = ts.Nano()-took/2, before
		}
	}
	return a
}()

// Now reads CLOCK_MONOTONIC in nanoseconds: what frames are stamped with, and
// what the times in Counts are of.
func Now() int64 { return anchor.mono + int64(time.Since(anchor.at)) }

// wallAhead is CLOCK_REALTIME less CLOCK_MONOTONIC, in nanoseconds. The kernel
// tells times of arrival by the former, which may step.
func wallAhead() int64 {
	now := time.Now() // reads both
	return now.UnixNano() - (anchor.mono + int64(now.Sub(anchor.at)))
}
