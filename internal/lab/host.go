package lab

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/vishvananda/netlink"
)

// Host is a machine made of a network namespace: its own interfaces, its own
// routes, its own daemon.
type Host struct {
	*Namespace
}

// Host makes a host.
func (l *Lab) Host(name string) *Host {
	l.t.Helper()
	n, err := l.newNamespace(name)
	if err != nil {
		l.t.Fatalf("lab: host %s: %v", name, err)
	}
	return &Host{n}
}

// Container is a network namespace with one interface, eth0, whose other end is
// an interface of the host that a switch can take as a port.
type Container struct {
	*Namespace
	Host *Host
	Veth string           // the host's end
	MAC  net.HardwareAddr // of eth0
	IPs  []netip.Addr     // of eth0, in the order given

	config containerConfig
}

// ContainerOption changes what Container makes.
type ContainerOption func(*containerConfig)

type containerConfig struct {
	addrs  []netip.Prefix
	mtu    int
	mac    net.HardwareAddr
	veth   string
	moved  bool // eth0 was veth before
	queues int
}

// Addr gives eth0 an address, IPv4 or IPv6: Addr("10.0.0.1/24"). Several may be
// given.
func Addr(prefix string) ContainerOption {
	return func(c *containerConfig) { c.addrs = append(c.addrs, netip.MustParsePrefix(prefix)) }
}

// MTU sets the MTU of both ends; 1500 without it.
func MTU(mtu int) ContainerOption { return func(c *containerConfig) { c.mtu = mtu } }

// MAC sets the MAC address of eth0.
func MAC(mac string) ContainerOption {
	hw, err := net.ParseMAC(mac)
	if err != nil {
		panic(err)
	}
	return func(c *containerConfig) { c.mac = hw }
}

// Veth names the host's end; veth-<container> without it.
func Veth(name string) ContainerOption { return func(c *containerConfig) { c.veth = name } }

// Moved makes eth0 of an interface of the host that exists, such as a switch's TAP:
// it moves into the container, and the host has nothing left of it. It is up when the
// switch says so. Veth is its old name; it cannot be unplugged.
func Moved(ifname string) ContainerOption {
	return func(c *containerConfig) { c.veth, c.moved = ifname, true }
}

// Queues sets the number of transmit and receive queues of both ends.
func Queues(n int) ContainerOption { return func(c *containerConfig) { c.queues = n } }

// Container makes a container and its veth pair, both ends up, all offloads at
// the kernel's defaults. Without an address it is silent: see the package comment.
func (h *Host) Container(name string, options ...ContainerOption) *Container {
	h.lab.t.Helper()
	config := containerConfig{mtu: 1500, veth: "veth-" + name}
	for _, option := range options {
		option(&config)
	}
	c := &Container{Host: h, Veth: config.veth, config: config}
	if len(c.Veth) > 15 {
		h.lab.t.Fatalf("lab: container %s: interface name %q is longer than 15 bytes; give a shorter one with lab.Veth", name, c.Veth)
	}
	var err error
	short := strings.TrimPrefix(h.Name, h.lab.name+"-")
	if c.Namespace, err = h.lab.newNamespace(short + "." + name); err != nil {
		h.lab.t.Fatalf("lab: container %s: %v", name, err)
	}
	for _, prefix := range config.addrs {
		c.IPs = append(c.IPs, prefix.Addr())
	}
	if err := c.plug(); err != nil {
		h.lab.t.Fatalf("lab: container %s: %v", name, err)
	}
	return c
}

// IP returns the container's first address, which must exist.
func (c *Container) IP() string { return c.IPs[0].String() }

// Unplug deletes the veth pair, as a container runtime does when a container
// stops.
func (c *Container) Unplug() {
	c.lab.t.Helper()
	err := c.Host.Do(func() error {
		link, err := netlink.LinkByName(c.Veth)
		if err != nil {
			return err
		}
		return netlink.LinkDel(link)
	})
	if err != nil {
		c.lab.t.Fatalf("lab: unplug %s: %v", c.Veth, err)
	}
}

// Replug makes the veth pair again under the same name, with the same addresses
// and the same MAC address.
func (c *Container) Replug() {
	c.lab.t.Helper()
	c.config.mac = c.MAC
	if err := c.plug(); err != nil {
		c.lab.t.Fatalf("lab: plug %s again: %v", c.Veth, err)
	}
}

// plug makes and configures the veth pair.
func (c *Container) plug() error {
	err := c.Host.Do(func() error {
		if c.config.moved {
			return c.move()
		}
		attrs := netlink.NewLinkAttrs()
		attrs.Name, attrs.MTU = c.config.veth, c.config.mtu
		attrs.NumTxQueues, attrs.NumRxQueues = c.config.queues, c.config.queues
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerMTU = "eth0", uint32(c.config.mtu)
		veth.PeerNumTxQueues, veth.PeerNumRxQueues = uint32(c.config.queues), uint32(c.config.queues)
		veth.PeerNamespace = netlink.NsFd(c.fd)
		veth.PeerHardwareAddr = c.config.mac
		if err := netlink.LinkAdd(veth); err != nil {
			return fmt.Errorf("add veth pair %s: %w", c.config.veth, err)
		}
		if err := quietIPv6(c.config.veth); err != nil {
			return err
		}
		return up(c.config.veth)
	})
	if err != nil {
		return err
	}
	err = c.Do(func() error {
		link, err := netlink.LinkByName("eth0")
		if err != nil {
			return err
		}
		c.MAC = link.Attrs().HardwareAddr
		if err := addAddresses("eth0", c.config.addrs); err != nil {
			return err
		}
		return up("eth0")
	})
	if err != nil {
		return err
	}
	if c.config.moved {
		return nil // a TAP says nothing of its state
	}
	return errors.Join(c.running("eth0"), c.Host.running(c.Veth))
}

