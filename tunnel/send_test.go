package tunnel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// toStranger makes r.a's port one to a stranger at 127.0.0.3, and returns both.
func toStranger(r *rig, c PortConfig) (*stranger, *Port, error) {
	s, err := newStranger(VXLAN, "127.0.0.3", 5555)
	if err != nil {
		return nil, nil, err
	}
	c.Remote, c.DstPort, c.OutKey = netip.MustParseAddr("127.0.0.3"), 5555, 7
	p, err := r.a.e.NewPort(c)
	return s, p, err
}

// TestOuterHeader looks at source port, TOS and TTL on the wire.
func TestOuterHeader(t *testing.T) {
	for _, c := range []struct {
		name     string
		port     PortConfig
		inner    inner
		tos, ttl int
	}{
		{"defaults", PortConfig{}, inner{tos: 0xb8, ttl: 9}, 0, 64},
		{"ECN is inherited", PortConfig{TOS: 0x20}, inner{tos: 0xb9}, 0x21, 64},
		{"CE too", PortConfig{}, inner{tos: 3}, 3, 64},
		{"TOS inherited", PortConfig{TOSInherit: true}, inner{tos: 0xba}, 0xba, 64},
		{"IPv6's", PortConfig{TOSInherit: true, TTLInherit: true}, inner{v6: true, tos: 0xba, ttl: 33}, 0xba, 33},
		{"TTL", PortConfig{TTL: 5}, inner{ttl: 9}, 0, 5},
		{"TTL inherited", PortConfig{TTLInherit: true, DF: true}, inner{ttl: 9, tag: 5}, 0, 9},
		{"of a super-frame", PortConfig{TTL: 7, TOSInherit: true, DF: true}, inner{tcp: true, tos: 0x42, payload: 30000, gso: 1000}, 0x42, 7},
		{"super-frame without checksum", PortConfig{TTL: 7, TOS: 4, Csum: CsumOff}, inner{tcp: true, payload: 3000, gso: 1000}, 4, 7},
	} {
		space(t, 1500, func() error {
			r, err := newRig(rigConfig{})
			if err != nil {
				return err
			}
			defer r.close()
			s, p, err := toStranger(r, c.port)
			if err != nil {
				return err
			}
			o := r.a.out(c.inner)
			if n, errno := p.Send(0, &r.a.v, []frame.Out{o}); n != 1 {
				return fmt.Errorf("%s: %w", c.name, errno)
			}
			for i, want := range wire(r.a.pool, o) {
				b, _, tos, ttl, err := s.receive()
				if err != nil {
					return fmt.Errorf("%s: %w", c.name, err)
				}
				if tos != c.tos || ttl != c.ttl {
					return fmt.Errorf("%s: datagram %d has TOS %#x, TTL %d; want %#x, %d", c.name, i, tos, ttl, c.tos, c.ttl)
				}
				if !bytes.Equal(b, vxlan(7, want)) {
					return fmt.Errorf("%s: datagram %d is\n%x, want\n%x", c.name, i, b, vxlan(7, want))
				}
			}
			return nil
		})
	}
}

// TestSourcePorts: flows spread over the source ports, and each has one.
func TestSourcePorts(t *testing.T) {
	space(t, 1500, func() error {
		r, err := newRig(rigConfig{})
		if err != nil {
			return err
		}
		defer r.close()
		s, p, err := toStranger(r, PortConfig{})
		if err != nil {
			return err
		}
		flows := map[uint16]int{} // by source port
		for flow := range 200 {
			var first uint16
			for packet := range 2 {
				o := r.a.out(inner{sport: uint16(1000 + flow), payload: packet})
				if n, errno := p.Send(0, &r.a.v, []frame.Out{o}); n != 1 {
					return errno
				}
				r.a.release([]frame.Out{o})
				_, from, _, _, err := s.receive()
				if err != nil {
					return err
				}
				if packet == 0 {
					first = from.Port()
					flows[first]++
				} else if from.Port() != first {
					return fmt.Errorf("flow %d left by port %d, and by %d", flow, first, from.Port())
				}
			}
		}
		if len(flows) != sourcePorts {
			return fmt.Errorf("200 flows left by %d source ports", len(flows))
		}
		for port, n := range flows {
			if n > 40 {
				return fmt.Errorf("%d of 200 flows left by port %d", n, port)
			}
		}
		return nil
	})
}

