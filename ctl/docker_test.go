package ctl_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// dockerGround is a host with the switch as Docker's network driver, and an outside. Host "b"
// is like "a", without live-restore:
//
//	┌─ host "a" ────────────────────────────────────────────────────────────┐
//	│ dockerd ──/etc/docker/plugins/vswitch.spec──▶ vswitchd --docker-plugin │
//	│                                                                        │
//	│ n1 10.1.0.0/16     n2 10.2.0.0/16     br0 10.0.0.1/24    lan (trunk)   │  ┌─────────┐
//	│   c1  c2             c3                 the operator's              eth9 ├──┤ outside │
//	└──────eth8──────────────────────────────────────────────────────────────┘  └─────────┘
//	host "b"'s
type dockerGround struct {
	t      *testing.T
	h, out *lab.Host
	d      *lab.Daemon
	*lab.Docker
}

const dockerOutside = "192.0.2.2"

func newDockerGround(t *testing.T, l *lab.Lab, name string, live bool) *dockerGround {
	t.Helper()
	g := &dockerGround{t: t, h: l.Host(name), out: l.Host("out" + name)}
	g.h.MustExec("ip", "link", "add", "eth9", "type", "veth", "peer", "name", "eth9", "netns", g.out.Name)
	for _, x := range []struct {
		h    *lab.Host
		addr string
	}{{g.h, "192.0.2.1/24"}, {g.out, dockerOutside + "/24"}} {
		x.h.MustExec("ip", "addr", "add", x.addr, "dev", "eth9")
		x.h.MustExec("ip", "link", "set", "eth9", "up")
		x.h.MustExec("ip", "link", "set", "lo", "up")
	}
	dir, err := os.MkdirTemp("", "vsd") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	socket := filepath.Join(dir, "vswitch.sock")
	g.Docker = g.h.Docker(lab.DockerOptions{LiveRestore: live, PluginSpecs: map[string]string{"vswitch": "unix://" + socket}})
	g.d = g.h.Daemon(lab.DaemonOptions{Args: []string{"--docker-plugin", socket, "--docker", g.Docker.Socket, "--containerd", g.Docker.State, "--podman", "/nowhere"}})
	g.d.Ctl("add-br", "br0", "ip=10.0.0.1/24", "nat=masquerade")
	g.d.Ctl("add-br", "lan")
	return g
}

// run starts a container that sleeps. It ends at once when it is told to.
func (g *dockerGround) run(name string, args ...string) {
	g.t.Helper()
	g.Must(slices.Concat([]string{"run", "-d", "--init", "--name", name}, args, []string{lab.BusyboxImage, "sleep", "1000"})...)
}

func (g *dockerGround) in(container string, args ...string) (string, error) {
	return g.Docker.Docker(append([]string{"exec", container}, args...)...)
}

func (g *dockerGround) reach(from string, to ...string) {
	g.t.Helper()
	for _, a := range to {
		lab.Eventually(g.t, patient, func() error {
			out, err := g.in(from, "ping", "-c1", "-W1", a)
			if err != nil {
				return fmt.Errorf("%s does not reach %s: %v: %s", from, a, err, out)
			}
			return nil
		})
	}
}

// silent says that from hears none of these, which takes a second in all.
func (g *dockerGround) silent(from string, to ...string) {
	g.t.Helper()
	script := ""
	for _, a := range to {
		script += "ping -c1 -W1 " + a + " & "
	}
	if out, _ := g.in(from, "sh", "-c", script+"wait"); strings.Contains(out, "bytes from") || strings.Count(out, "100% packet loss") != len(to) {
		g.t.Errorf("%s hears one of %v:\n%s", from, to, out)
	}
}

// refused fails the test when docker does what it must not, or does not say why.
func (g *dockerGround) refused(why string, args ...string) {
	g.t.Helper()
	if out, err := g.Docker.Docker(args...); err == nil || !strings.Contains(err.Error(), why) {
		g.t.Errorf("docker %s: %s, %v; want %q", strings.Join(args, " "), out, err, why)
	}
}

// left is what the switch and the host have of containers, but for their names, which the
// switch learns when Docker is quiet.
func (g *dockerGround) left() string {
	g.t.Helper()
	var links, plugs []string
	for line := range strings.Lines(g.h.MustExec("ip", "-o", "link")) {
		links = append(links, strings.TrimSuffix(strings.Split(strings.Fields(line)[1], "@")[0], ":"))
	}
	slices.Sort(links)
	var list []api.PlugStatus
	g.d.CtlJSON(&list, "plugged")
	for _, p := range list {
		plugs = append(plugs, fmt.Sprintln(p.Bridge, p.Port, p.Owner, p.State, p.Addresses))
	}
	return fmt.Sprint(links, "\n", plugs, "\n", g.d.Ctl("leases"), "\n", g.d.Ctl("published"))
}

