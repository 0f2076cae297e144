package vswitch

import (
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/fdb"
	"vswitch/frame"
)

// fakeEndpoint is an endpoint without a socket: what is given waits in its own
// memory, and its descriptor is readable only until the next Recv, as a socket is
// that was read empty.
//
// Thread-safety: safe for concurrent use.
type fakeEndpoint struct {
	*fake
	mu    sync.Mutex
	waits []arrival
}

type arrival struct {
	to    *bound
	p     packet
	fault frame.Fault
}

func (e *fakeEndpoint) arrive(as ...arrival) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.waits = append(e.waits, as...)
	unix.Write(e.fd, []byte{0: 1, 7: 0})
}

func (e *fakeEndpoint) Recv(_ int, b *frame.Batch, limit int) (int, unix.Errno) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var counter [8]byte
	unix.Read(e.fd, counter[:])
	b.N = 0
	for b.N < limit && len(e.waits) > 0 {
		a := e.waits[0]
		e.waits = e.waits[1:]
		if a.to.id < 0 {
			continue // of nobody
		}
		f := b.Frames[b.N]
		f.Set(a.p.data)
		f.Tag, f.Offload, f.Port, f.Fault = a.p.tag, a.p.offload, uint32(a.to.id), a.fault
		b.N++
	}
	if b.N < limit {
		return b.N, unix.EAGAIN
	}
	return b.N, 0
}

// bound is a fake tunnel port; shared is the descriptor it sends by.
type bound struct {
	*fake
	id     int
	shared int
}

func (d *bound) Queues() int    { return 0 }
func (d *bound) SendFD(int) int { return d.shared }
func (d *bound) Bind(p uint32)  { d.id = int(p) }
func (d *bound) Unbind()        { d.id = -1 }

// tunnel adds a tunnel port that sends by e's descriptor.
func (b *bench) tunnel(name string, e *fakeEndpoint, c PortConfig) *bound {
	b.t.Helper()
	d := &bound{newFake(b.t), -1, e.fd}
	c.Tunnel = true
	b.must(b.AddPort("br0", name, c))
	b.must(b.Attach(name, d, true, 1450))
	return d
}

func (b *bench) endpoint() *fakeEndpoint {
	b.t.Helper()
	e := &fakeEndpoint{fake: newFake(b.t)}
	b.must(b.AddEndpoint(e))
	return e
}

func TestEndpoint(t *testing.T) {
	b := newBench(t, Options{})
	e := b.endpoint()
	if b.AddEndpoint(e) == nil {
		t.Error("an endpoint was added twice")
	}
	p1 := b.port("br0", "p1", PortConfig{})
	t1, t2 := b.tunnel("t1", e, PortConfig{}), b.tunnel("t2", e, PortConfig{})
	e.arrive(
		arrival{to: t1, p: eth(broadcast, mac(1), 50)},
		arrival{to: t2, p: eth(mac(1), mac(2), 50)},
		arrival{to: t2, p: eth(mac(1), mac(2), 50), fault: frame.FaultECN},
		arrival{to: t1, p: eth(mac(2), mac(1), 60)})
	b.run()
	for _, c := range []struct {
		d    *fake
		want int
	}{{p1, 1}, {t1.fake, 1}, {t2.fake, 2}} {
		if got := len(c.d.take()); got != c.want {
			t.Errorf("%d frames were sent, want %d", got, c.want)
		}
	}
	if n := b.drops("br0", "t2", DropTunnelECN); n != 1 {
		t.Errorf("t2 dropped %d frames for tunnel-ecn, want 1", n)
	}
	st, err := b.Bridge("br0")
	b.must(err)
	for _, p := range st.Ports {
		if want := map[string]uint64{"p1": 0, "t1": 2, "t2": 2}[p.Name]; p.Counters.RxFrames != want {
			t.Errorf("%s received %d frames, want %d", p.Name, p.Counters.RxFrames, want)
		}
	}
	b.balanced("br0")
	b.must(b.DelPort("t2"))
	if t2.id >= 0 {
		t.Error("a removed port is bound still")
	}
	b.DelEndpoint(e)
	e.arrive(arrival{to: t1, p: eth(broadcast, mac(1), 50)})
	b.run()
	if n := len(p1.take()); n != 0 {
		t.Errorf("%d frames came by an endpoint that was removed", n)
	}
}

