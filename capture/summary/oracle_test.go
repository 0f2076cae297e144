package summary

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/net/dns/dnsmessage"
)

// expected is the line of a frame as gopacket decodes it: Ethernet, tags, ARP, IP, TCP,
// UDP and ICMP.
func expected(p gopacket.Packet) string {
	var s strings.Builder
	src, dst := "", ""
	for _, l := range p.Layers() {
		switch l := l.(type) {
		case *layers.Ethernet:
			fmt.Fprintf(&s, "%s > %s, ", l.SrcMAC, l.DstMAC)
		case *layers.Dot1Q:
			fmt.Fprintf(&s, "vlan %d, ", l.VLANIdentifier)
		case *layers.ARP:
			spa, tpa := netip.AddrFrom4([4]byte(l.SourceProtAddress)), netip.AddrFrom4([4]byte(l.DstProtAddress))
			switch l.Operation {
			case 1:
				fmt.Fprintf(&s, "ARP who-has %s tell %s", tpa, spa)
			case 2:
				hw := l.SourceHwAddress
				fmt.Fprintf(&s, "ARP %s is-at %02x:%02x:%02x:%02x:%02x:%02x", spa, hw[0], hw[1], hw[2], hw[3], hw[4], hw[5])
			default:
				fmt.Fprintf(&s, "ARP operation %d from %s", l.Operation, spa)
			}
		case *layers.IPv4:
			src, dst = l.SrcIP.String(), l.DstIP.String()
			s.WriteString("IPv4 ")
		case *layers.IPv6:
			src, dst = netip.AddrFrom16([16]byte(l.SrcIP)).String(), netip.AddrFrom16([16]byte(l.DstIP)).String()
			s.WriteString("IPv6 ")
		case *layers.TCP:
			n, flags := len(l.Payload), ""
			for _, f := range []struct {
				name string
				set  bool
			}{{"F", l.FIN}, {"S", l.SYN}, {"R", l.RST}, {"P", l.PSH}, {".", l.ACK}, {"U", l.URG}, {"E", l.ECE}, {"W", l.CWR}} {
				if f.set {
					flags += f.name
				}
			}
			if flags == "" {
				flags = "none"
			}
			fmt.Fprintf(&s, "%s.%d > %s.%d: tcp %s", src, uint16(l.SrcPort), dst, uint16(l.DstPort), flags)
			if n > 0 || l.SYN || l.FIN || l.RST {
				fmt.Fprintf(&s, " %d:%d", l.Seq, l.Seq+uint32(n))
			}
			if l.ACK {
				fmt.Fprintf(&s, " ack %d", l.Ack)
			}
			fmt.Fprintf(&s, " win %d, length %d", l.Window, n)
		case *layers.UDP:
			fmt.Fprintf(&s, "%s.%d > %s.%d: udp, length %d", src, uint16(l.SrcPort), dst, uint16(l.DstPort), len(l.Payload))
		case *layers.ICMPv4:
			fmt.Fprintf(&s, "%s > %s: icmp ", src, dst)
			switch l.TypeCode.Type() {
			case layers.ICMPv4TypeEchoRequest:
				fmt.Fprintf(&s, "echo request, id %d, seq %d", l.Id, l.Seq)
			case layers.ICMPv4TypeEchoReply:
				fmt.Fprintf(&s, "echo reply, id %d, seq %d", l.Id, l.Seq)
			default:
				s.WriteString(l.TypeCode.String())
			}
			fmt.Fprintf(&s, ", length %d", len(l.Contents)+len(l.Payload))
		}
	}
	return s.String()
}

