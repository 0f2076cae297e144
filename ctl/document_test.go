package ctl_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// write puts a document into a file of the lab.
func write(t *testing.T, l *lab.Lab, text string) string {
	t.Helper()
	f, err := os.CreateTemp(l.Dir(), "doc")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return f.Name()
}

// TestDocument takes the document out, and puts it back whole, changed, and
// wrong:
//
//	c1 ── veth-c1 [host a: vswitchd, br0, br1] veth-c2 ── c2
func TestDocument(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{}, "ip=10.0.0.254/24")
	d := p.d
	d.Ctl("add-br", "br1")
	d.Ctl("add-port", "br0", "p0", "type=patch", "peer=p1")
	d.Ctl("add-port", "br1", "p1", "type=patch", "peer=p0")
	d.Ctl("set-port", p.c1.Veth, "trunks=0,10,20-30")
	d.Ctl("fdb", "add", "br0", "02:00:00:00:00:77", p.c2.Veth)
	document, was := export(d), version(t, d)
	file := write(t, p.Lab, document)
	kernel := p.h.Snapshot()

	// What is there already changes nothing.
	var r api.EditResult
	d.CtlJSON(&r, "apply", "-f", file)
	if r.Changed || r.Version != was || len(r.Changes) > 0 {
		t.Errorf("apply of what export printed: %+v; want no change of version %d", r, was)
	}
	if out := d.Ctl("diff", "-f", file); out != "" {
		t.Errorf("diff with what is there: %q", out)
	}
	unchanged(t, "after apply of what was there", kernel, p.h)

	// One bad port: nothing changes.
	bad := strings.Replace(document, "- name: "+p.c2.Veth, "- name: "+p.c2.Veth+"\n        tga: 5", 1)
	bad = strings.Replace(bad, "trunks: ", "vlan_mode: trunk\n        trunks: ", 1)
	refused(t, d, []string{"apply", "-f", write(t, p.Lab, bad)}, p.c2.Veth, `unknown option "tga"`, `did you mean "tag"?`)
	refused(t, d, []string{"diff", "-f", write(t, p.Lab, bad)}, `unknown option "tga"`)
	if now := export(d); now != document || version(t, d) != was {
		t.Errorf("after a refused document it is version %d\n%s", version(t, d), now)
	}
	unchanged(t, "after a refused document", kernel, p.h)
	forwards(t, p.c1, p.c2, patient)

	// diff says what apply does.
	next := strings.Replace(document, "ip: 10.0.0.254/24", "ip: 10.0.0.253/24", 1)
	next = strings.Replace(next, `trunks: "0,10,20-30"`, "tag: 7", 1)
	if next == document {
		t.Fatalf("the document is not as expected:\n%s", document)
	}
	want := d.Ctl("diff", "-f", write(t, p.Lab, next))
	if err := has(want, "~ ", "10.0.0.254/24 -> 10.0.0.253/24", "7"); err != nil {
		t.Error(err)
	}
	d.CtlJSON(&r, "apply", "-f", write(t, p.Lab, next))
	if !r.Changed || r.Version != was+1 || strings.Count(want, "\n") != len(r.Changes) {
		t.Errorf("diff said\n%sapply did %+v", want, r)
	}
	if out := p.h.MustExec("ip", "-o", "-4", "addr", "show", "br0"); !strings.Contains(out, "10.0.0.253/24") || strings.Contains(out, "10.0.0.254") {
		t.Errorf("br0 has %s", out)
	}

	// History, and back.
	var h []api.HistoryEntry
	d.CtlJSON(&h, "history")
	if len(h) != int(was)+1 || !h[0].Current || h[0].Version != was+1 || !strings.Contains(h[0].Comment, "apply -f") {
		t.Errorf("the history is %+v", h)
	}
	d.CtlJSON(&r, "rollback", fmt.Sprint(was))
	if r.Version != was+2 || !r.Changed {
		t.Errorf("rollback: %+v", r)
	}
	if now := export(d); now != document {
		t.Errorf("after rollback:\n%s", now)
	}
	if old := d.Ctl("export", "--version", fmt.Sprint(was+1)); old != next {
		t.Errorf("version %d is\n%s", was+1, old)
	}
	unchanged(t, "after rollback", kernel, p.h)
	refused(t, d, []string{"rollback", "999"}, "version 999 is not in the history")
}

