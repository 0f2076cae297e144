package lab

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// vnetLen is sizeof(struct virtio_net_hdr), which a VnetConn's frames begin with.
const vnetLen = 10

// Conn sends and receives whole Ethernet frames on one interface, VLAN tags in
// their bytes. Thread-safety: one goroutine may send while another receives.
type Conn struct {
	file *os.File
	name string
	vnet bool
	buf  []byte
	oob  []byte
}

// Conn opens a raw socket on eth0.
func (c *Container) Conn() *Conn {
	c.lab.t.Helper()
	return c.Namespace.Conn("eth0")
}

// Conn opens a raw socket on an interface. It receives what the interface
// receives, whatever its destination address, and not what it sends. It is closed
// with the lab.
func (n *Namespace) Conn(ifname string) *Conn {
	n.lab.t.Helper()
	c, err := n.openConn(ifname, false)
	if err != nil {
		n.lab.t.Fatalf("lab: %v", err)
	}
	return c
}

// VnetConn is Conn with offloads: each frame sent and received begins with its
// 10-byte struct virtio_net_hdr (linux/virtio_net.h), little-endian.
func (n *Namespace) VnetConn(ifname string) *Conn {
	n.lab.t.Helper()
	c, err := n.openConn(ifname, true)
	if err != nil {
		n.lab.t.Fatalf("lab: %v", err)
	}
	return c
}

func (n *Namespace) openConn(ifname string, vnet bool) (*Conn, error) {
	c := &Conn{
		name: ifname + " in " + n.Name,
		vnet: vnet,
		buf:  make([]byte, vnetLen+2*18+65535),
		oob:  make([]byte, unix.CmsgSpace(20)), // struct tpacket_auxdata
	}
	err := n.Do(func() error {
		ifi, err := net.InterfaceByName(ifname)
		if err != nil {
			return err
		}
		// Protocol 0: nothing is received before bind says from where.
		fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
		if err != nil {
			return err
		}
		if err := prepare(fd, ifi.Index, vnet); err != nil {
			unix.Close(fd)
			return err
		}
		c.file = os.NewFile(uintptr(fd), "packet:"+ifname)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("open packet socket on %s: %w", c.name, err)
	}
	n.lab.Cleanup(func() { c.file.Close() })
	return c, nil
}

func prepare(fd, ifindex int, vnet bool) error {
	options := []int{unix.PACKET_AUXDATA, unix.PACKET_IGNORE_OUTGOING}
	if vnet {
		options = append(options, unix.PACKET_VNET_HDR)
	}
	for _, option := range options {
		if err := unix.SetsockoptInt(fd, unix.SOL_PACKET, option, 1); err != nil {
			return fmt.Errorf("socket option %d: %w", option, err)
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 64<<20); err != nil {
		return fmt.Errorf("receive buffer: %w", err)
	}
	mreq := unix.PacketMreq{Ifindex: int32(ifindex), Type: unix.PACKET_MR_PROMISC}
	if err := unix.SetsockoptPacketMreq(fd, unix.SOL_PACKET, unix.PACKET_ADD_MEMBERSHIP, &mreq); err != nil {
		return fmt.Errorf("promiscuous membership: %w", err)
	}
	all := binary.BigEndian.Uint16(binary.NativeEndian.AppendUint16(nil, unix.ETH_P_ALL))
	return unix.Bind(fd, &unix.SockaddrLinklayer{Protocol: all, Ifindex: ifindex})
}

// Send sends one frame, as it is.
func (c *Conn) Send(frame []byte) error {
	raw, err := c.file.SyscallConn()
	if err == nil {
		c.file.SetWriteDeadline(time.Now().Add(5 * time.Second))
		sendErr := raw.Write(func(fd uintptr) bool {
			_, err = unix.SendmsgN(int(fd), frame, nil, nil, 0)
			return err != unix.EAGAIN && err != unix.ENOBUFS
		})
		err = errors.Join(sendErr, err)
	}
	if err != nil {
		return fmt.Errorf("send %d bytes on %s: %w", len(frame), c.name, err)
	}
	return nil
}

// Recv returns the next frame, with the VLAN tag that the kernel took out put back
// where it was. The error is os.ErrDeadlineExceeded when none came in time.
func (c *Conn) Recv(limit time.Duration) ([]byte, error) {
	c.file.SetReadDeadline(time.Now().Add(limit))
	return c.recv()
}

func (c *Conn) recv() ([]byte, error) {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return nil, err
	}
	var n, oobn, flags int
	waitErr := raw.Read(func(fd uintptr) bool {
		for {
			n, oobn, flags, _, err = unix.Recvmsg(int(fd), c.buf, c.oob, 0)
			if err != unix.EINTR {
				return err != unix.EAGAIN
			}
		}
	})
	if err = errors.Join(waitErr, ignoreAgain(err)); err != nil {
		return nil, fmt.Errorf("receive on %s: %w", c.name, err)
	}
	if flags&unix.MSG_TRUNC != 0 {
		return nil, fmt.Errorf("receive on %s: frame longer than %d bytes", c.name, len(c.buf))
	}
	frame := bytes.Clone(c.buf[:n])
	if tpid, tci, ok := tagFrom(c.oob[:oobn]); ok {
		at := 12
		if c.vnet {
			at += vnetLen
		}
		if len(frame) < at {
			return nil, fmt.Errorf("receive on %s: tagged frame of %d bytes", c.name, len(frame))
		}
		tag := binary.BigEndian.AppendUint16(nil, tpid)
		tag = binary.BigEndian.AppendUint16(tag, tci)
		frame = append(frame[:at:at], append(tag, frame[at:]...)...)
	}
	return frame, nil
}

func ignoreAgain(err error) error {
	if err == unix.EAGAIN {
		return nil // the poller's own error says why
	}
	return err
}

// tagFrom finds the VLAN tag in control data (struct tpacket_auxdata, packet(7)):
//
//	0 status 4 len 8 snaplen 12 mac 14 net 16 vlan_tci 18 vlan_tpid
func tagFrom(oob []byte) (tpid, tci uint16, ok bool) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return 0, 0, false
	}
	for _, m := range messages {
		if m.Header.Level != unix.SOL_PACKET || m.Header.Type != unix.PACKET_AUXDATA || len(m.Data) < 20 {
			continue
		}
		status := binary.NativeEndian.Uint32(m.Data)
		if status&unix.TP_STATUS_VLAN_VALID == 0 {
			return 0, 0, false
		}
		tci, tpid = binary.NativeEndian.Uint16(m.Data[16:]), binary.NativeEndian.Uint16(m.Data[18:])
		if status&unix.TP_STATUS_VLAN_TPID_VALID == 0 {
			tpid = 0x8100
		}
		return tpid, tci, true
	}
	return 0, 0, false
}

