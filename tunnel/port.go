package tunnel

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// Csum says whether an outer checksum is written.
type Csum uint8

// The values of Csum.
const (
	// CsumAuto writes UDP's, since UDP_SEGMENT needs it and the interface or the
	// kernel does it for little; and not GRE's, which would be summed here.
	CsumAuto Csum = iota
	CsumOn
	CsumOff
)

// PortConfig says what a tunnel port is. It does not change: another config is
// another port.
type PortConfig struct {
	Remote    netip.Addr // unicast, of the endpoint's family
	InKey     uint32     // of frames that come in; GRE frames without a key have 0
	OutKey    uint32
	HasOutKey bool   // GRE: a key is written
	DstPort   uint16 // UDP; 0 is the endpoint's own

	TOS        uint8 // the outer DS field; its ECN bits are the inner packet's in any case
	TOSInherit bool  // the DS field of the inner packet, 0 if it is not IP
	TTL        uint8 // 0 is the system's
	TTLInherit bool  // that of the inner packet; the system's if it is not IP
	DF         bool  // routers must not fragment
	Csum       Csum
	Seq        bool // GRE: frames are numbered
	MSSClamp   bool // see SetMTU

	Workers int // that will send
	// Control is handed BFD control frames, Ethernet header and all; they are
	// valid during the call, which comes from a worker and must not block. nil:
	// they are forwarded like others.
	Control func(frame []byte)
	// PathChanged is called by a worker when a frame was too long for the path: ask
	// PathMTU anew. It must not block. It may be nil.
	PathChanged func()
}

// PortStats are counters of a port beside those that its switch keeps.
type PortStats struct {
	RxControl, TxControl uint64 // control frames handed over, and sent
	Options              uint64 // Geneve: options that were skipped
	Gaps                 uint64 // GRE: frames that a sequence number says are missing
	Late                 uint64 // GRE: frames that came after a later one
	TooBig               uint64 // sends that met EMSGSIZE
}

// Port is one tunnel: a remote address and a key of an Endpoint. It satisfies
// vswitch.Device, without receive queues, and vswitch.Bound.
//
// Thread-safety: Send for one worker number is for that worker. All else may be
// called from anywhere; Close when nobody sends any more.
type Port struct {
	// What a look-up compares, in one cache line.
	peer  peer
	inKey uint32
	mtu   atomic.Int32 // here for want of another place: the type fills its size class

	config  PortConfig
	e       *Endpoint
	fds     []int                 // to send by
	header  int                   // bytes of tunnel header
	flags   uint16                // GRE
	plain   bool                  // never UDP_SEGMENT
	name    unix.RawSockaddrInet6 // or RawSockaddrInet4: the remote
	nameLen uint32
	resume  []resume // by worker

	bound   atomic.Uint64 // the switch's number of the port, plus 1; 0: none
	heard   atomic.Int64  // Unix nanoseconds
	gsoless atomic.Bool   // the kernel refused UDP_SEGMENT
	seq     atomic.Uint32 // of the next frame
	// numbering is held from numbering frames until they are sent, with Seq. After
	// Endpoint.control.
	numbering sync.Mutex
	stats     struct {
		rxControl, txControl, options, gaps, late, tooBig atomic.Uint64
	}
	expect atomic.Uint64 // sequence number of the next frame to come, plus 1<<32; 0: none came
}

// ErrDuplicate says that an endpoint has a port with this remote address and key.
var ErrDuplicate = errors.New("another tunnel port has this remote address and key")

// NewPort makes a tunnel port. Frames come by it from Bind on; control frames do at
// once.
func (e *Endpoint) NewPort(c PortConfig) (*Port, error) {
	p, err := e.newPort(c)
	if err != nil {
		return nil, fmt.Errorf("make port of tunnel endpoint %s to %s key %d: %w", e.name, c.Remote, c.InKey, err)
	}
	return p, nil
}

