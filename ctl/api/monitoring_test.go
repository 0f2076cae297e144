package api_test

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

// TestMonitoring: what is sent is what the daemon is asked, and what it answers comes
// back as it is.
func TestMonitoring(t *testing.T) {
	svc := sample()
	until := time.Date(2026, 7, 1, 3, 14, 15, 0, time.UTC)
	svc.LL = api.LogStatus{Level: "debug", Until: &until, Then: "info"}
	svc.SF = []api.SFlowStatus{{Bridge: "br0", State: "up", Agent: "10.0.0.1", SubAgent: 9, Samples: 1, Targets: []api.SFlowTarget{{Address: "10.0.0.9:6343", Datagrams: 1}}}}
	socket, _ := start(t, svc, api.Limits{})
	c := api.NewClient(socket, 10*time.Second)
	defer c.Close()
	ctx := context.Background()

	asked := func(want any) {
		t.Helper()
		if got := svc.Asked(); len(got) != 1 || !reflect.DeepEqual(got[0], want) {
			t.Errorf("asked %+v, want %+v", got, want)
		}
	}
	list, err := c.SFlow(ctx, "br0")
	if err != nil || !reflect.DeepEqual(list, svc.SF) {
		t.Errorf("%+v, %v", list, err)
	}
	asked(apitest.Call{Method: "SFlow", Bridge: "br0"})
	st, err := c.LogLevel(ctx)
	if err != nil || !reflect.DeepEqual(st, svc.LL) {
		t.Errorf("%+v, %v", st, err)
	}
	asked(apitest.Call{Method: "LogLevel"})
	if st, err = c.SetLogLevel(ctx, api.LogChange{Level: "debug", For: 90 * time.Second}); err != nil || !reflect.DeepEqual(st, svc.LL) {
		t.Errorf("%+v, %v", st, err)
	}
	asked(api.LogChange{Level: "debug", For: 90 * time.Second})

	for _, x := range []struct{ method, target, says, field string }{
		{"PUT", "/v1/log", `parameter level: "" is not one of debug, info, warn, error`, "level"},
		{"PUT", "/v1/log?level=INFO", `"INFO" is not one of`, "level"},
		{"PUT", "/v1/log?level=info&for=10", `parameter for: "10" is not a time from 1s to 24h, such as 10m`, "for"},
		{"PUT", "/v1/log?level=info&for=-1s", "is not a time from 1s to 24h", "for"},
		{"PUT", "/v1/log?level=info&for=24h1s", "is not a time from 1s to 24h", "for"},
		{"GET", "/v1/log?level=info", `unknown parameter \"level\"`, "level"},
		{"GET", "/v1/sflow?port=x", `unknown parameter \"port\"; known here: bridge`, "port"},
	} {
		status, _, text := request(t, socket, x.method, x.target, nil)
		var e api.Error
		if err := json.Unmarshal([]byte(text), &e); err != nil || status != 400 || e.Field != x.field || !strings.Contains(strings.ReplaceAll(text, `\"`, `"`), strings.ReplaceAll(x.says, `\"`, `"`)) {
			t.Errorf("%s %s: %d %s", x.method, x.target, status, text)
		}
	}
	if got := svc.Asked(); len(got) != 0 {
		t.Errorf("what is refused was asked: %+v", got)
	}
	svc.SF = nil
	if _, _, text := request(t, socket, "GET", "/v1/sflow", nil); strings.TrimSpace(text) != "[]" {
		t.Errorf("no sFlow is %s", text)
	}
}
