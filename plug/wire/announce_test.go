package wire_test

import (
	"bytes"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
	"vswitch/plug/wire"
)

// observer hears what comes in by any interface of a namespace, also by those that are
// not there yet.
type observer struct {
	t  *testing.T
	fd int
}

func observe(t *testing.T, n *lab.Host) *observer {
	t.Helper()
	o := &observer{t: t, fd: -1}
	err := n.Do(func() (err error) {
		all := int(uint16(unix.ETH_P_ALL)<<8 | uint16(unix.ETH_P_ALL)>>8)
		if o.fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, all); err != nil {
			return err
		}
		return unix.SetsockoptInt(o.fd, unix.SOL_PACKET, unix.PACKET_IGNORE_OUTGOING, 1)
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(o.fd) })
	return o
}

// heard are the announcements that came until now: "ARP 10.1.0.5 02:…", "NA fd00:1::5
// 02:…". A frame that a Plug sent has come when it returns: a veth delivers within the
// sender's system call or its softirq, and the next look waits for that.
func (o *observer) heard(wait time.Duration) (list []string) {
	o.t.Helper()
	for {
		ms := int(wait.Milliseconds())
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(o.fd), Events: unix.POLLIN}}, ms)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			o.t.Fatal(err)
		}
		if n == 0 {
			return list
		}
		buf := make([]byte, 2048)
		size, _, err := unix.Recvfrom(o.fd, buf, 0)
		if err == unix.ENETDOWN { // an interface went
			continue
		}
		if err != nil {
			o.t.Fatal(err)
		}
		if s := o.read(buf[:size]); s != "" {
			list = append(list, s)
		}
	}
}

// read says what an announcement announces, and what of it is wrong.
func (o *observer) read(f []byte) string {
	o.t.Helper()
	p := gopacket.NewPacket(f, layers.LayerTypeEthernet, gopacket.Default)
	if e := p.ErrorLayer(); e != nil {
		o.t.Errorf("frame %x: %v", f, e.Error())
	}
	eth := p.Layer(layers.LayerTypeEthernet).(*layers.Ethernet)
	wrong := func(why string) { o.t.Helper(); o.t.Errorf("frame %x: %s", f, why) }
	if arp, ok := p.Layer(layers.LayerTypeARP).(*layers.ARP); ok {
		if arp.Operation != layers.ARPRequest || !bytes.Equal(arp.SourceProtAddress, arp.DstProtAddress) || !bytes.Equal(arp.DstHwAddress, make([]byte, 6)) {
			wrong("no ARP announcement")
		}
		if !bytes.Equal(arp.SourceHwAddress, eth.SrcMAC) || eth.DstMAC.String() != "ff:ff:ff:ff:ff:ff" {
			wrong("its Ethernet header says something else")
		}
		a, _ := netip.AddrFromSlice(arp.SourceProtAddress)
		return "ARP " + a.String() + " " + net.HardwareAddr(arp.SourceHwAddress).String()
	}
	na, ok := p.Layer(layers.LayerTypeICMPv6NeighborAdvertisement).(*layers.ICMPv6NeighborAdvertisement)
	if !ok {
		return "" // multicast listener reports and the like
	}
	ip := p.Layer(layers.LayerTypeIPv6).(*layers.IPv6)
	if ip.SrcIP.IsLinkLocalUnicast() {
		return "" // the kernel's, of its own address
	}
	if ip.HopLimit != 255 || ip.DstIP.String() != "ff02::1" || !ip.SrcIP.Equal(na.TargetAddress) || na.Flags != 0x20 {
		wrong("no unsolicited neighbour advertisement that overrides")
	}
	if eth.DstMAC.String() != "33:33:00:00:00:01" || len(na.Options) != 1 || !bytes.Equal(na.Options[0].Data, eth.SrcMAC) {
		wrong("its link-layer addresses are wrong")
	}
	// The checksum again, by the library's own hand.
	icmp := p.Layer(layers.LayerTypeICMPv6).(*layers.ICMPv6)
	sum := icmp.Checksum
	icmp.SetNetworkLayerForChecksum(ip)
	out := gopacket.NewSerializeBuffer()
	if err := gopacket.SerializeLayers(out, gopacket.SerializeOptions{ComputeChecksums: true}, icmp, gopacket.Payload(icmp.Payload)); err != nil {
		o.t.Fatal(err)
	}
	if icmp.Checksum != sum {
		wrong("its checksum is not right")
	}
	return "NA " + na.TargetAddress.String() + " " + eth.SrcMAC.String()
}

