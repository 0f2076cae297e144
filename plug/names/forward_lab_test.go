package names

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/miekg/dns"

	"vswitch/internal/lab"
)

func TestLabForwards(t *testing.T) {
	x := newSite(t)
	big := func(q *dns.Msg, tcp bool) *dns.Msg {
		m := new(dns.Msg)
		m.SetReply(q)
		opt := q.IsEdns0()
		if opt != nil {
			m.SetEdns0(4096, opt.Do())
		}
		if strings.HasPrefix(q.Question[0].Name, "size.") {
			size := 0
			if opt != nil {
				size = int(opt.UDPSize())
			}
			m.Answer = []dns.RR{&dns.TXT{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeTXT, Class: 1}, Txt: []string{fmt.Sprint(size)}}}
			return m
		}
		for i := range 100 {
			m.Answer = append(m.Answer, &dns.A{Hdr: dns.RR_Header{Name: q.Question[0].Name, Rrtype: dns.TypeA, Class: 1, Ttl: 9}, A: net.IPv4(203, 0, 113, byte(i))})
		}
		if !tcp {
			m.Truncate(512)
		}
		return m
	}
	asked := x.upstream("192.0.2.53", big)
	x.s.Set([]View{testView})
	q := question("big.example.", dns.TypeA)
	// 100 addresses need TCP of the host's resolver, fit into the client's TCP, and not into its UDP.
	m, err := ask(x.c, "tcp", "10.0.0.1", q, limit)
	if err != nil || len(m.Answer) != 100 || m.Truncated {
		t.Fatal(err, m)
	}
	if n := asked.Load(); n != 2 {
		t.Errorf("asked %d times, not by UDP and then by TCP", n)
	}
	if m, err = ask(x.c, "udp", "10.0.0.1", q, limit); err != nil || !m.Truncated || len(m.Answer) < 20 || len(m.Answer) > 31 || m.IsEdns0() != nil {
		t.Error(err, m)
	}
	e := q.Copy().SetEdns0(1100, true)
	if m, err = ask(x.c, "udp", "10.0.0.1", e, limit); err != nil || !m.Truncated || len(m.Answer) < 60 || m.IsEdns0() == nil || !m.IsEdns0().Do() || m.IsEdns0().UDPSize() != maxReply {
		t.Error(err, m)
	}
	x.want(x.c, "udp", "10.0.0.1", "size.example.", dns.TypeTXT, `NOERROR "0"`)
	if m, err = ask(x.c, "udp", "10.0.0.1", question("size.example.", dns.TypeTXT).SetEdns0(4096, false), limit); err != nil || said(m) != `NOERROR "1232"` {
		t.Error(err, m)
	}
	if m, err = ask(x.c, "udp", "10.0.0.1", question("SiZe.ExAmPle.", dns.TypeTXT), limit); err != nil || m.Question[0].Name != "SiZe.ExAmPle." {
		t.Error(err, m)
	}
}

