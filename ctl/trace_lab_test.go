package ctl_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/craft"
	"vswitch/frame"
	"vswitch/internal/lab"
)

// tracers is a switch with most of what can be in the way of a frame:
//
//	c1 eth0 ── tag=10                        ┐
//	c2 eth0 ── trunks=10,20                  │
//	c3 eth0 ── native-untagged 20, trunks=10 ├ br0 ── patch, trunks=20 ── br1 ── tag=20 ── c4 eth0
//	c5 eth0 ── output of mirror m0 (of c1)   │
//	vx0, tag=10, VXLAN to host b             ┘   [host a 192.0.2.1 ── 192.0.2.2 host b]
type tracers struct {
	t     *testing.T
	d     *lab.Daemon
	c     []*lab.Container
	conns []*lab.Conn
	ports []string
}

func newTracers(t *testing.T) *tracers {
	t.Helper()
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Wire(a.Namespace, "under", "192.0.2.1/24", b.Namespace, "under", "192.0.2.2/24")
	n := &tracers{t: t}
	for i := range 5 {
		c := a.Container(fmt.Sprintf("c%d", i+1), lab.Addr(fmt.Sprintf("10.0.0.%d/24", i+1)))
		n.c, n.ports = append(n.c, c), append(n.ports, c.Veth)
	}
	n.d = a.Daemon(lab.DaemonOptions{})
	for _, line := range []string{
		"add-br br0", "add-br br1",
		"add-port br0 " + n.ports[0] + " tag=10",
		"add-port br0 " + n.ports[1] + " trunks=10,20",
		"add-port br0 " + n.ports[2] + " vlan_mode=native-untagged tag=20 trunks=10",
		"add-port br0 " + n.ports[4],
		"add-port br0 p0 type=patch peer=p1 trunks=20",
		"add-port br1 p1 type=patch peer=p0 trunks=20",
		"add-port br1 " + n.ports[3] + " tag=20",
		"add-port br0 vx0 type=vxlan remote_ip=192.0.2.2 key=5 tag=10",
		"fdb add br0 02:00:00:00:00:99 vx0 vlan=10",
		"mirror add br0 m0 select_src_port=" + n.ports[0] + " output_port=" + n.ports[4],
	} {
		n.d.Ctl(strings.Fields(line)...)
	}
	for _, p := range append([]string{"vx0"}, n.ports...) {
		waitPort(t, n.d, p, api.PortUp)
	}
	for _, c := range n.c {
		// What the containers' own stacks say would be in the way.
		c.MustExec("ip", "addr", "flush", "dev", "eth0")
		n.conns = append(n.conns, c.VnetConn("eth0"))
	}
	return n
}

func (n *tracers) craft(words string) craft.Frame {
	n.t.Helper()
	if !strings.Contains(words, "eth_src") {
		words = "eth_src=02:00:00:00:00:01 " + words
	}
	s, err := craft.Parse(strings.Fields(words))
	if err != nil {
		n.t.Fatal(err)
	}
	f, err := s.Frame()
	if err != nil {
		n.t.Fatal(err)
	}
	return f
}

func (n *tracers) trace(port string, f craft.Frame) api.Trace {
	n.t.Helper()
	c := n.d.Client()
	defer c.Close()
	o := api.TraceOffload(f.Offload)
	t, err := c.Trace(context.Background(), api.TraceRequest{InPort: port, Frame: hex.EncodeToString(f.Data), Offload: &o})
	if err != nil {
		n.t.Fatal(err)
	}
	return t
}

// state is what a trace must leave as it is: MACs and counters.
func (n *tracers) state() string {
	n.t.Helper()
	var all strings.Builder
	for _, path := range []string{"/v1/stats", "/v1/fdb", "/v1/drops"} {
		var v []map[string]any
		if err := n.d.Get(path, &v); err != nil {
			n.t.Fatal(err)
		}
		for _, e := range v {
			delete(e, "age") // these go on by themselves
			delete(e, "rate")
		}
		b, err := json.Marshal(v)
		if err != nil {
			n.t.Fatal(err)
		}
		all.Write(b)
	}
	return all.String()
}

func (n *tracers) drops() map[string]uint64 {
	n.t.Helper()
	var drops []api.Drop
	if err := n.d.Get("/v1/drops", &drops); err != nil {
		n.t.Fatal(err)
	}
	count := map[string]uint64{}
	for _, d := range drops {
		count[d.Port+" "+d.Reason] += d.Count
	}
	return count
}

