package frame

import "encoding/binary"

// The DS field, RFC 2474 section 3, is IPv4's second byte, and lies across the
// first two of IPv6. Its low two bits are ECN, RFC 3168 section 5:
//
//	+-----+-----+-----+-----+-----+-----+-----+-----+
//	|               DSCP                |    ECN    |
//	+-----+-----+-----+-----+-----+-----+-----+-----+
const (
	ecnMask   = 3
	ecnNotECT = 0 // the transport knows nothing of ECN
	ecnECT1   = 1
	ecnECT0   = 2
	ecnCE     = 3 // congestion was met
)

// DS returns the DS field (IPv4's TOS, IPv6's traffic class) of the IP packet in
// the Ethernet frame b, and whether there is one. Tags in b are skipped.
func DS(b []byte) (ds uint8, ok bool) {
	ds, _, ok = findDS(b)
	return ds, ok
}

// SetCE says congestion experienced in the IP packet in b, and adjusts the IPv4
// header checksum. It reports false, and changes nothing, where the packet's
// transport would not understand: then RFC 6040 section 4.2 has a tunnel drop it.
// What is no IP packet has no ECN, and is not ECN-capable.
func SetCE(b []byte) bool {
	ds, at, ok := findDS(b)
	if !ok || ds&ecnMask == ecnNotECT {
		return false
	}
	setDS(b, at, ds, ds|ecnCE)
	return true
}

// SetECT1 makes ECT(0) ECT(1) in the IP packet in b, and leaves all else alone: what
// RFC 6040 section 4.2 has a tunnel do when the outer header says ECT(1).
func SetECT1(b []byte) {
	if ds, at, ok := findDS(b); ok && ds&ecnMask == ecnECT0 {
		setDS(b, at, ds, ds&^ecnMask|ecnECT1)
	}
}

// findDS returns also the offset of the IP header. All of that lies inside b, but
// for IPv4 options.
func findDS(b []byte) (ds uint8, at int, ok bool) {
	if len(b) < EthLen {
		return 0, 0, false
	}
	etherType, at := network(b)
	ip := b[at:]
	switch {
	case etherType == EtherIPv4 && len(ip) >= IPv4MinLen && ip[0]>>4 == 4:
		return ip[ipv4TOS], at, true
	case etherType == EtherIPv6 && len(ip) >= IPv6Len && ip[0]>>4 == 6:
		return ip[0]<<4 | ip[1]>>4, at, true
	}
	return 0, 0, false
}

// setDS exchanges the DS field of the IP header that findDS found at offset at.
func setDS(b []byte, at int, old, ds uint8) {
	ip := b[at:]
	if ip[0]>>4 == 6 {
		ip[0] = 6<<4 | ds>>4
		ip[1] = ds<<4 | ip[1]&0x0f
		return
	}
	ip[ipv4TOS] = ds
	sum := binary.BigEndian.Uint16(ip[ipv4Checksum:])
	binary.BigEndian.PutUint16(ip[ipv4Checksum:], adjust(sum, uint16(old), uint16(ds)))
}
