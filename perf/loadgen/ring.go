package loadgen

import (
	"encoding/binary"
	"fmt"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A TPACKET_V3 ring (packet(7), linux/if_packet.h): blocks in memory shared with
// the kernel. The kernel fills one with frames and hands it over when it is full
// or retireMillis old; the reader hands it back. A reader woken once a block pays
// for no system call and no copy a frame.
//
//	block:  0 version  4 private  8 status  12 frames  16 first  20 length …
//	frame:  0 next  4 sec  8 nsec  12 snaplen  16 len  20 status  24 mac …
const (
	blockLen     = 256 << 10
	blocks       = 32
	retireMillis = 20
	// snapLen is what is kept of a frame, in bytes: its stamp lies within.
	snapLen = 64

	offBlockStatus = 8
	offBlockFrames = 12
	offBlockFirst  = 16

	offFrameNext    = 0
	offFrameSec     = 4
	offFrameNsec    = 8
	offFrameSnaplen = 12
	offFrameLen     = 16
	offFrameMac     = 24
	frameHeaderLen  = 48 // sizeof(struct tpacket3_hdr)
)

// ring is the shared memory and whose turn it is. Thread-safety: one reader.
type ring struct {
	memory []byte
	next   int // the block to come
}

// newRing gives a packet socket its ring. It is not bound yet.
func newRing(fd int) (*ring, error) {
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_VERSION, unix.TPACKET_V3); err != nil {
		return nil, fmt.Errorf("packet version 3: %w", err)
	}
	const frameLen = 2048 // what the kernel wants to divide blocks; frames take what they need
	req := unix.TpacketReq3{
		Block_size: blockLen, Block_nr: blocks,
		Frame_size: frameLen, Frame_nr: blockLen / frameLen * blocks,
		Retire_blk_tov: retireMillis,
	}
	if err := unix.SetsockoptTpacketReq3(fd, unix.SOL_PACKET, unix.PACKET_RX_RING, &req); err != nil {
		return nil, fmt.Errorf("ring of %d bytes: %w", blockLen*blocks, err)
	}
	memory, err := unix.Mmap(fd, 0, blockLen*blocks, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, fmt.Errorf("map ring: %w", err)
	}
	return &ring{memory: memory}, nil
}

func (r *ring) close() error { return unix.Munmap(r.memory) }

// take returns the next block that is full, or nil.
func (r *ring) take() []byte {
	block := r.memory[r.next*blockLen:][:blockLen]
	if atomic.LoadUint32(statusOf(block))&unix.TP_STATUS_USER == 0 {
		return nil
	}
	return block
}

// give hands the block that take returned back to the kernel.
func (r *ring) give(block []byte) {
	atomic.StoreUint32(statusOf(block), unix.TP_STATUS_KERNEL)
	r.next = (r.next + 1) % blocks
}

func statusOf(block []byte) *uint32 { return (*uint32)(unsafe.Pointer(&block[offBlockStatus])) }

// filter makes the socket keep so many bytes of each frame, or with 0 no frame.
func filter(fd int, keep uint32) error {
	// BPF_RET|BPF_K: what a filter returns is how much to keep.
	code := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: keep}
	prog := unix.SockFprog{Len: 1, Filter: &code}
	if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &prog); err != nil {
		return fmt.Errorf("filter: %w", err)
	}
	return nil
}

// block counts a block's frames. It believes lengths only as far as the block reaches.
func (s *session) block(block []byte) {
	count := binary.NativeEndian.Uint32(block[offBlockFrames:])
	at := uint64(binary.NativeEndian.Uint32(block[offBlockFirst:]))
	for range count {
		if at+frameHeaderLen > uint64(len(block)) {
			return
		}
		h := block[at:]
		from := uint64(binary.NativeEndian.Uint16(h[offFrameMac:]))
		to := from + uint64(binary.NativeEndian.Uint32(h[offFrameSnaplen:]))
		if to > uint64(len(h)) {
			return
		}
		arrived := int64(binary.NativeEndian.Uint32(h[offFrameSec:]))*1e9 + int64(binary.NativeEndian.Uint32(h[offFrameNsec:]))
		s.frame(h[from:to], int(binary.NativeEndian.Uint32(h[offFrameLen:])), arrived-s.ahead)
		at += uint64(binary.NativeEndian.Uint32(h[offFrameNext:]))
	}
}
