package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime/debug"
	"time"
)

// The plug-in protocol (Docker's plugin_api.md): POST /Subsystem.Method with a JSON body, and
// a JSON answer. A refusal is an answer with status 200 that says why: Docker shows that text
// to the user as it stands. Other statuses are for what is no conversation.
const contentType = "application/vnd.docker.plugins.v1.2+json"

// method reads a body and answers it.
type method func(d *Driver, ctx context.Context, body []byte) (any, error)

// of is a method with arguments of type Q. Unknown fields are Docker's right: later versions
// add some.
func of[Q, A any](f func(*Driver, context.Context, Q) (A, error)) method {
	return func(d *Driver, ctx context.Context, body []byte) (any, error) {
		var q Q
		if len(body) == 0 {
			return nil, errEmpty
		}
		if err := json.Unmarshal(body, &q); err != nil {
			return nil, fmt.Errorf("the request cannot be read: %w", err)
		}
		return f(d, ctx, q)
	}
}

// errEmpty is for a call that was under way when the switch was killed: dockerd repeats it,
// but has sent its body already and has no other (moby issues 35459 and 39331, of 2017 and on).
// Whatever it was, the collector takes away what is left of it.
var errEmpty = errors.New("the switch was restarted during this call, and Docker repeats a call without its contents (moby issue 39331): try again")

// plain is a method without arguments.
func plain(answer any) method {
	return func(*Driver, context.Context, []byte) (any, error) { return answer, nil }
}

type none struct{}

// ignored is for notifications about other nodes of a cluster.
var ignored = plain(none{})

var methods = map[string]method{
	"/Plugin.Activate": plain(map[string][]string{"Implements": {"NetworkDriver", "IpamDriver"}}),

	"/NetworkDriver.GetCapabilities":             plain(map[string]string{"Scope": "local", "ConnectivityScope": "local"}),
	"/NetworkDriver.CreateNetwork":               of((*Driver).createNetwork),
	"/NetworkDriver.DeleteNetwork":               of((*Driver).deleteNetwork),
	"/NetworkDriver.CreateEndpoint":              of((*Driver).createEndpoint),
	"/NetworkDriver.EndpointOperInfo":            of((*Driver).endpointInfo),
	"/NetworkDriver.DeleteEndpoint":              of((*Driver).deleteEndpoint),
	"/NetworkDriver.Join":                        of((*Driver).join),
	"/NetworkDriver.Leave":                       of((*Driver).leave),
	"/NetworkDriver.ProgramExternalConnectivity": of((*Driver).publish),
	"/NetworkDriver.RevokeExternalConnectivity":  of((*Driver).unpublish),
	"/NetworkDriver.DiscoverNew":                 ignored,
	"/NetworkDriver.DiscoverDelete":              ignored,
	// A swarm's manager asks these of drivers of global scope, which this is not.
	"/NetworkDriver.AllocateNetwork": plain(map[string]map[string]string{"Options": {}}),
	"/NetworkDriver.FreeNetwork":     ignored,

	// Leases are on disk: nothing needs to be asked for again when dockerd starts.
	"/IpamDriver.GetCapabilities":         plain(map[string]bool{"RequiresMACAddress": false, "RequiresRequestReplay": false}),
	"/IpamDriver.GetDefaultAddressSpaces": plain(map[string]string{"LocalDefaultAddressSpace": "vswitch", "GlobalDefaultAddressSpace": "vswitch-global"}),
	"/IpamDriver.RequestPool":             of((*Driver).requestPool),
	"/IpamDriver.ReleasePool":             of((*Driver).releasePool),
	"/IpamDriver.RequestAddress":          of((*Driver).requestAddress),
	"/IpamDriver.ReleaseAddress":          of((*Driver).releaseAddress),
	"/IpamDriver.DiscoverNew":             ignored,
	"/IpamDriver.DiscoverDelete":          ignored,
}

