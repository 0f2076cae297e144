package fdb

import (
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"time"
)

// shuffled gives keys of MACs 1 to n in random order, a power of two of them.
func shuffled(n int) []Key {
	keys := make([]Key, 1<<16)
	for i := range keys {
		keys[i] = numbered(1 + rand.IntN(n))
	}
	return keys
}

func BenchmarkLookup(b *testing.B) {
	for _, n := range []int{1, 100, 10_000, 100_000, MaxSize} {
		f := mustNew(b, max(n, DefaultSize), 0)
		fill(b, f, n)
		b.Run(fmt.Sprintf("hit/%d", n), func(b *testing.B) {
			keys := shuffled(n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, ok := f.Lookup(keys[i&(len(keys)-1)]); !ok {
					b.Fatal("miss")
				}
				i++
			}
		})
		b.Run(fmt.Sprintf("miss/%d", n), func(b *testing.B) {
			keys := shuffled(n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if _, ok := f.Lookup(keys[i&(len(keys)-1)] | 1<<39); ok {
					b.Fatal("hit")
				}
				i++
			}
		})
	}
}

func BenchmarkLearnKnown(b *testing.B) {
	for _, n := range []int{100, 10_000, MaxSize} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f := mustNew(b, max(n, DefaultSize), 0)
			fill(b, f, n)
			keys := shuffled(n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				k := keys[i&(len(keys)-1)]
				if f.Learn(k, Port(1+k&0xffffffff%64), 1) != Known {
					b.Fatal("not known")
				}
				i++
			}
		})
	}
}

// BenchmarkLearnHeld is what a storm of looped frames costs: each comes from
// another port than where its MAC is held, on all processors.
func BenchmarkLearnHeld(b *testing.B) {
	for _, n := range []int{1, 100, 8000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			f, err := New(Limits{Size: DefaultSize, FlapLimit: 1, FlapHold: 10}, nil)
			if err != nil {
				b.Fatal(err)
			}
			fill(b, f, n)
			for i := 1; i <= n; i++ {
				f.Learn(numbered(i), 100, 1)
				f.Learn(numbered(i), 101, 1)
			}
			keys := shuffled(n)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := rand.Int(); pb.Next(); i++ {
					if f.Learn(keys[i&(len(keys)-1)], 100, 2) != Held {
						b.Error("not held")
						return
					}
				}
			})
		})
	}
}

// BenchmarkLearnMoved moves MACs to and fro, without and with counting how
// often: no more than the limit in a second.
func BenchmarkLearnMoved(b *testing.B) {
	for _, limit := range []int{0, 10} {
		b.Run(fmt.Sprintf("limit%d", limit), func(b *testing.B) {
			const n = 500
			f, err := New(Limits{Size: DefaultSize, FlapLimit: limit, FlapHold: limit}, nil)
			if err != nil {
				b.Fatal(err)
			}
			fill(b, f, n)
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				if f.Learn(numbered(1+i%n), Port(100+i/n%2), uint32(1+i/n/8)) != Moved {
					b.Fatal("not moved")
				}
				i++
			}
		})
	}
}

// BenchmarkLearnFlood learns a new MAC each time, in a full table. "one" floods
// from a port that has nothing at first; "even" fills the table from as many
// ports as there are, which makes the fullest port hard to find.
func BenchmarkLearnFlood(b *testing.B) {
	for _, size := range []int{DefaultSize, MaxSize} {
		for _, c := range []struct {
			name  string
			ports int
		}{{"one", 64}, {"even1000", 1000}, {"even65536", 65536}} {
			b.Run(fmt.Sprintf("%s/%d", c.name, size), func(b *testing.B) {
				f := mustNew(b, size, 0)
				for i := 1; i <= size; i++ {
					f.Learn(numbered(i), Port(i%c.ports), 1)
				}
				b.ReportAllocs()
				i := 0
				for b.Loop() {
					i++
					if f.Learn(numbered(1<<24+i), 70, 2) != Learned {
						b.Fatal("not learned")
					}
				}
			})
		}
	}
}

// BenchmarkLookupBesideWriter looks up on all processors but for one that
// learns without pause: refreshes what is known, or floods a full table.
func BenchmarkLookupBesideWriter(b *testing.B) {
	for _, flood := range []bool{false, true} {
		name := "refresh"
		if flood {
			name = "flood"
		}
		b.Run(name, func(b *testing.B) {
			const n = 8000
			f := mustNew(b, DefaultSize, 0)
			fill(b, f, n)
			var done atomic.Bool
			ended := make(chan struct{})
			go func() { // the writer; ends by done
				defer close(ended)
				for i := 0; !done.Load(); i++ {
					if flood {
						f.Learn(numbered(1<<24+i), 70, 2)
					} else {
						f.Learn(numbered(1+i%n), Port(1+(1+i%n)%64), uint32(2+i/n))
					}
				}
			}()
			keys := shuffled(n)
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for i := rand.Int(); pb.Next(); i++ {
					f.Lookup(keys[i&(len(keys)-1)])
				}
			})
			done.Store(true)
			<-ended
		})
	}
}

// BenchmarkSweep passes over a full table in which nothing is old.
func BenchmarkSweep(b *testing.B) {
	for _, size := range []int{DefaultSize, MaxSize} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			f := mustNew(b, size, 300)
			fill(b, f, size)
			b.ReportAllocs()
			for b.Loop() {
				f.Sweep(1, 0)
			}
		})
	}
}

// BenchmarkFill grows a table from nothing to a million, and reports the
// longest that one Learn took: that of the last growths.
func BenchmarkFill(b *testing.B) {
	var longest time.Duration
	for b.Loop() {
		f := mustNew(b, MaxSize, 0)
		for i := 1; i <= MaxSize; i++ {
			if f.entries == room(len(f.table.Load().buckets)) {
				start := time.Now()
				f.Learn(numbered(i), 1, 1)
				longest = max(longest, time.Since(start))
			} else {
				f.Learn(numbered(i), 1, 1)
			}
		}
	}
	b.ReportMetric(float64(longest.Milliseconds()), "ms-longest")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/MaxSize, "ns/Learn")
}

// BenchmarkGrow is the last growth on the way to a full table.
func BenchmarkGrow(b *testing.B) {
	for _, size := range []int{DefaultSize, MaxSize} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			f := mustNew(b, size, 0)
			fill(b, f, size)
			n := len(f.table.Load().buckets)
			for b.Loop() {
				f.rebuildLocked(n)
			}
		})
	}
}