// TestDockerHosts has two hosts, which take long to start: what needs both comes first, and
// then what each is needed for alone.
func TestDockerHosts(t *testing.T) {
	t.Parallel() // with TestDockerOrder
	l := lab.New(t)
	var a, b *dockerGround
	var starting sync.WaitGroup
	starting.Go(func() { a = newDockerGround(t, l, "a", true) })
	starting.Go(func() { b = newDockerGround(t, l, "b", false) })
	starting.Wait()
	if t.Failed() {
		t.FailNow()
	}
	on := func(t *testing.T, g *dockerGround) *dockerGround {
		sub := *g
		sub.t = t
		return &sub
	}
	t.Run("mesh", func(t *testing.T) { dockerMesh(on(t, a), on(t, b)) })
	t.Run("alone", func(t *testing.T) {
		t.Run("networks", func(t *testing.T) { t.Parallel(); dockerNetworks(on(t, a)) })
		t.Run("dies", func(t *testing.T) { t.Parallel(); dockerDies(on(t, b)) })
	})
}

func dockerNetworks(g *dockerGround) {
	t := g.t
	g.Must("network", "create", "-d", "vswitch", "--subnet", "10.1.0.0/16", "--gateway", "10.1.0.1", "--label", "shop=1", "n1")
	g.Must("network", "create", "-d", "vswitch", "--subnet", "10.2.0.0/16", "n2")
	g.run("c1", "--network", "n1", "--ip", "10.1.0.5")
	g.run("c2", "--network", "n1")
	g.run("c3", "--network", "n2")
	before := g.left()
	for _, s := range []struct {
		name string
		f    func(*dockerGround)
	}{
		{"addresses", dockerAddresses}, {"two networks are isolated", dockerIsolated}, {"connect", dockerConnect}, {"internal", dockerInternal},
		{"VLANs of a bridge", dockerVLANs}, {"the operator's addresses", dockerBridgePool}, {"publish", dockerPublish}, {"IPv6", dockerIPv6}, {"routed", dockerRouted},
		{"refusals", dockerRefusals}, {"loop", dockerLoop},
	} {
		ok := t.Run(s.name, func(t *testing.T) {
			sub := *g
			sub.t = t
			s.f(&sub)
			lab.Eventually(t, patient, func() error { return asBefore(sub.left(), before) })
		})
		if !ok {
			t.Fatal("what follows has no ground")
		}
	}
	t.Run("restarts", func(t *testing.T) {
		sub := *g
		sub.t = t
		dockerRestarts(&sub)
	})
}

func asBefore(got, want string) error {
	if got != want {
		return fmt.Errorf("is\n%s\nand was\n%s", got, want)
	}
	return nil
}

// Scenario 2, and 4 by Docker's own names.
func dockerAddresses(g *dockerGround) {
	out, _ := g.in("c1", "ip", "addr", "show", "eth0")
	if !strings.Contains(out, "10.1.0.5/16") || !strings.Contains(out, "02:42:0a:01:00:05") {
		g.t.Error(out)
	}
	g.reach("c1", "10.1.0.1", "10.1.0.2", "c2", dockerOutside)
	g.reach("c2", "c1")
	if out := g.Must("network", "inspect", "-f", "{{.Labels}} {{.Driver}}", "n1"); out != "map[shop:1] vswitch" {
		g.t.Error(out)
	}
}

// Scenario 2: neither by Ethernet nor by the host's routes.
func dockerIsolated(g *dockerGround) {
	g.silent("c1", "10.2.0.2")
	g.silent("c3", "10.1.0.5", "10.1.0.2")
	if out, err := g.in("c1", "arping", "-c1", "-w1", "-I", "eth0", "10.2.0.2"); err == nil {
		g.t.Errorf("c3 answers c1's ARP:\n%s", out)
	}
}

// Scenario 3.
func dockerConnect(g *dockerGround) {
	g.Must("network", "connect", "--ip", "10.2.0.9", "n2", "c1")
	if out, _ := g.in("c1", "ip", "addr", "show", "eth1"); !strings.Contains(out, "10.2.0.9/16") {
		g.t.Error(out)
	}
	g.reach("c1", "10.2.0.2", "10.1.0.2", dockerOutside)
	g.reach("c3", "10.2.0.9")
	g.Must("network", "disconnect", "n2", "c1")
	if out, err := g.in("c1", "ip", "link", "show", "eth1"); err == nil {
		g.t.Errorf("eth1 is left: %s", out)
	}
	g.silent("c3", "10.2.0.9")
	g.reach("c1", "10.1.0.2", dockerOutside)
}

