package cni

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
	"vswitch/internal/lab"
)

// The conversation with a double of the daemon: what it is asked for, and that a command
// that fails leaves nothing. lab_test.go has the daemon itself.

// double is the daemon of a test; attach is what Attach alone answers.
type double struct {
	*apitest.Service
	attach error
}

func (d *double) Attach(ctx context.Context, q api.Attachment) (api.Attached, error) {
	got, err := d.Service.Attach(ctx, q)
	if err == nil {
		err = d.attach
	}
	return got, err
}

// serve answers at a socket: bridge br0 is there, and what is attached is c1's eth0.
func serve(t *testing.T) (d *double, socket string) {
	t.Helper()
	dir, err := os.MkdirTemp("", "cni") // a socket's path is short
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	p := api.PlugStatus{Bridge: "br0", Port: "c1-0badca", State: api.PlugPlugged, MAC: "02:00:00:00:00:05", MTU: 1450,
		Addresses: []netip.Prefix{netip.MustParsePrefix("10.0.0.5/24")}, Gateways: []netip.Addr{netip.MustParseAddr("10.0.0.1")}, Names: []string{"c1"}}
	a := api.Attached{Owner: "cni/net1", Key: "c1/eth0", Plug: p}
	d = &double{Service: &apitest.Service{
		S: api.Status{Bridges: []api.BridgeStatus{{Name: "br0", Options: map[string]any{"ip": "10.0.0.1/24", "nat": "masquerade"},
			Ports: []api.PortStatus{{Name: p.Port, State: api.PortUp}}}}},
		Plugs: apitest.Plugs{AttachAnswer: a, AT: []api.Attached{a}, CO: api.Collected{Keys: []string{"c1/eth0"}}}}}
	socket = filepath.Join(dir, "s")
	stop, err := apitest.Serve(d, socket, api.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return d, socket
}

// at is a configuration for a daemon at a socket.
func at(socket, spoken, keys string) string {
	if keys != "" {
		keys = "," + keys
	}
	return fmt.Sprintf(`{"cniVersion":%q,"name":"net1","type":"vswitch-cni","bridge":"br0","socket":%q%s}`, spoken, socket, keys)
}

// of are the calls of one kind among those a double was asked for.
func of[T any](asked []any) (some []T) {
	for _, a := range asked {
		if x, ok := a.(T); ok {
			some = append(some, x)
		}
	}
	return some
}

// The words around a command, which need no daemon.
func TestWords(t *testing.T) {
	out := run{command: "VERSION"}.ok(t)
	if !strings.Contains(string(out), `["0.3.1","0.4.0","1.0.0","1.1.0"]`) {
		t.Errorf("VERSION: %s", out)
	}
	if a := (run{}).do(t); a.code != 0 || !strings.Contains(a.stderr, "vswitch-cni") {
		t.Errorf("without a command: %+v", a)
	}
	good := run{command: "ADD", id: "c1", netns: "/x", ifname: "eth0", conf: at("/nowhere", "1.1.0", "")}
	for text, c := range map[string]struct {
		change func(*run)
		code   uint
	}{
		"CNI_CONTAINERID,CNI_NETNS":   {func(r *run) { r.id, r.netns = "", "" }, 4},
		"characters in containerID":   {func(r *run) { r.id = "../x" }, 4},
		"interface name is too long":  {func(r *run) { r.ifname = "sixteen-bytes-xx" }, 4},
		"unknown CNI_COMMAND: PLUG":   {func(r *run) { r.command = "PLUG" }, 4},
		"unmarshall network config":   {func(r *run) { r.conf = "{" }, 6},
		"longer than 1048576":         {func(r *run) { r.conf += strings.Repeat(" ", maxConf) }, 7},
		"missing network name":        {func(r *run) { r.conf = "{}" }, 7},
		"incompatible CNI versions":   {func(r *run) { r.conf = at("/x", "0.2.0", "") }, 1},
		"does not allow CHECK":        {func(r *run) { r.command, r.conf = "CHECK", at("/x", "0.3.1", "") }, 1},
		"does not allow GC":           {func(r *run) { r.command, r.conf = "GC", at("/x", "1.0.0", "") }, 1},
		"vlan: \"x\" is not a VLAN":   {func(r *run) { r.conf = at("/x", "1.1.0", `"vlan":"x"`) }, 7},
		"vlna: 7 is not understood":   {func(r *run) { r.conf = at("/x", "1.1.0", `"vlna":7`) }, 2},
		"/x of container c1 does not": {func(r *run) {}, 3},
		"/etc is no network":          {func(r *run) { r.netns = "/etc" }, 4},
	} {
		r := good
		c.change(&r)
		r.fails(t, c.code, text)
	}
	good.as("STATUS").fails(t, 51, "there is no socket /nowhere: vswitchd is not running")
	good.as("DEL").fails(t, 11, "there is no socket /nowhere")
	good.as("GC").fails(t, 11, "there is no socket /nowhere")
}

func TestAdd(t *testing.T) {
	l := lab.New(t)
	_, netns := sandbox(l, "c1")
	d, socket := serve(t)
	for _, spoken := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		r := run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, spoken, `"vlan":0`)}
		out := r.ok(t)
		if has := strings.Contains(string(out), `"mtu": 1450`); has != (spoken == "1.1.0") {
			t.Errorf("%s: an interface's mtu is there: %v\n%s", spoken, has, out)
		}
		res := r.result(t, spoken)
		if len(res.Interfaces) != 2 || res.Interfaces[0].Name != "c1-0badca" || res.Interfaces[0].Sandbox != "" ||
			res.Interfaces[1].Name != "eth0" || res.Interfaces[1].Sandbox != netns || res.Interfaces[1].Mac != "02:00:00:00:00:05" {
			t.Errorf("%s: interfaces\n%s", spoken, out)
		}
		if len(res.IPs) != 1 || *res.IPs[0].Interface != 1 || res.IPs[0].Address.String() != "10.0.0.5/24" || res.IPs[0].Gateway.String() != "10.0.0.1" {
			t.Errorf("%s: addresses\n%s", spoken, out)
		}
		if len(res.DNS.Nameservers) != 1 || res.DNS.Nameservers[0] != "10.0.0.1" {
			t.Errorf("%s: resolvers\n%s", spoken, out)
		}
	}
	asked := d.Asked()
	q := of[api.Attachment](asked)
	if len(q) != 8 || q[0].Owner != "cni/net1" || q[0].Key != "c1/eth0" || q[0].Bridge != "br0" || q[0].NetNS != netns || q[0].IfName != "eth0" ||
		q[0].Options["tag"] != "0" || q[0].Options["ip"] != "auto" || len(q[0].Options) != 2 {
		t.Errorf("asked for %d, first %+v", len(q), q[0])
	}
	if n := len(of[apitest.Detached](asked)); n != 0 {
		t.Errorf("%d attachments were ended", n)
	}

	// In a VLAN that the bridge's own addresses are not in, nobody answers at them.
	d.AttachAnswer.Plug.Gateways = nil
	for keys, tag := range map[string]any{`"vlan":10`: nil, `"vlan":0`: "10"} {
		d.S.Bridges[0].Options["tag"] = tag
		res := run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, "1.1.0", keys)}.result(t, "1.1.0")
		if res.IPs[0].Gateway != nil || res.Routes != nil || !res.DNS.IsEmpty() {
			t.Errorf("%s of a bridge in VLAN %v: gateway %v, routes %v, resolvers %v; want none", keys, tag, res.IPs[0].Gateway, res.Routes, res.DNS)
		}
	}
	delete(d.S.Bridges[0].Options, "tag")
	d.S.Bridges[0].Options["ipam.gateway"] = "10.0.0.254" // but a router of that VLAN may
	if res := (run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, "1.1.0", `"vlan":10`)}).result(t, "1.1.0"); res.IPs[0].Gateway.String() != "10.0.0.254" {
		t.Errorf("gateway %v", res.IPs[0].Gateway)
	}
	delete(d.S.Bridges[0].Options, "ipam.gateway")

	// Who answers no names is no resolver.
	for _, c := range []struct {
		options map[string]any
		answers bool
	}{
		{map[string]any{"ip": "10.0.0.1/24"}, false},
		{map[string]any{"ip": "10.0.0.1/24", "ipam.subnet": "10.0.0.0/24"}, true},
		{map[string]any{"ip": "10.0.0.1/24", "nat": "masquerade", "dns": false}, false},
	} {
		d.S.Bridges[0].Options = c.options
		res := run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, "1.1.0", "")}.result(t, "1.1.0")
		if answers := slices.Equal(res.DNS.Nameservers, []string{"10.0.0.1"}); answers != c.answers {
			t.Errorf("bridge with %v: resolvers %v", c.options, res.DNS.Nameservers)
		}
	}

	// What is not there at this moment may be there at the next.
	d.AttachAnswer.Plug.State = api.PlugWaiting
	run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, "1.1.0", "")}.ok(t)
}

