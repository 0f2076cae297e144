package ctl_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/gopacket"
	"github.com/google/gopacket/layers"
	"github.com/google/gopacket/pcapgo"
	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// sflowCollector takes datagrams in a host, and lets tshark take them apart.
type sflowCollector struct {
	t    *testing.T
	h    *lab.Host
	conn *net.UDPConn

	mu   sync.Mutex
	file bytes.Buffer
	n    int
}

func collect(t *testing.T, h *lab.Host) *sflowCollector {
	t.Helper()
	c := &sflowCollector{t: t, h: h}
	if err := h.Do(func() (err error) {
		if c.conn, err = net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)}); err != nil {
			return err
		}
		raw, err := c.conn.SyscallConn()
		if err != nil {
			return err
		}
		// A test on a busy machine reads late; nothing may be lost for it.
		controlErr := raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 32<<20) })
		return errors.Join(controlErr, err)
	}); err != nil {
		t.Fatal(err)
	}
	w := pcapgo.NewWriter(&c.file)
	if err := w.WriteFileHeader(65535, layers.LinkTypeIPv4); err != nil {
		t.Fatal(err)
	}
	var reading sync.WaitGroup
	reading.Go(func() { // ended by Close
		b := make([]byte, 65536)
		for {
			n, _, err := c.conn.ReadFromUDP(b)
			if err != nil {
				return
			}
			ip := &layers.IPv4{Version: 4, TTL: 64, Protocol: layers.IPProtocolUDP, SrcIP: net.IPv4(127, 0, 0, 1), DstIP: net.IPv4(127, 0, 0, 1)}
			udp := &layers.UDP{SrcPort: 1, DstPort: 6343}
			udp.SetNetworkLayerForChecksum(ip)
			out := gopacket.NewSerializeBuffer()
			err = gopacket.SerializeLayers(out, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, udp, gopacket.Payload(b[:n]))
			if err != nil || n > 1400 {
				t.Errorf("a datagram of %d bytes: %v", n, err)
			}
			c.mu.Lock()
			c.n++
			w.WritePacket(gopacket.CaptureInfo{Timestamp: time.Now(), CaptureLength: len(out.Bytes()), Length: len(out.Bytes())}, out.Bytes())
			c.mu.Unlock()
		}
	})
	t.Cleanup(func() { c.conn.Close(); reading.Wait() })
	return c
}

func (c *sflowCollector) target() string { return c.conn.LocalAddr().String() }

func (c *sflowCollector) datagrams() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.n
}

// dissect returns the values that tshark finds for fields, of each datagram.
func (c *sflowCollector) dissect(fields ...string) (rows [][][]string) {
	c.t.Helper()
	path := filepath.Join(c.t.TempDir(), "sflow.pcap")
	c.mu.Lock()
	err := os.WriteFile(path, c.file.Bytes(), 0o644)
	c.mu.Unlock()
	if err != nil {
		c.t.Fatal(err)
	}
	command := []string{"tshark", "-n", "-r", path, "-d", "udp.port==6343,sflow", "-T", "fields", "-E", "separator=|", "-E", "occurrence=a", "-E", "aggregator=,"}
	for _, f := range append([]string{"_ws.malformed", "_ws.expert.message"}, fields...) {
		command = append(command, "-e", f)
	}
	out := filepath.Join(c.t.TempDir(), "out")
	c.h.MustExec(append([]string{"sh", "-c", `out=$1; shift; "$@" >"$out" 2>"$out.err" || { cat "$out.err"; exit 1; }`, "sh", out}, command...)...)
	text, err := os.ReadFile(out)
	if err != nil {
		c.t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.TrimSuffix(line, "\n"), "|")
		if len(cells) != len(fields)+2 || cells[0] != "" || strings.Contains(strings.ToLower(cells[1]), "malformed") {
			c.t.Fatalf("tshark says %q", line)
		}
		var row [][]string
		for _, cell := range cells[2:] {
			row = append(row, strings.Split(cell, ","))
		}
		rows = append(rows, row)
	}
	return rows
}

// all is the values of one field in all datagrams.
func all(rows [][][]string, field int) (values []string) {
	for _, row := range rows {
		if row[field][0] != "" {
			values = append(values, row[field]...)
		}
	}
	return values
}

func sflowOf(t *testing.T, d *lab.Daemon) api.SFlowStatus {
	t.Helper()
	var list []api.SFlowStatus
	d.CtlJSON(&list, "sflow", "list", "br0")
	if len(list) != 1 {
		t.Fatalf("sflow list: %+v", list)
	}
	return list[0]
}