// Frames of random contents read as gopacket decodes them.
func TestAgreesWithGopacket(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	some := func(n int) []byte {
		b := make([]byte, n)
		for i := range b {
			b[i] = byte(r.Uint32())
		}
		return b
	}
	port := func() uint16 { return uint16(20000 + r.IntN(20000)) } // of no protocol that is told of
	for range 5000 {
		ether := &layers.Ethernet{SrcMAC: some(6), DstMAC: some(6)}
		all := []gopacket.SerializableLayer{ether}
		kind := &ether.EthernetType
		for range r.IntN(3) {
			tag := tag(uint16(r.IntN(4096)), 0)
			*kind = layers.EthernetTypeDot1Q
			kind, all = &tag.Type, append(all, tag)
		}
		proto := new(layers.IPProtocol)
		switch r.IntN(5) {
		case 0:
			*kind = layers.EthernetTypeARP
			all = append(all, &layers.ARP{AddrType: 1, Protocol: layers.EthernetTypeIPv4, HwAddressSize: 6, ProtAddressSize: 4, Operation: uint16(1 + r.IntN(4)),
				SourceHwAddress: some(6), SourceProtAddress: some(4), DstHwAddress: some(6), DstProtAddress: some(4)})
			proto = nil
		case 1, 2:
			ip := &layers.IPv4{Version: 4, TTL: 64, SrcIP: some(4), DstIP: some(4)}
			for range r.IntN(3) {
				ip.Options = append(ip.Options, layers.IPv4Option{OptionType: 0x94, OptionLength: 4, OptionData: some(2)})
			}
			*kind, proto = layers.EthernetTypeIPv4, &ip.Protocol
			all = append(all, ip)
		default:
			ip := &layers.IPv6{Version: 6, HopLimit: 64, SrcIP: some(16), DstIP: some(16)}
			*kind, proto = layers.EthernetTypeIPv6, &ip.NextHeader
			all = append(all, ip)
		}
		switch n := r.IntN(3); {
		case proto == nil:
		case n == 0:
			f := r.Uint32()
			is := func(bit int) bool { return f>>bit&1 != 0 }
			*proto = layers.IPProtocolTCP
			tcp := &layers.TCP{SrcPort: layers.TCPPort(port()), DstPort: layers.TCPPort(port()), Seq: r.Uint32(), Ack: r.Uint32(), Window: uint16(r.Uint32()),
				FIN: is(0), SYN: is(1), RST: is(2), PSH: is(3), ACK: is(4), URG: is(5), ECE: is(6), CWR: is(7), NS: is(8)}
			for range r.IntN(4) {
				tcp.Options = append(tcp.Options, layers.TCPOption{OptionType: layers.TCPOptionKindMSS, OptionLength: 4, OptionData: some(2)})
			}
			all = append(all, tcp, gopacket.Payload(some(r.IntN(100))))
		case n == 1 || *kind == layers.EthernetTypeIPv6:
			*proto = layers.IPProtocolUDP
			all = append(all, &layers.UDP{SrcPort: layers.UDPPort(port()), DstPort: layers.UDPPort(port())}, gopacket.Payload(some(r.IntN(100))))
		default:
			*proto = layers.IPProtocolICMPv4
			kinds := []uint8{0, 4, 8, 9, 10, 12, 13, 14, 15, 16, 17, 18, 40, 200}
			code := layers.CreateICMPv4TypeCode(kinds[r.IntN(len(kinds))], uint8(r.IntN(4)))
			all = append(all, &layers.ICMPv4{TypeCode: code, Id: uint16(r.Uint32()), Seq: uint16(r.Uint32())}, gopacket.Payload(some(r.IntN(60))))
		}
		b := build(t, all...)
		want := expected(gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.NoCopy))
		if r.IntN(2) == 0 {
			b = append(b, some(r.IntN(8))...) // padding, or a check sequence
		}
		got := Of(b[:len(b):len(b)], len(b))
		if got != want {
			t.Fatalf("%x\n got %s\nwant %s", b, got, want)
		}
	}
}

// The words for messages about which nothing more is told are gopacket's.
func TestKindsOfICMP6(t *testing.T) {
	for _, kind := range []uint8{4, 100, 127, 137, 138, 255} {
		for code := range uint8(5) {
			is := layers.CreateICMPv6TypeCode(kind, code)
			b := build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: is}, text("12345678"))
			if got, want := Of(b, len(b)), line0+"IPv6 2001:db8::1 > 2001:db8::2: icmp6 "+is.String()+", length 12"; got != want {
				t.Errorf("got %s\nwant %s", got, want)
			}
		}
	}
}

// dnsFrame is a frame with a DNS message from the server.
func dnsFrame(t testing.TB, message []byte) []byte {
	return build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), &layers.UDP{SrcPort: 53, DstPort: 5000}, gopacket.Payload(message))
}

