package craft

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"vswitch/frame"
)

// What a frame has where no word says otherwise. The addresses are those that RFC 5737
// and RFC 3849 set aside for examples; 0x88b6 is IEEE 802's second EtherType for local
// experiments (the first is that of this switch's probes); port 9 discards.
const (
	defaultType    = 0x88b6
	defaultPort    = 9
	defaultSrcPort = 49152
	defaultTTL     = 64
	minLen         = 60 // of a frame on a wire, without its check sequence
)

var (
	defaultSrc4, defaultDst4 = netip.MustParseAddr("192.0.2.1"), netip.MustParseAddr("192.0.2.2")
	defaultSrc6, defaultDst6 = netip.MustParseAddr("2001:db8::1"), netip.MustParseAddr("2001:db8::2")
)

// known reports whether one of the words was given, and which.
func (s *Spec) known(names ...string) (string, bool) {
	for _, n := range names {
		if _, ok := s.said[n]; ok {
			return n, true
		}
	}
	return "", false
}

func (s *Spec) refuse(name, allowed string) error {
	return &Error{Word: name, Value: s.said[name], Allowed: allowed}
}

// check fills in what follows from the words, and refuses those that contradict each
// other.
func (s *Spec) check() error {
	if name, ok := s.known("flags", "super", "mss"); ok && s.proto != protoTCP {
		if s.proto >= 0 {
			return s.refuse(name, "is TCP's, and the protocol is another")
		}
		s.proto = protoTCP
	}
	if name, ok := s.known("port", "src_port"); ok && s.proto != protoTCP && s.proto != protoUDP {
		if s.proto >= 0 {
			return s.refuse(name, "is TCP's and UDP's, and the protocol is another")
		}
		s.proto = protoTCP
	}
	if name, ok := s.known("icmp_type", "icmp_code"); ok && s.proto >= 0 && s.proto != protoICMP && s.proto != protoICMP6 {
		return s.refuse(name, "is ICMP's, and the protocol is another")
	}
	if _, ok := s.known("mss"); ok && s.super == 0 {
		return s.refuse("mss", "is for a super-frame: give super=, too")
	}
	if _, ok := s.known("len"); ok && s.super > 0 {
		return s.refuse("len", "a super-frame's length follows from super=")
	}
	if s.pcp >= 0 && s.vlan < 0 {
		return s.refuse("pcp", "is in a tag: give vlan=, too; vlan=0 is a tag with a priority alone")
	}
	if err := s.checkIP(); err != nil {
		return err
	}
	return s.checkType()
}

// checkIP settles the version of IP: 0 where the frame carries none.
func (s *Spec) checkIP() error {
	for _, a := range []struct {
		word string
		addr netip.Addr
	}{{"ip_src", s.ipSrc}, {"ip_dst", s.ipDst}} {
		if !a.addr.IsValid() {
			continue
		}
		version := 6
		if a.addr.Is4() {
			version = 4
		}
		if s.version != 0 && s.version != version {
			return s.refuse(a.word, fmt.Sprintf("is of IPv%d, and other words are of IPv%d", version, s.version))
		}
		s.version = version
	}
	name, isIP := s.known("proto", "port", "src_port", "flags", "ttl", "tos", "icmp_type", "icmp_code", "super")
	isIP = isIP || s.version != 0 || s.proto >= 0
	switch {
	case isIP && s.arp:
		if name == "" {
			name = "arp"
		}
		return s.refuse(name, "a frame is IP or ARP, not both")
	case !isIP:
		return nil
	}
	if s.version == 0 {
		s.version = 4
		if s.proto == protoICMP6 || s.etherType == frame.EtherIPv6 {
			s.version = 6
		}
	}
	switch {
	case s.proto < 0 && s.version == 4:
		s.proto = protoICMP
	case s.proto < 0:
		s.proto = protoICMP6
	case s.proto == protoICMP && s.version == 6:
		return &Error{Word: "proto", Value: "icmp", Allowed: "is of IPv4; in IPv6 it is icmp6"}
	case s.proto == protoICMP6 && s.version == 4:
		return &Error{Word: "proto", Value: "icmp6", Allowed: "is of IPv6; in IPv4 it is icmp"}
	}
	return nil
}

