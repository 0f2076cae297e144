package loadgen

import (
	"context"
	"testing"

	"vswitch/internal/lab"
)

// A wire whose far end nobody reads, or only the test does:
//
//	Sender ── veth (host) ═══ eth0 (container) ── Receiver, its reader not started
func unreadWire(t *testing.T) (*Sender, *Receiver) {
	t.Helper()
	h := lab.New(t).Host("a")
	c := h.Container("c1")
	var s *Sender
	var r *Receiver
	err := h.Do(func() (err error) {
		s, err = OpenSender(c.Veth)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	err = c.Do(func() (err error) {
		r, err = OpenReceiver("eth0", 1)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	r.session.reset(Now())
	if err := r.filter(snapLen); err != nil {
		t.Fatal(err)
	}
	return s, r
}

// What finds no room in the ring is not lost by the switch: read and unread frames
// are all that were sent.
func TestFramesWithoutRoomAreUnread(t *testing.T) {
	s, r := unreadWire(t)
	sent, err := s.Send(context.Background(), Stream{Sizes: []int{60}, Flows: 1, Count: 150_000})
	if err != nil {
		t.Fatal(err)
	}
	if err := r.filter(0); err != nil {
		t.Fatal(err)
	}
	r.drain() // the ring is full: no block is the kernel's still
	unread, err := r.unread()
	if err != nil {
		t.Fatal(err)
	}
	c := r.session.result(unread, []Sent{sent})
	if c.Unread == 0 || c.Arrived+c.Unread != sent.Frames || c.Missing != c.Unread || c.Lost != 0 {
		t.Errorf("sent %+v, counted %+v", sent, c)
	}
	t.Logf("a ring holds %d frames", c.Arrived)
}

// The whole way, system calls included, allocates nothing.
func TestWireDoesNotAllocate(t *testing.T) {
	s, r := unreadWire(t)
	s.train.stream(&Stream{Sizes: IMIX(), Flows: 1})
	var sent Sent
	if n := testing.AllocsPerRun(100, func() {
		if err := s.burst(&sent, 10*burst); err != nil {
			t.Fatal(err)
		}
		r.drain()
	}); n != 0 {
		t.Errorf("%v allocations for %d frames", n, 10*burst)
	}
	if r.Arrived() == 0 {
		t.Error("nothing arrived")
	}
}
