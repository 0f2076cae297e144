package perf

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

// golden compares what was written with testdata/name.
func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s differs (go test ./perf -update writes it anew); got\n%s", path, got)
	}
}

// values are rounds of one metric.
type values map[string][]float64

func outcome(subject string, v values) Outcome {
	o := Outcome{Subject: subject}
	for name, all := range v {
		for i, value := range all {
			if i == len(o.Samples) {
				o.Samples = append(o.Samples, Sample{Round: i + 1, Values: make(map[string]float64)})
			}
			o.Samples[i].Values[name] = value
		}
	}
	return o
}

// sampleResults has all that a report must cope with: subjects that cannot, that
// failed, that failed in one round of three, values that are zero, and none.
func sampleResults() *Results {
	metrics := func(some []Metric) []Metric { return append(append([]Metric(nil), some...), cpuMetrics...) }
	return &Results{
		Started: time.Date(2026, 11, 21, 7, 30, 0, 0, time.UTC), Seconds: 1834.5,
		Command: "bin/perf --rounds 3", Commit: "0123456789ab",
		Machine: Machine{CPU: "Some CPU <4>", CPUs: 2, MemoryBytes: 24 << 30, Kernel: "Linux 6.18.0", System: "Debian GNU/Linux 12 (bookworm)", Virtual: true},
		Subjects: []SubjectInfo{
			{"vswitch", "this switch", "1.0", "As it is."}, {"ovs", "Open vSwitch | userspace", "3.1.0", "Offloads off."}, {"ovs-tso", "the same, userspace-tso-enable", "3.1.0", ""},
			{"bridge", "Linux bridge", "6.18.0", ""}, {"vde", "VDE 2", "2.3.2", ""},
		},
		Scenarios: []ScenarioResult{
			{"tcp-1", "TCP, one stream, same host", metrics(tcpMetrics), []Outcome{
				outcome("vswitch", values{"rate": {14.1, 13.3, 15}, "retransmits": {450, 0, 610}, "cpu-gb": {0.41, 0.42, 0.4}, "machine-gb": {1.1, 1.2, 1}}),
				outcome("ovs", values{"rate": {0.34, 0.31, 0.4}, "retransmits": {12, 12, 12}, "cpu-gb": {20, 21, 22}, "machine-gb": {41, 40, 42}}),
				outcome("ovs-tso", values{"rate": {3.4, 3.1, 4.2}, "retransmits": {150_000, 140_000, 160_000}, "cpu-gb": {3, 2, 4}, "machine-gb": {6, 7, 8}}),
				outcome("bridge", values{"rate": {16.8, 16.1, 17.9}, "retransmits": {4000, 5000, 9000}, "machine-gb": {0.9, 0.8, 0.7}}),
				{Subject: "vde", Failures: []Failure{{1, "stand it up: vde_switch ended\nwith more"}, {2, "stand it up: vde_switch ended"}}},
			}},
			{"ping-pong", "UDP ping-pong, same host", metrics(pingPongMetrics), []Outcome{
				outcome("vswitch", values{"p50": {12.1, 12.3, 12.2}, "p99": {33, 31, 35}, "p99.9": {99, 88, 101}}),
				outcome("ovs", values{"p50": {145, 150, 141}, "p99": {1316, 1200, 1400}, "p99.9": {2500, 2600, 2700}}),
				outcome("ovs-tso", values{"p50": {49, 43, 55}, "p99": {153, 121, 203}, "p99.9": {500, 510, 520}}),
				outcome("bridge", values{"p50": {11.6, 11.6, 11.6}, "p99": {25, 74, 31}, "p99.9": {80, 90, 85}}),
				outcome("vde", values{"p50": {40}, "p99": {90}, "p99.9": {200}}),
			}},
			{"frames-64", "64-byte frames, as fast as they are sent", metrics(frameMetrics), []Outcome{
				outcome("vswitch", values{"rate": {612_345, 580_000, 641_000}, "loss": {0, 0, 0}, "offered": {700_000, 710_000, 690_000}}),
				outcome("ovs", values{"rate": {200_000, 320_000, 250_000}, "loss": {70, 71, 72}, "offered": {900_000, 910_000, 890_000}}),
				{Subject: "ovs-tso", Samples: outcome("", values{"rate": {290_000}}).Samples, Failures: []Failure{{2, "no frame arrived"}}},
				outcome("bridge", values{"rate": {915_000, 770_000, 1_204_000}, "loss": {0, 0.25, 0}}),
				{Subject: "vde", Cannot: "it forwards 12 frames a second"},
			}},
			{"memory", "Memory at rest", metrics(restMetrics), []Outcome{
				outcome("vswitch", values{"rest": {10.1, 10.2, 10.3}}),
				outcome("ovs", values{"rest": {44, 45, 46}}),
				{Subject: "ovs-tso", Cannot: "it was not asked"},
				{Subject: "bridge", Cannot: "it has no process of its own"},
				{Subject: "vde", Cannot: "it was not asked"},
			}},
			{"macs-1", "64-byte frames, from one MAC to one", metrics(frameMetrics), []Outcome{
				outcome("vswitch", values{"rate": {600_000}}), outcome("ovs", values{"rate": {250_000}}), outcome("ovs-tso", values{"rate": {200_000}}),
			}},
			{"macs-100k", "64-byte frames, from 100k MACs to 100k", metrics(frameMetrics), []Outcome{
				outcome("vswitch", values{"rate": {400_000}}), outcome("ovs", values{"rate": {25_000}}), outcome("ovs-tso", values{"rate": {100_000}}),
			}},
			{"steady", "A minute at half the highest rate", metrics(steadyMetrics), []Outcome{
				outcome("vswitch", values{"lost": {0}, "reordered": {0}, "duplicated": {0}}),
				outcome("ovs", values{"lost": {120}, "reordered": {0}, "duplicated": {0}}),
			}},
		},
	}
}

