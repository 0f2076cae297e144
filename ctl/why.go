package ctl

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vswitch/ctl/api"
	"vswitch/fdb"
	vswitch "vswitch/switch"
)

// Why is described at api.Service.
func (d *Daemon) Why(ctx context.Context, q api.WhyQuery) (api.Why, error) {
	address, err := api.ParseAddress(q.Address)
	if err != nil {
		return api.Why{}, err
	}
	bridges, err := d.chosen(q.Bridge)
	if err != nil {
		return api.Why{}, err
	}
	in := &inquiry{d: d, now: time.Now(), ports: map[string]api.PortStatus{}, out: api.Why{
		Address: address, Bridge: q.Bridge, Places: []api.WhyPlace{}, Neighbors: []api.Neighbor{}, Drops: []api.WhyDrop{},
	}}
	if in.ip, err = netip.ParseAddr(address); err != nil {
		mac, _ := net.ParseMAC(address)
		in.macs = [][6]byte{[6]byte(mac)}
	}
	for i := range bridges {
		b, err := d.bridgeStatus(&bridges[i])
		if err != nil {
			continue // removed this moment
		}
		in.bridges = append(in.bridges, b)
		for _, p := range b.Ports {
			in.ports[p.Name] = p
		}
	}
	in.own()
	in.neighbors()
	in.places()
	in.drops(ctx)
	in.contradict()
	in.judge()
	return in.out, nil
}

// inquiry is one question after an address, on its way to an answer.
type inquiry struct {
	d       *Daemon
	now     time.Time
	ip      netip.Addr // invalid: a MAC address was asked for
	macs    [][6]byte  // that it is about
	bridges []api.BridgeStatus
	ports   map[string]api.PortStatus
	locals  []api.WhyPlace // the host's own that have the address
	forgot  time.Time      // when an IP address had to give way last; zero: none did
	out     api.Why
}

func (in *inquiry) has(mac [6]byte) bool { return slices.Contains(in.macs, mac) }

// own finds the local and internal ports that have the address: the host's own is in
// no MAC table before it speaks.
func (in *inquiry) own() {
	addresses := in.d.reconciler.ownAddresses()
	for _, b := range in.bridges {
		for _, p := range b.Ports {
			mac, err := net.ParseMAC(p.MAC)
			if p.Type != "local" && p.Type != "internal" || err != nil || len(mac) != 6 {
				continue
			}
			if in.ip.IsValid() {
				if !slices.ContainsFunc(addresses[p.Name], func(a netip.Prefix) bool { return a.Addr() == in.ip }) {
					continue
				}
				in.macs = append(in.macs, [6]byte(mac))
			} else if !in.has([6]byte(mac)) {
				continue
			}
			in.locals = append(in.locals, api.WhyPlace{Bridge: b.Name, MAC: p.MAC, Port: p.Name, Own: true})
		}
	}
}

// ownAddresses returns the addresses that local and internal ports were given.
func (r *reconciler) ownAddresses() map[string][]netip.Prefix {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string][]netip.Prefix{}
	for name, p := range r.ports {
		if len(p.addresses) > 0 {
			all[name] = slices.Clone(p.addresses)
		}
	}
	return all
}

// neighbors finds what ARP and ND said of the address.
func (in *inquiry) neighbors() {
	t := in.d.seen.neighbors
	in.forgot = t.forgot()
	if in.ip.IsValid() {
		for _, mac := range t.macsOf(in.ip, in.out.Bridge) {
			if !in.has(mac) {
				in.macs = append(in.macs, mac)
			}
		}
	}
	in.out.Neighbors = t.list(func(k neighborKey, e *neighbor) bool {
		if in.out.Bridge != "" && k.bridge != in.out.Bridge {
			return false
		}
		if in.ip.IsValid() {
			return k.ip == in.ip
		}
		return in.has(e.mac) || e.conflict != nil && in.has(e.conflict.mac)
	})
}

