package perf

import (
	"errors"
	"math"
	"testing"
)

func TestSearch(t *testing.T) {
	for _, test := range []struct {
		name          string
		limit, sender float64 // frames a second: without loss, and that the sender can do
		want          float64
	}{
		{"nothing is ever lost", math.Inf(1), 800_000, 800_000},
		{"a limit in the middle", 500_000, 800_000, 500_000},
		{"a limit near the top", 795_000, 800_000, 795_000},
		{"a low limit", 20_000, 800_000, 20_000},
		{"always lost", 0, 800_000, 0},
	} {
		t.Run(test.name, func(t *testing.T) {
			trials := 0
			got, err := search(func(rate float64) (float64, bool, error) {
				trials++
				offered := rate
				if rate == 0 || rate > test.sender {
					offered = test.sender
				}
				return offered, offered <= test.limit, nil
			})
			if err != nil {
				t.Fatal(err)
			}
			if got > test.want || got < test.want*(1-2*searchPrecision)-1 {
				t.Errorf("%v, want %v", got, test.want)
			}
			if trials > 1+searchTrials {
				t.Errorf("%d trials", trials)
			}
		})
	}
}

// TestSearchSender gives a sender that does less beside a busy switch than the
// first trial promised: what it did is the answer, and the search ends.
func TestSearchSender(t *testing.T) {
	trials := 0
	got, err := search(func(rate float64) (float64, bool, error) {
		trials++
		if rate == 0 {
			return 800_000, false, nil
		}
		return min(rate, 300_000), true, nil
	})
	if err != nil || got != 300_000 || trials != 2 {
		t.Errorf("%v after %d trials, error %v", got, trials, err)
	}
}

func TestSearchFails(t *testing.T) {
	broken := errors.New("broken")
	for fail := range 3 {
		trials := 0
		_, err := search(func(rate float64) (float64, bool, error) {
			if trials++; trials > fail {
				return 0, false, broken
			}
			return 100, false, nil
		})
		if !errors.Is(err, broken) {
			t.Errorf("after %d trials: %v", fail, err)
		}
	}
}
