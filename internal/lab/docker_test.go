package lab

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"
)

// Docker in a host:
//
//	┌─ Host "a" ──────────────────────────────┐
//	│ dockerd, containerd                     │   docker0 172.17.0.1
//	│   c1, c2 (busybox)                      │   FORWARD DROP
//	└─────────────────────────────────────────┘
func TestDocker(t *testing.T) {
	l := New(t)
	h := l.Host("a")
	began := time.Now()
	d := h.Docker(DockerOptions{LiveRestore: true, PluginSpecs: map[string]string{"vswitch": "unix:///nowhere.sock"}})
	t.Logf("ready after %v", time.Since(began))
	d.Must("run", "-d", "--name", "c1", BusyboxImage, "sleep", "1000")
	if out := d.Must("exec", "c1", "ip", "-4", "addr", "show", "eth0"); !strings.Contains(out, "172.17.0.2") {
		t.Fatalf("eth0 of c1: %s", out)
	}
	d.Must("run", "--rm", BusyboxImage, "ping", "-c", "1", "172.17.0.2")
	if out := h.MustExec("iptables", "-S", "FORWARD"); !strings.Contains(out, "-P FORWARD DROP") {
		t.Errorf("FORWARD: %s", out)
	}
	pid := d.Must("inspect", "-f", "{{.State.Pid}}", "c1")

	// What the deaths of daemons leave, and what the end takes along.
	d.Kill()
	if _, err := os.Stat("/proc/" + pid); err != nil {
		t.Errorf("c1 died with dockerd: %v", err)
	}
	d.Start()
	d.KillContainerd()
	d.StartContainerd()
	Eventually(t, 20*time.Second, func() error {
		_, err := d.Docker("exec", "c1", "true")
		return err
	})
	began = time.Now()
	d.Must("restart", "c1")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a restart took %v", took)
	}
	pids := d.cage.processes()
	began = time.Now()
	d.Close()
	t.Logf("closed after %v", time.Since(began))
	nothingLeft(t, d.cage, pids)
}

// nothingLeft fails when something of a closed cage is still there.
func nothingLeft(t *testing.T, c *cage, pids []int) {
	t.Helper()
	if len(pids) == 0 {
		t.Error("no process was in the cage")
	}
	for _, pid := range pids {
		// A zombie has ended; whose it is now may be in no hurry.
		stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if len(stat) > 0 && !strings.Contains(string(stat), ") Z ") {
			t.Errorf("process %d is left: %s", pid, stat)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if strings.Contains(string(mounts), c.dir) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
}

func TestPodman(t *testing.T) {
	l := New(t)
	h := l.Host("a")
	began := time.Now()
	p := h.Podman(PodmanOptions{})
	t.Logf("ready after %v", time.Since(began))
	p.Must("run", "-d", "--name", "c1", BusyboxImage, "sleep", "1000")
	if out := p.Must("exec", "c1", "ip", "-4", "addr", "show", "eth0"); !strings.Contains(out, "inet 10.88.") {
		t.Errorf("eth0 of c1: %s", out)
	}
	p.Must("run", "--rm", BusyboxImage, "true")
	began = time.Now()
	p.Must("restart", "c1")
	if took := time.Since(began); took > 5*time.Second {
		t.Errorf("a restart took %v", took)
	}
	pids := p.cage.processes()
	p.Stop()
	p.Start()
	began = time.Now()
	p.Close()
	t.Logf("closed after %v", time.Since(began))
	nothingLeft(t, p.cage, pids)
}
