package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"testing"
)

// arrival is a frame that comes out of a tunnel, its tags in its bytes.
type arrival struct {
	b     []byte
	port  uint32
	train bool // Coalescer.UDP
}

// receive is a receive call as an endpoint makes it, and returns its batch.
func receive(c *Coalescer, frames []*Frame, in []arrival) []*Frame {
	n := 0
	for _, a := range in {
		c.UDP = a.train
		if c.Join(a.b, a.port) {
			continue
		}
		f := frames[n]
		n++
		f.Set(a.b)
		f.PopTag()
		f.Port = a.port
		c.Open(f)
	}
	c.Close()
	return frames[:n]
}

// apart cuts a batch into what it stands for on the wire, as receive took it in.
func apart(t testing.TB, batch []*Frame, dst *Frame) [][]arrival {
	t.Helper()
	var s Segmenter
	var out [][]arrival
	for _, f := range batch {
		var of []arrival
		whole := func(f *Frame) []byte {
			b := bytes.Clone(f.Bytes())
			if !f.Tag.Present() {
				return b
			}
			tag := make([]byte, TagLen)
			f.Tag.put(tag)
			return join(b[:AddrLen], tag, b[AddrLen:])
		}
		if !f.Super() {
			if f.Offload != (Offload{}) {
				t.Fatalf("frame alone has offload state %+v", f.Offload)
			}
			of = append(of, arrival{b: whole(f), port: f.Port})
		} else {
			if f.WireLen() > MaxLen {
				t.Fatalf("super-frame of %d bytes with its tag", f.WireLen())
			}
			if err := s.Start(f); err != nil {
				t.Fatalf("super-frame with %+v cannot be cut: %v", f.Offload, err)
			}
			for s.Next(dst) {
				of = append(of, arrival{b: whole(dst), port: f.Port})
			}
			if len(of) < 2 {
				t.Fatal("super-frame of one segment")
			}
		}
		out = append(out, of)
	}
	return out
}

func poolFrames(t testing.TB, n int) []*Frame {
	t.Helper()
	p := testPool(t, n)
	frames := make([]*Frame, n)
	for i := range frames {
		frames[i] = p.Get()
	}
	return frames
}

// wireFrames returns what p is on the wire when cut at size.
func wireFrames(p packet, size int) [][]byte { return naiveSegments(p, size) }

// resum makes the checksums of b right.
func resum(b []byte) []byte {
	l, err := Parse(b)
	if err != nil {
		return b
	}
	addrs := b[l.L3:]
	if l.EtherType == EtherIPv4 {
		h := b[l.L3 : l.L3+ipv4HeaderLen(b[l.L3])]
		copy(h[10:], []byte{0, 0})
		binary.BigEndian.PutUint16(h[10:], ^naiveSum(h, 0))
		addrs = h[12:20]
	} else if l.EtherType == EtherIPv6 {
		addrs = addrs[8:40]
	}
	if l.L4 == 0 || l.Fragment || l.Proto != ProtoTCP && l.Proto != ProtoUDP {
		return b
	}
	p := b[l.L4:l.End]
	field := p[6:8]
	if l.Proto == ProtoTCP {
		field = p[16:18]
	}
	copy(field, []byte{0, 0})
	ph := binary.BigEndian.AppendUint32(append([]byte{}, addrs...), uint32(len(p)))
	sum := ^naiveSum(p, uint32(naiveSum(append(ph, 0, l.Proto), 0)))
	if sum == 0 && l.Proto == ProtoUDP {
		sum = 0xffff
	}
	binary.BigEndian.PutUint16(field, sum)
	return b
}

// counts returns how many segments each frame of the batch stands for.
func counts(of [][]arrival) []int {
	n := make([]int, len(of))
	for i := range of {
		n[i] = len(of[i])
	}
	return n
}

