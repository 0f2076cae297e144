package frame

import "encoding/binary"

// # Encapsulated super-frames
//
// A container may have a tunnel of its own on its veth. A veth takes an
// encapsulated super-frame whole (NETIF_F_GSO_ENCAP_ALL), with the transport
// that is to be cut behind two IP headers:
//
//	Ethernet | IP | UDP | VXLAN, Geneve, … Ethernet | IP | TCP | payload
//	         | IP | GRE |               (Ethernet) | IP | TCP | payload
//	         | IP |                                | IP | TCP | payload
//	         outer                                 inner  ^ CsumStart
//
// struct virtio_net_hdr cannot say so: virtio_net_hdr_from_skb tells of plain TCP
// with CsumStart at the inner header, and a kernel that is given the same frame
// back takes the outer one for it, and fails. So such a frame has to be cut by a
// Segmenter for every output, whatever that output can do.
//
// What lies between the headers is not looked at: kinds of tunnel are many, and
// their ports a matter of configuration. The inner IP header is the one that ends
// at CsumStart, and whose packet ends where the frame does.

// IP protocols that carry an IP packet or a frame, beside UDP.
const (
	protoIPIP = 4  // RFC 2003
	protoSIT  = 41 // RFC 4213; IPv6 in IPv4 or in IPv6
	protoGRE  = 47 // RFC 2784
)

// Offsets in a GRE header, RFC 2784 section 2.1 and RFC 2890 section 2:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|C|R|K|S|      Reserved0  | Ver |         Protocol Type         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      Checksum (if C)          |       Reserved1 (if C)        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         Key (if K)                            |
const (
	greLen      = 4
	greChecksum = 4

	greHasChecksum = 0x8000
	greHasKey      = 0x2000
	// What cannot be repeated in each segment, or is no GRE of RFC 2784: source
	// routes, sequence numbers, other versions (PPTP's is 1).
	greRefused = 0x4000 | 0x1000 | 0x0007
)

// Bounds in bytes of what is searched for the inner IP header.
const (
	// maxTunnelLen is the longest that stands between UDP or GRE and the inner IP
	// header: Geneve with all its options, Ethernet, tags.
	maxTunnelLen = 8 + 63*4 + EthLen + maxTags*TagLen
	// maxInnerExt bounds the inner packet's IPv6 extension headers.
	maxInnerExt = 256
)

// Encapsulated reports whether f is a super-frame of a tunnel: its outer transport
// header is not the one to be cut, at CsumStart. Only a Segmenter can do that,
// whatever the output's offloads. Call it only after Check returned nil. Of a
// frame whose headers Parse does not understand it says false.
func (f *Frame) Encapsulated() bool {
	if !f.Super() {
		return false
	}
	l, err := Parse(f.Bytes())
	return err == nil && l.L4 != 0 && l.L4 != int(f.CsumStart)
}

// segmented returns what a super-frame's segments are of: the EtherType of the
// packet that is cut, 0 if it may be either, and its protocol.
func (o *Offload) segmented() (etherType uint16, proto uint8) {
	switch o.GSOType &^ GSOECN {
	case GSOTCPv4:
		return EtherIPv4, ProtoTCP
	case GSOTCPv6:
		return EtherIPv6, ProtoTCP
	}
	return 0, ProtoUDP
}

// tunnel is the outer half of an encapsulated frame: what each segment repeats in
// front of the inner IP header, and what changes in it (__skb_udp_tunnel_segment,
// gre_gso_segment and inet_gso_segment do the same):
//
//	IPv4   as for the inner: total length, identification, header checksum
//	IPv6   payload length
//	UDP    length; checksum, unless it is 0: a super-frame's is the folded
//	       pseudo-header sum (udp_set_csum, udp4_gro_complete)
//	GRE    checksum, if there is one
type tunnel struct {
	ip    ipHeader
	at    int    // offset of the UDP or GRE header; 0 means: no tunnel
	udp   bool   // has a length
	field int    // offset of the checksum, from at; 0 if there is none
	phSum uint32 // pseudo-header without length; 0 for GRE, which has none
}

