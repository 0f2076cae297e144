package ctl

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/plug"
	"vswitch/plug/held"
	"vswitch/plug/ipam"
	"vswitch/plug/runtimes"
	wireroom "vswitch/plug/wire"
	"vswitch/ports"
)

// PlugOptions say where container runtimes are and how plugs are kept.
type PlugOptions struct {
	Docker, Podman, Containerd string        // see runtimes.Options
	Grace                      time.Duration // that a plug outlives its container
	DockerPlugin               string        // unix socket at which dockerd finds the network driver; "" is none
	ResolvConf                 string        // names the host's resolvers
}

// plugs is what the daemon has to do with containers. What is kept of it stands in one
// file, apart from the document: leases, who was there once, what runtimes asked for.
type plugs struct {
	*plugBook
	o         PlugOptions
	runtimes  *runtimes.Runtimes
	keeper    *plug.Keeper
	gateways  *gateways
	alias     func(port string) string
	dockerErr atomic.Pointer[string]

	// What plugged and published tell.
	ports     atomic.Pointer[map[string]plugPort]
	portsSeen recent // ports
	rulesMade recent // the gateways' rules

	// Guarded by reconciler.mu.
	misfits map[held.Misfit]bool // that were told
	mtus    map[string]int       // of bridges that have plugs, as the keeper was told
}

// openPlugs opens what is kept. It makes nothing yet.
func (d *Daemon) openPlugs(o Options, instance string) error {
	book, err := openPlugBook(filepath.Join(o.StateDir, "plugs.db"), o.RunDir, d.log)
	if err != nil {
		return err
	}
	p := &plugs{
		plugBook: book, o: o.Plug, mtus: map[string]int{},
		alias: func(port string) string { return ports.Owned(instance, port) },
	}
	p.runtimes = runtimes.New(runtimes.Options{Docker: o.Plug.Docker, Podman: o.Plug.Podman, Containerd: o.Plug.Containerd, Log: d.log})
	p.keeper = plug.New(p.runtimes, p.leases, p.past, plug.Options{
		Instance: instance, Grace: o.Plug.Grace, Log: d.log,
		Hooks: plug.Hooks{Changed: d.plugChanged, Gone: d.plugsGone},
	})
	p.gateways = newGateways(instance, o.Plug.ResolvConf, d.log, d.gatewayState)
	p.portsSeen = recent{work: d.seePlugPorts, start: d.spawn}
	p.rulesMade = recent{work: p.gateways.apply, start: d.spawn}
	d.plugs = p
	d.removeUnnamed() // before anybody makes one
	return nil
}

// runPlugs keeps plugs until ctx ends.
func (d *Daemon) runPlugs(ctx context.Context) {
	p := d.plugs
	d.running.Go(func() { p.keeper.Run(ctx) })                                       // these end
	d.running.Go(func() { p.runtimes.Watch(ctx, p.keeper.Wanted, p.keeper.LookAt) }) // with ctx
	d.running.Go(func() { p.gateways.run(ctx) })                                     //
	d.runDocker(ctx)
	d.running.Go(func() { d.watchMTU(ctx) })    //
	d.running.Go(func() { p.mend(ctx, d.log) }) //
	p.keeper.Collect(func(l ipam.Lease) bool { return !leaseOfPlug(l.Owner) })
	d.forgetPools()
}

// removeUnnamed removes pairs of this switch whose maker was killed before they had their
// aliases. Another's of the same namespace may be about to get its own.
func (d *Daemon) removeUnnamed() {
	left, err := wireroom.Leftovers(d.plugs.alias)
	if err != nil {
		d.log.Warn("it was not looked for pairs that were left half made", "err", err)
		return
	}
	for _, host := range left {
		if err := wireroom.Unplug(host, d.plugs.alias(host)); err != nil {
			d.log.Warn("a pair that was left half made could not be removed", "interface", host, "err", err)
			continue
		}
		d.log.Info("removed a pair that was left half made", "interface", host)
	}
}

// forgetPools forgets who had addresses of bridges that are no more.
func (d *Daemon) forgetPools() {
	doc := d.current()
	for _, pool := range d.plugs.leases.Pools() {
		if doc.Bridge(pool) != nil || len(d.plugs.leases.Leases(pool)) > 0 {
			continue
		}
		if err := d.plugs.leases.Forget(pool); err != nil {
			d.log.Warn("the addresses of a bridge that is gone could not be forgotten", "bridge", pool, "err", err)
		}
	}
}

// leaseOfPlug says whether a lease is a plug's, which its owner tells: docker:web eth1.
func leaseOfPlug(owner string) bool {
	ref, _, ok := strings.Cut(owner, " ")
	if !ok {
		return false
	}
	c, err := config.ParseContainer(ref)
	return err == nil && c.Kind != "" && c.Kind != config.RuntimeContainer
}

func (p *plugs) close(log *slog.Logger) {
	p.keeper.Close()
	p.gateways.close()
	if err := p.plugBook.close(log); err != nil {
		log.Warn("the file of leases was not closed cleanly", "err", err)
	}
	p.remove()
}

