package frame

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"
)

func TestVnetRoundTrip(t *testing.T) {
	r := rand.New(rand.NewPCG(15, 16))
	var b [VnetLen]byte
	for range 1000 {
		o := Offload{
			Flags: uint8(r.Uint32()), GSOType: uint8(r.Uint32()), HdrLen: uint16(r.Uint32()),
			GSOSize: uint16(r.Uint32()), CsumStart: uint16(r.Uint32()), CsumOffset: uint16(r.Uint32()),
		}
		var got Offload
		o.PutVnet(b[:], 0)
		got.GetVnet(b[:])
		if got != o {
			t.Fatalf("% x reads as %+v, want %+v", b, got, o)
		}
	}
}

func TestPutVnet(t *testing.T) {
	tests := []struct {
		name  string
		o     Offload
		shift uint16
		want  [VnetLen]byte
	}{
		{"nothing", Offload{}, 4, [VnetLen]byte{}},
		{"layout", Offload{1, 4, 0x0203, 0x0405, 0x0607, 0x0809}, 0, [VnetLen]byte{1, 4, 3, 2, 5, 4, 7, 6, 9, 8}},
		{"tag put back", Offload{NeedsCsum, GSOTCPv4, 54, 1448, 34, 16}, TagLen, [VnetLen]byte{1, 1, 58, 0, 0xa8, 5, 38, 0, 16, 0}},
		{"no start to move", Offload{Flags: DataValid, HdrLen: 54}, TagLen, [VnetLen]byte{2, 0, 58}},
	}
	for _, tt := range tests {
		var got [VnetLen]byte
		tt.o.PutVnet(got[:], tt.shift)
		if got != tt.want {
			t.Errorf("%s: % x, want % x", tt.name, got, tt.want)
		}
	}
}

func TestCheck(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	tests := []struct {
		name string
		n    int
		o    Offload
		want error
	}{
		{"plain", 60, Offload{}, nil},
		{"header alone", 14, Offload{}, nil},
		{"short", 13, Offload{}, ErrShort},
		{"empty", 0, Offload{}, ErrShort},
		{"field ends with the frame", 60, Offload{Flags: NeedsCsum, CsumStart: 42, CsumOffset: 16}, nil},
		{"field over the end", 60, Offload{Flags: NeedsCsum, CsumStart: 43, CsumOffset: 16}, ErrOffload},
		{"offsets that overflow 16 bits", 60, Offload{Flags: NeedsCsum, CsumStart: 0xfff0, CsumOffset: 0x20}, ErrOffload},
		{"start in the Ethernet header", 60, Offload{Flags: NeedsCsum, CsumStart: 13, CsumOffset: 0}, ErrOffload},
		{"offsets nobody asks for", 60, Offload{Flags: DataValid, CsumStart: 0xffff}, nil},
		{"TCPv4", 60, Offload{NeedsCsum, GSOTCPv4, 54, 1448, 34, 16}, nil},
		{"TCPv6 with ECN", 60, Offload{NeedsCsum, GSOTCPv6 | GSOECN, 54, 1448, 34, 16}, nil},
		{"UDP", 60, Offload{NeedsCsum, GSOUDPL4, 42, 1448, 34, 6}, nil},
		{"size 0", 60, Offload{NeedsCsum, GSOTCPv4, 54, 0, 34, 16}, ErrOffload},
		{"super-frame with a final checksum", 60, Offload{0, GSOTCPv4, 54, 1448, 34, 16}, ErrOffload},
		{"UFO", 60, Offload{NeedsCsum, GSOUDP, 42, 1448, 34, 6}, ErrOffload},
		{"unknown type", 60, Offload{NeedsCsum, 2, 42, 1448, 34, 6}, ErrOffload},
	}
	for _, tt := range tests {
		f.Reset(tt.n)
		f.Offload = tt.o
		if err := f.Check(); !errors.Is(err, tt.want) {
			t.Errorf("%s: error %v, want %v", tt.name, err, tt.want)
		}
	}
}

func TestTags(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	b, o := packet{payload: []byte("payload")}.build()
	outer, inner := Tag{TPID8021AD, 0xe123}, Tag{TPID8021Q, 0x0456}
	f.Set(b)
	f.Offload = o
	f.HdrLen = 54
	before := f.Offload

	f.PushTag(inner)
	f.PushTag(outer)
	want := join(b[:12], []byte{0x88, 0xa8, 0xe1, 0x23, 0x81, 0x00, 0x04, 0x56}, b[12:])
	if !bytes.Equal(f.Bytes(), want) {
		t.Fatalf("two tags pushed:\n got % x\nwant % x", f.Bytes(), want)
	}
	if f.CsumStart != before.CsumStart+8 || f.HdrLen != before.HdrLen+8 || f.CsumOffset != before.CsumOffset {
		t.Errorf("two tags pushed: %+v, before %+v", f.Offload, before)
	}
	if !f.PopTag() || f.Tag != outer || f.Tag.VID() != 0x123 || f.WireLen() != len(want) || f.Len() != len(want)-4 {
		t.Errorf("popped %+v, want %+v; wire length %d, want %d", f.Tag, outer, f.WireLen(), len(want))
	}
	if f.PopTag() {
		t.Error("popped a second tag over the first")
	}
	f.Tag = Tag{}
	if !f.PopTag() || f.Tag != inner {
		t.Errorf("popped %+v, want %+v", f.Tag, inner)
	}
	if !bytes.Equal(f.Bytes(), b) || f.Offload != before || [6]byte(macDst) != f.Dst() || [6]byte(macSrc) != f.Src() {
		t.Errorf("after both are popped:\n got % x %+v\nwant % x %+v", f.Bytes(), f.Offload, b, before)
	}
	f.Tag = Tag{}
	if f.PopTag() {
		t.Error("popped a tag that is not there")
	}
	f.Set(want[:17])
	if f.PopTag() {
		t.Error("popped a tag that is cut off")
	}
}

func TestReceiveInto(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	if n := len(f.Room(VnetLen)); n < VnetLen+MaxLen {
		t.Fatalf("room for %d bytes, want %d", n, VnetLen+MaxLen)
	}
	copy(f.Room(VnetLen), "0123456789frame of 22 bytes..")
	f.Tag, f.Offload = Tag{TPID8021Q, 1}, Offload{Flags: DataValid}
	f.Reset(22)
	if string(f.Bytes()[:18]) != "frame of 22 bytes." || string(f.Before(VnetLen)) != "0123456789" {
		t.Errorf("received %q behind %q", f.Bytes(), f.Before(VnetLen))
	}
	if f.Tag.Present() || f.Offload != (Offload{}) || f.WireLen() != 22 {
		t.Errorf("after Reset: tag %+v, offload %+v", f.Tag, f.Offload)
	}
	f.Reset(MaxLen)
	if len(f.Bytes()) != MaxLen || cap(f.Bytes()) != MaxLen {
		t.Errorf("largest frame: %d bytes, cap %d, want %d", len(f.Bytes()), cap(f.Bytes()), MaxLen)
	}
}
