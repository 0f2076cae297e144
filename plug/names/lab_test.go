package names

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"
	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

// limit bounds what is promised to happen.
const limit = 10 * time.Second

// site is a gateway with a server, its clients, who is none, and the host's resolvers:
//
//	┌─ c ────────────┐      ┌─ gw ───────────────────────────┐      ┌─ up ──────────────┐
//	│ 10.0.0.2/24    ├──────┤ 10.0.0.1/24      192.0.2.1/24  ├──────┤ 192.0.2.53/24     │
//	│ fd00::2/64     ├──────┤ fd00::1/64                     │      │ 192.0.2.54/24     │
//	└────────────────┘      │           Server               │      └───────────────────┘
//	┌─ stranger ─────┐      │                                │
//	│ 198.51.100.2/24├──────┤ 198.51.100.1/24                │
//	└────────────────┘      └────────────────────────────────┘
type site struct {
	*lab.Lab
	t                   *testing.T
	gw, c, stranger, up *lab.Host
	conf                string // resolv.conf of gw
	s                   *Server
}

func newSite(t *testing.T) *site {
	l := lab.New(t)
	x := &site{Lab: l, t: t, gw: l.Host("gw"), c: l.Host("c"), stranger: l.Host("s"), up: l.Host("up"), conf: filepath.Join(l.Dir(), "resolv.conf")}
	l.Wire(x.gw.Namespace, "br0", "10.0.0.1/24", x.c.Namespace, "eth0", "10.0.0.2/24")
	l.Wire(x.gw.Namespace, "br6", "", x.c.Namespace, "eth6", "")
	x.gw.MustExec("ip", "addr", "add", "fd00::1/64", "dev", "br6", "nodad")
	x.c.MustExec("ip", "addr", "add", "fd00::2/64", "dev", "eth6", "nodad")
	l.Wire(x.gw.Namespace, "lan", "198.51.100.1/24", x.stranger.Namespace, "eth0", "198.51.100.2/24")
	l.Wire(x.gw.Namespace, "wan", "192.0.2.1/24", x.up.Namespace, "eth0", "192.0.2.53/24")
	x.up.MustExec("ip", "addr", "add", "192.0.2.54/24", "dev", "eth0")
	x.stranger.MustExec("ip", "route", "add", "10.0.0.0/24", "via", "198.51.100.1")
	x.resolvers("192.0.2.53")
	x.s = New(x.conf, slog.New(slog.NewTextHandler(io.Discard, nil)))
	x.s.enter = x.gw.Do
	t.Cleanup(func() { x.s.Close() })
	return x
}

func (x *site) resolvers(list ...string) {
	x.t.Helper()
	text := "options timeout:1 attempts:1\n"
	for _, a := range list {
		text += "nameserver " + a + "\n"
	}
	// As tools do: a new file in the place of the old.
	if err := os.WriteFile(x.conf+".new", []byte(text), 0o644); err != nil {
		x.t.Fatal(err)
	}
	if err := os.Rename(x.conf+".new", x.conf); err != nil {
		x.t.Fatal(err)
	}
}

// upstream answers at an address of up. What it is asked is counted.
func (x *site) upstream(at string, answer func(q *dns.Msg, tcp bool) *dns.Msg) *atomic.Int32 {
	x.t.Helper()
	return x.resolver(x.up, at, func(q *dns.Msg, tcp bool, _ net.Addr) *dns.Msg { return answer(q, tcp) })
}

// resolver answers at an address of a host.
func (x *site) resolver(h *lab.Host, at string, answer func(q *dns.Msg, tcp bool, from net.Addr) *dns.Msg) *atomic.Int32 {
	x.t.Helper()
	var asked atomic.Int32
	err := h.Do(func() error {
		pc, err := net.ListenPacket("udp", at+":53")
		if err != nil {
			return err
		}
		l, err := net.Listen("tcp", at+":53")
		if err != nil {
			return err
		}
		for _, srv := range []*dns.Server{{PacketConn: pc}, {Listener: l}} {
			tcp := srv.Listener != nil
			srv.UDPSize = dns.MaxMsgSize
			srv.Handler = dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
				asked.Add(1)
				if m := answer(q, tcp, w.RemoteAddr()); m != nil {
					w.WriteMsg(m)
				}
			})
			started := make(chan struct{})
			srv.NotifyStartedFunc = func() { close(started) }
			done := make(chan struct{})
			go func() { // ends with Shutdown
				defer close(done)
				srv.ActivateAndServe()
			}()
			<-started
			x.t.Cleanup(func() {
				srv.Shutdown()
				<-done
			})
		}
		return nil
	})
	if err != nil {
		x.t.Fatal(err)
	}
	return &asked
}

