package docker

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

const patient = 10 * time.Second

// bench is a host with a real dockerd, and a process that is our driver with the kernel's
// bridges behind it:
//
//	┌─ Host "a" ─────────────────────────────────────────────────────────┐
//	│ dockerd, containerd ──/etc/docker/plugins/vswitch.spec──▶ d.sock    │
//	│ this test's binary as a daemon: driver, kernel bridges, collector   │
//	│                                                                     │
//	│ n1 = vs-… (10.1.0.1/16)                    br0 10.0.0.1/24          │
//	│   │ c1   │ c2                                                       │
//	└─────────────────────────────────────────────────────────────────────┘
//
// What the whole switch makes of it is tried in ctl.
type bench struct {
	*lab.Docker
	host   *lab.Host
	dir    string
	daemon *lab.Proc
}

func newBench(t *testing.T, document string, o lab.DockerOptions) *bench {
	t.Helper()
	h := lab.New(t).Host("a")
	dir, err := os.MkdirTemp("", "vsd") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{host: h, dir: dir}
	if err := os.WriteFile(filepath.Join(dir, daemonDocument), []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	o.PluginSpecs = map[string]string{"vswitch": "unix://" + filepath.Join(dir, daemonSocket)}
	o.NoIPTables = true // it would drop what the kernel's bridge forwards; the switch's frames it never sees
	b.Docker = h.Docker(o)
	if err := os.Symlink(b.Socket, filepath.Join(dir, daemonAPI)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the driver's log:\n%s", b.daemon.Out)
		}
	})
	return b
}

// start starts the driver's process and waits until it listens.
func (b *bench) start(t *testing.T) {
	t.Helper()
	b.daemon = b.host.Start("env", "VSWITCH_DOCKER_DOUBLE="+b.dir, os.Args[0])
	lab.Eventually(t, patient, func() error {
		c, err := net.Dial("unix", filepath.Join(b.dir, daemonSocket))
		if err == nil {
			c.Close()
		}
		return err
	})
}

// links are the host's interfaces that somebody made for Docker's networks.
func (b *bench) links(t *testing.T) (names []string) {
	t.Helper()
	for line := range strings.Lines(b.host.MustExec("ip", "-o", "link")) {
		name, _, _ := strings.Cut(strings.TrimSuffix(strings.Fields(line)[1], ":"), "@")
		if !slices.Contains([]string{"lo", "docker0", "br0"}, name) {
			names = append(names, name)
		}
	}
	return names
}

func TestDocker(t *testing.T) {
	b := newBench(t, "bridges: [{name: br0, ip: 10.0.0.1/24}]", lab.DockerOptions{LiveRestore: true})
	run := func(args ...string) {
		t.Helper()
		b.Must(slices.Concat([]string{"run", "-d", "--init"}, args, []string{lab.BusyboxImage, "sleep", "1000"})...)
	}
	once := func(args ...string) (string, error) {
		return b.Docker.Docker(slices.Concat([]string{"run", "--rm"}, args)...)
	}
	const subnet = "10.208.0.0/24"
	b.Must("network", "create", "-d", "vswitch", "--ipam-driver", "vswitch", "--subnet", subnet, "n1")
	run("--name", "c1", "--network", "n1", "--hostname", "c1")
	b.Must("network", "create", "-d", "vswitch", "--ipam-driver", "vswitch", "n2")
	if out := b.Must("network", "inspect", "-f", "{{range .IPAM.Config}}{{.Subnet}}{{end}}", "n2"); out != "10.208.1.0/24" {
		t.Errorf("subnet of n2: %s", out)
	}
	b.Must("network", "rm", "n2")
	if out := b.Must("exec", "c1", "ip", "addr", "show", "eth0"); !strings.Contains(out, "10.208.0.2/24") || !strings.Contains(out, "02:42:0a:d0:00:02") || !strings.Contains(out, "mtu 1450") {
		t.Error(out)
	}
	if out, err := once("--network", "n1", lab.BusyboxImage, "ping", "-c1", "-W2", "c1"); err != nil {
		t.Error(out, err)
	}
	// A fixed address, taken and free again.
	if _, err := once("--network", "n1", "--ip", "10.208.0.2", lab.BusyboxImage, "true"); err == nil || !strings.Contains(err.Error(), "address is taken by docker/") {
		t.Errorf("c1's address is given away: %v", err)
	}
	// What Docker says of a container's ports, and that it says nothing.
	run("--name", "web", "--network", "n1", "-p", "18080:80")
	if out := b.Must("port", "web"); out != "" {
		t.Errorf("docker port learned of remote drivers: %s", out)
	}
	b.Must("rm", "-f", "web")

	// The driver dies in between, and Docker waits for it.
	b.daemon.Kill()
	done := make(chan error, 1)
	go func() { // ends with docker run
		_, err := once("--network", "n1", lab.BusyboxImage, "ping", "-c1", "-W2", "10.208.0.2")
		done <- err
	}()
	b.start(t)
	if err := <-done; err != nil {
		t.Error(err)
	}

	// Docker forgets all it knew of networks: a disk was restored, say. The collector forgets it, too.
	before := b.links(t)
	if len(before) != 2 {
		t.Errorf("interfaces: %v", before)
	}
	b.Must("rm", "-f", "c1")
	run("--name", "c2", "--network", "n1")
	b.Kill()
	if err := os.RemoveAll(filepath.Join(filepath.Dir(b.Socket), "dr", "network")); err != nil {
		t.Fatal(err)
	}
	b.Docker.Start()
	lab.Eventually(t, patient, func() error {
		if l := b.links(t); len(l) != 0 {
			return fmt.Errorf("interfaces are left: %v", l)
		}
		return nil
	})
	b.Must("rm", "-f", "c2")
	b.Must("network", "create", "-d", "vswitch", "--ipam-driver", "vswitch", "--subnet", subnet, "n1")
	b.Must("network", "rm", "n1")
}

