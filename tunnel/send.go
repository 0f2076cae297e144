package tunnel

import (
	"hash/maphash"
	"unsafe"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// Bounds of what is sent by one call of sendmmsg.
const (
	maxDatagrams = 256
	// txBytes of payload are enough for one call: their checksums were just made,
	// and the kernel should find them in the cache when it copies them.
	txBytes = 128 << 10
	// maxSegments and maxMessage bound one message with UDP_SEGMENT:
	// UDP_MAX_SEGMENTS, 64 until Linux 6.9, and the longest UDP payload over IPv4.
	maxSegments = 64
	maxMessage  = 65535 - frame.IPv4MinLen - frame.UDPLen
	// headRoom is what a datagram's own bytes take in the arena at most, but for
	// super-frames with longer headers, and for SYNs that are copied whole.
	headRoom = greMax + frame.TagLen + frame.MaxHeaders
	arenaLen = 64 << 10
	// longestCopy is the longest frame that is copied for its MSS to be clamped.
	longestCopy = 16 << 10
)

// sender is what one worker sends with, by whichever port: room for headers, and for
// the messages of one sendmmsg.
//
// Thread-safety: none; it belongs to its worker.
type sender struct {
	v6        bool
	full      int // descriptor of the socket that took no more, -1 before the first
	segmenter frame.Segmenter
	// call is sendmmsg(2) with MSG_DONTWAIT; tests put another in its place.
	call func(fd int, msgs *frame.Mmsghdr, n int) (int, unix.Errno)

	port *Port // that is sent by
	// done of the frames that Send was given have gone out, and part datagrams of
	// the one behind.
	done, part int

	// What is gathered for the next call.
	arena     [arenaLen]byte
	used      int
	bytes     int
	datagrams [maxDatagrams]datagram
	n         int
	iovs      [maxDatagrams][2]unix.Iovec // by datagram: from the arena, from the frame
	messages  [maxDatagrams]message
	nm        int
	msgs      [maxDatagrams]frame.Mmsghdr
	control   [maxDatagrams][sendControl]byte

	// What single sends with.
	ones       [maxSegments]frame.Mmsghdr
	oneControl [sendControl]byte
}

// datagram is one outer packet: one inner frame on the wire.
type datagram struct {
	last bool // of its frame
}

// message is what is one call's unit: one datagram, or several with UDP_SEGMENT, all
// of one length but the last, which may be shorter.
type message struct {
	fd           int
	first, count int // datagrams
	size         int // bytes of each datagram
	bytes        int // of all
	tos, hops    uint8
	closed       bool // the last datagram is a shorter one
}

func newSender(v6 bool) *sender {
	return &sender{v6: v6, full: -1, call: sendmmsg}
}

// sendmmsg is described at sender.call.
func sendmmsg(fd int, msgs *frame.Mmsghdr, n int) (int, unix.Errno) {
	r, _, e := unix.RawSyscall6(unix.SYS_SENDMMSG, uintptr(fd), uintptr(unsafe.Pointer(msgs)), uintptr(n), unix.MSG_DONTWAIT, 0, 0)
	if e != 0 {
		return 0, e
	}
	return int(r), 0
}

// resume remembers of a super-frame how much of it went out when its socket became
// full. The worker keeps the frame, and sends it first when there is room again.
// Should it not, because the frame was dropped in between and its buffer is another
// frame's now, then length and headers tell them apart.
type resume struct {
	frame     *frame.Frame
	length    int
	sum       uint64
	datagrams int
}

var seed = maphash.MakeSeed()

// identity is a hash of the headers of f.
func identity(f *frame.Frame) uint64 {
	b := f.Bytes()
	return maphash.Bytes(seed, b[:min(len(b), 128)])
}

// resumed returns how many datagrams of f, the first frame that is sent now, have
// gone out before.
func (p *Port) resumed(worker int, f *frame.Frame) int {
	r := p.resume[worker]
	if r.frame == nil {
		return 0
	}
	p.resume[worker] = resume{}
	if r.frame != f || r.length != f.Len() || r.sum != identity(f) {
		return 0
	}
	return r.datagrams
}

// SendFD returns the socket that took no more when worker last sent.
func (p *Port) SendFD(worker int) int {
	if fd := (*p.e.senders.Load())[worker].full; fd >= 0 {
		return fd
	}
	return p.fds[0]
}

// Send is described at vswitch.Device. A super-frame of which a part went out when
// its socket became full is told as not sent; when the worker sends it again, what
// is left of it goes out.
func (p *Port) Send(worker int, _ *frame.Vectors, out []frame.Out) (int, unix.Errno) {
	if len(out) == 0 {
		return 0, 0
	}
	if p.flags&greHasSequence != 0 {
		// The one lock on the frame path that is held across a system call: numbers
		// must leave in order, whichever worker sends.
		p.numbering.Lock()
		defer p.numbering.Unlock()
	}
	s := (*p.e.senders.Load())[worker]
	s.port = p
	s.done, s.part = 0, p.resumed(worker, out[0].F)
	errno := s.sendAll(out)
	switch errno {
	case unix.EAGAIN:
		if s.part > 0 {
			f := out[s.done].F
			p.resume[worker] = resume{f, f.Len(), identity(f), s.part}
		}
		p.forgetErrors() // or the wait for room would end at once
	case unix.EMSGSIZE:
		p.forgetErrors()
		p.stats.tooBig.Add(1)
		if p.config.PathChanged != nil {
			p.config.PathChanged()
		}
	}
	return s.done, errno
}

// forgetErrors empties the error queue of a socket that has one (IPV6_RECVERR): what
// it says is known, and while it holds something the socket polls as one with an error.
func (p *Port) forgetErrors() {
	if p.e.config.Kind != GRE || p.config.Remote.Is4() {
		return
	}
	var b [1]byte
	for {
		if _, _, err := unix.Recvfrom(p.fds[0], b[:], unix.MSG_ERRQUEUE|unix.MSG_DONTWAIT); err != nil {
			return
		}
	}
}

// sendAll gathers and sends out. The error is what out[s.done] met.
func (s *sender) sendAll(out []frame.Out) unix.Errno {
	for i := range out {
		o := &out[i]
		var errno unix.Errno
		if o.F.Super() {
			errno = s.super(o, i)
		} else {
			errno = s.single(o)
		}
		if errno != 0 {
			// It is out[i]'s own, unless one before it met another.
			if first := s.flush(); first != 0 {
				return first
			}
			return errno
		}
		if s.bytes >= txBytes {
			if errno := s.flush(); errno != 0 {
				return errno
			}
		}
	}
	return s.flush()
}

// room sees to it that there is room for one more datagram with n bytes in the
// arena, and sends what is gathered if there is not.
func (s *sender) room(n int) unix.Errno {
	if s.n < maxDatagrams && s.used+n <= arenaLen {
		return 0
	}
	return s.flush()
}
