package ports

import (
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// rxRing is a receive ring (PACKET_RX_RING, TPACKET_V2) that a packet socket shares
// with the kernel: small frames are read from memory, without a system call. A frame
// that does not fit into a slot is in the socket's receive queue, too: its slot says
// so (PACKET_COPY_THRESH), and keeps its place in the order.
//
//	slot   0            32                66     76                       256
//	       +------------+----------------+------+------------------------+
//	       | tpacket2_  | sockaddr_ll,   | vir- | frame, as far as it    |
//	       | hdr        | alignment      | tio  | fits: 180 bytes        |
//	       +------------+----------------+------+------------------------+
//	       tp_mac = 76 for Ethernet
//
// The kernel fills slots in turn, and the slot's status says whose it is: it sets
// TP_STATUS_USER, we clear it.
//
// Small slots, for it is small frames whose price is the call: 60-byte frames were
// forwarded at 1.4 times the rate of recvmmsg. A larger frame costs one copy of 180
// bytes more than without a ring. TPACKET_V3, which packs frames, tells its reader
// of them only when a block is full or a timer ends, of a millisecond or more.
//
// A frame whose offload state a virtio-net header cannot express, such as a
// super-frame of SCTP, makes the kernel forget that a slot is free: from then on it drops
// every frame (tpacket_rcv, rx_owner_map, seen in 6.x), and says nothing.
// That is what listen is for; a device that is deaf must be opened anew, without a ring.
//
// Thread-safety: recv is for one worker, listen for one goroutine at a time; lost may be
// read by anybody.
type rxRing struct {
	fd    int
	mem   []byte
	slots int
	next  int // slot to look at
	// owed is how many frames wait in the receive queue whose slots are done with.
	owed int
	lost atomic.Uint64 // frames that neither slot nor queue had room for
	at   atomic.Int32  // next, as it was after the last batch, for listen
	deaf int           // looks in a row that found the ring deaf: listen's
}

// Sizes of a ring's parts, in bytes.
const (
	slotLen  = 256
	blockLen = 64 << 10 // what the kernel allocates in one piece

	slotsPerBlock = blockLen / slotLen
)

// Bounds on the slots of a ring.
const (
	MinRxSlots = slotsPerBlock
	MaxRxSlots = 256 * slotsPerBlock
)

// RxRingLen returns how many bytes of memory a ring of so many slots takes.
func RxRingLen(slots int) int { return (slots + slotsPerBlock - 1) / slotsPerBlock * blockLen }

// openRxRing gives a socket, which is not bound yet and has PACKET_VNET_HDR, a ring of at least
// so many slots.
func openRxRing(fd, slots int) (*rxRing, error) {
	for _, opt := range []struct {
		name       string
		num, value int
	}{
		{"PACKET_VERSION", unix.PACKET_VERSION, unix.TPACKET_V2},
		{"PACKET_COPY_THRESH", unix.PACKET_COPY_THRESH, 1},
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, opt.num, opt.value); err != nil {
			return nil, fmt.Errorf("set %s: %w", opt.name, err)
		}
	}
	blocks := RxRingLen(slots) / blockLen
	r := &rxRing{fd: fd, slots: blocks * slotsPerBlock}
	req := &unix.TpacketReq{Block_size: blockLen, Block_nr: uint32(blocks), Frame_size: slotLen, Frame_nr: uint32(r.slots)}
	if err := unix.SetsockoptTpacketReq(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, req); err != nil {
		return nil, fmt.Errorf("set PACKET_RX_RING of %d slots: %w", r.slots, err)
	}
	mem, err := unix.Mmap(fd, 0, r.slots*slotLen, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map receive ring: %w", err)
	}
	r.mem = mem
	return r, nil
}

func (r *rxRing) close() error { return unix.Munmap(r.mem) }

// slot returns slot i as bytes and its header.
func (r *rxRing) slot(i int) ([]byte, *unix.Tpacket2Hdr) {
	b := r.mem[i*slotLen : (i+1)*slotLen]
	return b, (*unix.Tpacket2Hdr)(unsafe.Pointer(&b[0]))
}

