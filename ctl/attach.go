package ctl

import (
	"crypto/sha256"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// portState is a port that exists in the switch, and its interface.
type portState struct {
	bridge string
	port   config.Port

	state, reason string
	since         time.Time

	device    vswitch.Device // nil: not attached
	stop      *ports.Stop
	link      *ports.Link    // the interface of the device, as last seen; noLink where there is none
	addresses []netip.Prefix // that we gave it
	notes     []string
	astray    bool // its TAP has another name, or is in another namespace
	left      bool // the switch has it no more, or not for long

	rxSlots           int    // of its receive ring, or of each queue's; 0: none
	rxShare           int    // bytes of rxRings.limit that it takes
	rxFrames, rxBytes uint64 // received when growLocked looked last
	growAt            time.Time
	deaf              bool // it had a ring that took no more frames; it gets no other

	tunnel *tunnelPort // of a port that leads to another host; else nil

	retryAt  time.Time
	backoff  time.Duration
	failedOn int // the index of the interface that could not be attached; 0: none was there
}

// noLink is the interface of a port without one; nobody changes it. Thousands of
// tunnels share it.
var noLink = &ports.Link{}

// A port in error is tried again after minBackoff, and after twice as long each
// time, up to maxBackoff; and at once when its interface changes.
const (
	minBackoff = time.Second
	maxBackoff = 30 * time.Second
	retryEvery = 500 * time.Millisecond
)

// forgive makes the next try come at once.
func (p *portState) forgive() { p.retryAt, p.backoff = time.Time{}, 0 }

// setState notes a port's state, and tells when it is new.
func (r *reconciler) setState(p *portState, state, reason string) {
	if p.state == state && p.reason == reason {
		return
	}
	same := p.state == state
	if !same {
		p.since = time.Now()
	}
	p.state, p.reason = state, reason
	msg := "port " + p.port.Name + " of " + p.bridge + " is " + state
	if reason != "" {
		msg += ": " + reason
	}
	if same && p.tunnel != nil {
		r.log.Debug(msg) // on its way from one reason to another, such as BFD's down and init
		return
	}
	if state == api.PortUp && r.plugs != nil && p.port.Object() == config.PlugPort {
		r.plugs.plugUp(p.port.Name)
	}
	r.log.Info(msg)
	r.tell(api.Event{Kind: "port-" + state, Bridge: p.bridge, Port: p.port.Name, Message: msg})
}

// fail notes that a port could not be attached, and when to try again.
func (r *reconciler) fail(p *portState, now time.Time, err error) {
	p.backoff = min(max(2*p.backoff, minBackoff), maxBackoff)
	p.retryAt = now.Add(p.backoff)
	p.failedOn = r.links[p.port.Name].Index
	r.setState(p, api.PortError, err.Error())
}

// linksLocked is linkLocked for many ports. Interfaces that went together, as a
// host's containers do, are let go together. Those of the host itself come last: it
// speaks at once, and an ARP request that finds nobody yet is repeated after a second.
func (r *reconciler) linksLocked(all []*portState, now time.Time) {
	var gone []*portState
	for _, p := range all {
		l, exists := r.links[p.port.Name]
		if _, ok := p.device.(*ports.Packet); ok && !p.on(l, exists) {
			gone = append(gone, p)
		}
	}
	r.detachTogetherLocked(gone)
	for _, host := range []bool{false, true} {
		for _, p := range all {
			if object := p.port.Object(); host == (object == config.LocalPort || object == config.InternalPort) {
				r.linkLocked(p, now)
			}
		}
	}
}

// linkLocked makes a port's interface as it should be: opened when it is there,
// let go when it is gone, and its state known to the switch.
func (r *reconciler) linkLocked(p *portState, now time.Time) {
	switch {
	case p.port.Object() == config.PatchPort:
		r.patchLocked(p)
		return
	case p.tunnel != nil:
		r.sw.Together(func() { r.tunnelLocked(p, now) }) // its frames come once its link is known
		return
	}
	l, exists := r.links[p.port.Name]
	if p.device != nil && !p.on(l, exists) {
		if r.astrayLocked(p) {
			return
		}
		r.detachLocked(p)
	}
	if p.device == nil {
		if l.Index != p.failedOn {
			p.forgive() // another interface: what failed may go well now
		}
		if now.Before(p.retryAt) {
			return
		}
		if !r.attachLocked(p, l, exists, now) {
			return
		}
	}
	r.refreshLocked(p, now)
}

// on reports whether a port's device is on interface l still.
func (p *portState) on(l ports.Link, exists bool) bool {
	if d, ok := p.device.(*ports.Packet); ok {
		return exists && d.On(l.Index)
	}
	return exists && l.Index == p.link.Index
}

// astrayLocked deals with an interface of ours that somebody gave another name or
// moved to another namespace, and reports whether it is so.
func (r *reconciler) astrayLocked(p *portState) bool {
	tap, ok := p.device.(*ports.TAP)
	if !ok {
		return false
	}
	name, exists := tap.Name()
	if !exists {
		return false
	}
	p.astray = true
	if l, here, err := ports.LinkByName(name); err == nil && here && l.Index == p.link.Index && l.Alias == p.link.Alias {
		r.setState(p, api.PortError, fmt.Sprintf("somebody renamed its interface: ip link set %s name %s", name, p.port.Name))
		return true
	}
	p.notes = []string{"its interface was moved to another network namespace"}
	r.setState(p, api.PortUp, "")
	return true
}

// patchLocked tells whether a patch port has its other end.
func (r *reconciler) patchLocked(p *portState) {
	peer := r.ports[p.port.Options.Text("peer")]
	if peer == nil || peer.port.Object() != config.PatchPort {
		r.setState(p, api.PortWaiting, fmt.Sprintf("its peer %s does not exist", p.port.Options.Text("peer")))
		return
	}
	r.setState(p, api.PortUp, "")
}

// attachLocked opens a port's interface and gives it to the switch. When it
// returns false the port's state says why.
func (r *reconciler) attachLocked(p *portState, l ports.Link, exists bool, now time.Time) bool {
	var err error
	switch p.port.Object() {
	case config.LocalPort, config.InternalPort:
		err = r.attachTAP(p)
	case config.TapPort:
		err = r.attachPersistent(p)
	case config.PlugPort:
		if !exists {
			if r.plugs != nil {
				r.setState(p, api.PortWaiting, r.plugs.plugReason(p.port.Name))
			}
			return false
		}
		if l.Alias != ports.Owned(r.instance, p.port.Name) { // a NIC of that name is none of ours
			r.setState(p, api.PortError, fmt.Sprintf("interface %s is somebody else's: give the plug another name", l.Name))
			return false
		}
		err = r.attachPacket(p, l)
	default:
		if !exists {
			r.setState(p, api.PortWaiting, fmt.Sprintf("interface %s does not exist; it will be attached when it appears", p.port.Name))
			return false
		}
		err = r.attachPacket(p, l)
	}
	if err != nil {
		r.fail(p, now, err)
		return false
	}
	p.forgive()
	return true
}

// look reads a new interface, before its first event comes.
func (r *reconciler) look(p *portState) error {
	l, ok, err := ports.LinkByName(p.port.Name)
	if err != nil {
		return err
	}
	if ok {
		l = r.seenLocked(l)
		p.link = &l
	}
	return nil
}

// attachPacket opens an existing interface: first the host's stack is cut off,
// so that it never sees a frame of the port.
func (r *reconciler) attachPacket(p *portState, l ports.Link) error {
	if !l.Ether {
		return fmt.Errorf("interface %s is not Ethernet", l.Name)
	}
	if !l.Up {
		if err := ports.Raise(l.Index); err != nil {
			return fmt.Errorf("bring interface %s up: %w", l.Name, err)
		}
	}
	stop, err := r.stopper.Stop(l.Index)
	if err != nil {
		return fmt.Errorf("keep frames of %s from the host's stack: %w", l.Name, err)
	}
	d, err := r.openPacket(p, l)
	if err != nil {
		stop.Close()
		return err
	}
	p.link = &l
	if err := r.look(p); err != nil { // it may have come up just now
		d.Close()
		r.rxRings.leave(p)
		stop.Close()
		p.link = noLink
		return err
	}
	if err := r.sw.Attach(p.port.Name, d, p.link.Up && p.link.Carrier, p.link.MTU); err != nil {
		r.rxRings.leave(p)
		stop.Close()
		p.link = noLink
		return err
	}
	p.device, p.stop = d, stop
	return nil
}

// restopLocked puts a port's stop back, which somebody took away. A port that
// cannot have it is let go rather than shown to the host's stack.
func (r *reconciler) restopLocked(p *portState, now time.Time) {
	if err := r.stopper.Restore(p.stop); err != nil {
		r.detachLocked(p)
		r.fail(p, now, fmt.Errorf("somebody removed the tc filter of %s, and it cannot be put back: %w", p.port.Name, err))
		return
	}
	r.log.Warn("somebody removed the tc filter that keeps frames from the host's stack; it is back", "port", p.port.Name)
}

// refreshLocked brings what an attached port's interface is like into the switch,
// and what the options say of it into the interface.
func (r *reconciler) refreshLocked(p *portState, now time.Time) {
	if l, ok := r.links[p.port.Name]; ok {
		p.link = &l
	}
	p.astray = false
	if err := r.dressLocked(p); err != nil {
		r.sw.SetLink(p.port.Name, p.link.Up && p.link.Carrier, p.link.MTU)
		r.fail(p, now, err)
		return
	}
	l := p.link
	r.sw.SetLink(p.port.Name, l.Up && l.Carrier, l.MTU)
	p.notes = nil
	if l.Master != 0 && l.Kind != "tun" {
		p.notes = append(p.notes, "it belongs to a kernel bridge or bond too, which gets none of its frames")
	}
	if p.port.Object() != config.LocalPort && !p.port.Options.Bool("offload") {
		p.notes = append(p.notes, "checksums and segments are finished in software (offload is off)")
	}
	switch host := p.stop == nil; {
	case l.Up && l.Carrier:
		r.setState(p, api.PortUp, "")
	case !l.Up && host && p.port.Object() == config.LocalPort:
		r.setState(p, api.PortDown, fmt.Sprintf("no address; set-br %s ip=… brings it up", l.Name))
	case !l.Up && host:
		r.setState(p, api.PortDown, fmt.Sprintf("no address; set-port %[1]s ip=… brings it up, and so does: ip link set %[1]s up", l.Name))
	case !l.Up:
		r.setState(p, api.PortDown, fmt.Sprintf("the interface is down; somebody took it down: ip link set %s up", l.Name))
	case p.port.Object() == config.TapPort:
		r.setState(p, api.PortDown, "nobody has attached to the TAP; is the virtual machine running?")
	default:
		r.setState(p, api.PortDown, "no carrier: the other end is down or gone")
	}
}

// dressLocked gives an interface that the switch made what the options say: MTU,
// MAC, addresses. One with addresses is brought up.
func (r *reconciler) dressLocked(p *portState) error {
	l := p.link
	object := p.port.Object()
	if object == config.PacketPort || object == config.PlugPort || l.Index == 0 {
		return nil
	}
	o := p.port.Options
	if want := mtu(p.port); want != 0 && want != l.MTU {
		if err := ports.SetMTU(l.Index, want); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", l.Name, want, err)
		}
	}
	if object == config.TapPort {
		return r.look(p)
	}
	if want := r.mac(p.port); want.String() != l.MAC.String() {
		if err := ports.SetMAC(l.Index, want); err != nil {
			return fmt.Errorf("set MAC of %s to %s: %w", l.Name, want, err)
		}
	}
	want := o.Prefixes("ip")
	if len(want) > 0 && !l.Up {
		// The host speaks as soon as it is up, and what answers shall reach it.
		r.sw.SetLink(p.port.Name, true, l.MTU)
		if err := ports.Raise(l.Index); err != nil {
			return fmt.Errorf("bring %s up: %w", l.Name, err)
		}
	}
	if len(want) > 0 || len(p.addresses) > 0 {
		if err := ports.SetAddresses(l.Index, p.addresses, want); err != nil {
			return fmt.Errorf("interface %s: %w", l.Name, err)
		}
		p.addresses = slices.Clone(want)
	}
	return r.look(p)
}

