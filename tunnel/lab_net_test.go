package tunnel_test

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// hosts is the network of these tests: two hosts on an underlay, a container on
// each, and our switch in host a. What is in host b is the test's choice.
//
//	c1 eth0 ── veth-c1 [host a: vswitchd, br0] eth0 ── [underlay] ── eth0 [host b] veth-c2 ── eth0 c2
//	10.0.0.1                             192.0.2.1                 192.0.2.2             10.0.0.2
//	fd00::1                          2001:db8:1::1                 2001:db8:1::2         fd00::2
//
// With a router between, host b is 198.51.100.2 and 2001:db8:2::2.
type hosts struct {
	*testing.T
	lab    *lab.Lab
	net    *lab.Underlay
	a, b   *lab.Host
	c1, c2 *lab.Container
	d      *lab.Daemon // in host a

	near, far   string // IPv4 addresses of host a and host b
	near6, far6 string
}

type hostsConfig struct {
	underlay lab.UnderlayOptions
	mtu1     int               // of container c1; 0 is 1500
	mtu2     int               // of container c2
	cable    bool              // the underlay has no offloads: each frame on it is as on a cable
	names    map[string]string // that the daemon knows: its /etc/hosts
}

func newHosts(t *testing.T, c hostsConfig) *hosts {
	t.Helper()
	t.Parallel()
	l := lab.New(t)
	n := &hosts{T: t, lab: l, net: l.Underlay("net", c.underlay), a: l.Host("a"), b: l.Host("b")}
	n.near, n.near6 = "192.0.2.1", "2001:db8:1::1"
	n.far, n.far6 = "192.0.2.2", "2001:db8:1::2"
	if c.underlay.Routed {
		n.far, n.far6 = "198.51.100.2", "2001:db8:2::2"
	}
	n.net.Join(n.a, n.near+"/24", n.near6+"/64")
	n.net.Join(n.b, n.far+"/24", n.far6+"/64")
	if c.cable {
		n.net.Offload(n.a, false)
		n.net.Offload(n.b, false)
	}
	orDefault := func(mtu int) lab.ContainerOption {
		if mtu == 0 {
			mtu = 1500
		}
		return lab.MTU(mtu)
	}
	n.c1 = n.a.Container("c1", lab.Addr("10.0.0.1/24"), lab.Addr("fd00::1/64"), orDefault(c.mtu1))
	n.c2 = n.b.Container("c2", lab.Addr("10.0.0.2/24"), lab.Addr("fd00::2/64"), orDefault(c.mtu2))
	n.d = n.daemon(n.a, n.c1, lab.DaemonOptions{Hosts: c.names})
	return n
}

// daemon runs our switch in a host, with a container behind its one bridge.
func (n *hosts) daemon(h *lab.Host, c *lab.Container, o lab.DaemonOptions) *lab.Daemon {
	n.Helper()
	d := h.Daemon(o)
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", c.Veth)
	return d
}

// peer runs our switch in host b, too, and an IPv4 tunnel t1 between both with
// these options.
func (n *hosts) peer(options ...string) (b *lab.Daemon) {
	n.Helper()
	return n.peerOver(n.near, n.far, options...)
}

// peerOver is peer between these addresses of the hosts.
func (n *hosts) peerOver(near, far string, options ...string) (b *lab.Daemon) {
	n.Helper()
	b = n.daemon(n.b, n.c2, lab.DaemonOptions{})
	n.d.Ctl(append([]string{"add-port", "br0", "t1", "remote_ip=" + far}, options...)...)
	b.Ctl(append([]string{"add-port", "br0", "t1", "remote_ip=" + near}, options...)...)
	return b
}

// exchange is what containers that a tunnel joins can do: ping, and TCP both ways,
// by each family.
func (n *hosts) exchange(t *testing.T) {
	t.Helper()
	if err := lab.Ping(n.c1, n.c2); err != nil {
		t.Fatal(err)
	}
	for _, way := range [][2]*lab.Container{{n.c1, n.c2}, {n.c2, n.c1}} {
		if err := lab.Transfer(way[0], way[1], 1<<20); err != nil {
			t.Fatal(err)
		}
	}
}

// tunnelStatus returns what a daemon says of its tunnel t1.
func tunnelStatus(d *lab.Daemon) (api.TunnelStatus, error) {
	var all []api.TunnelStatus
	if err := d.Get("/v1/tunnels", &all); err != nil {
		return api.TunnelStatus{}, err
	}
	i := slices.IndexFunc(all, func(s api.TunnelStatus) bool { return s.Port == "t1" })
	if i < 0 {
		return api.TunnelStatus{}, fmt.Errorf("no tunnel t1 among %+v", all)
	}
	return all[i], nil
}

