package perf

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
)

func TestSummarize(t *testing.T) {
	for _, test := range []struct {
		name   string
		values []float64
		want   Stat
	}{
		{"none", nil, Stat{}},
		{"one", []float64{3}, Stat{3, 3, 3, 1}},
		{"two", []float64{4, 2}, Stat{3, 2, 4, 2}},
		{"odd", []float64{9, 1, 5}, Stat{5, 1, 9, 3}},
		{"even", []float64{9, 1, 5, 6}, Stat{5.5, 1, 9, 4}},
		{"one far away moves the extreme alone", []float64{1, 2, 3, 4, 1000}, Stat{3, 1, 1000, 5}},
		{"zeros are values", []float64{0, 0, 0}, Stat{0, 0, 0, 3}},
	} {
		t.Run(test.name, func(t *testing.T) {
			before := slices.Clone(test.values)
			if got := summarize(test.values); got != test.want {
				t.Errorf("%v, want %v", got, test.want)
			}
			if !slices.Equal(before, test.values) {
				t.Error("the values were moved")
			}
		})
	}
}

// TestSummarizeHalves holds the median to what defines it: as many values below as
// above.
func TestSummarizeHalves(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		values := make([]float64, 1+random.IntN(12))
		for i := range values {
			values[i] = float64(random.IntN(20))
		}
		s := summarize(values)
		below, above := 0, 0
		for _, v := range values {
			if v < s.Median {
				below++
			}
			if v > s.Median {
				above++
			}
			if v < s.Low || v > s.High {
				t.Fatalf("%v: %v is outside %v", values, v, s)
			}
		}
		if below > len(values)/2 || above > len(values)/2 {
			t.Fatalf("%v: median %v has %d below and %d above", values, s.Median, below, above)
		}
	}
}

func TestRatio(t *testing.T) {
	for _, test := range []struct {
		ours, theirs Stat
		want         float64
		ok           bool
	}{
		{Stat{6, 1, 9, 3}, Stat{3, 3, 3, 1}, 2, true},
		{Stat{0, 0, 0, 1}, Stat{3, 3, 3, 1}, 0, true},
		{Stat{6, 1, 9, 3}, Stat{0, 0, 0, 1}, 0, false},
		{Stat{}, Stat{3, 3, 3, 1}, 0, false},
		{Stat{6, 1, 9, 3}, Stat{}, 0, false},
		{Stat{math.NaN(), 1, 9, 3}, Stat{3, 3, 3, 1}, 0, false},
	} {
		if got, ok := ratio(test.ours, test.theirs); ok != test.ok || ok && got != test.want {
			t.Errorf("%v to %v: %v %v, want %v %v", test.ours, test.theirs, got, ok, test.want, test.ok)
		}
	}
}

func TestNumber(t *testing.T) {
	for _, test := range []struct {
		v    float64
		want string
	}{
		{0, "0"}, {1, "1"}, {0.5, "0.500"}, {0.0341, "0.0341"}, {0.000012345, "0.0000123"},
		{13.34, "13.3"}, {9.996, "10.0"}, {99.96, "100"}, {99.94, "99.9"}, {999.6, "1000"},
		{450, "450"}, {1234, "1234"}, {9999, "9999"}, {9999.6, "10.0k"}, {1234.4, "1234"}, {12345, "12.3k"}, {612345, "612k"}, {999600, "1.00M"},
		{1234567, "1.23M"}, {14.88e6, "14.9M"}, {3e9, "3.00G"}, {-2.5, "-2.50"}, {7, "7"}, {10000, "10.0k"},
	} {
		if got := number(test.v); got != test.want {
			t.Errorf("%v: %q, want %q", test.v, got, test.want)
		}
	}
}

func TestSpread(t *testing.T) {
	for _, test := range []struct {
		stat Stat
		want string
	}{
		{Stat{}, "–"},
		{Stat{7, 7, 7, 3}, "7"},
		{Stat{612345, 580000, 641000, 7}, "612k (580k–641k)"},
	} {
		if got := test.stat.spread(); got != test.want {
			t.Errorf("%v: %q, want %q", test.stat, got, test.want)
		}
	}
}
