package ports

import (
	"math/rand/v2"
	"sync"
	"testing"
)

// check fails when the table's lists disagree with its entries.
func (t *natTable) check(fatal func(string, ...any)) map[natKey]uint64 {
	all := map[natKey]uint64{}
	for c := range t.chains {
		for at := t.chains[c].Load(); at != 0; at = t.entries[at-1].next.Load() {
			e := &t.entries[at-1]
			k := natKey{e.hi.Load(), e.lo.Load(), e.vlans.Load()}
			if _, twice := all[k]; twice {
				fatal("%v is there twice", k)
			}
			all[k] = e.mac.Load()
		}
	}
	if len(all) != t.size {
		fatal("%d addresses in chains, size %d", len(all), t.size)
	}
	owned := t.statics
	for n, v := range t.byCount {
		for ; v != none; v = t.owners[v].after {
			o := &t.owners[v]
			listed := 0
			for i := o.oldest; i != none; i = t.entries[i].newer {
				listed++
			}
			if o.count != n || listed != n || t.ownerLocked(o.port) != v {
				fatal("port %d counts %d, lists %d, is among those with %d", o.port, o.count, listed, n)
			}
			owned += n
		}
	}
	if owned != t.size {
		fatal("%d addresses have an owner, size %d", owned, t.size)
	}
	return all
}

// TestNATTableOracle compares a small table with a map. What an eviction takes must be of
// a port that has the most.
func TestNATTableOracle(t *testing.T) {
	type home struct {
		mac  uint64
		port uint32
	}
	r := rand.New(rand.NewPCG(1, 2))
	tab := newNATTable(16)
	model := map[natKey]home{}
	for step := range 20000 {
		k := natKey{lo: uint64(r.IntN(40)), vlans: uint32(r.IntN(2)) << 16}
		mac, port, claim := uint64(1+r.IntN(5)), uint32(r.IntN(6)), r.IntN(2) == 0
		was, had := model[k]
		counts := map[uint32]int{}
		most := 0
		for _, h := range model {
			counts[h.port]++
			most = max(most, counts[h.port])
		}
		tab.learn(k, mac, port, claim)
		if !had || claim && was.mac != mac {
			model[k] = home{mac, port}
		}
		all := tab.check(func(f string, a ...any) { t.Fatalf("step %d: "+f, append([]any{step}, a...)...) })
		for m, h := range model {
			if got, ok := all[m]; ok && got == h.mac {
				continue
			} else if ok {
				t.Fatalf("step %d: %v has %x, want %x", step, m, got, h.mac)
			}
			if had || len(model) <= 16 || counts[h.port] != most || counts[port] == most && h.port != port || m == k {
				t.Fatalf("step %d: %v of port %d (%d of %d) went for port %d (%d)", step, m, h.port, counts[h.port], most, port, counts[port])
			}
			delete(model, m)
		}
		if len(model) != len(all) {
			t.Fatalf("step %d: %d addresses, want %d", step, len(all), len(model))
		}
	}
	if tab.evicted.Load() == 0 || tab.moved.Load() == 0 {
		t.Error("nothing was evicted, or moved")
	}
}

// TestNATTableKeepsTheUsed: of one port, an address in use outlives others.
func TestNATTableKeepsTheUsed(t *testing.T) {
	tab := newNATTable(8)
	k := natKey{lo: 1}
	for i := range uint64(100) {
		tab.learn(k, 1, 1, false)
		tab.learn(natKey{lo: 100 + i}, 1, 1, false)
		if at, _ := tab.find(k); at == none {
			t.Fatalf("it went after %d others", i)
		}
	}
}

// TestNATTableTogether has workers learn and look up at once: what nobody takes away is
// always found.
func TestNATTableTogether(t *testing.T) {
	tab := newNATTable(64)
	steady := natKey{lo: 1 << 40}
	tab.learn(steady, 77, 9, true)
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			for i := range 20000 {
				tab.learn(natKey{lo: uint64(w<<20 | i%200)}, uint64(w+1), uint32(w), true)
				if at, mac := tab.find(steady); at == none || mac != 77 {
					t.Errorf("not found: %d, %d", at, mac)
					return
				}
			}
		})
	}
	wg.Wait()
	tab.check(t.Fatalf)
}