// outer is a packet of the underlay, taken apart.
type outer struct {
	src, dst     netip.Addr
	tos, ttl     byte
	df           bool
	protocol     byte
	sport, dport uint16 // of UDP
	udpSum       uint16 // of UDP, as it was on the wire
	payload      []byte // after UDP's header, or after IP's
}

const protoGRE, protoUDP = 47, 17

// parseOuter takes a frame apart, and fails for wrong lengths and checksums. It is
// written for these tests alone, so that it is nobody's own oracle.
func parseOuter(frame []byte) (o outer, err error) {
	if len(frame) < 14+20 {
		return o, fmt.Errorf("%d bytes", len(frame))
	}
	var pseudo []byte
	p := frame[14:]
	switch binary.BigEndian.Uint16(frame[12:]) {
	case 0x0800:
		if p[0] != 0x45 || naiveSum(p[:20]) != 0xffff {
			return o, fmt.Errorf("IPv4 header %x: options, or a wrong checksum", p[:20])
		}
		if total := int(binary.BigEndian.Uint16(p[2:])); total > len(p) {
			return o, fmt.Errorf("IPv4 length %d in %d bytes", total, len(p))
		} else {
			p = p[:total]
		}
		if fragment := binary.BigEndian.Uint16(p[6:]); fragment&^0x4000 != 0 {
			return o, fmt.Errorf("a fragment (%#x)", fragment)
		} else {
			o.df = fragment == 0x4000
		}
		o.tos, o.ttl, o.protocol = p[1], p[8], p[9]
		o.src, _ = netip.AddrFromSlice(p[12:16])
		o.dst, _ = netip.AddrFromSlice(p[16:20])
		pseudo = append(pseudo, p[12:20]...)
		p = p[20:]
	case 0x86dd:
		if len(p) < 40 || len(p) < 40+int(binary.BigEndian.Uint16(p[4:])) {
			return o, fmt.Errorf("IPv6 header %x", p)
		}
		o.tos, o.protocol, o.ttl, o.df = p[0]<<4|p[1]>>4, p[6], p[7], true
		o.src, _ = netip.AddrFromSlice(p[8:24])
		o.dst, _ = netip.AddrFromSlice(p[24:40])
		pseudo = append(pseudo, p[8:40]...)
		p = p[40 : 40+int(binary.BigEndian.Uint16(p[4:]))]
	default:
		return o, fmt.Errorf("EtherType %x", frame[12:14])
	}
	o.payload = p
	if o.protocol != protoUDP {
		return o, nil
	}
	if len(p) < 8 || int(binary.BigEndian.Uint16(p[4:])) != len(p) {
		return o, fmt.Errorf("UDP header %x of %d bytes", p[:min(8, len(p))], len(p))
	}
	o.sport, o.dport, o.udpSum = binary.BigEndian.Uint16(p), binary.BigEndian.Uint16(p[2:]), binary.BigEndian.Uint16(p[6:])
	pseudo = append(pseudo, 0, protoUDP)
	pseudo = binary.BigEndian.AppendUint16(pseudo, uint16(len(p)))
	if o.udpSum != 0 && naiveSum(append(pseudo, p...)) != 0xffff {
		return o, fmt.Errorf("UDP checksum %#x is wrong", o.udpSum)
	}
	o.payload = p[8:]
	return o, nil
}

// naiveSum is the sum of RFC 1071, not complemented: 0xffff over what holds its own
// checksum.
func naiveSum(b []byte) uint16 {
	sum := 0
	for i, c := range b {
		if i%2 == 0 {
			sum += int(c) << 8
		} else {
			sum += int(c)
		}
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return uint16(sum)
}

// next returns the next tunnel packet of a protocol that comes by a wire.
func next(wire *lab.Conn, protocol byte) (outer, error) {
	for deadline := time.Now().Add(5 * time.Second); ; {
		frame, err := wire.Recv(time.Until(deadline))
		if err != nil {
			return outer{}, err
		}
		if kind := binary.BigEndian.Uint16(frame[12:]); kind != 0x0800 && kind != 0x86dd {
			continue
		}
		o, err := parseOuter(frame)
		if err != nil {
			return o, err
		}
		if o.protocol == protocol {
			return o, nil
		}
	}
}
