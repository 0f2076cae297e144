package ctl

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"strings"
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

// tunnelDocument is a bridge and its tunnels t0, t1, ….
func tunnelDocument(t *testing.T, options ...string) config.Document {
	t.Helper()
	var ports []string
	for i, o := range options {
		ports = append(ports, fmt.Sprintf("{name: t%d, type: vxlan, %s}", i, o))
	}
	doc, err := config.Parse([]byte("bridges: [{name: br0, ports: [" + strings.Join(ports, ", ") + "]}]"))
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

// TestRefusedEndpointIsTriedSoon: an endpoint that is refused is tried once for all its
// ports, and however often it was, they come up maxRefusal after what was in the way is
// gone.
//
//	[host a: the reconciler, br0 with t0 and t1] (there is no 192.0.2.1)
func TestRefusedEndpointIsTriedSoon(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	doc := tunnelDocument(t, "remote_ip: 192.0.2.2, local_ip: 192.0.2.1", "remote_ip: 192.0.2.3, local_ip: 192.0.2.1")
	r := newLabReconciler(t, l, doc)
	if err := h.Do(func() error {
		r.apply(doc)
		for range 8 { // each when its time has come
			if len(r.tunnels.refused) != 1 {
				return fmt.Errorf("refused: %+v", r.tunnels.refused)
			}
			for _, f := range r.tunnels.refused {
				for _, name := range []string{"t0", "t1"} {
					p := r.ports[name]
					if wait := time.Until(p.retryAt); p.state != api.PortError || !p.retryAt.Equal(f.until) || wait > maxRefusal {
						return fmt.Errorf("%s is %s (%s), and tried again after %v", name, p.state, p.reason, wait)
					}
					p.retryAt = time.Now()
				}
				f.until = time.Now()
			}
			r.retry()
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
}

// TestTunnelsReasonIsNoEvent: a tunnel that is down for one reason after another, as BFD
// goes from down to init, is told of once.
func TestTunnelsReasonIsNoEvent(t *testing.T) {
	var told []string
	r := &reconciler{log: slog.New(slog.NewTextHandler(io.Discard, nil)), tell: func(e api.Event) { told = append(told, e.Message) }}
	p := &portState{bridge: "br0", port: config.Port{Name: "t0"}, tunnel: &tunnelPort{}}
	r.setState(p, api.PortDown, "BFD is down")
	since := p.since
	r.setState(p, api.PortDown, "BFD is init")
	if p.reason != "BFD is init" || !p.since.Equal(since) {
		t.Errorf("it is down since %v (not %v): %s", p.since, since, p.reason)
	}
	r.setState(p, api.PortUp, "")
	if len(told) != 2 || told[0] != "port t0 of br0 is down: BFD is down" || told[1] != "port t0 of br0 is up" {
		t.Errorf("%q", told)
	}
}
