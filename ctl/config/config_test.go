package config

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "write docs/options.md")

func TestReferencePage(t *testing.T) {
	const page = "../../docs/options.md"
	if *update {
		if err := os.WriteFile(page, []byte(Reference()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(text) != Reference() {
		t.Error("docs/options.md is not what the table says: go test ./ctl/config -run TestReferencePage -update")
	}
}

// TestTable holds the table to its own rules.
func TestTable(t *testing.T) {
	seen := map[string]bool{}
	for i := range table {
		o := &table[i]
		if seen[o.Name] {
			t.Errorf("%s: there twice", o.Name)
		}
		seen[o.Name] = true
		if o.Help == "" || strings.Contains(o.Help, "\n") || strings.Contains(o.Help, "|") || len(o.Help) > 100 {
			t.Errorf("%s: help is not one line of at most 100 bytes: %q", o.Name, o.Help)
		}
		if o.Kind.String() == "" || o.Allowed() == "" || len(o.Objects) == 0 {
			t.Errorf("%s: incomplete", o.Name)
		}
		if o.Default != "" {
			if c, err := o.Canonical(o.Default); err != nil || c != o.Default {
				t.Errorf("%s: default %q: canonical is %q, %v", o.Name, o.Default, c, err)
			}
		}
		if o.InMesh != "" {
			if c, err := o.Canonical(o.InMesh); err != nil || c != o.InMesh || !o.Applies(MeshObject) {
				t.Errorf("%s: default of a mesh %q: canonical is %q, %v", o.Name, o.InMesh, c, err)
			}
		}
	}
	for mode, word := range vlanModes {
		if c, err := find("vlan_mode").Canonical(word); err != nil || c != word || mode.String() != word {
			t.Errorf("vlan_mode %s: %q, %v", word, c, err)
		}
	}
}

func TestCanonical(t *testing.T) {
	const refused = ""
	const collectors = "addresses with UDP ports, such as 10.0.0.9:6343,[fd00::9]:6343 (the port may be left out)"
	for _, c := range []struct{ option, in, want, message string }{
		{"offload", "on", "true", ""},
		{"offload", "OFF", "false", ""},
		{"offload", "yes", "true", ""},
		{"offload", "maybe", refused, `"maybe" is not a bool: want true or false`},
		{"offload", " ", refused, `" " has no value: want true or false`},
		{"tag", "10", "10", ""},
		{"tag", " 010 ", "10", ""},
		{"tag", "0", "0", ""},
		{"tag", "4095", refused, `"4095" is not a VLAN: want 0 to 4094`},
		{"tag", "5000", refused, `"5000" is not a VLAN: want 0 to 4094`},
		{"tag", "-1", refused, `"-1" is not a VLAN: want 0 to 4094`},
		{"tag", "0x10", refused, `"0x10" is not a VLAN: want 0 to 4094`},
		{"tag", "1e1", refused, `"1e1" is not a VLAN: want 0 to 4094`},
		{"output_vlan", "0", refused, `"0" is not a VLAN: want 1 to 4094`},
		{"trunks", "30,10, 20-22 21-25", "10,20-25,30", ""},
		{"trunks", "1,2,3", "1-3", ""},
		{"trunks", "0-4094", "0-4094", ""},
		{"trunks", "20-10", refused, `"20-10" is not a VLAN or a range of VLANs: want VLANs 0 to 4094 and ranges of them, such as 10,20-30`},
		{"trunks", "1,x", refused, `"x" is not a VLAN or a range of VLANs: want VLANs 0 to 4094 and ranges of them, such as 10,20-30`},
		{"trunks", "1-4095", refused, `"1-4095" is not a VLAN or a range of VLANs: want VLANs 0 to 4094 and ranges of them, such as 10,20-30`},
		{"trunks", ",", refused, `"," is not a VLAN or a range of VLANs: want VLANs 0 to 4094 and ranges of them, such as 10,20-30`},
		{"vlan_mode", "native-tagged", "native-tagged", ""},
		{"vlan_mode", "dot1q-tunnel", refused, `"dot1q-tunnel" is not supported yet: want access, trunk, native-tagged or native-untagged`},
		{"vlan_mode", "acces", refused, `"acces" is not a vlan_mode: want access, trunk, native-tagged or native-untagged; did you mean "access"?`},
		{"mtu", "1500", "1500", ""},
		{"mtu", "67", refused, `"67" is out of range: want 68 to 65521`},
		{"mtu", "65522", refused, `"65522" is out of range: want 68 to 65521`},
		{"mtu", "big", refused, `"big" is not a number: want 68 to 65521`},
		{"mac-aging-time", "5m", "300", ""},
		{"mac-aging-time", "1h0m0s", "3600", ""},
		{"mac-aging-time", "0", "0", ""},
		{"mac-aging-time", "1500ms", refused, `"1500ms" is not a time in seconds: want 0 to 86400 seconds`},
		{"mac-aging-time", "25h", refused, `"90000" is out of range: want 0 to 86400 seconds`},
		{"mac-table-size", "0", refused, `"0" is out of range: want 1 to 1048576`},
		{"rotate", "10M", "10M", ""},
		{"rotate", "10mib", "10M", ""},
		{"rotate", "1048576", "1M", ""},
		{"rotate", "1024M", "1G", ""},
		{"rotate", "5000", "5000", ""},
		{"rotate", "10", refused, `"10" is out of range: want 4k to 1T bytes, such as 10M (suffixes k, M, G)`},
		{"rotate", "10i", refused, `"10i" is not a size: want 4k to 1T bytes, such as 10M (suffixes k, M, G)`},
		{"rotate", "M", refused, `"M" is not a size: want 4k to 1T bytes, such as 10M (suffixes k, M, G)`},
		{"rotate", "999999999999999G", refused, `"999999999999999G" is not a size: want 4k to 1T bytes, such as 10M (suffixes k, M, G)`},
		{"ip", "10.0.0.1/24, FD00::1/64", "10.0.0.1/24,fd00::1/64", ""},
		{"ip", "10.0.0.1/24,10.0.0.1/24", "10.0.0.1/24", ""},
		{"ip", "10.0.0.1", refused, `"10.0.0.1" has no prefix length: want addresses with prefix lengths, such as 10.0.0.1/24,fd00::1/64`},
		{"ip", "10.0.0.1/33", refused, `"10.0.0.1/33" is not an address with a prefix length: want addresses with prefix lengths, such as 10.0.0.1/24,fd00::1/64`},
		{"ip", "ff02::1/64", refused, `"ff02::1/64" is not an address an interface can have: want addresses with prefix lengths, such as 10.0.0.1/24,fd00::1/64`},
		{"mac", "02-00-00-00-00-0A", "02:00:00:00:00:0a", ""},
		{"mac", "0200.0000.000a", "02:00:00:00:00:0a", ""},
		{"mac", "01:00:00:00:00:00", refused, `"01:00:00:00:00:00" is not a unicast MAC address, such as 02:00:00:00:00:01`},
		{"mac", "00:00:00:00:00:00", refused, `"00:00:00:00:00:00" is not a unicast MAC address, such as 02:00:00:00:00:01`},
		{"mac", "02:00:00:00:00:00:00:01", refused, `"02:00:00:00:00:00:00:01" is not a unicast MAC address, such as 02:00:00:00:00:01`},
		{"peer", "p1", "p1", ""},
		{"peer", "a/b", refused, `"a/b" is not a name: it holds one of / : % , or a space: want the name of a port`},
		{"select_src_port", "b, a,b", "a,b", ""},
		{"output_pcap", "/tmp/../var//m.pcapng", "/var/m.pcapng", ""},
		{"output_pcap", "m.pcapng", refused, `"m.pcapng" is not an absolute path, such as /var/tmp/m0.pcapng`},
		{"output_pcap", "/tmp/", refused, `"/tmp/" names a directory: want an absolute path, such as /var/tmp/m0.pcapng`},
		{"output_pcap", "/tmp/a\nb", refused, `"/tmp/a\nb" holds characters that cannot be printed: want an absolute path, such as /var/tmp/m0.pcapng`},
		{"owner", "libvirt-qemu", "libvirt-qemu", ""},
		{"owner", "1000", "1000", ""},
		{"owner", "4294967295", refused, `"4294967295" is not a name or number of a user or group: want a name or a number`},
		{"owner", "-x", refused, `"-x" is not a name or number of a user or group: want a name or a number`},
		{"target", "10.0.0.9", "10.0.0.9:6343", ""},
		{"target", "10.0.0.9:1, [FD00::9]:2,fd00::9,[fd00::8]", "10.0.0.9:1,[fd00::9]:2,[fd00::9]:6343,[fd00::8]:6343", ""},
		{"target", "10.0.0.9,10.0.0.9:6343", refused, `"10.0.0.9:6343" is given twice: want ` + collectors},
		{"target", "10.0.0.9:0", refused, `"10.0.0.9:0" has no UDP port of 1 to 65535: want ` + collectors},
		{"target", "10.0.0.9:", refused, `"10.0.0.9:" has no UDP port of 1 to 65535: want ` + collectors},
		{"target", "[fd00::9]6343", refused, `"[fd00::9]6343" is not an address with a UDP port: want ` + collectors},
		{"target", "[", refused, `"[" is not an address: want ` + collectors},
		{"target", "collector:6343", refused, `"collector:6343" is not an address: want ` + collectors},
		{"target", "224.0.0.1", refused, `"224.0.0.1" is a multicast address: want ` + collectors},
		{"target", ",", refused, `"," names no collector: want ` + collectors},
		{"agent", "eth0", "eth0", ""},
		{"agent", "FD00:0::1", "fd00::1", ""},
		{"agent", "10.0.0.256", refused, `"10.0.0.256" is not an address: want the name of an interface, or an address`},
		{"agent", "fe80::1%eth0", refused, `"fe80::1%eth0" has a zone: want the name of an interface, or an address`},
		{"agent", "a-name-too-long-", refused, `"a-name-too-long-" is not a name of at most 15 bytes: want the name of an interface, or an address`},
		{"remote_ip", "192.0.2.1", "192.0.2.1", ""},
		{"remote_ip", "FD00:0:0::0001", "fd00::1", ""},
		{"remote_ip", "Host-1.Example.COM", "host-1.example.com", ""},
		{"remote_ip", "3com", "3com", ""},
		{"remote_ip", "flow", refused, `"flow" is not supported: want an address or a host name`},
		{"remote_ip", "Flow", refused, `"Flow" is not supported: want an address or a host name`},
		{"remote_ip", "10.0.0.256", refused, `"10.0.0.256" is not an address or a host name`},
		{"remote_ip", "10.0.0", refused, `"10.0.0" is not an address or a host name`},
		{"remote_ip", "10.0.0.1/24", refused, `"10.0.0.1/24" is not an address or a host name`},
		{"remote_ip", "10.0.0.1:4789", refused, `"10.0.0.1:4789" is not an address or a host name`},
		{"remote_ip", "[fd00::1]", refused, `"[fd00::1]" is not an address or a host name`},
		{"remote_ip", "a,b", refused, `"a,b" is not an address or a host name`},
		{"remote_ip", "-a", refused, `"-a" is not an address or a host name`},
		{"remote_ip", "a..b", refused, `"a..b" is not an address or a host name`},
		{"remote_ip", "a.", refused, `"a." is not an address or a host name`},
		{"remote_ip", "hôte", refused, `"hôte" is not an address or a host name`},
		{"remote_ip", strings.Repeat("a", 64), refused, `"` + strings.Repeat("a", 64) + `" is not an address or a host name`},
		{"remote_ip", "0.0.0.0", refused, `"0.0.0.0" is no host's address: want an address or a host name`},
		{"remote_ip", "224.0.0.1", refused, `"224.0.0.1" is a multicast address: want an address or a host name`},
		{"remote_ip", "ff02::1", refused, `"ff02::1" is a multicast address: want an address or a host name`},
		{"remote_ip", "255.255.255.255", refused, `"255.255.255.255" is the broadcast address: want an address or a host name`},
		{"remote_ip", "fd00::1%eth0", refused, `"fd00::1%eth0" has a zone: want an address or a host name`},
		{"remote_ip", "fe80::1", refused, `"fe80::1" is a link-local address, which needs a zone: want an address or a host name`},
		{"remote_ip", "::ffff:10.0.0.1", refused, `"::ffff:10.0.0.1" is an IPv4 address written as IPv6: want an address or a host name`},
		{"local_ip", "10.0.0.1", "10.0.0.1", ""},
		{"local_ip", "host1", refused, `"host1" is not an address, such as 10.0.0.1 or fd00::1`},
		{"local_ip", "flow", refused, `"flow" is not supported: want an address, such as 10.0.0.1 or fd00::1`},
		{"peers", "host2, FD00::1 10.0.0.1", "host2,fd00::1,10.0.0.1", ""},
		{"peers", "fd00::1,FD00:0::1", refused, `"FD00:0::1" is given twice: want addresses and host names, such as 10.0.0.2,host3`},
		{"peers", "host2,HOST2", refused, `"HOST2" is given twice: want addresses and host names, such as 10.0.0.2,host3`},
		{"peers", ",", refused, `"," names no host: want addresses and host names, such as 10.0.0.2,host3`},
		{"key", "0x2A", "42", ""},
		{"key", "042", "42", ""},
		{"key", "4294967295", "4294967295", ""},
		{"key", "4294967296", refused, `"4294967296" is out of range: want 0 to 4294967295`},
		{"key", "0xfffffffffffffffff", refused, `"0xfffffffffffffffff" is not a number: want 0 to 4294967295`},
		{"key", "flow", refused, `"flow" is not supported: want 0 to 4294967295`},
		{"key", "0x", refused, `"0x" is not a number: want 0 to 4294967295`},
		{"key", "0x-1", refused, `"0x-1" is not a number: want 0 to 4294967295`},
		{"key", "-1", refused, `"-1" is not a number: want 0 to 4294967295`},
		{"tos", "inherit", "inherit", ""},
		{"tos", "0xB8", "184", ""},
		{"tos", "1", refused, `"1" has ECN bits, which are always those of the inner packet: want 0 to 252 in steps of 4, or inherit`},
		{"tos", "256", refused, `"256" is out of range: want 0 to 252 in steps of 4, or inherit`},
		{"tos", "ef", refused, `"ef" is not a number or inherit: want 0 to 252 in steps of 4, or inherit`},
		{"ttl", "64", "64", ""},
		{"ttl", "0", refused, `"0" is out of range: want 1 to 255, or inherit`},
		{"bfd_min_rx", "9", refused, `"9" is out of range: want 10 to 60000`},
		{"storm_unknown", "10000000", "10000000", ""},
		{"mac-flap-limit", "1001", refused, `"1001" is out of range: want 0 to 1000`},
		{"n_rxq", "17", refused, `"17" is out of range: want 1 to 16`},
	} {
		got, err := find(c.option).at(BridgeObject).Canonical(c.in)
		if got != c.want || (err == nil) != (c.message == "") || err != nil && err.Error() != c.message {
			t.Errorf("%s=%q: got %q, %v; want %q, %s", c.option, c.in, got, err, c.want, c.message)
			continue
		}
		if err == nil {
			if again, err := find(c.option).Canonical(got); again != got || err != nil {
				t.Errorf("%s=%q: canonical %q reads as %q, %v", c.option, c.in, got, again, err)
			}
		}
	}
}

func TestLookup(t *testing.T) {
	for _, c := range []struct {
		object     Object
		name, want string
	}{
		{PacketPort, "tga", `unknown option "tga" for port type packet; did you mean "tag"?`},
		{PacketPort, "vlan-mode", `unknown option "vlan-mode" for port type packet; did you mean "vlan_mode"?`},
		{BridgeObject, "mac_aging_time", `unknown option "mac_aging_time" for bridge; did you mean "mac-aging-time"?`},
		{MirrorObject, "zzz", `unknown option "zzz" for mirror`},
		{PacketPort, "peer", `option "peer" is not for port type packet, but for port type patch`},
		{PatchPort, "mtu", `option "mtu" is not for port type patch, but for port type tap, port type internal, bridge and port type plug`},
	} {
		_, err := Lookup(c.object, c.name)
		if err == nil || err.Error() != c.want {
			t.Errorf("%s %s: %v; want %s", c.object, c.name, err, c.want)
		}
	}
	if o, err := Lookup(PacketPort, "tag"); err != nil || o.Name != "tag" {
		t.Errorf("tag: %v, %v", o, err)
	}
	if err := CheckPortType("tpa"); err == nil || err.Error() != `"tpa" is not a port type: want packet, tap, internal, patch, plug, vxlan, gre or geneve; did you mean "tap"?` {
		t.Error(err)
	}
	if err := CheckPortType(""); err != nil {
		t.Error(err)
	}
}

func TestEditDistance(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{{"", "", 0}, {"a", "", 1}, {"tga", "tag", 1}, {"tag", "tags", 1}, {"abc", "cba", 2}, {"kitten", "sitting", 3}, {"é", "e", 1}} {
		if got, back := editDistance(c.a, c.b), editDistance(c.b, c.a); got != c.want || back != c.want {
			t.Errorf("%q %q: %d, %d; want %d", c.a, c.b, got, back, c.want)
		}
	}
}

// br0 puts text into a bridge.
func br0(body string) string { return "bridges:\n- name: br0\n" + body }

func TestValidate(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"nothing", "bridges: []", ""},
		{"bare bridge", br0(""), ""},
		{"name too long", "bridges: [{name: abcdefghijklmnop}]", `bridges[abcdefghijklmnop]: "abcdefghijklmnop" is not a name of at most 15 bytes`},
		{"name with slash", "bridges: [{name: a/b}]", `bridges[a/b]: "a/b" is not a name: it holds one of / : % , or a space`},
		{"name the kernel reads as space", "bridges: [{name: \"\u0460\u00e0\"}]", "bridges[\u0460\u00e0]: \"\u0460\u00e0\" is not a name: it holds one of / : % , or a space"},
		{"name dots", "bridges: [{name: ..}]", `bridges[..]: ".." is not a name the kernel takes`},
		{"name with control", `bridges: [{name: "a\x1b"}]`, `bridges["a\x1b"]: "a\x1b" is not a name: it holds characters that cannot be printed`},
		{"one interface in two bridges", "bridges: [{name: a, ports: [{name: x}]}, {name: b, ports: [{name: x}]}]",
			`bridges[b].ports[x]: the name "x" is taken by bridges[a].ports[x]`},
		{"port named as a bridge", "bridges: [{name: a, ports: [{name: b}]}, {name: b}]", `bridges[a].ports[b]: the name "b" is taken by bridges[b]`},
		{"port named as its bridge", br0("  ports: [{name: br0}]"), `bridges[br0].ports[br0]: the name "br0" is taken by bridges[br0]`},
		{"long patch name", "bridges: [{name: a, ports: [{name: patch-from-a-to-the-bridge-b, type: patch, peer: x}]}]", ""},

		{"access by tag", br0("  ports: [{name: x, tag: 1}]"), ""},
		{"access without tag", br0("  ports: [{name: x, vlan_mode: access}]"), `bridges[br0].ports[x].vlan_mode: access needs a tag`},
		{"native without tag", br0("  vlan_mode: native-tagged"), `bridges[br0].vlan_mode: native-tagged needs a tag, the native VLAN`},
		{"trunk with tag", br0("  ports: [{name: x, tag: 1, vlan_mode: trunk}]"),
			`bridges[br0].ports[x].tag: a trunk has no tag: unset it, or set vlan_mode to native-tagged or native-untagged`},
		{"access with trunks", br0("  ports: [{name: x, tag: 1, trunks: 2}]"),
			`bridges[br0].ports[x].trunks: an access port carries no trunks: unset them, or set vlan_mode to native-tagged or native-untagged`},
		{"native with trunks", br0("  ports: [{name: x, tag: 1, trunks: 2, vlan_mode: native-untagged}]"), ""},

		{"patch pair", "bridges: [{name: a, ports: [{name: p, type: patch, peer: q}]}, {name: b, ports: [{name: q, type: patch, peer: p}]}]", ""},
		{"patch waits", "bridges: [{name: a, ports: [{name: p, type: patch, peer: q}]}]", ""},
		{"patch without peer", "bridges: [{name: a, ports: [{name: p, type: patch}]}]",
			`bridges[a].ports[p].peer: a patch port needs a peer: the name of a patch port of another bridge`},
		{"patch to itself", "bridges: [{name: a, ports: [{name: p, type: patch, peer: p}]}]", `bridges[a].ports[p].peer: a patch port cannot be its own peer`},
		{"patch in one bridge", "bridges: [{name: a, ports: [{name: p, type: patch, peer: q}, {name: q, type: patch, peer: x}]}]",
			`bridges[a].ports[p].peer: "q" is in the same bridge: want a patch port of another bridge`},
		{"patch to a packet port", "bridges: [{name: a, ports: [{name: p, type: patch, peer: q}]}, {name: b, ports: [{name: q}]}]",
			`bridges[a].ports[p].peer: "q" is not a patch port`},
		{"patch to a bridge", "bridges: [{name: a, ports: [{name: p, type: patch, peer: b}]}, {name: b}]", `bridges[a].ports[p].peer: "b" is not a patch port`},
		{"patch to another's", "bridges: [{name: a, ports: [{name: p, type: patch, peer: q}]}, {name: b, ports: [{name: q, type: patch, peer: r}]}]",
			`bridges[a].ports[p].peer: "q" is the peer of "r": want a patch port whose peer is "p"`},
		{"two for one peer", "bridges: [{name: a, ports: [{name: p, type: patch, peer: r}, {name: q, type: patch, peer: r}]}]",
			`bridges[a].ports[q].peer: "r" is the peer of "p" already`},

		{"tunnels", br0("  ports: [{name: a, type: vxlan, remote_ip: 10.0.0.1}, {name: b, type: vxlan, remote_ip: 10.0.0.1, key: 1}, " +
			"{name: c, type: vxlan, remote_ip: 10.0.0.1, dst_port: 8472}, {name: d, type: vxlan, remote_ip: 10.0.0.1, local_ip: 10.0.0.2}, " +
			"{name: e, type: geneve, remote_ip: 10.0.0.1}, {name: f, type: gre, remote_ip: 10.0.0.1, in_key: 4294967295, out_key: 1}]"), ""},
		{"tunnel without remote_ip", br0("  ports: [{name: a, type: vxlan}]"),
			`bridges[br0].ports[a]: a tunnel port needs remote_ip: an address or a host name`},
		{"long tunnel name", br0("  ports: [{name: tunnel-from-a-to-the-host-b, type: gre, remote_ip: b}]"), ""},
		{"key and in_key", br0("  ports: [{name: a, type: gre, remote_ip: b, key: 1, in_key: 1}]"),
			`bridges[br0].ports[a].in_key: key is set, which is both in_key and out_key: want key alone, or in_key and out_key`},
		{"VNI too large", br0("  ports: [{name: a, type: geneve, remote_ip: b, out_key: 16777216}]"),
			`bridges[br0].ports[a].out_key: "16777216" is out of range: geneve has 24 bits for it: want 0 to 16777215`},
		{"ends of two families", br0("  ports: [{name: a, type: vxlan, remote_ip: \"fd00::1\", local_ip: 10.0.0.1}]"),
			`bridges[br0].ports[a].local_ip: "10.0.0.1" is IPv4, and "fd00::1" is IPv6: want both of one family`},
		{"an end that is a name", br0("  ports: [{name: a, type: vxlan, remote_ip: b, local_ip: 10.0.0.1}]"), ""},
		{"one tunnel twice", br0("  ports: [{name: a, type: vxlan, remote_ip: b, key: 5}]\n- name: br1\n  ports: [{name: c, type: vxlan, remote_ip: B, in_key: 5, dst_port: 4789}]"),
			`bridges[br1].ports[c].remote_ip: bridges[br0].ports[a] has a tunnel vxlan to b with key 5 already: want another host, key, local_ip or UDP port`},
		{"mesh", br0("") + "meshes: [{name: m, bridge: br0, peers: [a, b]}, {name: n, bridge: br0, key: 1, peers: [a, b]}, {name: o, bridge: br0, type: gre, peers: [a, b]}]", ""},
		{"mesh of nothing", "bridges: []\nmeshes: [{name: m}]",
			"meshes[m]: a mesh needs bridge: the name of a bridge\nmeshes[m]: a mesh needs peers: addresses and host names, such as 10.0.0.2,host3"},
		{"mesh without its bridge", br0("") + "meshes: [{name: m, bridge: rb0, peers: a}]", `meshes[m].bridge: no bridge is named "rb0"; did you mean "br0"?`},
		{"mesh with a long name", br0("") + "meshes: [{name: abcdefghijklmnopqrstuvwxyz012345, bridge: br0, peers: a}]",
			`meshes[abcdefghijklmnopqrstuvwxyz012345]: "abcdefghijklmnopqrstuvwxyz012345" is not a name of at most 31 bytes`},
		{"mesh named as a bridge", br0("") + "meshes: [{name: br0, bridge: br0, peers: a}]", ""},
		{"mesh of gre with a port", br0("") + "meshes: [{name: m, bridge: br0, type: gre, port: 1, peers: a}]",
			`meshes[m].port: gre has no UDP port: unset it, or set type to vxlan or geneve`},
		{"mesh of two families", br0("") + "meshes: [{name: m, bridge: br0, local_ip: 10.0.0.1, peers: [a, 10.0.0.2, \"fd00::1\", \"fd00::2\"]}]",
			`meshes[m].local_ip: "10.0.0.1" is IPv4, and "fd00::1" is IPv6: want both of one family`},
		{"mesh with a large key", br0("") + "meshes: [{name: m, bridge: br0, key: 16777216, peers: a}]",
			`meshes[m].key: "16777216" is out of range: vxlan has 24 bits for it: want 0 to 16777215`},
		{"mesh against the VLAN rules", br0("") + "meshes: [{name: m, bridge: br0, vlan_mode: access, peers: a}]", `meshes[m].vlan_mode: access needs a tag`},
		{"two meshes of the same tunnel", br0("") + "meshes: [{name: m, bridge: br0, peers: [a, b]}, {name: n, bridge: br0, port: 4789, peers: [c, b]}]",
			`meshes[n].peers: meshes[m] has a tunnel vxlan to b with key 0 already: want another host, key, local_ip or UDP port`},
		{"mesh and port of the same tunnel", br0("  ports: [{name: x, type: geneve, remote_ip: b, dst_port: 7, local_ip: 10.0.0.1}]\n") +
			"meshes: [{name: m, bridge: br0, type: geneve, port: 7, local_ip: 10.0.0.1, peers: [a, b]}]",
			`meshes[m].peers: bridges[br0].ports[x] has a tunnel geneve to b with key 0 at port 7 from 10.0.0.1 already: want another host, key, local_ip or UDP port`},
		{"two kinds on one UDP port", br0("  ports: [{name: x, type: geneve, remote_ip: b, dst_port: 4789, local_ip: 10.0.0.1}]\n") + "meshes: [{name: m, bridge: br0, peers: a}]",
			`meshes[m]: UDP port 4789 is that of bridges[br0].ports[x], which is geneve: want another for vxlan, or a local_ip for both`},
		{"two kinds on one UDP port, the first of any address", br0("  ports: [{name: x, type: vxlan, remote_ip: b}, {name: y, type: geneve, remote_ip: 10.0.0.2, dst_port: 4789, local_ip: 10.0.0.1}]\n"),
			`bridges[br0].ports[y]: UDP port 4789 is that of bridges[br0].ports[x], which is vxlan: want another for geneve, or a local_ip for both`},
		{"mirror of a mesh's port", br0("  mirrors: [{name: x, select_all: true, output_vlan: 5}]\n") + "meshes: [{name: m, bridge: br0, peers: a}]", ""},

		{"mirror to a file", br0("  mirrors: [{name: m, select_all: true, output_pcap: /tmp/m, snaplen: 96, rotate: 1M, files: 3}]"), ""},
		{"mirror of the local port", br0("  mirrors: [{name: m, select_src_port: br0, output_vlan: 9}]"), ""},
		{"mirror selects nothing", br0("  mirrors: [{name: m, output_vlan: 9}]"),
			`bridges[br0].mirrors[m]: selects nothing: want select_all=true, select_src_port or select_dst_port`},
		{"mirror selects a VLAN only", br0("  mirrors: [{name: m, select_vlan: 1, output_vlan: 9}]"),
			`bridges[br0].mirrors[m]: selects nothing: want select_all=true, select_src_port or select_dst_port (select_vlan narrows what these select)`},
		{"mirror without output", br0("  mirrors: [{name: m, select_all: true}]"),
			`bridges[br0].mirrors[m]: has no output: want one of output_port, output_vlan and output_pcap`},
		{"mirror with two outputs", br0("  mirrors: [{name: m, select_all: true, output_vlan: 1, output_pcap: /x}]"),
			`bridges[br0].mirrors[m]: has output_vlan and output_pcap: want only one of them`},
		{"mirror of a missing port", br0("  ports: [{name: veth1}]\n  mirrors: [{name: m, select_src_port: [vteh1], output_vlan: 1}]"),
			`bridges[br0].mirrors[m].select_src_port: "vteh1" is not a port of br0; did you mean "veth1"?`},
		{"mirror of its output", br0("  ports: [{name: x}]\n  mirrors: [{name: m, select_dst_port: x, output_port: x}]"),
			`bridges[br0].mirrors[m].select_dst_port: "x" is the mirror's output_port: it carries copies only and cannot be mirrored`},
		{"mirror of all but its output", br0("  ports: [{name: x}]\n  mirrors: [{name: m, select_all: on, output_port: x}]"), ""},
		{"snaplen to a VLAN", br0("  mirrors: [{name: m, select_all: true, output_vlan: 1, snaplen: 90}]"), ""},
		{"files without file", br0("  mirrors: [{name: m, select_all: true, output_vlan: 1, rotate: 1M}]"),
			`bridges[br0].mirrors[m].rotate: is for output_pcap only`},
		{"files without rotate", br0("  mirrors: [{name: m, select_all: true, output_pcap: /x, files: 2}]"),
			`bridges[br0].mirrors[m].files: needs rotate, the size at which a file is full`},
		{"two mirrors, one file", br0("  mirrors: [{name: a, select_all: true, output_pcap: /x.pcapng}]\n- name: br1\n  mirrors: [{name: b, select_all: true, output_pcap: //x.pcapng}]"),
			`bridges[br1].mirrors[b].output_pcap: "/x.pcapng" is written by mirror "a" of br0 already: each mirror needs files of its own`},
		{"a mirror rotates into another's file", br0("  mirrors: [{name: a, select_all: true, output_pcap: /x.2.pcapng}, {name: b, select_all: true, output_pcap: /x.pcapng, rotate: 1M, files: 3}]"),
			`bridges[br0].mirrors[a].output_pcap: "/x.2.pcapng" is written by mirror "b" of br0 when it rotates (files=3): each mirror needs files of its own`},
		{"a mirror rotates past another's file", br0("  mirrors: [{name: a, select_all: true, output_pcap: /x.3.pcapng}, {name: b, select_all: true, output_pcap: /x.pcapng, rotate: 1M, files: 3}]"), ""},

		{"static MAC", br0("  ports: [{name: x, tag: 10}]\n  fdb: [{mac: 02:00:00:00:00:01, vlan: 10, port: x}, {mac: 02:00:00:00:00:01, port: br0}]"), ""},
		{"static MAC at no port", br0("  fdb: [{mac: 02:00:00:00:00:01, port: x}]"),
			`bridges[br0].fdb[0,02:00:00:00:00:01].port: "x" is not a port of br0`},
		{"static MAC in a VLAN the port has not", br0("  ports: [{name: x, tag: 10}]\n  fdb: [{mac: 02:00:00:00:00:01, port: x}]"),
			`bridges[br0].fdb[0,02:00:00:00:00:01].vlan: port x does not carry VLAN 0: want 10`},
		{"static MAC off the trunk", br0("  ports: [{name: x, trunks: \"5,7-9\"}]\n  fdb: [{mac: 02:00:00:00:00:01, vlan: 6, port: x}]"),
			`bridges[br0].fdb[6,02:00:00:00:00:01].vlan: port x does not carry VLAN 6: want 5, 7-9`},
		{"static MACs do not fit", br0("  mac-table-size: 1\n  fdb: [{mac: 02:00:00:00:00:01, port: br0}, {mac: 02:00:00:00:00:02, port: br0}]"),
			`bridges[br0].fdb: 2 static MACs do not fit in mac-table-size 1`},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, err := Parse([]byte(c.text))
			if err != nil {
				t.Fatal(err)
			}
			err = d.Validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || err.Error() != c.want) {
				t.Errorf("got  %v\nwant %s", err, c.want)
			}
		})
	}
}

