package tunnel

import (
	"encoding/binary"
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// Bounds of a receive.
const (
	// rxMessages is how many messages one recvmmsg takes. Each may be a train of 64
	// KiB, and many of them push each other out of the cache: trains of 64 KiB, sent
	// and received on one core, took 21 µs each with 8 messages or 4, 26 µs with 16 or
	// 32. Small frames took the same with all.
	rxMessages = 8
	// rxBytes ends a Recv after so much was taken off the socket: what is to be
	// forwarded should still be in the cache then.
	rxBytes = 256 << 10
	// rxCalls bounds the calls of one Recv where all that comes is dropped.
	rxCalls = 8
	// rxBuffer is what one message takes: the longest IP packet. rxStride sets the
	// buffers a cache line further apart than whole pages, see frame.NewPool.
	rxBuffer = 1 << 16
	rxStride = rxBuffer + 64
	// rxControl is room for the control messages of one message: UDP_GRO, the TOS
	// and the destination address, 24 + 24 + 40 bytes.
	rxControl = 96
)

// queue is one socket that is received by, and where its worker stands in what it
// received.
//
// Thread-safety: drops and missed may be read from anywhere, the rest belongs to
// the worker that has the queue.
type queue struct {
	e        *Endpoint
	fd       int
	kind     Kind
	wildcard bool // GRE: receives what is sent to any address of the host
	local    peer
	joinUDP  bool // trains of datagrams may become super-frames
	drops    sources

	arena   []byte
	msgs    [rxMessages]frame.Mmsghdr
	iovs    [rxMessages]unix.Iovec
	names   [rxMessages]unix.RawSockaddrInet6
	control [rxMessages][rxControl]byte

	// The cursor.
	n, at int    // messages received; the next to look at
	rest  []byte // of the message at hand: segments not looked at
	cut   int    // bytes of each segment but the last
	tos   uint8  // outer DS field
	from  peer

	// The port that the last segment was of, during one Recv.
	port *Port
	now  int64 // Unix nanoseconds, when the messages came

	coalescer frame.Coalescer
}

func newQueue(e *Endpoint, fd int) (*queue, error) {
	arena, err := unix.Mmap(-1, 0, rxMessages*rxStride, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return nil, fmt.Errorf("map %d receive buffers of %d bytes: %w", rxMessages, rxBuffer, err)
	}
	q := &queue{
		e: e, fd: fd, arena: arena, kind: e.config.Kind, joinUDP: takesUDPSuper(),
		wildcard: e.config.Local.IsUnspecified(), local: peerOf(e.config.Local),
	}
	for i := range q.msgs {
		q.iovs[i].Base = &arena[i*rxStride]
		q.iovs[i].SetLen(rxBuffer)
		h := &q.msgs[i].Hdr
		h.Iov = &q.iovs[i]
		h.SetIovlen(1)
		h.Name = (*byte)(unsafe.Pointer(&q.names[i]))
		h.Control = &q.control[i][0]
	}
	return q, nil
}

// unmap frees the buffers.
func (q *queue) unmap() {
	q.n, q.at, q.rest = 0, 0, nil
	_ = unix.Munmap(q.arena)
	q.arena = nil
}

// takesUDPSuper reports whether the kernel takes super-frames of UDP datagrams from
// a switch: VIRTIO_NET_HDR_GSO_UDP_L4 is of Linux 6.2.
func takesUDPSuper() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); err != nil {
		return false
	}
	return major > 6 || major == 6 && minor >= 2
}

// missed is described at Endpoint.Missed: SK_MEMINFO_DROPS is the ninth word.
func (q *queue) missed() uint64 {
	var words [9]uint32
	size := uint32(unsafe.Sizeof(words))
	_, _, e := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(q.fd), unix.SOL_SOCKET, unix.SO_MEMINFO,
		uintptr(unsafe.Pointer(&words)), uintptr(unsafe.Pointer(&size)), 0)
	if e != 0 {
		return 0
	}
	return uint64(words[8])
}

