package ctl_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/gopacket/pcapgo"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/internal/lab"
	"vswitch/tunnel/bfd"
)

// TestPeerDiesAndReturns: each change is told once, kill -9 leaves nothing behind that
// is in the way, and SIGTERM is told to the other end at once.
func TestPeerDiesAndReturns(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan", fast...)
	events := h.a.d.Events("bfd-down", "port-down", "bfd-up", "port-up")
	once := func(when string, n int) {
		t.Helper()
		for _, kind := range []string{"bfd-down", "port-down", "bfd-up", "port-up"} {
			if all := events.Of(kind, ""); len(all) != n {
				t.Errorf("%s: %d events %s, want %d: %+v", when, len(all), kind, n, all)
			}
		}
	}
	h.b.d.Kill()
	waitPort(t, h.a.d, "t0", api.PortDown, "Control Detection Time Expired")
	h.b.d.Start()
	begin := time.Now()
	h.reach("t0")
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("up %v after the daemon that was killed answers again", took)
	}
	once("after kill -9", 1)

	ended, daemon := make(chan time.Time, 1), h.b.d.Process()
	go func() { // ends with the daemon
		<-daemon.Done()
		ended <- time.Now()
	}()
	h.b.d.Stop()
	waitPort(t, h.a.d, "t0", api.PortDown, "the other end has taken the tunnel down")
	gone := <-ended
	if all := events.Of("port-down", ""); len(all) != 2 || all[1].Time.After(gone.Add(200*time.Millisecond)) ||
		!strings.Contains(all[1].Message, "the other end has taken the tunnel down") {
		t.Errorf("the daemon ended at %v, and the peer's port: %+v", gone, all)
	}
	h.b.d.Start()
	h.reach("t0")
	once("after SIGTERM", 2)
}

// TestUnknownTunnelPacketsAreNamed: the event of what was dropped tells whose packets
// they are.
func TestUnknownTunnelPacketsAreNamed(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan")
	events := h.a.d.Events("drops")
	err := h.b.Do(func() error {
		c, err := net.Dial("udp4", "192.0.2.1:4789")
		if err != nil {
			return err
		}
		defer c.Close()
		packet := []byte{8, 0, 0, 0, 0, 0, 99, 0} // RFC 7348: VNI 99
		packet = append(packet, testFrame(h.b.c.MAC, 0)...)
		return lab.Wait(patient, func() error {
			for range 200 {
				if _, err := c.Write(packet); err != nil {
					return err
				}
			}
			if len(events.Of("drops", "")) == 0 {
				return fmt.Errorf("no event of drops")
			}
			return nil
		})
	})
	if err != nil {
		t.Fatal(err)
	}
	ev := events.Of("drops", "")[0]
	if ev.Port != "vxlan 0.0.0.0:4789" || ev.Detail["reason"] != "tunnel-unknown-source" || ev.Detail["source"] != "192.0.2.2 key 99" {
		t.Errorf("%+v", ev)
	}
	if err := has(ev.Message, "frames from 192.0.2.2 key 99 dropped at vxlan 0.0.0.0:4789 in a second"); err != nil {
		t.Error(err)
	}
	if err := has(h.a.d.Ctl("drops"), "192.0.2.2 key 99", "last: "+h.b.c.MAC.String()+" > "); err != nil {
		t.Error(err)
	}
	answered(t, h.a.c, "10.0.0.2")
}

