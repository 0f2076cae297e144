package mesh_test

import (
	"fmt"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// detection is how long a silent host is believed in: 3 × 300 ms (RFC 5880, 6.8.4).
const detection = 900 * time.Millisecond

// noticed waits until a member has lost sight of another by BFD and forgotten a MAC
// that was behind it.
func (n *labMesh) noticed(m, gone *member, told *lab.Events, since time.Time) {
	n.t.Helper()
	port := gone.port("m0")
	lab.Eventually(n.t, patient, func() error { return m.is(port, api.PortDown) })
	took := time.Since(since)
	n.t.Logf("%s noticed after %v", m.name, took.Round(time.Millisecond))
	if took > detection+3*prompt {
		n.t.Errorf("%s took %v to notice that %s is gone", m.name, took, gone.name)
	}
	if st, err := m.tunnel(port); err != nil || st.BFD == nil || st.BFD.State != "down" || st.Reason == "" {
		n.t.Errorf("%s: %+v, %v", m.name, st, err)
	}
	for _, c := range gone.c {
		if at := m.at(n.t, c.MAC); at != "" {
			n.t.Errorf("%s still has %s behind %s", m.name, c.MAC, at)
		}
	}
	told.Wait(patient, "bfd-down", port)
	told.Wait(patient, "port-down", port)
}

// TestLabHostGone kills a host's daemon, or pulls its plug, and brings it back,
// while two others talk:
//
//	c0 ── [a] ──┐
//	c0 ── [b] ──┼── underlay     a and b talk; c comes and goes
//	c0 ── [c] ──┘
func TestLabHostGone(t *testing.T) {
	for _, way := range []struct {
		name       string
		away, back func(n *labMesh, c *member) (ready time.Time)
	}{
		{"killed", func(_ *labMesh, c *member) time.Time {
			c.d.Kill()
			return time.Now()
		}, func(_ *labMesh, c *member) time.Time {
			c.d.Start()
			return time.Now()
		}},
		{"cut off", func(n *labMesh, c *member) time.Time {
			n.u.Cut(c.Host)
			return time.Now()
		}, func(n *labMesh, c *member) time.Time {
			n.u.Mend(c.Host)
			return time.Now()
		}},
	} {
		t.Run(way.name, func(t *testing.T) {
			n := newLabMesh(t, labOptions{hosts: 3, containers: 1})
			n.mesh(n.hosts...)
			a, b, c := n.hosts[0], n.hosts[1], n.hosts[2]
			if err := pingAll(n.hosts...); err != nil {
				t.Fatal(err)
			}
			between := []*stream{n.startStream(a.c[0], b.c[0], time.Millisecond), n.startStream(b.c[0], a.c[0], time.Millisecond)}
			to, from := n.startStream(a.c[0], c.c[0], 5*time.Millisecond), n.startStream(c.c[0], b.c[0], 5*time.Millisecond)
			toldA, toldB := a.d.Events(), b.d.Events()

			since := way.away(n, c)
			n.noticed(a, c, toldA, since)
			n.noticed(b, c, toldB, since)

			ready := way.back(n, c)
			for _, s := range []*stream{to, from} {
				again := s.hears(t, ready.Add(-time.Millisecond)).Sub(ready)
				t.Logf("%s is used again %v after it is ready", s.name, again.Round(time.Millisecond))
				if again > 3*prompt {
					t.Errorf("%s: too late", s.name)
				}
			}
			n.waitMesh("m0", n.hosts...)
			for _, told := range []*lab.Events{toldA, toldB} {
				told.Wait(patient, "bfd-up", c.port("m0"))
				told.Wait(patient, "port-up", c.port("m0"))
				for _, kind := range []string{"bfd-down", "port-down", "bfd-up", "port-up"} {
					// A tick may fall between hearing and being heard, and say so.
					if all := told.Of(kind, ""); len(all) != 1 && (kind != "port-down" || len(all) != 2) {
						t.Errorf("%d events %s, want 1: %+v", len(all), kind, all)
					}
				}
				if lost := told.Of("lost", ""); len(lost) > 0 {
					t.Errorf("%+v", lost)
				}
			}
			for _, s := range between {
				s.stop(t)
			}
			to.end()
			from.end()
			if err := pingAll(n.hosts...); err != nil {
				t.Error(err)
			}
			n.settled()
		})
	}
}

// TestLabPeerComesAndGoes adds a fourth host to a mesh of three, and takes it out
// again, under load:
//
//	c0 ── [a] ──┐                  a → b numbered datagrams
//	c0 ── [b] ──┼── underlay       b → c TCP
//	c0 ── [c] ──┤
//	c0 ── [d] ──┘                  d is named, or not
func TestLabPeerComesAndGoes(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 4, containers: 1})
	three, d := n.hosts[:3], n.hosts[3]
	n.mesh(three...)
	d.d.Ctl("mesh", "add", "m0", "bridge=br0", "key=42", peers(n.hosts...))
	a, b, c := three[0], three[1], three[2]
	if err := pingAll(three...); err != nil {
		t.Fatal(err)
	}
	if err := lab.NoPing(a.c[0], d.c[0]); err != nil {
		t.Fatal(err)
	}
	streams := []*stream{n.startStream(a.c[0], b.c[0], time.Millisecond), n.startStream(b.c[0], a.c[0], time.Millisecond),
		n.startStream(c.c[0], a.c[0], time.Millisecond)}
	tcp := n.startTransfers(b.c[0], c.c[0])
	told := a.d.Events()
	for range 2 {
		for _, m := range three {
			m.d.Ctl("mesh", "set", "m0", peers(n.hosts...))
		}
		n.waitMesh("m0", n.hosts...)
		for _, m := range three {
			if err := lab.Ping(m.c[0], d.c[0]); err != nil {
				t.Error(err)
			}
		}
		for _, m := range three {
			m.d.Ctl("mesh", "set", "m0", peers(three...))
		}
		n.waitMesh("m0", three...)
		if at := a.at(t, d.c[0].MAC); at != "" {
			t.Errorf("a has a MAC of d still, behind %s", at)
		}
		if err := lab.NoPing(a.c[0], d.c[0]); err != nil {
			t.Error(err)
		}
	}
	for _, s := range streams {
		s.stop(t)
	}
	tcp.stop(t)
	for _, other := range []*member{b, c} {
		for _, kind := range []string{"bfd-down", "port-down", "port-removed", "port-up"} {
			if all := told.Of(kind, other.port("m0")); len(all) > 0 {
				t.Errorf("what happens to d is told of %s: %+v", other.name, all)
			}
		}
	}
	for _, m := range three {
		c := m.stats(t, "br0")
		for _, reason := range []string{"tx-ring-full", "no-buffers", "rx-missed", "mtu-exceeded"} {
			if c.Drops[reason] > 0 {
				t.Errorf("%s dropped %d frames: %s", m.name, c.Drops[reason], reason)
			}
		}
	}
	if a.drops(t, "vxlan 0.0.0.0:4789", "tunnel-unknown-source") == 0 {
		t.Error("d named a before a named d, and nothing tells")
	}
	n.settled()
}

