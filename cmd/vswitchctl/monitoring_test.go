package main

import (
	"reflect"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func newMonitoringCLI(t *testing.T) *cli {
	c := newCLI(t)
	until := now.Add(9*time.Minute + 58*time.Second)
	c.svc.LL = api.LogStatus{Level: "debug", Until: &until, Then: "info"}
	c.svc.SF = []api.SFlowStatus{
		{Bridge: "br0", Options: map[string]any{"target": "10.0.0.9:6343,10.0.0.8:6343", "sampling": 400}, State: "error", Agent: "10.0.0.1", SubAgent: 9871234,
			Reason: "10.0.0.8:6343: connection refused", Pool: 4012345678, Samples: 10030864, Missed: 3, Reports: 600,
			Targets: []api.SFlowTarget{{Address: "10.0.0.9:6343", Datagrams: 2000000}, {Address: "10.0.0.8:6343", Datagrams: 1999990, Errors: 10, Reason: "connection refused"}}},
		{Bridge: "br1", Options: map[string]any{"target": "[fd00::9]:6343", "agent": "eth9"}, State: "error", SubAgent: 8800000,
			Reason: "agent=eth9: there is no such interface", Targets: []api.SFlowTarget{{Address: "[fd00::9]:6343"}}},
	}
	return c
}

func TestMonitoringGolden(t *testing.T) {
	golden(t, newMonitoringCLI(t), map[string][]string{
		"sflow-list":     {"sflow", "list"},
		"sflow-list-br1": {"sflow", "list", "br1", "-o", "json"},
		"log":            {"log"},
		"log-yaml":       {"log", "-o", "yaml"},
		"log-level":      {"log", "level", "debug", "--for", "10m"},
		"help-sflow-add": {"sflow", "add", "--help"},
		"help-log":       {"log", "--help"},
	})
}

// TestMonitoringAsks: what is typed is what the daemon is asked.
func TestMonitoringAsks(t *testing.T) {
	c := newMonitoringCLI(t)
	for line, want := range map[string]any{
		"sflow add br0 target=10.0.0.9 sampling=10": config.Op{Op: "add-sflow", Bridge: "br0", Options: config.Options{"target": "10.0.0.9", "sampling": "10"}},
		"--may-exist sflow add br0 header=64":       config.Op{Op: "add-sflow", Bridge: "br0", Options: config.Options{"header": "64"}, MayExist: true},
		"sflow del br0 --if-exists":                 config.Op{Op: "del-sflow", Bridge: "br0", IfExists: true},
		"log level warn":                            api.LogChange{Level: "warn"},
		"log level debug --for 10m":                 api.LogChange{Level: "debug", For: 10 * time.Minute},
	} {
		c.svc.Asked()
		code, _, errs := c.run("", strings.Fields(line)...)
		asked := c.svc.Asked()
		if code != exitDone || len(asked) == 0 {
			t.Fatalf("%s: exit %d, %s, asked %v", line, code, errs, asked)
		}
		got := asked[0]
		if e, ok := got.(api.Edit); ok && len(e.Ops) == 1 {
			got = e.Ops[0]
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s: asked %+v, want %+v", line, got, want)
		}
	}
	if code, _, errs := c.run("", "sflow", "add", "br1", "target=fd00::9", "agent=eth9"); code != exitDone ||
		errs != "sflow of br1: error: agent=eth9: there is no such interface; it is tried again\n" {
		t.Errorf("exit %d, %q", code, errs)
	}
	for line, says := range map[string]string{
		"log loud":                  `unknown verb "loud" of log`,
		"log level":                 "arguments are missing",
		"log level debug --for 1ms": "--for 1ms: want 1s to 24h",
		"log level debug --for 25h": "want 1s to 24h",
		"sflow add br0":             "arguments are missing",
		"sflow add br0 10.0.0.9":    "10.0.0.9",
	} {
		if code, _, errs := c.run("", strings.Fields(line)...); code != exitUsage || !strings.Contains(errs, says) {
			t.Errorf("%s: exit %d, %q", line, code, errs)
		}
	}
	if code, _, errs := c.run("", "log", "level", "loud"); code != exitRefused || !strings.Contains(errs, `"loud" is not one of debug, info, warn, error`) {
		t.Errorf("exit %d, %q", code, errs)
	}
}