// places finds where the MAC addresses are, and were.
func (in *inquiry) places() {
	lives := in.d.seen.macs.of(func(p place) bool {
		return in.has(p.mac) && (in.out.Bridge == "" || p.bridge == in.out.Bridge)
	})
	for _, b := range in.bridges {
		entries, err := in.d.sw.FDB(b.Name, func(e vswitch.FDBEntry) bool { return in.has(e.MAC) })
		if err != nil {
			continue
		}
		moves, _ := in.d.sw.FDBMoves(b.Name)
		for _, e := range entries {
			key := place{b.Name, e.VLAN, e.MAC}
			at := api.WhyPlace{Bridge: b.Name, VLAN: int(e.VLAN), MAC: macText(e.MAC), Port: e.Port, Static: e.Static}
			if !e.Static {
				heard := in.now.Add(-time.Duration(e.Age) * time.Second)
				at.LastHeard = &heard
			}
			in.tell(&at, lives[key])
			for _, m := range moves {
				if m.VLAN == e.VLAN && m.MAC == e.MAC {
					at.Moves = max(at.Moves, m.Count)
				}
			}
			for _, f := range b.Flaps {
				if f.VLAN == at.VLAN && f.MAC == at.MAC {
					at.Flap = &f
				}
			}
			delete(lives, key)
			in.locals = slices.DeleteFunc(in.locals, func(o api.WhyPlace) bool {
				same := o.MAC == at.MAC && o.Port == at.Port
				at.Own = at.Own || same
				return same
			})
			in.out.Places = append(in.out.Places, at)
		}
	}
	for _, o := range in.locals {
		in.tell(&o, macLife{})
		in.out.Places = append(in.out.Places, o)
	}
	for k, l := range lives {
		at := api.WhyPlace{Bridge: k.bridge, VLAN: int(k.vlan), MAC: macText(k.mac), Port: l.port, Gone: "forgotten"}
		if !l.gone.IsZero() {
			at.GoneAt, at.Gone = &l.gone, "aged"
			if l.why == fdb.EventEvicted {
				at.Gone = "evicted"
			}
		}
		in.tell(&at, l)
		in.out.Places = append(in.out.Places, at)
	}
	slices.SortFunc(in.out.Places, func(x, y api.WhyPlace) int {
		return cmp.Or(
			cmp.Compare(btoi(x.Gone != ""), btoi(y.Gone != "")), cmp.Compare(in.rank(x.MAC), in.rank(y.MAC)), later(y.LastHeard, x.LastHeard), later(y.GoneAt, x.GoneAt),
			cmp.Compare(x.Bridge, y.Bridge), cmp.Compare(x.VLAN, y.VLAN), cmp.Compare(x.MAC, y.MAC))
	})
}

// rank is how near a MAC address is to what was asked for: of those that claim one IP
// address, the one that did last is first.
func (in *inquiry) rank(mac string) int {
	return slices.IndexFunc(in.macs, func(m [6]byte) bool { return macText(m) == mac })
}

// later compares two times that may not be known.
func later(a, b *time.Time) int {
	if a == nil || b == nil {
		return btoi(a != nil) - btoi(b != nil)
	}
	return a.Compare(*b)
}

// tell fills in what is known of a place beside the MAC table: the port, and the past.
func (in *inquiry) tell(at *api.WhyPlace, l macLife) {
	if !at.Static && !l.learned.IsZero() {
		at.Learned = &l.learned
	}
	at.Moves = uint64(len(l.moves))
	for _, m := range slices.Backward(l.moves) {
		at.Moved = append(at.Moved, m)
	}
	p, ok := in.ports[at.Port]
	if !ok {
		return // removed
	}
	at.Type, at.State, at.Reason, at.Since, at.MTU, at.Dropped = p.Type, p.State, p.Reason, p.Since, p.MTU, p.Counters.Dropped
	if t := p.Tunnel; t != nil {
		at.Remote = cmp.Or(t.RemoteAddr, t.Remote)
		at.MTU = cmp.Or(t.MTU, at.MTU)
	}
	for _, kind := range []string{"broadcast", "unknown", "multicast"} {
		limit, set := p.Options["storm_"+kind]
		hit := p.Counters.Drops["storm-"+kind]
		switch {
		case hit > 0 && set:
			at.Limits = append(at.Limits, fmt.Sprintf("storm_%s=%v, which dropped %d frames", kind, limit, hit))
		case hit > 0:
			at.Limits = append(at.Limits, fmt.Sprintf("storm_%s dropped %d frames", kind, hit))
		case set:
			at.Limits = append(at.Limits, fmt.Sprintf("storm_%s=%v, never hit", kind, limit))
		}
	}
}

