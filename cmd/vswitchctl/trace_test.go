package main

import (
	"bytes"
	"encoding/hex"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"vswitch/capture"
	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

// wayOut is a trace with most of what there can be: a patch, a flood, a drop, an
// answer.
func wayOut() api.Trace {
	const text = "02:00:00:00:00:01 > 02:00:00:00:00:02, IPv4 10.0.0.1.49152 > 10.0.0.2.80: tcp S 1:1 win 65535, length 0"
	frame := func(bridge, port string, vid int) api.TraceFrame {
		f := api.TraceFrame{Bridge: bridge, Port: port, VLAN: vid, Length: 60, Summary: text, Data: "0200"}
		if vid != 0 {
			f.Tag, f.Length = &api.VLANTag{VID: vid, PCP: 5}, 64
		}
		return f
	}
	drop := frame("br1", "vx0", 0)
	drop.Reason, drop.Help = "mtu-exceeded", "the frame is longer than the output port's interface or tunnel takes"
	answer := frame("br0", "veth1", 0)
	answer.Own, answer.Summary = true, "02:00:00:00:00:02 > 02:00:00:00:00:01, IPv4 10.0.0.2 > 10.0.0.1: icmp unreachable, need to frag (mtu 1450)"
	big := frame("br0", "trunk0", 10)
	big.GSOSize, big.Length = 1460, 10054
	return api.Trace{
		Time: now, Bridge: "br0", InPort: "veth1", Frame: frame("br0", "veth1", 0),
		Steps: []api.TraceStep{
			{Bridge: "br0", Port: "veth1", Stage: "receive", Text: "02:00:00:00:00:01 > 02:00:00:00:00:02, 60 bytes, untagged"},
			{Bridge: "br0", Port: "veth1", Stage: "admission", Text: "an access port: the frame is in VLAN 10"},
			{Bridge: "br0", Stage: "lookup", Text: "02:00:00:00:00:02 is not in the table in VLAN 10: flood"},
			{Bridge: "br0", Port: "trunk0", Stage: "output", Text: "put out, tagged 10 priority 5"},
			{Bridge: "br0", Port: "p0", Stage: "output", Text: "put out through the patch, untagged"},
			{Depth: 1, Bridge: "br1", Port: "p1", Stage: "receive", Text: "through the patch, untagged"},
			{Bridge: "br0", Port: "veth2\x1b[31m", Stage: "flood", Text: "not: the port is down"},
			{Bridge: "br1", Port: "vx0", Stage: "drop", Reason: "mtu-exceeded", Text: "mtu-exceeded: the frame is longer than the output port's interface or tunnel takes"},
		},
		Out: []api.TraceFrame{big, answer}, Drops: []api.TraceFrame{drop},
		Verdict: "would leave by trunk0 tagged 10; its sender would be told by ICMP, by veth1 untagged; would be dropped at vx0: mtu-exceeded: the frame is longer than the output port's interface or tunnel takes",
	}
}

func newTraceCLI(t *testing.T) *cli {
	c := newCLI(t)
	c.svc.Tr.Trace = wayOut()
	live := wayOut()
	live.Live, live.Steps, live.Out = true, live.Steps[:2], live.Out[:0]
	c.svc.Tr.Live = []api.Trace{live, live}
	c.svc.Tr.LiveEnd = api.TraceEnd{Traced: 2}
	c.svc.Tr.Replayed = api.ReplayResult{Frames: 1000, Bytes: 64000, Seconds: 2, Cut: 1, Skipped: 3, Refused: []api.ReplayRefusal{{Reason: "shorter than an Ethernet header (14 bytes)", Packets: 2, First: 7}}}
	return c
}

func TestTraceGolden(t *testing.T) {
	file := captureFile(t)
	golden(t, newTraceCLI(t), map[string][]string{
		"trace":       {"trace", "br0", "in_port=veth1", "--frame", "02000000000102000000000208004500"},
		"trace-json":  {"trace", "in_port=veth1", "--frame", "0200", "-o", "json"},
		"trace-live":  {"trace", "--live", "br0", "icmp", "or", "arp", "-c", "2"},
		"replay":      {"replay", "br0", "in_port=veth1", file, "--loop", "2"},
		"replay-json": {"replay", "in_port=veth1", file, "-o", "json"},
	})
}

// captureFile is a pcapng file with one frame in, one out, and one of no Ethernet.
func captureFile(t *testing.T) string {
	var b bytes.Buffer
	w := capture.NewWriter(&b, capture.Options{})
	for i, d := range []capture.Direction{capture.Inbound, capture.Outbound, capture.Unknown} {
		w.Write(&capture.Packet{Time: now.Add(time.Duration(i) * time.Second), Interface: capture.Interface{Name: "veth1"}, Direction: d, Data: make([]byte, 60-50*(i/2))})
	}
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	name := filepath.Join(t.TempDir(), "a.pcapng")
	if err := os.WriteFile(name, b.Bytes(), 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// What trace asks the daemon, and what it says of what it filled in.
func TestTraceAsks(t *testing.T) {
	file := captureFile(t)
	zeros := hex.EncodeToString(make([]byte, 60))
	for _, tc := range []struct {
		args   string
		want   api.TraceRequest // the last thing asked; Frame: what it begins with
		stderr string
		code   int
	}{
		{args: "trace br0 in_port=veth1 eth_src=02:00:00:00:00:01 eth_dst=broadcast", want: api.TraceRequest{Bridge: "br0", InPort: "veth1", Frame: "ffffffffffff02000000000188b6"}},
		{args: "trace in_port=veth1 eth_src=02:00:00:00:00:01 eth_dst=broadcast arp", want: api.TraceRequest{InPort: "veth1", Frame: "ffffffffffff0200000000010806"}},
		{args: "trace in_port=veth1 --pcap " + file, want: api.TraceRequest{InPort: "veth1", Frame: zeros}, stderr: "frame 3: shorter than an Ethernet header"},
		{args: "trace --pcap " + file, want: api.TraceRequest{InPort: "veth1", Frame: zeros}, stderr: "frame 3: shorter"},
		{args: "trace in_port=veth1 --frame 02:00", want: api.TraceRequest{InPort: "veth1", Frame: "0200"}},
		{args: "trace in_port=veth1 --frame 02:0", code: exitUsage, stderr: "half a byte"},
		{args: "trace ip in_port=veth1 eth_src=02:00:00:00:00:01 eth_dst=broadcast", want: api.TraceRequest{InPort: "veth1", Frame: "ffffffffffff0200000000010800"}},
		{args: "trace br0", code: exitUsage, stderr: "in_port=P is missing"},
		{args: "trace in_port=veth1 in_port=veth2", code: exitUsage, stderr: "one port is wanted"},
		{args: "trace in_port=veth1 --frame 0200 port=80", code: exitUsage, stderr: "words make a frame"},
		{args: "trace in_port=veth1 prot=tcp", code: exitUsage, stderr: `"prot": there is no such word`},
		{args: "trace in_port=veth1 --frame 0200 --live", code: exitUsage, stderr: "--frame and --live: one of them is wanted"},
		{args: "trace in_port=veth1 eth_dst=broadcast", want: api.TraceRequest{InPort: "veth1", Frame: "ffffffffffff02000000000188b6"}, stderr: "eth_src=02:00:00:00:00:01, which is known at veth1"},
		{args: "trace in_port=veth9 eth_dst=broadcast", code: exitUsage, stderr: "eth_src= is missing, and no MAC address is known at veth9: give it"},
		{args: "trace in_port=veth2 eth_dst=broadcast", code: exitUsage, stderr: "eth_src= is missing: give one of the 4 that are known at veth2: 02:00:00:00:00:02, 02:00:00:00:00:12, 02:00:00:00:00:13, …"},
		{args: "trace in_port=veth1 eth_src=02:00:00:00:00:01 ip_dst=10.0.0.9", code: exitUsage, stderr: "eth_dst= is missing, and nobody was heard to say that he has 10.0.0.9: give it, or eth_dst=broadcast"},
		{args: "trace in_port=veth1 eth_src=02:00:00:00:00:01 ip_dst=10.0.0.2 tcp", want: api.TraceRequest{InPort: "veth1", Frame: "0200000000090200000000010800"}, stderr: "eth_dst=02:00:00:00:00:09, which said that it has 10.0.0.2"},
		{args: "trace --path 10.0.0.2", code: exitUsage, stderr: "--path MAC|IP wants the port"},
		{args: "trace --live -c -1", code: exitUsage, stderr: "-c -1"},
		{args: "trace", code: exitUsage, stderr: "in_port=P is missing"},
	} {
		c := newTraceCLI(t)
		for i := range 3 {
			c.svc.F = append(c.svc.F, api.FDBEntry{Bridge: "br0", Port: "veth2", MAC: "02:00:00:00:00:1" + string(rune('2'+i))})
		}
		c.svc.Y.Why.Neighbors = []api.Neighbor{{IP: "10.0.0.2", MAC: "02:00:00:00:00:09"}}
		code, _, stderr := c.run("", strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(stderr, tc.stderr) || tc.stderr == "" && stderr != "" {
			t.Errorf("%s: exit %d, stderr %q", tc.args, code, stderr)
		}
		var last any
		for _, x := range c.svc.Asked() {
			last = x
		}
		got, _ := last.(api.TraceRequest)
		if tc.code == exitDone {
			if !strings.HasPrefix(got.Frame, tc.want.Frame) {
				t.Errorf("%s: asked %+v", tc.args, last)
			}
			got.Frame = tc.want.Frame
		}
		if !reflect.DeepEqual(got, tc.want) {
			t.Errorf("%s: asked %+v, want %+v", tc.args, last, tc.want)
		}
	}
}

// A super-frame goes with its offload state.
func TestTraceOfASuperFrame(t *testing.T) {
	c := newTraceCLI(t)
	if code, _, errs := c.run("", "trace", "in_port=veth1", "eth_src=02:00:00:00:00:01", "eth_dst=02:00:00:00:00:02", "super=5000"); code != exitDone {
		t.Fatal(errs)
	}
	got := c.svc.Asked()[0].(api.TraceRequest)
	want := &api.TraceOffload{Flags: 1, GSOType: 1, HdrLen: 54, GSOSize: 1460, CsumStart: 34, CsumOffset: 16}
	if !reflect.DeepEqual(got.Offload, want) || len(got.Frame) != 2*5054 {
		t.Errorf("asked %+v of %d", got.Offload, len(got.Frame)/2)
	}
}

func TestTraceLiveAsks(t *testing.T) {
	for args, want := range map[string]api.TraceQuery{
		"trace --live":                                 {Count: 10},
		"trace --live icmp or arp":                     {Count: 10, Filter: "icmp or arp"},
		"trace --live br0 icmp -c 3":                   {Count: 3, Bridge: "br0", Filter: "icmp"},
		"trace --live in_port=veth1 tcp port 80 -c 99": {Count: 99, Port: "veth1", Filter: "tcp port 80"},
	} {
		c := newTraceCLI(t)
		c.svc.Tr.LiveEnd.Missed = 7
		code, out, errs := c.run("", strings.Fields(args)...)
		asked := c.svc.Asked()
		if code != exitDone || !reflect.DeepEqual(asked[len(asked)-1], want) || strings.Count(out, "in by veth1") != 2 || !strings.HasPrefix(errs, "7 frames matched") {
			t.Errorf("%s: exit %d, asked %+v\n%s%s", args, code, asked, out, errs)
		}
	}
}

func TestReplayAsks(t *testing.T) {
	file := captureFile(t)
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		args, stderr string
		code         int
		want         api.ReplayQuery
	}{
		{args: "in_port=veth1 -", want: api.ReplayQuery{Port: "veth1", Speed: 1}},
		{args: "br0 in_port=veth1 - --speed max", want: api.ReplayQuery{Bridge: "br0", Port: "veth1"}},
		{args: "br0 in_port=veth1 - --speed 0.5", want: api.ReplayQuery{Bridge: "br0", Port: "veth1", Speed: 0.5}},
		{args: "br0 -", code: exitUsage, stderr: "in_port=P is missing"},
		{args: "in_port=veth1", code: exitUsage, stderr: "the capture file is missing"},
		{args: "in_port=veth1 - --speed 0", code: exitUsage, stderr: "--speed 0"},
		{args: "in_port=veth1 - --loop 2", code: exitUsage, stderr: "standard input"},
		{args: "in_port=veth1 - --loop 0", code: exitUsage, stderr: "--loop 0"},
		{args: "in_port=veth1 /does/not/exist", code: exitRefused, stderr: "no such file"},
	} {
		c := newTraceCLI(t)
		c.svc.Tr.Progress = []api.ReplayResult{{Frames: 1}, {Frames: 2}}
		code, out, errs := c.run(string(b), append([]string{"replay"}, strings.Fields(tc.args)...)...)
		if code != tc.code || !strings.Contains(errs, tc.stderr) {
			t.Errorf("%s: exit %d, stderr %q", tc.args, code, errs)
		}
		if tc.code != exitDone {
			continue
		}
		asked := c.svc.Asked()
		if len(asked) != 1 || !strings.HasPrefix(out, "replayed 1000 frames") {
			t.Fatalf("%s: asked %+v, said %s", tc.args, asked, out)
		}
		if asked[0] != (apitest.Replay{ReplayQuery: tc.want, File: string(b)}) {
			t.Errorf("%s: asked %+v", tc.args, asked[0])
		}
	}
}

// What the daemon found wrong comes with what was done before.
func TestReplayThatFails(t *testing.T) {
	c := newTraceCLI(t)
	c.svc.Fail(&api.Error{Status: 400, Message: "replay: read packet 5: the capture file ends in the middle of it"})
	code, out, errs := c.run("x", "replay", "in_port=veth1", "-")
	if code != exitRefused || !strings.HasPrefix(out, "replayed 1000 frames") || !strings.Contains(errs, "read packet 5") {
		t.Errorf("exit %d, %s%s", code, out, errs)
	}
}
