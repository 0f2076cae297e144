package main

import (
	"cmp"
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"vswitch/ctl/api"
)

func (a *app) drops() *cobra.Command {
	var w dropsWatch
	cmd := &cobra.Command{
		Use:   "drops [BR [PORT]] [--watch]",
		Short: "Show which frames were dropped, where, why, how fast, and what to do",
		Long: `Show which frames were dropped, where, why, how fast, and what to do; beneath each reason the last
frame that was dropped so. RATE is frames a second, of the last two to four seconds. Packets that
are no tunnel's have no bridge: PORT is the endpoint they came to, and SOURCE the host that sends
them.

--watch shows it again and again until interrupted, first those whose count grows now; where the
output is no terminal, one block after the other.`,
		Example: "  vswitchctl drops br0 veth1\n  vswitchctl drops --watch --interval 1s --reason vlan-not-trunked",
		Args:    between(0, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if w.interval < minInterval {
				return &usageError{fmt.Sprintf("--interval %s: a time of at least %s is wanted, such as 2s", w.interval, minInterval), cmd}
			}
			if w.count < 0 {
				return &usageError{fmt.Sprintf("--count %d: how many times, or 0 for no end", w.count), cmd}
			}
			c := a.client()
			defer c.Close()
			w.get = func(ctx context.Context) ([]api.Drop, error) {
				drops, err := c.Drops(ctx, arg(args, 0), arg(args, 1))
				if w.reason != "" {
					drops = slices.DeleteFunc(drops, func(d api.Drop) bool { return d.Reason != w.reason })
				}
				return drops, err
			}
			if w.on {
				return a.watchDrops(cmd.Context(), &w)
			}
			drops, err := w.get(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(drops, func() string { return a.dropsText(drops) })
		},
		ValidArgsFunction: a.complete(a.bridges, a.ports),
	}
	cmd.Flags().BoolVar(&w.on, "watch", false, "show it again and again, first what happens now")
	cmd.Flags().DurationVar(&w.interval, "interval", 2*time.Second, "`TIME` between looks of --watch")
	cmd.Flags().IntVar(&w.count, "count", 0, "`N` looks of --watch; 0: until interrupted")
	cmd.Flags().StringVar(&w.reason, "reason", "", "only drops of this reason, by its `NAME`")
	cmd.RegisterFlagCompletionFunc("reason", func(*cobra.Command, []string, string) ([]string, cobra.ShellCompDirective) {
		return a.dropReasons(), cobra.ShellCompDirectiveNoFileComp
	})
	return cmd
}

// minInterval is how often the daemon is asked at most.
const minInterval = 100 * time.Millisecond

// dropReasons are those that were met.
func (a *app) dropReasons() (names []string) {
	c := api.NewClient(a.socket, completionTimeout)
	defer c.Close()
	drops, _ := c.Drops(context.Background(), "", "")
	for _, d := range drops {
		if !slices.Contains(names, d.Reason) {
			names = append(names, d.Reason)
		}
	}
	return names
}

// dropsWatch shows drops again and again.
type dropsWatch struct {
	on       bool
	interval time.Duration
	count    int    // looks; 0: no end
	reason   string // ""; all
	get      func(context.Context) ([]api.Drop, error)

	last map[dropPlace]uint64 // counts of the last look; nil: this is the first
	at   time.Time            // of the last look
}

type dropPlace struct{ bridge, port, reason, source string }

// grow puts first what grew since the last look, by rate, and the rest by time.
func (w *dropsWatch) grow(now time.Time, drops []api.Drop) (grew int) {
	counts := map[dropPlace]uint64{}
	grows := map[dropPlace]bool{}
	for i := range drops {
		d := &drops[i]
		k := dropPlace{d.Bridge, d.Port, d.Reason, d.Source}
		counts[k] = d.Count
		if span := now.Sub(w.at).Seconds(); w.last != nil && span > 0 {
			d.Rate = 0
			if was := w.last[k]; d.Count > was {
				d.Rate = float64(d.Count-was) / span
			}
		}
		if grows[k] = d.Rate > 0; d.Rate > 0 {
			grew++
		}
	}
	slices.SortStableFunc(drops, func(x, y api.Drop) int {
		return cmp.Or(cmp.Compare(y.Rate, x.Rate), y.LastSeen.Compare(x.LastSeen))
	})
	w.last, w.at = counts, now
	return grew
}

func (a *app) watchDrops(ctx context.Context, w *dropsWatch) error {
	out, tty := a.out.(*os.File)
	tty = tty && a.format == "table" && isTerminal(out) && a.getenv("TERM") != "dumb"
	for n := 1; ; n++ {
		drops, err := w.get(ctx)
		if ctx.Err() != nil {
			return nil // interrupted: how it is meant to end
		}
		if err != nil {
			return err
		}
		now := a.now()
		grew := w.grow(now, drops)
		err = a.print(drops, func() string {
			text := fmt.Sprintf("%s  every %s  %d of %s happening now\n", a.clock(now), w.interval, grew, count(len(drops), "reason"))
			if len(drops) == 0 {
				text += "no frame was dropped\n"
			} else {
				text += a.dropTable(drops).String()
			}
			if tty {
				return repaint(out, text, n == 1)
			}
			return text + "\n"
		})
		if err != nil || n == w.count {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.interval):
		}
	}
}

