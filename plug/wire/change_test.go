package wire_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
	"vswitch/plug/wire"
)

func TestAdopt(t *testing.T) {
	g := newGround(t)
	s := spec()
	first := g.mustPlug(s, nil)
	g.unchanged(func() {
		for _, had := range []*wire.Spec{nil, &s} {
			p := g.mustPlug(s, had)
			if p.Made || p.Host != first.Host || p.Container != first.Container {
				t.Errorf("the pair that is there is %+v, was %+v", p, first)
			}
		}
	})
}

// A Plug that has nothing to change is no event to anybody: events are what makes the
// switch look again.
func TestAdoptIsSilent(t *testing.T) {
	g := newGround(t)
	s := spec()
	g.mustPlug(s, nil)
	for _, n := range []*lab.Host{g.h, g.c} {
		p := n.Start("ip", "-oneline", "monitor", "link", "address", "route")
		n.MustExec("ip", "link", "add", "name", "mark0", "type", "bridge")
		heard := func(what string) {
			t.Helper()
			lab.Eventually(t, 5*time.Second, func() error {
				if out := p.Out.String(); !strings.Contains(out, what) {
					return fmt.Errorf("no event of %s in %q", what, out)
				}
				return nil
			})
		}
		// Until it listens, and then between two events.
		lab.Eventually(t, 5*time.Second, func() error {
			n.MustExec("ip", "link", "set", "mark0", "mtu", "1400")
			n.MustExec("ip", "link", "set", "mark0", "mtu", "1401")
			if !strings.Contains(p.Out.String(), "mtu 1401") {
				return errors.New("ip monitor does not listen")
			}
			return nil
		})
		n.MustExec("ip", "link", "set", "mark0", "mtu", "1402")
		heard("mtu 1402")
		for _, had := range []*wire.Spec{nil, &s} {
			if p := g.mustPlug(s, had); p.Made {
				t.Error("made again")
			}
		}
		n.MustExec("ip", "link", "set", "mark0", "mtu", "1403")
		heard("mtu 1403")
		_, after, _ := strings.Cut(p.Out.String(), "mtu 1402")
		_, after, _ = strings.Cut(after, "\n")
		for line := range strings.Lines(after) {
			if !strings.Contains(line, "mark0") {
				t.Errorf("an event in %s: %s", n.Name, line)
			}
		}
	}
}

// Everything of a pair that is there can be changed.
func TestChange(t *testing.T) {
	g := newGround(t)
	had := spec()
	first := g.mustPlug(had, nil)
	// What somebody else gave the interface stays.
	g.c.MustExec("ip", "addr", "add", "10.1.0.77/24", "dev", "eth1")
	g.c.MustExec("ip", "route", "add", "10.77.0.0/16", "via", "10.1.0.1")

	s := wire.Spec{
		Host: "p1", Alias: had.Alias, IfName: "eth2", MTU: 9000, MAC: []byte{2, 0, 0, 0, 0, 0x12},
		Addresses: prefixes("10.1.0.6/24", "10.1.0.5/25", "fd00:1::6/64", "fd00:1::5/48"),
		Gateways:  addrs("10.1.0.2", "fd00:1::2"),
		Routes:    []wire.Route{route("10.9.0.0/16 10.1.0.8"), route("fd00:9::/64 fd00:1::9"), route("10.11.0.0/16")},
	}
	p := g.mustPlug(s, &had)
	if p != (wire.Plugged{Host: first.Host, Container: first.Container}) {
		t.Errorf("the pair is %+v, was %+v", p, first)
	}
	g.has(g.c,
		fmt.Sprintf("link %d eth2 veth mtu 9000 mac 02:00:00:00:00:12 alias %q up true", p.Container, s.Alias),
		"address 10.1.0.6/24 on eth2", "address 10.1.0.5/25 on eth2", "address 10.1.0.77/24 on eth2",
		"address fd00:1::6/64 on eth2", "address fd00:1::5/48 on eth2",
		"route 0.0.0.0/0 via 10.1.0.2 on eth2 metric 0", "route ::/0 via fd00:1::2 on eth2 metric 1024",
		"route 10.9.0.0/16 via 10.1.0.8 on eth2 metric 0", "route 10.11.0.0/16 via link on eth2 metric 0",
		"route 10.77.0.0/16 via 10.1.0.1 on eth2 metric 0", "route fd00:9::/64 via fd00:1::9 on eth2 metric 1024",
	)
	for _, gone := range []string{"10.1.0.5/24", "fd00:1::5/64", "via 10.1.0.1 on eth2 metric 0 default", "10.8.0.0/16", "10.1.0.9", "0.0.0.0/0 via 10.1.0.1", "::/0 via fd00:1::1"} {
		g.hasNot(g.c, gone)
	}
	if l, err := g.h.Link("p1"); err != nil || l.Attrs().MTU != 9000 {
		t.Errorf("the host's end has MTU %v, error %v", l, err)
	}

	// All of it again goes away.
	bare := s
	bare.Addresses, bare.Gateways, bare.Routes = nil, nil, nil
	g.mustPlug(bare, &s)
	g.has(g.c, "address 10.1.0.77/24 on eth2")
	for _, gone := range []string{"10.1.0.6", "10.1.0.5", "fd00:1::", "/0 via", "10.11.0.0"} {
		g.hasNot(g.c, gone)
	}
}

