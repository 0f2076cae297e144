package ctl

import (
	"testing"

	"vswitch/ctl/config"
)

// What is published names containers as plugged does.
func TestPublishedContainer(t *testing.T) {
	for alias, want := range map[string]string{"web": "docker:web", "": "runtime:e76e4aa99f55"} { // Docker has told its name, or not yet
		b := &config.Bridge{Name: "br0", Options: config.Options{"ip": "10.0.0.1/24"}, Ports: []config.Port{{Name: "p", Type: "plug",
			Options: config.Options{"container": "runtime:e76e4aa99f55", "alias": alias, "ip": "10.0.0.5/24", "publish": "8080:80/tcp"}}}}
		var s gatewayState
		(&Daemon{}).publishedOf(b, &s)
		if len(s.rows) != 1 || s.rows[0].Container != want {
			t.Errorf("alias %q is published as %+v", alias, s.rows)
		}
	}
}
