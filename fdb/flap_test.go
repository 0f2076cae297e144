package fdb

import (
	"fmt"
	"testing"
)

const station, loop1, loop2 = Port(1), Port(8), Port(9)

func newFlapping(t testing.TB, limit, hold int) (f *FDB, flapping *[]Event) {
	t.Helper()
	flapping = new([]Event)
	f, err := New(Limits{Size: 2 * maxRuns, Aging: 3, FlapLimit: limit, FlapHold: hold}, func(e Event) {
		if e.Kind == EventFlapping {
			*flapping = append(*flapping, e)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return f, flapping
}

func (f *FDB) expect(t testing.TB, want Outcome, k Key, p Port, now uint32) {
	t.Helper()
	if got := f.Learn(k, p, now); got != want {
		t.Fatalf("Learn(%v, %d, %d) = %v, want %v", k, p, now, got, want)
	}
}

// TestFlapping goes once through all that happens to a station behind a loop.
func TestFlapping(t *testing.T) {
	for _, start := range []uint32{0, 1000, 1<<31 - 5, ^uint32(5)} {
		t.Run(fmt.Sprint(start), func(t *testing.T) {
			f, flapping := newFlapping(t, 4, 10)
			k, now := numbered(1), start
			f.expect(t, Learned, k, station, now)
			for round := range 3 {
				for i, p := range []Port{loop1, loop2, loop1, loop2} {
					f.expect(t, Moved, k, p, now)
					if len(*flapping) != round {
						t.Fatalf("told of flapping after %d moves", i+1)
					}
				}
				f.expect(t, Held, k, loop1, now)
				if len(*flapping) != round+1 || (*flapping)[round] != (Event{EventFlapping, k, station, loop1}) {
					t.Fatalf("told %+v", *flapping)
				}
				want := Flap{Key: k, Held: station, Other: loop1, Count: uint64(round + 1), Until: now + 10}
				if got := f.Flaps(); len(got) != 1 || got[0] != want {
					t.Fatalf("Flaps = %+v, want %+v", got, want)
				}
				for range 9 { // longer than the aging time
					now++
					f.expect(t, Held, k, loop2, now)
					f.expect(t, Held, k, loop1, now)
					if n := f.Sweep(now, 0); n != 0 {
						t.Fatal("a held entry aged")
					}
					if p, ok := f.Lookup(k); !ok || p != station {
						t.Fatalf("held at port %d, %v", p, ok)
					}
				}
				f.expect(t, Known, k, station, now)
				now++ // the hold is over
			}
			for range 2 {
				f.Sweep(now, 0)
				now++
			}
			if f.Sweep(now, 0) != 0 || f.Sweep(now+1, 0) != 1 {
				t.Error("after the hold the entry did not age as any other")
			}
			if len(*flapping) != 3 {
				t.Errorf("told %d times of 3 holds", len(*flapping))
			}
		})
	}
}

// TestBackHome: the move that is one too many may be the one that leads home.
func TestBackHome(t *testing.T) {
	f, flapping := newFlapping(t, 3, 5)
	k := numbered(1)
	f.expect(t, Learned, k, station, 7)
	for _, p := range []Port{loop1, station, loop1, station} {
		f.expect(t, Moved, k, p, 7)
	}
	f.expect(t, Held, k, loop1, 8)
	if len(*flapping) != 1 || (*flapping)[0] != (Event{EventFlapping, k, station, loop1}) {
		t.Errorf("told %+v", *flapping)
	}
	if s := f.Stats(); s.Moved != 4 || f.Moves()[0].Count != 4 {
		t.Errorf("%d moves, %+v", s.Moved, f.Moves())
	}
}

// TestHome tells where a MAC is put back to, of many ways to come there.
func TestHome(t *testing.T) {
	type hop struct {
		p   Port
		now uint32
	}
	for _, c := range []struct {
		name string
		hops []hop // the last exceeds three moves in its second
		home Port
	}{
		{"in one second", []hop{{1, 5}, {8, 9}, {9, 9}, {8, 9}, {9, 9}}, 1},
		{"over a tick", []hop{{1, 5}, {8, 9}, {9, 9}, {8, 10}, {9, 10}, {8, 10}, {9, 10}}, 1},
		{"slow at first", []hop{{1, 5}, {8, 9}, {9, 10}, {8, 11}, {9, 12}, {8, 12}, {9, 12}, {8, 12}}, 1},
		{"moved house before", []hop{{1, 5}, {2, 7}, {8, 9}, {9, 9}, {8, 9}, {9, 9}}, 2},
		{"strayed, and came home later", []hop{{1, 5}, {8, 5}, {9, 5}, {8, 5}, {1, 60}, {8, 60}, {9, 60}, {8, 60}}, 1},
		{"strayed twice", []hop{{1, 5}, {8, 5}, {9, 6}, {1, 60}, {8, 60}, {1, 90}, {8, 90}, {9, 90}, {8, 90}}, 1},
		{"strayed, and moved house", []hop{{1, 5}, {8, 5}, {9, 5}, {2, 60}, {8, 90}, {9, 90}, {8, 90}, {9, 90}}, 2},
		{"moved house, and a loop comes from there", []hop{{1, 5}, {2, 60}, {1, 90}, {8, 90}, {1, 90}, {8, 90}}, 2},
		{"a worker's clock behind", []hop{{1, 5}, {8, 9}, {9, 8}, {8, 9}, {9, 8}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, flapping := newFlapping(t, 3, 5)
			for i, h := range c.hops {
				if got := f.Learn(numbered(1), h.p, h.now); (got == Held) != (i == len(c.hops)-1) {
					t.Fatalf("hop %d: %v", i, got)
				}
			}
			if p, ok := f.Lookup(numbered(1)); !ok || p != c.home || len(*flapping) != 1 {
				t.Errorf("at port %d, want %d; told %+v", p, c.home, *flapping)
			}
		})
	}
}

// TestHomeIsGone drops or flushes the station's port while its MAC goes round.
func TestHomeIsGone(t *testing.T) {
	for name, gone := range map[string]func(*FDB, Port) int{"DropPorts": func(f *FDB, p Port) int { return f.DropPorts(p) }, "FlushPort": (*FDB).FlushPort} {
		f, _ := newFlapping(t, 3, 5)
		k := numbered(1)
		f.expect(t, Learned, k, station, 7)
		f.expect(t, Moved, k, loop1, 7)
		if n := gone(f, station); n != 0 {
			t.Errorf("%s took out %d entries", name, n)
		}
		for _, p := range []Port{loop2, loop1, loop2} {
			f.expect(t, Moved, k, p, 7)
		}
		f.expect(t, Moved, k, loop1, 7) // back to where the row begins now
		if p, _ := f.Lookup(k); p != loop1 {
			t.Errorf("%s: put back to port %d", name, p)
		}
	}
}

// TestRowEnds: moves do not count together over an entry made anew, nor over a
// time without a limit.
func TestRowEnds(t *testing.T) {
	k := numbered(1)
	for _, c := range []struct {
		name string
		end  func(f *FDB)
		then Outcome // of Learn from the second loop port
	}{
		{"learned anew", func(f *FDB) { f.Delete(k) }, Learned},
		{"off and on", func(f *FDB) {
			for _, limit := range []int{0, 2} {
				if err := f.SetLimits(Limits{Size: 10, FlapLimit: limit, FlapHold: 5}); err != nil {
					t.Error(err)
				}
			}
		}, Moved},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _ := newFlapping(t, 2, 5)
			f.expect(t, Learned, k, station, 7)
			f.expect(t, Moved, k, loop1, 7)
			f.expect(t, Moved, k, station, 7)
			c.end(f)
			f.expect(t, c.then, k, loop2, 7)
			f.expect(t, Moved, k, loop1, 7)
		})
	}
}

// TestHoldEnds lets everything end a hold that may.
func TestHoldEnds(t *testing.T) {
	off := func(f *FDB) {
		if err := f.SetLimits(Limits{Size: 100, Aging: 3}); err != nil {
			t.Error(err)
		}
	}
	k := numbered(1)
	for _, c := range []struct {
		name string
		end  func(f *FDB)
		then Outcome // of Learn from the loop
	}{
		{"Delete", func(f *FDB) { f.Delete(k) }, Learned},
		{"FlushPort", func(f *FDB) { f.FlushPort(station) }, Learned},
		{"FlushVLAN", func(f *FDB) { f.FlushVLAN(k.VLAN()) }, Learned},
		{"Flush", func(f *FDB) { f.Flush(func(Entry) bool { return true }) }, Learned},
		{"DropPorts", func(f *FDB) { f.DropPorts(station) }, Learned},
		{"AddStatic", func(f *FDB) { f.AddStatic(k, 3) }, Static},
		{"limit off", off, Moved},
		{"other port flushed", func(f *FDB) { f.FlushPort(loop1) }, Held},
		{"limit changed", func(f *FDB) { f.SetLimits(Limits{Size: 9, FlapLimit: 1, FlapHold: 1}) }, Held},
	} {
		t.Run(c.name, func(t *testing.T) {
			f, _ := newFlapping(t, 1, 50)
			f.expect(t, Learned, k, station, 100)
			f.expect(t, Moved, k, loop1, 100)
			f.expect(t, Held, k, loop2, 100)
			f.Sweep(104, 0)
			c.end(f)
			until := uint32(104)
			if c.then == Held {
				until = 150
			}
			if got := f.Flaps(); len(got) != 1 || got[0].Until != until {
				t.Errorf("Flaps = %+v, want one until %d", got, until)
			}
			f.expect(t, c.then, k, loop2, 105)
			if s := f.Stats(); len(s.Ports) != 1 {
				t.Errorf("ports %+v", s.Ports)
			}
		})
	}
	// Released, it is no older or younger than any that was seen just now.
	f, _ := newFlapping(t, 1, 3600)
	f.expect(t, Learned, k, station, 100)
	f.expect(t, Moved, k, loop1, 100)
	f.expect(t, Held, k, loop2, 100)
	f.Sweep(104, 0)
	off(f)
	if f.Sweep(106, 0) != 0 || f.Sweep(107, 0) != 1 {
		t.Error("a released entry did not age from the last sweep on")
	}
}

// TestStormOfMany: a loop in which more MACs go round than are counted at a
// time, or listed, is held to the last one, within a few rounds.
func TestStormOfMany(t *testing.T) {
	const macs, limit = maxRuns + 1500, 10
	f, flapping := newFlapping(t, limit, 10)
	for n := 1; n <= macs; n++ {
		f.Learn(numbered(n), station, 7)
	}
	rounds := 0
	for held := 0; held < macs; rounds++ {
		held = 0
		for n := 1; n <= macs; n++ {
			if f.Learn(numbered(n), loop1+Port(rounds%2), 7) == Held {
				held++
			}
			if len(f.runs) > maxRuns {
				t.Fatalf("%d MACs are counted", len(f.runs))
			}
		}
		if rounds > 10*limit {
			t.Fatalf("after %d rounds only %d MACs of %d are held", rounds, held, macs)
		}
	}
	t.Logf("%d rounds", rounds)
	if len(*flapping) != macs || len(f.Flaps()) != maxMoves {
		t.Errorf("told of %d, list of %d", len(*flapping), len(f.Flaps()))
	}
	// Those beyond maxRuns that waited for their turn are held somewhere.
	home := 0
	for _, e := range *flapping {
		if e.Port == station {
			home++
		}
	}
	if home < maxRuns {
		t.Errorf("%d MACs are held at their own port, want %d", home, maxRuns)
	}
	// Long after, the rows of moves that came to nothing give their places.
	for n := 1; n <= maxRuns; n++ {
		f.Learn(numbered(n), loop1, 100)
	}
	for n := 1; n <= maxRuns; n++ {
		f.Learn(numbered(n), station, 100)
	}
	if f.dropOldRunsLocked(101) || !f.dropOldRunsLocked(102) || len(f.runs) != 0 {
		t.Errorf("%d old rows are left", len(f.runs))
	}
}

// TestForgedHome: one frame with the MAC of a station that is silent for a while does
// not make the forger's port its home, so that a flood later would hold it there.
func TestForgedHome(t *testing.T) {
	l := DefaultLimits()
	f, err := New(l, nil)
	if err != nil {
		t.Fatal(err)
	}
	k := MakeKey(0, &[6]byte{2, 0, 0, 0, 0, 1})
	const station, forger = 1, 2
	f.Learn(k, station, 1)
	f.Learn(k, forger, 100)
	var now uint32 = 102
	refused := 0
	for round := range 5 {
		for range 20 {
			if f.Learn(k, station, now) == Held {
				refused++
			}
			f.Learn(k, forger, now)
		}
		if p, ok := f.Lookup(k); !ok || p != station {
			t.Errorf("round %d: it is at %d", round, p)
		}
		now += uint32(l.FlapHold)
	}
	if refused != 0 {
		t.Errorf("%d frames of the station itself were refused", refused)
	}
}
