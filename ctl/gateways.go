package ctl

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/plug/docker"
	"vswitch/plug/held"
	dnsnames "vswitch/plug/names"
	"vswitch/plug/nat"
)

// gateways makes bridges gateways of their containers: nftables and DNS follow the
// document and the plugs. A goroutine each does it, since neither must hold up a change, nor
// the firewall, which may wait for iptables' lock, a name that goes with its container.
//
// Thread-safety: safe for concurrent use. Lock order: work, naming, mu.
type gateways struct {
	firewall *nat.Firewall
	dns      *dnsnames.Server
	log      *slog.Logger
	state    func() gatewayState
	wake     chan struct{} // holds one when something changed
	renamed  chan struct{} // likewise, for the names

	naming sync.Mutex // one at a time sets the names

	work sync.Mutex    // one at a time applies
	used bool          // there was something to apply; guarded by work, and so is what follows
	last *gatewayState // what was applied without an error; nil: nothing

	mu        sync.Mutex // guards what follows; taken last
	published []api.PublishStatus
	err       string // why the firewall is not as it should be
}

// gatewayState is what is to be so.
type gatewayState struct {
	gateways []nat.Gateway
	forwards []nat.Forward
	rows     []api.PublishStatus // one a published port; State waiting where forward is -1
	forward  []int               // by row: its place in forwards, or -1
	views    []dnsnames.View
	peers    []nat.Peer // ends of tunnels, which no container may speak to in the host's name
}

// same says whether the firewall is asked for the same.
func (s *gatewayState) same(o *gatewayState) bool {
	return slices.Equal(s.forwards, o.forwards) && reflect.DeepEqual(s.gateways, o.gateways)
}

// gatewayCheckEvery is how often it is looked whether somebody took rules away.
const gatewayCheckEvery = 5 * time.Second

func newGateways(instance, resolvConf string, log *slog.Logger, state func() gatewayState) *gateways {
	return &gateways{
		firewall: nat.New(instance, log), dns: dnsnames.New(resolvConf, log), log: log, state: state,
		wake: make(chan struct{}, 1), renamed: make(chan struct{}, 1),
	}
}

func (g *gateways) kick() {
	for _, c := range []chan struct{}{g.renamed, g.wake} {
		select {
		case c <- struct{}{}:
		default:
		}
	}
}

func (g *gateways) run(ctx context.Context) {
	tick := time.NewTicker(gatewayCheckEvery)
	defer tick.Stop()
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { g.watch(ctx, changed) }) // ended by ctx
	watching.Go(func() {                          // ended by ctx
		for {
			select {
			case <-ctx.Done():
				return
			case <-g.renamed:
				g.names()
			}
		}
	})
	for {
		select {
		case <-ctx.Done():
			return
		case <-changed:
			g.check()
		case <-g.wake:
			g.apply()
		case <-tick.C:
			g.check()
		}
	}
}

// shield keeps what is masqueraded from tunnels' ends, where there is a gateway at all.
func (g *gateways) shield(peers []nat.Peer) error {
	if !g.used {
		return nil
	}
	return g.firewall.Shield(peers)
}

// watch tells when anybody changed nftables. Who changes rules of the older kind tells
// nobody, and a kernel may have no nftables: the ticks do then.
func (g *gateways) watch(ctx context.Context, changed chan<- struct{}) {
	for ctx.Err() == nil {
		err := g.firewall.Watch(ctx, func() {
			select {
			case changed <- struct{}{}:
			default:
			}
		})
		if err == nil {
			return
		}
		g.log.Debug("changes of nftables are not told", "err", err)
		select {
		case <-ctx.Done():
		case <-time.After(gatewayCheckEvery):
		}
	}
}

// names makes the name server answer what there is now. What is asked for later is set later.
func (g *gateways) names() {
	g.naming.Lock()
	defer g.naming.Unlock()
	g.dns.Set(g.state().views)
}

// apply makes it so.
func (g *gateways) apply() {
	g.names()
	g.work.Lock()
	defer g.work.Unlock()
	s := g.state()
	nothing := len(s.gateways)+len(s.forwards) == 0
	var status []nat.Status
	var err error
	if g.last != nil && g.last.same(&s) {
		status = g.firewall.Statuses()
	} else {
		status, err = g.firewall.Apply(s.gateways, s.forwards)
		if nothing && !g.used {
			err = nil // a kernel without nftables is no trouble to a switch that is no gateway
		}
		g.last = nil
		if err == nil {
			g.last = &s
		}
	}
	g.used = g.used || !nothing
	err = errors.Join(err, g.shield(s.peers))
	for i := range s.rows {
		row, at := &s.rows[i], s.forward[i]
		switch {
		case at < 0:
		case err != nil:
			row.State, row.Reason = api.PortError, strings.ReplaceAll(err.Error(), "\n", "; ")
		case at < len(status) && status[at].Err != "":
			row.State, row.Reason = api.PortError, status[at].Err
		default:
			row.State = api.PortUp
		}
	}
	g.note(errors.Join(err, g.firewall.Blocked()))
	g.mu.Lock()
	g.published = s.rows
	g.mu.Unlock()
}

