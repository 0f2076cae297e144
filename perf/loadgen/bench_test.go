package loadgen_test

import (
	"context"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/perf/loadgen"
)

// cpu is the processor time of this process.
func cpu() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// BenchmarkSend is the sender alone: nobody listens at the far end, where the
// host's stack throws frames away.
func BenchmarkSend(b *testing.B) {
	s := newWire(b).sender(b)
	before := cpu()
	sent, err := s.Send(context.Background(), loadgen.Stream{Sizes: []int{60}, Flows: 1, Count: uint64(b.N)})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/frame")
	b.ReportMetric(sent.PerSecond(), "sent/s")
}

// BenchmarkWire is the generator on both ends of a wire: what it is to be faster
// than whatever it measures by.
func BenchmarkWire(b *testing.B) {
	w := newWire(b)
	for _, bench := range []struct {
		name   string
		stream loadgen.Stream
	}{
		{"60", loadgen.Stream{Sizes: []int{60}, Flows: 1}},
		{"508", loadgen.Stream{Sizes: []int{508}, Flows: 1}},
		{"1514", loadgen.Stream{Sizes: []int{1514}, Flows: 1}},
		{"imix", loadgen.Stream{Sizes: loadgen.IMIX(), Flows: 1}},
		{"60/100kflows", loadgen.Stream{Sizes: []int{60}, Flows: 100_000}},
		{"60/1Mflows", loadgen.Stream{Sizes: []int{60}, Flows: 1_000_000}},
		{"60/paced", loadgen.Stream{Sizes: []int{60}, Flows: 1, Rate: 100_000}},
	} {
		s, r := w.sender(b), w.receiver(b, bench.stream.Flows)
		b.Run(bench.name, func(b *testing.B) {
			st := bench.stream
			st.Count = uint64(b.N)
			before := cpu()
			sent, c := session(b, s, r, st)
			b.ReportMetric(float64(cpu()-before)/float64(b.N), "cpu-ns/frame")
			b.ReportMetric(sent.PerSecond(), "sent/s")
			b.ReportMetric(c.PerSecond(), "received/s")
			b.ReportMetric(float64(c.Unread)/float64(b.N), "unread/frame")
			b.ReportMetric(float64(sent.Refused)/float64(b.N), "refused/frame")
			if c.Lost > 0 {
				b.Errorf("lost %d", c.Lost)
			}
		})
		r.Close()
	}
}
