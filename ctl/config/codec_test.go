package config

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"
)

const sample = `# two bridges
bridges:
  - name: br0
    ip: 10.0.0.1/24
    mac-aging-time: 5m
    forward-bpdu: yes
    ports:
      - {name: veth1, tag: 010, offload: off}
      - name: trunk0
        trunks: [10, 20-30]
        offload: on
      - name: "off"
        type: tap
        owner: 1000
      - name: p0
        type: patch
        peer: p1
    mirrors:
      - name: m0
        select_all: true
        output_pcap: /tmp/m0.pcapng
        rotate: 1048576
    sflow: {target: ["10.0.0.9", "FD00::9"], sampling: 0400, agent: eth0}
    fdb:
      - mac: 02:00:00:00:00:01
        vlan: 10
        port: veth1
      - mac: 02-00-00-00-00-0A
        port: br0
  - name: 1e3
    ports:
      - name: p1
        type: patch
        peer: p0
      - {name: to-the-other-side, type: vxlan, remote_ip: FD00:0::2, key: 0x2A, tos: inherit, ttl: 0x40}
meshes:
  - name: m1
    bridge: br0
    peers: [Host1, 192.0.2.2, host-3.example]
    bfd_enable: no
`

const sampleYAML = `bridges:
  - name: "1e3"
    ports:
      - name: p1
        type: patch
        peer: p0
      - name: to-the-other-side
        type: vxlan
        key: 42
        remote_ip: "fd00::2"
        tos: inherit
        ttl: 64
  - name: br0
    forward-bpdu: true
    ip: 10.0.0.1/24
    mac-aging-time: 300
    ports:
      - name: "off"
        type: tap
        owner: "1000"
      - name: p0
        type: patch
        peer: p1
      - name: trunk0
        offload: true
        trunks: "10,20-30"
      - name: veth1
        offload: false
        tag: 10
    mirrors:
      - name: m0
        output_pcap: /tmp/m0.pcapng
        rotate: 1M
        select_all: true
    sflow:
      agent: eth0
      sampling: 400
      target: "10.0.0.9:6343,[fd00::9]:6343"
    fdb:
      - mac: "02:00:00:00:00:01"
        vlan: 10
        port: veth1
      - mac: "02:00:00:00:00:0a"
        vlan: 0
        port: br0
meshes:
  - name: m1
    bfd_enable: false
    bridge: br0
    peers: "host1,192.0.2.2,host-3.example"
`

const sampleJSON = `{"bridges":[{"name":"1e3","ports":[{"name":"p1","type":"patch","peer":"p0"},` +
	`{"name":"to-the-other-side","type":"vxlan","key":42,"remote_ip":"fd00::2","tos":"inherit","ttl":64}]},` +
	`{"name":"br0","forward-bpdu":true,"ip":"10.0.0.1/24","mac-aging-time":300,"ports":[{"name":"off","type":"tap","owner":"1000"},` +
	`{"name":"p0","type":"patch","peer":"p1"},{"name":"trunk0","offload":true,"trunks":"10,20-30"},{"name":"veth1","offload":false,"tag":10}],` +
	`"mirrors":[{"name":"m0","output_pcap":"/tmp/m0.pcapng","rotate":"1M","select_all":true}],` +
	`"sflow":{"agent":"eth0","sampling":400,"target":"10.0.0.9:6343,[fd00::9]:6343"},` +
	`"fdb":[{"mac":"02:00:00:00:00:01","vlan":10,"port":"veth1"},{"mac":"02:00:00:00:00:0a","vlan":0,"port":"br0"}]}],` +
	`"meshes":[{"name":"m1","bfd_enable":false,"bridge":"br0","peers":"host1,192.0.2.2,host-3.example"}]}`

