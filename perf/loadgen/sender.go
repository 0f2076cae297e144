package loadgen

import (
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"runtime"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Sender sends streams on one interface. Thread-safety: one Send or Announce at a
// time; several Senders may send at once.
type Sender struct {
	name  string
	fd    int
	train *train
	call  func(fd int, msgs *mmsghdr, n int) (int, unix.Errno) // sendmmsg; tests put another in its place
}

// OpenSender opens a sender on an interface of the calling thread's network
// namespace. It needs CAP_NET_RAW.
func OpenSender(ifname string) (*Sender, error) {
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("open sender on %s: %w", ifname, err)
	}
	// Protocol 0: the socket receives nothing.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open sender on %s: packet socket: %w", ifname, err)
	}
	s := &Sender{name: ifname, fd: fd, train: newTrain(), call: sendmmsg}
	if err := s.prepare(ifi.Index); err != nil {
		s.Close()
		return nil, fmt.Errorf("open sender on %s: %w", ifname, err)
	}
	return s, nil
}

func (s *Sender) prepare(ifindex int) error {
	if err := unix.SetsockoptInt(s.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
		return fmt.Errorf("bypass the queueing discipline: %w", err)
	}
	// A call waits for room in the socket's send buffer, and must not wait for
	// ever where the other side is stuck.
	limit := unix.Timeval{Usec: 20_000}
	if err := unix.SetsockoptTimeval(s.fd, unix.SOL_SOCKET, unix.SO_SNDTIMEO, &limit); err != nil {
		return fmt.Errorf("bound waiting: %w", err)
	}
	if err := unix.Bind(s.fd, &unix.SockaddrLinklayer{Ifindex: ifindex}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// Close closes the sender; nobody may be sending.
func (s *Sender) Close() error {
	if s.fd < 0 {
		return nil
	}
	err := unix.Close(s.fd)
	s.fd = -1
	return err
}

// Send sends a stream until it ends, ctx does, or the interface fails: then the
// error says why, and Sent what went before. The end of ctx is no error.
func (s *Sender) Send(ctx context.Context, st Stream) (Sent, error) {
	if err := st.check(); err != nil {
		return Sent{}, fmt.Errorf("send on %s: %w", s.name, err)
	}
	s.train.stream(&st)
	// A flow's numbers have 32 bits.
	count := uint64(st.Flows) * (1<<32 - 1)
	if st.Count > 0 {
		count = min(count, st.Count)
	}
	sent, err := s.run(ctx, st.Rate, st.Duration, count)
	sent.First, sent.Flows = st.First, st.Flows
	return sent, err
}

// Announce sends one small frame from each of mac(0) to mac(n-1), so that a switch
// learns that they are here: SrcMAC, DstMAC or a function of the caller's. Each
// goes to its own address, so that the switch has nowhere to send it. rate is in
// frames a second; 0 is as fast as it goes.
func (s *Sender) Announce(ctx context.Context, mac func(i int) MAC, n int, rate float64) (Sent, error) {
	if n < 1 {
		return Sent{}, nil
	}
	s.train.announce(mac)
	sent, err := s.run(ctx, rate, 0, uint64(n))
	if err == nil && sent.Frames < uint64(n) {
		err = fmt.Errorf("announce %d addresses on %s: %w after %d", n, s.name, context.Cause(ctx), sent.Frames)
	}
	return sent, err
}

// run sends the train's frames until count are sent or, unless 0, limit has passed.
func (s *Sender) run(ctx context.Context, rate float64, limit time.Duration, count uint64) (sent Sent, err error) {
	var cancelled atomic.Bool
	defer context.AfterFunc(ctx, func() { cancelled.Store(true) })()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if rate > 0 {
		defer sharpen()()
	}

	start := Now()
	p := newPacer(rate, start)
	end := start + int64(limit)
	sent.Started = start
	for sent.Frames < count && !cancelled.Load() {
		now := Now()
		last := limit > 0 && now >= end
		if last && rate == 0 {
			break
		}
		if last {
			now = end // what was due by then
		}
		if n := min(p.due(now, sent.Frames), count-sent.Frames); n > 0 {
			if err = s.burst(&sent, n); err != nil {
				err = fmt.Errorf("send on %s: %w", s.name, err)
				break
			}
		}
		if last {
			break
		}
		if rate > 0 {
			at := p.next(now, sent.Frames)
			if limit > 0 {
				at = min(at, end)
			}
			sleepUntil(at)
		}
	}
	sent.Elapsed = time.Duration(Now() - start)
	return sent, err
}

// burst sends n frames, or fewer where the interface refuses.
func (s *Sender) burst(sent *Sent, n uint64) error {
	for n > 0 {
		k := int(min(n, burst))
		s.train.load(k, Now())
		done, errno := s.call(s.fd, &s.train.msgs[0], k)
		sent.Frames += uint64(done)
		sent.Bytes += s.train.leave(done)
		n -= uint64(done)
		if done == k {
			continue
		}
		switch errno {
		case unix.EINTR:
		case 0, unix.ENOBUFS, unix.EAGAIN:
			// The interface's queue is full: whoever empties it needs the time.
			sent.Refused++
			sleepUntil(Now() + tick/2)
			return nil
		default:
			return fmt.Errorf("sendmmsg: %w", errno)
		}
	}
	return nil
}

// mmsghdr is struct mmsghdr of sendmmsg(2).
type mmsghdr struct {
	hdr unix.Msghdr
	n   uint32
	_   [4]byte
}

// sendmmsg returns how many messages were sent, and the error when none were.
func sendmmsg(fd int, msgs *mmsghdr, n int) (int, unix.Errno) {
	r, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(msgs)), uintptr(n), 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	return int(r), 0
}

// train is the frames of one system call, and which comes next. A frame is its
// header and a run of the zeros that all share, so that a train of any size
// stays in the first-level cache. A frame that was refused never was: it is
// loaded anew, with its number and a later stamp.
//
// Thread-safety: none.
type train struct {
	msgs  [burst]mmsghdr
	iovs  [burst][2]unix.Iovec
	heads [burst]header
	zeros [MaxLen - MinLen]byte

	sizes    []int
	dst, src byte // kinds of the generated addresses; 0 is broadcast
	reverse  bool
	first    int
	flows    int
	mac      func(int) MAC // announcements: instead of all of the above

	flow, size int    // of the next frame: flow less first, index of sizes
	seq        uint64 // of the next frame
}

func newTrain() *train {
	t := &train{}
	for i := range t.msgs {
		t.heads[i].init()
		t.iovs[i][0] = unix.Iovec{Base: &t.heads[i][0], Len: MinLen}
		t.iovs[i][1] = unix.Iovec{Base: &t.zeros[0]}
		t.msgs[i].hdr.Iov = &t.iovs[i][0]
	}
	return t
}

// stream sets what comes next to the beginning of a stream.
func (t *train) stream(st *Stream) {
	t.mac = nil
	t.sizes, t.first, t.flows, t.reverse = st.Sizes, st.First, st.Flows, st.Reverse
	t.src, t.dst = kindSrc, kindDst
	if st.Reverse {
		t.src, t.dst = kindDst, kindSrc
	}
	switch st.To {
	case Unknown:
		t.dst = kindUnknown
	case Broadcast:
		t.dst = 0
	}
	t.flow, t.size, t.seq = 0, 0, 0
}

var smallest = []int{MinLen}

// announce sets what comes next to the first announcement.
func (t *train) announce(mac func(int) MAC) {
	t.stream(&Stream{Sizes: smallest, Flows: 1})
	t.mac = mac
}

// load makes the next n frames ready to send.
func (t *train) load(n int, now int64) {
	if t.mac != nil {
		for i := range n {
			m := t.mac(int(t.seq) + i)
			t.heads[i].write(MinLen, m, m, false, announcement, uint32(t.seq)+uint32(i), now)
			t.msgs[i].hdr.Iovlen = 1
		}
		return
	}
	flow, size, seq := t.flow, t.size, uint32(t.seq)
	for i := range n {
		number, length := t.first+flow, t.sizes[size]
		dst := broadcast
		if t.dst != 0 {
			dst = macOf(t.dst, number)
		}
		t.heads[i].write(length, dst, macOf(t.src, number), t.reverse, uint32(number), seq, now)
		t.msgs[i].hdr.Iovlen = 1
		if length > MinLen {
			t.iovs[i][1].Len = uint64(length - MinLen)
			t.msgs[i].hdr.Iovlen = 2
		}
		if flow++; flow == t.flows {
			flow = 0
			seq++
		}
		if size++; size == len(t.sizes) {
			size = 0
		}
	}
}

// leave goes on by the first n frames loaded, which have left, and returns their
// bytes.
func (t *train) leave(n int) (bytes uint64) {
	for i := range n {
		bytes += uint64(binary.BigEndian.Uint16(t.heads[i][offIPLen:])) + offIP
	}
	t.flow += n
	t.seq += uint64(t.flow / t.flows)
	t.flow %= t.flows
	t.size = (t.size + n) % len(t.sizes)
	return bytes
}