func (g *gateways) note(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	text := ""
	if err != nil {
		text = err.Error()
	}
	if text != "" && text != g.err {
		g.log.Error("gateways are not as they should be", "err", err)
	}
	g.err = text
}

// check puts back what somebody took away.
func (g *gateways) check() {
	g.work.Lock()
	defer g.work.Unlock()
	if !g.used {
		return
	}
	missing, err := g.firewall.Check()
	err = errors.Join(err, g.shield(g.state().peers))
	if missing {
		g.log.Warn("somebody removed rules of the gateways; they are back")
	}
	g.note(err)
}

// warnings are for show.
func (g *gateways) warnings() (all []string) {
	g.mu.Lock()
	if g.err != "" {
		for text := range strings.SplitSeq(g.err, "\n") { // joined errors
			all = append(all, "gateways: "+text)
		}
	}
	g.mu.Unlock()
	for _, s := range g.dns.Status() {
		if s.Err != "" {
			all = append(all, "names of "+s.Bridge+": "+s.Err)
		}
	}
	return all
}

func (g *gateways) list() []api.PublishStatus {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.published)
}

func (g *gateways) close() {
	g.work.Lock()
	defer g.work.Unlock()
	if err := g.firewall.Close(); err != nil {
		g.log.Warn("rules of the gateways were not removed", "err", err)
	}
	if err := g.dns.Close(); err != nil {
		g.log.Warn("the name server was not closed cleanly", "err", err)
	}
}

// gatewayState reads what is to be so from the document and the plugs.
func (d *Daemon) gatewayState() gatewayState {
	var s gatewayState
	doc := d.current()
	items := d.plugs.held.List(docker.Owner)
	internal, made := docker.Internal(items), madeByDocker(items)
	var uplinks map[string]bool
	uplinks, s.peers = d.reconciler.elsewhere()
	for i := range doc.Bridges {
		b := &doc.Bridges[i]
		view, named := d.viewOf(b)
		for _, p := range append([]config.Port{b.Local()}, b.Ports...) {
			if o := p.Object(); o != config.LocalPort && o != config.InternalPort {
				continue
			}
			gw, ok := gatewayOf(p)
			gw.Internal, gw.Uplink = slices.Contains(internal, p.Name), uplinks[b.Name]
			gw.Names = named && p.Name == b.Name
			stub, isMade := made[p.Name]
			gw.Stub = stub
			if ok && (gw.Masquerade || gw.Internal || isMade || d.publishes(b)) {
				s.gateways = append(s.gateways, gw)
			}
		}
		d.publishedOf(b, &s)
		if named {
			view.Closed = slices.Contains(internal, b.Name)
			s.views = append(s.views, view)
		}
	}
	return s
}

// madeByDocker lists the interfaces of the host that were made to be gateways of Docker's
// networks, also of those that do not masquerade: for an operator's bridge that has an address and
// no nat, the host forwards what he has it forward. The value says that the bridge was made, too,
// so that only Docker's containers are on it.
func madeByDocker(items []held.Item) map[string]bool {
	made := map[string]bool{}
	for _, i := range items {
		if i.Makes && i.Options.IsSet("ip") {
			made[i.Bridge] = true
		}
		for _, p := range i.Ports {
			if p.Object() == config.InternalPort && p.Options.IsSet("ip") {
				made[p.Name] = false
			}
		}
	}
	return made
}

// elsewhere returns which bridges have a LAN behind them, by a NIC that is no plug, and the
// other ends of all tunnels.
func (r *reconciler) elsewhere() (uplinks map[string]bool, peers []nat.Peer) {
	for _, t := range r.outerTunnels(scope{}) {
		if t.remote.IsValid() {
			peers = append(peers, nat.Peer{Addr: t.remote, Port: t.dport})
		}
	}
	uplinks = map[string]bool{}
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.ports {
		if p.port.Object() != config.PacketPort {
			continue
		}
		o := p.port.Options
		nic := p.link.Index != 0 && p.link.Kind != "veth" && p.link.Kind != "tun"
		if nic || o.Bool("take_addresses") || o.Bool("macnat") {
			uplinks[p.bridge] = true
		}
	}
	return uplinks, peers
}

// gatewayOf reads a host port's options; ok is false where it has no address.
func gatewayOf(p config.Port) (g nat.Gateway, ok bool) {
	for _, a := range p.Options.Prefixes("ip") {
		g.Subnets = append(g.Subnets, a.Masked())
	}
	g.Interface, g.Masquerade = p.Name, p.Options.Text("nat") == "masquerade"
	return g, len(g.Subnets) > 0
}

func (d *Daemon) publishes(b *config.Bridge) bool {
	return slices.ContainsFunc(b.Ports, func(p config.Port) bool { return p.Options.IsSet("publish") })
}