func TestForms(t *testing.T) {
	d, err := Parse([]byte(sample))
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	y, err := d.YAML()
	if err != nil || string(y) != sampleYAML {
		t.Errorf("YAML is, %v\n%s", err, y)
	}
	j, err := json.Marshal(d)
	if err != nil || string(j) != sampleJSON {
		t.Errorf("JSON is, %v\n%s", err, j)
	}
	roundTrip(t, d)
}

// roundTrip writes d both ways and reads it back.
func roundTrip(t *testing.T, d Document) {
	t.Helper()
	y, err := d.YAML()
	if err != nil {
		t.Fatal(err)
	}
	fromYAML, err := Parse(y)
	if err != nil {
		t.Fatalf("read back YAML: %v\n%s", err, y)
	}
	j, err := json.Marshal(d)
	if err != nil {
		t.Fatal(err)
	}
	var fromJSON Document
	if err := json.Unmarshal(j, &fromJSON); err != nil {
		t.Fatalf("read back JSON: %v\n%s", err, j)
	}
	if !fromYAML.Equal(d) || !fromJSON.Equal(d) {
		t.Fatalf("not what was written:\n%+v\nYAML %+v\nJSON %+v", d, fromYAML, fromJSON)
	}
	again, err := fromYAML.YAML()
	if err != nil || string(again) != string(y) {
		t.Fatalf("YAML is not canonical:\n%s\n%s", y, again)
	}
	var generic any
	if err := json.Unmarshal(j, &generic); err != nil {
		t.Fatalf("not JSON: %v\n%s", err, j)
	}
}

