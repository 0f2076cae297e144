package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

// randomPacket returns any kind of packet with up to n payload bytes.
func randomPacket(r *rand.Rand, n int) packet {
	p := packet{
		v6:      r.IntN(2) == 0,
		udp:     r.IntN(2) == 0,
		id:      uint16(r.Uint32()),
		seq:     r.Uint32(),
		flags:   uint8(r.Uint32()),
		payload: randomBytes(r, r.IntN(n+1)),
		ipOpts:  nops(4 * r.IntN(4)),
		tcpOpts: nops(4 * r.IntN(11)),
	}
	for range r.IntN(3) {
		p.tags = append(p.tags, Tag{TPID8021Q, uint16(r.Uint32())})
	}
	proto := uint8(6)
	if p.udp {
		proto = 17
	}
	switch r.IntN(4) {
	case 0:
		p.proto0, p.ext = 0, join(ext(60, 1), ext(proto, 0))
	case 1:
		p.proto0, p.ext = 60, ext(proto, 2)
	}
	return p
}

// naiveSegments is the oracle: it builds each segment anew from the description
// of the packet, and leaves its checksum to Finish's naive counterpart.
func naiveSegments(p packet, size int) [][]byte {
	var out [][]byte
	for at := 0; at == 0 || at < len(p.payload); at += size {
		q := p
		end := min(at+size, len(p.payload))
		q.payload = p.payload[at:end]
		q.id += uint16(len(out))
		q.seq += uint32(at)
		if end < len(p.payload) {
			q.flags &= 0xff - 0x01 - 0x08
		}
		if at > 0 {
			q.flags &= 0x7f
		}
		b, o := q.build()
		sum := ^naiveSum(b[o.CsumStart:], 0)
		if sum == 0 && p.udp {
			sum = 0xffff
		}
		binary.BigEndian.PutUint16(b[o.CsumStart+o.CsumOffset:], sum)
		out = append(out, b)
	}
	return out
}

