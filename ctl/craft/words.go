package craft

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	"vswitch/frame"
)

// Spec is what words say of a frame. Parse makes one, Frame turns it into a frame.
type Spec struct {
	said map[string]string // by the word's own name: what was given, for errors

	src, dst     net.HardwareAddr // nil: not said
	vlan, pcp    int              // -1: not said
	etherType    int              // -1: not said
	ipSrc, ipDst netip.Addr       // invalid: not said
	proto        int              // -1: not said
	port, from   int              // -1: not said
	ttl, tos     int              // -1: not said
	length       int              // of the whole frame; 0: not said
	flags        int              // -1: not said
	super, mss   int              // 0: not said
	icmp, code   int              // -1: not said
	arp          bool
	arpOp        int // -1: not said
	spa, tpa     netip.Addr
	sha, tha     net.HardwareAddr
	version      int // 4 or 6, of a word such as tcp6; 0: not said
}

// Numbers of protocols, from IANA's registry.
const (
	protoICMP  = 1
	protoTCP   = 6
	protoUDP   = 17
	protoICMP6 = 58
)

// word is one that may be given as word=value.
type word struct {
	name, also string // also: other spellings, OVS's
	help       string
	set        func(s *Spec, value string) (allowed string) // "": it is well
}

var words = []word{
	{"eth_src", "dl_src", "the sender's MAC address; default: the one that was learned at the port", func(s *Spec, v string) string { return mac(v, &s.src) }},
	{"eth_dst", "dl_dst", "the MAC address it goes to, or the word broadcast", func(s *Spec, v string) string { return mac(v, &s.dst) }},
	{"vlan", "dl_vlan vlan_vid", "of its tag, 0 to 4095; default: no tag", func(s *Spec, v string) string { return number(v, 0, 4095, &s.vlan) }},
	{"pcp", "dl_vlan_pcp vlan_pcp", "priority of its tag, 0 to 7; default: 0", func(s *Spec, v string) string { return number(v, 0, 7, &s.pcp) }},
	{"eth_type", "dl_type", "EtherType; default: what the other words make it, or 0x88b6", func(s *Spec, v string) string { return number(v, 0x600, 0xffff, &s.etherType) }},
	{"ip_src", "nw_src ipv6_src", "default: 192.0.2.1 or 2001:db8::1", func(s *Spec, v string) string { return address(v, &s.ipSrc) }},
	{"ip_dst", "nw_dst ipv6_dst", "default: 192.0.2.2 or 2001:db8::2", func(s *Spec, v string) string { return address(v, &s.ipDst) }},
	{"proto", "nw_proto ip_proto", "tcp, udp, icmp, icmp6, or a number; default: icmp or icmp6, with a port tcp", protocol},
	{"port", "dst_port tp_dst tcp_dst udp_dst", "that it goes to; default: 9", func(s *Spec, v string) string { return number(v, 0, 65535, &s.port) }},
	{"src_port", "tp_src tcp_src udp_src", "that it comes from; default: 49152", func(s *Spec, v string) string { return number(v, 0, 65535, &s.from) }},
	{"flags", "tcp_flags", "of TCP: syn ack fin rst psh urg ece cwr, with + between them; default: syn", tcpFlags},
	{"ttl", "nw_ttl", "default: 64", func(s *Spec, v string) string { return number(v, 0, 255, &s.ttl) }},
	{"tos", "nw_tos", "the whole byte, DSCP and ECN; default: 0", func(s *Spec, v string) string { return number(v, 0, 255, &s.tos) }},
	{"icmp_type", "icmpv6_type", "default: an echo request", func(s *Spec, v string) string { return number(v, 0, 255, &s.icmp) }},
	{"icmp_code", "icmpv6_code", "default: 0", func(s *Spec, v string) string { return number(v, 0, 255, &s.code) }},
	{"len", "packet_size packet_length", "of the frame in bytes, its tag included; default: as short as it can be, 60 at least", func(s *Spec, v string) string { return number(v, frame.EthLen, frame.MaxLen, &s.length) }},
	{"super", "", "a TCP super-frame (TSO) with so many bytes of payload", func(s *Spec, v string) string { return number(v, 1, 65535, &s.super) }},
	{"mss", "", "payload of each segment of a super-frame; default: 1460, in IPv6 1440", func(s *Spec, v string) string { return number(v, 1, 65535, &s.mss) }},
	{"arp_op", "", "request, reply, or a number; default: request", arpOperation},
	{"arp_spa", "", "the address that says so; default: 192.0.2.1", func(s *Spec, v string) string { s.arp = true; return address4(v, &s.spa) }},
	{"arp_tpa", "", "the address that is asked for; default: 192.0.2.2", func(s *Spec, v string) string { s.arp = true; return address4(v, &s.tpa) }},
	{"arp_sha", "", "default: eth_src", func(s *Spec, v string) string { s.arp = true; return mac(v, &s.sha) }},
	{"arp_tha", "", "default: 0 in a request, eth_dst in a reply", func(s *Spec, v string) string { s.arp = true; return mac(v, &s.tha) }},
}