func TestLabResolversFail(t *testing.T) {
	x := newSite(t)
	x.s.Set([]View{testView})
	fail := func(code int) func(*dns.Msg, bool) *dns.Msg {
		return func(q *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(q, code) }
	}
	x.upstream("192.0.2.53", func(q *dns.Msg, _ bool) *dns.Msg {
		switch {
		case strings.HasPrefix(q.Question[0].Name, "mute."):
			return nil
		case strings.HasPrefix(q.Question[0].Name, "ill."):
			return fail(dns.RcodeServerFailure)(q, false)
		case strings.HasPrefix(q.Question[0].Name, "nx."):
			return fail(dns.RcodeNameError)(q, false)
		case strings.HasPrefix(q.Question[0].Name, "forged."):
			m := found("203.0.113.66")(q, false)
			m.Id++
			return m
		case strings.HasPrefix(q.Question[0].Name, "other."):
			m := found("203.0.113.66")(q, false)
			m.Question[0].Name = "another.example."
			return m
		}
		return found("203.0.113.53")(q, false)
	})
	x.want(x.c, "udp", "10.0.0.1", "ill.example.", dns.TypeA, "SERVFAIL")
	x.want(x.c, "udp", "10.0.0.1", "nx.example.", dns.TypeA, "NXDOMAIN")
	start := time.Now()
	x.want(x.c, "udp", "10.0.0.1", "mute.example.", dns.TypeA, "SERVFAIL")
	if took := time.Since(start); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("SERVFAIL after %v, and the file says 1 s", took)
	}
	x.want(x.c, "udp", "10.0.0.1", "forged.example.", dns.TypeA, "SERVFAIL")
	x.want(x.c, "udp", "10.0.0.1", "other.example.", dns.TypeA, "SERVFAIL")
	// Names of the bridge need nobody.
	x.want(x.c, "udp", "10.0.0.1", "web.", dns.TypeA, "NOERROR 10.0.0.5")

	x.want(x.c, "udp", "10.0.0.1", "nx.example.", dns.TypeA, "NXDOMAIN") // it is not dead

	// The second is asked where the first has nothing to say; nobody had to tell of the new file.
	second := x.upstream("192.0.2.54", found("203.0.113.54"))
	x.resolvers("192.0.2.53", "192.0.2.54")
	x.want(x.c, "udp", "10.0.0.1", "ill.example.", dns.TypeA, "NOERROR 203.0.113.54")
	// But not for good: the first may know what the second does not.
	x.want(x.c, "udp", "10.0.0.1", "fine.example.", dns.TypeA, "NOERROR 203.0.113.53")
	for range maxMissed {
		x.want(x.c, "udp", "10.0.0.1", "mute.example.", dns.TypeA, "NOERROR 203.0.113.54")
	}
	before := second.Load()
	x.want(x.c, "udp", "10.0.0.1", "fine.example.", dns.TypeA, "NOERROR 203.0.113.54") // the first seems to be dead
	if second.Load() == before {
		t.Error("the second is not asked")
	}
	x.s.hosts.silence.mu.Lock()
	for a, m := range x.s.hosts.silence.of {
		m.last = m.last.Add(-silentRest)
		x.s.hosts.silence.of[a] = m
	}
	x.s.hosts.silence.mu.Unlock()
	x.want(x.c, "udp", "10.0.0.1", "fine.example.", dns.TypeA, "NOERROR 203.0.113.53")
	x.resolvers("192.0.2.99", "192.0.2.53") // nobody is at .99
	x.want(x.c, "udp", "10.0.0.1", "fine.example.", dns.TypeA, "NOERROR 203.0.113.53")
	// We are not asked by ourselves, and a host without a server on it says so at once.
	x.resolvers("10.0.0.1", "fd00::1")
	x.want(x.c, "udp", "10.0.0.1", "loop.example.", dns.TypeA, "SERVFAIL")
	x.resolvers("127.0.0.53")
	x.want(x.c, "udp", "10.0.0.1", "loop.example.", dns.TypeA, "SERVFAIL")
	os.Remove(x.conf)
	x.want(x.c, "tcp", "10.0.0.1", "loop.example.", dns.TypeA, "SERVFAIL")
	// Close does not wait for who does not answer.
	x.resolvers("192.0.2.53")
	var asker sync.WaitGroup
	asker.Go(func() { ask(x.c, "tcp", "10.0.0.1", question("mute.example.", dns.TypeA), limit) })
	lab.Eventually(t, limit, func() error {
		x.s.bounds.mu.Lock()
		defer x.s.bounds.mu.Unlock()
		if x.s.bounds.forwards.all == 0 {
			return errors.New("nothing is forwarded")
		}
		return nil
	})
	start = time.Now()
	x.s.Close()
	if took := time.Since(start); took > 800*time.Millisecond {
		t.Error("closed after", took)
	}
	asker.Wait()
}

