package docker

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
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
