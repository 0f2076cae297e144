package main

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) completion(root *cobra.Command) *cobra.Command {
	shells := map[string]func() error{
		"bash": func() error { return root.GenBashCompletionV2(a.out, true) },
		"zsh":  func() error { return root.GenZshCompletion(a.out) },
		"fish": func() error { return root.GenFishCompletion(a.out, true) },
	}
	return &cobra.Command{
		Use:       "completion bash|zsh|fish",
		Short:     "Print the script that completes verbs, bridges, ports and options in a shell",
		Example:   "  source <(vswitchctl completion bash)",
		Args:      between(1, 1),
		ValidArgs: []string{"bash", "zsh", "fish"},
		RunE: func(cmd *cobra.Command, args []string) error {
			write, ok := shells[args[0]]
			if !ok {
				return &usageError{fmt.Sprintf("%q: there is completion for bash, zsh and fish", args[0]), cmd}
			}
			return write()
		},
	}
}

// completionTimeout is what a user who pressed TAB waits for a daemon at most.
const completionTimeout = 500 * time.Millisecond

// completer offers words for the argument that is typed, given those before it.
type completer func(before []string) []string

// complete offers the n-th completer's words for the n-th argument; the last one
// serves all arguments after it if it offers options (words that end with "=").
func (a *app) complete(by ...completer) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
		offered := by[min(len(args), len(by)-1)](args)
		if len(args) >= len(by) {
			offered = slices.DeleteFunc(offered, func(s string) bool { return !strings.Contains(s, "=") })
		}
		directive := cobra.ShellCompDirectiveNoFileComp
		var out []string
		name, _, hasValue := strings.Cut(typed, "=")
		for _, s := range offered {
			key, value, isOption := strings.Cut(s, "=")
			switch {
			case !strings.HasPrefix(s, typed):
			case isOption && slices.ContainsFunc(args, func(arg string) bool { return strings.HasPrefix(arg, key+"=") }):
			case isOption && value != "" && (!hasValue || name != key): // values only after their name
			default:
				if strings.HasSuffix(s, "=") {
					directive |= cobra.ShellCompDirectiveNoSpace
				}
				out = append(out, s)
			}
		}
		return out, directive
	}
}

func nothing([]string) []string { return nil }

func words(w ...string) completer { return func([]string) []string { return w } }

// status asks the daemon, and knows nothing when it does not answer quickly.
func (a *app) status() api.Status {
	c := api.NewClient(a.socket, completionTimeout)
	defer c.Close()
	st, err := c.Status(context.Background(), "")
	if err != nil {
		return api.Status{}
	}
	return st
}

func (a *app) bridges([]string) []string {
	var names []string
	for _, b := range a.status().Bridges {
		names = append(names, b.Name)
	}
	return names
}

// portsOf lists the ports of one bridge, or of all; the local ones only if asked.
func portsOf(st api.Status, bridge string, local bool) []string {
	var names []string
	for _, b := range st.Bridges {
		for _, p := range b.Ports {
			if (bridge == "" || b.Name == bridge) && (local || p.Type != "local") {
				names = append(names, p.Name)
			}
		}
	}
	return names
}

// ports are those of the bridge that was typed first.
func (a *app) ports(before []string) []string { return portsOf(a.status(), arg(before, 0), true) }

// allPorts are those that a user added: a ':' is in the names of meshes' ports alone.
func (a *app) allPorts([]string) []string {
	return slices.DeleteFunc(portsOf(a.status(), "", false), func(name string) bool { return strings.Contains(name, ":") })
}

func (a *app) bridgesAndPorts([]string) []string {
	return append(a.allPorts(nil), a.bridges(nil)...)
}

// bridgesAndTunnels are what tunnel show takes.
func (a *app) bridgesAndTunnels([]string) []string {
	var names []string
	for _, b := range a.status().Bridges {
		names = append(names, b.Name)
		for _, p := range b.Ports {
			if isTunnel(p.Type) {
				names = append(names, p.Name)
			}
		}
	}
	return names
}

