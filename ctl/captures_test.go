package ctl_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// capturing is a capture that runs in the background.
type capturing struct {
	t    *testing.T
	proc *lab.Proc
	out  *lab.Tail
}

// startCapture starts vswitchctl capture and waits until the daemon has begun.
func startCapture(t *testing.T, d *lab.Daemon, args ...string) *capturing {
	t.Helper()
	c := &capturing{t: t}
	c.proc, c.out = d.CtlStart(append([]string{"capture"}, args...)...)
	lab.Eventually(t, patient, func() error {
		return has(c.proc.Out.String(), "capturing on")
	})
	return c
}

// end interrupts it, and expects the line that counts.
func (c *capturing) end() string {
	c.t.Helper()
	if err := c.proc.Signal(syscall.SIGINT); err != nil {
		c.t.Fatal(err)
	}
	return c.ended(0)
}

// ended waits until it ends by itself.
func (c *capturing) ended(code int) string {
	c.t.Helper()
	c.proc.Wait(patient)
	if got := c.proc.ExitCode(); got != code {
		c.t.Errorf("the capture ended with status %d, want %d: %s", got, code, c.proc.Out)
	}
	if err := has(c.proc.Out.String(), " missed\n"); err != nil {
		c.t.Error(err)
	}
	return c.out.String()
}

// tshark returns the lines that it prints for a capture, checksums verified.
func tshark(t *testing.T, file string, args ...string) []string {
	t.Helper()
	args = append([]string{"-n", "-r", file, "-o", "tcp.check_checksum:TRUE", "-o", "udp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"}, args...)
	cmd := exec.Command("tshark", args...)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("tshark %q: %v: %s", args, err, errs.String())
	}
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}

// valid holds a file to what Wireshark thinks of it.
func valid(t *testing.T, file string) {
	t.Helper()
	for _, wrong := range []string{"ip.checksum.status == 0", "tcp.checksum.status == 0", "udp.checksum.status == 0", "icmp.checksum.status == 0", "_ws.malformed"} {
		if lines := tshark(t, file, "-Y", wrong); len(lines) > 0 {
			t.Errorf("%d frames with %s, such as %s", len(lines), wrong, lines[0])
		}
	}
	if out, err := exec.Command("tcpdump", "-n", "-r", file).CombinedOutput(); err != nil {
		t.Errorf("tcpdump: %v: %s", err, out)
	}
}

// save writes what went to standard output to a file.
func save(t *testing.T, l *lab.Lab, content string) string {
	t.Helper()
	file := filepath.Join(l.Dir(), fmt.Sprintf("out%d.pcapng", serial.Add(1)))
	if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return file
}

