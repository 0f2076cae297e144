package ctl_test

import (
	"bufio"
	"fmt"
	"strconv"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// backWithin is how long containers may not hear each other after a restart.
const backWithin = 2 * time.Second

// pinger pings from a container without Docker's help, and knows when it was answered.
type pinger struct {
	*lab.Proc
	from, to string
}

func (g *dockerGround) ping(from, to string) pinger {
	g.t.Helper()
	pid := g.Must("inspect", "-f", "{{.State.Pid}}", from)
	return pinger{g.h.Start("nsenter", "-t", pid, "-n", "ping", "-D", "-n", "-i", "0.05", to), from, to}
}

// answers are the times at which it was answered.
func (p pinger) answers() (all []time.Time) {
	lines := bufio.NewScanner(strings.NewReader(p.Out.String()))
	for lines.Scan() {
		stamp, rest, ok := strings.Cut(strings.TrimPrefix(lines.Text(), "["), "] ")
		seconds, err := strconv.ParseFloat(stamp, 64)
		if ok && err == nil && strings.Contains(rest, "bytes from") {
			all = append(all, time.UnixMicro(int64(seconds*1e6)))
		}
	}
	return all
}

// heard waits until it is answered after that time, and returns how long that took.
func (p pinger) heard(t *testing.T, since time.Time) time.Duration {
	t.Helper()
	var took time.Duration
	lab.Eventually(t, patient, func() error {
		for _, a := range p.answers() {
			if a.After(since) {
				took = a.Sub(since)
				return nil
			}
		}
		return fmt.Errorf("%s does not hear %s", p.from, p.to)
	})
	return took
}

// silence is the longest time between two answers since then.
func (p pinger) silence(since time.Time) (longest time.Duration) {
	last := since
	for _, a := range p.answers() {
		if a.After(since) {
			longest = max(longest, a.Sub(last))
			last = a
		}
	}
	return longest
}

// dockerRestarts: dockerd with live-restore, vswitchd, and both in either order.
func dockerRestarts(g *dockerGround) {
	g.Must("run", "-d", "--init", "--name", "web", "--network", "n1", "-p", "8080:80", lab.BusyboxImage, "httpd", "-f", "-h", "/etc")
	inside, outside := g.ping("c1", "10.1.0.2"), g.ping("c2", dockerOutside)
	inside.heard(g.t, time.Time{})
	outside.heard(g.t, time.Time{})
	step := func(what string, restart func() (up time.Time)) {
		g.t.Helper()
		began := time.Now()
		up := restart() // of the switch
		if up.IsZero() {
			up = began
		}
		for _, p := range []pinger{inside, outside} {
			took := p.heard(g.t, up)
			g.t.Logf("%s: %s hears %s again %v after it may; it heard nothing for %v", what, p.from, p.to, took.Round(time.Millisecond), p.silence(began).Round(time.Millisecond))
			if took > backWithin {
				g.t.Errorf("%s: %s hears %s only after %v", what, p.from, p.to, took)
			}
		}
		// All goes on: a new container, and what is published.
		g.Must("run", "--rm", "--network", "n1", lab.BusyboxImage, "ping", "-c1", "-W2", "c1")
		lab.Eventually(g.t, patient, func() error {
			_, err := g.out.Exec("wget", "-q", "-T", "1", "-t", "1", "-O", "-", "http://192.0.2.1:8080/passwd")
			return err
		})
	}
	now := func(f ...func()) func() time.Time {
		return func() time.Time {
			for _, f := range f {
				f()
			}
			return time.Time{}
		}
	}
	step("dockerd restarted", now(g.Restart))
	step("dockerd killed", now(g.Kill, g.Docker.Start))
	step("vswitchd restarted", func() time.Time { g.d.Restart(); return time.Now() })
	step("vswitchd killed", func() time.Time { g.d.Kill(); g.d.Start(); return time.Now() })
	step("both killed, vswitchd first", func() time.Time {
		g.Kill()
		g.d.Kill()
		g.d.Start()
		up := time.Now()
		g.Docker.Start()
		return up
	})
	step("both killed, dockerd first", func() time.Time {
		g.Kill()
		g.d.Kill()
		up := make(chan time.Time, 1)
		go func() { // ends when the switch is there
			time.Sleep(500 * time.Millisecond) // dockerd has asked in vain by then
			if err := g.d.Launch(); err != nil {
				g.t.Error(err)
			}
			up <- time.Now()
		}()
		g.Docker.Start()
		return <-up
	})
	g.Must("rm", "-f", "web")
	// All that is Docker's goes with it, though both were killed meanwhile.
	g.Must("rm", "-f", "c1", "c2", "c3")
	g.Must("network", "rm", "n1", "n2")
	if out := g.left(); strings.Contains(out, "vs-") || strings.Contains(out, "10.1.0") || strings.Contains(out, "10.2.0") {
		g.t.Errorf("left:\n%s", out)
	}
}

// dockerDies: without live-restore the containers of a dockerd that was killed live until
// it starts again, which ends them and starts anew those that shall always run.
func dockerDies(g *dockerGround) {
	t := g.t
	g.Must("network", "create", "-d", "vswitch", "--ipam-driver", "vswitch", "--subnet", "10.1.0.0/16", "n1")
	g.run("c1", "--network", "n1", "--ip", "10.1.0.7", "--restart", "always")
	g.run("c2", "--network", "n1", "--ip", "10.1.0.8")
	mac := g.Must("inspect", "-f", "{{.NetworkSettings.Networks.n1.MacAddress}}", "c1")
	back := func(what string) {
		t.Helper()
		began := time.Now()
		lab.Eventually(t, patient, func() error { return g.h.Ping("10.1.0.7") })
		t.Logf("%s: c1 answers after %v", what, time.Since(began).Round(time.Millisecond))
		if took := time.Since(began); took > backWithin {
			t.Errorf("%s: c1 answers only after %v", what, took)
		}
		if now := g.Must("inspect", "-f", "{{.NetworkSettings.Networks.n1.MacAddress}}", "c1"); now != mac {
			t.Errorf("%s: c1 had %s and has %s", what, mac, now)
		}
	}
	back("started")

	g.Kill()
	c1 := g.h.Ping("10.1.0.7")
	if c1 != nil {
		t.Error("a container died with dockerd:", c1)
	}
	g.Docker.Start()
	back("dockerd killed")
	if err := g.h.Ping("10.1.0.8"); err == nil {
		t.Error("c2 was not to be started again, and answers")
	}

	g.Kill()
	g.d.Kill()
	g.d.Start()
	g.Docker.Start()
	back("both killed")

	g.Restart()
	back("dockerd restarted")
	g.Must("start", "c2")
	g.reach("c2", "10.1.0.7")
	g.Must("rm", "-f", "c1", "c2")
	g.Must("network", "rm", "n1")
	if out := g.left(); strings.Contains(out, "vs-") || strings.Contains(out, "10.1.0") {
		t.Errorf("left:\n%s", out)
	}
}
