package summary

import (
	"bytes"
	"encoding/hex"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"vswitch/capture"
)

var (
	macA = net.HardwareAddr{2, 0, 0, 0, 0, 1}
	macB = net.HardwareAddr{2, 0, 0, 0, 0, 2}
	ipA  = net.IP{10, 0, 0, 1}
	ipB  = net.IP{10, 0, 0, 2}
	ip6A = net.ParseIP("2001:db8::1")
	ip6B = net.ParseIP("2001:db8::2")
)

// build makes a frame of layers, with lengths and checksums filled in.
func build(t testing.TB, all ...gopacket.SerializableLayer) []byte {
	t.Helper()
	var network gopacket.NetworkLayer
	for _, l := range all {
		switch x := l.(type) {
		case *layers.IPv4:
			network = x
		case *layers.IPv6:
			network = x
		case *layers.TCP:
			x.SetNetworkLayerForChecksum(network)
		case *layers.UDP:
			x.SetNetworkLayerForChecksum(network)
		case *layers.ICMPv6:
			x.SetNetworkLayerForChecksum(network)
		}
	}
	b := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, all...); err != nil {
		t.Fatal(err)
	}
	return bytes.Clone(b.Bytes())
}

func eth(kind layers.EthernetType) *layers.Ethernet {
	return &layers.Ethernet{SrcMAC: macA, DstMAC: macB, EthernetType: kind}
}

func tag(vlan uint16, kind layers.EthernetType) *layers.Dot1Q {
	return &layers.Dot1Q{VLANIdentifier: vlan, Type: kind}
}

func ip4(p layers.IPProtocol) *layers.IPv4 {
	return &layers.IPv4{Version: 4, TTL: 64, Protocol: p, SrcIP: ipA, DstIP: ipB}
}

func ip6(p layers.IPProtocol) *layers.IPv6 {
	return &layers.IPv6{Version: 6, HopLimit: 255, NextHeader: p, SrcIP: ip6A, DstIP: ip6B}
}

func text(s string) gopacket.Payload { return gopacket.Payload(s) }

