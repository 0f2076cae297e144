package filter

import "golang.org/x/net/bpf"

// maxFacts bounds what is remembered on the way to a block. The oldest that was not
// of use goes first.
const maxFacts = 48

// fact is the outcome of a comparison.
type fact struct {
	value int
	jump  uint16
	k     uint32
	yes   bool
}

// entry is what is so whenever a block is entered, by whatever way.
type entry struct {
	facts []fact
	a     int    // the value whose load left A and X as they are, or 0
	x     uint32 // the offset that X was loaded from by ldxb 4*([k]&0xf), or 0
}

// optimize changes where blocks lead and what they load, and says which of them are
// reached from root, where the program begins.
//
// Two things make a way shorter. Where the outcome of the next block is known, the way
// goes on behind it; that block's load cannot fail, as the same load was done before on
// this way. And what a register holds already is not loaded again.
//
// Blocks lead to lower numbers only, so one pass from the highest number on has seen
// all ways into a block before it comes to it.
func (g *graph) optimize(root int) {
	g.reached = make([]bool, len(g.blocks))
	entries := make([]entry, len(g.blocks))
	g.reached[root] = true

	for n := root; n > accept; n-- {
		if !g.reached[n] {
			continue
		}
		b, in := &g.blocks[n], &entries[n]
		out := entry{a: b.value, x: lengthInX(b.load, in.x)}
		b.load = drop(b.load, b.value, in)

		b.jt = g.follow(b, b.jt, true, in, out, entries)
		b.jf = g.follow(b, b.jf, false, in, out, entries)
		entries[n] = entry{}
	}
}

// follow finds where the way from b to a block really leads, and says there what is
// known on this way.
func (g *graph) follow(b *block, to int, yes bool, in *entry, out entry, entries []entry) int {
	out.facts = remember(in.facts, fact{b.value, b.jump, b.k, yes})
	for to > accept {
		t := &g.blocks[to]
		outcome, known := decide(out.facts, t.value, t.jump, t.k)
		if !known {
			break
		}
		if to = t.jf; outcome {
			to = t.jt
		}
	}
	if to <= accept {
		g.reached[to] = true
		return to
	}
	if !g.reached[to] {
		g.reached[to] = true
		entries[to] = out
		return to
	}
	e := &entries[to]
	e.facts = common(e.facts, out.facts)
	if e.a != out.a {
		e.a = 0
	}
	if e.x != out.x {
		e.x = 0
	}
	return to
}

// remember returns facts and one more, in memory of its own.
func remember(facts []fact, f fact) []fact {
	if f.jump&fromX != 0 {
		return append([]fact(nil), facts...)
	}
	if len(facts) >= maxFacts {
		facts = facts[1:]
	}
	out := make([]fact, 0, len(facts)+1)
	return append(append(out, facts...), f)
}

// common keeps those of a that are in b, too.
func common(a, b []fact) []fact {
	out := a[:0]
	for _, f := range a {
		for i := range b {
			if b[i] == f {
				out = append(out, f)
				break
			}
		}
	}
	return out
}

// decide finds the outcome of a comparison in facts, if they imply it. A fact that
// helped moves to the end.
func decide(facts []fact, value int, jump uint16, k uint32) (outcome, known bool) {
	if jump&fromX != 0 {
		return false, false
	}
	lo, hi := uint32(0), uint32(1<<32-1)
	used := -1
	for i, f := range facts {
		if f.value != value {
			continue
		}
		used = i
		if f.jump == jump && f.k == k {
			outcome, known = f.yes, true
			break
		}
		switch {
		case f.jump == opJEQ && f.yes:
			lo, hi = f.k, f.k
		case f.jump == opJGT && f.yes:
			lo = max(lo, f.k+1)
		case f.jump == opJGT:
			hi = min(hi, f.k)
		case f.jump == opJGE && f.yes:
			lo = max(lo, f.k)
		case f.jump == opJGE && f.k > 0:
			hi = min(hi, f.k-1)
		}
	}
	if used < 0 {
		return false, false
	}
	if !known {
		switch {
		case lo == hi:
			outcome, known = holds(jump, lo, k), true
		case jump == opJEQ && (k < lo || k > hi):
			known = true
		case jump == opJGT && (lo > k || hi <= k):
			outcome, known = lo > k, true
		case jump == opJGE && (lo >= k || hi < k):
			outcome, known = lo >= k, true
		}
	}
	if known {
		f := facts[used]
		copy(facts[used:], facts[used+1:])
		facts[len(facts)-1] = f
	}
	return outcome, known
}

// holds does a comparison.
func holds(jump uint16, a, k uint32) bool {
	switch jump {
	case opJEQ:
		return a == k
	case opJGT:
		return a > k
	case opJGE:
		return a >= k
	}
	return a&k != 0 // opJSET
}

// drop leaves out of a load what the registers hold already.
func drop(load []bpf.RawInstruction, value int, in *entry) []bpf.RawInstruction {
	switch {
	case in.a == value:
		return nil
	case in.x != 0 && len(load) > 0 && load[0].Op == opLDXMSH && load[0].K == in.x:
		return load[1:]
	}
	return load
}

// lengthInX returns where X was loaded from after load, if by ldxb 4*([k]&0xf).
func lengthInX(load []bpf.RawInstruction, x uint32) uint32 {
	for _, in := range load {
		switch {
		case in.Op == opLDXMSH:
			x = in.K
		case in.Op == opTAX || in.Op&classMask == classLDX:
			x = 0
		}
	}
	return x
}
