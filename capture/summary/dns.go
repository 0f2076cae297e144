package summary

// Bounds on what is read of a DNS message: as much as a UDP packet takes, names as long
// as RFC 1035 section 2.3.4 lets them be, and as many pointers within one as such a name
// can have labels.
const (
	maxDNS      = 1472
	maxDNSName  = 255
	maxPointers = 126
)

// maxDNSShown is how many questions or answers are told of.
const maxDNSShown = 4

// dns tells of a message, RFC 1035 section 4.1.
//
//	0    2       4           6         8             10           12
//	┌────┬───────┬───────────┬─────────┬─────────────┬────────────┬───────────
//	│ id │ flags │ questions │ answers │ authorities │ additional │ these …
//	└────┴───────┴───────────┴─────────┴─────────────┴────────────┴───────────
//
// The message is gone through twice: what the flags mean may stand at its end.
func (l *line) dns(r rest) {
	const (
		headerLen                                 = 12
		response, authoritative, truncated, recur = 0x8000, 0x0400, 0x0200, 0x0100
		errorMask                                 = 0xf
	)
	m := r.b[:min(len(r.b), maxDNS)]
	if len(m) < headerLen {
		l.str("dns ")
		l.cut("dns")
		return
	}
	flags := u16(m[2:])
	questions, answers, authorities, additional := int(u16(m[4:])), int(u16(m[6:])), int(u16(m[8:])), int(u16(m[10:]))
	whole := dnsMessage{m: m, at: headerLen}
	failure := whole.check(questions, answers+authorities+additional) | flags&errorMask

	l.str("dns ")
	l.num(int(u16(m)))
	d := dnsMessage{m: m, at: headerLen}
	if flags&response == 0 {
		l.flag("+", flags&recur != 0)
		for range min(questions, maxDNSShown) {
			kind, ok := d.question()
			if !ok {
				break
			}
			l.str(" ")
			l.dnsType(kind)
			l.str("? ")
			l.name(d.name())
		}
	} else {
		l.flag("*", flags&authoritative != 0)
		l.flag("|", flags&truncated != 0)
		if failure != 0 {
			l.str(" ")
			l.dnsError(failure)
		}
		l.add(" %d/%d/%d", answers, authorities, additional)
		for range questions {
			if _, ok := d.question(); !ok {
				break
			}
		}
		for i := range min(answers, maxDNSShown) {
			a, ok := d.record()
			if !ok {
				break
			}
			l.flag(",", i > 0)
			l.str(" ")
			l.dnsType(a.kind)
			l.answer(&d, &a)
		}
	}
	switch {
	case whole.bad && len(m) < r.wire:
		l.str(" ")
		l.cut("dns")
	case whole.bad:
		l.str(" [malformed]")
	}
	l.length(r)
}

// answer writes an address, or a name, where the record is one.
func (l *line) answer(d *dnsMessage, a *dnsRecord) {
	switch {
	case a.kind == dnsA && len(a.data) == 4, a.kind == dnsAAAA && len(a.data) == 16:
		l.str(" ")
		l.addr(a.data)
	case a.named() && d.n > 0:
		l.str(" ")
		l.name(d.name())
	}
}

// Types of records whose data is read.
const (
	dnsA     = 1
	dnsNS    = 2
	dnsCNAME = 5
	dnsPTR   = 12
	dnsAAAA  = 28
	dnsOPT   = 41
)

// dnsTypes are the types of records that have a name here, of IANA's registry.
var dnsTypes = [...]string{
	dnsA: "A", dnsNS: "NS", 3: "MD", 4: "MF", dnsCNAME: "CNAME", 6: "SOA", 7: "MB", 8: "MG", 9: "MR", 10: "NULL", 11: "WKS",
	dnsPTR: "PTR", 13: "HINFO", 14: "MINFO", 15: "MX", 16: "TXT", dnsAAAA: "AAAA", 33: "SRV", 35: "NAPTR", dnsOPT: "OPT",
	43: "DS", 46: "RRSIG", 47: "NSEC", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 252: "AXFR", 255: "ANY", 256: "URI",
}

// dnsType names a type of record, as RFC 3597 has it where it has no name.
func (l *line) dnsType(kind uint16) {
	if int(kind) < len(dnsTypes) && dnsTypes[kind] != "" {
		l.str(dnsTypes[kind])
		return
	}
	l.str("TYPE")
	l.num(int(kind))
}

