package subject

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"vswitch/internal/lab"
)

// ErrCannot is in the errors of a Bed whose switch cannot do what it was asked, by its
// nature: no failure, but a reason for a report.
var ErrCannot = errors.New("this switch cannot")

// Subject is a switch with its configuration. Thread-safety: safe for concurrent
// use.
type Subject struct {
	Name  string // "vswitch", "ovs", "ovs-tso", "ovs-afxdp", "bridge", "vde"
	Title string // for a table's heading
	Notes string // what it had to be set to, in a sentence or two for the report

	driver driver
}

// driver is what makes one kind of switch different.
type driver interface {
	can(Topology) error
	version() string
	// start starts the switch on a host, with its bridge and, with a tunnel, its
	// port to the other host. Like node's, it fails as the lab does.
	start(site) node
}

// site is where a switch is started.
type site struct {
	*lab.Lab
	Topology
	host       *lab.Host
	here, peer int      // numbers of this host and of the other, from 1
	containers []string // names of this host's
}

// node is a switch on one host. What returns no error fails as the lab does.
type node interface {
	// container makes one, ready to be joined.
	container(name string, options ...lab.ContainerOption) *lab.Container
	// idle makes that many interfaces that nobody is behind, and returns their names.
	idle(n int) (ifnames []string)
	// join makes ports of interfaces, in as few commands as it takes.
	join(ifnames []string)
	// tunnels adds ports to remotes that do not exist.
	tunnels(remotes []string) error
	// addPort makes a port of an interface by the one command that a user would type.
	addPort(ifname string) error
	macs() (int, error)
	processes() []process
}

// All returns the subjects. bin is a directory with vswitchd and vswitchctl built.
func All(bin string) []Subject {
	// A relative path would be looked for in another directory by exec.
	if abs, err := filepath.Abs(bin); err == nil {
		bin = abs
	}
	return []Subject{
		{
			Name: "vswitch", Title: "vswitch",
			Notes:  "Default settings; containers' and underlay's offloads as they are.",
			driver: vswitch{bin: bin},
		},
		{
			Name: "ovs", Title: "Open vSwitch, userspace",
			Notes: "Userspace datapath (datapath_type=netdev) on AF_PACKET, default settings. It forwards unfinished checksums, " +
				"so containers have transmit offloads off (ethtool -K eth0 tx off), or TCP fails.",
			driver: ovs{},
		},
		{
			Name: "ovs-tso", Title: "Open vSwitch, userspace, TSO",
			Notes: "Userspace datapath with other_config:userspace-tso-enable=true; containers' offloads as they are. " +
				"With tunnels containers have transmit offloads off: this version cannot put super-frames into tunnels.",
			driver: ovs{tso: true},
		},
		{
			Name: "ovs-afxdp", Title: "Open vSwitch, userspace, AF_XDP",
			Notes: "Userspace datapath with ports of type=afxdp, default settings: one thread polls all the time, and has a processor to itself. " +
				"Containers have transmit offloads off, or TCP fails.",
			driver: ovs{afxdp: true},
		},
		{
			Name: "bridge", Title: "Linux bridge",
			Notes: "The kernel's bridge, with multicast snooping, spanning tree and br_netfilter off; with tunnels the kernel's VXLAN or gretap as a port. " +
				"It has no process: its CPU time is in the machine's, and its memory is the kernel's, which is not counted.",
			driver: bridge{},
		},
		{
			Name: "vde", Title: "VDE",
			Notes: "vde_switch with one TAP a container, moved into it: a hop less than a veth pair. The switch's TAPs have no offloads. Idle ports are TAPs, too. " +
				"Its CPU time and memory are vde_switch's and, for a port added later, vde_plug2tap's.",
			driver: vde{},
		},
	}
}

// Variants returns this project's switch with other settings than the default ones: to
// tell what a feature costs, when they are named.
func Variants(bin string) []Subject {
	if abs, err := filepath.Abs(bin); err == nil {
		bin = abs
	}
	return []Subject{
		{
			Name: "vswitch-unrecorded", Title: "vswitch without flight recorder",
			Notes:  "vswitchd --recorder 0.",
			driver: vswitch{bin, []string{"--recorder", "0"}},
		},
		{
			Name: "vswitch-records-all", Title: "vswitch that records every frame",
			Notes:  "vswitchd --recorder-rate 0.",
			driver: vswitch{bin, []string{"--recorder-rate", "0"}},
		},
	}
}

// Version returns what the switch says it is: "Open vSwitch 3.1.0".
func (s Subject) Version() string { return s.driver.version() }

