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

// verify decodes b with gopacket, and has gopacket write the layers again with
// its own checksums: the oracle for what this package computed.
func verify(b []byte) error {
	pkt := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.DecodeOptions{Lazy: false, NoCopy: true})
	if e := pkt.ErrorLayer(); e != nil {
		return fmt.Errorf("decode: %w", e.Error())
	}
	var network gopacket.NetworkLayer
	var header []byte
	switch l := pkt.NetworkLayer().(type) {
	case *layers.IPv4:
		network, header = l, l.Contents
		again := gopacket.NewSerializeBuffer()
		if err := l.SerializeTo(again, gopacket.SerializeOptions{ComputeChecksums: true}); err != nil {
			return err
		}
		if !bytes.Equal(again.Bytes(), header) {
			return fmt.Errorf("IPv4 header % x, gopacket writes % x", header, again.Bytes())
		}
	case *layers.IPv6:
		network = l
	default:
		return fmt.Errorf("no IP layer")
	}
	switch l := pkt.TransportLayer().(type) {
	case *layers.TCP:
		if err := l.SetNetworkLayerForChecksum(network); err != nil {
			return err
		}
		sum, err := l.ComputeChecksum()
		if err != nil {
			return err
		}
		if sum != 0 { // summed over a right checksum, the complement is 0
			return fmt.Errorf("TCP checksum leaves %#04x", sum)
		}
	case *layers.UDP:
		if int(l.Length) != len(l.Contents)+len(l.Payload) {
			return fmt.Errorf("UDP length %d, want %d", l.Length, len(l.Contents)+len(l.Payload))
		}
		if err := l.SetNetworkLayerForChecksum(network); err != nil {
			return err
		}
		again := gopacket.NewSerializeBuffer()
		got := l.Checksum
		err := gopacket.SerializeLayers(again, gopacket.SerializeOptions{ComputeChecksums: true}, l, gopacket.Payload(bytes.Clone(l.Payload)))
		if err != nil {
			return err
		}
		want := l.Checksum
		if want == 0 {
			want = 0xffff
		}
		if got != want {
			return fmt.Errorf("UDP checksum %#04x, gopacket writes %#04x", got, want)
		}
	default:
		return fmt.Errorf("no transport layer")
	}
	return nil
}

func ext(next uint8, units int) []byte {
	b := make([]byte, 8+8*units)
	b[0], b[1] = next, uint8(units)
	return b
}

func join(p ...[]byte) []byte { return bytes.Join(p, nil) }

func built(p packet) []byte { b, _ := p.build(); return b }

