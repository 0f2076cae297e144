package ctl_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
	"vswitch/probe"
)

// path asks a host the way from one of its ports.
func (e *end) path(t *testing.T, target, from string) api.Path {
	t.Helper()
	p, err := e.api.Path(context.Background(), api.PathQuery{Target: target, FromPort: from})
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// ways writes a path's hops one behind the other: "br0 veth-c>t0".
func ways(p api.Path) string {
	var hops []string
	for _, h := range p.Hops {
		var outs []string
		for _, o := range h.Outputs {
			name := o.Port
			if o.Bridge != "" {
				name = o.Bridge + "." + name
			}
			outs = append(outs, name)
		}
		for _, x := range h.Drops {
			outs = append(outs, "!"+x.Reason)
		}
		text := h.Bridge + " " + h.InPort + ">" + strings.Join(outs, ",")
		if h.Silent {
			text = "silent"
		}
		hops = append(hops, text)
	}
	return strings.Join(hops, " | ")
}

// TestPath goes from a container to another over a tunnel of each kind, by its MAC
// address and by its IP address.
func TestPath(t *testing.T) {
	for _, kind := range []string{"vxlan", "gre", "geneve"} {
		t.Run(kind, func(t *testing.T) {
			h := newTwoHosts(t, lab.DaemonOptions{})
			h.tunnel(kind, "key=42")
			in := h.b.c.Conn()
			for _, target := range []string{h.b.c.MAC.String(), "10.0.0.2"} {
				p := h.a.path(t, target, h.a.c.Veth)
				if ways(p) != "br0 veth-c>t0 | br0 t0>veth-c" || !p.Reached || p.MAC != h.b.c.MAC.String() || p.Source != h.a.c.MAC.String() || p.Made {
					t.Fatalf("%s: %s: %+v", target, ways(p), p)
				}
				if o := p.Hops[0].Outputs[0]; o.Type != kind || o.Remote != "192.0.2.2" || o.Key == nil || *o.Key != 42 || o.Silent {
					t.Errorf("%+v", o)
				}
				far := p.Hops[1]
				if far.RTT <= 0 || far.RTT > 2e6 || far.Dwell <= 0 || far.Dwell > far.RTT || far.Host == "" {
					t.Errorf("%+v", far)
				}
				if err := has(p.Verdict, "leaves by veth-c of bridge br0 on ", "over one tunnel"); err != nil {
					t.Error(err)
				}
			}
			// No probe is put out to a container.
			frames, err := in.Collect(50 * time.Millisecond)
			if err != nil {
				t.Fatal(err)
			}
			for _, f := range frames {
				if _, err := probe.Decode(f); err == nil {
					t.Errorf("a probe reached the container: %x", f)
				}
			}
			out := h.a.d.Ctl("trace", "--path", "10.0.0.2", h.a.c.Veth)
			if err := has(out, "veth-c -> t0 ("+kind+" 192.0.2.2 key 42)", "t0 -> veth-c", "verdict: "); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestPathTakesWords: what is asked that makes no sense is refused with a reason.
func TestPathRefuses(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan")
	vlan := 10
	for _, tc := range []struct {
		q    api.PathQuery
		want string
	}{
		{api.PathQuery{Target: "10.0.0.9", FromPort: h.a.c.Veth}, "ping it once"},
		{api.PathQuery{Target: "nobody", FromPort: h.a.c.Veth}, "nobody"},
		{api.PathQuery{Target: "10.0.0.2", FromPort: "veth9"}, `"veth9" does not exist`},
		{api.PathQuery{Target: "10.0.0.2", FromPort: h.a.c.Veth, Bridge: "br9"}, `"br9" does not exist`},
		{api.PathQuery{Target: "10.0.0.2"}, "from_port: missing"},
	} {
		_, err := h.a.api.Path(context.Background(), tc.q)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%+v: %v, want %q", tc.q, err, tc.want)
		}
	}
	h.a.d.Ctl("set-port", h.a.c.Veth, "tag=20")
	_, err := h.a.api.Path(context.Background(), api.PathQuery{Target: h.b.c.MAC.String(), FromPort: h.a.c.Veth, VLAN: &vlan})
	if err == nil || !strings.Contains(err.Error(), "does not take frames of VLAN 10") {
		t.Error(err)
	}
}

// TestPathOfThreeHosts goes through a host in the middle, whose tunnels are not one
// mesh, and through a patch there:
//
//	c ── br0 [a] ══ t0 ══ [b] br0 ── p0:p1 ── br1 ══ t1 ══ [x] br0 ── c
func TestPathOfThreeHosts(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	x := &end{Host: h.Host("x"), addr: "192.0.2.3"}
	h.u.Join(x.Host, x.addr+"/24")
	x.c = x.container("c", "10.0.0.3")
	x.d = x.Daemon(lab.DaemonOptions{})
	x.api = x.d.Client()
	h.Cleanup(x.api.Close)
	h.tunnel("vxlan")
	b := h.b.d
	b.Ctl("add-br", "br1")
	b.Ctl("add-port", "br0", "p0", "type=patch", "peer=p1")
	b.Ctl("add-port", "br1", "p1", "type=patch", "peer=p0")
	b.Ctl("add-port", "br1", "t1", "type=vxlan", "remote_ip="+x.addr, "key=7")
	x.d.Ctl("add-br", "br0")
	x.d.Ctl("add-port", "br0", x.c.Veth)
	x.d.Ctl("add-port", "br0", "t1", "type=vxlan", "remote_ip="+h.b.addr, "key=7")
	waitPort(t, b, "t1", api.PortUp)
	waitPort(t, x.d, "t1", api.PortUp)
	answered(t, h.a.c, "10.0.0.3")

	p := h.a.path(t, "10.0.0.3", h.a.c.Veth)
	if ways(p) != "br0 veth-c>t0 | br0 t0>br1.t1 | br0 t1>veth-c" || !p.Reached {
		t.Fatalf("%s: %+v", ways(p), p)
	}
	if p.Hops[0].Outputs[0].Key == nil || p.Hops[1].Outputs[0].Key != nil {
		t.Errorf("a host shows the key of a tunnel to others, or not its own: %+v", p.Hops[:2])
	}
	for i, hop := range p.Hops {
		if hop.Hop != i || i > 0 && hop.RTT <= p.Hops[i-1].RTT {
			t.Errorf("hop %d: %+v", i, hop)
		}
	}
	// Nobody knows the target: it is flooded, and each branch is told.
	p = h.a.path(t, "02:00:00:00:99:99", h.a.c.Veth)
	if ways(p) != "br0 veth-c>t0 | br0 t0>br1.t1,veth-c | br0 t1>veth-c" {
		t.Errorf("%s", ways(p))
	}
	if err := has(p.Verdict, "is flooded: no switch on the way knows it", "2 ports on 2 switches"); err != nil {
		t.Error(err)
	}
	// A container of the host itself.
	other := h.a.container("other", "10.0.0.9")
	h.a.d.Ctl("add-port", "br0", other.Veth)
	answered(t, h.a.c, "10.0.0.9")
	if p := h.a.path(t, "10.0.0.9", h.a.c.Veth); ways(p) != "br0 veth-c>veth-other" || !p.Reached {
		t.Errorf("%s: %+v", ways(p), p)
	}
	// A loop: a third tunnel, from a to x.
	h.a.d.Ctl("add-port", "br0", "t2", "type=vxlan", "remote_ip="+x.addr, "key=9")
	x.d.Ctl("add-port", "br0", "t2", "type=vxlan", "remote_ip="+h.a.addr, "key=9")
	waitPort(t, h.a.d, "t2", api.PortUp)
	waitPort(t, x.d, "t2", api.PortUp)
	p = h.a.path(t, "02:00:00:00:99:98", h.a.c.Veth)
	if err := has(p.Verdict, "a loop: the frame comes back to bridge br0 on "); err != nil {
		t.Errorf("%v: %s", err, ways(p))
	}
}

// TestPathDropped: the far host drops it, as its container is in another VLAN.
func TestPathDropped(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan")
	h.a.d.Ctl("set-port", h.a.c.Veth, "tag=10")
	h.b.d.Ctl("set-port", h.b.c.Veth, "tag=20")
	h.b.c.Exec("ping", "-c", "1", "-w", "1", "10.0.0.1") // its switch learns it, in VLAN 20
	p := h.a.path(t, h.b.c.MAC.String(), h.a.c.Veth)
	if ways(p) != "br0 veth-c>t0 | br0 t0>!no-output" || p.Reached || p.VLAN != 10 {
		t.Fatalf("%s: %+v", ways(p), p)
	}
	if err := has(p.Verdict, "dropped at t0 of bridge br0 on ", "no-output", "is behind veth-c here, in VLAN 20"); err != nil {
		t.Error(err)
	}
	if err := has(p.Fix, "compare the ports' VLANs"); err != nil {
		t.Error(err)
	}
	out := h.a.d.Ctl("trace", "--path", h.b.c.MAC.String(), h.a.c.Veth)
	if err := has(out, "t0 -> dropped", "dropped: no-output", "not by veth-c: the port is not in VLAN 10"); err != nil {
		t.Error(err)
	}
	// The tunnel is down at the first host.
	h.a.MustExec("ip", "link", "set", "dev", "eth0", "down")
	waitPort(t, h.a.d, "t0", api.PortDown)
	p = h.a.path(t, h.b.c.MAC.String(), h.a.c.Veth)
	if ways(p) != "br0 veth-c>!no-output" {
		t.Fatalf("%s: %+v", ways(p), p)
	}
	if err := has(p.Verdict, "dropped at veth-c of bridge br0 on ", "t0: the port is down on "); err != nil {
		t.Error(err)
	}
}

// TestPathBesideAMirror: a mirror's output that is down is no end of the way.
func TestPathBesideAMirror(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan")
	h.a.MustExec("ip", "link", "add", "mon", "type", "veth", "peer", "name", "mon-far")
	h.a.d.Ctl("add-port", "br0", "mon")
	h.a.d.Ctl("mirror", "add", "br0", "m", "select_all=true", "output_port=mon")
	waitPort(t, h.a.d, "mon", api.PortDown) // as its far end is
	p := h.a.path(t, h.b.c.MAC.String(), h.a.c.Veth)
	if ways(p) != "br0 veth-c>t0 | br0 t0>veth-c" || !p.Reached || strings.Contains(p.Verdict, "flooded") {
		t.Errorf("%s: %+v", ways(p), p)
	}
	if err := has(p.Verdict, "leaves by veth-c of bridge br0 on ", "over one tunnel"); err != nil {
		t.Error(err)
	}
}

// TestPathFromAPortThatIsDown tells the way, and that nobody can take it.
func TestPathFromAPortThatIsDown(t *testing.T) {
	p := newPair(t, lab.DaemonOptions{})
	forwards(t, p.c2, p.c1, patient)
	p.c1.Unplug()
	waitPort(t, p.d, p.c1.Veth, api.PortWaiting)
	c := p.d.Client()
	p.Cleanup(c.Close)
	way, err := c.Path(context.Background(), api.PathQuery{Target: p.c2.MAC.String(), FromPort: p.c1.Veth})
	if err != nil || ways(way) != "br0 veth-c1>veth-c2" || !way.Made {
		t.Fatalf("%v, %s: %+v", err, ways(way), way)
	}
	if err := has(strings.Join(way.Hops[0].Notes, "; "), "veth-c1 itself is waiting: nothing comes in by it now: interface veth-c1 does not exist"); err != nil {
		t.Error(err)
	}
}

// TestPathToTheKernel: the far end is no vswitch, and says nothing.
func TestPathToTheKernel(t *testing.T) {
	l := lab.New(t)
	u := l.Underlay("net", lab.UnderlayOptions{})
	a, b := &end{Host: l.Host("a"), addr: "192.0.2.1"}, l.Host("b")
	u.Join(a.Host, "192.0.2.1/24")
	u.Join(b, "192.0.2.2/24")
	a.c = a.container("c", "10.0.0.1")
	c := b.Container("c", lab.Addr("10.0.0.2/24"))
	b.KernelVXLAN("vx0", 42, "192.0.2.2", "192.0.2.1")
	b.KernelBridge("br0", "vx0", c.Veth)
	a.d = a.Daemon(lab.DaemonOptions{})
	a.api = a.d.Client()
	l.Cleanup(a.api.Close)
	a.d.Ctl("add-br", "br0")
	a.d.Ctl("add-port", "br0", a.c.Veth)
	a.d.Ctl("add-port", "br0", "t0", "type=vxlan", "remote_ip=192.0.2.2", "key=42")
	waitPort(t, a.d, "t0", api.PortUp)
	answered(t, a.c, "10.0.0.2")
	begun := time.Now()
	p := a.path(t, "10.0.0.2", a.c.Veth)
	if ways(p) != "br0 veth-c>t0 | silent" || p.Reached || !p.Hops[0].Outputs[0].Silent {
		t.Fatalf("%s: %+v", ways(p), p)
	}
	if took := time.Since(begun); took < 2*time.Second || took > 2*api.MaxPath {
		t.Errorf("it took %v", took)
	}
	if err := has(p.Verdict, "no answer from 192.0.2.2: not a vswitch, or unreachable, or its answer was lost"); err != nil {
		t.Error(err)
	}
	answered(t, a.c, "10.0.0.2") // its bridge has learned nothing wrong
}

// TestContainerForgesProbes: what a container sends that looks like a probe is dropped
// and told, and nobody answers it.
func TestContainerForgesProbes(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan")
	from, to := h.a.c.Conn(), h.b.c.Conn()
	const sent = 30
	for range sent / 3 {
		for _, kind := range []probe.Kind{probe.Path, probe.Echo, probe.Report} {
			q := probe.Probe{Kind: kind, Hop: 1, TTL: probe.MaxTTL, Span: 1}
			copy(q.Dst[:], h.b.c.MAC)
			copy(q.Src[:], h.a.c.MAC)
			if kind == probe.Report {
				q.Payload, _ = probe.Hop{Host: "forged", Bridge: "br0", Port: "t0"}.Append(nil)
			}
			b, err := q.Append(nil)
			if err != nil {
				t.Fatal(err)
			}
			if err := from.Send(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	lab.Eventually(t, patient, func() error {
		n, ports := h.a.drops(t, "probe-refused")
		if n != sent || len(ports) != 1 || strings.TrimSpace(ports[0]) != h.a.c.Veth {
			return fmt.Errorf("%d frames were dropped as probe-refused, at %v, and %d sent", n, ports, sent)
		}
		return nil
	})
	after := testFrame(h.a.c.MAC, 0)
	if err := delivered(from, to, after, patient); err != nil {
		t.Fatal(err)
	}
	if n, _ := h.b.drops(t, "probe"); n != 0 {
		t.Errorf("%d probes reached the other host", n)
	}
	answered(t, h.a.c, "10.0.0.2")
}

// TestPathNotAdmitted: the far tunnel port is not in the frame's VLAN, so the probe is
// dropped before anybody hears it; that a vswitch is there is found out all the same.
func TestPathNotAdmitted(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan")
	h.a.d.Ctl("set-port", h.a.c.Veth, "tag=10")
	h.b.d.Ctl("set-port", "t0", "trunks=0,20")
	p := h.a.path(t, h.b.c.MAC.String(), h.a.c.Veth)
	if ways(p) != "br0 veth-c>t0 | silent" {
		t.Fatalf("%s: %+v", ways(p), p)
	}
	if err := has(p.Verdict, "no answer from 192.0.2.2, where a vswitch is that answers others: its tunnel port is not in VLAN 10"); err != nil {
		t.Error(err)
	}
	if err := has(p.Fix, "vlan-not-trunked"); err != nil {
		t.Error(err)
	}
	if n, from := h.b.drops(t, "vlan-not-trunked"); n == 0 {
		t.Errorf("%v", from)
	}
}

// TestPathOfATrunk: the container speaks with tags, and so do the probes, over the
// tunnel too. Copies that a mirror sends by a tunnel are no way of the frame.
func TestPathOfATrunk(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("geneve")
	h.a.d.Ctl("set-port", h.a.c.Veth, "trunks=0,10,20")
	h.b.d.Ctl("set-port", h.b.c.Veth, "tag=20")
	h.a.d.Ctl("mirror", "add", "br0", "m", "select_all=true", "output_vlan=99")
	one, two := h.a.c.Conn(), h.b.c.Conn()
	lab.Eventually(t, patient, func() error { // both switches learn both
		if err := errors.Join(one.Send(testFrame(h.a.c.MAC, 20)), two.Send(testFrame(h.b.c.MAC, 0))); err != nil {
			return err
		}
		for _, e := range []*end{h.a, h.b} {
			for _, port := range []string{"t0", e.c.Veth} {
				if e.macsAt(t, port) == 0 {
					return fmt.Errorf("nobody is known behind %s of %s", port, e.Name)
				}
			}
		}
		return nil
	})
	p := h.a.path(t, h.b.c.MAC.String(), h.a.c.Veth)
	if ways(p) != "br0 veth-c>t0 | br0 t0>veth-c" || p.VLAN != 20 || p.Source != h.a.c.MAC.String() {
		t.Errorf("%s: %+v", ways(p), p)
	}
	back := h.b.path(t, h.a.c.MAC.String(), h.b.c.Veth)
	if ways(back) != "br0 veth-c>t0 | br0 t0>veth-c" || back.VLAN != 20 {
		t.Errorf("%s: %+v", ways(back), back)
	}
	vlan := 10
	p, err := h.a.api.Path(context.Background(), api.PathQuery{Target: h.b.c.MAC.String(), FromPort: h.a.c.Veth, VLAN: &vlan})
	if err != nil || ways(p) != "br0 veth-c>t0 | br0 t0>!no-output" || p.VLAN != 10 {
		t.Errorf("%v, %s: %+v", err, ways(p), p)
	}
}

// TestPathOfAMesh floods to all hosts of a mesh, which do not pass it on to each other,
// and goes from the host itself.
//
//	a ══╦══ b
//	    ╚══ x
func TestPathOfAMesh(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	x := &end{Host: h.Host("x"), addr: "192.0.2.3"}
	h.u.Join(x.Host, x.addr+"/24")
	x.c = x.container("c", "10.0.0.3")
	x.d = x.Daemon(lab.DaemonOptions{})
	x.d.Ctl("add-br", "br0")
	x.d.Ctl("add-port", "br0", x.c.Veth)
	for _, d := range []*lab.Daemon{h.a.d, h.b.d, x.d} {
		d.Ctl("mesh", "add", "m0", "bridge=br0", "key=42", "peers=192.0.2.1,192.0.2.2,192.0.2.3")
	}
	for _, peer := range []string{"192.0.2.2", "192.0.2.3"} {
		waitPort(t, h.a.d, "m0:"+peer, api.PortUp)
	}
	answered(t, h.a.c, "10.0.0.2")
	answered(t, h.a.c, "10.0.0.3")
	p := h.a.path(t, "02:00:00:00:99:99", h.a.c.Veth)
	if ways(p) != "br0 veth-c>m0:192.0.2.2,m0:192.0.2.3 | br0 m0:192.0.2.1>veth-c | br0 m0:192.0.2.1>veth-c" {
		t.Errorf("%s", ways(p))
	}
	p = h.a.path(t, "10.0.0.3", h.a.c.Veth)
	if ways(p) != "br0 veth-c>m0:192.0.2.3 | br0 m0:192.0.2.1>veth-c" || !p.Reached {
		t.Errorf("%s", ways(p))
	}
	h.a.d.Ctl("set-br", "br0", "ip=10.0.0.254/24")
	waitPort(t, h.a.d, "br0", api.PortUp)
	answered(t, h.b.c, "10.0.0.254")
	p = h.a.path(t, h.b.c.MAC.String(), "br0")
	if ways(p) != "br0 br0>m0:192.0.2.2 | br0 m0:192.0.2.1>veth-c" || p.Made || p.Source != mustPort(t, h.a.d, "br0").MAC {
		t.Errorf("%s: %+v", ways(p), p)
	}
	// One host is gone: what is left is told.
	x.d.Kill()
	p = h.a.path(t, "02:00:00:00:99:98", h.a.c.Veth)
	if ways(p) != "br0 veth-c>br0,m0:192.0.2.2,m0:192.0.2.3 | br0 m0:192.0.2.1>veth-c | silent" || !p.Reached {
		t.Errorf("%s", ways(p))
	}
	if err := has(p.Verdict, "is flooded", "no answer from 192.0.2.3"); err != nil {
		t.Error(err)
	}
}
