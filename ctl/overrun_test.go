package ctl_test

import (
	"errors"
	"fmt"
	"syscall"
	"testing"

	"vswitch/ctl/api"
	"vswitch/internal/lab"

	"github.com/vishvananda/netlink"
)

// TestEventsLost stops the daemon while its interfaces change more often than
// its netlink socket holds events for:
//
//	c1 ── veth-c1 (deleted and made again) ┐
//	c2 ── veth-c2                          ├ br0 [host a: vswitchd, stopped]
//	                              late (made) ┘
func TestEventsLost(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	d := p.d
	d.Ctl("set-port", p.c1.Veth, "tag=10")
	d.Ctl("set-port", p.c2.Veth, "tag=10")
	d.Ctl("add-port", "br0", "late")
	waitPort(t, d, "late", api.PortWaiting)
	monitor, events := d.CtlStart("monitor", "-o", "json")
	lab.Eventually(t, patient, func() error {
		d.Ctl("set-br", "br0", fmt.Sprintf("mac-aging-time=%d", serial.Add(1)))
		return has(events.String(), `"kind":"config"`)
	})

	if err := d.Process().Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	flood := func(n int) error {
		return p.h.Do(func() error {
			lo, err := netlink.LinkByName("lo")
			if err != nil {
				return err
			}
			for i := range n {
				if err := netlink.LinkSetMTU(lo, 60000+i%2); err != nil {
					return err
				}
			}
			return nil
		})
	}
	err := flood(8000)
	p.c1.Unplug()
	p.c1.Replug()
	p.h.MustExec("ip", "link", "add", "name", "late", "type", "veth", "peer", "name", "late-peer")
	p.h.MustExec("ip", "link", "set", "late-peer", "up")
	err = errors.Join(err, flood(8000))
	if err := errors.Join(err, d.Process().Signal(syscall.SIGCONT)); err != nil {
		t.Fatal(err)
	}

	forwards(t, p.c1, p.c2, patient)
	waitPort(t, d, "late", api.PortUp)
	waitPort(t, d, p.c1.Veth, api.PortUp)
	var st api.Status
	d.CtlJSON(&st, "show")
	if len(st.Warnings) != 1 || has(st.Warnings[0], "interface events were lost") != nil {
		t.Errorf("events were lost, and the warnings are %q", st.Warnings)
	}
	lab.Eventually(t, patient, func() error { return has(events.String(), `"kind":"resync"`) })
	monitor.Kill()
	// Events are followed again.
	p.h.MustExec("ip", "link", "del", "late")
	waitPort(t, d, "late", api.PortWaiting)
}
