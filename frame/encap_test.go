package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// An overlay describes the outer half of a tunnel's frame for the tests to build,
// the long way, as packet does for the inner.
type overlay struct {
	kind   string // vxlan, geneve, gre, gretap, ip
	v6     bool   // outer
	tags   []Tag  // outer
	ext    []byte // outer IPv6 extension headers, ready made; proto0 is in front
	ipOpts []byte // outer IPv4
	id     uint16
	sum    bool // of UDP or GRE
	key    bool // of GRE
	opts   int  // 4-byte units of Geneve options
}

// around returns the tunnel's frame around inner, an Ethernet frame, with the
// outer checksum as a super-frame has it, or final.
func (o overlay) around(inner []byte, final bool) []byte {
	proto, head := uint8(17), []byte{0xc0, 0x01, 0x12, 0xb5, 0, 0, 0, 0} // UDP
	field := 6
	ether := binary.BigEndian.Uint16(inner[12:])
	switch o.kind {
	case "vxlan":
		head = append(head, 8, 0, 0, 0, 0, 0, 7, 0)
	case "geneve":
		head = append(head, byte(o.opts), 0, 0x65, 0x58, 0, 0, 7, 0)
		for i := range o.opts * 4 {
			head = append(head, byte(i)|0x45)
		}
	case "gre", "gretap":
		proto, field = 47, 4
		head = []byte{0, 0, 0x65, 0x58}
		if o.sum {
			head[0] |= 0x80
			head = append(head, 0, 0, 0, 0)
		}
		if o.key {
			head[0] |= 0x20
			head = append(head, 1, 2, 3, 4)
		}
		if o.kind == "gre" {
			binary.BigEndian.PutUint16(head[2:], ether)
			inner = inner[14:]
		}
	case "ip":
		proto, head = 4, nil
		if ether == 0x86dd {
			proto = 41
		}
		inner = inner[14:]
	}
	body := join(head, inner)
	addrs := []byte{192, 0, 2, 1, 192, 0, 2, 2}
	if o.v6 {
		addrs = append(bytes.Repeat([]byte{0x20}, 15), 1)
		addrs = append(addrs, bytes.Repeat([]byte{0x20}, 15)...)
		addrs = append(addrs, 2)
	}
	if proto == 17 {
		binary.BigEndian.PutUint16(body[4:], uint16(len(body)))
	}
	if o.sum && proto != 4 && proto != 41 {
		var pseudo uint16
		if proto == 17 {
			ph := append(bytes.Clone(addrs), 0, proto)
			pseudo = naiveSum(binary.BigEndian.AppendUint16(ph, uint16(len(body))), 0)
		}
		switch {
		case final:
			sum := ^naiveSum(body, uint32(pseudo))
			if sum == 0 && proto == 17 {
				sum = 0xffff
			}
			binary.BigEndian.PutUint16(body[field:], sum)
		case proto == 17:
			binary.BigEndian.PutUint16(body[field:], pseudo)
		default: // whatever stands there
			copy(body[field:], []byte{0xde, 0xad, 0xbe, 0xef})
		}
	}
	b := join([]byte{2, 0, 0, 0, 9, 2, 2, 0, 0, 0, 9, 1})
	for _, t := range o.tags {
		b = binary.BigEndian.AppendUint16(b, t.TPID)
		b = binary.BigEndian.AppendUint16(b, t.TCI)
	}
	if o.v6 {
		next := proto
		if len(o.ext) > 0 {
			next = 60
			o.ext[0] = proto
		}
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(o.ext)+len(body)))
		b = append(b, next, 64)
		return join(b, addrs, o.ext, body)
	}
	ip := []byte{0x40 | uint8(5+len(o.ipOpts)/4), 0}
	ip = binary.BigEndian.AppendUint16(ip, uint16(20+len(o.ipOpts)+len(body)))
	ip = binary.BigEndian.AppendUint16(ip, o.id)
	ip = append(ip, 0, 0, 64, proto, 0, 0)
	ip = join(ip, addrs, o.ipOpts)
	binary.BigEndian.PutUint16(ip[10:], ^naiveSum(ip, 0))
	return join(b, []byte{0x08, 0x00}, ip, body)
}

