package filter

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

type kind uint8

const (
	tokEnd    kind = iota
	tokWord        // a keyword, or a name
	tokName        // a name behind a backslash, which keeps it from being a keyword
	tokNumber      // num
	tokQuad        // two to four decimal numbers with dots: num, aligned left; bits
	tokIP6         // ip6
	tokMAC         // mac
	tokOp          // punctuation; "and", "or" and "not" are words in their text
)

// token is one word of an expression.
type token struct {
	kind kind
	text string // as written; of tokName without the backslash; && || ! == as and or not =
	off  int    // in bytes
	end  int    // the byte behind it
	num  uint32
	bits int // of num that a quad with less than four parts names
	ip6  netip.Addr
	mac  [6]byte
	mate int // of ( the index of its ), where it has one
}

// lex splits the expression into p.toks, the last of which is a tokEnd.
func (p *parser) lex() {
	s := p.expr
	var open []int
	for i := 0; ; {
		for i < len(s) && strings.IndexByte(" \t\r\n", s[i]) >= 0 {
			i++
		}
		if i == len(s) {
			break
		}
		var t token
		switch c := s[i]; {
		case isAlnum(c) || c == ':' && strings.HasPrefix(s[i:], "::"):
			t = p.lexWord(i)
		case c == '\\':
			end := i + 1
			for end < len(s) && strings.IndexByte(" !()\n\t", s[end]) < 0 {
				end++
			}
			t = token{kind: tokName, text: s[i+1 : end], end: end}
			if t.text == "" {
				p.failAt(i, i+1, "a name must follow it")
			}
		default:
			t = lexOp(s[i:])
			t.end += i
			if t.end == i {
				p.failAt(i, i+1, "no character of the filter language")
			}
		}
		if p.err != nil {
			break
		}
		t.off, t.mate = i, -1
		switch {
		case t.kind == tokOp && t.text == "(":
			open = append(open, len(p.toks))
		case t.kind == tokOp && t.text == ")" && len(open) > 0:
			p.toks[open[len(open)-1]].mate = len(p.toks)
			open = open[:len(open)-1]
		}
		p.toks = append(p.toks, t)
		i = t.end
	}
	p.toks = append(p.toks, token{kind: tokEnd, off: len(s), end: len(s), mate: -1})
}

func isAlnum(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c|0x20 && c|0x20 <= 'z'
}

// lexOp returns the punctuation that s begins with, or a token that ends at 0.
func lexOp(s string) token {
	two := map[string]string{
		"&&": "and", "||": "or", "==": "=", "!=": "!=", "<=": "<=", ">=": ">=", "<<": "<<", ">>": ">>",
	}
	if len(s) >= 2 {
		if text, ok := two[s[:2]]; ok {
			return token{kind: tokOp, text: text, end: 2}
		}
	}
	switch c := s[:1]; c {
	case "!":
		return token{kind: tokOp, text: "not", end: 1}
	case "(", ")", "[", "]", ":", "+", "-", "*", "/", "%", "&", "|", "^", "<", ">", "=":
		return token{kind: tokOp, text: c, end: 1}
	}
	return token{}
}

// lexWord reads the longest word at i. Whatever has two colons is meant as an
// address; one colon stands between offset and size of bytes.
func (p *parser) lexWord(i int) token {
	s := p.expr
	end, colons := i, 0
	for end < len(s) && (isAlnum(s[end]) || strings.IndexByte("-_.:", s[end]) >= 0) {
		if s[end] == ':' {
			colons++
		}
		end++
	}
	if colons >= 2 {
		t := token{text: s[i:end], end: end}
		if mac, ok := parseMAC(t.text); ok {
			t.kind, t.mac = tokMAC, mac
		} else if ip, err := netip.ParseAddr(t.text); err == nil && ip.Zone() == "" {
			t.kind, t.ip6 = tokIP6, ip
		} else {
			p.failAt(i, end, "neither an IPv6 nor a MAC address")
		}
		return t
	}
	if colons == 1 {
		end = i + strings.IndexByte(s[i:end], ':')
	}
	for end > i+1 && (s[end-1] == '-' || s[end-1] == '_') {
		end--
	}
	t := token{kind: tokWord, text: s[i:end], end: end}
	if mac, ok := parseMAC(t.text); ok {
		t.kind, t.mac = tokMAC, mac
		return t
	}
	if n, isNum, reason := parseNumber(t.text); isNum {
		if reason != "" {
			p.failAt(i, end, "%s", reason)
		}
		t.kind, t.num = tokNumber, n
		return t
	}
	if n, ok := numbers[t.text]; ok {
		t.kind, t.num = tokNumber, n
		return t
	}
	if n, bits, ok := parseQuad(t.text); ok {
		if bits == 0 {
			p.failAt(i, end, "no IPv4 address: each part is 0 to 255")
		}
		t.kind, t.num, t.bits = tokQuad, n, bits
	}
	return t
}

