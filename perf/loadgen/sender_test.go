package loadgen

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// bytesOf gathers a message's frame, as the kernel does.
func bytesOf(m *mmsghdr) []byte {
	var frame []byte
	for _, v := range unsafe.Slice(m.hdr.Iov, m.hdr.Iovlen) {
		frame = append(frame, unsafe.Slice(v.Base, v.Len)...)
	}
	return frame
}

// kernel stands in for sendmmsg: it takes some messages, none, or fails.
type kernel struct {
	take   func(n int) (int, unix.Errno)
	frames [][]byte
	calls  int
}

func (k *kernel) sendmmsg(_ int, msgs *mmsghdr, n int) (int, unix.Errno) {
	k.calls++
	done, errno := k.take(n)
	for i := range done {
		k.frames = append(k.frames, bytesOf(&unsafe.Slice(msgs, n)[i]))
	}
	return done, errno
}

func (k *kernel) sender() *Sender { return &Sender{name: "fake0", train: newTrain(), call: k.sendmmsg} }

// Whatever the interface refuses, what it takes are the stream's frames, each once
// and in turn.
func TestStreamLeavesInTurn(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for name, take := range map[string]func(n int) (int, unix.Errno){
		"willing": func(n int) (int, unix.Errno) { return n, 0 },
		"fickle": func(n int) (int, unix.Errno) {
			if done := r.IntN(n + 1); done > 0 {
				return done, 0
			}
			return 0, []unix.Errno{unix.ENOBUFS, unix.EAGAIN, unix.EINTR}[r.IntN(3)]
		},
	} {
		for _, st := range []Stream{
			{Sizes: []int{60}, Flows: 1, Count: 1000},
			{Sizes: IMIX(), Flows: 7, First: 100, Count: 1001},
			{Sizes: []int{60, 1514}, Flows: 300, Reverse: true, Count: 1000},
			{Sizes: []int{128}, Flows: 2, To: Broadcast, Count: 64, Rate: 1e6},
			{Sizes: []int{128}, Flows: 2, To: Unknown, Count: 1},
		} {
			t.Run(fmt.Sprintf("%s/%d flows", name, st.Flows), func(t *testing.T) {
				k := &kernel{take: take}
				sent, err := k.sender().Send(context.Background(), st)
				if err != nil {
					t.Fatal(err)
				}
				if sent.Frames != st.Count || len(k.frames) != int(st.Count) {
					t.Fatalf("sent %d of %d, the interface took %d", sent.Frames, st.Count, len(k.frames))
				}
				dst, src := DstMAC, SrcMAC
				if st.Reverse {
					dst, src = src, dst
				}
				switch st.To {
				case Unknown:
					dst = UnknownMAC
				case Broadcast:
					dst = func(int) MAC { return broadcast }
				}
				total, perFlow := 0, map[int]uint64{}
				for i, frame := range k.frames {
					number := st.First + i%st.Flows
					flow, seq, stamp, v := parse(frame, len(frame))
					if v != stamped || int(flow) != number || int(seq) != i/st.Flows || len(frame) != st.Sizes[i%len(st.Sizes)] {
						t.Fatalf("frame %d: %d bytes, flow %d, seq %d: %d", i, len(frame), flow, seq, v)
					}
					to, from := dst(number), src(number)
					if !bytes.Equal(frame[:6], to[:]) || !bytes.Equal(frame[6:12], from[:]) {
						t.Fatalf("frame %d: from % x to % x", i, frame[6:12], frame[:6])
					}
					if stamp < sent.Started || stamp > sent.Started+int64(sent.Elapsed) {
						t.Fatalf("frame %d: stamp %d, sent from %d for %v", i, stamp, sent.Started, sent.Elapsed)
					}
					if !bytes.Equal(frame[MinLen:], make([]byte, len(frame)-MinLen)) {
						t.Fatalf("frame %d: % x", i, frame)
					}
					total += len(frame)
					perFlow[number]++
				}
				if sent.Bytes != uint64(total) {
					t.Errorf("%d bytes, counted %d", total, sent.Bytes)
				}
				for flow := range st.First + st.Flows + 2 {
					if sent.Of(flow) != perFlow[flow] {
						t.Errorf("flow %d: %d frames, counted %d", flow, perFlow[flow], sent.Of(flow))
					}
				}
			})
		}
	}
}

func TestAnnouncements(t *testing.T) {
	k := &kernel{take: func(n int) (int, unix.Errno) { return n, 0 }}
	sent, err := k.sender().Announce(context.Background(), DstMAC, 1000, 0)
	if err != nil || sent.Frames != 1000 || len(k.frames) != 1000 {
		t.Fatalf("%+v, %d frames, %v", sent, len(k.frames), err)
	}
	for i, frame := range k.frames {
		mac := DstMAC(i)
		if !bytes.Equal(frame[:6], mac[:]) || !bytes.Equal(frame[6:12], mac[:]) {
			t.Fatalf("frame %d: from % x to % x", i, frame[6:12], frame[:6])
		}
		if _, _, _, v := parse(frame, len(frame)); v != announced {
			t.Fatalf("frame %d: %d", i, v)
		}
	}
}