func raw(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(strings.ReplaceAll(s, " ", ""))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

const head = "020000000002 020000000001 "

// frames are what the tests look at, by what they are.
func frames(t testing.TB) map[string][]byte {
	dhcp := &layers.DHCPv4{Operation: layers.DHCPOpRequest, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, Xid: 7, ClientHWAddr: macA,
		Options: layers.DHCPOptions{layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{1}), layers.NewDHCPOption(layers.DHCPOptRequestIP, ipB)}}
	offer := &layers.DHCPv4{Operation: layers.DHCPOpReply, HardwareType: layers.LinkTypeEthernet, HardwareLen: 6, Xid: 7, ClientHWAddr: macA, YourClientIP: ipB,
		Options: layers.DHCPOptions{layers.NewDHCPOption(layers.DHCPOptMessageType, []byte{2})}}
	question := layers.DNSQuestion{Name: []byte("example.com"), Type: layers.DNSTypeA, Class: layers.DNSClassIN}
	query := &layers.DNS{ID: 4660, RD: true, Questions: []layers.DNSQuestion{question}}
	answer := &layers.DNS{ID: 4660, QR: true, RD: true, RA: true, Questions: []layers.DNSQuestion{question}, ANCount: 1,
		Answers: []layers.DNSResourceRecord{{Name: []byte("example.com"), Type: layers.DNSTypeA, Class: layers.DNSClassIN, TTL: 60, IP: ipB}}}
	ping := build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(8, 0), Id: 7, Seq: 1}, text(strings.Repeat("x", 56)))
	udp := func(s, d layers.UDPPort) *layers.UDP { return &layers.UDP{SrcPort: s, DstPort: d} }
	geneve := append(raw(t, "0000 6558 00002a 00"), ping...)
	gre := append(raw(t, "2000 6558 00000007"), ping...)
	quoted := build(t, ip4(layers.IPProtocolUDP), udp(4000, 53), text("x"))
	fragment := ip4(layers.IPProtocolUDP)
	fragment.Id, fragment.FragOffset, fragment.Flags = 9, 185, layers.IPv4MoreFragments
	return map[string][]byte{
		"syn":      build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 5000, DstPort: 80, SYN: true, Seq: 1, Window: 64240}),
		"vlan syn": build(t, eth(layers.EthernetTypeDot1Q), tag(10, layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 5000, DstPort: 80, SYN: true, Seq: 1, Window: 64240}),
		"tcp data": build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 5000, DstPort: 80, ACK: true, PSH: true, Seq: 100, Ack: 200, Window: 500}, text("hello")),
		"tcp ack":  build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolTCP), &layers.TCP{SrcPort: 5000, DstPort: 80, ACK: true, Seq: 100, Ack: 200, Window: 500}),
		"rst":      build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolTCP), &layers.TCP{SrcPort: 5000, DstPort: 80, RST: true, ACK: true, Seq: 5, Ack: 9}),
		"udp":      build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(5000, 5001), text("hello")),
		"udp6":     build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolUDP), udp(5000, 5001), text("hello")),
		"ping":     ping,
		"pong":     build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(0, 0), Id: 7, Seq: 1}, text("x")),
		"too big":  build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 4), Seq: 1400}, gopacket.Payload(quoted)),
		"no port":  build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 3)}, gopacket.Payload(quoted)),
		"no host":  build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolICMPv4), &layers.ICMPv4{TypeCode: layers.CreateICMPv4TypeCode(3, 1)}, gopacket.Payload(quoted)),
		"ping6":    build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(128, 0)}, &layers.ICMPv6Echo{Identifier: 7, SeqNumber: 1}),
		"ns":       build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(135, 0)}, &layers.ICMPv6NeighborSolicitation{TargetAddress: ip6B}),
		"na":       build(t, eth(layers.EthernetTypeIPv6), ip6(layers.IPProtocolICMPv6), &layers.ICMPv6{TypeCode: layers.CreateICMPv6TypeCode(136, 0)}, &layers.ICMPv6NeighborAdvertisement{TargetAddress: ip6B}),
		"arp":      build(t, &layers.Ethernet{SrcMAC: macA, DstMAC: layers.EthernetBroadcast, EthernetType: layers.EthernetTypeARP}, &layers.ARP{AddrType: 1, Protocol: 0x800, HwAddressSize: 6, ProtAddressSize: 4, Operation: 1, SourceHwAddress: macA, SourceProtAddress: ipA, DstHwAddress: make([]byte, 6), DstProtAddress: ipB}),
		"arp back": build(t, eth(layers.EthernetTypeARP), &layers.ARP{AddrType: 1, Protocol: 0x800, HwAddressSize: 6, ProtAddressSize: 4, Operation: 2, SourceHwAddress: macA, SourceProtAddress: ipA, DstHwAddress: macB, DstProtAddress: ipB}),
		"query":    build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(5000, 53), query),
		"answer":   build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(53, 5000), answer),
		"dhcp":     build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(68, 67), dhcp),
		"offer":    build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(67, 68), offer),
		"vxlan":    build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(5000, 4789), &layers.VXLAN{ValidIDFlag: true, VNI: 42}, gopacket.Payload(ping)),
		"geneve":   build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), udp(5000, 6081), gopacket.Payload(geneve)),
		"gre":      build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolGRE), gopacket.Payload(gre)),
		"fragment": build(t, eth(layers.EthernetTypeIPv4), fragment, text("hello")),
		"stp":      raw(t, "0180c2000000 020000000001 0026 424203 0000 00 00 00 8000020000000001 00000004 8000020000000002 8001 0000 1400 0200 0f00 0000000000000000"),
		"qinq":     raw(t, head+"88a8 0064 8100 600a 88b5 00112233"),
		"unknown":  raw(t, head+"1234 00112233"),
		"lldp":     raw(t, "0180c200000e 020000000001 88cc 0207 04 020000000001 0406 05 6574683031 0602 0078 0a02 7331 0000"),
		"lacp":     raw(t, "0180c2000002 020000000001 8809 01 01 0000"),
		"mpls":     raw(t, head+"8847 00064140 45000014"),
		"llc":      raw(t, head+"0004 e0e003 00"),
		"short":    raw(t, "0200000000"),
	}
}

const line0 = "02:00:00:00:00:01 > 02:00:00:00:00:02, "

