package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
)

// checkTooBig reads an answer to f with another implementation, and compares it
// with what RFC 792 and RFC 4443 say.
func checkTooBig(dst, f *Frame, mtu int) error {
	b, a := f.Bytes(), dst.Bytes()
	if dst.Offload != (Offload{}) || dst.Tag != f.Tag {
		return fmt.Errorf("offload %+v, tag %+v", dst.Offload, dst.Tag)
	}
	if !bytes.Equal(a[:6], b[6:12]) || !bytes.Equal(a[6:12], b[:6]) {
		return fmt.Errorf("MAC addresses are not swapped: % x", a[:12])
	}
	l, err := Parse(b)
	if err != nil || !bytes.Equal(a[12:l.L3], b[12:l.L3]) {
		return fmt.Errorf("tags or EtherType differ: %v", err)
	}
	pkt := gopacket.NewPacket(a, layers.LayerTypeEthernet, gopacket.NoCopy)
	original := b[l.L3:l.End]
	var quote []byte
	switch ip := pkt.NetworkLayer().(type) {
	case *layers.IPv4:
		icmp := ip.Payload
		quote = original[:min(len(original), 576-28)]
		switch {
		case naiveSum(ip.Contents, 0) != 0xffff || naiveSum(icmp, 0) != 0xffff:
			return fmt.Errorf("checksum of IP or ICMP is wrong")
		case ip.Flags != layers.IPv4DontFragment || ip.FragOffset != 0 || ip.TTL != 64 || ip.Protocol != 1 || ip.IHL != 5:
			return fmt.Errorf("IP header is %+v", ip)
		case !ip.SrcIP.Equal(original[16:20]) || !ip.DstIP.Equal(original[12:16]):
			return fmt.Errorf("from %v to %v", ip.SrcIP, ip.DstIP)
		case int(ip.Length) != 28+len(quote) || len(a) != l.L3+28+len(quote):
			return fmt.Errorf("IP length %d, frame's %d, want %d", ip.Length, len(a), 28+len(quote))
		case icmp[0] != 3 || icmp[1] != 4 || binary.BigEndian.Uint16(icmp[4:]) != 0 || int(binary.BigEndian.Uint16(icmp[6:])) != mtu:
			return fmt.Errorf("ICMP header % x", icmp[:8])
		case !bytes.Equal(icmp[8:], quote):
			return fmt.Errorf("the packet is not quoted as it was")
		}
	case *layers.IPv6:
		icmp := ip.Payload
		quote = original[:min(len(original), 1280-48)]
		ph := join(ip.SrcIP, ip.DstIP, []byte{0, 0, byte(len(icmp) >> 8), byte(len(icmp)), 0, 0, 0, 58})
		switch {
		case naiveSum(icmp, uint32(naiveSum(ph, 0))) != 0xffff:
			return fmt.Errorf("checksum of ICMPv6 is wrong")
		case ip.HopLimit != 64 || ip.NextHeader != 58 || ip.Version != 6:
			return fmt.Errorf("IP header is %+v", ip)
		case !ip.SrcIP.Equal(original[24:40]) || !ip.DstIP.Equal(original[8:24]):
			return fmt.Errorf("from %v to %v", ip.SrcIP, ip.DstIP)
		case int(ip.Length) != 8+len(quote) || len(a) != l.L3+48+len(quote):
			return fmt.Errorf("IP length %d, frame's %d, want %d", ip.Length, len(a), 8+len(quote))
		case icmp[0] != 2 || icmp[1] != 0 || int(binary.BigEndian.Uint32(icmp[4:])) != mtu:
			return fmt.Errorf("ICMPv6 header % x", icmp[:8])
		case !bytes.Equal(icmp[8:], quote):
			return fmt.Errorf("the packet is not quoted as it was")
		}
	default:
		return fmt.Errorf("gopacket finds no IP: % x", a)
	}
	return nil
}

// answered is any packet that may be answered, as a super-frame or not.
func answered(r *rand.Rand, f *Frame) {
	p := randomPacket(r, []int{20, 1600, 64000}[r.IntN(3)])
	p.frag = 0x4000
	if len(p.tags) < 2 && r.IntN(2) == 0 {
		f.Tag = Tag{TPID8021AD, uint16(r.Uint32())}
	}
	tag := f.Tag
	if r.IntN(2) == 0 {
		p.super(f, 1400)
	} else {
		p.pad = r.IntN(2) * 7
		b, o := p.build()
		f.Set(b)
		f.Offload = o
	}
	f.Tag = tag
}