// checkType settles the EtherType.
func (s *Spec) checkType() error {
	follows := -1
	switch {
	case s.arp:
		follows = frame.EtherARP
	case s.version == 4:
		follows = frame.EtherIPv4
	case s.version == 6:
		follows = frame.EtherIPv6
	case s.etherType == frame.EtherARP:
		s.arp = true
	case s.etherType == frame.EtherIPv4:
		s.version, s.proto = 4, protoICMP
	case s.etherType == frame.EtherIPv6:
		s.version, s.proto = 6, protoICMP6
	}
	if follows >= 0 {
		if s.etherType >= 0 && s.etherType != follows {
			return s.refuse("eth_type", fmt.Sprintf("other words make it %#04x", follows))
		}
		s.etherType = follows
	}
	if s.etherType < 0 {
		s.etherType = defaultType
	}
	if s.etherType == frame.TPID8021Q || s.etherType == frame.TPID8021AD {
		return s.refuse("eth_type", "is a tag's: give vlan=")
	}
	return nil
}

// Frame makes the frame. Both MAC addresses must be known by now.
func (s *Spec) Frame() (Frame, error) {
	dst := s.dst
	if dst == nil {
		dst = multicast(s.ipDst)
	}
	switch {
	case dst == nil:
		return Frame{}, &Error{Word: "eth_dst", Allowed: "is missing: give the MAC address it goes to, or eth_dst=broadcast"}
	case s.src == nil:
		return Frame{}, &Error{Word: "eth_src", Allowed: "is missing: give the sender's MAC address"}
	}
	headers, payload := s.layers(dst)
	used := 0 // bytes of headers
	for _, l := range headers {
		used += headerLen(l)
	}
	ip := used - s.ethLen()
	want := s.super
	if s.length > 0 {
		want = s.length - used
	}
	switch {
	case want < 0:
		return Frame{}, s.refuse("len", fmt.Sprintf("the headers alone take %d bytes", used))
	case s.version != 0 && ip+want > 65535:
		name := "len"
		if s.super > 0 {
			name = "super"
		}
		return Frame{}, s.refuse(name, fmt.Sprintf("an IP packet has at most 65535 bytes, which leaves %d here", want-(ip+want-65535)))
	}
	payload = append(payload, make([]byte, want)...)
	b := gopacket.NewSerializeBuffer()
	o := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(b, o, append(headers, gopacket.Payload(payload))...); err != nil {
		return Frame{}, fmt.Errorf("make the frame: %w", err)
	}
	f := Frame{Data: b.Bytes()[:used+len(payload)]} // without gopacket's padding
	if s.super > 0 {
		return f, s.offload(&f, used)
	}
	if s.length == 0 && len(f.Data) < minLen {
		f.Data = append(f.Data, make([]byte, minLen-len(f.Data))...) // as a NIC pads it
	}
	return f, nil
}

func (s *Spec) ethLen() int {
	if s.vlan >= 0 {
		return frame.EthLen + frame.TagLen
	}
	return frame.EthLen
}

// headerLen is what a layer of ours takes.
func headerLen(l gopacket.SerializableLayer) int {
	switch l.(type) {
	case *layers.Ethernet:
		return frame.EthLen
	case *layers.Dot1Q, *layers.ICMPv6, *layers.ICMPv6Echo:
		return 4
	case *layers.IPv4, *layers.TCP:
		return 20
	case *layers.IPv6:
		return 40
	case *layers.ARP:
		return 28
	}
	return 8 // UDP, ICMPv4
}

// layers returns the frame's headers.
func (s *Spec) layers(dst net.HardwareAddr) (all []gopacket.SerializableLayer, payload []byte) {
	etherType := layers.EthernetType(s.etherType)
	eth := &layers.Ethernet{SrcMAC: s.src, DstMAC: dst, EthernetType: etherType}
	all = append(all, eth)
	if s.vlan >= 0 {
		eth.EthernetType = layers.EthernetTypeDot1Q
		all = append(all, &layers.Dot1Q{VLANIdentifier: uint16(s.vlan), Priority: uint8(max(s.pcp, 0)), Type: etherType})
	}
	if s.arp {
		return append(all, s.arpLayer(dst)), nil
	}
	var network gopacket.NetworkLayer
	ttl, tos := uint8(or(s.ttl, defaultTTL)), uint8(or(s.tos, 0))
	switch s.version {
	case 4:
		ip := &layers.IPv4{
			Version: 4, TTL: ttl, TOS: tos, Protocol: layers.IPProtocol(s.proto), Flags: layers.IPv4DontFragment, // as Linux sends
			SrcIP: addressOr(s.ipSrc, defaultSrc4).AsSlice(), DstIP: addressOr(s.ipDst, defaultDst4).AsSlice(),
		}
		all, network = append(all, ip), ip
	case 6:
		ip := &layers.IPv6{
			Version: 6, HopLimit: ttl, TrafficClass: tos, NextHeader: layers.IPProtocol(s.proto),
			SrcIP: addressOr(s.ipSrc, defaultSrc6).AsSlice(), DstIP: addressOr(s.ipDst, defaultDst6).AsSlice(),
		}
		all, network = append(all, ip), ip
	default:
		return all, nil
	}
	return append(all, s.transport(network)...), nil
}