// A super-frame looks as one from a veth, and is what was cut.
func TestCoalesceInvertsSegment(t *testing.T) {
	frames := poolFrames(t, 66)
	for _, tt := range []struct {
		name string
		p    packet
		gso  uint8
		size int
	}{
		{"TCPv4", packet{id: 0xfff0, seq: 0xffff8000, flags: 0x10, tcpOpts: nops(12)}, GSOTCPv4, 1448},
		{"TCPv4 CWR, PSH, FIN", packet{flags: 0x10 | 0x80 | 0x40 | 0x08 | 0x01}, GSOTCPv4 | GSOECN, 1460},
		{"TCPv4, tag", packet{flags: 0x10, tags: []Tag{{TPID8021Q, 0x6123}}}, GSOTCPv4, 1460},
		{"TCPv4, two tags", packet{flags: 0x18, tags: []Tag{{TPID8021AD, 7}, {TPID8021Q, 8}}}, GSOTCPv4, 1461},
		{"TCPv6", packet{v6: true, flags: 0x18, tcpOpts: nops(40)}, GSOTCPv6, 1431},
		{"UDPv4", packet{udp: true, id: 0xffff}, GSOUDPL4, 1472},
		{"UDPv6, tag", packet{udp: true, v6: true, tags: []Tag{{TPID8021Q, 1}}}, GSOUDPL4, 1001},
	} {
		for _, n := range []int{2 * tt.size, 2*tt.size + 1, 40*tt.size - 1, 40 * tt.size} {
			p := tt.p
			p.payload = make([]byte, n)
			for i := range p.payload {
				p.payload[i] = byte(i * 7)
			}
			var in []arrival
			for _, b := range wireFrames(p, tt.size) {
				in = append(in, arrival{b, 5, true})
			}
			var c Coalescer
			batch := receive(&c, frames[:65], in)
			if len(batch) != 1 {
				t.Fatalf("%s: %d segments became %d frames", tt.name, len(in), len(batch))
			}
			f := batch[0]
			for i, a := range apart(t, batch, frames[65])[0] {
				if !bytes.Equal(a.b, in[i].b) {
					t.Fatalf("%s: segment %d\n got % x\nwant % x", tt.name, i, a.b, in[i].b)
				}
			}
			b, want := p.build()
			want.GSOType, want.GSOSize, want.HdrLen = tt.gso, uint16(tt.size), uint16(len(b)-n)
			if len(p.tags) > 0 {
				f.PushTag(f.Tag)
			}
			if !bytes.Equal(f.Bytes(), b) || f.Offload != want {
				t.Fatalf("%s: super-frame\n got % x\nwant % x\n%+v\n%+v", tt.name, f.Bytes()[:100], b[:100], f.Offload, want)
			}
		}
	}
}

