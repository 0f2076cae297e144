package summary

import (
	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"

	"vswitch/frame"
)

func (l *line) tcp(who host, r rest) {
	var h layers.TCP
	l.safely(func() { _ = h.DecodeFromBytes(r.b, gopacket.NilDecodeFeedback) }) // what it has read stays
	if len(r.b) < 4 {
		l.ends(who, -1, -1)
		l.cut("tcp")
		return
	}
	l.ends(who, int(u16(r.b)), int(u16(r.b[2:])))
	if len(r.b) < frame.TCPMinLen {
		l.cut("tcp")
		return
	}
	size := int(h.DataOffset) * 4
	l.str("tcp ")
	before := len(l.b)
	l.flag("F", h.FIN)
	l.flag("S", h.SYN)
	l.flag("R", h.RST)
	l.flag("P", h.PSH)
	l.flag(".", h.ACK)
	l.flag("U", h.URG)
	l.flag("E", h.ECE)
	l.flag("W", h.CWR)
	l.flag("none", len(l.b) == before)
	if size < frame.TCPMinLen || size > r.wire {
		l.str(" [malformed]")
		l.length(r)
		return
	}
	n := r.wire - size
	if n > 0 || h.SYN || h.FIN || h.RST {
		l.add(" %d:%d", h.Seq, h.Seq+uint32(n))
	}
	if h.ACK {
		l.add(" ack %d", h.Ack)
	}
	l.add(" win %d", h.Window)
	l.str(", length ")
	l.num(n)
}

// UDP ports whose payload is told of.
const (
	portDNS      = 53
	portDHCP     = 67
	portBOOTPC   = 68
	portNTP      = 123
	portDHCPv6C  = 546
	portDHCPv6   = 547
	portBFD      = 3784
	portVXLAN    = 4789
	portMDNS     = 5353
	portGeneve   = 6081
	portOldVXLAN = 8472 // what Linux's VXLAN has without dstport
)

func (l *line) udp(who host, r rest) {
	if len(r.b) < 4 {
		l.ends(who, -1, -1)
		l.cut("udp")
		return
	}
	sport, dport := int(u16(r.b)), int(u16(r.b[2:]))
	l.ends(who, sport, dport)
	if len(r.b) < frame.UDPLen {
		l.cut("udp")
		return
	}
	length := int(u16(r.b[4:]))
	if length != 0 && length < frame.UDPLen {
		l.str("udp [malformed]")
		l.length(r)
		return
	}
	if length != 0 { // else a super-frame of more than 64 KiB
		r = r.upTo(length)
	}
	r = r.after(frame.UDPLen)
	is := func(port int) bool { return sport == port || dport == port }
	switch {
	case is(portDNS), is(portMDNS):
		l.dns(r)
	case is(portDHCP), is(portBOOTPC):
		l.dhcp(r)
	case is(portDHCPv6), is(portDHCPv6C):
		l.dhcp6(r)
	case dport == portVXLAN, dport == portOldVXLAN:
		l.vxlan(r)
	case dport == portGeneve:
		l.geneve(r)
	case dport == portBFD:
		l.str("bfd")
		l.length(r)
	case is(portNTP):
		l.str("ntp")
		l.length(r)
	default:
		l.str("udp")
		l.length(r)
	}
}

// vxlan tells of a frame within VXLAN, RFC 7348 section 5.
func (l *line) vxlan(r rest) {
	var h layers.VXLAN
	if h.DecodeFromBytes(r.b, gopacket.NilDecodeFeedback) != nil {
		l.cut("vxlan")
		return
	}
	l.add("vxlan vni %d: ", h.VNI)
	l.inner(r.after(8))
}

// geneve tells of a frame within Geneve, RFC 8926 section 3.4.
func (l *line) geneve(r rest) {
	if len(r.b) < 8 {
		l.cut("geneve")
		return
	}
	options := int(r.b[0]&0x3f) * 4
	l.add("geneve vni %d", u32(r.b[4:])>>8)
	if options > 0 {
		l.add(" with %d bytes of options", options)
	}
	l.str(": ")
	if len(r.b) < 8+options {
		l.cut("geneve")
		return
	}
	l.tunnelled(u16(r.b[2:]), r.after(8+options))
}

