package wire

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const (
	dumpTries   = 10              // of a list that changes interrupted (NLM_F_DUMP_INTR)
	runningWait = 5 * time.Second // for both ends to carry frames
)

// work is a Plug under way.
//
// Thread-safety: one goroutine's.
type work struct {
	s    *Spec
	n    *Namespace
	in   *netlink.Handle // in the container's namespace
	undo []func()        // what takes back what was done, the last first

	host  netlink.Link // nil: there is none yet
	peer  netlink.Link // the container's end, nil likewise
	stale netlink.Link // under our name, and to be removed
	fresh bool         // the pair, its MAC address or an address is new
}

// Plug makes the pair as s says, or changes the one that is there (known by its alias
// and by where its other end is) into that, and announces its addresses (gratuitous ARP,
// unsolicited neighbour advertisements) when the pair or an address is new. When it
// returns, both ends carry frames. A failure half way leaves no pair behind that was not
// there before, and one that was there as it was. had is what an earlier Plug was given,
// whose addresses and routes go where s lacks them; nil: nothing is known.
//
// A default route that is not Soft goes before those that the container has by other
// interfaces, which stay and are used again after Unplug.
func Plug(n *Namespace, s Spec, had *Spec) (Plugged, error) {
	if err := Check(s); err != nil {
		return Plugged{}, fmt.Errorf("plug %s: %w", s.Host, err)
	}
	if had == nil {
		had = &Spec{}
	}
	in, err := n.netlink()
	if err != nil {
		return Plugged{}, fmt.Errorf("plug %s: %w", s.Host, err)
	}
	defer in.Close()
	w := &work{s: &s, n: n, in: in}
	made, err := w.plug(had)
	if err != nil {
		w.takeBack()
		return Plugged{}, fmt.Errorf("plug %s: %w", s.Host, err)
	}
	return Plugged{Host: w.host.Attrs().Index, Container: w.peer.Attrs().Index, Made: made}, nil
}

func (w *work) plug(had *Spec) (made bool, err error) {
	if err := w.find(); err != nil {
		return false, err
	}
	if err := w.free(); err != nil {
		return false, err
	}
	if w.stale != nil {
		if err := remove(w.stale); err != nil {
			return false, fmt.Errorf("remove the pair that led elsewhere: %w", err)
		}
	}
	if made = w.host == nil; made {
		err = w.make()
	} else {
		err = w.change()
	}
	if err == nil {
		err = w.raise()
	}
	if err == nil {
		err = w.dress(had)
	}
	if err == nil && w.fresh {
		err = w.n.announce(w.s.IfName, w.peer.Attrs().Index, w.s.MAC, addrsOf(w.s.Addresses))
	}
	return made, err
}

// takeBack undoes what was done. It goes on whatever fails: what it would take away may
// have gone by itself.
func (w *work) takeBack() {
	for i := len(w.undo) - 1; i >= 0; i-- {
		w.undo[i]()
	}
}

func (w *work) onFailure(f func()) { w.undo = append(w.undo, f) }

// find looks who has the host's end's name.
func (w *work) find() error {
	l, err := netlink.LinkByName(w.s.Host)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look up interface %s: %w", w.s.Host, err)
	}
	a := l.Attrs()
	if l.Type() != "veth" || a.Name != w.s.Host {
		return fmt.Errorf("interface %s is somebody else's: %w", w.s.Host, ErrTaken)
	}
	peer, err := w.otherEnd(a)
	if err != nil {
		return err
	}
	switch {
	case a.Alias == w.s.Alias && peer != nil:
		w.host, w.peer = l, peer
	case a.Alias == w.s.Alias:
		w.stale = l // it leads to a namespace that the container has no more
	case unfinished(a, w.s.Alias):
		w.stale = l
	default:
		return fmt.Errorf("interface %s is somebody else's: %w", w.s.Host, ErrTaken)
	}
	return nil
}

// otherEnd returns the other end of a veth when it is in the container's namespace.
func (w *work) otherEnd(a *netlink.LinkAttrs) (netlink.Link, error) {
	if a.NetNsID < 0 {
		return nil, nil // it is in this namespace
	}
	id, err := netlink.GetNetNsIdByFd(w.n.fd)
	if err != nil {
		return nil, fmt.Errorf("ask where %s leads: %w", a.Name, err)
	}
	if id != a.NetNsID {
		return nil, nil
	}
	peer, err := w.in.LinkByIndex(a.ParentIndex)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look up the other end of %s: %w", a.Name, err)
	}
	if peer.Type() != "veth" || peer.Attrs().ParentIndex != a.Index {
		return nil, nil
	}
	return peer, nil
}

