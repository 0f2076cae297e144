package ctl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"strconv"

	"vswitch/capture/summary"
	"vswitch/ctl/api"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

// named is whom a frame names: as much as is there of a frame that may have been cut
// anywhere, and may be hostile.
type named struct {
	src, dst         [6]byte
	etherType        uint16     // behind VLAN tags
	ipSrc, ipDst     netip.Addr // of an IP packet; of ARP, the sender and the target
	target           netip.Addr // that an ND message is about
	proto            uint8      // IP protocol, behind IPv6 extension headers
	transport        bool       // the ports are here
	srcPort, dstPort uint16
	l4               []byte // what follows the IP headers
}

// Offsets and sizes of what is read here. ARP over Ethernet and IPv4 (RFC 826):
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|       hardware type = 1       |    protocol type = 0x0800     |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|      6        |      4        |  1: request, 2: reply         |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                    sender's MAC address                       |
//	+                               +-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |    sender's IP address        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                               |    target's MAC address       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+                               +
//	|                                                               |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|                     target's IP address                       |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
const (
	arpOp        = 6
	arpSenderMAC = 8
	arpSenderIP  = 14
	arpTargetIP  = 24
	arpLen       = 28

	arpRequest, arpReply = 1, 2

	ipv4Src, ipv4Dst = 12, 16
	ipv4FragmentAt   = 6
	ipv6Next         = 6
	ipv6Hops         = 7
	ipv6Src, ipv6Dst = 8, 24

	protoICMP   = 1
	protoICMPv6 = 58
	protoSCTP   = 132

	// ND (RFC 4861, sections 4.3 and 4.4): type, code, checksum, four bytes, target,
	// and options of 8 bytes each times a length.
	ndSolicitation, ndAdvertisement = 135, 136
	ndTarget                        = 8
	ndOptions                       = 24
)

// arpHead is how ARP over Ethernet and IPv4 begins.
var arpHead = [arpOp]byte{0, 1, 0x08, 0, 6, 4}

// names reads whom a frame names, from its destination address on; ok is false for
// what is too short to be a frame.
func names(b []byte) (n named, ok bool) {
	if len(b) < frame.EthLen {
		return n, false
	}
	n.dst, n.src = [6]byte(b), [6]byte(b[6:])
	at := frame.EthLen
	n.etherType = binary.BigEndian.Uint16(b[at-2:])
	for range 2 {
		if n.etherType != frame.TPID8021Q && n.etherType != frame.TPID8021AD || len(b) < at+frame.TagLen {
			break
		}
		at += frame.TagLen
		n.etherType = binary.BigEndian.Uint16(b[at-2:])
	}
	b = b[at:]
	switch n.etherType {
	case frame.EtherARP:
		if len(b) >= arpLen && [arpOp]byte(b) == arpHead {
			n.ipSrc, n.ipDst = ipv4At(b, arpSenderIP), ipv4At(b, arpTargetIP)
			n.l4 = b[:arpLen]
		}
	case frame.EtherIPv4:
		n.ipv4(b)
	case frame.EtherIPv6:
		n.ipv6(b)
	}
	return n, true
}

func ipv4At(b []byte, at int) netip.Addr { return netip.AddrFrom4([4]byte(b[at:])) }
func ipv6At(b []byte, at int) netip.Addr { return netip.AddrFrom16([16]byte(b[at:])) }

func (n *named) ipv4(b []byte) {
	if len(b) < frame.IPv4MinLen || b[0]>>4 != 4 {
		return
	}
	n.ipSrc, n.ipDst, n.proto = ipv4At(b, ipv4Src), ipv4At(b, ipv4Dst), b[9]
	ihl := int(b[0]&0x0f) * 4
	later := binary.BigEndian.Uint16(b[ipv4FragmentAt:])&0x1fff != 0
	if ihl >= frame.IPv4MinLen && len(b) >= ihl && !later {
		n.l4 = b[ihl:]
		n.ports()
	}
}

func (n *named) ipv6(b []byte) {
	if len(b) < frame.IPv6Len || b[0]>>4 != 6 {
		return
	}
	n.ipSrc, n.ipDst, n.proto = ipv6At(b, ipv6Src), ipv6At(b, ipv6Dst), b[ipv6Next]
	hops := b[ipv6Hops]
	b = b[frame.IPv6Len:]
	for range 8 { // as many extension headers as the switch walks over
		switch n.proto {
		case 0, 43, 60, 44: // hop-by-hop, routing, destination options, fragment
		default:
			n.l4 = b
			n.ports()
			if n.proto == protoICMPv6 && hops == 255 && len(b) >= ndOptions && (b[0] == ndSolicitation || b[0] == ndAdvertisement) {
				n.target = ipv6At(b, ndTarget)
			}
			return
		}
		if len(b) < 8 {
			return
		}
		size := 8
		if n.proto != 44 {
			size += int(b[1]) * 8
		} else if binary.BigEndian.Uint16(b[2:])&0xfff8 != 0 {
			n.proto = b[0]
			return
		}
		if len(b) < size {
			return
		}
		n.proto, b = b[0], b[size:]
	}
}

func (n *named) ports() {
	switch n.proto {
	case frame.ProtoTCP, frame.ProtoUDP, protoSCTP:
		if len(n.l4) >= 4 {
			n.transport = true
			n.srcPort, n.dstPort = binary.BigEndian.Uint16(n.l4), binary.BigEndian.Uint16(n.l4[2:])
		}
	}
}

// protocol is how the frame's protocol is called.
func (n *named) protocol() string {
	if n.etherType == frame.EtherARP {
		return "arp"
	}
	if !n.ipSrc.IsValid() {
		if n.etherType < 0x600 {
			return "802.3"
		}
		return fmt.Sprintf("0x%04x", n.etherType)
	}
	switch n.proto {
	case frame.ProtoTCP:
		return "tcp"
	case frame.ProtoUDP:
		return "udp"
	case protoSCTP:
		return "sctp"
	case protoICMP:
		return "icmp"
	case protoICMPv6:
		return "icmp6"
	}
	return "ip-" + strconv.Itoa(int(n.proto))
}

func macText(mac [6]byte) string { return net.HardwareAddr(mac[:]).String() }

// lineOf says in a line what a sighting's frame is.
func lineOf(x *vswitch.Sighting) string {
	if !x.Tag.Present() || len(x.Data) < frame.AddrLen {
		return summary.Of(x.Data, x.WireLen)
	}
	b := make([]byte, frame.TagLen+len(x.Data))
	copy(b[frame.TagLen:], x.Data)
	return summary.Of(x.Tag.Insert(b), x.WireLen)
}

// addressesOf returns the addresses of a sighting's frame; nil for what is too short
// to have any.
func addressesOf(x *vswitch.Sighting) *api.FrameAddresses {
	n, ok := names(x.Data)
	if !ok {
		return nil
	}
	a := &api.FrameAddresses{VLAN: vlanOf(x), Src: macText(n.src), Dst: macText(n.dst)}
	if n.ipSrc.IsValid() {
		a.IPSrc, a.IPDst = n.ipSrc.String(), n.ipDst.String()
	}
	if n.target.IsValid() {
		a.IPDst = n.target.String()
	}
	return a
}

// vlanOf is the VLAN a sighting's frame is in, or says that it is.
func vlanOf(x *vswitch.Sighting) int {
	if x.VLAN == 0 && x.Tag.Present() {
		return int(x.Tag.VID())
	}
	return int(x.VLAN)
}
