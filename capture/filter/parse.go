package filter

import "strings"

// parser turns an expression into a tree of conditions. It descends recursively, and
// its first error ends it: see failAt.
//
// Grammar, with "and" and "or" of equal precedence and from left to right:
//
//	expr    = operand { ("and" | "or") operand }
//	operand = "not" operand | "(" expr ")" | relation | primitive | id
//
// An id without qualifiers (host a or b) has those of the operand before it.
type parser struct {
	expr  string
	toks  []token
	i     int
	depth int
	err   *Error

	// vlan is how many bytes of tags stand before the EtherType of what comes: each
	// vlan moves it for the rest of the expression, whatever joins the two.
	vlan uint32
}

// qual is what the words before an id say of it.
type qual struct {
	set   bool
	proto *protocol // nil: all that fit
	dir   dir
	kind  idKind
	words string // as written, for errors
}

type dir uint8

const (
	dirEither dir = iota
	dirSrc
	dirDst
	dirBoth
)

type idKind uint8

const (
	idAny idKind = iota // no word for it: a host
	idHost
	idNet
	idPort
	idPortRange
	idProto
)

// parse returns nil for an expression without words, and on an error.
func (p *parser) parse() *cond {
	if len(p.expr) > MaxExpr {
		p.err = &Error{Expr: p.expr[:MaxExpr], Offset: MaxExpr, Reason: "longer than 16384 bytes"}
		return nil
	}
	p.lex()
	if p.err != nil || p.peek().kind == tokEnd {
		return nil
	}
	c, _ := p.parseExpr(qual{})
	if t := p.peek(); p.err == nil && t.kind != tokEnd {
		p.failBehind(t)
	}
	return c
}

func (p *parser) peek() *token { return &p.toks[p.i] }

// ahead returns the token n behind the next one.
func (p *parser) ahead(n int) *token { return &p.toks[min(p.i+n, len(p.toks)-1)] }

func (p *parser) next() *token {
	t := &p.toks[p.i]
	if t.kind != tokEnd {
		p.i++
	}
	return t
}

// is reports whether t is punctuation or a word with that text.
func (t *token) is(text string) bool {
	return (t.kind == tokOp || t.kind == tokWord) && t.text == text
}

func (p *parser) accept(text string) bool {
	if p.peek().is(text) {
		p.i++
		return true
	}
	return false
}

func (p *parser) fail(t *token, format string, args ...any) {
	p.failAt(t.off, t.end, format, args...)
}

// enter counts one level of nesting; leave goes back.
func (p *parser) enter(t *token) bool {
	p.depth++
	if p.depth > MaxDepth {
		p.fail(t, "nested more than %d deep", MaxDepth)
		return false
	}
	return true
}

func (p *parser) leave() { p.depth-- }

// parseExpr parses up to a closing parenthesis or the end. q is what an id without
// qualifiers has; the answer has the qualifiers of the last operand.
func (p *parser) parseExpr(q qual) (*cond, qual) {
	c, q := p.parseOperand(q)
	for {
		var op condOp
		switch {
		case p.accept("and"):
			op = condAnd
		case p.accept("or"):
			op = condOr
		default:
			return c, q
		}
		var right *cond
		right, q = p.parseOperand(q)
		c = join(op, c, right)
	}
}

func (p *parser) parseOperand(q qual) (*cond, qual) {
	t := p.peek()
	switch {
	case t.is("not"):
		p.next()
		if !p.enter(t) {
			return nil, q
		}
		defer p.leave()
		c, q := p.parseOperand(q)
		return not(c), q

	case p.atArith():
		return p.parseRelation(), qual{}

	case t.is("("):
		p.next()
		if !p.enter(t) {
			return nil, q
		}
		defer p.leave()
		c, _ := p.parseExpr(q)
		p.closeParen(t)
		return c, q

	case p.atID():
		if !q.set {
			p.failUnqualified(t)
			return nil, q
		}
		return p.parseID(q), q

	case t.kind == tokWord:
		return p.parsePrimitive()
	}
	if t.kind == tokEnd {
		p.fail(t, "expected a condition, such as tcp, host ADDRESS or port NUMBER")
	} else {
		p.fail(t, "a condition is expected here, such as tcp, host ADDRESS or port NUMBER")
	}
	return nil, q
}

