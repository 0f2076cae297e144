package perf

import (
	"context"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"vswitch/perf/subject"
)

// Scenario is something measured on a topology.
type Scenario struct {
	Name, Title string
	Metrics     []Metric // the first one is what the scenario is for
	Topology    subject.Topology
	Effort
	// Run measures once. It may be called again on the same standing bed, by
	// other scenarios before, and leaves the bed as it found it but for learned
	// addresses.
	Run func(*Run) (Sample, error)
}

// Effort is how often a scenario is measured. The zero value is each round.
type Effort struct {
	Rounds int  // at most this many; 0: all that are asked for
	Peers  int  // rounds of the others than ours; 0: as many; alone: they are not asked
	Quick  bool // belongs into a quick run
}

// alone is for what compares us with ourselves, and takes long.
const alone = -1

// Run is one measuring of one subject in one scenario. Thread-safety: for the
// scenario's goroutine.
type Run struct {
	Context context.Context // done when the user ends the run
	Bed     *subject.Bed
	Seconds int // that a stream lasts; frames are measured for a third of it

	meter *meter // nil while warming up
}

// meter sums CPU time up. Thread-safety: for one goroutine.
type meter struct {
	own, machine         func() time.Duration // used so far: by the switch's processes, by the whole machine
	ownUsed, machineUsed time.Duration        // while metered
}

// metered calls f, and accounts the CPU time meanwhile to the scenario.
func (r *Run) metered(f func() error) error {
	if r.meter == nil {
		return f()
	}
	own, machine := r.meter.own(), r.meter.machine()
	err := f()
	r.meter.ownUsed += r.meter.own() - own
	r.meter.machineUsed += r.meter.machine() - machine
	return err
}

// frameTime is how long frames are sent for one figure: a second is enough to
// count hundreds of thousands.
func (r *Run) frameTime() time.Duration {
	return max(time.Second, time.Duration(r.Seconds)*time.Second/3)
}

// Select returns the scenarios whose names one of the patterns matches (as a
// shell's file names: "tcp-*"), in their own order. Each pattern must match some.
func Select(all []Scenario, patterns []string) ([]Scenario, error) {
	matched, err := selected(patterns, len(all), func(i int) string { return all[i].Name }, "scenario")
	if err != nil {
		return nil, err
	}
	var some []Scenario
	for _, i := range matched {
		some = append(some, all[i])
	}
	return some, nil
}

// selected returns the indices of the names that some pattern matches.
func selected(patterns []string, n int, name func(int) string, what string) (some []int, err error) {
	used := make([]bool, len(patterns))
	var names []string
	for i := range n {
		names = append(names, name(i))
		in := false
		for p, pattern := range patterns {
			ok, err := path.Match(pattern, name(i))
			if err != nil {
				return nil, fmt.Errorf("%s %q: %w", what, pattern, err)
			}
			used[p], in = used[p] || ok, in || ok
		}
		if in {
			some = append(some, i)
		}
	}
	if i := slices.Index(used, false); i >= 0 {
		return nil, fmt.Errorf("no %s is called %q; there are %s", what, patterns[i], strings.Join(names, ", "))
	}
	return some, nil
}
