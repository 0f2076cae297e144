package docker

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"

	"vswitch/ctl/config"
)

// posted calls a driver with a body, and returns its answer and what it refuses it with.
func posted(t testing.TB, d *Driver, call, body string) (map[string]json.RawMessage, string) {
	t.Helper()
	w := httptest.NewRecorder()
	d.ServeHTTP(w, httptest.NewRequest(http.MethodPost, "/"+call, strings.NewReader(body)))
	var a map[string]json.RawMessage
	if err := json.Unmarshal(w.Body.Bytes(), &a); err != nil {
		t.Fatalf("%s %s: %d %q", call, body, w.Code, w.Body)
	}
	var refusal string
	_ = json.Unmarshal(a["Err"], &refusal)
	return a, refusal
}

// must fails the test when Docker is refused.
func must(t testing.TB, d *Driver, call, body string) string {
	t.Helper()
	a, refusal := posted(t, d, call, body)
	if refusal != "" {
		t.Fatalf("%s %s: %s", call, body, refusal)
	}
	text, _ := json.Marshal(a)
	return string(text)
}

const (
	net1 = "1111111111111111111111111111111111111111111111111111111111111111"
	net2 = "2222222222222222222222222222222222222222222222222222222222222222"
	ep1  = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
	ep2  = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
)

// network1 is docker network create -d vswitch --subnet 10.1.0.0/16 n1.
const network1 = `{"NetworkID":"` + net1 + `","Options":{"com.docker.network.enable_ipv6":false,"com.docker.network.generic":{}},
"IPv4Data":[{"AddressSpace":"LocalDefault","Pool":"10.1.0.0/16","Gateway":"10.1.0.1/16","AuxAddresses":{"x":"10.1.0.9/16"}}],"IPv6Data":[]}`

func TestLifeOfAContainer(t *testing.T) {
	d, s, w := newDouble(t, "bridges: []")
	for range 2 { // Docker retries
		must(t, d, "NetworkDriver.CreateNetwork", network1)
	}
	b, ok := s.Bridge("vs-111111111111")
	if !ok || b.Options["ip"] != "10.1.0.1/16" || b.Options["nat"] != "masquerade" {
		t.Fatalf("bridge: %+v", b)
	}
	endpoint := `{"NetworkID":"` + net1 + `","EndpointID":"` + ep1 + `","Interface":{"Address":"10.1.0.2/16","AddressIPv6":"","MacAddress":""},"Options":{}}`
	for range 2 {
		if a := must(t, d, "NetworkDriver.CreateEndpoint", endpoint); a != `{"Interface":{"MacAddress":"02:42:0a:01:00:02"}}` {
			t.Fatalf("CreateEndpoint: %s", a)
		}
	}
	both := `{"NetworkID":"` + net1 + `","EndpointID":"` + ep1 + `","SandboxKey":"/run/docker/netns/x"}`
	for range 2 {
		want := `{"DisableGatewayService":true,"Gateway":"10.1.0.1","InterfaceName":{"SrcName":"vsdaaaaaaaaaaaa","DstPrefix":"eth"}}`
		if a := must(t, d, "NetworkDriver.Join", both); a != want {
			t.Fatalf("Join: %s, want %s", a, want)
		}
	}
	b, _ = s.Bridge("vs-111111111111")
	if len(b.Ports) != 1 || len(w.pairs) != 1 {
		t.Fatalf("ports %v, pairs %v", b.Ports, w.pairs)
	}
	p := b.Ports[0]
	g, _ := p.Plug()
	if len(p.Name) > 15 || g.Container != (config.ContainerRef{Kind: config.RuntimeContainer, Name: ep1}) || p.Options["ip"] != "10.1.0.2/16" ||
		p.Options["mac"] != "02:42:0a:01:00:02" || w.pairs[p.Name].MTU != 1450 {
		t.Fatalf("port %+v, pair %+v", p, w.pairs[p.Name])
	}
	for range 2 {
		must(t, d, "NetworkDriver.Leave", both)
	}
	if len(w.pairs) != 0 {
		t.Fatalf("pairs are left: %v", w.pairs)
	}
	for range 2 {
		must(t, d, "NetworkDriver.DeleteEndpoint", both)
	}
	for range 2 {
		must(t, d, "NetworkDriver.DeleteNetwork", `{"NetworkID":"`+net1+`"}`)
	}
	if left := s.Held(); len(left) != 0 {
		t.Fatalf("left: %v", left)
	}
}

