package bfd

import (
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"

	"vswitch/frame"
)

// A control packet travels inside the tunnel in an Ethernet frame of 66 bytes,
// as Open vSwitch's bfd_put_packet makes it:
//
//	| Ethernet, 14           | IPv4, 20               | UDP, 8           | BFD, 24 |
//	| dst 00:23:20:00:00:01  | 169.254.1.1            | 49152 to 65535   |         |
//	| src                    |   -> 169.254.1.0       |   -> 3784        |         |
//	| type 0x0800            | TTL 255, TOS 0xc0      | checksum 0: none |         |
//
// TTL 255 (RFC 5881 section 5): what was routed on its way has less.
const (
	offEthDst  = 0
	offEthSrc  = 6
	offEthType = 12
	ethLen     = 14

	// In the IPv4 header.
	offVerIHL   = 0
	offTOS      = 1
	offTotalLen = 2
	offFragment = 6
	offTTL      = 8
	offProto    = 9
	offIPCsum   = 10
	offIPSrc    = 12
	offIPDst    = 16
	ipLen       = 20

	// In the UDP header.
	offUDPSrc  = 0
	offUDPDst  = 2
	offUDPLen  = 4
	offUDPCsum = 6
	udpLen     = 8

	// FrameLen is the length of the frame that Encapsulate makes of a packet of
	// PacketLen bytes.
	FrameLen = ethLen + ipLen + udpLen + PacketLen
)

const (
	etherTypeIPv4 = 0x0800
	protoUDP      = 17
	ttl           = 255
	tos           = 0xc0   // IPTOS_PREC_INTERNETCONTROL: DSCP CS6
	fragmented    = 0x3fff // more fragments, or an offset
	port          = 3784   // RFC 5881 section 4
	firstSrcPort  = 49152  // RFC 5881 section 4: 49152 to 65535
	srcPorts      = 1<<16 - firstSrcPort
)

var (
	peerMAC = [6]byte{0x00, 0x23, 0x20, 0x00, 0x00, 0x01} // eth_addr_bfd in OVS's packets.h
	ipLow   = [4]byte{169, 254, 1, 0}
	ipHigh  = [4]byte{169, 254, 1, 1}
)

// Addresses are what a session's frames carry. It is a value, never changed by
// this package.
type Addresses struct {
	DstMAC, SrcMAC [6]byte
	SrcIP, DstIP   [4]byte
	SrcPort        uint16
}

// lastSrcPort counts the sessions of this process, modulo 1<<32.
var lastSrcPort atomic.Uint32

// NewAddresses returns the addresses that Open vSwitch uses, for a new session: a
// locally administered source MAC made at random, and the next source port, since
// each session should have its own (RFC 5881 section 4).
func NewAddresses() Addresses {
	a := Addresses{
		DstMAC:  peerMAC,
		SrcIP:   ipHigh,
		DstIP:   ipLow,
		SrcPort: uint16(firstSrcPort + (lastSrcPort.Add(1)-1)%srcPorts),
	}
	var r [8]byte
	binary.BigEndian.PutUint64(r[:], rand.Uint64())
	copy(a.SrcMAC[:], r[:])
	a.SrcMAC[0] = a.SrcMAC[0]&^0x03 | 0x02 // unicast, locally administered
	return a
}

// Encapsulate appends to dst the Ethernet frame that carries a control packet.
func Encapsulate(dst []byte, a Addresses, packet []byte) []byte {
	start := len(dst)
	dst = append(dst, make([]byte, ethLen+ipLen+udpLen)...)
	eth := dst[start:]
	copy(eth[offEthDst:], a.DstMAC[:])
	copy(eth[offEthSrc:], a.SrcMAC[:])
	binary.BigEndian.PutUint16(eth[offEthType:], etherTypeIPv4)

	ip := eth[ethLen:]
	ip[offVerIHL] = 4<<4 | ipLen/4
	ip[offTOS] = tos
	binary.BigEndian.PutUint16(ip[offTotalLen:], uint16(ipLen+udpLen+len(packet)))
	ip[offTTL] = ttl
	ip[offProto] = protoUDP
	copy(ip[offIPSrc:], a.SrcIP[:])
	copy(ip[offIPDst:], a.DstIP[:])
	binary.BigEndian.PutUint16(ip[offIPCsum:], ^frame.Sum(ip[:ipLen], 0))

	udp := ip[ipLen:]
	binary.BigEndian.PutUint16(udp[offUDPSrc:], a.SrcPort)
	binary.BigEndian.PutUint16(udp[offUDPDst:], port)
	binary.BigEndian.PutUint16(udp[offUDPLen:], uint16(udpLen+len(packet)))
	return append(dst, packet...)
}

// IsControl tells whether an Ethernet frame is one of the tunnel's own BFD frames:
// untagged, IPv4, UDP to port 3784, no fragment, and addressed to Open vSwitch's
// BFD MAC or to 169.254.1.0 or 169.254.1.1 (older versions send from .0 to .1).
//
// Open vSwitch looks at no address, and so takes away the BFD frames that
// containers exchange through the tunnel (bfd:bfd_remote_dst_mac is its remedy);
// here those go their way. It costs a compare for frames that are not to the BFD
// MAC and not IPv4.
func IsControl(b []byte) bool {
	_, ok := findUDP(b)
	return ok
}

// findUDP returns where the UDP header of a BFD frame starts.
func findUDP(b []byte) (int, bool) {
	if len(b) < ethLen+ipLen+udpLen || binary.BigEndian.Uint16(b[offEthType:]) != etherTypeIPv4 {
		return 0, false
	}
	ip := b[ethLen:]
	if ip[offProto] != protoUDP || ip[offVerIHL]>>4 != 4 ||
		binary.BigEndian.Uint16(ip[offFragment:])&fragmented != 0 {
		return 0, false
	}
	ihl := int(ip[offVerIHL]&0x0f) * 4
	if ihl < ipLen || len(ip) < ihl+udpLen || binary.BigEndian.Uint16(ip[ihl+offUDPDst:]) != port {
		return 0, false
	}
	to := [4]byte(ip[offIPDst:])
	return ethLen + ihl, [6]byte(b[offEthDst:]) == peerMAC || to == ipLow || to == ipHigh
}

// Decapsulate returns the control packet in an Ethernet frame, a slice of the
// frame, and whether the frame is one of the tunnel's own (see IsControl): such a
// frame is not to be forwarded. The packet is nil where the frame is broken, or
// was routed on its way: Receive refuses and counts it.
func Decapsulate(b []byte) (packet []byte, ok bool) {
	at, ok := findUDP(b)
	if !ok {
		return nil, false
	}
	header, udp := b[ethLen:at], b[at:]
	total := int(binary.BigEndian.Uint16(header[offTotalLen:])) - len(header)
	n := int(binary.BigEndian.Uint16(udp[offUDPLen:]))
	if header[offTTL] != ttl || frame.Sum(header, 0) != 0xffff || total > len(udp) || n < udpLen || n > total {
		return nil, true
	}
	udp = udp[:n]
	if binary.BigEndian.Uint16(udp[offUDPCsum:]) != 0 &&
		frame.Sum(udp, frame.Pseudo(header[offIPSrc:offIPDst+4], protoUDP, n)) != 0xffff {
		return nil, true
	}
	return udp[udpLen:], true
}
