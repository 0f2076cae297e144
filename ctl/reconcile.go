package ctl

import (
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ctl/translate"
	"vswitch/mesh"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// reconciler makes the switch and the kernel match the desired document.
//
// Thread-safety: safe for concurrent use; mu guards all but what is said.
type reconciler struct {
	sw       *vswitch.Switch
	stopper  *ports.Stopper
	instance string
	log      *slog.Logger
	tell     func(api.Event)
	resyncs  atomic.Uint64 // times that interface events were lost
	plugs    plugKeeper    // nil: there are no containers
	follows  atomic.Pointer[following]

	captureDirs, privateDirs []string // capture.FileOptions.Dirs and Except; set before start

	mu      sync.Mutex
	desired config.Document       // with what meshes and runtimes add
	links   map[string]ports.Link // this namespace's interfaces, as last seen
	bridges map[string]*bridgeState
	ports   map[string]*portState // bridges' local ports among them
	files   map[string]*pcapFile  // the last one of each path
	tunnels *tunnels
	rxRings rxRings
	uplinks uplinks
	exports map[string]*exporter // by bridge
	numbers numbers
	looked  time.Time // when it was seen last that all stops stand

	dirtyMu sync.Mutex
	dirty   map[string]bool // interfaces that changed; "" is all of them
	indexes map[int]bool    // interfaces whose addresses changed
	wake    chan struct{}   // holds one when dirty is not empty
}

// plugKeeper is what the reconciler asks of who keeps plugs. All are called with
// reconciler.mu held, and return at once.
type plugKeeper interface {
	expandLocked(config.Document) config.Document // with what runtimes asked for
	wantPlugsLocked(config.Document)              // the document that is desired now
	plugReason(port string) string                // why a plug's interface is not there
	plugUp(port string)                           // a plug's port forwards
}

// bridgeState is a bridge that exists in the switch.
type bridgeState struct {
	config  vswitch.BridgeConfig
	mirrors map[string]*mirrorState
}

func newReconciler(sw *vswitch.Switch, stopper *ports.Stopper, instance string, workers int, log *slog.Logger, tell func(api.Event)) *reconciler {
	r := &reconciler{
		sw: sw, stopper: stopper, instance: instance, log: log, tell: tell,
		links: map[string]ports.Link{}, bridges: map[string]*bridgeState{}, ports: map[string]*portState{}, files: map[string]*pcapFile{}, exports: map[string]*exporter{},
		dirty: map[string]bool{}, indexes: map[int]bool{}, wake: make(chan struct{}, 1),
	}
	r.newTunnels(workers)
	return r
}

// start takes away what a crash left behind, and makes doc true.
func (r *reconciler) start(doc config.Document) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	links, err := ports.Links()
	if err != nil {
		return err
	}
	stay := map[string]bool{} // aliases
	expanded := doc
	if r.plugs != nil {
		expanded = r.plugs.expandLocked(doc)
	}
	for _, b := range expanded.Bridges {
		for _, p := range b.Ports {
			if o := p.Object(); o == config.TapPort || o == config.PlugPort {
				stay[ports.Owned(r.instance, p.Name)] = true
			}
		}
	}
	gone := ports.RemoveOwned(links, r.instance, func(l ports.Link) bool { return stay[l.Alias] })
	if err := r.relistLocked(); err != nil {
		return err
	}
	r.applyLocked(doc)
	// Stops go last: those of ports that are wanted still were taken over, without
	// a moment in which the host's stack would have seen their frames.
	gone = append(gone, ports.RemoveStops(links, r.instance, func(l ports.Link) bool {
		p := r.ports[l.Name]
		if stay[l.Alias] && (p == nil || p.stop == nil) {
			return true // not attached yet: who is behind it is to be kept from the host until then
		}
		return p != nil && p.stop != nil && p.stop.Kind() == ports.StopClsact && p.link.Index == l.Index
	})...)
	if len(gone) > 0 {
		r.log.Info("removed what an earlier run left behind", "interfaces", gone)
	}
	return nil
}

// apply makes doc the desired document, and everything match it as far as it can
// be done now. What cannot be is a port's state and reason.
func (r *reconciler) apply(doc config.Document) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if err := r.relistLocked(); err != nil {
		// What was last seen will do; an event or a retry brings the rest.
		r.log.Warn("interfaces could not be listed", "err", err)
	}
	r.applyLocked(doc)
}

// following is what the machine follows: a document, and what it was expanded to. It is not
// always what is stored (wentBack).
type following struct{ asked, desired config.Document }

// followed reads it without a lock: who asks what there is must not wait for a long apply.
func (r *reconciler) followed() (asked, desired config.Document) {
	if f := r.follows.Load(); f != nil {
		return f.asked, f.desired
	}
	return asked, desired
}

