package ports

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// PacketOptions are what OpenPacket takes beside the interface.
type PacketOptions struct {
	Queues   int  // receive queues, at least 1; above 1 is PACKET_FANOUT_HASH
	RxBuffer int  // bytes of receive buffer a queue (SO_RCVBUF); 0 is DefaultRxBuffer
	RxSlots  int  // slots of the receive ring a queue; 0 is none
	Growable bool // may get a receive ring later (Grow): with one queue and no ring
	// MACNAT is the interface's MAC address, as which everybody shall appear behind it; nil:
	// as himself. See macNAT.
	MACNAT net.HardwareAddr
}

// Defaults of PacketOptions and of every packet socket, in bytes.
const (
	DefaultRxBuffer = 4 << 20 // some sixty super-frames, or some 5,000 small frames
	txBuffer        = 4 << 20 // what may be under way in a NIC's queue
)

// Packet is a device on an existing Ethernet interface: one AF_PACKET socket a
// queue, see packet(7).
//
//   - PACKET_VNET_HDR: frames carry their virtio-net header both ways, so
//     super-frames stay whole and partial checksums partial.
//   - PACKET_AUXDATA: the kernel takes the outermost VLAN tag out of the frame on
//     receive (skb_vlan_untag); the tag is read from there.
//   - PACKET_IGNORE_OUTGOING (Linux 4.20): what others, and we, send on the
//     interface is not received.
//   - PACKET_ADD_MEMBERSHIP PACKET_MR_PROMISC: promiscuous while it is a port,
//     undone by the kernel when the socket goes, however it goes.
//
// Thread-safety: Recv is for the one worker that has the queue; Send and
// Missed may be called from anywhere; Close when nobody uses it any more.
type Packet struct {
	name    string
	ifindex int
	options PacketOptions
	fds     []int
	rings   []*rxRing // by queue; none, or one each
	// A device that can grow is alone in a fanout group.
	growable bool
	group    int
	grown    atomic.Pointer[grown]
	nat      *macNAT // nil: without

	statsMu sync.Mutex // PACKET_STATISTICS is reset by reading it
	missed  uint64
}

// OpenPacket opens interface ifindex as a device. The error wraps that of the
// system call; with EPERM it names the capability that is missing.
func OpenPacket(name string, ifindex int, o PacketOptions) (*Packet, error) {
	p := &Packet{name: name, ifindex: ifindex, options: o}
	if o.MACNAT != nil {
		p.nat = newMACNAT(o.MACNAT)
	}
	if err := ringsWork(); err != nil && o.RxSlots > 0 {
		return nil, fmt.Errorf("open packet socket on %s: %w", name, err)
	}
	group := newGroup
	for q := 0; q < max(o.Queues, 1); q++ {
		fd, ring, err := p.openQueue(&group)
		if fd >= 0 {
			p.fds = append(p.fds, fd)
		}
		if ring != nil {
			p.rings = append(p.rings, ring)
		}
		if err != nil {
			p.Close()
			return nil, fmt.Errorf("open packet socket on %s: %w%s", name, err, needs(err, "CAP_NET_RAW"))
		}
	}
	return p, nil
}

// needs turns a bare "operation not permitted" into something to act on.
func needs(err error, capability string) string {
	if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
		return " (need " + capability + ")"
	}
	return ""
}

// openQueue opens the socket of a queue. Of several each is a member of group.
func (p *Packet) openQueue(group *int) (fd int, ring *rxRing, err error) {
	if fd, err = p.openSocket(); err != nil {
		return fd, nil, err
	}
	if err = p.bind(fd); err != nil {
		return fd, nil, err
	}
	o := &p.options
	switch {
	case o.Queues > 1:
		first := *group == newGroup
		if *group, err = joinFanout(fd, *group, unix.PACKET_FANOUT_HASH); err == nil && !first && o.RxSlots == 0 {
			err = discard(fd)
		}
	case o.Growable && o.RxSlots == 0 && ringsWork() == nil:
		// An interface that is down refuses, before Linux 6.13: then it does not grow.
		if g, err := joinFanout(fd, newGroup, unix.PACKET_FANOUT_CBPF); err == nil {
			p.group, p.growable = g, true
		}
	}
	if err == nil && o.RxSlots > 0 {
		ring, err = openRxRing(fd, o.RxSlots) // which empties the queue
	}
	return fd, ring, err
}

// discard empties the queue of a socket that has joined a fanout group: from when it was
// bound until then it got what the members before it got too.
func discard(fd int) error {
	if err := grace(); err != nil {
		return err
	}
	for {
		if _, _, err := unix.Recvfrom(fd, nil, unix.MSG_DONTWAIT|unix.MSG_TRUNC); err != nil && err != unix.EINTR && err != unix.EINVAL {
			return nil
		}
	}
}

