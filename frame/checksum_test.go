package frame

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
)

func TestSum(t *testing.T) {
	tests := []struct {
		name    string
		b       []byte
		initial uint32
		want    uint16
	}{
		{"nothing", nil, 0, 0},
		{"nothing but initial", nil, 0x12345, 0x2346},
		{"RFC 1071 section 3", []byte{0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7}, 0, 0xddf2},
		{"one byte is a high half", []byte{0xab}, 0, 0xab00},
		{"zeros stay zero", make([]byte, 129), 0, 0},
		{"ones", bytes.Repeat([]byte{0xff}, 200), 0xffffffff, 0xffff},
	}
	for _, tt := range tests {
		if got := Sum(tt.b, tt.initial); got != tt.want {
			t.Errorf("%s: Sum = %#04x, want %#04x", tt.name, got, tt.want)
		}
	}
}

// Every length up to past the widest stride, at every alignment, against the
// naive sum; extreme bytes as well as random ones, for the carries.
func TestSumAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	random := randomBytes(r, 400)
	ones := bytes.Repeat([]byte{0xff}, 400)
	for _, buf := range [][]byte{random, ones} {
		for off := range 9 {
			for n := range 300 {
				b, initial := buf[off:off+n], r.Uint32()
				if got, want := Sum(b, initial), naiveSum(b, initial); got != want {
					t.Fatalf("Sum of %d bytes at %d from %#x = %#04x, want %#04x", n, off, initial, got, want)
				}
			}
		}
	}
	for range 200 {
		b := randomBytes(r, r.IntN(70000))
		cut := r.IntN(len(b)+1) &^ 1
		if got, want := Sum(b[cut:], uint32(Sum(b[:cut], 0))), naiveSum(b, 0); got != want {
			t.Fatalf("Sum of %d bytes cut at %d = %#04x, want %#04x", len(b), cut, got, want)
		}
	}
}

func TestPseudo(t *testing.T) {
	for _, addrs := range [][]byte{v4Addr, v6Addr} {
		ph := append(append([]byte{}, addrs...), 0, 17, 0xff, 0xfe)
		if got, want := Sum(nil, Pseudo(addrs, 17, 0xfffe)), naiveSum(ph, 0); got != want {
			t.Errorf("Pseudo of %d address bytes folds to %#04x, want %#04x", len(addrs), got, want)
		}
	}
}

func TestFinishChecksum(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	r := rand.New(rand.NewPCG(3, 4))
	for range 500 {
		p := packet{v6: r.IntN(2) == 0, udp: r.IntN(2) == 0, payload: randomBytes(r, r.IntN(1500)), pad: r.IntN(2) * 6}
		if r.IntN(3) == 0 {
			p.tags = []Tag{{TPID8021Q, 7}}
		}
		b, o := p.build()
		f.Set(b)
		f.Offload = o
		f.Flags |= DataValid
		if err := f.FinishChecksum(); err != nil {
			t.Fatal(err)
		}
		if f.Offload != (Offload{Flags: DataValid}) {
			t.Fatalf("offload state left: %+v", f.Offload)
		}
		if err := verify(f.Bytes()); err != nil {
			t.Fatalf("%+v: %v", p, err)
		}
		if err := f.FinishChecksum(); err != nil {
			t.Fatalf("a second time: %v", err)
		}
		if err := Finish(b, &o); err != nil || !bytes.Equal(b, f.Bytes()) {
			t.Fatalf("Finish differs from FinishChecksum (error %v)", err)
		}
	}
}

// Headers says the same as FinishChecksum, and leaves the frame as it is.
func TestHeaders(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	r := rand.New(rand.NewPCG(31, 32))
	head := make([]byte, MaxHeaders)
	for range 500 {
		p := randomPacket(r, 1500)
		p.pad = r.IntN(8)
		b, o := p.build()
		if r.IntN(8) == 0 {
			b, o = zeroSumFrame(r.IntN(2) == 0)
		}
		f.Set(b)
		f.Offload = o
		n, rest, err := f.Headers(head)
		if err != nil || n != int(o.CsumStart+o.CsumOffset)+2 {
			t.Fatalf("%d bytes of headers, error %v", n, err)
		}
		if !bytes.Equal(f.Bytes(), b) || f.Offload != o {
			t.Fatal("the frame was changed")
		}
		if err := f.FinishChecksum(); err != nil {
			t.Fatal(err)
		}
		if got := join(head[:n], rest); !bytes.Equal(got, f.Bytes()) {
			t.Fatalf("got % x\nwant % x", got, f.Bytes())
		}
		if n, rest, err := f.Headers(head); n != 0 || err != nil || !bytes.Equal(rest, f.Bytes()) {
			t.Fatalf("nothing to finish: %d bytes of headers, %d others, error %v", n, len(rest), err)
		}
	}
}

