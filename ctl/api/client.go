package api

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"vswitch/ctl/config"
)

// DefaultSocket is where the daemon listens unless it is told otherwise.
const DefaultSocket = "/run/vswitch/ctl.sock"

// ErrUnreachable is what errors.Is finds in every *UnreachableError.
var ErrUnreachable = errors.New("daemon not reachable")

// UnreachableError says that no answer came, why, and what to do.
type UnreachableError struct {
	Socket string
	Reason string // a whole sentence: what is wrong and what to do
	Err    error
}

func (e *UnreachableError) Error() string        { return e.Reason }
func (e *UnreachableError) Unwrap() error        { return e.Err }
func (e *UnreachableError) Is(target error) bool { return target == ErrUnreachable }

// Client talks to one daemon. Its methods are those of Service. A refusal by the
// daemon is an *Error, a daemon that does not answer an *UnreachableError.
//
// Thread-safety: all methods are safe for concurrent use.
type Client struct {
	socket  string
	timeout time.Duration
	http    *http.Client
}

// NewClient returns a client of the daemon at socket whose calls take at most
// timeout each; streams have no end. It does not connect yet.
func NewClient(socket string, timeout time.Duration) *Client {
	dialer := net.Dialer{Timeout: timeout}
	return &Client{
		socket:  socket,
		timeout: timeout,
		http: &http.Client{Transport: &http.Transport{
			DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "unix", socket)
			},
			DisableCompression: true,
			IdleConnTimeout:    10 * time.Second, // below the server's, so that it never closes under us
		}},
	}
}

// Close lets go of idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// Version says who answers.
func (c *Client) Version(ctx context.Context) (Version, error) {
	return call[Version](ctx, c, http.MethodGet, "version", nil, nil)
}

// Status returns what is true now; bridge "" is all.
func (c *Client) Status(ctx context.Context, bridge string) (Status, error) {
	return call[Status](ctx, c, http.MethodGet, "status", params("bridge", bridge), nil)
}

// Config returns a stored document; version 0 is the current one.
func (c *Client) Config(ctx context.Context, version uint64) (ConfigVersion, error) {
	return call[ConfigVersion](ctx, c, http.MethodGet, "config", params("version", number(version)), nil)
}

// Edit applies a change: all of it or nothing.
func (c *Client) Edit(ctx context.Context, e Edit) (EditResult, error) {
	body, err := json.Marshal(e)
	if err != nil {
		return EditResult{}, fmt.Errorf("encode edit: %w", err)
	}
	return call[EditResult](ctx, c, http.MethodPost, "edit", nil, body)
}

// Apply replaces the whole document.
func (c *Client) Apply(ctx context.Context, doc config.Document, o ApplyOptions) (EditResult, error) {
	body, err := json.Marshal(doc)
	if err != nil {
		return EditResult{}, fmt.Errorf("encode document: %w", err)
	}
	return c.ApplyText(ctx, body, o)
}

// ApplyText is Apply of a document as it is written, in YAML or JSON: the daemon
// reads it, so that its errors name the text's own lines.
func (c *Client) ApplyText(ctx context.Context, text []byte, o ApplyOptions) (EditResult, error) {
	q := params("comment", o.Comment)
	if o.Confirm > 0 {
		q.Set("confirm", o.Confirm.String())
	}
	if o.DryRun {
		q.Set("dry_run", "1")
	}
	return call[EditResult](ctx, c, http.MethodPut, "config", q, text)
}

// Confirm keeps the change that waits for it.
func (c *Client) Confirm(ctx context.Context) (EditResult, error) {
	return call[EditResult](ctx, c, http.MethodPost, "confirm", nil, nil)
}

// Rollback makes an old version's document current, as a new version.
func (c *Client) Rollback(ctx context.Context, version uint64) (EditResult, error) {
	return call[EditResult](ctx, c, http.MethodPost, "rollback", params("version", number(version)), nil)
}

