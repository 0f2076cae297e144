package craft

import (
	"bytes"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"vswitch/frame"
)

const macs = "eth_src=02:00:00:00:00:01 eth_dst=02:00:00:00:00:02 "

func make1(t *testing.T, words string) Frame {
	t.Helper()
	s, err := Parse(strings.Fields(words))
	if err != nil {
		t.Fatalf("%s: %v", words, err)
	}
	f, err := s.Frame()
	if err != nil {
		t.Fatalf("%s: %v", words, err)
	}
	return f
}

// dissect reads a frame as strictly as gopacket can.
func dissect(t *testing.T, b []byte) gopacket.Packet {
	t.Helper()
	p := gopacket.NewPacket(b, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil && !strings.Contains(e.Error().Error(), "Unable to decode") {
		t.Fatalf("%x: %v", b, e.Error())
	}
	return p
}

// checksums fails the test unless to make the frame again, out of what it is dissected
// into, changes nothing.
func checksums(t *testing.T, b []byte) {
	t.Helper()
	p := dissect(t, b)
	all := p.Layers()
	var again []gopacket.SerializableLayer
	for _, l := range all {
		sl, ok := l.(gopacket.SerializableLayer)
		if !ok {
			sl = gopacket.Payload(l.LayerContents()) // of a type that gopacket does not know
		}
		if c, ok := l.(interface {
			SetNetworkLayerForChecksum(gopacket.NetworkLayer) error
		}); ok {
			c.SetNetworkLayerForChecksum(p.NetworkLayer())
		}
		again = append(again, sl)
		if tl := p.TransportLayer(); tl != nil && l == gopacket.Layer(tl) {
			again = append(again, gopacket.Payload(tl.LayerPayload())) // not DNS for a port 53
			break
		}
	}
	buf := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, again...); err != nil {
		t.Fatal(err)
	}
	made := buf.Bytes()[:min(len(buf.Bytes()), len(b))] // gopacket pads to 60 bytes
	if !bytes.HasPrefix(b, made) {
		t.Errorf("a checksum or length is wrong:\n%x\n%x", b, made)
	}
}

func TestWords(t *testing.T) {
	for _, tc := range []struct{ words, want string }{
		{"", "Ethernet len=60 type=0x88b6"},
		{"len=20", "Ethernet len=20 type=0x88b6"}, // shorter than a wire takes, if that is what was asked for
		{"eth_type=0x1234 len=100", "Ethernet len=100 type=0x1234"},
		{"vlan=10", "Ethernet vlan=10/0 len=60 type=0x88b6"},
		{"dl_vlan=10 dl_vlan_pcp=5", "Ethernet vlan=10/5 len=60 type=0x88b6"},
		{"ip_src=10.0.0.1 ip_dst=10.0.0.2 proto=tcp port=80", "10.0.0.1>10.0.0.2 ttl=64 tcp 49152>80 S"},
		{"ip_src=10.0.0.1,ip_dst=10.0.0.2,tcp,tcp_dst=80", "10.0.0.1>10.0.0.2 ttl=64 tcp 49152>80 S"},
		{"tcp,nw_src=10.0.0.1,nw_dst=10.0.0.2,tp_dst=80,tp_src=9,flags=syn,ack", "10.0.0.1>10.0.0.2 ttl=64 tcp 9>80 SA"},
		{"tcp flags=none", "192.0.2.1>192.0.2.2 ttl=64 tcp 49152>9 "},
		{"port=80", "192.0.2.1>192.0.2.2 ttl=64 tcp 49152>80 S"},
		{"udp_dst=53 ip_dst=10.0.0.2", "192.0.2.1>10.0.0.2 ttl=64 udp 49152>53"},
		{"udp len=1514", "192.0.2.1>192.0.2.2 ttl=64 udp 49152>9 len=1514"},
		{"udp vlan=7 len=1518", "vlan=7/0 192.0.2.1>192.0.2.2 ttl=64 udp 49152>9 len=1518"},
		{"icmp ip_dst=10.0.0.2 ttl=1 tos=0xb8", "192.0.2.1>10.0.0.2 ttl=1 tos=184 icmp 8/0"},
		{"icmp_type=3 icmp_code=4", "192.0.2.1>192.0.2.2 ttl=64 icmp 3/4"},
		{"ip_dst=10.0.0.2 proto=89", "192.0.2.1>10.0.0.2 ttl=64 proto=89"},
		{"ip_src=fd00::1 ip_dst=fd00::2", "fd00::1>fd00::2 ttl=64 icmp6 128/0"},
		{"ipv6_src=fd00::1 ipv6_dst=fd00::2 proto=udp port=53 len=200", "fd00::1>fd00::2 ttl=64 udp 49152>53 len=200"},
		{"icmp6", "2001:db8::1>2001:db8::2 ttl=64 icmp6 128/0"},
		{"tcp6 port=443", "2001:db8::1>2001:db8::2 ttl=64 tcp 49152>443 S"},
		{"eth_type=0x86dd proto=tcp", "2001:db8::1>2001:db8::2 ttl=64 tcp 49152>9 S"},
		{"eth_type=0x0800", "192.0.2.1>192.0.2.2 ttl=64 icmp 8/0"},
		{"arp arp_spa=10.0.0.1 arp_tpa=10.0.0.2", "arp 1 10.0.0.1 02:00:00:00:00:01 10.0.0.2 00:00:00:00:00:00"},
		{"arp_op=reply", "arp 2 192.0.2.1 02:00:00:00:00:01 192.0.2.2 02:00:00:00:00:02"},
		{"arp_op=1 arp_sha=02:00:00:00:00:09", "arp 1 192.0.2.1 02:00:00:00:00:09 192.0.2.2 00:00:00:00:00:00"},
	} {
		f := make1(t, macs+tc.words)
		if f.Offload != (frame.Offload{}) {
			t.Errorf("%s: offload state %+v", tc.words, f.Offload)
		}
		checksums(t, f.Data)
		if got := describe(dissect(t, f.Data)); !strings.Contains(got, tc.want) {
			t.Errorf("%s: %s, want %s", tc.words, got, tc.want)
		}
	}
}

