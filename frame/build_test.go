package frame

import (
	"encoding/binary"
	"math/rand/v2"
	"testing"
)

// A packet describes a frame for the tests to build. It is written the long way,
// field by field, so that it shares nothing with the code under test.
type packet struct {
	tags    []Tag // in the bytes
	v6      bool
	ext     []byte // IPv6 extension headers, ready made
	proto0  uint8  // the first of them
	udp     bool
	ipOpts  []byte
	tcpOpts []byte
	id      uint16
	frag    uint16
	seq     uint32
	flags   uint8
	payload []byte
	pad     int
}

var (
	macDst = []byte{2, 0, 0, 0, 0, 2}
	macSrc = []byte{2, 0, 0, 0, 0, 1}
	v4Addr = []byte{10, 0, 0, 1, 10, 0, 0, 2}
	v6Addr = []byte{
		0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1,
		0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2,
	}
)

// build returns the frame with the checksum partial, and its offload state with
// no GSO type.
func (p packet) build() ([]byte, Offload) {
	b := append([]byte{}, macDst...)
	b = append(b, macSrc...)
	for _, t := range p.tags {
		b = binary.BigEndian.AppendUint16(b, t.TPID)
		b = binary.BigEndian.AppendUint16(b, t.TCI)
	}
	proto, l4len, field := uint8(6), 20+len(p.tcpOpts), 16
	if p.udp {
		proto, l4len, field = 17, 8, 6
	}
	l4total := l4len + len(p.payload)
	addrs := v4Addr
	if p.v6 {
		addrs = v6Addr
		b = append(b, 0x86, 0xdd, 0x60, 0, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(len(p.ext)+l4total))
		next := proto
		if len(p.ext) > 0 {
			next = p.proto0
		}
		b = append(b, next, 64)
		b = append(b, v6Addr...)
		b = append(b, p.ext...)
	} else {
		b = append(b, 0x08, 0x00)
		ip := []byte{0x40 | uint8(5+len(p.ipOpts)/4), 0x02}
		ip = binary.BigEndian.AppendUint16(ip, uint16(20+len(p.ipOpts)+l4total))
		ip = binary.BigEndian.AppendUint16(ip, p.id)
		ip = binary.BigEndian.AppendUint16(ip, p.frag)
		ip = append(ip, 64, proto, 0, 0)
		ip = append(ip, v4Addr...)
		ip = append(ip, p.ipOpts...)
		binary.BigEndian.PutUint16(ip[10:], ^naiveSum(ip, 0))
		b = append(b, ip...)
	}
	l4 := len(b)
	b = append(b, 0x30, 0x39, 0x00, 0x50) // ports 12345, 80
	if p.udp {
		b = binary.BigEndian.AppendUint16(b, uint16(l4total))
		b = append(b, 0, 0)
	} else {
		b = binary.BigEndian.AppendUint32(b, p.seq)
		b = append(b, 0, 0, 0, 7, uint8(5+len(p.tcpOpts)/4)<<4, p.flags, 0x20, 0, 0, 0, 0, 0)
		b = append(b, p.tcpOpts...)
	}
	b = append(b, p.payload...)
	b = append(b, make([]byte, p.pad)...)
	ph := append([]byte{}, addrs...)
	ph = append(ph, 0, proto)
	ph = binary.BigEndian.AppendUint16(ph, uint16(l4total))
	binary.BigEndian.PutUint16(b[l4+field:], naiveSum(ph, 0))
	return b, Offload{Flags: NeedsCsum, CsumStart: uint16(l4), CsumOffset: uint16(field)}
}

// super returns the frame as a super-frame in f.
func (p packet) super(f *Frame, size uint16) {
	b, o := p.build()
	f.Set(b)
	f.Offload = o
	f.GSOSize = size
	f.HdrLen = uint16(len(b) - len(p.payload))
	switch {
	case p.udp:
		f.GSOType = GSOUDPL4
	case p.v6:
		f.GSOType = GSOTCPv6
	default:
		f.GSOType = GSOTCPv4
	}
}

// naiveSum is RFC 1071 as its section 1 words it.
func naiveSum(b []byte, initial uint32) uint16 {
	s := uint64(initial)
	for i := 0; i+1 < len(b); i += 2 {
		s += uint64(b[i])<<8 | uint64(b[i+1])
	}
	if len(b)%2 == 1 {
		s += uint64(b[len(b)-1]) << 8
	}
	for s > 0xffff {
		s = s>>16 + s&0xffff
	}
	return uint16(s)
}

func randomBytes(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// nops returns n bytes of IPv4 or TCP options that say nothing.
func nops(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = 1
	}
	return b
}

func testPool(t testing.TB, n int) *Pool {
	t.Helper()
	p, err := NewPool(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := p.Close(); err != nil {
			t.Error(err)
		}
	})
	return p
}

func noAllocs(t *testing.T, what string, f func()) {
	t.Helper()
	if n := testing.AllocsPerRun(100, f); n != 0 {
		t.Errorf("%s allocates %v times, want none", what, n)
	}
}
