package tunnel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"runtime"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/vishvananda/netlink"
	"vswitch/frame"
	"vswitch/internal/lab"
)

// space runs f on a thread in a network namespace of its own, whose only interface
// is a loopback with this MTU:
//
//	127.0.0.1, ::1 ── lo ── 127.0.0.2, fd00::2, …
//
// f must not end the goroutine: it is told so by b's Fatal, which it may not use.
func space(t testing.TB, mtu int, f func() error) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root")
		}
		t.Skip("needs root")
	}
	done := make(chan error, 1)
	go func() { // ends with f; its thread and the namespace go with it
		err := errors.New("f ended its goroutine")
		defer func() { done <- err }()
		runtime.LockOSThread()
		if err = unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return
		}
		lo, e := netlink.LinkByName("lo")
		if err = e; err != nil {
			return
		}
		if err = errors.Join(netlink.LinkSetMTU(lo, mtu), netlink.LinkSetUp(lo)); err != nil {
			return
		}
		for _, a := range []string{"fd00::1/64", "fd00::2/64"} {
			addr, _ := netlink.ParseAddr(a)
			addr.Flags = unix.IFA_F_NODAD
			if err = netlink.AddrAdd(lo, addr); err != nil {
				return
			}
		}
		// The kernel takes an IPv6 address into use by a work queue.
		if err = lab.Wait(soon, func() error {
			for _, a := range []string{"fd00::1", "fd00::2"} {
				routes, err := netlink.RouteGet(net.ParseIP(a))
				if err != nil || len(routes) != 1 || routes[0].Type != unix.RTN_LOCAL {
					return fmt.Errorf("the route to %s is %v, %v", a, routes, err)
				}
			}
			return nil
		}); err != nil {
			return
		}
		err = errors.New("f ended its goroutine")
		err = f()
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// end is one end of a rig: an endpoint with one port, and what a worker has.
type end struct {
	e     *Endpoint
	p     *Port
	pool  *frame.Pool
	batch *frame.Batch
	v     frame.Vectors
}

// rig is two endpoints that have each other as remote. The ports are number 10 and
// 20.
type rig struct{ a, b end }

// rigConfig says what a rig is of. The zero value is VXLAN over IPv4.
type rigConfig struct {
	kind   Kind
	v6     bool
	queues int
	port   func(c *PortConfig) // further config, of both ports
}

func newRig(c rigConfig) (*rig, error) {
	locals := [2]string{"127.0.0.1", "127.0.0.2"}
	if c.v6 {
		locals = [2]string{"fd00::1", "fd00::2"}
	}
	r := &rig{}
	for i, x := range []*end{&r.a, &r.b} {
		var err error
		if x.e, err = Open(EndpointConfig{Kind: c.kind, Local: netip.MustParseAddr(locals[i]), Queues: c.queues}); err != nil {
			return nil, err
		}
		pc := PortConfig{Remote: netip.MustParseAddr(locals[1-i]), InKey: 42, OutKey: 42, HasOutKey: true, DF: true, MSSClamp: true, Workers: c.queues}
		if c.port != nil {
			c.port(&pc)
		}
		if x.p, err = x.e.NewPort(pc); err != nil {
			return nil, err
		}
		x.p.Bind(uint32(10 * (i + 1)))
		if x.pool, err = frame.NewPool(frame.MaxBatch + 64); err != nil {
			return nil, err
		}
		x.batch = frame.NewBatch(x.pool)
	}
	return r, nil
}

func (r *rig) close() {
	for _, x := range []*end{&r.a, &r.b} {
		x.p.Close()
		x.e.Close()
		x.pool.Close()
	}
}

// frames makes frames of the end's pool from bytes.
func (x *end) frames(all ...[]byte) []frame.Out {
	var outs []frame.Out
	for _, b := range all {
		f := x.pool.Get()
		f.Set(b)
		f.PopTag()
		outs = append(outs, frame.Out{F: f, Tag: f.Tag})
	}
	return outs
}

func (x *end) release(outs []frame.Out) {
	for _, o := range outs {
		x.pool.Release(o.F)
	}
}

