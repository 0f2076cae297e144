package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/vishvananda/netlink"
)

// Snapshot is what a switch could leave behind in a namespace, a line each:
// links with their kind, promiscuity and master, addresses, qdiscs, tc filters and TCX
// programs. Lines are sorted; equal states are equal lines.
type Snapshot []string

// Snapshot lists what is in the namespace now.
func (n *Namespace) Snapshot() Snapshot {
	n.lab.t.Helper()
	var s Snapshot
	err := n.Do(func() (err error) {
		s, err = snapshot()
		return err
	})
	if err != nil {
		n.lab.t.Fatalf("lab: snapshot of %s: %v", n.Name, err)
	}
	return s
}

// Diff returns what differs in now, nothing when all is as it was: "+ line" for
// what came, "- line" for what went.
func (s Snapshot) Diff(now Snapshot) (lines []string) {
	for _, line := range now {
		if !slices.Contains(s, line) {
			lines = append(lines, "+ "+line)
		}
	}
	for _, line := range s {
		if !slices.Contains(now, line) {
			lines = append(lines, "- "+line)
		}
	}
	return lines
}

// snapshot looks again when a change interrupted a dump: a daemon that ends takes
// its interfaces away.
func snapshot() (Snapshot, error) {
	for try := 1; ; try++ {
		s, err := snapshotOnce()
		if !errors.Is(err, netlink.ErrDumpInterrupted) || try == 20 {
			return s, err
		}
	}
}

func snapshotOnce() (Snapshot, error) {
	links, err := netlink.LinkList()
	if err != nil {
		return nil, fmt.Errorf("list links: %w", err)
	}
	names := map[int]string{0: "-"}
	for _, l := range links {
		names[l.Attrs().Index] = l.Attrs().Name
	}
	var s Snapshot
	for _, l := range links {
		a := l.Attrs()
		s = append(s, fmt.Sprintf("link %s kind %s mtu %d promiscuity %d master %s",
			a.Name, l.Type(), a.MTU, a.Promisc, names[a.MasterIndex]))

		addrs, err := netlink.AddrList(l, netlink.FAMILY_ALL)
		if err != nil {
			return nil, fmt.Errorf("list addresses of %s: %w", a.Name, err)
		}
		for _, addr := range addrs {
			s = append(s, fmt.Sprintf("address %s on %s", addr.IPNet, a.Name))
		}
		qdiscs, err := netlink.QdiscList(l)
		if err != nil {
			return nil, fmt.Errorf("list qdiscs of %s: %w", a.Name, err)
		}
		for _, q := range qdiscs {
			if q.Type() != "noqueue" { // comes and goes with "up"
				s = append(s, fmt.Sprintf("qdisc %s on %s", q.Type(), a.Name))
			}
		}
		hooks, err := hooksOf(l)
		if err != nil {
			return nil, err
		}
		s = append(s, hooks...)
	}
	slices.Sort(s)
	return s, nil
}

// hooksOf lists the tc filters and TCX programs of a link.
func hooksOf(l netlink.Link) (lines []string, err error) {
	name := l.Attrs().Name
	for _, hook := range []struct {
		name   string
		parent uint32
		attach ebpf.AttachType
	}{
		{"ingress", netlink.HANDLE_MIN_INGRESS, ebpf.AttachTCXIngress},
		{"egress", netlink.HANDLE_MIN_EGRESS, ebpf.AttachTCXEgress},
	} {
		// Without a clsact qdisc there is no such parent, which is an error of
		// no interest.
		filters, _ := netlink.FilterList(l, hook.parent)
		for _, f := range filters {
			lines = append(lines, fmt.Sprintf("tc filter %s %s on %s", f.Type(), hook.name, name))
		}
		programs, err := link.QueryPrograms(link.QueryOptions{Target: l.Attrs().Index, Attach: hook.attach})
		switch {
		case errors.Is(err, ebpf.ErrNotSupported) || errors.Is(err, os.ErrInvalid):
			continue // older than 6.6: no TCX
		case err != nil:
			return nil, fmt.Errorf("query tcx %s programs of %s: %w", hook.name, name, err)
		}
		for range programs.Programs {
			lines = append(lines, fmt.Sprintf("tcx program %s on %s", hook.name, name))
		}
	}
	return lines, nil
}

// started remembers every process that labs of this test process started.
var started struct {
	sync.Mutex
	procs []*Proc
}

func remember(p *Proc) {
	started.Lock()
	defer started.Unlock()
	started.procs = slices.DeleteFunc(started.procs, func(p *Proc) bool {
		select {
		case <-p.done:
			return true
		default:
			return false
		}
	})
	started.procs = append(started.procs, p)
}

// Leftovers lists what labs of this test process have on the machine: namespaces,
// directories, and processes that still run. It is empty when no lab is open.
func Leftovers() (lines []string) {
	mine := prefix + strconv.Itoa(os.Getpid()) + "-"
	for _, dir := range []string{netnsDir, os.TempDir()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			if strings.HasPrefix(e.Name(), mine) {
				lines = append(lines, filepath.Join(dir, e.Name()))
			}
		}
	}
	started.Lock()
	defer started.Unlock()
	for _, p := range started.procs {
		select {
		case <-p.done:
		default:
			lines = append(lines, fmt.Sprintf("process %d: %s", p.PID(), strings.Join(p.cmd.Args, " ")))
		}
	}
	return lines
}
