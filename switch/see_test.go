package vswitch

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/capture"
	"vswitch/fdb"
	"vswitch/frame"
)

// sightings reads all that a watch saw.
func sightings(w *Watch) (all []Sighting) {
	w.Close()
	w.Read(func(x *Sighting) {
		c := *x
		c.Data = bytes.Clone(x.Data)
		all = append(all, c)
	})
	return all
}

// TestWatch: who watches sees each frame come in and leave, and what was dropped.
func TestWatch(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2 := b.port("br0", "p1", PortConfig{VLAN: VLAN{Mode: Access, Tag: 10}}), b.port("br0", "p2", PortConfig{})
	b.port("br0", "p3", PortConfig{VLAN: VLAN{Mode: Access, Tag: 20}})
	watch := func(c WatchConfig) *Watch {
		w, err := b.Watch(c)
		b.must(err)
		return w
	}
	all := watch(WatchConfig{Bridge: "br0", In: true, Out: true})
	drops := watch(WatchConfig{In: true, Out: true, Drops: true})
	in := watch(WatchConfig{Ports: []string{"p1"}, In: true, Snap: 20})
	other := watch(WatchConfig{Bridge: "br1", In: true, Out: true})

	p1.give(eth(mac(2), mac(1), 50))
	b.run()
	refused := eth(mac(2), mac(1), 50)
	refused.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: 7}
	p1.give(refused)
	b.SetLink("p2", true, 40)
	b.run()
	p1.give(eth(mac(2), mac(1), 60))
	b.run()
	b.balanced("br0")

	text := func(all []Sighting) string {
		var s strings.Builder
		for _, x := range all {
			fmt.Fprintf(&s, "%s %s %d vlan %d %s %d %s tag %d of %d\n", x.Bridge, x.Port, x.Direction, x.VLAN, x.Reason, x.Outputs, x.Output, x.Tag.VID(), x.WireLen)
		}
		return s.String()
	}
	const inbound, outbound = int(capture.Inbound), int(capture.Outbound)
	want := fmt.Sprintf(`br0 p1 %d vlan 10  1 p2 tag 0 of 64
br0 p2 %d vlan 10  0  tag 10 of 68
br0 p1 %d vlan 0 vlan-tagged-on-access 0  tag 7 of 68
br0 p1 %d vlan 10  1 p2 tag 0 of 74
br0 p2 %d vlan 10 mtu-exceeded 0  tag 10 of 78
`, inbound, outbound, inbound, inbound, outbound)
	if got := text(sightings(all)); got != want {
		t.Errorf("saw\n%swant\n%s", got, want)
	}
	var lost []string
	for _, x := range sightings(drops) {
		lost = append(lost, x.Reason.String())
	}
	if got := strings.Join(lost, " "); got != "vlan-tagged-on-access mtu-exceeded" {
		t.Errorf("saw the drops %s", got)
	}
	cut := sightings(in)
	if len(cut) != 3 || len(cut[0].Data) != 20 || cut[0].Whole() || cut[0].WireLen != 64 {
		t.Errorf("saw %+v, want three frames cut to 20 bytes", cut)
	}
	if n := len(sightings(other)); n != 0 {
		t.Errorf("saw %d frames of another bridge", n)
	}
	if len(p2.take()) != 1 {
		t.Error("watching changed what is forwarded")
	}
	if x, ok := b.LastDrop("p2", DropMTU); !ok || x.WireLen != 78 || x.Port != "p2" {
		t.Errorf("the last frame dropped is %+v, %t", x, ok)
	}
	if _, ok := b.LastDrop("p2", DropShort); ok {
		t.Error("there is a frame for a reason that was never met")
	}
	for range MaxWatches {
		watch(WatchConfig{In: true})
	}
	if _, err := b.Watch(WatchConfig{In: true}); err == nil {
		t.Errorf("there can be more than %d watches", MaxWatches)
	}
}

