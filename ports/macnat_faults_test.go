package ports

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"

	"vswitch/frame"
)

var (
	testEvil   = net.HardwareAddr{2, 0, 0, 0, 0, 0xee}
	testOther  = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	testAll    = net.HardwareAddr{255, 255, 255, 255, 255, 255}
	testNobody = make(net.HardwareAddr, 6)
)

// from is a frame with another source.
func from(src net.HardwareAddr, b []byte) []byte {
	b = bytes.Clone(b)
	copy(b[6:], src)
	return b
}

func (r *rig) has(t *testing.T, addr string) uint64 {
	a := netip.MustParseAddr(addr).As16()
	_, mac := r.table.find(key6(a[:], 0))
	return mac &^ natStatic
}

// TestMACNATProbeAnswer has a container that probes for an address hear who has it: RFC 5227, the answer to a probe (sender IP 0) has target IP 0, and goes to the NIC's MAC.
func TestMACNATProbeAnswer(t *testing.T) {
	r := newRig(t)
	r.leave(t, eth(testAll, testInner, frame.EtherARP, arpBytes(1, testInner, "0.0.0.0", testNobody, "10.0.0.7")...), frame.Offload{}, frame.Tag{}, 1)
	got, _ := r.come(eth(testNIC, testPeer, frame.EtherARP, arpBytes(2, testPeer, "10.0.0.7", testNIC, "0.0.0.0")...), frame.Tag{})
	if mac48(got) == mac48(testNIC) {
		t.Errorf("the answer to a probe stays with the NIC: the container takes an address that is in use")
	}
	if mac48(got[32:]) == mac48(testNIC) {
		t.Errorf("the answer's target MAC is the NIC's (busybox compares it)")
	}
}

// TestMACNATForgedSource has a container write the NIC's MAC as its frame's source: ARP goes out as it is.
func TestMACNATForgedSource(t *testing.T) {
	r := newRig(t)
	(&Packet{nat: r.macNAT}).SetMACNAT(testNIC, []HostAddress{{Addr: netip.MustParseAddr("10.0.0.1"), HostEnd: HostEnd{MAC: testNIC}}}, nil)
	b := eth(testAll, testNIC, frame.EtherARP, arpBytes(2, testEvil, "10.0.0.1", testEvil, "10.0.0.1")...)
	_, got := r.leave(t, b, frame.Offload{}, frame.Tag{}, 1)
	if mac48(got[22:]) == mac48(testEvil) {
		t.Errorf("the LAN is told that the host's address is at %v; refused %d", testEvil, r.refused.Load())
	}
}

// TestMACNATRouterFails has a container that routes 10.9.0.7 end; another takes over.
func TestMACNATRouterFails(t *testing.T) {
	r := newRig(t)
	et, p := ip("10.9.0.7", "10.0.0.9", 17, make([]byte, 26))
	r.leave(t, eth(testPeer, testInner, et, p...), frame.Offload{}, frame.Tag{}, 1)
	for range 100000 {
		r.leave(t, eth(testPeer, testOther, et, p...), frame.Offload{}, frame.Tag{}, 2)
	}
	if r.has(t, "10.9.0.7") != mac48(testOther) {
		t.Errorf("100000 packets later the address is with who is gone")
	}
}

// TestMACNATHostOffers has the host's DHCP OFFER reach the host, for an address that a container had once.
func TestMACNATHostOffers(t *testing.T) {
	r := newRig(t)
	et, p := ip("10.0.0.5", "10.0.0.9", 17, make([]byte, 26))
	r.leave(t, eth(testPeer, testInner, et, p...), frame.Offload{}, frame.Tag{}, 1)
	boot := make([]byte, 300)
	boot[0], boot[1], boot[2] = 2, 1, 6
	copy(boot[28:], testNIC) // chaddr: the local port's client
	o := udpFrame("10.0.0.9", "10.0.0.5", 67, 68, boot)
	copy(o, testNIC)
	got, _ := r.come(from(testPeer, o), frame.Tag{})
	if mac48(got) != mac48(testNIC) {
		t.Errorf("the host's own OFFER goes to % x", got[:6])
	}
}

// TestMACNATHostRoutes has what the LAN routes by the host to 8.8.8.8 go to the host that
// forwards packets of 8.8.8.8, whatever one spoofed packet said before.
func TestMACNATHostRoutes(t *testing.T) {
	r := newRig(t)
	et, p := ip("8.8.8.8", "10.0.0.9", 17, make([]byte, 26))
	r.leave(t, eth(testPeer, testEvil, et, p...), frame.Offload{}, frame.Tag{}, 1)
	r.leave(t, eth(testPeer, testNIC, et, p...), frame.Offload{}, frame.Tag{}, 0) // the host forwards
	_, q := ip("10.0.0.9", "8.8.8.8", 17, make([]byte, 26))
	if got, _ := r.come(eth(testNIC, testPeer, et, q...), frame.Tag{}); mac48(got) != mac48(testNIC) {
		t.Errorf("goes to % x", got[:6])
	}
}

