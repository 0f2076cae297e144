package config

import (
	"fmt"
	"slices"
	"strings"
)

// Object is what an option belongs to: a bridge, a port of one type, or a mirror.
type Object string

// The objects. Local is a bridge's local port: it is not written in a document,
// its options stand at its bridge.
const (
	BridgeObject Object = "bridge"
	LocalPort    Object = "local"
	PacketPort   Object = "packet"
	TapPort      Object = "tap"
	InternalPort Object = "internal"
	PatchPort    Object = "patch"
	MirrorObject Object = "mirror"
)

// PortTypes are the words `type` takes, the default first.
func PortTypes() []string {
	return []string{string(PacketPort), string(TapPort), string(InternalPort), string(PatchPort)}
}

func (o Object) isPort() bool { return o != BridgeObject && o != MirrorObject }

// String is the object as a message names it.
func (o Object) String() string {
	if o.isPort() {
		return "port type " + string(o)
	}
	return string(o)
}

// Kind is the shape of an option's value.
type Kind uint8

// The kinds, with their canonical spelling.
const (
	Bool     Kind = iota // true, false; on, off, yes, no, 1 and 0 are read too
	Int                  // decimal, Min to Max
	Seconds              // decimal, Min to Max; 5m and 1h30m are read too
	Size                 // bytes with the largest suffix of k, M, G (1024) that is exact; Min to Max bytes
	Enum                 // one of Words
	VLAN                 // decimal, Min to Max
	VLANList             // sorted ranges: 10,20-30
	CIDRList             // addresses with prefix lengths, in the order given: 10.0.0.1/24,fd00::1/64
	MAC                  // 02:00:00:00:00:01; unicast, not zero
	PortName             // of a port
	PortList             // names of ports of the same bridge, sorted
	File                 // absolute path
	Account              // a user's or group's name or number
)

var kindNames = [...]string{
	Bool: "bool", Int: "number", Seconds: "seconds", Size: "size", Enum: "word", VLAN: "VLAN",
	VLANList: "VLAN list", CIDRList: "addresses", MAC: "MAC", PortName: "port", PortList: "ports",
	File: "file", Account: "account",
}

func (k Kind) String() string { return kindNames[k] }

// Option is one row of the table.
type Option struct {
	Name     string
	Objects  []Object
	Kind     Kind
	Min, Max int      // Int, Seconds, VLAN; bytes for Size
	Words    []string // Enum
	Default  string   // canonical; empty when there is no fixed one: Help says what holds then
	Help     string   // one line
	OVS      string   // where Open vSwitch has the same thing, as table:column
}

// Applies says whether the option belongs to object.
func (o *Option) Applies(object Object) bool { return slices.Contains(o.Objects, object) }

// Allowed says what a value may be, in words.
func (o *Option) Allowed() string {
	switch o.Kind {
	case Bool:
		return "true or false"
	case Int, VLAN:
		return fmt.Sprintf("%d to %d", o.Min, o.Max)
	case Seconds:
		return fmt.Sprintf("%d to %d seconds", o.Min, o.Max)
	case Size:
		return fmt.Sprintf("%s to %s bytes, such as 10M (suffixes k, M, G)", sizeText(o.Min), sizeText(o.Max))
	case Enum:
		return orList(o.Words)
	case VLANList:
		return fmt.Sprintf("VLANs %d to %d and ranges of them, such as 10,20-30", o.Min, o.Max)
	case CIDRList:
		return "addresses with prefix lengths, such as 10.0.0.1/24,fd00::1/64"
	case MAC:
		return "a unicast MAC address, such as 02:00:00:00:00:01"
	case PortName:
		return "the name of a port"
	case PortList:
		return "names of ports of the same bridge, such as veth1,veth2"
	case File:
		return "an absolute path, such as /var/tmp/m0.pcapng"
	case Account:
		return "a name or a number"
	}
	panic("config: kind without a name")
}

const (
	// maxVLAN is the highest VLAN one can ask for. OVS's columns take 4095 too,
	// but IEEE 802.1Q (table 9-2) reserves VID 0xFFF: it shall not be configured
	// nor sent in a tag, and other switches drop it. VLAN 0 is no VLAN: untagged
	// and priority-tagged frames, as in OVS.
	maxVLAN = 4094

	// maxMTU is the kernel's limit for a TAP: 65535 less its Ethernet header of 14.
	maxMTU = 65521

	maxRotate = 1 << 40 // 1 TiB a capture file
)

