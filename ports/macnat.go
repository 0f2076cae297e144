package ports

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// macNAT makes everybody behind a packet device look, on the LAN, like the NIC itself: for
// LANs that allow one MAC address a port (Wi-Fi, cloud NICs, port security).
//
//	out   source MAC, ARP's sender, ND's link-layer options ─▶ the NIC's
//	      (VLANs, IP address) ─▶ inner MAC is learned
//	in    to the NIC's MAC: ─▶ the inner MAC of (VLANs, destination IP address)
//
// Groups pass as they are: a request for an inner address reaches its container, and the
// answer leaves rewritten. DHCP servers are asked to broadcast their answers (RFC 2131,
// section 4.1), since what they would send to chaddr never gets here. DHCPv6 needs nothing:
// it answers to the client's link-local address, which is in the table, and knows
// clients by DUID.
//
// What leaves is described by scatter-gather, as a tag is: the addresses are written into
// the worker's vectors, and of ARP, ND and DHCP the headers into scratch memory, so the
// bytes that other outputs share do not change. Super-frames and unfinished checksums stay so.
//
// Protocols other than IP and ARP leave with the NIC's address, and their answers stay for
// the NIC: nothing in them says for whom they are.
//
// Thread-safety: as Packet's; what is set may be set at any time.
type macNAT struct {
	mac     atomic.Uint64
	gates   atomic.Pointer[[]natGate]
	table   *natTable
	scratch [maxSenders]atomic.Pointer[natScratch] // by worker

	refused, unknown, other, reflected atomic.Uint64

	soughtMu sync.Mutex // guards sought; a worker that would wait lets it be
	sought   [natSought]Sought
	nSought  int
}

// Sought is an inner address that somebody on the LAN sent to and that nobody is known to
// have: as after a start, of a container that says nothing by itself.
type Sought struct {
	VLAN     uint16 // 0: untagged
	Src, Dst netip.Addr
	MAC      [6]byte // the sender's
}

// natGate is where what is for nobody's address goes in a VLAN: to the host, which may route it.
type natGate struct {
	vlans uint32 // as natKey's
	mac   uint64
}

// Bounds of macNAT.
const (
	maxSenders = 256  // workers
	natSlots   = 8    // ARP, ND and DHCP frames in one system call
	natSlotLen = 2048 // bytes of each that may be rewritten
	natSought  = 16   // addresses sought between two looks at Sought
)

// natScratch is where one worker's rewritten headers are while they are sent.
type natScratch struct {
	slots [natSlots][natSlotLen]byte
}

// MACNATStats is what macnat did on a device, since it was opened.
type MACNATStats struct {
	Addresses int    // known now
	Bound     int    // addresses that may be known
	Evicted   uint64 // to make room
	Moved     uint64 // to another MAC, which claimed them
	Refused   uint64 // frames from a MAC other than the host's with an address of the host
	Unknown   uint64 // frames to the NIC's MAC for an address that nobody has
	Other     uint64 // frames to the NIC's MAC that are neither IP nor ARP
	Reflected uint64 // frames that came back from the LAN, and were dropped
}

func newMACNAT(mac net.HardwareAddr) *macNAT {
	m := &macNAT{table: newNATTable(natAddresses)}
	m.setMAC(mac)
	return m
}

func (m *macNAT) setMAC(mac net.HardwareAddr) {
	if len(mac) == 6 {
		m.mac.Store(mac48(mac))
	}
}

// MACNAT returns what macnat did; ok is false when the device was opened without.
func (p *Packet) MACNAT() (s MACNATStats, ok bool) {
	m := p.nat
	if m == nil {
		return s, false
	}
	return MACNATStats{
		Addresses: m.table.len(), Bound: natAddresses, Evicted: m.table.evicted.Load(), Moved: m.table.moved.Load(), Refused: m.refused.Load(),
		Unknown: m.unknown.Load(), Other: m.other.Load(), Reflected: m.reflected.Load(),
	}, true
}

// HostAddress is an address of the host's own, which no container can take.
type HostAddress struct {
	Addr netip.Addr
	HostEnd
}

// HostEnd is an interface of the host's behind a device with macnat.
type HostEnd struct {
	VLAN uint16 // on the LAN; 0: untagged
	MAC  net.HardwareAddr
}

