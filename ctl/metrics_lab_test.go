package ctl_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// scrapeAt scrapes a unix socket, and returns the values by series.
func scrapeAt(t *testing.T, path string) map[string]float64 {
	t.Helper()
	client := &http.Client{Timeout: patient, Transport: &http.Transport{DisableKeepAlives: true,
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) }}}
	resp, err := client.Get("http://vswitch/metrics")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s, %v", resp.Status, err)
	}
	problems, err := promlint.New(strings.NewReader(string(body))).Lint()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if strings.HasPrefix(p.Metric, "vswitch_") {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
	values := map[string]float64{}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "#") {
			continue
		}
		at := strings.LastIndexByte(line, ' ')
		v, err := strconv.ParseFloat(strings.TrimSpace(line[at+1:]), 64)
		if err != nil {
			t.Fatal(err)
		}
		values[line[:at]] = v
	}
	return values
}

// TestMetrics compares what is scraped with what stats says, on real traffic:
//
//	c1 ── veth-c1 [host a: vswitchd --metrics-listen, br0] veth-c2 ── c2
//	              [                                      ] x0: vxlan to nobody
func TestMetrics(t *testing.T) {
	sock := filepath.Join(t.TempDir(), "metrics.sock")
	p := newPair(t, lab.DaemonOptions{Args: []string{"--metrics-listen", "unix:" + sock}})
	p.d.Ctl("add-port", "br0", "x0", "type=vxlan", "remote_ip=127.0.0.2", "key=5")
	p.d.Ctl("mirror", "add", "br0", "m0", "select_all=true", "output_pcap="+filepath.Join(p.d.StateDir, "captures", "m0.pcapng"))
	p.d.Ctl("sflow", "add", "br0", "target=127.0.0.1", "polling=0")
	if err := lab.Transfer(p.c1, p.c2, 1<<20); err != nil {
		t.Fatal(err)
	}
	c1 := p.c1.Conn()
	for range 100 { // to itself: dropped
		f := testFrame(p.c1.MAC, 0)
		copy(f, p.c1.MAC)
		if err := c1.Send(f); err != nil {
			t.Fatal(err)
		}
	}

	// stats before and after a scrape that says the same: nothing moved meanwhile.
	var m map[string]float64
	var stats []api.BridgeStats
	stats1 := func() (s []api.BridgeStats) { p.d.CtlJSON(&s, "stats", "br0"); return s }
	lab.Eventually(t, patient, func() error {
		stats = stats1()
		m = scrapeAt(t, sock)
		if again := stats1(); fmt.Sprint(stats) != fmt.Sprint(again) {
			return fmt.Errorf("frames go through still")
		}
		if d := stats[0].Ports[1].Counters.Drops["same-port"]; d != 100 {
			return fmt.Errorf("%d frames dropped", d)
		}
		return nil
	})
	check := func(series string, want uint64) {
		t.Helper()
		if got, ok := m[series]; !ok || got != float64(want) {
			t.Errorf("%s is %v (there: %v), want %d", series, got, ok, want)
		}
	}
	b := stats[0]
	check(`vswitch_bridge_received_frames_total{bridge="br0"}`, b.Counters.Received)
	check(`vswitch_bridge_sent_frames_total{bridge="br0"}`, b.Counters.Sent)
	check(`vswitch_bridge_dropped_frames_total{bridge="br0"}`, b.Counters.Dropped)
	check(`vswitch_bridge_copies_total{bridge="br0",kind="flood"}`, b.Counters.FloodCopies)
	check(`vswitch_bridge_copies_total{bridge="br0",kind="mirror"}`, b.Counters.MirrorCopies)
	if len(b.Ports) != 4 {
		t.Fatalf("%d ports", len(b.Ports))
	}
	for _, port := range b.Ports {
		at := fmt.Sprintf(`{bridge="br0",port="%s"}`, port.Port)
		check("vswitch_port_receive_frames_total"+at, port.Counters.RxFrames)
		check("vswitch_port_receive_bytes_total"+at, port.Counters.RxBytes)
		check("vswitch_port_transmit_frames_total"+at, port.Counters.TxFrames)
		check("vswitch_port_transmit_bytes_total"+at, port.Counters.TxBytes)
		for reason, n := range port.Counters.Drops {
			check(fmt.Sprintf(`vswitch_port_drops_total{bridge="br0",port="%s",reason="%s"}`, port.Port, reason), n)
		}
	}
	check(fmt.Sprintf(`vswitch_port_up{bridge="br0",port="%s",type="packet"}`, p.c1.Veth), 1)
	check(`vswitch_ports{bridge="br0",state="up"}`, 3)
	check(`vswitch_tunnel_up{bridge="br0",port="x0",remote="127.0.0.2",type="vxlan"}`, 1)
	check(`vswitch_fdb_max_entries{bridge="br0"}`, 8192)
	check(`vswitch_mirror_up{bridge="br0",mirror="m0"}`, 1)
	if m[`vswitch_fdb_entries{bridge="br0"}`] < 2 {
		t.Error("no MAC is known")
	}
	var version api.ConfigVersion
	if err := p.d.Get("/v1/config", &version); err != nil {
		t.Fatal(err)
	}
	check("vswitch_config_version", version.Version)

	// What workers did adds up to what the ports took, and every batch is in a bucket.
	var workers []api.WorkerStats
	p.d.CtlJSON(&workers, "stats", "workers")
	for _, w := range workers {
		name := fmt.Sprintf(`{worker="%d"}`, w.Worker)
		check("vswitch_batch_frames_sum"+name, w.Frames)
		check("vswitch_batch_frames_count"+name, w.Batches)
		check(fmt.Sprintf(`vswitch_batch_frames_bucket{worker="%d",le="64"}`, w.Worker), w.Batches)
		if busy := m["vswitch_worker_busy_seconds_total"+name]; w.Frames > 0 && (busy <= 0 || busy > 60) {
			t.Errorf("worker %d was busy for %v s", w.Worker, busy)
		}
	}
	if n := m[`vswitch_residence_seconds_count{worker="0"}`] + m[`vswitch_residence_seconds_count{worker="1"}`]; n == 0 {
		t.Error("no time in the switch was measured")
	}
	for _, name := range []string{"go_goroutines", "process_resident_memory_bytes"} {
		if m[name] == 0 {
			t.Errorf("%s is missing", name)
		}
	}

	// What a killed daemon leaves does not stand in the way of the next.
	p.d.Kill()
	p.d.Start()
	if m := scrapeAt(t, sock); m["vswitch_config_version"] != float64(version.Version) {
		t.Error("no scrape after a crash")
	}
}

