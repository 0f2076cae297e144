package main

import (
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/api/apitest"
)

// duplicate is two machines with one address.
func duplicate() api.Why {
	at := func(d time.Duration) *time.Time { t := now.Add(-d); return &t }
	return api.Why{
		Address: "10.0.0.5",
		Verdict: "10.0.0.5 is 02:00:00:00:00:05 behind veth1 of br0 in VLAN 10, up, last heard 2s ago; and at 1 place more, see below; beware, there is a contradiction",
		Contradictions: []string{
			"10.0.0.5 in VLAN 10 is claimed by 02:00:00:00:00:05 at veth1 and by 02:00:00:00:00:06 at m1:host2, 12 times within a minute of each other, last 2s ago: two machines have one address, unless it was taken over"},
		Try: []string{"`vswitchctl drops br0 veth1` says what to do about the drops"},
		Places: []api.WhyPlace{
			{Bridge: "br0", VLAN: 10, MAC: "02:00:00:00:00:05", Port: "veth1", Type: "packet", State: "up", Since: now.Add(-time.Hour),
				Learned: at(3 * time.Minute), LastHeard: at(2 * time.Second), Moves: 1, Moved: []api.MACMove{{Time: *at(time.Minute), From: "veth2", To: "veth1"}}, Dropped: 18,
				Limits: []string{"storm_broadcast=1000, which dropped 5 frames"}},
			{Bridge: "br0", VLAN: 10, MAC: "02:00:00:00:00:06", Port: "m1:host2", Type: "vxlan", Remote: "192.0.2.2", State: "down", Reason: "BFD is down: the other end was not heard yet",
				Since: now.Add(-time.Minute), LastHeard: at(4 * time.Second)},
			{Bridge: "br1", MAC: "02:00:00:00:00:05", Port: "veth9", Gone: "aged", GoneAt: at(time.Hour)},
		},
		Neighbors: []api.Neighbor{{Bridge: "br0", VLAN: 10, IP: "10.0.0.5", MAC: "02:00:00:00:00:05", Port: "veth1", By: "arp-reply", FirstSeen: *at(2 * time.Second), LastSeen: *at(2 * time.Second),
			Conflict: &api.AddressConflict{MAC: "02:00:00:00:00:06", Port: "m1:host2", Count: 12, First: *at(time.Minute), Last: *at(2 * time.Second)}}},
		Drops: []api.WhyDrop{{Bridge: "br0", Port: "veth1", Reason: "vlan-not-trunked", Count: 3, As: "both", LastSeen: *at(time.Second),
			LastFrame: "02:00:00:00:00:05 > 02:00:00:00:00:01, vlan 20, IPv4 10.0.0.5 > 10.0.0.1: icmp echo \x1b[2J request", Help: "the frame's VLAN is not among the port's trunks; add it (set-port NAME trunks=…)"}},
		Since: at(time.Minute), Recorder: true,
	}
}

func TestWhy(t *testing.T) {
	c := newCLI(t)
	c.svc.Y = apitest.Why{Why: duplicate()}
	golden(t, c, map[string][]string{
		"why":      {"why", "10.0.0.5"},
		"why-json": {"why", "10.0.0.5", "br0", "-o", "json"},
	})
	asked := c.svc.Asked()
	want := map[any]bool{api.WhyQuery{Address: "10.0.0.5"}: true, api.WhyQuery{Address: "10.0.0.5", Bridge: "br0"}: true}
	for _, q := range asked {
		if !want[q] {
			t.Errorf("asked %+v", q)
		}
	}
	if code, _, errs := c.run("", "why", "veth1"); code != exitUsage || !strings.Contains(errs, `"veth1" is not a MAC address`) {
		t.Errorf("exit %d, %q", code, errs)
	}
	if _, _, errs := c.run("", "why", "02-00-00-00-00-0A"); errs != "" {
		t.Errorf("%q", errs)
	}
	if asked := c.svc.Asked(); len(asked) != 1 || asked[0] != (api.WhyQuery{Address: "02:00:00:00:00:0a"}) {
		t.Errorf("asked %+v", asked)
	}
}

// What is not known is said, too.
func TestWhyNobodyKnows(t *testing.T) {
	c := newCLI(t)
	since := now.Add(-time.Minute)
	for _, tc := range []struct {
		why  api.Why
		want string
	}{
		{api.Why{Verdict: "nobody has heard of 10.0.0.9", Try: []string{"let it speak"}},
			"nobody has heard of 10.0.0.9\n\nno drop is known to have named it; the flight recorder is off\n\ntry\n  let it speak\n"},
		{api.Why{Verdict: "v", Recorder: true}, "v\n\nno dropped frame is known to have named it\n"},
		{api.Why{Verdict: "v", Recorder: true, Since: &since}, "v\n\nno dropped frame named it in the last 1m00s\n"},
	} {
		if got := (&app{now: func() time.Time { return now }}).whyText(tc.why); got != tc.want {
			t.Errorf("got %q, want %q", got, tc.want)
		}
	}
	c.svc.Fail(&api.Error{Status: 404, Message: `bridge "br9" does not exist`})
	if code, _, errs := c.run("", "why", "10.0.0.1", "br9"); code != exitRefused || !strings.Contains(errs, "br9") {
		t.Errorf("exit %d, %q", code, errs)
	}
}
