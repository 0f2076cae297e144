package main

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

// overlay is a host of a mesh of which not all is well.
func overlay() *apitest.Service {
	at := func(d time.Duration) time.Time { return now.Add(-d) }
	ago := func(d time.Duration) *time.Time { t := at(d); return &t }
	key := func(n uint32) *uint32 { return &n }
	up := &api.BFDStatus{State: "up", RemoteState: "up", Diag: "No Diagnostic", MinRx: 300, MinTx: 300, Flaps: 1, Since: at(time.Hour)}
	down := &api.BFDStatus{State: "down", RemoteState: "down", Diag: "Control Detection Time Expired", Flaps: 4, Since: at(42 * time.Second)}
	tunnels := []api.TunnelStatus{
		{Bridge: "br0", Port: "m1:host2", Type: "vxlan", Mesh: "m1", Endpoint: "vxlan 0.0.0.0:4789", Remote: "host2", RemoteAddr: "192.0.2.2",
			InKey: key(10), OutKey: key(10), PathMTU: 1500, MTU: 1450, State: api.PortUp, Since: at(time.Hour), BFD: up, LastHeard: ago(100 * time.Millisecond),
			Counters: api.PortCounters{RxFrames: 1200, RxBytes: 98000, TxFrames: 98765432, TxBytes: 9876543210}},
		{Bridge: "br0", Port: "m1:host3", Type: "vxlan", Mesh: "m1", Endpoint: "vxlan 0.0.0.0:4789", Remote: "host3", RemoteAddr: "192.0.2.3",
			InKey: key(10), OutKey: key(10), PathMTU: 1500, MTU: 1450, State: api.PortDown, Reason: "BFD is down: Control Detection Time Expired", Since: at(42 * time.Second),
			BFD: down, LastHeard: ago(43 * time.Second)},
		{Bridge: "br0", Port: "m1:host4", Type: "vxlan", Mesh: "m1", Remote: "host4", InKey: key(10), OutKey: key(10),
			State: api.PortError, Reason: "look up host4: no such host", Since: at(3 * time.Minute)},
		{Bridge: "br1", Port: "gre6", Type: "gre", Endpoint: "gre fd00::1", Remote: "fd00::2", RemoteAddr: "fd00::2", LocalAddr: "fd00::1",
			InKey: key(1), OutKey: key(2), PathMTU: 9000, MTU: 8938, State: api.PortUp},
	}
	port := func(i int) api.PortStatus {
		s := tunnels[i]
		p := api.PortStatus{Name: s.Port, Type: s.Type, State: s.State, Reason: s.Reason, Since: s.Since, Counters: s.Counters,
			Options: map[string]any{"remote_ip": s.Remote, "key": 10, "bfd_enable": true, "ttl": 9, "tag": 5}}
		s.Bridge, s.Port, s.Type, s.State, s.Reason, s.Since, s.Counters = "", "", "", "", "", time.Time{}, api.PortCounters{}
		p.Tunnel = &s
		return p
	}
	peer := func(name string, i int) api.MeshPeer {
		s := tunnels[i]
		return api.MeshPeer{Peer: name, Address: s.RemoteAddr, Port: s.Port, State: s.State, Reason: s.Reason, Since: s.Since, BFD: s.BFD, LastHeard: s.LastHeard}
	}
	return &apitest.Service{
		S: api.Status{ConfigVersion: 3, Bridges: []api.BridgeStatus{
			{Name: "br0", FDB: api.FDBStats{Entries: 3, Size: 8192}, Ports: []api.PortStatus{port(0), port(1), port(2),
				{Name: "m1:host1", Type: "vxlan", State: api.PortSelf, Reason: "192.0.2.1 is this host"}},
				Flaps: []api.FDBFlap{{VLAN: 5, MAC: "02:00:00:00:00:01", Held: "veth1", Other: "m1:host2", Count: 3, Until: now.Add(8 * time.Second)}}},
			{Name: "br1", FDB: api.FDBStats{Size: 8192}, Ports: []api.PortStatus{port(3)}},
			{Name: "br2"},
		}},
		T: tunnels,
		M: []api.MeshStatus{
			{Name: "m1", Bridge: "br0", Options: map[string]any{"bridge": "br0", "key": 10, "peers": "host1,host2,host3,host4"},
				Peers: []api.MeshPeer{{Peer: "host1", Address: "192.0.2.1", State: api.PortSelf}, peer("host2", 0), peer("host3", 1), peer("host4", 2)}},
			{Name: "m2", Bridge: "br1", Options: map[string]any{"bridge": "br1", "peers": "host1"},
				Peers: []api.MeshPeer{{Peer: "host1", Address: "192.0.2.1", State: api.PortSelf}}},
		},
		D: []api.Drop{
			{Port: "vxlan 0.0.0.0:4789", Reason: "tunnel-unknown-source", Source: "192.0.2.9 key 42", Count: 7, LastSeen: at(time.Second),
				Help: "no tunnel port has this remote_ip and key; add one, or mend the sender"},
			{Bridge: "br0", Port: "m1:host2", Reason: "mtu-exceeded", Count: 2, LastSeen: at(2 * time.Second), Help: "the frame is larger than what leaves the port may be"},
		},
	}
}

