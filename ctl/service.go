package ctl

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ctl/store"
	"vswitch/ports"
)

// The calls of Service that change the desired document. Each is judged whole,
// stored durably, made true, and answered with what is true then.

// Config is described at api.Service.
func (d *Daemon) Config(_ context.Context, version uint64) (api.ConfigVersion, error) {
	if version == 0 {
		v, doc := d.store.View()
		return api.ConfigVersion{Version: v, Document: doc}, nil
	}
	doc, err := d.get(version)
	if err != nil {
		return api.ConfigVersion{}, storeError(err, version)
	}
	return api.ConfigVersion{Version: version, Document: doc}, nil
}

// Edit is described at api.Service.
func (d *Daemon) Edit(_ context.Context, e api.Edit) (api.EditResult, error) {
	confirm := time.Duration(e.Confirm * float64(time.Second))
	if confirm < 0 || confirm > api.MaxConfirm {
		return api.EditResult{}, &api.Error{Status: 400, Field: "confirm", Value: fmt.Sprint(e.Confirm), Allowed: fmt.Sprintf("0 to %d seconds", int(api.MaxConfirm.Seconds())),
			Message: fmt.Sprintf("confirm: %v seconds is out of range: want 0 to %d", e.Confirm, int(api.MaxConfirm.Seconds()))}
	}
	return d.change(e.Comment, confirm, false, func(doc config.Document) (config.Document, error) {
		next, err := config.Apply(doc, e.Ops)
		return next, d.whose(doc, e.Ops, refused(err))
	})
}

// Apply is described at api.Service.
func (d *Daemon) Apply(_ context.Context, doc config.Document, o api.ApplyOptions) (api.EditResult, error) {
	return d.change(o.Comment, o.Confirm, o.DryRun, func(config.Document) (config.Document, error) {
		doc := doc.Clone()
		if err := doc.Validate(); err != nil {
			return config.Document{}, refused(err)
		}
		return doc, nil
	})
}

// Rollback is described at api.Service. It also ends a wait for a confirmation.
func (d *Daemon) Rollback(_ context.Context, version uint64) (api.EditResult, error) {
	doc, err := d.get(version)
	if err != nil {
		return api.EditResult{}, storeError(err, version)
	}
	d.edit.Lock()
	res, settle, err := d.changeLocked(fmt.Sprintf("rollback to version %d", version), 0, false, func(config.Document) (config.Document, error) {
		return doc, nil
	})
	if err == nil {
		// A new version has ended the wait already; only now, so that a rollback that
		// could not be stored leaves what goes back by itself.
		res.Confirm = nil
		err = d.forgetPendingLocked()
	}
	d.edit.Unlock()
	if err == nil {
		settle(&res)
	}
	return res, err
}

// History is described at api.Service.
func (d *Daemon) History(context.Context) ([]api.HistoryEntry, error) {
	current, _ := d.store.View()
	all := []api.HistoryEntry{}
	for _, e := range d.store.History() {
		all = append(all, api.HistoryEntry{Version: e.Version, Time: e.Time, Comment: e.Comment, Current: e.Version == current})
	}
	return all, nil
}

// refused makes what config found wrong an answer to the client.
func refused(err error) error {
	if err == nil {
		return nil
	}
	e := &api.Error{Status: 400, Message: err.Error()}
	var one *config.Error
	if errors.As(err, &one) {
		e.Field, e.Value, e.Allowed = one.Path, one.Value, one.Allowed
	}
	return e
}

// storeError makes what the store met an answer to the client.
func storeError(err error, version uint64) error {
	if errors.Is(err, store.ErrNoVersion) {
		return &api.Error{Status: 404, Message: fmt.Sprintf("version %d is not in the history", version), Field: "version", Value: fmt.Sprint(version)}
	}
	return &api.Error{Status: 503, Message: err.Error() + "; nothing was changed, and forwarding goes on"}
}

func (d *Daemon) change(comment string, confirm time.Duration, dry bool, next func(config.Document) (config.Document, error)) (api.EditResult, error) {
	res, settle, err := d.changeOnce(comment, confirm, dry, next)
	if err == nil {
		settle(&res)
	}
	return res, err
}

