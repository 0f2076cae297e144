package vswitch

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/capture"
	"vswitch/fdb"
	"vswitch/frame"
)

func TestLearnAndForward(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2, p3 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{}), b.port("br0", "p3", PortConfig{})
	p1.give(eth(mac(2), mac(1), 50)) // unknown: flooded
	b.run()
	if a, c := len(p2.take()), len(p3.take()); a != 1 || c != 1 {
		t.Fatalf("unknown destination: p2 got %d, p3 got %d, want 1 each", a, c)
	}
	p2.give(eth(mac(1), mac(2), 50)) // known: to p1 alone
	b.run()
	if a, c := len(p1.take()), len(p3.take()); a != 1 || c != 0 {
		t.Fatalf("known destination: p1 got %d, p3 got %d, want 1 and 0", a, c)
	}
	p2.give(eth(mac(2), mac(9), 50)) // behind the port it came from
	b.run()
	if n := b.drops("br0", "p2", DropSamePort); n != 1 {
		t.Fatalf("same-port drops: %d, want 1", n)
	}
	if c := b.balanced("br0"); c.Received != 3 || c.FloodCopies != 1 {
		t.Fatalf("received %d, flood copies %d, want 3 and 1", c.Received, c.FloodCopies)
	}
}

func TestReasonsAreComplete(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range Reasons() {
		if r.String() == "" || r.Help() == "" || seen[r.String()] {
			t.Errorf("reason %d: name %q, help %q: each needs its own", r, r, r.Help())
		}
		seen[r.String()] = true
	}
}

func TestVLANs(t *testing.T) {
	set := func(vids ...uint16) *VLANSet {
		s := new(VLANSet)
		for _, v := range vids {
			s.Add(v)
		}
		return s
	}
	tag := func(vid uint16) frame.Tag { return frame.Tag{TPID: frame.TPID8021Q, TCI: vid} }
	const pcp = 5 << 13
	for _, c := range []struct {
		name string
		vlan VLAN
		in   frame.Tag
		vid  uint16
		why  Reason
	}{
		{"access untagged", VLAN{Mode: Access, Tag: 10}, frame.Tag{}, 10, DropNone},
		{"access priority tag", VLAN{Mode: Access, Tag: 10}, frame.Tag{TPID: frame.TPID8021Q, TCI: pcp}, 10, DropNone},
		{"access tagged with its own", VLAN{Mode: Access, Tag: 10}, tag(10), 0, DropVLANTagged},
		{"trunk untagged", VLAN{}, frame.Tag{}, 0, DropNone},
		{"trunk tagged", VLAN{}, tag(7), 7, DropNone},
		{"trunk listed", VLAN{Trunks: set(7)}, tag(7), 7, DropNone},
		{"trunk not listed", VLAN{Trunks: set(7)}, tag(8), 0, DropVLANNotTrunked},
		{"trunk list without 0, untagged", VLAN{Trunks: set(7)}, frame.Tag{}, 0, DropVLANNotTrunked},
		{"native untagged frame", VLAN{Mode: NativeTagged, Tag: 10, Trunks: set(7)}, frame.Tag{}, 10, DropNone},
		{"native tagged with native", VLAN{Mode: NativeUntagged, Tag: 10, Trunks: set(7)}, tag(10), 10, DropNone},
		{"native not listed", VLAN{Mode: NativeUntagged, Tag: 10, Trunks: set(7)}, tag(8), 0, DropVLANNotTrunked},
	} {
		if vid, why := c.vlan.admit(c.in); vid != c.vid || why != c.why {
			t.Errorf("%s: VLAN %d, %q; want %d, %q", c.name, vid, why, c.vid, c.why)
		}
	}
	for _, c := range []struct {
		name string
		vlan VLAN
		vid  uint16
		in   frame.Tag
		out  frame.Tag
	}{
		{"access", VLAN{Mode: Access, Tag: 10}, 10, tag(10), frame.Tag{}},
		{"trunk", VLAN{}, 10, frame.Tag{}, tag(10)},
		{"trunk, VLAN 0 with priority", VLAN{}, 0, frame.Tag{TPID: frame.TPID8021Q, TCI: pcp}, frame.Tag{TPID: frame.TPID8021Q, TCI: pcp}},
		{"trunk keeps priority", VLAN{}, 10, frame.Tag{TPID: frame.TPID8021Q, TCI: pcp}, frame.Tag{TPID: frame.TPID8021Q, TCI: pcp | 10}},
		{"trunk keeps service tag", VLAN{}, 10, frame.Tag{TPID: frame.TPID8021AD, TCI: 10}, frame.Tag{TPID: frame.TPID8021AD, TCI: 10}},
		{"native tagged", VLAN{Mode: NativeTagged, Tag: 10}, 10, frame.Tag{}, tag(10)},
		{"native untagged", VLAN{Mode: NativeUntagged, Tag: 10}, 10, tag(10), frame.Tag{}},
		{"native untagged, another", VLAN{Mode: NativeUntagged, Tag: 10}, 11, tag(11), tag(11)},
	} {
		if out := c.vlan.egress(c.vid, c.in); out != c.out {
			t.Errorf("%s: leaves with %+v, want %+v", c.name, out, c.out)
		}
	}
}

