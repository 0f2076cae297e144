package loadgen_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

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

func (w wire) sender(t testing.TB) *loadgen.Sender {
	t.Helper()
	return sender(t, w.host.Namespace, w.far.Veth)
}

func sender(t testing.TB, n *lab.Namespace, ifname string) (s *loadgen.Sender) {
	t.Helper()
	err := n.Do(func() (err error) {
		s, err = loadgen.OpenSender(ifname)
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

// A paced stream leaves at its rate, and a wire carries 100,000 a second with none
// lost, doubled or out of turn. The count is exact in every try; the rate needs a
// core at the right moments, which a busy machine may not give at the first.
func TestPacing(t *testing.T) {
	w := newWire(t)
	s, r := w.sender(t), w.receiver(t, 10)
	for _, rate := range []float64{1000, 20_000, 100_000} {
		try := func() error {
			sent, c := session(t, s, r, loadgen.Stream{Sizes: []int{60}, Flows: 10, Rate: rate, Duration: time.Second})
			t.Logf("%v/s: %.0f sent a second, %.0f arrived, latency p50 %v p99 %v", rate, sent.PerSecond(), c.PerSecond(),
				c.Latency.Quantile(0.5), c.Latency.Quantile(0.99))
			if c.Distinct != sent.Frames || c.Arrived != c.Distinct || c.Lost+c.Unread+c.Reordered+c.Duplicated != 0 {
				t.Errorf("sent %+v, counted %+v", sent, c)
			}
			if float64(sent.Frames) > rate || sent.PerSecond() > rate*1.001 {
				t.Errorf("%v a second for a second: %d frames in %v", rate, sent.Frames, sent.Elapsed)
			}
			if low, p := rate*0.97, c.PerSecond(); sent.PerSecond() < low || p < low || p > rate*1.03 {
				return fmt.Errorf("%v a second: %v sent, %v arrived", rate, sent.PerSecond(), p)
			}
			return nil
		}
		err := try()
		for more := 0; err != nil && more < 4; more++ {
			err = try()
		}
		if err != nil {
			t.Error(err)
		}
	}
}

// A receiver counts from Start to Stop, and only what was sent between.
func TestSessions(t *testing.T) {
	ctx := context.Background()
	w := newWire(t)
	s, r := w.sender(t), w.receiver(t, 5)
	st := loadgen.Stream{Sizes: []int{60}, Flows: 5, Count: 1000}
	for range 3 {
		if _, err := s.Send(ctx, st); err != nil { // nobody listens
			t.Fatal(err)
		}
		sent, c := session(t, s, r, st)
		if c.Distinct != 1000 || c.Arrived != 1000 || c.Missing != 0 || c.First < sent.Started || c.Last < c.First {
			t.Errorf("sent %+v, counted %+v", sent, c)
		}
	}

	// Two streams of one session, and one that never came.
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	if err := r.Start(); err == nil {
		t.Error("started twice")
	}
	a, err := s.Send(ctx, loadgen.Stream{Sizes: []int{60}, Flows: 2, Count: 101})
	if err != nil {
		t.Fatal(err)
	}
	b, err := s.Send(ctx, loadgen.Stream{Sizes: []int{1000}, Flows: 2, First: 2, Count: 50})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Announce(ctx, loadgen.SrcMAC, 33, 0); err != nil {
		t.Fatal(err)
	}
	c, err := r.Stop(a, b, loadgen.Sent{Frames: 7, First: 4, Flows: 1})
	if err != nil {
		t.Fatal(err)
	}
	if c.Distinct != 151 || c.Announced != 33 || c.Missing != 7 || c.Lost != 7 || c.LossyFlows != 1 || c.SilentFlows != 1 || c.Bytes != 101*60+50*1000 {
		t.Errorf("%+v", c)
	}
	if _, err := r.Stop(); err == nil {
		t.Error("stopped twice")
	}
}

// A bridge floods what goes to everyone and to addresses it has not learned, and
// sends the rest where it was announced:
//
//	c1 Sender ── br0 ──┬── c2 Receiver (and announcer)
//	 (the kernel's)    ├── c3 Receiver
//	                   └── … c9
func TestFloodAndAnnounce(t *testing.T) {
	const flows, count = 2000, 10_000
	ctx := context.Background()
	h := lab.New(t).Host("a")
	from := wire{h, h.Container("c1")}
	ports := []string{from.far.Veth}
	var ends []wire
	for _, name := range []string{"c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"} {
		w := wire{h, h.Container(name)}
		ends = append(ends, w)
		ports = append(ports, w.far.Veth)
	}
	h.KernelBridge("br0", ports...)

	s, announcer := sender(t, from.far.Namespace, "eth0"), sender(t, ends[0].far.Namespace, "eth0")
	var receivers []*loadgen.Receiver
	for _, w := range ends {
		receivers = append(receivers, w.receiver(t, flows))
	}
	flood := func(to loadgen.Destination) (loadgen.Sent, []loadgen.Counts) {
		t.Helper()
		for _, r := range receivers {
			if err := r.Start(); err != nil {
				t.Fatal(err)
			}
		}
		sent, err := s.Send(ctx, loadgen.Stream{Sizes: []int{60}, Flows: flows, To: to, Count: count, Rate: 20_000})
		if err != nil {
			t.Fatal(err)
		}
		counts, err := loadgen.Stop(receivers, sent)
		if err != nil {
			t.Fatal(err)
		}
		return sent, counts
	}
	for _, to := range []loadgen.Destination{loadgen.Broadcast, loadgen.Unknown, loadgen.Learned} {
		sent, counts := flood(to)
		for i, c := range counts {
			if c.Distinct != count || c.Arrived != count || c.Missing != 0 {
				t.Errorf("destination %d, receiver %d: sent %+v, counted %+v", to, i, sent, c)
			}
		}
	}
	// 2,000 addresses at once: the one port that they are at gets all.
	if _, err := announcer.Announce(ctx, loadgen.DstMAC, flows, 0); err != nil {
		t.Fatal(err)
	}
	sent, counts := flood(loadgen.Learned)
	for i, c := range counts {
		want := uint64(0)
		if i == 0 {
			want = count
		}
		if c.Arrived != want || c.Announced != 0 || c.Lost != count-want || want == 0 && c.SilentFlows != flows {
			t.Errorf("announced, receiver %d: sent %+v, counted %+v", i, sent, c)
		}
	}
}

func TestOpenErrors(t *testing.T) {
	w := newWire(t)
	w.host.Do(func() error {
		if _, err := loadgen.OpenSender("none0"); err == nil || err.Error() != "open sender on none0: route ip+net: no such network interface" {
			t.Error(err)
		}
		if _, err := loadgen.OpenReceiver("none0", 1); err == nil || err.Error() != "open receiver on none0: route ip+net: no such network interface" {
			t.Error(err)
		}
		if _, err := loadgen.OpenReceiver("lo", 0); err == nil || err.Error() != "open receiver on lo: flows 0 is not between 1 and 16777216" {
			t.Error(err)
		}
		return nil
	})
	s := w.sender(t)
	_, err := s.Send(context.Background(), loadgen.Stream{Sizes: []int{1515}, Flows: 1, Count: 1})
	if !errors.Is(err, unix.EMSGSIZE) {
		t.Errorf("longer than the MTU: %v", err)
	}
	// A receiver whose interface goes down says so, and counts on.
	r := w.receiver(t, 1)
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	sent, err := s.Send(context.Background(), loadgen.Stream{Sizes: []int{60}, Flows: 1, Count: 100})
	if err != nil {
		t.Fatal(err)
	}
	w.far.Unplug()
	c, err := r.Stop(sent)
	if !errors.Is(err, unix.ENETDOWN) || c.Distinct != 100 {
		t.Errorf("unplugged: %v, %+v", err, c)
	}
}