var golden = map[string]string{
	"syn":      line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.80: tcp S 1:1 win 64240, length 0",
	"vlan syn": line0 + "vlan 10, IPv4 10.0.0.1.5000 > 10.0.0.2.80: tcp S 1:1 win 64240, length 0",
	"tcp data": line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.80: tcp P. 100:105 ack 200 win 500, length 5",
	"tcp ack":  line0 + "IPv6 2001:db8::1.5000 > 2001:db8::2.80: tcp . ack 200 win 500, length 0",
	"rst":      line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.80: tcp R. 5:5 ack 9 win 0, length 0",
	"udp":      line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.5001: udp, length 5",
	"udp6":     line0 + "IPv6 2001:db8::1.5000 > 2001:db8::2.5001: udp, length 5",
	"ping":     line0 + "IPv4 10.0.0.1 > 10.0.0.2: icmp echo request, id 7, seq 1, length 64",
	"pong":     line0 + "IPv4 10.0.0.1 > 10.0.0.2: icmp echo reply, id 7, seq 1, length 9",
	"too big":  line0 + "IPv4 10.0.0.1 > 10.0.0.2: icmp 10.0.0.2 unreachable - need to frag (mtu 1400), length 37",
	"no port":  line0 + "IPv4 10.0.0.1 > 10.0.0.2: icmp 10.0.0.2 udp port 53 unreachable, length 37",
	"no host":  line0 + "IPv4 10.0.0.1 > 10.0.0.2: icmp host 10.0.0.2 unreachable, length 37",
	"ping6":    line0 + "IPv6 2001:db8::1 > 2001:db8::2: icmp6 echo request, id 7, seq 1, length 8",
	"ns":       line0 + "IPv6 2001:db8::1 > 2001:db8::2: icmp6 neighbor solicitation, who has 2001:db8::2, length 24",
	"na":       line0 + "IPv6 2001:db8::1 > 2001:db8::2: icmp6 neighbor advertisement, tgt is 2001:db8::2, length 24",
	"arp":      "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, ARP who-has 10.0.0.2 tell 10.0.0.1",
	"arp back": line0 + "ARP 10.0.0.1 is-at 02:00:00:00:00:01",
	"query":    line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.53: dns 4660+ A? example.com, length 29",
	"answer":   line0 + "IPv4 10.0.0.1.53 > 10.0.0.2.5000: dns 4660 1/0/0 A 10.0.0.2, length 56",
	"dhcp":     line0 + "IPv4 10.0.0.1.68 > 10.0.0.2.67: dhcp discover 10.0.0.2 from 02:00:00:00:00:01, length 250",
	"offer":    line0 + "IPv4 10.0.0.1.67 > 10.0.0.2.68: dhcp offer 10.0.0.2 to 02:00:00:00:00:01, length 244",
	"vxlan":    line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.4789: vxlan vni 42: " + line0 + "IPv4 10.0.0.1 > 10.0.0.2: icmp echo request, id 7, seq 1, length 64",
	"geneve":   line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.6081: geneve vni 42: " + line0 + "IPv4 10.0.0.1 > 10.0.0.2: icmp echo request, id 7, seq 1, length 64",
	"gre":      line0 + "IPv4 10.0.0.1 > 10.0.0.2: gre key 7: " + line0 + "IPv4 10.0.0.1 > 10.0.0.2: icmp echo request, id 7, seq 1, length 64",
	"fragment": line0 + "IPv4 10.0.0.1 > 10.0.0.2: udp fragment id 9 at 1480, more follow, length 5",
	"stp":      "02:00:00:00:00:01 > 01:80:c2:00:00:00, 802.3 stp 802.1d config, root 8000.02:00:00:00:00:01 cost 4, bridge 8000.02:00:00:00:00:02 port 8001",
	"qinq":     line0 + "s-vlan 100, vlan 10 p 3, probe of a switch (ethertype 0x88b5), length 4",
	"unknown":  line0 + "ethertype 0x1234, length 4",
	"lldp":     "02:00:00:00:00:01 > 01:80:c2:00:00:0e, LLDP, chassis 02:00:00:00:00:01, port eth01, name s1, length 27",
	"lacp":     "02:00:00:00:00:01 > 01:80:c2:00:00:02, LACPv1, length 4",
	"mpls":     line0 + "MPLS label 100 ttl 64, length 4",
	"llc":      line0 + "802.3 llc dsap 0xe0 ssap 0xe0 ctrl 0x03, length 4",
	"short":    "[|ether], length 5",
}

