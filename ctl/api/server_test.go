package api_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
	"vswitch/ctl/config"
)

// start serves svc on a new socket for the length of the test.
func start(t testing.TB, svc api.Service, limits api.Limits) (socket string, log *apitest.LogRecorder) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "ctl.sock")
	log = &apitest.LogRecorder{}
	stop, err := apitest.Serve(svc, socket, limits, log)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return socket, log
}

// plain is an HTTP client of the socket that knows nothing of package api.
func plain(socket string) *http.Client {
	return &http.Client{Timeout: 20 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", socket)
		},
	}}
}

func request(t testing.TB, socket, method, target string, body io.Reader) (status int, header http.Header, text string) {
	t.Helper()
	req, err := http.NewRequest(method, "http://vswitch"+target, body)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := plain(socket).Do(req)
	if err != nil {
		t.Fatalf("%s %s: %v", method, target, err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: read: %v", method, target, err)
	}
	return resp.StatusCode, resp.Header, string(b)
}

// eventually waits for a condition with a deadline.
func eventually(t testing.TB, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("waited 10 s for: %s", what)
		}
		time.Sleep(2 * time.Millisecond) // between looks, not instead of them
	}
}

func sample() *apitest.Service {
	return &apitest.Service{
		V: api.Version{Version: "1.0", API: 1, PID: 42},
		S: api.Status{ConfigVersion: 3, Bridges: []api.BridgeStatus{{Name: "br0"}}},
		C: api.ConfigVersion{Version: 3, Document: config.Document{Bridges: []config.Bridge{{Name: "br0"}}}},
		R: api.EditResult{Version: 4, Changed: true},
		H: []api.HistoryEntry{{Version: 3, Current: true}},
		F: []api.FDBEntry{
			{Bridge: "br0", VLAN: 10, MAC: "02:00:00:00:00:01", Port: "veth1", Age: 3},
			{Bridge: "br0", VLAN: 20, MAC: "02:00:00:00:00:02", Port: "veth2", Static: true},
		},
		FS:      []api.FDBStats{{Bridge: "br0", Entries: 2}},
		Flushed: 2,
		T: []api.TunnelStatus{{Bridge: "br0", Port: "t0", Type: "vxlan", Remote: "host2", State: api.PortUp, InKey: new(uint32),
			BFD: &api.BFDStatus{State: "up"}, Counters: api.PortCounters{RxFrames: 1}}},
		M: []api.MeshStatus{{Name: "m1", Bridge: "br0", Peers: []api.MeshPeer{{Peer: "host1", State: api.PortSelf}}}},
		D: []api.Drop{{Bridge: "br0", Port: "veth1", Reason: "vlan", Count: 9}, {Port: "vxlan 0.0.0.0:4789", Source: "10.0.0.9 key 42"}},
		B: []api.BridgeStats{{Bridge: "br0"}},
		W: []api.WorkerStats{{Worker: 0, Busy: 0.5}},
	}
}

