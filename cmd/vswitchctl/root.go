package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

// Exit statuses. docs/vswitchctl.md promises them.
const (
	exitDone        = 0
	exitRefused     = 1 // refused or failed
	exitUsage       = 2 // the command line is wrong; nobody was asked
	exitUnreachable = 3 // the daemon does not answer
)

// app is one run of the command: its streams, its clock, its global flags.
type app struct {
	in       io.Reader
	out, err io.Writer
	now      func() time.Time
	getenv   func(string) string

	socket  string
	format  string
	timeout time.Duration
	line    string // the command line, for the history's comment
}

// usageError is a command line that cannot be understood.
type usageError struct {
	message string
	cmd     *cobra.Command // whose usage helps; nil: none
}

func (e *usageError) Error() string { return e.message }

// run does what args say and returns the exit status.
func (a *app) run(ctx context.Context, args []string) int {
	a.line = commandLine(args)
	root := a.root()
	root.SetArgs(outFlag(verbFirst(args)))
	root.SetIn(a.in)
	root.SetOut(a.out)
	root.SetErr(a.err)
	err := root.ExecuteContext(ctx)
	var usage *usageError
	switch {
	case err == nil:
		return exitDone
	case errors.As(err, &usage):
		fmt.Fprintf(a.err, "vswitchctl: %s\n", usage.message)
		if usage.cmd != nil {
			fmt.Fprintf(a.err, "usage: %s\n(`%s --help` says more)\n", useLine(usage.cmd), usage.cmd.CommandPath())
		}
		return exitUsage
	case errors.Is(err, api.ErrUnreachable):
		fmt.Fprintf(a.err, "vswitchctl: %v\n", err)
		return exitUnreachable
	case errors.Is(err, context.Canceled):
		fmt.Fprintln(a.err, "vswitchctl: interrupted")
		return exitRefused
	default:
		fmt.Fprintf(a.err, "vswitchctl: %s\n", cleanLines(err.Error()))
		return exitRefused
	}
}

// verbFirst takes --may-exist and --if-exists, which ovs-vsctl has before the
// verb, behind its arguments, where cobra looks for a verb's flags.
func verbFirst(args []string) []string {
	var before, forVerb []string
	for i := 0; i < len(args); i++ {
		switch arg := args[i]; {
		case arg == "--may-exist" || arg == "--if-exists":
			forVerb = append(forVerb, arg)
		case slices.Contains([]string{"--ctl", "--output", "-o", "--timeout"}, arg) && i+1 < len(args):
			before = append(before, arg, args[i+1])
			i++
		case strings.HasPrefix(arg, "-") && arg != "--":
			before = append(before, arg)
		default: // the verb
			rest := args[i:]
			end := len(rest)
			if n := slices.Index(rest, "--"); n >= 0 {
				end = n
			}
			return slices.Concat(before, rest[:end], forVerb, rest[end:])
		}
	}
	return args
}

func useLine(cmd *cobra.Command) string {
	if p := cmd.Parent(); p != nil {
		return p.CommandPath() + " " + cmd.Use
	}
	return cmd.Use
}

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "vswitchctl VERB …",
		Short: "Control vswitchd, the userspace virtual switch",
		Long: `Control vswitchd, the userspace virtual switch.

Exit status: 0 done, 1 refused or failed, 2 wrong usage, 3 daemon not reachable.`,
		Example: `  vswitchctl add-br br0 ip=10.0.0.1/24
  vswitchctl add-port br0 veth1 tag=10
  vswitchctl show`,
		SilenceErrors:     true, // run says them
		SilenceUsage:      true,
		Args:              cobra.ArbitraryArgs,
		CompletionOptions: cobra.CompletionOptions{DisableDefaultCmd: true},
		RunE:              needsVerb,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return a.checkGlobals() },
	}
	flags := root.PersistentFlags()
	socket := a.getenv("VSWITCH_CTL")
	if socket == "" {
		socket = api.DefaultSocket
	}
	flags.StringVar(&a.socket, "ctl", socket, "the daemon's `SOCKET` (environment: VSWITCH_CTL)")
	flags.StringVarP(&a.format, "output", "o", "table", "`FORMAT` of the output: table, json or yaml")
	flags.DurationVar(&a.timeout, "timeout", 10*time.Second, "longest `TIME` to wait for the daemon")
	root.RegisterFlagCompletionFunc("output", cobra.FixedCompletions([]string{"table", "json", "yaml"}, cobra.ShellCompDirectiveNoFileComp))
	root.RegisterFlagCompletionFunc("timeout", cobra.NoFileCompletions)
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error { return &usageError{err.Error(), cmd} })
	root.SetHelpCommand(&cobra.Command{
		Use: "help [VERB]", Short: "Say what a verb does", Example: "  vswitchctl help add-port",
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			target, rest, err := root.Find(args)
			if err != nil {
				return &usageError{err.Error(), nil}
			}
			if len(rest) > 0 && target.HasSubCommands() {
				return needsVerb(target, rest)
			}
			return target.Help()
		},
	})
	root.SetUsageTemplate(usageTemplate)
	root.AddCommand(built(
		a.addBridge(), a.delBridge(), a.listBridges(), a.setBridge(), a.show(),
		a.addPort(), a.delPort(), a.listPorts(), a.setPort(),
		a.plug(), a.unplug(), a.plugged(), a.publish(), a.unpublish(), a.published(), a.leases(),
		a.fdb(), a.mirror(), a.tunnel(), a.mesh(), a.drops(), a.stats(),
		a.capture(), a.recorder(), a.why(), a.top(), a.trace(), a.replay(), a.testConfig(), a.doctor(), a.sflow(), a.logLevel(),
		a.export(), a.apply(), a.confirm(), a.diff(), a.history(), a.rollback(),
		a.monitor(), a.version(), a.completion(root),
	)...)
	for _, cmd := range root.Commands() {
		cmd.DisableFlagsInUseLine = true
		for _, sub := range cmd.Commands() {
			sub.DisableFlagsInUseLine = true
		}
	}
	root.DisableFlagsInUseLine = true
	return root
}

