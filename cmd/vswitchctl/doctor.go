package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

func (a *app) doctor() *cobra.Command {
	var peer string
	var brief bool
	cmd := &cobra.Command{
		Use:        "doctor [BR]",
		SuggestFor: []string{"check", "diagnose", "health", "verify"},
		Short:      "Look for what is wrong: the host, the kernel, ports, tunnels' MTU, checksums, losses",
		Long: `Look for what is wrong, and say how to mend it: what the daemon may do, what the kernel has,
what was left behind, the configuration, ports, the MTU of each tunnel by real frames of full size,
MAC tables, losses, and checksums by an exchange of TCP between two interfaces of its own.
Nothing that forwards is disturbed. It takes some seconds.

The exit status is 1 when something fails; warnings and what could not be told are no failure.`,
		Example: `  vswitchctl doctor
  vswitchctl doctor br0 --brief
  vswitchctl doctor --peer 192.0.2.2`,
		Args: between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			d, err := c.Doctor(cmd.Context(), api.DoctorQuery{Bridge: arg(args, 0), Peer: peer})
			if err != nil {
				return err
			}
			if err := a.print(d, func() string { return doctorText(d, brief) }); err != nil {
				return err
			}
			if d.Fail > 0 {
				return errors.New(summaryText(d))
			}
			return nil
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
	cmd.Flags().StringVar(&peer, "peer", "", "look at this `HOST` too: the way there, and the tunnels that lead to it")
	cmd.Flags().BoolVar(&brief, "brief", false, "only what is not well")
	cmd.RegisterFlagCompletionFunc("peer", a.complete(a.remotes))
	return cmd
}

// remotes are the hosts that tunnels lead to.
func (a *app) remotes([]string) []string {
	seen := map[string]bool{}
	var names []string
	for _, b := range a.status().Bridges {
		for _, p := range b.Ports {
			if p.Tunnel != nil && !seen[p.Tunnel.Remote] {
				seen[p.Tunnel.Remote] = true
				names = append(names, p.Tunnel.Remote)
			}
		}
	}
	return names
}

// marks stand before a finding.
var marks = map[string]string{
	api.StatusOK: "ok  ", api.StatusWarn: "warn", api.StatusFail: "FAIL", api.StatusUnknown: "?   ",
}

// doctorText is a finding a line, in groups, with what to do beneath.
func doctorText(d api.Doctor, brief bool) string {
	var b strings.Builder
	group := ""
	for _, f := range d.Findings {
		if brief && f.Status == api.StatusOK {
			continue
		}
		if f.Group != group {
			group = f.Group
			b.WriteString(clean(group) + "\n")
		}
		mark, known := marks[f.Status]
		if !known {
			mark = marks[api.StatusUnknown]
		}
		head := f.Check
		if f.Subject != "" {
			head += " " + f.Subject
		}
		hang(&b, "  "+mark+"  ", head+": "+f.What)
		if f.Fix != "" {
			hang(&b, "        fix: ", f.Fix)
		}
	}
	if brief && group == "" {
		b.WriteString("nothing is wrong\n")
	} else {
		b.WriteString(summaryText(d) + ", in " + d.Took.Round(100*time.Millisecond).String() + "\n")
	}
	return b.String()
}

// summaryText counts findings.
func summaryText(d api.Doctor) string {
	text := fmt.Sprintf("%d ok", d.OK)
	for _, n := range []struct {
		count int
		what  string
	}{{d.Warn, "warn"}, {d.Fail, "FAIL"}, {d.Unknown, "could not tell"}} {
		if n.count > 0 {
			text += fmt.Sprintf(", %d %s", n.count, n.what)
		}
	}
	return text
}