func TestTooBig(t *testing.T) {
	pool := testPool(t, 2)
	f, dst := pool.Get(), pool.Get()
	r := rand.New(rand.NewPCG(71, 72))
	for i := range 600 {
		answered(r, f)
		was, offload := bytes.Clone(f.Bytes()), f.Offload
		dst.Set(bytes.Repeat([]byte{0xff}, 2000)) // what it held is lost
		dst.Port, dst.Offload = 7, Offload{GSOType: GSOTCPv4}
		mtu := 1280 + r.IntN(8000)
		if !TooBig(dst, f, mtu) {
			t.Fatalf("frame %d: no answer to % x", i, was[:min(80, len(was))])
		}
		if err := checkTooBig(dst, f, mtu); err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if !bytes.Equal(f.Bytes(), was) || f.Offload != offload || dst.Port != 7 {
			t.Fatal("the frame was changed, or the answer's port")
		}
	}
}

func TestTooBigRefuses(t *testing.T) {
	v4 := packet{frag: 0x4000, payload: make([]byte, 1500)}
	v6 := packet{v6: true, payload: make([]byte, 1500)}
	// resum makes the IPv4 header checksum right after an edit.
	resum := func(edit func(b []byte)) func(f *Frame) {
		return func(f *Frame) {
			b := f.Bytes()
			edit(b)
			copy(b[24:], []byte{0, 0})
			binary.BigEndian.PutUint16(b[24:], ^naiveSum(b[14:34], 0))
		}
	}
	plain := func(edit func(b []byte)) func(f *Frame) { return func(f *Frame) { edit(f.Bytes()) } }
	addr := func(at int, a ...byte) func(b []byte) { return func(b []byte) { copy(b[at:], a) } }
	icmp := func(kind byte) func(b []byte) { return func(b []byte) { b[23], b[34] = 1, kind } }
	icmpv6 := func(kind byte) func(b []byte) { return func(b []byte) { b[20], b[54] = 58, kind } }
	none := func(*Frame) {}
	fragment := func(offset uint16) packet {
		e := binary.BigEndian.AppendUint16([]byte{6, 0}, offset)
		return packet{v6: true, proto0: 44, ext: append(e, 0, 0, 0, 9), payload: make([]byte, 100)}
	}
	tests := []struct {
		name string
		p    packet
		edit func(f *Frame)
		mtu  int
		want bool
	}{
		{"IPv4", v4, none, 1400, true},
		{"least MTU", v4, none, 68, true},
		{"below it", v4, none, 67, false},
		{"most", v4, none, 65535, true},
		{"above it", v4, none, 65536, false},
		{"MTU 0", v4, none, 0, false},
		{"MTU negative", v4, none, -1, false},
		{"no DF", packet{payload: v4.payload}, none, 1400, true},
		{"first fragment without DF", packet{frag: 0x2000, payload: v4.payload}, none, 1400, true},
		{"first fragment", packet{frag: 0x6000, payload: v4.payload}, none, 1400, true},
		{"later fragment", packet{frag: 0x4001, payload: v4.payload}, none, 1400, false},
		{"wrong header checksum", v4, plain(func(b []byte) { b[24] ^= 1 }), 1400, false},
		{"that of a super-frame", v4, func(f *Frame) { f.Bytes()[24] ^= 1; f.GSOType, f.GSOSize = GSOTCPv4, 1000 }, 1400, true},
		{"to a group MAC", v4, plain(addr(0, 1, 0, 0x5e)), 1400, false},
		{"to the broadcast MAC", v4, plain(addr(0, 255, 255, 255, 255, 255, 255)), 1400, false},
		{"from a group MAC", v4, plain(addr(6, 1)), 1400, false},
		{"from 0.0.0.0", v4, resum(addr(26, 0, 0, 0, 0)), 1400, false},
		{"from loopback", v4, resum(addr(26, 127, 0, 0, 1)), 1400, false},
		{"from multicast", v4, resum(addr(26, 224, 0, 0, 1)), 1400, false},
		{"from broadcast", v4, resum(addr(26, 255, 255, 255, 255)), 1400, false},
		{"to multicast", v4, resum(addr(30, 239, 1, 2, 3)), 1400, false},
		{"to broadcast", v4, resum(addr(30, 255, 255, 255, 255)), 1400, false},
		{"to loopback", v4, resum(addr(30, 127, 0, 0, 1)), 1400, false},
		{"to 0.0.0.0", v4, resum(addr(30, 0, 0, 0, 0)), 1400, false},
		{"ICMP echo", v4, resum(icmp(8)), 1400, true},
		{"ICMP unreachable", v4, resum(icmp(3)), 1400, false},
		{"ICMP source quench", v4, resum(icmp(4)), 1400, false},
		{"ICMP redirect", v4, resum(icmp(5)), 1400, false},
		{"ICMP time exceeded", v4, resum(icmp(11)), 1400, false},
		{"ICMP parameter problem", v4, resum(icmp(12)), 1400, false},
		{"ICMP without a type", v4, resum(func(b []byte) { b[23] = 1; copy(b[16:], []byte{0, 20}) }), 1400, false},
		{"GRE", v4, resum(func(b []byte) { b[23] = 47 }), 1400, true},
		{"ARP", v4, plain(addr(12, 8, 6)), 1400, false},
		{"truncated", v4, func(f *Frame) { f.n -= 10 }, 1400, false},
		{"short", v4, func(f *Frame) { f.n = 13 }, 1400, false},

		{"IPv6", v6, none, 1400, true},
		{"IPv6, least MTU", v6, none, 1280, true},
		{"IPv6, below it", v6, none, 1279, false},
		{"IPv6, huge", v6, none, 1 << 17, true},
		{"IPv6 first fragment", fragment(1), none, 1400, true},
		{"IPv6 later fragment", fragment(8), none, 1400, false},
		{"IPv6 from ::", v6, plain(addr(22, make([]byte, 16)...)), 1400, false},
		{"IPv6 from ::1", v6, plain(addr(22, append(make([]byte, 15), 1)...)), 1400, false},
		{"IPv6 from ::2", v6, plain(addr(22, append(make([]byte, 15), 2)...)), 1400, true},
		{"IPv6 from multicast", v6, plain(addr(22, 0xff, 2)), 1400, false},
		{"IPv6 to multicast", v6, plain(addr(38, 0xff, 2)), 1400, false},
		{"IPv6 to ::1", v6, plain(addr(38, append(make([]byte, 15), 1)...)), 1400, false},
		{"ICMPv6 echo", v6, plain(icmpv6(128)), 1400, true},
		{"ICMPv6 error", v6, plain(icmpv6(1)), 1400, false},
		{"ICMPv6 unknown error", v6, plain(icmpv6(127)), 1400, false},
		{"ICMPv6 redirect", v6, plain(icmpv6(137)), 1400, false},
		{"ICMPv6 without a type", v6, plain(func(b []byte) { b[20] = 58; copy(b[18:], []byte{0, 0}) }), 1400, false},
	}
	pool := testPool(t, 2)
	f, dst := pool.Get(), pool.Get()
	for _, tt := range tests {
		b, o := tt.p.build()
		f.Set(b)
		f.Offload = o
		tt.edit(f)
		dst.Set([]byte("unchanged"))
		got := TooBig(dst, f, tt.mtu)
		if got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
		if got {
			if err := checkTooBig(dst, f, tt.mtu); err != nil {
				t.Errorf("%s: %v", tt.name, err)
			}
		} else if string(dst.Bytes()) != "unchanged" {
			t.Errorf("%s: no answer, and dst changed", tt.name)
		}
	}
}

