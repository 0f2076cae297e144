// Package sflow writes datagrams of sFlow version 5: samples of frames, and reports
// of counters, as a collector takes them. It samples nothing, counts nothing and sends
// nothing: that is for its callers.
//
// Its one idea is a datagram that is written once, from front to back, in one buffer:
// samples are appended while they fit, and the head, which says how many there are,
// goes in front of them when the datagram leaves.
//
// Source: sFlow Version 5, sflow.org/sflow_version_5.txt, July 2004. All numbers are
// XDR's (RFC 4506): 32 bits, big endian; hyper is 64 bits.
//
//	datagram                                  flow sample (data format 0,1)
//	+---------------------------------+       +---------------------------------+
//	| version: 5                      |       | format: 1   | length in bytes   |
//	| address type: 1 IPv4, 2 IPv6    |       | sequence number of the source   |
//	| agent's address: 4, or 16 bytes |       | source: type (8) | index (24)   |
//	| sub-agent                       |       | sampling rate: one in so many   |
//	| sequence number                 |       | pool: could have been sampled   |
//	| uptime in milliseconds          |       | drops: samples that were lost   |
//	| number of samples               |       | input interface                 |
//	| samples …                       |       | output: format (2) | value (30) |
//	+---------------------------------+       | number of records: 2            |
//	                                          +---------------------------------+
//	raw packet header (0,1)                   extended switch data (0,1001)
//	+---------------------------------+       +---------------------------------+
//	| format: 1   | length in bytes   |       | format: 1001 | length: 16       |
//	| protocol: 1 Ethernet            |       | VLAN in     | priority in       |
//	| frame length, FCS included      |       | VLAN out    | priority out      |
//	| stripped: 4, the FCS            |       +---------------------------------+
//	| bytes that follow, then padding |
//	+---------------------------------+       counters sample (0,2): format, length,
//	                                          sequence, source, 1, and the 88 bytes of
//	                                          generic interface counters (0,1)
//
// Interfaces have indexes below 2^24, so the compact forms of samples will do: an
// agent must not mix them with the expanded ones.
package sflow

import (
	"encoding/binary"
	"math"
	"net/netip"
	"time"
)

// Bounds.
const (
	// MaxDatagram is the longest datagram in bytes: it fits an MTU of 1500 with what
	// a tunnel may add on its way.
	MaxDatagram = 1400
	// MaxHeader is how many bytes of a frame a sample holds at most.
	MaxHeader = 1024
	// MaxIndex is the highest index of an interface.
	MaxIndex = 1<<24 - 1
)

const (
	version = 5

	maxHead    = 6*4 + 16 // with an IPv6 address
	fcs        = 4        // bytes; the switch never sees them
	formatFlow = 1
	formatCtrs = 2

	recordHeader = 1
	recordSwitch = 1001
	recordIface  = 1

	protocolEthernet = 1
	ifTypeEthernet   = 6 // IANAifType: ethernetCsmacd

	flowFixed     = 8*4 + 2*4 + 4*4       // up to the raw header's fields' end, without the sample's own format and length
	switchLen     = 4 * 4                 // of the record's data
	countersLen   = 88                    // likewise
	counterSample = 3*4 + 8 + countersLen // without the sample's own format and length
)

// Source is a data source: what samples and counters are of.
type Source uint32

// Interface is an interface as a data source.
func Interface(index uint32) Source { return Source(index & MaxIndex) }

// Entity is a part of the device, such as one of its forwarding engines, as a data
// source (entPhysicalEntry).
func Entity(index uint32) Source { return Source(2<<24 | index&MaxIndex) }

// Output is where a sampled frame went.
type Output uint32

// OutputTo is one interface; 0: it is not known which.
func OutputTo(index uint32) Output { return Output(index & MaxIndex) }

// OutputMany is n interfaces, more than one.
func OutputMany(n int) Output { return Output(2<<30 | uint32(min(n, 1<<30-1))) }

// Discard says why a frame went nowhere.
type Discard uint32

// The reasons of section 5.3 that a switch has.
const (
	DiscardUnknown  Discard = 256
	DiscardLoop     Discard = 257 // TTL exceeded
	DiscardPolicy   Discard = 258 // ACL
	DiscardNoBuffer Discard = 259
	DiscardRate     Discard = 261 // traffic shaping or rate limiting
	DiscardTooBig   Discard = 262
)

// Output is the frame's output.
func (d Discard) Output() Output { return Output(1<<30 | uint32(d)) }

// Flow is one sampled frame.
type Flow struct {
	Source Source
	Rate   uint32 // one in so many is sampled
	Pool   uint32 // frames that could have been sampled up to now
	Drops  uint32 // samples that were lost up to now
	Input  uint32 // interface; 0: not known
	Output Output

	// Header is the frame's beginning, its tag included; what is beyond MaxHeader is
	// left out. FrameLen is the whole frame's length in bytes, without FCS.
	Header   []byte
	FrameLen int

	VLANIn, VLANOut         uint16 // 0: untagged
	PriorityIn, PriorityOut uint8
}

