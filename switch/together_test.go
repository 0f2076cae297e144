package vswitch

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"
)

// snapshots returns how many snapshots f published.
func (b *bench) snapshots(f func()) int {
	b.t.Helper()
	count := func() int {
		b.mu.Lock()
		defer b.mu.Unlock()
		return b.published
	}
	before := count()
	f()
	return count() - before
}

// addTunnels adds count tunnel ports, up, with names from t0 on.
func (b *bench) addTunnels(e *fakeEndpoint, count int) (names []string, devices []*bound) {
	b.t.Helper()
	for i := range count {
		names = append(names, fmt.Sprintf("t%d", i))
		devices = append(devices, b.tunnel(names[i], e, PortConfig{}))
	}
	return names, devices
}

// TestManyPortsForOneSnapshot: what many ports cost to add and remove does not grow
// with the square of their number.
func TestManyPortsForOneSnapshot(t *testing.T) {
	const count = 50
	b := newBench(t, Options{})
	e := b.endpoint()
	p1 := b.port("br0", "p1", PortConfig{})
	var names []string
	var devices []*bound
	n := b.snapshots(func() {
		b.Together(func() {
			names, devices = b.addTunnels(e, count)
			for i, d := range devices {
				if d.id >= 0 {
					t.Fatalf("t%d is bound before a worker can know it", i)
				}
			}
			st, err := b.Bridge("br0")
			b.must(err)
			if len(st.Ports) != count+1 {
				t.Errorf("the bridge has %d ports, want %d", len(st.Ports), count+1)
			}
		})
	})
	if n != 1 {
		t.Errorf("%d tunnel ports took %d snapshots, want 1", count, n)
	}
	for i, d := range devices {
		e.arrive(arrival{to: d, p: eth(mac(200), mac(byte(i)), 50)})
	}
	b.run()
	if got := len(p1.take()); got != count {
		t.Errorf("p1 was sent %d frames, want %d", got, count)
	}
	b.must(b.SetStatic("br0", []StaticMAC{{MAC: mac(100), Port: "t7"}}))

	n = b.snapshots(func() {
		err := b.DelPorts(append(names, "t3", "p1", "none"))
		if !errors.Is(err, ErrNotExist) {
			t.Errorf("a port that does not exist was removed: %v", err)
		}
	})
	if n != 1 {
		t.Errorf("%d ports were removed with %d snapshots, want 1", count+1, n)
	}
	for i, d := range devices {
		if d.id >= 0 || !d.closed {
			t.Errorf("t%d: bound as %d, closed %v", i, d.id, d.closed)
		}
	}
	if !p1.closed {
		t.Error("p1 is not closed")
	}
	st, err := b.Bridge("br0")
	b.must(err)
	if len(st.Ports) != 0 || st.FDB.Entries != 0 {
		t.Errorf("left: %+v, %d MACs", st.Ports, st.FDB.Entries)
	}
	if c := b.balanced("br0"); c.Received != count {
		t.Errorf("received %d, want %d", c.Received, count)
	}
	// Their numbers serve others, each one.
	_, devices = b.addTunnels(e, count+10)
	seen := map[int]bool{}
	for _, d := range devices {
		if seen[d.id] || d.id < 0 || d.id >= count+10 {
			t.Errorf("number %d", d.id)
		}
		seen[d.id] = true
	}
}

