package names

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"time"

	"github.com/miekg/dns"
)

// Bounds of asking the host's resolvers.
const (
	// maxTry is the longest wait for one of them: with libc's 5 s, a client has given up
	// before the second was asked.
	maxTry = 2 * time.Second
	// maxWait is the longest wait for all of them together.
	maxWait   = 8 * time.Second
	maxScraps = 64 // datagrams that are not the answer, while one waits for it
)

// ask has the host's resolvers answer q. What it returns fits q's ID and EDNS0.
func (s *Server) ask(q *dns.Msg) *dns.Msg {
	ctx, cancel := context.WithTimeout(s.ctx, maxWait)
	defer cancel()
	conf := s.hosts.load()
	var servers []netip.Addr
	own := *s.asked.Load()
	for _, a := range conf.servers {
		if !own[a.WithZone("")] { // that would be to ask ourselves
			servers = append(servers, a)
		}
	}
	servers = s.hosts.silence.order(servers)
	err := errors.New("there is none but this one")
	var unwilling *dns.Msg
	for i := range conf.attempts * len(servers) {
		server := servers[i%len(servers)]
		var m *dns.Msg
		asked := time.Now()
		m, err = s.askOne(ctx, server, conf.timeout, q)
		s.hosts.silence.note(server, asked, err == nil)
		if err != nil {
			if ctx.Err() != nil {
				break
			}
			continue
		}
		if m.Rcode == dns.RcodeSuccess || m.Rcode == dns.RcodeNameError {
			return fit(m, q)
		}
		unwilling = m
		if i >= len(servers)-1 {
			break // each has had its say
		}
	}
	if unwilling != nil {
		return fit(unwilling, q)
	}
	if s.ctx.Err() == nil && s.bounds.seldom() {
		s.log.Warn("the host's resolvers do not answer", "file", s.hosts.path, "servers", servers, "err", err)
	}
	return failure(q)
}

// fit makes the answer of another message that of q.
func fit(m, q *dns.Msg) *dns.Msg {
	m.Id, m.Question = q.Id, q.Question
	opt := q.IsEdns0()
	theirs := m.IsEdns0()
	extra := m.Extra[:0]
	for _, rr := range m.Extra {
		if rr.Header().Rrtype != dns.TypeOPT {
			extra = append(extra, rr)
		}
	}
	m.Extra = extra
	if opt == nil {
		if m.Rcode > 15 { // takes an OPT record to say
			return failure(q)
		}
		return m
	}
	m.SetEdns0(maxReply, opt.Do())
	if theirs != nil {
		for _, o := range theirs.Option {
			if why, ok := o.(*dns.EDNS0_EDE); ok { // RFC 8914: says why, and is of use to all
				mine := m.IsEdns0()
				mine.Option = append(mine.Option, why)
			}
		}
	}
	return m
}

// askOne asks one resolver by UDP, and by TCP if that is not enough. Each question has a
// random ID and, of a socket of its own, a random port (RFC 5452).
func (s *Server) askOne(ctx context.Context, server netip.Addr, limit time.Duration, q *dns.Msg) (*dns.Msg, error) {
	up := new(dns.Msg)
	up.Id = dns.Id()
	up.RecursionDesired, up.CheckingDisabled, up.AuthenticatedData = q.RecursionDesired, q.CheckingDisabled, q.AuthenticatedData
	up.Question = q.Question
	if opt := q.IsEdns0(); opt != nil {
		up.SetEdns0(maxReply, opt.Do())
	}
	text, err := up.Pack()
	if err != nil {
		return nil, err
	}
	m, err := s.exchange(ctx, "udp", server, limit, text, up)
	if err != nil || !m.Truncated {
		return m, err
	}
	if whole, err := s.exchange(ctx, "tcp", server, limit, text, up); err == nil {
		return whole, nil
	}
	return m, nil // the client sees that it is truncated
}

// exchange sends a question and waits for its answer.
func (s *Server) exchange(ctx context.Context, network string, server netip.Addr, limit time.Duration, text []byte, up *dns.Msg) (*dns.Msg, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	var c net.Conn
	err := s.enter(func() (err error) {
		var d net.Dialer
		c, err = d.DialContext(ctx, network, netip.AddrPortFrom(server, port).String())
		return err
	})
	if err != nil {
		return nil, err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	defer context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })() // ends a wait early when the server is closed

	if network == "tcp" {
		if err := writeTCP(c, text); err != nil {
			return nil, err
		}
		packet, err := readTCP(c, make([]byte, dns.MaxMsgSize))
		if err != nil {
			return nil, fmt.Errorf("read the answer of %s: %w", server, err)
		}
		m := match(packet, up)
		if m == nil {
			return nil, fmt.Errorf("%s answers another question", server)
		}
		return m, nil
	}
	if _, err := c.Write(text); err != nil {
		return nil, err
	}
	buf := make([]byte, maxQuestion)
	for range maxScraps {
		n, err := c.Read(buf)
		if err != nil {
			return nil, err
		}
		if m := match(buf[:n], up); m != nil {
			return m, nil
		}
	}
	return nil, fmt.Errorf("%s sends what is no answer", server)
}

// match reads a packet, and returns nil if it is not the answer to up.
func match(packet []byte, up *dns.Msg) *dns.Msg {
	m := new(dns.Msg)
	if len(packet) < 12 || uint16(packet[0])<<8|uint16(packet[1]) != up.Id {
		return nil
	}
	if err := m.Unpack(packet); err != nil {
		// What is cut off in the middle of a record still says that it was cut off.
		if !m.Truncated || len(m.Question) != 1 {
			return nil
		}
		m.Answer, m.Ns, m.Extra = nil, nil, nil
	}
	if !m.Response || m.Opcode != dns.OpcodeQuery {
		return nil
	}
	if len(m.Question) == 0 && m.Rcode != dns.RcodeSuccess && m.Rcode != dns.RcodeNameError {
		return m // too unwilling to repeat the question
	}
	if len(m.Question) != 1 {
		return nil
	}
	a, b := m.Question[0], up.Question[0]
	if !strings.EqualFold(a.Name, b.Name) || cmp.Or(cmp.Compare(a.Qtype, b.Qtype), cmp.Compare(a.Qclass, b.Qclass)) != 0 {
		return nil
	}
	return m
}
