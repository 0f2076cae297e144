package runtimes

import (
	"os"
	"strconv"
	"testing"

	"vswitch/ctl/config"
	"vswitch/internal/lab"
)

// BenchmarkLook is what Watch does five times a second for each container that sends no
// events, when nothing changes.
func BenchmarkLook(b *testing.B) {
	h := lab.New(b).Host("a")
	start, err := processStart(os.Getpid())
	if err != nil {
		b.Fatal(err)
	}
	for name, ref := range map[string]config.ContainerRef{
		"netns": {Kind: config.NetNSContainer, Name: h.Name},
		"path":  {Kind: config.PathContainer, Name: "/proc/self/ns/net"},
		"pid":   {Kind: config.PIDContainer, Name: strconv.Itoa(os.Getpid()), Start: start},
	} {
		b.Run(name, func(b *testing.B) {
			w := newWatch(alone("/run/netns"))
			defer w.end()
			wanted := []config.ContainerRef{ref}
			b.ReportAllocs()
			for b.Loop() {
				w.look(b.Context(), wanted)
			}
		})
	}
}
