package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) addPort() *cobra.Command {
	var mayExist, take bool
	var confirm string
	cmd := &cobra.Command{
		Use:        "add-port BR NAME [k=v…]",
		SuggestFor: []string{"addif"},
		Short:      "Add a port to a bridge",
		Long: `Add a port to a bridge. With type=packet, NAME is an interface that exists or will: until it
does the port waits, which is said on stderr and is no failure. With type=vxlan, gre or geneve it is
a tunnel to the host remote_ip=, and NAME is any.`,
		Annotations: portOptionsHelp(),
		Example: "  vswitchctl add-port br0 veth1 tag=10\n" +
			"  vswitchctl add-port br0 eth1 --take-addresses --confirm 30s\n" +
			"  vswitchctl add-port br0 vx2 type=vxlan remote_ip=192.0.2.2 key=10",
		Args: between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := keyValues(cmd, args[2:])
			if err != nil {
				return err
			}
			if take {
				o["take_addresses"] = "true"
			}
			return a.editConfirmed(cmd, confirm, config.Op{Op: "add-port", Bridge: args[0], Port: args[1], Options: o, MayExist: mayExist})
		},
		ValidArgsFunction: a.complete(a.bridges, interfaces, a.newPortOptions),
	}
	cmd.Flags().BoolVar(&mayExist, "may-exist", false, "no error when it is a port of BR already: set the options instead")
	cmd.Flags().BoolVar(&take, "take-addresses", false, "its addresses and routes are the local port's while it is a port: take_addresses=true")
	confirmFlag(cmd, &confirm)
	return cmd
}

func (a *app) delPort() *cobra.Command {
	var ifExists bool
	cmd := &cobra.Command{
		Use:        "del-port [BR] NAME",
		SuggestFor: []string{"rm-port", "remove-port", "delif"},
		Short:      "Delete a port",
		Long:       "Delete a port. A name is used once among all bridges; with BR it must be a port of that one.",
		Example:    "  vswitchctl del-port veth1",
		Args:       between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			op := config.Op{Op: "del-port", Port: args[len(args)-1], IfExists: ifExists}
			if len(args) == 2 {
				op.Bridge = args[0]
			}
			return a.edit(cmd, op)
		},
		ValidArgsFunction: a.complete(a.bridgesAndPorts, a.ports),
	}
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "no error when it does not exist")
	return cmd
}

func (a *app) setPort() *cobra.Command {
	var confirm string
	cmd := &cobra.Command{
		Use:         "set-port NAME k=v…",
		SuggestFor:  []string{"set"},
		Short:       "Set options of a port",
		Long:        "Set options of a port; those not named stay as they are. An empty value (tag=) unsets.",
		Annotations: portOptionsHelp(),
		Example:     "  vswitchctl set-port veth1 tag= trunks=10,20-30",
		Args:        between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := keyValues(cmd, args[1:])
			if err != nil {
				return err
			}
			return a.editConfirmed(cmd, confirm, config.Op{Op: "set-port", Port: args[0], Options: o})
		},
		ValidArgsFunction: a.complete(a.allPorts, a.oldPortOptions),
	}
	confirmFlag(cmd, &confirm)
	return cmd
}

func confirmFlag(cmd *cobra.Command, to *string) {
	cmd.Flags().StringVar(to, "confirm", "", "go back after `TIME` unless confirmed, such as 30s: for when the change may cut you off")
}

// editConfirmed is edit, of a change that goes back unless `vswitchctl confirm` comes; confirm is
// empty for one that stays.
func (a *app) editConfirmed(cmd *cobra.Command, confirm string, op config.Op) error {
	if !cmd.Flags().Changed("confirm") {
		return a.edit(cmd, op)
	}
	wait, err := api.ParseConfirm(confirm)
	if err != nil {
		return &usageError{fmt.Sprintf("--confirm %q: a time from 1s to 24h is wanted, such as 30s", confirm), cmd}
	}
	return a.editAll(cmd, api.Edit{Ops: []config.Op{op}, Confirm: wait.Seconds()})
}

func (a *app) listPorts() *cobra.Command {
	return &cobra.Command{
		Use:     "list-ports BR",
		Short:   "List the names of a bridge's ports, one a line, without its local port",
		Example: "  vswitchctl list-ports br0",
		Args:    between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			st, err := c.Status(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			names := []string{}
			for _, b := range st.Bridges {
				for _, p := range b.Ports {
					if p.Type != "local" {
						names = append(names, p.Name)
					}
				}
			}
			return a.print(names, func() string { return lines(names) })
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
}
