package perf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/perf/subject"
)

// stage stands in for the subjects: it writes down what the runner does with them.
type stage struct {
	said     []string
	standing string
	cpu      time.Duration
}

func (s *stage) say(format string, args ...any) {
	s.said = append(s.said, fmt.Sprintf(format, args...))
}

// contender is one that stands, warms and measures what change does not change.
func (s *stage) contender(t *testing.T, name string, change func(*Contender, *Stand)) Contender {
	stand := Stand{
		Try:  func(f func() error) error { return f() },
		Warm: func(context.Context) error { return nil },
		CPU:  func() time.Duration { s.cpu += time.Second; return s.cpu },
		Close: func() error {
			s.say("-%s", name)
			s.standing = ""
			return nil
		},
	}
	c := Contender{
		SubjectInfo: SubjectInfo{Name: name, Title: "subject " + name},
		Version:     func() string { return "1" },
		Can:         func(subject.Topology) error { return nil },
	}
	if change != nil {
		change(&c, &stand)
	}
	if c.Up == nil {
		c.Up = func(subject.Topology) (*Stand, error) {
			if s.standing != "" {
				t.Errorf("%s is stood up while %s stands", name, s.standing)
			}
			s.standing = name
			s.say("+%s", name)
			return &stand, nil
		}
	}
	return c
}

func (s *stage) scenario(name string, topology subject.Topology, rounds int) Scenario {
	return Scenario{Name: name, Title: "scenario " + name, Metrics: []Metric{{"rate", "rate", "Gbit/s", More}}, Topology: topology, Effort: Effort{Rounds: rounds},
		Run: func(*Run) (Sample, error) {
			s.say("%s:%s", name, s.standing)
			return Sample{Values: map[string]float64{"rate": 1}}, nil
		}}
}

func run(t *testing.T, ctx context.Context, r Runner) (*Results, error) {
	t.Helper()
	var log strings.Builder
	r.Log, r.Seconds = &log, 1
	if r.MachineCPU == nil {
		r.MachineCPU = func() time.Duration { return 0 }
	}
	results := new(Results)
	err := r.Run(ctx, results)
	if t.Failed() {
		t.Logf("log:\n%s", &log)
	}
	return results, err
}

