package runtimes

import (
	"errors"
	"testing"

	"vswitch/internal/lab"
)

// TestHostByThread: "the host's own" is where the caller's thread is. /proc/self is the
// main thread, which another goroutine may have taken into a container for a while.
func TestHostByThread(t *testing.T) {
	l := lab.New(t)
	h, other := l.Host("a"), l.Host("b")
	err := h.Do(func() error {
		here, there := Container{NetNS: "/run/netns/" + h.Name}, Container{NetNS: "/run/netns/" + other.Name}
		if err := errors.Join(here.settle(), there.settle()); err != nil {
			return err
		}
		if !here.Host || there.Host {
			t.Errorf("in %s: %s is the host's own: %v; %s is: %v", h.Name, h.Name, here.Host, other.Name, there.Host)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
