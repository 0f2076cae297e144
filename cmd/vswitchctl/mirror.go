package main

import (
	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) mirror() *cobra.Command {
	return group("mirror", "Copy frames to a port, a VLAN or a capture file",
		"  vswitchctl mirror add br0 m0 select_all=true output_pcap=/tmp/m0.pcapng",
		a.mirrorAdd(), a.mirrorDel(), a.mirrorList())
}

func (a *app) mirrorAdd() *cobra.Command {
	var mayExist bool
	cmd := &cobra.Command{
		Use:         "add BR NAME k=v…",
		Short:       "Add a mirror",
		Long:        "Add a mirror: what to copy, and where to.",
		Annotations: optionsHelp("a mirror", config.MirrorObject),
		Example:     "  vswitchctl mirror add br0 m0 select_src_port=veth1 output_pcap=/tmp/m0.pcapng",
		Args:        between(3, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := keyValues(cmd, args[2:])
			if err != nil {
				return err
			}
			return a.edit(cmd, config.Op{Op: "add-mirror", Bridge: args[0], Mirror: args[1], Options: o, MayExist: mayExist})
		},
		ValidArgsFunction: a.complete(a.bridges, nothing, a.mirrorOptions),
	}
	cmd.Flags().BoolVar(&mayExist, "may-exist", false, "no error when it exists: set the options instead")
	return cmd
}

func (a *app) mirrorDel() *cobra.Command {
	var ifExists bool
	cmd := &cobra.Command{
		Use:        "del BR NAME",
		SuggestFor: []string{"rm", "remove", "delete"},
		Short:      "Delete a mirror; its capture files stay",
		Example:    "  vswitchctl mirror del br0 m0",
		Args:       between(2, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.edit(cmd, config.Op{Op: "del-mirror", Bridge: args[0], Mirror: args[1], IfExists: ifExists})
		},
		ValidArgsFunction: a.complete(a.bridges, a.mirrors),
	}
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "no error when it does not exist")
	return cmd
}

func (a *app) mirrorList() *cobra.Command {
	return &cobra.Command{
		Use:        "list [BR]",
		SuggestFor: []string{"ls", "show"},
		Short:      "List mirrors with what they copied",
		Example:    "  vswitchctl mirror list br0",
		Args:       between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			st, err := c.Status(cmd.Context(), arg(args, 0))
			if err != nil {
				return err
			}
			list := []api.MirrorStatus{}
			for _, b := range st.Bridges {
				for _, m := range b.Mirrors {
					m.Bridge = b.Name
					list = append(list, m)
				}
			}
			return a.print(list, func() string {
				t := newTable("", "BRIDGE", "MIRROR", "STATE", ">FRAMES", ">LOST", ">BYTES", "FILE")
				for _, m := range list {
					file := m.File
					if file == "" {
						file = "-"
					}
					r := t.add(m.Bridge, m.Name, stateText(m.State), m.Frames, m.Dropped, m.Written, file)
					if m.State != "up" {
						r.under = append(r.under, m.Reason)
					}
					if o := optionsText(m.Options, nil); o != "" {
						r.under = append(r.under, o)
					}
				}
				return t.String()
			})
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
}
