package lab_test

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestDaemon runs the real daemon through all that Daemon can do with it:
//
//	c1 eth0 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── eth0 c2
func TestDaemon(t *testing.T) {
	_, h, c1, c2 := twoContainers(t)
	before := h.Snapshot()
	d := h.Daemon(lab.DaemonOptions{})
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", c1.Veth)
	d.Ctl("add-port", "br0", c2.Veth)
	if err := lab.Ping(c1, c2); err != nil {
		t.Fatal(err)
	}
	var status api.Status
	if d.CtlJSON(&status, "show"); len(status.Bridges) != 1 {
		t.Errorf("show says %+v", status)
	}
	if _, stderr, code := d.CtlErr("add-port", "no-such-bridge", "x"); code != 1 || stderr == "" {
		t.Errorf("status %d, standard error %q", code, stderr)
	}

	for _, step := range []struct {
		name string
		do   func()
	}{
		{"restart", d.Restart},
		{"kill -9", func() { d.Kill(); d.Start() }},
	} {
		step.do()
		if err := lab.Ping(c1, c2); err != nil {
			t.Fatalf("after %s: %v", step.name, err)
		}
	}
	v, err := d.Client().Version(context.Background())
	if err != nil || v.PID != d.Process().PID() {
		t.Errorf("version %+v, %v; the process is %d", v, err, d.Process().PID())
	}

	second := h.NewDaemon(lab.DaemonOptions{StateDir: d.StateDir})
	if err := second.Launch(); err != nil {
		t.Fatal(err)
	}
	if code, err := second.Exited(20 * time.Second); err != nil || code == 0 {
		t.Errorf("a second daemon on one state directory: status %d, %v; it said %s", code, err, second.Log)
	}

	d.Stop()
	if err := lab.NoPing(c1, c2); err != nil {
		t.Error(err)
	}
	for _, line := range before.Diff(h.Snapshot()) {
		t.Errorf("after SIGTERM: %s", line)
	}
	for _, line := range lab.Leftovers() {
		if strings.Contains(line, "-build") {
			t.Errorf("the build's directory is left: %s", line)
		}
	}
}

// TestDaemonHosts gives a daemon names of its own.
func TestDaemonHosts(t *testing.T) {
	t.Parallel()
	h := lab.New(t).Host("a")
	d := h.Daemon(lab.DaemonOptions{Hosts: map[string]string{"one": "192.0.2.1"}})
	root := fmt.Sprintf("/proc/%d/root", d.Process().PID())
	for _, addr := range []string{"192.0.2.1", "192.0.2.2"} {
		d.SetHosts(map[string]string{"one": addr})
		hosts, err := os.ReadFile(root + "/etc/hosts")
		if want := addr + " one\n"; err != nil || string(hosts) != want {
			t.Errorf("its hosts are %q, %v; want %q", hosts, err, want)
		}
	}
	if mine, err := os.ReadFile("/etc/hosts"); err == nil && strings.Contains(string(mine), "192.0.2.2 one") {
		t.Error("the machine's own file has changed")
	}
	d.Restart()
}