// What stands between segments or differs in one, and what becomes of them.
func TestCoalesceCloses(t *testing.T) {
	frames := poolFrames(t, 66)
	tcp := packet{id: 9, seq: 100, flags: 0x10, tcpOpts: nops(12), payload: make([]byte, 400)}
	tcp6, udp, udp6, tagged := tcp, tcp, tcp, tcp
	tcp6.v6 = true
	udp.udp = true
	udp6.udp, udp6.v6 = true, true
	tagged.tags = []Tag{{TPID8021Q, 7}}
	// Offsets in a frame without tag.
	const ip, tcp4, tcp6at = 14, 34, 54
	set := func(at int, v ...byte) func([]byte) []byte {
		return func(b []byte) []byte { copy(b[at:], v); return resum(b) }
	}
	raw := func(at int) func([]byte) []byte {
		return func(b []byte) []byte { b[at] ^= 0x55; return b }
	}
	field := func(at int, sum uint16) func([]byte) []byte {
		return func(b []byte) []byte { binary.BigEndian.PutUint16(b[at:], sum); return b }
	}
	// four segments of 100 bytes, of which number at is edited
	for _, tt := range []struct {
		name string
		p    packet
		at   int
		edit func([]byte) []byte
		want []int
	}{
		{"nothing", tcp, 1, func(b []byte) []byte { return b }, []int{4}},
		{"destination MAC", tcp, 1, raw(0), []int{1, 1, 2}},
		{"source MAC", tcp, 2, raw(11), []int{2, 1, 1}},
		{"TOS", tcp, 1, set(ip+1, 3), []int{1, 1, 2}},
		{"identification", tcp, 1, set(ip+4, 0, 99), []int{1, 1, 2}},
		{"fixed identification", tcp, 1, set(ip+4, 0, 9), []int{1, 1, 2}},
		{"DF", tcp, 1, set(ip+6, 0x40), []int{1, 1, 2}},
		{"reserved bit", tcp, 1, set(ip+6, 0x80), []int{1, 1, 2}},
		{"fragment", tcp, 1, set(ip+6, 0x20), []int{1, 1, 2}},
		{"later fragment", tcp, 1, set(ip+6, 0, 9), []int{1, 1, 2}},
		{"TTL", tcp, 1, set(ip+8, 63), []int{1, 1, 2}},
		{"protocol", tcp, 1, set(ip+9, 99), []int{1, 1, 2}},
		{"another source", tcp, 1, set(ip+12, 11), []int{1, 1, 2}},
		{"another port", tcp, 1, set(tcp4, 11), []int{1, 1, 2}},
		{"IP checksum", tcp, 1, raw(ip + 10), []int{1, 1, 2}},
		{"IP checksum of the first", tcp, 0, raw(ip + 10), []int{1, 3}},
		{"TCP checksum", tcp, 1, raw(tcp4 + 16), []int{1, 1, 2}},
		{"TCP checksum of the first", tcp, 0, raw(tcp4 + 16), []int{1, 3}},
		{"payload", tcp, 2, raw(tcp4 + 100), []int{2, 1, 1}},
		{"payload of the first", tcp, 0, raw(tcp4 + 100), []int{1, 3}},
		{"sequence number", tcp, 1, set(tcp4+4, 1), []int{1, 1, 2}},
		{"acknowledgment", tcp, 2, set(tcp4+8, 1), []int{2, 1, 1}},
		{"reserved bits", tcp, 1, set(tcp4+12, 0x81), []int{1, 1, 2}},
		{"shorter header", tcp, 1, set(tcp4+12, 0x70), []int{1, 1, 2}},
		{"PSH", tcp, 1, set(tcp4+13, 0x18), []int{2, 2}},
		{"PSH of the first", tcp, 0, set(tcp4+13, 0x18), []int{1, 3}},
		{"PSH of the last", tcp, 3, set(tcp4+13, 0x18), []int{4}},
		{"FIN", tcp, 1, set(tcp4+13, 0x11), []int{2, 2}},
		{"CWR of the first", tcp, 0, set(tcp4+13, 0x90), []int{4}},
		{"CWR", tcp, 2, set(tcp4+13, 0x90), []int{2, 2}},
		{"ECE", tcp, 1, set(tcp4+13, 0x50), []int{1, 1, 2}},
		{"SYN", tcp, 1, set(tcp4+13, 0x12), []int{1, 1, 2}},
		{"RST", tcp, 0, set(tcp4+13, 0x14), []int{1, 3}},
		{"URG", tcp, 0, set(tcp4+13, 0x30), []int{1, 3}},
		{"window", tcp, 1, set(tcp4+14, 0x21), []int{1, 1, 2}},
		{"urgent pointer", tcp, 1, set(tcp4+18, 0x21), []int{1, 1, 2}},
		{"options", tcp, 1, set(tcp4+20, 0), []int{1, 1, 2}},
		{"padding", tcp, 1, func(b []byte) []byte { return append(b, 0) }, []int{1, 1, 2}},
		{"padding of the first", tcp, 0, func(b []byte) []byte { return append(b, 0) }, []int{1, 3}},
		{"shorter", tcp, 2, func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[ip+2:], uint16(len(b)-ip-1))
			return resum(b[:len(b)-1])
		}, []int{3, 1}},
		{"longer", tcp, 1, func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[ip+2:], uint16(len(b)-ip+1))
			return resum(append(b, 0))
		}, []int{1, 1, 2}},
		{"no payload", tcp, 1, func(b []byte) []byte {
			binary.BigEndian.PutUint16(b[ip+2:], 52)
			return resum(b[:66])
		}, []int{1, 1, 2}},
		{"truncated", tcp, 1, func(b []byte) []byte { return b[:60] }, []int{1, 1, 2}},
		{"another tag", tagged, 1, raw(15), []int{1, 1, 2}},
		{"priority", tagged, 1, raw(14), []int{1, 1, 2}},
		{"TPID", tagged, 1, field(12, TPID8021AD), []int{1, 1, 2}},
		{"no tag", tagged, 1, func(b []byte) []byte { return join(b[:12], b[16:]) }, []int{1, 1, 2}},
		{"one more tag", tagged, 1, func(b []byte) []byte { return join(b[:16], []byte{0x81, 0, 0, 7}, b[16:]) }, []int{1, 1, 2}},
		{"a tag", tcp, 1, func(b []byte) []byte { return join(b[:12], []byte{0x81, 0, 0, 7}, b[12:]) }, []int{1, 1, 2}},
		{"v6 traffic class", tcp6, 1, raw(ip), []int{1, 1, 2}},
		{"v6 flow label", tcp6, 1, raw(ip + 3), []int{1, 1, 2}},
		{"v6 hop limit", tcp6, 1, set(ip+7, 63), []int{1, 1, 2}},
		{"v6 TCP checksum", tcp6, 1, raw(tcp6at + 16), []int{1, 1, 2}},
		{"v6 TCP checksum of the first", tcp6, 0, raw(tcp6at + 16), []int{1, 3}},
		{"v6 extension header", tcp6, 1, func(b []byte) []byte {
			b[ip+6] = 60
			b[ip+5] += 8
			return join(b[:54], ext(6, 0), b[54:])
		}, []int{1, 1, 2}},
		{"UDP", udp, 1, func(b []byte) []byte { return b }, []int{4}},
		{"UDP checksum", udp, 1, raw(tcp4 + 6), []int{1, 1, 2}},
		{"UDP without checksum", udp, 1, field(tcp4+6, 0), []int{1, 1, 2}},
		{"UDP without checksum first", udp, 0, field(tcp4+6, 0), []int{1, 3}},
		{"UDP length", udp, 1, set(tcp4+5, 107), []int{1, 1, 2}},
		{"UDP payload of the first", udp6, 0, raw(tcp6at + 50), []int{1, 3}},
	} {
		var in []arrival
		for i, b := range wireFrames(tt.p, 100) {
			if i == tt.at {
				b = tt.edit(bytes.Clone(b))
			}
			in = append(in, arrival{b, 1, true})
		}
		var c Coalescer
		out := apart(t, receive(&c, frames[:65], in), frames[65])
		if got := counts(out); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			// A segment of another flow leaves this one's open.
			t.Errorf("%s: joined as %v, want %v", tt.name, got, tt.want)
			continue
		}
		k := 0
		for _, of := range out {
			for _, a := range of {
				if !bytes.Equal(a.b, in[k].b) {
					t.Errorf("%s: segment %d\n got % x\nwant % x", tt.name, k, a.b, in[k].b)
				}
				k++
			}
		}
	}
}