func TestEndpoints(t *testing.T) {
	svc := sample()
	socket, _ := start(t, svc, api.Limits{})
	edit := `{"ops":[{"op":"add-port","bridge":"br0","port":"veth1","options":{"tag":"10"}}],"comment":"why"}`
	doc := `{"bridges":[]}`
	for _, tc := range []struct {
		method, target, body string
		want                 string // in the answer
		asked                any    // nil: nothing
	}{
		{"GET", "/v1/version", "", `"version":"1.0"`, nil},
		{"GET", "/v1/status", "", `"config_version":3`, apitest.Call{Method: "Status"}},
		{"GET", "/v1/status?bridge=br0", "", `"name":"br0"`, apitest.Call{Method: "Status", Bridge: "br0"}},
		{"GET", "/v1/config", "", `"version":3`, apitest.Call{Method: "Config"}},
		{"GET", "/v1/config?version=2", "", `"document":{`, apitest.Call{Method: "Config", Version: 2}},
		{"PUT", "/v1/config", doc, `"changed":true`, apitest.Applied{}},
		{"PUT", "/v1/config?confirm=60s&comment=a+b", doc, `"version":4`,
			apitest.Applied{O: api.ApplyOptions{Confirm: time.Minute, Comment: "a b"}}},
		{"PUT", "/v1/config?confirm=90", doc, `"version":4`, apitest.Applied{O: api.ApplyOptions{Confirm: 90 * time.Second}}},
		{"PUT", "/v1/config?dry_run=1", doc, `"version":4`, apitest.Applied{O: api.ApplyOptions{DryRun: true}}},
		{"POST", "/v1/edit", edit, `"version":4`, api.Edit{Comment: "why", Ops: []config.Op{
			{Op: "add-port", Bridge: "br0", Port: "veth1", Options: config.Options{"tag": "10"}}}}},
		{"POST", "/v1/confirm", "", `"version":4`, apitest.Call{Method: "Confirm"}},
		{"POST", "/v1/rollback?version=2", "", `"version":4`, apitest.Call{Method: "Rollback", Version: 2}},
		{"GET", "/v1/history", "", `[{"version":3,`, apitest.Call{Method: "History"}},
		{"GET", "/v1/fdb", "", `"mac":"02:00:00:00:00:02"`, api.FDBQuery{VLAN: -1}},
		{"GET", "/v1/fdb?bridge=br0&port=veth1&mac=02-00-00-00-00-01&vlan=10", "", `"age":3`,
			api.FDBQuery{Bridge: "br0", Port: "veth1", MAC: "02:00:00:00:00:01", VLAN: 10}},
		{"GET", "/v1/fdb?vlan=7", "", "[]\n", api.FDBQuery{VLAN: 7}},
		{"GET", "/v1/fdb/stats?bridge=br0", "", `"entries":2`, apitest.Call{Method: "FDBStats", Bridge: "br0"}},
		{"POST", "/v1/fdb/flush?vlan=0", "", `"flushed":2`, api.FDBQuery{VLAN: 0}},
		{"GET", "/v1/tunnels?bridge=br0", "", `"in_key":0,"state":"up","bfd":{"state":"up","flaps":0},"counters":{"rx_frames":1`,
			apitest.Call{Method: "Tunnels", Bridge: "br0"}},
		{"GET", "/v1/tunnels", "", `"port":"t0"`, apitest.Call{Method: "Tunnels"}},
		{"GET", "/v1/meshes?name=m1", "", `{"name":"m1","bridge":"br0","peers":[{"peer":"host1","state":"self"}]}`, apitest.Call{Method: "Meshes", Mesh: "m1"}},
		{"GET", "/v1/drops?bridge=br0&port=veth1", "", `"count":9`, apitest.Call{Method: "Drops", Bridge: "br0", Port: "veth1"}},
		{"GET", "/v1/stats?bridge=br0", "", `"bridge":"br0"`, apitest.Call{Method: "Stats", Bridge: "br0"}},
		{"GET", "/v1/workers", "", `"busy":0.5`, apitest.Call{Method: "Workers"}},
	} {
		t.Run(tc.method+" "+tc.target, func(t *testing.T) {
			status, header, text := request(t, socket, tc.method, tc.target, strings.NewReader(tc.body))
			if status != 200 || !strings.Contains(text, tc.want) {
				t.Fatalf("got %d %s, want 200 with %s", status, text, tc.want)
			}
			if ct := header.Get("Content-Type"); ct != "application/json" {
				t.Errorf("content type %q", ct)
			}
			if !json.Valid([]byte(text)) {
				t.Errorf("not JSON: %s", text)
			}
			var want []any
			if tc.asked != nil {
				want = []any{tc.asked}
			}
			got := svc.Asked()
			for i := range got { // the document's reading is config's to test
				if a, ok := got[i].(apitest.Applied); ok {
					a.Doc = config.Document{}
					got[i] = a
				}
			}
			if fmt.Sprintf("%+v", got) != fmt.Sprintf("%+v", want) {
				t.Errorf("service was asked %+v, want %+v", got, want)
			}
		})
	}
}

func TestEmptyListsAreNotNull(t *testing.T) {
	socket, _ := start(t, &apitest.Service{}, api.Limits{})
	for _, path := range []string{"history", "fdb", "fdb/stats", "drops", "stats", "workers", "tunnels", "meshes"} {
		if _, _, text := request(t, socket, "GET", "/v1/"+path, nil); text != "[]\n" {
			t.Errorf("%s: %q, want []", path, text)
		}
	}
	if _, _, text := request(t, socket, "GET", "/v1/status", nil); !strings.Contains(text, `"bridges":[]`) {
		t.Errorf("status: %s", text)
	}
}