func TestParseErrors(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"empty", "", `the document is empty: write "bridges: []" to want no bridge`},
		{"comment", "# nothing\n", `the document is empty: write "bridges: []" to want no bridge`},
		{"no bridges", "{}", `line 1: bridges: is missing: write "bridges: []" to want no bridge`},
		{"null bridges", "bridges:\n", `line 1: bridges: has no value: write [] to want no bridge`},
		{"a word", "hello", `line 1: the document is "hello": want a mapping with a name`},
		{"a list", "- a", `line 1: the document is a list: want a mapping with a name`},
		{"misspelled top", "brigdes: []", `line 1: unknown key "brigdes"; did you mean "bridges"?: want bridges and meshes` + "\n" +
			`line 1: bridges: is missing: write "bridges: []" to want no bridge`},
		{"bridges mapping", "bridges: {a: b}", `line 1: bridges: is a mapping: want a list`},
		{"no name", "bridges:\n- tag: 1", `line 2: bridges[#1]: has no name`},
		{"null name", "bridges:\n- name: ~", `line 2: bridges[#1].name: is nothing: want a name`},
		{"tag", br0("  ports:\n  - name: veth1\n    tag: 5000"), `line 5: bridges[br0].ports[veth1].tag: "5000" is not a VLAN: want 0 to 4094`},
		{"typo", br0("  ports:\n  - name: veth1\n    tga: 5"), `line 5: bridges[br0].ports[veth1]: unknown option "tga" for port type packet; did you mean "tag"?`},
		{"typo of a list", br0("  prots: []"), `line 3: bridges[br0]: unknown option "prots" for bridge; did you mean "ports"?`},
		{"not for this type", br0("  ports: [{name: x, mtu: 9000}]"),
			`line 3: bridges[br0].ports[x]: option "mtu" is not for port type packet, but for port type tap, port type internal, bridge and port type plug`},
		{"type", br0("  ports: [{name: x, type: vlan}]"), `line 3: bridges[br0].ports[x].type: "vlan" is not a port type: want packet, tap, internal, patch, plug, vxlan, gre or geneve; did you mean "vxlan"?`},
		{"key twice", br0("  tag: 1\n  tag: 2"), `line 4: bridges[br0]: "tag" is written twice (first on line 3)`},
		{"key twice in JSON", "{\"bridges\":[{\"name\":\"br0\",\n\"tag\":1,\n\"tag\":2}]}", `line 3: bridges[br0]: "tag" is written twice (first on line 2)`},
		{"port twice", br0("  ports:\n  - name: x\n  - name: x"), `line 5: bridges[br0].ports[x]: is there twice (first on line 4)`},
		{"bridge twice", "bridges:\n- name: a\n- name: a", `line 3: bridges[a]: is there twice (first on line 2)`},
		{"MAC twice", br0("  fdb:\n  - {mac: 02:00:00:00:00:01, port: a}\n  - {mac: 02-00-00-00-00-01, port: b}"),
			`line 5: bridges[br0].fdb[0,02:00:00:00:00:01]: is there twice`},
		{"MAC", br0("  fdb:\n  - {mac: 1, port: a}"),
			`line 4: bridges[br0].fdb[#1].mac: "1" is not a unicast MAC address, such as 02:00:00:00:00:01`},
		{"MAC without port", br0("  fdb:\n  - {mac: 02:00:00:00:00:01}"), `line 4: bridges[br0].fdb[#1]: has no port`},
		{"sFlow as a word", br0("  sflow: 10.0.0.9"), `line 3: bridges[br0].sflow: is "10.0.0.9": want a mapping with a target`},
		{"sFlow, typo", br0("  sflow: {tragets: a}"), `line 3: bridges[br0].sflow: unknown option "tragets" for sflow; did you mean "target"?`},
		{"sFlow, a value", br0("  sflow: {target: 10.0.0.9, sampling: 0}"), `line 3: bridges[br0].sflow.sampling: "0" is out of range: want 1 to 16777216`},
		{"sFlow twice", br0("  sflow: {target: 10.0.0.9}\n  sflow: {target: 10.0.0.9}"), `line 4: bridges[br0]: "sflow" is written twice (first on line 3)`},
		{"meshes mapping", "bridges: []\nmeshes: {a: b}", `line 2: meshes: is a mapping: want a list`},
		{"mesh without name", "bridges: []\nmeshes:\n- peers: a", `line 3: meshes[#1]: has no name`},
		{"mesh twice", "bridges: []\nmeshes:\n- name: m\n- name: m", `line 4: meshes[m]: is there twice (first on line 3)`},
		{"mesh, typo", "bridges: []\nmeshes:\n- name: m\n  peer: a",
			`line 4: meshes[m]: option "peer" is not for mesh, but for port type patch`},
		{"mesh, peer", "bridges: []\nmeshes:\n- name: m\n  peers: [a, b_c]",
			`line 4: meshes[m].peers: "b_c" is not an address or a host name: want addresses and host names, such as 10.0.0.2,host3`},
		{"remote_ip=flow", br0("  ports: [{name: x, type: gre, remote_ip: flow}]"),
			`line 3: bridges[br0].ports[x].remote_ip: "flow" is not supported: want an address or a host name`},
		{"port without UDP", br0("  ports: [{name: x, type: gre, dst_port: 1}]"),
			`line 3: bridges[br0].ports[x]: option "dst_port" is not for port type gre, but for port type vxlan and port type geneve`},
		{"two documents", "bridges: []\n---\nbridges: []\n", `line 2: a second document begins here: want one document a file`},
		{"two in JSON", "{\"bridges\":[]}\n{}", `line 2: there is more after the document: want one document a file`},
		{"anchor", "bridges: &a []", `line 1: anchors and aliases are not supported: write the value out`},
		{"alias bomb", "a: &a [x,x]\nb: &b [*a,*a]\nbridges: [*b,*b]", `line 1: anchors and aliases are not supported: write the value out`},
		{"merge", "bridges: [{<<: {name: x}}]", `line 1: bridges[#1]: has no name`},
		{"YAML tag", "bridges: !!binary aGVsbG8=", `line 1: tags such as "!!binary" are not supported`},
		{"deep", "bridges: " + strings.Repeat("[", 50) + strings.Repeat("]", 50), `line 1: lists and mappings are nested deeper than any document needs`},
		{"deep JSON", `{"bridges":` + strings.Repeat("[", 50) + strings.Repeat("]", 50) + "}", `line 1: lists and mappings are nested deeper than any document needs`},
		{"value is a mapping", br0("  tag: {a: 1}"), `line 3: bridges[br0].tag: is a mapping: want a value or a list of values`},
		{"no value", br0("  tag:"), `line 3: bridges[br0].tag: has no value: leave the option out to unset it`},
		{"empty list", br0("  trunks: []"), `line 3: bridges[br0].trunks: is an empty list: leave the option out to unset it`},
		{"not UTF-8", "bridges: \xff", `the document is not UTF-8`},
		{"too long", strings.Repeat(" ", MaxDocument+1), `the document has 16777217 bytes: want at most 16777216`},
		{"bad JSON", "{\"bridges\":[\n{\"name\" \"x\"}]}", `line 2: the document is not JSON: invalid character '"' after object key`},
		{"cut JSON", `{"bridges":[{"name":"x"`, `line 1: the document is not JSON: it ends too early`},
		{"bad YAML", "bridges:\n- name: a\n bad", `line 2: the document is not YAML: did not find expected key`},
		{"tabs", "bridges:\n\t- name: a", `line 2: the document is not YAML: found character that cannot start any token`},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse([]byte(c.text))
			if err == nil || err.Error() != c.want {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
			var e *Error
			if !errors.As(err, &e) {
				t.Errorf("%T is no *Error", err)
			}
		})
	}
}

