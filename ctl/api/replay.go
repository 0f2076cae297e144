package api

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"
)

// ReplayQuery says how a capture file is replayed.
type ReplayQuery struct {
	Bridge string // that the port belongs to; "": whichever it is
	Port   string // that the frames come in by
	Speed  float64
}

// Speeds of a replay: times the speed of the capture, or as fast as it goes.
const (
	MinSpeed = 0.001
	MaxSpeed = 1e6
	SpeedMax = 0 // as fast as it goes
)

// ReplayResult is what a replay did.
type ReplayResult struct {
	Frames  uint64          `json:"frames"` // put into the switch
	Bytes   uint64          `json:"bytes"`
	Seconds float64         `json:"seconds"`
	Cut     uint64          `json:"cut,omitempty"`     // of Frames: cut in the capture, with zeros in place of what is missing
	Skipped uint64          `json:"skipped,omitempty"` // that the capture says went out by their port
	Refused []ReplayRefusal `json:"refused,omitempty"`
}

// ReplayRefusal is why packets of a capture are no frames.
type ReplayRefusal struct {
	Reason  string `json:"reason"`
	Packets uint64 `json:"packets"`
	First   int    `json:"first"` // number of the first of them in the file
}

// replayLine is one line of the answer to a replay.
type replayLine struct {
	Progress *ReplayResult `json:"progress,omitempty"`
	Result   *ReplayResult `json:"result,omitempty"`
	Error    *Error        `json:"error,omitempty"`
}

// ParseSpeed reads a speed: max, or times the speed of the capture.
func ParseSpeed(s string) (float64, error) {
	if s == "" {
		return 1, nil
	}
	if s == "max" {
		return SpeedMax, nil
	}
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || !(v >= MinSpeed && v <= MaxSpeed) { // not a NaN
		return 0, badParam("speed", s, fmt.Sprintf("max, or a number from %g to %g: times the speed of the capture", MinSpeed, MaxSpeed))
	}
	return v, nil
}

// FormatSpeed writes a speed as ParseSpeed reads it.
func FormatSpeed(v float64) string {
	if v == SpeedMax {
		return "max"
	}
	return strconv.FormatFloat(v, 'g', -1, 64)
}

// lingerLimit is what a client has to read the result before it is cut off.
const lingerLimit = 2 * time.Second

// replay reads the capture as it comes and answers while it does, in JSON lines.
func (s *Server) replay(w http.ResponseWriter, r *http.Request, q query) (any, error) {
	rq := ReplayQuery{Bridge: q.str("bridge"), Port: q.str("port")}
	var err error
	if rq.Speed, err = ParseSpeed(q.str("speed")); err != nil {
		return nil, err
	}
	if rq.Port == "" {
		return nil, &Error{Status: http.StatusBadRequest, Field: "port", Message: "parameter port: missing; it is the port that the frames come in by"}
	}
	if !s.streams.enter() {
		return nil, busy("streams", s.limits.Streams)
	}
	defer s.streams.leave()
	out := &lineWriter{s: s, w: w, rc: http.NewResponseController(w)}
	if err := out.rc.EnableFullDuplex(); err != nil {
		return nil, err
	}
	body := bufio.NewReader(r.Body)
	if r.Header.Get("Expect") != "" {
		// curl waits for leave to send (RFC 9110, section 10.1.1), which the first read
		// gives, unless the answer has begun.
		body.Peek(1)
	}
	if err := out.begin(); err != nil {
		return nil, nil
	}
	ctx, cancel := s.untilDone(r.Context())
	defer cancel()
	// With the context ends a read from a client that rests.
	defer context.AfterFunc(ctx, func() { out.rc.SetReadDeadline(time.Now()) })()

	var mu sync.Mutex // guards out
	tell := func(p ReplayResult) {
		mu.Lock()
		defer mu.Unlock()
		// A client that has left does not take it: that ends the replay, however long
		// the pauses in it are.
		if out.line(replayLine{Progress: &p}) != nil {
			cancel()
		}
	}
	result, err := s.svc.Replay(ctx, rq, body, tell)
	mu.Lock()
	defer mu.Unlock()
	line := replayLine{Result: &result}
	if err != nil {
		e, _ := asError(err)
		line.Error = e
	}
	if out.line(line) != nil {
		return nil, nil
	}
	// A connection that is closed with something unread may take the result with it.
	out.rc.SetReadDeadline(time.Now().Add(lingerLimit))
	io.Copy(io.Discard, r.Body)
	return nil, nil
}

// Replay puts the frames of a capture file into the switch; tell, which may be nil,
// hears now and then how far it is. What was done comes with an error, too.
func (c *Client) Replay(ctx context.Context, q ReplayQuery, file io.Reader, tell func(ReplayResult)) (result ReplayResult, err error) {
	p := params("bridge", q.Bridge, "port", q.Port, "speed", FormatSpeed(q.Speed))
	ended := false
	// The file is the caller's to close.
	err = c.lines(ctx, http.MethodPost, "replay", p, io.NopCloser(file), nil, func(line []byte) error {
		var l replayLine
		if err := json.Unmarshal(line, &l); err != nil {
			return fmt.Errorf("decode the result of a replay: %w", err)
		}
		if l.Progress != nil && tell != nil {
			tell(*l.Progress)
		}
		if l.Result != nil {
			result, ended = *l.Result, true
		}
		if l.Error != nil {
			return l.Error
		}
		return nil
	})
	if err == nil && !ended {
		err = c.explain(io.ErrUnexpectedEOF)
	}
	return result, err
}