// ServeHTTP answers one call.
func (d *Driver) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	call, ok := methods[r.URL.Path]
	if !ok {
		http.NotFound(w, r) // libnetwork knows the text of a method that is missing
		return
	}
	if r.Method != http.MethodPost {
		w.Header().Set("Allow", http.MethodPost)
		reply(w, http.StatusMethodNotAllowed, failure(fmt.Errorf("%s takes POST, not %s", r.URL.Path, r.Method)))
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), callTime)
	defer cancel()
	select {
	case d.slots <- struct{}{}:
		defer func() { <-d.slots }()
	case <-ctx.Done():
		reply(w, http.StatusServiceUnavailable, failure(fmt.Errorf("%d calls are under way", maxCalls)))
		return
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if err != nil {
		reply(w, http.StatusBadRequest, failure(fmt.Errorf("read the request: %w", err)))
		return
	}
	d.began()
	defer d.ended()
	answer, err := d.contained(ctx, r.URL.Path, call, body)
	if err != nil {
		d.o.Log.Info("refused what Docker asked for", "call", r.URL.Path[1:], "err", err)
		answer = failure(err)
	} else {
		d.o.Log.Debug("Docker asked", "call", r.URL.Path[1:])
	}
	reply(w, http.StatusOK, answer)
}

// contained turns a panic into an error: Docker's containers are not to hang on a fault of ours.
func (d *Driver) contained(ctx context.Context, name string, call method, body []byte) (answer any, err error) {
	defer func() {
		if p := recover(); p != nil {
			d.o.Log.Error("a call of Docker's failed in the switch", "call", name, "panic", p, "stack", string(debug.Stack()))
			err = errors.New("a fault of the switch: see its log")
		}
	}()
	return call(d, ctx, body)
}

// failure is a refusal. The network driver's part of libnetwork reads Err, the IPAM driver's
// Error (drivers/remote/api, ipams/remote/api).
func failure(err error) any { return map[string]string{"Err": err.Error(), "Error": err.Error()} }

func reply(w http.ResponseWriter, status int, answer any) {
	text, err := json.Marshal(answer)
	if err != nil {
		status, text = http.StatusInternalServerError, []byte(`{"Err":"the answer cannot be written"}`)
	}
	w.Header().Set("Content-Type", contentType)
	w.WriteHeader(status)
	_, _ = w.Write(append(text, '\n')) // who does not listen any more asks again
}

func (d *Driver) began() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.under++
	d.calls++
}

func (d *Driver) ended() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.under--
	d.last = time.Now()
}

// mine waits until no other call changes anything. The caller gives the turn back.
func (d *Driver) mine(ctx context.Context) (back func(), err error) {
	select {
	case d.turn <- struct{}{}:
		return func() { <-d.turn }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("the switch is busy with what Docker asked before: %w", ctx.Err())
	}
}

// Serve answers Docker at a unix socket until ctx ends. A socket that a killed process left
// is replaced, one that somebody listens at is not.
func (d *Driver) Serve(ctx context.Context, socket string) error {
	l, err := listen(ctx, socket)
	if err != nil {
		return fmt.Errorf("listen for Docker: %w", err)
	}
	s := &http.Server{
		Handler:           d,
		ReadHeaderTimeout: 10 * time.Second,
		ReadTimeout:       callTime,
		IdleTimeout:       -1, // none: a call that crosses the end of an idle connection would come again empty
		MaxHeaderBytes:    16 << 10,
		ErrorLog:          slog.NewLogLogger(d.o.Log.Handler(), slog.LevelDebug),
	}
	stopped := make(chan struct{})
	go func() { // ends with ctx, or with Serve
		defer close(stopped)
		<-ctx.Done()
		grace, cancel := context.WithTimeout(context.Background(), callTime)
		defer cancel()
		if s.Shutdown(grace) != nil {
			s.Close()
		}
	}()
	err = s.Serve(l) // the listener removes its socket
	if !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("listen for Docker at %s: %w", socket, err)
	}
	<-stopped
	return nil
}

func listen(ctx context.Context, socket string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(socket), 0o755); err != nil {
		return nil, err
	}
	if st, err := os.Lstat(socket); err == nil {
		if st.Mode()&os.ModeSocket == 0 {
			return nil, fmt.Errorf("%s is not a socket", socket)
		}
		if c, err := (&net.Dialer{Timeout: time.Second}).DialContext(ctx, "unix", socket); err == nil {
			c.Close()
			return nil, fmt.Errorf("another process listens at %s", socket)
		}
		if err := os.Remove(socket); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", socket)
	if err != nil {
		return nil, err
	}
	// Who may speak here can make interfaces.
	if err := os.Chmod(socket, 0o600); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}