// TestNothingIsAllocated drives whole batches through each way a frame can take.
func TestNothingIsAllocated(t *testing.T) {
	known := func(b *bench) { b.devs["p1"].give(eth(mac(2), mac(1), 50)) }
	for _, c := range []struct {
		name  string
		setup func(b *bench)
	}{
		{"unicast", known},
		{"flood", func(b *bench) { b.devs["p1"].give(eth(broadcast, mac(1), 50)) }},
		{"drop", func(b *bench) { b.devs["p1"].give(packet{data: make([]byte, 5)}) }},
		{"tagged", func(b *bench) {
			p := eth(mac(2), mac(1), 50)
			p.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: 5}
			b.devs["p1"].give(p)
		}},
		{"software segmentation", func(b *bench) {
			b.devs["p2"].offloads = false
			b.must(b.SetPort("p2", PortConfig{Finish: true}))
			b.devs["p1"].give(superFrame(mac(2), mac(1), 8000))
		}},
		{"mirror to a file", func(b *bench) {
			b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", All: true, OutVLAN: -1, Sink: &sink{discard: true}}}))
			known(b)
		}},
		{"recorded and watched", func(b *bench) {
			_, err := b.Watch(WatchConfig{In: true, Out: true})
			b.must(err)
			known(b)
		}},
		{"sampled", func(b *bench) {
			_, err := b.Watch(WatchConfig{In: true, Sample: 10})
			b.must(err)
			known(b)
		}},
		{"overheard", func(b *bench) {
			p := eth(broadcast, mac(1), 50)
			p.data[12], p.data[13] = 8, 6
			b.devs["p1"].give(p)
		}},
		{"a mirror that cuts", func(b *bench) {
			b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", All: true, OutPort: "p3", OutVLAN: -1, Snap: 20}}))
			known(b)
		}},
		{"a full device", func(b *bench) {
			b.devs["p2"].full(0)
			known(b)
		}},
		{"moving MAC", func(b *bench) {
			b.devs["p1"].give(eth(mac(2), mac(1), 50))
			b.devs["p2"].give(eth(mac(3), mac(1), 50))
			b.devs["p2"].again(true)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := newBench(t, Options{Buffers: 64, Recorder: DefaultRecorder(), Hear: func(Heard, *Sighting) {}})
			for _, p := range []string{"p1", "p2", "p3"} {
				b.port("br0", p, PortConfig{TxRing: 64}).drain()
			}
			b.devs["p2"].give(eth(mac(1), mac(2), 50))
			b.run()
			c.setup(b)
			b.devs["p1"].again(true)
			var allocs float64
			b.workers[0].call(func(w *worker) {
				turn := func() {
					for i := range w.slots {
						if q := w.slots[i].rx; q != nil {
							w.receive(q)
						}
					}
				}
				turn() // what is made at the first frame of a kind
				allocs = testing.AllocsPerRun(100, turn)
			})
			b.devs["p1"].again(false)
			b.devs["p2"].again(false)
			if allocs != 0 {
				t.Errorf("%.1f allocations a batch of %d frames", allocs, frame.MaxBatch)
			}
		})
	}
}

