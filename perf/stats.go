package perf

import (
	"math"
	"slices"
)

// Stat sums up the values of one metric over the rounds. With few rounds a median
// with the extremes says more than a mean with a deviation: one round that the
// machine disturbed moves the extreme and nothing else.
type Stat struct {
	Median, Low, High float64
	N                 int // values; 0 says that there are none, and nothing else holds
}

// summarize leaves values as they are.
func summarize(values []float64) Stat {
	if len(values) == 0 {
		return Stat{}
	}
	sorted := slices.Sorted(slices.Values(values))
	n := len(sorted)
	median := sorted[n/2]
	if n%2 == 0 {
		median = (sorted[n/2-1] + sorted[n/2]) / 2
	}
	return Stat{Median: median, Low: sorted[0], High: sorted[n-1], N: n}
}

// ratio returns ours to theirs, of medians, and whether there is one.
func ratio(ours, theirs Stat) (float64, bool) {
	if ours.N == 0 || theirs.N == 0 || theirs.Median == 0 {
		return 0, false
	}
	r := ours.Median / theirs.Median
	return r, !math.IsNaN(r) && !math.IsInf(r, 0)
}
