package vswitch_test

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// labVM is a process that speaks TAP as a virtual machine monitor does: frames
// with a virtio-net header, whole super-frames, unfinished checksums.
type labVM struct {
	t    *testing.T
	file *os.File
}

// newLabVM attaches to a TAP of the host.
func newLabVM(t *testing.T, l *lab.Lab, h *lab.Host, name string) *labVM {
	t.Helper()
	vm := &labVM{t: t}
	err := h.Do(func() error {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err == nil {
			req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
			err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
		}
		const csumTSO46USO46 = 0x01 | 0x02 | 0x04 | 0x20 | 0x40 // TUN_F_…, linux/if_tun.h
		if err == nil {
			err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, csumTSO46USO46)
		}
		if err != nil {
			unix.Close(fd)
			return err
		}
		vm.file = os.NewFile(uintptr(fd), name)
		return nil
	})
	if err != nil {
		t.Fatalf("attach to TAP %s: %v", name, err)
	}
	l.Cleanup(func() { vm.file.Close() })
	return vm
}

func (vm *labVM) send(frame []byte) {
	vm.t.Helper()
	if _, err := vm.file.Write(frame); err != nil {
		vm.t.Fatal(err)
	}
}

// want reads frames until one is as wanted from its Ethernet header on, and
// returns its virtio-net header.
func (vm *labVM) want(frame []byte) []byte {
	vm.t.Helper()
	vm.file.SetReadDeadline(time.Now().Add(5 * time.Second))
	buf := make([]byte, 70000)
	for {
		n, err := vm.file.Read(buf)
		if err != nil {
			vm.t.Fatalf("frame not received from the TAP: %v", err)
		}
		if bytes.Equal(buf[10:n], frame) {
			return buf[:10]
		}
	}
}

// labWantVnet is labWant for a VnetConn: it returns the header.
func labWantVnet(t *testing.T, c *lab.Conn, frame []byte) []byte {
	t.Helper()
	for deadline := time.Now().Add(5 * time.Second); ; {
		got, err := c.Recv(time.Until(deadline))
		if err != nil {
			t.Fatalf("%v; wanted %x", err, labShort(frame))
		}
		if bytes.Equal(got[10:], frame) {
			return got[:10]
		}
	}
}