// TestMACNATOverride: RFC 4861, 7.2.5, without the override flag an advertisement moves nothing.
func TestMACNATOverride(t *testing.T) {
	r := newRig(t)
	na := func(mac net.HardwareAddr, flags byte) []byte {
		b := ndBytes("fe80::1", "ff02::1", ndAdvert, "2001:db8::5", option(2, mac)...)
		b[14+40+4] = flags
		m := b[54:]
		binary.BigEndian.PutUint16(m[2:], 0)
		binary.BigEndian.PutUint16(m[2:], ^frame.Sum(m, frame.Pseudo(b[22:54], protoICMPv6, len(m))))
		return from(mac, b)
	}
	r.leave(t, na(testInner, 0x20), frame.Offload{}, frame.Tag{}, 1)
	r.leave(t, na(testOther, 0x00), frame.Offload{}, frame.Tag{}, 2)
	if r.has(t, "2001:db8::5") != mac48(testInner) {
		t.Error("an advertisement without O moved an address")
	}
	// RFC 4861, 7.1.2: hop limit 255, or it is no ND.
	b := na(testOther, 0x20)
	b[14+7] = 64
	r.leave(t, b, frame.Offload{}, frame.Tag{}, 2)
	if r.has(t, "2001:db8::5") != mac48(testInner) {
		t.Error("an advertisement with hop limit 64 moved an address")
	}
}

// TestMACNATRedirect has a router in a container redirect to another container.
func TestMACNATRedirect(t *testing.T) {
	r := newRig(t)
	et, p := ip("2001:db8::7", "2001:db8::9", 17, make([]byte, 26))
	r.leave(t, eth(testPeer, testOther, et, p...), frame.Offload{}, frame.Tag{}, 2)
	_, got := r.leave(t, ndBytes("fe80::1", "fe80::9", ndRedirect, "2001:db8::7", option(2, testOther)...), frame.Offload{}, frame.Tag{}, 1)
	if bytes.Contains(got, testOther) {
		t.Error("the LAN is redirected to an inner MAC, which it cannot reach")
	}
}

// TestMACNATRefusedOnce counts one frame once.
func TestMACNATRefusedOnce(t *testing.T) {
	r := newRig(t)
	(&Packet{nat: r.macNAT}).SetMACNAT(testNIC, []HostAddress{{Addr: netip.MustParseAddr("2001:db8::1"), HostEnd: HostEnd{MAC: testNIC}}}, nil)
	r.leave(t, ndBytes("2001:db8::1", "ff02::1", ndAdvert, "2001:db8::1", option(2, testInner)...), frame.Offload{}, frame.Tag{}, 1)
	if n := r.refused.Load(); n != 1 {
		t.Errorf("one frame was refused %d times", n)
	}
}

// TestSegmentsKeepTheirPort: whose addresses a segment brings is its super-frame's port's.
func TestSegmentsKeepTheirPort(t *testing.T) {
	pool, err := frame.NewPool(4)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	old := pool.Get()
	old.Port = 77
	big := pool.Get()
	pool.Release(old)
	payload := make([]byte, 20+4000)
	payload[12] = 5 << 4
	et, p := ip("10.0.0.5", "10.0.0.9", 6, payload)
	big.Set(eth(testPeer, testInner, et, p...))
	big.Port = 5
	big.Offload = frame.Offload{Flags: frame.NeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: 1000, CsumStart: 34, CsumOffset: 16, HdrLen: 54}
	var s frame.Segmenter
	if err := s.Start(big); err != nil {
		t.Fatal(err)
	}
	seg := pool.Get()
	s.Next(seg)
	if seg.Port != 5 {
		t.Errorf("the segment's port is %d, not 5: learn gives its address to a stranger", seg.Port)
	}
}

// TestMACNATHostChanges learns and looks up while the host's addresses change.
func TestMACNATHostChanges(t *testing.T) {
	tab := newNATTable(64)
	steady := natKey{lo: 1 << 40}
	tab.setHost([]natKey{steady}, []uint64{77})
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(w), 1))
			for i := range 30000 {
				k := natKey{lo: uint64(r.IntN(300))}
				tab.learn(k, uint64(w+1), uint32(r.IntN(9)), i%3 > 0)
				if at, mac := tab.find(steady); at == none || mac != 77|natStatic {
					t.Errorf("not found: %d, %x", at, mac)
					return
				}
				if i%50 == 0 && w == 0 {
					keys, macs := []natKey{steady}, []uint64{77}
					for range r.IntN(40) {
						keys, macs = append(keys, natKey{lo: uint64(r.IntN(300))}), append(macs, uint64(1+r.IntN(3)))
					}
					tab.setHost(keys, macs)
				}
			}
		})
	}
	wg.Wait()
	tab.check(t.Fatalf)
}

