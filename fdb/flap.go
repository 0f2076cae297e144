package fdb

import (
	"slices"
	"sync/atomic"
)

// maxRuns is how many MACs that move are counted at a time: all of a table of
// the default size, in about half a megabyte. Those beyond it take their turn: a
// MAC that is held is not counted any more, so a loop in which more go round is
// held batch by batch, though the home of those that waited is lost.
const maxRuns = 8192

// strayed is within how many seconds a MAC that moved once, and comes back, was not at
// home where it was: without it one forged frame makes the forger's port the home of a
// MAC that is silent for a moment.
const strayed = 20

// Flap tells of a MAC that is, or was, held on a port because it flapped.
type Flap struct {
	Key         Key
	Held, Other Port   // where it is held, and another port it flapped with
	Count       uint64 // holds begun since the MAC is in the list
	Until       uint32 // second when the hold ends, or ended, on the clock that Learn is given
}

// run is one MAC's unbroken row of moves, none more than a second of the clock
// after the one before.
type run struct {
	home   Port   // where the MAC was before the row's first move
	at     Port   // where the last move took it
	second uint32 // in which moves are counted now
	moves  int    // in that second
	again  bool   // it has more than one move
}

// countMoveLocked counts a move of k, which is about to be made. If it is one
// too many for this second it says so, and where k was before it all began.
func (f *FDB) countMoveLocked(k Key, from, to Port, now uint32) (home Port, flapping bool) {
	if f.flapLimit == 0 {
		return 0, false
	}
	r, ok := f.runs[k]
	if !ok && len(f.runs) >= maxRuns && !f.dropOldRunsLocked(now) {
		return 0, false
	}
	// Learned anew elsewhere meanwhile, or at rest for a while: a new row. A
	// clock that is a little behind counts into the second that has begun.
	//
	// A loop that another bridge cuts in time leaves a MAC astray, after too few
	// moves to be held. The station's next frame brings it back, and the loop's
	// copies follow. So it is where somebody sent one frame with another's MAC. A
	// MAC that moved once, and stayed away, is one that moved house.
	gap := int32(now - r.second)
	rests := ok && gap > 1
	switch {
	case rests && r.at == from && r.home == to && (r.again || gap < strayed):
		r = run{home: to, second: now}
	case !ok || r.at != from || rests:
		r = run{home: from, second: now}
	case gap == 1:
		r.second, r.moves, r.again = now, 0, true
	default:
		r.again = true
	}
	r.at = to
	r.moves++
	if r.moves > f.flapLimit {
		delete(f.runs, k)
		return r.home, true
	}
	f.runs[k] = r
	return 0, false
}

// dropOldRunsLocked makes room among the runs, and says whether there is some.
// It looks no more than once for each second, so that a storm does not pay for
// it at every frame.
func (f *FDB) dropOldRunsLocked(now uint32) bool {
	if f.runsLooked && f.runsLookedAt == now {
		return false
	}
	f.runsLooked, f.runsLookedAt = true, now
	for k, r := range f.runs {
		if int32(now-r.second) > 1 {
			delete(f.runs, k)
		}
	}
	return len(f.runs) < maxRuns
}

// holdLocked puts k on home, unless it is there, and holds it there. other is
// where it was last seen besides.
func (f *FDB) holdLocked(word *atomic.Uint64, old value, k Key, home, other Port, now uint32) {
	f.clock.Store(now)
	until := now + f.flapHold
	x, ok := f.flaps.Get(k)
	if !ok {
		x = &Flap{Key: k}
		f.flaps.Add(k, x)
	}
	x.Held, x.Other, x.Until = home, other, until
	x.Count++
	f.setLocked(word, old, makeValue(home, until)|flagHeld)
	f.tell(EventFlapping, k, home, other)
}

// endHoldLocked notes that k's entry is not held any more, long before its time
// perhaps: then it ends in the second of the last Sweep.
func (f *FDB) endHoldLocked(k Key) {
	now := f.clock.Load()
	if x, ok := f.flaps.Peek(k); ok && int32(x.Until-now) > 0 {
		x.Until = now
	}
}

// releaseLocked ends the hold of an entry, which is as old then as if it had
// been seen at the last Sweep.
func (f *FDB) releaseLocked(t *table, i, j int, k Key, v value) bool {
	free := v &^ flagHeld
	if now := f.clock.Load(); v.held(now) {
		free = v.at(now)
	}
	if !t.buckets[i].values[j].CompareAndSwap(uint64(v), uint64(free)) {
		return false // refreshed: the hold was over
	}
	f.endHoldLocked(k)
	return true
}

// forgetHomes makes ports, of which set is the set, nobody's home, and says whether
// there are entries on them.
func (f *FDB) forgetHomes(ports []Port, set portSet) (entries bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, r := range f.runs {
		if set.has(r.home) {
			delete(f.runs, k)
		}
	}
	for _, p := range ports {
		n := f.ports.of(p)
		entries = entries || n.learned+n.static > 0
	}
	return entries
}

// Flaps lists the MACs that flapped, the one held last first: those that are
// held, and before them in time those whose Until has passed. The 1024 held
// last are remembered; a hold does not end by being forgotten here.
func (f *FDB) Flaps() []Flap {
	f.mu.Lock()
	defer f.mu.Unlock()
	flaps := make([]Flap, 0, f.flaps.Len())
	for _, x := range f.flaps.Values() {
		flaps = append(flaps, *x)
	}
	slices.Reverse(flaps)
	return flaps
}
