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
		"Every option of a bridge, a port and a mirror. The names are those of Open vSwitch where it has the thing.\n" +
		"On the command line they are `name=value` (an empty value unsets); in a document they stand beside `name`.\n" +
		"This page is made from the table in `ctl/config/options.go`.\n")
	for _, s := range []struct {
		title  string
		object Object
		note   string
	}{
		{"Bridge", BridgeObject, "`ip`, `mac`, `mtu`, `tag`, `trunks` and `vlan_mode` are those of the bridge's local port, the TAP that carries its name."},
		{"Port: `type=packet`", PacketPort, "The default. The name is that of any interface there is: veth, physical, somebody's TAP. One that does not exist yet is waited for."},
		{"Port: `type=tap`", TapPort, "A TAP that the switch makes, for a virtual machine."},
		{"Port: `type=internal`", InternalPort, "A TAP that the switch makes, for the host itself."},
		{"Port: `type=patch`", PatchPort, "One of a pair that joins two bridges."},
		{"Mirror", MirrorObject, "Needs `select_all`, `select_src_port` or `select_dst_port`, and one of the outputs."},
	} {
		fmt.Fprintf(&b, "\n## %s\n\n%s\n\n| option | value | default | meaning | Open vSwitch |\n|---|---|---|---|---|\n", s.title, s.note)
		for _, o := range OptionsFor(s.object) {
			fmt.Fprintf(&b, "| `%s` | %s | %s | %s | %s |\n", o.Name, o.Allowed(), code(o.Default), o.Help, code(o.OVS))
		}
	}
	fmt.Fprintf(&b, "\n## How values are written\n\n"+
		"- bool: `true` and `false`; `on`, `off`, `yes`, `no`, `1` and `0` are read too.\n"+
		"- numbers are decimal; seconds may be written `5m` or `1h30m`; sizes take `k`, `M`, `G` and count by 1024.\n"+
		"- lists are separated by commas; in a document they may be YAML or JSON lists.\n"+
		"- VLANs are 0 to %d. 802.1Q reserves 4095, which Open vSwitch lets one configure. 0 is untagged.\n"+
		"- names of bridges and interfaces have 1 to %d bytes, those of patch ports and mirrors up to %d; none holds `/`, `:`, `%%`, `,` or a space.\n"+
		"- an access port takes no `trunks`, and a trunk no `tag`: Open vSwitch ignores them, here they are refused.\n",
		maxVLAN, maxInterfaceName, maxPatchName)
	return b.String()
}

func code(s string) string {
	if s == "" {
		return ""
	}
	return "`" + s + "`"
}
