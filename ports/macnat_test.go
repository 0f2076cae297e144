package ports

import (
	"bytes"
	"encoding/binary"
	"net"
	"net/netip"
	"slices"
	"testing"
	"unsafe"

	"vswitch/frame"
)

var (
	testNIC   = net.HardwareAddr{2, 0, 0, 0, 0, 0xaa}
	testInner = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	testPeer  = net.HardwareAddr{2, 0, 0, 0, 0, 9}
)

// eth puts an Ethernet header before payload.
func eth(dst, src net.HardwareAddr, etherType uint16, payload ...byte) []byte {
	b := append(append([]byte{}, dst...), src...)
	b = binary.BigEndian.AppendUint16(b, etherType)
	return append(b, payload...)
}

func arpBytes(op byte, sha net.HardwareAddr, spa string, tha net.HardwareAddr, tpa string) []byte {
	b := append([]byte{}, arpHead[:]...)
	b = append(b, 0, op)
	b = append(b, sha...)
	b = append(b, netip.MustParseAddr(spa).AsSlice()...)
	b = append(b, tha...)
	return append(b, netip.MustParseAddr(tpa).AsSlice()...)
}

// ip puts an IP header with a checksum of zero before payload.
func ip(src, dst string, proto byte, payload []byte) (etherType uint16, b []byte) {
	s, d := netip.MustParseAddr(src), netip.MustParseAddr(dst)
	if s.Is4() {
		b = make([]byte, 20)
		b[0], b[8], b[9] = 0x45, 64, proto
		binary.BigEndian.PutUint16(b[2:], uint16(20+len(payload)))
		copy(b[12:], s.AsSlice())
		copy(b[16:], d.AsSlice())
		binary.BigEndian.PutUint16(b[10:], ^frame.Sum(b, 0))
		return frame.EtherIPv4, append(b, payload...)
	}
	b = make([]byte, 40)
	b[0], b[6], b[7] = 0x60, proto, 255
	binary.BigEndian.PutUint16(b[4:], uint16(len(payload)))
	copy(b[8:], s.AsSlice())
	copy(b[24:], d.AsSlice())
	return frame.EtherIPv6, append(b, payload...)
}

// summed puts the right checksum at offset at of an L4 message.
func summed(src, dst string, proto byte, at int, m []byte) []byte {
	a := append(netip.MustParseAddr(src).AsSlice(), netip.MustParseAddr(dst).AsSlice()...)
	binary.BigEndian.PutUint16(m[at:], 0)
	binary.BigEndian.PutUint16(m[at:], ^frame.Sum(m, frame.Pseudo(a, proto, len(m))))
	return m
}

func option(kind byte, mac net.HardwareAddr) []byte { return append([]byte{kind, 1}, mac...) }

// ndBytes is a whole frame with a message of neighbour discovery from testInner.
func ndBytes(src, dst string, kind byte, target string, options ...byte) []byte {
	m := make([]byte, 8)
	m[0] = kind
	switch kind {
	case ndRouterAdvert:
		m = append(m, make([]byte, 8)...)
	case ndSolicit, ndAdvert:
		m = append(m, netip.MustParseAddr(target).AsSlice()...)
	case ndRedirect:
		m = append(m, netip.MustParseAddr(target).AsSlice()...)
		m = append(m, netip.MustParseAddr(target).AsSlice()...)
	}
	m = summed(src, dst, protoICMPv6, 2, append(m, options...))
	et, b := ip(src, dst, protoICMPv6, m)
	return eth(testPeer, testInner, et, b...)
}

func udpFrame(src, dst string, from, to uint16, payload []byte) []byte {
	u := make([]byte, 8)
	binary.BigEndian.PutUint16(u, from)
	binary.BigEndian.PutUint16(u[2:], to)
	binary.BigEndian.PutUint16(u[4:], uint16(8+len(payload)))
	u = summed(src, dst, frame.ProtoUDP, 6, append(u, payload...))
	et, b := ip(src, dst, frame.ProtoUDP, u)
	return eth(testPeer, testInner, et, b...)
}

func discover() []byte {
	boot := make([]byte, 300)
	boot[0], boot[1], boot[2] = 1, 1, 6
	copy(boot[28:], testInner)
	return udpFrame("0.0.0.0", "255.255.255.255", 68, 67, boot)
}

// rig is a macNAT without sockets.
type rig struct {
	*macNAT
	v    *frame.Vectors
	pool *frame.Pool
}

func newRig(t testing.TB) *rig {
	t.Helper()
	pool, err := frame.NewPool(frame.MaxBatch)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pool.Close() })
	return &rig{newMACNAT(testNIC), new(frame.Vectors), pool}
}

