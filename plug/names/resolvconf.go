package names

import (
	"bytes"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/miekg/dns"
)

// Bounds of resolv.conf(5): those of libc.
const (
	maxServers  = 3       // MAXNS
	maxAttempts = 5       // RES_MAXRETRY
	maxConfig   = 1 << 16 // bytes
)

// resolvers is what a resolv.conf says.
type resolvers struct {
	servers  []netip.Addr
	timeout  time.Duration
	attempts int
}

// resolvConf is a resolv.conf that is read again when it has changed.
//
// Thread-safety: safe for concurrent use.
type resolvConf struct {
	path    string
	silence silence

	mu   sync.Mutex // guards what follows
	seen fs.FileInfo
	conf resolvers
}

func newResolvConf(path string) *resolvConf {
	return &resolvConf{path: path, conf: parseResolvConf(nil), silence: silence{of: map[netip.Addr]missed{}}}
}

// load returns what the file says now. While there is no file, what it said last counts: it
// is being replaced.
func (r *resolvConf) load() resolvers {
	r.mu.Lock()
	defer r.mu.Unlock()
	now, err := os.Stat(r.path)
	if err != nil || r.seen != nil && os.SameFile(now, r.seen) && now.Size() == r.seen.Size() && now.ModTime().Equal(r.seen.ModTime()) {
		return r.conf
	}
	f, err := os.Open(r.path)
	if err != nil {
		return r.conf
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxConfig))
	if err != nil {
		return r.conf
	}
	r.seen, r.conf = now, parseResolvConf(text)
	return r.conf
}

// parseResolvConf reads a resolv.conf. What it does not understand it passes over, as libc
// does; without a name server that is the host itself.
func parseResolvConf(text []byte) resolvers {
	var conf resolvers
	c, err := dns.ClientConfigFromReader(bytes.NewReader(text))
	if err != nil {
		c = &dns.ClientConfig{Timeout: 5, Attempts: 2}
	}
	for _, word := range c.Servers {
		a, err := netip.ParseAddr(word)
		if err == nil && len(conf.servers) < maxServers {
			conf.servers = append(conf.servers, a.Unmap())
		}
	}
	if len(conf.servers) == 0 {
		conf.servers = []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1})}
	}
	conf.timeout = maxTry
	if c.Timeout < int(maxTry/time.Second) {
		conf.timeout = time.Duration(c.Timeout) * time.Second
	}
	conf.attempts = min(c.Attempts, maxAttempts)
	return conf
}

// The file's order means something: the first may know names that the second, somewhere on the
// Internet, says do not exist. So a server loses its place only to be dead, not for one name that
// it has no answer to, of which any container may ask; and it does not lose it for long.
const (
	maxMissed  = 3                // questions in a row without an answer, and it is asked last
	silentRest = 10 * time.Second // since the last of them
)

// silence is which servers have not answered lately.
//
// Thread-safety: safe for concurrent use.
type silence struct {
	mu sync.Mutex
	of map[netip.Addr]missed
}

type missed struct {
	count    int
	last     time.Time
	answered time.Time
}

// note tells what became of a question that a server was asked at a time. One that it answered
// another meanwhile was not for want of a server: whoever has a domain of his own can ask for as
// many names that nobody answers as he likes, all at once.
func (s *silence) note(server netip.Addr, asked time.Time, answered bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for a, m := range s.of { // servers of a file that has changed since
		if now.Sub(m.last) > silentRest && now.Sub(m.answered) > silentRest {
			delete(s.of, a)
		}
	}
	m := s.of[server]
	switch {
	case answered:
		m = missed{answered: now}
	case m.answered.After(asked):
		return
	case now.Sub(m.last) > silentRest:
		m.count, m.last = 1, now
	default:
		m.count, m.last = m.count+1, now
	}
	s.of[server] = m
}

// order is in which order servers are asked: the file's, but those last that seem to be dead.
func (s *silence) order(servers []netip.Addr) []netip.Addr {
	s.mu.Lock()
	defer s.mu.Unlock()
	dead := func(a netip.Addr) int {
		if m := s.of[a]; m.count >= maxMissed && time.Since(m.last) < silentRest {
			return 1
		}
		return 0
	}
	servers = slices.Clone(servers)
	slices.SortStableFunc(servers, func(a, b netip.Addr) int { return dead(a) - dead(b) })
	return servers
}