// super makes f the tunnel's super-frame around p's.
func (o overlay) super(f *Frame, p packet, size uint16) {
	p.super(f, size)
	inner, offload := bytes.Clone(f.Bytes()), f.Offload
	b := o.around(inner, false)
	more := uint16(len(b) - len(inner))
	f.Set(b)
	f.Offload = offload
	f.CsumStart += more
	f.HdrLen += more
}

// segments is the oracle: naiveSegments of the inner packet, each in a tunnel.
func (o overlay) segments(p packet, size int) [][]byte {
	out := naiveSegments(p, size)
	for i := range out {
		out[i] = o.around(out[i], true)
		o.id++
	}
	return out
}

// randomOverlay returns any kind of tunnel around any kind of packet with up to n
// payload bytes.
func randomOverlay(r *rand.Rand, n int) (overlay, packet) {
	p := randomPacket(r, n)
	o := overlay{
		kind:   []string{"vxlan", "geneve", "gre", "gretap", "ip"}[r.IntN(5)],
		v6:     r.IntN(2) == 0,
		ipOpts: nops(4 * r.IntN(4)),
		id:     uint16(r.Uint32()),
		sum:    r.IntN(2) == 0,
		key:    r.IntN(2) == 0,
		opts:   r.IntN(64),
	}
	if o.kind == "ip" || o.kind == "gre" {
		p.tags = nil
	}
	if r.IntN(3) == 0 {
		o.tags = []Tag{{TPID8021Q, 7}}
	}
	if r.IntN(3) == 0 {
		o.ext = ext(0, r.IntN(3))
	}
	return o, p
}

func TestSegmentOverlayAgainstNaive(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	r := rand.New(rand.NewPCG(21, 22))
	var s Segmenter
	for i := range 900 {
		o, p := randomOverlay(r, []int{40, 5000, 64000}[i%3])
		size := max(1+r.IntN([]int{20, 1460, 9000}[i%3]), len(p.payload)/maxSegments+1)
		o.super(src, p, uint16(size))
		src.Tag = Tag{TPID8021AD, uint16(i)}
		whole := bytes.Clone(src.Bytes())
		if err := src.Check(); err != nil || !src.Encapsulated() {
			t.Fatalf("%+v: not encapsulated, or %v", o, err)
		}
		got, want := segments(t, &s, src, dst), o.segments(p, size)
		if !bytes.Equal(src.Bytes(), whole) {
			t.Fatal("the super-frame was changed")
		}
		if len(got) != len(want) {
			t.Fatalf("%d segments, want %d", len(got), len(want))
		}
		longest := 0
		for k := range got {
			if !bytes.Equal(got[k], want[k]) {
				t.Fatalf("%+v, v6=%v udp=%v: segment %d of %d:\n got % x\nwant % x", o, p.v6, p.udp, k, len(got), got[k], want[k])
			}
			longest = max(longest, len(got[k]))
		}
		if n := src.SegmentLen(); n != longest {
			t.Fatalf("SegmentLen %d, longest segment %d", n, longest)
		}
		// Whole in a capture file, all its checksums are right.
		offload := src.Offload
		if err := Finish(whole, &offload); err != nil {
			t.Fatal(err)
		}
		if all := o.segments(p, len(p.payload)+1)[0]; !bytes.Equal(whole[14:], all[14:]) && p.flags&0x89 == 0 {
			t.Fatalf("%+v: Finish:\n got % x\nwant % x", o, whole[:200], all[:200])
		}
	}
}

// A second implementation reads what comes out, where it knows the tunnel.
func TestSegmentOverlayGopacket(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	var s Segmenter
	for _, v6 := range []bool{false, true} {
		overlay{kind: "vxlan", v6: v6, sum: true}.super(src, packet{payload: make([]byte, 5000)}, 1400)
		for k, b := range segments(t, &s, src, dst) {
			if err := verify(innermost(t, b, layers.LayerTypeVXLAN)); err != nil {
				t.Errorf("segment %d, inner: %v", k, err)
			}
			if err := verify(b[:len(b):len(b)]); err != nil {
				t.Errorf("segment %d, outer: %v", k, err)
			}
		}
	}
}