// relistLocked looks at all interfaces anew.
func (r *reconciler) relistLocked() error {
	all, err := ports.Links()
	if err != nil {
		return err
	}
	clear(r.links)
	for _, l := range all {
		r.seenLocked(l)
	}
	return nil
}

// seenLocked notes what an interface is like. Its MAC address is a slice of the whole
// netlink message, of some 4 KiB, which would stay with it.
func (r *reconciler) seenLocked(l ports.Link) ports.Link {
	l.MAC = slices.Clone(l.MAC)
	r.links[l.Name] = l
	return l
}

// applyLocked goes through the document in order of dependence: what must go,
// bridges, ports, their interfaces, and what refers to ports.
func (r *reconciler) applyLocked(doc config.Document) {
	asked := doc
	doc = mesh.Expand(doc)
	if r.plugs != nil {
		doc = r.plugs.expandLocked(doc)
	}
	r.desired = doc
	r.follows.Store(&following{asked, doc})
	r.readLocalLocked()
	clear(r.tunnels.refused) // who edits wants to see it tried
	want := map[string]wantedPort{}
	for _, b := range doc.Bridges {
		want[b.Name] = wantedPort{b.Name, b.Local()}
		for _, p := range b.Ports {
			want[p.Name] = wantedPort{b.Name, p}
		}
	}
	r.uplinksLeaveLocked(want)
	r.removeLocked(want)
	r.reopenLocked(want)
	r.sw.Together(func() {
		for i := range doc.Bridges {
			r.bridgeLocked(&doc.Bridges[i])
		}
		for _, name := range slices.Sorted(maps.Keys(want)) {
			r.portLocked(want[name])
		}
		for i := range doc.Bridges {
			r.mirrorsLocked(&doc.Bridges[i])
			r.staticsLocked(&doc.Bridges[i])
		}
		now := time.Now()
		r.linksLocked(r.sortedLocked(), now)
	})
	r.uplinksLocked(time.Now())
	r.sflowsLocked()
	r.keepHostsLocked()
	if r.plugs != nil {
		r.plugs.wantPlugsLocked(doc)
	}
}

// sortedLocked returns all ports by name.
func (r *reconciler) sortedLocked() []*portState {
	var all []*portState
	for _, name := range slices.Sorted(maps.Keys(r.ports)) {
		all = append(all, r.ports[name])
	}
	return all
}

// wantedPort is a port of the document.
type wantedPort struct {
	bridge string
	port   config.Port
}

// removeLocked removes bridges and ports that are not wanted, or not as what they
// are. The TAP of a tap port that only moves to another bridge stays, and with it
// who is attached.
func (r *reconciler) removeLocked(want map[string]wantedPort) {
	var gone []*portState // those of bridges that go among them
	for name, p := range r.ports {
		w, ok := want[name]
		if !ok || w.bridge != p.bridge || w.port.Object() != p.port.Object() {
			gone = append(gone, p)
		}
	}
	r.dropPortsLocked(gone)
	for name, st := range r.bridges {
		if r.desired.Bridge(name) == nil {
			r.dropBridgeLocked(name, st)
		}
	}
	for _, p := range gone {
		w := want[p.port.Name]
		r.removePortLocked(p, w.port.Name != "" && w.port.Object() == config.TapPort)
	}
}

// dropBridgeLocked takes a bridge out of the switch, whose ports dropPortsLocked took
// out.
func (r *reconciler) dropBridgeLocked(name string, st *bridgeState) {
	if err := r.sw.DelBridge(name); err != nil {
		r.log.Error("bridge could not be removed cleanly", "bridge", name, "err", err)
	}
	r.closeMirrorsLocked(st)
	delete(r.bridges, name)
}

// dropPortsLocked takes ports out of the switch, which closes their devices together,
// of whatever bridge: one by one, three hundred take five seconds. The rest of each
// is the caller's to remove.
func (r *reconciler) dropPortsLocked(ports []*portState) {
	var names []string
	for _, p := range ports {
		if !p.left {
			names = append(names, p.port.Name)
			p.leave()
		}
	}
	if err := r.sw.DelPorts(names); err != nil {
		r.log.Warn("ports not removed cleanly", "err", err)
	}
}

// bridgeLocked makes a bridge exist as it should be.
func (r *reconciler) bridgeLocked(b *config.Bridge) {
	c := translate.Bridge(b)
	st := r.bridges[b.Name]
	switch {
	case st == nil:
		if err := r.sw.AddBridge(b.Name, c); err != nil {
			r.log.Error("bridge could not be made", "bridge", b.Name, "err", err)
			return
		}
		r.bridges[b.Name] = &bridgeState{config: c, mirrors: map[string]*mirrorState{}}
	case !st.config.Equal(c):
		if err := r.sw.SetBridge(b.Name, c); err != nil {
			r.log.Error("bridge could not be changed", "bridge", b.Name, "err", err)
			return
		}
		st.config = c
	}
}

