package frame

import (
	"encoding/binary"
	"errors"
	"math/bits"
)

// ErrSuper is returned where one frame on the wire is meant, and the frame
// stands for several: it has to go through a Segmenter.
var ErrSuper = errors.New("frame is a super-frame and must be segmented first")

// Sum returns the 16-bit ones' complement sum (RFC 1071) of b and initial, in
// host byte order and not complemented: a checksum field takes ^Sum(…).
// initial is any sum of 16-bit words that fits, such as Pseudo's. A byte left
// over counts as the high half of a word, so only the last of several pieces
// may have an odd length:
//
//	^Sum(payload, uint32(Sum(header, Pseudo(addrs, proto, n))))
//
// On one 2-core AMD EPYC machine 1448 bytes: 19.6 GB/s, and 1.9 GB/s for the
// loop that adds one 16-bit word at a time.
func Sum(b []byte, initial uint32) uint16 {
	// RFC 1071 section 2(B): the sum does not depend on byte order, except that
	// its own bytes come out swapped. So words are added as the machine loads
	// them, eight bytes at a time (2(C)), and the bytes are swapped once.
	var acc, c uint64
	for len(b) >= 64 {
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[0:8]), 0)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[8:16]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[16:24]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[24:32]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[32:40]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[40:48]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[48:56]), c)
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b[56:64]), c)
		acc += c // cannot carry: acc is below 2^64-1 when c is 1
		b = b[64:]
	}
	for len(b) >= 8 {
		acc, c = bits.Add64(acc, binary.LittleEndian.Uint64(b), 0)
		acc += c
		b = b[8:]
	}
	if len(b) > 0 {
		// The tail as one little-endian word with zeros behind it.
		var tail uint64
		if len(b) >= 4 {
			tail = uint64(binary.LittleEndian.Uint32(b))
			b = b[4:]
			for i, v := range b {
				tail |= uint64(v) << (32 + 8*i)
			}
		} else {
			for i, v := range b {
				tail |= uint64(v) << (8 * i)
			}
		}
		acc, c = bits.Add64(acc, tail, 0)
		acc += c
	}
	acc = acc>>32 + acc&0xffffffff
	acc = acc>>32 + acc&0xffffffff
	return fold(uint32(bits.ReverseBytes16(fold(uint32(acc)))) + uint32(fold(initial)))
}

// fold brings a sum of 16-bit words down to 16 bits.
func fold(s uint32) uint16 {
	s = s>>16 + s&0xffff
	return uint16(s>>16 + s)
}

// adjust returns the checksum sum after a 16-bit word that it covers changed from
// old to new: RFC 1624, eqn. 3. A wrong checksum stays wrong.
func adjust(sum, old, new uint16) uint16 {
	return ^fold(uint32(^sum) + uint32(^old) + uint32(new))
}

// Pseudo returns the sum of the pseudo-header of RFC 793 section 3.1 (IPv4) or
// RFC 8200 section 8.1 (IPv6), for Sum. addrs is source and destination address
// as they stand in the IP header, 8 or 32 bytes; n is the length of transport
// header and payload in bytes, 0 to 65535.
func Pseudo(addrs []byte, proto uint8, n int) uint32 {
	return uint32(Sum(addrs, 0)) + uint32(proto) + uint32(n)
}

// FinishChecksum completes in place the checksum that a frame with NeedsCsum
// left open, as Linux's skb_checksum_help does, and clears NeedsCsum, CsumStart
// and CsumOffset. A frame without NeedsCsum is left alone. The error is
// ErrSuper, ErrShort or ErrOffload; the frame is then unchanged.
func (f *Frame) FinishChecksum() error {
	if f.Flags&NeedsCsum == 0 {
		return nil
	}
	if f.Super() {
		return ErrSuper
	}
	if err := finishL4(f.Bytes(), &f.Offload); err != nil {
		return err
	}
	f.Flags &^= NeedsCsum
	f.CsumStart, f.CsumOffset = 0, 0
	return nil
}

