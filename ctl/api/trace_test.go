package api_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

func traceSample() *apitest.Service {
	svc := sample()
	svc.Tr = apitest.Traces{
		Trace:    api.Trace{Bridge: "br0", InPort: "veth1", Steps: []api.TraceStep{}, Out: []api.TraceFrame{}, Drops: []api.TraceFrame{}, Verdict: "goes nowhere"},
		Live:     []api.Trace{{InPort: "veth1", Verdict: "one"}, {InPort: "veth2", Verdict: "two"}},
		LiveEnd:  api.TraceEnd{Traced: 2, Missed: 7},
		Replayed: api.ReplayResult{Frames: 3, Bytes: 180, Refused: []api.ReplayRefusal{{Reason: "shorter", Packets: 1, First: 2}}},
		Progress: []api.ReplayResult{{Frames: 1}, {Frames: 2}},
	}
	return svc
}

func TestTraceClient(t *testing.T) {
	svc := traceSample()
	socket, _ := start(t, svc, api.Limits{})
	c := api.NewClient(socket, 10*time.Second)
	defer c.Close()
	ctx := context.Background()

	r := api.TraceRequest{Bridge: "br0", InPort: "veth1", Frame: "0200", Offload: &api.TraceOffload{GSOType: 1}}
	got, err := c.Trace(ctx, r)
	same(t, "trace", got, err, svc.Tr.Trace)
	same(t, "asked", svc.Asked(), nil, []any{r})

	var lines []string
	begun := 0
	q := api.TraceQuery{Bridge: "br0", Filter: "icmp", Count: 2}
	end, err := c.TraceLive(ctx, q, func() error { begun++; return nil }, func(x *api.Trace) error { lines = append(lines, x.Verdict); return nil })
	same(t, "live", end, err, svc.Tr.LiveEnd)
	same(t, "lines", fmt.Sprint(begun, lines), nil, "1 [one two]")
	same(t, "asked", svc.Asked(), nil, []any{q})
	enough := errors.New("enough")
	if _, err := c.TraceLive(ctx, q, nil, func(*api.Trace) error { return enough }); err != enough {
		t.Errorf("enough: %v", err)
	}
	svc.Asked()

	file := strings.Repeat("a capture file, longer than the buffers between. ", 100000)
	told := 0
	rq := api.ReplayQuery{Bridge: "br0", Port: "veth1", Speed: 2.5}
	res, err := c.Replay(ctx, rq, strings.NewReader(file), func(p api.ReplayResult) {
		if told++; p.Frames != uint64(told) {
			t.Errorf("progress %d is %+v", told, p)
		}
	})
	same(t, "replay", res, err, svc.Tr.Replayed)
	same(t, "told", told, nil, 2)
	same(t, "asked", svc.Asked(), nil, []any{apitest.Replay{ReplayQuery: rq, File: file}})
}

// What ends badly says so, with what was done before.
func TestTraceErrors(t *testing.T) {
	svc := traceSample()
	socket, _ := start(t, svc, api.Limits{})
	c := api.NewClient(socket, 10*time.Second)
	defer c.Close()
	refusal := &api.Error{Status: 404, Field: "port", Value: "veth9", Message: `port "veth9" does not exist`}
	svc.Fail(refusal)
	ctx := context.Background()
	if _, err := c.Trace(ctx, api.TraceRequest{InPort: "veth9", Frame: "00"}); err == nil || err.Error() != refusal.Message {
		t.Errorf("trace: %v", err)
	}
	if _, err := c.TraceLive(ctx, api.TraceQuery{Count: 1}, nil, nil); err == nil || err.Error() != refusal.Message {
		t.Errorf("live: %v", err)
	}
	res, err := c.Replay(ctx, api.ReplayQuery{Port: "veth9"}, strings.NewReader("x"), nil)
	if err == nil || err.Error() != refusal.Message || res.Frames != 3 {
		t.Errorf("replay: %+v, %v", res, err)
	}
}

