package frame

import (
	"encoding/binary"
	"slices"
)

// ICMP fragmentation needed, RFC 792 as RFC 1191 section 4 has it, and ICMPv6
// packet too big, RFC 4443 section 3.2. As much of the packet as fits follows:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|   Type 3, 2   |   Code 4, 0   |          Checksum             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      MTU, 32 bits in ICMPv6, the low 16 of them in ICMP       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	icmpLen      = 8
	icmpChecksum = 2
	icmpMTU      = 4

	icmpUnreachable  = 3
	icmpFragNeeded   = 4 // a code
	icmpSourceQuench = 4
	icmpRedirect     = 5
	icmpTimeExceeded = 11
	icmpParamProblem = 12

	icmpv6TooBig   = 2
	icmpv6Info     = 128 // below it are errors
	icmpv6Redirect = 137

	protoICMP   = 1
	protoICMPv6 = 58
)

// Bounds in bytes of IP packets.
const (
	minMTUv4 = 68   // RFC 791 section 3.2: what every link takes
	minMTUv6 = 1280 // RFC 8200 section 5

	maxICMP   = 576      // RFC 1812 section 4.3.2.3: an error's length
	maxICMPv6 = minMTUv6 // RFC 4443 section 2.4 (c)
)

// What stands in the header of an answer. The kernel's answer for a bridged tunnel
// copies the hop count, which may be used up; a new one is what RFC 1122 asks for.
const (
	answerTTL = 64
	answerTOS = 0xc0 // RFC 1812 section 4.3.2.5: internetwork control
)

// TooBig makes dst the ICMP or ICMPv6 error that tells the sender of f that mtu is
// the length in bytes of the longest IP packet that can pass, and reports whether
// it may be sent. dst is any other frame, has f's tag and no offload, and keeps its
// Port; when TooBig returns false it is unchanged.
//
// A bridge has no address to answer from. So the answer comes from whom f is for,
// as the kernel's does for a tunnel in a bridge (iptunnel_pmtud_build_icmp): MAC
// and IP addresses are f's, swapped. How often it is sent is the caller's to limit.
//
// No answer goes (RFC 1812 section 4.3.2.7, RFC 4443 section 2.4) to
//   - what is not IP, does not parse, or has a wrong IPv4 header checksum,
//   - an ICMP error, or a fragment that is not the first,
//   - multicast or broadcast, by MAC or IP address (RFC 4443 would have one, but it
//     could not come from the packet's destination),
//   - a source that is no single host: unspecified, loopback, multicast,
//
// nor with an mtu that is no valid one, below 68 or 1280.
//
// An IPv4 packet that may be fragmented is answered, where a router would fragment
// it: a switch cannot, and Linux learns the path's MTU from any answer. A datagram of
// 3000 bytes leaves a container of MTU 1500 in such fragments.
//
// f may be a super-frame, and its checksum partial: it is quoted as it is, with the
// length of the whole in its IP header. The sender's stack finds the socket by
// addresses and ports, and checks that the first sequence number is one in flight,
// which it is; it looks at no length and no checksum, and the kernel quotes the
// same (skb_gso_reset changes no bytes).
func TooBig(dst, f *Frame, mtu int) bool {
	b := f.Bytes()
	l, err := Parse(b)
	if err != nil || l.L4 == 0 || b[0]&1 != 0 || b[6]&1 != 0 {
		return false
	}
	switch l.EtherType {
	case EtherIPv4:
		if mtu < minMTUv4 || mtu > 0xffff || !answerableIPv4(b, &l, f.Super()) {
			return false
		}
		ip, quote := answer(dst, f, &l, IPv4MinLen, maxICMP)
		icmp := putICMP(ip[IPv4MinLen:], icmpUnreachable, icmpFragNeeded, mtu, quote)
		binary.BigEndian.PutUint16(icmp[icmpChecksum:], ^Sum(icmp, 0))

		clear(ip[:IPv4MinLen])
		ip[0] = 4<<4 | IPv4MinLen/4
		ip[ipv4TOS] = answerTOS
		binary.BigEndian.PutUint16(ip[ipv4TotalLen:], uint16(len(ip)))
		binary.BigEndian.PutUint16(ip[ipv4Fragment:], ipv4DontFragment)
		ip[ipv4TTL] = answerTTL
		ip[ipv4Proto] = protoICMP
		copy(ip[ipv4Src:], quote[ipv4Dst:ipv4Dst+4])
		copy(ip[ipv4Dst:], quote[ipv4Src:ipv4Src+4])
		binary.BigEndian.PutUint16(ip[ipv4Checksum:], ^Sum(ip[:IPv4MinLen], 0))
		return true
	case EtherIPv6:
		if mtu < minMTUv6 || !answerableIPv6(b, &l) {
			return false
		}
		ip, quote := answer(dst, f, &l, IPv6Len, maxICMPv6)
		icmp := putICMP(ip[IPv6Len:], icmpv6TooBig, 0, mtu, quote)

		clear(ip[:IPv6Len])
		ip[0] = 6 << 4
		binary.BigEndian.PutUint16(ip[ipv6PayloadLen:], uint16(len(icmp)))
		ip[ipv6NextHeader] = protoICMPv6
		ip[ipv6HopLimit] = answerTTL
		copy(ip[ipv6Src:], quote[ipv6Dst:ipv6Dst+16])
		copy(ip[ipv6Dst:], quote[ipv6Src:ipv6Src+16])
		pseudo := Pseudo(ip[ipv6Src:IPv6Len], protoICMPv6, len(icmp))
		binary.BigEndian.PutUint16(icmp[icmpChecksum:], ^Sum(icmp, pseudo))
		return true
	}
	return false
}