// kernelMTU is what a TAP has when nobody says otherwise.
const kernelMTU = 1500

func mtu(p config.Port) int {
	if !p.Options.IsSet("mtu") {
		return 0
	}
	return p.Options.Int("mtu")
}

// mac returns the address of an interface that the switch makes: the one asked
// for, or one made from the instance and the name, so that a restart does not
// strand what neighbours have in their ARP tables.
func (r *reconciler) mac(p config.Port) net.HardwareAddr {
	if m := p.Options.MAC("mac"); m != nil {
		return m
	}
	if m := r.uplinks.macOf(p.Name); m != nil {
		return m
	}
	sum := sha256.Sum256([]byte(r.instance + " " + p.Name))
	m := net.HardwareAddr(sum[:6])
	m[0] = m[0]&^1 | 2 // unicast, locally administered
	return m
}

// leave notes that the port is being taken out of the switch.
func (p *portState) leave() {
	p.left = true
	if p.tunnel != nil {
		p.tunnel.session.close() // while it can say goodbye
	}
}

// detachTogetherLocked is detachLocked for packet ports: their sockets wait for the same
// grace periods of the kernel.
func (r *reconciler) detachTogetherLocked(ports []*portState) {
	var names []string
	for _, p := range ports {
		names = append(names, p.port.Name)
	}
	if err := r.sw.DetachPorts(names); err != nil {
		r.log.Warn("ports not detached cleanly", "err", err)
	}
	for _, p := range ports {
		r.releaseLocked(p)
	}
}

