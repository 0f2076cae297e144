package ctl

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/internal/lab"
	vswitch "vswitch/switch"
)

// newLabReconciler makes a reconciler whose turns the test takes: each call of it
// belongs into h.Do.
func newLabReconciler(t *testing.T, l *lab.Lab, doc config.Document) *reconciler {
	t.Helper()
	sw, err := vswitch.New(vswitch.Options{Workers: 1, Buffers: 256})
	if err != nil {
		t.Fatal(err)
	}
	r := newReconciler(sw, nil, "0123456789abcdef", 1, slog.New(slog.NewTextHandler(io.Discard, nil)), func(api.Event) {})
	r.desired = doc
	l.Cleanup(func() {
		r.close()
		sw.Close()
	})
	return r
}

// tunnelDocument is a bridge without a local port's interface, and one tunnel.
func tunnelDocument(t *testing.T, options string) config.Document {
	t.Helper()
	doc, err := config.Parse([]byte("bridges: [{name: br0, ports: [{name: t0, type: vxlan, " + options + "}]}]"))
	if err != nil {
		t.Fatal(err)
	}
	return doc
}

// TestNameOfASilentHost: the name of a host without BFD that is not heard for long is
// looked up again, and its new address used.
//
//	[host a: the reconciler, br0 with t0] 192.0.2.1
func TestNameOfASilentHost(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	l.Underlay("net", lab.UnderlayOptions{}).Join(h, "192.0.2.1/24")
	doc := tunnelDocument(t, "remote_ip: far")
	r := newLabReconciler(t, l, doc)
	replies, answered := make(chan netip.Addr, 1), make(chan string, 10)
	asked := make(chan string, 10)
	r.tunnels.resolver.lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
		asked <- host
		select {
		case a := <-replies:
			return []netip.Addr{a}, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	told := r.tunnels.resolver.answered
	r.tunnels.resolver.answered = func(host string) {
		told(host)
		answered <- host
	}
	do := func(f func()) {
		t.Helper()
		if err := h.Do(func() error { f(); return nil }); err != nil {
			t.Fatal(err)
		}
	}
	port := func(state, addr string) {
		t.Helper()
		if p := r.ports["t0"]; p.state != state || addr != "" && p.tunnel.remote.String() != addr {
			t.Fatalf("t0 is %s to %v: %s; want %s to %s", p.state, p.tunnel.remote, p.reason, state, addr)
		}
	}
	do(func() { r.apply(doc) })
	port(api.PortWaiting, "")
	replies <- netip.MustParseAddr("192.0.2.2")
	<-asked
	<-answered
	do(r.changed)
	port(api.PortUp, "192.0.2.2")

	// The next tick is so far away from the first answer.
	tick := func(age time.Duration) {
		t.Helper()
		do(func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			p := r.ports["t0"].tunnel
			p.since, p.asked = time.Now().Add(-age), time.Time{}
			v := r.tunnels.resolver
			v.mu.Lock()
			v.names["far"].asked = time.Now().Add(-age)
			v.mu.Unlock()
			r.tickTunnelsLocked(time.Now())
		})
	}
	tick(silence - time.Second)
	r.tunnels.resolver.mu.Lock()
	if r.tunnels.resolver.names["far"].pending {
		t.Error("it was looked up again before its time")
	}
	r.tunnels.resolver.mu.Unlock()
	tick(silence)
	replies <- netip.MustParseAddr("192.0.2.3")
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Fatal("it was not looked up again")
	}
	<-answered
	do(r.changed)
	port(api.PortUp, "192.0.2.3")
}

// TestRefusedEndpointIsTriedSoon: however often an endpoint was refused, its ports come
// up maxRefusal after what was in the way is gone.
//
//	[host a: the reconciler, br0 with t0] (192.0.2.1 comes late)
func TestRefusedEndpointIsTriedSoon(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	doc := tunnelDocument(t, "remote_ip: 192.0.2.2, local_ip: 192.0.2.1")
	r := newLabReconciler(t, l, doc)
	if err := h.Do(func() error {
		r.apply(doc)
		p := r.ports["t0"]
		for range 8 { // each when its time has come
			if wait := time.Until(p.retryAt); p.state != api.PortError || wait > maxRefusal {
				return fmt.Errorf("t0 is %s (%s), and tried again after %v", p.state, p.reason, wait)
			}
			if len(r.tunnels.refused) != 1 {
				return fmt.Errorf("refused: %+v", r.tunnels.refused)
			}
			p.retryAt = time.Now()
			for _, f := range r.tunnels.refused {
				f.until = time.Now()
			}
			r.retry()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}
