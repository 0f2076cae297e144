package tunnel_test

import (
	"fmt"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// TestKernelVXLAN joins our VXLAN to the kernel's, with offloads and without.
//
//	c1 ── [host a: vswitchd br0 t1] ── underlay ── [host b: vx0 br0] ── c2
//
// Container c1 has the underlay's MTU, and nobody has told it of the tunnel. c2's is
// what the kernel's device takes.
//
// Where the underlay is no cable, the kernel's device leaves inner checksums to be
// finished and super-frames whole, and a veth hands them over like that.
func TestKernelVXLAN(t *testing.T) {
	for _, test := range []struct {
		name  string
		mtu   int
		six   bool
		cable bool
		more  []string // options of ours
	}{
		{name: "IPv4", mtu: 1500},
		{name: "IPv4, as on a cable", mtu: 1500, cable: true},
		{name: "IPv4, jumbo frames", mtu: 9000},
		{name: "IPv6", mtu: 1500, six: true},
		{name: "IPv6, jumbo frames, as on a cable", mtu: 9000, six: true, cable: true},
		{name: "IPv4, no checksum", mtu: 1500, more: []string{"csum=false"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			overhead := 50
			if test.six {
				overhead = 70
			}
			n := newHosts(t, hostsConfig{underlay: lab.UnderlayOptions{MTU: test.mtu}, cable: test.cable,
				mtu1: test.mtu, mtu2: test.mtu - overhead})
			near, far := n.near, n.far
			if test.six {
				near, far = n.near6, n.far6
			}
			n.b.KernelVXLAN("vx0", 42, far, near, "dev", "eth0")
			n.b.KernelBridge("br0", "vx0", n.c2.Veth)
			n.d.Ctl(append([]string{"add-port", "br0", "t1", "type=vxlan", "key=42", "remote_ip=" + far}, test.more...)...)
			n.exchange(t)
			status, err := tunnelStatus(n.d)
			if err != nil {
				t.Fatal(err)
			}
			if status.MTU != test.mtu-overhead || status.PathMTU != test.mtu {
				t.Errorf("the MTU is said to be %d of %d, and is %d of %d", status.MTU, status.PathMTU, test.mtu-overhead, test.mtu)
			}
		})
	}
}

// TestOVS joins our tunnels of each kind to those of Open vSwitch's userspace
// datapath, which takes nothing but frames as on a cable:
//
//	c1 ── [host a: vswitchd br0 t1] ── underlay ── [host b: br-phy · ovs br0 t1] ── c2
//
// Both containers are left at an MTU of 1500, and Open vSwitch has no answer for
// packets that do not fit: that TCP gets through is our doing.
func TestOVS(t *testing.T) {
	n := newHosts(t, hostsConfig{cable: true})
	o := n.ovs()
	for _, test := range []struct {
		name      string
		six       bool
		ours, ovs []string
	}{
		{name: "VXLAN", ours: []string{"type=vxlan", "key=42"}, ovs: []string{"type=vxlan", "options:key=42"}},
		{name: "VXLAN over IPv6", six: true, ours: []string{"type=vxlan", "key=42"}, ovs: []string{"type=vxlan", "options:key=42"}},
		{name: "VXLAN, other port, two keys, no checksum of ours, checksum of theirs",
			ours: []string{"type=vxlan", "in_key=1", "out_key=2", "dst_port=8472", "csum=false"},
			ovs:  []string{"type=vxlan", "options:in_key=2", "options:out_key=1", "options:dst_port=8472", "options:csum=true"}},
		{name: "GRE", ours: []string{"type=gre"}, ovs: []string{"type=gre"}},
		{name: "GRE with a key", ours: []string{"type=gre", "key=42"}, ovs: []string{"type=gre", "options:key=42"}},
		{name: "GRE with a checksum", ours: []string{"type=gre", "csum=true"}, ovs: []string{"type=gre", "options:csum=true"}},
		{name: "GRE with a key and a checksum, over IPv6", six: true,
			ours: []string{"type=gre", "key=42", "csum=true"}, ovs: []string{"type=gre", "options:key=42", "options:csum=true"}},
		{name: "GRE with sequence numbers", ours: []string{"type=gre", "seq=true"}, ovs: []string{"type=gre", "options:seq=true"}},
		{name: "Geneve", ours: []string{"type=geneve", "key=42"}, ovs: []string{"type=geneve", "options:key=42"}},
		{name: "Geneve over IPv6", six: true, ours: []string{"type=geneve", "key=42"}, ovs: []string{"type=geneve", "options:key=42", "options:csum=true"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := n.near, n.far
			if test.six {
				near, far = n.near6, n.far6
			}
			o.AddTunnel("br0", "t1", append(test.ovs, "options:remote_ip="+near)...)
			defer o.Vsctl("del-port", "t1")
			n.d.Ctl(append([]string{"add-port", "br0", "t1", "remote_ip=" + far}, test.ours...)...)
			defer n.d.Ctl("del-port", "t1")
			n.exchange(t)
		})
	}
}

// ovs makes host b Open vSwitch's, with container c2 on its bridge br0.
func (n *hosts) ovs() *lab.OVS {
	n.Helper()
	o := n.lab.OVS(n.b)
	o.Underlay("br-phy", "eth0")
	o.AddBridge("br0")
	o.AddPort("br0", n.c2.Veth)
	n.c2.NoTxOffload()
	return o
}

// lanLimit is ample for one frame in a lab.
const lanLimit = 5 * time.Second

// TestOVSBFD has both ends watch each other, over a link that is cut and mended.
func TestOVSBFD(t *testing.T) {
	n := newHosts(t, hostsConfig{cable: true})
	o := n.ovs()
	o.AddTunnel("br0", "t1", "type=vxlan", "options:key=42", "options:remote_ip="+n.near,
		"bfd:enable=true", "bfd:min_rx=100", "bfd:min_tx=100")
	n.d.Ctl("add-port", "br0", "t1", "type=vxlan", "key=42", "remote_ip="+n.far,
		"bfd_enable=true", "bfd_min_rx=100", "bfd_min_tx=100")

	both := func(state string, limit time.Duration) {
		t.Helper()
		start := time.Now()
		lab.Eventually(t, limit, func() error {
			ours, err := tunnelStatus(n.d)
			if err != nil {
				return err
			}
			theirs, err := o.BFD("t1")
			if err != nil {
				return err
			}
			// One that has just come up speaks of its shorter intervals a moment later.
			if ours.BFD == nil || ours.BFD.State != state || theirs["state"] != state ||
				state == "up" && (ours.BFD.RemoteState != "up" || ours.BFD.MinRx != 100 || ours.BFD.MinTx != 100) {
				return fmt.Errorf("want %s; ours is %s: %+v; theirs is %v", state, ours.State, ours.BFD, theirs)
			}
			return nil
		})
		t.Logf("both are %s after %v", state, time.Since(start).Round(10*time.Millisecond))
	}
	// A session that is down speaks once a second (RFC 5880, section 6.8.3): three
	// messages make it up. Three that do not come, of 100 ms each, make it down.
	both("up", 6*time.Second)
	n.exchange(t)
	n.net.Cut(n.b)
	both("down", 2*time.Second)
	if ours, err := tunnelStatus(n.d); err != nil || ours.State != "down" || ours.BFD.Diag != "Control Detection Time Expired" {
		t.Errorf("the tunnel is %s (%s), BFD %+v, %v", ours.State, ours.Reason, ours.BFD, err)
	}
	n.net.Mend(n.b)
	both("up", 6*time.Second)
	if err := lab.Ping(n.c1, n.c2); err != nil {
		t.Error(err)
	}
	if ours, err := tunnelStatus(n.d); err != nil || ours.State != "up" || ours.LastHeard == nil {
		t.Errorf("the tunnel is %+v, %v", ours, err)
	}
}
