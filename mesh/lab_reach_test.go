package mesh_test

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// TestLabMesh is the whole of it, 5 hosts with 3 containers each, by the same line
// on every host:
//
//	     ┌───────┬────── underlay ──┬─────────┐
//	   ┌─┴─┐   ┌─┴─┐   ┌───┐      ┌─┴─┐     ┌─┴─┐
//	   │ a │   │ b │   │ c │      │ d │     │ e │   full mesh m0, VXLAN 42
//	   └┬┬┬┘   └┬┬┬┘   └┬┬┬┘      └┬┬┬┘     └┬┬┬┘
//	10.0.0.10…12 .20…22 .30…32   .40…42    .50…52
//
// All reach all; a broadcast comes to each container once.
func TestLabMesh(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 5, containers: 3})
	n.mesh(n.hosts...)
	n.everybody(4 << 20)

	for _, m := range n.hosts {
		text := m.d.Ctl("mesh", "show")
		if strings.Count(text, "up") < 4 || !strings.Contains(text, "self") {
			t.Errorf("%s: mesh show:\n%s", m.name, text)
		}
	}
}

// TestLabMesh6 has an underlay without IPv4.
//
//	[a: c0] 2001:db8::1 ── underlay ── 2001:db8::2 [b: c0]
//	                          └─────── 2001:db8::3 [c: c0]
func TestLabMesh6(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 3, containers: 1, six: true})
	n.mesh(n.hosts...)
	n.everybody(1 << 20)
}

// everybody pings everybody, some send by TCP, and everybody broadcasts.
func (n *labMesh) everybody(size int) {
	n.t.Helper()
	if err := pingAll(n.hosts...); err != nil {
		n.t.Fatal(err)
	}
	all := containers(n.hosts)
	if err := each(all, func(c *lab.Container) error {
		next := all[(slices.Index(all, c)+len(n.hosts[0].c))%len(all)] // on the next host
		return lab.Transfer(c, next, size/len(n.hosts[0].c))
	}); err != nil {
		n.t.Error(err)
	}

	// Few enough that no peer takes them for a storm: 64 may come at once.
	const frames = 20
	conns := make([]*lab.Conn, len(all))
	for i, c := range all {
		conns[i] = c.Conn()
	}
	for i, c := range all {
		for k := range frames {
			if err := conns[i].Send(ether(broadcast, c.MAC, fmt.Sprint(c.Name, " says ", k))); err != nil {
				n.t.Fatal(err)
			}
		}
	}
	heard := make([]map[string]int, len(all))
	if err := each(conns, func(c *lab.Conn) (err error) {
		heard[slices.Index(conns, c)], err = collect(c, 500*time.Millisecond)
		return err
	}); err != nil {
		n.t.Fatal(err)
	}
	for i, c := range all {
		wrong := 0
		for _, from := range all {
			for k := range frames {
				want := 1
				if from == c {
					want = 0
				}
				if heard[i][fmt.Sprint(from.Name, " says ", k)] != want {
					wrong++
				}
			}
		}
		if wrong > 0 || len(heard[i]) != (len(all)-1)*frames {
			n.t.Errorf("%s heard %d different broadcasts of %d; %d came not once", c.Name, len(heard[i]), (len(all)-1)*frames, wrong)
		}
	}
	n.settled()
	for _, m := range n.hosts {
		c := m.stats(n.t, "br0")
		if c.Received == 0 || c.FloodCopies == 0 {
			n.t.Errorf("%s: nothing was counted: %+v", m.name, c)
		}
		for reason, count := range c.Drops {
			n.t.Errorf("%s dropped %d frames: %s", m.name, count, reason)
		}
	}
}

// TestLabDelMesh takes the mesh of two hosts away, and makes it again from what is
// stored.
//
//	c0 ── [a: br0, m0] ── underlay ── [b: br0, m0] ── c0
func TestLabDelMesh(t *testing.T) {
	n := newLabMesh(t, labOptions{hosts: 2, containers: 1})
	a, b := n.hosts[0], n.hosts[1]
	sockets := func() (lines []string) {
		for _, file := range []string{"udp", "udp6", "raw", "raw6"} {
			text, err := os.ReadFile(fmt.Sprintf("/proc/%d/net/%s", a.d.Process().PID(), file))
			if err != nil {
				t.Fatal(err)
			}
			lines = append(lines, strings.Split(strings.TrimSpace(string(text)), "\n")[1:]...)
		}
		return lines
	}
	files := func() int {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", a.d.Process().PID()))
		if err != nil {
			t.Fatal(err)
		}
		return len(all)
	}
	a.api.Close() // a connection that waits is a file too
	none := files()
	n.mesh(a, b)
	if err := pingAll(a, b); err != nil {
		t.Fatal(err)
	}
	if len(sockets()) == 0 {
		t.Error("a mesh without a socket")
	}
	with := files()

	a.d.Kill()
	a.d.Start()
	n.waitMesh("m0", a, b)
	if err := pingAll(a, b); err != nil {
		t.Error(err)
	}
	for _, m := range n.hosts {
		if text := m.d.Ctl("mesh", "show"); !strings.Contains(text, "m0") {
			t.Errorf("%s: mesh show:\n%s", m.name, text)
		}
	}

	watched := b.d.Events("bfd-down")
	gone := time.Now()
	a.d.Ctl("mesh", "del", "m0")
	// Told, not found out: the goodbye is quicker than the silence.
	if e := watched.Wait(patient, "bfd-down", a.port("m0")); e.Detail["remote_state"] != "admin_down" {
		t.Errorf("b heard %+v", e)
	}
	t.Logf("b noticed after %v", time.Since(gone))
	lab.Eventually(t, patient, func() error {
		if left := sockets(); len(left) > 0 {
			return fmt.Errorf("sockets left:\n%s", strings.Join(left, "\n"))
		}
		a.api.Close()
		if now := files(); now > none {
			return fmt.Errorf("%d files are open, were %d before the mesh and %d with it", now, none, with)
		}
		return nil
	})
	for path, v := range map[string]any{"/v1/tunnels": new([]api.TunnelStatus), "/v1/meshes": new([]api.MeshStatus)} {
		if err := a.d.Get(path, v); err != nil {
			t.Error(err)
		}
		if text := fmt.Sprint(v); text != "&[]" {
			t.Errorf("%s: %s", path, text)
		}
	}
	if text := a.d.Ctl("tunnel", "show"); strings.Contains(text, "m0") {
		t.Errorf("tunnel show:\n%s", text)
	}
	if a.at(t, b.c[0].MAC) != "" {
		t.Error("a remembers who was behind the mesh")
	}
	if err := lab.NoPing(a.c[0], b.c[0]); err != nil {
		t.Error(err)
	}
	n.settled()
}
