package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// netnsDir is where ip(8) keeps named namespaces; `ip netns exec NAME` works on a
// lab's while it lives.
const netnsDir = "/run/netns"

// Namespace is a network namespace of a lab: what Host and Container have in
// common. Thread-safety: safe for concurrent use.
type Namespace struct {
	Name string // in netnsDir

	lab *Lab
	fd  int // of the namespace

	mu    sync.Mutex
	ports int // iperf3 server ports given out
}

// newNamespace makes a named namespace with its loopback up and IPv6 quiet.
func (l *Lab) newNamespace(suffix string) (*Namespace, error) {
	n := &Namespace{Name: l.name + "-" + suffix, lab: l, fd: -1}
	if err := n.create(); err != nil {
		removeNamed(n.Name)
		return nil, fmt.Errorf("make namespace %s: %w", n.Name, err)
	}
	l.mu.Lock()
	l.spaces = append(l.spaces, n)
	l.mu.Unlock()
	return n, nil
}

func (n *Namespace) create() error {
	path := filepath.Join(netnsDir, n.Name)
	if err := os.MkdirAll(netnsDir, 0o755); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	f.Close()
	err = onThread(func() error {
		if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("/proc/thread-self/ns/net", path, "", unix.MS_BIND, ""); err != nil {
			return fmt.Errorf("mount: %w", err)
		}
		return nil
	})
	if err != nil {
		return err
	}
	if n.fd, err = unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0); err != nil {
		return err
	}
	return n.Do(func() error {
		lo, err := netlink.LinkByName("lo")
		if err != nil {
			return err
		}
		if err := netlink.LinkSetUp(lo); err != nil {
			return err
		}
		// What interfaces made later begin with: silent, and done at once with the
		// multicast reports (RFC 3810) that an address begins with. They are repeated
		// up to a second later, and would be in the way of tests that count frames.
		for key, value := range map[string]string{
			"net/ipv6/conf/default/accept_dad":                        "0",
			"net/ipv6/conf/default/accept_ra":                         "0",
			"net/ipv6/conf/default/autoconf":                          "0",
			"net/ipv6/conf/default/router_solicitations":              "0",
			"net/ipv6/conf/default/mldv1_unsolicited_report_interval": "10",
			"net/ipv6/conf/default/mldv2_unsolicited_report_interval": "10",
		} {
			if err := sysctl(key, value); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err // no IPv6 in this kernel is fine
			}
		}
		return nil
	})
}

// Do runs f on a thread inside the namespace: sockets it opens, netlink requests
// it makes and files under /proc/sys/net and /proc/thread-self/net that it opens
// are the namespace's. f must not start processes (see Start) or goroutines that
// count on it. Calls may run at once.
func (n *Namespace) Do(f func() error) error {
	return onThread(func() error {
		if err := unix.Setns(n.fd, unix.CLONE_NEWNET); err != nil {
			return fmt.Errorf("enter namespace %s: %w", n.Name, err)
		}
		return f()
	})
}

// onThread runs f on a goroutine locked to its OS thread, and puts the thread back
// into the network namespace it came from. A panic in f reaches the caller.
func onThread(f func() error) error {
	type result struct {
		err      error
		panicked any
	}
	done := make(chan result, 1)
	go func() { // ends with f
		r := result{err: errors.New("ended by runtime.Goexit (t.Fatal inside Do?)")}
		defer func() { done <- r }()
		runtime.LockOSThread()
		home, err := unix.Open("/proc/thread-self/ns/net", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			r.err = err
			return
		}
		defer func() {
			r.panicked = recover()
			// A thread that cannot come home stays locked, and ends with
			// the goroutine.
			if unix.Setns(home, unix.CLONE_NEWNET) == nil {
				runtime.UnlockOSThread()
			}
			unix.Close(home)
		}()
		r.err = f()
	}()
	r := <-done
	if r.panicked != nil {
		panic(r.panicked)
	}
	return r.err
}

// Sysctl sets a kernel parameter of the namespace: Sysctl("net.ipv4.ip_forward",
// "1"). An interface name with dots in it is written with slashes throughout.
func (n *Namespace) Sysctl(key, value string) {
	n.lab.t.Helper()
	if !strings.Contains(key, "/") {
		key = strings.ReplaceAll(key, ".", "/")
	}
	if err := n.Do(func() error { return sysctl(key, value) }); err != nil {
		n.lab.t.Fatalf("lab: %s: set %s: %v", n.Name, key, err)
	}
}

func sysctl(key, value string) error {
	return os.WriteFile("/proc/sys/"+key, []byte(value), 0o644)
}

// Link returns an interface of the namespace as it is now.
func (n *Namespace) Link(name string) (link netlink.Link, err error) {
	err = n.Do(func() error {
		link, err = netlink.LinkByName(name)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("link %s in %s: %w", name, n.Name, err)
	}
	return link, nil
}

// remove kills the processes that are still inside and removes the namespace;
// the kernel takes its interfaces with it.
func (n *Namespace) remove() error {
	if n.fd >= 0 {
		unix.Close(n.fd)
		n.fd = -1
	}
	return removeNamed(n.Name)
}

func removeNamed(name string) error {
	path := filepath.Join(netnsDir, name)
	for _, pid := range processesIn(path) {
		unix.Kill(pid, unix.SIGKILL)
	}
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return fmt.Errorf("unmount namespace %s: %w", name, err)
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return fmt.Errorf("remove namespace %s: %w", name, err)
	}
	return nil
}

// processesIn lists the processes in the namespace that is mounted at path.
func processesIn(path string) (pids []int) {
	want, err := os.Stat(path)
	if err != nil || !isMounted(want) {
		return nil
	}
	entries, _ := os.ReadDir("/proc")
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == os.Getpid() {
			continue
		}
		if st, err := os.Stat("/proc/" + e.Name() + "/ns/net"); err == nil && os.SameFile(want, st) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// isMounted tells a namespace from the empty file it is mounted on: a half-made
// one must not match anything.
func isMounted(st os.FileInfo) bool {
	own, err := os.Stat("/proc/thread-self/ns/net")
	if err != nil {
		return false
	}
	a, ok1 := st.Sys().(*syscall.Stat_t)
	b, ok2 := own.Sys().(*syscall.Stat_t)
	return ok1 && ok2 && a.Dev == b.Dev && a.Ino != b.Ino
}