func dockerInternal(g *dockerGround) {
	g.Must("network", "create", "-d", "vswitch", "--internal", "--subnet", "10.3.0.0/16", "n3")
	g.run("i1", "--network", "n3")
	g.run("i2", "--network", "n3")
	g.reach("i1", "10.3.0.3", "10.3.0.1")
	if out, _ := g.in("i1", "ip", "route"); strings.Contains(out, "default") {
		g.t.Errorf("i1 has a way out:\n%s", out)
	}
	// Not even with a route of its own.
	g.Must("run", "--rm", "--network", "n3", "--cap-add", "NET_ADMIN", lab.BusyboxImage, "sh", "-c",
		"ip route add default via 10.3.0.1 && ping -c1 -W1 10.3.0.2 && ! ping -c1 -W1 "+dockerOutside)
	g.Must("rm", "-f", "i1", "i2")
	g.Must("network", "rm", "n3")
}

// Scenario 7: two VLANs of the operator's bridge, each with a gateway of its own.
func dockerVLANs(g *dockerGround) {
	for _, v := range []string{"50", "51"} {
		g.Must("network", "create", "-d", "vswitch", "-o", "bridge=lan", "-o", "vlan="+v, "--subnet", "10."+v+".0.0/24", "v"+v)
		g.run("a"+v, "--network", "v"+v)
		g.run("b"+v, "--network", "v"+v)
		g.reach("a"+v, "10."+v+".0.3", "10."+v+".0.1", dockerOutside)
	}
	g.silent("a50", "10.51.0.2")
	g.refused("subnet 10.50.0.0/25 overlaps with 10.50.0.0/24", "network", "create", "-d", "vswitch", "--ipam-driver", "vswitch", "-o", "bridge=lan", "-o", "vlan=50", "--subnet", "10.50.0.0/25", "v")
	g.Must("rm", "-f", "a50", "b50", "a51", "b51")
	g.Must("network", "rm", "v50", "v51")
}

// Docker and plugs share the addresses of a bridge.
func dockerBridgePool(g *dockerGround) {
	g.Must("network", "create", "-d", "vswitch", "--subnet", "10.0.0.0/24", "-o", "bridge=br0", "--ipam-driver", "vswitch", "--ipam-opt", "bridge=br0", "nb")
	g.run("p1", "--network", "nb")
	inside := "plugged-" + strconv.Itoa(os.Getpid())
	g.h.MustExec("ip", "netns", "add", inside)
	defer g.h.MustExec("ip", "netns", "del", inside)
	g.d.Ctl("plug", "netns:"+inside, "br0", "--ip", "auto")
	g.run("p2", "--network", "nb")
	leases := g.d.Ctl("leases")
	for _, a := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.4"} {
		if strings.Count(leases, a+" ") != 1 {
			g.t.Errorf("%s:\n%s", a, leases)
		}
	}
	g.reach("p1", "10.0.0.1", "10.0.0.3", "10.0.0.4", dockerOutside)
	g.refused("taken by netns:"+inside, "run", "--rm", "--network", "nb", "--ip", "10.0.0.3", lab.BusyboxImage, "true")
	g.d.Ctl("unplug", "netns:"+inside)
	g.Must("rm", "-f", "p1", "p2")
	g.Must("network", "rm", "nb")
}

// Scenario 5.
func dockerPublish(g *dockerGround) {
	g.Must("run", "-d", "--init", "--name", "web", "--network", "n1", "-p", "8080:80", "-p", "127.0.0.1:8081:80", lab.BusyboxImage, "httpd", "-f", "-h", "/etc")
	get := func(h *lab.Host, at string) error {
		out, err := h.Exec("wget", "-q", "-T", "2", "-t", "1", "-O", "-", "http://"+at+"/passwd")
		if err != nil || !strings.Contains(out, "root:") {
			return fmt.Errorf("%s at %s: %v: %s", at, h.Name, err, out)
		}
		return nil
	}
	for _, x := range []struct {
		h  *lab.Host
		at string
	}{{g.out, "192.0.2.1:8080"}, {g.h, "127.0.0.1:8080"}, {g.h, "192.0.2.1:8080"}, {g.h, "127.0.0.1:8081"}} {
		lab.Eventually(g.t, patient, func() error { return get(x.h, x.at) })
	}
	if get(g.out, "192.0.2.1:8081") == nil {
		g.t.Error("what is published at localhost is reached from outside")
	}
	g.refused("port 8080/tcp of the host is published already", "run", "--rm", "--network", "n1", "-p", "8080:80", lab.BusyboxImage, "true")
	g.Must("rm", "-f", "web")
	lab.Eventually(g.t, patient, func() error {
		if get(g.out, "192.0.2.1:8080") == nil {
			return errors.New("web is gone, and answers")
		}
		return nil
	})
	g.Docker.Docker("rm", "-f", "web")
}