// operators is what the operator wrote in the tests below.
const operators = `
bridges:
  - name: br0
    ip: 10.0.0.1/24
    nat: masquerade
    ports:
      - name: web-1
        type: plug
        container: docker:web
        ip: 10.0.0.50/24
      - name: vlan30
        type: internal
        tag: 30
        ip: 10.30.0.1/24
  - name: lan
meshes:
  - name: m1
    bridge: lan
    key: 10
    peers: a,b
`

// create is the body of CreateNetwork with options and a subnet whose first address is the gateway.
func create(t testing.TB, id, subnet string, internal bool, options map[string]string) string {
	t.Helper()
	p := netip.MustParsePrefix(subnet)
	generic, err := json.Marshal(options)
	if err != nil {
		t.Fatal(err)
	}
	pool, none := fmt.Sprintf(`[{"Pool":%q,"Gateway":"%s/%d"}]`, subnet, p.Addr().Next(), p.Bits()), "[]"
	if p.Addr().Is6() {
		pool, none = none, pool
	}
	return fmt.Sprintf(`{"NetworkID":%q,"Options":{"com.docker.network.generic":%s,"com.docker.network.internal":%t,"com.docker.network.later":{}},"IPv4Data":%s,"IPv6Data":%s}`,
		id, generic, internal, pool, none)
}

