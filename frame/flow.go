package frame

import (
	"encoding/binary"
	"math/bits"
)

// What the words of a flow are mixed with before they are multiplied: odd numbers
// with about as many ones as zeros. They are digits of pi, and mean nothing.
const (
	flowKey0 = 0x243f6a8885a308d3
	flowKey1 = 0x13198a2e03707345
)

// FlowHash returns a hash of the flow that the Ethernet frame b belongs to, for
// spreading flows over paths; its bits are well mixed, the low ones too. All
// frames of one direction of a flow have the same:
//
//	TCP, UDP, SCTP   addresses, protocol, ports
//	other IP         addresses
//	the rest         MAC addresses, EtherType
//
// Tags in b are skipped. Of a fragment, the first as well, only the addresses
// count, since the others have no ports; the same goes for IPv6 with extension
// headers. Nothing in b is trusted, and what is too short to be an Ethernet frame
// has hash 0. It is no defence against who chooses addresses to collide.
func FlowHash(b []byte) uint32 {
	if len(b) < EthLen {
		return 0
	}
	etherType, at := network(b)
	l3 := b[at:]
	switch {
	case etherType == EtherIPv4 && len(l3) >= IPv4MinLen && l3[0]>>4 == 4:
		var ports uint64
		proto := l3[ipv4Proto]
		if binary.BigEndian.Uint16(l3[ipv4Fragment:])&(ipv4MoreFragments|ipv4FragmentOffset) == 0 && hasPorts(proto) {
			if at := ipv4HeaderLen(l3[0]); at >= IPv4MinLen && at+4 <= len(l3) {
				ports = uint64(proto)<<32 | uint64(binary.BigEndian.Uint32(l3[at:]))
			}
		}
		return mix(binary.BigEndian.Uint64(l3[ipv4Src:]), ports)
	case etherType == EtherIPv6 && len(l3) >= IPv6Len && l3[0]>>4 == 6:
		var ports uint64
		if proto := l3[ipv6NextHeader]; hasPorts(proto) && len(l3) >= IPv6Len+4 {
			ports = uint64(proto)<<32 | uint64(binary.BigEndian.Uint32(l3[IPv6Len:]))
		}
		a := l3[ipv6Src : ipv6Src+32 : ipv6Src+32]
		// Two pairs of 64-bit words, each with a mix of its own, so that what is
		// swapped between source and destination does not cancel out.
		h0, l0 := bits.Mul64(binary.BigEndian.Uint64(a)^flowKey0, binary.BigEndian.Uint64(a[8:])^flowKey1)
		h1, l1 := bits.Mul64(binary.BigEndian.Uint64(a[16:])^flowKey1, binary.BigEndian.Uint64(a[24:])^flowKey0)
		return mix((h0^l0)+bits.RotateLeft64(h1^l1, 32), ports)
	}
	return mix(binary.BigEndian.Uint64(b), uint64(binary.BigEndian.Uint32(b[8:]))<<16|uint64(etherType))
}

// hasPorts reports whether the first four bytes of proto's header are two ports.
func hasPorts(proto uint8) bool {
	return proto == ProtoTCP || proto == ProtoUDP || proto == protoSCTP
}

// mix makes two words one. In a product of 128 bits every bit of either word
// reaches the middle ones, and the halves are folded together; once is not enough
// for words that differ alike in few bits, such as two addresses counted up.
func mix(x, y uint64) uint32 {
	hi, lo := bits.Mul64(x^flowKey0, y^flowKey1)
	hi, lo = bits.Mul64(hi^lo, flowKey0)
	return uint32((hi ^ lo) >> 16)
}
