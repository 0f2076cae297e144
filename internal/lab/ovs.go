package lab

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// ovsSchema comes with Debian's openvswitch-switch.
const ovsSchema = "/usr/share/openvswitch/vswitch.ovsschema"

// OVS is Open vSwitch's userspace datapath in a host: the oracle for VLAN
// semantics and wire formats.
type OVS struct {
	host        *Host
	dir         string
	db, control string // sockets
	procs       []*Proc
	bridges     []string
}

// OVS starts Open vSwitch in a host, with private directories and with settings of
// its table Open_vSwitch: "other_config:userspace-tso-enable=true". It ends with
// the lab.
//
// Trap: it reads veth frames without their offload state, so TCP through it works
// only with the containers' tx offload off (see NoTxOffload).
func (l *Lab) OVS(h *Host, settings ...string) *OVS {
	l.t.Helper()
	dir, err := os.MkdirTemp(l.dir, "o")
	if err != nil {
		l.t.Fatalf("lab: ovs: %v", err)
	}
	o := &OVS{host: h, dir: dir, db: "unix:" + dir + "/db.sock", control: dir + "/vswitchd.ctl"}
	l.Cleanup(o.Stop)
	h.MustExec("ovsdb-tool", "create", dir+"/conf.db", ovsSchema)
	o.start("ovsdb-server", dir+"/conf.db", "--remote=p"+o.db, "--unixctl="+dir+"/ovsdb.ctl",
		"--pidfile="+dir+"/ovsdb.pid", "-vconsole:warn")
	if err := Wait(10*time.Second, func() error {
		_, err := os.Stat(dir + "/db.sock")
		return err
	}); err != nil {
		l.t.Fatalf("lab: ovsdb-server: %v\n%s", err, o.procs[0].Out)
	}
	o.Vsctl("--no-wait", "init")
	if len(settings) > 0 {
		o.Vsctl(append([]string{"--no-wait", "set", "Open_vSwitch", "."}, settings...)...)
	}
	o.start("ovs-vswitchd", o.db, "--unixctl="+o.control, "--pidfile="+dir+"/vswitchd.pid", "-vconsole:warn")
	return o
}

// start runs a daemon of OVS in the foreground, so that it is a process of the
// lab like any other.
func (o *OVS) start(command ...string) {
	o.host.lab.t.Helper()
	// OVS_RUNDIR holds the management sockets that it makes by itself.
	p := o.host.Start(append([]string{"env", "OVS_RUNDIR=" + o.dir, "OVS_LOGDIR=" + o.dir, "OVS_DBDIR=" + o.dir}, command...)...)
	o.procs = append(o.procs, p)
}

// Processes returns ovsdb-server and ovs-vswitchd, as long as they run.
func (o *OVS) Processes() (db, vswitchd *Proc) { return o.procs[0], o.procs[1] }

// Vsctl runs ovs-vsctl and returns its output.
func (o *OVS) Vsctl(args ...string) string {
	o.host.lab.t.Helper()
	return o.host.MustExec(append([]string{"ovs-vsctl", "--db=" + o.db, "--timeout=50"}, args...)...)
}

// Appctl runs ovs-appctl and returns its output: Appctl("fdb/show", "br0").
func (o *OVS) Appctl(args ...string) string {
	o.host.lab.t.Helper()
	return o.host.MustExec(append([]string{"ovs-appctl", "--timeout=20", "-t", o.control}, args...)...)
}

// AddBridge makes a bridge of the userspace datapath that learns, with more
// settings as ovs-vsctl takes them: AddBridge("br0", "other_config:mac-aging-time=60").
func (o *OVS) AddBridge(name string, settings ...string) {
	o.host.lab.t.Helper()
	args := []string{"add-br", name, "--", "set", "bridge", name, "datapath_type=netdev", "fail-mode=standalone"}
	o.Vsctl(append(args, settings...)...)
	o.bridges = append(o.bridges, name)
}

// AddPort adds an interface of the host to a bridge, with more settings:
// AddPort("br0", c.Veth, "tag=10", "vlan_mode=access").
func (o *OVS) AddPort(bridge, port string, settings ...string) {
	o.host.lab.t.Helper()
	args := []string{"add-port", bridge, port}
	if len(settings) > 0 {
		args = append(append(args, "--", "set", "port", port), settings...)
	}
	o.Vsctl(args...)
	o.failure(port)
}

// failure fails the test when Open vSwitch could not make an interface.
func (o *OVS) failure(port string) {
	o.host.lab.t.Helper()
	failure := strings.TrimSpace(o.Vsctl("--columns=error", "--bare", "list", "interface", port))
	if failure != "" {
		o.host.lab.t.Fatalf("lab: ovs: add port %s: %s", port, failure)
	}
}

