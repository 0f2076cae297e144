package plug

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
	"vswitch/plug/ipam"
	"vswitch/plug/runtimes"
	"vswitch/plug/wire"
)

// world is the runtimes and the kernel of a test: what containers there are, and what
// pairs were made.
type world struct {
	mu         sync.Mutex
	containers map[config.ContainerRef]runtimes.Container
	lookErr    error
	pairs      map[string]wire.Spec // by host's end
	where      map[string]string    // by host's end: namespace
	plugErr    error
	plugs      int
	announced  int
	gone       []string
}

func newWorld() *world {
	return &world{containers: map[config.ContainerRef]runtimes.Container{}, pairs: map[string]wire.Spec{}, where: map[string]string{}}
}

func (w *world) run(ref config.ContainerRef, ns string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for host, at := range w.where { // what was in its old namespace went with it
		if w.pairs[host].IfName != "" && at == w.containers[ref].NetNS && at != ns {
			delete(w.pairs, host)
			delete(w.where, host)
		}
	}
	w.containers[ref] = runtimes.Container{Ref: ref, Running: ns != "", NetNS: ns, Names: []string{ref.Name}}
}

func (w *world) remove(ref config.ContainerRef) {
	w.run(ref, "")
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.containers, ref)
}

func (w *world) Look(_ context.Context, ref config.ContainerRef) (runtimes.Container, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.lookErr != nil {
		return runtimes.Container{}, w.lookErr
	}
	c, ok := w.containers[ref]
	if !ok {
		return c, fmt.Errorf("%s: %w", ref, runtimes.ErrUnknown)
	}
	return c, nil
}

func (w *world) Plug(path string, _ func() bool, s wire.Spec, _ *wire.Spec) (wire.Plugged, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.plugs++
	if w.plugErr != nil {
		return wire.Plugged{}, w.plugErr
	}
	_, had := w.pairs[s.Host]
	w.pairs[s.Host], w.where[s.Host] = s, path
	return wire.Plugged{Made: !had}, nil
}

func (w *world) Unplug(host, alias string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.pairs, host)
	delete(w.where, host)
	return nil
}

func (w *world) Announce(path, ifname string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.announced++
	return nil
}

func (w *world) pair(host string) (wire.Spec, string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.pairs[host], w.where[host]
}

// keeper is one with leases in a file of the test's.
func (w *world) keeper(t *testing.T, path string, grace time.Duration) (*Keeper, *ipam.Store) {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{Timeout: time.Second, NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	leases, err := ipam.Open(db)
	if err != nil {
		t.Fatal(err)
	}
	past, err := OpenPast(db, "boot 1")
	if err != nil {
		t.Fatal(err)
	}
	k := newKeeper(w, w, leases, past, Options{Instance: "i", Grace: grace, Log: slog.New(slog.DiscardHandler), Hooks: Hooks{
		Changed: func(string) {},
		Gone: func(gone []Passing) {
			w.mu.Lock()
			defer w.mu.Unlock()
			for _, g := range gone {
				w.gone = append(w.gone, g.Port)
			}
		},
	}})
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	running.Go(func() { k.Run(ctx) }) // ends with ctx
	t.Cleanup(func() {
		cancel()
		running.Wait()
		k.Close()
		db.Close()
	})
	return k, leases
}

func wanted(port string, c config.ContainerRef, pool string) Want {
	w := Want{Port: port, Bridge: "br0", MTU: 1500, Alias: "a " + port, Plug: config.Plug{Container: c, IfName: "eth1", Auto4: true}}
	w.Gateways = []netip.Addr{netip.MustParseAddr("10.0.0.1")}
	p := netip.MustParsePrefix(pool)
	w.Pools = []ipam.Pool{{Name: "br0", Pool: config.Pool{Subnet: p, Range: p, Gateway: w.Gateways[0]}}}
	return w
}

func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(10 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%s did not come", what)
		}
	}
}

var web = config.ContainerRef{Kind: "docker", Name: "web"}