// TestCaptureOfTraffic: a ping and a TCP stream are in the capture as they passed, each
// frame at both ports, with valid checksums, directions and comments.
func TestCaptureOfTraffic(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	answered(t, p.c1, "10.0.0.2") // both are learned
	c := startCapture(t, p.d, "br0", "-w", "-")
	if out := p.c1.MustExec("ping", "-n", "-q", "-c", "5", "-i", "0.05", "-s", "1000", "10.0.0.2"); !strings.Contains(out, " 0% packet loss") {
		t.Fatal(out)
	}
	r, err := lab.Iperf3(p.c1, p.c2, 1, "-b", "30M")
	if err != nil {
		t.Fatal(err)
	}
	// What the last frame was is known when it is here.
	p.c1.MustExec("ping", "-n", "-q", "-c", "1", "-s", "777", "10.0.0.2")
	file := ""
	lab.Eventually(t, patient, func() error {
		file = save(t, p.Lab, c.out.String())
		if n := len(tsharkSome(file, "-Y", "icmp && frame.len == 819")); n != 4 {
			return fmt.Errorf("%d frames of the last ping, want 4", n)
		}
		return nil
	})
	file = save(t, p.Lab, c.end())
	valid(t, file)

	fields := []string{"-T", "fields", "-e", "frame.interface_name", "-e", "frame.packet_flags_direction", "-e", "frame.comment"}
	for filter, want := range map[string]string{
		"icmp.type == 8 && icmp.seq == 5": "veth-c1\t0x00000001\tbr0 veth-c1 in -> veth-c2\nveth-c2\t0x00000002\tbr0 veth-c2 out",
		"icmp.type == 0 && icmp.seq == 5": "veth-c2\t0x00000001\tbr0 veth-c2 in -> veth-c1\nveth-c1\t0x00000002\tbr0 veth-c1 out",
	} {
		if got := strings.Join(tshark(t, file, append([]string{"-Y", filter + " && frame.len == 1042"}, fields...)...), "\n"); got != want {
			t.Errorf("%s:\n%s\nwant:\n%s", filter, got, want)
		}
	}
	if n := len(tshark(t, file, "-Y", "icmp && frame.len == 1042")); n != 20 {
		t.Errorf("%d frames of 5 pings, want 20", n)
	}
	for _, port := range []string{"veth-c1", "veth-c2"} {
		var bytes int
		for _, n := range tshark(t, file, "-Y", `frame.interface_name == "`+port+`" && tcp.dstport == 5201`, "-T", "fields", "-e", "tcp.len") {
			x, _ := strconv.Atoi(n)
			bytes += x
		}
		if int64(bytes) < r.Bytes {
			t.Errorf("%d bytes of TCP at %s, and iperf3 sent %d", bytes, port, r.Bytes)
		}
	}
	if all := tshark(t, file, "-Y", "tcp.analysis.lost_segment || tcp.analysis.ack_lost_segment"); len(all) > 0 {
		t.Errorf("frames are missing: %s", all[0])
	}
	if !slices.ContainsFunc(tshark(t, file, "-Y", "tcp", "-T", "fields", "-e", "frame.len"), over(1514)) {
		t.Error("no super-frame")
	}
}