// free says who has what the container's end needs. An interface of a pair that is to be
// removed has nothing.
func (w *work) free() error {
	ours := map[int]bool{}
	if w.peer != nil {
		ours[w.peer.Attrs().Index] = true
	}
	if w.stale != nil {
		if peer, err := w.otherEnd(w.stale.Attrs()); err == nil && peer != nil {
			ours[peer.Attrs().Index] = true
		}
	}
	l, err := w.in.LinkByName(w.s.IfName)
	if err == nil && !ours[l.Attrs().Index] {
		return fmt.Errorf("the container has an interface %s already: %w", w.s.IfName, ErrTaken)
	}
	if err != nil && !errors.As(err, &netlink.LinkNotFoundError{}) {
		return fmt.Errorf("look up interface %s of the container: %w", w.s.IfName, err)
	}
	all, err := addressList(w.in, nil)
	if err != nil {
		return err
	}
	for _, a := range all {
		p := prefixOf(a.IPNet)
		for _, q := range w.s.Addresses {
			if p.Addr() != q.Addr() || ours[a.LinkIndex] || q.Addr().Is6() && q.Addr().IsLinkLocalUnicast() {
				continue
			}
			on := "another interface"
			if l, err := w.in.LinkByIndex(a.LinkIndex); err == nil {
				on = l.Attrs().Name
			}
			return fmt.Errorf("the container has %s on %s already: %w", q.Addr(), on, ErrAddressTaken)
		}
	}
	return nil
}

const in6AddrGenModeNone = 1 // IN6_ADDR_GEN_MODE_NONE, linux/if_link.h

// making is the group (IFLA_GROUP) of a host's end that is to have that alias and has none
// yet. The kernel takes an alias of an interface that there is and of none that is made by
// the same request, but a group it takes: so the end whose maker was killed in between is
// known, and is not another daemon's, whose alias for it would be another. Groups that
// people give are small: bit 30 is set, and 31, the sign of what the kernel keeps, is not.
func making(alias string) uint32 {
	sum := sha256.Sum256([]byte(alias))
	return binary.BigEndian.Uint32(sum[:])&(1<<30-1) | 1<<30
}

// unfinished says whether an interface is to have that alias and has none yet.
func unfinished(a *netlink.LinkAttrs, alias string) bool {
	return a.Alias == "" && a.Group == making(alias)
}

// make makes the pair, both ends in their places.
func (w *work) make() error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Group = w.s.Host, w.s.MTU, making(w.s.Alias)
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU = w.s.IfName, w.s.MAC, uint32(w.s.MTU)
	veth.PeerNamespace = netlink.NsFd(w.n.fd)
	err := netlink.LinkAdd(veth)
	if errors.Is(err, unix.EEXIST) {
		return fmt.Errorf("make the pair %s, %s: %w", w.s.Host, w.s.IfName, ErrTaken)
	}
	if err != nil {
		return fmt.Errorf("make the pair %s, %s: %w", w.s.Host, w.s.IfName, err)
	}
	w.onFailure(func() { _ = remove(veth) })
	if err := netlink.LinkSetAlias(veth, w.s.Alias); err != nil {
		return fmt.Errorf("set alias of %s: %w", w.s.Host, err)
	}
	if err := netlink.LinkSetGroup(veth, 0); err != nil {
		return fmt.Errorf("set group of %s: %w", w.s.Host, err)
	}
	// The host's end is the switch's: no address, nothing sent by the host's own stack.
	err = netlink.LinkSetIP6AddrGenMode(veth, in6AddrGenModeNone)
	if err != nil && !errors.Is(err, unix.EAFNOSUPPORT) { // there is no IPv6, or none below its least MTU
		return fmt.Errorf("keep IPv6 addresses off %s: %w", w.s.Host, err)
	}
	if w.host, err = netlink.LinkByIndex(veth.Index); err != nil {
		return fmt.Errorf("look up what was made: %w", err)
	}
	if w.peer, err = w.in.LinkByIndex(w.host.Attrs().ParentIndex); err != nil {
		return fmt.Errorf("look up what was made in the container: %w", err)
	}
	w.fresh = true
	return w.setAlias()
}

func (w *work) setAlias() error {
	if w.peer.Attrs().Alias == w.s.Alias {
		return nil
	}
	if err := w.in.LinkSetAlias(w.peer, w.s.Alias); err != nil {
		return fmt.Errorf("set alias of %s: %w", w.s.IfName, err)
	}
	return nil
}

