package ctl_test

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// plugGround is a host with a switch, an outside, and namespaces to plug in:
//
//	[one]  [two]  [three]
//	  │ plug │      │
//	┌─┴──────┴──────┴───────────┐
//	│ br0 10.0.0.1/24, fd00::1  │          ┌─────────┐
//	│ host "a"             eth9 ├── 192.0.2┤ outside │
//	└───────────────────────────┘          └─────────┘
type plugGround struct {
	t       *testing.T
	l       *lab.Lab
	h, out  *lab.Host
	d       *lab.Daemon
	one     *lab.Host
	two     *lab.Host
	three   *lab.Host
	outside string
}

func newPlugGround(t *testing.T, bridge ...string) *plugGround {
	t.Helper()
	l := lab.New(t)
	g := &plugGround{t: t, l: l, h: l.Host("a"), out: l.Host("out"), one: l.Host("one"), two: l.Host("two"), three: l.Host("three"), outside: "192.0.2.2"}
	g.h.MustExec("ip", "link", "add", "eth9", "type", "veth", "peer", "name", "eth9", "netns", g.out.Name)
	g.h.MustExec("ip", "addr", "add", "192.0.2.1/24", "dev", "eth9")
	g.h.MustExec("ip", "link", "set", "eth9", "up")
	g.h.MustExec("ip", "link", "set", "lo", "up")
	g.out.MustExec("ip", "addr", "add", "192.0.2.2/24", "dev", "eth9")
	g.out.MustExec("ip", "link", "set", "eth9", "up")
	g.d = g.h.Daemon(lab.DaemonOptions{Args: []string{"--plug-grace", "1s"}})
	g.d.Ctl(append([]string{"add-br", "br0"}, bridge...)...)
	return g
}

// pings waits until from reaches an address.
func pings(t *testing.T, from *lab.Host, to string) {
	t.Helper()
	lab.Eventually(t, patient, func() error {
		_, err := from.Exec("ping", "-c1", "-W1", "-n", to)
		return err
	})
}

func silent(t *testing.T, from *lab.Host, to string) {
	t.Helper()
	if out, err := from.Exec("ping", "-c1", "-W1", "-n", to); err == nil {
		t.Errorf("%s answers %s:\n%s", to, from.Name, out)
	}
}

func (g *plugGround) plugged() []api.PlugStatus {
	g.t.Helper()
	var all []api.PlugStatus
	if err := json.Unmarshal([]byte(g.d.Ctl("-o", "json", "plugged")), &all); err != nil {
		g.t.Fatal(err)
	}
	return all
}

func (g *plugGround) plug(container string) api.PlugStatus {
	g.t.Helper()
	for _, p := range g.plugged() {
		if p.Container == container {
			return p
		}
	}
	g.t.Fatalf("%s is not plugged in", container)
	return api.PlugStatus{}
}

// links are a namespace's interfaces.
func links(t *testing.T, h *lab.Host) string {
	t.Helper()
	out, err := h.Exec("ip", "-br", "link")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for line := range strings.Lines(out) {
		names = append(names, strings.Fields(line)[0])
	}
	return strings.Join(names, " ")
}

