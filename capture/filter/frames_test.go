package filter

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"

	"vswitch/frame"
)

// sample is a frame as the wire had it, of which cut bytes were captured.
type sample struct {
	wire []byte
	cut  int
}

func (s sample) bytes() []byte { return s.wire[:s.cut] }

// beside returns the frame as the switch has it: its outermost tag out of the bytes.
// Frames without a tag, or cut within it, have none.
func (s sample) beside() (b []byte, tag frame.Tag, ok bool) {
	b = s.bytes()
	if len(b) < 16 {
		return nil, tag, false
	}
	tag = frame.Tag{TPID: binary.BigEndian.Uint16(b[12:]), TCI: binary.BigEndian.Uint16(b[14:])}
	if tag.TPID != frame.TPID8021Q && tag.TPID != frame.TPID8021AD {
		return nil, tag, false
	}
	return append(append([]byte(nil), b[:12]...), b[16:]...), tag, true
}

// The few values that frames and expressions are made of, so that they meet.
var (
	someMACs = []string{"02:00:00:00:00:01", "02:00:00:00:00:02", "ff:ff:ff:ff:ff:ff", "33:33:00:00:00:01",
		"01:80:c2:00:00:00", "01:00:5e:00:00:fb"}
	someIP4s = []string{"10.0.0.1", "10.0.0.2", "10.1.2.3", "192.168.1.1", "224.0.0.251", "255.255.255.255", "0.0.0.0"}
	someIP6s = []string{"2001:db8::1", "2001:db8::2", "2001:db8:0:1::1", "fe80::1", "ff02::1", "::1"}

	somePorts  = []uint16{22, 53, 80, 443, 6000, 6004, 6008, 40000}
	someVLANs  = []uint16{0, 1, 5, 100, 4095}
	someTPIDs  = []uint16{0x8100, 0x8100, 0x8100, 0x88a8, 0x9100}
	someProtos = []byte{6, 6, 6, 17, 17, 17, 132, 1, 2, 9, 47, 50, 51, 58, 89, 103, 112, 200}
)

func pick[T any](r *rand.Rand, list []T) T { return list[r.IntN(len(list))] }

func mac(r *rand.Rand) []byte {
	m, _ := parseMAC(pick(r, someMACs))
	return m[:]
}

func addr(r *rand.Rand, list []string) []byte {
	return netip.MustParseAddr(pick(r, list)).AsSlice()
}

func be16(n int) []byte { return []byte{byte(n >> 8), byte(n)} }

func concat(parts ...[]byte) []byte {
	var b []byte
	for _, p := range parts {
		b = append(b, p...)
	}
	return b
}

func random(r *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.IntN(256))
		if r.IntN(3) == 0 {
			b[i] = byte(r.IntN(4))
		}
	}
	return b
}

// transport makes what is behind an IP header.
func transport(r *rand.Rand, proto byte) []byte {
	ports := concat(be16(int(pick(r, somePorts))), be16(int(pick(r, somePorts))))
	rest := random(r, r.IntN(24))
	switch proto {
	case 6:
		flags := pick(r, []byte{0x02, 0x12, 0x10, 0x18, 0x04, 0x11, 0xc2})
		return concat(ports, random(r, 8), []byte{0x50, flags}, random(r, 6), rest)
	case 1:
		return concat([]byte{pick(r, []byte{0, 3, 5, 8, 11}), byte(r.IntN(3))}, random(r, 6), rest)
	case 58:
		return concat([]byte{pick(r, []byte{1, 2, 128, 129, 133, 135, 136}), 0}, random(r, 6), rest)
	}
	return concat(ports, random(r, 4), rest)
}

func ip4(r *rand.Rand) []byte {
	proto := pick(r, someProtos)
	options := random(r, 4*pick(r, []int{0, 0, 0, 1, 3, 10}))
	body := transport(r, proto)
	fragment := pick(r, []int{0, 0, 0x4000, 0x2000, 0x2000 | 100, 185, 1})
	return concat([]byte{0x45 + byte(len(options)/4), pick(r, []byte{0, 0xb8})},
		be16(20+len(options)+len(body)), random(r, 2), be16(fragment),
		[]byte{pick(r, []byte{1, 64, 255}), proto}, random(r, 2),
		addr(r, someIP4s), addr(r, someIP4s), options, body)
}

func ip6(r *rand.Rand) []byte {
	proto := pick(r, someProtos)
	body := transport(r, proto)
	for range r.IntN(3) {
		switch r.IntN(3) {
		case 0: // hop by hop
			body = concat([]byte{proto, 0}, random(r, 6), body)
			proto = 0
		case 1: // fragment
			body = concat([]byte{proto, 0}, be16(pick(r, []int{0, 1, 8, 9})), random(r, 4), body)
			proto = 44
		case 2: // destination options
			body = concat([]byte{proto, 1}, random(r, 14), body)
			proto = 60
		}
	}
	return concat([]byte{0x60, 0, 0, 0}, be16(len(body)), []byte{proto, 64},
		addr(r, someIP6s), addr(r, someIP6s), body)
}

// payload makes an EtherType or length, and what is behind it.
func payload(r *rand.Rand) []byte {
	withLength := func(llc ...[]byte) []byte {
		b := concat(llc...)
		return concat(be16(len(b)), b)
	}
	switch r.IntN(16) {
	case 0, 1, 2, 3, 4:
		return concat(be16(etherIP), ip4(r))
	case 5, 6, 7, 8:
		return concat(be16(etherIP6), ip6(r))
	case 9, 10:
		kind := pick(r, []int{etherARP, etherARP, etherRARP})
		return concat(be16(kind), be16(1), be16(etherIP), []byte{6, 4}, be16(1+r.IntN(4)),
			mac(r), addr(r, someIP4s), mac(r), addr(r, someIP4s))
	case 11:
		return withLength([]byte{0x42, 0x42, 3, 0, 0, 0, 0}, random(r, 30))
	case 12:
		sap := pick(r, []byte{0xe0, 0xf0, 0xfe, 0xff, 0x06, 0xaa})
		return withLength([]byte{sap, pick(r, []byte{sap, sap, 0x10}), 3}, []byte{pick(r, []byte{0x81, 0x82, 0x83})}, random(r, 20))
	case 13:
		snap := pick(r, []string{"aaaa03 000000 8137", "aaaa03 080007 809b", "aaaa03 000000 80f3", "aaaa03 00000c 2000", "aaaa03 000000 0800"})
		return withLength(unhex(snap), random(r, 20))
	case 14:
		kind := pick(r, []int{0x6001, 0x6002, 0x6003, 0x6004, 0x6007, 0x809b, 0x80f3, 0x8137, 0x88cc, 0x9000, 0x8809, 1500, 1501, 1536})
		return concat(be16(kind), random(r, 30))
	}
	return random(r, 2+r.IntN(40))
}

// samples makes n frames of all kinds, some of them cut.
func samples(r *rand.Rand, n int) []sample {
	list := make([]sample, n)
	for i := range list {
		b := concat(mac(r), mac(r))
		for range pick(r, []int{0, 0, 0, 0, 1, 1, 2, 3}) {
			tci := r.IntN(8)<<13 | int(pick(r, someVLANs))
			b = concat(b, be16(int(pick(r, someTPIDs))), be16(tci))
		}
		b = concat(b, payload(r))
		if r.IntN(2) == 0 && len(b) < 60 {
			b = append(b, make([]byte, 60-len(b))...)
		}
		cut := len(b)
		if r.IntN(5) == 0 {
			cut = 1 + r.IntN(len(b))
		}
		list[i] = sample{b, cut}
	}
	return list
}
