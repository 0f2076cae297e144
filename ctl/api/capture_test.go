package api_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"vswitch/capture"
	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

// capturedFrames are n frames of two ports.
func capturedFrames(n int) (all []api.CapturedFrame) {
	for i := range n {
		data := append([]byte("\x02\x00\x00\x00\x00\x02\x02\x00\x00\x00\x00\x01\x12\x34"), fmt.Sprint(i)...)
		all = append(all, api.CapturedFrame{Bridge: "br0", Port: fmt.Sprint("veth", i%2), Direction: "in", Packet: capture.Packet{
			Time: time.Unix(1000+int64(i), 0).UTC(), Interface: capture.Interface{Name: fmt.Sprint("veth", i%2), Description: "port of bridge br0"},
			Direction: capture.Inbound, Data: data, OrigLen: 64, Comment: fmt.Sprint("frame ", i), Dropped: uint64(i),
		}})
	}
	return all
}

func TestCaptureFormats(t *testing.T) {
	svc := sample()
	svc.Seen = capturedFrames(5)
	socket, _ := start(t, svc, api.Limits{})
	for _, path := range []string{"/v1/capture?name=br0&count=5", "/v1/recorder/dump?name=br0"} {
		status, header, text := request(t, socket, "GET", path, nil)
		if status != 200 || header.Get("Content-Type") != "application/x-pcapng" || header.Get("Vswitch-Capture") != "bridge br0" {
			t.Errorf("%s: %d, %v", path, status, header)
		}
		r, err := pcapgo.NewNgReader(strings.NewReader(text), pcapgo.DefaultNgReaderOptions)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 5 {
			data, ci, err := r.ReadPacketData()
			if err != nil || !bytes.Equal(data, svc.Seen[i].Packet.Data) || ci.Length != 64 || ci.InterfaceIndex != i%2 {
				t.Errorf("%s: %d: %v, %+v", path, i, err, ci)
			}
		}
		if r.SectionInfo().Application != "vswitchd 1.0" || r.SectionInfo().Comment != "bridge br0" {
			t.Errorf("%s: %+v", path, r.SectionInfo())
		}

		status, header, text = request(t, socket, "GET", path+"&format=json", nil)
		if status != 200 || header.Get("Content-Type") != "application/x-ndjson" {
			t.Errorf("%s: %d, %v", path, status, header)
		}
		lines := bufio.NewScanner(strings.NewReader(text))
		for i := 0; lines.Scan(); i++ {
			var f api.CapturedFrame
			if err := json.Unmarshal(lines.Bytes(), &f); err != nil {
				t.Fatal(err)
			}
			want := svc.Seen[i]
			p := want.Packet
			want.Time, want.Length, want.Kept, want.Missed, want.Comment, want.Packet = p.Time, 64, len(p.Data), p.Dropped, p.Comment, capture.Packet{}
			want.Summary = "02:00:00:00:00:01 > 02:00:00:00:00:02, ethertype 0x1234, length 50"
			if !reflect.DeepEqual(f, want) {
				t.Errorf("%s: got %+v, want %+v", path, f, want)
			}
		}
		if n := strings.Count(text, "\n"); n != 5 {
			t.Errorf("%s: %d lines", path, n)
		}
	}
	if _, _, text := request(t, socket, "GET", "/v1/capture?count=3&format=json", nil); strings.Count(text, "\n") != 3 {
		t.Errorf("count=3: %s", text)
	}
	svc.WaitCaptures()
}

