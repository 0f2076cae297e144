package bfd_test

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vswitch/internal/lab"
	"vswitch/tunnel/bfd"
)

// Open vSwitch's own BFD at the other end of a VXLAN tunnel.
//
//	┌─ host "ovs" ─────────────────────────┐      ┌─ container "us" ──────┐
//	│ br-int ── vx0 ══ br-phy 10.9.0.1/24  │      │ eth0 10.9.0.2/24      │
//	│                    └── veth ─────────┼──────┼─ UDP socket, Session  │
//	└──────────────────────────────────────┘      └───────────────────────┘
func TestOVS(t *testing.T) {
	l := lab.New(t)
	h := l.Host("ovs")
	c := h.Container("us", lab.Addr("10.9.0.2/24"))
	c.NoTxOffload()
	o := l.OVS(h)
	o.AddBridge("br-phy")
	o.AddPort("br-phy", c.Veth)
	h.MustExec("ip", "addr", "add", "10.9.0.1/24", "dev", "br-phy")
	h.MustExec("ip", "link", "set", "br-phy", "up")
	if err := lab.Wait(10*time.Second, func() error { return h.Ping("10.9.0.2") }); err != nil {
		t.Fatal(err)
	}
	o.AddBridge("br-int")

	var conn *net.UDPConn
	if err := c.Do(func() (err error) {
		conn, err = net.ListenUDP("udp4", &net.UDPAddr{Port: vxlanPort})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	o.Vsctl("add-port", "br-int", "vx0", "--", "set", "interface", "vx0", "type=vxlan",
		"options:remote_ip=10.9.0.2", "options:local_ip=10.9.0.1", fmt.Sprintf("options:key=%d", vni),
		"bfd:enable=true", "bfd:min_rx=300", "bfd:min_tx=300")

	addresses := bfd.NewAddresses()
	ovs := netip.MustParseAddrPort("10.9.0.1:4789")
	mute, made := atomic.Bool{}, make(chan struct{})
	s := bfd.New(bfd.Config{
		MinRx: 300 * time.Millisecond, MinTx: 300 * time.Millisecond,
		Send: func(packet []byte) {
			if !mute.Load() {
				conn.WriteToUDPAddrPort(bfd.Encapsulate(vxlanHeader(), addresses, packet), ovs)
			}
		},
		Notify: func(n bfd.Status) {
			<-made
			t.Logf("%v, %v", n.State, n.Diag)
		},
	})
	close(made)
	reader := make(chan struct{})
	go func() { // ends when conn is closed
		defer close(reader)
		b := make([]byte, 2048)
		for first := true; ; {
			n, _, err := conn.ReadFromUDPAddrPort(b)
			if err != nil {
				return
			}
			if n < len(vxlanHeader()) || !bytes.Equal(b[:8], vxlanHeader()) {
				t.Errorf("not of our VNI: %x", b[:n])
				continue
			}
			packet, ok := bfd.Decapsulate(b[8:n])
			if !ok {
				continue // OVS's bridge has a word to say to the network
			}
			if first {
				checkFrame(t, b[8:n], packet)
				first = false
			}
			s.Receive(packet)
		}
	}()
	defer func() {
		conn.Close()
		<-reader
	}()
	defer s.Close()

	// shows waits until both ends say what they should of each other.
	shows := func(when string, state bfd.State, lines ...string) {
		t.Helper()
		if err := lab.Wait(15*time.Second, func() error {
			show := strings.Join(strings.Fields(o.Appctl("bfd/show", "vx0")), " ")
			for _, line := range lines {
				if !strings.Contains(show, line) {
					return fmt.Errorf("ovs does not say %q:\n%s", line, show)
				}
			}
			if got := s.Status(); got.State != state {
				return fmt.Errorf("we are %+v", got)
			}
			return nil
		}); err != nil {
			t.Fatalf("%s: %v", when, err)
		}
	}
	shows("up", bfd.Up,
		"Forwarding: true", "TX Interval: Approx 300ms", "RX Interval: Approx 300ms", "Local Session State: up",
		"Remote Session State: up", "Remote Minimum TX Interval: 300ms", "Remote Minimum RX Interval: 300ms",
		"Local Flags: none", "Remote Flags: none")
	if got := s.Status(); got.MinTx != 300*time.Millisecond || got.DetectionTime != 900*time.Millisecond || got.RxErrors != 0 {
		t.Errorf("up: %+v", got)
	}

	// Either end may change its timers; both poll, and neither goes down for it.
	s.SetConfig(bfd.Config{MinRx: 600 * time.Millisecond, MinTx: 500 * time.Millisecond})
	shows("our timers", bfd.Up, "Remote Minimum TX Interval: 500ms", "Remote Minimum RX Interval: 600ms", "TX Interval: Approx 600ms", "Remote Flags: none")
	o.Vsctl("set", "interface", "vx0", "bfd:min_rx=400", "bfd:min_tx=700")
	shows("its timers", bfd.Up, "Local Minimum TX Interval: 700ms", "RX Interval: Approx 500ms", "Local Flags: none")
	if err := lab.Wait(5*time.Second, func() error {
		if got := s.Status(); got.MinRx != 700*time.Millisecond || got.MinTx != 500*time.Millisecond || got.Flaps != 0 || got.RxErrors != 0 {
			return fmt.Errorf("%+v", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}

	// The path is broken behind it.
	o.Vsctl("set", "interface", "vx0", "bfd:cpath_down=true")
	if err := lab.Wait(5*time.Second, func() error {
		if got := s.Status(); got.State != bfd.Up || got.Forwarding() || got.RemoteDiag != bfd.DiagConcatenated {
			return fmt.Errorf("%+v", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	o.Vsctl("set", "interface", "vx0", "bfd:cpath_down=false")

	// One direction is cut: it hears nothing and says so.
	mute.Store(true)
	shows("muted", bfd.Init, "Local Session State: down", "Local Diagnostic: Control Detection Time Expired")
	if got := s.Status(); got.Diag != bfd.DiagNeighborDown || got.RemoteDiag != bfd.DiagExpired || got.Flaps != 1 {
		t.Errorf("muted: %+v", got)
	}
	mute.Store(false)
	shows("heard again", bfd.Up, "Local Session State: up")

	// It is turned off without a word, and on again with another discriminator.
	o.Vsctl("set", "interface", "vx0", "bfd:enable=false")
	if err := lab.Wait(5*time.Second, func() error {
		if got := s.Status(); got.State != bfd.Down || got.Diag != bfd.DiagExpired {
			return fmt.Errorf("%+v", got)
		}
		return nil
	}); err != nil {
		t.Error(err)
	}
	o.Vsctl("set", "interface", "vx0", "bfd:enable=true")
	shows("restarted", bfd.Up, "Local Session State: up")

	s.Close()
	shows("closed", bfd.AdminDown, "Local Session State: down", "Local Diagnostic: Neighbor Signaled Session Down")
}

const (
	vxlanPort = 4789
	vni       = 42
)

// vxlanHeader is RFC 7348's, with room for a frame behind it.
func vxlanHeader() []byte {
	return append(make([]byte, 0, 8+bfd.FrameLen), 0x08, 0, 0, 0, 0, 0, vni, 0)
}

// checkFrame compares a frame of Open vSwitch with ours, byte for byte, apart from
// what is each one's own: source MAC and source port.
func checkFrame(t *testing.T, frame, packet []byte) {
	a := bfd.NewAddresses()
	copy(a.SrcMAC[:], frame[6:])
	a.SrcPort = uint16(frame[34])<<8 | uint16(frame[35])
	p, err := bfd.Parse(packet)
	if err != nil {
		t.Errorf("open vswitch's packet %x: %v", packet, err)
		return
	}
	ours := bfd.Encapsulate(nil, a, p.Append(nil))
	t.Logf("%x: %+v", frame, p)
	if !bytes.Equal(ours, frame) {
		t.Errorf("open vswitch's frame and ours differ:\n%x\n%x", frame, ours)
	}
}
