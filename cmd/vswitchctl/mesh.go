package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) mesh() *cobra.Command {
	return group("mesh", "Tunnel from each host to each other",
		"  vswitchctl mesh add m1 bridge=br0 key=10 peers=host1,host2,host3",
		a.meshAdd(), a.meshDel(), a.meshSet(), a.meshShow())
}

func (a *app) meshAdd() *cobra.Command {
	var mayExist bool
	cmd := &cobra.Command{
		Use:   "add NAME k=v…",
		Short: "Add a mesh: a tunnel to each of its peers",
		Long: `Add a mesh: a tunnel to each of its peers, in one bridge. What comes from a peer never goes to
another, so a mesh has no loops. Peers that are this host itself are skipped: the same line
serves all hosts. bridge= and peers= are needed.`,
		Annotations: optionsHelp("a mesh", config.MeshObject),
		Example:     "  vswitchctl mesh add m1 bridge=br0 key=10 peers=host1,host2,host3",
		Args:        between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := keyValues(cmd, args[1:])
			if err != nil {
				return err
			}
			return a.edit(cmd, config.Op{Op: "add-mesh", Mesh: args[0], Options: o, MayExist: mayExist})
		},
		ValidArgsFunction: a.complete(nothing, a.meshOptions),
	}
	cmd.Flags().BoolVar(&mayExist, "may-exist", false, "no error when it exists: set the options instead")
	return cmd
}

func (a *app) meshDel() *cobra.Command {
	var ifExists bool
	cmd := &cobra.Command{
		Use:        "del NAME",
		SuggestFor: []string{"rm", "remove", "delete"},
		Short:      "Delete a mesh with its tunnels",
		Example:    "  vswitchctl mesh del m1",
		Args:       between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.edit(cmd, config.Op{Op: "del-mesh", Mesh: args[0], IfExists: ifExists})
		},
		ValidArgsFunction: a.complete(a.meshes),
	}
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "no error when it does not exist")
	return cmd
}

func (a *app) meshSet() *cobra.Command {
	return &cobra.Command{
		Use:   "set NAME k=v…",
		Short: "Set options of a mesh",
		Long: `Set options of a mesh; those not named stay as they are. An empty value (csum=) unsets.
peers= is the whole list, peers+= adds to the one there is, and peers-= takes from it. Tunnels to
peers that stay are not touched.`,
		Annotations: optionsHelp("a mesh", config.MeshObject),
		Example:     "  vswitchctl mesh set m1 peers+=host4 peers-=host2",
		Args:        between(2, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			o, err := keyValues(cmd, args[1:])
			if err != nil {
				return err
			}
			return a.edit(cmd, config.Op{Op: "set-mesh", Mesh: args[0], Options: o})
		},
		ValidArgsFunction: a.complete(a.meshes, a.meshChanges),
	}
}

func (a *app) meshShow() *cobra.Command {
	return &cobra.Command{
		Use:        "show [NAME]",
		SuggestFor: []string{"ls", "list", "status"},
		Short:      "Show meshes with their peers, and what is wrong",
		Long: `Show meshes with their peers; beneath a peer that is not well, why. A peer that is this host
itself has state self.`,
		Example: "  vswitchctl mesh show m1",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			meshes, err := c.Meshes(cmd.Context(), arg(args, 0))
			if err != nil {
				return err
			}
			return a.print(meshes, func() string { return a.meshesText(meshes) })
		},
		ValidArgsFunction: a.complete(a.meshes),
	}
}

func (a *app) meshesText(meshes []api.MeshStatus) string {
	if len(meshes) == 0 {
		return "no meshes; `vswitchctl mesh add NAME bridge=BR peers=HOST,HOST…` adds one\n"
	}
	var b strings.Builder
	for i, m := range meshes {
		if i > 0 {
			b.WriteString("\n")
		}
		notUp := 0
		for _, p := range m.Peers {
			if p.State != api.PortUp && p.State != api.PortSelf {
				notUp++
			}
		}
		wrapTo(&b, "", width, fmt.Sprintf("mesh %s of bridge %s: %s, %s", m.Name, m.Bridge, count(len(m.Peers), "peer"), wellText(notUp)))
		wrapTo(&b, "  ", width, optionsText(m.Options, []string{"bridge", "peers"}))
		t := newTable("  ", "PEER", "ADDRESS", "PORT", "STATE", "BFD", "LAST HEARD")
		for _, p := range m.Peers {
			a.peerRow(t, p)
		}
		b.WriteString(t.String())
	}
	return b.String()
}

func (a *app) peerRow(t *table, p api.MeshPeer) {
	or := func(s string) string {
		if s == "" {
			return "-"
		}
		return s
	}
	bfd, heard := "-", a.heard(p.LastHeard)
	if p.BFD != nil {
		bfd = bfdState(p.BFD.State)
	}
	if p.State == api.PortSelf {
		heard = "-"
	}
	r := t.add(p.Peer, or(p.Address), or(p.Port), stateText(p.State), bfd, heard)
	r.under = append(r.under, a.trouble(p.State, p.Reason, p.Since, p.BFD)...)
}
