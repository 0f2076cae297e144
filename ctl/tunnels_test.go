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
)

// Most tests of tunnels begin with two hosts, and a container behind each:
//
//	c 10.0.0.1 ── veth-c [host a: vswitchd, br0] 192.0.2.1 ──┐
//	                                                         │ underlay
//	c 10.0.0.2 ── veth-c [host b: vswitchd, br0] 192.0.2.2 ──┘
type twoHosts struct {
	*lab.Lab
	t    *testing.T
	u    *lab.Underlay
	a, b *end
}

// end is one of the hosts.
type end struct {
	*lab.Host
	addr string // in the underlay
	c    *lab.Container
	d    *lab.Daemon
	api  *api.Client
}

// newTwoHosts makes all but the tunnel.
func newTwoHosts(t *testing.T, o lab.DaemonOptions) *twoHosts {
	t.Helper()
	t.Parallel()
	h := &twoHosts{Lab: lab.New(t), t: t}
	h.u = h.Underlay("net", lab.UnderlayOptions{})
	var ends []*end
	for i, name := range []string{"a", "b"} {
		e := &end{Host: h.Host(name), addr: fmt.Sprint("192.0.2.", i+1)}
		h.u.Join(e.Host, e.addr+"/24")
		e.c = e.container("c", fmt.Sprint("10.0.0.", i+1))
		e.d = e.Daemon(o)
		e.api = e.d.Client()
		h.Cleanup(e.api.Close)
		e.d.Ctl("add-br", "br0")
		e.d.Ctl("add-port", "br0", e.c.Veth)
		ends = append(ends, e)
	}
	h.a, h.b = ends[0], ends[1]
	return h
}

func (e *end) container(name, addr string) *lab.Container {
	c := e.Container(name, lab.Addr(addr+"/24"))
	c.Sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "20")
	return c
}

// fast is BFD that notices within 300 ms.
var fast = []string{"bfd_enable=true", "bfd_min_rx=100", "bfd_min_tx=100"}

// tunnel adds the port t0 to br0 of both hosts, and waits until the containers reach
// each other.
func (h *twoHosts) tunnel(kind string, options ...string) {
	h.t.Helper()
	for _, way := range [][2]*end{{h.a, h.b}, {h.b, h.a}} {
		way[0].d.Ctl(append([]string{"add-port", "br0", "t0", "type=" + kind, "remote_ip=" + way[1].addr}, options...)...)
	}
	h.reach("t0")
}

// reach waits until the tunnel ports of a name are up, and pings through t0.
func (h *twoHosts) reach(ports ...string) {
	h.t.Helper()
	for _, port := range ports {
		waitPort(h.t, h.a.d, port, api.PortUp)
		waitPort(h.t, h.b.d, port, api.PortUp)
	}
	answered(h.t, h.a.c, "10.0.0.2")
}

// tunnelOf returns what tunnel show says of a port.
func (e *end) tunnelOf(t *testing.T, port string) api.TunnelStatus {
	t.Helper()
	all, err := e.api.Tunnels(context.Background(), "")
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range all {
		if st.Port == port {
			return st
		}
	}
	t.Fatalf("tunnel show has no %s", port)
	return api.TunnelStatus{}
}

// drops returns how many frames were dropped for a reason, and from where.
func (e *end) drops(t *testing.T, reason string) (n uint64, from []string) {
	t.Helper()
	all, err := e.api.Drops(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Reason == reason {
			n, from = n+d.Count, append(from, d.Port+" "+d.Source)
		}
	}
	return n, from
}

