// Package summary says in one line what a frame is, as tcpdump does. It is for the
// eyes of an operator, not for programs: nothing may parse these lines, and nothing on
// the frame path may make them.
//
// Its one idea is that a line is never lost: whatever a frame holds, and wherever it
// was cut, what could be read is said, and where it ends is marked as tcpdump marks
// it, [|tcp]; what makes no sense is [malformed]. That is why headers are read here and
// not by frame.Parse, which refuses such frames: each function first asks whether the
// bytes that it reads are here. gopacket, which knows all of these formats, costs whoever
// links it 6.3 MB of memory for its tables; it is what this package is tested against.
package summary

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"strconv"

	"vswitch/frame"
)

// maxDepth bounds how many frames within frames are told of.
const maxDepth = 3

// maxLine bounds a line, in bytes: a name in a DNS answer can be long, and there can
// be many.
const maxLine = 400

// Of returns the line, without time: what the frame in data is, of which wireLen
// bytes were on the wire.
//
//	02:…:01 > 02:…:02, vlan 10, IPv4 10.0.0.1.5000 > 10.0.0.2.80: tcp S 1:1 win 64240, length 0
func Of(data []byte, wireLen int) string {
	l := line{b: make([]byte, 0, 160)}
	l.frame(data, max(wireLen, len(data)))
	if len(l.b) > maxLine {
		return string(l.b[:maxLine]) + " …"
	}
	return string(l.b)
}

// line is a summary in the making.
type line struct {
	b     []byte
	depth int // frames around the one at hand
}

// rest is the part of a frame that a header announces: the bytes that are here, and
// how many there were on the wire.
type rest struct {
	b    []byte
	wire int
}

// after is what follows the first n bytes, which are here.
func (r rest) after(n int) rest { return rest{r.b[n:], r.wire - n} }

// upTo leaves out what follows the first n bytes on the wire.
func (r rest) upTo(n int) rest {
	if n < r.wire {
		r.wire = n
		r.b = r.b[:min(len(r.b), n)]
	}
	return r
}

func u16(b []byte) uint16 { return binary.BigEndian.Uint16(b) }
func u32(b []byte) uint32 { return binary.BigEndian.Uint32(b) }

func (l *line) str(s string)           { l.b = append(l.b, s...) }
func (l *line) num(n int)              { l.b = strconv.AppendInt(l.b, int64(n), 10) }
func (l *line) add(f string, a ...any) { l.b = fmt.Appendf(l.b, f, a...) }

// mac writes the MAC address at the beginning of b.
func (l *line) mac(b []byte) {
	const digits = "0123456789abcdef"
	for i, c := range b[:6] {
		l.flag(":", i > 0)
		l.b = append(l.b, digits[c>>4], digits[c&15])
	}
}

// maxName bounds a name from a packet, in bytes.
const maxName = 64

// name writes text from a packet, without what could steer a terminal.
func (l *line) name(b []byte) {
	for _, c := range b[:min(len(b), maxName)] {
		if c < 0x20 || c > 0x7e {
			c = '?'
		}
		l.b = append(l.b, c)
	}
}

// addr writes an IP address of 4 or 16 bytes.
func (l *line) addr(b []byte) {
	a, _ := netip.AddrFromSlice(b)
	l.b = a.AppendTo(l.b)
}

// cut marks where the bytes that are here end, as tcpdump does.
func (l *line) cut(what string) { l.add("[|%s]", what) }

// length writes how long the rest was on the wire.
func (l *line) length(r rest) {
	l.str(", length ")
	l.num(max(r.wire, 0))
}

func (l *line) flag(s string, set bool) {
	if set {
		l.str(s)
	}
}

// EtherTypes that package frame has no use for.
const (
	etherTEB      = 0x6558 // transparent Ethernet bridging: a frame within GRE or Geneve
	etherMPLS     = 0x8847
	etherPPPoED   = 0x8863
	etherPPPoES   = 0x8864
	etherEAPOL    = 0x888e
	etherSlow     = 0x8809
	etherLLDP     = 0x88cc
	etherPTP      = 0x88f7
	etherLoopback = 0x9000
)

// frame tells of an Ethernet frame.
//
//	0            6            12          14
//	┌────────────┬────────────┬───────────┬──────────
//	│destination │ source     │ EtherType │ … perhaps tags, each 4 bytes
//	└────────────┴────────────┴───────────┴──────────
func (l *line) frame(data []byte, wireLen int) {
	if len(data) < frame.EthLen {
		l.cut("ether")
		l.length(rest{wire: wireLen})
		return
	}
	l.mac(data[6:])
	l.str(" > ")
	l.mac(data)
	l.str(", ")
	r := rest{data, wireLen}.after(frame.AddrLen)
	for range 4 { // more tags than that nobody sends in earnest
		kind := u16(r.b)
		if kind != frame.TPID8021Q && kind != frame.TPID8021AD {
			break
		}
		if len(r.b) < frame.TagLen+2 {
			l.cut("vlan")
			return
		}
		l.tag(kind, u16(r.b[2:]))
		r = r.after(frame.TagLen)
	}
	kind := u16(r.b)
	r = r.after(2)
	if kind < 1536 { // IEEE 802.3: a length
		l.llc(r.upTo(int(kind)))
		return
	}
	l.payload(kind, r)
}

// tag tells of a VLAN tag.
func (l *line) tag(tpid, tci uint16) {
	l.flag("s-", tpid == frame.TPID8021AD)
	l.str("vlan ")
	l.num(int(tci & 0xfff))
	if p := tci >> 13; p != 0 {
		l.str(" p ")
		l.num(int(p))
	}
	l.flag(" DEI", tci&0x1000 != 0)
	l.str(", ")
}

// payload tells of what an EtherType announces.
func (l *line) payload(kind uint16, r rest) {
	switch kind {
	case frame.EtherIPv4:
		l.ipv4(r)
	case frame.EtherIPv6:
		l.ipv6(r)
	case frame.EtherARP:
		l.arp(r)
	case etherTEB:
		l.inner(r)
	case etherMPLS:
		l.mpls(r)
	case etherPPPoED, etherPPPoES:
		l.str("PPPoE")
		l.length(r)
	case etherEAPOL:
		l.str("EAPOL")
		l.length(r)
	case etherSlow:
		l.slow(r)
	case etherLLDP:
		l.lldp(r)
	case etherPTP:
		l.str("PTP")
		l.length(r)
	case etherLoopback:
		l.str("loopback")
		l.length(r)
	case frame.EtherProbe:
		l.str("probe of a switch (ethertype 0x88b5)")
		l.length(r)
	default:
		l.add("ethertype 0x%04x", kind)
		l.length(r)
	}
}

// inner tells of a frame within this one.
func (l *line) inner(r rest) {
	if l.depth++; l.depth >= maxDepth {
		l.str("a frame")
		l.length(r)
		return
	}
	l.frame(r.b, r.wire)
}