// TestCaptureLive: a dissector at the end of a pipe sees frames as they pass, however
// few there are.
func TestCaptureLive(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	answered(t, p.c1, "10.0.0.2")
	client := p.d.Client()
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	f, err := client.CaptureFile(ctx, api.CaptureQuery{Name: "veth-c1", Filter: "icmp"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Body.Close()
	in, out, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.CommandContext(ctx, "tshark", "-n", "-l", "-i", "-", "-c", "2", "-T", "fields", "-e", "frame.comment", "-e", "icmp.type")
	cmd.Stdin = in
	var lines lab.Tail
	lines.Limit = 1 << 16
	cmd.Stdout = &lines
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { // ends with f.Body
		io.Copy(out, f.Body)
		out.Close()
	}()
	p.c1.MustExec("ping", "-n", "-q", "-c", "1", "10.0.0.2")
	if err := cmd.Wait(); err != nil {
		t.Fatal(err)
	}
	if want := "br0 veth-c1 in -> veth-c2\t8\nbr0 veth-c1 out\t0\n"; lines.String() != want {
		t.Errorf("%q, want %q", lines.String(), want)
	}
}

// over reports whether a length is above a bound.
func over(most int) func(string) bool {
	return func(n string) bool {
		x, err := strconv.Atoi(n)
		return err != nil || x > most
	}
}

// holdsTCP waits until a capture has all that iperf3 sent, in bytes.
func holdsTCP(t *testing.T, file string, sent int64) {
	t.Helper()
	lab.Eventually(t, patient, func() error {
		var bytes int64
		for _, n := range tsharkSome(file, "-Y", "tcp.dstport == 5201", "-T", "fields", "-e", "tcp.len") {
			x, _ := strconv.ParseInt(n, 10, 64)
			bytes += x
		}
		if bytes < sent {
			return fmt.Errorf("%d bytes of TCP, and iperf3 sent %d", bytes, sent)
		}
		return nil
	})
}

// TestCaptureSplit: with --split nothing is longer than the MTU lets it be, and the
// stream is whole.
func TestCaptureSplit(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	answered(t, p.c1, "10.0.0.2")
	file := filepath.Join(p.Dir(), "split.pcapng")
	c := startCapture(t, p.d, "veth-c1", "--in", "--split", "-w", file, "tcp")
	r, err := lab.Iperf3(p.c1, p.c2, 1, "-b", "30M")
	if err != nil {
		t.Fatal(err)
	}
	holdsTCP(t, file, r.Bytes)
	c.end()
	valid(t, file)
	lens := tshark(t, file, "-T", "fields", "-e", "frame.len")
	if i := slices.IndexFunc(lens, over(1514)); i >= 0 || len(lens) < 1000 {
		t.Errorf("%d frames; one of %s bytes", len(lens), lens[max(i, 0)])
	}
	if out := tshark(t, file, "-Y", `frame.interface_name != "veth-c1" || frame.packet_flags_direction != 1`); len(out) > 0 {
		t.Errorf("not what came in by veth-c1: %s", out[0])
	}
}

// TestCaptureChoices: -c, -s, -i, -o, --local and the filter.
func TestCaptureChoices(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{}, "ip=10.0.0.254/24")
	answered(t, p.c1, "10.0.0.2")
	answered(t, p.c1, "10.0.0.254")
	ping := func(addr string) {
		t.Helper()
		p.c1.MustExec("ping", "-n", "-q", "-c", "3", "-i", "0.05", addr)
	}
	for _, tc := range []struct {
		args  string
		want  []string // in each line
		lines int
		ping  string
	}{
		{"veth-c1 -c 2 icmp", []string{" veth-c1 ", "IPv4 10.0.0.", "length 64"}, 2, "10.0.0.2"},
		{"veth-c1 -c 2 -i icmp", []string{" veth-c1 in ", "echo request", "  -> veth-c2"}, 2, "10.0.0.2"},
		{"veth-c1 -c 2 -o icmp", []string{" veth-c1 out ", "echo reply"}, 2, "10.0.0.2"},
		{"br0 -c 2 icmp[icmptype] == icmp-echoreply and src host 10.0.0.2", []string{"10.0.0.2 > 10.0.0.1: icmp echo reply"}, 2, "10.0.0.2"},
		{"br0 --local -c 2 -o json icmp", []string{`"port":"br0"`, `"bridge":"br0"`, `"summary":"`}, 2, "10.0.0.254"},
		{"br0 -s 30 -c 2 ip", []string{"IPv4 [|ip]"}, 2, "10.0.0.2"},
		{"br0 -s 38 -o json -c 2 icmp", []string{`"length":98,"kept":38,`, "[|icmp]"}, 2, "10.0.0.2"},
	} {
		c := startCapture(t, p.d, strings.Fields(tc.args)...)
		ping(tc.ping)
		out := c.ended(0)
		lines := strings.Split(strings.TrimSuffix(out, "\n"), "\n")
		if len(lines) != tc.lines {
			t.Errorf("%s: %d lines:\n%s", tc.args, len(lines), out)
		}
		for _, l := range lines {
			if err := has(l, tc.want...); err != nil {
				t.Errorf("%s: %v", tc.args, err)
			}
		}
		if err := has(c.proc.Out.String(), "2 frames, 0 missed\n"); err != nil {
			t.Errorf("%s: %v", tc.args, err)
		}
	}
	refused(t, p.d, []string{"capture", "nobody"}, `there is no bridge and no port "nobody"`)
	refused(t, p.d, []string{"capture", "br0", "hots", "10.0.0.1"}, `filter "hots 10.0.0.1": "hots" at 1: `)
	refused(t, p.d, []string{"capture", "br0", "host"}, `filter "host": it ends after "host"`)
	refused(t, p.d, []string{"capture", "br0", "--tunnel", "outer"}, "has no tunnel")
	refused(t, p.d, []string{"capture", "veth-c1", "--tunnel", "outer", "--drops"}, "leave out either drops or tunnel=outer")
	refused(t, p.d, []string{"recorder", "dump", "nobody"}, `there is no bridge and no port "nobody", nor a filter`)
	_, stderr, code := p.d.CtlErr("capture", "br0", "-c", "-3")
	if code != 2 || !strings.Contains(stderr, "-c -3") {
		t.Errorf("status %d, %s", code, stderr)
	}
}

// TestCaptureOfDrops: what is dropped is told of with its reason, in the file's comment
// and on the screen; and, afterwards, by the recorder.
//
//	c1 ── veth-c1 trunks=10 [br0] veth-c2 ── c2
func TestCaptureOfDrops(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	answered(t, p.c1, "10.0.0.2")
	p.d.Ctl("set-port", "veth-c1", "vlan_mode=trunk", "trunks=10")
	conn := p.c1.Conn()
	defer conn.Close()
	mac := p.c1.MAC
	begin := time.Now()
	const comment = "br0 veth-c1 in: dropped: vlan-not-trunked"

	file := filepath.Join(p.Dir(), "drops.pcapng")
	inFile := startCapture(t, p.d, "br0", "--drops", "-c", "2", "-w", file, "ether", "proto", "0x88b5")
	onScreen := startCapture(t, p.d, "br0", "--drops", "-c", "2", "vlan", "20")
	for range 2 {
		if err := conn.Send(testFrame(mac, 20)); err != nil {
			t.Fatal(err)
		}
	}
	onScreen.ended(0)
	if err := has(onScreen.out.String(), " veth-c1 in  DROPPED vlan-not-trunked  "+mac.String()+" > ff:ff:ff:ff:ff:ff, vlan 20, ", "\n    the frame's VLAN is not among the port's trunks"); err != nil {
		t.Error(err)
	}
	if n := strings.Count(onScreen.out.String(), "is not among the port's"); n != 1 {
		t.Errorf("the help stands there %d times", n)
	}
	// A filter for the EtherType behind the tag is for untagged frames, as tcpdump has it.
	if !strings.Contains(inFile.proc.Out.String(), "missed") {
		inFile.end()
	}
	inFile = startCapture(t, p.d, "br0", "--drops", "-c", "2", "-w", file, "vlan", "and", "ether", "proto", "0x88b5")
	for range 2 {
		if err := conn.Send(testFrame(mac, 20)); err != nil {
			t.Fatal(err)
		}
	}
	inFile.ended(0)
	want := []string{"20\t" + comment, "20\t" + comment}
	if got := tshark(t, file, "-T", "fields", "-e", "vlan.id", "-e", "frame.comment"); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}

	// After the fact.
	dump := filepath.Join(p.Dir(), "dump.pcapng")
	_, stderr, _ := p.d.CtlErr("recorder", "dump", "--last", fmt.Sprint(int(time.Since(begin).Seconds())+2, "s"), "--drops", "-w", dump)
	if got := tshark(t, dump, "-Y", "vlan.id == 20", "-T", "fields", "-e", "frame.comment"); len(got) != 4 || got[0] != comment {
		t.Errorf("%q: %q", stderr, got)
	}
	out := p.d.Ctl("recorder", "dump", "veth-c1", "icmp")
	if err := has(out, " veth-c1 in  "+p.c1.MAC.String()+" > "+p.c2.MAC.String()+", IPv4 10.0.0.1 > 10.0.0.2: icmp echo request", "  -> veth-c2\n"); err != nil {
		t.Error(err)
	}
	if strings.Contains(out, "DROPPED") || strings.Contains(out, "echo reply") {
		t.Errorf("what is not asked for:\n%s", out)
	}
	all := filepath.Join(p.Dir(), "all.pcapng")
	p.d.Ctl("recorder", "dump", "-w", all)
	valid(t, all)
	last := 0.0
	for _, at := range tshark(t, all, "-T", "fields", "-e", "frame.time_epoch") {
		x, err := strconv.ParseFloat(at, 64)
		if err != nil || x < last {
			t.Errorf("%s after %f", at, last)
		}
		last = x
	}
	// A port that is gone is remembered by its name.
	p.d.Ctl("del-port", "veth-c1")
	if got := p.d.Ctl("recorder", "dump", "veth-c1", "icmp"); strings.Count(got, "\n") != strings.Count(out, "\n") {
		t.Errorf("after del-port:\n%s", got)
	}
	var st api.RecorderStatus
	p.d.CtlJSON(&st, "recorder", "show")
	if !st.On || st.Frames == 0 || st.Drops < 4 || st.OldestDrop == nil || st.OldestDrop.Before(begin) {
		t.Errorf("%+v", st)
	}
}

