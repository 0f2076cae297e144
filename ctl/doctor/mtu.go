package doctor

import (
	"context"
	"fmt"
	"net/netip"
	"sync"
	"time"

	"vswitch/ctl/api"
	"vswitch/frame"
	"vswitch/probe"
)

// Bounds of what is sent to measure tunnels.
const (
	maxTunnelsMeasured = 256
	tunnelsAtOnce      = 16
	echoWithin         = 500 * time.Millisecond // an answer comes in that time, or does not
	echoTries          = 3
	edgeTries          = 8 // of a size that passes, of which fewer than edgeLost may be lost
	edgeLost           = 3
	sizesAtOnce        = 7 // a round of the search for the largest size divides what is left by 8
)

// checkTunnels looks at whether tunnels are up, and carries frames of full size through
// those that are.
func (x *visit) checkTunnels(ctx context.Context) {
	tunnels, err := x.o.Host.Tunnels(ctx, x.query.Bridge)
	if err != nil {
		x.unknown("tunnels", "tunnel-state", "", "", "%v", err)
		return
	}
	slots := make(chan struct{}, tunnelsAtOnce)
	var running sync.WaitGroup
	for i, st := range tunnels {
		if st.State != api.PortUp {
			x.fail("tunnels", "tunnel-state", st.Port, tunnelFix(st), "to %s: %s: %s", st.Remote, st.State, st.Reason)
			continue
		}
		if i >= maxTunnelsMeasured {
			x.unknown("tunnels", "mtu", "", "vswitchctl doctor BR looks at one bridge's", "%d tunnels more were not measured", len(tunnels)-i)
			break
		}
		slots <- struct{}{}
		running.Go(func() { // ended by ctx
			defer func() { <-slots }()
			x.measureTunnel(ctx, st)
		})
	}
	running.Wait()
}

func tunnelFix(st api.TunnelStatus) string {
	if st.BFD != nil {
		return fmt.Sprintf("is the other end there, and has its port BFD on (bfd_enable=true) and this key? vswitchctl doctor --peer %s tells more", st.Remote)
	}
	return fmt.Sprintf("look at ip route get %s; vswitchctl doctor --peer %s tells more", st.Remote, st.Remote)
}

// measureTunnel finds out whether what a tunnel is said to carry arrives.
func (x *visit) measureTunnel(ctx context.Context, st api.TunnelStatus) {
	if st.MTU == 0 {
		x.unknown("tunnels", "mtu", st.Port, "", "the path's MTU is not known yet")
		return
	}
	full := st.MTU + frame.EthLen
	small := probe.MinLen
	bfd := ""
	if st.BFD != nil && st.BFD.Flaps > 0 {
		bfd = fmt.Sprintf("; BFD went down %d times", st.BFD.Flaps)
	}
	once := x.echoBy(ctx, st.Port)
	echo := often(once)
	passes := bothPass(small, full, echo)
	switch {
	case passes[1]:
		x.ok("tunnels", "mtu", st.Port, "to %s: a vswitch, which gets IP packets of %d bytes whole%s", st.Remote, st.MTU, bfd)
	case passes[0] && echo(full): // it was lost, and its next tries with it
		x.ok("tunnels", "mtu", st.Port, "to %s: a vswitch, which gets IP packets of %d bytes whole, though some were lost%s", st.Remote, st.MTU, bfd)
	case passes[0]:
		n := largest(small, full, echo)
		x.blackHole(ctx, st, n-frame.EthLen, "a vswitch answers", isEdge(n, once))
	case ctx.Err() != nil:
		x.noTime(st.Port)
	default:
		x.pingTunnel(ctx, st)
	}
}

// echoBy returns what tells whether a frame of a size gets through a tunnel to a vswitch,
// once.
func (x *visit) echoBy(ctx context.Context, port string) func(n int) bool {
	return func(n int) bool {
		_, ok := x.o.Host.Echo(ctx, port, n, echoWithin)
		return ok
	}
}

// often tries again what did not pass.
func often(once func(n int) bool) func(n int) bool {
	return func(n int) bool {
		for range echoTries {
			if once(n) {
				return true
			}
		}
		return false
	}
}

// isEdge confirms that a size passes, nearly each time, and that the next one never does:
// where frames are lost whatever their size, or answers are, since who gives them is kept
// busy by others, a search finds some size, too.
func isEdge(n int, once func(n int) bool) bool {
	below := func(n int) bool {
		lost := 0
		for i := 0; i < edgeTries && lost < edgeLost; i++ {
			if !once(n) {
				lost++
			}
		}
		return lost < edgeLost
	}
	above := often(once)
	passes := bothPass(n, n+1, func(size int) bool {
		if size == n {
			return below(size)
		}
		return above(size)
	})
	return passes[0] && !passes[1]
}

