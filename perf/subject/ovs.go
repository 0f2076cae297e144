package subject

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"vswitch/internal/lab"
)

// ovs is Open vSwitch's userspace datapath.
type ovs struct {
	tso   bool // userspace-tso-enable
	afxdp bool // ports of type=afxdp
}

// maxAFXDP is how many AF_XDP ports a bed may have: each holds 80 MB, and is half a
// second's work for ovs-vswitchd (measured, Open vSwitch 3.1).
const maxAFXDP = 16

func (d ovs) can(t Topology) error {
	if err := missing("ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-appctl", "ethtool"); err != nil {
		return err
	}
	if ports := t.Containers + t.Idle; d.afxdp && ports > maxAFXDP {
		return fmt.Errorf("an AF_XDP port of Open vSwitch holds 80 MB of memory: not measured with %d ports", ports)
	}
	return nil
}

func (d ovs) version() string {
	line := firstLine("ovs-vswitchd", "--version") // ovs-vswitchd (Open vSwitch) 3.1.0
	return strings.NewReplacer("ovs-vswitchd ", "", "(", "", ")", "").Replace(line)
}

type ovsNode struct {
	lab     *lab.Lab
	host    *lab.Host
	ovs     *lab.OVS
	offload bool   // of containers
	kind    string // type of interfaces; empty is the default
}

func (d ovs) start(s site) node {
	n := &ovsNode{lab: s.Lab, host: s.host, offload: d.tso && s.Tunnel == ""}
	if d.afxdp {
		n.kind = "afxdp"
	}
	if d.tso {
		n.ovs = s.OVS(s.host, "other_config:userspace-tso-enable=true")
	} else {
		n.ovs = s.OVS(s.host)
	}
	var settings []string
	if s.TableSize > 0 {
		settings = append(settings, fmt.Sprintf("other_config:mac-table-size=%d", s.TableSize))
	}
	if s.Tunnel != "" {
		// It wants what comes by its underlay as it was on the wire.
		n.host.MustExec("ethtool", "-K", "eth0", "gro", "off")
		n.ovs.Underlay("br-phy", "eth0")
		if n.kind != "" {
			n.ovs.Vsctl("set", "interface", "eth0", "type="+n.kind)
		}
	}
	n.ovs.AddBridge(bridgeName, settings...)
	if s.Tunnel != "" {
		n.ovs.AddTunnel(bridgeName, "tunnel", "type="+s.Tunnel, "options:remote_ip="+underlayAddr(s.peer), "options:key="+tunnelKey)
	}
	return n
}

func (n *ovsNode) container(name string, options ...lab.ContainerOption) *lab.Container {
	c := n.host.Container(name, options...)
	if !n.offload {
		c.NoTxOffload()
	}
	return c
}

func (n *ovsNode) idle(count int) []string { return vethPairs(n.lab, n.host, count) }

func (n *ovsNode) join(ifnames []string) {
	var args []string
	for _, name := range ifnames {
		args = append(append(args, "--"), n.port(name)...)
	}
	n.ovs.Vsctl(args...)
}

func (n *ovsNode) tunnels(remotes []string) error {
	var args []string
	for _, remote := range remotes {
		name := "t" + remote
		args = append(args, "--", "add-port", bridgeName, name, "--", "set", "interface", name,
			"type=vxlan", "options:remote_ip="+remote, "options:key="+tunnelKey)
	}
	n.ovs.Vsctl(args...)
	return nil
}

func (n *ovsNode) addPort(ifname string) error {
	n.ovs.Vsctl(n.port(ifname)...)
	return nil
}

// port is the words of ovs-vsctl that make a port of an interface.
func (n *ovsNode) port(ifname string) []string {
	words := []string{"add-port", bridgeName, ifname}
	if n.kind != "" {
		words = append(words, "--", "set", "interface", ifname, "type="+n.kind)
	}
	return words
}

// inTable is in the output of fdb/stats-show.
var inTable = regexp.MustCompile(`Current/maximum MAC entries in the table: (\d+)/`)

func (n *ovsNode) macs() (int, error) {
	out := n.ovs.Appctl("fdb/stats-show", bridgeName)
	m := inTable.FindStringSubmatch(out)
	if m == nil {
		return 0, fmt.Errorf("ovs-appctl fdb/stats-show does not say how many: %s", out)
	}
	return strconv.Atoi(m[1])
}

func (n *ovsNode) processes() []process {
	db, vswitchd := n.ovs.Processes()
	return []process{
		{name: "ovs-vswitchd", pid: vswitchd.PID()},
		{name: "ovsdb-server", pid: db.PID(), side: true},
	}
}