func (d *Daemon) changeOnce(comment string, confirm time.Duration, dry bool, next func(config.Document) (config.Document, error)) (res api.EditResult, settle func(*api.EditResult), err error) {
	d.edit.Lock()
	defer d.edit.Unlock()
	if p := d.pending(); p != nil && !dry {
		return res, nil, &api.Error{Status: 409, Message: fmt.Sprintf(
			"version %d waits for confirmation until %s: vswitchctl confirm keeps it, vswitchctl rollback %d undoes it now",
			p.Version, p.Deadline.Local().Format("15:04:05 MST"), p.Previous)}
	}
	return d.changeLocked(comment, confirm, dry, next)
}

// changeLocked makes what next returns the desired document. settle waits for what that does to
// plugs and adds to the answer what is in trouble; it is for when edit is not held any more: who
// looks at a plug asks Docker, and Docker may hold its answer back until a call of its own is
// answered, which needs edit.
func (d *Daemon) changeLocked(comment string, confirm time.Duration, dry bool, next func(config.Document) (config.Document, error)) (res api.EditResult, settle func(*api.EditResult), err error) {
	if d.closed {
		return res, nil, &api.Error{Status: 503, Message: "the daemon is ending; nothing was changed"}
	}
	version, old := d.store.View()
	doc, err := next(old)
	if err != nil {
		return res, nil, err
	}
	changes := config.Diff(old, doc)
	if err := d.displaced(old, doc); err != nil {
		return res, nil, err
	}
	res = api.EditResult{Version: version, Changes: changes, Changed: len(changes) > 0}
	if dry {
		return res, func(*api.EditResult) {}, nil
	}
	if res.Changed {
		var deadline time.Time
		if confirm > 0 {
			deadline = time.Now().Add(confirm)
		}
		if res.Version, err = d.put(doc, comment, store.PutOptions{Deadline: deadline}); err != nil {
			return api.EditResult{}, nil, storeError(err, 0)
		}
		d.log.Info("configuration changed", "version", res.Version, "by", comment)
		d.hub.tell(api.Event{Kind: "config", Message: fmt.Sprintf("configuration version %d: %s", res.Version, comment)})
	}
	d.reconciler.apply(doc)
	res.Confirm = d.pending()
	d.armConfirm(res.Confirm)
	return res, func(res *api.EditResult) {
		if d.plugs.keeper.Quiet(quietLimit) {
			d.reconciler.changed() // what was plugged meanwhile is there
		}
		res.Ports = d.troubled(old, doc)
		res.Mirrors = d.troubledMirrors(old, doc)
	}, nil
}

// troubled returns the ports that a change touched and that are not up, or that cut off
// addresses of the host. A local port that nobody gave an address is as it should be.
func (d *Daemon) troubled(old, doc config.Document) []api.PortStatus {
	r := d.reconciler
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []api.PortStatus
	var addresses map[int][]netip.Prefix // of the host, once they are asked for
	look := func(was, is config.Port, had bool) {
		p := r.ports[is.Name]
		if p == nil || had && was.Equal(is) {
			return
		}
		st := d.withPlug(p, api.PortStatus{
			Name: is.Name, Type: string(is.Object()), State: p.state, Reason: p.reason, Since: p.since,
			Options: is.Options.Typed(), IfIndex: p.link.Index, MTU: p.link.MTU,
		})
		if st.State == api.PortUp {
			if st.Notes = d.cutOff(p, &addresses); len(st.Notes) > 0 {
				all = append(all, st)
			}
			return
		}
		if st.State == api.PortDown && is.Object() == config.LocalPort && !is.Options.IsSet("ip") {
			return
		}
		all = append(all, st)
	}
	for i := range doc.Bridges {
		b := &doc.Bridges[i]
		ob := old.Bridge(b.Name)
		if ob == nil {
			ob = &config.Bridge{}
		}
		look(ob.Local(), b.Local(), ob.Name != "")
		for _, p := range b.Ports {
			if was := ob.Port(p.Name); was != nil {
				look(*was, p, true)
			} else {
				look(config.Port{}, p, false)
			}
		}
	}
	return all
}

// cutOff says that the host has addresses on a port's own interface, by which no frame
// reaches it any more.
func (d *Daemon) cutOff(p *portState, addresses *map[int][]netip.Prefix) []string {
	if p.port.Object() != config.PacketPort || takesAddresses(p.port) {
		return nil
	}
	if *addresses == nil {
		var err error
		if *addresses, err = ports.HostAddresses(); err != nil {
			*addresses = map[int][]netip.Prefix{}
			d.log.Warn("the host's addresses could not be looked at", "err", err)
		}
	}
	if has := (*addresses)[p.link.Index]; len(has) > 0 {
		return []string{cutOffNote(p.port.Name, has)}
	}
	return nil
}