// expandLocked is of plugKeeper. What does not fit is told once.
func (d *Daemon) expandLocked(doc config.Document) config.Document {
	doc, misfits := d.plugs.expand(doc)
	told := map[held.Misfit]bool{}
	for _, m := range misfits {
		told[m] = true
		if !d.plugs.misfits[m] {
			d.log.Warn("what a runtime asked for has no place in the configuration", "runtime", m.Owner, "what", m.Key, "why", m.Why)
		}
	}
	d.plugs.misfits = told
	return doc
}

// plugUp is of plugKeeper.
func (d *Daemon) plugUp(port string) { d.plugs.keeper.Up(port) }

// expand puts what runtimes asked for into a document.
func (p *plugs) expand(doc config.Document) (config.Document, []held.Misfit) {
	return held.Expand(doc, p.held.List(""))
}

// watchMTUEvery is how often it is asked what the tunnels of a bridge carry, for the
// plugs that name no MTU.
const watchMTUEvery = 2 * time.Second

func (d *Daemon) watchMTU(ctx context.Context) {
	tick := time.NewTicker(watchMTUEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			d.followMTUs()
		}
	}
}

// followMTUs tells the keeper when the tunnels of a bridge carry something else.
func (d *Daemon) followMTUs() {
	r := d.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(d.plugs.mtus) == 0 {
		return
	}
	mtus := r.plugMTUsLocked()
	for bridge, was := range d.plugs.mtus {
		if mtuOf(mtus, bridge) != was {
			d.wantPlugsLocked(r.desired)
			return
		}
	}
}

// wantPlugsLocked is called with reconciler.mu held.
func (d *Daemon) wantPlugsLocked(doc config.Document) {
	var wants []plug.Want
	var mtus map[string]int
	clear(d.plugs.mtus)
	for i := range doc.Bridges {
		b := &doc.Bridges[i]
		var common *bridgePlugs
		for _, p := range b.Ports {
			if p.Object() != config.PlugPort {
				continue
			}
			if common == nil {
				if mtus == nil {
					mtus = d.reconciler.plugMTUsLocked()
				}
				common = d.bridgePlugsLocked(b, mtus)
				d.plugs.mtus[b.Name] = common.mtu
			}
			if w, ok := d.want(common, p); ok {
				wants = append(wants, w)
			}
		}
	}
	d.plugs.keeper.Set(wants)
	d.plugs.gateways.kick()
}

// bridgePlugs is what the plugs of a bridge have in common.
type bridgePlugs struct {
	bridge   *config.Bridge
	pools    []ipam.Pool
	gateways []netip.Addr
	mtu      int
	static   map[netip.Addr]bool
}

func (d *Daemon) bridgePlugsLocked(b *config.Bridge, mtus map[string]int) *bridgePlugs {
	c := &bridgePlugs{bridge: b, mtu: mtuOf(mtus, b.Name), static: map[netip.Addr]bool{}}
	for _, p := range b.Pools() {
		c.pools = append(c.pools, ipam.Pool{Name: b.Name, Pool: p})
		if p.Gateway.IsValid() {
			c.gateways = append(c.gateways, p.Gateway)
		}
	}
	for _, p := range b.Ports {
		for _, a := range p.Options.Prefixes("ip") {
			c.static[a.Addr()] = true
		}
	}
	return c
}

// want is what the keeper is to do for a port; ok is false for one that its runtime plugs.
func (d *Daemon) want(c *bridgePlugs, p config.Port) (w plug.Want, ok bool) {
	g, ok := p.Plug()
	if !ok || g.Container.Kind == config.RuntimeContainer {
		return w, false
	}
	w = plug.Want{
		Port: p.Name, Bridge: c.bridge.Name, Plug: g, Pools: c.pools, Gateways: c.gateways, MTU: g.MTU, Alias: d.plugs.alias(p.Name),
		Others: func(a netip.Addr) bool { return c.static[a] },
	}
	if w.MTU == 0 {
		w.MTU = c.mtu
		if p.Options.VLAN() != 0 && w.MTU < kernelMTU {
			w.MTU -= 4 // a tunnel carries its tag, too
		}
	}
	elsewhere := p.Options.VLAN() != c.bridge.Options.VLAN() // in another VLAN than the bridge's own address
	if elsewhere && !g.Auto4 && !g.Auto6 {
		w.Pools = nil // another network, which may have the same addresses
	}
	if elsewhere && !c.bridge.Options.IsSet("ipam.gateway") {
		w.Gateways = nil
	}
	return w, true
}

// Headers that a tunnel adds over IPv4, where its path is not known yet: IP, UDP or GRE
// with a key, VXLAN or Geneve, Ethernet.
var guessedOverhead = map[config.Object]int{config.VXLANPort: 50, config.GenevePort: 50, config.GREPort: 42}

