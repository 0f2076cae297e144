package api_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"testing"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

// The double cannot fail, so whatever a body or a query holds, a status of 500
// and above is the handlers' own fault.

func handle(t *testing.T, srv *api.Server, log *apitest.LogRecorder, req *http.Request) {
	t.Helper()
	rec := httptest.NewRecorder()
	srv.ServeHTTP(rec, req)
	if rec.Code >= 500 {
		t.Fatalf("%d %s\n%s", rec.Code, rec.Body, log)
	}
	if !json.Valid(rec.Body.Bytes()) {
		t.Fatalf("not JSON: %q", rec.Body)
	}
	if rec.Code != 200 {
		var e api.Error
		if err := json.Unmarshal(rec.Body.Bytes(), &e); err != nil || e.Message == "" {
			t.Fatalf("%d without a message: %q", rec.Code, rec.Body)
		}
	}
}

func FuzzEditBody(f *testing.F) {
	for _, s := range []string{
		`{"ops":[{"op":"add-port","bridge":"br0","port":"veth1","options":{"tag":10,"offload":false,"x":null}}],"comment":"c"}`,
		`{"ops":[{"op":"set-mesh","mesh":"m","options":{"peers+":["a","b"]}}]}`, `{"ops":[]}`, `{"ops":[{"vlan":1e999}]}`, `{"ops":[{"options":[]}]}`, `{"ops":[{"options":{"a":{}}}]}`, `[`, `null`, "\xff", "{}{}",
	} {
		f.Add([]byte(s))
	}
	log := &apitest.LogRecorder{}
	svc := sample()
	srv := api.NewServer(svc, log.Logger(), api.Limits{})
	f.Fuzz(func(t *testing.T, body []byte) {
		svc.Asked() // lest it remember a million requests
		handle(t, srv, log, httptest.NewRequest("POST", "/v1/edit", bytes.NewReader(body)))
	})
}

func FuzzConfigBody(f *testing.F) {
	for _, s := range []string{
		`{"bridges":[{"name":"br0","ports":[{"name":"veth1","tag":10}]}]}`,
		"bridges:\n  - name: br0\n    ip: 10.0.0.1/24\n    ports:\n      - name: veth1\n        trunks: 10,20-30\n",
		"a: &a [*a]", "a: &a {b: 1}\nc: *a", "- - - -", "%YAML 1.2\n---\n...", "{", "\x00", "!!binary x",
	} {
		f.Add([]byte(s))
	}
	log := &apitest.LogRecorder{}
	svc := sample()
	srv := api.NewServer(svc, log.Logger(), api.Limits{})
	f.Fuzz(func(t *testing.T, body []byte) {
		svc.Asked() // lest it remember a million requests
		handle(t, srv, log, httptest.NewRequest("PUT", "/v1/config", bytes.NewReader(body)))
	})
}

func FuzzQuery(f *testing.F) {
	for _, s := range []string{
		"", "bridge=br0", "version=7", "vlan=10&mac=02:00:00:00:00:01", "confirm=60s&dry_run=1&comment=x",
		"kind=nope", "confirm=9223372036854775807s", "confirm=NaNs", "a=%zz", ";", "bridge=a&bridge=b", "vlan=-0", "mac=::",
	} {
		f.Add(s)
	}
	log := &apitest.LogRecorder{}
	svc := sample()
	srv := api.NewServer(svc, log.Logger(), api.Limits{})
	f.Fuzz(func(t *testing.T, raw string) {
		svc.Asked()
		for _, target := range []string{"GET /v1/version", "GET /v1/status", "GET /v1/config", "PUT /v1/config", "POST /v1/edit",
			"POST /v1/confirm", "POST /v1/rollback", "GET /v1/history", "GET /v1/fdb", "GET /v1/fdb/stats", "POST /v1/fdb/flush",
			"GET /v1/drops", "GET /v1/tunnels", "GET /v1/meshes", "GET /v1/stats", "GET /v1/workers", "GET /v1/"} {
			method, path, _ := bytes.Cut([]byte(target), []byte(" "))
			// Not through a request's text: every string, not only what a URL can hold.
			req := &http.Request{Method: string(method), URL: &url.URL{Path: string(path), RawQuery: raw},
				Header: http.Header{}, Body: http.NoBody}
			handle(t, srv, log, req)
		}
		if q, err := url.ParseQuery(raw); err != nil || q.Get("kind") == "" {
			return // a valid filter would begin a stream
		}
		rec := httptest.NewRecorder()
		req := &http.Request{Method: "GET", URL: &url.URL{Path: "/v1/events", RawQuery: raw + "&kind=again"}, Header: http.Header{}, Body: http.NoBody}
		if srv.ServeHTTP(rec, req); rec.Code != 400 {
			t.Fatalf("two kinds: %d %s", rec.Code, rec.Body)
		}
	})
}
