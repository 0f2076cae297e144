package tunnel

import (
	"encoding/binary"

	"vswitch/frame"
)

// What is asked about an inner frame, beside what package frame answers. All of it
// looks at untrusted bytes, and none needs more than the first headers.

// Values of the ECN field, RFC 3168 section 5.
const (
	ecnMask   = 3
	ecnNotECT = 0
	ecnECT1   = 1
	ecnECT0   = 2
	ecnCE     = 3
)

// Offsets in IP headers, as package frame draws them.
const (
	ipv4DS       = 1
	ipv4Fragment = 6
	ipv4TTL      = 8
	ipv4Proto    = 9
	ipv4Checksum = 10
	ipv4Src      = 12
	ipv4Dst      = 16

	ipv6NextHeader = 6
	ipv6HopLimit   = 7

	tcpFlags = 13
	tcpSYN   = 0x02
)

// ipHeader returns the bytes from the IP header of the Ethernet frame b on, and
// its version; 0 if there is none, or not whole. Up to two tags are skipped.
func ipHeader(b []byte) (ip []byte, version int) {
	at := frame.AddrLen
	for range 3 {
		if len(b) < at+2 {
			return nil, 0
		}
		switch binary.BigEndian.Uint16(b[at:]) {
		case frame.TPID8021Q, frame.TPID8021AD:
			at += frame.TagLen
			continue
		case frame.EtherIPv4:
			if ip = b[at+2:]; len(ip) >= frame.IPv4MinLen && ip[0]>>4 == 4 {
				return ip, 4
			}
		case frame.EtherIPv6:
			if ip = b[at+2:]; len(ip) >= frame.IPv6Len && ip[0]>>4 == 6 {
				return ip, 6
			}
		}
		break
	}
	return nil, 0
}

// tagsLen returns how many bytes the tags in b take, of which up to two are looked
// at. An IP packet behind them must be so much shorter than one without.
func tagsLen(b []byte) (n int) {
	for n < 2*frame.TagLen && len(b) >= frame.AddrLen+n+2 {
		switch binary.BigEndian.Uint16(b[frame.AddrLen+n:]) {
		case frame.TPID8021Q, frame.TPID8021AD:
			n += frame.TagLen
		default:
			return n
		}
	}
	return n
}

// ttl returns the TTL or hop limit of the IP packet in b, 0 if it is none.
func ttl(b []byte) uint8 {
	switch ip, version := ipHeader(b); version {
	case 4:
		return ip[ipv4TTL]
	case 6:
		return ip[ipv6HopLimit]
	}
	return 0
}

// maySYN tells whether the frame b may be a TCP SYN, whose MSS is then looked at
// in a copy. Behind IPv6 extension headers anything may be one.
func maySYN(b []byte) bool {
	switch ip, version := ipHeader(b); version {
	case 4:
		l4 := int(ip[0]&0x0f) * 4
		return ip[ipv4Proto] == frame.ProtoTCP && len(ip) > l4+tcpFlags && ip[l4+tcpFlags]&tcpSYN != 0
	case 6:
		switch ip[ipv6NextHeader] {
		case frame.ProtoTCP:
			return len(ip) > frame.IPv6Len+tcpFlags && ip[frame.IPv6Len+tcpFlags]&tcpSYN != 0
		case 0, 43, 60: // hop-by-hop, routing, destination options
			return true
		}
	}
	return false
}

// congestion carries the ECN field of the outer header over to the inner packet
// in b, as RFC 6040 section 4.2 says:
//
//	inner    | outer Not-ECT  ECT(0)   ECT(1)   CE
//	Not-ECT  |       Not-ECT  Not-ECT  Not-ECT  drop
//	ECT(0)   |       ECT(0)   ECT(0)   ECT(1)   CE
//	ECT(1)   |       ECT(1)   ECT(1)   ECT(1)   CE
//	CE       |       CE       CE       CE       CE
//
// It reports false where the packet must be dropped. What is not IP passes.
func congestion(outer uint8, b []byte) bool {
	switch outer & ecnMask {
	case ecnCE:
		if ds, ok := frame.DS(b); ok && ds&ecnMask != ecnCE {
			return frame.SetCE(b)
		}
	case ecnECT1:
		if ds, ok := frame.DS(b); ok && ds&ecnMask == ecnECT0 {
			frame.SetECT1(b)
		}
	}
	return true
}

// The address and port of BFD as OVS sends it over tunnels (lib/bfd.c).
var bfdMAC = [6]byte{0x00, 0x23, 0x20, 0x00, 0x00, 0x01}

const (
	bfdPort  = 3784 // RFC 5881 section 4
	protoUDP = 17
)

// isBFD tells whether the frame b is a BFD control packet of the tunnel itself,
// and not one that somebody sends through it: it is to a MAC address that only
// tunnels' BFD uses.
func isBFD(b []byte) bool {
	if len(b) < frame.EthLen || [6]byte(b) != bfdMAC {
		return false
	}
	ip, version := ipHeader(b)
	if version != 4 || ip[ipv4Proto] != protoUDP {
		return false
	}
	l4 := int(ip[0]&0x0f) * 4
	return len(ip) >= l4+4 && binary.BigEndian.Uint16(ip[l4+2:]) == bfdPort
}