// TestConfirm applies a document that goes back by itself:
//
//	c1 ── veth-c1 [host a: vswitchd, br0 10.0.0.254] veth-c2 ── c2
func TestConfirm(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{Args: []string{"--ingress-stop", "clsact"}}, "ip=10.0.0.254/24")
	d := p.d
	good, kernel := export(d), p.h.Snapshot()
	harmful := write(t, p.Lab, "bridges: []\n")
	gone := func() error {
		if now := export(d); now != good {
			return fmt.Errorf("the document is\n%s", now)
		}
		return same(kernel, p.h)
	}
	pending := func() *api.PendingConfirm {
		var st api.Status
		d.CtlJSON(&st, "show")
		return st.Confirm
	}

	t.Run("goes back by itself", func(t *testing.T) {
		begin := time.Now()
		d.Ctl("apply", "-f", harmful, "--confirm", "2s")
		if pending() == nil {
			t.Error("show does not say that a change waits")
		}
		refused(t, d, []string{"add-br", "br9"}, "waits for confirmation until", "vswitchctl confirm keeps it", "rollback")
		if _, err := d.Client().Edit(context.Background(), api.Edit{Ops: []config.Op{{Op: "add-bridge", Bridge: "br9"}}}); !isStatus(err, 409) {
			t.Errorf("an edit while a change waits: %v, want status 409", err)
		}
		lab.Eventually(t, patient, gone)
		if took := time.Since(begin); took < 2*time.Second {
			t.Errorf("it went back after %v", took)
		}
		forwards(t, p.c1, p.c2, patient)
		refused(t, d, []string{"confirm"}, "no change waits for confirmation")
	})

	t.Run("confirm keeps it", func(t *testing.T) {
		d.Ctl("apply", "-f", harmful, "--confirm", "2s")
		d.Ctl("confirm")
		if pending() != nil {
			t.Error("a confirmed change still waits")
		}
		// Its time is over, and the next edit is taken, not undone.
		time.Sleep(2200 * time.Millisecond) // nothing happens, which no condition tells
		if now := export(d); now != "bridges: []\n" {
			t.Errorf("a confirmed document went back to\n%s", now)
		}
		d.Ctl("apply", "-f", write(t, p.Lab, good))
		lab.Eventually(t, patient, gone)
	})

	t.Run("rollback while it waits", func(t *testing.T) {
		was := version(t, d)
		d.Ctl("apply", "-f", harmful, "--confirm", "60s")
		d.Ctl("rollback", fmt.Sprint(was))
		lab.Eventually(t, patient, gone)
		if pending() != nil {
			t.Error("a change still waits after rollback")
		}
		d.Ctl("apply", "-f", harmful, "--confirm", "60s")
		d.Ctl("rollback", fmt.Sprint(version(t, d))) // to itself: it stays
		if pending() != nil {
			t.Error("a change still waits after rollback to it")
		}
		d.Ctl("apply", "-f", write(t, p.Lab, good))
		lab.Eventually(t, patient, gone)
	})

	t.Run("kill -9 while it waits", func(t *testing.T) {
		d.Ctl("apply", "-f", harmful, "--confirm", "2s")
		begin := time.Now()
		d.Kill()
		d.Start() // before the deadline: it waits on
		if time.Since(begin) < 1500*time.Millisecond && pending() == nil {
			t.Error("nothing waits after the restart")
		}
		lab.Eventually(t, patient, gone)

		var r api.EditResult
		d.CtlJSON(&r, "apply", "-f", harmful, "--confirm", "2s")
		d.Kill()
		time.Sleep(time.Until(r.Confirm.Deadline)) // nobody is there
		d.Start()
		if err := gone(); err != nil {
			t.Errorf("started after the deadline: %v", err)
		}
		forwards(t, p.c1, p.c2, patient)
		for _, name := range []string{"br0", p.c1.Veth, p.c2.Veth} {
			waitPort(t, d, name, api.PortUp)
		}
	})
}

func isStatus(err error, status int) bool {
	var e *api.Error
	return errors.As(err, &e) && e.Status == status
}

// TestMovesAndRenames moves a port between bridges, renames a bridge, and deletes
// them, each with one document:
//
//	c1 ── veth-c1 ┐
//	c2 ── veth-c2 ├ br0 → br1, br2 [host a: vswitchd]
//	(the test) vm0┘
func TestMovesAndRenames(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	d := p.d
	d.Stop()
	empty := p.h.Snapshot()
	d.Start()
	d.Ctl("add-port", "br0", "vm0", "type=tap")
	attach(t, p.Lab, p.h, "vm0")
	waitPort(t, d, "vm0", api.PortUp)
	vm := linkIndex(t, p.h, "vm0")
	apply := func(format string, args ...any) {
		t.Helper()
		d.Ctl("apply", "-f", write(t, p.Lab, fmt.Sprintf(format, args...)))
	}

	apply("bridges:\n- name: br0\n  ports: [{name: %s}]\n- name: br1\n  ports: [{name: %s}, {name: vm0, type: tap}]\n", p.c1.Veth, p.c2.Veth)
	for _, name := range []string{p.c1.Veth, p.c2.Veth, "vm0"} {
		waitPort(t, d, name, api.PortUp)
	}
	if got := linkIndex(t, p.h, "vm0"); got != vm {
		t.Errorf("vm0 was interface %d and is %d: moving it to another bridge cut off who was attached", vm, got)
	}
	in, out := p.c1.Conn(), p.c2.Conn()
	if err := delivered(in, out, testFrame(p.c1.MAC, 0), 200*time.Millisecond); err == nil {
		t.Error("a frame went from one bridge to another")
	}
	if out := d.Ctl("list-ports", "br0"); out != p.c1.Veth+"\n" {
		t.Errorf("br0 has %q", out)
	}

	apply("bridges:\n- name: br2\n  ip: 10.0.0.254/24\n  ports: [{name: %s}, {name: %s}, {name: vm0, type: tap}]\n", p.c1.Veth, p.c2.Veth)
	forwards(t, p.c1, p.c2, patient)
	answered(t, p.c1, "10.0.0.254")
	if out := d.Ctl("list-br"); out != "br2\n" {
		t.Errorf("the bridges are %q", out)
	}
	for _, name := range []string{"br0", "br1"} {
		if _, err := p.h.Link(name); err == nil {
			t.Errorf("the local port of %s is still there", name)
		}
	}
	if got := linkIndex(t, p.h, "vm0"); got != vm {
		t.Errorf("vm0 was interface %d and is %d: renaming the bridge cut off who was attached", vm, got)
	}

	d.Ctl("del-br", "br2")
	unchanged(t, "after del-br", empty, p.h)
	if out := export(d); out != "bridges: []\n" {
		t.Errorf("the document is\n%s", out)
	}
	if err := lab.NoPing(p.c1, p.c2); err != nil {
		t.Error(err)
	}
}