var (
	allPorts  = []Object{PacketPort, TapPort, InternalPort, PatchPort, LocalPort, BridgeObject}
	realPorts = []Object{PacketPort, TapPort, InternalPort}
	sockets   = []Object{PacketPort, TapPort} // forwarded by AF_PACKET
	ownedTAPs = []Object{TapPort, InternalPort, LocalPort, BridgeObject}
	hostPorts = []Object{InternalPort, LocalPort, BridgeObject}
	onBridge  = []Object{BridgeObject}
	onMirror  = []Object{MirrorObject}
)

// table is every option there is. A name has one meaning wherever it applies.
var table = []Option{
	// VLANs, with OVS's words and meaning; a bridge's are its local port's.
	{Name: "tag", Objects: allPorts, Kind: VLAN, Max: maxVLAN, OVS: "Port:tag",
		Help: "VLAN of an access port, native VLAN of a native-tagged or native-untagged one"},
	{Name: "trunks", Objects: allPorts, Kind: VLANList, Max: maxVLAN, OVS: "Port:trunks",
		Help: "VLANs a trunk or native port carries; unset is all; a native port carries its tag anyway"},
	{Name: "vlan_mode", Objects: allPorts, Kind: Enum, OVS: "Port:vlan_mode",
		Words: []string{"access", "trunk", "native-tagged", "native-untagged"},
		Help:  "how the port uses tags; unset is access when tag is set, else trunk"},

	// Interfaces the switch makes for the host.
	{Name: "ip", Objects: hostPorts, Kind: CIDRList,
		Help: "addresses of the interface (a bridge: of its local port), IPv4 and IPv6"},
	{Name: "mac", Objects: hostPorts, Kind: MAC, OVS: "Interface:mac",
		Help: "MAC address of the interface (a bridge: of its local port); unset leaves the choice to the switch"},
	{Name: "mtu", Objects: ownedTAPs, Kind: Int, Min: 68, Max: maxMTU, OVS: "Interface:mtu_request",
		Help: "MTU in bytes of the interface (a bridge: of its local port); unset leaves the kernel's 1500"},

	// How a port does its work.
	{Name: "offload", Objects: realPorts, Kind: Bool, Default: "true",
		Help: "off: finish checksums and segments in software before sending"},
	{Name: "n_rxq", Objects: sockets, Kind: Int, Min: 1, Max: 16, Default: "1", OVS: "Interface:options:n_rxq",
		Help: "receive queues, spread over the workers by flow (PACKET_FANOUT_HASH)"},
	{Name: "tx-ring", Objects: realPorts, Kind: Int, Min: 64, Max: 65536, Default: "1024",
		Help: "frames that may wait for the device to take them; what does not fit is dropped and counted"},
	{Name: "rx-buffer", Objects: sockets, Kind: Int, Min: 65536, Max: 1 << 30, Default: "4194304",
		Help: "bytes of kernel memory for frames that were not read yet (SO_RCVBUF)"},
	{Name: "owner", Objects: []Object{TapPort}, Kind: Account,
		Help: "user who may open the TAP, name or number; unset is root only"},
	{Name: "group", Objects: []Object{TapPort}, Kind: Account,
		Help: "group that may open the TAP, name or number"},
	{Name: "peer", Objects: []Object{PatchPort}, Kind: PortName, OVS: "Interface:options:peer",
		Help: "patch port of another bridge, whose peer names this one; required; may be added later"},

	// The bridge.
	{Name: "mac-aging-time", Objects: onBridge, Kind: Seconds, Max: 86400, Default: "300",
		OVS:  "Bridge:other_config:mac-aging-time",
		Help: "seconds after which a learned MAC that is not heard is forgotten; 0 is never"},
	{Name: "mac-table-size", Objects: onBridge, Kind: Int, Min: 1, Max: 1 << 20, Default: "8192",
		OVS:  "Bridge:other_config:mac-table-size",
		Help: "MACs the bridge holds; a full table gives up one of the port that holds most"},
	{Name: "forward-bpdu", Objects: onBridge, Kind: Bool, Default: "false",
		OVS:  "Bridge:other_config:forward-bpdu",
		Help: "forward link-local control frames (01:80:c2:00:00:0X) instead of dropping them"},
	{Name: "flood_vlans", Objects: onBridge, Kind: VLANList, Max: maxVLAN, OVS: "Bridge:flood_vlans",
		Help: "VLANs in which no MAC is learned: those that carry mirrors' copies from elsewhere (RSPAN)"},

	// Mirrors.
	{Name: "select_all", Objects: onMirror, Kind: Bool, Default: "false", OVS: "Mirror:select_all",
		Help: "copy frames that enter or leave by any port of the bridge, the output_port excepted"},
	{Name: "select_src_port", Objects: onMirror, Kind: PortList, OVS: "Mirror:select_src_port",
		Help: "copy frames that enter by these ports"},
	{Name: "select_dst_port", Objects: onMirror, Kind: PortList, OVS: "Mirror:select_dst_port",
		Help: "copy frames that leave by these ports"},
	{Name: "select_vlan", Objects: onMirror, Kind: VLANList, Max: maxVLAN, OVS: "Mirror:select_vlan",
		Help: "of the frames selected by port, only those in these VLANs; unset is all"},
	{Name: "output_port", Objects: onMirror, Kind: PortName, OVS: "Mirror:output_port",
		Help: "port the copies leave by; it carries nothing else (SPAN)"},
	{Name: "output_vlan", Objects: onMirror, Kind: VLAN, Min: 1, Max: maxVLAN, OVS: "Mirror:output_vlan",
		Help: "VLAN the copies are flooded in (RSPAN)"},
	{Name: "output_pcap", Objects: onMirror, Kind: File,
		Help: "pcapng file the copies are written to, below a directory of vswitchd's --capture-dir"},
	{Name: "snaplen", Objects: onMirror, Kind: Int, Max: 262144, Default: "0", OVS: "Mirror:snaplen",
		Help: "bytes of a frame that output_pcap keeps; 0 is the whole frame"},
	{Name: "rotate", Objects: onMirror, Kind: Size, Min: 4096, Max: maxRotate,
		Help: "size at which output_pcap begins a new file; unset is never"},
	{Name: "files", Objects: onMirror, Kind: Int, Min: 1, Max: 1000, Default: "1",
		Help: "files that output_pcap keeps when it rotates; the oldest goes first"},
}

