package docker

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// bench is a host with a real dockerd, and a process that is our driver with the kernel's
// bridges behind it:
//
//	┌─ Host "a" ─────────────────────────────────────────────────────────┐
//	│ dockerd, containerd ──/etc/docker/plugins/vswitch.spec──▶ d.sock    │
//	│ this test's binary as a daemon: driver, kernel bridges, collector   │
//	│                                                                     │
//	│ n1 = vs-… (10.1.0.1/16)    n2 = vs-… (10.2.0.1/16)    br0 (trunk)   │
//	│   │ c1                       │ c2                                   │
//	└─────────────────────────────────────────────────────────────────────┘
type bench struct {
	*lab.Docker
	host   *lab.Host
	dir    string
	daemon *lab.Proc
}

func newBench(t *testing.T, document string, o lab.DockerOptions) *bench {
	t.Helper()
	h := lab.New(t).Host("a")
	dir, err := os.MkdirTemp("", "vsd") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	b := &bench{host: h, dir: dir}
	if err := os.WriteFile(filepath.Join(dir, daemonDocument), []byte(document), 0o600); err != nil {
		t.Fatal(err)
	}
	b.start(t)
	o.PluginSpecs = map[string]string{"vswitch": "unix://" + filepath.Join(dir, daemonSocket)}
	o.NoIPTables = true // it would drop what the kernel's bridge forwards; the switch's frames it never sees
	b.Docker = h.Docker(o)
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("end of the driver's log:\n%s", b.daemon.Out)
		}
	})
	return b
}

// start starts the driver's process and waits until it listens.
func (b *bench) start(t *testing.T) {
	t.Helper()
	b.daemon = b.host.Start("env", "VSWITCH_DOCKER_DOUBLE="+b.dir, os.Args[0])
	lab.Eventually(t, 10*time.Second, func() error {
		_, err := os.Stat(filepath.Join(b.dir, daemonSocket))
		return err
	})
}

func TestDocker(t *testing.T) {
	b := newBench(t, "bridges: []", lab.DockerOptions{})
	began := time.Now()
	b.Must("network", "create", "-d", "vswitch", "--subnet", "10.1.0.0/16", "--label", "a=b", "n1")
	t.Logf("network create %v", time.Since(began))
	began = time.Now()
	b.Must("run", "-d", "--name", "c1", "--network", "n1", "--ip", "10.1.0.7", lab.BusyboxImage, "sleep", "1000")
	t.Logf("run %v", time.Since(began))
	if out := b.Must("exec", "c1", "ip", "addr"); !strings.Contains(out, "10.1.0.7/16") {
		t.Error(out)
	}
	b.Must("run", "--rm", "--network", "n1", lab.BusyboxImage, "ping", "-c", "1", "10.1.0.7")
	t.Log(b.Must("network", "inspect", "n1"))
	t.Log(b.daemon.Out)
}
