package frame

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"
)

// Frames staged with and without a tag go through a pair of datagram sockets,
// and come out with virtio-net header, tag and bytes as a device sees them.
func TestBatchThroughSockets(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	pool := testPool(t, 2*MaxBatch)
	in := NewBatch(pool)
	var v Vectors
	r := rand.New(rand.NewPCG(23, 24))
	for range 100 {
		// AF_UNIX keeps few datagrams (net.unix.max_dgram_qlen, 10 by default).
		var out []Out
		for range 1 + r.IntN(8) {
			f := pool.Get()
			b, o := randomPacket(r, 2000).build()
			f.Set(b)
			f.Offload = o
			f.HdrLen = uint16(r.IntN(2) * 54)
			x := Out{F: f}
			if r.IntN(2) == 0 {
				x.Tag = Tag{TPID8021AD, uint16(r.Uint32())}
			}
			out = append(out, x)
		}
		v.Gather(out)
		if n, e := v.Sendmmsg(fds[0], len(out)); n != len(out) || e != 0 {
			t.Fatalf("sent %d of %d: %v", n, len(out), e)
		}
		n, e := in.Recvmmsg(fds[1], MaxBatch)
		if n != len(out) || e != 0 {
			t.Fatalf("received %d of %d: %v", n, len(out), e)
		}
		in.N = n
		for i, x := range out {
			got := in.Received(i)
			want := pool.Get()
			want.Set(x.F.Bytes())
			want.Offload = x.F.Offload
			if x.Tag.Present() {
				want.PushTag(x.Tag)
			}
			if !bytes.Equal(got.Bytes(), want.Bytes()) || got.Offload != want.Offload || got.Truncated || got.Len() != x.WireLen() {
				t.Fatalf("frame %d, tag %+v:\n got % x %+v\nwant % x %+v", i, x.Tag, got.Bytes(), got.Offload, want.Bytes(), want.Offload)
			}
			pool.Release(want)
			pool.Release(x.F)
		}
		in.Renew()
	}
	if n, e := in.Recvmmsg(fds[1], MaxBatch); n != 0 || e != unix.EAGAIN {
		t.Errorf("empty socket: %d frames, %v", n, e)
	}
	if pool.Free() != MaxBatch {
		t.Errorf("%d frames free at the end, want %d", pool.Free(), MaxBatch)
	}
}

// A datagram longer than the longest frame is marked, and Check refuses it.
func TestReceiveTooLong(t *testing.T) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fds[0])
	defer unix.Close(fds[1])
	in := NewBatch(testPool(t, MaxBatch))
	for _, n := range []int{VnetLen + MaxLen, VnetLen + MaxLen + 1, 3} {
		if _, err := unix.Write(fds[0], make([]byte, n)); err != nil {
			t.Fatal(err)
		}
		if got, e := in.Recvmmsg(fds[1], 1); got != 1 || e != 0 {
			t.Fatalf("received %d: %v", got, e)
		}
		f := in.Received(0)
		if f.Truncated != (n > VnetLen+MaxLen) || (f.Check() == nil) != (n == VnetLen+MaxLen) {
			t.Errorf("%d bytes: truncated %v, Check says %v", n, f.Truncated, f.Check())
		}
	}
}
