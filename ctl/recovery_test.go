package ctl_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// attach attaches to a persistent TAP as a virtual machine does, until the lab
// ends or the returned function is called.
func attach(t *testing.T, l *lab.Lab, h *lab.Host, name string) (detach func()) {
	t.Helper()
	fd := -1
	err := h.Do(func() (err error) {
		if fd, err = unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
			return err
		}
		req, err := unix.NewIfreq(name)
		if err != nil {
			return err
		}
		req.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		return unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	})
	detach = sync.OnceFunc(func() { unix.Close(fd) })
	l.Cleanup(detach)
	if err != nil {
		t.Fatalf("attach to %s: %v", name, err)
	}
	return detach
}

// answered starts a ping that ends with the first answer, and waits for it.
func answered(t *testing.T, from *lab.Container, addr string) {
	t.Helper()
	if out, err := from.Exec("ping", "-n", "-q", "-c", "1", "-i", "0.002", "-w", "5", addr); err != nil {
		t.Fatalf("no ping was answered: %v\n%s", err, out)
	}
}

func linkIndex(t *testing.T, h *lab.Host, name string) int {
	t.Helper()
	link, err := h.Link(name)
	if err != nil {
		t.Fatal(err)
	}
	return link.Attrs().Index
}

// TestKill ends the daemon with SIGKILL and starts it again, with each way of
// keeping frames from the host's stack:
//
//	c1 10.0.0.1 ── veth-c1 ┐
//	c2 10.0.0.2 ── veth-c2 ├ br0 10.0.0.254 ─ p0═p1 ─ br1 ── veth-c3 ── 10.0.0.3 c3
//	     (the test) ── vm0 ┘ [host a: vswitchd; mirror m0 to a file; int0 on br1]
func TestKill(t *testing.T) {
	for _, stop := range []string{"tcx", "clsact"} {
		t.Run(stop, func(t *testing.T) { testKill(t, stop) })
	}
}

