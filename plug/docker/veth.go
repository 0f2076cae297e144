package docker

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"sync/atomic"

	"github.com/vishvananda/netlink"
)

// wire is a veth pair as Docker takes it over: plain, both ends in this namespace. Docker
// moves the peer, names it, and gives it its addresses and routes.
type wire struct {
	Host  string // the end that is a port
	Peer  string // the end that Docker moves
	Alias string // of both
	MAC   net.HardwareAddr
	MTU   int
}

// wires is the kernel, or its double.
type wires interface {
	make(wire) error
	remove(host, alias string) error
	there(host string) bool
	foreign(name, alias string) bool // there is such an interface, and it is somebody else's
	routes() ([]netip.Prefix, error)
}

// peerOf is the name of the end that Docker moves, as long as it is in this namespace.
func peerOf(id string) string { return "vsd" + id[:min(len(id), 12)] }

// kernel makes real pairs. Thread-safety: safe for concurrent use, as rtnetlink(7) is.
type kernel struct{}

// A pair is born under names that say who makes it, and is removed by the next start of the
// switch when this process dies before it has its alias.
const bornAs = "vsw.%d.%c%02d"

var births atomic.Uint32

// make makes the pair. One that is whole in this namespace is brought up to date; one whose
// other end is in a container that Docker has done with is made anew.
func (kernel) make(w wire) error {
	host, peer, err := ends(w)
	if err != nil {
		return err
	}
	if host != nil && peer == nil {
		if err := netlink.LinkDel(host); err != nil && !vanished(w.Host) {
			return fmt.Errorf("remove the old interface %s: %w", w.Host, err)
		}
		host = nil
	}
	if host == nil {
		if host, peer, err = born(w); err != nil {
			return err
		}
	}
	if err := dress(w, host, peer); err != nil {
		_ = netlink.LinkDel(host) // the reason is err
		return err
	}
	return nil
}

// ends finds the pair. That somebody else's interface has the name is an error.
func ends(w wire) (host, peer netlink.Link, err error) {
	find := func(name string) (netlink.Link, error) {
		l, err := netlink.LinkByName(name)
		if gone(err) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("look for interface %s: %w", name, err)
		}
		if l.Attrs().Alias != w.Alias {
			return nil, fmt.Errorf("interface %s is somebody else's", name)
		}
		return l, nil
	}
	if host, err = find(w.Host); err != nil {
		return nil, nil, err
	}
	if peer, err = find(w.Peer); err != nil {
		return nil, nil, err
	}
	if host == nil || peer == nil || host.Attrs().ParentIndex != peer.Attrs().Index {
		return host, nil, nil
	}
	return host, peer, nil
}

// born makes a new pair, down, with its aliases and names.
func born(w wire) (host, peer netlink.Link, err error) {
	serial := births.Add(1) % 100
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = fmt.Sprintf(bornAs, os.Getpid(), 'h', serial), w.MTU
	pair := &netlink.Veth{LinkAttrs: attrs, PeerName: fmt.Sprintf(bornAs, os.Getpid(), 'p', serial), PeerHardwareAddr: w.MAC}
	if err := netlink.LinkAdd(pair); err != nil {
		return nil, nil, fmt.Errorf("make a veth pair: %w", err)
	}
	defer func() {
		if err != nil {
			_ = netlink.LinkDel(pair) // the reason is err
		}
	}()
	if host, err = netlink.LinkByName(pair.Name); err != nil {
		return nil, nil, fmt.Errorf("look for interface %s: %w", pair.Name, err)
	}
	if peer, err = netlink.LinkByName(pair.PeerName); err != nil {
		return nil, nil, fmt.Errorf("look for interface %s: %w", pair.PeerName, err)
	}
	// It is a wire: the host itself has nothing to say there. A kernel without IPv6 has no such file.
	_ = os.WriteFile("/proc/sys/net/ipv6/conf/"+pair.Name+"/disable_ipv6", []byte("1"), 0)
	for _, end := range []struct {
		link netlink.Link
		name string
	}{{peer, w.Peer}, {host, w.Host}} { // the port's end last: who sees its name finds a pair
		if err = netlink.LinkSetAlias(end.link, w.Alias); err != nil {
			return nil, nil, fmt.Errorf("mark interface %s: %w", end.name, err)
		}
		if err = netlink.LinkSetName(end.link, end.name); err != nil {
			return nil, nil, fmt.Errorf("name interface %s: %w", end.name, err)
		}
	}
	return host, peer, nil
}

// dress gives the pair its MTU and MAC address.
func dress(w wire, host, peer netlink.Link) error {
	for _, end := range []netlink.Link{host, peer} {
		if end.Attrs().MTU != w.MTU {
			if err := netlink.LinkSetMTU(end, w.MTU); err != nil {
				return fmt.Errorf("set the MTU of %s: %w", end.Attrs().Name, err)
			}
		}
	}
	if w.MAC != nil && peer.Attrs().HardwareAddr.String() != w.MAC.String() {
		if err := netlink.LinkSetHardwareAddr(peer, w.MAC); err != nil {
			return fmt.Errorf("set the MAC address of %s: %w", w.Peer, err)
		}
	}
	return nil
}

// remove removes a pair by its host's end. That it is gone is no error.
func (kernel) remove(host, alias string) error {
	l, err := netlink.LinkByName(host)
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("look for interface %s: %w", host, err)
	}
	if l.Attrs().Alias != alias {
		return nil // somebody else's
	}
	if err := netlink.LinkDel(l); err != nil && !vanished(host) {
		return fmt.Errorf("remove interface %s: %w", host, err)
	}
	return nil
}

func (kernel) there(host string) bool { return !vanished(host) }

func (kernel) foreign(name, alias string) bool {
	l, err := netlink.LinkByName(name)
	return err == nil && l.Attrs().Alias != alias
}

func vanished(name string) bool {
	_, err := netlink.LinkByName(name)
	return gone(err)
}

func gone(err error) bool { return errors.As(err, &netlink.LinkNotFoundError{}) }
