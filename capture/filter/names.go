package filter

// layer is where a protocol stands in a frame.
type layer uint8

const (
	layerLink  layer = iota + 1 // the Ethernet header itself
	layerEther                  // named by the EtherType, or by an LLC SAP
	layerIP                     // named by the protocol field of IPv4, or the next header of IPv6
	layerISO                    // named by the NLPID behind iso
)

// protocol is a word that names one: alone it is a test, before another word a
// qualifier, before a bracket the header that bytes are counted from.
type protocol struct {
	name   string
	layer  layer
	number uint32 // EtherType, or SAP where it is below 0x600; IP protocol; NLPID
	v4, v6 bool   // layerIP: in which of the two
	index  bool   // may stand before a bracket
}

// EtherTypes, SAPs and protocols that the code itself names.
const (
	etherIP   = 0x0800
	etherARP  = 0x0806
	etherRARP = 0x8035
	etherIP6  = 0x86dd
	etherVLAN = 0x8100
	etherQinQ = 0x88a8
	etherOld  = 0x9100 // VLANs before 802.1ad

	sapIP      = 0x06
	sapISO     = 0xfe
	sapIPX     = 0xe0
	sapNetBEUI = 0xf0

	etherATalk = 0x809b
	etherAARP  = 0x80f3
	etherIPX   = 0x8137

	protoTCP   = 6
	protoUDP   = 17
	protoFrag6 = 44
	protoICMP6 = 58
	protoSCTP  = 132

	// maxLength is the largest value of an EtherType field that is a length: IEEE
	// 802.3 has 1500, and libpcap, too.
	maxLength = 1500
)

var protocols = func() map[string]*protocol {
	list := []protocol{
		{name: "ether", layer: layerLink, index: true},
		{name: "link", layer: layerLink, index: true},

		{name: "ip", layer: layerEther, number: etherIP, index: true},
		{name: "ip6", layer: layerEther, number: etherIP6, index: true},
		{name: "arp", layer: layerEther, number: etherARP, index: true},
		{name: "rarp", layer: layerEther, number: etherRARP, index: true},
		{name: "atalk", layer: layerEther, number: etherATalk, index: true},
		{name: "aarp", layer: layerEther, number: etherAARP},
		{name: "decnet", layer: layerEther, number: 0x6003, index: true},
		{name: "lat", layer: layerEther, number: 0x6004, index: true},
		{name: "sca", layer: layerEther, number: 0x6007, index: true},
		{name: "mopdl", layer: layerEther, number: 0x6001, index: true},
		{name: "moprc", layer: layerEther, number: 0x6002, index: true},
		{name: "stp", layer: layerEther, number: 0x42},
		{name: "iso", layer: layerEther, number: sapISO},
		{name: "ipx", layer: layerEther, number: sapIPX},
		{name: "netbeui", layer: layerEther, number: sapNetBEUI},

		{name: "tcp", layer: layerIP, number: protoTCP, v4: true, v6: true, index: true},
		{name: "udp", layer: layerIP, number: protoUDP, v4: true, v6: true, index: true},
		{name: "sctp", layer: layerIP, number: protoSCTP, v4: true, v6: true, index: true},
		{name: "icmp", layer: layerIP, number: 1, v4: true, index: true},
		{name: "icmp6", layer: layerIP, number: protoICMP6, v6: true, index: true},
		{name: "igmp", layer: layerIP, number: 2, v4: true, index: true},
		{name: "igrp", layer: layerIP, number: 9, v4: true, index: true},
		{name: "pim", layer: layerIP, number: 103, v4: true, v6: true, index: true},
		{name: "vrrp", layer: layerIP, number: 112, v4: true, index: true},
		{name: "carp", layer: layerIP, number: 112, v4: true, index: true},
		{name: "gre", layer: layerIP, number: 47, v4: true, v6: true},
		{name: "esp", layer: layerIP, number: 50, v4: true, v6: true},
		{name: "ah", layer: layerIP, number: 51, v4: true, v6: true},

		{name: "clnp", layer: layerISO, number: 0x81},
		{name: "esis", layer: layerISO, number: 0x82},
		{name: "es-is", layer: layerISO, number: 0x82},
		{name: "isis", layer: layerISO, number: 0x83},
		{name: "is-is", layer: layerISO, number: 0x83},
	}
	m := make(map[string]*protocol, len(list))
	for i := range list {
		m[list[i].name] = &list[i]
	}
	return m
}()

