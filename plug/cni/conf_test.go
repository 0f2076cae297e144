package cni

import (
	"encoding/json"
	"maps"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

// conf is a network configuration with more keys.
func conf(keys string) []byte {
	if keys != "" {
		keys = "," + keys
	}
	return []byte(`{"cniVersion":"1.1.0","name":"net1","type":"vswitch-cni","bridge":"br0"` + keys + `}`)
}

func TestRead(t *testing.T) {
	for name, c := range map[string]struct {
		keys, args string
		want       config.Options
		ips        []string
	}{
		"nothing":         {want: config.Options{}},
		"vlan":            {keys: `"vlan":10`, want: config.Options{"tag": "10"}},
		"vlan, a string":  {keys: `"vlan":"10"`, want: config.Options{"tag": "10"}},
		"trunks":          {keys: `"trunks":[30,10,"11-12"]`, want: config.Options{"trunks": "10-12,30"}},
		"mtu and mac":     {keys: `"mtu":1400,"mac":"02:00:00:00:00:0A"`, want: config.Options{"mtu": "1400", "mac": "02:00:00:00:00:0a"}},
		"options":         {keys: `"options":{"storm_broadcast":100,"offload":false,"route":["192.0.2.0/24 via 10.0.0.9"]}`, want: config.Options{"storm_broadcast": "100", "offload": "false", "route": "192.0.2.0/24 via 10.0.0.9"}},
		"reserved keys":   {keys: `"capabilities":{"mac":true},"args":{"labels":[]},"cni.dev/attachments":null,"runtimeConfig":{"cgroupPath":"/x"},"prevResult":null`, want: config.Options{}},
		"no masquerade":   {keys: `"ipMasq":false`, want: config.Options{}},
		"routes":          {keys: `"routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.1"},{"dst":"192.0.2.7/24"}]`, want: config.Options{"gateway": "10.0.0.1", "route": "192.0.2.0/24"}},
		"runtime's mac":   {keys: `"mac":"02:00:00:00:00:01","runtimeConfig":{"mac":"02:00:00:00:00:02"},"args":{"cni":{"mac":"02:00:00:00:00:03"}}`, args: "MAC=02:00:00:00:00:04", want: config.Options{"mac": "02:00:00:00:00:02"}},
		"mac by args":     {keys: `"mac":"02:00:00:00:00:01","args":{"cni":{"mac":"02:00:00:00:00:03"}}`, args: "MAC=02:00:00:00:00:04", want: config.Options{"mac": "02:00:00:00:00:03"}},
		"mac by CNI_ARGS": {keys: `"mac":"02:00:00:00:00:01"`, args: "IgnoreUnknown=1;MAC=02:00:00:00:00:04;X", want: config.Options{"mac": "02:00:00:00:00:04"}},
		"ips":             {keys: `"runtimeConfig":{"ips":["10.0.0.5/24","2001:db8::5"]},"args":{"cni":{"ips":["10.0.0.6"]}}`, args: "IP=10.0.0.7", want: config.Options{}, ips: []string{"10.0.0.5/24", "2001:db8::5"}},
		"ips by CNI_ARGS": {args: "K8S_POD_NAMESPACE=x;IP=10.0.0.7", want: config.Options{}, ips: []string{"10.0.0.7"}},
		"ports": {keys: `"runtimeConfig":{"portMappings":[{"hostPort":8080,"containerPort":80,"protocol":"TCP"},{"containerPort":9},{"hostPort":53,"containerPort":53,"protocol":"udp","hostIP":"192.0.2.1"},{"hostPort":54,"containerPort":53,"hostIP":"2001:db8::1"},{"hostPort":55,"containerPort":53,"hostIP":"0.0.0.0"}]}`,
			want: config.Options{"publish": "8080:80/tcp,192.0.2.1:53:53/udp,[2001:db8::1]:54:53/tcp,55:53/tcp"}},
		"aliases":        {keys: `"runtimeConfig":{"aliases":["Web","db"]}`, want: config.Options{"alias": "web,db"}},
		"Podman's":       {keys: `"runtimeConfig":{"aliases":{"net1":["web"],"other":["x"]}}`, args: "K8S_POD_NAME=Box1", want: config.Options{"alias": "web,box1"}},
		"no host's name": {args: "K8S_POD_NAME=a.b", want: config.Options{}},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := read(conf(c.keys), c.args)
			if err != nil {
				t.Fatal(err)
			}
			if !maps.Equal(w.options, c.want) {
				t.Errorf("options %v, want %v", w.options, c.want)
			}
			if strings.Join(w.ips, " ") != strings.Join(c.ips, " ") {
				t.Errorf("ips %v, want %v", w.ips, c.ips)
			}
			if w.socket != api.DefaultSocket || w.ipam != ourIPAM || w.owner() != "cni/net1" {
				t.Errorf("socket %s, ipam %s, owner %s", w.socket, w.ipam, w.owner())
			}
		})
	}
}

