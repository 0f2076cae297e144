package doctor

import (
	"context"
	"fmt"
	"time"

	"vswitch/ctl/api"
)

// checkContainers looks at plugs, at published ports, and at what gateways and runtimes
// complain of.
func (x *visit) checkContainers(ctx context.Context) {
	plugs, err := x.o.Host.Plugged(ctx, x.query.Bridge)
	if err != nil {
		x.unknown("containers", "plug-state", "", "", "%v", err)
		return
	}
	well := 0
	for _, p := range plugs {
		if x.checkPlug(p) {
			well++
		}
	}
	switch {
	case len(plugs) == 0:
		x.ok("containers", "plug-state", "", "nobody is plugged in")
	case well > 0:
		x.ok("containers", "plug-state", "", "%d of %d plugs are in their containers", well, len(plugs))
	}
	published, err := x.o.Host.Published(ctx, x.query.Bridge)
	if err != nil {
		x.unknown("containers", "publish", "", "", "%v", err)
		return
	}
	well = 0
	for _, p := range published {
		switch p.State {
		case "up":
			well++
		case "waiting":
			x.warn("containers", "publish", p.Host, "start "+p.Container+", or unpublish the port", "%s: %s", p.State, p.Reason)
		default:
			x.fail("containers", "publish", p.Host, "mend what the reason names; it is tried again by itself", "%s: %s", p.State, p.Reason)
		}
	}
	if well > 0 {
		x.ok("containers", "publish", "", "%d of %d published ports lead to their containers", well, len(published))
	}
	for _, w := range x.o.Host.ContainerWarnings() {
		x.fail("containers", "gateway", "", "mend what it names; it is tried again by itself", "%s", w)
	}
}

// checkPlug tells of a plug that is not in its container, and reports whether it is.
func (x *visit) checkPlug(p api.PlugStatus) bool {
	what := fmt.Sprintf("its plug in %s is %s", p.Bridge, p.State)
	if !p.Since.IsZero() {
		what += ", for " + api.Span(time.Since(p.Since))
	}
	if p.Reason != "" {
		what += ": " + p.Reason
	}
	unplug := fmt.Sprintf("vswitchctl unplug %s %s", p.Container, p.Bridge)
	if p.Owner != "" {
		unplug = "let " + p.Owner + " disconnect it" // who would plug it in again
	}
	switch p.State {
	case api.PlugPlugged:
		return true
	case api.PlugWaiting:
		x.warn("containers", "plug-state", p.Container, "start it, or "+unplug, "%s", what)
	case api.PlugGoing:
		x.warn("containers", "plug-state", p.Container, "nothing, if it was removed for good: the plug goes by itself", "%s", what)
	default:
		x.fail("containers", "plug-state", p.Container, "mend what the reason names; it is tried again by itself; or "+unplug, "%s", what)
	}
	return false
}
