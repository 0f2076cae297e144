package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/invoke"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
	"github.com/containernetworking/cni/pkg/version"
)

// delegate runs the network's IPAM plug-in with what this one was given, as the
// specification's section 4 says.
//
// One thing is added: a plug-in that does not speak 1.1.0 (host-local of Debian 12) is
// spoken to in 1.0.0, whose words are the same.
func (n *network) delegate(ctx context.Context, run func(ctx context.Context, conf []byte) error) error {
	ctx, cancel := context.WithTimeout(ctx, delegateLimit)
	defer cancel()
	err := run(ctx, n.raw)
	if incompatible(err) && n.version == "1.1.0" {
		conf, again := n.as("1.0.0")
		if again != nil {
			return again
		}
		err = run(ctx, conf)
	}
	if ctx.Err() != nil {
		return fail(types.ErrTryAgainLater, "ipam %s did not end within %v", n.ipam, delegateLimit)
	}
	if err != nil {
		return fmt.Errorf("ipam %s: %w", n.ipam, err)
	}
	return nil
}

func incompatible(err error) bool {
	var e *types.Error
	return errors.As(err, &e) && e.Code == types.ErrIncompatibleCNIVersion
}

// as is the network configuration in another version.
func (n *network) as(spoken string) ([]byte, error) {
	keys := make(map[string]json.RawMessage, len(n.keys))
	for key, raw := range n.keys {
		keys[key] = raw
	}
	keys["cniVersion"], _ = json.Marshal(spoken)
	conf, err := json.Marshal(keys)
	if err != nil {
		return nil, fail(types.ErrInternal, "encode network configuration: %v", err)
	}
	return conf, nil
}

// delegateAdd returns the addresses that the IPAM plug-in gave.
func (n *network) delegateAdd(ctx context.Context) (*types100.Result, error) {
	var r types.Result
	err := n.delegate(ctx, func(ctx context.Context, conf []byte) (err error) {
		r, err = invoke.DelegateAdd(ctx, n.ipam, conf, nil)
		return err
	})
	if err != nil {
		return nil, err
	}
	text, err := json.Marshal(r)
	if err != nil {
		return nil, fail(types.ErrInternal, "ipam %s: encode its result: %v", n.ipam, err)
	}
	given, err := parseResult(text, r.Version())
	if err != nil {
		return nil, fail(types.ErrDecodingFailure, "ipam %s: its result: %v", n.ipam, err)
	}
	if len(given.IPs) == 0 {
		return given, fail(types.ErrInvalidNetworkConfig, "ipam %s gave no address", n.ipam)
	}
	return given, nil
}

func (n *network) delegateDel(ctx context.Context) error {
	return n.delegate(ctx, func(ctx context.Context, conf []byte) error {
		return invoke.DelegateDel(ctx, n.ipam, conf, nil)
	})
}

func (n *network) delegateCheck(ctx context.Context) error {
	return n.delegate(ctx, func(ctx context.Context, conf []byte) error {
		return invoke.DelegateCheck(ctx, n.ipam, conf, nil)
	})
}

// delegateNew runs a command that came with 1.1.0. A plug-in of before then has nothing to
// say: supported is false.
func (n *network) delegateNew(ctx context.Context, run func(context.Context, string, []byte, invoke.Exec) error) (supported bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, delegateLimit)
	defer cancel()
	paths := pluginPath()
	path, err := invoke.FindInPath(n.ipam, paths)
	if err != nil {
		return false, fail(types.ErrInvalidNetworkConfig, "ipam.type: %v", err)
	}
	info, err := invoke.GetVersionInfo(ctx, path, nil)
	if err == nil && !slices.Contains(info.SupportedVersions(), n.version) {
		return false, nil
	}
	if err == nil {
		err = run(ctx, n.ipam, n.raw, nil)
	}
	if ctx.Err() != nil {
		return true, fail(types.ErrTryAgainLater, "ipam %s did not end within %v", n.ipam, delegateLimit)
	}
	if err != nil {
		return true, fmt.Errorf("ipam %s: %w", n.ipam, err)
	}
	return true, nil
}

// delegateForget releases the addresses of an attachment that is gone, as DEL would have.
func (n *network) delegateForget(ctx context.Context, containerID, ifname string) error {
	return n.delegate(ctx, func(ctx context.Context, conf []byte) error {
		path, err := invoke.FindInPath(n.ipam, pluginPath())
		if err != nil {
			return fail(types.ErrInvalidNetworkConfig, "ipam.type: %v", err)
		}
		return invoke.ExecPluginWithoutResult(ctx, path, conf,
			&invoke.Args{Command: "DEL", ContainerID: containerID, IfName: ifname, Path: strings.Join(pluginPath(), ":")}, nil)
	})
}

// take puts what an IPAM plug-in gave into the plug's options.
func (w *wish) take(given *types100.Result) error {
	var addresses []netip.Prefix
	hops := map[bool]netip.Addr{} // the next hop where a route has none, by Is4
	for _, ip := range given.IPs {
		p, ok := prefixOf(ip.Address)
		if !ok {
			return fail(types.ErrInvalidNetworkConfig, "ipam %s: %v is not an address", w.ipam, ip.Address)
		}
		addresses = append(addresses, p)
		hop, ok := netip.AddrFromSlice(ip.Gateway)
		hop = hop.Unmap()
		if ok && !hop.IsUnspecified() && hop.Is4() == p.Addr().Is4() && !hops[p.Addr().Is4()].IsValid() {
			hops[p.Addr().Is4()] = hop
		}
	}
	for _, r := range given.Routes {
		if _, ok := netip.AddrFromSlice(r.GW); !ok {
			r.GW = hops[r.Dst.IP.To4() != nil].AsSlice()
		}
	}
	routes, defaults, err := routing(given.Routes)
	if err != nil {
		return fail(types.ErrUnsupportedField, "ipam %s: %v", w.ipam, err)
	}
	defaults = slices.DeleteFunc(defaults, func(a netip.Addr) bool { return !a.IsValid() })
	switch {
	case w.gateway != nil && !*w.gateway:
		defaults = nil
	case w.gateway != nil:
		for _, v4 := range []bool{true, false} {
			if hops[v4].IsValid() && !slices.ContainsFunc(defaults, func(a netip.Addr) bool { return a.Is4() == v4 }) {
				defaults = append(defaults, hops[v4])
			}
		}
		if len(defaults) == 0 {
			return fail(types.ErrInvalidNetworkConfig, "isDefaultGateway: ipam %s named no gateway", w.ipam)
		}
	}
	w.options["ip"] = joined(addresses)
	if !w.options.IsSet("gateway") {
		w.options["gateway"] = "none" // IPAM's word, not the bridge's, is what counts
		if len(defaults) > 0 {
			w.options["gateway"] = joined(firsts(defaults))
		}
	}
	if len(routes) > 0 {
		if w.options.IsSet("route") {
			w.options["route"] += ","
		}
		w.options["route"] += joined(routes)
	}
	if w.dns.IsEmpty() {
		w.dns = given.DNS
	}
	return nil
}

// firsts are the first of each family.
func firsts(all []netip.Addr) (some []netip.Addr) {
	for _, a := range all {
		if !slices.ContainsFunc(some, func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			some = append(some, a)
		}
	}
	return some
}

// speaks says whether the network's version is v or later.
func (n *network) speaks(v string) bool {
	ok, err := version.GreaterThanOrEqualTo(n.version, v)
	return err == nil && ok
}
