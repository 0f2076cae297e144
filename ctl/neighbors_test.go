package ctl

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/fdb"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

var (
	macA, macB = [6]byte{2, 0, 0, 0, 0, 0xa}, [6]byte{2, 0, 0, 0, 0, 0xb}
	ip4, ip4b  = netip.MustParseAddr("10.0.0.5"), netip.MustParseAddr("10.0.0.6")
	ip6, ip6b  = netip.MustParseAddr("fe80::5"), netip.MustParseAddr("2001:db8::6")
	broadcast  = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
)

func ether(dst, src [6]byte, etherType uint16, payload []byte) []byte {
	b := append(append([]byte{}, dst[:]...), src[:]...)
	return append(binary.BigEndian.AppendUint16(b, etherType), payload...)
}

func arp(op byte, mac [6]byte, sender, target netip.Addr) []byte {
	b := append(arpHead[:arpOp:arpOp], 0, op)
	b = append(append(b, mac[:]...), sender.AsSlice()...)
	b = append(append(b, make([]byte, 6)...), target.AsSlice()...)
	return ether(broadcast, mac, frame.EtherARP, b)
}

// nd is a neighbour solicitation or advertisement with options.
func nd(kind byte, src [6]byte, from, to, target netip.Addr, options ...byte) []byte {
	icmp := append([]byte{kind, 0, 0, 0, 0, 0, 0, 0}, target.AsSlice()...)
	icmp = append(icmp, options...)
	b := []byte{0x60, 0, 0, 0, 0, byte(len(icmp)), protoICMPv6, 255}
	b = append(append(append(b, from.AsSlice()...), to.AsSlice()...), icmp...)
	return ether([6]byte{0x33, 0x33, 0, 0, 0, 1}, src, frame.EtherIPv6, b)
}

func lla(kind byte, mac [6]byte) []byte { return append([]byte{kind, 1}, mac[:]...) }

func TestClaims(t *testing.T) {
	none := netip.IPv4Unspecified()
	none6 := netip.IPv6Unspecified()
	cut := arp(arpReply, macA, ip4, ip4b)
	hops := nd(ndAdvertisement, macA, ip6, ip6b, ip6, lla(2, macA)...)
	hops[frame.EthLen+ipv6Hops] = 64
	code := nd(ndAdvertisement, macA, ip6, ip6b, ip6, lla(2, macA)...)
	code[frame.EthLen+frame.IPv6Len+1] = 1
	tagged := arp(arpReply, macA, ip4, ip4b)
	tagged = append(append(append([]byte{}, tagged[:12]...), 0x81, 0, 0, 5), tagged[12:]...)
	for _, tc := range []struct {
		name string
		b    []byte
		want claim
		ok   bool
	}{
		{"request", arp(arpRequest, macA, ip4, ip4b), claim{ip4, macA, byRequest, false}, true},
		{"reply", arp(arpReply, macA, ip4, ip4b), claim{ip4, macA, byReply, false}, true},
		{"reply behind a tag", tagged, claim{ip4, macA, byReply, false}, true},
		{"gratuitous request", arp(arpRequest, macA, ip4, ip4), claim{ip4, macA, byAnnouncement, false}, true},
		{"gratuitous reply", arp(arpReply, macA, ip4, ip4), claim{ip4, macA, byAnnouncement, false}, true},
		{"probe, RFC 5227", arp(arpRequest, macA, none, ip4), claim{}, false},
		{"reverse request", arp(3, macA, ip4, ip4b), claim{}, false},
		{"of a group", arp(arpReply, broadcast, ip4, ip4b), claim{}, false},
		{"of no MAC", arp(arpReply, [6]byte{}, ip4, ip4b), claim{}, false},
		{"of 255.255.255.255", arp(arpReply, macA, netip.MustParseAddr("255.255.255.255"), ip4b), claim{}, false},
		{"of 224.0.0.1", arp(arpReply, macA, netip.MustParseAddr("224.0.0.1"), ip4b), claim{}, false},
		{"of 127.0.0.1", arp(arpReply, macA, netip.MustParseAddr("127.0.0.1"), ip4b), claim{}, false},
		{"cut", cut[:len(cut)-1], claim{}, false},
		{"solicitation", nd(ndSolicitation, macA, ip6, ip6b, ip6b, lla(1, macB)...), claim{ip6, macB, bySolicitation, false}, true},
		{"solicitation to a neighbour", nd(ndSolicitation, macA, ip6, ip6b, ip6b), claim{ip6, macA, bySolicitation, true}, true},
		{"is it free? RFC 4862", nd(ndSolicitation, macA, none6, ip6b, ip6b), claim{}, false},
		{"advertisement", nd(ndAdvertisement, macA, ip6, ip6b, ip6b, lla(2, macB)...), claim{ip6b, macB, byAdvertisement, false}, true},
		{"advertisement, other option", nd(ndAdvertisement, macA, ip6, ip6b, ip6b, append([]byte{14, 1, 0, 0, 0, 0, 0, 0}, lla(2, macB)...)...), claim{ip6b, macB, byAdvertisement, false}, true},
		{"advertisement without", nd(ndAdvertisement, macA, ip6, ip6b, ip6b), claim{ip6b, macA, byAdvertisement, true}, true},
		{"option of no length", nd(ndAdvertisement, macA, ip6, ip6b, ip6b, 2, 0, 0, 0, 0, 0, 0, 0), claim{}, false},
		{"option beyond the end", nd(ndAdvertisement, macA, ip6, ip6b, ip6b, 2, 2, 0, 0, 0, 0, 0, 0), claim{}, false},
		{"through a router", hops, claim{}, false},
		{"with a code", code, claim{}, false},
		{"IPv4", ether(macB, macA, frame.EtherIPv4, make([]byte, 40)), claim{}, false},
		{"nothing", nil, claim{}, false},
	} {
		c, ok := claimOf(tc.b)
		if ok != tc.ok || ok && c != tc.want {
			t.Errorf("%s: %+v, %v, want %+v, %v", tc.name, c, ok, tc.want, tc.ok)
		}
	}
}

