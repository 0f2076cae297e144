package nat

import (
	"cmp"
	"encoding/binary"
	"maps"
	"net/netip"
	"slices"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// The names of the page's sets.
const (
	setGateways    = "gateways"
	setItself      = "same-gateway"
	setMasquerade  = "masqueraded"
	setInternal    = "internal"
	setClosed      = "closed"
	setDocker      = "docker-bridges"
	setPeers4      = "tunnels4"
	setPeers6      = "tunnels6"
	setPublished4  = "published4"
	setPublished6  = "published6"
	setPublishedAt = "-by-address" // behind either
)

// Registers of nf_tables: 16 of 4 bytes each; a value takes as many as it is long.
const (
	reg0 = unix.NFT_REG32_00
	reg1 = unix.NFT_REG32_01
	reg4 = unix.NFT_REG32_00 + 4
	reg5 = unix.NFT_REG32_00 + 5
)

// compose writes the page: what nft(8) prints of it is its documentation.
func compose(table string, gateways []Gateway, serving map[claimKey]target, peers []Peer, docker []string) *page {
	p := &page{table: table, docker: docker}
	p.addSets(gateways, serving)
	p.addPeers(peers)
	p.add("guard", nftables.ChainTypeFilter, nftables.ChainHookPrerouting, nftables.ChainPriorityRaw,
		// route_localnet, which a gateway has when ports are published to 127.0.0.1, would open
		// the host's loopback to containers (CVE-2020-8558). Answers pass: they come to
		// the gateway's own address, and are 127.0.0.1's only after conntrack saw them.
		rule{"loopback is for the host itself", seq(in(setGateways), ip4(), loopback(ip4Dst), drop)},
		rule{"and nobody else is it", seq(in(setGateways), ip4(), loopback(ip4Src), drop)},
		// Whom a firewall or a tunnel of the host's takes for somebody else by his address, must
		// not be a container: hosts have no strict rp_filter, and none at all for IPv6.
		rule{"a source that is not behind the gateway is forged", seq(in(setClosed), ip4(), comesFromElsewhere, drop)},
		rule{"a source that is not behind the gateway is forged", seq(in(setClosed), ip6(), specified(ip6Src), comesFromElsewhere, drop)},
	)
	p.add("arriving", nftables.ChainTypeNAT, nftables.ChainHookPrerouting, nftables.ChainPriorityNATDest,
		// The kernel refuses such a packet when it routes it; to a container it would be routed. So
		// whoever is on a LAN of the host's would reach what is published at 127.0.0.1.
		rule{"the host's loopback is not asked from outside", seq(ip4(), loopback(ip4Dst), leave)},
		rule{"to an address of the host", seq(localType(toDst), jump("published"))},
	)
	p.add("local", nftables.ChainTypeNAT, nftables.ChainHookOutput, nftables.ChainPriorityNATDest,
		rule{"from the host to itself", seq(localType(toDst), jump("published"))},
	)
	p.chains = append(p.chains, chain{name: "published", rules: []rule{
		{"at one address of the host", seq(ip4(), publishedAt(4))},
		{"at any address of the host", seq(ip4(), published(4))},
		{"at one address of the host", seq(ip6(), publishedAt(6))},
		{"at any address of the host", seq(ip6(), published(6))},
	}})
	p.add("forward", nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter,
		rule{"no container speaks for a tunnel of the host's", seq(in(setGateways), ip4(), toPeer(4), drop)},
		rule{"no container speaks for a tunnel of the host's", seq(in(setGateways), ip6(), toPeer(6), drop)},
		rule{"containers behind one gateway", seq(pair(setItself), accept)},
		rule{"internal: nothing goes elsewhere", seq(in(setInternal), drop)},
		rule{"internal: nothing comes from elsewhere", seq(out(setInternal), drop)},
		rule{"answers", seq(ctHas(expr.CtKeySTATE, expr.CtStateBitESTABLISHED|expr.CtStateBitRELATED), accept)},
		rule{"what is published", seq(ctHas(expr.CtKeySTATUS, statusDNAT), accept)},
		rule{"nothing new comes in, nor from other networks", seq(out(setMasquerade), drop)},
		rule{"Docker's networks are isolated from ours, too", seq(in(setGateways), out(setDocker), drop)},
	)
	leaving := []rule{{
		"published, asked for by the host itself: the container answers the gateway",
		seq(ctHas(expr.CtKeySTATUS, statusDNAT), out(setGateways), localType(toSrc), masquerade),
	}}
	for _, g := range gateways {
		for _, s := range g.Subnets {
			leaving = append(leaving, rule{"published, asked for by a neighbour: the answer comes back through here",
				seq(ctHas(expr.CtKeySTATUS, statusDNAT), from(s), oif(g.Interface, true), masquerade)})
			if g.Masquerade && !g.Internal {
				leaving = append(leaving, rule{"to elsewhere, with the host's address",
					seq(from(s), oif(g.Interface, false), masquerade)})
			}
		}
	}
	p.add("leaving", nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, leaving...)
	return p
}

func (p *page) add(name string, kind nftables.ChainType, hook *nftables.ChainHook, priority *nftables.ChainPriority, rules ...rule) {
	p.chains = append(p.chains, chain{name, kind, hook, priority, rules})
}

// The published port's key is protocol and port; where one address of the host is meant,
// that comes first. The datum is where to.
var (
	typeName       = nftables.TypeIFName
	typeNames      = nftables.MustConcatSetType(typeName, typeName)
	typePublished  = nftables.MustConcatSetType(nftables.TypeInetProto, nftables.TypeInetService)
	typePublished4 = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetProto, nftables.TypeInetService)
	typePublished6 = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetProto, nftables.TypeInetService)
	typeTo4        = nftables.MustConcatSetType(nftables.TypeIPAddr, nftables.TypeInetService)
	typeTo6        = nftables.MustConcatSetType(nftables.TypeIP6Addr, nftables.TypeInetService)
)

