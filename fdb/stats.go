package fdb

import "slices"

// maxMoves is how many MACs that moved are remembered.
const maxMoves = 1024

// Move tells of a MAC that was learned on one port and then on another.
type Move struct {
	Key      Key
	From, To Port   // at the last move
	Count    uint64 // moves since the MAC is in the list
	Last     uint32 // second of the last move, on the clock that Learn is given
}

func (f *FDB) noteMoveLocked(k Key, from, to Port, now uint32) {
	m, ok := f.moves.Get(k)
	if !ok {
		m = &Move{Key: k}
		f.moves.Add(k, m)
	}
	m.From, m.To, m.Last = from, to, now
	m.Count++
}

// Moves lists the MACs that moved between ports, the latest first. The 1024
// that moved last are remembered.
func (f *FDB) Moves() []Move {
	f.mu.Lock()
	defer f.mu.Unlock()
	moves := make([]Move, 0, f.moves.Len())
	for _, m := range f.moves.Values() {
		moves = append(moves, *m)
	}
	slices.Reverse(moves)
	return moves
}

// Entries calls yield for each entry until it returns false, in no order:
// for e := range f.Entries. Nobody waits for it, and it may call the table. An
// entry that is there throughout comes once; one that is made or removed
// meanwhile may come or not.
func (f *FDB) Entries(yield func(Entry) bool) {
	t := f.table.Load()
	for i := range t.buckets {
		for j := range slotsPerBucket {
			if k, v, ok := t.entry(i, j); ok && !yield(makeEntry(k, v)) {
				return
			}
		}
	}
}

func makeEntry(k Key, v value) Entry {
	return Entry{Key: k, Port: v.port(), Static: v.static(), LastSeen: v.seen()}
}

// Stats is what a table holds and has done.
type Stats struct {
	Limits
	Entries int // static ones included
	Static  int
	Slots   int // places in the table now, used and free
	Bytes   int // memory of the table now

	Learned uint64 // entries learned
	Moved   uint64 // entries moved to another port by learning
	Expired uint64 // entries aged
	Evicted uint64 // entries that gave their place when the table was full
	Flushed uint64 // entries taken out by the flushes and DropPorts
	Full    uint64 // MACs not learned because static entries filled the table

	Ports []PortStats // those with entries, by number
}

// PortStats is what a table holds for one port.
type PortStats struct {
	Port    Port
	Learned int
	Static  int
}

// Stats reads the table's figures, all of one moment.
func (f *FDB) Stats() Stats {
	f.mu.Lock()
	defer f.mu.Unlock()
	buckets := len(f.table.Load().buckets)
	s := Stats{
		Limits: Limits{
			Size: f.size, Aging: int(f.aging.Load()),
			FlapLimit: f.flapLimit, FlapHold: int(f.flapHold),
		},
		Entries: f.entries,
		Static:  f.static,
		Slots:   buckets * slotsPerBucket,
		Bytes:   buckets * bucketBytes,
		Learned: f.learned,
		Moved:   f.moved,
		Expired: f.expired,
		Evicted: f.evicted,
		Flushed: f.flushed,
		Full:    f.full,
	}
	for p, n := range f.ports.ports {
		if n.learned+n.static > 0 {
			s.Ports = append(s.Ports, PortStats{Port: Port(p), Learned: int(n.learned), Static: int(n.static)})
		}
	}
	return s
}
