package names

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	"github.com/miekg/dns"
)

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func addrs(words ...string) (list []netip.Addr) {
	for _, w := range words {
		list = append(list, addr(w))
	}
	return list
}

var testView = View{
	Bridge:  "Br0",
	Listen:  addrs("10.0.0.1", "fd00::1"),
	Clients: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24"), netip.MustParsePrefix("fd00::/64")},
	Records: []Record{
		{Names: []string{"web", "www"}, Addrs: addrs("10.0.0.5", "fd00::5")},
		{Names: []string{"db-1"}, Addrs: addrs("10.0.0.6")},
		{Names: []string{"six"}, Addrs: addrs("fd00::6")},
		{Names: []string{"many"}, Addrs: addrs("10.0.0.11")},
		{Names: []string{"many"}, Addrs: addrs("10.0.0.12")},
		{Names: []string{"many", "my_name"}, Addrs: addrs("10.0.0.13")},
		{Names: []string{"none"}},
		{Names: []string{"a@b", "web.1"}, Addrs: addrs("10.0.0.15")},
		{Names: []string{"www.example.com", "bank.xn--p1ai", "db-1.br0"}, Addrs: addrs("10.0.0.16")},
		{Names: []string{strings.Repeat("long.", 60)}, Addrs: addrs("10.0.0.14")},
		{Names: []string{"", strings.Repeat("x", 64)}, Addrs: addrs("10.0.0.14")},
	},
}

func question(name string, qtype uint16) *dns.Msg {
	m := new(dns.Msg)
	m.SetQuestion(name, qtype)
	return m
}