// TestMACNATFair has an attacker with many addresses and many MACs push out none of 20 quiet neighbours.
func TestMACNATFair(t *testing.T) {
	tab := newNATTable(natAddresses)
	for i := range 20 {
		tab.learn(natKey{lo: uint64(i + 1)}, uint64(i+1), uint32(i), true)
	}
	for i := range 100000 {
		tab.learn(natKey{lo: uint64(1<<32 + i)}, uint64(1<<20+i), 99, true)
	}
	for i := range 20 {
		if at, _ := tab.find(natKey{lo: uint64(i + 1)}); at == none {
			t.Errorf("%d went", i)
		}
	}
}

// FuzzMACNATHostile takes frames with any offload state out and in again.
func FuzzMACNATHostile(f *testing.F) {
	f.Add(discover(), []byte{}, uint16(0), byte(0))
	f.Add(ndBytes("fe80::1", "fe80::9", ndSolicit, "fe80::9", option(1, testInner)...), option(1, testInner), uint16(9), byte(5))
	f.Add(eth(testNIC, testInner, frame.EtherARP, arpBytes(1, testInner, "10.0.0.5", testInner, "10.0.0.9")...), []byte{1}, uint16(3), byte(3))
	r := newRig(f)
	r.table = newNATTable(16)
	f.Fuzz(func(t *testing.T, b, more []byte, x uint16, how byte) {
		b = append(bytes.Clone(b), more...)
		if len(b) < frame.EthLen || len(b) > 9000 {
			return
		}
		var tag frame.Tag
		if how&1 != 0 {
			tag = frame.Tag{TPID: frame.TPID8021AD, TCI: x}
		}
		o := frame.Offload{Flags: how >> 1 & 3, GSOType: how >> 3 & 7, CsumStart: x % uint16(len(b)), CsumOffset: x >> 12, GSOSize: x, HdrLen: x}
		vnet, got := r.leave(t, b, o, tag, uint32(x))
		if got != nil {
			n := len(b)
			shift := uint16(0)
			if tag.Present() {
				n, shift = n+4, 4
			}
			if len(got) != n || mac48(got[6:]) != mac48(testNIC) || mac48(got) != mac48(b) {
				t.Fatalf("% x", got)
			}
			if vnet.Flags != o.Flags || vnet.GSOType != o.GSOType || vnet.GSOSize != o.GSOSize || vnet.CsumOffset != o.CsumOffset || o.Flags&1 != 0 && vnet.CsumStart != o.CsumStart+shift {
				t.Fatalf("%+v %+v", vnet, o)
			}
		}
		in := bytes.Clone(b)
		copy(in, testNIC)
		r.come(in, tag)
		if r.table.len() > 16 {
			t.Fatal("bound")
		}
		r.table.check(t.Fatalf)
	})
}

// TestMACNATSeeksInNobodysName: what comes from the LAN with an inner source must not make the
// switch ask in its name.
func TestMACNATSeeksInNobodysName(t *testing.T) {
	r := newRig(t)
	et, p := ip("10.0.0.5", "10.0.0.9", 17, make([]byte, 26))
	r.leave(t, eth(testPeer, testInner, et, p...), frame.Offload{}, frame.Tag{}, 1)
	_, q := ip("10.0.0.5", "10.0.0.77", 17, make([]byte, 26))
	r.come(eth(testNIC, testPeer, et, q...), frame.Tag{})
	if s := (&Packet{nat: r.macNAT}).Sought(); len(s) > 0 {
		t.Errorf("all containers will be told that %v is at %x", s[0].Src, s[0].MAC)
	}
}

// TestMACNATGate has what nobody has go to the host, by the interface that the host has in its VLAN: with
// a MAC address of its own the local port would not get what is for the NIC's.
func TestMACNATGate(t *testing.T) {
	r := newRig(t)
	(&Packet{nat: r.macNAT}).SetMACNAT(testNIC, nil, []HostEnd{{VLAN: 0, MAC: testOther}, {VLAN: 50, MAC: testEvil}, {VLAN: 0, MAC: testAll}})
	et, p := ip("10.0.0.9", "8.8.8.8", 17, make([]byte, 26))
	for vlan, want := range map[uint16]net.HardwareAddr{0: testOther, 50: testEvil, 60: testNIC} {
		tag := frame.Tag{}
		if vlan != 0 {
			tag = frame.Tag{TPID: frame.TPID8021Q, TCI: vlan}
		}
		f := r.pool.Get()
		f.Set(eth(testNIC, testPeer, et, p...))
		f.Tag = tag
		if r.receive([]*frame.Frame{f}); !f.Own {
			t.Errorf("VLAN %d: nobody's is flooded", vlan)
		}
		r.pool.Release(f)
		if got, _ := r.come(eth(testNIC, testPeer, et, p...), tag); mac48(got) != mac48(want) {
			t.Errorf("VLAN %d: goes to % x, want % x", vlan, got[:6], []byte(want))
		}
	}
}
