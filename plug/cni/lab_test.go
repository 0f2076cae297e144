package cni

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	types100 "github.com/containernetworking/cni/pkg/types/100"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

const limit = 10 * time.Second

// ground is a host with vswitchd and cnitool.
//
//	        host a                            container c1, c2, …
//	┌────────────────────────────┐          ┌─────────────────┐
//	│ vswitchd  br0 10.0.0.1/24 ◄┼─ veth ───┼► eth0, eth1     │
//	│ cnitool ─ vswitch-cni      │          └─────────────────┘
//	└────────────────────────────┘
type ground struct {
	t    *testing.T
	lab  *lab.Lab
	host *lab.Host
	d    *lab.Daemon
	dir  string // of configurations
	path string // CNI_PATH
}

func newGround(t *testing.T) *ground {
	l := lab.New(t)
	h := l.Host("a")
	g := &ground{t: t, lab: l, host: h, d: h.Daemon(lab.DaemonOptions{}), dir: filepath.Join(l.Dir(), "net.d")}
	g.path = filepath.Dir(plugin(t)) + ":" + stock
	if err := os.Mkdir(g.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	// libcni remembers results there, for DEL, CHECK and GC.
	t.Cleanup(func() { os.RemoveAll(g.cache()) })
	g.d.Ctl("add-br", "br0", "ip=10.0.0.1/24")
	return g
}

// cache is a directory of this ground's own in the place of /var/lib/cni.
func (g *ground) cache() string { return filepath.Join(g.lab.Dir(), "cache") }

// network writes a configuration list.
func (g *ground) network(name, spoken, keys string, chained ...string) {
	g.t.Helper()
	if keys != "" {
		keys = "," + keys
	}
	plugins := append([]string{fmt.Sprintf(`{"type":"vswitch-cni","bridge":"br0","socket":%q%s}`, g.d.Socket, keys)}, chained...)
	text := fmt.Sprintf(`{"cniVersion":%q,"name":%q,"plugins":[%s]}`, spoken, name, strings.Join(plugins, ","))
	if err := os.WriteFile(filepath.Join(g.dir, name+".conflist"), []byte(text), 0o644); err != nil {
		g.t.Fatal(err)
	}
}

// tool runs cnitool in the host, with /var/lib/cni of its own.
func (g *ground) tool(verb, network, netns string, env ...string) (stdout string, err error) {
	g.t.Helper()
	if err := os.MkdirAll(g.cache(), 0o755); err != nil {
		g.t.Fatal(err)
	}
	const mount = `mkdir -p /var/lib/cni && mount --bind "$0" /var/lib/cni && exec "$@"`
	cmd := exec.Command("ip", "netns", "exec", g.host.Name, "unshare", "--mount", "sh", "-c", mount, g.cache(),
		program(g.t, "cnitool", "github.com/containernetworking/cni/cnitool"), verb, network, netns)
	cmd.Env = append(os.Environ(), append([]string{"CNI_PATH=" + g.path, "NETCONFPATH=" + g.dir}, env...)...)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("cnitool %s %s: %w\n%s%s", verb, network, err, out, stderr.String())
	}
	return string(out), err
}

func (g *ground) must(verb, network, netns string, env ...string) string {
	g.t.Helper()
	out, err := g.tool(verb, network, netns, env...)
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

func (g *ground) add(network, netns string, env ...string) *types100.Result {
	g.t.Helper()
	out := g.must("add", network, netns, env...)
	var v struct {
		Version string `json:"cniVersion"`
	}
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		g.t.Fatalf("%v\n%s", err, out)
	}
	r, err := parseResult([]byte(out), v.Version)
	if err != nil {
		g.t.Fatalf("%v\n%s", err, out)
	}
	return r
}

// refused is for what must fail, saying so.
func (g *ground) refused(text, verb, network, netns string, env ...string) {
	g.t.Helper()
	if out, err := g.tool(verb, network, netns, env...); err == nil || !strings.Contains(err.Error(), text) {
		g.t.Errorf("cnitool %s %s: %v, want %q\n%s", verb, network, err, text, out)
	}
}