// TestRunnerInterleaves sees each round begin with another subject, scenarios of
// one topology share a bed, and those with fewer rounds leave early.
func TestRunnerInterleaves(t *testing.T) {
	s := new(stage)
	one, other := subject.Topology{Containers: 2}, subject.Topology{Containers: 3}
	_, err := run(t, t.Context(), Runner{
		Scenarios:  []Scenario{s.scenario("x", one, 0), s.scenario("y", other, 1), s.scenario("z", one, 2)},
		Contenders: []Contender{s.contender(t, "A", nil), s.contender(t, "B", nil), s.contender(t, "C", nil)},
		Rounds:     4,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(`
		+A x:A z:A -A  +B x:B z:B -B  +C x:C z:C -C
		+B x:B z:B -B  +C x:C z:C -C  +A x:A z:A -A
		+C x:C -C      +A x:A -A      +B x:B -B
		+A x:A -A      +B x:B -B      +C x:C -C
		+A y:A -A      +B y:B -B      +C y:C -C`)
	if !slices.Equal(s.said, want) {
		t.Errorf("got  %v\nwant %v", s.said, want)
	}
}

// TestRunnerPeers measures the others less often than ours, or not at all.
func TestRunnerPeers(t *testing.T) {
	s := new(stage)
	topology := subject.Topology{Containers: 2}
	seldom, never := s.scenario("seldom", topology, 0), s.scenario("never", topology, 2)
	seldom.Peers, never.Peers = 1, alone
	results, err := run(t, t.Context(), Runner{
		Scenarios:  []Scenario{seldom, never},
		Contenders: []Contender{s.contender(t, "vswitch", nil), s.contender(t, "B", nil)},
		Rounds:     3,
	})
	if err != nil {
		t.Fatal(err)
	}
	want := strings.Fields(`
		+vswitch seldom:vswitch never:vswitch -vswitch  +B seldom:B -B
		+vswitch seldom:vswitch never:vswitch -vswitch
		+vswitch seldom:vswitch -vswitch`)
	if !slices.Equal(s.said, want) {
		t.Errorf("got  %v\nwant %v", s.said, want)
	}
	if n := len(results.Scenario("never").Outcomes); n != 1 {
		t.Errorf("%d subjects are told of, want ours alone", n)
	}
}

func TestRunnerFailures(t *testing.T) {
	s := new(stage)
	topology := subject.Topology{Containers: 2}
	closes := 0
	closing := func(name string) func(*Contender, *Stand) {
		return func(_ *Contender, stand *Stand) {
			stand.Close = func() error { closes++; s.standing = ""; return errors.New("a namespace stays: " + name) }
		}
	}
	failing := s.scenario("some", topology, 0)
	failing.Run = func(*Run) (Sample, error) {
		switch s.standing {
		case "fails":
			return Sample{}, errors.New("no frame arrived")
		case "declines":
			return Sample{}, fmt.Errorf("%w tell", subject.ErrCannot)
		}
		return Sample{Values: map[string]float64{"rate": 1234567.89}}, nil
	}
	results, err := run(t, t.Context(), Runner{
		Scenarios: []Scenario{s.scenario("all", topology, 0), failing},
		Contenders: []Contender{
			s.contender(t, "cannot", func(c *Contender, _ *Stand) {
				c.Can = func(subject.Topology) error { return errors.New("the kernel here has no gretap") }
			}),
			s.contender(t, "down", func(c *Contender, _ *Stand) {
				c.Up = func(subject.Topology) (*Stand, error) { return nil, errors.New("no such binary") }
			}),
			s.contender(t, "cold", func(_ *Contender, stand *Stand) {
				stand.Warm = func(context.Context) error { return errors.New("no ping") }
			}),
			s.contender(t, "fails", nil),
			s.contender(t, "declines", nil),
			s.contender(t, "messy", closing("messy")),
			s.contender(t, "well", nil),
		},
		Rounds: 2,
	})
	if err != nil {
		t.Fatal(err)
	}
	both := func(text string) []Failure { return []Failure{{1, text}, {2, text}} }
	samples := func(v float64) []Sample {
		return []Sample{{Round: 1, Values: map[string]float64{"rate": v}}, {Round: 2, Values: map[string]float64{"rate": v}}}
	}
	want := map[string][]Outcome{
		"all": {
			{Subject: "cannot", Cannot: "the kernel here has no gretap"},
			{Subject: "down", Failures: both("stand it up: no such binary")},
			{Subject: "cold", Failures: both("warm it up: no ping")},
			{Subject: "fails", Samples: samples(1)},
			{Subject: "declines", Samples: samples(1)},
			{Subject: "messy", Samples: samples(1), Failures: both("take it away: a namespace stays: messy")},
			{Subject: "well", Samples: samples(1)},
		},
		"some": {
			{Subject: "cannot", Cannot: "the kernel here has no gretap"},
			{Subject: "down", Failures: both("stand it up: no such binary")},
			{Subject: "cold", Failures: both("warm it up: no ping")},
			{Subject: "fails", Failures: both("no frame arrived")},
			{Subject: "declines", Cannot: "this switch cannot tell"},
			{Subject: "messy", Samples: samples(1234570), Failures: both("take it away: a namespace stays: messy")},
			{Subject: "well", Samples: samples(1234570)},
		},
	}
	for name, outcomes := range want {
		if got := results.Scenario(name).Outcomes; !reflect.DeepEqual(got, outcomes) {
			t.Errorf("%s: got\n%+v\nwant\n%+v", name, got, outcomes)
		}
	}
	if closes != 2 {
		t.Errorf("closed %d times, want 2", closes)
	}
	if results.Failed() == nil {
		t.Error("failures are not told")
	}
}

// TestRunnerInterrupted ends the run in the second measurement: what was measured
// stays, half a measurement is none, the bed goes, and nothing is a failure.
func TestRunnerInterrupted(t *testing.T) {
	s := new(stage)
	ctx, cancel := context.WithCancel(t.Context())
	topology := subject.Topology{Containers: 2}
	halting := s.scenario("halted", topology, 0)
	halting.Run = func(r *Run) (Sample, error) {
		s.say("halted:%s", s.standing)
		cancel()
		<-r.Context.Done()
		return Sample{Values: map[string]float64{"rate": 1}}, nil
	}
	results, err := run(t, ctx, Runner{
		Scenarios:  []Scenario{s.scenario("x", topology, 0), halting, s.scenario("never", topology, 0)},
		Contenders: []Contender{s.contender(t, "A", nil), s.contender(t, "B", nil)},
		Rounds:     3,
	})
	if !Interrupted(err) || !results.Interrupted {
		t.Errorf("error %v, interrupted %v", err, results.Interrupted)
	}
	if want := []string{"+A", "x:A", "halted:A", "-A"}; !slices.Equal(s.said, want) {
		t.Errorf("got %v, want %v", s.said, want)
	}
	if err := results.Failed(); err != nil {
		t.Errorf("failures: %v", err)
	}
	if n := len(results.Scenario("x").Outcome("A").Samples); n != 1 {
		t.Errorf("%d samples of what was measured, want 1", n)
	}
	if n := len(results.Scenario("halted").Outcome("A").Samples); n != 0 {
		t.Errorf("%d samples of what was not, want 0", n)
	}
	for _, write := range []func(io.Writer) error{results.WriteTables, results.WriteJSON, results.WriteSVG} {
		written(t, write)
	}
}

// TestRunnerCPU divides CPU time by what was moved while it was metered, and by
// nothing else.
func TestRunnerCPU(t *testing.T) {
	s := new(stage)
	var machine time.Duration
	measured := s.scenario("x", subject.Topology{Containers: 2}, 0)
	measured.Run = func(r *Run) (Sample, error) {
		machine += time.Hour // not metered
		for range 2 {
			r.metered(func() error { machine += 2 * time.Second; return nil })
		}
		return Sample{Frames: 1000, Bytes: 4e9}, nil
	}
	results, err := run(t, t.Context(), Runner{
		Scenarios: []Scenario{measured},
		Contenders: []Contender{
			s.contender(t, "process", nil), // a second each time it is asked
			s.contender(t, "kernel", func(_ *Contender, stand *Stand) { stand.CPU = func() time.Duration { return 0 } }),
		},
		Rounds:     1,
		MachineCPU: func() time.Duration { return machine },
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]map[string]float64{
		"process": {"cpu-frame": 2e6, "machine-frame": 4e6, "cpu-gb": 0.5, "machine-gb": 1},
		"kernel":  {"machine-frame": 4e6, "machine-gb": 1},
	}
	for name, values := range want {
		if got := results.Scenario("x").Outcome(name).Samples[0].Values; !reflect.DeepEqual(got, values) {
			t.Errorf("%s: %v, want %v", name, got, values)
		}
	}
}

func TestRotated(t *testing.T) {
	if got := rotated([]int(nil), 3); len(got) != 0 {
		t.Errorf("of nobody: %v", got)
	}
	for round, want := range [][]int{{1, 2, 3}, {2, 3, 1}, {3, 1, 2}, {1, 2, 3}} {
		if got := rotated([]int{1, 2, 3}, round); !slices.Equal(got, want) {
			t.Errorf("round %d: %v, want %v", round, got, want)
		}
	}
}
