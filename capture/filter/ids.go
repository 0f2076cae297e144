package filter

import (
	"net/netip"
	"strings"
)

// parseAddress parses an address behind host, net, src or dst.
func (p *parser) parseAddress(q qual) *cond {
	t := p.next()
	switch t.kind {
	case tokMAC:
		if q.proto == nil || q.proto.layer != layerLink {
			p.fail(t, "a MAC address is behind ether host, ether src or ether dst only")
			return nil
		}
		if q.kind == idNet {
			p.fail(t, "there are no nets of MAC addresses; write ether host")
			return nil
		}
		return sides(q.dir, etherAddr(offSrc, t.mac), etherAddr(offDst, t.mac))
	case tokQuad, tokNumber:
		return p.parseHost4(q, t)
	case tokIP6:
		return p.parseHost6(q, t)
	case tokEnd:
		p.fail(t, "%s is followed by an address", q.words)
		return nil
	case tokOp:
		p.fail(t, "%s is followed by an address", q.words)
		return nil
	}
	switch {
	case t.kind == tokWord && p.known(t.text):
		p.fail(t, "%s is followed by an address", q.words)
	case q.proto != nil && q.proto.layer == layerLink:
		p.fail(t, "not a MAC address; names are not looked up")
	default:
		p.fail(t, "not an address; host names are not looked up")
	}
	return nil
}

// fits4 checks that a protocol before an IPv4 address has such.
func (p *parser) fits4(q qual, t *token) bool {
	switch pr := q.proto; {
	case pr == nil, pr.number == etherIP, pr.number == etherARP, pr.number == etherRARP:
		return true
	case pr.layer == layerLink:
		p.fail(t, "no MAC address, which %s is followed by", q.words)
	case pr.number == etherIP6:
		p.fail(t, "no IPv6 address, which %s is followed by", q.words)
	default:
		p.fail(t, "%s has no addresses; write %s and host %s", pr.name, pr.name, t.text)
	}
	return false
}

func (p *parser) parseHost4(q qual, t *token) *cond {
	if !p.fits4(q, t) {
		return nil
	}
	addr, bits := t.num, t.bits
	if t.kind == tokNumber {
		// net 10 is 10.0.0.0/8; a number alone is no host that anybody means.
		if q.kind != idNet {
			p.fail(t, "a number, where %s is followed by an address; write port %s or proto %s if you mean that",
				q.words, t.text, t.text)
			return nil
		}
		bits = 32
		for addr != 0 && addr>>24 == 0 {
			addr, bits = addr<<8, bits-8
		}
		if addr == 0 && p.peek().is("/") {
			bits = 0
		}
	}
	mask := maskOf(bits)
	switch m := p.peek(); {
	case m.is("/"), m.is("mask"):
		if q.kind != idNet {
			p.fail(m, "a mask is for nets; write net %s", t.text)
			return nil
		}
		p.next()
		v := p.next()
		switch {
		case m.is("/") && v.kind == tokNumber && v.num <= 32:
			mask = maskOf(int(v.num))
		case m.is("/"):
			p.fail(v, "a prefix length of 0 to 32 is expected")
			return nil
		case v.kind == tokQuad:
			mask = v.num
		default:
			p.fail(v, "a mask such as 255.255.0.0 is expected")
			return nil
		}
		if addr&^mask != 0 {
			p.failAt(t.off, v.end, "the address has bits outside of the mask")
			return nil
		}
	}
	return p.host4(q, addr, mask)
}

func maskOf(bits int) uint32 { return uint32(uint64(0xffffffff) << (32 - bits)) }

func (p *parser) parseHost6(q qual, t *token) *cond {
	switch pr := q.proto; {
	case pr == nil || pr.number == etherIP6:
	case pr.layer == layerLink:
		p.fail(t, "no MAC address, which %s is followed by", q.words)
		return nil
	case pr.layer == layerEther:
		p.fail(t, "no IPv4 address, which %s is followed by", q.words)
		return nil
	default:
		p.fail(t, "%s has no addresses; write %s and host %s", pr.name, pr.name, t.text)
		return nil
	}
	bits := 128
	switch m := p.peek(); {
	case m.is("mask"):
		p.fail(m, "IPv6 nets are written with a prefix length, as 2001:db8::/32")
		return nil
	case m.is("/"):
		p.next()
		v := p.next()
		if v.kind != tokNumber || v.num > 128 {
			p.fail(v, "a prefix length of 0 to 128 is expected")
			return nil
		}
		bits = int(v.num)
		if q.kind != idNet && bits != 128 {
			p.fail(m, "a prefix length is for nets; write net %s", t.text)
			return nil
		}
		if prefix := netip.PrefixFrom(t.ip6, bits); prefix.Masked() != prefix {
			p.failAt(t.off, v.end, "the address has bits outside of the prefix")
			return nil
		}
	}
	return p.host6(q, netip.PrefixFrom(t.ip6, bits))
}

