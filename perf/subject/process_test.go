package subject

import (
	"os"
	"testing"
	"time"
)

func TestPSS(t *testing.T) {
	const rollup = `55cf-7ffe ---p 00000000 00:00 0      [rollup]
Rss:                1976 kB
Pss:                 510 kB
Pss_Dirty:           204 kB
`
	for text, want := range map[string]int64{rollup: 510 << 10, "": 0, "Pss: many kB\n": 0} {
		if got := pss([]byte(text)); got != want {
			t.Errorf("%d bytes in %q, want %d", got, text, want)
		}
	}
}

func TestParseStat(t *testing.T) {
	for line, want := range map[string][2]time.Duration{
		//   user nice system idle iowait irq softirq steal guest guest_nice
		"cpu  100 10 50 1000 20 1 2 40 30 5": {1630 * time.Millisecond, 12230 * time.Millisecond},
		"cpu  100 10 50 1000":                {1600 * time.Millisecond, 11600 * time.Millisecond},
		"cpu  a":                             {},
		"":                                   {},
	} {
		if busy, total := parseStat(line); busy != want[0] || total != want[1] {
			t.Errorf("%q: %v busy of %v, want %v", line, busy, total, want)
		}
	}
}

// TestOwnCPU burns some, and sees that both clocks count it, a thread that has ended
// included.
func TestOwnCPU(t *testing.T) {
	own := process{pid: os.Getpid()}
	before, machineBefore := own.cpu(), first(MachineCPU())
	burned := make(chan int)
	go func() { // ends with the loop
		n := 0
		for start := own.cpu(); own.cpu()-start < 50*time.Millisecond; n++ {
		}
		burned <- n
	}()
	<-burned
	if got := own.cpu() - before; got < 50*time.Millisecond || got > time.Minute {
		t.Errorf("used %v", got)
	}
	if got := first(MachineCPU()) - machineBefore; got < 20*time.Millisecond {
		t.Errorf("the machine used %v", got)
	}
	if own.memory() < 1<<20 {
		t.Errorf("this process has %d bytes", own.memory())
	}
	none := process{pid: 1 << 22} // PID_MAX_LIMIT, which is not given out
	if none.cpu() != 0 || none.memory() != 0 {
		t.Error("nobody uses something")
	}
}

func first(a, _ time.Duration) time.Duration { return a }