func packed(t testing.TB, m *dns.Msg) []byte {
	t.Helper()
	b, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// said is an answer in short: the code, then what was found, in order.
func said(m *dns.Msg) string {
	words := []string{dns.RcodeToString[m.Rcode]}
	var found []string
	for _, rr := range m.Answer {
		f := strings.Fields(rr.String())
		found = append(found, f[len(f)-1])
	}
	slices.Sort(found)
	return strings.Join(append(words, found...), " ")
}

func TestJudge(t *testing.T) {
	z := newZone(testView)
	for _, c := range []struct {
		name  string
		qtype uint16
		want  string
	}{
		{"web.", dns.TypeA, "NOERROR 10.0.0.5"},
		{"WEB.", dns.TypeA, "NOERROR 10.0.0.5"},
		{"web.br0.", dns.TypeA, "NOERROR 10.0.0.5"},
		{"wEb.bR0.", dns.TypeA, "NOERROR 10.0.0.5"},
		{"www.", dns.TypeAAAA, "NOERROR fd00::5"},
		{"web.", dns.TypeMX, "NOERROR"},
		{"web.", dns.TypeHTTPS, "NOERROR"},
		{"db-1.", dns.TypeAAAA, "NOERROR"},
		{"six.br0.", dns.TypeA, "NOERROR"},
		{"none.", dns.TypeA, "NOERROR"},
		{"many.", dns.TypeA, "NOERROR 10.0.0.11 10.0.0.12 10.0.0.13"},
		{"my_name.", dns.TypeA, "NOERROR 10.0.0.13"},
		{"a@b.", dns.TypeA, "NOERROR 10.0.0.15"},
		{"a@b.br0.", dns.TypeA, "NOERROR 10.0.0.15"},
		{"web.1.", dns.TypeA, "NOERROR 10.0.0.15"},
		{"web.1.br0.", dns.TypeA, "NOERROR 10.0.0.15"},
		{"db-1.br0.", dns.TypeA, "NOERROR 10.0.0.6"},
		{"db-1.br0.br0.", dns.TypeA, "NOERROR 10.0.0.16"},
		{"www.example.com.", dns.TypeA, "forward"},
		{"bank.xn--p1ai.", dns.TypeA, "forward"},
		{"www.example.com.br0.", dns.TypeA, "NOERROR 10.0.0.16"},
		{"16.0.0.10.in-addr.arpa.", dns.TypePTR, "NOERROR www.example.com.br0."},
		{"br0.", dns.TypeA, "NOERROR"},
		{"br0.", dns.TypeSOA, "NOERROR"},
		{"gone.", dns.TypeA, "NXDOMAIN"},
		{"gone.", dns.TypeHTTPS, "NXDOMAIN"},
		{"gone.br0.", dns.TypeA, "NXDOMAIN"},
		{"x.web.br0.", dns.TypeA, "NXDOMAIN"},
		{"5.0.0.10.in-addr.arpa.", dns.TypePTR, "NOERROR web."},
		{"5.0.0.10.IN-ADDR.ARPA.", dns.TypePTR, "NOERROR web."},
		{"5.0.0.10.in-addr.arpa.", dns.TypeTXT, "NOERROR"},
		{"13.0.0.10.in-addr.arpa.", dns.TypePTR, "NOERROR many."},
		{"5.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.D.f.ip6.arpa.", dns.TypePTR, "NOERROR web."},
		{"14.0.0.10.in-addr.arpa.", dns.TypePTR, "forward"},
		{"0.0.10.in-addr.arpa.", dns.TypeSOA, "forward"},
		{"web.br1.", dns.TypeA, "forward"},
		{"example.com.", dns.TypeA, "forward"},
		{"x.web.", dns.TypeA, "forward"},
		{".", dns.TypeNS, "forward"},
		{"com.", dns.TypeDS, "forward"},
		{"web.", dns.TypeANY, "REFUSED"},
		{"example.com.", dns.TypeANY, "REFUSED"},
		{"br0.", dns.TypeAXFR, "REFUSED"},
		{"br0.", dns.TypeIXFR, "REFUSED"},
	} {
		packet := packed(t, question(c.name, c.qtype))
		v, m, _ := z.judge(packet, true)
		got := "forward"
		if v == reply {
			got = said(m)
			for _, rr := range m.Answer {
				if strings.ReplaceAll(rr.Header().Name, `\@`, "@") != c.name || rr.Header().Ttl != localTTL {
					t.Errorf("%s: %s", c.name, rr)
				}
			}
			if !m.Response || !m.RecursionAvailable || !m.RecursionDesired {
				t.Errorf("%s: %s", c.name, m)
			}
		}
		if got != c.want {
			t.Errorf("%s %s: %s, not %s", c.name, dns.TypeToString[c.qtype], got, c.want)
		}
		if v, m, _ := z.judge(packet, false); v != reply || said(m) != "REFUSED" {
			t.Errorf("%s: a stranger is told %s", c.name, m)
		}
	}
}

// What is no plain question is refused in the way that fits.
func TestJudgeOddities(t *testing.T) {
	z := newZone(testView)
	for _, c := range []struct {
		name   string
		change func(*dns.Msg)
		want   string
	}{
		{"update", func(m *dns.Msg) { m.Opcode = dns.OpcodeUpdate }, "REFUSED"},
		{"notify", func(m *dns.Msg) { m.Opcode = dns.OpcodeNotify }, "REFUSED"},
		{"status", func(m *dns.Msg) { m.Opcode = dns.OpcodeStatus }, "NOTIMP"},
		{"chaos", func(m *dns.Msg) { m.Question[0].Qclass = dns.ClassCHAOS }, "REFUSED"},
		{"two questions", func(m *dns.Msg) { m.Question = append(m.Question, m.Question[0]) }, "FORMERR"},
		{"no question", func(m *dns.Msg) { m.Question = nil }, "FORMERR"},
		{"an answer", func(m *dns.Msg) { m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "a.", Rrtype: 1, Class: 1}}} }, "FORMERR"},
		{"EDNS of the future", func(m *dns.Msg) { m.SetEdns0(4096, false).IsEdns0().SetVersion(1) }, "BADVERS"},
	} {
		m := question("web.", dns.TypeA)
		c.change(m)
		v, a, size := z.judge(packed(t, m), true)
		if v != reply {
			t.Errorf("%s: verdict %v", c.name, v)
			continue
		}
		text, err := pack(a, true, size)
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			continue
		}
		got := new(dns.Msg)
		if err := got.Unpack(text); err != nil || got.Id != m.Id {
			t.Errorf("%s: %v", c.name, err)
		}
		if name := dns.RcodeToString[got.Rcode]; name != c.want && !(c.want == "BADVERS" && got.Rcode == dns.RcodeBadVers) {
			t.Errorf("%s: %s, not %s", c.name, name, c.want)
		}
	}
	answer := question("web.", dns.TypeA)
	answer.Response = true
	for _, scrap := range [][]byte{nil, {1, 2, 3}, packed(t, answer)} {
		if v, _, _ := z.judge(scrap, true); v != drop {
			t.Errorf("%x is answered", scrap)
		}
	}
	if v, m, _ := z.judge(packed(t, question("web.", dns.TypeA))[:15], true); v != reply || m.Rcode != dns.RcodeFormatError {
		t.Error("half a question")
	}
}

