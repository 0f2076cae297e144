package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"vswitch/capture"
	"vswitch/ctl/api"
)

// pingFrame is what the tests capture.
var pingFrame = []byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x08\x00" +
	"\x45\x00\x00\x1c\x00\x00\x00\x00\x40\x01\x66\xdf\x0a\x00\x00\x01\x0a\x00\x00\x02\x08\x00\xf7\xf6\x00\x07\x00\x02")

// seenFrames is a capture of all kinds of frames.
func seenFrames() []api.CapturedFrame {
	at := now
	seen := func(f api.CapturedFrame, comment string, missed uint64) api.CapturedFrame {
		at = at.Add(1500 * time.Microsecond)
		dir := capture.Inbound
		if f.Direction == "out" {
			dir = capture.Outbound
		}
		f.Packet = capture.Packet{Time: at, Interface: capture.Interface{Name: f.Port, Description: "port of bridge br0"},
			Direction: dir, Data: pingFrame, OrigLen: 98, Comment: comment, Dropped: missed}
		return f
	}
	drop := api.CapturedFrame{Bridge: "br0", Port: "veth1", Direction: "in", Reason: "vlan-not-trunked",
		Help: "the frame's VLAN is not among the port's trunks; add it (set-port NAME trunks=…), and do not forget the port at the other side"}
	return []api.CapturedFrame{
		seen(api.CapturedFrame{Bridge: "br0", Port: "veth1", Direction: "in", VLAN: 10, Output: "veth2", Outputs: 5}, "br0 veth1 in vlan 10 -> veth2 and 4 more", 0),
		seen(api.CapturedFrame{Bridge: "br0", Port: "veth-long", Direction: "out", VLAN: 10}, "br0 veth-long out vlan 10", 7),
		seen(drop, "br0 veth1 in: dropped: vlan-not-trunked", 0),
		seen(drop, "br0 veth1 in: dropped: vlan-not-trunked", 0),
		seen(api.CapturedFrame{Bridge: "br0", Port: "veth1", Direction: "out", Own: true, Skipped: 3}, "br0 veth1 out, made by the switch", 0),
		seen(api.CapturedFrame{Bridge: "br0", Port: "vx0", Interface: "eth0", Direction: "in", Note: "key 99 is no port's"}, "br0 vx0 in on eth0: key 99 is no port's", 0),
	}
}

func TestCaptureLines(t *testing.T) {
	c := newCLI(t)
	c.svc.Seen = seenFrames()
	const frame = "02:00:00:00:00:01 > 02:00:00:00:00:02, IPv4 10.0.0.1 > 10.0.0.2: icmp echo request, id 7, seq 2, length 8"
	want := strings.Join([]string{
		"03:14:15.001500 veth1 in  vlan 10  " + frame + "  -> veth2 and 4 more",
		"(7 frames missed here)",
		"03:14:15.003000 veth-long out vlan 10  " + frame,
		"03:14:15.004500 veth1     in  DROPPED vlan-not-trunked  " + frame,
		"    the frame's VLAN is not among the port's trunks; add it (set-port NAME trunks=…), and do not",
		"    forget the port at the other side",
		"03:14:15.006000 veth1     in  DROPPED vlan-not-trunked  " + frame,
		"03:14:15.007500 veth1     out " + frame + ", made by the switch, stands for 1+3 frames",
		"03:14:15.009000 vx0 on eth0 in  " + frame + " (key 99 is no port's)",
	}, "\n") + "\n"
	code, out, errs := c.run("", "capture", "br0", "-c", "6")
	if code != exitDone || out != want {
		t.Errorf("exit %d, got:\n%swant:\n%s", code, out, want)
	}
	if errs != "capturing on bridge br0 (its local port alone: capture br0 --local)\n6 frames, 7 missed\n" {
		t.Errorf("%q", errs)
	}
	if code, got, errs := c.run("", "recorder", "dump"); code != exitDone || got != out || errs != "6 frames\n" {
		t.Errorf("exit %d, %q, got:\n%s", code, errs, got)
	}
	code, out, _ = c.run("", "capture", "br0", "-c", "6", "-o", "json")
	if code != exitDone || strings.Count(out, "\n") != 6 || !strings.HasPrefix(out, `{"time":"2026-07-01T03:14:15.0015Z","bridge":"br0","port":"veth1","direction":"in","vlan":10,"outputs":5,"output":"veth2","length":98,"kept":42,"summary":"`) {
		t.Errorf("exit %d, %s", code, out)
	}
	code, out, _ = c.run("", "-o", "yaml", "capture", "br0", "-c", "1")
	if code != exitDone || !strings.HasPrefix(out, "---\ntime: \"2026-07-01T03:14:15.0015Z\"\nbridge: br0\n") {
		t.Errorf("exit %d, %s", code, out)
	}
	c.svc.WaitCaptures()
}