// TestNoRecorder: it can be off, and says so.
func TestNoRecorder(t *testing.T) {
	l := lab.New(t)
	d := l.Host("a").Daemon(lab.DaemonOptions{Args: []string{"--recorder", "0"}})
	refused(t, d, []string{"recorder", "dump"}, "the flight recorder is off", "--recorder")
	if out := d.Ctl("recorder", "show"); !strings.Contains(out, "is off") {
		t.Error(out)
	}
}

// TestDaemonEndsDuringCapture: the file is whole, with its statistics, and the command
// says why it ended.
func TestDaemonEndsDuringCapture(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	file := filepath.Join(p.Dir(), "x.pcapng")
	c := startCapture(t, p.d, "br0", "-w", file)
	answered(t, p.c1, "10.0.0.2")
	p.d.Stop()
	c.ended(3)
	if err := has(c.proc.Out.String(), "the daemon ended the capture"); err != nil {
		t.Error(err)
	}
	valid(t, file)
	if got := tshark(t, file, "-Y", "icmp"); len(got) < 4 {
		t.Errorf("%d frames of a ping", len(got))
	}
	if out, err := exec.Command("capinfos", "-T", "-c", file).CombinedOutput(); err != nil {
		t.Errorf("capinfos: %v: %s", err, out)
	}
}

