package docker

import (
	"fmt"
	"net"
	"strings"
	"testing"
)

// published is the body of ProgramExternalConnectivity.
func published(id, bindings string) string {
	return fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q,"Options":{"com.docker.network.endpoint.exposedports":[{"Proto":6,"Port":80}],"com.docker.network.portmap":%s}}`, net1, id, bindings)
}

func TestPublish(t *testing.T) {
	d, _, _ := newDouble(t, "bridges: []")
	must(t, d, "NetworkDriver.CreateNetwork", network1)
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.1.0.2/16"))
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep2, "10.1.0.3/16"))
	option := func(id string) string {
		i, _ := d.find(endpointKey(id))
		return i.Ports[0].Options["publish"]
	}
	// Docker tells of the container's default route, whether it has ports or not.
	must(t, d, "NetworkDriver.ProgramExternalConnectivity", published(ep1, "null"))
	must(t, d, "NetworkDriver.ProgramExternalConnectivity", `{"EndpointID":"`+ep1+`"}`)
	if got := option(ep1); got != "" {
		t.Fatalf("published: %s", got)
	}
	taken, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	busy := taken.Addr().(*net.TCPAddr).Port
	bindings := fmt.Sprintf(`[{"Proto":6,"IP":"","Port":80,"HostIP":"","HostPort":38080,"HostPortEnd":38080},
		{"Proto":17,"IP":"","Port":53,"HostIP":"127.0.0.1","HostPort":38080,"HostPortEnd":38080},
		{"Proto":6,"IP":"","Port":81,"HostIP":"","HostPort":38080,"HostPortEnd":38089},
		{"Proto":6,"IP":"","Port":82,"HostIP":"0.0.0.0","HostPort":0,"HostPortEnd":0}]`)
	for range 2 {
		must(t, d, "NetworkDriver.ProgramExternalConnectivity", published(ep1, bindings))
	}
	words := strings.Split(option(ep1), ",")
	if len(words) != 4 || words[0] != "38080:80/tcp" || words[1] != "127.0.0.1:38080:53/udp" || words[2] != "38081:81/tcp" || !strings.HasSuffix(words[3], ":82/tcp") {
		t.Fatalf("published: %v", words)
	}
	for bindings, why := range map[string]string{
		`[{"Proto":6,"Port":80,"HostPort":38080}]`:                               "port 38080/tcp of the host is published already",
		`[{"Proto":132,"Port":80,"HostPort":38090}]`:                             "port 80/sctp of the container cannot be published; allowed: tcp, udp",
		`[{"Proto":1,"Port":80,"HostPort":38090}]`:                               "protocol 1; allowed to publish: tcp, udp",
		`[{"Proto":6,"Port":80,"HostIP":"::1","HostPort":38090}]`:                "port 80/tcp of the container cannot be published at ::1: it has no address of that family",
		`[{"Proto":6,"Port":0,"HostPort":38090}]`:                                "port 0 of the container",
		`[{"Proto":6,"Port":80,"HostIP":"x","HostPort":38090}]`:                  `"x" is not an address of the host`,
		fmt.Sprintf(`[{"Proto":6,"Port":80,"HostPort":%d}]`, busy):               "address already in use",
		`[{"Proto":6,"Port":80,"HostPort":38080,"HostPortEnd":38081}]`:           "no port of 38080 to 38081 is free",
		`[{"Proto":6,"Port":80,"HostPort":"x"}]`:                                 "com.docker.network.portmap",
		`[{"Proto":6,"Port":80,"HostIP":"192.0.2.1","HostPort":38090}]`:          "port 38090/tcp of the host cannot be published: listen tcp4 192.0.2.1:38090: bind: cannot assign requested address",
		"[" + strings.Repeat(`{"Proto":6},`, maxPublished) + `{"Proto":6}` + "]": "257 ports are to be published",
	} {
		if _, refusal := posted(t, d, "NetworkDriver.ProgramExternalConnectivity", published(ep2, bindings)); !strings.Contains(refusal, why) {
			t.Errorf("%.80s: %q, want %q", bindings, refusal, why)
		}
	}
	// An address that the host does not have is no matter of ports, which are not tried one by one.
	if _, refusal := posted(t, d, "NetworkDriver.ProgramExternalConnectivity", published(ep2, `[{"Proto":6,"Port":80,"HostIP":"192.0.2.1"}]`)); !strings.HasPrefix(refusal, "port ") {
		t.Error(refusal)
	}
	if got := option(ep2); got != "" {
		t.Errorf("refused, but published: %s", got)
	}
	for range 2 {
		must(t, d, "NetworkDriver.RevokeExternalConnectivity", `{"EndpointID":"`+ep1+`"}`)
	}
	if got := option(ep1); got != "" {
		t.Errorf("revoked, but published: %s", got)
	}
	must(t, d, "NetworkDriver.ProgramExternalConnectivity", published(ep2, `[{"Proto":6,"Port":80,"HostPort":38080}]`))
}

// A network that this host is not in cannot be reached from its ports.
func TestPublishOnLAN(t *testing.T) {
	d, _, _ := newDouble(t, operators)
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.9.0.0/24", false, map[string]string{"mesh": "m1"}))
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.9.0.2/24"))
	_, refusal := posted(t, d, "NetworkDriver.ProgramExternalConnectivity", published(ep1, `[{"Proto":6,"Port":80,"HostPort":38080}]`))
	if !strings.Contains(refusal, "this host has no address in its network") {
		t.Error(refusal)
	}
}

// TestPublishFamilies: a container has its default route of each family in another network, as it
// can since Docker 28, which asks both for all of its ports.
func TestPublishFamilies(t *testing.T) {
	d, _, _ := newDouble(t, "bridges: []")
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.1.0.0/24", false, nil))
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net2, "fd00:1::/64", false, nil))
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.1.0.2/24"))
	must(t, d, "NetworkDriver.CreateEndpoint", fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q,"Interface":{"AddressIPv6":"fd00:1::2/64"}}`, net2, ep2))
	for _, ep := range []string{ep1, ep2} {
		must(t, d, "NetworkDriver.ProgramExternalConnectivity", published(ep, `[{"Proto":6,"Port":80,"HostPort":38080},{"Proto":17,"Port":80,"HostPort":38080}]`))
	}
	ep3 := strings.Repeat("c", 64)
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep3, "10.1.0.3/24"))
	if _, refusal := posted(t, d, "NetworkDriver.ProgramExternalConnectivity", published(ep3, `[{"Proto":6,"Port":80,"HostPort":38080}]`)); !strings.Contains(refusal, "published already") {
		t.Errorf("both have it: %q", refusal)
	}
}
