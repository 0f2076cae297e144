package bfd

import (
	"errors"
	"sync"
	"time"
)

const (
	defaultMinRx      = time.Second // Open vSwitch's bfd:min_rx, bfd:min_tx
	defaultMinTx      = 100 * time.Millisecond
	defaultMultiplier = 3

	// minInterval is the least MinRx and MinTx: below it a busy host's scheduler
	// would be measured, not the path.
	minInterval = 10 * time.Millisecond
	// maxInterval is what the packet's fields can hold.
	maxInterval = (1<<32 - 1) * time.Microsecond
	// slowInterval is the least interval of a session that is not up (RFC 5880
	// section 6.8.3).
	slowInterval = time.Second

	// Packets that are sent besides the periodic ones, because something changed
	// or the other end polled: answerBurst at once, then one every answerInterval,
	// or every MinTx if that is less, so that the limit never is below the rate
	// that the session may send at anyway (section 6.8.7 asks for that).
	answerBurst    = 10
	answerInterval = 100 * time.Millisecond
)

// Errors of Receive, besides those of Parse. They are made once, as those are.
var (
	ErrLooped       = errors.New("bfd packet: sent by this session and looped back")
	ErrWrongSession = errors.New("bfd packet: your discriminator is of another session")
	ErrNoYourDiscr  = errors.New("bfd packet: your discriminator is 0 in a session that is not down")
	ErrClosed       = errors.New("bfd session: closed")
)

// Config is what New is given.
type Config struct {
	// MinRx is the least interval at which packets shall come in, MinTx at which
	// they shall go out: 10 ms to 71 minutes, whole microseconds; what lies outside
	// is brought inside. Zero: 1 s and 100 ms, as Open vSwitch has it.
	MinRx, MinTx time.Duration
	// Multiplier is how many of our packets the other end may miss in a row, and
	// one more, until it takes us for gone. Zero: 3.
	Multiplier uint8

	// Send sends a control packet, which is valid during the call. It is not called
	// concurrently with itself. While it blocks nothing is sent, but the session
	// goes on receiving and keeping time.
	Send func(packet []byte)
	// Notify is told of each change of State, and of Forwarding; nil: nobody is. It
	// is called in the order of changes and not concurrently with itself. If it is
	// slow and changes pile up, the oldest and the last ones are told of, and
	// Flaps tells of those between.
	Notify func(Status)
}

// intervals are the two times that an end chooses: bfd.DesiredMinTxInterval and
// bfd.RequiredMinRxInterval.
type intervals struct{ tx, rx time.Duration }

// remote is what the other end last said.
type remote struct {
	discr      uint32 // 0: not known
	state      State
	diag       Diag
	multiplier uint8
	demand     bool
	minTx      time.Duration
	minRx      time.Duration // 0: it wants no periodic packets
	heard      time.Time     // zero: never, or too long ago
	spared     bool          // the detection time was stretched since (see detectLocked)
}

// stranger is what is known of an end not heard (RFC 5880 section 6.8.1).
var stranger = remote{state: Down, minRx: time.Microsecond}

// Session is one end of a BFD session.
//
// Thread-safety: see the package's. Lock order: mu is the only lock, and nothing
// outside the package is called with it.
type Session struct {
	send   func([]byte)
	notify func(Status)
	discr  uint32

	mu     sync.Mutex
	idle   sync.Cond // of mu: sending or notifying became false, or done true
	closed bool      // Close was called
	done   bool      // Close has ended

	state  State
	diag   Diag
	since  time.Time // of state
	remote remote

	multiplier uint8
	want       intervals // as configured
	told       intervals // what our packets say
	used       intervals // what is in force; differs from told while polling
	polling    bool      // told is not confirmed: our packets carry Poll
	settling   bool      // it was, but no packet without Final has come since

	interval time.Duration // of our periodic packets; 0: none are sent
	lastTx   time.Time
	nextTx   time.Time // zero: none, or due
	owedAt   time.Time // when an answer over the limit may go out; zero: none owed
	budget   time.Time // when the limit's bucket is full again
	due      bool      // a packet is to be sent now
	final    bool      // the next packet answers a poll

	timer *time.Timer
	armed time.Time // when it fires; zero: it has

	sending   bool     // somebody is in transmit
	notifying bool     // somebody is in announce
	notes     []Status // not yet told to notify
	buf       [PacketLen]byte

	flaps                                  uint64
	rxPackets, rxErrors, looped, txPackets uint64
	lastRx                                 time.Time
}

// New starts a session: its first packet is sent at once. Send and Notify may be
// called before New returns. The session lives until Close.
func New(c Config) *Session {
	now := time.Now()
	s := &Session{
		send:   c.Send,
		notify: c.Notify,
		discr:  newDiscriminator(),
		state:  Down,
		since:  now,
		remote: stranger,
	}
	s.idle.L = &s.mu
	s.mu.Lock()
	defer s.mu.Unlock()
	s.configureLocked(c)
	s.negotiateLocked(now)
	s.lastTx = now
	s.scheduleLocked()
	s.timer = time.AfterFunc(slowInterval, s.tick)
	s.armed = now.Add(slowInterval)
	s.answerLocked(now)
	s.settleLocked()
	return s
}