// -o is a direction or a format, by what follows.
func TestCaptureAsks(t *testing.T) {
	c := newCLI(t)
	c.svc.Seen = seenFrames()[:1]
	for args, want := range map[string]api.CaptureQuery{
		"capture br0 -c 1":                          {Name: "br0", Count: 1},
		"capture br0 -c 1 -i":                       {Name: "br0", Count: 1, Direction: "in"},
		"capture br0 -c 1 -o":                       {Name: "br0", Count: 1, Direction: "out"},
		"capture -o br0 -c 1":                       {Name: "br0", Count: 1, Direction: "out"},
		"capture -o -c 1 br0 arp":                   {Name: "br0", Count: 1, Direction: "out", Filter: "arp"},
		"capture br0 -c 1 --out -o json":            {Name: "br0", Count: 1, Direction: "out"},
		"capture br0 -c 1 -i -o":                    {Name: "br0", Count: 1},
		"capture br0 -c 1 -o json":                  {Name: "br0", Count: 1},
		"-o json capture br0 -c 1 -o":               {Name: "br0", Count: 1, Direction: "out"},
		"capture br0 -c 1 --output table":           {Name: "br0", Count: 1},
		"capture br0 -c 1 --drops --split -s 96":    {Name: "br0", Count: 1, Drops: true, Split: true, Snap: 96},
		"capture vx0 -c 1 --tunnel outer":           {Name: "vx0", Count: 1, Tunnel: "outer"},
		"capture br0 -c 1 --local":                  {Port: "br0", Count: 1},
		"capture br0 -c 1 host 10.0.0.1 and not ip": {Name: "br0", Count: 1, Filter: "host 10.0.0.1 and not ip"},
	} {
		if want.Direction == "" {
			want.Direction = "both"
		}
		if want.Tunnel == "" {
			want.Tunnel = "inner"
		}
		code, _, errs := c.run("", strings.Fields(args)...)
		if asked := c.svc.Asked(); code != exitDone || !reflect.DeepEqual(asked, []any{want}) {
			t.Errorf("%s: exit %d, %q, asked %+v, want %+v", args, code, errs, asked, want)
		}
	}
	for args, want := range map[string]string{
		"capture":                       "arguments are missing",
		"capture br0 -c -1":             "-c -1",
		"capture br0 -s 300000":         "-s 300000",
		"capture br0 --tunnel middle":   "there are inner and outer",
		"capture br0 -w":                "flag needs an argument",
		"recorder dump --last tomorrow": "above zero and up to 24h",
		"recorder":                      "there are: dump, show",
	} {
		if code, _, errs := c.run("", strings.Fields(args)...); code != exitUsage || !strings.Contains(errs, want) {
			t.Errorf("%s: exit %d, %q", args, code, errs)
		}
	}
}

// The first word of a dump is a bridge or a port, if there is one, and else the filter's.
func TestDumpAsks(t *testing.T) {
	c := newCLI(t)
	for args, want := range map[string]api.DumpQuery{
		"recorder dump":                          {},
		"recorder dump br0":                      {Name: "br0"},
		"recorder dump br0 arp or icmp":          {Name: "br0", Filter: "arp or icmp"},
		"recorder dump --last 90 --drops br0 ip": {Name: "br0", Filter: "ip", Last: 90 * time.Second, Drops: true},
	} {
		code, _, errs := c.run("", strings.Fields(args)...)
		if asked := c.svc.Asked(); code != exitDone || !reflect.DeepEqual(asked, []any{want}) {
			t.Errorf("%s: exit %d, %q, asked %+v, want %+v", args, code, errs, asked, want)
		}
	}
	c.svc.Fail(&api.Error{Status: 404, Field: "name", Message: `there is no bridge and no port "arp"`})
	c.run("", "recorder", "dump", "arp", "or", "icmp")
	if asked := c.svc.Asked(); !reflect.DeepEqual(asked, []any{api.DumpQuery{Name: "arp", Filter: "or icmp"}, api.DumpQuery{Filter: "arp or icmp"}}) {
		t.Errorf("asked %+v", asked)
	}
}

