package names

import (
	"strings"
	"testing"
	"time"

	"github.com/miekg/dns"
)

// TestLabMuteNames: a container that asks for names that nobody answers, of which it can have as many as it
// wants in a domain of its own, does not make others ask the wrong resolver.
func TestLabMuteNames(t *testing.T) {
	x := newSite(t)
	x.s.Set([]View{testView})
	upstream := func(rest func(*dns.Msg, bool) *dns.Msg) func(*dns.Msg, bool) *dns.Msg {
		return func(q *dns.Msg, tcp bool) *dns.Msg {
			if strings.HasPrefix(q.Question[0].Name, "mute") {
				return nil
			}
			return rest(q, tcp)
		}
	}
	x.upstream("192.0.2.53", upstream(found("203.0.113.1")))
	x.upstream("192.0.2.54", upstream(func(q *dns.Msg, _ bool) *dns.Msg { return new(dns.Msg).SetRcode(q, dns.RcodeNameError) }))
	x.resolvers("192.0.2.53", "192.0.2.54")
	for _, name := range []string{"mute1.example.", "mute2.example.", "mute3.example.", "mute4.example."} {
		go func() { _, _ = ask(x.c, "udp", "10.0.0.1", question(name, dns.TypeA), 10*time.Second) }()
	}
	wrong := 0
	for end := time.Now().Add(4 * time.Second); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		m, err := ask(x.c, "udp", "10.0.0.1", question("intranet.example.", dns.TypeA), 3*time.Second)
		if err != nil {
			t.Fatal(err)
		}
		if m.Rcode != dns.RcodeSuccess {
			wrong++
		}
	}
	if wrong > 0 {
		t.Errorf("%d questions were answered by who does not know the name", wrong)
	}
}
