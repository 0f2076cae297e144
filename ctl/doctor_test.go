package ctl_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// examine asks a daemon's doctor.
func examine(t *testing.T, d *lab.Daemon, q api.DoctorQuery) api.Doctor {
	t.Helper()
	c := d.Client()
	defer c.Close()
	res, err := c.Doctor(context.Background(), q)
	if err != nil {
		t.Fatal(err)
	}
	return res
}

// finding returns the one finding of a check and subject, "" for any.
func finding(t *testing.T, d api.Doctor, check, subject string) api.Finding {
	t.Helper()
	var found []api.Finding
	for _, f := range d.Findings {
		if f.Check == check && (subject == "" || f.Subject == subject) {
			found = append(found, f)
		}
	}
	if len(found) != 1 {
		t.Fatalf("%d findings of %s %s: %s", len(found), check, subject, findings(d))
	}
	return found[0]
}

// expect is finding, with its status and with words of what it says and of its fix.
func expect(t *testing.T, d api.Doctor, check, subject, status, what, fix string) {
	t.Helper()
	f := finding(t, d, check, subject)
	if f.Status != status || !strings.Contains(f.What, what) || !strings.Contains(f.Fix, fix) || fix == "" != (f.Fix == "") {
		t.Errorf("%s %s: want %s, %q, fix %q; got %+v", check, subject, status, what, fix, f)
	}
}

func findings(d api.Doctor) string {
	var b strings.Builder
	for _, f := range d.Findings {
		fmt.Fprintf(&b, "\n%s %s %s %s: %s | %s", f.Group, f.Status, f.Check, f.Subject, f.What, f.Fix)
	}
	return b.String()
}

// TestDoctorHealthy: two hosts that are well, and nothing is left of the look.
func TestDoctorHealthy(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan", fast...)
	before := h.a.Snapshot()
	events := h.a.d.Events("mac-learned", "mac-moved", "port-down", "bfd-down", "drops")
	res := examine(t, h.a.d, api.DoctorQuery{})
	for _, f := range res.Findings {
		// The clock is the machine's.
		if f.Status != api.StatusOK && f.Check != "clock" {
			t.Errorf("%+v", f)
		}
	}
	if res.Fail != 0 || res.OK < 20 || res.OK+res.Warn+res.Unknown != len(res.Findings) || res.Took <= 0 || res.Took >= api.MaxDoctor {
		t.Errorf("%+v", res)
	}
	expect(t, res, "mtu", "t0", api.StatusOK, "to 192.0.2.2: a vswitch, which gets IP packets of 1450 bytes whole", "")
	expect(t, res, "tcp-exchange", "offload=on", api.StatusOK, "super-frames stayed whole, checksums are right", "")
	expect(t, res, "tcp-exchange", "offload=off", api.StatusOK, "finished checksums", "")
	expect(t, res, "feature", "PACKET_VNET_HDR", api.StatusOK, "present", "")
	expect(t, res, "feature", "stop at tc ingress", api.StatusOK, "works, by clsact", "")
	unchanged(t, "after a look", before, h.a.Host)
	for _, kind := range []string{"mac-learned", "mac-moved", "port-down", "bfd-down", "drops"} {
		if all := events.Of(kind, ""); len(all) > 0 {
			t.Errorf("a look at everything was seen: %+v", all)
		}
	}
	stdout, stderr, code := h.a.d.CtlErr("doctor")
	if code != 0 {
		t.Errorf("status %d: %s%s", code, stdout, stderr)
	}
	if err := has(stdout, "\nkernel\n", "ok    feature UDP_GRO: present", "tunnels\n  ok    mtu t0: to 192.0.2.2"); err != nil {
		t.Errorf("%v:\n%s", err, stdout)
	}
	if out := h.a.d.Ctl("doctor", "--brief"); strings.Contains(out, "  ok  ") {
		t.Errorf("%s", out)
	}
	answered(t, h.a.c, "10.0.0.2")
}

