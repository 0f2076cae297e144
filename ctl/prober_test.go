package ctl

import (
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/fdb"
	"vswitch/frame"
	"vswitch/probe"
	vswitch "vswitch/switch"
)

// testProber is a prober of a switch with a bridge br0 and ports p0 to p2, which have
// no device: what it sends is dropped.
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
	for _, name := range []string{"p0", "p1", "p2"} {
		if err := sw.AddPort("br0", name, vswitch.PortConfig{Tunnel: true}); err != nil {
			t.Fatal(err)
		}
	}
	p := newProber()
	p.begin(sw, &reconciler{ports: map[string]*portState{}, bridges: map[string]*bridgeState{}}, "0123456789abcdef")
	return p
}

// TestReportsGoBack: only a report about a copy that this switch sent, by the port that
// it was sent by, is passed back, to the port that its probe came by.
func TestReportsGoBack(t *testing.T) {
	p := testProber(t)
	now := time.Now()
	id := probe.ID{1}
	p.relays.Add(relayKey{id, 7}, relay{out: "p1", back: "p0", span: 5, at: now})
	p.relays.Add(relayKey{id, 8}, relay{out: "p1", back: "p0", span: 5, at: now.Add(-2 * probeAge)})
	answers := func() uint64 {
		st, err := p.sw.Bridge("br0")
		if err != nil {
			t.Fatal(err)
		}
		return st.Counters.Answers
	}
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
	} {
		before := answers()
		p.passBack(heardProbe{port: tc.port, at: now}, probe.Probe{
			Kind: probe.Report, Hop: 2, TTL: probe.MaxTTL, ID: tc.id, Span: tc.span, Payload: text,
		})
		if got := answers() > before; got != tc.passed {
			t.Errorf("%s: passed back: %v", tc.name, got)
		}
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
		p.carried.left, p.echoed.left, p.passed.left = 1e9, 1e9, 1e9
		p.answer(heardProbe{bridge: "br0", port: "p0", vlan: uint16(rand.N(4096)), data: b, at: time.Now()})
	}
	if p.relays.Len() > maxRelays || p.visits.Len() > maxVisits || len(p.measuring) > 0 {
		t.Errorf("%d relays, %d visits, %d measurements", p.relays.Len(), p.visits.Len(), len(p.measuring))
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
}

// TestLargest compares the search with the truth, for every size that may be it.
func TestLargest(t *testing.T) {
	for range 2000 {
		low := 60 + rand.N(100)
		high := low + 1 + rand.N(9000)
		truth := low + rand.N(high-low)
		var tries atomic.Int32
		got := largest(low, high, func(n int) bool {
			if n <= low || n >= high {
				t.Errorf("%d is tried, between %d and %d", n, low, high)
			}
			tries.Add(1)
			return n <= truth
		})
		if got != truth || tries.Load() > 5*sizesAtOnce {
			t.Fatalf("%d to %d: %d after %d tries, want %d", low, high, got, tries.Load(), truth)
		}
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
			"is flooded: not every switch knows where it is; it leaves by one port on one switch"},
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