// move makes eth0 of the host's interface.
func (c *Container) move() error {
	link, err := netlink.LinkByName(c.config.veth)
	if err != nil {
		return fmt.Errorf("find %s: %w", c.config.veth, err)
	}
	if err := netlink.LinkSetMTU(link, c.config.mtu); err != nil {
		return fmt.Errorf("set MTU of %s: %w", c.config.veth, err)
	}
	if err := netlink.LinkSetNsFd(link, c.fd); err != nil {
		return fmt.Errorf("move %s: %w", c.config.veth, err)
	}
	return c.Do(func() error {
		link, err := netlink.LinkByName(c.config.veth)
		if err != nil {
			return err
		}
		if c.config.mac != nil {
			if err := netlink.LinkSetHardwareAddr(link, c.config.mac); err != nil {
				return fmt.Errorf("set MAC address of %s: %w", c.config.veth, err)
			}
		}
		return netlink.LinkSetName(link, "eth0")
	})
}

// running waits until an interface really sends: a veth's end whose peer came up
// drops what it is given until the kernel's link watch has seen that.
func (n *Namespace) running(name string) error {
	return Wait(5*time.Second, func() error {
		link, err := n.Link(name)
		if err != nil {
			return err
		}
		if state := link.Attrs().OperState; state != netlink.OperUp {
			return fmt.Errorf("%s in %s is %s", name, n.Name, state)
		}
		return nil
	})
}

// Wire joins two namespaces with a veth pair, such as the underlay of two hosts:
// a's end is named nameA and has address addrA (none where empty), and so b's.
func (l *Lab) Wire(a *Namespace, nameA, addrA string, b *Namespace, nameB, addrB string) {
	l.t.Helper()
	err := a.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = nameA
		veth := netlink.NewVeth(attrs)
		veth.PeerName, veth.PeerNamespace = nameB, netlink.NsFd(b.fd)
		return netlink.LinkAdd(veth)
	})
	for _, end := range []struct {
		in         *Namespace
		name, addr string
	}{{a, nameA, addrA}, {b, nameB, addrB}} {
		if err == nil {
			err = end.in.Do(func() error {
				if end.addr != "" {
					addr, err := netlink.ParseAddr(end.addr)
					if err != nil {
						return err
					}
					link, err := netlink.LinkByName(end.name)
					if err != nil {
						return err
					}
					if err := netlink.AddrAdd(link, addr); err != nil {
						return err
					}
				}
				return up(end.name)
			})
		}
	}
	if err == nil {
		err = errors.Join(a.running(nameA), b.running(nameB))
	}
	if err != nil {
		l.t.Fatalf("lab: wire %s to %s: %v", nameA, nameB, err)
	}
}

// KernelBridge makes a Linux bridge of the host's interfaces: the peer that is
// always there. Spanning tree, multicast snooping and IPv6 are off, so that it
// says nothing of its own.
func (h *Host) KernelBridge(name string, ports ...string) {
	h.lab.t.Helper()
	err := h.Do(func() error {
		attrs := netlink.NewLinkAttrs()
		attrs.Name = name
		off := false
		bridge := &netlink.Bridge{LinkAttrs: attrs, MulticastSnooping: &off}
		if err := netlink.LinkAdd(bridge); err != nil {
			return err
		}
		if err := quietIPv6(name); err != nil {
			return err
		}
		for _, port := range ports {
			link, err := netlink.LinkByName(port)
			if err != nil {
				return err
			}
			if err := netlink.LinkSetMaster(link, bridge); err != nil {
				return fmt.Errorf("add port %s: %w", port, err)
			}
			if err := netlink.LinkSetUp(link); err != nil {
				return err
			}
		}
		return up(name)
	})
	if err != nil {
		h.lab.t.Fatalf("lab: kernel bridge %s: %v", name, err)
	}
}

// addAddresses gives an interface of this namespace its addresses. With an IPv6
// address it has no link-local one; without, it has no IPv6.
func addAddresses(name string, prefixes []netip.Prefix) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		err = sysctl("net/ipv6/conf/"+name+"/addr_gen_mode", "1") // 1 is: no link-local address
	} else {
		err = quietIPv6(name)
	}
	if err != nil {
		return err
	}
	for _, prefix := range prefixes {
		addr := &netlink.Addr{IPNet: &net.IPNet{
			IP:   prefix.Addr().AsSlice(),
			Mask: net.CIDRMask(prefix.Bits(), prefix.Addr().BitLen()),
		}}
		if err := netlink.AddrAdd(link, addr); err != nil {
			return fmt.Errorf("add address %s to %s: %w", prefix, name, err)
		}
	}
	return nil
}

// quietIPv6 turns IPv6 off on an interface, where the kernel has it.
func quietIPv6(name string) error {
	err := sysctl("net/ipv6/conf/"+name+"/disable_ipv6", "1")
	if os.IsNotExist(err) {
		return nil
	}
	return err
}

func up(name string) error {
	link, err := netlink.LinkByName(name)
	if err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fmt.Errorf("set %s up: %w", name, err)
	}
	return nil
}