// A flag that all segments have may still keep them apart.
func TestCoalesceFlags(t *testing.T) {
	frames := poolFrames(t, 66)
	for flag := range 8 {
		var in []arrival
		for _, b := range wireFrames(packet{flags: 0x10, payload: make([]byte, 300)}, 100) {
			b[47] |= 1 << flag
			in = append(in, arrival{resum(b), 1, false})
		}
		want := "[1 1 1]"
		if flag == 4 || flag == 6 { // ACK, ECE
			want = "[3]"
		}
		var c Coalescer
		if got := fmt.Sprint(counts(apart(t, receive(&c, frames[:65], in), frames[65]))); got != want {
			t.Errorf("flag %#02x: joined as %s, want %s", 1<<flag, got, want)
		}
	}
}

// A corrupt segment that ends a train, and could not be opened, closes too: the
// good one sent again must not overtake it.
func TestCoalesceCorruptEnd(t *testing.T) {
	frames := poolFrames(t, 66)
	segs := wireFrames(packet{flags: 0x18, payload: make([]byte, 300)}, 100)
	corrupt := bytes.Clone(segs[2])
	corrupt[100]++
	in := []arrival{{segs[0], 1, false}, {segs[1], 1, false}, {corrupt, 1, false}, {segs[2], 1, false}}
	var c Coalescer
	if got := fmt.Sprint(counts(apart(t, receive(&c, frames[:65], in), frames[65]))); got != "[2 1 1]" {
		t.Errorf("joined as %s", got)
	}
}

