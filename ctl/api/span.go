package api

import (
	"fmt"
	"time"
)

// Span is a span of time as a sentence says it: "a moment", "12s", "5m", "3h07m", "4d".
func Span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Second:
		return "a moment"
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%02dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours())/24)
}
