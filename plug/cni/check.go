package cni

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"vswitch/ctl/api"
)

// check says whether the container is as ADD left it: what the last result lists, the
// attachment at the daemon, and what another IPAM plug-in says.
func check(ctx context.Context, a *skel.CmdArgs) error {
	w, err := read(a.StdinData, a.Args)
	if err != nil {
		return err
	}
	if w.previous == nil {
		return fail(types.ErrInvalidNetworkConfig, "prevResult: required for CHECK")
	}
	if err := w.checkContainer(a); err != nil {
		return err
	}
	if err := w.checkDaemon(ctx, a); err != nil {
		return err
	}
	if w.delegated() {
		return w.delegateCheck(ctx)
	}
	return nil
}

// broken says what is not as it was.
func broken(a *skel.CmdArgs, format string, args ...any) error {
	return fail(codeBroken, "%s of %s: %s", a.IfName, a.ContainerID, fmt.Sprintf(format, args...))
}

// checkContainer looks at the container's end. Plug-ins behind this one may have changed
// it, and have said so in the result.
func (w *wish) checkContainer(a *skel.CmdArgs) error {
	at := slices.IndexFunc(w.previous.Interfaces, func(i *types100.Interface) bool { return i.Name == a.IfName && i.Sandbox != "" })
	if at < 0 {
		return broken(a, "prevResult does not list it")
	}
	want := w.previous.Interfaces[at]
	is, err := lookAt(a.Netns, a.IfName)
	switch {
	case err != nil:
		return broken(a, "%v", err)
	case !is.up:
		return broken(a, "it is down")
	case want.Mac != "" && !strings.EqualFold(want.Mac, is.mac.String()):
		return broken(a, "its MAC address is %s, and was %s", is.mac, want.Mac)
	case want.Mtu != 0 && want.Mtu != is.mtu:
		return broken(a, "its MTU is %d, and was %d", is.mtu, want.Mtu)
	}
	for _, ip := range w.previous.IPs {
		if ip.Interface == nil || *ip.Interface != at {
			continue
		}
		if p, ok := prefixOf(ip.Address); !ok || !slices.Contains(is.addresses, p) {
			return broken(a, "address %s is gone", ip.Address.String())
		}
	}
	for _, r := range w.previous.Routes {
		dst, ok := prefixOf(r.Dst)
		if !ok {
			return broken(a, "prevResult has the route %v", r.Dst)
		}
		hop, _ := netip.AddrFromSlice(r.GW)
		if !is.leads(dst, hop.Unmap()) {
			return broken(a, "the route to %s is gone", dst)
		}
	}
	return nil
}

// checkDaemon asks for the attachment and for its port, which may need a moment after ADD.
func (w *wish) checkDaemon(ctx context.Context, a *skel.CmdArgs) error {
	ctx, cancel := context.WithTimeout(ctx, daemonLimit)
	defer cancel()
	client := w.dial()
	defer client.Close()
	deadline := time.Now().Add(settleLimit)
	for {
		why, settling, err := w.troubled(ctx, client, a)
		if err != nil || why == "" {
			return err
		}
		if !settling || time.Now().After(deadline) {
			return broken(a, "%s", why)
		}
		time.Sleep(settleAgain)
	}
}

// troubled says why an attachment does not carry frames, "" is that it does, and whether
// that may be over soon.
func (w *wish) troubled(ctx context.Context, client *api.Client, a *skel.CmdArgs) (why string, settling bool, err error) {
	all, err := client.Attachments(ctx, w.owner())
	if err != nil {
		return "", false, asked("look for the attachment", err)
	}
	i := slices.IndexFunc(all, func(x api.Attached) bool { return x.Key == key(a.ContainerID, a.IfName) })
	if i < 0 {
		return "the daemon knows of no such attachment", false, nil
	}
	p := all[i].Plug
	switch {
	case p.Bridge != w.bridge:
		return fmt.Sprintf("it is attached to bridge %s, not to %s", p.Bridge, w.bridge), false, nil
	case p.State != api.PlugPlugged:
		return fmt.Sprintf("the plug is %s: %s", p.State, p.Reason), p.State == api.PlugWaiting, nil
	}
	_, ports, err := w.lookPorts(ctx, client)
	if err != nil {
		return "", false, err
	}
	for _, port := range ports {
		if port.Name != p.Port {
			continue
		}
		if port.State != api.PortUp {
			return fmt.Sprintf("port %s is %s: %s", port.Name, port.State, port.Reason), port.State == api.PortWaiting || port.State == api.PortDown, nil
		}
		return "", false, nil
	}
	return fmt.Sprintf("bridge %s has no port %s", w.bridge, p.Port), true, nil
}
