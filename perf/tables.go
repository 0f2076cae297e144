package perf

import (
	"fmt"
	"time"

	"vswitch/perf/loadgen"
	"vswitch/perf/subject"
)

var learningMetrics = []Metric{
	{"rate", "learned", "addresses/s", More},
	{"missed", "not learned at once", "% of them", None},
	{"held", "table holds", "addresses", More},
	{"memory", "memory", "B/MAC", Less},
}

// morePasses is how often addresses that were missed are announced again, slower.
const morePasses = 3

// learning announces so many new addresses as fast as it goes, and then again for
// those that were missed: how fast they are learned, and how many are held.
func learning(n int) func(*Run) (Sample, error) {
	return func(r *Run) (Sample, error) {
		from, _ := r.ends()
		out, err := openSender(from.Namespace)
		if err != nil {
			return Sample{}, err
		}
		defer out.Close()
		empty, err := r.Bed.MACs()
		if err != nil {
			return Sample{}, err
		}
		before := r.Bed.Memory()

		// What the switch has queued when the last one has left is learned, too.
		start := time.Now()
		if _, err := out.Announce(r.Context, loadgen.SrcMAC, n, 0); err != nil {
			return Sample{}, err
		}
		took := time.Since(start)
		first, err := r.settledMACs(empty + n)
		if err != nil {
			return Sample{}, err
		}
		held := first
		for range morePasses {
			if held-empty >= n {
				break
			}
			if _, err := out.Announce(r.Context, loadgen.SrcMAC, n, announceRate); err != nil {
				return Sample{}, err
			}
			if held, err = r.settledMACs(empty + n); err != nil {
				return Sample{}, err
			}
		}
		learned := max(first-empty, 0)
		s := Sample{Values: map[string]float64{
			"rate":   float64(learned) / took.Seconds(),
			"missed": 100 * (1 - float64(learned)/float64(n)),
			"held":   float64(held),
		}}
		if grown := r.Bed.Memory() - before; before > 0 && held > empty {
			s.Values["memory"] = float64(grown) / float64(held-empty)
		}
		return s, nil
	}
}

// settledMACs is the size of the table when it is full, or has stopped growing. To
// ask takes some switches seconds, so it is asked no more often than needed.
func (r *Run) settledMACs(full int) (int, error) {
	for last := -1; ; {
		now, err := r.Bed.MACs()
		if err != nil {
			return 0, err
		}
		if err := r.Context.Err(); err != nil {
			return 0, err
		}
		if now >= full || now <= last {
			return now, nil
		}
		last = now
	}
}

var restMetrics = []Metric{{"rest", "memory at rest, two ports", "MB", Less}}

// memoryAtRest is of the switch's processes, before anything but the warming up.
func memoryAtRest(r *Run) (Sample, error) {
	bytes, err := r.memory()
	if err != nil {
		return Sample{}, err
	}
	return Sample{Values: map[string]float64{"rest": float64(bytes) / 1e6}}, nil
}

// memory is the switch's resident memory in bytes.
func (r *Run) memory() (int64, error) {
	bytes := r.Bed.Memory()
	if bytes <= 0 {
		return 0, fmt.Errorf("%w tell its memory: it has no process of its own", subject.ErrCannot)
	}
	return bytes, nil
}

var portMemoryMetrics = []Metric{{"port", "memory", "KiB/port", Less}}

// enoughGrowth in bytes tells what a port costs; a switch that takes more for fewer
// ports is not asked for all.
const enoughGrowth = 1 << 30

// portMemory adds so many ports, or as many as it takes to see what one costs.
func portMemory(n int) func(*Run) (Sample, error) {
	return func(r *Run) (Sample, error) {
		before, err := r.memory()
		if err != nil {
			return Sample{}, err
		}
		after, added := before, 0
		for ; added < n && after-before < enoughGrowth; added++ {
			if err := r.Context.Err(); err != nil {
				return Sample{}, err
			}
			c, err := r.Bed.Spare()
			if err != nil {
				return Sample{}, err
			}
			if err := r.Bed.AddPort(c.Veth); err != nil {
				return Sample{}, err
			}
			if after, err = r.memory(); err != nil {
				return Sample{}, err
			}
		}
		return Sample{Values: map[string]float64{"port": float64(after-before) / float64(added) / 1024}}, nil
	}
}

var tunnelMemoryMetrics = []Metric{{"tunnel", "memory", "KiB/tunnel port", Less}}

// tunnelMemory adds so many tunnel ports, whose other ends do not exist.
func tunnelMemory(n int) func(*Run) (Sample, error) {
	return func(r *Run) (Sample, error) {
		before, err := r.memory()
		if err != nil {
			return Sample{}, err
		}
		if err := r.Bed.AddTunnels(n); err != nil {
			return Sample{}, err
		}
		after, err := r.memory()
		if err != nil {
			return Sample{}, err
		}
		return Sample{Values: map[string]float64{"tunnel": float64(after-before) / float64(n) / 1024}}, nil
	}
}
