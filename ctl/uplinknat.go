package ctl

import (
	"fmt"
	"net"

	"vswitch/ctl/config"
	"vswitch/ports"
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