func TestCaptureFile(t *testing.T) {
	c := newCLI(t)
	c.svc.Seen = seenFrames()
	file := filepath.Join(t.TempDir(), "x.pcapng")
	code, out, errs := c.run("", "capture", "br0", "-w", file, "-c", "6")
	if code != exitDone || out != "" || !strings.HasSuffix(errs, "6 frames, 7 missed\n") {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	b, err := os.ReadFile(file)
	if err != nil || packets(t, b) != 6 {
		t.Errorf("%v, %d packets", err, packets(t, b))
	}
	if st, err := os.Stat(file); err != nil || st.Mode().Perm()&^0o640 != 0 {
		t.Errorf("%v, %v", st, err)
	}
	for _, args := range [][]string{{"capture", "br0", "-w", "-", "-c", "6"}, {"recorder", "dump", "br0", "-w", "-"}} {
		if code, out, _ := c.run("", args...); code != exitDone || packets(t, []byte(out)) != 6 {
			t.Errorf("%q: exit %d, %d packets", args, code, packets(t, []byte(out)))
		}
	}
	if code, _, errs := c.run("", "capture", "br0", "-w", "/does/not/exist.pcapng"); code != exitRefused || !strings.Contains(errs, "/does/not/exist.pcapng: no such file") {
		t.Errorf("exit %d, %q", code, errs)
	}
	// A file is not touched before the daemon has said yes.
	c.svc.Fail(&api.Error{Status: 400, Field: "filter", Message: `filter "hots a": at "hots a": unknown word`})
	if code, _, errs := c.run("", "capture", "br0", "-w", file, "hots", "a"); code != exitRefused || errs != "vswitchctl: filter \"hots a\": at \"hots a\": unknown word\n" {
		t.Errorf("exit %d, %q", code, errs)
	}
	if after, err := os.ReadFile(file); err != nil || !bytes.Equal(after, b) {
		t.Error("a capture that was refused emptied the file")
	}
}

// packets counts what another reader finds in a file.
func packets(t *testing.T, b []byte) (n int) {
	t.Helper()
	r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.DefaultNgReaderOptions)
	if err == io.EOF {
		return 0 // it looks for the first interface, and there is none yet
	} else if err != nil {
		t.Error(err)
		return 0
	}
	for {
		if _, _, err := r.ReadPacketData(); err == io.EOF {
			return n
		} else if err != nil {
			t.Error(err)
			return n
		}
		n++
	}
}

// An interrupt is how a capture is meant to end; the daemon's end is not.
func TestCaptureEnds(t *testing.T) {
	c := newCLI(t)
	c.svc.Seen = seenFrames()
	for _, args := range [][]string{{"capture", "br0"}, {"capture", "br0", "-w", "-"}} {
		ctx, interrupt := context.WithCancel(context.Background())
		out := &tee{line: make(chan struct{}, 1)}
		var errs bytes.Buffer
		a := &app{in: strings.NewReader(""), out: out, err: &errs, now: func() time.Time { return now }, getenv: func(string) string { return c.socket }}
		code := make(chan int, 1)
		go func() { code <- a.run(ctx, args) }() // ends with interrupt
		<-out.line
		interrupt()
		if got := <-code; got != exitDone || !strings.Contains(errs.String(), "missed\n") {
			t.Errorf("%q: exit %d, %q", args, got, errs.String())
		}
	}
	c.svc.WaitCaptures()
	c.svc.CaptureEnd = errors.New("the test wants it")
	for _, args := range [][]string{{"capture", "br0"}, {"capture", "br0", "-w", "-"}, {"capture", "br0", "-c", "7"}} {
		if code, _, errs := c.run("", args...); code != exitUnreachable || !strings.Contains(errs, "6 frames, 7 missed\nvswitchctl: the daemon ended the capture") {
			t.Errorf("%q: exit %d, %q", args, code, errs)
		}
	}
}

