package frame

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"math/rand/v2"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// sctpFrame returns a frame that carries the SCTP packet p, as a veth gives it to
// us: with the checksum open.
func sctpFrame(p []byte, v6 bool, tags ...Tag) ([]byte, Offload) {
	b, _ := packet{udp: true, v6: v6, tags: tags, payload: make([]byte, len(p)-8)}.build()
	start := len(b) - len(p)
	copy(b[start:], p)
	if v6 {
		b[start-40+6] = 132
	} else {
		b[start-20+9] = 132
		binary.BigEndian.PutUint16(b[start-10:], 0)
		binary.BigEndian.PutUint16(b[start-10:], ^naiveSum(b[start-20:start], 0))
	}
	return b, Offload{Flags: NeedsCsum, CsumStart: uint16(start), CsumOffset: 8}
}

// The CRC32c examples of RFC 3720 appendix B.4, where the field is zero.
func TestSCTPVectors(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	scsi, err := hex.DecodeString("01c00000000000000000000000000000" +
		"14000000000004000000001400000018" + "28000000000000000200000000000000")
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		p    []byte
		want string
	}{
		{make([]byte, 32), "aa36918a"},
		{scsi, "563a96d9"},
	} {
		b, o := sctpFrame(tt.p, false)
		f.Set(b)
		f.Offload = o
		if !f.NeedsCRC32c() {
			t.Error("not seen as SCTP")
		}
		if err := f.FinishChecksum(); err != nil {
			t.Fatal(err)
		}
		if got := hex.EncodeToString(f.Bytes()[o.CsumStart+8:][:4]); got != tt.want {
			t.Errorf("checksum %s, want %s", got, tt.want)
		}
	}
}

func TestSCTPAgainstGopacket(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	r := rand.New(rand.NewPCG(25, 26))
	for range 200 {
		buf := gopacket.NewSerializeBuffer()
		err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{ComputeChecksums: true},
			&layers.SCTP{SrcPort: 1, DstPort: 2, VerificationTag: r.Uint32()},
			gopacket.Payload(randomBytes(r, 4*r.IntN(400))))
		if err != nil {
			t.Fatal(err)
		}
		want := bytes.Clone(buf.Bytes())
		open := bytes.Clone(want)
		copy(open[8:], []byte{0, 0, 0, 0})
		var tags []Tag
		if r.IntN(2) == 0 {
			tags = []Tag{{TPID8021Q, 7}}
		}
		b, o := sctpFrame(open, r.IntN(2) == 0, tags...)
		b = append(b, make([]byte, r.IntN(3))...) // padding is not SCTP's
		f.Set(b)
		f.Offload = o
		if err := f.FinishChecksum(); err != nil {
			t.Fatal(err)
		}
		if got := f.Bytes()[o.CsumStart:][:len(want)]; !bytes.Equal(got, want) {
			t.Fatalf("got % x\nwant % x", got[:12], want[:12])
		}
		if err := Finish(b, &o); err != nil || !bytes.Equal(b, f.Bytes()) {
			t.Fatalf("Finish differs from FinishChecksum (error %v)", err)
		}
	}
}

func TestNeedsCRC32c(t *testing.T) {
	pool := testPool(t, 1)
	f := pool.Get()
	set := func(edit func(b []byte)) bool {
		b, o := sctpFrame(make([]byte, 40), false)
		f.Set(b)
		f.Offload = o
		edit(f.Bytes())
		return f.NeedsCRC32c()
	}
	for _, tt := range []struct {
		name string
		edit func(b []byte)
		want bool
	}{
		{"SCTP", func([]byte) {}, true},
		{"finished", func([]byte) { f.Flags = 0 }, false},
		{"another protocol", func(b []byte) { b[14+9] = 17 }, false},
		{"another field", func([]byte) { f.CsumOffset = 6 }, false},
		{"another start", func([]byte) { f.CsumStart++ }, false},
		{"fragment", func(b []byte) { b[14+6] = 0x20 }, false},
		{"field over the packet's end", func(b []byte) { b[14+3] = 20 + 11 }, false},
	} {
		if got := set(tt.edit); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	set(func([]byte) {})
	o := f.Offload
	noAllocs(t, "NeedsCRC32c and FinishChecksum", func() {
		f.Offload = o
		if !f.NeedsCRC32c() || f.FinishChecksum() != nil {
			panic("not SCTP")
		}
	})
}

// What Linux does with an open SCTP checksum that a packet socket gives it, for an
// interface that sums nothing itself: it writes an Internet checksum. This is why
// there is NeedsCRC32c. When this test fails, it may go.
func TestSCTPKernelWritesInternetChecksum(t *testing.T) {
	w := newWire(t)
	b, o := sctpFrame(append([]byte{0, 1, 0, 2, 0, 0, 0, 3}, make([]byte, 32)...), false)
	want := bytes.Clone(b)
	binary.BigEndian.PutUint16(want[o.CsumStart+8:], ^naiveSum(b[o.CsumStart:], 0))
	if got := w.through(b, o); len(got) != 1 || !bytes.Equal(got[0], want) {
		t.Errorf("Linux sends % x\n       want % x", got, want)
	}
}
