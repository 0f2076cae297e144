package api

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"time"

	"vswitch/capture"
	"vswitch/capture/summary"
)

// CaptureService is the part of Service that this file serves.
type CaptureService interface {
	// Capture begins a live capture. The caller must close it.
	Capture(ctx context.Context, q CaptureQuery) (Capture, error)

	// Recorder says how the flight recorder is doing.
	Recorder(ctx context.Context) (RecorderStatus, error)
	// RecorderDump calls begin once it knows what q is of, and then each with what the
	// flight recorder holds, in order of time, until each returns an error.
	RecorderDump(ctx context.Context, q DumpQuery, begin func(of string) error, each func(*CapturedFrame) error) error
}

// Capture is a live capture.
//
// Thread-safety: for one goroutine.
type Capture interface {
	// Of is what is captured, such as: bridge br0.
	Of() string
	// Read hands over what was captured since the last call, in order of time, and
	// never waits. It is called every few milliseconds; what is not fetched is lost,
	// and counted. An error is the capture's end.
	Read(each func(*CapturedFrame)) error
	// End says that nothing more is wanted than what was captured so far, which the
	// next Read hands over.
	End()
	Close()
}

// CapturedFrame is what was seen of one frame at one port: one line of a capture in
// JSON.
type CapturedFrame struct {
	Time      time.Time `json:"time"`
	Bridge    string    `json:"bridge,omitempty"`
	Port      string    `json:"port,omitempty"`
	Interface string    `json:"interface,omitempty"` // of the underlay, with tunnel=outer
	Direction string    `json:"direction"`           // in, out
	VLAN      int       `json:"vlan,omitempty"`      // on the bridge
	Reason    string    `json:"reason,omitempty"`    // why it was dropped
	Help      string    `json:"help,omitempty"`      // what that means and what to do
	Outputs   int       `json:"outputs,omitempty"`   // copies that were put out
	Output    string    `json:"output,omitempty"`    // the first port of those
	Own       bool      `json:"own,omitempty"`       // made by the switch itself
	Skipped   uint64    `json:"skipped,omitempty"`   // frames that it stands for beside itself
	Note      string    `json:"note,omitempty"`      // what else there is to say
	Length    int       `json:"length"`              // bytes on the wire
	Kept      int       `json:"kept"`                // bytes of those that were captured
	Missed    uint64    `json:"missed,omitempty"`    // frames lost by the capture since the last line
	Summary   string    `json:"summary"`
	Comment   string    `json:"comment"`

	// Packet is the same for a file. It and its data are valid during a call only.
	Packet capture.Packet `json:"-"`
}

// CaptureQuery says what to capture; empty fields mean all.
type CaptureQuery struct {
	Bridge, Port string
	Name         string // a bridge or a port; a name that is both is the bridge's
	Direction    string // in, out; empty and "both": both
	Drops        bool   // only what was dropped
	Tunnel       string // outer: the packets on the underlay; empty and "inner": the frames within
	Count        int    // the capture ends after so many frames; 0: never
	Snap         int    // bytes of a frame that are kept; 0: all
	Filter       string // pcap-filter(7)
	Split        bool   // super-frames as the segments they stand for
}

// DumpQuery says what of the flight recorder's frames is wanted; empty fields mean all.
type DumpQuery struct {
	Bridge, Port, Name string // as in CaptureQuery
	Last               time.Duration
	Drops              bool
	Filter             string
	Split              bool
}

// RecorderStatus is how the flight recorder is doing.
type RecorderStatus struct {
	On         bool       `json:"on"`
	Bytes      int        `json:"bytes"`             // of memory a worker
	Snap       int        `json:"snap"`              // bytes of a frame that are kept
	Rate       int        `json:"rate"`              // frames a second and worker, and as many drops; 0: all
	Frames     uint64     `json:"frames"`            // recorded since the start
	Drops      uint64     `json:"drops"`             // recorded since the start
	Skipped    uint64     `json:"skipped,omitempty"` // that came faster than Rate
	Oldest     *time.Time `json:"oldest,omitempty"`  // of the frames it holds
	OldestDrop *time.Time `json:"oldest_drop,omitempty"`
}

// captureEndpoints is this file's part of endpoints.
func (s *Server) captureEndpoints() map[string]map[string]endpoint {
	return map[string]map[string]endpoint{
		"/v1/capture": {http.MethodGet: endpoint{[]string{
			"bridge", "port", "name", "direction", "drops", "tunnel", "count", "snaplen", "filter", "split", "format",
		}, s.capture}},
		"/v1/recorder": {http.MethodGet: endpoint{nil, s.recorder}},
		"/v1/recorder/dump": {http.MethodGet: endpoint{[]string{
			"bridge", "port", "name", "last", "drops", "filter", "split", "format",
		}, s.recorderDump}},
	}
}

