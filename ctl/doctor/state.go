package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// checkConfiguration looks at the store and at what waits.
func (x *visit) checkConfiguration() {
	stored, others := x.o.Host.StoreWarnings(), x.o.Host.ContainerWarnings()
	for _, w := range stored {
		if strings.Contains(w, "read-only") || strings.Contains(w, "while in use") {
			x.fail("configuration", "store", "", "mend the disk, or its mount, and restart vswitchd; forwarding goes on, and `vswitchctl export` prints what is desired now", "%s", w)
		} else {
			x.warn("configuration", "store", "", "look whether `vswitchctl export` is what you want; the warning goes with the next start of vswitchd", "%s", w)
		}
	}
	if len(stored) == 0 {
		x.ok("configuration", "store", "", "version %d is stored, and readable", x.status.ConfigVersion)
	}
	for _, w := range x.status.Warnings {
		if !slices.Contains(stored, w) && !slices.Contains(others, w) { // those are told elsewhere
			fix := ""
			if strings.Contains(w, "interface events were lost") {
				fix = "nothing was lost; many times means that the host changes interfaces faster than they can be followed"
			}
			x.warn("configuration", "warning", "", fix, "%s", w)
		}
	}
	if c := x.status.Confirm; c != nil {
		x.warn("configuration", "confirm", "", fmt.Sprintf("vswitchctl confirm keeps it, vswitchctl rollback %d undoes it now", c.Previous),
			"version %d waits for confirmation until %s, and goes back then", c.Version, c.Deadline.Local().Format("15:04:05"))
	}
}

// checkPorts looks at whether ports are up, whether those of a bridge have one MTU, and
// whether one cuts off addresses of the host.
func (x *visit) checkPorts() {
	total := 0
	addresses, err := ports.HostAddresses()
	if err != nil {
		x.unknown("ports", "host-address", "", "", "%v", err)
	}
	for _, b := range x.status.Bridges {
		well := 0
		for _, p := range b.Ports {
			if isTunnelType(p.Type) || p.Type == string(config.PlugPort) && p.State == api.PortWaiting {
				continue // see tunnels, and containers
			}
			if x.checkPort(b.Name, p) {
				well++
			}
			total++
			if has := addresses[p.IfIndex]; p.Type == string(config.PacketPort) && len(has) > 0 && p.Options["take_addresses"] != true {
				x.warn("ports", "host-address", p.Name, fmt.Sprintf("vswitchctl set-port %s take_addresses=true moves it to %s; or ip addr del %s dev %s", p.Name, b.Name, has[0], p.Name),
					"the host has %s there, and hears nothing by it while it is a port", has[0])
			}
		}
		if well > 0 {
			x.ok("ports", "port-state", b.Name, "%s", asTheyShould(well))
		}
		x.checkMTUs(b)
		for _, m := range b.Mirrors {
			if m.State != "up" {
				x.fail("ports", "mirror", b.Name+" "+m.Name, "mend what the reason names; mirror list shows it", "mirror %s: %s", m.State, m.Reason)
			}
		}
	}
	if total == 0 {
		x.ok("ports", "port-state", "", "there are no ports; vswitchctl add-port adds one")
	}
}

func asTheyShould(ports int) string {
	if ports == 1 {
		return "1 port as it should be"
	}
	return fmt.Sprintf("%d ports as they should be", ports)
}