// TestCaptureReaderThatRests: it holds up neither frames nor the daemon's end, and what
// it missed is counted.
func TestCaptureReaderThatRests(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	answered(t, p.c1, "10.0.0.2")
	client := p.d.Client()
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	f, err := client.CaptureFile(ctx, api.CaptureQuery{Bridge: "br0"})
	if err != nil {
		t.Fatal(err)
	}
	defer f.Body.Close()
	r, err := lab.Iperf3(p.c1, p.c2, 2)
	if err != nil {
		t.Fatal(err)
	}
	if r.BitsPerSecond < 50e6 {
		t.Errorf("%.0f bit/s beside a capture that nobody reads", r.BitsPerSecond)
	}
	// It goes on, and learns what it missed.
	file := filepath.Join(p.Dir(), "slow.pcapng")
	out, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	copied := make(chan error, 1)
	go func() { // ends with the capture
		_, err := io.Copy(out, f.Body)
		copied <- err
	}()
	lab.Eventually(t, patient, func() error {
		p.c1.MustExec("ping", "-n", "-q", "-c", "1", "-s", "777", "10.0.0.2")
		text := tsharkSome(file, "-Y", "icmp && frame.len == 819")
		if len(text) == 0 {
			return fmt.Errorf("the ping is not in the capture")
		}
		return nil
	})
	// Another one stalls while the daemon ends.
	stalled, err := client.CaptureFile(ctx, api.CaptureQuery{Bridge: "br0"})
	if err != nil {
		t.Fatal(err)
	}
	defer stalled.Body.Close()
	if _, err := lab.Iperf3(p.c1, p.c2, 1); err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	p.d.Stop()
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("the daemon took %v to end", took)
	}
	if err := <-copied; err != nil {
		t.Error(err)
	}
	out.Close()
	info, err := exec.Command("capinfos", file).CombinedOutput()
	if err != nil {
		t.Fatalf("capinfos: %v: %s", err, info)
	}
	if missed := dropCounts(t, file); missed == 0 {
		t.Errorf("nothing is said to be missing:\n%s", info)
	}
}

// tsharkSome is tshark of a file that is being written: it may end in the middle of a
// block.
func tsharkSome(file string, args ...string) []string {
	out, _ := exec.Command("tshark", append([]string{"-n", "-r", file}, args...)...).Output()
	return strings.FieldsFunc(string(out), func(r rune) bool { return r == '\n' })
}

// dropCounts adds up the epb_dropcount of a file.
func dropCounts(t *testing.T, file string) (n uint64) {
	t.Helper()
	for _, s := range tshark(t, file, "-T", "fields", "-e", "frame.drop_count") {
		x, _ := strconv.ParseUint(s, 10, 64)
		n += x
	}
	return n
}

// TestCapturesAreBounded: there are 16 at a time.
func TestCapturesAreBounded(t *testing.T) {
	l := lab.New(t)
	d := l.Host("a").Daemon(lab.DaemonOptions{})
	d.Ctl("add-br", "br0")
	client := d.Client()
	defer client.Close()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var open []api.Frames
	for range 16 {
		f, err := client.CaptureFile(ctx, api.CaptureQuery{})
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, f)
	}
	refused(t, d, []string{"capture", "br0"}, "16 captures are running already")
	for _, f := range open {
		f.Body.Close()
	}
	lab.Eventually(t, patient, func() error {
		f, err := client.CaptureFile(ctx, api.CaptureQuery{})
		if err == nil {
			f.Body.Close()
		}
		return err
	})
}

