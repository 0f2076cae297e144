package main

import (
	"context"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) plug() *cobra.Command {
	q := api.PlugRequest{}
	var ips, ip6s, gateways, routes []string
	flags := map[string]*string{"ifname": new(string), "mac": new(string), "mtu": new(string), "alias": new(string)}
	cmd := &cobra.Command{
		Use:        "plug CONTAINER BR [k=v…]",
		SuggestFor: []string{"connect", "attach"},
		Short:      "Plug a container into a bridge",
		Long: `Plug a container into a bridge: a veth pair, one end a port of the bridge, the other an interface
of the container with a name, addresses and routes. It belongs to the container's name: when the
container starts anew it is plugged in again, and when it is removed the plug goes, after a grace time.

CONTAINER is docker:NAME, podman:NAME, containerd:ID, netns:NAME, pid:NUMBER, the path of a network
namespace, or a bare name, which is looked up in that order.`,
		Annotations: optionsHelp("plug", config.PlugPort),
		Example: "  vswitchctl plug web br0 --ip auto\n" +
			"  vswitchctl plug netns:blue br0 --ifname eth0 --ip 10.0.0.5/24 --gateway 10.0.0.1 tag=10",
		Args: between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := keyValues(cmd, args[2:])
			if err != nil {
				return err
			}
			if o == nil {
				o = config.Options{}
			}
			for _, name := range []string{"container", "type"} {
				if o.IsSet(name) {
					return &usageError{fmt.Sprintf("%s=%s: a plug is of type plug, of the CONTAINER that is named first", name, o[name]), cmd}
				}
			}
			if err := plugAddresses(cmd, o, ips, ip6s); err != nil {
				return err
			}
			set := func(name string, words []string, sep string) error {
				if len(words) == 0 {
					return nil
				}
				if o.IsSet(name) {
					return &usageError{fmt.Sprintf("%s is given as a flag and as an option", name), cmd}
				}
				o[name] = strings.Join(words, sep)
				return nil
			}
			for name, value := range flags {
				if *value == "" {
					continue
				}
				if err := set(name, []string{*value}, ""); err != nil {
					return err
				}
			}
			if err := set("gateway", gateways, ","); err != nil {
				return err
			}
			if err := set("route", routes, ","); err != nil {
				return err
			}
			q.Container, q.Bridge, q.Options, q.Comment = args[0], args[1], o, a.line
			c := a.client()
			defer c.Close()
			res, err := c.Plug(cmd.Context(), q)
			if err != nil {
				return err
			}
			if a.format != "table" {
				return a.print(res, nil)
			}
			if res.Note != "" {
				fmt.Fprintln(a.err, clean(res.Note))
			}
			return a.print(res, func() string { return plugLine(res.Plug) })
		},
		ValidArgsFunction: a.complete(a.containers, a.bridges, a.plugOptions),
	}
	cmd.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		message := err.Error()
		for theirs, ours := range map[string]string{"--ipaddress": "--ip", "--macaddress": "--mac"} { // ovs-docker's
			if strings.HasSuffix(message, theirs) {
				message += "; did you mean " + ours + "?"
			}
		}
		return &usageError{message, cmd}
	})
	f := cmd.Flags()
	f.StringArrayVar(&ips, "ip", nil, "`ADDRESS/LENGTH`, or auto for one of the bridge's subnet; may be given more than once")
	f.StringArrayVar(&ip6s, "ip6", nil, "IPv6 `ADDRESS/LENGTH`, or auto")
	f.StringArrayVar(&gateways, "gateway", nil, "default route's `ADDRESS`, or none; default: the bridge's gateway, where the container has no other")
	f.StringArrayVar(&routes, "route", nil, "one more `ROUTE`, such as \"10.9.0.0/16 via 10.0.0.254\"; may be given more than once")
	f.StringVar(flags["ifname"], "ifname", "", "`NAME` of the interface in the container (default eth1)")
	f.StringVar(flags["mac"], "mac", "", "its `MAC` address; default: one made from the container's name")
	f.StringVar(flags["mtu"], "mtu", "", "its `MTU`; default: what the bridge's tunnels carry")
	f.StringVar(flags["alias"], "alias", "", "more `NAMES` of the container on the bridge, separated by commas")
	f.StringVar(&q.Port, "port", "", "`NAME` of the bridge's port; default: one made from the container's")
	f.BoolVar(&q.MayExist, "may-exist", false, "no error when it is plugged in already: set the options instead")
	for name, offered := range map[string][]string{"ip": {"auto"}, "ip6": {"auto"}, "gateway": {"none"},
		"ifname": nil, "mac": nil, "mtu": nil, "alias": nil, "route": nil, "port": nil} {
		cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(offered, cobra.ShellCompDirectiveNoFileComp))
	}
	return cmd
}

// plugOptions completes options. Whose plug it is, is an argument.
func (a *app) plugOptions([]string) []string {
	return slices.DeleteFunc(a.optionWords(config.PlugPort, nil), func(w string) bool { return w == "container=" })
}

// plugAddresses puts what --ip and --ip6 say into the option ip.
func plugAddresses(cmd *cobra.Command, o config.Options, ips, ip6s []string) error {
	words := ips
	for _, w := range ip6s {
		if w == "auto" {
			w = "auto6"
		} else if p, err := netip.ParsePrefix(w); err != nil || p.Addr().Is4() {
			return &usageError{fmt.Sprintf("--ip6 %q: want an IPv6 address with a prefix length, such as fd00::5/64, or auto", w), cmd}
		}
		words = append(words, w)
	}
	if len(words) == 0 {
		return nil
	}
	if o.IsSet("ip") {
		return &usageError{"ip is given as a flag and as an option", cmd}
	}
	o["ip"] = strings.Join(words, ",")
	return nil
}

