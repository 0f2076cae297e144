package config

import (
	"fmt"
	"slices"
	"strings"
)

// Object is what an option belongs to: a bridge, a port of one type, a mirror, a mesh,
// or what a bridge exports by sFlow.
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
	PlugPort     Object = "plug" // the host's end of a veth pair whose other end is in a container
	VXLANPort    Object = "vxlan"
	GREPort      Object = "gre"
	GenevePort   Object = "geneve"
	MirrorObject Object = "mirror"
	MeshObject   Object = "mesh"
	SFlowObject  Object = "sflow"
)

// PortTypes are the words `type` takes, the default first.
func PortTypes() []string {
	return append([]string{string(PacketPort), string(TapPort), string(InternalPort), string(PatchPort), string(PlugPort)}, tunnelTypes...)
}

var tunnelTypes = []string{string(VXLANPort), string(GREPort), string(GenevePort)}

// IsTunnel says whether o is a port whose frames leave for another host.
func (o Object) IsTunnel() bool { return o == VXLANPort || o == GREPort || o == GenevePort }

func (o Object) isPort() bool {
	return o != BridgeObject && o != MirrorObject && o != MeshObject && o != SFlowObject
}

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
	Bool        Kind = iota // true, false; on, off, yes, no, 1 and 0 are read too
	Int                     // decimal, Min to Max
	Seconds                 // decimal, Min to Max; 5m and 1h30m are read too
	Size                    // bytes with the largest suffix of k, M, G (1024) that is exact; Min to Max bytes
	Enum                    // one of Words
	VLAN                    // decimal, Min to Max
	VLANList                // sorted ranges: 10,20-30
	CIDRList                // addresses with prefix lengths, in the order given: 10.0.0.1/24,fd00::1/64
	MAC                     // 02:00:00:00:00:01; unicast, not zero
	PortName                // of a port
	PortList                // names of ports of the same bridge, sorted
	BridgeName              // of a bridge
	Key                     // decimal, Min to Max; 0x… is read too
	IntOrWord               // decimal, Min to Max, a multiple of Step; 0x… is read too; or one of Words
	Address                 // IPv4 or IPv6, unicast, without zone
	Host                    // such an address, or a host name in lower case
	HostList                // such hosts, each once, in the order given
	Targets                 // addresses with UDP ports, each once, in the order given: 10.0.0.9:6343,[fd00::9]:6343
	Agent                   // the name of an interface, or an address
	File                    // absolute path
	Account                 // a user's or group's name or number
	Container               // docker:web, podman:web, containerd:ID, netns:blue, pid:17@8842 (its start, in clock ticks), or an absolute path
	Interface               // the name of an interface
	AddressList             // addresses without prefix lengths, one of each family; or one of Words
	RouteList               // 10.9.0.0/16 via 10.0.0.254, or 10.9.0.0/16 alone, separated by commas
	NameList                // DNS labels, each once, in the order given
	NetworkList             // networks, at most one of each family: 10.0.0.0/24,fd00::/64
	RangeList               // addresses, networks and ranges of addresses: 10.0.0.1,10.0.0.8/29,10.0.0.20-10.0.0.30
	PublishList             // [HOST:]PORT:PORT/tcp, each host's port once: 8080:80/tcp,127.0.0.1:5353:53/udp
)

var kindNames = [...]string{
	Bool: "bool", Int: "number", Seconds: "seconds", Size: "size", Enum: "word", VLAN: "VLAN",
	VLANList: "VLAN list", CIDRList: "addresses", MAC: "MAC", PortName: "port", PortList: "ports",
	BridgeName: "bridge", Key: "key", IntOrWord: "number or word", Address: "address", Host: "host", HostList: "hosts",
	Targets: "collectors", Agent: "agent", File: "file", Account: "account",
	Container: "container", Interface: "interface", AddressList: "addresses", RouteList: "routes", NameList: "names",
	NetworkList: "networks", RangeList: "address ranges", PublishList: "published ports",
}

func (k Kind) String() string { return kindNames[k] }

