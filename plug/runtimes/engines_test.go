package runtimes

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// real is one real engine of the lab.
type real struct {
	kind    string
	cli     func(...string) string // docker or podman, with arguments; fails the test
	rt      *Runtimes
	restart func() // of what answers
	kill    func()
	start   func()
	soon    time.Duration // until what happened is told
}

// rm removes containers, one by one.
func (r *real) rm(names ...string) {
	for _, name := range names {
		if r.kind == config.PodmanContainer {
			r.cli("rm", "-f", "-t", "0", name) // else it waits for ten seconds
		} else {
			r.cli("rm", "-f", name)
		}
	}
}

func (r *real) ref(name string) config.ContainerRef {
	return config.ContainerRef{Kind: r.kind, Name: name}
}

// Two engines in a host. Containers that need no network of the engine's own have none,
// which is faster.
//
//	┌─ Host "a" ─────────────────────────────────────┐
//	│ dockerd, containerd      podman system service │
//	│   busybox…                  busybox…           │
//	└────────────────────────────────────────────────┘
func TestEngines(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	d := h.Docker(lab.DockerOptions{LiveRestore: true})
	p := h.Podman(lab.PodmanOptions{})
	// The namespaces of named ones are the machine's, and no test's: none here.
	rt := New(Options{Docker: d.Socket, Podman: p.Socket, Containerd: d.State, NetNS: filepath.Join(l.Dir(), "none")})
	d.Must("network", "create", "n1")
	p.Must("network", "create", "n1")
	for _, r := range []*real{
		{kind: "docker", cli: func(a ...string) string { t.Helper(); return d.Must(a...) }, rt: rt, restart: d.Restart, kill: d.Kill, start: d.Start, soon: 300 * time.Millisecond},
		{kind: "podman", cli: func(a ...string) string { t.Helper(); return p.Must(a...) }, rt: rt, restart: func() { p.Stop(); p.Start() }, kill: p.Kill, start: p.Start,
			// Its log of events in a file is looked at by itself four times a second.
			soon: 800 * time.Millisecond},
	} {
		t.Run(r.kind, func(t *testing.T) {
			t.Run("life", r.life)
			t.Run("shared", r.shared)
			t.Run("watch", r.watch)
		})
	}
	t.Run("containerd", func(t *testing.T) { tasksOf(t, rt, d) })
	t.Run("bare", func(t *testing.T) { bare(t, rt, d, p) })
	t.Run("moby", func(t *testing.T) {
		d.Must("run", "-d", "--name", "m1", "--network", "none", lab.BusyboxImage, "sleep", "1000")
		id := d.Must("inspect", "-f", "{{.Id}}", "m1")
		if _, err := os.Stat(filepath.Join(d.State, "io.containerd.runtime.v2.task", "moby", id, "init.pid")); err != nil {
			t.Fatal(err)
		}
		if c, err := rt.Find(t.Context(), "containerd:"+id); !errors.Is(err, ErrUnknown) {
			t.Errorf("Docker's container is containerd's: %+v, %v", c, err)
		}
	})
}

