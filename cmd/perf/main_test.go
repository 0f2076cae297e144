package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vswitch/perf"
)

// perfRun runs the command.
func perfRun(t *testing.T, args ...string) (status int, stdout, stderr string) {
	t.Helper()
	var out, err bytes.Buffer
	status = run(t.Context(), args, &out, &err)
	return status, out.String(), err.String()
}

func TestUsage(t *testing.T) {
	for _, test := range []struct {
		args string
		says string
	}{
		{"--no-such-flag", "not defined"},
		{"tcp-1", `unexpected argument "tcp-1"`},
		{"--rounds -1", "above 0"},
		{"--seconds x", "invalid value"},
		{"--scenario none", `no scenario is called "none"`},
		{"--subject none", `no subject is called "none"`},
	} {
		status, _, stderr := perfRun(t, strings.Fields(test.args)...)
		if status != 2 || !strings.Contains(stderr, test.says) {
			t.Errorf("%s: status %d, said %q, want 2 and %q", test.args, status, stderr, test.says)
		}
	}
	if status, _, stderr := perfRun(t, "--help"); status != 0 || !strings.Contains(stderr, "-quick") {
		t.Errorf("--help: status %d, said %q", status, stderr)
	}
}

func TestDefaults(t *testing.T) {
	for _, test := range []struct {
		args            string
		rounds, seconds int
	}{
		{"", 7, 3}, {"--quick", 3, 1}, {"--quick --rounds 5", 5, 1}, {"--seconds 9", 7, 9},
	} {
		o, err := parse(strings.Fields(test.args), t.Output())
		if err != nil || o.rounds != test.rounds || o.seconds != test.seconds {
			t.Errorf("%q: %d rounds of %d seconds, error %v", test.args, o.rounds, o.seconds, err)
		}
	}
}

func TestList(t *testing.T) {
	status, stdout, _ := perfRun(t, "--list", "--scenario", "tcp-*", "--subject", "vswitch,bridge")
	for _, want := range []string{"tcp-1 ", "tcp-8 ", "vswitch ", "bridge "} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not listed in\n%s", want, stdout)
		}
	}
	if status != 0 || strings.Contains(stdout, "ping-pong") || strings.Contains(stdout, "vde") {
		t.Errorf("status %d, listed\n%s", status, stdout)
	}
}

// TestFrom makes reports of a file, and that file again.
func TestFrom(t *testing.T) {
	results := &perf.Results{
		Started: time.Date(2026, 1, 2, 3, 4, 0, 0, time.UTC), Command: "bin/perf --quick", Commit: "abc",
		Subjects: []perf.SubjectInfo{{Name: "vswitch", Title: "vswitch", Version: "1"}},
		Scenarios: []perf.ScenarioResult{{Name: "tcp-1", Title: "TCP", Metrics: []perf.Metric{{Name: "rate", Title: "TCP", Unit: "Gbit/s", Better: perf.More}},
			Outcomes: []perf.Outcome{{Subject: "vswitch", Samples: []perf.Sample{{Round: 1, Values: map[string]float64{"rate": 12.5}}}}}}},
	}
	dir := t.TempDir()
	first, second := filepath.Join(dir, "first.json"), filepath.Join(dir, "second.json")
	if err := writeFile(first, results.WriteJSON); err != nil {
		t.Fatal(err)
	}
	page, chart := filepath.Join(dir, "page.md"), filepath.Join(dir, "sub", "chart.svg")
	if err := os.Mkdir(filepath.Dir(chart), 0o755); err != nil {
		t.Fatal(err)
	}
	status, stdout, stderr := perfRun(t, "--from", first, "--json", second, "--markdown", page, "--svg", chart)
	if status != 0 || !strings.Contains(stdout, "12.5") {
		t.Errorf("status %d, said %s%s", status, stdout, stderr)
	}
	for name, want := range map[string]string{page: "](sub/chart.svg)", chart: "12.5", second: `"rate": 12.5`} {
		if text, err := os.ReadFile(name); err != nil || !strings.Contains(string(text), want) {
			t.Errorf("%s has no %q: %v\n%s", filepath.Base(name), want, err, text)
		}
	}
	a, _ := os.ReadFile(first)
	if b, _ := os.ReadFile(second); !bytes.Equal(a, b) {
		t.Errorf("read and written again, it is\n%s", b)
	}

	if status, _, stderr := perfRun(t, "--from", filepath.Join(dir, "none.json")); status != 1 || !strings.Contains(stderr, "none.json") {
		t.Errorf("no such file: status %d, said %q", status, stderr)
	}
}