// send sends all of outs as worker 0, waiting where the socket is full.
func (x *end) send(outs []frame.Out) error {
	for len(outs) > 0 {
		n, errno := x.p.Send(0, &x.v, outs)
		outs = outs[n:]
		if errno == unix.EAGAIN {
			unix.Poll([]unix.PollFd{{Fd: int32(x.p.SendFD(0)), Events: unix.POLLOUT}}, 1000)
			continue
		}
		if errno != 0 {
			return fmt.Errorf("send: %d went out, then %w", n, errno)
		}
	}
	return nil
}

// got is one frame that was received: its bytes with the tag in them.
type got struct {
	b     []byte
	off   frame.Offload
	port  uint32
	fault frame.Fault
}

// receive receives until done says so, or nothing came for a second.
func (x *end) receive(done func(all []got) bool) ([]got, error) {
	var all []got
	for !done(all) {
		var fds []unix.PollFd
		for q := range x.e.Queues() {
			fds = append(fds, unix.PollFd{Fd: int32(x.e.FD(q)), Events: unix.POLLIN})
		}
		if n, err := unix.Poll(fds, 1000); n == 0 && err == nil {
			return all, fmt.Errorf("%d frames came, and no more for a second", len(all))
		}
		for q := range x.e.Queues() {
			for more := true; more; {
				n, errno := x.e.Recv(q, x.batch, frame.MaxBatch)
				if errno != 0 && errno != unix.EAGAIN {
					return all, fmt.Errorf("receive: %w", errno)
				}
				for _, f := range x.batch.Frames[:n] {
					g := got{port: f.Port, fault: f.Fault, off: f.Offload}
					if f.Tag.Present() {
						f.PushTag(f.Tag)
						g.off = f.Offload
					}
					g.b = bytes.Clone(f.Bytes())
					all = append(all, g)
				}
				x.batch.Renew()
				more = n == frame.MaxBatch
			}
		}
	}
	return all, nil
}

// receiveN receives n frames.
func (x *end) receiveN(n int) ([]got, error) {
	return x.receive(func(all []got) bool { return len(all) >= n })
}

// inner describes an inner frame for a test to build, the long way.
type inner struct {
	v6      bool
	tcp     bool
	tag     uint16 // VID; 0: none
	tos     uint8
	ttl     uint8
	sport   uint16
	seq     uint32
	flags   uint8
	options []byte // TCP
	payload int
	partial bool // checksum left to be finished
	gso     int
}

// build returns the frame's bytes and offload state.
func (p inner) build() ([]byte, frame.Offload) {
	b := []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1}
	if p.tag != 0 {
		b = binary.BigEndian.AppendUint16(append(b, 0x81, 0), p.tag)
	}
	proto, l4len, field := uint8(17), 8, 6
	if p.tcp {
		proto, l4len, field = 6, 20+len(p.options), 16
	}
	if p.ttl == 0 {
		p.ttl = 64
	}
	var addrs []byte
	if p.v6 {
		b = append(b, 0x86, 0xdd, 0x60|p.tos>>4, p.tos<<4, 0, 0)
		b = binary.BigEndian.AppendUint16(b, uint16(l4len+p.payload))
		addrs = append(addrs, netip.MustParseAddr("fd01::1").AsSlice()...)
		addrs = append(addrs, netip.MustParseAddr("fd01::2").AsSlice()...)
		b = append(append(b, proto, p.ttl), addrs...)
	} else {
		b = append(b, 8, 0)
		ip := binary.BigEndian.AppendUint16([]byte{0x45, p.tos}, uint16(20+l4len+p.payload))
		addrs = []byte{192, 168, 0, 1, 192, 168, 0, 2}
		ip = append(append(ip, 0x12, 0x34, 0x40, 0, p.ttl, proto, 0, 0), addrs...)
		binary.BigEndian.PutUint16(ip[10:], ^naiveSum(ip))
		b = append(b, ip...)
	}
	l4 := len(b)
	b = append(b, byte(p.sport>>8), byte(p.sport), 0, 80)
	if p.tcp {
		b = binary.BigEndian.AppendUint32(b, p.seq)
		b = append(b, 0, 0, 0, 1, byte(l4len/4)<<4, p.flags|0x10, 0x20, 0, 0, 0, 0, 0)
		b = append(b, p.options...)
	} else {
		b = binary.BigEndian.AppendUint16(b, uint16(8+p.payload))
		b = append(b, 0, 0)
	}
	for i := range p.payload {
		b = append(b, byte(i*7+i>>8))
	}
	pseudo := append(bytes.Clone(addrs), 0, proto, byte((len(b)-l4)>>8), byte(len(b)-l4))
	sum := naiveSum(pseudo)
	var o frame.Offload
	if p.partial || p.gso > 0 {
		o = frame.Offload{Flags: frame.NeedsCsum, CsumStart: uint16(l4), CsumOffset: uint16(field)}
	} else {
		if sum = ^naiveSum(append(pseudo, b[l4:]...)); sum == 0 {
			sum = 0xffff
		}
	}
	binary.BigEndian.PutUint16(b[l4+field:], sum)
	if p.gso > 0 {
		o.GSOSize, o.HdrLen = uint16(p.gso), uint16(l4+l4len)
		switch {
		case !p.tcp:
			o.GSOType = frame.GSOUDPL4
		case p.v6:
			o.GSOType = frame.GSOTCPv6
		default:
			o.GSOType = frame.GSOTCPv4
		}
	}
	return b, o
}

