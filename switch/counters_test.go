package vswitch

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"unsafe"

	"vswitch/frame"
)

// TestCountersFillCacheLines: a worker's counters share a line with nobody's, and
// take one line until something is dropped.
func TestCountersFillCacheLines(t *testing.T) {
	if n := unsafe.Sizeof(portCounters{}); n != cacheLine {
		t.Errorf("a port's counters take %d bytes a worker, want %d", n, cacheLine)
	}
	if n := unsafe.Sizeof(dropBlock{}); n != 2*cacheLine {
		t.Errorf("a block of drop counters takes %d bytes, want %d", n, 2*cacheLine)
	}
	for workers := 2; workers <= 20; workers++ {
		c := make([]portCounters, workers)
		for i := range workers - 1 {
			// An object of more than 512 bytes may begin 8 bytes into a line.
			last, next := uintptr(unsafe.Pointer(&c[i].drops)), uintptr(unsafe.Pointer(&c[i+1].rxFrames))
			if last/cacheLine == next/cacheLine {
				t.Errorf("of %d workers, %d and %d share a cache line", workers, i, i+1)
			}
		}
	}
}

// TestDropCounters counts random drops beside an array, while somebody reads.
func TestDropCounters(t *testing.T) {
	workers := make([]portCounters, 2)
	var want [2][numReasons]DropCount
	stop := make(chan struct{})
	var reading, writing sync.WaitGroup
	reading.Go(func() { // ends with stop
		var last uint64
		for {
			c := sum(workers)
			if n := c.Dropped(); n < last {
				t.Errorf("%d drops after %d", n, last)
			} else {
				last = n
			}
			select {
			case <-stop:
				return
			default:
			}
		}
	})
	for id := range workers {
		writing.Go(func() { // ends by itself
			r := rand.New(rand.NewPCG(7, uint64(id)))
			for now := range uint32(20_000) {
				// Few reasons at first, all in the end.
				why := DropNone + 1 + Reason(r.IntN(min(int(numReasons)-1, 1+int(now)/100)))
				n := r.Uint64N(5) + 1
				workers[id].dropped(why, n, now)
				want[id][why].add(n, now)
			}
		})
	}
	writing.Wait()
	close(stop)
	reading.Wait()
	got := sum(workers)
	for _, why := range Reasons() {
		w := want[0][why]
		w.add(want[1][why].Count, want[1][why].Last)
		if got.Drops[why] != w {
			t.Errorf("%v: %+v, want %+v", why, got.Drops[why], w)
		}
	}
}

// TestDropAllocates: a reason takes memory when it is first met, and never again.
func TestDropAllocates(t *testing.T) {
	c := make([]portCounters, 1)
	all := func() {
		for _, why := range Reasons() {
			c[0].dropped(why, 1, 1)
		}
	}
	blocks := testing.AllocsPerRun(1, func() { c[0] = portCounters{}; all() })
	if limit := float64(numReasons+4) / 5; blocks > limit {
		t.Errorf("all reasons take %.0f allocations, want at most %.0f", blocks, limit)
	}
	if n := testing.AllocsPerRun(100, all); n != 0 {
		t.Errorf("%.1f allocations for reasons that were met before", n)
	}
}

// TestEachDrop tells the same as the counters, and takes no memory for quiet ports.
func TestEachDrop(t *testing.T) {
	b := newBench(t, Options{})
	p1 := b.port("br0", "p1", PortConfig{})
	for i := range 50 {
		b.port("br0", fmt.Sprint("q", i), PortConfig{})
	}
	p1.missed = 3
	p1.give(packet{data: make([]byte, 5)}, packet{data: make([]byte, 6)}, packet{data: make([]byte, 14), offload: frame.Offload{GSOType: 77}})
	b.run()
	told := map[string]uint64{}
	b.EachDrop(func(bridge, port string, why Reason, n DropCount) { told[bridge+" "+port+" "+why.String()] = n.Count })
	b.EachMissed(func(bridge, port string, n uint64) { told[bridge+" "+port+" missed"] = n })
	if want := "map[br0 p1 malformed:1 br0 p1 missed:3 br0 p1 too-short:2]"; fmt.Sprint(told) != want {
		t.Errorf("told %v, want %s", told, want)
	}
	allocs := testing.AllocsPerRun(10, func() {
		b.EachDrop(func(string, string, Reason, DropCount) {})
		b.EachMissed(func(string, string, uint64) {})
	})
	if allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}
