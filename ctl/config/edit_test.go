package config

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
)

func mustParse(t testing.TB, text string) Document {
	t.Helper()
	d, err := Parse([]byte(text))
	if err == nil {
		err = d.Validate()
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

const editBase = `
bridges:
- name: br0
  ports:
  - {name: veth1, tag: 10}
  - {name: veth2}
  - {name: tap0, type: tap}
  mirrors: [{name: m0, select_src_port: veth2, output_vlan: 9}]
  fdb:
  - {mac: 02:00:00:00:00:01, vlan: 10, port: veth1}
  - {mac: 02:00:00:00:00:02, vlan: 5, port: veth2}
- name: br1
  ports: [{name: other}]
meshes:
- {name: m1, bridge: br0, key: 7, peers: [host1, 192.0.2.2]}
`

func TestApply(t *testing.T) {
	for _, c := range []struct {
		name string
		ops  []Op
		want string // an error, or Diff as lines
	}{
		{"nothing", nil, ""},
		{"add bridge", []Op{{Op: "add-bridge", Bridge: "br2", Options: Options{"ip": "10.0.0.1/24", "mtu": ""}}},
			"add bridges[br2]  \nadd bridges[br2].ip  10.0.0.1/24"},
		{"add bridge again", []Op{{Op: "add-bridge", Bridge: "br0"}}, `add-bridge br0: bridge "br0" exists already`},
		{"may exist", []Op{{Op: "add-bridge", Bridge: "br0", MayExist: true, Options: Options{"tag": "1"}}}, "add bridges[br0].tag  1"},
		{"bridge named as a port", []Op{{Op: "add-bridge", Bridge: "veth1"}}, `add-bridge veth1: the name "veth1" is taken by bridges[br0].ports[veth1]`},
		{"bridge without name", []Op{{Op: "add-bridge"}}, `add-bridge: "" is not a name`},
		{"delete bridge", []Op{{Op: "del-bridge", Bridge: "br1"}}, "remove bridges[br1]  \nremove bridges[br1].ports[other] packet "},
		{"delete no bridge", []Op{{Op: "del-bridge", Bridge: "br"}}, `del-bridge br: no bridge is named "br"; did you mean "br0"?`},
		{"delete if exists", []Op{{Op: "del-bridge", Bridge: "br", IfExists: true}}, ""},
		{"set bridge", []Op{{Op: "set-bridge", Bridge: "br0", Options: Options{"mac-aging-time": "60"}}}, "add bridges[br0].mac-aging-time  60"},
		{"set wrongly", []Op{{Op: "set-bridge", Bridge: "br0", Options: Options{"mac-aging-time": "x", "tga": ""}}},
			"set-bridge br0: bridges[br0].mac-aging-time: \"x\" is not a time in seconds: want 0 to 86400 seconds\n" +
				`bridges[br0]: unknown option "tga" for bridge; did you mean "tag"?`},

		{"add port", []Op{{Op: "add-port", Bridge: "br1", Port: "x", Options: Options{"type": "tap", "tag": "07", "owner": "me"}}},
			"add bridges[br1].ports[x]  tap\nadd bridges[br1].ports[x].owner  me\nadd bridges[br1].ports[x].tag  7"},
		{"add port, typo", []Op{{Op: "add-port", Bridge: "br1", Port: "x", Options: Options{"tga": "1"}}},
			`add-port br1 x: bridges[br1].ports[x]: unknown option "tga" for port type packet; did you mean "tag"?`},
		{"add port, bad value", []Op{{Op: "add-port", Bridge: "br1", Port: "x", Options: Options{"tag": "5000"}}},
			`add-port br1 x: bridges[br1].ports[x].tag: "5000" is not a VLAN: want 0 to 4094`},
		{"add port, bad type", []Op{{Op: "add-port", Bridge: "br1", Port: "x", Options: Options{"type": "patc"}}},
			`add-port br1 x: "patc" is not a port type: want packet, tap, internal, patch, plug, vxlan, gre or geneve; did you mean "patch"?`},
		{"add port, no bridge", []Op{{Op: "add-port", Bridge: "rb1", Port: "x"}}, `add-port rb1 x: no bridge is named "rb1"; did you mean "br1"?`},
		{"add port again", []Op{{Op: "add-port", Bridge: "br0", Port: "veth1"}}, `add-port br0 veth1: "veth1" is a port of br0 already`},
		{"add port that may exist", []Op{{Op: "add-port", Bridge: "br0", Port: "veth2", MayExist: true, Options: Options{"type": "packet", "offload": "off"}}},
			"add bridges[br0].ports[veth2].offload  false"},
		{"may exist elsewhere", []Op{{Op: "add-port", Bridge: "br1", Port: "veth1", MayExist: true}}, `add-port br1 veth1: "veth1" is a port of br0 already`},
		{"may exist as another type", []Op{{Op: "add-port", Bridge: "br0", Port: "veth1", MayExist: true, Options: Options{"type": "tap"}}},
			`add-port br0 veth1: the type of port "veth1" is packet and cannot become tap: delete the port and add it again`},
		{"add port named as a bridge", []Op{{Op: "add-port", Bridge: "br0", Port: "br1"}}, `add-port br0 br1: the name "br1" is taken by the local port of bridge br1`},
		{"add port, long name", []Op{{Op: "add-port", Bridge: "br0", Port: "abcdefghijklmnop"}},
			`add-port br0 abcdefghijklmnop: "abcdefghijklmnop" is not a name of at most 15 bytes`},

		{"set port", []Op{{Op: "set-port", Port: "veth1", Options: Options{"tag": "", "trunks": "30,10"}}},
			"remove bridges[br0].ports[veth1].tag 10 \nadd bridges[br0].ports[veth1].trunks  10,30"},
		{"set port against the rules", []Op{{Op: "set-port", Bridge: "br0", Port: "veth1", Options: Options{"trunks": "30"}}},
			"set-port br0 veth1: bridges[br0].ports[veth1].trunks: an access port carries no trunks: unset them, or set vlan_mode to native-tagged or native-untagged"},
		{"set type", []Op{{Op: "set-port", Port: "tap0", Options: Options{"type": "packet"}}},
			`set-port tap0: the type of port "tap0" is tap and cannot become packet: delete the port and add it again`},
		{"set same type", []Op{{Op: "set-port", Port: "tap0", Options: Options{"type": "tap", "mtu": "9000"}}}, "add bridges[br0].ports[tap0].mtu  9000"},
		{"set no port", []Op{{Op: "set-port", Port: "vetch1"}}, `set-port vetch1: no port is named "vetch1"; did you mean "veth1"?`},
		{"set the local port", []Op{{Op: "set-port", Port: "br0"}},
			`set-port br0: "br0" is the local port of its bridge: set-br br0 sets its options, and it goes with del-br br0`},
		{"set port of the wrong bridge", []Op{{Op: "set-port", Bridge: "br1", Port: "veth1"}}, `set-port br1 veth1: "veth1" is a port of br0, not of br1`},

		{"delete port", []Op{{Op: "del-port", Port: "veth1"}},
			"remove bridges[br0].ports[veth1] packet \nremove bridges[br0].ports[veth1].tag 10 \nremove bridges[br0].fdb[10,02:00:00:00:00:01] veth1 "},
		{"delete mirrored port", []Op{{Op: "del-port", Port: "veth2"}},
			`del-port veth2: mirror "m0" of br0 names "veth2" in select_src_port: delete the mirror first`},
		{"delete mirror, then port", []Op{{Op: "del-mirror", Bridge: "br0", Mirror: "m0"}, {Op: "del-port", Bridge: "br0", Port: "veth2"}},
			"remove bridges[br0].ports[veth2] packet \nremove bridges[br0].mirrors[m0]  \nremove bridges[br0].mirrors[m0].output_vlan 9 \n" +
				"remove bridges[br0].mirrors[m0].select_src_port veth2 \nremove bridges[br0].fdb[5,02:00:00:00:00:02] veth2 "},
		{"delete no port", []Op{{Op: "del-port", Bridge: "br0", Port: "veht1"}}, `del-port br0 veht1: no port of br0 is named "veht1"; did you mean "veth1"?`},
		{"delete port if exists", []Op{{Op: "del-port", Port: "x", IfExists: true}}, ""},
		{"delete port that exists elsewhere", []Op{{Op: "del-port", Bridge: "br1", Port: "veth1", IfExists: true}},
			`del-port br1 veth1: "veth1" is a port of br0, not of br1`},
		{"delete takes no options", []Op{{Op: "del-port", Port: "veth1", Options: Options{"tag": "1"}}}, `del-port veth1: takes no options`},

		{"add mirror", []Op{{Op: "add-mirror", Bridge: "br1", Mirror: "m", Options: Options{"select_all": "yes", "output_port": "other"}}},
			"add bridges[br1].mirrors[m]  \nadd bridges[br1].mirrors[m].output_port  other\nadd bridges[br1].mirrors[m].select_all  true"},
		{"add mirror again", []Op{{Op: "add-mirror", Bridge: "br0", Mirror: "m0"}}, `add-mirror br0 m0: mirror "m0" of br0 exists already`},
		{"delete no mirror", []Op{{Op: "del-mirror", Bridge: "br0", Mirror: "m00"}}, `del-mirror br0 m00: no mirror of br0 is named "m00"; did you mean "m0"?`},

		{"add sFlow", []Op{{Op: "add-sflow", Bridge: "br1", Options: Options{"target": "10.0.0.9", "sampling": "10"}}},
			"add bridges[br1].sflow  \nadd bridges[br1].sflow.sampling  10\nadd bridges[br1].sflow.target  10.0.0.9:6343"},
		{"add sFlow, no target", []Op{{Op: "add-sflow", Bridge: "br1"}}, `add-sflow br1: bridges[br1].sflow.target: is missing: ` +
			`want addresses with UDP ports, such as 10.0.0.9:6343,[fd00::9]:6343 (the port may be left out)`},
		{"add sFlow, typo", []Op{{Op: "add-sflow", Bridge: "br1", Options: Options{"target": "10.0.0.9", "samplin": "10"}}},
			`add-sflow br1: bridges[br1].sflow: unknown option "samplin" for sflow; did you mean "sampling"?`},
		{"add sFlow, an option of others", []Op{{Op: "add-sflow", Bridge: "br1", Options: Options{"tag": "10"}}},
			`add-sflow br1: bridges[br1].sflow: option "tag" is not for sflow, but for port type packet, port type tap, port type internal, ` +
				`port type patch, port type plug, port type vxlan, port type gre, port type geneve, bridge and mesh`},
		{"add sFlow again", []Op{{Op: "add-sflow", Bridge: "br1", Options: Options{"target": "10.0.0.9"}}, {Op: "add-sflow", Bridge: "br1"}},
			`step 2: add-sflow br1: br1 has sFlow already: it has one at most; --may-exist sets its options`},
		{"add sFlow that may exist", []Op{{Op: "add-sflow", Bridge: "br1", Options: Options{"target": "10.0.0.9", "header": "64"}},
			{Op: "add-sflow", Bridge: "br1", MayExist: true, Options: Options{"header": "", "polling": "1m"}}},
			"add bridges[br1].sflow  \nadd bridges[br1].sflow.polling  60\nadd bridges[br1].sflow.target  10.0.0.9:6343"},
		{"add and delete sFlow", []Op{{Op: "add-sflow", Bridge: "br1", Options: Options{"target": "10.0.0.9"}}, {Op: "del-sflow", Bridge: "br1"}}, ""},
		{"delete no sFlow", []Op{{Op: "del-sflow", Bridge: "br0"}}, `del-sflow br0: br0 has no sFlow`},
		{"delete sFlow if exists", []Op{{Op: "del-sflow", Bridge: "br0", IfExists: true}}, ""},

		{"add MAC", []Op{{Op: "add-fdb", Bridge: "br0", MAC: "0200.0000.0009", VLAN: 7, Port: "br0"}}, "add bridges[br0].fdb[7,02:00:00:00:00:09]  br0"},
		{"add MAC again", []Op{{Op: "add-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", VLAN: 10, Port: "tap0"}},
			`add-fdb br0 02:00:00:00:00:01 tap0: MAC 02:00:00:00:00:01 of VLAN 10 is at port veth1 already`},
		{"move MAC", []Op{{Op: "add-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", VLAN: 10, Port: "tap0", MayExist: true}},
			"change bridges[br0].fdb[10,02:00:00:00:00:01] veth1 tap0"},
		{"add MAC, no port", []Op{{Op: "add-fdb", Bridge: "br0", MAC: "02:00:00:00:00:03", Port: "tap1"}},
			`add-fdb br0 02:00:00:00:00:03 tap1: no port of br0 is named "tap1"; did you mean "tap0"?`},
		{"add MAC, wrong VLAN", []Op{{Op: "add-fdb", Bridge: "br0", MAC: "02:00:00:00:00:03", Port: "veth1"}},
			`add-fdb br0 02:00:00:00:00:03 veth1: bridges[br0].fdb[0,02:00:00:00:00:03].vlan: port veth1 does not carry VLAN 0: want 10`},
		{"add bad MAC", []Op{{Op: "add-fdb", Bridge: "br0", MAC: "ff:ff:ff:ff:ff:ff", Port: "veth1"}},
			`add-fdb br0 ff:ff:ff:ff:ff:ff veth1: "ff:ff:ff:ff:ff:ff" is not a unicast MAC address, such as 02:00:00:00:00:01`},
		{"delete MAC", []Op{{Op: "del-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", VLAN: 10}}, "remove bridges[br0].fdb[10,02:00:00:00:00:01] veth1 "},
		{"delete no MAC", []Op{{Op: "del-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01"}},
			`del-fdb br0 02:00:00:00:00:01: br0 has no static MAC 02:00:00:00:00:01 in VLAN 0`},
		{"delete MAC if exists", []Op{{Op: "del-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", IfExists: true}}, ""},

		{"add tunnel", []Op{{Op: "add-port", Bridge: "br1", Port: "to-the-other-host", Options: Options{"type": "gre", "remote_ip": "Host2", "key": "0x10"}}},
			"add bridges[br1].ports[to-the-other-host]  gre\nadd bridges[br1].ports[to-the-other-host].key  16\nadd bridges[br1].ports[to-the-other-host].remote_ip  host2"},
		{"add tunnel to nowhere", []Op{{Op: "add-port", Bridge: "br1", Port: "t", Options: Options{"type": "vxlan"}}},
			`add-port br1 t: bridges[br1].ports[t]: a tunnel port needs remote_ip: an address or a host name`},
		{"add tunnel with a colon", []Op{{Op: "add-port", Bridge: "br1", Port: "m1:host1", Options: Options{"type": "vxlan", "remote_ip": "x"}}},
			`add-port br1 m1:host1: "m1:host1" is not a name: it holds one of / : % , or a space`},
		{"add mesh", []Op{{Op: "add-mesh", Mesh: "a", Options: Options{"bridge": "br1", "peers": "b a", "type": "gre"}}},
			"add meshes[a]  \nadd meshes[a].bridge  br1\nadd meshes[a].peers  b,a\nadd meshes[a].type  gre"},
		{"add mesh again", []Op{{Op: "add-mesh", Mesh: "m1"}}, `add-mesh m1: mesh "m1" exists already`},
		{"add mesh that may exist", []Op{{Op: "add-mesh", Mesh: "m1", MayExist: true, Options: Options{"key": "8"}}}, "change meshes[m1].key 7 8"},
		{"add mesh without name", []Op{{Op: "add-mesh"}}, `add-mesh: "" is not a name`},
		{"add mesh of a type there is not", []Op{{Op: "add-mesh", Mesh: "a", Options: Options{"type": "vxlam"}}},
			`add-mesh a: meshes[a].type: "vxlam" is not a type: want vxlan, gre or geneve; did you mean "vxlan"?`},
		{"set mesh", []Op{{Op: "set-mesh", Mesh: "m1", Options: Options{"peers": "host3", "key": ""}}},
			"remove meshes[m1].key 7 \nchange meshes[m1].peers host1,192.0.2.2 host3"},
		{"set no mesh", []Op{{Op: "set-mesh", Mesh: "m2"}}, `set-mesh m2: no mesh is named "m2"; did you mean "m1"?`},
		{"add and take peers", []Op{{Op: "set-mesh", Mesh: "m1", Options: Options{"peers+": "FD00::5, host3", "peers-": "HOST1"}}},
			"change meshes[m1].peers host1,192.0.2.2 192.0.2.2,fd00::5,host3"},
		{"add a peer that is there", []Op{{Op: "set-mesh", Mesh: "m1", Options: Options{"peers+": "host1"}}},
			`set-mesh m1: meshes[m1].peers: "host1" is given twice: want addresses and host names, such as 10.0.0.2,host3`},
		{"take a peer that is not there", []Op{{Op: "set-mesh", Mesh: "m1", Options: Options{"peers-": "hots1"}}},
			`set-mesh m1: "hots1" is not among the peers; did you mean "host1"?`},
		{"take all peers", []Op{{Op: "set-mesh", Mesh: "m1", Options: Options{"peers-": "host1,192.0.2.2"}}},
			`set-mesh m1: meshes[m1]: a mesh needs peers: addresses and host names, such as 10.0.0.2,host3`},
		{"set and add peers", []Op{{Op: "set-mesh", Mesh: "m1", Options: Options{"peers": "a", "peers+": "b"}}},
			`set-mesh m1: peers is given beside peers+ or peers-: want the whole list, or what changes in it`},
		{"set a port of a mesh", []Op{{Op: "set-port", Port: "m1:192.0.2.2", Options: Options{"ttl": "9"}}},
			`set-port m1:192.0.2.2: "m1:192.0.2.2" is a port of mesh m1: mesh set m1 changes it, and it goes with mesh set m1 peers-=192.0.2.2`},
		{"delete a port that no mesh has", []Op{{Op: "del-port", Port: "m1:host9"}}, `del-port m1:host9: no port is named "m1:host9"`},
		{"delete mesh", []Op{{Op: "del-mesh", Mesh: "m1"}},
			"remove meshes[m1]  \nremove meshes[m1].bridge br0 \nremove meshes[m1].key 7 \nremove meshes[m1].peers host1,192.0.2.2 "},
		{"delete no mesh", []Op{{Op: "del-mesh", Mesh: "m"}}, `del-mesh m: no mesh is named "m"`},
		{"delete mesh if exists", []Op{{Op: "del-mesh", Mesh: "m", IfExists: true}}, ""},
		{"delete the bridge of a mesh", []Op{{Op: "del-bridge", Bridge: "br0"}},
			`del-bridge br0: mesh "m1" is in br0: delete the mesh first, or give it another bridge`},

		{"unknown op", []Op{{Op: "add-prot"}},
			`add-prot: unknown operation "add-prot"; did you mean "add-port"?: want add-bridge, add-fdb, add-mesh, add-mirror, add-port, add-sflow, del-bridge, del-fdb, del-mesh, del-mirror, del-port, del-sflow, set-bridge, set-mesh or set-port`},
		{"second step", []Op{{Op: "add-bridge", Bridge: "x"}, {Op: "add-bridge", Bridge: "x"}}, `step 2: add-bridge x: bridge "x" exists already`},
		{"rules are judged at the end", []Op{{Op: "set-port", Port: "veth1", Options: Options{"trunks": "30"}}, {Op: "set-port", Port: "veth1", Options: Options{"tag": ""}},
			{Op: "del-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", VLAN: 10}},
			"remove bridges[br0].ports[veth1].tag 10 \nadd bridges[br0].ports[veth1].trunks  30\nremove bridges[br0].fdb[10,02:00:00:00:00:01] veth1 "},
	} {
		t.Run(c.name, func(t *testing.T) {
			base := mustParse(t, editBase)
			if c.name == "set port" { // its static MAC would not be admitted any more
				c.ops = append(c.ops, Op{Op: "add-fdb", Bridge: "br0", MAC: "02:00:00:00:00:01", VLAN: 10, Port: "veth1", MayExist: true})
			}
			next, err := Apply(base, c.ops)
			got := ""
			if err != nil {
				got = err.Error()
				var e *Error
				if !errors.As(err, &e) {
					t.Errorf("%T holds no *Error", err)
				}
			} else {
				got = rows(Diff(base, next))
			}
			if got != c.want {
				t.Errorf("got  %s\nwant %s", got, c.want)
			}
			if !base.Equal(mustParse(t, editBase)) {
				t.Error("the input was changed")
			}
		})
	}
}

func rows(changes []Change) string {
	lines := make([]string, len(changes))
	for i, c := range changes {
		lines[i] = fmt.Sprint(c.What, " ", c.Path, " ", c.From, " ", c.To)
	}
	return strings.Join(lines, "\n")
}

// flat is the naive view that Diff is held to: one string a path.
func flat(d Document) map[string]string {
	m := map[string]string{}
	for _, b := range d.Bridges {
		m[bridgePath(b.Name)] = ""
		for k, v := range b.Options {
			m[bridgePath(b.Name)+"."+k] = v
		}
		for _, p := range b.Ports {
			m[portPath(b.Name, p.Name)] = string(p.Object())
			for k, v := range p.Options {
				m[portPath(b.Name, p.Name)+"."+k] = v
			}
		}
		for _, x := range b.Mirrors {
			m[mirrorPath(b.Name, x.Name)] = ""
			for k, v := range x.Options {
				m[mirrorPath(b.Name, x.Name)+"."+k] = v
			}
		}
		if b.SFlow != nil {
			m[sflowPath(b.Name)] = ""
		}
		for k, v := range b.SFlow {
			m[sflowPath(b.Name)+"."+k] = v
		}
		for _, s := range b.FDB {
			m[fdbPath(b.Name, s)] = s.Port
		}
	}
	for _, x := range d.Meshes {
		m[meshPath(x.Name)] = ""
		for k, v := range x.Options {
			m[meshPath(x.Name)+"."+k] = v
		}
	}
	return m
}

// TestDiffAgainstNaive: doing the rows to one document's flat view gives the
// other's, and the rows of the way back are the same ones turned round.
func TestDiffAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		a, b := randomDocument(rng), randomDocument(rng)
		for _, d := range []*Document{&a, &b} {
			if err := d.Validate(); err != nil {
				t.Fatal(err)
			}
		}
		there, back := Diff(a, b), Diff(b, a)
		if (len(there) == 0) != a.Equal(b) {
			t.Fatalf("equal %v, %d rows", a.Equal(b), len(there))
		}
		m := flat(a)
		for _, c := range there {
			path := c.Path
			if p, ok := strings.CutSuffix(path, ".type"); ok && c.What == "change" && strings.Contains(p, ".ports[") {
				path = p
			}
			was, had := m[path]
			switch {
			case c.What == "add" && had, c.What != "add" && (!had || was != c.From):
				t.Fatalf("%+v: was %q, %v", c, was, had)
			case c.What == "remove":
				delete(m, path)
			default:
				m[path] = c.To
			}
		}
		if want := flat(b); fmt.Sprint(m) != fmt.Sprint(want) {
			t.Fatalf("rows lead to\n%v\nwant\n%v", m, want)
		}
		turned := map[string]string{"add": "remove", "remove": "add", "change": "change"}
		for i, c := range there {
			if r := back[i]; len(back) != len(there) || r != (Change{turned[c.What], c.Path, c.To, c.From}) {
				t.Fatalf("row %d: %+v, and back %+v", i, c, r)
			}
		}
	}
}

