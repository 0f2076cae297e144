package main

import (
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
	"vswitch/ctl/config"
)

func (a *app) export() *cobra.Command {
	var version uint64
	cmd := &cobra.Command{
		Use:   "export",
		Short: "Print the configuration as a document that apply takes",
		Long: `Print the configuration as a document that apply takes: in YAML, or with -o json in JSON.
Two equal configurations print equal bytes.`,
		Example: "  vswitchctl export >vswitch.yaml",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			v, err := c.Config(cmd.Context(), version)
			if err != nil {
				return err
			}
			if a.format == "json" {
				return a.print(v.Document, nil)
			}
			text, err := v.Document.YAML()
			if err != nil {
				return fmt.Errorf("write the document as YAML: %w", err)
			}
			_, err = a.out.Write(text)
			return err
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	cmd.Flags().Uint64Var(&version, "version", 0, "an old `VERSION` instead of the current one")
	return cmd
}

// fileFlag is the -f of the verbs that read a document.
func fileFlag(cmd *cobra.Command, file *string) {
	cmd.Flags().StringVarP(file, "file", "f", "", "`FILE` with the document, YAML or JSON; - is standard input")
	cmd.MarkFlagFilename("file", "yaml", "yml", "json")
}

func (a *app) readFile(cmd *cobra.Command, file string) ([]byte, error) {
	if file == "" {
		return nil, &usageError{"say which document with -f FILE", cmd}
	}
	in := a.in
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read the document: %w", err)
		}
		defer f.Close()
		in = f
	}
	// One byte more than a document may have: the daemon refuses the rest unread.
	text, err := io.ReadAll(io.LimitReader(in, config.MaxDocument+1))
	if err != nil {
		return nil, fmt.Errorf("read the document from %s: %w", file, err)
	}
	return text, nil
}

func (a *app) apply() *cobra.Command {
	var file, confirm string
	cmd := &cobra.Command{
		Use:   "apply -f FILE [--confirm TIME]",
		Short: "Make a document the whole configuration",
		Long: `Make a document the whole configuration: what it does not name is removed. All of it is applied
or nothing; the same document again changes nothing. With --confirm the configuration of before
comes back after TIME, unless ` + "`vswitchctl confirm`" + ` comes: for when the change may cut you off.`,
		Example: "  vswitchctl apply -f vswitch.yaml --confirm 60s",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			o := api.ApplyOptions{Comment: a.line}
			if cmd.Flags().Changed("confirm") {
				var err error
				if o.Confirm, err = api.ParseConfirm(confirm); err != nil {
					return &usageError{fmt.Sprintf("--confirm %q: a time from 1s to 24h is wanted, such as 60s", confirm), cmd}
				}
			}
			text, err := a.readFile(cmd, file)
			if err != nil {
				return err
			}
			c := a.client()
			defer c.Close()
			r, err := c.ApplyText(cmd.Context(), text, o)
			if err != nil {
				return err
			}
			return a.done(r, func() string { return a.resultText(r) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fileFlag(cmd, &file)
	cmd.Flags().StringVar(&confirm, "confirm", "", "go back after `TIME` unless confirmed, such as 60s")
	return cmd
}

// mostChanges is how many changes resultText lists: as many as a screen holds.
const mostChanges = 20

// resultText says what became of a document: its version, the first changes, and
// when it goes back.
func (a *app) resultText(r api.EditResult) string {
	s := fmt.Sprintf("version %d: %s\n", r.Version, count(len(r.Changes), "change"))
	if !r.Changed {
		s = fmt.Sprintf("version %d: nothing to change\n", r.Version)
	}
	if p := r.Confirm; p != nil {
		s += fmt.Sprintf("goes back to version %d %s unless `vswitchctl confirm` comes\n", p.Previous, a.deadline(p.Deadline))
	}
	s += diffText(r.Changes[:min(len(r.Changes), mostChanges)])
	if more := len(r.Changes) - mostChanges; more > 0 {
		s += fmt.Sprintf("and %s more\n", count(more, "change"))
	}
	return s
}

func (a *app) confirm() *cobra.Command {
	return &cobra.Command{
		Use:     "confirm",
		Short:   "Keep the change that waits for it",
		Example: "  vswitchctl confirm",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			r, err := c.Confirm(cmd.Context())
			if err != nil {
				return err
			}
			return a.done(r, func() string { return fmt.Sprintf("version %d stays\n", r.Version) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func (a *app) diff() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "diff -f FILE",
		Short: "Show what apply would change",
		Long: `Show what apply would change: + is added, - is removed, ~ is changed. Nothing is printed when the
document is what is configured already. The exit status is 0 either way.`,
		Example: "  vswitchctl diff -f vswitch.yaml",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := a.readFile(cmd, file)
			if err != nil {
				return err
			}
			c := a.client()
			defer c.Close()
			r, err := c.ApplyText(cmd.Context(), text, api.ApplyOptions{DryRun: true})
			if err != nil {
				return err
			}
			return a.print(r, func() string { return diffText(r.Changes) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	fileFlag(cmd, &file)
	return cmd
}

func diffText(changes []config.Change) string {
	var b strings.Builder
	for _, c := range changes {
		line := c.Path
		switch {
		case c.What == "add" && c.To != "":
			line += ": " + c.To
		case c.What == "remove" && c.From != "":
			line += ": " + c.From
		case c.What == "change":
			line += ": " + c.From + " -> " + c.To
		}
		sign, ok := map[string]string{"add": "+", "remove": "-", "change": "~"}[c.What]
		if !ok {
			sign = c.What
		}
		b.WriteString(sign + " " + clean(line) + "\n")
	}
	return b.String()
}

func (a *app) history() *cobra.Command {
	return &cobra.Command{
		Use:     "history",
		Short:   "List the stored versions of the configuration, newest first",
		Example: "  vswitchctl history",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			h, err := c.History(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(h, func() string {
				t := newTable("", ">VERSION", "TIME", "", "CHANGED BY")
				for _, e := range h {
					current := ""
					if e.Current {
						current = "current"
					}
					t.add(e.Version, a.clock(e.Time), current, e.Comment)
				}
				return t.String()
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func (a *app) rollback() *cobra.Command {
	return &cobra.Command{
		Use:     "rollback VERSION",
		Short:   "Make an old version of the configuration current again, as a new version",
		Example: "  vswitchctl rollback 5",
		Args:    between(1, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			version, err := strconv.ParseUint(args[0], 10, 64)
			if err != nil || version == 0 {
				return &usageError{fmt.Sprintf("%q is not a version; `vswitchctl history` lists them", args[0]), cmd}
			}
			c := a.client()
			defer c.Close()
			r, err := c.Rollback(cmd.Context(), version)
			if err != nil {
				return err
			}
			return a.done(r, func() string { return a.resultText(r) })
		},
		ValidArgsFunction: a.complete(a.versions),
	}
}