// transport returns what is beneath IP.
func (s *Spec) transport(network gopacket.NetworkLayer) []gopacket.SerializableLayer {
	port, from := or(s.port, defaultPort), or(s.from, defaultSrcPort)
	switch s.proto {
	case protoTCP:
		flags := or(s.flags, flagBits["syn"])
		if s.flags < 0 && s.super > 0 {
			flags = flagBits["ack"] | flagBits["psh"]
		}
		has := func(name string) bool { return flags&flagBits[name] != 0 }
		t := &layers.TCP{
			SrcPort: layers.TCPPort(from), DstPort: layers.TCPPort(port), Seq: 1, Window: 65535,
			FIN: has("fin"), SYN: has("syn"), RST: has("rst"), PSH: has("psh"), ACK: has("ack"), URG: has("urg"), ECE: has("ece"), CWR: has("cwr"),
		}
		if t.ACK {
			t.Ack = 1
		}
		t.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{t}
	case protoUDP:
		u := &layers.UDP{SrcPort: layers.UDPPort(from), DstPort: layers.UDPPort(port)}
		u.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{u}
	case protoICMP:
		kind := or(s.icmp, layers.ICMPv4TypeEchoRequest)
		return []gopacket.SerializableLayer{&layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(uint8(kind), uint8(or(s.code, 0))), Id: 1, Seq: 1}}
	case protoICMP6:
		kind := or(s.icmp, layers.ICMPv6TypeEchoRequest)
		i := &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(uint8(kind), uint8(or(s.code, 0)))}
		i.SetNetworkLayerForChecksum(network)
		return []gopacket.SerializableLayer{i, &layers.ICMPv6Echo{Identifier: 1, SeqNumber: 1}}
	}
	return nil
}

func (s *Spec) arpLayer(dst net.HardwareAddr) *layers.ARP {
	op := or(s.arpOp, layers.ARPRequest)
	sha, tha := s.sha, s.tha
	if sha == nil {
		sha = s.src
	}
	if tha == nil {
		tha = make(net.HardwareAddr, 6)
		if op == layers.ARPReply {
			tha = dst
		}
	}
	return &layers.ARP{
		AddrType: layers.LinkTypeEthernet, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: uint16(op),
		SourceHwAddress: sha, SourceProtAddress: addressOr(s.spa, defaultSrc4).AsSlice(),
		DstHwAddress: tha, DstProtAddress: addressOr(s.tpa, defaultDst4).AsSlice(),
	}
}

// offload gives a super-frame the state with which Linux sends one: segments of mss
// bytes, and, where the checksum belongs, the sum of the pseudo-header alone
// (CHECKSUM_PARTIAL). headers are the bytes of all headers.
func (s *Spec) offload(f *Frame, headers int) error {
	o := &f.Offload
	o.GSOType, o.GSOSize = frame.GSOTCPv4, 1460
	if s.version == 6 {
		o.GSOType, o.GSOSize = frame.GSOTCPv6, 1440
	}
	if s.mss > 0 {
		o.GSOSize = uint16(s.mss)
	}
	if s.super <= int(o.GSOSize) {
		return s.refuse("super", "must be more than the mss, "+strconv.Itoa(int(o.GSOSize))+" bytes: else it is one segment")
	}
	const tcpLen, tcpSum = 20, 16 // tcpSum is where the checksum stands
	o.Flags, o.HdrLen = frame.NeedsCsum, uint16(headers)
	o.CsumStart, o.CsumOffset = uint16(headers-tcpLen), tcpSum
	ip := f.Data[s.ethLen():]
	addresses := ip[12:20]
	if s.version == 6 {
		addresses = ip[8:40]
	}
	binary.BigEndian.PutUint16(f.Data[headers-tcpLen+tcpSum:], frame.Sum(nil, frame.Pseudo(addresses, protoTCP, tcpLen+s.super)))
	return nil
}

func or(n, other int) int {
	if n < 0 {
		return other
	}
	return n
}

func addressOr(a, other netip.Addr) netip.Addr {
	if a.IsValid() {
		return a
	}
	return other
}
