package fdb

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// Limits bound a table.
type Limits struct {
	Size  int // entries, static ones included: 1 to MaxSize
	Aging int // seconds after which a learned entry not seen again goes: 0 (never) to MaxAging

	FlapLimit int // moves of one MAC in a second above which it is held: 0 (never) to MaxFlapLimit
	FlapHold  int // seconds that it is held: 1 to MaxFlapHold, or 0 if FlapLimit is 0
}

const (
	MaxSize      = 1 << 20
	MaxAging     = math.MaxInt32
	MaxFlapLimit = 1000
	MaxFlapHold  = 3600

	DefaultSize      = 8192 // mac-table-size
	DefaultAging     = 300  // mac-aging-time
	DefaultFlapLimit = 10   // mac-flap-limit
	DefaultFlapHold  = 10   // mac-flap-hold
)

// DefaultLimits are those of a bridge that was told nothing else.
func DefaultLimits() Limits {
	return Limits{Size: DefaultSize, Aging: DefaultAging, FlapLimit: DefaultFlapLimit, FlapHold: DefaultFlapHold}
}

func (l Limits) check() error {
	if l.Size < 1 || l.Size > MaxSize {
		return fmt.Errorf("MAC table size %d: must be 1 to %d", l.Size, MaxSize)
	}
	if l.Aging < 0 || l.Aging > MaxAging {
		return fmt.Errorf("MAC aging time %d: must be 0 (never) to %d seconds", l.Aging, MaxAging)
	}
	if l.FlapLimit < 0 || l.FlapLimit > MaxFlapLimit {
		return fmt.Errorf("MAC flap limit %d: must be 0 (off) to %d moves a second", l.FlapLimit, MaxFlapLimit)
	}
	if l.FlapHold < 0 || l.FlapHold > MaxFlapHold || l.FlapHold == 0 && l.FlapLimit > 0 {
		return fmt.Errorf("MAC flap hold %d: must be 1 to %d seconds", l.FlapHold, MaxFlapHold)
	}
	return nil
}

// Errors of AddStatic and SetLimits, wrapped with the entry or the figures.
var (
	ErrNotUnicast = errors.New("only a unicast MAC other than 00:00:00:00:00:00 can have an entry")
	ErrFull       = errors.New("the table is full of static entries")
	ErrPort       = fmt.Errorf("the port number is above %d", MaxPort)
)

// Outcome says what Learn found and did.
type Outcome uint8

const (
	Known   Outcome = iota // is on that port already
	Learned                // was not in the table and is now
	Moved                  // was on another port until now
	Static                 // stays on another port, as a static entry there says
	Refused                // cannot be learned: not a unicast MAC, a port above MaxPort, or ErrFull
	Held                   // flaps, and is held on another port: drop the frame, it comes out of a loop
)

func (o Outcome) String() string {
	return [...]string{"known", "learned", "moved", "static", "refused", "held"}[o]
}

// EventKind says what happened to a learned entry.
type EventKind uint8

const (
	EventNew      EventKind = iota // learned
	EventMoved                     // from From to Port
	EventAged                      // not seen for the aging time
	EventEvicted                   // gave its place to another when the table was full
	EventFlapping                  // moves too often between Port, where it is held now, and From
)

func (e EventKind) String() string {
	return [...]string{"new", "moved", "aged", "evicted", "flapping"}[e]
}

// Event tells of one change that the table made by itself.
type Event struct {
	Kind EventKind
	Key  Key
	Port Port // where the MAC is; for an entry that is gone, where it was
	From Port // EventMoved: where it was before; EventFlapping: the other port; else the same as Port
}

// Entry is one MAC and what is known of it.
type Entry struct {
	Key      Key
	Port     Port
	Static   bool
	LastSeen uint32 // second on the caller's clock; 0 for a static entry; of one that is held, when the hold ends
}

