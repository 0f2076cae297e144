package ctl

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/mesh"
	"vswitch/plug/docker"
	"vswitch/plug/held"
)

// The calls of api.PlugService for runtimes, and what else they have held.

// hold puts items, takes keys of one owner away, and makes it true: all or none.
func (d *Daemon) hold(put []held.Item, owner string, del []string) error {
	d.edit.Lock()
	defer d.edit.Unlock()
	return d.holdLocked(put, owner, del)
}

func (d *Daemon) holdLocked(put []held.Item, owner string, del []string) error {
	if d.closed {
		return &api.Error{Status: 503, Message: "the daemon is ending; nothing was changed"}
	}
	if err := d.fits(put, owner, del); err != nil {
		return err
	}
	if err := d.plugs.held.Change(put, owner, del); err != nil {
		return &api.Error{Status: 503, Message: err.Error() + "; nothing was changed"}
	}
	d.reapply()
	return nil
}

// fits refuses items that the document would have no place for.
func (d *Daemon) fits(put []held.Item, owner string, del []string) error {
	before := d.plugs.held.List("")
	items := slices.DeleteFunc(slices.Clone(before), func(i held.Item) bool {
		return i.Owner == owner && slices.Contains(del, i.Key) ||
			slices.ContainsFunc(put, func(p held.Item) bool { return p.Owner == i.Owner && p.Key == i.Key })
	})
	doc, _ := d.reconciler.followed()
	_, misfits := held.Expand(mesh.Expand(doc), append(items, put...))
	for _, m := range misfits {
		if slices.ContainsFunc(put, func(p held.Item) bool { return p.Owner == m.Owner && p.Key == m.Key }) {
			return &api.Error{Status: 409, Message: m.Why}
		}
	}
	if len(put) == 0 {
		return nil
	}
	was, is := judged(doc, before), judged(doc, append(items, put...))
	if err := is.Validate(); err != nil && was.Validate() == nil {
		return &api.Error{Status: 409, Message: err.Error()}
	}
	return nil
}

func (d *Daemon) release(owner string, keys ...string) error { return d.hold(nil, owner, keys) }

// displaced refuses a change of the document that would take the place of what a runtime
// asked for: its bridge, or a name.
func (d *Daemon) displaced(old, doc config.Document) error {
	_, had := d.plugs.expand(mesh.Expand(old))
	_, has := d.plugs.expand(mesh.Expand(doc))
	for _, m := range has {
		if slices.Contains(had, m) {
			continue
		}
		hint := "unplug it first"
		if m.Owner == docker.Owner {
			hint = "remove the network or the container with docker first"
		}
		return &api.Error{Status: 409, Message: fmt.Sprintf("%s needs what this would change (%s, for %s): %s", m.Owner, m.Why, m.Key, hint)}
	}
	items := d.plugs.held.List("")
	if len(items) == 0 {
		return nil
	}
	was, is := judged(old, items), judged(doc, items)
	if err := is.Validate(); err != nil && was.Validate() == nil {
		return &api.Error{Status: 409, Message: "with what runtimes asked for: " + err.Error()}
	}
	return nil
}

// Attach is described at api.PlugService.
func (d *Daemon) Attach(ctx context.Context, q api.Attachment) (api.Attached, error) {
	item, err := d.attach(ctx, q)
	if err != nil {
		return api.Attached{}, err
	}
	d.plugs.gateways.apply()
	return d.attached(d.plugs.portsSeen.ask(recentLimit), item)
}

// attach judges, plugs in and keeps what a runtime asks for, under one lock: two that ask at
// once for one address shall not both have it.
func (d *Daemon) attach(ctx context.Context, q api.Attachment) (held.Item, error) {
	d.edit.Lock()
	defer d.edit.Unlock()
	if d.closed {
		return held.Item{}, &api.Error{Status: 503, Message: "the daemon is ending; nothing was changed"}
	}
	item, err := d.attachment(q)
	if err != nil {
		return item, err
	}
	old, had := d.plugs.held.Get(item.Owner, item.Key)
	if had {
		item.Since = old.Since
	}
	if err := d.attachNow(ctx, item); err != nil {
		return item, err
	}
	if err := d.holdLocked([]held.Item{item}, "", nil); err != nil {
		if !had {
			d.plugs.keeper.Forget(item.Ports[0].Name)
		} else {
			d.reapply() // as it was
		}
		return item, err
	}
	return item, nil
}

// attachNow plugs an item's port in, before it is held.
func (d *Daemon) attachNow(ctx context.Context, item held.Item) error {
	doc, _ := d.reconciler.followed()
	items := slices.DeleteFunc(d.plugs.held.List(""), func(i held.Item) bool { return i.Owner == item.Owner && i.Key == item.Key })
	expanded, misfits := held.Expand(doc, append(items, item))
	for _, m := range misfits {
		if m.Owner == item.Owner && m.Key == item.Key {
			return &api.Error{Status: 404, Field: "bridge", Value: item.Bridge, Message: m.Why}
		}
	}
	b := expanded.Bridge(item.Bridge)
	d.reconciler.mu.Lock()
	common := d.bridgePlugsLocked(b, d.reconciler.plugMTUsLocked())
	d.reconciler.mu.Unlock()
	w, ok := d.want(common, item.Ports[0])
	if !ok {
		return &api.Error{Status: 400, Field: "netns", Message: "netns: not a network namespace that can be plugged"}
	}
	w.Owner = item.Owner
	if _, err := d.plugs.keeper.Now(ctx, w, nil); err != nil { // a path: no runtime is asked
		return plugError(err, "netns", item.Ports[0].Options["container"])
	}
	return nil
}