func TestHeadersRefuses(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	good, o := packet{payload: []byte("x")}.build()
	sctp, crc := sctpFrame(make([]byte, 40), false)
	super := o
	super.GSOType, super.GSOSize = GSOTCPv4, 1
	tests := []struct {
		name string
		b    []byte
		o    Offload
		head int
		want error
	}{
		{"just enough room", good, o, 52, nil},
		{"no room", good, o, 51, ErrOffload},
		{"super-frame", good, super, 512, ErrSuper},
		{"field over the end", good, Offload{Flags: NeedsCsum, CsumStart: 34, CsumOffset: uint16(len(good) - 35)}, 512, ErrOffload},
		{"start in the Ethernet header", good, Offload{Flags: NeedsCsum, CsumStart: 13, CsumOffset: 16}, 512, ErrOffload},
		{"short", good[:13], Offload{Flags: NeedsCsum}, 512, ErrShort},
		{"SCTP", sctp, crc, 512, ErrOffload},
	}
	for _, tt := range tests {
		f.Set(tt.b)
		f.Offload = tt.o
		if n, _, err := f.Headers(make([]byte, tt.head)); !errors.Is(err, tt.want) || err != nil && n != 0 {
			t.Errorf("%s: %d bytes, error %v, want %v", tt.name, n, err, tt.want)
		}
	}
}

// A sum of 0 is written as 0xffff, whatever the protocol: so the kernel does.
func TestFinishChecksumNeverZero(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	for _, udp := range []bool{true, false} {
		b, o := zeroSumFrame(udp)
		f.Set(b)
		f.Offload = o
		if err := f.FinishChecksum(); err != nil {
			t.Fatal(err)
		}
		if got := binary.BigEndian.Uint16(f.Bytes()[o.CsumStart+o.CsumOffset:]); got != 0xffff {
			t.Errorf("udp=%v: checksum %#04x, want 0xffff for 0", udp, got)
		}
	}
}

// zeroSumFrame returns a frame of two payload bytes whose checksum comes out 0.
func zeroSumFrame(udp bool) ([]byte, Offload) {
	b, o := packet{udp: udp, payload: make([]byte, 2)}.build()
	binary.BigEndian.PutUint16(b[len(b)-2:], ^naiveSum(b[o.CsumStart:], 0))
	return b, o
}

func TestFinishChecksumRefuses(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	good, _ := packet{payload: []byte("x")}.build()
	tests := []struct {
		name string
		b    []byte
		o    Offload
		want error
	}{
		{"nothing to do", good, Offload{CsumStart: 60000}, nil},
		{"super-frame", good, Offload{Flags: NeedsCsum, GSOType: GSOTCPv4, GSOSize: 1, CsumStart: 34, CsumOffset: 16}, ErrSuper},
		{"field over the end", good, Offload{Flags: NeedsCsum, CsumStart: 34, CsumOffset: uint16(len(good) - 35)}, ErrOffload},
		{"start behind the end", good, Offload{Flags: NeedsCsum, CsumStart: 65535, CsumOffset: 65535}, ErrOffload},
		{"start in the Ethernet header", good, Offload{Flags: NeedsCsum, CsumStart: 13, CsumOffset: 16}, ErrOffload},
		{"short", good[:13], Offload{Flags: NeedsCsum}, ErrShort},
		{"empty", nil, Offload{Flags: NeedsCsum}, ErrShort},
	}
	for _, tt := range tests {
		f.Set(tt.b)
		f.Offload = tt.o
		if err := f.FinishChecksum(); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
		if !bytes.Equal(f.Bytes(), tt.b) || f.Offload != tt.o {
			t.Errorf("%s: frame was changed", tt.name)
		}
		if tt.o.Super() {
			continue
		}
		b := bytes.Clone(tt.b)
		if err := Finish(b, &tt.o); !errors.Is(err, tt.want) || !bytes.Equal(b, tt.b) {
			t.Errorf("%s: Finish: error %v, want %v, and no change", tt.name, err, tt.want)
		}
	}
}

