package lab

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"
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
	if took := time.Since(began); took > 9*time.Second {
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
		if stat, ok := lives(pid); ok {
			t.Errorf("process %d is left: %s", pid, stat)
		}
	}
	mounts, _ := os.ReadFile("/proc/self/mounts")
	if strings.Contains(string(mounts), c.dir) {
		t.Errorf("mounts are left:\n%s", mounts)
	}
}

// lives is false for a zombie: it has ended, and whose it is now may be in no hurry.
func lives(pid int) (stat string, ok bool) {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return string(text), len(text) > 0 && !strings.Contains(string(text), ") Z ")
}

// TestKilledDocker kills a test binary that has a container: Docker's daemons die with it,
// and so does what is meant to outlive them.
func TestKilledDocker(t *testing.T) {
	if os.Getenv("LAB_HELPER") == "1" {
		d := New(t).Host("a").Docker(DockerOptions{})
		d.Must("run", "-d", "--network", "none", BusyboxImage, "sleep", "1000")
		fmt.Printf("ready %v\n", append(d.cage.processes(), d.cage.guard))
		select {}
	}
	h := New(t).Host("outer")
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	victim := h.Start("env", "LAB_HELPER=1", exe, "-test.run=^TestKilledDocker$")
	var pids []int
	Eventually(t, 30*time.Second, func() error {
		for line := range strings.Lines(victim.Out.String()) {
			rest, ok := strings.CutPrefix(line, "ready ")
			if !ok || !strings.HasSuffix(rest, "]\n") {
				continue
			}
			for word := range strings.FieldsSeq(strings.Trim(rest, "[]\n")) {
				pid, err := strconv.Atoi(word)
				if err != nil {
					return err
				}
				pids = append(pids, pid)
			}
			return nil
		}
		return fmt.Errorf("the other test is not ready: %s", victim.Out)
	})
	if len(pids) < 5 { // the guard, containerd, dockerd, a shim, sleep
		t.Errorf("processes %v", pids)
	}
	victim.Signal(syscall.SIGKILL)
	<-victim.Done()
	Eventually(t, 10*time.Second, func() error {
		for _, pid := range pids {
			if stat, ok := lives(pid); ok {
				return fmt.Errorf("process %d outlived the test: %s", pid, stat)
			}
		}
		return nil
	})
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
	if took := time.Since(began); took > 9*time.Second {
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