// expect waits for announcements, in any order, and wants no others.
func (o *observer) expect(want ...string) {
	o.t.Helper()
	var have []string
	err := lab.Wait(2*time.Second, func() error {
		have = append(have, o.heard(20*time.Millisecond)...)
		if len(have) < len(want) {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	slices.Sort(have)
	if err != nil || !slices.Equal(have, want) {
		o.t.Errorf("heard %q, want %q", have, want)
	}
}

func TestAnnounces(t *testing.T) {
	g := newGround(t)
	o := observe(t, g.h)
	const mac, newMAC = "02:00:00:00:00:11", "02:00:00:00:00:12"
	s := spec()
	g.mustPlug(s, nil)
	o.expect("ARP 10.1.0.5 "+mac, "NA fd00:1::5 "+mac)

	g.mustPlug(s, &s)
	o.expect() // nothing is new

	more := s
	more.Addresses = prefixes("10.1.0.5/24", "10.1.0.6/24", "fd00:1::5/64")
	g.mustPlug(more, &s)
	o.expect("ARP 10.1.0.5 "+mac, "ARP 10.1.0.6 "+mac, "NA fd00:1::5 "+mac)

	moved := more
	moved.MAC, _ = net.ParseMAC(newMAC)
	g.mustPlug(moved, &more)
	o.expect("ARP 10.1.0.5 "+newMAC, "ARP 10.1.0.6 "+newMAC, "NA fd00:1::5 "+newMAC)

	announce := func(ifname string) error {
		return g.h.Do(func() error {
			n, err := wire.Open(path(g.c))
			if err != nil {
				return err
			}
			defer n.Close()
			return wire.Announce(n, ifname)
		})
	}
	if err := announce("eth1"); err != nil {
		t.Fatal(err)
	}
	o.expect("ARP 10.1.0.5 "+newMAC, "ARP 10.1.0.6 "+newMAC, "NA fd00:1::5 "+newMAC)
	if err := announce("eth7"); err == nil {
		t.Error("an interface that is not there was announced")
	}
	if err := announce("lo"); err == nil {
		t.Error("the loopback was announced")
	}
}

// tcpdump reads the announcements as what they are meant to be.
func TestAnnouncementsInTcpdump(t *testing.T) {
	g := newGround(t)
	g.mustPlug(spec(), nil)
	p := g.h.Start("tcpdump", "-i", "p1", "-n", "-vv", "-e", "-l", "-c", "2", "arp or icmp6[0] == 136")
	lab.Eventually(t, 5*time.Second, func() error {
		if !strings.Contains(p.Out.String(), "listening on") {
			return os.ErrDeadlineExceeded
		}
		return nil
	})
	err := g.h.Do(func() error {
		n, err := wire.Open(path(g.c))
		if err != nil {
			return err
		}
		defer n.Close()
		return wire.Announce(n, "eth1")
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Wait(5 * time.Second); err != nil {
		t.Fatalf("%v: %s", err, p.Out.String())
	}
	out := p.Out.String()
	for _, want := range []string{"who-has 10.1.0.5 tell 10.1.0.5", "icmp6 sum ok", "tgt is fd00:1::5, Flags [override]"} {
		if !strings.Contains(out, want) {
			t.Errorf("tcpdump does not say %q:\n%s", want, out)
		}
	}
}

// strayThreads fails the test when a thread of this process is in another namespace than
// the process.
func strayThreads(t *testing.T) {
	t.Helper()
	home, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := os.ReadDir("/proc/self/task")
	if err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks {
		if ns, err := os.Readlink("/proc/self/task/" + task.Name() + "/ns/net"); err == nil && ns != home {
			t.Errorf("thread %s is in %s, the process in %s", task.Name(), ns, home)
		}
	}
}
