package mesh_test

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// circling bounds what a loop may cost a host, in frames a second, once its MACs
// are held: they are let go once in a hold, go round until they are held again, and
// nothing else does.
const circling = 20_000

// talk has containers send broadcasts and ARP announcements until the returned
// function is called: what a loop multiplies.
func (n *labMesh) talk(all ...*lab.Container) (stop func()) {
	n.t.Helper()
	quit, done := make(chan struct{}), make(chan error, len(all))
	for _, c := range all {
		conn := c.Conn()
		go func() { // ends with stop
			tick := time.NewTicker(20 * time.Millisecond)
			defer tick.Stop()
			for i := 0; ; i++ {
				frame := announce(c)
				if i%2 == 0 {
					frame = ether(broadcast, c.MAC, fmt.Sprint(c.Name, " says ", i))
				}
				if err := conn.Send(frame); err != nil {
					done <- err
					return
				}
				select {
				case <-quit:
					done <- nil
					return
				case <-tick.C:
				}
			}
		}()
	}
	return func() {
		n.t.Helper()
		close(quit)
		for range all {
			if err := <-done; err != nil {
				n.t.Error(err)
			}
		}
	}
}

// looped watches hosts in a loop: they say so, they answer, and few frames circle.
// A MAC is held where it is first one time too many, and what is held there does
// not get as far as the other bridges: any of the hosts may be the one.
func (n *labMesh) looped(told map[*member]*lab.Events, bridges ...string) {
	n.t.Helper()
	for _, home := range n.hosts {
		for _, c := range home.c {
			mac := c.MAC.String()
			lab.Eventually(n.t, patient, func() error {
				for _, m := range n.hosts {
					for _, e := range told[m].Of("mac-flapping", "") {
						other, _ := e.Detail["other"].(string)
						if e.Detail["mac"] == mac && other != "" && other != e.Port && hasAll(e.Message, mac, e.Port, other) {
							return nil
						}
					}
				}
				return fmt.Errorf("nobody has told that %s flaps", mac)
			})
			lab.Eventually(n.t, patient, func() error { // between two holds there is a moment without
				for _, m := range n.hosts {
					if strings.Contains(m.d.Ctl("show"), "FLAPPING: "+mac) {
						return nil
					}
				}
				return fmt.Errorf("nobody shows that %s flaps", mac)
			})
		}
	}

	// Held, it is quiet: over more than one hold.
	const watch = 2500 * time.Millisecond
	count := func(m *member) (received, dropped uint64) {
		for _, br := range bridges {
			c := m.stats(n.t, br)
			received, dropped = received+c.Received, dropped+c.Drops["mac-flapping"]+c.Drops["storm-broadcast"]+c.Drops["patch-loop"]
		}
		return received, dropped
	}
	var total uint64
	for _, m := range n.hosts {
		start := time.Now()
		r0, d0 := count(m)
		slowest := time.Duration(0)
		for time.Since(start) < watch {
			asked := time.Now()
			m.d.Ctl("fdb", "show", "br0")
			slowest = max(slowest, time.Since(asked))
		}
		r1, d1 := count(m)
		total += d1 - d0
		seconds := time.Since(start).Seconds()
		received := float64(r1-r0) / seconds
		n.t.Logf("%s: in a loop it receives %.0f frames a second and drops %.0f; vswitchctl took %v at most",
			m.name, received, float64(d1-d0)/seconds, slowest.Round(time.Millisecond))
		if received > circling {
			n.t.Errorf("%s receives %.0f frames a second", m.name, received)
		}
		if slowest > time.Second && !raced {
			n.t.Errorf("%s: vswitchctl took %v", m.name, slowest)
		}
	}
	if total == 0 {
		n.t.Error("nothing is dropped, though there is a loop")
	}
	for _, home := range n.hosts {
		for _, c := range home.c {
			// At home, it is held where it is.
			for _, e := range told[home].Of("mac-flapping", "") {
				if e.Bridge == "br0" && e.Detail["mac"] == c.MAC.String() && e.Port != c.Veth {
					n.t.Errorf("%s: the MAC of %s is held elsewhere: %s", home.name, c.Veth, e.Message)
				}
			}
			lab.Eventually(n.t, patient, func() error {
				if at := home.at(n.t, c.MAC); at != c.Veth {
					return fmt.Errorf("%s: the MAC of %s is behind %q", home.name, c.Veth, at)
				}
				return nil
			})
		}
	}
}