// Plug-ins before this one in a chain: their interfaces, addresses and routes stay first.
func TestAddChained(t *testing.T) {
	l := lab.New(t)
	_, netns := sandbox(l, "c1")
	_, socket := serve(t)
	previous := `"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"m0"},{"name":"net0","sandbox":"/s"}],
		"ips":[{"address":"192.0.2.7/24","interface":1}],"routes":[{"dst":"198.51.100.0/24","gw":"192.0.2.1"}],"dns":{"nameservers":["192.0.2.53"]}}`
	res := run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, "1.0.0", `"gateway":"10.0.0.1","routes":[{"dst":"203.0.113.0/24","gw":"10.0.0.9"}],`+previous)}.result(t, "1.0.0")
	if len(res.Interfaces) != 4 || res.Interfaces[1].Name != "net0" || res.Interfaces[3].Name != "eth0" {
		t.Errorf("interfaces %v", res.Interfaces)
	}
	if len(res.IPs) != 2 || *res.IPs[0].Interface != 1 || *res.IPs[1].Interface != 3 {
		t.Errorf("addresses %v", res.IPs)
	}
	var routes []string
	for _, r := range res.Routes {
		routes = append(routes, r.Dst.String()+" "+r.GW.String())
	}
	if want := []string{"198.51.100.0/24 192.0.2.1", "0.0.0.0/0 10.0.0.1", "203.0.113.0/24 10.0.0.9"}; !slices.Equal(routes, want) {
		t.Errorf("routes %v, want %v", routes, want)
	}
	if !slices.Equal(res.DNS.Nameservers, []string{"192.0.2.53"}) {
		t.Errorf("resolvers %v", res.DNS)
	}
}

