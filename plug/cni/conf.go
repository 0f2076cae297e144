package cni

import (
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

// network is what every command must know of a network configuration: where its daemon is,
// and who has its addresses.
type network struct {
	version string // of the specification
	name    string
	bridge  string
	socket  string
	ipam    string // noIPAM, ourIPAM, or the name of another plug-in
	raw     []byte // all of it, for the plug-in it is delegated to
	keys    map[string]json.RawMessage
}

// Who has the addresses.
const (
	noIPAM  = ""        // "ipam": {}: nobody, frames are all there is
	ourIPAM = "vswitch" // leases of the bridge's subnet
)

// wish is what ADD must know besides.
type wish struct {
	*network
	options  config.Options // of a plug port
	from     map[string]string
	ips      []string // addresses that the runtime asked for, with and without a prefix length
	gateway  *bool    // isDefaultGateway; nil: not said
	dns      types.DNS
	previous *types100.Result // of plug-ins before this one; nil: there are none
}

// ours are the keys of this plug-in, and what reads them, in the order of docs/cni.md.
var ours = map[string]func(*wish, string, json.RawMessage) error{
	"vlan":             option("tag"),
	"trunks":           option("trunks"),
	"mtu":              option("mtu"),
	"mac":              option("mac"),
	"gateway":          option("gateway"),
	"options":          (*wish).readOptions,
	"routes":           (*wish).readRoutes,
	"isDefaultGateway": (*wish).readDefaultGateway,
	"ipMasq":           (*wish).readMasquerade,
	"dns":              (*wish).readDNS,
	"runtimeConfig":    (*wish).readRuntime,
}

// others are keys that somebody else reads: the runtime, skel, or identify.
var others = []string{"cniVersion", "cniVersions", "name", "type", "capabilities", "args", "prevResult",
	"bridge", "socket", "ipam", "disableCheck", "disableGC"}

// plugins is what a plug-in's file may be called: nothing that leads out of CNI_PATH.
var plugins = regexp.MustCompile(`^[a-zA-Z0-9][a-zA-Z0-9._-]{0,62}$`)

// identify reads what every command needs. What only ADD needs is not judged: DEL must
// work with a configuration that was changed, or that another version wrote.
func identify(conf []byte) (*network, error) {
	n := &network{socket: api.DefaultSocket, ipam: ourIPAM, raw: conf}
	if err := json.Unmarshal(conf, &n.keys); err != nil {
		return nil, fail(types.ErrDecodingFailure, "decode network configuration: %v", err)
	}
	for _, s := range []struct {
		key string
		to  *string
	}{{"cniVersion", &n.version}, {"name", &n.name}, {"bridge", &n.bridge}, {"socket", &n.socket}} {
		if err := n.text(s.key, s.to); err != nil {
			return nil, err
		}
	}
	if n.name == "" {
		return nil, fail(types.ErrInvalidNetworkConfig, "name: the network has none")
	}
	if !filepath.IsAbs(n.socket) {
		return nil, fail(types.ErrInvalidNetworkConfig, "socket: %q is not a path from the root: want one such as %s", n.socket, api.DefaultSocket)
	}
	return n, n.readIPAM()
}

// text reads a string that need not be there.
func (n *network) text(key string, to *string) error {
	raw, ok := n.keys[key]
	if !ok {
		return nil
	}
	var s *string
	if json.Unmarshal(raw, &s) != nil || s == nil {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is not a string", key, quoted(raw))
	}
	*to = *s
	return nil
}

func (n *network) readIPAM() error {
	raw, ok := n.keys["ipam"]
	if !ok || string(raw) == "null" {
		return nil
	}
	var keys map[string]json.RawMessage
	if json.Unmarshal(raw, &keys) != nil {
		return fail(types.ErrInvalidNetworkConfig, "ipam: %s is not an object", quoted(raw))
	}
	n.ipam = noIPAM
	if len(keys) == 0 {
		return nil
	}
	if json.Unmarshal(keys["type"], &n.ipam) != nil || !plugins.MatchString(n.ipam) {
		return fail(types.ErrInvalidNetworkConfig,
			"ipam.type: %s is not the name of a plug-in: want %s, another such as host-local, or an empty ipam for no addresses", quoted(keys["type"]), ourIPAM)
	}
	var self string
	if json.Unmarshal(n.keys["type"], &self) == nil && n.ipam == self {
		return fail(types.ErrInvalidNetworkConfig, "ipam.type: %q is this plug-in: want %s for the addresses of the bridge", self, ourIPAM)
	}
	if n.ipam != ourIPAM {
		return nil
	}
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		if key != "type" {
			return fail(types.ErrUnsupportedField, "ipam.%s: %s is not for the network to say: the subnet is the bridge's (vswitchctl set-br %s ipam.subnet=…)",
				key, quoted(keys[key]), n.bridge)
		}
	}
	return nil
}