// TestEndpointHoldsFrames gives an endpoint more than a batch holds, while its
// descriptor tells of the first only.
func TestEndpointHoldsFrames(t *testing.T) {
	b := newBench(t, Options{})
	e := b.endpoint()
	p1, t1 := b.port("br0", "p1", PortConfig{}), b.tunnel("t1", e, PortConfig{})
	const frames = 5*frame.MaxBatch + 3
	var as []arrival
	for range frames {
		as = append(as, arrival{to: t1, p: eth(broadcast, mac(1), 50)})
	}
	e.arrive(as...)
	got := 0
	for end := time.Now().Add(5 * time.Second); got < frames && time.Now().Before(end); {
		got += len(p1.take())
	}
	if got != frames {
		t.Errorf("%d frames came through, want %d", got, frames)
	}
	// One whose frames nobody read goes away.
	e.arrive(as...)
	b.DelEndpoint(e)
	b.workers[0].call(func(w *worker) {
		if len(w.again) != 0 {
			t.Error("a removed endpoint is to be read again")
		}
	})
}

// TestSharedDescriptor has two ports wait for the same descriptor to be writable.
func TestSharedDescriptor(t *testing.T) {
	b := newBench(t, Options{})
	e := b.endpoint()
	p1 := b.port("br0", "p1", PortConfig{})
	ts := []*bound{b.tunnel("t1", e, PortConfig{}), b.tunnel("t2", e, PortConfig{}), b.tunnel("t3", e, PortConfig{})}
	block, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	b.must(err)
	defer unix.Close(block)
	const most = "\xfe\xff\xff\xff\xff\xff\xff\xff"
	if _, err := unix.Write(block, []byte(most)); err != nil { // not writable now
		t.Fatal(err)
	}
	for _, d := range ts {
		d.shared = block
		d.full(0)
	}
	p1.give(eth(broadcast, mac(1), 50), eth(broadcast, mac(1), 51))
	b.run()
	for _, d := range ts {
		d.full(-1)
	}
	b.must(b.DelPort("t2")) // from the middle of the list
	var counter [8]byte
	unix.Read(block, counter[:]) // writable
	for end := time.Now().Add(5 * time.Second); ; {
		st, err := b.Bridge("br0")
		b.must(err)
		if st.Counters.Sent == 4 {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("%+v: want 4 frames sent", st.Counters)
		}
	}
	if n, m := len(ts[0].take()), len(ts[2].take()); n != 2 || m != 2 {
		t.Errorf("sent %d and %d frames, want 2 each", n, m)
	}
	b.balanced("br0")
}

// TestSharedDescriptorIsFair has two ports wait for one that takes ten frames at a
// time.
func TestSharedDescriptorIsFair(t *testing.T) {
	b := newBench(t, Options{})
	e := b.endpoint()
	p1 := b.port("br0", "p1", PortConfig{})
	ts := []*bound{b.tunnel("t1", e, PortConfig{}), b.tunnel("t2", e, PortConfig{})}
	block, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	b.must(err)
	defer unix.Close(block)
	if _, err := unix.Write(block, []byte("\xfe\xff\xff\xff\xff\xff\xff\xff")); err != nil { // never writable
		t.Fatal(err)
	}
	for _, d := range ts {
		d.shared = block
		d.full(0)
	}
	for range 200 {
		p1.give(eth(broadcast, mac(1), 50))
	}
	b.run()
	b.workers[0].call(func(w *worker) {
		s := w.slotFor(block)
		for turn := range 10 {
			for _, d := range ts {
				d.full(10)
			}
			w.writable(s)
			if n, m := len(ts[0].sent), len(ts[1].sent); n+m != 10*(turn+1) || n-m > 10 || m-n > 10 {
				t.Errorf("turn %d: the ports sent %d and %d frames", turn, n, m)
			}
		}
	})
}