// TestTunnelChangedLive changes what a tunnel is while it works.
func TestTunnelChangedLive(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan", fast...)
	before := h.a.tunnelOf(t, "t0")
	events := h.a.d.Events("bfd-down", "port-down", "bfd-up", "port-up")
	for _, ms := range []int{300, 50, 1000, 100} { // no flap, up or down
		for _, e := range []*end{h.a, h.b} {
			e.d.Ctl("set-port", "t0", fmt.Sprint("bfd_min_rx=", ms), fmt.Sprint("bfd_min_tx=", ms))
		}
		lab.Eventually(t, patient, func() error {
			if st := h.a.tunnelOf(t, "t0"); st.BFD.MinRx != ms || st.BFD.MinTx != ms {
				return fmt.Errorf("the intervals are %d and %d ms, want %d", st.BFD.MinRx, st.BFD.MinTx, ms)
			}
			return nil
		})
	}
	if st := h.a.tunnelOf(t, "t0"); st.BFD.Flaps != before.BFD.Flaps || !st.BFD.Since.Equal(before.BFD.Since) || !st.Since.Equal(before.Since) {
		t.Errorf("it was %+v and is %+v", before.BFD, st.BFD)
	}
	for _, kind := range []string{"bfd-down", "port-down", "bfd-up", "port-up"} {
		if all := events.Of(kind, ""); len(all) > 0 {
			t.Errorf("other timers: %+v", all)
		}
	}

	for _, e := range []*end{h.a, h.b} {
		e.d.Ctl("set-port", "t0", "key=43")
	}
	h.reach("t0")
	if st := h.a.tunnelOf(t, "t0"); *st.InKey != 43 || *st.OutKey != 43 {
		t.Errorf("%+v", st)
	}
	h.b.MustExec("ip", "address", "add", "192.0.2.22/24", "dev", "eth0")
	h.b.d.Ctl("set-port", "t0", "local_ip=192.0.2.22")
	h.a.d.Ctl("set-port", "t0", "remote_ip=192.0.2.22")
	h.reach("t0")
	if st := h.a.tunnelOf(t, "t0"); st.RemoteAddr != "192.0.2.22" {
		t.Errorf("%+v", st)
	}
}

// TestTunnelsLeaveNoFiles adds and deletes tunnel ports of each kind 50 times.
func TestTunnelsLeaveNoFiles(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	edit := func(ops ...config.Op) {
		t.Helper()
		if _, err := h.a.api.Edit(context.Background(), api.Edit{Ops: ops}); err != nil {
			t.Fatal(err)
		}
	}
	cycle := func() {
		t.Helper()
		var add, del []config.Op
		for i, kind := range []config.Object{config.VXLANPort, config.GREPort, config.GenevePort} {
			name := fmt.Sprint("t", i)
			o := config.Options{"type": string(kind), "remote_ip": "192.0.2.2", "bfd_enable": "true", "bfd_min_tx": "10"}
			if i == 1 {
				o["local_ip"] = "192.0.2.1"
			}
			add = append(add, config.Op{Op: "add-port", Bridge: "br0", Port: name, Options: o})
			del = append(del, config.Op{Op: "del-port", Bridge: "br0", Port: name})
		}
		edit(add...)
		edit(del...)
	}
	count := func() int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", h.a.d.Process().PID()))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	cycle() // what is opened once and kept is no leak
	was := count()
	for range 50 {
		cycle()
	}
	lab.Eventually(t, patient, func() error {
		if now := count(); now > was {
			return fmt.Errorf("%d file descriptors are open, and were %d", now, was)
		}
		return nil
	})
}

// TestContainerForgesBFD: a container cannot take the tunnel down that carries it.
func TestContainerForgesBFD(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan", fast...)
	before := []api.TunnelStatus{h.a.tunnelOf(t, "t0"), h.b.tunnelOf(t, "t0")}
	from, to := h.a.c.Conn(), h.b.c.Conn()
	sent := uint64(0)
	var own []byte // as the tunnel's own are
	for _, state := range []bfd.State{bfd.AdminDown, bfd.Down, bfd.Init} {
		packet := bfd.Packet{
			State: state, Diag: bfd.DiagAdminDown, Multiplier: 3, MyDiscr: 7, DesiredMinTx: time.Second, RequiredMinRx: time.Second,
		}.Append(nil)
		own = bfd.Encapsulate(nil, bfd.NewAddresses(), packet)
		tagged := append(bytes.Clone(own[:12]), 0x81, 0, 0, 5)
		tagged = append(tagged, own[12:]...)
		forged := [][]byte{own, tagged}
		for _, dst := range [][]byte{{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}, h.b.c.MAC} { // what containers may say to each other
			f := bytes.Clone(own)
			copy(f, dst)
			forged = append(forged, f)
		}
		for range 30 {
			for _, f := range forged {
				if err := from.Send(f); err != nil {
					t.Fatal(err)
				}
			}
			sent++
		}
	}
	lab.Eventually(t, patient, func() error {
		if n, _ := h.a.drops(t, "tunnel-control"); n < sent {
			return fmt.Errorf("%d frames were dropped as tunnel-control, and %d sent", n, sent)
		}
		return nil
	})
	// When this has arrived, what was sent before has too, and was judged.
	after := testFrame(h.a.c.MAC, 0)
	if err := from.Send(after); err != nil {
		t.Fatal(err)
	}
	for arrived := false; !arrived; {
		f, err := to.Recv(patient)
		if err != nil {
			t.Fatal(err)
		}
		if bytes.HasPrefix(f, own[:6]) && bfd.IsControl(f) {
			t.Fatalf("a forged frame reached the other container: %x", f)
		}
		arrived = bytes.Equal(f, after)
	}
	for i, e := range []*end{h.a, h.b} {
		st := e.tunnelOf(t, "t0")
		if st.BFD.Flaps != before[i].BFD.Flaps || !st.BFD.Since.Equal(before[i].BFD.Since) || st.State != api.PortUp {
			t.Errorf("BFD of %s was %+v and is %+v", e.Name, before[i].BFD, st.BFD)
		}
	}
	answered(t, h.a.c, "10.0.0.2")
}

