package frame

import (
	"encoding/binary"
	"errors"
)

// Sizes in bytes, and the bound on a batch in frames.
const (
	// MaxBatch is how many frames move together at most.
	MaxBatch = 64
	// Headroom stands before a received frame's first byte: room for the
	// virtio-net header, and for the largest encapsulation this switch adds
	// (Ethernet 14 + VLAN 4 + IPv6 40 + UDP 8 + Geneve 8 with options).
	Headroom = 256
	// MaxLen is the longest frame: Ethernet header, one VLAN tag left in the
	// bytes, and an IP packet of 65,535 bytes.
	MaxLen = EthLen + TagLen + 65535
	// BufferLen is what one frame's buffer takes in the arena: Headroom and
	// MaxLen, rounded up to whole pages.
	BufferLen = 17 * 4096

	EthLen  = 14 // destination, source, EtherType
	AddrLen = 12 // destination and source
	TagLen  = 4  // TPID and TCI
	// VnetLen is sizeof(struct virtio_net_hdr), linux/virtio_net.h, without
	// num_buffers: what PACKET_VNET_HDR and IFF_VNET_HDR use by default.
	VnetLen = 10
)

// Tag is an IEEE 802.1Q tag in host byte order. TPID 0 means: no tag.
type Tag struct {
	TPID uint16 // 0x8100 or 0x88a8
	TCI  uint16 // PCP (3 bits), DEI (1), VID (12)
}

// Values of Tag.TPID.
const (
	TPID8021Q  = 0x8100 // IEEE 802.1Q, customer tag
	TPID8021AD = 0x88a8 // IEEE 802.1ad, service tag
)

// Present reports whether there is a tag.
func (t Tag) Present() bool { return t.TPID != 0 }

// put writes the tag's four bytes in network byte order.
func (t Tag) put(b []byte) {
	binary.BigEndian.PutUint16(b, t.TPID)
	binary.BigEndian.PutUint16(b[2:], t.TCI)
}

// VID returns the VLAN identifier, 0 to 4095.
func (t Tag) VID() uint16 { return t.TCI & 0x0fff }

// Insert puts the tag into b, a frame that begins TagLen bytes after b's start,
// and returns the whole: b.
func (t Tag) Insert(b []byte) []byte {
	copy(b[:AddrLen], b[TagLen:TagLen+AddrLen])
	t.put(b[AddrLen:])
	return b
}

// Offload is the part of struct virtio_net_hdr (linux/virtio_net.h, VIRTIO 1.2
// section 5.1.6) that a frame carries, in host byte order.
type Offload struct {
	Flags      uint8  // NeedsCsum, DataValid
	GSOType    uint8  // GSONone, or a type, perhaps with GSOECN
	HdrLen     uint16 // Ethernet, IP and transport headers, in bytes; a hint
	GSOSize    uint16 // payload bytes a segment
	CsumStart  uint16 // where the sum begins, from the frame's first byte
	CsumOffset uint16 // where the sum is stored, from CsumStart
}

// Values of Offload.Flags and Offload.GSOType.
const (
	NeedsCsum = 1 // VIRTIO_NET_HDR_F_NEEDS_CSUM: the checksum is partial
	DataValid = 2 // VIRTIO_NET_HDR_F_DATA_VALID: somebody verified it

	GSONone  = 0
	GSOTCPv4 = 1
	GSOUDP   = 3 // UFO, IP fragments; no kernel since 4.14 sends it
	GSOTCPv6 = 4
	GSOUDPL4 = 5    // USO, since Linux 6.2
	GSOECN   = 0x80 // or'ed: only the first segment carries CWR
)

// PutVnet writes o as a struct virtio_net_hdr in native byte
// order into b; len(b) >= VnetLen. shift is added to CsumStart and HdrLen where
// they are set: the bytes of a tag that the device puts back.
func (o *Offload) PutVnet(b []byte, shift uint16) {
	_ = b[VnetLen-1]
	b[0] = o.Flags
	b[1] = o.GSOType
	hl, cs := o.HdrLen, o.CsumStart
	if hl != 0 {
		hl += shift
	}
	if o.Flags&NeedsCsum != 0 {
		cs += shift
	}
	binary.NativeEndian.PutUint16(b[2:], hl)
	binary.NativeEndian.PutUint16(b[4:], o.GSOSize)
	binary.NativeEndian.PutUint16(b[6:], cs)
	binary.NativeEndian.PutUint16(b[8:], o.CsumOffset)
}

