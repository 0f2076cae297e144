package ctl

import (
	"fmt"
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/tunnel"
)

// tunnels is what the reconciler needs for ports that lead to other hosts.
//
// Thread-safety: reconciler.mu guards all but what is said.
type tunnels struct {
	workers   int
	resolver  *resolver // safe for concurrent use
	endpoints map[tunnel.EndpointConfig]*endpoint
	refused   map[tunnel.EndpointConfig]*refusal
	local     map[netip.Addr]bool // this host's addresses
	bfd       *bfdInput           // safe for concurrent use

	dirtyMu sync.Mutex      // guards what follows
	dirty   map[string]bool // ports that are to be looked at
	names   map[string]bool // host names that were answered
}

// endpoint is a tunnel endpoint and how many ports use it.
type endpoint struct {
	*tunnel.Endpoint
	config tunnel.EndpointConfig
	ports  int
}

// refusal is an endpoint that could not be opened: one try serves all its ports, which
// have it as their error.
type refusal struct {
	error
	until   time.Time // when to try again
	backoff time.Duration
}

// An endpoint that cannot be opened is tried again after minBackoff, and twice as long
// each time, up to maxRefusal: nothing tells when a kernel's device lets a port go.
const maxRefusal = 5 * time.Second

// tunnelPort is what a tunnel port has beside a portState.
type tunnelPort struct {
	remote   netip.Addr   // invalid: not known (yet)
	endpoint *endpoint    // nil: not attached
	port     *tunnel.Port // nil: not attached
	session  *session     // nil: no BFD

	since     time.Time // that remote was chosen
	path, mtu int       // bytes of the largest outer and inner IP packet; 0: not known
	carried   int       // mtu as it was last known
	asked     time.Time // when the kernel was asked for path
	stale     atomic.Bool
}

// newTunnels is called once the reconciler can be roused.
func (r *reconciler) newTunnels(workers int) {
	r.tunnels = &tunnels{
		workers: workers, endpoints: map[tunnel.EndpointConfig]*endpoint{}, refused: map[tunnel.EndpointConfig]*refusal{}, local: map[netip.Addr]bool{},
		bfd: newBFDInput(), dirty: map[string]bool{}, names: map[string]bool{},
	}
	r.tunnels.resolver = newResolver(func(host string) {
		r.tunnels.dirtyMu.Lock()
		r.tunnels.names[host] = true
		r.tunnels.dirtyMu.Unlock()
		r.rouse()
	})
}

// markTunnel has a tunnel port looked at soon. It may be called by anybody, also
// by a worker: it takes no lock that is held for long.
func (r *reconciler) markTunnel(name string) {
	r.tunnels.dirtyMu.Lock()
	r.tunnels.dirty[name] = true
	r.tunnels.dirtyMu.Unlock()
	r.rouse()
}

// tunnelsChangedLocked looks at the tunnel ports that were marked. moved says that
// this host's addresses changed.
func (r *reconciler) tunnelsChangedLocked(moved bool, now time.Time) {
	t := r.tunnels
	t.dirtyMu.Lock()
	dirty, names := t.dirty, t.names
	t.dirty, t.names = map[string]bool{}, map[string]bool{}
	t.dirtyMu.Unlock()
	r.sw.Together(func() {
		for name := range dirty {
			if p := r.ports[name]; p != nil && p.tunnel != nil {
				r.linkLocked(p, now)
			}
		}
	})
	if len(names) == 0 && !moved {
		return
	}
	if moved {
		r.readLocalLocked()
		clear(r.tunnels.refused) // the address that was missing may be there
	}
	r.sw.Together(func() {
		for _, p := range r.ports {
			if p.tunnel != nil && (moved || names[p.port.Options.Text("remote_ip")]) {
				p.forgive()
				p.tunnel.stale.Store(true)
				r.linkLocked(p, now)
			}
		}
	})
}