func hasAll(text string, words ...string) bool {
	return !slices.ContainsFunc(words, func(w string) bool { return !strings.Contains(text, w) })
}

// TestLabTwoMeshesPatched patches two meshes together on both hosts:
//
//	     ┌─ a ──────────────┐  underlay  ┌─ b ──────────────┐
//	c0 ──┤ br0 ◄── m0 ──────┼────────────┼─────────► br0    ├── c0
//	     │  ║ patch         │            │            ║     │
//	     │ br1 ◄── m1 ──────┼────────────┼─────────► br1    │
//	     └──────────────────┘            └──────────────────┘
func TestLabTwoMeshesPatched(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 2, containers: 1, bridge: "mac-flap-hold: 1, "})
	a, b := n.hosts[0], n.hosts[1]
	n.mesh(a, b)
	for _, m := range n.hosts {
		m.d.Ctl("add-br", "br1", "mac-flap-hold=1")
		m.d.Ctl("mesh", "add", "m1", "bridge=br1", "key=43", peers(a, b))
	}
	n.waitMesh("m1", a, b)
	if err := pingAll(a, b); err != nil {
		t.Fatal(err)
	}
	told := map[*member]*lab.Events{a: a.d.Events(), b: b.d.Events()}
	patch := func(m *member) {
		m.d.Ctl("add-port", "br0", "p0", "type=patch", "peer=p1")
		m.d.Ctl("add-port", "br1", "p1", "type=patch", "peer=p0")
	}
	patch(a)
	patch(b)
	// One who speaks seldom is at home, too, when he speaks again: the loop may have
	// been cut elsewhere before he was held here, which leaves him astray.
	seldom := b.c[0].Conn()
	for i := range 2 {
		if err := seldom.Send(ether(broadcast, b.c[0].MAC, fmt.Sprint("seldom ", i))); err != nil {
			t.Fatal(err)
		}
		n.released()
		lab.Eventually(t, patient, func() error {
			all, err := b.api.FDB(context.Background(), api.FDBQuery{Bridge: "br0", MAC: b.c[0].MAC.String(), VLAN: -1})
			if err == nil && (len(all) != 1 || all[0].Age < 2) {
				err = fmt.Errorf("not at rest: %+v", all)
			}
			return err
		})
	}
	stop := n.talk(a.c[0], b.c[0])
	n.looped(told, "br0", "br1")
	// Both meshes live: what circles does not starve BFD.
	for _, m := range n.hosts {
		for _, mesh := range []string{"m0", "m1"} {
			for _, other := range n.hosts {
				if other == m {
					continue
				}
				if err := m.is(other.port(mesh), api.PortUp); err != nil {
					t.Error(err)
				}
			}
		}
	}
	b.d.Ctl("del-port", "p0")
	b.d.Ctl("del-port", "p1")
	stop()
	n.healed(time.Second)
	for _, e := range told {
		if err := fewEvents(e, 2000); err != nil {
			t.Error(err)
		}
	}
}

// released waits until no MAC is held, and says how long that took.
func (n *labMesh) released() time.Duration {
	n.t.Helper()
	since := time.Now()
	for _, m := range n.hosts {
		lab.Eventually(n.t, patient, func() error {
			st, err := m.api.Status(context.Background(), "")
			if err != nil {
				return err
			}
			for _, b := range st.Bridges {
				if len(b.Flaps) > 0 {
					return fmt.Errorf("%s holds in %s: %+v", m.name, b.Name, b.Flaps)
				}
			}
			return nil
		})
	}
	return time.Since(since)
}

// healed wants all to be well once the MACs are let go, after a hold.
func (n *labMesh) healed(hold time.Duration) {
	n.t.Helper()
	if took := n.released(); took > hold+2*time.Second {
		n.t.Errorf("MACs are held %v after the loop is gone", took)
	}
	if err := pingAll(n.hosts...); err != nil {
		n.t.Error(err)
	}
	n.settled()
}

