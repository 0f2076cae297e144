package ctl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Addresses and routes that move from one interface to another. They are kept in the
// kernel's own words, struct ifaddrmsg or rtmsg and the attributes behind it, see
// rtnetlink(7), and said again with another interface: so whatever a kernel knows of them
// comes along, without this program having heard of it.

// hostAddress is an address of an interface.
type hostAddress struct {
	Prefix    netip.Prefix `json:"address"`
	Flags     uint32       `json:"flags"`     // IFA_F_…
	Preferred uint32       `json:"preferred"` // seconds left; forever
	Valid     uint32       `json:"valid"`     // seconds left; forever
	Words     []byte       `json:"words"`
	peer      netip.Prefix // the other end's, where there is one
}

// forever is a lifetime without an end (INFINITY_LIFE_TIME).
const forever = 1<<32 - 1

// Attributes and flags that package unix lacks.
const (
	rtaExpires = 23
	rtaNhID    = 30
	rtnhLen    = 8 // struct rtnexthop
	rtnhOnlink = 4

	// What of an address's flags is asked for; the rest is the kernel's to say.
	askedFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
)

// maxWords bounds what is believed of a state file, in bytes.
const maxWords = 4096

// attribute is one of a message.
type attribute struct {
	kind  uint16
	value []byte
}

// attributesOf reads what follows a header of n bytes; ok is false for what makes no sense.
func attributesOf(words []byte, n int) (all []attribute, ok bool) {
	if len(words) < n || len(words) > maxWords {
		return nil, false
	}
	for b := words[n:]; len(b) > 0; {
		if len(b) < unix.SizeofRtAttr {
			return nil, false
		}
		size := int(binary.NativeEndian.Uint16(b))
		if size < unix.SizeofRtAttr || size > len(b) {
			return nil, false
		}
		all = append(all, attribute{binary.NativeEndian.Uint16(b[2:]), b[unix.SizeofRtAttr:size]})
		b = b[min((size+3)&^3, len(b)):]
	}
	return all, true
}

func appendAttribute(b []byte, kind uint16, value []byte) []byte {
	b = binary.NativeEndian.AppendUint16(b, uint16(unix.SizeofRtAttr+len(value)))
	b = binary.NativeEndian.AppendUint16(b, kind)
	b = append(b, value...)
	for len(b)%4 != 0 {
		b = append(b, 0)
	}
	return b
}

func words32(v ...uint32) (b []byte) {
	for _, x := range v {
		b = binary.NativeEndian.AppendUint32(b, x)
	}
	return b
}

// dumpTries is how often a dump is asked for again that a change interrupted.
const dumpTries = 10

// dump asks for all of a kind; header is the request's.
func dump(ask, answer uint16, header []byte) (all [][]byte, err error) {
	for range dumpTries {
		req := nl.NewNetlinkRequest(int(ask), unix.NLM_F_DUMP)
		req.AddRawData(header)
		if all, err = req.Execute(unix.NETLINK_ROUTE, answer); !errors.Is(err, nl.ErrDumpInterrupted) {
			break
		}
	}
	return all, err
}

// tell makes a request that is answered by done or an error.
func tell(what uint16, flags int, words []byte) error {
	req := nl.NewNetlinkRequest(int(what), flags|unix.NLM_F_ACK)
	req.AddRawData(words)
	_, err := req.Execute(unix.NETLINK_ROUTE, 0)
	return err
}

// addressesOn lists an interface's addresses that others may reach it by.
func addressesOn(index int) ([]hostAddress, error) {
	all, err := everyAddressOn(index)
	return movable(all), err
}

// movable leaves link-local addresses out, which every interface has its own of.
func movable(all []hostAddress) []hostAddress {
	return slices.DeleteFunc(slices.Clone(all), func(a hostAddress) bool { return a.Prefix.Addr().IsLinkLocalUnicast() })
}