// TestWatchSamples: one in N is seen, and says for how many it stands.
func TestWatchSamples(t *testing.T) {
	b := newBench(t, Options{})
	p1 := b.port("br0", "p1", PortConfig{})
	b.port("br0", "p2", PortConfig{}).drain()
	w, err := b.Watch(WatchConfig{In: true, Sample: 10, Snap: 64})
	b.must(err)
	const n = 20_000
	p1.give(slices.Repeat([]packet{eth(broadcast, mac(1), 50)}, n)...)
	b.run()
	seen, stood := 0, uint64(0)
	for _, x := range sightings(w) {
		seen++
		stood += 1 + x.Skipped
	}
	if w.Pool() != n || seen < n/12 || seen > n/8 || stood > n || stood < n-30 {
		t.Errorf("of %d frames, pool %d, %d were seen, standing for %d", n, w.Pool(), seen, stood)
	}
}

// TestRecorder: what happened is there afterwards, by the names of then.
func TestRecorder(t *testing.T) {
	b := newBench(t, Options{Recorder: RecorderOptions{Bytes: MinRecorderBytes, Snap: 64, Rate: 0}})
	p1 := b.port("br0", "p1", PortConfig{})
	b.port("br0", "p2", PortConfig{}).drain()
	recorded := func(since time.Time) (all []Sighting) {
		b.Recorded(since, func(x *Sighting) bool {
			c := *x
			c.Data = bytes.Clone(x.Data)
			all = append(all, c)
			return true
		})
		return all
	}
	p1.give(eth(broadcast, mac(1), 500), packet{data: make([]byte, 5)})
	b.run()
	got := recorded(time.Time{})
	if len(got) != 2 || got[0].Port != "p1" || got[0].Output != "p2" || got[0].WireLen != 514 || len(got[0].Data) < 64 || got[1].Reason != DropShort {
		t.Fatalf("recorded %+v", got)
	}
	if d := time.Since(got[0].Time); d < 0 || d > time.Minute {
		t.Errorf("a frame of now was recorded %v ago", d)
	}
	if n := len(recorded(time.Now().Add(time.Second))); n != 0 {
		t.Errorf("%d frames of the future", n)
	}
	// A port that goes leaves its name to what was seen of it; its number is another's.
	b.must(b.DelPort("p2"))
	b.port("br0", "new", PortConfig{})
	if got = recorded(time.Time{}); got[0].Output != "p2" {
		t.Errorf("a frame that left by p2 is said to have left by %q", got[0].Output)
	}
	// Round and round: the newest are kept; drops have a place of their own.
	for i := range 5000 {
		p := eth(broadcast, mac(1), 50)
		p.data[14], p.data[15] = byte(i>>8), byte(i)
		p1.give(p)
	}
	b.run()
	got = recorded(time.Time{})
	st := b.Recorder()
	slots := (MinRecorderBytes - MinRecorderBytes/dropsShare) / 128
	if len(got) != slots+1 || st.Frames != 5001 || st.Drops != 1 || st.Skipped != 0 {
		t.Errorf("%d records of %d slots, %+v", len(got), slots, st)
	}
	last := got[len(got)-1].Data
	if n := int(last[14])<<8 | int(last[15]); n != 4999 {
		t.Errorf("the last frame recorded is number %d", n)
	}
	if got[0].Reason != DropShort {
		t.Errorf("the drop was overwritten by frames: %+v", got[0])
	}
}