// TestTwoDoctors: the second is refused while the first looks, and so is nonsense.
func TestTwoDoctors(t *testing.T) {
	l := lab.New(t)
	d := l.Host("a").Daemon(lab.DaemonOptions{})
	c := d.Client()
	l.Cleanup(c.Close)
	ctx := context.Background()
	refused := 0
	var mu sync.Mutex
	var running sync.WaitGroup
	for range 4 {
		running.Go(func() {
			_, err := c.Doctor(ctx, api.DoctorQuery{})
			var refusal *api.Error
			if errors.As(err, &refusal) && refusal.Status == http.StatusConflict && strings.Contains(refusal.Message, "another doctor is under way") {
				mu.Lock()
				refused++
				mu.Unlock()
			} else if err != nil {
				t.Error(err)
			}
		})
	}
	running.Wait()
	if refused == 0 || refused == 4 {
		t.Errorf("%d of 4 were refused", refused)
	}
	if _, err := c.Doctor(ctx, api.DoctorQuery{Bridge: "br9"}); err == nil || !strings.Contains(err.Error(), `"br9" does not exist`) {
		t.Error(err)
	}
	if _, err := c.Doctor(ctx, api.DoctorQuery{Peer: strings.Repeat("a", 254)}); err == nil || !strings.Contains(err.Error(), "no host name") {
		t.Error(err)
	}
}

// TestDoctorFindsABlackHole: the link between the hosts takes less than it says, and
// nobody is told. The underlay's bridge drops what is too long for its port.
//
//	[a] eth0 1500 ── sw ── 1400 b ── eth0 1500 [b]
func TestDoctorFindsABlackHole(t *testing.T) {
	for _, kind := range []string{"vxlan", "geneve", "gre"} {
		t.Run(kind, func(t *testing.T) {
			h := newTwoHosts(t, lab.DaemonOptions{})
			h.tunnel(kind)
			said := h.a.tunnelOf(t, "t0").MTU // 1450, and for GRE 1462
			h.u.MustExec("ip", "link", "set", "dev", h.u.Port(h.b.Host), "mtu", "1400")
			res := examine(t, h.a.d, api.DoctorQuery{Peer: "192.0.2.2"})
			expect(t, res, "mtu", "t0", api.StatusFail,
				fmt.Sprintf("an MTU black hole: a vswitch answers; IP packets of up to %d bytes get through, and not the %d", said-100, said), "mtu 1400")
			expect(t, res, "ping", "192.0.2.2", api.StatusFail, "packets of up to 1400 bytes get through, and not the 1500 that eth0 takes", "mtu 1400")
			expect(t, res, "tunnel-echo", "t0", api.StatusOK, "its vswitch answers", "")
			stdout, stderr, code := h.a.d.CtlErr("doctor", "--brief")
			if code != 1 || !strings.Contains(stdout, "FAIL  mtu t0: to 192.0.2.2: an MTU black hole") || !strings.Contains(stdout, "fix: ip route replace") || !strings.Contains(stderr, "1 FAIL") {
				t.Errorf("status %d\n%s%s", code, stdout, stderr)
			}
			answered(t, h.a.c, "10.0.0.2")
			// The fix mends it.
			fix, _, _ := strings.Cut(finding(t, res, "mtu", "t0").Fix, " here")
			h.a.MustExec(strings.Fields(fix)...)
			lab.Eventually(t, patient, func() error {
				if st := h.a.tunnelOf(t, "t0"); st.MTU != said-100 {
					return fmt.Errorf("MTU %d after %s", st.MTU, fix)
				}
				return nil
			})
			expect(t, examine(t, h.a.d, api.DoctorQuery{}), "mtu", "t0", api.StatusOK, fmt.Sprintf("IP packets of %d bytes whole", said-100), "")
		})
	}
}