// Underlay makes a bridge whose one port is ifname, an interface to other hosts,
// and moves the interface's addresses and routes to it: what the userspace datapath
// needs to send tunnels' packets, which it routes and resolves by itself. What goes
// to the interface must have its offloads finished (see Underlay.Offload), and
// containers need room for the tunnel's headers: it does not fragment.
func (o *OVS) Underlay(bridge, ifname string) {
	o.host.lab.t.Helper()
	o.AddBridge(bridge)
	o.AddPort(bridge, ifname)
	if err := o.host.Do(func() error { return moveAddresses(ifname, bridge) }); err != nil {
		o.host.lab.t.Fatalf("lab: ovs: move addresses of %s to %s: %v", ifname, bridge, err)
	}
}

func moveAddresses(from, to string) error {
	old, err := netlink.LinkByName(from)
	if err != nil {
		return err
	}
	addrs, err := netlink.AddrList(old, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	routes, err := netlink.RouteList(old, netlink.FAMILY_ALL)
	if err != nil {
		return err
	}
	var prefixes []netip.Prefix
	for _, addr := range addrs {
		prefixes = append(prefixes, netip.MustParsePrefix(addr.IPNet.String()))
		if err := netlink.AddrDel(old, &addr); err != nil {
			return err
		}
	}
	// The host's stack still gets a copy of what comes by the interface. It must
	// not answer, with "port unreachable": packets from where no route goes back by
	// the same interface are dropped.
	if err := sysctl("net/ipv4/conf/"+from+"/rp_filter", "1"); err != nil {
		return err
	}
	if err := quietIPv6(from); err != nil {
		return err
	}
	if err := addAddresses(to, prefixes); err != nil {
		return err
	}
	if err := up(to); err != nil {
		return err
	}
	for _, route := range routes {
		if route.Gw == nil {
			continue // came with an address, and does so again
		}
		if err := netlink.RouteAdd(&netlink.Route{Dst: route.Dst, Gw: route.Gw}); err != nil {
			return fmt.Errorf("add route via %s: %w", route.Gw, err)
		}
	}
	return nil
}

// AddTunnel adds a tunnel port, with an interface's settings as ovs-vsctl takes
// them: AddTunnel("br0", "t1", "type=vxlan", "options:remote_ip=192.0.2.1",
// "options:key=42", "bfd:enable=true").
func (o *OVS) AddTunnel(bridge, port string, settings ...string) {
	o.host.lab.t.Helper()
	o.Vsctl(append([]string{"add-port", bridge, port, "--", "set", "interface", port}, settings...)...)
	o.failure(port)
}

// BFD returns what a tunnel's BFD session says of itself: "state", "forwarding",
// "diagnostic", "remote_state", "remote_diagnostic", "flap_count"; nothing where
// there is none.
func (o *OVS) BFD(port string) (map[string]string, error) {
	status, err := o.host.Exec("ovs-vsctl", "--db="+o.db, "--timeout=20", "get", "interface", port, "bfd_status")
	if err != nil {
		return nil, err
	}
	all := make(map[string]string)
	status = strings.Trim(strings.TrimSpace(status), "{}")
	for _, pair := range strings.Split(status, ", ") {
		if key, value, ok := strings.Cut(pair, "="); ok {
			all[key] = strings.Trim(value, `"`)
		}
	}
	return all, nil
}

// Stop ends Open vSwitch and deletes the TAP devices it leaves behind.
func (o *OVS) Stop() {
	for i := len(o.procs) - 1; i >= 0; i-- {
		o.procs[i].Kill()
	}
	o.procs = nil
	err := o.host.Do(func() error {
		var failed []error
		for _, name := range append(o.bridges, "ovs-netdev") {
			link, err := netlink.LinkByName(name)
			if errors.As(err, &netlink.LinkNotFoundError{}) {
				continue
			}
			if err == nil {
				err = netlink.LinkDel(link)
			}
			failed = append(failed, err)
		}
		return errors.Join(failed...)
	})
	if err != nil {
		o.host.lab.t.Errorf("lab: ovs: delete leftover devices: %v", err)
	}
	o.bridges = nil
	os.RemoveAll(filepath.Clean(o.dir))
}

// NoTxOffload turns transmit offloads of eth0 off, as users of OVS's userspace
// datapath must.
func (c *Container) NoTxOffload() {
	c.lab.t.Helper()
	c.MustExec("ethtool", "-K", "eth0", "tx", "off")
}
