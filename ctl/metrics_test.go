package ctl

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"vswitch/ctl/api"
	"vswitch/fdb"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// madeUp is a reading of a switch with so many tunnels, each of which dropped frames
// for three reasons.
func madeUp(tunnels int) *reading {
	var c vswitch.Counters
	c.RxFrames, c.RxBytes, c.TxFrames, c.TxBytes = 1<<40, 1<<50, 7, 8
	for _, why := range []vswitch.Reason{vswitch.DropMTU, vswitch.DropNoPort, vswitch.DropRingFull} {
		c.Drops[why].Count = 3
	}
	b := bridgeReading{BridgeStats: vswitch.BridgeStats{Name: "br0", FDB: fdb.Stats{Limits: fdb.Limits{Size: 8192}, Entries: 5, Moved: 2}}, flapping: 1}
	b.Counters = vswitch.BridgeCounters{Received: 10, Sent: 9, Dropped: 1}
	b.mirrors = []api.MirrorStatus{{Name: "m0", State: "up", Frames: 4}}
	add := func(name string, x portReading) {
		b.Ports = append(b.Ports, vswitch.PortStats{Name: name, Counters: c})
		b.ports = append(b.ports, x)
	}
	add("br0", portReading{kind: "local", state: api.PortDown, bfd: -1})
	add("\xffodd\n\"", portReading{kind: "packet", state: api.PortUp, bfd: -1, macnat: &ports.MACNATStats{Addresses: 2, Bound: 4096, Refused: 3}})
	add("m0:self", portReading{})
	for i := range tunnels {
		add(fmt.Sprintf("m0:host%d", i), portReading{
			kind: "vxlan", state: api.PortUp, tunnel: true, remote: fmt.Sprintf("host%d", i), pathMTU: 1500, bfd: 3, flaps: 1,
		})
	}
	return &reading{
		version: api.Version{Version: "1.0", Go: "go1.26", Kernel: "6.18"}, configVersion: 7, bridges: []bridgeReading{b}, elapsed: 100 * time.Second,
		endpoints: []api.Drop{{Port: "vxlan 0.0.0.0:4789", Reason: "no-such-key", Source: "10.0.0.1", Count: 1}, {Port: "vxlan 0.0.0.0:4789", Reason: "no-such-key", Source: "10.0.0.2", Count: 2}},
		workers: []vswitch.WorkerStats{{
			Batches: 6, Frames: 100, Busy: 0.25, Buffers: 512, Free: 500, BatchSizes: [vswitch.BatchBuckets]uint64{3, 0, 0, 0, 0, 2, 1},
			Residence: [vswitch.ResidenceBuckets]uint64{1, 0, 4, 16: 2}, ResidenceSum: 3 * time.Millisecond,
		}},
		recorder: vswitch.RecorderStats{Frames: 3, Oldest: time.Unix(1e9, 0)},
		sflow:    []api.SFlowStatus{{Bridge: "br0", State: "up", Samples: 5, Targets: []api.SFlowTarget{{Datagrams: 2}, {Datagrams: 3, Errors: 1}}}},
	}
}

// scrape is what a Prometheus gets.
func scrape(t testing.TB, c prometheus.Collector) string {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	if err := registry.Register(c); err != nil {
		t.Fatal(err)
	}
	w := &scraped{header: http.Header{}}
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, must(http.NewRequest("GET", "/metrics", nil)))
	if w.status != 0 && w.status != http.StatusOK {
		t.Fatalf("status %d: %s", w.status, w.body.String())
	}
	return w.body.String()
}

type scraped struct {
	header http.Header
	status int
	body   bytes.Buffer
}

func (a *scraped) Header() http.Header         { return a.header }
func (a *scraped) WriteHeader(status int)      { a.status = status }
func (a *scraped) Write(b []byte) (int, error) { return a.body.Write(b) }

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}

