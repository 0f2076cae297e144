package main

import (
	"os"
	"os/exec"
	"strings"
	"testing"
)

// The daemon links no gopacket. Its package layers fills six tables of 64 Ki entries as
// a program starts, 6.3 MB that are never read here, and what the daemon takes at rest is
// something we measure ourselves by. vswitchctl makes frames with it, and tests read them.
func TestLinksNoGopacket(t *testing.T) {
	if _, err := exec.LookPath("go"); err != nil {
		if os.Getenv("CI") == "true" {
			t.Fatal(err)
		}
		t.Skip(err)
	}
	list := exec.Command("go", "list", "-deps", ".")
	list.Stderr = os.Stderr
	out, err := list.Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	all := strings.Fields(string(out))
	if len(all) < 100 {
		t.Fatalf("the daemon depends on %d packages: %s", len(all), all)
	}
	for _, p := range all {
		if strings.HasPrefix(p, "github.com/google/gopacket") {
			t.Errorf("the daemon links %s, whose tables cost it 6.3 MB of memory: make frames in ctl/craft, which is vswitchctl's; read them with capture/reader and capture/summary", p)
		}
	}
}
