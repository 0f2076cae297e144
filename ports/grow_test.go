package ports

import (
	"encoding/binary"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// TestGrow: a device that gets its ring while frames come gives each once and in
// order, small ones and large ones; and they come by the ring from then on.
func TestGrow(t *testing.T) {
	for range 5 {
		in(t, grow)
	}
}

func grow(t *testing.T, v0, v1 Link) {
	a, b, pool := openPair(t, v0, v1, PacketOptions{Growable: true})
	if pool == nil {
		return
	}
	if !b.CanGrow() {
		t.Errorf("a device that is growable cannot grow")
		return
	}
	batch := frame.NewBatch(pool)
	if !settle(t, a, b, pool, batch) {
		return
	}
	var got atomic.Uint32 // frames
	var enough atomic.Bool
	sent := make(chan struct{})
	frames := make([]*frame.Frame, 16)
	for i := range frames {
		frames[i] = pool.Get()
	}
	go func() { // ends when it is enough, or nobody reads
		defer close(sent)
		v := new(frame.Vectors)
		outs := make([]frame.Out, len(frames))
		for seq := uint32(0); !enough.Load(); {
			for end := time.Now().Add(5 * time.Second); seq-got.Load() > 200; runtime.Gosched() {
				if enough.Load() || time.Now().After(end) {
					return
				}
			}
			for i, f := range frames {
				numbered(f, seq, []int{60, 60, 60, 300, 1514}[seq%5])
				outs[i] = frame.Out{F: f}
				seq++
			}
			for rest := outs; len(rest) > 0; {
				n, errno := a.Send(0, v, rest)
				if rest = rest[n:]; errno != 0 && errno != unix.EAGAIN {
					t.Errorf("send: %v", errno)
					return
				}
			}
		}
	}()
	// The worker is a goroutine; this thread, which is in the namespace, is the control
	// side.
	var queues, byRing atomic.Int32
	queues.Store(1)
	read := make(chan struct{})
	go func() { // ends when all that was sent has come, or one that was not due
		defer close(read)
		want := uint32(0)
		for end := time.Now().Add(20 * time.Second); !enough.Load(); {
			for q := range int(queues.Load()) {
				n, _ := b.Recv(q, batch, frame.MaxBatch)
				for _, f := range batch.Frames[:n] {
					if !ours(f) {
						continue
					}
					if seq := binary.BigEndian.Uint32(f.Bytes()[14:]); seq != want {
						t.Errorf("frame %d came by queue %d where %d was due", seq, q, want)
						enough.Store(true)
						return
					}
					want++
					if q == 1 {
						byRing.Add(1)
					}
				}
				batch.Renew()
			}
			got.Store(want)
			if time.Now().After(end) {
				t.Errorf("%d came, %d of them by the ring", want, byRing.Load())
				enough.Store(true)
			}
		}
	}()
	for got.Load() < 10_000 && !enough.Load() {
		runtime.Gosched()
	}
	if err := b.Grow(MinRxSlots); err != nil {
		t.Error(err)
	}
	queues.Store(2)
	for was := got.Load(); got.Load() < was+10_000 && !enough.Load(); {
		runtime.Gosched()
	}
	if err := b.Turn(); err != nil {
		t.Error(err)
	}
	byRing.Store(0)
	for byRing.Load() < 10_000 && !enough.Load() {
		runtime.Gosched()
	}
	enough.Store(true)
	<-sent
	<-read
	for n := 1; n > 0; { // the rest
		n, _ = b.Recv(1, batch, frame.MaxBatch)
		batch.Renew()
	}
	if g := b.grown.Load(); !g.drained {
		t.Error("the first member of the group is read for ever")
	}
	if b.CanGrow() {
		t.Error("it can grow again")
	}
	if n := b.Missed(); n != 0 {
		t.Errorf("%d missed", n)
	}
	// The interface goes down and comes back: frames come still, each once.
	if err := netlink.LinkSetDown(byIndex(v1.Index)); err != nil {
		t.Error(err)
	}
	if err := netlink.LinkSetUp(byIndex(v1.Index)); err != nil {
		t.Error(err)
	}
	for end := time.Now().Add(5 * time.Second); ; {
		numbered(frames[0], 7, 60)
		send(t, a, []frame.Out{{F: frames[0]}})
		found := 0
		for range 20 {
			for q := range 2 {
				n, _ := b.Recv(q, batch, frame.MaxBatch)
				for _, f := range batch.Frames[:n] {
					if ours(f) {
						found++
					}
				}
			}
			if found > 0 {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if found == 1 {
			break
		}
		if found > 1 || time.Now().After(end) {
			t.Errorf("after down and up a frame came %d times", found)
			break
		}
	}
}

// TestGrownLeavesSCTP: frames whose super-frames a virtio-net header cannot express come by
// the queue after the turn, too, in both families; others by the ring.
func TestGrownLeavesSCTP(t *testing.T) {
	in(t, func(t *testing.T, v0, v1 Link) {
		a, b, pool := openPair(t, v0, v1, PacketOptions{Growable: true})
		if pool == nil {
			return
		}
		batch := frame.NewBatch(pool)
		if !settle(t, a, b, pool, batch) {
			return
		}
		if err := b.Grow(MinRxSlots); err != nil {
			t.Error(err)
			return
		}
		if err := b.Turn(); err != nil {
			t.Error(err)
			return
		}
		b.Recv(1, batch, frame.MaxBatch) // the first member is drained
		f := pool.Get()
		for _, c := range []struct {
			etherType   uint16
			at          int
			proto       byte
			queue, tags int
		}{
			{unix.ETH_P_IP, 23, unix.IPPROTO_SCTP, 0, 0}, {unix.ETH_P_IPV6, 20, unix.IPPROTO_SCTP, 0, 0},
			{unix.ETH_P_IP, 23, unix.IPPROTO_TCP, 1, 0}, {unix.ETH_P_IPV6, 20, unix.IPPROTO_UDP, 1, 0},
			{unix.ETH_P_IP, 23, unix.IPPROTO_SCTP, 0, 1}, {unix.ETH_P_ARP, 23, unix.IPPROTO_SCTP, 1, 0},
		} {
			f.Reset(60)
			d := f.Bytes()
			clear(d)
			copy(d, []byte{2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0x77, 1})
			binary.BigEndian.PutUint16(d[12:], c.etherType)
			d[14] = map[bool]byte{true: 0x60, false: 0x45}[c.etherType == unix.ETH_P_IPV6]
			d[c.at] = c.proto
			o := frame.Out{F: f}
			if c.tags > 0 {
				o.Tag = frame.Tag{TPID: frame.TPID8021Q, TCI: 5}
			}
			if !send(t, a, []frame.Out{o}) {
				return
			}
			came := [2]int{}
			for end := time.Now().Add(2 * time.Second); came[0]+came[1] == 0 && time.Now().Before(end); {
				for q := range came {
					n, _ := b.Recv(q, batch, frame.MaxBatch)
					for _, g := range batch.Frames[:n] {
						if g.Len() == 60 && g.Bytes()[10] == 0x77 {
							came[q]++
						}
					}
				}
			}
			if came[c.queue] != 1 || came[1-c.queue] != 0 {
				t.Errorf("EtherType %#04x, protocol %d, %d tags: came by queues %v, want queue %d", c.etherType, c.proto, c.tags, came, c.queue)
			}
		}
	})
}

// TestQueuesOpenUnderTraffic: a device of many queues gives each frame at most once, also those
// that come while its queues are opened one after the other.
func TestQueuesOpenUnderTraffic(t *testing.T) {
	for _, slots := range []int{0, MinRxSlots} {
		in(t, func(t *testing.T, v0, v1 Link) { openUnderTraffic(t, v0, v1, slots) })
	}
}

func openUnderTraffic(t *testing.T, v0, v1 Link, slots int) {
	a, err := OpenPacket("v0", v0.Index, PacketOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	defer a.Close()
	pool, err := frame.NewPool(2 * frame.MaxBatch)
	if err != nil {
		t.Error(err)
		return
	}
	defer pool.Close()
	batch := frame.NewBatch(pool)
	f := pool.Get()
	var count atomic.Uint32
	var enough atomic.Bool
	sent := make(chan struct{})
	go func() { // ends when it is enough
		defer close(sent)
		v := new(frame.Vectors)
		for seq := uint32(0); !enough.Load(); seq++ {
			numbered(f, seq, 60)
			a.Send(0, v, []frame.Out{{F: f}})
			count.Add(1)
			for end := time.Now().Add(5 * time.Microsecond); time.Now().Before(end); {
			}
		}
	}()
	for end := time.Now().Add(5 * time.Second); count.Load() < 1000; runtime.Gosched() { // before there is anybody to take it
		if time.Now().After(end) {
			t.Error("nothing is sent")
			break
		}
	}
	b, err := OpenPacket("v1", v1.Index, PacketOptions{Queues: 4, RxSlots: slots})
	enough.Store(true)
	<-sent
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	seen := map[uint32]int{}
	for q := range b.Queues() {
		for n := 1; n > 0; {
			n, _ = b.Recv(q, batch, frame.MaxBatch)
			for _, g := range batch.Frames[:n] {
				if ours(g) {
					seen[binary.BigEndian.Uint32(g.Bytes()[14:])]++
				}
			}
			batch.Renew()
		}
	}
	twice := 0
	for _, n := range seen {
		if n > 1 {
			twice++
		}
	}
	if twice > 0 || len(seen) == 0 {
		t.Errorf("%d slots: of %d frames %d came more than once", slots, len(seen), twice)
	}
}