// answer makes dst a frame back to f's sender, with room for an IP packet of at
// most limit bytes that has a header of hdr bytes, and quotes f. It returns that
// room, and the part of f that is quoted.
func answer(dst, f *Frame, l *Layout, hdr, limit int) (ip, quote []byte) {
	b := f.Bytes()
	quote = b[l.L3:min(l.End, l.L3+limit-hdr-icmpLen)]
	dst.Reset(l.L3 + hdr + icmpLen + len(quote))
	dst.Tag = f.Tag
	a := dst.Bytes()
	copy(a, b[AddrLen/2:AddrLen])
	copy(a[AddrLen/2:], b[:AddrLen/2])
	copy(a[AddrLen:], b[AddrLen:l.L3]) // EtherType, and tags in the bytes
	return a[l.L3:], quote
}

// putICMP writes the message that p has room for, without its checksum, and
// returns p.
func putICMP(p []byte, kind, code uint8, mtu int, quote []byte) []byte {
	p[0], p[1] = kind, code
	binary.BigEndian.PutUint16(p[icmpChecksum:], 0)
	binary.BigEndian.PutUint32(p[icmpMTU:], uint32(mtu))
	copy(p[icmpLen:], quote)
	return p
}

// answerableIPv4 reports whether an ICMP error may answer the packet that l found
// in b. The header checksum of a super-frame need not be filled in: see Finish.
func answerableIPv4(b []byte, l *Layout, super bool) bool {
	ip := b[l.L3:l.End]
	if !super && Sum(ip[:ipv4HeaderLen(ip[0])], 0) != 0xffff {
		return false
	}
	if !oneHostIPv4(ip[ipv4Src:]) || !oneHostIPv4(ip[ipv4Dst:]) {
		return false
	}
	if l.Proto != protoICMP {
		return true
	}
	if l.L4 >= l.End {
		return false // who knows
	}
	switch b[l.L4] {
	case icmpUnreachable, icmpSourceQuench, icmpRedirect, icmpTimeExceeded, icmpParamProblem:
		return false
	}
	return true
}

// oneHostIPv4 reports whether a packet may come from the address a begins with: it
// is not of 0/8 ("this network"), 127/8, multicast, class E or broadcast.
func oneHostIPv4(a []byte) bool { return a[0] != 0 && a[0] != 127 && a[0] < 224 }

// answerableIPv6 is answerableIPv4 for IPv6.
func answerableIPv6(b []byte, l *Layout) bool {
	ip := b[l.L3:l.End]
	if !oneHostIPv6(ip[ipv6Src:ipv6Src+16]) || !oneHostIPv6(ip[ipv6Dst:ipv6Dst+16]) {
		return false
	}
	if l.Proto != protoICMPv6 {
		return true
	}
	return l.L4 < l.End && b[l.L4] >= icmpv6Info && b[l.L4] != icmpv6Redirect
}

// oneHostIPv6 reports whether a packet may come from the address a: it is not
// multicast, unspecified or loopback.
func oneHostIPv6(a []byte) bool {
	zeros := !slices.ContainsFunc(a[:15], func(v byte) bool { return v != 0 })
	return a[0] != 0xff && !(zeros && a[15] <= 1)
}
