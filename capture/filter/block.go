package filter

import (
	"encoding/binary"
	"slices"

	"golang.org/x/net/bpf"
)

type condOp uint8

const (
	condTest condOp = iota
	condAnd
	condOr
	condNot
	condConst
)

// cond is a node of the tree that an expression becomes.
type cond struct {
	op   condOp
	kids []*cond
	test test
	yes  bool // condConst
}

// test loads a value into A, and compares it. load sets all that it reads but the
// frame, so it means the same wherever it stands.
type test struct {
	load []bpf.RawInstruction
	jump uint16 // opJEQ, opJGT, opJGE, opJSET, with K, or X if load sets it
	k    uint32
}

// join makes one node of two. Errors leave a nil; the other is then as good.
func join(op condOp, a, b *cond) *cond {
	if a == nil || b == nil {
		return nil
	}
	if a.op == op {
		a.kids = append(a.kids, b)
		return a
	}
	return &cond{op: op, kids: []*cond{a, b}}
}

func and(list ...*cond) *cond { return joinAll(condAnd, list) }
func or(list ...*cond) *cond  { return joinAll(condOr, list) }

func joinAll(op condOp, list []*cond) *cond {
	if len(list) == 1 {
		return list[0]
	}
	return &cond{op: op, kids: list}
}

func not(c *cond) *cond {
	if c == nil {
		return nil
	}
	return &cond{op: condNot, kids: []*cond{c}}
}

func constant(yes bool) *cond { return &cond{op: condConst, yes: yes} }

// compare returns a test of one value.
func compare(jump uint16, k uint32, load ...bpf.RawInstruction) *cond {
	return &cond{test: test{load: load, jump: jump, k: k}}
}

// equal returns the usual test: of size bytes at an offset.
func equal(size int, off, value uint32) *cond {
	return compare(opJEQ, value, loadAt(size, off))
}

// loadAt returns the load of 1, 2 or 4 bytes at an offset. Offsets that no frame has
// stay outside of it: the kernel would take some of them for questions about the frame.
func loadAt(size int, off uint32) bpf.RawInstruction {
	off = min(off, 1<<31-1)
	switch size {
	case 1:
		return bpf.RawInstruction{Op: opLDB, K: off}
	case 2:
		return bpf.RawInstruction{Op: opLDH, K: off}
	}
	return bpf.RawInstruction{Op: opLDW, K: off}
}

// The two blocks that every graph has: the ends.
const (
	reject = 0
	accept = 1
)

// block is a test, and where it leads. Both ways lead to blocks with lower numbers.
type block struct {
	test
	value  int // names load: equal loads have equal names
	jt, jf int
}

// graph is a program as blocks.
type graph struct {
	blocks  []block
	made    map[blockKey]int
	values  map[string]int
	reached []bool // by optimize: is there a way into it?
}

type blockKey struct {
	value  int
	jump   uint16
	k      uint32
	jt, jf int
}

func newGraph() *graph {
	return &graph{
		blocks: make([]block, 2),
		made:   make(map[blockKey]int),
		values: make(map[string]int),
	}
}

// lower returns the block that c begins with, when jt follows its yes and jf its no.
// A tree that needs too many blocks leaves too many behind.
func (g *graph) lower(c *cond, jt, jf int) int {
	if len(g.blocks) > maxBlocks {
		return reject
	}
	switch c.op {
	case condAnd:
		for i := len(c.kids) - 1; i >= 0; i-- {
			jt = g.lower(c.kids[i], jt, jf)
		}
		return jt
	case condOr:
		for i := len(c.kids) - 1; i >= 0; i-- {
			jf = g.lower(c.kids[i], jt, jf)
		}
		return jf
	case condNot:
		return g.lower(c.kids[0], jf, jt)
	case condConst:
		if c.yes {
			return jt
		}
		return jf
	}
	key := blockKey{g.value(c.test.load), c.test.jump, c.test.k, jt, jf}
	if n, ok := g.made[key]; ok {
		return n
	}
	n := len(g.blocks)
	g.blocks = append(g.blocks, block{test: c.test, value: key.value, jt: jt, jf: jf})
	g.made[key] = n
	return n
}

func (g *graph) value(load []bpf.RawInstruction) int {
	b := make([]byte, 0, 64)
	for _, in := range load {
		b = binary.LittleEndian.AppendUint16(b, in.Op)
		b = binary.LittleEndian.AppendUint32(b, in.K)
	}
	n, ok := g.values[string(b)]
	if !ok {
		n = len(g.values) + 1
		g.values[string(b)] = n
	}
	return n
}

// far is the longest jump that a comparison makes, with room for two instructions put
// in between.
const far = 253

// emitter writes a program from its end to its start, so that where a jump leads is
// known when it is written. Places are counted from the end: a place is how many
// instructions there were when it was written, itself included.
type emitter struct {
	back  []bpf.RawInstruction
	start []int       // places of blocks
	steps map[int]int // places of the ja or ret by which far blocks were reached last
}

func (e *emitter) put(in bpf.RawInstruction) { e.back = append(e.back, in) }

// reach returns the place by which a comparison comes to a block: its start, or a step
// on the way there that is in reach.
func (e *emitter) reach(n int) int {
	place, ok := e.start[n], true
	if len(e.back)-place > far {
		place, ok = e.steps[n]
	}
	if ok && len(e.back)-place <= far {
		return place
	}
	if n <= accept {
		e.put(end(n))
	} else {
		e.put(bpf.RawInstruction{Op: opJA, K: uint32(len(e.back) - e.start[n])})
	}
	e.steps[n] = len(e.back)
	return len(e.back)
}

// end returns the instruction of reject or accept.
func end(n int) bpf.RawInstruction {
	return bpf.RawInstruction{Op: opRET, K: takeAll * uint32(n)}
}

// emit returns the program of the blocks that are reached.
func (g *graph) emit(root int) []bpf.RawInstruction {
	e := emitter{start: make([]int, len(g.blocks)), steps: make(map[int]int)}
	for n, b := range g.blocks[:root+1] {
		if !g.reached[n] {
			continue
		}
		if n <= accept {
			e.put(end(n))
		} else {
			jt, jf := e.reach(b.jt), e.reach(b.jf)
			e.put(bpf.RawInstruction{Op: b.jump, Jt: uint8(len(e.back) - jt), Jf: uint8(len(e.back) - jf), K: b.k})
			for _, in := range slices.Backward(b.load) {
				e.put(in)
			}
		}
		e.start[n] = len(e.back)
	}
	slices.Reverse(e.back)
	return e.back
}