// kernel stands in for sendmmsg: it lets so many messages pass, then fails as told.
type kernel struct {
	passes int
	fails  unix.Errno
	times  int  // how often it fails; -1: always
	gso    bool // only messages with UDP_SEGMENT fail
	calls  int
}

func (k *kernel) call(fd int, msgs *frame.Mmsghdr, n int) (int, unix.Errno) {
	k.calls++
	if k.passes == 0 && k.times != 0 && (!k.gso || msgs.Hdr.Iovlen > 2) {
		k.times--
		return 0, k.fails
	}
	if k.passes > 0 {
		n = min(n, k.passes)
		k.passes -= n
	} else if k.gso {
		n = 1
	}
	return sendmmsg(fd, msgs, n)
}

// TestSendResumes lets sockets be full after each number of messages, and wants every
// datagram to arrive exactly once, in order.
func TestSendResumes(t *testing.T) {
	for _, k := range []rigConfig{{kind: VXLAN}, {kind: GRE}} {
		space(t, 1500, func() error {
			r, err := newRig(k)
			if err != nil {
				return err
			}
			defer r.close()
			s := (*r.a.e.senders.Load())[0]
			for passes := range 60 {
				outs := []frame.Out{
					r.a.out(inner{tcp: true, payload: 64000, gso: 1366}),
					r.a.out(inner{tcp: true, seq: 64000, payload: 700}),
					r.a.out(inner{tcp: true, seq: 64700, payload: 5000, gso: 1366}),
				}
				var want [][]byte
				for _, o := range outs {
					want = append(want, wire(r.a.pool, o)...)
				}
				s.call = (&kernel{passes: passes, fails: unix.EAGAIN, times: 2}).call
				rest := outs
				for tries := 0; len(rest) > 0; tries++ {
					n, errno := r.a.p.Send(0, &r.a.v, rest)
					rest = rest[n:]
					if len(rest) > 0 && errno != unix.EAGAIN || tries > 3 {
						return fmt.Errorf("%s after %d: %d went out, then %v", k.kind, passes, n, errno)
					}
					if len(rest) > 0 && r.a.p.SendFD(0) != r.a.p.socket(rest[0].F.Bytes()) {
						return fmt.Errorf("%s after %d: SendFD is not the socket that was full", k.kind, passes)
					}
				}
				all, err := r.b.receive(func(all []got) bool { return len(wireOf(r.b.pool, all)) >= len(want) })
				if err != nil {
					return fmt.Errorf("%s after %d: %w", k.kind, passes, err)
				}
				if err := equal(wireOf(r.b.pool, all), want); err != nil {
					return fmt.Errorf("%s after %d: %w", k.kind, passes, err)
				}
				r.a.release(outs)
			}
			if n := r.b.drain(); n > 0 {
				return fmt.Errorf("%s: %d frames too many", k.kind, n)
			}
			return nil
		})
	}
}

// TestResumeOfAnotherFrame: a super-frame that was dropped half sent leaves nothing to
// the next one, though that has the same buffer.
func TestResumeOfAnotherFrame(t *testing.T) {
	space(t, 1500, func() error {
		r, err := newRig(rigConfig{kind: GRE})
		if err != nil {
			return err
		}
		defer r.close()
		s := (*r.a.e.senders.Load())[0]
		s.call = (&kernel{passes: 10, fails: unix.EAGAIN, times: 1}).call
		outs := []frame.Out{r.a.out(inner{tcp: true, payload: 60000, gso: 1366})}
		if n, errno := r.a.p.Send(0, &r.a.v, outs); n != 0 || errno != unix.EAGAIN {
			return fmt.Errorf("%d went out, then %v", n, errno)
		}
		r.b.drain()
		r.a.release(outs)
		other := []frame.Out{r.a.out(inner{tcp: true, seq: 77, payload: 60000, gso: 1366})}
		if other[0].F != outs[0].F {
			return fmt.Errorf("the pool gave another frame")
		}
		want := wire(r.a.pool, other[0])
		if err := r.a.send(other); err != nil {
			return err
		}
		all, err := r.b.receive(func(all []got) bool { return len(wireOf(r.b.pool, all)) >= len(want) })
		if err != nil {
			return err
		}
		return equal(wireOf(r.b.pool, all), want)
	})
}