// TestHostile: the largest documents, made to be slow, are judged in bounded time.
func TestHostile(t *testing.T) {
	if testing.Short() {
		t.Skip("takes seconds")
	}
	var keys, ports strings.Builder
	for i := 0; keys.Len() < MaxDocument/4; i++ {
		fmt.Fprintf(&keys, ",%q:1", fmt.Sprintf("mac-aging-%040d", i))
	}
	for i := range 20000 {
		fmt.Fprintf(&ports, ",%q", fmt.Sprint("p", i))
	}
	var manyPorts strings.Builder
	for i := range maxPorts {
		fmt.Fprintf(&manyPorts, ",{\"name\":\"q%d\"}", i)
	}
	for name, text := range map[string]string{
		"unknown keys":  `{"bridges":[{"name":"b"` + keys.String() + "}]}",
		"nothing much":  "bridges:\n" + strings.Repeat("- \n", MaxDocument/8),
		"unknown ports": `{"bridges":[{"name":"b","ports":[` + manyPorts.String()[1:] + `],"mirrors":[{"name":"m","output_vlan":1,"select_src_port":[` + ports.String()[1:] + "]}]}]}",
	} {
		began := time.Now()
		d, err := Parse([]byte(text))
		if err == nil {
			err = d.Validate()
		}
		var list Errors
		if n := errors.As(err, &list); !n && !strings.Contains(fmt.Sprint(err), "too many") {
			t.Errorf("%s: %T", name, err)
		}
		if took := time.Since(began); took > 2*time.Minute {
			t.Errorf("%s: took %v", name, took)
		} else {
			t.Logf("%s: %d bytes took %v", name, len(text), took)
		}
	}
}

func TestParseFlowStyle(t *testing.T) {
	for _, text := range []string{"{bridges: [{name: br0, tag: 1}]}", "\ufeffbridges: [{name: br0, tag: 1}]", "---\nbridges: [{name: br0, tag: 1}]\n...\n",
		`{"bridges":[{"name":"br0","tag":"1"}]}`, "bridges: [{name: br0, tag: 1, ports: , mirrors: null}]"} {
		d, err := Parse([]byte(text))
		if err != nil || len(d.Bridges) != 1 || d.Bridges[0].Options["tag"] != "1" {
			t.Errorf("%s: %+v, %v", text, d, err)
		}
	}
}

