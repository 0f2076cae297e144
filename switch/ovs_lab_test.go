package vswitch_test

import (
	"bytes"
	"flag"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/internal/lab"
)

// The same topology twice, ours and Open vSwitch's userspace datapath; whatever
// comes out of one must come out of the other, byte for byte:
//
//	  p0 eth0 ── veth-p0 ┐                          ┌ veth-p0 ── eth0 p0
//	  p1 eth0 ── veth-p1 │                          │ veth-p1 ── eth0 p1
//	  p2 eth0 ── veth-p2 ├ br0 [ours: vswitchd]     ├ br0 [ovs: ovs-vswitchd]
//	  p3 eth0 ── veth-p3 │                          │ veth-p3 ── eth0 p3
//	  p4 eth0 ── veth-p4 │                          │ veth-p4 ── eth0 p4
//	sink eth0 ── veth-s  ┘                          └ veth-s  ── eth0 sink
//	     raw sockets              the same                 raw sockets
//	     send and record          configuration            send and record
//
// p0 to p4 send, and are configured anew for each configuration. The sink is always
// a trunk of all VLANs, so that what is flooded in any VLAN comes to it: the
// barrier, see ovsRig.send. Each frame is one case and carries its number; what
// comes out is kept by that number, so a late frame is compared all the same: once
// at the end of its configuration, and once more at the end of the test, when a
// frame that should not have come at all has had its time to come.

var ovsSeed = flag.Uint64("ovs-seed", defaultSeed, "seed of the cases compared with Open vSwitch")

const (
	defaultSeed   = 6
	plainConfigs  = 50
	mirrorConfigs = 50
	framesEach    = 16
)

// difference is a way in which this switch means to behave unlike Open vSwitch.
type difference struct {
	name, why string
	// explain takes out of what came from either switch, sorted, what the
	// difference accounts for, and no more. It may change both slices, not the
	// frames.
	explain func(c *ovsCase, ours, ovs []ovsOutput) (_, _ []ovsOutput)
}

// differences are all there are. Each must be needed by some case, or it is stale.
//
// Two more the cases stay clear of. Open vSwitch has one mirror copy what another
// sends; ours copies frames, never copies. And what is for a MAC behind a port that
// a mirror took for its output, Open vSwitch drops; ours floods it, since the
// station cannot be heard there any more.
var differences = []difference{
	{
		name: "vendors' reserved addresses",
		why: "without forward-bpdu Open vSwitch also drops proprietary protocols' multicast (eth_addr_is_reserved: Cisco, " +
			"Extreme); to ours they are ordinary multicast, as to IEEE 802.1Q-2022 table 8-1 and the Linux bridge",
		explain: func(c *ovsCase, ours, ovs []ovsOutput) (_, _ []ovsOutput) {
			if slices.Contains(vendorReserved, c.frame.dst) && !c.config.forwardBPDU && len(ovs) == 0 {
				ours = nil
			}
			return ours, ovs
		},
	},
	{
		name: "the zero address",
		why: "00:00:00:00:00:00 is what broken senders send from: learned, it would draw others' frames. Open vSwitch learns " +
			"it; to ours it is unknown and frames to it are flooded",
		explain: func(c *ovsCase, ours, ovs []ovsOutput) (_, _ []ovsOutput) {
			if c.frame.dst == zero && len(ovs) <= 1 {
				ours = slices.DeleteFunc(ours, func(o ovsOutput) bool { return len(ovs) == 0 || ovs[0].port != o.port })
			}
			return ours, ovs
		},
	},
	{
		name: "native VLAN 0 that trunks leave out",
		why: "ovs-vswitchd.conf.db(5) says of trunks that a native port always carries its native VLAN. Open vSwitch 3.1 takes " +
			"frames in for native VLAN 0 all the same, but does not flood them out there; we keep to the manual",
		explain: func(c *ovsCase, ours, ovs []ovsOutput) (_, _ []ovsOutput) {
			return slices.DeleteFunc(ours, func(o ovsOutput) bool {
				there := func(v ovsOutput) bool { return v.port == o.port }
				return o.port != sink && c.config.ports[o.port].native0() && !slices.ContainsFunc(ovs, there)
			}), ovs
		},
	},
	{
		name: "tag of a copy",
		why: "a frame that is mirrored because it leaves by a port, Open vSwitch copies as it left: where that was without a tag, " +
			"the copy's tag has no priority, and 0x8100 for its type; with several such ports, the first in the order of a hash " +
			"decides. Ours copies the frame with the priority and type it came with",
		explain: func(c *ovsCase, ours, ovs []ovsOutput) (_, _ []ovsOutput) {
			if !slices.ContainsFunc(c.config.mirrors, func(m ovsMirror) bool { return len(m.dst) > 0 }) || len(ours) != len(ovs) {
				return ours, ovs
			}
			for i := range ours {
				if c.kept(ours[i]) && bytes.Equal(ovs[i].frame, ours[i].plain().frame) {
					ours[i] = ovs[i]
				}
			}
			return ours, ovs
		},
	},
	{
		name: "DEI",
		why: "Open vSwitch keeps its own mark in the bit (VLAN_CFI), so a tag that it takes off and puts on again for " +
			"another port has lost its DEI; IEEE 802.1Q-2022 6.9.3 carries it along, and so do we, always",
		explain: func(c *ovsCase, ours, ovs []ovsOutput) (_, _ []ovsOutput) {
			if len(ours) != len(ovs) {
				return ours, ovs
			}
			for i := range ours {
				if c.kept(ours[i]) && bytes.Equal(ovs[i].frame, ours[i].without(dei).frame) {
					ours[i] = ovs[i]
				}
			}
			return ours, ovs
		},
	},
}

