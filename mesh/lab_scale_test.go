package mesh_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestLabManyTunnels has thousands of tunnel ports in a bridge, one of which leads
// to somebody:
//
//	c0 ── [a: br0] ── underlay ── [b: br0] ── c0
//	         ├ v1 … v10000: 198.18.0.0/15, by way of b, who throws it away
//	         └ peer: b
func TestLabManyTunnels(t *testing.T) {
	tunnels, limit := 10_000, 20*time.Second
	if raced {
		tunnels, limit = 1000, 30*time.Second
	}
	n := newLabMesh(t, labOptions{hosts: 2, containers: 1})
	a, b := n.hosts[0], n.hosts[1]
	for _, m := range n.hosts {
		// A request is thousands of frames here: none is to be asked again in haste.
		m.c[0].Sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "1000")
	}
	b.d.Ctl("add-port", "br0", "peer", "type=vxlan", "key=7", "remote_ip="+a.addr)
	a.MustExec("ip", "route", "add", "198.18.0.0/15", "via", b.addr)
	b.Sysctl("net.ipv4.conf.all.forwarding", "0")

	pid := a.d.Process().PID()
	files := func() int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	memory := func() int { // KiB
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
		if err != nil {
			t.Fatal(err)
		}
		_, rest, _ := strings.Cut(string(text), "VmRSS:")
		kib, err := strconv.Atoi(strings.Fields(rest)[0])
		if err != nil {
			t.Fatal(err)
		}
		return kib
	}
	document := func(count int) string {
		var doc strings.Builder
		fmt.Fprintf(&doc, "bridges:\n- name: br0\n  ports:\n  - {name: %s}\n  - {name: peer, type: vxlan, key: 7, remote_ip: %s}\n", a.c[0].Veth, b.addr)
		for i := 1; i <= count; i++ {
			fmt.Fprintf(&doc, "  - {name: v%d, type: vxlan, key: %d, remote_ip: 198.18.%d.%d}\n", i, i, i>>8, i&0xff)
		}
		path := filepath.Join(n.Dir(), fmt.Sprint("doc", count))
		if err := os.WriteFile(path, []byte(doc.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	// flood sends broadcasts one by one and says how long each took to arrive.
	from, to := a.c[0].Conn(), b.c[0].Conn()
	flood := func() time.Duration {
		const frames = 5
		start := time.Now()
		for i := range frames {
			if err := from.Send(ether(broadcast, a.c[0].MAC, fmt.Sprint(i))); err != nil {
				t.Fatal(err)
			}
			for {
				frame, err := to.Recv(patient)
				if err != nil {
					t.Fatal(err)
				}
				if isEther(frame) {
					break
				}
			}
		}
		return time.Since(start) / frames
	}
	pings := func() {
		t.Helper()
		if err := lab.Ping(a.c[0], b.c[0]); err != nil {
			t.Error(err)
		}
		if err := lab.Transfer(a.c[0], b.c[0], 4<<20); err != nil {
			t.Error(err)
		}
	}

	a.api.Close()
	none := files()
	start := time.Now()
	a.d.Ctl("--timeout", "60s", "apply", "-f", document(0))
	a.d.Ctl("add-port", "br0", "one", "type=vxlan", "key=8", "remote_ip="+b.addr) // an endpoint is open now
	a.api.Close()
	rss, one, alone := memory(), files(), time.Since(start)
	lab.Eventually(t, patient, func() error { return a.is("peer", api.PortUp) })
	floodOne := flood()
	a.d.Ctl("del-port", "one")

	start = time.Now()
	a.d.Ctl("--timeout", "60s", "apply", "-f", document(tunnels))
	took := time.Since(start)
	a.api.Close()
	t.Logf("%d tunnels: applied in %v (one: %v); %d files are open, were %d with one and %d with none; %d MiB, was %d",
		tunnels, took.Round(time.Millisecond), alone.Round(time.Millisecond), files(), one, none, memory()>>10, rss>>10)
	if took > limit {
		t.Errorf("%d tunnels took %v", tunnels, took)
	}
	if now := files(); now > one+40 { // the sixteen sockets to send from are opened when needed
		t.Errorf("%d tunnels are %d files, one is %d", tunnels, now, one)
	}
	if grown := (memory() - rss) >> 10; grown > tunnels/20 && !raced {
		t.Errorf("%d tunnels take %d MiB", tunnels, grown)
	}
	start = time.Now()
	all, err := a.api.Tunnels(context.Background(), "br0")
	if err != nil || len(all) != tunnels+1 {
		t.Fatalf("%d tunnels, %v", len(all), err)
	}
	up := 0
	for _, p := range all {
		if p.State == api.PortUp {
			up++
		}
	}
	if up != len(all) {
		t.Errorf("%d of %d tunnels are up; the first is %+v", up, len(all), all[0])
	}
	t.Logf("the API lists them in %v", time.Since(start).Round(time.Millisecond))
	for _, command := range []string{"show", "tunnel show", "list-br"} {
		start = time.Now()
		a.d.Ctl(strings.Fields(command)...)
		t.Logf("vswitchctl %s took %v", command, time.Since(start).Round(time.Millisecond))
	}

	pings()
	t.Logf("a broadcast takes %v to all of them, %v with two", flood().Round(10*time.Microsecond), floodOne.Round(10*time.Microsecond))
	pings()
	idle := cpu(t, pid)
	start = time.Now()
	time.Sleep(2 * time.Second) // a measurement
	share := (cpu(t, pid) - idle).Seconds() / time.Since(start).Seconds()
	t.Logf("idle, it takes %.1f %% of a core", 100*share)
	if share > 0.3 && !raced {
		t.Errorf("idle, it takes %.0f %% of a core", 100*share)
	}
	start = time.Now()
	a.d.Ctl("set-port", "v7", "key=70000")
	t.Logf("one of them changed in %v", time.Since(start).Round(time.Millisecond))

	a.d.Kill()
	start = time.Now()
	a.d.Start()
	lab.Eventually(t, limit, func() error { return a.is("peer", api.PortUp) })
	lab.Eventually(t, limit, func() error { return lab.Ping(a.c[0], b.c[0]) })
	t.Logf("restarted in %v", time.Since(start).Round(time.Millisecond))
	pid = a.d.Process().PID()

	start = time.Now()
	a.d.Ctl("--timeout", "60s", "apply", "-f", document(0))
	took = time.Since(start)
	t.Logf("removed in %v, %d MiB", took.Round(time.Millisecond), memory()>>10)
	if took > limit {
		t.Errorf("removing %d tunnels took %v", tunnels, took)
	}
	pings()
	n.settled()
}

// cpu returns the time that a process has spent computing.
func cpu(t *testing.T, pid int) time.Duration {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	// proc_pid_stat(5): behind the name, field 14 is utime and 15 stime, in ticks of 10 ms.
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	var ticks int
	for _, f := range fields[11:13] {
		n, err := strconv.Atoi(f)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
