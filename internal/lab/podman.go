package lab

import (
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// PodmanOptions says how to run Podman.
type PodmanOptions struct {
	// CNIConfigs are files of its network configuration directory: by name, such as
	// 10-vswitch.conflist, with what they say. The network of a conflist has the name
	// that it gives itself.
	CNIConfigs map[string]string
	CNIPath    []string // more directories of CNI plug-ins, searched first
	Args       []string // more flags of every podman
}

// Podman is Podman with its API's service in a host: in its network namespace, with files
// of its own. It ends with the lab, all containers included. Thread-safety: for one
// goroutine, except Podman and Must.
type Podman struct {
	Host       *Host
	Socket     string // of the API; a path
	NetworkDir string // of CNI configurations
	Log        *Tail  // of the service, over restarts

	cage    *cage
	service *engine
	command []string
	env     []string
}

// Podman starts Podman's service in a host and waits until it answers and has
// BusyboxImage.
func (h *Host) Podman(o PodmanOptions) *Podman {
	t := h.lab.t
	t.Helper()
	needPrograms(t, "podman", "crun", "conmon")
	c, err := h.newCage("p")
	if err != nil {
		t.Fatalf("lab: podman: %v", err)
	}
	p := &Podman{Host: h, cage: c, Socket: c.dir + "/podman.sock", NetworkDir: c.dir + "/net.d", Log: &Tail{Limit: 1 << 18}}
	h.lab.Cleanup(p.finish)
	if err := p.configure(o); err != nil {
		t.Fatalf("lab: podman: %v", err)
	}
	p.service = &engine{cage: c, name: "podman system service", log: p.Log, env: p.env,
		command: slices.Concat(p.command, []string{"system", "service", "--time=0", "unix://" + p.Socket}),
		answers: func() error { return getOK(p.Socket, "/_ping") }}
	image, err := imageFile(c.dir)
	if err == nil {
		_, err = p.Podman("load", "--quiet", "--input", image)
	}
	if err != nil {
		t.Fatalf("lab: podman: %v", err)
	}
	p.Start()
	return p
}

// configure writes what Podman reads.
func (p *Podman) configure(o PodmanOptions) error {
	dir := p.cage.dir
	if err := os.Mkdir(p.NetworkDir, 0o755); err != nil {
		return err
	}
	for name, text := range o.CNIConfigs {
		if err := os.WriteFile(p.NetworkDir+"/"+name, []byte(text), 0o644); err != nil {
			return err
		}
	}
	conf := "[network]\nnetwork_backend = \"cni\"\ncni_plugin_dirs = ["
	for _, path := range append(slices.Clone(o.CNIPath), "/usr/lib/cni", "/opt/cni/bin") {
		conf += `"` + path + `", `
	}
	// Podman would give containers higher limits than a process without CAP_SYS_RESOURCE
	// may, and so would crun itself, to load a program for the devices of their cgroup.
	conf += `]
[containers]
log_driver = "k8s-file"
cgroups = "disabled"
default_ulimits = ["nofile=1024:1024", "nproc=1024:1024"]
`
	if err := os.WriteFile(dir+"/containers.conf", []byte(conf), 0o644); err != nil {
		return err
	}
	p.env = []string{"CONTAINERS_CONF=" + dir + "/containers.conf", "HOME=" + dir}
	p.command = slices.Concat([]string{"podman", "--root", dir + "/pr", "--runroot", dir + "/prr", "--tmpdir", dir + "/pt",
		"--network-config-dir", p.NetworkDir, "--runtime", "crun", "--cgroup-manager", "cgroupfs",
		"--events-backend", "file", "--storage-driver", "vfs"}, o.Args)
	return nil
}

// Podman runs podman with arguments and returns its standard output without the line's
// end. It has a minute.
func (p *Podman) Podman(args ...string) (string, error) {
	return output(p.cage.start, slices.Concat(p.command, args), p.env)
}

// Must is Podman that fails the test.
func (p *Podman) Must(args ...string) string {
	p.Host.lab.t.Helper()
	out, err := p.Podman(args...)
	if err != nil {
		p.Host.lab.t.Fatalf("lab: %v", err)
	}
	return out
}

// Start starts the API's service, which must be stopped. Containers do not need it.
func (p *Podman) Start() { p.Host.lab.t.Helper(); p.must(p.service.start()) }

// Stop ends the API's service.
func (p *Podman) Stop() { p.Host.lab.t.Helper(); p.must(p.service.end(unix.SIGTERM)) }

// Kill ends the API's service at once, which leaves its socket.
func (p *Podman) Kill() { p.Host.lab.t.Helper(); p.must(p.service.end(unix.SIGKILL)) }

// Close ends Podman and all of its containers now; the lab's end does it too.
func (p *Podman) Close() { p.Host.lab.t.Helper(); p.must(p.cage.close()) }

func (p *Podman) finish() {
	if err := p.cage.close(); err != nil {
		p.Host.lab.t.Errorf("lab: podman: %v", err)
	}
	if p.Host.lab.t.Failed() {
		p.Host.lab.t.Logf("end of Podman's log in %s:\n%s", p.Host.Name, lastLines(p.Log.String(), 60))
	}
}

func (p *Podman) must(err error) {
	p.Host.lab.t.Helper()
	if err != nil {
		p.Host.lab.t.Fatalf("lab: podman: %v", err)
	}
}
