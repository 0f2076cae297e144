package main

import (
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
	"vswitch/ctl/config"
)

// dock is a host with containers of all kinds, not all of them well.
func dock(t *testing.T) *cli {
	t.Helper()
	at := now.Add(-time.Hour)
	prefix := netip.MustParsePrefix
	c := &cli{socket: filepath.Join(t.TempDir(), "ctl.sock"), svc: &apitest.Service{
		R: api.EditResult{Version: 4, Changed: true},
		Plugs: apitest.Plugs{
			PL: []api.PlugStatus{
				{Bridge: "br0", Port: "web-3fa91c", Container: "docker:web", IfName: "eth1", State: api.PlugPlugged, Since: at,
					Addresses: []netip.Prefix{prefix("10.0.0.5/24"), prefix("fd00::5/64")}, MTU: 1450, Names: []string{"web", "www"},
					Options: map[string]any{"container": "docker:web", "ip": "auto", "publish": "8080:80/tcp,127.0.0.1:53:53/udp"}},
				{Bridge: "br0", Port: "db-11aa22", Container: "podman:db", IfName: "eth0", State: api.PlugWaiting, Reason: "podman:db does not run; it is plugged in when it starts"},
				{Bridge: "br0", Port: "cni-77aa11", Container: "/run/netns/cni-0e4b1f9a-8f1e-4c58-a0f7-7f1c4f8a1b22", IfName: "eth0", Owner: "cni/pods", State: api.PlugPlugged,
					Addresses: []netip.Prefix{prefix("10.0.0.9/24")}, MTU: 1500, Names: []string{"one"}},
				{Bridge: "br0", Port: "e5d8-5ee5d8", Container: "docker:app", Owner: "docker", State: api.PlugPlugged,
					Addresses: []netip.Prefix{prefix("10.0.0.7/24")}, MTU: 1500},
				{Bridge: "br1", Port: "x-123456", Container: "netns:bl\x1b[31mue", IfName: "eth1", State: api.PlugError, Reason: "the container has an interface eth1 already"},
			},
			PB: []api.PublishStatus{
				{Bridge: "br0", Container: "docker:web", Port: "web-3fa91c", Host: "*:8080/tcp", To: "10.0.0.5:80", State: "up"},
				{Bridge: "br0", Container: "docker:web", Port: "web-3fa91c", Host: "127.0.0.1:53/udp", To: "10.0.0.5:53", State: "error", Reason: "port 53/udp of the host is in use: dnsmasq (process 12) has it"},
			},
			LS: []api.LeaseStatus{
				{Bridge: "br0", Address: netip.MustParseAddr("10.0.0.5"), Owner: "docker:web eth1", Since: at},
				{Bridge: "docker/10.1.0.0/16", Address: netip.MustParseAddr("10.1.0.2"), Owner: "docker/0123456789abcdef0123456789abcdef", Since: at},
			},
			PlugAnswer: api.PlugResult{Version: 4, Changed: true, Note: "docker:side shares the network of docker:web: one plug serves both",
				Plug: api.PlugStatus{Bridge: "br0", Port: "web-3fa91c", Container: "docker:web", IfName: "eth1", State: api.PlugPlugged, Addresses: []netip.Prefix{prefix("10.0.0.5/24")}}},
		},
	}}
	stop, err := apitest.Serve(c.svc, c.socket, api.Limits{}, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return c
}

func TestGoldenPlugs(t *testing.T) {
	golden(t, dock(t), map[string][]string{
		"plugged":      {"plugged"},
		"plugged-json": {"plugged", "br0", "-o", "json"},
		"published":    {"published"},
		"leases":       {"leases"},
		"help-plug":    {"plug", "--help"},
	})
}

// TestPlugAsks holds what is asked for to what was typed.
func TestPlugAsks(t *testing.T) {
	c := dock(t)
	for line, want := range map[string]any{
		"plug web br0": api.PlugRequest{Container: "web", Bridge: "br0"},
		"plug docker:web br0 --ip auto --ip6 fd00::5/64 --ifname eth2 --gateway 10.0.0.1 --mac 02:00:00:00:00:01 --mtu 1400 --alias a,b --port p1 --may-exist tag=10": api.PlugRequest{
			Container: "docker:web", Bridge: "br0", Port: "p1", MayExist: true,
			Options: config.Options{"ip": "auto,fd00::5/64", "ifname": "eth2", "gateway": "10.0.0.1", "mac": "02:00:00:00:00:01", "mtu": "1400", "alias": "a,b", "tag": "10"}},
		"plug web br0 --ip6 auto":             api.PlugRequest{Container: "web", Bridge: "br0", Options: config.Options{"ip": "auto6"}},
		"plug web br0 ip=10.0.0.5/24":         api.PlugRequest{Container: "web", Bridge: "br0", Options: config.Options{"ip": "10.0.0.5/24"}},
		"unplug web br0 --ifname eth2":        api.UnplugRequest{Container: "web", Bridge: "br0", IfName: "eth2"},
		"unplug --all web":                    api.UnplugRequest{Container: "web", All: true},
		"unplug --if-exists web":              api.UnplugRequest{Container: "web", IfExists: true},
		"publish br0 8080:web:80":             config.Options{"publish+": "8080:80/tcp"},
		"publish br0 8080:docker:web:80/udp":  config.Options{"publish+": "8080:80/udp"},
		"publish br0 127.0.0.1:53:web:53/udp": config.Options{"publish+": "127.0.0.1:53:53/udp"},
		"publish br0 [fd00::1]:80:web:80":     config.Options{"publish+": "[fd00::1]:80:80/tcp"},
		"unpublish br0 8080:web-3fa91c:80":    config.Options{"publish-": "8080:80/tcp"},
	} {
		c.svc.Asked()
		code, _, errs := c.run("", strings.Fields(line)...)
		if code != exitDone {
			t.Errorf("%s: exit %d, %s", line, code, errs)
			continue
		}
		var got any
		for _, a := range c.svc.Asked() {
			switch a := a.(type) {
			case api.PlugRequest:
				a.Comment = ""
				got = a
			case api.UnplugRequest:
				a.Comment = ""
				got = a
			case api.Edit:
				got = a.Ops[0].Options
				if a.Ops[0].Port != "web-3fa91c" {
					t.Errorf("%s: port %s", line, a.Ops[0].Port)
				}
			}
		}
		if !reflect.DeepEqual(got, want) {
			t.Errorf("%s asks for %+v; want %+v", line, got, want)
		}
	}
	if _, out, errs := c.run("", "plug", "side", "br0"); out != "docker:web eth1 10.0.0.5/24 port web-3fa91c of br0\n" || !strings.Contains(errs, "one plug serves both") {
		t.Errorf("plug says %q, %q", out, errs)
	}
	// What was asked for is told of, and nothing else.
	if _, _, errs := c.run("", "publish", "br0", "127.0.0.1:53:web:53/udp"); errs != "127.0.0.1:53/udp: error: port 53/udp of the host is in use: dnsmasq (process 12) has it\n" {
		t.Errorf("publish says %q", errs)
	}
	for _, line := range []string{"publish br0 8080:web:80", "unpublish br0 8080:web:80"} {
		if _, _, errs := c.run("", strings.Fields(line)...); errs != "" {
			t.Errorf("%s says %q", line, errs)
		}
	}
}

// TestPlugMistakes are told before the daemon is asked, or by what it lists.
func TestPlugMistakes(t *testing.T) {
	c := dock(t)
	for line, want := range map[string]struct {
		code int
		text string
	}{
		"plug web":                              {exitUsage, "arguments are missing"},
		"plug web br0 --ip6 10.0.0.1/24":        {exitUsage, "want an IPv6 address"},
		"plug web br0 --ip auto ip=10.0.0.1/24": {exitUsage, "ip is given as a flag and as an option"},
		"plug web br0 --mtu 1400 mtu=1400":      {exitUsage, "mtu is given as a flag and as an option"},
		"plug web br0 --ip auto ip=auto":        {exitUsage, "usage: vswitchctl plug CONTAINER BR"},
		"plug web br0 container=docker:db":      {exitUsage, "container=docker:db: a plug is of type plug, of the CONTAINER that is named first"},
		"plug web br0 type=tap":                 {exitUsage, "type=tap: a plug is of type plug"},
		"plug web br0 --ipaddress=10.0.0.5/24":  {exitUsage, "unknown flag: --ipaddress; did you mean --ip?"},
		"plug web br0 --macaddress 02::1":       {exitUsage, "unknown flag: --macaddress; did you mean --mac?"},
		"plug web br0 --address 10.0.0.5/24":    {exitUsage, "unknown flag: --address\n"},
		"unpublish br0 8081:web:80":             {exitRefused, "8081:80/tcp of web-3fa91c is not published; what is: 8080:80/tcp, 127.0.0.1:53:53/udp"},
		"unpublish br0 8081:db:80":              {exitRefused, "8081:80/tcp of db-11aa22 is not published; nothing is"},
		"publish br0 8080:app:80":               {exitRefused, "app is plugged into br0 by Docker, which publishes its ports, too: docker run -p"},
		"publish br0 8080:cni-77aa11:80":        {exitRefused, "cni-77aa11 is plugged into br0 by cni/pods, which publishes its ports, too (capability portMappings)"},
		"publish br0 8080:one:80":               {exitRefused, "one is plugged into br0 by cni/pods"},
		"publish br0 8080:80":                   {exitUsage, "want [HOST:]PORT:CONTAINER:PORT"},
		"publish br0 x:web:80":                  {exitUsage, "want [HOST:]PORT:CONTAINER:PORT"},
		"publish br0 8080:web:80/sctp":          {exitUsage, "protocol other than tcp and udp"},
		"publish br0 8080:web:0":                {exitUsage, "no port of 1 to 65535"},
		"publish br0 8080:nobody:80":            {exitRefused, "nobody is not plugged into br0"},
		"publish br0 8080:pods:80":              {exitRefused, "pods is not plugged into br0"},
	} {
		code, _, errs := c.run("", strings.Fields(line)...)
		if code != want.code || !strings.Contains(errs, want.text) {
			t.Errorf("%s: exit %d, %q; want %d, %s", line, code, errs, want.code, want.text)
		}
	}
}

// TestPlugCompletes what can be known: words, interfaces of the container, what is published.
func TestPlugCompletes(t *testing.T) {
	c := dock(t)
	for line, want := range map[string]string{
		"plug web br0 --ip |":                "auto",
		"plug web br0 --gateway |":           "none",
		"plug web br0 --mac |":               "",
		"plug web br0 con|":                  "",
		"plug web br0 tag|":                  "tag=",
		"unplug docker:web br0 --ifname |":   "eth1",
		"unplug docker:other br0 --ifname |": "",
		"unplug d|":                          "docker:app docker:web",
		"unpublish br0 |":                    "127.0.0.1:53:web-3fa91c:53/udp 8080:web-3fa91c:80/tcp",
		"publish br0 |":                      "",
	} {
		_, out, errs := c.run("", append([]string{"__complete"}, strings.Split(strings.TrimSuffix(line, "|"), " ")...)...)
		words := strings.Fields(out)
		slices.Sort(words)
		words = slices.DeleteFunc(words, func(w string) bool { return strings.HasPrefix(w, ":") })
		if got := strings.Join(words, " "); got != want || strings.Contains(out, ":0\n") {
			t.Errorf("%s completes %q; want %q, and no files\n%s", line, got, want, errs)
		}
	}
}

// TestContainersPage holds the port's name of the page to the one that whoever types its
// first lines gets.
func TestContainersPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/containers.md")
	if err != nil {
		t.Fatal(err)
	}
	web, err := config.ParseContainer("docker:web")
	if err != nil {
		t.Fatal(err)
	}
	name := config.PlugName(web, "eth1")
	for _, line := range []string{"docker:web eth1 10.0.0.2/24 port " + name + " of br0\n", "`set-port " + name + " tag=20`"} {
		if !strings.Contains(string(text), line) {
			t.Errorf("docs/containers.md does not have %q", line)
		}
	}
}