// drops finds which dropped frames named the address, as the flight recorder has them.
func (in *inquiry) drops(ctx context.Context) {
	st := in.d.sw.Recorder()
	in.out.Recorder = st.Bytes > 0
	if !st.OldestDrop.IsZero() {
		in.out.Since = &st.OldestDrop
	}
	found := map[dropKey]*droppedNaming{}
	n := 0
	in.d.sw.Recorded(time.Time{}, func(x *vswitch.Sighting) bool {
		if n++; n%4096 == 0 && ctx.Err() != nil {
			return false
		}
		if x.Reason != vswitch.DropNone && (in.out.Bridge == "" || x.Bridge == in.out.Bridge) {
			in.count(found, x, 1+x.Skipped)
		}
		return true
	})
	in.lastDrops(found)
	for _, k := range slices.SortedFunc(maps.Keys(found), func(a, b dropKey) int {
		return cmp.Or(found[b].last.Time.Compare(found[a].last.Time), cmp.Compare(a.port, b.port), cmp.Compare(a.reason, b.reason))
	}) {
		f := found[k]
		f.last.Data = f.data
		in.out.Drops = append(in.out.Drops, api.WhyDrop{
			Bridge: k.bridge, Port: k.port, Reason: k.reason, Count: f.count, As: [4]string{"", "source", "destination", "both"}[f.as],
			LastSeen: f.last.Time, LastFrame: lineOf(&f.last), Help: f.last.Reason.Help(),
		})
	}
}

// droppedNaming is what was dropped at one port for one reason and named the address.
type droppedNaming struct {
	count uint64
	as    int // 1: as its source, 2: as its destination, or both
	last  vswitch.Sighting
	data  []byte // of last
}

// count counts a dropped frame if it names the address.
func (in *inquiry) count(found map[dropKey]*droppedNaming, x *vswitch.Sighting, weight uint64) {
	n, ok := names(x.Data)
	if !ok {
		return
	}
	as := 0
	if in.ip.IsValid() {
		as = btoi(n.ipSrc == in.ip) | btoi(n.ipDst == in.ip || n.target == in.ip)<<1
	}
	if as == 0 { // of an IP address, too: what has its MAC address is its own, or another's who took that
		as = btoi(in.has(n.src)) | btoi(in.has(n.dst))<<1
	}
	if as == 0 {
		return
	}
	k := dropKey{bridge: x.Bridge, port: x.Port, reason: x.Reason.String()}
	f := found[k]
	if f == nil {
		f = &droppedNaming{}
		found[k] = f
	}
	f.count += weight
	f.as |= as
	f.last, f.data = *x, append(f.data[:0], x.Data...)
}

// lastDrops looks at the last frame of each reason, which is kept without a recorder,
// and for longer.
func (in *inquiry) lastDrops(found map[dropKey]*droppedNaming) {
	reasons := reasonsByName()
	for name, p := range in.ports {
		for reason := range p.Counters.Drops {
			x, ok := in.d.sw.LastDrop(name, reasons[reason])
			if ok && found[dropKey{bridge: x.Bridge, port: name, reason: reason}] == nil {
				in.count(found, &x, 1)
			}
		}
	}
}

// conflictsFor is how long a conflict of addresses that ended is still told as one.
const conflictsFor = time.Hour

