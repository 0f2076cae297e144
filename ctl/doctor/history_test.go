package doctor

import (
	"testing"
	"time"
)

// TestLossHistory: what was lost of late is told from what was lost long ago, and a
// table that was made larger is not said to be full for what it lost before.
func TestLossHistory(t *testing.T) {
	var h lossHistory
	begun := time.Now()
	look := func(minute int, missed uint64, size int, evicted uint64) {
		h.add(lossLook{
			at:     begun.Add(time.Duration(minute) * time.Minute),
			missed: map[string]uint64{"vxlan": missed}, tables: map[string]Table{"br0": {size, evicted}},
		})
	}
	expect := func(when string, missed, lately uint64, size int, evicted, gone uint64) {
		t.Helper()
		if n := h.missedLately("vxlan", missed); n != lately {
			t.Errorf("%s: %d of %d packets were lost of late, want %d", when, n, missed, lately)
		}
		if n := h.evictedLately("br0", size, evicted); n != gone {
			t.Errorf("%s: %d of %d entries gave way of late, want %d", when, n, evicted, gone)
		}
	}
	expect("before the first look", 3, 3, 64, 0, 0)
	look(0, 0, 64, 0)
	expect("at once", 7, 7, 64, 5, 5)
	for m := 1; m <= 9; m++ {
		look(m, 7, 64, 5)
	}
	expect("9 minutes later", 7, 7, 64, 5, 5)
	expect("when it was made larger", 7, 7, 256, 5, 0)
	look(10, 7, 64, 5)
	expect("10 minutes later", 7, 7, 64, 5, 5)
	look(11, 7, 64, 5)
	expect("11 minutes later", 7, 0, 64, 5, 0)
	expect("and more", 9, 2, 64, 6, 1)
	expect("counted anew", 2, 2, 64, 1, 1)
	for m := 12; m < 60; m++ {
		look(m, 7, 256, 5)
	}
	expect("an hour later", 7, 0, 256, 8, 3)
	if len(h.looks) > 12 {
		t.Errorf("%d looks are kept", len(h.looks))
	}
	for range 1000 {
		look(60, 7, 256, 5)
	}
	if len(h.looks) > 13 {
		t.Errorf("%d looks are kept of those that come at once", len(h.looks))
	}
	if n := h.missedLately("another", 4); n != 4 {
		t.Errorf("a young endpoint lost %d of late, want all 4", n)
	}
	if n := h.evictedLately("another", 64, 4); n != 4 {
		t.Errorf("of a young bridge's table %d gave way, want all 4", n)
	}
}
