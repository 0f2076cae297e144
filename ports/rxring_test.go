package ports

import (
	"bytes"
	"encoding/binary"
	"math/rand/v2"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// openPair opens a packet device on each end of a veth, the second with options o. Where
// that fails, pool is nil.
func openPair(t *testing.T, v0, v1 Link, o PacketOptions) (a, b *Packet, pool *frame.Pool) {
	t.Helper()
	a, err := OpenPacket("v0", v0.Index, PacketOptions{})
	if err == nil {
		b, err = OpenPacket("v1", v1.Index, o)
	}
	if err == nil {
		pool, err = frame.NewPool(4 * frame.MaxBatch)
	}
	if err != nil {
		t.Error(err)
		return nil, nil, nil
	}
	t.Cleanup(func() { a.Close(); b.Close(); pool.Close() })
	return a, b, pool
}

// numbered is a frame of a length that says which one it is.
func numbered(f *frame.Frame, seq uint32, length int) {
	f.Reset(length)
	b := f.Bytes()
	for i := range b {
		b[i] = byte(int(seq) + i)
	}
	copy(b, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0x77, 1, 0x88, 0xb5})
	if length >= 18 {
		binary.BigEndian.PutUint32(b[14:], seq)
	}
}

func ours(f *frame.Frame) bool {
	b := f.Bytes()
	return len(b) >= 18 && b[10] == 0x77 && b[12] == 0x88 && b[13] == 0xb5
}

// send sends one burst, again until both ends of a new veth carry frames.
func send(t *testing.T, a *Packet, outs []frame.Out) bool {
	v := new(frame.Vectors)
	for len(outs) > 0 {
		n, errno := a.Send(0, v, outs[:min(len(outs), frame.MaxBatch)])
		if outs = outs[n:]; errno != 0 && errno != unix.EAGAIN {
			t.Errorf("send: %v", errno)
			return false
		}
	}
	return true
}

// settle waits until the veth carries frames, and empties it.
func settle(t *testing.T, a, b *Packet, pool *frame.Pool, batch *frame.Batch) bool {
	f := pool.Get()
	defer pool.Release(f)
	numbered(f, 0, 60)
	for range 100 {
		if !send(t, a, []frame.Out{{F: f}}) {
			return false
		}
		p := []unix.PollFd{{Fd: int32(b.FD(0)), Events: unix.POLLIN}}
		unix.Poll(p, 50)
		for n := 1; n > 0; {
			n, _ = b.Recv(0, batch, frame.MaxBatch)
			for _, g := range batch.Frames[:n] {
				if ours(g) {
					for m := 1; m > 0; {
						m, _ = b.Recv(0, batch, frame.MaxBatch)
					}
					return true
				}
			}
		}
	}
	t.Error("the veth carries nothing")
	return false
}

// TestRxRing: frames of any length come out of a ring as they were sent and in the
// order in which they were sent, those that fit into a slot and those that do not,
// with their tags, also while the ring wraps, and however few are asked for at once.
func TestRxRing(t *testing.T) {
	in(t, func(t *testing.T, v0, v1 Link) {
		a, b, pool := openPair(t, v0, v1, PacketOptions{RxSlots: MinRxSlots})
		if pool == nil {
			return
		}
		batch := frame.NewBatch(pool)
		if !settle(t, a, b, pool, batch) {
			return
		}
		rng := rand.New(rand.NewPCG(1, 2))
		lengths := []int{18, 60, 179, 180, 181, 255, 256, 257, 1000, 1514}
		seq, want := uint32(0), uint32(0)
		sent := map[uint32]frame.Out{}
		for round := range 200 {
			var outs []frame.Out
			for range 1 + rng.IntN(frame.MaxBatch) {
				f := pool.Get()
				length := lengths[rng.IntN(len(lengths))]
				if rng.IntN(4) == 0 {
					length = 18 + rng.IntN(1497)
				}
				numbered(f, seq, length)
				o := frame.Out{F: f}
				if rng.IntN(3) == 0 {
					o.Tag = frame.Tag{TPID: frame.TPID8021Q, TCI: uint16(rng.IntN(4095))}
				}
				sent[seq] = o
				outs = append(outs, o)
				seq++
			}
			if !send(t, a, outs) {
				return
			}
			for want < seq {
				p := []unix.PollFd{{Fd: int32(b.FD(0)), Events: unix.POLLIN}}
				if n, _ := unix.Poll(p, 2000); n == 0 {
					t.Errorf("round %d: %d of %d came", round, want, seq)
					return
				}
				n, errno := b.Recv(0, batch, 1+rng.IntN(frame.MaxBatch))
				if errno != 0 && errno != unix.EAGAIN {
					t.Errorf("recv: %v", errno)
					return
				}
				for _, f := range batch.Frames[:n] {
					if !ours(f) {
						continue // of the stack
					}
					o := sent[want]
					if got := binary.BigEndian.Uint32(f.Bytes()[14:]); got != want || f.Tag != o.Tag || !bytes.Equal(f.Bytes(), o.F.Bytes()) {
						t.Errorf("frame %d of %d bytes, tag %+v, came as %d of %d bytes, tag %+v", want, o.F.Len(), o.Tag, got, f.Len(), f.Tag)
						return
					}
					want++
				}
				batch.Renew()
			}
			for _, o := range outs {
				pool.Release(o.F)
			}
			clear(sent)
		}
		if n := b.Missed(); n != 0 {
			t.Errorf("%d missed", n)
		}
	})
}