func TestTraceRequestsThatAreNone(t *testing.T) {
	socket, _ := start(t, traceSample(), api.Limits{})
	for _, tc := range []struct{ method, path, body, want string }{
		{"POST", "/v1/trace", `{}`, "in_port: missing"},
		{"POST", "/v1/trace", `{"in_port":"veth1"}`, "frame: missing"},
		{"POST", "/v1/trace", `{"in_port":"veth1","frame":"00","port":80}`, `unknown field \"port\"`},
		{"POST", "/v1/trace", `{"in_port":"veth1","frame":"00","offload":{"gso_type":999}}`, "gso_type"},
		{"GET", "/v1/trace/live?count=0", "", "count"},
		{"GET", "/v1/trace/live?count=100001", "", "a number from 1 to 100000"},
		{"GET", "/v1/trace/live?counts=1", "", "unknown parameter"},
		{"POST", "/v1/replay", "", "parameter port: missing"},
		{"POST", "/v1/replay?port=veth1&speed=NaN", "", "max, or a number from 0.001"},
		{"POST", "/v1/replay?port=veth1&speed=0", "", "max, or a number"},
		{"POST", "/v1/replay?port=veth1&speed=-1", "", "max, or a number"},
		{"GET", "/v1/replay?port=veth1", "", "not allowed"},
	} {
		conn, err := net.Dial("unix", socket)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(10 * time.Second))
		fmt.Fprintf(conn, "%s %s HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", tc.method, tc.path, len(tc.body), tc.body)
		answer, err := io.ReadAll(conn)
		conn.Close()
		if err != nil || !bytes.Contains(answer, []byte(tc.want)) || !bytes.HasPrefix(answer, []byte("HTTP/1.1 40")) {
			t.Errorf("%s %s %s: %s, %v", tc.method, tc.path, tc.body, answer, err)
		}
	}
}

// curl asks for leave before it sends a large body, and is given it at once.
func TestReplayGivesLeaveToSend(t *testing.T) {
	socket, _ := start(t, traceSample(), api.Limits{})
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprint(conn, "POST /v1/replay?port=veth1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n")
	const leave = "HTTP/1.1 100 Continue\r\n\r\n"
	got := make([]byte, len(leave))
	if _, err := io.ReadFull(conn, got); err != nil || string(got) != leave {
		t.Fatalf("%q, %v", got, err)
	}
	fmt.Fprint(conn, "hello")
	answer, err := io.ReadAll(conn)
	if err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200")) || !bytes.Contains(answer, []byte(`{"result":{"frames":3`)) {
		t.Errorf("%s, %v", answer, err)
	}
}

// waiting is a Service whose replay reads nothing, and ends with its context.
type waiting struct {
	*apitest.Service
	begun, ended chan struct{}
}

func (w *waiting) Replay(ctx context.Context, _ api.ReplayQuery, file io.Reader, tell func(api.ReplayResult)) (api.ReplayResult, error) {
	close(w.begun)
	defer close(w.ended)
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return api.ReplayResult{}, ctx.Err()
		case <-tick.C:
			tell(api.ReplayResult{})
		}
	}
}

// A client that left is noticed although nothing is read of what it sends.
func TestReplayNoticesThatItsClientLeft(t *testing.T) {
	svc := &waiting{traceSample(), make(chan struct{}), make(chan struct{})}
	socket, _ := start(t, svc, api.Limits{})
	c := api.NewClient(socket, 10*time.Second)
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { // ends with the replay
		<-svc.begun
		cancel()
	}()
	if _, err := c.Replay(ctx, api.ReplayQuery{Port: "veth1"}, strings.NewReader(strings.Repeat("x", 10<<20)), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	select {
	case <-svc.ended:
	case <-time.After(10 * time.Second):
		t.Error("the replay goes on")
	}
}

// One that reads is ended by the daemon's end, too, and told so.
type reading struct {
	*apitest.Service
	begun chan struct{}
}

func (r *reading) Replay(ctx context.Context, _ api.ReplayQuery, file io.Reader, _ func(api.ReplayResult)) (api.ReplayResult, error) {
	close(r.begun)
	_, err := io.Copy(io.Discard, file)
	return api.ReplayResult{Frames: 9}, &api.Error{Status: 503, Message: fmt.Sprint("interrupted: ", ctx.Err() != nil, err != nil)}
}

func TestReplayEndsWithTheDaemon(t *testing.T) {
	svc := &reading{traceSample(), make(chan struct{})}
	socket := t.TempDir() + "/s"
	stop, err := apitest.Serve(svc, socket, api.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	c := api.NewClient(socket, 10*time.Second)
	defer c.Close()
	rests, in := io.Pipe()
	defer in.Close()
	go func() { // ends with the replay
		<-svc.begun
		stop()
	}()
	if _, err := c.Replay(context.Background(), api.ReplayQuery{Port: "veth1"}, rests, nil); err == nil {
		t.Error("it goes on")
	}
}
