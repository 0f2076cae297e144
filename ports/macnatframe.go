package ports

import (
	"encoding/binary"
	"net/netip"

	"vswitch/frame"
)

// What a frame says of whom it is from and for, as far as macnat rewrites it. ARP
// (RFC 826) and ND (RFC 4861) are drawn in ctl/addresses.go; the rest:
//
//	ND options (RFC 4861, section 4.6.1)        BOOTP (RFC 951, RFC 2131), behind UDP
//	 0        1        2                         0    1     2    3    4
//	+--------+--------+------------------+      +----+-----+----+----+---------
//	| type   | length | link-layer       |      | op |htype|hlen|hops| xid …
//	| 1 or 2 | 1 (*8) | address          |      +----+-----+----+----+---------
//	+--------+--------+------------------+      10: flags, 0x8000 is broadcast · 24: giaddr
const (
	arpOp        = 6
	arpSenderMAC = 8
	arpSenderIP  = 14
	arpTargetMAC = 18
	arpTargetIP  = 24
	arpLen       = 28
	arpRequest   = 1

	ipv4Proto, ipv4Fragment, ipv4Src, ipv4Dst = 9, 6, 12, 16
	ipv6Next, ipv6Src, ipv6Dst                = 6, 8, 24

	protoHopByHop, protoRouting, protoICMPv6, protoDestOpts = 0, 43, 58, 60

	ndRouterSolicit, ndRouterAdvert, ndSolicit, ndAdvert, ndRedirect = 133, 134, 135, 136, 137

	ndChecksum, ndFlags, ndTarget = 2, 4, 8
	ndOverride                    = 0x20
	ipv6HopLimit                  = 7
	ndOptSource                   = 1
	ndOptTarget                   = 2

	udpDst, udpChecksum  = 2, 6
	dhcpServer           = 67
	bootRequest          = 1
	bootFlags, bootRelay = 10, 24
	bootHead             = 28 // up to giaddr's end
	bootBroadcast        = 0x80
)

// arpHead is how ARP over Ethernet and IPv4 begins.
var arpHead = [6]byte{0, 1, 0x08, 0, 6, 4}

// natKind is what must be done to a frame beside its source address.
type natKind uint8

const (
	natPlain natKind = iota // nothing
	natARP
	natND
	natDHCP
)

// natHeaders is what macnat needs of a frame's headers.
type natHeaders struct {
	kind     natKind
	ip       bool   // it has IP addresses: src, dst
	known    bool   // IP or ARP
	src, dst natKey // of IP; of ARP, sender and target
	l3       int
	l4       int // of natND, natDHCP
	end      int // of natND
	ndType   byte
	inner    bool // of a redirect: its target is inside
	upTo     int  // what is rewritten lies in the first so many bytes
}

// natRead reads a frame: b without the tag that it has on the wire before b's own.
// len(b) >= frame.EthLen.
func natRead(tag frame.Tag, b []byte) (h natHeaders) {
	at := frame.AddrLen
	var vlans uint32
	tags := 0
	if tag.Present() {
		vlans, tags = uint32(tag.VID())<<16, 1
	}
	etherType := binary.BigEndian.Uint16(b[at:])
	for etherType == frame.TPID8021Q || etherType == frame.TPID8021AD {
		if tags == 2 || len(b) < at+frame.TagLen+2 {
			return h
		}
		vlans |= uint32(binary.BigEndian.Uint16(b[at+2:])&0xfff) << (16 * (1 - tags))
		tags++
		at += frame.TagLen
		etherType = binary.BigEndian.Uint16(b[at:])
	}
	h.l3 = at + 2
	p := b[h.l3:]
	switch etherType {
	case frame.EtherIPv4:
		h.known = true
		if len(p) < frame.IPv4MinLen || p[0]>>4 != 4 {
			return h
		}
		h.ip = true
		h.src, h.dst = key4(p[ipv4Src:], vlans), key4(p[ipv4Dst:], vlans)
		if p[ipv4Proto] == frame.ProtoUDP {
			h.dhcp(b)
		}
	case frame.EtherIPv6:
		h.known = true
		if len(p) < frame.IPv6Len || p[0]>>4 != 6 {
			return h
		}
		h.ip = true
		h.src, h.dst = key6(p[ipv6Src:], vlans), key6(p[ipv6Dst:], vlans)
		switch p[ipv6Next] {
		case protoICMPv6, protoHopByHop, protoRouting, protoDestOpts:
			h.nd(b)
		}
	case frame.EtherARP:
		h.known = true
		if len(p) < arpLen || [6]byte(p) != arpHead {
			return h
		}
		h.kind, h.upTo = natARP, h.l3+arpLen
		h.src, h.dst = key4(p[arpSenderIP:], vlans), key4(p[arpTargetIP:], vlans)
	}
	return h
}