// readLocalLocked notes this host's addresses: a mesh's document names all hosts,
// this one too.
func (r *reconciler) readLocalLocked() {
	all, err := net.InterfaceAddrs()
	if err != nil {
		r.log.Warn("this host's addresses could not be read", "err", err)
		return
	}
	clear(r.tunnels.local)
	for _, a := range all {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			r.tunnels.local[p.Addr().Unmap()] = true
		}
	}
}

// How often the kernel is asked for a path's MTU when nothing tells of a change:
// once a second, and for thousands of tunnels so that it is a thousand questions a
// second. One takes some 3 µs.
const (
	pathEvery   = time.Second
	pathsAtOnce = 1000
)

// silence is how long nothing is heard of a host without BFD until its name is looked
// up again.
const silence = 30 * time.Second

// tickTunnelsLocked looks at the paths of tunnel ports whose time has come.
func (r *reconciler) tickTunnelsLocked(now time.Time) {
	count := 0
	for _, e := range r.tunnels.endpoints {
		count += e.ports
	}
	every := pathEvery * time.Duration(1+count/pathsAtOnce)
	for _, p := range r.ports {
		if t := p.tunnel; t != nil && t.port != nil && now.Sub(t.asked) >= every {
			if heard := t.heard(); t.session == nil && now.Sub(t.since) >= silence && (heard == nil || now.Sub(*heard) >= silence) {
				r.lookAgain(p)
			}
			t.stale.Store(true)
			r.linkLocked(p, now)
		} else if t != nil && t.port == nil && p.state != api.PortSelf && now.Sub(p.since) >= pathEvery {
			r.linkLocked(p, now) // a name that has no answer is asked for again
		}
	}
}

// tunnelLocked makes a tunnel port as it should be.
func (r *reconciler) tunnelLocked(p *portState, now time.Time) {
	t := p.tunnel
	remote, err := r.remoteLocked(p, now)
	if err != nil && t.port == nil {
		r.setState(p, api.PortWaiting, err.Error())
		return
	}
	if err == nil && remote != t.remote {
		r.detachLocked(p)
		p.forgive()
		t.remote, t.since = remote, now
	}
	if r.isSelfLocked(p) {
		r.detachLocked(p)
		r.setState(p, api.PortSelf, "this host")
		return
	}
	if t.port == nil {
		if now.Before(p.retryAt) {
			return
		}
		if err := r.attachTunnel(p); err != nil {
			r.detachLocked(p)
			r.fail(p, now, err)
			if refused, ok := err.(*refusal); ok {
				p.retryAt = refused.until
			}
			return
		}
		p.forgive()
	}
	r.refreshTunnelLocked(p, now)
}

// remoteLocked returns the address of a tunnel port's other end. A host name's stays
// as long as the name has it and it does well; if BFD says that it does not, the next
// one has its turn.
func (r *reconciler) remoteLocked(p *portState, now time.Time) (netip.Addr, error) {
	o, _ := p.port.Tunnel()
	if a, err := netip.ParseAddr(o.Remote); err == nil {
		return a.Unmap(), nil
	}
	t := p.tunnel
	failed := t.session.down() != "" && now.Sub(t.since) >= resolveEvery
	return r.tunnels.resolver.resolve(o.Remote, t.remote, failed, func(a netip.Addr) bool {
		return !o.Local.IsValid() || o.Local.Is4() == a.Is4()
	})
}

// isSelfLocked reports whether a mesh's port would lead to this host itself.
func (r *reconciler) isSelfLocked(p *portState) bool {
	if p.port.Mesh == "" {
		return false
	}
	remote := p.tunnel.remote
	// Debian gives a host's own name the address 127.0.1.1.
	return r.tunnels.local[remote] || remote.IsLoopback() || remote.String() == p.port.Options.Text("local_ip")
}

var tunnelKinds = map[config.Object]tunnel.Kind{
	config.VXLANPort: tunnel.VXLAN, config.GREPort: tunnel.GRE, config.GenevePort: tunnel.Geneve,
}

