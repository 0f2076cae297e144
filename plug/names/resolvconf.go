package names

import (
	"bytes"
	"io"
	"io/fs"
	"net/netip"
	"os"
	"sync"
	"sync/atomic"
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
	path string
	// favourite is the server that answered last, which is asked first: an index into a list
	// that may have changed since, so a guess.
	favourite atomic.Uint32

	mu   sync.Mutex // guards what follows
	seen fs.FileInfo
	conf resolvers
}

func newResolvConf(path string) *resolvConf {
	return &resolvConf{path: path, conf: parseResolvConf(nil)}
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