// TestKeeperLife follows a plug from a container that is to come, over its restart, to
// its removal and its leases' end.
func TestKeeperLife(t *testing.T) {
	w := newWorld()
	k, leases := w.keeper(t, filepath.Join(t.TempDir(), "db"), 300*time.Millisecond)
	state := func(want string) func() bool {
		return func() bool { st, _ := k.State("web-1"); return st.State == want }
	}
	k.Set([]Want{wanted("web-1", web, "10.0.0.0/24")})
	until(t, "waiting", func() bool {
		st, _ := k.State("web-1")
		return st.State == Waiting && strings.Contains(st.Reason, "no such container")
	})
	time.Sleep(600 * time.Millisecond) // two grace times: one that never was is not gone
	if len(w.gone) != 0 || len(leases.Leases("")) != 0 {
		t.Fatalf("a container that never was: gone %v, leases %v", w.gone, leases.Leases(""))
	}

	w.run(web, "/ns/1")
	k.LookAt(web)
	until(t, "plugged", state(Plugged))
	first, at := w.pair("web-1")
	if at != "/ns/1" || len(first.Addresses) != 1 || !slices.Equal(first.Gateways, []netip.Addr{netip.MustParseAddr("10.0.0.1")}) || !first.Soft {
		t.Fatalf("plugged as %+v in %s", first, at)
	}

	w.run(web, "")
	k.LookAt(web)
	until(t, "waiting again", state(Waiting))
	w.run(web, "/ns/2")
	k.LookAt(web)
	until(t, "plugged again", state(Plugged))
	again, at := w.pair("web-1")
	if at != "/ns/2" || !slices.Equal(again.Addresses, first.Addresses) || !slices.Equal(again.MAC, first.MAC) {
		t.Fatalf("after a restart %+v in %s; it was %+v", again, at, first)
	}

	// A runtime that does not answer is no reason to unplug.
	w.mu.Lock()
	w.lookErr = fmt.Errorf("docker: %w", runtimes.ErrNoAnswer)
	w.mu.Unlock()
	k.LookAt(config.ContainerRef{})
	time.Sleep(600 * time.Millisecond)
	if st, _ := k.State("web-1"); st.State != Plugged || len(w.gone) != 0 {
		t.Fatalf("without its runtime it is %+v, gone %v", st, w.gone)
	}
	w.mu.Lock()
	w.lookErr = nil
	w.mu.Unlock()

	w.remove(web)
	k.LookAt(web)
	until(t, "going", state(Going))
	until(t, "word that it is gone", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.gone) > 0 })
	if n := len(leases.Leases("")); n != 1 {
		t.Fatalf("%d leases while the plug is wanted", n)
	}
	k.Set(nil)
	until(t, "the end of the lease", func() bool { return len(leases.Leases("")) == 0 })
	if _, ok := k.State("web-1"); ok {
		t.Error("it is still known")
	}
}

// TestKeeperComesBackInTime keeps the address of a container that is made anew within
// the grace time.
func TestKeeperComesBackInTime(t *testing.T) {
	w := newWorld()
	k, _ := w.keeper(t, filepath.Join(t.TempDir(), "db"), 5*time.Second)
	w.run(web, "/ns/1")
	k.Set([]Want{wanted("web-1", web, "10.0.0.0/24")})
	until(t, "plugged", func() bool { st, _ := k.State("web-1"); return st.State == Plugged })
	first, _ := w.pair("web-1")
	w.remove(web)
	k.LookAt(web)
	until(t, "going", func() bool { st, _ := k.State("web-1"); return st.State == Going })
	w.run(web, "/ns/9")
	k.LookAt(web)
	until(t, "plugged again", func() bool { st, _ := k.State("web-1"); return st.State == Plugged })
	again, at := w.pair("web-1")
	if at != "/ns/9" || !slices.Equal(again.Addresses, first.Addresses) || len(w.gone) != 0 {
		t.Errorf("%+v in %s, gone %v", again, at, w.gone)
	}
}

