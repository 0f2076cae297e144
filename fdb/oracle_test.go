package fdb

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// oracle is the same database as a plain map. It cannot know whom a full table
// evicts, so it is told by the events, and judges whether that was right.
type oracle struct {
	t       testing.TB
	f       *FDB
	limits  Limits
	entries map[Key]Entry
	events  []Event
	buckets int     // at the last event
	want    []Event // of the current operation, evictions left out
	learned uint64
	evicted uint64
	expired uint64
	flushed uint64
	moves   map[Key]Move
	last    []Key // moved, oldest first
	flap    flapOracle
}

func newOracle(t testing.TB, l Limits) *oracle {
	o := &oracle{t: t, limits: l, entries: map[Key]Entry{}, moves: map[Key]Move{}, flap: newFlapOracle()}
	f, err := New(l, func(e Event) {
		o.events = append(o.events, e)
		o.buckets = len(o.f.table.Load().buckets)
	})
	if err != nil {
		t.Fatal(err)
	}
	o.f = f
	return o
}

func (o *oracle) count(static bool) (n int) {
	for _, e := range o.entries {
		if e.Static == static {
			n++
		}
	}
	return n
}

// evict judges and follows one eviction.
func (o *oracle) evict(e Event) {
	held := map[Port]int{}
	most := 0
	for _, x := range o.entries {
		if !x.Static {
			held[x.Port]++
			most = max(most, held[x.Port])
		}
	}
	v, ok := o.entries[e.Key]
	switch {
	case !ok || v.Port != e.Port:
		o.t.Fatalf("evicted %v of port %d, but the oracle has %+v", e.Key, e.Port, v)
	case v.Static:
		o.t.Fatalf("evicted the static entry %+v", v)
	case held[v.Port] != most:
		o.t.Fatalf("evicted %+v of a port with %d entries while another has %d", v, held[v.Port], most)
	}
	// Where one look goes all around, and meets few entries of the fullest
	// ports, it must have compared them all.
	if full := o.onFullest(held, most); o.buckets <= sampleScan && len(full) <= evictionSample {
		for _, x := range full {
			if int32(x.LastSeen-v.LastSeen) < 0 {
				o.t.Fatalf("evicted %+v although %+v is older", v, x)
			}
		}
	}
	o.take(e.Key)
	o.evicted++
}

// take takes k's entry out, and ends its hold.
func (o *oracle) take(k Key) {
	delete(o.entries, k)
	o.flap.end(k)
}

func (o *oracle) onFullest(held map[Port]int, most int) (es []Entry) {
	for _, x := range o.entries {
		if !x.Static && held[x.Port] == most {
			es = append(es, x)
		}
	}
	return es
}

// follow takes the events of the operation just done: evictions are judged,
// the others must be those in o.want, in any order.
func (o *oracle) follow() (evictions int) {
	o.t.Helper()
	want := map[Event]int{}
	for _, e := range o.want {
		want[e]++
	}
	for _, e := range o.events {
		if e.Kind == EventEvicted {
			evictions++
			continue
		}
		if want[e]--; want[e] < 0 {
			o.t.Fatalf("unexpected event %v %+v", e.Kind, e)
		}
	}
	for e, n := range want {
		if n != 0 {
			o.t.Fatalf("missing event %v %+v", e.Kind, e)
		}
	}
	o.events, o.want = o.events[:0], o.want[:0]
	return evictions
}

// makeRoom follows the one eviction that adding an entry to a full table needs.
// It returns false if there can be none.
func (o *oracle) makeRoom() bool {
	if len(o.entries) < o.limits.Size {
		return true
	}
	if o.count(false) == 0 {
		return false
	}
	if len(o.events) == 0 || o.events[0].Kind != EventEvicted {
		o.t.Fatalf("full table made no room: %v", o.events)
	}
	o.evict(o.events[0])
	return true
}