// OptionsFor lists the options of an object in the order of the table: for help,
// completion and docs. The slice is the caller's.
func OptionsFor(object Object) []Option {
	var list []Option
	for _, o := range table {
		if o.Applies(object) {
			list = append(list, o)
		}
	}
	return list
}

// find is the row of a name, nil when there is none.
func find(name string) *Option {
	for i := range table {
		if table[i].Name == name {
			return &table[i]
		}
	}
	return nil
}

// Lookup is the option of that name at object. Its error says what is near, or
// where the option belongs.
func Lookup(object Object, name string) (*Option, error) {
	o, e := lookup(object, name)
	if e != nil {
		return nil, e
	}
	return o, nil
}

func lookup(object Object, name string) (*Option, *Error) {
	o := find(name)
	if o != nil && o.Applies(object) {
		return o, nil
	}
	var names, places []string
	for _, other := range OptionsFor(object) {
		names = append(names, other.Name)
	}
	allowed := strings.Join(names, ", ")
	if o == nil {
		return nil, &Error{Value: name, Allowed: allowed, Message: fmt.Sprintf(
			"unknown option %s for %s%s", shown(name), object, didYouMean(name, names))}
	}
	for _, p := range o.Objects {
		if p != LocalPort {
			places = append(places, p.String())
		}
	}
	return nil, &Error{Value: name, Allowed: allowed, Message: fmt.Sprintf(
		"option %q is not for %s, but for %s", name, object, andList(places))}
}

// CheckPortType is an error that says what is near, unless t is a port type. The
// empty word is packet.
func CheckPortType(t string) error {
	if e := checkPortType(t); e != nil {
		return e
	}
	return nil
}

func checkPortType(t string) *Error {
	types := PortTypes()
	if t == "" || slices.Contains(types, t) {
		return nil
	}
	return &Error{Value: t, Allowed: orList(types), Message: fmt.Sprintf(
		"%s is not a port type: want %s%s", shown(t), orList(types), didYouMean(t, types))}
}
