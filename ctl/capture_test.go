package ctl_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestWhereCapturesGo: a mirror's file is made where captures may be and nowhere
// else; a mirror that cannot write says so at once, by an event, and when it
// writes again.
//
//	[host a: vswitchd, br0, mirrors]
func TestWhereCapturesGo(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	d := h.Daemon(lab.DaemonOptions{})
	d.Ctl("add-br", "br0")
	captures := filepath.Join(d.StateDir, "captures")
	if st, err := os.Stat(captures); err != nil || st.Mode().Perm() != 0o750 {
		t.Errorf("%s is %v, %v; want mode 0750", captures, st, err)
	}
	mirror := func(name, file string) (stderr string) {
		t.Helper()
		_, stderr, code := d.CtlErr("mirror", "add", "br0", name, "select_all=true", "output_pcap="+file)
		if code != 0 {
			t.Errorf("%s: status %d, %s", file, code, stderr)
		}
		return stderr
	}
	if stderr := mirror("good", captures+"/good.pcapng"); stderr != "" {
		t.Error(stderr)
	}
	if st, err := os.Stat(captures + "/good.pcapng"); err != nil || st.Mode().Perm()&^0o640 != 0 {
		t.Errorf("the capture is %v, %v; want mode 0640", st, err)
	}

	// The lab is below /tmp, where captures may be: but not in what is the daemon's.
	for i, file := range []string{d.StateDir + "/desired.yaml.tmp", d.RunDir + "/x.pcapng", "/etc/vswitch-test.pcapng"} {
		name := fmt.Sprint("bad", i)
		if err := has(mirror(name, file), "mirror "+name+" of br0: error: ", "captures are written below "+captures+", "); err != nil {
			t.Error(err)
		}
		if _, err := os.Lstat(file); err == nil {
			t.Errorf("%s was made", file)
		}
		d.Ctl("mirror", "del", "br0", name)
	}

	_, out := d.CtlStart("monitor", "br0", "-o", "json", "--kind", "mirror-error,mirror-up,port-removed")
	lab.Eventually(t, patient, func() error { // until it listens
		d.Ctl("add-port", "br0", "none")
		d.Ctl("del-port", "none")
		return has(out.String(), "port-removed")
	})
	told := func(kind string) {
		t.Helper()
		lab.Eventually(t, patient, func() error {
			for _, e := range eventsOf(t, out.String()) {
				if e.Kind == kind && e.Bridge == "br0" && e.Detail["mirror"] == "linked" {
					return nil
				}
			}
			return fmt.Errorf("no event %s of mirror linked of br0 in %s", kind, out.String())
		})
	}
	link := filepath.Join(l.Dir(), "link")
	target := filepath.Join(l.Dir(), "target")
	if err := os.Mkdir(target, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(target, link); err != nil {
		t.Fatal(err)
	}
	if err := has(mirror("linked", link+"/x.pcapng"), "mirror linked of br0: error: ", "symbolic link"); err != nil {
		t.Error(err)
	}
	told("mirror-error")
	if made, _ := os.ReadDir(target); len(made) > 0 {
		t.Errorf("a link was followed: %v", made)
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(link, 0o755); err != nil {
		t.Fatal(err)
	}
	told("mirror-up")
	var st api.Status
	d.CtlJSON(&st, "show")
	for _, m := range st.Bridges[0].Mirrors {
		if m.State != "up" || m.Bridge != "" {
			t.Errorf("%+v", m)
		}
	}
}
