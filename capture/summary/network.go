package summary

import "vswitch/frame"

// host is what stands before the colon: who talks to whom.
type host struct{ src, dst []byte }

// ends writes who talks to whom; ports below zero are none.
func (l *line) ends(h host, sport, dport int) {
	l.end(h.src, sport)
	l.str(" > ")
	l.end(h.dst, dport)
	l.str(": ")
}

func (l *line) end(addr []byte, port int) {
	l.addr(addr)
	if port >= 0 {
		l.str(".")
		l.num(port)
	}
}

// ipv4 tells of a packet, RFC 791.
//
//	0         1     2              4    6                8     9          10    12       16            20
//	┌────┬────┬─────┬──────────────┬────┬───────────────┬─────┬──────────┬─────┬────────┬─────────────┬─────
//	│ver.│IHL │ TOS │ total length │ id │ flags, offset │ TTL │ protocol │ sum │ source │ destination │ …
//	└────┴────┴─────┴──────────────┴────┴───────────────┴─────┴──────────┴─────┴────────┴─────────────┴─────
func (l *line) ipv4(r rest) {
	const moreFragments, offsetMask = 0x2000, 0x1fff // the offset counts eights of bytes
	l.str("IPv4 ")
	if len(r.b) < frame.IPv4MinLen {
		l.cut("ip")
		return
	}
	version, size, whole := r.b[0]>>4, int(r.b[0]&15)*4, int(u16(r.b[2:]))
	id, flags, proto := u16(r.b[4:]), u16(r.b[6:]), r.b[9]
	if whole == 0 { // a super-frame of more than 64 KiB
		whole = r.wire
	}
	if version != 4 || size < frame.IPv4MinLen || whole < size {
		l.str("[malformed]")
		l.length(r)
		return
	}
	who := host{r.b[12:16], r.b[16:20]}
	if len(r.b) < size {
		l.ends(who, -1, -1)
		l.cut("ip")
		return
	}
	short := whole > r.wire
	r = r.upTo(whole).after(size)
	more := flags&moreFragments != 0
	if offset := int(flags&offsetMask) * 8; offset != 0 {
		l.ends(who, -1, -1)
		l.fragment(uint32(id), offset, more, proto, r)
		return
	}
	l.transport(who, proto, r)
	if more {
		l.add(" (fragment id %d, more follow)", id)
	}
	if short {
		l.add(" (%d bytes are missing)", whole-size-r.wire)
	}
}

// Extension headers of IPv6 that are walked over, RFC 8200 section 4.
const (
	ipv6HopByHop    = 0
	ipv6Routing     = 43
	ipv6Fragment    = 44
	ipv6Destination = 60
)

// ipv6 tells of a packet, RFC 8200 section 3.
//
//	0                    4                6             7           8        24            40
//	┌────┬───────────────┬────────────────┬─────────────┬───────────┬────────┬─────────────┬─────
//	│ver.│ class, flow   │ payload length │ next header │ hop limit │ source │ destination │ …
//	└────┴───────────────┴────────────────┴─────────────┴───────────┴────────┴─────────────┴─────
func (l *line) ipv6(r rest) {
	l.str("IPv6 ")
	if len(r.b) < frame.IPv6Len {
		l.cut("ip6")
		return
	}
	version, length, proto := r.b[0]>>4, int(u16(r.b[4:])), r.b[6]
	if version != 6 {
		l.str("[malformed]")
		l.length(r)
		return
	}
	who := host{r.b[8:24], r.b[24:40]}
	r = r.after(frame.IPv6Len)
	if length != 0 { // else a super-frame of more than 64 KiB
		r = r.upTo(length)
	}
	id, more := uint32(0), false // of a fragment
	for range 8 {
		switch proto {
		case ipv6HopByHop, ipv6Routing, ipv6Destination:
			if len(r.b) < 2 || len(r.b) < 8+int(r.b[1])*8 {
				l.ends(who, -1, -1)
				l.cut("ip6")
				return
			}
			proto, r = r.b[0], r.after(8+int(r.b[1])*8)
			continue
		case ipv6Fragment:
			if len(r.b) < 8 {
				l.ends(who, -1, -1)
				l.cut("ip6")
				return
			}
			offset := int(u16(r.b[2:]) &^ 7)
			more, id = r.b[3]&1 != 0, u32(r.b[4:])
			proto, r = r.b[0], r.after(8)
			if offset != 0 {
				l.ends(who, -1, -1)
				l.fragment(id, offset, more, proto, r)
				return
			}
			continue
		}
		break
	}
	l.transport(who, proto, r)
	if more {
		l.add(" (fragment id %d, more follow)", id)
	}
}

// fragment tells of a fragment that is not the first: it has no ports.
func (l *line) fragment(id uint32, offset int, more bool, proto uint8, r rest) {
	l.proto(proto)
	l.add(" fragment id %d at %d", id, offset)
	l.flag(", more follow", more)
	l.length(r)
}

// Protocols that package frame has no name for.
const (
	protoICMP   = 1
	protoIGMP   = 2
	protoIPIP   = 4
	protoIPv6   = 41
	protoGRE    = 47
	protoESP    = 50
	protoAH     = 51
	protoICMPv6 = 58
	protoNone   = 59
	protoOSPF   = 89
	protoVRRP   = 112
	protoSCTP   = 132
)

// protos are the words for protocols; of others the number is told.
var protos = [256]string{
	frame.ProtoTCP: "tcp", frame.ProtoUDP: "udp", protoSCTP: "sctp", protoICMP: "icmp", protoICMPv6: "icmp6", protoIGMP: "igmp",
	protoIPIP: "ip", protoIPv6: "ip6", protoGRE: "gre", protoESP: "esp", protoAH: "ah", protoOSPF: "ospf", protoVRRP: "vrrp",
	protoNone: "no next header",
}

// proto names a protocol.
func (l *line) proto(p uint8) {
	if name := protos[p]; name != "" {
		l.str(name)
		return
	}
	l.str("ip-proto-")
	l.num(int(p))
}

// transport tells of what an IP header announces.
func (l *line) transport(who host, proto uint8, r rest) {
	switch proto {
	case frame.ProtoTCP:
		l.tcp(who, r)
	case frame.ProtoUDP:
		l.udp(who, r)
	case protoSCTP:
		if len(r.b) < 4 {
			l.ends(who, -1, -1)
			l.cut("sctp")
			return
		}
		l.ends(who, int(u16(r.b)), int(u16(r.b[2:])))
		l.str("sctp")
		l.length(r.upTo(r.wire - min(12, r.wire)))
	case protoICMP:
		l.ends(who, -1, -1)
		l.icmp(r)
	case protoICMPv6:
		l.ends(who, -1, -1)
		l.icmp6(r)
	case protoGRE:
		l.ends(who, -1, -1)
		l.gre(r)
	case protoIPIP, protoIPv6:
		l.ends(who, -1, -1)
		if l.depth++; l.depth >= maxDepth {
			l.str("ip")
			l.length(r)
		} else if proto == protoIPIP {
			l.ipv4(r)
		} else {
			l.ipv6(r)
		}
	case protoIGMP:
		l.ends(who, -1, -1)
		l.igmp(r)
	default:
		l.ends(who, -1, -1)
		l.proto(proto)
		l.length(r)
	}
}
