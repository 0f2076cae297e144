package ctl

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/fdb"
	"vswitch/frame"
	"vswitch/probe"
	vswitch "vswitch/switch"
)

// testProber is a prober of a switch with a bridge br0, tunnel ports p0 to p2, and a
// container's port c0, which have no device: what it sends is dropped.
func testProber(t *testing.T) *prober {
	t.Helper()
	sw, err := vswitch.New(vswitch.Options{Workers: 1, Buffers: frame.MaxBatch})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(sw.Close)
	if err := sw.AddBridge("br0", vswitch.BridgeConfig{FDB: fdb.DefaultLimits()}); err != nil {
		t.Fatal(err)
	}
	ports := map[string]*portState{}
	for _, name := range []string{"p0", "p1", "p2", "c0"} {
		ports[name] = &portState{bridge: "br0", port: config.Port{Name: name, Type: string(config.VXLANPort)}, tunnel: &tunnelPort{remote: netip.MustParseAddr("192.0.2.2")}, link: noLink}
		if name == "c0" {
			ports[name] = &portState{bridge: "br0", port: config.Port{Name: name}, link: noLink}
		}
		if err := sw.AddPort("br0", name, vswitch.PortConfig{Tunnel: name != "c0"}); err != nil {
			t.Fatal(err)
		}
	}
	p := newProber()
	p.begin(sw, &reconciler{ports: ports, bridges: map[string]*bridgeState{}}, "0123456789abcdef")
	return p
}

// sinkDevice is a tunnel's device that swallows what is sent.
type sinkDevice struct{}

func (sinkDevice) Queues() int                                   { return 0 }
func (sinkDevice) FD(int) int                                    { return -1 }
func (sinkDevice) Recv(int, *frame.Batch, int) (int, unix.Errno) { return 0, unix.EAGAIN }
func (sinkDevice) Send(_ int, _ *frame.Vectors, out []frame.Out) (int, unix.Errno) {
	return len(out), 0
}
func (sinkDevice) SendFD(int) int { return -1 }
func (sinkDevice) Offloads() bool { return true }
func (sinkDevice) Missed() uint64 { return 0 }
func (sinkDevice) Close() error   { return nil }
func (sinkDevice) Bind(uint32)    {}
func (sinkDevice) Unbind()        {}

// raise brings a port up.
func (p *prober) raise(t *testing.T, port string) {
	t.Helper()
	if err := p.sw.Attach(port, sinkDevice{}, true, 1500); err != nil {
		t.Fatal(err)
	}
}

// sent counts what a prober has sent.
func (p *prober) sent(t *testing.T) uint64 {
	t.Helper()
	st, err := p.sw.Bridge("br0")
	if err != nil {
		t.Fatal(err)
	}
	return st.Counters.Answers
}

// heardAt is a probe that came in by a port.
func heardAt(t *testing.T, port string, at time.Time, q probe.Probe) heardProbe {
	t.Helper()
	b, err := q.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	return heardProbe{bridge: "br0", port: port, data: b, length: len(b), at: at}
}

// TestReportsGoBack: only a report about a copy that this switch sent, by the port that
// it was sent by, is passed back, to the port that its probe came by.
func TestReportsGoBack(t *testing.T) {
	p := testProber(t)
	now := time.Now()
	id := probe.ID{1}
	p.budget.relays.Add(relayKey{id, 7}, relay{out: "p1", back: "p0", span: 5, at: now})
	p.budget.relays.Add(relayKey{id, 8}, relay{out: "p1", back: "p0", span: 5, at: now.Add(-2 * probeAge)})
	p.budget.relays.Add(relayKey{id, 9}, relay{out: "p1", back: "c0", span: 5, at: now})
	text, err := probe.Hop{Span: 7, Host: "h"}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, port string
		id         probe.ID
		span       uint32
		passed     bool
	}{
		{"a copy's, by its port", "p1", id, 7, true},
		{"by another port", "p2", id, 7, false},
		{"another copy's", "p1", id, 6, false},
		{"another measurement's", "p1", probe.ID{2}, 7, false},
		{"too late", "p1", id, 8, false},
		{"to a port that is a container's by now", "p1", id, 9, false},
	} {
		before := p.sent(t)
		p.answer(heardAt(t, tc.port, now, probe.Probe{
			Kind: probe.Report, Hop: 2, TTL: probe.MaxTTL, ID: tc.id, Span: tc.span, Payload: text,
		}))
		if got := p.sent(t) > before; got != tc.passed {
			t.Errorf("%s: passed back: %v", tc.name, got)
		}
	}
}