// Sought returns the addresses that were sought since it was called last, of at most 16
// packets: whoever has one can be asked to say so.
func (p *Packet) Sought() (all []Sought) {
	m := p.nat
	if m == nil {
		return nil
	}
	m.soughtMu.Lock()
	defer m.soughtMu.Unlock()
	all = append(all, m.sought[:m.nSought]...)
	m.nSought = 0
	return all
}

// seek notes that a packet's address is sought.
func (m *macNAT) seek(h *natHeaders, b []byte) {
	if !h.ip || !h.dst.station() || !h.src.station() || h.dst.vlans&0xffff != 0 {
		return
	}
	// A question in the name of an inner address would tell all that its sender has it.
	if i, _ := m.table.find(h.src); i != none || !m.soughtMu.TryLock() {
		return
	}
	defer m.soughtMu.Unlock()
	s := Sought{VLAN: uint16(h.dst.vlans >> 16), Src: h.src.addr(), Dst: h.dst.addr(), MAC: [6]byte(b[6:])}
	for i := range m.nSought {
		if m.sought[i].Dst == s.Dst && m.sought[i].VLAN == s.VLAN {
			return
		}
	}
	if m.nSought < len(m.sought) {
		m.sought[m.nSought] = s
		m.nSought++
	}
}

// SetMACNAT tells a device with macnat the NIC's MAC address, which addresses are the host's (of
// more than 256 the rest is as anybody's), and by which interface, the first of a VLAN, the host
// gets what comes for an address that nobody has.
func (p *Packet) SetMACNAT(mac net.HardwareAddr, host []HostAddress, ends []HostEnd) {
	m := p.nat
	if m == nil {
		return
	}
	m.setMAC(mac)
	var keys []natKey
	var macs []uint64
	for _, a := range host {
		if len(a.MAC) != 6 {
			continue
		}
		b := a.Addr.As16()
		keys, macs = append(keys, key6(b[:], uint32(a.VLAN)<<16)), append(macs, mac48(a.MAC))
	}
	m.table.setHost(keys, macs)
	var gates []natGate
	for _, e := range ends {
		if len(e.MAC) == 6 {
			gates = append(gates, natGate{uint32(e.VLAN) << 16, mac48(e.MAC)})
		}
	}
	m.gates.Store(&gates)
}

// gate leads a frame for nobody's address to the host, where the host is in its VLAN.
func (m *macNAT) gate(b []byte, vlans uint32) {
	gates := m.gates.Load()
	if gates == nil {
		return
	}
	for i := range *gates {
		if g := &(*gates)[i]; g.vlans == vlans {
			put48(b, g.mac)
			return
		}
	}
}

// send is Packet.Send.
func (m *macNAT) send(fd, worker int, v *frame.Vectors, out []frame.Out) (sent int, errno unix.Errno) {
	for sent < len(out) {
		n := m.gather(worker, v, out[sent:])
		if n == 0 {
			return sent, unix.EINVAL // what must be rewritten does not fit
		}
		k, errno := v.Sendmmsg(fd, n)
		if sent += k; errno != 0 {
			return sent, errno
		}
	}
	return sent, 0
}

// gather is Vectors.Gather for rewritten frames. It returns how many it described: not all when
// scratch memory ran out, or when the next one cannot be rewritten.
func (m *macNAT) gather(worker int, v *frame.Vectors, out []frame.Out) int {
	nic := m.mac.Load()
	slot := 0
	for i := range out {
		o := &out[i]
		b := o.F.Bytes()
		src := mac48(b[6:])
		h := natRead(o.Tag, b)
		m.learn(&h, b, src, nic, o.F.Port)
		if h.ndType == ndRedirect && h.l4+ndTarget+16 <= h.end {
			i, _ := m.table.find(key6(b[h.l4+ndTarget:], h.src.vlans))
			h.inner = i != none
		}
		buf, upTo := v.Head[i][:], frame.AddrLen
		if h.kind != natPlain {
			if slot == natSlots || frame.VnetLen+frame.TagLen+h.upTo > natSlotLen {
				return i
			}
			s := m.scratch[worker%maxSenders].Load()
			if s == nil {
				s = new(natScratch)
				m.scratch[worker%maxSenders].Store(s)
			}
			buf, upTo = s.slots[slot][:], h.upTo
			slot++
		}
		shift := 0
		if o.Tag.Present() {
			shift = frame.TagLen
		}
		o.F.Offload.PutVnet(buf, uint16(shift))
		w := buf[frame.VnetLen+shift : frame.VnetLen+shift+upTo]
		copy(w, b)
		if src != nic || h.kind == natARP || h.kind == natND { // whose frame says it is the NIC's may not say more
			h.rewrite(w, &o.F.Offload, src, nic)
		}
		if shift > 0 {
			o.Tag.Insert(buf[frame.VnetLen : frame.VnetLen+shift+upTo])
		}
		msg, iov := &v.Msgs[i].Hdr, &v.Iovs[i]
		msg.Iov = &iov[0]
		iov[0].Base = &buf[0]
		iov[0].SetLen(frame.VnetLen + shift + upTo)
		msg.SetIovlen(1)
		if upTo < len(b) {
			iov[1].Base = &b[upTo]
			iov[1].SetLen(len(b) - upTo)
			msg.SetIovlen(2)
		}
	}
	return len(out)
}