func segments(t testing.TB, s *Segmenter, src, dst *Frame) [][]byte {
	t.Helper()
	if err := s.Start(src); err != nil {
		t.Fatal(err)
	}
	var out [][]byte
	for s.Next(dst) {
		if dst.Offload != (Offload{}) || dst.Tag != src.Tag || dst.off != Headroom {
			t.Fatalf("segment with offload %+v, tag %+v, at %d", dst.Offload, dst.Tag, dst.off)
		}
		out = append(out, bytes.Clone(dst.Bytes()))
	}
	if s.Next(dst) {
		t.Fatal("a segment after the last")
	}
	// NextHeader says the same, alone and in turn with Next.
	for _, every := range []int{1, 2} {
		if err := nextHeaders(s, src, dst, every, out); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

// nextHeaders cuts src anew, each every-th segment by NextHeader and the others by
// Next, and tells where what comes differs from want.
func nextHeaders(s *Segmenter, src, dst *Frame, every int, want [][]byte) error {
	if err := s.Start(src); err != nil {
		return err
	}
	head := make([]byte, s.HeadersLen())
	at := s.HeadersLen()
	for k := range want {
		var got []byte
		if k%every == 0 {
			n, payload := s.NextHeader(head)
			if n != s.HeadersLen() || len(payload) != cap(payload) {
				return fmt.Errorf("segment %d: %d bytes of headers, want %d; payload of %d with room for %d",
					k, n, s.HeadersLen(), len(payload), cap(payload))
			}
			if k < len(want)-1 && len(payload) != s.SegmentPayload() {
				return fmt.Errorf("segment %d of %d: %d payload bytes, want %d", k, len(want), len(payload), s.SegmentPayload())
			}
			if len(payload) > 0 && &payload[0] != &src.Bytes()[at] {
				return fmt.Errorf("segment %d: the payload is not where the super-frame has it", k)
			}
			at += len(payload)
			got = join(head, payload)
		} else if s.Next(dst) {
			got = dst.Bytes()
			at += dst.Len() - s.HeadersLen()
		}
		if !bytes.Equal(got, want[k]) {
			return fmt.Errorf("segment %d of %d, NextHeader for one in %d:\n got % x\nwant % x", k, len(want), every, got, want[k])
		}
	}
	if n, payload := s.NextHeader(head); n != 0 || payload != nil || s.More() {
		return errors.New("NextHeader has a segment after the last")
	}
	return nil
}

func TestSegmentAgainstNaive(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	r := rand.New(rand.NewPCG(11, 12))
	var s Segmenter
	for i := range 600 {
		p := randomPacket(r, []int{40, 5000, 64000}[i%3])
		size := max(1+r.IntN([]int{20, 1460, 9000}[i%3]), len(p.payload)/maxSegments+1)
		p.super(src, uint16(size))
		src.Tag = Tag{TPID8021AD, uint16(i)}
		if r.IntN(2) == 0 {
			src.GSOType |= GSOECN
		}
		src.HdrLen = uint16(r.Uint32()) // a hint is not to be relied on
		whole := bytes.Clone(src.Bytes())
		offload := src.Offload
		if int(offload.HdrLen) > len(whole) {
			offload.HdrLen = 0 // Check takes out what misleads
		}
		got, want := segments(t, &s, src, dst), naiveSegments(p, size)
		if !bytes.Equal(src.Bytes(), whole) || src.Offload != offload {
			t.Fatal("the super-frame was changed")
		}
		if len(got) != len(want) {
			t.Fatalf("%d segments, want %d", len(got), len(want))
		}
		hdr := len(whole) - len(p.payload)
		var payload []byte
		longest := 0
		for k := range got {
			if !bytes.Equal(got[k], want[k]) {
				t.Fatalf("segment %d of %d (size %d, v6=%v udp=%v):\n got % x\nwant % x", k, len(got), size, p.v6, p.udp, got[k], want[k])
			}
			if err := verify(got[k]); err != nil {
				t.Fatalf("segment %d of %d: %v", k, len(got), err)
			}
			if len(got[k]) > hdr+size {
				t.Fatalf("segment of %d bytes, want at most %d", len(got[k]), hdr+size)
			}
			longest = max(longest, len(got[k]))
			payload = append(payload, got[k][hdr:]...)
		}
		if !bytes.Equal(payload, p.payload) {
			t.Fatal("payloads do not add up to the original")
		}
		if n := src.SegmentLen(); n != longest {
			t.Fatalf("SegmentLen %d, longest segment %d", n, longest)
		}
	}
}

// Behind a routing header the pseudo-header has the final destination; the
// segments must keep whatever sum the sender took.
func TestSegmentRoutingHeader(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	p := packet{v6: true, proto0: 43, ext: ext(6, 0), payload: make([]byte, 1000)}
	p.super(src, 300)
	field := src.Bytes()[src.CsumStart+src.CsumOffset:]
	const moved = 0x1111 // as if another destination were summed
	binary.BigEndian.PutUint16(field, fold(uint32(binary.BigEndian.Uint16(field))+moved))
	var s Segmenter
	for i, b := range segments(t, &s, src, dst) {
		want := naiveSegments(p, 300)[i]
		at := src.CsumStart + src.CsumOffset
		sum := fold(uint32(binary.BigEndian.Uint16(b[at:])) + moved)
		if sum != binary.BigEndian.Uint16(want[at:]) {
			t.Errorf("segment %d: checksum does not follow the partial one", i)
		}
	}
}

func TestSegmentUDPNeverZero(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	one, _ := zeroSumFrame(true)
	tail := one[len(one)-2:]
	packet{udp: true, payload: join(tail, tail, tail)}.super(src, 2)
	var s Segmenter
	got := segments(t, &s, src, dst)
	if len(got) != 3 {
		t.Fatalf("%d segments, want 3", len(got))
	}
	for i, b := range got {
		if sum := binary.BigEndian.Uint16(b[40:]); sum != 0xffff {
			t.Errorf("segment %d: UDP checksum %#04x, want 0xffff for 0", i, sum)
		}
	}
}

func TestSegmentEdges(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	var s Segmenter
	if s.Next(dst) {
		t.Error("the zero Segmenter has a segment")
	}
	tests := []struct {
		name  string
		n     int
		size  uint16
		count int
	}{
		{"no payload", 0, 1, 1},
		{"less than one", 99, 100, 1},
		{"just one", 100, 100, 1},
		{"one byte more", 101, 100, 2},
		{"a whole number", 1000, 100, 10},
		{"one byte a segment", 300, 1, 300},
		{"largest size", 64000, 65535, 1},
	}
	for _, tt := range tests {
		packet{flags: 0x99, payload: make([]byte, tt.n)}.super(src, tt.size)
		if got := segments(t, &s, src, dst); len(got) != tt.count {
			t.Errorf("%s: %d segments, want %d", tt.name, len(got), tt.count)
		}
	}
	// Identification and sequence number wrap around.
	p := packet{id: 0xfffe, seq: 0xffffff00, payload: make([]byte, 1000)}
	p.super(src, 200)
	for i, b := range segments(t, &s, src, dst) {
		if want := naiveSegments(p, 200)[i]; !bytes.Equal(b, want) {
			t.Errorf("wrapped segment %d:\n got % x\nwant % x", i, b, want)
		}
	}
	// A Segmenter left in the middle starts afresh.
	if err := s.Start(src); err != nil || !s.Next(dst) {
		t.Fatal("no first segment")
	}
	src.GSOSize = 500
	if got := segments(t, &s, src, dst); len(got) != 2 {
		t.Errorf("%d segments after a fresh start, want 2", len(got))
	}
}

func TestSegmentRefuses(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	tcp := packet{payload: make([]byte, 3000)}
	udp := packet{udp: true, payload: make([]byte, 3000)}
	tcp6 := packet{v6: true, payload: make([]byte, 3000)}
	tests := []struct {
		name string
		p    packet
		edit func(f *Frame)
		want error
	}{
		{"size 0", tcp, func(f *Frame) { f.GSOSize = 0 }, ErrOffload},
		{"no partial checksum", tcp, func(f *Frame) { f.Flags = 0 }, ErrOffload},
		{"UFO", udp, func(f *Frame) { f.GSOType = GSOUDP }, ErrOffload},
		{"unknown type", tcp, func(f *Frame) { f.GSOType = 9 }, ErrOffload},
		{"short", tcp, func(f *Frame) { f.n = 13 }, ErrShort},
		{"plain frame", tcp, func(f *Frame) { f.GSOType = GSONone }, ErrSegment},
		{"TCPv6 on IPv4", tcp, func(f *Frame) { f.GSOType = GSOTCPv6 }, ErrSegment},
		{"TCPv4 on IPv6", tcp6, func(f *Frame) { f.GSOType = GSOTCPv4 }, ErrSegment},
		{"TCP on UDP", udp, func(f *Frame) { f.GSOType = GSOTCPv4 }, ErrSegment},
		{"UDP on TCP", tcp, func(f *Frame) { f.GSOType = GSOUDPL4 }, ErrSegment},
		{"EtherType ARP", tcp, func(f *Frame) { f.Bytes()[13] = 6 }, ErrSegment},
		{"EtherType of the other IP", tcp, func(f *Frame) { copy(f.Bytes()[12:], []byte{0x86, 0xdd}) }, ErrSegment},
		{"IHL 0", tcp, func(f *Frame) { f.Bytes()[14] = 0x40 }, ErrSegment},
		{"IHL 15", tcp, func(f *Frame) { f.Bytes()[14] = 0x4f }, ErrSegment},
		{"data offset 0", tcp, func(f *Frame) { f.Bytes()[46] = 0 }, ErrSegment},
		{"data offset over the end", packet{}, func(f *Frame) { f.Bytes()[46] = 0xf0 }, ErrSegment},
		{"sum starts elsewhere", tcp, func(f *Frame) { f.CsumStart++ }, ErrSegment},
		{"sum goes elsewhere", tcp, func(f *Frame) { f.CsumOffset = 6 }, ErrSegment},
		{"fragment", tcp, func(f *Frame) { f.Bytes()[20] = 0x20 }, ErrSegment},
		{"later fragment", tcp, func(f *Frame) { f.Bytes()[21] = 1 }, ErrSegment},
		{"truncated", tcp, func(f *Frame) { f.n-- }, ErrSegment},
		{"padding overflows the length", packet{payload: make([]byte, 65535-40), pad: 1}, func(f *Frame) { f.GSOSize = 65535 }, ErrSegment},
	}
	var s Segmenter
	for _, tt := range tests {
		tt.p.super(src, 1000)
		tt.edit(src)
		if err := s.Start(src); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
		if s.Next(dst) {
			t.Errorf("%s: a segment beside the error", tt.name)
		}
	}
}

func TestSegmentLen(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	tests := []struct {
		name string
		p    packet
		edit func(f *Frame)
		want int
	}{
		{"plain", packet{payload: make([]byte, 3000)}, func(f *Frame) { f.GSOType = 0 }, 3054},
		{"TCPv4", packet{payload: make([]byte, 3000)}, func(f *Frame) { f.HdrLen = 1 }, 14 + 20 + 20 + 1000},
		{"TCPv6 with options and a tag", packet{v6: true, tags: []Tag{{TPID8021Q, 1}}, tcpOpts: nops(12), payload: make([]byte, 3000)}, func(f *Frame) {}, 18 + 40 + 32 + 1000},
		{"UDP", packet{udp: true, payload: make([]byte, 3000)}, func(f *Frame) { f.HdrLen = 65535 }, 14 + 20 + 8 + 1000},
		{"ECN", packet{payload: make([]byte, 3000)}, func(f *Frame) { f.GSOType |= GSOECN }, 1054},
		{"one segment", packet{payload: make([]byte, 30)}, func(f *Frame) {}, 84},
		{"hostile start", packet{payload: make([]byte, 30)}, func(f *Frame) { f.CsumStart = 65535 }, 84},
		{"hostile start of UDP", packet{udp: true, payload: make([]byte, 30)}, func(f *Frame) { f.CsumStart = 65535 }, 72},
	}
	for _, tt := range tests {
		tt.p.super(f, 1000)
		tt.edit(f)
		if got := f.SegmentLen(); got != tt.want {
			t.Errorf("%s: SegmentLen %d, want %d", tt.name, got, tt.want)
		}
	}
}

func TestSegmentNoAllocs(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	packet{payload: make([]byte, 60000)}.super(src, 1448)
	var s Segmenter
	noAllocs(t, "Segmenter", func() {
		if err := s.Start(src); err != nil {
			panic(err)
		}
		for s.Next(dst) {
			sink += dst.Len()
		}
	})
	head := make([]byte, MaxHeaders)
	noAllocs(t, "NextHeader", func() {
		if err := s.Start(src); err != nil {
			panic(err)
		}
		for n := 1; n > 0; n, _ = s.NextHeader(head) {
			sink += n
		}
	})
	noAllocs(t, "SegmentLen", func() { sink += src.SegmentLen() })
	src.Bytes()[14] = 0
	noAllocs(t, "refusal", func() {
		if s.Start(src) == nil {
			panic("no error")
		}
	})
}

func FuzzSegment(f *testing.F) {
	pool := testPool(f, 2)
	src, dst := pool.Get(), pool.Get()
	r := rand.New(rand.NewPCG(13, 14))
	for i := range 24 {
		randomPacket(r, 300).super(src, uint16(1+r.IntN(200)))
		o := src.Offload
		if i%4 == 3 {
			o.CsumStart++
		}
		f.Add(bytes.Clone(src.Bytes()), o.GSOType, o.GSOSize, o.CsumStart, o.CsumOffset)
	}
	for range 48 {
		o, p := randomOverlay(r, 300)
		o.super(src, p, uint16(1+r.IntN(200)))
		f.Add(bytes.Clone(src.Bytes()), src.GSOType, src.GSOSize, src.CsumStart, src.CsumOffset)
	}
	var s Segmenter
	f.Fuzz(func(t *testing.T, b []byte, gso uint8, size, start, offset uint16) {
		if len(b) > MaxLen {
			return
		}
		src.Set(b)
		src.Offload = Offload{Flags: NeedsCsum, GSOType: gso, GSOSize: size, CsumStart: start, CsumOffset: offset}
		if s.Start(src) != nil {
			if s.Next(dst) {
				t.Fatal("a segment beside an error")
			}
			return
		}
		whole := bytes.Clone(b)
		l, err := Parse(b)
		if err != nil {
			t.Fatalf("started on a frame that does not parse: %v", err)
		}
		encapsulated := src.Encapsulated()
		if encapsulated == (l.L4 == int(start)) {
			t.Fatalf("Encapsulated says %v; transport at %d, to be cut at %d", encapsulated, l.L4, start)
		}
		hdr := int(start) + UDPLen
		if gso&^GSOECN != GSOUDPL4 {
			hdr = int(start) + tcpHeaderLen(b[start+tcpDataOffset])
		}
		limit := src.SegmentLen()
		var payload []byte
		var all [][]byte
		n := 0
		for ; s.Next(dst); n++ {
			all = append(all, bytes.Clone(dst.Bytes()))
			if n > maxSegments {
				t.Fatal("no end of segments")
			}
			if dst.Len() > limit {
				t.Fatalf("segment of %d bytes, SegmentLen %d", dst.Len(), limit)
			}
			m, err := Parse(dst.Bytes())
			if err != nil || m.L4 != l.L4 || m.Payload != l.Payload || m.End != dst.Len() {
				t.Fatalf("segment parses as %+v, %v; the whole as %+v", m, err, l)
			}
			payload = append(payload, dst.Bytes()[hdr:]...)
		}
		if !bytes.Equal(src.Bytes(), whole) {
			t.Fatal("the super-frame was changed")
		}
		if n == 0 || !bytes.Equal(payload, b[hdr:]) {
			t.Fatal("payloads do not add up to the original")
		}
		if err := nextHeaders(&s, src, dst, 2, all); err != nil {
			t.Fatal(err)
		}
	})
}

func BenchmarkSegment(b *testing.B) {
	for _, size := range []uint16{536, 1448, 8948} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			pool := testPool(b, 2)
			src, dst := pool.Get(), pool.Get()
			packet{payload: make([]byte, 64000), tcpOpts: nops(12)}.super(src, size)
			var s Segmenter
			b.ReportAllocs()
			b.SetBytes(int64(src.Len()))
			for b.Loop() {
				if err := s.Start(src); err != nil {
					b.Fatal(err)
				}
				for s.Next(dst) {
				}
			}
		})
	}
}

// What a tunnel does with a super-frame: headers made, payload summed in place.
func BenchmarkNextHeader(b *testing.B) {
	for _, size := range []uint16{536, 1398, 8948} {
		b.Run(fmt.Sprint(size), func(b *testing.B) {
			pool := testPool(b, 1)
			src := pool.Get()
			packet{payload: make([]byte, 64000), tcpOpts: nops(12)}.super(src, size)
			head := make([]byte, MaxHeaders)
			var s Segmenter
			b.ReportAllocs()
			b.SetBytes(int64(src.Len()))
			for b.Loop() {
				if err := s.Start(src); err != nil {
					b.Fatal(err)
				}
				for n := 1; n > 0; n, _ = s.NextHeader(head) {
				}
			}
		})
	}
}

func BenchmarkSegmentLen(b *testing.B) {
	pool := testPool(b, 1)
	f := pool.Get()
	packet{payload: make([]byte, 64000)}.super(f, 1448)
	b.ReportAllocs()
	for b.Loop() {
		sink += f.SegmentLen()
	}
}
