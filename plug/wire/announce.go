package wire

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// Announce tells the container's neighbours of its addresses again: those that are in
// use, of the interface ifname.
func Announce(n *Namespace, ifname string) error {
	in, err := n.netlink()
	if err != nil {
		return fmt.Errorf("announce %s: %w", ifname, err)
	}
	defer in.Close()
	l, err := in.LinkByName(ifname)
	if err != nil {
		return fmt.Errorf("announce %s: %w", ifname, err)
	}
	all, err := addressList(in, l)
	if err != nil {
		return fmt.Errorf("announce %s: %w", ifname, err)
	}
	var addrs []netip.Addr
	for _, a := range all {
		// A tentative address is nobody's yet (RFC 4862 section 5.4).
		if a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
			addrs = append(addrs, prefixOf(a.IPNet).Addr())
		}
	}
	return n.announce(ifname, l.Attrs().Index, l.Attrs().HardwareAddr, addrs)
}

// announce sends one announcement of each address.
func (n *Namespace) announce(ifname string, index int, mac net.HardwareAddr, addrs []netip.Addr) error {
	if len(addrs) == 0 {
		return nil
	}
	if len(mac) != 6 {
		return fmt.Errorf("announce %s: it is no Ethernet interface", ifname)
	}
	fd := -1
	err := n.inside(func() (err error) {
		// Protocol 0: it receives nothing.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
		return err
	})
	if err != nil {
		return fmt.Errorf("announce %s: open packet socket: %w", ifname, err)
	}
	defer unix.Close(fd)
	for _, a := range addrs {
		f := announcement([6]byte(mac), a)
		to := &unix.SockaddrLinklayer{Ifindex: index, Protocol: binary.NativeEndian.Uint16(f[etherType:]), Halen: 6}
		copy(to.Addr[:], f[:6])
		if err := sendto(fd, f, to); err != nil {
			return fmt.Errorf("announce %s of %s: %w", a, ifname, err)
		}
	}
	return nil
}

func sendto(fd int, f []byte, to unix.Sockaddr) error {
	for {
		if err := unix.Sendto(fd, f, 0, to); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// Announcements as they are on the wire.
//
//	Ethernet, 14 bytes
//	 0                   6                  12     14
//	+-------------------+------------------+------+
//	| destination       | source           | type |
//	+-------------------+------------------+------+
//
//	ARP announcement (RFC 826; RFC 5227 section 2.3): a request whose sender and target
//	are the same address, to everybody, 28 bytes
//	 0      2      4  5  6    8              14          18             24          28
//	+------+------+--+--+----+--------------+-----------+--------------+-----------+
//	| 1    |0x0800| 6| 4| 1  | sender's MAC | sender IP | 0            | target IP |
//	+------+------+--+--+----+--------------+-----------+--------------+-----------+
//
//	unsolicited neighbour advertisement (RFC 4861 sections 4.4 and 7.2.6), from the
//	address to all nodes, 40 bytes of IPv6 and 32 of ICMPv6
//	 0        4      6    7    8             24            40
//	+--------+------+----+----+-------------+-------------+
//	| 6, 0   | 32   | 58 | 255| the address | ff02::1     |
//	+--------+------+----+----+-------------+-------------+
//	 0    1    2         4                8             24  25  26             32
//	+----+----+---------+----------------+-------------+---+---+--------------+
//	| 136| 0  | checksum| R S O, 29 zeros| the address | 2 | 1 | MAC          |
//	+----+----+---------+----------------+-------------+---+---+--------------+
//	R (router) 0, S (solicited) 0, O (override what the cache holds) 1
const (
	etherType = 12
	etherLen  = 14

	arpLen    = 28
	arpMAC    = 8
	arpSender = 14
	arpTarget = 24

	ip6Len  = 40
	ip6Src  = 8
	ip6Dst  = 24
	icmpLen = 32

	naChecksum = 2
	naFlags    = 4
	naTarget   = 8
	naOption   = 24
	naOverride = 0x20
)

// announcement builds the frame that tells everybody that a is at mac.
func announcement(mac [6]byte, a netip.Addr) []byte {
	if a.Is4() {
		return arpAnnouncement(mac, a.As4())
	}
	return advertisement(mac, a.As16())
}

func arpAnnouncement(mac [6]byte, a [4]byte) []byte {
	f := make([]byte, etherLen+arpLen)
	copy(f, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	copy(f[6:], mac[:])
	binary.BigEndian.PutUint16(f[etherType:], unix.ETH_P_ARP)
	p := f[etherLen:]
	copy(p, []byte{0, 1, 0x08, 0x00, 6, 4, 0, 1})
	copy(p[arpMAC:], mac[:])
	copy(p[arpSender:], a[:])
	copy(p[arpTarget:], a[:])
	return f
}

func advertisement(mac [6]byte, a [16]byte) []byte {
	f := make([]byte, etherLen+ip6Len+icmpLen)
	copy(f, []byte{0x33, 0x33, 0, 0, 0, 1}) // of ff02::1: RFC 2464 section 7
	copy(f[6:], mac[:])
	binary.BigEndian.PutUint16(f[etherType:], unix.ETH_P_IPV6)
	p := f[etherLen:]
	copy(p, []byte{0x60, 0, 0, 0, 0, icmpLen, unix.IPPROTO_ICMPV6, 255})
	copy(p[ip6Src:], a[:])
	copy(p[ip6Dst:], []byte{0xff, 0x02, 15: 1})
	m := p[ip6Len:]
	m[0] = 136 // neighbour advertisement
	m[naFlags] = naOverride
	copy(m[naTarget:], a[:])
	copy(m[naOption:], []byte{2, 1}) // target link-layer address, one unit of 8 bytes
	copy(m[naOption+2:], mac[:])
	// The pseudo-header (RFC 8200 section 8.1): both addresses, length, next header.
	sum := frame.Sum(p[ip6Src:ip6Len], icmpLen+unix.IPPROTO_ICMPV6)
	binary.BigEndian.PutUint16(m[naChecksum:], ^frame.Sum(m, uint32(sum)))
	return f
}