// What a frame names lies in the frame, whatever else it says.
func FuzzNames(f *testing.F) {
	f.Add(arp(arpReply, macA, ip4, ip4b))
	f.Add(nd(ndAdvertisement, macA, ip6, ip6b, ip6b, lla(2, macB)...))
	f.Add(nd(ndSolicitation, macA, ip6, ip6b, ip6b, 1, 0))
	udp := []byte{0x45, 0, 0, 32, 0, 0, 0, 0, 64, frame.ProtoUDP, 0, 0, 10, 0, 0, 5, 10, 0, 0, 6, 0, 53, 0, 99, 0, 12, 0, 0, 1, 2, 3, 4}
	f.Add(ether(macB, macA, frame.EtherIPv4, udp))
	f.Add(ether(macB, macA, frame.TPID8021AD, append([]byte{0, 5, 0x81, 0, 0, 6, 8, 0}, udp...)))
	f.Fuzz(func(t *testing.T, b []byte) {
		n, ok := names(b)
		if ok != (len(b) >= frame.EthLen) {
			t.Fatalf("%d bytes: %v", len(b), ok)
		}
		n.protocol()
		if len(n.l4) > len(b) || n.ipSrc.IsValid() != n.ipDst.IsValid() || n.target.IsValid() && !n.target.Is6() {
			t.Fatalf("%+v", n)
		}
		if c, ok := claimOf(b); ok && (!isHost(c.ip) || c.mac[0]&1 != 0 || c.by == "") {
			t.Fatalf("%+v", c)
		}
		x := vswitch.Sighting{Data: b, WireLen: len(b), Tag: frame.Tag{TPID: frame.TPID8021Q, TCI: 5}}
		lineOf(&x)
		addressesOf(&x)
		flowOf(&x)
	})
}

func at(s int) time.Time { return time.Unix(1_800_000_000+int64(s), 0) }

func hearing(port string, second int) *vswitch.Sighting {
	return &vswitch.Sighting{Bridge: "br0", Port: port, VLAN: 10, Time: at(second)}
}

func TestNeighbors(t *testing.T) {
	var told []api.Event
	n := newNeighbors(func(e api.Event) { told = append(told, e) })
	all := func() []api.Neighbor { return n.list(func(neighborKey, *neighbor) bool { return true }) }
	n.hear(claim{ip4, macA, byReply, true}, hearing("p1", 0))
	if len(all()) != 0 {
		t.Errorf("a message without a MAC of its own bound %+v", all())
	}
	n.hear(claim{ip4, macA, byReply, false}, hearing("p1", 0))
	n.hear(claim{ip4, macA, byAdvertisement, true}, hearing("p1", 5))
	n.hear(claim{ip4, macB, byAdvertisement, true}, hearing("p2", 6)) // claims nothing
	if e := all(); len(e) != 1 || e[0].MAC != "02:00:00:00:00:0a" || !e[0].LastSeen.Equal(at(5)) || !e[0].FirstSeen.Equal(at(0)) || e[0].Conflict != nil {
		t.Errorf("%+v", e)
	}
	// Taken over long after: no conflict.
	n.hear(claim{ip4, macB, byRequest, false}, hearing("p2", 100))
	if e := all(); e[0].MAC != "02:00:00:00:00:0b" || e[0].Conflict != nil || len(told) != 0 {
		t.Errorf("%+v, told %v", e, told)
	}
	// And back within a minute: one, told once a minute however often.
	for i := range 20 {
		n.hear(claim{ip4, [][6]byte{macA, macB}[i%2], byReply, false}, hearing([]string{"p1", "p2"}[i%2], 101+i))
	}
	e := all()[0]
	if c := e.Conflict; c == nil || c.Count != 20 || c.MAC != "02:00:00:00:00:0a" || e.MAC != "02:00:00:00:00:0b" || c.Port != "p1" || !c.First.Equal(at(101)) || !c.Last.Equal(at(120)) {
		t.Errorf("%+v %+v", e, e.Conflict)
	}
	if len(told) != 1 || told[0].Kind != "address-conflict" || !strings.Contains(told[0].Message, "10.0.0.5 in VLAN 10 is claimed by 02:00:00:00:00:0a at p1, and was by 02:00:00:00:00:0b at p2 1s before") {
		t.Errorf("told %+v", told)
	}
	if macs := n.macsOf(ip4, "br0"); len(macs) != 2 || macs[0] != macB || len(n.macsOf(ip4, "br1")) != 0 || len(n.macsOf(ip4b, "")) != 0 {
		t.Errorf("%v", macs)
	}
	of := map[place]netip.Addr{{"br0", 10, macB}: {}, {"br0", 11, macB}: {}}
	if n.addresses(of); of[place{"br0", 10, macB}] != ip4 || of[place{"br0", 11, macB}].IsValid() {
		t.Errorf("%v", of)
	}
}

