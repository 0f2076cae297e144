package ctl

import (
	"fmt"
	"sync"
	"sync/atomic"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/tunnel"
	"vswitch/tunnel/bfd"
)

// session is the BFD session of a tunnel port.
//
// Thread-safety: safe for concurrent use.
type session struct {
	input   *bfdInput
	waiting atomic.Int32                // frames of this session in input
	bfd     atomic.Pointer[bfd.Session] // nil until start
	config  bfd.Config
	address bfd.Addresses
}

// newSession makes the session of a port, which begins with start.
func (r *reconciler) newSession(p *portState) *session {
	name, bridge := p.port.Name, p.bridge
	s := &session{input: r.tunnels.bfd, config: timers(p.port)}
	s.address = bfd.NewAddresses()
	copy(s.address.SrcMAC[:], r.mac(p.port))
	var was bool // Notify is never called twice at once
	s.config.Notify = func(st bfd.Status) {
		if up := st.Forwarding(); up == was {
			return // from down to init: for a moment, or the port's reason says so at the next tick
		} else {
			was = up
		}
		if !was {
			// At once, whoever holds the reconciler: what was learned behind a host that
			// is gone is a black hole.
			r.sw.SetLink(name, false, 0)
		}
		r.markTunnel(name)
		kind, msg := "bfd-down", fmt.Sprintf("BFD of port %s of %s is %v: %v", name, bridge, st.State, st.Diag)
		if was {
			kind, msg = "bfd-up", fmt.Sprintf("BFD of port %s of %s is up", name, bridge)
		}
		r.tell(api.Event{Kind: kind, Bridge: bridge, Port: name, Message: msg,
			Detail: map[string]any{"state": st.State.String(), "diag": st.Diag.String(), "remote_state": st.RemoteState.String()}})
	}
	return s
}

// timers are a port's BFD timers.
func timers(p config.Port) bfd.Config {
	o, _ := p.Tunnel()
	return bfd.Config{MinRx: o.BFDMinRx, MinTx: o.BFDMinTx}
}

// retime changes the session's timers, which ends nothing. It may be called for no
// session.
func (s *session) retime(p config.Port) {
	if s == nil {
		return
	}
	if b := s.bfd.Load(); b != nil {
		b.SetConfig(timers(p))
	}
}

// start begins to speak to the other end.
func (s *session) start(port *tunnel.Port) {
	c := s.config
	c.Send = func(packet []byte) {
		// One that cannot be sent is one that is lost: the other end will notice.
		_ = port.WriteControl(bfd.Encapsulate(nil, s.address, packet))
	}
	s.bfd.Store(bfd.New(c))
}

// close says goodbye to the other end. It may be called for no session.
func (s *session) close() {
	if s == nil {
		return
	}
	if b := s.bfd.Load(); b != nil {
		b.Close()
	}
}

// down says why the session is not up, or nothing. No session is never down.
func (s *session) down() string {
	if s == nil {
		return ""
	}
	b := s.bfd.Load()
	if b == nil {
		return "BFD has not begun"
	}
	st := b.Status()
	switch {
	case st.Forwarding():
		return ""
	case st.RemoteState == bfd.AdminDown:
		return "BFD: the other end has taken the tunnel down"
	case st.State == bfd.Init:
		return "BFD is init: the other end is heard, and does not hear this one"
	case st.Diag == bfd.DiagNone:
		return fmt.Sprintf("BFD is %v: the other end was not heard yet", st.State)
	}
	return fmt.Sprintf("BFD is %v: %v", st.State, st.Diag)
}

// status returns what the API tells of the session, or nil.
func (s *session) status() *api.BFDStatus {
	if s == nil {
		return nil
	}
	b := s.bfd.Load()
	if b == nil {
		return nil
	}
	return bfdStatus(b.Status())
}

// hear takes a control frame from a worker, which must not wait: the frame is
// handed over, or lost when too many wait.
func (s *session) hear(frame []byte) { s.input.put(s, frame) }

// Bounds of control frames between workers and sessions.
const (
	bfdQueue    = 1024 // frames that wait
	bfdEach     = 8    // of them for one session: who floods his own cannot hurt others
	bfdFrameLen = 128  // bytes; one without authentication has 66
)

// bfdInput carries control frames from workers to their sessions.
//
// Thread-safety: safe for concurrent use.
type bfdInput struct {
	frames chan bfdFrame
	done   sync.WaitGroup
}

type bfdFrame struct {
	to *session
	n  int
	b  [bfdFrameLen]byte
}

func newBFDInput() *bfdInput {
	in := &bfdInput{frames: make(chan bfdFrame, bfdQueue)}
	in.done.Go(in.run) // ended by close
	return in
}

func (in *bfdInput) put(s *session, frame []byte) {
	if s.waiting.Add(1) > bfdEach {
		s.waiting.Add(-1)
		return
	}
	f := bfdFrame{to: s}
	f.n = copy(f.b[:], frame)
	select {
	case in.frames <- f:
	default:
		s.waiting.Add(-1)
	}
}

// run hands frames to their sessions. What is no BFD packet they count.
func (in *bfdInput) run() {
	for f := range in.frames {
		f.to.waiting.Add(-1)
		b := f.to.bfd.Load()
		if packet, ok := bfd.Decapsulate(f.b[:f.n]); ok && b != nil {
			_ = b.Receive(packet)
		}
	}
}

// close ends it; no worker has a port with a session any more.
func (in *bfdInput) close() {
	close(in.frames)
	in.done.Wait()
}
