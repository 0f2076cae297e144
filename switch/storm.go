package vswitch

import (
	"sync/atomic"
	"time"
)

// StormLimits bound what a port may have flooded, in frames a second; 0 is no
// limit. A super-frame is one frame.
type StormLimits struct {
	Broadcast int // to ff:ff:ff:ff:ff:ff
	Unknown   int // unicast to a MAC that is not in the table
	Multicast int
}

// storm is a port's storm control.
//
// Thread-safety: workers share it; each limit is one atomic word.
type storm struct {
	broadcast, unknown, multicast rate
}

func newStorm(l StormLimits) *storm {
	if l == (StormLimits{}) {
		return nil
	}
	s := &storm{}
	s.broadcast.set(l.Broadcast)
	s.unknown.set(l.Unknown)
	s.multicast.set(l.Multicast)
	return s
}

// copyFrom makes s what o is at the moment.
func (s *storm) copyFrom(o *storm) {
	for _, r := range [][2]*rate{{&s.broadcast, &o.broadcast}, {&s.unknown, &o.unknown}, {&s.multicast, &o.multicast}} {
		r[0].each, r[0].depth = r[1].each, r[1].depth
		r[0].full.Store(r[1].full.Load())
	}
}

// admit tells whether a frame to dst, which would be flooded, may be at the time
// now, in nanoseconds on the switch's clock.
func (s *storm) admit(dst *[6]byte, now int64) Reason {
	switch {
	case *dst == [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}:
		if !s.broadcast.take(now) {
			return DropStormBroadcast
		}
	case dst[0]&1 != 0:
		if !s.multicast.take(now) {
			return DropStormMulticast
		}
	case !s.unknown.take(now):
		return DropStormUnknown
	}
	return DropNone
}

// burst is how much of a second's frames may come at once: a tenth, and at least
// minBurst, so that a host that starts many containers is not taken for a storm.
const (
	burst    = 10
	minBurst = 64
)

// rate is a token bucket, kept as the time at which it would be full again (the
// generic cell rate algorithm, ITU-T I.371).
type rate struct {
	each  int64 // nanoseconds a frame; 0: no limit
	depth int64 // nanoseconds that a full bucket is worth
	full  atomic.Int64
}

func (r *rate) set(perSecond int) {
	if perSecond <= 0 {
		return
	}
	r.each = max(int64(time.Second)/int64(perSecond), 1)
	r.depth = r.each * int64(max(perSecond/burst, minBurst))
}

// take takes a frame's token at the time now, if there is one.
func (r *rate) take(now int64) bool {
	if r.each == 0 {
		return true
	}
	for {
		full := r.full.Load()
		next := max(full, now) + r.each
		if next > now+r.depth {
			return false
		}
		if r.full.CompareAndSwap(full, next) {
			return true
		}
	}
}