// systemd-resolved listens at 127.0.0.53 of the host, where no container could ask it. Who
// wants to forge its answers has to guess the ID and the port of each question (RFC 5452).
func TestLabAsksAsTheHost(t *testing.T) {
	x := newSite(t)
	var mu sync.Mutex
	ids, ports := map[uint16]bool{}, map[string]bool{}
	x.resolver(x.gw, "127.0.0.53", func(q *dns.Msg, tcp bool, from net.Addr) *dns.Msg {
		mu.Lock()
		defer mu.Unlock()
		ids[q.Id], ports[from.String()] = true, true
		return found("203.0.113.7")(q, tcp)
	})
	x.resolvers("127.0.0.53")
	x.s.Set([]View{testView})
	q := question("example.com.", dns.TypeA)
	for range 40 {
		if m, err := ask(x.c, "udp", "fd00::1", q, limit); err != nil || said(m) != "NOERROR 203.0.113.7" {
			t.Fatal(err, m)
		}
	}
	mu.Lock()
	defer mu.Unlock()
	if len(ids) < 35 || len(ports) < 35 {
		t.Errorf("%d IDs and %d ports for 40 questions", len(ids), len(ports))
	}
	// An address that goes and comes back, as that of a bridge that is made again.
	for range 2 {
		x.gw.MustExec("ip", "addr", "del", "10.0.0.1/24", "dev", "br0")
		x.gw.MustExec("ip", "addr", "add", "10.0.0.1/24", "dev", "br0")
		x.want(x.c, "udp", "10.0.0.1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
		x.want(x.c, "tcp", "10.0.0.1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
	}
}

// Questions that wait do not keep others out, and there are never too many.
func TestLabBounds(t *testing.T) {
	x := newSite(t)
	release := make(chan struct{})
	var most, now atomic.Int32
	x.upstream("192.0.2.53", func(q *dns.Msg, tcp bool) *dns.Msg {
		n := now.Add(1)
		for m := most.Load(); n > m && !most.CompareAndSwap(m, n); m = most.Load() {
		}
		<-release
		now.Add(-1)
		return found("203.0.113.7")(q, tcp)
	})
	x.s.Set([]View{testView})
	var wg sync.WaitGroup
	var fine, failed atomic.Int32
	for i := range 3 * maxPerClient {
		wg.Go(func() {
			m, err := ask(x.c, "udp", "10.0.0.1", question(fmt.Sprintf("n%d.example.", i), dns.TypeA), limit)
			switch {
			case err != nil:
				t.Error(err)
			case said(m) == "SERVFAIL":
				failed.Add(1)
			case said(m) == "NOERROR 203.0.113.7":
				fine.Add(1)
			default:
				t.Error(m)
			}
		})
	}
	lab.Eventually(t, limit, func() error {
		if failed.Load() < 2*maxPerClient {
			return fmt.Errorf("%d failed", failed.Load())
		}
		return nil
	})
	x.want(x.c, "udp", "10.0.0.1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
	close(release)
	wg.Wait()
	if most.Load() > maxPerClient || fine.Load() == 0 || fine.Load()+failed.Load() != 3*maxPerClient {
		t.Errorf("%d at once, %d answered, %d failed", most.Load(), fine.Load(), failed.Load())
	}
	// TCP connections of one client.
	var conns []net.Conn
	for range maxPerPeer {
		err := x.c.Do(func() error {
			c, err := net.Dial("tcp", "10.0.0.1:53")
			conns = append(conns, c)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if m, err := ask(x.c, "tcp", "10.0.0.1", question("web.", dns.TypeA), limit); err == nil {
		t.Error("one connection more than there may be:", m)
	}
	x.want(x.c, "tcp", "fd00::1", "web.", dns.TypeA, "NOERROR 10.0.0.5")
	for _, c := range conns {
		c.Close()
	}
	lab.Eventually(t, limit, func() error {
		_, err := ask(x.c, "tcp", "10.0.0.1", question("web.", dns.TypeA), limit)
		return err
	})
	b := &x.s.bounds
	lab.Eventually(t, limit, func() error {
		b.mu.Lock()
		defer b.mu.Unlock()
		for _, c := range []count{b.conns, b.forwards} {
			if c.all+len(c.bridges)+len(c.clients) != 0 {
				return fmt.Errorf("of %v, some are still counted", c)
			}
		}
		return nil
	})
}
