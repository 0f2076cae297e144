package api

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"
)

// TraceService is the part of Service that this file and replay.go serve.
type TraceService interface {
	// Trace carries a frame through the pipeline without sending it.
	Trace(ctx context.Context, r TraceRequest) (Trace, error)
	// TraceLive calls begin once it is under way, and then each with the way of every
	// real frame that q selects, until q.Count are through, each returns an error, or
	// ctx ends.
	TraceLive(ctx context.Context, q TraceQuery, begin func() error, each func(*Trace) error) (TraceEnd, error)
	// Replay puts the frames of a capture file into the switch. Once a second, and from
	// another goroutine, it tells how far it is; not after it returned.
	Replay(ctx context.Context, q ReplayQuery, file io.Reader, tell func(ReplayResult)) (ReplayResult, error)
}

// TraceRequest is a frame to trace.
type TraceRequest struct {
	Bridge  string        `json:"bridge,omitempty"` // that the port belongs to; left out: whichever it is
	InPort  string        `json:"in_port"`
	Frame   string        `json:"frame"` // in hexadecimal digits, VLAN tag included
	Offload *TraceOffload `json:"offload,omitempty"`
}

// TraceOffload is the offload state of a frame: the fields of struct virtio_net_hdr
// (linux/virtio_net.h), offsets counted in the frame as it is given, tag included.
type TraceOffload struct {
	Flags      uint8  `json:"flags,omitempty"`
	GSOType    uint8  `json:"gso_type,omitempty"`
	HdrLen     uint16 `json:"hdr_len,omitempty"`
	GSOSize    uint16 `json:"gso_size,omitempty"`
	CsumStart  uint16 `json:"csum_start,omitempty"`
	CsumOffset uint16 `json:"csum_offset,omitempty"`
}

// Trace is the way of one frame through the pipeline.
type Trace struct {
	Time    time.Time    `json:"time"`
	Bridge  string       `json:"bridge"`
	InPort  string       `json:"in_port"`
	Live    bool         `json:"live,omitempty"` // a real frame, that was sent
	Frame   TraceFrame   `json:"frame"`          // as it came in
	Steps   []TraceStep  `json:"steps"`
	Out     []TraceFrame `json:"out"` // that left, or would
	Drops   []TraceFrame `json:"drops"`
	Verdict string       `json:"verdict"` // all that in a line
}

// TraceStep is one step of the pipeline, and what it decided.
type TraceStep struct {
	Depth  int    `json:"depth,omitempty"` // patch ports that the frame has gone through
	Bridge string `json:"bridge"`
	Port   string `json:"port,omitempty"` // that it is about
	Stage  string `json:"stage"`          // receive, admission, learn, lookup, storm, flood, output, mirror, transmit, drop
	Text   string `json:"text"`
	Reason string `json:"reason,omitempty"` // of a drop
}

// TraceFrame is a frame at a port.
type TraceFrame struct {
	Bridge  string   `json:"bridge"`
	Port    string   `json:"port"`
	VLAN    int      `json:"vlan,omitempty"` // on the bridge
	Tag     *VLANTag `json:"tag,omitempty"`  // on the wire; left out: none
	Length  int      `json:"length"`         // bytes on the wire, tag included
	GSOSize int      `json:"gso_size,omitempty"`
	Own     bool     `json:"own,omitempty"`    // made by the switch, such as an ICMP answer
	Reason  string   `json:"reason,omitempty"` // of a drop
	Help    string   `json:"help,omitempty"`   // what that means and what to do
	Summary string   `json:"summary"`
	Data    string   `json:"data,omitempty"` // its first MaxTraceData bytes without the tag, in hexadecimal digits
}

// MaxTraceData bounds TraceFrame.Data, in bytes.
const MaxTraceData = 2048

// VLANTag is an 802.1Q tag.
type VLANTag struct {
	VID  int    `json:"vid"`
	PCP  int    `json:"pcp,omitempty"`
	TPID string `json:"tpid,omitempty"` // left out: 0x8100
}

// TraceQuery selects real frames to trace; empty fields mean all.
type TraceQuery struct {
	Bridge, Port string
	Filter       string // pcap-filter(7)
	Count        int    // ends after so many frames; 1 to MaxTraceCount
}

// Counts of a live trace.
const (
	DefaultTraceCount = 10
	MaxTraceCount     = 100000
)

// TraceEnd is the end of a live trace.
type TraceEnd struct {
	Traced uint64 `json:"traced"`
	Missed uint64 `json:"missed"` // frames that matched and came too fast to be traced
}

// traceLine is one line of a live trace.
type traceLine struct {
	Trace *Trace    `json:"trace,omitempty"`
	End   *TraceEnd `json:"end,omitempty"`
	Error *Error    `json:"error,omitempty"`
}

// traceEndpoints is this file's part of endpoints.
func (s *Server) traceEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{
		"/v1/trace":      {http.MethodPost: endpoint{serve: s.trace}},
		"/v1/trace/live": {http.MethodGet: endpoint{[]string{"bridge", "port", "filter", "count"}, s.traceLive}},
		"/v1/replay":     {http.MethodPost: endpoint{[]string{"bridge", "port", "speed"}, s.replay}},
	}
}

