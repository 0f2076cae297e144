package vswitch_test

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"

	"vswitch/frame"
)

const (
	ovsPorts = 5        // that are configured; the sink comes after them
	sink     = ovsPorts // a trunk of all VLANs
	pcp      = 7 << 13  // bits of a TCI
	dei      = 1 << 12
)

func portName(n int) string {
	if n == sink {
		return "veth-s"
	}
	return fmt.Sprintf("veth-p%d", n)
}

// ovsPort is a port's VLAN configuration as both switches take it; empty is
// unset.
type ovsPort struct {
	mode   string
	tag    int   // -1: unset
	trunks []int // empty: all
}

// settings returns the options that are set, name=value.
func (p ovsPort) settings() (s []string) {
	if p.mode != "" {
		s = append(s, "vlan_mode="+p.mode)
	}
	if p.tag >= 0 {
		s = append(s, "tag="+strconv.Itoa(p.tag))
	}
	if len(p.trunks) > 0 {
		s = append(s, "trunks="+list(p.trunks, strconv.Itoa))
	}
	return s
}

func list[T any](values []T, text func(T) string) string {
	var words []string
	for _, v := range values {
		words = append(words, text(v))
	}
	return strings.Join(words, ",")
}

// member reports whether frames in VLAN vid may come in and leave by the port.
// The cases' makers use it, so that most frames go somewhere; nothing is judged
// by it.
func (p ovsPort) member(vid int) bool {
	switch {
	case p.access():
		return vid == p.tag
	case len(p.trunks) == 0 || vid == p.tag:
		return true
	}
	return slices.Contains(p.trunks, vid)
}

func (p ovsPort) access() bool { return p.tag >= 0 && (p.mode == "" || p.mode == "access") }

// native0 reports whether the port's native VLAN is 0, and trunks do not say so.
func (p ovsPort) native0() bool {
	return !p.access() && p.tag == 0 && len(p.trunks) > 0 && !slices.Contains(p.trunks, 0)
}

// vlan returns a VLAN that the port carries, and the tag that a frame in it comes
// in by: none where it comes untagged.
func (p ovsPort) vlan() (vid int, tags []frame.Tag) {
	switch {
	case p.tag >= 0:
		return p.tag, nil
	case len(p.trunks) == 0 || slices.Contains(p.trunks, 0):
		return 0, nil
	}
	return p.trunks[0], []frame.Tag{{TPID: frame.TPID8021Q, TCI: uint16(p.trunks[0])}}
}

// ovsMirror is one mirror.
type ovsMirror struct {
	all      bool
	src, dst []int
	vlans    []int
	outPort  int // -1: none
	outVLAN  int // -1: none
}

// bySource reports whether the mirror selects frames only as they come in. Of two
// mirrors both must: Open vSwitch has one mirror copy another's copies, as they
// leave; ours copies frames, not copies.
func (m ovsMirror) bySource() bool { return len(m.src) > 0 && len(m.dst) == 0 }

// staticEntry is a MAC that does not move.
type staticEntry struct {
	vlan, port int
	mac        [6]byte
}

// ovsConfig is one configuration of both switches.
type ovsConfig struct {
	ports       [ovsPorts]ovsPort
	forwardBPDU bool
	statics     []staticEntry
	mirrors     []ovsMirror
}

