package frame

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// Mmsghdr is struct mmsghdr of recvmmsg(2) and sendmmsg(2).
type Mmsghdr struct {
	Hdr unix.Msghdr
	Len uint32 // bytes moved
	_   [4]byte
}

// ControlLen is the room for the control messages of one frame, in bytes:
// PACKET_AUXDATA, or UDP_GRO and the like.
const ControlLen = 64

// Vectors are what one system call on a batch is described with. A worker lends
// its vectors to a device for the length of one call.
//
// Thread-safety: none; they belong to one worker.
type Vectors struct {
	Msgs [MaxBatch]Mmsghdr
	Iovs [MaxBatch][2]unix.Iovec
	// Head is room for what a device puts before a frame's bytes when they must
	// not change: virtio-net header, addresses and tag.
	Head [MaxBatch][VnetLen + AddrLen + TagLen]byte
}

// Batch is up to MaxBatch frames that are received together, with the vectors to
// receive them: message i reads a virtio-net header and a frame into Frames[i],
// and control messages into Control[i]. Frames[:N] are filled; the others are
// empty frames for the next receive.
//
// Thread-safety: none; a batch belongs to one worker.
type Batch struct {
	Frames  [MaxBatch]*Frame
	N       int
	Msgs    [MaxBatch]Mmsghdr
	iovs    [MaxBatch]unix.Iovec
	Control [MaxBatch][ControlLen]byte
	pool    *Pool
}

// NewBatch makes a batch of empty frames from p, which has at least MaxBatch.
func NewBatch(p *Pool) *Batch {
	b := &Batch{pool: p}
	for i := range b.Frames {
		b.place(i, p.Get())
		h := &b.Msgs[i].Hdr
		h.Iov = &b.iovs[i]
		h.SetIovlen(1)
		h.Control = &b.Control[i][0]
		h.SetControllen(ControlLen)
	}
	return b
}

// place puts an empty frame at index i.
func (b *Batch) place(i int, f *Frame) {
	b.Frames[i] = f
	f.batched = true
	room := f.Room(VnetLen)
	b.iovs[i].Base = &room[0]
	b.iovs[i].SetLen(VnetLen + MaxLen)
}

// Renew makes the batch ready for the next receive: a frame that a ring keeps is
// left to it, and an empty one takes its place: Pool.Keep saw to it that there is one.
func (b *Batch) Renew() {
	for i := 0; i < b.N; i++ {
		f := b.Frames[i]
		if f.refs == 1 {
			continue
		}
		f.batched = false
		f.refs--
		b.pool.promised--
		b.place(i, b.pool.take())
	}
	b.N = 0
}

// Received fills in frame i after message i was received: n bytes, virtio-net
// header included. It leaves the tag to the device. It also makes message i
// ready for the next receive.
func (b *Batch) Received(i int) *Frame {
	f, m := b.Frames[i], &b.Msgs[i]
	n := int(m.Len) - VnetLen
	f.Reset(max(n, 0))
	f.Truncated = m.Hdr.Flags&unix.MSG_TRUNC != 0
	f.Offload.GetVnet(f.Before(VnetLen))
	m.Hdr.SetControllen(ControlLen)
	return f
}

// Recvmmsg receives up to limit frames from socket fd without waiting, and
// returns how many, and 0 or the error. It is recvmmsg(2) with MSG_DONTWAIT.
//
// The raw call keeps the Go scheduler out of a call that never waits.
func (b *Batch) Recvmmsg(fd, limit int) (int, unix.Errno) {
	return b.RecvmmsgAt(fd, 0, limit)
}

// RecvmmsgAt is Recvmmsg into the frames from index first on; first+limit <= MaxBatch.
func (b *Batch) RecvmmsgAt(fd, first, limit int) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_RECVMMSG, uintptr(fd), uintptr(unsafe.Pointer(&b.Msgs[first])), uintptr(limit), unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(n), 0
}

// Sendmmsg sends the first n messages to socket fd without waiting, and returns
// how many were sent; when not all were, the error is what message [sent] met.
// It is sendmmsg(2) with MSG_DONTWAIT, called again where the kernel kept an
// error to itself because messages before it had gone out, and once where the
// error may be another's: one of a receive, or of the interface's going down, that
// waited in the socket (SO_ERROR) and is told to whoever calls next.
func (v *Vectors) Sendmmsg(fd, n int) (int, unix.Errno) {
	sent, again := 0, -1
	for sent < n {
		r, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(&v.Msgs[sent])), uintptr(n-sent), unix.MSG_DONTWAIT, 0, 0)
		if e == unix.EINTR {
			continue
		}
		if e != 0 && e != unix.EAGAIN && e != unix.ENOBUFS && again != sent {
			again = sent // it may have met an error that waited in the socket
			continue
		}
		if e != 0 {
			return sent, e
		}
		sent += int(r)
	}
	return sent, 0
}

// Gather describes staged frames as messages of one virtio-net header and one
// frame each: in place where the frame leaves as it is, by scatter-gather where
// it leaves with a tag, so that the frame's bytes stay what other outputs of the
// same frame need. len(out) <= MaxBatch.
func (v *Vectors) Gather(out []Out) {
	for i := range out {
		o := &out[i]
		f := o.F
		h := &v.Msgs[i].Hdr
		iov := &v.Iovs[i]
		h.Iov = &iov[0]
		if !o.Tag.Present() {
			whole := f.buf[f.off-VnetLen : f.off+f.n]
			f.Offload.PutVnet(whole, 0)
			iov[0].Base = &whole[0]
			iov[0].SetLen(len(whole))
			h.SetIovlen(1)
			continue
		}
		head := &v.Head[i]
		f.Offload.PutVnet(head[:], TagLen)
		b := f.buf[f.off : f.off+f.n]
		copy(head[VnetLen:], b[:AddrLen])
		o.Tag.put(head[VnetLen+AddrLen:])
		iov[0].Base = &head[0]
		iov[0].SetLen(len(head))
		iov[1].Base = &b[AddrLen]
		iov[1].SetLen(len(b) - AddrLen)
		h.SetIovlen(2)
	}
}
