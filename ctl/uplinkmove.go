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
}

// hostRoute is a route that goes by an interface.
type hostRoute struct {
	Text    string `json:"route"`             // for people
	Expires uint32 `json:"expires,omitempty"` // seconds left; 0: never
	Words   []byte `json:"words"`
}

// forever is a lifetime without an end (INFINITY_LIFE_TIME).
const forever = 1<<32 - 1

// Attributes and flags that package unix lacks.
const (
	rtaExpires = 23
	rtaNhID    = 30
	rtnhLen    = 8 // struct rtnexthop

	// What of an address's flags is asked for; the rest is the kernel's to say.
	askedFlags = unix.IFA_F_NODAD | unix.IFA_F_HOMEADDRESS | unix.IFA_F_MANAGETEMPADDR | unix.IFA_F_NOPREFIXROUTE | unix.IFA_F_MCAUTOJOIN
	rtnhOnlink = 4
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
	return slices.DeleteFunc(all, func(a hostAddress) bool {
		return a.Words[3] >= unix.RT_SCOPE_LINK || a.Prefix.Addr().IsLinkLocalUnicast()
	}), err
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
	return a, true
}

// wordsFor says the address of an interface, which was called was. Duplicate address detection
// would make an IPv6 address useless for a second: quiet does without.
func (a *hostAddress) wordsFor(index int, name, was string, quiet bool) []byte {
	b := slices.Clone(a.Words[:unix.SizeofIfAddrmsg])
	binary.NativeEndian.PutUint32(b[4:], uint32(index))
	flags := a.Flags & askedFlags
	if quiet && a.Prefix.Addr().Is6() {
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
	if a.Prefix.Addr().Is6() && a.Flags&unix.IFA_F_NODAD == 0 {
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

// routesBy lists the routes that go by an interface with these addresses, but for those that
// the kernel makes of the addresses: of links first, which the others lean on.
func routesBy(index int, addresses []hostAddress) ([]hostRoute, error) {
	var links, gates []hostRoute
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		header := make([]byte, unix.SizeofRtMsg)
		header[0] = family
		all, err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, header)
		if err != nil {
			return nil, fmt.Errorf("list routes: %w", err)
		}
		for _, words := range all {
			x, ok := readRoute(words)
			if !ok || !x.by(index) || x.automatic(addresses) {
				continue
			}
			if x.gated {
				gates = append(gates, x.hostRoute)
			} else {
				links = append(links, x.hostRoute)
			}
		}
	}
	return append(links, gates...), nil
}

// seenRoute is a route and what was read of it.
type seenRoute struct {
	hostRoute
	dst     netip.Prefix
	gated   bool
	indexes []int
}

// Offsets in struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
const (
	rtmDstLen, rtmTable, rtmProtocol, rtmType, rtmFlags = 1, 4, 5, 7, 8
)

// readRoute reads a unicast route, not one of the table of the host's own addresses.
func readRoute(words []byte) (x seenRoute, ok bool) {
	all, ok := attributesOf(words, unix.SizeofRtMsg)
	if !ok || words[rtmType] != unix.RTN_UNICAST || words[rtmTable] == unix.RT_TABLE_LOCAL || binary.NativeEndian.Uint32(words[rtmFlags:])&unix.RTM_F_CLONED != 0 {
		return x, false
	}
	x.Words = slices.Clone(words)
	dst := netip.IPv4Unspecified()
	if words[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	table, metric, via := uint32(words[rtmTable]), "", ""
	for _, a := range all {
		switch {
		case a.kind == unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(a.value)
		case a.kind == unix.RTA_OIF && len(a.value) == 4:
			x.indexes = append(x.indexes, int(binary.NativeEndian.Uint32(a.value)))
		case a.kind == unix.RTA_GATEWAY || a.kind == unix.RTA_VIA:
			x.gated = true
			if g, ok := netip.AddrFromSlice(a.value); ok {
				via = " via " + g.String()
			}
		case a.kind == unix.RTA_MULTIPATH:
			x.gated = true
			eachHop(a.value, func(hop []byte) {
				x.indexes = append(x.indexes, int(binary.NativeEndian.Uint32(hop[4:])))
			})
		case a.kind == unix.RTA_TABLE && len(a.value) == 4:
			table = binary.NativeEndian.Uint32(a.value)
		case a.kind == unix.RTA_PRIORITY && len(a.value) == 4:
			metric = fmt.Sprintf(" metric %d", binary.NativeEndian.Uint32(a.value))
		case a.kind == unix.RTA_CACHEINFO && len(a.value) >= 12:
			if left := int32(binary.NativeEndian.Uint32(a.value[8:])); left > 0 {
				x.Expires = max(uint32(left)/clockTicks, 1)
			}
		}
	}
	if table == unix.RT_TABLE_LOCAL || !dst.IsValid() || int(words[rtmDstLen]) > dst.BitLen() {
		return x, false
	}
	x.dst = netip.PrefixFrom(dst, int(words[rtmDstLen]))
	x.Text = x.dst.String() + via + metric
	if table != unix.RT_TABLE_MAIN {
		x.Text += fmt.Sprintf(" table %d", table)
	}
	return x, true
}

// clockTicks is USER_HZ, of every architecture that Go knows.
const clockTicks = 100

// eachHop calls f with each struct rtnexthop (length, flags, weight, index) and what is in it.
func eachHop(b []byte, f func(hop []byte)) {
	for len(b) >= rtnhLen {
		n := int(binary.NativeEndian.Uint16(b))
		if n < rtnhLen || n > len(b) {
			return
		}
		f(b[:n])
		b = b[min((n+3)&^3, len(b)):]
	}
}

func (x *hostRoute) isIPv4() bool { return x.Words[0] == unix.AF_INET }

func (x *seenRoute) by(index int) bool { return slices.Contains(x.indexes, index) }

// automatic reports whether the kernel makes the route by itself.
func (x *seenRoute) automatic(addresses []hostAddress) bool {
	if x.dst.Addr().IsLinkLocalUnicast() && x.dst.Addr().Is6() || x.dst.Addr().IsMulticast() {
		return true
	}
	return x.Words[rtmProtocol] == unix.RTPROT_KERNEL && !x.gated && slices.ContainsFunc(addresses, func(a hostAddress) bool {
		return a.Flags&unix.IFA_F_NOPREFIXROUTE == 0 && a.Prefix.Masked() == x.dst.Masked()
	})
}

// set makes the route go by interface to instead of from, in one step where it exists.
func (x *hostRoute) set(from, to int) error {
	if err := tell(unix.RTM_NEWROUTE, unix.NLM_F_CREATE|unix.NLM_F_REPLACE, x.wordsFor(from, to)); err != nil {
		return fmt.Errorf("set route %s: %w", x.Text, err)
	}
	return nil
}

// wordsFor says the route with interface to in the place of from.
func (x *hostRoute) wordsFor(from, to int) []byte {
	b := slices.Clone(x.Words[:unix.SizeofRtMsg])
	binary.NativeEndian.PutUint32(b[rtmFlags:], binary.NativeEndian.Uint32(b[rtmFlags:])&rtnhOnlink)
	all, _ := attributesOf(x.Words, unix.SizeofRtMsg)
	for _, a := range all {
		switch a.kind {
		case unix.RTA_CACHEINFO, rtaExpires, rtaNhID:
			continue
		case unix.RTA_OIF:
			a.value = words32(uint32(to))
		case unix.RTA_MULTIPATH:
			a.value = slices.Clone(a.value)
			eachHop(a.value, func(hop []byte) {
				hop[2] &= rtnhOnlink
				if binary.NativeEndian.Uint32(hop[4:]) == uint32(from) {
					binary.NativeEndian.PutUint32(hop[4:], uint32(to))
				}
			})
		}
		b = appendAttribute(b, a.kind, a.value)
	}
	if x.Expires > 0 {
		b = appendAttribute(b, rtaExpires, words32(x.Expires))
	}
	return b
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
	if err := arrive(from, to, addresses, routes); err != nil {
		for i := range routes {
			_ = routes[i].set(to.index, from.index)
		}
		for _, a := range slices.Backward(addresses) {
			_ = a.remove(to.index, to.name)
		}
		return err
	}
	// Backwards: with the first of a subnet the kernel would take the others away.
	for _, a := range slices.Backward(addresses) {
		if err := a.remove(from.index, from.name); err != nil {
			_ = arrive(to, from, addresses, routes)
			for _, a := range slices.Backward(addresses) {
				_ = a.remove(to.index, to.name)
			}
			return err
		}
	}
	return nil
}

// arrive gives an interface addresses and routes.
func arrive(from, to end, addresses []hostAddress, routes []hostRoute) error {
	for i := range addresses {
		if err := addresses[i].add(to.index, to.name, from.name); err != nil {
			return err
		}
	}
	for i := range routes {
		if err := routes[i].set(from.index, to.index); err != nil {
			return err
		}
	}
	for i := range addresses {
		addresses[i].settle(to.index, to.name, from.name)
	}
	return nil
}
