package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
)

// mssOption returns the option, behind n NOPs.
func mssOption(n int, mss uint16) []byte {
	return binary.BigEndian.AppendUint16(append(nops(n), 2, 4), mss)
}

func TestClampMSS(t *testing.T) {
	syn := func(mss uint16, edit ...func(p *packet)) packet {
		p := packet{flags: 0x02, tcpOpts: mssOption(0, mss)}
		for _, e := range edit {
			e(&p)
		}
		return p
	}
	v6 := func(p *packet) { p.v6 = true }
	opts := func(o ...byte) func(p *packet) { return func(p *packet) { p.tcpOpts = o } }
	tests := []struct {
		name string
		p    packet
		mtu  int
		want []uint16 // the MSS options' values; nil: nothing changes
	}{
		{"IPv4", syn(1460), 1450, []uint16{1410}},
		{"IPv6", syn(1440, v6), 1450, []uint16{1390}},
		{"SYN and ACK", syn(1460, func(p *packet) { p.flags = 0x12 }), 1450, []uint16{1410}},
		{"SYN with ECN setup", syn(1460, func(p *packet) { p.flags = 0xc2 }), 1450, []uint16{1410}},
		{"SYN with data", syn(1460, func(p *packet) { p.payload = []byte("fast open") }), 1450, []uint16{1410}},
		{"tags", syn(1460, func(p *packet) { p.tags = []Tag{{TPID8021AD, 1}, {TPID8021Q, 2}} }), 1450, []uint16{1410}},
		{"IPv4 options", syn(1460, func(p *packet) { p.ipOpts = nops(8) }), 1450, []uint16{1410}},
		{"IPv6 extension headers", syn(1440, v6, func(p *packet) { p.proto0, p.ext = 0, join(ext(60, 1), ext(6, 0)) }), 1450, []uint16{1390}},
		{"IPv6 below 1280", syn(1440, v6), 1230, []uint16{1170}},
		{"at an odd offset", syn(0, opts(1, 2, 4, 0x05, 0xb4, 1, 1, 1)), 1450, []uint16{1410}},
		{"behind others", syn(0, opts(4, 2, 8, 10, 1, 2, 3, 4, 5, 6, 7, 8, 2, 4, 0x05, 0xb4)), 1450, []uint16{1410}},
		{"last", syn(0, opts(1, 3, 3, 7, 2, 4, 0x05, 0xb4)), 1450, []uint16{1410}},
		{"twice", syn(0, opts(2, 4, 0x05, 0xb4, 2, 4, 0x10, 0x00)), 1450, []uint16{1410, 1410}},
		{"65535", syn(65535), 1450, []uint16{1410}},

		{"small enough", syn(1410), 1450, nil},
		{"smaller", syn(536), 1450, nil},
		{"0", syn(0), 1450, nil},
		{"no SYN", syn(1460, func(p *packet) { p.flags = 0x10 }), 1450, nil},
		{"no option", packet{flags: 0x02}, 1450, nil},
		{"only NOPs", packet{flags: 0x02, tcpOpts: nops(40)}, 1450, nil},
		{"behind the end", syn(0, opts(0, 2, 4, 0x05, 0xb4, 0, 0, 0)), 1450, nil},
		{"length 0", syn(0, opts(8, 0, 2, 4, 0x05, 0xb4, 1, 1)), 1450, nil},
		{"length 1", syn(0, opts(8, 1, 2, 4, 0x05, 0xb4, 1, 1)), 1450, nil},
		{"length over the end", syn(0, opts(1, 1, 2, 4)), 1450, nil},
		{"kind without a length", syn(0, opts(1, 1, 1, 2)), 1450, nil},
		{"MSS of another length", syn(0, opts(2, 3, 0xff, 2, 5, 0xff, 0xff, 0xff)), 1450, nil},
		{"first fragment", syn(1460, func(p *packet) { p.frag = 0x2000 }), 1450, nil},
		{"later fragment", syn(1460, func(p *packet) { p.frag = 1 }), 1450, nil},
		{"IPv6 fragment", syn(1460, v6, func(p *packet) { p.proto0, p.ext = 44, []byte{6, 0, 0, 1, 0, 0, 0, 0} }), 1450, nil},
		{"UDP", packet{udp: true, payload: bytes.Repeat([]byte{2, 4, 0xff, 0xff}, 10)}, 1450, nil},
		{"MTU unknown", syn(1460), 0, nil},
		{"MTU of nothing", syn(1460), 40, nil},
		{"MTU negative", syn(1460), -1, nil},
		{"MTU huge", syn(1460), 1 << 20, nil},
	}
	for _, tt := range tests {
		for _, partial := range []bool{true, false} {
			b, o := tt.p.build()
			want := bytes.Clone(b)
			if !partial {
				if err := Finish(b, &o); err != nil {
					t.Fatal(err)
				}
				want = bytes.Clone(b)
			}
			if tt.want != nil {
				p := tt.p
				p.tcpOpts = bytes.Clone(p.tcpOpts)
				rest := tt.want
				for i := 0; i+3 < len(p.tcpOpts); i++ { // no other option looks like one here
					if p.tcpOpts[i] == 2 && p.tcpOpts[i+1] == 4 && len(rest) > 0 {
						binary.BigEndian.PutUint16(p.tcpOpts[i+2:], rest[0])
						rest = rest[1:]
						i += 3
					}
				}
				want, _ = p.build()
				if !partial {
					if err := Finish(want, &o); err != nil {
						t.Fatal(err)
					}
				}
			}
			if got := ClampMSS(b, tt.mtu, partial); got != (tt.want != nil) {
				t.Errorf("%s, partial=%v: %v", tt.name, partial, got)
			}
			if !bytes.Equal(b, want) {
				t.Errorf("%s, partial=%v:\n got % x\nwant % x", tt.name, partial, b, want)
			}
			if ClampMSS(b, tt.mtu, partial) {
				t.Errorf("%s, partial=%v: changed a second time", tt.name, partial)
			}
		}
	}
}

