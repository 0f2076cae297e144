// Command vswitchd is the switch's daemon: flags, wiring, signals.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"

	"vswitch/ctl"
	"vswitch/ctl/api"
	"vswitch/plug"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// version is set by the linker (-X main.version=…).
var version = "devel"

// Exit statuses.
const (
	exitOK     = 0
	exitFailed = 1
	exitUsage  = 2
)

// shutdownLimit is how long requests that are being answered may take once the
// daemon was told to end.
const shutdownLimit = 3 * time.Second

type flags struct {
	ctl.Options
	logLevel, logFormat string
	metricsListen       string
	showVersion         bool
}

// The main thread stays where the daemon was started: it is what /proc/PID/ns/net shows to
// nsenter and ip netns identify, and /proc/self to the daemon itself. Goroutines that enter
// containers take other threads.
func init() { runtime.LockOSThread() }

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	f, err := parse(args, stderr)
	if errors.Is(err, flag.ErrHelp) {
		return exitOK
	}
	if err != nil {
		fmt.Fprintln(stderr, "vswitchd:", err)
		return exitUsage
	}
	if f.showVersion {
		fmt.Fprintln(stdout, "vswitchd", version)
		return exitOK
	}
	log, err := logger(f, stderr)
	if err != nil {
		fmt.Fprintln(stderr, "vswitchd:", err)
		return exitUsage
	}
	f.Log, f.Version = log, version
	// From here on a signal ends the daemon in order, also while it starts.
	ctx, cancel := signal.NotifyContext(context.Background(), unix.SIGTERM, unix.SIGINT)
	defer cancel()
	if err := serve(ctx, f.Options, f.metricsListen); err != nil {
		log.Error(err.Error())
		return exitFailed
	}
	return exitOK
}

func parse(args []string, stderr io.Writer) (*flags, error) {
	f := &flags{}
	fs := flag.NewFlagSet("vswitchd", flag.ContinueOnError)
	fs.SetOutput(stderr)
	fs.StringVar(&f.RunDir, "run-dir", "/run/vswitch", "directory of the control socket, ctl.sock")
	fs.StringVar(&f.StateDir, "state-dir", "/var/lib/vswitch", "directory of the stored configuration")
	fs.IntVar(&f.Workers, "workers", runtime.NumCPU(), "forwarding `threads`, 1 to 256")
	fs.IntVar(&f.Buffers, "buffers", vswitch.DefaultBuffers, "frame `buffers` a worker for transmit rings and segments, 64 to 65536")
	fs.DurationVar(&f.BusyPoll, "busy-poll", vswitch.DefaultBusyPoll, "how long a worker that had work lately spins before it blocks; 0 is not at all, 1s the most")
	fs.IntVar(&f.RxRings, "rx-rings", ctl.DefaultRxRings, "`bytes` of memory for the receive rings of ports that are busy and do not set n_rxq_desc; 0 is no such rings")
	f.Recorder = vswitch.DefaultRecorder()
	fs.IntVar(&f.Recorder.Bytes, "recorder", f.Recorder.Bytes, "`bytes` of memory a worker for the flight recorder; 0 is no recorder")
	fs.IntVar(&f.Recorder.Snap, "recorder-snap", f.Recorder.Snap, fmt.Sprintf("`bytes` of each frame that it keeps, %d to %d", vswitch.MinRecorderSnap, vswitch.MaxRecorderSnap))
	fs.IntVar(&f.Recorder.Rate, "recorder-rate", f.Recorder.Rate, "`frames` a second and worker that it keeps, and as many drops; of more it keeps a sample; 0 is all")
	fs.StringVar((*string)(&f.Stop), "ingress-stop", "", "how frames are kept from the host's stack: `clsact` or tcx; empty is clsact, or tcx where the kernel has no clsact")
	fs.Func("capture-dir", "`directory` below which mirrors may write captures; may be given more than once (default STATE-DIR/captures, /tmp and /var/tmp)", func(dir string) error {
		if !filepath.IsAbs(dir) {
			return errors.New("want an absolute path")
		}
		f.CaptureDirs = append(f.CaptureDirs, dir)
		return nil
	})
	fs.StringVar(&f.Plug.Docker, "docker", "/run/docker.sock", "Docker's API `socket`, for plugs of docker:NAME")
	fs.StringVar(&f.Plug.Podman, "podman", "/run/podman/podman.sock", "Podman's API `socket`, for plugs of podman:NAME")
	fs.StringVar(&f.Plug.Containerd, "containerd", "/run/containerd", "containerd's state `directory`, for plugs of containerd:ID")
	fs.DurationVar(&f.Plug.Grace, "plug-grace", plug.DefaultGrace, "how long a plug outlives its container, 0 to 24h")
	fs.StringVar(&f.Plug.DockerPlugin, "docker-plugin", "", "unix `socket` at which dockerd finds the network driver vswitch, such as /run/docker/plugins/vswitch.sock; empty is none")
	fs.StringVar(&f.Plug.ResolvConf, "resolv-conf", "/etc/resolv.conf", "`file` that names the resolvers for what containers' names do not answer")
	fs.StringVar(&f.metricsListen, "metrics-listen", "", "where Prometheus scrapes, at /metrics: `ADDRESS:PORT`, such as 127.0.0.1:9123, or unix:/PATH; empty is nowhere")
	fs.StringVar(&f.logLevel, "log-level", "info", "debug, info, warn or error; vswitchctl log changes it")
	fs.StringVar(&f.logFormat, "log-format", "text", "text or json")
	fs.BoolVar(&f.showVersion, "version", false, "print the version and exit")
	if err := fs.Parse(args); err != nil {
		return nil, err
	}
	switch {
	case fs.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q: only flags are taken; see --help", fs.Arg(0))
	case f.Workers < 1 || f.Workers > 256:
		return nil, fmt.Errorf("--workers %d: want 1 to 256", f.Workers)
	case f.Buffers < 64 || f.Buffers > 65536:
		return nil, fmt.Errorf("--buffers %d: want 64 to 65536", f.Buffers)
	case f.Plug.Grace < 0 || f.Plug.Grace > 24*time.Hour:
		return nil, fmt.Errorf("--plug-grace %s: want 0 to 24h", f.Plug.Grace)
	case f.RxRings < 0:
		return nil, fmt.Errorf("--rx-rings %d: want 0 or more", f.RxRings)
	case f.Recorder.Check() != nil:
		return nil, fmt.Errorf("--recorder, --recorder-snap, --recorder-rate: %w", f.Recorder.Check())
	case f.BusyPoll < 0 || f.BusyPoll > time.Second:
		return nil, fmt.Errorf("--busy-poll %s: want 0 to 1s", f.BusyPoll)
	case f.Stop != ports.StopAuto && f.Stop != ports.StopTCX && f.Stop != ports.StopClsact:
		return nil, fmt.Errorf("--ingress-stop %q: want tcx or clsact", f.Stop)
	}
	if f.metricsListen != "" {
		if err := ctl.CheckMetricsAddress(f.metricsListen); err != nil {
			return nil, fmt.Errorf("--metrics-listen: %w", err)
		}
	}
	return f, nil
}

