package frame

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestTooBigAgainstKernel has Linux's TCP send a megabyte over a path whose middle
// takes less than its ends, and says so by TooBig only:
//
//	namespace of the test's thread                      another one
//	+------------------------------------------+       +------------+
//	|  c0 ══veth══ m0  <- AF_PACKET ->  m1 ════╪═veth══╪═ s0        |
//	|  10.0.0.1        1300 and no more        |       | 10.0.0.2   |
//	|  fd00::1         at most 1300 bytes      |       | fd00::2    |
//	+------------------------------------------+       +------------+
//	         1500                                  1500
func TestTooBigAgainstKernel(t *testing.T) {
	const mtu, total = 1300, 1 << 20
	ownNamespace(t)
	other := newNamespace(t)
	run(t, fmt.Sprintf(`
ip link add name c0 type veth peer name m0
ip link add name m1 type veth peer name s0 netns %s
ip address add 10.0.0.1/24 dev c0
ip address add fd00::1/64 dev c0 nodad
ip link set m0 up
ip link set m1 up
ip link set c0 up
`, other.path))
	other.do(func() {
		run(t, `
ip address add 10.0.0.2/24 dev s0
ip address add fd00::2/64 dev s0 nodad
ip link set s0 up
`)
	})
	m0, m1 := openPacket(t, "m0", unix.ETH_P_ALL), openPacket(t, "m1", unix.ETH_P_ALL)
	pool := testPool(t, 4)
	var answers atomic.Int64
	var done atomic.Bool
	var wg sync.WaitGroup
	for _, way := range [][2]int{{m0, m1}, {m1, m0}} {
		if err := unix.SetsockoptTimeval(way[0], unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
			t.Fatal(err)
		}
		f, dst := pool.Get(), pool.Get()
		wg.Go(func() { // ends when done is set
			for !done.Load() {
				narrow(t, way[0], way[1], f, dst, mtu, &answers)
			}
		})
	}
	defer func() { done.Store(true); wg.Wait() }()

	for _, tt := range []struct {
		network, address    string
		level, option, want int
	}{
		{"tcp4", "10.0.0.2:0", unix.IPPROTO_IP, unix.IP_MTU, mtu},
		{"tcp6", "[fd00::2]:0", unix.IPPROTO_IPV6, unix.IPV6_MTU, mtu},
	} {
		answers.Store(0)
		var l net.Listener
		var err error
		other.do(func() { l, err = net.Listen(tt.network, tt.address) })
		if err != nil {
			t.Fatal(err)
		}
		got := make(chan []byte, 1)
		go func() { // ends with the connection, or l
			defer close(got)
			c, err := l.Accept()
			if err != nil {
				return
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(20 * time.Second))
			b, _ := io.ReadAll(c)
			got <- b
		}()
		c, err := net.DialTimeout(tt.network, l.Addr().String(), 10*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		sent := bytes.Repeat([]byte("vswitch."), total/8)
		c.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := c.Write(sent); err != nil {
			t.Fatal(err)
		}
		tcp := c.(*net.TCPConn)
		tcp.CloseWrite()
		if b := <-got; !bytes.Equal(b, sent) {
			t.Fatalf("%s: %d bytes arrived, or others, want %d", tt.network, len(b), len(sent))
		}
		raw, err := tcp.SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var path int
		if e := raw.Control(func(fd uintptr) { path, err = unix.GetsockoptInt(int(fd), tt.level, tt.option) }); e != nil || err != nil {
			t.Fatal(e, err)
		}
		if path != tt.want || answers.Load() == 0 {
			t.Errorf("%s: the sender takes the path's MTU for %d, want %d; answers: %d", tt.network, path, tt.want, answers.Load())
		}
		c.Close()
		l.Close()
	}
}

// narrow passes one frame on from a socket to another, or answers it.
func narrow(t *testing.T, from, to int, f, dst *Frame, mtu int, answers *atomic.Int64) {
	f.Reset(0)
	n, err := unix.Read(from, f.Room(VnetLen))
	if err != nil || n < VnetLen+EthLen {
		return
	}
	f.Reset(n - VnetLen)
	f.GetVnet(f.Before(VnetLen))
	if err := f.Check(); err != nil {
		t.Errorf("frame from a veth: %v", err)
		return
	}
	if f.SegmentLen()-EthLen > mtu {
		if !TooBig(dst, f, mtu) {
			return
		}
		answers.Add(1)
		f, to = dst, from
	}
	v := f.Before(VnetLen)
	f.PutVnet(v, 0)
	b := v[: VnetLen+f.Len() : VnetLen+f.Len()]
	if _, err := unix.Write(to, b); err != nil && err != unix.ENOBUFS {
		t.Errorf("send %d bytes: %v", len(b), err)
	}
}

// A namespace is a second network namespace, with a thread that lives in it.
type namespace struct {
	path  string
	calls chan func()
}

func newNamespace(t *testing.T) *namespace {
	t.Helper()
	n := &namespace{calls: make(chan func())}
	ready := make(chan error)
	go func() { // ends when calls is closed; its thread is not used again
		runtime.LockOSThread()
		err := unix.Unshare(unix.CLONE_NEWNET)
		n.path = fmt.Sprintf("/proc/%d/task/%d/ns/net", unix.Getpid(), unix.Gettid())
		ready <- err
		for f := range n.calls {
			f()
		}
	}()
	t.Cleanup(func() { close(n.calls) })
	if err := <-ready; err != nil {
		t.Fatalf("unshare network namespace: %v", err)
	}
	return n
}

// do calls f on the namespace's thread, and waits for it.
func (n *namespace) do(f func()) {
	done := make(chan struct{})
	n.calls <- func() { defer close(done); f() }
	<-done
}

// run runs commands, one a line, in the calling thread's namespace.
func run(t *testing.T, lines string) {
	t.Helper()
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		args := strings.Fields(line)
		if msg, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", line, err, msg)
		}
	}
}
