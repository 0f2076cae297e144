package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net"
	"os/exec"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// vxlanWire sends super-frames into a VXLAN device of Linux's, and shows what it
// makes of them twice: as the veth that has tunnel offloads passes them on, and as
// Linux cuts the same ones for a veth that has none.
//
//	a network namespace of the test's own thread
//	+-----------------------------------------------------------------+
//	| AF_PACKET        AF_PACKET: whole             AF_PACKET: cut    |
//	|   | send           ^                            ^               |
//	|  vx0 ── up0 ═veth═ up1 ── Linux bridge ── down0 ═veth═ down1    |
//	|         offloads on                       offloads off          |
//	+-----------------------------------------------------------------+
type vxlanWire struct {
	t                  *testing.T
	send, whole, parts int
	buf                []byte
}

// newVXLANWire takes the arguments of a VXLAN device; see newWire for the thread.
func newVXLANWire(t *testing.T, vxlan string) *vxlanWire {
	t.Helper()
	ownNamespace(t)
	for _, line := range strings.Split(strings.TrimSpace(fmt.Sprintf(`
ip link add name up0 mtu 9500 type veth peer name up1 mtu 9500
ip link add name down0 mtu 9500 type veth peer name down1 mtu 9500
ip link add name bridge0 mtu 9500 type bridge
ethtool -K down0 tx off sg off tso off gso off tx-udp-segmentation off
ip link set up1 master bridge0
ip link set down0 master bridge0
ip address add 192.0.2.1/24 dev up0
ip address add 2001:db8::1/64 dev up0 nodad
ip link set up1 up
ip link set down0 up
ip link set down1 up
ip link set bridge0 up
ip link set up0 up
ip neighbor add 192.0.2.2 lladdr 02:00:00:00:09:02 dev up0 nud permanent
ip neighbor add 2001:db8::2 lladdr 02:00:00:00:09:02 dev up0 nud permanent
ip link add name vx0 mtu 9350 type vxlan id 7 dstport 4789 dev up0 %s
ip link set vx0 up
`, vxlan)), "\n") {
		args := strings.Fields(line)
		if msg, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v: %s", line, err, msg)
		}
	}
	w := &vxlanWire{t: t, buf: make([]byte, BufferLen)}
	w.send = openPacket(t, "vx0", 0)
	w.whole = openPacket(t, "up1", unix.ETH_P_ALL)
	w.parts = openPacket(t, "down1", unix.ETH_P_ALL)
	return w
}

// through sends b into the VXLAN device, and returns the frame that left it, and
// what Linux made of that. A fence sent behind b tells where that ends.
func (w *vxlanWire) through(b []byte, o Offload) (whole []byte, offload Offload, parts [][]byte) {
	w.t.Helper()
	fence := join(macDst, macSrc, []byte{0x88, 0xb5}, []byte("fence"), make([]byte, 41))
	for _, f := range []struct {
		b []byte
		o Offload
	}{{b, o}, {fence, Offload{}}} {
		m := make([]byte, VnetLen, VnetLen+len(f.b))
		f.o.PutVnet(m, 0)
		if _, err := unix.Write(w.send, append(m, f.b...)); err != nil {
			w.t.Fatalf("send %d bytes with %+v: %v", len(f.b), f.o, err)
		}
	}
	wholes, offloads := w.receive(w.whole, fence)
	if len(wholes) != 1 {
		w.t.Fatalf("the VXLAN device made %d frames of one", len(wholes))
	}
	parts, _ = w.receive(w.parts, fence)
	return wholes[0], offloads[0], parts
}

// receive returns the tunnel's frames up to the fence.
func (w *vxlanWire) receive(fd int, fence []byte) (frames [][]byte, offloads []Offload) {
	w.t.Helper()
	for {
		n, err := unix.Read(fd, w.buf)
		if err != nil {
			w.t.Fatalf("receive: %v", err)
		}
		b := bytes.Clone(w.buf[VnetLen:n])
		if !bytes.Contains(b[:min(len(b), 100)], join(macDst, macSrc)) {
			continue // the namespace's own, such as router solicitations
		}
		if bytes.HasSuffix(b, fence) {
			return frames, offloads
		}
		var o Offload
		o.GetVnet(w.buf)
		frames, offloads = append(frames, b), append(offloads, o)
	}
}