// TestDoctorOfAKernelPeer: where no vswitch answers, the host is asked by ICMP.
func TestDoctorOfAKernelPeer(t *testing.T) {
	l := lab.New(t)
	u := l.Underlay("net", lab.UnderlayOptions{})
	a, b := l.Host("a"), l.Host("b")
	u.Join(a, "192.0.2.1/24", "2001:db8::1/64")
	u.Join(b, "192.0.2.2/24", "2001:db8::2/64")
	d := a.Daemon(lab.DaemonOptions{})
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", "t4", "type=vxlan", "remote_ip=192.0.2.2", "key=4")
	d.Ctl("add-port", "br0", "t6", "type=vxlan", "remote_ip=2001:db8::2", "key=6")
	d.Ctl("add-port", "br0", "nobody", "type=vxlan", "remote_ip=192.0.2.9", "key=9")
	waitPort(t, d, "t4", api.PortUp)
	waitPort(t, d, "t6", api.PortUp)
	waitPort(t, d, "nobody", api.PortUp)
	res := examine(t, d, api.DoctorQuery{Peer: "192.0.2.2"})
	expect(t, res, "mtu", "t4", api.StatusOK, "no vswitch answers there, and the host gets packets of 1500 bytes whole, so IP packets of 1450 inside", "")
	expect(t, res, "mtu", "t6", api.StatusOK, "packets of 1500 bytes whole, so IP packets of 1430 inside", "")
	expect(t, res, "mtu", "nobody", api.StatusUnknown, "could not tell: 192.0.2.9 answers neither probes nor pings", "ping 192.0.2.9")
	expect(t, res, "ping", "192.0.2.2", api.StatusOK, "1500 bytes", "")
	expect(t, res, "tunnel-echo", "t4", api.StatusFail, "nothing ever came through", "is vswitchd running there")
	u.MustExec("ip", "link", "set", "dev", u.Port(b), "mtu", "1400")
	res = examine(t, d, api.DoctorQuery{})
	expect(t, res, "mtu", "t4", api.StatusFail, "IP packets of up to 1350 bytes get through, and not the 1450", "mtu 1400")
	expect(t, res, "mtu", "t6", api.StatusFail, "IP packets of up to 1330 bytes get through, and not the 1430", "mtu 1400")
	res = examine(t, d, api.DoctorQuery{Peer: "203.0.113.1"})
	expect(t, res, "route", "203.0.113.1", api.StatusFail, "no route", "ip route add")
	expect(t, res, "tunnels", "203.0.113.1", api.StatusWarn, "no tunnel leads there", "remote_ip=203.0.113.1")
}

// TestDoctorOfPorts: ports that are not up, and MTUs that differ.
func TestDoctorOfPorts(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	d := p.d
	d.Ctl("add-port", "br0", "veth9")
	d.Ctl("add-port", "br0", "vm0", "type=tap")
	d.Ctl("add-port", "br0", "p0", "type=patch", "peer=p1")
	d.Ctl("add-port", "br0", "lo")
	d.Ctl("add-port", "br0", "t0", "type=vxlan", "remote_ip=192.0.2.2")
	p.h.MustExec("ip", "link", "set", "dev", p.c2.Veth, "mtu", "1400")
	waitPort(t, d, "lo", api.PortError)
	lab.Eventually(t, patient, func() error {
		if st := mustPort(t, d, p.c2.Veth); st.MTU != 1400 {
			return fmt.Errorf("MTU %d", st.MTU)
		}
		return nil
	})
	res := examine(t, d, api.DoctorQuery{})
	expect(t, res, "port-state", "veth9", api.StatusWarn, "interface veth9 does not exist", "del-port br0 veth9")
	expect(t, res, "port-state", "vm0", api.StatusWarn, "nobody has attached", "start the virtual machine")
	expect(t, res, "port-state", "p0", api.StatusWarn, "its peer p1 does not exist", "add the peer")
	expect(t, res, "port-state", "lo", api.StatusFail, "not Ethernet", "mend what the reason names")
	expect(t, res, "tunnel-state", "t0", api.StatusFail, "to 192.0.2.2: down: ", "ip route get 192.0.2.2")
	expect(t, res, "mtu", "br0", api.StatusWarn, "different MTUs: 1400 ("+p.c2.Veth+"), 1500 ("+p.c1.Veth, "mtu 1400")
	if _, _, code := d.CtlErr("doctor"); code != 1 {
		t.Errorf("status %d", code)
	}
	// Only warnings: status 0.
	for _, name := range []string{"lo", "t0"} {
		d.Ctl("del-port", name)
	}
	if stdout, _, code := d.CtlErr("doctor"); code != 0 || !strings.Contains(stdout, "warn  port-state veth9: ") {
		t.Errorf("status %d\n%s", code, stdout)
	}
	// A change that waits.
	d.Ctl("apply", "-f", write(t, p.Lab, "bridges: []\n"), "--confirm", "1m")
	res = examine(t, d, api.DoctorQuery{})
	expect(t, res, "confirm", "", api.StatusWarn, "waits for confirmation", "vswitchctl confirm keeps it")
}