// SetConfig changes MinRx, MinTx and Multiplier of a session that goes on; Send
// and Notify stay. A session that is up tells the other end by a poll sequence, and
// what would make either end wrong about the other holds only when the other end
// has confirmed it (RFC 5880 section 6.8.3).
func (s *Session) SetConfig(c Config) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	now := time.Now()
	want, multiplier := s.want, s.multiplier
	s.configureLocked(c)
	if s.want == want && s.multiplier == multiplier {
		return
	}
	s.negotiateLocked(now)
	if s.state != Up {
		s.answerLocked(now) // periodic packets are slow
	}
	s.scheduleLocked()
	s.settleLocked()
}

func (s *Session) configureLocked(c Config) {
	s.want = intervals{tx: clamp(c.MinTx, defaultMinTx), rx: clamp(c.MinRx, defaultMinRx)}
	s.multiplier = c.Multiplier
	if s.multiplier == 0 {
		s.multiplier = defaultMultiplier
	}
}

func clamp(d, zero time.Duration) time.Duration {
	if d == 0 {
		d = zero
	}
	return min(max(d.Truncate(time.Microsecond), minInterval), maxInterval)
}

// negotiateLocked brings what is told and in force towards what is wanted, as far
// as RFC 5880 section 6.8.3 lets it: of a session that is up, a longer interval of
// ours and a shorter detection time wait for the end of a poll sequence, and that
// waits until it cannot be mistaken for the one before.
func (s *Session) negotiateLocked(now time.Time) {
	if s.state != Up {
		s.told = intervals{tx: max(s.want.tx, slowInterval), rx: s.want.rx}
		s.used = s.told
		s.polling, s.settling = false, false
		return
	}
	if s.told == s.want || s.polling || s.settling {
		return
	}
	s.told = s.want
	s.used = intervals{tx: min(s.used.tx, s.want.tx), rx: max(s.used.rx, s.want.rx)}
	s.polling = true
	if s.periodicLocked() == 0 {
		s.answerLocked(now) // no periodic packet will carry it
	}
}

// nextState is the state machine of RFC 5880 section 6.8.6: the state that a
// session gets by a packet that tells the other end's.
func nextState(local, received State) State {
	switch {
	case local == AdminDown:
		return AdminDown
	case received == AdminDown:
		return Down
	case local == Down && received == Down:
		return Init
	case local == Down && received == Init:
		return Up
	case local == Init && received >= Init:
		return Up
	case local == Up && received == Down:
		return Down
	}
	return local
}

// Receive takes a control packet that came in; nil is one that Decapsulate found
// broken. An error says why the packet was ignored; it is counted. Receive does
// not call Send or Notify, and does not block.
func (s *Session) Receive(packet []byte) error {
	p, err := Parse(packet)
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if err == nil {
		err = s.checkLocked(&p)
	}
	switch err {
	case nil:
	case ErrLooped:
		s.looped++
		return err
	default:
		s.rxErrors++
		return err
	}
	s.rxPackets++
	s.lastRx = now

	forwarding := s.forwardingLocked()
	known := s.remote.discr == p.MyDiscr
	s.remote = remote{
		discr: p.MyDiscr, state: p.State, diag: p.Diag,
		multiplier: p.Multiplier, demand: p.Demand,
		minTx: p.DesiredMinTx, minRx: p.RequiredMinRx,
		heard: now,
	}
	if p.Final && s.polling {
		s.used = s.told
		s.polling, s.settling = false, true
	} else if !p.Final {
		s.settling = false
	}

	if next := nextState(s.state, p.State); next != s.state {
		diag := s.diag
		if next == Down {
			diag = DiagNeighborDown
		}
		s.changeLocked(now, next, diag)
	} else {
		s.negotiateLocked(now)
		if !known {
			s.answerLocked(now) // our packets name it now
		}
		if s.forwardingLocked() != forwarding {
			s.noteLocked()
		}
	}
	if p.Poll {
		s.final = true
		s.answerLocked(now)
	}
	s.scheduleLocked()
	s.settleLocked()
	return nil
}

// checkLocked refuses what is not for this session.
func (s *Session) checkLocked(p *Packet) error {
	switch {
	case p.MyDiscr == s.discr:
		return ErrLooped
	case p.YourDiscr == 0 && p.State > Down:
		return ErrNoYourDiscr
	case p.YourDiscr != 0 && p.YourDiscr != s.discr:
		return ErrWrongSession
	}
	return nil
}

// changeLocked goes to another state, tells the other end at once (RFC 5880
// section 6.8.7), and whoever wants to know.
func (s *Session) changeLocked(now time.Time, state State, diag Diag) {
	if s.state == Up {
		s.flaps++
	}
	s.state, s.diag, s.since = state, diag, now
	s.negotiateLocked(now)
	s.answerLocked(now)
	s.noteLocked()
}

// packetLocked is what there is to say now. final: in answer to a poll; such a
// packet must not poll as well (RFC 5880 section 6.5).
func (s *Session) packetLocked(final bool) Packet {
	return Packet{
		State: s.state, Diag: s.diag,
		Poll: s.polling && !final, Final: final,
		Multiplier: s.multiplier,
		MyDiscr:    s.discr, YourDiscr: s.remote.discr,
		DesiredMinTx: s.told.tx, RequiredMinRx: s.told.rx,
	}
}

// rxIntervalLocked is the longest interval at which the other end may send.
func (s *Session) rxIntervalLocked() time.Duration {
	return max(s.used.rx, s.remote.minTx)
}

// detectionLocked is the detection time (RFC 5880 section 6.8.4); 0 while nothing
// was heard.
func (s *Session) detectionLocked() time.Duration {
	return time.Duration(s.remote.multiplier) * s.rxIntervalLocked()
}

func (s *Session) forwardingLocked() bool {
	return forwarding(s.state, s.remote.diag)
}