// change makes the two ends that are there as they shall be.
func (w *work) change() error {
	if err := w.setAlias(); err != nil {
		return err
	}
	if w.host.Attrs().Group == making(w.s.Alias) { // killed between the two
		if err := netlink.LinkSetGroup(w.host, 0); err != nil {
			return fmt.Errorf("set group of %s: %w", w.s.Host, err)
		}
	}
	old := *w.peer.Attrs()
	if old.Name != w.s.IfName {
		if err := w.rename(old.Name); err != nil {
			return err
		}
	}
	if !bytes.Equal(old.HardwareAddr, w.s.MAC) {
		if err := w.in.LinkSetHardwareAddr(w.peer, w.s.MAC); err != nil {
			return fmt.Errorf("set MAC address of %s to %s: %w", w.s.IfName, w.s.MAC, err)
		}
		w.onFailure(func() { _ = w.in.LinkSetHardwareAddr(w.peer, old.HardwareAddr) })
		w.fresh = true
	}
	if old.MTU != w.s.MTU {
		if err := w.in.LinkSetMTU(w.peer, w.s.MTU); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", w.s.IfName, w.s.MTU, err)
		}
		w.onFailure(func() { _ = w.in.LinkSetMTU(w.peer, old.MTU) })
	}
	if mtu := w.host.Attrs().MTU; mtu != w.s.MTU {
		if err := netlink.LinkSetMTU(w.host, w.s.MTU); err != nil {
			return fmt.Errorf("set MTU of %s to %d: %w", w.s.Host, w.s.MTU, err)
		}
		w.onFailure(func() { _ = netlink.LinkSetMTU(w.host, mtu) })
	}
	return nil
}

// rename gives the container's end its name. Before Linux 6.2 that needs it down.
func (w *work) rename(old string) error {
	err := w.in.LinkSetName(w.peer, w.s.IfName)
	if errors.Is(err, unix.EBUSY) {
		if err = w.in.LinkSetDown(w.peer); err == nil {
			err = w.in.LinkSetName(w.peer, w.s.IfName)
		}
	}
	if err != nil {
		return fmt.Errorf("rename %s of the container to %s: %w", old, w.s.IfName, err)
	}
	w.onFailure(func() { _ = w.in.LinkSetName(w.peer, old) })
	return nil
}

// raise brings both ends and the container's loopback up, and waits until both carry
// frames: that is some time after the kernel has said that they are up (link watch), and
// what is sent before is lost. What is up already is not touched: it would be an event,
// and an event is what brings callers here.
func (w *work) raise() error {
	lo, err := w.in.LinkByName("lo")
	if err == nil && lo.Attrs().RawFlags&unix.IFF_UP == 0 {
		err = w.in.LinkSetUp(lo)
	}
	if err != nil {
		return fmt.Errorf("bring the container's loopback up: %w", err)
	}
	if w.host.Attrs().RawFlags&unix.IFF_UP == 0 {
		if err := netlink.LinkSetUp(w.host); err != nil {
			return fmt.Errorf("bring %s up: %w", w.s.Host, err)
		}
	}
	// Renaming may have taken it down since it was looked at; up again is no event.
	if err := w.in.LinkSetUp(w.peer); err != nil {
		return fmt.Errorf("bring %s of the container up: %w", w.s.IfName, err)
	}
	return w.running()
}

func (w *work) running() error {
	deadline := time.Now().Add(runningWait)
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 20*time.Millisecond) {
		host, err := netlink.LinkByIndex(w.host.Attrs().Index)
		if err != nil {
			return fmt.Errorf("look at %s: %w", w.s.Host, err)
		}
		peer, err := w.in.LinkByIndex(w.peer.Attrs().Index)
		if err != nil {
			return fmt.Errorf("look at %s of the container: %w", w.s.IfName, err)
		}
		if host.Attrs().OperState == netlink.OperUp && peer.Attrs().OperState == netlink.OperUp {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("bring the pair up: after %v %s is %s, and %s of the container %s",
				runningWait, w.s.Host, host.Attrs().OperState, w.s.IfName, peer.Attrs().OperState)
		}
		time.Sleep(pause)
	}
}

// Unplug removes the pair whose host's end is host and has that alias. That it is gone
// already is no error; that somebody else's interface has the name is, and it is ErrTaken.
func Unplug(host, alias string) error {
	l, err := netlink.LinkByName(host)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("unplug %s: %w", host, err)
	}
	if a := l.Attrs(); l.Type() != "veth" || a.Name != host || a.Alias != alias && !unfinished(a, alias) {
		return fmt.Errorf("unplug %s: the interface is somebody else's: %w", host, ErrTaken)
	}
	if err := remove(l); err != nil {
		return fmt.Errorf("unplug %s: %w", host, err)
	}
	return nil
}

// remove removes an interface by its index, which nobody else gets while it lives.
func remove(l netlink.Link) error {
	err := netlink.LinkDel(&netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: l.Attrs().Index}})
	if errors.Is(err, unix.ENODEV) {
		return nil
	}
	return err
}

// Leftovers lists the veth ends of this namespace whose maker was killed before it gave them
// their aliases: what alias says of their names.
func Leftovers(alias func(host string) string) (hosts []string, err error) {
	for try := 1; ; try++ {
		all, err := netlink.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
		for _, l := range all {
			if a := l.Attrs(); l.Type() == "veth" && unfinished(a, alias(a.Name)) {
				hosts = append(hosts, a.Name)
			}
		}
		return hosts, nil
	}
}
