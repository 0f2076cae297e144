package doctor

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/frame"
	"vswitch/probe"
)

// maxPeerAddresses is how many addresses of a name are looked at.
const maxPeerAddresses = 4

// checkPeer looks at one host: its address, the way there, and what leads to it.
func (x *visit) checkPeer(ctx context.Context) {
	peer := x.query.Peer
	if peer == "" {
		return
	}
	addrs := x.resolvePeer(ctx, peer)
	if len(addrs) == 0 {
		return
	}
	var pinging sync.WaitGroup
	for _, a := range addrs {
		if via, mtu, ok := x.routeTo(a); ok {
			pinging.Go(func() { x.pingPeer(ctx, a, via, mtu) }) // ended by ctx
		}
	}
	pinging.Wait()
	tunnels, err := x.o.Host.Tunnels(ctx, x.query.Bridge)
	if err != nil {
		x.unknown("peer", "tunnels", peer, "", "%v", err)
		return
	}
	found := 0
	for _, st := range tunnels {
		if st.Remote != peer && !slices.ContainsFunc(addrs, func(a netip.Addr) bool { return st.RemoteAddr == a.String() }) {
			continue
		}
		found++
		x.checkPeerTunnel(ctx, st)
	}
	if found == 0 {
		x.warn("peer", "tunnels", peer, fmt.Sprintf("vswitchctl add-port BR NAME type=%s remote_ip=%s", config.VXLANPort, peer), "no tunnel leads there")
	}
}

func (x *visit) checkPeerTunnel(ctx context.Context, st api.TunnelStatus) {
	if st.State != api.PortUp {
		x.fail("peer", "tunnel-state", st.Port, "see tunnels above", "%s of bridge %s: %s: %s", st.Type, st.Bridge, st.State, st.Reason)
		return
	}
	bfd := "no BFD"
	if st.BFD != nil {
		bfd = fmt.Sprintf("BFD %s, went down %d times", st.BFD.State, st.BFD.Flaps)
	}
	for range echoTries {
		if took, ok := x.o.Host.Echo(ctx, st.Port, probe.MinLen, echoWithin); ok {
			x.ok("peer", "tunnel-echo", st.Port, "its vswitch answers through %s of bridge %s in %.2f ms; %s", st.Type, st.Bridge, took.Seconds()*1000, bfd)
			return
		}
	}
	fix := "is vswitchd running there, with a tunnel port back to this host with this key, in the same VLANs? Does a firewall let the tunnel through?"
	if st.LastHeard != nil {
		x.warn("peer", "tunnel-echo", st.Port, fix, "no vswitch answers through %s of bridge %s, though frames came from there %s ago: another kind of switch? %s",
			st.Type, st.Bridge, api.Span(time.Since(*st.LastHeard)), bfd)
		return
	}
	x.fail("peer", "tunnel-echo", st.Port, fix, "nothing ever came through %s of bridge %s; %s", st.Type, st.Bridge, bfd)
}

// resolvePeer finds a host's addresses: those that this host has a route to, if it has
// one to any.
func (x *visit) resolvePeer(ctx context.Context, peer string) []netip.Addr {
	if a, err := netip.ParseAddr(peer); err == nil {
		return []netip.Addr{a.Unmap()}
	}
	all, err := net.DefaultResolver.LookupNetIP(ctx, "ip", peer)
	if err != nil || len(all) == 0 {
		x.fail("peer", "name", peer, "mend the name, or /etc/hosts, or the resolver (/etc/resolv.conf)", "it has no address: %v", err)
		return nil
	}
	look, text := peerAddresses(all, func(a netip.Addr) bool {
		routes, err := netlink.RouteGet(a.AsSlice())
		return err == nil && len(routes) > 0
	})
	x.ok("peer", "name", peer, "is %s", text)
	return look
}