func TestRefusals(t *testing.T) {
	svc := sample()
	socket, _ := start(t, svc, api.Limits{})
	for _, tc := range []struct {
		method, target, body string
		status               int
		want                 string // in the message
	}{
		{"GET", "/", "", 404, `there is no \"/\" in this API`},
		{"GET", "/v1/versions", "", 404, "docs/api.md"},
		{"GET", "/v1//version", "", 404, "docs/api.md"},
		{"POST", "/v1/version", "", 405, "allowed: GET"},
		{"DELETE", "/v1/config", "", 405, "allowed: GET, PUT"},
		{"GET", "/v1/status?bridge=nope", "", 404, `no bridge \"nope\"`},
		{"GET", "/v1/tunnels?name=br0", "", 400, `unknown parameter \"name\"; known here: bridge`},
		{"GET", "/v1/meshes?bridge=br0", "", 400, `unknown parameter \"bridge\"; known here: name`},
		{"GET", "/v1/status?brigde=br0", "", 400, `unknown parameter \"brigde\"; known here: bridge`},
		{"GET", "/v1/version?x=1", "", 400, "known here: none"},
		{"GET", "/v1/status?bridge=a&bridge=b", "", 400, "given 2 times"},
		{"GET", "/v1/status?bridge=%zz", "", 400, "invalid URL escape"},
		{"GET", "/v1/config?version=-1", "", 400, `\"-1\" is not a version number`},
		{"PUT", "/v1/config?confirm=1ns", "{}", 400, "a time from 1s to 24h"},
		{"PUT", "/v1/config?confirm=soon", "{}", 400, "a time from 1s to 24h"},
		{"PUT", "/v1/config?dry_run=maybe", "{}", 400, "0 or 1"},
		{"PUT", "/v1/config?comment=" + strings.Repeat("x", 1025), "{}", 400, "up to 1024"},
		{"PUT", "/v1/config", "{", 400, ""},
		{"POST", "/v1/rollback", "", 400, "say which version"},
		{"GET", "/v1/fdb?vlan=4095", "", 400, "from 0 (untagged) to 4094"},
		{"GET", "/v1/fdb?mac=zz", "", 400, "a MAC address"},
		{"GET", "/v1/fdb?mac=02:00:00:00:00:00:00:01", "", 400, "a MAC address"},
		{"GET", "/v1/events?kind=port-up,nope", "", 400, `\"nope\" is not one of port-up`},
		{"POST", "/v1/edit", "", 400, "empty"},
		{"POST", "/v1/edit", "{}", 400, "needs at least one"},
		{"POST", "/v1/edit", `{"opps":[]}`, 400, `unknown field \"opps\"`},
		{"POST", "/v1/edit", `{"ops":[{"op":"add-port","prot":"x"}]}`, 400, `unknown field \"prot\"`},
		{"POST", "/v1/edit", `{"ops":[{"vlan":"ten"}]}`, 400, "ops.vlan: a JSON string does not fit"},
		{"POST", "/v1/edit", `{"ops":[]`, 400, "not JSON"},
		{"POST", "/v1/edit", `{"ops":[{}]} {}`, 400, "something follows"},
		{"POST", "/v1/edit", strings.Repeat("[", 100000), 400, "not JSON"},
	} {
		name := tc.method + " " + tc.target + " " + tc.body
		if len(name) > 60 {
			name = name[:60]
		}
		t.Run(name, func(t *testing.T) {
			status, header, text := request(t, socket, tc.method, tc.target, strings.NewReader(tc.body))
			var e api.Error
			if err := json.Unmarshal([]byte(text), &e); err != nil || e.Message == "" {
				t.Fatalf("body is no error: %s", text)
			}
			if status != tc.status || !strings.Contains(text, tc.want) {
				t.Errorf("got %d %s, want %d with %s", status, text, tc.status, tc.want)
			}
			if status == 405 && header.Get("Allow") == "" {
				t.Error("no Allow header")
			}
		})
	}
	for _, a := range svc.Asked() {
		if c, ok := a.(apitest.Call); !ok || c.Method != "Status" {
			t.Errorf("a refused request reached the service: %+v", a)
		}
	}
}

