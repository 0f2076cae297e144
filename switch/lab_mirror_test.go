package vswitch_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// labCaptured is what tshark says of one captured frame.
type labCaptured struct {
	iface         string
	direction     string // 0x00000001 is inbound, 0x00000002 outbound
	ip, tcp, udp  string // checksum status: 0 bad, 1 good, 2 not verified; empty: no such header
	malformed     bool
	len, captured int
	protocols     string
}

// labTshark dissects a capture file with all checksums verified, and fails the
// test where tshark cannot read it or finds a checksum bad or a frame malformed.
func labTshark(t *testing.T, h *lab.Host, path string) []labCaptured {
	t.Helper()
	fields := []string{"frame.interface_name", "frame.packet_flags_direction", "ip.checksum.status", "tcp.checksum.status",
		"udp.checksum.status", "_ws.malformed", "frame.len", "frame.cap_len", "frame.protocols"}
	command := []string{"tshark", "-n", "-r", path, "-o", "ip.check_checksum:TRUE", "-o", "tcp.check_checksum:TRUE",
		"-o", "udp.check_checksum:TRUE", "-o", "tcp.desegment_tcp_streams:FALSE", "-T", "fields", "-E", "separator=|", "-E", "occurrence=f"}
	for _, f := range fields {
		command = append(command, "-e", f)
	}
	out := filepath.Join(t.TempDir(), "dissected")
	// tshark speaks on standard error, which Exec would mix with its output.
	h.MustExec(append([]string{"sh", "-c", `out=$1; shift; "$@" >"$out" 2>"$out.err" || { cat "$out.err"; exit 1; }`, "sh", out}, command...)...)
	text, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	var all []labCaptured
	for line := range strings.Lines(string(text)) {
		f := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(f) != len(fields) {
			t.Fatalf("tshark says %q", line)
		}
		c := labCaptured{iface: f[0], direction: f[1], ip: f[2], tcp: f[3], udp: f[4], malformed: f[5] != "", protocols: f[8]}
		c.len, _ = strconv.Atoi(f[6])
		c.captured, _ = strconv.Atoi(f[7])
		if c.malformed || c.ip == "0" || c.tcp == "0" || c.udp == "0" {
			t.Errorf("%s: frame %d: %s", path, len(all)+1, line)
		}
		all = append(all, c)
	}
	return all
}

// mirror returns what mirror list says of a mirror.
func (n *labNet) mirror(name string) api.MirrorStatus {
	n.t.Helper()
	var st api.Status
	n.d.CtlJSON(&st, "show", "br0")
	for _, m := range st.Bridges[0].Mirrors {
		if m.Name == name {
			return m
		}
	}
	n.t.Fatalf("br0 has no mirror %s", name)
	return api.MirrorStatus{}
}