func TestSplitHorizon(t *testing.T) {
	b := newBench(t, Options{})
	e := b.endpoint()
	p1 := b.port("br0", "p1", PortConfig{})
	m1, m2 := b.tunnel("m1", e, PortConfig{Group: "m"}), b.tunnel("m2", e, PortConfig{Group: "m"})
	o := b.tunnel("o", e, PortConfig{Group: "other"})
	e.arrive(arrival{to: m1, p: eth(broadcast, mac(1), 50)})
	b.run()
	if n, m, k := len(p1.take()), len(m2.take()), len(o.take()); n != 1 || m != 0 || k != 1 {
		t.Errorf("a broadcast from the mesh went to %d, %d, %d; want 1 to the port, 0 to the mesh, 1 to the other mesh", n, m, k)
	}
	e.arrive(arrival{to: m2, p: eth(mac(1), mac(2), 50)})
	b.run()
	if n := b.drops("br0", "m2", DropSplitHorizon); n != 1 || len(m1.take()) != 0 {
		t.Errorf("%d frames were dropped for split-horizon, want 1", n)
	}
	p1.give(eth(mac(1), mac(3), 50), eth(broadcast, mac(3), 50))
	b.run()
	if n, m := len(m1.take()), len(m2.take()); n != 2 || m != 1 {
		t.Errorf("from the port %d and %d frames, want 2 and 1", n, m)
	}
	// The group may change under way.
	b.must(b.SetPort("m2", PortConfig{Tunnel: true}))
	e.arrive(arrival{to: m2, p: eth(mac(1), mac(2), 50)})
	b.run()
	if n := len(m1.take()); n != 1 {
		t.Errorf("out of the group %d frames went, want 1", n)
	}
	b.balanced("br0")
}

func TestStormControl(t *testing.T) {
	b := newBench(t, Options{})
	p1 := b.port("br0", "p1", PortConfig{Storm: StormLimits{Broadcast: 1000, Unknown: 10, Multicast: 2000}})
	p2 := b.port("br0", "p2", PortConfig{})
	group := [6]byte{1, 0, 0x5e, 0, 0, 1}
	p2.give(eth(broadcast, mac(2), 50))
	b.run()
	var now int64
	at := func(nano int64, dst [6]byte, count int) (passed int) {
		in := b.snap.Load().ports[b.ports["p1"].id]
		for range count {
			if in.storm.admit(&dst, now+nano) == DropNone {
				passed++
			}
		}
		return passed
	}
	for _, c := range []struct {
		name  string
		dst   [6]byte
		burst int
		rate  int
	}{{"broadcast", broadcast, 100, 1000}, {"unknown", mac(9), minBurst, 10}, {"multicast", group, 200, 2000}} {
		if n := at(1, c.dst, 5000); n != c.burst {
			t.Errorf("%s: %d frames at once, want %d", c.name, n, c.burst)
		}
		if n := at(1+int64(time.Second), c.dst, 5000); n != min(c.burst, c.rate) {
			t.Errorf("%s: %d frames a second later, want %d", c.name, n, min(c.burst, c.rate))
		}
		if n := at(1+2*int64(time.Second), c.dst, 1); n != 1 {
			t.Errorf("%s: none after two seconds", c.name)
		}
	}
	// Known unicast is no storm, and what is dropped has its reason.
	now = 0
	for range 300 {
		p1.give(eth(mac(2), mac(1), 50), eth(group, mac(1), 50), eth(broadcast, mac(1), 50), eth(mac(9), mac(1), 50))
	}
	b.run()
	for _, r := range []Reason{DropStormBroadcast, DropStormUnknown, DropStormMulticast} {
		if b.drops("br0", "p1", r) == 0 {
			t.Errorf("nothing was dropped for %v", r)
		}
	}
	unicast := 0
	for _, p := range p2.take() {
		if [6]byte(p.data[:6]) == mac(2) {
			unicast++
		}
	}
	if unicast != 300 {
		t.Errorf("%d of 300 known unicast frames passed", unicast)
	}
	b.balanced("br0")
	b.must(b.SetPort("p1", PortConfig{}))
	for range 300 {
		p1.give(eth(broadcast, mac(1), 50))
	}
	b.run()
	if n := len(p2.take()); n != 300 {
		t.Errorf("without limits %d of 300 broadcasts passed", n)
	}
}