// A value that is wrong is named, with its key and what would be right.
func TestReadRefuses(t *testing.T) {
	for keys, want := range map[string]struct {
		code uint
		text string
	}{
		`"vlna":10`:                                     {2, "vlna: 10 is not understood"},
		`"vlan":5000`:                                   {7, `vlan: "5000" is not a VLAN: want 0 to 4094`},
		`"vlan":{}`:                                     {7, "vlan: {} is not a string, a number"},
		`"vlan":null,"mtu":[null]`:                      {7, "mtu: [null] is not"},
		`"vlan":10,"options":{"tag":11}`:                {7, "vlan: tag is given by options.tag already"},
		`"options":[]`:                                  {7, "options: [] is not an object"},
		`"options":{"tga":1}`:                           {7, "options.tga"},
		`"options":{"ifname":"eth1"}`:                   {2, `options.ifname: "eth1" is for the runtime`},
		`"ipam":{},"options":{"ip":"auto"}`:             {2, "options.ip"},
		`"ipam":7`:                                      {7, "ipam: 7 is not an object"},
		`"ipam":{"type":"../sh"}`:                       {7, `ipam.type: "../sh" is not the name of a plug-in`},
		`"ipam":{"subnet":"10.0.0.0/24"}`:               {7, "ipam.type"},
		`"ipam":{"type":"vswitch-cni"}`:                 {7, "is this plug-in: want vswitch"},
		`"ipam":{"type":"vswitch","subnet":"x"}`:        {2, "set-br br0 ipam.subnet"},
		`"socket":"ctl.sock"`:                           {7, "socket"},
		`"socket":null`:                                 {7, "socket: null is not a string"},
		`"ipMasq":true`:                                 {2, "nat=masquerade"},
		`"isDefaultGateway":1`:                          {7, "isDefaultGateway: 1 is not true or false"},
		`"isDefaultGateway":false,"gateway":"10.0.0.1"`: {7, "isDefaultGateway: false, but gateway says 10.0.0.1"},
		`"routes":[null]`:                               {7, "a route is null"},
		`"routes":[{"dst":"192.0.2.0/24","table":7}]`:   {7, "has a table"},
		`"routes":[{"dst":"192.0.2.0/24","gw":"::1"}]`:  {7, "other family"},
		`"dns":[]`:                                      {7, "dns: [] is not a DNS configuration"},
		`"runtimeConfig":{"bandwidth":{}}`:              {2, "chain the plug-in bandwidth"},
		`"runtimeConfig":{"ips":["x"]}`:                 {7, `runtimeConfig.ips: "x" is not an address`},
		`"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":1,"protocol":"sctp"}]}`: {7, "tcp and udp"},
		`"runtimeConfig":{"portMappings":[{"hostPort":1,"containerPort":1,"hostIP":"x"}]}`:      {7, `hostIP "x" is not an address`},
		`"runtimeConfig":{"aliases":["-"]}`:                                                     {7, "runtimeConfig.aliases"},
		`"prevResult":{"ips":[null]}`:                                                           {6, "prevResult: ips[0] is null"},
		`"prevResult":{"interfaces":7}`:                                                         {6, "prevResult: interfaces: 7 is not a list"},
	} {
		_, err := read(conf(keys), "")
		if err == nil {
			t.Errorf("%s: no error", keys)
			continue
		}
		if e := told(err); e.Code != want.code || !strings.Contains(e.Msg, want.text) {
			t.Errorf("%s: code %d, %s; want code %d and %q", keys, e.Code, e.Msg, want.code, want.text)
		}
	}
	for args, want := range map[string]string{"IP=x": "CNI_ARGS: IP=x", "MAC=x": "CNI_ARGS: MAC"} {
		_, err := read(conf(""), args)
		if err == nil || told(err).Code != types.ErrInvalidEnvironmentVariables || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", args, err)
		}
	}
	if _, err := read([]byte(`{"cniVersion":"1.1.0","name":"x"}`), ""); err == nil || !strings.Contains(err.Error(), "bridge: required") {
		t.Errorf("no bridge: %v", err)
	}
}

