package ctl_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// tmpfs runs a shell script in a mount namespace of its own, where dir is a
// tmpfs of 1 MiB, and returns the path by which others reach dir. The mount goes
// with the lab's processes, however the test ends.
func tmpfs(t *testing.T, l *lab.Lab, h *lab.Host, script string) string {
	t.Helper()
	dir := filepath.Join(l.Dir(), "disk")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	p := h.Start("unshare", "-m", "sh", "-ec", "mount -t tmpfs -o size=1m none "+dir+"\n"+script+"\necho mounted; exec sleep 600")
	lab.Eventually(t, patient, func() error {
		select {
		case <-p.Done():
			t.Fatalf("mount a tmpfs: %s", p.Out)
		default:
		}
		return has(p.Out.String(), "mounted")
	})
	return fmt.Sprintf("/proc/%d/root%s", p.PID(), dir)
}

// TestDiskFull fills the disk of the state directory up:
//
//	c1 ── veth-c1 [host a: vswitchd, br0; state on a tmpfs of 1 MiB] veth-c2 ── c2
//
// TestUnconfirmedOnAFullDisk: what nobody confirmed is taken back on the machine in
// time, though it cannot be stored, and in the store as soon as there is room.
func TestUnconfirmedOnAFullDisk(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c1, c2 := h.Container("c1"), h.Container("c2")
	state := tmpfs(t, l, h, "")
	d := h.Daemon(lab.DaemonOptions{StateDir: state})
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", c1.Veth)
	d.Ctl("add-port", "br0", c2.Veth)
	document, was := export(d), version(t, d)
	d.Ctl("apply", "--confirm", "2s", "-f", write(t, l, "bridges: []\n"))
	fill := filepath.Join(state, "filler")
	if err := os.WriteFile(fill, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("2 MiB fit onto a disk of 1 MiB")
	}
	forwards(t, c1, c2, patient)
	if v := version(t, d); v != was+1 {
		t.Errorf("on a full disk it is version %d, want %d", v, was+1)
	}
	// Too late: the machine is back already, and the store must follow it.
	refused(t, d, []string{"confirm"}, "was not confirmed in time")
	if s := d.Ctl("show"); !strings.Contains(s, "could not be stored") || strings.Contains(s, "CONFIRM") {
		t.Errorf("show says nothing of a store that is behind:\n%s", s)
	}
	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	lab.Eventually(t, patient, func() error {
		if got := export(d); got != document {
			return fmt.Errorf("desired is\n%s", got)
		}
		return nil
	})
	forwards(t, c1, c2, patient)
}

func TestDiskFull(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c1, c2 := h.Container("c1"), h.Container("c2")
	state := tmpfs(t, l, h, "")
	d := h.Daemon(lab.DaemonOptions{StateDir: state})
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", c1.Veth)
	d.Ctl("add-port", "br0", c2.Veth)
	document, was := export(d), version(t, d)

	fill := filepath.Join(state, "filler")
	if err := os.WriteFile(fill, make([]byte, 2<<20), 0o600); err == nil {
		t.Fatal("2 MiB fit onto a disk of 1 MiB")
	}
	words := []string{"no space left on device", "nothing was changed", "forwarding goes on", state}
	refused(t, d, []string{"set-port", c1.Veth, "tag=10"}, words...)
	refused(t, d, []string{"add-br", "br1"}, words...)
	refused(t, d, []string{"apply", "-f", write(t, l, "bridges: []\n")}, words...)
	if export(d) != document || version(t, d) != was {
		t.Errorf("after refused edits it is version %d\n%s", version(t, d), export(d))
	}
	forwards(t, c1, c2, patient)
	if _, err := h.Link("br1"); err == nil {
		t.Error("a refused bridge was made")
	}

	// A daemon that starts with a full disk does what is stored.
	d.Kill()
	d.Start()
	forwards(t, c1, c2, patient)
	if export(d) != document {
		t.Errorf("started on a full disk:\n%s", export(d))
	}
	refused(t, d, []string{"add-br", "br1"}, words...)

	if err := os.Remove(fill); err != nil {
		t.Fatal(err)
	}
	d.Ctl("set-port", c1.Veth, "tag=10")
	if version(t, d) != was+1 {
		t.Errorf("with space again it is version %d, want %d", version(t, d), was+1)
	}
}

// TestReadOnlyState starts the daemon on a copy of its state that cannot be
// written:
//
//	c1 ── veth-c1 [host a: vswitchd, br0 10.0.0.254; state on a read-only tmpfs] veth-c2 ── c2
func TestReadOnlyState(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{}, "ip=10.0.0.254/24")
	mac, document := mustPort(t, p.d, "br0").MAC, export(p.d)
	p.d.Stop()
	disk := filepath.Join(p.Dir(), "disk")
	state := tmpfs(t, p.Lab, p.h, "cp -a "+p.d.StateDir+"/. "+disk+"\nmount -o remount,ro "+disk)
	d := p.h.Daemon(lab.DaemonOptions{StateDir: state})
	answered(t, p.c1, "10.0.0.254")
	answered(t, p.c1, "10.0.0.2")
	refused(t, d, []string{"add-br", "br1"}, "read-only", "nothing was changed, and forwarding goes on")
	if export(d) != document {
		t.Errorf("the document is\n%s", export(d))
	}
	if err := has(d.Ctl("show"), "read-only"); err != nil {
		t.Errorf("show: %v", err)
	}
	if got := mustPort(t, d, "br0").MAC; got != mac {
		t.Errorf("br0 had MAC %s and has %s", mac, got)
	}
}

// TestDamagedDatabase overwrites the database while no daemon is there:
//
//	c1 ── veth-c1 [host a: vswitchd, br0] veth-c2 ── c2
func TestDamagedDatabase(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	d := p.d
	document, was := export(d), version(t, d)
	d.Kill()
	db := filepath.Join(d.StateDir, "vswitch.db")
	info, err := os.Stat(db)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(db, []byte(strings.Repeat("not a database. ", int(info.Size()/16))), 0o600); err != nil {
		t.Fatal(err)
	}
	d.Start()
	forwards(t, p.c1, p.c2, patient)
	if now := export(d); now != document || version(t, d) != was {
		t.Errorf("recovered version %d\n%s", version(t, d), now)
	}
	var st api.Status
	d.CtlJSON(&st, "show")
	if len(st.Warnings) != 1 {
		t.Fatalf("the warnings are %q", st.Warnings)
	}
	if err := errors.Join(has(st.Warnings[0], "desired.yaml"), has(d.Ctl("show"), "desired.yaml"), has(d.Log.String(), "desired.yaml")); err != nil {
		t.Error(err)
	}
	d.Ctl("set-port", p.c1.Veth, "tag=10")
	d.Restart()
	st = api.Status{}
	if d.CtlJSON(&st, "show"); len(st.Warnings) > 0 || mustPort(t, d, p.c1.Veth).Options["tag"] != 10.0 {
		t.Errorf("after the next start: %q, %+v", st.Warnings, mustPort(t, d, p.c1.Veth))
	}
}