// bare are the words that stand alone, as OVS has them.
var bare = map[string]struct{ proto, version int }{
	"ip": {-1, 4}, "ipv4": {-1, 4}, "ipv6": {-1, 6}, "tcp": {protoTCP, 0}, "tcp6": {protoTCP, 6}, "udp": {protoUDP, 0}, "udp6": {protoUDP, 6},
	"icmp": {protoICMP, 4}, "icmp4": {protoICMP, 4}, "icmp6": {protoICMP6, 6}, "icmpv6": {protoICMP6, 6},
}

// Words returns the words there are, each as it is completed in a shell: those that
// take a value end with "=".
func Words() []string {
	var all []string
	for _, w := range words {
		all = append(all, w.name+"=")
	}
	return append(all, "tcp", "udp", "icmp", "icmp6", "arp")
}

// IsWord reports whether a word without a value is one that stands alone.
func IsWord(name string) bool {
	_, ok := bare[name]
	return ok || name == "arp"
}

// Help says what a word of Words means, in a line.
func Help(name string) string {
	for _, w := range words {
		if w.name+"=" == name {
			return w.help
		}
	}
	return ""
}

// Parse reads words, each name=value or one that stands alone; several may be joined by
// commas, as OVS has them. An error is an *Error.
func Parse(args []string) (*Spec, error) {
	s := &Spec{
		said: map[string]string{}, vlan: -1, pcp: -1, etherType: -1, proto: -1, port: -1, from: -1, ttl: -1, tos: -1, flags: -1,
		icmp: -1, code: -1, arpOp: -1,
	}
	for _, arg := range split(args) {
		name, value, hasValue := strings.Cut(arg, "=")
		if !hasValue {
			if err := s.alone(name); err != nil {
				return nil, err
			}
			continue
		}
		i := slices.IndexFunc(words, func(w word) bool {
			return w.name == name || slices.Contains(strings.Fields(w.also), name)
		})
		if i < 0 {
			return nil, unknown(name)
		}
		w := words[i]
		if _, twice := s.said[w.name]; twice {
			return nil, &Error{Word: name, Value: value, Allowed: "is given twice"}
		}
		s.said[w.name] = value
		if err := s.implied(name); err != nil {
			return nil, err
		}
		if allowed := w.set(s, value); allowed != "" {
			if value == "" {
				allowed = "a value is missing: " + allowed
			}
			return nil, &Error{Word: name, Value: value, Allowed: allowed}
		}
	}
	return s, s.check()
}

// split takes words apart that are joined by commas. What follows a TCP flag may be
// another.
func split(args []string) (all []string) {
	for _, arg := range args {
		for i, part := range strings.Split(arg, ",") {
			_, isFlag := flagBits[part]
			switch last := len(all) - 1; {
			case i > 0 && isFlag && last >= 0 && (strings.HasPrefix(all[last], "flags=") || strings.HasPrefix(all[last], "tcp_flags=")):
				all[last] += "+" + part
			case part != "" || len(arg) == 0:
				all = append(all, part)
			}
		}
	}
	return all
}

func unknown(name string) error {
	if len(name) > 32 {
		name = name[:32] + "…"
	}
	var names []string
	for _, w := range words {
		names = append(names, w.name)
	}
	return &Error{Word: fmt.Sprintf("%q", name), Allowed: "there is no such word; there are " + strings.Join(names, ", ") + ", and alone tcp, udp, icmp, icmp6, arp"}
}

// alone takes a word without a value.
func (s *Spec) alone(name string) error {
	if name == "arp" {
		s.arp = true
		return nil
	}
	b, ok := bare[name]
	switch {
	case !ok && slices.ContainsFunc(words, func(w word) bool { return w.name == name || slices.Contains(strings.Fields(w.also), name) }):
		return &Error{Word: name, Allowed: "a value is missing, such as " + name + "=…"}
	case !ok:
		return unknown(name)
	case b.proto >= 0 && s.proto >= 0 && s.proto != b.proto:
		return &Error{Word: name, Allowed: "another protocol was given before"}
	}
	if b.proto >= 0 {
		s.proto = b.proto
	}
	if b.version != 0 {
		s.version = b.version
	}
	return nil
}

