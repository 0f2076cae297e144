package capture

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode/utf8"
)

// Direction says which way a packet passed its interface, from the switch's side.
type Direction uint8

// Directions, as epb_flags numbers them.
const (
	Unknown  Direction = 0
	Inbound  Direction = 1 // received by the switch
	Outbound Direction = 2 // sent by the switch
)

// Interface names where a packet was seen. Interfaces are equal when both fields
// are; one that was not seen before is described in the file by itself.
type Interface struct {
	Name        string // such as veth-web
	Description string // such as: port of bridge br0, tag 10; may be empty
}

// Packet is one captured frame.
type Packet struct {
	Time      time.Time
	Interface Interface
	Direction Direction
	Data      []byte // from the destination address; not kept after the call
	OrigLen   int    // length of the frame before it was cut; 0: len(Data)
	Comment   string // such as a drop reason; may be empty
	Dropped   uint64 // packets lost on this interface since its last one here
}

// Options describe a capture.
type Options struct {
	SnapLen     int    // packets are cut to so many bytes; 0: not at all
	Hardware    string // shb_hardware
	OS          string // shb_os
	Application string // shb_userappl, such as: vswitchd 1.2
	Comment     string // of the section
}

// Block types and option codes of the draft.
const (
	blockSHB = 0x0a0d0d0a
	blockIDB = 1
	blockISB = 5
	blockEPB = 6

	byteOrderMagic = 0x1a2b3c4d

	optEnd         = 0
	optComment     = 1
	shbHardware    = 2
	shbOS          = 3
	shbApplication = 4
	ifName         = 2
	ifDescription  = 3
	ifTSResol      = 9
	epbFlags       = 2
	epbDropCount   = 4
	isbStartTime   = 2
	isbEndTime     = 3
	isbIfRecv      = 4
	isbIfDrop      = 5
	isbUsrDeliv    = 8

	linkEthernet = 1 // LINKTYPE_ETHERNET

	tsNanoseconds = 9 // if_tsresol: units of 10^-9 s

	// minBlock is type, length and length again.
	minBlock = 12
	// maxText bounds one option; its length field has 16 bits. Readers stop
	// well before that.
	maxText = 16 << 10
	// maxData bounds one packet: Wireshark refuses more (WTAP_MAX_PACKET_SIZE_STANDARD).
	maxData = 262144
	// bufferSize is how much is gathered before a write.
	bufferSize = 128 << 10
)

// Writer writes one section in pcapng format. It gathers blocks in memory; each
// Write call that it makes carries whole blocks. After an error of the underlying
// writer all its methods return that error. Steady state allocates nothing.
// Thread-safety: for one goroutine.
type Writer struct {
	w    io.Writer
	snap int
	buf  []byte
	err  error

	index      map[Interface]int
	interfaces []interfaceState
	last       int // index of the last packet's interface, for runs of packets
}

// interfaceState is what the statistics block wants to know.
type interfaceState struct {
	Interface
	first, last time.Time
	written     uint64
	dropped     uint64
}

// NewWriter begins a section. Nothing is written to w before Flush, or before
// enough has been gathered.
func NewWriter(w io.Writer, o Options) *Writer {
	snap := o.SnapLen
	if snap <= 0 || snap > maxData {
		snap = maxData
	}
	cw := &Writer{w: w, snap: snap, buf: make([]byte, 0, bufferSize+bufferSize/2), index: make(map[Interface]int)}
	start := cw.begin(blockSHB)
	cw.u32(byteOrderMagic)
	cw.u16(1) // version 1.0
	cw.u16(0)
	cw.u64(^uint64(0)) // section length: not stated
	cw.text(optComment, o.Comment)
	cw.text(shbHardware, o.Hardware)
	cw.text(shbOS, o.OS)
	cw.text(shbApplication, o.Application)
	cw.end(start)
	return cw
}

// Write adds one packet.
func (w *Writer) Write(p *Packet) error {
	if w.err != nil {
		return w.err
	}
	id := w.interfaceID(p.Interface)
	s := &w.interfaces[id]
	if s.written == 0 {
		s.first = p.Time
	}
	s.last = p.Time
	s.written++
	s.dropped += p.Dropped

	data := p.Data
	length := max(p.OrigLen, len(data))
	if len(data) > w.snap {
		data = data[:w.snap]
	}

	start := w.begin(blockEPB)
	w.u32(uint32(id))
	w.timestamp(p.Time)
	w.u32(uint32(len(data)))
	w.u32(uint32(length))
	w.buf = append(w.buf, data...)
	w.pad()
	options := p.Direction != Unknown || p.Dropped > 0 || p.Comment != ""
	if p.Direction != Unknown {
		w.option(epbFlags, 4)
		w.u32(uint32(p.Direction & 3))
	}
	if p.Dropped > 0 {
		w.option(epbDropCount, 8)
		w.u64(p.Dropped)
	}
	w.text(optComment, p.Comment)
	if options {
		w.option(optEnd, 0)
	}
	w.closeBlock(start)
	if len(w.buf) >= bufferSize {
		return w.Flush()
	}
	return nil
}

