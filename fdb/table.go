package fdb

import (
	"math/bits"
	"math/rand/v2"
	"sync/atomic"
)

// value is a slot's second word: last seen (32) | flags (8) | port (24).
type value uint64

const (
	portBits = 24
	seenBits = 32

	flagStatic value = 1 << 24
	// flagFrozen: a refresh must go by way of the lock. Set while an entry is
	// being aged, and in an array that has been replaced.
	flagFrozen value = 1 << 25
	// flagHeld: the MAC flapped, and stays on this port until the second that
	// stands as last seen, which lies ahead. So it does not age, nor need a
	// refresh, before; the first refresh after it takes the flag away.
	flagHeld value = 1 << 26

	lowWithoutHeld = (1<<seenBits - 1) &^ flagHeld
)

func makeValue(p Port, seen uint32) value { return value(seen)<<seenBits | value(p) }

func (v value) port() Port            { return Port(v & value(MaxPort)) }
func (v value) seen() uint32          { return uint32(v >> seenBits) }
func (v value) static() bool          { return v&flagStatic != 0 }
func (v value) frozen() bool          { return v&flagFrozen != 0 }
func (v value) at(now uint32) value   { return v&lowWithoutHeld | value(now)<<seenBits }
func (v value) idle(now uint32) int32 { return int32(now - v.seen()) } // below zero: held, or seen by a clock ahead of ours
func (v value) flapped() bool         { return v&flagHeld != 0 }       // held, or was until not long ago
func (v value) held(now uint32) bool  { return v.flapped() && v.idle(now) < 0 }

const (
	slotsPerBucket = 3
	bucketBytes    = 64
	minBuckets     = 16
)

// bucket is one cache line. What its words mean, and in which order they are
// read and written, is told in the package's documentation.
type bucket struct {
	claims atomic.Uint64
	past   atomic.Uint64
	keys   [slotsPerBucket]atomic.Uint64
	values [slotsPerBucket]atomic.Uint64
}

// table is one array of buckets, of fixed length. Thread-safety: find may be
// called by anyone; place, remove and copyTo need FDB.mu.
type table struct {
	seed    [3]uint64
	buckets []bucket
}

func newSeed() [3]uint64 {
	// Odd multipliers lose no bit of what they multiply.
	return [3]uint64{rand.Uint64(), rand.Uint64() | 1, rand.Uint64() | 1}
}

func newTable(buckets int, seed [3]uint64) *table {
	return &table{seed: seed, buckets: make([]bucket, buckets)}
}

// room is the number of entries up to which n buckets are used: three slots in
// four, beyond which searches that find nothing become long.
func room(buckets int) int { return buckets * slotsPerBucket * 3 / 4 }

// bucketsFor is the least number of buckets with room for n entries.
func bucketsFor(n int) int { return (n*4 + 3*slotsPerBucket - 1) / (3 * slotsPerBucket) }

// home is the bucket where the search for k begins.
func (t *table) home(k Key) int {
	hi, lo := bits.Mul64(uint64(k)^t.seed[0], t.seed[1])
	hi, lo = bits.Mul64(hi^lo, t.seed[2])
	hi, _ = bits.Mul64(hi^lo, uint64(len(t.buckets)))
	return int(hi)
}

// find returns k's value, and the word that holds it, or nil.
func (t *table) find(k Key) (*atomic.Uint64, value) {
	if k&keyValid == 0 {
		return nil, 0 // zero would match a free slot
	}
	i := t.home(k)
	for range t.buckets { // never more than once around
		b := &t.buckets[i]
	again:
		claims := b.claims.Load()
		for j := range b.keys {
			if b.keys[j].Load() != uint64(k) {
				continue
			}
			v := b.values[j].Load()
			if b.claims.Load() != claims {
				goto again
			}
			return &b.values[j], value(v)
		}
		if b.past.Load() == 0 {
			return nil, 0
		}
		if i++; i == len(t.buckets) {
			i = 0
		}
	}
	return nil, 0
}

// place puts k, which is not in the table, into the first free slot on its way.
// The caller has seen to it that there is one.
func (t *table) place(k Key, v value) {
	i := t.home(k)
	for {
		b := &t.buckets[i]
		for j := range b.keys {
			if b.keys[j].Load() == 0 {
				b.claims.Add(1)
				b.values[j].Store(uint64(v))
				b.keys[j].Store(uint64(k))
				return
			}
		}
		b.past.Add(1)
		if i++; i == len(t.buckets) {
			i = 0
		}
	}
}

// remove frees slot j of bucket i, which is in use.
func (t *table) remove(i, j int) {
	k := Key(t.buckets[i].keys[j].Load())
	t.buckets[i].keys[j].Store(0)
	for h := t.home(k); h != i; {
		t.buckets[h].past.Add(^uint64(0))
		if h++; h == len(t.buckets) {
			h = 0
		}
	}
}

// slotOf returns where the value word that find returned for k lies.
func (t *table) slotOf(k Key, word *atomic.Uint64) (i, j int) {
	for i = t.home(k); ; {
		for j = range t.buckets[i].values {
			if &t.buckets[i].values[j] == word {
				return i, j
			}
		}
		if i++; i == len(t.buckets) {
			i = 0
		}
	}
}

// entry reads slot j of bucket i for one who walks through the table.
func (t *table) entry(i, j int) (k Key, v value, ok bool) {
	b := &t.buckets[i]
	for {
		claims := b.claims.Load()
		k = Key(b.keys[j].Load())
		if k == 0 {
			return 0, 0, false
		}
		v = value(b.values[j].Load())
		if b.claims.Load() == claims {
			return k, v, true
		}
	}
}

// copyTo puts all entries into n, which is empty, and freezes them here.
func (t *table) copyTo(n *table) {
	for i := range t.buckets {
		b := &t.buckets[i]
		for j := range b.keys {
			if k := b.keys[j].Load(); k != 0 {
				n.place(Key(k), value(b.values[j].Or(uint64(flagFrozen)))&^flagFrozen)
			}
		}
	}
}
