package tunnel

import (
	"encoding/hex"
	"math/rand/v2"
	"strings"
	"testing"

	"vswitch/frame"
)

// unhex reads hexadecimal digits with blanks between them.
func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestDecode(t *testing.T) {
	for _, c := range []struct {
		kind  Kind
		name  string
		bytes string
		want  header
		ok    bool
	}{
		{VXLAN, "plain", "08000000 00002a00", header{key: 42, len: 8}, true},
		{VXLAN, "largest VNI, frame behind", "08000000 ffffff00 aabb", header{key: 0xffffff, len: 8}, true},
		{VXLAN, "group policy", "88481234 00002a00", header{key: 42, len: 8}, true},
		{VXLAN, "reserved bits", "ffffffff 00002aff", header{key: 42, len: 8}, true},
		{VXLAN, "no VNI", "00000000 00002a00", header{}, false},
		{VXLAN, "short", "08000000 00002a", header{}, false},
		{VXLAN, "empty", "", header{}, false},

		{Geneve, "plain", "00006558 00002a00", header{key: 42, len: 8}, true},
		{Geneve, "control packet", "00806558 00002a00", header{key: 42, len: 8}, true},
		{Geneve, "two options", "03006558 00002a00 01020301 11223344 01020300", header{key: 42, len: 20, options: 2}, true},
		{Geneve, "C bit", "00406558 00002a00", header{key: 42, len: 8, fault: frame.FaultCritical}, true},
		{Geneve, "critical option", "01006558 00002a00 01028300", header{key: 42, len: 12, options: 1, fault: frame.FaultCritical}, true},
		{Geneve, "IP in it", "00000800 00002a00", header{key: 42, len: 8, fault: frame.FaultProtocol}, true},
		{Geneve, "option beyond the options", "01006558 00002a00 01020301", header{}, false},
		{Geneve, "options beyond the packet", "02006558 00002a00 01020300", header{}, false},
		{Geneve, "version 1", "40006558 00002a00", header{}, false},
		{Geneve, "short", "00006558 00002a", header{}, false},

		{GRE, "plain", "00006558", header{len: 4}, true},
		{GRE, "key", "20006558 0000002a", header{len: 8, key: 42}, true},
		{GRE, "key and sequence", "30006558 0000002a 00000007", header{len: 12, key: 42, seq: 7, hasSeq: true}, true},
		{GRE, "checksum", "80006558 1aa70000", header{len: 8}, true},
		{GRE, "all", "b0006558 ea730000 0000002a 00000007 0102", header{len: 16, key: 42, seq: 7, hasSeq: true, fault: frame.FaultChecksum}, true},
		{GRE, "wrong checksum", "80006558 1aa80000", header{len: 8, fault: frame.FaultChecksum}, true},
		{GRE, "IP in it", "00000800", header{len: 4, fault: frame.FaultProtocol}, true},
		{GRE, "reserved0 is ignored", "03f86558", header{len: 4}, true},
		{GRE, "routing", "40006558", header{}, false},
		{GRE, "strict source route", "08006558", header{}, false},
		{GRE, "recursion", "04006558", header{}, false},
		{GRE, "PPTP", "2001880b 00000000", header{}, false},
		{GRE, "short", "000065", header{}, false},
		{GRE, "key cut off", "20006558 000000", header{}, false},
	} {
		h, ok := c.kind.decode(unhex(t, c.bytes))
		if h != c.want || ok != c.ok {
			t.Errorf("%s, %s: %+v %t, want %+v %t", c.kind, c.name, h, ok, c.want, c.ok)
		}
	}
}

// TestPut wants what is written to be read back as what was meant.
func TestPut(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 1000 {
		vni := rnd.Uint32() & maxVNI
		b := unhex(t, "ffffffffffffffff")
		if putVXLAN(b, vni); b[0] != 0x08 || b[7] != 0 {
			t.Fatalf("VXLAN %d: %x", vni, b)
		}
		if h, ok := decodeVXLAN(b); !ok || h != (header{key: vni, len: 8}) {
			t.Fatalf("VXLAN %d: %x is %+v", vni, b, h)
		}
		putGeneve(b, vni)
		if h, ok := decodeGeneve(b); !ok || h != (header{key: vni, len: 8}) {
			t.Fatalf("Geneve %d: %x is %+v", vni, b, h)
		}

		flags := uint16(rnd.Uint32()) & (greHasChecksum | greHasKey | greHasSequence)
		key, seq := rnd.Uint32(), rnd.Uint32()
		n := greHeaderLen(flags)
		b = make([]byte, n+rnd.IntN(100))
		for i := range b {
			b[i] = byte(rnd.Uint32())
		}
		putGRE(b, flags, key, seq)
		want := header{len: n}
		if flags&greHasKey != 0 {
			want.key = key
		}
		if flags&greHasSequence != 0 {
			want.seq, want.hasSeq = seq, true
		}
		if flags&greHasChecksum != 0 {
			cut := n + rnd.IntN(len(b)-n+1)
			sumGRE(b[:cut], b[cut:])
			if naiveSum(b) != 0xffff {
				t.Fatalf("GRE %x: the naive sum is %#x", b, naiveSum(b))
			}
		}
		if h, ok := decodeGRE(b); !ok || h != want {
			t.Fatalf("GRE %x is %+v, want %+v", b, h, want)
		}
	}
}