func cutOffNote(port string, has []netip.Prefix) string {
	return fmt.Sprintf("the host has %s there, and hears nothing by it while it is a port: set-port %s take_addresses=true moves that to the bridge, ip addr del takes it away", has[0], port)
}

// Confirm is described at api.Service.
func (d *Daemon) Confirm(context.Context) (api.EditResult, error) {
	d.edit.Lock()
	defer d.edit.Unlock()
	p := d.pending()
	if p == nil {
		return api.EditResult{}, &api.Error{Status: 409, Message: "no change waits for confirmation"}
	}
	if d.wentBack.Load() == p.Version {
		return api.EditResult{}, &api.Error{Status: 409, Message: fmt.Sprintf(
			"version %d was not confirmed in time: the machine is back at version %d, and the store will be as soon as it can be written", p.Version, p.Previous)}
	}
	if err := d.forgetPendingLocked(); err != nil {
		return api.EditResult{}, err
	}
	version, _ := d.store.View()
	d.hub.tell(api.Event{Kind: "confirm", Message: fmt.Sprintf("configuration version %d is confirmed", version)})
	return api.EditResult{Version: version}, nil
}

// forgetPendingLocked ends the wait for a confirmation, if there is one.
func (d *Daemon) forgetPendingLocked() error {
	if d.pending() == nil {
		return nil
	}
	if err := d.stored(d.store.ClearPending); err != nil {
		return storeError(err, 0)
	}
	d.armConfirm(nil)
	return nil
}

// pending returns the change that waits for a confirmation, or nil.
func (d *Daemon) pending() *api.PendingConfirm {
	p, ok := d.store.Pending()
	if !ok {
		return nil
	}
	return &api.PendingConfirm{Version: p.Version, Previous: p.Previous, Deadline: p.Deadline}
}

// armConfirm sets the clock for a change that waits, or stops it for nil.
func (d *Daemon) armConfirm(p *api.PendingConfirm) {
	d.timerMu.Lock()
	defer d.timerMu.Unlock()
	if d.timer != nil {
		d.timer.Stop()
		d.timer = nil
	}
	if p != nil {
		// The timer runs on the monotonic clock: the wall clock may be set meanwhile.
		wait := min(max(time.Until(p.Deadline), 0), api.MaxConfirm)
		version := p.Version
		d.timer = time.AfterFunc(wait, func() { d.unconfirmed(version) })
	}
}

// unconfirmed goes back to what was before a change that nobody confirmed: first
// for the machine, since the operator may have cut himself off, then in the store.
func (d *Daemon) unconfirmed(version uint64) {
	d.edit.Lock()
	defer d.edit.Unlock()
	p := d.pending()
	if d.closed || p == nil || p.Version != version {
		return
	}
	doc, err := d.before(p)
	if err == nil {
		d.reconciler.apply(doc)
		d.wentBack.Store(version)
		err = d.goBackLocked(p, doc)
	}
	if err != nil {
		d.log.Error("an unconfirmed change could not be taken back in the store; trying again", "version", version, "err", err)
		d.timerMu.Lock()
		defer d.timerMu.Unlock()
		d.timer = time.AfterFunc(time.Second, func() { d.unconfirmed(version) })
	}
}

// before returns the document before a change that waits for its confirmation.
func (d *Daemon) before(p *api.PendingConfirm) (config.Document, error) {
	if p.Previous == 0 { // before version 1 there was nothing
		return config.Document{}, nil
	}
	return d.store.Get(p.Previous)
}

// goBackLocked makes doc, which was before an unconfirmed change, the stored
// document again. It is the caller who makes it true.
func (d *Daemon) goBackLocked(p *api.PendingConfirm, doc config.Document) error {
	comment := fmt.Sprintf("version %d was not confirmed: back to version %d", p.Version, p.Previous)
	version, err := d.put(doc, comment, store.PutOptions{})
	if err != nil {
		return err
	}
	d.log.Warn("configuration went back", "version", version, "why", comment)
	d.hub.tell(api.Event{Kind: "confirm", Message: comment})
	return nil
}

// Subscribe is described at api.Service.
func (d *Daemon) Subscribe() (<-chan api.Event, func()) { return d.hub.subscribe() }

// Version is described at api.Service.
func (d *Daemon) Version() api.Version { return d.version }

var _ api.Service = (*Daemon)(nil)
