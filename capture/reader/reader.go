// Package reader reads frames that were seen before: from a capture file, pcap or pcapng,
// or as hexadecimal digits, and gives a super-frame back the offload state that no
// capture keeps. It knows nothing of a switch; frames that nobody has seen yet are made
// by ctl/craft.
//
// Its one idea: a file is somebody else's word. Nothing that it claims makes this
// package take more than a bounded amount of memory, and what is read is a frame that
// the switch takes, or an error that says which packet is none, and why.
package reader

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"time"

	"vswitch/capture"
	"vswitch/frame"
)

// Packet is one frame of a capture file.
type Packet struct {
	Number    int       // from 1, as Wireshark counts
	Time      time.Time // zero: the file does not say
	Data      []byte    // as captured, from the destination address on; valid until the next call of Next
	Len       int       // of the frame before it was cut, at least len(Data)
	LinkType  int       // LinkEthernet, or what Data is instead
	Interface string    // pcapng: its name; "": none is told
	Direction capture.Direction
}

// LinkEthernet is LINKTYPE_ETHERNET of the registry at tcpdump.org.
const LinkEthernet = 1

// What is refused.
var (
	ErrNotEthernet = errors.New("not of an Ethernet interface; capture at one interface (tcpdump -i eth0), not at any")
	ErrTooShort    = fmt.Errorf("shorter than an Ethernet header (%d bytes)", frame.EthLen)
	ErrTooLong     = fmt.Errorf("longer than a frame can be (%d bytes)", frame.MaxLen)
)

// Frame returns the whole frame, in memory of its own: bytes that the capture does not
// have, because it was cut to a snap length, are zeros; cut says so. The error is one of
// the above: the packet is no frame.
func (p *Packet) Frame() (data []byte, cut bool, err error) {
	switch {
	case p.LinkType != LinkEthernet:
		return nil, false, ErrNotEthernet
	case len(p.Data) < frame.EthLen:
		return nil, false, ErrTooShort
	case p.Len > frame.MaxLen:
		return nil, false, ErrTooLong
	}
	data = make([]byte, p.Len)
	copy(data, p.Data)
	return data, p.Len > len(p.Data), nil
}

// Bounds on what a file may ask for. A packet larger than maxPacket is what Wireshark
// refuses, too.
const (
	maxPacket     = 262144
	maxOptions    = 1 << 20 // bytes that follow a packet, or an interface's header
	maxInterfaces = 1 << 16
	maxName       = 256
)

// Reader reads a capture file: pcap, with times in microseconds or nanoseconds, or
// pcapng, of either byte order. gopacket's readers know neither a packet's direction nor
// bounds on what a file may ask for; they are what this one is checked against.
//
// Thread-safety: for one goroutine.
type Reader struct {
	r      *bufio.Reader
	order  binary.ByteOrder
	ng     bool
	number int
	p      Packet
	buf    []byte
	opts   []byte

	link  int           // pcap
	nanos bool          // pcap
	ifs   []ngInterface // pcapng: of this section
	head  [32]byte
}

type ngInterface struct {
	name   string
	link   int
	snap   int    // bytes of a packet; 0: all
	perSec uint64 // units of time
	offset int64  // seconds
}

// Magic numbers of the formats: draft-ietf-opsawg-pcap and -pcapng.
const (
	magicMicros = 0xa1b2c3d4
	magicNanos  = 0xa1b23c4d
	magicNg     = 0x0a0d0d0a
	magicOrder  = 0x1a2b3c4d

	pcapHeader = 24
	pcapRecord = 16

	ngInterfaceBlock = 1
	ngOldPacket      = 2
	ngSimplePacket   = 3
	ngPacket         = 6
	ngFrame          = 12 // bytes of a block beside its body: type, length, length

	optIfName      = 2
	optIfResol     = 9
	optIfOffset    = 14
	optPacketFlags = 2
)

// New reads the head of a capture file.
func New(r io.Reader) (*Reader, error) {
	c := &Reader{r: bufio.NewReaderSize(r, 64<<10)}
	if err := c.read(c.head[:4]); err != nil {
		if errors.Is(err, io.EOF) {
			return nil, errors.New("the capture file is empty")
		}
		return nil, err
	}
	little, big := binary.LittleEndian.Uint32(c.head[:]), binary.BigEndian.Uint32(c.head[:])
	switch {
	case little == magicNg:
		c.ng = true
		return c, c.section()
	case little == magicMicros || little == magicNanos:
		c.order, c.nanos = binary.LittleEndian, little == magicNanos
	case big == magicMicros || big == magicNanos:
		c.order, c.nanos = binary.BigEndian, big == magicNanos
	default:
		return nil, errors.New("not a capture file: neither pcap nor pcapng (a compressed one must be unpacked before)")
	}
	if err := c.read(c.head[4:pcapHeader]); err != nil {
		return nil, fmt.Errorf("read the capture file's header: %w", short(err))
	}
	c.link = int(c.order.Uint32(c.head[20:]) & 0xffff) // above are flags
	return c, nil
}

