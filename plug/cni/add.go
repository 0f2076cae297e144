package cni

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/skel"
	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

// pluginPath is where other plug-ins are.
func pluginPath() []string { return filepath.SplitList(os.Getenv("CNI_PATH")) }

// add plugs the container in, and leaves nothing when it fails: no attachment, and no
// address of another IPAM plug-in.
func add(ctx context.Context, a *skel.CmdArgs, out io.Writer) (err error) {
	w, err := read(a.StdinData, a.Args)
	if err != nil {
		return err
	}
	// Before anything is asked for: what a second ADD undid when it fails would be the
	// first one's. The specification wants an error, too.
	if err := free(a); err != nil {
		return err
	}
	client := w.dial()
	defer client.Close()
	bridge, err := w.look(ctx, client)
	if err != nil {
		return err
	}

	var given *types100.Result
	if w.delegated() {
		defer func() {
			if err != nil {
				err = undone(err, w.delegateDel(ctx))
			}
		}()
		if given, err = w.delegateAdd(ctx); err != nil {
			return err
		}
		err = w.take(given)
	} else {
		err = w.lease(bridge)
	}
	if err != nil {
		return err
	}

	q := api.Attachment{Owner: w.owner(), Key: key(a.ContainerID, a.IfName), Bridge: w.bridge, NetNS: a.Netns, IfName: a.IfName, Options: w.options}
	defer func() {
		if err != nil {
			err = undone(err, asked("detach "+q.Key, client.Detach(ctx, q.Owner, q.Key)))
		}
	}()
	what := fmt.Sprintf("attach %s of %s to bridge %s", a.IfName, a.ContainerID, w.bridge)
	got, err := client.Attach(ctx, q)
	if err != nil {
		return asked(what, err)
	}
	if got, err = w.settled(ctx, client, got); err != nil {
		return err
	}
	if got.Plug.State != api.PlugPlugged {
		return fail(codeRefused, "%s: it is %s: %s", what, got.Plug.State, got.Plug.Reason)
	}
	r, err := spokenAs(w.result(a, &got.Plug, bridge, given), w.version)
	if err != nil {
		return err
	}
	return write(out, r)
}

// settled waits a moment for an attachment that is made, but not at this moment: many are
// made at once, and each changes what is there.
func (n *network) settled(ctx context.Context, client *api.Client, is api.Attached) (api.Attached, error) {
	for deadline := time.Now().Add(settleLimit); is.Plug.State == api.PlugWaiting && time.Now().Before(deadline); {
		time.Sleep(settleAgain)
		all, err := client.Attachments(ctx, n.owner())
		if err != nil {
			return is, asked("look for the attachment", err)
		}
		i := slices.IndexFunc(all, func(x api.Attached) bool { return x.Key == is.Key })
		if i < 0 {
			return is, fail(codeRefused, "attachment %s was ended by somebody else", is.Key)
		}
		is = all[i]
	}
	return is, nil
}

// undone adds to an error that what was done could not be undone. Who says the same both
// times, such as a plug-in that is missing or cannot read its keys, did nothing.
func undone(err, undo error) error {
	if undo == nil || undo.Error() == err.Error() {
		return err
	}
	return errors.Join(err, fmt.Errorf("and what was done is not undone: %w", undo))
}

// look finds the bridge as the daemon has it. Its ports are left out.
func (n *network) look(ctx context.Context, client *api.Client) (*config.Bridge, error) {
	b, _, err := n.lookPorts(ctx, client)
	return b, err
}

func (n *network) lookPorts(ctx context.Context, client *api.Client) (*config.Bridge, []api.PortStatus, error) {
	st, err := client.Status(ctx, n.bridge)
	var refused *api.Error
	if errors.As(err, &refused) && refused.Status == 404 {
		return nil, nil, fail(types.ErrInvalidNetworkConfig, "bridge: there is no %q: make it with vswitchctl add-br %[1]s", n.bridge)
	}
	if err != nil {
		return nil, nil, asked("look for bridge "+n.bridge, err)
	}
	for _, b := range st.Bridges {
		if b.Name == n.bridge {
			return &config.Bridge{Name: b.Name, Options: plain(b.Options)}, b.Ports, nil
		}
	}
	return nil, nil, fail(types.ErrInvalidNetworkConfig, "bridge: there is no %q: make it with vswitchctl add-br %[1]s", n.bridge)
}

