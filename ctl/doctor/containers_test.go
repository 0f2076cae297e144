package doctor

import (
	"context"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
)

// docked is a Host of whom only containers are asked.
type docked struct {
	Host
	plugs     []api.PlugStatus
	published []api.PublishStatus
	warnings  []string
}

func (h docked) Plugged(context.Context, string) ([]api.PlugStatus, error) { return h.plugs, nil }
func (h docked) Published(context.Context, string) ([]api.PublishStatus, error) {
	return h.published, nil
}
func (h docked) ContainerWarnings() []string { return h.warnings }

// TestContainers: what is not well is told, with what mends it, and what is well is counted.
func TestContainers(t *testing.T) {
	since := time.Now().Add(-90 * time.Second)
	h := docked{
		plugs: []api.PlugStatus{
			{Bridge: "br0", Container: "docker:web", State: api.PlugPlugged},
			{Bridge: "br0", Container: "docker:db", State: api.PlugWaiting, Reason: "docker:db does not run", Since: since},
			{Bridge: "br0", Container: "cni-1", Owner: "cni", State: api.PlugError, Reason: "eth0 exists already"},
			{Bridge: "br1", Container: "docker:old", State: api.PlugGoing, Reason: "it is gone"},
		},
		published: []api.PublishStatus{
			{Bridge: "br0", Container: "docker:web", Host: "0.0.0.0:8080/tcp", State: "up"},
			{Bridge: "br0", Container: "docker:db", Host: "0.0.0.0:5432/tcp", State: "waiting", Reason: "docker:db has no address"},
			{Bridge: "br0", Container: "docker:web", Host: "0.0.0.0:80/tcp", State: "error", Reason: "nginx has it"},
		},
		warnings: []string{"names of br0: port 53 is in use"},
	}
	look := func(h Host) []api.Finding {
		x := &visit{Doctor: &Doctor{o: Options{Host: h}}}
		x.checkContainers(t.Context())
		return x.found
	}
	want := []struct{ check, subject, status, what, fix string }{
		{"plug-state", "docker:db", api.StatusWarn, "its plug in br0 is waiting, for 1m: docker:db does not run", "start it, or vswitchctl unplug docker:db br0"},
		{"plug-state", "cni-1", api.StatusFail, "eth0 exists already", "or let cni disconnect it"},
		{"plug-state", "docker:old", api.StatusWarn, "it is gone", "goes by itself"},
		{"plug-state", "", api.StatusOK, "1 of 4 plugs", ""},
		{"publish", "0.0.0.0:5432/tcp", api.StatusWarn, "docker:db has no address", "start docker:db, or unpublish"},
		{"publish", "0.0.0.0:80/tcp", api.StatusFail, "nginx has it", "mend what the reason names"},
		{"publish", "", api.StatusOK, "1 of 3 published ports", ""},
		{"gateway", "", api.StatusFail, "port 53 is in use", "tried again by itself"},
	}
	got := look(h)
	if len(got) != len(want) {
		t.Fatalf("%d findings, want %d: %+v", len(got), len(want), got)
	}
	for i, w := range want {
		if f := got[i]; f.Group != "containers" || f.Check != w.check || f.Subject != w.subject || f.Status != w.status || !strings.Contains(f.What, w.what) || !strings.Contains(f.Fix, w.fix) {
			t.Errorf("%+v\nwant %+v", f, w)
		}
	}
	if got := look(docked{}); len(got) != 1 || got[0].Status != api.StatusOK || got[0].What != "nobody is plugged in" {
		t.Errorf("with nobody: %+v", got)
	}
}

// conflicted is a Host of whom only conflicts are asked.
type conflicted struct {
	Host
	all []api.Neighbor
}

func (h conflicted) Conflicts(string, time.Time) []api.Neighbor { return h.all }

// TestConflicts: one address that changed its MAC once, at one port, is no conflict.
func TestConflicts(t *testing.T) {
	claim := func(port string, count uint64) api.Neighbor {
		return api.Neighbor{IP: "10.0.0.5", Port: "p1", MAC: "02:00:00:00:00:01", Conflict: &api.AddressConflict{MAC: "02:00:00:00:00:02", Port: port, Count: count}}
	}
	x := &visit{Doctor: &Doctor{o: Options{Host: conflicted{all: []api.Neighbor{claim("p1", 1), claim("p1", 2), claim("p2", 1)}}}}}
	x.checkAddresses()
	if len(x.found) != 2 || x.found[0].Status != api.StatusFail || !strings.Contains(x.found[1].What, "and by 02:00:00:00:00:02 at p2") {
		t.Errorf("%+v", x.found)
	}
}
