package loadgen

import (
	"math/bits"
	"time"
)

// Histogram counts durations in log-linear buckets: 32 to each doubling, so a
// quantile is right to 3 %, and exact below 64 ns. The last bucket takes all that
// is longer than 18 minutes. The zero value is empty. Thread-safety: none.
type Histogram struct {
	n       uint64
	max     int64
	buckets [histogramBuckets]uint64
}

const (
	histogramSub     = 32 // buckets to a doubling
	histogramShift   = 5  // its logarithm
	histogramBits    = 40 // of the longest duration, in nanoseconds
	histogramBuckets = (histogramBits-histogramShift-1)*histogramSub + 2*histogramSub
)

// add counts one duration in nanoseconds; less than none is none.
func (h *Histogram) add(ns int64) {
	ns = max(ns, 0)
	h.n++
	h.max = max(h.max, ns)
	h.buckets[bucketOf(ns)]++
}

func bucketOf(ns int64) int {
	v := uint64(ns)
	if v >= 1<<histogramBits {
		return histogramBuckets - 1
	}
	doubling := max(bits.Len64(v)-histogramShift-1, 0)
	return doubling*histogramSub + int(v>>doubling)
}

// lastOf returns the longest duration of a bucket.
func lastOf(bucket int) int64 {
	doubling := max(bucket/histogramSub-1, 0)
	return int64(bucket-doubling*histogramSub+1)<<doubling - 1
}

// Count returns how many durations were counted.
func (h *Histogram) Count() uint64 { return h.n }

// Max returns the longest.
func (h *Histogram) Max() time.Duration { return time.Duration(h.max) }

// Quantile returns a duration that the fraction q of all do not exceed: 0.5 is the
// median, 0.99 the 99th percentile. It is 0 where nothing was counted.
func (h *Histogram) Quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.n)), h.n-1) // of the one asked for, from 0
	var seen uint64
	for i, n := range h.buckets {
		if seen += n; seen > rank {
			if i == histogramBuckets-1 {
				break
			}
			return time.Duration(min(lastOf(i), h.max))
		}
	}
	return time.Duration(h.max)
}
