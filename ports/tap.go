package ports

import (
	"fmt"
	"os"
	"sync/atomic"
	"unsafe"

	"github.com/songgao/water"
	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"vswitch/frame"
)

// TAPOptions say how a TAP interface is made.
type TAPOptions struct {
	Alias string // ifalias: how the switch knows it for its own later; see Owned
	MAC   []byte // 6 bytes, or nil for one of the kernel's choosing
	MTU   int    // bytes; 0 is the kernel's 1500
	Owner int    // uid that may attach to a persistent TAP; -1 asks nobody's uid
	Group int    // gid that may; -1 asks nobody's gid
}

// TAP is a device on a TAP interface whose file descriptor the switch holds: the
// host is at the other end. It is how a bridge's local port and internal ports
// are made. Such a TAP is not persistent: when the switch goes, however it goes,
// the kernel removes it.
//
// A TAP has no recvmmsg and no sendmmsg: one readv or writev a frame; with
// IFF_VNET_HDR a frame can be a super-frame.
//
// Thread-safety: as Packet.
type TAP struct {
	fd int
}

// temporary is the name under which a TAP is born, before it has its alias and
// its own name. RemoveOwned knows it and whose process it was.
const temporary = "vsw."

// OpenTAP makes a TAP interface called name and opens it as a device. An
// interface of that name must not exist; the error then is EEXIST. It is down,
// and has no address.
//
// water makes a TAP without virtio-net headers, and the kernel takes
// IFF_VNET_HDR only when a TAP's first descriptor attaches. So the TAP is made
// persistent, taken over by a descriptor of our own, and persistent no longer;
// under a temporary name, so that what a crash in between leaves behind can be
// told from a TAP of the user's.
func OpenTAP(name string, o TAPOptions) (*TAP, error) {
	tmp, err := makeTAP(o)
	if err != nil {
		return nil, fmt.Errorf("make TAP %s: %w", name, err)
	}
	t, err := attachTAP(tmp)
	if err != nil {
		removeLink(tmp)
		return nil, fmt.Errorf("attach to TAP %s: %w", name, err)
	}
	if err := renameLink(tmp, name); err != nil {
		t.Close() // not persistent any more: it goes with its descriptor
		return nil, fmt.Errorf("make TAP %s: %w", name, err)
	}
	return t, nil
}

// MakePersistentTAP makes a TAP interface called name that stays when its maker
// goes, for a virtual machine to attach to; the switch forwards at its other
// side, as at any interface (see OpenPacket).
func MakePersistentTAP(name string, o TAPOptions) error {
	tmp, err := makeTAP(o)
	if err != nil {
		return fmt.Errorf("make TAP %s: %w", name, err)
	}
	if err := setOwner(tmp, o.Owner, o.Group); err != nil {
		removeLink(tmp)
		return fmt.Errorf("make TAP %s: set its owner: %w", name, err)
	}
	// The host is not to speak to the machine: without an address of its own it has
	// no neighbour discovery and no listener reports to send. A kernel without IPv6
	// refuses, and has none to send either.
	if l, err := netlink.LinkByName(tmp); err == nil {
		_ = netlink.LinkSetIP6AddrGenMode(l, nl.IN6_ADDR_GEN_MODE_NONE)
	}
	if err := renameLink(tmp, name); err != nil {
		removeLink(tmp)
		return fmt.Errorf("make TAP %s: %w", name, err)
	}
	return nil
}

// setOwner says who may attach to a persistent TAP. The kernel lets anybody who
// meets what was set (tun_not_capable), so with neither set it would let in
// everybody: then it is root's.
//
// Not by water: it sets both or none.
func setOwner(name string, uid, gid int) error {
	if uid < 0 && gid < 0 {
		uid = 0
	}
	fd, err := openTAP(name)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if uid >= 0 {
		if err := unix.IoctlSetInt(fd, unix.TUNSETOWNER, uid); err != nil {
			return err
		}
	}
	if gid >= 0 {
		return unix.IoctlSetInt(fd, unix.TUNSETGROUP, gid)
	}
	return nil
}

var tapSerial atomic.Uint32

