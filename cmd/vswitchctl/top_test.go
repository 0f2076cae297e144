package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/gdamore/tcell/v2"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

// busySample is a look at the switch of nightSwitch, with talkers and a tunnel.
func busySample() topSample {
	s := nightSwitch()
	heard := now.Add(-3 * time.Second)
	br0 := &s.S.Bridges[0]
	br0.Ports = append(br0.Ports, api.PortStatus{Name: "m1:host2", Type: "vxlan", State: "up", Tunnel: &api.TunnelStatus{
		Remote: "host2", RemoteAddr: "192.0.2.2", PathMTU: 1500, BFD: &api.BFDStatus{State: "up"}, LastHeard: &heard}})
	return topSample{at: now, version: s.V, status: s.S, workers: s.W, talkers: api.Talkers{Recorder: true, Window: 1,
		MACs: []api.MACTalker{{Bridge: "br0", VLAN: 10, MAC: "02:00:00:00:00:01", Port: "veth1", IP: "10.0.0.1", Frames: 240000, Bits: 2.9e9}},
		Flows: []api.FlowTalker{
			{Bridge: "br0", VLAN: 10, Port: "veth1", Output: "veth2", Proto: "tcp", Src: "10.0.0.1", SrcPort: 40000, Dst: "10.0.0.2", DstPort: 5201, Frames: 240000, Bits: 2.9e9},
			{Bridge: "br0", Port: "veth\x1b[2J", Proto: "udp", Src: "2001:db8:1111:2222:3333:4444:5555:6666", SrcPort: 53, Dst: "2001:db8::2", DstPort: 40001, Frames: 3, Bits: 4e3}}}}
}

// later is the same switch a while after, when veth1 sent more.
func (s topSample) later(d time.Duration, frames, bytes, drops uint64) topSample {
	s.at = s.at.Add(d)
	s.status.Bridges = slices.Clone(s.status.Bridges)
	br0 := &s.status.Bridges[0]
	br0.Ports = slices.Clone(br0.Ports)
	for i := range br0.Ports {
		if p := &br0.Ports[i]; p.Name == "veth1" {
			p.Counters.TxFrames += frames
			p.Counters.TxBytes += bytes
			p.Counters.Dropped += drops
		}
	}
	return s
}

func TestTopRates(t *testing.T) {
	m := newTopModel()
	first := busySample()
	first.workers = []api.WorkerStats{{Busy: 0.5, Frames: 100, Batches: 10, Wakeups: 7, Buffers: 576, Free: 500}}
	m.add(first)
	if m.data.Interval != 0 || m.data.Total != (topRates{}) {
		t.Errorf("rates of one look: %+v", m.data.Total)
	}
	next := first.later(2*time.Second, 200, 3000, 10)
	// Half of an hour busy, and then all of two seconds.
	next.workers = []api.WorkerStats{{Busy: (0.5*3600 + 2) / 3602, Frames: 300, Batches: 20, Wakeups: 9, Buffers: 576, Free: 400}}
	m.add(next)
	d := m.data
	if want := (topRates{TxFrames: 100, TxBits: 12000, Drops: 5}); d.Total != want {
		t.Errorf("%+v, want %+v", d.Total, want)
	}
	if w := d.Workers[0]; w.Busy < 0.999 || w.Frames != 100 || w.Batch != 20 || w.Wakeups != 1 || w.Used != 176 {
		t.Errorf("worker %+v", w)
	}
	if len(d.Tunnels) != 1 || d.Tunnels[0].Remote != "192.0.2.2" || d.Tunnels[0].BFD != "up" || d.NotUp != 3 {
		t.Errorf("tunnels %+v, %d not up", d.Tunnels, d.NotUp)
	}
	// A daemon that was started anew counts from 0, and a port that is gone has no past.
	again := first.later(4*time.Second, 0, 0, 0)
	again.version.PID++
	again.status.Bridges = again.status.Bridges[1:]
	m.add(again)
	if m.data.Total != (topRates{}) || m.data.Interval != 0 || len(m.history) != 1 { // br1's own
		t.Errorf("after a restart: %+v, %d pasts", m.data.Total, len(m.history))
	}
	m.add(next)
	m.forget()
	m.add(next.later(time.Hour, 1e6, 1e9, 0))
	if m.data.Total != (topRates{}) {
		t.Errorf("a rate over an hour without looks: %+v", m.data.Total)
	}
}

