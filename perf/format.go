package perf

import (
	"fmt"
	"math"
	"strconv"
)

// number writes a value with three digits that count, whole ones and those of four
// digits as they are: 13.3, 0.0341, 7, 1234, 612k, 1.23M.
func number(v float64) string {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	if size := math.Abs(v); size < 9999.5 && (v == math.Trunc(v) || size >= 999.5) {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	v, suffix := rounded(v, 3), ""
	for _, scale := range []string{"k", "M", "G"} {
		if math.Abs(v) < 1000 {
			break
		}
		v, suffix = v/1000, scale
	}
	decimals := 2 - int(math.Floor(math.Log10(math.Abs(v))))
	return strconv.FormatFloat(v, 'f', max(decimals, 0), 64) + suffix
}

// spread writes a median with the lowest and the highest; of one value, or where
// all were the same, the value alone.
func (s Stat) spread() string {
	switch {
	case s.N == 0:
		return "–"
	case s.Low == s.High:
		return number(s.Median)
	}
	return fmt.Sprintf("%s (%s–%s)", number(s.Median), number(s.Low), number(s.High))
}

// times writes a ratio.
func times(r float64) string { return number(r) + " ×" }

// head is a metric's column head.
func (m Metric) head() string {
	if m.Unit == "" {
		return m.Title
	}
	return m.Title + ", " + m.Unit
}

// rounded keeps some significant digits.
func rounded(v float64, digits int) float64 {
	r, err := strconv.ParseFloat(strconv.FormatFloat(v, 'g', digits, 64), 64)
	if err != nil {
		return v // there is no such number
	}
	return r
}
