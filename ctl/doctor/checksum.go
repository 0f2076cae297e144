package doctor

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/fdb"
	"vswitch/frame"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// Checksum truth: two pairs of interfaces of the doctor's own are joined by a bridge of
// its own, and at their far ends somebody speaks TCP as a container does: with
// unfinished checksums, and in super-frames.
//
//	far ◄── veth ──► port ── bridge ── port ◄── veth ──► far
//	d1               d0                d2               d3
//
// What arrives must be what was sent, with checksums that are finished, or rightly
// unfinished. The bridge is none of the configuration, and nothing is learned on it.
// The interfaces have no address and no IPv6, and their frames are for nobody of this
// host, so that its stack says nothing.

// checksumMTU is that of the doctor's interfaces.
const checksumMTU = 1500

// checkChecksums exchanges TCP segments between two ports, with offloads and without.
func (x *visit) checkChecksums(ctx context.Context) {
	for _, c := range []struct {
		finish  bool
		subject string
	}{{false, "offload=on"}, {true, "offload=off"}} {
		frames, err := x.exchange(ctx, c.finish)
		var wrong *wrongError
		switch {
		case err == nil && c.finish:
			x.ok("checksums", "tcp-exchange", c.subject, "TCP over IPv4 and IPv6 between two ports: all bytes arrived in %d segments with finished checksums", frames)
		case err == nil:
			x.ok("checksums", "tcp-exchange", c.subject, "TCP over IPv4 and IPv6 between two ports: super-frames stayed whole, checksums are right")
		case errors.As(err, &wrong):
			x.fail("checksums", "tcp-exchange", c.subject, "tell the makers of vswitch, with the kernel's version; until then vswitchctl set-port PORT offload=off, or ethtool -K DEV tx off tso off gso off in the containers",
				"TCP between two ports goes wrong: %s", wrong.what)
		default:
			x.unknown("checksums", "tcp-exchange", c.subject, permissionFix(err), "%v", err)
		}
	}
}

// wrongError is something that arrived wrong, or not.
type wrongError struct{ what string }

func (e *wrongError) Error() string { return e.what }

func wrong(format string, args ...any) error { return &wrongError{fmt.Sprintf(format, args...)} }

// doctored begins the names of the doctor's interfaces. The beginning of the instance
// follows: a process number does not tell daemons in several process namespaces apart.
// As all that a switch makes, they are marked with the instance, too.
const doctored = "vswd."

func (o *Options) interfaceName(n int) string {
	return fmt.Sprintf("%s%.7s.%d", doctored, o.Instance, n)
}

// removeInterfaces takes away those of a doctor of this instance that was cut off, or
// of one that has no process any more. No doctor of this instance may be at work.
func (o *Options) removeInterfaces() {
	links, err := ports.Links()
	if err != nil {
		return
	}
	mine := strings.TrimSuffix(o.interfaceName(0), "0")
	for _, l := range links {
		if !strings.HasPrefix(l.Name, doctored) || l.Kind != "veth" {
			continue
		}
		rest, marked := strings.CutPrefix(l.Alias, ownedAlias)
		instance, _, _ := strings.Cut(rest, " ")
		half := !marked && strings.HasPrefix(l.Name, mine) // one that was not marked yet
		if half || marked && (instance == o.Instance || !livesElsewhere(instance)) {
			_ = ports.RemoveLink(l.Name) // its other end goes with it, and then it is gone
		}
	}
}

var serial atomic.Uint32

// exchange makes the interfaces and the bridge, sends both ways, and takes all away. It
// returns how many frames arrived.
func (x *visit) exchange(ctx context.Context, finish bool) (arrived int, err error) {
	base := int(serial.Add(1)%2) * 4
	var far [2]*packet.Conn
	bridge := fmt.Sprintf("doctor:%d", base)
	untagged := new(vswitch.VLANSet)
	untagged.Add(0)
	if err := x.o.Switch.AddBridge(bridge, vswitch.BridgeConfig{FDB: fdb.DefaultLimits(), FloodVLANs: untagged}); err != nil {
		return 0, err
	}
	defer func() {
		if e := x.o.Switch.DelBridge(bridge); err == nil && e != nil {
			err = e
		}
	}()
	for i := range far {
		port, end := x.o.interfaceName(base+2*i), x.o.interfaceName(base+2*i+1)
		index, endIndex, err := x.makePair(ctx, port, end)
		if err != nil {
			return 0, err
		}
		defer ports.RemoveLink(port)
		if far[i], err = openVnet(endIndex); err != nil {
			return 0, err
		}
		defer far[i].Close()
		name := bridge + ":" + port
		if err := x.o.Switch.AddPort(bridge, name, vswitch.PortConfig{Finish: finish}); err != nil {
			return 0, err
		}
		device, err := ports.OpenPacket(port, index, ports.PacketOptions{Queues: 1})
		if err != nil {
			return 0, err
		}
		if err := x.o.Switch.Attach(name, device, true, checksumMTU); err != nil {
			return 0, err
		}
	}
	for _, v6 := range []bool{false, true} {
		for i := range far {
			for _, n := range []int{0, 1, 1000, 20001} {
				got, err := transfer(ctx, far[i], far[1-i], v6, n, finish)
				arrived += got
				if err != nil {
					return arrived, err
				}
			}
		}
	}
	return arrived, nil
}