// response is a message whose names point at one another, and what is to be read of it.
func response(t testing.TB) (message []byte, want string) {
	name := dnsmessage.MustNewName
	head := func(n string, kind dnsmessage.Type) dnsmessage.ResourceHeader {
		return dnsmessage.ResourceHeader{Name: name(n), Type: kind, Class: dnsmessage.ClassINET, TTL: 60}
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: 7, Response: true, Authoritative: true, RCode: dnsmessage.RCodeNameError},
		Questions: []dnsmessage.Question{{Name: name("www.example.com."), Type: dnsmessage.TypeAAAA, Class: dnsmessage.ClassINET}},
		Answers: []dnsmessage.Resource{
			{Header: head("www.example.com.", dnsmessage.TypeCNAME), Body: &dnsmessage.CNAMEResource{CNAME: name("a.b.example.com.")}},
			{Header: head("a.b.example.com.", dnsmessage.TypeNS), Body: &dnsmessage.NSResource{NS: name("ns.b.example.com.")}},
			{Header: head("example.com.", dnsmessage.TypeMX), Body: &dnsmessage.MXResource{Pref: 10, MX: name("mx.example.com.")}},
			{Header: head("a.b.example.com.", dnsmessage.TypeAAAA), Body: &dnsmessage.AAAAResource{AAAA: [16]byte(ip6A)}},
			{Header: head("a.b.example.com.", dnsmessage.TypeA), Body: &dnsmessage.AResource{A: [4]byte(ipB)}},
		},
		Authorities: []dnsmessage.Resource{{Header: head("b.example.com.", dnsmessage.TypeNS), Body: &dnsmessage.NSResource{NS: name("ns.b.example.com.")}}},
		Additionals: []dnsmessage.Resource{{Header: dnsmessage.ResourceHeader{Name: name("."), Class: 1232, TTL: 1 << 24}, Body: &dnsmessage.OPTResource{}}},
	}
	message, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	// Of the error, 3 is in the header and 1<<4 in the OPT record: Bad TKEY Mode.
	return message, "dns 7* Bad TKEY Mode 5/1/1 CNAME a.b.example.com, NS ns.b.example.com, MX, AAAA 2001:db8::1, length "
}

func TestNamesOfDNS(t *testing.T) {
	message, want := response(t)
	b := dnsFrame(t, message)
	if got := Of(b, len(b)); !strings.Contains(got, ": "+want) || strings.Contains(got, "malformed") {
		t.Errorf("got %s\nwant %s", got, want)
	}
	// Cut anywhere, what was read before the cut is what is told.
	shown := strings.TrimSuffix(want, ", length ")
	for n := 54; n < len(b); n++ {
		got := Of(b[:n:n], len(b))
		answers, cut := strings.CutSuffix(got, fmt.Sprintf(" [|dns], length %d", len(message)))
		// The error's upper bits are the message's last bytes.
		answers = strings.Replace(answers, "Non-Existent Domain", "Bad TKEY Mode", 1)
		if _, answers, _ = strings.Cut(answers, ".5000: "); !cut || !strings.HasPrefix(shown, answers) {
			t.Errorf("%d bytes: %s", n, got)
		}
	}
}

// Names that never end, or that are longer than names are, are no names.
func TestHostileNames(t *testing.T) {
	long := strings.Repeat("3f"+strings.Repeat("61", 63), 3)
	for what, tc := range map[string]struct{ names, want string }{
		"255 bytes with dots":           {long + "3e" + strings.Repeat("61", 62) + "00", "A? " + strings.Repeat("a", 63) + "., length"},
		"longer":                        {long + "3f" + strings.Repeat("61", 63) + "016100", "+ [malformed]"},
		"pointer to itself":             {"c00c", "+ [malformed]"},
		"two pointers at each other":    {"c00e c00c", "+ [malformed]"},
		"label that points back at it":  {"0161 c00c", "+ [malformed]"},
		"pointer behind the end":        {"ffff", "+ [malformed]"},
		"label of a kind that is none":  {"4161 00", "+ [malformed]"},
		"label that is longer than all": {"3f61 00", "+ [malformed]"},
		"root":                          {"00", "A? , length"},
	} {
		m := raw(t, "0001 0100 0001 0000 0000 0000"+tc.names+"0001 0001")
		if b := dnsFrame(t, m); !strings.Contains(Of(b, len(b)), tc.want) {
			t.Errorf("%s: %s", what, Of(b, len(b)))
		}
	}
}

// The dearest message that is known: the names of all its records go through as many
// pointers as are followed.
func BenchmarkHostileNames(b *testing.B) {
	const chain = 2 * (maxPointers - 1)
	m := raw(b, fmt.Sprintf("0001 8000 0000 ffff 0000 0000  00 0010 0001 00000000 %04x", chain))
	for range chain / 2 {
		at := len(m) - 2 // the first points at the length's zero byte
		m = append(m, 0xc0|byte(at>>8), byte(at))
	}
	last := len(m) - 2
	for len(m) < maxDNS-12 {
		m = append(m, 0xc0|byte(last>>8), byte(last))
		m = append(m, raw(b, "0001 0001 00000000 0000")...)
	}
	f := dnsFrame(b, m)
	b.ReportAllocs()
	for b.Loop() {
		Of(f, len(f))
	}
}