func (p *page) addSets(gateways []Gateway, serving map[claimKey]target) {
	all := set{name: setGateways, key: typeName, comment: "interfaces that are containers' gateways"}
	itself := set{name: setItself, key: typeNames, comment: "in by a gateway, and out by the same"}
	masq := set{name: setMasquerade, key: typeName, comment: "gateways whose containers have the host's address elsewhere"}
	internal := set{name: setInternal, key: typeName, comment: "gateways whose containers know nobody elsewhere"}
	closed := set{name: setClosed, key: typeName, comment: "gateways whose containers are the only ones there"}
	bridges := set{name: setDocker, key: typeName, comment: "bridges that Docker isolates"}
	for _, g := range gateways {
		key := ifkey(g.Interface)
		all.put(key, nil)
		itself.put(slices.Concat(key, key), nil)
		if g.closed() {
			closed.put(key, nil)
		}
		switch {
		case g.Internal:
			internal.put(key, nil)
		case g.Masquerade && !g.Uplink:
			masq.put(key, nil)
		}
	}
	for _, d := range p.docker {
		bridges.put(ifkey(d), nil)
	}
	any4 := set{name: setPublished4, comment: "ports of the host, and where they lead", key: typePublished, data: &typeTo4}
	at4 := set{name: setPublished4 + setPublishedAt, comment: "ports of one address of the host", key: typePublished4, data: &typeTo4}
	any6 := set{name: setPublished6, comment: "ports of the host, and where they lead", key: typePublished, data: &typeTo6}
	at6 := set{name: setPublished6 + setPublishedAt, comment: "ports of one address of the host", key: typePublished6, data: &typeTo6}
	for _, k := range slices.SortedFunc(maps.Keys(serving), claimKey.compare) {
		s := &any4
		switch {
		case k.v6 && k.host.IsValid():
			s = &at6
		case k.v6:
			s = &any6
		case k.host.IsValid():
			s = &at4
		}
		to := serving[k].to
		s.put(slices.Concat(k.host.AsSlice(), []byte{k.proto, 0, 0, 0}, portKey(k.port)), slices.Concat(to.Addr().AsSlice(), portKey(to.Port())))
	}
	p.sets = []set{all, itself, masq, internal, closed, bridges, any4, at4, any6, at6}
}

// readPublished reads what addSets writes of a published port, but for its gateway.
func readPublished(e nftables.SetElement, v6 bool) (k claimKey, t target, ok bool) {
	size := 4
	if v6 {
		size = 16
	}
	key := e.Key
	k.v6 = v6
	if len(key) == size+8 {
		k.host, _ = netip.AddrFromSlice(key[:size])
		key = key[size:]
	}
	if len(key) != 8 || len(e.Val) < size+2 {
		return k, t, false
	}
	k.proto, k.port = key[0], binary.BigEndian.Uint16(key[4:])
	to, ok := netip.AddrFromSlice(e.Val[:size])
	t.to = netip.AddrPortFrom(to, binary.BigEndian.Uint16(e.Val[size:]))
	return k, t, ok
}

