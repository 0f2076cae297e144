package mesh_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"vswitch/internal/lab"
)

// stream is numbered UDP datagrams from one container to another, one every so
// often until stop: whether any is lost or comes twice.
type stream struct {
	name     string
	from, to *net.UDPConn
	quit     chan struct{}
	done     sync.WaitGroup

	sent    atomic.Uint64
	heard   atomic.Int64 // when one came last, in nanoseconds since start
	started time.Time
	seen    []uint8 // how often each number came; the receiver's until done
}

// maxStream bounds a stream, in datagrams.
const maxStream = 1 << 17

// startStream begins to send. The containers know each other's MAC from then on.
func (n *labMesh) startStream(from, to *lab.Container, every time.Duration) *stream {
	n.t.Helper()
	know(from, to)
	s := &stream{name: from.Name + " to " + to.Name, quit: make(chan struct{}), seen: make([]uint8, maxStream), started: time.Now()}
	err := to.Do(func() (err error) {
		s.to, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(to.IPs[0], 0)))
		if err == nil {
			err = force(s.to, unix.SO_RCVBUFFORCE)
		}
		return err
	})
	if err == nil {
		err = from.Do(func() (err error) {
			s.from, err = net.DialUDP("udp", nil, s.to.LocalAddr().(*net.UDPAddr))
			return err
		})
	}
	if err != nil {
		n.t.Fatal(err)
	}
	n.Cleanup(func() { s.from.Close(); s.to.Close() })
	s.done.Go(func() { // ends with stop, or the lab
		tick := time.NewTicker(every)
		defer tick.Stop()
		buf := make([]byte, 200)
		for {
			select {
			case <-s.quit:
				return
			case <-tick.C:
			}
			number := s.sent.Load()
			if number == maxStream {
				return
			}
			binary.BigEndian.PutUint64(buf, number)
			if _, err := s.from.Write(buf); errors.Is(err, net.ErrClosed) {
				return
			} else if err == nil { // else: the other end's ICMP; this one was not sent
				s.sent.Add(1)
			}
		}
	})
	s.done.Go(func() { // ends a moment after stop, or with the lab
		buf := make([]byte, 2000)
		for {
			size, err := s.to.Read(buf)
			if err != nil {
				return
			}
			if size == 200 {
				s.heard.Store(int64(time.Since(s.started)))
				s.seen[binary.BigEndian.Uint64(buf)]++
			}
		}
	})
	lab.Eventually(n.t, patient, func() error {
		if s.heard.Load() == 0 {
			return fmt.Errorf("nothing comes from %s", s.name)
		}
		return nil
	})
	return s
}

func force(c *net.UDPConn, option int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	if err := raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, option, 8<<20) }); err != nil {
		return err
	}
	return set
}

// hears waits until a datagram comes that was received after the time since, and
// says when it was.
func (s *stream) hears(t *testing.T, since time.Time) time.Time {
	t.Helper()
	var at time.Time
	lab.Eventually(t, patient, func() error {
		if at = s.started.Add(time.Duration(s.heard.Load())); !at.After(since) {
			return fmt.Errorf("nothing comes any more from %s", s.name)
		}
		return nil
	})
	return at
}

// end ends the stream, whatever was lost.
func (s *stream) end() {
	close(s.quit)
	s.to.SetReadDeadline(time.Now().Add(300 * time.Millisecond))
	s.done.Wait()
}

// stop ends the stream and wants every datagram to have come once.
func (s *stream) stop(t *testing.T) {
	t.Helper()
	s.end()
	var lost, doubled []int
	sent := int(s.sent.Load())
	for i, times := range s.seen[:sent] {
		switch {
		case times == 0:
			lost = append(lost, i)
		case times > 1:
			doubled = append(doubled, i)
		}
	}
	if len(lost) > 0 || len(doubled) > 0 {
		t.Errorf("%s: of %d datagrams %d are lost, %d came twice (%v, %v)", s.name, sent, len(lost), len(doubled), few(lost), few(doubled))
	}
	t.Logf("%s: %d datagrams", s.name, sent)
}

func few(all []int) []int { return all[:min(len(all), 20)] }

// bytes of TCP that are compared, one transfer after the other, until stop.
type transfers struct {
	quit  chan struct{}
	err   chan error
	total int
}

// startTransfers keeps one connection busy.
func (n *labMesh) startTransfers(from, to *lab.Container) *transfers {
	n.t.Helper()
	s, err := lab.OpenStream(from.Namespace, to.Namespace, to.IP())
	if err != nil {
		n.t.Fatal(err)
	}
	x := &transfers{quit: make(chan struct{}), err: make(chan error, 1)}
	go func() { // ends with stop, or with the connection, which the lab closes
		for {
			select {
			case <-x.quit:
				x.err <- nil
				return
			default:
			}
			const part = 256 << 10
			if err := s.Send(part, 10*time.Second); err != nil {
				x.err <- err
				return
			}
			x.total += part
		}
	}()
	return x
}

func (x *transfers) stop(t *testing.T) {
	t.Helper()
	close(x.quit)
	if err := <-x.err; err != nil {
		t.Errorf("TCP: %v", err)
	}
	t.Logf("TCP: %d KiB", x.total>>10)
}

var broadcast = net.HardwareAddr{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}

// etherTest is an EtherType for experiments (IEEE 802, local experimental 1).
const etherTest = 0x88b5

// ether makes a frame of the tests' own EtherType.
func ether(dst, src net.HardwareAddr, text string) []byte {
	b := append(bytes.Clone(dst), src...)
	b = binary.BigEndian.AppendUint16(b, etherTest)
	b = append(b, text...)
	return append(b, make([]byte, max(60-len(b), 0))...)
}

// isEther reports whether it is such a frame.
func isEther(frame []byte) bool {
	return len(frame) >= 14 && binary.BigEndian.Uint16(frame[12:]) == etherTest
}

// announce makes the ARP announcement of a container (RFC 5227, 3).
func announce(c *lab.Container) []byte {
	ip := c.IPs[0].AsSlice()
	b := append(bytes.Clone(broadcast), c.MAC...)
	b = append(b, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	b = append(append(b, c.MAC...), ip...)
	b = append(append(b, 0, 0, 0, 0, 0, 0), ip...)
	return append(b, make([]byte, 18)...)
}

// collect counts the tests' frames that come to a socket, by their text, until none
// has come for a while.
func collect(c *lab.Conn, quiet time.Duration) (map[string]int, error) {
	texts := map[string]int{}
	for {
		frame, err := c.Recv(quiet)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return texts, nil
		}
		if err != nil {
			return nil, err
		}
		if isEther(frame) {
			texts[string(bytes.TrimRight(frame[14:], "\x00"))]++
		}
	}
}