// A Spec whose pair leads to the container's last life is plugged into its new one, and
// the old end goes.
func TestMovesToTheNewNamespace(t *testing.T) {
	g := newGround(t)
	other := g.l.Host("c2")
	s := spec()
	g.mustPlug(s, nil)
	p, err := g.plugInto(other, s, &s)
	if err != nil || !p.Made {
		t.Fatalf("plugged %+v, error %v", p, err)
	}
	g.has(other, "address 10.1.0.5/24 on eth1")
	g.hasNot(g.c, "eth1")
}

// Whoever made the pair was killed before it wrote the alias: the group says whose it is.
func TestUnfinished(t *testing.T) {
	g := newGround(t)
	s := spec()
	unfinish := func() {
		g.mustPlug(s, nil)
		g.h.MustExec("ip", "link", "set", "p1", "alias", "")
		g.h.MustExec("ip", "link", "set", "p1", "group", fmt.Sprint(wire.Making(s.Alias)))
	}
	unfinish()
	if p := g.mustPlug(s, nil); !p.Made {
		t.Errorf("the pair is %+v", p)
	}
	if err := g.h.Do(func() error { return wire.Unplug("p1", s.Alias) }); err != nil {
		t.Error(err)
	}
	unfinish()
	leftovers := func(prefix string) (left []string) {
		t.Helper()
		err := g.h.Do(func() (err error) {
			left, err = wire.Leftovers(func(host string) string { return prefix + host })
			return err
		})
		if err != nil {
			t.Error(err)
		}
		return left
	}

	// Another daemon of this namespace may be making it at this moment.
	other := s
	other.Alias = "vswitch other p1"
	g.unchanged(func() {
		if left := leftovers("vswitch other "); len(left) > 0 {
			t.Errorf("another daemon takes %v for its own", left)
		}
		if err := g.h.Do(func() error { return wire.Unplug("p1", other.Alias) }); !errors.Is(err, wire.ErrTaken) {
			t.Errorf("another daemon unplugs it: %v", err)
		}
		if _, err := g.plug(other, nil); !errors.Is(err, wire.ErrTaken) {
			t.Errorf("another daemon plugs over it: %v", err)
		}
	})

	if left := leftovers("vswitch test "); !slices.Equal(left, []string{"p1"}) {
		t.Errorf("leftovers are %v", left)
	}
	if err := g.h.Do(func() error { return wire.Unplug("p1", s.Alias) }); err != nil {
		t.Error(err)
	}
	g.hasNot(g.h, "p1")

	// One that only has no alias is somebody's.
	g.mustPlug(s, nil)
	g.h.MustExec("ip", "link", "set", "p1", "alias", "")
	g.unchanged(func() {
		if _, err := g.plug(s, nil); !errors.Is(err, wire.ErrTaken) {
			t.Errorf("plugged over somebody's pair: %v", err)
		}
	})
}

// A process is killed while it plugs, at every moment: whoever comes after it finds all
// that it made.
func TestKilled(t *testing.T) {
	g := newGround(t)
	s := spec()
	before, inside := g.state(g.h), g.state(g.c)
	for i := range 24 {
		p := g.h.Start("env", "WIRE_TEST_PLUG="+path(g.c), os.Args[0], "-test.run=^TestKilled$")
		begun := func() error {
			if !strings.Contains(p.Out.String(), "begin") {
				return errors.New("it has not begun")
			}
			return nil
		}
		lab.Eventually(t, 10*time.Second, begun)
		time.Sleep(time.Duration(i) * 150 * time.Microsecond) // spread over the Plug
		p.Kill()
		if i%2 == 0 {
			g.mustPlug(s, nil)
			g.has(g.c, "address 10.1.0.5/24 on eth1", "route 10.9.0.0/16 via 10.1.0.9 on eth1 metric 0")
		}
		if i%2 == 1 { // what has an alias is known by it
			left := strings.Contains(strings.Join(g.state(g.h), "\n"), " p1 veth ")
			named := strings.Contains(strings.Join(g.state(g.h), "\n"), strconv.Quote(s.Alias))
			g.h.Do(func() error {
				unnamed, err := wire.Leftovers(func(host string) string { return "vswitch test " + host })
				if err != nil || left && !named && !slices.Equal(unnamed, []string{"p1"}) {
					t.Errorf("round %d: unnamed are %v, error %v", i, unnamed, err)
				}
				return nil
			})
		}
		if err := g.h.Do(func() error { return wire.Unplug("p1", s.Alias) }); err != nil {
			t.Errorf("round %d: %v", i, err)
		}
		for _, d := range [][]string{lab.Snapshot(before).Diff(g.state(g.h)), lab.Snapshot(inside).Diff(g.state(g.c))} {
			if len(d) > 0 {
				t.Fatalf("round %d: left behind: %v", i, d)
			}
		}
	}
}

