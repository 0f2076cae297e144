package main

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

func TestFlags(t *testing.T) {
	for _, c := range []struct {
		args string
		code int
		says string
	}{
		{"--version", exitOK, "vswitchd "},
		{"--help", exitOK, "-busy-poll"},
		{"--no-such-flag", exitUsage, "no-such-flag"},
		{"extra", exitUsage, `unexpected argument "extra"`},
		{"--workers 0", exitUsage, "--workers 0: want 1 to 256"},
		{"--workers 257", exitUsage, "want 1 to 256"},
		{"--buffers 63", exitUsage, "--buffers 63: want 64 to 65536"},
		{"--busy-poll 2s", exitUsage, "--busy-poll 2s: want 0 to 1s"},
		{"--busy-poll -1us", exitUsage, "want 0 to 1s"},
		{"--ingress-stop xdp", exitUsage, "want tcx or clsact"},
		{"--capture-dir tmp", exitUsage, "absolute path"},
		{"--log-level loud", exitUsage, "want debug, info, warn or error"},
		{"--metrics-listen here", exitUsage, `--metrics-listen: "here" is not an address: want ADDRESS:PORT`},
		{"--metrics-listen unix:metrics.sock", exitUsage, `"metrics.sock" is not an absolute path`},
		{"--metrics-listen 127.0.0.1:http", exitUsage, `"http" is not a port`},
		{"--log-format xml", exitUsage, "want text or json"},
		{"--run-dir /dev/null/x --state-dir /dev/null/y", exitFailed, "run directory"},
	} {
		var out bytes.Buffer
		if code := run(strings.Fields(c.args), &out, &out); code != c.code || !strings.Contains(out.String(), c.says) {
			t.Errorf("vswitchd %s: status %d, want %d; says %q, want %q in it", c.args, code, c.code, out.String(), c.says)
		}
	}
}

// TestClaim: a run directory is one daemon's.
func TestClaim(t *testing.T) {
	dir := t.TempDir()
	release, err := claim(dir)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := claim(dir); err == nil || !strings.Contains(err.Error(), "in use by another vswitchd") {
		t.Errorf("a second claim: %v", err)
	}
	release()
	release, err = claim(dir)
	if err != nil {
		t.Fatalf("a claim after the first was released: %v", err)
	}
	release()
}

// TestTuned runs a daemon with what tunes it:
//
//	[c1] eth0 ── veth-c1 [host: vswitchd --busy-poll … ] veth-c2 ── eth0 [c2]
func TestTuned(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c1, c2 := h.Container("c1", lab.Addr("10.0.0.1/24")), h.Container("c2", lab.Addr("10.0.0.2/24"))
	d := h.Daemon(lab.DaemonOptions{Args: []string{"--workers", "1", "--buffers", "64", "--busy-poll", "50us", "--log-format", "json", "--log-level", "debug"}})
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", c1.Veth)
	d.Ctl("add-port", "br0", c2.Veth)
	lab.Eventually(t, 10*time.Second, func() error { return lab.Ping(c1, c2) })
	var workers []struct {
		Ports   []string
		Buffers int
		Frames  uint64
	}
	d.CtlJSON(&workers, "stats", "workers")
	if len(workers) != 1 || len(workers[0].Ports) != 3 || workers[0].Buffers != 128 || workers[0].Frames == 0 {
		t.Errorf("workers: %+v", workers)
	}
	if !strings.Contains(d.Log.String(), `"msg":"vswitchd is ready"`) {
		t.Errorf("the log is not JSON: %s", d.Log)
	}
}
