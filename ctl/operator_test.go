package ctl_test

import (
	"bytes"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestWhatOperatorsMeet goes through what goes wrong by hand, on one host:
//
//	c1 10.0.0.1 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── 10.0.0.2 c2
func TestWhatOperatorsMeet(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	d := p.d

	t.Run("not Ethernet", func(t *testing.T) {
		_, stderr, code := d.CtlErr("add-port", "br0", "lo")
		if err := has(stderr, "lo", "not Ethernet"); code != 0 || err != nil {
			t.Errorf("status %d, %v", code, err)
		}
		waitPort(t, d, "lo", api.PortError, "interface lo is not Ethernet")
		d.Ctl("del-port", "lo")
	})

	t.Run("names and options", func(t *testing.T) {
		refused(t, d, []string{"add-port", "br0", "sixteen-bytes-xx"}, "sixteen-bytes-xx", "15")
		refused(t, d, []string{"add-br", "sixteen-bytes-xx"}, "sixteen-bytes-xx", "15")
		refused(t, d, []string{"add-port", "br0", "x", "tga=5"}, `unknown option "tga" for port type packet; did you mean "tag"?`)
		refused(t, d, []string{"add-port", "br0", "x", "type=vxlna"}, `"vxlna" is not a port type`)
		refused(t, d, []string{"add-port", "br0", p.c1.Veth}, "is a port of br0 already")
		refused(t, d, []string{"add-port", "br9", "x"}, `no bridge is named "br9"`)
		refused(t, d, []string{"set-port", "veth-c3", "tag=1"}, "did you mean")
	})

	t.Run("a foreign interface has the bridge's name", func(t *testing.T) {
		p.h.MustExec("ip", "link", "add", "name", "br7", "type", "veth", "peer", "name", "br7-peer")
		_, stderr, code := d.CtlErr("add-br", "br7", "ip=10.7.0.1/24")
		if err := has(stderr, "ip link del br7", "choose another name"); code != 0 || err != nil {
			t.Errorf("status %d, %v", code, err)
		}
		waitPort(t, d, "br7", api.PortError, "interface br7 exists already and is not the switch's", "ip link del br7")
		p.h.MustExec("ip", "link", "del", "br7")
		begin := time.Now()
		waitPort(t, d, "br7", api.PortUp)
		if took := time.Since(begin); took > prompt {
			t.Errorf("br7 came up %v after its name was free", took)
		}
		for _, line := range p.h.Snapshot() {
			if strings.Contains(line, "vsw.") {
				t.Errorf("a try left %s", line)
			}
		}
		d.Ctl("del-br", "br7")
		if _, err := p.h.Link("br7"); err == nil {
			t.Error("br7 is there after del-br")
		}
	})

	t.Run("a foreign interface has the TAP's name", func(t *testing.T) {
		p.h.MustExec("ip", "link", "add", "name", "vm7", "type", "veth", "peer", "name", "vm7-peer")
		d.Ctl("add-port", "br0", "vm7", "type=tap")
		waitPort(t, d, "vm7", api.PortError, "vm7 exists already and is no TAP", "ip link del vm7")
		d.Ctl("del-port", "vm7")
		if _, err := p.h.Link("vm7"); err != nil {
			t.Errorf("del-port took an interface that is not the switch's: %v", err)
		}
		p.h.MustExec("ip", "link", "del", "vm7")
	})

	t.Run("taken down by hand", func(t *testing.T) {
		p.h.MustExec("ip", "link", "set", p.c1.Veth, "down")
		waitPort(t, d, p.c1.Veth, api.PortDown, "the interface is down", "ip link set "+p.c1.Veth+" up")
		p.h.MustExec("ip", "link", "set", p.c1.Veth, "up")
		waitPort(t, d, p.c1.Veth, api.PortUp)
		forwards(t, p.c1, p.c2, patient)
		forwards(t, p.c2, p.c1, patient)
	})

	t.Run("the other end is down", func(t *testing.T) {
		p.c1.MustExec("ip", "link", "set", "eth0", "down")
		waitPort(t, d, p.c1.Veth, api.PortDown, "no carrier: the other end is down or gone")
		p.c1.MustExec("ip", "link", "set", "eth0", "up")
		waitPort(t, d, p.c1.Veth, api.PortUp)
		forwards(t, p.c1, p.c2, patient)
		forwards(t, p.c2, p.c1, patient)
	})

	t.Run("moved to another namespace", func(t *testing.T) {
		p.h.MustExec("ip", "link", "set", p.c1.Veth, "netns", p.c2.Name)
		waitPort(t, d, p.c1.Veth, api.PortWaiting, "does not exist")
		p.c2.MustExec("ip", "link", "set", p.c1.Veth, "netns", p.h.Name)
		waitPort(t, d, p.c1.Veth, api.PortUp) // and raised
		forwards(t, p.c1, p.c2, patient)
	})

	t.Run("MTU", func(t *testing.T) {
		p.h.MustExec("ip", "link", "set", p.c1.Veth, "mtu", "1400")
		lab.Eventually(t, patient, func() error {
			if st := mustPort(t, d, p.c1.Veth); st.MTU != 1400 {
				return fmt.Errorf("%s has MTU %d", st.Name, st.MTU)
			}
			return nil
		})
		p.h.MustExec("ip", "link", "set", p.c1.Veth, "mtu", "1500")
	})

	t.Run("two bridges", func(t *testing.T) {
		before := p.h.Snapshot()
		c3 := p.h.Container("c3")
		c4 := p.h.Container("c4")
		d.Ctl("add-br", "br1")
		d.Ctl("add-port", "br1", c3.Veth)
		d.Ctl("add-port", "br1", c4.Veth)
		forwards(t, c3, c4, patient)
		if err := separate(p.c1, c3, p.c2); err != nil {
			t.Error(err)
		}
		if err := separate(c3, p.c1, c4); err != nil {
			t.Error(err)
		}
		d.Ctl("add-port", "br1", "int1", "type=internal", "ip=10.1.0.1/24")
		d.Ctl("add-port", "br1", "vm1", "type=tap")
		d.Ctl("del-br", "br1")
		c3.Unplug()
		c4.Unplug()
		unchanged(t, "after del-br", before, p.h)
		forwards(t, p.c1, p.c2, patient)
	})
}

// TestOptionsAtRunTime changes every option of ports that work:
//
//	c1 10.0.0.1 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── 10.0.0.2 c2
func TestOptionsAtRunTime(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	d := p.d
	ip := func(args ...string) string { return p.h.MustExec(append([]string{"ip"}, args...)...) }

	t.Run("tag and trunks", func(t *testing.T) {
		in, out := p.c1.Conn(), p.c2.Conn()
		passes := func(f, want []byte) error {
			if err := in.Send(f); err != nil {
				return err
			}
			frames, err := out.Collect(30 * time.Millisecond)
			got := slices.ContainsFunc(frames, func(g []byte) bool { return bytes.Equal(g, want) })
			if want == nil && len(frames) > 0 || want != nil && !got {
				return fmt.Errorf("% x came out as % x, want % x (%v)", f, frames, want, err)
			}
			return nil
		}
		plain := testFrame(p.c1.MAC, 0)
		tagged := slices.Insert(slices.Clone(plain), 12, 0x81, 0, 0, 10)
		for _, step := range []struct {
			port    string
			options []string
			f, want []byte
		}{
			{p.c1.Veth, []string{"tag=10"}, plain, tagged},
			{p.c2.Veth, []string{"tag=10"}, plain, plain},
			{p.c2.Veth, []string{"tag=11"}, plain, nil},
			{p.c2.Veth, []string{"tag=", "trunks=11"}, plain, nil},
			{p.c2.Veth, []string{"trunks=10-12"}, plain, tagged},
			{p.c2.Veth, []string{"trunks="}, plain, tagged},
			{p.c1.Veth, []string{"tag="}, plain, plain},
			{p.c1.Veth, []string{"tag="}, tagged, tagged},
		} {
			d.Ctl(append([]string{"set-port", step.port}, step.options...)...)
			if err := passes(step.f, step.want); err != nil {
				t.Errorf("after set-port %s %s: %v", step.port, step.options, err)
			}
		}
	})

	t.Run("ip", func(t *testing.T) {
		d.Ctl("set-br", "br0", "ip=10.0.0.254/24,10.9.0.1/24,fd00::fe/64")
		answered(t, p.c1, "10.0.0.254")
		ip("addr", "add", "10.0.0.99/24", "dev", "br0") // by hand: not ours
		ip("addr", "add", "10.8.0.1/24", "dev", "br0")
		d.Ctl("set-br", "br0", "ip=10.0.0.253/24,fd00::fd/64")
		now := ip("-o", "addr", "show", "br0")
		if err := has(now, "10.0.0.253/24", "fd00::fd/64", "10.0.0.99/24", "10.8.0.1/24"); err != nil {
			t.Error(err)
		}
		for _, gone := range []string{"10.0.0.254", "10.9.0.1", "fd00::fe/"} {
			if strings.Contains(now, gone) {
				t.Errorf("%s is still there: %s", gone, now)
			}
		}
		answered(t, p.c1, "10.0.0.253")
		answered(t, p.c1, "10.0.0.99")
		d.Ctl("set-br", "br0", "ip=")
		now = ip("-o", "addr", "show", "br0")
		if err := has(now, "10.0.0.99/24", "10.8.0.1/24"); err != nil || strings.Contains(now, "10.0.0.253") || strings.Contains(now, "fd00::fd/") {
			t.Errorf("with ip= the addresses are %s", now)
		}
		d.Ctl("set-br", "br0", "ip=10.0.0.254/24")
	})

	t.Run("mac and mtu", func(t *testing.T) {
		own := mustPort(t, d, "br0").MAC
		for _, step := range []struct {
			option string
			mac    string
			mtu    int
		}{
			{"mac=02:00:00:00:00:fe", "02:00:00:00:00:fe", 1500},
			{"mtu=9000", "02:00:00:00:00:fe", 9000},
			{"mtu=", "02:00:00:00:00:fe", 1500},
			{"mac=", own, 1500},
		} {
			d.Ctl("set-br", "br0", step.option)
			link, err := p.h.Link("br0")
			if err != nil {
				t.Fatal(err)
			}
			a, st := link.Attrs(), mustPort(t, d, "br0")
			if a.HardwareAddr.String() != step.mac || a.MTU != step.mtu || st.MAC != step.mac || st.MTU != step.mtu {
				t.Errorf("after %s br0 has MAC %s and MTU %d, and show says %s and %d", step.option, a.HardwareAddr, a.MTU, st.MAC, st.MTU)
			}
			p.c1.MustExec("ip", "neigh", "flush", "dev", "eth0")
			answered(t, p.c1, "10.0.0.254")
		}
	})

	t.Run("queues, rings and offload", func(t *testing.T) {
		frames := mustPort(t, d, p.c1.Veth).Counters.RxFrames
		for _, option := range []string{"n_rxq=3", "n_rxq=", "tx-ring=64", "tx-ring=", "rx-buffer=65536", "rx-buffer=", "n_rxq_desc=0", "n_rxq_desc=512", "n_rxq_desc=", "offload=off", "offload=on"} {
			d.Ctl("set-port", p.c1.Veth, option)
			answered(t, p.c1, "10.0.0.2")
			st := mustPort(t, d, p.c1.Veth)
			busy := option == "offload=on" // since the TCP before
			if want := map[bool]int{true: 3, false: 1}[option == "n_rxq=3"]; len(st.Workers) != want && !busy {
				t.Errorf("after %s it has queues at workers %v", option, st.Workers)
			}
			if soft := slices.ContainsFunc(st.Notes, func(s string) bool { return strings.Contains(s, "offload is off") }); soft != (option == "offload=off") {
				t.Errorf("after %s the notes are %q", option, st.Notes)
			}
			if slots := map[string]int{"n_rxq_desc=512": 512}[option]; st.RxRing != slots && !busy {
				t.Errorf("after %s it has a receive ring of %d slots", option, st.RxRing)
			}
			if st.Counters.RxFrames < frames {
				t.Errorf("after %s the counters began anew", option)
			}
			frames = st.Counters.RxFrames
			if option == "offload=off" {
				if r, err := lab.Iperf3(p.c2, p.c1, 1); err != nil || r.Bytes == 0 {
					t.Errorf("TCP with offload=off: %+v, %v", r, err)
				}
			}
		}
	})

	t.Run("what others send by the interface", func(t *testing.T) {
		sees, other, host := p.c1.Conn(), p.c2.Conn(), p.h.Conn(p.c1.Veth)
		for _, queues := range []string{"n_rxq=1", "n_rxq=3"} {
			d.Ctl("set-port", p.c1.Veth, queues)
			other.Drain()
			f := testFrame(net.HardwareAddr{2, 0, 0, 0, 0x66, 1}, 0)
			if err := delivered(host, sees, f, patient); err != nil {
				t.Fatal(err)
			}
			frames, err := other.Collect(30 * time.Millisecond)
			if err != nil || slices.ContainsFunc(frames, func(g []byte) bool { return bytes.Equal(f, g) }) {
				t.Errorf("with %s a frame that the host sent by %s was taken for one received there (%v)", queues, p.c1.Veth, err)
			}
		}
	})

	t.Run("owner of a TAP", func(t *testing.T) {
		d.Ctl("add-port", "br0", "vm0", "type=tap", "owner=1234")
		owner := func() string { return ip("-d", "link", "show", "vm0") }
		if err := has(owner(), "user 1234"); err != nil {
			t.Error(err)
		}
		d.Ctl("set-port", "vm0", "owner=", "group=77", "mtu=3000")
		if err := has(owner(), "group 77", "mtu 3000"); err != nil || strings.Contains(owner(), "1234") {
			t.Errorf("%v; %s", err, owner())
		}
		attach(t, p.Lab, p.h, "vm0")
		waitPort(t, d, "vm0", api.PortUp)
		index := linkIndex(t, p.h, "vm0")
		d.Ctl("set-port", "vm0", "group=78")
		waitPort(t, d, "vm0", api.PortUp)
		if linkIndex(t, p.h, "vm0") != index {
			t.Error("a change of group cut off who is attached")
		}
		d.Ctl("set-port", "vm0", "mtu=")
		if err := has(owner(), "mtu 1500"); err != nil {
			t.Error(err)
		}
	})
}