// Whatever the size, no line is wider and there are no more than fit.
func TestTopFitsAnySize(t *testing.T) {
	m := newTopModel()
	m.add(busySample())
	for i := range 50 {
		m.add(busySample().later(time.Duration(i+1)*time.Second, uint64(i*i)*1000, uint64(i*i)*1e6, uint64(i)))
	}
	for _, g := range []glyphs{unicodeGlyphs, asciiGlyphs} {
		v := newTopView(g)
		for w := 0; w < 130; w += 3 {
			for _, h := range []int{0, 1, 2, 3, 5, 8, 24, 39, 40, 60} {
				for pane := range v.panes {
					v.choose(pane)
					v.scroll = h
					lines := v.screen(m.data, w, h, time.Second, "no daemon", footText)
					if len(lines) > max(h, 1) {
						t.Fatalf("%dx%d: %d lines", w, h, len(lines))
					}
					for _, l := range lines {
						if n := utf8.RuneCountInString(l.text); n > max(w, 1) || strings.Contains(l.text, "\x1b") {
							t.Fatalf("%dx%d, pane %d: %d columns: %q", w, h, pane, n, l.text)
						}
					}
				}
			}
		}
	}
}

// At 80 columns all that matters is there.
func TestTopAt80(t *testing.T) {
	m := newTopModel()
	m.add(busySample())
	m.add(busySample().later(time.Second, 123456, 1e8, 42))
	v := newTopView(unicodeGlyphs)
	screen := func() string {
		var b strings.Builder
		for _, l := range v.screen(m.data, 80, 24, time.Second, "", footText) {
			b.WriteString(l.text + "\n")
		}
		return b.String()
	}
	for pane, words := range [][]string{
		{"123k", "800M", "42", "interface veth9 does not exist", "ERROR", "(need CAP_NET_RAW)", "WARNING: the store", "drops 42/s", "3 NOT UP", "▁"},
		{"m1:host2", "192.0.2.2", "1500", "4s"},
		{"02:00:00:00:00:01", "10.0.0.1", "240k", "2.9G"},
		{"tcp", "10.0.0.1:40000", "10.0.0.2:5201", "udp", "[2001:db8:", "…", "veth?"},
		{"WORKER", "96 of 4096"},
	} {
		v.choose(pane)
		text := screen()
		for _, w := range words {
			if !strings.Contains(text, w) {
				t.Errorf("pane %d has no %q:\n%s", pane+1, w, text)
			}
		}
	}
	for _, l := range append(slices.Clone(helpText), footText) {
		if utf8.RuneCountInString(l) > 79 {
			t.Errorf("too long for 80 columns: %s", l)
		}
	}
	if len(helpText)+1 > 24 {
		t.Errorf("help has %d lines", len(helpText)+1)
	}
}

func TestTopSortAndFilter(t *testing.T) {
	m := newTopModel()
	m.add(busySample())
	m.add(busySample().later(time.Second, 10, 1000, 1))
	v := newTopView(unicodeGlyphs)
	first := func() string { return v.sorted(v.panes[0], m.data)[0].cells[0].text }
	v.sortBy(5) // TX
	if first() != "veth1" {
		t.Errorf("by TX first is %s", first())
	}
	v.panes[0].back = true
	if first() == "veth1" {
		t.Error("reversed, the busiest is first all the same")
	}
	v.sortBy(-1 + len(v.panes[0].columns)) // TYPE: text, from a to z
	if first() != "br0" {
		t.Errorf("by type first is %s", first())
	}
	v.filter = "VXL"
	if rows := v.sorted(v.panes[0], m.data); len(rows) != 1 || rows[0].cells[0].text != "m1:host2" {
		t.Errorf("filtered: %+v", rows)
	}
}

func TestSparkline(t *testing.T) {
	v := newTopView(asciiGlyphs)
	for _, tc := range []struct {
		values []float64
		n      int
		want   string
	}{{[]float64{0, 0}, 5, "__"}, {[]float64{0, 1, 50, 100}, 4, "_.+#"}, {[]float64{100, 1, 1}, 2, "##"}, {[]float64{7}, 5, "#"}} {
		if got := v.sparkline(tc.values, tc.n); got != tc.want {
			t.Errorf("%v in %d: %q, want %q", tc.values, tc.n, got, tc.want)
		}
	}
}