// Recv is described at vswitch.Endpoint. When it returns fewer frames than limit,
// nothing is left but what the socket holds; when it returns limit, segments of
// messages that it has read may be left, of which epoll knows nothing: call again.
func (e *Endpoint) Recv(index int, b *frame.Batch, limit int) (int, unix.Errno) {
	q := e.queues[index]
	q.port = nil
	b.N = 0
	var errno unix.Errno
	for bytes, calls := 0, 0; b.N < limit; {
		if len(q.rest) > 0 {
			q.segment(b)
			continue
		}
		if q.at < q.n {
			bytes += q.message()
			continue
		}
		if calls > 0 && q.n < rxMessages || bytes >= rxBytes || calls == rxCalls {
			break
		}
		if errno = q.receive(); errno != 0 {
			break
		}
		calls++
	}
	q.coalescer.Close()
	return b.N, errno
}

// receive reads messages.
func (q *queue) receive() unix.Errno {
	for i := range q.msgs { // what the kernel wrote over last time
		h := &q.msgs[i].Hdr
		h.Namelen = unix.SizeofSockaddrInet6
		h.SetControllen(rxControl)
	}
	q.n = 0
	q.at = 0
	n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(q.fd), uintptr(unsafe.Pointer(&q.msgs[0])), rxMessages, unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return e
	}
	q.n = int(n)
	q.now = time.Now().UnixNano()
	return 0
}

// message makes the next message the one at hand, and returns its length.
func (q *queue) message() int {
	i := q.at
	q.at++
	m := &q.msgs[i]
	n := int(m.Len)
	b := q.arena[i*rxStride : i*rxStride+min(n, rxBuffer)]
	q.from = peerOfRaw(&q.names[i])
	q.tos, q.cut = 0, 0
	to := q.readControl(q.control[i][:m.Hdr.Controllen])
	if q.kind == GRE {
		b, to = q.stripIPv4(b, to)
		if b == nil {
			return n // another endpoint's
		}
	}
	if len(b) == 0 || m.Hdr.Flags&unix.MSG_TRUNC != 0 {
		q.drop(dropMalformed, 0, nil)
		return n
	}
	if q.cut == 0 || q.cut > len(b) {
		q.cut = len(b)
	}
	q.rest = b
	q.coalescer.UDP = q.joinUDP && q.cut < len(b)
	return n
}

// peerOfRaw returns the address in a, of either family.
func peerOfRaw(a *unix.RawSockaddrInet6) peer {
	if a.Family == unix.AF_INET {
		v4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(a))
		return peer{0, mappedIPv4 | uint64(binary.BigEndian.Uint32(v4.Addr[:]))}
	}
	return peer{binary.BigEndian.Uint64(a.Addr[:8]), binary.BigEndian.Uint64(a.Addr[8:])}
}

// readControl reads the control messages in c: into q the segment size (UDP_GRO, an
// int) and the outer DS field (IP_TOS, a byte; IPV6_TCLASS, an int), and returns the
// destination address (IPV6_PKTINFO, struct in6_pktinfo), if it is told.
func (q *queue) readControl(c []byte) (to peer) {
	const head = unix.SizeofCmsghdr
	for len(c) >= head {
		h := (*unix.Cmsghdr)(unsafe.Pointer(&c[0]))
		n := int(h.Len)
		if n < head || n > len(c) {
			break
		}
		data := c[head:n]
		switch {
		case h.Level == unix.SOL_UDP && h.Type == unix.UDP_GRO && len(data) >= 4:
			q.cut = max(0, int(int32(binary.NativeEndian.Uint32(data))))
		case h.Level == unix.SOL_IP && h.Type == unix.IP_TOS && len(data) >= 1:
			q.tos = data[0]
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_TCLASS && len(data) >= 4:
			q.tos = uint8(binary.NativeEndian.Uint32(data))
		case h.Level == unix.SOL_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= 16:
			to = peer{binary.BigEndian.Uint64(data), binary.BigEndian.Uint64(data[8:])}
		}
		c = c[min(len(c), (n+7)&^7):]
	}
	return to
}