// TestRxRingSuper: a super-frame and the ACKs around it keep their order and their
// offload state.
func TestRxRingSuper(t *testing.T) {
	in(t, func(t *testing.T, v0, v1 Link) {
		a, b, pool := openPair(t, v0, v1, PacketOptions{RxSlots: MinRxSlots})
		if pool == nil {
			return
		}
		batch := frame.NewBatch(pool)
		if !settle(t, a, b, pool, batch) {
			return
		}
		var outs []frame.Out
		for i, length := range []int{60, 60000, 54, 30000, 40000, 66} {
			f := pool.Get()
			f.Reset(length)
			d := f.Bytes()
			clear(d)
			copy(d, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0x77, byte(i), 8, 0, 0x45, 0})
			binary.BigEndian.PutUint16(d[16:], uint16(length-14))
			d[22], d[23] = 64, 6
			d[46] = 5 << 4
			f.Offload = frame.Offload{Flags: frame.NeedsCsum, CsumStart: 34, CsumOffset: 16}
			if length > 1514 {
				f.Offload.GSOType, f.Offload.GSOSize, f.Offload.HdrLen = unix.VIRTIO_NET_HDR_GSO_TCPV4, 1448, 54
			}
			outs = append(outs, frame.Out{F: f})
		}
		if !send(t, a, outs) {
			return
		}
		next := 0
		for next < len(outs) {
			p := []unix.PollFd{{Fd: int32(b.FD(0)), Events: unix.POLLIN}}
			if n, _ := unix.Poll(p, 2000); n == 0 {
				t.Errorf("%d of %d came", next, len(outs))
				return
			}
			n, _ := b.Recv(0, batch, frame.MaxBatch)
			for _, f := range batch.Frames[:n] {
				if f.Len() < 14 || f.Bytes()[10] != 0x77 {
					continue
				}
				w := outs[next].F
				if !bytes.Equal(f.Bytes(), w.Bytes()) || f.Offload.GSOType != w.Offload.GSOType || f.Offload.GSOSize != w.Offload.GSOSize || f.Offload.Flags != w.Offload.Flags {
					t.Errorf("frame %d: %d bytes, %+v, came as %d bytes, %+v", next, w.Len(), w.Offload, f.Len(), f.Offload)
				}
				next++
			}
			batch.Renew()
		}
	})
}

// TestRxRingFull: what neither ring nor queue has room for is counted, each frame once.
func TestRxRingFull(t *testing.T) {
	for name, length := range map[string]int{"small": 60, "large": 1514} {
		t.Run(name, func(t *testing.T) {
			in(t, func(t *testing.T, v0, v1 Link) {
				a, b, pool := openPair(t, v0, v1, PacketOptions{RxSlots: MinRxSlots})
				if pool == nil {
					return
				}
				// Room for some thirty large frames.
				if err := unix.SetsockoptInt(b.FD(0), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<10); err != nil {
					t.Error(err)
					return
				}
				batch := frame.NewBatch(pool)
				if !settle(t, a, b, pool, batch) {
					return
				}
				before, rx := b.Missed(), rxPackets(t, "v1")
				const count = 4 * MinRxSlots
				f := pool.Get()
				for i := range uint32(count) {
					numbered(f, i, length)
					if !send(t, a, []frame.Out{{F: f}}) {
						return
					}
				}
				arrived := uint64(0)
				for n := 1; n > 0; {
					n, _ = b.Recv(0, batch, frame.MaxBatch)
					arrived += uint64(n)
					batch.Renew()
				}
				missed, total := b.Missed()-before, rxPackets(t, "v1")-rx
				if arrived+missed != total || total < count || missed == 0 {
					t.Errorf("%d came and %d were missed of %d that the interface received", arrived, missed, total)
				}
			})
		})
	}
}

