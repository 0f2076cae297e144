package filter

import (
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/bpf"

	"vswitch/frame"
)

// naive evaluates a tree test by test, each as a program of its own in the virtual
// machine of golang.org/x/net/bpf. ends says that a load failed, which ends it all.
func naive(t testing.TB, c *cond, b []byte) (yes, ends bool) {
	switch c.op {
	case condAnd:
		for _, k := range c.kids {
			if yes, ends = naive(t, k, b); !yes || ends {
				return false, ends
			}
		}
		return true, false
	case condOr:
		for _, k := range c.kids {
			if yes, ends = naive(t, k, b); yes || ends {
				return yes, ends
			}
		}
		return false, false
	case condNot:
		yes, ends = naive(t, c.kids[0], b)
		return !yes && !ends, ends
	case condConst:
		return c.yes, false
	}
	code := append([]bpf.RawInstruction(nil), c.test.load...)
	code = append(code,
		bpf.RawInstruction{Op: c.test.jump, Jf: 1, K: c.test.k},
		bpf.RawInstruction{Op: opRET, K: 2},
		bpf.RawInstruction{Op: opRET, K: 1})
	switch runVM(t, code, b) {
	case 2:
		return true, false
	case 1:
		return false, false
	}
	return false, true
}

func runVM(t testing.TB, code []bpf.RawInstruction, b []byte) int {
	list, ok := bpf.Disassemble(code)
	if !ok {
		t.Fatalf("x/net/bpf cannot read %v", code)
	}
	vm, err := bpf.NewVM(list)
	if err != nil {
		t.Fatalf("x/net/bpf refuses %v: %v", code, err)
	}
	n, err := vm.Run(b)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestAgainstTree compares programs with the trees they were made from, and our way of
// running them with that of golang.org/x/net/bpf.
func TestAgainstTree(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 1))
	frames := samples(r, 60)
	for _, expr := range (grammar{r}).some(300) {
		compareWithTree(t, expr, frames)
	}
}

func compareWithTree(t testing.TB, expr string, frames []sample) {
	p, err := Compile(expr)
	if err != nil && !strings.Contains(err.Error(), "no frame can match") {
		t.Fatal(err)
	}
	tree := (&parser{expr: expr}).parse()
	for _, s := range frames {
		b := s.bytes()
		want, _ := naive(t, tree, b)
		if err != nil {
			if want {
				t.Fatalf("%q matches %x, and is refused: %v", expr, b, err)
			}
			continue
		}
		if got := p.Match(b, frame.Tag{}, len(b)); got != want {
			t.Fatalf("%q: %v, its tree says %v to %x\n%s", expr, got, want, b, p.Disassembly())
		}
		if got := runVM(t, p.Instructions(), b) != 0; got != want {
			t.Fatalf("%q: x/net/bpf says %v, its tree %v to %x\n%s", expr, got, want, b, p.Disassembly())
		}
		if rest, tag, ok := s.beside(); ok {
			if got := p.Match(rest, tag, len(b)); got != want {
				t.Fatalf("%q, tag beside: %v, its tree says %v to %x\n%s", expr, got, want, b, p.Disassembly())
			}
		}
	}
}

// TestLongWays needs jumps further than one byte reaches.
func TestLongWays(t *testing.T) {
	r := rand.New(rand.NewPCG(9, 2))
	frames := samples(r, 100)
	var hosts, ports, mixed []string
	for i := range 700 {
		hosts = append(hosts, "10.9."+strconv.Itoa(i/200)+"."+strconv.Itoa(i%200))
		ports = append(ports, strconv.Itoa(10000+i))
		mixed = append(mixed, "(tcp src port "+strconv.Itoa(i)+" and not ip["+strconv.Itoa(i%40)+"] = 3)")
	}
	for _, expr := range []string{
		"ip host " + strings.Join(hosts, " or "),
		"not host " + strings.Join(hosts[:300], " or ") + " or 10.0.0.1",
		"tcp port " + strings.Join(ports[:450], " or ") + " or 80",
		strings.Join(mixed[:280], " or "),
		"not (" + strings.Join(mixed[:150], " and ") + ") and (" + strings.Join(mixed[:130], " or ") + " or ip)",
	} {
		p, err := Compile(expr)
		if err != nil {
			t.Fatal(err)
		}
		if n := len(p.Instructions()); n < 500 {
			t.Errorf("%.40q… has %d instructions only", expr, n)
		}
		compareWithTree(t, expr, frames)
	}
}