// read fills b. The error is io.EOF if there was nothing.
func (c *Reader) read(b []byte) error {
	_, err := io.ReadFull(c.r, b)
	return err
}

// short makes the end of a file in the middle of something an error.
func short(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// Waiting reports whether nothing of the next packet was read yet: Next may have to wait
// for who writes it.
func (c *Reader) Waiting() bool { return c.r.Buffered() == 0 }

// Next returns the next packet, which is the Reader's own. The error is io.EOF at the
// end; any other ends the reading, and tells at which packet it was.
func (c *Reader) Next() (*Packet, error) {
	next := c.nextPcap
	if c.ng {
		next = c.nextNg
	}
	if err := next(); err != nil {
		if err == io.EOF {
			return nil, err
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			err = errors.New("the capture file ends in the middle of it")
		}
		return nil, fmt.Errorf("read packet %d: %w", c.number+1, err)
	}
	c.number++
	c.p.Number = c.number
	return &c.p, nil
}

func (c *Reader) nextPcap() error {
	h := c.head[:pcapRecord]
	if err := c.read(h); err != nil {
		return err
	}
	frac := time.Duration(c.order.Uint32(h[4:]))
	if !c.nanos {
		frac *= time.Microsecond
	}
	c.p = Packet{Time: time.Unix(int64(c.order.Uint32(h)), int64(frac)), LinkType: c.link}
	return c.data(c.order.Uint32(h[8:]), c.order.Uint32(h[12:]))
}

// data reads a packet's bytes.
func (c *Reader) data(captured, original uint32) error {
	if captured > maxPacket {
		return fmt.Errorf("it claims to have %d bytes; at most %d are a packet", captured, maxPacket)
	}
	if c.buf == nil {
		c.buf = make([]byte, maxPacket)
	}
	c.p.Data = c.buf[:captured]
	c.p.Len = int(min(max(captured, original), math.MaxInt32))
	return short(c.read(c.p.Data))
}

// section begins a section of a pcapng file, whose first four bytes were read.
func (c *Reader) section() error {
	if err := c.read(c.head[4:12]); err != nil {
		return fmt.Errorf("read the capture file's header: %w", short(err))
	}
	switch uint32(magicOrder) {
	case binary.LittleEndian.Uint32(c.head[8:]):
		c.order = binary.LittleEndian
	case binary.BigEndian.Uint32(c.head[8:]):
		c.order = binary.BigEndian
	default:
		return errors.New("read the capture file's header: its byte order is unknown")
	}
	n, err := c.body(4)
	if err != nil {
		return err
	}
	c.ifs = nil
	return c.skip(n) // the byte order was read, the second length was not
}

// body returns how many bytes a block has beside its frame, at least so many.
func (c *Reader) body(least int) (int, error) {
	n := c.order.Uint32(c.head[4:])
	if n < uint32(ngFrame+least) || n%4 != 0 || n > math.MaxInt32 {
		return 0, fmt.Errorf("a block has a length of %d bytes", n)
	}
	return int(n) - ngFrame, nil
}

func (c *Reader) skip(n int) error {
	_, err := c.r.Discard(n)
	return short(err)
}

// nextNg reads blocks up to the next packet.
func (c *Reader) nextNg() error {
	for {
		if err := c.read(c.head[:4]); err != nil {
			return err
		}
		if c.order.Uint32(c.head[:]) == magicNg { // a palindrome: of either order
			if err := c.section(); err != nil {
				return err
			}
			continue
		}
		kind := c.order.Uint32(c.head[:])
		if err := c.read(c.head[4:8]); err != nil {
			return short(err)
		}
		var err error
		found := false
		switch kind {
		case ngInterfaceBlock:
			err = c.describe()
		case ngPacket, ngOldPacket:
			found, err = true, c.packet(kind == ngOldPacket)
		case ngSimplePacket:
			found, err = true, c.simple()
		default:
			var n int
			if n, err = c.body(0); err == nil {
				err = c.skip(n + 4)
			}
		}
		if found || err != nil {
			return err
		}
	}
}

// describe reads an Interface Description Block.
func (c *Reader) describe() error {
	n, err := c.body(8)
	if err != nil {
		return err
	}
	if len(c.ifs) == maxInterfaces {
		return fmt.Errorf("the file has more than %d interfaces", maxInterfaces)
	}
	if err := c.read(c.head[:8]); err != nil {
		return short(err)
	}
	i := ngInterface{link: int(c.order.Uint16(c.head[:])), snap: int(min(c.order.Uint32(c.head[4:]), math.MaxInt32)), perSec: 1e6}
	err = c.options(n-8, func(code uint16, value []byte) {
		switch {
		case code == optIfName && len(value) <= maxName:
			i.name = string(value)
		case code == optIfResol && len(value) >= 1:
			i.resolution(value[0])
		case code == optIfOffset && len(value) >= 8:
			i.offset = int64(c.order.Uint64(value))
		}
	})
	c.ifs = append(c.ifs, i)
	return err
}

// resolution takes if_tsresol: a power of 10, or, with the highest bit, of 2.
func (i *ngInterface) resolution(v byte) {
	base, exponent := uint64(10), int(v)
	if v&0x80 != 0 {
		base, exponent = 2, int(v&0x7f)
	}
	perSec := uint64(1)
	for range exponent {
		if perSec > math.MaxUint64/base {
			return // finer than can be counted: microseconds, as where nothing is said
		}
		perSec *= base
	}
	i.perSec = perSec
}

// at turns a time of the interface into one of the clock.
func (i *ngInterface) at(high, low uint32) time.Time {
	t := uint64(high)<<32 | uint64(low)
	if t == 0 && i.offset == 0 {
		return time.Time{}
	}
	high64, low64 := bits.Mul64(t%i.perSec, uint64(time.Second))
	nanos, _ := bits.Div64(high64, low64, i.perSec)
	return time.Unix(int64(t/i.perSec)+i.offset, int64(nanos))
}

// packet reads an Enhanced Packet Block, or the obsolete Packet Block, which differs in
// its first four bytes.
func (c *Reader) packet(old bool) error {
	n, err := c.body(20)
	if err != nil {
		return err
	}
	h := c.head[:20]
	if err := c.read(h); err != nil {
		return short(err)
	}
	id := int(min(c.order.Uint32(h), math.MaxInt32))
	if old {
		id = int(c.order.Uint16(h))
	}
	if id >= len(c.ifs) {
		return fmt.Errorf("it is of interface %d, and the file describes %d", id, len(c.ifs))
	}
	i := &c.ifs[id]
	c.p = Packet{Time: i.at(c.order.Uint32(h[4:]), c.order.Uint32(h[8:])), LinkType: i.link, Interface: i.name}
	captured := c.order.Uint32(h[12:])
	padded := (int64(captured) + 3) &^ 3
	if padded > int64(n-20) {
		return fmt.Errorf("it claims to have %d bytes, in a block of %d", captured, n+ngFrame)
	}
	if err := c.data(captured, c.order.Uint32(h[16:])); err != nil {
		return err
	}
	if err := c.skip(int(padded) - int(captured)); err != nil {
		return err
	}
	return c.options(n-20-int(padded), func(code uint16, value []byte) {
		if code == optPacketFlags && len(value) == 4 {
			// Bits 0 and 1 are the direction.
			if d := capture.Direction(c.order.Uint32(value) & 3); d <= capture.Outbound {
				c.p.Direction = d
			}
		}
	})
}

// simple reads a Simple Packet Block: of the first interface, cut to its snap length.
func (c *Reader) simple() error {
	n, err := c.body(4)
	if err != nil {
		return err
	}
	if err := c.read(c.head[:4]); err != nil {
		return short(err)
	}
	if len(c.ifs) == 0 {
		return errors.New("it is of interface 0, and the file describes none")
	}
	i := &c.ifs[0]
	original := c.order.Uint32(c.head[:])
	captured := min(original, uint32(n-4))
	if i.snap > 0 {
		captured = min(captured, uint32(i.snap))
	}
	c.p = Packet{LinkType: i.link, Interface: i.name}
	if err := c.data(captured, original); err != nil {
		return err
	}
	return c.skip(n - 4 - int(captured) + 4)
}

// options reads options of so many bytes, and the block's second length.
func (c *Reader) options(n int, each func(code uint16, value []byte)) error {
	if n > maxOptions {
		return fmt.Errorf("a block has %d bytes of options", n)
	}
	if cap(c.opts) < n {
		c.opts = make([]byte, n)
	}
	b := c.opts[:n]
	if err := c.read(b); err != nil {
		return short(err)
	}
	for len(b) >= 4 {
		code, size := c.order.Uint16(b), int(c.order.Uint16(b[2:]))
		if code == 0 || 4+size > len(b) {
			break
		}
		each(code, b[4:4+size])
		b = b[min(4+(size+3)&^3, len(b)):]
	}
	return c.skip(4)
}
