package config

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Typed readers. They take options in canonical form and give the table's
// default for what is not set; a value that is not canonical reads as if it were
// not set. A name that is not in the table, or is of another kind, is a mistake
// of the program and panics.

func option(name string, kinds ...Kind) *Option {
	o := find(name)
	if o == nil {
		panic("config: no option is named " + name)
	}
	for _, k := range kinds {
		if o.Kind == k {
			return o
		}
	}
	panic(fmt.Sprintf("config: option %s is of kind %s", name, o.Kind))
}

// IsSet says whether the document sets the option.
func (o Options) IsSet(name string) bool {
	_, ok := o[name]
	return ok
}

// VLAN is the VLAN of untagged frames of a port, or of a bridge's local port: option tag,
// where 0 is as good as not set.
func (o Options) VLAN() int { return o.Int("tag") }

// Int reads a number, a key, a VLAN, seconds, or a size in bytes; 0 is what an
// option without default gives when it is not set, and a word in a number's place.
func (o Options) Int(name string) int {
	row := option(name, Int, Key, IntOrWord, VLAN, Seconds, Size)
	read := decimal
	if row.Kind == Size {
		read = parseSize
	}
	if n, ok := read(o[name]); ok && n >= row.Min && n <= row.Max {
		return n
	}
	n, _ := read(row.Default)
	return n
}

// Duration reads seconds.
func (o Options) Duration(name string) time.Duration {
	option(name, Seconds)
	return time.Duration(o.Int(name)) * time.Second
}

// Bool reads a bool.
func (o Options) Bool(name string) bool {
	row := option(name, Bool)
	switch o[name] {
	case "true":
		return true
	case "false":
		return false
	}
	return row.Default == "true"
}

// Text reads any option as its canonical spelling, or its default's.
func (o Options) Text(name string) string {
	if v, ok := o[name]; ok {
		return v
	}
	if row := find(name); row != nil {
		return row.Default
	}
	panic("config: no option is named " + name)
}

// List reads a list of ports or hosts, in order.
func (o Options) List(name string) []string {
	option(name, PortList, HostList)
	return splitList(o[name])
}

// Targets reads addresses with UDP ports, in the order given.
func (o Options) Targets(name string) []netip.AddrPort {
	option(name, Targets)
	var list []netip.AddrPort
	for _, word := range splitList(o[name]) {
		if a, err := netip.ParseAddrPort(word); err == nil {
			list = append(list, a)
		}
	}
	return list
}

// Prefixes reads addresses, in the order given, host bits kept.
func (o Options) Prefixes(name string) []netip.Prefix {
	option(name, CIDRList)
	var list []netip.Prefix
	for _, word := range splitList(o[name]) {
		if p, err := netip.ParsePrefix(word); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// MAC reads an address; nil when it is not set.
func (o Options) MAC(name string) net.HardwareAddr {
	option(name, MAC)
	hw, err := net.ParseMAC(o[name])
	if err != nil {
		return nil
	}
	return hw
}

// Ranges reads a VLAN list: sorted ranges that do not touch; nil when it is not set.
func (o Options) Ranges(name string) []Range {
	row := option(name, VLANList)
	ranges, _ := parseVLANs(o[name], row.Min, row.Max)
	return ranges
}

// Typed is what is set, for JSON: numbers (number, key, VLAN, seconds) as ints, bools
// as bools, all else as canonical strings.
func (o Options) Typed() map[string]any {
	m := make(map[string]any, len(o))
	for name, value := range o {
		m[name] = typed(name, value)
	}
	return m
}

func typed(name, value string) any {
	row := find(name)
	if row == nil {
		return value
	}
	switch row.Kind {
	case Bool:
		if value == "true" || value == "false" {
			return value == "true"
		}
	case Int, Key, IntOrWord, VLAN, Seconds:
		if n, ok := decimal(value); ok && strconv.Itoa(n) == value {
			return n
		}
	}
	return value
}

// VLANMode is how a port uses tags, as OVS's vlan_mode.
type VLANMode uint8

// The modes. The zero mode is none of them.
const (
	Access         VLANMode = iota + 1 // one VLAN, untagged
	Trunk                              // many VLANs, tagged; VLAN 0 untagged
	NativeTagged                       // a trunk; untagged frames that come in are the native VLAN's
	NativeUntagged                     // the same; the native VLAN leaves untagged, too
)

var vlanModes = map[VLANMode]string{
	Access: "access", Trunk: "trunk", NativeTagged: "native-tagged", NativeUntagged: "native-untagged",
}

func (m VLANMode) String() string { return vlanModes[m] }

func (m VLANMode) native() bool { return m == NativeTagged || m == NativeUntagged }

// vlanMode is the mode with OVS's default: access where there is a tag, else trunk.
func (o Options) vlanMode() VLANMode {
	word, set := o["vlan_mode"]
	if !set {
		if o.IsSet("tag") {
			return Access
		}
		return Trunk
	}
	for m, w := range vlanModes {
		if w == word {
			return m
		}
	}
	return 0
}

// VLANs is what tag, trunks and vlan_mode of a port mean together.
type VLANs struct {
	Mode   VLANMode
	Tag    uint16  // access and native modes
	Trunks []Range // all but access: sorted ranges that do not touch, the native VLAN among them; never empty
}

// VLANs reads the port's VLAN options.
func (p Port) VLANs() VLANs {
	v := VLANs{Mode: p.Options.vlanMode()}
	if v.Mode != Trunk {
		v.Tag = uint16(p.Options.Int("tag"))
	}
	if v.Mode == Access {
		return v
	}
	list := strings.TrimSpace(p.Options["trunks"])
	if list == "" {
		v.Trunks = []Range{{0, maxVLAN}}
		return v
	}
	if v.Mode.native() { // carried in any case, as OVS does
		list += "," + strconv.Itoa(int(v.Tag))
	}
	v.Trunks, _ = parseVLANs(list, 0, maxVLAN)
	return v
}

// Admits says whether the port carries frames of that VLAN; 0 is untagged.
func (v *VLANs) Admits(vlan uint16) bool {
	if v.Mode == Access {
		return vlan == v.Tag
	}
	for _, r := range v.carried() {
		if vlan >= r.First && vlan <= r.Last {
			return true
		}
	}
	return false
}

// carried is Trunks without VLAN 0 where that is not the native VLAN: it would leave
// untagged, and so turn into the native one.
func (v *VLANs) carried() []Range {
	if !v.Mode.native() || v.Tag == 0 || len(v.Trunks) == 0 || v.Trunks[0].First != 0 {
		return v.Trunks
	}
	rest := slices.Clone(v.Trunks)
	if rest[0].First = 1; rest[0].Last == 0 {
		rest = rest[1:]
	}
	return rest
}