// Can returns why the subject cannot do a topology, in words for a report, or nil.
func (s Subject) Can(t Topology) error {
	if err := t.validate(); err != nil {
		return err
	}
	return s.driver.can(t)
}

// Bed is a subject that stands on a topology. Thread-safety: for one goroutine.
type Bed struct {
	Hosts      []*lab.Host
	Containers []*lab.Container // c1 is the first

	lab   *lab.Lab
	nodes []node // one a host
	next  int    // tunnel of AddTunnels
}

// Up stands the subject up in a lab that has nothing else in it, whose end takes it
// away, as Close does. It returns when the switch has taken its configuration; its
// first frame may have to wait for the interfaces a moment longer. Errors of a lab
// in a test fail the test.
func (s Subject) Up(l *lab.Lab, t Topology) (*Bed, error) {
	if err := s.Can(t); err != nil {
		return nil, fmt.Errorf("stand up %s: %w", s.Name, err)
	}
	b := &Bed{lab: l}
	if err := l.Try(func() error { b.up(s.driver, t); return nil }); err != nil {
		b.Close()
		return nil, fmt.Errorf("stand up %s: %w", s.Name, err)
	}
	return b, nil
}

func (b *Bed) up(d driver, t Topology) {
	for i := range t.hosts() {
		h := b.lab.Host(fmt.Sprintf("h%d", i+1))
		silent(b.lab, h)
		b.Hosts = append(b.Hosts, h)
	}
	names := make([][]string, len(b.Hosts))
	for i := range t.Containers {
		at := i % len(b.Hosts)
		names[at] = append(names[at], fmt.Sprintf("c%d", i+1))
	}
	if t.Tunnel != "" {
		cable(b.lab, b.Hosts, t)
	}
	for i, h := range b.Hosts {
		b.nodes = append(b.nodes, d.start(site{b.lab, t, h, i + 1, len(b.Hosts) - i, names[i]}))
	}
	ports := make([][]string, len(b.Hosts))
	for i := range t.Containers {
		at := i % len(b.Hosts)
		c := b.nodes[at].container(fmt.Sprintf("c%d", i+1),
			lab.Addr(fmt.Sprintf("10.0.0.%d/24", i+1)), lab.MTU(t.mtu()))
		b.Containers = append(b.Containers, c)
		ports[at] = append(ports[at], c.Veth)
	}
	if t.Idle > 0 {
		ports[0] = append(ports[0], b.nodes[0].idle(t.Idle)...)
	}
	for i, n := range b.nodes {
		n.join(ports[i])
	}
}

// Spare makes one more container, with 10.0.0.N/24, on the first host. It is no
// port yet: that is AddPort(c.Veth).
func (b *Bed) Spare() (c *lab.Container, err error) {
	err = b.lab.Try(func() error {
		n := len(b.Containers) + 1
		c = b.nodes[0].container(fmt.Sprintf("c%d", n), lab.Addr(fmt.Sprintf("10.0.0.%d/24", n)))
		b.Containers = append(b.Containers, c)
		return nil
	})
	return c, err
}

// AddPort makes a port of an interface of the first host, by the command that a
// user types, and returns when the command has.
func (b *Bed) AddPort(ifname string) error {
	return b.lab.Try(func() error { return b.nodes[0].addPort(ifname) })
}

// AddTunnels makes n more tunnel ports on the first host, VXLAN to remotes that do
// not exist: for what a tunnel costs in memory. The error may be ErrCannot.
func (b *Bed) AddTunnels(n int) error {
	var remotes []string
	for range n {
		b.next++
		remotes = append(remotes, absent(b.next))
	}
	return b.lab.Try(func() error { return b.nodes[0].tunnels(remotes) })
}

// MACs returns how many addresses the first host's switch has learned and still has.
// The error may be ErrCannot.
func (b *Bed) MACs() (n int, err error) {
	err = b.lab.Try(func() error { n, err = b.nodes[0].macs(); return err })
	return n, err
}

// Close takes everything away, and ends the lab.
func (b *Bed) Close() { b.lab.Close() }

// MachineCPU returns how long the machine's processors were busy, and how long they
// have been there at all, all of them together.
func MachineCPU() (busy, total time.Duration) { return machineCPU() }

// kernelVersion is the version of whatever is part of the kernel.
func kernelVersion() string {
	release, err := os.ReadFile("/proc/sys/kernel/osrelease")
	if err != nil {
		return runtime.GOOS
	}
	return "Linux " + strings.TrimSpace(string(release))
}
