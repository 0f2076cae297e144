package summary

import (
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"vswitch/frame"
)

// host is what stands before the colon: who talks to whom.
type host struct{ src, dst []byte }

// ends writes who talks to whom; ports below zero are none.
func (l *line) ends(h host, sport, dport int) {
	for i, addr := range [][]byte{h.src, h.dst} {
		l.addr(addr)
		if port := []int{sport, dport}[i]; port >= 0 {
			l.str(".")
			l.num(port)
		}
		l.str([]string{" > ", ": "}[i])
	}
}

func (l *line) ipv4(r rest) {
	l.str("IPv4 ")
	var h layers.IPv4
	// What is wrong beyond the fixed header is told as far as it goes.
	if !l.safely(func() { _ = h.DecodeFromBytes(r.b, gopacket.NilDecodeFeedback) }) {
		l.str("[malformed]")
		return
	}
	if len(r.b) < frame.IPv4MinLen {
		l.cut("ip")
		return
	}
	size, whole := int(h.IHL)*4, int(h.Length)
	if u16(r.b[2:]) == 0 { // a super-frame of more than 64 KiB
		whole = r.wire
	}
	if h.Version != 4 || size < frame.IPv4MinLen || whole < size {
		l.str("[malformed]")
		l.length(r)
		return
	}
	who := host{h.SrcIP, h.DstIP}
	if len(r.b) < size {
		l.ends(who, -1, -1)
		l.cut("ip")
		return
	}
	short := whole > r.wire
	r = r.upTo(whole).after(size)
	more := h.Flags&layers.IPv4MoreFragments != 0
	if h.FragOffset != 0 {
		l.ends(who, -1, -1)
		l.fragment(uint32(h.Id), int(h.FragOffset)*8, more, uint8(h.Protocol), r)
		return
	}
	l.transport(who, uint8(h.Protocol), r)
	if more {
		l.add(" (fragment id %d, more follow)", h.Id)
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

func (l *line) ipv6(r rest) {
	l.str("IPv6 ")
	var h layers.IPv6
	if !l.safely(func() { _ = h.DecodeFromBytes(r.b, gopacket.NilDecodeFeedback) }) {
		l.str("[malformed]")
		return
	}
	if len(r.b) < frame.IPv6Len {
		l.cut("ip6")
		return
	}
	if h.Version != 6 {
		l.str("[malformed]")
		l.length(r)
		return
	}
	who := host{h.SrcIP, h.DstIP}
	proto := uint8(h.NextHeader)
	r = r.after(frame.IPv6Len)
	if h.Length != 0 { // else a super-frame of more than 64 KiB
		r = r.upTo(int(h.Length))
	}
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
			offset, more, id := int(u16(r.b[2:])&^7), r.b[3]&1 != 0, u32(r.b[4:])
			proto, r = r.b[0], r.after(8)
			if offset != 0 {
				l.ends(who, -1, -1)
				l.fragment(id, offset, more, proto, r)
				return
			}
			defer func() { l.add(" (fragment id %d, more follow)", id) }()
			continue
		}
		break
	}
	l.transport(who, proto, r)
}

// fragment tells of a fragment that is not the first: it has no ports.
func (l *line) fragment(id uint32, offset int, more bool, proto uint8, r rest) {
	l.add("%s fragment id %d at %d", protoName(proto), id, offset)
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

func protoName(p uint8) string {
	switch p {
	case frame.ProtoTCP:
		return "tcp"
	case frame.ProtoUDP:
		return "udp"
	case protoICMP:
		return "icmp"
	case protoICMPv6:
		return "icmp6"
	case protoSCTP:
		return "sctp"
	}
	return layers.IPProtocol(p).String()
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
	case protoESP, protoAH, protoOSPF, protoVRRP:
		l.ends(who, -1, -1)
		l.str(map[uint8]string{protoESP: "esp", protoAH: "ah", protoOSPF: "ospf", protoVRRP: "vrrp"}[proto])
		l.length(r)
	case protoNone:
		l.ends(who, -1, -1)
		l.str("no next header")
		l.length(r)
	default:
		l.ends(who, -1, -1)
		l.add("ip-proto-%d", proto)
		l.length(r)
	}
}

