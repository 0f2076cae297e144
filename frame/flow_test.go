package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// flowOf is the oracle: what FlowHash says makes a flow, as text, found by Parse.
func flowOf(b []byte) string {
	l, err := Parse(b)
	switch {
	case err != nil:
		return ""
	case l.EtherType == EtherIPv4 || l.EtherType == EtherIPv6:
		addrs, plain := b[l.L3+12:l.L3+20], true
		if l.EtherType == EtherIPv6 {
			addrs, plain = b[l.L3+8:l.L3+40], l.L4 == l.L3+40
		}
		if plain && l.L4 != 0 && !l.Fragment && (l.Proto == 6 || l.Proto == 17 || l.Proto == 132 && l.End-l.L4 >= 4) {
			return fmt.Sprintf("%x %d %x", addrs, l.Proto, b[l.L4:l.L4+4])
		}
		return fmt.Sprintf("%x", addrs)
	}
	return fmt.Sprintf("%x %x", b[:12], l.EtherType)
}

// Frames of few flows, in all kinds of clothes: the same flow has the same hash,
// and another one another.
func TestFlowHash(t *testing.T) {
	r := rand.New(rand.NewPCG(41, 42))
	hashes, flows := map[string]uint32{}, map[uint32]string{}
	for range 5000 {
		p := randomPacket(r, 60)
		if r.IntN(4) == 0 && !p.v6 {
			p.frag = []uint16{0x2000, 0x0010, 0x2010, 0x4000}[r.IntN(4)]
		}
		b, o := p.build()
		l3, _ := Parse(b)
		if r.IntN(8) == 0 && p.v6 && len(p.ext) == 0 {
			b, _ = sctpFrame(make([]byte, 20), true)
			o.CsumStart = 54
			l3, _ = Parse(b)
		}
		b[l3.L3+17] = byte(r.IntN(3)) // of an address
		b[3] = byte(r.IntN(3))        // of the destination MAC
		b[o.CsumStart+1] = byte(r.IntN(3))
		b[o.CsumStart+3] = byte(r.IntN(3))
		if r.IntN(8) == 0 {
			binary.BigEndian.PutUint16(b[l3.L3-2:], 0x0806+uint16(r.IntN(2)))
		}
		flow, h := flowOf(b), FlowHash(b)
		if was, ok := hashes[flow]; ok && was != h {
			t.Fatalf("flow %s: hashes %08x and %08x\n% x", flow, was, h, b)
		}
		if was, ok := flows[h]; ok && was != flow {
			t.Fatalf("flows %s and %s: the same hash %08x", was, flow, h)
		}
		hashes[flow], flows[h] = h, flow
	}
	if len(hashes) < 100 {
		t.Fatalf("only %d flows seen", len(hashes))
	}
}

// A fragmented packet's first fragment, which has ports, goes where the others go.
func TestFlowHashFragments(t *testing.T) {
	first, _ := packet{udp: true, frag: 0x2000, payload: make([]byte, 100)}.build()
	later, _ := packet{udp: true, frag: 0x000e, payload: []byte("anything else")}.build()
	if FlowHash(first) != FlowHash(later) {
		t.Error("IPv4: the first fragment has another hash than a later one")
	}
	fragment := func(offset uint16) []byte {
		e := ext(17, 0)
		binary.BigEndian.PutUint16(e[2:], offset)
		b, _ := packet{v6: true, udp: true, proto0: 44, ext: e, payload: randomBytes(rand.New(rand.NewPCG(1, uint64(offset))), 64)}.build()
		return b
	}
	if FlowHash(fragment(1)) != FlowHash(fragment(64)) {
		t.Error("IPv6: the first fragment has another hash than a later one")
	}
}