// superFrame makes a TCPv4 super-frame with a payload of n bytes.
func superFrame(dst, src [6]byte, n int) packet {
	p := eth(dst, src, 40+n)
	b := p.data
	b[12], b[13] = 8, 0
	ip, tcp := b[14:34], b[34:54]
	ip[0] = 0x45
	total := 40 + n
	ip[2], ip[3] = byte(total>>8), byte(total)
	ip[8], ip[9] = 64, 6
	copy(ip[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
	tcp[12] = 5 << 4
	sum := frame.Sum(nil, frame.Pseudo(ip[12:20], 6, 20+n))
	tcp[16], tcp[17] = byte(sum>>8), byte(sum)
	p.offload = frame.Offload{Flags: frame.NeedsCsum, GSOType: frame.GSOTCPv4, GSOSize: 1448, CsumStart: 34, CsumOffset: 16, HdrLen: 54}
	return p
}

// sink counts what it is given.
type sink struct {
	mu      sync.Mutex
	packets []capture.Packet
	closed  bool
	discard bool
	block   chan struct{} // Write waits until it is closed
}

func (s *sink) Write(p *capture.Packet) {
	if s.block != nil {
		<-s.block
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.discard && len(s.packets) < 1000 {
		c := *p
		c.Data = bytes.Clone(p.Data)
		s.packets = append(s.packets, c)
	}
}
func (s *sink) Flush()       {}
func (s *sink) Close() error { s.closed = true; return nil }

func TestSuperFrameStaysWhole(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{})
	whole := superFrame(mac(2), mac(1), 60000)
	p1.give(whole)
	b.run()
	got := p2.take()
	if len(got) != 1 || !bytes.Equal(got[0].data, whole.data) || got[0].offload != whole.offload {
		t.Fatalf("a super-frame did not cross untouched: %d frames", len(got))
	}
	b.must(b.SetPort("p2", PortConfig{Finish: true}))
	p1.give(whole)
	b.run()
	if got = p2.take(); len(got) != 42 {
		t.Fatalf("finished in software: %d segments, want 42", len(got))
	}
	for _, p := range got {
		if p.offload != (frame.Offload{}) || len(p.data) > 1514 {
			t.Fatalf("a segment has %d bytes and offload state %+v", len(p.data), p.offload)
		}
	}
	b.SetLink("p2", true, 1400)
	p1.give(whole)
	b.run()
	if n := b.drops("br0", "p2", DropMTU); n != 1 {
		t.Fatalf("segments of 1488 bytes to a port with MTU 1400: %d dropped, want 1 super-frame", n)
	}
	b.balanced("br0")
}

func TestTransmitRing(t *testing.T) {
	b := newBench(t, Options{Buffers: 1000})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{TxRing: 100})
	free := b.free()
	p2.full(10)
	for i := range 200 {
		p := eth(broadcast, mac(1), 50)
		p.data[20] = byte(i)
		p1.give(p)
	}
	b.run()
	if n := b.drops("br0", "p2", DropRingFull); n != 90 {
		t.Fatalf("ring of 100, device took 10 of 200: %d dropped, want 90", n)
	}
	p2.full(-1)
	b.drain()
	got := p2.take()
	if len(got) != 110 {
		t.Fatalf("%d frames sent, want 110", len(got))
	}
	for i, p := range got {
		if p.data[20] != byte(i) {
			t.Fatalf("frame %d is number %d: order lost", i, p.data[20])
		}
	}
	if n := b.free(); n != free {
		t.Fatalf("%d buffers free after the ring drained, %d before", n, free)
	}
	b.balanced("br0")

	// A port that goes takes its ring along.
	p2.full(0)
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	b.must(b.Detach("p2"))
	if n := b.drops("br0", "p2", DropPortRemoved); n != 1 {
		t.Fatalf("port-removed drops: %d, want 1", n)
	}
	if n := b.free(); n != free {
		t.Fatalf("%d buffers free after the port went, %d before", n, free)
	}
	b.balanced("br0")
}

// drain lets the worker send what waits in transmit rings, as EPOLLOUT would.
func (b *bench) drain() {
	b.workers[0].call(func(w *worker) {
		for _, q := range w.tx {
			if q != nil {
				w.drain(q)
			}
		}
	})
}

// TestSlowPortLeavesBuffers shows that a port that does not drain takes no more
// than its share of the buffers, so that others can have frames finished.
func TestSlowPortLeavesBuffers(t *testing.T) {
	b := newBench(t, Options{Buffers: 300})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{TxRing: 1000})
	p3 := b.port("br0", "p3", PortConfig{Finish: true})
	free := b.free()
	p2.full(0)
	for range 1000 {
		p1.give(eth(broadcast, mac(1), 50))
	}
	b.run()
	if n, left := b.drops("br0", "p2", DropRingFull), b.free(); n < 700 || left < 90 {
		t.Fatalf("300 buffers, 1000 frames for a port that takes none: %d dropped, %d buffers left", n, left)
	}
	p3.take()
	p1.give(superFrame(broadcast, mac(1), 60000))
	b.run()
	if n := len(p3.take()); n != 42 {
		t.Fatalf("a port that needs segments got %d beside a slow one, want 42", n)
	}
	p2.full(-1)
	b.drain()
	if n := b.free(); n != free {
		t.Fatalf("%d buffers free afterwards, %d before", n, free)
	}
	b.balanced("br0")
}