// leave returns what goes out for a frame: virtio-net header and bytes with the tag. It
// fails when the frame's own bytes changed.
func (r *rig) leave(t testing.TB, b []byte, o frame.Offload, tag frame.Tag, port uint32) (frame.Offload, []byte) {
	t.Helper()
	f := r.pool.Get()
	defer r.pool.Release(f)
	f.Set(b)
	f.Offload, f.Port = o, port
	if n := r.gather(3, r.v, []frame.Out{{F: f, Tag: tag}}); n != 1 {
		return o, nil
	}
	if !bytes.Equal(f.Bytes(), b) {
		t.Fatalf("the frame's own bytes changed:\n% x\n% x", b, f.Bytes())
	}
	var got []byte
	for _, iov := range r.v.Iovs[0][:r.v.Msgs[0].Hdr.Iovlen] {
		got = append(got, unsafe.Slice(iov.Base, iov.Len)...)
	}
	var vnet frame.Offload
	vnet.GetVnet(got)
	return vnet, got[frame.VnetLen:]
}

// come returns a frame that came in, as it goes on.
func (r *rig) come(b []byte, tag frame.Tag) (got []byte, fault frame.Fault) {
	f := r.pool.Get()
	defer r.pool.Release(f)
	f.Set(b)
	f.Tag = tag
	r.receive([]*frame.Frame{f})
	return bytes.Clone(f.Bytes()), f.Fault
}

func TestMACNATWaysOut(t *testing.T) {
	ll := "fe80::1"
	v4type, v4 := ip("10.0.0.5", "10.0.0.9", 1, []byte{8, 0, 0, 0})
	cases := map[string]struct {
		in    []byte
		macs  int // offsets where the inner MAC gave way, beside 6
		knows string
	}{
		"ipv4":             {eth(testPeer, testInner, v4type, v4...), 0, "10.0.0.5"},
		"arp request":      {eth(testPeer, testInner, frame.EtherARP, arpBytes(1, testInner, "10.0.0.5", make(net.HardwareAddr, 6), "10.0.0.9")...), 1, "10.0.0.5"},
		"arp announcement": {eth(testPeer, testInner, frame.EtherARP, arpBytes(2, testInner, "10.0.0.5", testInner, "10.0.0.5")...), 2, "10.0.0.5"},
		"arp probe":        {eth(testPeer, testInner, frame.EtherARP, arpBytes(1, testInner, "0.0.0.0", make(net.HardwareAddr, 6), "10.0.0.5")...), 1, "probe"},
		"solicitation":     {ndBytes(ll, "fe80::9", ndSolicit, "fe80::9", option(1, testInner)...), 1, ll},
		"advertisement":    {ndBytes(ll, "fe80::9", ndAdvert, "2001:db8::5", option(2, testInner)...), 1, "2001:db8::5"},
		"router":           {ndBytes(ll, "ff02::1", ndRouterAdvert, "", append([]byte{5, 1, 0, 0, 0, 0, 5, 220}, option(1, testInner)...)...), 1, ll},
		"router wanted":    {ndBytes(ll, "ff02::2", ndRouterSolicit, "", option(1, testInner)...), 1, ll},
		"redirect":         {ndBytes(ll, "fe80::9", ndRedirect, "2001:db8::7", option(2, testPeer)...), 0, ll},
		"no length":        {ndBytes(ll, "fe80::9", ndSolicit, "fe80::9", 1, 0, 0, 0, 0, 0, 0, 0), 0, ll},
		"dad":              {ndBytes("::", "ff02::1:ff00:5", ndSolicit, "2001:db8::5"), 0, ""},
	}
	for name, c := range cases {
		for _, tag := range []frame.Tag{{}, {TPID: frame.TPID8021Q, TCI: 50}} {
			r := newRig(t)
			_, got := r.leave(t, c.in, frame.Offload{}, tag, 1)
			if tag.Present() {
				if mac48(got[6:]) != mac48(testNIC) || binary.BigEndian.Uint32(got[12:]) != 0x8100<<16|50 {
					t.Errorf("%s: tagged, begins with % x", name, got[:18])
				}
				got = append(got[:12:12], got[16:]...)
			}
			want := bytes.Clone(c.in)
			copy(want[6:], testNIC)
			n := 0
			for i := 14; i+6 <= len(want); i++ {
				if bytes.Equal(want[i:i+6], testInner) {
					copy(want[i:], testNIC)
					n++
				}
			}
			if n != c.macs {
				t.Fatalf("%s: the case has %d inner addresses, not %d", name, n, c.macs)
			}
			if l, err := frame.Parse(want); err == nil && l.Proto == protoICMPv6 {
				m := want[l.L4:l.End]
				binary.BigEndian.PutUint16(m[2:], 0)
				binary.BigEndian.PutUint16(m[2:], ^frame.Sum(m, frame.Pseudo(want[22:54], protoICMPv6, len(m))))
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: left as\n% x, want\n% x", name, got, want)
			}
			if c.knows == "" {
				if n := r.table.len(); n != 0 {
					t.Errorf("%s: %d addresses were learned", name, n)
				}
				continue
			}
			addr, probe := c.knows, uint32(0)
			if addr == "probe" { // for 10.0.0.5, whose answer comes to nobody's address
				addr, probe = "10.0.0.5", natProbe
			}
			a := netip.MustParseAddr(addr).As16()
			if i, mac := r.table.find(key6(a[:], uint32(tag.VID())<<16|probe)); i == none || mac != mac48(testInner) {
				t.Errorf("%s: %s was not learned", name, c.knows)
			}
			if i, _ := r.table.find(key6(a[:], 7<<16)); i != none {
				t.Errorf("%s: %s was learned in every VLAN", name, c.knows)
			}
		}
	}
}