// TestLabBridgeCabledTwice joins two bridges of a host by two cables, without
// storm control, which is a mesh's:
//
//	     ┌─ a ─────────────────────────┐
//	c0 ──┤      ┌─ v0 ══ w0 ─┐         │
//	     │  br0 ┤            ├ br1     │
//	c1 ──┤      └─ v1 ══ w1 ─┘         │
//	     └─────────────────────────────┘
func TestLabBridgeCabledTwice(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 1, containers: 2, bridge: "mac-flap-hold: 1, "})
	a := n.hosts[0]
	if err := pingAll(a); err != nil {
		t.Fatal(err)
	}
	for i := range 2 {
		n.Wire(a.Namespace, fmt.Sprint("v", i), "", a.Namespace, fmt.Sprint("w", i), "")
		for _, end := range []string{"v", "w"} { // routers' solicitations are the kernel's own, and loop too
			a.Sysctl(fmt.Sprintf("net/ipv6/conf/%s%d/disable_ipv6", end, i), "1")
		}
	}
	told := a.d.Events()
	a.d.Ctl("add-br", "br1", "mac-flap-hold=1")
	for i := range 2 {
		a.d.Ctl("add-port", "br0", fmt.Sprint("v", i))
		a.d.Ctl("add-port", "br1", fmt.Sprint("w", i))
	}
	stop := n.talk(a.c[0])
	quiet := n.talk(a.c[1])
	n.looped(map[*member]*lab.Events{a: told}, "br0", "br1")
	// Its own containers find each other in spite of it.
	if err := lab.Ping(a.c[0], a.c[1]); err != nil {
		t.Error(err)
	}
	a.d.Ctl("del-port", "v1")
	quiet()
	stop()
	n.healed(time.Second)
	// A MAC moves ten times, and is held: some twenty events a hold, of three MACs
	// and two bridges.
	if err := fewEvents(told, 2000); err != nil {
		t.Error(err)
	}
}

// TestLabStorm lets a container flood a mesh:
//
//	c0 ── [a] ── underlay ── [b] ── c0
//	20,000/s →              → 1,000/s
func TestLabStorm(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 2, containers: 1})
	a, b := n.hosts[0], n.hosts[1]
	n.mesh(a, b)
	if err := pingAll(a, b); err != nil {
		t.Fatal(err)
	}
	from, to := a.c[0].Conn(), b.c[0].Conn()
	for _, storm := range []struct {
		reason string
		dst    net.HardwareAddr
		limit  int // what comes through, frames a second
	}{
		{"storm-broadcast", broadcast, 1000},
		{"storm-multicast", net.HardwareAddr{1, 0, 0x5e, 1, 2, 3}, 2000},
		{"storm-unknown", net.HardwareAddr{2, 0, 0, 0, 0, 9}, 1000},
	} {
		const rate = 20_000
		const lasts = 1500 * time.Millisecond
		before := b.drops(t, a.port("m0"), storm.reason)
		start := time.Now()
		frame := ether(storm.dst, a.c[0].MAC, storm.reason)
		sent := 0
		for since := time.Duration(0); since < lasts; since = time.Since(start) {
			for due := int(since.Seconds() * rate); sent < due; sent++ {
				if err := from.Send(frame); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(time.Millisecond) // the pace of what is sent
		}
		seconds := time.Since(start).Seconds()
		texts, err := collect(to, 300*time.Millisecond)
		if err != nil {
			t.Fatal(err)
		}
		got, dropped := texts[storm.reason], int(b.drops(t, a.port("m0"), storm.reason)-before)
		t.Logf("%s: %d sent in %.2f s, %d came through, %d were dropped", storm.reason, sent, seconds, got, dropped)
		// A bucket of a tenth of a second, and what the host is late.
		if most := int(float64(storm.limit)*(seconds+0.5)) + 100; got > most || got < int(float64(storm.limit)*min(seconds, 1)) {
			t.Errorf("%s: %d frames came through in %.2f s", storm.reason, got, seconds)
		}
		// What a lost on its way may not be among those: a slow host loses some.
		if dropped == 0 || got+dropped > sent || !raced && got+dropped < sent*9/10 {
			t.Errorf("%s: %d dropped of %d", storm.reason, dropped, sent)
		}
	}
	// One who is no storm is heard again at once.
	if err := pingAll(a, b); err != nil {
		t.Error(err)
	}
	n.settled()
}