// TestLogLevel: the level changes while the daemon runs, goes back by itself, and is
// not part of what is desired.
func TestLogLevel(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	var version api.ConfigVersion
	if err := p.d.Get("/v1/config", &version); err != nil {
		t.Fatal(err)
	}
	level := func() (st api.LogStatus) { p.d.CtlJSON(&st, "log"); return st }
	if st := level(); st.Level != "info" || st.Until != nil {
		t.Errorf("%+v", st)
	}
	var st api.LogStatus
	p.d.CtlJSON(&st, "log", "level", "debug", "--for", "1s")
	if st.Level != "debug" || st.Then != "info" || st.Until == nil || time.Until(*st.Until) > time.Second {
		t.Errorf("%+v", st)
	}
	lab.Eventually(t, patient, func() error {
		if st := level(); st.Level != "info" || st.Until != nil {
			return fmt.Errorf("%+v", st)
		}
		return has(p.d.Log.String(), `msg="log level changed" from=info to=debug why="asked for, for 1s"`, `msg="log level changed" from=debug to=info why="its time is over"`)
	})
	p.d.Ctl("log", "level", "error")
	p.d.Ctl("del-port", p.c2.Veth) // logged at info: not now
	if err := has(p.d.Log.String(), `level=INFO msg="log level changed" from=info to=error`); err != nil {
		t.Error(err)
	}
	if strings.Contains(p.d.Log.String(), "del-port") {
		t.Errorf("what is below the level is logged:\n%s", p.d.Log)
	}
	refused(t, p.d, []string{"log", "level", "loud"}, `parameter level: "loud" is not one of debug, info, warn, error`)
	p.d.Restart()
	if st := level(); st.Level != "info" {
		t.Errorf("after a restart: %+v", st)
	}
	var after api.ConfigVersion
	if err := p.d.Get("/v1/config", &after); err != nil || after.Version != version.Version+1 { // the port's going
		t.Errorf("version %d, was %d: %v", after.Version, version.Version, err)
	}
}
