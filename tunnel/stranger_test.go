package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// stranger is a bare socket that speaks to an endpoint, and hears what is sent to it
// with its TOS and TTL.
type stranger struct{ fd int }

func newStranger(k Kind, local string, port uint16) (*stranger, error) {
	fd, err := openSocket(k, netip.MustParseAddr(local), port)
	if err != nil {
		return nil, err
	}
	unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVTOS, 1)
	unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_RECVTTL, 1)
	return &stranger{fd}, nil
}

func (s *stranger) send(to string, b []byte) error {
	a := netip.MustParseAddrPort(to)
	return unix.Sendto(s.fd, b, 0, sockaddr(a.Addr(), a.Port()))
}

// sendTOS sends with a DS field.
func (s *stranger) sendTOS(to string, tos int, b []byte) error {
	if err := unix.SetsockoptInt(s.fd, unix.SOL_IP, unix.IP_TOS, tos); err != nil {
		return err
	}
	return s.send(to, b)
}

// receive returns one datagram, the source it came from, its TOS and its TTL.
func (s *stranger) receive() (b []byte, from netip.AddrPort, tos, ttl int, err error) {
	unix.Poll([]unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}, 1000)
	b = make([]byte, 1<<16)
	oob := make([]byte, 128)
	n, on, _, sa, err := unix.Recvmsg(s.fd, b, oob, unix.MSG_DONTWAIT)
	if err != nil {
		return nil, from, 0, 0, err
	}
	if v4, ok := sa.(*unix.SockaddrInet4); ok {
		from = netip.AddrPortFrom(netip.AddrFrom4(v4.Addr), uint16(v4.Port))
	}
	messages, _ := unix.ParseSocketControlMessage(oob[:on])
	for _, m := range messages {
		switch m.Header.Type {
		case unix.IP_TOS:
			tos = int(m.Data[0])
		case unix.IP_TTL:
			ttl = int(binary.NativeEndian.Uint32(m.Data))
		}
	}
	return b[:n], from, tos, ttl, nil
}

// vxlan puts a VXLAN header before b.
func vxlan(vni uint32, b []byte) []byte {
	h := make([]byte, vxlanLen, vxlanLen+len(b))
	putVXLAN(h, vni)
	return append(h, b...)
}

