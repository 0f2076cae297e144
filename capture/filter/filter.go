// Package filter compiles tcpdump's filter language, pcap-filter(7), to classic BPF
// and runs it over frames as the switch holds them: with the outermost VLAN tag
// beside the bytes.
//
// It is not a decoder, and it looks nothing up: no host names, no interfaces, no
// files. A filter means the same on every host and at every time.
//
// # Theory of operation
//
// An expression becomes words (lex.go), and words a tree of conditions joined by
// and, or and not (parse.go, primitives.go, arith.go). A leaf is a test: a few
// instructions that load one value, and a comparison of it. What a primitive tests
// and in which order is as in libpcap, since a load outside the frame ends a program
// with no: on a cut frame the order decides.
//
// The tree is lowered from its end to its start to blocks, each a test and two
// blocks to go on at (block.go); what is the same is made once. Then, in one pass
// from start to end, a way into a block whose outcome is already known on that way
// goes past it, and loads of what a register already holds go (optimize.go). The
// result does on every frame what the tree would have done. All jumps lead forward,
// so a program ends.
//
// Match runs instructions of its own (run.go), in one of two forms of the program:
// for frames without a tag beside them, and for frames with one, where the offsets
// behind the tag are moved already.
package filter

import (
	"fmt"
	"strconv"

	"golang.org/x/net/bpf"

	"vswitch/frame"
)

// Bounds of an expression. Whatever it is, Compile ends within milliseconds.
const (
	MaxExpr  = 16 << 10 // bytes
	MaxDepth = 128      // parentheses, brackets and nots inside each other
	MaxLen   = 4096     // instructions: BPF_MAXINSNS of the kernel

	maxBlocks = 16 << 10 // tests before optimization
)

// takeAll is what an accepting program returns: bytes of the frame to keep. It is
// tcpdump's default.
const takeAll = 262144

// Program is a compiled filter.
//
// Thread-safety: immutable; any number of goroutines may run one at once.
type Program struct {
	text   string
	raw    []bpf.RawInstruction // nil takes all
	plain  []insn               // raw, for frames without a tag beside them
	tagged []insn               // raw, for frames with one
}

// Error is what is wrong with an expression, and where.
type Error struct {
	Expr   string
	Offset int    // in bytes, of the word that is wrong; len(Expr) when it ends too soon
	Reason string // names the word, its column from 1 on, and what is allowed there
}

// Error returns expression and reason. Of a long expression it is the part around
// the wrong word.
func (e *Error) Error() string {
	const before, after = 60, 40
	expr := e.Expr
	if len(expr) > before+after {
		from := max(0, e.Offset-before)
		to := min(len(expr), e.Offset+after)
		expr = expr[from:to]
		if from > 0 {
			expr = "…" + expr
		}
		if to < len(e.Expr) {
			expr += "…"
		}
	}
	return "filter " + strconv.Quote(expr) + ": " + e.Reason
}

// Compile compiles an expression; "" matches all frames. An error is an *Error.
func Compile(expr string) (*Program, error) {
	p := &parser{expr: expr}
	tree := p.parse()
	if p.err != nil {
		return nil, p.err
	}
	if tree == nil {
		return &Program{text: expr}, nil
	}
	g := newGraph()
	root := g.lower(tree, accept, reject)
	if len(g.blocks) > maxBlocks {
		return nil, tooLarge(expr)
	}
	g.optimize(root)
	if !g.reached[accept] {
		return nil, &Error{Expr: expr, Reason: "no frame can match this: its parts exclude each other"}
	}
	raw := g.emit(root)
	if len(raw) > MaxLen {
		return nil, tooLarge(expr)
	}
	if err := validate(raw); err != nil {
		return nil, &Error{Expr: expr, Reason: fmt.Sprintf("the compiler made a program that is not valid: %v", err)}
	}
	return &Program{
		text:   expr,
		raw:    raw,
		plain:  decode(raw, false),
		tagged: decode(raw, true),
	}, nil
}

func tooLarge(expr string) *Error {
	return &Error{Expr: expr, Reason: fmt.Sprintf("too large: its program has more than %d instructions", MaxLen)}
}

// String returns the expression.
func (p *Program) String() string { return p.text }

// Match reports whether the filter takes the frame b, from its destination address
// on, with tag beside it, of which wireLen bytes were on the wire, tag included. A
// load outside b rejects, as in the kernel. It allocates nothing. A nil Program
// takes all.
func (p *Program) Match(b []byte, tag frame.Tag, wireLen int) bool {
	if p == nil || p.plain == nil {
		return true
	}
	if tag.Present() && len(b) >= tagAt {
		return run(p.tagged, b, tag, uint32(wireLen))
	}
	return run(p.plain, b, frame.Tag{}, uint32(wireLen))
}

// Instructions returns the program for frames with all their tags in the bytes: what
// tcpdump -dd prints, give or take the optimizer. Do not attach it to a socket, where
// the outermost tag is not in the bytes: see KernelInstructions.
func (p *Program) Instructions() []bpf.RawInstruction {
	if p == nil || p.raw == nil {
		return []bpf.RawInstruction{{Op: opRET, K: takeAll}}
	}
	return append([]bpf.RawInstruction(nil), p.raw...)
}

// KernelInstructions returns a program for an AF_PACKET socket (SOCK_RAW), which
// spares the switch the frames that the filter would not take. The kernel holds the
// outermost tag beside the bytes, out of reach of the filter's loads; so frames with
// one are all taken, and Match decides with the tag from PACKET_AUXDATA.
func (p *Program) KernelInstructions() []bpf.RawInstruction {
	in := p.Instructions()
	if len(in)+3 > MaxLen {
		return []bpf.RawInstruction{{Op: opRET, K: takeAll}}
	}
	// SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT of linux/filter.h.
	const tagPresent = -0x1000 + 48 + 1<<32
	return append([]bpf.RawInstruction{
		{Op: opLDB, K: tagPresent},
		{Op: opJEQ, Jt: 1, K: 0},
		{Op: opRET, K: takeAll},
	}, in...)
}