func (p *parser) closeParen(open *token) {
	if t := p.peek(); !p.accept(")") && p.err == nil {
		if t.kind == tokEnd {
			p.failAt(open.off, open.end, "this parenthesis is never closed")
		} else {
			p.failBehind(t)
		}
	}
}

// atID reports whether the next word can only be an id: the value that qualifiers are
// for.
func (p *parser) atID() bool {
	switch t := p.peek(); t.kind {
	case tokNumber, tokQuad, tokIP6, tokMAC, tokName:
		return true
	case tokWord:
		_, keyword := keywords[t.text]
		return !keyword && protocols[t.text] == nil
	}
	return false
}

// failUnqualified says what could stand before an id that has no qualifiers.
func (p *parser) failUnqualified(t *token) {
	switch {
	case t.kind == tokMAC:
		p.fail(t, "say what it is: ether host %s", t.text)
	case t.kind == tokQuad && t.bits < 32 || p.ahead(1).is("/"):
		p.fail(t, "say what it is: net %s", t.text)
	case t.kind == tokQuad || t.kind == tokIP6:
		p.fail(t, "say what it is: host %s", t.text)
	case t.kind == tokNumber:
		p.fail(t, "say what it is: port %s, vlan %s or proto %s", t.text, t.text, t.text)
	default:
		p.fail(t, "no word of the filter language%s", suggest(t.text))
	}
}

// failBehind says that t cannot follow a complete condition.
func (p *parser) failBehind(t *token) {
	switch {
	case t.is(")"):
		p.fail(t, "there is no ( that it closes")
	case t.kind == tokOp:
		p.fail(t, `it cannot follow a condition; "and", "or" or the end is expected`)
	case t.kind == tokWord && !p.known(t.text):
		p.fail(t, `no word of the filter language%s; "and", "or" or the end is expected`, suggest(t.text))
	case p.atID():
		p.fail(t, `a word is missing before it: "and", "or", or what it is, such as host or port`)
	default:
		p.fail(t, `"and" or "or" is missing before it`)
	}
}

func (p *parser) known(word string) bool {
	_, keyword := keywords[word]
	return keyword || protocols[word] != nil
}

// suggest returns a hint at the word that was meant, or nothing.
func suggest(word string) string {
	lower := strings.ToLower(word)
	best, distance := "", 3
	try := func(known string) {
		if d := editDistance(lower, known); d < distance || d == distance && known < best {
			best, distance = known, d
		}
	}
	for known, refused := range keywords {
		if refused == "" {
			try(known)
		}
	}
	for known := range protocols {
		try(known)
	}
	for known := range numbers {
		try(known)
	}
	if best == "" || distance > (len(word)+1)/3 {
		return ""
	}
	return ` (did you mean "` + best + `"?)`
}

// editDistance counts the insertions, deletions, replacements and swaps of neighbours
// that make one of the other; 9 stands for many.
func editDistance(a, b string) int {
	const longest = 32
	if len(a) > longest || len(b) > longest || max(len(a), len(b))-min(len(a), len(b)) > 2 {
		return 9
	}
	var rows [3][longest + 1]int
	for j := range len(b) + 1 {
		rows[0][j] = j
	}
	for i := 1; i <= len(a); i++ {
		row, above, above2 := &rows[i%3], &rows[(i+2)%3], &rows[(i+1)%3]
		row[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			row[j] = min(row[j-1]+1, above[j]+1, above[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				row[j] = min(row[j], above2[j-2]+1)
			}
		}
	}
	return rows[len(a)%3][len(b)]
}