func TestParse(t *testing.T) {
	edit := func(b []byte, f func([]byte)) []byte { b = bytes.Clone(b); f(b); return b }
	tcp := built(packet{payload: []byte("hello")})
	v6 := built(packet{v6: true, payload: []byte("hello")})
	frag := func(next uint8, offset uint16) []byte {
		b := ext(next, 0)
		binary.BigEndian.PutUint16(b[2:], offset)
		return b
	}
	manyExt := func(n int) []byte {
		var b []byte
		for i := range n {
			next := uint8(60)
			if i == n-1 {
				next = 6
			}
			b = append(b, ext(next, 0)...)
		}
		return b
	}
	arp := join(macDst, macSrc, []byte{8, 6}, make([]byte, 28))
	tests := []struct {
		name string
		b    []byte
		want Layout
		err  error
	}{
		{"nothing", nil, Layout{}, ErrShort},
		{"short", tcp[:13], Layout{}, ErrShort},
		{"ARP", arp, Layout{EtherType: 0x806, L3: 14, End: 42}, nil},
		{"bare header", tcp[:14], Layout{EtherType: 0x800, L3: 14, End: 14}, ErrTruncated},
		{"802.3 length", join(macDst, macSrc, []byte{0, 3, 1, 2, 3}), Layout{EtherType: 3, L3: 14, End: 17}, nil},

		{"TCP", tcp, Layout{EtherType: 0x800, Proto: 6, L3: 14, L4: 34, Payload: 54, End: 59}, nil},
		{"TCP padded", built(packet{pad: 6}), Layout{EtherType: 0x800, Proto: 6, L3: 14, L4: 34, Payload: 54, End: 54}, nil},
		{"options", built(packet{ipOpts: nops(40), tcpOpts: nops(40)}), Layout{EtherType: 0x800, Proto: 6, L3: 14, L4: 74, Payload: 134, End: 134}, nil},
		{"UDP", built(packet{udp: true}), Layout{EtherType: 0x800, Proto: 17, L3: 14, L4: 34, Payload: 42, End: 42}, nil},
		{"ICMP", edit(tcp, func(b []byte) { b[23] = 1 }), Layout{EtherType: 0x800, Proto: 1, L3: 14, L4: 34, Payload: 34, End: 59}, nil},
		{"one tag", built(packet{tags: []Tag{{TPID8021Q, 5}}}), Layout{EtherType: 0x800, Proto: 6, Tags: 1, L3: 18, L4: 38, Payload: 58, End: 58}, nil},
		{"two tags", built(packet{tags: []Tag{{TPID8021AD, 5}, {TPID8021Q, 6}}}), Layout{EtherType: 0x800, Proto: 6, Tags: 2, L3: 22, L4: 42, Payload: 62, End: 62}, nil},
		{"three tags", built(packet{tags: []Tag{{TPID8021AD, 5}, {TPID8021Q, 6}, {TPID8021Q, 7}}}), Layout{EtherType: 0x8100, Tags: 2, L3: 22, End: 66}, nil},
		{"cut in a tag", built(packet{tags: []Tag{{TPID8021Q, 5}}})[:17], Layout{EtherType: 0x8100}, ErrTruncated},
		{"cut behind a tag", built(packet{tags: []Tag{{TPID8021Q, 5}}})[:18], Layout{EtherType: 0x800, Tags: 1, L3: 18, End: 18}, ErrTruncated},

		{"version", edit(tcp, func(b []byte) { b[14] = 0x65 }), Layout{EtherType: 0x800, L3: 14, End: 59}, ErrMalformed},
		{"IHL 4", edit(tcp, func(b []byte) { b[14] = 0x44 }), Layout{EtherType: 0x800, L3: 14, End: 59}, ErrMalformed},
		{"IHL over total length", edit(tcp, func(b []byte) { b[14] = 0x4f }), Layout{EtherType: 0x800, L3: 14, End: 59}, ErrMalformed},
		{"total length 0", edit(tcp, func(b []byte) { b[16], b[17] = 0, 0 }), Layout{EtherType: 0x800, L3: 14, End: 59}, ErrMalformed},
		{"total length over frame", edit(tcp, func(b []byte) { b[17]++ }), Layout{EtherType: 0x800, L3: 14, End: 59}, ErrTruncated},
		{"total length cuts TCP", edit(tcp, func(b []byte) { b[17] = 39 }), Layout{EtherType: 0x800, Proto: 6, L3: 14, End: 53}, ErrTruncated},
		{"data offset 4", edit(tcp, func(b []byte) { b[46] = 0x40 }), Layout{EtherType: 0x800, Proto: 6, L3: 14, End: 59}, ErrMalformed},
		{"data offset over end", edit(tcp, func(b []byte) { b[46] = 0xf0 }), Layout{EtherType: 0x800, Proto: 6, L3: 14, End: 59}, ErrTruncated},
		{"first fragment", built(packet{frag: 0x2000}), Layout{EtherType: 0x800, Proto: 6, Fragment: true, L3: 14, L4: 34, Payload: 54, End: 54}, nil},
		{"tiny first fragment", edit(built(packet{frag: 0x2000}), func(b []byte) { b[17] = 28 }), Layout{EtherType: 0x800, Proto: 6, Fragment: true, L3: 14, End: 42}, nil},
		{"later fragment", built(packet{frag: 1}), Layout{EtherType: 0x800, Proto: 6, Fragment: true, L3: 14, End: 54}, nil},
		{"don't fragment", built(packet{frag: 0x4000}), Layout{EtherType: 0x800, Proto: 6, L3: 14, L4: 34, Payload: 54, End: 54}, nil},

		{"IPv6 TCP", v6, Layout{EtherType: 0x86dd, Proto: 6, L3: 14, L4: 54, Payload: 74, End: 79}, nil},
		{"IPv6 version", edit(v6, func(b []byte) { b[14] = 0x40 }), Layout{EtherType: 0x86dd, L3: 14, End: 79}, ErrMalformed},
		{"IPv6 cut", v6[:53], Layout{EtherType: 0x86dd, L3: 14, End: 53}, ErrTruncated},
		{"IPv6 payload over frame", edit(v6, func(b []byte) { b[19]++ }), Layout{EtherType: 0x86dd, L3: 14, End: 79}, ErrTruncated},
		{"no next header", edit(v6, func(b []byte) { b[20] = 59 }), Layout{EtherType: 0x86dd, Proto: 59, L3: 14, L4: 54, Payload: 54, End: 79}, nil},
		{"hop, routing, destination", built(packet{v6: true, proto0: 0, ext: join(ext(43, 0), ext(60, 2), ext(6, 1))}), Layout{EtherType: 0x86dd, Proto: 6, L3: 14, L4: 102, Payload: 122, End: 122}, nil},
		{"8 extension headers", built(packet{v6: true, proto0: 60, ext: manyExt(8)}), Layout{EtherType: 0x86dd, Proto: 6, L3: 14, L4: 118, Payload: 138, End: 138}, nil},
		{"9 extension headers", built(packet{v6: true, proto0: 60, ext: manyExt(9)}), Layout{EtherType: 0x86dd, Proto: 6, L3: 14, End: 146}, ErrExtHeaders},
		{"extension over end", built(packet{v6: true, proto0: 60, ext: edit(ext(6, 0), func(b []byte) { b[1] = 255 })}), Layout{EtherType: 0x86dd, Proto: 6, L3: 14, End: 82}, ErrTruncated},
		{"extension cut", edit(v6, func(b []byte) { b[19], b[20] = 7, 60 }), Layout{EtherType: 0x86dd, Proto: 60, L3: 14, End: 61}, ErrTruncated},
		{"IPv6 first fragment", built(packet{v6: true, proto0: 44, ext: frag(6, 1)}), Layout{EtherType: 0x86dd, Proto: 6, Fragment: true, L3: 14, L4: 62, Payload: 82, End: 82}, nil},
		{"IPv6 later fragment", built(packet{v6: true, proto0: 44, ext: frag(6, 8)}), Layout{EtherType: 0x86dd, Proto: 6, Fragment: true, L3: 14, End: 82}, nil},
	}
	for _, tt := range tests {
		got, err := Parse(tt.b)
		if got != tt.want || !errors.Is(err, tt.err) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v, %v", tt.name, got, err, tt.want, tt.err)
		}
	}
}

