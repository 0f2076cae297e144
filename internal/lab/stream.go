package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"

	"golang.org/x/sys/unix"
)

// Stream is one TCP connection between namespaces whose bytes are compared: random
// ones, so that none can be mistaken for another. Thread-safety: for one goroutine,
// except Info.
type Stream struct {
	from, to *net.TCPConn
	sent     *rand.ChaCha8 // what is sent, and what must arrive
	wanted   *rand.ChaCha8
}

// OpenStream connects from a namespace to addr, an address of the namespace to.
// The connection is closed with the lab.
func OpenStream(from, to *Namespace, addr string) (*Stream, error) {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return nil, err
	}
	var listener *net.TCPListener
	if err := to.Do(func() error {
		listener, err = net.ListenTCP("tcp", net.TCPAddrFromAddrPort(netip.AddrPortFrom(ip, 0)))
		return err
	}); err != nil {
		return nil, err
	}
	defer listener.Close()
	s := &Stream{sent: rand.NewChaCha8([32]byte{}), wanted: rand.NewChaCha8([32]byte{})}
	if err := from.Do(func() error {
		dialer := net.Dialer{Timeout: 5 * time.Second}
		c, err := dialer.DialContext(context.Background(), "tcp", listener.Addr().String())
		if err == nil {
			s.from = c.(*net.TCPConn)
		}
		return err
	}); err != nil {
		return nil, err
	}
	from.lab.Cleanup(s.Close)
	listener.SetDeadline(time.Now().Add(5 * time.Second))
	if s.to, err = listener.AcceptTCP(); err != nil {
		return nil, fmt.Errorf("accept: %w", err)
	}
	return s, nil
}

// Send sends size bytes and waits until they have arrived, unchanged and within
// the limit of time.
func (s *Stream) Send(size int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	s.from.SetDeadline(deadline)
	s.to.SetDeadline(deadline)
	wrote := make(chan error, 1)
	go func() { // ends with the bytes, or the deadline
		buf := make([]byte, 64<<10)
		for left := size; left > 0; left -= len(buf) {
			buf = buf[:min(left, len(buf))]
			s.sent.Read(buf)
			if _, err := s.from.Write(buf); err != nil {
				wrote <- err
				return
			}
		}
		wrote <- nil
	}()
	err := s.compare(size)
	if err != nil {
		s.from.SetDeadline(time.Now()) // nobody reads any more
	}
	return errors.Join(err, <-wrote)
}

func (s *Stream) compare(size int) error {
	buf, want := make([]byte, 64<<10), make([]byte, 64<<10)
	for got := 0; got < size; {
		n, err := s.to.Read(buf[:min(size-got, len(buf))])
		s.wanted.Read(want[:n])
		if !bytes.Equal(buf[:n], want[:n]) {
			return fmt.Errorf("the %d bytes after the first %d are not those that were sent", n, got)
		}
		got += n
		if err != nil {
			return fmt.Errorf("after %d of %d bytes: %w", got, size, err)
		}
	}
	return nil
}

// Info returns what the sender's kernel says of the connection: Total_retrans,
// Snd_mss, Pmtu (tcp(7), TCP_INFO).
func (s *Stream) Info() (info *unix.TCPInfo, err error) {
	raw, err := s.from.SyscallConn()
	if err != nil {
		return nil, err
	}
	if ctl := raw.Control(func(fd uintptr) {
		info, err = unix.GetsockoptTCPInfo(int(fd), unix.IPPROTO_TCP, unix.TCP_INFO)
	}); ctl != nil {
		return nil, ctl
	}
	return info, err
}

// Close closes both ends; the lab does it too.
func (s *Stream) Close() {
	s.from.Close()
	if s.to != nil {
		s.to.Close()
	}
}

// Transfer sends size random bytes by TCP from one container to each address of
// another, of the families that both have, and compares what arrives.
func Transfer(from, to *Container, size int) error {
	return each(from, to, func(addr netip.Addr) error {
		s, err := OpenStream(from.Namespace, to.Namespace, addr.String())
		if err == nil {
			defer s.Close()
			err = s.Send(size, 20*time.Second)
		}
		if err != nil {
			return fmt.Errorf("transfer from %s to %s: %w", from.Name, addr, err)
		}
		return nil
	})
}