// addressesOf are those that a plug has now, or that the document gives it.
func (d *Daemon) addressesOf(p config.Port, g config.Plug) (addrs []netip.Addr, names []string, why string) {
	prefixes := g.Addresses
	if g.Container.Kind != config.RuntimeContainer {
		st, ok := d.plugs.keeper.State(p.Name)
		if !ok || st.State != api.PlugPlugged && len(st.Addresses) == 0 {
			return nil, nil, st.Reason
		}
		prefixes, names = st.Addresses, st.Names
	}
	for _, a := range prefixes {
		addrs = append(addrs, a.Addr())
	}
	return addrs, names, ""
}

// publishedOf adds what a bridge's plugs publish.
func (d *Daemon) publishedOf(b *config.Bridge, s *gatewayState) {
	for _, p := range b.Ports {
		g, ok := p.Plug()
		if !ok || len(g.Publish) == 0 {
			continue
		}
		addrs, _, why := d.addressesOf(p, g)
		if near := slices.DeleteFunc(slices.Clone(addrs), func(a netip.Addr) bool { return hostSide(b, p, a) == "" }); len(near) > 0 {
			addrs = near
		}
		for _, pub := range g.Publish {
			host := "*"
			if pub.Host.IsValid() {
				host = pub.Host.String()
				if pub.Host.Is6() {
					host = "[" + host + "]"
				}
			}
			row := api.PublishStatus{
				Bridge: b.Name, Container: g.Container.String(), Port: p.Name,
				Host: host + ":" + strconv.Itoa(int(pub.Port)) + "/" + pub.Proto, State: api.PortWaiting, Reason: why,
			}
			to := reachable(addrs, pub.Host)
			if len(to) == 0 {
				if row.Reason == "" {
					row.Reason = "the container has no address of that family"
				}
				s.rows, s.forward = append(s.rows, row), append(s.forward, -1)
			}
			for _, a := range to {
				row.To = netip.AddrPortFrom(a, pub.To).String()
				s.rows, s.forward = append(s.rows, row), append(s.forward, len(s.forwards))
				s.forwards = append(s.forwards, nat.Forward{
					Host: pub.Host, Port: pub.Port, Proto: pub.Proto, To: netip.AddrPortFrom(a, pub.To),
					Interface: cmp.Or(hostSide(b, p, a), b.Name),
				})
			}
		}
	}
}

// reachable chooses the container's addresses that a port of the host leads to: one of each
// family that the port has, which is that of host, or both where it names none.
func reachable(addrs []netip.Addr, host netip.Addr) (to []netip.Addr) {
	for _, v4 := range []bool{true, false} {
		if host.IsValid() && host.Is4() != v4 {
			continue
		}
		if i := slices.IndexFunc(addrs, func(a netip.Addr) bool { return a.Is4() == v4 }); i >= 0 {
			to = append(to, addrs[i])
		}
	}
	return to
}

// hostSide is the interface of the host in whose subnet a container is, or "".
func hostSide(b *config.Bridge, p config.Port, to netip.Addr) string {
	has := func(o config.Options) bool {
		return slices.ContainsFunc(o.Prefixes("ip"), func(n netip.Prefix) bool { return n.Masked().Contains(to) })
	}
	for _, q := range b.Ports {
		if q.Object() == config.InternalPort && q.Options["tag"] == p.Options["tag"] && has(q.Options) {
			return q.Name
		}
	}
	if has(b.Options) {
		return b.Name
	}
	return ""
}

// viewOf is what the name server answers on a bridge.
func (d *Daemon) viewOf(b *config.Bridge) (v dnsnames.View, ok bool) {
	o := b.Options
	if !o.Bool("dns") || !o.IsSet("ip") || !o.IsSet("ipam.subnet") && o.Text("nat") != "masquerade" {
		return v, false
	}
	v.Bridge = b.Name
	for _, a := range o.Prefixes("ip") {
		v.Listen, v.Clients = append(v.Listen, a.Addr()), append(v.Clients, a.Masked())
	}
	for _, p := range b.Ports {
		g, ok := p.Plug()
		if !ok {
			continue
		}
		addrs, known, _ := d.addressesOf(p, g)
		if len(addrs) == 0 {
			continue
		}
		if words := namesOf(g, known); len(words) > 0 {
			v.Records = append(v.Records, dnsnames.Record{Names: words, Addrs: addrs})
		}
	}
	return v, true
}

// namesOf are the names that a plug answers to: the container's own, those that its runtime
// knows, and the document's aliases.
func namesOf(g config.Plug, known []string) (all []string) {
	add := func(name string) {
		if name = strings.ToLower(name); name != "" && !slices.Contains(all, name) {
			all = append(all, name)
		}
	}
	switch g.Container.Kind {
	case config.RuntimeContainer, config.PIDContainer:
	default:
		add(g.Container.Short())
	}
	for _, n := range known {
		add(n)
	}
	for _, n := range g.Aliases {
		add(n)
	}
	return all
}