// FuzzEdit reads bytes as ops over small sets of names and values.
func FuzzEdit(f *testing.F) {
	f.Add([]byte{0, 1, 0, 0, 3, 1, 1, 1, 5, 2, 0, 4})
	f.Add([]byte("add ports, delete bridges, mirror the rest and so on"))
	names := []string{"", "br0", "br1", "veth1", "p0", "p1", "x y", "way-too-long-a-name"}
	kinds := []string{"add-bridge", "del-bridge", "set-bridge", "add-port", "del-port", "set-port", "add-mirror", "del-mirror", "add-fdb", "del-fdb", "nonsense",
		"add-mesh", "set-mesh", "del-mesh", "add-sflow", "del-sflow"}
	options := []Options{nil, {"tag": "1"}, {"tag": ""}, {"trunks": "1-5"}, {"type": "patch", "peer": "p0"}, {"type": "patch", "peer": "p1"}, {"type": "tap"},
		{"select_all": "on", "output_port": "veth1"}, {"select_src_port": "veth1,br0", "output_vlan": "3"}, {"peer": ""}, {"vlan_mode": "trunk"}, {"zzz": "1"},
		{"type": "vxlan", "remote_ip": "a"}, {"type": "gre", "remote_ip": "b", "key": "9"}, {"bridge": "br0", "peers": "a,b"}, {"peers+": "c,a"}, {"peers-": "a"},
		{"target": "10.0.0.9,[fd00::1]:1", "sampling": "7"}, {"target": "", "agent": "lo"}}
	f.Fuzz(func(t *testing.T, data []byte) {
		d := mustParse(t, "bridges: []")
		for len(data) >= 6 {
			op := Op{Op: kinds[int(data[0])%len(kinds)], Bridge: names[int(data[1])%len(names)], Port: names[int(data[2])%len(names)],
				Mirror: names[int(data[2]/8)%len(names)], Mesh: names[int(data[2]/8)%len(names)], MAC: fmt.Sprintf("%02x:00:00:00:00:01", data[3]), VLAN: int(data[3]) - 1,
				Options: options[int(data[4])%len(options)], MayExist: data[5]&1 != 0, IfExists: data[5]&2 != 0}
			data = data[6:]
			before, _ := d.YAML()
			next, err := Apply(d, []Op{op})
			if after, _ := d.YAML(); string(after) != string(before) {
				t.Fatalf("%v changed its input:\n%s\n%s", op, before, after)
			}
			if err != nil {
				_ = err.Error()
				continue
			}
			canonical := next.Clone()
			if err := canonical.Validate(); err != nil {
				t.Fatalf("%v: %v", op, err)
			}
			a, _ := next.YAML()
			b, _ := canonical.YAML()
			if string(a) != string(b) {
				t.Fatalf("%v: not canonical:\n%s", op, a)
			}
			if (len(Diff(d, next)) == 0) != d.Equal(next) {
				t.Fatalf("%v: Diff and Equal disagree", op)
			}
			d = next
		}
		roundTrip(t, d)
	})
}
