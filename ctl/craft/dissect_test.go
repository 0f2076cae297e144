package craft

import (
	"fmt"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
)

// describe says what a frame is, in words to compare.
func describe(p gopacket.Packet) (s string) {
	n := len(p.Data())
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	kind := eth.EthernetType
	if v, ok := p.Layer(layers.LayerTypeDot1Q).(*layers.Dot1Q); ok {
		s = fmt.Sprintf("vlan=%d/%d ", v.VLANIdentifier, v.Priority)
		kind = v.Type
	}
	switch ip := p.NetworkLayer().(type) {
	case *layers.IPv4:
		s += fmt.Sprintf("%s>%s ttl=%d ", ip.SrcIP, ip.DstIP, ip.TTL)
		if ip.TOS != 0 {
			s += fmt.Sprintf("tos=%d ", ip.TOS)
		}
		if p.TransportLayer() == nil && ip.Protocol != layers.IPProtocolICMPv4 {
			return s + fmt.Sprintf("proto=%d", ip.Protocol)
		}
	case *layers.IPv6:
		s += fmt.Sprintf("%s>%s ttl=%d ", ip.SrcIP, ip.DstIP, ip.HopLimit)
	case nil:
		if a, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
			addr := func(b []byte) string { return fmt.Sprintf("%d.%d.%d.%d", b[0], b[1], b[2], b[3]) }
			hw := func(b []byte) string {
				return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x", b[0], b[1], b[2], b[3], b[4], b[5])
			}
			return s + fmt.Sprintf("arp %d %s %s %s %s", a.Operation, addr(a.SourceProtAddress), hw(a.SourceHwAddress), addr(a.DstProtAddress), hw(a.DstHwAddress))
		}
		return fmt.Sprintf("Ethernet %slen=%d type=0x%04x", s, n, uint16(kind))
	}
	switch l := p.TransportLayer().(type) {
	case *layers.TCP:
		s += fmt.Sprintf("tcp %d>%d ", l.SrcPort, l.DstPort)
		if l.SYN {
			s += "S"
		}
		if l.ACK {
			s += "A"
		}
	case *layers.UDP:
		s += fmt.Sprintf("udp %d>%d len=%d", l.SrcPort, l.DstPort, n)
	}
	if i, ok := p.Layer(layers.LayerTypeICMPv4).(*layers.ICMPv4); ok {
		s += fmt.Sprintf("icmp %d/%d", i.TypeCode.Type(), i.TypeCode.Code())
	}
	if i, ok := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6); ok {
		s += fmt.Sprintf("icmp6 %d/%d", i.TypeCode.Type(), i.TypeCode.Code())
	}
	return s
}
