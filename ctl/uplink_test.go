package ctl_test

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// A host whose NIC is on a LAN with a peer, and containers:
//
//	peer eth1 192.0.2.9, 2001:db8::9 ──┐
//	                                  [lan: kernel bridge]── eth1 [host a: vswitchd, br0] veth-c1 ── eth0 c1
//	                                                         192.0.2.1, 2001:db8::1
type uplinkLab struct {
	*lab.Lab
	a, peer *lab.Host
	lan     *lab.Underlay
	d       *lab.Daemon
}

func newUplink(t *testing.T, o lab.DaemonOptions) *uplinkLab {
	t.Helper()
	l := lab.New(t)
	u := &uplinkLab{Lab: l, a: l.Host("a"), peer: l.Host("p"), lan: l.Underlay("lan", lab.UnderlayOptions{Interface: "eth1"})}
	u.lan.Join(u.a, "192.0.2.1/24", "2001:db8::1/64")
	u.lan.Join(u.peer, "192.0.2.9/24", "2001:db8::9/64")
	for _, h := range []*lab.Host{u.a, u.peer} {
		h.Sysctl("net.ipv4.neigh.eth1.retrans_time_ms", "20")
	}
	// The kernel takes its time with an IPv6 address's route.
	lab.Eventually(t, patient, func() error { return has(strings.Join(stackOf(u.a, "eth1"), "\n"), "local 2001:db8::1 ") })
	u.d = u.a.Daemon(o)
	u.d.Ctl("add-br", "br0")
	return u
}

// lifetimes are what goes on while addresses move.
var lifetimes = regexp.MustCompile(`(valid_lft|preferred_lft|expires) [0-9]+sec`)

// stackOf is what the host's own stack has by an interface, in the kernel's words, sorted;
// link-local addresses are left out.
func stackOf(h *lab.Host, ifname string) []string {
	var all []string
	text := h.MustExec("ip", "-o", "addr", "show", "dev", ifname) + h.MustExec("ip", "route", "show", "table", "all", "dev", ifname)
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(lifetimes.ReplaceAllString(line, "$1 Nsec"))
		line = regexp.MustCompile(`^[0-9]+: `).ReplaceAllString(line, "")
		if strings.Contains(line, "fe80::") && !strings.Contains(line, "via fe80::") || strings.HasPrefix(line, "multicast") {
			continue
		}
		all = append(all, strings.Join(strings.Fields(strings.ReplaceAll(line, ifname, "DEV")), " "))
	}
	slices.Sort(all)
	return all
}