// peerAddresses chooses which of a name's addresses are looked at: those with a route, or
// the first. It says in a text what there is.
func peerAddresses(all []netip.Addr, hasRoute func(netip.Addr) bool) (look []netip.Addr, text string) {
	var parts []string
	for _, a := range all[:min(len(all), maxPeerAddresses)] {
		a = a.Unmap()
		if hasRoute(a) {
			look = append(look, a)
			parts = append(parts, a.String())
		} else {
			parts = append(parts, a.String()+" (no route)")
		}
	}
	if more := len(all) - len(parts); more > 0 {
		parts = append(parts, fmt.Sprintf("%d more", more))
	}
	if len(look) == 0 {
		look = []netip.Addr{all[0].Unmap()}
	}
	return look, strings.Join(parts, ", ")
}

// routeTo finds the way to an address: the interface, and the MTU of the route.
func (x *visit) routeTo(a netip.Addr) (via string, mtu int, ok bool) {
	routes, err := netlink.RouteGet(a.AsSlice())
	if err != nil || len(routes) == 0 {
		x.fail("peer", "route", a.String(), "ip route add, or mend the interface that should lead there", "this host has no route to it: %v", err)
		return "", 0, false
	}
	r := routes[0]
	l, err := netlink.LinkByIndex(r.LinkIndex)
	if err != nil {
		x.unknown("peer", "route", a.String(), "", "look at the interface that leads there: %v", err)
		return "", 0, false
	}
	via, mtu = l.Attrs().Name, l.Attrs().MTU
	if r.MTU > 0 {
		mtu = min(mtu, r.MTU)
	}
	what := fmt.Sprintf("by %s, MTU %d", via, mtu)
	if r.Src != nil {
		what += ", from " + r.Src.String()
	}
	if r.Gw != nil {
		what += ", by way of " + r.Gw.String()
	}
	x.ok("peer", "route", a.String(), "%s", what)
	return via, min(mtu, 65535), true
}

// routeFix is the command that tells the kernel of a way that takes less than it looks.
func routeFix(remote string, mtu int) string {
	a, err := netip.ParseAddr(remote)
	if err == nil {
		if routes, err := netlink.RouteGet(a.AsSlice()); err == nil && len(routes) > 0 {
			via := ""
			if routes[0].Gw != nil {
				via = " via " + routes[0].Gw.String()
			}
			if l, err := netlink.LinkByIndex(routes[0].LinkIndex); err == nil {
				return fmt.Sprintf("ip route replace %s%s dev %s mtu %d", a, via, l.Attrs().Name, mtu)
			}
		}
	}
	return fmt.Sprintf("ip route replace %s … mtu %d", remote, mtu)
}

// pingPeer asks a host by ICMP, with small packets and with full ones.
func (x *visit) pingPeer(ctx context.Context, a netip.Addr, via string, mtu int) {
	if err := canPing(); err != nil {
		x.unknown("peer", "ping", a.String(), permissionFix(err), "%v", err)
		return
	}
	const small = 100
	once := pingOf(ctx, netip.Addr{}, a)
	ping := often(once)
	passes := bothPass(small, mtu, ping)
	switch {
	case passes[1] || passes[0] && ping(mtu):
		x.ok("peer", "ping", a.String(), "answers packets of %d bytes that must not be fragmented", mtu)
	case passes[0]:
		n := largest(small, mtu, ping)
		sure := isEdge(n, once)
		if ctx.Err() != nil {
			x.unknown("peer", "ping", a.String(), "", "there was no time left to find out which size gets through")
			return
		}
		if !sure {
			x.unknown("peer", "ping", a.String(), lossyFix, "some packets get through, and some do not, whatever their size")
			return
		}
		x.fail("peer", "ping", a.String(), routeFix(a.String(), n)+"; or mend the link that takes too little",
			"packets of up to %d bytes get through, and not the %d that %s takes", n, mtu, via)
	default:
		x.warn("peer", "ping", a.String(), "is the host up? A firewall may keep ICMP out", "it does not answer pings")
	}
}

// canPing tells why this process cannot ping, or nil.
func canPing() error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_ICMP)
	if err != nil {
		return fmt.Errorf("open a socket for ICMP: %w", err)
	}
	return unix.Close(fd)
}

// pingOf returns what tells whether an IP packet of a size gets to a host and back,
// unfragmented, once.
func pingOf(ctx context.Context, local, remote netip.Addr) func(n int) bool {
	return func(n int) bool {
		ok, err := ping(ctx, local, remote, n, echoWithin)
		return ok && err == nil
	}
}