// makePair makes a pair of interfaces that say nothing, and waits until they carry.
func (x *visit) makePair(ctx context.Context, port, far string) (portIndex, farIndex int, err error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = port, checksumMTU
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerMTU = far, checksumMTU
	if err := netlink.LinkAdd(veth); err != nil {
		return 0, 0, fmt.Errorf("make a pair of interfaces: %w", err)
	}
	defer func() {
		if err != nil {
			_ = ports.RemoveLink(port)
		}
	}()
	for _, name := range []string{port, far} {
		l, err := netlink.LinkByName(name)
		if err != nil {
			return 0, 0, fmt.Errorf("look at interface %s: %w", name, err)
		}
		if err := netlink.LinkSetAlias(l, ports.Owned(x.o.Instance, "doctor")); err != nil {
			return 0, 0, fmt.Errorf("mark interface %s: %w", name, err)
		}
		// A kernel without IPv6 has nothing to be turned off.
		if err := os.WriteFile("/proc/sys/net/ipv6/conf/"+name+"/disable_ipv6", []byte("1"), 0o644); err != nil && !errors.Is(err, os.ErrNotExist) {
			return 0, 0, fmt.Errorf("turn IPv6 off on %s: %w", name, err)
		}
		if err := netlink.LinkSetUp(l); err != nil {
			return 0, 0, fmt.Errorf("bring %s up: %w", name, err)
		}
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		p, err1 := netlink.LinkByName(port)
		f, err2 := netlink.LinkByName(far)
		if err := errors.Join(err1, err2); err != nil {
			return 0, 0, fmt.Errorf("wait for interfaces: %w", err)
		}
		if p.Attrs().OperState == netlink.OperUp && f.Attrs().OperState == netlink.OperUp {
			return p.Attrs().Index, f.Attrs().Index, nil
		}
		select {
		case <-ctx.Done():
			return 0, 0, fmt.Errorf("wait for interfaces: %s is %s", port, p.Attrs().OperState)
		case <-tick.C:
		}
	}
}

// openVnet opens a packet socket whose frames have a virtio-net header.
func openVnet(index int) (*packet.Conn, error) {
	c, err := packet.Listen(&net.Interface{Index: index}, packet.Raw, unix.ETH_P_ALL, nil)
	if err != nil {
		return nil, fmt.Errorf("open a packet socket: %w", err)
	}
	raw, err := c.SyscallConn()
	if err == nil {
		e := raw.Control(func(fd uintptr) {
			for _, o := range []int{unix.PACKET_VNET_HDR, unix.PACKET_IGNORE_OUTGOING} {
				err = errors.Join(err, unix.SetsockoptInt(int(fd), unix.SOL_PACKET, o, 1))
			}
		})
		err = errors.Join(err, e)
	}
	if err != nil {
		c.Close()
		return nil, fmt.Errorf("set up a packet socket: %w", err)
	}
	return c, nil
}

// transferWithin is how long a transfer may take.
const transferWithin = 5 * time.Second

