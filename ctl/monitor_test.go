package ctl_test

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// eventsOf reads JSON lines, the last of which may not be whole yet.
func eventsOf(t *testing.T, lines string) (events []api.Event) {
	t.Helper()
	for line := range strings.Lines(lines) {
		if !strings.HasSuffix(line, "\n") {
			break
		}
		var e api.Event
		if err := json.Unmarshal([]byte(line), &e); err != nil {
			t.Fatalf("not a JSON line: %v\n%s", err, line)
		}
		if e.Time.IsZero() || e.Kind == "" || e.Message == "" {
			t.Errorf("an event lacks something: %s", line)
		}
		events = append(events, e)
	}
	return events
}

// TestMonitor listens while ports come and go, MACs are learned, move and age,
// the document changes and frames are dropped:
//
//	c1 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── c2
func TestMonitor(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	d := p.d
	_, out := d.CtlStart("monitor", "-o", "json")
	find := func(kind, port string, words ...string) error {
		for _, e := range eventsOf(t, out.String()) {
			if e.Kind == kind && e.Port == port && has(e.Message, words...) == nil {
				return nil
			}
		}
		return fmt.Errorf("no event %s of port %q says %q", kind, port, words)
	}
	want := func(kind, port string, words ...string) {
		t.Helper()
		lab.Eventually(t, patient, func() error { return find(kind, port, words...) })
	}
	lab.Eventually(t, patient, func() error { // until it listens
		d.Ctl("set-br", "br0", fmt.Sprintf("mac-table-size=%d", 1000+serial.Add(1)))
		return find("config", "", "set-br br0 mac-table-size")
	})

	d.Ctl("add-port", "br0", "late")
	want("port-waiting", "late", "late of br0 is waiting", "does not exist")
	d.Ctl("del-port", "late")
	want("port-removed", "late")
	p.c1.MustExec("ip", "link", "set", "eth0", "down")
	want("port-down", p.c1.Veth, "no carrier")
	p.c1.MustExec("ip", "link", "set", "eth0", "up")
	want("port-up", p.c1.Veth)

	d.Ctl("set-br", "br0", "mac-aging-time=1")
	in1, in2 := p.c1.Conn(), p.c2.Conn()
	mac := "02:00:00:00:55:01"
	hw, _ := net.ParseMAC(mac)
	if err := delivered(in1, in2, testFrame(hw, 0), patient); err != nil {
		t.Fatal(err)
	}
	want("mac-learned", p.c1.Veth, mac, "VLAN 0")
	if err := delivered(in2, in1, testFrame(hw, 0), patient); err != nil {
		t.Fatal(err)
	}
	want("mac-moved", p.c2.Veth, mac, "moved from "+p.c1.Veth+" to "+p.c2.Veth)
	want("mac-aged", p.c2.Veth, mac)

	bpdu := testFrame(p.c1.MAC, 0)
	copy(bpdu, []byte{0x01, 0x80, 0xc2, 0, 0, 0})
	lab.Eventually(t, patient, func() error {
		for range 200 {
			if err := in1.Send(bpdu); err != nil {
				return err
			}
		}
		return find("drops", p.c1.Veth, "frames dropped at "+p.c1.Veth)
	})
	if slices.ContainsFunc(eventsOf(t, out.String()), func(e api.Event) bool { return e.Kind == "lost" }) {
		t.Error("events were lost for a reader that reads")
	}
}

// TestSlowReader subscribes to events and does not read, while more happens than
// any buffer holds:
//
//	c1 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── c2
func TestSlowReader(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	d := p.d
	d.Ctl("set-br", "br0", "mac-table-size=100000")
	conn, err := net.Dial("unix", d.Socket)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET /v1/events HTTP/1.1\r\nHost: vswitch\r\n\r\n")
	conn.SetReadDeadline(time.Now().Add(patient))
	r := bufio.NewReaderSize(conn, 4096)
	if line, err := r.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
		t.Fatalf("%q, %v", line, err)
	}

	// It has subscribed when it was answered, and reads no more.
	in, out := p.c1.Conn(), p.c2.Conn()
	f := testFrame(net.HardwareAddr{2, 0, 0, 0, 0, 0}, 0)
	for i := range 40_000 {
		binary.BigEndian.PutUint32(f[8:], uint32(i))
		if err := in.Send(f); err != nil {
			t.Fatal(err)
		}
		if i%2000 == 0 {
			begin := time.Now()
			if err := d.Get("/v1/status", nil); err != nil || time.Since(begin) > prompt {
				t.Errorf("status after %v: %v", time.Since(begin), err)
			}
		}
	}
	begin := time.Now()
	d.Ctl("set-port", p.c1.Veth, "tx-ring=2048")
	if took := time.Since(begin); took > prompt {
		t.Errorf("an edit took %v with a reader that does not read", took)
	}
	if err := delivered(in, out, testFrame(p.c1.MAC, 0), patient); err != nil {
		t.Error(err)
	}

	// Now it reads: what it missed is told, or it was cut off.
	deadline := time.Now().Add(patient)
	conn.SetReadDeadline(deadline)
	n := 0
	for {
		// Something more has to happen for word of the lost ones to come.
		if n%1000 == 0 {
			d.Ctl("set-br", "br0", fmt.Sprintf("mac-aging-time=%d", 301+n/1000))
		}
		line, err := r.ReadString('\n')
		if err == io.EOF {
			t.Logf("the reader was cut off after %d lines", n)
			return
		}
		if err != nil {
			t.Fatalf("no word of lost events in %d lines: %v", n, err)
		}
		if n++; strings.Contains(line, `"kind":"lost"`) {
			t.Logf("after %d lines: %s", n, line)
			return
		}
	}
}
