// Package nat makes interfaces of the host gateways: forwarding, masquerading and published
// ports, by nftables in one table of our own. It knows no bridge and no container.
package nat

import (
	"errors"
	"log/slog"
	"net/netip"

	_ "github.com/google/nftables" // the room's tool
)

// Gateway is an interface of the host that is the gateway of its subnets.
type Gateway struct {
	Interface  string
	Subnets    []netip.Prefix // masked
	Masquerade bool           // what leaves for elsewhere has the host's address; nothing new comes in but what is published
	Internal   bool           // nothing goes from here to elsewhere, nor comes from there
}

// Forward is a port of the host that leads to a container.
type Forward struct {
	Host      netip.Addr // the zero Addr: any address of the host
	Port      uint16
	Proto     string // tcp, udp
	To        netip.AddrPort
	Interface string // the gateway behind which To is
}

// Status is what became of a Forward.
type Status struct {
	Forward
	Err string // why the port is not reachable; "" it is
}

// Firewall is the table.
//
// Thread-safety: safe for concurrent use.
type Firewall struct{}

// New makes nothing yet. The instance tells this daemon's table from others'. A table that a
// killed process left is replaced by the first Apply.
func New(instance string, log *slog.Logger) *Firewall { return &Firewall{} }

// Apply makes the table say exactly this, in one transaction; nothing at all removes it.
// Other tables are not touched, but for Docker's own chain for users' rules, DOCKER-USER,
// where it exists: Docker's FORWARD policy drops what nobody accepts.
func (f *Firewall) Apply(gateways []Gateway, forwards []Forward) ([]Status, error) {
	return nil, errors.New("not built yet")
}

// Check puts back what somebody took away (the table was flushed, Docker was restarted and made
// its chain anew), and says whether something was missing.
func (f *Firewall) Check() (bool, error) { return false, nil }

// Close removes the table and what else was put anywhere.
func (f *Firewall) Close() error { return nil }
