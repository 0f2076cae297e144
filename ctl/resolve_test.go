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

	if _, err := v.resolve("b", netip.Addr{}, false, any); err == nil || !strings.Contains(err.Error(), "being looked up") {
		t.Errorf("before the answer: %v", err)
	}
	<-asked
	v.resolve("b", netip.Addr{}, false, any) // asks no second time meanwhile
	replies <- reply{err: errors.New("no such host")}
	<-told
	if _, err := v.resolve("b", netip.Addr{}, false, any); err == nil || !strings.Contains(err.Error(), "no such host") {
		t.Errorf("after a bad answer: %v", err)
	}
	// It is asked again after a while only.
	earlier := func() {
		v.mu.Lock()
		defer v.mu.Unlock()
		v.names["b"].asked = time.Now().Add(-resolveEvery)
	}
	earlier()
	v.resolve("b", netip.Addr{}, false, any)
	<-asked
	replies <- reply{addrs: []netip.Addr{netip.MustParseAddr("::ffff:192.0.2.7"), six}}
	<-told
	for _, c := range []struct {
		used   netip.Addr
		failed bool
		right  func(netip.Addr) bool
		want   netip.Addr
	}{
		{right: any, want: four}, {right: netip.Addr.Is6, want: six}, {used: six, right: any, want: six},
		{used: four, failed: true, right: any, want: six}, {used: six, failed: true, right: any, want: four},
		{used: four, failed: true, right: netip.Addr.Is4, want: four}, {used: netip.MustParseAddr("192.0.2.9"), right: any, want: four},
	} {
		if a, err := v.resolve("b", c.used, c.failed, c.right); err != nil || a != c.want {
			t.Errorf("resolved to %v, %v; want %v", a, err, c.want)
		}
	}
	// A good answer stays while a later question fails.
	earlier()
	v.again("b")
	<-asked
	replies <- reply{err: errors.New("server failure")}
	<-told
	if a, err := v.resolve("b", netip.Addr{}, false, any); err != nil || a != four {
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
