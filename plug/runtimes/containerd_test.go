package runtimes

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// tasksOf runs containers of containerd itself, beside Docker's.
func tasksOf(t *testing.T, rt *Runtimes, d *lab.Docker) {
	ctr := func(args ...string) string {
		t.Helper()
		out, err := d.Ctr(args...)
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	archive := filepath.Join(t.TempDir(), "image.tar")
	d.Must("save", "-o", archive, lab.BusyboxImage)
	ctr("-n", "one", "images", "import", "--snapshotter", "native", archive)
	run := func(id string) {
		t.Helper()
		ctr("-n", "one", "run", "-d", "--cpu-shares", "0", "--snapshotter", "native", "docker.io/library/busybox:latest", id, "sleep", "1000")
	}
	run("task-1")
	ref := config.ContainerRef{Kind: config.ContainerdContainer, Name: "task-1"}
	for _, word := range []string{"containerd:task-1", "task-1"} {
		c, err := rt.Find(t.Context(), word)
		if err != nil || c.Ref != ref || !c.Running || c.PID == 0 || c.Host || c.NetNS != procNetNS(c.PID) {
			t.Errorf("%s: %+v, %v", word, c, err)
		}
	}
	w := rt.watching(t, ref)
	w.told(t, ref, time.Second)
	w.forget()
	ctr("-n", "one", "task", "kill", "-s", "KILL", "task-1")
	w.told(t, ref, time.Second)
	if c, err := rt.Look(t.Context(), ref); err == nil && c.Running {
		t.Errorf("killed: %+v", c)
	}
	ctr("-n", "one", "task", "rm", "task-1")
	if c, err := rt.Look(t.Context(), ref); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed: %+v, %v", c, err)
	}
	w.forget()
	ctr("-n", "one", "task", "start", "-d", "task-1")
	w.told(t, ref, 500*time.Millisecond)
	if c, err := rt.Look(t.Context(), ref); err != nil || !c.Running {
		t.Errorf("started again: %+v, %v", c, err)
	}
	ctr("-n", "one", "task", "kill", "-s", "KILL", "task-1")
}

// A state directory that nobody runs in.
func TestTasks(t *testing.T) {
	state := t.TempDir()
	rt := New(Options{Docker: "/nowhere", Podman: "/nowhere", Containerd: state, NetNS: "/nowhere"})
	if _, err := rt.Find(t.Context(), "containerd:a"); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("without containerd: %v", err)
	}
	task := func(namespace, id, pid string) {
		t.Helper()
		dir := filepath.Join(state, "io.containerd.runtime.v2.task", namespace, id)
		if err := os.MkdirAll(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if pid != "" {
			if err := os.WriteFile(filepath.Join(dir, "init.pid"), []byte(pid), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	}
	task("k8s.io", "abcd0123456789", strconv.Itoa(os.Getpid()))
	task("k8s.io", "abcde123456789", "")
	task("k8s.io", "web-1", "")
	task("default", "same", "")
	task("other", "same", "")
	task("moby", "hidden", strconv.Itoa(os.Getpid()))
	task("default", "rubbish", "12x\n")
	task("default", "huge", "99999999999999999999999")
	task("default", "minus", "-1")
	for _, test := range []struct {
		word, want string
		running    bool
		is         error
	}{
		{word: "abcd0123456789", want: "abcd0123456789", running: true},
		{word: "abcd0", want: "abcd0123456789", running: true},
		{word: "abcde123456789", want: "abcde123456789"},
		{word: "abcd", want: "more than one container (abcd0123456789 in namespace k8s.io, abcde123456789 in namespace k8s.io): give more of its ID"},
		{word: "abc", want: "no such container", is: ErrUnknown},
		{word: "web", want: "did you mean containerd:web-1?", is: ErrUnknown},
		{word: "same", want: "more than one container"},
		{word: "same", want: "name its process instead"},
		{word: "hidden", want: "no such container", is: ErrUnknown},
		{word: "rubbish", want: "rubbish"},
		{word: "huge", want: "huge"},
		{word: "minus", want: "minus"},
	} {
		c, err := rt.Find(t.Context(), "containerd:"+test.word)
		got := c.Ref.Name
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) || (err == nil) != (got == c.Ref.Name) || c.Running != test.running || test.is != nil && !errors.Is(err, test.is) {
			t.Errorf("%s: %+v, %v; want %s", test.word, c, err, test.want)
		}
	}
}