// seen is a frame as it came, with the tag apart, in words that can be compared.
func seen(port string, b []byte) string {
	tag := "untagged"
	if len(b) > frame.EthLen+frame.TagLen && binary.BigEndian.Uint16(b[frame.AddrLen:]) == frame.TPID8021Q {
		tci := binary.BigEndian.Uint16(b[frame.AddrLen+2:])
		tag = fmt.Sprintf("tagged %d/%d", tci&0xfff, tci>>13)
		b = slices.Concat(b[:frame.AddrLen], b[frame.AddrLen+frame.TagLen:])
	}
	return fmt.Sprintf("%s %s %d bytes %x", port, tag, len(b), b[:min(len(b), api.MaxTraceData)])
}

func would(f *api.TraceFrame) string {
	tag, length := "untagged", f.Length
	if f.Tag != nil {
		tag, length = fmt.Sprintf("tagged %d/%d", f.Tag.VID, f.Tag.PCP), length-frame.TagLen
	}
	return fmt.Sprintf("%s %s %d bytes %s", f.Port, tag, length, f.Data)
}

// agree traces a frame, sees that this changed nothing, sends it for real, and compares.
func (n *tracers) agree(from int, words string) api.Trace {
	n.t.Helper()
	f := n.craft(words)
	for _, c := range n.conns {
		c.Drain()
	}
	before := n.state()
	t := n.trace(n.ports[from], f)
	if again := n.trace(n.ports[from], f); again.Verdict != t.Verdict {
		n.t.Errorf("%s: traced twice it is %q, then %q", words, t.Verdict, again.Verdict)
	}
	if after := n.state(); after != before {
		n.t.Errorf("%s: the trace changed\n%s\ninto\n%s", words, before, after)
	}
	dropsBefore := n.drops()
	header := make([]byte, frame.VnetLen)
	f.Offload.PutVnet(header, 0)
	if err := n.conns[from].Send(append(header, f.Data...)); err != nil {
		n.t.Fatal(err)
	}
	var want, got, wantDrops []string
	for i := range t.Out {
		if o := &t.Out[i]; slices.Contains(n.ports, o.Port) {
			want = append(want, would(o))
		}
	}
	for i := range t.Drops {
		wantDrops = append(wantDrops, t.Drops[i].Port+" "+t.Drops[i].Reason)
	}
	slices.Sort(want)
	slices.Sort(wantDrops)
	err := lab.Wait(patient, func() error {
		for i, c := range n.conns {
			frames, err := c.Collect(20 * time.Millisecond)
			if err != nil {
				return err
			}
			for _, b := range frames {
				got = append(got, seen(n.ports[i], b[frame.VnetLen:]))
			}
		}
		slices.Sort(got)
		var drops []string
		for k, v := range n.drops() {
			for range v - dropsBefore[k] {
				drops = append(drops, k)
			}
		}
		slices.Sort(drops)
		if !slices.Equal(got, want) {
			return fmt.Errorf("what came is\n  %s\nthe trace says\n  %s", strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		if !slices.Equal(drops, wantDrops) {
			return fmt.Errorf("dropped is %q, the trace says %q", drops, wantDrops)
		}
		return nil
	})
	if err != nil {
		n.t.Errorf("%s by c%d: %v\n%s", words, from+1, err, t.Verdict)
	}
	return t
}

// TestTraceAgrees: what a trace says is what happens to the same frame then.
func TestTraceAgrees(t *testing.T) {
	n := newTracers(t)
	ports := strings.NewReplacer("c1", n.ports[0], "c2", n.ports[1], "c3", n.ports[2], "c4", n.ports[3], "c5", n.ports[4])
	for _, tc := range []struct {
		from           int
		words, verdict string
	}{
		{0, "eth_dst=broadcast arp", "would leave by c2 tagged 10, c3 tagged 10, vx0 untagged, c5 tagged 10"},
		{0, "eth_dst=02:00:00:00:00:02", "would leave by"},                                                                 // unknown: flood
		{1, "eth_src=02:00:00:00:00:02 eth_dst=02:00:00:00:00:01 vlan=10 pcp=5 tcp port=80", "would leave by c1 untagged"}, // known
		{0, "eth_dst=02:00:00:00:00:02 tcp port=80", "would leave by c2 tagged 10, c5 tagged 10"},
		{0, "eth_dst=02:00:00:00:00:02 vlan=10", "would be dropped at c1: vlan-tagged-on-access"},
		{1, "eth_dst=02:00:00:00:00:01 vlan=30", "would be dropped at c2: vlan-not-trunked"},
		{0, "eth_dst=01:80:c2:00:00:0e", "would be dropped at c1: reserved-multicast"},
		{2, "eth_src=02:00:00:00:00:03 eth_dst=33:33:00:00:00:01", "would leave by c2 tagged 20, c4 untagged"}, // over the patch
		{3, "eth_src=02:00:00:00:00:04 eth_dst=02:00:00:00:00:03 udp len=1500", "would leave by c3 untagged"},
		{4, "eth_src=02:00:00:00:00:05 eth_dst=broadcast", "would be dropped at c5: mirror-output-port"},
		{0, "eth_dst=02:00:00:00:00:02 eth_src=02:00:00:00:00:02", "would be dropped at c1: same-port"}, // it moves first
		{1, "eth_src=02:00:00:00:00:02 eth_dst=02:00:00:00:00:01 vlan=10 super=14600", "would leave by c1"},
		{0, "eth_dst=02:00:00:00:00:02 super=60000 mss=1400", "would leave by c2"},
		{0, "eth_dst=02:00:00:00:00:99 udp len=1464", "would leave by vx0 untagged, c5 tagged 10"},
		{0, "eth_dst=02:00:00:00:00:99 udp ip_src=10.0.0.1 ip_dst=10.0.0.9 len=1465", "its sender would be told by ICMP, by c1 untagged"},
		{0, "eth_dst=02:00:00:00:00:99 udp ip_src=fd00::1 ip_dst=fd00::9 len=1500", "its sender would be told by ICMP, by c1 untagged"},
		{0, "eth_dst=02:00:00:00:00:99 ip_src=10.0.0.1 ip_dst=10.0.0.9 super=14600", "mtu-exceeded"},
	} {
		got := n.agree(tc.from, tc.words)
		if !strings.Contains(got.Verdict, ports.Replace(tc.verdict)) {
			t.Errorf("%s by c%d: %s, want %s", tc.words, tc.from+1, got.Verdict, ports.Replace(tc.verdict))
		}
	}
}

// TestTraceTakesNoTokens: traces do not use up a port's storm limit, and tell of one that
// is reached.
func TestTraceTakesNoTokens(t *testing.T) {
	n := newTracers(t)
	n.d.Ctl("set-port", n.ports[1], "storm_broadcast=1")
	f := n.craft("eth_src=02:00:00:00:00:02 eth_dst=broadcast vlan=10")
	for i := range 200 {
		if v := n.trace(n.ports[1], f).Verdict; strings.Contains(v, "storm") {
			t.Fatalf("trace %d: %s", i, v)
		}
	}
	n.agree(1, "eth_src=02:00:00:00:00:02 eth_dst=broadcast vlan=10")
	for range 100 { // more than the burst
		if err := n.conns[1].Send(append(make([]byte, frame.VnetLen), f.Data...)); err != nil {
			t.Fatal(err)
		}
	}
	lab.Eventually(t, patient, func() error {
		if n.drops()[n.ports[1]+" storm-broadcast"] == 0 {
			return fmt.Errorf("no storm")
		}
		return has(n.trace(n.ports[1], f).Verdict, "dropped at "+n.ports[1]+": storm-broadcast")
	})
}

// TestTraceCommand: the addresses that are left out are filled in from what the switch
// learned and overheard, and each step is printed.
func TestTraceCommand(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	p.c1.MustExec("ping", "-c", "1", "-W", "5", p.c2.IP())
	stdout, stderr, code := p.d.CtlErr("trace", "br0", "in_port="+p.c1.Veth, "ip_dst="+p.c2.IP(), "proto=tcp", "port=80")
	if code != 0 {
		t.Fatalf("status %d: %s", code, stderr)
	}
	if err := has(stderr, "eth_src="+p.c1.MAC.String()+", which is known at "+p.c1.Veth, "eth_dst="+p.c2.MAC.String()+", which said that it has "+p.c2.IP()); err != nil {
		t.Error(err)
	}
	if err := has(stdout, "in by "+p.c1.Veth, "br0\n  receive ", "  learn ", "  lookup ", "  output ", "  transmit ", "OUT ", "\nwould leave by "+p.c2.Veth+" untagged\n"); err != nil {
		t.Errorf("%v\n%s", err, stdout)
	}
	for _, line := range strings.Split(stdout, "\n") {
		if len([]rune(line)) > 100 {
			t.Errorf("too wide: %s", line)
		}
	}
	// What the flight recorder holds is traced as it came in.
	dump := filepath.Join(p.Dir(), "dump.pcapng")
	p.d.Ctl("recorder", "dump", "-w", dump, "icmp")
	if out := p.d.Ctl("trace", "--pcap", dump, "-c", "2"); strings.Count(out, "\nin by ") != 2 {
		t.Error(out)
	} else if err := has(out, "in by "+p.c1.Veth, "would leave by "+p.c2.Veth+" untagged", "in by "+p.c2.Veth, "would leave by "+p.c1.Veth+" untagged"); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	refused(t, p.d, []string{"trace", "br0", "in_port=none", "eth_src=02:00:00:00:00:01", "eth_dst=broadcast"}, `port "none" does not exist`)
	refused(t, p.d, []string{"trace", "nobr", "in_port=" + p.c1.Veth, "eth_src=02:00:00:00:00:01", "eth_dst=broadcast"}, `bridge "nobr" does not exist`)
	p.d.Ctl("add-br", "br1")
	refused(t, p.d, []string{"trace", "br1", "in_port=" + p.c1.Veth, "eth_src=02:00:00:00:00:01", "eth_dst=broadcast"}, "is of bridge br0, not of br1")
	refused(t, p.d, []string{"trace", "--live", "icmp", "and", "nonsense"}, "nonsense")
}

// TestTraceLive: the way of real frames, while they pass.
func TestTraceLive(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	p.c1.MustExec("ping", "-c", "1", "-W", "5", p.c2.IP())
	client := p.d.Client()
	defer client.Close()
	pinger := p.c1.Start("ping", "-i", "0.05", p.c2.IP())
	defer pinger.Kill()
	var got []api.Trace
	end, err := client.TraceLive(context.Background(), api.TraceQuery{Bridge: "br0", Filter: "icmp[icmptype] = icmp-echo", Count: 5}, nil, func(x *api.Trace) error {
		got = append(got, *x)
		return nil
	})
	if err != nil || len(got) != 5 || end.Traced != 5 {
		t.Fatalf("%d traces, %+v, %v", len(got), end, err)
	}
	for _, x := range got {
		if x.InPort != p.c1.Veth || !x.Live || x.Verdict != "left by "+p.c2.Veth+" untagged" || len(x.Steps) < 5 || !strings.Contains(x.Frame.Summary, "echo request") {
			t.Errorf("%+v", x)
		}
	}
	// One at a time; and when its client leaves, the next may.
	ctx, cancel := context.WithCancel(context.Background())
	begun, ended := make(chan struct{}), make(chan error, 1)
	go func() { // ends by cancel
		_, err := client.TraceLive(ctx, api.TraceQuery{Filter: "udp port 1", Count: 1}, func() error { close(begun); return nil }, func(*api.Trace) error { return nil })
		ended <- err
	}()
	<-begun
	lab.Eventually(t, patient, func() error {
		_, stderr, code := p.d.CtlErr("trace", "--live", "udp", "port", "1", "-c", "1", "--timeout", "1s")
		if code != 1 {
			return fmt.Errorf("status %d: %s", code, stderr)
		}
		return has(stderr, "somebody else traces live frames")
	})
	cancel()
	<-ended
	lab.Eventually(t, patient, func() error {
		stdout, stderr, code := p.d.CtlErr("trace", "--live", "in_port="+p.c2.Veth, "icmp", "-c", "2")
		if code != 0 {
			return fmt.Errorf("status %d: %s", code, stderr)
		}
		return has(stdout, "in by "+p.c2.Veth, "left by "+p.c1.Veth+" untagged")
	})
}

// TestReplayOfOurOwnCapture: what a mirror wrote of one port's frames is replayed into
// that port, and arrives as it did the first time; a document is tested offline with it.
func TestReplayOfOurOwnCapture(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	from, to := p.c1.Conn(), p.c2.Conn()
	forwards(t, p.c1, p.c2, patient)
	file := filepath.Join(p.Dir(), "c1.pcapng")
	p.d.Ctl("mirror", "add", "br0", "m0", "select_src_port="+p.c1.Veth, "select_dst_port="+p.c1.Veth, "output_pcap="+file)
	const frames = 200
	var sent [][]byte
	for i := range frames {
		f := testFrame(p.c1.MAC, i%2*10)
		if err := from.Send(f); err != nil {
			t.Fatal(err)
		}
		sent = append(sent, f)
	}
	ours := func(got [][]byte) (all [][]byte) {
		for _, f := range got {
			if slices.ContainsFunc(sent, func(s []byte) bool { return bytes.Equal(s, f) }) {
				all = append(all, f)
			}
		}
		return all
	}
	arrived := func(what string) {
		t.Helper()
		var all [][]byte
		lab.Eventually(t, patient, func() error {
			got, err := to.Collect(20 * time.Millisecond)
			if all = append(all, ours(got)...); err == nil && len(all) < frames {
				err = fmt.Errorf("%d of %d frames arrived", len(all), frames)
			}
			return err
		})
		if !slices.EqualFunc(all, sent, bytes.Equal) {
			t.Errorf("%s: %d frames, not as they were sent, or not in that order", what, len(all))
		}
	}
	arrived("sent")
	if err := from.Send(testFrame(net.HardwareAddr{2, 0, 0, 0, 0, 7}, 0)); err != nil { // not lost: the mirror is in order
		t.Fatal(err)
	}
	p.d.Ctl("mirror", "del", "br0", "m0")
	lab.Eventually(t, patient, func() error {
		_, _, code := p.d.CtlErr("replay", "in_port=none", file)
		if st, err := os.Stat(file); err != nil || st.Size() < frames*100 || code != 1 {
			return fmt.Errorf("%v, %v", st, err)
		}
		return nil
	})
	to.Drain()
	var r api.ReplayResult
	p.d.CtlJSON(&r, "replay", "br0", "in_port="+p.c1.Veth, file, "--speed", "max")
	if r.Frames < frames || len(r.Refused) > 0 {
		t.Errorf("%+v", r)
	}
	arrived("replayed")

	// The same file is a test of the document.
	doc, expect := filepath.Join(p.Dir(), "doc.yaml"), filepath.Join(p.Dir(), "expect.yaml")
	if err := os.WriteFile(doc, []byte(export(p.d)), 0o600); err != nil {
		t.Fatal(err)
	}
	p.d.Ctl("test", doc, file, "--expect", expect, "--record")
	if out := p.d.Ctl("test", doc, file, "--expect", expect); !strings.Contains(out, "went as expected") {
		t.Error(out)
	}
	p.d.Ctl("set-port", p.c2.Veth, "tag=10")
	if err := os.WriteFile(doc, []byte(export(p.d)), 0o600); err != nil {
		t.Fatal(err)
	}
	refused(t, p.d, []string{"test", doc, file, "--expect", expect}, "differences from what "+expect+" expects")
}

// TestReplayEndsWithItsClient: a replay in a long pause, and one whose input rests, end
// when the client is killed; there is one at a time for each port.
func TestReplayEndsWithItsClient(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	file := filepath.Join(p.Dir(), "slow.pcap")
	b := []byte("\xd4\xc3\xb2\xa1\x02\x00\x04\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\x00\x00\x01\x00\x00\x00")
	for i := range uint32(3) {
		b = binary.LittleEndian.AppendUint32(b, 1e9+i*1800)
		b = append(b, 0, 0, 0, 0, 60, 0, 0, 0, 60, 0, 0, 0)
		b = append(b, testFrame(p.c1.MAC, 0)...)
	}
	if err := os.WriteFile(file, b, 0o600); err != nil {
		t.Fatal(err)
	}
	// underWay starts a replay, and waits for its first frame; then it rests for long.
	underWay := func() *lab.Proc {
		t.Helper()
		before := mustPort(t, p.d, p.c1.Veth).Counters.RxFrames
		slow, _ := p.d.CtlStart("replay", "in_port="+p.c1.Veth, file)
		lab.Eventually(t, patient, func() error {
			if n := mustPort(t, p.d, p.c1.Veth).Counters.RxFrames; n <= before {
				return fmt.Errorf("%d frames came in", n-before)
			}
			return nil
		})
		return slow
	}
	slow := underWay()
	refused(t, p.d, []string{"replay", "in_port=" + p.c1.Veth, "/dev/null"}, "a capture is replayed into port "+p.c1.Veth+" already")
	// Another port is free.
	if stdout, stderr, code := p.d.CtlErr("replay", "in_port="+p.c2.Veth, file, "--speed", "max"); code != 0 || !strings.HasPrefix(stdout, "replayed 3 frames, 180 bytes") {
		t.Errorf("status %d: %s%s", code, stdout, stderr)
	}
	slow.Kill()
	lab.Eventually(t, patient, func() error {
		stdout, stderr, code := p.d.CtlErr("replay", "in_port="+p.c1.Veth, file, "--speed", "max", "--loop", "3")
		if code != 0 {
			return fmt.Errorf("status %d: %s", code, stderr)
		}
		return has(stdout, "replayed 9 frames, 540 bytes")
	})
	// The daemon ends in time while a replay rests.
	underWay()
	began := time.Now()
	p.d.Stop()
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("the daemon took %v to end", took)
	}
}
