package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

func (a *app) monitor() *cobra.Command {
	var kinds []string
	cmd := &cobra.Command{
		Use:        "monitor [BR] [--kind KINDS]",
		SuggestFor: []string{"events", "watch"},
		Short:      "Print events as they happen, one a line, until interrupted",
		Long: `Print events as they happen, one a line, until interrupted; with -o json as JSON lines, with
-o yaml as YAML documents. A reader that does not keep up is told by an event of kind "lost".

Kinds:
` + kindsText(),
		Example: "  vswitchctl monitor --kind port-up,port-down,drops",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, k := range kinds {
				if !slices.Contains(api.EventKinds, k) {
					return &usageError{fmt.Sprintf("--kind %q: there are %s", k, strings.Join(api.EventKinds, ", ")), cmd}
				}
			}
			c := a.client()
			defer c.Close()
			err := c.Events(cmd.Context(), api.EventFilter{Kinds: kinds, Bridge: arg(args, 0)}, a.event)
			switch {
			case errors.Is(err, context.Canceled):
				return nil // interrupted: how it is meant to end
			case err == nil:
				return &api.UnreachableError{Socket: a.socket,
					Reason: "the daemon ended the stream: it stops, or this reader did not keep up"}
			}
			return err
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
	cmd.Flags().StringSliceVar(&kinds, "kind", nil, "only events of these `KINDS`, separated by commas")
	cmd.RegisterFlagCompletionFunc("kind", cobra.FixedCompletions(api.EventKinds, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// kindsText lists the kinds of events in lines.
func kindsText() string {
	var b strings.Builder
	wrapTo(&b, "  ", width, strings.Join(api.EventKinds, ", ")+".")
	return strings.TrimRight(b.String(), "\n")
}

func (a *app) event(e api.Event) error {
	if a.format == "json" {
		enc := json.NewEncoder(a.out) // one line, unlike print
		enc.SetEscapeHTML(false)
		return enc.Encode(e)
	}
	if a.format == "yaml" {
		text, err := toYAML(e)
		if err == nil {
			_, err = fmt.Fprintf(a.out, "---\n%s", text)
		}
		return err
	}
	bridge := e.Bridge
	if bridge == "" {
		bridge = "-"
	}
	at := e.Time.In(a.now().Location()).Format("2006-01-02 15:04:05.000")
	_, err := fmt.Fprintln(a.out, clean(fmt.Sprintf("%s  %-12s  %-8s  %s", at, e.Kind, bridge, e.Message)))
	return err
}