func (c *ovsConfig) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "forward-bpdu=%v\n", c.forwardBPDU)
	for i, p := range c.ports {
		fmt.Fprintf(&b, "%s %s\n", portName(i), strings.Join(p.settings(), " "))
	}
	for _, s := range c.statics {
		fmt.Fprintf(&b, "static VLAN %d %x on %s\n", s.vlan, s.mac, portName(s.port))
	}
	for _, m := range c.mirrors {
		fmt.Fprintf(&b, "mirror %+v\n", m)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// reserved reports whether port is a mirror's output, which takes nothing in.
func (c *ovsConfig) reserved(port int) bool {
	return slices.ContainsFunc(c.mirrors, func(m ovsMirror) bool { return m.outPort == port })
}

// Few of each, so that cases meet.
var (
	ovsVLANs = []int{1, 10, 20, 30, 4094}
	ovsHosts = [][6]byte{{2, 0, 0, 0, 0, 1}, {2, 0, 0, 0, 0, 2}, {2, 0, 0, 0, 0, 3}, {2, 0, 0, 0, 0, 4}}
	zero     = [6]byte{}
	static   = [6]byte{2, 0, 0, 0, 0, 0x5a}
	// stranger sends what Open vSwitch drops and we do not, so it is learned by one
	// of the two only; nobody answers it.
	stranger       = [6]byte{2, 0, 0, 0, 0, 0x99}
	vendorReserved = [][6]byte{
		{0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcc}, // Cisco CDP, VTP
		{0x01, 0x00, 0x0c, 0xcc, 0xcc, 0xcd}, // Cisco PVST+
		{0x00, 0xe0, 0x2b, 0x00, 0x00, 0x00}, // Extreme EDP
	}
)

func pick[T any](r *rand.Rand, from []T) T { return from[r.IntN(len(from))] }

// subset returns at least one of from.
func subset[T any](r *rand.Rand, from []T) (some []T) {
	for _, v := range from {
		if r.IntN(2) == 0 {
			some = append(some, v)
		}
	}
	if len(some) == 0 {
		some = append(some, pick(r, from))
	}
	return some
}

func randomConfig(r *rand.Rand, mirror bool) *ovsConfig {
	c := &ovsConfig{forwardBPDU: r.IntN(4) == 0}
	for i := range c.ports {
		p := ovsPort{mode: pick(r, []string{"", "", "access", "trunk", "native-tagged", "native-untagged"}), tag: -1}
		if p.mode != "trunk" && (p.mode != "" || r.IntN(2) == 0) {
			p.tag = pick(r, append([]int{0}, ovsVLANs...))
		}
		if !p.access() && r.IntN(3) > 0 {
			p.trunks = subset(r, append([]int{0}, ovsVLANs...))
		}
		if mirror && p.native0() { // with copies in any VLAN, that difference would be hard to tell
			p.trunks = nil
		}
		c.ports[i] = p
	}
	if r.IntN(3) == 0 {
		port := r.IntN(ovsPorts)
		vid, _ := c.ports[port].vlan()
		c.statics = append(c.statics, staticEntry{vid, port, static})
	}
	if mirror {
		c.mirrors = append(c.mirrors, randomMirror(r))
		if m := randomMirror(r); c.mirrors[0].bySource() && m.bySource() {
			c.mirrors = append(c.mirrors, m)
		}
		c.statics = slices.DeleteFunc(c.statics, func(s staticEntry) bool { return c.reserved(s.port) })
	}
	return c
}

func randomMirror(r *rand.Rand) ovsMirror {
	m := ovsMirror{outPort: -1, outVLAN: -1}
	names := []int{0, 1, 2, 3, 4}
	if r.IntN(2) == 0 {
		m.outPort = r.IntN(ovsPorts)
		names = slices.Delete(names, m.outPort, m.outPort+1)
	} else {
		m.outVLAN = pick(r, []int{30, 77})
	}
	switch r.IntN(5) {
	case 0:
		m.all = true
	case 1, 4:
		m.src = subset(r, names)
	case 2:
		m.dst = subset(r, names)
	case 3:
		m.src, m.dst = subset(r, names), subset(r, names)
	}
	if r.IntN(3) == 0 {
		m.vlans = subset(r, append([]int{0}, ovsVLANs...))
	}
	return m
}

// ovsFrame is a frame to send.
type ovsFrame struct {
	dst, src [6]byte
	tags     []frame.Tag // outermost first
	fill     int         // bytes of payload behind the number
}

// ovsCase is one frame that went into both switches.
type ovsCase struct {
	id     uint32
	config *ovsConfig
	in     int
	frame  ovsFrame
}

// station is a MAC address that sent a frame in a VLAN.
type station struct {
	mac [6]byte
	vid int
}

// vid returns the VLAN of a frame that the port takes in.
func (p ovsPort) vid(tags []frame.Tag) int {
	if len(tags) > 0 && tags[0].VID() != 0 {
		return int(tags[0].VID())
	}
	return max(p.tag, 0)
}

// randomFrame makes a frame and says by which port it goes in. Half are answers
// to a station that was heard, in its VLAN.
func randomFrame(r *rand.Rand, c *ovsConfig, heard []station) (in int, f ovsFrame) {
	in = r.IntN(ovsPorts)
	f = anyFrame(r, c, in)
	if len(heard) == 0 || r.IntN(2) == 0 {
		return in, f
	}
	to := pick(r, heard)
	for range 10 {
		if in = r.IntN(ovsPorts); c.ports[in].member(to.vid) {
			break
		}
	}
	f.dst = to.mac
	switch p := c.ports[in]; {
	case p.access() || max(p.tag, 0) == to.vid && r.IntN(2) == 0:
		if f.tags = f.tags[:0]; r.IntN(4) == 0 {
			f.tags = append(f.tags, frame.Tag{TPID: frame.TPID8021Q, TCI: uint16(r.IntN(8)) << 13})
		}
	case len(f.tags) == 0:
		f.tags = append(f.tags, frame.Tag{TPID: frame.TPID8021Q, TCI: uint16(to.vid)})
	default:
		f.tags[0].TCI = f.tags[0].TCI&^0xfff | uint16(to.vid)
	}
	return in, f
}

func anyFrame(r *rand.Rand, c *ovsConfig, in int) ovsFrame {
	f := ovsFrame{src: pick(r, ovsHosts), fill: 10 + r.IntN(60)}
	switch n := r.IntN(100); {
	case n < 50:
		f.dst = pick(r, ovsHosts)
	case n < 57:
		f.dst = static
	case n < 67:
		f.dst = [6]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	case n < 77:
		f.dst = pick(r, [][6]byte{{0x01, 0x00, 0x5e, 0, 0, 0xfb}, {0x33, 0x33, 0, 0, 0, 1}, {3, 0, 0, 0, 0, 1}})
	case n < 87:
		f.dst = [6]byte{0x01, 0x80, 0xc2, 0, 0, byte(r.IntN(16))}
	case n < 90: // of the same block, and not reserved
		f.dst = [6]byte{0x01, 0x80, 0xc2, 0, 0, pick(r, []byte{0x10, 0x20, 0x2f, 0xff})}
	case n < 94 && len(c.mirrors) == 0:
		f.dst, f.src = pick(r, vendorReserved), stranger
	default:
		f.dst = [6]byte{2, 0xbb, 0, 0, 0, byte(r.IntN(256))}
	}
	switch n := r.IntN(20); {
	case f.src == stranger:
	case n == 0:
		f.src = zero
	case n == 1:
		f.src[0] |= 1 // is never learned, but forwarded
	case n == 2:
		f.src = static // does not move
	}

	tpid := uint16(frame.TPID8021Q)
	if r.IntN(4) == 0 {
		tpid = frame.TPID8021AD
	}
	tci := uint16(r.IntN(8)) << 13
	if r.IntN(6) == 0 {
		tci |= dei
	}
	carried := slices.DeleteFunc(slices.Clone(ovsVLANs), func(vid int) bool { return !c.ports[in].member(vid) })
	switch n := r.IntN(20); {
	case n < 6:
		return f
	case n < 9: // priority
	case n < 10: // reserved, but no port is told to know that
		tci |= 4095
	case n < 17 && len(carried) > 0 && !c.ports[in].access():
		tci |= uint16(pick(r, carried))
	default:
		tci |= uint16(pick(r, ovsVLANs))
	}
	f.tags = []frame.Tag{{TPID: tpid, TCI: tci}}
	if r.IntN(5) == 0 {
		inner := frame.Tag{TPID: frame.TPID8021Q, TCI: uint16(r.Uint32())}
		if r.IntN(4) == 0 {
			inner.TPID = frame.TPID8021AD
		}
		f.tags = append(f.tags, inner)
	}
	return f
}

func (f ovsFrame) String() string {
	return fmt.Sprintf("%x to %x, tags %x", f.src, f.dst, f.tags)
}

// What a frame's number stands behind: an EtherType for experiments (IEEE 802,
// 88b5 and 88b6) and two letters.
var (
	caseMagic = []byte{0x88, 0xb5, 'o', 'k'}
	markMagic = []byte{0x88, 0xb6, 'o', 'k'}
)

// bytes returns the frame with its number in it.
func (f ovsFrame) bytes(id uint32) []byte { return f.build(caseMagic, id) }

func (f ovsFrame) build(magic []byte, id uint32) []byte {
	b := slices.Concat(f.dst[:], f.src[:])
	for _, t := range f.tags {
		b = binary.BigEndian.AppendUint16(b, t.TPID)
		b = binary.BigEndian.AppendUint16(b, t.TCI)
	}
	b = binary.BigEndian.AppendUint32(append(b, magic...), id)
	for i := range f.fill {
		b = append(b, byte(i))
	}
	return b
}

// number finds the number behind magic.
func number(b, magic []byte) (id uint32, ok bool) {
	i := bytes.Index(b, magic)
	if i < 0 || len(b) < i+len(magic)+4 {
		return 0, false
	}
	return binary.BigEndian.Uint32(b[i+len(magic):]), true
}

// ovsOutput is a frame that came out by a port.
type ovsOutput struct {
	port  int
	frame []byte
}

// sorted returns the outputs in an order that does not depend on the priority and
// type of their outer tags; copies that leave by one port may come in any order.
func sorted(outputs []ovsOutput) []ovsOutput {
	outputs = slices.Clone(outputs)
	slices.SortFunc(outputs, func(x, y ovsOutput) int {
		return cmp.Or(
			cmp.Compare(x.port, y.port),
			bytes.Compare(x.plain().frame, y.plain().frame),
			bytes.Compare(x.frame, y.frame))
	})
	return outputs
}

func sameOutputs(a, b []ovsOutput) bool {
	return slices.EqualFunc(sorted(a), sorted(b), func(x, y ovsOutput) bool {
		return x.port == y.port && bytes.Equal(x.frame, y.frame)
	})
}

// outerTag reads the tag that stands behind the addresses.
func outerTag(b []byte) (t frame.Tag, ok bool) {
	t = frame.Tag{TPID: binary.BigEndian.Uint16(b[12:]), TCI: binary.BigEndian.Uint16(b[14:])}
	return t, t.TPID == frame.TPID8021Q || t.TPID == frame.TPID8021AD
}

// without returns o with bits of the outer tag's TCI cleared.
func (o ovsOutput) without(bits uint16) ovsOutput {
	if t, ok := outerTag(o.frame); ok {
		o.frame = slices.Clone(o.frame)
		binary.BigEndian.PutUint16(o.frame[14:], t.TCI&^bits)
	}
	return o
}

// plain returns o with an outer tag of type 0x8100 and no priority, where there is
// one, and without it in VLAN 0.
func (o ovsOutput) plain() ovsOutput {
	t, ok := outerTag(o.frame)
	switch {
	case ok && t.VID() == 0:
		o.frame = slices.Concat(o.frame[:12], o.frame[16:])
	case ok:
		o = o.without(pcp | dei)
		binary.BigEndian.PutUint16(o.frame[12:], frame.TPID8021Q)
	}
	return o
}

// kept reports whether o has as many tags as the frame came in with, and the outer
// one its type, priority and DEI.
func (c *ovsCase) kept(o ovsOutput) bool {
	t, ok := outerTag(o.frame)
	return ok && len(c.frame.tags) > 0 && len(o.frame) == len(c.frame.bytes(c.id)) &&
		t.TPID == c.frame.tags[0].TPID && t.TCI&(pcp|dei) == c.frame.tags[0].TCI&(pcp|dei)
}
