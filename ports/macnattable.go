package ports

import (
	"math/bits"
	"math/rand/v2"
	"sync"
	"sync/atomic"
)

// natKey is an inner address: an IP address in the VLANs that a frame has on the LAN.
type natKey struct {
	hi, lo uint64 // IPv6; of IPv4, 0 and ::ffff:a.b.c.d
	vlans  uint32 // outer VID << 16 | inner VID; 0 where there is none
}

// Bounds of a natTable.
const (
	natAddresses = 4096 // inner addresses, all containers together
	natHost      = 256  // of these, the host's own at most
	natChances   = 8    // addresses in use that an eviction passes over
	natDoubts    = 64   // IP packets in a row from another MAC that move an address
)

// natStatic marks a MAC, in the word that holds it, as the host's: it never moves.
const natStatic = 1 << 63

// natTable says which inner MAC has an inner address.
//
// When it is full, an address goes of the switch's port that brought the most of them,
// and of those one that was not used for long (second chance): a container that makes
// addresses up takes its own away, under whatever MACs.
//
//	hash ──▶ entry ──▶ entry        read by anybody, checked against gen
//	owner (a port) ──▶ its entries, the oldest last
//	count ──▶ owners that have so many
//
// Thread-safety: find and use take no lock (after a few misfortunes, for a moment); the
// others do, none for longer than a few hundred nanoseconds.
type natTable struct {
	seed uint64
	gen  atomic.Uint64 // odd while chains change
	// chains holds an entry's index + 1 by hash; 0: none.
	chains  []atomic.Uint32
	entries []natEntry

	evicted, moved atomic.Uint64

	mu       sync.Mutex // guards what follows
	size     int
	free     int32 // entries, by newer
	owners   []natOwner
	byPort   []int32 // owner's index by hash of port
	noOwners int32   // free ones, by next
	byCount  []int32 // owner's index by how many addresses it has
	most     int     // no owner has more
	statics  int
}

// natEntry is one address. Its atomics are read without the lock.
type natEntry struct {
	hi, lo atomic.Uint64
	vlans  atomic.Uint32
	next   atomic.Uint32 // of the chain, as in chains
	mac    atomic.Uint64 // perhaps with natStatic
	used   atomic.Uint32 // since it had its last chance
	doubt  atomic.Uint32 // IP packets from another MAC since the last from this one

	owner        int32 // none: the host's
	older, newer int32 // of the owner
}

// natOwner is a port that brought addresses.
type natOwner struct {
	port           uint32
	count          int
	oldest, newest int32
	before, after  int32 // of those with as many addresses
	next           int32 // of the chain in byPort
}

// none is no index.
const none = int32(-1)

func newNATTable(size int) *natTable {
	buckets := 1 << bits.Len(uint(2*size-1))
	t := &natTable{
		seed: rand.Uint64() | 1, chains: make([]atomic.Uint32, buckets), entries: make([]natEntry, size),
		owners: make([]natOwner, size), byPort: make([]int32, buckets), byCount: make([]int32, size+1),
	}
	for i := range t.entries {
		t.entries[i].newer = int32(i) + 1
		t.owners[i].next = int32(i) + 1
	}
	t.entries[size-1].newer, t.owners[size-1].next = none, none
	for i := range t.byPort {
		t.byPort[i] = none
	}
	for i := range t.byCount {
		t.byCount[i] = none
	}
	return t
}

// mix spreads a key over the chains; nobody outside knows the seed.
func (t *natTable) mix(a, b uint64) int {
	hi, lo := bits.Mul64(a^t.seed, b^0x9e3779b97f4a7c15^t.seed>>7)
	hi, lo = bits.Mul64(hi^lo^t.seed, 0xd6e8feb86659fd93)
	return int((hi ^ lo) & uint64(len(t.chains)-1))
}

func (t *natTable) chain(k natKey) *atomic.Uint32 {
	return &t.chains[t.mix(k.lo^uint64(k.vlans)<<32, k.hi)]
}