// etherNames are the names behind ether proto, beside those of layerEther.
var etherNames = map[string]uint32{
	"loopback": 0x9000,
	"lldp":     0x88cc,
	"lacp":     0x8809,
}

// ipNames are the names behind ip proto, ip6 proto and proto, beside those of
// layerIP: the usual ones of /etc/protocols.
var ipNames = map[string]uint32{
	"hopopt": 0, "ggp": 3, "ipencap": 4, "egp": 8, "igp": 9, "dccp": 33, "ipv6": 41,
	"ipv6-route": 43, "ipv6-frag": 44, "rsvp": 46, "ipv6-icmp": 58, "ipv6-nonxt": 59,
	"ipv6-opts": 60, "eigrp": 88, "ospf": 89, "ipip": 94, "etherip": 97, "ipcomp": 108,
	"l2tp": 115, "udplite": 136, "mpls-in-ip": 137,
}

// service is a well-known port. As in /etc/services, proto is 0 where more than one
// protocol has it.
type service struct {
	port  uint32
	proto uint32
}

var services = map[string]service{
	"ftp-data": {20, protoTCP}, "ftp": {21, protoTCP}, "ssh": {22, protoTCP},
	"telnet": {23, protoTCP}, "smtp": {25, protoTCP}, "domain": {53, 0},
	"bootps": {67, protoUDP}, "bootpc": {68, protoUDP}, "tftp": {69, protoUDP},
	"http": {80, protoTCP}, "kerberos": {88, 0}, "pop3": {110, protoTCP},
	"sunrpc": {111, 0}, "ntp": {123, protoUDP}, "netbios-ns": {137, protoUDP},
	"netbios-dgm": {138, protoUDP}, "netbios-ssn": {139, protoTCP},
	"imap": {143, protoTCP}, "imap2": {143, protoTCP}, "snmp": {161, 0},
	"snmp-trap": {162, 0}, "bgp": {179, protoTCP}, "ldap": {389, 0},
	"https": {443, 0}, "microsoft-ds": {445, protoTCP}, "isakmp": {500, protoUDP},
	"syslog": {514, 0}, "submission": {587, protoTCP}, "ldaps": {636, 0},
	"domain-s": {853, 0}, "imaps": {993, protoTCP}, "pop3s": {995, protoTCP},
	"openvpn": {1194, 0}, "nfs": {2049, 0}, "mysql": {3306, protoTCP},
	"sip": {5060, 0}, "mdns": {5353, protoUDP}, "postgresql": {5432, protoTCP},
	"bfd-control": {3784, protoUDP}, "vxlan": {4789, protoUDP}, "geneve": {6081, protoUDP},
}