func TestOpJSON(t *testing.T) {
	var op Op
	text := `{"op":"set-port","port":"x","options":{"tag":10,"trunks":[1,"2-3"],"offload":false,"n_rxq":null,"mtu":""}}`
	if err := json.Unmarshal([]byte(text), &op); err != nil {
		t.Fatal(err)
	}
	want := Options{"tag": "10", "trunks": "1,2-3", "offload": "false", "n_rxq": "", "mtu": ""}
	if !reflect.DeepEqual(op.Options, want) {
		t.Errorf("%v", op.Options)
	}
	err := json.Unmarshal([]byte(`{"op":"set-port","options":{"tag":{}}}`), &op)
	if err == nil || !strings.Contains(err.Error(), "options.tag: is a mapping") {
		t.Error(err)
	}
	for _, bad := range []string{`{"options":1}`, `{"options":{"a":1,"a":2}}`} {
		if err := json.Unmarshal([]byte(bad), &op); err == nil {
			t.Errorf("%s: no error", bad)
		}
	}
}

func TestWriteRefusesWhatIsNotText(t *testing.T) {
	d := Document{Bridges: []Bridge{{Name: "a\xff"}}}
	if _, err := d.YAML(); err == nil {
		t.Error("YAML of a name that is not UTF-8")
	}
	if _, err := json.Marshal(d); err == nil {
		t.Error("JSON of a name that is not UTF-8")
	}
}

// randomDocument is valid; the same rng gives the same document.
func randomDocument(rng *rand.Rand) Document {
	var d Document
	pick := func(words ...string) string { return words[rng.IntN(len(words))] }
	for i := range rng.IntN(4) {
		b := Bridge{Name: fmt.Sprint(pick("br", "on", "1", "ü"), i), Options: Options{}}
		if rng.IntN(2) == 0 {
			b.Options["ip"] = pick("10.0.0.1/24", "fd00::1/64", "10.0.0.1/24,::1/128")
		}
		if rng.IntN(2) == 0 {
			b.Options["mac-aging-time"] = fmt.Sprint(rng.IntN(1000))
		}
		for j := range rng.IntN(5) {
			p := Port{Name: fmt.Sprint(pick("veth", "0x", "#", "-", "~"), i, "_", j), Type: pick("packet", "tap", "internal", ""), Options: Options{}}
			switch rng.IntN(4) {
			case 0:
				p.Options["tag"] = fmt.Sprint(rng.IntN(4095))
			case 1:
				p.Options["trunks"] = fmt.Sprintf("%d,%d-4094", rng.IntN(100), 200+rng.IntN(1000))
			case 2:
				p.Options["offload"] = pick("true", "off")
				p.Options["tx-ring"] = pick("64", "2000")
			}
			if rng.IntN(3) == 0 {
				p = randomTunnel(rng, p, i, j)
			}
			b.Ports = append(b.Ports, p)
			if v := p.VLANs(); rng.IntN(3) == 0 {
				vlan := v.Tag
				if v.Mode == Trunk {
					vlan = v.Trunks[0].First
				}
				b.FDB = append(b.FDB, StaticMAC{MAC: fmt.Sprintf("02:00:00:00:%02x:%02x", rng.IntN(2), j+1), VLAN: int(vlan), Port: p.Name})
			}
		}
		if len(b.Ports) > 0 && rng.IntN(2) == 0 {
			b.Mirrors = append(b.Mirrors, Mirror{Name: pick("m", "yes"), Options: Options{
				"select_dst_port": b.Ports[0].Name, "output_pcap": "/tmp/" + pick("a", "é") + b.Name, "snaplen": fmt.Sprint(rng.IntN(200))}})
		}
		if rng.IntN(2) == 0 {
			b.SFlow = Options{"target": pick("10.0.0.9", "[fd00::9]:1", "10.0.0.9:7, fd00::9")}
			if rng.IntN(2) == 0 {
				b.SFlow["sampling"], b.SFlow["agent"] = fmt.Sprint(1+rng.IntN(100)), pick("lo", "off", "10.0.0.1", "fd00:0::1")
			}
		}
		d.Bridges = append(d.Bridges, b)
		for j := range rng.IntN(3) {
			m := Mesh{Name: fmt.Sprint(pick("m", "null", "ü"), i, "_", j), Options: Options{"bridge": b.Name, "key": fmt.Sprint(1000 + 10*i + j),
				"peers": pick("host2", "10.0.0.1,host-2.example", "fd00::1,10.0.0.3,0x")}}
			if rng.IntN(2) == 0 {
				m.Options["type"] = pick("vxlan", "gre", "geneve")
				m.Options["storm_unknown"] = fmt.Sprint(rng.IntN(100))
				m.Options["tag"] = fmt.Sprint(rng.IntN(4095))
			}
			d.Meshes = append(d.Meshes, m)
		}
	}
	return d
}

