package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) sflow() *cobra.Command {
	return group("sflow", "Tell collectors of a bridge's traffic, by sFlow",
		"  vswitchctl sflow add br0 target=10.0.0.9:6343 sampling=400",
		a.sflowAdd(), a.sflowDel(), a.sflowList())
}

func (a *app) sflowAdd() *cobra.Command {
	var mayExist bool
	cmd := &cobra.Command{
		Use:         "add BR target=ADDRESS[:PORT] [k=v…]",
		SuggestFor:  []string{"set", "create"},
		Short:       "Export samples of a bridge's frames, and its ports' counters",
		Annotations: optionsHelp("sFlow", config.SFlowObject),
		Example:     "  vswitchctl sflow add br0 target=10.0.0.9:6343 sampling=400 polling=30 header=128",
		Args:        between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := keyValues(cmd, args[1:])
			if err != nil {
				return err
			}
			if err := a.edit(cmd, config.Op{Op: "add-sflow", Bridge: args[0], Options: o, MayExist: mayExist}); err != nil {
				return err
			}
			a.sflowTrouble(cmd, args[0])
			return nil
		},
		ValidArgsFunction: a.complete(a.bridges, a.sflowOptions),
	}
	cmd.Flags().BoolVar(&mayExist, "may-exist", false, "no error when it exists: set the options instead")
	return cmd
}

// sflowTrouble says on stderr what keeps a bridge's sFlow from its collectors, as far as
// it is known at once. It is no failure: the document was accepted.
func (a *app) sflowTrouble(cmd *cobra.Command, bridge string) {
	c := a.client()
	defer c.Close()
	list, err := c.SFlow(cmd.Context(), bridge)
	if err != nil {
		return
	}
	for _, x := range list {
		if x.State != "up" {
			fmt.Fprintln(a.err, clean("sflow of "+x.Bridge+": "+x.State+": "+x.Reason+"; it is tried again"))
		}
	}
}

func (a *app) sflowOptions([]string) []string { return a.optionWords(config.SFlowObject, nil) }

func (a *app) sflowDel() *cobra.Command {
	var ifExists bool
	cmd := &cobra.Command{
		Use:        "del BR",
		SuggestFor: []string{"rm", "remove", "delete"},
		Short:      "Export no more",
		Example:    "  vswitchctl sflow del br0",
		Args:       between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.edit(cmd, config.Op{Op: "del-sflow", Bridge: args[0], IfExists: ifExists})
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "no error when it does not exist")
	return cmd
}

func (a *app) sflowList() *cobra.Command {
	return &cobra.Command{
		Use:        "list [BR]",
		SuggestFor: []string{"ls", "show"},
		Short:      "List what is exported, and whether collectors take it",
		Example:    "  vswitchctl sflow list",
		Args:       between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			list, err := c.SFlow(cmd.Context(), arg(args, 0))
			if err != nil {
				return err
			}
			return a.print(list, func() string { return sflowTable(list) })
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
}

func sflowTable(list []api.SFlowStatus) string {
	t := newTable("", "BRIDGE", "STATE", "AGENT", ">SAMPLES", ">LOST", ">REPORTS", ">DATAGRAMS", ">ERRORS")
	for _, x := range list {
		agent := x.Agent
		if agent == "" {
			agent = "-"
		}
		var datagrams, errors uint64
		for _, c := range x.Targets {
			datagrams, errors = datagrams+c.Datagrams, errors+c.Errors
		}
		r := t.add(x.Bridge, stateText(x.State), agent, x.Samples, x.Missed, x.Reports, datagrams, errors)
		for _, c := range x.Targets {
			if c.Reason != "" {
				r.under = append(r.under, fmt.Sprintf("%s: %s (%s)", c.Address, c.Reason, count(c.Errors, "error")))
			}
		}
		if x.Reason != "" && len(r.under) == 0 { // else it is one of those
			r.under = append(r.under, x.Reason)
		}
		if o := optionsText(x.Options, nil); o != "" {
			r.under = append(r.under, o)
		}
	}
	return t.String()
}