// A super-frame in a capture file is one packet of up to 64 KiB whose checksums
// a dissector must find right.
func TestFinishSuper(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	r := rand.New(rand.NewPCG(5, 6))
	for _, v6 := range []bool{false, true} {
		for _, udp := range []bool{false, true} {
			for _, tags := range [][]Tag{nil, {{TPID8021AD, 5}, {TPID8021Q, 7}}} {
				packet{v6: v6, udp: udp, tags: tags, payload: randomBytes(r, 64001)}.super(f, 1400)
				b, o := bytes.Clone(f.Bytes()), f.Offload
				if !v6 {
					b[o.CsumStart-10] ^= 0x55 // the IPv4 header checksum
				}
				if err := Finish(b, &o); err != nil {
					t.Fatal(err)
				}
				if err := verify(b); err != nil {
					t.Errorf("v6=%v udp=%v tags=%d: %v", v6, udp, len(tags), err)
				}
			}
		}
	}
}

func TestChecksumNoAllocs(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	b, o := packet{payload: make([]byte, 1000)}.build()
	f.Set(b)
	noAllocs(t, "Sum", func() { sink += int(Sum(b, 1)) })
	noAllocs(t, "Pseudo", func() { sink += int(Pseudo(v6Addr, 6, 1)) })
	noAllocs(t, "FinishChecksum", func() {
		f.Offload = o
		if err := f.FinishChecksum(); err != nil {
			panic(err)
		}
	})
	head := make([]byte, MaxHeaders)
	f.Offload = o
	noAllocs(t, "Headers", func() {
		if _, _, err := f.Headers(head); err != nil {
			panic(err)
		}
	})
	noAllocs(t, "Finish", func() {
		if err := Finish(b, &o); err != nil {
			panic(err)
		}
	})
}

var sink int

func FuzzFinishChecksum(f *testing.F) {
	b, o := packet{udp: true, payload: []byte("payload")}.build()
	f.Add(b, o.Flags, uint8(0), o.CsumStart, o.CsumOffset)
	f.Add(b, o.Flags, uint8(GSOUDPL4), o.CsumStart, o.CsumOffset)
	f.Add(b, o.Flags, uint8(0), uint16(65535), uint16(65535))
	f.Add([]byte{}, uint8(NeedsCsum), uint8(0), uint16(0), uint16(0))
	b, o = packet{v6: true, payload: []byte("payload")}.build()
	f.Add(b, o.Flags, uint8(GSOTCPv6), o.CsumStart, o.CsumOffset)
	b, o = sctpFrame(make([]byte, 40), true)
	f.Add(b, o.Flags, uint8(0), o.CsumStart, o.CsumOffset)
	pool := testPool(f, 1)
	fr := pool.Get()
	overlay{kind: "gre", sum: true}.super(fr, packet{payload: []byte("payload")}, 100)
	f.Add(bytes.Clone(fr.Bytes()), uint8(NeedsCsum), uint8(GSOTCPv4), fr.CsumStart, fr.CsumOffset)
	f.Fuzz(func(t *testing.T, b []byte, flags, gso uint8, start, offset uint16) {
		if len(b) > MaxLen {
			return
		}
		o := Offload{Flags: flags, GSOType: gso, GSOSize: 100, CsumStart: start, CsumOffset: offset}
		fr.Set(b)
		fr.Offload = o
		ok := fr.Check() == nil
		err := fr.FinishChecksum()
		if ok && !fr.Super() && err != nil {
			t.Fatalf("Check passed the frame, FinishChecksum says %v", err)
		}
		if err != nil && (!bytes.Equal(fr.Bytes(), b) || fr.Offload != o) {
			t.Fatal("frame was changed beside an error")
		}
		if _, sctp := sctpEnd(b, &o); err == nil && flags&NeedsCsum != 0 && offset%2 == 0 && !sctp {
			// With the pseudo-header that stood in the field, it sums to zero.
			ph := binary.BigEndian.Uint16(b[start+offset:])
			if s := naiveSum(fr.Bytes()[start:], uint32(ph)); s != 0xffff && s != 0 {
				t.Fatalf("finished frame sums to %#04x", s)
			}
		}
		_ = Finish(bytes.Clone(b), &o)
	})
}

func BenchmarkSum(b *testing.B) {
	for _, n := range []int{20, 64, 1448, 65000} {
		buf := make([]byte, n)
		for i := range buf {
			buf[i] = byte(i)
		}
		for _, v := range []struct {
			name string
			sum  func([]byte, uint32) uint16
		}{{"fast", Sum}, {"naive", naiveSum}} {
			b.Run(fmt.Sprintf("%s/%d", v.name, n), func(b *testing.B) {
				b.ReportAllocs()
				b.SetBytes(int64(n))
				for b.Loop() {
					sink += int(v.sum(buf, 0))
				}
			})
		}
	}
}