// reopenLocked lets go of the interfaces that need a new device.
func (r *reconciler) reopenLocked(want map[string]wantedPort) {
	var old []*portState
	for name, p := range r.ports {
		if p.device != nil && (p.port.Object() == config.PacketPort || p.port.Object() == config.PlugPort) && reopens(p.port.Options, want[name].port.Options) {
			old = append(old, p)
		}
	}
	r.detachTogetherLocked(old)
}

// portLocked makes a port of the switch exist as it should be, without its
// interface.
func (r *reconciler) portLocked(w wantedPort) {
	c := translate.Port(w.port)
	p := r.ports[w.port.Name]
	if p == nil {
		if err := r.sw.AddPort(w.bridge, w.port.Name, c); err != nil {
			r.log.Error("port could not be made", "port", w.port.Name, "err", err)
			return
		}
		p = &portState{bridge: w.bridge, port: w.port, state: api.PortWaiting, since: time.Now(), link: noLink}
		if w.port.Object().IsTunnel() {
			p.tunnel = &tunnelPort{}
		}
		r.ports[w.port.Name] = p
		return
	}
	if p.port.Equal(w.port) {
		return
	}
	index := p.link.Index
	if reopens(p.port.Options, w.port.Options) {
		r.detachLocked(p)
	} else if p.tunnel != nil {
		p.tunnel.session.retime(w.port)
	}
	if p.port.Options["owner"] != w.port.Options["owner"] || p.port.Options["group"] != w.port.Options["group"] {
		r.removeTAP(p, "it keeps the owner and group it has, until it is made anew")
	}
	if mtu(p.port) != 0 && mtu(w.port) == 0 && index != 0 {
		if err := ports.SetMTU(index, kernelMTU); err != nil {
			r.log.Warn("MTU could not be set back", "port", p.port.Name, "err", err)
		}
	}
	p.port = w.port
	p.forgive()
	if err := r.sw.SetPort(w.port.Name, c); err != nil {
		r.log.Error("port could not be changed", "port", w.port.Name, "err", err)
	}
}

// reopens reports whether a change of options needs a new device.
func reopens(old, new config.Options) bool {
	for _, name := range []string{
		"n_rxq", "n_rxq_desc", "rx-buffer", "tx-ring", "owner", "group", "macnat",
		"remote_ip", "local_ip", "key", "in_key", "out_key", "dst_port", "tos", "ttl", "df_default", "csum", "seq", "mss_clamp", "bfd_enable",
	} {
		if old[name] != new[name] {
			return true
		}
	}
	return false
}

// staticsLocked sets a bridge's static MACs. Those of the host's own interfaces with an
// address are among them, as the kernel's bridges have it: a container that speaks with the
// gateway's MAC shall not get what is for the gateway.
func (r *reconciler) staticsLocked(b *config.Bridge) {
	all := translate.Statics(b)
	own := func(p config.Port) {
		takes := p.Object() == config.LocalPort && slices.ContainsFunc(b.Ports, takesAddresses)
		if p.Object() != config.LocalPort && p.Object() != config.InternalPort || !p.Options.IsSet("ip") && !takes {
			return
		}
		s := vswitch.StaticMAC{Port: p.Name}
		if p.Options.IsSet("tag") {
			s.VLAN = uint16(p.Options.Int("tag"))
		}
		copy(s.MAC[:], r.mac(p))
		if !slices.ContainsFunc(all, func(x vswitch.StaticMAC) bool { return x.MAC == s.MAC && x.VLAN == s.VLAN }) {
			all = append(all, s)
		}
	}
	own(b.Local())
	for _, p := range b.Ports {
		own(p)
	}
	if err := r.sw.SetStatic(b.Name, all); err != nil {
		r.log.Error("static MACs could not be set", "bridge", b.Name, "err", err)
	}
}

// run follows the changes of interfaces and retries what failed, until ctx ends.
func (r *reconciler) run(ctx context.Context) {
	var watching sync.WaitGroup
	watching.Go(func() { r.watch(ctx) }) // ended by ctx
	defer watching.Wait()
	retry, busy := time.NewTicker(retryEvery), time.NewTicker(busyEvery)
	defer retry.Stop()
	defer busy.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-r.wake:
			r.changed()
		case <-retry.C:
			r.retry()
		case <-busy.C:
			r.mu.Lock()
			r.growLocked(time.Now())
			r.mu.Unlock()
		}
	}
}