// TestRecorderRate: of more than the rate a sample is kept, which says what it stands
// for.
func TestRecorderRate(t *testing.T) {
	b := newBench(t, Options{Recorder: RecorderOptions{Bytes: MaxRecorderBytes / 64, Snap: 64, Rate: 100}})
	p1 := b.port("br0", "p1", PortConfig{})
	b.port("br0", "p2", PortConfig{}).drain()
	const n = 3000
	p1.give(slices.Repeat([]packet{eth(broadcast, mac(1), 50)}, n)...)
	b.run()
	time.Sleep(20 * time.Millisecond) // the rate's own unit
	p1.give(eth(broadcast, mac(1), 50))
	b.run()
	var kept, stood uint64
	b.Recorded(time.Time{}, func(x *Sighting) bool {
		kept++
		stood += 1 + x.Skipped
		return true
	})
	if kept < 100 || kept > 300 || stood != n+1 {
		t.Errorf("%d frames kept, standing for %d; want some hundred for %d", kept, stood, n+1)
	}
	for _, o := range []RecorderOptions{{Bytes: 5}, {Bytes: 1 << 20, Snap: 10}, {Bytes: 1 << 20, Snap: 64, Rate: -1}} {
		if _, err := New(Options{Workers: 1, Buffers: 64, Recorder: o}); err == nil {
			t.Errorf("a recorder of %+v is accepted", o)
		}
	}
}

// TestTraceForetells: what a trace says would leave, leaves, whatever the switch and
// the frame are like; and a trace changes nothing.
func TestTraceForetells(t *testing.T) {
	for seed := range uint64(30) {
		r := rand.New(rand.NewPCG(seed, 2))
		b := newBench(t, Options{})
		limits := fdb.Limits{Size: 100, Aging: 300}
		b.must(b.AddBridge("br1", BridgeConfig{FDB: limits}))
		b.must(b.SetBridge("br0", BridgeConfig{FDB: limits, ForwardBPDU: r.IntN(2) == 0}))
		var names []string
		for i := range 6 {
			name := fmt.Sprintf("p%d", i)
			names = append(names, name)
			c := PortConfig{Finish: r.IntN(3) == 0, Tunnel: r.IntN(4) == 0, VLAN: VLAN{Mode: VLANMode(r.IntN(4)), Tag: uint16(r.IntN(3))}}
			if r.IntN(4) == 0 {
				c.Group = "mesh"
			}
			if r.IntN(4) == 0 {
				c.Storm = StormLimits{Broadcast: 1}
			}
			d := b.port([]string{"br0", "br1"}[i%2], name, c)
			d.offloads = r.IntN(3) > 0
			b.SetLink(name, r.IntN(6) > 0, 600+r.IntN(9000))
		}
		b.must(b.AddPort("br0", "x0", PortConfig{Patch: true, Peer: "x1"}))
		b.must(b.AddPort("br1", "x1", PortConfig{Patch: true, Peer: "x0"}))
		if r.IntN(3) == 0 { // a loop
			b.must(b.AddPort("br0", "y0", PortConfig{Patch: true, Peer: "y1"}))
			b.must(b.AddPort("br1", "y1", PortConfig{Patch: true, Peer: "y0"}))
		}
		b.must(b.SetStatic("br0", []StaticMAC{{0, mac(3), "p2"}}))
		b.must(b.SetMirrors("br0", []MirrorConfig{
			{Name: "a", All: true, OutPort: "p4", OutVLAN: -1, Snap: r.IntN(2) * 100},
			{Name: "b", Src: []string{"p0"}, OutVLAN: 1},
			{Name: "c", Dst: []string{"p2", "x0"}, OutVLAN: -1, Sink: &sink{}},
		}))
		for range 150 {
			p := eth(mac(byte(r.IntN(6))), mac(byte(1+r.IntN(5))), r.IntN(2000))
			switch r.IntN(6) {
			case 0:
				p = superFrame(mac(byte(r.IntN(6))), mac(byte(1+r.IntN(5))), r.IntN(9000))
			case 1:
				p.data = p.data[:r.IntN(len(p.data))]
			case 2:
				copy(p.data, broadcast[:])
			case 3:
				copy(p.data, []byte{1, 0x80, 0xc2, 0, 0, byte(r.IntN(20))})
			}
			if r.IntN(2) == 0 && len(p.data) >= frame.EthLen && p.offload == (frame.Offload{}) {
				tag := frame.Tag{TPID: frame.TPID8021Q, TCI: uint16(r.IntN(4))}
				p.data = tag.Insert(append(make([]byte, frame.TagLen), p.data...))
			}
			in := names[r.IntN(len(names))]
			st0, _ := b.Bridge("br0")
			st1, _ := b.Bridge("br1")
			traced, err := b.Trace(in, p.data, p.offload)
			b.must(err)
			now0, _ := b.Bridge("br0")
			now1, _ := b.Bridge("br1")
			if st0.Counters != now0.Counters || st1.Counters != now1.Counters || st0.FDB.Learned != now0.FDB.Learned {
				t.Fatalf("seed %d: a trace changed counters or the table", seed)
			}
			b.must(b.Inject(in, []Injected{{p.data, p.offload}}))
			said, left := map[string]int{}, map[string]int{}
			for _, x := range traced.Left {
				said[fmt.Sprintf("%s %v %v %x", x.Port, x.Tag, x.Offload, x.Data)]++
			}
			for name, d := range b.devs {
				for _, s := range d.take() {
					left[fmt.Sprintf("%s %v %v %x", name, s.tag, s.offload, s.data)]++
				}
			}
			if fmt.Sprint(said) != fmt.Sprint(left) {
				t.Fatalf("seed %d: a frame that came in by %s was said to leave as\n%v\nand left as\n%v\nsteps %+v", seed, in, said, left, traced.Steps)
			}
			if len(traced.Left)+len(traced.Drops) == 0 {
				t.Fatalf("seed %d: the trace does not say what became of the frame: %+v", seed, traced.Steps)
			}
		}
		b.balanced("br0")
		b.balanced("br1")
	}
}

