package vswitch

import (
	"bytes"
	"errors"
	"fmt"
	"testing"
	"time"

	"vswitch/fdb"
	"vswitch/frame"
)

// TestMirrorCutsBeforeTheTag: a capture may keep less of a frame than its addresses.
func TestMirrorCutsBeforeTheTag(t *testing.T) {
	b := newBench(t, Options{})
	p1 := b.port("br0", "p1", PortConfig{})
	b.port("br0", "p2", PortConfig{})
	for snap := range 20 {
		s := &sink{}
		b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", Src: []string{"p1"}, OutVLAN: -1, Sink: s, Snap: snap}}))
		p := eth(broadcast, mac(1), 50)
		p.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: 5}
		p1.give(p)
		b.run()
		b.must(b.SetMirrors("br0", nil))
		b.awaitSinks()
		if len(s.packets) != 1 || snap > 0 && len(s.packets[0].Data) > snap || s.packets[0].OrigLen != 68 {
			t.Errorf("snap length %d: %+v", snap, s.packets)
		}
	}
}

// TestWatchOfARing: what waited in a transmit ring is seen by who watches when it
// leaves, and by nobody who watches something else by then.
func TestWatchOfARing(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{})
	b.port("br0", "p3", PortConfig{})
	p2.give(eth(broadcast, mac(2), 50))
	b.run()
	p2.full(0)
	watch := func(port string) *Watch {
		w, err := b.Watch(WatchConfig{Ports: []string{port}, Out: true})
		b.must(err)
		return w
	}
	before := watch("p2")
	p1.give(eth(mac(2), mac(1), 50))
	b.run()
	before.Close()
	other, late := watch("p3"), watch("p2")
	p2.full(-1)
	b.drain()
	if n := len(sightings(other)); n != 0 {
		t.Errorf("who watches p3 saw %d frames of p2", n)
	}
	if n := len(sightings(late)); n != 1 {
		t.Errorf("who watches p2 saw %d frames leave, want 1", n)
	}
	// The same when the port goes with what waits.
	p2.full(0)
	before = watch("p2")
	p1.give(eth(mac(2), mac(1), 50))
	b.run()
	before.Close()
	other = watch("p3")
	b.must(b.DelPort("p2"))
	if n := len(sightings(other)); n != 0 {
		t.Errorf("who watches p3 saw %d drops of p2", n)
	}
}

// TestNamesOfOneTurn: a port that takes a number in the middle of a worker's turn is
// not told under the name of the one that had it.
func TestNamesOfOneTurn(t *testing.T) {
	b := newBench(t, Options{Recorder: RecorderOptions{Bytes: MinRecorderBytes, Snap: 64}})
	p1 := b.port("br0", "p1", PortConfig{})
	b.must(b.AddPort("br0", "old", PortConfig{}))
	b.must(b.DelPort("old"))
	b.workers[0].call(func(w *worker) {
		w.tick()
		p1.give(eth(broadcast, mac(1), 50))
		done := make(chan bool)
		go func() { // ends with what it does; this is the worker's thread
			defer close(done)
			b.must(b.AddPort("br0", "new", PortConfig{Patch: true, Peer: "peer"}))
			b.must(b.AddPort("br0", "peer", PortConfig{Patch: true, Peer: "new"}))
		}()
		<-done
		for i := range w.slots {
			if q := w.slots[i].rx; q != nil {
				w.receive(q)
			}
		}
	})
	seen := 0
	b.Recorded(time.Time{}, func(x *Sighting) bool {
		seen++
		if x.Port == "old" || x.Output == "old" || x.Port == "" {
			t.Errorf("a port that was gone is named: %+v", x)
		}
		return true
	})
	if seen == 0 {
		t.Error("nothing was recorded")
	}
}

// TestTraceOfAPortThatGoes: the number of a port that goes may be another's at once.
func TestTraceOfAPortThatGoes(t *testing.T) {
	b := newBench(t, Options{})
	b.port("br0", "a", PortConfig{})
	b.port("br0", "b", PortConfig{})
	b.shadowMu.Lock()
	type result struct {
		t   *Traced
		err error
	}
	done := make(chan result, 1)
	started := make(chan bool)
	go func() { // ends with its trace
		close(started)
		x, err := b.Trace("a", eth(broadcast, mac(1), 50).data, frame.Offload{})
		done <- result{x, err}
	}()
	<-started
	b.must(b.DelPort("a"))
	b.port("br0", "c", PortConfig{})
	b.shadowMu.Unlock()
	if r := <-done; !errors.Is(r.err, ErrNotExist) && (r.err != nil || r.t.Port != "a") {
		t.Errorf("traced at %+v, %v", r.t, r.err)
	}
}

