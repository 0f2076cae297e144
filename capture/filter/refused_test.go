package filter

import (
	"errors"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// refused are expressions that are wrong, here and for tcpdump: where, and what the
// reason says.
var refused = []struct {
	expr   string
	offset int
	reason string // a part of it
}{
	// Words.
	{"tcp prt 80", 4, `"prt" at 5: no word of the filter language (did you mean "port"?)`},
	{"TCP", 0, `did you mean "tcp"?`},
	{"hots 1.2.3.4", 0, `did you mean "host"?`},
	{"host 1.2.3.4 AND tcp", 13, `did you mean "and"?`},
	{"foo", 0, `"foo" at 1: no word`},
	{"tcp udp", 4, `"and" or "or" is missing before it`},
	{"ip tcp port 80", 3, `"and" or "or" is missing`},
	{"tcp tcp port 80", 4, `"and" or "or" is missing`},
	{"port 80 443", 8, `a word is missing`},
	{"tcp #", 4, "no character of the filter language"},
	{"tcp; udp", 3, "no character"},
	{"tcp \x00", 4, "no character"},
	{"tcp é", 4, "no character"},
	{`host 1.2.3.4\`, 12, "a name must follow it"},
	{`\tcp`, 0, "no word"},
	{"and tcp", 0, "cannot begin a condition"},
	{"or", 0, "cannot begin"},
	{"mask 5", 0, "cannot begin"},
	{"tcp and", 7, `it ends after "and": expected a condition`},
	{"ip and not", 10, `it ends after "not"`},
	{"not", 3, "it ends after"},
	{"not and tcp", 4, "cannot begin"},
	{"len > 5 and and tcp", 12, "cannot begin"},
	{"tcp or )", 7, "a condition is expected"},
	{"()", 1, "a condition is expected"},
	{"(tcp", 0, "this parenthesis is never closed"},
	{"tcp)", 3, "there is no ( that it closes"},
	{"port (80", 5, "never closed"},
	{"(tcp udp)", 5, "is missing"},
	{"tcp & udp", 4, "cannot follow a condition"},
	{"tcp | udp", 4, "cannot follow"},
	{"tcp=6", 3, "cannot follow"},
	{"ether", 0, "every frame has it"},
	{"radio", 0, "not for Ethernet"},
	{"type mgt", 0, "not for Ethernet"},

	// Ids without qualifiers.
	{"10.0.0.1", 0, "host 10.0.0.1"},
	{"1.2", 0, "net 1.2"},
	{"1.2.3.0/24", 0, "net 1.2.3.0"},
	{"::1", 0, "host ::1"},
	{"5", 0, "port 5, vlan 5 or proto 5"},
	{"0:1:2:3:4:5", 0, "ether host 0:1:2:3:4:5"},
	{"tcp or 80", 7, "port 80"},
	{"tcp and 1.2.3.4", 8, "host 1.2.3.4"},
	{"(port 80) or 443", 13, "port 443"},
	{"not (host 1.2.3.4) or 1.2.3.5", 22, "host 1.2.3.5"},
	{"less 10 or 20", 11, "port 20"},
	{"len > 5 or 6", 11, "port 6"},
	{"vlan 5 or 6", 10, "vlan 6"},

	// Addresses.
	{"src", 3, "src is followed by an address"},
	{"src host", 8, "src host is followed by an address"},
	{"src or host 1.2.3.4", 4, "src is followed by an address"},
	{"src and", 4, "src is followed"},
	{"dst src 1.2.3.4", 4, "dst is followed"},
	{"host host 1.2.3.4", 5, "host is followed"},
	{"src proto 6", 4, "src is followed"},
	{"host foo", 5, "host names are not looked up"},
	{"host 256.1.1.1", 5, "no IPv4 address"},
	{"host 1.2.3.4.5", 5, "not an address"},
	{"host 0x10.1.1.1", 5, "not an address"},
	{"host 1:2:3", 5, "neither an IPv6 nor a MAC"},
	{"host fe80::1%eth0", 12, "and"},
	{"tcp host 1.2.3.4", 9, "write tcp and host 1.2.3.4"},
	{"tcp src 1.2.3.4", 8, "write tcp and host"},
	{"icmp host ::1", 10, "write icmp and host ::1"},
	{"udp net 10", 8, "udp has no addresses"},
	{"ip6 host 1.2.3.4", 9, "no IPv6 address"},
	{"ip6 net 10.0.0.0/8", 8, "no IPv6 address"},
	{"ip host ::1", 8, "no IPv4 address"},
	{"arp host ::1", 9, "no IPv4 address"},
	{"ether host 1.2.3.4", 11, "no MAC address"},
	{"ether host ::1", 11, "no MAC address"},
	{"ether host localhost", 11, "names are not looked up"},
	{"ether net 10", 10, "no MAC address"},
	{"ether 0:1:2:3:4:5", 6, "say what it is: ether host 0:1:2:3:4:5"},
	{"tcp 80", 4, "a word is missing before it"},
	{"ether net 0:1:2:3:4:5", 10, "no nets of MAC"},
	{"host 0:1:2:3:4:5", 5, "behind ether host"},
	{"arp host 0:1:2:3:4:5", 9, "behind ether host"},
	{"src 0:1:2:3:4:5", 4, "behind ether host"},
	{"ether host 0:1:2:3:4", 11, "neither"},
	{"ether host 0:1:2:3:4:5:6", 11, "neither"},
	{"ether host $05", 11, "no character"},
	{"net 10.1.2.3.4", 4, "not an address"},
	{"net 10.1.2.0/8", 4, "bits outside of the mask"},
	{"net 10.1.0.0/33", 13, "0 to 32"},
	{"net 10.1.0.0/", 13, "0 to 32"},
	{"net 10.1.0.0 mask 255.0.0.0", 4, "bits outside of the mask"},
	{"net 10.1.0.0 mask 8", 18, "a mask such as"},
	{"net ::1/129", 8, "0 to 128"},
	{"net 2001:db8::1/32", 4, "bits outside of the prefix"},
	{"net ::1 mask ffff::", 8, "prefix length"},
	{"host 1.2.3.0/24", 12, "write net 1.2.3.0"},
	{"src 2001:db8::/64", 14, "write net 2001:db8::"},

	// Ports.
	{"tcp port", 8, "tcp port is followed by a number"},
	{"port 65536", 5, "0 to 65535"},
	{"port -1", 5, "is followed by a number"},
	{"port foo", 5, "or a name such as http"},
	{"port 80-90", 5, "write portrange 80-90"},
	{"port tcp", 5, "is followed by a number"},
	{"port (tcp or 80)", 6, "is followed by a number"},
	{"port 1.2.3.4", 5, "is followed by a number"},
	{"port 80 and 1.2.3.4", 12, "is followed by a number"},
	{"portrange 1-70000", 10, "two numbers"},
	{"portrange 80-foo", 10, "two numbers"},
	{"ip port 80", 8, "ip has no ports"},
	{"icmp port 80", 10, "icmp has no ports"},
	{"ether port 80", 11, "ether has no ports"},
	{"udp port ssh", 9, "a service of tcp"},
	{"tcp port tftp", 9, "a service of udp"},

	// Protocols.
	{"proto", 5, "proto is followed by"},
	{"proto 1.2.3.4", 6, "proto is followed by"},
	{"ip proto foo", 9, "not the name of a protocol over IP"},
	{`ip proto \arp`, 9, "not the name of a protocol over IP"},
	{`ether proto \tcp`, 12, "not the name of a protocol over Ethernet"},
	{`iso proto \tcp`, 10, "clnp, esis or isis"},
	{"tcp proto 5", 10, "only ether, ip, ip6 and iso"},
	{"arp proto 5", 10, "only ether, ip, ip6 and iso"},
	{"tcp broadcast", 4, "only ether and ip"},
	{"ip6 broadcast", 4, "only ether and ip"},
	{"arp multicast", 4, "only ether, ip and ip6"},

	// VLANs and lengths.
	{"vlan 4096", 5, "0 to 4095"},
	{"vlan tcp", 5, "is missing"},
	{"vlan (tcp)", 6, "0 to 4095"},
	{"less", 4, "a number of bytes"},
	{"greater len", 8, "a number of bytes"},

	// Arithmetic.
	{"len", 3, "a comparison is expected"},
	{"1 + 1", 5, "a comparison is expected"},
	{"tcp[0]", 6, "a comparison is expected"},
	{"ether[0] & 1", 12, "a comparison is expected"},
	{"ether[0] = 1 = 1", 13, "cannot follow"},
	{"tcp[13]<>2", 8, "a number, len or bytes"},
	{"tcp[13] => 2", 9, "a number, len or bytes"},
	{"tcp[13] =< 2", 9, "a number, len or bytes"},
	{"tcp[-] = 1", 5, "a number, len or bytes"},
	{"ip[len-1] = 1", 3, "write minus with blanks"},
	{"ip[0:3] = 1", 5, "1, 2 or 4 bytes"},
	{"ip[0:0] = 1", 5, "1, 2 or 4 bytes"},
	{"ip[0:(1)] = 1", 5, "1, 2 or 4 bytes"},
	{"ip[0:1 :2] = 1", 7, "a closing ]"},
	{"ip[0 = 1", 5, "a closing ]"},
	{"ip[0]] = 1", 5, "a comparison is expected"},
	{"ip[[0] = 1", 3, "a number, len or bytes"},
	{"tcp[13:1:1] = 1", 4, "neither an IPv6"},
	{"len[0] = 1", 3, "a comparison is expected"},
	{"stp[0] = 1", 0, "its bytes cannot be named"},
	{"esp[0] = 1", 0, "its bytes cannot be named"},
	{"1 = tcp", 7, "tcp[ is expected"},
	{"len > tcp and ip", 10, "tcp[ is expected"},
	{"(len > 5", 0, "never closed"},
	{"(len + 5 > 7) + 3 = 8", 9, "is expected"},
	{"1/0 = 2", 2, "division by zero"},
	{"ip[0] / 0 = 1", 8, "division by zero"},
	{"ip[0] % 0 = 1", 8, "modulus by zero"},
	{"ip[0] << 40 = 0", 9, "more than 31"},
	{"ip[0] >> 32 = 0", 9, "more than 31"},
	{"4294967296 = len", 0, "more than 32 bits"},
	{"0x = 1", 0, "no hexadecimal number"},
	{"0xg = 1", 0, "no hexadecimal number"},
	{"09 = len", 0, "octal"},

	// What no frame can be.
	{"1 = 2", 0, "no frame can match"},
	{"arp and tcp", 0, "no frame can match"},
	{"tcp and not ip and not ip6", 0, "no frame can match"},
	{"ether proto 2048 and vlan", 0, "no frame can match"},
	{"tcp[13] & 2 != 0 && udp", 0, "no frame can match"},
	{"gateway foo", 0, "host names"},
}

// onlyHere are refused by us alone, and documented.
var onlyHere = []struct {
	expr   string
	offset int
	reason string
}{
	{"host 80", 5, "a number, where host is followed by an address"},
	{"host 1.2.3.4 and 80", 17, "write port 80 or proto 80"},
	{"ip proto 256", 9, "up to 255"},
	{"ether proto 65536", 12, "up to 65535"},
	{"ip protochain 6", 3, "is missing"},
	{"protochain 6", 0, "loop"},
	{"mpls", 0, "not supported"},
	{"pppoes", 0, "not supported"},
	{"geneve", 0, "not supported"},
	{"llc", 0, "not supported"},
	{"byte 0 = 1", 0, "not supported"},
	{"inbound", 0, "not a filter here"},
	{"ifindex 1", 0, "not a filter here"},
	{"fddi[0] = 1", 0, "not for Ethernet"},
	{"host localhost", 5, "host names are not looked up"},
	{"l1", 0, "no word"},
}

// onlyThere are taken by us, and not by tcpdump.
var onlyThere = []string{
	"proto tcp", "ip proto icmp", "ether proto ip", "proto (tcp or udp)", "ip proto icmp6", "gre", "ether proto lldp",
	"net 10/8", "net 0/0", "port 80 or (443 or tcp)", "ip6 proto icmp6 and not ether proto lacp",
	"255 % ip[0] = 1", "portrange ftp-data-http", "1 << ip[40] > 4",
}

func TestRefused(t *testing.T) {
	for _, c := range append(refused, onlyHere...) {
		p, err := Compile(c.expr)
		var e *Error
		if !errors.As(err, &e) || p != nil {
			t.Errorf("%q: %v, want an *Error", c.expr, err)
			continue
		}
		if e.Expr != c.expr || e.Offset != c.offset || !strings.Contains(e.Reason, c.reason) {
			t.Errorf("%q: offset %d, %s; want %d, %q", c.expr, e.Offset, e.Reason, c.offset, c.reason)
		}
		if want := "filter " + strconv.Quote(c.expr) + ": " + e.Reason; err.Error() != want {
			t.Errorf("%q: error %q", c.expr, err)
		}
	}
	for _, expr := range onlyThere {
		if _, err := Compile(expr); err != nil {
			t.Errorf("%q: %v", expr, err)
		}
	}
}

// TestRefusedByTcpdump asks it about the same.
func TestRefusedByTcpdump(t *testing.T) {
	needTcpdump(t)
	path := writePcap(t, nil)
	type question struct {
		expr    string
		refused bool
	}
	queue := make(chan question)
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for q := range queue {
				_, refusal, err := tcpdump(path, q.expr, 0)
				if err != nil || (refusal != "") != q.refused {
					t.Errorf("%q: tcpdump says %q, %v; refused should be %v", q.expr, refusal, err, q.refused)
				}
			}
		})
	}
	for _, c := range refused {
		if !strings.Contains(c.expr, "\x00") {
			queue <- question{c.expr, true}
		}
	}
	for _, c := range onlyHere {
		switch c.expr {
		case "inbound", "ifindex 1", "host localhost":
			// It knows the words, and refuses them for a file, or depends on DNS.
		default:
			queue <- question{c.expr, false}
		}
	}
	for _, expr := range onlyThere {
		queue <- question{expr, true}
	}
	close(queue)
	wg.Wait()
}

// TestServices compares ports with those of /etc/services, where it has the name.
func TestServices(t *testing.T) {
	text, err := os.ReadFile("/etc/services")
	if err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip("no /etc/services: ", err)
	}
	known := map[string]service{}
	for line := range strings.Lines(string(text)) {
		line, _, _ = strings.Cut(line, "#")
		fields := strings.Fields(line)
		if len(fields) < 2 {
			continue
		}
		number, proto, _ := strings.Cut(fields[1], "/")
		port, _, _ := parseNumber(number)
		s := service{port, map[string]uint32{"tcp": protoTCP, "udp": protoUDP}[proto]}
		for i, name := range fields {
			if old, ok := known[name]; ok && old.proto != s.proto {
				s.proto = 0
			}
			if i != 1 {
				known[name] = s
			}
		}
	}
	found := 0
	for name, s := range services {
		want, ok := known[name]
		if !ok {
			continue
		}
		found++
		if s.port != want.port || s.proto != want.proto {
			t.Errorf("%s: %+v, /etc/services has %+v", name, s, want)
		}
	}
	t.Logf("%d of %d services compared", found, len(services))
}

// TestLongError shows the part of a long expression that is wrong.
func TestLongError(t *testing.T) {
	_, err := Compile(strings.Repeat("tcp port 80 or ", 50) + "tcp prt 80" + strings.Repeat(" or tcp port 80", 50))
	if err == nil || len(err.Error()) > 300 || !strings.Contains(err.Error(), `"…`) || !strings.Contains(err.Error(), "tcp prt 80") {
		t.Error(err)
	}
}