func newOverlay(t *testing.T) *cli {
	t.Helper()
	c := &cli{svc: overlay(), socket: filepath.Join(t.TempDir(), "ctl.sock")}
	stop, err := apitest.Serve(c.svc, c.socket, api.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return c
}

func TestGoldenTunnels(t *testing.T) {
	golden(t, newOverlay(t), map[string][]string{
		"tunnel-show":      {"tunnel", "show"},
		"tunnel-show-br1":  {"tunnel", "show", "br1"},
		"tunnel-show-port": {"tunnel", "show", "m1:host2", "-o", "json"},
		"tunnel-show-yaml": {"tunnel", "show", "br1", "-o", "yaml"},
		"mesh-show":        {"mesh", "show"},
		"mesh-show-json":   {"mesh", "show", "m2", "-o", "json"},
		"show-tunnels":     {"show"},
		"drops-source":     {"drops"},
		"help-mesh-set":    {"mesh", "set", "--help"},
	})
}

func TestTunnelShowOfNothing(t *testing.T) {
	c := newOverlay(t)
	if code, out, errs := c.run("", "tunnel", "show", "br2"); code != exitDone || !strings.HasPrefix(out, "no tunnels; ") {
		t.Errorf("a bridge without tunnels: exit %d, %q, %q", code, out, errs)
	}
	if code, out, _ := c.run("", "tunnel", "show", "br2", "-o", "json"); code != exitDone || out != "[]\n" {
		t.Errorf("the same in JSON: exit %d, %q", code, out)
	}
	if code, _, errs := c.run("", "tunnel", "show", "nope"); code != exitRefused || errs != "vswitchctl: no bridge and no tunnel port is named \"nope\"\n" {
		t.Errorf("neither bridge nor port: exit %d, %q", code, errs)
	}
	if code, _, errs := c.run("", "mesh", "show", "nope"); code != exitRefused || errs != "vswitchctl: no mesh \"nope\"\n" {
		t.Errorf("no mesh: exit %d, %q", code, errs)
	}
	c.svc.M = nil
	if code, out, _ := c.run("", "mesh", "show"); code != exitDone || !strings.HasPrefix(out, "no meshes; ") {
		t.Errorf("no meshes: exit %d, %q", code, out)
	}
}

// The table says everything in its columns while they fit.
func TestTunnelTableWhenNarrow(t *testing.T) {
	a := &app{now: func() time.Time { return now }}
	s := overlay().T[:1]
	s[0].Port, s[0].Counters, s[0].BFD = "m", api.PortCounters{}, nil
	if text := a.tunnelsText(s); !strings.Contains(text, "ENDPOINT") || strings.Contains(text, "endpoint") {
		t.Errorf("narrow:\n%s", text)
	}
	s[0].Port = strings.Repeat("m", 63)
	if text := a.tunnelsText(s); strings.Contains(text, "ENDPOINT") || !strings.Contains(text, "endpoint vxlan 0.0.0.0:4789") {
		t.Errorf("wide:\n%s", text)
	}
}

// A session that is not up is told of once: in the reason, or beside it.
func TestTroubleOfATunnel(t *testing.T) {
	a := &app{now: func() time.Time { return now }}
	bfd := &api.BFDStatus{State: "init", Since: now.Add(-time.Minute), RemoteState: "down", RemoteDiag: "Path Down"}
	for _, tc := range []struct {
		state, reason string
		want          []string
	}{
		{api.PortUp, "", []string{"BFD: INIT for 1m00s; the other end says down: Path Down"}},
		{api.PortError, "no route", []string{"for 2m00s: no route", "BFD: INIT for 1m00s; the other end says down: Path Down"}},
		{api.PortDown, "BFD is init: why", []string{"for 2m00s: BFD is init: why"}},
		{api.PortDown, "", []string{"for 2m00s: no reason given", "BFD: INIT for 1m00s; the other end says down: Path Down"}},
	} {
		if got := a.trouble(tc.state, tc.reason, now.Add(-2*time.Minute), bfd); !slices.Equal(got, tc.want) {
			t.Errorf("%s, %q: got %q", tc.state, tc.reason, got)
		}
	}
	if got := a.trouble(api.PortSelf, "it is me", now, nil); got != nil {
		t.Errorf("self: %q", got)
	}
	flapped := &api.BFDStatus{State: "up", MinTx: 100, Flaps: 3, Diag: "Control Detection Time Expired"}
	if got := a.bfdText(flapped); got != "up, every 100 ms, went down 3 times, last: Control Detection Time Expired" {
		t.Errorf("%q", got)
	}
}

func TestTunnelThatFailsIsSaid(t *testing.T) {
	c := newOverlay(t)
	c.svc.R = api.EditResult{Version: 9, Changed: true, Ports: []api.PortStatus{
		{Name: "t", Type: "vxlan", State: api.PortError, Reason: "look up host4: no such host"},
		{Name: "u", Type: "gre", State: api.PortWaiting, Reason: "no route to 192.0.2.9"},
		{Name: "m1:host1", Type: "vxlan", State: api.PortSelf}}}
	code, out, errs := c.run("", "add-port", "br0", "t", "type=vxlan", "remote_ip=host4")
	if code != exitDone || out != "" || errs != "t: error: look up host4: no such host; it is tried again\nu: waiting: no route to 192.0.2.9; it is tried again\n" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, out, errs)
	}
}

