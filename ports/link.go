package ports

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Link is what the switch needs to know of a network interface.
type Link struct {
	Name    string
	Index   int
	Kind    string // rtnl_link kind: veth, tun, bridge …; "" for hardware and loopback
	Alias   string
	MAC     net.HardwareAddr
	MTU     int
	Up      bool // administratively (IFF_UP)
	Carrier bool // IFF_LOWER_UP
	Ether   bool // ARPHRD_ETHER: its frames have Ethernet headers
	Master  int  // ifindex of the bridge or bond it belongs to, or 0
	Owner   int  // uid that may attach to a TAP; 0 also when none is set
	Group   int  // gid, likewise
}

// linkOf reads what rtnetlink(7) told.
func linkOf(l netlink.Link) Link {
	a := l.Attrs()
	kind := l.Type()
	if kind == "device" || kind == "tuntap" {
		kind = map[string]string{"device": "", "tuntap": "tun"}[kind]
	}
	var owner, group int
	if t, ok := l.(*netlink.Tuntap); ok {
		owner, group = int(t.Owner), int(t.Group)
	}
	return Link{
		Owner: owner, Group: group,
		Name: a.Name, Index: a.Index, Kind: kind, Alias: a.Alias, MAC: a.HardwareAddr, MTU: a.MTU,
		Up: a.RawFlags&unix.IFF_UP != 0, Carrier: a.RawFlags&unix.IFF_LOWER_UP != 0,
		Ether: a.EncapType == "ether", Master: a.MasterIndex,
	}
}

// dumpTries is how often a dump is asked for again that a change interrupted
// (NLM_F_DUMP_INTR).
const dumpTries = 10

// Links lists this namespace's interfaces. A dump that a change interrupted is
// asked for again.
func Links() ([]Link, error) {
	for try := 1; ; try++ {
		ls, err := netlink.LinkList()
		if errors.Is(err, netlink.ErrDumpInterrupted) && try < dumpTries {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("list interfaces: %w", err)
		}
		out := make([]Link, len(ls))
		for i, l := range ls {
			out[i] = linkOf(l)
		}
		return out, nil
	}
}

// LinkByName returns one interface; ok is false when there is none.
func LinkByName(name string) (l Link, ok bool, err error) {
	nl, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return Link{}, false, nil
	}
	if err != nil {
		return Link{}, false, fmt.Errorf("look up interface %s: %w", name, err)
	}
	return linkOf(nl), true, nil
}

// Raise brings an interface up.
func Raise(index int) error {
	return netlink.LinkSetUp(byIndex(index))
}

// Lower takes an interface down.
func Lower(index int) error {
	return netlink.LinkSetDown(byIndex(index))
}

// SetMTU sets an interface's MTU in bytes.
func SetMTU(index, mtu int) error {
	return netlink.LinkSetMTU(byIndex(index), mtu)
}

// SetMAC sets an interface's address.
func SetMAC(index int, mac net.HardwareAddr) error {
	return netlink.LinkSetHardwareAddr(byIndex(index), mac)
}

func byIndex(index int) netlink.Link {
	return &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
}

// SetAddresses makes want the addresses of an interface, of those that a user
// could have given it: link-local addresses of the kernel's own making stay.
// The addresses in had, and no others, are taken away where want lacks them, so
// that one added by hand is left alone.
//
// With the first IPv4 address of a subnet the kernel takes the others of that
// subnet away (unless promote_secondaries is set): so what goes goes first, and
// what went with it is put back.
func SetAddresses(index int, had, want []netip.Prefix) error {
	link := byIndex(index)
	var drop []netip.Prefix
	for _, p := range had {
		if !slices.Contains(want, p) {
			drop = append(drop, p)
		}
	}
	var others []netlink.Addr
	if len(drop) > 0 {
		all, err := netlink.AddrList(link, netlink.FAMILY_V4)
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		others = slices.DeleteFunc(all, func(a netlink.Addr) bool {
			return slices.ContainsFunc(drop, func(p netip.Prefix) bool { return a.Equal(*addrOf(p)) })
		})
	}
	for _, p := range drop {
		if err := netlink.AddrDel(link, addrOf(p)); err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) {
			return fmt.Errorf("remove address %s: %w", p, err)
		}
	}
	have, err := netlink.AddrList(link, netlink.FAMILY_ALL)
	if err != nil {
		return fmt.Errorf("list addresses: %w", err)
	}
	for _, p := range want {
		// One that is there is left alone: setting it again would be an event, and
		// an event is what brings us here.
		if slices.ContainsFunc(have, func(a netlink.Addr) bool { return a.Equal(*addrOf(p)) }) {
			continue
		}
		if err := netlink.AddrReplace(link, addrOf(p)); err != nil {
			return fmt.Errorf("set address %s: %w", p, err)
		}
	}
	for _, a := range others {
		if slices.ContainsFunc(want, func(p netip.Prefix) bool { return a.Equal(*addrOf(p)) }) {
			continue
		}
		if err := netlink.AddrReplace(link, &a); err != nil {
			return fmt.Errorf("put address %s back: %w", a.IPNet, err)
		}
	}
	return nil
}

