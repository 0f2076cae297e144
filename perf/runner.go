package perf

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"vswitch/perf/subject"
)

// Contender is a subject as the runner sees it: what a test can stand in for.
type Contender struct {
	SubjectInfo
	Version func() string
	Can     func(subject.Topology) error
	Up      func(subject.Topology) (*Stand, error)
}

// Stand is a subject that stands on a topology.
type Stand struct {
	Bed   *subject.Bed
	Try   func(func() error) error    // turns a failure of the lab's into an error
	Warm  func(context.Context) error // sees that it forwards, before anything is measured
	CPU   func() time.Duration        // of the switch's processes, so far
	Close func() error
}

// Runner measures. Thread-safety: for one goroutine.
type Runner struct {
	Scenarios  []Scenario
	Contenders []Contender
	Rounds     int       // of scenarios that set no lower bound
	Seconds    int       // see Run
	Log        io.Writer // progress: a line a sample
	// MachineCPU returns the CPU time that the whole machine was busy so far.
	MachineCPU func() time.Duration

	results *Results
}

// The metrics of what a scenario metered, for each thing that it says it moved.
var cpuMetrics = []Metric{
	{"cpu-frame", "switch CPU", "ns/frame", Less},
	{"machine-frame", "machine CPU", "ns/frame", None},
	{"cpu-gb", "switch CPU", "s/GB", Less},
	{"machine-gb", "machine CPU", "s/GB", None},
}

// Run measures into results until all is done or ctx is; what was measured until
// then stays. Failures of subjects are in the results; the error is ctx's.
func (r *Runner) Run(ctx context.Context, results *Results) error {
	r.results = results
	for _, c := range r.Contenders {
		info := c.SubjectInfo
		info.Version = c.Version()
		results.Subjects = append(results.Subjects, info)
	}
	for _, s := range r.Scenarios {
		one := ScenarioResult{Name: s.Name, Title: s.Title, Metrics: append(slices.Clone(s.Metrics), cpuMetrics...)}
		for _, c := range r.Contenders {
			if r.rounds(s, c) > 0 {
				one.Outcomes = append(one.Outcomes, Outcome{Subject: c.Name})
			}
		}
		results.Scenarios = append(results.Scenarios, one)
	}
	start := time.Now()
	defer func() {
		results.Seconds = rounded(time.Since(start).Seconds(), 6)
		results.Interrupted = ctx.Err() != nil
	}()
	for _, group := range byTopology(r.Scenarios) {
		if err := r.group(ctx, group); err != nil {
			return err
		}
	}
	return nil
}

// byTopology puts scenarios of one topology together, and leaves the order.
func byTopology(all []Scenario) (groups [][]Scenario) {
	index := make(map[subject.Topology]int)
	for _, s := range all {
		i, ok := index[s.Topology]
		if !ok {
			i = len(groups)
			index[s.Topology] = i
			groups = append(groups, nil)
		}
		groups[i] = append(groups[i], s)
	}
	return groups
}

// group measures the scenarios of one topology, round after round.
func (r *Runner) group(ctx context.Context, scenarios []Scenario) error {
	topology := scenarios[0].Topology
	var able []Contender
	for _, c := range r.Contenders {
		err := c.Can(topology)
		if err == nil {
			able = append(able, c)
			continue
		}
		for _, s := range scenarios {
			if r.rounds(s, c) > 0 {
				r.outcome(s, c).Cannot = err.Error()
			}
		}
	}
	for round := range r.Rounds {
		for _, c := range rotated(able, round) {
			var due []Scenario
			for _, s := range scenarios {
				if round < r.rounds(s, c) && r.outcome(s, c).Cannot == "" {
					due = append(due, s)
				}
			}
			if len(due) == 0 {
				continue
			}
			if err := ctx.Err(); err != nil {
				return err
			}
			r.turn(ctx, c, round, due)
			if err := ctx.Err(); err != nil {
				return err
			}
		}
	}
	return nil
}

// rounds is how many a contender has in a scenario.
func (r *Runner) rounds(s Scenario, c Contender) int {
	rounds := r.Rounds
	if s.Rounds > 0 {
		rounds = min(rounds, s.Rounds)
	}
	if c.Name != ours && s.Peers != 0 {
		rounds = max(min(rounds, s.Peers), 0)
	}
	return rounds
}

// rotated begins with another one each round, so that nobody always comes after
// the same neighbour, or first after a pause.
func rotated[T any](all []T, round int) []T {
	if len(all) == 0 {
		return nil
	}
	n := round % len(all)
	return slices.Concat(all[n:], all[:n])
}