// find makes t the tunnel whose outer headers Parse found in the frame b, and
// returns the layout of the inner packet, whose transport header is at start. It
// reports false if there is no such packet, or more than one tunnel around it.
func (t *tunnel) find(b []byte, outer *Layout, start int, etherType uint16, proto uint8) (Layout, bool) {
	*t = tunnel{ip: readIP(b, outer), at: outer.L4}
	low := outer.Payload // where the inner header may begin
	switch outer.Proto {
	case ProtoUDP:
		t.udp = true
		if sum := binary.BigEndian.Uint16(b[t.at+udpChecksum:]); sum != 0 {
			t.field = udpChecksum
			t.phSum = uint32(sum) + uint32(^fold(uint32(len(b)-t.at)))
		}
	case protoGRE:
		if low += greLen; low > outer.End {
			return Layout{}, false
		}
		flags := binary.BigEndian.Uint16(b[t.at:])
		if flags&greRefused != 0 {
			return Layout{}, false
		}
		if flags&greHasChecksum != 0 {
			t.field = greChecksum
			low += 4
		}
		if flags&greHasKey != 0 {
			low += 4
		}
	case protoIPIP, protoSIT:
	default:
		return Layout{}, false
	}
	if (start-t.at)%2 != 0 {
		return Layout{}, false // headers are whole 16-bit words, and so are sums over them
	}
	in, ok := findInner(b, low, start, etherType, proto)
	if !ok || in.L3-low > maxTunnelLen || tunnelWithin(b[low:], in.L3-low) {
		return Layout{}, false
	}
	switch {
	case outer.Proto == protoIPIP && (in.L3 != low || in.EtherType != EtherIPv4),
		outer.Proto == protoSIT && (in.L3 != low || in.EtherType != EtherIPv6):
		return Layout{}, false
	}
	return in, true
}

// findInner looks for an IP header at low or behind, whose packet's transport
// header is at start, and which ends where b does. An etherType of 0 means: IPv4
// or IPv6.
func findInner(b []byte, low, start int, etherType uint16, proto uint8) (Layout, bool) {
	if etherType != EtherIPv6 {
		for n := IPv4MinLen; n <= 15*4 && start-n >= low; n += 4 {
			if b[start-n] != byte(0x40|n/4) {
				continue
			}
			l := Layout{EtherType: EtherIPv4, L3: start - n}
			if l.parseIPv4(b) == nil && l.ends(start, proto, len(b)) {
				return l, true
			}
		}
	}
	if etherType != EtherIPv4 {
		for n := IPv6Len; n <= IPv6Len+maxInnerExt && start-n >= low; n += ipv6ExtUnit {
			if b[start-n]>>4 != 6 {
				continue
			}
			l := Layout{EtherType: EtherIPv6, L3: start - n}
			if l.parseIPv6(b) == nil && l.ends(start, proto, len(b)) {
				return l, true
			}
		}
	}
	return Layout{}, false
}

// ends reports whether l is a whole packet of proto with its header at start.
func (l *Layout) ends(start int, proto uint8, end int) bool {
	return l.L4 == start && l.Proto == proto && l.End == end && !l.Fragment
}

// tunnelWithin reports whether an IP header that carries another packet, and ends
// where b does, stands in the first n bytes of b: one tunnel in another.
func tunnelWithin(b []byte, n int) bool {
	for at := 0; at+IPv4MinLen <= n; at += 2 {
		h := b[at:]
		var length, total int
		var proto uint8
		switch h[0] >> 4 {
		case 4:
			length = ipv4HeaderLen(h[0])
			total = int(binary.BigEndian.Uint16(h[ipv4TotalLen:]))
			proto = h[ipv4Proto]
		case 6:
			length = IPv6Len
			total = IPv6Len + int(binary.BigEndian.Uint16(h[ipv6PayloadLen:]))
			proto = h[ipv6NextHeader]
		default:
			continue
		}
		if length < IPv4MinLen || at+length > n || total != len(h) {
			continue
		}
		switch proto {
		case ProtoUDP, protoGRE, protoIPIP, protoSIT, protoHopByHop, protoRouting, protoDestOpts:
			return true
		}
	}
	return false
}

// write fills in the outer headers of a segment of size bytes, of which b has all
// headers, and whose inner transport header is at start. What is behind start sums
// to rest.
//
// The inner checksum makes all behind start sum up to the complement of the inner
// pseudo-header's sum, so there is no need to read the payload a second time: what
// the kernel calls local checksum offload (lco_csum).
func (t *tunnel) write(b []byte, size, start int, rest uint16) {
	t.ip.write(b[t.ip.at:], size-t.ip.at)
	p, n := b[t.at:start], size-t.at
	if t.udp {
		binary.BigEndian.PutUint16(p[udpLength:], uint16(n))
	}
	t.sum(p, n, rest)
}

// sum writes the checksum, if there is one, of a packet of n bytes that begins
// with the UDP or GRE header, and with p. What is behind p sums to rest.
func (t *tunnel) sum(p []byte, n int, rest uint16) {
	switch {
	case t.field == 0:
	case t.udp:
		binary.BigEndian.PutUint16(p[t.field:], 0)
		putUDPSum(p, Sum(p, t.phSum+uint32(n)+uint32(rest)))
	default:
		binary.BigEndian.PutUint32(p[t.field:], 0) // with Reserved1
		binary.BigEndian.PutUint16(p[t.field:], ^Sum(p, uint32(rest)))
	}
}

// putUDPSum puts the complement of sum into the UDP header at the start of p.
func putUDPSum(p []byte, sum uint16) {
	sum = ^sum
	if sum == 0 {
		sum = 0xffff // 0 means "no checksum", RFC 768
	}
	binary.BigEndian.PutUint16(p[udpChecksum:], sum)
}
