package config

import (
	"fmt"
	"strings"
)

// Reference is the option table as Markdown: docs/options.md. A test holds the
// page to it.
func Reference() string {
	var b strings.Builder
	b.WriteString("# Options\n\n" +
		"Every option of a bridge, a port, a mirror, a mesh and of sFlow. The names are those of Open vSwitch where it has the thing.\n" +
		"On the command line they are `name=value` (an empty value unsets); in a document they stand beside `name`.\n" +
		"This page is made from the table in `ctl/config/options.go`.\n")
	for _, s := range []struct {
		title   string
		objects []Object
		note    string
	}{
		{"Bridge", onBridge, "`ip`, `mac`, `mtu`, `tag`, `trunks`, `vlan_mode` and `storm_…` are those of the bridge's local port, the TAP that carries its name."},
		{"Port: `type=packet`", []Object{PacketPort}, "The default. The name is that of any interface there is: veth, physical, somebody's TAP. One that does not exist yet is waited for."},
		{"Port: `type=tap`", []Object{TapPort}, "A TAP that the switch makes, for a virtual machine."},
		{"Port: `type=internal`", []Object{InternalPort}, "A TAP that the switch makes, for the host itself."},
		{"Port: `type=patch`", []Object{PatchPort}, "One of a pair that joins two bridges."},
		{"Port: `type=plug`", onPlug, "A veth pair that the switch makes: the port is the host's end, the other is an interface of the container. `vswitchctl plug` makes such ports; see [containers](containers.md)."},
		{"Port: `type=vxlan`, `type=gre`, `type=geneve`", tunnels, "A tunnel to another host. Two tunnels need different hosts, keys (`in_key`), `local_ip` or UDP ports. Where Open vSwitch takes the word `flow`, here it is refused."},
		{"Mirror", onMirror, "Needs `select_all`, `select_src_port` or `select_dst_port`, and one of the outputs."},
		{"Mesh", onMesh, "One tunnel port to each peer, in one bridge; what comes from a peer never goes to another. The port to `host2` is called `NAME:host2`."},
		{"sFlow", onSFlow, "What a bridge tells collectors of its traffic, in version 5 of sFlow: one a bridge, `sflow:` beside its `ports:`. See [monitoring](monitoring.md)."},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| option | value | default | meaning | Open vSwitch |\n|---|---|---|---|---|\n", s.title, s.note)
		for _, o := range union(s.objects) {
			var others []string
			for _, object := range s.objects {
				if !o.Applies(object) {
					others = append(others, string(object))
				}
			}
			help := o.Help
			if len(others) > 0 {
				help += "; not for " + andList(others)
			}
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", o.Name, o.Allowed(), code(o.Default), help, code(o.OVS))
		}
	}
	fmt.Fprintf(&b, "\n## How values are written\n\n"+
		"- bool: `true` and `false`; `on`, `off`, `yes`, `no`, `1` and `0` are read too.\n"+
		"- numbers are decimal, keys, `tos` and `ttl` hexadecimal too (`0x10`); seconds may be written `5m` or `1h30m`; sizes take `k`, `M`, `G` and count by 1024.\n"+
		"- lists are separated by commas; in a document they may be YAML or JSON lists.\n"+
		"- hosts are IPv4 or IPv6 addresses without a zone, or host names, which are looked up when the tunnel is made.\n"+
		"- VLANs are 0 to %d. 802.1Q reserves 4095, which Open vSwitch lets one configure. 0 is untagged.\n"+
		"- names of bridges and interfaces have 1 to %d bytes, those of patch and tunnel ports and of mirrors up to %d, those of meshes %d; none holds `/`, `:`, `%%`, `,` or a space.\n"+
		"- an access port takes no `trunks`, and a trunk no `tag`: Open vSwitch ignores them, here they are refused.\n",
		maxVLAN, maxInterfaceName, maxPatchName, maxMeshName)
	return b.String()
}

// union lists the options of all objects, in the order of the table.
func union(objects []Object) []Option {
	var list []Option
	for i := range table {
		for _, object := range objects {
			if table[i].Applies(object) {
				list = append(list, *table[i].at(object))
				break
			}
		}
	}
	return list
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