// life is run, find, stop, start, rename, rm.
func (r *real) life(t *testing.T) {
	ctx := t.Context()
	id := r.cli("run", "-d", "--name", "web", "--network", "n1", "--network-alias", "www", lab.BusyboxImage, "sleep", "1000")
	other := r.cli("run", "-d", "--name", "Web_2.x", "--network", "none", lab.BusyboxImage, "sleep", "1000")
	want := r.cli("exec", "web", "readlink", "/proc/1/ns/net")
	for _, word := range []string{"web", id, id[:12], id[:8]} {
		c, err := r.rt.Find(ctx, r.kind+":"+word)
		if err != nil {
			t.Fatal(err)
		}
		if c.Ref != r.ref("web") || c.ID != id || !c.Running || c.PID == 0 || c.Host || c.SharesWith != (config.ContainerRef{}) {
			t.Errorf("%s: %+v", word, c)
		}
		if len(c.Names) < 2 || c.Names[0] != "web" || !slices.Contains(c.Names, "www") {
			t.Errorf("names %q", c.Names)
		}
		if got, err := os.Readlink(c.NetNS); err != nil || got != want {
			t.Errorf("%s is %s (%v), want %s", c.NetNS, got, err, want)
		}
	}
	if c, err := r.rt.Look(ctx, r.ref(id[:12])); err != nil || c.Ref != r.ref("web") {
		t.Errorf("by short ID: %+v, %v", c, err)
	}
	if c, err := r.rt.Look(ctx, r.ref(id[:3])); !errors.Is(err, ErrUnknown) {
		t.Errorf("the beginning of an ID is a name: %+v, %v", c, err)
	}
	if c, err := r.rt.Look(ctx, r.ref("Web_2.x")); err != nil || c.ID != other {
		t.Errorf("Web_2.x: %+v, %v", c, err)
	}
	_, err := r.rt.Find(ctx, r.kind+":wbe")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "did you mean "+r.kind+":web?") {
		t.Errorf("unknown: %v", err)
	}

	first, err := r.rt.Look(ctx, r.ref("web"))
	if err != nil {
		t.Fatal(err)
	}
	r.cli("stop", "-t", "0", "web")
	c, err := r.rt.Look(ctx, r.ref("web"))
	if err != nil || c.Running || c.NetNS != "" || c.PID != 0 || c.ID != id {
		t.Errorf("stopped: %+v, %v", c, err)
	}
	if _, err := os.Stat(first.NetNS); err == nil {
		t.Errorf("%s is still there", first.NetNS)
	}
	r.cli("start", "web")
	if c, err = r.rt.Look(ctx, r.ref("web")); err != nil || !c.Running || c.NetNS == first.NetNS {
		t.Errorf("started: %+v, %v", c, err)
	}
	r.cli("rename", "web", "new")
	if _, err := r.rt.Look(ctx, r.ref("web")); !errors.Is(err, ErrUnknown) {
		t.Errorf("renamed: %v", err)
	}
	if c, err := r.rt.Look(ctx, r.ref("new")); err != nil || c.ID != id {
		t.Errorf("renamed: %+v, %v", c, err)
	}
	r.rm("new", "Web_2.x")
	if _, err := r.rt.Look(ctx, r.ref("new")); !errors.Is(err, ErrUnknown) {
		t.Errorf("removed: %v", err)
	}
}

// shared is --network container:x and --network host.
func (r *real) shared(t *testing.T) {
	ctx := t.Context()
	r.cli("run", "-d", "--name", "owner", "--network", "none", lab.BusyboxImage, "sleep", "1000")
	r.cli("run", "-d", "--name", "guest", "--network", "container:owner", lab.BusyboxImage, "sleep", "1000")
	r.cli("run", "-d", "--name", "host", "--network", "host", lab.BusyboxImage, "sleep", "1000")
	owner, err := r.rt.Find(ctx, r.kind+":owner")
	if err != nil {
		t.Fatal(err)
	}
	c, err := r.rt.Find(ctx, r.kind+":guest")
	if err != nil || c.SharesWith != owner.Ref || c.NetNS != owner.NetNS || !c.Running || c.PID == owner.PID || !slices.Equal(c.Names, []string{"guest"}) {
		t.Errorf("guest: %+v, %v", c, err)
	}
	if c, err = r.rt.Find(ctx, r.kind+":host"); err != nil || !c.Host || !c.Running {
		t.Errorf("host: %+v, %v", c, err)
	}
	r.cli("stop", "-t", "0", "owner")
	if c, err = r.rt.Find(ctx, r.kind+":guest"); err != nil || c.SharesWith != owner.Ref || c.NetNS != "" || c.Running {
		t.Errorf("guest of a stopped one: %+v, %v", c, err)
	}
	r.rm("guest", "owner", "host")
}

// watch is what is told, and how soon.
func (r *real) watch(t *testing.T) {
	// IDs of 12 digits are names, too.
	id := r.cli("create", "--name", "w1", "--network", "none", lab.BusyboxImage, "sleep", "1000")
	w := r.rt.watching(t, r.ref("w1"), r.ref(id[:12]))
	w.told(t, config.ContainerRef{}, 5*time.Second)
	look := func() Container {
		t.Helper()
		c, err := r.rt.Look(t.Context(), r.ref("w1"))
		if err != nil {
			t.Fatal(err)
		}
		return c
	}
	do := func(what string, refs []config.ContainerRef, args ...string) {
		t.Helper()
		w.forget()
		r.cli(args...)
		done := time.Now()
		for _, ref := range refs {
			w.told(t, ref, r.soon)
		}
		t.Logf("%s told %v after it was done", what, time.Since(done))
	}
	w1 := []config.ContainerRef{r.ref("w1"), r.ref(id[:12])}
	do("start", w1, "start", "w1")
	before := look()
	do("restart", w1, "restart", "-t", "0", "w1")
	// Told means that a look sees it.
	if after := look(); !after.Running || after.NetNS == before.NetNS {
		t.Errorf("after a restart: %+v, before: %+v", after, before)
	}
	do("kill", w1, "kill", "w1")
	if c := look(); c.Running {
		t.Errorf("after its death: %+v", c)
	}
	do("start", w1, "start", "w1")

	// The engine's restart: the containers live on, and all are to be looked at.
	before = look()
	w.forget()
	r.restart()
	back := time.Now()
	w.told(t, config.ContainerRef{}, time.Second)
	t.Logf("an engine that was restarted is known %v after it answers", time.Since(back))
	if after := look(); after.NetNS != before.NetNS || !after.Running {
		t.Errorf("after the engine's restart: %+v, before: %+v", after, before)
	}
	w.forget()
	r.kill()
	if _, err := r.rt.Look(t.Context(), r.ref("w1")); !errors.Is(err, ErrNoAnswer) || !strings.Contains(err.Error(), r.kind) {
		t.Errorf("a look while the engine is dead: %v", err)
	}
	if _, err := r.rt.Find(t.Context(), "w1"); !errors.Is(err, ErrNoAnswer) {
		t.Errorf("a bare name while the engine is dead: %v", err)
	}
	r.start()
	w.told(t, config.ContainerRef{}, time.Second)

	w.forget()
	r.cli("rename", "w1", "w2")
	if r.kind == config.DockerContainer {
		w.told(t, r.ref("w1"), r.soon)
		w.told(t, r.ref("w2"), r.soon)
	} else {
		w.told(t, config.ContainerRef{}, r.soon) // it does not say the old name
	}
	r.cli("kill", "w2")
	do("removal", []config.ContainerRef{r.ref("w2"), r.ref(id[:12])}, "rm", "w2")
}

