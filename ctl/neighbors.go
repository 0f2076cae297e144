package ctl

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"time"

	"vswitch/ctl/api"
	"vswitch/frame"
	vswitch "vswitch/switch"
)

// Bounds of what is remembered of addresses.
const (
	maxNeighbors   = 16 << 10    // IP addresses, of all bridges together
	conflictWithin = time.Minute // two MACs that claim one IP so soon after each other are in conflict
	conflictEvery  = time.Minute // an address's conflict is told once in
	conflictEvents = 10          // all conflicts together are told so often a second
	neighborsEvery = time.Second // the second of conflictEvents
)

// hear takes what the switch overheard. The switch calls it, on goroutines of its own.
func (d *Daemon) hear(kind vswitch.Heard, x *vswitch.Sighting) {
	switch kind {
	case vswitch.HeardARP, vswitch.HeardND:
		if c, ok := claimOf(x.Data); ok {
			d.seen.neighbors.hear(c, x)
		}
	case vswitch.HeardProbe:
		if d.seen.probes != nil {
			d.seen.probes(x)
		}
	}
}

// notify takes a MAC event from a worker, which must not wait.
func (d *Daemon) notify(e vswitch.Event) {
	d.seen.macs.take(e)
	d.hub.mac(e)
}

// seen is what the daemon remembers of what it saw and heard.
type seen struct {
	neighbors *neighbors
	macs      *macHistory
	ledger    ledger
	probes    func(*vswitch.Sighting) // hears probes; set before the switch starts, nil: nobody does
}

func newSeen(tell func(api.Event)) seen {
	return seen{neighbors: newNeighbors(tell), macs: newMACHistory()}
}

// claim is what an ARP or ND message says: that an IP address is a MAC address's.
type claim struct {
	ip   netip.Addr
	mac  [6]byte
	by   string
	weak bool // it names no MAC address of its own: good to hear again of one that is known
}

// How a claim was made, as the API spells it.
const (
	byRequest       = "arp-request"
	byReply         = "arp-reply"
	byAnnouncement  = "arp-announcement" // a gratuitous request or reply
	bySolicitation  = "nd-solicitation"
	byAdvertisement = "nd-advertisement"
)

// claimOf reads what an ARP or ND message says of its sender. A message that asks
// whether an address is free (an ARP probe, RFC 5227; a solicitation from nobody, RFC
// 4862) claims nothing.
func claimOf(b []byte) (c claim, ok bool) {
	n, ok := names(b)
	if !ok || !n.ipSrc.IsValid() {
		return c, false
	}
	if n.etherType == frame.EtherARP {
		c, ok = arpClaim(&n)
	} else {
		c, ok = ndClaim(&n)
	}
	return c, ok && c.mac[0]&1 == 0 && c.mac != [6]byte{} && isHost(c.ip)
}

// isHost reports whether an address can be one station's.
func isHost(ip netip.Addr) bool {
	return ip.IsValid() && !ip.IsUnspecified() && !ip.IsMulticast() && !ip.IsLoopback() && ip != netip.AddrFrom4([4]byte{255, 255, 255, 255})
}

// arpClaim is the sender's: RFC 826 has every hearer of a request or a reply believe
// it.
func arpClaim(n *named) (c claim, ok bool) {
	c = claim{ip: n.ipSrc, mac: [6]byte(n.l4[arpSenderMAC:])}
	switch op := n.l4[arpOp+1]; {
	case n.l4[arpOp] != 0 || op != arpRequest && op != arpReply:
		return c, false
	case n.ipSrc == n.ipDst:
		c.by = byAnnouncement
	case op == arpRequest:
		c.by = byRequest
	default:
		c.by = byReply
	}
	return c, true
}

// ndClaim is that of the source of a solicitation, and of the target of an
// advertisement (RFC 4861, sections 7.2.3 and 7.2.5), with the MAC address of the
// message's option. The checksum is not verified: offload leaves it unfinished, and
// a station that does not believe the message is none of ours.
func ndClaim(n *named) (c claim, ok bool) {
	if !n.target.IsValid() || n.l4[1] != 0 {
		return c, false
	}
	c = claim{mac: n.src, weak: true}
	option := byte(1) // source link-layer address
	c.ip, c.by = n.ipSrc, bySolicitation
	if n.l4[0] == ndAdvertisement {
		option = 2 // target link-layer address
		c.ip, c.by = n.target, byAdvertisement
	}
	for o := n.l4[ndOptions:]; len(o) >= 8; {
		size := int(o[1]) * 8
		if size == 0 || size > len(o) {
			return c, false // section 6.1.1: such a message is discarded
		}
		if o[0] == option {
			c.mac, c.weak = [6]byte(o[2:]), false
		}
		o = o[size:]
	}
	return c, true
}

// neighbors is a bounded table of which IP address is which MAC address's, as ARP and
// ND told it.
//
// Thread-safety: safe for concurrent use.
type neighbors struct {
	tell func(api.Event)

	mu        sync.Mutex
	table     neighborTable
	second    time.Time // in which told is counted
	told      int
	conflicts uint64
}

type neighborKey struct {
	bridge string
	vlan   uint16
	ip     netip.Addr
}

type neighbor struct {
	mac         [6]byte
	port, by    string
	first, last time.Time
	conflict    *conflict // nil: none was seen
}

// conflict is a second MAC address that claimed the same IP.
type conflict struct {
	mac         [6]byte
	port        string
	count       uint64
	first, last time.Time
	told        time.Time
}

func newNeighbors(tell func(api.Event)) *neighbors {
	return &neighbors{tell: tell, table: newNeighborTable()}
}

