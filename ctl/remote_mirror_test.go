package ctl_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// A collector elsewhere listens to host a. With output_port the copies go through a
// tunnel of the mirror's own to a host without a switch, where tshark takes them apart:
//
//	c 10.0.0.1 ── veth-c ┐
//	                     ├ [host a: vswitchd, br0] span ──GRE or VXLAN──► 192.0.2.3 [host watch: tcpdump]
//	d 10.0.0.4 ── veth-d ┘
func TestMirrorThroughATunnel(t *testing.T) {
	for _, c := range []struct {
		kind, layer string
		options     []string
	}{
		{"gre", "gre", nil},
		{"vxlan", "vxlan", []string{"key=7"}},
	} {
		t.Run(c.kind, func(t *testing.T) {
			h := newTwoHosts(t, lab.DaemonOptions{})
			watch := h.Host("watch")
			h.u.Join(watch, "192.0.2.3/24")
			d := h.a.container("d", "10.0.0.4")
			h.a.d.Ctl("add-port", "br0", d.Veth)
			h.a.d.Ctl(append([]string{"add-port", "br0", "span", "type=" + c.kind, "remote_ip=192.0.2.3"}, c.options...)...)
			waitPort(t, h.a.d, "span", api.PortUp)
			h.a.d.Ctl("mirror", "add", "br0", "m", "select_src_port="+h.a.c.Veth, "select_dst_port="+h.a.c.Veth, "output_port=span", "snaplen=1000")
			answered(t, h.a.c, "10.0.0.4")

			file := filepath.Join(t.TempDir(), "watch.pcap")
			dump := watch.Start("tcpdump", "-i", "any", "-w", file, "-U", "-Z", "root", "ip", "proto", "47", "or", "udp", "port", "4789")
			lab.Eventually(t, patient, func() error { return has(dump.Out.String(), "listening") })
			// Larger than the tunnel takes: it is cut, and so arrives all the same.
			if out, err := h.a.c.Exec("ping", "-n", "-q", "-c", "3", "-i", "0.2", "-s", "1400", "10.0.0.4"); err != nil {
				t.Fatal(out, err)
			}
			if _, err := lab.Iperf3(h.a.c, d, 1, "-b", "20M"); err != nil {
				t.Fatal(err)
			}
			var icmp, tcp int
			lab.Eventually(t, patient, func() error {
				out, err := watch.Exec("tshark", "-n", "-r", file, "-T", "fields", "-e", "frame.protocols", "-e", "icmp.type", "-e", "ip.src")
				if err != nil {
					return err
				}
				icmp, tcp = 0, 0
				for _, line := range strings.Split(out, "\n") {
					if !strings.Contains(line, ":"+c.layer+":eth:ethertype:ip") {
						continue
					}
					if strings.Contains(line, ":icmp") {
						icmp++
					} else if strings.Contains(line, ":tcp") {
						tcp++
					}
				}
				if icmp < 6 || tcp < 20 {
					return os.ErrNotExist
				}
				return nil
			})
			if icmp != 6 {
				t.Errorf("the collector has %d of 3 pings and 3 answers", icmp)
			}
			st, err := h.a.api.Status(context.Background(), "br0")
			if err != nil {
				t.Fatal(err)
			}
			for _, p := range st.Bridges[0].Ports {
				if p.Name == "span" && p.Counters.Dropped != 0 {
					t.Errorf("copies were dropped: %v", p.Counters.Drops)
				}
			}
			dump.Kill()
		})
	}
}

// TestRSPANAcrossHosts: copies travel in a VLAN of their own, through the tunnel that
// is there, to a collector behind another switch, which learns nothing from them:
//
//	c 10.0.0.1 ── veth-c ┐                        ┌ veth-w tag=99 ── w (listens)
//	                     ├ [host a] t0 ──VXLAN── t0 [host b: flood_vlans=99]
//	d 10.0.0.4 ── veth-d ┘                        └ veth-c ── c 10.0.0.2
func TestRSPANAcrossHosts(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	d := h.a.container("d", "10.0.0.4")
	w := h.b.container("w", "10.0.0.9")
	h.a.d.Ctl("add-port", "br0", d.Veth)
	h.b.d.Ctl("set-br", "br0", "flood_vlans=99")
	h.b.d.Ctl("add-port", "br0", w.Veth, "tag=99")
	h.tunnel("vxlan", "key=5")
	h.a.d.Ctl("mirror", "add", "br0", "m", "select_src_port="+h.a.c.Veth, "output_vlan=99")
	answered(t, h.a.c, "10.0.0.4")
	conn := w.Conn()
	conn.Drain()
	if err := h.a.c.Ping("10.0.0.4"); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, patient, func() error {
		b, err := conn.Recv(5 * time.Second)
		if err == nil && (len(b) < 34 || !bytes.Equal(b[26:30], []byte{10, 0, 0, 1}) || b[23] != 1) {
			err = os.ErrInvalid
		}
		return err
	})
	entries, err := h.b.api.FDB(context.Background(), api.FDBQuery{Bridge: "br0", VLAN: 99})
	if err != nil || len(entries) != 0 {
		t.Errorf("copies taught the collector's switch %v, %v", entries, err)
	}
	answered(t, h.b.c, "10.0.0.1")
}
