package frame

import (
	"encoding/binary"
	"errors"
)

// ErrSegment is what Segmenter.Start returns for a frame that cannot be cut: it
// is no super-frame, or its headers and its offload state contradict each other.
var ErrSegment = errors.New("super-frame's headers do not match its offload state")

// Segmenter cuts a super-frame into the frames it stands for on the wire, with
// final checksums: Linux's generic segmentation offload, in software, for
// devices that have none. It is a value to be reused, and allocates nothing:
//
//	if err := s.Start(f); err != nil { … }
//	for s.Next(dst) { send(dst) }
//
// # Theory of operation
//
// All segments repeat the headers of the super-frame, with these differences:
//
//	IPv4   total length; identification, one more each time (a sender's wish
//	       for a fixed one, SKB_GSO_TCP_FIXEDID, does not pass through a
//	       virtio-net header); header checksum
//	IPv6   payload length
//	TCP    sequence number; FIN and PSH only in the last segment; CWR only in
//	       the first, whether GSOECN is set or not (tcp_gso_segment asks for
//	       SKB_GSO_TCP_ACCECN, which virtio-net does not have); checksum
//	UDP    length; checksum, never 0
//
// The checksum does not start from the addresses but, as in tcp_gso_segment, from
// the folded pseudo-header sum that stands in the checksum field: behind an IPv6
// routing header the sum is over the final destination, which is not the one in
// the IP header. Only the length in it is exchanged (RFC 1624, eqn. 3).
//
// As in the kernel the payload reaches to the end of the frame, whatever the IP
// header says is its length, and a frame whose payload is not longer than GSOSize
// is one segment.
//
// Thread-safety: none; a Segmenter belongs to one worker.
type Segmenter struct {
	src    *Frame // nil when all is cut
	l3, l4 int    // offsets of IP and transport header
	hdr    int    // length of all headers, and offset of the payload
	at     int    // offset of the next segment's first payload byte
	size   int    // payload bytes a segment
	v6     bool
	udp    bool
	id     uint16 // next IPv4 identification
	ipSum  uint32 // IPv4 header without total length, identification, checksum
	phSum  uint32 // pseudo-header without length
}

// Start begins with the super-frame f, which must not change or be released
// before Next has returned false. The error is one of Check, or ErrSegment; then
// there is nothing for Next.
func (s *Segmenter) Start(f *Frame) error {
	s.src = nil
	if err := f.Check(); err != nil {
		return err
	}
	if !f.Super() {
		return ErrSegment
	}
	b := f.Bytes()
	l, err := Parse(b)
	if err != nil || l.L4 == 0 || l.Fragment || l.L4 != int(f.CsumStart) {
		return ErrSegment
	}
	v6 := l.EtherType == EtherIPv6
	udp := l.Proto == ProtoUDP
	field := tcpChecksum
	switch f.GSOType &^ GSOECN {
	case GSOTCPv4:
		if v6 || l.Proto != ProtoTCP {
			return ErrSegment
		}
	case GSOTCPv6:
		if !v6 || l.Proto != ProtoTCP {
			return ErrSegment
		}
	case GSOUDPL4:
		if !udp {
			return ErrSegment
		}
		field = udpChecksum
	}
	if field != int(f.CsumOffset) {
		return ErrSegment
	}
	*s = Segmenter{
		src: f, l3: l.L3, l4: l.L4, hdr: l.Payload, at: l.Payload, size: int(f.GSOSize),
		v6: v6, udp: udp,
	}
	if !v6 && l.Payload-l.L3+min(s.size, len(b)-l.Payload) > 0xffff {
		s.src = nil
		return ErrSegment // padding that would overflow the total length
	}
	partial := binary.BigEndian.Uint16(b[l.L4+field:])
	s.phSum = uint32(partial) + uint32(^uint16(len(b)-l.L4))
	if !v6 {
		ip := b[l.L3:]
		s.id = binary.BigEndian.Uint16(ip[ipv4ID:])
		s.ipSum = uint32(Sum(ip[:ipv4TotalLen], 0)) +
			uint32(Sum(ip[ipv4Fragment:ipv4Checksum], 0)) +
			uint32(Sum(ip[ipv4Checksum+2:ipv4HeaderLen(ip[0])], 0))
	}
	return nil
}