func TestMACNATDHCP(t *testing.T) {
	b := discover()
	want := bytes.Clone(b)
	copy(want[6:], testNIC)
	want[14+20+8+10] = 0x80
	r := newRig(t)
	open := bytes.Clone(want) // with an unfinished checksum the field stays as it is
	binary.BigEndian.PutUint16(want[14+20+6:], 0)
	u := want[14+20:]
	binary.BigEndian.PutUint16(u[6:], ^frame.Sum(u, frame.Pseudo(want[14+12:14+20], 17, len(u))))
	if _, got := r.leave(t, b, frame.Offload{}, frame.Tag{}, 1); !bytes.Equal(got, want) {
		t.Errorf("left as\n% x, want\n% x", got, want)
	}
	o := frame.Offload{Flags: frame.NeedsCsum, CsumStart: 34, CsumOffset: 6}
	vnet, got := r.leave(t, b, o, frame.Tag{}, 1)
	if vnet != o || !bytes.Equal(got, open) {
		t.Errorf("unfinished: left as %+v\n% x, want\n% x", vnet, got, open)
	}
	// chaddr stays, and so does a relay's request and a checksum that is not there.
	relayed := bytes.Clone(b)
	relayed[14+20+8+24] = 10
	if _, got := r.leave(t, relayed, frame.Offload{}, frame.Tag{}, 1); got[14+20+8+10] != 0 {
		t.Error("a relay's request was changed")
	}
	bare := bytes.Clone(b)
	binary.BigEndian.PutUint16(bare[14+20+6:], 0)
	if _, got := r.leave(t, bare, frame.Offload{}, frame.Tag{}, 1); got[14+20+8+10] != 0x80 || binary.BigEndian.Uint16(got[14+20+6:]) != 0 {
		t.Error("without a checksum: one came, or no flag")
	}
}