// stripIPv4 takes the IP header off what a raw IPv4 socket brings, with the outer DS
// field and the addresses; an IPv6 one brings none. It returns nil for what is sent
// to an address that another endpoint has: raw sockets get a copy each.
func (q *queue) stripIPv4(b []byte, to peer) ([]byte, peer) {
	if q.local.hi == 0 && q.local.lo&^0xffffffff == mappedIPv4 {
		if len(b) < frame.IPv4MinLen || b[0]>>4 != 4 || len(b) < int(b[0]&0x0f)*4 {
			return nil, to // the kernel gives no such packet to anybody
		}
		q.tos = b[ipv4DS]
		q.from.lo = mappedIPv4 | uint64(binary.BigEndian.Uint32(b[ipv4Src:]))
		to = peer{0, mappedIPv4 | uint64(binary.BigEndian.Uint32(b[ipv4Dst:]))}
		b = b[max(int(b[0]&0x0f)*4, frame.IPv4MinLen):]
	}
	if q.wildcard && endpoints.hasRaw(q.e, to) {
		return nil, to
	}
	return b, to
}

// drop counts what is no port's frame.
// inner is the frame in it, as far as there is one.
func (q *queue) drop(why reason, key uint32, inner []byte) {
	q.drops.add(why, q.from, key, inner, q.now)
}

// segment takes the next segment of the message at hand: into b, or to where else
// it belongs.
func (q *queue) segment(b *frame.Batch) {
	n := min(q.cut, len(q.rest))
	seg := q.rest[:n:n]
	q.rest = q.rest[n:]

	h, ok := q.kind.decode(seg)
	if !ok {
		q.drop(dropMalformed, 0, nil)
		return
	}
	p := q.port
	if p == nil || p.inKey != h.key || p.peer != q.from {
		if p = q.e.find(q.from, h.key); p == nil {
			q.drop(dropUnknown, h.key, seg[h.len:])
			return
		}
		q.port = p
		p.heard.Store(q.now)
	}
	inner := seg[h.len:]
	if h.fault == frame.FaultChecksum && joined(inner, int(p.mtu.Load())) {
		h.fault = frame.FaultNone
	}
	if h.options > 0 {
		p.stats.options.Add(uint64(h.options))
	}
	if h.fault == frame.FaultNone {
		if len(inner) < frame.EthLen {
			q.drop(dropMalformed, h.key, nil)
			return
		}
		if p.config.Control != nil && isBFD(inner) {
			p.stats.rxControl.Add(1)
			p.config.Control(inner)
			return
		}
	}
	bound := p.bound.Load()
	if bound == 0 {
		q.drop(dropUnbound, h.key, inner)
		return
	}
	port := uint32(bound - 1)
	if h.hasSeq && h.fault != frame.FaultChecksum {
		p.sequence(h.seq)
	}
	if h.fault == frame.FaultNone && !congestion(q.tos, inner) {
		h.fault = frame.FaultECN
	}
	if h.fault == frame.FaultNone {
		if mtu := p.clampTo(); mtu > 0 && maySYN(inner) {
			_, partial := unfinished(inner, mtu)
			frame.ClampMSS(inner, mtu-tagsLen(inner), partial)
		}
		if q.coalescer.Join(inner, port) {
			return
		}
	}
	f := b.Frames[b.N]
	f.Set(inner)
	f.Port = port
	f.Fault = h.fault
	b.N++
	if h.fault != frame.FaultNone {
		return
	}
	if o, ok := unfinished(inner, int(p.mtu.Load())); ok {
		f.Offload = o
		f.PopTag()
		return // Join has closed what was open of its flow: order is kept
	}
	f.PopTag()
	q.coalescer.Open(f)
}

// sequence takes note of the sequence number of a frame that came (RFC 2890 section
// 2.2). Frames are neither kept back nor dropped for theirs.
func (p *Port) sequence(seq uint32) {
	const started = 1 << 32
	expect := p.expect.Load()
	ahead := int32(seq - uint32(expect))
	if expect >= started && ahead < 0 {
		p.stats.late.Add(1)
		return
	}
	if expect >= started && ahead > 0 {
		p.stats.gaps.Add(uint64(ahead))
	}
	p.expect.Store(started | uint64(seq+1))
}
