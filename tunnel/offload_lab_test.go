package tunnel_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

// TestUDPSegments has a container send datagrams that its kernel does not cut apart
// (UDP_SEGMENT), and sees them arrive one by one, in order, and whole: at our like,
// and at the kernel's VXLAN over a cable.
//
//	c1 ── [host a: vswitchd] ── underlay ── [host b: vswitchd, or vx0] ── c2
func TestUDPSegments(t *testing.T) {
	for _, test := range []struct {
		name   string
		kernel bool
		kind   string
	}{{"VXLAN to the kernel", true, "vxlan"}, {"VXLAN", false, "vxlan"}, {"GRE", false, "gre"}} {
		t.Run(test.name, func(t *testing.T) {
			n := newHosts(t, hostsConfig{cable: test.kernel, mtu2: 1450})
			if test.kernel {
				n.b.KernelVXLAN("vx0", 42, n.far, n.near)
				n.b.KernelBridge("br0", "vx0", n.c2.Veth)
				n.d.Ctl("add-port", "br0", "t1", "type=vxlan", "key=42", "remote_ip="+n.far)
			} else {
				n.peer("type=" + test.kind)
			}
			if err := lab.Ping(n.c1, n.c2); err != nil {
				t.Fatal(err)
			}
			for _, addr := range []string{"10.0.0.2", "fd00::2"} {
				if err := n.segments(addr, 40, 1200); err != nil {
					t.Errorf("to %s: %v", addr, err)
				}
			}
		})
	}
}

// segments sends count datagrams of size bytes to an address of container c2 by one
// system call, five times.
func (n *hosts) segments(addr string, count, size int) error {
	var to *net.UDPConn
	err := n.c2.Do(func() (err error) {
		to, err = net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(addr), 0)))
		return err
	})
	if err != nil {
		return err
	}
	defer to.Close()
	var from *net.UDPConn
	err = n.c1.Do(func() error {
		c, err := net.Dial("udp", to.LocalAddr().String())
		if err == nil {
			from = c.(*net.UDPConn)
		}
		return err
	})
	if err != nil {
		return err
	}
	defer from.Close()
	raw, err := from.SyscallConn()
	if err != nil {
		return err
	}
	control := raw.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_UDP, unix.UDP_SEGMENT, size)
	})
	if err := errors.Join(control, err); err != nil {
		return err
	}
	random := rand.NewChaCha8([32]byte{})
	for range 5 {
		sent := make([]byte, count*size)
		random.Read(sent)
		if _, err := from.Write(sent); err != nil {
			return err
		}
		to.SetReadDeadline(time.Now().Add(lanLimit))
		for i := range count {
			got := make([]byte, 65536)
			read, err := to.Read(got)
			if err != nil {
				return fmt.Errorf("datagram %d of %d: %w", i, count, err)
			}
			if !bytes.Equal(got[:read], sent[i*size:][:size]) {
				return fmt.Errorf("datagram %d of %d, %d bytes, is not what was sent", i, count, read)
			}
		}
	}
	return nil
}

// TestCorruptStaysCorrupt sends TCP segments of which one was damaged before it came
// to the tunnel, close enough together to be joined, and sees it come out as damaged
// as it went in: nobody has computed a checksum that would make it pass.
func TestCorruptStaysCorrupt(t *testing.T) {
	for _, kind := range []string{"vxlan", "gre"} {
		t.Run(kind, func(t *testing.T) {
			n := newHosts(t, hostsConfig{})
			n.peer("type=" + kind)
			in, out := n.c1.Conn(), n.c2.Conn()
			for round := range 20 {
				var burst [][]byte
				for i := range 8 {
					burst = append(burst, segment(uint32(round*8+i)*1000, 1000))
				}
				corrupt := burst[round%8]
				corrupt[100] ^= 0x40
				for _, frame := range burst {
					if err := in.Send(frame); err != nil {
						t.Fatal(err)
					}
				}
				if err := recvFrame(out, corrupt); err != nil {
					t.Fatalf("round %d: %v", round, err)
				}
			}
		})
	}
}

// segment returns a frame with a TCP segment of a stream of bytes that are all alike.
func segment(seq uint32, size int) []byte {
	b := make([]byte, 14+20+20+size)
	copy(b, "\x02\x00\x00\x00\x00\x99\x02\x00\x00\x00\x00\x01\x08\x00")
	ip := b[14:]
	copy(ip, []byte{0x45, 0, 0, 0, 0, 0, 0x40, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 99})
	binary.BigEndian.PutUint16(ip[2:], uint16(len(ip)))
	binary.BigEndian.PutUint16(ip[10:], ^naiveSum(ip[:20]))
	tcp := ip[20:]
	copy(tcp, []byte{4, 0, 4, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff})
	binary.BigEndian.PutUint32(tcp[4:], seq)
	pseudo := append(bytes.Clone(ip[12:20]), 0, 6, byte(len(tcp)>>8), byte(len(tcp)))
	binary.BigEndian.PutUint16(tcp[16:], ^naiveSum(append(pseudo, tcp...)))
	return b
}