func TestFlappingIsHeld(t *testing.T) {
	events := make(chan Event, 100)
	b := newBench(t, Options{Notify: func(e Event) {
		if e.Kind == fdb.EventFlapping {
			events <- e
		}
	}})
	b.must(b.SetBridge("br0", BridgeConfig{FDB: fdb.Limits{Size: 100, Aging: 300, FlapLimit: 5, FlapHold: 10}}))
	p1 := b.port("br0", "p1", PortConfig{})
	loop := []*fake{b.port("br0", "loop1", PortConfig{}), b.port("br0", "loop2", PortConfig{})}
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	for i := range 60 { // what runs around the loop
		loop[i%2].give(eth(broadcast, mac(1), 50))
		b.run()
	}
	if n := b.drops("br0", "loop1", DropFlapping) + b.drops("br0", "loop2", DropFlapping); n < 40 {
		t.Errorf("%d frames were dropped for mac-flapping, want at least 40 of 60", n)
	}
	select {
	case e := <-events:
		if e.MAC != mac(1) || e.Port != "p1" || e.From != "loop1" && e.From != "loop2" {
			t.Errorf("told %+v: want mac(1), held at p1, and a port of the loop", e)
		}
	default:
		t.Error("nobody was told")
	}
	loop[0].take()
	p1.take()
	loop[0].give(eth(mac(1), mac(2), 50))
	b.run()
	if n := len(p1.take()); n != 1 {
		t.Errorf("the station's own port got %d frames, want 1", n)
	}
	b.balanced("br0")
}

func TestTooBigIsAnswered(t *testing.T) {
	b := newBench(t, Options{})
	e := b.endpoint()
	p1, t1 := b.port("br0", "p1", PortConfig{}), b.tunnel("t1", e, PortConfig{})
	heard := eth(broadcast, mac(2), 50)
	heard.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: 7}
	e.arrive(arrival{to: t1, p: eth(broadcast, mac(2), 50)}, arrival{to: t1, p: heard})
	b.run()
	p1.take()
	ip := func(n int) packet { // IPv4, UDP, do not fragment
		p := eth(mac(2), mac(1), n)
		h := p.data[frame.EthLen:]
		p.data[12], p.data[13] = 8, 0
		h[0], h[2], h[3], h[6], h[8], h[9] = 0x45, byte(n>>8), byte(n), 0x40, 64, 17
		copy(h[12:], []byte{10, 0, 0, 1, 10, 0, 0, 2})
		sum := ^frame.Sum(h[:20], 0)
		h[10], h[11] = byte(sum>>8), byte(sum)
		return p
	}
	p1.give(ip(1450), ip(1451))
	tagged := ip(1450)
	tagged.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: 7}
	p1.give(tagged)
	b.run()
	if n := len(t1.take()); n != 1 {
		t.Errorf("%d frames went into the tunnel, want the one that fits", n)
	}
	if n := b.drops("br0", "t1", DropMTU); n != 2 {
		t.Errorf("%d frames were dropped, want 2", n)
	}
	got := p1.take()
	if len(got) != 2 {
		t.Fatalf("the sender got %d answers, want 2", len(got))
	}
	for i, want := range []struct {
		mtu int
		vid uint16
	}{{1450, 0}, {1446, 7}} {
		a := got[i].data
		if [6]byte(a[:6]) != mac(1) || a[34] != 3 || a[35] != 4 || int(a[40])<<8|int(a[41]) != want.mtu || got[i].tag.VID() != want.vid {
			t.Errorf("answer %d: % x, tag %+v; want frag-needed with MTU %d in VLAN %d", i, a, got[i].tag, want.mtu, want.vid)
		}
	}
	if c := b.balanced("br0"); c.Answers != 2 {
		t.Errorf("%d answers are counted, want 2", c.Answers)
	}
	// Of a flood another copy may arrive; and who cannot be answered uses up nothing.
	flooded := ip(1451)
	copy(flooded.data, []byte{2, 0, 0, 0, 0, 99})
	p1.give(flooded)
	for range 100 {
		p1.give(eth(mac(2), mac(1), 1451)) // not IP
	}
	p1.give(ip(1451))
	b.run()
	if c := b.balanced("br0"); c.Answers != 3 {
		t.Errorf("%d answers are counted, want 3", c.Answers)
	}
	p1.take()
	// A mirror's copies are not the sender's business, and there is a bound.
	b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", Src: []string{"p1"}, OutVLAN: 9}}))
	for range 200 {
		p1.give(ip(1451))
	}
	b.run()
	if c := b.balanced("br0"); c.Answers < 4 || c.Answers > 43 {
		t.Errorf("%d answers to 200 frames, want some 20", c.Answers-3)
	}
	b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", Src: []string{"p1"}, OutPort: "t1", OutVLAN: -1}}))
	before := b.balanced("br0").Answers
	p1.give(ip(1451))
	b.run()
	if c := b.balanced("br0"); c.Answers != before {
		t.Error("a mirror's copy was answered")
	}
}
