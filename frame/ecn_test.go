package frame

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// withDS returns p with the DS field, its checksums final.
func withDS(t testing.TB, p packet, ds uint8) []byte {
	t.Helper()
	b, o := p.build()
	l, err := Parse(b)
	if err != nil {
		t.Fatal(err)
	}
	if p.v6 {
		b[l.L3] = 0x60 | ds>>4
		b[l.L3+1] = ds<<4 | 0x05 // of a flow label
	} else {
		b[l.L3+1] = ds
		binary.BigEndian.PutUint16(b[l.L3+10:], 0)
		binary.BigEndian.PutUint16(b[l.L3+10:], ^naiveSum(b[l.L3:l.L4], 0))
	}
	if err := Finish(b, &o); err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDS(t *testing.T) {
	r := rand.New(rand.NewPCG(61, 62))
	for i := range 2048 {
		p, ds := randomPacket(r, 20), uint8(i)
		b := withDS(t, p, ds)
		if got, ok := DS(b); !ok || got != ds {
			t.Fatalf("DS %#02x, %v, want %#02x", got, ok, ds)
		}
		// SetCE
		want, ce := b, bytes.Clone(b)
		if ds&3 != 0 {
			want = withDS(t, p, ds|3)
		}
		if ok := SetCE(ce); ok != (ds&3 != 0) || !bytes.Equal(ce, want) {
			t.Fatalf("SetCE of %#02x: %v\n got % x\nwant % x", ds, ok, ce, want)
		}
		if err := verify(ce); err != nil {
			t.Fatalf("SetCE of %#02x: %v", ds, err)
		}
		// SetECT1
		want = b
		if ds&3 == 2 {
			want = withDS(t, p, ds^3)
		}
		if SetECT1(b); !bytes.Equal(b, want) {
			t.Fatalf("SetECT1 of %#02x:\n got % x\nwant % x", ds, b, want)
		}
	}
}

func TestDSOfNoIP(t *testing.T) {
	arp := join(macDst, macSrc, []byte{0x08, 0x06}, make([]byte, 46))
	v4, _ := packet{tags: []Tag{{TPID8021Q, 1}}}.build()
	v6, _ := packet{v6: true}.build()
	wrong := bytes.Clone(v4)
	wrong[18] = 0x65
	three, _ := packet{tags: []Tag{{TPID8021Q, 1}, {TPID8021Q, 2}, {TPID8021Q, 3}}}.build()
	for name, b := range map[string][]byte{
		"nothing": nil, "short": v4[:13], "ARP": arp, "wrong version": wrong, "three tags": three,
		"IPv4 cut": v4[:18+19], "IPv6 cut": v6[:14+39], "tag cut": v4[:16],
	} {
		was := bytes.Clone(b)
		if ds, ok := DS(b); ok {
			t.Errorf("%s: DS %#02x", name, ds)
		}
		if SetECT1(b); SetCE(b) || !bytes.Equal(b, was) {
			t.Errorf("%s: SetCE true, or changed", name)
		}
	}
}

// Every frame, whatever its bytes: no more than the DS field and the checksum of
// the IP header change, and that stays as right or wrong as it was.
func FuzzSetCE(f *testing.F) {
	r := rand.New(rand.NewPCG(63, 64))
	for i := range 16 {
		b := withDS(f, randomPacket(r, 20), uint8(i))
		f.Add(b)
		f.Add(b[:r.IntN(len(b))])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		was := bytes.Clone(b)
		before, ip := DS(b)
		ok := SetCE(b)
		after, still := DS(b)
		switch {
		case ok && (!ip || !still || after != before|3):
			t.Fatalf("DS %#02x, %v became %#02x, %v", before, ip, after, still)
		case !ok && !bytes.Equal(b, was):
			t.Fatal("false, and changed")
		}
		if l, err := Parse(was); ok && err == nil && l.EtherType == EtherIPv4 {
			h := ipv4HeaderLen(b[l.L3])
			if x, y := naiveSum(was[l.L3:l.L3+h], 0), naiveSum(b[l.L3:l.L3+h], 0); x%0xffff != y%0xffff {
				t.Fatalf("header summed to %#04x, now to %#04x", x, y)
			}
		}
	})
}

func BenchmarkDS(b *testing.B) {
	p, _ := packet{}.build()
	b.ReportAllocs()
	for b.Loop() {
		ds, _ := DS(p)
		sink += int(ds)
	}
}
