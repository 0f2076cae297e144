package ports

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"time"

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
// It is a filter on a clsact qdisc, named after the instance. It outlives a crash:
// the host stays cut off while no switch is there, and RemoveStops finds it at the
// next start. The other kind, on Linux 6.6 and later, is a TCX link, which the
// kernel takes away with the process; but to attach or detach one waits for a grace
// period of the kernel with the RTNL lock held: 100 ports took 1.4 s to come up,
// where clsact took 0.1 s, and nobody else could change an interface meanwhile.
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

// The kinds. StopAuto is clsact, and TCX where the kernel has no clsact.
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
	alive    io.Closer // tells others that this instance lives; see living

	mu   sync.Mutex
	prog *ebpf.Program // loaded on first use
}

// NewStopper returns a maker of Stops for the switch with this instance identity.
func NewStopper(instance string, kind StopKind) *Stopper {
	s := &Stopper{instance: instance, kind: kind}
	// Where it cannot be had, others may take this instance for gone: no worse
	// than without it.
	if l, err := net.Listen("unix", aliveName(instance)); err == nil {
		s.alive = l
	}
	return s
}

// aliveName is the abstract unix socket that a living instance listens on. Abstract
// names belong to a network namespace, as interfaces do, and go with the process.
func aliveName(instance string) string { return "@vswitch-" + instance }

// living reports whether an instance has a process. Who cannot be asked counts as
// living.
func living(instance string) bool {
	c, err := net.DialTimeout("unix", aliveName(instance), time.Second)
	if err != nil {
		return !errors.Is(err, unix.ECONNREFUSED)
	}
	c.Close()
	return true
}

// filterName marks the clsact filters of an instance.
func filterName(instance string) string { return "vswitch-" + instance }

// programName marks the programs of an instance; the kernel keeps 15 bytes.
func programName(instance string) string { return programMark + instance[:min(8, len(instance))] }

const programMark = "vsw_"

// errTaken says that another switch has the interface.
var errTaken = errors.New("another vswitchd has this interface as a port; remove it there first")

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
		Name: programName(s.instance), Type: ebpf.SchedCLS, License: "Apache-2.0",
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
	if s.alive != nil {
		s.alive.Close()
	}
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
	if s.takenTCX(ifindex) || s.takenClsact(ifindex) {
		return nil, errTaken
	}
	if s.kind == StopTCX {
		return s.stopTCX(ifindex, prog)
	}
	st, err := s.stopClsact(ifindex, prog)
	if err != nil && s.kind == StopAuto {
		if st, err := s.stopTCX(ifindex, prog); err == nil {
			return st, nil
		}
	}
	return st, err
}

func (s *Stopper) stopTCX(ifindex int, prog *ebpf.Program) (*Stop, error) {
	l, err := link.AttachTCX(link.TCXOptions{
		Interface: ifindex, Program: prog, Attach: ebpf.AttachTCXIngress, Anchor: link.Head(),
	})
	if err != nil {
		return nil, fmt.Errorf("attach to tc ingress (tcx): %w%s", err, needsBPF(err))
	}
	return &Stop{tcx: l}, nil
}

// takenTCX reports whether another instance's program is attached. That it cannot
// be asked, as before Linux 6.6, means no.
func (s *Stopper) takenTCX(ifindex int) bool {
	q, err := link.QueryPrograms(link.QueryOptions{Target: ifindex, Attach: ebpf.AttachTCXIngress})
	if err != nil {
		return false
	}
	for _, attached := range q.Programs {
		p, err := ebpf.NewProgramFromID(attached.ID)
		if err != nil {
			continue
		}
		info, err := p.Info()
		p.Close()
		if err == nil && strings.HasPrefix(info.Name, programMark) && info.Name != programName(s.instance) {
			return true
		}
	}
	return false
}

// takenClsact reports whether another instance's filter is on the interface. One
// whose instance has no process any more is taken away: it was killed, and its
// state directory is not ours.
func (s *Stopper) takenClsact(ifindex int) bool {
	for _, f := range stopFilters(ifindex) {
		other := instanceOf(f)
		if other == s.instance {
			continue
		}
		if living(other) || removeFilter(ifindex, f, true) != nil {
			return true
		}
	}
	return false
}

// instanceOf returns whose a stop is: what follows the mark in the filter's name,
// up to what the kernel appends (":[*fsobj]").
func instanceOf(f *netlink.BpfFilter) string {
	id, _, _ := strings.Cut(strings.TrimPrefix(f.Name, filterName("")), ":")
	return id
}

func (s *Stopper) stopClsact(ifindex int, prog *ebpf.Program) (*Stop, error) {
	st := &Stop{index: ifindex}
	mine := len(stopFilters(ifindex)) > 0 // left by an earlier run, with its qdisc
	err := netlink.QdiscAdd(clsact(ifindex))
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return nil, fmt.Errorf("add a clsact qdisc: %w", err)
	}
	st.ownDisc = err == nil || mine
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

// Stands reports whether the stop is in place still, as far as can be told: others
// may have removed a clsact qdisc with all that hangs on it. A TCX link is its
// holder's alone.
func (s *Stop) Stands() bool {
	if s.tcx != nil {
		return true
	}
	all, err := netlink.FilterList(byIndex(s.index), netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return !gone(err)
	}
	return slices.ContainsFunc(all, func(f netlink.Filter) bool {
		b, ok := f.(*netlink.BpfFilter)
		return ok && strings.HasPrefix(b.Name, s.filter.Name)
	})
}

// Restore puts back a stop that does not stand any more.
func (s *Stopper) Restore(st *Stop) error {
	again, err := s.Stop(st.index)
	if err != nil {
		return err
	}
	again.ownDisc = again.ownDisc || st.ownDisc
	*st = *again
	return nil
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
		for _, f := range stopFilters(l.Index) {
			if strings.HasPrefix(f.Name, filterName(instance)) && removeFilter(l.Index, f, true) == nil {
				removed = append(removed, l.Name)
			}
		}
	}
	return removed
}

// stopFilters returns the clsact stops of any instance on an interface.
func stopFilters(ifindex int) (stops []*netlink.BpfFilter) {
	all, err := netlink.FilterList(byIndex(ifindex), netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return nil // no qdisc, or no interface
	}
	for _, f := range all {
		if b, ok := f.(*netlink.BpfFilter); ok && strings.HasPrefix(b.Name, filterName("")) {
			stops = append(stops, b)
		}
	}
	return stops
}
