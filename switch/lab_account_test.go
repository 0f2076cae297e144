package vswitch_test

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// TestLabAccounting mixes everything, and wants every frame to be accounted for:
//
//	c1 eth0 ── veth-c1             ┐        ┌ veth-c6 ── eth0 c6
//	c2 eth0 ── veth-c2             │        │
//	c3 eth0 ── veth-c3 offload=off ┼ br0 ══ br1
//	c4 eth0 ── veth-c4 tag=10      │ (patch)
//	c5 eth0 ── veth-c5 SPAN        ┘
//
// with a capture of all of br0 beside it. c4 and c6 hear and send plain frames
// only, so their kernels' counters must be the switch's.
func TestLabAccounting(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 3, labOptions{addresses: true})
	c1, c2, c3 := n.c[0], n.c[1], n.c[2]
	c4, c5, c6 := n.h.Container("c4"), n.h.Container("c5"), n.h.Container("c6")
	n.apply(fmt.Sprintf(`
bridges:
- name: br0
  ports:
  - {name: veth-c1}
  - {name: veth-c2}
  - {name: veth-c3, offload: off}
  - {name: veth-c4, tag: 10}
  - {name: veth-c5}
  - {name: p01, type: patch, peer: p10, trunks: [0, 20]}
  mirrors:
  - {name: file, select_all: true, output_pcap: %s, snaplen: 128}
  - {name: span, select_src_port: [veth-c4], output_port: veth-c5}
- name: br1
  ports:
  - {name: veth-c6, vlan_mode: access, tag: 20}
  - {name: p10, type: patch, peer: p01}
`, filepath.Join(n.Dir(), "all.pcapng")))

	// Whole and split super-frames, both families.
	for _, to := range []*lab.Container{c2, c3} {
		for _, addr := range to.IPs {
			if err := labTransfer(c1.Namespace, to.Namespace, addr, 2<<20); err != nil {
				t.Fatal(err)
			}
			if err := labUDPSegments(c1.Namespace, to.Namespace, addr, 1400, 5); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := labTransfer(c3.Namespace, c1.Namespace, c1.IPs[0], 2<<20); err != nil {
		t.Fatal(err)
	}
	w1, w2, w4, w5, w6 := c1.Conn(), c2.Conn(), c4.Conn(), c5.Conn(), c6.Conn()
	for i := range 200 {
		unknown := labMAC(1000 + i)
		labSend(t, w1,
			labEther(labBroadcast, c1.MAC, fmt.Sprint("flood ", i)),
			labEther(unknown, c1.MAC, fmt.Sprint("unknown ", i)),
			labTagged(labEther(labBroadcast, c1.MAC, fmt.Sprint("VLAN 10, ", i)), 0x8100_000a),
			labTagged(labEther(labBroadcast, c1.MAC, fmt.Sprint("through the patch, ", i)), 0x8100_0014))
		labSend(t, w2, labEther(c2.MAC, labMAC(1), "to himself")) // same-port, once c2 is known
		labSend(t, w4, labEther(labBroadcast, c4.MAC, fmt.Sprint("from access ", i)))
		labSend(t, w6, labEther(c1.MAC, c6.MAC, fmt.Sprint("from br1 ", i)))
	}
	n.wantDrop(c4.Veth, "vlan-tagged-on-access", 1, func() { labSend(t, w4, labTagged(labEther(c1.MAC, c4.MAC, ""), 0x8100_000a)) })
	n.wantDrop(c1.Veth, "reserved-multicast", 1, func() { labSend(t, w1, labEther([]byte{1, 0x80, 0xc2, 0, 0, 0}, c1.MAC, "BPDU")) })
	n.wantDrop(c5.Veth, "mirror-output-port", 1, func() { labSend(t, w5, labEther(labBroadcast, c5.MAC, "")) })
	n.wantDrop("p10", "no-output", 1, func() { labSend(t, w1, labEther(labMAC(5000), c1.MAC, "VLAN 0 is not c6's")) })
	if n.drops(c2.Veth, "same-port") == 0 {
		t.Error("no frame was dropped as same-port")
	}
	// A port goes down: what was learned there is forgotten, what is static is not.
	still := labMAC(6000)
	n.d.Ctl("fdb", "add", "br0", still.String(), c2.Veth)
	c2.MustExec("ip", "link", "set", "eth0", "down")
	lab.Eventually(t, 5*time.Second, func() error {
		for _, p := range n.status("br0").Ports {
			if p.Name == c2.Veth && p.State == "down" {
				return nil
			}
		}
		return errors.New("veth-c2 is not down")
	})
	n.wantDrop(c2.Veth, "port-down", 3, func() {
		for range 3 {
			labSend(t, w1, labEther(still, c1.MAC, "nobody at home"))
		}
	})
	// A port goes, and what it did stays in the bridge's sums.
	n.settled()
	n.d.Ctl("del-port", c3.Veth)

	st := n.settled()
	c := st["br0"].Counters
	if c.FloodCopies == 0 || c.MirrorCopies == 0 || c.SplitCopies == 0 || c.Dropped == 0 {
		t.Errorf("something did not happen: %+v", c)
	}
	for name, b := range st {
		var received, sent, dropped uint64
		for _, p := range b.Ports {
			received += p.Counters.RxFrames + p.Counters.RxMissed
			sent += p.Counters.TxFrames
			var sum uint64
			for _, n := range p.Counters.Drops {
				sum += n
			}
			if dropped += sum; sum != p.Counters.Dropped {
				t.Errorf("port %s: its reasons sum up to %d, not %d", p.Port, sum, p.Counters.Dropped)
			}
		}
		// br0 has lost a port, and sends to a file.
		if c := b.Counters; name == "br1" && (received != c.Received || sent != c.Sent || dropped != c.Dropped) {
			t.Errorf("%s: ports received %d, sent %d, dropped %d; the bridge says %+v", name, received, sent, dropped, c)
		}
	}
	for _, c := range []*lab.Container{c4, c5, c6} {
		link, err := c.Link("eth0")
		if err != nil {
			t.Fatal(err)
		}
		kernel, ours := link.Attrs().Statistics, n.port(c.Veth)
		if kernel.RxPackets != ours.TxFrames || kernel.TxPackets != ours.RxFrames {
			t.Errorf("%s: its kernel received %d frames and sent %d, the switch sent %d and received %d",
				c.Name, kernel.RxPackets, kernel.TxPackets, ours.TxFrames, ours.RxFrames)
		}
	}
}

// stopped is an error until every thread of a process has stopped: SIGSTOP returns
// before they do.
func stopped(pid int) error {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	if err != nil || len(files) == 0 {
		return fmt.Errorf("threads of %d: %d, %v", pid, len(files), err)
	}
	for _, file := range files {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		// proc_pid_stat(5): the state stands behind the name, which is in brackets.
		if state := b[bytes.LastIndexByte(b, ')')+1:]; !bytes.HasPrefix(state, []byte(" T")) {
			return fmt.Errorf("%s: %.3s", file, state)
		}
	}
	return nil
}

// TestLabMissed lets the kernel drop before the switch can read, while the daemon
// is stopped:
//
//	c1 eth0 ── veth-c1 rx-buffer=65536 ┐
//	c2 eth0 ── veth-c2                 ┴ br0
func TestLabMissed(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 2, labOptions{})
	c1, c2 := n.c[0], n.c[1]
	n.d.Ctl("set-port", c1.Veth, "rx-buffer=65536")
	in, out := c1.Conn(), c2.Conn()
	const frames = 3000
	if err := n.d.Process().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	resume := func() { n.d.Process().Signal(syscall.SIGCONT) }
	n.Cleanup(resume) // before the daemon is told to end, whatever happens
	lab.Eventually(t, 5*time.Second, func() error { return stopped(n.d.Process().PID()) })
	for i := range frames {
		labSend(t, in, labEther(c2.MAC, c1.MAC, fmt.Sprint("burst ", i, strings.Repeat("x", 500))))
	}
	resume()
	lab.Eventually(t, 10*time.Second, func() error {
		c := n.port(c1.Veth)
		if c.RxFrames+c.RxMissed != frames || c.RxMissed == 0 || c.RxFrames == 0 || c.Drops["rx-missed"] != c.RxMissed {
			return errors.New("the burst is not accounted for: " + labJSON(c))
		}
		return nil
	})
	n.settled()
	missed := n.port(c1.Veth).RxMissed
	got, err := out.Collect(200 * time.Millisecond)
	if err != nil || len(got) != int(frames-missed) {
		t.Errorf("%d frames arrived, %v; want %d", len(got), err, frames-missed)
	}
	for i, f := range got {
		if !bytes.HasPrefix(f[14:], []byte(fmt.Sprint("burst ", i, "x"))) {
			t.Fatalf("frame %d is %q: what was kept must be the first that came, in order", i, f[14:30])
		}
	}
	if text := n.d.Ctl("drops"); !strings.Contains(text, "rx-missed") {
		t.Errorf("drops: %s", text)
	}
	// The count outlives the socket, and the port.
	n.d.Ctl("set-port", c1.Veth, "rx-buffer=131072")
	if c := n.port(c1.Veth); c.RxMissed != missed {
		t.Errorf("after the port was opened anew: %d frames missed, were %d", c.RxMissed, missed)
	}
	n.d.Ctl("del-port", c1.Veth)
	if c := n.settled()["br0"].Counters; c.Drops["rx-missed"] != missed {
		t.Errorf("after the port was removed: %+v", c)
	}
}
