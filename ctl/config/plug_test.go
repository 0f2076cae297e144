package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestPlugValues reads what people write of plugs and pools.
func TestPlugValues(t *testing.T) {
	for _, c := range []struct{ option, in, want, message string }{
		{"container", "docker:web_1.x", "docker:web_1.x", ""},
		{"container", "netns:blue", "netns:blue", ""},
		{"container", "pid:17", "pid:17", ""},
		{"container", "pid:17@8842", "pid:17@8842", ""},
		{"container", "/run/netns//blue", "/run/netns/blue", ""},
		{"container", "web", "", "does not say what kind of container it is"},
		{"container", "dokcer:web", "", `did you mean "docker"?`},
		{"container", "pid:x", "", "is not a process"},
		{"container", "docker:", "", "is not a container"},
		{"container", "docker:a b", "", "is not a container"},
		{"container", "docker:" + strings.Repeat("x", 256), "", "is not a container"},
		{"ifname", "eth0", "eth0", ""},
		{"ifname", "abcdefghijklmnop", "", "is not a name of at most 15 bytes"},
		{"gateway", "10.0.0.1,FD00::1", "10.0.0.1,fd00::1", ""},
		{"gateway", "none", "none", ""},
		{"gateway", "10.0.0.1,10.0.0.2", "", "is the second of its family"},
		{"gateway", "10.0.0.1/24", "", "is not an address"},
		{"route", "10.9.0.0/16 via 10.0.0.254 , 10.8.0.0/16", "10.9.0.0/16 via 10.0.0.254,10.8.0.0/16", ""},
		{"route", "10.9.0.1 via 10.0.0.254", "10.9.0.1/32 via 10.0.0.254", ""},
		{"route", "default via 10.0.0.1", "", "is not a route"},
		{"route", "0.0.0.0/0 via 10.0.0.1", "", "is not a route"},
		{"route", "10.9.0.1/16", "", "is not a route"},
		{"route", "10.9.0.0/16 via fd00::1", "", "is not a route"},
		{"alias", "DB,db-1,db", "db,db-1", ""},
		{"alias", "a.b", "", "is not a name"},
		{"ipam.subnet", "10.0.0.0/24,fd00::/64", "10.0.0.0/24,fd00::/64", ""},
		{"ipam.subnet", "10.0.0.1/24", "", "which is 10.0.0.0/24"},
		{"ipam.subnet", "10.0.0.0/24,10.1.0.0/24", "", "is the second of its family"},
		{"ipam.exclude", "10.0.0.1, 10.0.0.9/29,10.0.0.20-10.0.0.30", "10.0.0.1,10.0.0.8/29,10.0.0.20-10.0.0.30", ""},
		{"ipam.exclude", "10.0.0.30-10.0.0.20", "", "is not an address, a network or a range"},
		{"publish", "8080:80", "8080:80/tcp", ""},
		{"publish", "127.0.0.1:53:53/udp,[fd00::1]:53:5353/udp", "127.0.0.1:53:53/udp,[fd00::1]:53:5353/udp", ""},
		{"publish", "0.0.0.0:80:80", "80:80/tcp", ""},
		{"publish", "80:80,127.0.0.1:80:81", "", "in the list already"},
		{"publish", "80:80/sctp", "", "has a protocol other than tcp and udp"},
		{"publish", "0:80", "", "has no port of 1 to 65535"},
		{"publish", "fd00::1:80:80", "", "without brackets"},
		{"publish", "host:80:80", "", "does not begin with an address"},
		{"nat", "masquerade", "masquerade", ""},
		{"nat", "snat", "", "is not a nat"},
	} {
		got, err := find(c.option).Canonical(c.in)
		if got != c.want || (err == nil) != (c.message == "") || err != nil && !strings.Contains(err.Error(), c.message) {
			t.Errorf("%s=%q: got %q, %v; want %q, %s", c.option, c.in, got, err, c.want, c.message)
			continue
		}
		if err == nil {
			if again, err := find(c.option).Canonical(got); again != got || err != nil {
				t.Errorf("%s=%q became %q, %v", c.option, got, again, err)
			}
		}
	}
}