// However many addresses are claimed, and quarrelled about, the table and the events
// are bounded.
func TestNeighborsAreBounded(t *testing.T) {
	told := 0
	n := newNeighbors(func(api.Event) { told++ })
	for i := range maxNeighbors + 1000 {
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		n.hear(claim{ip, macA, byReply, false}, hearing("p1", 0))
		n.hear(claim{ip, macB, byReply, false}, hearing("p1", 0))
	}
	if len(n.table.entries) != maxNeighbors || told > conflictEvents {
		t.Errorf("%d entries, %d events in a second", len(n.table.entries), told)
	}
	sum := 0
	for _, order := range n.table.ports {
		sum += order.Len()
	}
	if sum != maxNeighbors {
		t.Errorf("%d entries of ports, of %d", sum, maxNeighbors)
	}
}

// Who floods the table pushes out his own; what had to give way is told.
func TestNeighborsOfOthersStay(t *testing.T) {
	n := newNeighbors(func(api.Event) {})
	quiet := netip.AddrFrom4([4]byte{10, 200, 0, 1})
	n.hear(claim{quiet, macB, byReply, false}, hearing("web", 0))
	if !n.forgot().IsZero() {
		t.Error("something gave way in an empty table")
	}
	for i := range 3 * maxNeighbors {
		ip := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		n.hear(claim{ip, macA, byReply, false}, hearing("flood", 1))
	}
	if macs := n.macsOf(quiet, ""); len(macs) != 1 || macs[0] != macB {
		t.Errorf("the quiet one is %v", macs)
	}
	if n.forgot().IsZero() {
		t.Error("nothing is said to have given way")
	}
	// One that moves is counted where it is.
	n.hear(claim{quiet, macB, byReply, false}, hearing("flood", 2))
	if n.table.ports[portKey{"br0", "web"}] != nil {
		t.Error("a port that has nothing is kept")
	}
}

// A clock that was set back makes no conflict.
func TestNeighborsAndTheClock(t *testing.T) {
	told := 0
	n := newNeighbors(func(api.Event) { told++ })
	ip := netip.AddrFrom4([4]byte{10, 0, 0, 1})
	n.hear(claim{ip, macA, byReply, false}, hearing("p1", 7200))
	n.hear(claim{ip, macB, byReply, false}, hearing("p1", 0))
	if told != 0 {
		t.Errorf("%d conflicts between claims two hours apart", told)
	}
	n.hear(claim{ip, macA, byReply, false}, hearing("p1", 1))
	if told != 1 {
		t.Errorf("%d conflicts are told, want 1", told)
	}
}