// FDB is the forwarding database of one bridge. Make it with New.
//
// Thread-safety: any method, any goroutine, any time; see the package's
// documentation. Lock order: sweepMu, then mu.
type FDB struct {
	table  atomic.Pointer[table]
	aging  atomic.Uint32
	clock  atomic.Uint32 // second of the last Sweep or hold, whichever came later
	notify func(Event)

	sweepMu   sync.Mutex
	sweepHand int // bucket where the next Sweep begins

	mu        sync.Mutex
	size      int
	entries   int // static ones included; above size only while SetLimits lowers it
	static    int // never above size
	ports     portCounts
	evictHand int // bucket where the search for the next victim begins
	moves     *simplelru.LRU[Key, *Move]

	flapLimit    int
	flapHold     uint32
	runs         map[Key]run // no more than maxRuns
	runsLooked   bool        // dropOldRunsLocked looked, in second runsLookedAt
	runsLookedAt uint32
	flaps        *simplelru.LRU[Key, *Flap]

	learned, moved, expired, evicted, flushed, full uint64
}

// New makes an empty table. notify, if not nil, is called for each Event in the
// order of the changes, by whichever goroutine made the change, and with the
// table locked: it must return at once, never block, and not call the table.
// Hand the event to a bounded ring and count what does not fit.
func New(l Limits, notify func(Event)) (*FDB, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	moves, err := simplelru.NewLRU[Key, *Move](maxMoves, nil)
	if err != nil {
		return nil, fmt.Errorf("make list of MAC moves: %w", err)
	}
	flaps, err := simplelru.NewLRU[Key, *Flap](maxMoves, nil)
	if err != nil {
		return nil, fmt.Errorf("make list of flapping MACs: %w", err)
	}
	f := &FDB{notify: notify, moves: moves, flaps: flaps, runs: map[Key]run{}}
	f.boundLocked(l)
	f.table.Store(newTable(minBuckets, newSeed()))
	return f, nil
}

// Lookup returns the port where k is. It takes no lock and allocates nothing.
// An entry past its aging time is found until a Sweep comes by.
func (f *FDB) Lookup(k Key) (p Port, ok bool) {
	word, v := f.table.Load().find(k)
	return v.port(), word != nil
}

// Learn notes that a frame from k came in through p in the second now of the
// caller's clock, which may begin anywhere and wrap. It allocates nothing but,
// now and then, a larger table. For a MAC that is known on that port it takes
// no lock, and writes at most once a second. For one that is static or held on
// another port it takes no lock and writes nothing.
func (f *FDB) Learn(k Key, p Port, now uint32) Outcome {
	for {
		word, v := f.table.Load().find(k)
		if word == nil || v.port() != p || v.frozen() {
			return f.learnSlowly(k, p, now)
		}
		if v.static() || v.idle(now) <= 0 {
			return Known
		}
		if word.CompareAndSwap(uint64(v), uint64(v.at(now))) {
			return Known
		}
	}
}