func (l *line) igmp(r rest) {
	if len(r.b) < 8 {
		l.cut("igmp")
		return
	}
	name := map[byte]string{0x11: "query", 0x12: "v1 report", 0x16: "v2 report", 0x17: "leave", 0x22: "v3 report"}[r.b[0]]
	if name == "" {
		l.add("igmp type 0x%02x", r.b[0])
	} else {
		l.str("igmp " + name)
	}
	if r.b[0] != 0x22 && u32(r.b[4:]) != 0 {
		l.str(" ")
		l.addr(r.b[4:8])
	}
	l.length(r)
}

func (l *line) icmp(r rest) {
	var h layers.ICMPv4
	if h.DecodeFromBytes(r.b, gopacket.NilDecodeFeedback) != nil {
		l.cut("icmp")
		return
	}
	l.str("icmp ")
	switch h.TypeCode.Type() {
	case layers.ICMPv4TypeEchoRequest:
		l.add("echo request, id %d, seq %d", h.Id, h.Seq)
	case layers.ICMPv4TypeEchoReply:
		l.add("echo reply, id %d, seq %d", h.Id, h.Seq)
	case layers.ICMPv4TypeDestinationUnreachable:
		l.unreachable(h.TypeCode.Code(), int(h.Seq), r.after(8).b)
	case layers.ICMPv4TypeTimeExceeded:
		l.str([]string{"time exceeded in-transit", "ip reassembly time exceeded"}[h.TypeCode.Code()&1])
	case layers.ICMPv4TypeRedirect:
		l.str("redirect to ")
		l.addr(r.b[4:8])
	default:
		l.str(h.TypeCode.String())
	}
	l.length(r)
}

// unreachable tells of what could not be reached: the packet that is quoted.
func (l *line) unreachable(code uint8, mtu int, quoted []byte) {
	if len(quoted) < frame.IPv4MinLen {
		l.add("unreachable, code %d", code)
		return
	}
	dst := quoted[16:20]
	switch size := int(quoted[0]&0x0f) * 4; {
	case code == layers.ICMPv4CodeHost:
		l.str("host ")
		l.addr(dst)
		l.str(" unreachable")
	case code == layers.ICMPv4CodePort && len(quoted) >= size+4:
		l.addr(dst)
		l.add(" %s port %d unreachable", protoName(quoted[9]), u16(quoted[size+2:]))
	case code == layers.ICMPv4CodeFragmentationNeeded:
		l.addr(dst)
		l.add(" unreachable - need to frag (mtu %d)", mtu)
	default:
		l.addr(dst)
		l.add(" unreachable, code %d", code)
	}
}

func (l *line) icmp6(r rest) {
	var h layers.ICMPv6
	if h.DecodeFromBytes(r.b, gopacket.NilDecodeFeedback) != nil || len(r.b) < 8 {
		l.cut("icmp6")
		return
	}
	l.str("icmp6 ")
	target := func(text string) {
		l.str(text)
		if len(r.b) < 24 {
			l.cut("icmp6")
			return
		}
		l.addr(r.b[8:24])
	}
	switch h.TypeCode.Type() {
	case layers.ICMPv6TypeEchoRequest:
		l.add("echo request, id %d, seq %d", u16(r.b[4:]), u16(r.b[6:]))
	case layers.ICMPv6TypeEchoReply:
		l.add("echo reply, id %d, seq %d", u16(r.b[4:]), u16(r.b[6:]))
	case layers.ICMPv6TypeNeighborSolicitation:
		target("neighbor solicitation, who has ")
	case layers.ICMPv6TypeNeighborAdvertisement:
		target("neighbor advertisement, tgt is ")
	case layers.ICMPv6TypeRouterSolicitation:
		l.str("router solicitation")
	case layers.ICMPv6TypeRouterAdvertisement:
		l.str("router advertisement")
	case layers.ICMPv6TypePacketTooBig:
		l.add("packet too big, mtu %d", u32(r.b[4:]))
	case layers.ICMPv6TypeDestinationUnreachable:
		l.add("destination unreachable, code %d", h.TypeCode.Code())
	case layers.ICMPv6TypeTimeExceeded:
		l.str("time exceeded")
	case layers.ICMPv6TypeMLDv2MulticastListenerReportMessageV2:
		l.str("multicast listener report v2")
	case layers.ICMPv6TypeMLDv1MulticastListenerQueryMessage:
		l.str("multicast listener query")
	case layers.ICMPv6TypeMLDv1MulticastListenerReportMessage:
		l.str("multicast listener report")
	case layers.ICMPv6TypeMLDv1MulticastListenerDoneMessage:
		l.str("multicast listener done")
	default:
		l.str(h.TypeCode.String())
	}
	l.length(r)
}