// teb is what stands in a GRE header where UDP has its destination port: Transparent Ethernet
// Bridging (RFC 1701, RFC 7637).
const teb = 0x6558

func (p *page) addPeers(peers []Peer) {
	far4 := set{name: setPeers4, key: typePublished4, comment: "far ends of the host's tunnels"}
	far6 := set{name: setPeers6, key: typePublished6, comment: "far ends of the host's tunnels"}
	for _, peer := range peers {
		s, proto, port := &far4, byte(unix.IPPROTO_UDP), peer.Port
		if peer.Addr.Is6() {
			s = &far6
		}
		if port == 0 {
			proto, port = unix.IPPROTO_GRE, teb
		}
		s.put(slices.Concat(peer.Addr.AsSlice(), []byte{proto, 0, 0, 0}, portKey(port)), nil)
	}
	p.sets = append(p.sets, far4, far6)
}

func (s *set) put(key, val []byte) {
	s.elements = append(s.elements, nftables.SetElement{Key: key, Val: val})
}

// portKey is a port as a part of a key: padded to a register.
func portKey(port uint16) []byte { return append(binary.BigEndian.AppendUint16(nil, port), 0, 0) }

// ifkey is an interface's name as the kernel compares it.
func ifkey(name string) []byte {
	return append([]byte(name), make([]byte, max(0, unix.IFNAMSIZ-len(name)))...)
}

func ifname(key []byte) string { return unix.ByteSliceToString(key) }

func (k claimKey) compare(l claimKey) int {
	return cmp.Or(k.host.Compare(l.host), cmp.Compare(k.port, l.port), cmp.Compare(k.proto, l.proto))
}

// What follows are the words that rules are made of, each as nft(8) spells it.

func seq(words ...[]expr.Any) []expr.Any { return slices.Concat(words...) }

// in is `iifname @set`.
func in(set string) []expr.Any { return ifIn(expr.MetaKeyIIFNAME, set) }

// out is `oifname @set`.
func out(set string) []expr.Any { return ifIn(expr.MetaKeyOIFNAME, set) }

func ifIn(key expr.MetaKey, set string) []expr.Any {
	return []expr.Any{&expr.Meta{Key: key, Register: reg0}, &expr.Lookup{SourceRegister: reg0, SetName: set}}
}

// pair is `iifname . oifname @set`.
func pair(set string) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: expr.MetaKeyIIFNAME, Register: reg0},
		&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg4},
		&expr.Lookup{SourceRegister: reg0, SetName: set},
	}
}

// oif is `oifname "name"`, or `oifname != "name"`.
func oif(name string, is bool) []expr.Any {
	op := expr.CmpOpEq
	if !is {
		op = expr.CmpOpNeq
	}
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyOIFNAME, Register: reg0}, &expr.Cmp{Op: op, Register: reg0, Data: ifkey(name)}}
}

// ip4 is `meta nfproto ipv4`.
func ip4() []expr.Any { return family(unix.NFPROTO_IPV4) }

// ip6 is `meta nfproto ipv6`.
func ip6() []expr.Any { return family(unix.NFPROTO_IPV6) }

func family(f byte) []expr.Any {
	return []expr.Any{&expr.Meta{Key: expr.MetaKeyNFPROTO, Register: reg0}, &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{f}}}
}

// Where addresses are in their headers (RFC 791, section 3.1; RFC 8200, section 3).
const (
	ip4Src, ip4Dst = 12, 16
	ip6Src, ip6Dst = 8, 24
	dport          = 2 // of TCP and UDP alike
)

func network(offset, length, register uint32) expr.Any {
	return &expr.Payload{Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: length, DestRegister: register}
}

// loopback is `ip saddr 127.0.0.0/8`, or daddr.
func loopback(offset uint32) []expr.Any {
	return []expr.Any{network(offset, 1, reg0), &expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: []byte{127}}}
}

// specified is `ip6 saddr != ::`: who has no address yet asks for one without.
func specified(offset uint32) []expr.Any {
	return []expr.Any{network(offset, 16, reg0), &expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 16)}}
}