// counted parses a number of tshark's.
func counted(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(strings.TrimPrefix(s, "0x"), map[bool]int{true: 16, false: 10}[strings.HasPrefix(s, "0x")], 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// TestSFlow sends frames of three fates, and has tshark read what the collector, which
// is a socket in the host, was told:
//
//	c1 ── veth-c1 [host a: vswitchd, br0 ── sFlow ──▶ 127.0.0.1] veth-c2 ── c2
//	              [                      ] veth-c3 (tag=7) ── c3
//	              [                      ] x0: vxlan to nobody
//
//	c1 to c2 in VLAN 10: one output · c1 to nobody: flooded · c3, tagged: dropped
func TestSFlow(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{}, "ip=10.0.0.254/24")
	c3 := p.h.Container("c3")
	p.d.Ctl("add-port", "br0", c3.Veth, "tag=7")
	p.d.Ctl("add-port", "br0", "x0", "type=vxlan", "remote_ip=127.0.0.2")
	c := collect(t, p.h)

	const sampling, header, frames = 10, 64, 20000
	p.d.Ctl("sflow", "add", "br0", "target="+c.target(), fmt.Sprint("sampling=", sampling), "polling=1", fmt.Sprint("header=", header))
	if st := sflowOf(t, p.d); st.State != "up" || st.Agent != "127.0.0.1" {
		t.Fatalf("%+v", st)
	}

	from, to, three := p.c1.Conn(), p.c2.Conn(), c3.Conn()
	if err := delivered(to, from, testFrame(p.c2.MAC, 10), patient); err != nil { // c2 is known in VLAN 10
		t.Fatal(err)
	}
	tagged := func(dst, src net.HardwareAddr, tci uint16) []byte {
		f := append(append([]byte{}, dst...), src...)
		f = append(f, 0x81, 0x00, byte(tci>>8), byte(tci), 0x88, 0xb5)
		return append(f, make([]byte, 200-len(f))...)
	}
	known := tagged(p.c2.MAC, p.c1.MAC, 3<<13|10)
	nobody := tagged(net.HardwareAddr{2, 0, 0, 0, 0, 0x99}, p.c1.MAC, 0)[:200]
	copy(nobody[12:], []byte{0x88, 0xb5, 0, 0, 0, 0}) // untagged
	refusedFrame := tagged(p.c2.MAC, c3.MAC, 8)
	for i := range frames {
		var err error
		switch i % 4 {
		case 0, 1:
			err = from.Send(known)
		case 2:
			err = from.Send(nobody)
		case 3:
			err = three.Send(refusedFrame)
		}
		if err != nil {
			t.Fatal(err)
		}
		if i%1000 == 999 { // shares are of what is sent, so nothing may be missed
			lab.Eventually(t, patient, func() error {
				one, third := mustPort(t, p.d, p.c1.Veth).Counters, mustPort(t, p.d, c3.Veth).Counters
				if n := one.RxFrames + one.RxMissed + third.RxFrames + third.RxMissed; n <= uint64(i) {
					return fmt.Errorf("%d of %d frames were read", n, i+1)
				}
				return nil
			})
		}
	}

	// Everything was read, and told: the pool is what the ports took since it began. The
	// host may have said a few words before.
	var one, third api.PortStatus
	lab.Eventually(t, patient, func() error {
		one, third = mustPort(t, p.d, p.c1.Veth), mustPort(t, p.d, c3.Veth)
		read := one.Counters.RxFrames + third.Counters.RxFrames
		if missed := one.Counters.RxMissed + third.Counters.RxMissed; read+missed < frames {
			return fmt.Errorf("%d frames read, %d missed", read, missed)
		}
		st := sflowOf(t, p.d)
		total := mustPort(t, p.d, p.c2.Veth).Counters.RxFrames + mustPort(t, p.d, "br0").Counters.RxFrames + read
		if st.Pool > total || st.Pool < read || st.Missed != 0 {
			return fmt.Errorf("pool %d, missed %d; %d frames came in", st.Pool, st.Missed, total)
		}
		return nil
	})
	st := sflowOf(t, p.d)
	// The gap between samples is uniform in 0…2n-2: mean n-1, variance (n²-n)/3, so that
	// the count of samples of N frames has a deviation of √(N (n²-n)/3 / n³).
	n := float64(sampling)
	mean := float64(st.Pool) / n
	deviation := math.Sqrt(float64(st.Pool) * (n*n - n) / 3 / (n * n * n))
	if math.Abs(float64(st.Samples)-mean) > 5*deviation+1 {
		t.Errorf("%d samples of %d frames: want %.0f ± %.0f", st.Samples, st.Pool, mean, 5*deviation)
	}

	// Two more polls tell the counters as they stay.
	polled := st.Reports
	lab.Eventually(t, patient, func() error {
		if st = sflowOf(t, p.d); st.Reports < polled+10 {
			return fmt.Errorf("%d reports", st.Reports)
		}
		if got := uint64(c.datagrams()); got < st.Targets[0].Datagrams || st.Targets[0].Errors != 0 {
			return fmt.Errorf("%d datagrams arrived of %+v", got, st.Targets[0])
		}
		return nil
	})

	rows := c.dissect("sflow_245.agent", "sflow_245.sub_agent_id", "sflow_245.sequence_number",
		"sflow.flow_sample.sampling_rate", "sflow.flow_sample.input_interface", "sflow.flow_sample.output_interface",
		"sflow_245.vlan.in", "sflow_245.header.frame_length", "sflow_245.header.sampled_header_length", "sflow.flow_sample.sample_pool",
		"sflow_245.ifindex", "sflow_245.ifinpkt", "sflow_245.ifinoct", "sflow_245.ifspeed", "sflow_245.ifindisc")
	for i, row := range rows {
		if row[0][0] != "127.0.0.1" || row[1][0] != fmt.Sprint(st.SubAgent) || row[2][0] != fmt.Sprint(i+1) {
			t.Fatalf("datagram %d: agent %v, sub-agent %v, sequence %v", i, row[0], row[1], row[2])
		}
	}
	inputs, outputs, vlans, lengths, headers := all(rows, 4), all(rows, 5), all(rows, 6), all(rows, 7), all(rows, 8)
	if len(inputs) != len(outputs) || len(inputs) != len(vlans) || len(inputs) != len(lengths) || uint64(len(inputs)) != st.Samples {
		t.Fatalf("tshark: %d inputs, %d outputs, %d VLANs, %d lengths, of %d samples", len(inputs), len(outputs), len(vlans), len(lengths), st.Samples)
	}
	two := mustPort(t, p.d, p.c2.Veth)
	fates := map[string]int{}
	for i := range inputs {
		in, out := counted(t, inputs[i]), counted(t, outputs[i])
		switch {
		case in == uint64(one.IfIndex) && out == uint64(two.IfIndex) && vlans[i] == "10" && lengths[i] == "204":
			fates["known"]++
		case in == uint64(one.IfIndex) && vlans[i] == "0" && lengths[i] == "204" && out == 0x80000003: // c2, br0 and x0
			fates["flooded"]++
		case in == uint64(third.IfIndex) && vlans[i] == "8" && out == 0x40000000|258:
			fates["dropped"]++
		default:
			fates["else"]++
		}
		if headers[i] != fmt.Sprint(header) && lengths[i] == "204" {
			t.Errorf("header of %s bytes", headers[i])
		}
	}
	for fate, share := range map[string]float64{"known": 0.5, "flooded": 0.25, "dropped": 0.25} {
		want := share * float64(st.Samples)
		if math.Abs(float64(fates[fate])-want) > 6*math.Sqrt(want) {
			t.Errorf("%d samples were %s, want about %.0f: %v", fates[fate], fate, want, fates)
		}
	}
	if fates["else"] > 5 { // the first frame, and what containers say
		t.Errorf("samples: %v", fates)
	}

	// The last report of c1's port has the port's own counters.
	last := map[string][]string{}
	for i, index := range all(rows, 10) {
		last[index] = []string{all(rows, 11)[i], all(rows, 12)[i], all(rows, 13)[i], all(rows, 14)[i]}
	}
	want := []string{fmt.Sprint(one.Counters.RxFrames), fmt.Sprint(one.Counters.RxBytes), "10000000000", fmt.Sprint(one.Counters.RxMissed)}
	if got := last[fmt.Sprint(one.IfIndex)]; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("counters of veth-c1: %v, want %v", got, want)
	}
	if len(last) != 5 {
		t.Errorf("counters of %d ports: %v", len(last), last)
	}
	tunnels := 0
	for index, values := range last {
		if counted(t, index) >= 1<<23 {
			tunnels++
			if x0 := mustPort(t, p.d, "x0"); values[0] != "0" || values[2] != "0" || x0.IfIndex != 0 {
				t.Errorf("x0 is %s, with %v", index, values)
			}
		}
	}
	if tunnels != 1 {
		t.Errorf("%d ports have a number of their own: %v", tunnels, last)
	}

	// No more once it is deleted.
	p.d.Ctl("sflow", "del", "br0")
	var list []api.SFlowStatus
	if p.d.CtlJSON(&list, "sflow", "list"); len(list) != 0 {
		t.Errorf("%+v", list)
	}
	refused(t, p.d, []string{"sflow", "del", "br0"}, "br0 has no sFlow")
}