// TestTraceText: the steps are the pipeline's, in its order, each with its why.
func TestTraceText(t *testing.T) {
	b := newBench(t, Options{})
	b.port("br0", "web", PortConfig{VLAN: VLAN{Mode: Access, Tag: 10}})
	b.port("br0", "db", PortConfig{VLAN: VLAN{Mode: Access, Tag: 20}})
	b.port("br0", "up", PortConfig{Storm: StormLimits{Broadcast: 10}})
	b.must(b.SetStatic("br0", []StaticMAC{{10, mac(9), "up"}}))
	lines := func(port string, p packet) string {
		tr, err := b.Trace(port, p.data, p.offload)
		b.must(err)
		var s strings.Builder
		for _, x := range tr.Steps {
			fmt.Fprintf(&s, "%s %s: %s\n", x.Stage, x.Port, x.Text)
		}
		return s.String()
	}
	for _, c := range []struct {
		port string
		p    packet
		want string
	}{
		{"web", eth(mac(9), mac(1), 50), `receive web: 02:00:00:00:00:01 > 02:00:00:00:00:09, 64 bytes, untagged
admission web: an access port: the frame is in VLAN 10
learn web: 02:00:00:00:00:01 is new, and learned here
lookup up: 02:00:00:00:00:09 is behind up
output up: put out, tagged 10
transmit up: would be sent: 68 bytes, tagged 10
`},
		{"db", eth(mac(9), mac(2), 50), `receive db: 02:00:00:00:00:02 > 02:00:00:00:00:09, 64 bytes, untagged
admission db: an access port: the frame is in VLAN 20
learn db: 02:00:00:00:00:02 is new, and learned here
lookup : 02:00:00:00:00:09 is not in the table in VLAN 20: flood
flood db: not back to where it came from
output up: put out, tagged 20
transmit up: would be sent: 68 bytes, tagged 20
`},
		{"up", eth(broadcast, mac(3), 50), `receive up: 02:00:00:00:00:03 > ff:ff:ff:ff:ff:ff, 64 bytes, untagged
admission up: a trunk, and no tag: the frame is in VLAN 0, as untagged frames of this bridge are
learn up: 02:00:00:00:00:03 is new, and learned here
lookup : broadcast: flood
storm up: within the port's storm limits
`},
		{"web", eth(mac(1), mac(1), 50), "lookup web: 02:00:00:00:00:01 is behind web\ndrop web: same-port: " + DropSamePort.Help()},
	} {
		if got := lines(c.port, c.p); !strings.Contains(got, c.want) {
			if c.port != "db" { // ports are flooded in the order of their making, or of their names' map
				t.Errorf("steps are\n%swant\n%s", got, c.want)
			} else {
				for _, line := range strings.Split(c.want, "\n") {
					if !strings.Contains(got, line) {
						t.Errorf("steps are\n%swant %q", got, line)
					}
				}
			}
		}
	}
	if _, err := b.Trace("nobody", make([]byte, 60), frame.Offload{}); err == nil {
		t.Error("a port that does not exist can be traced")
	}
}