// randomTunnel makes p a tunnel port that no other is like.
func randomTunnel(rng *rand.Rand, p Port, i, j int) Port {
	pick := func(words ...string) string { return words[rng.IntN(len(words))] }
	p.Type = pick("vxlan", "gre", "geneve")
	delete(p.Options, "offload")
	p.Options["remote_ip"] = pick(fmt.Sprintf("10.0.%d.%d", i, j+1), fmt.Sprintf("fd00::%d:%d", i, j+1), fmt.Sprintf("host-%d-%d", i, j))
	switch rng.IntN(3) {
	case 0:
		p.Options["key"] = fmt.Sprint(rng.IntN(1 << 24))
	case 1:
		p.Options["in_key"], p.Options["out_key"] = fmt.Sprint(rng.IntN(1<<24)), pick("0x7", "0")
	}
	if rng.IntN(2) == 0 {
		p.Options["tos"], p.Options["ttl"] = pick("inherit", "0x10", "252"), pick("inherit", "1", "255")
		p.Options["csum"], p.Options["bfd_enable"] = pick("on", "off"), pick("on", "off")
	}
	return p
}

func TestRandomRoundTrip(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 500 {
		d := randomDocument(rng)
		if err := d.Validate(); err != nil {
			t.Fatalf("%v\n%+v", err, d)
		}
		roundTrip(t, d)
		c := d.Clone()
		if !c.Equal(d) {
			t.Fatal("a clone differs")
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{sample, sampleYAML, sampleJSON, "bridges: []", "{bridges: []}", "bridges: []\nmeshes: [{name: m, peers: [a,b], bridge: x}]",
		"bridges: [{name: b, ports: [{name: t, type: gre, remote_ip: 10.0.0.1, in_key: 0xffffffff, tos: 4}]}]", "a: &a [*a]", "bridges: [{name: \"\\u2028\"}]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := Parse(text)
		if err != nil {
			_ = err.Error()
			return
		}
		before := d.Clone()
		if err := d.Validate(); err != nil {
			_ = err.Error()
			return
		}
		if !before.Equal(d) {
			t.Fatal("Parse gave what is not canonical")
		}
		roundTrip(t, d)
	})
}

func BenchmarkParseYAML(b *testing.B) {
	benchmarkParse(b, func(d Document) ([]byte, error) { return d.YAML() })
}

func BenchmarkParseJSON(b *testing.B) {
	benchmarkParse(b, func(d Document) ([]byte, error) { return json.Marshal(d) })
}

func benchmarkParse(b *testing.B, write func(Document) ([]byte, error)) {
	d := Document{Bridges: []Bridge{{Name: "br0"}}}
	for i := range 1000 {
		d.Bridges[0].Ports = append(d.Bridges[0].Ports, Port{Name: fmt.Sprint("veth", i), Options: Options{"tag": fmt.Sprint(i)}})
	}
	text, err := write(d)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(text)))
	b.ReportAllocs()
	for b.Loop() {
		d, err := Parse(text)
		if err != nil {
			b.Fatal(err)
		}
		if err := d.Validate(); err != nil {
			b.Fatal(err)
		}
	}
}