// dnsErrors are what a response says went wrong, of IANA's registry.
var dnsErrors = [...]string{
	1: "Format Error", 2: "Server Failure", 3: "Non-Existent Domain", 4: "Not Implemented", 5: "Query Refused",
	6: "Name Exists when it should not", 7: "RR Set Exists when it should not", 8: "RR Set that should exist does not",
	9: "Server Not Authoritative for zone", 10: "Name not contained in zone", 16: "Bad OPT Version", 17: "Key not recognized",
	18: "Signature out of time window", 19: "Bad TKEY Mode", 20: "Duplicate key name", 21: "Algorithm not supported",
	22: "Bad Truncation", 23: "Bad Cookie",
}

func (l *line) dnsError(code uint16) {
	if int(code) < len(dnsErrors) && dnsErrors[code] != "" {
		l.str(dnsErrors[code])
		return
	}
	l.str("error ")
	l.num(int(code))
}

// dnsMessage goes through a message.
type dnsMessage struct {
	m    []byte
	at   int  // where the next thing begins
	bad  bool // what was to be read is not here, or makes no sense
	text [maxDNSName]byte
	n    int // bytes of text: the name that was read last, with dots
}

func (d *dnsMessage) name() []byte { return d.text[:d.n] }

// dnsRecord is a resource record.
type dnsRecord struct {
	kind uint16
	ttl  uint32
	data []byte
}

// named reports whether the data is a name.
func (a *dnsRecord) named() bool { return a.kind == dnsNS || a.kind == dnsCNAME || a.kind == dnsPTR }

// check goes through the whole message, and returns the upper bits of its error, which
// stand in an OPT record, RFC 6891 section 6.1.3.
func (d *dnsMessage) check(questions, records int) (failure uint16) {
	for range questions {
		if _, ok := d.question(); !ok {
			return failure
		}
	}
	for range records {
		a, ok := d.record()
		if !ok {
			return failure
		}
		if a.kind == dnsOPT {
			failure = uint16(a.ttl>>24) << 4
		}
	}
	return failure
}

// question reads a question, whose name is in d.
//
//	┌────────┬──────┬───────┐
//	│ name … │ type │ class │
//	└────────┴──────┴───────┘
func (d *dnsMessage) question() (kind uint16, ok bool) {
	d.readName()
	if d.bad || len(d.m)-d.at < 4 {
		d.bad = true
		return 0, false
	}
	kind = u16(d.m[d.at:])
	d.at += 4
	return kind, true
}

// record reads a resource record. If its data is a name, that is in d.
//
//	         0      2       4     8        10
//	┌────────┬──────┬───────┬─────┬────────┬────────
//	│ name … │ type │ class │ TTL │ length │ data …
//	└────────┴──────┴───────┴─────┴────────┴────────
func (d *dnsMessage) record() (a dnsRecord, ok bool) {
	d.readName()
	if d.bad || len(d.m)-d.at < 10 {
		d.bad = true
		return a, false
	}
	h := d.m[d.at:]
	size := int(u16(h[8:]))
	if len(h) < 10+size {
		d.bad = true
		return a, false
	}
	a = dnsRecord{kind: u16(h), ttl: u32(h[4:]), data: h[10 : 10+size]}
	d.at += 10
	end := d.at + size
	if a.named() {
		d.readName()
		d.bad = d.bad || d.at > end
	}
	d.at = end
	return a, !d.bad
}

// readName reads a name, RFC 1035 section 4.1.4: labels, each with its length before it,
// to one of no length or to a pointer (its two highest bits are 11) to where the rest of
// it stands in the message.
func (d *dnsMessage) readName() {
	d.n = 0
	next := 0 // behind the first pointer
	for at, pointers := d.at, 0; at < len(d.m); {
		n := int(d.m[at])
		at++
		switch {
		case n == 0:
			if next == 0 {
				next = at
			}
			d.at = next
			return
		case n&0xc0 == 0xc0 && at < len(d.m) && pointers < maxPointers:
			if next == 0 {
				next = at + 1
			}
			at = (n&0x3f)<<8 | int(d.m[at])
			pointers++
		case n&0xc0 == 0 && at+n <= len(d.m) && d.n+1+n <= maxDNSName:
			if d.n > 0 {
				d.text[d.n] = '.'
				d.n++
			}
			d.n += copy(d.text[d.n:], d.m[at:at+n])
			at += n
		default:
			d.bad = true
			return
		}
	}
	d.bad = true
}
