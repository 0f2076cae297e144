package runtimes

import (
	"testing"

	"vswitch/ctl/config"
)

// TestProcessOf takes a process's path for the process, and other paths for themselves.
func TestProcessOf(t *testing.T) {
	for path, want := range map[string]string{
		"/proc/17/ns/net":         "pid:17",
		"/proc/self/ns/net":       "",
		"/proc/17/task/18/ns/net": "",
		"/proc/17/ns/mnt":         "",
		"/run/netns/17":           "",
		"/run/x/proc/17/ns/net":   "",
		"/proc//ns/net":           "",
	} {
		got, ok := processOf(config.ContainerRef{Kind: config.PathContainer, Name: path})
		if ok != (want != "") || ok && got.String() != want {
			t.Errorf("%s is %s, %v; want %s", path, got, ok, want)
		}
	}
	if _, ok := processOf(config.ContainerRef{Kind: config.NetNSContainer, Name: "/proc/17/ns/net"}); ok {
		t.Error("a name is taken for a path")
	}
}