// innermost returns the frame that a tunnel's frame carries.
func innermost(t *testing.T, b []byte, tunnel gopacket.LayerType) []byte {
	t.Helper()
	l := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.NoCopy).Layer(tunnel)
	if l == nil {
		t.Fatalf("gopacket finds no %v in % x", tunnel, b)
	}
	return l.LayerPayload()
}

func TestEncapsulated(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	p := packet{payload: make([]byte, 3000)}
	overlay{kind: "vxlan"}.super(f, p, 1000)
	if !f.Encapsulated() {
		t.Error("VXLAN: false")
	}
	f.GSOType = GSONone
	if f.Encapsulated() {
		t.Error("a plain frame: true")
	}
	r := rand.New(rand.NewPCG(23, 24))
	for range 300 {
		q := randomPacket(r, 3000)
		q.super(f, 1000)
		if f.Encapsulated() {
			t.Fatalf("%+v: true", q)
		}
	}
	p.super(f, 1000)
	f.Bytes()[13] = 6 // ARP
	if f.Encapsulated() {
		t.Error("not IP: true")
	}
}

func TestSegmentOverlayRefuses(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	tcp, tcp6 := packet{payload: make([]byte, 3000)}, packet{v6: true, payload: make([]byte, 3000)}
	udp := packet{udp: true, payload: make([]byte, 3000)}
	const l3, l4, vx, in = 14, 34, 42, 64 // outer IPv4, UDP, VXLAN, inner IP
	tests := []struct {
		name string
		o    overlay
		p    packet
		edit func(b []byte)
	}{
		{"inner version", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[in] = 0x55 }},
		{"inner header too short", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[in] = 0x44 }},
		{"inner protocol", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[in+9] = 17 }},
		{"inner length", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[in+3]-- }},
		{"inner fragment", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[in+6] = 0x20 }},
		{"inner data offset", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[in+32] = 0x40 }},
		{"inner IPv6 length", overlay{kind: "vxlan"}, tcp6, func(b []byte) { b[in+5]-- }},
		{"TCPv4 said, IPv6 inside", overlay{kind: "vxlan"}, tcp6, func([]byte) { src.GSOType = GSOTCPv4 }},
		{"TCPv6 said, IPv4 inside", overlay{kind: "vxlan"}, tcp, func([]byte) { src.GSOType = GSOTCPv6 }},
		{"UDP said, TCP inside", overlay{kind: "vxlan"}, tcp, func([]byte) { src.GSOType = GSOUDPL4 }},
		{"TCP said, UDP inside", overlay{kind: "vxlan"}, udp, func([]byte) { src.GSOType = GSOTCPv4 }},
		{"sum goes elsewhere", overlay{kind: "vxlan"}, tcp, func([]byte) { src.CsumOffset = 6 }},
		{"sum starts one byte on", overlay{kind: "vxlan"}, tcp, func([]byte) { src.CsumStart++ }},
		{"sum starts in the outer header", overlay{kind: "vxlan"}, tcp, func([]byte) { src.CsumStart = l3 + 4 }},
		{"sum starts in the tunnel header", overlay{kind: "vxlan"}, tcp, func([]byte) { src.CsumStart = vx }},
		{"outer fragment", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[l3+6] = 0x20 }},
		{"outer length", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[l3+2] = 0xff }},
		{"outer TCP", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[l3+9] = 6; b[l4+12] = 0x50 }},
		{"outer ICMP", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[l3+9] = 1 }},
		{"GRE with sequence numbers", overlay{kind: "gre", key: true}, tcp, func(b []byte) { b[l4] |= 0x10 }},
		{"GRE with routes", overlay{kind: "gre", key: true}, tcp, func(b []byte) { b[l4] |= 0x40 }},
		{"PPTP", overlay{kind: "gre", key: true}, tcp, func(b []byte) { b[l4+1] = 1 }},
		{"IPIP said, IPv6 inside", overlay{kind: "ip"}, tcp6, func(b []byte) { b[l3+9] = 4 }},
		{"SIT said, IPv4 inside", overlay{kind: "ip"}, tcp, func(b []byte) { b[l3+9] = 41 }},
		{"IPIP with something between", overlay{kind: "vxlan"}, tcp, func(b []byte) { b[l3+9] = 4 }},
		{"too many segments", overlay{kind: "vxlan"}, tcp, func([]byte) { src.GSOSize = 1 }},
	}
	var s Segmenter
	refused := func(name string) {
		t.Helper()
		if err := s.Start(src); !errors.Is(err, ErrSegment) {
			t.Errorf("%s: error %v, want ErrSegment", name, err)
		}
		if s.Next(dst) {
			t.Errorf("%s: a segment beside the error", name)
		}
	}
	for _, tt := range tests {
		tt.o.super(src, tt.p, 1000)
		tt.edit(src.Bytes())
		refused(tt.name)
	}
	// A tunnel in a tunnel.
	for _, first := range []string{"vxlan", "geneve", "gre", "gretap", "ip"} {
		for _, second := range []string{"vxlan", "gre", "gretap", "ip"} {
			for _, v6 := range []bool{false, true} {
				overlay{kind: first, v6: v6}.super(src, tcp, 1000)
				offload := src.Offload
				b := overlay{kind: second, v6: !v6}.around(bytes.Clone(src.Bytes()), false)
				offload.CsumStart += uint16(len(b) - src.Len())
				src.Set(b)
				src.Offload = offload
				refused(fmt.Sprintf("%s in %s, v6=%v", first, second, v6))
			}
		}
	}
	// Further from the outer header than any tunnel's.
	overlay{kind: "geneve", opts: 63}.super(src, tcp, 1000)
	if s.Start(src) != nil {
		t.Error("the longest Geneve header is refused")
	}
	overlay{kind: "geneve", opts: 70}.super(src, tcp, 1000)
	refused("longer than Geneve")
}

