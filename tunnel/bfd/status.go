package bfd

import "time"

// Status is what a session knows at one moment. It is a value.
type Status struct {
	State, RemoteState State
	Diag, RemoteDiag   Diag
	Discr, RemoteDiscr uint32 // RemoteDiscr 0: the other end is not known

	// The intervals that both ends agreed on, before jitter: MinTx is that of our
	// periodic packets (0: the other end wants none), MinRx that of the other end's.
	MinTx, MinRx time.Duration
	// DetectionTime is after what silence the other end is taken for gone; 0 when
	// it is not heard now.
	DetectionTime time.Duration

	Flaps     uint64    // how often the session has left Up
	Since     time.Time // when State was reached
	LastRx    time.Time // when the last packet came that was not ignored; zero: never
	RxPackets uint64    // packets received and not ignored
	RxErrors  uint64    // packets ignored as malformed or not of this session
	Looped    uint64    // packets ignored as our own
	TxPackets uint64    // packets given to Send
}

// Forwarding tells whether the tunnel can be used, as Open vSwitch decides it: the
// session is up, and the other end does not say that the path is broken behind it
// (bfd:cpath_down).
func (s Status) Forwarding() bool { return forwarding(s.State, s.RemoteDiag) }

func forwarding(state State, remote Diag) bool {
	switch remote {
	case DiagPathDown, DiagConcatenated, DiagReverseConcatenated:
		return false
	}
	return state == Up
}

// Status returns what is true now.
func (s *Session) Status() Status {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.statusLocked()
}

func (s *Session) statusLocked() Status {
	return Status{
		State: s.state, RemoteState: s.remote.state,
		Diag: s.diag, RemoteDiag: s.remote.diag,
		Discr: s.discr, RemoteDiscr: s.remote.discr,
		MinTx: s.periodicLocked(), MinRx: s.rxIntervalLocked(), DetectionTime: s.detectionLocked(),
		Flaps: s.flaps, Since: s.since, LastRx: s.lastRx,
		RxPackets: s.rxPackets, RxErrors: s.rxErrors, Looped: s.looped, TxPackets: s.txPackets,
	}
}
