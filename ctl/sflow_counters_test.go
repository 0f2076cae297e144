package ctl

import (
	"fmt"
	"testing"

	"vswitch/capture/sflow"
	"vswitch/ctl/api"
	"vswitch/ctl/config"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// TestNumbers: whatever has no interface has a number of its own, the same each time.
func TestNumbers(t *testing.T) {
	var a, b numbers
	seen := map[uint32]string{}
	for i := range 20_000 {
		name := fmt.Sprintf("m0:host%d", i)
		x := a.of(name)
		if x < firstNumber || x > sflow.MaxIndex || seen[x] != "" {
			t.Fatalf("%s has %d, %q has it too", name, x, seen[x])
		}
		seen[x] = name
	}
	moved := 0 // by names that came by the same number, in another order
	for i := range 20_000 {
		name := fmt.Sprintf("m0:host%d", 19_999-i)
		if b.of(name) != a.of(name) {
			moved++
		}
	}
	if moved > 200 {
		t.Errorf("%d of 20000 numbers depend on the order", moved)
	}
}

// TestPolled: every reason is told once, on the way it happened.
func TestPolled(t *testing.T) {
	var c vswitch.Counters
	c.RxFrames, c.RxBytes, c.TxFrames, c.TxBytes = 1<<33|5, 1<<40, 7, 8
	for _, why := range vswitch.Reasons() {
		c.Drops[why].Count = 1
	}
	r := &reconciler{}
	p := &portState{state: api.PortUp, link: &ports.Link{Name: "eth0", Index: 7, Up: true}, port: config.Port{Name: "eth0", Type: "packet"}}
	x := r.polledLocked(p, &c)
	in, out := x.counters.In, x.counters.Out
	if sum := in.Discards + in.Errors + out.Discards + out.Errors; int(sum) != len(vswitch.Reasons()) {
		t.Errorf("%d drops told of %d", sum, len(vswitch.Reasons()))
	}
	if in.Unicast != 5 || in.Octets != 1<<40 || out.Unicast != 7 || out.Octets != 8 || in.Multicast != sflow.Unknown || out.Broadcast != sflow.Unknown {
		t.Errorf("%+v %+v", in, out)
	}
	if x.counters.Index != 7 || x.counters.Status != sflow.StatusAdminUp|sflow.StatusUp || x.device != "eth0" {
		t.Errorf("%+v", x)
	}
	c.Drops = vswitch.Counters{}.Drops
	c.Drops[vswitch.DropRingFull].Count, c.Drops[vswitch.DropMissed].Count, c.Drops[vswitch.DropSendError].Count, c.Drops[vswitch.DropShort].Count = 1, 2, 3, 4
	x = r.polledLocked(p, &c)
	if x.counters.Out.Discards != 1 || x.counters.In.Discards != 2 || x.counters.Out.Errors != 3 || x.counters.In.Errors != 4 {
		t.Errorf("%+v", x.counters)
	}
	for _, i := range []int{0, firstNumber, 1 << 30} { // none, or one that sFlow's compact form has no room for
		p.link = &ports.Link{Index: i}
		if n := r.numberLocked(p); n < firstNumber || n > sflow.MaxIndex {
			t.Errorf("interface %d has number %d", i, n)
		}
	}
	if speed := linkSpeed("no-such-device0"); speed != 0 {
		t.Errorf("speed %d", speed)
	}
}
