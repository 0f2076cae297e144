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
	a, err := OpenPacket("v0", v0.Index, PacketOptions{})
	if err != nil {
		t.Error(err)
		return
	}
	defer a.Close()
	b, err := OpenPacket("v1", v1.Index, PacketOptions{Growable: true})
	if err != nil {
		t.Error(err)
		return
	}
	defer b.Close()
	if !b.CanGrow() {
		t.Errorf("a device that is growable cannot grow")
		return
	}
	pool, err := frame.NewPool(4 * frame.MaxBatch)
	if err != nil {
		t.Error(err)
		return
	}
	defer pool.Close()
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