// TestValidateByHand judges what no text can say: documents built in Go.
func TestValidateByHand(t *testing.T) {
	d := Document{Bridges: []Bridge{{Name: "b", Ports: []Port{
		{Name: "y", Options: Options{"tag": "010"}}, {Name: "x", Options: Options{"offload": "off"}}}}}}
	if err := d.Validate(); err != nil {
		t.Fatal(err)
	}
	if p := d.Bridge("b").Port("y"); p.Type != "packet" || p.Options["tag"] != "10" || d.Bridges[0].Ports[0].Name != "x" {
		t.Errorf("not canonical: %+v", d)
	}

	for want, d := range map[string]Document{
		`bridges[b]: is there twice`:                                         {Bridges: []Bridge{{Name: "b"}, {Name: "b"}}},
		`bridges[]: "" is not a name`:                                        {Bridges: []Bridge{{}}},
		`bridges[b].ports[x]: is there twice`:                                {Bridges: []Bridge{{Name: "b", Ports: []Port{{Name: "x"}, {Name: "x"}}}}},
		`bridges[b].fdb: 65537 static MACs are too many: want at most 65536`: {Bridges: []Bridge{{Name: "b", FDB: make([]StaticMAC, maxStaticMACs+1)}}},
		`bridges: 4097 bridges are too many: want at most 4096`:              {Bridges: make([]Bridge, maxBridges+1)},
		`meshes[m]: is there twice`: {Bridges: []Bridge{{Name: "b"}}, Meshes: []Mesh{
			{Name: "m", Options: Options{"bridge": "b", "peers": "x"}}, {Name: "m", Options: Options{"bridge": "b", "peers": "y"}}}},
		`meshes: 4097 meshes are too many: want at most 4096`: {Meshes: make([]Mesh, maxMeshes+1)},
		`bridges[b].ports[x]: unknown option "tga" for port type packet; did you mean "tag"?`: {
			Bridges: []Bridge{{Name: "b", Ports: []Port{{Name: "x", Options: Options{"tga": "1"}}}}}},
		`bridges[b].ports[x].type: "veth" is not a port type: want packet, tap, internal, patch, plug, vxlan, gre or geneve`: {
			Bridges: []Bridge{{Name: "b", Ports: []Port{{Name: "x", Type: "veth"}}}}},
		`bridges[b].ports[x].type: "local" is not a port type: want packet, tap, internal, patch, plug, vxlan, gre or geneve`: {
			Bridges: []Bridge{{Name: "b", Ports: []Port{{Name: "x", Type: "local"}}}}},
	} {
		if err := d.Validate(); err == nil || err.Error() != want {
			t.Errorf("got  %v\nwant %s", err, want)
		}
	}

	// Peers are ports, and a bridge has room for so many.
	full := Document{Bridges: []Bridge{{Name: "b", Ports: []Port{{Name: "x"}}}}}
	for i := range maxPorts / maxPeers {
		peers := make([]string, maxPeers)
		for j := range peers {
			peers[j] = fmt.Sprint("h", j)
		}
		full.Meshes = append(full.Meshes, Mesh{Name: string(rune('A' + i)), Options: Options{
			"bridge": "b", "key": fmt.Sprint(i), "peers": strings.Join(peers, ",")}})
	}
	if err := full.Validate(); err == nil || err.Error() != "meshes[P].peers: b has more than 16384 ports with these peers: want at most 16384" {
		t.Error(err)
	}
	full.Bridges[0].Ports = nil
	if err := full.Validate(); err != nil {
		t.Error(err)
	}
	full.Meshes[0].Options["peers"] += ",one-more"
	if err := full.Validate(); err == nil || !strings.HasPrefix(err.Error(), `meshes[A].peers: "one-more" is one more than the 1024 peers a mesh may have: want addresses`) {
		t.Error(err)
	}

	many := Document{Bridges: []Bridge{{Name: "b"}}}
	for i := range 30 {
		many.Bridges[0].Ports = append(many.Bridges[0].Ports, Port{Name: string(rune('A' + i)), Options: Options{"tag": "5000"}})
	}
	err := many.Validate()
	var list Errors
	if !errors.As(err, &list) || len(list) != maxErrors+1 || list[maxErrors].Message != "and 10 more like these" {
		t.Errorf("30 errors are reported as %v", err)
	}
	var first *Error
	if !errors.As(err, &first) || first.Path != "bridges[b].ports[A].tag" || first.Value != "5000" || first.Allowed != "0 to 4094" ||
		first.Error() != `bridges[b].ports[A].tag: "5000" is not a VLAN: want 0 to 4094` {
		t.Errorf("the first of them is %+v", first)
	}
}