func dockerIPv6(g *dockerGround) {
	g.Must("network", "create", "-d", "vswitch", "--ipv6", "--subnet", "fd00:6::/64", "--subnet", "10.6.0.0/16", "n6")
	g.run("six", "--network", "n6", "--ip6", "fd00:6::66")
	g.run("seven", "--network", "n6")
	g.reach("six", "10.6.0.1", "10.6.0.3")
	g.reach("seven", "fd00:6::1", "fd00:6::66")
	g.Must("rm", "-f", "six", "seven")
	g.Must("network", "rm", "n6")
}

// A network that does not masquerade is forwarded, past Docker's FORWARD DROP, also before it
// publishes anything.
func dockerRouted(g *dockerGround) {
	g.Must("network", "create", "-d", "vswitch", "--subnet", "10.7.0.0/16", "-o", "nat=none", "routed")
	g.run("plain", "--network", "routed")
	g.out.MustExec("ip", "route", "add", "10.7.0.0/16", "via", "192.0.2.1")
	g.reach("plain", dockerOutside)
	g.out.MustExec("ping", "-c1", "-W3", "-n", "10.7.0.2")
	g.out.MustExec("ip", "route", "del", "10.7.0.0/16")
	g.Must("rm", "-f", "plain")
	g.Must("network", "rm", "routed")
}

func dockerRefusals(g *dockerGround) {
	create := func(why string, args ...string) {
		g.t.Helper()
		g.refused(why, slices.Concat([]string{"network", "create", "-d", "vswitch"}, args, []string{"nx"})...)
	}
	create("is an interface of this host already", "-o", "com.docker.network.bridge.name=eth9")
	create("unknown option vlna of a network; allowed: bridge,", "-o", "vlna=5")
	create(`option vlan: "5000" is not a VLAN; allowed: 1 to 4094`, "-o", "bridge=lan", "-o", "vlan=5000")
	create(`option bridge: "br9" does not exist`, "-o", "bridge=br9")
	create("subnet 10.9.0.0/24 is not that of bridge br0: allowed: --subnet 10.0.0.0/24", "-o", "bridge=br0", "--subnet", "10.9.0.0/24")
	create("give --subnet 10.0.0.0/24, too", "-o", "bridge=br0", "--ipam-driver", "vswitch", "--ipam-opt", "bridge=br0")
	create("10.1.0.0/24", "--ipam-driver", "vswitch", "--subnet", "10.1.0.0/24") // n1's
	g.refused("", "run", "--rm", "--network", "n1", "--ip", "10.1.0.5", lab.BusyboxImage, "true")
	// One gateway is not two: neither the document's nor Docker's comes second.
	g.d.Ctl("add-br", "mine", "ip=10.77.0.1/24", "nat=masquerade")
	create("bridges[mine] has the address 10.77.0.1, too", "--subnet", "10.77.0.0/24", "--gateway", "10.77.0.1")
	g.d.Ctl("del-br", "mine")
	if _, stderr, code := g.d.CtlErr("add-br", "mine", "ip=10.1.0.1/24", "nat=masquerade"); code == 0 || !strings.Contains(stderr, "has the address 10.1.0.1, too") {
		g.t.Errorf("the gateway of n1: %d, %s", code, stderr)
	}
}

// dockerLoop makes and removes, and nothing stays: the same name can be had again at once.
func dockerLoop(g *dockerGround) {
	for i := range 2 {
		ipam := "default"
		if i%2 == 0 {
			ipam = "vswitch"
		}
		g.Must("network", "create", "-d", "vswitch", "--ipam-driver", ipam, "-o", "com.docker.network.bridge.name=loop0", "nl")
		g.run("l1", "--network", "nl")
		g.Must("run", "--rm", "--network", "nl", lab.BusyboxImage, "ping", "-c1", "-W2", "l1")
		g.Must("rm", "-f", "l1")
		g.Must("network", "rm", "nl")
	}
}
