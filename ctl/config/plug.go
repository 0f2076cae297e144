package config

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
)

// How plugs are written: ports of type plug, and what a bridge says of the addresses
// and names of its containers.

// Bounds of a plug's options.
const (
	maxRoutes    = 64
	maxAliases   = 16
	maxPublished = 256
	maxExcluded  = 256
	maxContainer = 255 // bytes of a container's name
)

// The kinds of containers, in the order in which a bare name is looked up.
const (
	DockerContainer     = "docker"
	PodmanContainer     = "podman"
	ContainerdContainer = "containerd"
	NetNSContainer      = "netns"   // a name below /run/netns: ip-netns(8)
	PIDContainer        = "pid"     // a process: its number, and when it started
	PathContainer       = "path"    // a file that is a network namespace
	RuntimeContainer    = "runtime" // whom a runtime plugs by itself; no user's plug has it
)

// ContainerKinds are the words before the colon that a user may write.
func ContainerKinds() []string {
	return []string{DockerContainer, PodmanContainer, ContainerdContainer, NetNSContainer, PIDContainer}
}

// ContainerRef says which container is meant, as a document does. It is comparable.
type ContainerRef struct {
	Kind  string // docker, podman, containerd, netns, pid, path, runtime
	Name  string // a name or ID; of pid the number; of path the path
	Start uint64 // of pid: when the process started, in clock ticks since boot (proc(5), field 22 of stat); 0 is not known
}

// String is the canonical spelling.
func (c ContainerRef) String() string {
	switch {
	case c.Kind == PathContainer:
		return c.Name
	case c.Kind == PIDContainer && c.Start != 0:
		return fmt.Sprintf("%s:%s@%d", c.Kind, c.Name, c.Start)
	}
	return c.Kind + ":" + c.Name
}

// Short is what the container is called on its bridge: the last part of its name.
func (c ContainerRef) Short() string {
	if c.Kind == PathContainer {
		return path.Base(c.Name)
	}
	return c.Name
}

// ParseContainer reads a reference that names its kind, or a path. A bare name is
// Kind "", which no document takes: who is meant by it is for the machine to say.
func ParseContainer(s string) (ContainerRef, error) {
	c, why := parseContainer(s)
	if why != "" {
		return ContainerRef{}, find("container").wrong(s, why)
	}
	return c, nil
}

func parseContainer(s string) (c ContainerRef, why string) {
	const notOne = "is not a container"
	if strings.HasPrefix(s, "/") {
		p := path.Clean(s)
		if !printable(s) || strings.ContainsAny(s, ", ") || len(s) > 1024 || p == "/" {
			return c, "is not the path of a network namespace"
		}
		return ContainerRef{Kind: PathContainer, Name: p}, ""
	}
	kind, name, ok := strings.Cut(s, ":")
	if !ok {
		kind, name = "", s
	}
	if ok && kind != RuntimeContainer && !slices.Contains(ContainerKinds(), kind) {
		return c, notOne + didYouMean(kind, ContainerKinds())
	}
	if kind == PIDContainer {
		number, start, dated := strings.Cut(name, "@")
		n, ok := decimal(number)
		if !ok || n < 1 || n > 1<<22 { // PID_MAX_LIMIT, include/linux/threads.h
			return c, "is not a process"
		}
		c = ContainerRef{Kind: kind, Name: strconv.Itoa(n)}
		if dated {
			var err error
			if c.Start, err = strconv.ParseUint(start, 10, 64); err != nil {
				return c, "has no time of start in clock ticks behind its @"
			}
		}
		return c, ""
	}
	// Docker's names: [a-zA-Z0-9][a-zA-Z0-9_.-]+; the others are less than that, or IDs.
	if name == "" || len(name) > maxContainer || name[0] == '.' || name[0] == '-' {
		return c, notOne
	}
	for _, r := range name {
		if !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("._-@+", r)) {
			return c, notOne
		}
	}
	return ContainerRef{Kind: kind, Name: name}, ""
}

