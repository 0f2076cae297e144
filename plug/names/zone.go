package names

import (
	"cmp"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/miekg/dns"
)

// localTTL is how long an answer of the zone may be kept, in seconds: see the package's
// comment.
const localTTL = 0

// maxReply is the largest UDP message that is sent or asked for, in bytes: it passes any
// path of IPv6 whole (DNS flag day 2020).
const maxReply = 1232

// zone is a View made ready to be asked. Only turn of a name changes.
//
// Thread-safety: safe for concurrent use.
type zone struct {
	bridge  string
	suffix  string // ".br0."
	ours    bool   // all names below the suffix are
	closed  bool   // nothing is forwarded
	clients []netip.Prefix
	names   map[string]*name // by name in lower case, with its last dot
	first   map[netip.Addr]string
}

// name is what has that name.
type name struct {
	v4, v6 []netip.Addr
	turn   atomic.Uint32 // which address is the first of the next answer
}

func newZone(v View) *zone {
	z := &zone{bridge: v.Bridge, suffix: "." + strings.ToLower(v.Bridge) + ".", names: map[string]*name{}, first: map[netip.Addr]string{}}
	z.ours, z.closed = !maybeTLD(v.Bridge), v.Closed
	for _, p := range v.Clients {
		z.clients = append(z.clients, p.Masked())
	}
	for _, r := range v.Records {
		for i, label := range r.Names {
			full, ok := canonical(label + z.suffix)
			if !ok || label == "" {
				continue
			}
			short := strings.TrimSuffix(full, z.suffix) + "."
			if maybeDomain(short) || strings.HasSuffix(short, z.suffix) { // somebody else's name
				short = full
			}
			n := z.names[full]
			if n == nil {
				n = &name{}
				z.names[short], z.names[full] = n, n
			}
			for _, a := range r.Addrs {
				a = a.Unmap().WithZone("")
				switch {
				case a.Is4():
					n.v4 = append(n.v4, a)
				case a.Is6():
					n.v6 = append(n.v6, a)
				}
				if i == 0 && z.first[a] == "" {
					z.first[a] = short
				}
			}
		}
	}
	for _, n := range z.names {
		for _, list := range []*[]netip.Addr{&n.v4, &n.v6} {
			slices.SortFunc(*list, compareAddrs)
			*list = slices.Compact(*list)
		}
	}
	// The bridge's name is that of no host, but exists: otherwise there could be nothing
	// below it (RFC 8020).
	if apex := z.suffix[1:]; z.names[apex] == nil && len(z.names) > 0 {
		z.names[apex] = &name{}
	}
	return z
}

// canonical spells a name as it comes out of a packet, in lower case: a container may be
// called a@b, which is a\@b there. ok is false for what is no name.
func canonical(name string) (string, bool) {
	var wire [255]byte
	if _, err := dns.PackDomainName(name, wire[:], 0, nil, false); err != nil {
		return "", false
	}
	spelt, _, err := dns.UnpackDomainName(wire[:], 0)
	return strings.ToLower(spelt), err == nil
}

// maybeTLD says whether a bridge is called as a domain of the Internet may be: those have
// letters only, or are internationalised (RFC 6912, ICANN's guidebook).
func maybeTLD(bridge string) bool {
	b := strings.ToLower(bridge)
	return strings.HasPrefix(b, "xn--") || !strings.ContainsFunc(b, func(r rune) bool { return r < 'a' || r > 'z' })
}

// maybeDomain says whether a name may be that of a host elsewhere: it has labels, and the
// last is as a top-level domain's. Docker's web.1 is none.
func maybeDomain(name string) bool {
	name = strings.TrimSuffix(name, ".")
	dot := strings.LastIndexByte(name, '.')
	return dot >= 0 && maybeTLD(name[dot+1:])
}

// verdict is what is done with a question.
type verdict int

const (
	drop    verdict = iota // it is none
	reply                  // here is the answer
	forward                // the host's resolvers know
)