func TestSegmentBound(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	var s Segmenter
	for _, tt := range []struct {
		n    int
		size uint16
		want error
	}{
		{2048, 1, nil},
		{2049, 1, ErrSegment},
		{65000, 36, nil},
		{65000, 1, ErrSegment},
		{65000, 31, ErrSegment},
	} {
		packet{payload: make([]byte, tt.n)}.super(f, tt.size)
		if err := s.Start(f); !errors.Is(err, tt.want) {
			t.Errorf("%d bytes in segments of %d: error %v, want %v", tt.n, tt.size, err, tt.want)
		}
	}
}

func TestOverlayNoAllocs(t *testing.T) {
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	overlay{kind: "vxlan", sum: true}.super(src, packet{payload: make([]byte, 60000)}, 1398)
	var s Segmenter
	noAllocs(t, "Segmenter", func() {
		if err := s.Start(src); err != nil {
			panic(err)
		}
		for s.Next(dst) {
			sink += dst.Len()
		}
	})
	noAllocs(t, "Encapsulated", func() {
		if !src.Encapsulated() {
			panic("not")
		}
	})
}

func BenchmarkSegmentOverlay(b *testing.B) {
	for _, sum := range []bool{false, true} {
		b.Run(fmt.Sprintf("checksum=%v", sum), func(b *testing.B) {
			pool := testPool(b, 2)
			src, dst := pool.Get(), pool.Get()
			overlay{kind: "vxlan", sum: sum}.super(src, packet{payload: make([]byte, 64000), tcpOpts: nops(12)}, 1398)
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

func BenchmarkEncapsulated(b *testing.B) {
	pool := testPool(b, 1)
	f := pool.Get()
	packet{payload: make([]byte, 64000)}.super(f, 1448)
	b.ReportAllocs()
	for b.Loop() {
		if f.Encapsulated() {
			b.Fatal("encapsulated")
		}
	}
}
