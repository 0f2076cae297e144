package docker

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"vswitch/ctl/config"
	"vswitch/plug/held"
	"vswitch/plug/ipam"
	"vswitch/ports"
)

// double is a daemon as far as the driver sees it: a document, and the store of what is held.
type double struct {
	store *held.Store
	apply func(config.Document) error // makes it true; nil: that is for nobody to see

	mu  sync.Mutex
	doc config.Document // the operator's
	err error           // what the next Hold fails with
}

func (s *double) expanded() config.Document {
	d, _ := held.Expand(s.doc, s.store.List(""))
	return d
}

func (s *double) Hold(ctx context.Context, put []held.Item, del []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := errors.Join(s.err, ctx.Err()); err != nil {
		s.err = nil
		return err
	}
	for _, i := range put {
		if i.Owner != Owner {
			return fmt.Errorf("item %s is %q's", i.Key, i.Owner)
		}
	}
	if err := s.store.Change(put, Owner, del); err != nil {
		return err
	}
	if s.apply == nil {
		return nil
	}
	return s.apply(s.expanded())
}

func (s *double) Held() []held.Item { return s.store.List(Owner) }

func (s *double) Bridge(name string) (config.Bridge, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.expanded()
	if b := d.Bridge(name); b != nil {
		return *b, true
	}
	return config.Bridge{}, false
}

func (s *double) MeshBridge(name string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if m := s.doc.Mesh(name); m != nil {
		return m.Options["bridge"], true
	}
	return "", false
}

func (s *double) MTU(_ string, tagged bool) int {
	if tagged {
		return 1446
	}
	return 1450
}
func (s *double) Alias(port string) string { return ports.Owned("double", port) }

func (s *double) Published() map[string][]config.Publish {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := map[string][]config.Publish{}
	for _, b := range s.expanded().Bridges {
		for _, p := range b.Ports {
			if g, ok := p.Plug(); ok && len(g.Publish) > 0 {
				all[p.Name] = g.Publish
			}
		}
	}
	return all
}

// openDB opens a file for leases and items.
func openDB(t testing.TB, path string) *bbolt.DB {
	t.Helper()
	db, err := bbolt.Open(path, 0o600, &bbolt.Options{NoSync: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	return db
}

// newDouble makes a driver with doubles of the daemon and the kernel behind it.
func newDouble(t testing.TB, document string) (*Driver, *double, *fakeWires) {
	t.Helper()
	doc, err := config.Parse([]byte(document))
	if err != nil {
		t.Fatal(err)
	}
	db := openDB(t, filepath.Join(t.TempDir(), "plugs.db"))
	store, err := held.Open(db)
	if err != nil {
		t.Fatal(err)
	}
	leases, err := ipam.Open(db)
	if err != nil {
		t.Fatal(err)
	}
	s, w := &double{store: store, doc: doc}, &fakeWires{pairs: map[string]wire{}}
	return newDriver(Options{Switch: s, Leases: leases, Log: slog.New(slog.NewTextHandler(io.Discard, nil))}, leases, w), s, w
}

// fakeWires is a kernel with names alone.
type fakeWires struct {
	mu    sync.Mutex
	pairs map[string]wire
	err   error // what the next make fails with
	known []netip.Prefix
}

func (f *fakeWires) make(w wire) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		err := f.err
		f.err = nil
		return err
	}
	f.pairs[w.Host] = w
	return nil
}

func (f *fakeWires) remove(host, _ string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.pairs, host)
	return nil
}

func (f *fakeWires) there(host string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, ok := f.pairs[host]
	return ok
}

func (f *fakeWires) foreign(name, alias string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	w, ok := f.pairs[name]
	return ok && w.Alias != alias
}

func (f *fakeWires) routes() ([]netip.Prefix, error) { return f.known, nil }