func TestCompletionOfTunnels(t *testing.T) {
	c := newOverlay(t)
	for _, tc := range []struct {
		args []string // the last is what is typed
		want []string // among the offers
		not  []string
	}{
		{[]string{"mesh", ""}, []string{"add", "set", "del", "show"}, nil},
		{[]string{"mesh", "show", ""}, []string{"m1", "m2"}, nil},
		{[]string{"mesh", "del", "m"}, []string{"m1"}, nil},
		{[]string{"mesh", "add", "m3", ""}, []string{"bridge=", "peers=", "type=", "key=", "port="}, []string{"peers+=", "peer=", "dst_port=", "m1"}},
		{[]string{"mesh", "add", "m3", "bridge="}, []string{"bridge=br0", "bridge=br2"}, nil},
		{[]string{"mesh", "add", "m3", "type="}, []string{"type=gre"}, []string{"type=tap"}},
		{[]string{"mesh", "add", "m3", "bridge=br0", "b"}, []string{"bfd_enable="}, []string{"bridge="}},
		{[]string{"mesh", "set", "m1", "peers"}, []string{"peers=", "peers+=", "peers-="}, nil},
		{[]string{"mesh", "set", "m1", "peers-="}, []string{"peers-=host2"}, nil},
		{[]string{"tunnel", "show", ""}, []string{"br0", "m1:host2", "gre6"}, nil},
		{[]string{"tunnel", "show", "br0", ""}, nil, []string{"br0"}},
		{[]string{"add-port", "br0", "x", "type="}, []string{"type=vxlan", "type=gre", "type=geneve"}, nil},
		{[]string{"add-port", "br0", "x", "type=gre", ""}, []string{"remote_ip=", "seq="}, []string{"dst_port=", "bridge=", "offload="}},
		{[]string{"add-port", "br0", "x", "type=gre", "tt"}, []string{"ttl="}, nil},
		{[]string{"add-port", "br0", "x", "type=gre", "ttl="}, []string{"ttl=inherit"}, nil},
		{[]string{"set-port", ""}, []string{"gre6"}, []string{"m1:host2"}},
		{[]string{"del-port", ""}, []string{"gre6", "br0"}, []string{"m1:host2"}},
		{[]string{"set-port", "gre6", "s"}, []string{"seq=", "storm_unknown="}, nil},
	} {
		_, out, _ := c.run("", append([]string{"__complete"}, tc.args...)...)
		offers := map[string]bool{}
		for line := range strings.Lines(out) {
			word, _, _ := strings.Cut(strings.TrimSpace(line), "\t")
			offers[word] = true
		}
		for _, w := range slices.Concat(tc.want, tc.not) {
			if offers[w] != slices.Contains(tc.want, w) {
				t.Errorf("%q: %q offered: %t, among %q", tc.args, w, offers[w], slices.Sorted(maps.Keys(offers)))
			}
		}
	}
}