// TestSFlowTroubles: what is wrong is said, and forwarding goes on.
//
//	c1 ── [host a: br0 ── sFlow ──▶ nobody] ── c2
func TestSFlowTroubles(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	refused(t, p.d, []string{"sflow", "add", "br0", "sampling=10"}, "sflow add br0: bridges[br0].sflow.target: is missing")
	refused(t, p.d, []string{"sflow", "add", "br0", "target=here"}, `"here" is not an address`)

	c := collect(t, p.h)
	closed := c.target()
	c.conn.Close()
	p.d.Ctl("sflow", "add", "br0", "target="+closed, "sampling=1", "polling=0")
	wait := func(state string, words ...string) (st api.SFlowStatus) {
		t.Helper()
		lab.Eventually(t, patient, func() error {
			if err := lab.Ping(p.c1, p.c2); err != nil {
				return err
			}
			if st = sflowOf(t, p.d); st.State != state {
				return fmt.Errorf("%s: %s", st.State, st.Reason)
			}
			return has(st.Reason, words...)
		})
		return st
	}
	wait("error", closed, "connection refused")
	if out := p.d.Ctl("sflow", "list"); !strings.Contains(out, "connection refused") {
		t.Errorf("sflow list:\n%s", out)
	}

	p.d.Ctl("sflow", "add", "--may-exist", "br0", "target=::1")
	if st := wait("error", "[::1]:6343", "connection refused"); st.Agent != "::1" {
		t.Errorf("agent %s", st.Agent)
	}

	// There is no route there, and then no such interface.
	p.d.Ctl("sflow", "add", "--may-exist", "br0", "target=192.0.2.9")
	wait("error", "network is unreachable")
	if _, errs, code := p.d.CtlErr("sflow", "add", "--may-exist", "br0", "agent=eth9"); code != 0 || !strings.Contains(errs, "agent=eth9: there is no such interface; it is tried again") {
		t.Errorf("status %d, %q", code, errs)
	}
	wait("error", "agent=eth9", "no such interface")

	// It begins by itself once there is one. A sampling of 1 tells of each frame.
	c = collect(t, p.h)
	p.d.Ctl("sflow", "add", "--may-exist", "br0", "target="+c.target(), "agent=br0", "polling=1")
	wait("error", "agent=br0", "no address")
	p.h.MustExec("ip", "addr", "add", "10.0.0.254/24", "dev", "br0")
	st := wait("up")
	if st.Agent != "10.0.0.254" {
		t.Errorf("agent %s", st.Agent)
	}
	lab.Eventually(t, patient, func() error {
		p.c1.Exec("ping", "-c1", "-W1", p.c2.IP()) // whose frames are sampled
		if st = sflowOf(t, p.d); st.Samples == 0 || st.Samples+st.Missed != st.Pool {
			return fmt.Errorf("%d samples, %d missed of %d", st.Samples, st.Missed, st.Pool)
		}
		return lab.Ping(p.c1, p.c2)
	})

	// It comes back with the daemon, and as it was with a rollback.
	p.d.Restart()
	if again := sflowOf(t, p.d); again.SubAgent != st.SubAgent || fmt.Sprint(again.Options) != fmt.Sprint(st.Options) {
		t.Errorf("after a restart %+v, before %+v", again, st)
	}
	var history []api.HistoryEntry
	p.d.CtlJSON(&history, "history")
	p.d.Ctl("sflow", "del", "br0")
	p.d.Ctl("rollback", fmt.Sprint(history[0].Version))
	if again := sflowOf(t, p.d); fmt.Sprint(again.Options) != fmt.Sprint(st.Options) {
		t.Errorf("after a rollback %+v, before %+v", again, st)
	}
	p.d.Ctl("del-br", "br0")
}
