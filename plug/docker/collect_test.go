package docker

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"vswitch/plug/ipam"
)

// elder says that all leases are old.
type elder struct {
	leases
	since time.Time
}

func (e elder) Leases(pool string) []ipam.Lease {
	list := e.leases.Leases(pool)
	for i := range list {
		list[i].Since = e.since
	}
	return list
}

// fakeDocker answers the collector.
type fakeDocker struct {
	answers map[string]string
	err     error
	asked   func()
}

func (f *fakeDocker) ask(_ context.Context, path string, v any) error {
	if f.asked != nil {
		f.asked()
	}
	if f.err != nil {
		return f.err
	}
	text, ok := f.answers[path]
	if !ok {
		return errUnknown
	}
	return json.Unmarshal([]byte(text), v)
}

func TestCollector(t *testing.T) {
	d, s, w := newDouble(t, "bridges: []")
	id, _, _, _ := requested(t, d, "10.1.0.0/16", "", false, nil)
	addressOf(t, d, id, "", true)
	must(t, d, "NetworkDriver.CreateNetwork", network1)
	for n, ep := range []string{ep1, ep2} {
		address := fmt.Sprintf("10.1.0.%d", n+7)
		addressOf(t, d, id, address, false)
		must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep, address+"/16"))
		must(t, d, "NetworkDriver.Join", `{"NetworkID":"`+net1+`","EndpointID":"`+ep+`"}`)
	}
	network := `{"Id":"` + net1 + `","Name":"n1","Labels":{"a":"b"},"IPAM":{"Driver":"vswitch","Config":[{"Subnet":"10.1.0.0/16"}]},"Containers":{%s}}`
	container := `"x%[1]d":{"Name":"%[2]s","EndpointID":"%[3]s","IPv4Address":"10.1.0.%[1]d/16"}`
	both := fmt.Sprintf(container, 7, "C_1", ep1) + "," + fmt.Sprintf(container, 8, "no.label", ep2)
	one := fmt.Sprintf(container, 8, "no.label", ep2)
	f := &fakeDocker{}
	c := &collector{d: d, ask: f.ask, lost: map[string]int{}}
	say := func(containers string) {
		text := fmt.Sprintf(network, containers)
		f.answers = map[string]string{"/networks": "[" + text + `,{"Id":"other","IPAM":{"Driver":"default"}}]`, "/networks/" + net1: text}
	}
	count := func() string {
		return fmt.Sprintf("%d items, %d pairs, %d leases", len(s.Held()), len(w.pairs), len(d.leases.Leases("")))
	}
	round := func(want string) {
		t.Helper()
		c.round(t.Context(), 0)
		if got := count(); got != want {
			t.Fatalf("got %s, want %s", got, want)
		}
	}

	// What is known stays, and gets its names.
	say(both)
	round("4 items, 2 pairs, 3 leases")
	i, _ := d.find(endpointKey(ep1))
	n, _ := d.find(networkKey(net1))
	learned, _ := networkOf(n)
	if i.Ports[0].Options["alias"] != "c_1" || learned.Name != "n1" || learned.Labels["a"] != "b" {
		t.Errorf("alias %v, network %+v", i.Ports[0].Options, learned)
	}
	if i, _ := d.find(endpointKey(ep2)); i.Ports[0].Options["alias"] != "" {
		t.Errorf("alias %v", i.Ports[0].Options)
	}

	// Docker does not answer, is asked for something meanwhile, or was lately: nothing is known.
	say("")
	f.err = errors.New("no answer")
	round("4 items, 2 pairs, 3 leases")
	round("4 items, 2 pairs, 3 leases")
	f.err = nil
	f.asked = func() { d.began(); d.ended() }
	round("4 items, 2 pairs, 3 leases")
	round("4 items, 2 pairs, 3 leases")
	f.asked = nil
	d.began()
	c.round(t.Context(), 0)
	c.round(t.Context(), 0)
	d.ended()
	c.round(t.Context(), time.Hour)
	c.round(t.Context(), time.Hour)
	if len(c.lost) != 0 {
		t.Errorf("counted all the same: %v", c.lost)
	}

	// Unknown once, and known again.
	say(one)
	round("4 items, 2 pairs, 3 leases")
	say(both)
	round("4 items, 2 pairs, 3 leases")
	// Unknown twice.
	say(one)
	round("4 items, 2 pairs, 3 leases")
	round("3 items, 1 pairs, 2 leases")
	// The network is gone.
	f.answers = map[string]string{"/networks": "[]"}
	round("3 items, 1 pairs, 2 leases")
	round("0 items, 0 pairs, 0 leases")
}

