package ctl_test

import (
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestWaitingPortComesUp adds a port before its interface is there:
//
//	c2 eth0 ── veth-c2 [host a: vswitchd, br0] veth-late ── eth0 late (made later)
func TestWaitingPortComesUp(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c2 := h.Container("c2")
	d := h.Daemon(lab.DaemonOptions{})
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", c2.Veth)
	_, stderr, code := d.CtlErr("add-port", "br0", "veth-late")
	if err := has(stderr, "veth-late", "does not exist"); code != 0 || err != nil {
		t.Errorf("status %d; %v", code, err)
	}
	waitPort(t, d, "veth-late", api.PortWaiting, "interface veth-late does not exist")

	out := c2.Conn()
	begin := time.Now()
	late := h.Container("late", lab.Veth("veth-late"))
	if err := delivered(late.Conn(), out, testFrame(late.MAC, 0), prompt-time.Since(begin)); err != nil {
		t.Fatal(err)
	}
	t.Logf("from the making of the interface to the first frame: %v", time.Since(begin))
	waitPort(t, d, "veth-late", api.PortUp)
}

// TestRecreatedInterface deletes a port's interface and makes it again under its
// name:
//
//	c1 ── veth-c1 tag=10 ┐
//	c2 ── veth-c2 tag=10 ├ br0 [host a: vswitchd]
//	c3 ── veth-c3        ┘ (trunk, sees tags)
func TestRecreatedInterface(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	c3 := p.h.Container("c3")
	p.d.Ctl("add-port", "br0", c3.Veth)
	p.d.Ctl("set-port", p.c1.Veth, "tag=10")
	p.d.Ctl("set-port", p.c2.Veth, "tag=10")
	forwards(t, p.c1, p.c2, patient)
	before := mustPort(t, p.d, p.c1.Veth)
	kernel := p.h.Snapshot()

	p.c1.Unplug()
	waitPort(t, p.d, p.c1.Veth, api.PortWaiting, "does not exist")
	out := p.c2.Conn()
	begin := time.Now()
	p.c1.Replug()
	in := p.c1.Conn()
	f := testFrame(p.c1.MAC, 0)
	if err := delivered(in, out, f, prompt-time.Since(begin)); err != nil {
		t.Fatal(err)
	}
	t.Logf("from the making of the interface to the first frame: %v", time.Since(begin))

	trunk := c3.Conn()
	tagged := slices.Insert(slices.Clone(f), 12, 0x81, 0, 0, 10)
	if err := in.Send(f); err != nil {
		t.Fatal(err)
	}
	got, err := trunk.Recv(patient)
	if err != nil || string(got) != string(tagged) {
		t.Errorf("after it came again the trunk sees % x, %v; want tag 10", got, err)
	}
	after := mustPort(t, p.d, p.c1.Veth)
	if after.Counters.RxFrames <= before.Counters.RxFrames {
		t.Errorf("%d frames received before, %d after: the counters began anew", before.Counters.RxFrames, after.Counters.RxFrames)
	}
	unchanged(t, "after one recreation", kernel, p.h)

	begin = time.Now()
	for range 20 {
		p.c1.Unplug()
		p.c1.Replug()
	}
	t.Logf("20 recreations in %v", time.Since(begin))
	forwards(t, p.c1, p.c2, prompt)
	waitPort(t, p.d, p.c1.Veth, api.PortUp)
	lab.Eventually(t, patient, func() error { return same(kernel, p.h) })
	last := mustPort(t, p.d, p.c1.Veth)
	if last.Counters.RxFrames <= after.Counters.RxFrames || last.Options["tag"] != 10.0 {
		t.Errorf("after 20 recreations the port is %+v", last)
	}
	if log := p.d.Log.String(); strings.Contains(log, "not detached cleanly") || strings.Contains(log, "tc hook not removed") {
		t.Errorf("letting go of an interface that went was not clean:\n%s", log)
	}
}

// TestRenamedInterface takes a port's interface away by giving it another name,
// and gives it back:
//
//	c1 eth0 ── veth-c1 → other → veth-c1 [host a: vswitchd, br0] veth-c2 ── eth0 c2
func TestRenamedInterface(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	kernel := p.h.Snapshot()
	p.h.MustExec("ip", "link", "set", p.c1.Veth, "name", "other")
	waitPort(t, p.d, p.c1.Veth, api.PortWaiting, "does not exist")
	for _, line := range p.h.Snapshot() {
		if strings.Contains(line, "tcx") && strings.Contains(line, "other") || strings.HasPrefix(line, "link other") && strings.Contains(line, "promiscuity 1") {
			t.Errorf("an interface that is no port any more has: %s", line)
		}
	}
	p.h.MustExec("ip", "link", "set", "other", "name", p.c1.Veth)
	waitPort(t, p.d, p.c1.Veth, api.PortUp)
	forwards(t, p.c1, p.c2, prompt)
	unchanged(t, "after it has its name again", kernel, p.h)
}