// Flush writes what was gathered.
func (w *Writer) Flush() error {
	if w.err != nil || len(w.buf) == 0 {
		return w.err
	}
	n, err := w.w.Write(w.buf)
	if err == nil && n < len(w.buf) {
		err = io.ErrShortWrite
	}
	if err != nil {
		w.err = fmt.Errorf("write capture: %w", err)
		return w.err
	}
	w.buf = w.buf[:0]
	return nil
}

// Buffered returns how many bytes were gathered and not yet written.
func (w *Writer) Buffered() int { return len(w.buf) }

// Close ends the section with each interface's statistics, and flushes. It does
// not close the underlying writer.
func (w *Writer) Close() error {
	if w.err != nil {
		return w.err
	}
	for id := range w.interfaces {
		s := &w.interfaces[id]
		start := w.begin(blockISB)
		w.u32(uint32(id))
		w.timestamp(s.last)
		w.option(isbStartTime, 8)
		w.timestamp(s.first)
		w.option(isbEndTime, 8)
		w.timestamp(s.last)
		w.option(isbIfRecv, 8)
		w.u64(s.written + s.dropped)
		w.option(isbIfDrop, 8)
		w.u64(s.dropped)
		w.option(isbUsrDeliv, 8)
		w.u64(s.written)
		w.end(start)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	w.err = errClosed
	return nil
}

var errClosed = errors.New("write capture: closed")

// interfaceID returns an interface's number in the section, and describes it in
// the file when it is new.
func (w *Writer) interfaceID(i Interface) int {
	if w.last < len(w.interfaces) && w.interfaces[w.last].Interface == i {
		return w.last
	}
	id, ok := w.index[i]
	if !ok {
		id = len(w.interfaces)
		i = Interface{strings.Clone(i.Name), strings.Clone(i.Description)}
		w.index[i] = id
		w.interfaces = append(w.interfaces, interfaceState{Interface: i})
		start := w.begin(blockIDB)
		w.u16(linkEthernet)
		w.u16(0)
		w.u32(uint32(w.snap))
		w.text(ifName, i.Name)
		w.text(ifDescription, i.Description)
		w.option(ifTSResol, 1)
		w.buf = append(w.buf, tsNanoseconds)
		w.pad()
		w.end(start)
	}
	w.last = id
	return id
}

// begin opens a block and returns where it starts.
func (w *Writer) begin(kind uint32) int {
	start := len(w.buf)
	w.u32(kind)
	w.u32(0) // closeBlock knows
	return start
}

// end ends the block's options, and the block.
func (w *Writer) end(start int) {
	w.option(optEnd, 0)
	w.closeBlock(start)
}

// closeBlock writes the block's length at both ends. All blocks start and end at
// a multiple of 4.
func (w *Writer) closeBlock(start int) {
	length := uint32(len(w.buf) - start + 4)
	binary.LittleEndian.PutUint32(w.buf[start+4:], length)
	w.u32(length)
}

func (w *Writer) option(code, length uint16) {
	w.u16(code)
	w.u16(length)
}

// text writes a UTF-8 option, not at all when empty.
func (w *Writer) text(code uint16, s string) {
	if s == "" {
		return
	}
	if !utf8.ValidString(s) {
		s = strings.ToValidUTF8(s, "\uFFFD")
	}
	if n := maxText; len(s) > n {
		for !utf8.RuneStart(s[n]) {
			n--
		}
		s = s[:n]
	}
	w.option(code, uint16(len(s)))
	w.buf = append(w.buf, s...)
	w.pad()
}

// timestamp writes nanoseconds since 1970 in two words, the higher first.
func (w *Writer) timestamp(t time.Time) {
	var ns uint64
	if n := t.UnixNano(); !t.IsZero() && n > 0 {
		ns = uint64(n)
	}
	w.u32(uint32(ns >> 32))
	w.u32(uint32(ns))
}

func (w *Writer) u16(v uint16) { w.buf = binary.LittleEndian.AppendUint16(w.buf, v) }
func (w *Writer) u32(v uint32) { w.buf = binary.LittleEndian.AppendUint32(w.buf, v) }
func (w *Writer) u64(v uint64) { w.buf = binary.LittleEndian.AppendUint64(w.buf, v) }

// pad fills up to a multiple of 4. The buffer begins with a block, so its length
// is the position in the block, modulo 4.
func (w *Writer) pad() {
	for len(w.buf)%4 != 0 {
		w.buf = append(w.buf, 0)
	}
}