// ICMP Echo, RFC 792 and RFC 4443 section 4.1:
//
//	 0                   1                   2                   3
//	 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Type      |     Code      |          Checksum             |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|           Identifier          |        Sequence Number        |
//	+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+-+
//	|     Data ...
const (
	icmpHeaderLen = 8
	icmpChecksum  = 2
	icmpID        = 4

	icmpEcho, icmpEchoReply   = 8, 0
	icmp6Echo, icmp6EchoReply = 128, 129
)

// ping sends one ICMP Echo in an IP packet of n bytes, and reports whether the answer
// came within the time. The kernel's idea of the path's MTU has no say: what it is to
// be found out is whether that is right.
func ping(ctx context.Context, local, remote netip.Addr, n int, within time.Duration) (bool, error) {
	domain, proto, request, reply, head := unix.AF_INET, unix.IPPROTO_ICMP, byte(icmpEcho), byte(icmpEchoReply), frame.IPv4MinLen
	level, discover, probing := unix.SOL_IP, unix.IP_MTU_DISCOVER, unix.IP_PMTUDISC_PROBE
	if remote.Is6() {
		domain, proto, request, reply, head = unix.AF_INET6, unix.IPPROTO_ICMPV6, icmp6Echo, icmp6EchoReply, frame.IPv6Len
		level, discover, probing = unix.SOL_IPV6, unix.IPV6_MTU_DISCOVER, unix.IPV6_PMTUDISC_PROBE
	}
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err != nil {
		return false, fmt.Errorf("open a socket for ICMP: %w", err)
	}
	defer unix.Close(fd)
	if err := unix.SetsockoptInt(fd, level, discover, probing); err != nil {
		return false, fmt.Errorf("send unfragmented: %w", err)
	}
	if local.IsValid() && local.Is4() == remote.Is4() {
		if err := unix.Bind(fd, socketAddress(local)); err != nil {
			return false, fmt.Errorf("send from %s: %w", local, err)
		}
	}
	if err := unix.Connect(fd, socketAddress(remote)); err != nil {
		return false, fmt.Errorf("send to %s: %w", remote, err)
	}
	b := make([]byte, max(n-head, icmpHeaderLen))
	b[0] = request
	rand.Read(b[icmpID:icmpHeaderLen]) // identifier and number: this one's alone
	if remote.Is4() {
		binary.BigEndian.PutUint16(b[icmpChecksum:], ^frame.Sum(b, 0)) // IPv6's is the kernel's
	}
	if _, err := unix.Write(fd, b); err != nil {
		return false, nil // EMSGSIZE: longer than the interface takes; or no route
	}
	want := string(b[icmpID:icmpHeaderLen])
	got := make([]byte, 65536)
	for deadline := time.Now().Add(within); ctx.Err() == nil; {
		left := time.Until(deadline)
		if left <= 0 {
			return false, nil
		}
		poll := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(poll, int(left.Milliseconds())+1); err != nil && !errors.Is(err, unix.EINTR) {
			return false, fmt.Errorf("wait for ICMP: %w", err)
		}
		m, err := unix.Read(fd, got)
		if err != nil {
			continue // none yet; or what ICMP says of the way, which is told by no answer
		}
		p := got[:m]
		if remote.Is4() { // a raw IPv4 socket brings the IP header
			if m < frame.IPv4MinLen || int(p[0]&0xf)*4 > m {
				continue
			}
			p = p[int(p[0]&0xf)*4:]
		}
		if len(p) >= len(b) && p[0] == reply && string(p[icmpID:icmpHeaderLen]) == want {
			return true, nil
		}
	}
	return false, nil
}

func socketAddress(a netip.Addr) unix.Sockaddr {
	if a.Is4() {
		return &unix.SockaddrInet4{Addr: a.As4()}
	}
	s := &unix.SockaddrInet6{Addr: a.As16()}
	if i, err := net.InterfaceByName(a.Zone()); err == nil {
		s.ZoneId = uint32(i.Index)
	}
	return s
}