// TestMain is TestKilled's other process, too: it plugs and unplugs until it is killed.
func TestMain(m *testing.M) {
	path := os.Getenv("WIRE_TEST_PLUG")
	if path == "" {
		os.Exit(m.Run())
	}
	n, err := wire.Open(path)
	if err != nil {
		panic(err)
	}
	fmt.Println("begin")
	for {
		if _, err := wire.Plug(n, spec(), nil); err != nil {
			panic(err)
		}
		if err := wire.Unplug(spec().Host, spec().Alias); err != nil {
			panic(err)
		}
	}
}

// A second network card: whose default route it is.
func TestDefaultRoutes(t *testing.T) {
	g := newGround(t)
	crowd(g) // eth0 has IPv4's, and IPv6 has none
	s := spec()
	s.Soft = true
	g.mustPlug(s, nil)
	g.has(g.c, "route 0.0.0.0/0 via 10.5.0.1 on eth0 metric 0", "route ::/0 via fd00:1::1 on eth1 metric 1024")
	g.hasNot(g.c, "0.0.0.0/0 via 10.1.0.1")
	g.unchanged(func() { g.mustPlug(s, &s) })

	// Another that insists goes first, and gives way when it goes.
	before := g.state(g.c)
	hard := spec()
	hard.Host, hard.Alias, hard.IfName = "p2", "vswitch test p2", "eth2"
	hard.Addresses, hard.Gateways, hard.Routes = prefixes("10.2.0.5/24", "fd00:2::5/64"), addrs("10.2.0.1", "fd00:2::1"), nil
	for _, had := range []*wire.Spec{nil, &hard} {
		g.mustPlug(hard, had)
		for dst, via := range map[string]string{"192.0.2.1": "10.2.0.1", "2001:db8::1": "fd00:2::1"} {
			if out := g.c.MustExec("ip", "route", "get", dst); !strings.Contains(out, "via "+via+" dev eth2") {
				t.Errorf("the way to %s is %q, want via %s", dst, out, via)
			}
		}
	}
	g.h.Do(func() error { return wire.Unplug("p2", hard.Alias) })
	if diff := lab.Snapshot(before).Diff(g.state(g.c)); len(diff) > 0 {
		t.Errorf("after it went: %v", diff)
	}
}

// The gateway may be outside of the addresses' subnets, where a route on the link holds it.
func TestGatewayOnTheLink(t *testing.T) {
	g := newGround(t)
	s := spec()
	s.Addresses, s.Gateways = prefixes("10.1.0.5/32", "fd00:1::5/128"), addrs("10.1.0.1", "fe80::1")
	s.Routes = []wire.Route{route("10.1.0.1/32")}
	g.mustPlug(s, nil)
	g.has(g.c, "route 10.1.0.1/32 via link on eth1 metric 0", "route 0.0.0.0/0 via 10.1.0.1 on eth1 metric 0", "route ::/0 via fe80::1 on eth1 metric 1024")
}

// The container goes while it is plugged in, at every moment: nothing is left in the
// host, and what is said is either that it worked or that the namespace is gone.
func TestNamespaceGoes(t *testing.T) {
	g := newGround(t)
	before := g.state(g.h)
	const rounds = 60
	var worked, gone int
	for i := range rounds {
		path, end := mortal(t)
		var wg sync.WaitGroup
		if i%3 > 0 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 200 * time.Microsecond) // spread over the Plug
				end()
			})
		} else {
			wg.Go(end)
			runtime.Gosched() // spread over its beginning, and before
		}
		_, err := g.plugPath(path, spec(), nil)
		wg.Wait()
		switch {
		case err == nil:
			worked++
		case errors.Is(err, wire.ErrNoNamespace):
			gone++
		default:
			t.Errorf("round %d: %v", i, err)
		}
		// Where the last round's pair is still there it leads to a namespace that the
		// kernel is about to take apart: in its own time.
	}
	lab.Eventually(t, 10*time.Second, func() error {
		if diff := lab.Snapshot(before).Diff(g.state(g.h)); len(diff) > 0 {
			return fmt.Errorf("left behind: %v", diff)
		}
		return nil
	})
	t.Logf("of %d: %d plugged in before the end, %d too late", rounds, worked, gone)
}