func TestHz(t *testing.T) {
	for n, want := range map[float64]string{0: "-", 0.001: "0.0", 0.5: "0.5", 9.96: "10", 1234: "1234", 9999.6: "10.0k", 123456: "123k", 1e6: "1.0M", 2.9e9: "2.9G", 1e19: "10.0E", 1e30: "much"} {
		if got := hz(n); got != want {
			t.Errorf("%g: %s, want %s", n, got, want)
		}
	}
}

// topTest is top on a simulated screen, with a double of the daemon.
type topTest struct {
	t      *testing.T
	c      *cli
	screen *simulated
	ended  chan error
	cancel context.CancelFunc
}

func newTopTest(t *testing.T) *topTest {
	c := newCLI(t)
	c.svc.Y = apitest.Why{Talkers: busySample().talkers}
	x := &topTest{t: t, c: c, screen: &simulated{SimulationScreen: tcell.NewSimulationScreen("UTF-8")}, ended: make(chan error, 1)}
	if err := x.screen.Init(); err != nil {
		t.Fatal(err)
	}
	x.screen.SetSize(80, 24)
	run := &topRun{a: &app{socket: c.socket, timeout: 10 * time.Second, now: time.Now}, interval: minInterval}
	client := run.client()
	first, err := run.look(context.Background(), client, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	var ctx context.Context
	ctx, x.cancel = context.WithCancel(context.Background())
	t.Cleanup(x.cancel)
	go func() { x.ended <- run.show(ctx, client, x.screen, unicodeGlyphs, first) }() // ended by a key, or cancel
	return x
}

// simulated is a screen that remembers what it showed.
//
// Thread-safety: text is safe beside the rest; what is simulated is not.
type simulated struct {
	tcell.SimulationScreen
	finis int // times that the terminal was given back

	mu    sync.Mutex
	shown string
}

func (s *simulated) Fini() { s.finis++; s.SimulationScreen.Fini() }

func (s *simulated) Show() {
	s.SimulationScreen.Show()
	cells, w, h := s.GetContents()
	var b strings.Builder
	for y := range h {
		for i := range w {
			if r := cells[y*w+i].Runes; len(r) > 0 {
				b.WriteRune(r[0])
			}
		}
		b.WriteString("\n")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.shown = b.String()
}

// text is what is on the screen.
func (x *topTest) text() string {
	x.screen.mu.Lock()
	defer x.screen.mu.Unlock()
	return x.screen.shown
}

func (x *topTest) wait(words ...string) {
	x.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		text := x.text()
		if !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) }) {
			return
		}
		if time.Now().After(deadline) {
			x.t.Fatalf("the screen does not say %q:\n%s", words, text)
		}
	}
}

func (x *topTest) keys(s string) {
	for _, r := range s {
		x.screen.InjectKey(tcell.KeyRune, r, tcell.ModNone)
	}
}

func (x *topTest) end() error {
	x.t.Helper()
	select {
	case err := <-x.ended:
		return err
	case <-time.After(10 * time.Second):
		x.t.Fatal("top does not end")
		return nil
	}
}

func TestTopKeys(t *testing.T) {
	x := newTopTest(t)
	x.wait("[1 ports 6]", "every 100ms", "RX/s▼", "veth9")
	x.keys("4")
	x.wait("[4 flows 2]", "10.0.0.1:40000")
	x.screen.InjectKey(tcell.KeyTab, 0, tcell.ModNone)
	x.wait("[5 workers 2]")
	x.screen.InjectKey(tcell.KeyTab, 0, tcell.ModNone)
	x.wait("[1 ports 6]")
	x.keys(">")
	x.wait("RX bit/s▼")
	x.keys("S")
	x.wait("RX bit/s▲")
	x.keys("<<")
	x.wait("STATE▼")
	x.keys("?")
	x.wait("keys", "any key: back")
	x.keys("x")
	x.wait("[1 ports 6]")
	x.keys("/VETH2")
	x.wait("/VETH2", "only VETH2")
	x.screen.InjectKey(tcell.KeyEnter, 0, tcell.ModNone)
	x.wait("veth2", "? help")
	if strings.Contains(x.text(), "veth9") {
		t.Errorf("the filter holds nothing back:\n%s", x.text())
	}
	x.screen.InjectKey(tcell.KeyEscape, 0, tcell.ModNone)
	x.wait("veth9")
	x.keys("p")
	x.wait("HELD since")
	x.keys("p+")
	x.wait("every 200ms", "? help")
	x.screen.SetSize(100, 50)
	x.wait("WORKER▼", "10.0.0.1:40000", "[1 ports 6]")
	x.screen.SetSize(30, 8)
	x.wait("vswitch on")
	x.keys("q")
	if err := x.end(); err != nil {
		t.Error(err)
	}
}