// An ADD that fails leaves nothing: what the daemon may have made is asked back, and so is
// the address of another IPAM plug-in.
func TestAddFails(t *testing.T) {
	needStock(t, "host-local")
	l := lab.New(t)
	c1, netns := sandbox(l, "c1")
	d, socket := serve(t)
	leases := t.TempDir()
	ipam := fmt.Sprintf(`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.1.0.0/24"}]],"routes":[{"dst":"0.0.0.0/0"}]}`, leases)
	add := run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, "1.1.0", ipam)}
	given := func() (addrs []string) {
		all, _ := filepath.Glob(filepath.Join(leases, "net1", "10.*"))
		return all
	}

	for _, c := range []struct {
		refusal error
		code    uint
	}{
		{&api.Error{Status: 400, Message: "ip: no good"}, 7},
		{&api.Error{Status: 409, Message: "10.1.0.2 is taken"}, codeTaken},
		{&api.Error{Status: 503, Message: "the store is full"}, 11},
		{&api.Error{Status: 500, Message: "veth: no"}, codeRefused},
	} {
		d.attach = c.refusal
		add.fails(t, c.code, c.refusal.Error())
		asked := d.Asked()
		if q := of[api.Attachment](asked); len(q) != 1 || q[0].Options["ip"] == "" || q[0].Options["gateway"] != "10.1.0.1" {
			t.Errorf("asked for %+v", q)
		}
		if gone := of[apitest.Detached](asked); len(gone) != 1 || gone[0] != (apitest.Detached{Owner: "cni/net1", Key: "c1/eth0"}) {
			t.Errorf("after %v detached %v", c.refusal, gone)
		}
		if left := given(); left != nil {
			t.Errorf("after %v host-local keeps %v", c.refusal, left)
		}
	}

	// Attached, but not plugged.
	d.attach = nil
	d.AttachAnswer.Plug.State, d.AttachAnswer.Plug.Reason = api.PlugError, "it died"
	add.fails(t, codeRefused, "it is error: it died")
	if gone := of[apitest.Detached](d.Asked()); len(gone) != 1 || given() != nil {
		t.Errorf("detached %v, host-local keeps %v", gone, given())
	}
	d.AttachAnswer.Plug.State = api.PlugPlugged

	// No such bridge: nothing was asked for.
	missing := add
	missing.conf = strings.Replace(add.conf, `"br0"`, `"br9"`, 1)
	missing.fails(t, 7, `bridge: there is no "br9": make it with vswitchctl add-br br9`)
	// No such plug-in.
	missing.conf = strings.Replace(add.conf, "host-local", "host-locale", 1)
	missing.fails(t, 999, `ipam host-locale: failed to find plugin "host-locale" in path [`+stock+`] `) // and no more: nothing was done
	// host-local refuses.
	missing.conf = strings.Replace(add.conf, "10.1.0.0/24", "10.1.0.0/32", 1)
	missing.fails(t, 999, "ipam host-local")
	if q := of[api.Attachment](d.Asked()); q != nil || given() != nil {
		t.Errorf("asked for %v, host-local keeps %v", q, given())
	}

	// The interface exists: the first one's attachment and address stay.
	add.ok(t)
	d.Asked()
	c1.MustExec("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "p0")
	add.fails(t, 4, "CNI_IFNAME: eth0 exists in "+netns+" already")
	if asked := d.Asked(); asked != nil || len(given()) != 1 {
		t.Errorf("asked for %v, host-local has %v", asked, given())
	}
}