func TestPlugAddresses(t *testing.T) {
	for in, want := range map[string]Plug{
		"auto":                    {Auto4: true, Auto6: true},
		"auto4":                   {Auto4: true},
		"auto6":                   {Auto6: true},
		"10.0.0.5/24,auto":        {Auto6: true},
		"auto,fd00::5/64":         {Auto4: true},
		"10.0.0.5/24,fd00::5/64":  {},
		"10.0.0.5/24,auto6":       {Auto6: true},
		"auto4,10.0.0.5/24,auto6": {Auto4: true, Auto6: true},
	} {
		g, ok := Port{Type: "plug", Options: Options{"container": "docker:x", "ip": in}}.Plug()
		if !ok || g.Auto4 != want.Auto4 || g.Auto6 != want.Auto6 {
			t.Errorf("ip=%s: %+v", in, g)
		}
	}
	if _, err := find("ip").at(BridgeObject).Canonical("auto"); err == nil {
		t.Error("ip=auto is taken for a bridge")
	}
}

const plugs = `
bridges:
- name: br0
  ip: 10.0.0.1/24
  nat: masquerade
  ipam.range: 10.0.0.128/25
  ports:
  - {name: web-1, type: plug, container: "docker:web", ip: auto, publish: "8080:80"}
  - {name: db-1, type: plug, container: "docker:db", ip: 10.0.0.5/24, tag: 10}
- {name: br1, ipam.subnet: 10.1.0.0/24}
`