func (a *app) meshStatus(name string) []api.MeshStatus {
	c := api.NewClient(a.socket, completionTimeout)
	defer c.Close()
	meshes, _ := c.Meshes(context.Background(), name)
	return meshes
}

func (a *app) meshes([]string) []string {
	var names []string
	for _, m := range a.meshStatus("") {
		names = append(names, m.Name)
	}
	return names
}

func (a *app) meshOptions([]string) []string { return a.optionWords(config.MeshObject, nil) }

// meshChanges are a mesh's options and the two ways to change its list of peers.
func (a *app) meshChanges(before []string) []string {
	out := append(a.meshOptions(before), "peers+=", "peers-=")
	for _, m := range a.meshStatus(arg(before, 0)) {
		for _, p := range m.Peers {
			out = append(out, "peers-="+p.Peer)
		}
	}
	return out
}

func (a *app) mirrors(before []string) []string {
	var names []string
	for _, b := range a.status().Bridges {
		for _, m := range b.Mirrors {
			if b.Name == arg(before, 0) {
				names = append(names, m.Name)
			}
		}
	}
	return names
}

func (a *app) macs(before []string) []string {
	c := api.NewClient(a.socket, completionTimeout)
	defer c.Close()
	entries, _ := c.FDB(context.Background(), api.FDBQuery{Bridge: arg(before, 0), VLAN: -1})
	var macs []string
	for _, e := range entries {
		macs = append(macs, e.MAC)
	}
	return macs
}

func (a *app) versions([]string) []string {
	c := api.NewClient(a.socket, completionTimeout)
	defer c.Close()
	h, _ := c.History(context.Background())
	var v []string
	for _, e := range h {
		v = append(v, strconv.FormatUint(e.Version, 10))
	}
	return v
}

// interfaces are those of this namespace: what add-port's NAME usually is.
func interfaces([]string) []string {
	var names []string
	list, _ := net.Interfaces()
	for _, i := range list {
		names = append(names, i.Name)
	}
	return names
}

// optionWords are "name=" for every option of object, and "name=value" where the
// values are few.
func (a *app) optionWords(object config.Object, ports func() []string) []string {
	var out []string
	for _, o := range config.OptionsFor(object) {
		out = append(out, o.Name+"=")
		var values []string
		switch o.Kind {
		case config.Bool:
			values = []string{"true", "false"}
		case config.Enum:
			values = o.Words
		case config.PortName, config.PortList:
			values = ports()
		case config.BridgeName:
			values = a.bridges(nil)
		case config.IntOrWord:
			values = o.Words
		}
		for _, v := range values {
			out = append(out, o.Name+"="+v)
		}
	}
	return out
}

func (a *app) bridgeOptions([]string) []string { return a.optionWords(config.BridgeObject, nil) }

func (a *app) mirrorOptions(before []string) []string {
	return a.optionWords(config.MirrorObject, func() []string { return a.ports(before) })
}

func (a *app) fdbFilters(before []string) []string {
	out := []string{"port=", "mac=", "vlan="}
	for _, p := range a.ports(before) {
		out = append(out, "port="+p)
	}
	return out
}

// newPortOptions depend on the type= that was typed already.
func (a *app) newPortOptions(before []string) []string {
	object := config.PacketPort
	for _, kv := range before {
		if t, ok := strings.CutPrefix(kv, "type="); ok {
			object = config.Object(t)
		}
	}
	out := []string{"type="}
	for _, t := range config.PortTypes() {
		out = append(out, "type="+t)
	}
	return append(out, a.optionWords(object, func() []string { return portsOf(a.status(), "", false) })...)
}

func (a *app) oldPortOptions(before []string) []string {
	st := a.status()
	object := config.PacketPort
	for _, b := range st.Bridges {
		for _, p := range b.Ports {
			if p.Name == arg(before, 0) {
				object = config.Object(p.Type)
			}
		}
	}
	return a.optionWords(object, func() []string { return portsOf(st, "", false) })
}