// makeTAP makes a persistent TAP with a temporary name and returns the name.
func makeTAP(o TAPOptions) (string, error) {
	name := fmt.Sprintf("%s%d.%d", temporary, os.Getpid(), tapSerial.Add(1)%100)
	cfg := water.Config{DeviceType: water.TAP}
	cfg.Name = name
	cfg.Persist = true
	ifce, err := water.New(cfg)
	if err != nil {
		return "", fmt.Errorf("%w%s", err, needs(err, "CAP_NET_ADMIN and /dev/net/tun"))
	}
	if err := ifce.Close(); err != nil {
		return "", err
	}
	link, err := netlink.LinkByName(name)
	if err == nil && o.Alias != "" {
		err = netlink.LinkSetAlias(link, o.Alias)
	}
	if err == nil && o.MAC != nil {
		err = netlink.LinkSetHardwareAddr(link, o.MAC)
	}
	if err == nil && o.MTU != 0 {
		err = netlink.LinkSetMTU(link, o.MTU)
	}
	if err != nil {
		removeLink(name)
		return "", err
	}
	return name, nil
}

// Offload flags of TUNSETOFFLOAD, linux/if_tun.h: what the host's stack may hand
// us unfinished.
const (
	tunFCsum = 0x01
	tunFTSO4 = 0x02
	tunFTSO6 = 0x04
	tunFECN  = 0x08
	tunFUSO4 = 0x20 // Linux 6.2
	tunFUSO6 = 0x40
)

// attachTAP takes the TAP called name, which must be persistent and attached to
// by nobody, with virtio-net headers and offloads, and makes it go with the
// descriptor.
func attachTAP(name string) (*TAP, error) {
	fd, err := openTAP(name)
	if err != nil {
		return nil, err
	}
	const all = tunFCsum | tunFTSO4 | tunFTSO6 | tunFECN
	if unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, all|tunFUSO4|tunFUSO6) != nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETOFFLOAD, all)
	}
	if err == nil {
		err = unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 0)
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	return &TAP{fd: fd}, nil
}

// openTAP attaches a descriptor to the TAP called name, with virtio-net headers.
func openTAP(name string) (int, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, fmt.Errorf("open /dev/net/tun: %w", err)
	}
	req, err := unix.NewIfreq(name)
	if err == nil {
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// Queues returns 1.
func (t *TAP) Queues() int { return 1 }

// FD returns the descriptor of the only queue.
func (t *TAP) FD(int) int { return t.fd }

// SendFD returns it, too.
func (t *TAP) SendFD(int) int { return t.fd }

// Offloads reports whether frames may leave unfinished: the host's stack takes
// what its own devices may hand it.
func (t *TAP) Offloads() bool { return true }

// Missed returns 0: a TAP's queue drops on the host's side, which the interface's
// own tx_dropped counts.
func (t *TAP) Missed() uint64 { return 0 }

// Recv is described at Packet.Recv; it reads one frame a system call, until none
// waits.
func (t *TAP) Recv(_ int, b *frame.Batch, limit int) (int, unix.Errno) {
	for b.N = 0; b.N < limit; {
		iov := b.Msgs[b.N].Hdr.Iov
		n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(t.fd), uintptr(unsafe.Pointer(iov.Base)), uintptr(iov.Len))
		if e == unix.EINTR {
			continue
		}
		if e != 0 {
			return b.N, e
		}
		m := &b.Msgs[b.N]
		m.Len = uint32(n)
		m.Hdr.Flags = 0
		f := b.Received(b.N)
		// A read that fills the buffer to the last byte was cut off.
		f.Truncated = n == frame.VnetLen+frame.MaxLen
		f.PopTag()
		b.N++
	}
	return b.N, 0
}

// Send is described at Packet.Send; it writes one frame a system call.
func (t *TAP) Send(_ int, v *frame.Vectors, out []frame.Out) (int, unix.Errno) {
	v.Gather(out)
	for i := range out {
		h := &v.Msgs[i].Hdr
		for {
			_, _, e := unix.RawSyscall(unix.SYS_WRITEV, uintptr(t.fd), uintptr(unsafe.Pointer(h.Iov)), uintptr(h.Iovlen))
			if e == unix.EINTR {
				continue
			}
			if e != 0 {
				return i, e
			}
			break
		}
	}
	return len(out), 0
}

// Name returns the interface's name in the network namespace where it is now, and
// whether it exists: somebody may have renamed it, moved it to another namespace,
// where frames go on flowing, or removed it (TUNGETIFF fails with EBADFD).
func (t *TAP) Name() (name string, exists bool) {
	req, err := unix.NewIfreq("")
	if err != nil || unix.IoctlIfreq(t.fd, unix.TUNGETIFF, req) != nil {
		return "", false
	}
	return req.Name(), true
}

// Close closes the descriptor, and the kernel removes the interface.
func (t *TAP) Close() error { return unix.Close(t.fd) }
