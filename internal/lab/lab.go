package lab

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// prefix begins the name of everything a lab leaves visible on the machine:
// prefix<pid>-….
const prefix = "vsw-"

// counter tells labs of one process apart.
var counter atomic.Int32

// Lab owns hosts, containers, processes and files, and ends with its test.
// Thread-safety: a Lab's methods may be called from any goroutine, but those that
// fail the test only from the test's.
type Lab struct {
	t    T
	name string // vsw-<pid>-<n>
	dir  string

	mu     sync.Mutex
	spaces []*Namespace // in the order they were made
	procs  []*Proc
	ends   []func() // run in reverse before processes are killed
}

// New starts a lab that ends with t: a test, or a Standalone. It needs root:
// without it the test is skipped, or fails where the environment says CI=true.
func New(t T) *Lab {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("lab: this test needs root, and CI=true allows no skipping")
		}
		t.Skip("lab: this test needs root (it makes network namespaces)")
	}
	sweepOnce.Do(sweep)

	l := &Lab{t: t, name: fmt.Sprintf("%s%d-%d", prefix, os.Getpid(), counter.Add(1))}
	t.Cleanup(l.end)
	// Short: a unix socket's path has room for 107 bytes, and t.TempDir
	// spends them on the test's name.
	l.dir = filepath.Join(os.TempDir(), l.name)
	if err := os.Mkdir(l.dir, 0o755); err != nil {
		t.Fatalf("lab: %v", err)
	}
	return l
}

// Dir returns a directory that ends with the lab. Its path is short enough for
// unix sockets.
func (l *Lab) Dir() string { return l.dir }

// T returns what the lab belongs to: its test, or a Standalone.
func (l *Lab) T() T { return l.t }

// Try calls f, in whatever way the lab belongs to: in a Standalone's, a failure ends f
// and is its error; in a test, it ends the test.
func (l *Lab) Try(f func() error) error {
	if s, ok := l.t.(*Standalone); ok {
		return s.Try(f)
	}
	return f()
}

// Cleanup runs f when the lab ends, before its processes are killed and its
// namespaces removed; the last one registered runs first.
func (l *Lab) Cleanup(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ends = append(l.ends, f)
}

// Close ends the lab now; its test does it too. Errors are the test's.
func (l *Lab) Close() { l.end() }

// end removes everything, in the order that lets each part go: the tests' own
// hooks, processes, namespaces (and with them links, addresses and tc hooks),
// files. It goes on whatever fails, and fails the test for what stays.
func (l *Lab) end() {
	l.mu.Lock()
	ends, procs, spaces := l.ends, l.procs, l.spaces
	l.ends, l.procs, l.spaces = nil, nil, nil
	l.mu.Unlock()

	for _, f := range slices.Backward(ends) {
		f()
	}
	for _, p := range slices.Backward(procs) {
		p.Kill()
	}
	for _, n := range slices.Backward(spaces) {
		if err := n.remove(); err != nil {
			l.t.Errorf("lab: %v", err)
		}
	}
	if err := os.RemoveAll(l.dir); err != nil {
		l.t.Errorf("lab: %v", err)
	}
}

// Eventually calls f until it returns nil, and fails the test with f's last error
// when timeout has passed. It is how a test waits: for a condition, not a time.
func Eventually(t T, timeout time.Duration, f func() error) {
	t.Helper()
	if err := Wait(timeout, f); err != nil {
		t.Fatal(err)
	}
}

// Wait is Eventually for callers that have no test to fail. f is called at least
// once, then with pauses that grow from 1 to 50 ms.
func Wait(timeout time.Duration, f func() error) error {
	deadline := time.Now().Add(timeout)
	for pause := time.Millisecond; ; pause = min(2*pause, 50*time.Millisecond) {
		err := f()
		if err == nil {
			return nil
		}
		if time.Now().Add(pause).After(deadline) {
			return fmt.Errorf("not within %v: %w", timeout, err)
		}
		time.Sleep(pause)
	}
}

var sweepOnce sync.Once

// sweep removes what labs of dead processes left: namespaces, the processes in
// them, and directories. A process id is reused by an unrelated process now and
// then; then its leftovers wait for a later sweep.
func sweep() {
	for _, dir := range []string{netnsDir, os.TempDir()} {
		entries, _ := os.ReadDir(dir)
		for _, e := range entries {
			pid, ok := ownerOf(e.Name())
			if !ok || alive(pid) {
				continue
			}
			if dir == netnsDir {
				removeNamed(e.Name())
			} else {
				os.RemoveAll(filepath.Join(dir, e.Name()))
			}
		}
	}
}

// ownerOf returns the process id in a name that a lab gave.
func ownerOf(name string) (pid int, ok bool) {
	rest, ok := strings.CutPrefix(name, prefix)
	if !ok {
		return 0, false
	}
	digits, _, ok := strings.Cut(rest, "-")
	if !ok {
		return 0, false
	}
	pid, err := strconv.Atoi(digits)
	return pid, err == nil && pid > 0
}

func alive(pid int) bool { return unix.Kill(pid, 0) != unix.ESRCH }