// gre tells of a packet within GRE, RFC 2784 and RFC 2890.
//
//	0                 2               4
//	┌─┬─┬─┬─┬───┬─────┬───────────────┬───────────┬───────┬──────────┐
//	│C│ │K│S│ … │ ver │ protocol      │ sum (C)   │ key(K)│ seq (S)  │
//	└─┴─┴─┴─┴───┴─────┴───────────────┴───────────┴───────┴──────────┘
func (l *line) gre(r rest) {
	const hasSum, hasRouting, hasKey, hasSeq = 0x80, 0x40, 0x20, 0x10
	if len(r.b) < 4 {
		l.cut("gre")
		return
	}
	flags, version, kind := r.b[0], r.b[1]&7, u16(r.b[2:])
	if version != 0 || flags&hasRouting != 0 {
		l.add("gre v%d protocol 0x%04x", version, kind)
		l.length(r)
		return
	}
	size := 4
	for _, f := range []byte{hasSum, hasKey, hasSeq} {
		if flags&f != 0 {
			size += 4
		}
	}
	if len(r.b) < size {
		l.cut("gre")
		return
	}
	l.str("gre")
	at := 4
	if flags&hasSum != 0 {
		at += 4
	}
	if flags&hasKey != 0 {
		l.add(" key %d", u32(r.b[at:]))
		at += 4
	}
	if flags&hasSeq != 0 {
		l.add(" seq %d", u32(r.b[at:]))
	}
	l.str(": ")
	l.tunnelled(kind, r.after(size))
}

// tunnelled tells of what is in a tunnel.
func (l *line) tunnelled(kind uint16, r rest) {
	if l.depth >= maxDepth {
		l.add("protocol 0x%04x", kind)
		l.length(r)
		return
	}
	if kind != etherTEB {
		l.depth++
	}
	l.payload(kind, r)
}

// maxDNS is how much of a DNS message is read: a UDP packet's worth.
const maxDNS = 1472

func (l *line) dns(r rest) {
	var h layers.DNS
	var err error
	ok := l.safely(func() { err = h.DecodeFromBytes(r.b[:min(len(r.b), maxDNS)], gopacket.NilDecodeFeedback) })
	if len(r.b) < 12 {
		l.str("dns ")
		l.cut("dns")
		return
	}
	l.add("dns %d", h.ID)
	if !h.QR {
		l.flag("+", h.RD)
		for _, q := range h.Questions[:min(len(h.Questions), 4)] {
			l.add(" %s? ", q.Type)
			l.name(q.Name)
		}
	} else {
		l.flag("*", h.AA)
		l.flag("|", h.TC)
		if h.ResponseCode != layers.DNSResponseCodeNoErr {
			l.add(" %s", h.ResponseCode)
		}
		l.add(" %d/%d/%d", h.ANCount, h.NSCount, h.ARCount)
		for i, a := range h.Answers[:min(len(h.Answers), 4)] {
			l.flag(",", i > 0)
			l.add(" %s ", a.Type)
			switch {
			case a.IP != nil:
				l.str(a.IP.String())
			case len(a.CNAME) > 0:
				l.name(a.CNAME)
			case len(a.PTR) > 0:
				l.name(a.PTR)
			case len(a.NS) > 0:
				l.name(a.NS)
			}
		}
	}
	switch {
	case !ok:
		l.str(" [malformed]")
	case err != nil && len(r.b) < r.wire:
		l.str(" ")
		l.cut("dns")
	case err != nil:
		l.str(" [malformed]")
	}
	l.length(r)
}

// What a DHCP message is, RFC 2132 section 9.6.
var dhcpTypes = [...]string{"", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform"}

func (l *line) dhcp(r rest) {
	var h layers.DHCPv4
	var err error
	ok := l.safely(func() { err = h.DecodeFromBytes(r.b, gopacket.NilDecodeFeedback) })
	switch {
	case len(r.b) < 240:
		l.str("dhcp ")
		l.cut("dhcp")
		return
	case !ok || err == layers.InvalidMagicCookie:
		l.str("bootp [malformed]")
		l.length(r)
		return
	}
	kind, asked := "", []byte(nil)
	for _, o := range h.Options {
		switch {
		case o.Type == layers.DHCPOptMessageType && len(o.Data) == 1 && int(o.Data[0]) < len(dhcpTypes):
			kind = " " + dhcpTypes[o.Data[0]]
		case o.Type == layers.DHCPOptRequestIP && len(o.Data) == 4:
			asked = o.Data
		}
	}
	l.str("dhcp" + kind)
	if h.Operation == layers.DHCPOpReply {
		if !h.YourClientIP.IsUnspecified() {
			l.str(" ")
			l.addr(h.YourClientIP)
		}
		l.str(" to ")
	} else {
		if asked != nil {
			l.str(" ")
			l.addr(asked)
		}
		l.str(" from ")
	}
	l.mac(r.b[28:])
	l.length(r)
}

// What a DHCPv6 message is, RFC 8415 section 7.3.
var dhcp6Types = [...]string{"", "solicit", "advertise", "request", "confirm", "renew", "rebind", "reply", "release",
	"decline", "reconfigure", "information-request", "relay-forward", "relay-reply"}

func (l *line) dhcp6(r rest) {
	if len(r.b) < 1 {
		l.cut("dhcp6")
		return
	}
	if kind := int(r.b[0]); kind > 0 && kind < len(dhcp6Types) {
		l.str("dhcp6 " + dhcp6Types[kind])
	} else {
		l.add("dhcp6 type %d", kind)
	}
	l.length(r)
}
