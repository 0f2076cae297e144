package nat

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// Docker's FORWARD policy is DROP, and its networks are closed to each other:
//
//	┌─ Host "h" ──────────────────────────┐
//	│ red      10.1.0.1/24 ── r1, r2      │
//	│ blue     10.2.0.1/24 ── b1     eth0 ┼── outside
//	│ docker0  172.17.0.1/16 ── d1        │
//	│ br-…     another of Docker's        │
//	└─────────────────────────────────────┘
func TestBesideDocker(t *testing.T) {
	g := newGround(t)
	g.serve(g.out.Namespace, 80)
	g.serve(g.r1.Namespace, 80)
	d := g.host.Docker(lab.DockerOptions{})
	d.Must("run", "-d", "--name", "d1", "--stop-signal", "KILL", "-p", "9090:80", lab.BusyboxImage, "nc", "-ll", "-p", "80", "-e", "echo", "d1")
	d1 := d.Must("inspect", "-f", "{{.NetworkSettings.IPAddress}}", "d1")
	before := g.ruleset()
	forwards := []Forward{
		forward("", 8080, "tcp", "10.1.0.2:80", "red"),
		forward("", 8080, "udp", "10.1.0.2:80", "red"),
		forward("", 9090, "tcp", "10.1.0.2:80", "red"),
	}
	status := g.apply([]Gateway{red, blue}, forwards...)
	if status[0].Err != "" || status[1].Err != "" || !strings.Contains(status[2].Err, "port 9090/tcp of the host is in use") {
		t.Errorf("statuses are %+v", status)
	}

	ours := func() {
		t.Helper()
		for _, proto := range protocols {
			g.reaches(g.r1.Namespace, proto, "192.0.2.9:80", host4)
			g.reaches(g.out.Namespace, proto, "192.0.2.1:8080", outside4)
			g.reaches(g.b1.Namespace, proto, "192.0.2.1:8080", "10.1.0.1")
			g.reaches(g.host.Namespace, proto, "127.0.0.1:8080", "10.1.0.1")
		}
	}
	t.Run("both work", func(t *testing.T) {
		ours()
		g.reaches(g.out.Namespace, "tcp", "192.0.2.1:9090", "d1")
		g.reaches(g.host.Namespace, "tcp", "127.0.0.1:9090", "d1")
		if out, err := d.Docker("exec", "d1", "sh", "-c", "nc -w 2 192.0.2.9 80 </dev/null"); err != nil || out != host4 {
			t.Errorf("Docker's container hears %q from outside: %v", out, err)
		}
	})
	t.Run("published ports are for all, and nothing else", func(t *testing.T) {
		g.reaches(g.r1.Namespace, "tcp", "192.0.2.1:9090", "d1")
		if out, err := d.Docker("exec", "d1", "sh", "-c", "nc -w 2 192.0.2.1 8080 </dev/null"); err != nil || out == "" {
			t.Errorf("Docker's container hears %q from ours: %v", out, err)
		}
		g.silent(g.r1.Namespace, d1+":80")
		if out, err := d.Docker("exec", "d1", "sh", "-c", "nc -w 1 10.1.0.2 80 </dev/null"); err == nil {
			t.Errorf("Docker's container reaches ours past its isolation: %q", out)
		}
	})
	t.Run("a new network of Docker's is isolated too", func(t *testing.T) {
		d.Must("network", "create", "n1")
		d.Must("run", "-d", "--name", "d2", "--network", "n1", lab.BusyboxImage, "nc", "-ll", "-p", "80", "-e", "echo", "d2")
		d2 := d.Must("inspect", "-f", "{{.NetworkSettings.Networks.n1.IPAddress}}", "d2")
		if g.check() {
			t.Error("something is missing")
		}
		g.silent(g.r1.Namespace, d2+":80")
		d.Must("rm", "-f", "d2")
		d.Must("network", "rm", "n1")
		if g.check() || g.check() {
			t.Error("something is missing")
		}
	})
	t.Run("an internal network of Docker's is closed", func(t *testing.T) {
		d.Must("network", "create", "--internal", "n2")
		d.Must("run", "-d", "--name", "d3", "--network", "n2", lab.BusyboxImage, "nc", "-ll", "-p", "80", "-e", "echo", "d3")
		d3 := d.Must("inspect", "-f", "{{.NetworkSettings.Networks.n2.IPAddress}}", "d3")
		if g.check() {
			t.Error("something is missing")
		}
		g.reaches(g.host.Namespace, "tcp", d3+":80", "d3")
		g.silent(g.r1.Namespace, d3+":80")
		d.Must("rm", "-f", "d3")
		d.Must("network", "rm", "n2")
		if g.check() || g.check() {
			t.Error("something is missing")
		}
	})
	rules := g.dockerUser()
	if len(rules) != 4 {
		t.Errorf("rules in DOCKER-USER: %q", rules)
	}
	t.Run("a killed process's rules are taken over", func(t *testing.T) {
		g.wall.giveUp()
		g.wall = g.newWall("0123456789abcdef")
		g.served([]Gateway{red, blue}, forwards[:2]...)
		if again := g.dockerUser(); !slices.Equal(again, rules) {
			t.Errorf("rules were %q\nand are %q", rules, again)
		}
		// One network fewer: the other's rules go.
		g.served([]Gateway{red}, forwards[:2]...)
		if again := g.dockerUser(); !slices.Equal(again, rules[:2]) {
			t.Errorf("rules were %q\nand are %q", rules, again)
		}
		g.served([]Gateway{red, blue}, forwards[:2]...)
	})
	t.Run("users' own rules come first", func(t *testing.T) {
		g.host.MustExec("iptables", "-I", "DOCKER-USER", "-i", "red", "-d", outside4, "-j", "DROP")
		g.silent(g.r1.Namespace, "192.0.2.9:80")
		g.host.MustExec("iptables", "-D", "DOCKER-USER", "-i", "red", "-d", outside4, "-j", "DROP")
	})
	t.Run("Docker makes its chain anew", func(t *testing.T) {
		for _, rule := range rules[1:] {
			g.host.MustExec(append([]string{"iptables", "-D"}, strings.Fields(rule)[1:]...)...)
		}
		g.silent(g.out.Namespace, "192.0.2.1:8080")
		if !g.check() || g.check() {
			t.Error("rules are not missed, or missed twice")
		}
		ours()
		d.Restart()
		g.check()
		ours()
	})
	t.Run("what is stopped leaves nothing", func(t *testing.T) {
		d.Must("start", "d1")
		g.do(g.wall.Close)
		after := g.ruleset()
		if strings.Contains(after, "vswitch") || len(g.dockerUser()) > 0 {
			t.Errorf("left over:\n%s", after)
		}
		if after = strings.ReplaceAll(after, d1, "IP"); sorted(after) != sorted(strings.ReplaceAll(before, d1, "IP")) {
			t.Errorf("others' rules were\n%s\nand are\n%s", before, after)
		}
	})
}

