package ctl

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Bounds of looking host names up.
const (
	resolveLimit  = 5 * time.Second // for one answer
	resolveEvery  = 5 * time.Second // between questions for one name, while they are wanted
	resolveAtOnce = 16              // questions under way; the others wait
)

// resolver looks up the host names that remote_ip and peers name, in the
// background: a name server that is slow or away holds nobody up. An answer stays
// until a tunnel that uses it fails, as OVS has it; then it is asked for again.
//
// Thread-safety: safe for concurrent use.
type resolver struct {
	lookup   func(ctx context.Context, host string) ([]netip.Addr, error)
	answered func(host string) // called without a lock when an answer has come

	ctx    context.Context
	cancel context.CancelFunc
	asking sync.WaitGroup
	tokens chan struct{}

	mu    sync.Mutex
	names map[string]*answer
}

// answer is what is known of a name.
type answer struct {
	addrs   []netip.Addr // the last good answer
	err     error        // of the last question
	asked   time.Time    // when it ended
	pending bool
}

func newResolver(answered func(host string)) *resolver {
	v := &resolver{answered: answered, tokens: make(chan struct{}, resolveAtOnce), names: map[string]*answer{}}
	v.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
		return net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	}
	v.ctx, v.cancel = context.WithCancel(context.Background())
	return v
}

// close ends all questions.
func (v *resolver) close() {
	v.cancel()
	v.asking.Wait()
}

// resolve returns an address of host that is right, from the last good answer: the one
// that is used, if it is there and has not failed; else the one behind it, in turn.
// Without an answer the error says why; the first call for a name, and one while it has
// no good answer, begins to ask.
func (v *resolver) resolve(host string, used netip.Addr, failed bool, right func(netip.Addr) bool) (netip.Addr, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	a := v.names[host]
	if a == nil {
		a = &answer{}
		v.names[host] = a
	}
	addrs := slices.DeleteFunc(slices.Clone(a.addrs), func(a netip.Addr) bool { return !right(a) })
	if len(addrs) > 0 {
		i := slices.Index(addrs, used)
		if i < 0 || failed {
			i = (i + 1) % len(addrs)
		}
		return addrs[i], nil
	}
	v.askLocked(host, a)
	switch {
	case a.err != nil:
		return netip.Addr{}, fmt.Errorf("%s cannot be resolved: %s", host, reasonOf(a.err))
	case a.asked.IsZero():
		return netip.Addr{}, fmt.Errorf("%s is being looked up", host)
	}
	return netip.Addr{}, fmt.Errorf("%s has no address of the family of local_ip", host)
}

// reasonOf leaves out what differs from question to question, such as the port that it
// was asked from: the same failure is to read the same.
func reasonOf(err error) string {
	var dns *net.DNSError
	if !errors.As(err, &dns) {
		return err.Error()
	}
	switch {
	case dns.IsNotFound:
		return "no such host"
	case dns.IsTimeout:
		return "the name server " + dns.Server + " does not answer"
	case dns.Server != "":
		why := dns.Err
		if i := strings.LastIndex(why, ": "); i >= 0 {
			why = why[i+2:]
		}
		return "the name server " + dns.Server + ": " + why
	}
	return dns.Err
}

// again asks for host anew, since the address that it had does not answer.
func (v *resolver) again(host string) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if a := v.names[host]; a != nil {
		v.askLocked(host, a)
	}
}

// keep forgets the names for which wanted is false.
func (v *resolver) keep(wanted map[string]bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for host := range v.names {
		if !wanted[host] {
			delete(v.names, host)
		}
	}
}

func (v *resolver) askLocked(host string, a *answer) {
	if a.pending || time.Since(a.asked) < resolveEvery || v.ctx.Err() != nil {
		return
	}
	a.pending = true
	v.asking.Go(func() { v.ask(host, a) }) // ends with the answer, or close
}

func (v *resolver) ask(host string, a *answer) {
	select {
	case v.tokens <- struct{}{}:
	case <-v.ctx.Done():
		return
	}
	ctx, cancel := context.WithTimeout(v.ctx, resolveLimit)
	addrs, err := v.lookup(ctx, host)
	cancel()
	<-v.tokens
	for i := range addrs {
		addrs[i] = addrs[i].Unmap().WithZone("")
	}
	v.mu.Lock()
	a.pending, a.asked, a.err = false, time.Now(), err
	if err == nil {
		a.addrs = addrs
	}
	v.mu.Unlock()
	if v.ctx.Err() == nil {
		v.answered(host)
	}
}
