package ctl

import (
	"context"
	"slices"
	"time"

	"vswitch/ctl/config"
	"vswitch/plug/docker"
	"vswitch/plug/held"
)

// dockerAgain is how long it is before a socket that could not be listened at is tried again.
const dockerAgain = 5 * time.Second

// dockerNet is the daemon as Docker's network driver sees it.
type dockerNet struct{ d *Daemon }

var _ docker.Switch = dockerNet{}

// Hold is described at docker.Switch. Ports of the host are published, and free again, when it
// returns: Docker takes them from one endpoint and gives them to another in one go, when the
// container's default route moves, and the driver looks whether they are free.
func (n dockerNet) Hold(_ context.Context, put []held.Item, del []string) error {
	changes := n.publishes(put, del)
	if err := n.d.hold(put, docker.Owner, del); err != nil {
		return err
	}
	if changes {
		n.d.plugs.gateways.apply()
	}
	return nil
}

// publishes says whether these items publish other ports than are published now.
func (n dockerNet) publishes(put []held.Item, del []string) bool {
	ports := func(i held.Item) (all string) {
		for _, p := range i.Ports {
			all += p.Options["publish"]
		}
		return all
	}
	now := func(key string) string {
		i, _ := n.d.plugs.held.Get(docker.Owner, key)
		return ports(i)
	}
	return slices.ContainsFunc(put, func(i held.Item) bool { return ports(i) != now(i.Key) }) ||
		slices.ContainsFunc(del, func(key string) bool { return now(key) != "" })
}

// Held is described at docker.Switch.
func (n dockerNet) Held() []held.Item { return n.d.plugs.held.List(docker.Owner) }

// Bridge is described at docker.Switch.
func (n dockerNet) Bridge(name string) (config.Bridge, bool) {
	doc := n.d.current()
	if b := doc.Bridge(name); b != nil {
		return *b, true
	}
	return config.Bridge{}, false
}

// MeshBridge is described at docker.Switch.
func (n dockerNet) MeshBridge(mesh string) (string, bool) {
	doc := n.d.current()
	if m := doc.Mesh(mesh); m != nil {
		return m.Text("bridge"), true
	}
	return "", false
}

// MTU is described at docker.Switch.
func (n dockerNet) MTU(bridge string, tagged bool) int {
	r := n.d.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	mtu := mtuOf(r.plugMTUsLocked(), bridge)
	if tagged && mtu < kernelMTU {
		mtu -= 4 // a tunnel carries the tag, too, as for a plug that has one (Daemon.want)
	}
	return mtu
}

// Alias is described at docker.Switch.
func (n dockerNet) Alias(port string) string { return n.d.plugs.alias(port) }

// Published is described at docker.Switch.
func (n dockerNet) Published() map[string][]config.Publish {
	all := map[string][]config.Publish{}
	for _, b := range n.d.current().Bridges {
		for _, p := range b.Ports {
			if g, ok := p.Plug(); ok && len(g.Publish) > 0 {
				all[p.Name] = g.Publish
			}
		}
	}
	return all
}

// runDocker answers Docker until ctx ends, where the operator wants it.
func (d *Daemon) runDocker(ctx context.Context) {
	socket := d.plugs.o.DockerPlugin
	if socket == "" {
		return
	}
	driver := docker.New(docker.Options{Switch: dockerNet{d}, Leases: d.plugs.leases, Docker: d.plugs.o.Docker, Log: d.log})
	d.running.Go(func() { driver.Collect(ctx) }) // these end
	d.running.Go(func() {                        // with ctx
		for ctx.Err() == nil {
			well := time.AfterFunc(time.Second, func() { d.plugs.dockerErr.Store(nil) }) // it would have failed by now
			err := driver.Serve(ctx, socket)
			well.Stop()
			if err == nil {
				return
			}
			text := err.Error()
			if was := d.plugs.dockerErr.Swap(&text); was == nil || *was != text {
				d.log.Error("Docker is not answered", "err", err)
			}
			select {
			case <-ctx.Done():
			case <-time.After(dockerAgain):
			}
		}
	})
}

// warnings are what gateways and Docker's plug-in complain of.
func (p *plugs) warnings() []string {
	all := p.gateways.warnings()
	if text := p.db.warning(); text != "" {
		all = append(all, text)
	}
	if text := p.dockerErr.Load(); text != nil {
		all = append(all, "Docker: "+*text)
	}
	return all
}
