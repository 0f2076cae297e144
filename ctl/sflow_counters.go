package ctl

import (
	"hash/fnv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"vswitch/capture/sflow"
	"vswitch/ctl/api"
	"vswitch/ctl/config"
	vswitch "vswitch/switch"
)

// What sFlow tells of ports: by which number, and what they counted.

// numbers gives things without an interface index, such as tunnel ports, numbers that
// no interface of the kernel is likely to have, and that are the same after a restart,
// unless two names come by the same one.
//
// Thread-safety: guarded by reconciler.mu.
type numbers struct {
	byName map[string]uint32
	taken  map[uint32]bool
}

// firstNumber is above the indexes of interfaces, as the kernel hands them out one by
// one, and leaves as much room again below sflow.MaxIndex.
const firstNumber = 1 << 23

func (n *numbers) of(name string) uint32 {
	if x, ok := n.byName[name]; ok {
		return x
	}
	if n.byName == nil {
		n.byName, n.taken = map[string]uint32{}, map[uint32]bool{}
	}
	h := fnv.New32a()
	h.Write([]byte(name))
	x := firstNumber | h.Sum32()%firstNumber
	for n.taken[x] {
		x = firstNumber | (x+1)%firstNumber
	}
	n.byName[name], n.taken[x] = x, true
	return x
}

// numberLocked is the number by which sFlow knows a port: the index of its interface,
// where there is one.
func (r *reconciler) numberLocked(p *portState) uint32 {
	if i := p.link.Index; i > 0 && i < firstNumber {
		return uint32(i)
	}
	return r.numbers.of(p.port.Name)
}

// lookLocked looks which numbers the bridge's ports have now, if it can at once.
func (e *exporter) lookLocked(now time.Time) {
	if !e.r.mu.TryLock() {
		return
	}
	defer e.r.mu.Unlock()
	e.indexesLocked(now)
}

// indexesLocked is lookLocked with reconciler.mu held.
func (e *exporter) indexesLocked(now time.Time) {
	e.looked, e.unknown, e.known = now, false, e.samples
	clear(e.indexes)
	for name, p := range e.r.ports {
		if p.bridge == e.bridge {
			e.indexes[name] = e.r.numberLocked(p)
		}
	}
}

// indexLocked is the number of a port; 0, which is not known, of one that is new.
func (e *exporter) indexLocked(port string) uint32 {
	i, ok := e.indexes[port]
	e.unknown = e.unknown || !ok
	return i
}

// polled is what is told of one port.
type polled struct {
	counters sflow.Counters
	device   string // that has a speed; "": none
}

// reportsATurn bounds how many ports are told of at once: those of thousands in one
// burst are more than a collector's socket holds.
const reportsATurn = 32

// reportLocked adds some of the reports that wait, and returns how many.
func (e *exporter) reportLocked() int {
	some := e.waiting[:min(len(e.waiting), reportsATurn)]
	for i := range some {
		if some[i].device != "" {
			some[i].counters.Speed = linkSpeed(some[i].device)
		}
		e.reports++
		e.encoder.Counters(&some[i].counters, time.Since(e.began))
	}
	if e.waiting = e.waiting[len(some):]; len(e.waiting) == 0 {
		e.waiting = nil
	}
	return len(some)
}

// pollLocked reads the counters of all ports, if it can at once; else it is false.
func (e *exporter) pollLocked() bool {
	if !e.r.mu.TryLock() {
		return false
	}
	stats, err := e.r.sw.Bridge(e.bridge)
	if err != nil {
		e.r.mu.Unlock()
		return true // it is about to go
	}
	e.waiting = make([]polled, 0, len(stats.Ports))
	for i := range stats.Ports {
		if p := e.r.ports[stats.Ports[i].Name]; p != nil && p.state != api.PortSelf {
			e.waiting = append(e.waiting, e.r.polledLocked(p, &stats.Ports[i].Counters))
		}
	}
	e.r.mu.Unlock()
	return true
}

// polledLocked reads one port. What the switch does not count apart, such as
// multicast, is said to be unknown.
func (r *reconciler) polledLocked(p *portState, c *vswitch.Counters) (x polled) {
	in, out := sflow.Way{Octets: c.RxBytes, Unicast: uint32(c.RxFrames)}, sflow.Way{Octets: c.TxBytes, Unicast: uint32(c.TxFrames)}
	for _, why := range vswitch.Reasons() {
		n := uint32(c.Drops[why].Count)
		switch {
		case faulty(why) && inbound(why):
			in.Errors += n
		case faulty(why):
			out.Errors += n
		case inbound(why):
			in.Discards += n
		default:
			out.Discards += n
		}
	}
	in.Multicast, in.Broadcast, out.Multicast, out.Broadcast = sflow.Unknown, sflow.Unknown, sflow.Unknown, sflow.Unknown
	x.counters = sflow.Counters{Index: r.numberLocked(p), Duplex: 1, In: in, Out: out}
	if p.link.Up || p.link.Index == 0 && p.state == api.PortUp {
		x.counters.Status |= sflow.StatusAdminUp
	}
	if p.state == api.PortUp {
		x.counters.Status |= sflow.StatusUp
	}
	// A TUN device says 10 Mbit/s, which is nobody's speed.
	if p.port.Object() == config.PacketPort && p.link.Index > 0 && p.link.Kind != "tun" {
		x.device = p.link.Name
	}
	return x
}

// inbound reports whether frames are dropped for a reason where they came in.
func inbound(why vswitch.Reason) bool { return why < vswitch.DropVLANOutput }

// faulty reports whether a reason says that something is wrong with the frame, or with
// sending it, rather than that nobody wants it (RFC 2863, ifInErrors).
func faulty(why vswitch.Reason) bool {
	switch why {
	case vswitch.DropShort, vswitch.DropLong, vswitch.DropMalformed, vswitch.DropUnreadable, vswitch.DropCriticalOption,
		vswitch.DropNotEthernet, vswitch.DropTunnelChecksum, vswitch.DropUnsegmentable, vswitch.DropRejected, vswitch.DropSendError:
		return true
	}
	return false
}

// ethtoolCmd is struct ethtool_cmd of linux/ethtool.h, which every driver still
// answers (ETHTOOL_GSET), though not with more than fits.
type ethtoolCmd struct {
	cmd, supported, advertising uint32
	speed                       uint16
	_                           [14]byte
	speedHigh                   uint16
	_                           [2]byte
	_                           [3]uint32
}

// linkSpeed asks an interface's driver for its speed in bits a second; 0: it does not
// know.
func linkSpeed(name string) uint64 {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0
	}
	defer unix.Close(fd)
	cmd := ethtoolCmd{cmd: unix.ETHTOOL_GSET}
	var ifr struct {
		name [unix.IFNAMSIZ]byte
		data unsafe.Pointer
		_    [16]byte
	}
	copy(ifr.name[:unix.IFNAMSIZ-1], name)
	ifr.data = unsafe.Pointer(&cmd)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCETHTOOL, uintptr(unsafe.Pointer(&ifr))); errno != 0 {
		return 0
	}
	mbits := uint32(cmd.speedHigh)<<16 | uint32(cmd.speed)
	if mbits == 0 || mbits == 1<<32-1 || mbits == 1<<16-1 { // SPEED_UNKNOWN, and as older drivers have it
		return 0
	}
	return uint64(mbits) * 1_000_000
}