func TestNetworkOptions(t *testing.T) {
	type o = map[string]string
	for _, c := range []struct {
		name, subnet string
		internal     bool
		options      o
		want         string // of the bridge or port that is made: name and options; or the refusal
	}{
		{"made", "10.1.0.0/16", false, nil, "vs-111111111111 map[ip:10.1.0.1/16 nat:masquerade]"},
		{"made, no NAT", "10.1.0.0/16", false, o{"nat": "none"}, "vs-111111111111 map[ip:10.1.0.1/16]"},
		{"made, internal", "10.1.0.0/16", true, nil, "vs-111111111111 map[ip:10.1.0.1/16]"},
		{"made, IPv6", "fd00:1::/64", false, nil, "vs-111111111111 map[ip:fd00:1::1/64 nat:masquerade]"},
		{"made, named", "10.1.0.0/16", false, o{"com.docker.network.bridge.name": "shop"}, "shop map[ip:10.1.0.1/16 nat:masquerade]"},
		{"made, MTU", "10.1.0.0/16", false, o{"com.docker.network.driver.mtu": "1400"}, "vs-111111111111 map[ip:10.1.0.1/16 mtu:1400 nat:masquerade]"},
		{"made, no addresses", "0.0.0.0/0", false, nil, "vs-111111111111 map[]"},
		{"bridge", "10.0.0.0/24", false, o{"bridge": "br0"}, "none at br0, host br0"},
		{"bridge without addresses", "10.9.0.0/24", false, o{"bridge": "lan"}, "none at lan, host "},
		{"mesh", "10.9.0.0/24", false, o{"mesh": "m1"}, "none at lan, host "},
		{"VLAN", "10.9.0.0/24", false, o{"bridge": "lan", "vlan": "50"}, "vs-111111111111 map[ip:10.9.0.1/24 nat:masquerade tag:50]"},
		{"VLAN, internal", "10.9.0.0/24", true, o{"bridge": "lan", "vlan": "50"}, "vs-111111111111 map[ip:10.9.0.1/24 tag:50]"},
		{"VLAN, MTU", "10.9.0.0/24", false, o{"bridge": "lan", "vlan": "50", "mtu": "9000"}, "vs-111111111111 map[ip:10.9.0.1/24 mtu:9000 nat:masquerade tag:50]"},
		{"VLAN whose gateway is there", "10.30.0.0/24", false, o{"bridge": "br0", "vlan": "30"}, "none at br0, host vlan30"},
		{"VLAN whose gateway is on the LAN", "10.9.0.0/24", false, o{"bridge": "lan", "vlan": "50", "gateway": "lan"}, "none at lan, host "},

		{"unknown", "10.1.0.0/16", false, o{"paretn": "eth0"}, "unknown option paretn of a network; allowed: bridge, com.docker.network.bridge.name, com.docker.network.driver.mtu, gateway, mesh, mtu, nat, vlan"},
		{"empty", "10.1.0.0/16", false, o{"bridge": ""}, `option bridge: "" is no value; allowed: the name of a bridge of the switch`},
		{"VLAN 0", "10.1.0.0/16", false, o{"bridge": "lan", "vlan": "0"}, `option vlan: "0" is not a VLAN; allowed: 1 to 4094`},
		{"VLAN 4095", "10.1.0.0/16", false, o{"bridge": "lan", "vlan": "4095"}, `option vlan: "4095" is not a VLAN; allowed: 1 to 4094`},
		{"VLAN of nothing", "10.1.0.0/16", false, o{"vlan": "5"}, `option vlan: "5" needs the bridge`},
		{"MTU", "10.1.0.0/16", false, o{"mtu": "big"}, `option mtu: "big" is not one; allowed: 68 to 65535`},
		{"NAT", "10.1.0.0/16", false, o{"nat": "yes"}, `option nat: "yes" is not one; allowed: masquerade or none`},
		{"NAT, internal", "10.1.0.0/16", true, o{"nat": "masquerade"}, `option nat: "masquerade" contradicts --internal`},
		{"NAT of the operator's", "10.0.0.0/24", false, o{"bridge": "br0", "nat": "none"}, `option nat: "none" is not what bridge br0 has: vswitchctl set-br br0 nat=none`},
		{"no such bridge", "10.1.0.0/16", false, o{"bridge": "br9"}, `option bridge: "br9" does not exist: vswitchctl add-br br9`},
		{"no such mesh", "10.1.0.0/16", false, o{"mesh": "m9"}, `option mesh: "m9" is no mesh`},
		{"bridge and mesh", "10.1.0.0/16", false, o{"mesh": "m1", "bridge": "br0"}, `option mesh: "m1" is one of two`},
		{"another subnet", "10.1.0.0/16", false, o{"bridge": "br0"}, "subnet 10.1.0.0/16 is not that of bridge br0: allowed: --subnet 10.0.0.0/24"},
		{"taken name", "10.1.0.0/16", false, o{"com.docker.network.bridge.name": "br0"}, `option com.docker.network.bridge.name: "br0" is a bridge of the switch already: give bridge=br0`},
		{"name of a NIC", "10.1.0.0/16", false, o{"com.docker.network.bridge.name": "eth0"}, `option com.docker.network.bridge.name: "eth0" is an interface of this host already; allowed: the name of an interface that is to be made`},
		{"long name", "10.1.0.0/16", false, o{"com.docker.network.bridge.name": "sixteen-bytes-xx"}, `option com.docker.network.bridge.name: "sixteen-bytes-xx" is not one`},
		{"gateway", "10.1.0.0/16", false, o{"bridge": "lan", "gateway": "x"}, `option gateway: "x" is not one; allowed: switch or lan`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, s, w := newDouble(t, operators)
			w.pairs["eth0"] = wire{}
			_, refusal := posted(t, d, "NetworkDriver.CreateNetwork", create(t, net1, c.subnet, c.internal, c.options))
			got := refusal
			if refusal == "" {
				i := s.Held()[0]
				n, _ := networkOf(i)
				switch {
				case i.Makes:
					got = fmt.Sprint(i.Bridge, " ", i.Options)
				case len(i.Ports) > 0:
					got = fmt.Sprint(i.Ports[0].Name, " ", i.Ports[0].Options)
				default:
					got = fmt.Sprintf("none at %s, host %s", i.Bridge, n.Host)
				}
				d := s.expanded()
				if err := d.Validate(); err != nil {
					t.Errorf("the document with it: %v", err)
				}
			} else if len(s.Held()) != 0 {
				t.Errorf("refused, but held: %v", s.Held())
			}
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
		})
	}
}