// A bridge that is called like a top-level domain does not hide that domain.
func TestBridgeCalledLikeADomain(t *testing.T) {
	for bridge, want := range map[string]verdict{"dev": forward, "xn--p1ai": forward, "br0": reply, "dev_1": reply, "docker-net": reply} {
		z := newZone(View{Bridge: bridge, Records: []Record{{Names: []string{"web"}, Addrs: addrs("10.0.0.5")}}})
		if v, _, _ := z.judge(packed(t, question("go."+bridge+".", dns.TypeA)), true); v != want {
			t.Errorf("go.%s: %v", bridge, v)
		}
		if _, m, _ := z.judge(packed(t, question("web."+bridge+".", dns.TypeA)), true); said(m) != "NOERROR 10.0.0.5" {
			t.Errorf("web.%s: %v", bridge, m)
		}
	}
}

// A network that reaches nobody elsewhere reaches nobody by the names it asks for.
func TestClosed(t *testing.T) {
	v := testView
	v.Closed = true
	z := newZone(v)
	for name, want := range map[string]string{
		"web.": "NOERROR 10.0.0.5", "web.br0.": "NOERROR 10.0.0.5", "gone.": "NXDOMAIN",
		"secret.example.com.": "REFUSED", "1.2.0.192.in-addr.arpa.": "REFUSED", ".": "REFUSED",
	} {
		if v, m, _ := z.judge(packed(t, question(name, dns.TypeA)), true); v != reply || said(m) != want {
			t.Errorf("%s: verdict %d, %v, not %s", name, v, m, want)
		}
	}
}

// One bridge's questions leave room for the others', however many addresses they come from.
func TestShares(t *testing.T) {
	b := bounds{forwards: newCount(), conns: newCount()}
	a := netip.MustParseAddr("fd00::")
	took := 0
	for range 2 * maxForwards {
		if a = a.Next(); b.take(&b.forwards, "br0", a, mostForwards) {
			took++
		}
	}
	if took != maxPerBridge {
		t.Errorf("one bridge takes %d places of %d", took, maxForwards)
	}
	one := netip.MustParseAddr("10.1.0.2")
	for took = 0; b.take(&b.forwards, "br1", one, mostForwards); took++ {
	}
	if took != maxPerClient {
		t.Errorf("a client of another bridge takes %d places, not %d", took, maxPerClient)
	}
}

func TestRotates(t *testing.T) {
	z := newZone(testView)
	first := map[string]int{}
	for range 30 {
		_, m, _ := z.judge(packed(t, question("many.", dns.TypeA)), true)
		first[m.Answer[0].(*dns.A).A.String()]++
	}
	if fmt.Sprint(first) != "map[10.0.0.11:10 10.0.0.12:10 10.0.0.13:10]" {
		t.Error(first)
	}
}

// 1,000 containers of one name do not fit into a datagram: TC says so, and TCP has them all.
func TestThousandOfOneName(t *testing.T) {
	v := View{Bridge: "br0"}
	for i := range 1000 {
		v.Records = append(v.Records, Record{Names: []string{"worker"}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}})
	}
	z := newZone(v)
	q := question("worker.", dns.TypeA)
	for _, c := range []struct {
		edns uint16
		max  int
	}{{0, 512}, {100, 512}, {800, 800}, {65535, maxReply}} {
		p := q.Copy()
		if c.edns != 0 {
			p.SetEdns0(c.edns, true)
		}
		_, m, size := z.judge(packed(t, p), true)
		text, err := pack(m, true, size)
		if err != nil || len(text) > c.max || len(text) < c.max-32 {
			t.Errorf("EDNS %d: %d bytes: %v", c.edns, len(text), err)
		}
		got := new(dns.Msg)
		if err := got.Unpack(text); err != nil || !got.Truncated || (got.IsEdns0() != nil) != (c.edns != 0) || c.edns != 0 && !got.IsEdns0().Do() {
			t.Errorf("EDNS %d: %v", c.edns, err)
		}
	}
	_, m, _ := z.judge(packed(t, q), true)
	text, err := pack(m, false, 0)
	if err != nil {
		t.Fatal(err)
	}
	got := new(dns.Msg)
	if err := got.Unpack(text); err != nil || got.Truncated || len(got.Answer) != 1000 {
		t.Error(err, len(got.Answer))
	}
}

// The name of an address is that which dns.ReverseAddr makes, and no other.
func TestReverse(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 1))
	for i := range 2000 {
		var b [16]byte
		for j := range b {
			b[j] = byte(r.Uint32())
		}
		a := netip.AddrFrom16(b)
		if i%2 == 0 {
			a = netip.AddrFrom4([4]byte(b[:4]))
		}
		name, err := dns.ReverseAddr(a.String())
		if err != nil {
			t.Fatal(err)
		}
		if got, ok := reverse(name); !ok || got != a {
			t.Errorf("%s is %s, not %s", name, got, a)
		}
		if _, ok := reverse("x" + name); ok {
			t.Errorf("x%s is an address", name)
		}
	}
	for _, name := range []string{"in-addr.arpa.", ".in-addr.arpa.", "1.2.3.in-addr.arpa.", "01.2.3.4.in-addr.arpa.", "256.2.3.4.in-addr.arpa.", "ip6.arpa.", "fd00::1.in-addr.arpa."} {
		if a, ok := reverse(name); ok {
			t.Errorf("%s is %s", name, a)
		}
	}
}