// built leaves out the verbs that are not there yet.
func built(all ...*cobra.Command) []*cobra.Command {
	return slices.DeleteFunc(all, func(c *cobra.Command) bool { return c == nil })
}

func (a *app) checkGlobals() error {
	switch a.format {
	case "table", "json", "yaml":
	default:
		return &usageError{message: fmt.Sprintf("-o %q: the output can be table, json or yaml", a.format)}
	}
	if a.timeout <= 0 {
		return &usageError{message: fmt.Sprintf("--timeout %s: a time above zero is wanted, such as 10s", a.timeout)}
	}
	return nil
}

// usageTemplate puts how a verb is used and its example before the long lists.
const usageTemplate = `Usage:
  {{.UseLine}}{{if .HasExample}}

Example:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}

Verbs:{{range .Commands}}{{if or .IsAvailableCommand (eq .Name "help")}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{with index .Annotations "options"}}

{{.}}{{end}}{{if .HasAvailableLocalFlags}}

Flags:
{{.LocalFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}{{if .HasAvailableInheritedFlags}}

Global flags:
{{.InheritedFlags.FlagUsages | trimTrailingWhitespaces}}{{end}}
`

// needsVerb answers a command that is only the name of a group, alone or with a
// word that is none of its verbs.
func needsVerb(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &usageError{"a verb is missing; there are: " + verbs(cmd), cmd}
	}
	cmd.SuggestionsMinimumDistance = 2
	message := fmt.Sprintf("unknown verb %q", args[0])
	if cmd.HasParent() {
		message = fmt.Sprintf("unknown verb %q of %s", args[0], cmd.Name())
	}
	if near := suggestions(cmd, args[0]); len(near) > 0 {
		return &usageError{fmt.Sprintf("%s; did you mean %s?", message, strings.Join(near, " or ")), nil}
	}
	return &usageError{message + "; there are: " + verbs(cmd), nil}
}

// suggestions are what a word may have been meant to be, quoted: the verbs that
// other tools call so, or else the one that is spelled nearly so.
func suggestions(cmd *cobra.Command, word string) (near []string) {
	for _, c := range cmd.Commands() {
		if slices.Contains(c.SuggestFor, word) {
			near = append(near, strconv.Quote(c.Name()))
		}
	}
	if len(near) > 0 {
		return near
	}
	for _, name := range cmd.SuggestionsFor(word) {
		return []string{strconv.Quote(name)}
	}
	return nil
}

func verbs(cmd *cobra.Command) string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return strings.Join(names, ", ")
}

// group is a verb that only holds verbs.
func group(use, short, example string, verbs ...*cobra.Command) *cobra.Command {
	g := &cobra.Command{Use: use + " VERB", Short: short, Example: example, Args: cobra.ArbitraryArgs, RunE: needsVerb}
	g.AddCommand(verbs...)
	return g
}

// between takes from min to max arguments; max below zero is any number.
func between(min, max int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		switch {
		case len(args) < min:
			return &usageError{"arguments are missing", cmd}
		case max >= 0 && len(args) > max:
			return &usageError{fmt.Sprintf("%q is one argument too many", args[max]), cmd}
		}
		return nil
	}
}

func (a *app) client() *api.Client { return api.NewClient(a.socket, a.timeout) }

// arg is args[i], or "" when there are fewer.
func arg(args []string, i int) string {
	if i < len(args) {
		return args[i]
	}
	return ""
}

// commandLine is what the history shows: as typed, quoted where a shell needs it.
func commandLine(args []string) string {
	words := []string{"vswitchctl"}
	for _, w := range args {
		if w == "" || strings.ContainsAny(w, " \t\n'\"\\$`*?;&|<>(){}[]#!~") {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		words = append(words, w)
	}
	const limit = 1000 // the daemon takes 1024 bytes
	s := strings.ToValidUTF8(strings.Join(words, " "), "?")
	if len(s) > limit {
		s = strings.ToValidUTF8(s[:limit], "") + "…"
	}
	return s
}
