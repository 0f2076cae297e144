package frame

import (
	"encoding/binary"
	"errors"
)

// ErrSegment is what Segmenter.Start returns for a frame that cannot be cut: it
// is no super-frame, its headers and its offload state contradict each other, it
// is a tunnel's in a tunnel, or would become more than 2048 segments.
var ErrSegment = errors.New("super-frame's headers do not match its offload state")

// Segmenter cuts a super-frame into the frames it stands for on the wire, with
// final checksums: Linux's generic segmentation offload, in software, for
// devices that have none, and for what only software can cut (see
// Encapsulated). It is a value to be reused, and allocates nothing:
//
//	if err := s.Start(f); err != nil { … }
//	for s.Next(dst) { send(dst) }
//
// A sender that gathers takes NextHeader instead, which leaves the payload where
// it is.
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
// is one segment. What stands before these headers in a tunnel's super-frame is
// described at type tunnel.
//
// Thread-safety: none; a Segmenter belongs to one worker.
type Segmenter struct {
	src    *Frame   // nil when all is cut
	ip     ipHeader // the one before the transport header
	tunnel tunnel   // what stands before ip, if anything
	l4     int      // offset of the transport header
	hdr    int      // length of all headers, and offset of the payload
	at     int      // offset of the next segment's first payload byte
	size   int      // payload bytes a segment
	udp    bool
	phSum  uint32 // pseudo-header without length
}

// maxSegments is what a super-frame may be cut into. The smallest MSS that Linux
// sends with is 48 bytes (tcp_min_snd_mss) less 12 for timestamps, which makes
// 65,535 bytes into 1,820 segments. A sender that asks for 65,535 segments of one
// byte each wants to keep the worker busy.
const maxSegments = 2048

// Start begins with the super-frame f, which must not change or be released
// before Next has returned false (NextHeader: 0). The error is one of Check, or
// ErrSegment; then there is nothing for Next.
func (s *Segmenter) Start(f *Frame) error {
	s.src = nil
	if err := f.Check(); err != nil {
		return err
	}
	if !f.Super() {
		return ErrSegment
	}
	b := f.Bytes()
	outer, err := Parse(b)
	if err != nil || outer.L4 == 0 || outer.Fragment {
		return ErrSegment
	}
	etherType, proto := f.segmented()
	l, t := outer, tunnel{}
	if outer.L4 != int(f.CsumStart) {
		var ok bool
		if l, ok = t.find(b, &outer, int(f.CsumStart), etherType, proto); !ok {
			return ErrSegment
		}
	}
	if l.Proto != proto || etherType != 0 && l.EtherType != etherType {
		return ErrSegment
	}
	udp := proto == ProtoUDP
	field := tcpChecksum
	if udp {
		field = udpChecksum
	}
	size, payload := int(f.GSOSize), len(b)-l.Payload
	if field != int(f.CsumOffset) || payload > maxSegments*size {
		return ErrSegment
	}
	if outer.EtherType == EtherIPv4 && l.Payload-outer.L3+min(size, payload) > 0xffff {
		return ErrSegment // padding that would overflow the total length
	}
	partial := binary.BigEndian.Uint16(b[l.L4+field:])
	*s = Segmenter{
		src: f, ip: readIP(b, &l), tunnel: t, l4: l.L4, hdr: l.Payload, at: l.Payload, size: size,
		udp: udp, phSum: uint32(partial) + uint32(^uint16(len(b)-l.L4)),
	}
	return nil
}

// More reports whether Next would make a segment.
func (s *Segmenter) More() bool { return s.src != nil }

// MaxHeaders is what a caller of NextHeader should have room for, in bytes: all
// headers of a tunnel's super-frame with every option but IPv6 extension headers.
// Those can make HeadersLen more than that; such a frame, which nobody sends for
// speed, is better cut with Next.
const MaxHeaders = 512

// HeadersLen returns how many bytes of headers each segment begins with, and
// SegmentPayload how many bytes of payload follow in all but the last, which may
// have less. Both are valid after Start.
func (s *Segmenter) HeadersLen() int { return s.hdr }

// SegmentPayload is described at HeadersLen.
func (s *Segmenter) SegmentPayload() int { return s.size }

