package mesh_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"vswitch/ctl/api"
	"vswitch/internal/lab"
)

// prompt is what the issue promises of a host that returns. It is asserted with
// room: the machine is small, and shared by tests that run at once.
const prompt = time.Second

// patient bounds what is promised to happen, but not how fast.
const patient = 15 * time.Second

func TestMain(m *testing.M) {
	code := m.Run()
	for _, line := range lab.Leftovers() {
		fmt.Fprintln(os.Stderr, "left behind:", line)
		code = 1
	}
	os.Exit(code)
}

// member is a host with its daemon and its containers.
type member struct {
	*lab.Host
	name string // a, b, …
	addr string // in the underlay
	d    *lab.Daemon
	api  *api.Client
	c    []*lab.Container
}

// labMesh is hosts on one underlay, each with a daemon, a bridge br0 and
// containers:
//
//	            ┌──────────── underlay 192.0.2.0/24 (2001:db8::/64) ───────────┐
//	       .1 ──┤                .2 ──┤                                   .n ──┤
//	┌─ host a ──┴────────┐ ┌─ host b ─┴─────────┐               ┌─ host … ─────┴─────┐
//	│ vswitchd, br0      │ │ vswitchd, br0      │       …       │ vswitchd, br0      │
//	└─ veth-c0 … veth-ck ┘ └─ veth-c0 … veth-ck ┘               └─ veth-c0 … veth-ck ┘
//	10.0.0.10 … 10.0.0.1k  10.0.0.20 … 10.0.0.2k                10.0.0.n0 … 10.0.0.nk
type labMesh struct {
	*lab.Lab
	t     *testing.T
	u     *lab.Underlay
	hosts []*member
}

type labOptions struct {
	hosts, containers int
	six               bool   // an underlay of IPv6 alone
	bridge            string // more options of br0: "mac-flap-hold: 1, "
}

// newLabMesh makes all but the mesh.
func newLabMesh(t *testing.T, o labOptions) *labMesh {
	t.Helper()
	t.Parallel()
	n := &labMesh{Lab: lab.New(t), t: t}
	n.u = n.Underlay("net", lab.UnderlayOptions{})
	var docs []string
	for i := range o.hosts {
		m := &member{name: string(rune('a' + i))}
		m.Host = n.Host(m.name)
		if m.addr = fmt.Sprint("192.0.2.", i+1); o.six {
			m.addr = fmt.Sprint("2001:db8::", i+1)
		}
		bits := map[bool]string{false: "/24", true: "/64"}[o.six]
		n.u.Join(m.Host, m.addr+bits)
		var ports []string
		for j := range o.containers {
			c := m.Container(fmt.Sprint("c", j), lab.Addr(fmt.Sprintf("10.0.0.%d%d/24", i+1, j)))
			// A request that was lost is asked again soon, not after a second.
			c.Sysctl("net.ipv4.neigh.eth0.retrans_time_ms", "50")
			m.c = append(m.c, c)
			ports = append(ports, fmt.Sprintf("{name: %s}", c.Veth))
		}
		m.d = m.NewDaemon(lab.DaemonOptions{})
		m.api = m.d.Client()
		n.Cleanup(m.api.Close)
		if err := m.d.Launch(); err != nil {
			t.Fatal(err)
		}
		n.hosts = append(n.hosts, m)
		docs = append(docs, fmt.Sprintf("bridges: [{name: br0, %sports: [%s]}]", o.bridge, strings.Join(ports, ", ")))
	}
	for i, m := range n.hosts {
		m.answers(t)
		m.apply(t, docs[i])
	}
	return n
}

// answers waits until a daemon that was launched does.
func (m *member) answers(t *testing.T) {
	t.Helper()
	lab.Eventually(t, 20*time.Second, func() error { return m.d.Get("/v1/version", nil) })
}

// apply makes a document the member's.
func (m *member) apply(t *testing.T, doc string) {
	t.Helper()
	if _, err := m.api.ApplyText(context.Background(), []byte(doc), api.ApplyOptions{}); err != nil {
		t.Fatalf("%s: %v\n%s", m.name, err, doc)
	}
}

// port returns the name of a mesh's port that leads to a member.
func (m *member) port(mesh string) string { return mesh + ":" + m.addr }

// peers is what `mesh add` is given for these hosts.
func peers(hosts ...*member) string {
	var all []string
	for _, m := range hosts {
		all = append(all, m.addr)
	}
	return "peers=" + strings.Join(all, ",")
}

// mesh adds the mesh m0 of some hosts to each of them, by one line, and waits until
// it is up.
func (n *labMesh) mesh(hosts ...*member) {
	n.t.Helper()
	for _, m := range hosts {
		m.d.Ctl("mesh", "add", "m0", "bridge=br0", "type=vxlan", "key=42", peers(hosts...))
	}
	n.waitMesh("m0", hosts...)
}