// Headers is FinishChecksum for a sender that gathers and must not change f: it
// copies f up to the end of the checksum field to head, with the checksum final,
// and returns how many bytes these are, and the rest of f. When there is nothing
// to finish n is 0 and rest all of f.
//
// The error is ErrSuper, ErrShort or ErrOffload; this too when the field does not
// lie in the first len(head) bytes (512 hold it behind any headers that are sent
// in earnest), and for SCTP, whose checksum FinishChecksum is for: see NeedsCRC32c.
func (f *Frame) Headers(head []byte) (n int, rest []byte, err error) {
	b := f.Bytes()
	if f.Flags&NeedsCsum == 0 {
		return 0, b, nil
	}
	if f.Super() {
		return 0, nil, ErrSuper
	}
	field, err := openField(b, &f.Offload)
	if err != nil {
		return 0, nil, err
	}
	if n = field + 2; n > len(head) {
		return 0, nil, ErrOffload
	}
	if _, sctp := sctpEnd(b, &f.Offload); sctp {
		return 0, nil, ErrOffload
	}
	copy(head[:n], b)
	binary.BigEndian.PutUint16(head[field:], closeSum(b[f.CsumStart:]))
	return n, b[n:], nil
}

// Finish makes the checksums in b final for a reader that knows nothing of
// offloads: a capture file. b is a private copy of a whole frame, with or
// without tags in its bytes, and o its offload state, whose offsets count from
// b's first byte; o does not change. A truncated copy has no checksum to finish
// (and Wireshark verifies none there).
//
// A super-frame may stay whole: its partial sum covers the pseudo-header with
// the length of the whole (tcp_v4_check over skb->len, udp4_hwcsum, and the
// *_gro_complete functions agree), so summing to the end is right for it too.
// Its IPv4 header checksum is written anew, since a sender that leaves cutting
// to others need not fill it in; a plain frame's is left as the sender sent it.
// The same goes for a tunnel's super-frame, and its outer UDP or GRE checksum.
//
// The error is ErrShort or ErrOffload; b is then unchanged.
func Finish(b []byte, o *Offload) error {
	if o.Flags&NeedsCsum == 0 {
		return nil
	}
	if err := finishL4(b, o); err != nil {
		return err
	}
	if !o.Super() {
		return nil
	}
	outer, err := Parse(b)
	if err != nil {
		return nil // what cannot be parsed is captured as it is
	}
	finishIPv4(b, &outer)
	if outer.L4 == 0 || outer.L4 == int(o.CsumStart) {
		return nil
	}
	etherType, proto := o.segmented()
	var t tunnel
	if l, ok := t.find(b, &outer, int(o.CsumStart), etherType, proto); ok {
		finishIPv4(b, &l)
		t.sum(b[t.at:], len(b)-t.at, 0)
	}
	return nil
}

// finishIPv4 writes the checksum of an IPv4 header that l found in b.
func finishIPv4(b []byte, l *Layout) {
	if l.EtherType != EtherIPv4 {
		return
	}
	h := b[l.L3 : l.L3+ipv4HeaderLen(b[l.L3])]
	binary.BigEndian.PutUint16(h[ipv4Checksum:], 0)
	binary.BigEndian.PutUint16(h[ipv4Checksum:], ^Sum(h, 0))
}

// finishL4 sums b from CsumStart to its end. The field itself holds the folded
// sum of the pseudo-header, and is summed along. SCTP has a CRC instead.
func finishL4(b []byte, o *Offload) error {
	field, err := openField(b, o)
	if err != nil {
		return err
	}
	if end, ok := sctpEnd(b, o); ok {
		finishSCTP(b[o.CsumStart:end])
		return nil
	}
	binary.BigEndian.PutUint16(b[field:], closeSum(b[o.CsumStart:]))
	return nil
}

// openField returns the offset of the partial checksum in b. The error is
// ErrShort, or ErrOffload when the field does not lie inside b.
func openField(b []byte, o *Offload) (int, error) {
	if len(b) < EthLen {
		return 0, ErrShort
	}
	field := int(o.CsumStart) + int(o.CsumOffset)
	if o.CsumStart < EthLen || field+2 > len(b) {
		return 0, ErrOffload
	}
	return field, nil
}

// closeSum returns the checksum of b, in which the partial one stands.
func closeSum(b []byte) uint16 {
	sum := ^Sum(b, 0)
	if sum == 0 {
		// 0 means "no checksum" in UDP (RFC 768). The kernel does not ask for
		// the protocol here (CSUM_MANGLED_0): elsewhere both zeros verify.
		sum = 0xffff
	}
	return sum
}
