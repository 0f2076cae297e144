package vswitch

import (
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// Reason says why a frame was dropped.
type Reason uint8

// The reasons. A frame that is dropped on its way in counts at the port it came
// in by, on its way out at the port it should have left by.
const (
	DropNone Reason = iota

	// On the way in.
	DropMissed     // the kernel's receive buffer was full before we read
	DropUnreadable // the kernel could not express the frame's offload state
	DropShort
	DropLong
	DropMalformed
	DropMirrorPort
	DropVLANTagged
	DropVLANNotTrunked
	DropReserved
	DropSamePort
	DropNoPort
	DropPatchLoop
	DropFlapping
	DropStormBroadcast
	DropStormUnknown
	DropStormMulticast
	DropSplitHorizon
	DropCriticalOption
	DropNotEthernet
	DropTunnelChecksum
	DropTunnelECN
	DropReflected
	DropNobody
	DropProbe
	DropProbeRefused

	// On the way out.
	DropVLANOutput
	DropPortDown
	DropMTU
	DropUnsegmentable
	DropBuffers
	DropRingFull
	DropQueueFull
	DropRejected
	DropDenied
	DropControl
	DropUnreachable
	DropSendError
	DropPortRemoved
	DropCaptureRing

	numReasons
)

// reasons holds each reason's name, as counters and the API spell it, and the
// sentence that tells an operator what to do about it.
var reasons = [numReasons]struct{ name, help string }{
	DropMissed:         {"rx-missed", "the kernel dropped frames because this port's receive ring or buffer was full: the switch is too slow for a burst; raise n_rxq_desc (small frames) or rx-buffer (large ones), or give the port more queues (n_rxq) or the daemon more workers"},
	DropUnreadable:     {"rx-unreadable", "the kernel had a frame whose offload state it cannot hand over, and dropped it; seen with UDP segmentation before Linux 6.2 and with SCTP segmentation: turn that offload off at the sender (ethtool -K DEV tx-udp-segmentation off tx-sctp-segmentation off)"},
	DropShort:          {"too-short", "a frame shorter than an Ethernet header; the sender is broken"},
	DropLong:           {"too-long", "a frame longer than 64 KiB; turn BIG TCP off at the sender (ip link set DEV gso_max_size 65536)"},
	DropMalformed:      {"malformed", "the frame's offload state points outside of it or names an unknown kind; the sender is broken or hostile"},
	DropMirrorPort:     {"mirror-output-port", "frames that come in by a mirror's output port are not forwarded; the port is for the collector alone"},
	DropVLANTagged:     {"vlan-tagged-on-access", "a tagged frame came in by an access port; make the port a trunk (vlan_mode=trunk), or let the sender send untagged"},
	DropVLANNotTrunked: {"vlan-not-trunked", "the frame's VLAN is not among the port's trunks; add it (set-port NAME trunks=…)"},
	DropReserved:       {"reserved-multicast", "a link-local control frame (01:80:c2:00:00:0X: STP, LACP, LLDP …); bridges keep those; forward-bpdu=true lets them pass"},
	DropSamePort:       {"same-port", "the destination is behind the port the frame came from, so it has it already; usual where a hub or another switch is behind the port"},
	DropNoPort:         {"no-output", "no other port that is up is in the frame's VLAN; normal on a bridge with one port, else compare the ports' VLANs in show"},
	DropPatchLoop:      {"patch-loop", "the frame went through too many patch ports: bridges are patched together in a loop; remove one patch"},
	DropFlapping:       {"mac-flapping", "the frame's source MAC moves between ports faster than mac-flap-limit allows, and is held at another one: bridges are cabled or patched together in a loop, or two stations have one address; show names the MAC and both ports"},
	DropStormBroadcast: {"storm-broadcast", "more broadcast frames a second came in by the port than its storm_broadcast allows: look for a loop or a broken station behind it, or raise the limit"},
	DropStormUnknown:   {"storm-unknown", "more frames a second for unknown MACs came in by the port than its storm_unknown allows: look for a loop, or for a station that sends to one that never speaks, or raise the limit"},
	DropStormMulticast: {"storm-multicast", "more multicast frames a second came in by the port than its storm_multicast allows: look for a loop, or raise the limit for a network that streams by multicast"},
	DropSplitHorizon:   {"split-horizon", "the frame came from a host of a mesh, for a MAC behind another host of it, who has got it from the sender already; usual for a moment after a MAC was learned or moved"},
	DropCriticalOption: {"geneve-critical-option", "a Geneve frame with an option that its sender says must be understood, and this switch does not: turn that option off at the sender"},
	DropNotEthernet:    {"tunnel-not-ethernet", "the tunnel's peer sent something else than an Ethernet frame: it has a layer 3 tunnel (ip link … type gre instead of gretap)"},
	DropTunnelChecksum: {"tunnel-checksum", "the checksum of the outer header is wrong: the frame was damaged on its way between the hosts"},
	DropTunnelECN:      {"tunnel-ecn", "a router between the hosts marked congestion, and the inner packet's ends do not take part in ECN: it counts as lost (RFC 6040)"},
	DropReflected:      {"reflected", "a frame that a port with macnat sent came back to it: usual for broadcasts on Wi-Fi; if they are many, the LAN has a loop, or another station has the NIC's MAC address"},
	DropNobody:         {"macnat-nobody", "a frame that came by a port with macnat for an address that nobody behind it is known to have, and the host is not in its VLAN: usual after a container went; a container that only listens is asked for its address, and known a second later"},
	DropProbe:          {"probe", "a probe of another vswitch (trace --path, doctor), which this one answered: it is meant to end here"},
	DropProbeRefused:   {"probe-refused", "a frame that looks like a probe of vswitch came in by a port that is no tunnel: a container may not speak for the switch"},
	DropVLANOutput:     {"vlan-not-on-output", "the destination was learned or set on a port that is not in the frame's VLAN any more; flush the FDB, or mend the static entry"},
	DropPortDown:       {"port-down", "the output port's interface is down or has no carrier; raise it, or its peer, and look at show"},
	DropMTU:            {"mtu-exceeded", "the frame is longer than the output port's interface or tunnel takes; a tunnel tells the sender by ICMP where it may; else make the MTUs of the bridge's ports equal"},
	DropUnsegmentable:  {"unsegmentable", "a super-frame that has to be segmented in software (for a port with offload=off, or because its sender put it into a tunnel) has headers that cannot be: the sender is broken or hostile, or has a tunnel in a tunnel: turn its segmentation offload off (ethtool -K DEV tso off gso off)"},
	DropBuffers:        {"no-buffers", "all of the worker's frame buffers wait in transmit rings; raise vswitchd --buffers, or find the port that does not drain"},
	DropRingFull:       {"tx-ring-full", "the port's transmit ring was full: its interface is slower than what is sent to it; raise tx-ring, or slow the sender"},
	DropQueueFull:      {"tx-queue-full", "the interface's own queue, or its peer's backlog, was full (ENOBUFS); raise its txqueuelen or net.core.netdev_max_backlog"},
	DropRejected:       {"tx-rejected", "the kernel refused the frame: it, or its offload state, makes no sense to it"},
	DropDenied:         {"tx-denied", "a firewall rule of this host (nftables or iptables, OUTPUT) refused the tunnel's packet"},
	DropControl:        {"tunnel-control", "a BFD frame as a tunnel's own session sends it, from a port: a container may not speak for the host"},
	DropUnreachable:    {"tx-unreachable", "this host has no route to the tunnel's other end, or nobody there answers ARP: look at ip route get and tunnel show"},
	DropSendError:      {"tx-error", "sending failed for another reason; the daemon's log at level debug names it"},
	DropPortRemoved:    {"port-removed", "the frame waited in the transmit ring of a port that was removed"},
	DropCaptureRing:    {"capture-ring-full", "a capture file's ring was full: the disk is slower than the traffic; use snaplen, or mirror less"},
}

func (r Reason) String() string { return reasons[r].name }

// Help says what the reason means and what to do about it, in a sentence.
func (r Reason) Help() string { return reasons[r].help }

// Reasons returns all reasons there are.
func Reasons() []Reason {
	all := make([]Reason, 0, numReasons-1)
	for r := DropNone + 1; r < numReasons; r++ {
		all = append(all, r)
	}
	return all
}

// faultReason turns what a tunnel found wrong with a frame into a reason.
func faultReason(f frame.Fault) Reason {
	switch f {
	case frame.FaultCritical:
		return DropCriticalOption
	case frame.FaultProtocol:
		return DropNotEthernet
	case frame.FaultChecksum:
		return DropTunnelChecksum
	case frame.FaultECN:
		return DropTunnelECN
	case frame.FaultReflected:
		return DropReflected
	}
	return DropMalformed
}

// sendReason turns what Device.Send met into a reason.
func sendReason(errno unix.Errno) Reason {
	switch errno {
	case unix.EMSGSIZE:
		return DropMTU
	case unix.ENETDOWN, unix.ENXIO, unix.ENODEV, unix.EIO, unix.EBADFD:
		return DropPortDown // EIO and EBADFD are what a TAP says
	case unix.ENOBUFS:
		return DropQueueFull
	case unix.EPERM:
		return DropDenied
	case unix.EPROTO: // what a tunnel says
		return DropControl
	case unix.ENETUNREACH, unix.EHOSTUNREACH:
		return DropUnreachable
	case unix.EINVAL, unix.ENOMEM: // ENOMEM: the kernel's own segmentation refused it
		return DropRejected
	}
	return DropSendError
}
