package ctl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// The routes of a NIC, in the kernel's words: struct rtmsg and its attributes, see rtnetlink(7).

// hostRoute is a route that goes by an interface.
type hostRoute struct {
	Text    string `json:"route"`             // for people
	Expires uint32 `json:"expires,omitempty"` // seconds left; 0: never
	Words   []byte `json:"words"`

	Behind bool `json:"behind,omitempty"` // a route of the same key by another interface comes before it

	key   routeKey
	rival bool // another interface has a route of the same key, or this one has two
}

// routeKey is what a kernel takes for the same route when it is asked to replace one.
type routeKey struct {
	dst, src      netip.Prefix // src of IPv6 alone
	tos           byte         // of IPv4
	table, metric uint32
}

// eachRoute calls f with every unicast route of the host's; its words are f's only while it runs.
func eachRoute(f func(x seenRoute)) error {
	for _, family := range []byte{unix.AF_INET, unix.AF_INET6} {
		header := make([]byte, unix.SizeofRtMsg)
		header[0] = family
		all, err := dump(unix.RTM_GETROUTE, unix.RTM_NEWROUTE, header)
		if err != nil {
			return fmt.Errorf("list routes: %w", err)
		}
		for _, words := range all {
			if x, ok := readRoute(words); ok {
				f(x)
			}
		}
	}
	return nil
}

// routesBy lists the routes that go by an interface with these addresses, but for those that
// the kernel makes of the addresses: of links first, which the others lean on.
func routesBy(index int, addresses []hostAddress) ([]hostRoute, error) {
	var links, gates []hostRoute
	err := eachRoute(func(x seenRoute) {
		if !x.by(index) || x.automatic(addresses) {
			return
		}
		x.Words = slices.Clone(x.Words)
		if x.gated {
			gates = append(gates, x.hostRoute)
		} else {
			links = append(links, x.hostRoute)
		}
	})
	return append(links, gates...), err
}

// contest notes which of the routes, that go by interface from, have a rival, and which come
// behind it: asked to replace a route, the kernel takes the first of its key, which may be
// another NIC's default route.
func contest(routes []hostRoute, from int) error {
	if len(routes) == 0 {
		return nil
	}
	others, behind := map[routeKey]bool{}, map[routeKey]bool{}
	err := eachRoute(func(x seenRoute) {
		if !x.by(from) {
			others[x.key] = true
		} else if _, again := behind[x.key]; !again {
			behind[x.key] = others[x.key]
		}
	})
	count, before := map[routeKey]int{}, map[routeKey]bool{}
	for i := range routes {
		count[routes[i].key]++
	}
	for i := range routes {
		g := &routes[i]
		g.rival = others[g.key] || count[g.key] > 1
		if is, there := behind[g.key]; there {
			g.Behind = is
		}
		// Of two routers of one LAN: to replace the one would be to lose the other.
		g.Behind = g.Behind || before[g.key]
		before[g.key] = true
	}
	return err
}

// sweep removes the routes that the kernel made of IPv6 addresses that an interface does not have
// any more: of those with a lifetime it leaves them to theirs, and half of what is sent on the
// link would go by the NIC, to which no answer comes.
func sweep(index int, gone []hostAddress) error {
	rest, err := everyAddressOn(index)
	if err != nil {
		return err
	}
	var left []hostRoute
	err = eachRoute(func(x seenRoute) {
		if !x.isIPv4() && x.by(index) && x.automatic(gone) && !x.automatic(rest) {
			x.Words = slices.Clone(x.Words)
			left = append(left, x.hostRoute)
		}
	})
	for i := range left {
		if e := tell(unix.RTM_DELROUTE, 0, left[i].wordsFor(index, index)); e != nil && !errors.Is(e, unix.ESRCH) {
			err = errors.Join(err, fmt.Errorf("remove route %s: %w", left[i].Text, e))
		}
	}
	return err
}

// seenRoute is a route and what was read of it.
type seenRoute struct {
	hostRoute
	gated   bool
	indexes []int
}

// Offsets in struct rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags.
const (
	rtmDstLen, rtmSrcLen, rtmTOS, rtmTable, rtmProtocol, rtmType, rtmFlags = 1, 2, 3, 4, 5, 7, 8
)