// stackIs waits until the interface has exactly this, and fails otherwise.
func stackIs(t *testing.T, when string, h *lab.Host, ifname string, want []string) {
	t.Helper()
	err := lab.Wait(patient, func() error {
		if got := stackOf(h, ifname); !slices.Equal(got, want) {
			return fmt.Errorf("%s has\n  %s\nwant\n  %s", ifname, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("%s: %v", when, err)
	}
}

func macOfLink(t *testing.T, h *lab.Host, ifname string) string {
	t.Helper()
	l, err := h.Link(ifname)
	if err != nil {
		t.Fatal(err)
	}
	return l.Attrs().HardwareAddr.String()
}

// TestUplinkTakesAddresses follows a NIC's addresses and routes to the local port and back, in
// every way there is, with a TCP connection of the host's that notices nothing.
// TestUplinkCutsOff: a NIC with the host's addresses that becomes a port without them is told of,
// when it is added and by the doctor.
func TestUplinkCutsOff(t *testing.T) {
	u := newUplink(t, lab.DaemonOptions{})
	_, stderr, code := u.d.CtlErr("add-port", "br0", "eth1")
	if err := has(stderr, "eth1: the host has 192.0.2.1/24 there, and hears nothing by it", "set-port eth1 take_addresses=true"); code != 0 || err != nil {
		t.Errorf("%d, %v", code, err)
	}
	expect(t, examine(t, u.d, api.DoctorQuery{}), "host-address", "eth1", api.StatusWarn, "the host has 192.0.2.1/24 there", "set-port eth1 take_addresses=true")
	if _, stderr, code = u.d.CtlErr("set-port", "eth1", "take_addresses=true"); code != 0 || stderr != "" {
		t.Errorf("%d, %s", code, stderr)
	}
	lab.Eventually(t, patient, func() error {
		_, err := u.a.Exec("ping", "-c", "1", "-W", "1", "192.0.2.9")
		return err
	})
	if _, stderr, code = u.d.CtlErr("set-port", "eth1", "n_rxq=1"); code != 0 || stderr != "" {
		t.Errorf("its addresses were taken: %d, %s", code, stderr)
	}
}

func TestUplinkTakesAddresses(t *testing.T) {
	u := newUplink(t, lab.DaemonOptions{})
	a, d := u.a, u.d
	for _, command := range []string{
		"addr add 192.0.2.11/24 dev eth1",
		"addr add 198.51.100.1/25 dev eth1 valid_lft 3000 preferred_lft 2000 label eth1:x metric 77",
		"addr add 2001:db8:1::1/64 dev eth1 valid_lft 3000 preferred_lft 2000 noprefixroute nodad",
		"route add default via 192.0.2.9 dev eth1 metric 100 src 192.0.2.11 proto static mtu 1400",
		"route add default via 2001:db8::9 dev eth1 metric 100",
		"route add 203.0.113.0/24 via 203.0.113.1 dev eth1 onlink table 7",
		"route add 2001:db8:7::/48 via fe80::9 dev eth1 metric 5 expires 3000",
		"route add 2001:db8:1::/64 dev eth1 proto kernel",
	} {
		if strings.Contains(command, "fe80") {
			// The lab's interfaces have none, and the kernel wants one.
			a.MustExec("ip", "addr", "add", "fe80::1/64", "dev", "eth1", "nodad")
		}
		a.MustExec(ipCommand(command)...)
	}
	// The kernel takes its time with an IPv6 address's route.
	lab.Eventually(t, patient, func() error {
		return has(strings.Join(stackOf(a, "eth1"), "\n"), "local 192.0.2.11 ", "local 2001:db8::1 ", "local 2001:db8:1::1 ")
	})
	before := stackOf(a, "eth1")
	mac := macOfLink(t, a, "eth1")
	s, err := lab.OpenStream(a.Namespace, u.peer.Namespace, "192.0.2.9")
	if err != nil {
		t.Fatal(err)
	}
	s6, err := lab.OpenStream(a.Namespace, u.peer.Namespace, "2001:db8::9")
	if err != nil {
		t.Fatal(err)
	}
	flows := func(when string) {
		t.Helper()
		for _, s := range []*lab.Stream{s, s6} {
			if err := s.Send(1<<20, 3*time.Second); err != nil {
				t.Fatalf("%s: %v", when, err)
			}
		}
	}
	flows("before")
	taken := func(when string) {
		t.Helper()
		stackIs(t, when, a, "br0", before)
		if left := stackOf(a, "eth1"); len(left) > 0 {
			t.Errorf("%s: eth1 has %q", when, left)
		}
		if m := macOfLink(t, a, "br0"); m != mac {
			t.Errorf("%s: br0 has MAC %s, want eth1's %s", when, m, mac)
		}
		flows(when)
	}

	d.Ctl("add-port", "br0", "eth1", "--take-addresses")
	taken("add-port")
	if err := has(strings.Join(mustPort(t, d, "eth1").Notes, "; "), "its addresses are at br0", "192.0.2.1/24", "2001:db8:1::1/64"); err != nil {
		t.Error(err)
	}
	d.Ctl("set-port", "eth1", "n_rxq_desc=256") // which opens it anew
	taken("set-port")

	d.Ctl("del-port", "eth1")
	stackIs(t, "del-port", a, "eth1", before)
	flows("del-port")
	if left := stackOf(a, "br0"); len(left) > 0 {
		t.Errorf("br0 has %q", left)
	}
	if m := macOfLink(t, a, "br0"); m == mac {
		t.Error("br0 keeps eth1's MAC")
	}

	d.Ctl("add-port", "br0", "eth1", "--take-addresses", "--confirm", "1s")
	taken("unconfirmed")
	stackIs(t, "nobody confirmed", a, "eth1", before)
	flows("nobody confirmed")

	d.Ctl("add-port", "br0", "eth1", "--take-addresses", "--confirm", "60s")
	d.Ctl("confirm")
	taken("confirmed")
	d.Stop()
	stackIs(t, "SIGTERM", a, "eth1", before)
	flows("SIGTERM")
	d.Start()
	taken("start")
	d.Kill()
	if left := append(stackOf(a, "eth1"), ""); len(left) > 1 {
		t.Errorf("after kill -9 eth1 has %q", left)
	}
	d.Start()
	taken("start after kill -9")

	// Another MAC of the local port's, and its own again; with macnat the LAN sees neither.
	d.Ctl("set-port", "eth1", "macnat=true")
	for _, m := range []string{"02:00:00:00:77:77", ""} {
		d.Ctl("set-br", "br0", "mac="+m)
		if err := u.peer.Ping("192.0.2.1"); err != nil {
			t.Errorf("mac=%s: %v", m, err)
		}
	}
	taken("mac set and unset")

	// One that somebody takes down has what moved to it again.
	a.MustExec("ip", "link", "set", "br0", "down")
	taken("local port down")

	// What somebody gives the NIC later moves on.
	a.MustExec("ip", "addr", "add", "192.0.2.77/24", "dev", "eth1")
	a.MustExec("ip", "route", "add", "10.99.0.0/16", "via", "192.0.2.9", "dev", "eth1")
	lab.Eventually(t, patient, func() error {
		return has(strings.Join(stackOf(a, "br0"), "\n"), "192.0.2.77/24", "10.99.0.0/16")
	})
	a.MustExec("ip", "addr", "del", "192.0.2.77/24", "dev", "br0")
	d.Ctl("del-br", "br0")
	flows("del-br")
}

// TestUplinkUnwanted: after kill -9 the NIC has its addresses back when the document no longer
// wants to take them; and a NIC that has new ones keeps those.
func TestUplinkUnwanted(t *testing.T) {
	u := newUplink(t, lab.DaemonOptions{})
	before := stackOf(u.a, "eth1")
	u.d.Ctl("add-port", "br0", "eth1", "--take-addresses", "--confirm", "2s")
	stackIs(t, "add-port", u.a, "br0", before)
	u.d.Kill()
	lab.Eventually(t, patient, func() error { // the time to confirm runs out
		b, err := os.ReadFile(filepath.Join(u.d.StateDir, "uplinks.json"))
		if err != nil {
			return err
		}
		st, err := os.Stat(filepath.Join(u.d.StateDir, "uplinks.json"))
		if err == nil && time.Since(st.ModTime()) < 3*time.Second {
			err = fmt.Errorf("%d bytes, too young", len(b))
		}
		return err
	})
	u.d.Start()
	stackIs(t, "start", u.a, "eth1", before)
	if _, err := os.Stat(filepath.Join(u.d.StateDir, "uplinks.json")); !os.IsNotExist(err) {
		t.Errorf("the file is still there: %v", err)
	}

	// Killed in the middle of a move back: the NIC has one address of two, and a name of udev's.
	u.a.MustExec("ip", "addr", "add", "192.0.2.2/24", "dev", "eth1")
	u.a.MustExec("ip", "route", "add", "default", "via", "192.0.2.9", "dev", "eth1")
	two := stackOf(u.a, "eth1")
	u.d.Ctl("add-port", "br0", "eth1", "--take-addresses")
	stackIs(t, "two addresses", u.a, "br0", two)
	u.d.Kill()
	u.a.MustExec("ip", "addr", "add", "192.0.2.1/24", "brd", "+", "dev", "eth1")
	u.d.Start()
	stackIs(t, "one address of two", u.a, "br0", two)
	u.a.MustExec("ip", "link", "set", "eth1", "down")
	u.a.MustExec("ip", "link", "set", "eth1", "name", "lan0")
	waitPort(t, u.d, "eth1", "waiting", "does not exist")
	u.d.Ctl("del-port", "eth1")
	stackIs(t, "renamed", u.a, "lan0", two)
	u.a.MustExec("ip", "link", "set", "lan0", "down")
	u.a.MustExec("ip", "link", "set", "lan0", "name", "eth1")
	u.a.MustExec("ip", "link", "set", "eth1", "up")
	u.a.MustExec("ip", "addr", "flush", "dev", "eth1", "scope", "global")
	u.a.MustExec("ip", "addr", "add", "192.0.2.1/24", "brd", "+", "dev", "eth1")
	u.a.MustExec("ip", "addr", "add", "2001:db8::1/64", "dev", "eth1", "nodad")

	// Somebody set the NIC up anew while nobody was there: that counts, IPv6 is remembered.
	u.d.Ctl("add-port", "br0", "eth1", "--take-addresses")
	u.d.Kill()
	u.a.MustExec("ip", "addr", "add", "192.0.2.50/24", "dev", "eth1")
	u.d.Start()
	want := slices.Clone(before)
	for i := range want {
		want[i] = strings.ReplaceAll(strings.ReplaceAll(want[i], "192.0.2.1/", "192.0.2.50/"), "192.0.2.1 ", "192.0.2.50 ")
		want[i] = regexp.MustCompile(`192\.0\.2\.1$`).ReplaceAllString(want[i], "192.0.2.50")
	}
	slices.Sort(want)
	sort := func(l []string) string {
		l = slices.DeleteFunc(slices.Clone(l), func(s string) bool { return !strings.Contains(s, "inet") })
		return strings.Join(l, "\n")
	}
	lab.Eventually(t, patient, func() error {
		got := sort(stackOf(u.a, "br0"))
		if err := has(got, "192.0.2.50/24", "2001:db8::1/64"); err != nil {
			return err
		}
		if strings.Contains(got, "192.0.2.1/24") {
			return fmt.Errorf("192.0.2.1 is back")
		}
		return nil
	})
}

// TestUplinkBadFile: what cannot be read is told, and kept; what cannot be written leaves the
// host where it was.
func TestUplinkBadFile(t *testing.T) {
	u := newUplink(t, lab.DaemonOptions{})
	before := stackOf(u.a, "eth1")
	file := filepath.Join(u.d.StateDir, "uplinks.json")
	u.d.Stop()
	if err := os.WriteFile(file, []byte(`[{"port": "eth1", "bridge": "br0", "addresses": [{"words": "AAAA"}]}]`), 0o600); err != nil {
		t.Fatal(err)
	}
	u.d.Start()
	if err := has(u.d.Ctl("show"), "could not be read", "uplinks.json.bad"); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(file + ".bad"); err != nil {
		t.Error(err)
	}
	if err := os.Mkdir(file+".tmp", 0o700); err != nil {
		t.Fatal(err)
	}
	u.d.Ctl("add-port", "br0", "eth1", "--take-addresses")
	waitPort(t, u.d, "eth1", "error", "remember the addresses")
	stackIs(t, "refused", u.a, "eth1", before)
	if err := u.a.Ping("192.0.2.9"); err != nil {
		t.Error(err)
	}
	if err := os.Remove(file + ".tmp"); err != nil {
		t.Fatal(err)
	}
	waitPort(t, u.d, "eth1", "up")
	stackIs(t, "at last", u.a, "br0", before)
}

// TestUplinkNotReady: where the local port cannot be had, as by a kernel bridge of its name, the addresses stay
// where they are and the host is reached. And the local port has the MTU of the NIC whose addresses it has.
func TestUplinkNotReady(t *testing.T) {
	u := newUplink(t, lab.DaemonOptions{})
	before := stackOf(u.a, "eth1")
	u.a.MustExec("ip", "link", "add", "br1", "type", "bridge")
	u.a.MustExec("ip", "link", "set", "eth1", "mtu", "1400")
	u.d.Ctl("add-br", "br1")
	u.d.Ctl("add-port", "br1", "eth1", "--take-addresses")
	waitPort(t, u.d, "eth1", "error", "addresses stay with it, since br1", "is not ready")
	u.a.MustExec("ip", "link", "add", "kbr", "type", "bridge")
	u.a.MustExec("ip", "link", "set", "eth1", "master", "kbr")
	u.d.Ctl("add-br", "br2")
	u.d.Ctl("del-port", "eth1")
	u.d.Ctl("add-port", "br2", "eth1", "--take-addresses")
	waitPort(t, u.d, "eth1", "error", "belongs to a kernel bridge", "nomaster")
	u.a.MustExec("ip", "link", "set", "eth1", "nomaster")
	waitPort(t, u.d, "eth1", "up")
	stackIs(t, "out of the kernel's bridge", u.a, "br2", before)
	u.d.Ctl("del-br", "br2")
	u.d.Ctl("add-port", "br1", "eth1", "--take-addresses")
	waitPort(t, u.d, "eth1", "error", "addresses stay with it, since br1", "is not ready")
	reached := func(when string) {
		t.Helper()
		if err := u.a.Ping("192.0.2.9"); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	reached("no local port")
	stackIs(t, "no local port", u.a, "eth1", before)
	u.a.MustExec("ip", "link", "del", "br1")
	waitPort(t, u.d, "eth1", "up")
	stackIs(t, "a local port", u.a, "br1", before)
	reached("a local port")
	mtu := func(when string, want int) {
		t.Helper()
		if err := lab.Wait(patient, func() error {
			l, err := u.a.Link("br1")
			if err == nil && l.Attrs().MTU != want {
				err = fmt.Errorf("br1 has MTU %d, want %d", l.Attrs().MTU, want)
			}
			return err
		}); err != nil {
			t.Errorf("%s: %v", when, err)
		}
	}
	mtu("the NIC's", 1400)
	u.a.MustExec("ip", "link", "set", "eth1", "mtu", "1300")
	mtu("the NIC's new one", 1300)
	u.d.Ctl("set-br", "br1", "mtu=1450")
	mtu("the bridge's own", 1450)
	u.d.Ctl("set-br", "br1", "mtu=")
	mtu("the NIC's again", 1300)

	// After kill -9 the name is somebody else's again: the NIC gets back what it had.
	u.d.Kill()
	u.a.MustExec("ip", "link", "add", "br1", "type", "bridge")
	u.d.Start()
	waitPort(t, u.d, "eth1", "error", "is not ready")
	stackIs(t, "given back", u.a, "eth1", before)
	reached("given back")
	u.a.MustExec("ip", "link", "del", "br1")
	waitPort(t, u.d, "eth1", "up")
	stackIs(t, "a local port again", u.a, "br1", before)
	u.d.Ctl("del-port", "eth1")
	mtu("without a NIC", 1500)
	stackIs(t, "del-port", u.a, "eth1", before)
}

// TestUplinkWithoutAddresses: there is nothing to take until there is, and the local port may get
// a lease by itself.
func TestUplinkWithoutAddresses(t *testing.T) {
	u := newUplink(t, lab.DaemonOptions{})
	u.a.MustExec("ip", "addr", "flush", "dev", "eth1", "scope", "global")
	u.d.Ctl("add-port", "br0", "eth1", "--take-addresses")
	waitPort(t, u.d, "eth1", "up")
	if err := has(strings.Join(mustPort(t, u.d, "eth1").Notes, "; "), "no addresses to take"); err != nil {
		t.Error(err)
	}
	lease(t, u, u.a.Namespace, "br0")
	if err := u.a.Ping("192.0.2.9"); err != nil {
		t.Error(err)
	}
	u.a.MustExec("ip", "addr", "add", "192.0.2.1/24", "brd", "+", "dev", "eth1")
	lab.Eventually(t, patient, func() error { return has(strings.Join(stackOf(u.a, "br0"), "\n"), "192.0.2.1/24") })
	if err := u.a.Ping("192.0.2.9"); err != nil {
		t.Error(err)
	}
}

// ipCommand is a command of ip(8), which must be told the family where a route's text does not.
func ipCommand(command string) []string {
	words := []string{"ip"}
	if strings.Contains(command, ":db8") {
		words = append(words, "-6")
	}
	return append(words, strings.Fields(command)...)
}
