package vswitch_test

import (
	"context"
	"fmt"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// labMaxThreads bounds a daemon's threads however many ports it has: its workers,
// and what the Go runtime makes for itself and for system calls that block.
var labMaxThreads = 20 + 2*runtime.NumCPU()

// TestLabHundred has a hundred containers that all reach all:
//
//	c1   eth0 ── veth-c1 ┐
//	…                    ┼ br0
//	c100 eth0 ── veth-c100 ┘
//
// Each sends one broadcast, and then one frame to each of the others: 9,900 pairs.
// Each must receive exactly the 99 broadcasts and the 99 frames that are for it.
func TestLabHundred(t *testing.T) {
	t.Parallel()
	const count = 100
	n := newLabNet(t, count, labOptions{})
	conns := make([]*lab.Conn, count)
	for i, c := range n.c {
		conns[i] = c.Conn()
	}
	want := make([]map[string]int, count)
	for i := range want {
		want[i] = map[string]int{}
	}
	for i, c := range n.c {
		frame := labEther(labBroadcast, c.MAC, fmt.Sprintf("from %d to all", i))
		labSend(t, conns[i], frame)
		for j := range n.c {
			if j != i {
				want[j][string(frame)]++
			}
		}
	}
	lab.Eventually(t, 10*time.Second, func() error {
		entries, err := n.client.FDB(context.Background(), api.FDBQuery{Bridge: "br0", VLAN: -1})
		if err == nil && len(entries) != count {
			err = fmt.Errorf("%d MAC addresses are known, want %d", len(entries), count)
		}
		return err
	})
	for i, from := range n.c {
		for j, to := range n.c {
			if i == j {
				continue
			}
			frame := labEther(to.MAC, from.MAC, fmt.Sprintf("from %d to %d", i, j))
			labSend(t, conns[i], frame)
			want[j][string(frame)]++
		}
	}
	var wg sync.WaitGroup
	for j := range conns {
		wg.Go(func() { // ends when nothing comes any more
			for missing := 2 * (count - 1); missing > 0; missing-- {
				frame, err := conns[j].Recv(10 * time.Second)
				if err != nil {
					t.Errorf("c%d lacks %d frames: %v", j+1, missing, err)
					return
				}
				if want[j][string(frame)]--; want[j][string(frame)] < 0 {
					t.Errorf("c%d received what is not for it, or twice: %x", j+1, frame)
				}
			}
		})
	}
	wg.Wait()
	for j, c := range conns {
		if more := c.Drain(); more > 0 {
			t.Errorf("c%d received %d frames too many", j+1, more)
		}
	}
	st := n.settled()["br0"]
	if c := st.Counters; c.Received != count+count*(count-1) || c.FloodCopies != count*(count-2) || c.Dropped != 0 {
		t.Errorf("counters: %+v", c)
	}
	if threads := labThreads(t, n.d.Process().PID()); threads > labMaxThreads {
		t.Errorf("the daemon has %d threads for %d ports, want at most %d", threads, count, labMaxThreads)
	} else {
		t.Logf("%d threads, resident memory %d MiB", threads, labRSS(t, n.d.Process().PID())>>20)
	}
}

// TestLabThousandPorts adds three hundred idle ports with one document:
//
//	p0   ─ v0   ┐
//	…           ┼ br0      all in host a
//	p299 ─ v299 ┘
func TestLabThousandPorts(t *testing.T) {
	t.Parallel()
	const count = 1000
	n := newLabNet(t, 0, labOptions{})
	// No addresses come by themselves while the snapshot is taken.
	n.h.Sysctl("net.ipv6.conf.default.disable_ipv6", "1")
	err := n.h.Do(func() error {
		for i := range count {
			attrs := netlink.NewLinkAttrs()
			attrs.Name, attrs.Flags = fmt.Sprintf("v%d", i), net.FlagUp
			veth := netlink.NewVeth(attrs)
			veth.PeerName = fmt.Sprintf("p%d", i)
			if err := netlink.LinkAdd(veth); err != nil {
				return err
			}
			peer, err := netlink.LinkByName(veth.PeerName)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetUp(peer); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	clean := n.h.Snapshot()
	var document strings.Builder
	document.WriteString("bridges:\n- name: br0\n  ports:\n")
	for i := range count {
		fmt.Fprintf(&document, "  - name: v%d\n", i)
	}
	pid := n.d.Process().PID()
	before, start := labRSS(t, pid), time.Now()
	if _, err := n.client.ApplyText(context.Background(), []byte(document.String()), api.ApplyOptions{}); err != nil {
		t.Fatal(err)
	}
	applied := time.Since(start)
	lab.Eventually(t, 20*time.Second, func() error {
		status, err := n.client.Status(context.Background(), "br0")
		if err != nil {
			return err
		}
		for _, p := range status.Bridges[0].Ports {
			if p.Type == "packet" && p.State != api.PortUp {
				return fmt.Errorf("port %s is %s: %s", p.Name, p.State, p.Reason)
			}
		}
		if ports := len(status.Bridges[0].Ports); ports != count+1 {
			return fmt.Errorf("%d ports, want %d", ports, count+1)
		}
		return nil
	})
	rss, threads := labRSS(t, pid), labThreads(t, pid)
	if threads > labMaxThreads {
		t.Errorf("the daemon has %d threads for %d ports, want at most %d", threads, count, labMaxThreads)
	}
	n.d.Kill()
	start = time.Now()
	n.d.Start()
	restarted := time.Since(start)
	start = time.Now()
	n.d.Ctl("--timeout", "60s", "del-br", "br0")
	removed := time.Since(start)
	t.Logf("applied in %v, back after kill -9 in %v, removed in %v; %d threads; resident memory %.1f MiB before, %.1f with %d ports",
		applied, restarted, removed, threads, float64(before)/(1<<20), float64(rss)/(1<<20), count)
	for _, line := range clean.Diff(n.h.Snapshot()) {
		if !strings.Contains(line, " br0 ") && !strings.HasSuffix(line, " on br0") {
			t.Errorf("left behind: %s", line)
		}
	}
}