// DEL is told what it must know by a configuration that ADD would refuse.
func TestIdentifyIsLenient(t *testing.T) {
	n, err := identify([]byte(`{"cniVersion":"1.0.0","name":"x","vlan":5000,"what":1,"prevResult":{"ips":[null]},"ipam":{"type":"host-local"}}`))
	if err != nil || n.ipam != "host-local" || n.name != "x" || !n.delegated() {
		t.Errorf("%+v, %v", n, err)
	}
}

func bridge(options config.Options) *config.Bridge {
	return &config.Bridge{Name: "br0", Options: options}
}

func TestLease(t *testing.T) {
	both := config.Options{"ip": "10.0.0.1/24,2001:db8::1/64"}
	v4 := config.Options{"ipam.subnet": "10.0.0.0/24"}
	for name, c := range map[string]struct {
		keys    string
		options config.Options
		want    config.Options
		wrong   string
	}{
		"auto":                 {options: both, want: config.Options{"ip": "auto"}},
		"no subnet":            {wrong: "has no subnet"},
		"frames only":          {keys: `"ipam":{}`, want: config.Options{"gateway": "none"}},
		"frames only, led":     {keys: `"ipam":{},"isDefaultGateway":true`, wrong: "isDefaultGateway: true, but ipam is empty"},
		"frames only, with ip": {keys: `"ipam":{},"runtimeConfig":{"ips":["10.0.0.5"]}`, wrong: "ipam is empty"},
		"a prefix's length":    {keys: `"runtimeConfig":{"ips":["10.0.0.5"]}`, options: v4, want: config.Options{"ip": "10.0.0.5/24"}},
		"the other family":     {keys: `"runtimeConfig":{"ips":["10.0.0.5"]}`, options: both, want: config.Options{"ip": "10.0.0.5/24,auto6"}},
		"and that one":         {keys: `"runtimeConfig":{"ips":["2001:db8::5"]}`, options: both, want: config.Options{"ip": "2001:db8::5/64,auto4"}},
		"outside":              {keys: `"runtimeConfig":{"ips":["192.0.2.5"]}`, options: v4, wrong: "in no subnet of bridge br0"},
		"by options":           {keys: `"options":{"ip":"10.0.0.9/24"}`, want: config.Options{"ip": "10.0.0.9/24"}},
		"twice":                {keys: `"options":{"ip":"10.0.0.9/24"},"runtimeConfig":{"ips":["10.0.0.5/24"]}`, wrong: "asked for 10.0.0.5/24"},
		"no gateway wanted":    {keys: `"isDefaultGateway":false`, options: both, want: config.Options{"ip": "auto", "gateway": "none"}},
		"gateway wanted":       {keys: `"isDefaultGateway":true`, options: both, want: config.Options{"ip": "auto", "gateway": "10.0.0.1,2001:db8::1"}},
		"gateway by a route":   {keys: `"routes":[{"dst":"0.0.0.0/0"}]`, options: config.Options{"ip": "10.0.0.1/24"}, want: config.Options{"ip": "auto", "gateway": "10.0.0.1"}},
		"none there":           {keys: `"isDefaultGateway":true`, options: v4, wrong: "has no gateway"},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := read(conf(c.keys), "")
			if err == nil {
				err = w.lease(bridge(c.options))
			}
			switch {
			case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
				t.Errorf("error %v, want %q", err, c.wrong)
			case c.wrong == "" && err != nil:
				t.Error(err)
			case c.wrong == "" && !maps.Equal(w.options, c.want):
				t.Errorf("options %v, want %v", w.options, c.want)
			}
		})
	}
}