// delegated says whether another plug-in has the addresses.
func (n *network) delegated() bool { return n.ipam != noIPAM && n.ipam != ourIPAM }

// needBridge is for the commands that cannot do without.
func (n *network) needBridge() error {
	if n.bridge == "" {
		return fail(types.ErrInvalidNetworkConfig, "bridge: required: the name of a bridge of vswitchd")
	}
	return nil
}

// read reads all of a network configuration, and of CNI_ARGS.
func read(conf []byte, args string) (*wish, error) {
	n, err := identify(conf)
	if err != nil {
		return nil, err
	}
	if err := n.needBridge(); err != nil {
		return nil, err
	}
	w := &wish{network: n, options: config.Options{}, from: map[string]string{}}
	for _, key := range slices.Sorted(maps.Keys(n.keys)) {
		switch reader := ours[key]; {
		case reader != nil:
			if string(n.keys[key]) == "null" {
				continue
			}
			if err := reader(w, key, n.keys[key]); err != nil {
				return nil, err
			}
		case !slices.Contains(others, key) && !strings.HasPrefix(key, "cni.dev/"):
			return nil, fail(types.ErrUnsupportedField, "%s: %s is not understood: keys are bridge, socket, ipam, %s",
				key, quoted(n.keys[key]), strings.Join(slices.Sorted(maps.Keys(ours)), ", "))
		}
	}
	if err := w.readArgs(args); err != nil {
		return nil, err
	}
	if by, set := w.from["gateway"]; set && w.gateway != nil && !*w.gateway && w.options["gateway"] != "none" {
		return nil, fail(types.ErrInvalidNetworkConfig, "isDefaultGateway: false, but %s says %s", by, w.options["gateway"])
	}
	w.previous, err = previous(n)
	return w, err
}

// set gives the plug an option, and says so where it has it already.
func (w *wish) set(key, name, value string) error {
	row, err := config.Lookup(config.PlugPort, name)
	if err != nil {
		return wrong(key, err)
	}
	if value, err = row.Canonical(value); err != nil {
		return wrong(key, err)
	}
	if by, twice := w.from[name]; twice {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is given by %s already", key, name, by)
	}
	w.options[name], w.from[name] = value, key
	return nil
}

// option reads a key that is an option of a plug port by another name.
func option(name string) func(*wish, string, json.RawMessage) error {
	return func(w *wish, key string, raw json.RawMessage) error {
		value, ok := scalars(raw)
		if !ok {
			return fail(types.ErrInvalidNetworkConfig, "%s: %s is not a string, a number or a list of them", key, quoted(raw))
		}
		return w.set(key, name, value)
	}
}

// scalars is a string, number, bool or a list of them, as an option is written.
func scalars(raw json.RawMessage) (string, bool) {
	var list []json.RawMessage
	if json.Unmarshal(raw, &list) != nil {
		list = []json.RawMessage{raw}
	}
	words := make([]string, len(list))
	for i, one := range list {
		switch {
		case len(one) == 0:
			return "", false
		case one[0] == '"':
			if json.Unmarshal(one, &words[i]) != nil {
				return "", false
			}
		case one[0] == '{' || one[0] == '[' || string(one) == "null":
			return "", false
		default:
			words[i] = string(one)
		}
	}
	return strings.Join(words, ","), true
}