// plugged is what the daemon has.
func (g *ground) plugged() (all []api.PlugStatus) {
	g.t.Helper()
	c := g.d.Client()
	defer c.Close()
	all, err := c.Plugged(g.t.Context(), "")
	if err != nil {
		g.t.Fatal(err)
	}
	return all
}

// leases are the addresses that the daemon gave.
func (g *ground) leases() (all []string) {
	g.t.Helper()
	c := g.d.Client()
	defer c.Close()
	list, err := c.Leases(g.t.Context(), "")
	if err != nil {
		g.t.Fatal(err)
	}
	for _, l := range list {
		all = append(all, l.Address.String())
	}
	return all
}

// veths are the host's ends that are left.
func (g *ground) veths() (names []string) {
	for _, line := range strings.Split(g.host.MustExec("ip", "-o", "link", "show", "type", "veth"), "\n") {
		if words := strings.Fields(line); len(words) > 1 && !strings.HasPrefix(words[1], "up0") { // the wire to outside
			names = append(names, words[1])
		}
	}
	return names
}

func (g *ground) empty() {
	g.t.Helper()
	if p, l, v := g.plugged(), g.leases(), g.veths(); len(p)+len(l)+len(v) != 0 {
		g.t.Errorf("left: plugs %+v, leases %v, interfaces %v", p, l, v)
	}
}

// The specification's order of commands, with addresses of the bridge's subnet.
func TestLifeCycle(t *testing.T) {
	g := newGround(t)
	c1, ns1 := sandbox(g.lab, "c1")
	_, ns2 := sandbox(g.lab, "c2")
	g.network("net1", "1.1.0", `"capabilities":{"ips":true,"mac":true,"aliases":true}`)
	g.must("status", "net1", ns1)

	r1 := g.add("net1", ns1)
	r2 := g.add("net1", ns2, `CAP_ARGS={"ips":["10.0.0.99"],"mac":"02:00:00:00:00:99","aliases":["two"]}`)
	if len(r1.IPs) != 1 || len(r2.IPs) != 1 || r2.IPs[0].Address.String() != "10.0.0.99/24" || r2.Interfaces[1].Mac != "02:00:00:00:00:99" {
		t.Fatalf("addresses %v and %v, interface %v", r1.IPs, r2.IPs, r2.Interfaces[1])
	}
	if r1.Interfaces[0].Mac == "" || r1.Interfaces[1].Mtu == 0 || r1.IPs[0].Gateway.String() != "10.0.0.1" ||
		len(r1.Routes) != 1 || r1.Routes[0].Dst.String() != "0.0.0.0/0" {
		t.Errorf("result %v %v", r1.Interfaces, r1.Routes)
	}
	for _, to := range []string{"10.0.0.99", "10.0.0.1"} {
		if err := c1.Ping(to); err != nil {
			t.Error(err)
		}
	}
	g.must("check", "net1", ns1)
	g.refused("eth0 exists in", "add", "net1", ns1)
	g.must("check", "net1", ns1)

	// Somebody ends an attachment behind the runtime's back.
	c := g.d.Client()
	defer c.Close()
	all, err := c.Attachments(t.Context(), "cni/net1")
	if err != nil || len(all) != 2 {
		t.Fatalf("attachments %+v, %v", all, err)
	}
	for _, a := range all {
		if err := c.Detach(t.Context(), a.Owner, a.Key); err != nil {
			t.Error(err)
		}
	}
	g.refused("eth0 of cnitool", "check", "net1", ns1)

	g.must("del", "net1", ns1)
	g.must("del", "net1", ns1)
	g.must("del", "net1", ns2)
	g.empty()
	g.d.Ctl("del-br", "br0")
	g.must("del", "net1", ns1)
	g.refused(`there is no "br0"`, "status", "net1", ns1)
	g.refused(`there is no "br0"`, "add", "net1", ns1)
}

