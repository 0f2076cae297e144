package ctl

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net"
	"os"
	"path/filepath"
	"slices"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// A NIC as uplink: with take_addresses its addresses and routes are the bridge's local
// port's while it is a port, and the local port has its MAC address, so that neighbours
// need not learn anything new.
//
//	before   host ── eth1 192.0.2.5                 after   host ── br0 192.0.2.5
//	                  │                                             │ (eth1's MAC)
//	                 LAN                                     eth1 ──┴── containers
//	                                                          │
//	                                                         LAN
//
// They come back when the port goes: because it is removed, because nobody confirmed it,
// because the daemon ends. After kill -9 the next start has them from a file; after a reboot
// the distribution has set the NIC up again, and that counts.

// uplinks are the ports that this is about. The reconciler's lock guards it.
type uplinks struct {
	path    string // of the file; "": nowhere
	boot    string
	warning string // what was wrong with the file
	log     *slog.Logger
	ports   map[string]*uplinkPort   // those with take_addresses or macnat
	records map[string]*uplinkRecord // what moved, by port
}

// uplinkPort is one of them.
type uplinkPort struct {
	due    time.Time      // when to look at addresses again; zero: when something happens
	device vswitch.Device // that was told of the host's addresses
	local  int            // index of the local port that has what moved; 0: none has
	told   string         // what a move, or macnat, was told of the host's interfaces
	held   bool           // not attached until its addresses can move
	again  time.Time      // not before, after a later move failed

	networks []hostNetwork           // of the host's on the LAN, as far as macnat knows
	sought   map[soughtKey]time.Time // when it was asked who has an address
}

const (
	// uplinkSettle is how long addresses that somebody gives to the NIC later may lie there: a
	// DHCP client adds its routes after them.
	uplinkSettle = time.Second
	uplinkAgain  = 10 * time.Second // after a later move failed
	heldFor      = 365 * 24 * time.Hour

	maxTAPMTU = 65535 - 14 // tun.c: MAX_MTU less an Ethernet header
)

// open reads what an earlier run left.
func (u *uplinks) open(stateDir string, log *slog.Logger) {
	u.path, u.log, u.boot = filepath.Join(stateDir, uplinkFile), log, bootID()
	u.records = map[string]*uplinkRecord{}
	all, err := readUplinks(u.path)
	if err != nil {
		u.warning = fmt.Sprintf("the addresses that ports took could not be read, and are not given back: %s: %v (kept as %s.bad)", u.path, err, uplinkFile)
		log.Warn(u.warning)
		_ = os.Rename(u.path, u.path+".bad")
	}
	for i := range all {
		u.records[all[i].Port] = &all[i]
	}
}

// store writes the records.
func (u *uplinks) store() error {
	var all []uplinkRecord
	for _, name := range slices.Sorted(maps.Keys(u.records)) {
		if rec := u.records[name]; len(rec.Addresses) > 0 {
			all = append(all, *rec)
		}
	}
	err := writeUplinks(u.path, all)
	if err != nil {
		return fmt.Errorf("remember the addresses in %s: %w", u.path, err)
	}
	return nil
}

// storeLater is store where nothing depends on it.
func (u *uplinks) storeLater() {
	if err := u.store(); err != nil {
		u.log.Warn("uplinks", "err", err)
	}
}

// macOf is the MAC address that a local port has from its uplink, or nil.
func (u *uplinks) macOf(bridge string) net.HardwareAddr {
	for _, rec := range u.records {
		if rec.Bridge == bridge {
			return rec.mac()
		}
	}
	return nil
}

func takesAddresses(p config.Port) bool { return p.Options["take_addresses"] == "true" }

