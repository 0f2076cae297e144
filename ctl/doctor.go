package ctl

import (
	"context"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ctl/doctor"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// Doctor is described at api.Service.
func (d *Daemon) Doctor(ctx context.Context, q api.DoctorQuery) (api.Doctor, error) {
	return d.doctor.Visit(ctx, q)
}

// examined is the daemon as its doctor sees it: a doctor.Host.
type examined struct{ *Daemon }

func (e examined) Desired(bridge string) ([]config.Bridge, error) { return e.chosen(bridge) }

func (e examined) StoreWarnings() []string { return e.store.Warnings() }

func (e examined) ContainerWarnings() []string { return e.plugs.warnings() }

func (e examined) Conflicts(bridge string, since time.Time) []api.Neighbor {
	return e.seen.neighbors.list(func(k neighborKey, n *neighbor) bool {
		return n.conflict != nil && n.conflict.last.After(since) && (bridge == "" || bridge == k.bridge)
	})
}

func (e examined) Echo(ctx context.Context, port string, n int, within time.Duration) (took time.Duration, ok bool) {
	v, _, _ := e.probes.vlanOf(port)
	return e.probes.echo(ctx, port, echoTag(v), n, within)
}

func (e examined) IsPort(port string, l ports.Link) bool {
	r := e.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.ports[port]
	return p != nil && (p.link.Index == l.Index || port == l.Name)
}

func (e examined) IsStopped(index int) bool {
	r := e.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.ports {
		if p.stop != nil && p.link.Index == index {
			return true
		}
	}
	return false
}

func (e examined) Losses() (missed map[string]uint64, tables map[string]doctor.Table) {
	missed, tables = map[string]uint64{}, map[string]doctor.Table{}
	for _, x := range e.endpointDrops() {
		if x.Reason == vswitch.DropMissed.String() {
			missed[x.Port] += x.Count
		}
	}
	bridges, err := e.portsOf("", "")
	if err != nil {
		return missed, tables
	}
	for i := range bridges {
		tables[bridges[i].Name] = doctor.Table{Size: bridges[i].FDB.Size, Evicted: bridges[i].FDB.Evicted}
	}
	return missed, tables
}