// TestPlugScenarios plays what people do with docker0, brctl and ovs-docker (scenarios 1,
// 2, 3, 4, 5, 10 and 15), on named namespaces.
func TestPlugScenarios(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24,fd00::1/64", "nat=masquerade", "ipam.range=10.0.0.128/25")
	d := g.d
	one, two := "netns:"+g.one.Name, "netns:"+g.two.Name
	bareLinks := links(t, g.one)

	// 1: an address from the subnet, the bridge as gateway, NAT to the outside.
	line := d.Ctl("plug", one, "br0", "--ip", "auto", "--ifname", "eth0")
	if !strings.Contains(line, "10.0.0.128/24") {
		t.Errorf("plug says %q", line)
	}
	d.Ctl("plug", g.two.Name, "br0", "--ip", "10.0.0.9/24", "--ip6", "auto", "--alias", "db", "--mac", "02:00:00:00:00:09", "--mtu", "1400",
		"--route", "10.77.0.0/16 via 10.0.0.128", "--route", "10.78.0.0/16 via 10.0.0.128")
	pings(t, g.one, "10.0.0.9")
	pings(t, g.one, "10.0.0.1")
	pings(t, g.one, g.outside)
	pings(t, g.two, "fd00::1")
	if out, _ := g.two.Exec("ip", "addr", "show", "eth1"); !strings.Contains(out, "02:00:00:00:00:09") || !strings.Contains(out, "mtu 1400") || !strings.Contains(out, "10.0.0.9/24") {
		t.Errorf("eth1 is\n%s", out)
	}
	if out, _ := g.two.Exec("ip", "route"); !strings.Contains(out, "10.77.0.0/16 via 10.0.0.128") || !strings.Contains(out, "10.78.0.0/16 via 10.0.0.128") || !strings.Contains(out, "default via 10.0.0.1") {
		t.Errorf("routes are\n%s", out)
	}

	// 4: names.
	dig := func(from *lab.Host, words ...string) string {
		out, err := from.Exec(append([]string{"dig", "+short", "+time=1", "+tries=2", "@10.0.0.1"}, words...)...)
		if err != nil {
			t.Errorf("dig %v: %v", words, err)
		}
		return strings.TrimSpace(out)
	}
	if got := dig(g.one, "db"); got != "10.0.0.9" {
		t.Errorf("db is %q", got)
	}
	if got := dig(g.two, "-x", "10.0.0.128"); !strings.HasPrefix(got, g.one.Name) {
		t.Errorf("10.0.0.128 is %q", got)
	}

	// 5: publish, from outside and from the host's localhost.
	d.Ctl("publish", "br0", "8080:"+g.two.Name+":80")
	serve(t, g.two, 80, "web of two")
	for from, addr := range map[*lab.Host]string{g.out: "192.0.2.1", g.h: "127.0.0.1", g.one: "192.0.2.1"} {
		lab.Eventually(t, patient, func() error {
			out, err := fetch(from, addr, 8080)
			if err != nil || !strings.Contains(out, "web of two") {
				return fmt.Errorf("from %s at %s: %q, %v", from.Name, addr, out, err)
			}
			return nil
		})
	}
	if out := d.Ctl("published"); !strings.Contains(out, "10.0.0.9:80") || !strings.Contains(out, "up") {
		t.Errorf("published says\n%s", out)
	}
	d.Ctl("unpublish", "br0", "8080:"+g.two.Name+":80")
	if out, err := fetch(g.out, "192.0.2.1", 8080); err == nil {
		t.Errorf("it is published still: %s", out)
	}

	// 2 and 3: two networks are isolated; a second card reaches both.
	d.Ctl("add-br", "br1", "ip=10.1.0.1/24", "nat=masquerade")
	d.Ctl("plug", "netns:"+g.three.Name, "br1", "--ip", "auto")
	silent(t, g.three, "10.0.0.9")
	d.Ctl("plug", "netns:"+g.three.Name, "br0", "--ip", "auto", "--ifname", "eth2")
	pings(t, g.three, "10.0.0.9")
	if out, _ := g.three.Exec("ip", "route"); strings.Count(out, "default") != 1 {
		t.Errorf("two cards have these routes:\n%s", out)
	}
	if _, stderr, code := d.CtlErr("unplug", g.three.Name); code == 0 || !strings.Contains(stderr, "has 2 plugs") {
		t.Errorf("unplug of two plugs: %s, %v", stderr, code)
	}
	d.Ctl("unplug", "--all", g.three.Name)
	if got := links(t, g.three); strings.Contains(got, "eth") {
		t.Errorf("unplug --all left %s", got)
	}

	// 15: ovs-docker's set-vlan.
	port := g.plug(two).Port
	d.Ctl("set-port", port, "tag=10")
	lab.Eventually(t, patient, func() error {
		if _, err := g.one.Exec("ping", "-c1", "-W1", "10.0.0.9"); err == nil {
			return fmt.Errorf("VLAN 10 is reached from none")
		}
		return nil
	})
	d.Ctl("set-port", port, "tag=")
	pings(t, g.one, "10.0.0.9")

	// 10: and it goes as it came.
	d.Ctl("unplug", one, "br0")
	if got := links(t, g.one); got != bareLinks {
		t.Errorf("unplug left %q, there was %q", got, bareLinks)
	}
	if out := d.Ctl("leases", "br0"); strings.Contains(out, g.one.Name) {
		t.Errorf("it has its address still:\n%s", out)
	}
	d.Ctl("del-br", "br1")
	d.Ctl("del-br", "br0")
	if out, _ := g.h.Exec("nft", "list", "ruleset"); strings.Contains(out, "vswitch") {
		t.Errorf("rules are left:\n%s", out)
	}
	if got := links(t, g.h); strings.Contains(got, "@") && strings.Count(got, "@") > 1 {
		t.Errorf("interfaces are left: %s", got)
	}
}