// Every prefix of a frame parses without a panic, and into a layout that holds.
func TestParsePrefixes(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 8))
	for range 100 {
		b := built(randomPacket(r, 100))
		for n := range b {
			checkLayout(t, b[:n:n])
		}
	}
}

func checkLayout(t *testing.T, b []byte) {
	t.Helper()
	l, err := Parse(b)
	if err != nil {
		if l.L4 != 0 || l.Payload != 0 {
			t.Fatalf("error %v with a transport header: %+v", err, l)
		}
		return
	}
	if l.L3 < EthLen || l.L3 > l.End || l.End > len(b) {
		t.Fatalf("layout outside %d bytes: %+v", len(b), l)
	}
	if l.L4 != 0 && (l.L3 > l.L4 || l.L4 > l.Payload || l.Payload > l.End) {
		t.Fatalf("layout out of order: %+v", l)
	}
}

func TestParseNoAllocs(t *testing.T) {
	b := built(packet{v6: true, proto0: 0, ext: join(ext(43, 0), ext(60, 2), ext(6, 1)), payload: []byte("x")})
	noAllocs(t, "Parse", func() {
		l, err := Parse(b)
		if err != nil {
			panic(err)
		}
		sink += l.Payload
	})
	noAllocs(t, "Parse of a bad frame", func() {
		if _, err := Parse(b[:60]); err == nil {
			panic("no error")
		}
	})
}

func FuzzParse(f *testing.F) {
	r := rand.New(rand.NewPCG(9, 10))
	for range 20 {
		f.Add(built(randomPacket(r, 60)))
	}
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) { checkLayout(t, b) })
}

func BenchmarkParse(b *testing.B) {
	for _, v := range []struct {
		name string
		b    []byte
	}{
		{"TCPv4", built(packet{payload: make([]byte, 100)})},
		{"UDPv6", built(packet{v6: true, udp: true})},
		{"QinQ", built(packet{tags: []Tag{{TPID8021AD, 5}, {TPID8021Q, 6}}})},
	} {
		b.Run(v.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				l, _ := Parse(v.b)
				sink += l.Payload
			}
		})
	}
}