func (e *Endpoint) newPort(c PortConfig) (*Port, error) {
	c.Remote = c.Remote.Unmap()
	kind := e.config.Kind
	switch {
	case !c.Remote.IsValid() || c.Remote.IsUnspecified() || c.Remote.IsMulticast():
		return nil, errors.New("the remote address must be one host's")
	case c.Remote.Is4() != e.config.Local.Is4():
		return nil, fmt.Errorf("the endpoint's local address, %s, is of the other IP version", e.config.Local)
	}
	if err := errors.Join(kind.checkKey(c.InKey), kind.checkKey(c.OutKey)); err != nil {
		return nil, err
	}
	if c.DstPort == 0 {
		c.DstPort = e.config.Port
	}
	c.TOS &^= ecnMask
	if kind == GRE {
		c.DstPort = 0 // a raw socket's address has none
	}
	p := &Port{peer: peerOf(c.Remote), inKey: c.InKey, config: c, e: e}
	which := 0
	if !c.DF {
		which |= setFragment
	}
	switch kind {
	case VXLAN:
		p.header = vxlanLen
	case Geneve:
		p.header = geneveLen
	case GRE:
		if c.HasOutKey {
			p.flags |= greHasKey
		}
		if c.Csum == CsumOn {
			p.flags |= greHasChecksum
		}
		if c.Seq {
			p.flags |= greHasSequence
		}
		p.header = greHeaderLen(p.flags)
		p.plain = true
	}
	if kind != GRE && c.Csum == CsumOff {
		which |= setNoCheck
		p.plain = true // EINVAL
	}
	var err error
	if p.fds, err = e.set(which); err != nil {
		return nil, err
	}
	e.growSenders(c.Workers)
	p.resume = make([]resume, max(c.Workers, e.config.Queues))
	p.setName(c.Remote, c.DstPort)
	if !e.demux.add(p) {
		return nil, ErrDuplicate
	}
	return p, nil
}

// setName makes the remote address what sendmsg takes.
func (p *Port) setName(a netip.Addr, port uint16) {
	if a.Is4() {
		p.nameLen = unix.SizeofSockaddrInet4
		p.name.Family = unix.AF_INET
		// struct sockaddr_in has the address where sin6_flowinfo is.
		b := a.As4()
		p.name.Flowinfo = binary.NativeEndian.Uint32(b[:])
	} else {
		p.nameLen = unix.SizeofSockaddrInet6
		p.name.Family = unix.AF_INET6
		p.name.Addr = a.As16()
		p.name.Scope_id = zoneID(a.Zone())
	}
	p.name.Port = port<<8 | port>>8
	if binary.NativeEndian.Uint16([]byte{1, 0}) != 1 {
		p.name.Port = port
	}
}

// nameBytes is the same for a struct msghdr.
func (p *Port) nameBytes() *byte { return (*byte)(unsafe.Pointer(&p.name)) }

// Overhead returns how many bytes the tunnel adds to an inner IP packet: outer IP,
// UDP, tunnel header, inner Ethernet header. The largest inner IP packet is
// PathMTU less this, less 4 where frames leave with a VLAN tag.
func (p *Port) Overhead() int {
	n := frame.IPv4MinLen
	if p.config.Remote.Is6() {
		n = frame.IPv6Len
	}
	if p.e.config.Kind != GRE {
		n += frame.UDPLen
	}
	return n + p.header + frame.EthLen
}

// SetMTU tells the largest inner IP packet in bytes, to which the MSS in SYNs is
// clamped, both ways, if the port does that. 0: unknown, and nothing is clamped.
func (p *Port) SetMTU(inner int) { p.mtu.Store(int32(inner)) }

// clampTo returns what SetMTU told, 0 if nothing is to be clamped.
func (p *Port) clampTo() int {
	if !p.config.MSSClamp {
		return 0
	}
	return int(p.mtu.Load())
}

// LastHeard returns when a frame came from the remote last, zero for never.
func (p *Port) LastHeard() time.Time {
	if t := p.heard.Load(); t != 0 {
		return time.Unix(0, t)
	}
	return time.Time{}
}

// Stats returns the port's own counters.
func (p *Port) Stats() PortStats {
	return PortStats{
		RxControl: p.stats.rxControl.Load(), TxControl: p.stats.txControl.Load(),
		Options: p.stats.options.Load(), Gaps: p.stats.gaps.Load(), Late: p.stats.late.Load(),
		TooBig: p.stats.tooBig.Load(),
	}
}

