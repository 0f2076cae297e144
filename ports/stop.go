package ports

import (
	"errors"
	"fmt"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Stop keeps an interface's incoming frames away from the host's network stack
// while AF_PACKET still gets its copy: a two-instruction eBPF program at tc
// ingress, which runs after packet taps, drops them all. Without it the host
// would answer ARP for any of its addresses, route, and do the work of every
// frame a second time.
//
// On Linux 6.6 and later it is a TCX link, which the kernel takes away when the
// process goes, however it goes. Before that it is a filter on a clsact qdisc,
// named after the instance, which RemoveStops finds after a crash.
//
// Thread-safety: Close once.
type Stop struct {
	tcx     link.Link
	index   int
	filter  *netlink.BpfFilter
	ownDisc bool // the clsact qdisc is of our making
}

// StopKind chooses how stops are made.
type StopKind string

// The kinds. StopAuto is TCX where the kernel has it, clsact where not.
const (
	StopAuto   StopKind = ""
	StopTCX    StopKind = "tcx"
	StopClsact StopKind = "clsact"
)

// Stopper makes Stops; they share one loaded program.
//
// Thread-safety: safe for concurrent use.
type Stopper struct {
	instance string
	kind     StopKind

	mu   sync.Mutex
	prog *ebpf.Program // loaded on first use
}

// NewStopper returns a maker of Stops for the switch with this instance identity.
func NewStopper(instance string, kind StopKind) *Stopper {
	return &Stopper{instance: instance, kind: kind}
}

// filterName marks the clsact filters of an instance.
func filterName(instance string) string { return "vswitch-" + instance }

// filterPriority is high (early), and unlikely to be anybody else's.
const filterPriority = 7

func (s *Stopper) program() (*ebpf.Program, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prog != nil {
		return s.prog, nil
	}
	// Kernels before 5.11 charge programs to RLIMIT_MEMLOCK. Where it cannot be
	// lifted the program, which is tiny, may be loaded all the same.
	_ = rlimit.RemoveMemlock()
	const tcActShot = 2 // TC_ACT_SHOT, and TCX_DROP
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name: "vswitch_stop", Type: ebpf.SchedCLS, License: "Apache-2.0",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, tcActShot), asm.Return()},
	})
	if err != nil {
		return nil, fmt.Errorf("load the tc program: %w%s", err, needsBPF(err))
	}
	s.prog = p
	return p, nil
}

func needsBPF(err error) string {
	if errors.Is(err, unix.EPERM) {
		return " (need CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN)"
	}
	return ""
}

// Close unloads the program. Stops that are in place stay.
func (s *Stopper) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.prog == nil {
		return nil
	}
	err := s.prog.Close()
	s.prog = nil
	return err
}

// Stop puts a stop on interface ifindex.
func (s *Stopper) Stop(ifindex int) (*Stop, error) {
	prog, err := s.program()
	if err != nil {
		return nil, err
	}
	if s.kind != StopClsact {
		l, err := link.AttachTCX(link.TCXOptions{
			Interface: ifindex, Program: prog, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
		})
		if err == nil {
			return &Stop{tcx: l}, nil
		}
		if s.kind == StopTCX || !errors.Is(err, ebpf.ErrNotSupported) && !errors.Is(err, unix.EINVAL) {
			return nil, fmt.Errorf("attach to tc ingress (tcx): %w%s", err, needsBPF(err))
		}
	}
	return s.stopClsact(ifindex, prog)
}

func (s *Stopper) stopClsact(ifindex int, prog *ebpf.Program) (*Stop, error) {
	st := &Stop{index: ifindex}
	err := netlink.QdiscAdd(clsact(ifindex))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("add a clsact qdisc: %w", err)
	}
	st.ownDisc = err == nil
	f := &netlink.BpfFilter{
		FilterAttrs: netlink.FilterAttrs{
			LinkIndex: ifindex, Parent: netlink.HANDLE_MIN_INGRESS, Handle: 1,
			Protocol: unix.ETH_P_ALL, Priority: filterPriority,
		},
		Fd: prog.FD(), Name: filterName(s.instance), DirectAction: true,
	}
	if err := netlink.FilterReplace(f); err != nil {
		if st.ownDisc {
			_ = netlink.QdiscDel(clsact(ifindex))
		}
		return nil, fmt.Errorf("attach to tc ingress (clsact): %w", err)
	}
	st.filter = f
	return st, nil
}

func clsact(ifindex int) *netlink.Clsact {
	return &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: ifindex, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
}

// Kind tells how the stop was made.
func (s *Stop) Kind() StopKind {
	if s.tcx != nil {
		return StopTCX
	}
	return StopClsact
}

// Close takes the stop away. That the interface is gone is no error.
func (s *Stop) Close() error {
	if s.tcx != nil {
		return s.tcx.Close()
	}
	return removeFilter(s.index, s.filter, s.ownDisc)
}

// removeFilter takes a filter away, and the clsact qdisc too when it is ours and
// nothing else hangs on it.
func removeFilter(ifindex int, f *netlink.BpfFilter, disc bool) error {
	err := netlink.FilterDel(f)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove the tc filter: %w", err)
	}
	if !disc {
		return nil
	}
	for _, parent := range []uint32{netlink.HANDLE_MIN_INGRESS, netlink.HANDLE_MIN_EGRESS} {
		fs, err := netlink.FilterList(byIndex(ifindex), parent)
		if err != nil || len(fs) > 0 {
			return nil
		}
	}
	if err := netlink.QdiscDel(clsact(ifindex)); err != nil && !gone(err) {
		return fmt.Errorf("remove the clsact qdisc: %w", err)
	}
	return nil
}

func gone(err error) bool {
	return errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENXIO)
}

// RemoveStops takes away the clsact stops that this instance left on interfaces
// when it was killed, except where keep says that a new one stands. It returns
// the names of the interfaces.
func RemoveStops(links []Link, instance string, keep func(Link) bool) []string {
	var removed []string
	for _, l := range links {
		if keep(l) {
			continue
		}
		fs, err := netlink.FilterList(byIndex(l.Index), netlink.HANDLE_MIN_INGRESS)
		if err != nil {
			continue
		}
		for _, f := range fs {
			b, ok := f.(*netlink.BpfFilter)
			if !ok || !strings.HasPrefix(b.Name, filterName(instance)) {
				continue
			}
			if removeFilter(l.Index, b, true) == nil {
				removed = append(removed, l.Name)
			}
		}
	}
	return removed
}