// Both zeros of ones' complement verify, but only one comes out of Segmenter.
func TestCoalesceOtherZero(t *testing.T) {
	frames := poolFrames(t, 66)
	try := func(name string, in []arrival, want ...int) {
		t.Helper()
		for _, a := range in {
			if naiveSum(a.b[14:34], 0) != 0xffff {
				t.Fatalf("%s: the IPv4 checksum is not even right", name)
			}
		}
		var c Coalescer
		if got := counts(apart(t, receive(&c, frames[:65], in), frames[65])); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("%s: joined as %v, want %v", name, got, want)
		}
	}
	// zeroed edits two bytes of b so that the checksum at field becomes 0.
	zeroed := func(b []byte, at, field int) {
		copy(b[at:], []byte{0, 0})
		resum(b)
		copy(b[at:], b[field:field+2])
		resum(b)
		if binary.BigEndian.Uint16(b[field:]) != 0 {
			t.Fatalf("checksum % x, want 0", b[field:field+2])
		}
	}
	for _, which := range []int{0, 1} {
		b := wireFrames(packet{flags: 0x10, payload: make([]byte, 200)}, 100)
		zeroed(b[which], 60, 50)
		try("TCP checksum 0", []arrival{{b[0], 1, false}, {b[1], 1, false}}, 2)
		copy(b[which][50:], []byte{0xff, 0xff})
		try("TCP checksum 0xffff", []arrival{{b[0], 1, false}, {b[1], 1, false}}, 1, 1)

		b = wireFrames(packet{flags: 0x10, payload: make([]byte, 200)}, 100)
		zeroed(b[which], 26, 24) // an address
		copy(b[1-which][26:], b[which][26:28])
		resum(b[1-which])
		resum(b[which])
		try("IPv4 checksum 0", []arrival{{b[0], 1, false}, {b[1], 1, false}}, 2)
		copy(b[which][24:], []byte{0xff, 0xff})
		try("IPv4 checksum 0xffff", []arrival{{b[0], 1, false}, {b[1], 1, false}}, 1, 1)
	}
	one, _ := zeroSumFrame(true)
	tail := one[len(one)-2:]
	b := wireFrames(packet{udp: true, payload: join(tail, tail)}, 2)
	if binary.BigEndian.Uint16(b[1][40:]) != 0xffff {
		t.Fatal("UDP checksum is not 0xffff")
	}
	try("UDP checksum 0xffff", []arrival{{b[0], 1, true}, {b[1], 1, true}}, 2)
}