// TestMetricsText holds what is exported to lines written by hand, and to the linter of
// Prometheus.
func TestMetricsText(t *testing.T) {
	text := scrape(t, &metricsCollector{read: func() *reading { return madeUp(1) }})
	problems, err := promlint.New(strings.NewReader(text)).Lint()
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", err, problems)
	}
	for line := range strings.Lines(strings.TrimPrefix(`
vswitch_build_info{goversion="1.26",kernel="6.18",version="1.0"} 1
vswitch_config_version 7
vswitch_bridge_received_frames_total{bridge="br0"} 10
vswitch_ports{bridge="br0",state="up"} 2
vswitch_ports{bridge="br0",state="down"} 1
vswitch_ports{bridge="br0",state="waiting"} 0
vswitch_port_up{bridge="br0",port="br0",type="local"} 0
vswitch_port_receive_frames_total{bridge="br0",port="?odd\n\""} 1.099511627776e+12
vswitch_port_drops_total{bridge="br0",port="br0",reason="mtu-exceeded"} 3
vswitch_endpoint_drops_total{endpoint="vxlan 0.0.0.0:4789",reason="no-such-key"} 3
vswitch_fdb_entries{bridge="br0"} 5
vswitch_fdb_moves_total{bridge="br0"} 2
vswitch_tunnel_up{bridge="br0",port="m0:host0",remote="host0",type="vxlan"} 1
vswitch_tunnel_path_mtu_bytes{bridge="br0",port="m0:host0"} 1500
vswitch_tunnel_bfd_state{bridge="br0",port="m0:host0"} 3
vswitch_worker_busy_seconds_total{worker="0"} 25
vswitch_batch_frames_bucket{worker="0",le="1"} 3
vswitch_batch_frames_bucket{worker="0",le="16"} 3
vswitch_batch_frames_bucket{worker="0",le="32"} 5
vswitch_batch_frames_bucket{worker="0",le="64"} 6
vswitch_batch_frames_bucket{worker="0",le="+Inf"} 6
vswitch_batch_frames_sum{worker="0"} 100
vswitch_batch_frames_count{worker="0"} 6
vswitch_residence_seconds_bucket{worker="0",le="1e-06"} 1
vswitch_residence_seconds_bucket{worker="0",le="4e-06"} 5
vswitch_residence_seconds_bucket{worker="0",le="0.032768"} 5
vswitch_residence_seconds_bucket{worker="0",le="+Inf"} 7
vswitch_residence_seconds_sum{worker="0"} 0.003
vswitch_macnat_addresses{bridge="br0",port="?odd\n\""} 2
vswitch_macnat_max_addresses{bridge="br0",port="?odd\n\""} 4096
vswitch_macnat_refused_frames_total{bridge="br0",port="?odd\n\""} 3
vswitch_macnat_evicted_total{bridge="br0",port="?odd\n\""} 0
vswitch_mirror_frames_total{bridge="br0",mirror="m0"} 4
vswitch_recorder_oldest_frame_timestamp_seconds 1e+09
vswitch_sflow_datagrams_total{bridge="br0"} 5
vswitch_sflow_errors_total{bridge="br0"} 1
`, "\n")) {
		if !strings.Contains("\n"+text, "\n"+line) {
			t.Errorf("not there: %s", line)
		}
	}
	for _, not := range []string{`reason="too-short"`, `port="m0:self"`} {
		if strings.Contains(text, not) {
			t.Errorf("there: %s", not)
		}
	}
	for _, m := range metricTable {
		if !strings.Contains(text, "# TYPE "+m.name+" "+m.kindName()+"\n") {
			t.Errorf("%s is not exported as a %s", m.name, m.kindName())
		}
	}
}

// TestMetricsTimesGrow: a worker's seconds do not go back when the share and the time
// they are made of were read apart.
func TestMetricsTimesGrow(t *testing.T) {
	r := madeUp(0)
	c := &metricsCollector{read: func() *reading { return r }}
	scrape(t, c)
	r.elapsed -= time.Microsecond
	if text := scrape(t, c); !strings.Contains(text, "vswitch_worker_busy_seconds_total{worker=\"0\"} 25\n") {
		t.Error("time went back")
	}
}