// TestTraceOfAPatch: each step names the bridge where it happens.
func TestTraceOfAPatch(t *testing.T) {
	b := newBench(t, Options{})
	b.must(b.AddBridge("br1", BridgeConfig{FDB: b.bridges["br0"].config.FDB}))
	b.port("br0", "p1", PortConfig{})
	b.must(b.AddPort("br0", "x0", PortConfig{Patch: true, Peer: "x1"}))
	b.must(b.AddPort("br1", "x1", PortConfig{Patch: true, Peer: "x0"}))
	b.port("br0", "p2", PortConfig{})
	b.port("br1", "q", PortConfig{})
	x, err := b.Trace("p1", eth(broadcast, mac(1), 50).data, frame.Offload{})
	b.must(err)
	own := map[string]string{"p1": "br0", "x0": "br0", "p2": "br0", "x1": "br1", "q": "br1"}
	for _, s := range x.Steps {
		if s.Port != "" && own[s.Port] != s.Bridge {
			t.Errorf("step %s of port %s says that it is of bridge %s", s.Stage, s.Port, s.Bridge)
		}
	}
	if x, err = b.Trace("p1", []byte{1, 2, 3}, frame.Offload{}); err != nil || x.Steps[0].Text != "3 bytes, less than an Ethernet header" {
		t.Errorf("a frame too short is told as %+v, %v", x, err)
	}
}

// TestTraceIsBounded: a frame that is flooded to a thousand ports is not told a
// thousand times.
func TestTraceIsBounded(t *testing.T) {
	b := newBench(t, Options{})
	b.port("br0", "p", PortConfig{})
	b.Together(func() {
		for i := range 1000 {
			name := fmt.Sprint("q", i)
			b.must(b.AddPort("br0", name, PortConfig{}))
			b.must(b.Attach(name, keeper{true}, true, 1500))
		}
	})
	x, err := b.Trace("p", eth(broadcast, mac(1), 50).data, frame.Offload{})
	b.must(err)
	if len(x.Left) != dryBounds.frames || len(x.Steps) != dryBounds.steps+1 || x.Steps[dryBounds.steps].Text != "and 1725 more steps and frames like these, which are not listed" {
		t.Errorf("%d frames, %d steps: %+v", len(x.Left), len(x.Steps), x.Steps[len(x.Steps)-1])
	}
}

// TestProbeBehindATag: a container cannot hide a probe behind a tag that a tunnel port
// takes off.
func TestProbeBehindATag(t *testing.T) {
	b := newBench(t, Options{Hear: func(Heard, *Sighting) {}})
	c := b.port("br0", "c", PortConfig{VLAN: VLAN{Mode: Access, Tag: 5}})
	tun := b.port("br0", "t", PortConfig{Tunnel: true, VLAN: VLAN{Mode: NativeUntagged, Tag: 5}})
	p := eth(broadcast, mac(1), 60)
	p.data[12], p.data[13] = 0x88, 0xb5
	copy(p.data[14:], frame.ProbeMagic)
	p.data = frame.Tag{TPID: frame.TPID8021Q, TCI: 7}.Insert(append(make([]byte, frame.TagLen), p.data...))
	p.tag = frame.Tag{TPID: frame.TPID8021Q} // of priority
	c.give(p)
	b.run()
	if n, sent := b.drops("br0", "c", DropProbeRefused), len(tun.take()); n != 1 || sent != 0 {
		t.Errorf("%d probes were refused, %d frames went into the tunnel", n, sent)
	}
	// What a trace says of a probe is what becomes of it; but for the prober's own.
	plain := eth(broadcast, mac(1), 60)
	copy(plain.data[12:], "\x88\xb5"+frame.ProbeMagic)
	x, err := b.Trace("c", plain.data, frame.Offload{})
	b.must(err)
	y, err := b.TraceProbe("c", plain.data, frame.Offload{})
	b.must(err)
	if len(x.Left) != 0 || len(y.Left) != 1 {
		t.Errorf("of a probe that a container sends %d would leave, and %d of the prober's", len(x.Left), len(y.Left))
	}
}