// History lists stored versions, newest first.
func (c *Client) History(ctx context.Context) ([]HistoryEntry, error) {
	return call[[]HistoryEntry](ctx, c, http.MethodGet, "history", nil, nil)
}

// FDB lists MAC addresses.
func (c *Client) FDB(ctx context.Context, f FDBQuery) ([]FDBEntry, error) {
	return call[[]FDBEntry](ctx, c, http.MethodGet, "fdb", f.params(), nil)
}

// FDBStats describes the MAC tables; bridge "" is all.
func (c *Client) FDBStats(ctx context.Context, bridge string) ([]FDBStats, error) {
	return call[[]FDBStats](ctx, c, http.MethodGet, "fdb/stats", params("bridge", bridge), nil)
}

// FDBFlush forgets learned MAC addresses.
func (c *Client) FDBFlush(ctx context.Context, f FDBQuery) (FlushResult, error) {
	return call[FlushResult](ctx, c, http.MethodPost, "fdb/flush", f.params(), nil)
}

// Tunnels lists tunnel ports; bridge "" is all.
func (c *Client) Tunnels(ctx context.Context, bridge string) ([]TunnelStatus, error) {
	return call[[]TunnelStatus](ctx, c, http.MethodGet, "tunnels", params("bridge", bridge), nil)
}

// Meshes lists meshes with their peers; name "" is all.
func (c *Client) Meshes(ctx context.Context, name string) ([]MeshStatus, error) {
	return call[[]MeshStatus](ctx, c, http.MethodGet, "meshes", params("name", name), nil)
}

// Drops lists what was dropped and why; empty names are all.
func (c *Client) Drops(ctx context.Context, bridge, port string) ([]Drop, error) {
	return call[[]Drop](ctx, c, http.MethodGet, "drops", params("bridge", bridge, "port", port), nil)
}

// Stats lists counters; empty names are all.
func (c *Client) Stats(ctx context.Context, bridge, port string) ([]BridgeStats, error) {
	return call[[]BridgeStats](ctx, c, http.MethodGet, "stats", params("bridge", bridge, "port", port), nil)
}

// Workers lists the forwarding threads.
func (c *Client) Workers(ctx context.Context) ([]WorkerStats, error) {
	return call[[]WorkerStats](ctx, c, http.MethodGet, "workers", nil, nil)
}

// maxEvent bounds one line of the stream.
const maxEvent = 1 << 20

// Events calls each with every event that f selects, until each returns an
// error, ctx ends, or the daemon does. It returns that error; nil when the
// daemon ended the stream.
func (c *Client) Events(ctx context.Context, f EventFilter, each func(Event) error) error {
	q := params("kind", strings.Join(f.Kinds, ","), "bridge", f.Bridge)
	// The answer's header must come in time; the events need not.
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	resp, err := c.send(ctx, http.MethodGet, "events", q, nil)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !timer.Stop() {
		return c.explain(context.DeadlineExceeded)
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		var e Event
		if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
			return fmt.Errorf("decode event: %w", err)
		}
		if err := each(e); err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := lines.Err(); err != nil {
		return c.explain(err)
	}
	return nil
}

// call is one request and its whole answer, within the client's timeout.
func call[T any](ctx context.Context, c *Client, method, path string, q url.Values, body []byte) (v T, err error) {
	ctx, cancel := context.WithTimeout(ctx, c.timeout)
	defer cancel()
	resp, err := c.send(ctx, method, path, q, body)
	if err != nil {
		return v, err
	}
	defer resp.Body.Close()
	if err := json.NewDecoder(resp.Body).Decode(&v); err != nil {
		var syn *json.SyntaxError
		var typ *json.UnmarshalTypeError
		if errors.As(err, &syn) || errors.As(err, &typ) {
			return v, fmt.Errorf("decode the daemon's answer to %s %s: %w", method, path, err)
		}
		return v, c.explain(err) // cut off in the middle
	}
	io.Copy(io.Discard, resp.Body) // so that the connection is used again
	return v, nil
}

