package ctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/plug"
	"vswitch/plug/docker"
	"vswitch/plug/held"
	"vswitch/plug/ipam"
	"vswitch/plug/runtimes"
	wireroom "vswitch/plug/wire"
)

// The calls of api.PlugService for operators. Those for runtimes are in attachments.go.

// Plug is described at api.PlugService. The container is plugged in before the document
// says so: what cannot be plugged never gets into it, and a crash in between leaves a pair
// and a lease that the next start takes away.
func (d *Daemon) Plug(ctx context.Context, q api.PlugRequest) (api.PlugResult, error) {
	c, err := d.plugs.runtimes.Find(ctx, q.Container)
	if err != nil {
		return api.PlugResult{}, plugError(err, "container", q.Container)
	}
	if c.Host {
		return api.PlugResult{}, &api.Error{Status: 409, Field: "container", Value: q.Container, Message: fmt.Sprintf(
			"%s uses the host's own network: it needs no plug, and nothing can be plugged into it", c.Ref)}
	}
	res := api.PlugResult{}
	ref := c.Ref
	options := config.Options{}
	for name, value := range q.Options {
		options[name] = value
	}
	if c.SharesWith != (config.ContainerRef{}) {
		ref = c.SharesWith
		res.Note = fmt.Sprintf("%s shares the network of %s: one plug serves both", c.Ref, ref)
	}
	options["container"] = ref.String()
	ifname := options["ifname"]
	if ifname == "" {
		ifname = config.Options{}.Text("ifname")
	}
	if !c.Running {
		res.Note = strings.TrimPrefix(res.Note+"; "+fmt.Sprintf("%s does not run: it is plugged in when it starts", ref), "; ")
	}
	made := ""
	edit, err := d.change(q.Comment, 0, false, func(doc config.Document) (config.Document, error) {
		op := config.Op{Op: "add-port", Bridge: q.Bridge, Port: q.Port, Options: options, MayExist: q.MayExist}
		shares := c.SharesWith != (config.ContainerRef{})
		if b, p := plugOf(doc, ref, ifname); p != nil && (b.Name == q.Bridge && (q.MayExist || shares)) {
			op.Port, op.MayExist = p.Name, true
		} else if p != nil {
			return doc, &api.Error{Status: 409, Field: "ifname", Value: ifname, Message: fmt.Sprintf(
				"%s of %s is plugged into %s already, as port %s: name another interface with --ifname, or unplug it first", ifname, ref, b.Name, p.Name)}
		}
		whole, _ := d.plugs.expand(doc)
		if b, p := plugOf(whole, ref, ifname); p != nil && portOf(doc, p.Name) == nil {
			i, _ := d.heldPort(p.Name)
			return doc, &api.Error{Status: 409, Field: "ifname", Value: ifname, Message: fmt.Sprintf(
				"%s of %s is plugged into %s by %s: name another interface with --ifname", ifname, ref, b.Name, i.Owner)}
		}
		if op.Port == "" {
			op.Port = config.PlugName(ref, ifname)
		}
		if shares {
			options["alias"] = withAlias(doc, q.Bridge, op.Port, options["alias"], c.Ref.Short())
		}
		options["type"] = string(config.PlugPort)
		next, err := config.Apply(doc, []config.Op{op})
		if err != nil {
			return doc, d.whose(doc, []config.Op{op}, refused(err))
		}
		made = op.Port
		if !c.Running {
			return next, nil
		}
		known := c
		known.Ref = ref
		return next, d.plugNow(ctx, next, q.Bridge, op.Port, &known)
	})
	if err != nil {
		if made != "" {
			d.undoPlug(made)
		}
		return api.PlugResult{}, err
	}
	d.plugs.gateways.apply()
	res.Version, res.Changed = edit.Version, edit.Changed
	list, err := d.Plugged(ctx, q.Bridge)
	for _, p := range list {
		if p.Port == made {
			res.Plug = p
		}
	}
	return res, err
}

// undoPlug makes a port what the document says, after a change that did not come into it.
func (d *Daemon) undoPlug(port string) {
	d.edit.Lock()
	defer d.edit.Unlock()
	if doc := d.current(); portOf(doc, port) == nil {
		d.plugs.keeper.Forget(port)
		return
	}
	d.reapply()
}