// What another IPAM plug-in gave becomes options of the plug.
func TestTake(t *testing.T) {
	const ip = `"ips":[{"address":"10.1.0.5/16","gateway":"10.1.0.1"},{"address":"2001:db8::5/64"}]`
	for name, c := range map[string]struct {
		keys, given string
		want        config.Options
		wrong       string
	}{
		"no default route":   {given: ip, want: config.Options{"ip": "10.1.0.5/16,2001:db8::5/64", "gateway": "none"}},
		"by the gateway":     {given: ip + `,"routes":[{"dst":"0.0.0.0/0"},{"dst":"192.0.2.0/24"}]`, want: config.Options{"ip": "10.1.0.5/16,2001:db8::5/64", "gateway": "10.1.0.1", "route": "192.0.2.0/24 via 10.1.0.1"}},
		"by another":         {given: ip + `,"routes":[{"dst":"0.0.0.0/0","gw":"10.1.0.9"},{"dst":"::/0","gw":"2001:db8::9"}]`, want: config.Options{"ip": "10.1.0.5/16,2001:db8::5/64", "gateway": "10.1.0.9,2001:db8::9"}},
		"not wanted":         {keys: `,"isDefaultGateway":false`, given: ip + `,"routes":[{"dst":"0.0.0.0/0"}]`, want: config.Options{"ip": "10.1.0.5/16,2001:db8::5/64", "gateway": "none"}},
		"wanted":             {keys: `,"isDefaultGateway":true`, given: ip, want: config.Options{"ip": "10.1.0.5/16,2001:db8::5/64", "gateway": "10.1.0.1"}},
		"wanted, none named": {keys: `,"isDefaultGateway":true`, given: `"ips":[{"address":"10.1.0.5/16"}]`, wrong: "named no gateway"},
		"more routes":        {keys: `,"routes":[{"dst":"198.51.100.0/24","gw":"10.1.0.7"}],"gateway":"10.1.0.8"`, given: ip + `,"routes":[{"dst":"192.0.2.0/24"}]`, want: config.Options{"ip": "10.1.0.5/16,2001:db8::5/64", "gateway": "10.1.0.8", "route": "198.51.100.0/24 via 10.1.0.7,192.0.2.0/24 via 10.1.0.1"}},
		"a table":            {given: ip + `,"routes":[{"dst":"192.0.2.0/24","table":9}]`, wrong: "has a table"},
	} {
		t.Run(name, func(t *testing.T) {
			w, err := read(conf(`"ipam":{"type":"host-local"}`+c.keys), "")
			if err != nil {
				t.Fatal(err)
			}
			given, err := parseResult([]byte("{"+c.given+"}"), "1.0.0")
			if err == nil {
				err = w.take(given)
			}
			switch {
			case c.wrong != "" && (err == nil || !strings.Contains(err.Error(), c.wrong)):
				t.Errorf("error %v, want %q", err, c.wrong)
			case c.wrong == "" && err != nil:
				t.Error(err)
			case c.wrong == "" && !maps.Equal(w.options, c.want):
				t.Errorf("options %v, want %v", w.options, c.want)
			}
		})
	}
}