// Endpoint returns the endpoint that the port belongs to.
func (p *Port) Endpoint() *Endpoint { return p.e }

// Bind tells the switch's number of the port.
func (p *Port) Bind(port uint32) { p.bound.Store(uint64(port) + 1) }

// Unbind ends that. A frame that a Recv under way brings may still have it.
func (p *Port) Unbind() { p.bound.Store(0) }

// Close takes the port off its endpoint: what its remote sends is unknown from now
// on.
func (p *Port) Close() error {
	p.Unbind()
	p.e.demux.remove(p)
	return nil
}

// Queues returns 0: a port's frames come by its endpoint.
func (p *Port) Queues() int { return 0 }

// FD and Recv are a Device's, and never called.
func (p *Port) FD(int) int { return -1 }

// Recv is described at FD.
func (p *Port) Recv(int, *frame.Batch, int) (int, unix.Errno) { return 0, unix.EAGAIN }

// Missed returns 0: what is dropped before it can be received has no port yet. See
// Endpoint.Missed.
func (p *Port) Missed() uint64 { return 0 }

// Offloads returns true: super-frames are cut, and checksums finished, on the way.
func (p *Port) Offloads() bool { return true }

// putHeader writes the tunnel header to b; len(b) >= p.header. A checksum is
// written by sum.
func (p *Port) putHeader(b []byte) {
	switch p.e.config.Kind {
	case VXLAN:
		putVXLAN(b, p.config.OutKey)
	case Geneve:
		putGeneve(b, p.config.OutKey)
	case GRE:
		seq := uint32(0)
		if p.flags&greHasSequence != 0 {
			seq = p.seq.Add(1) - 1
		}
		putGRE(b, p.flags, p.config.OutKey, seq)
	}
}

// sum writes the checksum of the packet head and payload, if the header has one.
func (p *Port) sum(head, payload []byte) {
	if p.flags&greHasChecksum != 0 {
		sumGRE(head, payload)
	}
}

// outer returns the TOS and TTL of the outer header for the inner frame b. The ECN
// field is copied, RFC 6040 section 4.1 normal mode, as OVS does; a TTL of 0 is the
// system's.
func (p *Port) outer(b []byte) (tos, hops uint8) {
	tos = p.config.TOS
	if ds, ok := frame.DS(b); ok {
		if p.config.TOSInherit {
			tos = ds &^ ecnMask
		}
		tos |= ds & ecnMask
	}
	hops = p.config.TTL
	if p.config.TTLInherit {
		hops = ttl(b)
	}
	return tos, hops
}

// WriteControl sends the Ethernet frame b to the remote, for BFD. It is not counted
// as a frame of the port. It may be called from any goroutine, and does not wait for
// data: it has a socket of its own, of the highest priority that a queue may heed.
func (p *Port) WriteControl(b []byte) error {
	e := p.e
	tos, hops := p.outer(b)
	e.control.Lock()
	defer e.control.Unlock()
	switch e.controller {
	case closed:
		return fmt.Errorf("send control frame to %s: the endpoint is closed", p.config.Remote)
	case -1:
		fd, err := e.openController()
		if err != nil {
			return fmt.Errorf("open socket for control frames: %w", err)
		}
		e.controller = fd
	}
	if p.flags&greHasSequence != 0 {
		p.numbering.Lock()
		defer p.numbering.Unlock()
	}
	e.scratch = append(e.scratch[:0], make([]byte, greMax)[:p.header]...)
	e.scratch = append(e.scratch, b...)
	p.putHeader(e.scratch)
	p.sum(e.scratch[:p.header], b)
	var control [sendControl]byte
	n := putControl(&control, e.config.Local.Is6(), tos, hops, 0)
	if err := unix.Sendmsg(e.controller, e.scratch, control[:n], sockaddr(p.config.Remote, p.config.DstPort), unix.MSG_DONTWAIT); err != nil {
		return fmt.Errorf("send control frame to %s: %w", p.config.Remote, err)
	}
	p.stats.txControl.Add(1)
	return nil
}