// turn is one subject's part of a round: it is stood up, measured in each scenario
// that is due, and taken away whatever happened.
func (r *Runner) turn(ctx context.Context, c Contender, round int, due []Scenario) {
	failed := func(doing string, err error) {
		if ctx.Err() != nil {
			return // not the subject's fault
		}
		for _, s := range due {
			r.failed(s, c, round, fmt.Errorf("%s: %w", doing, err))
		}
	}
	stand, err := c.Up(due[0].Topology)
	if err != nil {
		failed("stand it up", err)
		return
	}
	defer func() {
		if err := stand.Close(); err != nil {
			fmt.Fprintf(r.Log, "%s: take it away: %v\n", c.Name, err) // also when interrupted
			failed("take it away", err)
		}
	}()
	if err := stand.Try(func() error { return stand.Warm(ctx) }); err != nil {
		failed("warm it up", err)
		return
	}
	for _, s := range due {
		if ctx.Err() != nil {
			return
		}
		r.measure(ctx, c, stand, round, s)
	}
}

// measure runs one scenario once.
func (r *Runner) measure(ctx context.Context, c Contender, stand *Stand, round int, s Scenario) {
	run := &Run{Context: ctx, Bed: stand.Bed, Seconds: r.Seconds, meter: &meter{own: stand.CPU, machine: r.MachineCPU}}
	var sample Sample
	err := stand.Try(func() (err error) {
		sample, err = s.Run(run)
		return err
	})
	if ctx.Err() != nil {
		return // half a measurement is none
	}
	if errors.Is(err, subject.ErrCannot) {
		r.outcome(s, c).Cannot = err.Error()
		fmt.Fprintf(r.Log, "round %d  %-18s %-9s not measured: %v\n", round+1, s.Name, c.Name, err)
		return
	}
	if err != nil {
		r.failed(s, c, round, err)
		return
	}
	if sample.Values == nil {
		sample.Values = make(map[string]float64)
	}
	perUnit(sample, run.meter.ownUsed, run.meter.machineUsed)
	for name, v := range sample.Values {
		sample.Values[name] = rounded(v, 6) // no measurement has more
	}
	sample.Round = round + 1
	o := r.outcome(s, c)
	o.Samples = append(o.Samples, sample)
	fmt.Fprintf(r.Log, "round %d  %-18s %-9s %s\n", round+1, s.Name, c.Name, said(s.Metrics, sample))
}

// perUnit adds the CPU time of each frame or GB: of frames where a scenario counts
// frames, else of bytes. A switch without processes of its own has no value.
func perUnit(s Sample, own, machine time.Duration) {
	add := func(suffix string, per float64) {
		if own > 0 {
			s.Values["cpu-"+suffix] = per * float64(own)
		}
		if machine > 0 {
			s.Values["machine-"+suffix] = per * float64(machine)
		}
	}
	if s.Frames > 0 {
		add("frame", 1/float64(s.Frames))
	}
	if s.Bytes > 0 {
		add("gb", 1e9/float64(s.Bytes)/float64(time.Second))
	}
}

func (r *Runner) failed(s Scenario, c Contender, round int, err error) {
	o := r.outcome(s, c)
	o.Failures = append(o.Failures, Failure{round + 1, err.Error()})
	fmt.Fprintf(r.Log, "round %d  %-18s %-9s failed: %v\n", round+1, s.Name, c.Name, err)
}

func (r *Runner) outcome(s Scenario, c Contender) *Outcome {
	return r.results.Scenario(s.Name).Outcome(c.Name)
}

// said is a sample in a line.
func said(metrics []Metric, s Sample) string {
	var parts []string
	for _, m := range metrics {
		if v, ok := s.Values[m.Name]; ok {
			parts = append(parts, strings.TrimSuffix(m.Title+" "+number(v)+" "+m.Unit, " "))
		}
	}
	return strings.Join(parts, ", ")
}

// Choose returns the contenders of these names or patterns, in their own order.
func Choose(all []Contender, patterns []string) ([]Contender, error) {
	matched, err := selected(patterns, len(all), func(i int) string { return all[i].Name }, "subject")
	if err != nil {
		return nil, err
	}
	var some []Contender
	for _, i := range matched {
		some = append(some, all[i])
	}
	return some, nil
}

// Interrupted says that the run ended because its user wanted it to.
func Interrupted(err error) bool { return errors.Is(err, context.Canceled) }
