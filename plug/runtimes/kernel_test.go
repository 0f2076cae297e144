package runtimes

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

func TestParseStart(t *testing.T) {
	rest := " S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21"
	for _, test := range []struct {
		stat string
		want uint64
		bad  bool
	}{
		{stat: "12 (sleep)" + rest, want: 4711},
		{stat: "12 (a) S 1 (b) 9)" + rest, want: 4711},
		{stat: "12 (\n))" + rest, want: 4711},
		{stat: "12 ()" + rest + "\n", want: 4711},
		{stat: "12 (sleep)" + strings.Replace(rest, "S", "Z", 1), bad: true},
		{stat: "12 (sleep)" + strings.Replace(rest, "4711", "-1", 1), bad: true},
		{stat: "12 (sleep", bad: true},
		{stat: "12 (sleep) S 1 2", bad: true},
		{stat: "", bad: true},
	} {
		got, err := parseStart([]byte(test.stat))
		if got != test.want || (err != nil) != test.bad {
			t.Errorf("%q: %d, %v", test.stat, got, err)
		}
	}
}

func FuzzParseStart(f *testing.F) {
	if own, err := os.ReadFile("/proc/self/stat"); err == nil {
		f.Add(own)
	}
	f.Add([]byte("1 (a) b) S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711"))
	f.Fuzz(func(t *testing.T, stat []byte) { parseStart(stat) })
}

// alone is a Runtimes without an engine, whose named namespaces are in a directory.
func alone(dir string) *Runtimes {
	return New(Options{Docker: "/nowhere", Podman: "/nowhere", Containerd: "/nowhere", NetNS: dir})
}

// Namespaces and processes without any runtime:
//
//	vsw-…-a    a named namespace; a process
//	vsw-…-b    another
func TestKernel(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	rt := alone("/run/netns")
	proc := h.Start("sleep", "1000")
	pid := strconv.Itoa(proc.PID())

	c, err := rt.Find(t.Context(), h.Name)
	if err != nil || c.Ref.String() != "netns:"+h.Name || !c.Running || c.NetNS != "/run/netns/"+h.Name || c.Host || c.PID != 0 {
		t.Errorf("bare: %+v, %v", c, err)
	}
	_, err = rt.Find(t.Context(), h.Name+"x")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "did you mean netns:"+h.Name+"?") {
		t.Errorf("unknown: %v", err)
	}
	c, err = rt.Find(t.Context(), "/run/netns/"+h.Name)
	if err != nil || c.Ref.String() != "/run/netns/"+h.Name || !c.Running {
		t.Errorf("path: %+v, %v", c, err)
	}
	for _, path := range []string{"/dev/null", "/etc", "/proc/self/ns/mnt", "/nowhere"} {
		if c, err := rt.Find(t.Context(), path); !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %+v, %v", path, c, err)
		}
	}
	if c, err := rt.Find(t.Context(), "/proc/self/ns/net"); err != nil || !c.Host {
		t.Errorf("our own namespace: %+v, %v", c, err)
	}
	lab.Eventually(t, 5*time.Second, func() error { // a process that is being started is elsewhere
		c, err = rt.Find(t.Context(), "pid:"+pid)
		if err == nil && c.Host {
			err = errors.New("in the host's namespace")
		}
		return err
	})
	if c.Ref.Start == 0 || c.PID != proc.PID() || c.NetNS != "/proc/"+pid+"/ns/net" {
		t.Errorf("pid: %+v", c)
	}
	ref := c.Ref
	if c, err := rt.Look(t.Context(), ref); err != nil || c.Ref != ref {
		t.Errorf("look: %+v, %v", c, err)
	}
	later := ref
	later.Start++
	if _, err := rt.Look(t.Context(), later); !errors.Is(err, ErrUnknown) {
		t.Errorf("another process of the same number: %v", err)
	}
	_, err = rt.Find(t.Context(), pid)
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "pid:"+pid) {
		t.Errorf("digits alone: %v", err)
	}
	if _, err := rt.Find(t.Context(), "runtime:abc"); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("runtime: %v", err)
	}

	w := rt.watching(t, ref)
	w.told(t, ref, time.Second)
	w.forget()
	proc.Kill()
	w.told(t, ref, time.Second)
	if _, err := rt.Look(t.Context(), ref); !errors.Is(err, ErrUnknown) {
		t.Errorf("ended: %v", err)
	}
}