// IPv4 and IPv6, and runtimes that plug many at once.
func TestManyAtOnce(t *testing.T) {
	g := newGround(t)
	g.d.Ctl("set-br", "br0", "ip=10.0.0.1/24,2001:db8::1/64")
	g.network("net1", "1.1.0", `"isDefaultGateway":true`)
	g.must("status", "net1", "/") // the programs are built now
	var spaces []string
	var first *lab.Host
	for i := range 8 {
		h, path := sandbox(g.lab, fmt.Sprintf("m%d", i))
		if spaces = append(spaces, path); i == 0 {
			first = h
		}
	}
	each := func(verb string) {
		t.Helper()
		errs := make([]error, len(spaces))
		var all sync.WaitGroup
		for i, path := range spaces {
			all.Go(func() { _, errs[i] = g.tool(verb, "net1", path) })
		}
		all.Wait()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	each("add")
	each("check")
	if got := len(g.leases()); got != 2*len(spaces) {
		t.Errorf("%d leases: %v", got, g.leases())
	}
	for _, p := range g.plugged() {
		if len(p.Addresses) != 2 || len(p.Gateways) != 2 {
			t.Fatalf("plug %+v", p)
		}
		for _, a := range p.Addresses {
			if err := first.Ping(a.Addr().String()); err != nil {
				t.Error(err)
			}
		}
	}
	each("del")
	g.empty()
}

// Two networks on one bridge, in VLANs of their own: the garbage collection of one leaves
// the other alone.
func TestCollectOneNetwork(t *testing.T) {
	g := newGround(t)
	_, ns1 := sandbox(g.lab, "c1")
	_, ns2 := sandbox(g.lab, "c2")
	g.network("red", "1.1.0", `"vlan":10,"options":{"ip":"192.0.2.1/24"}`)
	g.network("blue", "1.1.0", `"vlan":20,"options":{"ip":"192.0.2.1/24"}`)
	g.add("red", ns1)
	g.add("blue", ns2)
	os.RemoveAll(g.cache()) // as after a crash: the runtime remembers nothing
	g.must("gc", "red", ns1)
	p := g.plugged()
	if len(p) != 1 || p[0].Owner != "cni/blue" || p[0].NetNS != ns2 {
		t.Errorf("plugs %+v", p)
	}
	g.must("gc", "blue", ns1)
	g.empty()
}

// Addresses of host-local, in a network without any of ours.
func TestHostLocal(t *testing.T) {
	needStock(t, "host-local")
	g := newGround(t)
	c1, ns1 := sandbox(g.lab, "c1")
	_, ns2 := sandbox(g.lab, "c2")
	ipam := fmt.Sprintf(`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.0.0.0/24","rangeStart":"10.0.0.50"}]],
		"routes":[{"dst":"0.0.0.0/0"},{"dst":"198.51.100.0/24","gw":"10.0.0.9"}]}`, filepath.Join(g.lab.Dir(), "leases"))
	given := func() int {
		all, _ := filepath.Glob(filepath.Join(g.lab.Dir(), "leases", "*", "10.*"))
		return len(all)
	}
	for _, spoken := range []string{"0.3.1", "1.0.0", "1.1.0"} {
		t.Run(spoken, func(t *testing.T) {
			g.t = t
			g.network("net1", spoken, ipam)
			r := g.add("net1", ns1)
			other := g.add("net1", ns2)
			if len(r.IPs) != 1 || r.IPs[0].Gateway.String() != "10.0.0.1" || len(r.Routes) != 2 || given() != 2 {
				t.Errorf("addresses %v, routes %v, host-local gave %d", r.IPs, r.Routes, given())
			}
			if err := c1.Ping(other.IPs[0].Address.IP.String()); err != nil {
				t.Error(err)
			}
			if out := c1.MustExec("ip", "route"); !strings.Contains(out, "default via 10.0.0.1") || !strings.Contains(out, "198.51.100.0/24 via 10.0.0.9") {
				t.Errorf("routes:\n%s", out)
			}
			if spoken != "0.3.1" {
				g.must("check", "net1", ns1)
			}
			if spoken == "1.1.0" {
				os.RemoveAll(g.cache())
				g.must("gc", "net1", ns1)
			} else {
				g.must("del", "net1", ns1)
				g.must("del", "net1", ns2)
			}
			if given() != 0 {
				t.Errorf("host-local still has %d", given())
			}
			g.empty()
		})
	}
	g.t = t
}

// Frames only: an interface without an address.
func TestFramesOnly(t *testing.T) {
	g := newGround(t)
	c1, ns1 := sandbox(g.lab, "c1")
	g.network("net1", "1.1.0", `"ipam":{},"trunks":[10,20],"mtu":1400`)
	r := g.add("net1", ns1)
	if len(r.IPs) != 0 || len(r.Routes) != 0 || r.Interfaces[1].Mtu != 1400 {
		t.Errorf("result %+v", r)
	}
	g.must("check", "net1", ns1)
	if out := c1.MustExec("ip", "-o", "-4", "addr", "show", "dev", "eth0"); strings.TrimSpace(out) != "" {
		t.Error(out)
	}
	g.must("del", "net1", ns1)
	g.empty()
}

// What the daemon refuses, ADD refuses, and nothing is left.
func TestLabRefuses(t *testing.T) {
	g := newGround(t)
	_, ns1 := sandbox(g.lab, "c1")
	_, ns2 := sandbox(g.lab, "c2")
	g.network("net1", "1.1.0", `"capabilities":{"ips":true}`)
	g.network("odd", "1.1.0", `"options":{"ip":"192.0.2.1/24"}`)
	g.add("net1", ns1, `CAP_ARGS={"ips":["10.0.0.9"]}`)
	g.refused("10.0.0.9", "add", "net1", ns2, `CAP_ARGS={"ips":["10.0.0.9"]}`)
	g.refused("outside of 10.0.0.0/24", "add", "odd", ns2)
	if p := g.plugged(); len(p) != 1 || len(g.leases()) != 1 || len(g.veths()) != 1 {
		t.Errorf("plugs %+v, leases %v, interfaces %v", p, g.leases(), g.veths())
	}
	// The namespace goes without a word: DEL succeeds.
	g.must("del", "net1", ns1)
	g.empty()
}

// tuning and portmap behind us, and a port of the host by ourselves.
func TestChain(t *testing.T) {
	needStock(t, "tuning", "portmap")
	g := newGround(t)
	c1, ns1 := sandbox(g.lab, "c1")
	outside := g.lab.Host("x")
	g.lab.Wire(g.host.Namespace, "up0", "203.0.113.1/24", outside.Namespace, "up0", "203.0.113.2/24")
	g.host.Sysctl("net.ipv4.ip_forward", "1")
	g.network("chain", "1.0.0", "",
		`{"type":"tuning","capabilities":{"mac":true},"sysctl":{"net.core.somaxconn":"500"}}`,
		`{"type":"portmap","capabilities":{"portMappings":true}}`)
	g.network("ours", "1.0.0", `"capabilities":{"portMappings":true,"mac":true}`, `{"type":"tuning","sysctl":{"net.core.somaxconn":"500"}}`)
	for _, name := range []string{"chain", "ours"} {
		t.Run(name, func(t *testing.T) {
			g.t = t
			env := `CAP_ARGS={"mac":"02:00:00:00:00:77","portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"tcp"}]}`
			r := g.add(name, ns1, env)
			at := slices.IndexFunc(r.Interfaces, func(i *types100.Interface) bool { return i.Name == "eth0" })
			if r.Interfaces[at].Mac != "02:00:00:00:00:77" {
				t.Errorf("MAC of %+v", r.Interfaces[at])
			}
			if name == "ours" { // portmap 1.1 looks for IPv6 rules of a container that has no IPv6
				g.must("check", name, ns1, env)
			}
			p := c1.Start("busybox", "nc", "-ll", "-p", "80", "-e", "echo", "reached")
			err := lab.Wait(limit, func() error {
				out, err := outside.Exec("busybox", "nc", "-w", "1", "203.0.113.1", "8080")
				if err == nil && !strings.Contains(out, "reached") {
					err = fmt.Errorf("answered %q", out)
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
			p.Kill()
			g.must("del", name, ns1, env)
			g.empty()
		})
	}
	g.t = t
}