// bare is who is meant by a bare name.
func bare(t *testing.T, rt *Runtimes, d *lab.Docker, p *lab.Podman) {
	p.Must("run", "-d", "--name", "both", "--network", "none", lab.BusyboxImage, "sleep", "1000")
	if c, err := rt.Find(t.Context(), "both"); err != nil || c.Ref.String() != "podman:both" {
		t.Errorf("podman's: %+v, %v", c, err)
	}
	id := d.Must("run", "-d", "--name", "both", "--network", "none", lab.BusyboxImage, "sleep", "1000")
	if c, err := rt.Find(t.Context(), "both"); err != nil || c.Ref.String() != "docker:both" {
		t.Errorf("both: %+v, %v", c, err)
	}
	// The beginning of Docker's ID is a name of Podman's.
	if c, err := rt.Find(t.Context(), id[:6]); err != nil || c.Ref.String() != "docker:both" {
		t.Errorf("by ID: %+v, %v", c, err)
	}
	p.Must("run", "-d", "--name", id[:6], "--network", "none", lab.BusyboxImage, "sleep", "1000")
	if c, err := rt.Find(t.Context(), id[:6]); err != nil || c.Ref.String() != "podman:"+id[:6] {
		t.Errorf("by name: %+v, %v", c, err)
	}
	_, err := rt.Find(t.Context(), "botth")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "did you mean docker:both?") || !strings.Contains(err.Error(), p.Socket) {
		t.Errorf("unknown: %v", err)
	}
	_, err = rt.Find(t.Context(), "99999")
	if !errors.Is(err, ErrUnknown) || !strings.Contains(err.Error(), "pid:99999") {
		t.Errorf("digits: %v", err)
	}
	d.Must("rm", "-f", "both")
	p.Must("rm", "-f", "-t", "0", "both", id[:6])
}

// watcher is a running Watch.
type watcher struct {
	mu     sync.Mutex
	refs   []config.ContainerRef
	wanted []config.ContainerRef
}

// watching starts Watch, which ends with the test.
func (r *Runtimes) watching(t *testing.T, wanted ...config.ContainerRef) *watcher {
	w := &watcher{wanted: wanted}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { // ends with ctx
		defer close(done)
		r.Watch(ctx, func() []config.ContainerRef {
			w.mu.Lock()
			defer w.mu.Unlock()
			return slices.Clone(w.wanted)
		}, func(ref config.ContainerRef) {
			w.mu.Lock()
			defer w.mu.Unlock()
			w.refs = append(w.refs, ref)
		})
	}()
	t.Cleanup(func() {
		cancel()
		select {
		case <-done:
		case <-time.After(5 * time.Second):
			t.Error("Watch does not end")
		}
	})
	return w
}

func (w *watcher) forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.refs = nil
}

// want changes who is wanted.
func (w *watcher) want(refs ...config.ContainerRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted = refs
}

// told waits until ref was told, and fails where that takes too long.
func (w *watcher) told(t *testing.T, ref config.ContainerRef, limit time.Duration) {
	t.Helper()
	lab.Eventually(t, limit, func() error {
		w.mu.Lock()
		defer w.mu.Unlock()
		if !slices.Contains(w.refs, ref) {
			return fmt.Errorf("%s was not told, but %v", ref, w.refs)
		}
		return nil
	})
}
