package api_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vswitch/ctl/api"
)

func dial(t testing.TB, socket string) net.Conn {
	t.Helper()
	c, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(20 * time.Second))
	return c
}

// works fails the test unless the server answers somebody else at once.
func works(t testing.TB, socket string) {
	t.Helper()
	if status, _, text := request(t, socket, "GET", "/v1/version", nil); status != 200 {
		t.Fatalf("the server answers %d %s", status, text)
	}
}

// untilCut trickles bytes until the server closes the connection.
func untilCut(t *testing.T, c net.Conn, bytes string) {
	t.Helper()
	for {
		if _, err := c.Write([]byte(bytes)); err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatal("still connected after 20 s")
			}
			return
		}
		time.Sleep(5 * time.Millisecond) // the trickle is the test
	}
}

func TestHeaderTrickleIsCut(t *testing.T) {
	socket, _ := start(t, sample(), api.Limits{HeaderTimeout: 100 * time.Millisecond})
	c := dial(t, socket)
	io.WriteString(c, "GET /v1/version HTTP/1.1\r\nX: ")
	begun := time.Now()
	untilCut(t, c, "x")
	if d := time.Since(begun); d > 5*time.Second {
		t.Errorf("cut after %s, want about 100 ms", d)
	}
	works(t, socket)
}

func TestSilentConnectionIsCut(t *testing.T) {
	socket, _ := start(t, sample(), api.Limits{HeaderTimeout: 50 * time.Millisecond})
	c := dial(t, socket)
	if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("read: %v, want the end of the connection", err)
	}
}

func TestBodyTrickleIsCut(t *testing.T) {
	svc := sample()
	socket, _ := start(t, svc, api.Limits{ReadTimeout: 150 * time.Millisecond})
	c := dial(t, socket)
	io.WriteString(c, "POST /v1/edit HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n")
	answer := make(chan string, 1)
	go func() { // ends with the connection
		b, _ := io.ReadAll(c)
		answer <- string(b)
	}()
	untilCut(t, c, " ")
	if a := <-answer; !strings.Contains(a, "408") {
		t.Errorf("answer %q, want 408", a)
	}
	if a := svc.Asked(); len(a) > 0 {
		t.Errorf("the service was asked %v", a)
	}
	works(t, socket)
}

// A reader who asks for more than the socket's buffer holds and does not read
// is cut off by the write timeout, and does not keep his place.
func TestAnswerNobodyReads(t *testing.T) {
	svc := sample()
	for i := range 50000 {
		svc.F = append(svc.F, api.FDBEntry{Bridge: "br0", MAC: fmt.Sprint(i), Port: "veth1"})
	}
	socket, _ := start(t, svc, api.Limits{WriteTimeout: time.Second, Dumps: 1})
	c := dial(t, socket)
	io.WriteString(c, "GET /v1/fdb HTTP/1.1\r\nHost: x\r\n\r\n")
	// One byte shows that he holds the only place.
	if _, err := c.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the place of the reader who does not read", func() bool {
		status, _, _ := request(t, socket, "GET", "/v1/fdb?vlan=10", nil)
		return status == 200
	})
	b, _ := io.ReadAll(c)
	if strings.HasSuffix(string(b), "]\n") || len(b) > 2<<20 {
		t.Errorf("he got a whole answer of %d bytes", len(b))
	}
}

func stream(t testing.TB, socket, target string) (*http.Response, func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	req, err := http.NewRequestWithContext(ctx, "GET", "http://vswitch"+target, nil)
	if err != nil {
		t.Fatal(err)
	}
	client := plain(socket)
	client.Timeout = 0
	resp, err := client.Do(req)
	if err != nil {
		cancel()
		t.Fatal(err)
	}
	stop := func() { cancel(); resp.Body.Close() }
	t.Cleanup(stop)
	return resp, stop
}