// GetVnet reads a struct virtio_net_hdr from b; len(b) >= VnetLen.
func (o *Offload) GetVnet(b []byte) {
	_ = b[VnetLen-1]
	o.Flags = b[0]
	o.GSOType = b[1]
	o.HdrLen = binary.NativeEndian.Uint16(b[2:])
	o.GSOSize = binary.NativeEndian.Uint16(b[4:])
	o.CsumStart = binary.NativeEndian.Uint16(b[6:])
	o.CsumOffset = binary.NativeEndian.Uint16(b[8:])
}

// Super reports whether the frame stands for several on the wire.
func (o *Offload) Super() bool { return o.GSOType&^GSOECN != GSONone }

// Frame is one Ethernet frame and its offload state, in a buffer of its own.
//
// Thread-safety: none; a frame belongs to one worker.
type Frame struct {
	buf  []byte // the whole buffer, len BufferLen
	off  int    // where the frame begins in buf
	n    int    // its length
	refs int32  // how many hold it: its batch, transmit rings
	// batched says that a Batch is one of the holders.
	batched bool
	// Truncated says that the device had more bytes than a buffer holds.
	Truncated bool
	// Tunnelled is for the worker to note what Encapsulated told.
	Tunnelled bool
	// Fault is why the device that received the frame says that it cannot be
	// forwarded; FaultNone when it can.
	Fault Fault
	// Own says that the frame is for the device's own MAC address, behind which others are: who
	// is known to have it gets the frame, and nobody else.
	Own bool
	// Port is the switch's number of the port that the frame came in by. The device
	// sets it where it receives for many ports (a tunnel's endpoint), else the worker.
	Port uint32
	Offload
	Tag Tag // the outermost tag, taken out of the bytes
}

// Fault is what a tunnel, or a port with macnat, found wrong with a frame whose port is known.
type Fault uint8

// The faults.
const (
	FaultNone      Fault = iota
	FaultCritical        // Geneve: a critical option that is not understood, RFC 8926 section 3.5
	FaultProtocol        // the payload is no Ethernet frame
	FaultChecksum        // GRE: the checksum is wrong, RFC 2784 section 2.3
	FaultECN             // congestion was met on the way, and the inner packet cannot be told, RFC 6040 section 4.2
	FaultReflected       // the device itself sent it: the LAN sent it back
)

// Bytes returns the frame from its destination address on, without the tag that
// stands in Tag. The slice is valid until the frame goes back to its pool.
func (f *Frame) Bytes() []byte { return f.buf[f.off : f.off+f.n : f.off+f.n] }

// Len returns len(f.Bytes()).
func (f *Frame) Len() int { return f.n }

// WireLen returns the frame's length with its tag, in bytes, and without FCS.
func (f *Frame) WireLen() int {
	if f.Tag.Present() {
		return f.n + TagLen
	}
	return f.n
}

// InnerTagLen returns TagLen when the frame's bytes begin with a tag of their own
// (QinQ): interfaces take so much more than their MTU. Len() >= EthLen.
func (f *Frame) InnerTagLen() int {
	switch binary.BigEndian.Uint16(f.buf[f.off+AddrLen:]) {
	case TPID8021Q, TPID8021AD:
		return TagLen
	}
	return 0
}

// Dst and Src return the MAC addresses; valid for a frame with Len() >= EthLen.
func (f *Frame) Dst() (a [6]byte) { copy(a[:], f.buf[f.off:]); return }

// Src is described at Dst.
func (f *Frame) Src() (a [6]byte) { copy(a[:], f.buf[f.off+6:]); return }

// EtherType returns the field behind the addresses: what is in the frame, a tag of its
// own, or an 802.3 length. Len() >= EthLen.
func (f *Frame) EtherType() uint16 { return binary.BigEndian.Uint16(f.buf[f.off+AddrLen:]) }

// Before returns the n bytes that stand before the frame's first byte. They are
// the device's to write: the virtio-net header goes there. n <= Headroom less
// what was taken out; Before never fails for n <= VnetLen.
func (f *Frame) Before(n int) []byte { return f.buf[f.off-n : f.off] }

// Room returns the buffer from n bytes before the place of a frame's first byte
// to its end, for a device to receive into; then call Reset.
func (f *Frame) Room(n int) []byte { return f.buf[Headroom-n:] }

// Reset says that n bytes of frame stand at the usual place in the buffer, with
// no tag and no offload. 0 <= n <= MaxLen.
func (f *Frame) Reset(n int) {
	f.off, f.n = Headroom, n
	f.Truncated, f.Tunnelled, f.Fault, f.Own = false, false, FaultNone, false
	f.Tag = Tag{}
	f.Offload = Offload{}
}