// plugLine says in a line what was plugged in: name, addresses, MAC.
func plugLine(p api.PlugStatus) string {
	words := []string{p.Container, p.IfName}
	for _, x := range p.Addresses {
		words = append(words, x.String())
	}
	words = append(words, "port", p.Port, "of", p.Bridge)
	if p.State != api.PlugPlugged {
		words = append(words, "-", p.State+":", p.Reason)
	}
	return clean(strings.Join(words, " ")) + "\n"
}

func (a *app) unplug() *cobra.Command {
	q := api.UnplugRequest{}
	cmd := &cobra.Command{
		Use:        "unplug CONTAINER [BR]",
		SuggestFor: []string{"disconnect", "detach"},
		Short:      "Unplug a container from a bridge",
		Long:       "Unplug a container: its interface and its addresses on the bridge go. A container with more than one plug\nneeds BR or --ifname, or --all. CONTAINER may be the name of the port, too.",
		Example:    "  vswitchctl unplug web br0\n  vswitchctl unplug --all web",
		Args:       between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Container, q.Bridge, q.Comment = args[0], arg(args, 1), a.line
			c := a.client()
			defer c.Close()
			res, err := c.Unplug(cmd.Context(), q)
			if err != nil || a.format == "table" {
				return err
			}
			return a.print(res, nil)
		},
		ValidArgsFunction: a.complete(a.pluggedContainers, a.bridges),
	}
	cmd.Flags().StringVar(&q.IfName, "ifname", "", "`NAME` of the interface in the container")
	cmd.Flags().BoolVar(&q.All, "all", false, "all plugs of the container")
	cmd.Flags().BoolVar(&q.IfExists, "if-exists", false, "no error when it is not plugged in")
	cmd.RegisterFlagCompletionFunc("ifname", func(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
		return a.fromPlugs(func(p api.PlugStatus) string {
			if p.Container != arg(args, 0) {
				return ""
			}
			return p.IfName
		}), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// pluggedContainers completes the names of containers that are plugged in.
func (a *app) pluggedContainers([]string) (words []string) {
	return a.fromPlugs(func(p api.PlugStatus) string { return p.Container })
}

func (a *app) plugged() *cobra.Command {
	return &cobra.Command{
		Use:     "plugged [BR]",
		Short:   "List the containers that are plugged in",
		Example: "  vswitchctl plugged br0",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			list, err := c.Plugged(cmd.Context(), arg(args, 0))
			if err != nil {
				return err
			}
			return a.print(list, func() string { return pluggedTable(list) })
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
}

// tail keeps the end of what is longer than n characters, which tells containers apart;
// whole is the whole of it where it does not fit, else empty.
func tail(s string, n int) (text, whole string) {
	r := []rune(s)
	if len(r) <= n {
		return s, ""
	}
	return "…" + string(r[len(r)-n+1:]), s
}

const nameWidth = 28 // of a container in a table

func pluggedTable(list []api.PlugStatus) string {
	if len(list) == 0 {
		return "nobody is plugged in; vswitchctl plug CONTAINER BR does it\n"
	}
	t := newTable("", "BRIDGE", "CONTAINER", "IFNAME", "STATE", "ADDRESS", ">MTU", "PORT")
	for _, p := range list {
		container, whole := tail(p.Container, nameWidth)
		mtu, ip, ifname := "-", "-", p.IfName
		if ifname == "" {
			ifname = "-"
		}
		if p.MTU != 0 {
			mtu = fmt.Sprint(p.MTU)
		}
		var more []string
		for i, x := range p.Addresses {
			if i == 0 {
				ip = x.String()
			} else {
				more = append(more, x.String())
			}
		}
		r := t.add(p.Bridge, container, ifname, stateText(p.State), ip, mtu, p.Port)
		under := func(what, text string) {
			if text != "" {
				r.under = append(r.under, what+text)
			}
		}
		under("", p.Reason)
		under("", whole)
		under("by ", p.Owner)
		under("and ", strings.Join(more, ", "))
		if len(p.Names) > 1 {
			under("names ", strings.Join(p.Names, ", "))
		}
	}
	return t.String()
}

func (a *app) leases() *cobra.Command {
	return &cobra.Command{
		Use:     "leases [BR]",
		Short:   "List the addresses that containers have of a bridge's subnets",
		Example: "  vswitchctl leases br0",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			list, err := c.Leases(cmd.Context(), arg(args, 0))
			if err != nil {
				return err
			}
			return a.print(list, func() string {
				if len(list) == 0 {
					return "nobody has an address; plug --ip auto leases one\n"
				}
				t := newTable("", "BRIDGE", "ADDRESS", "SINCE", "OWNER")
				for _, l := range list {
					owner, whole := tail(l.Owner, nameWidth)
					r := t.add(l.Bridge, l.Address.String(), l.Since.UTC().Format("2006-01-02 15:04:05"), owner)
					if whole != "" {
						r.under = append(r.under, whole)
					}
				}
				return t.String()
			})
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
}

// fromPlugs lists something of each plug, each once, and not what is empty.
func (a *app) fromPlugs(what func(api.PlugStatus) string) (words []string) {
	c := api.NewClient(a.socket, completionTimeout)
	defer c.Close()
	list, _ := c.Plugged(context.Background(), "")
	for _, p := range list {
		if w := what(p); w != "" && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	return words
}

// containers completes what can be plugged in without asking a runtime: named namespaces.
func (a *app) containers([]string) (words []string) {
	entries, _ := os.ReadDir("/run/netns")
	for _, e := range entries {
		words = append(words, "netns:"+e.Name())
	}
	return words
}
