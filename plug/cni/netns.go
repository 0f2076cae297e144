package cni

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// errNoNamespace is that a path leads to no network namespace.
var errNoNamespace = errors.New("is no network namespace")

// inside runs f in a network namespace, on a thread that ends with it.
func inside(path string, f func() error) error {
	file, err := os.OpenFile(path, os.O_RDONLY|unix.O_NONBLOCK, 0) // a pipe does not wait for a writer
	if err != nil {
		return err
	}
	defer file.Close()
	// ioctl_ns(2). To another file system than that of namespaces the number may mean
	// something else.
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(file.Fd()), &fs); err != nil || fs.Type != unix.NSFS_MAGIC {
		return fmt.Errorf("%s %w", path, errNoNamespace)
	}
	if kind, err := unix.IoctlRetInt(int(file.Fd()), unix.NS_GET_NSTYPE); err != nil || kind != unix.CLONE_NEWNET {
		return fmt.Errorf("%s %w", path, errNoNamespace)
	}
	done := make(chan error)
	go func() { // ends with f
		runtime.LockOSThread() // and never unlocks: the thread is of no use to others
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", path, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// free says whether the container's namespace has room for the interface.
func free(a *skel.CmdArgs) error {
	var taken bool
	err := inside(a.Netns, func() error {
		_, err := netlink.LinkByName(a.IfName)
		var none netlink.LinkNotFoundError
		taken = err == nil
		if errors.As(err, &none) {
			return nil
		}
		return err
	})
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fail(types.ErrUnknownContainer, "CNI_NETNS: the namespace %s of container %s does not exist", a.Netns, a.ContainerID)
	case errors.Is(err, errNoNamespace):
		return fail(types.ErrInvalidEnvironmentVariables, "CNI_NETNS: %v", err)
	case err != nil:
		return fail(types.ErrIOFailure, "look for %s in %s: %v", a.IfName, a.Netns, err)
	case taken:
		return fail(types.ErrInvalidEnvironmentVariables, "CNI_IFNAME: %s exists in %s already", a.IfName, a.Netns)
	}
	return nil
}

// seen is an interface of a container as the kernel has it.
type seen struct {
	mac       net.HardwareAddr
	mtu       int
	up        bool
	addresses []netip.Prefix
	routes    []netlink.Route // of the whole namespace, in the main table
}

// lookAt finds an interface in a namespace.
func lookAt(path, ifname string) (s seen, err error) {
	err = inside(path, func() error {
		link, err := netlink.LinkByName(ifname)
		if err != nil {
			return err
		}
		s.mac, s.mtu, s.up = link.Attrs().HardwareAddr, link.Attrs().MTU, link.Attrs().Flags&net.FlagUp != 0
		addrs, err := netlink.AddrList(link, netlink.FAMILY_ALL)
		if err != nil {
			return fmt.Errorf("list addresses: %w", err)
		}
		for _, a := range addrs {
			if p, ok := prefixOf(*a.IPNet); ok {
				s.addresses = append(s.addresses, p)
			}
		}
		for _, family := range []int{netlink.FAMILY_V4, netlink.FAMILY_V6} {
			routes, err := netlink.RouteList(nil, family)
			if err != nil {
				return fmt.Errorf("list routes: %w", err)
			}
			s.routes = append(s.routes, routes...)
		}
		return nil
	})
	return s, err
}

// leads says whether there is a route to dst, by hop where that is valid.
func (s *seen) leads(dst netip.Prefix, hop netip.Addr) bool {
	for _, r := range s.routes {
		to := everywhere(dst.Addr())
		if r.Dst != nil {
			var ok bool
			if to, ok = prefixOf(*r.Dst); !ok {
				continue
			}
		} else if (r.Family == netlink.FAMILY_V4) != dst.Addr().Is4() {
			continue
		}
		via, _ := netip.AddrFromSlice(r.Gw)
		if to == dst.Masked() && (!hop.IsValid() || via.Unmap() == hop) {
			return true
		}
	}
	return false
}