// TestLabMirrorPcap captures TCP and UDP, v4 and v6, and lets tshark judge:
//
//	c1 eth0 ── veth-c1 ┐
//	c2 eth0 ── veth-c2 ┴ br0 ── mirrors: all, dst, snap, rotate ── files
func TestLabMirrorPcap(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 2, labOptions{addresses: true})
	c1, c2 := n.c[0], n.c[1]
	file := func(name string) string { return filepath.Join(n.Dir(), name+".pcapng") }
	n.d.Ctl("mirror", "add", "br0", "all", "select_all=true", "output_pcap="+file("all"))
	n.d.Ctl("mirror", "add", "br0", "dst", "select_dst_port="+c2.Veth, "output_pcap="+file("dst"))
	n.d.Ctl("mirror", "add", "br0", "snap", "select_src_port="+c1.Veth, "output_pcap="+file("snap"), "snaplen=100")
	n.d.Ctl("mirror", "add", "br0", "rotate", "select_all=true", "output_pcap="+file("rotate"), "rotate=1M", "files=3")
	if err := lab.Ping(c1, c2); err != nil {
		t.Fatal(err)
	}
	for _, addr := range c2.IPs {
		if err := labTransfer(c1.Namespace, c2.Namespace, addr, 2<<20); err != nil {
			t.Fatal(err)
		}
		if err := labUDPSegments(c1.Namespace, c2.Namespace, addr, 1400, 3); err != nil {
			t.Fatal(err)
		}
	}
	if err := labTransfer(c2.Namespace, c1.Namespace, c1.IPs[0], 1<<20); err != nil {
		t.Fatal(err)
	}
	labSend(t, c1.Conn(), labTagged(labEther(c2.MAC, c1.MAC, "tagged"), 0x8100_600a))
	// Kernels with IPv6 speak up at times; now they cannot.
	for _, c := range n.c {
		c.MustExec("ip", "link", "set", "eth0", "down")
	}
	n.settled()
	frames := map[string]uint64{}
	for _, name := range []string{"all", "dst", "snap", "rotate"} {
		m := n.mirror(name)
		if frames[name] = m.Frames; m.State != "up" || m.Dropped != 0 || m.Frames == 0 {
			t.Errorf("mirror %s: %+v", name, m)
		}
		n.d.Ctl("mirror", "del", "br0", name) // the file is whole then
	}

	all := labTshark(t, n.h, file("all"))
	if uint64(len(all)) != frames["all"] {
		t.Errorf("all has %d frames, mirror list said %d", len(all), frames["all"])
	}
	var good struct{ tcp, udp, ip, super, in1, in2, tagged int }
	for i, c := range all {
		switch {
		case c.direction != "0x00000001":
			t.Errorf("frame %d of all: direction %s, want inbound", i+1, c.direction)
		case c.iface == c1.Veth:
			good.in1++
		case c.iface == c2.Veth:
			good.in2++
		default:
			t.Errorf("frame %d of all: interface %q", i+1, c.iface)
		}
		if c.captured != c.len {
			t.Errorf("frame %d of all: %d of %d bytes", i+1, c.captured, c.len)
		}
		for status, count := range map[string]*int{c.tcp: &good.tcp, c.udp: &good.udp, c.ip: &good.ip} {
			if status == "1" {
				*count++
			}
		}
		if c.len > 1514 {
			good.super++
		}
		if strings.Contains(c.protocols, "vlan") {
			good.tagged++
		}
	}
	if good.tcp == 0 || good.udp == 0 || good.ip == 0 || good.super == 0 || good.in1 == 0 || good.in2 == 0 || good.tagged != 1 {
		t.Errorf("the capture lacks something: %+v", good)
	}
	for i, c := range labTshark(t, n.h, file("dst")) {
		if c.direction != "0x00000002" || c.iface != c2.Veth {
			t.Fatalf("frame %d of dst: direction %s at %s, want outbound at %s", i+1, c.direction, c.iface, c2.Veth)
		}
	}
	cut := 0
	for i, c := range labTshark(t, n.h, file("snap")) {
		if c.captured != min(c.len, 100) {
			t.Fatalf("frame %d of snap: %d of %d bytes, want at most 100", i+1, c.captured, c.len)
		}
		if c.len > c.captured {
			cut++
		}
	}
	if cut == 0 {
		t.Error("snaplen cut nothing")
	}
	files, _ := filepath.Glob(filepath.Join(n.Dir(), "rotate*"))
	if len(files) != 3 {
		t.Errorf("rotate has left %v, want 3 files", files)
	}
	for _, f := range files {
		if len(labTshark(t, n.h, f)) == 0 {
			t.Errorf("%s is empty", f)
		}
		if st, err := os.Stat(f); err != nil || st.Size() > 1<<20+70000 {
			t.Errorf("%s: %d bytes, %v; want 1 MiB and at most a frame more", f, st.Size(), err)
		}
	}
}

