package tunnel

import (
	"encoding/binary"
	"math/bits"

	"vswitch/frame"
)

// Offsets in a GRE header, RFC 2784 section 2.1 and RFC 2890 section 2:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|C|R|K|S|s|Recur|Reserved0| Ver |         Protocol Type         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      Checksum (if C)          |       Reserved1 (if C)        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                         Key (if K)                            |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    Sequence Number (if S)                     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	greLen   = 4
	greMax   = 16
	greProto = 2

	greHasChecksum = 0x8000
	greHasKey      = 0x2000
	greHasSequence = 0x1000
	// greRefused is what RFC 2784 section 2.3 has a receiver discard who does not
	// speak RFC 1701 (source routes, recursion), and other versions (PPTP's is 1).
	greRefused = 0x4000 | 0x0800 | 0x0400 | 0x0007
)

// decodeGRE is described at Kind.decode. A packet without key has key 0.
func decodeGRE(b []byte) (h header, ok bool) {
	if len(b) < greLen {
		return h, false
	}
	flags := binary.BigEndian.Uint16(b)
	if flags&greRefused != 0 {
		return h, false
	}
	h.len = greHeaderLen(flags)
	if h.len > len(b) {
		return header{}, false
	}
	if binary.BigEndian.Uint16(b[greProto:]) != etherTEB {
		h.fault = frame.FaultProtocol
	}
	at := greLen
	if flags&greHasChecksum != 0 {
		if frame.Sum(b, 0) != 0xffff {
			h.fault = frame.FaultChecksum
		}
		at += 4
	}
	if flags&greHasKey != 0 {
		h.key = binary.BigEndian.Uint32(b[at:])
		at += 4
	}
	if flags&greHasSequence != 0 {
		h.seq, h.hasSeq = binary.BigEndian.Uint32(b[at:]), true
	}
	return h, true
}

// greHeaderLen returns the length of a header with these flags.
func greHeaderLen(flags uint16) int {
	n := greLen
	for _, f := range [...]uint16{greHasChecksum, greHasKey, greHasSequence} {
		if flags&f != 0 {
			n += 4
		}
	}
	return n
}

// putGRE writes a header with these flags to b, its checksum zero; len(b) >=
// greHeaderLen(flags).
func putGRE(b []byte, flags uint16, key, seq uint32) {
	binary.BigEndian.PutUint16(b, flags)
	binary.BigEndian.PutUint16(b[greProto:], etherTEB)
	at := greLen
	if flags&greHasChecksum != 0 {
		binary.BigEndian.PutUint32(b[at:], 0)
		at += 4
	}
	if flags&greHasKey != 0 {
		binary.BigEndian.PutUint32(b[at:], key)
		at += 4
	}
	if flags&greHasSequence != 0 {
		binary.BigEndian.PutUint32(b[at:], seq)
	}
}

// sumGRE writes the checksum of the packet head and payload, which putGRE left
// zero. The bytes of a sum that begins at an odd place come out swapped (RFC 1071
// section 2(B)).
func sumGRE(head, payload []byte) {
	sum := frame.Sum(payload, 0)
	if len(head)%2 != 0 {
		sum = bits.ReverseBytes16(sum)
	}
	binary.BigEndian.PutUint16(head[greLen:], ^frame.Sum(head, uint32(sum)))
}
