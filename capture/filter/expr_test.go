package filter

import (
	"fmt"
	"math/rand/v2"
	"strings"
)

// grammar makes expressions that tcpdump takes.
type grammar struct{ *rand.Rand }

func (g grammar) oneOf(list ...string) string { return pick(g.Rand, list) }

// expr makes an expression of at most depth levels.
func (g grammar) expr(depth int) string {
	if depth == 0 || g.IntN(3) == 0 {
		return g.primitive()
	}
	switch g.IntN(8) {
	case 0:
		return g.oneOf("not ", "! ", "!") + g.primitive()
	case 1:
		return g.oneOf("not ", "!") + "(" + g.expr(depth-1) + ")"
	case 2:
		return "(" + g.expr(depth-1) + ")" + g.op() + g.expr(depth-1)
	case 3:
		return g.ids()
	}
	return g.expr(depth-1) + g.op() + g.expr(depth-1)
}

func (g grammar) op() string { return g.oneOf(" and ", " or ", " && ", " || ") }

// ids makes primitives whose ids share qualifiers.
func (g grammar) ids() string {
	head, id := "host", g.ip4
	switch g.IntN(5) {
	case 0:
		head, id = g.oneOf("", "tcp ", "udp ")+g.dir()+"port", g.port
	case 1:
		head, id = g.oneOf("ip", "ip6", "ether")+" proto", g.number
	case 2:
		head, id = "ether "+g.dir()+"host", g.mac
	case 3:
		head, id = g.dir()+"host", g.ip6
	}
	a, b, c := id(), id(), id()
	switch g.IntN(4) {
	case 0:
		return head + " " + a + g.op() + b + g.op() + c
	case 1:
		return head + " (" + a + g.op() + b + ")" + g.op() + c
	case 2:
		return head + " " + a + g.op() + "not " + b
	}
	return head + " " + a + g.op() + g.primitive()
}

func (g grammar) dir() string {
	return g.oneOf("", "", "src ", "dst ", "src or dst ", "dst or src ", "src and dst ")
}

func (g grammar) ip4() string    { return pick(g.Rand, someIP4s) }
func (g grammar) ip6() string    { return pick(g.Rand, someIP6s) }
func (g grammar) mac() string    { return pick(g.Rand, someMACs) }
func (g grammar) port() string   { return fmt.Sprint(pick(g.Rand, somePorts)) }
func (g grammar) number() string { return fmt.Sprint(pick(g.Rand, someProtos)) }

