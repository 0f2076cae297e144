package capture

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestOnlyBelowTheDirs: what is outside the allowed directories is neither made
// nor touched, whatever names and links lead there, with openat2 and without.
func TestOnlyBelowTheDirs(t *testing.T) {
	root := t.TempDir()
	at := func(path string) string { return filepath.Join(root, path) }
	for _, dir := range []string{"ok/sub", "okay", "state/captures/sub", "target"} {
		if err := os.MkdirAll(at(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{"ok/out": "target", "ok/sub/out": "target", "ok/file": "target/x", "alias": "ok", "whole": "."} {
		if err := os.Symlink(at(to), at(link)); err != nil {
			t.Fatal(err)
		}
	}
	p := place{
		dirs:   []string{at("ok"), at("alias") + "/", at("state/captures"), at("whole")},
		except: []string{at("state"), at("missing")},
	}
	beneath := map[string]func(int, string) (int, error){"openat2": openBeneath, "walk": walkBeneath}
	for _, test := range []struct{ path, want string }{
		{"ok/a", ""},
		{"ok/sub/b", ""},
		{"alias/c", ""}, // a link that the operator named
		{"state/captures/d", ""},
		{"state/captures/sub/e", ""},
		{"whole/okay/f", ""},
		{"whole/state/captures/g", "the daemon's own directory"},
		{"whole/state/desired.yaml.tmp", "the daemon's own directory"},
		{"okay/x", "captures are written below " + at("ok") + ", "},
		{"target/x", "captures are written below"},
		{"state/desired.yaml.tmp", "captures are written below"},
		{"ok/../target/x", "captures are written below"},
		{"ok/out/x", "symbolic link"},
		{"ok/sub/out/x", "symbolic link"},
		{"ok/file", "symbolic link"},
		{"state/captures/sub/../h/x", "no such file"},
		{"ok/none/x", "no such file"},
		{"ok/sub", "is a directory"},
	} {
		for name, beneath := range beneath {
			f, err := p.openFile(root+"/"+test.path, beneath)
			if test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
				t.Errorf("%s: %s: error %v, want %q", name, test.path, err, test.want)
			}
			if test.want == "" && err != nil {
				t.Errorf("%s: %v", name, err)
			}
			if f == nil {
				continue
			}
			if st, err := f.Stat(); err != nil || st.Mode().Perm()&^0o640 != 0 {
				t.Errorf("%s: %s has mode %v, %v", name, test.path, st.Mode(), err)
			}
			f.Close()
			os.Remove(at(test.path))
		}
	}
	if left, _ := os.ReadDir(at("target")); len(left) > 0 {
		t.Errorf("made outside: %v", left)
	}
	if left, _ := os.ReadDir(at("state")); len(left) != 1 {
		t.Errorf("made in the daemon's own directory: %v", left)
	}
	// What can never be opened is refused for good, with the directories named.
	f, err := NewFile(FileOptions{Path: at("target/x"), Dirs: p.dirs})
	if f != nil || err == nil || !strings.Contains(err.Error(), at("target/x")) || !strings.Contains(err.Error(), at("state/captures")) {
		t.Errorf("%v, error %v", f, err)
	}
}

// TestNoRightToWrite says what to do when the daemon, though root, may not write
// where others are at home.
func TestNoRightToWrite(t *testing.T) {
	if os.Geteuid() != 0 {
		if os.Getenv("CI") == "true" {
			t.Fatal("needs root, and CI=true allows no skipping")
		}
		t.Skip("needs root (it gives a capability up)")
	}
	dir := t.TempDir()
	if err := os.Chown(dir, 12345, 12345); err != nil {
		t.Fatal(err)
	}
	done := make(chan error)
	go func() { // ends with its thread, which never has the capability again
		runtime.LockOSThread()
		hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		if err := unix.Capget(&hdr, &data[0]); err != nil {
			done <- err
			return
		}
		data[0].Effective &^= 1 << unix.CAP_DAC_OVERRIDE
		if err := unix.Capset(&hdr, &data[0]); err != nil {
			done <- err
			return
		}
		f, err := NewFile(FileOptions{Path: dir + "/x.pcapng"})
		f.Close()
		done <- err
	}()
	err := <-done
	if !errors.Is(err, unix.EACCES) || !strings.Contains(err.Error(), "directories of root's or world-writable ones") {
		t.Errorf("error %v", err)
	}
}