// TestCaptureOuter: the packets of a tunnel as they are on the underlay, whole and
// valid, and none that is another's.
//
//	c ── [host a: br0 t0] ── 192.0.2.1 ═══ 192.0.2.2 ── [t0 br0: host b] ── c
func TestCaptureOuter(t *testing.T) {
	for _, kind := range []string{"vxlan", "geneve", "gre"} {
		t.Run(kind, func(t *testing.T) {
			h := newTwoHosts(t, lab.DaemonOptions{})
			h.tunnel(kind, "key=42")
			file := filepath.Join(h.Dir(), "outer.pcapng")
			c := startCapture(t, h.a.d, "t0", "--tunnel", "outer", "-w", file)
			if err := has(c.proc.Out.String(), "the underlay of port t0 of bridge br0"); err != nil {
				t.Error(err)
			}
			lines := startCapture(t, h.a.d, "br0", "--tunnel", "outer", "-c", "1", "src", "host", "192.0.2.2")
			h.a.MustExec("ping", "-n", "-q", "-c", "1", "192.0.2.2") // is no tunnel's
			if kind == "vxlan" {
				h.unknownKey()
			}
			h.a.c.MustExec("ping", "-n", "-q", "-c", "3", "-i", "0.05", "10.0.0.2")
			lines.ended(0)
			if err := has(lines.out.String(), " t0 on ", " in  ", kind+" ", " 42: "); kind != "vxlan" && err != nil {
				t.Error(err)
			}
			r, err := lab.Iperf3(h.a.c, h.b.c, 1, "-b", "30M")
			if err != nil {
				t.Fatal(err)
			}
			holdsTCP(t, file, r.Bytes)
			c.end()
			valid(t, file)
			if n := len(tshark(t, file, "-Y", kind+" && icmp")); n != 6 {
				t.Errorf("%d packets of 3 pings, want 6", n)
			}
			if other := tshark(t, file, "-Y", "!"+kind); len(other) > 0 {
				t.Errorf("no tunnel's: %s", other[0])
			}
			if i := slices.IndexFunc(tshark(t, file, "-T", "fields", "-e", "frame.len"), over(1514)); i >= 0 {
				t.Error("packets that are longer than the underlay takes")
			}
			dev := tshark(t, file, "-c", "1", "-T", "fields", "-e", "frame.interface_name")[0]
			fields := []string{"-T", "fields", "-e", "frame.packet_flags_direction", "-e", "frame.comment"}
			for filter, want := range map[string]string{
				"icmp.type == 8 && icmp.seq == 3": "0x00000002\tbr0 t0 out on " + dev,
				"icmp.type == 0 && icmp.seq == 3": "0x00000001\tbr0 t0 in on " + dev,
			} {
				if got := strings.Join(tshark(t, file, append([]string{"-Y", filter}, fields...)...), "\n"); got != want {
					t.Errorf("%s: %q, want %q", filter, got, want)
				}
			}
			if kind == "vxlan" {
				want := "0x00000001\tbr0 t0 in on " + dev + ": key 99 is no port's"
				if got := tshark(t, file, append([]string{"-Y", "vxlan.vni == 99"}, fields...)...); !slices.Equal(got, []string{want}) {
					t.Errorf("%q, want %q", got, want)
				}
			}
		})
	}
}

// unknownKey sends a VXLAN packet with a key that host a has no port for.
func (h *twoHosts) unknownKey() {
	h.t.Helper()
	err := h.b.Do(func() error {
		c, err := net.Dial("udp4", "192.0.2.1:4789")
		if err != nil {
			return err
		}
		defer c.Close()
		_, err = c.Write(append([]byte{8, 0, 0, 0, 0, 0, 99, 0}, testFrame(h.b.c.MAC, 0)...))
		return err
	})
	if err != nil {
		h.t.Fatal(err)
	}
}