// Next makes dst the next segment, with Start's frame's tag and no offload, and
// reports whether there was one. dst is any other frame; what it held is lost.
func (s *Segmenter) Next(dst *Frame) bool {
	if s.src == nil {
		return false
	}
	dst.Reset(0)
	dst.Tag, dst.Port = s.src.Tag, s.src.Port
	b := dst.buf[dst.off:]
	n, payload := s.NextHeader(b)
	dst.n = n + copy(b[n:], payload)
	return true
}

// NextHeader is Next for a sender that gathers: it writes the next segment's
// headers, with final checksums and without the tag, to head, and returns their
// length, which is HeadersLen, and the segment's payload, which is not copied but
// a slice of the super-frame. n is 0 when there are no more segments.
// len(head) >= HeadersLen().
func (s *Segmenter) NextHeader(head []byte) (n int, payload []byte) {
	if s.src == nil {
		return 0, nil
	}
	src := s.src.Bytes()
	first := s.at == s.hdr
	end := min(s.at+s.size, len(src))
	last := end == len(src)
	payload = src[s.at:end:end]

	b := head[:s.hdr]
	copy(b, src)
	size := len(b) + len(payload)
	s.ip.write(b[s.ip.at:], size-s.ip.at)
	pseudo := s.phSum + uint32(size-s.l4)
	if s.udp {
		writeUDP(b[s.l4:], payload, pseudo)
	} else {
		s.writeTCP(b[s.l4:], payload, pseudo, first, last)
	}
	if s.tunnel.at != 0 {
		s.tunnel.write(b, size, s.l4, ^fold(pseudo))
	}

	s.at = end
	if last {
		s.src = nil
	}
	return len(b), payload
}

// ipHeader is an IP header that is repeated in every segment.
type ipHeader struct {
	at  int // offset in the frame
	v6  bool
	id  uint16 // next IPv4 identification
	sum uint32 // IPv4 header without total length, identification, checksum
}

// readIP returns the IP header that l found in b.
func readIP(b []byte, l *Layout) ipHeader {
	h := ipHeader{at: l.L3, v6: l.EtherType == EtherIPv6}
	if !h.v6 {
		ip := b[l.L3:]
		h.id = binary.BigEndian.Uint16(ip[ipv4ID:])
		h.sum = uint32(Sum(ip[:ipv4TotalLen], 0)) +
			uint32(Sum(ip[ipv4Fragment:ipv4Checksum], 0)) +
			uint32(Sum(ip[ipv4Checksum+2:ipv4HeaderLen(ip[0])], 0))
	}
	return h
}

// write fills in the IP header at the start of p, for a packet of n bytes.
func (h *ipHeader) write(p []byte, n int) {
	if h.v6 {
		binary.BigEndian.PutUint16(p[ipv6PayloadLen:], uint16(n-IPv6Len))
		return
	}
	binary.BigEndian.PutUint16(p[ipv4TotalLen:], uint16(n))
	binary.BigEndian.PutUint16(p[ipv4ID:], h.id)
	binary.BigEndian.PutUint16(p[ipv4Checksum:], ^fold(h.sum+uint32(n)+uint32(h.id)))
	h.id++
}

// writeTCP fills in the TCP header h of the segment with payload. pseudo is the
// sum of the pseudo-header. The header's length is even, as Sum wants it of all
// pieces but the last.
func (s *Segmenter) writeTCP(h, payload []byte, pseudo uint32, first, last bool) {
	seq := binary.BigEndian.Uint32(h[tcpSeq:]) + uint32(s.at-s.hdr)
	binary.BigEndian.PutUint32(h[tcpSeq:], seq)
	if !last {
		h[tcpFlags] &^= tcpFIN | tcpPSH
	}
	if !first {
		h[tcpFlags] &^= tcpCWR
	}
	binary.BigEndian.PutUint16(h[tcpChecksum:], 0)
	binary.BigEndian.PutUint16(h[tcpChecksum:], ^Sum(payload, uint32(Sum(h, pseudo))))
}

// writeUDP does the same for UDP.
func writeUDP(h, payload []byte, pseudo uint32) {
	binary.BigEndian.PutUint16(h[udpLength:], uint16(len(h)+len(payload)))
	binary.BigEndian.PutUint16(h[udpChecksum:], 0)
	putUDPSum(h, Sum(payload, uint32(Sum(h, pseudo))))
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