// judge reads a packet. With reply, m is the answer; with forward, m is the question. size is
// what the peer takes by UDP. allowed says whether the peer is answered at all.
func (z *zone) judge(packet []byte, allowed bool) (v verdict, m *dns.Msg, size int) {
	if len(packet) < 12 || packet[2]&0x80 != 0 { // shorter than a header, or a response
		return drop, nil, 0
	}
	q := new(dns.Msg)
	if err := q.Unpack(packet); err != nil {
		m := new(dns.Msg)
		m.Id, m.Response, m.Rcode = uint16(packet[0])<<8|uint16(packet[1]), true, dns.RcodeFormatError
		m.Opcode = int(packet[2]>>3) & 15
		if !allowed {
			m.Rcode = dns.RcodeRefused
		}
		return reply, m, dns.MinMsgSize
	}
	size = sizeOf(q)
	answer := func(rcode int) (verdict, *dns.Msg, int) {
		m := new(dns.Msg)
		m.SetRcode(q, rcode)
		m.RecursionAvailable = true
		if opt := q.IsEdns0(); opt != nil {
			m.SetEdns0(maxReply, opt.Do())
		}
		return reply, m, size
	}
	switch {
	case !allowed:
		return answer(dns.RcodeRefused)
	case q.Opcode == dns.OpcodeUpdate || q.Opcode == dns.OpcodeNotify:
		return answer(dns.RcodeRefused)
	case q.Opcode != dns.OpcodeQuery:
		return answer(dns.RcodeNotImplemented)
	case len(q.Question) != 1 || len(q.Answer) != 0 || len(q.Ns) != 0:
		return answer(dns.RcodeFormatError)
	}
	if opt := q.IsEdns0(); opt != nil && opt.Version() != 0 {
		return answer(dns.RcodeBadVers)
	}
	ask := q.Question[0]
	switch {
	case ask.Qclass != dns.ClassINET:
		return answer(dns.RcodeRefused)
	case ask.Qtype == dns.TypeANY, ask.Qtype == dns.TypeAXFR, ask.Qtype == dns.TypeIXFR, ask.Qtype == dns.TypeMAILA, ask.Qtype == dns.TypeMAILB:
		return answer(dns.RcodeRefused)
	}
	asked := strings.ToLower(ask.Name)
	if n := z.names[asked]; n != nil {
		_, m, _ := answer(dns.RcodeSuccess)
		m.Authoritative = true
		m.Answer = n.answer(ask)
		return reply, m, size
	}
	if a, ok := reverse(asked); ok {
		label, has := z.first[a]
		switch {
		case !has && z.closed:
			return answer(dns.RcodeRefused)
		case !has:
			return forward, q, size
		}
		_, m, _ := answer(dns.RcodeSuccess)
		m.Authoritative = true
		if ask.Qtype == dns.TypePTR {
			m.Answer = []dns.RR{&dns.PTR{Hdr: dns.RR_Header{Name: ask.Name, Rrtype: dns.TypePTR, Class: dns.ClassINET, Ttl: localTTL}, Ptr: label}}
		}
		return reply, m, size
	}
	if z.nobodys(asked, ask.Qtype) {
		_, m, _ := answer(dns.RcodeNameError)
		m.Authoritative = true
		return reply, m, size
	}
	if z.closed {
		return answer(dns.RcodeRefused)
	}
	return forward, q, size
}

// nobodys says whether a name that no record has is not to be asked of the host's resolvers.
// Those know of a single label what a resolver asks of a top-level domain.
func (z *zone) nobodys(asked string, qtype uint16) bool {
	if z.ours && (strings.HasSuffix(asked, z.suffix) || asked == z.suffix[1:]) {
		return true
	}
	if asked == "." || strings.Count(asked, ".") > 1 {
		return false
	}
	switch qtype {
	case dns.TypeNS, dns.TypeSOA, dns.TypeDS, dns.TypeDNSKEY:
		return false
	}
	return true
}

// answer is the addresses of the type that is asked for, each time another one first.
func (n *name) answer(ask dns.Question) []dns.RR {
	var list []netip.Addr
	switch ask.Qtype {
	case dns.TypeA:
		list = n.v4
	case dns.TypeAAAA:
		list = n.v6
	}
	if len(list) == 0 {
		return nil
	}
	turn := 0
	if len(list) > 1 {
		turn = int((n.turn.Add(1) - 1) % uint32(len(list)))
	}
	rrs := make([]dns.RR, 0, len(list))
	for i := range list {
		a := list[(turn+i)%len(list)]
		hdr := dns.RR_Header{Name: ask.Name, Rrtype: ask.Qtype, Class: dns.ClassINET, Ttl: localTTL}
		if a.Is4() {
			rrs = append(rrs, &dns.A{Hdr: hdr, A: net.IP(a.AsSlice())})
		} else {
			rrs = append(rrs, &dns.AAAA{Hdr: hdr, AAAA: net.IP(a.AsSlice())})
		}
	}
	return rrs
}

// reverse reads the name of an address: 4.3.2.1.in-addr.arpa. (RFC 1035, section 3.5), or 32
// hexadecimal digits before ip6.arpa. (RFC 3596, section 2.5).
func reverse(asked string) (netip.Addr, bool) {
	if rest, ok := strings.CutSuffix(asked, ".in-addr.arpa."); ok {
		words := strings.Split(rest, ".")
		slices.Reverse(words)
		a, err := netip.ParseAddr(strings.Join(words, "."))
		return a, err == nil && a.Is4()
	}
	rest, ok := strings.CutSuffix(asked, ".ip6.arpa.")
	if !ok || len(rest) != 63 {
		return netip.Addr{}, false
	}
	var b [16]byte
	for i := range 32 {
		digit := strings.IndexByte("0123456789abcdef", rest[2*i])
		if digit < 0 || i < 31 && rest[2*i+1] != '.' {
			return netip.Addr{}, false
		}
		at := 31 - i
		b[at/2] |= byte(digit) << (4 * (1 - at%2))
	}
	a := netip.AddrFrom16(b)
	return a, !a.Is4In6()
}

// pack makes m fit the way it goes: what a UDP client takes (RFC 6891, section 6.2.5), and
// never more than maxReply.
func pack(m *dns.Msg, udp bool, clientSize int) ([]byte, error) {
	size := dns.MaxMsgSize
	if udp {
		size = min(max(clientSize, dns.MinMsgSize), maxReply)
	}
	m.Truncate(size)
	m.Compress = true
	text, err := m.Pack()
	if err == nil {
		return text, nil
	}
	// Another's records can be read and yet not be written.
	m.Rcode, m.Answer, m.Ns, m.Extra = dns.RcodeServerFailure, nil, nil, nil
	return m.Pack()
}

// sizeOf is what the peer says that it takes by UDP.
func sizeOf(q *dns.Msg) int {
	if opt := q.IsEdns0(); opt != nil {
		return int(opt.UDPSize())
	}
	return dns.MinMsgSize
}

// compareAddrs puts the addresses of a name into an order that does not hang on that of the
// records.
func compareAddrs(a, b netip.Addr) int {
	return cmp.Or(cmp.Compare(a.BitLen(), b.BitLen()), a.Compare(b))
}
