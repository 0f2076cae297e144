package ctl

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"slices"
	"syscall"
	"time"
	"unsafe"

	"github.com/mdlayher/packet"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/capture"
	"vswitch/frame"
)

// outerSocket is a packet socket on an interface of the underlay, and the packet that
// was read from it last.
type outerSocket struct {
	name        string
	description capture.Interface
	conn        *packet.Conn
	raw         syscall.RawConn
	ethernet    bool // else packets begin with the IP header
	tunnels     []outerTunnel

	buf, control []byte
	full         bool // what follows is a packet that was not shown yet
	at           time.Time
	direction    capture.Direction
	data         []byte
	tag          frame.Tag
	offload      frame.Offload
	wireLen      int
}

// outerBuffer is a socket's receive buffer in bytes: what comes while the reader is
// busy.
const outerBuffer = 8 << 20

// openOuter opens a socket that takes nothing until want is called.
func openOuter(index int) (*outerSocket, error) {
	link, err := netlink.LinkByIndex(index)
	if err != nil {
		return nil, fmt.Errorf("capture tunnel packets: find interface %d: %w", index, err)
	}
	name := link.Attrs().Name
	s := &outerSocket{
		name: name, description: capture.Interface{Name: name, Description: "underlay"},
		buf:     make([]byte, frame.VnetLen+2*frame.EthLen+frame.MaxLen),
		control: make([]byte, unix.CmsgSpace(int(unsafe.Sizeof(unix.TpacketAuxdata{})))+unix.CmsgSpace(int(unsafe.Sizeof(unix.Timespec{})))),
	}
	switch link.Attrs().EncapType {
	case "ether", "loopback":
		s.ethernet = true
	default:
		s.description.Description = "underlay; it has no Ethernet header, and zeros stand for it"
	}
	nothing, err := assembleNothing()
	if err != nil {
		return nil, err
	}
	// Packets that come before the options are set would be without their headers:
	// the filter keeps them out.
	s.conn, err = packet.Listen(&net.Interface{Index: index, Name: name}, packet.Raw, unix.ETH_P_ALL, &packet.Config{Filter: nothing})
	if err != nil {
		return nil, fmt.Errorf("capture tunnel packets: open packet socket on %s: %w", name, err)
	}
	if s.raw, err = s.conn.SyscallConn(); err == nil {
		err = s.setOptions()
	}
	if err != nil {
		s.close()
		return nil, fmt.Errorf("capture tunnel packets on %s: %w", name, err)
	}
	return s, nil
}

func (s *outerSocket) setOptions() error {
	var failed error
	err := s.raw.Control(func(fd uintptr) {
		for _, o := range []struct {
			name       string
			level, num int
		}{
			{"PACKET_VNET_HDR", unix.SOL_PACKET, unix.PACKET_VNET_HDR},
			{"PACKET_AUXDATA", unix.SOL_PACKET, unix.PACKET_AUXDATA},
			{"SO_TIMESTAMPNS", unix.SOL_SOCKET, unix.SO_TIMESTAMPNS},
		} {
			if err := unix.SetsockoptInt(int(fd), o.level, o.num, 1); err != nil {
				failed = fmt.Errorf("set %s: %w", o.name, err)
				return
			}
		}
		if unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, outerBuffer) != nil {
			unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, outerBuffer)
		}
	})
	return errors.Join(err, failed)
}

// want has the kernel let the tunnels' packets through, and no others.
func (s *outerSocket) want(tunnels []outerTunnel) error {
	if slices.Equal(tunnels, s.tunnels) {
		return nil
	}
	code, err := outerFilter(tunnels, s.ethernet)
	if err == nil {
		err = s.conn.SetBPF(code)
	}
	if err != nil {
		return fmt.Errorf("capture tunnel packets on %s: set filter: %w", s.name, err)
	}
	s.tunnels = tunnels
	return nil
}

func (s *outerSocket) close() { s.conn.Close() }

// missed returns how many packets the kernel had no room for since the last call.
func (s *outerSocket) missed() uint64 {
	st, err := s.conn.Stats()
	if err != nil {
		return 0
	}
	return uint64(st.Drops)
}

// fill reads a packet if there is one and none is held.
func (s *outerSocket) fill() {
	for !s.full {
		n, controlLen, got := 0, 0, false
		var from unix.Sockaddr
		// The function always says that it is done: it never waits.
		err := s.raw.Read(func(fd uintptr) bool {
			var err error
			n, controlLen, _, from, err = unix.Recvmsg(int(fd), s.buf[frame.EthLen:], s.control, unix.MSG_DONTWAIT|unix.MSG_TRUNC)
			got = err == nil
			return true
		})
		if err != nil || !got {
			return
		}
		s.full = s.take(n, s.control[:controlLen], from)
	}
}

// take reads what was received: n bytes, of which the buffer may hold fewer.
func (s *outerSocket) take(n int, control []byte, from unix.Sockaddr) bool {
	ll, ok := from.(*unix.SockaddrLinklayer)
	if !ok || n < frame.VnetLen {
		return false
	}
	b := s.buf[frame.EthLen:]
	s.offload.GetVnet(b)
	s.wireLen = n - frame.VnetLen
	s.data = b[frame.VnetLen:min(n, len(b))]
	if !s.ethernet { // zeros stand before it, and the protocol
		s.data = s.buf[frame.VnetLen:][:frame.EthLen+len(s.data)]
		clear(s.data[:frame.AddrLen])
		binary.NativeEndian.PutUint16(s.data[frame.AddrLen:], ll.Protocol)
		s.wireLen += frame.EthLen
		if s.offload.Flags&frame.NeedsCsum != 0 {
			s.offload.CsumStart += frame.EthLen
		}
	}
	s.direction = capture.Inbound
	if ll.Pkttype == unix.PACKET_OUTGOING {
		s.direction = capture.Outbound
	}
	s.at, s.tag = time.Now(), frame.Tag{}
	messages, err := unix.ParseSocketControlMessage(control)
	if err != nil {
		return true
	}
	for _, m := range messages {
		switch {
		case m.Header.Level == unix.SOL_SOCKET && m.Header.Type == unix.SCM_TIMESTAMPNS && len(m.Data) >= 16:
			s.at = time.Unix(int64(binary.NativeEndian.Uint64(m.Data)), int64(binary.NativeEndian.Uint64(m.Data[8:])))
		case m.Header.Level == unix.SOL_PACKET && m.Header.Type == unix.PACKET_AUXDATA && len(m.Data) >= int(unsafe.Sizeof(unix.TpacketAuxdata{})):
			aux := (*unix.TpacketAuxdata)(unsafe.Pointer(&m.Data[0]))
			if aux.Status&unix.TP_STATUS_VLAN_VALID != 0 {
				s.tag = frame.Tag{TPID: frame.TPID8021Q, TCI: aux.Vlan_tci}
				if aux.Status&unix.TP_STATUS_VLAN_TPID_VALID != 0 {
					s.tag.TPID = aux.Vlan_tpid
				}
				s.wireLen += frame.TagLen
			}
		}
	}
	return true
}
