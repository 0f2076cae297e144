package tunnel

import (
	"fmt"
	"testing"

	"vswitch/frame"
)

// kinds are the tunnels that tests go through.
var kinds = []struct {
	name string
	rigConfig
}{
	{"vxlan", rigConfig{kind: VXLAN}},
	{"vxlan over IPv6", rigConfig{kind: VXLAN, v6: true}},
	{"vxlan without checksum", rigConfig{kind: VXLAN, port: func(c *PortConfig) { c.Csum = CsumOff }}},
	{"vxlan over IPv6 without checksum", rigConfig{kind: VXLAN, v6: true, port: func(c *PortConfig) { c.Csum = CsumOff }}},
	{"vxlan, two workers", rigConfig{kind: VXLAN, queues: 2}},
	{"geneve", rigConfig{kind: Geneve}},
	{"geneve over IPv6", rigConfig{kind: Geneve, v6: true}},
	{"gre", rigConfig{kind: GRE, port: func(c *PortConfig) { c.InKey, c.HasOutKey = 0, false }}},
	{"gre with all", rigConfig{kind: GRE, port: func(c *PortConfig) { c.Csum, c.Seq = CsumOn, true }}},
	{"gre over IPv6", rigConfig{kind: GRE, v6: true, port: func(c *PortConfig) { c.Csum, c.Seq = CsumOn, true }}},
}

// TestFrames sends frames of all sorts through each tunnel, and wants the bytes that
// they stand for to arrive, in order, by the right port.
func TestFrames(t *testing.T) {
	frames := []struct {
		name string
		all  []inner
	}{
		{"plain", []inner{{payload: 100}}},
		{"shortest", []inner{{payload: 0}}},
		{"partial checksum", []inner{{payload: 333, partial: true}, {tcp: true, payload: 1000, partial: true}, {v6: true, tcp: true, payload: 501, partial: true}}},
		{"tagged", []inner{{tag: 7, payload: 100}, {tag: 8, payload: 100, partial: true}, {tag: 9, v6: true, tcp: true, payload: 1000}}},
		{"run of equal length", []inner{{payload: 18}, {payload: 18}, {payload: 18}, {payload: 10}, {payload: 18}, {payload: 30}}},
		{"super TCPv4", []inner{{tcp: true, seq: 1000, payload: 60000, gso: 1366, flags: 0x08}}},
		{"super TCPv6", []inner{{v6: true, tcp: true, seq: 1000, payload: 50001, gso: 1300}}},
		{"super tagged", []inner{{tcp: true, tag: 5, seq: 1000, payload: 64000, gso: 1360}}},
		{"super UDP", []inner{{payload: 30000, gso: 1200}}},
		{"super of many segments", []inner{{tcp: true, payload: 60000, gso: 50}}},
		{"super of one segment", []inner{{tcp: true, payload: 100, gso: 1366}}},
		{"all in a row", []inner{
			{payload: 50}, {tcp: true, seq: 1, payload: 60000, gso: 1300}, {tcp: true, seq: 60001, payload: 10000, gso: 1300},
			{tag: 4, payload: 1000}, {v6: true, payload: 5000, gso: 1000}, {tcp: true, sport: 99, payload: 64000, gso: 1200},
		}},
	}
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			space(t, 1500, func() error {
				r, err := newRig(k.rigConfig)
				if err != nil {
					return err
				}
				defer r.close()
				for _, c := range frames {
					var outs []frame.Out
					var want [][]byte
					for _, p := range c.all {
						o := r.a.out(p)
						want = append(want, wire(r.a.pool, o)...)
						outs = append(outs, o)
					}
					if err := r.a.send(outs); err != nil {
						return fmt.Errorf("%s: %w", c.name, err)
					}
					all, err := r.b.receive(func(all []got) bool { return len(wireOf(r.b.pool, all)) >= len(want) })
					if err != nil {
						return fmt.Errorf("%s: %w", c.name, err)
					}
					frames := wireOf(r.b.pool, all)
					if len(outs) > 1 {
						// Flows have sockets, and these queues, of their own.
						sortFrames(frames)
						sortFrames(want)
					}
					if err := equal(frames, want); err != nil {
						return fmt.Errorf("%s: %w", c.name, err)
					}
					for _, g := range all {
						if g.port != 20 || g.fault != frame.FaultNone {
							return fmt.Errorf("%s: came by port %d, fault %d", c.name, g.port, g.fault)
						}
					}
					t.Logf("%s: %d sent, %d on the wire, %d received", c.name, len(outs), len(want), len(all))
					r.a.release(outs)
				}
				if d := r.b.e.Drops(); len(d) > 0 {
					return fmt.Errorf("drops: %+v", d)
				}
				if s := r.b.p.Stats(); s.Gaps+s.Late > 0 {
					return fmt.Errorf("sequence: %+v", s)
				}
				if n := r.a.e.SegmentationRefused(); n > 0 {
					return fmt.Errorf("UDP_SEGMENT was refused %d times", n)
				}
				if r.b.p.LastHeard().IsZero() || !r.a.p.LastHeard().IsZero() {
					return fmt.Errorf("last heard: %v and %v", r.a.p.LastHeard(), r.b.p.LastHeard())
				}
				return nil
			})
		})
	}
}