// waitMesh waits until each of some hosts, and nobody else, is up at the others.
func (n *labMesh) waitMesh(name string, hosts ...*member) {
	n.t.Helper()
	for _, m := range hosts {
		lab.Eventually(n.t, patient, func() error {
			all, err := m.api.Meshes(context.Background(), name)
			if err != nil {
				return err
			}
			if len(all) != 1 || len(all[0].Peers) != len(hosts) {
				return fmt.Errorf("%s has meshes %+v, want one with %d peers", m.name, all, len(hosts))
			}
			for _, p := range all[0].Peers {
				want := api.PortUp
				if p.Address == m.addr {
					want = api.PortSelf
				}
				if p.State != want {
					return fmt.Errorf("at %s peer %s is %s (%s), want %s", m.name, p.Peer, p.State, p.Reason, want)
				}
			}
			return nil
		})
	}
}

// tunnel returns what a member's daemon says of a tunnel port.
func (m *member) tunnel(port string) (api.TunnelStatus, error) {
	all, err := m.api.Tunnels(context.Background(), "")
	if err != nil {
		return api.TunnelStatus{}, err
	}
	for _, t := range all {
		if t.Port == port {
			return t, nil
		}
	}
	return api.TunnelStatus{}, fmt.Errorf("%s has no tunnel port %s", m.name, port)
}

// is is an error unless a tunnel port has a state.
func (m *member) is(port, state string) error {
	st, err := m.tunnel(port)
	if err == nil && st.State != state {
		err = fmt.Errorf("at %s port %s is %s (%s), want %s", m.name, port, st.State, st.Reason, state)
	}
	return err
}

// at returns the port behind which a member's br0 has a MAC, or nothing.
func (m *member) at(t *testing.T, mac net.HardwareAddr) string {
	t.Helper()
	all, err := m.api.FDB(context.Background(), api.FDBQuery{Bridge: "br0", MAC: mac.String(), VLAN: -1})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) == 0 {
		return ""
	}
	return all[0].Port
}

// stats returns a bridge's counters.
func (m *member) stats(t *testing.T, bridge string) api.BridgeCounters {
	t.Helper()
	all, err := m.api.Stats(context.Background(), bridge, "")
	if err != nil {
		t.Fatal(err)
	}
	return all[0].Counters
}

// drops returns how many frames were dropped at a port for a reason.
func (m *member) drops(t *testing.T, port, reason string) (count uint64) {
	t.Helper()
	all, err := m.api.Drops(context.Background(), "", "")
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range all {
		if d.Port == port && d.Reason == reason {
			count += d.Count
		}
	}
	return count
}

// settled waits until no frame is in flight, and each bridge's sums meet.
func (n *labMesh) settled() {
	n.t.Helper()
	for _, m := range n.hosts {
		var before []byte
		lab.Eventually(n.t, patient, func() error {
			all, err := m.api.Stats(context.Background(), "", "")
			if err != nil {
				return err
			}
			for _, b := range all {
				c := b.Counters
				if c.Received+c.FloodCopies+c.MirrorCopies+c.SplitCopies+c.Answers != c.Sent+c.Dropped {
					return fmt.Errorf("%s: the sums of %s do not meet: %+v", m.name, b.Bridge, c)
				}
			}
			if now, _ := json.Marshal(all); string(now) != string(before) {
				before = now
				return errors.New(m.name + ": frames are in flight")
			}
			return nil
		})
	}
}

// each calls f for all that it is given at once, and returns the first error.
func each[T any](all []T, f func(T) error) error {
	errs := make([]error, len(all))
	var wg sync.WaitGroup
	for i, x := range all {
		wg.Go(func() { errs[i] = f(x) })
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// containers returns all of some hosts.
func containers(hosts []*member) (all []*lab.Container) {
	for _, m := range hosts {
		all = append(all, m.c...)
	}
	return all
}

// pingAll pings from all containers of some hosts to all others.
func pingAll(hosts ...*member) error {
	all := containers(hosts)
	return each(all, func(from *lab.Container) error {
		for _, to := range all {
			if from == to {
				continue
			}
			if err := lab.Ping(from, to); err != nil {
				return fmt.Errorf("%s to %s: %w", from.Name, to.Name, err)
			}
		}
		return nil
	})
}

// know has two containers know each other's MAC for good: no ARP is in the way of
// what goes between them.
func know(a, b *lab.Container) {
	for _, way := range [][2]*lab.Container{{a, b}, {b, a}} {
		way[0].MustExec("ip", "neighbor", "replace", way[1].IP(), "lladdr", way[1].MAC.String(), "dev", "eth0", "nud", "permanent")
	}
}