// TestMetricsOfManyTunnels bounds what a scrape of ten thousand tunnels is and takes.
func TestMetricsOfManyTunnels(t *testing.T) {
	r := madeUp(10_000)
	c := &metricsCollector{read: func() *reading { return r }}
	began := time.Now()
	text := scrape(t, c)
	took := time.Since(began)
	series := strings.Count(text, "\n") - strings.Count(text, "\n#")
	t.Logf("%d series, %d kB, %s", series, len(text)/1000, took)
	if series > 13*10_000 || len(text) > 16<<20 || took > 20*time.Second {
		t.Errorf("%d series, %d bytes, %s", series, len(text), took)
	}
}

func BenchmarkMetricsOfManyTunnels(b *testing.B) {
	r := madeUp(10_000)
	c := &metricsCollector{read: func() *reading { return r }}
	b.ReportAllocs()
	for b.Loop() {
		scrape(b, c)
	}
}

// TestListenMetrics: what is listened on, and what is refused.
func TestListenMetrics(t *testing.T) {
	for address, says := range map[string]string{
		"": "is not an address", "9123": "is not an address", "127.0.0.1:x": "is not a port", "127.0.0.1:65536": "is not a port", "[::1:9123": "is not an address",
		"unix:": "is not an absolute path", "unix:x": "is not an absolute path", "unix:/nowhere/x": "no such file",
	} {
		if ln, err := ListenMetrics(address); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("%q: %v, want %q", address, err, says)
			if ln != nil {
				ln.Close()
			}
		}
	}
	path := filepath.Join(t.TempDir(), "metrics.sock")
	for range 2 { // the second time it replaces what a daemon that was killed left
		ln, err := ListenMetrics("unix:" + path)
		if err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(path)
		if err != nil || info.Mode().Perm() != 0o660 {
			t.Errorf("%v, %v", info.Mode(), err)
		}
		if _, err := ListenMetrics("unix:" + path); err == nil || !strings.Contains(err.Error(), "another daemon answers") {
			t.Errorf("a second listener: %v", err)
		}
		keep := path + ".kept"
		if err := os.Rename(path, keep); err != nil {
			t.Fatal(err)
		}
		ln.Close()
		if err := os.Rename(keep, path); err != nil {
			t.Fatal(err)
		}
	}
	ln, err := ListenMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ListenMetrics(ln.Addr().String()); err == nil || !strings.Contains(err.Error(), "address already in use") {
		t.Errorf("a second listener: %v", err)
	}
	ln.Close()
}

// TestMetricsPage: the table of docs/monitoring.md is what is exported.
func TestMetricsPage(t *testing.T) {
	text, err := os.ReadFile("../docs/monitoring.md")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), metricsPage()) {
		t.Errorf("docs/monitoring.md has not this table:\n%s", metricsPage())
	}
}

// exported are the names that a query may use.
func exported() []string {
	names := []string{"up", "process_cpu_seconds_total", "process_resident_memory_bytes", "process_start_time_seconds", "go_goroutines"}
	for _, m := range metricTable {
		if m.kind == 0 {
			names = append(names, m.name+"_bucket", m.name+"_sum", m.name+"_count")
		} else {
			names = append(names, m.name)
		}
	}
	return names
}

var metricName = regexp.MustCompile(`\b(vswitch|process|go)_[a-z_]+\b`)