func TestMACNATWaysIn(t *testing.T) {
	r := newRig(t)
	tag := frame.Tag{TPID: frame.TPID8021Q, TCI: 3<<13 | 50}
	et4, p4 := ip("10.0.0.5", "10.0.0.9", 17, make([]byte, 8))
	et6, p6 := ip("2001:db8::5", "2001:db8::9", 17, make([]byte, 8))
	r.leave(t, eth(testPeer, testInner, et4, p4...), frame.Offload{}, tag, 1)
	r.leave(t, eth(testPeer, testInner, et6, p6...), frame.Offload{}, tag, 1)
	_, back4 := ip("10.0.0.9", "10.0.0.5", 17, make([]byte, 8))
	_, back6 := ip("2001:db8::9", "2001:db8::5", 17, make([]byte, 8))
	_, none4 := ip("10.0.0.9", "10.0.0.6", 17, make([]byte, 8))
	_, all4 := ip("10.0.0.9", "224.0.0.251", 17, make([]byte, 8))
	_, all6 := ip("fe80::9", "ff02::fb", 17, make([]byte, 8))
	reply := arpBytes(2, testPeer, "10.0.0.9", testNIC, "10.0.0.5")
	for name, c := range map[string]struct {
		in  []byte
		tag frame.Tag
		dst net.HardwareAddr
	}{
		"ipv4":            {eth(testNIC, testPeer, et4, back4...), tag, testInner},
		"ipv6":            {eth(testNIC, testPeer, et6, back6...), tag, testInner},
		"arp reply":       {eth(testNIC, testPeer, frame.EtherARP, reply...), tag, testInner},
		"probe":           {eth(testNIC, testPeer, frame.EtherARP, arpBytes(1, testPeer, "10.0.0.9", testNIC, "10.0.0.6")...), tag, net.HardwareAddr{255, 255, 255, 255, 255, 255}},
		"probe6":          {append(bytes.Clone(testNIC), ndBytes("2001:db8::9", "2001:db8::6:1", ndSolicit, "2001:db8::6:1")[6:]...), tag, net.HardwareAddr{0x33, 0x33, 0xff, 6, 0, 1}},
		"other VLAN":      {eth(testNIC, testPeer, et4, back4...), frame.Tag{}, testNIC},
		"nobody":          {eth(testNIC, testPeer, et4, none4...), tag, testNIC},
		"not to us":       {eth(testPeer, testPeer, et4, back4...), tag, testPeer},
		"other protocol":  {eth(testNIC, testPeer, 0x88b5, back4...), tag, testNIC},
		"cut":             {eth(testNIC, testPeer, et4, back4[:19]...), tag, testNIC},
		"group, unicast":  {eth(testNIC, testPeer, et4, all4...), tag, net.HardwareAddr{1, 0, 0x5e, 0, 0, 251}},
		"group6, unicast": {eth(testNIC, testPeer, et6, all6...), tag, net.HardwareAddr{0x33, 0x33, 0, 0, 0, 0xfb}},
	} {
		want := append(bytes.Clone(c.dst), c.in[6:]...)
		if name == "arp reply" {
			copy(want[14+18:], testInner)
		}
		if got, fault := r.come(c.in, c.tag); !bytes.Equal(got, want) || fault != frame.FaultNone {
			t.Errorf("%s: goes on as\n% x, want\n% x, fault %d", name, got, want, fault)
		}
	}
	want := []Sought{{VLAN: 50, Src: netip.MustParseAddr("10.0.0.9"), Dst: netip.MustParseAddr("10.0.0.6"), MAC: [6]byte(testPeer)}}
	sought := (&Packet{nat: r.macNAT}).Sought()
	sought = slices.DeleteFunc(sought, func(s Sought) bool { return s.VLAN != 50 }) // of "other VLAN"
	if !slices.Equal(sought, want) {
		t.Errorf("sought %v, want %v", sought, want)
	}
	if _, fault := r.come(eth(testPeer, testNIC, et4, back4...), tag); fault != frame.FaultReflected {
		t.Errorf("a reflected frame has fault %d", fault)
	}
	if r.unknown.Load() != 2 || r.other.Load() != 1 || r.reflected.Load() != 1 {
		t.Errorf("counted %d unknown, %d other, %d reflected", r.unknown.Load(), r.other.Load(), r.reflected.Load())
	}
}

// TestMACNATClaims: ARP moves an address, an IP packet does not, and nothing moves the
// host's.
func TestMACNATClaims(t *testing.T) {
	r := newRig(t)
	thief := net.HardwareAddr{2, 0, 0, 0, 0, 2}
	et, p := ip("10.0.0.5", "10.0.0.9", 17, make([]byte, 8))
	a := netip.MustParseAddr("10.0.0.5").As16()
	owner := func() uint64 { _, mac := r.table.find(key6(a[:], 0)); return mac &^ natStatic }
	r.leave(t, eth(testPeer, testInner, et, p...), frame.Offload{}, frame.Tag{}, 1)
	r.leave(t, eth(testPeer, thief, et, p...), frame.Offload{}, frame.Tag{}, 2)
	if owner() != mac48(testInner) {
		t.Error("an IP packet moved an address")
	}
	claim := eth(testPeer, thief, frame.EtherARP, arpBytes(1, thief, "10.0.0.5", thief, "10.0.0.5")...)
	r.leave(t, claim, frame.Offload{}, frame.Tag{}, 2)
	if owner() != mac48(thief) || r.table.moved.Load() != 1 {
		t.Error("ARP did not move an address")
	}
	p1 := &Packet{nat: r.macNAT}
	p1.SetMACNAT(testNIC, []HostAddress{{Addr: netip.MustParseAddr("10.0.0.5"), HostEnd: HostEnd{MAC: testNIC}}}, nil)
	r.leave(t, claim, frame.Offload{}, frame.Tag{}, 2)
	if owner() != mac48(testNIC) || r.refused.Load() != 1 {
		t.Errorf("the host's address moved; %d refused", r.refused.Load())
	}
	p1.SetMACNAT(testNIC, nil, nil)
	r.leave(t, claim, frame.Offload{}, frame.Tag{}, 2)
	if owner() != mac48(thief) {
		t.Error("an address that is the host's no more cannot be had")
	}
	if s, ok := p1.MACNAT(); !ok || s.Addresses != 1 || s.Refused != 1 || s.Moved != 1 {
		t.Errorf("%+v, %t", s, ok)
	}
}