// dhcp sees whether the UDP packet is a DHCP client's request.
func (h *natHeaders) dhcp(b []byte) {
	p := b[h.l3:]
	ihl := int(p[0]&0x0f) * 4
	if ihl < frame.IPv4MinLen || binary.BigEndian.Uint16(p[ipv4Fragment:])&0x1fff != 0 || len(p) < ihl+frame.UDPLen+bootHead {
		return
	}
	u := p[ihl:]
	boot := u[frame.UDPLen:]
	if binary.BigEndian.Uint16(u[udpDst:]) == dhcpServer && boot[0] == bootRequest && binary.BigEndian.Uint32(boot[bootRelay:]) == 0 {
		h.kind, h.l4 = natDHCP, h.l3+ihl
		h.upTo = h.l4 + frame.UDPLen + bootHead
	}
}

// nd sees whether the IPv6 packet is a message of neighbour discovery that is whole.
func (h *natHeaders) nd(b []byte) {
	if p := b[h.l3:]; p[ipv6Next] == protoICMPv6 && (len(p) == frame.IPv6Len || p[frame.IPv6Len] < ndRouterSolicit || p[frame.IPv6Len] > ndRedirect) {
		return
	}
	l, err := frame.Parse(b)
	if err != nil || l.Proto != protoICMPv6 || l.Fragment || l.L4 == 0 || l.End-l.L4 < 4 {
		return
	}
	if t := b[l.L4]; t >= ndRouterSolicit && t <= ndRedirect {
		h.kind, h.ndType, h.l4, h.end, h.upTo = natND, t, l.L4, l.End, l.End
	}
}

// ndHead is where the options of a message begin.
func ndHead(t byte) int {
	switch t {
	case ndRouterSolicit:
		return 8
	case ndRouterAdvert:
		return 16
	case ndRedirect:
		return 40
	}
	return 24
}

// ndOption returns where the message's next option of that type with a link-layer address
// has it, from offset at on; 0: no more.
func (h *natHeaders) ndOption(b []byte, at int, kind byte) int {
	for at+8 <= h.end {
		n := int(b[at+1]) * 8
		if n == 0 || at+n > h.end {
			return 0
		}
		if b[at] == kind && n == 8 {
			return at + 2
		}
		at += n
	}
	return 0
}

// ndKind is which option of a message tells of its sender.
func ndKind(t byte) byte {
	if t == ndAdvert || t == ndRedirect {
		return ndOptTarget
	}
	return ndOptSource
}

// told returns the address that an ARP or ND message says to be at a MAC.
func (h *natHeaders) told(b []byte) (k natKey, mac uint64, claim, ok bool) {
	switch h.kind {
	case natARP:
		k, mac = h.src, mac48(b[h.l3+arpSenderMAC:])
		if uint32(k.lo) == 0 { // RFC 5227: the answer names the address alone
			k = h.dst.probe()
		}
		return k, mac, true, true
	case natND:
		at := h.ndOption(b, h.l4+ndHead(h.ndType), ndKind(h.ndType))
		if at == 0 || h.ndType == ndRedirect || b[h.l3+ipv6HopLimit] != 255 {
			return k, 0, false, false
		}
		k, claim = h.src, true
		if h.ndType == ndAdvert {
			k, claim = key6(b[h.l4+ndTarget:], h.src.vlans), b[h.l4+ndFlags]&ndOverride != 0
		}
		return k, mac48(b[at:]), claim, true
	}
	return k, 0, false, false
}

// rewrite gives w, a private copy of the first h.upTo bytes, the NIC's address: as the
// source of the frame, which was src, and where the message tells of it.
func (h *natHeaders) rewrite(w []byte, o *frame.Offload, src, nic uint64) {
	put48(w[6:], nic)
	switch h.kind {
	case natARP:
		p := w[h.l3:]
		was := mac48(p[arpSenderMAC:])
		if was != 0 {
			put48(p[arpSenderMAC:], nic)
			if mac48(p[arpTargetMAC:]) == was { // it announces itself
				put48(p[arpTargetMAC:], nic)
			}
		}
	case natND:
		kind := ndKind(h.ndType)
		for at := h.ndOption(w, h.l4+ndHead(h.ndType), kind); at != 0; at = h.ndOption(w, at+6, kind) {
			// A redirect tells of somebody else, unless of its sender.
			if h.ndType != ndRedirect || h.inner || mac48(w[at:]) == src {
				put48summed(w[at:], nic, w[h.l4+ndChecksum:], h.partial(o))
			}
		}
	case natDHCP:
		boot := w[h.l4+frame.UDPLen:]
		if o.Super() || boot[bootFlags]&bootBroadcast != 0 {
			return
		}
		was := binary.BigEndian.Uint16(boot[bootFlags:])
		boot[bootFlags] |= bootBroadcast
		sum := w[h.l4+udpChecksum:]
		if now := binary.BigEndian.Uint16(sum); now != 0 && !h.partial(o) { // 0: there is none
			now = adjust(now, was, was|bootBroadcast<<8)
			if now == 0 {
				now = 0xffff
			}
			binary.BigEndian.PutUint16(sum, now)
		}
	}
}