func TestOverlap(t *testing.T) {
	d, _, _ := newDouble(t, operators)
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.9.0.0/16", false, map[string]string{"bridge": "lan", "vlan": "50", "gateway": "lan"}))
	// The same VLAN, a part of its subnet.
	_, refusal := posted(t, d, "NetworkDriver.CreateNetwork", create(t, net2, "10.9.1.0/24", false, map[string]string{"bridge": "lan", "vlan": "50", "gateway": "lan"}))
	if want := "subnet 10.9.1.0/24 overlaps with 10.9.0.0/16 of Docker's network 111111111111"; refusal != want {
		t.Errorf("refusal %q, want %q", refusal, want)
	}
	// Another VLAN is another network, as long as this host is not in both.
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net2, "10.9.1.0/24", false, map[string]string{"bridge": "lan", "vlan": "51"}))
	_, refusal = posted(t, d, "NetworkDriver.CreateNetwork", create(t, ep1, "10.9.1.0/24", false, map[string]string{"bridge": "lan", "vlan": "52"}))
	if !strings.Contains(refusal, "overlaps") {
		t.Errorf("the host has two gateways in 10.9.1.0/24: %q", refusal)
	}
	// The same network, otherwise.
	_, refusal = posted(t, d, "NetworkDriver.CreateNetwork", create(t, net2, "10.9.2.0/24", false, nil))
	if !strings.Contains(refusal, "asked for otherwise") {
		t.Error(refusal)
	}
}