// TestComesUpUnderTraffic brings ports up while a worker forwards by an older
// snapshot, in which they have no device, or no peer.
func TestComesUpUnderTraffic(t *testing.T) {
	b := newBench(t, Options{Workers: 2})
	b.must(b.AddBridge("br1", BridgeConfig{FDB: fdb.DefaultLimits()}))
	for i := range 2 {
		d := b.port("br0", fmt.Sprintf("p%d", i), PortConfig{})
		d.drain()
		for range 64 {
			d.give(eth(broadcast, mac(byte(i)), 50))
		}
		d.again(true)
	}
	b.must(b.AddPort("br0", "a", PortConfig{Patch: true, Peer: "b"}))
	b.must(b.AddPort("br0", "late", PortConfig{}))
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		b.must(b.AddPort("br1", "b", PortConfig{Patch: true, Peer: "a"}))
		b.must(b.DelPort("b"))
		d := newFake(t)
		d.drain()
		b.must(b.Attach("late", d, true, 1500))
		b.must(b.Detach("late"))
	}
	b.devs["p0"].again(false)
	b.devs["p1"].again(false)
	b.run()
	b.balanced("br0")
	b.balanced("br1")
}

// TestPatchLoopsAreBounded cables two bridges many times over: without a bound on
// all copies together one frame becomes millions.
// TestAttachUp: what answers the first frame of a new device goes out by it.
func TestAttachUp(t *testing.T) {
	b := newBench(t, Options{})
	p1, late := b.port("br0", "p1", PortConfig{}), newFake(t)
	b.must(b.AddPort("br0", "late", PortConfig{}))
	late.give(eth(mac(1), mac(2), 60))
	b.must(b.Attach("late", late, true, 1500))
	b.run()
	if got := p1.take(); len(got) != 1 {
		t.Fatalf("p1 got %d frames, want 1", len(got))
	}
	p1.give(eth(mac(2), mac(1), 60))
	b.run()
	if got := late.take(); len(got) != 1 {
		t.Errorf("late got %d frames, want the answer", len(got))
	}
	b.balanced("br0")
}

func TestPatchLoopsAreBounded(t *testing.T) {
	b := newBench(t, Options{})
	b.must(b.AddBridge("br1", BridgeConfig{FDB: fdb.DefaultLimits()}))
	p1 := b.port("br0", "p1", PortConfig{})
	for i := range 8 {
		x, y := fmt.Sprintf("x%d", i), fmt.Sprintf("y%d", i)
		b.must(b.AddPort("br0", x, PortConfig{Patch: true, Peer: y}))
		b.must(b.AddPort("br1", y, PortConfig{Patch: true, Peer: x}))
	}
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	c0, c1 := b.balanced("br0"), b.balanced("br1")
	if crossings := c0.Received + c1.Received - 1; crossings != maxCrossings {
		t.Fatalf("one frame went through %d patches, want %d", crossings, maxCrossings)
	}
}

func TestDownForgets(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2, p3 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{}), b.port("br0", "p3", PortConfig{})
	p2.give(eth(broadcast, mac(2), 50))
	b.run()
	b.SetLink("p2", false, 1500)
	p3.take()
	p1.give(eth(mac(2), mac(1), 50))
	b.run()
	if n := len(p3.take()); n != 1 {
		t.Fatalf("a MAC whose port went down is searched for on other ports: %d frames, want 1", n)
	}
	// What waited in the socket teaches nothing either.
	p2.give(eth(broadcast, mac(2), 50))
	b.run()
	p3.take()
	p1.give(eth(mac(2), mac(1), 50))
	b.run()
	if n := len(p3.take()); n != 1 {
		t.Fatalf("a MAC heard from a port that is down is searched for on others: %d frames, want 1", n)
	}
}

// TestMirrorPortByName shows that a mirror's output port is who has the name now,
// in the mirror's own bridge, and nobody else who was given its number.
func TestMirrorPortByName(t *testing.T) {
	b := newBench(t, Options{})
	b.must(b.AddBridge("br1", BridgeConfig{FDB: fdb.DefaultLimits()}))
	p1, _ := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{})
	b.port("br0", "span", PortConfig{})
	b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", All: true, OutPort: "span", OutVLAN: -1}}))
	b.must(b.DelPort("span"))
	other := b.port("br1", "other", PortConfig{})
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	if n := len(other.take()); n != 0 {
		t.Fatalf("a port of another bridge got %d mirrored frames", n)
	}
	span := b.port("br0", "span", PortConfig{})
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	if n := len(span.take()); n != 1 {
		t.Fatalf("the mirror's port, made anew, got %d frames, want 1", n)
	}
	b.balanced("br0")
	b.balanced("br1")
}