// sorted ignores the order of rules, in which Docker's restarts differ.
func sorted(text string) string {
	lines := strings.Split(text, "\n")
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}

// dockerUser lists our rules in Docker's chain.
func (g *ground) dockerUser() (rules []string) {
	g.t.Helper()
	for _, r := range strings.Split(g.host.MustExec("iptables", "-S", "DOCKER-USER"), "\n") {
		if strings.Contains(r, "vswitch-01234567") {
			rules = append(rules, r)
		}
	}
	return rules
}

// Both variants of iptables filter at once; what Docker had made by one, it makes by the
// other when the machine's default changed.
func TestBothVariantsOfIPTables(t *testing.T) {
	g := newGround(t)
	g.serve(g.out.Namespace, 80)
	for _, program := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
		if _, err := g.host.Exec(program, "-P", "FORWARD", "DROP"); err != nil {
			t.Logf("this kernel has no tables for %s: %v", program, err)
			continue
		}
		g.host.MustExec(program, "-N", "DOCKER-USER")
		g.host.MustExec(program, "-A", "DOCKER-USER", "-j", "RETURN")
		g.host.MustExec(program, "-I", "FORWARD", "-j", "DOCKER-USER")
	}
	g.silentFromInside()
	g.served([]Gateway{red})
	for _, addr := range []struct{ to, seen string }{{"192.0.2.9:80", host4}, {"[2001:db8::9]:80", host6}} {
		g.reaches(g.r1.Namespace, "tcp", addr.to, addr.seen)
	}
	if g.check() || g.check() {
		t.Error("something is missing")
	}
	g.do(g.wall.Close)
	for _, program := range []string{"iptables-nft", "iptables-legacy", "ip6tables-nft", "ip6tables-legacy"} {
		if out, err := g.host.Exec(program, "-S", "DOCKER-USER"); err == nil && strings.Contains(out, "vswitch") {
			t.Errorf("%s has\n%s", program, out)
		}
	}
}

func (g *ground) silentFromInside() {
	g.t.Helper()
	if _, err := ask(g.r1.Namespace, "tcp", "192.0.2.9:80", 100*time.Millisecond); err == nil {
		g.t.Error("a gateway without Apply forwards")
	}
}