// macsAt counts the MACs that br0 has behind a port.
func (e *end) macsAt(t *testing.T, port string) int {
	t.Helper()
	all, err := e.api.FDB(context.Background(), api.FDBQuery{Bridge: "br0", Port: port, VLAN: -1})
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// TestTunnelsWithLocalIPAndWithout: a port with local_ip takes nothing from a mesh of
// the same kind that has none, nor the other way round.
//
//	c ── br0 ── m0 (any address) ──┬── underlay ──┬── (any address) m0 ── br0 ── c
//	x ── br1 ── t1 (local_ip) ─────┘              └───── (local_ip) t1 ── br1 ── x
func TestTunnelsWithLocalIPAndWithout(t *testing.T) {
	for _, kind := range []string{"vxlan", "gre"} {
		t.Run(kind, func(t *testing.T) {
			h := newTwoHosts(t, lab.DaemonOptions{})
			for _, e := range []*end{h.a, h.b} {
				e.d.Ctl("mesh", "add", "m0", "bridge=br0", "type="+kind, "key=1", "peers=192.0.2.1,192.0.2.2")
			}
			waitPort(t, h.a.d, "m0:192.0.2.2", api.PortUp)
			waitPort(t, h.b.d, "m0:192.0.2.1", api.PortUp)
			answered(t, h.a.c, "10.0.0.2")

			xa, xb := h.a.container("x", "10.0.1.1"), h.b.container("x", "10.0.1.2")
			for _, way := range [][2]*end{{h.a, h.b}, {h.b, h.a}} {
				d := way[0].d
				d.Ctl("add-br", "br1")
				d.Ctl("add-port", "br1", xa.Veth)
				d.Ctl("add-port", "br1", "t1", "type="+kind, "key=2", "remote_ip="+way[1].addr, "local_ip="+way[0].addr)
			}
			for range 2 {
				h.a.c.MustExec("ip", "neigh", "flush", "dev", "eth0")
				answered(t, h.a.c, "10.0.0.2")
				answered(t, h.b.c, "10.0.0.1")
				answered(t, xa, "10.0.1.2")
				answered(t, xb, "10.0.1.1")
			}
			for _, e := range []*end{h.a, h.b} {
				all, err := e.api.Tunnels(context.Background(), "")
				if err != nil || len(all) != 2 {
					t.Fatalf("%+v, %v", all, err)
				}
				for _, st := range all {
					if st.State != api.PortUp || st.LastHeard == nil || st.BFD != nil && st.BFD.Flaps > 0 {
						t.Errorf("%s: %+v", e.Name, st)
					}
				}
				if n, from := e.drops(t, "tunnel-unknown-source"); n > 0 {
					t.Errorf("%s dropped %d frames of known tunnels: %v", e.Name, n, from)
				}
			}
			// The one with local_ip goes; the other stays.
			h.a.d.Ctl("del-port", "t1")
			answered(t, h.a.c, "10.0.0.2")
		})
	}
}

// TestTwoKindsOnOneUDPPort: VXLAN and Geneve cannot share a UDP port, but where each has
// an address of its own.
//
//	[host a: vswitchd, br0] 192.0.2.1, 192.0.2.9
func TestTwoKindsOnOneUDPPort(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	d := h.a.d
	d.Ctl("add-port", "br0", "v", "type=vxlan", "remote_ip=192.0.2.2")
	was := version(t, d)
	geneve := []string{"add-port", "br0", "g", "type=geneve", "remote_ip=192.0.2.3", "dst_port=4789"}
	refused(t, d, geneve, "UDP port 4789 is that of bridges[br0].ports[", "vxlan", "geneve", "or a local_ip for both")
	refused(t, d, append(geneve, "local_ip=192.0.2.9"), "UDP port 4789", "local_ip for both")
	if now := version(t, d); now != was {
		t.Errorf("what was refused is version %d", now)
	}
	h.a.MustExec("ip", "address", "add", "192.0.2.9/24", "dev", "eth0")
	d.Ctl("set-port", "v", "local_ip=192.0.2.1")
	refused(t, d, geneve, "UDP port 4789")
	d.Ctl(append(geneve, "local_ip=192.0.2.9")...)
	waitPort(t, d, "v", api.PortUp)
	waitPort(t, d, "g", api.PortUp)
}

// TestUDPPortTaken: the kernel has the UDP port of 300 tunnels, which hold nobody up,
// and come up when it lets go.
//
//	[host a: vswitchd, br0 with 300 ports; the kernel's vx0] 192.0.2.1
func TestUDPPortTaken(t *testing.T) {
	const ports = 300
	h := newTwoHosts(t, lab.DaemonOptions{})
	d := h.a.d
	h.a.KernelVXLAN("vx0", 7, "192.0.2.1", "192.0.2.2")
	var doc strings.Builder
	doc.WriteString("bridges:\n- name: br0\n  ports:\n")
	for i := range ports {
		fmt.Fprintf(&doc, "  - {name: t%d, type: vxlan, remote_ip: 192.0.2.2, key: %d}\n", i, i)
	}
	begin := time.Now()
	d.Ctl("apply", "-f", write(t, h.Lab, doc.String()))
	took := time.Since(begin)
	t.Logf("apply took %v", took)
	if took > prompt {
		t.Errorf("apply of tunnels that cannot open took %v", took)
	}
	waitPort(t, d, "t7", api.PortError, "address already in use")
	for tried := time.Now(); time.Since(tried) < 1500*time.Millisecond; { // they are tried again meanwhile
		begin := time.Now()
		d.Ctl("list-br")
		if err := d.Get("/v1/status", nil); err != nil || time.Since(begin) > 2*time.Second {
			t.Fatalf("list-br and status took %v, %v", time.Since(begin), err)
		}
	}
	h.a.MustExec("ip", "link", "del", "vx0")
	begin = time.Now()
	lab.Eventually(t, patient, func() error {
		all, err := h.a.api.Tunnels(context.Background(), "br0")
		if err != nil {
			return err
		}
		for _, st := range all {
			if st.State != api.PortUp {
				return fmt.Errorf("%s is %s: %s", st.Port, st.State, st.Reason)
			}
		}
		if len(all) != ports {
			return fmt.Errorf("%d tunnels", len(all))
		}
		return nil
	})
	if took := time.Since(begin); took > 6*time.Second {
		t.Errorf("they came up %v after the kernel let go", took)
	}
}

// TestDeadPeerIsForgottenWhileBusy: the MACs behind a peer that dies are forgotten
// though the reconciler is busy with a long apply.
func TestDeadPeerIsForgottenWhileBusy(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan", fast...)
	var doc strings.Builder
	doc.WriteString(export(h.a.d))
	doc.WriteString("  - name: br1\n    ports:\n")
	for i := range 1000 {
		fmt.Fprintf(&doc, "      - {name: i%d, type: internal}\n", i)
	}
	events := h.a.d.Events("bfd-down")
	if h.a.macsAt(t, "t0") == 0 {
		t.Fatal("nothing was learned")
	}
	h.b.d.Kill()
	applied := make(chan error, 1)
	begin := time.Now()
	go func() { // ends with the apply
		_, err := h.a.api.ApplyText(context.Background(), []byte(doc.String()), api.ApplyOptions{})
		applied <- err
	}()
	down := events.Wait(patient, "bfd-down", "").Time
	lab.Eventually(t, patient, func() error {
		if n := h.a.macsAt(t, "t0"); n > 0 {
			return fmt.Errorf("%d MACs are behind a dead peer", n)
		}
		return nil
	})
	if took := time.Since(down); took > 1500*time.Millisecond {
		t.Errorf("they were forgotten %v after BFD was down", took)
	}
	select {
	case err := <-applied:
		t.Errorf("the apply was over first: %v", err)
	default:
		if err := <-applied; err != nil {
			t.Error(err)
		}
	}
	t.Logf("the apply took %v", time.Since(begin))
	waitPort(t, h.a.d, "t0", api.PortDown, "BFD is down")
}

// TestUnderlayComesBack takes the underlay's link down and up, and its address away and
// back.
func TestUnderlayComesBack(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{})
	h.tunnel("vxlan", fast...)
	h.a.d.Ctl("set-port", "t0", "local_ip=192.0.2.1")
	h.reach("t0")
	for _, c := range []struct {
		name       string
		down, back []string
		reason     string
	}{
		{"link", []string{"link", "set", "eth0", "down"}, []string{"link", "set", "eth0", "up"}, "unreachable"},
		{"address", []string{"address", "del", "192.0.2.1/24", "dev", "eth0"}, []string{"address", "add", "192.0.2.1/24", "dev", "eth0"},
			"local_ip 192.0.2.1 is not an address of this host any more"},
	} {
		h.a.MustExec(append([]string{"ip"}, c.down...)...)
		waitPort(t, h.a.d, "t0", api.PortDown, c.reason)
		lab.Eventually(t, patient, func() error {
			if st := h.a.tunnelOf(t, "t0"); st.BFD == nil || st.BFD.State != "down" {
				return fmt.Errorf("BFD is %+v", st.BFD)
			}
			return nil
		})
		events := h.a.d.Events("bfd-up", "port-up")
		h.a.MustExec(append([]string{"ip"}, c.back...)...)
		bfd, up := events.Wait(patient, "bfd-up", "").Time, events.Wait(patient, "port-up", "").Time
		t.Logf("%s: up %v after BFD", c.name, up.Sub(bfd))
		if up.Sub(bfd) > 500*time.Millisecond {
			t.Errorf("%s: the port was up %v after BFD", c.name, up.Sub(bfd))
		}
		h.reach("t0")
	}
}

