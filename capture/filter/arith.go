package filter

import (
	"slices"

	"golang.org/x/net/bpf"
)

// arith is an arithmetic expression over the frame. All values are 32 bits without a
// sign, and wrap.
type arith struct {
	op   byte   // 'n' number k, 'l' length, 'p' bytes of the frame, '-' minus a, 'o' a alu b
	alu  uint16 // aluAdd and the others
	k    uint32
	a, b *arith

	// op 'p': size bytes at a bytes behind base, and behind the IPv4 header if ip4.
	size int
	base uint32
	ip4  bool
}

// binaries are the binary operators and how tightly they bind, as in C.
var binaries = map[string]struct {
	alu  uint16
	prec int
}{
	"|":  {aluOr, 1},
	"^":  {aluXor, 2},
	"&":  {aluAnd, 3},
	"<<": {aluLsh, 4}, ">>": {aluRsh, 4},
	"+": {aluAdd, 5}, "-": {aluSub, 5},
	"*": {aluMul, 6}, "/": {aluDiv, 6}, "%": {aluMod, 6},
}

func isRelop(t *token) bool {
	if t.kind != tokOp {
		return false
	}
	switch t.text {
	case "=", "!=", "<", ">", "<=", ">=":
		return true
	}
	return false
}

func isBinary(t *token) bool {
	_, ok := binaries[t.text]
	return ok && t.kind == tokOp
}

// atArith reports whether arithmetic begins here. A number or a parenthesis may begin
// other things: what stands behind it tells.
func (p *parser) atArith() bool {
	t := p.peek()
	behind := p.ahead(1)
	switch {
	case t.is("-"), t.is("len"), t.is("length"):
		return true
	case t.kind == tokWord && protocols[t.text] != nil:
		return behind.is("[")
	case t.is("(") && t.mate >= 0:
		behind = &p.toks[t.mate+1]
		return isRelop(behind) || isBinary(behind)
	case t.kind == tokNumber:
		return isRelop(behind) || isBinary(behind)
	}
	return false
}

// relation holds the protocol checks that its bytes need while it is parsed.
type relation struct{ checks []*cond }

// parseRelation parses "arith relop arith".
func (p *parser) parseRelation() *cond {
	var r relation
	left := p.parseArith(&r, 0)
	t := p.next()
	if !isRelop(t) {
		p.fail(t, "a comparison is expected: one of = != < > <= >=")
		return nil
	}
	right := p.parseArith(&r, 0)
	if p.err != nil {
		return nil
	}
	c := p.relate(t, left, right)
	if c == nil || len(r.checks) == 0 {
		return c
	}
	return and(append(r.checks, c)...)
}

// parseArith parses operators that bind tighter than prec.
func (p *parser) parseArith(r *relation, prec int) *arith {
	left := p.parseArithOperand(r)
	for p.err == nil {
		t := p.peek()
		op, ok := binaries[t.text]
		if t.kind != tokOp || !ok || op.prec <= prec {
			break
		}
		p.next()
		at := p.peek()
		right := p.parseArith(r, op.prec)
		if p.err != nil {
			break
		}
		if right.op == 'n' {
			switch {
			case right.k == 0 && op.alu == aluDiv:
				p.fail(at, "division by zero")
			case right.k == 0 && op.alu == aluMod:
				p.fail(at, "modulus by zero")
			case right.k > 31 && (op.alu == aluLsh || op.alu == aluRsh):
				p.fail(at, "a shift by more than 31 bits")
			}
		}
		left = operation(op.alu, left, right)
	}
	return left
}

// operation does "a alu b" now if it can. A number goes to the right if it may.
func operation(alu uint16, a, b *arith) *arith {
	if a.op == 'n' && b.op == 'n' {
		if k, ok := calculate(alu, a.k, b.k); ok {
			return &arith{op: 'n', k: k}
		}
	}
	if a.op == 'n' && b.op != 'n' {
		switch alu {
		case aluAdd, aluMul, aluAnd, aluOr, aluXor:
			a, b = b, a
		}
	}
	return &arith{op: 'o', alu: alu, a: a, b: b}
}

// calculate does what run does, and does not divide by zero.
func calculate(alu uint16, a, b uint32) (k uint32, ok bool) {
	switch alu {
	case aluAdd:
		return a + b, true
	case aluSub:
		return a - b, true
	case aluMul:
		return a * b, true
	case aluDiv:
		if b != 0 {
			return a / b, true
		}
	case aluMod:
		if b != 0 {
			return a % b, true
		}
	case aluAnd:
		return a & b, true
	case aluOr:
		return a | b, true
	case aluXor:
		return a ^ b, true
	case aluLsh:
		return a << b, true
	case aluRsh:
		return a >> b, true
	}
	return 0, false
}

func (p *parser) parseArithOperand(r *relation) *arith {
	t := p.next()
	if !p.enter(t) {
		return nil
	}
	defer p.leave()
	switch {
	case t.kind == tokNumber:
		return &arith{op: 'n', k: t.num}
	case t.is("len"), t.is("length"):
		return &arith{op: 'l'}
	case t.is("-"):
		a := p.parseArithOperand(r)
		if a != nil && a.op == 'n' {
			return &arith{op: 'n', k: -a.k}
		}
		return &arith{op: '-', a: a}
	case t.is("("):
		a := p.parseArith(r, 0)
		p.closeParen(t)
		return a
	case t.kind == tokWord && protocols[t.text] != nil:
		return p.parseBytes(r, t)
	case t.kind == tokWord && !p.known(t.text):
		p.fail(t, "no number and no name of one%s; write minus with blanks around it", suggest(t.text))
		return nil
	}
	p.fail(t, "a number, len or bytes of the frame such as ip[8] are expected")
	return nil
}