// transfer sends n bytes of TCP payload as one frame, and judges what arrives. It
// returns how many frames that were.
func transfer(ctx context.Context, from, to *packet.Conn, v6 bool, n int, finish bool) (frames int, err error) {
	sent := newSegment(v6, n)
	if _, err := from.WriteTo(sent.wire(), &packet.Addr{HardwareAddr: segmentDst}); err != nil {
		return 0, fmt.Errorf("send %d bytes of TCP: %w", n, err)
	}
	what := fmt.Sprintf("%d bytes in %s", n, sent.kind())
	have := make([]bool, max(n, 1))
	missing := len(have)
	buf := make([]byte, frame.VnetLen+frame.MaxLen)
	if err := to.SetReadDeadline(time.Now().Add(transferWithin)); err != nil {
		return 0, fmt.Errorf("wait for frames: %w", err)
	}
	defer context.AfterFunc(ctx, func() { to.SetReadDeadline(time.Now()) })()
	for missing > 0 {
		m, _, err := to.ReadFrom(buf)
		switch {
		case ctx.Err() != nil:
			return frames, ctx.Err()
		case errors.Is(err, os.ErrDeadlineExceeded):
			return frames, wrong("%s: %d bytes never arrived", what, missing)
		case err != nil:
			return frames, fmt.Errorf("wait for frames: %w", err)
		case m < frame.VnetLen:
			continue
		}
		var o frame.Offload
		o.GetVnet(buf)
		at, payload, mine, err := sent.judge(buf[frame.VnetLen:m], &o, finish)
		if !mine {
			continue // somebody else's, such as a daemon's that speaks on every interface
		}
		if err != nil {
			return frames, wrong("%s: %v", what, err)
		}
		frames++
		for i := at; i < at+max(len(payload), 1); i++ {
			if i < len(have) && !have[i] {
				have[i] = true
				missing--
			}
		}
	}
	return frames, nil
}

// segment is a frame of TCP, as a container's kernel sends it.
type segment struct {
	v6      bool
	head    int // bytes of headers
	data    []byte
	payload []byte
	offload frame.Offload
}

// The addresses of the segments: nobody's.
var (
	segmentDst = []byte{2, 0, 0, 0xd0, 0xc7, 1}
	segmentSrc = []byte{2, 0, 0, 0xd0, 0xc7, 2}
	segmentV4  = []byte{192, 0, 2, 1, 192, 0, 2, 2} // TEST-NET-1, RFC 5737
	segmentV6  = append(append([]byte{0x20, 1, 0xd, 0xb8, 15: 1}, 0x20, 1, 0xd, 0xb8), append(make([]byte, 11), 2)...)
)

// Offsets and values of the segments' headers.
const (
	segmentMSS  = 1400
	segmentSeq  = 0x01020304
	tcpSeqAt    = 4
	tcpSumAt    = 16
	ip4LenAt    = 2
	ip4SumAt    = 10
	ip4AddrAt   = 12
	ip6LenAt    = 4
	ip6AddrAt   = 8
	tcpFlagsACK = 0x10
)

func newSegment(v6 bool, n int) *segment {
	s := &segment{v6: v6, payload: make([]byte, n)}
	for i := range s.payload {
		s.payload[i] = byte(i ^ i>>8)
	}
	ip, addrs := s.ipHeader(frame.TCPMinLen + n)
	tcp := make([]byte, frame.TCPMinLen)
	binary.BigEndian.PutUint16(tcp, 40000)
	binary.BigEndian.PutUint16(tcp[2:], 9) // discard
	binary.BigEndian.PutUint32(tcp[tcpSeqAt:], segmentSeq)
	tcp[12], tcp[13] = frame.TCPMinLen/4<<4, tcpFlagsACK
	binary.BigEndian.PutUint16(tcp[14:], 65535)
	// Unfinished: the pseudo-header's sum alone, as CHECKSUM_PARTIAL has it.
	binary.BigEndian.PutUint16(tcp[tcpSumAt:], frame.Sum(nil, frame.Pseudo(addrs, frame.ProtoTCP, frame.TCPMinLen+n)))
	etherType := []byte{frame.EtherIPv4 >> 8, 0}
	if v6 {
		etherType = []byte{frame.EtherIPv6 >> 8, frame.EtherIPv6 & 0xff}
	}
	s.data = bytes.Join([][]byte{segmentDst, segmentSrc, etherType, ip, tcp, s.payload}, nil)
	s.head = len(s.data) - n
	s.offload = frame.Offload{Flags: frame.NeedsCsum, CsumStart: uint16(frame.EthLen + len(ip)), CsumOffset: tcpSumAt, HdrLen: uint16(s.head)}
	if n > segmentMSS {
		s.offload.GSOSize, s.offload.GSOType = segmentMSS, frame.GSOTCPv4
		if v6 {
			s.offload.GSOType = frame.GSOTCPv6
		}
	}
	return s
}

