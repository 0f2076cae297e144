package ctl_test

import (
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestPlugDocker plugs containers of a real Docker in by name (scenarios 3, 6 and 15):
//
//	docker: web, db (--network none), side (--network container:web), own (--network host)
//	           │    │
//	[host a: vswitchd, dockerd, br0 10.0.0.1/24]
func TestPlugDocker(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	h.MustExec("ip", "link", "set", "lo", "up")
	docker := h.Docker(lab.DockerOptions{LiveRestore: true})
	d := h.Daemon(lab.DaemonOptions{Args: []string{"--docker", docker.Socket, "--containerd", docker.State, "--podman", "/nowhere", "--plug-grace", "2s"}})
	g := &plugGround{t: t, l: l, h: h, d: d}
	d.Ctl("add-br", "br0", "ip=10.0.0.1/24", "nat=masquerade")
	run := func(name string, args ...string) {
		t.Helper()
		docker.Must(append(append([]string{"run", "-d", "--init", "--name", name}, args...), lab.BusyboxImage, "sleep", "600")...)
	}
	run("web") // beside Docker's own network: eth0 is Docker's, eth1 ours
	run("db", "--network", "none")
	run("side", "--network", "container:web")
	run("own", "--network", "host")
	in := func(container string, args ...string) error {
		out, err := docker.Docker(append([]string{"exec", container}, args...)...)
		if err != nil {
			return fmt.Errorf("in %s: %v: %v: %s", container, args, err, out)
		}
		return nil
	}
	reach := func(what, from, to string, limit time.Duration) {
		t.Helper()
		began := time.Now()
		lab.Eventually(t, patient, func() error { return in(from, "ping", "-c1", "-W1", to) })
		t.Logf("%s: after %s", what, time.Since(began).Round(10*time.Millisecond))
	}

	d.Ctl("plug", "web", "br0", "--ip", "auto")
	d.Ctl("plug", "docker:db", "br0", "--ip", "auto", "--ifname", "eth0")
	web := g.plug("docker:web")
	db := g.plug("docker:db")
	addr := func(p api.PlugStatus) string { return p.Addresses[0].Addr().String() }
	reach("db reaches web", "db", addr(web), 0)
	reach("web reaches db", "web", addr(db), 0)
	// Docker's default route stays Docker's; db has ours.
	if out, _ := docker.Docker("exec", "web", "ip", "route"); !strings.Contains(out, "default via 172.") {
		t.Errorf("web's routes:\n%s", out)
	}
	if out, _ := docker.Docker("exec", "db", "ip", "route"); !strings.Contains(out, "default via 10.0.0.1") {
		t.Errorf("db's routes:\n%s", out)
	}

	// 6: a shared stack is served by one plug; the host's own cannot be plugged.
	if _, stderr, code := d.CtlErr("plug", "side", "br0"); code != 0 || !strings.Contains(stderr, "docker:side shares the network of docker:web: one plug serves both") {
		t.Errorf("plug of side: %d, %s", code, stderr)
	}
	if n := len(g.plugged()); n != 2 {
		t.Errorf("%d plugs for two networks", n)
	}
	reach("side has web's interface", "side", addr(db), 0)
	lab.Eventually(t, patient, func() error {
		out, err := docker.Docker("exec", "db", "nslookup", "side", "10.0.0.1")
		if err != nil || !strings.Contains(out, addr(web)) {
			return fmt.Errorf("side is %s, %v", out, err)
		}
		return nil
	})
	if _, stderr, code := d.CtlErr("plug", "own", "br0"); code == 0 || !strings.Contains(stderr, "uses the host's own network") {
		t.Errorf("plug of own: %d, %s", code, stderr)
	}
	if _, stderr, code := d.CtlErr("plug", "docker:nobody", "br0"); code == 0 || !strings.Contains(stderr, "nobody") {
		t.Errorf("plug of nobody: %d, %s", code, stderr)
	}

	// Identity: a restart, a kill, a rename of nothing else, Docker away and back.
	again := func(what string) {
		t.Helper()
		reach(what, "db", "10.0.0.1", time.Second)
		if now := g.plug("docker:db"); now.MAC != db.MAC || now.Addresses[0] != db.Addresses[0] {
			t.Errorf("%s: db was %s %s, and is %s %s", what, db.MAC, addr(db), now.MAC, addr(now))
		}
		reach(what+", from web", "web", addr(db), time.Second)
	}
	docker.Must("restart", "-t", "0", "db")
	again("db restarted")
	docker.Must("kill", "db")
	lab.Eventually(t, patient, func() error { return has(g.plug("docker:db").State, api.PlugWaiting) })
	docker.Must("start", "db")
	again("db started")
	docker.Kill()
	d.Restart()
	docker.Start()
	again("Docker was killed, and the switch restarted meanwhile")
	docker.Must("restart", "-t", "0", "db")
	again("db restarted after that")

	// A container made anew within the grace time has its address; one that is gone loses it.
	docker.Must("rm", "-f", "db")
	run("db", "--network", "none")
	again("db made anew")
	docker.Must("rm", "-f", "db")
	lab.Eventually(t, patient, func() error {
		for _, p := range g.plugged() {
			if p.Container == "docker:db" {
				return fmt.Errorf("db is %s: %s", p.State, p.Reason)
			}
		}
		if out := d.Ctl("leases"); strings.Contains(out, "docker:db") {
			return fmt.Errorf("db has an address still:\n%s", out)
		}
		return nil
	})

	// A stopped container is plugged in when it starts.
	run("late", "--network", "none")
	docker.Must("stop", "-t", "0", "late")
	if _, stderr, code := d.CtlErr("plug", "late", "br0", "--ip", "auto"); code != 0 || !strings.Contains(stderr, "does not run") {
		t.Errorf("plug of what does not run: %d, %s", code, stderr)
	}
	docker.Must("start", "late")
	reach("late started", "late", "10.0.0.1", time.Second)
	d.Ctl("unplug", "late")
	d.Ctl("unplug", "side", "br0") // which is web's
	if n := len(g.plugged()); n != 0 {
		t.Errorf("%d plugs are left", n)
	}
}

// TestPlugRuntimeHangs has a runtime that takes connections and never answers named
// within its time, and hold up nobody else.
func TestPlugRuntimeHangs(t *testing.T) {
	l := lab.New(t)
	h, one := l.Host("a"), l.Host("one")
	socket := filepath.Join(t.TempDir(), "docker.sock")
	ln, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	d := h.Daemon(lab.DaemonOptions{Args: []string{"--docker", socket, "--podman", "/nowhere", "--containerd", "/nowhere"}})
	d.Ctl("add-br", "br0")
	for _, name := range []string{"web", "docker:web", one.Name} { // a bare name might be Docker's
		began := time.Now()
		_, stderr, code := d.CtlErr("plug", name, "br0")
		if took := time.Since(began); code == 0 || !strings.Contains(stderr, "does not answer") || !strings.Contains(strings.ToLower(stderr), "docker") || took > 8*time.Second {
			t.Errorf("plug %s: %d after %s: %s", name, code, took, stderr)
		}
	}
	d.Ctl("plug", "netns:"+one.Name, "br0")
	d.Ctl("unplug", "netns:"+one.Name)
	if out := d.Ctl("plugged"); strings.Contains(out, "eth1") {
		t.Errorf("left:\n%s", out)
	}
}