func TestCaptureAsks(t *testing.T) {
	svc := sample()
	svc.Seen = capturedFrames(1)
	socket, _ := start(t, svc, api.Limits{})
	request(t, socket, "GET", "/v1/capture?bridge=br0&port=veth1&direction=in&drops=1&tunnel=outer&count=1&snaplen=96&filter=tcp+port+80&split=1", nil)
	request(t, socket, "GET", "/v1/capture?count=1", nil)
	request(t, socket, "GET", "/v1/recorder/dump?last=10s&filter=arp&bridge=br0&port=veth1&drops=1&split=1", nil)
	request(t, socket, "GET", "/v1/recorder", nil)
	want := []any{
		api.CaptureQuery{Bridge: "br0", Port: "veth1", Direction: "in", Drops: true, Tunnel: "outer", Count: 1, Snap: 96, Filter: "tcp port 80", Split: true},
		api.CaptureQuery{Direction: "both", Tunnel: "inner", Count: 1},
		api.DumpQuery{Bridge: "br0", Port: "veth1", Last: 10 * time.Second, Drops: true, Filter: "arp", Split: true},
		apitest.Call{Method: "Recorder"},
	}
	if asked := svc.Asked(); !reflect.DeepEqual(asked, want) {
		t.Errorf("asked %+v, want %+v", asked, want)
	}
	for path, field := range map[string]string{
		"capture?direction=up": "direction", "capture?drops=2": "drops", "capture?tunnel=x": "tunnel", "capture?count=-1": "count",
		"capture?count=x": "count", "capture?snaplen=262145": "snaplen", "capture?split=maybe": "split", "capture?format=xml": "format",
		"capture?colour=red": "colour", "recorder/dump?last=0s": "last", "recorder/dump?last=25h": "last", "recorder/dump?last=soon": "last",
		"recorder/dump?format=pcap": "format", "recorder?x=1": "x",
	} {
		status, _, text := request(t, socket, "GET", "/v1/"+path, nil)
		var e api.Error
		if err := json.Unmarshal([]byte(text), &e); err != nil || status != 400 || e.Field != field {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
	if asked := svc.Asked(); len(asked) > 0 {
		t.Errorf("asked %+v", asked)
	}
	// A refusal is one, whatever the format.
	svc.Fail(&api.Error{Status: 400, Field: "filter", Message: "filter: no"})
	for _, path := range []string{"capture?filter=x", "recorder/dump?filter=x", "capture?format=json"} {
		if status, header, text := request(t, socket, "GET", "/v1/"+path, nil); status != 400 || header.Get("Content-Type") != "application/json" || !strings.Contains(text, "filter: no") {
			t.Errorf("%s: %d %s", path, status, text)
		}
	}
}

// Wireshark opens at once: the file's header comes before the first frame.
func TestCaptureHeaderAtOnce(t *testing.T) {
	svc := sample()
	socket, _ := start(t, svc, api.Limits{ReadTimeout: 50 * time.Millisecond, WriteTimeout: 50 * time.Millisecond, IdleTimeout: 50 * time.Millisecond})
	resp, stop := stream(t, socket, "/v1/capture")
	head := make([]byte, 12)
	if _, err := io.ReadFull(resp.Body, head); err != nil || !bytes.HasPrefix(head, []byte("\x0a\x0d\x0d\x0a")) {
		t.Errorf("%v, %x", err, head)
	}
	stop()
	svc.WaitCaptures()
	req, err := http.NewRequest("HEAD", "http://vswitch/v1/capture", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err = plain(socket).Do(req)
	if err != nil || resp.StatusCode != 200 || resp.Header.Get("Vswitch-Capture") != "all bridges" {
		t.Errorf("%v, %+v", err, resp)
	}
	svc.WaitCaptures()
}

// torrent is a Service whose captures never lack frames.
type torrent struct {
	*apitest.Service
	reads, closed atomic.Int64
}

func (s *torrent) Capture(context.Context, api.CaptureQuery) (api.Capture, error) {
	return &flow{s: s, frame: capturedFrames(1)[0]}, nil
}

type flow struct {
	s     *torrent
	frame api.CapturedFrame
}

func (f *flow) Of() string { return "all bridges" }
func (f *flow) End()       {}
func (f *flow) Close()     { f.s.closed.Add(1) }
func (f *flow) Read(each func(*api.CapturedFrame)) error {
	f.s.reads.Add(1)
	for range 1000 {
		each(&f.frame)
	}
	return nil
}

// A reader who rests is not cut off, also not after every timeout; and he does not hold
// up the daemon's end.
func TestCaptureReaderRests(t *testing.T) {
	for _, format := range []string{"pcapng", "json"} {
		svc := &torrent{Service: sample()}
		socket := filepath.Join(t.TempDir(), "ctl.sock")
		ln, err := api.Listen(socket)
		if err != nil {
			t.Fatal(err)
		}
		srv := api.NewServer(svc, logger(), api.Limits{WriteTimeout: 50 * time.Millisecond})
		ended := make(chan error, 1)
		go func() { ended <- srv.Serve(ln) }() // ends with Shutdown
		resp, _ := stream(t, socket, "/v1/capture?format="+format)
		stuck := func() {
			last := int64(-1)
			eventually(t, "the server to wait for its reader", func() bool {
				now := svc.reads.Load()
				same := now == last && now > 0
				last = now
				time.Sleep(20 * time.Millisecond) // past several reads: the test's subject
				return same
			})
		}
		stuck()
		time.Sleep(100 * time.Millisecond) // past the timeout: the test's subject
		before := svc.reads.Load()
		if _, err := io.CopyN(io.Discard, resp.Body, 4<<20); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		eventually(t, "the capture to go on", func() bool { return svc.reads.Load() > before })
		stuck()
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		begin := time.Now()
		if err := srv.Shutdown(ctx); err != nil {
			t.Errorf("%s: %v", format, err)
		}
		if took := time.Since(begin); took > 5*time.Second {
			t.Errorf("%s: the end took %v", format, took)
		}
		cancel()
		if svc.closed.Load() != 1 {
			t.Errorf("%s: the capture is not closed", format)
		}
		<-ended
	}
}

// The client's methods say what the service was asked and answered.
func TestClientCaptures(t *testing.T) {
	svc := sample()
	svc.Seen = capturedFrames(3)
	svc.Rec = api.RecorderStatus{On: true, Bytes: 1, Snap: 2, Rate: 3, Frames: 4}
	socket, _ := start(t, svc, api.Limits{})
	c := api.NewClient(socket, 5*time.Second)
	defer c.Close()
	ctx := context.Background()
	q := api.CaptureQuery{Bridge: "br0", Port: "veth1", Direction: "out", Drops: true, Tunnel: "outer", Count: 3, Snap: 96, Filter: "tcp & 'x'", Split: true}
	var of string
	n := 0
	if err := c.CaptureLines(ctx, q, func(s string) { of = s }, func(*api.CapturedFrame) error { n++; return nil }); err != nil || n != 3 || of != "port veth1" {
		t.Errorf("%v, %d frames of %s", err, n, of)
	}
	d := api.DumpQuery{Name: "br0", Last: 1500 * time.Millisecond, Filter: "arp", Drops: true, Split: true}
	f, err := c.DumpFile(ctx, d)
	if err != nil || f.Of != "bridge br0" {
		t.Fatalf("%v, %+v", err, f)
	}
	if b, err := io.ReadAll(f.Body); err != nil || len(b) < 100 {
		t.Errorf("%v, %d bytes", err, len(b))
	}
	f.Body.Close()
	st, err := c.Recorder(ctx)
	if err != nil || st != svc.Rec {
		t.Errorf("%v, %+v", err, st)
	}
	if asked := svc.Asked(); !reflect.DeepEqual(asked, []any{q, d, apitest.Call{Method: "Recorder"}}) {
		t.Errorf("asked %+v", asked)
	}
	// An end that was asked for is told apart from one that was not.
	enough := fmt.Errorf("enough")
	if err := c.CaptureLines(ctx, api.CaptureQuery{}, nil, func(*api.CapturedFrame) error { return enough }); err != enough {
		t.Error(err)
	}
	svc.Seen = nil
	ctx, cancel := context.WithCancel(ctx)
	if f, err = c.CaptureFile(ctx, api.CaptureQuery{}); err != nil {
		t.Fatal(err)
	}
	cancel()
	if _, err := io.ReadAll(f.Body); err != context.Canceled {
		t.Error(err)
	}
	f.Body.Close()
	svc.WaitCaptures()
}

// A line that was cut in half by the end is no frame, and no error of its own.
func TestCaptureCutInALine(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "ctl.sock")
	ln, err := api.Listen(socket)
	if err != nil {
		t.Fatal(err)
	}
	half := make(chan struct{})
	srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, "{\"port\":\"veth1\"}\n{\"port\":\"ve")
		w.(http.Flusher).Flush()
		close(half)
		<-r.Context().Done()
	})}
	go srv.Serve(ln) // ends with Close
	defer srv.Close()
	c := api.NewClient(socket, 5*time.Second)
	defer c.Close()
	ctx, cancel := context.WithCancel(context.Background())
	go func() { <-half; cancel() }() // ends with the first line
	n := 0
	if err := c.CaptureLines(ctx, api.CaptureQuery{}, nil, func(f *api.CapturedFrame) error { n++; return nil }); err != context.Canceled || n > 1 {
		t.Errorf("%v, %d frames", err, n)
	}
}