// plugNow plugs a port of doc in, which is not the desired document yet.
func (d *Daemon) plugNow(ctx context.Context, doc config.Document, bridge, port string, c *runtimes.Container) error {
	expanded, _ := d.plugs.expand(doc)
	b := expanded.Bridge(bridge)
	p := b.Port(port)
	if p == nil {
		return &api.Error{Status: 409, Field: "port", Value: port, Message: fmt.Sprintf("the name %s is taken", port)}
	}
	d.reconciler.mu.Lock()
	common := d.bridgePlugsLocked(b, d.reconciler.plugMTUsLocked())
	d.reconciler.mu.Unlock()
	w, ok := d.want(common, *p)
	if !ok {
		return nil
	}
	if _, err := d.plugs.keeper.Now(ctx, w, c); err != nil {
		return plugError(err, "container", p.Options["container"])
	}
	return nil
}

// plugOf finds the plug of a container with an interface of that name.
func plugOf(doc config.Document, ref config.ContainerRef, ifname string) (*config.Bridge, *config.Port) {
	for i := range doc.Bridges {
		b := &doc.Bridges[i]
		for j := range b.Ports {
			if g, ok := b.Ports[j].Plug(); ok && g.Container == ref && g.IfName == ifname {
				return b, &b.Ports[j]
			}
		}
	}
	return nil, nil
}

func portOf(doc config.Document, port string) *config.Port {
	for i := range doc.Bridges {
		if p := doc.Bridges[i].Port(port); p != nil {
			return p
		}
	}
	return nil
}

// withAlias adds a name to those that a plug has, or is to have.
func withAlias(doc config.Document, bridge, port, asked, name string) string {
	have := asked
	if b := doc.Bridge(bridge); b != nil && have == "" {
		if p := b.Port(port); p != nil {
			have = p.Options["alias"]
		}
	}
	words := strings.FieldsFunc(have, func(r rune) bool { return r == ',' })
	name = strings.ToLower(name)
	if o, err := config.Lookup(config.PlugPort, "alias"); err == nil && !slices.Contains(words, name) {
		if _, err := o.Canonical(name); err != nil {
			return have // it is no name that DNS has
		}
		words = append(words, name)
	}
	return strings.Join(words, ",")
}

// plugError makes what a plug met an answer to the client.
func plugError(err error, field, value string) error {
	e := &api.Error{Status: 409, Message: err.Error(), Field: field, Value: value}
	var known *api.Error
	var bad *config.Error
	switch {
	case errors.As(err, &known):
		return err
	case errors.As(err, &bad):
		return refused(err)
	case errors.Is(err, runtimes.ErrUnknown):
		e.Status = 404
	case errors.Is(err, runtimes.ErrNoAnswer):
		e.Status = 503
	case errors.Is(err, wireroom.ErrTaken):
		e.Field, e.Value = "ifname", ""
	case errors.Is(err, ipam.ErrTaken), errors.Is(err, ipam.ErrFull):
		e.Field, e.Value = "ip", ""
	}
	return e
}