// TestPair makes real pairs, in a namespace of their own.
func TestPair(t *testing.T) {
	l := lab.New(t)
	h, c := l.Host("a"), l.Host("c")
	w := wire{Host: "aaaaaaaa-123456", Peer: "vsdaaaaaaaaaaaa", Alias: "vswitch x aaaaaaaa-123456", MAC: net.HardwareAddr{2, 0x42, 10, 0, 0, 5}, MTU: 1400}
	links := func() (names []string) {
		all, err := netlink.LinkList()
		if err != nil {
			t.Error(err)
		}
		for _, l := range all {
			if l.Attrs().Name != "lo" {
				names = append(names, l.Attrs().Name)
			}
		}
		slices.Sort(names)
		return names
	}
	target, err := os.Open("/run/netns/" + c.Name)
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	err = h.Do(func() error {
		k := kernel{}
		for _, mtu := range []int{1400, 1300} { // Docker retries, and a tunnel got smaller
			w.MTU = mtu
			if err := k.make(w); err != nil {
				return err
			}
			if got := links(); !slices.Equal(got, []string{w.Host, w.Peer}) {
				return fmt.Errorf("interfaces: %v", got)
			}
		}
		for _, name := range []string{w.Host, w.Peer} {
			l, err := netlink.LinkByName(name)
			if err != nil {
				return err
			}
			if a := l.Attrs(); a.Alias != w.Alias || a.MTU != 1300 || name == w.Peer && !bytes.Equal(a.HardwareAddr, w.MAC) {
				return fmt.Errorf("%s: %+v", name, a)
			}
		}
		if text, err := os.ReadFile("/proc/thread-self/net/if_inet6"); err == nil && bytes.Contains(text, []byte(w.Host)) {
			return fmt.Errorf("the host speaks IPv6 on the wire: %s", text)
		}
		// Docker moves the peer; the container ends without a word, and Docker joins it again.
		peer, err := netlink.LinkByName(w.Peer)
		if err == nil {
			err = netlink.LinkSetNsFd(peer, int(target.Fd()))
		}
		if err != nil {
			return err
		}
		old, err := netlink.LinkByName(w.Host)
		if err != nil {
			return err
		}
		if err := k.make(w); err != nil {
			return err
		}
		host, err := netlink.LinkByName(w.Host)
		if err != nil || host.Attrs().Index == old.Attrs().Index || len(links()) != 2 {
			return errors.Join(err, fmt.Errorf("the pair was not made anew: %v", links()))
		}
		if k.foreign(w.Host, w.Alias) || !k.foreign(w.Host, "") || k.foreign("nobody", "") {
			return errors.New("it is not known whose an interface is")
		}
		if !k.there(w.Host) {
			return errors.New("the pair is not seen")
		}
		for range 2 {
			if err := k.remove(w.Host, w.Alias); err != nil {
				return err
			}
		}
		if k.there(w.Host) || len(links()) != 0 {
			return fmt.Errorf("left: %v", links())
		}
		// What is somebody else's stays, whichever end has its name.
		for _, name := range []string{w.Host, w.Peer} {
			attrs := netlink.NewLinkAttrs()
			attrs.Name = name
			if err := netlink.LinkAdd(&netlink.Bridge{LinkAttrs: attrs}); err != nil {
				return err
			}
			if err := k.make(w); err == nil || !strings.Contains(err.Error(), "somebody else's") {
				return fmt.Errorf("pair over %s: %v", name, err)
			}
			if err := k.remove(w.Host, w.Alias); err != nil {
				return err
			}
			if got := links(); !slices.Equal(got, []string{name}) {
				return fmt.Errorf("interfaces: %v", got)
			}
			l, err := netlink.LinkByName(name)
			if err == nil {
				err = netlink.LinkDel(l)
			}
			if err != nil {
				return err
			}
		}
		// A MAC address that no interface can have fails the last step: nothing is left.
		w.MAC = net.HardwareAddr{1, 2, 3, 4, 5, 6}
		if err := k.make(w); err == nil || len(links()) != 0 {
			return fmt.Errorf("half a pair: %v, %v", err, links())
		}
		routes, err := k.routes()
		if err == nil && len(routes) != 0 {
			err = fmt.Errorf("routes of nothing: %v", routes)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestServe(t *testing.T) {
	d, _, _ := newDouble(t, "bridges: []")
	socket := filepath.Join(t.TempDir(), "plugins", "v.sock")
	// A process that was killed left its socket.
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: socket}), unix.Close(fd))
	}
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Serve(ctx, socket) }() // ends with ctx
	ask := asker(socket)
	lab.Eventually(t, patient, func() error {
		var v any
		if err := ask(t.Context(), "/NetworkDriver.None", &v); !errors.Is(err, errUnknown) {
			return fmt.Errorf("%v, %v", v, err)
		}
		return nil
	})
	if st, err := os.Stat(socket); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", st, err)
	}
	if err := d.Serve(ctx, socket); err == nil || !strings.Contains(err.Error(), "another process listens at") {
		t.Error(err)
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(socket); err == nil {
		t.Error("the socket is left")
	}
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := d.Serve(t.Context(), socket); err == nil || !strings.Contains(err.Error(), "is not a socket") {
		t.Error(err)
	}
}