// TestPlugsJudged refuses what contradicts itself, naming field and value.
func TestPlugsJudged(t *testing.T) {
	d, err := Parse([]byte(plugs))
	if err != nil {
		t.Fatal(err)
	}
	add := func(bridge, name string, o Options) []Op {
		o["type"] = "plug"
		return []Op{{Op: "add-port", Bridge: bridge, Port: name, Options: o}}
	}
	set := func(o Options) []Op { return []Op{{Op: "set-bridge", Bridge: "br0", Options: o}} }
	for name, c := range map[string]struct {
		ops  []Op
		want string
	}{
		"no container":           {add("br0", "x", Options{}), "a plug needs container"},
		"a runtime's":            {add("br0", "x", Options{"container": "runtime:x"}), "cannot be plugged by the document"},
		"the same seat":          {add("br1", "x", Options{"container": "docker:web"}), "eth1 of docker:web is made by bridges[br0].ports[web-1], too: give one of the two another ifname"},
		"outside of the subnet":  {add("br0", "x", Options{"container": "docker:x", "ip": "10.9.0.5/24"}), "10.9.0.5/24 is outside of 10.0.0.0/24, the subnet of br0"},
		"the bridge's, untagged": {add("br0", "x", Options{"container": "docker:x", "ip": "10.0.0.1/24", "tag": "0"}), "10.0.0.1 is taken by bridge br0 itself"},
		"outside, untagged":      {add("br0", "x", Options{"container": "docker:x", "ip": "10.9.0.5/24", "tag": "0"}), "10.9.0.5/24 is outside of 10.0.0.0/24, the subnet of br0"},
		"the bridge's own":       {add("br0", "x", Options{"container": "docker:x", "ip": "10.0.0.1/24"}), "10.0.0.1 is taken by bridge br0 itself"},
		"taken":                  {add("br0", "x", Options{"container": "docker:x", "ip": "10.0.0.5/24", "tag": "10"}), "port db-1 and port x both have the address 10.0.0.5"},
		"no subnet":              {append([]Op{{Op: "add-bridge", Bridge: "br9"}}, add("br9", "x", Options{"container": "docker:x", "ip": "auto"})...), "br9 has no subnet to take an address of"},
		"no IPv6 subnet":         {add("br0", "x", Options{"container": "docker:x", "ip": "auto6"}), "br0 has no subnet to take an address of"},
		"published twice":        {add("br0", "x", Options{"container": "docker:x", "ip": "auto", "publish": "127.0.0.1:8080:80"}), "port 8080/tcp of the host is published by bridges[br0].ports[web-1], too"},
		"published unreachable":  {add("br1", "x", Options{"container": "docker:x", "ip": "auto", "publish": "81:80"}), "the host cannot reach docker:x"},
		"published addressless":  {add("br0", "x", Options{"container": "docker:x", "publish": "81:80"}), "has no address to publish"},
		"nat without address":    {[]Op{{Op: "set-bridge", Bridge: "br1", Options: Options{"nat": "masquerade"}}}, "masquerade needs an address of the bridge"},
		"range elsewhere":        {set(Options{"ipam.range": "10.3.0.0/25"}), "10.3.0.0/25 is not part of a subnet"},
		"gateway elsewhere":      {set(Options{"ipam.gateway": "10.3.0.1"}), "10.3.0.1 is in no subnet"},
		"auto for a bridge":      {set(Options{"ip": "auto"}), `"auto" is not an address with a prefix length`},
		"two takers": {[]Op{{Op: "add-port", Bridge: "br0", Port: "e1", Options: Options{"take_addresses": "true"}},
			{Op: "add-port", Bridge: "br0", Port: "e2", Options: Options{"take_addresses": "true"}}}, "another port of br0 gave its addresses"},
		"the network itself":     {add("br0", "x", Options{"container": "docker:x", "ip": "10.0.0.0/24"}), "10.0.0.0 is the network address of 10.0.0.0/24: want one of 10.0.0.1 to 10.0.0.254"},
		"everybody":              {add("br0", "x", Options{"container": "docker:x", "ip": "10.0.0.255/24"}), "10.0.0.255 is the broadcast address of 10.0.0.0/24: want one of 10.0.0.1 to 10.0.0.254"},
		"everybody elsewhere":    {add("br0", "x", Options{"container": "docker:x", "ip": "10.9.0.3/30", "tag": "20"}), "10.9.0.3 is the broadcast address of 10.9.0.0/30: want one of 10.9.0.1 to 10.9.0.2"},
		"gateway is everybody":   {set(Options{"ipam.gateway": "10.0.0.255"}), "10.0.0.255 is the broadcast address of 10.0.0.0/24"},
		"gateway is a network":   {set(Options{"ipam.gateway": "10.0.0.0"}), "10.0.0.0 is the network address of 10.0.0.0/24"},
		"excluded elsewhere":     {set(Options{"ipam.exclude": "10.0.0.9,10.0.1.0-10.0.1.9"}), "10.0.1.0-10.0.1.9 is outside of every subnet"},
		"excluded of nothing":    {[]Op{{Op: "add-bridge", Bridge: "br9", Options: Options{"ipam.exclude": "10.0.0.0/30"}}}, "10.0.0.0-10.0.0.3 is outside of every subnet"},
		"gateway elsewhere, nat": {set(Options{"ipam.subnet": "10.1.0.0/24", "ipam.range": ""}), "the bridge has no address of 10.1.0.0/24, and cannot be the gateway"},
		"its own gateway":        {add("br0", "x", Options{"container": "docker:x", "ip": "10.0.0.6/24", "gateway": "10.0.0.6"}), "10.0.0.6 is the container's own address"},
		"loopback":               {add("br0", "x", Options{"container": "docker:x", "ifname": "lo"}), `"lo" is the loopback interface, which is there already: want`},
		"the same MAC": {append(add("br0", "x", Options{"container": "docker:x", "mac": "02:00:00:00:00:01"}), add("br0", "y", Options{"container": "docker:y", "mac": "02:00:00:00:00:01"})...),
			"port x has 02:00:00:00:00:01, too"},
		"two gateways of one address": {[]Op{{Op: "add-bridge", Bridge: "br8", Options: Options{"ip": "10.0.0.1/16"}}}, "bridges[br0] has the address 10.0.0.1, too"},
		"and at an internal port":     {[]Op{{Op: "add-port", Bridge: "br1", Port: "int0", Options: Options{"type": "internal", "ip": "10.0.0.1/24"}}}, "bridges[br0] has the address 10.0.0.1, too"},
		"unpublished":                 {[]Op{{Op: "set-port", Port: "web-1", Options: Options{"publish-": "9:9"}}}, `"9:9" is not published`},
	} {
		if _, err := Apply(d, c.ops); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s", name, err, c.want)
		}
	}
	for name, ops := range map[string][]Op{
		"another VLAN":        add("br0", "x", Options{"container": "docker:x", "ip": "10.9.0.5/24", "tag": "20"}),
		"same address, VLAN":  add("br0", "x", Options{"container": "docker:x", "ip": "10.0.0.5/24", "tag": "20"}),
		"a second interface":  add("br1", "x", Options{"container": "docker:web", "ifname": "eth2", "ip": "auto"}),
		"publish one more":    {{Op: "set-port", Port: "web-1", Options: Options{"publish+": "8081:81"}}},
		"a port's VLAN":       {{Op: "set-port", Port: "web-1", Options: Options{"tag": "30"}}},
		"mirror of a plug":    {{Op: "add-mirror", Bridge: "br0", Mirror: "m", Options: Options{"select_src_port": "web-1", "output_pcap": "/tmp/x"}}},
		"user is owner":       {{Op: "add-port", Bridge: "br0", Port: "vm1", Options: Options{"type": "tap", "user": "0"}}},
		"a link between two":  add("br0", "x", Options{"container": "docker:x", "ip": "10.9.0.1/31", "tag": "20"}),
		"one address alone":   add("br0", "x", Options{"container": "docker:x", "ip": "10.9.0.0/32", "tag": "20"}),
		"the first of IPv6":   add("br0", "x", Options{"container": "docker:x", "ip": "fd00::/64"}),
		"excluded in part":    set(Options{"ipam.exclude": "10.0.0.200-10.0.1.9"}),
		"excluded wholly":     set(Options{"ipam.exclude": "10.0.0.0/16"}),
		"one subnet has none": set(Options{"ipam.subnet": "10.0.0.0/24,fd00::/64"}),
		"same MAC, VLAN": append(add("br0", "x", Options{"container": "docker:x", "mac": "02:00:00:00:00:01", "tag": "10"}),
			add("br0", "y", Options{"container": "docker:y", "mac": "02:00:00:00:00:01", "tag": "20"})...),
		"same MAC, bridge": append(add("br0", "x", Options{"container": "docker:x", "mac": "02:00:00:00:00:01"}),
			add("br1", "y", Options{"container": "docker:y", "mac": "02:00:00:00:00:01"})...),
		"an unnumbered link":  {{Op: "add-bridge", Bridge: "br8", Options: Options{"ip": "10.0.0.1/32"}}},
		"addresses of links":  {{Op: "set-bridge", Bridge: "br0", Options: Options{"ip": "10.0.0.1/24,fe80::1/64"}}, {Op: "add-bridge", Bridge: "br8", Options: Options{"ip": "fe80::1/64"}}},
		"no containers":       {{Op: "add-bridge", Bridge: "br8", Options: Options{"ip": "10.8.0.1/24"}}, {Op: "add-bridge", Bridge: "br9", Options: Options{"ip": "10.8.0.1/24"}}},
		"another gateway":     set(Options{"ipam.gateway": "10.0.0.254"}),
		"unpublish, publish-": {{Op: "set-port", Port: "web-1", Options: Options{"publish-": "8080:80"}}},
	} {
		if _, err := Apply(d, ops); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	// Programs get the field, what was given, and what would be right.
	_, err = Apply(d, set(Options{"ipam.exclude": "10.9.0.0/30"}))
	if e := (*Error)(nil); !errors.As(err, &e) || e.Path != "bridges[br0].ipam.exclude" || e.Value != "10.9.0.0-10.9.0.3" || e.Allowed != "addresses of 10.0.0.0/24" {
		t.Errorf("%+v", err)
	}
	next, err := Apply(d, []Op{{Op: "set-port", Port: "web-1", Options: Options{"publish+": "8081:81", "publish-": "8080:80"}}})
	if err != nil || next.Bridge("br0").Port("web-1").Options["publish"] != "8081:81/tcp" {
		t.Errorf("publish+ and publish-: %v, %v", next.Bridge("br0").Port("web-1"), err)
	}
}