// Unplug is described at api.PlugService.
func (d *Daemon) Unplug(ctx context.Context, q api.UnplugRequest) (api.UnplugResult, error) {
	refs := d.meant(ctx, q.Container)
	var res api.UnplugResult
	if i, ok := d.heldPort(q.Container); ok && i.Owner != docker.Owner {
		// What a runtime attached and forgot: the operator names its port.
		res.Version, _ = d.store.View()
		res.Ports = []string{q.Container}
		return res, d.Detach(ctx, i.Owner, i.Key)
	}
	edit, err := d.change(q.Comment, 0, false, func(doc config.Document) (config.Document, error) {
		var ops []config.Op
		var where, elsewhere []string
		for _, b := range doc.Bridges {
			for _, p := range b.Ports {
				g, ok := p.Plug()
				if !ok || p.Name != q.Container && !slices.ContainsFunc(refs, func(r config.ContainerRef) bool {
					return r == g.Container || r.Kind == "" && r.Name == g.Container.Name || r.Kind == g.Container.Kind && r.Name == g.Container.Name && r.Start == 0
				}) {
					continue
				}
				is := fmt.Sprintf("%s of %s in %s", g.IfName, g.Container, b.Name)
				if q.Bridge != "" && q.Bridge != b.Name || q.IfName != "" && q.IfName != g.IfName {
					elsewhere = append(elsewhere, is)
					continue
				}
				ops = append(ops, config.Op{Op: "del-port", Bridge: b.Name, Port: p.Name})
				where = append(where, is)
			}
		}
		var by api.PlugStatus
		if len(ops) == 0 {
			by = d.byRuntime(q)
		}
		switch {
		case len(ops) == 0 && q.IfExists:
			return doc, nil
		case len(ops) == 0 && len(elsewhere) > 0:
			return doc, &api.Error{Status: 404, Field: "container", Value: q.Container, Message: fmt.Sprintf(
				"%s is not plugged in like that; it has %s", q.Container, strings.Join(elsewhere, ", "))}
		case len(ops) == 0 && by.Owner == docker.Owner:
			return doc, &api.Error{Status: 409, Field: "container", Value: q.Container, Message: fmt.Sprintf(
				"%s is plugged in by Docker: docker network disconnect takes it away", q.Container)}
		case len(ops) == 0 && by.Owner != "":
			return doc, &api.Error{Status: 409, Field: "container", Value: q.Container, Message: fmt.Sprintf(
				"%s is plugged in by %s, which takes it away; if that forgot it, name the port: unplug %s", q.Container, by.Owner, by.Port)}
		case len(ops) == 0:
			return doc, &api.Error{Status: 404, Field: "container", Value: q.Container, Message: fmt.Sprintf("%s is not plugged in%s; plugged lists what is", q.Container, inBridge(q.Bridge))}
		case len(ops) > 1 && !q.All:
			return doc, &api.Error{Status: 409, Field: "container", Value: q.Container, Message: fmt.Sprintf(
				"%s has %d plugs: %s; name the bridge or the interface, or take all with --all", q.Container, len(ops), strings.Join(where, ", "))}
		}
		for _, op := range ops {
			res.Ports = append(res.Ports, op.Port)
		}
		next, err := config.Apply(doc, ops)
		return next, refused(err)
	})
	if err != nil {
		return api.UnplugResult{}, err
	}
	d.plugs.keeper.Quiet(quietLimit)
	d.plugs.gateways.apply()
	res.Version = edit.Version
	if res.Ports == nil {
		res.Ports = []string{}
	}
	return res, nil
}

// byRuntime is what a runtime plugged in, where that is what shall be unplugged; else empty.
func (d *Daemon) byRuntime(q api.UnplugRequest) api.PlugStatus {
	list, _ := d.Plugged(context.Background(), "")
	for _, p := range list {
		ref, err := config.ParseContainer(p.Container)
		if p.Owner != "" && (p.Port == q.Container || p.Container == q.Container || err == nil && ref.Short() == q.Container || slices.Contains(p.Names, q.Container)) {
			return p
		}
	}
	return api.PlugStatus{}
}

func inBridge(bridge string) string {
	if bridge == "" {
		return ""
	}
	return " to " + bridge
}

// meant are the containers that a word may stand for: also one that is gone, or whose
// runtime does not answer, can be unplugged.
func (d *Daemon) meant(ctx context.Context, word string) (refs []config.ContainerRef) {
	if c, err := config.ParseContainer(word); err == nil {
		refs = append(refs, c)
	}
	if c, err := d.plugs.runtimes.Find(ctx, word); err == nil {
		refs = append(refs, c.Ref)
		if c.SharesWith != (config.ContainerRef{}) {
			refs = append(refs, c.SharesWith)
		}
	}
	return refs
}

// quietLimit is how long a change waits for what it does to plugs.
const quietLimit = 1500 * time.Millisecond

// Plugged is described at api.PlugService.
func (d *Daemon) Plugged(_ context.Context, bridge string) ([]api.PlugStatus, error) {
	doc := d.current()
	if bridge != "" && doc.Bridge(bridge) == nil {
		return nil, unknown("bridge", bridge)
	}
	var all []api.PlugStatus
	items, now := d.heldPorts(), d.plugs.portsSeen.ask(recentLimit)
	for i := range doc.Bridges {
		b := &doc.Bridges[i]
		if bridge != "" && b.Name != bridge {
			continue
		}
		for _, p := range b.Ports {
			if g, ok := p.Plug(); ok {
				all = append(all, d.plugStatusAt(now, b, p, g, items[p.Name]))
			}
		}
	}
	return all, nil
}