func TestErrorsOfTheService(t *testing.T) {
	svc := sample()
	socket, log := start(t, svc, api.Limits{})
	for _, tc := range []struct {
		err    error
		status int
		want   string
	}{
		{&api.Error{Status: 409, Message: "a change waits", Field: "f", Value: "v", Allowed: "a"}, 409,
			`{"error":"a change waits","field":"f","value":"v","allowed":"a"}`},
		{fmt.Errorf("edit: %w", &api.Error{Status: 503, Message: "the store is read-only"}), 503, `the store is read-only`},
		{&api.Error{Message: "no status"}, 400, "no status"},
		{&config.Error{Path: "bridges[br0].ports[veth1].tag", Value: "x", Allowed: "0 to 4094", Message: `"x" is wrong`}, 400,
			`"field":"bridges[br0].ports[veth1].tag","value":"x","allowed":"0 to 4094"`},
		{config.Errors{{Path: "a", Message: "one"}, {Path: "b", Message: "two"}}, 400, `"error":"a: one\nb: two","field":"a"`},
		{errors.New("disk on fire"), 500, "disk on fire"},
	} {
		svc.Fail(tc.err)
		for _, target := range []string{"GET /v1/status", "GET /v1/config", "POST /v1/edit", "PUT /v1/config", "POST /v1/confirm",
			"POST /v1/rollback?version=1", "GET /v1/history", "GET /v1/fdb", "GET /v1/fdb/stats", "POST /v1/fdb/flush",
			"GET /v1/drops", "GET /v1/stats", "GET /v1/workers"} {
			method, path, _ := strings.Cut(target, " ")
			body := ""
			switch path {
			case "/v1/edit":
				body = `{"ops":[{"op":"add-bridge"}]}`
			case "/v1/config":
				body = `{"bridges":[]}`
			}
			status, _, text := request(t, socket, method, path, strings.NewReader(body))
			if status != tc.status || !strings.Contains(text, tc.want) {
				t.Errorf("%s with %v: got %d %s, want %d with %s", target, tc.err, status, text, tc.status, tc.want)
			}
		}
	}
	if n := strings.Count(log.String(), "api request failed"); n != 13 {
		t.Errorf("%d log lines of failures, want the 13 internal ones:\n%s", n, log)
	}
}

func TestPanicIsContained(t *testing.T) {
	svc := sample()
	svc.Panic = "boom"
	socket, log := start(t, svc, api.Limits{})
	for _, path := range []string{"/v1/status", "/v1/fdb", "/v1/events"} {
		status, _, text := request(t, socket, "GET", path, nil)
		if status != 500 || strings.Contains(text, "boom") {
			t.Errorf("%s: got %d %s", path, status, text)
		}
	}
	if !strings.Contains(log.String(), "panic=boom") {
		t.Errorf("no log line: %s", log)
	}
	if status, _, _ := request(t, socket, "GET", "/v1/version", nil); status != 200 {
		t.Errorf("after the panics: %d", status)
	}
}

func TestUnencodableAnswer(t *testing.T) {
	svc := sample()
	svc.W[0].Busy = math.NaN()
	socket, _ := start(t, svc, api.Limits{})
	if status, _, text := request(t, socket, "GET", "/v1/workers", nil); status != 500 || !json.Valid([]byte(text)) {
		t.Errorf("got %d %s", status, text)
	}
}

func TestHeadHasNoBody(t *testing.T) {
	socket, _ := start(t, sample(), api.Limits{})
	if status, _, text := request(t, socket, "HEAD", "/v1/version", nil); status != 200 || text != "" {
		t.Errorf("got %d %q", status, text)
	}
}

func TestOversizedBody(t *testing.T) {
	socket, _ := start(t, sample(), api.Limits{Body: 1 << 20})
	big := bytes.Repeat([]byte(" "), 1<<20+1)
	for name, body := range map[string]io.Reader{
		"announced": bytes.NewReader(big),
		"chunked":   io.MultiReader(bytes.NewReader(big)), // of unknown length
	} {
		if status, _, text := request(t, socket, "POST", "/v1/edit", body); status != 413 || !strings.Contains(text, "1048576") {
			t.Errorf("%s: got %d %s", name, status, text)
		}
	}
	exact := append(bytes.Repeat([]byte(" "), 1<<20-len(`{"ops":[{}]}`)), `{"ops":[{}]}`...)
	if status, _, text := request(t, socket, "POST", "/v1/edit", bytes.NewReader(exact)); status != 200 {
		t.Errorf("at the limit: got %d %s", status, text)
	}
}

func TestOversizedHeader(t *testing.T) {
	socket, _ := start(t, sample(), api.Limits{})
	if status, _, _ := request(t, socket, "GET", "/v1/status?bridge="+strings.Repeat("x", 80<<10), nil); status != 431 {
		t.Errorf("got %d, want 431", status)
	}
}