// A zombie has no namespace, and its number is nobody else's yet.
func TestZombie(t *testing.T) {
	cmd := exec.Command("true")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	rt := alone(t.TempDir())
	ref := config.ContainerRef{Kind: config.PIDContainer, Name: strconv.Itoa(cmd.Process.Pid)}
	lab.Eventually(t, 5*time.Second, func() error {
		if _, err := rt.Look(t.Context(), ref); !errors.Is(err, ErrUnknown) {
			return errors.New("still there")
		}
		return nil
	})
	cmd.Wait()
}

// A namespace that is removed and made again at once has the same name, and often the same
// inode; Watch tells nevertheless.
func TestNamespaceAgain(t *testing.T) {
	l := lab.New(t)
	dir := filepath.Join(l.Dir(), "ns")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "x")
	make := func() {
		t.Helper()
		f, err := os.Create(path)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
		// A process whose namespace is mounted, and which ends.
		if out, err := exec.Command("unshare", "--net="+path, "true").CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	remove := func() {
		t.Helper()
		if err := errors.Join(unix.Unmount(path, unix.MNT_DETACH), os.Remove(path)); err != nil {
			t.Fatal(err)
		}
	}
	make()
	gone := false
	t.Cleanup(func() {
		if !gone {
			remove()
		}
	})
	rt := alone(dir)
	ref := config.ContainerRef{Kind: config.NetNSContainer, Name: "x"}
	byPath := config.ContainerRef{Kind: config.PathContainer, Name: path}
	w := rt.watching(t, ref, byPath)
	w.told(t, ref, time.Second)
	before, err := netnsAt(path)
	if again, _ := netnsAt(path); err != nil || before.began == 0 || again != before {
		t.Errorf("the same is %+v and %+v (%v)", before, again, err)
	}
	w.forget()
	remove()
	make()
	w.told(t, ref, time.Second)
	w.told(t, byPath, time.Second)
	if again, err := netnsAt(path); err != nil || again == before {
		t.Errorf("another is %+v after %+v (%v)", again, before, err)
	}
	w.forget()
	remove()
	gone = true
	w.told(t, ref, time.Second)
}

// A process's own namespace has no beginning of its own, and is the same twice.
func TestIdentityBelowProc(t *testing.T) {
	a, err1 := netnsAt("/proc/self/ns/net")
	b, err2 := netnsAt("/proc/self/ns/net")
	if err1 != nil || err2 != nil || a != b || a.ino == 0 || a.began != 0 {
		t.Errorf("%+v, %v; %+v, %v", a, err1, b, err2)
	}
}

// TestStill tells a process from the next that has its number.
func TestStill(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	proc := h.Start("sleep", "1000")
	rt := alone("/run/netns")
	var c Container
	lab.Eventually(t, 10*time.Second, func() (err error) {
		c, err = rt.Find(t.Context(), "pid:"+strconv.Itoa(proc.PID()))
		return err
	})
	if !c.Still() {
		t.Error("it is another one at once")
	}
	other := c
	other.by.start++
	if other.Still() {
		t.Error("another process of that number is it")
	}
	proc.Kill()
	if c.Still() {
		t.Error("it has ended, and is there")
	}
	if c, err := rt.Find(t.Context(), h.Name); err != nil || !c.Still() {
		t.Errorf("what has a name is not its name's: %v", err)
	}
}

// TestNothingCanBeOpened takes nobody for gone because this process cannot look.
func TestNothingCanBeOpened(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	proc := h.Start("sleep", "1000")
	rt := alone("/run/netns")
	words := []string{"netns:" + h.Name, "/run/netns/" + h.Name, "pid:" + strconv.Itoa(proc.PID())}
	var refs []config.ContainerRef
	for _, word := range words {
		lab.Eventually(t, 10*time.Second, func() error {
			c, err := rt.Find(t.Context(), word)
			if err == nil {
				refs = append(refs, c.Ref)
			}
			return err
		})
	}
	// Open files until there can be no more: the next gets EMFILE.
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	small := limit
	small.Cur = 64
	var open []int
	errs := make([]error, len(refs))
	func() {
		defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &small); err != nil {
			t.Fatal(err)
		}
		for {
			fd, err := unix.Open("/", unix.O_PATH|unix.O_CLOEXEC, 0)
			if err != nil {
				break
			}
			open = append(open, fd)
		}
		for i, ref := range refs {
			_, errs[i] = rt.Look(context.Background(), ref)
		}
		for _, fd := range open {
			unix.Close(fd)
		}
	}()
	for i, err := range errs {
		if !errors.Is(err, ErrNoAnswer) || errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %v", words[i], err)
		}
	}
}