func TestUnknownSourcesAreNamed(t *testing.T) {
	space(t, 1500, func() error {
		r, err := newRig(rigConfig{})
		if err != nil {
			return err
		}
		defer r.close()
		s, err := newStranger(VXLAN, "127.0.0.9", 0)
		if err != nil {
			return err
		}
		good := inner{payload: 30}.finished()
		before := time.Now()
		for range 3 {
			s.send("127.0.0.2:4789", vxlan(42, good))
		}
		s.send("127.0.0.2:4789", vxlan(43, good))
		s.send("127.0.0.2:4789", vxlan(43, good)[:7])
		s.send("127.0.0.2:4789", nil)
		o := r.a.out(inner{payload: 30})
		r.a.send([]frame.Out{o})
		if _, err := r.b.receiveN(1); err != nil {
			return err
		}
		// The known remote, with a frame that is none, and with an unknown key.
		known, err := newStranger(VXLAN, "127.0.0.1", 0)
		if err != nil {
			return err
		}
		known.send("127.0.0.2:4789", vxlan(42, good[:13]))
		known.send("127.0.0.2:4789", vxlan(7, good))
		r.b.p.Unbind()
		r.a.send([]frame.Out{o})
		if n := r.b.drain(); n != 0 {
			return fmt.Errorf("%d frames came by a port that is not bound", n)
		}
		want := []string{
			"tunnel-unknown-source 127.0.0.9 key 42 3", "tunnel-malformed 127.0.0.9 2", "tunnel-malformed 127.0.0.1 1",
			"tunnel-unattached 127.0.0.1 key 42 1", "tunnel-unknown-source 127.0.0.1 key 7 1", "tunnel-unknown-source 127.0.0.9 key 43 1",
		}
		var got []string
		for _, d := range r.b.e.Drops() {
			got = append(got, fmt.Sprintf("%s %s %d", d.Reason, d.Source, d.Count))
			if d.Last.Before(before) || time.Since(d.Last) > soon || d.Help == "" {
				return fmt.Errorf("drop: %+v", d)
			}
		}
		if strings.Join(got, "\n") != strings.Join(want, "\n") {
			return fmt.Errorf("drops:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		return nil
	})
}

// TestSourcesAreBounded: a flood of forged sources is counted to the last frame.
func TestSourcesAreBounded(t *testing.T) {
	e := &Endpoint{queues: []*queue{{}, {}}}
	const n = 100_000
	now := int64(1)
	allocs := testing.AllocsPerRun(n-1, func() {
		now++
		e.queues[now%2].drops.add(dropUnknown, peer{0, mappedIPv4 | uint64(now)}, 1, []byte{1, 2, 3}, now)
	})
	if allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
	var sum uint64
	drops := e.Drops()
	for _, d := range drops {
		sum += d.Count
	}
	if sum != n || len(drops) > 2*sourceSets*sourceWays+1 {
		t.Errorf("%d counted in %d drops", sum, len(drops))
	}
	if last := drops[len(drops)-1]; last.Len != 3 || string(last.Head) != "\x01\x02\x03" {
		t.Errorf("the last frame is not known: %+v", last)
	}
	if drops[0].Source != "" || drops[0].Count < n/2 {
		t.Errorf("the rest: %+v", drops[0])
	}
}

func TestWhatIsInTheWay(t *testing.T) {
	space(t, 1500, func() error {
		open := func(k Kind, local string) error {
			e, err := Open(EndpointConfig{Kind: k, Local: netip.MustParseAddr(local), Queues: 2})
			if err == nil {
				e.Close()
			}
			return err
		}
		says := func(err error, is error, words ...string) error {
			for _, w := range words {
				if err == nil || !strings.Contains(err.Error(), w) {
					return fmt.Errorf("the error is %q, want it to say %q", err, w)
				}
			}
			if !errors.Is(err, is) {
				return fmt.Errorf("the error is %v, want %v", err, is)
			}
			return nil
		}
		e, err := Open(EndpointConfig{Kind: VXLAN, Local: netip.MustParseAddr("127.0.0.1"), Queues: 2})
		if err != nil {
			return err
		}
		if err := says(open(VXLAN, "127.0.0.1"), unix.EADDRINUSE, "vxlan 127.0.0.1:4789", "another vswitchd"); err != nil {
			return err
		}
		if err := says((func() error {
			e, err := Open(EndpointConfig{Kind: Geneve, Local: netip.MustParseAddr("127.0.0.1"), Port: 4789})
			if err == nil {
				e.Close()
			}
			return err
		})(), unix.EADDRINUSE, "a tunnel of another kind", "udp 127.0.0.1:4789"); err != nil {
			return err
		}
		// Another process has all addresses.
		foreign, err := claimName("udp 0.0.0.0:6081")
		if err != nil {
			return err
		}
		if err := says(open(Geneve, "127.0.0.1"), unix.EADDRINUSE, "every tunnel of both needs a local_ip"); err != nil {
			return err
		}
		unix.Close(foreign)
		for _, name := range []string{"udp 127.0.0.9:6081", "gre 127.0.0.9"} {
			foreign, err := claimName(name)
			if err != nil {
				return err
			}
			k := map[bool]Kind{true: Geneve, false: GRE}[strings.HasPrefix(name, "udp")]
			if err := says(open(k, "0.0.0.0"), unix.EADDRINUSE, "another vswitchd", name); err != nil {
				return err
			}
			if err := errors.Join(open(VXLAN, "127.0.0.2"), open(k, "::")); err != nil {
				return err
			}
			unix.Close(foreign)
			if err := open(k, "0.0.0.0"); err != nil {
				return err
			}
		}
		for _, free := range []string{"127.0.0.2", "0.0.0.0", "::"} {
			if err := open(VXLAN, free); err != nil {
				return fmt.Errorf("beside another address: %w", err)
			}
		}
		if err := e.Close(); err != nil {
			return err
		}
		if err := open(VXLAN, "127.0.0.1"); err != nil {
			return fmt.Errorf("again: %w", err)
		}
		if err := says(open(Geneve, "10.9.9.9"), unix.EADDRNOTAVAIL, "not an address of this host"); err != nil {
			return err
		}
		if _, err := newStranger(VXLAN, "127.0.0.1", 6081); err != nil {
			return err
		}
		if err := says(open(Geneve, "127.0.0.1"), unix.EADDRINUSE, fmt.Sprintf("(pid %d)", os.Getpid()), "6081"); err != nil {
			return err
		}
		if err := kernelVXLAN(); err != nil {
			return fmt.Errorf("make a kernel vxlan device: %w", err)
		}
		return says(open(VXLAN, "0.0.0.0"), unix.EADDRINUSE, "interface of the kernel", "4789")
	})
}

func TestNewPortRefuses(t *testing.T) {
	space(t, 1500, func() error {
		r, err := newRig(rigConfig{})
		if err != nil {
			return err
		}
		defer r.close()
		for _, c := range []struct {
			PortConfig
			word string
		}{
			{PortConfig{Remote: netip.MustParseAddr("127.0.0.2"), InKey: 42}, ErrDuplicate.Error()},
			{PortConfig{Remote: netip.MustParseAddr("::ffff:127.0.0.2"), InKey: 42}, ErrDuplicate.Error()},
			{PortConfig{Remote: netip.MustParseAddr("fd00::2")}, "other IP version"},
			{PortConfig{Remote: netip.MustParseAddr("224.0.0.1")}, "one host's"},
			{PortConfig{Remote: netip.MustParseAddr("0.0.0.0")}, "one host's"},
			{PortConfig{}, "one host's"},
			{PortConfig{Remote: netip.MustParseAddr("127.0.0.3"), InKey: 1 << 24}, "24 bits"},
			{PortConfig{Remote: netip.MustParseAddr("127.0.0.3"), OutKey: 1 << 24}, "24 bits"},
		} {
			if _, err := r.a.e.NewPort(c.PortConfig); err == nil || !strings.Contains(err.Error(), c.word) {
				return fmt.Errorf("%+v: the error is %v, want it to say %q", c.PortConfig, err, c.word)
			}
		}
		// Another key, or another remote, is another port; a closed one is none.
		p, err := r.a.e.NewPort(PortConfig{Remote: netip.MustParseAddr("127.0.0.2"), InKey: 43})
		if err != nil {
			return err
		}
		p.Close()
		_, err = r.a.e.NewPort(PortConfig{Remote: netip.MustParseAddr("127.0.0.2"), InKey: 43})
		return err
	})
}

// TestManyPorts: ten thousand ports are made in a moment, and are no sockets.
func TestManyPorts(t *testing.T) {
	space(t, 1500, func() error {
		r, err := newRig(rigConfig{queues: 2})
		if err != nil {
			return err
		}
		defer r.close()
		before, err := descriptors()
		if err != nil {
			return err
		}
		begin := time.Now()
		var last *Port
		for i := range 10_000 {
			last, err = r.b.e.NewPort(PortConfig{Remote: netip.MustParseAddr("127.0.0.1"), InKey: uint32(1000 + i), OutKey: 5, DF: true, Workers: 2})
			if err != nil {
				return err
			}
		}
		if took := time.Since(begin); took > 5*time.Second {
			return fmt.Errorf("10,000 ports took %v", took)
		}
		if after, _ := descriptors(); after != before {
			return fmt.Errorf("%d descriptors became %d", before, after)
		}
		last.Bind(77)
		s, err := newStranger(VXLAN, "127.0.0.1", 0)
		if err != nil {
			return err
		}
		s.send("127.0.0.2:4789", vxlan(10_999, inner{}.finished()))
		got, err := r.b.receiveN(1)
		if err != nil {
			return err
		}
		if got[0].port != 77 {
			return fmt.Errorf("it came by port %d", got[0].port)
		}
		return nil
	})
}

// TestFaults: what a port's peer sends and cannot be forwarded comes with the port and
// the fault.
func TestFaults(t *testing.T) {
	good := inner{payload: 30, tos: 0x10}.finished()
	for _, c := range []struct {
		name  string
		kind  Kind
		head  string
		tos   int
		body  []byte
		fault frame.Fault
	}{
		{"Geneve, critical option", Geneve, "01406558 00002a00 01028300", 0, good, frame.FaultCritical},
		{"Geneve, options", Geneve, "02006558 00002a00 01020300 01020300", 0, good, frame.FaultNone},
		{"Geneve, IP in it", Geneve, "00000800 00002a00", 0, []byte{0x45, 0}, frame.FaultProtocol},
		{"GRE, IP in it", GRE, "20000800 0000002a", 0, good[14:], frame.FaultProtocol},
		{"GRE, checksum", GRE, "a0006558 12340000 0000002a", 0, good, frame.FaultChecksum},
		{"VXLAN, congestion, not ECT", VXLAN, "08000000 00002a00", 3, good, frame.FaultECN},
		{"VXLAN, congestion, ARP", VXLAN, "08000000 00002a00", 3, append(append([]byte{}, good[:12]...), 8, 6, 0, 1), frame.FaultNone},
		{"GRE, congestion, not ECT", GRE, "20006558 0000002a", 3, good, frame.FaultECN},
		{"GRE, congestion, ECT", GRE, "20006558 0000002a", 3, inner{tos: 2}.finished(), frame.FaultNone},
	} {
		space(t, 1500, func() error {
			r, err := newRig(rigConfig{kind: c.kind})
			if err != nil {
				return err
			}
			defer r.close()
			s, err := newStranger(c.kind, "127.0.0.1", 0)
			if err != nil {
				return err
			}
			to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), c.kind.DefaultPort())
			if err := s.sendTOS(to.String(), c.tos, append(unhex(t, c.head), c.body...)); err != nil {
				return err
			}
			got, err := r.b.receiveN(1)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			if got[0].fault != c.fault || got[0].port != 20 {
				return fmt.Errorf("%s: fault %d by port %d, want %d by 20", c.name, got[0].fault, got[0].port, c.fault)
			}
			if c.name == "Geneve, options" && r.b.p.Stats().Options != 2 {
				return fmt.Errorf("%s: %+v", c.name, r.b.p.Stats())
			}
			return nil
		})
	}
}

