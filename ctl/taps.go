package ctl

import (
	"errors"
	"fmt"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"

	"vswitch/ctl/config"
	"vswitch/ports"
)

// The TAPs that the switch makes: those of local and internal ports, which go with the
// daemon, and the persistent ones of tap ports, which a virtual machine attaches to.

// attachTAP makes the interface of a local or internal port.
func (r *reconciler) attachTAP(p *portState) error {
	o := ports.TAPOptions{Alias: ports.Owned(r.instance, p.port.Name), MAC: r.mac(p.port), MTU: mtu(p.port)}
	tap, err := ports.OpenTAP(p.port.Name, o)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("interface %[1]s exists already and is not the switch's; remove it (ip link del %[1]s), or choose another name", p.port.Name)
	}
	if err != nil {
		return err
	}
	if err := r.sw.Attach(p.port.Name, tap, false, 0); err != nil {
		return err
	}
	p.device = tap
	if err := r.look(p); err != nil {
		r.detachLocked(p)
		return err
	}
	return nil
}

// attachPersistent opens the persistent TAP of a tap port, which an earlier run
// may have left to who is attached to it.
func (r *reconciler) attachPersistent(p *portState) error {
	o, err := r.tapOptions(p)
	if err != nil {
		return err
	}
	l, exists, err := ports.LinkByName(p.port.Name)
	if err != nil {
		return err
	}
	if exists && l.Alias == o.Alias && (l.Owner != max(o.Owner, 0) || l.Group != max(o.Group, 0)) {
		// Whose it is was changed while it could not be seen to.
		if l.Carrier {
			r.log.Warn("TAP keeps its owner and group until nobody is attached to it", "port", p.port.Name)
		} else if err := ports.RemoveLink(l.Name); err != nil {
			return err
		} else {
			exists = false
		}
	}
	if !exists {
		if err := ports.MakePersistentTAP(p.port.Name, o); err != nil {
			return err
		}
		if l, exists, err = ports.LinkByName(p.port.Name); err != nil {
			return err
		}
	}
	switch {
	case !exists:
		return fmt.Errorf("TAP %s was removed as soon as it was made", p.port.Name)
	case l.Kind != "tun":
		return fmt.Errorf("interface %[1]s exists already and is no TAP; remove it (ip link del %[1]s), or give the port another name", l.Name)
	}
	return r.attachPacket(p, l)
}

// tapOptions says how the persistent TAP of a tap port is to be.
func (r *reconciler) tapOptions(p *portState) (o ports.TAPOptions, err error) {
	o = ports.TAPOptions{Alias: ports.Owned(r.instance, p.port.Name), MTU: mtu(p.port), Owner: -1, Group: -1}
	if p.port.Options.IsSet("owner") {
		if o.Owner, err = userID(p.port.Options.Text("owner")); err != nil {
			return o, err
		}
	}
	if p.port.Options.IsSet("group") {
		if o.Group, err = groupID(p.port.Options.Text("group")); err != nil {
			return o, err
		}
	}
	return o, nil
}

// userID looks in /etc/passwd, and groupID in /etc/group: a program without libc asks no
// directory (nsswitch.conf(5)).
func userID(name string) (int, error) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	u, err := user.Lookup(name)
	if err != nil {
		return 0, fmt.Errorf("owner %[1]q: /etc/passwd has no such user; of one who is kept elsewhere, give the number (id -u %[1]s)", name)
	}
	return strconv.Atoi(u.Uid)
}

func groupID(name string) (int, error) {
	if id, err := strconv.Atoi(name); err == nil {
		return id, nil
	}
	g, err := user.LookupGroup(name)
	if err != nil {
		return 0, fmt.Errorf("group %[1]q: /etc/group has no such group; of one that is kept elsewhere, give the number (getent group %[1]s)", name)
	}
	return strconv.Atoi(g.Gid)
}

// removeTAP removes the persistent TAP of a tap port unless somebody is attached
// to it; then is what becomes of it.
func (r *reconciler) removeTAP(p *portState, then string) {
	l, ours := r.tapOf(p)
	if !ours {
		return
	}
	if l.Carrier {
		r.log.Info("TAP stays, since somebody is attached to it: "+then, "port", p.port.Name)
		return
	}
	r.removeLink(l)
}

// tapOf returns the persistent TAP that the switch made for a port, also when it
// is not attached.
func (r *reconciler) tapOf(p *portState) (l ports.Link, ours bool) {
	if p.port.Object() != config.TapPort {
		return ports.Link{}, false
	}
	l, ok, err := ports.LinkByName(p.port.Name)
	if err != nil {
		r.log.Warn("TAP could not be looked at", "port", p.port.Name, "err", err)
	}
	return l, ok && l.Alias == ports.Owned(r.instance, p.port.Name)
}

func (r *reconciler) removeLink(l ports.Link) {
	if err := ports.RemoveLink(l.Name); err != nil {
		r.log.Warn("TAP not removed", "interface", l.Name, "err", err)
	}
	delete(r.links, l.Name)
}
