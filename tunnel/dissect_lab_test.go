package tunnel_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// TestDissectors has Wireshark's dissectors read what our tunnels put on a cable:
// ping, TCP both ways, super-frames, BFD, a VLAN tag, both families inside and
// outside. Every length and checksum of every layer must be right, and nothing may
// be remarkable (an "expert" warning).
//
//	c1 ── [host a: vswitchd] ── underlay ── [host b: vswitchd] ── c2
//	                          │
//	                       tcpdump
func TestDissectors(t *testing.T) {
	n := newHosts(t, hostsConfig{cable: true})
	b := n.daemon(n.b, n.c2, lab.DaemonOptions{})
	for _, test := range []struct {
		name    string
		six     bool
		layers  string // as the dissectors name them
		options []string
	}{
		{"VXLAN", false, "eth:ethertype:ip:udp:vxlan:eth", []string{"type=vxlan", "key=42"}},
		{"VXLAN over IPv6", true, "eth:ethertype:ipv6:udp:vxlan:eth", []string{"type=vxlan"}},
		{"Geneve", false, "eth:ethertype:ip:udp:geneve:eth", []string{"type=geneve", "key=42", "tag=5", "vlan_mode=native-tagged"}},
		{"Geneve over IPv6", true, "eth:ethertype:ipv6:udp:geneve:eth", []string{"type=geneve", "key=42"}},
		{"GRE", false, "eth:ethertype:ip:gre:eth", []string{"type=gre"}},
		{"GRE with a key and a checksum", false, "eth:ethertype:ip:gre:eth", []string{"type=gre", "key=42", "csum=true", "seq=true"}},
		{"GRE over IPv6", true, "eth:ethertype:ipv6:gre:eth", []string{"type=gre", "key=42"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			near, far := n.near, n.far
			if test.six {
				near, far = n.near6, n.far6
			}
			vlan := strings.Contains(strings.Join(test.options, " "), "tag=5")
			if vlan {
				for _, end := range []struct {
					d *lab.Daemon
					c *lab.Container
				}{{n.d, n.c1}, {b, n.c2}} {
					end.d.Ctl("set-port", end.c.Veth, "tag=5")
					defer end.d.Ctl("set-port", end.c.Veth, "tag=")
				}
			}
			for _, c := range []*lab.Container{n.c1, n.c2} {
				c.MustExec("ip", "neigh", "flush", "all") // it asks again
			}
			stop := capture(t, n.net.Namespace, n.net.Port(n.a), filepath.Join(n.lab.Dir(), "wire.pcap"))
			bfd := []string{"bfd_enable=true", "bfd_min_rx=50", "bfd_min_tx=50"}
			n.d.Ctl(append(append([]string{"add-port", "br0", "t1", "remote_ip=" + far}, test.options...), bfd...)...)
			defer n.d.Ctl("del-port", "t1")
			b.Ctl(append(append([]string{"add-port", "br0", "t1", "remote_ip=" + near}, test.options...), bfd...)...)
			defer b.Ctl("del-port", "t1")
			bfdUp(t, n.d, b)
			n.exchange(t)

			count := map[string]int{}
			for _, p := range dissect(t, n.net.Namespace, stop()) {
				inner, ours := strings.CutPrefix(p["frame.protocols"], test.layers+":ethertype:")
				if !ours {
					continue // ARP and neighbour discovery of the underlay
				}
				if vlan {
					if inner, ours = strings.CutPrefix(inner, "vlan:ethertype:"); !ours && !strings.Contains(inner, "bfd") {
						t.Errorf("frame %s has no VLAN tag: %s", p["frame.number"], inner)
					}
				}
				count[inner]++
			}
			t.Log(count)
			for _, want := range []struct {
				inner string
				least int
			}{{"arp", 2}, {"ipv6:icmpv6", 2}, {"ip:icmp:data", 2}, {"ipv6:icmpv6:data", 2}, {"ip:udp:bfd", 4}, {"ip:tcp:data", 1000}, {"ipv6:tcp:data", 1000}} {
				if count[want.inner] < want.least {
					t.Errorf("%d frames are %s, want at least %d", count[want.inner], want.inner, want.least)
				}
			}
		})
	}
}

// bfdUp waits until both ends' sessions are up.
func bfdUp(t *testing.T, ends ...*lab.Daemon) {
	t.Helper()
	lab.Eventually(t, 6*time.Second, func() error {
		for _, d := range ends {
			if s, err := tunnelStatus(d); err != nil || s.BFD == nil || s.BFD.State != "up" {
				return fmt.Errorf("BFD is %+v, %v", s.BFD, err)
			}
		}
		return nil
	})
}