// numbers are the words that stand for one in arithmetic.
var numbers = map[string]uint32{
	"icmptype": 0, "icmpcode": 1,
	"icmp-echoreply": 0, "icmp-unreach": 3, "icmp-sourcequench": 4, "icmp-redirect": 5,
	"icmp-echo": 8, "icmp-routeradvert": 9, "icmp-routersolicit": 10,
	"icmp-timxceed": 11, "icmp-paramprob": 12, "icmp-tstamp": 13,
	"icmp-tstampreply": 14, "icmp-ireq": 15, "icmp-ireqreply": 16, "icmp-maskreq": 17,
	"icmp-maskreply": 18,

	"icmp6type": 0, "icmp6code": 1,
	"icmp6-destinationunreach": 1, "icmp6-packettoobig": 2, "icmp6-timeexceeded": 3,
	"icmp6-parameterproblem": 4, "icmp6-echo": 128, "icmp6-echoreply": 129,
	"icmp6-multicastlistenerquery": 130, "icmp6-multicastlistenerreportv1": 131,
	"icmp6-multicastlistenerdone": 132, "icmp6-routersolicit": 133,
	"icmp6-routeradvert": 134, "icmp6-neighborsolicit": 135, "icmp6-neighboradvert": 136,
	"icmp6-redirect": 137, "icmp6-routerrenum": 138, "icmp6-nodeinformationquery": 139,
	"icmp6-nodeinformationresponse": 140, "icmp6-ineighbordiscoverysolicit": 141,
	"icmp6-ineighbordiscoveryadvert": 142, "icmp6-multicastlistenerreportv2": 143,
	"icmp6-homeagentdiscoveryrequest": 144, "icmp6-homeagentdiscoveryreply": 145,
	"icmp6-mobileprefixsolicit": 146, "icmp6-mobileprefixadvert": 147,
	"icmp6-certpathsolicit": 148, "icmp6-certpathadvert": 149,
	"icmp6-multicastrouteradvert": 151, "icmp6-multicastroutersolicit": 152,
	"icmp6-multicastrouterterm": 153,

	"tcpflags": 13,
	"tcp-fin":  0x01, "tcp-syn": 0x02, "tcp-rst": 0x04, "tcp-push": 0x08,
	"tcp-ack": 0x10, "tcp-urg": 0x20, "tcp-ece": 0x40, "tcp-cwr": 0x80,
}

// keywords are the other words of the language. A refused one has the reason.
var keywords = map[string]string{
	"and": "", "or": "", "not": "", "src": "", "dst": "", "host": "", "net": "", "mask": "",
	"port": "", "portrange": "", "proto": "", "less": "", "greater": "", "len": "",
	"length": "", "vlan": "", "broadcast": "", "multicast": "",

	"protochain": "it follows headers in a loop, which these programs have not; proto sees the next header, also behind a fragment header",
	"gateway":    "it needs host names, which are not looked up; write ether host MAC and not host ADDRESS",
	"inbound":    "not a filter here; the capture has an option for the direction",
	"outbound":   "not a filter here; the capture has an option for the direction",
	"ifindex":    "not a filter here; name the port in the capture",
	"mpls":       "not supported; ether proto 0x8847 takes all MPLS frames, and ether[14:4] is their first label",
	"pppoed":     "not supported; write ether proto 0x8863",
	"pppoes":     "not supported; ether proto 0x8864 takes all PPPoE sessions",
	"geneve":     "not supported; write udp port 6081, and udp[12:4] >> 8 for the VNI",
	"llc":        "not supported; write ether[12:2] <= 1500",
	"byte":       "not supported; write ether[N]",
	"fddi":       "not for Ethernet", "tr": "not for Ethernet", "wlan": "not for Ethernet",
	"ppp": "not for Ethernet", "slip": "not for Ethernet", "radio": "not for Ethernet",
	"ra": "not for Ethernet", "ta": "not for Ethernet", "addr1": "not for Ethernet",
	"addr2": "not for Ethernet", "addr3": "not for Ethernet", "addr4": "not for Ethernet",
	"type": "not for Ethernet", "subtype": "not for Ethernet", "dir": "not for Ethernet",
	"direction": "not for Ethernet", "lane": "not for Ethernet", "vpi": "not for Ethernet",
	"vci": "not for Ethernet",
	"on":  "only for the logs of PF", "ifname": "only for the logs of PF",
	"rnr": "only for the logs of PF", "rulenum": "only for the logs of PF",
	"rset": "only for the logs of PF", "ruleset": "only for the logs of PF",
	"srnr": "only for the logs of PF", "subrulenum": "only for the logs of PF",
	"reason": "only for the logs of PF", "action": "only for the logs of PF",
}
