package ctl_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// whyOf asks after an address.
func whyOf(d *lab.Daemon, args ...string) (w api.Why) {
	d.CtlJSON(&w, append([]string{"why"}, args...)...)
	return w
}

// arpFrame is an ARP request or reply in which mac says that it has sender.
func arpFrame(op byte, mac net.HardwareAddr, sender, target string) []byte {
	f := append(bytes.Repeat([]byte{0xff}, 6), mac...)
	f = append(f, 8, 6, 0, 1, 8, 0, 6, 4, 0, op)
	f = append(append(f, mac...), netip.MustParseAddr(sender).AsSlice()...)
	f = append(append(f, make([]byte, 6)...), netip.MustParseAddr(target).AsSlice()...)
	return append(f, make([]byte, 60-len(f))...)
}

// TestWhy asks after machines that are there, move, quarrel about an address, are in
// the wrong VLAN, and are not there at all:
//
//	c1 10.0.0.1 ── veth-c1 [host a: vswitchd, br0 10.0.0.9] veth-c2 ── 10.0.0.2 c2
func TestWhy(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{}, "ip=10.0.0.9/24")
	d := p.d
	events := d.Events("address-conflict")
	mac1, mac2 := p.c1.MAC.String(), p.c2.MAC.String()

	t.Run("there", func(t *testing.T) {
		p.c1.MustExec("ping", "-c", "1", "-W", "5", "10.0.0.2")
		w := whyOf(d, "10.0.0.2")
		if err := has(w.Verdict, "10.0.0.2 is "+mac2+" behind "+p.c2.Veth+" of br0, up, last heard"); err != nil || len(w.Contradictions) > 0 {
			t.Errorf("%v; contradictions %q", err, w.Contradictions)
		}
		if len(w.Places) != 1 || w.Places[0].Learned == nil || time.Since(*w.Places[0].Learned) > time.Minute || w.Places[0].Type != "packet" || !w.Recorder {
			t.Errorf("places %+v", w.Places)
		}
		if len(w.Neighbors) != 1 || w.Neighbors[0].IP != "10.0.0.2" || w.Neighbors[0].MAC != mac2 || !strings.HasPrefix(w.Neighbors[0].By, "arp-") {
			t.Errorf("neighbors %+v", w.Neighbors)
		}
		// The other way round.
		if w := whyOf(d, mac2, "br0"); has(w.Verdict, mac2+" is behind "+p.c2.Veth+" of br0, up") != nil || len(w.Neighbors) == 0 || w.Neighbors[0].IP != "10.0.0.2" {
			t.Errorf("%+v", w)
		}
	})

	t.Run("the host", func(t *testing.T) {
		if err := has(whyOf(d, "10.0.0.9").Verdict, "10.0.0.9 is", "this host's own, at br0 of br0, up"); err != nil {
			t.Error(err)
		}
	})

	t.Run("IPv6", func(t *testing.T) {
		for i, c := range []*lab.Container{p.c1, p.c2} {
			c.Sysctl("net.ipv6.conf.eth0.disable_ipv6", "0")
			c.MustExec("ip", "-6", "addr", "add", fmt.Sprintf("2001:db8::%d/64", i+1), "dev", "eth0", "nodad")
		}
		p.c1.MustExec("ping", "-c", "1", "-W", "5", "2001:db8::2")
		w := whyOf(d, "2001:db8::2")
		if err := has(w.Verdict, "2001:db8::2 is "+mac2+" behind "+p.c2.Veth); err != nil || len(w.Neighbors) != 1 || !strings.HasPrefix(w.Neighbors[0].By, "nd-") {
			t.Errorf("%v; %+v", err, w.Neighbors)
		}
	})

	in1, in2 := p.c1.Conn(), p.c2.Conn()
	t.Run("moved", func(t *testing.T) {
		mac := net.HardwareAddr{2, 0, 0, 0, 0x77, 1}
		for _, way := range [][2]*lab.Conn{{in1, in2}, {in2, in1}, {in1, in2}} {
			if err := delivered(way[0], way[1], testFrame(mac, 0), patient); err != nil {
				t.Fatal(err)
			}
		}
		w := whyOf(d, mac.String())
		if len(w.Places) != 1 || w.Places[0].Port != p.c1.Veth || w.Places[0].Moves != 2 || len(w.Places[0].Moved) != 2 ||
			w.Places[0].Moved[0].From != p.c2.Veth || w.Places[0].Moved[1].From != p.c1.Veth {
			t.Errorf("%+v", w.Places)
		}
		if err := has(d.Ctl("why", mac.String()), "from "+p.c2.Veth+" to "+p.c1.Veth); err != nil {
			t.Error(err)
		}
	})

	t.Run("two machines, one address", func(t *testing.T) {
		intruder := net.HardwareAddr{2, 0, 0, 0, 0x77, 2}
		for range 2 {
			if err := delivered(in2, in1, arpFrame(2, p.c2.MAC, "10.0.0.2", "10.0.0.1"), patient); err != nil {
				t.Fatal(err)
			}
			if err := delivered(in1, in2, arpFrame(1, intruder, "10.0.0.2", "10.0.0.1"), patient); err != nil {
				t.Fatal(err)
			}
		}
		e := events.Wait(patient, "address-conflict", p.c1.Veth)
		if err := has(e.Message, "10.0.0.2", mac2, intruder.String()); err != nil {
			t.Error(err)
		}
		lab.Eventually(t, patient, func() error {
			w := whyOf(d, "10.0.0.2")
			if len(w.Contradictions) == 0 || len(w.Places) != 2 {
				return fmt.Errorf("%+v", w)
			}
			return has(w.Contradictions[0], "10.0.0.2 is claimed by", mac2+" at "+p.c2.Veth, intruder.String()+" at "+p.c1.Veth)
		})
		// Who is asked after by the MAC is told of it, too.
		if w := whyOf(d, mac2); len(w.Contradictions) == 0 {
			t.Errorf("%+v", w)
		}
	})

	t.Run("dropped", func(t *testing.T) {
		d.Ctl("set-port", p.c1.Veth, "trunks=5")
		f := arpFrame(1, p.c1.MAC, "10.0.0.1", "10.0.0.2")
		lab.Eventually(t, patient, func() error {
			if err := in1.Send(f); err != nil {
				return err
			}
			w := whyOf(d, "10.0.0.2")
			if len(w.Drops) == 0 {
				return fmt.Errorf("no drops: %+v", w)
			}
			x := w.Drops[0]
			if x.Reason != "vlan-not-trunked" || x.Port != p.c1.Veth || x.As != "destination" || x.Count == 0 || time.Since(x.LastSeen) > time.Minute {
				return fmt.Errorf("%+v", x)
			}
			return has(x.LastFrame, "10.0.0.1", "10.0.0.2", mac1)
		})
		w := whyOf(d, "10.0.0.1")
		if err := has(w.Verdict+"\n"+strings.Join(w.Try, "\n"), "that named it w", "dropped lately", "vlan-not-trunked", "it is not silent: what it sends is dropped at "+p.c1.Veth, "set-port"); err != nil {
			t.Error(err)
		}
		if err := has(d.Ctl("why", "10.0.0.1"), "NAMED AS", "last: "+mac1); err != nil {
			t.Error(err)
		}
		// The ledger has the same frame, and tells how fast it happens.
		lab.Eventually(t, patient, func() error {
			if err := in1.Send(f); err != nil {
				return err
			}
			var drops []api.Drop
			d.CtlJSON(&drops, "drops", "br0", p.c1.Veth, "--reason", "vlan-not-trunked")
			if len(drops) != 1 || drops[0].Rate <= 0 || drops[0].Addresses == nil {
				return fmt.Errorf("%+v", drops)
			}
			if a := drops[0].Addresses; a.Src != mac1 || a.IPSrc != "10.0.0.1" || a.IPDst != "10.0.0.2" {
				return fmt.Errorf("%+v", a)
			}
			return has(drops[0].LastFrame, "10.0.0.2")
		})
		if err := has(d.Ctl("drops"), "RATE", "last: "+mac1, "not among the port's trunks"); err != nil {
			t.Error(err)
		}
		d.Ctl("set-port", p.c1.Veth, "trunks=")
	})

	t.Run("gone", func(t *testing.T) {
		d.Ctl("set-br", "br0", "mac-aging-time=1")
		mac := net.HardwareAddr{2, 0, 0, 0, 0x77, 3}
		if err := delivered(in1, in2, arpFrame(2, mac, "10.0.0.33", "10.0.0.1"), patient); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, patient, func() error {
			return has(whyOf(d, "10.0.0.33").Verdict, "10.0.0.33 is "+mac.String()+", as an ARP reply at "+p.c1.Veth, "not known any more", "silent for the aging time")
		})
	})

	t.Run("nobody", func(t *testing.T) {
		d.Ctl("add-port", "br0", "late")
		w := whyOf(d, "10.0.0.77", "br0")
		if err := has(w.Verdict+"\n"+strings.Join(w.Try, "\n"), "nobody has heard of 10.0.0.77 on br0", "ping", "behind late of br0, which is waiting"); err != nil {
			t.Error(err)
		}
		refused(t, d, []string{"why", "10.0.0.77", "br7"}, "br7")
	})
}