// TestNowLeavesNothing has every way to fail leave no pair, no lease and no plug.
func TestNowLeavesNothing(t *testing.T) {
	boom := errors.New("boom")
	for name, c := range map[string]struct {
		break_ func(*world, *Want)
		want   error
	}{
		"unknown container": {func(w *world, _ *Want) { w.remove(web) }, runtimes.ErrUnknown},
		"no answer":         {func(w *world, _ *Want) { w.lookErr = runtimes.ErrNoAnswer }, runtimes.ErrNoAnswer},
		"kernel refuses":    {func(w *world, _ *Want) { w.plugErr = boom }, boom},
		"dies during plug":  {func(w *world, _ *Want) { w.plugErr = wire.ErrNoNamespace }, nil},
		"address taken": {func(w *world, q *Want) {
			q.Plug.Auto4, q.Plug.Addresses = false, []netip.Prefix{netip.MustParsePrefix("10.0.0.9/24")}
		}, ipam.ErrTaken},
		"subnet full": {func(w *world, q *Want) {
			q.Pools[0].Subnet = netip.MustParsePrefix("10.0.0.0/30")
			q.Pools[0].Range = q.Pools[0].Subnet
			q.Pools[0].Exclude = []config.AddrRange{{First: netip.MustParseAddr("10.0.0.2"), Last: netip.MustParseAddr("10.0.0.3")}}
		}, ipam.ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld()
			k, leases := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Second)
			w.run(web, "/ns/1")
			if err := leases.Reserve("br0", netip.MustParseAddr("10.0.0.9"), "docker:db eth1"); err != nil {
				t.Fatal(err)
			}
			q := wanted("web-1", web, "10.0.0.0/24")
			c.break_(w, &q)
			_, err := k.Now(context.Background(), q, nil)
			if err == nil || c.want != nil && !errors.Is(err, c.want) {
				t.Errorf("error %v; want %v", err, c.want)
			}
			if _, ok := k.State("web-1"); ok {
				t.Error("a plug is left")
			}
			if all := leases.Leases(""); len(all) != 1 {
				t.Errorf("leases left: %v", all)
			}
			if len(w.pairs) != 0 {
				t.Errorf("pairs left: %v", w.pairs)
			}
		})
	}
}

// TestAnnouncedAfterStart tells neighbours also where the port was up before the plug was
// looked at.
func TestAnnouncedAfterStart(t *testing.T) {
	w := newWorld()
	k, _ := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Second)
	w.lookErr = runtimes.ErrNoAnswer
	w.run(web, "/ns/1")
	k.Set([]Want{wanted("web-1", web, "10.0.0.0/24")})
	until(t, "no answer", func() bool { st, _ := k.State("web-1"); return st.State == Failed })
	k.Up("web-1")
	w.mu.Lock()
	w.lookErr = nil
	w.mu.Unlock()
	k.LookAt(web)
	until(t, "two announcements", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return w.announced == 2 })
}

// TestCollect frees what a daemon leased that died before it plugged, and leaves what is
// somebody else's.
func TestCollect(t *testing.T) {
	path := filepath.Join(t.TempDir(), "db")
	w := newWorld()
	k, leases := w.keeper(t, path, time.Second)
	w.run(web, "/ns/1")
	q := wanted("web-1", web, "10.0.0.0/24")
	for _, owner := range []string{"docker:dead eth1", "docker endpoint x"} {
		if _, err := leases.Lease(q.Pools[0], owner, nil); err != nil {
			t.Fatal(err)
		}
	}
	k.Set([]Want{q})
	until(t, "plugged", func() bool { st, _ := k.State("web-1"); return st.State == Plugged })
	k.Collect(func(l ipam.Lease) bool { return strings.HasPrefix(l.Owner, "docker endpoint") })
	var owners []string
	for _, l := range leases.Leases("") {
		owners = append(owners, l.Owner)
	}
	slices.Sort(owners)
	if !slices.Equal(owners, []string{"docker endpoint x", "docker:web eth1"}) {
		t.Errorf("owners %q", owners)
	}
}

// TestMovesKeepTheirAddress lets a plug move to another port with the lease it has.
func TestMovesKeepTheirAddress(t *testing.T) {
	w := newWorld()
	k, _ := w.keeper(t, filepath.Join(t.TempDir(), "db"), time.Second)
	w.run(web, "/ns/1")
	k.Set([]Want{wanted("web-1", web, "10.0.0.0/24")})
	until(t, "plugged", func() bool { st, _ := k.State("web-1"); return st.State == Plugged })
	first, _ := w.pair("web-1")
	k.Set([]Want{wanted("web-2", web, "10.0.0.0/24")})
	until(t, "moved", func() bool {
		st, _ := k.State("web-2")
		_, old := k.State("web-1")
		gone, _ := w.pair("web-1")
		return st.State == Plugged && !old && gone.Host == ""
	})
	second, _ := w.pair("web-2")
	if !slices.Equal(first.Addresses, second.Addresses) {
		t.Errorf("%v became %v", first.Addresses, second.Addresses)
	}
}