// detachLocked lets a port's interface go: the port, its configuration and its
// counters stay. The stop goes last, so that the host's stack sees nothing while
// the port is on its way out.
func (r *reconciler) detachLocked(p *portState) {
	if p.tunnel != nil {
		defer r.closeTunnelLocked(p)
		p.tunnel.session.close() // while it can say goodbye
	}
	if p.device == nil {
		return
	}
	if !p.left { // else its device went with it
		if err := r.sw.Detach(p.port.Name); err != nil {
			r.log.Warn("port not detached cleanly", "port", p.port.Name, "err", err)
		}
	}
	r.releaseLocked(p)
}

// releaseLocked gives back what a port has beside its device, which the switch has
// closed.
func (r *reconciler) releaseLocked(p *portState) {
	if p.stop != nil {
		if err := p.stop.Close(); err != nil {
			r.log.Warn("tc hook not removed", "port", p.port.Name, "err", err)
		}
	}
	r.rxRings.leave(p)
	p.device, p.stop, p.link, p.addresses, p.notes = nil, nil, noLink, nil, nil
}

// removePortLocked removes what is left of a port that the switch has no more, and
// the interface that the switch made for it, unless keepTAP.
func (r *reconciler) removePortLocked(p *portState, keepTAP bool) {
	name := p.port.Name
	r.detachLocked(p)
	if l, ours := r.tapOf(p); ours && !keepTAP {
		r.removeLink(l)
	}
	delete(r.ports, name)
	r.tell(api.Event{Kind: "port-removed", Bridge: p.bridge, Port: name, Message: "port " + name + " of " + p.bridge + " is removed"})
}

// leaveLocked lets a port go because the daemon ends. A persistent TAP goes too,
// unless somebody is attached to it: a virtual machine that runs would be cut off
// for good, while so the next start finds it. So are pairs of plugs. What stays keeps its
// stop, as after a crash: a restart must not let a container speak to the host's stack,
// nor a switch that is gone.
func (r *reconciler) leaveLocked(p *portState) {
	if o := p.port.Object(); o == config.TapPort || o == config.PlugPort {
		p.stop = nil
	}
	r.detachLocked(p)
	r.removeTAP(p, "the next start finds it")
}