// openSocket opens a socket that receives nothing yet.
func (p *Packet) openSocket() (fd int, err error) {
	// Protocol 0 receives nothing until bind names interface and protocol, so no
	// frame of another interface slips in.
	fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	for _, opt := range []struct {
		name string
		num  int
	}{
		{"PACKET_VNET_HDR", unix.PACKET_VNET_HDR},
		{"PACKET_AUXDATA", unix.PACKET_AUXDATA},
		{"PACKET_IGNORE_OUTGOING", unix.PACKET_IGNORE_OUTGOING},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, opt.num, 1); err != nil {
			return fd, fmt.Errorf("set %s: %w", opt.name, err)
		}
	}
	rx := p.options.RxBuffer
	if rx == 0 {
		rx = DefaultRxBuffer
	}
	if err := setBuffer(fd, unix.SO_RCVBUFFORCE, unix.SO_RCVBUF, rx); err != nil {
		return fd, fmt.Errorf("set receive buffer to %d bytes: %w", rx, err)
	}
	if err := setBuffer(fd, unix.SO_SNDBUFFORCE, unix.SO_SNDBUF, txBuffer); err != nil {
		return fd, fmt.Errorf("set send buffer to %d bytes: %w", txBuffer, err)
	}
	return fd, nil
}

// bind makes a socket receive what comes in by the interface.
func (p *Packet) bind(fd int) error {
	sa := &unix.SockaddrLinklayer{Protocol: htons(unix.ETH_P_ALL), Ifindex: p.ifindex}
	if err := unix.Bind(fd, sa); err != nil {
		return err
	}
	mreq := &unix.PacketMreq{Ifindex: int32(p.ifindex), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, mreq); err != nil {
		return fmt.Errorf("make promiscuous: %w", err)
	}
	return nil
}

// setBuffer sets a socket buffer past the system's limit where it may
// (CAP_NET_ADMIN), and as far as the limit lets it where not.
func setBuffer(fd, force, plain, bytes int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, force, bytes) == nil {
		return nil
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, plain, bytes)
}

// newGroup is what joinFanout is given for a group that there is not yet. 0 is a group
// like any other: the kernel counts on, for all of the host, and begins anew.
const newGroup = -1

// joinFanout makes fd the first member of a new fanout group, or a further one of group, and returns the group. mode says which member takes a frame: by flow
// hash (PACKET_FANOUT_HASH), so that the order within a flow is kept, or as a
// program says (PACKET_FANOUT_CBPF), 0 without one.
func joinFanout(fd, group, mode int) (int, error) {
	// A group has a tap of its own, on which PACKET_IGNORE_OUTGOING of its members
	// says nothing (fanout_add).
	mode |= unix.PACKET_FANOUT_FLAG_IGNORE_OUTGOING // Linux 5.14; ignored before
	if group == newGroup {
		group = 0
		mode |= unix.PACKET_FANOUT_FLAG_UNIQUEID // Linux 4.12
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT, group|mode<<16); err != nil {
		return 0, fmt.Errorf("join fanout group: %w", err)
	}
	v, err := unix.GetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_FANOUT)
	if err != nil {
		return 0, fmt.Errorf("read fanout group: %w", err)
	}
	return v & 0xffff, nil
}

// Queues returns how many receive queues there are, without the one that Grow makes.
func (p *Packet) Queues() int { return len(p.fds) }

// FD returns the descriptor of queue q, which polls readable when a frame waits.
func (p *Packet) FD(q int) int {
	if q == len(p.fds) {
		return p.grown.Load().fd
	}
	return p.fds[q]
}

// SendFD returns the descriptor that a worker sends by, which polls writable when
// Send would take a frame.
func (p *Packet) SendFD(worker int) int { return p.fds[worker%len(p.fds)] }

// On reports whether the device is on interface index still. One that was removed,
// or moved to another namespace, took the device's sockets off (NETDEV_UNREGISTER),
// also when it is back under the same index.
func (p *Packet) On(index int) bool {
	if index != p.ifindex {
		return false
	}
	for _, fd := range p.fds {
		sa, err := unix.Getsockname(fd)
		if ll, ok := sa.(*unix.SockaddrLinklayer); err != nil || !ok || ll.Ifindex != index {
			return false
		}
	}
	return true
}

// Recv fills b with up to limit frames that wait on queue q. EAGAIN means that
// none waits. EINVAL means that the kernel took one frame off the queue that the
// virtio-net header cannot express, and dropped it.
func (p *Packet) Recv(q int, b *frame.Batch, limit int) (int, unix.Errno) {
	n, errno := 0, unix.Errno(0)
	if q == len(p.fds) {
		n, errno = p.grown.Load().recv(p, b, limit)
	} else if p.rings != nil {
		n, errno = p.rings[q].recv(b, limit)
	} else {
		n, errno = recvQueue(p.fds[q], b, 0, limit)
	}
	b.N = n
	if p.nat != nil {
		p.nat.receive(b.Frames[:n])
	}
	return n, errno
}