// everyAddressOn has link-local ones, too.
func everyAddressOn(index int) ([]hostAddress, error) {
	all, err := dump(unix.RTM_GETADDR, unix.RTM_NEWADDR, make([]byte, unix.SizeofIfAddrmsg))
	if err != nil {
		return nil, fmt.Errorf("list addresses: %w", err)
	}
	var found []hostAddress
	for _, words := range all {
		if len(words) < unix.SizeofIfAddrmsg || int(binary.NativeEndian.Uint32(words[4:])) != index {
			continue
		}
		if a, ok := readAddress(words); ok {
			found = append(found, a)
		}
	}
	return found, nil
}

// readAddress reads struct ifaddrmsg (family, prefix length, flags, scope, index) and what
// follows it.
func readAddress(words []byte) (a hostAddress, ok bool) {
	all, ok := attributesOf(words, unix.SizeofIfAddrmsg)
	if !ok {
		return a, false
	}
	a = hostAddress{Flags: uint32(words[2]), Preferred: forever, Valid: forever, Words: slices.Clone(words)}
	var own, peer netip.Addr
	for _, x := range all {
		switch x.kind {
		case unix.IFA_LOCAL:
			own, _ = netip.AddrFromSlice(x.value)
		case unix.IFA_ADDRESS:
			peer, _ = netip.AddrFromSlice(x.value)
		case unix.IFA_FLAGS:
			if len(x.value) == 4 {
				a.Flags = binary.NativeEndian.Uint32(x.value)
			}
		case unix.IFA_CACHEINFO:
			if len(x.value) >= 8 {
				a.Preferred, a.Valid = binary.NativeEndian.Uint32(x.value), binary.NativeEndian.Uint32(x.value[4:])
			}
		}
	}
	if !own.IsValid() {
		own = peer // IPv6 has IFA_LOCAL only where there is a peer
	}
	if !own.IsValid() || own.Is4() != (words[0] == unix.AF_INET) || own.Is6() != (words[0] == unix.AF_INET6) || int(words[1]) > own.BitLen() {
		return a, false
	}
	a.Prefix = netip.PrefixFrom(own, int(words[1]))
	if peer.IsValid() && peer != own && peer.BitLen() == own.BitLen() {
		a.peer = netip.PrefixFrom(peer, int(words[1]))
	}
	return a, true
}

// wordsFor says the address of an interface, which was called was. Duplicate address detection
// would make an IPv6 address useless for a second: quiet does without, but for one that did not
// pass it yet.
func (a *hostAddress) wordsFor(index int, name, was string, quiet bool) []byte {
	b := slices.Clone(a.Words[:unix.SizeofIfAddrmsg])
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	flags := a.Flags & askedFlags
	if quiet && a.Prefix.Addr().Is6() && a.Flags&(unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
		flags |= unix.IFA_F_NODAD
	}
	b[2] = byte(flags)
	all, _ := attributesOf(a.Words, unix.SizeofIfAddrmsg)
	for _, x := range all {
		switch x.kind {
		case unix.IFA_FLAGS, unix.IFA_CACHEINFO:
			continue
		case unix.IFA_LABEL:
			label := strings.TrimRight(string(x.value), "\x00")
			rest, ok := strings.CutPrefix(label, was)
			if !ok || rest != "" && rest[0] != ':' || len(name)+len(rest) >= unix.IFNAMSIZ {
				rest = ""
			}
			x.value = append([]byte(name+rest), 0)
		}
		b = appendAttribute(b, x.kind, x.value)
	}
	b = appendAttribute(b, unix.IFA_FLAGS, words32(flags))
	return appendAttribute(b, unix.IFA_CACHEINFO, words32(a.Preferred, a.Valid, 0, 0))
}

func (a *hostAddress) add(index int, name, was string) error {
	err := tell(unix.RTM_NEWADDR, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, a.wordsFor(index, name, was, true))
	if err != nil {
		return fmt.Errorf("add address %s to %s: %w", a.Prefix, name, err)
	}
	return nil
}