// TestAnyBehindSpecific: an endpoint with a local address is given what is sent there;
// what is a port's of the one without an address reaches that port.
func TestAnyBehindSpecific(t *testing.T) {
	for _, k := range []rigConfig{{}, {kind: GRE}, {kind: GRE, v6: true}, {kind: Geneve, v6: true}} {
		space(t, 1500, func() error {
			r, err := newRig(k)
			if err != nil {
				return err
			}
			defer r.close()
			e, err := Open(r.b.e.config.any())
			if err != nil {
				return err
			}
			remote := r.a.e.config.Local
			p, err := e.NewPort(PortConfig{Remote: remote, InKey: 43})
			if err != nil {
				return err
			}
			p.Bind(77)
			other, err := r.a.e.NewPort(PortConfig{Remote: r.b.e.config.Local, InKey: 43, OutKey: 43, HasOutKey: true, DF: true})
			if err != nil {
				return err
			}
			send := func(p *Port) error {
				if n, errno := p.Send(0, &r.a.v, []frame.Out{r.a.out(inner{payload: 50})}); n != 1 {
					return errno
				}
				return nil
			}
			for range 2 {
				if err := errors.Join(send(other), send(r.a.p)); err != nil {
					return err
				}
			}
			got, err := r.b.receiveN(4)
			if err != nil {
				return err
			}
			if got[0].port != 77 || got[1].port != 20 || got[2].port != 77 || len(r.b.e.Drops()) != 0 {
				return fmt.Errorf("%+v: %+v, drops %+v", k, got, r.b.e.Drops())
			}
			p.Close()
			if err := e.Close(); err != nil {
				return err
			}
			if err := errors.Join(send(other), send(r.a.p)); err != nil {
				return err
			}
			if _, err := r.b.receiveN(1); err != nil || len(r.b.e.Drops()) != 1 {
				return fmt.Errorf("%+v: %v, drops %+v", k, err, r.b.e.Drops())
			}
			return nil
		})
	}
}