// Option is one row of the table.
type Option struct {
	Name     string
	Objects  []Object
	Kind     Kind
	Min, Max int      // Int, Key, IntOrWord, Seconds, VLAN; bytes for Size
	Step     int      // IntOrWord: the number is a multiple of it, where it is above 1
	Words    []string // Enum, IntOrWord, AddressList
	InPlug   []string // CIDRList: words that may stand in the list of a plug
	Default  string   // canonical; empty when there is no fixed one: Help says what holds then
	InMesh   string   // Default of a mesh, where that is another one
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
	case Int, VLAN, Key:
		return fmt.Sprintf("%d to %d", o.Min, o.Max)
	case IntOrWord:
		s := fmt.Sprintf("%d to %d", o.Min, o.Max)
		if o.Step > 1 {
			s += fmt.Sprintf(" in steps of %d", o.Step)
		}
		return s + ", or " + orList(o.Words)
	case Address:
		return "an address, such as 10.0.0.1 or fd00::1"
	case Host:
		return "an address or a host name"
	case HostList:
		return "addresses and host names, such as 10.0.0.2,host3"
	case BridgeName:
		return "the name of a bridge"
	case Seconds:
		return fmt.Sprintf("%d to %d seconds", o.Min, o.Max)
	case Size:
		return fmt.Sprintf("%s to %s bytes, such as 10M (suffixes k, M, G)", sizeText(o.Min), sizeText(o.Max))
	case Enum:
		return orList(o.Words)
	case VLANList:
		return fmt.Sprintf("VLANs %d to %d and ranges of them, such as 10,20-30", o.Min, o.Max)
	case CIDRList:
		if o.InPlug != nil {
			return "addresses with prefix lengths, such as 10.0.0.5/24,fd00::5/64, or " + orList(o.InPlug)
		}
		return "addresses with prefix lengths, such as 10.0.0.1/24,fd00::1/64"
	case Container:
		return "docker:NAME, podman:NAME, containerd:ID, netns:NAME, pid:NUMBER, or the path of a network namespace"
	case Interface:
		return fmt.Sprintf("the name of an interface, at most %d bytes", maxInterfaceName)
	case AddressList:
		return "addresses, at most one of each family, such as 10.0.0.1,fd00::1" + orWords(o.Words)
	case RouteList:
		return "routes, such as 10.9.0.0/16 via 10.0.0.254"
	case NameList:
		return "names of letters, digits and dashes, such as db,db-1"
	case NetworkList:
		return "networks, at most one of each family, such as 10.0.0.0/24,fd00::/64"
	case RangeList:
		return "addresses, networks and ranges, such as 10.0.0.1,10.0.0.8/29,10.0.0.20-10.0.0.30"
	case PublishList:
		return "[HOST:]PORT:PORT[/tcp|/udp], such as 8080:80 or 127.0.0.1:5353:53/udp"
	case MAC:
		return "a unicast MAC address, such as 02:00:00:00:00:01"
	case PortName:
		return "the name of a port"
	case PortList:
		return "names of ports of the same bridge, such as veth1,veth2"
	case Targets:
		return "addresses with UDP ports, such as 10.0.0.9:6343,[fd00::9]:6343 (the port may be left out)"
	case Agent:
		return "the name of an interface, or an address"
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

	maxKey   = 1<<32 - 1  // of GRE (RFC 2890)
	maxVNI   = 1<<24 - 1  // of VXLAN (RFC 7348) and Geneve (RFC 8926)
	maxStorm = 10_000_000 // frames a second: more than any port brings in
	maxPeers = 1024       // of one mesh: what floods is sent to each
)

