package ctl_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// Most tests here begin with the same two containers on one host, and one
// daemon, whose ports they are:
//
//	c1 eth0 10.0.0.1 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── eth0 10.0.0.2 c2

// prompt bounds what is promised within a second: an interface that comes, and a
// daemon that starts, forward. It is three, since the tests of other packages have
// the cores too; with them for itself it is back after 0.1.
const prompt = 3 * time.Second

// patient bounds what is promised to happen, but not how fast.
const patient = 10 * time.Second

type pair struct {
	*lab.Lab
	h      *lab.Host
	c1, c2 *lab.Container
	d      *lab.Daemon
}

func TestMain(m *testing.M) {
	code := m.Run()
	for _, line := range lab.Leftovers() {
		fmt.Fprintln(os.Stderr, "left behind:", line)
		code = 1
	}
	os.Exit(code)
}

// newPair makes the containers and starts the daemon; bridge is what add-br is
// given beside the name.
func newPair(t *testing.T, o lab.DaemonOptions, bridge ...string) *pair {
	t.Helper()
	l := lab.New(t)
	h := l.Host("a")
	p := &pair{Lab: l, h: h,
		c1: h.Container("c1", lab.Addr("10.0.0.1/24")),
		c2: h.Container("c2", lab.Addr("10.0.0.2/24")),
	}
	// An ARP request that was lost is asked again soon, not after a second.
	for _, c := range []*lab.Container{p.c1, p.c2} {
		c.Sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "20")
	}
	p.d = h.Daemon(o)
	p.d.Ctl(append([]string{"add-br", "br0"}, bridge...)...)
	p.d.Ctl("add-port", "br0", p.c1.Veth)
	p.d.Ctl("add-port", "br0", p.c2.Veth)
	return p
}

// portOf returns what the daemon says of a port.
func portOf(d *lab.Daemon, name string) (api.PortStatus, error) {
	var st api.Status
	if err := d.Get("/v1/status", &st); err != nil {
		return api.PortStatus{}, err
	}
	for _, b := range st.Bridges {
		for _, p := range b.Ports {
			if p.Name == name {
				return p, nil
			}
		}
	}
	return api.PortStatus{}, fmt.Errorf("no port is named %s", name)
}

func mustPort(t *testing.T, d *lab.Daemon, name string) api.PortStatus {
	t.Helper()
	p, err := portOf(d, name)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// waitPort waits until a port has a state and a reason that holds every one of
// the words.
func waitPort(t *testing.T, d *lab.Daemon, name, state string, words ...string) {
	t.Helper()
	lab.Eventually(t, patient, func() error {
		p, err := portOf(d, name)
		if err != nil {
			return err
		}
		if p.State != state {
			return fmt.Errorf("%s is %s (%s), want %s", name, p.State, p.Reason, state)
		}
		return has(p.Reason, words...)
	})
}

func has(text string, words ...string) error {
	for _, w := range words {
		if !strings.Contains(text, w) {
			return fmt.Errorf("%q does not say %q", text, w)
		}
	}
	return nil
}

// refused runs a command that must fail with status 1 and say every one of the
// words.
func refused(t *testing.T, d *lab.Daemon, args []string, words ...string) {
	t.Helper()
	stdout, stderr, code := d.CtlErr(args...)
	if code != 1 {
		t.Errorf("vswitchctl %s: status %d, want 1\n%s%s", strings.Join(args, " "), code, stdout, stderr)
	}
	if err := has(stderr, words...); err != nil {
		t.Errorf("vswitchctl %s: %v", strings.Join(args, " "), err)
	}
}

// etherType of the tests' own frames: IEEE 802, local experimental.
const etherType = 0x88b5

var serial atomic.Uint32

// testFrame is a 60-byte frame that no other is like.
func testFrame(src net.HardwareAddr, vlan int) []byte {
	f := append(bytes.Repeat([]byte{0xff}, 6), src...)
	if vlan > 0 {
		f = binary.BigEndian.AppendUint16(f, 0x8100)
		f = binary.BigEndian.AppendUint16(f, uint16(vlan))
	}
	f = binary.BigEndian.AppendUint16(f, etherType)
	f = binary.BigEndian.AppendUint32(f, serial.Add(1))
	return append(f, make([]byte, 60-len(f))...)
}

// delivered sends frames like f, one a millisecond, until one arrives; at most
// for limit.
func delivered(from, to *lab.Conn, f []byte, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		// ENETDOWN and ENXIO are an interface that is on its way.
		sent := from.Send(f)
		next := time.Now().Add(time.Millisecond)
		for {
			got, err := to.Recv(time.Until(next))
			if bytes.Equal(got, f) {
				return nil
			}
			if errors.Is(err, os.ErrDeadlineExceeded) || err != nil && time.Now().After(next) {
				break
			}
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("no frame arrived within %v (sending: %v)", limit, sent)
		}
	}
}

// forwards opens sockets at both containers and waits until frames go from one
// to the other.
func forwards(t *testing.T, from, to *lab.Container, limit time.Duration) {
	t.Helper()
	in, out := from.Conn(), to.Conn()
	defer in.Close()
	defer out.Close()
	if err := delivered(in, out, testFrame(from.MAC, 0), limit); err != nil {
		t.Fatalf("%s to %s: %v", from.Name, to.Name, err)
	}
}

// separate is an error when a frame that from sends reaches to, though it
// reached witness.
func separate(from, to, witness *lab.Container) error {
	in, out, seen := from.Conn(), to.Conn(), witness.Conn()
	defer in.Close()
	defer out.Close()
	defer seen.Close()
	f := testFrame(from.MAC, 0)
	if err := delivered(in, seen, f, patient); err != nil {
		return err
	}
	frames, err := out.Collect(50 * time.Millisecond)
	for _, g := range frames {
		if bytes.Equal(f, g) {
			return fmt.Errorf("a frame of %s reached %s", from.Name, to.Name)
		}
	}
	return err
}

// unchanged says what differs from before in the host.
func unchanged(t *testing.T, when string, before lab.Snapshot, h *lab.Host) {
	t.Helper()
	for _, line := range before.Diff(h.Snapshot()) {
		t.Errorf("%s: %s", when, line)
	}
}

func export(d *lab.Daemon) string { return d.Ctl("export") }

func version(t *testing.T, d *lab.Daemon) uint64 {
	t.Helper()
	var v api.ConfigVersion
	if err := d.Get("/v1/config", &v); err != nil {
		t.Fatal(err)
	}
	return v.Version
}

// same is an error when the host is not as it was before.
func same(before lab.Snapshot, h *lab.Host) error {
	if lines := before.Diff(h.Snapshot()); len(lines) > 0 {
		return errors.New(strings.Join(lines, "; "))
	}
	return nil
}
