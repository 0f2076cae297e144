package filter

import (
	"encoding/binary"
	"net/netip"
	"strings"

	"golang.org/x/net/bpf"
)

// Offsets in an Ethernet frame, without tags. p.vlan comes on top of those behind
// the addresses.
//
//	 0          6          12    14
//	+----------+----------+-----+-------------
//	| dst      | src      | type| network header
//	+----------+----------+-----+-------------
const (
	offDst  = 0
	offSrc  = 6
	offType = 12
	offNet  = 14
)

func (p *parser) net() uint32 { return offNet + p.vlan }

// parsePrimitive parses what begins with a keyword or a protocol:
//
//	[ protocol ] [ src | dst | src or dst | … ] [ host | net | port | portrange ] id
//	[ protocol ] proto id
//	[ protocol ] broadcast | multicast
//	protocol | vlan [ number ] | less number | greater number
func (p *parser) parsePrimitive() (*cond, qual) {
	first := p.peek()
	if reason := keywords[first.text]; reason != "" {
		p.fail(first, "%s", reason)
		return nil, qual{}
	}
	switch first.text {
	case "less", "greater":
		return p.parseLength(p.next()), qual{}
	case "vlan":
		p.next()
		return p.parseVLAN(), qual{}
	}
	q := qual{set: true, proto: protocols[first.text]}
	if q.proto != nil {
		p.next()
	}
	t := p.peek()
	switch kind, ok := t.idKind(); {
	case t.is("broadcast"), t.is("multicast"):
		return p.parseCast(p.next(), q.proto), qual{}
	case t.is("src"), t.is("dst"):
		q.dir = p.parseDir(p.next())
		if kind, ok := p.peek().idKind(); ok && kind != idProto {
			q.kind = kind
			p.next()
		}
	case ok:
		q.kind = kind
		p.next()
	case q.proto != nil:
		return p.parseAbbreviation(first), qual{}
	default: // and, or, mask, len
		p.fail(first, "it cannot begin a condition")
		return nil, qual{}
	}
	q.words = strings.Join(strings.Fields(p.expr[first.off:p.toks[p.i-1].end]), " ")
	return p.parseHeadID(q), q
}

// idKind returns what t says of the id behind it.
func (t *token) idKind() (idKind, bool) {
	if t.kind != tokWord {
		return idAny, false
	}
	kind, ok := idKinds[t.text]
	return kind, ok
}

var idKinds = map[string]idKind{
	"host": idHost, "net": idNet, "port": idPort, "portrange": idPortRange, "proto": idProto,
}

// parseAbbreviation is for a protocol alone.
func (p *parser) parseAbbreviation(t *token) *cond {
	pr := protocols[t.text]
	if pr.layer != layerLink {
		return p.protocol(pr)
	}
	switch at := p.peek(); {
	case at.kind == tokMAC:
		p.fail(at, "say what it is: %s host %s", t.text, at.text)
	case at.kind == tokWord && !p.known(at.text):
		p.fail(at, "after %q may come src, dst, host, proto, broadcast, multicast or [%s", t.text, suggest(at.text))
	default:
		p.fail(t, "every frame has it; after it may come src, dst, host, proto, broadcast, multicast or [")
	}
	return nil
}

// parseDir parses the rest of src, dst, src or dst, and src and dst, in either order.
func (p *parser) parseDir(first *token) dir {
	join, second := p.peek(), p.ahead(1)
	other := second.is("src") && first.is("dst") || second.is("dst") && first.is("src")
	if other && (join.is("or") || join.is("and")) {
		p.next()
		p.next()
		if join.is("or") {
			return dirEither
		}
		return dirBoth
	}
	if first.is("src") {
		return dirSrc
	}
	return dirDst
}

// parseHeadID parses what qualifiers are for: an id, or several of them in parentheses.
func (p *parser) parseHeadID(q qual) *cond {
	t := p.peek()
	switch {
	case t.is("not"):
		p.next()
		if !p.enter(t) {
			return nil
		}
		defer p.leave()
		return not(p.parseHeadID(q))
	case t.is("("):
		p.next()
		if !p.enter(t) {
			return nil
		}
		defer p.leave()
		c := p.parseHeadID(q)
		for p.err == nil {
			op := condAnd
			if !p.accept("and") {
				if op = condOr; !p.accept("or") {
					break
				}
			}
			c = join(op, c, p.parseHeadID(q))
		}
		p.closeParen(t)
		return c
	}
	return p.parseID(q)
}

