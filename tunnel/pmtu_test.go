package tunnel

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"vswitch/frame"
	"vswitch/internal/lab"
)

// TestRouterSaysTooBig lowers the MTU of a link that only a router sees. The ICMP
// message it answers with is for the socket that the frame left by, which nobody
// reads: the kernel knows what it said all the same.
//
//	[a] ── 1500 ── router ── 1400 ── [b]
func TestRouterSaysTooBig(t *testing.T) {
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	u := l.Underlay("net", lab.UnderlayOptions{Routed: true})
	u.Join(a, "192.0.2.1/24", "2001:db8:1::1/64")
	u.Join(b, "198.51.100.1/24", "2001:db8:2::1/64")
	u.MustExec("ip", "link", "set", "dev", "b", "mtu", "1400")
	for _, c := range []struct {
		kind          Kind
		local, remote string
	}{
		{VXLAN, "0.0.0.0", "198.51.100.1"}, {VXLAN, "2001:db8:1::1", "2001:db8:2::1"}, {GRE, "192.0.2.1", "198.51.100.1"}, {GRE, "::", "2001:db8:2::1"},
	} {
		t.Run(fmt.Sprintf("%s to %s", c.kind, c.remote), func(t *testing.T) {
			// What was learned before is forgotten.
			a.MustExec("ip", "-4", "route", "flush", "cache")
			a.MustExec("ip", "-6", "route", "flush", "cache")
			err := a.Do(func() error {
				changed := 0
				e, err := Open(EndpointConfig{Kind: c.kind, Local: netip.MustParseAddr(c.local)})
				if err != nil {
					return err
				}
				defer e.Close()
				p, err := e.NewPort(PortConfig{Remote: netip.MustParseAddr(c.remote), DF: true, PathChanged: func() { changed++ }})
				if err != nil {
					return err
				}
				if mtu, err := p.PathMTU(); err != nil || mtu != 1500 {
					return fmt.Errorf("before, the path MTU is %d, %v", mtu, err)
				}
				x := &end{}
				if x.pool, err = frame.NewPool(frame.MaxBatch); err != nil {
					return err
				}
				defer x.pool.Close()
				size := 1500 - p.Overhead() - 40
				outs := []frame.Out{x.out(inner{tcp: true, payload: 40 * size, gso: size})}
				err = lab.Wait(soon, func() error {
					if _, errno := p.Send(0, &x.v, outs); errno != unix.EMSGSIZE {
						return fmt.Errorf("a frame of 1500 bytes met %v", errno)
					}
					return nil
				})
				if err != nil {
					return err
				}
				if mtu, err := p.PathMTU(); err != nil || mtu != 1400 || changed != 1 {
					return fmt.Errorf("the path MTU is %d, %v; PathChanged was called %d times", mtu, err, changed)
				}
				size -= 100
				outs[0] = x.out(inner{tcp: true, payload: 40 * size, gso: size})
				if n, errno := p.Send(0, &x.v, outs); n != 1 {
					return fmt.Errorf("a frame that fits: %w", errno)
				}
				return nil
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
}

// TestRenumbered gives a host another address while its endpoint is open:
//
//	a eth0 192.0.2.1/24, later 192.0.2.3/24 ── eth0 192.0.2.2/24 b
func TestRenumbered(t *testing.T) {
	l := lab.New(t)
	a, b := l.Host("a"), l.Host("b")
	l.Wire(a.Namespace, "eth0", "192.0.2.1/24", b.Namespace, "eth0", "192.0.2.2/24")
	err := a.Do(func() error {
		e, err := Open(EndpointConfig{Kind: VXLAN, Local: netip.IPv4Unspecified()})
		if err != nil {
			return err
		}
		defer e.Close()
		p, err := e.NewPort(PortConfig{Remote: netip.MustParseAddr("192.0.2.2"), DF: true})
		if err != nil {
			return err
		}
		if _, err := p.PathMTU(); err != nil {
			return err
		}
		a.MustExec("ip", "addr", "add", "192.0.2.3/25", "dev", "eth0")
		a.MustExec("ip", "addr", "del", "192.0.2.1/24", "dev", "eth0")
		_, err = p.PathMTU()
		return err
	})
	if err != nil {
		t.Error(err)
	}
}