// attachment is what a runtime asks for, as an item. It is judged as if the operator had
// written it.
func (d *Daemon) attachment(q api.Attachment) (held.Item, error) {
	bad := func(field, value, format string, args ...any) error {
		return &api.Error{Status: 400, Field: field, Value: value, Message: field + ": " + fmt.Sprintf(format, args...)}
	}
	const maxKey = 512
	switch {
	case q.Owner == "" || q.Owner == docker.Owner || len(q.Owner) > 32:
		return held.Item{}, bad("owner", q.Owner, "%q is not a runtime that attaches: want its name, such as cni", q.Owner)
	case q.Key == "" || len(q.Key) > maxKey:
		return held.Item{}, bad("key", q.Key, "want 1 to %d bytes", maxKey)
	case !printable(q.Owner) || !printable(q.Key):
		return held.Item{}, bad("key", fmt.Sprintf("%q", q.Key), "owner and key want characters that can be printed")
	}
	ref, err := config.ParseContainer(q.NetNS)
	if err != nil || ref.Kind != config.PathContainer {
		return held.Item{}, bad("netns", q.NetNS, "%q is not the path of a network namespace", q.NetNS)
	}
	options := config.Options{"type": string(config.PlugPort)}
	for name, value := range q.Options {
		options[name] = value
	}
	options["container"] = ref.String()
	if q.IfName != "" {
		options["ifname"] = q.IfName
	}
	doc, _ := d.reconciler.followed()
	name := config.PlugName(config.ContainerRef{Kind: q.Owner, Name: q.Key}, q.IfName)
	// On a document that has all the others, so that addresses and ports that are taken are seen.
	others := slices.DeleteFunc(d.plugs.held.List(""), func(i held.Item) bool { return i.Owner == q.Owner && i.Key == q.Key })
	whole := judged(doc, others)
	next, err := config.Apply(whole, []config.Op{{Op: "add-port", Bridge: q.Bridge, Port: name, Options: options}})
	if all := whole.Clone(); err != nil && all.Validate() != nil { // that is another's trouble
		next, err = config.Apply(doc, []config.Op{{Op: "add-port", Bridge: q.Bridge, Port: name, Options: options}})
	}
	if err != nil {
		return held.Item{}, refused(err)
	}
	return held.Item{Owner: q.Owner, Key: q.Key, Bridge: q.Bridge, Ports: []config.Port{*next.Bridge(q.Bridge).Port(name)}, Since: time.Now()}, nil
}

// judged is a document with what runtimes asked for that can be judged like an operator's:
// whom they plug by themselves is no user's to name, and left out. It shares nothing.
func judged(doc config.Document, items []held.Item) config.Document {
	whole, _ := held.Expand(doc, items)
	whole = whole.Clone()
	for i := range whole.Bridges {
		whole.Bridges[i].Ports = slices.DeleteFunc(whole.Bridges[i].Ports, func(p config.Port) bool {
			g, ok := p.Plug()
			return ok && g.Container.Kind == config.RuntimeContainer
		})
	}
	return whole
}

func printable(s string) bool {
	return utf8.ValidString(s) && !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) })
}

// attached is what became of an item; now is what who asked for ports was told.
func (d *Daemon) attached(now bool, i held.Item) (api.Attached, error) {
	a := api.Attached{Owner: i.Owner, Key: i.Key}
	p := i.Ports[0]
	g, _ := p.Plug()
	b := &config.Bridge{Name: i.Bridge}
	a.Plug = d.plugStatusAt(now, b, p, g, i)
	return a, nil
}

// Detach is described at api.PlugService.
func (d *Daemon) Detach(_ context.Context, owner, key string) error {
	if owner == docker.Owner {
		return &api.Error{Status: 400, Field: "owner", Value: owner, Message: "owner: what Docker asked for goes with docker network rm and disconnect"}
	}
	if _, ok := d.plugs.held.Get(owner, key); !ok {
		return nil
	}
	if err := d.release(owner, key); err != nil {
		return err
	}
	d.plugs.keeper.Quiet(quietLimit)
	d.plugs.gateways.kick()
	return nil
}

// Attachments is described at api.PlugService.
func (d *Daemon) Attachments(_ context.Context, owner string) ([]api.Attached, error) {
	var all []api.Attached
	items, now := d.plugs.held.List(owner), d.plugs.portsSeen.ask(recentLimit)
	for _, i := range items {
		if i.Owner == docker.Owner || len(i.Ports) == 0 {
			continue
		}
		a, err := d.attached(now, i)
		if err != nil {
			return nil, err
		}
		all = append(all, a)
	}
	return all, nil
}

// CollectAttachments is described at api.PlugService.
func (d *Daemon) CollectAttachments(_ context.Context, q api.Collect) (api.Collected, error) {
	res := api.Collected{Keys: []string{}}
	if q.Owner == "" || q.Owner == docker.Owner {
		return res, &api.Error{Status: 400, Field: "owner", Value: q.Owner, Message: fmt.Sprintf("owner: %q has no attachments to collect", q.Owner)}
	}
	valid := make(map[string]bool, len(q.Valid))
	for _, key := range q.Valid {
		valid[key] = true
	}
	for _, i := range d.plugs.held.List(q.Owner) {
		if (q.Bridge == "" || q.Bridge == i.Bridge) && !valid[i.Key] {
			res.Keys = append(res.Keys, i.Key)
		}
	}
	if len(res.Keys) == 0 {
		return res, nil
	}
	if err := d.release(q.Owner, res.Keys...); err != nil {
		return api.Collected{}, err
	}
	d.plugs.keeper.Quiet(quietLimit)
	d.plugs.gateways.kick()
	return res, nil
}