// checkPort tells of a port that is not up, and reports whether it is as it should be.
func (x *visit) checkPort(bridge string, p api.PortStatus) bool {
	since := ""
	if !p.Since.IsZero() {
		since = ", for " + api.Span(time.Since(p.Since))
	}
	what := p.State + since
	if p.Reason != "" {
		what += ": " + p.Reason
	}
	switch {
	case p.State == api.PortUp:
		for _, note := range p.Notes {
			if strings.Contains(note, "namespace") || strings.Contains(note, "kernel bridge") {
				x.warn("ports", "port-note", p.Name, "take the interface out of the other bridge, or the port out of this one", "%s", note)
			}
		}
		return true
	case p.State == api.PortError:
		x.fail("ports", "port-state", p.Name, "mend what the reason names; it is tried again by itself", "%s", what)
	case p.State == api.PortWaiting && p.Type == string(config.PatchPort):
		x.warn("ports", "port-state", p.Name, "add the peer, and name this port as its peer", "%s", what)
	case p.State == api.PortWaiting:
		x.warn("ports", "port-state", p.Name, fmt.Sprintf("start what makes the interface, or vswitchctl del-port %s %s", bridge, p.Name), "%s", what)
	case p.Type == string(config.LocalPort) && p.Options["ip"] == nil:
		return true // nobody gave it an address: it is not used
	case p.Type == string(config.TapPort):
		x.warn("ports", "port-state", p.Name, "start the virtual machine, or what else should attach to it", "%s", what)
	default:
		x.warn("ports", "port-state", p.Name, "raise the interface and its other end (ip link set … up)", "%s", what)
	}
	return false
}

func isTunnelType(t string) bool { return config.Object(t).IsTunnel() }

// checkMTUs compares the MTUs of a bridge's ports that are up. Those of tunnels may be
// smaller: senders are told.
func (x *visit) checkMTUs(b api.BridgeStatus) {
	by := map[int][]string{}
	tunnels, smallest := 0, 0
	for _, p := range b.Ports {
		switch {
		case p.State != api.PortUp:
		case p.Tunnel != nil && p.Tunnel.MTU > 0:
			tunnels++
			if smallest == 0 || p.Tunnel.MTU < smallest {
				smallest = p.Tunnel.MTU
			}
		case p.MTU > 0:
			by[p.MTU] = append(by[p.MTU], p.Name)
		}
	}
	sizes := slices.Sorted(maps.Keys(by))
	switch {
	case len(sizes) > 1:
		var parts []string
		for _, n := range sizes {
			parts = append(parts, fmt.Sprintf("%d (%s)", n, someOf(by[n])))
		}
		x.warn("ports", "mtu", b.Name, fmt.Sprintf("give all ports of the bridge, and the containers' ends, one MTU: ip link set DEV mtu %d", sizes[0]),
			"its ports have different MTUs: %s: what one port sends may be too long for another, and is dropped there", strings.Join(parts, ", "))
	case len(sizes) == 1 && tunnels > 0 && smallest < sizes[0]:
		x.ok("ports", "mtu", b.Name, "ports take %d bytes, and its tunnels %d: senders of more are told by ICMP, and TCP is clamped", sizes[0], smallest)
	case len(sizes) == 1:
		x.ok("ports", "mtu", b.Name, "all ports take %d bytes", sizes[0])
	}
}

// someOf lists a few names.
func someOf(names []string) string {
	const few = 4
	if len(names) > few {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:few], ", "), len(names)-few)
	}
	return strings.Join(names, ", ")
}

