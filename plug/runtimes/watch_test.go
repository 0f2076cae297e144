package runtimes

import (
	"os"
	"os/exec"
	"strconv"
	"testing"
	"time"

	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// TestGlance has what does not change be looked at for next to nothing, and a glance be
// another one when something did.
func TestGlance(t *testing.T) {
	h := lab.New(t).Host("a")
	start, err := processStart(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	rt := alone("/run/netns")
	own := strconv.Itoa(os.Getpid())
	for _, ref := range []config.ContainerRef{
		{Kind: config.NetNSContainer, Name: h.Name},
		{Kind: config.PathContainer, Name: "/run/netns/" + h.Name},
		{Kind: config.PathContainer, Name: "/proc/" + own + "/ns/net"},
		{Kind: config.PIDContainer, Name: own, Start: start},
	} {
		w := newWatch(rt)
		wanted := []config.ContainerRef{ref}
		w.look(t.Context(), wanted)
		w.look(t.Context(), wanted) // a process is known now
		// The full look takes 10 and more, of the kernel's time much more.
		if n := testing.AllocsPerRun(100, func() { w.look(t.Context(), wanted) }); n > 5 {
			t.Errorf("%s: %v allocations a look", ref, n)
		}
		if news := w.news.take(); len(news) != 1 || news[0].ref != ref {
			t.Errorf("%s: news %v", ref, news)
		}
	}
	for _, ref := range []config.ContainerRef{
		{Kind: config.NetNSContainer, Name: h.Name + "x"},
		{Kind: config.PathContainer, Name: "/run/netns/" + h.Name + "x"},
		{Kind: config.PIDContainer, Name: own},
	} {
		if g := rt.glance(ref, 0); g != (glance{}) {
			t.Errorf("%s: %+v", ref, g)
		}
	}
	if a, b := rt.glance(config.ContainerRef{Kind: config.PIDContainer}, os.Getpid()), rt.glance(config.ContainerRef{Kind: config.PIDContainer}, os.Getppid()); a == b || a.namespace != b.namespace {
		t.Errorf("two processes in one namespace are %+v and %+v", a, b)
	}
}

// TestProcessMoves tells of a process that goes to another namespace, and of one that has
// ended and that nobody has waited for.
func TestProcessMoves(t *testing.T) {
	cmd := exec.Command("sh", "-c", "read x; exec unshare --net sleep 1000")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	rt := alone(t.TempDir())
	c, err := rt.Find(t.Context(), "pid:"+strconv.Itoa(cmd.Process.Pid))
	if err != nil || !c.Host {
		t.Fatalf("%+v, %v", c, err)
	}
	w := rt.watching(t, c.Ref)
	w.told(t, c.Ref, time.Second)
	w.forget()
	in.Write([]byte("\n"))
	w.told(t, c.Ref, 5*time.Second)
	if c, err := rt.Look(t.Context(), c.Ref); err != nil || c.Host {
		t.Errorf("in its own namespace: %+v, %v", c, err)
	}
	w.forget()
	cmd.Process.Kill()
	w.told(t, c.Ref, 5*time.Second)
}
