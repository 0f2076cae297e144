package summary

import "vswitch/frame"

// tcp tells of a segment, RFC 9293 section 3.1.
//
//	0        2        4     8     12       13      14       16    18       20
//	┌────────┬────────┬─────┬─────┬────────┬───────┬────────┬─────┬────────┬─────────
//	│ source │ dest.  │ seq │ ack │ offset │ flags │ window │ sum │ urgent │ options
//	│ port   │ port   │     │     │ (x 4)  │       │        │     │        │
//	└────────┴────────┴─────┴─────┴────────┴───────┴────────┴─────┴────────┴─────────
func (l *line) tcp(who host, r rest) {
	const fin, syn, rst, psh, ack, urg, ece, cwr = 1, 2, 4, 8, 16, 32, 64, 128
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
	size, flags := int(r.b[12]>>4)*4, r.b[13]
	l.str("tcp ")
	l.flag("F", flags&fin != 0)
	l.flag("S", flags&syn != 0)
	l.flag("R", flags&rst != 0)
	l.flag("P", flags&psh != 0)
	l.flag(".", flags&ack != 0)
	l.flag("U", flags&urg != 0)
	l.flag("E", flags&ece != 0)
	l.flag("W", flags&cwr != 0)
	l.flag("none", flags == 0)
	if size < frame.TCPMinLen || size > r.wire {
		l.str(" [malformed]")
		l.length(r)
		return
	}
	n := r.wire - size
	if n > 0 || flags&(syn|fin|rst) != 0 {
		seq := u32(r.b[4:])
		l.str(" ")
		l.num(int(seq))
		l.str(":")
		l.num(int(seq + uint32(n)))
	}
	if flags&ack != 0 {
		l.str(" ack ")
		l.num(int(u32(r.b[8:])))
	}
	l.str(" win ")
	l.num(int(u16(r.b[14:])))
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

// udp tells of a datagram, RFC 768.
//
//	0        2        4        6     8
//	┌────────┬────────┬────────┬─────┬─────
//	│ source │ dest.  │ length │ sum │ …
//	└────────┴────────┴────────┴─────┴─────
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