// TestLateReportsGoNowhere: what is reported about a probe that began at a container's
// port, after its measurement ended, is not put out there.
func TestLateReportsGoNowhere(t *testing.T) {
	p := testProber(t)
	for _, name := range []string{"p0", "p1", "p2"} {
		p.raise(t, name)
	}
	id, _, done, _ := p.measure()
	hop, err := p.hop("br0", "c0", 0, frame.Tag{}, probe.Probe{
		Dst: [6]byte{2, 9}, Src: [6]byte{2, 1}, Kind: probe.Path, Hop: 1, TTL: probe.MaxTTL, ID: id, Span: 1,
	}, nil)
	if err != nil || len(hop.Outs) != 3 || hop.Outs[0].Span == 0 {
		t.Fatalf("%+v, %v", hop, err)
	}
	done()
	text, err := probe.Hop{Span: hop.Outs[0].Span, Host: "far"}.Append(nil)
	if err != nil {
		t.Fatal(err)
	}
	before := p.sent(t)
	p.answer(heardAt(t, hop.Outs[0].Port, time.Now(), probe.Probe{Kind: probe.Report, Hop: 2, TTL: probe.MaxTTL, ID: id, Span: hop.Outs[0].Span, Payload: text}))
	if n := p.sent(t) - before; n != 0 {
		t.Errorf("%d frames were sent for a report that comes late", n)
	}
}

// TestOnePortStarvesNoOther: however much comes by one port, what comes by another is
// heard, carried, answered and passed back.
func TestOnePortStarvesNoOther(t *testing.T) {
	p := testProber(t)
	p.raise(t, "p2")
	now := time.Now()
	id := func(n int) probe.ID { return probe.ID{1, byte(n), byte(n >> 8)} }
	path := func(n int) probe.Probe {
		return probe.Probe{Dst: [6]byte{2, 9}, Src: [6]byte{2, 1}, Kind: probe.Path, Hop: 1, TTL: probe.MaxTTL, ID: id(n), Span: 1}
	}
	echo := probe.Probe{Dst: echoTo, Kind: probe.Echo, Hop: 1, TTL: 1, Span: 1}
	report := func(id probe.ID) probe.Probe {
		return probe.Probe{Kind: probe.Report, Hop: 2, TTL: probe.MaxTTL, ID: id, Span: 1, Payload: []byte("{}")}
	}
	wanted := probe.ID{9}
	p.budget.remember(p.budget.of("p1"), relayKey{wanted, 1}, relay{out: "p1", back: "p2", at: now})
	for n := range 3000 {
		p.answer(heardAt(t, "p0", now, path(n)))
		p.answer(heardAt(t, "p0", now, echo))
		p.answer(heardAt(t, "p0", now, report(id(n))))
		p.answer(heardAt(t, "p1", now, report(id(n)))) // by which something is wanted, too
	}
	// Each path is answered, and sent on by p2.
	if n, most := p.sent(t), uint64(2*shareEach.paths.burst+shareEach.echoes.each); n == 0 || n > most {
		t.Errorf("%d frames were sent for one port, at most %d are to be", n, most)
	}
	for name, q := range map[string]probe.Probe{"a path": path(5000), "an echo": echo, "a report": report(wanted)} {
		before := p.sent(t)
		p.answer(heardAt(t, "p1", now, q))
		if p.sent(t) == before {
			t.Errorf("%s of another port is not answered", name)
		}
	}
	// Copies of one port push out its own alone.
	for n := range uint32(5 * maxRelays) {
		p.budget.remember(p.budget.of("p0"), relayKey{id(1), n}, relay{out: "p2", back: "p0", at: now})
	}
	if _, ok := p.budget.relays.Get(relayKey{wanted, 1}); !ok || p.budget.relays.Len() > 3*relaysEach {
		t.Errorf("one port's copies have pushed out another's, or are %d", p.budget.relays.Len())
	}
	// The queue, which nobody empties.
	x := vswitch.Sighting{Bridge: "br0", Port: "p0", Data: heardAt(t, "p0", now, echo).data}
	for range 5 * probeQueue {
		p.hear(&x)
	}
	full := len(p.queue)
	x.Port = "p1"
	p.hear(&x)
	if len(p.queue) != full+1 {
		t.Errorf("one port has filled the queue: %d wait", full)
	}
	for range full + 1 {
		p.next((<-p.queue).port)
	}
	if len(p.waiting) != 0 {
		t.Errorf("%v wait in an empty queue", p.waiting)
	}
}