func testKill(t *testing.T, stop string) {
	p := newPair(t, lab.DaemonOptions{Args: []string{"--ingress-stop", stop}}, "ip=10.0.0.254/24,fd00::fe/64")
	d := p.d
	c3 := p.h.Container("c3", lab.Addr("10.0.0.3/24"))
	d.Ctl("add-br", "br1")
	d.Ctl("add-port", "br0", "p0", "type=patch", "peer=p1")
	d.Ctl("add-port", "br1", "p1", "type=patch", "peer=p0")
	d.Ctl("add-port", "br1", c3.Veth, "vlan_mode=native-untagged", "tag=0", "trunks=5")
	d.Ctl("add-port", "br1", "int0", "type=internal", "ip=10.0.1.1/24", "mtu=1400")
	d.Ctl("add-port", "br0", "vm0", "type=tap", "owner=65534", "mtu=2000")
	d.Ctl("fdb", "add", "br0", "02:00:00:00:00:77", p.c2.Veth)
	d.Ctl("mirror", "add", "br0", "m0", "select_all=true", "output_pcap="+p.Dir()+"/m0.pcapng")
	attach(t, p.Lab, p.h, "vm0")
	waitPort(t, d, "vm0", api.PortUp)
	for _, addr := range []string{"10.0.0.2", "10.0.0.3", "10.0.0.254"} {
		answered(t, p.c1, addr)
	}
	before, document := p.h.Snapshot(), export(d)
	mac, vm := mustPort(t, d, "br0").MAC, linkIndex(t, p.h, "vm0")

	// What a daemon that was killed in the middle of making TAPs left, and what
	// one that lives is making.
	p.h.MustExec("ip", "tuntap", "add", "mode", "tap", "name", "vsw.4194999.1")
	live := fmt.Sprintf("vsw.%d.7", os.Getpid())
	p.h.MustExec("ip", "tuntap", "add", "mode", "tap", "name", live)

	var times []time.Duration
	for round := range 3 {
		d.Kill()
		if _, err := p.h.Link("br0"); err == nil {
			t.Error("br0 is there without a daemon")
		}
		begin := time.Now()
		if err := d.Launch(); err != nil {
			t.Fatal(err)
		}
		answered(t, p.c1, []string{"10.0.0.2", "10.0.0.3", "10.0.0.254"}[round])
		took := time.Since(begin)
		t.Logf("%s: from exec to the first answer: %v", stop, took)
		times = append(times, took)
	}
	// The median: others may have the machine's cores for a while.
	if slices.Sort(times); times[1] > time.Second {
		t.Errorf("it took %v to be back, want at most a second", times)
	}
	lab.Eventually(t, patient, func() error { return d.Get("/v1/version", nil) })
	if _, err := p.h.Link("vsw.4194999.1"); err == nil {
		t.Error("a TAP that a dead process left half made is still there")
	}
	p.h.MustExec("ip", "link", "del", live) // of a process that lives: still there
	for _, name := range []string{p.c1.Veth, p.c2.Veth, c3.Veth, "vm0", "br0", "int0", "p0", "p1"} {
		waitPort(t, d, name, api.PortUp)
	}
	// The host comes last: its first ARP request shall find everybody.
	for _, name := range []string{p.c1.Veth, p.c2.Veth, c3.Veth} {
		if host, port := mustPort(t, d, "br0").Since, mustPort(t, d, name).Since; host.Before(port) {
			t.Errorf("br0 is up since %v, before %s, which is since %v", host, name, port)
		}
	}
	unchanged(t, "after kill -9 and start", before, p.h)
	if now := export(d); now != document {
		t.Errorf("the document was\n%s\nand is\n%s", document, now)
	}
	if now := mustPort(t, d, "br0").MAC; now != mac {
		t.Errorf("br0 had MAC %s and has %s", mac, now)
	}
	if now := linkIndex(t, p.h, "vm0"); now != vm {
		t.Errorf("vm0 was interface %d and is %d: it was made anew under the process attached to it", vm, now)
	}
	var fdb []api.FDBEntry
	d.CtlJSON(&fdb, "fdb", "show", "br0", "mac=02:00:00:00:00:77")
	if len(fdb) != 1 || !fdb[0].Static || fdb[0].Port != p.c2.Veth {
		t.Errorf("the static MAC is %+v", fdb)
	}
	var st api.Status
	d.CtlJSON(&st, "show", "br0")
	if m := st.Bridges[0].Mirrors; len(m) != 1 || m[0].State != "up" || m[0].Frames == 0 {
		t.Errorf("the mirror is %+v", m)
	}
}

// TestKillWhileEditing kills the daemon at a random moment of a storm of edits:
// after the restart the document is that of the last edit that was answered, or
// of the one after it.
//
//	[host a: vswitchd, br0 with ports that wait]
func TestKillWhileEditing(t *testing.T) {
	l := lab.New(t)
	d := l.Host("a").Daemon(lab.DaemonOptions{})
	d.Ctl("add-br", "br0", "mac-aging-time=0")
	edited := 0 // the last edit that was answered
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	total := 0
	for round := range 30 {
		type result struct {
			acknowledged int
			err          error
		}
		ended := make(chan result)
		go func(n int) { // ends with the first edit that fails: the daemon is dead
			c := d.Client()
			defer c.Close()
			for {
				_, err := c.Edit(context.Background(), nthEdit(n+1))
				if err != nil {
					ended <- result{n, err}
					return
				}
				n++
			}
		}(edited)
		time.Sleep(time.Duration(random.IntN(40)) * time.Millisecond) // the random moment
		d.Kill()
		r := <-ended
		if !errors.Is(r.err, api.ErrUnreachable) && !strings.Contains(r.err.Error(), "EOF") && !strings.Contains(r.err.Error(), "reset") {
			t.Fatalf("round %d: edit %d: %v", round, r.acknowledged+1, r.err)
		}
		d.Start()
		var v api.ConfigVersion
		if err := d.Get("/v1/config", &v); err != nil {
			t.Fatal(err)
		}
		if err := v.Document.Validate(); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
		b := v.Document.Bridge("br0")
		if b == nil {
			t.Fatalf("round %d: br0 is lost", round)
		}
		now := b.Options.Int("mac-aging-time")
		if now != r.acknowledged && now != r.acknowledged+1 {
			t.Fatalf("round %d: edit %d was answered, and the document is that of edit %d", round, r.acknowledged, now)
		}
		if got, want := b.Port("late") != nil, now%2 == 1; got != want {
			t.Fatalf("round %d: half of edit %d is there", round, now)
		}
		if v.Version != uint64(now)+1 {
			t.Fatalf("round %d: edit %d has version %d", round, now, v.Version)
		}
		total += now - edited
		edited = now
	}
	t.Logf("%d edits over 30 kills", total)
	var st api.Status
	if d.CtlJSON(&st, "show"); len(st.Warnings) > 0 {
		t.Errorf("the store complains: %q", st.Warnings)
	}
}