func TestReaders(t *testing.T) {
	d, err := Parse([]byte(br0(`
  ip: [10.0.0.1/24, "fd00::1/64"]
  mac: 02:00:00:00:00:01
  tag: 7
  mac-aging-time: 60
  ports:
  - {name: a, trunks: "10,20-30", n_rxq: 4, offload: off}
  - {name: n, tag: 5, trunks: 6, vlan_mode: native-untagged}
  mirrors: [{name: m, select_src_port: [n, a], output_pcap: /m, rotate: 2M}]
`)))
	if err != nil {
		t.Fatal(err)
	}
	b := d.Bridge("br0")
	if got := b.Options.Duration("mac-aging-time").String(); got != "1m0s" {
		t.Error(got)
	}
	if b.Options.Int("mac-table-size") != 8192 || b.Options.Bool("forward-bpdu") || !b.Options.IsSet("ip") || b.Options.IsSet("mtu") {
		t.Error("bridge defaults")
	}
	local := b.Local()
	if local.Object() != LocalPort || len(local.Options.Prefixes("ip")) != 2 || local.Options.Prefixes("ip")[0].String() != "10.0.0.1/24" ||
		local.Options.MAC("mac").String() != "02:00:00:00:00:01" || local.Options.IsSet("mac-aging-time") {
		t.Errorf("local port: %+v", local)
	}
	if v := local.VLANs(); v.Mode != Access || v.Tag != 7 || !v.Admits(7) || v.Admits(0) {
		t.Errorf("local VLANs: %+v", v)
	}
	a := b.Port("a")
	if a.Options.Bool("offload") || a.Options.Int("n_rxq") != 4 || a.Options.Int("tx-ring") != 1024 || a.Options.Int("rx-buffer") != 4194304 {
		t.Errorf("port a: %+v", a)
	}
	if v := a.VLANs(); v.Mode != Trunk || len(v.Trunks) != 2 || v.Trunks[1] != (Range{20, 30}) || v.Admits(0) || !v.Admits(25) {
		t.Errorf("VLANs of a: %+v", v)
	}
	if v := b.Port("n").VLANs(); v.Mode != NativeUntagged || v.Tag != 5 || len(v.Trunks) != 1 || v.Trunks[0] != (Range{5, 6}) {
		t.Errorf("VLANs of n: %+v", v)
	}
	if v := (Port{}).VLANs(); v.Mode != Trunk || !v.Admits(0) || !v.Admits(4094) {
		t.Errorf("VLANs of a bare port: %+v", v)
	}
	for trunks, want := range map[string]string{"": "1-4094", "0": "5", "0,3": "3, 5", "0-7": "1-7", "3": "3, 5"} {
		p := Port{Options: Options{"vlan_mode": "native-tagged", "tag": "5", "trunks": trunks}}
		if v := p.VLANs(); v.Admits(0) || !v.Admits(5) || v.allowed() != want {
			t.Errorf("a native port with trunks %q: VLAN 0 admitted %t, allowed %s, want %s", trunks, v.Admits(0), v.allowed(), want)
		}
	}
	if v := (Port{Options: Options{"vlan_mode": "native-tagged", "tag": "0"}}).VLANs(); !v.Admits(0) {
		t.Error("a native port whose VLAN is 0 does not admit it")
	}
	m := b.Mirrors[0].Options
	if m.Int("rotate") != 2<<20 || m.Int("files") != 1 || strings.Join(m.List("select_src_port"), " ") != "a n" || m.Text("output_pcap") != "/m" {
		t.Errorf("mirror: %+v", m)
	}
	typed := a.Options.Typed()
	if typed["n_rxq"] != 4 || typed["offload"] != false || typed["trunks"] != "10,20-30" {
		t.Errorf("typed: %v", typed)
	}
}