// TestRawCopies: a GRE endpoint of any address leaves alone what is another one's.
func TestRawCopies(t *testing.T) {
	for _, v6 := range []bool{false, true} {
		space(t, 1500, func() error {
			r, err := newRig(rigConfig{kind: GRE, v6: v6})
			if err != nil {
				return err
			}
			defer r.close()
			local := netip.IPv4Unspecified()
			if v6 {
				local = netip.IPv6Unspecified()
			}
			e, err := Open(EndpointConfig{Kind: GRE, Local: local})
			if err != nil {
				return err
			}
			defer e.Close()
			outs := []frame.Out{r.a.out(inner{payload: 50})}
			if err := r.a.send(outs); err != nil {
				return err
			}
			if _, err := r.b.receiveN(1); err != nil {
				return err
			}
			if n, _ := e.Recv(0, r.b.batch, 64); n != 0 || len(e.Drops()) != 0 {
				return fmt.Errorf("%d frames, drops %+v", n, e.Drops())
			}
			r.b.e.Close()
			if err := r.a.send(outs); err != nil {
				return err
			}
			if n, _ := e.Recv(0, r.b.batch, 64); n != 0 || len(e.Drops()) != 1 {
				return fmt.Errorf("without the other: %d frames, drops %+v", n, e.Drops())
			}
			return nil
		})
	}
}