// settle gives an address that was added quietly the flags that it had.
func (a *hostAddress) settle(index int, name, was string) {
	if a.Prefix.Addr().Is6() && a.Flags&(unix.IFA_F_NODAD|unix.IFA_F_TENTATIVE|unix.IFA_F_DADFAILED) == 0 {
		_ = tell(unix.RTM_NEWADDR, unix.NLM_F_REPLACE, a.wordsFor(index, name, was, false))
	}
}

func (a *hostAddress) remove(index int, name string) error {
	b := slices.Clone(a.Words[:unix.SizeofIfAddrmsg])
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	all, _ := attributesOf(a.Words, unix.SizeofIfAddrmsg)
	for _, x := range all {
		if x.kind == unix.IFA_LOCAL || x.kind == unix.IFA_ADDRESS {
			b = appendAttribute(b, x.kind, x.value)
		}
	}
	err := tell(unix.RTM_DELADDR, 0, b)
	if err != nil && !errors.Is(err, unix.EADDRNOTAVAIL) && !errors.Is(err, unix.ENODEV) {
		return fmt.Errorf("remove address %s from %s: %w", a.Prefix, name, err)
	}
	return nil
}

// after returns the address as it is so much later; ok is false when it is not any more.
func (a hostAddress) after(d time.Duration) (_ hostAddress, ok bool) {
	if a.Valid == forever {
		return a, true
	}
	s := uint32(min(max(d, 0)/time.Second, forever-1))
	if s >= a.Valid {
		return a, false
	}
	a.Valid -= s
	if a.Preferred != forever {
		a.Preferred -= min(s, a.Preferred)
	}
	return a, true
}

// end is one end of a move.
type end struct {
	index int
	name  string
}

// move takes addresses and routes from one interface to another: first the addresses are at
// both, then each route changes over, then the addresses go from where they were. So there
// is no moment in which the host lacks one, and connections do not notice. When a step fails
// what was done is undone.
func move(from, to end, addresses []hostAddress, routes []hostRoute) error {
	if err := contest(routes, from.index); err != nil {
		return err
	}
	home := from.index
	if err := arrive(home, from, to, addresses, routes); err != nil {
		for i := range routes {
			_ = routes[i].set(home, to.index, from.index)
		}
		for _, a := range slices.Backward(addresses) {
			_ = a.remove(to.index, to.name)
		}
		return err
	}
	// Backwards: with the first of a subnet the kernel would take the others away.
	for _, a := range slices.Backward(addresses) {
		if err := a.remove(from.index, from.name); err != nil {
			_ = arrive(home, to, from, addresses, routes)
			for _, a := range slices.Backward(addresses) {
				_ = a.remove(to.index, to.name)
			}
			return err
		}
	}
	_ = sweep(from.index, addresses) // what it leaves ends by itself
	return nil
}

// inOrder has addresses as they must be added, so that the kernel has them in the order in which
// it told them: of several that would do as a packet's source it takes the first. It puts a new
// IPv6 address first, and a new IPv4 address last.
func inOrder(addresses []hostAddress) []hostAddress {
	var v4, v6 []hostAddress
	for _, a := range addresses {
		if a.Prefix.Addr().Is4() {
			v4 = append(v4, a)
		} else {
			v6 = append(v6, a)
		}
	}
	slices.Reverse(v6)
	return append(v4, v6...)
}

// arrive gives an interface addresses and routes of another; the routes' words are of interface
// home.
func arrive(home int, from, to end, addresses []hostAddress, routes []hostRoute) error {
	for _, a := range inOrder(addresses) {
		if err := a.add(to.index, to.name, from.name); err != nil {
			return err
		}
	}
	for i := range routes {
		if err := routes[i].set(home, from.index, to.index); err != nil {
			return err
		}
	}
	for i := range addresses {
		addresses[i].settle(to.index, to.name, from.name)
	}
	return nil
}
