package cni

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vswitch/internal/lab"
)

// Podman with its CNI backend, its configuration as docs/cni.md has it. Podman itself
// listens at the ports that it publishes, so that nobody else takes them: the daemon, which
// does the same, cannot publish them, and portmap, which does not look, does.
//
//	        host a                             container one, two
//	┌─────────────────────────────┐          ┌─────────────────┐
//	│ vswitchd  br0 10.0.0.1/24 ◄─┼─ veth ───┼► eth0           │
//	│ podman ─ vswitch-cni        │          └─────────────────┘
//	└─────────────────────────────┘
func TestPodman(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	run := filepath.Join(l.Dir(), "run")
	list := fmt.Sprintf(`{"cniVersion":"0.4.0","name":"vsw","plugins":[{"type":"vswitch-cni","bridge":"br0","socket":%q,
		"capabilities":{"aliases":true,"ips":true}},{"type":"portmap","capabilities":{"portMappings":true}}]}`, filepath.Join(run, "ctl.sock"))
	p := h.Podman(lab.PodmanOptions{CNIConfigs: map[string]string{"10-vsw.conflist": list}, CNIPath: []string{filepath.Dir(plugin(t))}})
	d := h.Daemon(lab.DaemonOptions{BinDir: besidePodman(t, l, p), RunDir: run})
	d.Ctl("add-br", "br0", "ip=10.0.0.1/24", "nat=masquerade")
	g := &ground{t: t, lab: l, host: h, d: d}

	sleep := []string{lab.BusyboxImage, "sleep", "600"}
	p.Must(append([]string{"run", "-d", "--name", "one", "--network", "vsw"}, sleep...)...)
	p.Must(append([]string{"run", "-d", "--name", "two", "--network", "vsw", "--ip", "10.0.0.77", "--mac-address", "02:00:00:00:00:77",
		"--network-alias", "second", "-p", "8080:80"}, sleep...)...)
	p.Must("exec", "one", "ping", "-c", "1", "-W", "5", "10.0.0.77")
	addr := p.Must("inspect", "-f", "{{.NetworkSettings.Networks.vsw.IPAddress}}", "one")
	p.Must("exec", "two", "ping", "-c", "1", "-W", "5", addr)

	// The bridge answers both names, where the container's resolver asks.
	if out := p.Must("exec", "one", "cat", "/etc/resolv.conf"); !strings.Contains(out, "nameserver 10.0.0.1") {
		t.Errorf("resolv.conf: %s", out)
	}
	for _, name := range []string{"two", "second"} {
		if out := p.Must("exec", "one", "nslookup", name); !strings.Contains(out, "10.0.0.77") {
			t.Errorf("nslookup %s: %s", name, out)
		}
	}
	if out := p.Must("exec", "two", "ip", "link", "show", "eth0"); !strings.Contains(out, "02:00:00:00:00:77") {
		t.Error(out)
	}
	p.Must("exec", "-d", "two", "nc", "-ll", "-p", "80", "-e", "echo", "reached")
	outside := l.Host("x")
	l.Wire(h.Namespace, "up0", "203.0.113.1/24", outside.Namespace, "up0", "203.0.113.2/24")
	if err := lab.Wait(limit, func() error {
		out, err := outside.Exec("busybox", "nc", "-w", "1", "203.0.113.1", "8080")
		if err == nil && !strings.Contains(out, "reached") {
			err = fmt.Errorf("answered %q", out)
		}
		return err
	}); err != nil {
		t.Error(err)
	}

	// A container that starts again is plugged in again.
	p.Must("restart", "-t", "0", "one")
	p.Must("exec", "one", "ping", "-c", "1", "-W", "5", "10.0.0.77")

	p.Must("rm", "-f", "-t", "0", "one", "two")
	g.empty()
}

// besidePodman is a directory of programs of which vswitchd runs where Podman's names of
// namespaces are: Podman has a /run/netns of its own in the lab.
func besidePodman(t *testing.T, l *lab.Lab, p *lab.Podman) string {
	t.Helper()
	guard, err := os.ReadFile(filepath.Join(filepath.Dir(p.Socket), "guard"))
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(l.Dir(), "bin")
	for _, path := range []string{dir, filepath.Join(l.Dir(), "run")} {
		if err := os.Mkdir(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	text := fmt.Sprintf("#!/bin/sh\nexec nsenter --mount=/proc/%s/ns/mnt %s \"$@\"\n",
		strings.TrimSpace(string(guard)), program(t, "vswitchd", "vswitch/cmd/vswitchd"))
	if err := os.WriteFile(filepath.Join(dir, "vswitchd"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(program(t, "vswitchctl", "vswitch/cmd/vswitchctl"), filepath.Join(dir, "vswitchctl")); err != nil {
		t.Fatal(err)
	}
	return dir
}