func TestStream(t *testing.T) {
	svc := sample()
	svc.Feed = 100
	socket, _ := start(t, svc, api.Limits{ReadTimeout: 50 * time.Millisecond, WriteTimeout: 50 * time.Millisecond,
		HeaderTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond})
	resp, stop := stream(t, socket, "/v1/events?kind=port-up,drops&bridge=br0")
	lines := bufio.NewScanner(resp.Body)
	for range 2 { // the second time long after every timeout for whole requests
		for _, e := range []api.Event{
			{Kind: "port-up", Bridge: "br0", Port: "a"},
			{Kind: "port-up", Bridge: "br1", Port: "b"},
			{Kind: "mac-moved", Bridge: "br0", Port: "c"},
			{Kind: "lost", Message: "d"},
			{Kind: "drops", Bridge: "br0", Port: "e", Detail: map[string]any{"bad": func() {}}},
			{Kind: "drops", Bridge: "br0", Port: "f"},
		} {
			svc.Publish(e)
		}
		var got []string
		for len(got) < 3 && lines.Scan() {
			var e api.Event
			if err := json.Unmarshal(lines.Bytes(), &e); err != nil {
				t.Fatalf("%q: %v", lines.Text(), err)
			}
			got = append(got, e.Kind+e.Port)
		}
		if s := strings.Join(got, " "); s != "port-upa lost dropsf" {
			t.Errorf("got %s", s)
		}
		time.Sleep(150 * time.Millisecond) // past the timeouts: the test's subject
	}
	stop()
	eventually(t, "the subscription to end with the client", func() bool { return svc.Subscribers() == 0 })
}

func TestStreamReaderThatStallsIsCut(t *testing.T) {
	svc := sample()
	svc.Feed = 1000
	socket, _ := start(t, svc, api.Limits{WriteTimeout: 100 * time.Millisecond})
	stream(t, socket, "/v1/events") // and never reads
	if svc.Subscribers() != 1 {
		t.Fatal("no subscription")
	}
	big := api.Event{Kind: "config", Message: strings.Repeat("x", 10000)}
	eventually(t, "the stalled reader to be cut off", func() bool { return svc.Publish(big) == 0 })
	works(t, socket)
}

func TestStreamsAreBounded(t *testing.T) {
	svc := sample()
	socket, _ := start(t, svc, api.Limits{Streams: 3})
	var stops []func()
	for range 3 {
		_, stop := stream(t, socket, "/v1/events")
		stops = append(stops, stop)
	}
	if status, _, text := request(t, socket, "GET", "/v1/events", nil); status != 503 || !strings.Contains(text, "3 event streams") {
		t.Errorf("one too many: got %d %s", status, text)
	}
	works(t, socket)
	stops[0]()
	eventually(t, "a place to become free", func() bool { return svc.Subscribers() == 2 })
	eventually(t, "the fourth stream", func() bool {
		resp, stop := stream(t, socket, "/v1/events")
		defer stop()
		return resp.StatusCode == 200
	})
}

func TestLargeBodiesAreBounded(t *testing.T) {
	socket, _ := start(t, sample(), api.Limits{Large: 1})
	var holders []net.Conn
	eventually(t, "the second large document to be refused", func() bool {
		status, _, text := request(t, socket, "PUT", "/v1/config", strings.NewReader(`{"bridges":[]}`+strings.Repeat(" ", 300<<10)))
		if status == 200 { // nobody holds the place: the holder is not there yet, or met this one
			c := dial(t, socket)
			io.WriteString(c, "PUT /v1/config HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"+strings.Repeat(" ", 300<<10))
			holders = append(holders, c)
		}
		return status == 503 && strings.Contains(text, "1 large documents")
	})
	if status, _, text := request(t, socket, "PUT", "/v1/config", strings.NewReader(`{"bridges":[]}`)); status != 200 {
		t.Errorf("a small one beside it: got %d %s", status, text)
	}
	for _, c := range holders {
		c.Close()
	}
	eventually(t, "a large document after the first left", func() bool {
		status, _, _ := request(t, socket, "PUT", "/v1/config", strings.NewReader(`{"bridges":[]}`+strings.Repeat(" ", 300<<10)))
		return status == 200
	})
}