func TestMulticastDestinationFollowsFromTheAddress(t *testing.T) {
	for words, want := range map[string]string{
		"ip_dst=224.0.0.251 udp":  "01:00:5e:00:00:fb",
		"ip_dst=239.255.1.2 udp":  "01:00:5e:7f:01:02",
		"ip_dst=ff02::1:ff00:1":   "33:33:ff:00:00:01",
		"eth_dst=broadcast arp":   "ff:ff:ff:ff:ff:ff",
		"dl_dst=02:00:00:00:00:9": "",
	} {
		s, err := Parse(strings.Fields("eth_src=02:00:00:00:00:01 " + words))
		if want == "" {
			if err == nil {
				t.Errorf("%s: taken", words)
			}
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		f, err := s.Frame()
		if err != nil || net.HardwareAddr(f.Data[:6]).String() != want {
			t.Errorf("%s: to %x, %v, want %s", words, f.Data, err, want)
		}
	}
}

// A super-frame finished in software is the segments that it stands for.
func TestSuperFrame(t *testing.T) {
	pool, err := frame.NewPool(4)
	if err != nil {
		t.Fatal(err)
	}
	defer pool.Close()
	for _, tc := range []struct {
		words   string
		seg     int
		payload int
	}{
		{"super=10000", 1460, 10000},
		{"super=65000 vlan=10 mss=1000", 1000, 65000},
		{"super=2881 ip_src=fd00::1 ip_dst=fd00::2", 1440, 2881},
	} {
		made := make1(t, macs+tc.words)
		f, out := pool.Get(), pool.Get()
		f.Set(made.Data)
		f.Offload = made.Offload
		f.PopTag()
		if err := f.Check(); err != nil {
			t.Fatalf("%s: %v", tc.words, err)
		}
		var g frame.Segmenter
		if err := g.Start(f); err != nil {
			t.Fatalf("%s: %v", tc.words, err)
		}
		payload, n := 0, 0
		for g.Next(out) {
			checksums(t, out.Bytes())
			payload += len(dissect(t, out.Bytes()).TransportLayer().LayerPayload())
			n++
		}
		if payload != tc.payload || n != (tc.payload+tc.seg-1)/tc.seg {
			t.Errorf("%s: %d segments with %d bytes", tc.words, n, payload)
		}
		pool.Release(f)
		pool.Release(out)
	}
}

func TestRefusals(t *testing.T) {
	for words, want := range map[string]string{
		"eth_scr=02:00:00:00:00:01":             `"eth_scr": there is no such word; there are eth_src, eth_dst`,
		"eth_src=2:0":                           "eth_src=2:0: a MAC address such as",
		"vlan=4096":                             "vlan=4096: a number from 0 to 4095",
		"port=70000":                            "port=70000: a number from 0 to 65535",
		"port=":                                 "port: a value is missing",
		"port":                                  "port: a value is missing",
		"pcp=3":                                 "pcp=3: is in a tag: give vlan=",
		"port=80 port=81":                       "is given twice",
		"port=80 tp_dst=81":                     "is given twice",
		"ip_src=10.0.0.1 ip_dst=fd00::1":        "ip_dst=fd00::1: is of IPv6, and other words are of IPv4",
		"ip_dst=10.0.0.256":                     "ip_dst=10.0.0.256: an address such as",
		"ip_dst=fe80::1%eth0":                   "an address such as",
		"icmp ip_dst=fd00::1":                   "ip_dst=fd00::1: is of IPv6",
		"proto=icmp6 ip_dst=10.0.0.1":           "ip_dst=10.0.0.1: is of IPv4",
		"proto=1 ip_dst=fd00::1":                "in IPv6 it is icmp6",
		"proto=58 ip_dst=10.0.0.1":              "in IPv4 it is icmp",
		"udp flags=syn":                         "flags=syn: is TCP's",
		"flags=sin":                             "flags=sin: TCP flags are wanted",
		"tcp udp":                               "udp: another protocol was given before",
		"tcp udp_dst=5":                         "udp_dst: another protocol",
		"icmp port=80":                          "port=80: is TCP's and UDP's",
		"tcp icmp_type=8":                       "icmp_type=8: is ICMP's",
		"arp ttl=3":                             "ttl=3: a frame is IP or ARP",
		"arp ip_dst=10.0.0.1":                   "IP or ARP",
		"eth_type=0x0806 ip_dst=10.0.0.1":       "eth_type=0x0806: other words make it 0x0800",
		"eth_type=0x8100":                       "eth_type=0x8100: is a tag's",
		"eth_type=5":                            "a number from 0x600 to 0xffff",
		"len=10":                                "len=10: a number from 14",
		"tcp len=50":                            "len=50: the headers alone take 54 bytes",
		"udp len=65553":                         "len=65553: an IP packet has at most 65535 bytes",
		"super=1000":                            "super=1000: must be more than the mss, 1460 bytes",
		"super=65535":                           "super=65535: an IP packet has at most 65535 bytes, which leaves 65495 here",
		"super=3000 len=4000":                   "len=4000: a super-frame's length follows",
		"mss=1000":                              "mss=1000: is for a super-frame",
		"super=3000 udp":                        "super=3000: is TCP's",
		"arp_op=ask":                            "arp_op=ask: request, reply",
		"arp_spa=fd00::1":                       "an IPv4 address",
		",syn":                                  `"syn": there is no such word`,
		"=3":                                    "no such word",
		"ip_dst=" + strings.Repeat("9", 100000): "…: an address",
	} {
		if !strings.HasPrefix(words, "eth_src") {
			words = macs + words
		}
		s, err := Parse(strings.Fields(words))
		if err == nil {
			_, err = s.Frame()
		}
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) || len(err.Error()) > 400 {
			t.Errorf("%.40s: %.500v, want %q", words, err, want)
		}
	}
	for words, want := range map[string]string{
		"eth_dst=broadcast":         "eth_src: is missing",
		"eth_src=02:00:00:00:00:01": "eth_dst: is missing: give the MAC address it goes to, or eth_dst=broadcast",
	} {
		s, err := Parse(strings.Fields(words))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Frame(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", words, err)
		}
	}
}

