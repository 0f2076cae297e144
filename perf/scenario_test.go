package perf

import (
	"context"
	"errors"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func TestAll(t *testing.T) {
	var names []string
	for _, s := range All() {
		if slices.Contains(names, s.Name) {
			t.Errorf("two scenarios are called %s", s.Name)
		}
		names = append(names, s.Name)
		if s.Title == "" || len(s.Metrics) == 0 || s.Run == nil {
			t.Errorf("%s is not complete", s.Name)
		}
		for _, m := range s.Metrics {
			if m.Name == "" || m.Title == "" || m.Unit == "" {
				t.Errorf("%s: metric %+v is not complete", s.Name, m)
			}
		}
	}
	if quick := Quick(All()); len(quick) == 0 || len(quick) >= len(names) {
		t.Errorf("%d scenarios are quick", len(quick))
	}
}

// TestAllLeaveBeds sees that scenarios that add to a bed come after all that share
// it.
func TestAllLeaveBeds(t *testing.T) {
	adding := []string{"add-port", "port-memory", "vxlan-memory", "macs-1m"}
	for _, group := range byTopology(All()) {
		added := ""
		for _, s := range group {
			if slices.Contains(adding, s.Name) {
				added = s.Name
			} else if added != "" {
				t.Errorf("%s is measured on what %s left", s.Name, added)
			}
		}
	}
}

func TestSelect(t *testing.T) {
	all := []Scenario{{Name: "tcp-1"}, {Name: "tcp-8"}, {Name: "ping-pong"}}
	for _, test := range []struct {
		patterns, want string // comma-separated
		err            string
	}{
		{"tcp-*", "tcp-1,tcp-8", ""},
		{"ping-pong,tcp-1", "tcp-1,ping-pong", ""},
		{"*", "tcp-1,tcp-8,ping-pong", ""},
		{"tcp-1,tcp-1,tcp-?", "tcp-1,tcp-8", ""},
		{"tcp", "", `no scenario is called "tcp"; there are tcp-1, tcp-8, ping-pong`},
		{"tcp-1,udp", "", `"udp"`},
		{"tcp-[", "", "syntax error"},
	} {
		some, err := Select(all, strings.Split(test.patterns, ","))
		var names []string
		for _, s := range some {
			names = append(names, s.Name)
		}
		if got := strings.Join(names, ","); got != test.want {
			t.Errorf("%s: %s, want %s", test.patterns, got, test.want)
		}
		if (err != nil) != (test.err != "") || err != nil && !strings.Contains(err.Error(), test.err) {
			t.Errorf("%s: error %v, want %q", test.patterns, err, test.err)
		}
	}
}

func TestParseSockperf(t *testing.T) {
	const said = `sockperf: == version #3.7-no.git ==
sockperf[CLIENT] send on:sockperf: using recvfrom() to block on socket(s)

[ 0] IP = 10.0.0.2        PORT = 11111 # UDP
sockperf: Warmup stage (sending a few dummy messages)...
sockperf: [Total Run] RunTime=1.000 sec; Warm up time=400 msec; SentMessages=31245; ReceivedMessages=31244
sockperf: [Valid Duration] RunTime=0.550 sec; SentMessages=17172; ReceivedMessages=17170
sockperf: ====> avg-latency=15.986 (std-dev=7.345)
sockperf: Summary: Latency is 15.986 usec
sockperf: ---> <MAX> observation =  312.501
sockperf: ---> percentile 99.999 =  312.501
sockperf: ---> percentile 99.990 =  200.125
sockperf: ---> percentile 99.900 =   61.456
sockperf: ---> percentile 99.000 =   33.250
sockperf: ---> percentile 90.000 =   20.001
sockperf: ---> percentile 50.000 =   14.875
`
	got, err := parseSockperf(said)
	want := Sample{Values: map[string]float64{"p50": 14.875, "p99": 33.25, "p99.9": 61.456}, Frames: 2 * 31244}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("%+v %v, want %+v", got, err, want)
	}
	for _, bad := range []string{"", "sockperf: No messages were received from the server. Is the server down?",
		strings.ReplaceAll(said, "99.000", "98.000")} {
		if s, err := parseSockperf(bad); err == nil {
			t.Errorf("%.40q: %+v", bad, s)
		}
	}
}

// TestAwait lets go of what it waits for.
func TestAwait(t *testing.T) {
	if v, err := await(t.Context(), func() (int, error) { return 7, nil }); v != 7 || err != nil {
		t.Errorf("%v %v", v, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	forever := make(chan struct{})
	defer close(forever)
	cancel()
	if _, err := await(ctx, func() (int, error) { <-forever; return 0, nil }); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}