// pingTunnel asks the other end's host, where no vswitch answers.
func (x *visit) pingTunnel(ctx context.Context, st api.TunnelStatus) {
	remote, err := netip.ParseAddr(st.RemoteAddr)
	if err != nil {
		x.unknown("tunnels", "mtu", st.Port, "", "nobody answers, and the other end's address is not known")
		return
	}
	if err := canPing(); err != nil {
		x.unknown("tunnels", "mtu", st.Port, permissionFix(err), "no vswitch answers there, and %v", err)
		return
	}
	local, _ := netip.ParseAddr(st.LocalAddr) // not valid: any
	const small = 100
	once := pingOf(ctx, local, remote)
	ping := often(once)
	passes := bothPass(small, st.PathMTU, ping)
	lost := st.PathMTU - st.MTU
	switch {
	case passes[1]:
		x.ok("tunnels", "mtu", st.Port, "to %s: no vswitch answers there, and the host gets packets of %d bytes whole, so IP packets of %d inside", st.Remote, st.PathMTU, st.MTU)
	case passes[0] && ping(st.PathMTU):
		x.ok("tunnels", "mtu", st.Port, "to %s: no vswitch answers there, and the host gets packets of %d bytes whole, though some were lost", st.Remote, st.PathMTU)
	case passes[0]:
		n := largest(small, st.PathMTU, ping)
		x.blackHole(ctx, st, n-lost, "no vswitch answers there, and the host does", isEdge(n, once))
	case ctx.Err() != nil:
		x.noTime(st.Port)
	default:
		x.unknown("tunnels", "mtu", st.Port, fmt.Sprintf("is the host up, and does its firewall let ICMP and the tunnel through? ping %s; vswitchctl doctor --peer %s", st.Remote, st.Remote),
			"%s answers neither probes nor pings", st.Remote)
	}
}

// blackHole tells of a tunnel that loses what it is said to carry. passes is the
// largest inner IP packet that arrived, and sure says that this was confirmed.
func (x *visit) blackHole(ctx context.Context, st api.TunnelStatus, passes int, who string, sure bool) {
	if ctx.Err() != nil {
		x.noTime(st.Port) // what did not pass may not have been waited for
		return
	}
	if !sure {
		x.unknown("tunnels", "mtu", st.Port, lossyFix, "to %s: some frames get through, and some do not, whatever their size", st.Remote)
		return
	}
	outer := st.PathMTU - st.MTU + passes
	fix := routeFix(st.RemoteAddr, outer) + " here, and the like at the other end; or let ICMP \"fragmentation needed\" through on the way, or mend the link that takes too little"
	for i := range x.bridges {
		for _, p := range x.bridges[i].Ports {
			if p.Name == st.Port && !p.Options.Bool("df_default") {
				x.warn("tunnels", "mtu", st.Port, fix, "to %s: packets of more than %d bytes are lost even in fragments", st.Remote, passes)
				return
			}
		}
	}
	x.fail("tunnels", "mtu", st.Port, fix,
		"to %s: an MTU black hole: %s; IP packets of up to %d bytes get through, and not the %d that the path is said to take: longer ones are lost without a word", st.Remote, who, passes, st.MTU)
}

const lossyFix = "try again later: the way there loses frames, or who answers is kept busy by others"

func (x *visit) noTime(port string) {
	x.unknown("tunnels", "mtu", port, "vswitchctl doctor BR looks at one bridge alone", "there was no time left to measure it")
}

// bothPass tries two sizes at once.
func bothPass(small, full int, try func(n int) bool) (passes [2]bool) {
	var running sync.WaitGroup
	running.Go(func() { passes[0] = try(small) })
	running.Go(func() { passes[1] = try(full) })
	running.Wait()
	return passes
}

// largest finds the largest size that passes, between one that does and one that does
// not: several at a time, since what does not pass takes its time.
func largest(passes, fails int, try func(n int) bool) int {
	for fails-passes > 1 {
		parts := min(sizesAtOnce, fails-passes-1)
		did := make([]bool, parts)
		size := func(i int) int { return passes + (fails-passes)*(i+1)/(parts+1) }
		var running sync.WaitGroup
		for i := range parts {
			running.Go(func() { did[i] = try(size(i)) })
		}
		running.Wait()
		low, high := passes, fails
		for i := range parts {
			if did[i] {
				low = max(low, size(i))
			}
		}
		for i := range parts {
			if n := size(i); !did[i] && n > low {
				high = min(high, n)
			}
		}
		passes, fails = low, high
	}
	return passes
}
