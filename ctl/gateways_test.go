package ctl

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vswitch/ctl/config"
	"vswitch/internal/lab"
	"vswitch/plug/held"
	dnsnames "vswitch/plug/names"
	"vswitch/plug/nat"
)

// A port of the host is published by each family that the host and the container have in common.
func TestPublishedFamilies(t *testing.T) {
	for _, test := range []struct{ bridge, plug, publish, want string }{
		{"10.0.0.1/24,fd00::1/64", "10.0.0.5/24,fd00::5/64", "8080:80", "*:8080/tcp>10.0.0.5:80 *:8080/tcp>[fd00::5]:80"},
		{"10.0.0.1/24,fd00::1/64", "10.0.0.5/24,fd00::5/64", "127.0.0.1:8080:80", "127.0.0.1:8080/tcp>10.0.0.5:80"},
		{"10.0.0.1/24,fd00::1/64", "10.0.0.5/24,fd00::5/64", "[::1]:53:53/udp", "[::1]:53/udp>[fd00::5]:53"},
		{"10.0.0.1/24", "10.0.0.5/24,fd00::5/64", "8080:80", "*:8080/tcp>10.0.0.5:80"}, // the host has nothing to do with fd00::
		{"fd00::1/64", "10.0.0.5/24,fd00::5/64", "8080:80", "*:8080/tcp>[fd00::5]:80"},
		{"10.0.0.1/24,fd00::1/64", "10.0.0.5/24", "[::1]:80:80", "[::1]:80/tcp>"},
	} {
		b := &config.Bridge{Name: "br0", Options: config.Options{"ip": test.bridge}, Ports: []config.Port{{Name: "web", Type: "plug", Options: config.Options{
			"container": config.RuntimeContainer + ":web", "ip": test.plug, "publish": test.publish}}}}
		var s gatewayState
		(&Daemon{}).publishedOf(b, &s)
		var got []string
		for i, r := range s.rows {
			got = append(got, r.Host+">"+r.To)
			if at := s.forward[i]; at >= 0 && (s.forwards[at].To.String() != r.To || s.forwards[at].Interface != "br0") {
				t.Errorf("row %+v goes to %+v", r, s.forwards[at])
			}
		}
		if strings.Join(got, " ") != test.want {
			t.Errorf("%s of %s on %s is published as %q, want %q", test.publish, test.plug, test.bridge, got, test.want)
		}
	}
}

func TestMadeByDocker(t *testing.T) {
	got := madeByDocker([]held.Item{
		{Bridge: "vs-1", Makes: true, Options: config.Options{"ip": "10.1.0.1/16"}},
		{Bridge: "vs-2", Makes: true, Options: config.Options{}},
		{Bridge: "br0", Ports: []config.Port{{Name: "vs-3", Type: "internal", Options: config.Options{"ip": "10.3.0.1/16", "tag": "3"}}}},
		{Bridge: "br0", Ports: []config.Port{{Name: "web", Type: "plug", Options: config.Options{"ip": "10.3.0.2/16"}}}},
		{Bridge: "br1"},
	})
	if want := map[string]bool{"vs-1": true, "vs-3": false}; !maps.Equal(got, want) {
		t.Errorf("gateways are %v, want %v", got, want)
	}
}

