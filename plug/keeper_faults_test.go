package plug

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"vswitch/ctl/config"
	"vswitch/internal/lab"
	"vswitch/plug/ipam"
	"vswitch/plug/runtimes"
	"vswitch/plug/wire"
)

// Faults that a review found, each once.

func dk(name string) config.ContainerRef { return config.ContainerRef{Kind: "docker", Name: name} }

// leasedTo fails the test where a plug has an address that the store thinks is free.
func leasedTo(t *testing.T, k *Keeper, leases *ipam.Store, port string) {
	t.Helper()
	st, _ := k.State(port)
	if len(st.Addresses) == 0 {
		t.Errorf("%s has no address: %s %s", port, st.State, st.Reason)
	}
	for _, a := range st.Addresses {
		found := false
		for _, l := range leases.Leases("br0") {
			found = found || l.Addr == a.Addr()
		}
		if !found {
			t.Errorf("%s uses %s, and the store says it is free: %v", port, a, leases.Leases("br0"))
		}
	}
}

func (w *world) refuse(err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plugErr = err
}

// TestSwap has two ports swap containers: both keep an address that is theirs.
func TestSwap(t *testing.T) {
	for range 10 {
		w := newWorld()
		k, leases := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Minute)
		w.run(dk("a"), "/ns/a")
		w.run(dk("b"), "/ns/b")
		k.Set([]Want{wanted("p1", dk("a"), "10.0.0.0/24"), wanted("p2", dk("b"), "10.0.0.0/24")})
		k.Quiet(5 * time.Second)
		k.Set([]Want{wanted("p1", dk("b"), "10.0.0.0/24"), wanted("p2", dk("a"), "10.0.0.0/24")})
		k.Quiet(5 * time.Second)
		leasedTo(t, k, leases, "p1")
		leasedTo(t, k, leases, "p2")
		if n := len(leases.Leases("br0")); n != 2 {
			t.Errorf("%d leases for two plugs", n)
		}
	}
}

// TestFailedChange leaves a plug as it was.
func TestFailedChange(t *testing.T) {
	w := newWorld()
	k, leases := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Minute)
	w.run(dk("a"), "/ns/a")
	base := wanted("p1", dk("a"), "10.0.0.0/24")
	k.Set([]Want{base})
	k.Quiet(5 * time.Second)
	before, _ := w.pair("p1")
	change := base
	change.Plug.Auto4, change.Plug.Addresses = false, []netip.Prefix{netip.MustParsePrefix("10.0.0.77/24")}
	w.refuse(errors.New("the container has 10.0.0.77 on eth0 already"))
	if _, err := k.Now(context.Background(), change, nil); err == nil {
		t.Fatal("no error")
	}
	w.refuse(nil)
	k.LookAt(config.ContainerRef{})
	until(t, "plugged", func() bool { st, _ := k.State("p1"); return st.State == Plugged })
	after, _ := w.pair("p1")
	if fmt.Sprint(before.Addresses) != fmt.Sprint(after.Addresses) {
		t.Errorf("%v became %v", before.Addresses, after.Addresses)
	}
	leasedTo(t, k, leases, "p1")
	if n := len(leases.Leases("")); n != 1 {
		t.Errorf("leases %v", leases.Leases(""))
	}
}

// TestFailedSecondPlug of the same container and interface takes nothing from the first.
func TestFailedSecondPlug(t *testing.T) {
	w := newWorld()
	k, leases := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Minute)
	w.run(dk("a"), "/ns/a")
	k.Set([]Want{wanted("p1", dk("a"), "10.0.0.0/24")})
	k.Quiet(5 * time.Second)
	second := wanted("p2", dk("a"), "10.0.0.0/24")
	second.Plug.Auto4, second.Plug.Addresses = false, []netip.Prefix{netip.MustParsePrefix("10.0.0.77/24")}
	w.refuse(errors.New("the container has eth1 already"))
	if _, err := k.Now(context.Background(), second, nil); err == nil {
		t.Fatal("no error")
	}
	leasedTo(t, k, leases, "p1")
}

// slowUnplug takes its time.
type slowUnplug struct{ *world }

func (s slowUnplug) Unplug(h, a string) error {
	time.Sleep(300 * time.Millisecond)
	return s.world.Unplug(h, a)
}

// TestNowWhileItGoes plugs a port that is being unplugged, and forgets it: nothing is left.
func TestNowWhileItGoes(t *testing.T) {
	w := newWorld()
	k, leases := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Minute)
	k.wires = slowUnplug{w}
	w.run(dk("a"), "/ns/a")
	x := wanted("p1", dk("a"), "10.0.0.0/24")
	k.Set([]Want{x})
	k.Quiet(5 * time.Second)
	k.Set(nil)
	if _, err := k.Now(context.Background(), x, nil); err != nil {
		t.Fatal(err)
	}
	k.Forget("p1") // the store was full
	if p, _ := w.pair("p1"); p.Host != "" || len(leases.Leases("")) != 0 {
		t.Errorf("left: %v %v", p.Host, leases.Leases(""))
	}
}

// TestSeenElsewhere waits for a container that a port had once, and that is declared anew
// before it exists.
func TestSeenElsewhere(t *testing.T) {
	w := newWorld()
	k, _ := w.keeper(t, filepath.Join(t.TempDir(), "db"), 300*time.Millisecond)
	w.run(dk("a"), "/ns/a")
	w.run(dk("b"), "/ns/b")
	k.Set([]Want{wanted("p1", dk("a"), "10.0.0.0/24")})
	k.Quiet(5 * time.Second)
	k.Set([]Want{wanted("p1", dk("b"), "10.0.0.0/24")})
	k.Quiet(5 * time.Second)
	w.remove(dk("a"))
	k.Set([]Want{wanted("p1", dk("b"), "10.0.0.0/24"), wanted("p2", dk("a"), "10.0.0.0/24")})
	k.Quiet(5 * time.Second)
	if st, _ := k.State("p2"); st.State != Waiting {
		t.Errorf("it is %s: %s", st.State, st.Reason)
	}
}

