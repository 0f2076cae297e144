package ctl

import (
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// TestResolver asks a name server that answers when the test says so.
func TestResolver(t *testing.T) {
	type reply struct {
		addrs []netip.Addr
		err   error
	}
	asked, replies, told := make(chan string), make(chan reply), make(chan string, 10)
	v := newResolver(func(host string) { told <- host })
	v.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
		select {
		case asked <- host:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		select {
		case r := <-replies:
			return r.addrs, r.err
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	four, six := netip.MustParseAddr("192.0.2.7"), netip.MustParseAddr("2001:db8::7")
	any := func(netip.Addr) bool { return true }

	if _, err := v.resolve("b", any); err == nil || !strings.Contains(err.Error(), "being looked up") {
		t.Errorf("before the answer: %v", err)
	}
	<-asked
	v.resolve("b", any) // asks no second time meanwhile
	replies <- reply{err: errors.New("no such host")}
	<-told
	if _, err := v.resolve("b", any); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("after a bad answer: %v", err)
	}
	// It is asked again after a while only.
	earlier := func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.names["b"].asked = time.Now().Add(-resolveEvery)
	}
	earlier()
	v.resolve("b", any)
	<-asked
	replies <- reply{addrs: []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.7"), six}}
	<-told
	for _, c := range []struct {
		right func(netip.Addr) bool
		want  netip.Addr
	}{{any, four}, {netip.Addr.Is6, six}} {
		if a, err := v.resolve("b", c.right); err != nil || a != c.want {
			t.Errorf("resolved to %v, %v; want %v", a, err, c.want)
		}
	}
	// A good answer stays while a later question fails.
	earlier()
	v.again("b")
	<-asked
	replies <- reply{err: errors.New("server failure")}
	<-told
	if a, err := v.resolve("b", any); err != nil || a != four {
		t.Errorf("after a failure: %v, %v; want %v still", a, err, four)
	}
	// Nobody waits for a server that does not answer.
	earlier()
	v.again("b")
	<-asked
	v.close()
	v.keep(nil)
	if len(v.names) != 0 {
		t.Errorf("names are kept that nobody wants: %v", v.names)
	}
}