// Formats of a capture.
const (
	FormatPcapng = "pcapng"
	FormatJSON   = "json"
)

// MaxLast is how far back a dump may reach.
const MaxLast = 24 * time.Hour

// oneOf returns a parameter that has one of few values, the first of which it has when
// it is absent.
func (q query) oneOf(name string, values ...string) (string, error) {
	v := q.str(name)
	if v == "" {
		return values[0], nil
	}
	if !slices.Contains(values, v) {
		allowed := "one of " + values[0]
		for _, x := range values[1:] {
			allowed += ", " + x
		}
		return "", badParam(name, v, allowed)
	}
	return v, nil
}

func (q query) bounded(name string, most int) (int, error) {
	v := q.str(name)
	if v == "" {
		return 0, nil
	}
	n, err := strconv.Atoi(v)
	if err != nil || n < 0 || n > most {
		return 0, badParam(name, v, fmt.Sprintf("a number from 0 to %d", most))
	}
	return n, nil
}

// MaxSnap is the largest snap length: what Wireshark reads.
const MaxSnap = 262144

const maxCount = 1 << 31

func (q query) capture() (c CaptureQuery, format string, err error) {
	c = CaptureQuery{Bridge: q.str("bridge"), Port: q.str("port"), Name: q.str("name"), Filter: q.str("filter")}
	var errs [7]error
	c.Direction, errs[0] = q.oneOf("direction", "both", "in", "out")
	c.Tunnel, errs[1] = q.oneOf("tunnel", "inner", "outer")
	format, errs[2] = q.oneOf("format", FormatPcapng, FormatJSON)
	c.Drops, errs[3] = q.flag("drops")
	c.Split, errs[4] = q.flag("split")
	c.Count, errs[5] = q.bounded("count", maxCount)
	c.Snap, errs[6] = q.bounded("snaplen", MaxSnap)
	for _, err := range errs {
		if err != nil {
			return c, "", err
		}
	}
	return c, format, nil
}

// ParseLast reads how far back a dump reaches: 10s, 5m, or bare seconds.
func ParseLast(s string) (time.Duration, error) {
	d, err := time.ParseDuration(s)
	if n, nerr := strconv.ParseUint(s, 10, 31); nerr == nil {
		d, err = time.Duration(n)*time.Second, nil
	}
	if err != nil || d <= 0 || d > MaxLast {
		return 0, badParam("last", s, "a time above zero and up to 24h, such as 10s or 5m")
	}
	return d, nil
}

func (q query) dump() (c DumpQuery, format string, err error) {
	c = DumpQuery{Bridge: q.str("bridge"), Port: q.str("port"), Name: q.str("name"), Filter: q.str("filter")}
	var errs [4]error
	format, errs[0] = q.oneOf("format", FormatPcapng, FormatJSON)
	c.Drops, errs[1] = q.flag("drops")
	c.Split, errs[2] = q.flag("split")
	if last := q.str("last"); last != "" {
		c.Last, errs[3] = ParseLast(last)
	}
	for _, err := range errs {
		if err != nil {
			return c, "", err
		}
	}
	return c, format, nil
}

// ofHeader is the answer's header that says what is captured.
const ofHeader = "Vswitch-Capture"

// How often a capture is read: a frame is with the reader soon after. While frames
// come it is read more often, so that its rings hold more than a burst.
const (
	captureEvery     = 10 * time.Millisecond
	busyCaptureEvery = 2 * time.Millisecond
)

// capture streams until the client leaves, count is reached, or the daemon ends. A
// reader may rest as long as he likes: he loses frames, which are counted where he
// goes on, and holds up nobody else.
func (s *Server) capture(w http.ResponseWriter, r *http.Request, q query) (any, error) {
	cq, format, err := q.capture()
	if err != nil {
		return nil, err
	}
	c, err := s.svc.Capture(r.Context(), cq)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	out, err := s.beginFrames(w, r, format, c.Of(), cq.Snap, 0)
	if err != nil || r.Method == http.MethodHead {
		return nil, nil
	}
	ended := make(chan struct{})
	defer close(ended)
	go func() { // ends with the capture
		select {
		case <-s.done: // a write that is under way may not hold up the daemon's end
			out.rc.SetWriteDeadline(time.Now().Add(endLimit))
		case <-ended:
		}
	}()
	tick := time.NewTimer(0)
	defer tick.Stop()
	left, over := cq.Count, false
	for !over {
		select {
		case <-r.Context().Done():
			return nil, nil
		case <-s.done:
			over = true
			c.End()
		case <-tick.C:
		}
		wait := captureEvery
		failed := c.Read(func(f *CapturedFrame) {
			wait = busyCaptureEvery
			if err == nil && (cq.Count == 0 || left > 0) {
				err = out.frame(f)
				left--
			}
		})
		if err == nil {
			err = out.flush()
		}
		if err != nil {
			return nil, nil // the client left
		}
		tick.Reset(wait)
		over = over || failed != nil || cq.Count > 0 && left == 0
	}
	out.end()
	return nil, nil
}