// comesFromElsewhere is `fib saddr . iif oif missing`: no route leads to the source by the
// interface that it came in by.
var comesFromElsewhere = []expr.Any{
	&expr.Fib{Register: reg0, ResultOIF: true, FlagSADDR: true, FlagIIF: true},
	&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: make([]byte, 4)},
}

// from is `ip saddr subnet`, or ip6.
func from(subnet netip.Prefix) []expr.Any {
	f, offset := ip4(), uint32(ip4Src)
	if subnet.Addr().Is6() {
		f, offset = ip6(), ip6Src
	}
	length := uint32(subnet.Addr().BitLen() / 8)
	mask := make([]byte, length)
	for i := range subnet.Bits() {
		mask[i/8] |= 0x80 >> (i % 8)
	}
	return append(f, network(offset, length, reg0),
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: length, Mask: mask, Xor: make([]byte, length)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: subnet.Masked().Addr().AsSlice()})
}

type end bool

const toSrc, toDst end = false, true

// localType is `fib saddr type local`, or daddr: an address of the host.
func localType(e end) []expr.Any {
	return []expr.Any{
		&expr.Fib{Register: reg0, ResultADDRTYPE: true, FlagSADDR: e == toSrc, FlagDADDR: e == toDst},
		&expr.Cmp{Op: expr.CmpOpEq, Register: reg0, Data: binaryutil.NativeEndian.PutUint32(unix.RTN_LOCAL)},
	}
}

// statusDNAT is IPS_DST_NAT (linux/netfilter/nf_conntrack_common.h).
const statusDNAT = 1 << 5

// ctHas is `ct state a,b` or `ct status a`.
func ctHas(key expr.CtKey, bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Key: key, Register: reg0},
		&expr.Bitwise{SourceRegister: reg0, DestRegister: reg0, Len: 4, Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: reg0, Data: make([]byte, 4)},
	}
}

// published is `dnat ip to meta l4proto . th dport map @published4`.
func published(version int) []expr.Any {
	set, _, _ := publishedIn(version)
	return append([]expr.Any{
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: reg0},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: dport, Len: 2, DestRegister: reg1},
	}, dnat(version, set)...)
}

// toPeer is `ip daddr . meta l4proto . th dport @tunnels4`.
func toPeer(version int) []expr.Any {
	set, offset, length := setPeers4, uint32(ip4Dst), uint32(4)
	if version == 6 {
		set, offset, length = setPeers6, ip6Dst, 16
	}
	next := reg0 + length/4
	return []expr.Any{
		network(offset, length, reg0),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: dport, Len: 2, DestRegister: next + 1},
		&expr.Lookup{SourceRegister: reg0, SetName: set},
	}
}

// publishedAt is `dnat ip to ip daddr . meta l4proto . th dport map @published4-by-address`.
func publishedAt(version int) []expr.Any {
	set, offset, length := publishedIn(version)
	next := reg0 + length/4
	return append([]expr.Any{
		network(offset, length, reg0),
		&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: next},
		&expr.Payload{Base: expr.PayloadBaseTransportHeader, Offset: dport, Len: 2, DestRegister: next + 1},
	}, dnat(version, set+setPublishedAt)...)
}

func publishedIn(version int) (set string, offset, length uint32) {
	if version == 6 {
		return setPublished6, ip6Dst, 16
	}
	return setPublished4, ip4Dst, 4
}

func dnat(version int, set string) []expr.Any {
	n := &expr.NAT{Type: expr.NATTypeDestNAT, Family: unix.NFPROTO_IPV4, RegAddrMin: reg0, RegProtoMin: reg1, Specified: true}
	if version == 6 {
		n.Family, n.RegProtoMin = unix.NFPROTO_IPV6, reg4
	}
	return []expr.Any{&expr.Lookup{SourceRegister: reg0, DestRegister: reg0, IsDestRegSet: true, SetName: set}, n}
}

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

var (
	accept     = []expr.Any{&expr.Verdict{Kind: expr.VerdictAccept}}
	drop       = []expr.Any{&expr.Verdict{Kind: expr.VerdictDrop}}
	leave      = []expr.Any{&expr.Verdict{Kind: expr.VerdictReturn}}
	masquerade = []expr.Any{&expr.Masq{}}
)
