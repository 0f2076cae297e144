package tunnel

import (
	"fmt"
	"unsafe"

	"golang.org/x/sys/unix"
)

// askPort is the UDP port that PathMTU connects to for GRE, which has none; nothing
// is sent there.
const askPort = 9

// PathMTU asks the kernel for the path MTU to the remote: the largest outer IP
// packet in bytes. It is the MTU of the route, or less where a router told the
// kernel so (ICMP fragmentation needed, packet too big).
//
// A UDP socket that is connected once more looks the route up anew; disconnected
// before, it forgets the source address of the route that it had, which the host may
// not have any more (connect(2), AF_UNSPEC).
func (p *Port) PathMTU() (int, error) {
	e := p.e
	e.mu.Lock()
	defer e.mu.Unlock()
	mtu, err := p.askLocked()
	if err != nil {
		return 0, fmt.Errorf("ask for the path MTU to %s: %w", p.config.Remote, err)
	}
	return mtu, nil
}

func (p *Port) askLocked() (int, error) {
	e := p.e
	local := e.config.Local
	level, option := unix.SOL_IP, unix.IP_MTU
	if local.Is6() {
		level, option = unix.SOL_IPV6, unix.IPV6_MTU
	}
	if e.asker < 0 {
		fd, err := openSocket(VXLAN, local, 0)
		if err != nil {
			return 0, err
		}
		if err := dropAll(fd); err != nil {
			unix.Close(fd)
			return 0, err
		}
		e.asker = fd
	}
	unspecified := unix.RawSockaddr{Family: unix.AF_UNSPEC}
	if _, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(e.asker), uintptr(unsafe.Pointer(&unspecified)), unix.SizeofSockaddrInet4); e != 0 {
		return 0, e
	}
	port := p.config.DstPort
	if port == 0 {
		port = askPort
	}
	if err := unix.Connect(e.asker, sockaddr(p.config.Remote, port)); err != nil {
		return 0, err
	}
	return unix.GetsockoptInt(e.asker, level, option)
}