// TestFloodVLANs: copies of both directions of a conversation come by one port.
func TestFloodVLANs(t *testing.T) {
	b := newBench(t, Options{})
	rspan := new(VLANSet)
	rspan.Add(99)
	b.must(b.SetBridge("br0", BridgeConfig{FDB: fdb.DefaultLimits(), FloodVLANs: rspan}))
	trunk := b.port("br0", "trunk", PortConfig{})
	collector := b.port("br0", "collector", PortConfig{VLAN: VLAN{Mode: Access, Tag: 99}})
	for _, p := range []packet{eth(mac(2), mac(1), 50), eth(mac(1), mac(2), 50), eth(mac(2), mac(1), 50)} {
		p.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: 99}
		trunk.give(p)
	}
	b.run()
	if n := len(collector.take()); n != 3 {
		t.Fatalf("the collector got %d of 3 copies", n)
	}
}

// TestOwnIsNotFlooded: what a port with macnat has for its own MAC address is for who is known to have that, not
// for all containers.
func TestOwnIsNotFlooded(t *testing.T) {
	b := newBench(t, Options{})
	uplink, c1, c2 := b.port("br0", "uplink", PortConfig{}), b.port("br0", "c1", PortConfig{}), b.port("br0", "c2", PortConfig{})
	p := eth(mac(2), mac(1), 50)
	p.own = true
	uplink.give(p)
	b.run()
	if n := len(c1.take()) + len(c2.take()); n != 0 || b.drops("br0", "uplink", DropNobody) != 1 {
		t.Errorf("containers got %d frames; %d were dropped", n, b.drops("br0", "uplink", DropNobody))
	}
	c2.give(eth(mac(1), mac(2), 50))
	b.run()
	uplink.give(p)
	b.run()
	if n1, n2 := len(c1.take()), len(c2.take()); n1 != 0 || n2 != 1 {
		t.Errorf("who has the MAC address got %d frames, another %d", n2, n1)
	}
	b.balanced("br0")
}

func TestSendErrors(t *testing.T) {
	for errno, why := range map[unix.Errno]Reason{
		unix.EMSGSIZE: DropMTU, unix.ENETDOWN: DropPortDown, unix.ENOBUFS: DropQueueFull,
		unix.EINVAL: DropRejected, unix.EPERM: DropDenied, unix.EPROTO: DropControl, unix.EHOSTUNREACH: DropUnreachable,
		unix.ENETUNREACH: DropUnreachable, unix.ENOTTY: DropSendError,
	} {
		b := newBench(t, Options{})
		p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{})
		p2.errno = errno
		p1.give(eth(broadcast, mac(1), 50), eth(broadcast, mac(1), 50))
		b.run()
		if n := b.drops("br0", "p2", why); n != 2 {
			t.Errorf("%v: %d drops with reason %s, want 2", errno, n, why)
		}
		b.balanced("br0")
	}
}

func TestPatch(t *testing.T) {
	b := newBench(t, Options{})
	b.must(b.AddBridge("br1", BridgeConfig{FDB: fdb.DefaultLimits()}))
	p1 := b.port("br0", "p1", PortConfig{VLAN: VLAN{Mode: Access, Tag: 10}})
	p2 := b.port("br1", "p2", PortConfig{})
	b.must(b.AddPort("br0", "x0", PortConfig{Patch: true, Peer: "x1"}))
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	if n := b.drops("br0", "p1", DropNoPort); n != 1 {
		t.Fatalf("a patch port without its peer: %d frames without output, want 1", n)
	}
	b.must(b.AddPort("br1", "x1", PortConfig{Patch: true, Peer: "x0"}))
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	if got := p2.take(); len(got) != 1 || got[0].tag.VID() != 10 {
		t.Fatalf("through the patch came %v, want one frame in VLAN 10", got)
	}
	b.balanced("br0")
	b.balanced("br1")

	// A second patch between the same bridges is a loop.
	b.must(b.AddPort("br0", "y0", PortConfig{Patch: true, Peer: "y1"}))
	b.must(b.AddPort("br1", "y1", PortConfig{Patch: true, Peer: "y0"}))
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	c0, c1 := b.balanced("br0"), b.balanced("br1")
	if n := c0.Drops[DropPatchLoop].Count + c1.Drops[DropPatchLoop].Count; n == 0 {
		t.Fatal("a loop of patches dropped nothing")
	}
	b.must(b.DelPort("y0"))
	b.must(b.DelPort("x0"))
	p1.take()
	p2.take()
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	if got := p2.take(); len(got) != 0 {
		t.Fatal("a removed patch still forwards")
	}
	b.balanced("br0")
}