// TestDashboard: docs/grafana/vswitch.json has what Grafana needs to load it, and asks
// only for what is exported.
func TestDashboard(t *testing.T) {
	text, err := os.ReadFile("../docs/grafana/vswitch.json")
	if err != nil {
		t.Fatal(err)
	}
	type datasource struct{ Type, UID string }
	type panel struct {
		ID         int
		Type       string
		Title      string
		Datasource *datasource
		GridPos    *struct{ H, W, X, Y int }
		Targets    []struct {
			Expr, RefID string
			Datasource  *datasource
		}
		FieldConfig *struct{ Defaults struct{ Unit string } }
	}
	var d struct {
		Title, UID    string
		SchemaVersion int
		Panels        []panel
		Time          struct{ From, To string }
		Templating    struct {
			List []struct {
				Name, Type string
				Query      any
			}
		}
	}
	dec := json.NewDecoder(bytes.NewReader(text))
	if err := dec.Decode(&d); err != nil {
		t.Fatal(err)
	}
	if d.Title == "" || d.UID == "" || d.SchemaVersion < 36 || d.Time.From == "" || d.Time.To == "" || len(d.Panels) < 10 {
		t.Errorf("title %q, uid %q, schemaVersion %d, time %v, %d panels", d.Title, d.UID, d.SchemaVersion, d.Time, len(d.Panels))
	}
	variables := []string{"$__rate_interval", "$__range", "$__all", "$__interval"}
	for _, v := range d.Templating.List {
		variables = append(variables, "$"+v.Name)
	}
	if len(d.Templating.List) == 0 || d.Templating.List[0].Type != "datasource" || d.Templating.List[0].Query != "prometheus" {
		t.Error("the first variable is not the datasource")
	}
	names, asked := exported(), map[string]bool{}
	ids, cells := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		if p.ID == 0 || ids[p.ID] || p.Title == "" || p.GridPos == nil || p.GridPos.W == 0 || p.GridPos.H == 0 || p.GridPos.X+p.GridPos.W > 24 {
			t.Errorf("panel %d %q: %+v", p.ID, p.Title, p.GridPos)
			continue
		}
		ids[p.ID] = true
		for x := range p.GridPos.W {
			for y := range p.GridPos.H {
				at := [2]int{p.GridPos.X + x, p.GridPos.Y + y}
				if cells[at] != "" {
					t.Errorf("panels %q and %q overlap", cells[at], p.Title)
				}
				cells[at] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		if !slices.Contains([]string{"timeseries", "stat", "table", "heatmap", "bargauge", "state-timeline"}, p.Type) || len(p.Targets) == 0 ||
			p.Datasource == nil || p.Datasource.UID != "${datasource}" || p.FieldConfig == nil || p.FieldConfig.Defaults.Unit == "" {
			t.Errorf("panel %q: type %q, datasource %v, %d targets", p.Title, p.Type, p.Datasource, len(p.Targets))
		}
		refs := map[string]bool{}
		for _, x := range p.Targets {
			if x.Expr == "" || x.RefID == "" || refs[x.RefID] {
				t.Errorf("panel %q: target %+v", p.Title, x)
			}
			refs[x.RefID] = true
			used := metricName.FindAllString(x.Expr, -1)
			if len(used) == 0 || strings.Count(x.Expr, "(") != strings.Count(x.Expr, ")") {
				t.Errorf("panel %q: %s", p.Title, x.Expr)
			}
			for _, name := range used {
				asked[name] = true
				if !slices.Contains(names, name) {
					t.Errorf("panel %q: %s is not exported", p.Title, name)
				}
			}
			for _, v := range regexp.MustCompile(`\$\w+`).FindAllString(x.Expr, -1) {
				if !slices.Contains(variables, v) {
					t.Errorf("panel %q: %s is no variable", p.Title, v)
				}
			}
		}
	}
	for _, name := range []string{"vswitch_port_receive_bytes_total", "vswitch_port_drops_total", "vswitch_fdb_entries", "vswitch_tunnel_up",
		"vswitch_worker_busy_seconds_total", "vswitch_batch_frames_bucket", "vswitch_residence_seconds_bucket"} {
		if !asked[name] {
			t.Errorf("no panel shows %s", name)
		}
	}
}

// TestServeMetrics: many who scrape at once, and what is not there.
func TestServeMetrics(t *testing.T) {
	ln, err := ListenMetrics("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &Daemon{log: slog.New(slog.DiscardHandler)}
	r := madeUp(10)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.serveMetrics(ctx, ln, func() *reading { return r }) }() // ended by cancel
	for path, want := range map[string]int{"/metrics": 200, "/": 404, "/metrics/x": 404} {
		resp, err := http.Get("http://" + ln.Addr().String() + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %s", path, resp.Status)
		}
		if want == 200 {
			for _, part := range []string{"vswitch_config_version 7\n", "\ngo_goroutines ", "\nprocess_cpu_seconds_total "} {
				if !strings.Contains(string(body), part) {
					t.Errorf("%q is not there", part)
				}
			}
		}
	}
	http.DefaultClient.CloseIdleConnections()
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