// serve has a web server in a namespace answer text.
func serve(t *testing.T, h *lab.Host, port int, text string) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "index.html"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil {
		t.Fatal(err)
	}
	h.Start("busybox", "httpd", "-f", "-p", fmt.Sprint(port), "-h", dir)
}

// fetch asks a web server. (Debian's static busybox cannot: its wget crashes in the resolver.)
func fetch(from *lab.Host, addr string, port int) (string, error) {
	return from.Exec("sh", "-c", fmt.Sprintf(`printf 'GET / HTTP/1.0\r\n\r\n' | busybox nc -w 2 %s %d`, addr, port))
}

// TestPlugBadInput has each mistake refused in words, and nothing left over.
func TestPlugBadInput(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24")
	d := g.d
	d.Ctl("plug", g.one.Name, "br0", "--ip", "10.0.0.5/24")
	before := links(t, g.h) + links(t, g.one) + links(t, g.two) + d.Ctl("leases") + d.Ctl("export")
	// A runtime that takes a connection and never answers.
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"nobody-here", "br0"}, `no such container "nobody-here"`},
		{[]string{"netns:nobody-here", "br0"}, "no such container"},
		{[]string{"docker:web", "br0"}, "docker"},
		{[]string{"pid:4194304", "br0"}, "no such"},
		{[]string{"/etc/passwd", "br0"}, "/etc/passwd"},
		{[]string{"/proc/self/ns/uts", "br0"}, "network namespace"},
		{[]string{g.two.Name, "br9"}, `no bridge is named "br9"`},
		{[]string{g.one.Name, "br0"}, "is plugged into br0 already"},
		{[]string{g.one.Name, "br0", "--ifname", "lo"}, "lo"},
		{[]string{g.two.Name, "br0", "--ifname", "sixteen-bytes-ab"}, "at most 15 bytes"},
		{[]string{g.two.Name, "br0", "--ip", "10.0.0.5/24"}, "both have the address 10.0.0.5"},
		{[]string{g.two.Name, "br0", "--ip", "10.0.0.1/24"}, "10.0.0.1 is taken by bridge br0 itself"},
		{[]string{g.two.Name, "br0", "--ip", "10.9.0.5/24"}, "10.9.0.5/24 is outside of 10.0.0.0/24"},
		{[]string{g.two.Name, "br0", "--ip6", "auto"}, "br0 has no subnet"},
		{[]string{g.two.Name, "br0", "--ip", "10.0.0.7/24", "--gateway", "10.99.0.1"}, "10.99.0.1"},
		{[]string{g.two.Name, "br0", "--mtu", "70000"}, "is out of range"},
		{[]string{g.two.Name, "br0", "--mac", "ff:ff:ff:ff:ff:ff"}, "is not a unicast MAC address"},
		{[]string{g.two.Name, "br0", "tagg=10"}, `did you mean "tag"?`},
		{[]string{g.two.Name, "br0", "--ip", "10.0.0.7/24", "--route", "10.1.0.0/16 via 10.50.0.1"}, "10.50.0.1"},
	} {
		_, stderr, code := d.CtlErr(append([]string{"plug"}, c.args...)...)
		if code == 0 || !strings.Contains(stderr, c.want) {
			t.Errorf("plug %v: %v, %q; want %s", c.args, code, stderr, c.want)
		}
	}
	if after := links(t, g.h) + links(t, g.one) + links(t, g.two) + d.Ctl("leases") + d.Ctl("export"); after != before {
		t.Errorf("something is left:\n%s\nbefore:\n%s", after, before)
	}
	// What set-port asks of a plug that is there can fail, too: it says so, and so does show.
	d.Ctl("plug", g.two.Name, "br0", "--ip", "10.0.0.6/24", "--port", "two")
	const want = "gateway 10.99.0.1: it is not reached"
	_, stderr, _ := d.CtlErr("set-port", "two", "gateway=10.99.0.1")
	if show := d.Ctl("show", "br0"); !strings.Contains(stderr, want) || !strings.Contains(show, "1 NOT UP") || !strings.Contains(show, want) {
		t.Errorf("set-port says %q, show\n%s", stderr, show)
	}
	d.Ctl("set-port", "two", "gateway=")
	waitPort(t, d, "two", api.PortUp, "")
	d.Ctl("unplug", "two")
	if _, stderr, code := d.CtlErr("unplug", g.two.Name); code == 0 || !strings.Contains(stderr, "is not plugged in") {
		t.Errorf("unplug of what is not plugged in: %v, %s", code, stderr)
	}
	d.Ctl("unplug", "--if-exists", g.two.Name)
	for _, c := range []struct {
		args []string
		want string
	}{
		{[]string{"unplug", g.one.Name, "br0", "--ifname", "eth7"}, g.one.Name + " is not plugged in like that; it has eth1 of netns:" + g.one.Name + " in br0"},
		{[]string{"leases", "br9"}, `bridge "br9" does not exist`},
	} {
		if _, stderr, code := d.CtlErr(c.args...); code == 0 || !strings.Contains(stderr, c.want) {
			t.Errorf("%v: %v, %q; want %s", c.args, code, stderr, c.want)
		}
	}
	if out := d.Ctl("leases", "br0", "-o", "json"); strings.TrimSpace(out) == "null" {
		t.Error("leases are null")
	}
}