// TestFailureKeepsAddresses: what works is not taken out of DNS for a look that failed.
func TestFailureKeepsAddresses(t *testing.T) {
	w := newWorld()
	k, leases := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Minute)
	w.run(dk("a"), "/ns/a")
	k.Set([]Want{wanted("p1", dk("a"), "10.0.0.0/24")})
	k.Quiet(5 * time.Second)
	w.refuse(errors.New("set route 10.9.0.0/16: the container has another to it already"))
	k.LookAt(config.ContainerRef{})
	until(t, "the failure", func() bool { st, _ := k.State("p1"); return st.State == Failed })
	leasedTo(t, k, leases, "p1")
	w.run(dk("a"), "/ns/a2") // another namespace: what it had is gone
	k.LookAt(config.ContainerRef{})
	until(t, "nothing", func() bool { st, _ := k.State("p1"); return st.State == Failed && len(st.Addresses) == 0 })
}

// hung is a Docker that never answers, beside namespaces that need none.
type hung struct{ *world }

func (h hung) Look(ctx context.Context, ref config.ContainerRef) (runtimes.Container, error) {
	if ref.Kind == config.DockerContainer {
		<-ctx.Done()
		return runtimes.Container{}, fmt.Errorf("%w: %w", runtimes.ErrNoAnswer, ctx.Err())
	}
	return h.world.Look(ctx, ref)
}

// TestHungRuntime holds up its own containers, and nobody else's.
func TestHungRuntime(t *testing.T) {
	w := newWorld()
	k, _ := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Minute)
	k.rt = hung{w}
	var wants []Want
	for i := range 3 * atOnce {
		wants = append(wants, wanted(fmt.Sprint("p", i), dk(fmt.Sprint("c", i)), "10.0.0.0/24"))
	}
	k.Set(wants)
	ns := config.ContainerRef{Kind: config.NetNSContainer, Name: "blue"}
	w.run(ns, "/ns/blue")
	began := time.Now()
	if _, err := k.Now(context.Background(), wanted("blue-1", ns, "10.0.0.0/24"), nil); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 3*time.Second {
		t.Errorf("it took %s", took)
	}
	k.Forget("blue-1")
	if p, _ := w.pair("blue-1"); p.Host != "" {
		t.Error("it is not unplugged")
	}
}

// TestAnothersNumber plugs nothing into the namespace of a process that has got the number of
// the container's since it was looked at.
func TestAnothersNumber(t *testing.T) {
	l := lab.New(t)
	h, other := l.Host("h"), l.Host("other")
	s := wire.Spec{Host: "p1", Alias: "vswitch test p1", IfName: "eth1", MTU: 1500, MAC: []byte{2, 0, 0, 0, 0, 1}}
	for _, same := range []bool{false, true} {
		err := h.Do(func() error {
			_, err := kernel{}.Plug("/run/netns/"+other.Name, func() bool { return same }, s, nil)
			return err
		})
		if same != (err == nil) || !same && !errors.Is(err, wire.ErrNoNamespace) {
			t.Errorf("its own: %v; error %v", same, err)
		}
		if _, err := other.Link("eth1"); same != (err == nil) {
			t.Errorf("its own: %v; its interface: %v", same, err)
		}
	}
}

// between does something before a release, as who comes in between does.
type between struct {
	leaser
	released func()
}

func (b *between) Release(pool, owner string) error {
	b.released()
	return b.leaser.Release(pool, owner)
}

// TestOneOwnerTwice has one plug of a container release what another of it leases at the same
// moment: who is plugged in has an address that nobody else gets.
func TestOneOwnerTwice(t *testing.T) {
	w := newWorld()
	k, leases := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Minute)
	w.run(dk("a"), "/ns/a")
	plugNow := func(port string) {
		if _, err := k.Now(context.Background(), wanted(port, dk("a"), "10.0.0.0/24"), nil); err != nil {
			t.Error(err)
		}
	}
	plugNow("p1")
	coming := make(chan struct{})
	k.leases = &between{k.leases, func() {
		go func() {
			defer close(coming)
			plugNow("p2")
		}()
		select {
		case <-coming: // it has the address that goes now
		case <-time.After(100 * time.Millisecond): // it waits, as it should
		}
	}}
	k.Forget("p1")
	<-coming
	leasedTo(t, k, leases, "p2")
	if n := len(leases.Leases("")); n != 1 {
		t.Errorf("%d leases for one plug", n)
	}
}

// TestOtherGateway looks at a container's other plug when one goes, whose gateway may be
// wanted now.
func TestOtherGateway(t *testing.T) {
	w := newWorld()
	k, _ := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Minute)
	w.run(dk("a"), "/ns/a")
	w.run(dk("b"), "/ns/b")
	first, second, others := wanted("p1", dk("a"), "10.0.0.0/24"), wanted("p2", dk("a"), "10.0.0.0/24"), wanted("p3", dk("b"), "10.0.0.0/24")
	second.Plug.IfName = "eth2"
	k.Set([]Want{first, second, others})
	k.Quiet(5 * time.Second)
	plugs := func() int { w.mu.Lock(); defer w.mu.Unlock(); return w.plugs }
	before := plugs()
	k.Set([]Want{second, others})
	until(t, "a look at the other", func() bool { return plugs() > before })
	k.Quiet(5 * time.Second)
	if n := plugs() - before; n != 1 {
		t.Errorf("%d were looked at", n)
	}
}