// found answers any A question with an address.
func found(a string) func(*dns.Msg, bool) *dns.Msg {
	return func(q *dns.Msg, _ bool) *dns.Msg {
		m := new(dns.Msg)
		m.SetReply(q)
		m.RecursionAvailable = true
		m.Answer = []dns.RR{&dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: dns.ClassINET, Ttl: 60}, A: addr(a).AsSlice()}}
		return m
	}
}

// ask asks by UDP or TCP from a namespace.
func ask(from *lab.Host, network, server string, q *dns.Msg, wait time.Duration) (*dns.Msg, error) {
	var c net.Conn
	dial := func() error {
		return from.Do(func() (err error) {
			c, err = net.DialTimeout(network, net.JoinHostPort(server, "53"), wait)
			return err
		})
	}
	err := dial()
	if errors.Is(err, unix.EHOSTUNREACH) { // neighbour discovery gave up: the machine is loaded
		err = dial()
	}
	if err != nil {
		return nil, err
	}
	defer c.Close()
	conn := &dns.Conn{Conn: c, UDPSize: dns.MaxMsgSize}
	conn.SetDeadline(time.Now().Add(wait))
	if err := conn.WriteMsg(q); err != nil {
		return nil, err
	}
	m, err := conn.ReadMsg()
	if err == nil && m.Id != q.Id {
		return nil, errors.New("another ID")
	}
	return m, err
}

func (x *site) want(from *lab.Host, network, server, name string, qtype uint16, want string) {
	x.t.Helper()
	m, err := ask(from, network, server, question(name, qtype), limit)
	if err != nil {
		x.t.Errorf("%s %s of %s: %v, not %s", name, dns.TypeToString[qtype], server, err, want)
	} else if got := said(m); got != want {
		x.t.Errorf("%s %s of %s: %s, not %s", name, dns.TypeToString[qtype], server, got, want)
	}
}

func TestLabTools(t *testing.T) {
	x := newSite(t)
	x.upstream("192.0.2.53", found("203.0.113.7"))
	x.s.Set([]View{testView})
	for _, st := range x.s.Status() {
		if st.Err != "" || fmt.Sprint(st.Listen) != "[10.0.0.1:53 [fd00::1]:53]" {
			t.Fatalf("%+v", st)
		}
	}
	for _, c := range []struct{ args, want string }{
		{"@10.0.0.1 web", "status: NOERROR|10.0.0.5|flags: qr aa rd ra;"},
		{"@10.0.0.1 web.br0 AAAA", "fd00::5"},
		{"@fd00::1 WWW", "10.0.0.5"},
		{"@fd00::1 +tcp six AAAA", "fd00::6"},
		{"@10.0.0.1 -x 10.0.0.5", "PTR\tweb."},
		{"@10.0.0.1 -x fd00::5", "IN PTR web."},
		{"@10.0.0.1 web MX", "status: NOERROR|ANSWER: 0"},
		{"@10.0.0.1 gone", "status: NXDOMAIN|ANSWER: 0"},
		{"@10.0.0.1 example.com", "203.0.113.7|status: NOERROR"},
		{"@10.0.0.1 +noedns example.com", "203.0.113.7|status: NOERROR"},
		{"@10.0.0.1 +tcp example.com", "203.0.113.7"},
		{"@10.0.0.1 +notcp example.com ANY", "status: REFUSED"},
		{"@10.0.0.1 +bufsize=4096 web", "udp: 1232|10.0.0.5"},
		{"@10.0.0.1 +edns=5 +noednsneg web", "status: BADVERS"},
	} {
		out, err := x.c.Exec(append([]string{"dig", "+time=3", "+tries=1"}, strings.Fields(c.args)...)...)
		for _, want := range strings.Split(c.want, "|") {
			if err != nil || !strings.Contains(out, want) {
				t.Errorf("dig %s: no %q: %v\n%s", c.args, want, err, out)
			}
		}
	}
	if out, _ := x.c.Exec("dig", "+time=3", "+tries=1", "@10.0.0.1", "br0", "AXFR"); !strings.Contains(out, "Transfer failed") {
		t.Errorf("dig AXFR: %s", out)
	}
	for _, c := range []struct{ name, server, want string }{
		{"web", "10.0.0.1", "Address: 10.0.0.5"},
		{"web.br0", "10.0.0.1", "Address: fd00::5"},
		{"10.0.0.5", "10.0.0.1", "name = web"},
		{"many", "10.0.0.1", "Address: 10.0.0.13"},
	} {
		if out, err := x.c.Exec("busybox", "nslookup", c.name, c.server); err != nil || !strings.Contains(out, c.want) {
			t.Errorf("nslookup %s %s: no %q: %v\n%s", c.name, c.server, c.want, err, out)
		}
	}
	if out, err := x.c.Exec("busybox", "nslookup", "gone", "10.0.0.1"); err == nil || !strings.Contains(out, "NXDOMAIN") {
		t.Errorf("nslookup gone: %v\n%s", err, out)
	}
}