// Flows that differ as flows do in earnest, by a counted port or address, fill 16
// buckets evenly, in the low bits and in the high ones. With n of them a bucket
// holds n/16 on average; chi-squared with 15 degrees of freedom is above 45 in one
// of 10,000 cases.
func TestFlowHashSpread(t *testing.T) {
	const n = 4096
	tests := []struct {
		name string
		p    packet
		edit func(b []byte, l *Layout, i int)
	}{
		{"source port", packet{}, func(b []byte, l *Layout, i int) { put16(b[l.L4:], 32768+i) }},
		{"every other source port", packet{}, func(b []byte, l *Layout, i int) { put16(b[l.L4:], 32768+2*i) }},
		{"destination port", packet{udp: true}, func(b []byte, l *Layout, i int) { put16(b[l.L4+2:], i) }},
		{"both ports", packet{}, func(b []byte, l *Layout, i int) { put16(b[l.L4:], 1024+i); put16(b[l.L4+2:], 1024+i) }},
		{"source address", packet{}, func(b []byte, l *Layout, i int) { put16(b[l.L3+14:], i) }},
		{"destination address", packet{}, func(b []byte, l *Layout, i int) { put16(b[l.L3+18:], i) }},
		{"both addresses", packet{}, func(b []byte, l *Layout, i int) { put16(b[l.L3+14:], i); put16(b[l.L3+18:], i) }},
		{"third byte of the address", packet{}, func(b []byte, l *Layout, i int) { put16(b[l.L3+13:], i) }},
		{"IPv6 source port", packet{v6: true}, func(b []byte, l *Layout, i int) { put16(b[l.L4:], 32768+i) }},
		{"IPv6 source address", packet{v6: true}, func(b []byte, l *Layout, i int) { put16(b[l.L3+22:], i) }},
		{"IPv6 destination network", packet{v6: true}, func(b []byte, l *Layout, i int) { put16(b[l.L3+24:], i) }},
		{"IPv6 both addresses", packet{v6: true}, func(b []byte, l *Layout, i int) { put16(b[l.L3+22:], i); put16(b[l.L3+38:], i) }},
		{"IPv6 extension header, addresses", packet{v6: true, proto0: 60, ext: ext(6, 0)}, func(b []byte, l *Layout, i int) { put16(b[l.L3+38:], i) }},
		{"MAC", packet{}, func(b []byte, l *Layout, i int) { put16(b[12:], 0x0806); put16(b[10:], i) }},
		{"destination MAC", packet{}, func(b []byte, l *Layout, i int) { put16(b[12:], 0x88f7); put16(b[4:], i) }},
	}
	for _, tt := range tests {
		b, _ := tt.p.build()
		l, err := Parse(b)
		if err != nil {
			t.Fatal(err)
		}
		for shift := 0; shift < 32; shift += 4 {
			var buckets [16]float64
			for i := range n {
				tt.edit(b, &l, i)
				buckets[FlowHash(b)>>shift&15]++
			}
			chi := 0.0
			for _, got := range buckets {
				chi += (got - n/16) * (got - n/16) / (n / 16)
			}
			if chi > 45 {
				t.Errorf("%s, bits %d to %d: chi-squared %.1f: %v", tt.name, shift, shift+3, chi, buckets)
			}
		}
	}
}

func put16(b []byte, v int) { binary.BigEndian.PutUint16(b, uint16(v)) }

func TestFlowHashNoAllocs(t *testing.T) {
	b, _ := packet{v6: true}.build()
	noAllocs(t, "FlowHash", func() { sink += int(FlowHash(b)) })
}

func FuzzFlowHash(f *testing.F) {
	r := rand.New(rand.NewPCG(43, 44))
	for range 24 {
		b, _ := randomPacket(r, 20).build()
		f.Add(b)
		f.Add(b[:r.IntN(len(b))])
	}
	for n := range 24 {
		f.Add(bytes.Repeat([]byte{0x81, 0}, n)) // tags, and where they end
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h := FlowHash(b)
		if len(b) < EthLen {
			if h != 0 {
				t.Fatalf("hash %08x of too short a frame", h)
			}
			return
		}
		if h != FlowHash(bytes.Clone(b)) {
			t.Fatal("the same frame, another hash")
		}
		l, err := Parse(b)
		if err == nil && l.Tags < maxTags {
			tagged := join(b[:12], []byte{0x81, 0, 0, 7}, b[12:])
			if FlowHash(tagged) != h {
				t.Fatal("a tag makes another hash")
			}
		}
		if err == nil && l.L4 != 0 && !l.Fragment && l.Payload < len(b) {
			b[len(b)-1] ^= 0xff // payload or padding, except in a header not looked into
			if l.Proto == 6 || l.Proto == 17 {
				if FlowHash(b) != h {
					t.Fatal("the payload makes another hash")
				}
			}
		}
	})
}

func BenchmarkFlowHash(b *testing.B) {
	tests := []struct {
		name string
		p    packet
	}{
		{"IPv4", packet{}},
		{"IPv4 tagged", packet{tags: []Tag{{TPID8021Q, 7}}}},
		{"IPv6", packet{v6: true}},
	}
	for _, tt := range tests {
		b.Run(tt.name, func(b *testing.B) {
			p, _ := tt.p.build()
			b.ReportAllocs()
			for b.Loop() {
				sink += int(FlowHash(p))
			}
		})
	}
}