func TestMirrors(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2, span := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{}), b.port("br0", "span", PortConfig{})
	file := &sink{}
	b.must(b.SetMirrors("br0", []MirrorConfig{
		{Name: "span", All: true, OutPort: "span", OutVLAN: -1},
		{Name: "file", Dst: []string{"p2"}, OutVLAN: -1, Sink: file, Snap: 20},
	}))
	p := superFrame(broadcast, mac(1), 3000)
	p.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: 7}
	p1.give(p)
	span.give(eth(broadcast, mac(9), 50)) // the collector's port is for the collector
	b.run()
	if got := span.take(); len(got) != 1 || got[0].tag.VID() != 7 {
		t.Fatalf("the span port got %d frames, want 1 in VLAN 7", len(got))
	}
	if n := len(p2.take()); n != 1 {
		t.Fatalf("p2 got %d frames, want 1", n)
	}
	if n := b.drops("br0", "span", DropMirrorPort); n != 1 {
		t.Fatalf("frames from a mirror's port: %d dropped, want 1", n)
	}
	b.must(b.SetMirrors("br0", nil)) // writes what is left
	b.writing.Wait()
	if len(file.packets) != 1 || !file.closed {
		t.Fatalf("the file got %d packets, closed %t", len(file.packets), file.closed)
	}
	if c := file.packets[0]; c.Interface.Name != "p2" || c.Direction != capture.Outbound || c.OrigLen != len(p.data)+4 || len(c.Data) != 20 ||
		c.Data[12] != 0x81 || c.Data[15] != 7 {
		t.Fatalf("captured %+v", c)
	}
	b.balanced("br0")
}

// TestSlowDisk shows that a capture file that takes nothing costs captured frames
// alone.
func TestSlowDisk(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{})
	p2.drain()
	slow := &sink{block: make(chan struct{})}
	b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", Src: []string{"p1"}, OutVLAN: -1, Sink: slow}}))
	const n = 300
	for range n {
		p1.give(superFrame(broadcast, mac(1), 60000))
	}
	b.run()
	c := b.balanced("br0")
	st, _ := b.Bridge("br0")
	if lost := c.Drops[DropCaptureRing].Count; lost == 0 || lost != st.Mirrors[0].Missed {
		t.Fatalf("%d captured frames dropped, the mirror says %d", lost, st.Mirrors[0].Missed)
	}
	for _, p := range st.Ports {
		if p.Name == "p2" && p.Counters.TxFrames != n {
			t.Fatalf("%d frames forwarded, want %d", p.Counters.TxFrames, n)
		}
	}
	close(slow.block)
}

// TestRandomTraffic throws everything at a switch at once and holds it to its
// sums: every frame is accounted for, and every buffer comes back.
func TestRandomTraffic(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		b := newBench(t, Options{Buffers: 64 + r.IntN(100)})
		b.must(b.AddBridge("br1", BridgeConfig{FDB: fdb.Limits{Size: 1 + r.IntN(5), Aging: 1}}))
		free := b.free()
		var names []string
		for i := range 6 {
			name := fmt.Sprintf("p%d", i)
			names = append(names, name)
			c := PortConfig{TxRing: 1 + r.IntN(80), Finish: r.IntN(3) == 0, VLAN: VLAN{Mode: VLANMode(r.IntN(4)), Tag: uint16(r.IntN(3))}}
			d := b.port([]string{"br0", "br1"}[i%2], name, c)
			d.offloads = r.IntN(3) > 0
		}
		b.must(b.AddPort("br0", "x0", PortConfig{Patch: true, Peer: "x1"}))
		b.must(b.AddPort("br1", "x1", PortConfig{Patch: true, Peer: "x0"}))
		b.must(b.SetMirrors("br0", []MirrorConfig{
			{Name: "a", All: true, OutPort: "p4", OutVLAN: -1},
			{Name: "b", Src: []string{"p0"}, OutVLAN: 1},
			{Name: "c", Dst: []string{"p2", "x0"}, OutVLAN: -1, Sink: &sink{}},
			{Name: "d", All: true, OutVLAN: 2, Snap: 100},
		}))
		for range 60 {
			name := names[r.IntN(len(names))]
			d := b.devs[name]
			d.mu.Lock()
			d.room, d.errno = r.IntN(100)-1, 0
			if r.IntN(10) == 0 {
				d.errno = unix.ENOBUFS
			}
			d.mu.Unlock()
			b.SetLink(name, r.IntN(5) > 0, 600+r.IntN(9000))
			for range r.IntN(100) {
				p := eth(mac(byte(r.IntN(8))), mac(byte(r.IntN(8))), r.IntN(2000))
				switch r.IntN(6) {
				case 0:
					p = superFrame(mac(byte(r.IntN(8))), mac(byte(r.IntN(8))), r.IntN(40000))
				case 1:
					p.data = p.data[:r.IntN(len(p.data))]
				case 2:
					copy(p.data, broadcast[:])
				case 3:
					p.offload = frame.Offload{Flags: uint8(r.Uint32()), GSOType: uint8(r.Uint32()), GSOSize: uint16(r.Uint32()), CsumStart: uint16(r.Uint32()), CsumOffset: uint16(r.Uint32())}
				}
				if r.IntN(2) == 0 {
					p.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: uint16(r.IntN(4))}
				}
				d.give(p)
			}
			b.run()
			if r.IntN(10) == 0 {
				b.must(b.Detach(name))
				d = newFake(t)
				b.devs[name] = d
				b.must(b.Attach(name, d, false, 0))
			}
		}
		for _, d := range b.devs {
			d.mu.Lock()
			d.room, d.errno = -1, 0
			d.mu.Unlock()
		}
		b.drain()
		b.balanced("br0")
		b.balanced("br1")
		if n := b.free(); n != free {
			t.Fatalf("seed %d: %d buffers free afterwards, %d before", seed, n, free)
		}
		b.must(b.DelPort("p0"))
		b.balanced("br0")
	}
}

