package lab

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// DockerOptions says how to run Docker.
type DockerOptions struct {
	LiveRestore bool // containers outlive dockerd
	// PluginSpecs are files /etc/docker/plugins/NAME.spec by NAME, with what they say:
	// unix:///run/vswitch/docker.sock. See Docker.PluginSpec.
	PluginSpecs map[string]string
	NoIPTables  bool     // without it, Docker sets the policy of FORWARD to DROP
	Args        []string // more flags of dockerd
}

// Docker is containerd and dockerd in a host: in its network namespace, with files of
// their own, and so beside any other Docker of the machine. It ends with the lab, all
// containers included. When the test failed, the end of its log is shown.
// Thread-safety: for one goroutine, except Docker and Must.
type Docker struct {
	Host   *Host
	Socket string // of the API; a path
	State  string // containerd's state directory, which would be /run/containerd
	Log    *Tail  // of dockerd, over restarts

	cage       *cage
	dockerd    *engine
	containerd *engine
}

// Docker starts Docker in a host and waits until it answers and has BusyboxImage.
func (h *Host) Docker(o DockerOptions) *Docker {
	t := h.lab.t
	t.Helper()
	needPrograms(t, "dockerd", "containerd", "docker", "containerd-shim-runc-v2")
	c, err := h.newCage("d")
	if err != nil {
		t.Fatalf("lab: docker: %v", err)
	}
	d := &Docker{Host: h, cage: c, Socket: c.dir + "/docker.sock", State: c.dir + "/cs", Log: &Tail{Limit: 1 << 18}}
	h.lab.Cleanup(d.finish)
	for name, text := range o.PluginSpecs {
		d.PluginSpec(name, text)
	}
	address := c.dir + "/cd.sock"
	conf := fmt.Sprintf("version = 2\nroot = %q\nstate = %q\ndisabled_plugins = [\"io.containerd.grpc.v1.cri\"]\n[grpc]\naddress = %q\n",
		c.dir+"/cr", d.State, address)
	if err := os.WriteFile(c.dir+"/containerd.toml", []byte(conf), 0o644); err != nil {
		t.Fatalf("lab: docker: %v", err)
	}
	d.containerd = &engine{cage: c, name: "containerd", log: d.Log,
		command: []string{"containerd", "--config", c.dir + "/containerd.toml"},
		answers: func() error { return answersOn(address) }}
	d.dockerd = &engine{cage: c, name: "dockerd", log: d.Log,
		command: slices.Concat([]string{"dockerd", "--host", "unix://" + d.Socket, "--containerd", address,
			"--data-root", c.dir + "/dr", "--exec-root", c.dir + "/de", "--pidfile", c.dir + "/dockerd.pid",
			// Of the file systems for layers, vfs works on every kernel and below any other.
			"--storage-driver", "vfs", "--exec-opt", "native.cgroupdriver=cgroupfs", "--shutdown-timeout", "3",
			fmt.Sprintf("--iptables=%t", !o.NoIPTables), fmt.Sprintf("--live-restore=%t", o.LiveRestore)}, o.Args),
		answers: func() error { return getOK(d.Socket, "/_ping") }}
	d.StartContainerd()
	d.Start()
	image, err := imageFile(c.dir)
	if err == nil {
		_, err = d.Docker("load", "--quiet", "--input", image)
	}
	if err != nil {
		t.Fatalf("lab: docker: %v", err)
	}
	return d
}

// Docker runs docker with arguments against this dockerd and returns its standard output
// without the line's end. It has a minute.
func (d *Docker) Docker(args ...string) (string, error) {
	command := append([]string{dockerCLI(), "--config", d.cage.dir + "/cli", "--host", "unix://" + d.Socket}, args...)
	return output(d.Host.start, command, nil)
}

// Must is Docker that fails the test.
func (d *Docker) Must(args ...string) string {
	d.Host.lab.t.Helper()
	out, err := d.Docker(args...)
	if err != nil {
		d.Host.lab.t.Fatalf("lab: %v", err)
	}
	return out
}

// Ctr runs ctr with arguments against containerd, which Docker's containers are in
// namespace moby of, and returns its standard output.
func (d *Docker) Ctr(args ...string) (string, error) {
	return output(d.cage.start, append([]string{"ctr", "--address", d.cage.dir + "/cd.sock"}, args...), nil)
}