// TestTooLarge compiles the longest of expressions: each ends soon, with a program or
// a reason.
func TestTooLarge(t *testing.T) {
	fill := func(start, repeat, end string) string {
		n := (MaxExpr - len(start) - len(end)) / len(repeat)
		return start + strings.Repeat(repeat, n) + end
	}
	for _, c := range []struct{ expr, reason string }{
		{fill("", " ", ""), ""},
		{fill("ip", "||ip", ""), ""},
		{fill("ah", "||ah", ""), "too large"},
		{fill("ah", "&&ah", ""), "too large"},
		{fill("ip", "||!ah", ""), "too large"},
		{fill("port 1", " or 1", ""), "too large"},
		{fill("", "(", ""), "nested"},
		{fill("", "not ", "tcp"), "nested"},
		{fill("", "!", "tcp"), "nested"},
		{fill("", "-", "1=1"), "nested"},
		{fill("", "ip[", ""), "nested"},
		{fill("1", "+1", "=1"), "no frame"},
		{fill("ip[1]", "+ip[1]", "=1"), "too large"},
		{fill("1", "-(1", ""), "nested"},
		{fill("ip[1]", "<<ip[2]&ip[3]|ip[4]", "=1"), "too large"},
		{fill("len=ip[0]", " or len=ip[0]", ""), ""},
		{fill("vlan", " or vlan", ""), "too large"},
		{fill("port", " x", ""), "followed by a number"},
		{fill("", "a", ""), "no word"},
		{fill("net ", "1:", ""), "neither an IPv6"},
		{fill("ip host 1.2.3.4", " or 1.2.3.4", ""), ""},
		{fill("ip6 net ::/127", " or 1::/127", ""), "too large"},
		{fill("", "tcp port 1 and not host 1.2.3.4 or ", "tcp"), ""},
		{fill("portrange 1-9", " or portrange 1-9 and ah", ""), "too large"},
		{distinct("host 1::"), "too large"},
		{distinct("port "), "too large"},
		{fill("", "x", "x") + "x", "longer than"},
	} {
		start := time.Now()
		p, err := Compile(c.expr)
		took := time.Since(start)
		if took > 20*time.Second {
			t.Errorf("%.30q… took %v", c.expr, took)
		}
		t.Logf("%.30q… %v", c.expr, took.Round(time.Millisecond/10))
		switch {
		case err != nil && (c.reason == "" || !strings.Contains(err.Error(), c.reason)):
			t.Errorf("%.30q…: %v, want %q", c.expr, err, c.reason)
		case err == nil && c.reason != "":
			t.Errorf("%.30q…: no error, want %q", c.expr, c.reason)
		case err == nil:
			if n := len(p.Instructions()); n > MaxLen {
				t.Errorf("%.30q… has %d instructions", c.expr, n)
			}
		}
	}
}

// distinct makes a long expression of primitives that differ.
func distinct(primitive string) string {
	var b strings.Builder
	for i := 1; b.Len() < MaxExpr-40; i++ {
		b.WriteString(primitive + strconv.Itoa(i) + " or ")
	}
	return b.String() + primitive + "1"
}

// someExprs are what the fuzz targets begin with.
var someExprs = []string{
	"", "tcp", "host 10.0.0.1 and tcp port 80", "vlan 5 and (arp or ip6 host 2001:db8::1)", "not port 80 or 443",
	"tcp[tcpflags] & (tcp-syn|tcp-ack) = tcp-syn", "ip[6:2] & 0x1fff = 0", "ether[ether[14] : 4] / len > 2 ^ ip[ip[0]-20]",
	"ether host 02:00:00:00:00:01 and not broadcast", "net 10.0.0.0 mask 255.0.255.0", "portrange 22-http", `ip proto \icmp or less 64`,
	"vlan and vlan 7 and stp", "ether[10:4] = 5 or ether[13:2] = 7 or ether[11:4] > 9 or ether[15] = 1", "((((", "1 << 32", "a::b",
}