// TestPeersAreToldTheirOwn: another switch is told where a target is in VLANs that its
// tunnel port has, and in no other.
func TestPeersAreToldTheirOwn(t *testing.T) {
	p := testProber(t)
	target := [6]byte{2, 9}
	if err := p.sw.SetStatic("br0", []vswitch.StaticMAC{{VLAN: 20, MAC: target, Port: "p2"}}); err != nil {
		t.Fatal(err)
	}
	p.r.ports["p0"].port.Options = config.Options{"trunks": "0,10"}
	q := probe.Probe{Dst: target, Src: [6]byte{2, 1}, Kind: probe.Path, Hop: 1, TTL: probe.MaxTTL, ID: probe.ID{1}, Span: 1}
	for _, tc := range []struct {
		port string
		s    *share
		told bool
	}{{"p0", p.budget.of("p0"), false}, {"p1", p.budget.of("p1"), true}, {"p0", nil, true}} {
		q.ID[1]++
		hop, err := p.hop("br0", tc.port, 10, frame.Tag{TPID: frame.TPID8021Q, TCI: 10}, q, tc.s)
		if err != nil || (hop.Other != nil) != tc.told {
			t.Errorf("%s: %+v, %v; want that it is told where the target is: %v", tc.port, hop, err, tc.told)
		}
	}
}

// TestCopiesAreBounded: of floods by many tunnels, so many copies go on a second, and
// the rest is counted.
func TestCopiesAreBounded(t *testing.T) {
	p := testProber(t)
	const tunnels = 100
	for i := range tunnels {
		name := fmt.Sprintf("t%d", i)
		p.r.ports[name] = &portState{bridge: "br0", port: config.Port{Name: name, Type: string(config.VXLANPort)}, tunnel: &tunnelPort{remote: netip.MustParseAddr("192.0.2.2")}, link: noLink}
		if err := p.sw.AddPort("br0", name, vswitch.PortConfig{Tunnel: true}); err != nil {
			t.Fatal(err)
		}
		p.raise(t, name)
	}
	now := time.Now()
	for n := range 15 {
		q := probe.Probe{Dst: [6]byte{2, 9}, Src: [6]byte{2, 1}, Kind: probe.Path, Hop: 1, TTL: probe.MaxTTL, ID: probe.ID{byte(n)}, Span: 1}
		hop, err := p.hop("br0", "p0", 0, frame.Tag{}, q, p.budget.of("p0"))
		if err != nil || len(hop.Outs) > maxCopies || len(hop.Outs)+hop.More != tunnels || len(hop.Not) > 0 {
			t.Fatalf("path %d: %d outputs, %d more, %v", n, len(hop.Outs), hop.More, err)
		}
	}
	c := shareEach.copies
	if n, most := p.sent(t), c.burst+(time.Since(now).Seconds()+1)*c.each; n < uint64(c.burst) || float64(n) > most {
		t.Errorf("%d copies were sent on, %.0f to %.0f are to be", n, c.burst, most)
	}
}

// TestProberIsBounded: whatever comes by a tunnel, nothing grows without bound, and
// nothing goes wrong.
func TestProberIsBounded(t *testing.T) {
	p := testProber(t)
	for i := range 20000 {
		b := make([]byte, rand.N(120))
		for j := range b {
			b[j] = byte(rand.Uint32())
		}
		if i%2 == 0 { // a probe, or nearly one
			q := probe.Probe{Kind: probe.Kind(1 + rand.N(4)), Hop: 1, TTL: uint8(1 + rand.N(16)), ID: probe.ID{byte(i), byte(i >> 8), byte(i >> 16)}, Span: rand.Uint32()}
			switch q.Kind {
			case probe.Report:
				q.Payload = []byte("{}")
			case probe.EchoReply:
				q.Payload = probe.EchoLen(60)
			}
			b, _ = q.Append(nil)
			b[rand.N(len(b))] ^= byte(rand.N(2))
		}
		for _, l := range []*limits{&p.budget.all, &p.budget.of("p0").limits} {
			l.paths.left, l.echoes.left, l.reports.left, l.copies.left = 1e9, 1e9, 1e9, 1e9
		}
		p.answer(heardProbe{bridge: "br0", port: "p0", vlan: uint16(rand.N(4096)), data: b, at: time.Now()})
	}
	if p.budget.relays.Len() > maxRelays || p.visits.Len() > maxVisits || len(p.measuring) > 0 {
		t.Errorf("%d relays, %d visits, %d measurements", p.budget.relays.Len(), p.visits.Len(), len(p.measuring))
	}
	for range maxMeasuring {
		if _, _, _, ok := p.measure(); !ok {
			t.Fatal("too few measurements")
		}
	}
	if _, _, _, ok := p.measure(); ok {
		t.Error("there is no bound on measurements")
	}
}