// find returns the entry of an address and the word with its MAC; none when there is none.
func (t *natTable) find(k natKey) (i int32, mac uint64) {
	for range 4 {
		g := t.gen.Load()
		if g&1 == 0 {
			i, mac = t.walk(k)
			if t.gen.Load() == g {
				return i, mac
			}
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.walk(k)
}

func (t *natTable) walk(k natKey) (int32, uint64) {
	at := t.chain(k).Load()
	for range t.entries { // who reads while it changes must end, too
		if at == 0 {
			break
		}
		e := &t.entries[at-1]
		if e.lo.Load() == k.lo && e.hi.Load() == k.hi && e.vlans.Load() == k.vlans {
			return int32(at - 1), e.mac.Load()
		}
		at = e.next.Load()
	}
	return none, 0
}

// use notes that an entry is of use.
func (t *natTable) use(i int32) {
	if e := &t.entries[i]; e.used.Load() == 0 {
		e.used.Store(1)
	}
}

// learn notes that mac, behind port, has the address. Where another has it, it moves only if claim
// says so. It reports false when it is the host's.
func (t *natTable) learn(k natKey, mac uint64, port uint32, claim bool) bool {
	i, has := t.find(k)
	if i != none {
		switch {
		case has&natStatic != 0:
			return has&^natStatic == mac
		case has == mac:
			t.use(i)
			if e := &t.entries[i]; e.doubt.Load() != 0 {
				e.doubt.Store(0)
			}
			return true
		case !claim:
			if t.entries[i].doubt.Add(1) < natDoubts {
				return true
			}
			claim = true // who had it is gone, or nobody routes by it any more
		}
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	i, has = t.walk(k)
	switch {
	case i == none:
		t.insertLocked(k, mac, port)
		return true
	case has&natStatic != 0:
		return has&^natStatic == mac
	case has != mac && claim:
		t.disownLocked(i)
		t.entries[i].mac.Store(mac)
		t.entries[i].doubt.Store(0)
		t.ownLocked(i, port)
		t.moved.Add(1)
	}
	return true
}

// insertLocked adds an address that is not there.
func (t *natTable) insertLocked(k natKey, mac uint64, port uint32) {
	if t.free == none {
		t.evictLocked(port)
	}
	i := t.free
	e := &t.entries[i]
	t.free = e.newer
	t.gen.Add(1)
	e.hi.Store(k.hi)
	e.lo.Store(k.lo)
	e.vlans.Store(k.vlans)
	e.mac.Store(mac)
	e.used.Store(0)
	e.doubt.Store(0)
	c := t.chain(k)
	e.next.Store(c.Load())
	c.Store(uint32(i) + 1)
	t.gen.Add(1)
	t.size++
	if mac&natStatic != 0 {
		e.owner = none
		t.statics++
		return
	}
	t.ownLocked(i, port)
}

// removeLocked takes an address out.
func (t *natTable) removeLocked(i int32) {
	e := &t.entries[i]
	t.gen.Add(1)
	at := t.chain(natKey{e.hi.Load(), e.lo.Load(), e.vlans.Load()})
	for at.Load() != uint32(i)+1 {
		at = &t.entries[at.Load()-1].next
	}
	at.Store(e.next.Load())
	t.gen.Add(1)
	t.size--
	if e.mac.Load()&natStatic != 0 {
		t.statics--
		e.mac.Store(0)
	} else {
		t.disownLocked(i)
	}
	e.newer, t.free = t.free, i
}

// evictLocked makes room for an address that port brings. The host's are too few to be
// all that there are.
func (t *natTable) evictLocked(port uint32) {
	for t.byCount[t.most] == none {
		t.most--
	}
	v := t.byCount[t.most]
	if mine := t.ownerLocked(port); mine != none && t.owners[mine].count == t.most {
		v = mine
	}
	for range natChances {
		i := t.owners[v].oldest
		if t.entries[i].used.Load() == 0 {
			break
		}
		t.entries[i].used.Store(0)
		t.unlinkLocked(v, i)
		t.linkLocked(v, i)
	}
	t.removeLocked(t.owners[v].oldest)
	t.evicted.Add(1)
}

// ownLocked makes an entry one of a port's.
func (t *natTable) ownLocked(i int32, port uint32) {
	v := t.ownerLocked(port)
	if v == none {
		v = t.noOwners
		o := &t.owners[v]
		t.noOwners = o.next
		c := &t.byPort[t.mix(uint64(port), 1)]
		*o = natOwner{port: port, oldest: none, newest: none, before: none, after: none, next: *c}
		*c = v
	} else {
		t.uncountLocked(v)
	}
	t.entries[i].owner = v
	t.linkLocked(v, i)
	t.owners[v].count++
	t.countLocked(v)
}

// disownLocked is its opposite. A port without addresses is forgotten.
func (t *natTable) disownLocked(i int32) {
	v := t.entries[i].owner
	o := &t.owners[v]
	t.uncountLocked(v)
	t.unlinkLocked(v, i)
	if o.count--; o.count > 0 {
		t.countLocked(v)
		return
	}
	at := &t.byPort[t.mix(uint64(o.port), 1)]
	for *at != v {
		at = &t.owners[*at].next
	}
	*at = o.next
	o.next, t.noOwners = t.noOwners, v
}

func (t *natTable) ownerLocked(port uint32) int32 {
	v := t.byPort[t.mix(uint64(port), 1)]
	for v != none && t.owners[v].port != port {
		v = t.owners[v].next
	}
	return v
}

// linkLocked puts an entry among its owner's as the newest.
func (t *natTable) linkLocked(v, i int32) {
	o, e := &t.owners[v], &t.entries[i]
	e.older, e.newer = o.newest, none
	if o.newest == none {
		o.oldest = i
	} else {
		t.entries[o.newest].newer = i
	}
	o.newest = i
}

func (t *natTable) unlinkLocked(v, i int32) {
	o, e := &t.owners[v], &t.entries[i]
	if e.older == none {
		o.oldest = e.newer
	} else {
		t.entries[e.older].newer = e.newer
	}
	if e.newer == none {
		o.newest = e.older
	} else {
		t.entries[e.newer].older = e.older
	}
}

// countLocked puts an owner among those with as many addresses.
func (t *natTable) countLocked(v int32) {
	o := &t.owners[v]
	o.before, o.after = none, t.byCount[o.count]
	if o.after != none {
		t.owners[o.after].before = v
	}
	t.byCount[o.count] = v
	t.most = max(t.most, o.count)
}

func (t *natTable) uncountLocked(v int32) {
	o := &t.owners[v]
	if o.before == none {
		t.byCount[o.count] = o.after
	} else {
		t.owners[o.before].after = o.after
	}
	if o.after != none {
		t.owners[o.after].before = o.before
	}
}

// setHost makes keys the host's addresses, at macs, and no others.
func (t *natTable) setHost(keys []natKey, macs []uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	wanted := func(k natKey, mac uint64) bool {
		for i := range keys {
			if keys[i] == k && macs[i]|natStatic == mac {
				return true
			}
		}
		return false
	}
	for i := range t.entries {
		e := &t.entries[i]
		mac := e.mac.Load()
		if mac&natStatic == 0 {
			continue
		}
		k := natKey{e.hi.Load(), e.lo.Load(), e.vlans.Load()}
		if at, _ := t.walk(k); at == int32(i) && !wanted(k, mac) {
			t.removeLocked(int32(i))
		}
	}
	for i, k := range keys {
		at, has := t.walk(k)
		if at != none && has == macs[i]|natStatic {
			continue
		}
		if at != none {
			t.removeLocked(at)
		}
		if t.statics < min(natHost, len(t.entries)/2) {
			t.insertLocked(k, macs[i]|natStatic, 0)
		}
	}
}

// len counts the addresses that are not the host's.
func (t *natTable) len() int {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.size - t.statics
}

// yield forgets an address, unless it is the host's.
func (t *natTable) yield(k natKey) {
	if i, has := t.find(k); i == none || has&natStatic != 0 {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if i, has := t.walk(k); i != none && has&natStatic == 0 {
		t.removeLocked(i)
	}
}