func addrOf(p netip.Prefix) *netlink.Addr {
	a := p.Addr()
	n := &net.IPNet{IP: a.AsSlice(), Mask: net.CIDRMask(p.Bits(), a.BitLen())}
	addr := &netlink.Addr{IPNet: n}
	if a.Is6() {
		// The switch is the only one on its local port to ask; an address that is
		// tentative for a second after each start would break the promise of it.
		addr.Flags = unix.IFA_F_NODAD
	}
	return addr
}

// Owned returns the alias that marks an interface as made by the switch with
// this instance identity, for one of its ports.
func Owned(instance, port string) string { return "vswitch " + instance + " " + port }

// RemoveOwned removes the interfaces that this instance made and that keep does
// not want, and those that a process which is gone left half made. It returns
// their names.
func RemoveOwned(links []Link, instance string, keep func(Link) bool) []string {
	var removed []string
	for _, l := range links {
		mine := strings.HasPrefix(l.Alias, "vswitch "+instance+" ") && !keep(l)
		if !mine && !orphan(l.Name) {
			continue
		}
		if netlink.LinkDel(byIndex(l.Index)) == nil {
			removed = append(removed, l.Name)
		}
	}
	return removed
}

// orphan reports whether name is a temporary name of a process that is gone.
func orphan(name string) bool {
	rest, ok := strings.CutPrefix(name, temporary)
	if !ok {
		return false
	}
	pid, _, _ := strings.Cut(rest, ".")
	n, err := strconv.Atoi(pid)
	if err != nil || n <= 0 {
		return false
	}
	if n == os.Getpid() {
		return true // asked before this process makes one: another had its number
	}
	_, err = os.Stat(filepath.Join("/proc", pid))
	return errors.Is(err, os.ErrNotExist)
}

func renameLink(from, to string) error {
	l, err := netlink.LinkByName(from)
	if err != nil {
		return err
	}
	return netlink.LinkSetName(l, to)
}

// RemoveLink removes an interface; that it is gone already is no error.
func RemoveLink(name string) error {
	l, err := netlink.LinkByName(name)
	if errors.As(err, &netlink.LinkNotFoundError{}) {
		return nil
	}
	if err != nil {
		return err
	}
	return netlink.LinkDel(l)
}

func removeLink(name string) { _ = RemoveLink(name) }

func drain[T any](c <-chan T) {
	for range c {
	}
}

// watchBuffer is the receive buffer of an event socket in bytes: some ten thousand
// events may wait.
const watchBuffer = 4 << 20

// Watch calls changed with the name of each interface that appears, changes or
// goes, and readdressed with the index of one that gets or loses an address, until
// done is closed or an error ends it, which it returns: then events were lost
// (ENOBUFS), and whoever watches must look at everything anew.
//
// Thread-safety: both are called from Watch's own goroutine.
func Watch(done <-chan struct{}, changed func(name string), readdressed func(index int)) error {
	links := make(chan netlink.LinkUpdate, 64)
	addrs := make(chan netlink.AddrUpdate, 64)
	// Each is written before its channel is closed, by the goroutine that closes it.
	var linksFailed, addrsFailed error
	stop := make(chan struct{})
	defer close(stop)
	err := netlink.LinkSubscribeWithOptions(links, stop, netlink.LinkSubscribeOptions{
		ErrorCallback:     func(err error) { linksFailed = err },
		ReceiveBufferSize: watchBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return fmt.Errorf("subscribe to interface events: %w", err)
	}
	// A sender does not look at stop while it sends; it closes the channel at its
	// end, and that ends drain.
	defer func() { go drain(links) }()
	err = netlink.AddrSubscribeWithOptions(addrs, stop, netlink.AddrSubscribeOptions{
		ErrorCallback:     func(err error) { addrsFailed = err },
		ReceiveBufferSize: watchBuffer, ReceiveBufferForceSize: true,
	})
	if err != nil {
		return fmt.Errorf("subscribe to address events: %w", err)
	}
	defer func() { go drain(addrs) }()
	changed("") // what happened before the subscription
	for {
		select {
		case <-done:
			return nil
		case u, ok := <-links:
			if !ok {
				return fmt.Errorf("receive interface events: %w", linksFailed)
			}
			changed(u.Attrs().Name)
		case u, ok := <-addrs:
			if !ok {
				return fmt.Errorf("receive address events: %w", addrsFailed)
			}
			readdressed(u.LinkIndex)
		}
	}
}
