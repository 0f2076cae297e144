package filter

import (
	"errors"
	"math/rand/v2"
	"strings"
	"testing"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// TestAgainstKernel attaches programs to a unix datagram socket, sends frames to it,
// and looks which of them come through:
//
//	sender ── frame as a datagram ──▶ SO_ATTACH_FILTER ──▶ receiver
func TestAgainstKernel(t *testing.T) {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])

	r := rand.New(rand.NewPCG(9, 7))
	frames := samples(r, 60)
	buf := make([]byte, 4096)
	compared := 0
	for _, expr := range (grammar{r}).some(300) {
		p, err := Compile(expr)
		if err != nil {
			continue
		}
		if err := attach(pair[1], p.KernelInstructions()); err != nil {
			t.Errorf("the kernel refuses %q: %v\n%s", expr, err, p.Disassembly())
			continue
		}
		// Where an offset or a shift is calculated, the kernel wraps what we refuse.
		if strings.Contains(p.Disassembly(), "tax") {
			continue
		}
		compared++
		for _, s := range frames {
			if err := unix.Send(pair[0], s.bytes(), 0); err != nil {
				t.Fatal(err)
			}
			_, _, err := unix.Recvfrom(pair[1], buf, 0)
			if err != nil && !errors.Is(err, unix.EAGAIN) {
				t.Fatal(err)
			}
			if got := p.Match(s.bytes(), frame.Tag{}, s.cut); got != (err == nil) {
				t.Errorf("%q: %v, the kernel says %v to %x\n%s", expr, got, err == nil, s.bytes(), p.Disassembly())
				break
			}
		}
	}
	t.Logf("%d expressions compared", compared)
}

func attach(fd int, code []bpf.RawInstruction) error {
	list := make([]unix.SockFilter, len(code))
	for i, in := range code {
		list[i] = unix.SockFilter{Code: in.Op, Jt: in.Jt, Jf: in.Jf, K: in.K}
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
		&unix.SockFprog{Len: uint16(len(list)), Filter: unsafe.SliceData(list)})
}
