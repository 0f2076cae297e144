package subject

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"vswitch/internal/lab"
)

// ovs is Open vSwitch's userspace datapath.
type ovs struct{ tso bool }

func (d ovs) can(Topology) error {
	return missing("ovs-vswitchd", "ovsdb-server", "ovs-vsctl", "ovs-appctl", "ethtool")
}

func (d ovs) version() string {
	line := firstLine("ovs-vswitchd", "--version") // ovs-vswitchd (Open vSwitch) 3.1.0
	return strings.NewReplacer("ovs-vswitchd ", "", "(", "", ")", "").Replace(line)
}

type ovsNode struct {
	lab     *lab.Lab
	host    *lab.Host
	ovs     *lab.OVS
	offload bool // of containers
}

func (d ovs) start(s site) node {
	n := &ovsNode{lab: s.Lab, host: s.host, offload: d.tso && s.Tunnel == ""}
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
		n.ovs.Underlay("br-phy", "eth0")
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
		args = append(args, "--", "add-port", bridgeName, name)
	}
	n.ovs.Vsctl(args...)
}

func (n *ovsNode) tunnels(remotes []string) {
	var args []string
	for _, remote := range remotes {
		name := "t" + remote
		args = append(args, "--", "add-port", bridgeName, name, "--", "set", "interface", name,
			"type=vxlan", "options:remote_ip="+remote, "options:key="+tunnelKey)
	}
	n.ovs.Vsctl(args...)
}

func (n *ovsNode) addPort(ifname string) error {
	n.ovs.Vsctl("add-port", bridgeName, ifname)
	return nil
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