// An answer is not answered, so that two of us never talk to each other for ever.
func TestTooBigNeverToItself(t *testing.T) {
	pool := testPool(t, 3)
	f, dst, again := pool.Get(), pool.Get(), pool.Get()
	for _, v6 := range []bool{false, true} {
		b, _ := packet{v6: v6, frag: 0x4000, payload: make([]byte, 1400)}.build()
		f.Set(b)
		if !TooBig(dst, f, 1300) {
			t.Fatal("no answer")
		}
		if TooBig(again, dst, 1300) {
			t.Errorf("v6=%v: an answer to the answer", v6)
		}
	}
}

// tshark finds the answers whole, their checksums right, and in them the ports.
func TestTooBigTshark(t *testing.T) {
	tool, err := exec.LookPath("tshark")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	path := filepath.Join(t.TempDir(), "toobig.pcap")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	w := pcapgo.NewWriter(file)
	if err := w.WriteFileHeader(65535, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	pool := testPool(t, 2)
	f, dst := pool.Get(), pool.Get()
	for _, v6 := range []bool{false, true} {
		for _, n := range []int{1400, 60000} {
			packet{v6: v6, flags: 0x10, frag: 0x4000, tags: []Tag{{TPID8021Q, 5}}, payload: make([]byte, n)}.super(f, 1380)
			if !TooBig(dst, f, 1300) {
				t.Fatal("no answer")
			}
			info := gopacket.CaptureInfo{CaptureLength: dst.Len(), Length: dst.Len()}
			if err := w.WritePacket(info, dst.Bytes()); err != nil {
				t.Fatal(err)
			}
		}
	}
	cmd := exec.Command(tool, "-n", "-r", path, "-o", "ip.check_checksum:TRUE", "-T", "fields", "-E", "separator=|",
		"-E", "occurrence=f",
		"-e", "_ws.malformed", "-e", "ip.src", "-e", "ipv6.src", "-e", "ip.dst", "-e", "ipv6.dst", "-e", "ip.checksum.status",
		"-e", "icmp.type", "-e", "icmp.code", "-e", "icmp.mtu", "-e", "icmp.checksum.status",
		"-e", "icmpv6.type", "-e", "icmpv6.mtu", "-e", "icmpv6.checksum.status", "-e", "tcp.srcport", "-e", "tcp.dstport", "-e", "_ws.expert.message")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark: %v", err)
	}
	line4 := "|10.0.0.2||10.0.0.1||1|3|4|1300|1||||12345|80|\n"
	line6 := "||fd00::2||fd00::1||||||2|1300|1|12345|80|\n"
	if want := line4 + line4 + line6 + line6; string(out) != want {
		t.Errorf("tshark reads\n%swant\n%s", out, want)
	}
}

