package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

const (
	startLimit = 20 * time.Second // until a daemon answers; a race build on a busy machine is slow
	stopLimit  = 15 * time.Second // from SIGTERM to the end
	ctlLimit   = 60 * time.Second // of one vswitchctl command
)

// DaemonOptions says how to run a daemon.
type DaemonOptions struct {
	// BinDir is a directory with built vswitchd and vswitchctl; where it is empty,
	// they are built from source.
	BinDir string
	Args   []string // more flags of vswitchd
	Env    []string // more environment variables, NAME=value
	// RunDir and StateDir are the daemon's; made privately where empty. Two
	// daemons with one StateDir are how that refusal is tested.
	RunDir, StateDir string
	// Hosts is what the daemon's own /etc/hosts says: addresses by name. See
	// SetHosts.
	Hosts map[string]string
}

// Daemon is vswitchd running in a host. It is stopped with SIGTERM when the lab
// ends; the test fails if it does not end then, if it ended before by itself, or
// if the race detector or a panic wrote into its log. When the test failed, its
// log is shown. Thread-safety: for one goroutine, except Ctl, CtlErr, Get, Log.
type Daemon struct {
	Host     *Host
	RunDir   string
	StateDir string
	Socket   string // of the API
	Log      *Tail  // all that it wrote, over restarts

	options DaemonOptions
	hosts   string // file; empty where the machine's own is good enough
	proc    *Proc  // nil when stopped on purpose
}

// Daemon builds vswitchd and vswitchctl (once a test process, and not where
// DaemonOptions.BinDir has them), starts vswitchd
// inside the host with private directories, and waits until it answers.
func (h *Host) Daemon(o DaemonOptions) *Daemon {
	h.lab.t.Helper()
	d := h.NewDaemon(o)
	d.Start()
	return d
}

// NewDaemon is Daemon without starting it.
func (h *Host) NewDaemon(o DaemonOptions) *Daemon {
	h.lab.t.Helper()
	d := &Daemon{Host: h, RunDir: o.RunDir, StateDir: o.StateDir, Log: &Tail{Limit: 1 << 18}, options: o}
	for _, dir := range []struct {
		path *string
		name string
	}{{&d.RunDir, "r"}, {&d.StateDir, "s"}} {
		if *dir.path != "" {
			continue
		}
		var err error
		if *dir.path, err = os.MkdirTemp(h.lab.dir, dir.name); err != nil {
			h.lab.t.Fatalf("lab: daemon: %v", err)
		}
	}
	d.Socket = filepath.Join(d.RunDir, "ctl.sock")
	if o.Hosts != nil {
		d.hosts = filepath.Join(d.RunDir, "hosts")
		d.SetHosts(o.Hosts)
	}
	h.lab.Cleanup(d.end)
	return d
}

// SetHosts changes what names a daemon with DaemonOptions.Hosts knows. Go's resolver
// looks again after five seconds at most.
func (d *Daemon) SetHosts(hosts map[string]string) {
	d.Host.lab.t.Helper()
	var text strings.Builder
	for name, addr := range hosts {
		fmt.Fprintf(&text, "%s %s\n", addr, name)
	}
	// Written in place: the file is mounted, and a new one would not be.
	if err := os.WriteFile(d.hosts, []byte(text.String()), 0o644); err != nil {
		d.Host.lab.t.Fatalf("lab: daemon's hosts: %v", err)
	}
}

// end stops the daemon with its lab, and judges how it lived.
func (d *Daemon) end() {
	t := d.Host.lab.t
	if d.proc != nil {
		if err := d.stop(); err != nil {
			t.Errorf("lab: %v", err)
		}
	}
	log := d.Log.String()
	for _, bad := range []string{"WARNING: DATA RACE", "\npanic: ", "\nfatal error: "} {
		if strings.Contains("\n"+log, bad) {
			t.Errorf("lab: vswitchd's log has %q", strings.TrimSpace(bad))
		}
	}
	if t.Failed() {
		t.Logf("log of vswitchd in %s:\n%s", d.Host.Name, log)
	}
}

// Start starts the daemon, which must be stopped, and waits until it answers.
func (d *Daemon) Start() {
	d.Host.lab.t.Helper()
	if err := d.Launch(); err != nil {
		d.Host.lab.t.Fatalf("lab: %v", err)
	}
	err := Wait(startLimit, func() error {
		select {
		case <-d.proc.Done():
			return nil // judged below
		default:
		}
		return d.Get("/v1/version", nil)
	})
	select {
	case <-d.proc.Done():
		code := d.proc.ExitCode()
		d.proc = nil
		d.Host.lab.t.Fatalf("lab: vswitchd ended at start with status %d", code)
	default:
	}
	if err != nil {
		d.Host.lab.t.Fatalf("lab: vswitchd does not answer: %v", err)
	}
}

// Launch starts the daemon and does not wait: for tests of a start that fails, or
// that measure how long it takes.
func (d *Daemon) Launch() error {
	if d.proc != nil {
		return fmt.Errorf("start vswitchd: it runs already as process %d", d.proc.PID())
	}
	path, err := d.program("vswitchd")
	if err != nil {
		return err
	}
	command := append([]string{path, "--run-dir", d.RunDir, "--state-dir", d.StateDir}, d.options.Args...)
	if d.hosts != "" {
		// It stays one process: each of these becomes the next.
		const mount = `mount --bind "$0" /etc/hosts && exec -a vswitchd "$@"`
		command = append([]string{"unshare", "--mount", "bash", "-c", mount, d.hosts}, command...)
	}
	d.proc, err = d.Host.start(command, func(cmd *exec.Cmd) {
		if d.hosts == "" {
			cmd.Args[0] = "vswitchd"
		}
		cmd.Env = append(os.Environ(), d.options.Env...)
		cmd.Stdout, cmd.Stderr = d.Log, d.Log
	})
	return err
}