// partial says that the checksum at l4 is unfinished: it is the pseudo-header's sum
// alone, and what we change is summed by who finishes it.
func (h *natHeaders) partial(o *frame.Offload) bool {
	return o.Flags&frame.NeedsCsum != 0 && int(o.CsumStart) == h.l4
}

// put48summed writes mac at b, which the checksum at sum covers, at an even offset.
func put48summed(b []byte, mac uint64, sum []byte, partial bool) {
	now := binary.BigEndian.Uint16(sum)
	for i := 0; i < 6; i += 2 {
		now = adjust(now, binary.BigEndian.Uint16(b[i:]), uint16(mac>>(32-8*i)))
	}
	put48(b, mac)
	if !partial {
		binary.BigEndian.PutUint16(sum, now)
	}
}

// adjust returns the checksum sum after a word that it covers changed: RFC 1624, eqn. 3.
func adjust(sum, was, now uint16) uint16 {
	s := uint32(^sum) + uint32(^was) + uint32(now)
	s = s>>16 + s&0xffff
	return ^uint16(s>>16 + s)
}

// mac48 reads a MAC address as a number.
func mac48(b []byte) uint64 {
	return uint64(binary.BigEndian.Uint16(b))<<32 | uint64(binary.BigEndian.Uint32(b[2:]))
}

func put48(b []byte, mac uint64) {
	binary.BigEndian.PutUint16(b, uint16(mac>>32))
	binary.BigEndian.PutUint32(b[2:], uint32(mac))
}

// group48 is the bit that a MAC address of many has.
const group48 = 1 << 40

const mapped = 0xffff << 32 // ::ffff:0:0

func key4(b []byte, vlans uint32) natKey {
	return natKey{lo: mapped | uint64(binary.BigEndian.Uint32(b)), vlans: vlans}
}

func key6(b []byte, vlans uint32) natKey {
	return natKey{hi: binary.BigEndian.Uint64(b), lo: binary.BigEndian.Uint64(b[8:]), vlans: vlans}
}

func (k *natKey) ipv4() bool { return k.hi == 0 && k.lo>>32 == mapped>>32 }

func (k *natKey) addr() netip.Addr {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], k.hi)
	binary.BigEndian.PutUint64(b[8:], k.lo)
	return netip.AddrFrom16(b).Unmap()
}

// station reports whether the address can be one station's.
func (k *natKey) station() bool {
	if k.ipv4() {
		a := byte(k.lo >> 24)
		return a != 0 && a != 127 && a < 224
	}
	return k.hi>>56 != 0xff && (k.hi != 0 || k.lo > 1)
}

// group returns the MAC address of a multicast or broadcast address (RFC 1112, RFC 2464).
func (k *natKey) group() (mac uint64, ok bool) {
	switch {
	case k.ipv4() && uint32(k.lo) == 1<<32-1:
		return 1<<48 - 1, true
	case k.ipv4() && byte(k.lo>>28)&0xf == 0xe:
		return 0x01005e000000 | k.lo&0x7fffff, true
	case !k.ipv4() && k.hi>>56 == 0xff:
		return 0x3333<<32 | k.lo&0xffffffff, true
	}
	return 0, false
}

// natProbe marks the key of an address that somebody asks for who has none yet.
const natProbe = 1 << 31

func (k natKey) probe() natKey {
	k.vlans |= natProbe
	return k
}

// bootReply returns for whom a DHCP server's answer is.
func (h *natHeaders) bootReply(b []byte) (mac uint64, ok bool) {
	const chaddr = 28
	p := b[h.l3:]
	if !h.ip || !h.dst.ipv4() || p[0]>>4 != 4 || p[ipv4Proto] != frame.ProtoUDP || binary.BigEndian.Uint16(p[ipv4Fragment:])&0x1fff != 0 {
		return 0, false
	}
	ihl := int(p[0]&0x0f) * 4
	if ihl < frame.IPv4MinLen || len(p) < ihl+frame.UDPLen+chaddr+6 {
		return 0, false
	}
	u := p[ihl:]
	boot := u[frame.UDPLen:]
	mac = mac48(boot[chaddr:])
	return mac, binary.BigEndian.Uint32(u) == 67<<16|68 && boot[0] == 2 && mac != 0 && mac&group48 == 0
}
