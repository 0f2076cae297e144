package bfd

import (
	"math/rand/v2"
	"time"
)

// How time drives a session. There is one timer, armed for the earliest of: the
// next periodic packet, an answer that had to wait, the end of the detection time.
// The last moves with each packet received, and the timer does not: it fires, finds
// nothing to do, and is armed anew. So a packet received costs no timer operation.

// tick is the timer's function, on a goroutine of its own that ends with it. It may
// run too early, or twice: it looks at the times.
func (s *Session) tick() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	now := time.Now()
	var late time.Duration
	if !s.armed.IsZero() {
		late = now.Sub(s.armed)
		s.armed = time.Time{}
	}
	s.detectLocked(now, late)
	if reached(s.nextTx, now) {
		// Not armed for again before transmit has sent it.
		s.nextTx = time.Time{}
		s.due = true
	}
	if reached(s.owedAt, now) {
		s.owedAt = time.Time{}
		s.answerLocked(now)
	}
	s.scheduleLocked()
	s.armLocked()
	if len(s.notes) > 0 {
		go s.announce() // ends when there is nothing more to tell
	}
	s.mu.Unlock()
	s.transmit()
}

func reached(at, now time.Time) bool { return !at.IsZero() && !now.Before(at) }

// detectLocked ends the session if the detection time is over, and forgets the
// other end (RFC 5880 section 6.8.1, bfd.RemoteDiscr).
//
// When the timer itself was late, this process did not run, and the packets that
// are missed may lie in a socket. So they are given one more interval, once.
func (s *Session) detectLocked(now time.Time, late time.Duration) {
	if !reached(s.detectAtLocked(), now) {
		return
	}
	if late > s.rxIntervalLocked()/4 && !s.remote.spared {
		s.remote.spared = true
		s.remote.heard = now.Add(s.rxIntervalLocked() - s.detectionLocked())
		return
	}
	s.remote = stranger
	if s.state != Down {
		s.changeLocked(now, Down, DiagExpired)
	}
}

// detectAtLocked is when the detection time ends; zero: never, as nothing was heard.
func (s *Session) detectAtLocked() time.Time {
	if s.remote.heard.IsZero() {
		return time.Time{}
	}
	return s.remote.heard.Add(s.detectionLocked())
}

// periodicLocked is the interval of periodic packets before jitter (RFC 5880
// section 6.8.7), 0 if none may be sent: the other end wants none, or is in demand
// mode and there is nothing to poll for.
func (s *Session) periodicLocked() time.Duration {
	switch {
	case s.remote.minRx == 0:
		return 0
	case s.remote.demand && s.state == Up && s.remote.state == Up && !s.polling:
		return 0
	}
	return max(s.used.tx, s.remote.minRx)
}

// scheduleLocked sets the time of the next periodic packet anew if the interval
// has changed. A shorter one counts from the last packet on: it may be due already.
func (s *Session) scheduleLocked() {
	interval := s.periodicLocked()
	if interval == s.interval {
		return
	}
	s.interval = interval
	s.restLocked()
}

// restLocked sets the time of the next periodic packet after the last one sent. If
// one is about to be sent, transmit does it after that.
func (s *Session) restLocked() {
	s.nextTx = time.Time{}
	if s.interval != 0 && !s.due {
		s.nextTx = s.lastTx.Add(jitter(s.interval, s.multiplier))
	}
}

// jitter shortens an interval by up to a quarter; by a tenth at least if the other
// end waits for no second packet (RFC 5880 section 6.8.7).
func jitter(d time.Duration, multiplier uint8) time.Duration {
	if multiplier == 1 {
		d -= d / 10
		return d - time.Duration(rand.Int64N(int64(d)/6+1)) // 0.9 - 0.9/6 = 0.75
	}
	return d - time.Duration(rand.Int64N(int64(d)/4+1))
}

// answerLocked has a packet sent at once, or as soon as the limit allows. Several
// answers not yet sent are one packet.
func (s *Session) answerLocked(now time.Time) {
	if s.due {
		return
	}
	every := min(answerInterval, s.want.tx)
	if s.budget.Before(now) {
		s.budget = now
	}
	if free := s.budget.Add(-(answerBurst - 1) * every); free.After(now) {
		s.owedAt = free
		return
	}
	s.budget = s.budget.Add(every)
	s.due = true
}

// armLocked sets the timer, unless it fires early enough anyway.
func (s *Session) armLocked() {
	var next time.Time
	for _, at := range [...]time.Time{s.nextTx, s.owedAt, s.detectAtLocked()} {
		if !at.IsZero() && (next.IsZero() || at.Before(next)) {
			next = at
		}
	}
	if s.closed || next.IsZero() || !s.armed.IsZero() && !next.Before(s.armed) {
		return
	}
	s.armed = next
	s.timer.Reset(time.Until(next))
}

// settleLocked ends whatever has changed the session, except a tick: it arms the
// timer, and starts what must not run on the caller's goroutine.
func (s *Session) settleLocked() {
	s.armLocked()
	if s.due && !s.sending {
		go s.transmit() // ends when nothing is due
	}
	if len(s.notes) > 0 && !s.notifying {
		go s.announce() // ends when there is nothing more to tell
	}
}
