package frame

import (
	"encoding/binary"
	"errors"
)

// EtherTypes and IP protocols that this package looks into.
const (
	EtherIPv4 = 0x0800
	EtherIPv6 = 0x86dd
	EtherARP  = 0x0806
	// EtherProbe is the first of IEEE 802's Local Experimental EtherTypes
	// (IEEE 802-2014, clause 9.2.4): the switch's probes have it.
	EtherProbe = 0x88b5

	ProtoTCP = 6
	ProtoUDP = 17
)

// Sizes in bytes, and the bounds of what Parse walks over.
const (
	IPv4MinLen = 20
	IPv6Len    = 40
	TCPMinLen  = 20
	UDPLen     = 8

	maxTags       = 2 // tags left in the bytes, beside the one in Frame.Tag
	maxExtHeaders = 8 // IPv6; RFC 8504 section 5.3 lets a node set a limit
)

// What Parse finds. They are allocated once: a hostile sender may cause many.
var (
	ErrTruncated  = errors.New("frame ends inside a header, or before the length that a header claims")
	ErrMalformed  = errors.New("header has an impossible version or length")
	ErrExtHeaders = errors.New("IPv6 packet has too many extension headers")
)

// Layout tells where a frame's headers begin, in bytes from its first one. An
// offset of 0 means: there is none.
type Layout struct {
	EtherType uint16 // the one behind all tags; below 0x600 it is an 802.3 length
	Proto     uint8  // the header at L4: IPv4 protocol, or last IPv6 next header
	Fragment  bool   // the packet is an IP fragment; L4 is 0 but in the first
	Tags      int    // VLAN tags in the bytes, 0 to 2
	L3        int    // what EtherType names; len(b) if nothing follows
	L4        int    // transport header; whatever Proto names, checked for TCP and UDP
	Payload   int    // behind the TCP or UDP header; the same as L4 for others
	End       int    // end of the IP packet; what follows is padding
}

// Parse finds the headers of the frame b, and is the only way in which this
// switch looks into an untrusted frame. After it returns nil each header named
// in the layout lies whole inside b, and
//
//	EthLen <= L3 <= L4 <= Payload <= End <= len(b)
//
// for an IP packet that has L4. A frame that is not IP is no error. With an
// error (ErrShort, ErrTruncated, ErrMalformed, ErrExtHeaders) the layout tells
// how far Parse came. It allocates nothing.
//
// Ethernet II (RFC 894), with IEEE 802.1Q tags between source and EtherType:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Destination Address                      |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                        Source Address                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  TPID (0x8100 or 0x88a8) *    | PCP |D|         VID          *|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           EtherType           |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+          * none, one or two times
func Parse(b []byte) (Layout, error) {
	var l Layout
	if len(b) < EthLen {
		return l, ErrShort
	}
	at := AddrLen
	l.EtherType = binary.BigEndian.Uint16(b[at:])
	for l.EtherType == TPID8021Q || l.EtherType == TPID8021AD {
		if l.Tags == maxTags {
			break // deeper tags are payload
		}
		if len(b) < at+TagLen+2 {
			return l, ErrTruncated
		}
		at += TagLen
		l.Tags++
		l.EtherType = binary.BigEndian.Uint16(b[at:])
	}
	l.L3 = at + 2
	l.End = len(b)
	switch l.EtherType {
	case EtherIPv4:
		return l, l.parseIPv4(b)
	case EtherIPv6:
		return l, l.parseIPv6(b)
	}
	return l, nil
}

// network skips b's tags, as Parse does, and returns the EtherType behind them and
// the offset of what that names: the cheap way in for who wants one byte of a
// header, and then has to see that it lies inside b. len(b) >= EthLen.
func network(b []byte) (etherType uint16, at int) {
	at = EthLen
	etherType = binary.BigEndian.Uint16(b[AddrLen:])
	for range maxTags {
		if etherType != TPID8021Q && etherType != TPID8021AD || len(b) < at+TagLen {
			break
		}
		at += TagLen
		etherType = binary.BigEndian.Uint16(b[at-2:])
	}
	return etherType, at
}

// Offsets in an IPv4 header, RFC 791 section 3.1:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version|  IHL  |Type of Service|          Total Length         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Identification        |0|D|M|     Fragment Offset     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Time to Live |    Protocol   |         Header Checksum       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         Source Address                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Destination Address                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Options, to a multiple of 4                |
const (
	ipv4TOS      = 1
	ipv4TotalLen = 2
	ipv4ID       = 4
	ipv4Fragment = 6
	ipv4TTL      = 8
	ipv4Proto    = 9
	ipv4Checksum = 10
	ipv4Src      = 12
	ipv4Dst      = 16

	ipv4DontFragment   = 0x4000
	ipv4MoreFragments  = 0x2000
	ipv4FragmentOffset = 0x1fff
)

// ipv4HeaderLen takes the first byte of an IPv4 header.
func ipv4HeaderLen(b byte) int { return int(b&0x0f) * 4 }