// Only whole blocks are written, whatever comes.
func TestCopyBlocks(t *testing.T) {
	var file bytes.Buffer
	w := capture.NewWriter(&file, capture.Options{})
	for _, f := range seenFrames() {
		if err := w.Write(&f.Packet); err != nil {
			t.Fatal(err)
		}
	}
	w.Close()
	whole := file.Bytes()
	for cut := range whole {
		var out bytes.Buffer
		_, err := copyBlocks(&out, io.MultiReader(bytes.NewReader(whole[:cut])))
		if !bytes.HasPrefix(whole, out.Bytes()) || out.Len() > 0 && packets(t, out.Bytes()) > 6 {
			t.Fatalf("cut at %d: %v", cut, err)
		}
	}
	for _, bad := range []string{"\x06\x00\x00\x00\x08\x00\x00\x00", "\x06\x00\x00\x00\xff\xff\xff\x7f", "\x06\x00\x00\x00\x0d\x00\x00\x00"} {
		var out bytes.Buffer
		if _, err := copyBlocks(&out, strings.NewReader(bad+strings.Repeat("x", 64))); err == nil || out.Len() > 0 {
			t.Errorf("%q: %v, %d bytes", bad, err, out.Len())
		}
	}
	n, err := copyBlocks(shortWriter{}, bytes.NewReader(whole))
	if err == nil || n.frames == 0 {
		t.Errorf("%+v, %v", n, err)
	}
}

type shortWriter struct{}

func (shortWriter) Write(b []byte) (int, error) {
	return len(b) / 2, errors.New("no space left on device")
}

// A file whose disk is full keeps its whole blocks only.
func TestCopyBlocksToAFullDisk(t *testing.T) {
	f, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var file bytes.Buffer
	capture.NewWriter(&file, capture.Options{}).Flush()
	w := capture.NewWriter(&file, capture.Options{})
	w.Close()
	if _, err := copyBlocks(f, &file); err == nil || !strings.Contains(err.Error(), "write capture: ") {
		t.Error(err)
	}
}

func FuzzCopyBlocks(f *testing.F) {
	var file bytes.Buffer
	w := capture.NewWriter(&file, capture.Options{})
	for _, x := range seenFrames() {
		w.Write(&x.Packet)
	}
	w.Close()
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		var out bytes.Buffer
		n, _ := copyBlocks(&out, bytes.NewReader(b))
		if !bytes.HasPrefix(b, out.Bytes()) || n.frames > uint64(len(b)/minBlock) {
			t.Errorf("%d frames, %d of %d bytes", n.frames, out.Len(), len(b))
		}
	})
}

func TestRecorderShow(t *testing.T) {
	c := newCLI(t)
	if _, out, _ := c.run("", "recorder", "show"); !strings.HasPrefix(out, "the flight recorder is off") {
		t.Error(out)
	}
	at := now.Add(-8 * time.Second)
	c.svc.Rec = api.RecorderStatus{On: true, Bytes: 8 << 20, Snap: 142, Rate: 4096, Frames: 123456, Drops: 7, Skipped: 99, Oldest: &at}
	golden(t, c, map[string][]string{"recorder-show": {"recorder", "show"}, "recorder-show-json": {"recorder", "show", "-o", "json"}})
}

// A terminal gets no pcapng.
func TestCaptureToATerminal(t *testing.T) {
	c := newCLI(t)
	terminal, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer terminal.Close()
	for _, args := range [][]string{{"capture", "br0", "-w", "-"}, {"recorder", "dump", "-w", "-"}} {
		var errs bytes.Buffer
		a := &app{in: strings.NewReader(""), out: terminal, err: &errs, now: time.Now, getenv: func(string) string { return c.socket }}
		if code := a.run(context.Background(), args); code != exitUsage || !strings.Contains(errs.String(), "standard output is a terminal; pipe it") {
			t.Errorf("%q: exit %d, %q", args, code, errs.String())
		}
	}
	if asked := c.svc.Asked(); len(asked) > 0 {
		t.Errorf("asked %+v", asked)
	}
}
