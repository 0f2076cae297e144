package summary

// vxlan tells of a frame within VXLAN, RFC 7348 section 5.
//
//	0       1           4       7   8
//	┌───────┬───────────┬───────┬───┬──────
//	│ flags │ 0         │ VNI   │ 0 │ frame
//	└───────┴───────────┴───────┴───┴──────
func (l *line) vxlan(r rest) {
	if len(r.b) < 8 {
		l.cut("vxlan")
		return
	}
	l.str("vxlan vni ")
	l.num(int(u32(r.b[4:]) >> 8))
	l.str(": ")
	l.inner(r.after(8))
}

// geneve tells of a frame within Geneve, RFC 8926 section 3.4.
//
//	0             1       2          4       7   8
//	┌─────┬───────┬───────┬──────────┬───────┬───┬─────────┬─────
//	│ ver │length │ flags │ protocol │ VNI   │ 0 │ options │ …
//	│     │ (x 4) │       │          │       │   │         │
//	└─────┴───────┴───────┴──────────┴───────┴───┴─────────┴─────
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
