package ctl

import (
	"iter"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	vswitch "vswitch/switch"
)

// neighborTable is a bounded map of neighbors. When it is full, the one that was not
// heard for longest goes at the port that has most, as MAC tables do it: who floods it
// with addresses made up pushes out his own.
//
// Thread-safety: none.
type neighborTable struct {
	entries map[neighborKey]*neighbor
	ports   map[portKey]*simplelru.LRU[neighborKey, struct{}] // keys in the order in which they were heard
	evicted time.Time                                         // when one went last; zero: none did
}

type portKey struct{ bridge, port string }

func newNeighborTable() neighborTable {
	return neighborTable{entries: map[neighborKey]*neighbor{}, ports: map[portKey]*simplelru.LRU[neighborKey, struct{}]{}}
}

// heardAt notes that an entry, which is there already or is new, was heard at a port.
func (t *neighborTable) heardAt(key neighborKey, e *neighbor, x *vswitch.Sighting) {
	_, known := t.entries[key]
	if !known && len(t.entries) >= maxNeighbors {
		t.evict(x.Time)
	}
	if known && e.port != x.Port {
		t.leave(portKey{key.bridge, e.port}, key)
	}
	e.port = x.Port
	t.entries[key] = e
	at := portKey{key.bridge, x.Port}
	order := t.ports[at]
	if order == nil {
		order, _ = simplelru.NewLRU[neighborKey, struct{}](maxNeighbors, nil) // fails for sizes below one only
		t.ports[at] = order
	}
	order.Add(key, struct{}{})
}

// evict makes room for one.
func (t *neighborTable) evict(now time.Time) {
	var most portKey
	n := 0
	for at, order := range t.ports {
		if order.Len() > n {
			most, n = at, order.Len()
		}
	}
	if key, _, ok := t.ports[most].GetOldest(); ok {
		t.leave(most, key)
		delete(t.entries, key)
		t.evicted = now
	}
}

// leave takes a key off those of a port.
func (t *neighborTable) leave(at portKey, key neighborKey) {
	if order := t.ports[at]; order != nil {
		if order.Remove(key); order.Len() == 0 {
			delete(t.ports, at)
		}
	}
}

// all are the entries, in no order.
func (t *neighborTable) all() iter.Seq2[neighborKey, *neighbor] {
	return func(yield func(neighborKey, *neighbor) bool) {
		for k, e := range t.entries {
			if !yield(k, e) {
				return
			}
		}
	}
}