// capture writes what passes an interface, both ways, to a file until stop is
// called, which returns its name.
func capture(t *testing.T, n *lab.Namespace, ifname, file string) (stop func() string) {
	t.Helper()
	os.Remove(file)
	p := n.Start("tcpdump", "-i", ifname, "-w", file, "-U", "-B", "32768", "-Z", "root")
	lab.Eventually(t, 5*time.Second, func() error {
		if !strings.Contains(p.Out.String(), "listening on") {
			return fmt.Errorf("tcpdump: %s", p.Out)
		}
		return nil
	})
	return func() string {
		t.Helper()
		// What was sent is in its buffer: a frame of nobody's is the last.
		mark := append([]byte("\x02\xff\xff\xff\xff\xff\x02\xff\xff\xff\xff\xfe\x88\xb5"), make([]byte, 46)...)
		binary.BigEndian.PutUint64(mark[14:], uint64(time.Now().UnixNano()))
		if err := n.Conn(ifname).Send(mark); err != nil {
			t.Fatal(err)
		}
		lab.Eventually(t, 5*time.Second, func() error {
			data, err := os.ReadFile(file)
			if err == nil && !strings.Contains(string(data), string(mark)) {
				err = fmt.Errorf("%d bytes, and the mark is not among them", len(data))
			}
			return err
		})
		p.Signal(syscall.SIGINT)
		if err := p.Wait(5 * time.Second); err != nil {
			t.Fatal(err)
		}
		if out := p.Out.String(); !strings.Contains(out, "\n0 packets dropped by kernel") {
			t.Fatalf("tcpdump: %s", out)
		}
		return file
	}
}

// dissect returns the fields of each frame of a capture, and fails the test for a
// frame that is malformed, or has a wrong checksum or length anywhere.
func dissect(t *testing.T, n *lab.Namespace, file string) (frames []map[string]string) {
	t.Helper()
	fields := []string{"frame.number", "frame.protocols", "_ws.expert.severity", "_ws.expert.message", "_ws.malformed",
		"ip.checksum.status", "udp.checksum.status", "tcp.checksum.status", "icmp.checksum.status", "icmpv6.checksum.status"}
	args := []string{"tshark", "-n", "-r", file, "-T", "fields", "-E", "separator=|",
		"-o", "ip.check_checksum:true", "-o", "udp.check_checksum:true", "-o", "tcp.check_checksum:true",
		// What TCP makes of a busy machine is not the tunnel's.
		"-o", "tcp.analyze_sequence_numbers:false",
		"-d", "tcp.port==1-65535,data", "-Y", "eth.type != 0x88b5"}
	for _, f := range fields {
		args = append(args, "-e", f)
	}
	out, err := n.Exec(args...)
	if err != nil {
		t.Fatal(err)
	}
	bad := 0
	for line := range strings.Lines(out) {
		values := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(values) != len(fields) {
			continue // tshark's own words
		}
		p := make(map[string]string, len(fields))
		for i, f := range fields {
			p[f] = values[i]
		}
		frames = append(frames, p)
		if complaint := judge(p); complaint != "" {
			if bad++; bad <= 5 {
				t.Errorf("frame %s (%s): %s", p["frame.number"], p["frame.protocols"], complaint)
			}
		}
	}
	if bad > 5 {
		t.Errorf("… and %d more", bad-5)
	}
	return frames
}

// judge says what is wrong with a frame, if anything. A field that occurs in several
// layers has its values in a row.
func judge(p map[string]string) string {
	if p["_ws.malformed"] != "" {
		return "malformed"
	}
	for severity := range strings.SplitSeq(p["_ws.expert.severity"], ",") {
		const warning = 0x00600000 // PI_WARN of epan/proto.h
		// A D-SACK is of a sender that did not wait for an ACK: TCP on a busy machine,
		// as above; there is no preference that leaves it out.
		if n, _ := strconv.Atoi(severity); n >= warning && p["_ws.expert.message"] != "D-SACK Sequence" {
			return p["_ws.expert.message"]
		}
	}
	for field, values := range p {
		if !strings.HasSuffix(field, ".checksum.status") || values == "" {
			continue
		}
		for status := range strings.SplitSeq(values, ",") {
			const good, absent = "1", "3"
			if status != good && !(status == absent && field == "udp.checksum.status") {
				return field + " is " + values
			}
		}
	}
	return ""
}