func (w *wish) readOptions(key string, raw json.RawMessage) error {
	var options map[string]json.RawMessage
	if json.Unmarshal(raw, &options) != nil {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is not an object", key, quoted(raw))
	}
	for _, name := range slices.Sorted(maps.Keys(options)) {
		path := key + "." + name
		switch {
		case name == "container" || name == "ifname":
			return fail(types.ErrUnsupportedField, "%s: %s is for the runtime to say", path, quoted(options[name]))
		case name == "ip" && w.ipam != ourIPAM:
			return fail(types.ErrUnsupportedField, "%s: %s: addresses are given by ipam", path, quoted(options[name]))
		}
		if err := option(name)(w, path, options[name]); err != nil {
			return err
		}
	}
	return nil
}

func (w *wish) readDefaultGateway(key string, raw json.RawMessage) error {
	if json.Unmarshal(raw, &w.gateway) != nil {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is not true or false", key, quoted(raw))
	}
	return nil
}

// readMasquerade takes no for an answer only: who masquerades is for the bridge to say,
// for all of its containers.
func (w *wish) readMasquerade(key string, raw json.RawMessage) error {
	if string(raw) == "false" {
		return nil
	}
	return fail(types.ErrUnsupportedField, "%s: %s is not for a network to say: vswitchctl set-br %s ip=… nat=masquerade", key, quoted(raw), w.bridge)
}

func (w *wish) readDNS(key string, raw json.RawMessage) error {
	if err := json.Unmarshal(raw, &w.dns); err != nil {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is not a DNS configuration: %v", key, quoted(raw), err)
	}
	return nil
}

// readRoutes reads routes as IPAM plug-ins write them.
func (w *wish) readRoutes(key string, raw json.RawMessage) error {
	var list []*types.Route
	if err := json.Unmarshal(raw, &list); err != nil {
		return fail(types.ErrInvalidNetworkConfig, "%s: %s is not a list of routes: %v", key, quoted(raw), err)
	}
	routes, defaults, err := routing(list)
	if err != nil {
		return wrong(key, err)
	}
	unsaid := len(defaults)
	defaults = slices.DeleteFunc(defaults, func(a netip.Addr) bool { return !a.IsValid() })
	if unsaid > len(defaults) && w.gateway == nil {
		yes := true
		w.gateway = &yes
	}
	if len(defaults) > 0 {
		if err := w.set(key, "gateway", joined(defaults)); err != nil {
			return err
		}
	}
	if len(routes) > 0 {
		return w.set(key, "route", joined(routes))
	}
	return nil
}

// routing tells default routes, by their next hops, from all others. A next hop that is
// not given is none.
func routing(list []*types.Route) (routes []config.Route, defaults []netip.Addr, err error) {
	for _, r := range list {
		if r == nil {
			return nil, nil, fmt.Errorf("a route is null")
		}
		dst, ok := prefixOf(r.Dst)
		if !ok {
			return nil, nil, fmt.Errorf("%v is not a network", r.Dst)
		}
		via, _ := netip.AddrFromSlice(r.GW)
		via = via.Unmap()
		if via.IsValid() && via.Is4() != dst.Addr().Is4() {
			return nil, nil, fmt.Errorf("the route to %s leads by %s, of the other family", dst, via)
		}
		for _, x := range []struct {
			name string
			set  bool
		}{{"mtu", r.MTU != 0}, {"advmss", r.AdvMSS != 0}, {"priority", r.Priority != 0},
			{"table", r.Table != nil && *r.Table != 254}, {"scope", r.Scope != nil && *r.Scope != 0}} {
			if x.set {
				return nil, nil, fmt.Errorf("the route to %s has a %s, which routes cannot have here", dst, x.name)
			}
		}
		if dst.Bits() == 0 {
			defaults = append(defaults, via)
			continue
		}
		routes = append(routes, config.Route{Dst: dst.Masked(), Via: via})
	}
	return routes, defaults, nil
}

func joined[T fmt.Stringer](list []T) string {
	words := make([]string, len(list))
	for i, x := range list {
		words[i] = x.String()
	}
	return strings.Join(words, ",")
}
