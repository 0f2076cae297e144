package plug

import (
	"net"
	"net/netip"
	"slices"
	"time"

	"vswitch/ctl/config"
	"vswitch/plug/ipam"
)

// Want is a plug that shall be.
type Want struct {
	Port     string // name of the host's end
	Bridge   string
	Owner    string // cni: a runtime's; "" the operator's
	Plug     config.Plug
	Pools    []ipam.Pool  // of the bridge, at most one of each family
	Gateways []netip.Addr // of the bridge, for a plug that names none
	MTU      int          // bytes
	Alias    string       // of the interfaces

	// Others are addresses that neighbours on the bridge have by their own configuration.
	Others func(netip.Addr) bool
}

// owner is who has the leases of a plug: the container's name, not the port's.
func (w *Want) owner() string { return LeaseOwner(w.Plug.Container, w.Plug.IfName) }

// LeaseOwner is the owner of the leases of a plug.
func LeaseOwner(c config.ContainerRef, ifname string) string { return c.String() + " " + ifname }

// same says whether nothing changed that needs a look.
func (w *Want) same(o *Want) bool {
	return w.Port == o.Port && w.Bridge == o.Bridge && w.MTU == o.MTU && w.Alias == o.Alias && w.Owner == o.Owner &&
		slices.Equal(w.Gateways, o.Gateways) && slices.EqualFunc(w.Pools, o.Pools, samePool) && samePlug(w.Plug, o.Plug)
}

func samePool(a, b ipam.Pool) bool {
	return a.Name == b.Name && a.Subnet == b.Subnet && a.Range == b.Range && a.Gateway == b.Gateway &&
		slices.Equal(a.Exclude, b.Exclude) && slices.Equal(a.Own, b.Own)
}

func samePlug(a, b config.Plug) bool {
	return a.Container == b.Container && a.IfName == b.IfName && slices.Equal(a.Addresses, b.Addresses) && a.Auto4 == b.Auto4 && a.Auto6 == b.Auto6 &&
		slices.Equal(a.Gateways, b.Gateways) && a.NoGateway == b.NoGateway && slices.Equal(a.Routes, b.Routes) && slices.Equal(a.MAC, b.MAC) && a.MTU == b.MTU
}

// The states of a plug.
const (
	Plugged = "plugged"
	Waiting = "waiting" // for its container
	Failed  = "error"
	Going   = "going" // its container is gone; it goes after the grace time
)

// State is what became of a plug.
type State struct {
	State, Reason string
	Since         time.Time
	Addresses     []netip.Prefix
	Gateways      []netip.Addr
	MAC           net.HardwareAddr
	MTU           int
	NetNS, ID     string
	Names         []string // that the runtime knows the container by
}