// TestChangeUnderTraffic changes everything while workers forward; the race
// detector and the sums are the judges.
func TestChangeUnderTraffic(t *testing.T) {
	b := newBench(t, Options{Workers: 3, Notify: func(Event) {}, Hear: func(Heard, *Sighting) {},
		Recorder: RecorderOptions{Bytes: MinRecorderBytes, Snap: 64}})
	for i := range 4 {
		d := b.port("br0", fmt.Sprintf("p%d", i), PortConfig{})
		d.drain()
		for j := range 200 {
			d.give(eth(mac(byte(j%8)), mac(byte(i)), 60))
		}
	}
	end := time.Now().Add(time.Second)
	for n := 0; time.Now().Before(end); n++ {
		for i := range 4 {
			b.devs[fmt.Sprintf("p%d", i)].give(eth(mac(byte(n%8)), mac(byte(i+n%3)), 60))
		}
		name := fmt.Sprintf("q%d", n%3)
		d := newFake(t)
		d.drain()
		b.must(b.AddPort("br0", name, PortConfig{}))
		b.must(b.Attach(name, d, true, 1500))
		b.must(b.SetPort("p1", PortConfig{VLAN: VLAN{Mode: Access, Tag: uint16(n % 2)}}))
		b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", All: true, OutVLAN: -1, Sink: &sink{}}}[:n%2]))
		if _, err := b.FlushFDB("br0", func(e FDBEntry) bool { return e.Port == "p0" }); err != nil {
			t.Fatal(err)
		}
		watch, err := b.Watch(WatchConfig{In: true, Out: true})
		b.must(err)
		b.Recorded(time.Now().Add(-10*time.Millisecond), func(*Sighting) bool { return true })
		b.LastDrop("p1", DropVLANNotTrunked)
		_, err = b.Trace("p0", eth(mac(1), mac(0), 60).data, frame.Offload{})
		b.must(err)
		watch.Read(func(*Sighting) {})
		watch.Close()
		watch.Read(func(*Sighting) {})
		b.must(b.DelPort(name))
	}
	b.run()
	c := b.balanced("br0")
	if c.Received == 0 {
		t.Fatal("nothing was received")
	}
}

func TestByteRing(t *testing.T) {
	r := newByteRing(1 << 12)
	rnd := rand.New(rand.NewPCG(1, 2))
	type entry struct {
		rec  record
		data []byte
	}
	var queue []entry
	buf := make([]byte, frame.MaxLen)
	bytesIn := 0
	for range 20000 {
		if rnd.IntN(2) == 0 {
			e := entry{data: make([]byte, rnd.IntN(900))}
			for i := range e.data {
				e.data[i] = byte(rnd.Uint32())
			}
			e.rec = record{at: rnd.Int64(), port: rnd.Uint32(), out: rnd.IntN(2) == 0, wireLen: rnd.IntN(1 << 20), n: len(e.data),
				tag: frame.Tag{TPID: uint16(rnd.Uint32()), TCI: uint16(rnd.Uint32())}, offload: frame.Offload{Flags: 1, CsumStart: 34, GSOSize: uint16(rnd.Uint32())}}
			fits := bytesIn+recordLen+len(e.data) <= 1<<12
			if r.write(&e.rec, e.data) != fits {
				t.Fatalf("write of %d bytes beside %d: %t, want %t", len(e.data), bytesIn, !fits, fits)
			}
			if fits {
				queue = append(queue, e)
				bytesIn += recordLen + len(e.data)
			}
			continue
		}
		var rec record
		if ok := r.read(&rec, buf); ok != (len(queue) > 0) {
			t.Fatalf("read: %t with %d waiting", ok, len(queue))
		} else if ok {
			if rec != queue[0].rec || !bytes.Equal(buf[:rec.n], queue[0].data) {
				t.Fatalf("read %+v, want %+v", rec, queue[0].rec)
			}
			bytesIn -= recordLen + rec.n
			queue = queue[1:]
		}
	}
}