func logger(f *flags, w io.Writer) (*slog.Logger, error) {
	f.LogLevel = new(slog.LevelVar)
	if err := f.LogLevel.UnmarshalText([]byte(f.logLevel)); err != nil {
		return nil, fmt.Errorf("--log-level %q: want debug, info, warn or error", f.logLevel)
	}
	toJournal := leadsToJournal(w, os.Getenv("JOURNAL_STREAM"))
	o := &slog.HandlerOptions{Level: f.LogLevel}
	handler := func(w io.Writer) slog.Handler { return slog.NewTextHandler(w, o) }
	switch {
	case f.logFormat == "json":
		handler = func(w io.Writer) slog.Handler { return slog.NewJSONHandler(w, o) }
	case f.logFormat != "text":
		return nil, fmt.Errorf("--log-format %q: want text or json", f.logFormat)
	case toJournal:
		o.ReplaceAttr = withoutTime
	}
	if toJournal {
		return slog.New(newJournal(w, handler)), nil
	}
	return slog.New(handler(w)), nil
}

// serve runs the daemon until ctx ends.
func serve(ctx context.Context, o ctl.Options, metricsListen string) error {
	if err := os.MkdirAll(o.RunDir, 0o755); err != nil {
		return fmt.Errorf("make run directory: %w", err)
	}
	lock, err := claim(o.RunDir)
	if err != nil {
		return err
	}
	defer lock()
	var metrics net.Listener
	if metricsListen != "" {
		if metrics, err = ctl.ListenMetrics(metricsListen); err != nil {
			return fmt.Errorf("--metrics-listen: %w", err)
		}
		defer metrics.Close()
	}
	d, err := ctl.New(o)
	if err != nil {
		return err
	}
	defer func() {
		if err := d.Close(); err != nil {
			o.Log.Error("the store was not closed cleanly", "err", err)
		}
	}()
	ln, err := api.Listen(filepath.Join(o.RunDir, "ctl.sock"))
	if err != nil {
		return err
	}
	if metrics != nil {
		o.Log.Info("metrics are served", "address", metrics.Addr())
		scraped, stop := context.WithCancel(context.Background())
		served := make(chan struct{})
		go func() { // ended by stop
			defer close(served)
			if err := d.ServeMetrics(scraped, metrics); err != nil {
				o.Log.Error("metrics are served no more", "err", err)
			}
		}()
		defer func() { stop(); <-served }()
	}
	srv := api.NewServer(d, o.Log, api.Limits{})
	served := make(chan error, 1)
	go func() { served <- srv.Serve(ln) }() // ended by Shutdown
	o.Log.Info("vswitchd is ready", "version", version, "socket", ln.Addr(), "workers", o.Workers)
	// Without systemd there is no socket to tell, and that is no error.
	_, _ = daemon.SdNotify(false, daemon.SdNotifyReady)
	select {
	case err = <-served:
	case <-ctx.Done():
		_, _ = daemon.SdNotify(false, daemon.SdNotifyStopping)
		o.Log.Info("vswitchd is told to end")
		limit, cancel := context.WithTimeout(context.Background(), shutdownLimit)
		defer cancel()
		// Streams that do not end in time are cut.
		_ = srv.Shutdown(limit)
		<-served
	}
	return err
}

// claim takes the run directory for this process, before anything is made that
// another daemon, which has it, would have to suffer. The claim ends with the
// returned call, or with the process.
func claim(dir string) (release func(), err error) {
	path := filepath.Join(dir, "vswitchd.lock")
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", path, err)
	}
	if err := unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB); err != nil {
		unix.Close(fd)
		if err == unix.EWOULDBLOCK {
			return nil, fmt.Errorf("run directory %s is in use by another vswitchd; give this one its own (--run-dir, and --state-dir)", dir)
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return func() {
		os.Remove(path)
		unix.Close(fd)
	}, nil
}
