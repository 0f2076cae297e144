package frame

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// wire sends frames through a veth pair whose sending end has no offloads, so
// that Linux itself cuts and sums them, and shows what comes out:
//
//	a network namespace of the test's own thread
//	+--------------------------------------------------------+
//	| AF_PACKET, PACKET_VNET_HDR         AF_PACKET, auxdata  |
//	|     | send                               ^ receive     |
//	|   out0 ============= veth ============= in0            |
//	|   tx, sg, tso, gso off                                 |
//	+--------------------------------------------------------+
type wire struct {
	t       *testing.T
	out, in int
	buf     []byte
}

// ownNamespace leaves the calling goroutine on a thread of its own, which ends with
// the goroutine, and its new network namespace with it.
func ownNamespace(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root: a network namespace with a veth pair")
	}
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	runtime.LockOSThread() // never unlocked: see above
	must("unshare network namespace", unix.Unshare(unix.CLONE_NEWNET))

	// On one CPU, frames come out of the pair in the order they went in.
	var cpus, one unix.CPUSet
	must("get CPUs", unix.SchedGetaffinity(0, &cpus))
	for i := 0; ; i++ {
		if cpus.IsSet(i) {
			one.Set(i)
			break
		}
	}
	must("stay on one CPU", unix.SchedSetaffinity(0, &one))
}

// newWire makes the pair in a namespace of its own.
func newWire(t *testing.T) *wire {
	t.Helper()
	ownNamespace(t)
	must := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = "out0", 9500
	must("add veth pair", netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: "in0", PeerMTU: 9500}))
	cmd := exec.Command("ethtool", "-K", "out0", "tx", "off", "sg", "off", "tso", "off", "gso", "off", "tx-udp-segmentation", "off")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", cmd, err, msg)
	}
	for _, name := range []string{"out0", "in0"} {
		must("set up "+name, netlink.LinkSetUp(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Name: name}}))
	}
	// The kernel's worker that follows carriers has still to give them their queues: until then
	// they lose what is sent, without an error.
	for _, name := range []string{"out0", "in0"} {
		for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			l, err := netlink.LinkByName(name)
			must("look at "+name, err)
			if l.Attrs().OperState == netlink.OperUp {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("%s is %s after 10 s", name, l.Attrs().OperState)
			}
		}
	}
	w := &wire{t: t, out: openPacket(t, "out0", 0), in: openPacket(t, "in0", unix.ETH_P_ALL), buf: make([]byte, BufferLen)}
	must("ask for auxdata", unix.SetsockoptInt(w.in, unix.SOL_PACKET, unix.PACKET_AUXDATA, 1))
	return w
}

// send sends b with its offload state.
func (w *wire) send(b []byte, o Offload) error {
	m := make([]byte, VnetLen, VnetLen+len(b))
	o.PutVnet(m, 0)
	_, err := unix.Write(w.out, append(m, b...))
	return err
}

// through sends b, and returns what comes out, each frame with its outermost tag
// in the bytes. A fence sent behind b tells where that ends.
func (w *wire) through(b []byte, o Offload) [][]byte {
	w.t.Helper()
	if err := w.send(b, o); err != nil {
		w.t.Fatalf("send %d bytes with %+v: %v", len(b), o, err)
	}
	fence := join(macDst, macSrc, []byte{0x88, 0xb5}, make([]byte, 46))
	if err := w.send(fence, Offload{}); err != nil {
		w.t.Fatalf("send fence: %v", err)
	}
	var got [][]byte
	for {
		f := w.receive()
		if !bytes.Equal(f[6:12], macSrc) {
			continue // the namespace's own, such as router solicitations
		}
		if bytes.Equal(f, fence) {
			return got
		}
		got = append(got, f)
	}
}

func (w *wire) receive() []byte {
	w.t.Helper()
	var oob [256]byte
	n, oobn, flags, _, err := unix.Recvmsg(w.in, w.buf, oob[:], 0)
	if err != nil || n < VnetLen+EthLen || flags&unix.MSG_TRUNC != 0 {
		w.t.Fatalf("receive: %d bytes, flags %#x, error %v", n, flags, err)
	}
	var o Offload
	o.GetVnet(w.buf)
	b := bytes.Clone(w.buf[VnetLen:n])
	if bytes.Equal(b[6:12], macSrc) && (o.Super() || o.Flags&NeedsCsum != 0) {
		w.t.Fatalf("Linux left the frame unfinished: %+v", o)
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		w.t.Fatal(err)
	}
	for _, m := range msgs {
		// struct tpacket_auxdata, packet(7)
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		if binary.NativeEndian.Uint32(m.Data)&unix.TP_STATUS_VLAN_VALID == 0 {
			continue
		}
		tag := binary.BigEndian.AppendUint16(nil, binary.NativeEndian.Uint16(m.Data[18:]))
		tag = binary.BigEndian.AppendUint16(tag, binary.NativeEndian.Uint16(m.Data[16:]))
		b = join(b[:12], tag, b[12:])
	}
	return b
}