func FuzzJudge(f *testing.F) {
	for _, m := range []*dns.Msg{question("web.", dns.TypeA), question("many.br0.", dns.TypeAAAA), question("5.0.0.10.in-addr.arpa.", dns.TypePTR),
		question("example.com.", dns.TypeANY), question(".", dns.TypeNS), question("gone.", dns.TypeHTTPS).SetEdns0(1400, true)} {
		f.Add(packed(f, m), true)
	}
	f.Add([]byte("\x00\x01\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\xc0\x0c\x00\x01\x00\x01"), true) // a name that points at itself
	f.Add([]byte("\x00\x01\x28\x00\xff\xff\xff\xff\xff\xff\xff\xff"), false)
	z := newZone(testView)
	f.Fuzz(func(t *testing.T, packet []byte, allowed bool) {
		if len(packet) > maxQuestion {
			return
		}
		v, m, size := z.judge(packet, allowed)
		if v == drop {
			return
		}
		if m.Id != uint16(packet[0])<<8|uint16(packet[1]) {
			t.Fatal("another ID")
		}
		if v == forward {
			if !allowed || len(m.Question) != 1 {
				t.Fatalf("forwarded: %v", m)
			}
			m = failure(m)
		}
		text, err := pack(m, true, size)
		if err != nil {
			t.Fatalf("%v: %v", err, m)
		}
		if len(text) > maxReply || !m.Response {
			t.Fatalf("%d bytes: %v", len(text), m)
		}
		if !allowed && (m.Rcode != dns.RcodeRefused || len(m.Answer) > 0 || len(text) > len(packet)+11) { // 11: an OPT record
			t.Fatalf("a stranger with %d bytes is told %d: %v", len(packet), len(text), m)
		}
		if v, _, _ := z.judge(text, true); v != drop {
			t.Fatal("an answer is answered")
		}
	})
}

func FuzzMatch(f *testing.F) {
	up := question("example.com.", dns.TypeA)
	up.Id = 0x4142
	a := new(dns.Msg)
	a.SetReply(up)
	a.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: "example.com.", Rrtype: 1, Class: 1, Ttl: 5}, A: addr("192.0.2.1").AsSlice()}}
	f.Add(packed(f, a))
	a.Truncated = true
	f.Add(packed(f, a)[:40])
	f.Add(packed(f, a.SetEdns0(1232, true)))
	q := question("Example.com.", dns.TypeA).SetEdns0(4096, false)
	f.Fuzz(func(t *testing.T, packet []byte) {
		m := match(packet, up)
		if m == nil {
			return
		}
		m = fit(m, q)
		text, err := pack(m, true, sizeOf(q))
		if err != nil {
			t.Fatal(err)
		}
		if len(text) > maxReply || m.Id != q.Id || m.Question[0] != q.Question[0] {
			t.Fatalf("%d bytes: %v", len(text), m)
		}
	})
}

func FuzzResolvConf(f *testing.F) {
	f.Add([]byte("nameserver 127.0.0.53\noptions edns0 trust-ad timeout:1 attempts:3\nsearch .\n"))
	f.Add([]byte("nameserver fe80::1%eth0\nnameserver\nnameserver x\nnameserver ::ffff:10.0.0.1\noptions timeout:99999999999999999999 attempts:-1"))
	f.Fuzz(func(t *testing.T, text []byte) {
		c := parseResolvConf(text)
		if len(c.servers) < 1 || len(c.servers) > maxServers || c.timeout <= 0 || c.timeout > maxTry || c.attempts < 1 || c.attempts > maxAttempts {
			t.Fatalf("%+v", c)
		}
		for _, a := range c.servers {
			if !a.IsValid() || a.Is4In6() {
				t.Fatal(a)
			}
		}
	})
}

func BenchmarkJudge(b *testing.B) {
	v := View{Bridge: "br0"}
	for i := range 1000 {
		v.Records = append(v.Records, Record{Names: []string{fmt.Sprint("c", i)}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}})
	}
	z := newZone(v)
	packet := packed(b, question("c500.", dns.TypeA))
	b.ReportAllocs()
	for b.Loop() {
		_, m, size := z.judge(packet, true)
		if _, err := pack(m, true, size); err != nil {
			b.Fatal(err)
		}
	}
}