// contradict lists what cannot all be right.
func (in *inquiry) contradict() {
	say := func(format string, args ...any) {
		in.out.Contradictions = append(in.out.Contradictions, fmt.Sprintf(format, args...))
	}
	for _, n := range in.out.Neighbors {
		if c := n.Conflict; c != nil && in.now.Sub(c.Last) < conflictsFor {
			times := "once"
			if c.Count > 1 {
				times = fmt.Sprintf("%d times", c.Count)
			}
			say("%s%s is claimed by %s at %s and by %s at %s, %s within a minute of each other, last %s ago: two machines have one address, unless it was taken over",
				n.IP, inVLAN(n.VLAN), n.MAC, n.Port, c.MAC, c.Port, times, api.Span(in.now.Sub(c.Last)))
		}
	}
	if macs := in.claimants(); in.ip.IsValid() && len(macs) > 1 {
		say("%s is %s: right only where these are networks apart", in.out.Address, strings.Join(macs, ", and "))
	}
	in.elsewhere(say)
	for mac, at := range in.stations() {
		if len(at) > 1 {
			say("%s is %s: right for a machine with a foot in each, else two machines have one address", mac, strings.Join(at, ", and "))
		}
	}
	for _, p := range in.out.Places {
		if n := len(p.Moved); p.Flap == nil && n == lastMoves && p.Moved[0].Time.Sub(p.Moved[n-1].Time) < conflictWithin && in.now.Sub(p.Moved[0].Time) < conflictsFor {
			say("%s%s moved %d times, the last %d within a minute, between %s and %s, last %s ago: look for a loop, or for two machines with that address",
				p.MAC, inVLAN(p.VLAN), p.Moves, n, p.Moved[0].From, p.Moved[0].To, in.ago(p.Moved[0].Time))
		}
		if f := p.Flap; f != nil {
			say("%s%s moves between %s and %s too fast, and is held at %s for %s more: look for a loop, or for two machines with that address",
				p.MAC, inVLAN(p.VLAN), f.Held, f.Other, f.Held, api.Span(f.Until.Sub(in.now)))
		}
	}
	slices.Sort(in.out.Contradictions)
}

// elsewhere tells where ARP named an address in another VLAN than its MAC is in now.
func (in *inquiry) elsewhere(say func(string, ...any)) {
	for _, n := range in.out.Neighbors {
		var now *api.WhyPlace
		for i := range in.out.Places {
			p := &in.out.Places[i]
			if p.Gone != "" || p.MAC != n.MAC || p.Bridge != n.Bridge {
				continue
			}
			if now = p; p.VLAN == n.VLAN {
				break
			}
		}
		if now != nil && now.VLAN != n.VLAN {
			say("%s said that it is %s in %s, %s ago, and that MAC address is in %s now: a port's VLAN was changed, or is not what the machine thinks",
				n.MAC, n.IP, vlanText(n.VLAN), in.ago(n.LastSeen), vlanText(now.VLAN))
		}
	}
}

// claimants says, of an IP address, which MAC address has it in each VLAN, if that is
// not one in all.
func (in *inquiry) claimants() (said []string) {
	macs := map[string]bool{}
	for _, n := range in.out.Neighbors {
		macs[n.MAC] = true
		said = append(said, fmt.Sprintf("%s%s of %s", n.MAC, inVLAN(n.VLAN), n.Bridge))
	}
	if len(macs) < 2 {
		return nil
	}
	return said
}

// stations says, of each MAC address, where it is now, where that is more than one
// port. A patch port is no place of its own: the station is behind it.
func (in *inquiry) stations() map[string][]string {
	ports, said := map[string]map[string]bool{}, map[string][]string{}
	for _, p := range in.out.Places {
		if p.Gone != "" || p.Type == "patch" {
			continue
		}
		if ports[p.MAC] == nil {
			ports[p.MAC] = map[string]bool{}
		}
		if !ports[p.MAC][p.Port] {
			ports[p.MAC][p.Port] = true
			said[p.MAC] = append(said[p.MAC], "behind "+where(&p))
		}
	}
	return said
}

func inVLAN(vlan int) string {
	if vlan == 0 {
		return ""
	}
	return fmt.Sprintf(" in VLAN %d", vlan)
}

func vlanText(vlan int) string {
	if vlan == 0 {
		return "no VLAN"
	}
	return fmt.Sprintf("VLAN %d", vlan)
}

// where says where a place is: "veth1 of br0 in VLAN 10".
func where(p *api.WhyPlace) string { return p.Port + " of " + p.Bridge + inVLAN(p.VLAN) }