// PlugName is the name that the port of a plug gets when nobody gives it one: part of
// the container's, and six digits that stand for it and the interface.
func PlugName(c ContainerRef, ifname string) string {
	sum := sha256.Sum256([]byte(c.String() + " " + ifname))
	var stem []byte
	for _, b := range []byte(c.Short()) {
		if b >= 'a' && b <= 'z' || b >= 'A' && b <= 'Z' || b >= '0' && b <= '9' || b == '_' {
			stem = append(stem, b)
		}
	}
	if len(stem) > 8 {
		stem = stem[:8]
	}
	if len(stem) == 0 {
		stem = []byte("plug")
	}
	return string(stem) + "-" + hex.EncodeToString(sum[:3])
}

// Route is one more route of a container.
type Route struct {
	Dst netip.Prefix
	Via netip.Addr // the zero Addr is on the link
}

func (r Route) String() string {
	if !r.Via.IsValid() {
		return r.Dst.String()
	}
	return r.Dst.String() + " via " + r.Via.String()
}

// Publish is a port of the host that leads to a port of a container.
type Publish struct {
	Host  netip.Addr // an address of the host; the zero Addr is any
	Port  uint16     // of the host
	To    uint16     // of the container
	Proto string     // tcp, udp
}

func (p Publish) String() string {
	s := fmt.Sprintf("%d:%d/%s", p.Port, p.To, p.Proto)
	switch {
	case !p.Host.IsValid():
		return s
	case p.Host.Is6():
		return "[" + p.Host.String() + "]:" + s
	}
	return p.Host.String() + ":" + s
}

// Plug is what the options of a plug port say, defaults filled in.
type Plug struct {
	Container ContainerRef
	IfName    string
	Addresses []netip.Prefix // given by hand
	Auto4     bool           // lease an IPv4 address
	Auto6     bool           // lease an IPv6 address
	Gateways  []netip.Addr   // default routes that were asked for
	NoGateway bool           // none, whatever the bridge has
	Routes    []Route
	MAC       net.HardwareAddr // nil: the switch chooses
	MTU       int              // 0: what the bridge's tunnels carry
	Aliases   []string
	Publish   []Publish
}

// Plug reads the options of a plug port in canonical form. ok is false for a port of
// another type.
func (p Port) Plug() (g Plug, ok bool) {
	if p.Object() != PlugPort {
		return Plug{}, false
	}
	o := p.Options
	g = Plug{IfName: o.Text("ifname"), Addresses: o.Prefixes("ip"), MAC: o.MAC("mac"), MTU: o.Int("mtu")}
	g.Container, _ = parseContainer(o.Text("container"))
	has4 := slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr().Is4() })
	has6 := slices.ContainsFunc(g.Addresses, func(p netip.Prefix) bool { return p.Addr().Is6() })
	for _, word := range splitList(o["ip"]) {
		g.Auto4 = g.Auto4 || word == "auto4" || word == "auto" && !has4
		g.Auto6 = g.Auto6 || word == "auto6" || word == "auto" && !has6
	}
	g.NoGateway = o["gateway"] == "none"
	g.Gateways = o.Addresses("gateway")
	g.Routes, _ = parseRoutes(o["route"])
	g.Aliases = splitList(o["alias"])
	g.Publish, _, _ = parsePublished(o["publish"])
	return g, true
}

// Addresses reads addresses without prefix lengths, in the order given.
func (o Options) Addresses(name string) (list []netip.Addr) {
	option(name, AddressList)
	for _, word := range splitList(o[name]) {
		if a, err := netip.ParseAddr(word); err == nil {
			list = append(list, a)
		}
	}
	return list
}

// Networks reads networks, in the order given.
func (o Options) Networks(name string) (list []netip.Prefix) {
	option(name, NetworkList)
	for _, word := range splitList(o[name]) {
		if p, err := netip.ParsePrefix(word); err == nil {
			list = append(list, p)
		}
	}
	return list
}

// AddrRange is addresses First to Last, both included.
type AddrRange struct{ First, Last netip.Addr }