// attachTunnel opens what a tunnel port needs. What it opened before it failed is
// detachLocked's to close.
func (r *reconciler) attachTunnel(p *portState) error {
	t := p.tunnel
	o, _ := p.port.Tunnel() // it is one
	c := tunnel.EndpointConfig{Kind: tunnelKinds[o.Type], Local: o.Local, Port: o.Port, Queues: r.tunnels.workers}
	if !c.Local.IsValid() {
		c.Local = netip.IPv4Unspecified()
		if t.remote.Is6() {
			c.Local = netip.IPv6Unspecified()
		}
	}
	if c.Local.Is4() != t.remote.Is4() {
		return fmt.Errorf("local_ip %s and the other end's %s are not of one family", c.Local, t.remote)
	}
	e, err := r.endpointLocked(c)
	if err != nil {
		return err
	}
	t.endpoint = e
	e.ports++
	pc := tunnelConfig(o, t.remote, c.Queues)
	name := p.port.Name
	pc.PathChanged = func() {
		if !t.stale.Swap(true) {
			r.markTunnel(name)
		}
	}
	if o.BFD {
		t.session = r.newSession(p)
		pc.Control = t.session.hear
	}
	port, err := e.NewPort(pc)
	if err != nil {
		return err
	}
	if err := r.sw.Attach(name, port, false, 0); err != nil {
		return err
	}
	p.device, t.port = port, port
	t.stale.Store(true)
	if t.session != nil {
		t.session.start(port)
	}
	return nil
}

// tunnelConfig turns a tunnel port's options into what package tunnel wants.
func tunnelConfig(o config.Tunnel, remote netip.Addr, workers int) tunnel.PortConfig {
	c := tunnel.PortConfig{
		Remote: remote, DstPort: o.Port, InKey: o.InKey, OutKey: o.OutKey, HasOutKey: o.OutKey != 0,
		TOS: o.TOS, TOSInherit: o.TOSInherit, TTL: o.TTL, TTLInherit: o.TTLInherit,
		DF: o.DF, Seq: o.Seq, MSSClamp: o.MSSClamp, Workers: workers,
	}
	switch {
	case o.CsumSet && o.Csum:
		c.Csum = tunnel.CsumOn
	case o.CsumSet:
		c.Csum = tunnel.CsumOff
	}
	return c
}

// endpointLocked returns the endpoint of a configuration, opened if it is not.
func (r *reconciler) endpointLocked(c tunnel.EndpointConfig) (*endpoint, error) {
	if e := r.tunnels.endpoints[c]; e != nil {
		return e, nil
	}
	f := r.tunnels.refused[c]
	if f != nil && time.Now().Before(f.until) {
		return nil, f
	}
	te, err := tunnel.Open(c)
	if err == nil {
		if err = r.sw.AddEndpoint(te); err != nil {
			te.Close()
		}
	}
	if err != nil {
		if f == nil {
			f = &refusal{}
			r.tunnels.refused[c] = f
		}
		f.error, f.backoff = err, min(max(2*f.backoff, minBackoff), maxRefusal)
		f.until = time.Now().Add(f.backoff)
		return nil, f
	}
	delete(r.tunnels.refused, c)
	e := &endpoint{Endpoint: te, config: c}
	r.tunnels.endpoints[c] = e
	return e, nil
}

// closeTunnelLocked gives back what attachTunnel opened, after the switch let go of
// the port.
func (r *reconciler) closeTunnelLocked(p *portState) {
	t := p.tunnel
	t.port, t.session = nil, nil
	t.path, t.mtu = 0, 0
	e := t.endpoint
	if e == nil {
		return
	}
	t.endpoint = nil
	if e.ports--; e.ports > 0 {
		return
	}
	delete(r.tunnels.endpoints, e.config)
	r.sw.DelEndpoint(e.Endpoint)
	if err := e.Close(); err != nil {
		r.log.Warn("tunnel endpoint not closed cleanly", "endpoint", e.Name(), "err", err)
	}
}