func rxPackets(t *testing.T, name string) uint64 {
	l, err := netlink.LinkByName(name)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().Statistics.RxPackets
}

// TestRxRingDown: that the interface went down is told once, and the descriptor is
// not readable for ever.
func TestRxRingDown(t *testing.T) {
	in(t, func(t *testing.T, v0, v1 Link) {
		a, b, pool := openPair(t, v0, v1, PacketOptions{RxSlots: MinRxSlots})
		if pool == nil {
			return
		}
		batch := frame.NewBatch(pool)
		if !settle(t, a, b, pool, batch) {
			return
		}
		if err := netlink.LinkSetDown(byIndex(v1.Index)); err != nil {
			t.Error(err)
			return
		}
		if n, errno := b.Recv(0, batch, frame.MaxBatch); n != 0 || errno != unix.ENETDOWN {
			t.Errorf("recv on an interface that went down: %d, %v; want ENETDOWN", n, errno)
		}
		p := []unix.PollFd{{Fd: int32(b.FD(0)), Events: unix.POLLIN}}
		if n, _ := unix.Poll(p, 0); n != 0 {
			t.Errorf("readable still: %#x", p[0].Revents)
		}
		if n, errno := b.Recv(0, batch, frame.MaxBatch); n != 0 || errno != unix.EAGAIN {
			t.Errorf("recv again: %d, %v; want EAGAIN", n, errno)
		}
	})
}

// TestFillTrustsNoSlot: a header that points out of its slot makes no frame.
func TestFillTrustsNoSlot(t *testing.T) {
	pool, err := frame.NewPool(frame.MaxBatch)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	f := pool.Get()
	slot := make([]byte, slotLen)
	h := (*unix.Tpacket2Hdr)(unsafe.Pointer(&slot[0]))
	for _, c := range []struct {
		mac     uint16
		snaplen uint32
		want    bool
	}{
		{76, 180, true}, {76, 0, true}, {42, 0, true}, {76, 181, false}, {41, 10, false}, {0, 10, false},
		{256, 0, true}, {257, 0, false}, {65535, 1, false}, {76, 1 << 31, false}, {76, 1<<32 - 76, false},
	} {
		h.Mac, h.Snaplen = c.mac, c.snaplen
		if got := fill(f, slot, h, 0); got != c.want {
			t.Errorf("mac %d, snaplen %d: %t, want %t", c.mac, c.snaplen, got, c.want)
		}
	}
}

// TestRxRingAllocatesNothing reads a ring that a test fills by itself.
func TestRxRingAllocatesNothing(t *testing.T) {
	pool, err := frame.NewPool(2 * frame.MaxBatch)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	batch := frame.NewBatch(pool)
	r := &rxRing{fd: -1, slots: MinRxSlots, mem: make([]byte, MinRxSlots*slotLen)}
	if n := testing.AllocsPerRun(1000, func() {
		for i := range frame.MaxBatch {
			_, h := r.slot((r.next + i) % r.slots)
			h.Mac, h.Snaplen, h.Len = 76, 60, 60
			atomic.StoreUint32(&h.Status, unix.TP_STATUS_USER)
		}
		if n, _ := r.recv(batch, frame.MaxBatch); n != frame.MaxBatch {
			t.Fatalf("%d frames", n)
		}
	}); n != 0 {
		t.Errorf("%.1f allocations a batch", n)
	}
}

// TestRxRingDeaf: a ring counts as deaf when it is empty and takes nothing of what comes,
// look after look; not when it is full, nor when nothing comes.
func TestRxRingDeaf(t *testing.T) {
	r := &rxRing{slots: MinRxSlots, mem: make([]byte, MinRxSlots*slotLen)}
	_, h := r.slot(0)
	look := func(packets, drops, status uint32) {
		h.Status = status
		r.listen(&unix.TpacketStats{Packets: packets, Drops: drops})
	}
	for i, c := range []struct {
		packets, drops, status uint32
		deaf                   int
	}{
		{0, 0, 0, 0}, {10, 0, 0, 0}, {10, 9, 0, 0}, // it takes some
		{10, 10, unix.TP_STATUS_USER, 0}, // it is full
		{10, 10, 0, 1}, {0, 0, 0, 1}, {1, 1, 0, 2},
		{5, 4, 0, 0}, {1, 1, 0, 1}, {7, 7, 0, 2}, {7, 7, 0, 3},
	} {
		if look(c.packets, c.drops, c.status); r.deaf != c.deaf {
			t.Errorf("look %d: %d looks in a row found it deaf, want %d", i, r.deaf, c.deaf)
		}
	}
	p := &Packet{rings: []*rxRing{r}}
	if !p.Deaf() {
		t.Error("the device does not say so")
	}
}