// send returns an answer of success; the caller closes its body.
func (c *Client) send(ctx context.Context, method, path string, q url.Values, body []byte) (*http.Response, error) {
	return c.sendFrom(ctx, method, path, q, bytes.NewReader(body))
}

// sendFrom is send of a body that is read as it is sent.
func (c *Client) sendFrom(ctx context.Context, method, path string, q url.Values, body io.Reader) (*http.Response, error) {
	u := url.URL{Scheme: "http", Host: "vswitch", Path: "/v1/" + path, RawQuery: q.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), body)
	if err != nil {
		return nil, fmt.Errorf("make request: %w", err)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return nil, c.explain(err)
	}
	if resp.StatusCode == http.StatusOK {
		return resp, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	e := &Error{}
	if json.Unmarshal(text, e) != nil || e.Message == "" {
		e.Message = fmt.Sprintf("the daemon answered %s: %s", resp.Status, bytes.TrimSpace(text))
	}
	e.Status = resp.StatusCode
	return nil, e
}

// explain turns a failure to talk into a sentence that says what to do. An end
// that the caller asked for stays what it is.
func (c *Client) explain(err error) error {
	if errors.Is(err, context.Canceled) {
		return err
	}
	u := &UnreachableError{Socket: c.socket, Err: err}
	var netErr net.Error
	switch {
	case errors.Is(err, fs.ErrNotExist):
		u.Reason = fmt.Sprintf("no daemon: there is no socket %s; start it with `systemctl start vswitchd`, or name its socket with --ctl", c.socket)
	case errors.Is(err, syscall.ECONNREFUSED):
		u.Reason = fmt.Sprintf("no daemon: nobody answers on %s; it is not running: start it with `systemctl start vswitchd`", c.socket)
	case errors.Is(err, fs.ErrPermission):
		u.Reason = fmt.Sprintf("permission denied on %s; be root, or in group %s", c.socket, Group)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded),
		errors.As(err, &netErr) && netErr.Timeout():
		u.Reason = fmt.Sprintf("the daemon on %s did not answer within %s; a change that was asked for may have been made or not", c.socket, c.timeout)
	case errors.Is(err, syscall.EAGAIN):
		u.Reason = fmt.Sprintf("the daemon on %s takes no more connections now; try again", c.socket)
	case errors.Is(err, syscall.ENOTDIR), errors.Is(err, syscall.EINVAL), errors.Is(err, syscall.ENAMETOOLONG):
		u.Reason = fmt.Sprintf("%q cannot be a socket: %v", c.socket, rootCause(err))
	default:
		u.Reason = fmt.Sprintf("lost the daemon on %s: %v; a change that was asked for may have been made or not", c.socket, rootCause(err))
	}
	return u
}

// rootCause drops what no user asked for: the library's "Get \"http://vswitch/…\":"
// and its words for the two ends of a socket.
func rootCause(err error) error {
	var oe *net.OpError
	if errors.As(err, &oe) {
		return oe.Err
	}
	var ue *url.Error
	if errors.As(err, &ue) {
		return ue.Err
	}
	return err
}

func (f FDBQuery) params() url.Values {
	q := params("bridge", f.Bridge, "port", f.Port, "mac", f.MAC)
	if f.VLAN >= 0 {
		q.Set("vlan", strconv.Itoa(f.VLAN))
	}
	return q
}

// params makes a query of name, value pairs, without the empty ones.
func params(pairs ...string) url.Values {
	q := url.Values{}
	for i := 0; i+1 < len(pairs); i += 2 {
		if pairs[i+1] != "" {
			q.Set(pairs[i], pairs[i+1])
		}
	}
	return q
}

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return strconv.FormatUint(n, 10)
}
