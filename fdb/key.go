package fdb

import (
	"encoding/binary"
	"fmt"
)

// Key is a MAC address within a VLAN, in one word: bit 63 set, the VLAN in bits
// 48 to 59, the MAC in bits 0 to 47 with the first byte on the wire highest.
// The zero Key is no key: it is never found.
type Key uint64

const (
	keyValid  = 1 << 63
	macBits   = 48
	macMask   = 1<<macBits - 1
	vlanMask  = 0xfff
	groupBit  = 1 << 40 // lowest bit of the MAC's first byte: multicast and broadcast
	keySpared = 7 << 60 // must be zero
)

// MakeKey makes the key of mac in vlan, of which the lower 12 bits count. For
// a slice of a frame convert it: MakeKey(vlan, (*[6]byte)(b)).
func MakeKey(vlan uint16, mac *[6]byte) Key {
	return keyValid | Key(vlan&vlanMask)<<macBits |
		Key(binary.BigEndian.Uint32(mac[:4]))<<16 | Key(binary.BigEndian.Uint16(mac[4:]))
}

// VLAN is the key's VLAN, 0 to 4095.
func (k Key) VLAN() uint16 { return uint16(k>>macBits) & vlanMask }

// MAC is the key's address.
func (k Key) MAC() (mac [6]byte) {
	binary.BigEndian.PutUint32(mac[:4], uint32(k>>16))
	binary.BigEndian.PutUint16(mac[4:], uint16(k))
	return mac
}

// Learnable says whether the key can be in the table: made by MakeKey, and its
// MAC neither multicast (broadcast included) nor zero.
func (k Key) Learnable() bool {
	return k&(keyValid|keySpared|groupBit) == keyValid && k&macMask != 0
}

// String is the key as "02:00:00:00:00:01 vlan 10".
func (k Key) String() string {
	m := k.MAC()
	return fmt.Sprintf("%02x:%02x:%02x:%02x:%02x:%02x vlan %d", m[0], m[1], m[2], m[3], m[4], m[5], k.VLAN())
}

// Port is the small number that the switch gave to a port, 0 to MaxPort. The
// table keeps 12 bytes for each number up to the highest one it saw, so give
// out low numbers first.
type Port uint32

// MaxPort is the highest port number that an entry has room for.
const MaxPort Port = 1<<portBits - 1