// recvQueue receives up to limit frames from a socket's receive queue into those of
// b from index first on.
func recvQueue(fd int, b *frame.Batch, first, limit int) (int, unix.Errno) {
	n, errno := b.RecvmmsgAt(fd, first, limit)
	for i := first; i < first+n; i++ {
		controlLen := b.Msgs[i].Hdr.Controllen
		f := b.Received(i)
		if tag, ok := auxTag(b.Control[i][:controlLen]); ok {
			f.Tag = tag
		} else {
			f.PopTag()
		}
	}
	return n, errno
}

// Send sends out on a worker's queue without waiting. It returns how many went out, and
// when not all did, what out[n] met: EAGAIN, when the socket's buffer is full.
// len(out) <= frame.MaxBatch.
func (p *Packet) Send(worker int, v *frame.Vectors, out []frame.Out) (int, unix.Errno) {
	if p.nat != nil {
		return p.nat.send(p.SendFD(worker), worker, v, out)
	}
	v.Gather(out)
	return v.Sendmmsg(p.SendFD(worker), len(out))
}

// Offloads reports whether frames may leave with unfinished checksums and as
// super-frames: the kernel finishes what the interface cannot
// (validate_xmit_skb).
func (p *Packet) Offloads() bool { return true }

// Missed returns how many frames the kernel dropped because the receive buffer
// was full, since OpenPacket.
//
// It is also what notices that a receive ring is deaf: see Deaf.
func (p *Packet) Missed() uint64 {
	p.statsMu.Lock()
	defer p.statsMu.Unlock()
	count := func(fd int, r *rxRing) {
		if s, err := unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			p.missed += uint64(s.Drops)
			if r != nil {
				r.listen(s)
			}
		}
	}
	for i, fd := range p.fds {
		if p.rings != nil {
			count(fd, p.rings[i])
		} else {
			count(fd, nil)
		}
	}
	lost := uint64(0)
	if g := p.grown.Load(); g != nil {
		count(g.fd, g.ring)
		lost = g.ring.lost.Load()
	}
	missed := p.missed + lost
	for _, r := range p.rings {
		missed += r.lost.Load()
	}
	return missed
}

// Close closes the sockets. The promiscuous membership ends with them. For each the
// kernel lets a grace period pass, some 13 ms, and a second one for its ring
// (packet_release, synchronize_net): devices that go together are closed at once.
func (p *Packet) Close() error {
	var first error
	// Rings first: what goes last is what waits, and Munmap holds a lock of the
	// whole process.
	for _, r := range p.rings {
		if err := r.close(); err != nil && first == nil {
			first = err
		}
	}
	for _, fd := range p.fds {
		if err := unix.Close(fd); err != nil && first == nil {
			first = err
		}
	}
	if g := p.grown.Load(); g != nil {
		if err := g.close(); err != nil && first == nil {
			first = err
		}
	}
	p.fds, p.rings = nil, nil
	return first
}

// auxTag reads the VLAN tag from a control buffer that holds at most one message,
// PACKET_AUXDATA:
//
//	 0        8      12     16                       32        34         36
//	+--------+------+------+------+---+-------+------+---------+----------+
//	| length |level | type |status|len|snaplen|mac,net| vlan_tci| vlan_tpid|
//	+--------+------+------+------+---+-------+------+---------+----------+
//	 struct cmsghdr         struct tpacket_auxdata
func auxTag(c []byte) (frame.Tag, bool) {
	const head = unix.SizeofCmsghdr
	if len(c) < head+20 {
		return frame.Tag{}, false
	}
	h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
	if h.Level != unix.SOL_PACKET || h.Type != unix.PACKET_AUXDATA {
		return frame.Tag{}, false
	}
	u16 := binary.NativeEndian.Uint16
	return slotTag(binary.NativeEndian.Uint32(c[head:]), u16(c[head+16:]), u16(c[head+18:]))
}

// slotTag returns the VLAN tag that the kernel took out of a frame, if it did: from
// tp_status, tp_vlan_tci and tp_vlan_tpid.
func slotTag(status uint32, tci, tpid uint16) (frame.Tag, bool) {
	if status&unix.TP_STATUS_VLAN_VALID == 0 {
		return frame.Tag{}, false
	}
	if status&unix.TP_STATUS_VLAN_TPID_VALID == 0 {
		tpid = frame.TPID8021Q
	}
	return frame.Tag{TPID: tpid, TCI: tci}, true
}

func htons(v uint16) uint16 { return v<<8 | v>>8 }
