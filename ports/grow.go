package ports

import (
	"fmt"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// A busy port gets a receive ring while frames come, and loses, doubles and
// disorders none. Its socket is alone in a fanout group, whose classic BPF program says which
// member takes a frame. The ring's socket becomes the second member, with number 1,
// and takes nothing until the program says 1: for each frame the kernel asks once.
//
//	interface ── fanout group ──┬── 0: queue      queue 0 of the device
//	              program: 0, 1 └── 1: ring       queue 1, after Grow
//
// What the first member got before must be read before what the second gets after
// (grown.recv). The first stays, empty.

// grown is the second member.
type grown struct {
	fd   int
	ring *rxRing
	// turned says that the kernel has given the first member its last frame.
	turned  atomic.Bool
	drained bool // and that it was read: the worker's
}

// minRingKernel is the oldest kernel on which there are rings. Older ones cannot express UDP
// super-frames in a virtio-net header (6.2), which makes a ring deaf: see rxRing. And
// their fanout groups may see what is sent by their interface (5.16,
// PACKET_FANOUT_FLAG_IGNORE_OUTGOING).
var minRingKernel = [2]int{6, 2}

// ringsWork says why there are no rings on this kernel; nil when there are.
func ringsWork() error {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return err
	}
	release := unix.ByteSliceToString(u.Release[:])
	var major, minor int
	fmt.Sscanf(release, "%d.%d", &major, &minor)
	if major < minRingKernel[0] || major == minRingKernel[0] && minor < minRingKernel[1] {
		return fmt.Errorf("receive rings need Linux %d.%d, and this is %s", minRingKernel[0], minRingKernel[1], release)
	}
	return nil
}

// CanGrow reports whether Grow would work: the device was opened with Growable on a
// kernel that is new enough, and has not grown.
func (p *Packet) CanGrow() bool { return p.growable && p.grown.Load() == nil }

// Deaf reports whether a receive ring takes no more frames. Missed must be called again and
// again for it to be known.
func (p *Packet) Deaf() bool {
	p.statsMu.Lock()
	defer p.statsMu.Unlock()
	for _, r := range p.rings {
		if r.deaf >= deafAfter {
			return true
		}
	}
	g := p.grown.Load()
	return g != nil && g.ring.deaf >= deafAfter
}

// Grow makes a receive ring of at least so many slots, as queue 1. Nothing comes by it until
// Turn. It waits for a grace period of the kernel, some 15 ms (packet_set_ring).
func (p *Packet) Grow(slots int) error {
	g := &grown{}
	fd, err := p.openSocket()
	if err == nil {
		g.fd = fd
		// Bound, it takes frames of its own until it is a member; to set the ring empties it.
		if err = p.bind(fd); err == nil {
			_, err = joinFanout(fd, p.group, unix.PACKET_FANOUT_CBPF)
		}
		if err == nil {
			g.ring, err = openRxRing(fd, slots)
		}
		if err == nil {
			_, err = unix.GetsockoptTpacketStats(fd, unix.SOL_PACKET, unix.PACKET_STATISTICS) // from here on
		}
	}
	if err != nil {
		if g.ring != nil {
			g.ring.close()
		}
		if fd >= 0 {
			unix.Close(fd)
		}
		return fmt.Errorf("make a receive ring on %s: %w", p.name, err)
	}
	p.grown.Store(g)
	return nil
}

// toRing is the program that gives frames to member 1, the ring, and SCTP to member 0,
// which can say of one frame that it cannot be expressed, and take the next.
var toRing = [...]unix.SockFilter{
	{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_ABS, K: adProtocol},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IP, Jt: 2},
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.ETH_P_IPV6, Jt: 3},
	{Code: unix.BPF_RET | unix.BPF_K, K: 1},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: netOff + 9}, // IPv4: protocol
	{Code: unix.BPF_JMP | unix.BPF_JA, K: 1},
	{Code: unix.BPF_LD | unix.BPF_B | unix.BPF_ABS, K: netOff + 6}, // IPv6: next header
	{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: unix.IPPROTO_SCTP, Jt: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 1},
	{Code: unix.BPF_RET | unix.BPF_K, K: 0},
}

// Where classic BPF finds the EtherType and the network header (linux/filter.h:
// SKF_AD_OFF + SKF_AD_PROTOCOL, SKF_NET_OFF).
const (
	adProtocol = 0xfffff000
	netOff     = 0xfff00000
)

// Turn makes frames come by the ring that Grow made, once queue 1 is read.
//
// Should the interface have gone down while Grow waited for the kernel, the members may
// have changed places; then frames go on to come by queue 0, which is read all the same.
func (p *Packet) Turn() error {
	g := p.grown.Load()
	// What ends the wait is made before: a turn is whole, or none.
	wait, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("turn %s to its receive ring: %w", p.name, err)
	}
	defer func() {
		unix.Close(wait) // see grace
		if err == nil {
			g.turned.Store(true)
		}
	}()
	program := toRing
	err = unix.SetsockoptSockFprog(g.fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
	if err != nil {
		return fmt.Errorf("turn %s to its receive ring: %w", p.name, err)
	}
	return nil
}

// grace waits until the kernel is through with every frame that it was delivering:
// to close a packet socket does (packet_release, synchronize_net).
func grace() error {
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	return unix.Close(fd)
}

// recv reads queue 1 of p.
func (g *grown) recv(p *Packet, b *frame.Batch, limit int) (int, unix.Errno) {
	if g.drained {
		return g.ring.recv(b, limit)
	}
	// Whatever the first member got before a frame that is in the ring now, it has
	// now too: those first, and then no more of the ring than was there before.
	turned := g.turned.Load()
	there := g.ring.filled(limit)
	n, errno := recvQueue(p.fds[0], b, 0, limit)
	if n > 0 || errno != unix.EAGAIN {
		return n, errno
	}
	g.drained = turned
	if there == 0 {
		return 0, g.ring.pending()
	}
	return g.ring.recv(b, there)
}

// filled returns how many slots the kernel has filled, up to limit.
func (r *rxRing) filled(limit int) (n int) {
	for at := r.next; n < limit; n++ {
		_, h := r.slot(at)
		if atomic.LoadUint32(&h.Status)&unix.TP_STATUS_USER == 0 {
			break
		}
		if at++; at == r.slots {
			at = 0
		}
	}
	return n
}

func (g *grown) close() error {
	err := g.ring.close() // before its socket: see Packet.Close
	if e := unix.Close(g.fd); err == nil {
		err = e
	}
	return err
}