func (o *oracle) learn(k Key, p Port, now uint32) {
	o.t.Helper()
	got := o.f.Learn(k, p, now)
	want, room := Known, len(o.entries) < o.limits.Size
	e, ok := o.entries[k]
	switch {
	case !k.Learnable() || p > MaxPort:
		want = Refused
	case !ok && !o.makeRoom():
		want = Refused
	case !ok:
		want = Learned
		o.learned++
		o.entries[k] = Entry{Key: k, Port: p, LastSeen: now}
		o.want = append(o.want, Event{EventNew, k, p, p})
	case e.Static && e.Port != p:
		want = Static
	case e.Static:
	case e.Port != p && o.flap.held(k, now):
		want = Held
	case e.Port != p && o.flaps(e, p, now):
		want = Held
	case e.Port != p:
		want = Moved
		o.want = append(o.want, Event{EventMoved, k, p, e.Port})
		m := o.moves[k]
		o.moves[k] = Move{Key: k, From: e.Port, To: p, Count: m.Count + 1, Last: now}
		o.last = append(o.last, k)
		if o.entries[k] == e { // not held at p, its home, already
			e.Port, e.LastSeen = p, now
			o.entries[k] = e
			delete(o.flap.until, k)
		}
	case int32(now-e.LastSeen) > 0:
		e.LastSeen = now
		o.entries[k] = e
		delete(o.flap.until, k)
	}
	if got != want {
		o.t.Fatalf("Learn(%v, %d, %d) = %v, want %v", k, p, now, got, want)
	}
	wantEvictions := 0
	if want == Learned && !room {
		wantEvictions = 1
	}
	if n := o.follow(); n != wantEvictions {
		o.t.Fatalf("Learn evicted %d, want %d", n, wantEvictions)
	}
}

func (o *oracle) addStatic(k Key, p Port) {
	o.t.Helper()
	err := o.f.AddStatic(k, p)
	var want error
	_, ok := o.entries[k]
	switch {
	case !k.Learnable():
		want = ErrNotUnicast
	case p > MaxPort:
		want = ErrPort
	case !ok && !o.makeRoom():
		want = ErrFull
	default:
		o.take(k)
		o.entries[k] = Entry{Key: k, Port: p, Static: true}
	}
	if !errors.Is(err, want) {
		o.t.Fatalf("AddStatic(%v, %d): %v, want %v", k, p, err, want)
	}
	o.follow()
}

func (o *oracle) remove(what string, got int, match func(Entry) bool) {
	o.t.Helper()
	n := 0
	for k, e := range o.entries {
		if match(e) {
			o.take(k)
			n++
		}
	}
	if got != n {
		o.t.Fatalf("%s removed %d entries, want %d", what, got, n)
	}
	o.follow()
}

func (o *oracle) flush(what string, got int, match func(Entry) bool) {
	o.t.Helper()
	o.remove(what, got, match)
	o.flushed += uint64(got)
}

func (o *oracle) sweep(now uint32) {
	o.t.Helper()
	old := func(e Entry) bool {
		return o.limits.Aging > 0 && !e.Static && int64(int32(now-e.LastSeen)) >= int64(o.limits.Aging)
	}
	for _, e := range o.entries {
		if old(e) {
			o.want = append(o.want, Event{EventAged, e.Key, e.Port, e.Port})
			o.expired++
		}
	}
	o.flap.clock = now
	o.remove("Sweep", o.f.Sweep(now, 0), old)
}

func (o *oracle) setLimits(l Limits) {
	o.t.Helper()
	err := o.f.SetLimits(l)
	if l.check() != nil {
		if err == nil {
			o.t.Fatalf("SetLimits(%+v) was accepted", l)
		}
		return
	}
	if o.count(true) > l.Size {
		if !errors.Is(err, ErrFull) {
			o.t.Fatalf("SetLimits(%+v): %v, want %v", l, err, ErrFull)
		}
		return
	}
	if err != nil {
		o.t.Fatal(err)
	}
	n := max(0, len(o.entries)-l.Size)
	for _, e := range o.events {
		o.evict(e)
	}
	if got := o.follow(); got != n {
		o.t.Fatalf("SetLimits evicted %d, want %d", got, n)
	}
	o.limits = l
	if l.FlapLimit == 0 {
		o.release()
	}
}