// A runtime that is gone before it has the result: nothing stays for it.
func TestAddUnheard(t *testing.T) {
	l := lab.New(t)
	_, netns := sandbox(l, "c1")
	d, socket := serve(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	defer w.Close()
	cmd := exec.Command(plugin(t))
	cmd.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=" + netns, "CNI_IFNAME=eth0", "CNI_PATH=" + stock}
	cmd.Stdin, cmd.Stdout = strings.NewReader(at(socket, "1.1.0", "")), w
	if err := cmd.Run(); cmd.ProcessState.ExitCode() != 1 {
		t.Errorf("ended with %v", err)
	}
	if gone := of[apitest.Detached](d.Asked()); len(gone) != 1 {
		t.Errorf("detached %v", gone)
	}
}

// DEL releases the address though the daemon does not answer, and may come twice.
func TestDel(t *testing.T) {
	needStock(t, "host-local")
	l := lab.New(t)
	_, netns := sandbox(l, "c1")
	d, socket := serve(t)
	leases := t.TempDir()
	keys := fmt.Sprintf(`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.1.0.0/24"}]]}`, leases)
	r := run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, "1.1.0", keys)}
	given := func() int {
		all, _ := filepath.Glob(filepath.Join(leases, "net1", "10.*"))
		return len(all)
	}
	r.ok(t)
	if given() != 1 {
		t.Fatal("host-local gave nothing")
	}
	r.conf = at(filepath.Join(leases, "none"), "1.1.0", keys)
	r.as("DEL").fails(t, 11, "vswitchd is not running")
	if given() != 0 {
		t.Error("host-local still has the address")
	}
	d.Asked()
	r.conf, r.netns = at(socket, "1.1.0", keys+`,"vlna":7`), "" // the namespace is gone, the configuration was changed
	for range 2 {
		if out := r.as("DEL").ok(t); len(out) != 0 {
			t.Errorf("DEL prints %s", out)
		}
	}
	if gone := of[apitest.Detached](d.Asked()); len(gone) != 2 {
		t.Errorf("detached %v", gone)
	}
}

// GC names what stays, of this network. host-local of before specification 1.1.0 has no GC:
// what went is released as DEL would have.
func TestCollect(t *testing.T) {
	needStock(t, "host-local")
	l := lab.New(t)
	_, netns := sandbox(l, "c1")
	d, socket := serve(t)
	leases := t.TempDir()
	keys := fmt.Sprintf(`"ipam":{"type":"host-local","dataDir":%q,"ranges":[[{"subnet":"10.1.0.0/24"}]]}`, leases)
	r := run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, "1.1.0", keys)}
	r.ok(t)
	r.id = "c2"
	r.ok(t)
	d.Asked()
	run{command: "GC", conf: at(socket, "1.1.0", keys+`,"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"}]`)}.ok(t)
	q := of[api.Collect](d.Asked())
	if len(q) != 1 || q[0].Owner != "cni/net1" || q[0].Bridge != "" || !slices.Equal(q[0].Valid, []string{"c2/eth0"}) {
		t.Errorf("asked for %+v", q)
	}
	left, _ := filepath.Glob(filepath.Join(leases, "net1", "10.*"))
	if len(left) != 1 {
		t.Fatalf("host-local has %v", left)
	}
	if text, _ := os.ReadFile(left[0]); !strings.HasPrefix(string(text), "c2") {
		t.Errorf("host-local has %s", text)
	}
	run{command: "GC", conf: at(socket, "1.1.0", `"cni.dev/valid-attachments":[{"containerID":""}]`)}.fails(t, 7, "cni.dev/valid-attachments[0]")
}