// TestDoctorOfAddresses: a MAC that flaps, a table that is full, an address that two
// have.
func TestDoctorOfAddresses(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{}, "mac-flap-limit=3", "mac-flap-hold=60")
	one, two := p.c1.Conn(), p.c2.Conn()
	lab.Eventually(t, patient, func() error {
		for range 10 {
			f := testFrame(p.c1.MAC, 0)
			if err := errors.Join(one.Send(f), two.Send(f)); err != nil {
				return err
			}
		}
		var st api.Status
		p.d.CtlJSON(&st, "show")
		if len(st.Bridges[0].Flaps) == 0 {
			return errors.New("no MAC flaps")
		}
		return nil
	})
	res := examine(t, p.d, api.DoctorQuery{})
	expect(t, res, "mac-flapping", "br0", api.StatusFail, p.c1.MAC.String()+" in VLAN 0 flaps between ", "look for a loop")

	p.d.Ctl("set-br", "br0", "mac-table-size=4")
	for i := range 20 {
		f := testFrame([]byte{2, 0, 0, 0, 9, byte(i)}, 0)
		if err := one.Send(f); err != nil {
			t.Fatal(err)
		}
	}
	lab.Eventually(t, patient, func() error {
		res = examine(t, p.d, api.DoctorQuery{})
		if strings.Contains(findings(res), "its MAC table is full") {
			return nil
		}
		return errors.New("no table is full")
	})
	expect(t, res, "mac-table", "br0", api.StatusWarn, "its MAC table is full, or was", "vswitchctl set-br br0 mac-table-size=16")
	// The fix mends it, and asks for no other.
	p.d.Ctl("set-br", "br0", "mac-table-size=16")
	if res = examine(t, p.d, api.DoctorQuery{}); strings.Contains(findings(res), "mac-table br0: its MAC table is full") {
		t.Errorf("%s", findings(res))
	}
}

// TestDoctorOfLosses: a receive buffer that ran over, a storm, a forged probe.
func TestDoctorOfLosses(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	p.d.Ctl("set-port", p.c1.Veth, "storm_broadcast=1", "rx-buffer=65536")
	waitPort(t, p.d, p.c1.Veth, api.PortUp)
	one := p.c1.Conn()
	f := testFrame(p.c1.MAC, 0)
	// The daemon stands still, and its buffer runs over.
	stop(t, p.d, func() {
		for range 2000 {
			if err := one.Send(append(f, make([]byte, 1000)...)); err != nil {
				t.Fatal(err)
			}
		}
	})
	lab.Eventually(t, patient, func() error {
		for range 100 {
			if err := one.Send(f); err != nil {
				return err
			}
		}
		st := mustPort(t, p.d, p.c1.Veth)
		if st.Counters.Drops["rx-missed"] == 0 || st.Counters.Drops["storm-broadcast"] == 0 {
			return fmt.Errorf("%+v", st.Counters)
		}
		return nil
	})
	res := examine(t, p.d, api.DoctorQuery{})
	expect(t, res, "ring-overrun", p.c1.Veth, api.StatusWarn, "frames lost: rx-missed, last ", "rx-buffer")
	expect(t, res, "storm", p.c1.Veth, api.StatusWarn, "frames lost: storm-broadcast, last ", "storm_broadcast")
	if res.Fail > 0 {
		t.Errorf("%s", findings(res))
	}
}