// The adjusted checksum is the one that is summed anew, wherever the option stands.
func TestClampMSSChecksum(t *testing.T) {
	r := rand.New(rand.NewPCG(51, 52))
	for range 2000 {
		p := randomPacket(r, 20)
		n := r.IntN(9)
		p.udp, p.flags, p.tcpOpts = false, 0x02, join(mssOption(n, uint16(r.Uint32())), nops((16-n)%4))
		if len(p.ext) > 0 {
			p.proto0, p.ext = 60, ext(6, 1)
		}
		b, o := p.build()
		if err := Finish(b, &o); err != nil {
			t.Fatal(err)
		}
		ClampMSS(b, 68+r.IntN(9000), false)
		if err := verify(b); err != nil {
			t.Fatalf("option at %d: %v", n, err)
		}
		b[o.CsumStart+16] ^= 0x10
		if ClampMSS(b, 66, false); verify(b) == nil {
			t.Fatal("a wrong checksum became a right one")
		}
	}
}

func TestClampMSSNoAllocs(t *testing.T) {
	for _, p := range []packet{{flags: 0x02, tcpOpts: mssOption(0, 1460)}, {v6: true, flags: 0x10}} {
		b, _ := p.build()
		noAllocs(t, "ClampMSS", func() {
			if ClampMSS(b, 1000, false) {
				sink++
			}
		})
	}
}

func FuzzClampMSS(f *testing.F) {
	r := rand.New(rand.NewPCG(53, 54))
	for range 40 {
		p := randomPacket(r, 20)
		p.flags |= 0x02
		p.tcpOpts = join(nops(r.IntN(2)), mssOption(0, uint16(r.Uint32())), randomBytes(r, 8), nops(3))[:4*r.IntN(4)]
		b, _ := p.build()
		f.Add(b, 68+r.IntN(2000), r.IntN(2) == 0)
	}
	f.Fuzz(func(t *testing.T, b []byte, mtu int, partial bool) {
		was := bytes.Clone(b)
		changed := ClampMSS(b, mtu, partial)
		if changed == bytes.Equal(b, was) {
			t.Fatalf("changed: %v", changed)
		}
		if !changed {
			return
		}
		l, err := Parse(was)
		if err != nil || l.Proto != 6 || l.Fragment || was[l.L4+13]&2 == 0 {
			t.Fatalf("changed what is no SYN: %+v, %v", l, err)
		}
		field := l.L4 + 16
		for i := range b {
			option := i >= l.L4+20 && i < l.Payload
			if b[i] != was[i] && !option && (partial || i != field && i != field+1) {
				t.Fatalf("changed byte %d, %+v", i, l)
			}
		}
		if !partial {
			before, after := naiveSum(was[l.L4:l.End], 0), naiveSum(b[l.L4:l.End], 0)
			if before%0xffff != after%0xffff {
				t.Fatalf("the segment summed to %#04x, now to %#04x", before, after)
			}
		}
		if ClampMSS(b, mtu, partial) {
			t.Fatal("changed a second time")
		}
	})
}

func BenchmarkClampMSS(b *testing.B) {
	tests := []struct {
		name string
		p    packet
	}{
		{"IPv4 data", packet{flags: 0x10, payload: make([]byte, 1400)}},
		{"IPv4 tagged data", packet{flags: 0x10, tags: []Tag{{TPID8021Q, 7}}, payload: make([]byte, 1400)}},
		{"IPv6 data", packet{v6: true, flags: 0x10, payload: make([]byte, 1400)}},
		{"UDP", packet{udp: true, payload: make([]byte, 1400)}},
		{"IPv4 SYN", packet{flags: 0x02, tcpOpts: mssOption(0, 1410)}},
	}
	for _, tt := range tests {
		b.Run(fmt.Sprint(tt.name), func(b *testing.B) {
			p, _ := tt.p.build()
			b.ReportAllocs()
			for b.Loop() {
				if ClampMSS(p, 1450, false) {
					b.Fatal("changed")
				}
			}
		})
	}
}