func TestStatus(t *testing.T) {
	needStock(t, "host-local")
	_, socket := serve(t)
	run{command: "STATUS", conf: at(socket, "1.1.0", "")}.ok(t)
	run{command: "STATUS", conf: at(socket, "1.1.0", `"ipam":{"type":"host-local"}`)}.ok(t)
	run{command: "STATUS", conf: strings.Replace(at(socket, "1.1.0", ""), `"br0"`, `"br9"`, 1)}.fails(t, 50, `there is no "br9"`)
	run{command: "STATUS", conf: at(socket+"x", "1.1.0", "")}.fails(t, 51, "vswitchd is not running")
	run{command: "STATUS", conf: at(socket, "1.1.0", `"ipam":{"type":"none-such"}`)}.fails(t, 50, "none-such")
}

// CHECK compares with the last result: what is not there any more is named.
func TestCheck(t *testing.T) {
	l := lab.New(t)
	c1, netns := sandbox(l, "c1")
	d, socket := serve(t)
	r := run{command: "ADD", id: "c1", netns: netns, ifname: "eth0", conf: at(socket, "1.1.0", `"gateway":"10.0.0.1"`)}
	previous := string(r.ok(t))
	r.conf = at(socket, "1.1.0", `"gateway":"10.0.0.1","prevResult":`+previous)
	check := r.as("CHECK")
	check.fails(t, codeBroken, "eth0 of c1: Link not found")

	c1.MustExec("ip", "link", "add", "eth0", "address", "02:00:00:00:00:05", "mtu", "1450", "type", "veth", "peer", "name", "p0")
	check.fails(t, codeBroken, "it is down")
	c1.MustExec("ip", "link", "set", "p0", "up")
	c1.MustExec("ip", "link", "set", "eth0", "up")
	check.fails(t, codeBroken, "address 10.0.0.5/24 is gone")
	c1.MustExec("ip", "addr", "add", "10.0.0.5/24", "dev", "eth0")
	check.fails(t, codeBroken, "the route to 0.0.0.0/0 is gone")
	c1.MustExec("ip", "route", "add", "default", "via", "10.0.0.1")
	check.ok(t)
	c1.MustExec("ip", "link", "set", "eth0", "mtu", "1400")
	check.fails(t, codeBroken, "its MTU is 1400, and was 1450")
	c1.MustExec("ip", "link", "set", "eth0", "mtu", "1450", "address", "02:00:00:00:00:06")
	check.fails(t, codeBroken, "its MAC address is 02:00:00:00:00:06")
	c1.MustExec("ip", "link", "set", "eth0", "address", "02:00:00:00:00:05")

	d.S.Bridges[0].Ports[0].State, d.S.Bridges[0].Ports[0].Reason = api.PortError, "no memory"
	check.fails(t, codeBroken, "port c1-0badca is error: no memory")
	d.AT[0].Plug.State, d.AT[0].Plug.Reason = api.PlugError, "no"
	check.fails(t, codeBroken, "the plug is error: no")
	d.AT = nil
	check.fails(t, codeBroken, "knows of no such attachment")
	r.conf = at(socket, "1.1.0", "")
	r.as("CHECK").fails(t, 7, "prevResult: required")
}

// A daemon that takes the connection and does not answer is one to ask again later.
func TestSilentDaemon(t *testing.T) {
	ln, err := net.Listen("unix", filepath.Join(t.TempDir(), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	n := &network{name: "net1", bridge: "br0", socket: ln.Addr().String()}
	client := api.NewClient(n.socket, 50*time.Millisecond)
	defer client.Close()
	_, err = n.look(t.Context(), client)
	if e := told(err); e.Code != 11 || !strings.Contains(e.Msg, "did not answer within 50ms") {
		t.Errorf("code %d, %s", e.Code, e.Msg)
	}
}