// parsePort parses a port or a range of ports.
func (p *parser) parsePort(q qual) *cond {
	t := p.next()
	proto := uint32(0)
	if pr := q.proto; pr != nil {
		if pr.number != protoTCP && pr.number != protoUDP && pr.number != protoSCTP || pr.layer != layerIP {
			p.failAt(t.off, t.end, "%s has no ports; only tcp, udp and sctp have", pr.name)
			return nil
		}
		proto = pr.number
	}
	what := q.words + " is followed by a number, 0 to 65535, or a name such as http"
	if q.kind == idPortRange {
		what = q.words + " is followed by two numbers, as 6000-6008"
	}
	switch {
	case t.kind == tokNumber:
		if t.num > 65535 {
			p.fail(t, "%s", what)
			return nil
		}
		return p.ports(q, proto, t.num, t.num)
	case t.kind != tokName && (t.kind != tokWord || p.known(t.text)):
		p.fail(t, "%s", what)
		return nil
	}
	if s, ok := services[t.text]; ok {
		return p.servicePorts(q, t, proto, s, s)
	}
	if q.kind == idPortRange {
		// A name may have a - in it, so each is tried.
		for i := range t.text {
			if t.text[i] != '-' {
				continue
			}
			lo, ok1 := portOf(t.text[:i])
			hi, ok2 := portOf(t.text[i+1:])
			if ok1 && ok2 {
				if lo.port > hi.port {
					lo, hi = hi, lo
				}
				return p.servicePorts(q, t, proto, lo, hi)
			}
		}
		p.fail(t, "%s", what)
		return nil
	}
	hint := "; the names known are those of the common services"
	if lo, hi, ok := strings.Cut(t.text, "-"); ok && strings.Trim(lo+hi, "0123456789") == "" {
		hint = "; write portrange " + t.text
	}
	p.fail(t, "%s%s", what, hint)
	return nil
}

func portOf(text string) (service, bool) {
	if s, ok := services[text]; ok {
		return s, true
	}
	n, isNum, reason := parseNumber(text)
	return service{port: n}, isNum && reason == "" && n <= 65535
}

// servicePorts is for ports of which at least one is a name: that says the protocol,
// if it is a service of one.
func (p *parser) servicePorts(q qual, t *token, proto uint32, lo, hi service) *cond {
	named := lo.proto
	if named != hi.proto {
		named = 0
	}
	if named != 0 && proto != 0 && named != proto {
		have := map[uint32]string{protoTCP: "tcp", protoUDP: "udp"}[named]
		p.fail(t, "a service of %s", have)
		return nil
	}
	if proto == 0 {
		proto = named
	}
	return p.ports(q, proto, lo.port, hi.port)
}

// parseProto parses a protocol by its number or its name. Names that are words of the
// language need no backslash here.
func (p *parser) parseProto(q qual) *cond {
	t := p.next()
	pr := protocols[t.text]
	if t.kind != tokNumber && t.kind != tokWord && t.kind != tokName {
		p.fail(t, "%s is followed by a number or the name of a protocol", q.words)
		return nil
	}
	upTo := func(number uint32, most uint32) bool {
		if number > most {
			p.fail(t, "%s is followed by a number up to %d", q.words, most)
		}
		return number <= most
	}
	switch {
	case q.proto == nil || q.proto.number == etherIP || q.proto.number == etherIP6:
		number := t.num
		if t.kind != tokNumber {
			n, ok := ipNames[t.text]
			switch {
			case ok:
				number = n
			case pr != nil && pr.layer == layerIP:
				number = pr.number
			default:
				p.fail(t, "not the name of a protocol over IP; write its number")
				return nil
			}
		}
		if !upTo(number, 255) {
			return nil
		}
		return p.ipProto(number, q.proto == nil || q.proto.number == etherIP, q.proto == nil || q.proto.number == etherIP6)

	case q.proto.layer == layerLink:
		number := t.num
		if t.kind != tokNumber {
			n, ok := etherNames[t.text]
			switch {
			case ok:
				number = n
			case pr != nil && pr.layer == layerEther:
				number = pr.number
			default:
				p.fail(t, "not the name of a protocol over Ethernet; write its EtherType")
				return nil
			}
		}
		if !upTo(number, 65535) {
			return nil
		}
		return p.linkType(number)

	case q.proto.number == sapISO && q.proto.layer == layerEther:
		switch {
		case t.kind == tokNumber && upTo(t.num, 255):
			return p.isoProto(t.num)
		case pr != nil && pr.layer == layerISO:
			return p.isoProto(pr.number)
		}
		p.fail(t, "not the name of a protocol over ISO: clnp, esis or isis")
		return nil
	}
	p.fail(t, "only ether, ip, ip6 and iso have proto before a number or a name")
	return nil
}