func FuzzCompile(f *testing.F) {
	for _, expr := range someExprs {
		f.Add(expr)
	}
	frames := samples(rand.New(rand.NewPCG(9, 3)), 20)
	f.Fuzz(func(t *testing.T, expr string) {
		p, err := Compile(expr)
		if err != nil {
			e, ok := err.(*Error)
			if !ok || e.Offset < 0 || e.Offset > len(expr) || e.Reason == "" || p != nil {
				t.Fatalf("%q: %v, %+v", expr, p, err)
			}
			if !strings.Contains(e.Reason, "no frame can match") {
				return
			}
		}
		if strings.TrimSpace(expr) != "" && len(expr) < 200 {
			compareWithTree(t, expr, frames)
		}
	})
}

func FuzzMatch(f *testing.F) {
	for _, s := range samples(rand.New(rand.NewPCG(9, 4)), 30) {
		f.Add(s.wire)
	}
	var programs []*Program
	for _, expr := range append((grammar{rand.New(rand.NewPCG(9, 5))}).some(100), someExprs...) {
		if p, err := Compile(expr); err == nil && p.raw != nil {
			programs = append(programs, p)
		}
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		for _, p := range programs {
			want := runVM(t, p.Instructions(), b) != 0
			if got := p.Match(b, frame.Tag{}, len(b)); got != want {
				t.Fatalf("%q: %v, x/net/bpf says %v to %x", p, got, want, b)
			}
			if rest, tag, ok := (sample{b, len(b)}).beside(); ok && p.Match(rest, tag, len(b)) != want {
				t.Fatalf("%q, tag beside: %v, want %v to %x", p, !want, want, b)
			}
		}
	})
}

// TestKernelInstructions runs them as for a frame whose tag the kernel took out.
func TestKernelInstructions(t *testing.T) {
	p, err := Compile("tcp port 80")
	if err != nil {
		t.Fatal(err)
	}
	in := p.KernelInstructions()
	if len(in) != len(p.Instructions())+3 {
		t.Fatalf("%d instructions", len(in))
	}
	// x/net/bpf has no tags: what is behind the question for one is the program.
	if runVM(t, in[3:], syn) == 0 {
		t.Error("it does not take what the filter takes")
	}
	if list, ok := bpf.Disassemble(in); !ok || list[0] != (bpf.LoadExtension{Num: bpf.ExtVLANTagPresent}) {
		t.Errorf("it begins with %v", list[0])
	}
}

func benchmark(b *testing.B, expr string, tag frame.Tag) {
	p, err := Compile(expr)
	if err != nil {
		b.Fatal(err)
	}
	yes := 0
	for b.Loop() {
		if p.Match(syn, tag, len(syn)) {
			yes++
		}
	}
}

func BenchmarkMatch(b *testing.B) {
	vlan := frame.Tag{TPID: frame.TPID8021Q, TCI: 5}
	for _, c := range []struct {
		name, expr string
		tag        frame.Tag
	}{
		{"takes", "host 10.0.0.1 and tcp port 80", frame.Tag{}},
		{"other-host", "host 10.0.0.9 and tcp port 80", frame.Tag{}},
		{"tagged", "vlan 5 and host 10.0.0.1 and tcp port 80", vlan},
		{"other-type", "arp", frame.Tag{}},
		{"20-hosts", "host 1.1.1.1 or 1.1.1.2 or 1.1.1.3 or 1.1.1.4 or 1.1.1.5 or 1.1.1.6 or 1.1.1.7 or 1.1.1.8 or 1.1.1.9 or 1.1.2.1 or 1.1.2.2 or 1.1.2.3 or 1.1.2.4 or 1.1.2.5 or 1.1.2.6 or 1.1.2.7 or 1.1.2.8 or 1.1.2.9 or 1.1.3.1 or 1.1.3.2", frame.Tag{}},
	} {
		b.Run(c.name, func(b *testing.B) { benchmark(b, c.expr, c.tag) })
	}
}

func BenchmarkCompile(b *testing.B) {
	b.ReportAllocs()
	for b.Loop() {
		if _, err := Compile("host 10.0.0.1 and tcp port 80"); err != nil {
			b.Fatal(err)
		}
	}
}
