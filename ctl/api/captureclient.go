package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

func (q CaptureQuery) params(format string) url.Values {
	return params("bridge", q.Bridge, "port", q.Port, "name", q.Name, "direction", q.Direction, "tunnel", q.Tunnel,
		"filter", q.Filter, "format", format, "drops", set(q.Drops), "split", set(q.Split),
		"count", number(uint64(max(q.Count, 0))), "snaplen", number(uint64(max(q.Snap, 0))))
}

func (q DumpQuery) params(format string) url.Values {
	v := params("bridge", q.Bridge, "port", q.Port, "name", q.Name, "filter", q.Filter, "format", format,
		"drops", set(q.Drops), "split", set(q.Split))
	if q.Last > 0 {
		v.Set("last", q.Last.String())
	}
	return v
}

// set is a flag as a parameter.
func set(b bool) string {
	if b {
		return "1"
	}
	return ""
}

// Frames is what a capture or a dump sends: a file in pcapng format, or lines.
type Frames struct {
	Of   string // such as: bridge br0
	Body io.ReadCloser
}

// CaptureFile begins a live capture in pcapng format. The caller must close its body;
// reading from it ends when ctx does.
func (c *Client) CaptureFile(ctx context.Context, q CaptureQuery) (Frames, error) {
	return c.frames(ctx, "capture", q.params(FormatPcapng))
}

// CaptureLines calls each with every frame of a live capture until it returns an
// error, ctx ends, or the capture does; of, which may be nil, is called first.
func (c *Client) CaptureLines(ctx context.Context, q CaptureQuery, of func(string), each func(*CapturedFrame) error) error {
	return c.frameLines(ctx, "capture", q.params(FormatJSON), of, each)
}

// Recorder says how the flight recorder is doing.
func (c *Client) Recorder(ctx context.Context) (RecorderStatus, error) {
	return call[RecorderStatus](ctx, c, http.MethodGet, "recorder", nil, nil)
}

// DumpFile is CaptureFile of what the flight recorder holds.
func (c *Client) DumpFile(ctx context.Context, q DumpQuery) (Frames, error) {
	return c.frames(ctx, "recorder/dump", q.params(FormatPcapng))
}

// DumpLines is CaptureLines of what the flight recorder holds.
func (c *Client) DumpLines(ctx context.Context, q DumpQuery, of func(string), each func(*CapturedFrame) error) error {
	return c.frameLines(ctx, "recorder/dump", q.params(FormatJSON), of, each)
}

// frames begins a stream: its header must come in time, the rest need not.
func (c *Client) frames(ctx context.Context, path string, q url.Values) (Frames, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	timer := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	resp, err := c.send(ctx, http.MethodGet, path, q, nil)
	if err != nil {
		cancel(nil)
		return Frames{}, err
	}
	if !timer.Stop() {
		resp.Body.Close()
		cancel(nil)
		return Frames{}, c.explain(context.DeadlineExceeded)
	}
	return Frames{Of: resp.Header.Get(ofHeader), Body: &streamBody{resp.Body, c, ctx, cancel}}, nil
}

// streamBody is the body of an answer, whose errors say what to do.
type streamBody struct {
	io.ReadCloser
	c      *Client
	ctx    context.Context
	cancel context.CancelCauseFunc
}

func (b *streamBody) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	if err == nil || err == io.EOF {
		return n, err
	}
	if cause := context.Cause(b.ctx); cause != nil {
		return n, cause
	}
	return n, b.c.explain(err)
}

func (b *streamBody) Close() error {
	b.cancel(nil)
	return b.ReadCloser.Close()
}

func (c *Client) frameLines(ctx context.Context, path string, q url.Values, of func(string), each func(*CapturedFrame) error) error {
	f, err := c.frames(ctx, path, q)
	if err != nil {
		return err
	}
	defer f.Body.Close()
	if of != nil {
		of(f.Of)
	}
	lines := bufio.NewScanner(f.Body)
	lines.Buffer(nil, maxEvent)
	for lines.Scan() {
		var x CapturedFrame
		if err := json.Unmarshal(lines.Bytes(), &x); lines.Err() != nil {
			break // it is the half of a line
		} else if err != nil {
			return fmt.Errorf("decode captured frame: %w", err)
		}
		if err := each(&x); err != nil {
			return err
		}
	}
	return lines.Err()
}
