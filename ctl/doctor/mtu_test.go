package doctor

import (
	"math/rand/v2"
	"sync/atomic"
	"testing"
)

// TestLargest compares the search with the truth, for every size that may be it.
func TestLargest(t *testing.T) {
	for range 2000 {
		low := 60 + rand.N(100)
		high := low + 1 + rand.N(9000)
		truth := low + rand.N(high-low)
		var tries atomic.Int32
		got := largest(low, high, func(n int) bool {
			if n <= low || n >= high {
				t.Errorf("%d is tried, between %d and %d", n, low, high)
			}
			tries.Add(1)
			return n <= truth
		})
		if got != truth || tries.Load() > 5*sizesAtOnce {
			t.Fatalf("%d to %d: %d after %d tries, want %d", low, high, got, tries.Load(), truth)
		}
	}
}

// TestIsEdge: a size above which nothing passes is told from one that a search found
// because much was lost.
func TestIsEdge(t *testing.T) {
	const edge = 1400
	var tries atomic.Int32
	for _, tc := range []struct {
		name string
		once func(n int) bool
		want bool
	}{
		{"a black hole", func(n int) bool { return n <= edge }, true},
		{"with some loss", func(n int) bool { return n <= edge && tries.Add(1)%5 != 0 }, true},
		{"all passes", func(n int) bool { return true }, false},
		{"nothing passes", func(n int) bool { return false }, false},
		{"a smaller one", func(n int) bool { return n < edge }, false},
		{"every other frame is lost", func(n int) bool { return tries.Add(1)%2 == 0 }, false},
	} {
		tries.Store(0)
		if got := isEdge(edge, tc.once); got != tc.want {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
	// Whoever answers seldom, a search finds some size.
	var seldom atomic.Int32
	once := func(int) bool { return seldom.Add(1)%4 == 0 }
	if n := largest(60, 1500, often(once)); isEdge(n, once) {
		t.Errorf("an edge at %d, where there is none", n)
	}
}