// TestDoctorFindsLeftovers: what other switches left that are gone, and a doctor that
// was killed.
func TestDoctorFindsLeftovers(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c := h.Container("c", lab.Addr("10.0.0.1/24"))
	other := h.Daemon(lab.DaemonOptions{})
	other.Ctl("add-br", "br9")
	other.Ctl("add-port", "br9", c.Veth)
	other.Ctl("add-port", "br9", "vm9", "type=tap")
	waitPort(t, other, c.Veth, api.PortUp)
	d := h.Daemon(lab.DaemonOptions{})
	// What belongs to somebody who lives is none; nor are the interfaces of his doctor,
	// whatever process he is in his own namespace.
	var vm9 []struct{ Ifalias string }
	if err := json.Unmarshal([]byte(h.MustExec("ip", "-j", "link", "show", "vm9")), &vm9); err != nil || len(vm9) != 1 {
		t.Fatal(err)
	}
	h.MustExec("ip", "link", "add", "name", "vswd.other.0", "type", "veth", "peer", "name", "vswd.other.1")
	for _, name := range []string{"vswd.other.0", "vswd.other.1"} {
		h.MustExec("ip", "link", "set", "dev", name, "alias", strings.TrimSuffix(vm9[0].Ifalias, "vm9")+"doctor")
	}
	res := examine(t, d, api.DoctorQuery{})
	expect(t, res, "interface", "", api.StatusOK, "none was left behind", "")
	if _, err := h.Link("vswd.other.0"); err != nil {
		t.Errorf("the interfaces of another's doctor: %v", err)
	}
	other.Kill()
	res = examine(t, d, api.DoctorQuery{})
	expect(t, res, "interface", "vm9", api.StatusWarn, "no running configuration has it", "ip link del vm9")
	expect(t, res, "tc-filter", c.Veth, api.StatusWarn, "keeps its frames from the host", "tc filter del dev "+c.Veth+" ingress pref ")
	// The fixes mend it.
	h.MustExec("ip", "link", "del", "vm9")
	h.MustExec(strings.Fields(finding(t, res, "tc-filter", c.Veth).Fix)...)
	if out := h.MustExec("tc", "filter", "show", "dev", c.Veth, "ingress"); strings.Contains(out, "bpf") {
		t.Errorf("the fix leaves\n%s", out)
	}
	if out := h.MustExec("tc", "qdisc", "show", "dev", c.Veth); !strings.Contains(out, "clsact") {
		t.Errorf("the fix takes the qdisc away, and all others' filters with it: %s", out)
	}
	res = examine(t, d, api.DoctorQuery{})
	expect(t, res, "interface", "", api.StatusOK, "none was left behind", "")
	if _, err := h.Link("vswd.other.0"); err == nil {
		t.Error("the interfaces of a doctor that is gone are there")
	}
}

// stop runs do while a daemon stands still.
func stop(t *testing.T, d *lab.Daemon, do func()) {
	t.Helper()
	if err := d.Process().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	defer d.Process().Signal(syscall.SIGCONT)
	do()
}

// TestDoctorWithoutCapabilities: what cannot be looked at could not be told, and why.
func TestDoctorWithoutCapabilities(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	u := l.Underlay("net", lab.UnderlayOptions{})
	u.Join(h, "192.0.2.1/24")
	// The program, taken from a daemon that runs, since it has no path.
	d := h.Daemon(lab.DaemonOptions{})
	program := filepath.Join(l.Dir(), "vswitchd")
	copyFile(t, fmt.Sprintf("/proc/%d/exe", d.Process().PID()), program)
	d.Stop()
	before := h.Snapshot()
	run, state := filepath.Join(l.Dir(), "r"), filepath.Join(l.Dir(), "s")
	for _, dir := range []string{run, state} {
		if err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, 65534, 65534)); err != nil {
			t.Fatal(err)
		}
	}
	p := h.Start("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups", program, "--run-dir", run, "--state-dir", state)
	client := api.NewClient(filepath.Join(run, "ctl.sock"), patient)
	defer client.Close()
	var res api.Doctor
	lab.Eventually(t, patient, func() (err error) {
		if res, err = client.Doctor(context.Background(), api.DoctorQuery{Peer: "192.0.2.1"}); err != nil {
			return fmt.Errorf("%w\n%s", err, p.Out)
		}
		return nil
	})
	for _, name := range []string{"CAP_NET_ADMIN", "CAP_NET_RAW", "CAP_BPF or CAP_SYS_ADMIN"} {
		expect(t, res, "capabilities", name, api.StatusFail, "the daemon does not have it", "run vswitchd as root")
	}
	expect(t, res, "feature", "PACKET_VNET_HDR", api.StatusUnknown, "could not tell: open a socket: operation not permitted", "see host")
	expect(t, res, "feature", "UDP_GRO", api.StatusOK, "present", "")
	expect(t, res, "feature", "stop at tc ingress", api.StatusUnknown, "could not tell: make a pair of interfaces: operation not permitted", "see host")
	expect(t, res, "tcp-exchange", "offload=on", api.StatusUnknown, "could not tell: ", "see host")
	expect(t, res, "ping", "192.0.2.1", api.StatusUnknown, "could not tell: open a socket for ICMP: operation not permitted", "see host")
	p.Signal(syscall.SIGTERM)
	if err := p.Wait(patient); err != nil {
		t.Error(err)
	}
	unchanged(t, "afterwards", before, h)
}

