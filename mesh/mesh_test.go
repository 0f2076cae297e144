package mesh

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"vswitch/ctl/config"
)

func parse(t *testing.T, text string) config.Document {
	t.Helper()
	d, err := config.Parse([]byte(text))
	if err == nil {
		err = d.Validate()
	}
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestExpand(t *testing.T) {
	const common = "bfd_enable=%s bfd_min_rx=%s bfd_min_tx=%s df_default=true%s key=%s%s mss_clamp=%s remote_ip=%s storm_broadcast=%s storm_multicast=2000 storm_unknown=1000%s tos=%s%s"
	for _, c := range []struct {
		name, text string
		want       []string // "bridge port type mesh options"
	}{
		{"nothing", "bridges: []", nil},
		{"no mesh", "bridges: [{name: b, ports: [{name: x, tag: 1}]}]", []string{"b x packet  tag=1"}},
		{"defaults are written out", "bridges: [{name: b}]\nmeshes: [{name: m, bridge: b, peers: host2}]", []string{
			"b m:host2 vxlan m " + fmt.Sprintf(common, "true", "300", "300", " dst_port=4789", "0", "", "true", "host2", "1000", "", "0", "")}},
		{"all options", `
bridges: [{name: b}]
meshes:
- {name: m, bridge: b, type: geneve, peers: "fd00::2", key: 9, port: 7, local_ip: "fd00::1", tos: inherit, ttl: 9, df_default: on,
   csum: off, mss_clamp: off, bfd_enable: off, bfd_min_rx: 10, bfd_min_tx: 20, storm_broadcast: 0, tag: 5, vlan_mode: native-tagged, trunks: 6}`,
			[]string{"b m:fd00::2 geneve m bfd_enable=false bfd_min_rx=10 bfd_min_tx=20 csum=false df_default=true dst_port=7 key=9 local_ip=fd00::1 " +
				"mss_clamp=false remote_ip=fd00::2 storm_broadcast=0 storm_multicast=2000 storm_unknown=1000 tag=5 tos=inherit trunks=6 ttl=9 vlan_mode=native-tagged"}},
		{"gre has no port, and all stays sorted", `
bridges: [{name: a, ports: [{name: n}, {name: lo0}]}, {name: c}]
meshes: [{name: m, bridge: a, type: gre, key: 1, peers: [h2, h1]}, {name: k, bridge: c, peers: h1}]`, []string{
			"a lo0 packet  ",
			"a m:h1 gre m " + fmt.Sprintf(common, "true", "300", "300", "", "1", "", "true", "h1", "1000", "", "0", ""),
			"a m:h2 gre m " + fmt.Sprintf(common, "true", "300", "300", "", "1", "", "true", "h2", "1000", "", "0", ""),
			"a n packet  ",
			"c k:h1 vxlan k " + fmt.Sprintf(common, "true", "300", "300", " dst_port=4789", "0", "", "true", "h1", "1000", "", "0", "")}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var got []string
			for _, b := range Expand(parse(t, c.text)).Bridges {
				for _, p := range b.Ports {
					var kv []string
					for _, name := range p.Options.Names() {
						kv = append(kv, name+"="+p.Options[name])
					}
					got = append(got, fmt.Sprint(b.Name, " ", p.Name, " ", p.Type, " ", p.Mesh, " ", strings.Join(kv, " ")))
				}
			}
			if !slices.Equal(got, c.want) {
				t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(c.want, "\n"))
			}
		})
	}
}

