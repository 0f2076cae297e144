// Package ipam gives addresses out of pools, each to one owner, and remembers it on disk
// before anybody uses it. It knows no bridge, container or runtime: owners are strings.
package ipam

import (
	"errors"
	"net/netip"
	"time"

	"go.etcd.io/bbolt"

	"vswitch/ctl/config"
)

// Pool is where addresses come from: config.Pool's meaning. Pools with different names
// are different networks, which may both have the same addresses.
type Pool struct {
	Name string // such as br0, or docker/10.1.0.0/16
	config.Pool
}

// Lease is an address that somebody has.
type Lease struct {
	Pool  string     `json:"pool"`
	Addr  netip.Addr `json:"address"`
	Owner string     `json:"owner"`
	Since time.Time  `json:"since"`
}

// Errors that a caller tells apart, with errors.Is.
var (
	ErrTaken = errors.New("address is taken")
	ErrFull  = errors.New("no address is left")
)

// Store holds the leases.
//
// Thread-safety: safe for concurrent use.
type Store struct{}

// Open reads the leases of db, which stays the caller's.
func Open(db *bbolt.DB) (*Store, error) { return nil, errors.New("not built yet") }

// Lease returns the address that owner has in pool, in the family of pool.Subnet, or gives
// it a free one: never the network's and broadcast addresses (IPv4), the subnet-router anycast
// address (IPv6), the gateway, what is excluded, pool.Own, what is leased, or what taken says
// somebody has by other means (nil: nobody). It is on disk when Lease returns. An owner whose
// address does not fit the pool any more gets another. Addresses freed last are given last.
func (s *Store) Lease(pool Pool, owner string, taken func(netip.Addr) bool) (netip.Addr, error) {
	return netip.Addr{}, errors.New("not built yet")
}

// Reserve gives owner that very address, which need not be in any range. The error says who has it.
func (s *Store) Reserve(pool string, addr netip.Addr, owner string) error {
	return errors.New("not built yet")
}

// Release takes back all that owner has in pool ("" is every pool). None is no error.
func (s *Store) Release(pool, owner string) error { return errors.New("not built yet") }

// ReleaseAddr takes back one address of a pool.
func (s *Store) ReleaseAddr(pool string, addr netip.Addr) error { return errors.New("not built yet") }

// Leases lists what is given out, by pool and address; pool "" is all.
func (s *Store) Leases(pool string) []Lease { return nil }

// Of lists what owner has.
func (s *Store) Of(owner string) []Lease { return nil }