// Whatever the words, what comes is a frame that the switch takes, or an *Error.
func FuzzWords(f *testing.F) {
	f.Add("ip_src=10.0.0.1 ip_dst=10.0.0.2 proto=tcp port=80 vlan=10 pcp=3")
	f.Add("len=20")
	f.Add("tcp,nw_src=10.0.0.1,flags=syn,ack super=5000")
	f.Add("arp_op=2 arp_spa=1.2.3.4 len=1500")
	f.Add("icmp6 icmp_type=135 len=0x500 ttl=0")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Parse(strings.Fields(text))
		var e *Error
		if err != nil {
			if !errors.As(err, &e) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if s.NeedsSource() {
			s.SetSource(net.HardwareAddr{2, 0, 0, 0, 0, 1})
		}
		if s.NeedsDestination() {
			s.SetDestination(net.HardwareAddr{2, 0, 0, 0, 0, 2})
		}
		made, err := s.Frame()
		if err != nil {
			if !errors.As(err, &e) {
				t.Fatalf("%q: %v", text, err)
			}
			return
		}
		if n := len(made.Data); n < frame.EthLen || n > frame.MaxLen || s.length > 0 && n != s.length {
			t.Fatalf("%q: %d bytes", text, n)
		}
		given := &made.Offload
		if s.super > 0 && (given.Flags != frame.NeedsCsum || int(given.CsumStart)+int(given.CsumOffset)+2 > len(made.Data)) {
			t.Fatalf("%q: %+v", text, made.Offload)
		}
	})
}
