package perf

// The highest rate without loss, after RFC 2544 section 26.1: offer a rate for a
// while; if a single frame is lost, offer less, else more; halve the interval each
// time. Its trials last 60 seconds, ours one: on a machine that others share,
// longer ones would measure the neighbours.
const (
	searchPrecision = 0.02 // of the upper end
	searchTrials    = 12   // at most
)

// search returns the highest rate at which trial lost nothing, 0 where it always
// did. It begins with what the sender can do at its best, which trial takes as
// rate 0. trial returns the rate that was really offered.
func search(trial func(rate float64) (offered float64, clean bool, err error)) (float64, error) {
	high, clean, err := trial(0)
	if err != nil || clean {
		return high, err
	}
	low := 0.0
	for range searchTrials {
		if high-low <= searchPrecision*high {
			break
		}
		middle := (low + high) / 2
		offered, clean, err := trial(middle)
		if err != nil {
			return 0, err
		}
		switch {
		case !clean:
			high = middle
		case offered < middle*(1-searchPrecision):
			// The sender can do no more beside the switch, and nothing was lost.
			return max(low, offered), nil
		default:
			low = max(low, offered)
		}
	}
	return low, nil
}