// Bounds of a super-frame, and of how many are open.
func TestCoalesceBounds(t *testing.T) {
	frames := poolFrames(t, 66)
	cutUp := func(p packet, size int) (in []arrival) {
		for _, b := range wireFrames(p, size) {
			in = append(in, arrival{b, 1, true})
		}
		return in
	}
	v4, v6, udp := packet{flags: 0x10}, packet{v6: true, flags: 0x10}, packet{udp: true}
	tagged := packet{flags: 0x10, tags: []Tag{{TPID8021Q, 1}, {TPID8021Q, 2}}}
	for _, tt := range []struct {
		name    string
		p       packet
		n, size int
		want    []int
	}{
		{"IPv4 packet of 65535", v4, 65535 - 40, 5039, []int{13}},
		{"IPv6 packet of 65535", v6, 65535 - 60, 5037, []int{13}},
		// MaxLen has room for one tag.
		{"the same with two tags", tagged, 65535 - 40, 5039, []int{12, 1}},
		{"2048 segments", v4, 2048, 1, []int{2048}},
		{"64 datagrams", udp, 64 * 900, 900, []int{64}},
		{"90 datagrams", udp, 90 * 100, 100, []int{64, 26}},
	} {
		tt.p.payload = make([]byte, tt.n)
		in := cutUp(tt.p, tt.size)
		var c Coalescer
		out := apart(t, receive(&c, frames[:65], in), frames[65])
		if got := counts(out); fmt.Sprint(got) != fmt.Sprint(tt.want) {
			t.Errorf("%s: %d segments joined as %v, want %v", tt.name, len(in), got, tt.want)
		}
	}
	// One more byte than an IP packet holds goes into another frame.
	for _, v6 := range []bool{false, true} {
		p := packet{v6: v6, flags: 0x10, payload: make([]byte, 60000)}
		q := p
		q.id, q.seq, q.payload = 6, 60000, make([]byte, 6000)
		for extra, want := range []int{1, 2} {
			q.payload = q.payload[:65535-60000-40+extra]
			if v6 {
				q.payload = q.payload[:len(q.payload)-20]
			}
			in := append(cutUp(p, 10000), cutUp(q, 10000)...)
			var c Coalescer
			if got := len(receive(&c, frames[:65], in)); got != want {
				t.Errorf("v6=%v, %d bytes too many: %d frames, want %d", v6, extra, got, want)
			}
			q.payload = make([]byte, 6000)
		}
	}
	// 2049 segments would be refused by Segmenter.
	many := packet{flags: 0x10, payload: make([]byte, 2048)}
	more := many
	more.id, more.seq, more.payload = 2048, 2048, make([]byte, 1)
	var c Coalescer
	if got := counts(apart(t, receive(&c, frames[:65], append(cutUp(many, 1), cutUp(more, 1)...)), frames[65])); fmt.Sprint(got) != "[2048 1]" {
		t.Errorf("2049 segments joined as %v", got)
	}
	// Flows turn about: as many as may be open are joined; one more, and each
	// closes the one that will be next.
	for flows, want := range map[int]int{maxFlows: maxFlows, maxFlows + 1: 3 * (maxFlows + 1)} {
		var in []arrival
		for seg := range 3 {
			for flow := range flows {
				p := packet{flags: 0x10, payload: make([]byte, 300)}
				in = append(in, arrival{wireFrames(p, 100)[seg], uint32(flow), false})
			}
		}
		var c Coalescer
		if got := len(receive(&c, frames[:65], in)); got != want {
			t.Errorf("%d flows in turn: %d frames, want %d", flows, got, want)
		}
	}
}

// Datagrams are joined only while the endpoint says so.
func TestCoalesceUDP(t *testing.T) {
	frames := poolFrames(t, 66)
	segs := wireFrames(packet{udp: true, payload: make([]byte, 600)}, 100)
	for _, tt := range []struct {
		trains string
		want   string
	}{
		{"------", "[1 1 1 1 1 1]"},
		{"++++++", "[6]"},
		{"+++---", "[3 1 1 1]"},
		{"---+++", "[1 1 1 3]"},
		{"++-+++", "[2 1 3]"},
	} {
		var in []arrival
		for i, b := range segs {
			in = append(in, arrival{b, 1, tt.trains[i] == '+'})
		}
		var c Coalescer
		if got := fmt.Sprint(counts(apart(t, receive(&c, frames[:65], in), frames[65]))); got != tt.want {
			t.Errorf("%s: joined as %s, want %s", tt.trains, got, tt.want)
		}
	}
}

