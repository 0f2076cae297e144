package vswitch_test

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

// labVnetSocket opens a packet socket on eth0 of a container whose frames begin
// with a virtio-net header, and that never waits: with a lab.Conn, a frame that
// the kernel has no buffer for is tried until its deadline.
func labVnetSocket(t *testing.T, c *lab.Container) (fd int) {
	t.Helper()
	err := c.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		if fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1); err != nil {
			return err
		}
		return unix.Bind(fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// TestLabHostile sends what no honest sender sends, from a container's packet
// socket and from a virtual machine's TAP, towards a port that takes frames as
// they are and one that has them finished in software:
//
//	c1 eth0 ── veth-c1                ┐
//	c2 eth0 ── veth-c2                ┼ br0
//	c3 eth0 ── veth-c3 offload=off    │
//	vm ─────── tap0                   ┘
//
// The daemon must live, forward what honest senders send, and account for all.
func TestLabHostile(t *testing.T) {
	t.Parallel()
	n := newLabNet(t, 3, labOptions{addresses: true})
	c1, c2, c3 := n.c[0], n.c[1], n.c[2]
	n.d.Ctl("set-port", c3.Veth, "offload=off")
	n.d.Ctl("add-port", "br0", "tap0", "type=tap")
	vm := newLabVM(t, n.Lab, n.h, "tap0")
	lab.Eventually(t, 5*time.Second, func() error {
		for _, p := range n.status("br0").Ports {
			if p.Name == "tap0" && p.State != "up" {
				return errors.New(p.Reason)
			}
		}
		return nil
	})
	wire := labVnetSocket(t, c1)
	if err := errors.Join(lab.Ping(c1, c2), lab.Ping(c1, c3)); err != nil {
		t.Fatal(err)
	}

	seed := uint64(20261121)
	r := rand.New(rand.NewPCG(seed, seed))
	refused := map[string]int{}
	send := func(frame []byte, byVM bool) {
		var err error
		if byVM {
			_, err = vm.file.Write(frame)
		} else {
			err = unix.Sendto(wire, frame, unix.MSG_DONTWAIT, nil)
		}
		// The sender's own kernel refuses much of it, and that is as good.
		var errno unix.Errno
		if err != nil && !errors.As(err, &errno) {
			t.Fatal(err)
		}
		if err != nil {
			refused[errno.Error()]++
		}
	}
	targets := []net.HardwareAddr{c2.MAC, c3.MAC, labBroadcast}
	payload := make([]byte, 60000)
	const rounds = 6000
	for i := range rounds {
		flow := labFlow{src: labMAC(1), dst: targets[r.IntN(len(targets))], udp: r.IntN(3) == 0,
			srcIP: net.ParseIP("10.0.0.66"), dstIP: net.ParseIP("10.0.0.3")}
		if r.IntN(2) == 0 {
			flow.srcIP, flow.dstIP = net.ParseIP("fd00::66"), net.ParseIP("fd00::3")
		}
		size := r.IntN(3000)
		if r.IntN(10) == 0 {
			size = r.IntN(len(payload))
		}
		gso := 0
		if r.IntN(3) > 0 {
			gso = 1 + r.IntN(1500)
		}
		f := flow.partial(t, payload[:size], gso)
		switch r.IntN(6) {
		case 0: // any header
			for j := range 10 {
				f[j] = byte(r.Uint32())
			}
		case 1: // a header that is nearly right
			at := 2 + 2*r.IntN(4)
			binary.LittleEndian.PutUint16(f[at:], []uint16{0, 1, 13, 14, 15, uint16(len(f) - 10), uint16(len(f) - 11), 0xffff}[r.IntN(8)])
		case 2: // any bytes of the IP and transport headers
			for range 1 + r.IntN(4) {
				f[10+12+r.IntN(min(len(f)-22, 70))] = byte(r.Uint32())
			}
		case 3: // cut short
			f = f[:10+14+r.IntN(len(f)-24)]
		case 4: // the other kind of super-frame
			f[1] = []byte{1, 2, 3, 4, 5, 0x80, 0x81, 0x84}[r.IntN(8)]
		case 5: // tags that lead nowhere
			f = append(f[:10:10], labTagged(f[10:], 0x8100_0000|r.Uint32()&0xffff, 0x88a8_0000|r.Uint32()&0xffff)...)
			f = f[:max(10+14, min(len(f), 10+14+r.IntN(60)))]
		}
		send(f, i%2 == 0)
	}
	// Around the ends of what a frame can be.
	for _, size := range []int{14, 15, 59, 60, 1514, 1515, 65535, 65549, 65553, 65554, 65600} {
		f := append(make([]byte, 10), labEther(labBroadcast, labMAC(2), string(make([]byte, max(0, size-14))))...)
		send(f[:10+size], true)
		send(f[:10+size], false)
	}
	t.Logf("seed %d; of %d frames the senders' kernels refused %v", seed, rounds, refused)

	if err := errors.Join(lab.Ping(c1, c2), lab.Ping(c2, c3), lab.Ping(c3, c1)); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	for _, to := range []*lab.Container{c2, c3} {
		if err := labTransfer(c1.Namespace, to.Namespace, to.IPs[0], 1<<20); err != nil {
			t.Errorf("afterwards: %v", err)
		}
	}
	c := n.settled()["br0"].Counters
	t.Log("dropped: ", c.Drops)
	total := uint64(0)
	for _, count := range refused {
		total += uint64(count)
	}
	if c.Received < rounds-total {
		t.Errorf("%d frames received, of %d that were not refused", c.Received, rounds-total)
	}
	if c.Drops["unsegmentable"] == 0 {
		t.Error("no frame was unsegmentable: this test does not reach the software segmentation")
	}
}
