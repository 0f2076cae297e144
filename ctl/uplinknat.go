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

// hostPortsLocked are the ports of a bridge by which the host itself is on it: the local port
// first.
func (r *reconciler) hostPortsLocked(bridge string) (all []*portState) {
	b := r.desired.Bridge(bridge)
	if b == nil {
		return nil
	}
	add := func(name string) {
		if h := r.ports[name]; h != nil && h.device != nil && h.link.Index != 0 {
			all = append(all, h)
		}
	}
	add(b.Name)
	for _, p := range b.Ports {
		if p.Object() == config.InternalPort {
			add(p.Name)
		}
	}
	return all
}

// hostEndsLocked says in words what takeLocked and pinLocked lean on of the interfaces that are
// the host's, so that they are told anew when it changes.
func (r *reconciler) hostEndsLocked(p *portState) string {
	say := fmt.Sprint(p.link.Index, p.link.MAC, p.link.MTU, p.port.VLANs())
	for _, h := range r.hostPortsLocked(p.bridge) {
		say += fmt.Sprint(" ", h.port.Name, h.link.Index, h.link.MAC, h.link.Up, h.port.VLANs(), mtu(h.port))
	}
	return say
}

// lanVLAN is the VLAN that what a port sends without a tag has on the LAN behind an uplink; 0:
// none. ok is false where it does not get there.
func lanVLAN(from, uplink config.Port) (vlan uint16, ok bool) {
	f, u := from.VLANs(), uplink.VLANs()
	switch {
	case !u.Admits(f.Tag):
		return 0, false
	case u.Mode == config.Access || u.Mode == config.NativeUntagged && f.Tag == u.Tag:
		return 0, true
	}
	return f.Tag, true
}

// hostNetwork is a network of the host's on the LAN.
type hostNetwork struct {
	vlan   uint16
	prefix netip.Prefix
}

// pinLocked tells a port with macnat which addresses are the host's.
func (r *reconciler) pinLocked(p *portState, x *uplinkPort) {
	d, ok := p.device.(*ports.Packet)
	if !ok || p.port.Options["macnat"] != "true" {
		return
	}
	var host []ports.HostAddress
	var ends []ports.HostEnd
	x.networks = nil
	for _, h := range r.hostPortsLocked(p.bridge) {
		vlan, ok := lanVLAN(h.port, p.port)
		if !ok || !h.link.Up {
			continue
		}
		addresses, err := everyAddressOn(h.link.Index)
		if err != nil {
			r.log.Warn("macnat does not know the host's addresses", "port", p.port.Name, "interface", h.port.Name, "err", err)
			return
		}
		end := ports.HostEnd{VLAN: vlan, MAC: h.link.MAC}
		ends = append(ends, end)
		for _, a := range addresses {
			host = append(host, ports.HostAddress{Addr: a.Prefix.Addr(), HostEnd: end})
			if !a.Prefix.Addr().IsLinkLocalUnicast() {
				x.networks = append(x.networks, hostNetwork{vlan, a.Prefix.Masked()})
			}
		}
	}
	d.SetMACNAT(p.link.MAC, host, ends)
}

// soughtAgain is how often an address is asked for that nobody answers for.
const soughtAgain = 10 * time.Second

// maxSought bounds how many addresses of a port are remembered as asked for.
const maxSought = 1024

// seekLocked asks the containers behind a port with macnat for addresses that the LAN sends to
// and that nobody is known to have, as the LAN's own sender would: the answer goes to it, and
// is learned on its way. Else a container that only listens would not be reached after a start
// of the daemon until its neighbours doubt what they know, up to a minute later.
func (r *reconciler) seekLocked(p *portState, x *uplinkPort, now time.Time) {
	d, ok := p.device.(*ports.Packet)
	if !ok {
		return
	}
	sought := d.Sought()
	if len(sought) == 0 {
		return
	}
	var frames []vswitch.Injected
	for _, s := range sought {
		if !onLink(x.networks, s.VLAN, s.Dst) {
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

// onLink says whether an address of a VLAN of the LAN is in a network that the host has there.
// Where the host has none of that family, nothing is routed by it.
func onLink(networks []hostNetwork, vlan uint16, a netip.Addr) bool {
	same := 0
	for _, n := range networks {
		if n.vlan != vlan || n.prefix.Addr().Is4() != a.Is4() {
			continue
		}
		if same++; n.prefix.Contains(a) {
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