var (
	allPorts  = []Object{PacketPort, TapPort, InternalPort, PatchPort, PlugPort, VXLANPort, GREPort, GenevePort, LocalPort, BridgeObject, MeshObject}
	realPorts = []Object{PacketPort, TapPort, InternalPort, PlugPort}
	withRings = []Object{PacketPort, TapPort, InternalPort, PlugPort, VXLANPort, GREPort, GenevePort}
	sockets   = []Object{PacketPort, TapPort, PlugPort} // forwarded by AF_PACKET
	hostPorts = []Object{InternalPort, LocalPort, BridgeObject}
	withMTU   = []Object{TapPort, InternalPort, LocalPort, BridgeObject, PlugPort}
	addressed = []Object{InternalPort, LocalPort, BridgeObject, PlugPort}
	onPlug    = []Object{PlugPort}
	onPacket  = []Object{PacketPort}
	onBridge  = []Object{BridgeObject}
	onMirror  = []Object{MirrorObject}
	onMesh    = []Object{MeshObject}
	onSFlow   = []Object{SFlowObject}
	tunnels   = []Object{VXLANPort, GREPort, GenevePort}
	overUDP   = []Object{VXLANPort, GenevePort}
	tunneled  = []Object{VXLANPort, GREPort, GenevePort, MeshObject}
	inherit   = []string{"inherit"}
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

	// Interfaces the switch makes: for the host, and for containers.
	{Name: "ip", Objects: addressed, Kind: CIDRList, InPlug: []string{"auto", "auto4", "auto6"},
		Help: "addresses of the interface (a bridge: of its local port; a plug: of the container's), IPv4 and IPv6"},
	{Name: "mac", Objects: addressed, Kind: MAC, OVS: "Interface:mac",
		Help: "MAC address of the interface (a bridge: of its local port); unset leaves the choice to the switch"},
	{Name: "mtu", Objects: withMTU, Kind: Int, Min: 68, Max: maxMTU, OVS: "Interface:mtu_request",
		Help: "MTU of the interface (a bridge: of its local port); unset is 1500, of a plug what tunnels carry"},
	{Name: "nat", Objects: hostPorts, Kind: Enum, Words: []string{"none", "masquerade"}, Default: "none",
		Help: "masquerade: the interface is a gateway; what leaves for elsewhere has the host's address"},

	// Containers: what their interface is like.
	{Name: "container", Objects: onPlug, Kind: Container,
		Help: "whom the other end of the veth pair is in; required"},
	{Name: "ifname", Objects: onPlug, Kind: Interface, Default: "eth1",
		Help: "name of the interface in the container"},
	{Name: "gateway", Objects: onPlug, Kind: AddressList, Words: []string{"none"},
		Help: "default routes; unset is the bridge's gateway, where the container has no other"},
	{Name: "route", Objects: onPlug, Kind: RouteList,
		Help: "more routes of the container"},
	{Name: "alias", Objects: onPlug, Kind: NameList,
		Help: "more names of the container on the bridge, beside its own"},
	{Name: "publish", Objects: onPlug, Kind: PublishList,
		Help: "ports of the host that lead to ports of the container"},

	// Addresses and names of a bridge's containers.
	{Name: "ipam.subnet", Objects: onBridge, Kind: NetworkList,
		Help: "networks that containers get addresses of (ip=auto); unset is those of ip"},
	{Name: "ipam.gateway", Objects: onBridge, Kind: AddressList,
		Help: "default routes of containers; unset is the bridge's own addresses in the subnets"},
	{Name: "ipam.range", Objects: onBridge, Kind: NetworkList,
		Help: "the part of the subnets that ip=auto takes addresses of; unset is all"},
	{Name: "ipam.exclude", Objects: onBridge, Kind: RangeList,
		Help: "addresses that ip=auto never gives"},
	{Name: "dns", Objects: onBridge, Kind: Bool, Default: "true",
		Help: "answer containers' names at the bridge's addresses, where ipam.subnet or nat makes it a gateway"},

	// A NIC that leads to the LAN.
	{Name: "take_addresses", Objects: onPacket, Kind: Bool, Default: "false",
		Help: "the interface's addresses and routes are the bridge's local port's while it is a port"},
	{Name: "macnat", Objects: onPacket, Kind: Bool, Default: "false",
		Help: "what leaves has the interface's own MAC address: for LANs that allow one MAC a port"},

	// How a port does its work.
	{Name: "offload", Objects: realPorts, Kind: Bool, Default: "true",
		Help: "off: finish checksums and segments in software before sending"},
	{Name: "n_rxq", Objects: sockets, Kind: Int, Min: 1, Max: 16, Default: "1", OVS: "Interface:options:n_rxq",
		Help: "receive queues, spread over the workers by flow (PACKET_FANOUT_HASH)"},
	{Name: "n_rxq_desc", Objects: sockets, Kind: IntOrWord, Max: 65536, Step: 256, Words: []string{"auto"}, Default: "auto", OVS: "Interface:options:n_rxq_desc",
		Help: "slots of a queue's receive ring; 0 is none; auto makes one of 4096 when the port gets busy"},
	{Name: "tx-ring", Objects: withRings, Kind: Int, Min: 64, Max: 65536, Default: "1024",
		Help: "frames that may wait for the device to take them; what does not fit is dropped and counted"},
	{Name: "rx-buffer", Objects: sockets, Kind: Int, Min: 65536, Max: 1 << 30, Default: "4194304",
		Help: "bytes of kernel memory for frames that were not read yet (SO_RCVBUF)"},
	{Name: "owner", Objects: []Object{TapPort}, Kind: Account,
		Help: "user who may open the TAP, name or number; unset is root only"},
	{Name: "group", Objects: []Object{TapPort}, Kind: Account,
		Help: "group that may open the TAP, name or number"},
	{Name: "peer", Objects: []Object{PatchPort}, Kind: PortName, OVS: "Interface:options:peer",
		Help: "patch port of another bridge, whose peer names this one; required; may be added later"},

	// Storm control: what floods is the costly kind of frame.
	{Name: "storm_broadcast", Objects: allPorts, Kind: Int, Max: maxStorm, Default: "0", InMesh: "1000",
		Help: "broadcast frames a second the port may bring in; 0 is no limit"},
	{Name: "storm_unknown", Objects: allPorts, Kind: Int, Max: maxStorm, Default: "0", InMesh: "1000",
		Help: "frames a second to unicast MACs not known yet that the port may bring in; 0 is no limit"},
	{Name: "storm_multicast", Objects: allPorts, Kind: Int, Max: maxStorm, Default: "0", InMesh: "2000",
		Help: "multicast frames a second the port may bring in; 0 is no limit"},

	// A mesh stands for one tunnel port to each peer.
	{Name: "bridge", Objects: onMesh, Kind: BridgeName,
		Help: "bridge the mesh belongs to; required"},
	{Name: "type", Objects: onMesh, Kind: Enum, Words: tunnelTypes, Default: string(VXLANPort),
		Help: "type of the tunnels"},
	{Name: "peers", Objects: onMesh, Kind: HostList,
		Help: "hosts of the mesh; this host is skipped, so that all may have the same list; required"},

	// Tunnels, with OVS's words and meaning.
	{Name: "remote_ip", Objects: tunnels, Kind: Host, OVS: "Interface:options:remote_ip",
		Help: "host at the other end; a name is resolved again when the tunnel fails; required"},
	{Name: "local_ip", Objects: tunneled, Kind: Address, OVS: "Interface:options:local_ip",
		Help: "address of this host that tunnel packets leave from and are taken at; unset is any"},
	{Name: "key", Objects: tunneled, Kind: Key, Max: maxKey, Default: "0", OVS: "Interface:options:key",
		Help: "VNI (24 bits) or GRE key (32 bits), both ways; a GRE key of 0 is none"},
	{Name: "in_key", Objects: tunnels, Kind: Key, Max: maxKey, OVS: "Interface:options:in_key",
		Help: "VNI or GRE key of packets that come in; unset is key"},
	{Name: "out_key", Objects: tunnels, Kind: Key, Max: maxKey, OVS: "Interface:options:out_key",
		Help: "VNI or GRE key of packets that leave; unset is key"},
	{Name: "dst_port", Objects: overUDP, Kind: Int, Min: 1, Max: 65535, OVS: "Interface:options:dst_port",
		Help: "UDP port, here and at the other end; unset is 4789 for vxlan, 6081 for geneve"},
	{Name: "port", Objects: onMesh, Kind: Int, Min: 1, Max: 65535, OVS: "Interface:options:dst_port",
		Help: "UDP port, here and at the peers; unset is 4789 for vxlan, 6081 for geneve"},
	{Name: "tos", Objects: tunneled, Kind: IntOrWord, Max: 252, Step: 4, Words: inherit, Default: "0",
		OVS:  "Interface:options:tos",
		Help: "TOS or traffic class of tunnel packets, or the inner packet's; ECN is always inherited"},
	{Name: "ttl", Objects: tunneled, Kind: IntOrWord, Min: 1, Max: 255, Words: inherit, OVS: "Interface:options:ttl",
		Help: "TTL or hop limit of tunnel packets, or the inner packet's; unset is the system's"},
	{Name: "df_default", Objects: tunneled, Kind: Bool, Default: "true", OVS: "Interface:options:df_default",
		Help: "set don't-fragment on tunnel packets, and tell senders what fits; off: routers fragment"},
	{Name: "csum", Objects: tunneled, Kind: Bool, OVS: "Interface:options:csum",
		Help: "outer checksum on what is sent; unset is on for vxlan and geneve (faster), off for gre"},
	{Name: "seq", Objects: []Object{GREPort}, Kind: Bool, Default: "false", OVS: "Interface:options:seq",
		Help: "number GRE packets in the order sent"},
	{Name: "mss_clamp", Objects: tunneled, Kind: Bool, Default: "true",
		Help: "lower the MSS that TCP connections announce to what fits in the tunnel"},
	{Name: "bfd_enable", Objects: tunneled, Kind: Bool, Default: "false", InMesh: "true", OVS: "Interface:bfd:enable",
		Help: "watch the tunnel with BFD (RFC 5880): it is down after three intervals without a packet"},
	{Name: "bfd_min_rx", Objects: tunneled, Kind: Int, Min: 10, Max: 60000, Default: "1000", InMesh: "300",
		OVS:  "Interface:bfd:min_rx",
		Help: "shortest interval at which BFD packets are taken, in milliseconds"},
	{Name: "bfd_min_tx", Objects: tunneled, Kind: Int, Min: 10, Max: 60000, Default: "100", InMesh: "300",
		OVS:  "Interface:bfd:min_tx",
		Help: "shortest interval at which BFD packets are sent, in milliseconds"},

	// The bridge.
	{Name: "mac-aging-time", Objects: onBridge, Kind: Seconds, Max: 86400, Default: "300",
		OVS:  "Bridge:other_config:mac-aging-time",
		Help: "seconds after which a learned MAC that is not heard is forgotten; 0 is never"},
	{Name: "mac-table-size", Objects: onBridge, Kind: Int, Min: 1, Max: 1 << 20, Default: "8192",
		OVS:  "Bridge:other_config:mac-table-size",
		Help: "MACs the bridge holds; a full table gives up one of the port that holds most"},
	{Name: "mac-flap-limit", Objects: onBridge, Kind: Int, Max: 1000, Default: "10",
		Help: "moves of a MAC between ports in a second above which it is held where it was; 0 is off"},
	{Name: "mac-flap-hold", Objects: onBridge, Kind: Seconds, Min: 1, Max: 3600, Default: "10",
		Help: "seconds that a MAC which flaps between ports is held where it was"},
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
		Help: "bytes of a frame that are copied; 0 is the whole frame; less than 14 count as 14 but for output_pcap"},
	{Name: "rotate", Objects: onMirror, Kind: Size, Min: 4096, Max: maxRotate,
		Help: "size at which output_pcap begins a new file; unset is never"},
	{Name: "files", Objects: onMirror, Kind: Int, Min: 1, Max: 1000, Default: "1",
		Help: "files that output_pcap keeps when it rotates; the oldest goes first"},

	// sFlow. A datagram holds a sample whole, which bounds header.
	{Name: "target", Objects: onSFlow, Kind: Targets, OVS: "sFlow:targets",
		Help: "collectors that all datagrams are sent to; required"},
	{Name: "sampling", Objects: onSFlow, Kind: Int, Min: 1, Max: 1 << 24, Default: "400", OVS: "sFlow:sampling",
		Help: "one frame in so many that come in, at random, is told of; 1 is each"},
	{Name: "polling", Objects: onSFlow, Kind: Seconds, Max: 86400, Default: "30", OVS: "sFlow:polling",
		Help: "seconds between two reports of the ports' counters; 0 is no such reports"},
	{Name: "header", Objects: onSFlow, Kind: Int, Min: 14, Max: 1024, Default: "128", OVS: "sFlow:header",
		Help: "bytes of a sampled frame that are sent, from its destination MAC on"},
	{Name: "agent", Objects: onSFlow, Kind: Agent, OVS: "sFlow:agent",
		Help: "this switch's address in datagrams, or who has it; unset is that which leads to the first target"},
}

// OptionsFor lists the options of an object in the order of the table: for help,
// completion and docs. Their defaults are those of the object. The slice is the
// caller's.
func OptionsFor(object Object) []Option {
	var list []Option
	for _, o := range table {
		if o.Applies(object) {
			list = append(list, *o.at(object))
		}
	}
	return list
}

// at is the row as it holds at object.
func (o *Option) at(object Object) *Option {
	switch {
	case object == MeshObject && o.InMesh != "":
		row := *o
		row.Default = o.InMesh
		return &row
	case object != PlugPort && o.InPlug != nil:
		row := *o
		row.InPlug = nil
		return &row
	}
	return o
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

// synonym is an option's name where people know it by another: ip-tuntap(8) calls a TAP's
// owner user.
func synonym(object Object, name string) string {
	if object == TapPort && name == "user" {
		return "owner"
	}
	return name
}

// Lookup is the option of that name at object. Its error says what is near, or
// where the option belongs.
func Lookup(object Object, name string) (*Option, error) {
	o, e := lookup(object, name)
	if e != nil {
		return nil, e
	}
	return o.at(object), nil
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
