package main

import (
	"cmp"
	"fmt"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) fdb() *cobra.Command {
	return group("fdb", "Show and change the MAC tables", "  vswitchctl fdb show br0",
		a.fdbShow(), a.fdbAdd(), a.fdbDel(), a.fdbFlush(), a.fdbStats())
}

// fdbQuery reads [BR] [port=P] [mac=M] [vlan=N].
func fdbQuery(cmd *cobra.Command, args []string) (api.FDBQuery, error) {
	q := api.FDBQuery{VLAN: -1}
	if len(args) > 0 && !strings.Contains(args[0], "=") {
		q.Bridge, args = args[0], args[1:]
	}
	o, err := keyValues(cmd, args)
	if err != nil {
		return q, err
	}
	for name, value := range o {
		switch name {
		case "port":
			q.Port = value
		case "mac":
			q.MAC = value
		case "vlan":
			if q.VLAN, err = vlan(cmd, value); err != nil {
				return q, err
			}
		default:
			return q, &usageError{fmt.Sprintf("%q is not one of port=, mac= and vlan=", name+"="), cmd}
		}
	}
	return q, nil
}

func vlan(cmd *cobra.Command, value string) (int, error) {
	n, err := strconv.ParseUint(value, 10, 16)
	if err != nil || n > 4094 {
		return 0, &usageError{fmt.Sprintf("vlan=%s: a VLAN from 0 (untagged) to 4094 is wanted", value), cmd}
	}
	return int(n), nil
}

func (a *app) fdbShow() *cobra.Command {
	return &cobra.Command{
		Use:        "show [BR] [port=P] [mac=M] [vlan=N]",
		SuggestFor: []string{"ls", "list", "dump"},
		Short:      "Show which MAC is behind which port",
		Long:       "Show which MAC is behind which port. VLAN 0 is untagged; AGE is the time since the MAC was last heard.",
		Example:    "  vswitchctl fdb show br0 vlan=10",
		Args:       between(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := fdbQuery(cmd, args)
			if err != nil {
				return err
			}
			c := a.client()
			defer c.Close()
			entries, err := c.FDB(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(entries, func() string { return fdbText(entries, q) })
		},
		ValidArgsFunction: a.complete(a.bridges, a.fdbFilters),
	}
}

func fdbText(entries []api.FDBEntry, q api.FDBQuery) string {
	if len(entries) == 0 && (q.Port != "" || q.MAC != "" || q.VLAN >= 0) {
		return "no MAC matches\n"
	}
	if len(entries) == 0 {
		return "no MAC is known: no frame has come in, or all are forgotten\n"
	}
	withBridge := q.Bridge == ""
	titles := []string{">VLAN", "MAC", "PORT", ">AGE"}
	if withBridge {
		titles = append([]string{"BRIDGE"}, titles...)
	}
	t := newTable("", titles...)
	for _, e := range entries {
		age := strconv.Itoa(e.Age) + "s"
		if e.Static {
			age = "static"
		}
		cells := []any{e.VLAN, e.MAC, e.Port, age}
		if withBridge {
			cells = append([]any{e.Bridge}, cells...)
		}
		t.add(cells...)
	}
	return t.String()
}

// bare refuses an argument that is written as an option, port=veth1 for veth1.
func bare(cmd *cobra.Command, args []string, i int, option string) error {
	value, written := strings.CutPrefix(args[i], option+"=")
	if !written {
		return nil
	}
	plain := append([]string{cmd.CommandPath()}, args...)
	plain[i+1] = value
	return &usageError{fmt.Sprintf("%q: %s is a bare word here: %s", args[i], strings.ToUpper(option), strings.Join(plain, " ")), cmd}
}

// staticVLAN reads the [vlan=N] of a static entry; untagged when not given.
func staticVLAN(cmd *cobra.Command, args []string) (int, error) {
	if len(args) == 0 {
		return 0, nil
	}
	value, ok := strings.CutPrefix(args[0], "vlan=")
	if !ok {
		return 0, &usageError{fmt.Sprintf("%q is not vlan=N", args[0]), cmd}
	}
	return vlan(cmd, value)
}

func (a *app) fdbAdd() *cobra.Command {
	var mayExist bool
	cmd := &cobra.Command{
		Use:     "add BR MAC PORT [vlan=N]",
		Short:   "Add a static MAC, which learning cannot move",
		Example: "  vswitchctl fdb add br0 02:00:00:00:00:01 veth1 vlan=10",
		Args:    between(3, 4),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := cmp.Or(bare(cmd, args, 1, "mac"), bare(cmd, args, 2, "port")); err != nil {
				return err
			}
			v, err := staticVLAN(cmd, args[3:])
			if err != nil {
				return err
			}
			return a.edit(cmd, config.Op{Op: "add-fdb", Bridge: args[0], MAC: args[1], Port: args[2], VLAN: v, MayExist: mayExist})
		},
		ValidArgsFunction: a.complete(a.bridges, a.macs, a.ports, words("vlan=")),
	}
	cmd.Flags().BoolVar(&mayExist, "may-exist", false, "no error when it exists: move it to PORT instead")
	return cmd
}

