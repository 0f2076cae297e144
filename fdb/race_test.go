package fdb

import (
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

// A MAC's number is its port, or, after a move, its port plus moveBy. Whatever
// the writers do, a reader may see no other answer: it would be another MAC's.
const moveBy = 1 << 20

func numbered(n int) Key {
	return MakeKey(uint16(n%7), &[6]byte{2, byte(n >> 32), byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
}

// TestConcurrent lets readers and writers at one table, small enough that slots
// change hands all the time, and that grows and shrinks. Static entries, which
// nothing removes, must be found at any moment.
func TestConcurrent(t *testing.T) {
	const (
		keys    = 400
		statics = 20 // numbers keys to keys+statics
		rounds  = 15_000
	)
	f, err := New(Limits{Size: 60, Aging: 2, FlapLimit: 1, FlapHold: 1}, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	for n := keys; n < keys+statics; n++ {
		if err := f.AddStatic(numbered(n), Port(n)); err != nil {
			t.Fatal(err)
		}
	}
	var writers, readers sync.WaitGroup
	var done atomic.Bool
	var clock atomic.Uint32
	var hits, refused atomic.Uint64
	for range 3 {
		readers.Go(func() { // ends when the writers have
			for !done.Load() {
				n := rand.IntN(keys + statics)
				p, ok := f.Lookup(numbered(n))
				if ok && p%moveBy != Port(n) {
					t.Errorf("Lookup(MAC %d) = port %d", n, p)
					return
				}
				if !ok && n >= keys {
					t.Errorf("static MAC %d not found", n)
					return
				}
				if ok {
					hits.Add(1)
				}
			}
		})
	}
	readers.Go(func() { // ends when the writers have
		for !done.Load() {
			static := 0
			for e := range f.Entries {
				if e.Port%moveBy != Port(e.Key&0xffffffff) {
					t.Errorf("Entries gave %+v", e)
					return
				}
				if e.Static {
					static++
				}
			}
			if static != statics {
				t.Errorf("Entries gave %d static entries, want %d", static, statics)
				return
			}
			f.Stats()
			f.Moves()
			f.Flaps()
		}
	})
	for range 3 {
		writers.Go(func() { // ends after its rounds
			for i := range rounds {
				n := rand.IntN(keys)
				k, p := numbered(n), Port(n)
				if i%8 == 0 {
					p += moveBy
				}
				now := clock.Load()
				f.Learn(k, p, now)
				if i%16 == 8 { // it flaps
					for j := range 3 {
						if f.Learn(k, Port(n)+Port(j%2)*moveBy, now) == Held {
							refused.Add(1)
						}
					}
				}
				switch i % 1024 {
				case 100:
					clock.Add(1)
				case 200:
					f.FlushPort(p)
				case 300:
					f.FlushVLAN(k.VLAN())
				case 400:
					f.Flush(func(e Entry) bool { return e.Key&3 == 0 })
				case 500:
					l := Limits{Size: statics + rand.IntN(keys), Aging: 2, FlapLimit: rand.IntN(3), FlapHold: 1}
					if err := f.SetLimits(l); err != nil {
						t.Error(err)
					}
				}
				switch i % 32 {
				case 5:
					f.Sweep(clock.Load(), 100)
				case 6:
					f.Delete(k)
				}
			}
		})
	}
	writers.Wait()
	done.Store(true)
	readers.Wait()
	if hits.Load() == 0 || refused.Load() == 0 {
		t.Errorf("readers found %d, and %d flapping frames were refused", hits.Load(), refused.Load())
	}
	checkTable(t, f)
	s := f.Stats()
	if s.Entries > s.Size || s.Static != statics {
		t.Errorf("after all: %+v", s)
	}
	t.Logf("%d hits; learned %d, moved %d, expired %d, evicted %d, flushed %d",
		hits.Load(), s.Learned, s.Moved, s.Expired, s.Evicted, s.Flushed)
}

// TestSlotChangesHands lets one slot's worth of table pass from MAC to MAC as
// fast as it can, which is where a reader could take one's port for another's.
func TestSlotChangesHands(t *testing.T) {
	f, err := New(Limits{Size: 1}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Keys of one bucket, so that the same slot is used again each time.
	home := f.table.Load().home
	var same []int
	for n := 1; len(same) < 4; n++ {
		if home(numbered(n)) == home(numbered(1)) {
			same = append(same, n)
		}
	}
	var readers sync.WaitGroup
	var done atomic.Bool
	for range 2 {
		readers.Go(func() { // ends when the writer below has
			for i := 0; !done.Load(); i++ {
				n := same[i%len(same)]
				if p, ok := f.Lookup(numbered(n)); ok && p != Port(n) {
					t.Errorf("Lookup(MAC %d) = port %d", n, p)
					return
				}
			}
		})
	}
	for i := range 50_000 {
		n := same[i%len(same)]
		if got := f.Learn(numbered(n), Port(n), uint32(i)); got != Learned {
			t.Errorf("Learn = %v", got)
			break
		}
	}
	done.Store(true)
	readers.Wait()
}

// TestRefreshedIsNotAged has workers refresh while another ages: an entry that
// Learn called known in this second is never gone at the end of it.
func TestRefreshedIsNotAged(t *testing.T) {
	const keys = 64
	aged := 0
	f, err := New(Limits{Size: 1000, Aging: 1}, func(e Event) {
		if e.Kind == EventAged {
			aged++
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for now := uint32(1); now < 1000; now++ {
		var wg sync.WaitGroup
		wg.Go(func() { f.Sweep(now, 0) })
		wg.Go(func() {
			for n := 1; n <= keys; n++ {
				f.Learn(numbered(n), Port(n), now)
			}
		})
		wg.Wait()
		for n := 1; n <= keys; n++ {
			if _, ok := f.Lookup(numbered(n)); !ok {
				t.Fatalf("MAC %d was learned in second %d and is gone", n, now)
			}
		}
	}
	t.Logf("%d aged and learned again", aged)
}

// TestHeldAtHome lets workers race over one MAC in a loop, while its station
// sends as well. Once the MAC is held it is held at home, whatever they do, and
// each second has no more moves than the limit allows.
func TestHeldAtHome(t *testing.T) {
	const limit = 5
	var flapping []Event
	f, err := New(Limits{Size: 10, Aging: 300, FlapLimit: limit, FlapHold: 1000}, func(e Event) {
		if e.Kind == EventFlapping {
			flapping = append(flapping, e)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	for n := 1; n <= 300; n++ {
		k := numbered(n)
		f.Learn(k, station, 1)
		var workers sync.WaitGroup
		var moved atomic.Int32
		for _, p := range []Port{station, loop1, loop2} {
			workers.Go(func() { // ends after its frames
				for range 500 {
					if f.Learn(k, p, 1) == Moved {
						moved.Add(1)
					}
				}
			})
		}
		workers.Wait()
		p, ok := f.Lookup(k)
		if n := moved.Load(); n > limit+1 || f.Learn(k, loop1, 2) == Held && (!ok || p != station) {
			t.Fatalf("after %d moves %v is at port %d, %v", n, k, p, ok)
		}
	}
	for _, e := range flapping {
		if e.Port != station || e.From != loop1 && e.From != loop2 {
			t.Fatalf("told %+v", e)
		}
	}
	t.Logf("%d of 300 were held", len(flapping))
}
