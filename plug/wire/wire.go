// Package wire makes and unmakes veth pairs: one end in this network namespace, for the
// switch, the other in a container, dressed with a name, addresses, routes and an MTU.
// It knows no runtime and no document.
//
//	this namespace                       the container's
//	┌──────────────────────┐             ┌─────────────────────────────────┐
//	│ Spec.Host            │    veth     │ Spec.IfName, Spec.MAC           │
//	│ alias, MTU, no IPv6  │◄───────────►│ alias, MTU, addresses, routes   │
//	│ of its own           │             │ lo is up                        │
//	└──────────────────────┘             └─────────────────────────────────┘
//
// Its one idea: every change pushes what takes it back, so that a failure at any step
// leaves both namespaces as they were. The container's end is born in the container's
// namespace, under its last name and address: there is no moment at which it could be
// seen under another, or be left behind in this one. Requests to the kernel go by a
// netlink socket that was opened in the container's namespace; only what has no netlink
// (a packet socket, one sysctl) is done by a thread that steps in for the moment.
//
// The namespace cannot go while Plug works on it, since an open Namespace holds it.
// When its container is gone by then, the kernel takes the pair away with the namespace
// at Close.
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

// Errors that a caller tells apart, with errors.Is.
var (
	ErrNoNamespace  = errors.New("the network namespace is gone")
	ErrTaken        = errors.New("the interface name is taken")
	ErrAddressTaken = errors.New("the address is taken")
)
