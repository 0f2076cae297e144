package frame

import (
	"encoding/binary"
	"math/bits"
)

// TCP options, RFC 9293 section 3.1. All but the first two have a length behind
// their kind, which counts both:
//
//	+--------+   +--------+   +--------+--------+--------+--------+
//	| 0 end  |   | 1 nop  |   | 2 MSS  |   4    |  max. seg. size |
//	+--------+   +--------+   +--------+--------+--------+--------+
const (
	tcpOptEnd = 0
	tcpOptNop = 1
	tcpOptMSS = 2

	tcpOptMSSLen = 4
)

// ClampMSS lowers the MSS option of a TCP SYN in b to what an IP packet of mtu
// bytes holds, and reports whether it changed anything. b is an Ethernet frame,
// with or without tags in its bytes, and private to the caller. The TCP checksum is
// adjusted, and stays wrong if it was, unless partial says that it covers only the
// pseudo-header so far.
//
// As RFC 6691 has it, options of IP and TCP do not count: the MSS is mtu less 40
// bytes for IPv4, less 60 for IPv6. It is never raised, and a SYN without the
// option is left alone, since that means 536 or 1220. A fragment is no SYN: its
// checksum covers more than is here.
func ClampMSS(b []byte, mtu int, partial bool) bool {
	if !maybeSYN(b) {
		return false
	}
	l, err := Parse(b)
	if err != nil || l.L4 == 0 || l.Proto != ProtoTCP || l.Fragment {
		return false
	}
	limit := mtu - IPv6Len - TCPMinLen
	if l.EtherType == EtherIPv4 {
		limit = mtu - IPv4MinLen - TCPMinLen
	}
	tcp := b[l.L4:l.Payload]
	if limit <= 0 || tcp[tcpFlags]&tcpSYN == 0 {
		return false
	}
	changed := false
	for at := TCPMinLen; at < len(tcp); {
		switch tcp[at] {
		case tcpOptEnd:
			return changed
		case tcpOptNop:
			at++
			continue
		}
		if at+1 >= len(tcp) {
			return changed
		}
		n := int(tcp[at+1])
		if n < 2 || at+n > len(tcp) {
			return changed
		}
		// A receiver may take the last of several; so none is left out.
		if tcp[at] == tcpOptMSS && n == tcpOptMSSLen {
			if old := binary.BigEndian.Uint16(tcp[at+2:]); int(old) > limit {
				lowerMSS(tcp, at+2, old, uint16(limit), partial)
				changed = true
			}
		}
		at += n
	}
	return changed
}

// lowerMSS writes an MSS at offset at of the TCP header, and adjusts the checksum.
func lowerMSS(tcp []byte, at int, old, mss uint16, partial bool) {
	binary.BigEndian.PutUint16(tcp[at:], mss)
	if partial {
		return
	}
	if at%2 != 0 {
		// The bytes are halves of two words; summed, they are one that is swapped.
		old, mss = bits.ReverseBytes16(old), bits.ReverseBytes16(mss)
	}
	sum := binary.BigEndian.Uint16(tcp[tcpChecksum:])
	binary.BigEndian.PutUint16(tcp[tcpChecksum:], adjust(sum, old, mss))
}

// maybeSYN tells most frames that are no SYN from the others at the cost of a few
// compares. What has IPv6 extension headers it leaves to Parse.
func maybeSYN(b []byte) bool {
	if len(b) < EthLen {
		return false
	}
	etherType, at := network(b)
	ip := b[at:]
	switch etherType {
	case EtherIPv4:
		if len(ip) < IPv4MinLen || ip[ipv4Proto] != ProtoTCP {
			return false
		}
		at = ipv4HeaderLen(ip[0])
	case EtherIPv6:
		if len(ip) < IPv6Len {
			return false
		}
		switch ip[ipv6NextHeader] {
		case ProtoTCP:
		case protoHopByHop, protoRouting, protoDestOpts:
			return true
		default:
			return false
		}
		at = IPv6Len
	default:
		return false
	}
	return at+tcpFlags < len(ip) && ip[at+tcpFlags]&tcpSYN != 0
}
