package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"net"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/cobra"
	"go.yaml.in/yaml/v3"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
	"vswitch/ctl/config"
)

var update = flag.Bool("update", false, "write testdata from what is printed now")

var now = time.Date(2026, 7, 1, 3, 14, 15, 0, time.UTC)

// cli is a command with a double of the daemon behind it.
type cli struct {
	svc    *apitest.Service
	socket string
}

func newCLI(t *testing.T) *cli {
	t.Helper()
	c := &cli{svc: nightSwitch(), socket: filepath.Join(t.TempDir(), "ctl.sock")}
	stop, err := apitest.Serve(c.svc, c.socket, api.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return c
}

// run is one command in this process.
func (c *cli) run(stdin string, args ...string) (code int, stdout, stderr string) {
	return c.runCtx(context.Background(), stdin, args...)
}

func (c *cli) runCtx(ctx context.Context, stdin string, args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	a := &app{in: strings.NewReader(stdin), out: &out, err: &errs,
		now: func() time.Time { return now },
		getenv: func(name string) string {
			if name == "VSWITCH_CTL" {
				return c.socket
			}
			return ""
		}}
	code = a.run(ctx, args)
	return code, out.String(), errs.String()
}

// nightSwitch is what somebody might meet at 3 a.m.
func nightSwitch() *apitest.Service {
	at := func(d time.Duration) time.Time { return now.Add(-d) }
	br0 := api.BridgeStatus{
		Name:    "br0",
		Options: map[string]any{"ip": "10.0.0.1/24", "mac-aging-time": 60},
		FDB:     api.FDBStats{Bridge: "br0", Entries: 3, Size: 8192},
		Counters: api.BridgeCounters{Received: 1000, FloodCopies: 90, MirrorCopies: 10, SplitCopies: 0,
			Sent: 1078, Dropped: 20, Drops: map[string]uint64{"vlan-denied": 18, "ring-full": 2}},
		Ports: []api.PortStatus{
			{Name: "br0", Type: "local", State: "up", MTU: 1500, Workers: []int{0}, Since: at(time.Hour),
				Counters: api.PortCounters{RxFrames: 12, RxBytes: 1000, TxFrames: 13, TxBytes: 1100}},
			{Name: "trunk0", Type: "packet", State: "error", Since: at(3 * time.Minute), Options: map[string]any{"trunks": "10,20-30,40,50,60,70-80"},
				Reason: "open packet socket on trunk0: operation not permitted (need CAP_NET_RAW)"},
			{Name: "veth1", Type: "packet", State: "up", MTU: 9000, Workers: []int{0, 1}, Since: at(time.Hour), MAC: "02:00:00:00:00:01",
				Options: map[string]any{"tag": 10, "offload": false}, Notes: []string{"checksums are finished in software"},
				Counters: api.PortCounters{RxFrames: 18446744073709551615, RxBytes: 123456789012, RxMissed: 4, TxFrames: 98765432, TxBytes: 9876543210,
					Dropped: 20, Drops: map[string]uint64{"vlan-denied": 18, "ring-full": 2}}},
			{Name: "veth2", Type: "packet", State: "down", MTU: 1500, Workers: []int{1}, Since: at(26 * time.Hour), Reason: "no carrier",
				Options: map[string]any{"vlan_mode": "native-untagged", "tag": 5, "trunks": "10"}},
			{Name: "veth9", Type: "packet", State: "waiting", Since: at(42 * time.Second), Reason: "interface veth9 does not exist"},
		},
		Mirrors: []api.MirrorStatus{{Name: "m0", State: "up", Frames: 10, Dropped: 1, File: "/tmp/m0.pcapng", Written: 4096,
			Options: map[string]any{"select_all": true, "output_pcap": "/tmp/m0.pcapng"}},
			{Name: "m1", State: "error", Reason: "open /full/m1.pcapng: no space left on device"}},
	}
	return &apitest.Service{
		V: api.Version{Version: "1.0", API: 1, Go: "go1.26", Kernel: "6.18", PID: 42, Started: at(time.Hour)},
		S: api.Status{ConfigVersion: 8,
			Confirm:  &api.PendingConfirm{Version: 8, Previous: 7, Deadline: now.Add(42 * time.Second)},
			Warnings: []string{"the store is read-only: /var/lib/vswitch/config.db: read-only file system; forwarding goes on, edits are refused"},
			Bridges:  []api.BridgeStatus{br0, {Name: "br1", FDB: api.FDBStats{Size: 8192}, Ports: []api.PortStatus{{Name: "br1", Type: "local", State: "down", Reason: "it has no address"}}}}},
		C: api.ConfigVersion{Version: 8, Document: config.Document{Bridges: []config.Bridge{{Name: "br0",
			Ports: []config.Port{{Name: "veth1", Options: config.Options{"tag": "10", "offload": "false"}}}}}}},
		R: api.EditResult{Version: 9, Changed: true, Changes: []config.Change{
			{What: "add", Path: "bridges[br0].ports[veth3]"},
			{What: "add", Path: "bridges[br0].ports[veth3].tag", To: "10"},
			{What: "remove", Path: "bridges[br0].ports[veth9]", From: "packet"},
			{What: "change", Path: "bridges[br0].mac-aging-time", From: "60", To: "300"},
		}},
		H: []api.HistoryEntry{
			{Version: 8, Time: at(time.Minute), Comment: "vswitchctl add-port br0 veth9", Current: true},
			{Version: 7, Time: at(30 * time.Hour), Comment: "vswitchctl apply -f \x1b[31mred.yaml"},
		},
		F: []api.FDBEntry{
			{Bridge: "br0", VLAN: 0, MAC: "02:00:00:00:00:07", Port: "br0", Age: 299},
			{Bridge: "br0", VLAN: 10, MAC: "02:00:00:00:00:01", Port: "veth1", Age: 3},
			{Bridge: "br0", VLAN: 4094, MAC: "02:00:00:00:00:02", Port: "veth2", Static: true},
		},
		FS: []api.FDBStats{{Bridge: "br0", Entries: 3, Static: 1, Size: 8192, Aging: 60, Learned: 100, Expired: 97, Moved: 2,
			Moves: []api.FDBMove{{VLAN: 10, MAC: "02:00:00:00:00:01", From: "veth1", To: "veth2", Count: 2, Last: at(time.Second)}}},
			{Bridge: "br1", Size: 8192}},
		Flushed: 2,
		D: []api.Drop{
			{Bridge: "br0", Port: "veth1", Reason: "vlan-denied", Count: 18, LastSeen: at(2 * time.Hour),
				Help: "the frame's VLAN is not one the port carries; set tag= or trunks= of the port, or mend the sender, whichever was not meant to be so"},
			{Bridge: "br0", Port: "veth1", Reason: "ring-full", Count: 2, LastSeen: at(2 * time.Second),
				Help: "the port's device takes frames more slowly than they come; tx-ring= makes the queue longer"},
		},
		B: []api.BridgeStats{{Bridge: "br0", Counters: br0.Counters, Ports: []api.PortStats{
			{Port: "br0", Counters: br0.Ports[0].Counters}, {Port: "veth1", Counters: br0.Ports[2].Counters}}}},
		W: []api.WorkerStats{
			{Worker: 0, Ports: []string{"br0", "veth1"}, Batches: 1000, Frames: 12345, MeanBatch: 12.345, Busy: 0.1234, Spinning: 0.05, Wakeups: 900, Buffers: 4096, Free: 4000},
			{Worker: 1},
		},
	}
}

func TestGolden(t *testing.T) {
	golden(t, newCLI(t), map[string][]string{
		"show":           {"show"},
		"show-br1":       {"show", "br1"},
		"show-json":      {"show", "br1", "-o", "json"},
		"show-yaml":      {"show", "br1", "-o", "yaml"},
		"list-br":        {"list-br"},
		"list-ports":     {"list-ports", "br0"},
		"list-br-json":   {"list-br", "-o", "json"},
		"drops":          {"drops"},
		"fdb-show":       {"fdb", "show", "br0"},
		"fdb-show-all":   {"fdb", "show"},
		"fdb-show-yaml":  {"fdb", "show", "vlan=10", "-o", "yaml"},
		"fdb-stats":      {"fdb", "stats"},
		"fdb-flush":      {"fdb", "flush", "br0", "port=veth1"},
		"mirror-list":    {"mirror", "list"},
		"stats":          {"stats", "br0"},
		"workers":        {"stats", "workers"},
		"history":        {"history"},
		"diff":           {"diff", "-f", "-"},
		"diff-json":      {"diff", "-f", "-", "-o", "json"},
		"apply":          {"apply", "-f", "-"},
		"confirm":        {"confirm"},
		"rollback":       {"rollback", "7"},
		"export":         {"export"},
		"export-json":    {"export", "-o", "json"},
		"version":        {"version"},
		"version-yaml":   {"version", "-o", "yaml"},
		"help":           {"help"},
		"mirror-list-br": {"mirror", "list", "br1", "-o", "json"},
	})
}

// golden holds what commands print to the files of testdata.
func golden(t *testing.T, c *cli, commands map[string][]string) {
	doc := "bridges: []\n"
	for name, args := range commands {
		t.Run(name, func(t *testing.T) {
			code, out, errs := c.run(doc, args...)
			if code != exitDone || errs != "" {
				t.Fatalf("exit %d, stderr %q", code, errs)
			}
			out = strings.ReplaceAll(out, c.socket, "SOCKET")
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(out), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if out != string(want) {
				t.Errorf("got:\n%s\nwant:\n%s", out, want)
			}
			if slices.Contains(args, "json") && !json.Valid([]byte(out)) {
				t.Error("not JSON")
			}
			for _, line := range strings.Split(out, "\n") {
				if n := len([]rune(line)); n > width && !slices.Contains(args, "-o") && !strings.HasPrefix(name, "help") {
					t.Errorf("%d columns: %s", n, line)
				}
			}
		})
	}
}

// Every verb's JSON is YAML of the same content under -o yaml.
func TestYAMLIsTheSameAsJSON(t *testing.T) {
	c := newCLI(t)
	for _, verb := range []string{"show", "drops", "fdb show", "fdb stats", "stats", "stats workers", "history", "mirror list", "version", "list-br", "export"} {
		args := strings.Fields(verb)
		_, j, _ := c.run("", append(args, "-o", "json")...)
		_, y, _ := c.run("", append(args, "-o", "yaml")...)
		var fromJSON, fromYAML any
		if err := yaml.Unmarshal([]byte(j), &fromJSON); err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		if err := yaml.Unmarshal([]byte(y), &fromYAML); err != nil {
			t.Fatalf("%s: %v", verb, err)
		}
		if !reflect.DeepEqual(fromJSON, fromYAML) {
			t.Errorf("%s differs:\n%s\n%s", verb, j, y)
		}
	}
}

func TestEdits(t *testing.T) {
	c := newCLI(t)
	c.svc.R = api.EditResult{Version: 9, Changed: true}
	kv := config.Options{"tag": "10", "ip": ""}
	for _, tc := range []struct {
		args string
		want config.Op
	}{
		{"add-br br2 tag=10 ip=", config.Op{Op: "add-bridge", Bridge: "br2", Options: kv}},
		{"add-br br2 --may-exist", config.Op{Op: "add-bridge", Bridge: "br2", MayExist: true}},
		{"del-br br2", config.Op{Op: "del-bridge", Bridge: "br2"}},
		{"--if-exists del-br br2", config.Op{Op: "del-bridge", Bridge: "br2", IfExists: true}}, // ovs-vsctl's place for it
		{"-o table --may-exist --timeout=5s add-br br2 tag=10 ip=", config.Op{Op: "add-bridge", Bridge: "br2", Options: kv, MayExist: true}},
		{"--may-exist fdb add br0 02:00:00:00:00:01 veth1", config.Op{Op: "add-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", Port: "veth1", MayExist: true}},
		{"--may-exist del-br br2", config.Op{}}, // not a flag of this verb
		{"del-br --if-exists br2", config.Op{Op: "del-bridge", Bridge: "br2", IfExists: true}},
		{"set-br br0 tag=10 ip=", config.Op{Op: "set-bridge", Bridge: "br0", Options: kv}},
		{"add-port br0 veth1 tag=10 ip=", config.Op{Op: "add-port", Bridge: "br0", Port: "veth1", Options: kv}},
		{"add-port br0 t0 type=tap --may-exist", config.Op{Op: "add-port", Bridge: "br0", Port: "t0", Options: config.Options{"type": "tap"}, MayExist: true}},
		{"add-port br0 m select=a=b", config.Op{Op: "add-port", Bridge: "br0", Port: "m", Options: config.Options{"select": "a=b"}}},
		{"del-port veth1", config.Op{Op: "del-port", Port: "veth1"}},
		{"del-port br0 veth1 --if-exists", config.Op{Op: "del-port", Bridge: "br0", Port: "veth1", IfExists: true}},
		{"set-port veth1 tag=10 ip=", config.Op{Op: "set-port", Port: "veth1", Options: kv}},
		{"fdb add br0 02:00:00:00:00:01 veth1", config.Op{Op: "add-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", Port: "veth1"}},
		{"fdb add br0 02:00:00:00:00:01 veth1 vlan=7 --may-exist", config.Op{Op: "add-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", Port: "veth1", VLAN: 7, MayExist: true}},
		{"fdb del br0 02:00:00:00:00:01 vlan=7 --if-exists", config.Op{Op: "del-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", VLAN: 7, IfExists: true}},
		{"mirror add br0 m0 tag=10 ip=", config.Op{Op: "add-mirror", Bridge: "br0", Mirror: "m0", Options: kv}},
		{"mesh add m1 tag=10 ip=", config.Op{Op: "add-mesh", Mesh: "m1", Options: kv}},
		{"--may-exist mesh add m1 tag=10 ip=", config.Op{Op: "add-mesh", Mesh: "m1", Options: kv, MayExist: true}},
		{"mesh set m1 peers+=h1,h2 peers-=h3 key=", config.Op{Op: "set-mesh", Mesh: "m1",
			Options: config.Options{"peers+": "h1,h2", "peers-": "h3", "key": ""}}},
		{"mesh del m1 --if-exists", config.Op{Op: "del-mesh", Mesh: "m1", IfExists: true}},
		{"mesh del m1 --may-exist", config.Op{}},
		{"mirror del br0 m0 --if-exists", config.Op{Op: "del-mirror", Bridge: "br0", Mirror: "m0", IfExists: true}},
	} {
		code, out, errs := c.run("", strings.Fields(tc.args)...)
		asked := c.svc.Asked()
		if tc.want.Op == "" {
			if code != exitUsage || len(asked) > 0 {
				t.Errorf("%s: exit %d", tc.args, code)
			}
			continue
		}
		if code != exitDone || out != "" || errs != "" {
			t.Errorf("%s: exit %d, %q, %q: want silence", tc.args, code, out, errs)
		}
		want := []any{api.Edit{Ops: []config.Op{tc.want}, Comment: "vswitchctl " + tc.args}}
		if !reflect.DeepEqual(asked, want) {
			t.Errorf("%s: asked %+v, want %+v", tc.args, asked, want)
		}
	}
}

func TestPortThatWaitsIsNoFailure(t *testing.T) {
	c := newCLI(t)
	c.svc.R = api.EditResult{Version: 9, Changed: true, Ports: []api.PortStatus{
		{Name: "veth9", State: api.PortWaiting, Reason: "interface veth9 does not exist"},
		{Name: "veth8", State: api.PortError, Reason: "open packet socket on veth8: operation not permitted"},
		{Name: "veth7", State: api.PortDown, Reason: "no carrier"},
		{Name: "veth6", State: api.PortWaiting, Reason: "its peer is missing; add it"},
	}}
	ports := c.svc.R.Ports
	want := "veth9: waiting: interface veth9 does not exist; it will be attached when it appears\n" +
		"veth8: error: open packet socket on veth8: operation not permitted; it is tried again\n" +
		"veth6: waiting: its peer is missing; add it\n"
	code, out, errs := c.run("", "add-port", "br0", "veth9")
	if code != exitDone || out != "" || errs != want {
		t.Errorf("exit %d, stdout %q, stderr:\n%s", code, out, errs)
	}
	// A patch port waits for its peer, not for an interface.
	c.svc.R.Ports = []api.PortStatus{{Name: "p0", Type: "patch", State: api.PortWaiting, Reason: "its peer p1 does not exist"}}
	if _, _, errs := c.run("", "add-port", "br0", "p0", "type=patch", "peer=p1"); errs != "p0: waiting: its peer p1 does not exist; it comes up when the peer is added\n" {
		t.Errorf("%q", errs)
	}
	c.svc.R.Ports = ports
	code, out, errs = c.run("", "add-port", "br0", "veth9", "-o", "json")
	var r api.EditResult
	if err := json.Unmarshal([]byte(out), &r); err != nil || r.Version != 9 || code != exitDone || errs != want {
		t.Errorf("exit %d, stdout %q, stderr:\n%s", code, out, errs)
	}
}

func TestMirrorThatFailsIsSaid(t *testing.T) {
	c := newCLI(t)
	c.svc.R = api.EditResult{Version: 9, Changed: true, Mirrors: []api.MirrorStatus{
		{Bridge: "br0", Name: "m0", State: "error", Reason: "open capture file: open /full/m0.pcapng: permission denied"}}}
	code, out, errs := c.run("", "mirror", "add", "br0", "m0", "select_all=true", "output_pcap=/full/m0.pcapng")
	if code != exitDone || out != "" || errs != "mirror m0 of br0: error: open capture file: open /full/m0.pcapng: permission denied\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

// A refusal names the verb that was typed, not the API's operation.
func TestRefusalNamesTheVerb(t *testing.T) {
	c := newCLI(t)
	for _, tc := range []struct {
		args, want string
		op         config.Op
	}{
		{"add-br br0", "add-br br0: ", config.Op{Op: "add-bridge", Bridge: "br0"}},
		{"del-br br9", "del-br br9: ", config.Op{Op: "del-bridge", Bridge: "br9"}},
		{"set-br br9 ip=", "set-br br9: ", config.Op{Op: "set-bridge", Bridge: "br9"}},
		{"fdb add br9 02:00:00:00:00:01 x", "fdb add br9 02:00:00:00:00:01 x: ", config.Op{Op: "add-fdb", Bridge: "br9", MAC: "02:00:00:00:00:01", Port: "x"}},
		{"mesh set m9 key=1", "mesh set m9: ", config.Op{Op: "set-mesh", Mesh: "m9"}},
		{"mesh add m1 bridge=br9 peers=a", "mesh add m1: ", config.Op{Op: "add-mesh", Mesh: "m1", Options: config.Options{"bridge": "br9", "peers": "a"}}},
		{"mirror del br0 m9", "mirror del br0 m9: ", config.Op{Op: "del-mirror", Bridge: "br0", Mirror: "m9"}},
		{"set-port br0 ip=10.0.0.1/24", `set-port br0: "br0" is the local port of its bridge: set-br br0 sets its options, `, config.Op{Op: "set-port", Port: "br0"}},
	} {
		_, err := config.Apply(config.Document{Bridges: []config.Bridge{{Name: "br0"}}}, []config.Op{tc.op})
		if err == nil {
			t.Fatalf("%s is not refused", tc.args)
		}
		c.svc.Fail(&api.Error{Status: 400, Message: err.Error()})
		if code, _, errs := c.run("", strings.Fields(tc.args)...); code != exitRefused || !strings.HasPrefix(errs, "vswitchctl: "+tc.want) {
			t.Errorf("%s: exit %d, %q, want %q", tc.args, code, errs, tc.want)
		}
	}
}

func TestNothingKnown(t *testing.T) {
	c := newCLI(t)
	c.svc.F = nil
	if _, out, _ := c.run("", "fdb", "show"); !strings.HasPrefix(out, "no MAC is known") {
		t.Errorf("%q", out)
	}
	if _, out, _ := c.run("", "fdb", "show", "br0", "vlan=10"); out != "no MAC matches\n" {
		t.Errorf("%q", out)
	}
	if _, out, _ := c.run("", "fdb", "show", "-o", "json"); out != "[]\n" {
		t.Errorf("%q", out)
	}
}

// A local port is idle without an address, and in trouble with one.
func TestLocalPortThatIsDown(t *testing.T) {
	c := newCLI(t)
	local := &c.svc.S.Bridges[1].Ports[0]
	local.Options = map[string]any{"ip": "10.0.0.1/24"}
	if _, out, _ := c.run("", "show", "br1"); !strings.Contains(out, "1 port, 1 NOT UP") || !strings.Contains(out, "DOWN") {
		t.Errorf("%s", out)
	}
	local.Options, local.State = nil, api.PortError
	if _, out, _ := c.run("", "show", "br1"); !strings.Contains(out, "1 port, 1 NOT UP") || !strings.Contains(out, "ERROR") {
		t.Errorf("%s", out)
	}
}

func TestExitStatus(t *testing.T) {
	c := newCLI(t)
	none := &cli{socket: filepath.Join(t.TempDir(), "none")}
	silent := &cli{socket: filepath.Join(t.TempDir(), "silent")}
	ln, err := net.Listen("unix", silent.socket)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	for _, tc := range []struct {
		cli  *cli
		args string
		code int
		want string // in stderr
	}{
		{c, "show", exitDone, ""},
		{c, "show nope", exitRefused, `no bridge "nope"`},
		{c, "apply -f /does/not/exist", exitRefused, "/does/not/exist: no such file"},
		{c, "", exitUsage, "a verb is missing"},
		{c, "shwo", exitUsage, `unknown verb "shwo"; did you mean "show"?`},
		{c, "addport br0 veth1", exitUsage, `did you mean "add-port"?`},
		{c, "quux", exitUsage, "there are: add-br, add-port"},
		{c, "fdb", exitUsage, "there are: add, del, flush, show, stats"},
		{c, "fdb shwo", exitUsage, `unknown verb "shwo" of fdb; did you mean "show"?`},
		{c, "mirror purge br0 m0", exitUsage, "there are: add, del, list"},
		{c, "mirror remove br0 m0", exitUsage, `did you mean "del"?`},
		{c, "ls", exitUsage, `unknown verb "ls"; did you mean "list-br" or "show"?`},
		{c, "add-bridge br0", exitUsage, `did you mean "add-br"?`},
		{c, "fdb ls", exitUsage, `did you mean "show"?`},
		{c, "set br0 ip=", exitUsage, `did you mean "set-br" or "set-port"?`},
		{c, "fdb add br0 02:00:00:00:00:01 port=veth1", exitUsage,
			`"port=veth1": PORT is a bare word here: vswitchctl fdb add br0 02:00:00:00:00:01 veth1`},
		{c, "fdb del br0 mac=02:00:00:00:00:01", exitUsage, `MAC is a bare word here: vswitchctl fdb del br0 02:00:00:00:00:01`},
		{c, "--may-exist show", exitUsage, "unknown flag: --may-exist"},
		{c, "help shwo", exitUsage, `did you mean "show"?`},
		{c, "show --colour", exitUsage, "unknown flag: --colour"},
		{c, "show a b", exitUsage, `"b" is one argument too many`},
		{c, "add-port br0", exitUsage, "usage: vswitchctl add-port BR NAME [k=v…]"},
		{c, "add-port br0 veth1 tag", exitUsage, `"tag" is not of the form option=value`},
		{c, "add-port br0 veth1 =10", exitUsage, `"=10" is not of the form`},
		{c, "add-port br0 veth1 tag=1 tag=2", exitUsage, "option tag is given twice"},
		{c, "set-br br0", exitUsage, "arguments are missing"},
		{c, "fdb show br0 vlan=5000", exitUsage, "a VLAN from 0 (untagged) to 4094"},
		{c, "fdb show br0 color=red", exitUsage, "not one of port=, mac= and vlan="},
		{c, "fdb add br0 02:00:00:00:00:01 veth1 10", exitUsage, `"10" is not vlan=N`},
		{c, "apply", exitUsage, "-f FILE"},
		{c, "apply -f - --confirm soon", exitUsage, "from 1s to 24h"},
		{c, "rollback latest", exitUsage, "`vswitchctl history` lists them"},
		{c, "monitor --kind nope", exitUsage, `--kind "nope"`},
		{c, "completion tcsh", exitUsage, "bash, zsh and fish"},
		{c, "show -o xml", exitUsage, "table, json or yaml"},
		{c, "show --timeout 0s", exitUsage, "above zero"},
		{none, "show", exitUnreachable, "systemctl start vswitchd"},
		{none, "add-br br0", exitUnreachable, "systemctl start vswitchd"},
		{none, "monitor", exitUnreachable, "systemctl start vswitchd"},
		{none, "version", exitUnreachable, "systemctl start vswitchd"},
		{none, "add-br", exitUsage, "usage: vswitchctl add-br"},
		{silent, "show --timeout 100ms", exitUnreachable, "did not answer within 100ms"},
		{silent, "monitor --timeout 100ms", exitUnreachable, "did not answer within 100ms"},
	} {
		begun := time.Now()
		code, _, errs := tc.cli.run("", strings.Fields(tc.args)...)
		if code != tc.code || !strings.Contains(errs, tc.want) {
			t.Errorf("%q: exit %d, stderr %q; want %d with %q", tc.args, code, errs, tc.code, tc.want)
		}
		if d := time.Since(begun); d > 5*time.Second {
			t.Errorf("%q took %s", tc.args, d)
		}
	}
}

// What the daemon says of an option reaches the user as it is.
func TestRefusalPassesUnchanged(t *testing.T) {
	c := newCLI(t)
	doc := config.Document{Bridges: []config.Bridge{{Name: "br0"}}}
	_, err := config.Apply(doc, []config.Op{{Op: "add-port", Bridge: "br0", Port: "veth1", Options: config.Options{"tga": "10"}}})
	if err == nil || !strings.Contains(err.Error(), `unknown option "tga" for port type packet; did you mean "tag"?`) {
		t.Fatalf("the configuration says %v", err)
	}
	c.svc.Fail(err)
	code, out, errs := c.run("", "add-port", "br0", "veth1", "tga=10")
	if code != exitRefused || out != "" || errs != "vswitchctl: "+err.Error()+"\n" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
	c.svc.Fail(errors.New("line one\nline two \x1b[2J"))
	if _, _, errs := c.run("", "confirm"); errs != "vswitchctl: line one\nline two ?[2J\n" {
		t.Errorf("%q", errs)
	}
}

func TestApply(t *testing.T) {
	c := newCLI(t)
	c.svc.R = api.EditResult{Version: 9, Changed: true, Confirm: &api.PendingConfirm{Version: 9, Previous: 8, Deadline: now.Add(time.Minute)}}
	file := filepath.Join(t.TempDir(), "d.yaml")
	os.WriteFile(file, []byte("bridges:\n  - name: br0\n"), 0o600)
	code, out, _ := c.run("", "apply", "-f", file, "--confirm", "60s")
	want := []any{apitest.Applied{Doc: config.Document{Bridges: []config.Bridge{{Name: "br0"}}},
		O: api.ApplyOptions{Confirm: time.Minute, Comment: "vswitchctl apply -f " + file + " --confirm 60s"}}}
	if asked := c.svc.Asked(); code != 0 || !reflect.DeepEqual(asked, want) {
		t.Errorf("exit %d, asked %+v, want %+v", code, asked, want)
	}
	if out != "version 9: 0 changes\ngoes back to version 8 in 1m00s (2026-07-01 03:15:15 UTC) unless `vswitchctl confirm` comes\n" {
		t.Errorf("%q", out)
	}
	code, _, errs := c.run("bridges:\n  - nam: br0\n", "apply", "-f", "-")
	if code != exitRefused || !strings.Contains(errs, "line 2") {
		t.Errorf("exit %d, %q", code, errs)
	}
	c.svc.R = api.EditResult{Version: 9, Changed: true, Changes: slices.Repeat([]config.Change{{What: "add", Path: "bridges[x]"}}, 123)}
	if _, out, _ := c.run("bridges: []", "apply", "-f", "-"); strings.Count(out, "\n") != mostChanges+2 || !strings.HasSuffix(out, "+ bridges[x]\nand 103 changes more\n") {
		t.Errorf("%q", out)
	}
	c.svc.R = api.EditResult{Version: 9}
	if _, out, _ := c.run("bridges: []", "apply", "-f", "-"); out != "version 9: nothing to change\n" {
		t.Errorf("%q", out)
	}
	if _, out, _ := c.run("bridges: []", "diff", "-f", "-"); out != "" {
		t.Errorf("%q", out)
	}
	c.svc.Asked()
	// One byte too many is refused by the daemon, without a hang.
	if code, _, errs := c.run(strings.Repeat(" ", config.MaxDocument+100), "apply", "-f", "-"); code != exitRefused || !strings.Contains(errs, "too large") {
		t.Errorf("exit %d, %q", code, errs)
	}
}

func TestMonitor(t *testing.T) {
	c := newCLI(t)
	e := api.Event{Time: now, Kind: "port-waiting", Bridge: "br0", Port: "veth9", Message: "port veth9 of br0 is waiting"}
	for _, tc := range []struct{ format, want string }{
		{"table", "2026-07-01 03:14:15.000  port-waiting  br0       port veth9 of br0 is waiting\n"},
		{"json", `{"time":"2026-07-01T03:14:15Z","kind":"port-waiting","bridge":"br0","port":"veth9","message":"port veth9 of br0 is waiting"}` + "\n"},
		{"yaml", "---\ntime: \"2026-07-01T03:14:15Z\"\nkind: port-waiting\nbridge: br0\nport: veth9\nmessage: port veth9 of br0 is waiting\n"},
	} {
		ctx, interrupt := context.WithCancel(context.Background())
		out := &tee{line: make(chan struct{}, 1)}
		a := &app{in: strings.NewReader(""), out: out, err: out, now: func() time.Time { return now }, getenv: func(string) string { return c.socket }}
		code := make(chan int, 1)
		go func() { code <- a.run(ctx, []string{"monitor", "br0", "-o", tc.format}) }() // ends with interrupt
		for c.svc.Publish(e) == 0 {
			time.Sleep(time.Millisecond)
		}
		<-out.line
		interrupt()
		if got := <-code; got != exitDone || out.String() != tc.want {
			t.Errorf("%s: exit %d, %q, want %q", tc.format, got, out.String(), tc.want)
		}
		deadline := time.Now().Add(10 * time.Second)
		for c.svc.Subscribers() > 0 && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
	}
}

// tee is a buffer that tells of its first write.
type tee struct {
	bytes.Buffer
	line chan struct{}
}

func (t *tee) Write(b []byte) (int, error) {
	n, err := t.Buffer.Write(b)
	select {
	case t.line <- struct{}{}:
	default:
	}
	return n, err
}

func TestVersionWithoutDaemon(t *testing.T) {
	c := &cli{socket: filepath.Join(t.TempDir(), "none")}
	code, out, errs := c.run("", "version")
	if code != exitUnreachable || out != "vswitchctl devel\n" || errs == "" {
		t.Errorf("exit %d, %q, %q", code, out, errs)
	}
}

// Every verb has an example, and its line in docs/vswitchctl.md.
func TestEveryVerbHasAnExample(t *testing.T) {
	a := &app{getenv: func(string) string { return "" }}
	page, err := os.ReadFile("../../docs/vswitchctl.md")
	if err != nil {
		t.Fatal(err)
	}
	var walk func(*cobra.Command)
	walk = func(cmd *cobra.Command) {
		if cmd.Example == "" || cmd.Short == "" {
			t.Errorf("%s has no example, or no short text", cmd.CommandPath())
		}
		if !strings.Contains(cmd.Example, "vswitchctl ") {
			t.Errorf("%s: its example does not show it: %s", cmd.CommandPath(), cmd.Example)
		}
		line := strings.TrimPrefix(cmd.CommandPath(), "vswitchctl ")
		if _, args, _ := strings.Cut(cmd.Use, " "); args != "" {
			line += " " + strings.ReplaceAll(args, "|", `\|`)
		}
		if cmd.HasParent() && !strings.HasSuffix(cmd.Use, " VERB") && !strings.Contains(string(page), "| `"+line) {
			t.Errorf("docs/vswitchctl.md has no line of `%s`", line)
		}
		for _, sub := range cmd.Commands() {
			walk(sub)
		}
	}
	root := a.root()
	root.InitDefaultHelpCmd()
	walk(root)
	for _, verb := range strings.Fields("add-br del-br list-br set-br show add-port del-port list-ports set-port fdb mirror tunnel mesh drops stats " +
		"export apply confirm diff history rollback monitor version completion help") {
		if cmd, _, err := root.Find([]string{verb}); err != nil || cmd.Name() != verb {
			t.Errorf("no verb %s", verb)
		}
	}
}

func TestCompletion(t *testing.T) {
	c := newCLI(t)
	none := &cli{socket: filepath.Join(t.TempDir(), "none")}
	for _, tc := range []struct {
		cli  *cli
		args []string // the last is what is typed
		want []string // among the offers
		not  []string
	}{
		{c, []string{"add-p"}, []string{"add-port"}, []string{"add-br"}},
		{c, []string{"fdb", ""}, []string{"show", "flush"}, nil},
		{c, []string{"show", ""}, []string{"br0", "br1"}, nil},
		{c, []string{"show", "br0", ""}, nil, []string{"br0"}},
		{c, []string{"del-port", "br0", "v"}, []string{"veth1", "veth9"}, []string{"br1"}},
		{c, []string{"del-port", ""}, []string{"veth1", "br0"}, nil},
		{c, []string{"set-port", "veth1", "t"}, []string{"tag=", "trunks="}, []string{"offload="}},
		{c, []string{"set-port", "veth1", "tag=1", "t"}, []string{"trunks="}, []string{"tag="}},
		{c, []string{"add-port", "br0", "x", ""}, []string{"type=", "tag="}, []string{"peer=", "type=tap", "offload=true"}},
		{c, []string{"add-port", "br0", "x", "type="}, []string{"type=tap", "type=patch"}, []string{"tag="}},
		{c, []string{"add-port", "br0", "x", "type=tap", ""}, []string{"owner="}, []string{"peer=", "type="}},
		{c, []string{"add-port", "br0", "x", "vlan_mode=n"}, []string{"vlan_mode=native-tagged"}, []string{"vlan_mode=access"}},
		{c, []string{"add-br", "br9", "mac-a"}, []string{"mac-aging-time="}, nil},
		{c, []string{"mirror", "del", "br0", ""}, []string{"m0", "m1"}, nil},
		{c, []string{"mirror", "add", "br0", "m2", "output_port="}, []string{"output_port=veth1"}, nil},
		{c, []string{"fdb", "show", "br0", "port=v"}, []string{"port=veth1"}, nil},
		{c, []string{"rollback", ""}, []string{"8", "7"}, nil},
		{c, []string{"monitor", "--kind", "port"}, []string{"port-up"}, nil},
		{c, []string{"show", "-o", ""}, []string{"json", "yaml"}, nil},
		{none, []string{"show", ""}, nil, []string{"br0"}},
		{none, []string{"set-br", "br0", "mac-t"}, []string{"mac-table-size="}, nil},
	} {
		_, out, _ := tc.cli.run("", append([]string{"__complete"}, tc.args...)...)
		var offers []string
		for _, line := range strings.Split(out, "\n") {
			word, _, _ := strings.Cut(line, "\t")
			offers = append(offers, word)
		}
		for _, w := range tc.want {
			if !slices.Contains(offers, w) {
				t.Errorf("%q: %q is not among %q", tc.args, w, offers)
			}
		}
		for _, w := range tc.not {
			if slices.Contains(offers, w) {
				t.Errorf("%q: %q is among %q", tc.args, w, offers)
			}
		}
	}
	for _, shell := range []string{"bash", "zsh", "fish"} {
		if code, out, _ := none.run("", "completion", shell); code != 0 || !strings.Contains(out, "vswitchctl") {
			t.Errorf("%s: exit %d", shell, code)
		}
	}
}

// The options come from the configuration's table: --help lists what it has.
func TestHelpListsOptions(t *testing.T) {
	c := newCLI(t)
	for verb, object := range map[string]config.Object{"add-br": config.BridgeObject, "set-br": config.BridgeObject,
		"add-port": config.TapPort, "set-port": config.PatchPort, "mirror add": config.MirrorObject,
		"mesh add": config.MeshObject, "mesh set": config.MeshObject} {
		_, out, _ := c.run("", append(strings.Fields(verb), "--help")...)
		for _, o := range config.OptionsFor(object) {
			if !strings.Contains(out, "\n  "+o.Name+"=") {
				t.Errorf("%s --help does not list %s", verb, o.Name)
			}
		}
	}
}

// Answers stand in the sum where there are any.
func TestStatsWithAnswers(t *testing.T) {
	text := statsText([]api.BridgeStats{{Bridge: "br0", Counters: api.BridgeCounters{Received: 5, Answers: 2, Sent: 6}}})
	if want := "br0\n  received 5 + copied 0 (flood 0, mirror 0, split 0) + answered 2 = sent 6 + dropped 0 + in flight 1\n"; !strings.HasPrefix(text, want) {
		t.Errorf("got %s want %s", text, want)
	}
}

func TestShort(t *testing.T) {
	for n, want := range map[uint64]string{0: "0", 99999: "99999", 100000: "100k", 999499: "999k", 999999: "1.0M", 12345678: "12.3M",
		1234567890: "1.2G", 18446744073709551615: "18.4E"} {
		if got := short(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
