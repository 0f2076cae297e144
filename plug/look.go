package plug

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"vswitch/ctl/config"
	"vswitch/plug/runtimes"
	"vswitch/plug/wire"
)

// lookLocked has a plug looked at, by one goroutine at a time.
func (k *Keeper) lookLocked(p *kept) {
	if k.closed {
		return
	}
	if p.looking {
		p.again = true
		return
	}
	p.looking = true
	k.working.Go(func() { // ends when nothing changed while it looked
		for {
			k.look(k.ctx, p, nil)
			k.mu.Lock()
			if !p.again || k.closed {
				p.looking, p.asked = false, false
				p.done.Broadcast()
				k.mu.Unlock()
				return
			}
			p.again = false
			k.mu.Unlock()
		}
	})
}

// tokensOf are those that a look at p needs: who asks no runtime waits for none.
func (k *Keeper) tokensOf(p *kept, asks bool) chan struct{} {
	k.mu.Lock()
	defer k.mu.Unlock()
	if t := k.tokens[p.want.Plug.Container.Kind]; asks && p.wanted && t != nil {
		return t
	}
	return k.tokens[""]
}

// look brings one plug to where it should be; known is its container, or nil. It owns
// p.leased.
func (k *Keeper) look(ctx context.Context, p *kept, known *runtimes.Container) error {
	tokens := k.tokensOf(p, known == nil)
	select {
	case tokens <- struct{}{}:
		defer func() { <-tokens }()
	case <-ctx.Done():
		return ctx.Err()
	}
	ctx, cancel := context.WithTimeout(ctx, lookLimit) // who waits for others is not late
	defer cancel()
	k.mu.Lock()
	w, wanted := p.want, p.wanted
	k.mu.Unlock()
	if !wanted {
		return k.remove(p, w)
	}
	var c runtimes.Container
	var err error
	if known != nil {
		c = *known
	} else {
		c, err = k.rt.Look(ctx, w.Plug.Container)
	}
	name := w.Plug.Container.String()
	switch {
	case errors.Is(err, runtimes.ErrUnknown):
		return k.absent(p, err)
	case err != nil:
		return k.fail(p, w, "", err) // nobody knows: what is there stays
	case c.Host:
		return k.fail(p, w, c.NetNS, fmt.Errorf("%s uses the host's own network: nothing can be plugged into it", name))
	case !c.Running || c.NetNS == "":
		k.settle(p, w, State{State: Waiting, Reason: name + " does not run; it is plugged in when it starts", ID: c.ID, Names: c.Names}, nil)
		return nil
	}
	spec, err := k.spec(p, &w)
	if err == nil {
		var made wire.Plugged
		if made, err = k.wires.Plug(c.NetNS, c.Still, spec, k.past.made(w.Port)); err == nil && made.Made {
			k.o.Log.Info("plugged in", "container", name, "bridge", w.Bridge, "port", w.Port, "ifname", spec.IfName, "addresses", spec.Addresses)
		}
	}
	if errors.Is(err, wire.ErrNoNamespace) {
		return k.fail(p, w, "none", fmt.Errorf("%s ended while it was plugged in", name))
	}
	if err != nil {
		return k.fail(p, w, c.NetNS, err)
	}
	k.past.make(w.Port, spec)
	if err := k.unlease(p, &w, &spec); err != nil {
		return k.fail(p, w, c.NetNS, err)
	}
	k.settle(p, w, State{
		State: Plugged, Addresses: spec.Addresses, Gateways: spec.Gateways, MAC: spec.MAC, MTU: spec.MTU, NetNS: c.NetNS, ID: c.ID, Names: c.Names,
	}, nil)
	return nil
}

// spec is what is to be made for w. Addresses are leased here, before anybody has them.
func (k *Keeper) spec(p *kept, w *Want) (wire.Spec, error) {
	g := w.Plug
	s := wire.Spec{Host: w.Port, Alias: w.Alias, IfName: g.IfName, MAC: g.MAC, MTU: w.MTU, Addresses: slices.Clone(g.Addresses)}
	if s.MAC == nil {
		s.MAC = k.mac(w)
	}
	for _, r := range g.Routes {
		s.Routes = append(s.Routes, wire.Route{Dst: r.Dst, Via: r.Via})
	}
	if err := k.lease(p, w, &s); err != nil {
		return s, err
	}
	switch {
	case g.NoGateway:
	case len(g.Gateways) > 0:
		s.Gateways = g.Gateways
	default:
		s.Soft = true
		for _, gw := range w.Gateways {
			on := func(a netip.Prefix) bool { return a.Masked().Contains(gw) && a.Addr() != gw }
			if slices.ContainsFunc(s.Addresses, on) {
				s.Gateways = append(s.Gateways, gw)
			}
		}
	}
	return s, nil
}

