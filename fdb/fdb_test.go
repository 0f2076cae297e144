package fdb

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func mustNew(t testing.TB, size, aging int) *FDB {
	t.Helper()
	f, err := New(Limits{Size: size, Aging: aging}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fill learns MACs 1 to n on ports 1 to 64.
func fill(t testing.TB, f *FDB, n int) {
	t.Helper()
	for i := 1; i <= n; i++ {
		if got := f.Learn(numbered(i), Port(1+i%64), 1); got != Learned {
			t.Fatalf("Learn(MAC %d) = %v", i, got)
		}
	}
}

func TestKey(t *testing.T) {
	mac := [6]byte{0x02, 0x11, 0x22, 0x33, 0x44, 0x55}
	for _, vlan := range []uint16{0, 1, 10, 4095} {
		k := MakeKey(vlan, &mac)
		if k.VLAN() != vlan || k.MAC() != mac || !k.Learnable() {
			t.Errorf("key %#x: VLAN %d, MAC %x", uint64(k), k.VLAN(), k.MAC())
		}
	}
	if MakeKey(0x1001, &mac) != MakeKey(1, &mac) {
		t.Error("priority bits of a TCI count in the key")
	}
	if got, want := MakeKey(10, &mac).String(), "02:11:22:33:44:55 vlan 10"; got != want {
		t.Errorf("String = %q, want %q", got, want)
	}
	for _, mac := range [][6]byte{{}, {1, 0, 0x5e, 0, 0, 1}, {0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, {0x33, 0x33, 0, 0, 0, 1}} {
		f := mustNew(t, 10, 0)
		k := MakeKey(1, &mac)
		if got := f.Learn(k, 1, 1); got != Refused {
			t.Errorf("Learn(%v) = %v", k, got)
		}
		err := f.AddStatic(k, 1)
		if !errors.Is(err, ErrNotUnicast) || !strings.Contains(err.Error(), k.String()) {
			t.Errorf("AddStatic(%v): %v", k, err)
		}
		if _, ok := f.Lookup(k); ok {
			t.Errorf("%v was found", k)
		}
	}
	f := mustNew(t, 10, 0)
	if _, ok := f.Lookup(0); ok {
		t.Error("the zero key was found in an empty table")
	}
}

func TestLimits(t *testing.T) {
	for _, l := range []Limits{
		{Size: 0, Aging: 300}, {Size: MaxSize + 1, Aging: 300}, {Size: 8192, Aging: -1}, {Size: 8192, Aging: MaxAging + 1},
		{Size: 1, FlapLimit: -1, FlapHold: 1}, {Size: 1, FlapLimit: MaxFlapLimit + 1, FlapHold: 1},
		{Size: 1, FlapLimit: 1}, {Size: 1, FlapHold: -1}, {Size: 1, FlapLimit: 1, FlapHold: MaxFlapHold + 1},
	} {
		if _, err := New(l, nil); err == nil {
			t.Errorf("New(%+v) was accepted", l)
		}
	}
	// Made smaller, a table gives back its memory; the statics stay.
	f := mustNew(t, 100_000, 0)
	fill(t, f, 100_000)
	for n := 1; n <= 5; n++ {
		if err := f.AddStatic(numbered(n), 9); err != nil {
			t.Fatal(err)
		}
	}
	if err := f.SetLimits(Limits{Size: 100}); err != nil {
		t.Fatal(err)
	}
	s := f.Stats()
	if s.Entries != 100 || s.Static != 5 || s.Evicted != 99_900 || s.Bytes > 100*40 {
		t.Errorf("after SetLimits: %+v", s)
	}
	checkTable(t, f)
	if err := f.SetLimits(Limits{Size: 4}); !errors.Is(err, ErrFull) {
		t.Errorf("SetLimits below the static entries: %v", err)
	}
}

// TestFloodDrivesOutItself fills a table fairly, and then one port floods it:
// of the others only those above the flooder's share lose anything.
func TestFloodDrivesOutItself(t *testing.T) {
	const size, quiet, flooder = 8192, 20, Port(99)
	f := mustNew(t, size, 0)
	for i := 1; i <= 100*quiet; i++ {
		f.Learn(numbered(i), Port(i%quiet), 1)
	}
	for i := range 30_000 {
		f.Learn(numbered(1_000_000+i), flooder, 2)
	}
	for i := 1; i <= 100*quiet; i++ {
		if p, ok := f.Lookup(numbered(i)); !ok || p != Port(i%quiet) {
			t.Fatalf("MAC %d of a quiet port was driven out", i)
		}
	}
	if s := f.Stats(); s.Entries != size {
		t.Errorf("%d entries, want %d", s.Entries, size)
	}
}

// TestEvictionAmongManyPorts: with more ports than a scan is sure to meet, the
// victim's port is the fullest or nearly so, and the table stays fair.
func TestEvictionAmongManyPorts(t *testing.T) {
	const size, ports = 30_000, 3000 // 10 entries each
	f := mustNew(t, size, 0)
	for i := range size {
		f.Learn(numbered(i+1), Port(i%ports), 1)
	}
	for i := range 20_000 {
		f.Learn(numbered(1_000_000+i), ports, 2)
	}
	least, flooder := size, 0
	for _, p := range f.Stats().Ports {
		if p.Port == ports {
			flooder = p.Learned
		} else {
			least = min(least, p.Learned)
		}
	}
	// A perfect table would leave 9 or 10 everywhere.
	if least < 5 || flooder > size/20 {
		t.Errorf("a quiet port is left with %d of 10, the flooder has %d", least, flooder)
	}
	t.Logf("a quiet port is left with %d of 10 at least, the flooder has %d", least, flooder)
}

func TestEvictsTheOld(t *testing.T) {
	const size = 8000
	f := mustNew(t, size, 0)
	for i := 1; i <= size; i++ {
		f.Learn(numbered(i), 1, uint32(i)) // a lower number is older
	}
	for i := range size / 4 {
		f.Learn(numbered(1_000_000+i), 1, uint32(size+i))
	}
	old, young := 0, 0
	for e := range f.Entries {
		switch n := int(e.Key & 0xffffffff); {
		case n <= size/2:
			old++
		case n <= size:
			young++
		}
	}
	if lost := size/2 - young; lost > size/4/10 {
		t.Errorf("%d of the younger half were evicted, and %d of the older", lost, size/2-old)
	}
}

func TestStatic(t *testing.T) {
	f := mustNew(t, 2, 10)
	if err := f.AddStatic(numbered(1), 1); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		port Port
		want Outcome
	}{{1, Known}, {2, Static}} {
		if got := f.Learn(numbered(1), c.port, 100); got != c.want {
			t.Errorf("Learn on port %d = %v, want %v", c.port, got, c.want)
		}
	}
	f.Learn(numbered(2), 2, 100)
	if n := f.FlushPort(1) + f.FlushVLAN(numbered(1).VLAN()) + f.Sweep(1000, 0); n != 1 {
		t.Errorf("%d entries went, want the learned one", n)
	}
	if err := f.AddStatic(numbered(2), 2); err != nil {
		t.Fatal(err)
	}
	if got := f.Learn(numbered(3), 3, 1); got != Refused {
		t.Errorf("Learn in a table full of static entries = %v", got)
	}
	if err := f.AddStatic(numbered(3), 3); !errors.Is(err, ErrFull) {
		t.Errorf("AddStatic in a full table: %v", err)
	}
	if s := f.Stats(); s.Full != 1 || s.Evicted != 0 {
		t.Errorf("stats %+v", s)
	}
	if !f.DelStatic(numbered(1)) || f.DelStatic(numbered(1)) {
		t.Error("DelStatic did not remove the entry once")
	}
	if n := f.DropPorts(2); n != 1 {
		t.Errorf("DropPorts removed %d, want 1", n)
	}
	if s := f.Stats(); s.Entries != 0 || len(s.Ports) != 0 {
		t.Errorf("stats %+v", s)
	}
}

func TestSweepInSlices(t *testing.T) {
	f := mustNew(t, 5000, 10)
	fill(t, f, 5000)
	for n := 1; n <= 100; n++ {
		f.Learn(numbered(n), Port(1+n%64), 5)
	}
	if n := f.Sweep(10, 0); n != 0 {
		t.Fatalf("%d aged a second early", n)
	}
	const slice = 300
	gone, calls := 0, 0
	for ; calls*slice < f.Stats().Slots; calls++ {
		n := f.Sweep(11, slice)
		if n > slice {
			t.Fatalf("one call took out %d, more than it was to look at", n)
		}
		gone += n
	}
	if gone != 4900 {
		t.Errorf("%d aged in %d calls, want 4900", gone, calls)
	}
}

func TestMovesAreBounded(t *testing.T) {
	f := mustNew(t, 5000, 0)
	fill(t, f, 3000)
	for i := 1; i <= 3000; i++ {
		f.Learn(numbered(i), 100, 2)
	}
	f.Learn(numbered(2500), 101, 3)
	moves := f.Moves()
	if len(moves) != maxMoves {
		t.Fatalf("%d moves kept, want %d", len(moves), maxMoves)
	}
	want := Move{Key: numbered(2500), From: 100, To: 101, Count: 2, Last: 3}
	if moves[0] != want || moves[1].Key != numbered(3000) {
		t.Errorf("newest moves %+v, %+v", moves[0], moves[1])
	}
}

func TestEntriesStops(t *testing.T) {
	f := mustNew(t, 100, 0)
	fill(t, f, 50)
	n := 0
	for range f.Entries {
		if n++; n == 3 {
			break
		}
	}
	if n != 3 {
		t.Errorf("%d entries seen after break", n)
	}
}

// TestManyPorts uses each of 65,536 port numbers at once.
func TestManyPorts(t *testing.T) {
	const ports = 1 << 16
	f := mustNew(t, 2*ports, 0)
	for p := range ports {
		f.Learn(numbered(p+1), Port(p), 1)
	}
	s := f.Stats()
	if len(s.Ports) != ports || !slices.IsSortedFunc(s.Ports, func(a, b PortStats) int { return int(a.Port) - int(b.Port) }) {
		t.Fatalf("%d ports in the stats, want %d in order", len(s.Ports), ports)
	}
	if p, ok := f.Lookup(numbered(ports)); !ok || p != ports-1 {
		t.Errorf("Lookup = %d, %v", p, ok)
	}
}

func TestAllocatesNothing(t *testing.T) {
	f, err := New(Limits{Size: 10_000, FlapLimit: 10, FlapHold: 10}, func(Event) {})
	if err != nil {
		t.Fatal(err)
	}
	fill(t, f, 10_000)
	flap := func(now uint32) { // never known, for it is on port 1+80%64
		for n := range 12 {
			f.Learn(numbered(80), Port(200+n%2), now)
		}
	}
	flap(1)
	n, now := 0, uint32(1)
	for _, c := range []struct {
		name string
		do   func()
	}{
		{"Lookup that hits", func() { f.Lookup(numbered(77)) }},
		{"Lookup that misses", func() { f.Lookup(numbered(1 << 30)) }},
		{"Learn of what is known", func() { f.Learn(numbered(78), 1+78%64, 1) }},
		{"Learn that refreshes", func() { now++; f.Learn(numbered(79), 1+79%64, now) }},
		{"Learn in a full table", func() { n++; f.Learn(numbered(1_000_000+n), 70, 2) }},
		{"Learn of a MAC that moves to and fro", func() { n++; now++; f.Learn(numbered(77), Port(200+n%2), now) }},
		{"Learn of what is held elsewhere", func() { f.Learn(numbered(80), 200, 2) }},
		{"Learn of what comes to be held", func() { now += 20; flap(now) }},
		{"Sweep", func() { f.Sweep(1, 0) }},
	} {
		if got := testing.AllocsPerRun(5000, c.do); got != 0 {
			t.Errorf("%s: %v allocations", c.name, got)
		}
	}
}

// TestMemory counts all that a table holds on to: at most 40 bytes a MAC, with
// the table just large enough and with room left to grow.
func TestMemory(t *testing.T) {
	heap := func() uint64 {
		runtime.GC()
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	for _, c := range []struct{ entries, size int }{
		{100_000, 100_000}, {100_000, MaxSize}, {1_000_000, MaxSize},
	} {
		before := heap()
		f := mustNew(t, c.size, 0)
		fill(t, f, c.entries)
		per := float64(heap()-before) / float64(c.entries)
		runtime.KeepAlive(f)
		if per > 40 {
			t.Errorf("%d entries of %d: %.1f bytes a MAC", c.entries, c.size, per)
		}
		t.Logf("%d entries of %d: %.1f bytes a MAC", c.entries, c.size, per)
	}
	// Between the sizes above the array itself never costs more either.
	f := mustNew(t, MaxSize, 0)
	for i := 1; i <= 100_000; i++ {
		f.Learn(numbered(i), 1, 1)
		if n := len(f.table.Load().buckets) * bucketBytes; i > 1000 && float64(n)/float64(i) > 40 {
			t.Fatalf("%d entries in %d bytes", i, n)
		}
	}
}

// TestSearchIsShort looks at how far searches go in a table as full as it gets,
// with addresses in sequence as a container host gives them out.
func TestSearchIsShort(t *testing.T) {
	f := mustNew(t, 100_000, 0)
	fill(t, f, 100_000)
	tab := f.table.Load()
	var hit, miss, longest int
	for n := 1; n <= 100_000; n++ {
		word, _ := tab.find(numbered(n))
		i, _ := tab.slotOf(numbered(n), word)
		steps := (i-tab.home(numbered(n))+len(tab.buckets))%len(tab.buckets) + 1
		hit += steps
		longest = max(longest, steps)
		i = rand.IntN(len(tab.buckets))
		for miss++; tab.buckets[i].past.Load() != 0; miss++ {
			i = (i + 1) % len(tab.buckets)
		}
	}
	t.Logf("cache lines a hit %.2f, a miss %.2f, longest %d", float64(hit)/1e5, float64(miss)/1e5, longest)
	if hit > 200_000 || miss > 300_000 || longest > 200 {
		t.Error("searches are long")
	}
}

func ExampleFDB() {
	f, err := New(DefaultLimits(), nil)
	if err != nil {
		fmt.Println(err)
		return
	}
	frame := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 2, 0, 0, 0, 0, 1, 8, 6}
	src := MakeKey(10, (*[6]byte)(frame[6:]))
	fmt.Println(f.Learn(src, 3, 100), f.Learn(src, 3, 101), f.Learn(src, 4, 102))
	fmt.Println(f.Lookup(src))
	// Output:
	// learned known moved
	// 4 true
}
