package doctor

import (
	"sync"
	"time"
)

// Counters that say nothing of when they counted, as a MAC table's of what gave way and
// the kernel's of what a tunnel's socket lost, are looked at each minute: so a doctor
// tells what is lost of late from what was lost at some time since the start.

// historyEach is how often is looked. A doctor looks, too, when he has told what he found:
// then what is mended right after is known to be another table than that.
const historyEach = time.Minute

// lossHistory is what such counters were within the time that counts as recent.
//
// Thread-safety: safe for concurrent use.
type lossHistory struct {
	mu    sync.Mutex
	looks []lossLook // the oldest first; the first is as old as what counts as recent
}

type lossLook struct {
	at     time.Time
	missed map[string]uint64 // by a tunnel's endpoint
	tables map[string]Table  // by bridge
}

// add adds a look, and forgets what is too old to be compared with. Of looks that come
// one right after another, the last stays.
func (h *lossHistory) add(l lossLook) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if n := len(h.looks); n > 1 && h.looks[n-1].at.Sub(h.looks[n-2].at) < historyEach/2 {
		h.looks = h.looks[:n-1]
	}
	h.looks = append(h.looks, l)
	for len(h.looks) > 1 && l.at.Sub(h.looks[1].at) >= recently {
		h.looks = h.looks[1:]
	}
}

// missedLately returns how many of n packets an endpoint lost of late: all, if it is
// younger than the oldest look.
func (h *lossHistory) missedLately(endpoint string, n uint64) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.looks) > 0 {
		return since(h.looks[0].missed[endpoint], n)
	}
	return n
}

// evictedLately returns how many of n entries gave way in a bridge's table of late, and
// since it has its size: what a smaller one lacked is mended.
func (h *lossHistory) evictedLately(bridge string, size int, n uint64) uint64 {
	h.mu.Lock()
	defer h.mu.Unlock()
	base := n
	for i := len(h.looks) - 1; i >= 0; i-- {
		t, ok := h.looks[i].tables[bridge]
		if !ok {
			return n // it is younger than that look
		}
		if t.Size != size {
			break
		}
		base = t.Evicted
	}
	return since(base, n)
}

// since returns how far a counter has come that may have begun anew.
func since(before, now uint64) uint64 {
	if before > now {
		return now
	}
	return now - before
}

// Run looks at the counters until done is closed.
func (d *Doctor) Run(done <-chan struct{}) {
	tick := time.NewTicker(historyEach)
	defer tick.Stop()
	for {
		d.look(time.Now())
		select {
		case <-done:
			return
		case <-tick.C:
		}
	}
}

func (d *Doctor) look(now time.Time) {
	l := lossLook{at: now}
	l.missed, l.tables = d.o.Host.Losses()
	d.history.add(l)
}
