package tunnel

import (
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// super gathers the segments of a super-frame, out[i]. The first of a Send may have
// begun to go out before.
func (s *sender) super(o *frame.Out, i int) unix.Errno {
	seg := &s.segmenter
	if s.port.forged(o.F.Bytes()) {
		return unix.EPROTO
	}
	if seg.Start(o.F) != nil {
		return unix.EINVAL
	}
	need := s.port.header + frame.TagLen + seg.HeadersLen()
	if need > arenaLen {
		return unix.EINVAL
	}
	gone := 0
	if i == 0 {
		gone = s.part
	}
	b := o.F.Bytes()
	fd := s.port.socket(b)
	tos, hops := s.port.outer(b)
	for seg.More() {
		if errno := s.room(need); errno != 0 {
			return errno
		}
		at := s.used + s.port.header
		if o.Tag.Present() {
			at += frame.TagLen
		}
		n, payload := seg.NextHeader(s.arena[at:])
		if gone > 0 {
			gone--
			continue
		}
		s.datagram(fd, o.Tag, n, payload, tos, hops, !seg.More())
	}
	return 0
}

// single gathers a frame that is one datagram.
func (s *sender) single(o *frame.Out) unix.Errno {
	p := s.port
	b := o.F.Bytes()
	if p.forged(b) {
		return unix.EPROTO
	}
	mtu := p.clampTo()
	clamp := mtu > 0 && len(b) <= longestCopy && maySYN(b)
	need := headRoom
	if clamp {
		need += len(b)
	}
	if errno := s.room(need); errno != 0 {
		return errno
	}
	at := s.used + p.header
	if o.Tag.Present() {
		at += frame.TagLen
	}
	var n int
	var rest []byte
	if clamp {
		// In a copy, as other outputs may share the frame.
		n = copy(s.arena[at:], b)
		whole := s.arena[at : at+n]
		mtu -= tagsLen(b)
		if o.Tag.Present() {
			mtu -= frame.TagLen
		}
		frame.ClampMSS(whole, mtu, o.F.Flags&frame.NeedsCsum != 0)
		if frame.Finish(whole, &o.F.Offload) != nil {
			return unix.EINVAL
		}
	} else {
		var err error
		if n, rest, err = o.F.Headers(s.arena[at : at+frame.MaxHeaders]); err != nil {
			return unix.EINVAL
		}
		if n == 0 && o.Tag.Present() {
			n = copy(s.arena[at:], b[:frame.AddrLen])
			rest = b[frame.AddrLen:]
		}
	}
	tos, hops := p.outer(b)
	s.datagram(p.socket(b), o.Tag, n, rest, tos, hops, true)
	return 0
}

// forged tells whether the inner frame b is one that the far end would take for the
// port's own BFD, whether this one has it on or not: somebody behind the switch wants to
// speak for it.
func (p *Port) forged(b []byte) bool { return isBFD(b) }

// socket returns the socket that the flow of the inner frame b leaves by.
func (p *Port) socket(b []byte) int {
	if len(p.fds) == 1 {
		return p.fds[0]
	}
	return p.fds[frame.FlowHash(b)&(sourcePorts-1)]
}

// datagram gathers one datagram: the tunnel header, tag, the n bytes of inner frame
// that stand in the arena where there is room for both before them, and rest.
func (s *sender) datagram(fd int, tag frame.Tag, n int, rest []byte, tos, hops uint8, last bool) {
	p := s.port
	head := s.arena[s.used:]
	length := p.header + n
	p.putHeader(head)
	if tag.Present() {
		length += frame.TagLen
		tag.Insert(head[p.header:length])
	}
	head = head[:length]
	p.sum(head, rest)
	s.used += (length + 7) &^ 7

	iov := &s.iovs[s.n]
	iov[0].Base = &head[0]
	iov[0].SetLen(length)
	iov[1] = unix.Iovec{}
	if len(rest) > 0 {
		iov[1].Base = &rest[0]
		iov[1].SetLen(len(rest))
	}
	s.datagrams[s.n].last = last
	s.n++

	length += len(rest)
	s.bytes += length
	if s.nm > 0 && !p.plain && !p.gsoless.Load() {
		m := &s.messages[s.nm-1]
		if m.fd == fd && m.tos == tos && m.hops == hops && !m.closed &&
			length <= m.size && m.count < maxSegments && m.bytes+length <= maxMessage {
			m.count++
			m.bytes += length
			m.closed = length < m.size
			return
		}
	}
	s.messages[s.nm] = message{fd: fd, first: s.n - 1, count: 1, size: length, bytes: length, tos: tos, hops: hops}
	s.nm++
}

// describe makes m what sendmmsg is given.
func (s *sender) describe(i int) {
	m := &s.messages[i]
	h := &s.msgs[i].Hdr
	s.address(h)
	h.Iov = &s.iovs[m.first][0]
	h.SetIovlen(2 * m.count)
	segment := 0
	if m.count > 1 {
		segment = m.size
	}
	h.Control = &s.control[i][0]
	h.SetControllen(putControl(&s.control[i], s.v6, m.tos, m.hops, segment))
}

// address makes a message one to the port's remote.
func (s *sender) address(h *unix.Msghdr) {
	h.Name = s.port.nameBytes()
	h.Namelen = s.port.nameLen
}

// flush sends what is gathered, in order, and forgets it. When not all went out the
// error is what the first that did not met, and the frame it is of is the one behind
// s.done.
func (s *sender) flush() unix.Errno {
	for i := range s.messages[:s.nm] {
		s.describe(i)
	}
	var errno unix.Errno
	sent := 0 // datagrams
	for at := 0; at < s.nm && errno == 0; {
		fd := s.messages[at].fd
		end := at + 1
		for end < s.nm && s.messages[end].fd == fd {
			end++
		}
		var n int
		n, errno = s.run(fd, s.msgs[at:end])
		for i := range s.messages[at : at+n] {
			sent += s.messages[at+i].count
		}
		at += n
		if errno != 0 && s.messages[at].count > 1 && s.splits(errno) {
			n, errno = s.split(&s.messages[at], errno)
			sent += n
			at++
		}
		if errno == unix.EAGAIN {
			s.full = fd
		}
	}
	for i := range s.datagrams[:sent] {
		s.part++
		if s.datagrams[i].last {
			s.done++
			s.part = 0
		}
	}
	s.n, s.nm, s.used, s.bytes = 0, 0, 0, 0
	return errno
}

// run sends messages by one socket until one fails, and returns how many went out.
// The kernel keeps an error to itself when messages before it went out, and tells of
// one that waited in the socket (SO_ERROR: an ICMP message about another port) to
// whoever calls next: so what fails is tried once more.
func (s *sender) run(fd int, msgs []frame.Mmsghdr) (int, unix.Errno) {
	sent, again := 0, -1
	for sent < len(msgs) {
		n, e := s.call(fd, &msgs[sent], len(msgs)-sent)
		switch {
		case e == 0:
			sent += n
		case e == unix.EINTR:
		case e != unix.EAGAIN && e != unix.ENOBUFS && again != sent:
			again = sent
		default:
			return sent, e
		}
	}
	return sent, 0
}

// splits tells whether a message with UDP_SEGMENT that met errno is tried once more
// as datagrams of their own:
//
//   - EIO: the interface has no checksum offload, or IPsec is in the way.
//   - EINVAL: a kernel before 4.18 has no UDP_SEGMENT; one before 6.14 says so of a
//     segment that is longer than the path's MTU, which the datagrams tell.
//   - EMSGSIZE, where routers may fragment: the kernel fragments datagrams, and does
//     not fragment segments (udp_send_skb).
func (s *sender) splits(errno unix.Errno) bool {
	switch errno {
	case unix.EIO, unix.EINVAL:
		return true
	case unix.EMSGSIZE:
		return !s.port.config.DF
	}
	return false
}

// split sends the datagrams of m one by one, and returns how many went out, and what
// the next one met. If they do where the segments did not, the port is left at that.
func (s *sender) split(m *message, why unix.Errno) (int, unix.Errno) {
	controlLen := putControl(&s.oneControl, s.v6, m.tos, m.hops, 0)
	for i := range m.count {
		h := &s.ones[i].Hdr
		s.address(h)
		h.Iov = &s.iovs[m.first+i][0]
		h.SetIovlen(2)
		h.Control = &s.oneControl[0]
		h.SetControllen(controlLen)
	}
	n, errno := s.run(m.fd, s.ones[:m.count])
	// Where routers may fragment EINVAL may be of the MTU, too.
	if n > 0 && why != unix.EMSGSIZE && (why != unix.EINVAL || s.port.config.DF) && s.port.gsoless.CompareAndSwap(false, true) {
		s.port.e.gsoRefused.Add(1)
	}
	return n, errno
}
