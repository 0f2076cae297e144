package main

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

func (a *app) recorder() *cobra.Command {
	return group("recorder", "The flight recorder: what happened already", "  vswitchctl recorder dump --last 10s --drops",
		a.recorderShow(), a.recorderDump())
}

func (a *app) recorderShow() *cobra.Command {
	return &cobra.Command{
		Use: "show", SuggestFor: []string{"status", "list"}, Short: "Say what the flight recorder keeps, and how far back",
		Example: "  vswitchctl recorder show",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			c := a.client()
			defer c.Close()
			st, err := c.Recorder(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(st, func() string { return a.recorderText(st) })
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}

func (a *app) recorderText(st api.RecorderStatus) string {
	if !st.On {
		return "the flight recorder is off: vswitchd was started with --recorder 0\n"
	}
	rate := "all frames"
	if st.Rate > 0 {
		rate = fmt.Sprintf("up to %d frames a second, and as many drops", st.Rate)
	}
	oldest := func(at *time.Time) string {
		if at == nil {
			return "-"
		}
		return ago(a.now().Sub(*at)) + " ago"
	}
	t := newTable("", "KIND", ">RECORDED", "OLDEST")
	t.add("frames", st.Frames, oldest(st.Oldest))
	t.add("drops", st.Drops, oldest(st.OldestDrop))
	text := fmt.Sprintf("a worker keeps %d bytes of %s, in %s of memory\n", st.Snap, rate, bytesText(st.Bytes)) + t.String()
	if st.Skipped > 0 {
		text += fmt.Sprintf("%s came faster; those recorded stand for them\n", count(st.Skipped, "frame"))
	}
	return text
}

// bytesText is a size in the largest unit that divides it.
func bytesText(n int) string {
	switch {
	case n > 0 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n > 0 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d bytes", n)
}

func (a *app) recorderDump() *cobra.Command {
	var q api.DumpQuery
	var file, last string
	cmd := &cobra.Command{
		Use:        "dump [BR|PORT] [-w FILE] [--last TIME] [--drops] ['FILTER']",
		SuggestFor: []string{"save", "write"},
		Short:      "Show what happened already, or write it to a file for Wireshark",
		Long: `Show what the flight recorder holds, a line a frame: the frames that came in, with where they went,
and those that were dropped, with what to do about each reason, once. A port that has been removed
is known by its name as long as its frames are. FILTER is tcpdump's language.

With -w FILE it is written in pcapng format; -w - is standard output. The recorder keeps the
beginning of each frame: enough for its headers.`,
		Example: `  vswitchctl recorder dump --last 10s --drops
  vswitchctl recorder dump veth1 host 10.0.0.5
  vswitchctl recorder dump -w last.pcapng`,
		Args: between(0, -1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if last != "" {
				if q.Last, err = api.ParseLast(last); err != nil {
					return &usageError{fmt.Sprintf("--last %q: a time above zero and up to 24h is wanted, such as 10s or 5m", last), cmd}
				}
			}
			c := a.client()
			defer c.Close()
			if file != "" {
				if err := a.mayWrite(file); err != nil {
					return err
				}
			}
			p := a.framePrinter()
			var n counts
			err = nameOrFilter(&q, args, func() (err error) {
				if file == "" {
					err = c.DumpLines(cmd.Context(), q, nil, p.frame)
					n = p.n
					return err
				}
				f, err := c.DumpFile(cmd.Context(), q)
				if err != nil {
					return err
				}
				n, err = a.save(f.Body, file)
				return err
			})
			if err != nil {
				return err
			}
			fmt.Fprintln(a.err, count(n.frames, "frame"))
			return nil
		},
		ValidArgsFunction: a.complete(a.bridgesAndPorts),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&file, "write", "w", "", "write the frames to `FILE` in pcapng format; - is standard output")
	f.StringVar(&last, "last", "", "only the last `TIME`, such as 10s")
	f.BoolVar(&q.Drops, "drops", false, "only frames that were dropped")
	f.BoolVar(&q.Split, "split", false, "super-frames as the segments they stand for, if they were recorded whole")
	cmd.RegisterFlagCompletionFunc("last", cobra.FixedCompletions([]string{"10s", "1m"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// nameOrFilter asks with the first word as the name of a bridge or a port, and if
// there is none, with all words as a filter.
func nameOrFilter(q *api.DumpQuery, words []string, ask func() error) error {
	if len(words) == 0 {
		return ask()
	}
	q.Name, q.Filter = words[0], strings.Join(words[1:], " ")
	err := ask()
	named, ok := errors.AsType[*api.Error](err)
	if !ok || named.Status != http.StatusNotFound {
		return err
	}
	q.Name, q.Filter = "", strings.Join(words, " ")
	err = ask()
	if e, ok := errors.AsType[*api.Error](err); ok && e.Field == "filter" && len(words) == 1 {
		return fmt.Errorf("%w, nor a filter", named)
	}
	return err
}