// TestSegmentationRefused: where UDP_SEGMENT does not work, datagrams go one by one,
// none is lost, and the kernel is not asked again.
func TestSegmentationRefused(t *testing.T) {
	for _, errno := range []unix.Errno{unix.EIO, unix.EINVAL} {
		space(t, 1500, func() error {
			r, err := newRig(rigConfig{})
			if err != nil {
				return err
			}
			defer r.close()
			k := &kernel{fails: errno, times: -1, gso: true}
			(*r.a.e.senders.Load())[0].call = k.call
			for range 2 {
				o := r.a.out(inner{tcp: true, payload: 60000, gso: 1366})
				want := wire(r.a.pool, o)
				if err := r.a.send([]frame.Out{o}); err != nil {
					return err
				}
				all, err := r.b.receive(func(all []got) bool { return len(wireOf(r.b.pool, all)) >= len(want) })
				if err != nil {
					return err
				}
				if err := equal(wireOf(r.b.pool, all), want); err != nil {
					return err
				}
			}
			if n := r.a.e.SegmentationRefused(); n != 1 {
				return fmt.Errorf("refused %d times", n)
			}
			return nil
		})
	}
}

// TestErrorsOfOthers: an error that waited in the socket costs no frame; one that is
// the frame's own costs that frame.
func TestErrorsOfOthers(t *testing.T) {
	space(t, 1500, func() error {
		r, err := newRig(rigConfig{})
		if err != nil {
			return err
		}
		defer r.close()
		s := (*r.a.e.senders.Load())[0]
		outs := r.a.frames(inner{payload: 9}.finished(), inner{payload: 20}.finished(), inner{payload: 31}.finished())
		s.call = (&kernel{passes: 1, fails: unix.ECONNREFUSED, times: 1}).call
		if n, errno := r.a.p.Send(0, &r.a.v, outs); n != 3 || errno != 0 {
			return fmt.Errorf("%d went out, then %v", n, errno)
		}
		s.call = (&kernel{passes: 1, fails: unix.EPERM, times: 2}).call
		if n, errno := r.a.p.Send(0, &r.a.v, outs); n != 1 || errno != unix.EPERM {
			return fmt.Errorf("%d went out, then %v", n, errno)
		}
		return nil
	})
}

// TestPathMTU lowers the MTU under a tunnel.
func TestPathMTU(t *testing.T) {
	for _, c := range []struct {
		rigConfig
		overhead int
	}{
		{rigConfig{kind: VXLAN}, 50}, {rigConfig{kind: VXLAN, v6: true}, 70}, {rigConfig{kind: Geneve}, 50},
		{rigConfig{kind: GRE}, 42}, {rigConfig{kind: GRE, v6: true}, 62},
	} {
		space(t, 1500, func() error {
			changed := 0
			c.port = func(c *PortConfig) { c.PathChanged = func() { changed++ } }
			r, err := newRig(c.rigConfig)
			if err != nil {
				return err
			}
			defer r.close()
			if n := r.a.p.Overhead(); n != c.overhead {
				return fmt.Errorf("%s: overhead %d, want %d", r.a.e.Name(), n, c.overhead)
			}
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			for _, mtu := range []int{1500, 1400, 9000, 1300} {
				if err := netlink.LinkSetMTU(lo, mtu); err != nil {
					return err
				}
				if got, err := r.a.p.PathMTU(); err != nil || got != mtu {
					return fmt.Errorf("%s: the path MTU is %d, %v; want %d", r.a.e.Name(), got, err, mtu)
				}
				fits := mtu - r.a.p.Overhead() - 20 - 20 // TCP payload of a frame that fits
				for _, o := range []frame.Out{
					r.a.out(inner{tcp: true, payload: fits}), r.a.out(inner{tcp: true, payload: min(9*fits, 60000), gso: fits}),
				} {
					if n, errno := r.a.p.Send(0, &r.a.v, []frame.Out{o}); n != 1 {
						return fmt.Errorf("%s: MTU %d: %w", r.a.e.Name(), mtu, errno)
					}
					r.a.pool.Release(o.F)
				}
				if changed != 0 {
					return fmt.Errorf("%s: PathChanged without cause", r.a.e.Name())
				}
				small := r.a.out(inner{payload: 10})
				for _, o := range []frame.Out{
					r.a.out(inner{tcp: true, payload: fits + 1}), r.a.out(inner{tcp: true, payload: min(9*fits+9, 60000), gso: fits + 1}),
				} {
					if n, errno := r.a.p.Send(0, &r.a.v, []frame.Out{small, o, small}); n != 1 || errno != unix.EMSGSIZE {
						return fmt.Errorf("%s: MTU %d, too long: %d, %v", r.a.e.Name(), mtu, n, errno)
					}
					r.a.pool.Release(o.F)
				}
				r.a.pool.Release(small.F)
				if changed != 2 || r.a.p.Stats().TooBig == 0 {
					return fmt.Errorf("%s: PathChanged was called %d times", r.a.e.Name(), changed)
				}
				changed = 0
				if mtu == 9000 {
					r.b.drain()
				}
			}
			return nil
		})
	}
}