// TestDoctorIsCutOff: a daemon that is told to end, or is killed, while a doctor looks
// leaves nothing behind; at the latest, its next start takes it away.
func TestDoctorIsCutOff(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	u := l.Underlay("net", lab.UnderlayOptions{})
	u.Join(h, "192.0.2.1/24")
	d := h.Daemon(lab.DaemonOptions{})
	empty := h.Snapshot()
	d.Ctl("add-br", "br0")
	for i := range 3 { // nobody is there: to find that out takes its time
		d.Ctl("add-port", "br0", fmt.Sprint("t", i), "type=vxlan", fmt.Sprint("key=", i), "remote_ip=192.0.2.9")
	}
	begin := func() *lab.Proc {
		p, _ := d.CtlStart("doctor")
		lab.Eventually(t, patient, func() error {
			if out := h.MustExec("ip", "-br", "link"); !strings.Contains(out, "vswd.") {
				return errors.New("the doctor has not begun")
			}
			return nil
		})
		return p
	}
	p := begin()
	d.Kill()
	p.Wait(patient)
	d.Start()
	if out := h.MustExec("ip", "-br", "link"); strings.Contains(out, "vswd.") {
		t.Errorf("after kill -9 and a new start there is\n%s", out)
	}
	p = begin()
	d.Stop()
	p.Wait(patient)
	if !strings.Contains(p.Out.String(), "vswitchd ends") {
		t.Errorf("who asked a daemon that ends heard\n%s", p.Out)
	}
	unchanged(t, "after SIGTERM", empty, h)
}

// TestDoctorOfADeadPeer: BFD says that nobody is there, and the doctor that he is not
// reached.
func TestDoctorOfADeadPeer(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan", fast...)
	h.b.d.Kill()
	waitPort(t, h.a.d, "t0", api.PortDown, "BFD")
	res := examine(t, h.a.d, api.DoctorQuery{Peer: "192.0.2.2"})
	for _, f := range res.Findings {
		if f.Check == "tunnel-state" && (f.Status != api.StatusFail || !strings.Contains(f.What, "BFD is down")) {
			t.Errorf("%+v", f)
		}
	}
	expect(t, res, "ping", "192.0.2.2", api.StatusOK, "1500 bytes", "")
	if res.Fail != 2 { // under tunnels, and under peer
		t.Errorf("%s", findings(res))
	}
}

// TestDoctorOfTheStore: a configuration that was read from its text, since the database
// is damaged, is warned of.
func TestDoctorOfTheStore(t *testing.T) {
	l := lab.New(t)
	d := l.Host("a").Daemon(lab.DaemonOptions{})
	expect(t, examine(t, d, api.DoctorQuery{}), "store", "", api.StatusOK, "is stored, and readable", "")
	d.Ctl("add-br", "br0")
	d.Stop()
	if err := os.WriteFile(filepath.Join(d.StateDir, "vswitch.db"), []byte("not a database"), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Start()
	expect(t, examine(t, d, api.DoctorQuery{}), "store", "", api.StatusWarn, "desired.yaml", "vswitchctl export")
}
