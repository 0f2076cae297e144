package main

import (
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

// edit sends one change under this run's command line and prints what came of it.
func (a *app) edit(cmd *cobra.Command, op config.Op) error {
	return a.editAll(cmd, api.Edit{Ops: []config.Op{op}})
}

// editAll sends an edit of one operation, and prints what came of it.
func (a *app) editAll(cmd *cobra.Command, e api.Edit) error {
	c := a.client()
	defer c.Close()
	op := e.Ops[0]
	e.Comment = a.line
	r, err := c.Edit(cmd.Context(), e)
	var refusal *api.Error
	if errors.As(err, &refusal) {
		// The daemon names the step as the API does; here it was typed otherwise.
		if what, ok := strings.CutPrefix(refusal.Message, op.Op+" "); ok {
			refusal.Message = strings.TrimPrefix(cmd.CommandPath(), "vswitchctl ") + " " + what
		}
	}
	if err != nil {
		return err
	}
	return a.done(r, func() string {
		if p := r.Confirm; p != nil && e.Confirm > 0 {
			return fmt.Sprintf("goes back to version %d %s unless `vswitchctl confirm` comes\n", p.Previous, a.deadline(p.Deadline))
		}
		return ""
	})
}

func (a *app) addBridge() *cobra.Command {
	var mayExist bool
	cmd := &cobra.Command{
		Use:         "add-br BR [k=v…]",
		SuggestFor:  []string{"add-bridge", "addbr"},
		Short:       "Add a bridge",
		Long:        "Add a bridge. Its local port, the only way to the host, carries its name.",
		Annotations: optionsHelp("a bridge", config.BridgeObject),
		Example:     "  vswitchctl add-br br0 ip=10.0.0.1/24",
		Args:        between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := keyValues(cmd, args[1:])
			if err != nil {
				return err
			}
			return a.edit(cmd, config.Op{Op: "add-bridge", Bridge: args[0], Options: o, MayExist: mayExist})
		},
		ValidArgsFunction: a.complete(nothing, a.bridgeOptions),
	}
	cmd.Flags().BoolVar(&mayExist, "may-exist", false, "no error when it exists: set the options instead")
	return cmd
}

func (a *app) delBridge() *cobra.Command {
	var ifExists bool
	cmd := &cobra.Command{
		Use:        "del-br BR",
		SuggestFor: []string{"del-bridge", "rm-br", "delbr"},
		Short:      "Delete a bridge with its ports and mirrors",
		Example:    "  vswitchctl del-br br0",
		Args:       between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.edit(cmd, config.Op{Op: "del-bridge", Bridge: args[0], IfExists: ifExists})
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "no error when it does not exist")
	return cmd
}

func (a *app) setBridge() *cobra.Command {
	return &cobra.Command{
		Use:         "set-br BR k=v…",
		SuggestFor:  []string{"set-bridge", "set"},
		Short:       "Set options of a bridge",
		Long:        "Set options of a bridge; those not named stay as they are. An empty value (ip=) unsets.",
		Annotations: optionsHelp("a bridge", config.BridgeObject),
		Example:     "  vswitchctl set-br br0 mac-aging-time=60",
		Args:        between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := keyValues(cmd, args[1:])
			if err != nil {
				return err
			}
			return a.edit(cmd, config.Op{Op: "set-bridge", Bridge: args[0], Options: o})
		},
		ValidArgsFunction: a.complete(a.bridges, a.bridgeOptions),
	}
}

func (a *app) listBridges() *cobra.Command {
	return &cobra.Command{
		Use:        "list-br",
		SuggestFor: []string{"ls", "list", "list-bridges"},
		Short:      "List the names of the bridges, one a line",
		Example:    "  for br in $(vswitchctl list-br); do vswitchctl show $br; done",
		Args:       between(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			st, err := c.Status(cmd.Context(), "")
			if err != nil {
				return err
			}
			names := []string{}
			for _, b := range st.Bridges {
				names = append(names, b.Name)
			}
			return a.print(names, func() string { return lines(names) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func lines(names []string) string {
	s := ""
	for _, n := range names {
		s += n + "\n"
	}
	return s
}