// parseNumber reads a number as C does. isNum says that s can be nothing else; then
// reason is what is wrong with it, or empty.
func parseNumber(s string) (n uint32, isNum bool, reason string) {
	if rest, ok := strings.CutPrefix(strings.ToLower(s), "0x"); ok && !strings.Contains(s, ".") {
		if rest == "" || strings.Trim(rest, "0123456789abcdef") != "" {
			return 0, true, "no hexadecimal number"
		}
	} else if strings.Trim(s, "0123456789") != "" {
		return 0, false, ""
	} else if len(s) > 1 && s[0] == '0' && strings.ContainsAny(s, "89") {
		return 0, true, "it begins with 0, so it is octal, and has a digit above 7"
	} else if len(s) > 1 && s[0] == '0' {
		s = "0o" + s[1:]
	}
	v, err := strconv.ParseUint(s, 0, 32)
	if err != nil {
		return 0, true, "more than 32 bits hold"
	}
	return uint32(v), true, ""
}

// parseQuad reads two to four decimal numbers with dots. bits is 0 where a part is
// not 0 to 255.
func parseQuad(s string) (n uint32, bits int, ok bool) {
	parts := strings.Split(s, ".")
	if len(parts) < 2 || len(parts) > 4 {
		return 0, 0, false
	}
	for _, part := range parts {
		if part == "" || strings.Trim(part, "0123456789") != "" {
			return 0, 0, false
		}
	}
	for _, part := range parts {
		v, err := strconv.ParseUint(part, 10, 8)
		if err != nil {
			return 0, 0, true
		}
		n = n<<8 | uint32(v)
	}
	bits = 8 * len(parts)
	return n << (32 - bits), bits, true
}

// parseMAC reads the forms of pcap-filter(7): six parts of one or two digits with one
// of : - . between them, three of four digits with dots, and twelve digits.
func parseMAC(s string) (mac [6]byte, ok bool) {
	if len(s) < 11 || len(s) > 17 {
		return mac, false
	}
	if len(s) == 14 && s[4] == '.' && s[9] == '.' {
		s = s[:4] + s[5:9] + s[10:]
	}
	if len(s) == 12 && !strings.ContainsAny(s, ":-.") {
		b, err := hex.DecodeString(s)
		copy(mac[:], b)
		return mac, err == nil
	}
	for _, sep := range []string{":", "-", "."} {
		parts := strings.Split(s, sep)
		if len(parts) != 6 {
			continue
		}
		for i, part := range parts {
			v, err := strconv.ParseUint(part, 16, 8)
			if err != nil || len(part) > 2 {
				return mac, false
			}
			mac[i] = byte(v)
		}
		return mac, true
	}
	return mac, false
}

// failAt notes the first error: what is written from off to end, and what is wrong
// with it. All tokens behind it are gone, so that parsing comes to its end.
func (p *parser) failAt(off, end int, format string, args ...any) {
	if p.err != nil {
		return
	}
	word := p.expr[off:end]
	if len(word) > 40 {
		word = word[:40] + "…"
	}
	what := fmt.Sprintf("%s at %d: ", strconv.Quote(word), off+1)
	if off == end {
		what = "it ends too soon: "
		if last := p.lastWord(); last != "" {
			what = fmt.Sprintf("it ends after %s: ", strconv.Quote(last))
		}
	}
	p.err = &Error{Expr: p.expr, Offset: off, Reason: what + fmt.Sprintf(format, args...)}
	p.toks = []token{{kind: tokEnd, off: len(p.expr), end: len(p.expr), mate: -1}}
	p.i = 0
}

// lastWord returns the last word of the expression.
func (p *parser) lastWord() string {
	if len(p.toks) < 2 {
		return ""
	}
	t := p.toks[len(p.toks)-2]
	return p.expr[t.off:t.end]
}