// TestHostNameWithADeadAddress: of the two addresses of a name the first is dead.
func TestHostNameWithADeadAddress(t *testing.T) {
	h := newTwoHosts(t, lab.DaemonOptions{Hosts: map[string]string{"far": "192.0.2.3 far\n192.0.2.2"}})
	h.b.d.Ctl("add-port", "br0", "t0", "type=vxlan", "remote_ip=192.0.2.1", "bfd_enable=true")
	h.a.d.Ctl("add-port", "br0", "t0", "type=vxlan", "remote_ip=far", "bfd_enable=true")
	lab.Eventually(t, patient, func() error {
		if st := h.a.tunnelOf(t, "t0"); st.Remote != "far" || st.RemoteAddr == "" {
			return errors.New("the name has no address yet")
		}
		return nil
	})
	if st := h.a.tunnelOf(t, "t0"); st.RemoteAddr != "192.0.2.3" {
		t.Errorf("the first address that is tried is %s", st.RemoteAddr)
	}
	begin := time.Now()
	if err := lab.Wait(15*time.Second, func() error {
		if st := h.a.tunnelOf(t, "t0"); st.State != api.PortUp || st.RemoteAddr != "192.0.2.2" {
			return fmt.Errorf("%s is %s: %s", st.RemoteAddr, st.State, st.Reason)
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	t.Logf("the second address was up after %v", time.Since(begin))
	h.reach("t0")
}