// PluginSpec writes /etc/docker/plugins/NAME.spec as dockerd sees it; an empty text
// removes it. Docker reads it when it first needs the plug-in.
func (d *Docker) PluginSpec(name, text string) {
	d.Host.lab.t.Helper()
	path := filepath.Join(d.cage.dir, "etc", "plugins", name+".spec")
	err := os.MkdirAll(filepath.Dir(path), 0o755)
	if text == "" {
		err = errors.Join(err, os.RemoveAll(path))
	} else {
		err = errors.Join(err, os.WriteFile(path, []byte(text), 0o644))
	}
	if err != nil {
		d.Host.lab.t.Fatalf("lab: docker: plug-in %s: %v", name, err)
	}
}

// PluginDir is where sockets of plug-ins can be made that dockerd finds by itself: its
// /run/docker/plugins. Mind the length of a socket's path.
func (d *Docker) PluginDir() string {
	d.Host.lab.t.Helper()
	path := filepath.Join(d.cage.dir, "run", "plugins")
	if err := os.MkdirAll(path, 0o755); err != nil {
		d.Host.lab.t.Fatalf("lab: docker: %v", err)
	}
	return path
}

// Start starts dockerd, which must be stopped, and waits until it answers.
func (d *Docker) Start() { d.Host.lab.t.Helper(); d.must(d.dockerd.start()) }

// Stop ends dockerd alone, as systemctl stop does: with its containers, unless it has
// live-restore.
func (d *Docker) Stop() { d.Host.lab.t.Helper(); d.must(d.dockerd.end(unix.SIGTERM)) }

// Kill ends dockerd alone at once; its containers live on.
func (d *Docker) Kill() { d.Host.lab.t.Helper(); d.must(d.dockerd.end(unix.SIGKILL)) }

// Restart is Stop and Start.
func (d *Docker) Restart() { d.Host.lab.t.Helper(); d.Stop(); d.Start() }

// StartContainerd starts containerd, which must be stopped.
func (d *Docker) StartContainerd() { d.Host.lab.t.Helper(); d.must(d.containerd.start()) }

// KillContainerd ends containerd at once; containers live on, and dockerd waits for it.
func (d *Docker) KillContainerd() { d.Host.lab.t.Helper(); d.must(d.containerd.end(unix.SIGKILL)) }

// Process returns the running dockerd.
func (d *Docker) Process() *Proc {
	d.Host.lab.t.Helper()
	if d.dockerd.proc == nil {
		d.Host.lab.t.Fatal("lab: dockerd is not running")
	}
	return d.dockerd.proc
}

// Close ends Docker and all of its containers now; the lab's end does it too.
func (d *Docker) Close() { d.Host.lab.t.Helper(); d.must(d.cage.close()) }

func (d *Docker) finish() {
	if err := d.cage.close(); err != nil {
		d.Host.lab.t.Errorf("lab: docker: %v", err)
	}
	if d.Host.lab.t.Failed() {
		d.Host.lab.t.Logf("end of Docker's log in %s:\n%s", d.Host.Name, lastLines(d.Log.String(), 60))
	}
}

func (d *Docker) must(err error) {
	d.Host.lab.t.Helper()
	if err != nil {
		d.Host.lab.t.Fatalf("lab: docker: %v", err)
	}
}

// dockerCLI is the distribution's docker, where there is another one in front of it.
func dockerCLI() string {
	const path = "/usr/bin/docker"
	if _, err := os.Stat(path); err == nil {
		return path
	}
	return "docker"
}

// needPrograms skips a test that needs a program which is not installed, or fails it
// where CI=true.
func needPrograms(t T, names ...string) {
	t.Helper()
	for _, name := range names {
		if _, err := exec.LookPath(name); err != nil {
			if os.Getenv("CI") == "true" {
				t.Fatalf("lab: this test needs %s, and CI=true allows no skipping", name)
			}
			t.Skip("lab: this test needs " + name + ", which is not installed")
		}
	}
}

// output runs a command by start and returns what it says on its standard output.
func output(start func([]string, func(*exec.Cmd)) (*Proc, error), command, env []string) (string, error) {
	stdout := &Tail{Limit: 1 << 20}
	p, err := start(command, func(cmd *exec.Cmd) {
		cmd.Stdout = stdout // standard error is the process's Out
		cmd.Env = append(os.Environ(), env...)
	})
	if err != nil {
		return "", err
	}
	if err = p.Wait(execLimit); err != nil {
		err = fmt.Errorf("%s: %w\n%s", shortened(command), err, strings.TrimSpace(p.Out.String()))
	}
	return strings.TrimSpace(stdout.String()), err
}

// getOK asks an API on a unix socket for path.
func getOK(socket, path string) error {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
	resp, err := client.Get("http://engine" + path)
	if err != nil {
		return err
	}
	resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s", path, resp.Status)
	}
	return nil
}

func answersOn(socket string) error {
	conn, err := net.Dial("unix", socket)
	if err != nil {
		return err
	}
	return conn.Close()
}
