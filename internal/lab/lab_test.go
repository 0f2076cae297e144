package lab_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

// twoContainers is the usual topology:
//
//	c1 eth0 ── veth-c1 [host a] veth-c2 ── eth0 c2
func twoContainers(t *testing.T, options ...lab.ContainerOption) (*lab.Lab, *lab.Host, *lab.Container, *lab.Container) {
	t.Helper()
	l := lab.New(t)
	h := l.Host("a")
	c1 := h.Container("c1", append(options, lab.Addr("10.0.0.1/24"), lab.Addr("fd00::1/64"))...)
	c2 := h.Container("c2", append(options, lab.Addr("10.0.0.2/24"), lab.Addr("fd00::2/64"))...)
	return l, h, c1, c2
}

func TestPingAndIperf3ThroughKernelBridge(t *testing.T) {
	_, h, c1, c2 := twoContainers(t, lab.MTU(9000))
	if err := lab.NoPing(c1, c2); err != nil {
		t.Fatalf("before there is a bridge: %v", err)
	}
	h.KernelBridge("br0", c1.Veth, c2.Veth)
	if err := lab.Ping(c1, c2); err != nil {
		t.Fatal(err)
	}
	if err := lab.NoPing(c1, c2); err == nil {
		t.Fatal("NoPing says nothing of an answer")
	}
	r, err := lab.Iperf3(c1, c2, 1)
	if err != nil {
		t.Fatal(err)
	}
	if r.BitsPerSecond < 1e6 || r.Bytes == 0 {
		t.Fatalf("measured %+v", r)
	}
	r, err = lab.Iperf3(c1, c2, 1, "-u", "-b", "10M")
	if err != nil {
		t.Fatal(err)
	}
	if r.Packets == 0 {
		t.Fatalf("measured %+v", r)
	}
}

// TestConn checks bytes both ways through a wire of nothing but a veth pair:
//
//	c1 eth0 ── veth-c1 [host a]
func TestConn(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c1 := h.Container("c1")
	inside, outside := c1.Conn(), h.Conn(c1.Veth)

	addresses := "020000000002020000000001"
	payload := strings.Repeat("00", 46)
	for _, test := range []struct{ name, hex string }{
		{"untagged", addresses + "88b5" + payload},
		{"802.1Q", addresses + "8100e00a" + "88b5" + payload},
		{"802.1ad", addresses + "88a80064" + "88b5" + payload},
		{"QinQ", addresses + "88a80064" + "8100000a" + "88b5" + payload},
		{"priority tag", addresses + "8100a000" + "88b5" + payload},
		{"broadcast", "ffffffffffff020000000001" + "88b5" + payload},
		{"MTU", addresses + "88b5" + strings.Repeat("ab", 1500)},
		{"MTU and a tag", addresses + "81000001" + "88b5" + strings.Repeat("ab", 1500)},
	} {
		t.Run(test.name, func(t *testing.T) {
			want, err := hex.DecodeString(test.hex)
			if err != nil {
				t.Fatal(err)
			}
			for _, way := range []struct{ from, to *lab.Conn }{{inside, outside}, {outside, inside}} {
				if err := way.from.Send(want); err != nil {
					t.Fatal(err)
				}
				got, err := way.to.Recv(5 * time.Second)
				if err != nil {
					t.Fatal(err)
				}
				if !bytes.Equal(got, want) {
					t.Errorf("got  %x\nwant %x", got, want)
				}
			}
		})
	}
	for name, conn := range map[string]*lab.Conn{"inside": inside, "outside": outside} {
		if drops, err := conn.Drops(); err != nil || drops != 0 {
			t.Errorf("%s: %d frames dropped, %v", name, drops, err)
		}
	}
}

func TestConnBurst(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c1 := h.Container("c1")
	in, out := h.Conn(c1.Veth), c1.Conn()

	if frames, err := in.Collect(300 * time.Millisecond); err != nil || len(frames) != 0 {
		t.Fatalf("a container without an address is not silent: %x, %v", frames, err)
	}
	if _, err := in.Recv(time.Millisecond); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("error %v, want os.ErrDeadlineExceeded", err)
	}
	send := func(n int) {
		t.Helper()
		for i := range n {
			frame := make([]byte, 60)
			frame[0], frame[12], frame[13] = 2, 0x88, 0xb5
			binary.BigEndian.PutUint32(frame[14:], uint32(i))
			if err := out.Send(frame); err != nil {
				t.Fatal(err)
			}
		}
	}
	send(1000)
	frames, err := in.Collect(200 * time.Millisecond)
	if err != nil || len(frames) != 1000 {
		t.Fatalf("collected %d frames, %v; want 1000", len(frames), err)
	}
	for i, frame := range frames {
		if got := binary.BigEndian.Uint32(frame[14:]); got != uint32(i) {
			t.Fatalf("frame %d carries %d", i, got)
		}
	}
	send(10)
	lab.Eventually(t, 5*time.Second, func() error { // veth delivers a moment later
		if n := in.Drain(); n != 10 {
			return fmt.Errorf("drained %d frames, want 10", n)
		}
		return nil
	})
}

