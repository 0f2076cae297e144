package ctl

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"golang.org/x/net/netutil"

	"vswitch/ctl/api"
)

// metricsAddresses says what ListenMetrics takes.
const metricsAddresses = "ADDRESS:PORT, such as 127.0.0.1:9123 or [::1]:9123, or unix:/PATH"

// Bounds of who asks for metrics.
const (
	metricsConns   = 16 // connections; more wait
	metricsAtOnce  = 3  // scrapes; more are told 503
	metricsTimeout = time.Minute
)

// CheckMetricsAddress says what is wrong with an address for ListenMetrics.
func CheckMetricsAddress(address string) error {
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		if !strings.HasPrefix(path, "/") {
			return fmt.Errorf("%q is not an absolute path: want %s", path, metricsAddresses)
		}
		return nil
	}
	_, port, err := net.SplitHostPort(address)
	if err != nil {
		return fmt.Errorf("%q is not an address: want %s", address, metricsAddresses)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return fmt.Errorf("%q is not a port: want %s", port, metricsAddresses)
	}
	return nil
}

// ListenMetrics listens for scrapes: on an address and TCP port, or, with unix:, on a
// socket like the API's, of mode 0660.
func ListenMetrics(address string) (net.Listener, error) {
	if err := CheckMetricsAddress(address); err != nil {
		return nil, err
	}
	if path, ok := strings.CutPrefix(address, "unix:"); ok {
		return api.Listen(path)
	}
	ln, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("listen for scrapes: %w", err)
	}
	return ln, nil
}

// ServeMetrics answers scrapes on ln until ctx ends, and closes ln.
func (d *Daemon) ServeMetrics(ctx context.Context, ln net.Listener) error {
	return d.serveMetrics(ctx, ln, d.reading)
}

func (d *Daemon) serveMetrics(ctx context.Context, ln net.Listener, read func() *reading) error {
	registry := prometheus.NewRegistry()
	for _, c := range []prometheus.Collector{
		&metricsCollector{read: read}, collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}),
	} {
		if err := registry.Register(c); err != nil {
			ln.Close()
			return fmt.Errorf("register metrics: %w", err)
		}
	}
	quiet := slog.NewLogLogger(d.log.Handler(), slog.LevelDebug) // of broken clients
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(registry, promhttp.HandlerOpts{
		ErrorLog: slog.NewLogLogger(d.log.Handler(), slog.LevelError), MaxRequestsInFlight: metricsAtOnce,
	}))
	srv := &http.Server{
		Handler: mux, ErrorLog: quiet, MaxHeaderBytes: 16 << 10,
		ReadTimeout: 10 * time.Second, WriteTimeout: metricsTimeout, IdleTimeout: 2 * time.Minute,
	}
	stop := context.AfterFunc(ctx, func() { srv.Close() })
	defer stop()
	err := srv.Serve(netutil.LimitListener(ln, metricsConns))
	if errors.Is(err, http.ErrServerClosed) {
		return nil
	}
	return fmt.Errorf("serve metrics on %s: %w", ln.Addr(), err)
}