// checkAddresses looks at the MAC tables, and at who claims whose address.
func (x *visit) checkAddresses() {
	for _, b := range x.status.Bridges {
		well := true
		for _, f := range b.Flaps {
			well = false
			x.fail("addresses", "mac-flapping", b.Name, "look for a loop of cables, patches or tunnels between the two ports, or for two machines with one MAC",
				"%s in VLAN %d flaps between %s and %s: it is held at %s, and its frames from elsewhere are dropped", f.MAC, f.VLAN, f.Held, f.Other, f.Held)
		}
		const few = 3
		recent := 0
		for _, m := range b.FDB.Moves {
			held := slices.ContainsFunc(b.Flaps, func(f api.FDBFlap) bool { return f.MAC == m.MAC && f.VLAN == m.VLAN })
			if held || time.Since(m.Last) > recently || m.Count < 2 {
				continue
			}
			if recent++; recent <= few {
				well = false
				x.warn("addresses", "mac-moves", b.Name, "if it did not move house: two machines may have one MAC, or there is a loop",
					"%s in VLAN %d moved %d times, last from %s to %s, %s ago", m.MAC, m.VLAN, m.Count, m.From, m.To, api.Span(time.Since(m.Last)))
			}
		}
		t := b.FDB
		evicted := x.history.evictedLately(b.Name, t.Size, t.Evicted)
		if evicted > 0 || t.Entries*20 >= t.Size*19 {
			well = false
			x.warn("addresses", "mac-table", b.Name, fmt.Sprintf("vswitchctl set-br %s mac-table-size=%d", b.Name, t.Size*4),
				"its MAC table is full, or was: %d of %d entries, and %d gave way to others of late; frames to those are flooded", t.Entries, t.Size, evicted)
		}
		if well {
			x.ok("addresses", "mac-table", b.Name, "%d of %d MACs, none flaps", t.Entries, t.Size)
		}
	}
	for _, n := range x.o.Host.Conflicts(x.query.Bridge, time.Now().Add(-recently)) {
		if n.Conflict.Count == 1 && n.Conflict.Port == n.Port {
			continue // it has another MAC since: set-port mac=, or a container of the same address
		}
		x.fail("addresses", "ip-conflict", n.Bridge, fmt.Sprintf("give one of the two another address; vswitchctl why %s tells more", n.IP),
			"%s in VLAN %d is claimed by %s at %s and by %s at %s", n.IP, n.VLAN, n.MAC, n.Port, n.Conflict.MAC, n.Conflict.Port)
	}
}

// recently is how long ago something may have happened that is told as a problem.
const recently = 10 * time.Minute

// losses are the reasons for which frames are lost because the switch, or who takes
// them from it, is too slow or limited; others are what the configuration says.
var losses = map[vswitch.Reason]string{
	vswitch.DropMissed: "ring-overrun", vswitch.DropUnreadable: "ring-overrun", vswitch.DropRingFull: "ring-overrun",
	vswitch.DropQueueFull: "ring-overrun", vswitch.DropBuffers: "ring-overrun", vswitch.DropCaptureRing: "capture-overrun",
	vswitch.DropStormBroadcast: "storm", vswitch.DropStormUnknown: "storm", vswitch.DropStormMulticast: "storm",
	vswitch.DropPatchLoop: "loop", vswitch.DropTunnelChecksum: "damaged", vswitch.DropProbeRefused: "forged",
}

// checkLosses looks at frames that were lost for want of room or speed, of late.
func (x *visit) checkLosses(ctx context.Context) {
	drops, err := x.o.Host.Drops(ctx, x.query.Bridge, "")
	if err != nil {
		x.unknown("losses", "ring-overrun", "", "", "%v", err)
		return
	}
	old, recent := uint64(0), 0
	for _, dr := range drops {
		check := ""
		for r, name := range losses {
			if r.String() == dr.Reason {
				check = name
			}
		}
		if check == "" {
			continue
		}
		if dr.LastSeen.IsZero() { // it is not known when
			late := dr.Count
			if dr.Bridge == "" && dr.Reason == vswitch.DropMissed.String() {
				late = x.history.missedLately(dr.Port, dr.Count)
			}
			old += dr.Count - late
			if late > 0 {
				recent++
				x.warn("losses", check, dr.Port, dr.Help, "%d frames lost: %s, in the last %d minutes", late, dr.Reason, int(recently.Minutes()))
			}
			continue
		}
		if time.Since(dr.LastSeen) > recently {
			old += dr.Count
			continue
		}
		recent++
		x.warn("losses", check, dr.Port, dr.Help, "%d frames lost: %s, last %s ago", dr.Count, dr.Reason, api.Span(time.Since(dr.LastSeen)))
	}
	if recent == 0 {
		x.ok("losses", "ring-overrun", "", "no frame was lost for want of room in the last %d minutes (%d before)", int(recently.Minutes()), old)
	}
	if r := x.o.Switch.Recorder(); r.Frames > 0 && r.Skipped > r.Frames {
		x.ok("losses", "recorder", "", "the flight recorder passed over %d frames and has %d: they come faster than its rate", r.Skipped, r.Frames)
	}
}