func written(t *testing.T, write func(io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestWriteTables(t *testing.T) {
	golden(t, "tables.txt", written(t, sampleResults().WriteTables))
}

func TestWriteMarkdown(t *testing.T) {
	golden(t, "page.md", written(t, func(w io.Writer) error { return sampleResults().WriteMarkdown(w, "chart.svg") }))
	interrupted := sampleResults()
	interrupted.Interrupted = true
	page := string(written(t, func(w io.Writer) error { return interrupted.WriteMarkdown(w, "") }))
	if !strings.Contains(page, "was interrupted") {
		t.Error("the page does not say that the run was interrupted")
	}
	if strings.Contains(page, "![") {
		t.Error("the page shows a chart that is not there")
	}
}

// TestWriteMarkdownTables sees that each table's rows have as many cells as its
// head, whatever is in them.
func TestWriteMarkdownTables(t *testing.T) {
	page := string(written(t, func(w io.Writer) error { return sampleResults().WriteMarkdown(w, "") }))
	cells := 0
	for line := range strings.Lines(page) {
		if !strings.HasPrefix(line, "|") {
			cells = 0
			continue
		}
		n := strings.Count(strings.ReplaceAll(line, `\|`, ""), "|")
		if cells != 0 && n != cells {
			t.Errorf("%d bars, where the head has %d: %s", n, cells, line)
		}
		cells = n
	}
}

func TestWriteSVG(t *testing.T) {
	chart := written(t, sampleResults().WriteSVG)
	golden(t, "chart.svg", chart)
	d := xml.NewDecoder(bytes.NewReader(chart))
	for {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			t.Fatalf("no XML: %v", err)
		}
	}
	written(t, new(Results).WriteSVG) // of nothing
}

func TestPanelEnd(t *testing.T) {
	stat := func(low, median, high float64) bar {
		return bar{stat: Stat{Median: median, Low: low, High: high, N: 3}}
	}
	for _, test := range []struct {
		name string
		bars []bar
		want float64
	}{
		{"the highest whisker", []bar{stat(1, 2, 3), stat(3, 4, 5)}, 5},
		{"a bar alone", []bar{stat(1, 2, 2.5), {none: "cannot"}}, 2.5},
		{"a whisker that is cut", []bar{stat(1, 2, 3), stat(3, 4, 50)}, 6},
		{"a bar that is cut", []bar{stat(1, 2, 3), stat(1, 4, 5), stat(900, 1000, 1100)}, 8},
		{"zeros", []bar{stat(0, 0, 0), stat(0, 0, 0)}, 0},
		{"zeros and one", []bar{stat(0, 0, 0), stat(1, 1, 1)}, 1},
	} {
		if got := (panel{bars: test.bars}).end(); got != test.want {
			t.Errorf("%s: %v, want %v", test.name, got, test.want)
		}
	}
}

func TestJSONRoundTrip(t *testing.T) {
	want := sampleResults()
	want.Interrupted = true
	got, err := ReadJSON(bytes.NewReader(written(t, want.WriteJSON)))
	if err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	for _, bad := range []string{"", "{", `{"unheard": 1}`, `[]`} {
		if _, err := ReadJSON(strings.NewReader(bad)); err == nil {
			t.Errorf("%q was read", bad)
		}
	}
}

func TestFailed(t *testing.T) {
	err := sampleResults().Failed()
	if err == nil || !strings.Contains(err.Error(), "tcp-1, vde, round 2: stand it up") || !strings.Contains(err.Error(), "frames-64, ovs-tso, round 2") {
		t.Errorf("got %v", err)
	}
	if err := new(Results).Failed(); err != nil {
		t.Errorf("nothing failed, and yet: %v", err)
	}
}