// TestMirrorOfAMeshPort: a mirror may select the port of a mesh that leads to a peer.
func TestMirrorOfAMeshPort(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	for _, e := range []*end{h.a, h.b} {
		e.d.Ctl("mesh", "add", "m0", "bridge=br0", "key=42", "peers=192.0.2.1,192.0.2.2")
	}
	waitPort(t, h.a.d, "m0:192.0.2.2", api.PortUp)
	file := h.Dir() + "/mesh.pcapng"
	h.a.d.Ctl("mirror", "add", "br0", "far", "select_src_port=m0:192.0.2.2", "output_pcap="+file)
	to, from := h.a.c.Conn(), h.b.c.Conn()
	f := testFrame(h.b.c.MAC, 0)
	if err := delivered(from, to, f, patient); err != nil {
		t.Fatal(err)
	}
	h.a.d.Ctl("mirror", "del", "br0", "far")
	lab.Eventually(t, patient, func() error {
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		r, err := pcapgo.NewNgReader(bytes.NewReader(b), pcapgo.DefaultNgReaderOptions)
		if err != nil {
			return err
		}
		for {
			got, _, err := r.ReadPacketData()
			if err != nil {
				return fmt.Errorf("the frame is not in the file: %w", err)
			}
			if bytes.Equal(got, f) {
				return nil
			}
		}
	})
}

// TestLongFrames sends IP packets of 1500 bytes and more over an underlay of 1500: with
// df_default=false the host fragments what is too long; otherwise the container learns.
func TestLongFrames(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan", "df_default=false")
	// The bytes are what was sent.
	to, from := h.b.c.Conn(), h.a.c.Conn()
	f := append(bytes.Clone(h.b.c.MAC), h.a.c.MAC...)
	f = binary.BigEndian.AppendUint16(f, etherType)
	for i := len(f); i < 1514; i++ {
		f = append(f, byte(i*7))
	}
	if err := delivered(from, to, f, patient); err != nil {
		t.Error(err)
	}
	ping := func(args ...string) error {
		args = append([]string{"ping", "-n", "-q", "-c", "3", "-i", "0.01", "-W", "1"}, append(args, "10.0.0.2")...)
		return lab.Wait(patient, func() error {
			out, err := h.a.c.Exec(args...)
			if err != nil || !strings.Contains(out, " 0% packet loss") {
				return fmt.Errorf("%v: %s", err, out)
			}
			return nil
		})
	}
	if err := ping("-M", "do", "-s", "1472"); err != nil {
		t.Errorf("df_default=false: %v", err)
	}
	for _, e := range []*end{h.a, h.b} {
		e.d.Ctl("set-port", "t0", "df_default=true")
	}
	h.reach("t0")
	if st := h.a.tunnelOf(t, "t0"); st.MTU != 1450 {
		t.Errorf("the largest packet inside is %d bytes", st.MTU)
	}
	if err := ping("-s", "3000"); err != nil {
		t.Errorf("df_default=true: %v", err)
	}
	// What came first was lost, and its sender told.
	if n, _ := h.a.drops(t, "mtu-exceeded"); n == 0 {
		t.Error("nothing was too long")
	}
}