// Whatever a runtime sends, the answer is a result or an error with a code: never a panic.
func FuzzConf(f *testing.F) {
	for _, keys := range []string{``, `"vlan":10,"trunks":[1,2]`, `"ipam":{"type":"host-local","subnet":"10.0.0.0/24"}`,
		`"options":{"route":["192.0.2.0/24 via 10.0.0.9"]},"routes":[{"dst":"0.0.0.0/0"},{"dst":"::/0","gw":"fe80::1"}]`,
		`"runtimeConfig":{"ips":["10.0.0.5"],"mac":"02:00:00:00:00:01","portMappings":[{"hostPort":1,"containerPort":1,"hostIP":"::1"}],"aliases":{"net1":["a"]},"dns":{"servers":["1"]}}`,
		`"prevResult":{"cniVersion":"1.0.0","interfaces":[{"name":"eth0","sandbox":"/x"}],"ips":[{"address":"10.0.0.1/24","interface":0,"gateway":"10.0.0.2"}],"routes":[{"dst":"0.0.0.0/0"}],"dns":{}}`,
		`"cni.dev/valid-attachments":[{"containerID":"a","ifname":"eth0"}]`} {
		f.Add(conf(keys), "IP=10.0.0.5;MAC=02:00:00:00:00:01;K8S_POD_NAME=x")
	}
	f.Add([]byte(`{"cniVersion":"0.4.0","name":"x","bridge":"b","prevResult":{"ips":[{"version":"4","address":"10.0.0.1/24"}]}}`), "")
	f.Fuzz(func(t *testing.T, stdin []byte, args string) {
		judge := func(err error) {
			if err == nil {
				return
			}
			if e := told(err); e.Code == 0 || e.Msg == "" {
				t.Fatalf("error %v has code %d, text %q", err, e.Code, e.Msg)
			}
		}
		n, err := identify(stdin)
		judge(err)
		if err == nil {
			_, err := n.valid()
			judge(err)
		}
		w, rerr := read(stdin, args)
		judge(rerr)
		if rerr != nil {
			return
		}
		if err != nil {
			t.Fatalf("ADD takes what DEL refuses: %v", err)
		}
		b := bridge(config.Options{"ip": "10.0.0.1/24,2001:db8::1/64"})
		if !w.delegated() {
			judge(w.lease(b))
		} else if w.previous != nil && len(w.previous.IPs) > 0 {
			judge(w.take(w.previous))
		}
		// The daemon reads what it is sent: each option is one of a plug's.
		for name := range w.options {
			if _, err := config.Lookup(config.PlugPort, name); err != nil {
				t.Fatalf("option %s: %v", name, err)
			}
		}
		if _, err := json.Marshal(api.Attachment{Options: w.options}); err != nil {
			t.Fatal(err)
		}
	})
}

// A result of the plug-ins before this one, or of an IPAM plug-in, never makes a panic.
func FuzzResult(f *testing.F) {
	f.Add([]byte(`{"interfaces":[{"name":"eth0"}],"ips":[{"address":"10.0.0.1/24"}],"routes":[{"dst":"0.0.0.0/0","gw":"10.0.0.2"}]}`), "0.4.0")
	f.Add([]byte(`{"ips":[null]}`), "1.0.0")
	f.Add([]byte(`{"ip4":{"ip":"10.0.0.1/24"}}`), "0.2.0")
	f.Fuzz(func(t *testing.T, text []byte, spoken string) {
		r, err := parseResult(text, spoken)
		if err != nil {
			return
		}
		w := &wish{network: &network{ipam: "host-local", version: spoken}, options: config.Options{}, from: map[string]string{}, previous: r}
		w.take(r)
		if out, err := spokenAs(r, spoken); err == nil {
			if _, err := json.Marshal(out); err != nil {
				t.Fatal(err)
			}
		}
	})
}