func (s *Server) trace(w http.ResponseWriter, r *http.Request, _ query) (any, error) {
	body, release, err := s.readBody(w, r)
	if err != nil {
		return nil, err
	}
	defer release()
	var t TraceRequest
	if err := decodeStrict(body, &t); err != nil {
		return nil, err
	}
	for _, f := range []struct{ name, value, what string }{
		{"in_port", t.InPort, "the port that the frame comes in by"}, {"frame", t.Frame, "the frame's bytes in hexadecimal digits"},
	} {
		if f.value == "" {
			return nil, &Error{Status: http.StatusBadRequest, Field: f.name, Message: f.name + ": missing; it is " + f.what}
		}
	}
	return answer(s.svc.Trace(r.Context(), t))
}

func (q query) trace() (TraceQuery, error) {
	t := TraceQuery{Bridge: q.str("bridge"), Port: q.str("port"), Filter: q.str("filter"), Count: DefaultTraceCount}
	if v := q.str("count"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 || n > MaxTraceCount {
			return t, badParam("count", v, fmt.Sprintf("a number from 1 to %d", MaxTraceCount))
		}
		t.Count = n
	}
	return t, nil
}

// traceLive streams JSON lines until enough frames came, the client leaves, or the
// daemon ends.
func (s *Server) traceLive(w http.ResponseWriter, r *http.Request, q query) (any, error) {
	t, err := q.trace()
	if err != nil {
		return nil, err
	}
	if !s.streams.enter() {
		return nil, busy("streams", s.limits.Streams)
	}
	defer s.streams.leave()
	ctx, cancel := s.untilDone(r.Context())
	defer cancel()
	out := &lineWriter{s: s, w: w, rc: http.NewResponseController(w)}
	end, err := s.svc.TraceLive(ctx, t, out.begin, func(t *Trace) error { return out.line(traceLine{Trace: t}) })
	switch {
	case !out.begun:
		return nil, err
	case err != nil:
		e, _ := asError(err)
		out.line(traceLine{Error: e})
	default:
		out.line(traceLine{End: &end})
	}
	return nil, nil
}

// untilDone is a context that ends with the daemon, too.
func (s *Server) untilDone(ctx context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() { // ends with the context
		select {
		case <-s.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	return ctx, cancel
}

// lineWriter writes JSON lines to a client, each at once. A client that does not take
// one within the server's limit is cut off.
//
// Thread-safety: for one goroutine at a time.
type lineWriter struct {
	s     *Server
	w     http.ResponseWriter
	rc    *http.ResponseController
	begun bool
}

// begin writes the answer's header: the client knows that it is under way. The
// timeouts of whole requests end here.
func (o *lineWriter) begin() error {
	if err := o.rc.SetReadDeadline(time.Time{}); err != nil {
		return err
	}
	o.begun = true
	o.w.Header().Set("Content-Type", "application/x-ndjson")
	o.w.WriteHeader(http.StatusOK)
	return o.write(nil)
}

func (o *lineWriter) line(v any) error {
	b, err := encode(v)
	if err != nil {
		return err
	}
	return o.write(b)
}

func (o *lineWriter) write(b []byte) error {
	if err := o.rc.SetWriteDeadline(time.Now().Add(o.s.limits.WriteTimeout)); err != nil {
		return err
	}
	if _, err := o.w.Write(b); err != nil {
		return err
	}
	if err := o.rc.Flush(); err != nil {
		return err
	}
	return o.rc.SetWriteDeadline(time.Time{})
}

// Trace carries a frame through the pipeline without sending it.
func (c *Client) Trace(ctx context.Context, r TraceRequest) (Trace, error) {
	body, err := json.Marshal(r)
	if err != nil {
		return Trace{}, fmt.Errorf("encode the frame to trace: %w", err)
	}
	return call[Trace](ctx, c, http.MethodPost, "trace", nil, body)
}

// TraceLive calls each with the way of every real frame that q selects, until q.Count
// are through, each returns an error, or ctx ends; begin, which may be nil, is called
// first.
func (c *Client) TraceLive(ctx context.Context, q TraceQuery, begin func() error, each func(*Trace) error) (end TraceEnd, err error) {
	p := params("bridge", q.Bridge, "port", q.Port, "filter", q.Filter, "count", number(uint64(max(q.Count, 0))))
	ended := false
	err = c.lines(ctx, http.MethodGet, "trace/live", p, nil, begin, func(line []byte) error {
		var l traceLine
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("decode a trace: %w", err)
		}
		switch {
		case l.Error != nil:
			return l.Error
		case l.End != nil:
			end, ended = *l.End, true
		case l.Trace != nil:
			return each(l.Trace)
		}
		return nil
	})
	if err == nil && !ended {
		err = c.explain(io.ErrUnexpectedEOF)
	}
	return end, err
}

// lines calls each with every line of a stream. The answer's header must come in time;
// the lines need not.
func (c *Client) lines(ctx context.Context, method, path string, q url.Values, body io.Reader, begin func() error, each func([]byte) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	timer := time.AfterFunc(c.timeout, func() { cancel(context.DeadlineExceeded) })
	resp, err := c.sendFrom(ctx, method, path, q, body)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if !timer.Stop() {
		return c.explain(context.DeadlineExceeded)
	}
	if begin != nil {
		if err := begin(); err != nil {
			return err
		}
	}
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxTraceLine)
	for lines.Scan() {
		if err := each(lines.Bytes()); err != nil {
			return err
		}
	}
	if err := context.Cause(ctx); err != nil {
		return err
	}
	if err := lines.Err(); errors.Is(err, bufio.ErrTooLong) {
		return fmt.Errorf("read the daemon's answer: %w", err)
	} else if err != nil {
		return c.explain(err)
	}
	return nil
}

// maxTraceLine bounds one line: a flood over ten thousand ports is much to tell.
const maxTraceLine = 256 << 20