// endpointOn is the body of CreateEndpoint.
func endpointOn(network, id, address string) string {
	return fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q,"Interface":{"Address":%q,"AddressIPv6":"","MacAddress":""},"Options":{"x":1}}`, network, id, address)
}

func TestAddressesOfTheOperators(t *testing.T) {
	d, s, _ := newDouble(t, operators)
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.0.0.0/24", false, map[string]string{"bridge": "br0"}))
	if err := d.leases.Reserve("br0", netip.MustParseAddr("10.0.0.60"), "docker:db eth1"); err != nil {
		t.Fatal(err)
	}
	for address, why := range map[string]string{
		"10.0.0.50/24": "address 10.0.0.50 is taken by docker:web on br0",
		"10.0.0.60/24": "address is taken by docker:db eth1",
		"10.7.0.60/24": "address 10.7.0.60/24 is in no subnet of the network",
		"10.0.0.60":    `"10.0.0.60" is not an address with a prefix length`,
	} {
		_, refusal := posted(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, address))
		if !strings.Contains(refusal, why) {
			t.Errorf("%s: %q, want %q", address, refusal, why)
		}
	}
	if len(s.Held()) != 1 {
		t.Fatalf("held: %v", s.Held())
	}
	// What Docker has, no plug leases; and what Docker gives back, it may.
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.0.0.2/24"))
	pool, err := d.resolve("bridge/br0/4")
	if err != nil {
		t.Fatal(err)
	}
	if a, err := d.leases.Lease(pool, "docker:x eth1", nil); err != nil || a.String() != "10.0.0.3" {
		t.Errorf("leased %v, %v", a, err)
	}
	must(t, d, "NetworkDriver.DeleteEndpoint", `{"EndpointID":"`+ep1+`"}`)
	if err := d.leases.Reserve("br0", netip.MustParseAddr("10.0.0.2"), "docker:y eth1"); err != nil {
		t.Error(err)
	}
}

// TestTagZero: tag=0 is no VLAN, of a plug and of a bridge.
func TestTagZero(t *testing.T) {
	for _, doc := range []string{
		strings.Replace(operators, "ip: 10.0.0.50/24", "ip: 10.0.0.50/24\n        tag: 0", 1),
		strings.Replace(operators, "ip: 10.0.0.1/24", "ip: 10.0.0.1/24\n    tag: 0", 1),
	} {
		d, _, _ := newDouble(t, doc)
		must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.0.0.0/24", false, map[string]string{"bridge": "br0"}))
		if err := d.leases.Reserve("br0", netip.MustParseAddr("10.0.0.60"), "docker:db eth1"); err != nil {
			t.Fatal(err)
		}
		for id, address := range map[string]string{ep1: "10.0.0.50/24", ep1[:20]: "10.0.0.60/24"} {
			if _, refusal := posted(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, id, address)); !strings.Contains(refusal, "taken by docker:") {
				t.Errorf("%s: %q", address, refusal)
			}
		}
		p, err := d.resolve("bridge/br0/4")
		if err != nil {
			t.Fatal(err)
		}
		if !d.written(p)(netip.MustParseAddr("10.0.0.50")) {
			t.Error("Docker may lease 10.0.0.50, which is written down for docker:web")
		}
	}
}

// TestAllOrNothing fails each step of an endpoint's life once.
func TestAllOrNothing(t *testing.T) {
	d, s, w := newDouble(t, operators)
	full := errors.New("the disk is full")
	s.err = full
	if _, refusal := posted(t, d, "NetworkDriver.CreateNetwork", network1); !strings.Contains(refusal, "the disk is full") || len(s.Held()) != 0 {
		t.Fatalf("%q, held %v", refusal, s.Held())
	}
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.0.0.0/24", false, map[string]string{"bridge": "br0"}))
	s.err = full
	if _, refusal := posted(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.0.0.2/24")); refusal == "" || len(s.Held()) != 1 || len(d.leases.Leases("")) != 0 {
		t.Fatalf("%q, held %v, leases %v", refusal, s.Held(), d.leases.Leases(""))
	}
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.0.0.2/24"))
	w.err = errors.New("no more interfaces")
	both := `{"NetworkID":"` + net1 + `","EndpointID":"` + ep1 + `"}`
	if _, refusal := posted(t, d, "NetworkDriver.Join", both); !strings.Contains(refusal, "no more interfaces") || len(w.pairs) != 0 {
		t.Fatalf("%q, pairs %v", refusal, w.pairs)
	}
	must(t, d, "NetworkDriver.Join", both)
	// A network that goes takes along what is in it.
	must(t, d, "NetworkDriver.DeleteNetwork", `{"NetworkID":"`+net1+`"}`)
	if len(s.Held())+len(w.pairs)+len(d.leases.Leases("")) != 0 {
		t.Errorf("held %v, pairs %v, leases %v", s.Held(), w.pairs, d.leases.Leases(""))
	}
}

// TestDisplaced: dockerd cleaned up after a crash while the switch was away, and gives the
// address of the endpoint that it forgot to another.
func TestDisplaced(t *testing.T) {
	d, s, w := newDouble(t, "bridges: []")
	must(t, d, "NetworkDriver.CreateNetwork", network1)
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.1.0.2/16"))
	must(t, d, "NetworkDriver.Join", `{"NetworkID":"`+net1+`","EndpointID":"`+ep1+`"}`)
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep2, "10.1.0.2/16"))
	b, _ := s.Bridge("vs-111111111111")
	if len(b.Ports) != 1 || b.Ports[0].Name != portOf(ep2) || len(w.pairs) != 0 {
		t.Errorf("ports %v, pairs %v", b.Ports, w.pairs)
	}
}

func TestProtocol(t *testing.T) {
	d, _, _ := newDouble(t, "bridges: []")
	for _, c := range []struct {
		method, path, body string
		status             int
		want               string
	}{
		{"POST", "/Plugin.Activate", "", 200, `{"Implements":["NetworkDriver","IpamDriver"]}`},
		{"POST", "/Plugin.Activate", "{}", 200, `{"Implements":["NetworkDriver","IpamDriver"]}`},
		{"POST", "/NetworkDriver.GetCapabilities", "null", 200, `{"ConnectivityScope":"local","Scope":"local"}`},
		{"POST", "/IpamDriver.GetCapabilities", "", 200, `{"RequiresMACAddress":false,"RequiresRequestReplay":false}`},
		{"POST", "/IpamDriver.GetDefaultAddressSpaces", "", 200, `{"GlobalDefaultAddressSpace":"vswitch-global","LocalDefaultAddressSpace":"vswitch"}`},
		{"POST", "/NetworkDriver.DiscoverNew", `{"DiscoveryType":1,"DiscoveryData":{"Address":"1.2.3.4","self":true}}`, 200, `{}`},
		{"POST", "/NetworkDriver.EndpointOperInfo", `{"EndpointID":"x"}`, 200, `{"Value":{}}`},
		{"POST", "/NetworkDriver.Leave", `{"EndpointID":"x"}`, 200, `{}`},
		{"POST", "/NetworkDriver.CreateNetwork", `{"NetworkID":7}`, 200, `{"Err":"the request cannot be read: json: cannot unmarshal number into Go struct field createNetworkRequest.NetworkID of type string"}`},
		{"POST", "/NetworkDriver.CreateNetwork", `{"NetworkID":"../x"}`, 200, `{"Err":"\"../x\" is not the ID of a network"}`},
		{"POST", "/NetworkDriver.Join", `{"EndpointID":"x"}`, 200, `{"Err":"endpoint x is not known to the switch"}`},
		{"POST", "/NetworkDriver.CreateEndpoint", `{"NetworkID":"n","EndpointID":"x","Interface":{}}`, 200, `{"Err":"network n is not known to the switch: remove it and create it again"}`},
		// What dockerd repeats after the switch was killed in the middle of it.
		{"POST", "/NetworkDriver.CreateNetwork", "", 200, `{"Err":"` + errEmpty.Error() + `"}`},
		{"POST", "/NetworkDriver.DeleteEndpoint", "", 200, `{"Err":"` + errEmpty.Error() + `"}`},
		{"POST", "/IpamDriver.RequestPool", "", 200, `{"Err":"` + errEmpty.Error() + `"}`},
		{"POST", "/IpamDriver.ReleaseAddress", "", 200, `{"Err":"` + errEmpty.Error() + `"}`},
		{"POST", "/NetworkDriver.Unheard", "", 404, "404 page not found"},
		{"GET", "/Plugin.Activate", "", 405, `{"Err":"/Plugin.Activate takes POST, not GET"}`},
		{"POST", "/Plugin.Activate", strings.Repeat(" ", maxBody+1), 400, `{"Err":"read the request: http: request body too large"}`},
	} {
		w := httptest.NewRecorder()
		d.ServeHTTP(w, httptest.NewRequest(c.method, c.path, strings.NewReader(c.body)))
		if strings.HasPrefix(c.want, `{"Err":`) { // for one part of Docker and the other
			c.want = strings.TrimSuffix(c.want, "}") + strings.Replace(c.want, `{"Err":`, `,"Error":`, 1)
		}
		if got := strings.TrimSpace(w.Body.String()); w.Code != c.status || got != c.want {
			t.Errorf("%s %s %.60s: %d %s, want %d %s", c.method, c.path, c.body, w.Code, got, c.status, c.want)
		}
	}
}

func TestPanicIsContained(t *testing.T) {
	d, _, _ := newDouble(t, "bridges: []")
	d.o.Switch = nil
	if _, refusal := posted(t, d, "NetworkDriver.Leave", "{}"); refusal != "a fault of the switch: see its log" {
		t.Error(refusal)
	}
	d.turn <- struct{}{} // the turn was given back
}

// A tunnel carries the tag of a VLAN, too: a container's frames are smaller by it.
func TestMTU(t *testing.T) {
	for _, c := range []struct {
		options map[string]string
		want    int
	}{
		{map[string]string{"mesh": "m1"}, 1450},
		{map[string]string{"mesh": "m1", "vlan": "50"}, 1446},
		{map[string]string{"mesh": "m1", "vlan": "50", "mtu": "1400"}, 1400},
	} {
		d, _, w := newDouble(t, operators)
		must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.9.0.0/24", false, c.options))
		must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.9.0.2/24"))
		must(t, d, "NetworkDriver.Join", `{"NetworkID":"`+net1+`","EndpointID":"`+ep1+`"}`)
		if got := w.pairs[portOf(ep1)].MTU; got != c.want {
			t.Errorf("%v: MTU %d, want %d", c.options, got, c.want)
		}
	}
}