// watch marks interfaces that change as dirty. When events were lost it begins
// anew, which looks at everything.
func (r *reconciler) watch(ctx context.Context) {
	for ctx.Err() == nil {
		err := ports.Watch(ctx.Done(), r.mark, r.markAddresses)
		if err == nil {
			return
		}
		r.resyncs.Add(1)
		r.log.Warn("interface events were lost; looking at all interfaces anew", "err", err)
		r.tell(api.Event{Kind: "resync", Message: fmt.Sprintf("interface events were lost (%v): all interfaces are looked at anew", err)})
		select {
		case <-ctx.Done():
		case <-time.After(100 * time.Millisecond): // a subscription that fails at once must not spin
		}
	}
}

func (r *reconciler) mark(name string) {
	r.later(name)
	r.rouse()
}

// later marks an interface for the next turn, without making it come at once.
func (r *reconciler) later(name string) {
	r.dirtyMu.Lock()
	defer r.dirtyMu.Unlock()
	r.dirty[name] = true
}

func (r *reconciler) markAddresses(index int) {
	r.dirtyMu.Lock()
	r.indexes[index] = true
	r.dirtyMu.Unlock()
	r.rouse()
}

func (r *reconciler) rouse() {
	select {
	case r.wake <- struct{}{}:
	default:
	}
}

// changed looks at the interfaces that are dirty and at their ports.
func (r *reconciler) changed() {
	r.dirtyMu.Lock()
	dirty, indexes := r.dirty, r.indexes
	r.dirty, r.indexes = map[string]bool{}, map[int]bool{}
	r.dirtyMu.Unlock()

	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	r.uplinkEventsLocked(indexes, dirty[""], now)
	defer r.uplinksLocked(now)
	r.tunnelsChangedLocked(len(indexes) > 0 || dirty[""], now)
	if len(dirty)+len(indexes) == 0 {
		return
	}
	if dirty[""] {
		if err := r.relistLocked(); err != nil {
			r.log.Warn("interfaces could not be listed", "err", err)
			r.later("")
		}
		for _, p := range r.ports {
			p.forgive()
		}
		r.linksLocked(r.sortedLocked(), now)
		return
	}
	touched := map[string]bool{} // ports
	for name := range dirty {
		l, ok, err := ports.LinkByName(name)
		if err != nil {
			r.log.Warn("an interface could not be looked at", "err", err)
			r.later(name)
			continue
		}
		was, had := r.links[name]
		if ok {
			if l.Index != was.Index {
				r.renamedLocked(l, touched)
			}
			r.seenLocked(l)
		} else {
			delete(r.links, name)
		}
		if p := r.ports[name]; p != nil {
			if ok != had || l.Index != was.Index {
				p.forgive() // another interface: what failed may go well now
			}
			touched[name] = true
		}
	}
	for name, p := range r.ports {
		if len(indexes) > 0 && indexes[p.link.Index] && len(p.addresses) > 0 {
			touched[name] = true
		}
	}
	var look []*portState
	for _, name := range slices.Sorted(maps.Keys(touched)) {
		look = append(look, r.ports[name])
	}
	r.linksLocked(look, now)
}

// renamedLocked forgets the name that an interface had before this one: the event
// of a renaming tells only the new name. A port of the old one is touched.
func (r *reconciler) renamedLocked(l ports.Link, touched map[string]bool) {
	for name, old := range r.links {
		if old.Index != l.Index || name == l.Name {
			continue
		}
		delete(r.links, name)
		if r.ports[name] != nil {
			touched[name] = true
		}
	}
}

// stopsEvery is how often it is looked whether the ports' stops stand: nothing
// tells when somebody removes one, and to ask costs a netlink call a port.
const stopsEvery = 5 * time.Second

// retry looks at ports whose time has come, and at what sends no event.
func (r *reconciler) retry() {
	r.changed() // what could not be looked at
	r.mu.Lock()
	defer r.mu.Unlock()
	now := time.Now()
	look := now.Sub(r.looked) >= stopsEvery
	if look {
		r.looked = now
	}
	for _, p := range r.ports {
		if look && p.stop != nil && !p.stop.Stands() {
			r.restopLocked(p, now)
		}
		if p.astray || p.state == api.PortError && !now.Before(p.retryAt) {
			r.linkLocked(p, now)
		}
	}
	for _, st := range r.bridges {
		r.watchMirrorsLocked(st)
	}
	r.tickTunnelsLocked(now)
}

// close takes everything away that must not outlive the daemon.
func (r *reconciler) close() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.closeUplinksLocked()
	r.closeSFlowsLocked()
	r.dropPortsLocked(slices.Collect(maps.Values(r.ports)))
	for name, st := range r.bridges {
		r.dropBridgeLocked(name, st)
	}
	for _, p := range r.ports {
		r.leaveLocked(p)
	}
	r.closeTunnels()
}