func (a *app) fdbDel() *cobra.Command {
	var ifExists bool
	cmd := &cobra.Command{
		Use:        "del BR MAC [vlan=N]",
		SuggestFor: []string{"rm", "remove", "delete"},
		Short:      "Delete a static MAC",
		Example:    "  vswitchctl fdb del br0 02:00:00:00:00:01 vlan=10",
		Args:       between(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := bare(cmd, args, 1, "mac"); err != nil {
				return err
			}
			v, err := staticVLAN(cmd, args[2:])
			if err != nil {
				return err
			}
			return a.edit(cmd, config.Op{Op: "del-fdb", Bridge: args[0], MAC: args[1], VLAN: v, IfExists: ifExists})
		},
		ValidArgsFunction: a.complete(a.bridges, a.macs, words("vlan=")),
	}
	cmd.Flags().BoolVar(&ifExists, "if-exists", false, "no error when it does not exist")
	return cmd
}

func (a *app) fdbFlush() *cobra.Command {
	return &cobra.Command{
		Use:     "flush [BR] [port=P] [mac=M] [vlan=N]",
		Short:   "Forget learned MACs; static ones stay",
		Example: "  vswitchctl fdb flush br0 port=veth1",
		Args:    between(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q, err := fdbQuery(cmd, args)
			if err != nil {
				return err
			}
			c := a.client()
			defer c.Close()
			r, err := c.FDBFlush(cmd.Context(), q)
			if err != nil {
				return err
			}
			return a.print(r, func() string { return "forgot " + count(r.Flushed, "MAC") + "\n" })
		},
		ValidArgsFunction: a.complete(a.bridges, a.fdbFilters),
	}
}

func (a *app) fdbStats() *cobra.Command {
	return &cobra.Command{
		Use:     "stats [BR]",
		Short:   "Show how full the MAC tables are, and which MACs move between ports",
		Example: "  vswitchctl fdb stats br0",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			stats, err := c.FDBStats(cmd.Context(), arg(args, 0))
			if err != nil {
				return err
			}
			return a.print(stats, func() string { return a.fdbStatsText(stats) })
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
}

func (a *app) fdbStatsText(stats []api.FDBStats) string {
	t := newTable("", "BRIDGE", ">ENTRIES", ">STATIC", ">SIZE", ">AGING", ">LEARNED", ">EXPIRED", ">EVICTED", ">MOVED")
	moves := newTable("", "BRIDGE", ">VLAN", "MAC", "FROM", "TO", ">TIMES", "LAST")
	for _, s := range stats {
		aging := "never"
		if s.Aging > 0 {
			aging = strconv.Itoa(s.Aging) + "s"
		}
		t.add(s.Bridge, s.Entries, s.Static, s.Size, aging, s.Learned, s.Expired, s.Evicted, s.Moved)
		for _, m := range s.Moves {
			moves.add(s.Bridge, m.VLAN, m.MAC, m.From, m.To, m.Count, a.clock(m.Last))
		}
	}
	if len(moves.rows) == 0 {
		return t.String()
	}
	return t.String() + "\nMACs that moved lately:\n" + moves.String()
}
