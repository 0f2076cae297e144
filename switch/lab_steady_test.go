package vswitch_test

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

// labGenerator sends one frame over and over, 64 with one system call.
type labGenerator struct {
	fd       int
	messages [64]struct {
		unix.Msghdr
		n uint32
	}
	iov   unix.Iovec
	frame []byte
}

// newLabGenerator opens a packet socket on eth0 of a container.
func newLabGenerator(t *testing.T, c *lab.Container, frame []byte) *labGenerator {
	t.Helper()
	g := &labGenerator{frame: frame}
	err := c.Do(func() error {
		ifi, err := net.InterfaceByName("eth0")
		if err != nil {
			return err
		}
		// Protocol 0: it receives nothing.
		if g.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0); err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(g.fd) })
		// Past the queueing discipline, as pktgen goes (Linux 3.14).
		if err := unix.SetsockoptInt(g.fd, unix.SOL_PACKET, unix.PACKET_QDISC_BYPASS, 1); err != nil {
			return err
		}
		return unix.Bind(g.fd, &unix.SockaddrLinklayer{Ifindex: ifi.Index})
	})
	if err != nil {
		t.Fatal(err)
	}
	g.iov = unix.Iovec{Base: &frame[0], Len: uint64(len(frame))}
	for i := range g.messages {
		g.messages[i].Iov, g.messages[i].Iovlen = &g.iov, 1
	}
	return g
}

// send sends at least count frames, and returns how many the kernel took.
func (g *labGenerator) send(count uint64) (sent uint64, err error) {
	for sent < count {
		n, _, errno := unix.Syscall6(unix.SYS_SENDMMSG, uintptr(g.fd), uintptr(unsafe.Pointer(&g.messages[0])), uintptr(len(g.messages)), 0, 0, 0)
		switch errno {
		case 0:
			sent += uint64(n)
		case unix.EINTR, unix.ENOBUFS:
		default:
			return sent, fmt.Errorf("sendmmsg: %w", errno)
		}
	}
	runtime.KeepAlive(g)
	return sent, nil
}

// TestLabTenMillionFrames forwards ten million small frames, and wants the
// daemon to be as large afterwards as before:
//
//	generator ── c1 eth0 ── veth-c1 ┐
//	             c2 eth0 ── veth-c2 ┴ br0
//
// Not parallel: it takes all there is of the machine.
func TestLabTenMillionFrames(t *testing.T) {
	// A flight recorder that is full before the daemon is looked at: it takes memory as it
	// fills, as much as it was given and no more.
	n := newLabNet(t, 2, labOptions{daemon: lab.DaemonOptions{Env: []string{"GODEBUG=gctrace=1"}, Args: []string{"--recorder", "524288"}}})
	c1, c2 := n.c[0], n.c[1]
	labSend(t, c2.Conn(), labEther(labBroadcast, c2.MAC, "here I am")) // c1 hears it, c2 nothing
	n.learned(0, c2.MAC, c2.Veth)
	frame := labEther(c2.MAC, c1.MAC, "one of ten million")
	g := newLabGenerator(t, c1, frame)
	forwarded := func() uint64 { return n.port(c2.Veth).TxFrames }

	// Chunks that fit into the receive ring, each carried through before the next:
	// no frame need be lost. The kernels' counters say so; to ask the daemon would
	// make it work.
	n.d.Ctl("set-port", c1.Veth, "n_rxq_desc=65536")
	const chunk, warm, least = 40_000, 500_000, 1_000_000
	goal, limit := uint64(10_000_000), 85*time.Second
	if labRace {
		goal = least
	}
	dropped := func(ns *lab.Namespace, name string) uint64 {
		link, err := ns.Link(name)
		if err != nil {
			t.Fatal(err)
		}
		return link.Attrs().Statistics.TxDropped
	}
	var sent uint64
	push := func(until uint64, deadline time.Time) {
		for sent < until && time.Now().Before(deadline) {
			took, err := g.send(chunk)
			if err != nil {
				t.Fatal(err)
			}
			sent += took
			lab.Eventually(t, 30*time.Second, func() error {
				link, err := c2.Link("eth0")
				if err != nil {
					return err
				}
				arrived := link.Attrs().Statistics.RxPackets
				lost := dropped(c1.Namespace, "eth0") + dropped(n.h.Namespace, c2.Veth)
				if arrived+lost < sent {
					return fmt.Errorf("%d frames arrived and %d were lost on the veth pairs, of %d", arrived, lost, sent)
				}
				return nil
			})
		}
	}
	push(warm, time.Now().Add(limit))
	n.settled()
	pid := n.d.Process().PID()
	collections := func() int { return strings.Count("\n"+n.d.Log.String(), "\ngc ") }
	rss, gcs, first, start := labRSS(t, pid), collections(), forwarded(), time.Now()
	push(sent+goal, start.Add(limit))
	took := time.Since(start)
	n.settled()
	count, growth, runs := forwarded()-first, labRSS(t, pid)-rss, collections()-gcs
	c := n.port(c1.Veth)
	t.Logf("sent %d, forwarded %d frames in %.1f s (%.0f a second), %d missed, %d lost before the switch; resident memory %.1f MiB, grew by %.2f MiB; %d garbage collections",
		sent, count, took.Seconds(), float64(count)/took.Seconds(), c.RxMissed, dropped(c1.Namespace, "eth0"), float64(rss)/(1<<20), float64(growth)/(1<<20), runs)
	if received := c.RxFrames + c.RxMissed; received != sent-dropped(c1.Namespace, "eth0") {
		t.Errorf("%d frames received of %d", received, sent)
	}
	if count < least {
		t.Errorf("%d frames were forwarded, want at least %d", count, least)
	}
	if growth > 2<<20 && !labRace {
		t.Errorf("the daemon grew by %d bytes while it forwarded %d frames", growth, count)
	}
	// The garbage collector runs when a heap of some 4 MiB has grown, and every two
	// minutes: 16 bytes a frame would be forty runs.
	if runs > 3 {
		t.Errorf("%d garbage collections while %d frames were forwarded", runs, count)
	}
	if c := n.bridge("br0").Counters; c.Received != c.Sent+c.Dropped-c.FloodCopies {
		t.Errorf("counters: %+v", c)
	}
}