// TestFragments: without DF what does not fit is fragmented, super-frames too.
func TestFragments(t *testing.T) {
	for _, k := range []rigConfig{{kind: VXLAN}, {kind: GRE}, {kind: Geneve, v6: true}} {
		space(t, 1400, func() error {
			k.port = func(c *PortConfig) { c.DF = false }
			r, err := newRig(k)
			if err != nil {
				return err
			}
			defer r.close()
			for _, p := range []inner{{tcp: true, payload: 1448, partial: true}, {tcp: true, payload: 30000, gso: 1448}} {
				o := r.a.out(p)
				want := wire(r.a.pool, o)
				if err := r.a.send([]frame.Out{o}); err != nil {
					return fmt.Errorf("%s: %w", r.a.e.Name(), err)
				}
				all, err := r.b.receive(func(all []got) bool { return len(wireOf(r.b.pool, all)) >= len(want) })
				if err != nil {
					return fmt.Errorf("%s: %w", r.a.e.Name(), err)
				}
				if err := equal(wireOf(r.b.pool, all), want); err != nil {
					return err
				}
			}
			if r.a.e.SegmentationRefused() != 0 {
				return fmt.Errorf("%s: UDP_SEGMENT is given up", r.a.e.Name())
			}
			return nil
		})
	}
}

// mss returns the MSS option of a SYN over IPv4 that inner built.
func mss(b []byte) int {
	at := bytes.Index(b, []byte{2, 4})
	return int(binary.BigEndian.Uint16(b[at+2:]))
}

// TestMSSClamp: SYNs are clamped both ways, and the frame that is sent stays what it
// is for other outputs.
func TestMSSClamp(t *testing.T) {
	syn := inner{tcp: true, flags: 0x02, options: []byte{2, 4, 1460 >> 8, 1460 & 0xff}}
	for _, c := range []struct {
		name   string
		a, b   int // SetMTU
		noflag bool
		inner  func() inner
		want   int
	}{
		{"on the way out", 1450, 0, false, func() inner { return syn }, 1410},
		{"on the way in", 0, 1400, false, func() inner { return syn }, 1360},
		{"both", 1450, 1400, false, func() inner { return syn }, 1360},
		{"partial", 1450, 0, false, func() inner { s := syn; s.partial = true; return s }, 1410},
		{"tagged", 1450, 0, false, func() inner { s := syn; s.tag = 5; s.partial = true; return s }, 1406},
		{"tagged, on the way in", 0, 1450, false, func() inner { s := syn; s.tag = 5; return s }, 1406},
		{"not known", 0, 0, false, func() inner { return syn }, 1460},
		{"not wanted", 1450, 1450, true, func() inner { return syn }, 1460},
		{"small enough", 9000, 9000, false, func() inner { return syn }, 1460},
	} {
		space(t, 1500, func() error {
			r, err := newRig(rigConfig{port: func(p *PortConfig) { p.MSSClamp = !c.noflag }})
			if err != nil {
				return err
			}
			defer r.close()
			r.a.p.SetMTU(c.a)
			r.b.p.SetMTU(c.b)
			o := r.a.out(c.inner())
			before := bytes.Clone(o.F.Bytes())
			if err := r.a.send([]frame.Out{o}); err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if !bytes.Equal(o.F.Bytes(), before) {
				return fmt.Errorf("%s: the frame itself changed", c.name)
			}
			got, err := r.b.receiveN(1)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			want := c.inner()
			want.options = []byte{2, 4, byte(c.want >> 8), byte(c.want)}
			if mss(got[0].b) != c.want || !bytes.Equal(got[0].b, want.finished()) {
				return fmt.Errorf("%s: MSS %d, want %d:\n%x\n%x", c.name, mss(got[0].b), c.want, got[0].b, want.finished())
			}
			return nil
		})
	}
}