// plugMTUsLocked is what containers on each bridge can send: what the narrowest of its
// tunnels carries, and its physical interfaces. A bridge that is not among them has neither.
func (r *reconciler) plugMTUsLocked() map[string]int {
	mtus := map[string]int{}
	for _, p := range r.ports {
		mtu := 0
		switch {
		case p.left, p.tunnel != nil && p.state == api.PortSelf:
		case p.tunnel != nil && p.tunnel.mtu != 0:
			mtu = p.tunnel.mtu
		case p.tunnel != nil && p.tunnel.carried != 0: // it is away for the moment
			mtu = p.tunnel.carried
		case p.tunnel != nil:
			mtu = kernelMTU - guessedOverhead[p.port.Object()]
		case p.port.Object() == config.PacketPort && p.link.Index != 0 && p.link.Kind == "":
			mtu = p.link.MTU
		}
		if mtu != 0 {
			mtus[p.bridge] = min(mtu, mtuOf(mtus, p.bridge))
		}
	}
	return mtus
}

func mtuOf(mtus map[string]int, bridge string) int {
	if mtu, ok := mtus[bridge]; ok {
		return max(mtu, minInnerMTU)
	}
	return kernelMTU
}

// plugReason says why the interface of a plug is not there.
func (d *Daemon) plugReason(port string) string {
	st, ok := d.plugs.keeper.State(port)
	switch {
	case !ok:
		return "its runtime has not made its interface yet"
	case st.State == plug.Plugged: // and somebody took it away
		d.plugs.keeper.Look(port)
		return "its interface is gone; it is made again"
	}
	return st.Reason
}

// plugChanged is called by the keeper.
func (d *Daemon) plugChanged(port string) {
	d.reconciler.mark(port)
	d.plugs.gateways.kick()
}

// plugsGone takes plugs out of the document, or out of what runtimes asked for, whose
// containers are gone for good: all in one change, lest a hundred fill the history.
func (d *Daemon) plugsGone(gone []plug.Passing) {
	still := func(port string) bool { // it may have come back while this waited
		st, ok := d.plugs.keeper.State(port)
		return ok && st.State == plug.Going
	}
	items := d.heldPorts()
	var ports []string
	for _, g := range gone {
		i, held := items[g.Port]
		switch {
		case !still(g.Port):
		case !held:
			ports = append(ports, g.Port)
		default:
			if err := d.release(i.Owner, i.Key); err != nil {
				d.log.Warn("what a runtime left behind could not be removed", "port", g.Port, "err", err)
			}
		}
	}
	if len(ports) == 0 {
		return
	}
	what := gone[0].Container.String() + " is gone"
	if len(ports) > 1 {
		what = fmt.Sprintf("%d containers are gone", len(ports))
	}
	_, err := d.change("unplug "+strings.Join(ports[:min(len(ports), 8)], " ")+": "+what, 0, false, func(doc config.Document) (config.Document, error) {
		var ops []config.Op
		for _, port := range ports {
			if portOf(doc, port) != nil && still(port) {
				ops = append(ops, config.Op{Op: "del-port", Port: port})
			}
		}
		return config.Apply(doc, ops)
	})
	if err != nil {
		d.log.Warn("plugs whose containers are gone could not be removed; it is tried again", "ports", ports, "err", err)
	}
}

// reapply makes the document true again, whose expansion changed.
func (d *Daemon) reapply() {
	doc, _ := d.reconciler.followed()
	d.reconciler.apply(doc)
}

// heldPort finds the item that a port belongs to.
func (d *Daemon) heldPort(port string) (held.Item, bool) {
	i, ok := d.heldPorts()[port]
	return i, ok
}

// whose says of an edit that does not find its port or bridge that a runtime asked for it:
// show lists it, and the document does not have it.
func (d *Daemon) whose(doc config.Document, ops []config.Op, err error) error {
	if err == nil {
		return nil
	}
	for _, i := range d.plugs.held.List("") {
		for _, op := range ops {
			what := ""
			switch {
			case op.Port != "" && op.Op != "add-port" && portOf(doc, op.Port) == nil && slices.ContainsFunc(i.Ports, func(p config.Port) bool { return p.Name == op.Port }):
				what = "port " + op.Port
			case op.Bridge != "" && i.Makes && i.Bridge == op.Bridge && doc.Bridge(op.Bridge) == nil:
				what = "bridge " + op.Bridge
			default:
				continue
			}
			return &api.Error{Status: 409, Field: "owner", Value: i.Owner, Message: fmt.Sprintf(
				"%s %s: %s is there for %s, which alone changes it", op.Op, cmp.Or(op.Port, op.Bridge), what, i.Owner)}
		}
	}
	return err
}

// heldPorts are the items that ports belong to, by port.
func (d *Daemon) heldPorts() map[string]held.Item {
	all := map[string]held.Item{}
	for _, i := range d.plugs.held.List("") {
		for _, p := range i.Ports {
			all[p.Name] = i
		}
	}
	return all
}
