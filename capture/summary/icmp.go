package summary

import "vswitch/frame"

// igmp tells of membership, RFC 2236 section 2 and RFC 3376 section 4.
//
//	0      1               2     4        8
//	┌──────┬───────────────┬─────┬────────┬─────
//	│ type │ response time │ sum │ group  │ …        version 3 has no group in its report
//	└──────┴───────────────┴─────┴────────┴─────
func (l *line) igmp(r rest) {
	const query, v1Report, v2Report, leave, v3Report = 0x11, 0x12, 0x16, 0x17, 0x22
	if len(r.b) < 8 {
		l.cut("igmp")
		return
	}
	switch kind := r.b[0]; kind {
	case query:
		l.str("igmp query")
	case v1Report:
		l.str("igmp v1 report")
	case v2Report:
		l.str("igmp v2 report")
	case leave:
		l.str("igmp leave")
	case v3Report:
		l.str("igmp v3 report")
	default:
		l.add("igmp type 0x%02x", kind)
	}
	if r.b[0] != v3Report && u32(r.b[4:]) != 0 {
		l.str(" ")
		l.addr(r.b[4:8])
	}
	l.length(r)
}

// icmp tells of a message, RFC 792.
//
//	0      1      2     4                    8
//	┌──────┬──────┬─────┬────────────────────┬─────
//	│ type │ code │ sum │ by type: id, seq;  │ …        of errors, the packet that caused it
//	│      │      │     │ -, MTU; gateway    │
//	└──────┴──────┴─────┴────────────────────┴─────
func (l *line) icmp(r rest) {
	const echoReply, unreachable, redirect, echoRequest, timeExceeded, parameterProblem = 0, 3, 5, 8, 11, 12
	if len(r.b) < 8 {
		l.cut("icmp")
		return
	}
	l.str("icmp ")
	switch kind, code := r.b[0], r.b[1]; kind {
	case echoRequest:
		l.echo("echo request", r.b)
	case echoReply:
		l.echo("echo reply", r.b)
	case unreachable:
		l.unreachable(code, u16(r.b[6:]), r.b[8:])
	case timeExceeded:
		if code&1 == 0 {
			l.str("time exceeded in-transit")
		} else {
			l.str("ip reassembly time exceeded")
		}
	case redirect:
		l.str("redirect to ")
		l.addr(r.b[4:8])
	case parameterProblem:
		l.problem(icmpProblems[:], code)
	default:
		l.kind(icmpKinds[:], kind, code)
	}
	l.length(r)
}

func (l *line) echo(what string, b []byte) {
	l.str(what)
	l.str(", id ")
	l.num(int(u16(b[4:])))
	l.str(", seq ")
	l.num(int(u16(b[6:])))
}

// unreachable tells of what could not be reached: the packet that is quoted.
func (l *line) unreachable(code uint8, mtu uint16, quoted []byte) {
	const host, port, tooBig = 1, 3, 4
	if len(quoted) < frame.IPv4MinLen {
		l.add("unreachable, code %d", code)
		return
	}
	dst := quoted[16:20]
	switch size := int(quoted[0]&15) * 4; {
	case code == host:
		l.str("host ")
		l.addr(dst)
		l.str(" unreachable")
	case code == port && len(quoted) >= size+4:
		l.addr(dst)
		l.str(" ")
		l.proto(quoted[9])
		l.add(" port %d unreachable", u16(quoted[size+2:]))
	case code == tooBig:
		l.addr(dst)
		l.add(" unreachable - need to frag (mtu %d)", mtu)
	default:
		l.addr(dst)
		l.add(" unreachable, code %d", code)
	}
}

// Types of messages of which nothing more is told, RFC 792, 950, 1256 and 4861.
var (
	icmpKinds = [...]string{
		4: "SourceQuench", 9: "RouterAdvertisement", 10: "RouterSolicitation", 13: "TimestampRequest", 14: "TimestampReply",
		15: "InfoRequest", 16: "InfoReply", 17: "AddressMaskRequest", 18: "AddressMaskReply",
	}
	icmp6Kinds = [...]string{137: "Redirect"}
)

// kind names the type and code of a message.
func (l *line) kind(names []string, kind, code uint8) {
	if int(kind) >= len(names) || names[kind] == "" {
		l.add("%d(%d)", kind, code)
		return
	}
	l.str(names[kind])
	if code != 0 {
		l.add("(Code: %d)", code)
	}
}

// What a problem with a parameter is, RFC 792, 1108 and 4443.
var (
	icmpProblems  = [...]string{"PointerIndicatesError", "MissingOption", "BadLength"}
	icmp6Problems = [...]string{"ErroneousHeaderField", "UnrecognizedNextHeader", "UnrecognizedIPv6Option"}
)

func (l *line) problem(names []string, code uint8) {
	if int(code) < len(names) {
		l.add("ParameterProblem(%s)", names[code])
		return
	}
	l.add("ParameterProblem(Code: %d)", code)
}

// icmp6 tells of a message, RFC 4443; of neighbors, RFC 4861; of multicast listeners,
// RFC 2710 and 3810.
//
//	0      1      2     4                    8               24
//	┌──────┬──────┬─────┬────────────────────┬───────────────┬─────
//	│ type │ code │ sum │ by type: id, seq;  │ of neighbors, │ …
//	│      │      │     │ MTU; flags         │ the target    │
//	└──────┴──────┴─────┴────────────────────┴───────────────┴─────
func (l *line) icmp6(r rest) {
	const (
		unreachable, tooBig                = 1, 2
		timeExceeded, parameterProblem     = 3, 4
		echoRequest, echoReply             = 128, 129
		mldQuery, mldReport, mldDone, mld2 = 130, 131, 132, 143
		routerSolicit, routerAdvert        = 133, 134
		neighborSolicit, neighborAdvert    = 135, 136
	)
	if len(r.b) < 8 {
		l.cut("icmp6")
		return
	}
	l.str("icmp6 ")
	switch kind, code := r.b[0], r.b[1]; kind {
	case echoRequest:
		l.echo("echo request", r.b)
	case echoReply:
		l.echo("echo reply", r.b)
	case neighborSolicit:
		l.str("neighbor solicitation, who has ")
		l.target(r.b)
	case neighborAdvert:
		l.str("neighbor advertisement, tgt is ")
		l.target(r.b)
	case routerSolicit:
		l.str("router solicitation")
	case routerAdvert:
		l.str("router advertisement")
	case tooBig:
		l.add("packet too big, mtu %d", u32(r.b[4:]))
	case unreachable:
		l.add("destination unreachable, code %d", code)
	case timeExceeded:
		l.str("time exceeded")
	case mld2:
		l.str("multicast listener report v2")
	case mldQuery:
		l.str("multicast listener query")
	case mldReport:
		l.str("multicast listener report")
	case mldDone:
		l.str("multicast listener done")
	case parameterProblem:
		l.problem(icmp6Problems[:], code)
	default:
		l.kind(icmp6Kinds[:], kind, code)
	}
	l.length(r)
}

// target writes whom a message of neighbors is about.
func (l *line) target(b []byte) {
	if len(b) < 24 {
		l.cut("icmp6")
		return
	}
	l.addr(b[8:24])
}
