package ctl

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"time"

	"vswitch/capture/summary"
	"vswitch/ctl/api"
	"vswitch/ctl/config"
	vswitch "vswitch/switch"
	"vswitch/tunnel/bfd"
)

// current returns the desired document with its meshes as tunnel ports, and with what
// runtimes asked for.
func (d *Daemon) current() config.Document {
	_, doc := d.reconciler.followed()
	return doc
}

// Tunnels is described at api.Service.
func (d *Daemon) Tunnels(_ context.Context, bridge string) ([]api.TunnelStatus, error) {
	bridges, err := d.chosen(bridge)
	if err != nil {
		return nil, err
	}
	all := []api.TunnelStatus{}
	for _, b := range bridges {
		sb, err := d.sw.Bridge(b.Name)
		if err != nil {
			continue // removed this moment
		}
		all = append(all, d.reconciler.tunnelsOf(sb)...)
	}
	return all, nil
}

// tunnelsOf returns the tunnels of a bridge.
func (r *reconciler) tunnelsOf(sb vswitch.BridgeStats) (all []api.TunnelStatus) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, sp := range sb.Ports {
		p := r.ports[sp.Name]
		if p == nil || p.tunnel == nil || p.state == api.PortSelf {
			continue
		}
		st := tunnelStatus(p)
		st.Bridge, st.Port, st.Type = sb.Name, p.port.Name, string(p.port.Object())
		st.State, st.Reason, st.Since = p.state, p.reason, p.since
		st.Counters = portCounters(sp.Counters)
		all = append(all, *st)
	}
	return all
}

// tunnelStatus is what is true of a tunnel port beyond what is of any; nil for
// another port.
func tunnelStatus(p *portState) *api.TunnelStatus {
	o, ok := p.port.Tunnel()
	if !ok || p.tunnel == nil {
		return nil
	}
	t := p.tunnel
	st := &api.TunnelStatus{Mesh: p.port.Mesh, Remote: o.Remote, PathMTU: t.path, BFD: t.session.status()}
	if t.path != 0 {
		st.MTU = t.mtu
	}
	if t.remote.IsValid() {
		st.RemoteAddr = t.remote.String()
	}
	if o.Local.IsValid() {
		st.LocalAddr = o.Local.String()
	}
	if t.endpoint != nil {
		st.Endpoint = t.endpoint.Name()
	}
	if o.Type != config.GREPort || o.InKey != 0 {
		st.InKey = &o.InKey
	}
	if o.Type != config.GREPort || o.OutKey != 0 {
		st.OutKey = &o.OutKey
	}
	st.LastHeard = t.heard()
	if t.port != nil {
		s := t.port.Stats()
		st.ControlRx, st.ControlTx, st.OptionsSkipped, st.SequenceGaps, st.SequenceLate = s.RxControl, s.TxControl, s.Options, s.Gaps, s.Late
	}
	return st
}

// heard tells when the other end was heard last; nil: never.
func (t *tunnelPort) heard() *time.Time {
	if t.port == nil {
		return nil
	}
	if at := t.port.LastHeard(); !at.IsZero() {
		return &at
	}
	return nil
}

func bfdStatus(s bfd.Status) *api.BFDStatus {
	return &api.BFDStatus{
		State: s.State.String(), RemoteState: s.RemoteState.String(), Diag: s.Diag.String(), RemoteDiag: s.RemoteDiag.String(),
		MinRx: int(s.MinRx / time.Millisecond), MinTx: int(s.MinTx / time.Millisecond), Flaps: s.Flaps, Since: s.Since,
	}
}

// Meshes is described at api.Service.
func (d *Daemon) Meshes(_ context.Context, name string) ([]api.MeshStatus, error) {
	_, doc := d.store.View()
	if name != "" && doc.Mesh(name) == nil {
		return nil, unknown("mesh", name)
	}
	r := d.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	all := []api.MeshStatus{}
	for _, m := range doc.Meshes {
		if name != "" && m.Name != name {
			continue
		}
		st := api.MeshStatus{Name: m.Name, Bridge: m.Options.Text("bridge"), Options: m.Options.Typed(), Peers: []api.MeshPeer{}}
		for _, peer := range m.Options.List("peers") {
			st.Peers = append(st.Peers, r.peerLocked(config.MeshPort(m.Name, peer), peer))
		}
		all = append(all, st)
	}
	return all, nil
}

// peerLocked tells of a mesh's peer, to which a port leads.
func (r *reconciler) peerLocked(port, peer string) api.MeshPeer {
	st := api.MeshPeer{Peer: peer, Port: port, State: api.PortWaiting}
	p := r.ports[port]
	if p == nil || p.tunnel == nil {
		return st
	}
	st.State, st.Reason, st.Since = p.state, p.reason, p.since
	if p.tunnel.remote.IsValid() {
		st.Address = p.tunnel.remote.String()
	}
	if p.state == api.PortSelf {
		st.Port, st.Reason = "", ""
		return st
	}
	st.BFD, st.LastHeard = p.tunnel.session.status(), p.tunnel.heard()
	return st
}

// endpointDrops tells of tunnel packets that belong to no port.
func (d *Daemon) endpointDrops() (all []api.Drop) {
	r := d.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, e := range r.tunnels.endpoints {
		for _, x := range e.Drops() {
			drop := api.Drop{Port: e.Name(), Reason: x.Reason, Source: x.Source, Count: x.Count, LastSeen: x.Last, Help: x.Help}
			if x.Head != nil {
				drop.LastFrame = summary.Of(x.Head, x.Len)
			}
			all = append(all, drop)
		}
		if n := e.Missed(); n > 0 {
			all = append(all, api.Drop{Port: e.Name(), Reason: vswitch.DropMissed.String(), Count: n, Help: vswitch.DropMissed.Help()})
		}
	}
	return all
}

// flaps returns the MACs of a bridge that are held, since they flapped.
func (d *Daemon) flaps(bridge string) (all []api.FDBFlap) {
	flaps, err := d.sw.FDBFlaps(bridge)
	if err != nil {
		return nil
	}
	now := d.sw.Now()
	for _, f := range flaps {
		if int32(f.Until-now) <= 0 {
			continue
		}
		all = append(all, api.FDBFlap{
			VLAN: int(f.VLAN), MAC: net.HardwareAddr(f.MAC[:]).String(), Held: f.Held, Other: f.Other, Count: f.Count, Until: d.sw.Time(f.Until),
		})
	}
	slices.SortFunc(all, func(a, b api.FDBFlap) int {
		return strings.Compare(fmt.Sprint(a.VLAN, a.MAC), fmt.Sprint(b.VLAN, b.MAC))
	})
	return all
}
