// Package wire makes and unmakes veth pairs: one end in this network namespace, for the
// switch, the other in a container, dressed with a name, addresses, routes and an MTU.
// It knows no runtime and no document.
package wire

import (
	"errors"
	"net"
	"net/netip"
)

// Route is one route of a container.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr // the zero Addr: on the link
}

// Spec is how a pair shall be.
type Spec struct {
	Host      string           // name of the host's end, at most 15 bytes
	Alias     string           // written to both ends' ifalias: by it a crash's leftovers are known
	IfName    string           // name of the container's end
	MAC       net.HardwareAddr // of the container's end; never nil
	MTU       int              // of both ends
	Addresses []netip.Prefix   // of the container's end, host bits kept
	Gateways  []netip.Addr     // default routes, at most one of each family
	Soft      bool             // a default route is set only in a family that has none
	Routes    []Route
}

// Plugged is what is there.
type Plugged struct {
	Host, Container int  // interface indexes, each in its own namespace
	Made            bool // the pair was not there before
}

// Namespace is an open network namespace. Close gives it back.
//
// Thread-safety: immutable; may be used by many goroutines until Close.
type Namespace struct{}

// ID identifies a namespace as long as it lives: device and inode of its file in nsfs.
// It is comparable.
type ID struct{ Dev, Ino uint64 }

// Errors that a caller tells apart, with errors.Is.
var (
	ErrNoNamespace = errors.New("the network namespace is gone")
	ErrTaken       = errors.New("the interface name is taken")
)

// Open opens the network namespace at path: /proc/PID/ns/net, /run/netns/NAME, or
// what a runtime names. What is no network namespace, and this process's own, are refused.
func Open(path string) (*Namespace, error) { return nil, errors.New("not built yet") }

func (n *Namespace) ID() ID       { return ID{} }
func (n *Namespace) Close() error { return nil }

// Plug makes the pair as s says, or changes the one that is there (known by its alias
// and by where its other end is) into that, and announces its addresses (gratuitous ARP,
// unsolicited neighbour advertisements) when the pair or an address is new. A failure
// half way leaves no pair behind that was not there before. had is what an earlier Plug
// was given, whose addresses and routes go where s lacks them; nil: nothing is known.
func Plug(n *Namespace, s Spec, had *Spec) (Plugged, error) {
	return Plugged{}, errors.New("not built yet")
}

// Unplug removes the pair whose host's end is host and has that alias. That it is gone
// already is no error; that somebody else's interface has the name is.
func Unplug(host, alias string) error { return errors.New("not built yet") }

// Announce tells the container's neighbours of its addresses again.
func Announce(n *Namespace, ifname string) error { return errors.New("not built yet") }

// Leftovers lists interfaces of this namespace whose alias begins with prefix.
func Leftovers(prefix string) ([]Leftover, error) { return nil, errors.New("not built yet") }

// Leftover is an interface that somebody made by this package.
type Leftover struct {
	Name, Alias string
	Index       int
}