// TestTraceLive: real frames tell of their way, and go it.
func TestTraceLive(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{})
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	var got []*Traced
	done := make(chan error, 1)
	go func() { // ends after two frames, or with ctx
		_, err := b.TraceLive(ctx, "br0", "p1", nil, 2, func(x *Traced) { got = append(got, x) })
		done <- err
	}()
	for b.snap.Load().live == nil {
		time.Sleep(time.Millisecond)
	}
	p2.give(eth(broadcast, mac(2), 50))
	for range 3 {
		p1.give(eth(mac(2), mac(1), 50))
	}
	b.run()
	b.must(<-done)
	if len(got) != 2 || len(got[0].Left) != 1 || got[0].Left[0].Port != "p2" || got[0].Port != "p1" || got[1].Steps[2].Text != "02:00:00:00:00:01 is known here" {
		t.Errorf("traced %+v", got)
	}
	if n := len(p2.take()); n != 3 {
		t.Errorf("%d frames went through, want 3", n)
	}
	b.balanced("br0")
	if e, _ := b.FDB("br0", func(FDBEntry) bool { return true }); len(e) != 2 {
		t.Errorf("%d MACs are learned, want 2", len(e))
	}
}

// TestHear: ARP, ND and probes reach the control side; a probe ends there, and one
// that comes by a port that is no tunnel is refused.
func TestHear(t *testing.T) {
	type heard struct {
		kind Heard
		port string
		vlan uint16
	}
	told := make(chan heard, 10)
	b := newBench(t, Options{Hear: func(k Heard, x *Sighting) { told <- heard{k, x.Port, x.VLAN} }})
	p1, tun := b.port("br0", "p1", PortConfig{VLAN: VLAN{Mode: Access, Tag: 5}}), b.port("br0", "t1", PortConfig{Tunnel: true})
	kind := func(etherType uint16, payload string) packet {
		p := eth(broadcast, mac(1), 60)
		p.data[12], p.data[13] = byte(etherType>>8), byte(etherType)
		copy(p.data[14:], payload)
		return p
	}
	nd := kind(frame.EtherIPv6, "")
	nd.data[14+6], nd.data[14+40] = 58, 136
	expect := func(want heard) {
		t.Helper()
		select {
		case got := <-told:
			if got != want {
				t.Errorf("heard %+v, want %+v", got, want)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%+v was not heard", want)
		}
	}
	p1.give(kind(frame.EtherARP, ""))
	b.run()
	expect(heard{HeardARP, "p1", 5})
	p1.give(nd)
	b.run()
	expect(heard{HeardND, "p1", 5})
	probe := kind(frame.EtherProbe, frame.ProbeMagic)
	p1.take()
	tun.take()
	p1.give(probe, kind(frame.EtherProbe, "something else"))
	probe.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: 5}
	tun.give(probe)
	b.run()
	expect(heard{HeardProbe, "t1", 5})
	if n := b.drops("br0", "p1", DropProbeRefused); n != 1 {
		t.Errorf("%d probes were refused, want 1", n)
	}
	if n := b.drops("br0", "t1", DropProbe); n != 1 {
		t.Errorf("%d probes ended here, want 1", n)
	}
	if n, m := len(tun.take()), len(p1.take()); n != 1 || m != 0 {
		t.Errorf("%d and %d frames were forwarded; want the one that is no probe", n, m)
	}
	// A frame of the switch's own.
	b.must(b.Emit("t1", frame.Tag{TPID: frame.TPID8021Q, TCI: 9}, probe.data))
	if sent := tun.take(); len(sent) != 1 || sent[0].tag.VID() != 9 {
		t.Errorf("sent %+v", sent)
	}
	if b.Emit("t1", frame.Tag{}, make([]byte, 3)) == nil || b.Emit("nobody", frame.Tag{}, probe.data) == nil {
		t.Error("a frame that makes no sense can be sent")
	}
	b.SetLink("t1", false, 1500)
	b.must(b.Emit("t1", frame.Tag{}, probe.data))
	b.balanced("br0")
}

