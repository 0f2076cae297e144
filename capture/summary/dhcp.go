package summary

// What a DHCP message is, RFC 2132 section 9.6.
var dhcpTypes = [...]string{"", "discover", "offer", "request", "decline", "ack", "nak", "release", "inform"}

// dhcp tells of a message, RFC 2131 section 2 and RFC 2132.
//
//	0    1       2        3    4     8      12      16      20      24      28       44     108    236     240
//	┌────┬───────┬────────┬────┬─────┬──────┬───────┬───────┬───────┬───────┬────────┬──────┬──────┬───────┬─────────
//	│ op │ kind  │ length │hops│ xid │ secs,│ client│ your  │ next  │ relay │ client │server│ file │ magic │ options
//	│    │ of hardware    │    │     │ flags│ addr. │ addr. │ server│       │ hw.    │ name │      │       │
//	└────┴───────┴────────┴────┴─────┴──────┴───────┴───────┴───────┴───────┴────────┴──────┴──────┴───────┴─────────
//
// An option is its kind, its length and its value; two kinds have neither length nor value.
func (l *line) dhcp(r rest) {
	const (
		headerLen                    = 240
		reply                        = 2
		magic                        = 0x63825363
		pad, requestedIP, kind, last = 0, 50, 53, 255
	)
	if len(r.b) < headerLen {
		l.str("dhcp ")
		l.cut("dhcp")
		return
	}
	if u32(r.b[236:]) != magic {
		l.str("bootp [malformed]")
		l.length(r)
		return
	}
	is, asked := "", []byte(nil)
	for o := r.b[headerLen:]; len(o) > 0 && o[0] != last; {
		if o[0] == pad {
			o = o[1:]
			continue
		}
		if len(o) < 2 || len(o) < 2+int(o[1]) {
			break
		}
		value := o[2 : 2+int(o[1])]
		switch {
		case o[0] == kind && len(value) == 1 && int(value[0]) < len(dhcpTypes):
			is = dhcpTypes[value[0]]
		case o[0] == requestedIP && len(value) == 4:
			asked = value
		}
		o = o[2+len(value):]
	}
	l.str("dhcp")
	if is != "" {
		l.str(" ")
		l.str(is)
	}
	yours, hardware := r.b[16:20], r.b[28:34]
	preposition := " from "
	if r.b[0] == reply {
		preposition, asked = " to ", nil
		if u32(yours) != 0 {
			asked = yours
		}
	}
	if asked != nil {
		l.str(" ")
		l.addr(asked)
	}
	l.str(preposition)
	l.mac(hardware)
	l.length(r)
}

// What a DHCPv6 message is, RFC 8415 section 7.3.
var dhcp6Types = [...]string{"", "solicit", "advertise", "request", "confirm", "renew", "rebind", "reply", "release",
	"decline", "reconfigure", "information-request", "relay-forward", "relay-reply"}

// dhcp6 tells of a message: its first byte is the type.
func (l *line) dhcp6(r rest) {
	if len(r.b) < 1 {
		l.cut("dhcp6")
		return
	}
	if kind := int(r.b[0]); kind > 0 && kind < len(dhcp6Types) {
		l.str("dhcp6 ")
		l.str(dhcp6Types[kind])
	} else {
		l.add("dhcp6 type %d", kind)
	}
	l.length(r)
}