// FuzzForward feeds any bytes with any offload state to a port, and holds the
// switch to its sums.
func FuzzForward(f *testing.F) {
	p := superFrame(mac(2), mac(1), 3000)
	f.Add(p.data, uint16(0), uint16(0), p.offload.Flags, p.offload.GSOType, p.offload.GSOSize, p.offload.CsumStart, p.offload.CsumOffset)
	f.Add([]byte{1, 2, 3}, uint16(0x8100), uint16(5), uint8(1), uint8(5), uint16(1), uint16(14), uint16(0))
	f.Add(make([]byte, 60), uint16(0x88a8), uint16(0xffff), uint8(255), uint8(255), uint16(0), uint16(65535), uint16(65535))
	b := newBench(f, Options{Buffers: 64})
	p1 := b.port("br0", "p1", PortConfig{})
	b.port("br0", "p2", PortConfig{Finish: true}).drain()
	b.port("br0", "p3", PortConfig{VLAN: VLAN{Mode: NativeUntagged, Tag: 5}}).drain()
	b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", All: true, OutVLAN: -1, Sink: &sink{}}}))
	free := b.free()
	f.Fuzz(func(t *testing.T, data []byte, tpid, tci uint16, flags, gso uint8, size, start, offset uint16) {
		b.t = t
		p1.mu.Lock()
		p1.in, p1.next = nil, 0
		p1.mu.Unlock()
		p1.give(packet{data: data[:min(len(data), frame.MaxLen)], tag: frame.Tag{TPID: tpid, TCI: tci},
			offload: frame.Offload{Flags: flags, GSOType: gso, GSOSize: size, CsumStart: start, CsumOffset: offset}})
		b.run()
		b.balanced("br0")
		if n := b.free(); n != free {
			t.Fatalf("%d buffers free, %d before", n, free)
		}
	})
}

func BenchmarkForward(bm *testing.B) {
	known, every := eth(mac(2), mac(1), 46), DefaultRecorder()
	every.Rate = 0
	for _, c := range []struct {
		name  string
		p     packet
		rec   RecorderOptions
		watch bool
	}{
		{name: "unicast", p: known}, {name: "flood3", p: eth(broadcast, mac(1), 46)},
		{name: "recorder", p: known, rec: DefaultRecorder()}, {name: "recorder-of-all", p: known, rec: every},
		{name: "watched", p: known, watch: true},
	} {
		bm.Run(c.name, func(bm *testing.B) {
			b := newBench(bm, Options{Recorder: c.rec})
			if c.watch {
				w, err := b.Watch(WatchConfig{In: true, Out: true, Snap: 96})
				b.must(err)
				stop := make(chan struct{})
				defer close(stop)
				go func() { // ends with stop
					for {
						select {
						case <-stop:
							return
						default:
							w.Read(func(*Sighting) {})
						}
					}
				}()
			}
			for _, p := range []string{"p1", "p2", "p3", "p4"} {
				b.port("br0", p, PortConfig{}).drain()
			}
			b.devs["p2"].give(eth(mac(1), mac(2), 46))
			b.run()
			b.workers[0].call(func(w *worker) {
				d := b.devs["p1"]
				d.in, d.next, d.repeat = []packet{c.p}, 0, true
				var q *rxQueue
				for i := range w.slots {
					if x := w.slots[i].rx; x != nil && x.from == d {
						q = x
					}
				}
				bm.ReportAllocs()
				bm.ResetTimer()
				for i := 0; i < bm.N; i += frame.MaxBatch {
					w.receive(q)
				}
				bm.StopTimer()
				d.repeat, d.next = false, len(d.in)
			})
		})
	}
}

// TestSCTPIsFinished: a virtio-net header cannot say CRC32c, so an open SCTP
// checksum is completed on the way in.
func TestSCTPIsFinished(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{})
	p := eth(broadcast, mac(1), 20+12+16)
	p.data[12], p.data[13] = 8, 0
	ip := p.data[14:]
	ip[0], ip[3], ip[8], ip[9] = 0x45, 48, 64, 132
	p.offload = frame.Offload{Flags: frame.NeedsCsum, CsumStart: 34, CsumOffset: 8}
	p1.give(p)
	b.run()
	got := p2.take()
	if len(got) != 1 || got[0].offload.Flags != 0 || bytes.Equal(got[0].data[42:46], make([]byte, 4)) {
		t.Fatalf("SCTP with an open checksum left as %+v", got)
	}
}
