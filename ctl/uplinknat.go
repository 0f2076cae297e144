package ctl

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"time"

	"vswitch/ctl/config"
	"vswitch/frame"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// natMAC is the address as which everybody behind a port with macnat appears; nil: without.
func natMAC(o config.Options, l ports.Link) net.HardwareAddr {
	if o["macnat"] != "true" {
		return nil
	}
	return l.MAC
}

// natNotes says what macnat did on a device, for show.
func natNotes(d *ports.Packet) []string {
	s, ok := d.MACNAT()
	if !ok {
		return nil
	}
	notes := []string{fmt.Sprintf("macnat: %d of %d inner addresses known", s.Addresses, s.Bound)}
	for _, x := range []struct {
		n    uint64
		text string
	}{
		{s.Moved, "macnat: %d times another container claimed an address"},
		{s.Refused, "macnat: %d frames in which a container used an address of the host"},
		{s.Evicted, "macnat: %d addresses were forgotten because too many were known"},
		{s.Unknown, "macnat: %d frames came for an address that nobody behind it has"},
		{s.Other, "macnat: %d frames came that are neither IP nor ARP, and stayed for the interface's own MAC"},
		{s.Reflected, "macnat: %d frames came back from the LAN, and were dropped"},
	} {
		if x.n > 0 {
			notes = append(notes, fmt.Sprintf(x.text, x.n))
		}
	}
	return notes
}

// soughtAgain is how often an address is asked for that nobody answers for.
const soughtAgain = 10 * time.Second

// maxSought bounds how many addresses of a port are remembered as asked for.
const maxSought = 1024

// seekLocked asks the containers behind a port with macnat for addresses that the LAN sends to
// and that nobody is known to have, as the LAN's own sender would: the answer goes to it, and
// is learned on its way. Else a container that only listens would not be reached after a start
// of the daemon until its neighbours doubt what they know, up to a minute later.
func (r *reconciler) seekLocked(p, local *portState, x *uplinkPort, now time.Time) {
	d, ok := p.device.(*ports.Packet)
	if !ok {
		return
	}
	sought := d.Sought()
	if len(sought) == 0 {
		return
	}
	links, err := addressesOn(local.link.Index)
	if err != nil {
		r.log.Debug("macnat does not know which addresses are the LAN's", "port", p.port.Name, "err", err)
	}
	var frames []vswitch.Injected
	for _, s := range sought {
		if !onLink(links, s.Dst) {
			continue // what the LAN routes by this host is no container's to claim
		}
		k := soughtKey{s.Dst, s.VLAN}
		if now.Sub(x.sought[k]) < soughtAgain {
			continue
		}
		if x.sought == nil || len(x.sought) >= maxSought {
			x.sought = map[soughtKey]time.Time{}
		}
		x.sought[k] = now
		frames = append(frames, vswitch.Injected{Data: question(s)})
	}
	if len(frames) > 0 {
		if err := r.sw.Inject(p.port.Name, frames); err != nil {
			r.log.Debug("macnat could not ask who has an address", "port", p.port.Name, "err", err)
		}
	}
}

// onLink says whether an address is in a network of the host's on the LAN. Where the host has
// none of that family, nothing is routed by it.
func onLink(links []hostAddress, a netip.Addr) bool {
	same := 0
	for _, l := range links {
		if l.Prefix.Addr().Is4() != a.Is4() {
			continue
		}
		if same++; l.Prefix.Masked().Contains(a) {
			return true
		}
	}
	return same == 0
}

// soughtKey is an address that was asked for.
type soughtKey struct {
	addr netip.Addr
	vlan uint16
}

// question is an ARP request or a neighbour solicitation from a station on the LAN.
func question(s ports.Sought) []byte {
	frameOf := func(dst []byte, etherType uint16) []byte {
		b := append(append([]byte{}, dst...), s.MAC[:]...)
		if s.VLAN != 0 {
			b = binary.BigEndian.AppendUint16(b, frame.TPID8021Q)
			b = binary.BigEndian.AppendUint16(b, s.VLAN)
		}
		return binary.BigEndian.AppendUint16(b, etherType)
	}
	src, dst := s.Src.AsSlice(), s.Dst.AsSlice()
	if s.Dst.Is4() {
		b := append(frameOf([]byte{255, 255, 255, 255, 255, 255}, frame.EtherARP), arpHead[:]...)
		b = append(append(append(b, 0, arpRequest), s.MAC[:]...), src...)
		b = append(append(b, make([]byte, 6)...), dst...)
		return append(b, make([]byte, 18)...)
	}
	group := append([]byte{0xff, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0xff}, dst[13:]...)
	m := append([]byte{ndSolicitation, 0, 0, 0, 0, 0, 0, 0}, dst...)
	m = append(append(m, 1, 1), s.MAC[:]...) // source link-layer address
	binary.BigEndian.PutUint16(m[2:], ^frame.Sum(m, frame.Pseudo(append(src, group...), protoICMPv6, len(m))))
	b := frameOf(append([]byte{0x33, 0x33}, group[12:]...), frame.EtherIPv6)
	b = append(b, 0x60, 0, 0, 0, 0, byte(len(m)), protoICMPv6, 255)
	return append(append(append(b, src...), group...), m...)
}