// mac is the address of a container's interface that nobody chose: the same after each
// restart, so that what neighbours have in their ARP tables stays right.
func (k *Keeper) mac(w *Want) net.HardwareAddr {
	sum := sha256.Sum256([]byte(k.o.Instance + " " + w.owner()))
	m := net.HardwareAddr(sum[:6])
	m[0] = m[0]&^1 | 2 // unicast, locally administered
	return m
}

// remove takes a plug away, with its leases.
func (k *Keeper) remove(p *kept, w Want) error {
	if err := k.wires.Unplug(w.Port, w.Alias); err != nil && !errors.Is(err, wire.ErrTaken) { // else it is not ours
		return k.fail(p, w, "", fmt.Errorf("unplug: %w", err))
	}
	owner := w.owner()
	held := p.leased
	for _, l := range k.leases.Of(owner) { // of an earlier run, too
		held = append(held, leasedAt{l.Pool, l.Owner})
	}
	if err := k.release(p, held); err != nil {
		return k.fail(p, w, "", err)
	}
	p.leased = nil
	k.past.unmake(w.Port)
	if !k.shared(p, owner) {
		k.past.forget(owner)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if !p.wanted && k.plugs[w.Port] == p { // else it is wanted again: look goes on
		delete(k.plugs, w.Port)
	}
	for _, other := range k.plugs { // whose gateway is the container's default route now, if it had stood back
		if other != p && other.wanted && other.want.Plug.Container == w.Plug.Container {
			k.lookLocked(other)
		}
	}
	return nil
}

// madeAtBoot says whether containers of a kind are gone with a boot of the machine, and are
// made anew by whoever makes them. Docker and Podman keep theirs; a process's number is never
// the same process's again.
func madeAtBoot(kind string) bool {
	return kind == config.NetNSContainer || kind == config.PathContainer || kind == config.ContainerdContainer
}

// absent notes that a container is not there. One that never was is waited for: a document
// may name what is still to come, and so is what a boot has still to make.
func (k *Keeper) absent(p *kept, why error) error {
	k.mu.Lock()
	w := p.want
	k.mu.Unlock()
	seen, sinceBoot := k.past.seen(w.owner())
	if seen && !sinceBoot && w.Owner == "" && madeAtBoot(w.Plug.Container.Kind) {
		seen = false // it may be made later than this daemon is started
	}
	k.mu.Lock()
	if seen && p.gone.IsZero() {
		p.gone = time.Now()
	}
	k.mu.Unlock()
	st := State{State: Waiting, Reason: strings.TrimPrefix(why.Error(), "look at "+w.Plug.Container.String()+": ")}
	if seen {
		st.State, st.Reason = Going, fmt.Sprintf("%s: it is unplugged %s after it went", st.Reason, k.o.Grace)
	}
	k.settle(p, w, st, why)
	return why
}

// fail notes why a plug is not as it should be, and when to try again. What it has stays what
// it has while its namespace ns is the one that it was plugged into; "" is not known.
func (k *Keeper) fail(p *kept, w Want, ns string, err error) error {
	k.mu.Lock()
	p.backoff = min(max(2*p.backoff, minBackoff), maxBackoff)
	p.due = time.Now().Add(p.backoff)
	st := p.state
	k.mu.Unlock()
	if errors.Is(err, runtimes.ErrNoAnswer) && st.State == Plugged {
		return err // it goes on as it is
	}
	failed := State{State: Failed, Reason: err.Error(), Names: st.Names, ID: st.ID}
	if ns == "" || ns == st.NetNS {
		failed.Addresses, failed.Gateways, failed.MAC, failed.MTU, failed.NetNS = st.Addresses, st.Gateways, st.MAC, st.MTU, st.NetNS
	}
	k.settle(p, w, failed, err)
	return err
}

// settle makes st the state of a plug, and tells when it is new.
func (k *Keeper) settle(p *kept, w Want, st State, err error) {
	k.mu.Lock()
	old := p.state
	st.Since = old.Since
	if old.State != st.State {
		st.Since = time.Now()
	}
	p.state = st
	if err == nil {
		p.backoff, p.due, p.gone = 0, time.Time{}, time.Time{}
	}
	if st.State == Plugged && p.up && !k.closed {
		k.announceLocked(p)
	}
	k.mu.Unlock()
	if err == nil {
		k.past.see(w.owner())
	}
	if old.State == st.State && old.Reason == st.Reason && slices.Equal(old.Addresses, st.Addresses) &&
		old.NetNS == st.NetNS && old.MTU == st.MTU && slices.Equal(old.Names, st.Names) {
		return
	}
	if st.State != Plugged && cmp.Or(old.Reason, old.State) != cmp.Or(st.Reason, st.State) {
		k.o.Log.Info("a plug is "+st.State, "port", w.Port, "reason", st.Reason)
	}
	k.o.Changed(w.Port)
}
