package docker

import (
	"encoding/json"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"time"
)

// requested asks for a pool and returns its ID, subnet and gateway, or the refusal.
func requested(t testing.TB, d *Driver, subnet, among string, v6 bool, options map[string]string) (id, got, gateway, refusal string) {
	t.Helper()
	body, _ := json.Marshal(map[string]any{"AddressSpace": "vswitch", "Pool": subnet, "SubPool": among, "Options": options, "V6": v6, "Later": 1})
	a, refusal := posted(t, d, "IpamDriver.RequestPool", string(body))
	var r poolResponse
	text, _ := json.Marshal(a)
	_ = json.Unmarshal(text, &r)
	return r.PoolID, r.Pool, r.Data[gatewayKey], refusal
}

func addressOf(t testing.TB, d *Driver, pool, address string, gateway bool) (string, string) {
	t.Helper()
	options := map[string]string{}
	if gateway {
		options[requestTypeKey] = gatewayKey
	}
	body, _ := json.Marshal(map[string]any{"PoolID": pool, "Address": address, "Options": options})
	a, refusal := posted(t, d, "IpamDriver.RequestAddress", string(body))
	var r addressResponse
	text, _ := json.Marshal(a)
	_ = json.Unmarshal(text, &r)
	return r.Address, refusal
}

func released(t testing.TB, d *Driver, pool, address string) {
	t.Helper()
	must(t, d, "IpamDriver.ReleaseAddress", fmt.Sprintf(`{"PoolID":%q,"Address":%q}`, pool, address))
}

func TestOwnPool(t *testing.T) {
	d, s, _ := newDouble(t, "bridges: []")
	id, subnet, gateway, refusal := requested(t, d, "10.1.0.0/29", "", false, nil)
	if id != "docker/10.1.0.0/29" || subnet != "10.1.0.0/29" || gateway != "" || refusal != "" {
		t.Fatal(id, subnet, gateway, refusal)
	}
	// Docker did not hear the answer, and asks again.
	if again, _, _, refusal := requested(t, d, "10.1.0.0/29", "", false, nil); again != id {
		t.Fatal(again, refusal)
	}
	for range 2 {
		if a, refusal := addressOf(t, d, id, "", true); a != "10.1.0.1/29" {
			t.Fatal(a, refusal)
		}
	}
	if _, _, _, refusal := requested(t, d, "10.1.0.0/24", "", false, nil); !strings.Contains(refusal, "subnet 10.1.0.0/24 overlaps with 10.1.0.0/29") {
		t.Error(refusal)
	}
	if other, _, _, refusal := requested(t, d, "10.1.0.0/29", "", false, map[string]string{"overlap": "true"}); other != "docker/10.1.0.0/29#2" {
		t.Error(other, refusal)
	} else {
		must(t, d, "IpamDriver.ReleasePool", `{"PoolID":"`+other+`"}`)
	}
	var all []string
	for range 5 {
		a, refusal := addressOf(t, d, id, "", false)
		if refusal != "" {
			t.Fatal(refusal)
		}
		all = append(all, a)
	}
	if fmt.Sprint(all) != "[10.1.0.2/29 10.1.0.3/29 10.1.0.4/29 10.1.0.5/29 10.1.0.6/29]" {
		t.Error(all)
	}
	if _, refusal := addressOf(t, d, id, "", false); !strings.Contains(refusal, "no address is left") {
		t.Error(refusal)
	}
	for address, why := range map[string]string{
		"10.1.0.3": "address is taken", "10.1.0.1": "address is taken", "10.1.0.0": "not one that a host", "10.1.0.7": "not one that a host", "10.2.0.1": "not one that a host",
		"x": `"x" is not an address`,
	} {
		if _, refusal := addressOf(t, d, id, address, false); !strings.Contains(refusal, why) {
			t.Errorf("%s: %q, want %q", address, refusal, why)
		}
	}
	for range 2 {
		released(t, d, id, "10.1.0.3")
	}
	if a, refusal := addressOf(t, d, id, "10.1.0.3", false); a != "10.1.0.3/29" {
		t.Error(a, refusal)
	}
	for range 2 {
		must(t, d, "IpamDriver.ReleasePool", `{"PoolID":"`+id+`"}`)
	}
	released(t, d, id, "10.1.0.3")
	if _, refusal := addressOf(t, d, id, "", false); refusal != "pool docker/10.1.0.0/29 is not known" {
		t.Error(refusal)
	}
	if len(s.Held())+len(d.leases.Leases("")) != 0 {
		t.Errorf("held %v, leases %v", s.Held(), d.leases.Leases(""))
	}
}

