package ctl_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"vswitch/internal/lab"
	"vswitch/perf/loadgen"
)

// TestBusyPortGetsRing: a port that brings in many small frames gets a receive ring
// while they come, and loses, doubles and disorders none of them; a quiet one gets
// none, nor one that is busy when --rx-rings is spent, until another gave its back.
//
//	c1 ─┐
//	c2 ─┼ br0      room for one ring of 1 MiB
//	c3 ─┘
func TestBusyPortGetsRing(t *testing.T) {
	l := lab.New(t)
	h := l.Host("h")
	c1 := h.Container("c1", lab.Addr("10.0.0.1/24"))
	c2 := h.Container("c2", lab.Addr("10.0.0.2/24"))
	c3 := h.Container("c3", lab.Addr("10.0.0.3/24"))
	d := h.Daemon(lab.DaemonOptions{Args: []string{"--rx-rings", "1048576"}})
	d.Ctl("add-br", "br0")
	for _, c := range []*lab.Container{c1, c2, c3} {
		d.Ctl("add-port", "br0", c.Veth, "n_rxq_desc=auto")
	}
	rings := func(want1, want3 int) {
		t.Helper()
		for veth, want := range map[string]int{c1.Veth: want1, c2.Veth: 0, c3.Veth: want3} {
			if got := mustPort(t, d, veth).RxRing; got != want {
				t.Errorf("%s has a ring of %d slots, want %d", veth, got, want)
			}
		}
	}
	rings(0, 0)

	stream(t, c1, c2, 5_000, time.Second)
	rings(0, 0)
	rate := 40_000.0
	if raced {
		rate = 20_000
	}
	stream(t, c1, c2, rate, 2*time.Second)
	rings(4096, 0)
	if err := lab.Transfer(c1, c2, 4<<20); err != nil { // super-frames and ACKs
		t.Error(err)
	}
	if err := lab.Transfer(c2, c1, 4<<20); err != nil {
		t.Error(err)
	}
	stream(t, c3, c2, rate, time.Second)
	rings(4096, 0)
	d.Ctl("del-port", "br0", c1.Veth)
	stream(t, c3, c2, rate, time.Second)
	d.Ctl("add-port", "br0", c1.Veth)
	rings(0, 4096)
}

// stream sends numbered 60-byte frames of some flows, at rate frames a second, and
// wants each to come once and in its order.
func stream(t *testing.T, from, to *lab.Container, rate float64, for_ time.Duration) {
	t.Helper()
	var s *loadgen.Sender
	var r *loadgen.Receiver
	err := from.Do(func() (err error) { s, err = loadgen.OpenSender("eth0"); return err })
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if err := to.Do(func() (err error) { r, err = loadgen.OpenReceiver("eth0", 8); return err }); err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	sent, err := s.Send(context.Background(), loadgen.Stream{Sizes: []int{60}, Flows: 8, Rate: rate, Duration: for_})
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.Stop(sent)
	if err != nil {
		t.Fatal(err)
	}
	if c.Missing+c.Duplicated+c.Reordered+c.Old != 0 || c.Distinct != sent.Frames {
		t.Error(fmt.Sprintf("%d frames at %.0f a second: %d came, %d missing, %d doubled, %d out of order", sent.Frames, rate, c.Distinct, c.Missing, c.Duplicated, c.Reordered))
	}
}
