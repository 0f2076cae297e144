package ctl

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"

	"vswitch/capture"
	"vswitch/capture/filter"
	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/frame"
)

// outerCapture captures tunnel packets on the interfaces by which the other ends are
// reached. The kernel takes the copies, before its routing and after: what a tunnel's
// socket refuses, or a firewall drops on the way in, is seen, too. A packet that no
// port takes for its key is shown with those of its host, and says so.
//
// Thread-safety: for one goroutine.
type outerCapture struct {
	d         *Daemon
	of        scope
	prog      *filter.Program
	in, out   bool
	split     bool
	wire      *wire
	frame     api.CapturedFrame
	tunnels   []outerTunnel
	sockets   map[int]*outerSocket // by interface
	refreshed time.Time
	failed    string // what went wrong then, if anything did
}

// outerTunnel is what is known of a tunnel port's packets.
type outerTunnel struct {
	bridge, port  string
	wanted        bool // it is one that is captured
	kind          config.Object
	remote, local netip.Addr
	dport         uint16 // UDP
	inKey, outKey uint32
	device        int // by which remote is reached; 0: by none now
}

// refreshEvery is how often a capture looks where the tunnels go: a route may move.
const refreshEvery = time.Second

// captureOuter begins to capture the packets of tunnel ports.
func (d *Daemon) captureOuter(of scope, prog *filter.Program, q api.CaptureQuery) (api.Capture, error) {
	if q.Drops {
		return nil, &api.Error{Status: http.StatusBadRequest, Field: "drops", Value: "1",
			Message: "drops are known of the frames within a tunnel, not of the packets on the underlay: leave out either drops or tunnel=outer"}
	}
	c := &outerCapture{
		d: d, of: of, prog: prog, in: q.Direction != "out", out: q.Direction != "in", split: q.Split,
		wire: newWire(true, q.Snap), sockets: map[int]*outerSocket{},
	}
	c.tunnels = d.reconciler.outerTunnels(of)
	if !slices.ContainsFunc(c.tunnels, func(t outerTunnel) bool { return t.wanted }) {
		return nil, &api.Error{Status: http.StatusBadRequest, Field: "tunnel", Value: "outer",
			Message: of.String() + " has no tunnel: tunnel=outer is for ports of type vxlan, gre and geneve, and for bridges that have some"}
	}
	if err := c.refresh(time.Now()); err != nil {
		c.closeSockets()
		return nil, err
	}
	return c, nil
}

// outerTunnels lists all tunnel ports whose other end is known, and those that are not
// known yet if they are wanted.
func (r *reconciler) outerTunnels(of scope) (all []outerTunnel) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for name, p := range r.ports {
		if p.tunnel == nil || p.state == api.PortSelf {
			continue
		}
		o, _ := p.port.Tunnel()
		t := outerTunnel{
			bridge: p.bridge, port: name, kind: o.Type, remote: p.tunnel.remote, local: o.Local,
			dport: o.Port, inKey: o.InKey, outKey: o.OutKey,
			wanted: (of.bridge == "" || of.bridge == p.bridge) && (of.port == "" || of.port == name),
		}
		all = append(all, t)
	}
	slices.SortFunc(all, func(a, b outerTunnel) int { return strings.Compare(a.port, b.port) })
	return all
}

// refresh finds out by which interfaces the tunnels go, and opens and closes sockets
// accordingly.
func (c *outerCapture) refresh(now time.Time) error {
	c.refreshed = now
	devices := map[int][]outerTunnel{}
	for i := range c.tunnels {
		t := &c.tunnels[i]
		if t.device = 0; t.remote.IsValid() && t.wanted {
			t.device = routeTo(t.remote, t.local)
		}
		if t.device != 0 {
			devices[t.device] = append(devices[t.device], *t)
		}
	}
	for index, s := range c.sockets {
		if devices[index] == nil {
			s.close()
			delete(c.sockets, index)
		}
	}
	var first error
	for index, tunnels := range devices {
		s := c.sockets[index]
		if s == nil {
			var err error
			if s, err = openOuter(index); err != nil {
				if first == nil {
					first = err
				}
				continue
			}
			c.sockets[index] = s
		}
		if err := s.want(tunnels); err != nil && first == nil {
			first = err
		}
	}
	return first
}

// routeTo returns the interface by which the kernel reaches an address; 0: by none.
func routeTo(remote, local netip.Addr) int {
	var o netlink.RouteGetOptions
	if local.IsValid() {
		o.SrcAddr = local.AsSlice()
	}
	routes, err := netlink.RouteGetWithOptions(remote.AsSlice(), &o)
	if err != nil || len(routes) == 0 {
		return 0
	}
	return routes[0].LinkIndex
}

func (c *outerCapture) Of() string { return "the underlay of " + c.of.String() }

// End has nothing to do: the kernel has handed over what there is.
func (c *outerCapture) End() {}

func (c *outerCapture) Close() {
	c.closeSockets()
	c.wire.close()
	c.d.captures.leave()
}

func (c *outerCapture) closeSockets() {
	for _, s := range c.sockets {
		s.close()
	}
}

// Read is described at api.Capture. What comes after it was called waits for the next
// call, so that several interfaces' packets are in order.
func (c *outerCapture) Read(each func(*api.CapturedFrame)) error {
	now := time.Now()
	if now.Sub(c.refreshed) >= refreshEvery {
		c.tunnels = c.d.reconciler.outerTunnels(c.of)
		failed := ""
		if err := c.refresh(now); err != nil {
			failed = err.Error()
		}
		if failed != "" && failed != c.failed {
			c.d.log.Warn("not all tunnel packets are captured", "err", failed)
		}
		c.failed = failed
	}
	for {
		var oldest *outerSocket
		for _, s := range c.sockets {
			s.fill()
			if s.full && !s.at.After(now) && (oldest == nil || s.at.Before(oldest.at)) {
				oldest = s
			}
		}
		if oldest == nil {
			return nil
		}
		oldest.full = false
		c.show(oldest, each)
	}
}