// TestVnetConn sees the unfinished checksum that a container sends.
func TestVnetConn(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c1 := h.Container("c1", lab.Addr("10.0.0.1/24"))
	conn := h.VnetConn(c1.Veth)
	c1.MustExec("ip", "neigh", "add", "10.0.0.2", "lladdr", "02:00:00:00:00:02", "dev", "eth0")
	c1.MustExec("bash", "-c", "echo hello >/dev/udp/10.0.0.2/9")
	got, err := conn.Recv(5 * time.Second)
	if err != nil {
		t.Fatal(err)
	}
	if flags := got[0]; flags&1 == 0 {
		t.Errorf("virtio-net header %x does not say that the checksum is unfinished", got[:10])
	}
	if ethertype := binary.BigEndian.Uint16(got[10+12:]); ethertype != unix.ETH_P_IP {
		t.Errorf("EtherType %#x", ethertype)
	}
}

func TestUnplugAndReplug(t *testing.T) {
	_, h, c1, c2 := twoContainers(t)
	c1.Unplug()
	if _, err := h.Link(c1.Veth); err == nil {
		t.Fatalf("%s is still there", c1.Veth)
	}
	mac := c1.MAC.String()
	c1.Replug()
	if c1.MAC.String() != mac {
		t.Errorf("MAC address %s, was %s", c1.MAC, mac)
	}
	h.KernelBridge("br0", c1.Veth, c2.Veth)
	if err := lab.Ping(c1, c2); err != nil {
		t.Fatal(err)
	}
}

// TestWire pings between hosts:
//
//	[host a] u0 ────── u0 [host b]
func TestWire(t *testing.T) {
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Wire(a.Namespace, "u0", "192.0.2.1/24", b.Namespace, "u0", "192.0.2.2/24")
	if err := a.Ping("192.0.2.2"); err != nil {
		t.Fatal(err)
	}
}

func TestOVS(t *testing.T) {
	l, h, c1, c2 := twoContainers(t)
	before := h.Snapshot()
	o := l.OVS(h)
	o.AddBridge("br0")
	o.AddPort("br0", c1.Veth, "tag=10")
	o.AddPort("br0", c2.Veth, "tag=10")
	if err := lab.Ping(c1, c2); err != nil {
		t.Fatal(err)
	}
	if fdb := o.Appctl("fdb/show", "br0"); !strings.Contains(fdb, c1.MAC.String()) {
		t.Errorf("forwarding table without %s:\n%s", c1.MAC, fdb)
	}
	o.Stop()
	for _, line := range before.Diff(h.Snapshot()) {
		if strings.Contains(line, "link") && !strings.Contains(line, "veth-") {
			t.Errorf("left behind by OVS: %s", line)
		}
	}
}

func TestSnapshotSeesHooks(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c := h.Container("c1")
	before := h.Snapshot()
	if diff := before.Diff(h.Snapshot()); len(diff) != 0 {
		t.Fatalf("nothing happened, and yet: %q", diff)
	}
	h.MustExec("ip", "tuntap", "add", "tap0", "mode", "tap")
	h.MustExec("tc", "qdisc", "add", "dev", c.Veth, "clsact")
	h.MustExec("tc", "filter", "add", "dev", c.Veth, "ingress", "protocol", "all", "u32", "match", "u32", "0", "0", "classid", "1:1")
	h.MustExec("ip", "link", "set", c.Veth, "promisc", "on")
	diff := strings.Join(before.Diff(h.Snapshot()), "\n")
	for _, want := range []string{
		"+ link tap0 kind tuntap",
		"+ qdisc clsact on veth-c1",
		"+ tc filter u32 ingress on veth-c1",
		"+ link veth-c1 kind veth mtu 1500 promiscuity 1",
		"- link veth-c1 kind veth mtu 1500 promiscuity 0",
	} {
		if !strings.Contains(diff, want) {
			t.Errorf("no %q in:\n%s", want, diff)
		}
	}
}