// Contains says whether a is one of the range.
func (r AddrRange) Contains(a netip.Addr) bool {
	return r.First.BitLen() == a.BitLen() && r.First.Compare(a) <= 0 && a.Compare(r.Last) <= 0
}

// AddrRanges reads ranges of addresses, in the order given.
func (o Options) AddrRanges(name string) (list []AddrRange) {
	option(name, RangeList)
	for _, word := range splitList(o[name]) {
		if r, _, ok := parseRange(word); ok {
			list = append(list, r)
		}
	}
	return list
}

// Pool is what a bridge's options say of the addresses of its containers, of one
// family.
type Pool struct {
	Subnet  netip.Prefix // masked
	Range   netip.Prefix // within Subnet
	Gateway netip.Addr   // the zero Addr: none
	Exclude []AddrRange  // of any family
	Own     []netip.Addr // the bridge's own addresses, which are nobody else's
}

// Pools are those of a bridge in canonical form: at most one of IPv4 and one of IPv6.
// Without ipam.subnet they are the subnets of the first address of each family of ip.
func (b *Bridge) Pools() (pools []Pool) {
	o := b.Options
	own := o.Prefixes("ip")
	subnets := o.Networks("ipam.subnet")
	if len(subnets) == 0 {
		for _, p := range own {
			if !slices.ContainsFunc(subnets, func(q netip.Prefix) bool { return q.Addr().Is4() == p.Addr().Is4() }) {
				subnets = append(subnets, p.Masked())
			}
		}
	}
	for _, subnet := range subnets {
		p := Pool{Subnet: subnet, Range: subnet, Exclude: o.AddrRanges("ipam.exclude")}
		for _, r := range o.Networks("ipam.range") {
			if r.Addr().Is4() == subnet.Addr().Is4() {
				p.Range = r
			}
		}
		for _, a := range own {
			p.Own = append(p.Own, a.Addr())
			if !p.Gateway.IsValid() && subnet.Contains(a.Addr()) {
				p.Gateway = a.Addr()
			}
		}
		for _, a := range o.Addresses("ipam.gateway") {
			if subnet.Contains(a) {
				p.Gateway = a
			}
		}
		pools = append(pools, p)
	}
	return pools
}

// plugValue reads the kinds of value that only plugs and pools have.
func (o *Option) plugValue(v string) (string, *Error) {
	switch o.Kind {
	case Container:
		c, why := parseContainer(v)
		if why == "" && c.Kind == "" {
			why = "does not say what kind of container it is"
		}
		if why != "" {
			return "", o.wrong(v, why)
		}
		return c.String(), nil
	case Interface:
		if why := badName(v, maxInterfaceName); why != "" {
			return "", o.wrong(v, why)
		}
		return v, nil
	case AddressList:
		return o.addressList(v)
	case RouteList:
		routes, bad := parseRoutes(v)
		if bad != "" {
			return "", o.wrong(bad, "is not a route")
		}
		if len(routes) > maxRoutes {
			return "", o.wrong(routes[maxRoutes].String(), fmt.Sprintf("is one more than the %d routes there may be", maxRoutes))
		}
		return joinTexts(routes), nil
	case NameList:
		return o.names(v)
	case NetworkList:
		return o.networks(v)
	case RangeList:
		return o.ranges(v)
	case PublishList:
		all, bad, why := parsePublished(v)
		if bad != "" {
			return "", o.wrong(bad, why)
		}
		if len(all) > maxPublished {
			return "", o.wrong(all[maxPublished].String(), fmt.Sprintf("is one more than the %d published ports there may be", maxPublished))
		}
		return joinTexts(all), nil
	}
	panic("config: kind without a reader")
}

func joinTexts[T fmt.Stringer](all []T) string {
	words := make([]string, len(all))
	for i, x := range all {
		words[i] = x.String()
	}
	return strings.Join(words, ",")
}

func orWords(words []string) string {
	if len(words) == 0 {
		return ""
	}
	return ", or " + orList(words)
}

