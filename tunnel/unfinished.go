package tunnel

import (
	"encoding/binary"

	"vswitch/frame"
)

// # Unfinished frames
//
// The kernel may hand a datagram over whose inner packet it has not finished, or has
// put together from several, and a socket is not told:
//
//   - A tunnel device of the kernel behind a veth (a peer on the same machine) leaves
//     the inner checksum, and the cutting of a super-frame, to a network card that is
//     not there (CHECKSUM_PARTIAL, SKB_GSO_UDP_TUNNEL, SKB_GSO_GRE).
//   - Generic receive offload joins the TCP segments inside of GRE packets
//     (gre_gro_receive) after it has verified them, whoever they are for.
//
// Both leave the folded sum of the pseudo-header, not complemented, where the
// checksum belongs. That is how they are known, and they go on as what they are: with
// the checksum still to be finished, and as super-frames where they are longer than
// any frame of the tunnel. A right checksum may have the same 16 bits, and is written
// again; a wrong one has them once in 65,536 times, which is as often as damage gets
// past the checksum itself.

// superMTU is the IP packet that such a super-frame is cut for, as nobody says how it
// was, or will have been: what every IPv6 link takes (RFC 8200 section 5).
const superMTU = 1280

// longestPlain is the longest inner IP packet that is taken for one packet: what ends
// of such streams send each other mostly. A longer one of TCP is cut, which hurts no
// one; several that were joined to a length that the path would take, and left whole,
// would fit nowhere behind it.
const longestPlain = 1500

// smallestSegment is the smallest payload that is cut for: headers that leave less are
// somebody's joke.
const smallestSegment = 500

// unfinished tells whether the inner frame b is such a one, and returns its offload
// state, which counts from b's first byte. mtu is the longest inner packet, 0: not
// known. A frame that joins several is a super-frame of TCP; of UDP nobody could tell
// where one datagram ends.
func unfinished(b []byte, mtu int) (o frame.Offload, ok bool) {
	l, err := frame.Parse(b)
	if err != nil || l.L4 == 0 || l.Fragment || l.End != len(b) {
		return o, false
	}
	var field, gso int
	switch l.Proto {
	case frame.ProtoTCP:
		field, gso = 16, frame.GSOTCPv4
	case frame.ProtoUDP:
		field = 6
	default:
		return o, false
	}
	addrs := b[l.L3+ipv4Src : l.L3+ipv4Src+8]
	if l.EtherType == frame.EtherIPv6 {
		addrs = b[l.L3+8 : l.L3+frame.IPv6Len]
		if gso != 0 {
			gso = frame.GSOTCPv6
		}
	}
	sum := frame.Sum(nil, frame.Pseudo(addrs, l.Proto, l.End-l.L4))
	if binary.BigEndian.Uint16(b[l.L4+field:]) != sum {
		return o, false
	}
	o = frame.Offload{Flags: frame.NeedsCsum, CsumStart: uint16(l.L4), CsumOffset: uint16(field)}
	if mtu == 0 || mtu > longestPlain {
		mtu = longestPlain
	}
	if size := superMTU - (l.Payload - l.L3); gso != 0 && l.End-l.L3 > mtu && size >= smallestSegment {
		o.GSOType, o.GSOSize, o.HdrLen = uint8(gso), uint16(size), uint16(l.Payload)
	}
	return o, true
}

// joined tells whether the inner frame b, which came in a GRE packet whose checksum
// is wrong, is several that receive offload joined: it verified their checksums, and
// left the first one's standing (gre_gro_complete). No such frame comes off a wire,
// as it is longer than any.
func joined(b []byte, mtu int) bool {
	o, ok := unfinished(b, mtu)
	return ok && o.Super()
}