// TestLabTAP: a virtual machine on a TAP that the switch made, and a container.
//
//	vm ── tap0 (type=tap, owner 1234) ┐
//	c1 eth0 ── veth-c1                ┴ br0
func TestLabTAP(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 1, labOptions{})
	c1 := n.c[0]
	n.d.Ctl("add-port", "br0", "tap0", "type=tap", "owner=1234", "group=4321", "mtu=1500")
	link, err := n.h.Link("tap0")
	if err != nil {
		t.Fatal(err)
	}
	if out := n.h.MustExec("ip", "-d", "link", "show", "tap0"); !strings.Contains(out, "persist on") ||
		!strings.Contains(out, "user 1234") || !strings.Contains(out, "group 4321") {
		t.Errorf("tap0 is not persistent with its owner: %s", out)
	}
	status := func() api.PortStatus {
		var st api.Status
		n.d.CtlJSON(&st, "show", "br0")
		for _, p := range st.Bridges[0].Ports {
			if p.Name == "tap0" {
				return p
			}
		}
		t.Fatal("show has no tap0")
		return api.PortStatus{}
	}
	if st := status(); st.State != api.PortDown || !strings.Contains(st.Reason, "attached") {
		t.Errorf("with nobody attached tap0 is %s: %s", st.State, st.Reason)
	}

	vm := newLabVM(t, n.Lab, n.h, "tap0")
	lab.Eventually(t, 5*time.Second, func() error {
		if st := status(); st.State != api.PortUp {
			return fmt.Errorf("tap0 is %s: %s", st.State, st.Reason)
		}
		return nil
	})
	mac := labMAC(1)
	wire := c1.VnetConn("eth0")
	none := make([]byte, 10)
	hello := labEther(c1.MAC, mac, "hello of the machine")
	vm.send(append(none, hello...))
	labWantVnet(t, wire, hello)
	answer := labEther(mac, c1.MAC, "answer of the container")
	labSend(t, wire, append(none, answer...))
	vm.want(answer)

	data := bytes.Repeat([]byte("0123456789abcdef"), 4000) // 64,000 bytes
	for _, test := range []struct {
		name    string
		six     bool
		udp     bool
		gsoSize int
		payload []byte
	}{
		{"TCPv4, partial checksum", false, false, 0, data[:1000]},
		{"TCPv6, partial checksum", true, false, 0, data[:1000]},
		{"UDP, partial checksum", false, true, 0, data[:1000]},
		{"TCPv4 super-frame", false, false, 1448, data},
		{"TCPv6 super-frame", true, false, 1428, data},
		{"UDPv4 super-frame", false, true, 1400, data[:60000]},
		{"UDPv6 super-frame", true, true, 1400, data[:60000]},
	} {
		t.Run(test.name, func(t *testing.T) {
			there := labFlow{src: mac, dst: c1.MAC, srcIP: net.ParseIP("10.0.0.9"), dstIP: net.ParseIP("10.0.0.1"), udp: test.udp}
			if test.six {
				there.srcIP, there.dstIP = net.ParseIP("fd00::9"), net.ParseIP("fd00::1")
			}
			back := there
			back.src, back.dst, back.srcIP, back.dstIP = there.dst, there.src, there.dstIP, there.srcIP

			frame := there.partial(t, test.payload, test.gsoSize)
			vm.send(frame)
			// The kernel writes the header length anew; all else is as it was.
			if got := labWantVnet(t, wire, frame[10:]); got[0] != frame[0] || got[1] != frame[1] || !bytes.Equal(got[4:], frame[4:10]) {
				t.Errorf("to the container: header %x, want %x", got, frame[:10])
			}
			frame = back.partial(t, test.payload, test.gsoSize)
			labSend(t, wire, frame)
			if got := vm.want(frame[10:]); got[0] != frame[0] || got[1] != frame[1] || !bytes.Equal(got[4:], frame[4:10]) {
				t.Errorf("to the machine: header %x, want %x", got, frame[:10])
			}
		})
	}

	n.d.Ctl("set-port", "tap0", "offload=off")
	flow := labFlow{src: c1.MAC, dst: mac, srcIP: net.ParseIP("10.0.0.1"), dstIP: net.ParseIP("10.0.0.9")}
	labSend(t, wire, flow.partial(t, data[:14480], 1448))
	buf := make([]byte, 70000)
	vm.file.SetReadDeadline(time.Now().Add(5 * time.Second))
	for got := 0; got < 14480; {
		length, err := vm.file.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(buf[10:22], append(append([]byte{}, mac...), c1.MAC...)) {
			continue // the host's own IPv6 greets whoever is on the TAP
		}
		if buf[1] != 0 || buf[0]&1 != 0 {
			t.Fatalf("offload=off, and the machine is handed %x", buf[:10])
		}
		if err := labFinished(buf[10:length], 1500); err != nil {
			t.Fatal(err)
		}
		if segment := buf[10+54 : length]; !bytes.Equal(segment, data[got:got+1448]) {
			t.Fatalf("segment at %d has other bytes", got)
		}
		got += 1448
	}

	// A machine that runs keeps its TAP while the daemon is away.
	n.d.Stop()
	if now, err := n.h.Link("tap0"); err != nil || now.Attrs().Index != link.Attrs().Index {
		t.Fatalf("the TAP of a running machine did not outlive the daemon: %v", err)
	}
	n.d.Start()
	labSend(t, wire, append(none, answer...))
	vm.want(answer)
	vm.send(append(none, hello...))
	labWantVnet(t, wire, hello)

	n.d.Ctl("del-port", "tap0")
	if _, err := n.h.Link("tap0"); err == nil {
		t.Error("tap0 is there after del-port")
	}
}