func TestGolden(t *testing.T) {
	all := frames(t)
	for name, want := range golden {
		if got := Of(all[name], len(all[name])); got != want {
			t.Errorf("%s:\n got %s\nwant %s", name, got, want)
		}
	}
	if len(golden) != len(all) {
		t.Errorf("%d lines for %d frames", len(golden), len(all))
	}
}

// A frame that was cut is told of as far as it goes, and the length is the whole's.
func TestCut(t *testing.T) {
	all := frames(t)
	for _, tc := range []struct {
		name string
		keep int
		want string
	}{
		{"tcp data", 54, golden["tcp data"]}, // all headers
		{"tcp data", 40, line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.80: [|tcp]"},
		{"tcp data", 36, line0 + "IPv4 10.0.0.1 > 10.0.0.2: [|tcp]"},
		{"tcp data", 30, line0 + "IPv4 [|ip]"},
		{"tcp ack", 50, line0 + "IPv6 [|ip6]"},
		{"udp", 40, line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.5001: [|udp]"},
		{"ping", 40, line0 + "IPv4 10.0.0.1 > 10.0.0.2: [|icmp]"},
		{"ping", 42, golden["ping"]},
		{"arp", 30, "02:00:00:00:00:01 > ff:ff:ff:ff:ff:ff, [|arp]"},
		{"query", 50, line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.53: dns [|dns]"},
		{"query", 60, line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.53: dns 4660+ [|dns], length 29"},
		{"dhcp", 100, line0 + "IPv4 10.0.0.1.68 > 10.0.0.2.67: dhcp [|dhcp]"},
		{"vxlan", 46, line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.4789: [|vxlan]"},
		{"vxlan", 60, line0 + "IPv4 10.0.0.1.5000 > 10.0.0.2.4789: vxlan vni 42: [|ether], length 98"},
		{"vlan syn", 17, line0 + "[|vlan]"},
		{"unknown", 14, golden["unknown"]},
		{"ping", 10, "[|ether], length 98"},
	} {
		b := all[tc.name]
		if got := Of(b[:tc.keep:tc.keep], len(b)); got != tc.want {
			t.Errorf("%d bytes of %s:\n got %s\nwant %s", tc.keep, tc.name, got, tc.want)
		}
	}
}

// What tcpdump finds essential in the same frames stands in our line, too.
func TestWordsOfTcpdump(t *testing.T) {
	path, err := exec.LookPath("tcpdump")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	all := frames(t)
	for name, words := range map[string]string{
		// What is taken from tcpdump's line, in groups, and looked for in ours.
		"syn":      `(\S+) > (\S+), .* (10\.0\.0\.1\.5000 > 10\.0\.0\.2\.80:) Flags \[(S)\],.*(win \d+).*(length 0)`,
		"vlan syn": `(vlan 10),.* (10\.0\.0\.1\.5000 > 10\.0\.0\.2\.80:) Flags \[(S)\],.*(win \d+).*(length 0)`,
		"tcp data": `Flags \[(P\.)\], seq (100:105), (ack 200), (win 500), (length 5)`,
		"tcp ack":  `(2001:db8::1\.5000 > 2001:db8::2\.80:) Flags \[(\.)\], (ack 200), (win 500), (length 0)`,
		"rst":      `Flags \[(R\.)\], .*(win 0), (length 0)`,
		"udp":      `(10\.0\.0\.1\.5000 > 10\.0\.0\.2\.5001: )UDP(, length 5)`,
		"udp6":     `(2001:db8::1\.5000 > 2001:db8::2\.5001: ).*UDP(, length 5)`,
		"ping":     `(10\.0\.0\.1 > 10\.0\.0\.2: )ICMP (echo request, id 7, seq 1, length 64)`,
		"pong":     `ICMP (echo reply, id 7, seq 1, length 9)`,
		"too big":  `ICMP (10\.0\.0\.2 unreachable - need to frag \(mtu 1400\), length 37)`,
		"no port":  `ICMP (10\.0\.0\.2 udp port 53 unreachable, length 37)`,
		"no host":  `ICMP (host 10\.0\.0\.2 unreachable, length 37)`,
		"ping6":    `ICMP6, (echo request, id 7, seq 1, length 8)`,
		"ns":       `ICMP6, (neighbor solicitation, who has 2001:db8::2, length 24)`,
		"na":       `ICMP6, (neighbor advertisement, tgt is 2001:db8::2, length 24)`,
		"arp":      `Request (who-has 10\.0\.0\.2 tell 10\.0\.0\.1)`,
		"arp back": `Reply (10\.0\.0\.1 is-at 02:00:00:00:00:01)`,
		"query":    `(4660\+ A\? example\.com)\. \((29)\)`,
		"answer":   `(4660 1/0/0 A 10\.0\.0\.2) \((56)\)`,
		"dhcp":     `BOOTP/DHCP, Request (from 02:00:00:00:00:01, length 250)`,
		"vxlan":    `VXLAN,.* (vni 42)\s+(\S+ > \S+), .* (10\.0\.0\.1 > 10\.0\.0\.2: )ICMP (echo request, id 7, seq 1, length 64)`,
		"geneve":   `Geneve,.* vni 0x2a.* ICMP (echo request, id 7, seq 1, length 64)`,
		"gre":      `GREv0,.* key=0x7,.* ICMP (echo request, id 7, seq 1, length 64)`,
		"stp":      `STP 802\.1d, Config`,
		"qinq":     `vlan 100, .*(vlan 10),? (p 3)`,
	} {
		file := filepath.Join(t.TempDir(), "x.pcapng")
		f, err := os.Create(file)
		if err != nil {
			t.Fatal(err)
		}
		w := capture.NewWriter(f, capture.Options{})
		w.Write(&capture.Packet{Time: time.Unix(1, 0), Data: all[name]})
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		f.Close()
		cmd := exec.Command(path, "-n", "-e", "-t", "-K", "-r", file)
		out, err := cmd.Output()
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		theirs := strings.Join(strings.Fields(string(out)), " ")
		found := regexp.MustCompile(words).FindStringSubmatch(theirs)
		if found == nil {
			t.Errorf("%s: tcpdump says %s, which is not %s", name, theirs, words)
			continue
		}
		ours := Of(all[name], len(all[name]))
		for _, word := range found[1:] {
			if !strings.Contains(ours, word) {
				t.Errorf("%s: %q is not in %s", name, word, ours)
			}
		}
	}
}

// A packet cannot steer the terminal, nor make a line endless.
func TestHostileText(t *testing.T) {
	b := raw(t, "0180c200000e 020000000001 88cc")
	for range 40 {
		b = append(append(b, 0x0a, 60), bytes.Repeat([]byte("\x1b[2J\r\n\x07\xff\xc3\x28"), 6)...)
	}
	got := Of(b, len(b))
	if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) || len(got) > maxLine+8 {
		t.Errorf("%d bytes: %q", len(got), got)
	}
	deep := frames(t)["ping"]
	for range 200 {
		deep = build(t, eth(layers.EthernetTypeIPv4), ip4(layers.IPProtocolUDP), &layers.UDP{DstPort: 4789}, &layers.VXLAN{ValidIDFlag: true, VNI: 1}, gopacket.Payload(deep))
	}
	if got := Of(deep, len(deep)); strings.Count(got, "vxlan") != maxDepth {
		t.Error(got)
	}
}

func FuzzOf(f *testing.F) {
	for _, b := range frames(f) {
		f.Add(b, len(b))
		f.Add(b[:len(b)/2], len(b))
	}
	message, _ := response(f)
	f.Add(dnsFrame(f, message), 200)
	f.Fuzz(func(t *testing.T, b []byte, wireLen int) {
		// len == cap: a read behind the end is a panic.
		got := Of(bytes.Clone(b)[:len(b):len(b)], wireLen)
		if got == "" || len(got) > maxLine+8 {
			t.Errorf("%d bytes: %q", len(got), got)
		}
		if strings.ContainsFunc(got, func(r rune) bool { return !unicode.IsPrint(r) }) {
			t.Errorf("%q", got)
		}
	})
}

func BenchmarkOf(b *testing.B) {
	all := frames(b)
	for _, name := range []string{"syn", "ping", "arp", "answer", "vxlan"} {
		b.Run(strings.ReplaceAll(name, " ", "-"), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Of(all[name], len(all[name]))
			}
		})
	}
}