func TestLabWhoIsAnswered(t *testing.T) {
	x := newSite(t)
	asked := x.upstream("192.0.2.53", found("203.0.113.7"))
	x.s.Set([]View{testView})
	x.want(x.c, "udp", "10.0.0.1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
	x.want(x.gw, "udp", "10.0.0.1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
	x.want(x.gw, "tcp", "fd00::1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
	// The host by an address that is no client's.
	out, err := x.gw.Exec("dig", "+time=3", "+tries=1", "-b", "198.51.100.1", "@10.0.0.1", "web", "+short")
	if err != nil || strings.TrimSpace(out) != "10.0.0.5" {
		t.Error(out, err)
	}
	x.want(x.stranger, "udp", "10.0.0.1", "web.", dns.TypeA, "REFUSED")
	x.want(x.stranger, "udp", "10.0.0.1", "example.com.", dns.TypeA, "REFUSED")
	if m, err := ask(x.stranger, "tcp", "10.0.0.1", question("web.", dns.TypeA), limit); err == nil {
		t.Error("a stranger is answered by TCP:", m)
	}
	if n := asked.Load(); n != 0 {
		t.Errorf("%d questions of a stranger were forwarded", n)
	}
}

func TestLabSetIsAtOnce(t *testing.T) {
	x := newSite(t)
	view := func(label, a string) View {
		v := testView
		v.Records = []Record{{Names: []string{label}, Addrs: addrs(a)}}
		return v
	}
	x.s.Set([]View{view("a", "10.0.0.9")})
	socket := x.s.listeners[addr("10.0.0.1")]
	for i := range 50 {
		x.s.Set([]View{view(fmt.Sprint("c", i), "10.0.0.9")})
		x.want(x.c, "udp", "10.0.0.1", fmt.Sprintf("c%d.", i), dns.TypeA, "NOERROR 10.0.0.9")
		x.want(x.c, "udp", "10.0.0.1", fmt.Sprintf("c%d.", i-1), dns.TypeA, "NXDOMAIN")
	}
	if x.s.listeners[addr("10.0.0.1")] != socket {
		t.Error("the sockets were opened again")
	}
	x.s.Set(nil)
	if m, err := ask(x.c, "udp", "10.0.0.1", question("c49.", dns.TypeA), limit); err == nil {
		t.Error("answered without a view:", m)
	}
	if len(x.s.Status()) != 0 {
		t.Error(x.s.Status())
	}
	x.s.Set([]View{view("a", "10.0.0.9")})
	x.want(x.c, "tcp", "10.0.0.1", "a.", dns.TypeA, "NOERROR 10.0.0.9")
	x.s.Close()
	x.s.Close()
	x.s.Set([]View{view("a", "10.0.0.9")})
	if m, err := ask(x.c, "udp", "10.0.0.1", question("a.", dns.TypeA), limit); err == nil {
		t.Error("answered when closed:", m)
	}
}

func TestLabPortInUse(t *testing.T) {
	x := newSite(t)
	var other net.PacketConn
	err := x.gw.Do(func() (err error) {
		other, err = net.ListenPacket("udp4", "0.0.0.0:53") // as dnsmasq without bind-interfaces
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	listens := func(a string) bool { return (*x.s.asked.Load())[addr(a)] }
	v2 := View{Bridge: "br1", Listen: addrs("10.0.0.1", "10.9.9.9", "0.0.0.0")}
	x.s.Set([]View{testView, v2})
	st := x.s.Status()
	if !strings.Contains(st[0].Err, "listen at 10.0.0.1:53, udp: address already in use: another DNS server has it") || fmt.Sprint(st[0].Listen) != "[[fd00::1]:53]" {
		t.Errorf("%+v", st[0])
	}
	for _, want := range []string{"10.0.0.1 answers for Br0 already", "listen at 10.9.9.9:53, udp: cannot assign requested address: the host has no such address yet", "0.0.0.0:53, udp: that is not an address"} {
		if !strings.Contains(st[1].Err, want) {
			t.Errorf("%+v: no %q", st[1], want)
		}
	}
	// The server that is there may be the host's resolver, and is asked; this one is not.
	if listens("10.0.0.1") || !listens("fd00::1") {
		t.Error("asks itself")
	}
	// What was in the way goes, and what was missing comes: nobody has to say so.
	other.Close()
	x.gw.MustExec("ip", "addr", "add", "10.9.9.9/24", "dev", "lan")
	lab.Eventually(t, limit, func() error {
		st := x.s.Status()
		if st[0].Err != "" || fmt.Sprint(st[1].Listen) != "[10.9.9.9:53]" {
			return fmt.Errorf("%+v", st)
		}
		return nil
	})
	x.want(x.c, "udp", "10.0.0.1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
	if !listens("10.0.0.1") || !listens("10.9.9.9") {
		t.Error("asks itself")
	}
	// TCP taken is both not served.
	x.s.Set(nil)
	var l net.Listener
	err = x.gw.Do(func() (err error) {
		l, err = net.Listen("tcp4", "10.0.0.1:53")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	x.s.Set([]View{testView})
	if st := x.s.Status(); !strings.Contains(st[0].Err, "10.0.0.1:53, tcp: address already in use") {
		t.Errorf("%+v", st)
	}
}

// Hostile packets, and connections that say half a thing, do no harm to who comes after.
func TestLabHostile(t *testing.T) {
	x := newSite(t)
	x.s.Set([]View{testView})
	var u, half net.Conn
	err := x.c.Do(func() (err error) {
		if u, err = net.Dial("udp", "10.0.0.1:53"); err != nil {
			return err
		}
		half, err = net.Dial("tcp", "10.0.0.1:53")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	defer half.Close()
	good := packed(t, question("web.", dns.TypeA))
	for n := range len(good) {
		u.Write(good[:n])
	}
	for i := range 8 * len(good) {
		bad := append([]byte(nil), good...)
		bad[i/8] ^= 1 << (i % 8)
		if bad[len(bad)-5] == 0 && strings.Contains(string(bad), "web") {
			u.Write(bad)
		}
	}
	u.Write(make([]byte, 65000))
	for _, text := range []string{"\x00", "\x00\x01x", "\xff\xff", "\x00\x00"} {
		half.Write([]byte(text))
	}
	x.want(x.c, "udp", "10.0.0.1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
	x.want(x.c, "tcp", "10.0.0.1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
	// Two questions by one connection.
	var c net.Conn
	err = x.c.Do(func() (err error) {
		c, err = net.Dial("tcp", "[fd00::1]:53")
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	conn := &dns.Conn{Conn: c}
	for _, name := range []string{"web.", "db-1."} {
		conn.WriteMsg(question(name, dns.TypeA))
	}
	for _, want := range []string{"NOERROR 10.0.0.5", "NOERROR 10.0.0.6"} {
		if m, err := conn.ReadMsg(); err != nil || said(m) != want {
			t.Error(err, m)
		}
	}
}

// 1,000 names, asked by many while they change.
func TestLabThousandNames(t *testing.T) {
	x := newSite(t)
	v := testView
	v.Records = nil
	for i := range 1000 {
		v.Records = append(v.Records, Record{Names: []string{fmt.Sprint("c", i)}, Addrs: []netip.Addr{netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})}})
	}
	x.s.Set([]View{v})
	stop := make(chan struct{})
	var setter sync.WaitGroup
	setter.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
				x.s.Set([]View{v})
				x.s.Status()
			}
		}
	})
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			var c net.Conn
			if err := x.c.Do(func() (err error) { c, err = net.Dial("udp", "10.0.0.1:53"); return err }); err != nil {
				t.Error(err)
				return
			}
			defer c.Close()
			conn := &dns.Conn{Conn: c}
			for i := g; i < 1000; i += 4 {
				conn.SetDeadline(time.Now().Add(limit))
				conn.WriteMsg(question(fmt.Sprintf("c%d.", i), dns.TypeA))
				m, err := conn.ReadMsg()
				if want := fmt.Sprintf("NOERROR 10.1.%d.%d", i>>8, i&255); err != nil || said(m) != want {
					t.Errorf("c%d: %v %v, not %s", i, err, m, want)
					return
				}
			}
		})
	}
	wg.Wait()
	close(stop)
	setter.Wait()
}