// hear takes note of a claim, which a sighting brought.
func (t *neighbors) hear(c claim, x *vswitch.Sighting) {
	key := neighborKey{x.Bridge, x.VLAN, c.ip}
	t.mu.Lock()
	e, known := t.table.entries[key]
	var event *api.Event
	switch {
	case !known && c.weak:
	case !known:
		t.table.heardAt(key, &neighbor{mac: c.mac, by: c.by, first: x.Time, last: x.Time}, x)
	case e.mac == c.mac:
		t.table.heardAt(key, e, x)
		e.by, e.last = c.by, x.Time
	case c.weak:
	default:
		if within(x.Time.Sub(e.last), conflictWithin) {
			event = t.conflictLocked(key, e, c, x)
		}
		t.table.heardAt(key, e, x)
		e.mac, e.by, e.first, e.last = c.mac, c.by, x.Time, x.Time
	}
	t.mu.Unlock()
	if event != nil {
		t.tell(*event)
	}
}

// within reports whether a span is no longer than another. Below zero the clock was set
// back, and how long it really was is not known; but workers take the time each for
// themselves, and may be a little apart.
func within(span, limit time.Duration) bool { return span > -time.Second && span <= limit }

// conflictLocked remembers that e's address is claimed by another, and returns what is
// to be told of it, or nil.
func (t *neighbors) conflictLocked(key neighborKey, e *neighbor, c claim, x *vswitch.Sighting) *api.Event {
	if e.conflict == nil {
		e.conflict = &conflict{first: x.Time}
		t.conflicts++
	}
	k := e.conflict
	k.mac, k.port, k.last = e.mac, e.port, x.Time
	k.count++
	if x.Time.Sub(t.second) >= neighborsEvery || x.Time.Before(t.second) {
		t.second, t.told = x.Time, 0
	}
	if !k.told.IsZero() && within(x.Time.Sub(k.told), conflictEvery) || t.told >= conflictEvents {
		return nil
	}
	k.told = x.Time
	t.told++
	return &api.Event{
		Time: x.Time, Kind: "address-conflict", Bridge: x.Bridge, Port: x.Port,
		Message: fmt.Sprintf("%s in VLAN %d is claimed by %s at %s, and was by %s at %s %s before: two machines have one address, or it was taken over",
			c.ip, x.VLAN, macText(c.mac), x.Port, macText(e.mac), e.port, api.Span(x.Time.Sub(e.last))),
		Detail: map[string]any{
			"ip": c.ip.String(), "vlan": x.VLAN, "mac": macText(c.mac), "other": macText(e.mac), "other_port": e.port, "count": k.count,
		},
	}
}

// list returns the entries that match, by address.
func (t *neighbors) list(match func(neighborKey, *neighbor) bool) []api.Neighbor {
	t.mu.Lock()
	defer t.mu.Unlock()
	type row struct {
		neighborKey
		api.Neighbor
	}
	var rows []row
	for k, e := range t.table.all() {
		if !match(k, e) {
			continue
		}
		n := api.Neighbor{
			Bridge: k.bridge, VLAN: int(k.vlan), IP: k.ip.String(), MAC: macText(e.mac), Port: e.port, By: e.by,
			FirstSeen: e.first, LastSeen: e.last,
		}
		if c := e.conflict; c != nil {
			n.Conflict = &api.AddressConflict{MAC: macText(c.mac), Port: c.port, Count: c.count, First: c.first, Last: c.last}
		}
		rows = append(rows, row{k, n})
	}
	slices.SortFunc(rows, func(a, b row) int {
		return cmp.Or(cmp.Compare(a.bridge, b.bridge), cmp.Compare(a.vlan, b.vlan), a.ip.Compare(b.ip))
	})
	out := make([]api.Neighbor, len(rows))
	for i := range rows {
		out[i] = rows[i].Neighbor
	}
	return out
}

// place is a MAC address in a VLAN of a bridge.
type place struct {
	bridge string
	vlan   uint16
	mac    [6]byte
}

// addresses returns an IP address of each of the given MACs that has one, the one that
// was heard last.
func (t *neighbors) addresses(of map[place]netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	heard := map[place]time.Time{} // when that which is in of was
	for k, e := range t.table.all() {
		at := place{k.bridge, k.vlan, e.mac}
		old, wanted := of[at]
		if !wanted {
			continue
		}
		local := k.ip.IsLinkLocalUnicast()
		if !old.IsValid() || !local && old.IsLinkLocalUnicast() || local == old.IsLinkLocalUnicast() && e.last.After(heard[at]) {
			of[at], heard[at] = k.ip, e.last
		}
	}
}

// macsOf returns the MAC addresses that have an IP address, in any VLAN of a bridge, or
// of all for "": first the one that said so last.
func (t *neighbors) macsOf(ip netip.Addr, bridge string) (macs [][6]byte) {
	t.mu.Lock()
	defer t.mu.Unlock()
	var found []*neighbor
	for k, e := range t.table.all() {
		if k.ip == ip && (bridge == "" || k.bridge == bridge) {
			found = append(found, e)
		}
	}
	slices.SortFunc(found, func(a, b *neighbor) int { return b.last.Compare(a.last) })
	add := func(mac [6]byte) {
		if !slices.Contains(macs, mac) {
			macs = append(macs, mac)
		}
	}
	for _, e := range found {
		add(e.mac)
		if e.conflict != nil {
			add(e.conflict.mac)
		}
	}
	return macs
}

// forgot returns when an address had to give way last, since the table was full; zero:
// none did.
func (t *neighbors) forgot() time.Time {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.table.evicted
}