// show hands over the packet that a socket holds, if it is one of those wanted.
func (c *outerCapture) show(s *outerSocket, each func(*api.CapturedFrame)) {
	outbound := s.direction == capture.Outbound
	if outbound && !c.out || !outbound && !c.in || !c.prog.Match(s.data, s.tag, s.wireLen) {
		return
	}
	id, ok := tunnelOf(s.data)
	if !ok {
		return
	}
	remote := id.src
	if outbound {
		remote = id.dst
	}
	t, note := c.port(id, remote, outbound)
	if t == nil {
		return
	}
	f := &c.frame
	*f = api.CapturedFrame{Bridge: t.bridge, Port: t.port, Interface: s.name, Direction: directionWord(s.direction), Note: note}
	comment := fmt.Sprintf("%s %s %s on %s", t.bridge, t.port, f.Direction, s.name)
	if note != "" {
		comment += ": " + note
	}
	// A UDP super-frame stands for packets that the tunnel made one by one: no
	// dissector can make sense of the whole.
	c.wire.split = c.split || s.offload.GSOType&^frame.GSOECN == frame.GSOUDPL4
	missed := s.missed()
	c.wire.frames(&heldFrame{s.data, s.tag, s.offload, s.wireLen}, func(data []byte, wireLen int, note string) bool {
		f.Packet = capture.Packet{
			Time: s.at, Interface: s.description, Direction: s.direction, Data: data, OrigLen: wireLen, Comment: comment, Dropped: missed,
		}
		if note != "" {
			f.Note = note
			f.Packet.Comment += ", " + note
		}
		missed = 0
		each(f)
		return true
	})
}

// port returns the tunnel port whose packet it is, and what else there is to say; nil
// when it is none that is captured.
func (c *outerCapture) port(id packetID, remote netip.Addr, outbound bool) (t *outerTunnel, note string) {
	var near *outerTunnel // same kind and host, another key
	for i := range c.tunnels {
		t := &c.tunnels[i]
		if t.remote != remote || (t.kind == config.GREPort) != (id.proto == protoGRE) {
			continue
		}
		if id.fragment {
			if near == nil && t.wanted {
				near = t
			}
			continue
		}
		if t.dport != id.dport {
			continue
		}
		key := t.inKey
		if outbound {
			key = t.outKey
		}
		if key == id.key {
			if !t.wanted {
				return nil, ""
			}
			return t, ""
		}
		if near == nil && t.wanted {
			near = t
		}
	}
	switch {
	case near == nil:
		return nil, ""
	case id.fragment:
		return near, "a fragment"
	case outbound:
		return nil, "" // another program's
	}
	return near, fmt.Sprintf("key %d is no port's", id.key)
}

// packetID is what tells a tunnel's packets apart.
type packetID struct {
	src, dst netip.Addr
	proto    uint8
	fragment bool // not the first: the rest is not known
	dport    uint16
	key      uint32 // VNI, or GRE key; 0 without
}

const protoGRE = 47

// tunnelOf reads the headers of a tunnel packet; ok is false when it is none.
func tunnelOf(b []byte) (id packetID, ok bool) {
	if len(b) < frame.EthLen {
		return id, false
	}
	kind, b := binary.BigEndian.Uint16(b[frame.AddrLen:]), b[frame.EthLen:]
	switch {
	case kind == frame.EtherIPv4 && len(b) >= frame.IPv4MinLen:
		size := int(b[0]&0x0f) * 4
		id.src, id.dst = netip.AddrFrom4([4]byte(b[12:])), netip.AddrFrom4([4]byte(b[16:]))
		id.proto, id.fragment = b[9], binary.BigEndian.Uint16(b[6:])&0x1fff != 0
		if size < frame.IPv4MinLen || len(b) < size {
			return id, false
		}
		b = b[size:]
	case kind == frame.EtherIPv6 && len(b) >= frame.IPv6Len:
		id.src, id.dst, id.proto = netip.AddrFrom16([16]byte(b[8:])), netip.AddrFrom16([16]byte(b[24:])), b[6]
		b = b[frame.IPv6Len:]
		const fragmentHeader, fragmentLen = 44, 8
		if id.proto == fragmentHeader {
			if len(b) < fragmentLen {
				return id, false
			}
			id.proto, id.fragment = b[0], binary.BigEndian.Uint16(b[2:])&^7 != 0
			b = b[fragmentLen:]
		}
	default:
		return id, false
	}
	if id.fragment {
		return id, id.proto == frame.ProtoUDP || id.proto == protoGRE
	}
	switch {
	case id.proto == frame.ProtoUDP && len(b) >= frame.UDPLen+8:
		// VXLAN (RFC 7348 section 5) and Geneve (RFC 8926 section 3.4) have the VNI
		// in the same place.
		id.dport, id.key = binary.BigEndian.Uint16(b[2:]), binary.BigEndian.Uint32(b[frame.UDPLen+4:])>>8
		return id, true
	case id.proto == protoGRE && len(b) >= 4:
		const hasSum, hasKey = 0x80, 0x20 // RFC 2890 section 2
		at := 4
		if b[0]&hasSum != 0 {
			at += 4
		}
		if b[0]&hasKey != 0 && len(b) >= at+4 {
			id.key = binary.BigEndian.Uint32(b[at:])
		}
		return id, true
	}
	return id, false
}
