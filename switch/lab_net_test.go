package vswitch_test

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// labNet is what most lab tests begin with: a host with a daemon, whose bridge
// br0 has n containers.
//
//	c1 eth0 ── veth-c1 ┐
//	c2 eth0 ── veth-c2 ┼ br0 [host a: vswitchd]
//	…          …       ┘
//
// When the test ends, the sums of every bridge must meet.
type labNet struct {
	*lab.Lab
	t *testing.T
	h *lab.Host
	d *lab.Daemon
	c []*lab.Container // c[0] is c1

	client *api.Client
}

// labOptions change what newLabNet makes.
type labOptions struct {
	addresses  bool // c<i> is 10.0.0.<i>/24 and fd00::<i>/64; else containers are silent
	containers []lab.ContainerOption
	daemon     lab.DaemonOptions
}

func newLabNet(t *testing.T, containers int, o labOptions) *labNet {
	t.Helper()
	l := lab.New(t)
	n := &labNet{Lab: l, t: t, h: l.Host("a")}
	for i := 1; i <= containers; i++ {
		options := o.containers[:len(o.containers):len(o.containers)]
		if o.addresses {
			options = append(options, lab.Addr(fmt.Sprintf("10.0.0.%d/24", i)), lab.Addr(fmt.Sprintf("fd00::%x/64", i)))
		}
		n.c = append(n.c, n.h.Container(fmt.Sprintf("c%d", i), options...))
	}
	n.d = n.h.Daemon(o.daemon)
	n.client = n.d.Client()
	t.Cleanup(n.client.Close)
	var document strings.Builder
	document.WriteString("bridges:\n- name: br0\n  ports:\n")
	for _, c := range n.c {
		fmt.Fprintf(&document, "  - name: %s\n", c.Veth)
	}
	if len(n.c) == 0 {
		n.d.Ctl("add-br", "br0")
	} else {
		n.apply(document.String())
	}
	t.Cleanup(func() {
		if !t.Failed() {
			n.settled()
		}
	})
	return n
}

// apply makes a document the configuration, and wants every port of it to be up.
func (n *labNet) apply(document string) {
	n.t.Helper()
	result, err := n.client.ApplyText(context.Background(), []byte(document), api.ApplyOptions{})
	if err != nil {
		n.t.Fatal(err)
	}
	for _, p := range result.Ports {
		n.t.Fatalf("port %s is %s: %s", p.Name, p.State, p.Reason)
	}
}

// bridge returns a bridge's counters.
func (n *labNet) bridge(name string) api.BridgeStats {
	n.t.Helper()
	all, err := n.client.Stats(context.Background(), name, "")
	if err != nil || len(all) != 1 {
		n.t.Fatalf("stats of %s: %+v, %v", name, all, err)
	}
	return all[0]
}

// port returns a port's counters.
func (n *labNet) port(name string) api.PortCounters {
	n.t.Helper()
	all, err := n.client.Stats(context.Background(), "", name)
	if err != nil || len(all) != 1 || len(all[0].Ports) != 1 {
		n.t.Fatalf("stats of %s: %+v, %v", name, all, err)
	}
	return all[0].Ports[0].Counters
}

// drops returns how many frames a port dropped for a reason.
func (n *labNet) drops(port, reason string) uint64 {
	n.t.Helper()
	return n.port(port).Drops[reason]
}

// wantDrop sends something, and waits until a port has dropped exactly count
// frames more for the reason.
func (n *labNet) wantDrop(port, reason string, count uint64, send func()) {
	n.t.Helper()
	before := n.drops(port, reason)
	send()
	lab.Eventually(n.t, 5*time.Second, func() error {
		c := n.port(port)
		if got := c.Drops[reason] - before; got != count {
			return fmt.Errorf("%s dropped %d frames for %s, want %d; its counters: %+v", port, got, reason, count, c)
		}
		return nil
	})
}

// settled waits until no frame is in flight, and wants the sums of every bridge
// to meet exactly, and those of its ports to be the bridge's.
func (n *labNet) settled() map[string]api.BridgeStats {
	n.t.Helper()
	now := map[string]api.BridgeStats{}
	var before map[string]api.BridgeCounters
	lab.Eventually(n.t, 15*time.Second, func() error {
		all, err := n.client.Stats(context.Background(), "", "")
		if err != nil {
			return err
		}
		counters := map[string]api.BridgeCounters{}
		for _, b := range all {
			now[b.Bridge] = b
			c := b.Counters
			if c.Received+c.FloodCopies+c.MirrorCopies+c.SplitCopies != c.Sent+c.Dropped {
				return fmt.Errorf("the sums of %s do not meet: %+v", b.Bridge, c)
			}
			c.Drops = nil
			counters[b.Bridge] = c
		}
		if before == nil || !maps.EqualFunc(before, counters, func(a, b api.BridgeCounters) bool {
			return a.Received == b.Received && a.Sent == b.Sent && a.Dropped == b.Dropped && a.MirrorCopies == b.MirrorCopies
		}) {
			before = counters
			return errors.New("frames are in flight")
		}
		return nil
	})
	return now
}