// Linux cuts the same super-frames, and every segment is the same byte for byte.
func TestSegmentAgainstKernel(t *testing.T) {
	w := newWire(t)
	pool := testPool(t, 2)
	src, dst := pool.Get(), pool.Get()
	r := rand.New(rand.NewPCG(17, 18))
	var s Segmenter
	total, kinds := 0, map[string]int{}
	for i := range 1500 {
		p := randomPacket(r, []int{40, 3000, 30000, 64000}[i%4])
		size := []int{5, 100, 1460, 8900}[i%4]
		size += r.IntN(size)/2 + 1
		size = min(size, 9000)
		if len(p.payload) <= size {
			// Linux takes such a frame for a plain one, unless it has TCP options:
			// virtio_net_hdr_to_skb counts 20 bytes of TCP header. Then it drops it.
			continue
		}
		p.super(src, uint16(size))
		if !p.udp && r.IntN(2) == 0 {
			src.GSOType |= GSOECN
		}
		got := segments(t, &s, src, dst)
		want := w.through(src.Bytes(), src.Offload)
		kind := fmt.Sprintf("v6=%v udp=%v ext=%v tags=%d type=%#x", p.v6, p.udp, p.v6 && len(p.ext) > 0, len(p.tags), src.GSOType)
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
	if total < 1000 || len(kinds) < 25 {
		t.Errorf("only %d segments of %d kinds were compared", total, len(kinds))
	}
	t.Logf("%d segments of %d kinds of super-frame are Linux's", total, len(kinds))
}

// Linux completes the same partial checksums, and a sum of 0 the same way.
func TestFinishChecksumAgainstKernel(t *testing.T) {
	w := newWire(t)
	pool := testPool(t, 1)
	f := pool.Get()
	check := func(name string, b []byte, o Offload) {
		t.Helper()
		f.Set(b)
		f.Offload = o
		if err := f.FinishChecksum(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := w.through(b, o)
		if len(want) != 1 || !bytes.Equal(f.Bytes(), want[0]) {
			t.Fatalf("%s:\n  ours % x\nLinux's % x", name, f.Bytes(), want)
		}
	}
	for _, udp := range []bool{false, true} {
		b, o := zeroSumFrame(udp)
		check(fmt.Sprintf("a sum of 0, udp=%v", udp), b, o)
	}
	r := rand.New(rand.NewPCG(19, 20))
	for range 300 {
		p := randomPacket(r, 3000)
		p.pad = r.IntN(10)
		b, o := p.build()
		check(fmt.Sprintf("v6=%v udp=%v tags=%d", p.v6, p.udp, len(p.tags)), b, o)
	}
}

// What Segmenter refuses because headers and offload state disagree, Linux does
// not put on the wire either.
func TestSegmentRefusesWithKernel(t *testing.T) {
	w := newWire(t)
	pool := testPool(t, 1)
	f := pool.Get()
	var s Segmenter
	tests := []struct {
		name string
		p    packet
		edit func()
	}{
		{"sum starts elsewhere", packet{}, func() { f.CsumStart++ }},
		{"TCPv6 on IPv4", packet{}, func() { f.GSOType = GSOTCPv6 }},
		{"TCPv4 on IPv6", packet{v6: true}, func() { f.GSOType = GSOTCPv4 }},
		{"TCP on UDP", packet{udp: true}, func() { f.GSOType = GSOTCPv4 }},
		{"UDP on TCP", packet{}, func() { f.GSOType = GSOUDPL4 }},
		{"IHL 0", packet{}, func() { f.Bytes()[14] = 0x40 }},
		{"data offset 0", packet{}, func() { f.Bytes()[46] = 0 }},
	}
	for _, tt := range tests {
		tt.p.payload = make([]byte, 3000)
		tt.p.super(f, 1000)
		tt.edit()
		if s.Start(f) == nil {
			t.Errorf("%s: not refused", tt.name)
		}
		if err := w.send(f.Bytes(), f.Offload); err != nil {
			continue // refused at once
		}
		plain, _ := packet{payload: []byte("next")}.build()
		if got := w.through(plain, Offload{}); len(got) != 1 {
			t.Errorf("%s: Linux sends %d frames", tt.name, len(got)-1)
		}
	}
}