func batchOf(t testing.TB, r *rig) []frame.Out {
	et, p := ip("10.0.0.5", "10.0.0.9", 17, make([]byte, 26))
	var out []frame.Out
	for i := range frame.MaxBatch {
		f := r.pool.Get()
		f.Set(eth(testPeer, net.HardwareAddr{2, 0, 0, 0, 1, byte(i)}, et, p...))
		f.Bytes()[14+15] = byte(i)
		out = append(out, frame.Out{F: f})
	}
	return out
}

func TestMACNATAllocatesNothing(t *testing.T) {
	r := newRig(t)
	out := batchOf(t, r)
	out[1].F.Set(discover())
	out[2].F.Set(ndBytes("fe80::1", "fe80::9", ndSolicit, "fe80::9", option(1, testInner)...))
	out[3].F.Set(eth(testPeer, testInner, frame.EtherARP, arpBytes(1, testInner, "10.0.0.5", testInner, "10.0.0.9")...))
	n := byte(0)
	if a := testing.AllocsPerRun(1000, func() {
		n++
		out[0].F.Bytes()[14+14] = n // a new address each time
		for i := 0; i < len(out); {
			i += r.gather(1, r.v, out[i:])
		}
		out[5].F.Bytes()[14+19] = n // and one that nobody has
		r.restore(out[5].F, mac48(testPeer))
		if n%16 == 0 {
			r.nSought = 0
		}
	}); a != 0 {
		t.Errorf("%v allocations a batch", a)
	}
}

// TestMACNATSharedBytes sends one frame out twice by a real device, plain and with a tag, amid
// more control frames than there are slots.
func TestMACNATSharedBytes(t *testing.T) {
	in(t, func(t *testing.T, v0, v1 Link) {
		a, err := OpenPacket("v0", v0.Index, PacketOptions{MACNAT: testNIC})
		if err != nil {
			t.Error(err)
			return
		}
		defer a.Close()
		b, err := OpenPacket("v1", v1.Index, PacketOptions{})
		if err != nil {
			t.Error(err)
			return
		}
		defer b.Close()
		pool, err := frame.NewPool(2 * frame.MaxBatch)
		if err != nil {
			t.Error(err)
			return
		}
		defer pool.Close()
		f := pool.Get()
		f.Set(eth(testPeer, testInner, frame.EtherARP, append(arpBytes(1, testInner, "10.0.0.5", testPeer, "10.0.0.9"), make([]byte, 18)...)...))
		var out []frame.Out
		for range natSlots {
			out = append(out, frame.Out{F: f}, frame.Out{F: f, Tag: frame.Tag{TPID: frame.TPID8021Q, TCI: 50}})
		}
		batch := frame.NewBatch(pool)
		want := append(bytes.Clone(testPeer), testNIC...)
		for range 50 {
			if n, errno := a.Send(0, new(frame.Vectors), out); n != len(out) {
				t.Errorf("sent %d: %v", n, errno)
				return
			}
			got := receive(b, batch, want)
			if got == nil {
				continue
			}
			if mac48(got.Bytes()[22:]) != mac48(testNIC) {
				t.Errorf("ARP left as % x", got.Bytes())
			}
			if mac48(f.Bytes()[22:]) != mac48(testInner) || mac48(f.Bytes()[6:]) != mac48(testInner) {
				t.Error("the shared bytes changed")
			}
			return
		}
		t.Error("nothing came")
	})
}

// BenchmarkMACNAT is what macnat costs a batch of 64 small frames, without system calls.
func BenchmarkMACNAT(b *testing.B) {
	r := newRig(b)
	out := batchOf(b, r)
	b.Run("describe/without", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.v.Gather(out)
		}
	})
	b.Run("describe/with", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r.gather(0, r.v, out)
		}
	})
	b.Run("receive/with", func(b *testing.B) {
		b.ReportAllocs()
		var frames []*frame.Frame
		for i := range out {
			f := out[i].F
			copy(f.Bytes()[14+16:14+20], f.Bytes()[14+12:14+16]) // to whom it is from
			frames = append(frames, f)
		}
		for b.Loop() {
			for _, f := range frames {
				put48(f.Bytes(), mac48(testNIC))
			}
			r.receive(frames)
		}
	})
}
