package ctl_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// resident returns what a process keeps in memory, in bytes: its PSS, see proc(5),
// smaps_rollup.
func resident(t *testing.T, pid int) int {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\nPss:")
	kib, err := strconv.Atoi(strings.Fields(rest)[0])
	if err != nil {
		t.Fatal(err)
	}
	return kib << 10
}

// spent returns what a process has used of the CPUs: utime and stime of proc(5),
// stat, in hundredths of a second.
func spent(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), ") ")
	var ticks int
	for _, f := range strings.Fields(rest)[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * time.Second / 100
}

// TestTenThousandTunnels: tunnel ports are small, and what they take to come and go is
// in proportion to their number.
//
//	[host a: vswitchd, br0] t0 … t9999 ── lo
func TestTenThousandTunnels(t *testing.T) {
	const (
		count    = 10_000
		each     = 4 << 10         // bytes; some 2.7 KiB are measured
		quick    = 2 * time.Second // of CPU; 0.4 and 0.1 s are measured
		atRest   = 40 << 20
		settling = 10 * time.Second
	)
	if raced {
		t.Skip("a daemon with the race detector has other figures")
	}
	l := lab.New(t)
	h := l.Host("a")
	h.MustExec("ip", "route", "add", "198.18.0.0/15", "dev", "lo")
	d := h.Daemon(lab.DaemonOptions{})
	pid := d.Process().PID()
	var doc strings.Builder
	doc.WriteString("bridges:\n- name: br0\n")
	none := write(t, l, doc.String())
	doc.WriteString("  ports:\n")
	for i := range count {
		fmt.Fprintf(&doc, "  - {name: t%d, type: vxlan, key: %d, remote_ip: 198.18.%d.%d}\n", i, i, i>>8, i&0xff)
	}
	many := write(t, l, doc.String())

	d.Ctl("apply", "-f", none)
	before := resident(t, pid)
	if before > atRest {
		t.Errorf("%d MiB are resident without a port", before>>20)
	}
	use := func(path string) time.Duration {
		t.Helper()
		begin := spent(t, pid)
		d.Ctl("--timeout", "60s", "apply", "-f", path)
		took := spent(t, pid) - begin
		if took > quick {
			t.Errorf("it took %v of CPU", took)
		}
		return took
	}
	added := use(many)
	atOnce := resident(t, pid) - before
	if p, err := portOf(d, "t9999"); err != nil || p.State != api.PortUp {
		t.Errorf("%+v, %v", p, err)
	}
	lab.Eventually(t, settling, func() error {
		if now := resident(t, pid) - before; now > count*each {
			return fmt.Errorf("%d bytes a port are resident, want at most %d", now/count, each)
		}
		return nil
	})
	settled := resident(t, pid) - before
	removed := use(none)
	t.Logf("%d tunnels: %d bytes each when added, %d later; %v of CPU to add, %v to remove; %d MiB at rest",
		count, atOnce/count, settled/count, added, removed, before>>20)
}

// TestMillionMACs: what a table of a million takes, all counted.
//
//	c1 eth0 ── veth-c1 [host a: vswitchd, br0 mac-table-size=1000000] veth-c2 ── eth0 c2
func TestMillionMACs(t *testing.T) {
	const (
		count = 1_000_000
		each  = 40 // bytes; some 33 are measured
	)
	if raced {
		t.Skip("a daemon with the race detector has other figures")
	}
	// The flight recorder has a memory of its own, however many MACs there are.
	p := newPair(t, lab.DaemonOptions{Args: []string{"--recorder", "0"}}, fmt.Sprint("mac-table-size=", count), "mac-aging-time=0")
	pid := p.d.Process().PID()
	before := resident(t, pid)
	conn := p.c1.Conn()
	known := func() int {
		var all []api.FDBStats
		if err := p.d.Get("/v1/fdb/stats", &all); err != nil {
			t.Fatal(err)
		}
		return all[0].Entries
	}
	frame := testFrame(p.c1.MAC, 0)
	copy(frame, p.c1.MAC) // to c1 itself: learned from, and dropped
	n := 0
	for range 5 {
		for i := range count {
			copy(frame[6:], []byte{2, 1})
			binary.BigEndian.PutUint32(frame[8:], uint32(i))
			if err := conn.Send(frame); err != nil {
				t.Fatal(err)
			}
		}
		if n = known(); n > count*9/10 { // some frames are lost in its receive buffer
			break
		}
	}
	if n <= count*9/10 || n > count {
		t.Fatalf("%d MACs are known of %d", n, count)
	}
	lab.Eventually(t, patient, func() error {
		if now := resident(t, pid) - before; now > n*each {
			return fmt.Errorf("%.1f bytes a MAC are resident, want at most %d", float64(now)/float64(n), each)
		}
		return nil
	})
	t.Logf("%d MACs: %.1f bytes each", n, float64(resident(t, pid)-before)/float64(n))
}