// TestBindings judges clashes as looking at each pair of published ports does.
func TestBindings(t *testing.T) {
	r := rand.New(rand.NewPCG(7, 9))
	hosts := []netip.Addr{{}, netip.MustParseAddr("127.0.0.1"), netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")}
	for range 2000 {
		taken := make(bindings)
		var list []Publish
		for i := range 12 {
			p := Publish{Host: hosts[r.IntN(len(hosts))], Port: uint16(1 + r.IntN(3)), Proto: []string{"tcp", "udp"}[r.IntN(2)]}
			want := slices.ContainsFunc(list, func(q Publish) bool {
				return p.Port == q.Port && p.Proto == q.Proto && (!p.Host.IsValid() || !q.Host.IsValid() || p.Host == q.Host)
			})
			who, clash := taken.add(p, fmt.Sprint(i))
			if clash != want || clash == (who == "") {
				t.Fatalf("%v after %v: %q, %v; want %v", p, list, who, clash, want)
			}
			if !clash {
				list = append(list, p)
			}
		}
	}
}

// hostile are documents of about 2 MiB, an eighth of the most that is read, each of as much
// as possible of one thing.
func hostile() map[string]Document {
	all := make(map[string]Document)
	plugs := func(name string, bridges, n int, o func(i int) Options) {
		var d Document
		for b := range bridges {
			br := Bridge{Name: fmt.Sprintf("br%04d", b), Options: Options{"ip": fmt.Sprintf("10.%d.0.1/16", b%250)}}
			for i := range n {
				options := o(b*n + i)
				options["container"] = fmt.Sprintf("docker:c%d", b*n+i)
				br.Ports = append(br.Ports, Port{Name: fmt.Sprintf("p%d", b*n+i), Type: "plug", Options: options})
			}
			d.Bridges = append(d.Bridges, br)
		}
		all[name] = d
	}
	list := func(n int, word func(j int) string) string {
		words := make([]string, n)
		for j := range words {
			words[j] = word(j)
		}
		return strings.Join(words, ",")
	}
	host := func(x int) string { return fmt.Sprintf("127.%d.%d.%d:1:1", x>>16&255, x>>8&255, x&255) }
	plugs("one port at many addresses", 1, 350, func(i int) Options {
		return Options{"ip": "auto", "publish": list(250, func(j int) string { return host(i*250 + j) })}
	})
	plugs("the same ports again and again", 1, 350, func(int) Options {
		return Options{"ip": "auto", "publish": list(250, host)}
	})
	plugs("plugs with a port each", 1, 16384, func(i int) Options { return Options{"publish": fmt.Sprintf("%d:1", i+1)} })
	plugs("published in one list", 1, 8, func(int) Options { return Options{"publish": list(14000, host)} })
	route := func(i int) string { return fmt.Sprintf("%d.%d.%d.1", i>>16+1, i>>8&255, i&255) }
	plugs("routes in one list", 1, 8, func(int) Options { return Options{"route": list(24000, route)} })
	plugs("the same routes", 1, 8, func(int) Options { return Options{"route": list(24000, func(j int) string { return route(j % 64) })} })
	plugs("the same names", 1, 8, func(int) Options {
		return Options{"alias": list(60000, func(j int) string { return fmt.Sprintf("a%d", j%16) })}
	})
	plugs("the same MAC", 1, 16384, func(int) Options { return Options{"mac": "02:00:00:00:00:01"} })
	plugs("the same address", 4, 16384, func(int) Options { return Options{"ip": "10.0.0.9/16"} })
	plugs("the same gateways", 4000, 1, func(int) Options { return Options{"ip": "auto"} })
	all["excluded"] = Document{}
	d := Document{}
	for b := range 8 {
		d.Bridges = append(d.Bridges, Bridge{Name: fmt.Sprintf("br%d", b), Options: Options{
			"ip": fmt.Sprintf("10.%d.0.1/16", b), "ipam.exclude": list(20000, func(j int) string { return fmt.Sprintf("172.16.0.%d", min(j, 255)) }),
		}})
	}
	all["excluded"] = d
	return all
}

// TestHostilePlugs judges each in a fraction of a second: time grows with what there is, and
// not with its square, which would be minutes here.
func TestHostilePlugs(t *testing.T) {
	for name, d := range hostile() {
		began := time.Now()
		err := d.Validate()
		took := time.Since(began)
		t.Logf("%s: %v: %.80v", name, took, err)
		if took > 20*time.Second { // the race detector, and neighbours
			t.Errorf("%s: judged in %v", name, took)
		}
	}
}

func TestPools(t *testing.T) {
	d, err := Parse([]byte(plugs))
	if err != nil {
		t.Fatal(err)
	}
	p := d.Bridge("br0").Pools()
	if len(p) != 1 || p[0].Subnet.String() != "10.0.0.0/24" || p[0].Range.String() != "10.0.0.128/25" || p[0].Gateway.String() != "10.0.0.1" || len(p[0].Own) != 1 {
		t.Errorf("pools of br0: %+v", p)
	}
	if p := d.Bridge("br1").Pools(); len(p) != 1 || p[0].Gateway.IsValid() {
		t.Errorf("pools of br1: %+v", p)
	}
}

// TestPlugName has names that fit, differ, and tell whose they are.
func TestPlugName(t *testing.T) {
	seen := map[string]bool{}
	for _, c := range []string{"docker:web", "podman:web", "docker:a-very-long-name-of-a-container", "docker:a-very-long-name-of-a-containes", "/proc/1/ns/net", "netns:b-._", "docker:_.-."} {
		ref, err := ParseContainer(c)
		if err != nil {
			t.Fatal(err)
		}
		for _, ifname := range []string{"eth0", "eth1"} {
			name := PlugName(ref, ifname)
			if badName(name, maxInterfaceName) != "" || seen[name] {
				t.Errorf("%s %s is called %q", c, ifname, name)
			}
			seen[name] = true
		}
	}
	if !slices.ContainsFunc(reflect.ValueOf(seen).MapKeys(), func(v reflect.Value) bool { return strings.HasPrefix(v.String(), "web-") }) {
		t.Errorf("no name tells of web: %v", seen)
	}
}

// FuzzParseContainer has no word make it panic, and what it reads be written the same.
func FuzzParseContainer(f *testing.F) {
	for _, s := range []string{"docker:web", "pid:17@3", "/run/netns/x", "web", "netns:", "pid:@", "runtime:x", "a:b:c"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		c, err := ParseContainer(s)
		if err != nil || c.Kind == "" {
			return
		}
		again, err := ParseContainer(c.String())
		if err != nil || again != c {
			t.Errorf("%q is %+v, written %q, read %+v, %v", s, c, c.String(), again, err)
		}
		if badName(PlugName(c, "eth0"), maxInterfaceName) != "" {
			t.Errorf("%q gives the port name %q", s, PlugName(c, "eth0"))
		}
	})
}

// FuzzPlugValues has no value make a reader panic, and the canonical spelling stay.
func FuzzPlugValues(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "10.0.0.0/24", "8080:80/udp", "10.0.0.1-10.0.0.9", "10.9.0.0/16 via 10.0.0.1", "a,b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		for _, name := range []string{"gateway", "route", "alias", "ipam.subnet", "ipam.exclude", "publish", "ip", "container"} {
			o := find(name)
			got, err := o.Canonical(s)
			if err != nil {
				continue
			}
			if again, err := o.Canonical(got); again != got || err != nil {
				t.Errorf("%s=%q is %q, then %q, %v", name, s, got, again, err)
			}
		}
	})
}