// Collect returns the frames that come until none has come for the duration
// quiet, and none where there are none.
func (c *Conn) Collect(quiet time.Duration) ([][]byte, error) {
	var frames [][]byte
	for {
		frame, err := c.Recv(quiet)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		frames = append(frames, frame)
	}
}

// Drain throws away what has come so far, and says how many frames that was.
func (c *Conn) Drain() int {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return 0
	}
	n := 0
	raw.Control(func(fd uintptr) {
		for {
			_, _, _, _, err := unix.Recvmsg(int(fd), c.buf, nil, unix.MSG_DONTWAIT)
			if err == unix.EINTR || err == unix.ENETDOWN {
				continue
			}
			if err != nil {
				return
			}
			n++
		}
	})
	return n
}

// Drops returns how many frames the kernel could not keep for this socket since
// the last call: a test that compares frames wants 0.
func (c *Conn) Drops() (drops uint32, err error) {
	raw, err := c.file.SyscallConn()
	if err != nil {
		return 0, err
	}
	if ctl := raw.Control(func(fd uintptr) {
		var stats *unix.TpacketStats
		if stats, err = unix.GetsockoptTpacketStats(int(fd), unix.SOL_PACKET, unix.PACKET_STATISTICS); err == nil {
			drops = stats.Drops
		}
	}); ctl != nil {
		return 0, ctl
	}
	return drops, err
}

// Close closes the socket; the lab does it too.
func (c *Conn) Close() error { return c.file.Close() }

var _ syscall.Conn = (*os.File)(nil) // what deadlines on a raw socket lean on