// ipHeader makes the IP header of a packet with n bytes behind it.
func (s *segment) ipHeader(n int) (ip, addrs []byte) {
	if s.v6 {
		ip = make([]byte, frame.IPv6Len)
		ip[0], ip[6], ip[7] = 6<<4, frame.ProtoTCP, 64
		binary.BigEndian.PutUint16(ip[ip6LenAt:], uint16(n))
		copy(ip[ip6AddrAt:], segmentV6)
		return ip, segmentV6
	}
	ip = make([]byte, frame.IPv4MinLen)
	ip[0], ip[6], ip[8], ip[9] = 4<<4|frame.IPv4MinLen/4, 0x40, 64, frame.ProtoTCP // DF
	binary.BigEndian.PutUint16(ip[ip4LenAt:], uint16(len(ip)+n))
	copy(ip[ip4AddrAt:], segmentV4)
	binary.BigEndian.PutUint16(ip[ip4SumAt:], ^frame.Sum(ip, 0))
	return ip, segmentV4
}

func (s *segment) kind() string {
	family := "IPv4"
	if s.v6 {
		family = "IPv6"
	}
	if s.offload.Super() {
		return family + " (a super-frame)"
	}
	return family
}

// wire returns the segment behind its virtio-net header.
func (s *segment) wire() []byte {
	b := make([]byte, frame.VnetLen, frame.VnetLen+len(s.data))
	s.offload.PutVnet(b, 0)
	return append(b, s.data...)
}

// judge looks at a frame that arrived: which bytes of the payload it has, from at on,
// and what is wrong with it. It is not mine if somebody else sent it.
func (s *segment) judge(b []byte, o *frame.Offload, finish bool) (at int, payload []byte, mine bool, err error) {
	if len(b) < s.head || !bytes.Equal(b[:12], s.data[:12]) {
		return 0, nil, false, nil
	}
	l, err := frame.Parse(b)
	if err != nil || l.Proto != frame.ProtoTCP || l.L4 == 0 {
		return 0, nil, true, fmt.Errorf("what arrived is no TCP any more (%w)", cmpErr(err))
	}
	payload = b[l.Payload:l.End]
	at = int(binary.BigEndian.Uint32(b[l.L4+tcpSeqAt:])) - segmentSeq
	if at < 0 || at+len(payload) > len(s.payload) || !bytes.Equal(payload, s.payload[at:at+len(payload)]) {
		return at, payload, true, errors.New("bytes arrived changed, or out of their place")
	}
	addrs := b[l.L3+ip4AddrAt : l.L3+ip4AddrAt+8]
	if s.v6 {
		addrs = b[l.L3+ip6AddrAt : l.L3+ip6AddrAt+32]
	} else if frame.Sum(b[l.L3:l.L4], 0) != 0xffff {
		return at, payload, true, errors.New("the IPv4 header's checksum is wrong")
	}
	pseudo := frame.Pseudo(addrs, frame.ProtoTCP, l.End-l.L4)
	partial := o.Flags&frame.NeedsCsum != 0
	switch {
	case finish && (partial || o.Super()):
		return at, payload, true, errors.New("a port with offload=off sent a frame that is not finished")
	case finish && l.End-l.L3 > checksumMTU:
		return at, payload, true, fmt.Errorf("a segment of %d bytes is longer than the interface takes", l.End-l.L3)
	case !partial && o.Super():
		return at, payload, true, errors.New("a super-frame arrived without the state that says how to finish it")
	case partial && (int(o.CsumStart) != l.L4 || o.CsumOffset != tcpSumAt):
		return at, payload, true, fmt.Errorf("the checksum is said to be at %d+%d, and is at %d+%d", o.CsumStart, o.CsumOffset, l.L4, tcpSumAt)
	case partial && binary.BigEndian.Uint16(b[l.L4+tcpSumAt:]) != frame.Sum(nil, pseudo):
		return at, payload, true, errors.New("an unfinished checksum does not hold the pseudo-header's sum")
	case !partial && frame.Sum(b[l.L4:l.End], pseudo) != 0xffff:
		return at, payload, true, errors.New("the TCP checksum is wrong")
	case o.Super() && (o.GSOSize != s.offload.GSOSize || o.GSOType != s.offload.GSOType):
		return at, payload, true, fmt.Errorf("a super-frame of segments of %d bytes (type %d) arrived as one of %d (type %d)", s.offload.GSOSize, s.offload.GSOType, o.GSOSize, o.GSOType)
	}
	return at, payload, true, nil
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("another protocol")
	}
	return err
}