// plain turns options as a status shows them into the document's.
func plain(typed map[string]any) config.Options {
	o := make(config.Options, len(typed))
	for name, v := range typed {
		switch v := v.(type) {
		case string:
			o[name] = v
		case bool:
			o[name] = strconv.FormatBool(v)
		case float64:
			o[name] = strconv.FormatFloat(v, 'f', -1, 64)
		}
	}
	return o
}

// lease says in the plug's options which addresses and default routes the daemon gives.
func (w *wish) lease(b *config.Bridge) error {
	pools := b.Pools()
	pool := func(v4 bool) *config.Pool {
		i := slices.IndexFunc(pools, func(p config.Pool) bool { return p.Subnet.Addr().Is4() == v4 })
		if i < 0 {
			return nil
		}
		return &pools[i]
	}
	if w.ipam == noIPAM {
		if len(w.ips) > 0 {
			return fail(types.ErrInvalidNetworkConfig, "ips: %s was asked for, but ipam is empty: the network has no addresses", w.ips[0])
		}
		if w.gateway != nil && *w.gateway && !w.options.IsSet("gateway") {
			return fail(types.ErrInvalidNetworkConfig, "isDefaultGateway: true, but ipam is empty: without an address there is no default route")
		}
		if !w.options.IsSet("gateway") {
			w.options["gateway"] = "none"
		}
		return nil
	}
	if len(w.ips) > 0 {
		if by, twice := w.from["ip"]; twice {
			return fail(types.ErrInvalidNetworkConfig, "%s: the runtime asked for %s", by, w.ips[0])
		}
		var words []string
		var families [2]bool
		for _, text := range w.ips {
			addr, bits, _ := parseIP(text)
			p := pool(addr.Is4())
			if bits < 0 && (p == nil || !p.Subnet.Contains(addr)) {
				return fail(types.ErrInvalidNetworkConfig, "ips: %s is in no subnet of bridge %s, and has no prefix length", text, w.bridge)
			}
			if bits < 0 {
				bits = p.Subnet.Bits()
			}
			words = append(words, netip.PrefixFrom(addr, bits).String())
			families[btoi(addr.Is4())] = true
		}
		if !families[1] && pool(true) != nil {
			words = append(words, "auto4")
		}
		if !families[0] && pool(false) != nil {
			words = append(words, "auto6")
		}
		if err := w.set("ips", "ip", strings.Join(words, ",")); err != nil {
			return err
		}
	}
	if !w.options.IsSet("ip") {
		w.options["ip"] = "auto"
		if len(pools) == 0 {
			return fail(types.ErrInvalidNetworkConfig, "ipam: bridge %s has no subnet to take an address of: vswitchctl set-br %[1]s ipam.subnet=…", w.bridge)
		}
	}
	switch {
	case w.gateway == nil || w.options.IsSet("gateway"):
	case !*w.gateway:
		w.options["gateway"] = "none"
	default:
		var all []netip.Addr
		for _, p := range pools {
			if p.Gateway.IsValid() {
				all = append(all, p.Gateway)
			}
		}
		if len(all) == 0 {
			return fail(types.ErrInvalidNetworkConfig, "isDefaultGateway: bridge %s has no gateway: vswitchctl set-br %[1]s ip=…, or ipam.gateway=…", w.bridge)
		}
		w.options["gateway"] = joined(all)
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// result is what is there now, behind what was there before.
func (w *wish) result(a *skel.CmdArgs, p *api.PlugStatus, b *config.Bridge, given *types100.Result) *types100.Result {
	r := &types100.Result{CNIVersion: types100.ImplementedSpecVersion}
	if w.previous != nil {
		r.Interfaces, r.IPs, r.Routes, r.DNS = w.previous.Interfaces, w.previous.IPs, w.previous.Routes, w.previous.DNS
	}
	host := &types100.Interface{Name: p.Port}
	// The daemon may be in another namespace than this plug-in; then only the name is known.
	if l, err := net.InterfaceByName(p.Port); err == nil {
		host.Mac, host.Mtu = l.HardwareAddr.String(), l.MTU
	}
	inside := len(r.Interfaces) + 1
	r.Interfaces = append(r.Interfaces, host, &types100.Interface{Name: a.IfName, Mac: p.MAC, Mtu: p.MTU, Sandbox: a.Netns})

	for _, addr := range p.Addresses {
		r.IPs = append(r.IPs, &types100.IPConfig{Interface: types100.Int(inside), Address: ipNet(addr), Gateway: w.gatewayOf(addr, p, b, given)})
	}
	for _, hop := range w.led(a, p.Gateways) {
		r.Routes = append(r.Routes, &types.Route{Dst: ipNet(everywhere(hop)), GW: hop.AsSlice()})
	}
	port := config.Port{Type: string(config.PlugPort), Options: config.Options{"route": w.options["route"]}}
	if g, ok := port.Plug(); ok {
		for _, route := range g.Routes {
			r.Routes = append(r.Routes, &types.Route{Dst: ipNet(route.Dst), GW: route.Via.AsSlice()})
		}
	}
	switch {
	case !w.dns.IsEmpty():
		r.DNS = w.dns
	case r.DNS.IsEmpty() && answersNames(b) && !w.elsewhere(b):
		for _, own := range b.Options.Prefixes("ip") {
			if slices.ContainsFunc(p.Addresses, func(a netip.Prefix) bool { return a.Masked().Contains(own.Addr()) }) {
				r.DNS.Nameservers = append(r.DNS.Nameservers, own.Addr().String())
			}
		}
	}
	return r
}

// answersNames says whether the daemon answers names at the bridge's own addresses: where it
// is its containers' gateway, or has their subnet, and the operator did not say dns=false.
func answersNames(b *config.Bridge) bool {
	return b.Options.Bool("dns") && (b.Options.Text("nat") == "masquerade" || b.Options.IsSet("ipam.subnet"))
}

// elsewhere says whether the container is in another VLAN than the bridge's own addresses,
// which it does not reach.
func (w *wish) elsewhere(b *config.Bridge) bool {
	vlan := func(o config.Options) string { return strings.TrimPrefix(o["tag"], "0") } // 0 is none
	return vlan(w.options) != vlan(b.Options)
}

// led are the next hops of default routes that are there. The bridge's gateway is one only
// where the container had none before, from a plug-in before this one.
func (w *wish) led(a *skel.CmdArgs, hops []netip.Addr) []netip.Addr {
	if w.options.IsSet("gateway") {
		return hops
	}
	is, err := lookAt(a.Netns, a.IfName)
	if err != nil {
		return hops // CHECK will tell
	}
	return slices.DeleteFunc(slices.Clone(hops), func(hop netip.Addr) bool { return !is.leads(everywhere(hop), hop) })
}

// gatewayOf is the gateway of an address's subnet, whether a route leads there or not.
func (w *wish) gatewayOf(addr netip.Prefix, p *api.PlugStatus, b *config.Bridge, given *types100.Result) net.IP {
	if given != nil {
		for _, ip := range given.IPs {
			if q, ok := prefixOf(ip.Address); ok && q == addr {
				return ip.Gateway
			}
		}
		return nil
	}
	for _, hop := range p.Gateways {
		if addr.Masked().Contains(hop) {
			return hop.AsSlice()
		}
	}
	if w.elsewhere(b) && !b.Options.IsSet("ipam.gateway") {
		return nil
	}
	for _, pool := range b.Pools() {
		if pool.Subnet == addr.Masked() && pool.Gateway.IsValid() {
			return pool.Gateway.AsSlice()
		}
	}
	return nil
}