// Linux cuts the same tunnel's super-frames, and every segment is the same byte
// for byte.
func TestSegmentOverlayAgainstKernel(t *testing.T) {
	for _, tt := range []struct{ name, args string }{
		{"IPv4 udpcsum", "local 192.0.2.1 remote 192.0.2.2 udpcsum"},
		{"IPv4 noudpcsum", "local 192.0.2.1 remote 192.0.2.2 noudpcsum"},
		{"IPv4 df", "local 192.0.2.1 remote 192.0.2.2 udpcsum df set"},
		{"IPv6", "local 2001:db8::1 remote 2001:db8::2"},
		{"IPv6 udp6zerocsumtx", "local 2001:db8::1 remote 2001:db8::2 udp6zerocsumtx"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newVXLANWire(t, tt.args)
			pool := testPool(t, 2)
			src, dst := pool.Get(), pool.Get()
			r := rand.New(rand.NewPCG(27, 28))
			var s Segmenter
			total, kinds := 0, map[string]int{}
			for i := range 400 {
				p := randomPacket(r, []int{40, 3000, 30000, 62000}[i%4])
				size := []int{5, 100, 1398, 8800}[i%4]
				size += r.IntN(size)/2 + 1
				size = min(size, 8900)
				if p.tags = nil; len(p.payload) <= size {
					continue // see TestSegmentAgainstKernel
				}
				p.super(src, uint16(size))
				if !p.udp && r.IntN(2) == 0 {
					src.GSOType |= GSOECN
				}
				kind := fmt.Sprintf("v6=%v udp=%v ext=%v type=%#x", p.v6, p.udp, p.v6 && len(p.ext) > 0, src.GSOType)
				whole, offload, want := w.through(src.Bytes(), src.Offload)
				src.Set(whole)
				src.Offload = offload
				if err := src.Check(); err != nil || !src.Encapsulated() {
					t.Fatalf("%s: %+v is not encapsulated, or %v", kind, offload, err)
				}
				got := segments(t, &s, src, dst)
				if len(got) != len(want) {
					t.Fatalf("%s, payload %d, size %d: %d segments, Linux makes %d", kind, len(p.payload), size, len(got), len(want))
				}
				for k := range got {
					if !bytes.Equal(got[k], want[k]) {
						t.Fatalf("%s: segment %d of %d:\n  ours % x\nLinux's % x", kind, k, len(got), got[k], want[k])
					}
				}
				total += len(got)
				kinds[kind]++
			}
			if total < 400 || len(kinds) < 8 {
				t.Errorf("only %d segments of %d kinds were compared", total, len(kinds))
			}
			t.Logf("%d segments of %d kinds of super-frame are Linux's", total, len(kinds))
		})
	}
}

// A frame that a kernel is given back as it gave it to us does not arrive: this is
// why there is Encapsulated. When this test fails, it may go.
func TestKernelForgetsEncapsulation(t *testing.T) {
	w := newWire(t)
	pool := testPool(t, 1)
	f := pool.Get()
	overlay{kind: "vxlan"}.super(f, packet{payload: make([]byte, 5000)}, 1398)
	b := bytes.Clone(f.Bytes())
	copy(b[6:], macSrc)
	if err := w.send(b, f.Offload); err != nil {
		return // refused at once
	}
	plain, _ := packet{payload: []byte("next")}.build()
	got := w.through(plain, Offload{})
	want := f.Len() - 5000 + 1398
	if len(got) == 5 && len(got[0]) == want && binary.BigEndian.Uint16(got[0][16:]) == uint16(want-14) {
		t.Error("Linux cut it as it should")
	}
}

// openPacket opens a packet socket with virtio-net headers on an interface.
func openPacket(t *testing.T, name string, proto uint16) int {
	t.Helper()
	ifi, err := net.InterfaceByName(name)
	if err != nil {
		t.Fatalf("find %s: %v", name, err)
	}
	proto = proto>>8 | proto<<8
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		t.Fatalf("open packet socket: %v", err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	for _, err := range []error{
		unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: proto, Ifindex: ifi.Index}),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VNET_HDR, 1),
		unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1),
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}),
	} {
		if err != nil {
			t.Fatalf("set up packet socket on %s: %v", name, err)
		}
	}
	return fd
}