func TestSendEnds(t *testing.T) {
	willing := func(n int) (int, unix.Errno) { return n, 0 }
	t.Run("by its context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(context.Background())
		k := &kernel{}
		k.take = func(n int) (int, unix.Errno) {
			cancel()
			return n, 0
		}
		sent, err := k.sender().Send(ctx, Stream{Sizes: []int{60}, Flows: 1, Count: 1 << 40, Rate: 1000})
		if err != nil || sent.Frames != uint64(len(k.frames)) {
			t.Errorf("%+v, %v", sent, err)
		}
		if _, err := k.sender().Announce(ctx, DstMAC, 1<<20, 0); !errors.Is(err, context.Canceled) {
			t.Errorf("announcing: %v", err)
		}
	})
	t.Run("by its duration", func(t *testing.T) {
		for _, rate := range []float64{0, 50_000} {
			s := (&kernel{take: willing}).sender()
			s.call = func(_ int, _ *mmsghdr, n int) (int, unix.Errno) { return n, 0 }
			sent, err := s.Send(context.Background(), Stream{Sizes: []int{60}, Flows: 1, Duration: 20 * time.Millisecond, Rate: rate})
			if err != nil || sent.Frames == 0 || sent.Elapsed < 20*time.Millisecond {
				t.Errorf("%+v, %v", sent, err)
			}
			if rate > 0 && sent.Frames > 1000 {
				t.Errorf("%d frames of 1000", sent.Frames)
			}
		}
	})
	t.Run("by the interface", func(t *testing.T) {
		k := &kernel{}
		k.take = func(n int) (int, unix.Errno) {
			if k.calls == 2 {
				return 0, unix.ENETDOWN
			}
			return n, 0
		}
		sent, err := k.sender().Send(context.Background(), Stream{Sizes: []int{60}, Flows: 1, Count: 1000})
		if !errors.Is(err, unix.ENETDOWN) || sent.Frames != burst || err.Error() != "send on fake0: sendmmsg: network is down" {
			t.Errorf("%+v, %v", sent, err)
		}
	})
}

func TestStreamCheck(t *testing.T) {
	for _, test := range []struct {
		st   Stream
		want string
	}{
		{Stream{Flows: 1, Count: 1}, "stream: no sizes"},
		{Stream{Sizes: []int{60, 59}, Flows: 1, Count: 1}, "stream: size 59 is not between 60 and 9014"},
		{Stream{Sizes: []int{9015}, Flows: 1, Count: 1}, "stream: size 9015 is not between 60 and 9014"},
		{Stream{Sizes: []int{60}, Count: 1}, "stream: flows 0 and 0 more are not between 0 and 16777216"},
		{Stream{Sizes: []int{60}, Flows: 2, First: MaxFlows - 1, Count: 1}, "stream: flows 16777215 and 2 more are not between 0 and 16777216"},
		{Stream{Sizes: []int{60}, Flows: 1}, "stream: neither a duration nor a count ends it"},
		{Stream{Sizes: []int{60}, Flows: 1, Count: 1, Rate: -1}, "stream: rate -1"},
		{Stream{Sizes: []int{60}, Flows: 1, Count: 1, To: 9}, "stream: destination 9 is none"},
	} {
		if err := test.st.check(); err == nil || err.Error() != test.want {
			t.Errorf("%v, want %s", err, test.want)
		}
	}
}

// A pacer that is asked on time is exact; one asked late catches up in bounded
// bursts.
func TestPacer(t *testing.T) {
	for _, rate := range []float64{1, 999, 100_000, 333_333, 3_000_000} {
		p := newPacer(rate, 1000)
		now, sent, largest := int64(1000), uint64(0), uint64(0)
		for end := int64(1000 + 1e9); now < end; now = min(p.next(now, sent), end) {
			n := p.due(now, sent)
			largest = max(largest, n)
			sent += n
		}
		sent += p.due(now, sent)
		if sent != uint64(rate) {
			t.Errorf("%v a second: %d in a second", rate, sent)
		}
		if share := rate * tick / 1e9; float64(largest) > share+1 {
			t.Errorf("%v a second: %d at once", rate, largest)
		}
	}
	p := newPacer(100_000, 0)
	if n := p.due(1e9, 0); n != burst {
		t.Errorf("a second late: %d at once", n)
	}
	p = newPacer(10_000_000, 0)
	if n := p.due(1e9, 0); n != 2000 {
		t.Errorf("a second late: %d at once", n)
	}
}

func TestNowIsMonotonicClock(t *testing.T) {
	for range 100 {
		var ts unix.Timespec
		before := Now()
		if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
			t.Fatal(err)
		}
		after := Now()
		// The anchor is right to a fraction of its own reading.
		const slop = 20_000
		if ts.Nano() < before-slop || ts.Nano() > after+slop {
			t.Fatalf("%d is not between %d and %d", ts.Nano(), before, after)
		}
	}
}

func TestSendLoopDoesNotAllocate(t *testing.T) {
	s := &Sender{train: newTrain(), call: func(_ int, _ *mmsghdr, n int) (int, unix.Errno) { return n, 0 }}
	var sent Sent
	p := newPacer(100_000, Now())
	for name, begin := range map[string]func(){
		"stream":   func() { s.train.stream(&Stream{Sizes: IMIX(), Flows: 100}) },
		"announce": func() { s.train.announce(SrcMAC) },
	} {
		begin()
		if n := testing.AllocsPerRun(100, func() {
			if err := s.burst(&sent, 5*burst); err != nil {
				t.Fatal(err)
			}
			now := Now()
			p.due(now, sent.Frames)
			sleepUntil(min(p.next(now, 0), now))
		}); n != 0 {
			t.Errorf("%s: %v allocations a burst", name, n)
		}
	}
}

func BenchmarkLoad(b *testing.B) {
	t := newTrain()
	t.stream(&Stream{Sizes: []int{60}, Flows: 100_000})
	b.ReportAllocs()
	for b.Loop() {
		t.load(burst, 1)
		t.leave(burst)
	}
	b.ReportMetric(float64(b.Elapsed())/float64(b.N)/burst, "ns/frame")
}
