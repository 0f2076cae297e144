package loadgen

import (
	"encoding/binary"
	"fmt"
)

// A stamped frame, all fields big-endian. UDP's checksum is 0, which is "none"
// (RFC 768); the addresses are of RFC 2544's 198.18.0.0/15 (RFC 6890).
//
//	0        6        12   14
//	┌────────┬────────┬────┬─────────────────────┐
//	│dst MAC │src MAC │0800│ IPv4, 20 bytes      │
//	├────────┴────────┴────┼──────┬──────┬───────┴────────────┬─────────┐
//	│34 UDP, 8 bytes       │magic │ flow │ seq      │ stamp    │ zeros … │
//	└──────────────────────┴──────┴──────┴──────────┴──────────┴─────────┘
//	                       42     44     48         52         60
const (
	offDst       = 0
	offSrc       = 6
	offEtherType = 12
	offIP        = 14
	offIPLen     = offIP + 2
	offIPSum     = offIP + 10
	offIPSrc     = offIP + 12
	offIPDst     = offIP + 16
	offUDP       = 34
	offUDPSrc    = offUDP
	offUDPDst    = offUDP + 2
	offUDPLen    = offUDP + 4
	offMagic     = 42
	offFlow      = 44
	offSeq       = 48
	offStamp     = 52

	// MinLen is the shortest frame in bytes, without FCS: with it, 64.
	MinLen = 60
	// MaxLen is the longest frame in bytes: 9,000 of IP on Ethernet, without FCS.
	MaxLen = 9014

	magic     = 0x7e57
	etherIPv4 = 0x0800
	protoUDP  = 17
	netSrc    = 0xc612 // 198.18.0.0/16
	netDst    = 0xc613 // 198.19.0.0/16
	portSrc   = 0xc000 // the first of the dynamic ones; flow bits 16 and up are added
	portDst   = 9      // discard

	// announcement is the flow of frames that belong to none.
	announcement = 0xffffffff
)

// MaxFlows bounds a flow's number.
const MaxFlows = 1 << 24

// MAC is an Ethernet address.
type MAC [6]byte

// broadcast is the address of everyone.
var broadcast = MAC{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// The second byte of generated addresses; the first is 02, locally administered
// (IEEE 802 section 8.4), and the last four are the flow.
const (
	kindSrc     = 0x0a
	kindDst     = 0x0b
	kindUnknown = 0x0c
)

func macOf(kind byte, flow int) (m MAC) {
	m[0], m[1] = 0x02, kind
	binary.BigEndian.PutUint32(m[2:], uint32(flow))
	return m
}

// SrcMAC is the address that frames of a flow come from.
func SrcMAC(flow int) MAC { return macOf(kindSrc, flow) }

// DstMAC is the address that frames of a flow go to.
func DstMAC(flow int) MAC { return macOf(kindDst, flow) }

// UnknownMAC is an address that no frame comes from.
func UnknownMAC(flow int) MAC { return macOf(kindUnknown, flow) }

func (m MAC) String() string {
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", m[0], m[1], m[2], m[3], m[4], m[5])
}

// header is a frame up to the zeros.
type header [MinLen]byte

// init writes what is the same in all frames.
func (h *header) init() {
	*h = header{}
	binary.BigEndian.PutUint16(h[offEtherType:], etherIPv4)
	h[offIP] = 0x45   // version 4, 20 bytes
	h[offIP+6] = 0x40 // don't fragment
	h[offIP+8] = 64   // time to live
	h[offIP+9] = protoUDP
	binary.BigEndian.PutUint16(h[offMagic:], magic)
}

// constant is the sum of the IP header's words that init writes.
const constant = 0x4500 + 0x4000 + 64<<8 + protoUDP

// write writes what differs from frame to frame. length is the whole frame's.
func (h *header) write(length int, dst, src MAC, reverse bool, flow, seq uint32, stamp int64) {
	*(*MAC)(h[offDst:]) = dst
	*(*MAC)(h[offSrc:]) = src

	from, to := uint32(netSrc<<16)|flow&0xffff, uint32(netDst<<16)|flow&0xffff
	fromPort, toPort := portSrc+uint16(flow>>16), uint16(portDst)
	if reverse {
		from, to, fromPort, toPort = to, from, toPort, fromPort
	}
	binary.BigEndian.PutUint16(h[offIPLen:], uint16(length-offIP))
	binary.BigEndian.PutUint32(h[offIPSrc:], from)
	binary.BigEndian.PutUint32(h[offIPDst:], to)
	sum := constant + uint32(length-offIP) + netSrc + netDst + 2*(flow&0xffff)
	sum = sum>>16 + sum&0xffff
	sum += sum >> 16
	binary.BigEndian.PutUint16(h[offIPSum:], ^uint16(sum))

	binary.BigEndian.PutUint16(h[offUDPSrc:], fromPort)
	binary.BigEndian.PutUint16(h[offUDPDst:], toPort)
	binary.BigEndian.PutUint16(h[offUDPLen:], uint16(length-offUDP))

	binary.BigEndian.PutUint32(h[offFlow:], flow)
	binary.BigEndian.PutUint32(h[offSeq:], seq)
	binary.BigEndian.PutUint64(h[offStamp:], uint64(stamp))
}

// verdict is what a received frame turns out to be.
type verdict uint8

const (
	foreign verdict = iota // not from a Sender
	damaged                // from a Sender, and not as long as it was
	stamped
	announced
)

// parse reads a frame's stamp. b is the frame's beginning, and wire its length as
// received; len(b) may be less.
func parse(b []byte, wire int) (flow, seq uint32, stamp int64, v verdict) {
	if len(b) < MinLen {
		return 0, 0, 0, foreign
	}
	h := (*header)(b)
	if binary.BigEndian.Uint16(h[offEtherType:]) != etherIPv4 || h[offIP] != 0x45 || h[offIP+9] != protoUDP ||
		binary.BigEndian.Uint16(h[offMagic:]) != magic {
		return 0, 0, 0, foreign
	}
	if int(binary.BigEndian.Uint16(h[offIPLen:])) != wire-offIP || int(binary.BigEndian.Uint16(h[offUDPLen:])) != wire-offUDP {
		return 0, 0, 0, damaged
	}
	flow = binary.BigEndian.Uint32(h[offFlow:])
	seq = binary.BigEndian.Uint32(h[offSeq:])
	stamp = int64(binary.BigEndian.Uint64(h[offStamp:]))
	if flow == announcement {
		return flow, seq, stamp, announced
	}
	return flow, seq, stamp, stamped
}