// TestLabFlappingLink pulls a host's plug again and again, for a moment or until it
// is noticed:
//
//	c0 ── [a] ──┐
//	c0 ── [b] ──┼── underlay
//	c0 ── [c] ──┘  ← plug
func TestLabFlappingLink(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 3, containers: 1})
	n.mesh(n.hosts...)
	a, b, c := n.hosts[0], n.hosts[1], n.hosts[2]
	if err := pingAll(n.hosts...); err != nil {
		t.Fatal(err)
	}
	between, to := n.startStream(a.c[0], b.c[0], time.Millisecond), n.startStream(a.c[0], c.c[0], 5*time.Millisecond)
	told := a.d.Events()
	const long, short = 3, 10
	for range long {
		n.u.Cut(c.Host)
		lab.Eventually(t, patient, func() error { return a.is(c.port("m0"), api.PortDown) })
		n.u.Mend(c.Host)
		to.hears(t, time.Now())
		lab.Eventually(t, patient, func() error { return a.is(c.port("m0"), api.PortUp) })
	}
	downs := len(told.Of("bfd-down", ""))
	if downs != long {
		t.Errorf("%d events bfd-down of %d cuts", downs, long)
	}
	for range short {
		n.u.Cut(c.Host)
		n.u.Mend(c.Host)
	}
	mended := time.Now()
	to.hears(t, mended)
	n.waitMesh("m0", n.hosts...)
	t.Logf("in use again %v after the last of %d short cuts, up after %v; they were noticed %d times", to.hears(t, mended).Sub(mended).Round(time.Millisecond),
		short, time.Since(mended).Round(time.Millisecond), len(told.Of("bfd-down", ""))-downs)

	between.stop(t)
	to.end()
	lab.Eventually(t, patient, func() error { return pingAll(n.hosts...) }) // BFD may be short of a core
	// Each cut is told of once, and nobody else is.
	for _, kind := range []string{"bfd-down", "bfd-up", "port-down", "port-up", "mtu-changed"} {
		all := told.Of(kind, c.port("m0"))
		if len(all) > long+short || len(all) != len(told.Of(kind, "")) {
			t.Errorf("%d events %s of %d cuts: %+v", len(all), kind, long+short, told.Of(kind, ""))
		}
	}
	if all := len(told.Of("bfd-down", "")); all != len(told.Of("bfd-up", "")) {
		t.Error("BFD went down and up, and not as often")
	}
	if err := fewEvents(told, 20*(long+short)); err != nil {
		t.Error(err)
	}
	n.settled()
}

// fewEvents is an error when a daemon told of more than limit.
func fewEvents(e *lab.Events, limit int) error {
	all := e.All()
	kinds := map[string]int{}
	for _, ev := range all {
		kinds[ev.Kind]++
	}
	if len(all) > limit {
		return fmt.Errorf("%d events, by kind %v", len(all), kinds)
	}
	return nil
}

// TestLabOneWay has a network that carries packets one way only. Neither host may
// send what the other does not get, and each says what is wrong:
//
//	c0 ── [a] ── underlay ──✗→ [b] ── c0      b's VXLAN comes to a, not a's to b
func TestLabOneWay(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 2, containers: 1})
	a, b := n.hosts[0], n.hosts[1]
	n.mesh(a, b)
	// It goes to a MAC that nobody has.
	a.MustExec("ip", "neighbor", "replace", b.addr, "lladdr", "02:00:00:00:00:ee", "dev", "eth0", "nud", "permanent")
	for m, want := range map[*member]string{
		a: "BFD is init: the other end is heard, and does not hear this one",
		b: "BFD is down: Control Detection Time Expired",
	} {
		port := map[*member]*member{a: b, b: a}[m].port("m0")
		lab.Eventually(t, patient, func() error {
			st, err := m.tunnel(port)
			if err == nil && (st.State != api.PortDown || st.Reason != want) {
				err = fmt.Errorf("at %s port %s is %s (%s), want %s", m.name, port, st.State, st.Reason, want)
			}
			return err
		})
	}
	a.MustExec("ip", "neighbor", "del", b.addr, "dev", "eth0")
	n.waitMesh("m0", a, b)
	if err := pingAll(a, b); err != nil {
		t.Error(err)
	}
}