func Test200Connections(t *testing.T) {
	socket, _ := start(t, sample(), api.Limits{HeaderTimeout: 20 * time.Second, IdleTimeout: 20 * time.Second})
	var conns []net.Conn
	var readers []*bufio.Reader
	for range 200 {
		c := dial(t, socket)
		conns, readers = append(conns, c), append(readers, bufio.NewReader(c))
	}
	var served, refused int
	for i, c := range conns {
		begun := time.Now()
		if _, err := io.WriteString(c, "GET /v1/version HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		resp, err := http.ReadResponse(readers[i], nil)
		if err != nil {
			t.Fatalf("connection %d: %v", i, err)
		}
		body, _ := io.ReadAll(resp.Body)
		switch resp.StatusCode {
		case 200:
			served++
		case 503:
			refused++
			if !strings.Contains(string(body), "128 connections") || !resp.Close {
				t.Errorf("refused by %s, close=%v", body, resp.Close)
			}
		}
		if d := time.Since(begun); d > 5*time.Second {
			t.Errorf("connection %d waited %s", i, d)
		}
	}
	if served != 128 || refused != 72 {
		t.Errorf("served %d, refused %d; want 128 and 72", served, refused)
	}
	conns[0].Close()
	eventually(t, "a place to become free", func() bool {
		resp, err := plain(socket).Get("http://vswitch/v1/version")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
}

// Beyond twice the bound a connection is closed without a word, and the server
// lives on.
func TestFarTooManyConnections(t *testing.T) {
	socket, _ := start(t, sample(), api.Limits{Conns: 2})
	var conns []net.Conn
	for range 10 {
		conns = append(conns, dial(t, socket))
	}
	for _, c := range conns[4:] {
		if _, err := c.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read: %v, want the end", err)
		}
	}
	for _, c := range conns {
		c.Close()
	}
	eventually(t, "the server to serve again", func() bool {
		resp, err := plain(socket).Get("http://vswitch/v1/version")
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == 200
	})
}

func TestShutdownEndsStreams(t *testing.T) {
	svc := sample()
	socket := filepath.Join(t.TempDir(), "ctl.sock")
	ln, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	srv := api.NewServer(svc, logger(), api.Limits{})
	ended := make(chan error, 1)
	go func() { ended <- srv.Serve(ln) }() // ends with Shutdown
	resp, _ := stream(t, socket, "/v1/events")
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	if err := srv.Shutdown(ctx); err != nil {
		t.Error(err)
	}
	if b, err := io.ReadAll(resp.Body); err != nil || len(b) > 0 {
		t.Errorf("the stream ended with %q, %v", b, err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if _, err := os.Lstat(socket); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("socket after shutdown: %v", err)
	}
}

// The request's context ends with the client, so that a Service need not work
// for nobody.
func TestContextEndsWithClient(t *testing.T) {
	svc := &waiter{Service: sample()}
	socket, log := start(t, svc, api.Limits{})
	c := dial(t, socket)
	io.WriteString(c, "GET /v1/history HTTP/1.1\r\nHost: x\r\n\r\n")
	eventually(t, "the request", func() bool { return svc.entered.Load() })
	c.Close()
	eventually(t, "the context to end", func() bool { return svc.left.Load() })
	if s := log.String(); s != "" {
		t.Errorf("logged: %s", s)
	}
}

type waiter struct {
	api.Service
	entered, left atomic.Bool
}

func (w *waiter) History(ctx context.Context) ([]api.HistoryEntry, error) {
	w.entered.Store(true)
	<-ctx.Done()
	w.left.Store(true)
	return nil, ctx.Err()
}
