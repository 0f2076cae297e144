package doctor

import (
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"vswitch/ports"
)

// How package ports marks what it makes: an interface by its alias, "vswitch INSTANCE
// PORT", a tc filter by its name, "vswitch-INSTANCE"; and how a living instance is
// known: it listens on the abstract socket of that name.
const (
	ownedAlias = "vswitch "
	ownedStop  = "vswitch-"
)

// checkLeftovers looks for interfaces and tc filters that a switch made and no running
// configuration owns.
func (x *visit) checkLeftovers() {
	links, err := ports.Links()
	if err != nil {
		x.unknown("leftovers", "interface", "", "", "%v", err)
		return
	}
	found := 0
	for _, l := range links {
		if rest, ours := strings.CutPrefix(l.Alias, ownedAlias); ours && len(rest) > 0 {
			instance, port, _ := strings.Cut(rest, " ")
			if x.isOwned(l, instance, port) {
				continue
			}
			found++
			x.warn("leftovers", "interface", l.Name, "ip link del "+l.Name,
				"a switch made it (%s), and no running configuration has it", ownerText(instance, x.o.Instance))
		}
		for _, stop := range stopsOn(l.Index) {
			if x.isStopOwned(l, stop.instance) {
				continue
			}
			found++
			// The qdisc stays: others may have filters on it.
			x.warn("leftovers", "tc-filter", l.Name, fmt.Sprintf("tc filter del dev %s ingress pref %d handle %#x bpf", l.Name, stop.pref, stop.handle),
				"a tc filter of a switch (%s) keeps its frames from the host, and it is no port of a running switch", ownerText(stop.instance, x.o.Instance))
		}
	}
	if found == 0 {
		x.ok("leftovers", "interface", "", "%d interfaces: none was left behind by a switch that is gone", len(links))
	}
}

func ownerText(instance, own string) string {
	if instance == own {
		return "this one"
	}
	return "instance " + instance
}

// isOwned reports whether an interface is a port's of this switch, or another living
// switch's.
func (x *visit) isOwned(l ports.Link, instance, port string) bool {
	if instance != x.o.Instance {
		return livesElsewhere(instance)
	}
	return x.o.Host.IsPort(port, l)
}

// isStopOwned is isOwned for a tc filter.
func (x *visit) isStopOwned(l ports.Link, instance string) bool {
	if instance != x.o.Instance {
		return livesElsewhere(instance)
	}
	return x.o.Host.IsStopped(l.Index)
}

// livesElsewhere reports whether another instance has a process. Who cannot be asked
// counts as living.
func livesElsewhere(instance string) bool {
	c, err := net.DialTimeout("unix", "@"+ownedStop+instance, time.Second)
	if err != nil {
		return !errors.Is(err, unix.ECONNREFUSED)
	}
	c.Close()
	return true
}

// stopFilter is a tc filter that is a switch's stop.
type stopFilter struct {
	instance string // whose it is
	pref     uint16
	handle   uint32
}

// stopsOn returns the stops that an interface has.
func stopsOn(index int) (stops []stopFilter) {
	l := &netlink.GenericLink{LinkAttrs: netlink.LinkAttrs{Index: index}}
	all, err := netlink.FilterList(l, netlink.HANDLE_MIN_INGRESS)
	if err != nil {
		return nil // no qdisc, or no interface
	}
	for _, f := range all {
		if b, ok := f.(*netlink.BpfFilter); ok {
			if id, ours := strings.CutPrefix(b.Name, ownedStop); ours {
				id, _, _ = strings.Cut(id, ":") // the kernel appends ":[*fsobj]"
				stops = append(stops, stopFilter{id, b.Priority, b.Handle})
			}
		}
	}
	return stops
}