// TestPlugComesBack has a plug survive all that happens to its parts: the pair deleted,
// the switch killed, the namespace made anew, the namespace gone for good.
func TestPlugComesBack(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24")
	d := g.d
	// A namespace of ip-netns(8) that comes and goes. Its name begins like the lab's, whose
	// next run would sweep it.
	name := strings.TrimSuffix(g.one.Name, "one") + "come"
	netns := func(verb string) {
		t.Helper()
		if out, err := exec.Command("ip", "netns", verb, name).CombinedOutput(); err != nil {
			t.Fatalf("ip netns %s: %v: %s", verb, err, out)
		}
	}
	in := func(args ...string) (string, error) {
		out, err := exec.Command("ip", append([]string{"netns", "exec", name}, args...)...).CombinedOutput()
		return string(out), err
	}
	netns("add")
	t.Cleanup(func() { exec.Command("ip", "netns", "del", name).Run() })
	d.Ctl("plug", name, "br0", "--ip", "auto", "tag=")
	d.Ctl("plug", g.two.Name, "br0", "--ip", "auto")
	first := g.plug("netns:" + name)
	addr := first.Addresses[0].Addr().String()
	pings(t, g.two, addr)

	check := func(what string, limit time.Duration) {
		t.Helper()
		began := time.Now()
		lab.Eventually(t, patient, func() error {
			if out, err := in("ping", "-c1", "-W1", "-n", "10.0.0.1"); err != nil {
				return fmt.Errorf("%s: %v: %s", what, err, out)
			}
			return nil
		})
		if took := time.Since(began); took > limit && os.Getenv("CI") == "" {
			t.Logf("%s: took %s", what, took)
		}
		lab.Eventually(t, patient, func() error {
			if now := g.plug("netns:" + name); now.State != api.PlugPlugged {
				t.Logf("%s: reached, yet it is %s: %s", what, now.State, now.Reason)
				return fmt.Errorf("it is %s: %s", now.State, now.Reason)
			}
			return nil
		})
		if now := g.plug("netns:" + name); now.MAC != first.MAC || now.Addresses[0] != first.Addresses[0] {
			t.Errorf("%s: it was %s %s, and is %s %s", what, first.MAC, first.Addresses[0], now.MAC, now.Addresses[0])
		}
		pings(t, g.two, addr)
	}
	g.h.MustExec("ip", "link", "del", first.Port)
	check("its pair was deleted", time.Second)

	if out, err := in("ip", "link", "del", "eth1"); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	check("the other end was deleted", time.Second)

	d.Kill()
	d.Start()
	check("the switch was killed", 2*time.Second)

	// What the document wanted before a restart goes, too.
	two := g.plug("netns:" + g.two.Name).Port
	d.Ctl("set-port", two, "ip=10.0.0.50/24", "route=10.99.0.0/16 via 10.0.0.1")
	d.Kill()
	d.Start()
	d.Ctl("set-port", two, "ip=10.0.0.51/24", "route=")
	lab.Eventually(t, patient, func() error {
		addrs, _ := g.two.Exec("ip", "addr")
		routes, _ := g.two.Exec("ip", "route")
		if !strings.Contains(addrs, "10.0.0.51/24") || strings.Contains(addrs, "10.0.0.50") || strings.Contains(routes, "10.99.0.0") {
			return fmt.Errorf("addresses and routes of before are there still:\n%s%s", addrs, routes)
		}
		return nil
	})

	d.Kill()
	netns("del")
	netns("add")
	d.Start()
	check("it was made anew while the switch was away", 2*time.Second)

	netns("del")
	netns("add") // within the grace time
	check("it was made anew", time.Second)

	netns("del")
	lab.Eventually(t, patient, func() error {
		for _, p := range g.plugged() {
			if p.Container == "netns:"+name {
				return fmt.Errorf("it is %s: %s", p.State, p.Reason)
			}
		}
		return nil
	})
	if out := d.Ctl("leases"); strings.Contains(out, name) {
		t.Errorf("it has an address still:\n%s", out)
	}
	if got := d.Ctl("export"); strings.Contains(got, name) {
		t.Errorf("the document has it still:\n%s", got)
	}
	pings(t, g.two, "10.0.0.1")
}