func TestExec(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	out, err := h.Exec("sh", "-c", "echo said; exit 3")
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 || out != "said\n" {
		t.Errorf("output %q, error %v", out, err)
	}
	if _, err := h.Exec("no-such-command-here"); !errors.Is(err, exec.ErrNotFound) {
		t.Errorf("error %v", err)
	}
	if _, err := h.ExecTimeout(50*time.Millisecond, "sleep", "60"); err == nil || !strings.Contains(err.Error(), "killed after") {
		t.Errorf("error %v", err)
	}
	if links := h.MustExec("ip", "-o", "link"); strings.Count(links, "\n") != 1 {
		t.Errorf("a new host has more than lo:\n%s", links)
	}
	h.Sysctl("net.ipv4.ip_forward", "1")
	if got := h.MustExec("cat", "/proc/sys/net/ipv4/ip_forward"); got != "1\n" {
		t.Errorf("ip_forward is %q", got)
	}
}

// TestCleanup ends a lab while everything in it lives, and looks for what is left.
func TestCleanup(t *testing.T) {
	if os.Geteuid() != 0 {
		lab.New(t) // skips
	}
	var child string
	t.Run("lab", func(t *testing.T) {
		l := lab.New(t)
		h := l.Host("a")
		h.Container("c1", lab.Addr("10.0.0.1/24"))
		h.Start("sleep", "1000")
		// A grandchild that left its group, and its parent.
		h.MustExec("sh", "-c", "setsid sleep 1001 >/dev/null 2>&1 </dev/null & echo $! >"+l.Dir()+"/pid")
		pid, err := os.ReadFile(l.Dir() + "/pid")
		if err != nil {
			t.Fatal(err)
		}
		child = strings.TrimSpace(string(pid))
		if len(lab.Leftovers()) < 4 {
			t.Errorf("Leftovers sees only %q", lab.Leftovers())
		}
	})
	if left := lab.Leftovers(); len(left) != 0 {
		t.Errorf("left behind:\n%s", strings.Join(left, "\n"))
	}
	lab.Eventually(t, 5*time.Second, func() error {
		// Orphans become zombies until the machine's init reaps them.
		status, err := os.ReadFile("/proc/" + child + "/stat")
		if err != nil || strings.Contains(string(status), ") Z ") {
			return nil
		}
		return fmt.Errorf("grandchild %s lives: %s", child, status)
	})
}

// TestKilled kills a test binary in the middle of a lab: its processes die with
// it, and what it left on the machine goes with the next lab.
func TestKilled(t *testing.T) {
	if os.Getenv("LAB_HELPER") == "1" {
		l := lab.New(t)
		h := l.Host("a")
		h.Container("c1")
		sleeper := h.Start("sleep", "1000")
		fmt.Printf("ready %d %s\n", sleeper.PID(), h.Name)
		select {}
	}
	l := lab.New(t)
	h := l.Host("outer")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := h.Start("env", "LAB_HELPER=1", exe, "-test.run=^TestKilled$")
	var sleeper int
	var space string
	lab.Eventually(t, 20*time.Second, func() error {
		for line := range strings.Lines(victim.Out.String()) {
			if _, err := fmt.Sscanf(line, "ready %d %s", &sleeper, &space); err == nil {
				return nil
			}
		}
		return fmt.Errorf("the other test is not ready: %s", victim.Out)
	})
	unix.Kill(victim.PID(), unix.SIGKILL)
	<-victim.Done()
	lab.Eventually(t, 5*time.Second, func() error {
		status, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", sleeper))
		if err != nil || strings.Contains(string(status), ") Z ") {
			return nil
		}
		return fmt.Errorf("process %d outlived the test that started it", sleeper)
	})

	if !slices.Contains(namespaces(t), space) {
		t.Fatalf("namespace %s went by itself; the sweep has nothing to show", space)
	}
	// The sweep happens in the first lab of a process.
	h.MustExec(exe, "-test.run=^TestExec$")
	for _, name := range namespaces(t) {
		if strings.HasPrefix(name, strings.TrimSuffix(space, "-a")) {
			t.Errorf("namespace %s was not swept", name)
		}
	}
}

func namespaces(t *testing.T) (names []string) {
	t.Helper()
	entries, err := os.ReadDir("/run/netns")
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

func TestWait(t *testing.T) {
	n := 0
	if err := lab.Wait(5*time.Second, func() error {
		if n++; n < 3 {
			return errors.New("not yet")
		}
		return nil
	}); err != nil || n != 3 {
		t.Errorf("error %v after %d calls", err, n)
	}
	never := errors.New("never")
	if err := lab.Wait(5*time.Millisecond, func() error { return never }); !errors.Is(err, never) {
		t.Errorf("error %v", err)
	}
}

func TestTail(t *testing.T) {
	tail := &lab.Tail{Limit: 10}
	for range 100 {
		fmt.Fprint(tail, "0123456789")
	}
	fmt.Fprint(tail, "end")
	if s := tail.String(); !strings.HasSuffix(s, "789end") || len(s) > 50 || !strings.HasPrefix(s, "… (cut)") {
		t.Errorf("kept %q", s)
	}
}