// implied takes the protocol that a spelling of OVS's names, such as udp_dst.
func (s *Spec) implied(name string) error {
	proto, _, ok := strings.Cut(name, "_")
	b := bare[proto]
	switch {
	case !ok || proto != "tcp" && proto != "udp" && proto != "icmpv6":
		return nil
	case s.proto >= 0 && s.proto != b.proto:
		return &Error{Word: name, Allowed: "another protocol was given before"}
	}
	s.proto = b.proto
	return nil
}

func number(v string, least, most int, to *int) string {
	n, err := strconv.ParseUint(v, 0, 32)
	if err != nil || int(n) < least || int(n) > most {
		if least >= 0x600 {
			return fmt.Sprintf("a number from %#x to %#x is wanted", least, most)
		}
		return fmt.Sprintf("a number from %d to %d is wanted", least, most)
	}
	*to = int(n)
	return ""
}

func mac(v string, to *net.HardwareAddr) string {
	if v == "broadcast" {
		*to = net.HardwareAddr{255, 255, 255, 255, 255, 255}
		return ""
	}
	m, err := net.ParseMAC(v)
	if err != nil || len(m) != 6 {
		return "a MAC address such as 02:00:00:00:00:01 is wanted, or broadcast"
	}
	*to = m
	return ""
}

func address(v string, to *netip.Addr) string {
	a, err := netip.ParseAddr(v)
	if err != nil || a.Zone() != "" {
		return "an address such as 10.0.0.1 or 2001:db8::1 is wanted"
	}
	*to = a.Unmap()
	return ""
}

func address4(v string, to *netip.Addr) string {
	a, err := netip.ParseAddr(v)
	if err != nil || !a.Is4() {
		return "an IPv4 address such as 10.0.0.1 is wanted"
	}
	*to = a
	return ""
}

func protocol(s *Spec, v string) string {
	if b, ok := bare[v]; ok && b.proto >= 0 {
		s.proto = b.proto
		if b.version != 0 {
			s.version = b.version
		}
		return ""
	}
	if number(v, 0, 255, &s.proto) != "" {
		return "tcp, udp, icmp, icmp6, or a number from 0 to 255 is wanted"
	}
	return ""
}

func arpOperation(s *Spec, v string) string {
	s.arp = true
	switch v {
	case "request":
		s.arpOp = 1
	case "reply":
		s.arpOp = 2
	default:
		if number(v, 0, 65535, &s.arpOp) != "" {
			return "request, reply, or a number from 0 to 65535 is wanted"
		}
	}
	return ""
}

// flagBits are TCP's, RFC 9293 section 3.1.
var flagBits = map[string]int{"fin": 1, "syn": 2, "rst": 4, "psh": 8, "ack": 16, "urg": 32, "ece": 64, "cwr": 128}

func tcpFlags(s *Spec, v string) string {
	const allowed = "TCP flags are wanted, such as syn+ack: syn ack fin rst psh urg ece cwr, or none"
	bits := 0
	if v != "none" {
		for _, name := range strings.FieldsFunc(v, func(r rune) bool { return r == '+' || r == '|' }) {
			bit, ok := flagBits[name]
			if !ok {
				return allowed
			}
			bits |= bit
		}
		if bits == 0 {
			return allowed
		}
	}
	s.flags = bits
	return ""
}

// NeedsSource reports whether the words say no source MAC address: SetSource must.
func (s *Spec) NeedsSource() bool { return s.src == nil }

// SetSource gives the frame its source MAC address.
func (s *Spec) SetSource(m net.HardwareAddr) { s.src = slices.Clone(m) }

// NeedsDestination reports whether the words say no destination MAC address, and it
// does not follow from an IP multicast address: SetDestination must.
func (s *Spec) NeedsDestination() bool { return s.dst == nil && multicast(s.ipDst) == nil }

// SetDestination gives the frame its destination MAC address.
func (s *Spec) SetDestination(m net.HardwareAddr) { s.dst = slices.Clone(m) }

// Destination returns the IP address the frame goes to; invalid: it is not said.
func (s *Spec) Destination() netip.Addr { return s.ipDst }

// VLAN returns the VLAN of the frame's tag; ok is false when it has none.
func (s *Spec) VLAN() (vid int, ok bool) { return s.vlan, s.vlan >= 0 }

// multicast returns the MAC address of an IP multicast address (RFC 1112, section 6.4;
// RFC 2464, section 7), or nil.
func multicast(a netip.Addr) net.HardwareAddr {
	switch {
	case !a.IsMulticast():
	case a.Is4():
		b := a.As4()
		return net.HardwareAddr{1, 0, 0x5e, b[1] & 0x7f, b[2], b[3]}
	default:
		b := a.As16()
		return net.HardwareAddr{0x33, 0x33, b[12], b[13], b[14], b[15]}
	}
	return nil
}