// check compares everything that can be seen.
func (o *oracle) check() {
	o.t.Helper()
	n := 0
	for e := range o.f.Entries {
		if o.entries[e.Key] != e {
			o.t.Fatalf("table has %+v, oracle %+v", e, o.entries[e.Key])
		}
		n++
	}
	if n != len(o.entries) || n > o.limits.Size {
		o.t.Fatalf("table has %d entries, oracle %d, size %d", n, len(o.entries), o.limits.Size)
	}
	ports := map[Port]PortStats{}
	for k, e := range o.entries {
		if p, ok := o.f.Lookup(k); !ok || p != e.Port {
			o.t.Fatalf("Lookup(%v) = %d, %v, want %d", k, p, ok, e.Port)
		}
		ps := ports[e.Port]
		ps.Port = e.Port
		if e.Static {
			ps.Static++
		} else {
			ps.Learned++
		}
		ports[e.Port] = ps
	}
	s := o.f.Stats()
	if s.Limits != o.limits || s.Entries != n || s.Static != o.count(true) || s.Learned != o.learned ||
		s.Evicted != o.evicted || s.Flushed != o.flushed || s.Expired != o.expired || len(s.Ports) != len(ports) {
		o.t.Fatalf("stats %+v do not fit the oracle", s)
	}
	for _, ps := range s.Ports {
		if ports[ps.Port] != ps {
			o.t.Fatalf("stats of port %+v, want %+v", ps, ports[ps.Port])
		}
	}
	moves := o.f.Moves()
	if len(moves) != len(o.moves) { // the tests have fewer keys than maxMoves
		o.t.Fatalf("%d moves, want %d", len(moves), len(o.moves))
	}
	for _, m := range moves {
		if o.moves[m.Key] != m {
			o.t.Fatalf("move %+v, want %+v", m, o.moves[m.Key])
		}
	}
	if len(moves) > 0 && moves[0].Key != o.last[len(o.last)-1] {
		o.t.Fatalf("newest move is %+v, want that of %v", moves[0], o.last[len(o.last)-1])
	}
	o.checkFlaps()
	checkTable(o.t, o.f)
}

// checkTable checks what must hold inside a table at rest.
func checkTable(t testing.TB, f *FDB) {
	t.Helper()
	tab := f.table.Load()
	past := make([]uint64, len(tab.buckets))
	keys := map[Key]bool{}
	for i := range tab.buckets {
		for j := range slotsPerBucket {
			k, v, ok := tab.entry(i, j)
			if !ok {
				continue
			}
			if keys[k] {
				t.Fatalf("%v is in the table twice", k)
			}
			if keys[k] = true; v.frozen() {
				t.Fatalf("%v is frozen in the live table", k)
			}
			for h := tab.home(k); h != i; h = (h + 1) % len(past) {
				past[h]++
			}
		}
	}
	for i := range past {
		if got := tab.buckets[i].past.Load(); got != past[i] {
			t.Fatalf("bucket %d: %d keys went past it, it says %d", i, past[i], got)
		}
	}
	if len(keys) != f.entries || f.entries > room(len(tab.buckets)) {
		t.Fatalf("%d keys in %d buckets, %d counted", len(keys), len(tab.buckets), f.entries)
	}
}

// testKey is one of n keys, spread over a few VLANs; now and then one that
// cannot be learned.
func testKey(n uint32) Key {
	mac := [6]byte{2, 0, 0, 0, byte(n >> 8), byte(n)}
	switch n % 61 {
	case 7:
		mac[0] |= 1
	case 8:
		mac = [6]byte{}
	}
	return MakeKey(uint16(n%5), &mac)
}

