package summary

// llc tells of an IEEE 802.3 frame, IEEE 802.2 section 3.2. The lowest bits of the
// service access points are no part of them: group, and command or response. Control is
// two bytes where frames are numbered, and one where they are not (its lowest bits are 11).
//
//	0      1      2               3 or 4
//	┌──────┬──────┬───────────────┬─────
//	│ DSAP │ SSAP │ control       │ …
//	└──────┴──────┴───────────────┴─────
func (l *line) llc(r rest) {
	l.str("802.3")
	if len(r.b) < 3 || r.b[2]&3 != 3 && len(r.b) < 4 {
		l.str(" ")
		l.cut("llc")
		l.length(r)
		return
	}
	dsap, ssap, control := r.b[0]&^1, r.b[1]&^1, uint16(r.b[2])
	if control&3 != 3 {
		control = u16(r.b[2:])
	}
	switch {
	case dsap == 0x42 && ssap == 0x42:
		l.stp(r.after(3))
	case dsap == 0xaa && ssap == 0xaa && len(r.b) >= 8:
		l.add(" snap oui %06x pid 0x%04x", u32(r.b[3:])>>8, u16(r.b[6:]))
		l.length(r)
	default:
		l.add(" llc dsap 0x%02x ssap 0x%02x ctrl 0x%02x", dsap, ssap, control)
		l.length(r)
	}
}

// Types of a BPDU, IEEE 802.1D section 9.3 and 802.1w.
const (
	bpduConfig = 0x00
	bpduTCN    = 0x80
	bpduRapid  = 0x02
)

// stp tells of a BPDU.
//
//	0          2         3      4       5         13          17         25     27
//	┌──────────┬─────────┬──────┬───────┬─────────┬───────────┬──────────┬──────┐
//	│ protocol │ version │ type │ flags │ root id │ path cost │ bridge id│ port │
//	└──────────┴─────────┴──────┴───────┴─────────┴───────────┴──────────┴──────┘
func (l *line) stp(r rest) {
	if len(r.b) < 4 {
		l.str(" ")
		l.cut("stp")
		return
	}
	switch version := r.b[2]; version {
	case 0:
		l.str(" stp 802.1d")
	case 2:
		l.str(" rstp 802.1w")
	case 3:
		l.str(" mstp 802.1s")
	default:
		l.add(" stp version %d", version)
		return
	}
	switch r.b[3] {
	case bpduTCN:
		l.str(" topology change")
		return
	case bpduConfig:
		l.str(" config")
	case bpduRapid:
	default:
		l.add(" type 0x%02x", r.b[3])
		return
	}
	if len(r.b) < 27 {
		l.str(" ")
		l.cut("stp")
		return
	}
	l.flag(", topology change", r.b[4]&1 != 0)
	l.add(", root %04x.", u16(r.b[5:]))
	l.mac(r.b[7:])
	l.add(" cost %d, bridge %04x.", u32(r.b[13:]), u16(r.b[17:]))
	l.mac(r.b[19:])
	l.add(" port %04x", u16(r.b[25:]))
}

// slow tells of a slow protocol (IEEE 802.3 annex 57A): LACP and such.
func (l *line) slow(r rest) {
	if len(r.b) < 2 {
		l.cut("slow")
		return
	}
	switch r.b[0] {
	case 1:
		l.add("LACPv%d", r.b[1])
	case 2:
		l.add("marker v%d", r.b[1])
	default:
		l.add("slow protocol %d", r.b[0])
	}
	l.length(r)
}

// lldp tells of who announces himself: the first TLVs in which names stand.
//
//	0                7       9            16
//	┌────────────────┬────────────────────┬─────────
//	│ type (7 bits)  │ length (9 bits)    │ value …
//	└────────────────┴────────────────────┴─────────
func (l *line) lldp(r rest) {
	l.str("LLDP")
	for p := r.b; len(p) >= 2; {
		kind, n := p[0]>>1, int(u16(p)&0x1ff)
		if kind == 0 {
			break
		}
		if 2+n > len(p) {
			l.str(" ")
			l.cut("lldp")
			return
		}
		v := p[2 : 2+n]
		switch {
		case kind == 1 && n == 7 && v[0] == 4:
			l.str(", chassis ")
			l.mac(v[1:])
		case kind == 2 && n > 1 && (v[0] == 5 || v[0] == 7):
			l.str(", port ")
			l.name(v[1:])
		case kind == 5:
			l.str(", name ")
			l.name(v)
		}
		p = p[2+n:]
	}
	l.length(r)
}

// mpls tells of the labels, and not of what follows them: that stands nowhere.
func (l *line) mpls(r rest) {
	l.str("MPLS")
	for range 8 {
		if len(r.b) < 4 {
			l.str(" ")
			l.cut("mpls")
			return
		}
		entry := u32(r.b)
		l.add(" label %d ttl %d", entry>>12, entry&0xff)
		r = r.after(4)
		if entry&0x100 != 0 { // the bottom of the stack
			break
		}
	}
	l.length(r)
}

// arp tells of a question or an answer, RFC 826.
//
//	0          2          4        5        6           8
//	┌──────────┬──────────┬────────┬────────┬───────────┬──────────────┬──────────────┐
//	│ hardware │ protocol │ length │ length │ operation │ sender's     │ target's     │
//	│          │          │ of hw. │ of pr. │           │ hw., pr.     │ hw., pr.     │
//	└──────────┴──────────┴────────┴────────┴───────────┴──────────────┴──────────────┘
func (l *line) arp(r rest) {
	const request, reply = 1, 2
	if len(r.b) < 8 {
		l.cut("arp")
		return
	}
	hardware, protocol, op := u16(r.b), u16(r.b[2:]), u16(r.b[6:])
	hw, pr := int(r.b[4]), int(r.b[5])
	if len(r.b) < 8+2*(hw+pr) {
		l.cut("arp")
		return
	}
	if hw != 6 || pr != 4 {
		l.add("ARP hardware %d protocol 0x%04x operation %d", hardware, protocol, op)
		l.length(r)
		return
	}
	senderHW, sender, target := r.b[8:14], r.b[14:18], r.b[24:28]
	switch op {
	case request:
		l.str("ARP who-has ")
		l.addr(target)
		l.str(" tell ")
		l.addr(sender)
	case reply:
		l.str("ARP ")
		l.addr(sender)
		l.str(" is-at ")
		l.mac(senderHW)
	default:
		l.add("ARP operation %d from ", op)
		l.addr(sender)
	}
}