// out makes the frame one to be sent by x.
func (x *end) out(p inner) frame.Out {
	b, o := p.build()
	f := x.pool.Get()
	f.Set(b)
	f.Offload = o
	f.PopTag()
	return frame.Out{F: f, Tag: f.Tag}
}

// finished returns the frame's bytes with its checksum final.
func (p inner) finished() []byte {
	p.partial, p.gso = false, 0
	b, _ := p.build()
	return b
}

// wire returns the frames that a super-frame stands for, tag in their bytes: the
// Segmenter, which has its own tests, is the oracle.
func wire(pool *frame.Pool, o frame.Out) (all [][]byte) {
	add := func(f *frame.Frame) {
		if o.Tag.Present() {
			f.PushTag(o.Tag)
		}
		all = append(all, bytes.Clone(f.Bytes()))
	}
	f := pool.Get()
	defer pool.Release(f)
	f.Set(o.F.Bytes())
	f.Offload = o.F.Offload
	if !f.Super() {
		f.FinishChecksum()
		add(f)
		return all
	}
	var s frame.Segmenter
	if err := s.Start(f); err != nil {
		panic(err)
	}
	dst := pool.Get()
	defer pool.Release(dst)
	for s.Next(dst) {
		add(dst)
	}
	return all
}

// wireOf is wire for what was received.
func wireOf(pool *frame.Pool, all []got) (out [][]byte) {
	for _, g := range all {
		f := pool.Get()
		f.Set(g.b)
		f.Offload = g.off
		f.PopTag()
		out = append(out, wire(pool, frame.Out{F: f, Tag: f.Tag})...)
		pool.Release(f)
	}
	return out
}

// equal compares frames one by one.
func equal(got, want [][]byte) error {
	for i := range min(len(got), len(want)) {
		if !bytes.Equal(got[i], want[i]) {
			return fmt.Errorf("frame %d is\n%x, want\n%x", i, got[i], want[i])
		}
	}
	if len(got) != len(want) {
		return fmt.Errorf("%d frames, want %d", len(got), len(want))
	}
	return nil
}

func random(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rand.Uint32())
	}
	return b
}

// soon is how long a test waits for what is under way.
const soon = 5 * time.Second

func sortFrames(all [][]byte) { slices.SortFunc(all, bytes.Compare) }

// kernelVXLAN makes a VXLAN interface of the kernel at the usual port, and raises it:
// then it has its socket.
func kernelVXLAN() error {
	dev := &netlink.Vxlan{LinkAttrs: netlink.LinkAttrs{Name: "vx0"}, VxlanId: 5, Port: 4789}
	if err := netlink.LinkAdd(dev); err != nil {
		return err
	}
	return netlink.LinkSetUp(dev)
}

// descriptors returns how many the process has.
func descriptors() (int, error) {
	all, err := os.ReadDir("/proc/self/fd")
	return len(all), err
}