// nthEdit sets the aging time to n, and adds a port where n is odd that the next
// one deletes.
func nthEdit(n int) api.Edit {
	op := config.Op{Op: "add-port", Bridge: "br0", Port: "late"}
	if n%2 == 0 {
		op.Op = "del-port"
	}
	return api.Edit{Ops: []config.Op{
		{Op: "set-bridge", Bridge: "br0", Options: config.Options{"mac-aging-time": strconv.Itoa(n)}}, op,
	}}
}

// TestTerminate ends the daemon with SIGTERM: nothing is left but a TAP that
// somebody is attached to, and what keeps its frames from the host's stack.
//
//	c1 ── veth-c1 ┐
//	c2 ── veth-c2 ├ br0 10.0.0.254 [host a: vswitchd]
//	(the test) vm0┤
//	          vm1 ┘ (nobody)
func TestTerminate(t *testing.T) {
	for _, stop := range []string{"tcx", "clsact"} {
		t.Run(stop, func(t *testing.T) {
			p := newPair(t, lab.DaemonOptions{Args: []string{"--ingress-stop", stop}})
			d := p.d
			d.Stop()
			empty := p.h.Snapshot()
			d.Start()
			d.Ctl("set-br", "br0", "ip=10.0.0.254/24")
			d.Ctl("add-port", "br0", "int0", "type=internal")
			d.Ctl("add-port", "br0", "vm0", "type=tap")
			d.Ctl("add-port", "br0", "vm1", "type=tap")
			waitPort(t, d, "vm1", api.PortDown, "nobody has attached")
			detach := attach(t, p.Lab, p.h, "vm0")
			waitPort(t, d, "vm0", api.PortUp)
			vm := linkIndex(t, p.h, "vm0")

			d.Stop()
			stopped := false
			for _, line := range empty.Diff(p.h.Snapshot()) {
				switch {
				case line == "+ link vm0 kind tuntap mtu 1500 promiscuity 0 master -":
				case stop == "clsact" && line == "+ tc filter bpf ingress on vm0":
					stopped = true // the host is not the machine's to speak to meanwhile
				case stop == "clsact" && line == "+ qdisc clsact on vm0":
				case strings.HasPrefix(line, "+ address fe80:"), strings.HasPrefix(line, "+ qdisc ") && !strings.Contains(line, "clsact"):
					// What the kernel gives any interface.
				default:
					t.Errorf("after SIGTERM: %s", line)
				}
			}
			if stop == "clsact" && !stopped {
				t.Error("after SIGTERM the machine's frames reach the host's stack")
			}
			if got := linkIndex(t, p.h, "vm0"); got != vm {
				t.Errorf("vm0 was interface %d and is %d", vm, got)
			}
			if _, err := os.Lstat(d.Socket); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("the socket is there after SIGTERM: %v", err)
			}
			files, _ := os.ReadDir(d.RunDir)
			if len(files) > 0 {
				t.Errorf("the run directory has %v", files)
			}

			d.Start()
			waitPort(t, d, "vm0", api.PortUp)
			waitPort(t, d, "vm1", api.PortDown, "nobody has attached")
			if got := linkIndex(t, p.h, "vm0"); got != vm {
				t.Errorf("vm0 was interface %d and is %d: it was not adopted", vm, got)
			}
			detach()
			waitPort(t, d, "vm0", api.PortDown, "nobody has attached")
			d.Stop()
			unchanged(t, "after SIGTERM with nobody attached", empty, p.h)
		})
	}
}

