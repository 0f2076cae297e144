package names

import (
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/miekg/dns"
)

// listener answers at one address. The sockets are bound to it, so an answer leaves from where
// the question came to.
//
// Thread-safety: safe for concurrent use.
type listener struct {
	s    *Server
	zone atomic.Pointer[zone]
	udp  *net.UDPConn
	tcp  *net.TCPListener

	mu     sync.Mutex // guards what follows
	conns  map[*net.TCPConn]struct{}
	closed bool
}

// listen opens both sockets at a, or none, and serves them.
func (s *Server) listen(a netip.Addr, z *zone) (*listener, error) {
	l := &listener{s: s, conns: map[*net.TCPConn]struct{}{}}
	l.zone.Store(z)
	at, family := netip.AddrPortFrom(a, port), "6"
	if a.Is4() {
		family = "4"
	}
	err := s.enter(func() (err error) {
		if !a.IsValid() || a.IsUnspecified() || a.IsMulticast() {
			return explain(a, "udp", errors.New("that is not an address of a bridge"))
		}
		if l.udp, err = net.ListenUDP("udp"+family, net.UDPAddrFromAddrPort(at)); err != nil {
			return explain(a, "udp", err)
		}
		if l.tcp, err = net.ListenTCP("tcp"+family, net.TCPAddrFromAddrPort(at)); err != nil {
			l.udp.Close()
			return explain(a, "tcp", err)
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	s.running.Go(l.serveUDP) // ends when the socket is closed
	s.running.Go(l.serveTCP) // ends when the socket is closed
	return l, nil
}

// close ends what is served. What is forwarded still ends by itself, unheard.
func (l *listener) close() {
	l.udp.Close()
	l.tcp.Close()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	for c := range l.conns {
		c.Close()
	}
}

// stumble waits a moment after an error of a socket that is still open, such as for want of
// memory or descriptors, and says whether to go on.
func (l *listener) stumble(what string, err error) bool {
	if errors.Is(err, net.ErrClosed) {
		return false
	}
	if l.s.bounds.seldom() {
		l.s.log.Warn("answer names: "+what, "bridge", l.zone.Load().bridge, "err", err)
	}
	select {
	case <-l.s.ctx.Done():
		return false
	case <-time.After(50 * time.Millisecond):
		return true
	}
}

func (l *listener) serveUDP() {
	buf := make([]byte, maxQuestion)
	for {
		n, peer, err := l.udp.ReadFromUDPAddrPort(buf)
		if err != nil {
			if !l.stumble("read a question", err) {
				return
			}
			continue
		}
		if peer.Port() == 0 {
			continue
		}
		z := l.zone.Load()
		v, m, size := z.judge(buf[:n], l.s.answers(z, peer.Addr()))
		switch v {
		case reply:
			l.reply(m, peer, size)
		case forward:
			if !l.s.begin(z.bridge, peer.Addr()) {
				l.reply(failure(m), peer, size)
				continue
			}
			l.s.running.Go(func() { // ends within maxWait, or with the server
				defer l.s.end(z.bridge, peer.Addr())
				l.reply(l.s.ask(m), peer, size)
			})
		}
	}
}

func (l *listener) reply(m *dns.Msg, peer netip.AddrPort, size int) {
	if text, err := pack(m, true, size); err == nil {
		l.udp.WriteToUDPAddrPort(text, peer) // one that cannot be sent is one that is lost
	}
}

func (l *listener) serveTCP() {
	for {
		c, err := l.tcp.AcceptTCP()
		if err != nil {
			if !l.stumble("accept a connection", err) {
				return
			}
			continue
		}
		peer := c.RemoteAddr().(*net.TCPAddr).AddrPort().Addr()
		b, z := &l.s.bounds, l.zone.Load()
		if !l.s.answers(z, peer) || !b.take(&b.conns, z.bridge, peer, mostConns) {
			c.SetLinger(0) // a reset: there is nothing to wait for
			c.Close()
			continue
		}
		l.mu.Lock()
		if l.closed {
			c.Close()
		}
		l.conns[c] = struct{}{}
		l.mu.Unlock()
		l.s.running.Go(func() { // ends when the peer is done or idle, or the listener is closed
			l.converse(c, peer)
			c.Close()
			l.mu.Lock()
			delete(l.conns, c)
			l.mu.Unlock()
			b.give(&b.conns, z.bridge, peer)
		})
	}
}

// converse answers one question after another (RFC 7766), each with two bytes of length
// before it.
func (l *listener) converse(c *net.TCPConn, peer netip.Addr) {
	buf := make([]byte, maxQuestion)
	for {
		c.SetDeadline(time.Now().Add(idleLimit))
		packet, err := readTCP(c, buf)
		if err != nil {
			return
		}
		z := l.zone.Load()
		v, m, _ := z.judge(packet, l.s.answers(z, peer))
		switch {
		case v == drop:
			return
		case v == forward && l.s.begin(z.bridge, peer):
			m = l.s.ask(m)
			l.s.end(z.bridge, peer)
		case v == forward:
			m = failure(m)
		}
		text, err := pack(m, false, 0)
		if err != nil {
			return
		}
		c.SetDeadline(time.Now().Add(idleLimit))
		if err := writeTCP(c, text); err != nil {
			return
		}
	}
}

// begin counts a question that is to be forwarded, or says that there are too many.
func (s *Server) begin(bridge string, peer netip.Addr) bool {
	b := &s.bounds
	if b.take(&b.forwards, bridge, peer, mostForwards) {
		return true
	}
	if b.seldom() {
		s.log.Warn("too many questions wait for the host's resolvers", "bridge", bridge, "client", peer)
	}
	return false
}

func (s *Server) end(bridge string, peer netip.Addr) { s.bounds.give(&s.bounds.forwards, bridge, peer) }

// failure is the answer that there is none.
func failure(q *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	m.SetRcode(q, dns.RcodeServerFailure)
	m.RecursionAvailable = true
	if opt := q.IsEdns0(); opt != nil {
		m.SetEdns0(maxReply, opt.Do())
	}
	return m
}

// readTCP reads a message into buf, which must have room for it.
func readTCP(c io.Reader, buf []byte) ([]byte, error) {
	var length [2]byte
	if _, err := io.ReadFull(c, length[:]); err != nil {
		return nil, err
	}
	n := int(binary.BigEndian.Uint16(length[:]))
	if n > len(buf) {
		return nil, errors.New("the message is too long")
	}
	_, err := io.ReadFull(c, buf[:n])
	return buf[:n], err
}

// writeTCP writes a message with one call: one segment, where it fits.
func writeTCP(c io.Writer, text []byte) error {
	_, err := c.Write(append(binary.BigEndian.AppendUint16(make([]byte, 0, len(text)+2), uint16(len(text))), text...))
	return err
}