// program returns what to execute for one of this project's programs.
func (d *Daemon) program(name string) (string, error) {
	if d.options.BinDir != "" {
		return filepath.Join(d.options.BinDir, name), nil
	}
	return map[string]*program{"vswitchd": &vswitchd, "vswitchctl": &vswitchctl}[name].path(name)
}

// Process returns the running daemon's process.
func (d *Daemon) Process() *Proc {
	d.Host.lab.t.Helper()
	if d.proc == nil {
		d.Host.lab.t.Fatal("lab: vswitchd is not running")
	}
	return d.proc
}

// Exited waits for a daemon that should end by itself, and returns its exit
// status.
func (d *Daemon) Exited(limit time.Duration) (code int, err error) {
	p := d.Process()
	select {
	case <-p.Done():
		d.proc = nil
		return p.ExitCode(), nil
	case <-time.After(limit):
		return 0, fmt.Errorf("vswitchd has not ended within %v", limit)
	}
}

// Kill ends the daemon as kill -9 does.
func (d *Daemon) Kill() {
	d.Host.lab.t.Helper()
	d.Process().Kill()
	d.proc = nil
}

// Stop ends the daemon with SIGTERM and waits.
func (d *Daemon) Stop() {
	d.Host.lab.t.Helper()
	d.Process()
	if err := d.stop(); err != nil {
		d.Host.lab.t.Fatalf("lab: %v", err)
	}
}

// Restart is Stop and Start.
func (d *Daemon) Restart() {
	d.Host.lab.t.Helper()
	d.Stop()
	d.Start()
}

func (d *Daemon) stop() error {
	p := d.proc
	d.proc = nil
	select {
	case <-p.Done():
		return fmt.Errorf("vswitchd had ended by itself, with status %d", p.ExitCode())
	default:
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop vswitchd: %w", err)
	}
	select {
	case <-p.Done():
	case <-time.After(stopLimit):
		// Its stacks go to its log.
		p.Signal(syscall.SIGQUIT)
		p.Wait(2 * time.Second)
		return fmt.Errorf("vswitchd did not end within %v of SIGTERM", stopLimit)
	}
	if code := p.ExitCode(); code != 0 {
		return fmt.Errorf("vswitchd ended after SIGTERM with status %d", code)
	}
	return nil
}

// Ctl runs vswitchctl and returns its standard output. The test fails when its
// status is not 0.
func (d *Daemon) Ctl(args ...string) string {
	d.Host.lab.t.Helper()
	stdout, stderr, code := d.CtlErr(args...)
	if code != 0 {
		d.Host.lab.t.Fatalf("vswitchctl %s: status %d\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	return stdout
}

// CtlErr runs vswitchctl and returns what it wrote and its exit status; -1 when
// a signal ended it.
func (d *Daemon) CtlErr(args ...string) (stdout, stderr string, code int) {
	d.Host.lab.t.Helper()
	p, out := d.CtlStart(args...)
	if err := p.Wait(ctlLimit); p.cmd.ProcessState == nil {
		d.Host.lab.t.Fatalf("vswitchctl %s: %v", strings.Join(args, " "), err)
	}
	return out.String(), p.Out.String(), p.ExitCode()
}

// CtlStart starts a vswitchctl command that goes on, such as monitor: the
// process, whose Out is its standard error, and its standard output.
func (d *Daemon) CtlStart(args ...string) (p *Proc, stdout *Tail) {
	d.Host.lab.t.Helper()
	stdout = &Tail{Limit: 64 << 20}
	path, err := d.program("vswitchctl")
	if err == nil {
		p, err = d.Host.start(append([]string{path, "--ctl", d.Socket}, args...), func(cmd *exec.Cmd) {
			cmd.Args[0] = "vswitchctl"
			cmd.Stdout = stdout
		})
	}
	if err != nil {
		d.Host.lab.t.Fatalf("lab: %v", err)
	}
	return p, stdout
}

// CtlJSON runs vswitchctl with -o json and decodes what it prints into v.
func (d *Daemon) CtlJSON(v any, args ...string) {
	d.Host.lab.t.Helper()
	out := d.Ctl(append([]string{"-o", "json"}, args...)...)
	if err := json.Unmarshal([]byte(out), v); err != nil {
		d.Host.lab.t.Fatalf("vswitchctl -o json %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

// Get asks the API plainly, as curl does, and decodes the answer into v unless v
// is nil.
func (d *Daemon) Get(path string, v any) error {
	transport := &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			var dialer net.Dialer
			return dialer.DialContext(ctx, "unix", d.Socket)
		},
	}
	client := http.Client{Transport: transport, Timeout: 10 * time.Second}
	answer, err := client.Get("http://vswitch" + path)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("GET %s: %s: %s", path, answer.Status, strings.TrimSpace(string(body)))
	}
	if v == nil {
		return nil
	}
	return json.Unmarshal(body, v)
}