func (s *Server) recorder(_ http.ResponseWriter, r *http.Request, _ query) (any, error) {
	return answer(s.svc.Recorder(r.Context()))
}

func (s *Server) recorderDump(w http.ResponseWriter, r *http.Request, q query) (any, error) {
	dq, format, err := q.dump()
	if err != nil {
		return nil, err
	}
	if !s.dumps.enter() {
		return nil, busy("dumps", s.limits.Dumps)
	}
	defer s.dumps.leave()
	var out *framesWriter
	err = s.svc.RecorderDump(r.Context(), dq, func(of string) (err error) {
		out, err = s.beginFrames(w, r, format, of, 0, s.limits.WriteTimeout)
		return err
	}, func(f *CapturedFrame) error { return out.frame(f) })
	if out == nil {
		return nil, err
	}
	if err == nil {
		out.end()
	}
	return nil, nil
}

// framesWriter writes captured frames to a client, in whole blocks or whole lines.
type framesWriter struct {
	w     http.ResponseWriter
	rc    *http.ResponseController
	limit time.Duration // for one write; 0: none
	done  chan struct{} // closed: the daemon ends

	file  *capture.Writer // nil: JSON
	lines []byte
}

// beginFrames writes the answer's header, and with pcapng the file's: a reader such as
// Wireshark opens at once.
func (s *Server) beginFrames(w http.ResponseWriter, r *http.Request, format, of string, snap int, limit time.Duration) (*framesWriter, error) {
	out := &framesWriter{w: w, rc: http.NewResponseController(w), limit: limit, done: s.done}
	if err := out.rc.SetReadDeadline(time.Time{}); err != nil {
		return nil, err
	}
	w.Header().Set(ofHeader, of)
	if format == FormatJSON {
		w.Header().Set("Content-Type", "application/x-ndjson")
	} else {
		v := s.svc.Version()
		w.Header().Set("Content-Type", "application/x-pcapng")
		out.file = capture.NewWriter(out, capture.Options{SnapLen: snap, OS: "Linux " + v.Kernel, Application: "vswitchd " + v.Version, Comment: of})
	}
	w.WriteHeader(http.StatusOK)
	if out.file != nil && r.Method != http.MethodHead {
		return out, out.flush()
	}
	_, err := out.Write(nil)
	return out, err
}

// endLimit is what a client has to take the end of a capture when the daemon ends.
const endLimit = time.Second

// Write writes at once.
func (o *framesWriter) Write(b []byte) (int, error) {
	var deadline time.Time
	if o.limit > 0 {
		deadline = time.Now().Add(o.limit)
	}
	if err := o.rc.SetWriteDeadline(deadline); err != nil {
		return 0, err
	}
	select {
	case <-o.done:
		o.rc.SetWriteDeadline(time.Now().Add(endLimit))
	default: // when it ends from here on, the deadline is set behind ours
	}
	n, err := o.w.Write(b)
	if err != nil {
		return n, err
	}
	return n, o.rc.Flush()
}

// frame adds a frame; what has been gathered is written when it is much.
func (o *framesWriter) frame(f *CapturedFrame) error {
	if o.file != nil {
		return o.file.Write(&f.Packet)
	}
	p := &f.Packet
	f.Time, f.Length, f.Kept, f.Missed, f.Comment = p.Time, p.OrigLen, len(p.Data), p.Dropped, p.Comment
	f.Summary = summary.Of(p.Data, p.OrigLen)
	b, err := encode(f)
	if err != nil {
		return err
	}
	o.lines = append(o.lines, b...)
	if len(o.lines) >= flushBytes {
		return o.flush()
	}
	return nil
}

func (o *framesWriter) flush() (err error) {
	if o.file != nil {
		return o.file.Flush()
	}
	if len(o.lines) > 0 {
		_, err = o.Write(o.lines)
		o.lines = o.lines[:0]
	}
	return err
}

// end ends a file with its statistics. A client that has left does not get them.
func (o *framesWriter) end() {
	o.flush()
	if o.file != nil {
		o.file.Close()
	}
}