func (g grammar) primitive() string {
	switch g.IntN(21) {
	case 0, 1:
		return g.oneOf("ip", "ip6", "arp", "rarp", "tcp", "udp", "sctp", "icmp", "icmp6", "igmp", "igrp", "pim",
			"vrrp", "carp", "esp", "ah", "stp", "iso", "ipx", "netbeui", "atalk", "aarp", "decnet", "lat", "sca",
			"moprc", "mopdl", "clnp", "esis", "isis")
	case 2, 3:
		return g.oneOf("", "", "ip ", "arp ", "rarp ") + g.dir() + "host " + g.ip4()
	case 4:
		return g.oneOf("", "ip6 ") + g.dir() + "host " + g.ip6()
	case 5:
		return g.oneOf("src ", "dst ") + g.oneOf(g.ip4(), g.ip6())
	case 6:
		return g.oneOf("", "ip ", "arp ") + g.dir() + "net " + g.oneOf("10", "10.0", "10.1.2", "192.168.1", "10.0.0.0/8",
			"10.0.0.0/30", "10.1/16", "0.0.0.0/0", "224.0.0.0/4", "10.0.0.0 mask 255.255.0.0", "192.168.1.1 mask 255.255.255.255",
			"10.0.0.0 mask 255.0.255.0", "224.0.0.251")
	case 7:
		return g.oneOf("", "ip6 ") + g.dir() + "net " + g.oneOf("2001:db8::/32", "2001:db8::/33", "fe80::/10", "::/0", "2001:db8::1",
			"2001:db8::/127", "ff00::/8", "2001:db8:0:1::/64")
	case 8, 9:
		return g.oneOf("", "", "tcp ", "udp ", "sctp ") + g.dir() + "port " + g.oneOf(g.port(), g.port(), "domain", "0x50", "0120")
	case 10:
		return g.oneOf("", "tcp ", "udp ", "sctp ") + g.dir() + "portrange " + g.oneOf("6000-6008", "1-100", "80", "6004-6000", "0-65535", "22-domain")
	case 11:
		return g.oneOf("ip proto ", "ip6 proto ", "proto ") + g.oneOf(g.number(), `\tcp`, `\udp`, `\icmp`, "ospf", "gre", "ipv6-icmp", "ipv6-frag")
	case 12:
		return "ether proto " + g.oneOf("0x800", `\ip`, `\arp`, `\stp`, `\ipx`, `\atalk`, `\aarp`, "0x42", "6", "0xaa", "0xfe", "0xe0",
			"loopback", "0x88cc", "0x8100", "1500", "1501", `\iso`)
	case 13:
		return "ether " + g.dir() + "host " + g.mac()
	case 14:
		return g.oneOf("broadcast", "multicast", "ether broadcast", "ether multicast", "ip multicast", "ip6 multicast", "ip broadcast")
	case 15:
		return g.oneOf("less ", "greater ") + g.oneOf("60", "64", "80", "20")
	case 16:
		return g.oneOf("vlan", "vlan 5", "vlan 1", "vlan 100", "vlan 0", "vlan (5)")
	case 17:
		return g.oneOf("tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn", "tcp[13] & 2 != 0", "tcp[tcpflags] == tcp-ack",
			"icmp[icmptype] = icmp-echo", "icmp[icmptype] != icmp-echoreply", "icmp6[icmp6type] = icmp6-neighborsolicit",
			"icmp6[0] = 128", "ip[6:2] & 0x1fff = 0", "ip[6:2] & 0x2000 != 0", "ip[0] & 0xf > 5", "ether[0] & 1 = 1",
			"ip[8] < 64", "udp[4:2] > 10", "ip6[6] = 44", "arp[6:2] = 1", "ether[12:2] <= 1500", "ip[12:4] = 0x0a000001",
			"sctp[0:2] = 80", "iso proto 0x81", `iso proto \esis`, "len - 14 = ip[2:2]", "igmp[0] = 0", "vrrp[1] > 2")
	}
	return g.arith(2) + " " + g.oneOf("=", "!=", "<", ">", "<=", ">=", "==") + " " + g.arith(1)
}

// arith makes arithmetic, and stays clear of where tcpdump's differs on purpose (see
// docs/filters.md). There, how tightly % and ^ bind is not as in C; bytes on the right
// of an operator are read without looking whether the frame has that protocol; and a
// division by ip[0] is one by zero.
func (g grammar) arith(depth int) string {
	if depth == 0 || g.IntN(3) == 0 {
		if g.IntN(4) == 0 {
			return g.free()
		}
		proto := g.oneOf("ip", "ip6", "tcp", "udp", "icmp", "arp", "icmp6")
		index := g.oneOf("0", "1", "2", "6", "9", "12", "13", "20", "40")
		if depth > 0 && g.IntN(3) == 0 {
			index = g.arith(depth - 1)
		}
		return proto + "[" + index + g.size() + "]"
	}
	a, b := g.arith(depth-1), g.free()
	switch op := g.oneOf("+", "-", "*", "&", "|", "%", "^", "/", "<<", ">>"); op {
	case "/", "%":
		return "((" + a + ") " + op + " (" + g.oneOf("1", "3", "16", "ether[5]", "len") + "))"
	case "<<", ">>":
		return "(" + a + " " + op + " " + g.oneOf("0", "1", "4", "31", "ether[5]") + ")"
	case "^":
		return "((" + a + ") ^ (" + b + "))"
	default:
		return a + " " + op + " " + g.oneOf(b, "("+b+")", "("+b+" + "+g.free()+")", "("+b+" - "+g.free()+" * 3)")
	}
}

func (g grammar) size() string { return g.oneOf("", "", ":1", ":2", ":4", " : 2 ") }

// free makes an operand that every frame has.
func (g grammar) free() string {
	return g.oneOf("len", "0", "1", "2", "5", "14", "0x0f", "255", "0xffffffff",
		"ether["+g.oneOf("0", "1", "5", "12", "14", "15", "40")+g.size()+"]",
		"ether[ether["+g.oneOf("5", "11", "12")+"] & 31"+g.size()+"]")
}

// some makes n expressions that differ.
func (g grammar) some(n int) []string {
	seen := map[string]bool{}
	var list []string
	for len(list) < n {
		e := g.expr(len(list) % 4)
		// An id behind what has no qualifiers is for TestRefused.
		if !seen[e] && strings.Count(e, "vlan") < 4 && len(e) < 400 {
			seen[e] = true
			list = append(list, e)
		}
	}
	return list
}