func TestAgainstOVS(t *testing.T) {
	r := newOVSRig(t)
	random := rand.New(rand.NewPCG(*ovsSeed, 0))
	begin := time.Now()
	var cases []*ovsCase
	for n := range plainConfigs + mirrorConfigs {
		c := randomConfig(random, n >= plainConfigs)
		r.configure(c)
		done := len(cases)
		var heard []station
		for range framesEach {
			in, f := randomFrame(random, c, heard)
			// Whom only one of the two may know is not answered; nor is the zero
			// address where mirrors would make that difference hard to tell.
			if f.src != stranger && (f.src != zero || len(c.mirrors) == 0) {
				heard = append(heard, station{f.src, c.ports[in].vid(f.tags)})
			}
			cases = append(cases, r.send(c, in, f))
		}
		// A frame may still be in its veth's backlog; one that never comes is
		// waited for once.
		for _, c := range cases[done:] {
			if lab.Wait(2*time.Second, func() error { return r.judge(c, nil) }) != nil {
				break // told below
			}
		}
	}
	took := time.Since(begin)

	met := map[string]int{}
	var failed, delivered, mirrored int
	var came [3]int // to no port, to one, to several
	for _, c := range cases {
		out := r.ours.outputs(c.id)
		delivered += len(out)
		came[min(len(out), 2)]++
		if len(c.config.mirrors) > 0 {
			mirrored++
		}
		if err := r.judge(c, met); err != nil {
			if failed++; failed <= 10 {
				t.Error(err)
			}
		}
	}
	r.checkLosses()
	t.Logf("seed %d: %d cases in %d configurations, %d of them with mirrors, took %v; of %d frames in, %d came out nowhere, "+
		"%d once, %d more often, %d in all; %d cases differ", *ovsSeed, len(cases), plainConfigs+mirrorConfigs, mirrored,
		took.Round(time.Millisecond), len(cases), came[0], came[1], came[2], delivered, failed)
	if slices.Min(came[:]) < len(cases)/10 {
		t.Errorf("the cases show too little: %d, %d and %d of %d", came[0], came[1], came[2], len(cases))
	}
	for _, d := range differences {
		t.Logf("difference %q: %d cases", d.name, met[d.name])
		if met[d.name] == 0 && *ovsSeed == defaultSeed {
			t.Errorf("no case needs the difference %q: strike it out (%s)", d.name, d.why)
		}
	}
}

// judge compares what came of a case, and counts the differences it met.
func (r *ovsRig) judge(c *ovsCase, met map[string]int) error {
	ours, ovs := r.ours.outputs(c.id), r.ovs.outputs(c.id)
	if sameOutputs(ours, ovs) {
		return nil
	}
	if explained(c, ours, ovs, "") {
		for _, d := range differences {
			if met != nil && !explained(c, ours, ovs, d.name) {
				met[d.name]++
			}
		}
		return nil
	}
	return fmt.Errorf("case %d (seed %d)\n%v\nframe in by %s: %v\n%x\nours:\n%sovs:\n%s",
		c.id, *ovsSeed, c.config, portName(c.in), c.frame, c.frame.bytes(c.id), text(ours), text(ovs))
}

// explained reports whether the differences, but for the one named, account for
// all that is unlike.
func explained(c *ovsCase, ours, ovs []ovsOutput, but string) bool {
	ours, ovs = sorted(ours), sorted(ovs)
	for _, d := range differences {
		if d.name != but {
			ours, ovs = d.explain(c, ours, ovs)
		}
	}
	return sameOutputs(ours, ovs)
}

func text(outputs []ovsOutput) string {
	var b strings.Builder
	for _, o := range outputs {
		fmt.Fprintf(&b, "  %s: %x\n", portName(o.port), o.frame)
	}
	if b.Len() == 0 {
		return "  nothing\n"
	}
	return b.String()
}