// TestTogetherIsOvertaken: what must be published at once publishes all.
func TestTogetherIsOvertaken(t *testing.T) {
	for name, change := range map[string]func(b *bench) error{
		"another bridge": func(b *bench) error { return b.AddBridge("br1", b.bridges["br0"].config) },
		"a port's VLANs": func(b *bench) error { return b.SetPort("t0", PortConfig{Tunnel: true}) },
		"a static MAC": func(b *bench) error {
			return b.SetStatic("br0", []StaticMAC{{MAC: mac(1), Port: "t0"}})
		},
		"a detached port":    func(b *bench) error { return b.Detach("t1") },
		"a removed port":     func(b *bench) error { return b.DelPort("t1") },
		"an ordinary port":   func(b *bench) error { b.port("br0", "p1", PortConfig{}); return nil },
		"mirrors":            func(b *bench) error { return b.SetMirrors("br0", []MirrorConfig{{Name: "m", OutVLAN: 5}}) },
		"a bridge that goes": func(b *bench) error { return b.DelBridge("br1") },
	} {
		t.Run(name, func(t *testing.T) {
			b := newBench(t, Options{})
			e := b.endpoint()
			if name == "a bridge that goes" {
				b.must(b.AddBridge("br1", b.bridges["br0"].config))
			}
			b.Together(func() {
				_, devices := b.addTunnels(e, 2)
				b.must(change(b))
				if devices[0].id < 0 {
					t.Error("t0 is not bound")
				}
				if gone := b.ports["t1"] == nil || b.ports["t1"].device == nil; gone != (devices[1].id < 0) {
					t.Errorf("t1 is gone: %v, and bound as %d", gone, devices[1].id)
				}
			})
		})
	}
}

// TestTogetherUnderTraffic adds and removes tunnel ports in bulk, or not, while
// frames come by them and go to them; a device is never used after it was closed.
func TestTogetherUnderTraffic(t *testing.T) {
	b := newBench(t, Options{Workers: 3})
	for i := range 2 {
		d := b.port("br0", fmt.Sprintf("p%d", i), PortConfig{})
		d.drain()
		for j := range 200 {
			d.give(eth(mac(byte(j)), mac(byte(i)), 60))
		}
		d.again(true)
	}
	e := b.endpoint()
	r := rand.New(rand.NewPCG(4, 4))
	for end := time.Now().Add(time.Second); time.Now().Before(end); {
		var names []string
		add := func() {
			names, _ = b.addTunnels(e, 1+r.IntN(20))
			if r.IntN(2) == 0 {
				b.must(b.Detach(names[0]))
			}
		}
		if r.IntN(2) == 0 {
			b.Together(add)
		} else {
			add()
		}
		if r.IntN(2) == 0 {
			b.must(b.DelPorts(names))
		} else {
			for _, name := range names {
				b.must(b.DelPort(name))
			}
		}
	}
	for i := range 2 {
		b.devs[fmt.Sprintf("p%d", i)].again(false)
	}
	b.run()
	if c := b.balanced("br0"); c.Received == 0 {
		t.Error("nothing was received")
	}
}

// TestManyPortsDetachForOneSnapshot: interfaces that go together cost one snapshot,
// and each port stays, without its device.
func TestManyPortsDetachForOneSnapshot(t *testing.T) {
	const count = 50
	b := newBench(t, Options{})
	names, devices := b.addTunnels(b.endpoint(), count)
	p1 := b.port("br0", "p1", PortConfig{})
	n := b.snapshots(func() {
		err := b.DetachPorts(append(names, "t3", "p1", "none"))
		if !errors.Is(err, ErrNotExist) {
			t.Errorf("a port that does not exist was detached: %v", err)
		}
	})
	if n != 1 {
		t.Errorf("%d ports were detached with %d snapshots, want 1", count+1, n)
	}
	for i, d := range devices {
		if d.id >= 0 || !d.closed {
			t.Errorf("t%d: bound as %d, closed %v", i, d.id, d.closed)
		}
	}
	if !p1.closed {
		t.Error("p1 is not closed")
	}
	if n := b.snapshots(func() { b.must(b.DetachPorts([]string{"p1"})) }); n != 0 {
		t.Errorf("a port without a device was detached with %d snapshots", n)
	}
	st, err := b.Bridge("br0")
	b.must(err)
	if len(st.Ports) != count+1 {
		t.Errorf("%d ports are left, want %d", len(st.Ports), count+1)
	}
}