// Set makes f a copy of b with no tag and no offload. len(b) <= MaxLen.
func (f *Frame) Set(b []byte) {
	f.Reset(len(b))
	copy(f.buf[Headroom:], b)
}

// Load makes f a copy of b, in normal form, with o's offload state, whose offsets are
// those in b. A frame that is longer than MaxLen is Truncated.
func (f *Frame) Load(b []byte, o Offload) {
	f.Set(b[:min(len(b), MaxLen)])
	f.Truncated = len(b) > MaxLen
	f.Offload = o
	f.PopTag()
}

// ProbeMagic follows the EtherType of the switch's own probes, EtherProbe.
const ProbeMagic = "vswitch\x01"

// Probe reports whether the frame is a probe of the switch's own, perhaps behind tags
// in its bytes. Len() >= EthLen.
func (f *Frame) Probe() bool {
	b := f.buf[f.off : f.off+f.n]
	etherType, at := network(b)
	return etherType == EtherProbe && len(b) >= at+len(ProbeMagic) && string(b[at:at+len(ProbeMagic)]) == ProbeMagic
}

// PopTag brings a frame whose outermost tag stands in its bytes into normal
// form, and reports whether there was one. Offload offsets are moved along.
func (f *Frame) PopTag() bool {
	if f.n < EthLen+TagLen || f.Tag.Present() {
		return false
	}
	b := f.buf[f.off : f.off+f.n]
	tpid := binary.BigEndian.Uint16(b[AddrLen:])
	if tpid != TPID8021Q && tpid != TPID8021AD {
		return false
	}
	f.Tag = Tag{TPID: tpid, TCI: binary.BigEndian.Uint16(b[AddrLen+2:])}
	copy(b[TagLen:TagLen+AddrLen], b[:AddrLen])
	f.off += TagLen
	f.n -= TagLen
	if f.HdrLen >= TagLen {
		f.HdrLen -= TagLen
	}
	if f.Flags&NeedsCsum != 0 && f.CsumStart >= TagLen {
		f.CsumStart -= TagLen
	}
	return true
}

// PushTag puts t into the bytes, as the outermost tag; for writers of files and
// for tests: devices send a tag by scatter-gather. It needs TagLen of headroom.
func (f *Frame) PushTag(t Tag) {
	f.off -= TagLen
	f.n += TagLen
	t.Insert(f.buf[f.off : f.off+f.n])
	if f.HdrLen != 0 {
		f.HdrLen += TagLen
	}
	if f.Flags&NeedsCsum != 0 {
		f.CsumStart += TagLen
	}
}

// What Check finds. They are allocated once: a hostile sender may cause many.
var (
	ErrShort   = errors.New("frame is shorter than an Ethernet header")
	ErrLong    = errors.New("frame is longer than a buffer")
	ErrOffload = errors.New("offload state points outside the frame, or names an unknown kind")
)

// Check tells whether the frame is long enough to be one, and whether its
// offload state may be trusted: after it returns nil the checksum field lies
// inside the frame and a super-frame's kind is known and its GSOSize above zero.
// A UFO super-frame (GSOUDP) is refused: nothing sends one since Linux 4.14. A
// header length beyond the frame, which is only a hint, is taken out.
func (f *Frame) Check() error {
	if f.Truncated {
		return ErrLong
	}
	if f.n < EthLen {
		return ErrShort
	}
	if f.Flags&NeedsCsum != 0 && (f.CsumStart < EthLen || int(f.CsumStart)+int(f.CsumOffset)+2 > f.n) {
		return ErrOffload
	}
	if int(f.HdrLen) > f.n {
		f.HdrLen = 0 // a hint that misleads is worse than none; the kernel takes 0
	}
	switch f.GSOType &^ GSOECN {
	case GSONone:
		if f.GSOType != GSONone {
			return ErrOffload
		}
		return nil
	case GSOTCPv4, GSOTCPv6, GSOUDPL4:
		if f.GSOSize == 0 || f.Flags&NeedsCsum == 0 {
			return ErrOffload
		}
		return nil
	}
	return ErrOffload
}

// Out is one frame staged for one output: the frame, and the tag it leaves with.
type Out struct {
	F   *Frame
	Tag Tag
	// Quiet says that the frame's sender is told nothing when it does not fit: it is
	// a mirror's copy, or one of a flood, where another may arrive.
	Quiet bool
	Own   bool // the switch made the frame, such as an ICMP answer
	Made  bool // a segment that was made for one call, and is released after it
}

// WireLen returns the length on the wire in bytes, tag included, without FCS.
func (o *Out) WireLen() int {
	if o.Tag.Present() {
		return o.F.n + TagLen
	}
	return o.F.n
}
