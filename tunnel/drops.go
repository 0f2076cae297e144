package tunnel

import (
	"net/netip"
	"slices"
	"strconv"
	"sync"
	"time"
)

// Drop is what an endpoint dropped for one reason from one source.
type Drop struct {
	Reason string
	Help   string    // what it means and what to do about it, in a sentence
	Source string    // "10.0.0.9 key 42"; empty: all sources that are not told apart
	Count  uint64    // frames
	Last   time.Time // when it was last seen
	// Head is the first bytes of the last frame, from its destination address on, of
	// Len bytes: nil where none is known.
	Head []byte
	Len  int
}

// reason is why a datagram is no port's frame.
type reason uint8

const (
	dropUnknown reason = iota
	dropMalformed
	dropUnbound
	numReasons
)

var reasons = [numReasons]struct{ name, help string }{
	dropUnknown:   {"tunnel-unknown-source", "no tunnel port has this remote address and this key: add one, or mend remote_ip or key here or at the sender"},
	dropMalformed: {"tunnel-malformed", "the tunnel header makes no sense (flags, version, lengths), or no Ethernet frame fits behind it: something else than a tunnel's peer sends here"},
	dropUnbound:   {"tunnel-unattached", "the frame's tunnel port is not attached to its bridge: it is being added or removed, or show tells why it is in error"},
}

// What is remembered of sources: sourceSets sets of sourceWays each.
const (
	sourceSets = 64
	sourceWays = 4
)

// source is a sender of frames that were dropped.
type source struct {
	peer   peer
	key    uint32
	reason reason
	count  uint64 // 0: the place is free
	last   int64  // Unix nanoseconds
	head   *[headLen]byte
	len    int // of the frame of which head is the beginning
}

// headLen is how much of a source's last frame is kept.
const headLen = 128

// keep remembers the frame that was dropped.
func (s *source) keep(inner []byte) {
	if s.len = len(inner); s.len == 0 {
		return
	}
	if s.head == nil {
		s.head = new([headLen]byte) // the place keeps it, whoever takes it
	}
	copy(s.head[:], inner)
}

// sources counts drops by source, in bounded memory: a source whose set is full
// takes the place of the one seen least recently there, whose count goes to the
// rest. A flood of forged sources costs no allocation.
//
// Thread-safety: safe for concurrent use. Each queue has its own, so its worker
// meets nobody at the lock but a reader now and then.
type sources struct {
	mu   sync.Mutex
	sets [sourceSets][sourceWays]source
	rest [numReasons]source
}

// add counts one drop. now is in Unix nanoseconds.
func (s *sources) add(why reason, from peer, key uint32, inner []byte, now int64) {
	h := (from.hi ^ from.lo ^ uint64(key)<<8 ^ uint64(why)) * 0x9e3779b97f4a7c15
	set := &s.sets[h>>58]
	s.mu.Lock()
	defer s.mu.Unlock()
	oldest := &set[0]
	for i := range set {
		e := &set[i]
		if e.count > 0 && e.peer == from && e.key == key && e.reason == why {
			e.count++
			e.last = now
			e.keep(inner)
			return
		}
		if e.last < oldest.last {
			oldest = e
		}
	}
	if oldest.count > 0 {
		rest := &s.rest[oldest.reason]
		rest.count += oldest.count
		rest.last = max(rest.last, oldest.last)
	}
	*oldest = source{peer: from, key: key, reason: why, count: 1, last: now, head: oldest.head}
	oldest.keep(inner)
}

// sourceID tells sources apart; the zero peer is the rest of them.
type sourceID struct {
	peer   peer
	key    uint32
	reason reason
}

// collect adds what s counted to all.
func (s *sources) collect(all map[sourceID]source) {
	s.mu.Lock()
	defer s.mu.Unlock()
	put := func(id sourceID, e *source) {
		if e.count == 0 {
			return
		}
		sum := all[id]
		sum.count += e.count
		if e.last >= sum.last && e.len > 0 {
			head := *e.head // the place may be another's when this is read
			sum.head, sum.len = &head, e.len
		}
		sum.last = max(sum.last, e.last)
		all[id] = sum
	}
	for i := range s.sets {
		for j := range s.sets[i] {
			e := &s.sets[i][j]
			put(sourceID{e.peer, e.key, e.reason}, e)
		}
	}
	for why := range s.rest {
		put(sourceID{reason: reason(why)}, &s.rest[why])
	}
}

// Drops returns what arrived at the endpoint and was no port's, by reason and
// source, the largest count first. Of sources only so many are remembered; what
// the others sent stands in one Drop a reason that has no Source.
func (e *Endpoint) Drops() []Drop {
	all := map[sourceID]source{}
	for _, q := range e.queues {
		q.drops.collect(all)
	}
	var drops []Drop
	for id, s := range all {
		d := Drop{
			Reason: reasons[id.reason].name, Help: reasons[id.reason].help,
			Count: s.count, Last: time.Unix(0, s.last), Len: s.len,
		}
		if s.len > 0 {
			d.Head = s.head[:min(s.len, headLen)]
		}
		if id.peer != (peer{}) {
			d.Source = sourceName(id.peer.addr(), id.key, id.reason)
		}
		drops = append(drops, d)
	}
	slices.SortFunc(drops, func(a, b Drop) int {
		switch {
		case a.Count != b.Count && a.Count > b.Count:
			return -1
		case a.Count != b.Count:
			return 1
		case a.Reason+a.Source < b.Reason+b.Source:
			return -1
		}
		return 1
	})
	return drops
}

// sourceName writes a source as an operator knows it. What is malformed has no key.
func sourceName(a netip.Addr, key uint32, why reason) string {
	if why == dropMalformed {
		return a.String()
	}
	return a.String() + " key " + strconv.FormatUint(uint64(key), 10)
}
