package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

func (a *app) logLevel() *cobra.Command {
	cmd := group("log", "Show what the daemon logs, or change it",
		"  vswitchctl log\n  vswitchctl log level debug --for 10m", a.setLogLevel())
	cmd.Use = "log"
	cmd.Long = "Show what the daemon logs, or change it while it runs. This is no part of the configuration:\n" +
		"at the next start, what vswitchd's --log-level says holds again."
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if len(args) > 0 {
			return needsVerb(cmd, args)
		}
		c := a.client()
		defer c.Close()
		st, err := c.LogLevel(cmd.Context())
		if err != nil {
			return err
		}
		return a.printLogLevel(st)
	}
	return cmd
}

func (a *app) setLogLevel() *cobra.Command {
	var span time.Duration
	cmd := &cobra.Command{
		Use:     "level LEVEL [--for TIME]",
		Short:   "Change what the daemon logs: " + strings.Join(api.LogLevels, ", ") + " and above",
		Example: "  vswitchctl log level debug --for 10m",
		Args:    between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.Flags().Changed("for") && (span < time.Second || span > api.MaxLogFor) {
				return &usageError{fmt.Sprintf("--for %s: want 1s to 24h", span), cmd}
			}
			c := a.client()
			defer c.Close()
			st, err := c.SetLogLevel(cmd.Context(), api.LogChange{Level: args[0], For: span})
			if err != nil {
				return err
			}
			return a.printLogLevel(st)
		},
		ValidArgsFunction: a.complete(words(api.LogLevels...)),
	}
	cmd.Flags().DurationVar(&span, "for", 0, "go back after this `TIME`, such as 10m")
	cmd.RegisterFlagCompletionFunc("for", cobra.FixedCompletions([]string{"1m", "10m", "1h"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

func (a *app) printLogLevel(st api.LogStatus) error {
	return a.print(st, func() string {
		text := "level " + clean(st.Level)
		if st.Until != nil {
			text += ", and " + clean(st.Then) + " again " + a.deadline(*st.Until)
		}
		return text + "\n"
	})
}