func TestTooBigNoAllocs(t *testing.T) {
	pool := testPool(t, 2)
	f, dst := pool.Get(), pool.Get()
	for _, v6 := range []bool{false, true} {
		b, _ := packet{v6: v6, frag: 0x4000, payload: make([]byte, 1500)}.build()
		f.Set(b)
		noAllocs(t, "TooBig", func() {
			if !TooBig(dst, f, 1400) {
				panic("no answer")
			}
		})
	}
}

func FuzzTooBig(f *testing.F) {
	pool := testPool(f, 2)
	src, dst := pool.Get(), pool.Get()
	r := rand.New(rand.NewPCG(73, 74))
	for range 30 {
		answered(r, src)
		b := src.Bytes()
		if len(b) > 2000 {
			b = b[:2000]
		}
		f.Add(bytes.Clone(b), src.Flags, src.GSOType, 1280+r.IntN(500))
	}
	f.Fuzz(func(t *testing.T, b []byte, flags, gso uint8, mtu int) {
		if len(b) > MaxLen {
			return
		}
		src.Set(b)
		src.Offload = Offload{Flags: flags, GSOType: gso}
		if !TooBig(dst, src, mtu) {
			return
		}
		if err := checkTooBig(dst, src, mtu); err != nil {
			t.Fatal(err)
		}
		if dst.Len() > EthLen+maxTags*TagLen+1280 || !bytes.Equal(src.Bytes(), b) {
			t.Fatalf("answer of %d bytes, or the frame changed", dst.Len())
		}
	})
}

func BenchmarkTooBig(b *testing.B) {
	pool := testPool(b, 2)
	f, dst := pool.Get(), pool.Get()
	p, _ := packet{frag: 0x4000, payload: make([]byte, 1500)}.build()
	f.Set(p)
	b.ReportAllocs()
	for b.Loop() {
		if !TooBig(dst, f, 1400) {
			b.Fatal("no answer")
		}
	}
}