func TestAllowance(t *testing.T) {
	a := allowance{each: 100}
	now := time.Now()
	count := func(now time.Time) (n int) {
		for a.take(now) {
			n++
		}
		return n
	}
	for _, tc := range []struct {
		after time.Duration
		want  int
	}{{0, 100}, {0, 0}, {50 * time.Millisecond, 5}, {time.Hour, 100}, {-time.Hour, 0}, {10 * time.Millisecond, 1}} {
		now = now.Add(tc.after)
		if n := count(now); n != tc.want {
			t.Errorf("after %v: %d, want %d", tc.after, n, tc.want)
		}
	}
	a = allowance{each: 10, burst: 20}
	if n := count(now); n != 20 {
		t.Errorf("%d at once, want 20", n)
	}
	if n := count(now.Add(500 * time.Millisecond)); n != 5 {
		t.Errorf("%d after half a second, want 5", n)
	}
}

func TestVLANsAt(t *testing.T) {
	set := func(vids ...uint16) *vswitch.VLANSet {
		s := new(vswitch.VLANSet)
		for _, v := range vids {
			s.Add(v)
		}
		return s
	}
	ten := 10
	heard := []vswitch.FDBEntry{{VLAN: 30, Port: "p", Age: 9}, {VLAN: 20, Port: "p", Age: 1}, {VLAN: 40, Port: "q"}}
	for _, tc := range []struct {
		v    vswitch.VLAN
		vlan *int
		want []uint16
		tag  frame.Tag // of the first
	}{
		{vswitch.VLAN{Mode: vswitch.Access, Tag: 10}, nil, []uint16{10}, frame.Tag{}},
		{vswitch.VLAN{Mode: vswitch.Access, Tag: 20}, &ten, nil, frame.Tag{}},
		{vswitch.VLAN{}, nil, []uint16{20, 30, 40, 0}, frame.Tag{TPID: frame.TPID8021Q, TCI: 20}},
		{vswitch.VLAN{}, &ten, []uint16{10}, frame.Tag{TPID: frame.TPID8021Q, TCI: 10}},
		{vswitch.VLAN{Trunks: set(30, 50)}, nil, []uint16{30}, frame.Tag{TPID: frame.TPID8021Q, TCI: 30}},
		{vswitch.VLAN{Trunks: set(50, 60)}, nil, []uint16{50}, frame.Tag{TPID: frame.TPID8021Q, TCI: 50}},
		{vswitch.VLAN{Mode: vswitch.NativeUntagged, Tag: 10, Trunks: set(20)}, nil, []uint16{20, 10}, frame.Tag{TPID: frame.TPID8021Q, TCI: 20}},
		{vswitch.VLAN{Mode: vswitch.NativeTagged, Tag: 10, Trunks: set(50)}, nil, []uint16{10}, frame.Tag{}},
	} {
		got := vlansAt(api.PathQuery{FromPort: "p", VLAN: tc.vlan}, tc.v, heard)
		if !slices.Equal(got, tc.want) {
			t.Errorf("%+v: %v, want %v", tc.v, got, tc.want)
		} else if len(got) > 0 && tagOf(tc.v, got[0]) != tc.tag {
			t.Errorf("%+v: tag %+v, want %+v", tc.v, tagOf(tc.v, got[0]), tc.tag)
		}
	}
}

func TestEchoTag(t *testing.T) {
	only := new(vswitch.VLANSet)
	only.Add(30)
	for _, tc := range []struct {
		v    vswitch.VLAN
		want frame.Tag
	}{
		{vswitch.VLAN{}, frame.Tag{}},
		{vswitch.VLAN{Mode: vswitch.Access, Tag: 10}, frame.Tag{}},
		{vswitch.VLAN{Mode: vswitch.NativeTagged, Tag: 10, Trunks: only}, frame.Tag{}},
		{vswitch.VLAN{Trunks: only}, frame.Tag{TPID: frame.TPID8021Q, TCI: 30}},
	} {
		if got := echoTag(tc.v); got != tc.want {
			t.Errorf("%+v: %+v, want %+v", tc.v, got, tc.want)
		}
	}
}