func (f *FDB) learnSlowly(k Key, p Port, now uint32) Outcome {
	if !k.Learnable() || p > MaxPort {
		return Refused
	}
	// A static entry stays where it is, and so does a held one; a storm of frames
	// against one takes no lock.
	if word, v := f.table.Load().find(k); word != nil && v.port() != p {
		if v.static() {
			return Static
		}
		if v.held(now) {
			return Held
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	word, old := f.table.Load().find(k)
	switch {
	case word == nil:
		if f.entries >= f.size && !f.evictLocked(evictionScan) {
			f.full++
			return Refused
		}
		f.insertLocked(k, makeValue(p, now))
		f.learned++
		f.tell(EventNew, k, p, p)
		return Learned
	case old.port() == p:
		if !old.static() && old.idle(now) > 0 {
			word.CompareAndSwap(uint64(old), uint64(old.at(now))) // who wins over us has refreshed it
		}
		return Known
	case old.static():
		return Static
	case old.held(now):
		return Held
	}
	home, flapping := f.countMoveLocked(k, old.port(), p, now)
	if flapping && home != p {
		f.holdLocked(word, old, k, home, p, now)
		return Held
	}
	v := makeValue(p, now)
	f.setLocked(word, old, v)
	f.moved++
	f.noteMoveLocked(k, old.port(), p, now)
	f.tell(EventMoved, k, p, old.port())
	if flapping { // the last move was back home
		f.holdLocked(word, v, k, p, old.port(), now)
	}
	return Moved
}

// Judge tells what Learn would find, and changes nothing: a move that would be one too
// many is foretold as Moved, since a move that is not made is not counted.
func (f *FDB) Judge(k Key, p Port, now uint32) Outcome {
	word, v := f.table.Load().find(k)
	switch {
	case !k.Learnable() || p > MaxPort:
		return Refused
	case word == nil:
		return Learned
	case v.port() == p:
		return Known
	case v.static():
		return Static
	case v.held(now):
		return Held
	}
	return Moved
}

// boundLocked makes l the limits of what is done from now on.
func (f *FDB) boundLocked(l Limits) {
	f.size = l.Size
	f.aging.Store(uint32(l.Aging))
	f.flapLimit, f.flapHold = l.FlapLimit, uint32(l.FlapHold)
	if l.FlapLimit == 0 {
		clear(f.runs)
	}
}

// AddStatic puts k on p for good: it does not age, learning does not move it
// and no other entry drives it out. It replaces what the table had for k. The
// error wraps ErrNotUnicast, ErrPort or ErrFull.
func (f *FDB) AddStatic(k Key, p Port) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if err := f.addStaticLocked(k, p); err != nil {
		return fmt.Errorf("add static entry %v on port %d: %w", k, p, err)
	}
	return nil
}

func (f *FDB) addStaticLocked(k Key, p Port) error {
	if !k.Learnable() {
		return ErrNotUnicast
	}
	if p > MaxPort {
		return ErrPort
	}
	v := makeValue(p, 0) | flagStatic
	if word, old := f.table.Load().find(k); word != nil {
		if !old.static() && f.static >= f.size { // while SetLimits makes the table smaller
			return ErrFull
		}
		f.setLocked(word, old, v)
		if old.flapped() {
			f.endHoldLocked(k)
		}
		return nil
	}
	if f.entries >= f.size && !f.evictLocked(len(f.table.Load().buckets)) {
		return ErrFull
	}
	f.insertLocked(k, v)
	return nil
}

// Delete removes k's entry, learned or static, and says whether there was one.
func (f *FDB) Delete(k Key) bool { return f.delete(k, false) }

// DelStatic removes k's entry if it is static, and says whether it was.
func (f *FDB) DelStatic(k Key) bool { return f.delete(k, true) }

func (f *FDB) delete(k Key, onlyStatic bool) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	t := f.table.Load()
	word, v := t.find(k)
	if word == nil || onlyStatic && !v.static() {
		return false
	}
	i, j := t.slotOf(k, word)
	f.removeLocked(t, i, j, v)
	return true
}

// insertLocked adds k, for which there is room within Size.
func (f *FDB) insertLocked(k Key, v value) {
	t := f.table.Load()
	if n := len(t.buckets); f.entries >= room(n) {
		t = f.rebuildLocked(max(minBuckets, min(n*7/5, bucketsFor(max(f.size, f.entries+1)))))
	}
	t.place(k, v)
	f.entries++
	if v.static() {
		f.static++
	}
	f.ports.add(v)
}

// setLocked replaces the value of an entry that stays in its slot.
func (f *FDB) setLocked(word *atomic.Uint64, old, v value) {
	word.Store(uint64(v))
	f.ports.sub(old)
	f.ports.add(v)
	if old.static() {
		f.static--
	}
	if v.static() {
		f.static++
	}
}

func (f *FDB) removeLocked(t *table, i, j int, v value) {
	if v.flapped() {
		f.endHoldLocked(Key(t.buckets[i].keys[j].Load()))
	}
	t.remove(i, j)
	f.entries--
	if v.static() {
		f.static--
	}
	f.ports.sub(v)
}

// rebuildLocked moves all entries into a new array.
func (f *FDB) rebuildLocked(buckets int) *table {
	old := f.table.Load()
	t := newTable(buckets, old.seed)
	old.copyTo(t)
	f.table.Store(t)
	f.evictHand = 0
	return t
}

func (f *FDB) tell(kind EventKind, k Key, p, from Port) {
	if f.notify != nil {
		f.notify(Event{Kind: kind, Key: k, Port: p, From: from})
	}
}