// labTransfer sends size random bytes over one TCP connection and wants the same
// at the other end.
func labTransfer(from, to *lab.Namespace, addr netip.Addr, size int64) error {
	var listener net.Listener
	err := to.Do(func() (err error) {
		listener, err = net.Listen("tcp", netip.AddrPortFrom(addr, 0).String())
		return err
	})
	if err != nil {
		return err
	}
	defer listener.Close()
	deadline := time.Now().Add(60 * time.Second)
	type result struct {
		sum [sha256.Size]byte
		n   int64
		err error
	}
	got := make(chan result, 1)
	go func() { // ends with the connection, or at the deadline
		listener.(*net.TCPListener).SetDeadline(deadline)
		conn, err := listener.Accept()
		if err != nil {
			got <- result{err: err}
			return
		}
		defer conn.Close()
		conn.SetDeadline(deadline)
		hash := sha256.New()
		r := result{}
		r.n, r.err = io.CopyBuffer(hash, conn, make([]byte, 1<<20))
		hash.Sum(r.sum[:0])
		got <- r
	}()
	hash := sha256.New()
	err = from.Do(func() error {
		conn, err := net.DialTimeout("tcp", listener.Addr().String(), 10*time.Second)
		if err != nil {
			return err
		}
		defer conn.Close()
		conn.SetDeadline(deadline)
		source := io.LimitReader(rand.NewChaCha8([32]byte{byte(size)}), size)
		_, err = io.CopyBuffer(struct{ io.Writer }{conn}, io.TeeReader(source, hash), make([]byte, 1<<20))
		return err
	})
	if err != nil {
		return fmt.Errorf("send %d bytes to %s: %w", size, addr, err)
	}
	r := <-got
	if r.err != nil {
		return fmt.Errorf("receive at %s: %w", addr, r.err)
	}
	if r.n != size || [sha256.Size]byte(hash.Sum(nil)) != r.sum {
		return fmt.Errorf("%s received %d of %d bytes, or not the same ones", addr, r.n, size)
	}
	return nil
}

// labUDPSegments sends count times 40 datagrams of size bytes and a shorter one,
// each time with one UDP_SEGMENT send, and wants each datagram as it was.
func labUDPSegments(from, to *lab.Namespace, addr netip.Addr, size, count int) error {
	var receiver *net.UDPConn
	err := to.Do(func() (err error) {
		if receiver, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(addr, 0))); err != nil {
			return err
		}
		return labSetsockopt(receiver, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20)
	})
	if err != nil {
		return err
	}
	defer receiver.Close()
	var sent [][]byte
	source := rand.NewChaCha8([32]byte{7})
	err = from.Do(func() error {
		sender, err := net.DialUDP("udp", nil, receiver.LocalAddr().(*net.UDPAddr))
		if err != nil {
			return err
		}
		defer sender.Close()
		if err := labSetsockopt(sender, unix.IPPROTO_UDP, unix.UDP_SEGMENT, size); err != nil {
			return err
		}
		for range count {
			data := make([]byte, 40*size+size/3)
			source.Read(data)
			if _, err := sender.Write(data); err != nil {
				return err
			}
			for len(data) > 0 {
				n := min(size, len(data))
				sent = append(sent, data[:n])
				data = data[n:]
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("send with UDP_SEGMENT to %s: %w", addr, err)
	}
	receiver.SetReadDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 65536)
	for i, want := range sent {
		n, err := receiver.Read(buf)
		if err != nil {
			return fmt.Errorf("receive datagram %d of %d at %s: %w", i, len(sent), addr, err)
		}
		if string(buf[:n]) != string(want) {
			return fmt.Errorf("datagram %d at %s has %d bytes, want %d, or not the same ones", i, addr, n, len(want))
		}
	}
	return nil
}

func labSetsockopt(c *net.UDPConn, level, option, value int) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	if control := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, value) }); control != nil {
		return control
	}
	return err
}

// labThreads counts a process's threads.
func labThreads(t *testing.T, pid int) int {
	t.Helper()
	tasks, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		t.Fatal(err)
	}
	return len(tasks)
}

// labRSS returns a process's resident memory in bytes.
func labRSS(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if f := strings.Fields(line); f[0] == "VmRSS:" {
			kb, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			return kb << 10
		}
	}
	t.Fatalf("process %d has no VmRSS", pid)
	return 0
}

// labJSON shows v in a message.
func labJSON(v any) string {
	b, err := json.Marshal(v)
	if err != nil {
		return err.Error()
	}
	return string(b)
}

// status returns what show says of a bridge.
func (n *labNet) status(bridge string) api.BridgeStatus {
	n.t.Helper()
	st, err := n.client.Status(context.Background(), bridge)
	if err != nil || len(st.Bridges) != 1 {
		n.t.Fatalf("status of %s: %+v, %v", bridge, st, err)
	}
	return st.Bridges[0]
}