// TestJudgePath: what each end of a path is said to be.
func TestJudgePath(t *testing.T) {
	out := api.PathOutput{Port: "veth9"}
	far := api.PathOutput{Port: "vx0", Remote: "192.0.2.2"}
	first := api.PathHop{Host: "a", Bridge: "br0", InPort: "veth1", Outputs: []api.PathOutput{far}}
	silent := api.PathHop{Hop: 1, Silent: true, Notes: []string{"no answer from 192.0.2.2"}}
	for _, tc := range []struct {
		name    string
		hops    []api.PathHop
		reached bool
		want    string
	}{
		{"here", []api.PathHop{{Host: "a", Bridge: "br0", InPort: "veth1", Outputs: []api.PathOutput{out}}}, true, "leaves by veth9 of bridge br0 on a, without a tunnel"},
		{"there", []api.PathHop{first, {Hop: 1, Host: "b", Bridge: "br1", InPort: "vx0", Outputs: []api.PathOutput{out}}}, true, "leaves by veth9 of bridge br1 on b, over one tunnel"},
		{"unknown, and one port is left", []api.PathHop{{Host: "a", Bridge: "br0", InPort: "veth1", Outputs: []api.PathOutput{out}, Notes: []string{"the address is not in the table here: the frame is flooded"}}}, true,
			"is flooded: no switch on the way knows it; it leaves by one port on one switch"},
		{"known to one of two", []api.PathHop{{Host: "a", Bridge: "br0", InPort: "veth1", Outputs: []api.PathOutput{far}, Known: true},
			{Hop: 1, Host: "b", Bridge: "br0", InPort: "vx0", Outputs: []api.PathOutput{out}, Notes: []string{"the address is not in the table here: the frame is flooded"}}}, true,
			"is flooded: not every switch knows where it is; it leaves by one port on one switch"},
		{"known, and a copy is dropped", []api.PathHop{{Host: "a", Bridge: "br0", InPort: "veth1", Outputs: []api.PathOutput{out}, Known: true, Drops: []api.PathDrop{{Port: "veth8", Out: true, Reason: "port-down"}}}}, true,
			"leaves by veth9 of bridge br0 on a, without a tunnel; and dropped at veth8 on a: port-down"},
		{"unknown, and nobody answers", []api.PathHop{{Host: "a", Bridge: "br0", InPort: "veth1", Outputs: []api.PathOutput{far}, Notes: []string{"the address is not in the table here: the frame is flooded"}}, silent}, false,
			"no answer from 192.0.2.2; no switch on the way knows the address"},
		{"more than is told", []api.PathHop{{Host: "a", Bridge: "br0", InPort: "veth1", Outputs: []api.PathOutput{far}, Known: true}, {Hop: 1, Host: "b", Bridge: "br0", InPort: "vx0", Known: true, More: 3}}, false,
			"was not followed to its end; ports more that are not told, nor followed: 3"},
		{"a group", []api.PathHop{{Host: "a", Bridge: "br0", InPort: "veth1", Outputs: []api.PathOutput{out}, Notes: []string{"a group address: the frame is flooded"}}}, true,
			"is flooded; it leaves by one port on one switch"},
		{"flooded", []api.PathHop{first, {Hop: 1, Host: "b", Bridge: "br0", InPort: "vx0", Outputs: []api.PathOutput{out, {Port: "veth8"}}}}, true, "leaves by 2 ports on one switch"},
		{"silent", []api.PathHop{first, silent}, false, "no answer from 192.0.2.2"},
		{"dropped", []api.PathHop{first, {Hop: 1, Host: "b", Bridge: "br0", InPort: "vx0", Drops: []api.PathDrop{{Port: "vx0", Reason: "no-output", Help: "h"}}}}, false, "dropped at vx0 of bridge br0 on b: no-output"},
		{"dropped on its way out", []api.PathHop{{Host: "a", Bridge: "br0", InPort: "veth1", Drops: []api.PathDrop{{Port: "vx0", Out: true, Reason: "port-down"}}}}, false, "dropped at vx0 on a: port-down"},
		{"a loop", []api.PathHop{first, {Hop: 1, Host: "b", Bridge: "br0", InPort: "vx0", Outputs: []api.PathOutput{out}, Notes: []string{"a loop: the frame has been in this bridge before"}}}, true, "a loop: the frame comes back to bridge br0 on b, by port vx0"},
		{"too far", []api.PathHop{first, {Hop: 1, Host: "b", Bridge: "br0", InPort: "vx0", Outputs: []api.PathOutput{far}, Notes: []string{"the probe goes no further than 16 switches"}}}, false, "longer than a probe goes"},
		{"nowhere", []api.PathHop{first}, false, "leaves nowhere"},
	} {
		p := api.Path{MAC: "02:00:00:00:00:02", Hops: tc.hops}
		judgePath(&p)
		if p.Reached != tc.reached || !strings.Contains(p.Verdict, tc.want) {
			t.Errorf("%s: %v, %q, want %q", tc.name, p.Reached, p.Verdict, tc.want)
		}
	}
}