// parseID parses one id and makes its test.
func (p *parser) parseID(q qual) *cond {
	switch q.kind {
	case idPort, idPortRange:
		return p.parsePort(q)
	case idProto:
		return p.parseProto(q)
	}
	return p.parseAddress(q)
}

// parseLength is for less and greater.
func (p *parser) parseLength(t *token) *cond {
	n := p.next()
	if n.kind != tokNumber {
		p.fail(n, "%s is followed by a number of bytes", t.text)
		return nil
	}
	length := bpf.RawInstruction{Op: opLDLEN}
	if t.is("less") {
		return not(compare(opJGT, n.num, length))
	}
	return compare(opJGE, n.num, length)
}

// parseVLAN parses the rest of "vlan [id]". What comes behind it in the expression is
// four bytes further on.
func (p *parser) parseVLAN() *cond {
	c := or(p.linkType(etherVLAN), p.linkType(etherQinQ), p.linkType(etherOld))
	open := 0
	for p.peek().is("(") && p.peek().mate > p.i && !p.atArith() {
		p.next()
		open++
	}
	if t := p.peek(); t.kind == tokNumber && !p.atArith() {
		p.next()
		if t.num > 4095 {
			p.fail(t, "a VLAN is 0 to 4095")
			return nil
		}
		c = and(c, compare(opJEQ, t.num, loadAt(2, p.net()),
			bpf.RawInstruction{Op: classALU | aluAnd, K: 0x0fff}))
	} else if open > 0 {
		p.fail(t, "vlan is followed by a number, 0 to 4095")
		return nil
	}
	for range open {
		if t := p.peek(); !p.accept(")") {
			p.fail(t, "a closing ) is expected")
			return nil
		}
	}
	p.vlan += 4
	return c
}