// TestMain is also a daemon of its own, in whose host the kernel's bridge forwards instead of
// the switch: so that this package is tested with a real dockerd, and by itself.
func TestMain(m *testing.M) {
	if dir := os.Getenv("VSWITCH_DOCKER_DOUBLE"); dir != "" {
		if err := daemon(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// daemonFiles are below the directory that a daemon is given.
const (
	daemonDB       = "plugs.db"
	daemonDocument = "document.yaml"
	daemonSocket   = "d.sock"
	daemonAPI      = "docker" // a link to Docker's API socket
)

func daemon(dir string) error {
	ctx, stop := signal.NotifyContext(context.Background(), unix.SIGTERM)
	defer stop()
	text, err := os.ReadFile(filepath.Join(dir, daemonDocument))
	if err != nil {
		return err
	}
	doc, err := config.Parse(text)
	if err != nil {
		return err
	}
	db, err := bbolt.Open(filepath.Join(dir, daemonDB), 0o600, nil)
	if err != nil {
		return err
	}
	defer db.Close()
	store, err := held.Open(db)
	if err != nil {
		return err
	}
	leases, err := ipam.Open(db)
	if err != nil {
		return err
	}
	api := filepath.Join(dir, daemonAPI)
	k := &kernelBridges{}
	s := &double{store: store, doc: doc, apply: k.apply}
	log := slog.New(slog.NewTextHandler(os.Stderr, &slog.HandlerOptions{Level: slog.LevelDebug}))
	d := New(Options{Switch: s, Leases: leases, Docker: api, Log: log})
	events, done := make(chan netlink.LinkUpdate, 64), make(chan struct{})
	defer close(done)
	if err := netlink.LinkSubscribe(events, done); err != nil {
		return err
	}
	if err := s.Hold(ctx, nil, nil); err != nil {
		return err
	}
	go func() { // ends with the subscription
		for range events {
			if err := s.Hold(context.Background(), nil, nil); err != nil {
				log.Warn("the kernel's bridges", "err", err)
			}
		}
	}()
	go d.collect(ctx, 100*time.Millisecond, 200*time.Millisecond) // ends with ctx
	return d.Serve(ctx, filepath.Join(dir, daemonSocket))
}

// kernelBridges makes a document true with the kernel's bridges: one for each VLAN, since the
// kernels that this runs on do not all filter VLANs. An internal port is a veth pair.
type kernelBridges struct{}

const ours = "double "

func (k *kernelBridges) apply(d config.Document) error {
	var errs []error
	want := map[string]bool{}
	for _, b := range d.Bridges {
		want[b.Name] = true
		errs = append(errs, k.bridge(b))
		for _, p := range b.Ports {
			at := b.Name
			if tag := p.Options["tag"]; tag != b.Options["tag"] {
				at = "v" + tag + b.Name
				errs = append(errs, k.bridge(config.Bridge{Name: at}))
			}
			want[p.Name], want[at] = true, true
			errs = append(errs, k.port(at, p))
		}
	}
	links, err := netlink.LinkList()
	if err != nil {
		return err
	}
	for _, l := range links {
		if name, ok := strings.CutPrefix(l.Attrs().Alias, ours); ok && !want[name] {
			errs = append(errs, netlink.LinkDel(l))
		}
	}
	return errors.Join(errs...)
}

// host makes an interface of the host as its options say.
func (k *kernelBridges) host(name string, o config.Options, make func() error) error {
	l, err := netlink.LinkByName(name)
	if gone(err) {
		if err = make(); err == nil {
			l, err = netlink.LinkByName(name)
		}
		if err == nil {
			err = netlink.LinkSetAlias(l, ours+name)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if l.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := netlink.LinkSetUp(l); err != nil {
			return err
		}
	}
	return ports.SetAddresses(l.Attrs().Index, nil, o.Prefixes("ip"))
}

func (k *kernelBridges) bridge(b config.Bridge) error {
	return k.host(b.Name, b.Options, func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = b.Name
		return netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs})
	})
}

func (k *kernelBridges) port(bridge string, p config.Port) error {
	at := p.Name
	if p.Object() == config.InternalPort {
		at = "dp" + strings.TrimPrefix(p.Name, "vs")
		err := k.host(p.Name, p.Options, func() error {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = p.Name
			return netlink.LinkAdd(&netlink.Veth{LinkAttrs: attrs, PeerName: at})
		})
		if err != nil {
			return err
		}
	}
	l, err := netlink.LinkByName(at)
	if gone(err) {
		return nil // it is waited for
	}
	if err != nil || l.Attrs().MasterIndex != 0 {
		return err
	}
	m, err := netlink.LinkByName(bridge)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetMaster(l, m); err != nil {
		return err
	}
	return netlink.LinkSetUp(l)
}