// TestTerminateWhileStarting sends SIGTERM at random moments of a start.
//
//	[host a: vswitchd, br0 with 16 internal ports and 8 TAPs]
func TestTerminateWhileStarting(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	empty := h.Snapshot()
	d := h.Daemon(lab.DaemonOptions{})
	var doc strings.Builder
	doc.WriteString("bridges:\n- name: br0\n  ports:\n")
	for i := range 24 {
		kind := "internal"
		if i%3 == 0 {
			kind = "tap"
		}
		fmt.Fprintf(&doc, "  - {name: port%d, type: %s}\n", i, kind)
	}
	file := l.Dir() + "/many.yaml"
	if err := os.WriteFile(file, []byte(doc.String()), 0o644); err != nil {
		t.Fatal(err)
	}
	d.Ctl("apply", "-f", file)
	d.Stop()
	begin := time.Now()
	d.Start()
	whole := time.Since(begin)
	d.Stop()
	unchanged(t, "after a whole life", empty, h)
	for round := range 6 {
		if err := d.Launch(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(whole * time.Duration(round) / 5) // the moments
		if err := d.Process().Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		code, err := d.Exited(patient)
		// Before main begins a signal just kills; the first thing main makes is its
		// claim to the run directory.
		_, claimed := os.Stat(d.RunDir + "/vswitchd.lock")
		early := code == -1 && errors.Is(claimed, os.ErrNotExist)
		if err != nil || code != 0 && !early {
			t.Fatalf("round %d: SIGTERM while starting: status %d, %v\n%s", round, code, err, d.Log)
		}
		unchanged(t, fmt.Sprintf("round %d: after SIGTERM while starting", round), empty, h)
	}
	t.Logf("a whole start with 24 TAPs takes %v", whole)
}

// TestTwoDaemons: one state directory is for one daemon; two directories in two
// namespaces are two switches.
//
//	c1 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── c2
//	x1 ── veth-x1 [host b: vswitchd, br0] veth-x2 ── x2
func TestTwoDaemons(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{}, "ip=10.0.0.254/24")
	b := p.Host("b")
	x1, x2 := b.Container("x1", lab.Addr("10.0.0.1/24")), b.Container("x2", lab.Addr("10.0.0.2/24"))
	other := b.Daemon(lab.DaemonOptions{})
	other.Ctl("add-br", "br0", "ip=10.0.0.254/24")
	other.Ctl("add-port", "br0", x1.Veth)
	other.Ctl("add-port", "br0", x2.Veth)
	for _, c := range []*lab.Container{p.c1, x1} {
		answered(t, c, "10.0.0.2")
		answered(t, c, "10.0.0.254")
	}
	if m, n := mustPort(t, p.d, "br0").MAC, mustPort(t, other, "br0").MAC; m == n {
		t.Errorf("two switches have local ports with one MAC, %s", m)
	}

	before := p.h.Snapshot()
	second := p.h.NewDaemon(lab.DaemonOptions{StateDir: p.d.StateDir})
	begin := time.Now()
	if err := second.Launch(); err != nil {
		t.Fatal(err)
	}
	code, err := second.Exited(patient)
	if err != nil || code == 0 {
		t.Errorf("a second daemon on one state directory: status %d, %v", code, err)
	}
	t.Logf("the second daemon ended after %v", time.Since(begin))
	if err := has(second.Log.String(), p.d.StateDir+" is in use by vswitchd", fmt.Sprintf("pid %d", p.d.Process().PID())); err != nil {
		t.Error(err)
	}
	unchanged(t, "after the second daemon's try", before, p.h)
	answered(t, p.c1, "10.0.0.2")
}