func (o *Option) addressList(v string) (string, *Error) {
	if slices.Contains(o.Words, v) {
		return v, nil
	}
	var list []netip.Addr
	for _, word := range splitList(v) {
		a, why := parseUnicast(word)
		if why != "" {
			return "", o.wrong(word, why)
		}
		if slices.ContainsFunc(list, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			return "", o.wrong(word, "is the second of its family")
		}
		list = append(list, a)
	}
	if len(list) == 0 {
		return "", o.wrong(v, "holds no address")
	}
	return joinTexts(list), nil
}

// parseRoutes reads routes separated by commas, or says which is wrong.
func parseRoutes(v string) (list []Route, bad string) {
	for part := range strings.SplitSeq(v, ",") {
		words := strings.Fields(part)
		if len(words) == 0 {
			continue
		}
		if words[0] == "default" {
			return nil, part // that is gateway's
		}
		p, err := netip.ParsePrefix(words[0])
		if err != nil {
			a, err := netip.ParseAddr(words[0])
			if err != nil || a.Zone() != "" {
				return nil, part
			}
			p = netip.PrefixFrom(a, a.BitLen())
		}
		if p != p.Masked() || p.Addr().Is4In6() || p.Bits() == 0 || p.Addr().IsMulticast() {
			return nil, part
		}
		r := Route{Dst: p}
		switch {
		case len(words) == 1:
		case len(words) == 3 && words[1] == "via":
			via, err := netip.ParseAddr(words[2])
			if err != nil || via.Is4() != p.Addr().Is4() || via.Is4In6() || via.Zone() != "" || via.IsUnspecified() || via.IsMulticast() {
				return nil, part
			}
			r.Via = via
		default:
			return nil, part
		}
		if !slices.Contains(list, r) {
			list = append(list, r)
		}
	}
	if len(list) == 0 && v != "" {
		return nil, v
	}
	return list, ""
}

// isLabel takes a label of a host name (RFC 1123, section 2.1), and underscores, which
// containers' names have.
func isLabel(s string) bool {
	if s == "" || len(s) > 63 || s[0] == '-' || s[len(s)-1] == '-' {
		return false
	}
	return !strings.ContainsFunc(s, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= '0' && r <= '9' || r == '-' || r == '_')
	})
}

func (o *Option) names(v string) (string, *Error) {
	var list []string
	for _, word := range splitList(v) {
		name := strings.ToLower(word)
		if !isLabel(name) {
			return "", o.wrong(word, "is not a name")
		}
		if !slices.Contains(list, name) {
			list = append(list, name)
		}
		if len(list) > maxAliases {
			return "", o.wrong(word, fmt.Sprintf("is one more than the %d names there may be", maxAliases))
		}
	}
	if len(list) == 0 {
		return "", o.wrong(v, "holds no name")
	}
	return strings.Join(list, ","), nil
}

func (o *Option) networks(v string) (string, *Error) {
	var list []netip.Prefix
	for _, word := range splitList(v) {
		p, err := netip.ParsePrefix(word)
		switch {
		case err != nil:
			return "", o.wrong(word, "is not a network")
		case p != p.Masked():
			return "", o.wrong(word, fmt.Sprintf("is an address in a network, which is %s", p.Masked()))
		case p.Addr().Is4In6() || p.Addr().IsMulticast() || p.Bits() == 0:
			return "", o.wrong(word, "is not a network that hosts can have")
		case slices.ContainsFunc(list, func(q netip.Prefix) bool { return p.Addr().Is4() == q.Addr().Is4() }):
			return "", o.wrong(word, "is the second of its family")
		}
		list = append(list, p)
	}
	if len(list) == 0 {
		return "", o.wrong(v, "holds no network")
	}
	return joinTexts(list), nil
}

