package ctl_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"vswitch/internal/lab"
)

// A host that would answer ARP for its address, if it saw the question:
//
//	[c1] eth0 ── veth-c1 [host a: vswitchd; lo has 192.0.2.1]
//
// It never does: not while the daemon runs, is dead, or starts again.
func TestHostSeesNothingOverAKill(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	c1 := h.Container("c1")
	h.MustExec("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	d := h.Daemon(lab.DaemonOptions{})
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", c1.Veth)

	question := append([]byte{255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1},
		2, 0, 0, 0, 0, 1, 192, 0, 2, 9, 0, 0, 0, 0, 0, 0, 192, 0, 2, 1)
	conn := c1.Conn()
	done, asked := make(chan struct{}), make(chan int)
	go func() { // ended by done
		n := 0
		tick := time.NewTicker(500 * time.Microsecond)
		defer tick.Stop()
		for {
			select {
			case <-done:
				asked <- n
				return
			case <-tick.C:
				if conn.Send(question) == nil {
					n++
				}
			}
		}
	}()
	for range 3 {
		d.Kill()
		d.Start()
	}
	close(done)
	n := <-asked
	frames, err := conn.Collect(100 * time.Millisecond)
	if err != nil {
		t.Fatal(err)
	}
	answers := 0
	for _, f := range frames {
		if len(f) >= 22 && binary.BigEndian.Uint16(f[12:]) == 0x0806 && binary.BigEndian.Uint16(f[20:]) == 2 {
			answers++
		}
	}
	if n < 100 || answers > 0 {
		t.Errorf("the host answered %d of %d ARP requests", answers, n)
	}

	// The question is a good one: without the switch it is answered.
	d.Stop()
	if err := conn.Send(question); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Recv(5 * time.Second); err != nil {
		t.Errorf("without the switch the host does not answer: %v", err)
	}
}

// TestAdoptedTAPBelongsToWhomItShould: the owner was changed in a document that a
// killed daemon never made true.
func TestAdoptedTAPBelongsToWhomItShould(t *testing.T) {
	l := lab.New(t)
	h := l.Host("a")
	d := h.Daemon(lab.DaemonOptions{})
	d.Ctl("add-br", "br0")
	d.Ctl("add-port", "br0", "vm0", "type=tap", "owner=1234")
	d.Kill()
	h.MustExec("ip", "link", "del", "vm0")
	h.MustExec("ip", "tuntap", "add", "vm0", "mode", "tap", "user", "4321")
	id, err := os.ReadFile(d.StateDir + "/instance")
	if err != nil {
		t.Fatal(err)
	}
	h.MustExec("ip", "link", "set", "vm0", "alias", "vswitch "+strings.TrimSpace(string(id))+" vm0")
	d.Start()
	lab.Eventually(t, patient, func() error {
		l, err := h.Link("vm0")
		if err != nil {
			return err
		}
		if tap, ok := l.(*netlink.Tuntap); !ok || tap.Owner != 1234 {
			return fmt.Errorf("vm0 is %+v, want it to belong to 1234", l)
		}
		return nil
	})
}
