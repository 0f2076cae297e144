package loadgen

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// How long nothing may come before Stop believes that nothing will: while frames
// are missing, longer than a switch holds a frame; once all have come, long enough
// for duplicates. The kernel keeps a block for retireMillis.
const (
	quietMissing = 120 * time.Millisecond
	quietWhole   = 2 * retireMillis * time.Millisecond
	settleMost   = 5 * time.Second // someone may still be sending
)

// Receiver counts the stamped frames that reach one interface, from Start to Stop.
// In between it costs nothing. Thread-safety: Start, Stop and Close from one
// goroutine at a time; Arrived from any. Many Receivers may run at once.
type Receiver struct {
	name string
	file *os.File
	raw  syscall.RawConn
	ring *ring

	session  *session
	arrived  atomic.Uint64 // of the session, as of the last block
	distinct atomic.Uint64
	done     chan error // nil while stopped; the reader's last word
}

// OpenReceiver opens a receiver on an interface of the calling thread's network
// namespace, for streams whose flows are below flows. It needs CAP_NET_RAW, and
// takes 8 MiB of memory for its ring and 16 bytes or more a flow.
func OpenReceiver(ifname string, flows int) (*Receiver, error) {
	if flows < 1 || flows > MaxFlows {
		return nil, fmt.Errorf("open receiver on %s: flows %d is not between 1 and %d", ifname, flows, MaxFlows)
	}
	ifi, err := net.InterfaceByName(ifname)
	if err != nil {
		return nil, fmt.Errorf("open receiver on %s: %w", ifname, err)
	}
	// Protocol 0: nothing is received before bind says from where.
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("open receiver on %s: packet socket: %w", ifname, err)
	}
	r := &Receiver{name: ifname, session: newSession(flows), file: os.NewFile(uintptr(fd), "receiver:"+ifname)}
	if err := r.prepare(fd, ifi.Index); err != nil {
		r.Close()
		return nil, fmt.Errorf("open receiver on %s: %w", ifname, err)
	}
	return r, nil
}

func (r *Receiver) prepare(fd, ifindex int) (err error) {
	if r.raw, err = r.file.SyscallConn(); err != nil {
		return err
	}
	if r.ring, err = newRing(fd); err != nil {
		return err
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1); err != nil {
		return fmt.Errorf("ignore outgoing frames: %w", err)
	}
	mreq := unix.PacketMreq{Ifindex: int32(ifindex), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
		return fmt.Errorf("promiscuous membership: %w", err)
	}
	if err := filter(fd, 0); err != nil {
		return err
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	if err := unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex}); err != nil {
		return fmt.Errorf("bind: %w", err)
	}
	return nil
}

// Close ends the receiver, and its session if one runs.
func (r *Receiver) Close() error {
	var err error
	if r.done != nil {
		err = r.halt()
	}
	if r.ring != nil {
		err = errors.Join(err, r.ring.close())
		r.ring = nil
	}
	return errors.Join(err, r.file.Close())
}

// Start begins a session. Frames that were sent before it are none of it.
func (r *Receiver) Start() error {
	if r.done != nil {
		return fmt.Errorf("start receiver on %s: it runs", r.name)
	}
	for block := r.ring.take(); block != nil; block = r.ring.take() {
		r.ring.give(block) // left by the last session
	}
	if _, err := r.unread(); err != nil {
		return fmt.Errorf("start receiver on %s: %w", r.name, err)
	}
	r.failure() // an earlier one is not this session's
	r.session.reset(Now())
	r.arrived.Store(0)
	r.distinct.Store(0)
	r.file.SetReadDeadline(time.Time{})
	if err := r.filter(snapLen); err != nil {
		return fmt.Errorf("start receiver on %s: %w", r.name, err)
	}
	r.done = make(chan error, 1)
	go r.read(r.done) // ended by halt
	return nil
}

// Arrived returns how many stamped frames have come in this session, as of the
// last block read: up to 20 ms ago.
func (r *Receiver) Arrived() uint64 { return r.arrived.Load() }

// Stop ends a session and counts it against what was sent to this receiver: by
// streams whose flows do not overlap, begun after Start. It waits until nothing
// has come for 40 ms, or for 120 ms where frames are missing, and no more than 5 s.
func (r *Receiver) Stop(sent ...Sent) (Counts, error) {
	if r.done == nil {
		return Counts{}, fmt.Errorf("stop receiver on %s: it does not run", r.name)
	}
	var expected uint64
	for _, s := range sent {
		expected += s.Frames
	}
	r.settle(expected)
	err := r.halt()
	unread, statsErr := r.unread()
	if err = errors.Join(err, statsErr, r.failure()); err != nil {
		err = fmt.Errorf("receive on %s: %w", r.name, err)
	}
	return r.session.result(unread, sent), err
}

// Stop stops many receivers that were sent the same, as after a flood, at once.
func Stop(receivers []*Receiver, sent ...Sent) ([]Counts, error) {
	counts, errs := make([]Counts, len(receivers)), make([]error, len(receivers))
	var wg sync.WaitGroup
	for i, r := range receivers {
		wg.Go(func() { counts[i], errs[i] = r.Stop(sent...) })
	}
	wg.Wait()
	return counts, errors.Join(errs...)
}

// settle waits until nothing more comes of so many frames.
func (r *Receiver) settle(expected uint64) {
	ticker := time.NewTicker(2 * time.Millisecond)
	defer ticker.Stop()
	began := time.Now()
	last, since := r.arrived.Load(), began
	for range ticker.C {
		quiet := quietMissing
		if r.distinct.Load() >= expected {
			quiet = quietWhole
		}
		if now := r.arrived.Load(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) >= quiet || time.Since(began) >= settleMost {
			return
		}
	}
}

// halt stops the reader and returns its error.
func (r *Receiver) halt() error {
	err := r.filter(0)
	r.file.SetReadDeadline(time.Unix(1, 0)) // wakes it
	err = errors.Join(<-r.done, err)
	r.done = nil
	return err
}

// read is the session's reader.
func (r *Receiver) read(done chan<- error) {
	err := r.raw.Read(func(uintptr) bool {
		r.drain()
		return false // wait for more
	})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = nil
		r.drain()
	}
	done <- err
}

// drain counts the blocks that are full.
func (r *Receiver) drain() {
	r.session.ahead = wallAhead()
	for block := r.ring.take(); block != nil; block = r.ring.take() {
		r.session.block(block)
		r.ring.give(block)
	}
	r.arrived.Store(r.session.counts.Arrived)
	r.distinct.Store(r.session.counts.Distinct)
}

func (r *Receiver) filter(keep uint32) (err error) {
	if ctl := r.raw.Control(func(fd uintptr) { err = filter(int(fd), keep) }); ctl != nil {
		return ctl
	}
	return err
}

// unread returns how many frames found no room in the ring since the last call.
func (r *Receiver) unread() (n uint64, err error) {
	if ctl := r.raw.Control(func(fd uintptr) {
		var stats *unix.TpacketStatsV3
		if stats, err = unix.GetsockoptTpacketStatsV3(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			n = uint64(stats.Drops)
		}
	}); ctl != nil {
		return 0, ctl
	}
	if err != nil {
		return 0, fmt.Errorf("statistics: %w", err)
	}
	return n, nil
}

// failure returns what happened to the interface since the last call: it went down,
// or away.
func (r *Receiver) failure() (err error) {
	var code int
	if ctl := r.raw.Control(func(fd uintptr) {
		code, err = unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	}); ctl != nil {
		return ctl
	}
	if err == nil && code != 0 {
		err = unix.Errno(code)
	}
	return err
}
