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

// minGrowKernel is the oldest kernel that grows here. Older ones let a fanout group see what is sent
// by its interface (PACKET_FANOUT_FLAG_IGNORE_OUTGOING), or were not tried.
var minGrowKernel = [2]int{6, 1}

// canGrow reports whether the kernel is new enough.
func canGrow() bool {
	var u unix.Utsname
	var major, minor int
	if unix.Uname(&u) != nil {
		return false
	}
	if n, _ := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &major, &minor); n != 2 {
		return false
	}
	return major > minGrowKernel[0] || major == minGrowKernel[0] && minor >= minGrowKernel[1]
}

// CanGrow reports whether Grow would work: the device was opened with Growable on a
// kernel that is new enough, and has not grown.
func (p *Packet) CanGrow() bool { return p.group != 0 && p.grown.Load() == nil }

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

// Turn makes frames come by the ring that Grow made, once queue 1 is read.
func (p *Packet) Turn() error {
	g := p.grown.Load()
	one := [...]unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 1}}
	if err := unix.SetsockoptSockFprog(g.fd, unix.SOL_PACKET, unix.PACKET_FANOUT_DATA, &unix.SockFprog{Len: 1, Filter: &one[0]}); err != nil {
		return fmt.Errorf("turn %s to its receive ring: %w", p.name, err)
	}
	if err := grace(); err != nil {
		return fmt.Errorf("turn %s to its receive ring: %w", p.name, err)
	}
	g.turned.Store(true)
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

// missed is what the ring's socket adds to Packet.Missed.
func (g *grown) missed() (n uint64) {
	if s, err := unix.GetsockoptTpacketStats(g.fd, unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
		n = uint64(s.Drops)
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