// What Open must not take, and what a caller does who does not ask Join.
func TestCoalesceOpen(t *testing.T) {
	frames := poolFrames(t, 4)
	segs := wireFrames(packet{flags: 0x10, payload: make([]byte, 300)}, 100)
	for _, tt := range []struct {
		name string
		edit func(f *Frame)
		want bool
	}{
		{"plain", func(f *Frame) {}, true},
		{"verified", func(f *Frame) { f.Flags = DataValid }, true},
		{"partial checksum", func(f *Frame) { f.Offload = Offload{Flags: NeedsCsum, CsumStart: 34, CsumOffset: 16} }, false},
		{"super-frame", func(f *Frame) { f.GSOType = GSOTCPv4 }, false},
		{"truncated", func(f *Frame) { f.Truncated = true }, false},
		{"fault", func(f *Frame) { f.Fault = FaultECN }, false},
		{"tag in the bytes", func(f *Frame) { f.PushTag(Tag{TPID8021Q, 1}) }, false},
		{"another port", func(f *Frame) { f.Port = 2 }, false},
	} {
		var c Coalescer
		f := frames[0]
		f.Set(segs[0])
		f.Port = 1
		tt.edit(f)
		c.Open(f)
		if got := c.Join(segs[1], 1); got != tt.want {
			t.Errorf("%s: joined %v, want %v", tt.name, got, tt.want)
		}
		c.Close()
		if c.Join(segs[2], 1) {
			t.Errorf("%s: joined after Close", tt.name)
		}
	}
	var c Coalescer
	for i, port := range []uint32{1, 1, 2} {
		frames[i].Set(segs[i])
		frames[i].Port = port
		c.Open(frames[i])
	}
	if !c.Join(segs[2], 1) {
		t.Error("not joined to the frame of its flow that was opened last")
	}
	c.Close()
	if frames[0].Super() || !frames[1].Super() {
		t.Error("joined to the frame opened first")
	}
}

func TestCoalesceNoAllocs(t *testing.T) {
	frames := poolFrames(t, 65)
	var in []arrival
	for i, p := range []packet{
		{flags: 0x10, payload: make([]byte, 5000)},
		{v6: true, flags: 0x10, payload: make([]byte, 5000)},
		{udp: true, payload: make([]byte, 5000)},
		{flags: 0x10, frag: 0x2000, payload: make([]byte, 100)},
	} {
		for _, b := range wireFrames(p, 1000) {
			in = append(in, arrival{b, uint32(i), true})
		}
	}
	var c Coalescer
	noAllocs(t, "Coalescer", func() { sink += len(receive(&c, frames, in)) })
}

// 46 segments of a 64 KiB super-frame: the first is copied, 45 are joined. The
// others show what the machine takes for the bytes alone.
func BenchmarkCoalesce(b *testing.B) {
	for _, v6 := range []bool{false, true} {
		segs := wireFrames(packet{v6: v6, flags: 0x10, tcpOpts: nops(12), payload: make([]byte, 45*1448)}, 1448)
		name := "v4"
		if v6 {
			name = "v6"
		}
		run := func(what string, once func(f *Frame)) {
			b.Run(name+"/"+what, func(b *testing.B) {
				f := poolFrames(b, 1)[0]
				b.ReportAllocs()
				b.SetBytes(int64(len(segs) * 1448))
				for b.Loop() {
					once(f)
				}
				b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(segs)), "ns/segment")
			})
		}
		var c Coalescer
		run("join", func(f *Frame) {
			for i, s := range segs {
				if i == 0 {
					f.Set(s)
					c.Open(f)
				} else if !c.Join(s, 0) {
					panic("not joined")
				}
			}
			c.Close()
		})
		// Eight flows turn about, so that each segment has to be looked for.
		frames := poolFrames(b, maxFlows)
		run("join 8 flows", func(*Frame) {
			for i, s := range segs {
				flow := uint32(i % maxFlows)
				if s = segs[i/maxFlows]; i < maxFlows {
					g := frames[i]
					g.Set(s)
					g.Port = flow
					c.Open(g)
				} else if !c.Join(s, flow) {
					panic("not joined")
				}
			}
			c.Close()
		})
		run("copy", func(f *Frame) {
			f.Reset(MaxLen)
			at := 0
			for _, s := range segs {
				at += copy(f.Bytes()[at:], s[66:])
			}
		})
		run("copy and sum", func(f *Frame) {
			f.Reset(MaxLen)
			at := 0
			for _, s := range segs {
				at += copy(f.Bytes()[at:], s[66:])
				sink += int(Sum(s[34:], 0))
			}
		})
		// Frames that cannot be joined: what they pay.
		ack := wireFrames(packet{v6: v6, flags: 0x10, tcpOpts: nops(12)}, 1448)[0]
		run("refuse", func(f *Frame) {
			f.Set(segs[0])
			c.Open(f)
			g := f
			for range segs {
				c.Join(ack, 1)
				c.Open(g)
			}
			c.Close()
		})
	}
}