// TestLabPatch joins two bridges, and then makes a loop of them:
//
//	c1 eth0 ── veth-c1 ─ br0 ─ p01 ══ p10 ─ br1 ─ veth-c2 ── eth0 c2
//	                       └── q01 ══ q10 ──┘   (the loop)
func TestLabPatch(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 1, labOptions{addresses: true})
	c1 := n.c[0]
	c2 := n.h.Container("c2", lab.Addr("10.0.0.2/24"), lab.Addr("fd00::2/64"))
	const bridges = `
bridges:
- name: br0
  ports: [{name: veth-c1}, {name: p01, type: patch, peer: p10}%s]
- name: br1
  ports: [{name: veth-c2}, {name: p10, type: patch, peer: p01}%s]
`
	n.apply(fmt.Sprintf(bridges, "", ""))
	if err := lab.Ping(c1, c2); err != nil {
		t.Fatal(err)
	}
	for i, way := range [][2]*lab.Container{{c1, c2}, {c2, c1}} {
		for _, addr := range way[1].IPs {
			before := n.port("p01")
			if err := labTransfer(way[0].Namespace, way[1].Namespace, addr, 8<<20); err != nil {
				t.Fatal(err)
			}
			after := n.port("p01")
			if frames := after.TxFrames + after.RxFrames - before.TxFrames - before.RxFrames; frames > 8<<20/1500 {
				t.Errorf("way %d: %d frames through the patch: super-frames were not kept whole", i, frames)
			}
		}
	}
	st := n.settled()
	if a, b := labPort(st["br0"], "p01"), labPort(st["br1"], "p10"); a.TxFrames != b.RxFrames || a.RxBytes != b.TxBytes {
		t.Errorf("the two ends of the patch do not agree: %+v, %+v", a, b)
	}

	// The loop, on bridges that hear nothing but what this test sends.
	in := c1.Conn()
	n.apply(fmt.Sprintf(bridges, ", {name: q01, type: patch, peer: q10}", ", {name: q10, type: patch, peer: q01}"))
	const frames = 1000
	storm := func() (drops map[string]uint64, work uint64) {
		before := n.settled()
		for i := range frames {
			labSend(t, in, labEther(labBroadcast, labMAC(2), fmt.Sprintf("storm %d", i)))
		}
		drops = map[string]uint64{}
		for name, st := range n.settled() {
			for reason, count := range st.Counters.Drops {
				drops[reason] += count - before[name].Counters.Drops[reason]
			}
			work += st.Counters.Received - before[name].Counters.Received
		}
		return drops, work
	}
	// A MAC that flaps is held at its own port, which ends the loop: each frame
	// goes over the two patches, and each copy ends where it comes back.
	if drops, work := storm(); drops["mac-flapping"] < frames || work > frames*8 {
		t.Errorf("%d frames became %d; dropped: %v", frames, work, drops)
	}
	// Without that it is bounded by how often a frame is patched: both ways round,
	// eight patches each.
	for _, br := range []string{"br0", "br1"} {
		n.d.Ctl("set-br", br, "mac-flap-limit=0")
	}
	if drops, work := storm(); drops["patch-loop"] < frames || work > frames*40 {
		t.Errorf("mac-flap-limit=0: %d frames became %d; dropped: %v", frames, work, drops)
	}
	if n.d.Ctl("drops", "br0") == "" {
		t.Error("drops says nothing")
	}
	n.apply(fmt.Sprintf(bridges, "", ""))
	n.d.Ctl("fdb", "flush", "br0")
	n.d.Ctl("fdb", "flush", "br1")
	if err := lab.Ping(c1, c2); err != nil {
		t.Errorf("after the loop: %v", err)
	}
}

// labPort finds one port's counters.
func labPort(b api.BridgeStats, name string) api.PortCounters {
	for _, p := range b.Ports {
		if p.Port == name {
			return p.Counters
		}
	}
	return api.PortCounters{}
}
