package loadgen

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBuckets(t *testing.T) {
	if bucketOf(0) != 0 || bucketOf(1<<histogramBits-1) != histogramBuckets-1 || bucketOf(1<<62) != histogramBuckets-1 {
		t.Error("the ends are not where they should be")
	}
	for b := range histogramBuckets - 1 {
		last := lastOf(b)
		if bucketOf(last) != b || bucketOf(last+1) != b+1 {
			t.Fatalf("bucket %d does not end at %d", b, last)
		}
	}
}

func TestQuantilesAgreeWithSorting(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var h Histogram
	if h.Quantile(0.5) != 0 || h.Max() != 0 || h.Count() != 0 {
		t.Error("an empty histogram is not empty")
	}
	var all []int64
	for range 100_000 {
		ns := r.Int64N(1 << (1 + r.IntN(36)))
		all = append(all, ns)
		h.add(ns)
	}
	slices.Sort(all)
	for _, q := range []float64{0, 0.001, 0.1, 0.5, 0.9, 0.99, 0.999, 0.99999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		got := h.Quantile(q).Nanoseconds()
		if got < want || got-want > want/histogramSub+1 {
			t.Errorf("quantile %v is %d, want %d", q, got, want)
		}
	}
	if h.Count() != 100_000 || h.Max().Nanoseconds() != all[len(all)-1] {
		t.Errorf("%d durations, at most %v", h.Count(), h.Max())
	}
	h.add(-5)
	h.add(int64(3 * time.Hour))
	if h.Quantile(0) != 0 || h.Quantile(1) != 3*time.Hour {
		t.Errorf("from %v to %v", h.Quantile(0), h.Quantile(1))
	}
}