// uplinksLeaveLocked gives back what moved from ports that no longer want it, before they go.
func (r *reconciler) uplinksLeaveLocked(want map[string]wantedPort) {
	u := &r.uplinks
	was := u.ports
	u.ports = map[string]*uplinkPort{}
	for name, w := range want {
		if takesAddresses(w.port) || w.port.Options["macnat"] == "true" {
			if u.ports[name] = was[name]; was[name] == nil {
				u.ports[name] = &uplinkPort{}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(u.records)) {
		rec := u.records[name]
		if w, ok := want[name]; !ok || w.bridge != rec.Bridge || !takesAddresses(w.port) {
			r.giveBackLocked(rec)
		}
	}
}

// closeUplinksLocked gives everything back, because the daemon ends.
func (r *reconciler) closeUplinksLocked() {
	for _, name := range slices.Sorted(maps.Keys(r.uplinks.records)) {
		r.giveBackLocked(r.uplinks.records[name])
	}
}

// uplinkEventsLocked notes that addresses of interfaces changed, or that nobody knows whose.
func (r *reconciler) uplinkEventsLocked(indexes map[int]bool, all bool, now time.Time) {
	for name, x := range r.uplinks.ports {
		p := r.ports[name]
		if p == nil || !x.due.IsZero() {
			continue
		}
		if all || indexes[p.link.Index] || slices.ContainsFunc(r.hostPortsLocked(p.bridge), func(h *portState) bool { return indexes[h.link.Index] }) {
			x.due = now.Add(uplinkSettle)
		}
	}
}

// uplinksLocked moves what is to be moved.
func (r *reconciler) uplinksLocked(now time.Time) {
	for _, name := range slices.Sorted(maps.Keys(r.uplinks.ports)) {
		x, p := r.uplinks.ports[name], r.ports[name]
		if p == nil {
			continue
		}
		local := r.ports[p.bridge]
		if local == nil || local.device == nil || local.link.Index == 0 {
			if takesAddresses(p.port) && p.device != nil {
				r.stayLocked(p, local, x, now)
			}
			continue
		}
		if l := r.links[name]; takesAddresses(p.port) && l.Master != 0 {
			if p.device != nil {
				r.holdLocked(p, x, now, fmt.Errorf("it belongs to a kernel bridge or bond, which has the addresses and would be cut off: take it out first (ip link set %s nomaster)", name))
			}
			continue
		}
		if x.held && p.device == nil && !now.Before(x.due) {
			backoff := p.backoff
			p.retryAt = time.Time{}
			r.linkLocked(p, now)
			p.backoff = backoff
		}
		if p.device == nil {
			continue
		}
		r.seekLocked(p, x, now)
		told := r.hostEndsLocked(p)
		fresh := x.device != p.device || x.local != local.link.Index || x.told != told
		rec := r.uplinks.records[name]
		changed := rec != nil && (!local.link.Up && len(rec.Addresses) > 0 || rec.MAC != p.link.MAC.String())
		if !fresh && !changed && (x.due.IsZero() || now.Before(x.due)) || x.device == p.device && now.Before(x.again) {
			continue
		}
		x.due = time.Time{}
		if takesAddresses(p.port) {
			if err := r.takeLocked(p, local, x, now); err != nil {
				err = fmt.Errorf("move the addresses of %s to %s: %w", name, p.bridge, err)
				if x.local != 0 {
					r.log.Warn("uplink", "err", err)
					x.again = now.Add(uplinkAgain)
					x.due = x.again
					continue
				}
				r.holdLocked(p, x, now, err)
				continue
			}
		}
		if x.held {
			x.held = false
			p.forgive()
		}
		r.pinLocked(p, x)
		x.device, x.local, x.told = p.device, local.link.Index, r.hostEndsLocked(p)
	}
}

// stayLocked leaves the addresses with the interface, or gives them back, because there is no
// local port to have them.
func (r *reconciler) stayLocked(p, local *portState, x *uplinkPort, now time.Time) {
	if rec := r.uplinks.records[p.port.Name]; rec != nil {
		r.giveBackLocked(rec)
	}
	x.local = 0
	why := "it does not exist"
	if local != nil && local.reason != "" {
		why = local.reason
	}
	r.holdLocked(p, x, now, fmt.Errorf("its addresses stay with it, since %s, which is to have them, is not ready: %s", p.bridge, why))
	x.due = time.Time{} // as soon as it is
}

// holdLocked lets a port's interface go until its addresses can move: cut off from the host's
// stack, with its addresses, it would cut the host off. It is attached in the moment of the next
// try, not before.
func (r *reconciler) holdLocked(p *portState, x *uplinkPort, now time.Time, err error) {
	r.detachLocked(p)
	r.fail(p, now, err)
	x.held, x.due = true, p.retryAt
	p.retryAt = now.Add(heldFor)
}

// takeLocked moves the addresses and routes of p's interface to the local port, and those
// that an earlier local port had.
func (r *reconciler) takeLocked(p, local *portState, x *uplinkPort, now time.Time) error {
	u := &r.uplinks
	nic, to := end{p.link.Index, p.port.Name}, end{local.link.Index, local.port.Name}
	all, err := everyAddressOn(nic.index)
	if err != nil {
		return err
	}
	addresses := movable(all)
	routes, err := routesBy(nic.index, all)
	if err != nil {
		return err
	}
	old := u.records[p.port.Name]
	rec := &uplinkRecord{Port: p.port.Name, Bridge: p.bridge, Index: nic.index, MAC: p.link.MAC.String(), Boot: u.boot, Time: now, Addresses: slices.Clone(addresses), Routes: slices.Clone(routes)}
	var lost uplinkRecord                                               // what no interface has any more
	here := old != nil && (x.local == to.index || u.has(to.index, old)) // the local port has what moved before
	if old != nil && old.Boot == u.boot {
		kept := r.stillLocked(old, to.index, here, now)
		if !here {
			lost = kept.missing(addresses, routes)
		} else {
			// What the NIC got is more; the local port has the rest.
			for _, a := range kept.Addresses {
				if !slices.ContainsFunc(addresses, func(b hostAddress) bool { return a.Prefix == b.Prefix }) {
					lost.Addresses = append(lost.Addresses, a)
				}
			}
			for _, g := range kept.Routes {
				if !slices.ContainsFunc(routes, func(h hostRoute) bool { return g.key == h.key }) {
					lost.Routes = append(lost.Routes, g)
				}
			}
		}
		for i := range lost.Routes {
			lost.Routes[i].rehome(old.Index, nic.index)
		}
		rec.Addresses = append(rec.Addresses, lost.Addresses...)
		rec.Routes = append(rec.Routes, lost.Routes...)
	}
	u.records[p.port.Name] = rec
	fail := func(err error) error {
		delete(u.records, p.port.Name)
		if old != nil {
			u.records[p.port.Name] = old
		}
		u.storeLater()
		return err
	}
	if !here || rec.differs(old) {
		if err := u.store(); err != nil {
			return fail(err)
		}
	}
	was := local.link.Up
	// Once without addresses, too: a DHCP client may wait for the local port.
	if err := r.readyLocked(local, p, x, len(rec.Addresses) > 0 || x.local != to.index); err != nil {
		return fail(err)
	}
	if err := move(nic, to, addresses, routes); err != nil {
		return fail(err)
	}
	if !here || !was || !u.has(to.index, rec) {
		// Of what was remembered, as much as can be.
		for _, a := range inOrder(lost.Addresses) {
			if err := a.add(to.index, to.name, nic.name); err != nil {
				r.log.Warn("uplink: a remembered address is not back", "err", err)
			}
		}
		if err := contest(lost.Routes, to.index); err != nil {
			r.log.Warn("uplink: other interfaces' routes are not known", "err", err)
		}
		for i := range lost.Routes {
			if err := lost.Routes[i].set(nic.index, nic.index, to.index); err != nil {
				r.log.Warn("uplink: a remembered route is not back", "err", err)
			}
		}
		for i := range lost.Addresses {
			lost.Addresses[i].settle(to.index, to.name, nic.name)
		}
	}
	if len(addresses) > 0 || len(lost.Addresses) > 0 && !here {
		msg := fmt.Sprintf("addresses of %s are at %s: %s", nic.name, to.name, rec.list())
		r.log.Info(msg)
		r.tell(api.Event{Kind: "port-up", Bridge: p.bridge, Port: p.port.Name, Message: msg})
	}
	return nil
}

// has reports whether an interface has all of a record's addresses.
func (u *uplinks) has(index int, rec *uplinkRecord) bool {
	there, err := addressesOn(index)
	return err == nil && !slices.ContainsFunc(rec.Addresses, func(a hostAddress) bool {
		return !slices.ContainsFunc(there, func(b hostAddress) bool { return a.Prefix == b.Prefix })
	})
}

// stillLocked is a record as it is now: with the lifetimes that the local port says, where it has
// what moved, and else with those that are left.
func (r *reconciler) stillLocked(rec *uplinkRecord, local int, here bool, now time.Time) uplinkRecord {
	var there []hostAddress
	expire := map[string]uint32{} // by route, as the local port has it: routers say anew how long they will do
	if here && local != 0 {
		there, _ = addressesOn(local)
		_ = eachRoute(func(x seenRoute) {
			if x.by(local) {
				expire[x.Text] = x.Expires
			}
		})
	}
	still := *rec
	still.Addresses, still.Routes = nil, nil
	for _, a := range rec.Addresses {
		if i := slices.IndexFunc(there, func(b hostAddress) bool { return a.Prefix == b.Prefix }); i >= 0 {
			a.Preferred, a.Valid = there[i].Preferred, there[i].Valid
			still.Addresses = append(still.Addresses, a)
		} else if a, ok := a.after(now.Sub(rec.Time)); ok {
			still.Addresses = append(still.Addresses, a)
		}
	}
	for _, g := range rec.Routes {
		if gone := now.Sub(rec.Time); g.Expires == 0 {
			still.Routes = append(still.Routes, g)
		} else if left, is := expire[g.Text]; is {
			g.Expires = left
			still.Routes = append(still.Routes, g)
		} else if s := uint32(min(max(gone, 0)/time.Second, forever)); s < g.Expires {
			g.Expires -= s
			still.Routes = append(still.Routes, g)
		}
	}
	return still
}

// readyLocked makes the local port ready for the addresses of an interface.
func (r *reconciler) readyLocked(local, p *portState, x *uplinkPort, needed bool) error {
	// What the host sends must fit where it leaves. Who sets another MTU by hand has the last word.
	if want := min(p.link.MTU, maxTAPMTU); x.told != r.hostEndsLocked(p) && mtu(local.port) == 0 && local.link.MTU != want {
		if err := ports.SetMTU(local.link.Index, want); err != nil {
			return fmt.Errorf("give %s the MTU %d of %s: %w", local.port.Name, want, p.port.Name, err)
		}
	}
	if mac := r.mac(local.port); mac.String() != local.link.MAC.String() {
		if err := ports.SetMAC(local.link.Index, mac); err != nil {
			return fmt.Errorf("give %s the MAC address %s: %w", local.port.Name, mac, err)
		}
		if b := r.desired.Bridge(local.bridge); b != nil {
			r.staticsLocked(b)
		}
	}
	for _, name := range []string{"disable_ipv6", "accept_ra", "autoconf", "use_tempaddr"} {
		const conf = "/proc/sys/net/ipv6/conf/"
		was, err := os.ReadFile(conf + p.port.Name + "/" + name)
		if err == nil && needed {
			_ = os.WriteFile(conf+local.port.Name+"/"+name, was, 0o644)
		}
	}
	if needed && !local.link.Up {
		if err := ports.Raise(local.link.Index); err != nil {
			return fmt.Errorf("bring %s up: %w", local.port.Name, err)
		}
	}
	if err := r.look(local); err != nil {
		return err
	}
	r.refreshLocked(local, time.Now())
	return nil
}

// giveBackLocked moves what a port took back to its interface, as far as it can be, and
// forgets it.
func (r *reconciler) giveBackLocked(rec *uplinkRecord) {
	u := &r.uplinks
	now := time.Now()
	local, _, _ := ports.LinkByName(rec.Bridge)
	p := r.ports[rec.Bridge]
	if p == nil || p.device == nil || p.link.Index != local.Index {
		local = ports.Link{} // somebody else's, or gone
	}
	if local.Index != 0 && mtu(p.port) == 0 && local.MTU != kernelMTU {
		if err := ports.SetMTU(local.Index, kernelMTU); err != nil {
			r.log.Warn("MTU could not be set back", "port", rec.Bridge, "err", err)
		}
	}
	still := r.stillLocked(rec, local.Index, local.Index != 0, now)
	delete(u.records, rec.Port)
	defer u.storeLater()
	if rec.Boot != u.boot || len(still.Addresses) == 0 {
		return
	}
	nic, err := nicOf(rec)
	exists := err == nil
	failed := []error{err}
	to, from := end{nic.Index, nic.Name}, end{local.Index, rec.Bridge}
	if exists && local.Index == 0 {
		there, err := everyAddressOn(to.index)
		failed = append(failed, err)
		routes, err := routesBy(to.index, there)
		failed = append(failed, err)
		lost := still.missing(movable(there), routes)
		still.Addresses, still.Routes = lost.Addresses, lost.Routes
	}
	if exists {
		if !nic.Up {
			failed = append(failed, ports.Raise(nic.Index))
		}
		for _, a := range inOrder(still.Addresses) {
			failed = append(failed, a.add(to.index, to.name, rec.Port))
		}
		failed = append(failed, contest(still.Routes, from.index))
		for i := range still.Routes {
			failed = append(failed, still.Routes[i].set(rec.Index, from.index, to.index))
		}
	}
	if from.index != 0 {
		for _, a := range slices.Backward(still.Addresses) {
			failed = append(failed, a.remove(from.index, from.name))
		}
		failed = append(failed, sweep(from.index, still.Addresses))
	}
	for i := range still.Addresses {
		if exists {
			still.Addresses[i].settle(to.index, to.name, rec.Port)
		}
	}
	if err := errors.Join(failed...); err != nil {
		r.log.Warn("not all addresses could be given back", "port", rec.Port, "err", err)
	} else {
		r.log.Info("addresses are back", "interface", nic.Name, "addresses", still.list())
	}
}

// uplinkNotesLocked adds to a port's status where its addresses are, and what macnat did.
func (r *reconciler) uplinkNotesLocked(p *portState, st api.PortStatus) api.PortStatus {
	var notes []string
	if takesAddresses(p.port) && p.device != nil {
		rec := r.uplinks.records[p.port.Name]
		switch {
		case rec == nil || len(rec.Addresses) == 0:
			notes = append(notes, fmt.Sprintf("it has no addresses to take; what it gets moves to %s", p.bridge))
		default:
			notes = append(notes, fmt.Sprintf("its addresses are at %s: %s", p.bridge, rec.list()))
		}
	}
	if d, ok := p.device.(*ports.Packet); ok {
		notes = append(notes, natNotes(d)...)
	}
	if len(notes) > 0 {
		st.Notes = append(slices.Clone(st.Notes), notes...)
	}
	return st
}
