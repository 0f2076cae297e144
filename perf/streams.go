package perf

import (
	"context"
	"fmt"
	"os"
	"regexp"
	"strconv"
	"strings"
	"time"

	"vswitch/internal/lab"
)

// TCP is iperf3's, the ping-pong sockperf's: others know them, and can repeat what
// is measured here by hand.

var tcpMetrics = []Metric{
	{"rate", "TCP", "Gbit/s", More},
	{"retransmits", "sent again", "segments", None},
}

// tcp measures streams from the first container to the last.
func tcp(streams int) func(*Run) (Sample, error) {
	return func(r *Run) (Sample, error) {
		from, to := r.ends()
		var result lab.Iperf3Result
		err := r.metered(func() (err error) {
			result, err = await(r.Context, func() (lab.Iperf3Result, error) {
				return lab.Iperf3(from, to, r.Seconds, "-P", strconv.Itoa(streams))
			})
			return err
		})
		if err != nil {
			return Sample{}, err
		}
		return Sample{
			Values: map[string]float64{"rate": result.BitsPerSecond / 1e9, "retransmits": float64(result.Retransmits)},
			Bytes:  uint64(result.Bytes),
		}, nil
	}
}

var pingPongMetrics = []Metric{
	{"p50", "one way p50", "µs", Less},
	{"p99", "p99", "µs", Less},
	{"p99.9", "p99.9", "µs", Less},
}

// sockperfPort is where its server listens, by default.
const sockperfPort = 11111

// pingPong measures the way there and back, halved, of one small UDP datagram at a
// time.
func pingPong(r *Run) (Sample, error) {
	from, to := r.ends()
	server := to.Start("sockperf", "server", "-i", to.IP())
	defer server.Kill()
	if err := lab.Wait(10*time.Second, func() error { return listensUDP(server, sockperfPort) }); err != nil {
		return Sample{}, err
	}
	limit := time.Duration(r.Seconds)*time.Second + 20*time.Second
	var out string
	err := r.metered(func() (err error) {
		out, err = await(r.Context, func() (string, error) {
			return from.ExecTimeout(limit, "sockperf", "ping-pong", "-i", to.IP(), "-t", strconv.Itoa(r.Seconds))
		})
		return err
	})
	if err != nil {
		return Sample{}, err
	}
	return parseSockperf(out)
}

var (
	sockperfPercentile = regexp.MustCompile(`percentile (\d+\.\d+) *= *(\d+\.\d+)`)
	sockperfReceived   = regexp.MustCompile(`\[Total Run\].*ReceivedMessages=(\d+)`)
)

// parseSockperf reads what sockperf 3.7 and later print, in µs one way:
//
//	sockperf: [Total Run] RunTime=3.000 sec; Warm up time=400 msec; SentMessages=90210; ReceivedMessages=90210
//	sockperf: ---> percentile 99.900 =   61.456
func parseSockperf(out string) (Sample, error) {
	found := make(map[string]string)
	for _, m := range sockperfPercentile.FindAllStringSubmatch(out, -1) {
		found[m[1]] = m[2]
	}
	s := Sample{Values: make(map[string]float64)}
	for _, want := range []struct{ name, percentile string }{{"p50", "50.000"}, {"p99", "99.000"}, {"p99.9", "99.900"}} {
		v, err := strconv.ParseFloat(found[want.percentile], 64)
		if err != nil {
			return Sample{}, fmt.Errorf("sockperf says no percentile %s:\n%s", want.percentile, strings.TrimSpace(out))
		}
		s.Values[want.name] = v
	}
	if m := sockperfReceived.FindStringSubmatch(out); m != nil {
		answers, err := strconv.ParseUint(m[1], 10, 64)
		if err != nil {
			return Sample{}, fmt.Errorf("sockperf's count of messages: %w", err)
		}
		s.Frames = 2 * answers
	}
	return s, nil
}

// listensUDP returns nil when a socket in the process's namespace is bound to the
// port.
func listensUDP(p *lab.Proc, port int) error {
	select {
	case <-p.Done():
		return fmt.Errorf("sockperf's server ended: %s", strings.TrimSpace(p.Out.String()))
	default:
	}
	table, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/udp", p.PID()))
	if err != nil {
		return err
	}
	want := fmt.Sprintf(":%04X", port)
	for line := range strings.Lines(string(table)) {
		// sl local_address rem_address st …
		if f := strings.Fields(line); len(f) > 1 && strings.HasSuffix(f[1], want) {
			return nil
		}
	}
	return fmt.Errorf("sockperf's server is not bound to port %d", port)
}

// ends are the first two containers: with a tunnel, on different hosts.
func (r *Run) ends() (from, to *lab.Container) {
	return r.Bed.Containers[0], r.Bed.Containers[1]
}

// await returns when f does, or as soon as ctx is done: then f ends with what it
// waits for, which goes with the bed.
func await[T any](ctx context.Context, f func() (T, error)) (T, error) {
	type result struct {
		value T
		err   error
	}
	done := make(chan result, 1)
	go func() { // ends with f
		var r result
		r.value, r.err = f()
		done <- r
	}()
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		var none T
		return none, ctx.Err()
	}
}
