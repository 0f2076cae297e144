package config

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

func TestTunnelReader(t *testing.T) {
	d := mustParse(t, `
bridges:
- name: br0
  ports:
  - {name: bare, type: vxlan, remote_ip: host2}
  - {name: full, type: gre, remote_ip: "fd00::2", local_ip: "fd00::1", in_key: 1, out_key: 0xffffffff, tos: 0xb8, ttl: inherit,
     df_default: off, csum: on, seq: on, mss_clamp: off, bfd_enable: on, bfd_min_rx: 300, bfd_min_tx: 50}
  - {name: gen, type: geneve, remote_ip: 10.0.0.2, key: 5, dst_port: 7, tos: inherit, ttl: 3, csum: off}
  - {name: pack}
`)
	for name, want := range map[string]Tunnel{
		"bare": {Type: VXLANPort, Remote: "host2", Port: 4789, DF: true, MSSClamp: true, BFDMinRx: time.Second, BFDMinTx: 100 * time.Millisecond},
		"full": {Type: GREPort, Remote: "fd00::2", Local: netip.MustParseAddr("fd00::1"), InKey: 1, OutKey: 1<<32 - 1, TOS: 0xb8, TTLInherit: true,
			Csum: true, CsumSet: true, Seq: true, BFD: true, BFDMinRx: 300 * time.Millisecond, BFDMinTx: 50 * time.Millisecond},
		"gen": {Type: GenevePort, Remote: "10.0.0.2", InKey: 5, OutKey: 5, Port: 7, TOSInherit: true, TTL: 3, DF: true, CsumSet: true,
			MSSClamp: true, BFDMinRx: time.Second, BFDMinTx: 100 * time.Millisecond},
	} {
		if got, ok := d.Bridge("br0").Port(name).Tunnel(); !ok || got != want {
			t.Errorf("%s: %+v, %t; want %+v", name, got, ok, want)
		}
	}
	if _, ok := d.Bridge("br0").Port("pack").Tunnel(); ok {
		t.Error("a packet port is a tunnel")
	}
}

// A mesh's defaults are its own; a port's stay what they were.
func TestMeshDefaults(t *testing.T) {
	m := Mesh{Options: Options{"bfd_min_tx": "50"}}
	for name, want := range map[string]string{"bfd_enable": "true", "bfd_min_rx": "300", "bfd_min_tx": "50", "storm_broadcast": "1000",
		"storm_unknown": "1000", "storm_multicast": "2000", "type": "vxlan", "key": "0", "tos": "0", "ttl": "", "port": ""} {
		if got := m.Text(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
		for _, o := range OptionsFor(MeshObject) {
			if o.Name == name && name != "bfd_min_tx" && o.Default != want {
				t.Errorf("the table says of %s: %q, want %q", name, o.Default, want)
			}
		}
	}
	if (Options{}).Bool("bfd_enable") || (Options{}).Int("storm_unknown") != 0 {
		t.Error("a port has a mesh's defaults")
	}
	m.Options["peers"] = "b,a"
	if l := m.Options.List("peers"); len(l) != 2 || l[0] != "b" || fmt.Sprint(m.Peers()) != fmt.Sprint(l) {
		t.Errorf("peers: %v, %v", l, m.Peers())
	}
	if o, err := Lookup(MeshObject, "bfd_min_rx"); err != nil || o.Default != "300" {
		t.Errorf("%+v, %v", o, err)
	}
	if o, err := Lookup(VXLANPort, "bfd_min_rx"); err != nil || o.Default != "1000" {
		t.Errorf("%+v, %v", o, err)
	}
}

// Mesh is compared and cloned, and never written.
func TestMeshOfAPort(t *testing.T) {
	p := Port{Name: "x", Type: "vxlan", Options: Options{"remote_ip": "a"}}
	q := p
	q.Mesh = "m"
	if p.Equal(q) {
		t.Error("a mesh's port equals one that is not")
	}
	d := Document{Bridges: []Bridge{{Name: "b", Ports: []Port{q}}}}
	if c := d.Clone(); !c.Equal(d) || c.Bridges[0].Ports[0].Mesh != "m" {
		t.Error("a clone forgets the mesh")
	}
	a, _ := q.MarshalJSON()
	if b, _ := p.MarshalJSON(); string(a) != string(b) {
		t.Errorf("written: %s", a)
	}
}

// TestUniqueTunnelsAgainstNaive: a document is refused if and only if two of its
// tunnels, all spelled out, are the same, or share a UDP port and are of two kinds.
func TestUniqueTunnelsAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	pick := func(words ...string) string { return words[rng.IntN(len(words))] }
	refusals := 0
	for range 5000 {
		d := Document{Bridges: []Bridge{{Name: "b"}}}
		seen, clash := map[string]bool{}, false
		type user struct{ kind, port, local string }
		var sockets []user
		note := func(kind, port, local, key, remote string) {
			if port == "" {
				port = map[string]string{"vxlan": "4789", "geneve": "6081"}[kind]
			}
			if key == "" {
				key = "0"
			}
			s := fmt.Sprint(kind, port, "/", local, "/", key, "/", remote)
			clash = clash || seen[s]
			seen[s] = true
			for _, u := range sockets {
				clash = clash || port != "" && u.port == port && u.kind != kind && (u.local == local || u.local == "" || local == "")
			}
			sockets = append(sockets, user{kind, port, local})
		}
		for i := range 2 {
			o, kind := Options{}, pick("vxlan", "gre", "geneve")
			set := func(name, value string) {
				if value != "" {
					o[name] = value
				}
			}
			local, port, key, a, b := pick("", "10.0.0.1"), "", pick("", "0", "1"), pick("h1", "h2"), pick("h3", "h4")
			set("local_ip", local)
			if kind != "gre" {
				port = pick("", "4789", "6081")
			}
			if rng.IntN(2) == 0 {
				set("port", port)
				set("key", key)
				set("type", kind)
				set("bridge", "b")
				set("peers", a+","+b)
				d.Meshes = append(d.Meshes, Mesh{Name: fmt.Sprint("m", i), Options: o})
				note(kind, port, local, key, a)
				note(kind, port, local, key, b)
				continue
			}
			set("dst_port", port)
			set(pick("key", "in_key"), key)
			set("remote_ip", a)
			d.Bridges[0].Ports = append(d.Bridges[0].Ports, Port{Name: fmt.Sprint("p", i), Type: kind, Options: o})
			note(kind, port, local, key, a)
		}
		if err := d.Validate(); (err != nil) != clash {
			t.Fatalf("%+v: %v; want a clash: %t", d, err, clash)
		}
		if clash {
			refusals++
		}
	}
	if refusals < 100 {
		t.Errorf("%d refusals are too few to say anything", refusals)
	}
}

// FuzzHost: what is read is canonical, and is an address or a name.
func FuzzHost(f *testing.F) {
	for _, s := range []string{"10.0.0.1", "FD00::1", "host-1.example", "fe80::1%eth0", "1.2.3", "a..b", "-", "::ffff:1.2.3.4", "fLow", "\u0130"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		host, why := parseHost(s)
		if (host == "") == (why == "") {
			t.Fatalf("%q: %q, %q", s, host, why)
		}
		if why != "" {
			return
		}
		if again, why := parseHost(host); again != host || why != "" {
			t.Fatalf("%q reads as %q, and that as %q, %q", s, host, again, why)
		}
		if len(splitList(host)) != 1 || len(host) > 253 {
			t.Fatalf("%q is no word of a list", host)
		}
	})
}