// TestTalkers finds who sends most:
//
//	c1 10.0.0.1 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── 10.0.0.2 c2
func TestTalkers(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	in1, in2 := p.c1.Conn(), p.c2.Conn()
	udp := func(port uint16) []byte {
		f := append(append([]byte{}, p.c2.MAC...), p.c1.MAC...)
		f = append(f, 8, 0, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
		f = binary.BigEndian.AppendUint16(f, port)
		return append(f, append([]byte{0, 99, 0, 26, 0, 0}, make([]byte, 18)...)...)
	}
	// Both are known before they are counted.
	if err := delivered(in2, in1, testFrame(p.c2.MAC, 0), patient); err != nil {
		t.Fatal(err)
	}
	for i := range 100 {
		if err := in1.Send(udp(1000)); err != nil {
			t.Fatal(err)
		}
		if i%10 == 0 {
			if err := in1.Send(udp(2000)); err != nil {
				t.Fatal(err)
			}
		}
	}
	lab.Eventually(t, patient, func() error {
		var x api.Talkers
		if err := p.d.Get("/v1/talkers?window=1m&bridge=br0", &x); err != nil {
			return err
		}
		i := slices.IndexFunc(x.Flows, func(f api.FlowTalker) bool { return f.SrcPort == 1000 })
		j := slices.IndexFunc(x.Flows, func(f api.FlowTalker) bool { return f.SrcPort == 2000 })
		if !x.Recorder || i < 0 || j < i || len(x.MACs) == 0 || x.MACs[0].MAC != p.c1.MAC.String() {
			return fmt.Errorf("%+v", x)
		}
		f := x.Flows[i]
		if n := f.Frames * x.Window; n < 99 || n > 101 || f.Bits < f.Frames*8*60-1 || f.Proto != "udp" || f.Output != p.c2.Veth || f.Port != p.c1.Veth || f.Dst != "10.0.0.2" || f.DstPort != 99 {
			return fmt.Errorf("%.1f frames: %+v", n, f)
		}
		return nil
	})
	var bad api.Talkers
	for _, q := range []string{"window=1h", "window=x", "n=0", "n=1001"} {
		if err := p.d.Get("/v1/talkers?"+q, &bad); err == nil {
			t.Errorf("%s is taken", q)
		}
	}
}