func (l *Layout) parseIPv4(b []byte) error {
	h := b[l.L3:]
	if len(h) < IPv4MinLen {
		return ErrTruncated
	}
	ihl := ipv4HeaderLen(h[0])
	total := int(binary.BigEndian.Uint16(h[ipv4TotalLen:]))
	if h[0]>>4 != 4 || ihl < IPv4MinLen || total < ihl {
		return ErrMalformed
	}
	if total > len(h) {
		return ErrTruncated
	}
	l.End = l.L3 + total
	l.Proto = h[ipv4Proto]
	frag := binary.BigEndian.Uint16(h[ipv4Fragment:])
	l.Fragment = frag&(ipv4MoreFragments|ipv4FragmentOffset) != 0
	if frag&ipv4FragmentOffset != 0 {
		return nil
	}
	return l.parseL4(b, l.L3+ihl)
}

// Offsets in an IPv6 header, RFC 8200 section 3:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|Version| Traffic Class |           Flow Label                  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|         Payload Length        |  Next Header  |   Hop Limit   |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                  Source Address, 16 bytes                     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                Destination Address, 16 bytes                  |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//
// and in its extension headers, sections 4.3 to 4.6. The length counts units
// of 8 bytes behind the first; the fragment header (*) has none and is 8 bytes.
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Next Header  |  Length       |  Fragment Offset *      |Res|M|
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                      Identification *                         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	ipv6PayloadLen = 4
	ipv6NextHeader = 6
	ipv6HopLimit   = 7
	ipv6Src        = 8
	ipv6Dst        = 24

	ipv6ExtUnit        = 8
	ipv6Fragment       = 2
	ipv6FragmentOffset = 0xfff8

	protoHopByHop = 0
	protoRouting  = 43
	protoFragment = 44
	protoDestOpts = 60
)

func (l *Layout) parseIPv6(b []byte) error {
	h := b[l.L3:]
	if len(h) < IPv6Len {
		return ErrTruncated
	}
	if h[0]>>4 != 6 {
		return ErrMalformed
	}
	// A jumbogram (RFC 2675) claims 0 here; none fits into MaxLen.
	total := IPv6Len + int(binary.BigEndian.Uint16(h[ipv6PayloadLen:]))
	if total > len(h) {
		return ErrTruncated
	}
	l.End = l.L3 + total
	l.Proto = h[ipv6NextHeader]
	at := l.L3 + IPv6Len
	for range maxExtHeaders + 1 {
		switch l.Proto {
		case protoHopByHop, protoRouting, protoDestOpts, protoFragment:
		default:
			return l.parseL4(b, at)
		}
		if at+ipv6ExtUnit > l.End {
			return ErrTruncated
		}
		n := ipv6ExtUnit
		if l.Proto == protoFragment {
			// An atomic fragment (RFC 6946) has offset 0 and no more to come,
			// and still is one: no offload is defined for it.
			l.Fragment = true
			if binary.BigEndian.Uint16(b[at+ipv6Fragment:])&ipv6FragmentOffset != 0 {
				l.Proto = b[at]
				return nil
			}
		} else {
			n += int(b[at+1]) * ipv6ExtUnit
		}
		l.Proto = b[at]
		at += n
		if at > l.End {
			return ErrTruncated
		}
	}
	return ErrExtHeaders
}

// Offsets in a TCP header, RFC 9293 section 3.1:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                        Sequence Number                        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Acknowledgment Number                      |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|  Data | Res-  |C|E|U|A|P|R|S|F|            Window             |
//	| Offset| erved |W|C|R|C|S|S|Y|I|                               |
//	|       |       |R|E|G|K|H|T|N|N|                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           Checksum            |         Urgent Pointer        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                 Options, to a multiple of 4                   |
const (
	tcpSeq        = 4
	tcpDataOffset = 12
	tcpFlags      = 13
	tcpChecksum   = 16

	tcpFIN = 0x01
	tcpSYN = 0x02
	tcpPSH = 0x08
	tcpCWR = 0x80
)

// Offsets in a UDP header, RFC 768:
//
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|          Source Port          |       Destination Port        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|            Length             |           Checksum            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	udpLength   = 4
	udpChecksum = 6
)

// tcpHeaderLen takes the byte at tcpDataOffset.
func tcpHeaderLen(b byte) int { return int(b>>4) * 4 }

// parseL4 checks the header at offset at, which is not behind l.End. UDP's own
// length is not looked at: receivers differ in what they accept there. A first
// fragment may be too small to hold the header whole, and then has none.
func (l *Layout) parseL4(b []byte, at int) error {
	n := 0
	switch l.Proto {
	case ProtoTCP:
		if l.End-at < TCPMinLen {
			return l.cutL4()
		}
		n = tcpHeaderLen(b[at+tcpDataOffset])
		if n < TCPMinLen {
			return ErrMalformed
		}
	case ProtoUDP:
		n = UDPLen
	}
	if l.End-at < n {
		return l.cutL4()
	}
	l.L4, l.Payload = at, at+n
	return nil
}

func (l *Layout) cutL4() error {
	if l.Fragment {
		return nil
	}
	return ErrTruncated
}