// TestLabMirrorDiskFull: a mirror's disk is full, and nothing but its copies is
// lost.
//
//	c1 eth0 ── veth-c1 ┐
//	c2 eth0 ── veth-c2 ┴ br0 ── mirror ── file on a tmpfs of 2 MiB, mostly taken
func TestLabMirrorDiskFull(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 2, labOptions{})
	c1, c2 := n.c[0], n.c[1]
	disk := filepath.Join(n.Dir(), "disk")
	if err := os.Mkdir(disk, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("tmpfs", disk, "tmpfs", 0, "size=2m"); err != nil {
		t.Fatalf("mount a tmpfs: %v", err)
	}
	t.Cleanup(func() { unix.Unmount(disk, unix.MNT_DETACH) })
	filler := filepath.Join(disk, "filler")
	if err := os.WriteFile(filler, make([]byte, 3<<19), 0o644); err != nil {
		t.Fatal(err)
	}
	n.d.Ctl("mirror", "add", "br0", "m0", "select_all=true", "output_pcap="+filepath.Join(disk, "m0.pcapng"))

	in, out := c1.Conn(), c2.Conn()
	const frames = 2000
	payload := strings.Repeat("disk", 300)
	for i := range frames {
		labSend(t, in, labEther(c2.MAC, c1.MAC, fmt.Sprint(i, payload)))
	}
	for i := range frames {
		labWant(t, out, labEther(c2.MAC, c1.MAC, fmt.Sprint(i, payload)))
	}
	lab.Eventually(t, 5*time.Second, func() error {
		m := n.mirror("m0")
		if m.Frames != frames || m.Dropped == 0 || m.Dropped >= frames || m.State != "error" || !strings.Contains(m.Reason, "no space") {
			return errors.New("mirror list does not tell of the full disk: " + labJSON(m))
		}
		return nil
	})
	if text := n.d.Ctl("mirror", "list", "br0"); !strings.Contains(text, "no space") {
		t.Errorf("mirror list: %s", text)
	}
	lost := n.mirror("m0").Dropped
	// Room again: it goes on by itself, and says what is missing.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, 10*time.Second, func() error {
		labSend(t, in, labEther(c2.MAC, c1.MAC, "after"))
		if m := n.mirror("m0"); m.State != "up" {
			return errors.New("the mirror does not come back: " + labJSON(m))
		}
		return nil
	})
	labWant(t, out, labEther(c2.MAC, c1.MAC, "after"))
	n.d.Ctl("mirror", "del", "br0", "m0")
	if len(labTshark(t, n.h, filepath.Join(disk, "m0.pcapng"))) == 0 {
		t.Error("nothing was captured after there was room")
	}
	if c := n.bridge("br0").Counters; c.Dropped != 0 {
		t.Errorf("frames were dropped beside the mirror's %d: %+v", lost, c)
	}
}

// TestLabMirrorPort copies to a port (SPAN) and to a VLAN (RSPAN):
//
//	c1 eth0 ── veth-c1 ┐
//	c2 eth0 ── veth-c2 ┼ br0
//	c3 eth0 ── veth-c3 ┘  output_port, and later a trunk with output_vlan=99
func TestLabMirrorPort(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 3, labOptions{})
	c1, c2, c3 := n.c[0], n.c[1], n.c[2]
	w1, w2, w3 := c1.Conn(), c2.Conn(), c3.Conn()
	n.d.Ctl("mirror", "add", "br0", "span", "select_src_port="+c1.Veth, "output_port="+c3.Veth)
	there := labEther(c2.MAC, c1.MAC, "there")
	back := labEther(c1.MAC, c2.MAC, "back")
	double := labTagged(there, 0x88a8_0005, 0x8100_0006)
	labSend(t, w1, there, double)
	labWant(t, w2, there, double)
	labWant(t, w3, there, double)
	labSend(t, w2, back)
	labWant(t, w1, back)
	labSend(t, w2, labEther(labBroadcast, c2.MAC, "flood")) // not to a mirror's port
	labSend(t, w1, labEther(labBroadcast, c1.MAC, "copied"))
	labWant(t, w3, labEther(labBroadcast, c1.MAC, "copied"))
	n.wantDrop(c3.Veth, "mirror-output-port", 1, func() { labSend(t, w3, labEther(labBroadcast, c3.MAC, "collector")) })
	if m := n.mirror("span"); m.Frames != 3 {
		t.Errorf("mirror list counts %d frames, want 3", m.Frames)
	}

	n.d.Ctl("mirror", "del", "br0", "span")
	n.d.Ctl("set-port", c1.Veth, "tag=10")
	n.d.Ctl("set-port", c2.Veth, "tag=10")
	n.d.Ctl("set-port", c3.Veth, "trunks=99")
	n.d.Ctl("mirror", "add", "br0", "rspan", "select_src_port="+c1.Veth, "output_vlan=99")
	w2.Drain()
	labSend(t, w1, there)
	labWant(t, w2, there)
	labWant(t, w3, labTagged(there, 0x8100_0063))
	var list []json.RawMessage
	n.d.CtlJSON(&list, "mirror", "list", "br0")
	if len(list) != 1 {
		t.Errorf("mirror list: %s", list)
	}
}
