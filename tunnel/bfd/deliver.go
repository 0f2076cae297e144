package bfd

import (
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// How a session calls out: always without its lock, and by one goroutine at a time
// for Send and one for Notify. Who comes second leaves its work to the first.

// maxNotes bounds what waits for a slow Notify.
const maxNotes = 16

// transmit sends what is due. The packet is made last, of what is true then.
func (s *Session) transmit() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sending {
		return
	}
	s.sending = true
	for s.due && !s.closed {
		p := s.packetLocked(s.final)
		s.due, s.final, s.owedAt = false, false, time.Time{}
		s.sendLocked(p)
		s.restLocked()
		s.armLocked()
	}
	s.sending = false
	s.idle.Broadcast()
}

// sendLocked sends a packet, with mu let go in the meantime. s.sending is true.
func (s *Session) sendLocked(p Packet) {
	s.lastTx = time.Now()
	s.txPackets++
	b := p.Append(s.buf[:0])
	s.mu.Unlock()
	defer s.mu.Lock()
	s.send(b)
}

// noteLocked puts what is true now in the queue for Notify.
func (s *Session) noteLocked() {
	if s.notify == nil {
		return
	}
	if len(s.notes) == maxNotes {
		s.notes = s.notes[:maxNotes-1]
	}
	s.notes = append(s.notes, s.statusLocked())
}

// announce tells Notify what is in the queue.
func (s *Session) announce() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.notifying {
		return
	}
	s.notifying = true
	for len(s.notes) > 0 && !s.closed {
		n := s.notes[0]
		s.notes = append(s.notes[:0], s.notes[1:]...)
		s.mu.Unlock()
		s.notify(n)
		s.mu.Lock()
	}
	s.notifying = false
	s.idle.Broadcast()
}

// Close ends the session: it waits for a Send or Notify that is running, and tells
// the other end once that the session was turned off. When it has returned neither
// is called again. So it must not be called by Send or Notify, nor with a lock that
// they take. Closing again waits for the first Close and does nothing.
func (s *Session) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		for !s.done {
			s.idle.Wait()
		}
		return
	}
	s.closed = true
	s.timer.Stop() // a tick that has begun finds closed, and does nothing
	s.notes = nil
	for s.sending || s.notifying {
		s.idle.Wait()
	}
	if s.state == Up {
		s.flaps++
	}
	now := time.Now()
	s.state, s.diag, s.since = AdminDown, DiagAdminDown, now
	s.negotiateLocked(now)
	s.sendLocked(s.packetLocked(false))
	s.done = true
	s.idle.Broadcast()
}

var (
	discrBase  = rand.Uint32()
	discrCount atomic.Uint32
)

// newDiscriminator returns a number that no other session of this process has, that
// is not 0, and that an outsider cannot tell (RFC 5880 section 6.8.1). The mixing is
// one to one, so it keeps different numbers different.
func newDiscriminator() uint32 {
	for {
		d := discrBase + discrCount.Add(1)
		d ^= d >> 16
		d *= 0x85ebca6b // odd: multiplication by it can be undone
		d ^= d >> 13
		d *= 0xc2b2ae35
		d ^= d >> 16
		if d != 0 {
			return d
		}
	}
}