// TestCollectorOfNothing: with nothing held, Docker is left alone.
func TestCollectorOfNothing(t *testing.T) {
	d, _, _ := newDouble(t, "bridges: []")
	f := &fakeDocker{asked: func() { t.Error("Docker is asked") }}
	(&collector{d: d, ask: f.ask, lost: map[string]int{}}).round(t.Context(), 0)
}

// TestCollectorOfAddresses: a network of another driver has the addresses of a bridge, so that
// nothing is held of it; and the release of one was lost while the switch was away.
func TestCollectorOfAddresses(t *testing.T) {
	d, s, _ := newDouble(t, operators)
	id, _, _, refusal := requested(t, d, "10.0.0.0/24", "", false, map[string]string{"bridge": "br0"})
	for range 2 {
		if _, refusal := addressOf(t, d, id, "", false); refusal != "" {
			t.Fatal(refusal)
		}
	}
	if refusal != "" || len(s.Held()) != 0 {
		t.Fatal(refusal, s.Held())
	}
	text := `{"Id":"` + net1 + `","IPAM":{"Driver":"vswitch","Config":[{"Subnet":"10.0.0.0/24","Gateway":"10.0.0.1"}]},
		"Containers":{"x":{"EndpointID":"` + ep1 + `","IPv4Address":"10.0.0.2/24"}}}`
	f := &fakeDocker{answers: map[string]string{"/networks": "[" + text + "]", "/networks/" + net1: text}}
	c := &collector{d: d, ask: f.ask, lost: map[string]int{}}
	for range roundsToGo {
		c.round(t.Context(), 0)
	}
	if l := d.leases.Leases(""); len(l) != 1 || l[0].Addr.String() != "10.0.0.2" {
		t.Errorf("leases: %v", l)
	}
}

// FuzzAnswer gives the collector what no Docker says.
func FuzzAnswer(f *testing.F) {
	f.Add(`[{"Id":"`+net1+`"}]`, `{"Id":"x","Containers":{"a":{"EndpointID":"`+ep1+`","Name":"x,y"}}}`)
	f.Add(`[{"Id":"../../x","IPAM":{"Driver":"x"}}]`, `{}`)
	f.Add(`{`, ``)
	f.Fuzz(func(t *testing.T, all, one string) {
		d, s, _ := newDouble(t, "bridges: []")
		must(t, d, "NetworkDriver.CreateNetwork", network1)
		must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.1.0.2/16"))
		ask := func(_ context.Context, path string, v any) error {
			if strings.Count(path, "/") > 2 || strings.Contains(path, "..") {
				t.Fatalf("asked for %q", path)
			}
			if path == "/networks" {
				return json.Unmarshal([]byte(all), v)
			}
			return json.Unmarshal([]byte(one), v)
		}
		(&collector{d: d, ask: ask, lost: map[string]int{}}).round(t.Context(), 0)
		if len(s.Held()) != 2 {
			t.Fatalf("one round dropped something: %v", s.Held())
		}
		doc := s.expanded()
		for _, b := range doc.Bridges {
			for _, p := range b.Ports {
				if _, ok := p.Plug(); !ok {
					t.Fatalf("port %+v", p)
				}
			}
		}
	})
}