// TestCaptureRingIsNoFate: a frame whose copy is lost is not told as lost itself.
func TestCaptureRingIsNoFate(t *testing.T) {
	b := newBench(t, Options{Recorder: DefaultRecorder()})
	p1 := b.port("br0", "p1", PortConfig{})
	b.port("br0", "p2", PortConfig{}).drain()
	slow := &sink{block: make(chan struct{})}
	defer close(slow.block)
	b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", All: true, OutVLAN: -1, Sink: slow}}))
	w, err := b.Watch(WatchConfig{In: true, Snap: 64})
	b.must(err)
	const n = 200
	for range n {
		p1.give(superFrame(broadcast, mac(1), 60000))
	}
	b.run()
	if b.drops("br0", "p1", DropCaptureRing) == 0 {
		t.Fatal("the ring took everything")
	}
	if got := len(sightings(w)); got != n {
		t.Errorf("%d frames came in, %d were seen", n, got)
	}
	b.Recorded(time.Time{}, func(x *Sighting) bool {
		if x.Reason != DropNone {
			t.Errorf("a frame that left is recorded as dropped: %v", x.Reason)
		}
		return x.Reason == DropNone
	})
	b.balanced("br0")
}

// TestMirrorsLeaveBuffers: mirrors that cut do not take the buffers of real frames.
func TestMirrorsLeaveBuffers(t *testing.T) {
	b := newBench(t, Options{Buffers: 64})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{Finish: true})
	p2.offloads, p2.discard = false, true
	var mirrors []MirrorConfig
	for i := range 4 {
		name := fmt.Sprint("m", i)
		b.port("br0", name, PortConfig{}).drain()
		mirrors = append(mirrors, MirrorConfig{Name: name, Src: []string{"p1"}, OutPort: name, OutVLAN: -1, Snap: 100})
	}
	p2.give(eth(broadcast, mac(2), 50))
	b.run()
	b.must(b.SetMirrors("br0", mirrors))
	p1.give(slices64(superFrame(mac(2), mac(1), 20_000))...)
	b.run()
	if n := b.drops("br0", "p2", DropBuffers); n != 0 {
		t.Errorf("%d real frames were lost for copies", n)
	}
	b.balanced("br0")
}

// slices64 returns a whole batch of a frame.
func slices64(p packet) (all []packet) {
	for range frame.MaxBatch {
		all = append(all, packet{bytes.Clone(p.data), p.tag, p.offload, false})
	}
	return all
}

// TestAfterClose: nothing that is called late hangs.
func TestAfterClose(t *testing.T) {
	s, err := New(Options{Workers: 1, Buffers: 64, Recorder: DefaultRecorder()})
	if err != nil {
		t.Fatal(err)
	}
	w, err := s.Watch(WatchConfig{In: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Close()
	done := make(chan bool)
	go func() { // ends with the calls
		defer close(done)
		w.Close()
		w.Read(func(*Sighting) {})
		s.AddBridge("br0", BridgeConfig{FDB: fdb.DefaultLimits()})
		s.AddPort("br0", "p", PortConfig{})
		if s.Attach("p", newFake(t), true, 1500) == nil {
			t.Error("a port is attached to a switch that is closed")
		}
		if s.Emit("p", frame.Tag{}, make([]byte, 60)) == nil {
			t.Error("a frame is sent by a switch that is closed")
		}
		if _, err := s.Trace("p", make([]byte, 60), frame.Offload{}); err == nil {
			t.Error("a frame is traced in a switch that is closed")
		}
		s.Recorded(time.Time{}, func(*Sighting) bool { t.Error("a switch that is closed has records"); return false })
		s.Recorder()
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		t.Fatal("a call hangs")
	}
}

// TestHearingIsShared: a port that floods with ARP does not make the switch deaf for
// the others.
func TestHearingIsShared(t *testing.T) {
	heard := make(chan string, 4096)
	b := newBench(t, Options{Hear: func(_ Heard, x *Sighting) { heard <- x.Port }})
	flood, web := b.port("br0", "flood", PortConfig{}), b.port("br0", "web", PortConfig{})
	arp := eth(broadcast, mac(1), 46)
	arp.data[12], arp.data[13] = 8, 6
	for range 40 {
		flood.give(slices64(arp)...)
	}
	b.run()
	web.give(arp)
	b.run()
	flooded := 0
	for {
		select {
		case port := <-heard:
			if port == "web" {
				if flooded > 2*minBurst {
					t.Errorf("%d frames of the flood were heard", flooded)
				}
				return
			}
			flooded++
		case <-time.After(10 * time.Second):
			t.Fatalf("web was not heard, and %d of the flood were", flooded)
		}
	}
}
