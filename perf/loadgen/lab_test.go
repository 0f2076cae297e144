package loadgen_test

import (
	"context"
	"testing"
	"time"

	"vswitch/internal/lab"
	"vswitch/perf/loadgen"
)

// wire is a plain veth pair, the generator on both ends and no switch between:
//
//	Sender ── veth (host) ═══ eth0 (container) ── Receiver
type wire struct {
	host *lab.Host
	far  *lab.Container
}

func newWire(t testing.TB) wire {
	t.Helper()
	h := lab.New(t).Host("a")
	return wire{h, h.Container("c1")}
}

func (w wire) sender(t testing.TB) (s *loadgen.Sender) {
	t.Helper()
	err := w.host.Do(func() (err error) {
		s, err = loadgen.OpenSender(w.far.Veth)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

func (w wire) receiver(t testing.TB, flows int) (r *loadgen.Receiver) {
	t.Helper()
	err := w.far.Do(func() (err error) {
		r, err = loadgen.OpenReceiver("eth0", flows)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// session sends a stream and returns what became of it.
func session(t testing.TB, s *loadgen.Sender, r *loadgen.Receiver, st loadgen.Stream) (loadgen.Sent, loadgen.Counts) {
	t.Helper()
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	sent, err := s.Send(context.Background(), st)
	if err != nil {
		t.Fatal(err)
	}
	counts, err := r.Stop(sent)
	if err != nil {
		t.Fatal(err)
	}
	return sent, counts
}

// A wire loses nothing, so every frame the sender counts the receiver counts:
// once, in order, and with all its bytes.
func TestEveryFrameIsCounted(t *testing.T) {
	w := newWire(t)
	s, r := w.sender(t), w.receiver(t, 1000)
	for name, st := range map[string]loadgen.Stream{
		"one":          {Sizes: []int{60}, Flows: 1, Count: 1},
		"small":        {Sizes: []int{60}, Flows: 1, Count: 20_011},
		"large":        {Sizes: []int{1514}, Flows: 7, Count: 20_011},
		"mix":          {Sizes: loadgen.IMIX(), Flows: 100, Count: 20_011},
		"many flows":   {Sizes: []int{60}, Flows: 1000, Count: 20_011},
		"higher flows": {Sizes: []int{60}, Flows: 900, First: 100, Count: 20_011},
		"reverse":      {Sizes: []int{60}, Flows: 3, Reverse: true, Count: 20_011},
		"unknown":      {Sizes: []int{60}, Flows: 3, To: loadgen.Unknown, Count: 20_011},
		"broadcast":    {Sizes: []int{60}, Flows: 3, To: loadgen.Broadcast, Count: 20_011},
	} {
		t.Run(name, func(t *testing.T) {
			sent, c := session(t, s, r, st)
			if sent.Frames != st.Count {
				t.Errorf("sent %d of %d", sent.Frames, st.Count)
			}
			if c.Arrived+c.Unread != sent.Frames || c.Distinct != c.Arrived || c.Missing != c.Unread {
				t.Errorf("sent %+v, counted %+v", sent, c)
			}
			if c.Unread == 0 && c.Bytes != sent.Bytes {
				t.Errorf("%d bytes of %d", c.Bytes, sent.Bytes)
			}
			if c.Reordered+c.Duplicated+c.Old+c.Lost+c.Damaged+c.Stale+c.Announced != 0 {
				t.Errorf("a wire did this: %+v", c)
			}
			if c.Latency.Count() != c.Arrived || c.Latency.Max() <= 0 || c.Latency.Max() > time.Second {
				t.Errorf("latency of %d frames, at most %v", c.Latency.Count(), c.Latency.Max())
			}
		})
	}
}