// TestHistograms: batches and the time they take are counted.
func TestHistograms(t *testing.T) {
	b := newBench(t, Options{})
	p1 := b.port("br0", "p1", PortConfig{})
	b.port("br0", "p2", PortConfig{}).drain()
	for _, n := range []int{1, 2, 3, 64} {
		p1.give(slices.Repeat([]packet{eth(broadcast, mac(1), 50)}, n)...)
		b.run()
	}
	w := b.Workers()[0]
	if w.BatchSizes != [BatchBuckets]uint64{1, 1, 1, 0, 0, 0, 1} {
		t.Errorf("sizes of batches %v", w.BatchSizes)
	}
	var n uint64
	for _, x := range w.Residence {
		n += x
	}
	if n == 0 || w.ResidenceSum <= 0 {
		t.Errorf("%d batches took %v", n, w.ResidenceSum)
	}
}

// TestMirrorCuts: with a snap length a copy fits where the frame itself would not.
func TestMirrorCuts(t *testing.T) {
	b := newBench(t, Options{})
	p1, p2 := b.port("br0", "p1", PortConfig{}), b.port("br0", "p2", PortConfig{})
	span := b.port("br0", "span", PortConfig{})
	b.SetLink("span", true, 100)
	b.SetLink("p2", true, 0)
	b.must(b.SetMirrors("br0", []MirrorConfig{{Name: "m", Src: []string{"p1"}, OutPort: "span", OutVLAN: -1, Snap: 100}}))
	free := b.free()
	p1.give(superFrame(mac(2), mac(1), 9000), eth(mac(2), mac(1), 40))
	b.run()
	whole, cut := p2.take(), span.take()
	if len(whole) != 2 || len(whole[0].data) != 9054 {
		t.Errorf("forwarded %d frames", len(whole))
	}
	if len(cut) != 2 || len(cut[0].data) != 100 || cut[0].offload != (frame.Offload{}) || len(cut[1].data) != 54 {
		t.Errorf("copied %+v", cut)
	}
	if b.free() != free {
		t.Errorf("%d buffers are free, %d were", b.free(), free)
	}
	b.balanced("br0")
}

// BenchmarkTrace: what a frame takes that is traced, as a live trace does it too.
func BenchmarkTrace(bm *testing.B) {
	for _, c := range []struct {
		name   string
		ports  int
		bounds bounds
	}{{"live-2", 2, liveBounds}, {"live-1000", 1000, liveBounds}, {"dry-1000", 1000, dryBounds}} {
		ports := c.ports
		bm.Run(c.name, func(bm *testing.B) {
			defer func(was bounds) { dryBounds = was }(dryBounds)
			dryBounds = c.bounds
			b := newBench(bm, Options{})
			b.port("br0", "p", PortConfig{})
			b.Together(func() {
				for i := range ports - 1 {
					b.must(b.AddPort("br0", fmt.Sprint("q", i), PortConfig{}))
					b.must(b.Attach(fmt.Sprint("q", i), keeper{true}, true, 1500))
				}
			})
			p := eth(broadcast, mac(1), 50)
			bm.ReportAllocs()
			for bm.Loop() {
				if _, err := b.Trace("p", p.data, p.offload); err != nil {
					bm.Fatal(err)
				}
			}
		})
	}
}