// step does one operation, of which op, a and b say everything.
func (o *oracle) step(op, a, b uint32, now *uint32) {
	o.t.Helper()
	k, p := testKey(a%600), Port(b%7)
	switch op % 64 {
	default:
		o.learn(k, p, *now)
	case 0, 1, 2:
		o.addStatic(k, p)
	case 3, 4:
		e, want := o.entries[k]
		got := o.f.Delete(k)
		if got != want {
			o.t.Fatalf("Delete(%v) = %v, entry %+v", k, got, e)
		}
		o.take(k)
	case 5, 6, 7, 8:
		e := o.entries[k]
		if got := o.f.DelStatic(k); got != e.Static {
			o.t.Fatalf("DelStatic(%v) = %v, entry %+v", k, got, e)
		}
		if e.Static {
			o.take(k)
		}
	case 9:
		o.flush("FlushPort", o.f.FlushPort(p), func(e Entry) bool { return !e.Static && e.Port == p })
		o.flap.noHome(p)
	case 10:
		o.flush("FlushVLAN", o.f.FlushVLAN(k.VLAN()), func(e Entry) bool { return !e.Static && e.Key.VLAN() == k.VLAN() })
	case 11:
		other := Port(a % 7)
		o.flush("DropPorts", o.f.DropPorts(p, other), func(e Entry) bool { return e.Port == p || e.Port == other })
		o.flap.noHome(p)
		o.flap.noHome(other)
	case 12:
		odd := func(e Entry) bool { return e.Key&1 == 1 }
		o.flush("Flush", o.f.Flush(odd), func(e Entry) bool { return !e.Static && odd(e) })
	case 13, 14:
		o.sweep(*now)
	case 15:
		o.setLimits(Limits{Size: int(a%400) - 2, Aging: int(b%50) - 1, FlapLimit: int(a / 400 % 6), FlapHold: int(b / 50 % 15)})
	case 16, 17, 18, 19, 20, 21, 22, 23:
		*now += b % 9
	case 24:
		o.learn(k, MaxPort+1, *now)
		o.addStatic(k, MaxPort+1)
		o.learn(k&^keyValid, p, *now)
	case 25:
		o.learn(k, p, *now-3) // a worker whose clock is behind
	case 26, 27: // a loop between two ports, in which the clock may tick
		for i := range b % 8 {
			if i == a%16 {
				*now++
			}
			o.learn(k, Port(i%2), *now)
		}
	case 28: // a station of which we have heard goes on sending
		o.learn(k, o.entries[k].Port, *now)
	}
	if p, ok := o.f.Lookup(k); ok != (o.entries[k] != Entry{}) || p != o.entries[k].Port {
		o.t.Fatalf("Lookup(%v) = %d, %v, oracle %+v", k, p, ok, o.entries[k])
	}
}

func TestAgainstOracle(t *testing.T) {
	for _, size := range []int{1, 2, 7, 40, 150, 500, 8192} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			seed := rand.Uint64()
			t.Logf("seed %d", seed)
			r := rand.New(rand.NewPCG(seed, 0))
			o := newOracle(t, Limits{Size: size, Aging: 20, FlapLimit: 3, FlapHold: 7})
			now := ^uint32(50) // so that the clock wraps
			for i := range 20_000 {
				op := r.Uint32()
				if op%64 == 15 && i%4 != 0 {
					op++ // let the size given stand for a while
				}
				o.step(op, r.Uint32(), r.Uint32(), &now)
				if i%100 == 0 {
					o.check()
				}
			}
			o.check()
			t.Logf("%d holds begun", o.flap.begun)
			if size >= 40 && o.flap.begun == 0 {
				t.Error("no MAC was ever held")
			}
		})
	}
}

func FuzzAgainstOracle(f *testing.F) {
	f.Add([]byte{40, 1, 1, 40, 2, 2, 15, 4, 3, 40, 3, 3, 16, 0, 8, 13, 0, 0})
	f.Add([]byte{40, 5, 3, 26, 5, 7, 28, 5, 0, 16, 0, 4, 26, 5, 7, 13, 0, 0, 16, 0, 1, 26, 5, 7, 9, 0, 3})
	f.Add([]byte{0, 1, 1, 40, 1, 2, 11, 1, 1, 40, 1, 2, 40, 1, 3, 24, 7, 0})
	f.Fuzz(func(t *testing.T, ops []byte) {
		if len(ops) > 3000 {
			return
		}
		o := newOracle(t, Limits{Size: 50, Aging: 20, FlapLimit: 2, FlapHold: 5})
		now := ^uint32(20)
		for ; len(ops) >= 3; ops = ops[3:] {
			o.step(uint32(ops[0]), uint32(ops[1])*3, uint32(ops[2]), &now)
		}
		o.check()
	})
}
