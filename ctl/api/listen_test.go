package api_test

import (
	"errors"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"vswitch/ctl/api"
)

func logger() *slog.Logger { return slog.New(slog.DiscardHandler) }

func TestListenMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl.sock")
	ln, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	if info.Mode() != fs.ModeSocket|0o660 {
		t.Errorf("mode %v, want srw-rw----", info.Mode())
	}
	if ln.Addr().String() != path {
		t.Errorf("address %s", ln.Addr())
	}
	if left, _ := filepath.Glob(path + ".*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

func TestListenRefusesALivingSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl.sock")
	first, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer first.Close()
	if _, err := api.Listen(path); err == nil || !strings.Contains(err.Error(), "another daemon answers") {
		t.Fatalf("second: %v", err)
	}
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the first no longer answers: %v", err)
	} else {
		c.Close()
	}
}

func TestListenReplacesAStaleSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl.sock")
	dead, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	dead.SetUnlinkOnClose(false) // as a daemon that was killed
	dead.Close()
	ln, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ln.Close()
	if _, err := os.Lstat(path); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("after close: %v", err)
	}
}

func TestListenLeavesAFileAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl.sock")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := api.Listen(path); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("got %v", err)
	}
	if b, _ := os.ReadFile(path); string(b) != "precious" {
		t.Error("the file is gone")
	}
}

// A daemon that ends late does not take its successor's socket away.
func TestCloseLeavesASuccessorAlone(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ctl.sock")
	first, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	os.Remove(path)
	second, err := api.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	defer second.Close()
	first.Close()
	if _, err := os.Lstat(path); err != nil {
		t.Errorf("the successor's socket: %v", err)
	}
}

func TestListenErrors(t *testing.T) {
	for _, path := range []string{
		filepath.Join(t.TempDir(), "missing", "ctl.sock"),
		filepath.Join(t.TempDir(), strings.Repeat("x", 120)),
	} {
		if _, err := api.Listen(path); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s: %v", path, err)
		}
	}
}