// randomDocument is valid: meshes differ by their keys.
func randomDocument(rng *rand.Rand) config.Document {
	pick := func(words ...string) string { return words[rng.IntN(len(words))] }
	var d config.Document
	for i := range 1 + rng.IntN(3) {
		b := config.Bridge{Name: fmt.Sprint("br", i)}
		for j := range rng.IntN(6) {
			p := config.Port{Name: fmt.Sprint(pick("a", "m", "z"), i, "-", j)}
			if rng.IntN(2) == 0 {
				p.Type = pick("vxlan", "gre", "geneve")
				p.Options = config.Options{"remote_ip": pick("h1", "10.0.0.2"), "key": fmt.Sprint(100*i + j)}
			}
			b.Ports = append(b.Ports, p)
		}
		d.Bridges = append(d.Bridges, b)
	}
	for i := range rng.IntN(6) {
		var peers []string
		for _, p := range rng.Perm(8)[:1+rng.IntN(8)] {
			peers = append(peers, []string{"h1", "h2", "h3.example", "10.0.0.2", "10.0.0.9", "fd00::2", "fd00::9", "3com"}[p])
		}
		m := config.Mesh{Name: fmt.Sprint(pick("a", "m", "z"), i), Options: config.Options{
			"bridge": fmt.Sprint("br", rng.IntN(len(d.Bridges))), "peers": strings.Join(peers, ","), "key": fmt.Sprint(1000 + i)}}
		if rng.IntN(2) == 0 {
			m.Options["type"] = pick("vxlan", "gre", "geneve")
		}
		switch rng.IntN(3) {
		case 0:
			m.Options["tag"], m.Options["csum"] = fmt.Sprint(rng.IntN(4095)), pick("true", "false")
		case 1:
			m.Options["storm_broadcast"], m.Options["bfd_enable"] = fmt.Sprint(rng.IntN(5)), pick("true", "false")
		}
		d.Meshes = append(d.Meshes, m)
	}
	return d
}

// TestExpandProperties: the outcome is valid but for the names of the ports added,
// each peer has one port, everything else is as it was, and so is the input.
func TestExpandProperties(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	for range 2000 {
		d := randomDocument(rng)
		if err := d.Validate(); err != nil {
			t.Fatal(err)
		}
		before := d.Clone()
		e := Expand(d)
		if !d.Equal(before) {
			t.Fatalf("the input changed:\n%+v\n%+v", before, d)
		}
		if again := Expand(d); !again.Equal(e) {
			t.Fatal("the same document gives another outcome")
		}

		// Each peer's port is there once, in the right place; without them it is d.
		want := map[string]config.Mesh{} // by bridge and port
		for _, m := range d.Meshes {
			for _, peer := range m.Peers() {
				want[m.Options["bridge"]+" "+config.MeshPort(m.Name, peer)] = m
			}
		}
		without := config.Document{Meshes: e.Meshes}
		valid := config.Document{}
		for _, b := range e.Bridges {
			if !slices.IsSortedFunc(b.Ports, func(x, y config.Port) int { return cmp.Compare(x.Name, y.Name) }) {
				t.Fatalf("%s is not sorted", b.Name)
			}
			own, all := b, b
			own.Ports, all.Ports = nil, nil
			for i, p := range b.Ports {
				m, ofMesh := want[b.Name+" "+p.Name]
				if ofMesh != (p.Mesh != "") || ofMesh && (p.Mesh != m.Name || p.Type != string(m.Type()) || config.MeshPort(m.Name, p.Options["remote_ip"]) != p.Name) {
					t.Fatalf("%+v of %+v", p, m)
				}
				delete(want, b.Name+" "+p.Name)
				if !ofMesh {
					own.Ports = append(own.Ports, p)
				} else {
					p.Name = fmt.Sprint("peer", i, "-of-", m.Name)
				}
				p.Options = maps.Clone(p.Options)
				all.Ports = append(all.Ports, p)
			}
			without.Bridges = append(without.Bridges, own)
			valid.Bridges = append(valid.Bridges, all)
		}
		if len(want) > 0 {
			t.Fatalf("no port for %v", want)
		}
		if !without.Equal(d) {
			t.Fatalf("more changed than that ports were added:\n%+v\n%+v", d, without)
		}
		canonical := valid.Clone()
		if err := canonical.Validate(); err != nil {
			t.Fatalf("%v\n%+v", err, valid)
		}
		for i := range valid.Bridges {
			for _, p := range valid.Bridges[i].Ports {
				if q := canonical.Bridges[i].Port(p.Name); q == nil || !q.Equal(p) {
					t.Fatalf("not canonical: %+v, %+v", p, q)
				}
			}
		}
	}
}

func BenchmarkExpand(b *testing.B) {
	var peers []string
	for i := range 1000 {
		peers = append(peers, fmt.Sprint("host", i))
	}
	d := config.Document{Bridges: []config.Bridge{{Name: "br0"}}, Meshes: []config.Mesh{
		{Name: "m", Options: config.Options{"bridge": "br0", "peers": strings.Join(peers, ",")}}}}
	b.ReportAllocs()
	for b.Loop() {
		Expand(d)
	}
}