// refreshTunnelLocked brings what is true of a tunnel into the switch and the
// port's state: its path's MTU, and whether the other end is alive.
func (r *reconciler) refreshTunnelLocked(p *portState, now time.Time) {
	t := p.tunnel
	if t.stale.Swap(false) || t.path == 0 {
		t.asked = now
		if err := r.askPathLocked(p); err != nil {
			r.sw.SetLink(p.port.Name, false, t.mtu)
			r.setState(p, api.PortDown, err.Error())
			r.lookAgain(p)
			return
		}
	}
	if why := t.session.down(); why != "" {
		r.sw.SetLink(p.port.Name, false, t.mtu)
		r.setState(p, api.PortDown, why)
		r.lookAgain(p)
		return
	}
	p.notes = nil
	if r.tunnels.local[t.remote] {
		p.notes = []string{"remote_ip is an address of this host itself"}
	}
	r.sw.SetLink(p.port.Name, true, t.limit(p.port.Options))
	r.setState(p, api.PortUp, "")
}

// limit is the largest inner IP packet that the switch lets through: none where
// the host may fragment.
func (t *tunnelPort) limit(o config.Options) int {
	if !o.Bool("df_default") {
		return 0
	}
	return t.mtu
}

// lookAgain looks a host name up again whose address does not answer.
func (r *reconciler) lookAgain(p *portState) {
	if host := p.port.Options.Text("remote_ip"); host != p.tunnel.remote.String() {
		r.tunnels.resolver.again(host)
	}
}

// askPathLocked asks the kernel for the MTU of a tunnel's path.
func (r *reconciler) askPathLocked(p *portState) error {
	t := p.tunnel
	path, err := t.port.PathMTU()
	if err != nil {
		t.path = 0
		if local := t.endpoint.config.Local; !local.IsUnspecified() && !r.tunnels.local[local] {
			return fmt.Errorf("local_ip %s is not an address of this host any more", local)
		}
		return err
	}
	mtu := path - t.port.Overhead()
	if mtu < minInnerMTU {
		t.path = 0
		return fmt.Errorf("the path to %s takes %d bytes: too little for a tunnel (its headers take %d)", t.remote, path, t.port.Overhead())
	}
	if t.mtu != mtu {
		if t.mtu != 0 {
			msg := fmt.Sprintf("port %s of %s: its path now takes %d bytes, and IP packets of up to %d bytes inside", p.port.Name, p.bridge, path, mtu)
			r.log.Info(msg)
			r.tell(api.Event{Kind: "mtu-changed", Bridge: p.bridge, Port: p.port.Name, Message: msg,
				Detail: map[string]any{"path_mtu": path, "mtu": mtu, "was": t.mtu}})
		}
		t.port.SetMTU(mtu)
	}
	t.path, t.mtu, t.carried = path, mtu, mtu
	return nil
}

// minInnerMTU is the smallest MTU that IPv4 can do with (RFC 791), and a switch.
const minInnerMTU = 68

// keepHostsLocked lets the resolver forget names that nobody uses any more.
func (r *reconciler) keepHostsLocked() {
	wanted := map[string]bool{}
	for _, p := range r.ports {
		if p.tunnel != nil {
			wanted[p.port.Options.Text("remote_ip")] = true
		}
	}
	r.tunnels.resolver.keep(wanted)
}

// closeTunnels ends what tunnels run in the background; their ports are gone.
func (r *reconciler) closeTunnels() {
	r.tunnels.resolver.close()
	r.tunnels.bfd.close()
}

// isSelf reports whether a port is a mesh's that would lead to this host.
func (r *reconciler) isSelf(port string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.ports[port]
	return p != nil && p.state == api.PortSelf
}