// Unknown is the value of a counter that is not counted.
const Unknown = math.MaxUint32

// Bits of Counters.Status.
const (
	StatusAdminUp = 1 << iota
	StatusUp
)

// Way is what went one way through an interface; counters wrap.
type Way struct {
	Octets                        uint64
	Unicast, Multicast, Broadcast uint32 // frames
	Discards, Errors              uint32
}

// Counters are those of an interface, from its own view: in is what it took.
type Counters struct {
	Index   uint32
	Speed   uint64 // bits a second; 0: not known
	Duplex  uint32 // 0: not known, 1: full, 2: half
	Status  uint32
	In, Out Way
}

// Encoder packs samples into datagrams. What it hands to send is valid during the call.
//
// Thread-safety: none; it belongs to one goroutine.
type Encoder struct {
	agent netip.Addr
	sub   uint32
	send  func(datagram []byte)

	buf      []byte // room for the longest head, then samples
	samples  uint32
	sequence uint32            // of datagrams
	sampled  map[Source]uint32 // sequence numbers of flow samples
	polled   map[Source]uint32 // and of counters
}

// NewEncoder returns an encoder for the agent at an address, of which it is the
// sub-agent sub.
func NewEncoder(agent netip.Addr, sub uint32, send func(datagram []byte)) *Encoder {
	return &Encoder{
		agent: agent, sub: sub, send: send, buf: make([]byte, maxHead, MaxDatagram),
		sampled: map[Source]uint32{}, polled: map[Source]uint32{},
	}
}

// SetAgent changes the agent's address for datagrams that leave from now on.
func (e *Encoder) SetAgent(agent netip.Addr) { e.agent = agent }

// Pending returns how many samples wait for Flush.
func (e *Encoder) Pending() int { return int(e.samples) }

// Flow adds a sampled frame; uptime is for the datagram that leaves when there is no
// room for it any more.
func (e *Encoder) Flow(f *Flow, uptime time.Duration) {
	header := f.Header[:min(len(f.Header), MaxHeader)]
	padding := -len(header) & 3
	length := flowFixed + len(header) + padding + 8 + switchLen
	e.begin(formatFlow, length, uptime)
	e.sampled[f.Source]++
	e.put(
		e.sampled[f.Source], uint32(f.Source), f.Rate, f.Pool, f.Drops, f.Input, uint32(f.Output), 2,
		recordHeader, uint32(4*4+len(header)+padding), protocolEthernet, uint32(f.FrameLen+fcs), fcs, uint32(len(header)),
	)
	e.buf = append(append(e.buf, header...), make([]byte, padding)...)
	e.put(recordSwitch, switchLen, uint32(f.VLANIn), uint32(f.PriorityIn), uint32(f.VLANOut), uint32(f.PriorityOut))
}

// Counters adds a report of an interface's counters.
func (e *Encoder) Counters(c *Counters, uptime time.Duration) {
	e.begin(formatCtrs, counterSample, uptime)
	source := Interface(c.Index)
	e.polled[source]++
	e.put(e.polled[source], uint32(source), 1, recordIface, countersLen, c.Index, ifTypeEthernet)
	e.hyper(c.Speed)
	e.put(c.Duplex, c.Status)
	e.way(&c.In)
	e.put(Unknown) // protocols that nobody here knows: a switch need not
	e.way(&c.Out)
	e.put(Unknown) // promiscuous mode
}

func (e *Encoder) way(w *Way) {
	e.hyper(w.Octets)
	e.put(w.Unicast, w.Multicast, w.Broadcast, w.Discards, w.Errors)
}

// Flush sends what waits.
func (e *Encoder) Flush(uptime time.Duration) {
	if e.samples == 0 {
		return
	}
	e.sequence++
	address, kind := e.agent.AsSlice(), uint32(1)
	if len(address) == 16 {
		kind = 2
	}
	head := e.buf[maxHead-6*4-len(address) : maxHead]
	head = binary.BigEndian.AppendUint32(head[:0], version)
	head = append(binary.BigEndian.AppendUint32(head, kind), address...)
	for _, v := range []uint32{e.sub, e.sequence, uint32(uptime.Milliseconds()), e.samples} {
		head = binary.BigEndian.AppendUint32(head, v)
	}
	e.send(e.buf[maxHead-len(head):])
	e.buf, e.samples = e.buf[:maxHead], 0
}

// begin begins a sample of length bytes, after sending what leaves it no room.
func (e *Encoder) begin(format uint32, length int, uptime time.Duration) {
	if len(e.buf)+8+length > MaxDatagram {
		e.Flush(uptime)
	}
	e.samples++
	e.put(format, uint32(length))
}

func (e *Encoder) put(values ...uint32) {
	for _, v := range values {
		e.buf = binary.BigEndian.AppendUint32(e.buf, v)
	}
}

func (e *Encoder) hyper(v uint64) { e.buf = binary.BigEndian.AppendUint64(e.buf, v) }