// Next makes dst the next segment, with Start's frame's tag and no offload, and
// reports whether there was one. dst is any other frame; what it held is lost.
func (s *Segmenter) Next(dst *Frame) bool {
	if s.src == nil {
		return false
	}
	src := s.src.Bytes()
	first := s.at == s.hdr
	n := min(s.size, len(src)-s.at)
	last := s.at+n == len(src)

	dst.Reset(s.hdr + n)
	dst.Tag = s.src.Tag
	b := dst.Bytes()
	copy(b, src[:s.hdr])
	copy(b[s.hdr:], src[s.at:s.at+n])

	s.writeIP(b[s.l3:])
	if s.udp {
		s.writeUDP(b[s.l4:])
	} else {
		s.writeTCP(b[s.l4:], first, last)
	}

	s.at += n
	if last {
		s.src = nil
	}
	return true
}

// writeIP fills in the IP header at the start of p, which ends with the segment.
func (s *Segmenter) writeIP(p []byte) {
	if s.v6 {
		binary.BigEndian.PutUint16(p[ipv6PayloadLen:], uint16(len(p)-IPv6Len))
		return
	}
	binary.BigEndian.PutUint16(p[ipv4TotalLen:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[ipv4ID:], s.id)
	binary.BigEndian.PutUint16(p[ipv4Checksum:], ^fold(s.ipSum+uint32(len(p))+uint32(s.id)))
	s.id++
}

// writeTCP fills in the TCP header at the start of p, which ends with the segment.
func (s *Segmenter) writeTCP(p []byte, first, last bool) {
	seq := binary.BigEndian.Uint32(p[tcpSeq:]) + uint32(s.at-s.hdr)
	binary.BigEndian.PutUint32(p[tcpSeq:], seq)
	if !last {
		p[tcpFlags] &^= tcpFIN | tcpPSH
	}
	if !first {
		p[tcpFlags] &^= tcpCWR
	}
	binary.BigEndian.PutUint16(p[tcpChecksum:], 0)
	binary.BigEndian.PutUint16(p[tcpChecksum:], ^Sum(p, s.phSum+uint32(len(p))))
}

// writeUDP fills in the UDP header at the start of p, which ends with the segment.
func (s *Segmenter) writeUDP(p []byte) {
	binary.BigEndian.PutUint16(p[udpLength:], uint16(len(p)))
	binary.BigEndian.PutUint16(p[udpChecksum:], 0)
	sum := ^Sum(p, s.phSum+uint32(len(p)))
	if sum == 0 {
		sum = 0xffff // 0 means "no checksum", RFC 768
	}
	binary.BigEndian.PutUint16(p[udpChecksum:], sum)
}

// SegmentLen returns the length in bytes of the longest frame that f stands for
// on the wire, without the tag in Tag: for a super-frame its headers and GSOSize,
// or the whole if that is less; for another frame f.Len(). It is what must not
// exceed an output's MTU. Call it only after Check returned nil: the headers end
// where CsumStart and the real transport header say, not at HdrLen, a hint.
func (f *Frame) SegmentLen() int {
	if !f.Super() {
		return f.n
	}
	hdr := int(f.CsumStart)
	if f.GSOType&^GSOECN == GSOUDPL4 {
		hdr += UDPLen
	} else {
		if hdr+TCPMinLen > f.n {
			return f.n
		}
		hdr += tcpHeaderLen(f.buf[f.off+hdr+tcpDataOffset])
	}
	return min(f.n, hdr+int(f.GSOSize))
}