// mortal makes a network namespace that only a thread holds, as a container's processes
// hold theirs, and returns its path and what ends it.
func mortal(t *testing.T) (path string, end func()) {
	t.Helper()
	made, stop, ended := make(chan error), make(chan struct{}), make(chan struct{})
	var tid int
	hold := func() { // ends with end, and its thread with it: it stays locked
		defer close(ended)
		runtime.LockOSThread()
		tid = unix.Gettid()
		made <- unix.Unshare(unix.CLONE_NEWNET)
		<-stop
	}
	go func() {
		// The first thread does not end with its goroutine, and stays where it is.
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if unix.Gettid() == os.Getpid() {
			go hold() // on another, as long as this one is locked
			<-ended
			return
		}
		hold()
	}()
	if err := <-made; err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf("/proc/self/task/%d/ns/net", tid), func() { close(stop); <-ended }
}

// Somebody removes one end or the other while it is plugged in: an error or a pair, and
// after an error nothing.
func TestInterfaceGoes(t *testing.T) {
	g := newGround(t)
	before, inside := g.state(g.h), g.state(g.c)
	for i := range 40 {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			n, name := g.c, "eth1"
			if i%2 == 0 {
				n, name = g.h, "p1"
			}
			_ = n.Do(func() error {
				for {
					select {
					case <-stop:
						return nil
					default:
					}
					if l, err := netlink.LinkByName(name); err == nil {
						time.Sleep(time.Duration(i) * 100 * time.Microsecond) // spread over the Plug
						_ = netlink.LinkDel(l)
						return nil
					}
				}
			})
		})
		_, err := g.plug(spec(), nil)
		if err != nil {
			for _, d := range [][]string{lab.Snapshot(before).Diff(g.state(g.h)), lab.Snapshot(inside).Diff(g.state(g.c))} {
				if len(d) > 0 {
					t.Errorf("round %d: after %v: %v", i, err, d)
				}
			}
		}
		close(stop)
		wg.Wait()
		if err := g.h.Do(func() error { return wire.Unplug("p1", spec().Alias) }); err != nil {
			t.Error(err)
		}
	}
}

// Many containers at once, each on a thread of its own: no thread is left where it does
// not belong.
func TestManyAtOnce(t *testing.T) {
	g := newGround(t)
	const many = 16
	var hosts []*lab.Host
	for i := range many {
		hosts = append(hosts, g.l.Host(fmt.Sprint("m", i)))
	}
	var wg sync.WaitGroup
	for i, c := range hosts {
		wg.Go(func() {
			s := spec()
			s.Host, s.Alias = fmt.Sprint("p", i), fmt.Sprint("vswitch test p", i)
			s.MAC = slices.Clone(s.MAC)
			for range 3 {
				if _, err := g.plugInto(c, s, &s); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	for _, c := range hosts {
		g.has(c, "address 10.1.0.5/24 on eth1")
	}
	strayThreads(t)
}

// A container has made many routes: they cost the switch no memory. A test's few thousand
// stand for a million, which a container makes in seconds.
func TestManyRoutes(t *testing.T) {
	g := newGround(t)
	s := spec()
	g.mustPlug(s, nil)
	const many = 4096
	var batch strings.Builder
	for i := range many {
		fmt.Fprintf(&batch, "route add 172.%d.%d.%d/32 dev eth1\n", 16+i>>16, i>>8&255, i&255)
	}
	file := filepath.Join(t.TempDir(), "batch")
	if err := os.WriteFile(file, []byte(batch.String()), 0o600); err != nil {
		t.Fatal(err)
	}
	g.c.MustExec("ip", "-batch", file)
	err := g.h.Do(func() error {
		n, err := wire.Open(path(g.c))
		if err != nil {
			return err
		}
		defer n.Close()
		kept, err := wire.RoutesKept(n, s)
		if want := len(s.Routes) + len(s.Gateways); kept > want {
			t.Errorf("of %d routes %d are kept, and %d are ours", many, kept, want)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	changed := s
	changed.Routes = []wire.Route{route("10.9.0.0/16 10.1.0.8")}
	g.mustPlug(changed, &s)
	g.has(g.c, "route 10.9.0.0/16 via 10.1.0.8 on eth1 metric 0")
	g.hasNot(g.c, "10.8.0.0/16")
}