// parseCast is for broadcast and multicast behind a protocol, or alone.
func (p *parser) parseCast(t *token, pr *protocol) *cond {
	broadcast := t.is("broadcast")
	switch {
	case pr == nil || pr.layer == layerLink:
		if broadcast {
			return etherAddr(offDst, [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
		}
		return compare(opJSET, 1, loadAt(1, offDst))
	case pr.number == etherIP && broadcast:
		// The netmask of whoever captures is not the frames'.
		return and(p.linkType(etherIP), or(equal(4, p.net()+16, 0), equal(4, p.net()+16, 0xffffffff)))
	case pr.number == etherIP:
		return and(p.linkType(etherIP), compare(opJGE, 224, loadAt(1, p.net()+16)))
	case pr.number == etherIP6 && !broadcast:
		return and(p.linkType(etherIP6), equal(1, p.net()+24, 0xff))
	}
	if broadcast {
		p.fail(t, "only ether and ip have broadcasts")
	} else {
		p.fail(t, "only ether, ip and ip6 have multicasts")
	}
	return nil
}

// linkType tests for an EtherType, or for an LLC SAP behind a length.
func (p *parser) linkType(number uint32) *cond {
	etherType := func(n uint32) *cond { return equal(2, offType+p.vlan, n) }
	llc := not(compare(opJGT, maxLength, loadAt(2, offType+p.vlan)))
	// SNAP: LLC with DSAP and SSAP 0xaa and control 3, an OUI, an EtherType.
	snap := func(oui, n uint32) *cond {
		return and(equal(4, p.net()+4, oui<<16|n), equal(4, p.net(), 0xaaaa0300|oui>>16))
	}
	switch {
	case number == sapISO || number == sapIP || number == sapNetBEUI:
		return and(llc, equal(2, p.net(), number<<8|number))
	case number == sapIPX:
		return or(etherType(etherIPX),
			and(llc, or(snap(0, etherIPX), equal(1, p.net(), sapIPX), equal(2, p.net(), 0xffff))))
	case number == etherATalk:
		return or(etherType(number), and(llc, snap(0x080007, number)))
	case number == etherAARP:
		return or(etherType(number), and(llc, snap(0, number)))
	case number <= maxLength:
		return and(llc, equal(1, p.net(), number))
	}
	return etherType(number)
}

// protocol tests for a protocol on its layer.
func (p *parser) protocol(pr *protocol) *cond {
	switch pr.layer {
	case layerEther:
		return p.linkType(pr.number)
	case layerISO:
		return p.isoProto(pr.number)
	}
	return p.ipProto(pr.number, pr.v4, pr.v6)
}

func (p *parser) isoProto(number uint32) *cond {
	return and(p.linkType(sapISO), equal(1, p.net()+3, number))
}

// ipProto tests the protocol of IPv4, and the next header of IPv6: also the one behind
// a fragment header.
func (p *parser) ipProto(number uint32, v4, v6 bool) *cond {
	var list []*cond
	if v4 {
		list = append(list, and(p.linkType(etherIP), equal(1, p.net()+9, number)))
	}
	if v6 {
		next := equal(1, p.net()+6, number)
		behind := and(equal(1, p.net()+6, protoFrag6), equal(1, p.net()+40, number))
		list = append(list, and(p.linkType(etherIP6), or(next, behind)))
	}
	return or(list...)
}

// firstFragment tests that an IPv4 packet is whole, or the start of one.
func (p *parser) firstFragment() *cond {
	return not(compare(opJSET, 0x1fff, loadAt(2, p.net()+6)))
}

// sides joins the tests of source and destination.
func sides(d dir, src, dst *cond) *cond {
	switch d {
	case dirSrc:
		return src
	case dirDst:
		return dst
	case dirBoth:
		return and(src, dst)
	}
	return or(src, dst)
}

func etherAddr(off uint32, mac [6]byte) *cond {
	return and(equal(4, off+2, binary.BigEndian.Uint32(mac[2:])),
		equal(2, off, uint32(binary.BigEndian.Uint16(mac[:]))))
}

// host4 tests the addresses of IPv4, ARP and RARP, or of one of them.
func (p *parser) host4(q qual, addr, mask uint32) *cond {
	at := func(off uint32) *cond {
		if mask == 0xffffffff {
			return equal(4, p.net()+off, addr)
		}
		return compare(opJEQ, addr, loadAt(4, p.net()+off),
			bpf.RawInstruction{Op: classALU | aluAnd, K: mask})
	}
	var list []*cond
	for _, where := range []struct{ number, src, dst uint32 }{
		{etherIP, 12, 16}, {etherARP, 14, 24}, {etherRARP, 14, 24},
	} {
		if q.proto == nil || q.proto.number == where.number {
			list = append(list, and(p.linkType(where.number), sides(q.dir, at(where.src), at(where.dst))))
		}
	}
	return or(list...)
}

// host6 tests the addresses of IPv6.
func (p *parser) host6(q qual, prefix netip.Prefix) *cond {
	addr := prefix.Masked().Addr().As16()
	at := func(off uint32) *cond {
		var list []*cond
		for i := uint32(0); i < 16; i += 4 {
			word := binary.BigEndian.Uint32(addr[i:])
			switch bits := prefix.Bits() - int(8*i); {
			case bits >= 32:
				list = append(list, equal(4, p.net()+off+i, word))
			case bits > 0:
				list = append(list, compare(opJEQ, word, loadAt(4, p.net()+off+i),
					bpf.RawInstruction{Op: classALU | aluAnd, K: ^uint32(0) << (32 - bits)}))
			}
		}
		if len(list) == 0 {
			return constant(true)
		}
		return and(list...)
	}
	return and(p.linkType(etherIP6), sides(q.dir, at(8), at(24)))
}

// ports tests ports from lo to hi: of all protocols that have them, or of one.
func (p *parser) ports(q qual, proto, lo, hi uint32) *cond {
	list := []uint32{protoSCTP, protoTCP, protoUDP}
	if proto != 0 {
		list = []uint32{proto}
	}
	protoAt := func(off uint32) *cond {
		var any []*cond
		for _, n := range list {
			any = append(any, equal(1, off, n))
		}
		return or(any...)
	}
	within := func(load ...bpf.RawInstruction) *cond {
		if lo == hi {
			return compare(opJEQ, lo, load...)
		}
		return and(compare(opJGE, lo, load...), not(compare(opJGT, hi, load...)))
	}
	length := bpf.RawInstruction{Op: opLDXMSH, K: p.net()}
	behind := func(off uint32) bpf.RawInstruction {
		return bpf.RawInstruction{Op: opLDHIND, K: p.net() + off}
	}
	return or(
		and(p.linkType(etherIP6), protoAt(p.net()+6),
			sides(q.dir, within(loadAt(2, p.net()+40)), within(loadAt(2, p.net()+42)))),
		and(p.linkType(etherIP), protoAt(p.net()+9), p.firstFragment(),
			sides(q.dir, within(length, behind(0)), within(length, behind(2)))),
	)
}