// readRoute reads a unicast route, not one of the table of the host's own addresses. It keeps words.
func readRoute(words []byte) (x seenRoute, ok bool) {
	all, ok := attributesOf(words, unix.SizeofRtMsg)
	if !ok || words[rtmType] != unix.RTN_UNICAST || words[rtmTable] == unix.RT_TABLE_LOCAL || binary.NativeEndian.Uint32(words[rtmFlags:])&unix.RTM_F_CLONED != 0 {
		return x, false
	}
	x.Words = words
	dst := netip.IPv4Unspecified()
	if words[0] == unix.AF_INET6 {
		dst = netip.IPv6Unspecified()
	}
	src := dst
	table, metric, via := uint32(words[rtmTable]), uint32(0), ""
	for _, a := range all {
		switch {
		case a.kind == unix.RTA_DST:
			dst, _ = netip.AddrFromSlice(a.value)
		case a.kind == unix.RTA_SRC:
			src, _ = netip.AddrFromSlice(a.value)
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
			metric = binary.NativeEndian.Uint32(a.value)
		case a.kind == unix.RTA_CACHEINFO && len(a.value) >= 12:
			if left := int32(binary.NativeEndian.Uint32(a.value[8:])); left > 0 {
				x.Expires = max(uint32(left)/clockTicks, 1)
			}
		}
	}
	if table == unix.RT_TABLE_LOCAL || !dst.IsValid() || int(words[rtmDstLen]) > dst.BitLen() || !src.IsValid() || int(words[rtmSrcLen]) > src.BitLen() {
		return x, false
	}
	x.key = routeKey{dst: netip.PrefixFrom(dst, int(words[rtmDstLen])), table: table, metric: metric}
	if dst.Is4() {
		x.key.tos = words[rtmTOS]
	} else {
		x.key.src = netip.PrefixFrom(src, int(words[rtmSrcLen]))
	}
	x.Text = x.key.dst.String() + via
	if metric != 0 {
		x.Text += fmt.Sprintf(" metric %d", metric)
	}
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
	dst := x.key.dst
	if dst.Addr().IsLinkLocalUnicast() && dst.Addr().Is6() || dst.Addr().IsMulticast() {
		return true
	}
	return x.Words[rtmProtocol] == unix.RTPROT_KERNEL && !x.gated && slices.ContainsFunc(addresses, func(a hostAddress) bool {
		if a.Flags&unix.IFA_F_NOPREFIXROUTE != 0 {
			return false
		}
		if dst.Addr() == a.Prefix.Addr() && dst.IsSingleIP() {
			return true // of an IPv6 address whose prefix is another's
		}
		return dst == a.Prefix.Masked() || a.peer.IsValid() && (dst == a.peer.Masked() || dst == netip.PrefixFrom(a.peer.Addr(), a.peer.Addr().BitLen()))
	})
}

// set makes the route, whose words are of interface home, go by interface to instead of at: in one
// step where it can be. One that has a rival is added before or behind it, and then taken away
// from where it was.
func (x *hostRoute) set(home, at, to int) error {
	drop := func() { _ = tell(unix.RTM_DELROUTE, 0, x.wordsFor(home, at)) } // or there is none
	how := unix.NLM_F_CREATE | unix.NLM_F_REPLACE
	if x.rival {
		how = unix.NLM_F_CREATE
		if x.Behind || !x.isIPv4() { // IPv6 has no order, and else refuses
			how |= unix.NLM_F_APPEND
		}
		if !x.isIPv4() && x.multipath() {
			drop() // else the hops that are both before's and after's would be refused
		}
	}
	err := tell(unix.RTM_NEWROUTE, how, x.wordsFor(home, to))
	if err != nil && !errors.Is(err, unix.EEXIST) { // which says that it is at to, behind a rival
		return fmt.Errorf("set route %s: %w", x.Text, err)
	}
	if x.rival || err != nil {
		drop()
	}
	return nil
}

func (x *hostRoute) multipath() bool {
	all, _ := attributesOf(x.Words, unix.SizeofRtMsg)
	return slices.ContainsFunc(all, func(a attribute) bool { return a.kind == unix.RTA_MULTIPATH })
}

// rehome makes a route that was an interface's another's.
func (x *hostRoute) rehome(from, to int) {
	if from == to {
		return
	}
	expires := x.Expires // which is kept beside the words
	x.Expires = 0
	x.Words, x.Expires = x.wordsFor(from, to), expires
}

// wordsFor says the route with interface to in the place of from, which its words are of.
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
