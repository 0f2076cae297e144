package config

import (
	"strings"
	"testing"
)

// TestMirrorOfMeshPort lets a mirror select a mesh's port by its name, for as long as
// the mesh has the peer.
func TestMirrorOfMeshPort(t *testing.T) {
	const text = `
bridges:
- {name: br0, mirrors: [{name: m, select_src_port: "m0:host2", output_pcap: /tmp/x.pcapng}]}
- {name: br1}
meshes:
- {name: m0, bridge: br0, peers: "host1,host2"}
`
	d, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	if m, peer, ok := SplitMeshPort(MeshPort("m0", "fd00::2")); m != "m0" || peer != "fd00::2" || !ok {
		t.Errorf("split to %q, %q, %v", m, peer, ok)
	}
	for name, c := range map[string]struct{ old, new, want string }{
		"no such peer":   {"m0:host2", "m0:host3", `"m0:host3" is not a port of br0`},
		"no such mesh":   {"m0:host2", "m1:host2", `"m1:host2" is not a port of br0`},
		"another bridge": {"bridge: br0", "bridge: br1", `"m0:host2" is not a port of br0`},
		"as an output":   {`select_src_port: "m0:host2", output_pcap: /tmp/x.pcapng`, `select_all: true, output_port: "m0:host2"`, `"m0:host2" is not a name`},
	} {
		d, err := Parse([]byte(strings.Replace(text, c.old, c.new, 1)))
		if err == nil {
			err = d.Validate()
		}
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %s", name, err, c.want)
		}
	}
	if err := d.Validate(); err != nil {
		t.Error(err)
	}
	_, err = Apply(d, []Op{{Op: "set-mesh", Mesh: "m0", Options: map[string]string{"peers": "host1"}}})
	if err == nil || !strings.Contains(err.Error(), "mirrors[m]") {
		t.Errorf("a peer that a mirror names was taken away: %v", err)
	}
}
