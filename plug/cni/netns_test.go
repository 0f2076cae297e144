package cni

import (
	"errors"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// What CNI_NETNS names is not entered, nor waited for, when it is no network namespace.
func TestInsideOfNothing(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{pipe, "/dev/null", "/", "/proc/self/ns/mnt"} {
		done := make(chan error, 1)
		go func() { done <- inside(path, func() error { return nil }) }()
		select {
		case err := <-done:
			if !errors.Is(err, errNoNamespace) {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(10 * time.Second):
			t.Fatalf("%s: no answer", path)
		}
	}
	if err := inside("/proc/self/ns/net", func() error { return nil }); err != nil {
		t.Error(err)
	}
}