// release gives the next slot back to the kernel.
func (r *rxRing) release(h *unix.Tpacket2Hdr) {
	atomic.StoreUint32(&h.Status, 0) // TP_STATUS_KERNEL
	if r.next++; r.next == r.slots {
		r.next = 0
	}
}

// deafAfter is after how many looks in a row a ring counts as deaf.
const deafAfter = 3

// listen is told the socket's statistics since the last look. A ring that is empty and
// took nothing, while frames came, is deaf.
func (r *rxRing) listen(s *unix.TpacketStats) {
	_, h := r.slot(int(r.at.Load()))
	empty := atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0
	switch {
	case s.Packets > s.Drops || !empty:
		r.deaf = 0
	case s.Packets > 0:
		r.deaf++
	}
}

// recv is Packet.Recv with a ring.
func (r *rxRing) recv(b *frame.Batch, limit int) (n int, errno unix.Errno) {
	n, errno = r.take(b, limit)
	r.at.Store(int32(r.next))
	return n, errno
}

func (r *rxRing) take(b *frame.Batch, limit int) (n int, errno unix.Errno) {
	for n < limit {
		if r.owed > 0 {
			got, errno := r.recvOwed(b, n, limit)
			if n += got; errno != 0 {
				return n, errno
			}
			continue
		}
		s, h := r.slot(r.next)
		switch status := atomic.LoadUint32(&h.Status); {
		case status&unix.TP_STATUS_USER == 0:
			if n == 0 {
				return 0, r.pending()
			}
			return n, 0
		case status&unix.TP_STATUS_COPY != 0:
			for n+r.owed < limit && status&(unix.TP_STATUS_COPY|unix.TP_STATUS_USER) == unix.TP_STATUS_COPY|unix.TP_STATUS_USER {
				r.owed++
				r.release(h)
				_, h = r.slot(r.next)
				status = atomic.LoadUint32(&h.Status)
			}
		case h.Snaplen < h.Len || !fill(b.Frames[n], s, h, status):
			r.lost.Add(1) // the receive queue was full
			r.release(h)
		default:
			n++
			r.release(h)
		}
	}
	return n, 0
}

// recvOwed receives frames whose slots said that they are in the queue.
func (r *rxRing) recvOwed(b *frame.Batch, n, limit int) (got int, errno unix.Errno) {
	got, errno = recvQueue(r.fd, b, n, min(r.owed, limit-n))
	r.owed -= got
	switch errno {
	case unix.EINVAL:
		r.owed-- // it was taken off the queue, and dropped
	case unix.EAGAIN:
		r.lost.Add(uint64(r.owed)) // cannot be: the kernel queues a frame before it shows the slot
		r.owed, errno = 0, 0
	}
	r.owed = max(r.owed, 0)
	return got, errno
}

// pending returns an error that waits in the socket (the interface went down), or
// EAGAIN. Reading the ring alone would leave it there, and the descriptor readable.
func (r *rxRing) pending() unix.Errno {
	if e, err := unix.GetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_ERROR); err == nil && e != 0 {
		return unix.Errno(e)
	}
	return unix.EAGAIN
}

// fill copies what slot s holds into f, and reports whether the slot makes sense.
func fill(f *frame.Frame, s []byte, h *unix.Tpacket2Hdr, status uint32) bool {
	start, n := int(h.Mac), int(h.Snaplen)
	if start < unix.SizeofTpacket2Hdr+frame.VnetLen || start+n > len(s) {
		return false
	}
	f.Reset(n)
	f.Offload.GetVnet(s[start-frame.VnetLen : start])
	copy(f.Bytes(), s[start:start+n])
	if tag, ok := slotTag(status, h.Vlan_tci, h.Vlan_tpid); ok {
		f.Tag = tag
	} else {
		f.PopTag()
	}
	return true
}