// A daemon that is lost is told of, and found again.
func TestTopLosesTheDaemon(t *testing.T) {
	x := newTopTest(t)
	x.wait("rx 0/s")
	x.c.svc.Fail(errors.New("out of \x1b[2Jorder"))
	x.wait("LOST, trying again: out of ?[2Jorder", "veth1")
	x.c.svc.Fail(nil)
	x.wait("rx 0/s")
	for deadline := time.Now().Add(10 * time.Second); strings.Contains(x.text(), "LOST"); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("lost for good:\n%s", x.text())
		}
	}
	x.cancel() // SIGTERM
	if err := x.end(); err != nil {
		t.Error(err)
	}
}

// A panic, wherever it is, comes out after the terminal was given back.
func TestTopPanics(t *testing.T) {
	c := newCLI(t)
	screen := &simulated{SimulationScreen: tcell.NewSimulationScreen("UTF-8")}
	if err := screen.Init(); err != nil {
		t.Fatal(err)
	}
	run := &topRun{a: &app{socket: c.socket, timeout: 10 * time.Second, now: time.Now}, interval: minInterval}
	client := run.client()
	first, err := run.look(context.Background(), client, time.Second)
	if err != nil {
		t.Fatal(err)
	}
	run.a.now = func() time.Time { panic("no time") }
	defer func() {
		if p := recover(); p != "no time" || screen.finis != 1 {
			t.Errorf("panic %v, given back %d times", p, screen.finis)
		}
	}()
	run.show(context.Background(), client, screen, unicodeGlyphs, first)
}

func TestTopOnce(t *testing.T) {
	c := newCLI(t)
	c.svc.Y = apitest.Why{Talkers: busySample().talkers}
	a := []string{"top", "--once", "--interval", "100ms"}
	code, out, errs := c.run("", a...)
	if code != exitDone || errs != "" {
		t.Fatalf("exit %d, %q", code, errs)
	}
	for _, w := range []string{"\nports\n", "\nMACs\n", "\nflows\n", "\nworkers\n", "10.0.0.1:40000", "3 NOT UP", "interface veth9 does not exist"} {
		if !strings.Contains(out, w) {
			t.Errorf("no %q:\n%s", w, out)
		}
	}
	for line := range strings.Lines(out) {
		if n := utf8.RuneCountInString(strings.TrimRight(line, "\n")); n > width && !strings.HasPrefix(line, "WARNING") {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	_, out, _ = c.run("", append(a, "-o", "json")...)
	var d topData
	if err := json.Unmarshal([]byte(out), &d); err != nil || len(d.Ports) != 6 || len(d.Flows) != 2 || len(d.Workers) != 2 {
		t.Errorf("%v: %s", err, out)
	}
	if code, _, errs := c.run("", "top", "nope", "--once"); code != exitRefused || !strings.Contains(errs, "nope") {
		t.Errorf("exit %d, %q", code, errs)
	}
}

func TestTopRefusals(t *testing.T) {
	c := newCLI(t)
	none := &cli{socket: filepath.Join(t.TempDir(), "none")}
	for _, tc := range []struct {
		cli  *cli
		args string
		code int
		want string
	}{
		{c, "top", exitRefused, "`vswitchctl top --once` prints one screen"},
		{c, "top -o json", exitUsage, "-o json goes with --once"},
		{c, "top --interval 1ms", exitUsage, "from 100ms to 1m"},
		{c, "top --interval 2m", exitUsage, "from 100ms to 1m"},
		{none, "top --once", exitUnreachable, "no daemon"},
	} {
		code, _, errs := tc.cli.run("", strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(errs, tc.want) {
			t.Errorf("%s: exit %d, %q", tc.args, code, errs)
		}
	}
}

// A thousand ports are drawn in less than a frame of an eye.
func BenchmarkTopScreen(b *testing.B) {
	s := busySample()
	ports := &s.status.Bridges[0].Ports
	for i := range 1000 {
		*ports = append(*ports, api.PortStatus{Name: fmt.Sprintf("veth%04d", i), Type: "packet", State: "up"})
	}
	m := newTopModel()
	m.add(s)
	m.add(s.later(time.Second, 1, 1, 1))
	v := newTopView(unicodeGlyphs)
	for b.Loop() {
		v.screen(m.data, 80, 24, time.Second, "", footText)
	}
}
