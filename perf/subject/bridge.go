package subject

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"sync"
	"syscall"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"

	"vswitch/internal/lab"
)

// bridge is the kernel's, with the kernel's tunnels.
type bridge struct{}

func (bridge) can(t Topology) error {
	if err := missing("ip"); err != nil {
		return err
	}
	if t.Tunnel == "gre" && !hasGretap() {
		return errors.New("the kernel here has no gretap")
	}
	return nil
}

func (bridge) version() string { return kernelVersion() }

// hasGretap makes a gretap device in a namespace that ends with its thread.
var hasGretap = sync.OnceValue(func() bool {
	made := make(chan error, 1)
	go func() { // ends with its thread, which is never unlocked
		runtime.LockOSThread()
		made <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			attrs := netlink.NewLinkAttrs()
			attrs.Name = "probe"
			return netlink.LinkAdd(&netlink.Gretap{LinkAttrs: attrs, Local: []byte{192, 0, 2, 1}, Remote: []byte{192, 0, 2, 2}})
		}()
	}()
	return <-made == nil
})

type bridgeNode struct {
	lab  *lab.Lab
	host *lab.Host
}

// withoutFilter keeps bridged frames from iptables (br_netfilter), which costs a small
// frame a third of its rate where the kernel has it.
func (n *bridgeNode) withoutFilter() {
	err := n.host.Do(func() error {
		for _, name := range []string{"iptables", "ip6tables", "arptables"} {
			err := os.WriteFile("/proc/sys/net/bridge/bridge-nf-call-"+name, []byte("0"), 0)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		return nil
	})
	if err != nil {
		n.lab.T().Fatalf("subject: no br_netfilter in %s: %v", n.host.Name, err)
	}
}

func (bridge) start(s site) node {
	n := &bridgeNode{lab: s.Lab, host: s.host}
	n.withoutFilter()
	var ports []string
	switch here, there := underlayAddr(s.here), underlayAddr(s.peer); s.Tunnel {
	case "vxlan":
		s.host.KernelVXLAN("tunnel", 42, here, there, "dev", "eth0")
		ports = append(ports, "tunnel")
	case "gre":
		s.host.MustExec("ip", "link", "add", "name", "tunnel", "type", "gretap", "local", here, "remote", there, "key", tunnelKey)
		ports = append(ports, "tunnel")
	}
	s.host.KernelBridge(bridgeName, ports...)
	return n
}

func (n *bridgeNode) container(name string, options ...lab.ContainerOption) *lab.Container {
	return n.host.Container(name, options...)
}

func (n *bridgeNode) idle(count int) []string { return vethPairs(n.lab, n.host, count) }

func (n *bridgeNode) join(ifnames []string) {
	err := n.host.Do(func() error {
		br, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		for _, name := range ifnames {
			link, err := netlink.LinkByName(name)
			if err == nil {
				err = netlink.LinkSetMaster(link, br)
			}
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
		}
		return nil
	})
	if err != nil {
		n.lab.T().Fatalf("subject: add port to bridge: %v", err)
	}
}

func (n *bridgeNode) tunnels([]string) error {
	return fmt.Errorf("%w say what a tunnel costs: its memory is the kernel's", ErrCannot)
}

func (n *bridgeNode) addPort(ifname string) error {
	_, err := n.host.Exec("ip", "link", "set", "dev", ifname, "master", bridgeName)
	return err
}

// macs asks the bridge for their number, or counts them where the kernel has none
// (before Linux 6.7): a million is a minute's work.
func (n *bridgeNode) macs() (count int, err error) {
	err = n.host.Do(func() error {
		br, err := netlink.LinkByName(bridgeName)
		if err != nil {
			return err
		}
		if count, err = learned(br.Attrs().Index); !errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		all, err := netlink.NeighListExecute(netlink.Ndmsg{Family: unix.AF_BRIDGE})
		for _, one := range all {
			if one.MasterIndex == br.Attrs().Index && one.State&netlink.NUD_PERMANENT == 0 {
				count++
			}
		}
		return err
	})
	return count, err
}

// learned reads IFLA_BR_FDB_N_LEARNED, a number deep in the description of a link:
// IFLA_LINKINFO, IFLA_INFO_DATA.
func learned(ifindex int) (int, error) {
	r := nl.NewNetlinkRequest(unix.RTM_GETLINK, 0)
	about := nl.NewIfInfomsg(unix.AF_UNSPEC)
	about.Index = int32(ifindex)
	r.AddData(about)
	answer, err := r.Execute(unix.NETLINK_ROUTE, 0)
	if err != nil {
		return 0, fmt.Errorf("ask for bridge: %w", err)
	}
	if len(answer) != 1 || len(answer[0]) < about.Len() {
		return 0, fmt.Errorf("ask for bridge: %d answers", len(answer))
	}
	data := answer[0][about.Len():]
	for _, kind := range []uint16{unix.IFLA_LINKINFO, nl.IFLA_INFO_DATA, unix.IFLA_BR_FDB_N_LEARNED} {
		attrs, err := nl.ParseRouteAttr(data)
		if err != nil {
			return 0, fmt.Errorf("ask for bridge: %w", err)
		}
		i := slices.IndexFunc(attrs, func(a syscall.NetlinkRouteAttr) bool { return a.Attr.Type&nl.NLA_TYPE_MASK == kind })
		if i < 0 {
			return 0, errors.ErrUnsupported
		}
		data = attrs[i].Value
	}
	if len(data) < 4 {
		return 0, fmt.Errorf("ask for bridge: a number of %d bytes", len(data))
	}
	return int(binary.NativeEndian.Uint32(data)), nil
}

func (n *bridgeNode) processes() []process { return nil }
