package fdb

// flapOracle is what the oracle knows of flapping: each MAC's whole row of
// moves, and when its hold ends.
type flapOracle struct {
	rows  map[Key][]moved
	until map[Key]uint32 // of entries that were held and not heard on their port since
	flaps map[Key]Flap
	last  Key
	begun int
	clock uint32
}

type moved struct {
	from, to Port
	second   uint32 // never before that of the move before it
}

func newFlapOracle() flapOracle {
	return flapOracle{rows: map[Key][]moved{}, until: map[Key]uint32{}, flaps: map[Key]Flap{}}
}

func (x *flapOracle) held(k Key, now uint32) bool {
	until, ok := x.until[k]
	return ok && int32(until-now) > 0
}

// end ends the hold of k, if it has one.
func (x *flapOracle) end(k Key) {
	if f, ok := x.flaps[k]; ok && x.held(k, x.clock) {
		f.Until = x.clock
		x.flaps[k] = f
	}
	delete(x.until, k)
}

func (x *flapOracle) noHome(p Port) {
	for k, row := range x.rows {
		if row[0].from == p {
			delete(x.rows, k)
		}
	}
}

// flaps notes that e is about to move to p, and says whether Learn refuses it.
// It may be held even if not: at p.
func (o *oracle) flaps(e Entry, p Port, now uint32) (refused bool) {
	if o.limits.FlapLimit == 0 {
		return false
	}
	x := &o.flap
	row := x.rows[e.Key]
	m := moved{e.Port, p, now}
	if n := len(row); n > 0 {
		last := row[n-1]
		switch {
		case last.to != e.Port:
			row = nil
		case int32(now-last.second) > 1:
			if p == row[0].from && (len(row) > 1 || int32(now-last.second) < strayed) {
				m.from = p // back home
			}
			row = nil
		case int32(now-last.second) < 0:
			m.second = last.second
		}
	}
	row = append(row, m)
	x.rows[e.Key] = row
	inSecond := 0
	for _, other := range row {
		if other.second == m.second {
			inSecond++
		}
	}
	if inSecond <= o.limits.FlapLimit {
		return false
	}
	delete(x.rows, e.Key)
	f := Flap{
		Key: e.Key, Held: row[0].from, Other: p,
		Count: x.flaps[e.Key].Count + 1,
		Until: now + uint32(o.limits.FlapHold),
	}
	if f.Held == p {
		f.Other = e.Port
	}
	x.clock, x.last = now, e.Key
	x.begun++
	x.flaps[e.Key], x.until[e.Key] = f, f.Until
	e.Port, e.LastSeen = f.Held, f.Until
	o.entries[e.Key] = e
	o.want = append(o.want, Event{EventFlapping, e.Key, f.Held, f.Other})
	return f.Held != p
}

// release follows the end of all holds.
func (o *oracle) release() {
	for k := range o.flap.until {
		if o.flap.held(k, o.flap.clock) {
			e := o.entries[k]
			e.LastSeen = o.flap.clock
			o.entries[k] = e
		}
		o.flap.end(k)
	}
	clear(o.flap.rows)
}

// checkFlaps compares what can be seen of flapping, and that no entry is held
// of which the oracle does not know.
func (o *oracle) checkFlaps() {
	o.t.Helper()
	flaps := o.f.Flaps()
	if len(flaps) != len(o.flap.flaps) { // the tests have fewer keys than maxMoves
		o.t.Fatalf("%d flaps, want %d", len(flaps), len(o.flap.flaps))
	}
	for _, f := range flaps {
		if o.flap.flaps[f.Key] != f {
			o.t.Fatalf("flap %+v, want %+v", f, o.flap.flaps[f.Key])
		}
	}
	if len(flaps) > 0 && flaps[0].Key != o.flap.last {
		o.t.Fatalf("newest flap is %+v, want that of %v", flaps[0], o.flap.last)
	}
	for k := range o.entries {
		_, held := o.flap.until[k]
		if _, v := o.f.table.Load().find(k); v.flapped() != held {
			o.t.Fatalf("%v: held %v, want %v", k, v.flapped(), held)
		}
	}
}
