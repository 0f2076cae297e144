package bfd

import (
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The tests run in testing/synctest's bubbles: time stands still while anything
// runs, and leaps to the next timer when all sleep.

// far is the other end of a session, played by a test.
type far struct {
	t *testing.T
	s *Session

	mu    sync.Mutex
	sent  []sent // what the session sent
	notes []Status
}

type sent struct {
	Packet
	at time.Time
}

const farDiscr = 0xfeed

// newFar starts a session with a played other end. It waits for the first packet.
func newFar(t *testing.T, c Config) *far {
	t.Helper()
	f := &far{t: t}
	c.Send = func(b []byte) {
		p, err := Parse(b)
		if err != nil || len(b) != PacketLen {
			t.Errorf("sent %x: %v", b, err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		f.sent = append(f.sent, sent{p, time.Now()})
	}
	c.Notify = func(n Status) {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.notes = append(f.notes, n)
	}
	f.s = New(c)
	synctest.Wait()
	return f
}

// says is a packet of the other end, with intervals of 100 ms.
func (f *far) says(state State) Packet {
	p := Packet{
		State: state, Multiplier: 3, MyDiscr: farDiscr, YourDiscr: f.s.discr,
		DesiredMinTx: 100 * time.Millisecond, RequiredMinRx: 100 * time.Millisecond,
	}
	if state <= Down {
		p.YourDiscr = 0
	}
	return p
}

// hears gives the session a packet, and returns what it sent at once.
func (f *far) hears(p Packet) []sent {
	f.t.Helper()
	f.take()
	if err := f.s.Receive(p.Append(nil)); err != nil {
		f.t.Fatalf("receive %+v: %v", p, err)
	}
	synctest.Wait()
	return f.take()
}

// up brings the session up.
func (f *far) up() {
	f.t.Helper()
	f.hears(f.says(Down))
	f.hears(f.says(Up))
	if got := f.s.Status().State; got != Up {
		f.t.Fatalf("the session is %v, want up", got)
	}
}

// lives keeps the session fed with p for d, and returns what it sent.
func (f *far) lives(p Packet, d time.Duration) (all []sent) {
	f.t.Helper()
	for end := time.Now().Add(d); time.Now().Before(end); {
		all = append(all, f.hears(p)...)
		time.Sleep(min(p.DesiredMinTx, time.Until(end)))
		synctest.Wait()
		all = append(all, f.take()...)
	}
	return all
}

func (f *far) take() []sent {
	f.mu.Lock()
	defer f.mu.Unlock()
	s := f.sent
	f.sent = nil
	return s
}

func (f *far) states() (states []State) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, n := range f.notes {
		states = append(states, n.State)
	}
	return states
}