func TestPoolOfBridge(t *testing.T) {
	d, s, _ := newDouble(t, operators)
	id, subnet, gateway, refusal := requested(t, d, "10.0.0.0/24", "10.0.0.48/28", false, map[string]string{"bridge": "br0"})
	if id != "bridge/br0/4/10.0.0.48/28" || subnet != "10.0.0.0/24" || gateway != "10.0.0.1/24" || refusal != "" {
		t.Fatal(id, subnet, gateway, refusal)
	}
	// The operator's plug has .50 by hand, and another one leased .49.
	if err := d.leases.Reserve("br0", netip.MustParseAddr("10.0.0.49"), "docker:db eth1"); err != nil {
		t.Fatal(err)
	}
	var all []string
	for range 3 {
		a, refusal := addressOf(t, d, id, "", false)
		if refusal != "" {
			t.Fatal(refusal)
		}
		all = append(all, a)
	}
	if fmt.Sprint(all) != "[10.0.0.48/24 10.0.0.51/24 10.0.0.52/24]" {
		t.Error(all)
	}
	for address, why := range map[string]string{"10.0.0.1": "is taken", "10.0.0.50": "is taken", "10.0.0.49": "taken by docker:db eth1", "10.0.0.48": "taken by docker/"} {
		if _, refusal := addressOf(t, d, id, address, false); !strings.Contains(refusal, why) {
			t.Errorf("%s: %q, want %q", address, refusal, why)
		}
	}
	if a, refusal := addressOf(t, d, id, "10.0.0.1", true); a != "10.0.0.1/24" {
		t.Error(a, refusal)
	}
	// An endpoint with an address of the pool.
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.0.0.0/24", false, map[string]string{"bridge": "br0"}))
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.0.0.51/24"))
	must(t, d, "NetworkDriver.DeleteEndpoint", `{"EndpointID":"`+ep1+`"}`)
	if n := len(d.leases.Leases("br0")); n != 4 {
		t.Errorf("%d leases, want those of three containers and a plug: %v", n, d.leases.Leases("br0"))
	}
	for _, a := range append(all, "10.0.0.49/24", "10.0.0.1/24") { // what is not Docker's stays
		released(t, d, id, a)
	}
	must(t, d, "NetworkDriver.DeleteNetwork", `{"NetworkID":"`+net1+`"}`)
	must(t, d, "IpamDriver.ReleasePool", `{"PoolID":"`+id+`"}`)
	if l := d.leases.Leases(""); len(l) != 1 || l[0].Owner != "docker:db eth1" || len(s.Held()) != 0 {
		t.Errorf("leases %v, held %v", l, s.Held())
	}
}

func TestPoolRefusals(t *testing.T) {
	d, _, _ := newDouble(t, operators)
	for _, c := range []struct {
		subnet, among string
		options       map[string]string
		want          string
	}{
		{"x", "", nil, `subnet "x" is not a network`},
		{"0.0.0.0/0", "", nil, `subnet "0.0.0.0/0" is not a network`},
		{"224.0.0.0/8", "", nil, `subnet "224.0.0.0/8" is not a network`},
		{"", "10.1.0.0/24", nil, "range 10.1.0.0/24 needs the subnet"},
		{"10.1.0.0/16", "10.2.0.0/24", nil, "range 10.2.0.0/24 is not part of subnet 10.1.0.0/16"},
		{"10.1.0.0/16", "", map[string]string{"brigde": "br0"}, "unknown IPAM option brigde; allowed: bridge, mesh, overlap"},
		{"10.1.0.0/16", "", map[string]string{"overlap": "x"}, `IPAM option overlap: "x" is not one; allowed: true, false`},
		{"10.1.0.0/16", "", map[string]string{"bridge": "br0"}, "subnet 10.1.0.0/16 is not that of bridge br0; allowed: 10.0.0.0/24"},
		{"10.0.0.0/24", "10.1.0.0/16", map[string]string{"bridge": "br0"}, "range 10.1.0.0/16 is not part of 10.0.0.0/24"},
		{"", "", map[string]string{"bridge": "br0"}, "IPAM option bridge: Docker wants the subnet of br0 by name: give --subnet 10.0.0.0/24, too"},
		{"", "", map[string]string{"bridge": "br9"}, `IPAM option bridge: "br9" does not exist`},
		{"", "", map[string]string{"bridge": "lan"}, "IPAM option bridge: lan has no subnet"},
		{"", "", map[string]string{"mesh": "m1"}, "IPAM option bridge: lan has no subnet"},
		{"", "", map[string]string{"mesh": "m9"}, `IPAM option mesh: "m9" is no mesh`},
	} {
		if _, _, _, refusal := requested(t, d, c.subnet, c.among, false, c.options); !strings.HasPrefix(refusal, c.want) {
			t.Errorf("%q %q %v: %q, want %q", c.subnet, c.among, c.options, refusal, c.want)
		}
	}
	for _, id := range []string{"", "bridge/", "bridge/br0", "bridge/br0/5", "bridge/br0/4/x", "bridge/br9/4", "docker/x", "default/10.0.0.0/8"} {
		if _, refusal := addressOf(t, d, id, "", false); refusal == "" {
			t.Errorf("pool %q gave an address", id)
		}
		released(t, d, id, "10.0.0.5")
		must(t, d, "IpamDriver.ReleasePool", fmt.Sprintf(`{"PoolID":%q}`, id))
	}
}