// The history is what a naive one would be, but for what was longest unheard of.
func TestMACHistory(t *testing.T) {
	h := newMACHistory()
	type life struct {
		port          string
		learned, gone int
		moves         []string
	}
	naive := map[place]*life{}
	r := rand.New(rand.NewPCG(1, 2))
	kinds := []fdb.EventKind{fdb.EventNew, fdb.EventMoved, fdb.EventMoved, fdb.EventAged, fdb.EventEvicted}
	for i := range 5000 {
		k := place{"br0", uint16(r.IntN(2)), [6]byte{2, 0, 0, 0, 0, byte(r.IntN(50))}}
		e := vswitch.Event{Kind: kinds[r.IntN(len(kinds))], Bridge: k.bridge, VLAN: k.vlan, MAC: k.mac, Port: fmt.Sprint("p", i), From: "q"}
		h.remember(e, at(i))
		l := naive[k]
		if l == nil {
			l = &life{learned: -1, gone: -1}
			naive[k] = l
		}
		l.port = e.Port
		switch e.Kind {
		case fdb.EventNew:
			l.learned, l.gone = i, -1
		case fdb.EventMoved:
			l.moves, l.gone = append(l.moves, e.Port), -1
		default:
			l.gone = i
		}
	}
	got := h.of(func(place) bool { return true })
	if len(got) != len(naive) {
		t.Fatalf("%d, want %d", len(got), len(naive))
	}
	for k, l := range naive {
		g := got[k]
		moves := l.moves[max(len(l.moves)-lastMoves, 0):]
		if g.port != l.port || l.learned >= 0 && !g.learned.Equal(at(l.learned)) || g.gone.IsZero() != (l.gone < 0) || len(g.moves) != len(moves) {
			t.Fatalf("%v: %+v, want %+v", k, g, l)
		}
		for i, m := range g.moves {
			if m.To != moves[i] || m.From != "q" {
				t.Fatalf("%v: moves %+v, want %q", k, g.moves, moves)
			}
		}
	}
}

// A full history forgets what it was told of least lately, and leaves no garbage.
func TestMACHistoryIsBounded(t *testing.T) {
	h := newMACHistory()
	mac := func(i int) [6]byte { return [6]byte{2, 0, byte(i >> 24), byte(i >> 16), byte(i >> 8), byte(i)} }
	learn := func(i int) {
		h.remember(vswitch.Event{Kind: fdb.EventNew, Bridge: "br0", MAC: mac(i), Port: "p"}, at(i))
	}
	known := func(i int) bool { return len(h.of(func(p place) bool { return p.mac == mac(i) })) == 1 }
	for i := range maxHistory {
		learn(i)
	}
	learn(0) // not the oldest any more
	learn(maxHistory)
	if !known(0) || known(1) || !known(2) || !known(maxHistory) || len(h.index) != maxHistory {
		t.Errorf("%v %v %v %v, %d", known(0), known(1), known(2), known(maxHistory), len(h.index))
	}
	i := maxHistory
	if n := testing.AllocsPerRun(10*maxHistory, func() { i++; learn(i) }); n != 0 {
		t.Errorf("%v allocations an address", n)
	}
	n := 0
	for s := h.oldest; s != none; s = h.slots[s].newer {
		n++
	}
	if n != maxHistory || len(h.index) != maxHistory || len(h.slots) != maxHistory {
		t.Errorf("%d in the list, %d in the index, %d slots", n, len(h.index), len(h.slots))
	}
}

// A worker never waits, and what is asked for is not older than the question.
func TestMACHistoryTake(t *testing.T) {
	h := newMACHistory()
	for i := range historyQueue + 10 {
		h.take(vswitch.Event{Kind: fdb.EventNew, Bridge: "br0", MAC: [6]byte{2, 0, 0, 0, byte(i >> 8), byte(i)}, Port: "p"})
	}
	if n := h.lost.Load(); n != 10 {
		t.Errorf("%d lost", n)
	}
	if n := len(h.of(func(place) bool { return true })); n != historyQueue {
		t.Errorf("%d remembered", n)
	}
	done := make(chan struct{})
	ended := make(chan struct{})
	go func() { h.run(done); close(ended) }() // ends with done
	h.take(vswitch.Event{Kind: fdb.EventMoved, Bridge: "br1", MAC: macA, Port: "p", From: "q"})
	for len(h.events) > 0 {
		time.Sleep(time.Millisecond)
	}
	close(done)
	<-ended
	if n := testing.AllocsPerRun(100, func() { h.take(vswitch.Event{Kind: fdb.EventNew}) }); n != 0 {
		t.Errorf("%v allocations an event", n)
	}
}

// BenchmarkTake is what a worker pays for a new MAC address: in a row, and in a flood
// that finds the queue full.
func BenchmarkTake(b *testing.B) {
	e := vswitch.Event{Kind: fdb.EventNew, Bridge: "br0", MAC: macA, Port: "veth1"}
	b.Run("full", func(b *testing.B) {
		h := newMACHistory()
		for range historyQueue {
			h.take(e)
		}
		b.ReportAllocs()
		for b.Loop() {
			h.take(e)
		}
	})
	b.Run("room", func(b *testing.B) {
		h := newMACHistory()
		done := make(chan struct{})
		defer close(done)
		go h.run(done) // ended by done
		b.ReportAllocs()
		for b.Loop() {
			h.take(e)
		}
	})
}

func BenchmarkHear(b *testing.B) {
	n := newNeighbors(func(api.Event) {})
	f := arp(arpReply, macA, ip4, ip4b)
	x := hearing("veth1", 0)
	b.ReportAllocs()
	for b.Loop() {
		if c, ok := claimOf(f); ok {
			n.hear(c, x)
		}
	}
}