func naiveSum(b []byte) uint16 {
	var sum uint32
	for i, v := range b {
		if i%2 == 0 {
			sum += uint32(v) << 8
		} else {
			sum += uint32(v)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// readBits reads n bits of b from bit number from on, the first being the highest of
// the first byte, as RFCs draw them; ok is false behind the end. It is the naive
// reader that the decoders are held against.
func readBits(b []byte, from, n int, ok *bool) (v uint32) {
	for i := from; i < from+n; i++ {
		v <<= 1
		if i/8 >= len(b) {
			*ok = false
			continue
		}
		v |= uint32(b[i/8]>>(7-i%8)) & 1
	}
	return v
}

func FuzzDecodeVXLAN(f *testing.F) {
	f.Add(unhex(f, "0800000000002a00"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ok := true
		flag := readBits(b, 4, 1, &ok)
		want := header{key: readBits(b, 32, 24, &ok), len: 8}
		readBits(b, 63, 1, &ok)
		agree(t, b, VXLAN, want, ok && flag == 1)
	})
}

func FuzzDecodeGeneve(f *testing.F) {
	f.Add(unhex(f, "030065580000 2a00 0102030111223344 01020300"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ok := true
		version, units := readBits(b, 0, 2, &ok), int(readBits(b, 2, 6, &ok))
		critical := readBits(b, 9, 1, &ok) == 1
		proto := readBits(b, 16, 16, &ok)
		want := header{key: readBits(b, 32, 24, &ok), len: 8 + 4*units}
		readBits(b, 8*want.len-1, 1, &ok)
		at := 64
		for ok && at < 8*want.len {
			want.options++
			critical = critical || readBits(b, at+16, 1, &ok) == 1
			at += 32 + 32*int(readBits(b, at+27, 5, &ok))
		}
		switch {
		case critical:
			want.fault = frame.FaultCritical
		case proto != 0x6558:
			want.fault = frame.FaultProtocol
		}
		agree(t, b, Geneve, want, ok && version == 0 && at == max(64, 8*want.len))
	})
}

func FuzzDecodeGRE(f *testing.F) {
	f.Add(unhex(f, "b0006558 ea730000 0000002a 00000007 0102"))
	f.Fuzz(func(t *testing.T, b []byte) {
		ok := true
		sum, key, seq := readBits(b, 0, 1, &ok), readBits(b, 2, 1, &ok), readBits(b, 3, 1, &ok)
		bad := readBits(b, 1, 1, &ok) + readBits(b, 4, 2, &ok) + readBits(b, 13, 3, &ok)
		var want header
		if readBits(b, 16, 16, &ok) != 0x6558 {
			want.fault = frame.FaultProtocol
		}
		at := 32
		if sum == 1 {
			readBits(b, at, 32, &ok)
			at += 32
			if naiveSum(b) != 0xffff {
				want.fault = frame.FaultChecksum
			}
		}
		if key == 1 {
			want.key = readBits(b, at, 32, &ok)
			at += 32
		}
		if seq == 1 {
			want.seq, want.hasSeq = readBits(b, at, 32, &ok), true
			at += 32
		}
		want.len = at / 8
		agree(t, b, GRE, want, ok && bad == 0)
	})
}

// agree wants decode to say of b what the oracle says.
func agree(t *testing.T, b []byte, k Kind, want header, ok bool) {
	t.Helper()
	if !ok {
		want = header{}
	}
	if h, got := k.decode(b); got != ok || h != want {
		t.Fatalf("%s %x: %+v %t, the oracle says %+v %t", k, b, h, got, want, ok)
	}
}