// plugPort is what is told of a plug's port.
type plugPort struct {
	state, reason string
	mtu           int
}

// plugPort is what the switch has of a plug; now is false for what it had before the apply
// that is under way.
func (d *Daemon) plugPort(name string, now bool) plugPort {
	if all := d.plugs.ports.Load(); all != nil {
		if p, ok := (*all)[name]; ok {
			return p
		}
	}
	if !now {
		return plugPort{state: api.PortWaiting, reason: "the port does not exist yet: a change is under way"}
	}
	return plugPort{state: api.PortWaiting, reason: "the port does not exist yet"}
}

// seePlugPorts notes what the switch has of plugs.
func (d *Daemon) seePlugPorts() {
	r := d.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	all := map[string]plugPort{}
	for name, p := range r.ports {
		if p.port.Object() == config.PlugPort {
			all[name] = plugPort{p.state, p.reason, p.link.MTU}
		}
	}
	d.plugs.ports.Store(&all)
}

// containerOf is what a plug's container is called: an endpoint of Docker's has its
// container's name once Docker told it.
func containerOf(g config.Plug) string {
	if g.Container.Kind == config.RuntimeContainer && len(g.Aliases) > 0 {
		return docker.Owner + ":" + g.Aliases[0]
	}
	return g.Container.String()
}

// plugStatusAt is what is true of a plug; now is what who asked for ports was told, item whom
// the plug was made for, or empty.
func (d *Daemon) plugStatusAt(now bool, b *config.Bridge, p config.Port, g config.Plug, item held.Item) api.PlugStatus {
	s := api.PlugStatus{Bridge: b.Name, Port: p.Name, Container: containerOf(g), IfName: g.IfName, Options: p.Options.Typed()}
	s.Owner, s.Since = item.Owner, item.Since
	if g.Container.Kind == config.RuntimeContainer { // who named and moved the interface itself
		s.IfName = ""
	}
	seen := d.plugPort(p.Name, now)
	state, reason := seen.state, seen.reason
	s.MTU = seen.mtu
	st, kept := d.plugs.keeper.State(p.Name)
	if !kept {
		s.State, s.Addresses, s.Gateways = plug.Plugged, g.Addresses, g.Gateways
		if g.MAC != nil {
			s.MAC = g.MAC.String()
		}
		s.Names = namesOf(g, nil)
	} else {
		s.State, s.Reason, s.Since = st.State, st.Reason, st.Since
		s.Addresses, s.Gateways, s.MTU, s.NetNS = st.Addresses, st.Gateways, st.MTU, st.NetNS
		s.Names = namesOf(g, st.Names)
		if st.MAC != nil {
			s.MAC = st.MAC.String()
		}
	}
	if s.State == plug.Plugged && state != api.PortUp {
		// Its interface is there, and the switch does not have it.
		s.State, s.Reason = map[bool]string{true: api.PlugError, false: api.PlugWaiting}[state == api.PortError], reason
	}
	return s
}

// Published is described at api.PlugService.
func (d *Daemon) Published(_ context.Context, bridge string) ([]api.PublishStatus, error) {
	if doc := d.current(); bridge != "" && doc.Bridge(bridge) == nil {
		return nil, unknown("bridge", bridge)
	}
	d.plugs.rulesMade.ask(recentLimit) // what has just been changed counts, too
	return slices.DeleteFunc(d.plugs.gateways.list(), func(p api.PublishStatus) bool { return bridge != "" && p.Bridge != bridge }), nil
}

// Leases is described at api.PlugService.
func (d *Daemon) Leases(_ context.Context, bridge string) ([]api.LeaseStatus, error) {
	all := []api.LeaseStatus{}
	for _, l := range d.plugs.leases.Leases(bridge) {
		all = append(all, api.LeaseStatus{Bridge: l.Pool, Address: l.Addr, Owner: l.Owner, Since: l.Since})
	}
	// Addresses of a pool of Docker's are not a bridge's.
	if doc := d.current(); len(all) == 0 && bridge != "" && doc.Bridge(bridge) == nil {
		return nil, unknown("bridge", bridge)
	}
	return all, nil
}