func TestDefaultPool(t *testing.T) {
	d, _, w := newDouble(t, "bridges: []")
	w.known = []netip.Prefix{netip.MustParsePrefix("10.208.0.0/23"), netip.MustParsePrefix("169.254.0.0/16")}
	for _, want := range []string{"10.208.2.0/24", "10.208.3.0/24"} {
		if _, got, _, refusal := requested(t, d, "", "", false, nil); got != want {
			t.Errorf("got %s, want %s (%s)", got, want, refusal)
		}
	}
	w.known = append(w.known, netip.MustParsePrefix("10.0.0.0/8"))
	if _, got, _, refusal := requested(t, d, "", "", false, nil); got != "192.168.0.0/24" {
		t.Error(got, refusal)
	}
	w.known = append(w.known, netip.MustParsePrefix("192.168.0.0/16"))
	if _, _, _, refusal := requested(t, d, "", "", false, nil); !strings.Contains(refusal, "give --subnet") {
		t.Error(refusal)
	}
	id, got, _, refusal := requested(t, d, "", "", true, nil)
	if p, err := netip.ParsePrefix(got); err != nil || p.Bits() != 64 || !strings.HasPrefix(got, "fd") {
		t.Fatal(got, refusal)
	}
	if a, refusal := addressOf(t, d, id, "", true); !strings.HasSuffix(a, "::1/64") {
		t.Error(a, refusal)
	}
}

// TestRange: hosts that have a range each of one subnet have nothing in common in it, gateways
// included.
func TestRange(t *testing.T) {
	for among, want := range map[string]string{
		"10.1.8.0/24": "[10.1.8.1/16 10.1.8.0/16 10.1.8.2/16]", "10.1.9.0/24": "[10.1.9.1/16 10.1.9.0/16 10.1.9.2/16]", "10.1.0.0/24": "[10.1.0.1/16 10.1.0.2/16 10.1.0.3/16]",
		"10.1.9.9/32": "[10.1.9.9/16]",
	} {
		d, _, _ := newDouble(t, "bridges: []")
		id, _, _, refusal := requested(t, d, "10.1.0.0/16", among, false, nil)
		var all []string
		for n := range 3 {
			if a, refusal := addressOf(t, d, id, "", n == 0); refusal == "" {
				all = append(all, a)
			}
		}
		if fmt.Sprint(all) != want {
			t.Errorf("%s: %v, want %s (%s)", among, all, want, refusal)
		}
	}
}

// TestGivenAgain: the release of an address was lost while the switch was away, and its
// container wants it again.
func TestGivenAgain(t *testing.T) {
	d, s, w := newDouble(t, "bridges: []")
	id, _, _, _ := requested(t, d, "10.1.0.0/16", "", false, nil)
	if _, refusal := addressOf(t, d, id, "10.1.0.7", false); refusal != "" {
		t.Fatal(refusal)
	}
	must(t, d, "NetworkDriver.CreateNetwork", network1)
	must(t, d, "NetworkDriver.CreateEndpoint", endpointOn(net1, ep1, "10.1.0.7/16"))
	must(t, d, "NetworkDriver.Join", `{"NetworkID":"`+net1+`","EndpointID":"`+ep1+`"}`)
	again := func() string { _, refusal := addressOf(t, d, id, "10.1.0.7", false); return refusal }
	if again() == "" {
		t.Error("given twice")
	}
	// Everything is older than any call takes: its container still has it.
	old := time.Now().Add(-time.Hour)
	d.leases = elder{d.leases, old}
	i, _ := d.find(endpointKey(ep1))
	i.Since = old
	if err := d.hold(t.Context(), append(s.Held()[:0:0], i)); err != nil {
		t.Fatal(err)
	}
	if again() == "" {
		t.Error("given twice, while its container runs")
	}
	clear(w.pairs) // the container is gone, and its namespace with it
	if refusal := again(); refusal != "" {
		t.Error(refusal)
	}
	if _, refusal := addressOf(t, d, id, "10.1.0.9", false); refusal == "" {
		t.Error("what Docker keeps for the network is given to a container")
	}
}