// TestPlugLeftovers collects what a switch that was killed half way left: a pair and a
// lease whose plug never got into the document, and a pair that has no alias yet; but not
// the one that another switch of this namespace is making.
func TestPlugLeftovers(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24")
	d := g.d
	d.Ctl("plug", g.one.Name, "br0", "--ip", "auto")
	port := g.plug("netns:" + g.one.Name).Port
	before := links(t, g.h)
	d.Ctl("plug", g.two.Name, "br0", "--ip", "auto")
	// As if it had been killed before the document was stored: the version before.
	doc := d.Ctl("export", "--version", "2")
	d.Kill()
	os.RemoveAll(filepath.Join(d.StateDir, "config.db"))
	matches, _ := filepath.Glob(filepath.Join(d.StateDir, "*"))
	for _, m := range matches {
		if base := filepath.Base(m); base != "plugs.db" && base != "instance" && base != "captures" {
			os.RemoveAll(m)
		}
	}
	if err := os.WriteFile(filepath.Join(d.StateDir, "desired.yaml"), []byte(doc), 0o644); err != nil {
		t.Fatal(err)
	}
	id, err := os.ReadFile(filepath.Join(d.StateDir, "instance"))
	if err != nil {
		t.Fatal(err)
	}
	for host, instance := range map[string]string{"ours": strings.TrimSpace(string(id)), "another": "0123456789abcdef"} {
		sum := sha256.Sum256([]byte("vswitch " + instance + " " + host)) // as plug/wire does
		group := binary.BigEndian.Uint32(sum[:])&(1<<30-1) | 1<<30
		g.h.MustExec("ip", "link", "add", "name", host, "group", fmt.Sprint(group), "type", "veth", "peer", "name", "eth1", "netns", g.three.Name)
		g.three.MustExec("ip", "link", "set", "eth1", "name", "of-"+host)
	}
	d.Start()
	lab.Eventually(t, patient, func() error {
		if got := links(t, g.two); strings.Contains(got, "eth1") {
			return fmt.Errorf("two has %s", got)
		}
		if out := d.Ctl("leases"); strings.Contains(out, g.two.Name) {
			return fmt.Errorf("two has a lease:\n%s", out)
		}
		return nil
	})
	if got := links(t, g.h); !strings.Contains(got, port) || len(got) > len(before)+40 || strings.Contains(got, "ours") || !strings.Contains(got, "another") {
		t.Errorf("the host has %s; it had %s, and two that were half made", got, before)
	}
	pings(t, g.one, "10.0.0.1")
}

// TestPlugMTU gives a container what the bridge's tunnels carry.
func TestPlugMTU(t *testing.T) {
	g := newPlugGround(t, "ip=10.0.0.1/24")
	g.d.Ctl("plug", g.one.Name, "br0", "--ip", "auto")
	if p := g.plug("netns:" + g.one.Name); p.MTU != 1500 {
		t.Errorf("without a tunnel its MTU is %d", p.MTU)
	}
	g.d.Ctl("add-port", "br0", "vx", "type=vxlan", "remote_ip=192.0.2.2", "key=7")
	lab.Eventually(t, patient, func() error {
		out, err := g.one.Exec("cat", "/proc/net/dev")
		_ = out
		if p := g.plug("netns:" + g.one.Name); p.MTU != 1450 {
			return fmt.Errorf("over VXLAN its MTU is %d, %v", p.MTU, err)
		}
		return nil
	})
	if out, _ := g.one.Exec("ip", "link", "show", "eth1"); !strings.Contains(out, "mtu 1450") {
		t.Errorf("in the container it is\n%s", out)
	}
}