// isTerminal reports whether a file is a terminal.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// repaint writes text over what stands on a terminal, cut to its size: from the top,
// each line cleared to its end, so that nothing flickers.
func repaint(out *os.File, text string, first bool) string {
	columns, rows := width, 24
	if ws, err := unix.IoctlGetWinsize(int(out.Fd()), unix.TIOCGWINSZ); err == nil && ws.Col > 0 && ws.Row > 0 {
		columns, rows = int(ws.Col), int(ws.Row)
	}
	lines := strings.Split(strings.TrimRight(text, "\n"), "\n")
	if len(lines) > rows-1 {
		lines = append(lines[:rows-2], fmt.Sprintf("… and %d lines more", len(lines)-(rows-2)))
	}
	var b strings.Builder
	if first {
		b.WriteString("\x1b[2J")
	}
	b.WriteString("\x1b[H")
	for _, l := range lines {
		b.WriteString(clip(l, columns) + "\x1b[K\r\n")
	}
	b.WriteString("\x1b[J")
	return b.String()
}

// clip cuts a line to a number of columns.
func clip(s string, columns int) string {
	if utf8.RuneCountInString(s) <= columns {
		return s
	}
	r := []rune(s)
	return string(r[:max(columns-1, 0)]) + "…"
}

// dropsText puts what was dropped last first: that is what hurts now.
func (a *app) dropsText(drops []api.Drop) string {
	if len(drops) == 0 {
		return "no frame was dropped\n"
	}
	drops = fold(drops)
	slices.SortStableFunc(drops, func(x, y api.Drop) int {
		return cmp.Or(y.LastSeen.Truncate(time.Second).Compare(x.LastSeen.Truncate(time.Second)), cmp.Compare(y.Count, x.Count),
			cmp.Compare(x.Bridge, y.Bridge), cmp.Compare(x.Port, y.Port), cmp.Compare(x.Reason, y.Reason), cmp.Compare(x.Source, y.Source))
	})
	t := a.dropRows(drops, true)
	if _, w := t.widths(); w > width {
		t = a.dropRows(drops, false)
	}
	return t.String()
}

// dropTable is the table of --watch, in the order given.
func (a *app) dropTable(drops []api.Drop) *table {
	folded := fold(drops)
	slices.SortStableFunc(folded, func(x, y api.Drop) int { return cmp.Compare(y.Rate, x.Rate) })
	return a.dropRows(folded, false)
}

// dropRows has the time of day only where there is room for it.
func (a *app) dropRows(drops []api.Drop, clock bool) *table {
	explained := map[string]bool{}
	sources := slices.ContainsFunc(drops, func(d api.Drop) bool { return d.Source != "" })
	titles := []string{"REASON", "BRIDGE", "PORT", ">COUNT", ">RATE", "LAST SEEN"}
	if sources {
		titles = slices.Insert(titles, 3, "SOURCE")
	}
	t := newTable("", titles...)
	for _, d := range drops {
		seen := "-"
		if !d.LastSeen.IsZero() {
			seen = ago(a.now().Sub(d.LastSeen)) + " ago"
		}
		if clock && !d.LastSeen.IsZero() {
			seen = a.clock(d.LastSeen) + " (" + seen + ")"
		}
		cells := []any{d.Reason, cmp.Or(d.Bridge, "-"), d.Port, d.Count, rate(d.Rate), seen}
		if sources {
			cells = slices.Insert(cells, 3, any(cmp.Or(d.Source, "-")))
		}
		r := t.add(cells...)
		if d.LastFrame != "" {
			r.under = append(r.under, "last: "+d.LastFrame)
		}
		if d.Help != "" && !explained[d.Help] {
			r.under = append(r.under, d.Help)
		}
		explained[d.Help] = true
	}
	return t
}

// rate is a number a second.
func rate(n float64) string {
	switch {
	case n == 0:
		return "-"
	case n < 9.95:
		return fmt.Sprintf("%.1f/s", n)
	}
	return short(uint64(n+0.5)) + "/s"
}

// mostSources is how many sources of one reason at one place are listed.
const mostSources = 10

// fold lists the sources that sent most for each reason at each place, and makes the
// others one row: a flood of forged sources must not hide the rest.
func fold(drops []api.Drop) []api.Drop {
	type place struct{ bridge, port, reason string }
	named := map[place][]api.Drop{}
	var rows []api.Drop
	for _, d := range drops {
		if d.Source == "" {
			rows = append(rows, d)
			continue
		}
		at := place{d.Bridge, d.Port, d.Reason}
		named[at] = append(named[at], d)
	}
	for _, all := range named {
		slices.SortFunc(all, func(x, y api.Drop) int {
			return cmp.Or(cmp.Compare(y.Count, x.Count), y.LastSeen.Compare(x.LastSeen), cmp.Compare(x.Source, y.Source))
		})
		if len(all) > mostSources {
			others := all[mostSources]
			others.Source = fmt.Sprintf("%d others", len(all)-mostSources)
			for _, d := range all[mostSources+1:] {
				others.Count += d.Count
				others.Rate += d.Rate
				if d.LastSeen.After(others.LastSeen) {
					others.LastSeen = d.LastSeen
				}
			}
			all = append(all[:mostSources], others)
		}
		rows = append(rows, all...)
	}
	return rows
}