// TestGivenBeforeAKill: the switch was killed before Docker heard that it has an address, and
// who started the container starts it again.
func TestGivenBeforeAKill(t *testing.T) {
	d, _, _ := newDouble(t, "bridges: []")
	id, _, _, _ := requested(t, d, "10.1.0.0/16", "", false, nil)
	addressOf(t, d, id, "", true)
	if _, refusal := addressOf(t, d, id, "10.1.0.9", false); refusal != "" {
		t.Fatal(refusal)
	}
	// Another driver's network, such as macvlan's: who uses its addresses is not known here.
	if _, refusal := addressOf(t, newDriver(d.o, d.leases, d.wires), id, "10.1.0.9", false); refusal == "" {
		t.Fatal("given twice, in another driver's network")
	}
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.1.0.0/16", false, nil))
	for range 2 {
		if _, refusal := addressOf(t, d, id, "10.1.0.7", false); refusal != "" {
			t.Fatal(refusal)
		}
		if _, refusal := addressOf(t, d, id, "10.1.0.7", false); refusal == "" {
			t.Fatal("given twice")
		}
		d = newDriver(d.o, d.leases, d.wires) // the next process
	}
}

// TestManyAtOnce: containers come and go at the same time, and no two have an address or a
// port of the host.
func TestManyAtOnce(t *testing.T) {
	d, s, w := newDouble(t, "bridges: []")
	id, _, _, _ := requested(t, d, "10.1.0.0/24", "", false, nil)
	addressOf(t, d, id, "", true)
	must(t, d, "NetworkDriver.CreateNetwork", create(t, net1, "10.1.0.0/24", false, nil))
	const workers, rounds = 12, 8
	var mu sync.Mutex
	has := map[string]string{}
	take := func(what, who string) {
		mu.Lock()
		defer mu.Unlock()
		if other := has[what]; other != "" {
			t.Errorf("%s and %s both have %s", who, other, what)
		}
		has[what] = who
	}
	free := func(what string) {
		mu.Lock()
		defer mu.Unlock()
		delete(has, what)
	}
	var all sync.WaitGroup
	for n := range workers {
		all.Go(func() { // ends with its rounds
			for r := range rounds {
				ep := fmt.Sprintf("%032d%032d", n, r)
				both := fmt.Sprintf(`{"NetworkID":%q,"EndpointID":%q}`, net1, ep)
				a, refusal := addressOf(t, d, id, "", false)
				if refusal != "" {
					t.Error(refusal)
					return
				}
				take(a, ep)
				for _, c := range []struct{ call, body string }{
					{"CreateEndpoint", endpointOn(net1, ep, a)}, {"Join", both}, {"ProgramExternalConnectivity", published(ep, `[{"Proto":17,"Port":53}]`)},
				} {
					if _, refusal := posted(t, d, "NetworkDriver."+c.call, c.body); refusal != "" {
						t.Error(refusal)
						return
					}
				}
				i, _ := d.find(endpointKey(ep))
				port, _, _ := strings.Cut(i.Ports[0].Options["publish"], ":")
				take(port, ep)
				posted(t, d, "NetworkDriver.Join", both) // meanwhile, others take theirs
				free(port)
				for _, call := range []string{"RevokeExternalConnectivity", "Leave", "DeleteEndpoint"} {
					if _, refusal := posted(t, d, "NetworkDriver."+call, both); refusal != "" {
						t.Error(refusal)
						return
					}
				}
				free(a)
				released(t, d, id, a)
			}
		})
	}
	all.Wait()
	must(t, d, "IpamDriver.ReleasePool", `{"PoolID":"`+id+`"}`)
	must(t, d, "NetworkDriver.DeleteNetwork", `{"NetworkID":"`+net1+`"}`)
	if len(s.Held())+len(w.pairs)+len(d.leases.Leases("")) != 0 {
		t.Errorf("held %v, pairs %v, leases %v", s.Held(), w.pairs, d.leases.Leases(""))
	}
}
