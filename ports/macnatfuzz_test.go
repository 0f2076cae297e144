package ports

import (
	"bytes"
	"testing"

	"vswitch/frame"
)

// oracle says in the plainest way what becomes of a frame on its way out: b with every
// link-layer address that tells of the sender replaced.
func oracle(b []byte, o frame.Offload) []byte {
	w := bytes.Clone(b)
	src := string(b[6:12])
	copy(w[6:], testNIC)
	at, tags := 12, 0
	for len(w) >= at+6 && tags < 2 && (w[at] == 0x81 && w[at+1] == 0 || w[at] == 0x88 && w[at+1] == 0xa8) {
		at += 4
		tags++
	}
	p := w[at+2:]
	switch {
	case w[at] == 8 && w[at+1] == 6 && len(p) >= 28 && bytes.Equal(p[:6], []byte{0, 1, 8, 0, 6, 4}):
		sender := string(p[8:14])
		if sender != "\x00\x00\x00\x00\x00\x00" {
			copy(p[8:14], testNIC)
			if string(p[18:24]) == sender {
				copy(p[18:24], testNIC)
			}
		}
	case w[at] == 8 && w[at+1] == 0 && len(p) >= 20 && p[0]>>4 == 4 && p[9] == 17:
		ihl := int(p[0]&15) * 4
		if ihl < 20 || (p[6]&0x1f) != 0 || p[7] != 0 || len(p) < ihl+36 {
			break
		}
		u := p[ihl:]
		if u[2] != 0 || u[3] != 67 || u[8] != 1 || !bytes.Equal(u[8+24:8+28], []byte{0, 0, 0, 0}) || o.Super() {
			break
		}
		if u[18]&0x80 == 0 {
			u[18] |= 0x80
			if u[6]|u[7] != 0 && (o.Flags&frame.NeedsCsum == 0 || int(o.CsumStart) != at+2+ihl) {
				resum(u[6:], 0x8000)
			}
		}
	case w[at] == 0x86 && w[at+1] == 0xdd && len(p) >= 40 && p[0]>>4 == 6:
		l, err := frame.Parse(b)
		if err != nil || l.Proto != 58 || l.Fragment || l.L4 == 0 || l.End-l.L4 < 4 {
			break
		}
		m := w[l.L4:l.End]
		begin := map[byte]int{133: 8, 134: 16, 135: 24, 136: 24, 137: 40}[m[0]]
		kind := map[byte]byte{133: 1, 134: 1, 135: 1, 136: 2, 137: 2}[m[0]]
		partial := o.Flags&frame.NeedsCsum != 0 && int(o.CsumStart) == l.L4
		for x := begin; begin > 0 && x+8 <= len(m) && m[x+1] > 0 && x+8*int(m[x+1]) <= len(m); x += 8 * int(m[x+1]) {
			if m[x] == kind && m[x+1] == 1 && (m[0] != 137 || string(m[x+2:x+8]) == src) {
				for i := 0; i < 6; i += 2 {
					was, now := uint32(m[x+2+i])<<8|uint32(m[x+3+i]), uint32(testNIC[i])<<8|uint32(testNIC[i+1])
					if !partial {
						resum(m[2:], (now+0xffff-was)%0xffff)
					}
				}
				copy(m[x+2:], testNIC)
			}
		}
	}
	return w
}

// resum takes the checksum at b along with a change of the sum that it covers.
func resum(b []byte, by uint32) {
	sum := uint32(0xffff - (uint32(b[0])<<8 | uint32(b[1])))
	sum = (sum + by) % 0xffff
	sum = 0xffff - sum
	b[0], b[1] = byte(sum>>8), byte(sum)
}

// sameButZero compares, and takes the two zeros of a checksum for one.
func sameButZero(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] && !(a[i]^b[i] == 0xff && (a[i] == 0 || b[i] == 0)) {
			return false
		}
	}
	return true
}

func FuzzMACNAT(f *testing.F) {
	for _, b := range [][]byte{
		discover(),
		eth(testPeer, testInner, frame.EtherARP, arpBytes(1, testInner, "10.0.0.5", testInner, "10.0.0.9")...),
		ndBytes("fe80::1", "fe80::9", ndSolicit, "fe80::9", option(1, testInner)...),
		ndBytes("fe80::1", "ff02::1", ndRouterAdvert, "", option(1, testInner)...),
		ndBytes("fe80::1", "fe80::9", ndRedirect, "fe80::9", option(2, testInner)...),
		udpFrame("10.0.0.5", "10.0.0.9", 5, 6, []byte("hello")),
		eth(testPeer, testInner, 0x8100, 0, 50, 8, 0, 0x45),
	} {
		f.Add(b, uint16(50), false, false)
		f.Add(b, uint16(0), true, true)
	}
	r := newRig(f)
	f.Fuzz(func(t *testing.T, b []byte, tci uint16, tagged, partial bool) {
		if len(b) < frame.EthLen || len(b) > 3000 {
			return
		}
		var tag frame.Tag
		if tagged {
			tag = frame.Tag{TPID: frame.TPID8021Q, TCI: tci}
		}
		var o frame.Offload
		if partial {
			o = frame.Offload{Flags: frame.NeedsCsum, CsumStart: tci % uint16(len(b)), CsumOffset: 2}
		}
		b = bytes.Clone(b)
		if mac48(b[6:]) == mac48(testNIC) {
			b[6] ^= 4
		}
		_, got := r.leave(t, b, o, tag, uint32(b[11]))
		if got == nil {
			if len(b) < natSlotLen-frame.VnetLen-frame.TagLen {
				t.Fatal("refused")
			}
			return
		}
		if tagged {
			got = append(got[:12:12], got[16:]...)
		}
		if want := oracle(b, o); !sameButZero(got, want) && !(len(b) > 1 && tagged && twoTags(b)) {
			t.Fatalf("left as\n% x, want\n% x", got, want)
		}
		// What comes in changes nothing but the destination, and ARP's target.
		copy(b, testNIC)
		in, _ := r.come(b, tag)
		if !bytes.Equal(in[6:12], b[6:12]) || len(in) != len(b) {
			t.Fatalf("came in as % x", in)
		}
		for i := 12; i < len(b); i++ {
			if in[i] != b[i] && mac48(in) == mac48(testNIC) {
				t.Fatalf("byte %d changed for nobody", i)
			}
		}
	})
}

// twoTags says that with the tag outside there are more than macnat reads.
func twoTags(b []byte) bool {
	l, _ := frame.Parse(b)
	return l.Tags > 1
}