// What a foreign firewall drops is told until it drops it no more, whatever changes meanwhile.
func TestBlockedIsTold(t *testing.T) {
	h := lab.New(t).Host("h")
	h.MustExec("nft", "add", "table", "inet", "mine")
	h.MustExec("nft", "add", "chain", "inet", "mine", "away", "{ type filter hook forward priority 0; policy drop; }")
	h.MustExec("nft", "add", "chain", "inet", "mine", "here", "{ type filter hook input priority 0; policy drop; }")
	gw := nat.Gateway{Interface: "br0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}, Masquerade: true, Names: true}
	g := newGateways("0123456789abcdef", "/dev/null", slog.New(slog.DiscardHandler), func() gatewayState {
		return gatewayState{gateways: []nat.Gateway{gw}}
	})
	for _, change := range []struct {
		name string
		do   func()
	}{{"applied", g.apply}, {"looked after", g.check}, {"applied again", g.apply}} {
		h.Do(func() error { change.do(); return nil })
		all := g.warnings()
		if len(all) != 2 || !strings.Contains(all[0], "chain away of table inet mine") || !strings.Contains(all[1], "chain here of table inet mine") {
			t.Errorf("%s: warnings are %q", change.name, all)
		}
	}
	h.MustExec("nft", "delete", "table", "inet", "mine")
	h.Do(func() error { g.check(); return nil })
	if all := g.warnings(); len(all) != 0 {
		t.Errorf("warnings are %q", all)
	}
	h.Do(func() error { g.close(); return nil })
}

// A name goes with its container though the firewall has not been written yet: iptables may be
// waiting for its lock.
func TestNamesDoNotWaitForTheFirewall(t *testing.T) {
	var bridge atomic.Pointer[string]
	set := func(name string) { bridge.Store(&name) }
	set("before")
	g := newGateways("0123456789abcdef", "/dev/null", slog.New(slog.DiscardHandler), func() gatewayState {
		return gatewayState{views: []dnsnames.View{{Bridge: *bridge.Load()}}}
	})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	g.work.Lock() // as apply has it while it waits
	h := lab.New(t).Host("h")
	go func() { // ends with ctx
		defer close(ended)
		h.Do(func() error { g.run(ctx); return nil })
	}()
	for _, name := range []string{"before", "after"} {
		set(name)
		g.kick()
		lab.Eventually(t, 10*time.Second, func() error {
			if all := g.dns.Status(); len(all) != 1 || all[0].Bridge != name {
				return fmt.Errorf("names are those of %+v, want %s", all, name)
			}
			return nil
		})
	}
	g.work.Unlock()
	cancel()
	<-ended
}

// A gateway has the MTU of its containers while tunnels narrow it, and an interface that nobody
// narrows is the operator's.
func TestGatewayFitsItsContainers(t *testing.T) {
	h := lab.New(t).Host("h")
	h.KernelBridge("br0")
	h.KernelBridge("br1")
	h.MustExec("ip", "link", "set", "br1", "mtu", "1400")
	g := newGateways("0123456789abcdef", "/dev/null", slog.New(slog.DiscardHandler), nil)
	for _, want := range []int{1450, 1436, 1450, 1500} {
		err := h.Do(func() error { return g.fit(map[string]int{"br0": want, "br1": 1500, "br2": want}) })
		if err != nil {
			t.Error(err)
		}
		for name, want := range map[string]int{"br0": want, "br1": 1400} {
			if is := h.MustExec("ip", "-o", "link", "show", "dev", name); !strings.Contains(is, fmt.Sprintf(" mtu %d ", want)) {
				t.Errorf("%s is %s, want MTU %d", name, is, want)
			}
		}
	}
	if len(g.mtus) != 0 {
		t.Errorf("set are %v", g.mtus)
	}
	// One that is a gateway no more has again what it had.
	for _, mtus := range []map[string]int{{"br0": 1450}, nil} {
		if err := h.Do(func() error { return g.fit(mtus) }); err != nil {
			t.Error(err)
		}
	}
	if is := h.MustExec("ip", "-o", "link", "show", "dev", "br0"); !strings.Contains(is, " mtu 1500 ") || len(g.mtus) != 0 {
		t.Errorf("no gateway any more, and %s; set are %v", is, g.mtus)
	}
}

// Whatever makes a gateway another one makes its rules anew.
func TestGatewayStatesAreCompared(t *testing.T) {
	gw := func() *nat.Gateway {
		return &nat.Gateway{Interface: "br0", Subnets: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/24")}}
	}
	state := func(g *nat.Gateway) *gatewayState { return &gatewayState{gateways: []nat.Gateway{*g}} }
	if !state(gw()).same(state(gw())) {
		t.Error("what is the same is not")
	}
	for i := range reflect.TypeFor[nat.Gateway]().NumField() {
		g := gw()
		reflect.ValueOf(g).Elem().Field(i).SetZero()
		if reflect.DeepEqual(g, gw()) {
			reflect.ValueOf(g).Elem().Field(i).SetBool(true)
		}
		if state(gw()).same(state(g)) {
			t.Errorf("%s makes no difference", reflect.TypeFor[nat.Gateway]().Field(i).Name)
		}
	}
}