// parseBytes parses the rest of "proto [ arith : size ]".
func (p *parser) parseBytes(r *relation, proto *token) *arith {
	pr := protocols[proto.text]
	if !pr.index {
		p.fail(proto, "its bytes cannot be named; use the bytes of ether or ip")
		return nil
	}
	open := p.peek()
	if !p.accept("[") {
		p.fail(open, "%s[ is expected: a comparison is of bytes", proto.text)
		return nil
	}
	b := &arith{op: 'p', size: 1}
	inner := len(r.checks)
	b.a = p.parseArith(r, 0)
	if p.accept(":") {
		t := p.next()
		if t.kind != tokNumber || t.num != 1 && t.num != 2 && t.num != 4 {
			p.fail(t, "a size of 1, 2 or 4 bytes is expected")
			return nil
		}
		b.size = int(t.num)
	}
	if t := p.peek(); !p.accept("]") {
		p.fail(t, "a closing ] is expected")
		return nil
	}
	switch {
	case pr.layer == layerLink:
	case pr.layer == layerEther:
		b.base = p.net()
		r.checks = append(r.checks, p.linkType(pr.number))
	case pr.v4:
		// Not behind IPv6, as in libpcap; and the check for IPv4 comes before those of
		// the bytes in brackets, the others behind them.
		b.base, b.ip4 = p.net(), true
		r.checks = slices.Insert(r.checks, inner, p.linkType(etherIP))
		r.checks = append(r.checks, equal(1, p.net()+9, pr.number), p.firstFragment())
	default:
		b.base = p.net() + 40
		r.checks = append(r.checks, and(p.linkType(etherIP6), equal(1, p.net()+6, pr.number)))
	}
	return b
}

// relate makes a test of "left relop right".
func (p *parser) relate(relop *token, left, right *arith) *cond {
	op := relop.text
	if left.op == 'n' && right.op != 'n' {
		left, right = right, left
		if turned, ok := map[string]string{"<": ">", ">": "<", "<=": ">=", ">=": "<="}[op]; ok {
			op = turned
		}
	}
	var jump uint16
	negate := false
	switch op {
	case "=":
		jump = opJEQ
	case "!=":
		jump, negate = opJEQ, true
	case ">":
		jump = opJGT
	case "<=":
		jump, negate = opJGT, true
	case ">=":
		jump = opJGE
	case "<":
		jump, negate = opJGE, true
	}
	var c *cond
	switch {
	case left.op == 'n' && right.op == 'n':
		c = constant(holds(jump, left.k, right.k))
	case right.op == 'n' && right.k == 0 && jump == opJEQ && left.op == 'o' && left.alu == aluAnd && left.b.op == 'n':
		// A & K = 0 is what jset asks.
		c = not(p.testOf(relop, opJSET, left.b.k, left.a))
	case right.op == 'n':
		c = p.testOf(relop, jump, right.k, left)
	default:
		var g loads
		g.eval(left, 0)
		g.store(0)
		g.eval(right, 1)
		g.put(opTAX, 0)
		g.put(opLDMEM, 0)
		c = p.tested(relop, compare(jump|fromX, 0, g.code...), &g)
	}
	if negate {
		c = not(c)
	}
	return c
}

func (p *parser) testOf(at *token, jump uint16, k uint32, a *arith) *cond {
	var g loads
	g.eval(a, 0)
	return p.tested(at, compare(jump, k, g.code...), &g)
}

func (p *parser) tested(at *token, c *cond, g *loads) *cond {
	if g.deep {
		p.fail(at, "too much arithmetic around it: more than %d values at once", scratchWords)
		return nil
	}
	return c
}

// loads generates the code of arithmetic. Its result is in A; X and scratch words from
// reg on are changed on the way.
type loads struct {
	code []bpf.RawInstruction
	deep bool // more than scratchWords were needed
}

func (g *loads) put(op uint16, k uint32) {
	g.code = append(g.code, bpf.RawInstruction{Op: op, K: k})
}

func (g *loads) store(reg uint32) {
	if reg >= scratchWords {
		g.deep = true
	}
	g.put(opST, reg)
}

func (g *loads) eval(a *arith, reg uint32) {
	switch a.op {
	case 'n':
		g.put(opLDIMM, a.k)
	case 'l':
		g.put(opLDLEN, 0)
	case '-':
		g.eval(a.a, reg)
		g.put(opNEG, 0)
	case 'p':
		g.bytes(a, reg)
	default:
		g.eval(a.a, reg)
		if a.b.op == 'n' {
			g.put(classALU|a.alu, a.b.k)
			return
		}
		g.store(reg)
		g.eval(a.b, reg+1)
		g.put(opTAX, 0)
		g.put(opLDMEM, reg)
		g.put(classALU|a.alu|fromX, 0)
	}
}

// bytes loads from the frame. A number as offset is added to the base now, so that
// ip[-1] is the byte before the header, as in libpcap.
func (g *loads) bytes(a *arith, reg uint32) {
	if a.a.op == 'n' && !a.ip4 {
		g.code = append(g.code, loadAt(a.size, a.base+a.a.k))
		return
	}
	base := a.base
	switch {
	case a.a.op == 'n':
		g.put(opLDXMSH, a.base)
		base += a.a.k
	case a.ip4:
		g.eval(a.a, reg)
		g.store(reg)
		g.put(opLDXMSH, a.base)
		g.put(opLDMEM, reg)
		g.put(classALU|aluAdd|fromX, 0)
		g.put(opTAX, 0)
	default:
		g.eval(a.a, reg)
		g.put(opTAX, 0)
	}
	g.put(map[int]uint16{1: opLDBIND, 2: opLDHIND, 4: opLDWIND}[a.size], base)
}