// parseRange reads an address, a network, or two addresses with a dash between, and
// returns the canonical spelling too.
func parseRange(s string) (r AddrRange, text string, ok bool) {
	if first, last, two := strings.Cut(s, "-"); two {
		a, err1 := netip.ParseAddr(first)
		b, err2 := netip.ParseAddr(last)
		if err1 != nil || err2 != nil || a.Is4() != b.Is4() || a.Is4In6() || b.Is4In6() || b.Less(a) || a.Zone() != "" || b.Zone() != "" {
			return r, "", false
		}
		return AddrRange{a, b}, a.String() + "-" + b.String(), true
	}
	if p, err := netip.ParsePrefix(s); err == nil {
		if p.Addr().Is4In6() {
			return r, "", false
		}
		p = p.Masked()
		return AddrRange{p.Addr(), lastOf(p)}, p.String(), true
	}
	a, err := netip.ParseAddr(s)
	if err != nil || a.Zone() != "" || a.Is4In6() {
		return r, "", false
	}
	return AddrRange{a, a}, a.String(), true
}

// lastOf is the highest address of a network.
func lastOf(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	for i := p.Bits(); i < len(b)*8; i++ {
		b[i/8] |= 1 << (7 - i%8)
	}
	a, _ := netip.AddrFromSlice(b)
	return a
}

func (o *Option) ranges(v string) (string, *Error) {
	var list []string
	for _, word := range splitList(v) {
		_, text, ok := parseRange(word)
		if !ok {
			return "", o.wrong(word, "is not an address, a network or a range")
		}
		if !slices.Contains(list, text) {
			list = append(list, text)
		}
		if len(list) > maxExcluded {
			return "", o.wrong(word, fmt.Sprintf("is one more than the %d ranges there may be", maxExcluded))
		}
	}
	if len(list) == 0 {
		return "", o.wrong(v, "holds no address")
	}
	return strings.Join(list, ","), nil
}

// ParsePublish reads [HOST:]PORT:PORT[/tcp|/udp].
func ParsePublish(s string) (Publish, error) {
	p, why := parsePublish(s)
	if why != "" {
		return Publish{}, find("publish").wrong(s, why)
	}
	return p, nil
}

func parsePublish(s string) (p Publish, why string) {
	const notOne = "is not a published port"
	rest, proto, given := strings.Cut(s, "/")
	if !given {
		proto = "tcp"
	}
	if proto != "tcp" && proto != "udp" {
		return p, "has a protocol other than tcp and udp"
	}
	p.Proto = proto
	i := strings.LastIndexByte(rest, ':')
	if i < 0 {
		return p, notOne
	}
	to, rest := rest[i+1:], rest[:i]
	host := ""
	if i := strings.LastIndexByte(rest, ':'); i >= 0 {
		host, rest = rest[:i], rest[i+1:]
		if in, ok := strings.CutPrefix(host, "["); ok {
			host, ok = strings.CutSuffix(in, "]")
			if !ok {
				return p, notOne
			}
		} else if strings.Contains(host, ":") {
			return p, "has an IPv6 address without brackets"
		}
		a, err := netip.ParseAddr(host)
		if err != nil || a.Zone() != "" || a.Is4In6() || a.IsMulticast() {
			return p, "does not begin with an address of the host"
		}
		if !a.IsUnspecified() {
			p.Host = a
		}
	}
	for _, x := range []struct {
		text string
		to   *uint16
	}{{rest, &p.Port}, {to, &p.To}} {
		n, ok := decimal(x.text)
		if !ok || n < 1 || n > 65535 {
			return p, "has no port of 1 to 65535"
		}
		*x.to = uint16(n)
	}
	return p, ""
}

// parsePublished reads a list, or says which is wrong and why.
func parsePublished(v string) (list []Publish, bad, why string) {
	for _, word := range splitList(v) {
		p, why := parsePublish(word)
		if why != "" {
			return nil, word, why
		}
		if slices.ContainsFunc(list, p.clashes) {
			return nil, word, "is a port of the host that is in the list already"
		}
		list = append(list, p)
	}
	if len(list) == 0 && strings.TrimSpace(v) != "" {
		return nil, v, "holds no port"
	}
	return list, "", ""
}

// clashes says whether both want the same port of the host.
func (p Publish) clashes(q Publish) bool {
	return p.Port == q.Port && p.Proto == q.Proto && (!p.Host.IsValid() || !q.Host.IsValid() || p.Host == q.Host)
}