// learn notes what a frame that leaves says of inner addresses. ARP and ND move an address
// to another MAC, as they do in any neighbour's table. What IP packets come from says only
// who is new: a container that routes sends others' packets, too.
func (m *macNAT) learn(h *natHeaders, b []byte, src, nic uint64, port uint32) {
	ok := true
	if h.ip && src == nic {
		m.table.yield(h.src) // the host speaks, or routes, for it
	} else if h.ip {
		ok = m.note(h.src, src, nic, port, false)
	}
	if k, mac, claim, told := h.told(b); told {
		ok = m.note(k, mac, nic, port, claim) && ok
	}
	if !ok {
		m.refused.Add(1)
	}
}

func (m *macNAT) note(k natKey, mac, nic uint64, port uint32, claim bool) bool {
	if mac == nic || mac == 0 || mac&group48 != 0 || !k.station() {
		return true
	}
	return m.table.learn(k, mac, port, claim)
}

// receive restores the inner MACs of frames that came in.
func (m *macNAT) receive(frames []*frame.Frame) {
	nic := m.mac.Load()
	for _, f := range frames {
		if f.Len() >= frame.EthLen {
			m.restore(f, nic)
		}
	}
}

func (m *macNAT) restore(f *frame.Frame, nic uint64) {
	b := f.Bytes()
	if mac48(b[6:]) == nic {
		// An access point sends its stations' broadcasts to all, the sender
		// included: containers would take each other for the NIC.
		f.Fault = frame.FaultReflected
		m.reflected.Add(1)
		return
	}
	if mac48(b) != nic {
		return
	}
	f.Own = m.lead(f, b, nic)
}

// lead finds out for whom a frame is that came for the NIC's MAC address, and reports that it is
// nobody's that is known: then it may be the host's.
func (m *macNAT) lead(f *frame.Frame, b []byte, nic uint64) (own bool) {
	h := natRead(f.Tag, b)
	if !h.ip && h.kind != natARP {
		if !h.known {
			m.other.Add(1)
		}
		return true
	}
	if mac, ok := h.bootReply(b); ok {
		put48(b, mac) // its address may be another's still
		return mac == nic
	}
	to := h.dst
	if h.kind == natARP && uint32(to.lo) == 0 {
		to = h.src.probe()
	}
	i, mac := m.table.find(to)
	if i == none {
		// Some access points send a group's frames to each station's own address.
		if group, ok := h.dst.group(); ok && h.ip {
			put48(b, group)
			return false
		}
		// A neighbour that knows the address, as when the switch was started anew, asks whether
		// it is right: all are asked, and the answer is learned.
		switch {
		case h.kind == natARP && (b[h.l3+arpOp] == 0 && b[h.l3+arpOp+1] == arpRequest || uint32(h.dst.lo) == 0):
			put48(b, 1<<48-1)
			return false
		case h.kind == natND && h.ndType == ndSolicit:
			put48(b, 0x3333ff<<24|h.dst.lo&0xffffff)
			return false
		}
		m.unknown.Add(1)
		m.seek(&h, b)
		if h.ip {
			m.gate(b, h.dst.vlans)
		}
		return true
	}
	m.table.use(i)
	mac &^= natStatic
	put48(b, mac)
	if h.kind == natARP && mac48(b[h.l3+arpTargetMAC:]) == nic {
		put48(b[h.l3+arpTargetMAC:], mac)
	}
	return false
}
