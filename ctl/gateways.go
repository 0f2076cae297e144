package ctl

import (
	"context"
	"errors"
	"log/slog"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/plug/docker"
	dnsnames "vswitch/plug/names"
	"vswitch/plug/nat"
)

// gateways makes bridges gateways of their containers: nftables and DNS follow the
// document and the plugs. One goroutine does it, since neither must hold up a change.
//
// Thread-safety: safe for concurrent use.
type gateways struct {
	firewall *nat.Firewall
	dns      *dnsnames.Server
	log      *slog.Logger
	state    func() gatewayState
	wake     chan struct{} // holds one when something changed

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
	return slices.Equal(s.forwards, o.forwards) && slices.EqualFunc(s.gateways, o.gateways, func(a, b nat.Gateway) bool {
		return a.Interface == b.Interface && a.Masquerade == b.Masquerade && a.Internal == b.Internal && a.Uplink == b.Uplink && slices.Equal(a.Subnets, b.Subnets)
	})
}

// gatewayCheckEvery is how often it is looked whether somebody took rules away.
const gatewayCheckEvery = 5 * time.Second

func newGateways(instance, resolvConf string, log *slog.Logger, state func() gatewayState) *gateways {
	return &gateways{
		firewall: nat.New(instance, log), dns: dnsnames.New(resolvConf, log), log: log, state: state, wake: make(chan struct{}, 1),
	}
}

func (g *gateways) kick() {
	select {
	case g.wake <- struct{}{}:
	default:
	}
}

func (g *gateways) run(ctx context.Context) {
	tick := time.NewTicker(gatewayCheckEvery)
	defer tick.Stop()
	changed := make(chan struct{}, 1)
	var watching sync.WaitGroup
	defer watching.Wait()
	watching.Go(func() { g.watch(ctx, changed) }) // ended by ctx
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

// apply makes it so.
func (g *gateways) apply() {
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
	g.dns.Set(s.views)
	for i := range s.rows {
		row, at := &s.rows[i], s.forward[i]
		switch {
		case at < 0:
		case err != nil:
			row.State, row.Reason = api.PortError, err.Error()
		case at < len(status) && status[at].Err != "":
			row.State, row.Reason = api.PortError, status[at].Err
		default:
			row.State = api.PortUp
		}
	}
	g.note(err)
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
		all = append(all, "gateways: "+g.err)
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
	internal := docker.Internal(d.plugs.held.List(docker.Owner))
	var uplinks map[string]bool
	uplinks, s.peers = d.reconciler.elsewhere()
	for i := range doc.Bridges {
		b := &doc.Bridges[i]
		for _, p := range append([]config.Port{b.Local()}, b.Ports...) {
			if o := p.Object(); o != config.LocalPort && o != config.InternalPort {
				continue
			}
			gw, ok := gatewayOf(p)
			gw.Internal, gw.Uplink = slices.Contains(internal, p.Name), uplinks[b.Name]
			if ok && (gw.Masquerade || gw.Internal || d.publishes(b)) {
				s.gateways = append(s.gateways, gw)
			}
		}
		d.publishedOf(b, &s)
		if v, ok := d.viewOf(b); ok {
			v.Closed = slices.Contains(internal, b.Name)
			s.views = append(s.views, v)
		}
	}
	return s
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
			to, ok := reachable(addrs, pub.Host)
			if !ok {
				if row.Reason == "" {
					row.Reason = "the container has no address of that family"
				}
				s.rows, s.forward = append(s.rows, row), append(s.forward, -1)
				continue
			}
			row.To = netip.AddrPortFrom(to, pub.To).String()
			s.rows, s.forward = append(s.rows, row), append(s.forward, len(s.forwards))
			s.forwards = append(s.forwards, nat.Forward{
				Host: pub.Host, Port: pub.Port, Proto: pub.Proto, To: netip.AddrPortFrom(to, pub.To), Interface: hostSide(b, p, to),
			})
		}
	}
}

// reachable chooses the container's address that a port of the host leads to: one of the
// family that host names, IPv4 before IPv6 where it names none.
func reachable(addrs []netip.Addr, host netip.Addr) (netip.Addr, bool) {
	for _, v4 := range []bool{true, false} {
		if host.IsValid() && host.Is4() != v4 {
			continue
		}
		for _, a := range addrs {
			if a.Is4() == v4 {
				return a, true
			}
		}
	}
	return netip.Addr{}, false
}

// hostSide is the interface of the host through which a container is reached.
func hostSide(b *config.Bridge, p config.Port, to netip.Addr) string {
	for _, q := range b.Ports {
		if q.Object() == config.InternalPort && q.Options["tag"] == p.Options["tag"] &&
			slices.ContainsFunc(q.Options.Prefixes("ip"), func(n netip.Prefix) bool { return n.Masked().Contains(to) }) {
			return q.Name
		}
	}
	return b.Name
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
