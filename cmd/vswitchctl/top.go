package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/gdamore/tcell/v2"
	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

func (a *app) top() *cobra.Command {
	t := &topRun{a: a}
	cmd := &cobra.Command{
		Use:        "top [BR] [--interval TIME] [--once]",
		SuggestFor: []string{"htop", "iftop", "rates"},
		Short:      "Watch rates: ports, tunnels, busiest MACs and flows, workers",
		Long: `Watch rates on the whole terminal, until q: ports with what they receive, send and drop a second and
how that was lately; tunnels and their state; the MAC addresses and flows that send most, as the
flight recorder estimates; the forwarding threads. The key ? lists all keys.

--once looks twice, an interval apart, prints one screen, and ends; -o json and -o yaml go with it.`,
		Example: "  vswitchctl top br0 --interval 500ms\n  vswitchctl top --once",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			t.bridge = arg(args, 0)
			switch {
			case t.interval < minInterval || t.interval > time.Minute:
				return &usageError{fmt.Sprintf("--interval %s: a time from %s to 1m is wanted, such as 1s", t.interval, minInterval), cmd}
			case a.format != "table" && !t.once:
				return &usageError{fmt.Sprintf("-o %s goes with --once", a.format), cmd}
			case t.once:
				return t.printOnce(cmd.Context())
			}
			return t.watch(cmd.Context())
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
	cmd.Flags().DurationVar(&t.interval, "interval", time.Second, "`TIME` between looks")
	cmd.Flags().BoolVar(&t.once, "once", false, "print one screen and end")
	return cmd
}

// topRun is one run of top.
type topRun struct {
	a        *app
	bridge   string
	interval time.Duration
	once     bool
}

// topTimeout is how long top waits for the daemon before it says that it is lost.
const topTimeout = 5 * time.Second

func (t *topRun) client() *api.Client { return api.NewClient(t.a.socket, min(t.a.timeout, topTimeout)) }

// look asks the daemon for all that is shown.
func (t *topRun) look(ctx context.Context, c *api.Client, interval time.Duration) (s topSample, err error) {
	if s.version, err = c.Version(ctx); err != nil {
		return s, err
	}
	if s.status, err = c.Status(ctx, t.bridge); err != nil {
		return s, err
	}
	s.at = t.a.now()
	if s.workers, err = c.Workers(ctx); err != nil {
		return s, err
	}
	q := api.TalkersQuery{Bridge: t.bridge, Window: min(max(interval, time.Second), api.MaxTalkersWindow), N: mostTalkers}
	s.talkers, err = c.Talkers(ctx, q)
	return s, err
}

// mostTalkers is how many MACs and flows are asked for.
const mostTalkers = 100

func (t *topRun) printOnce(ctx context.Context) error {
	c := t.client()
	defer c.Close()
	m := newTopModel()
	for i := range 2 {
		if i > 0 {
			select {
			case <-ctx.Done():
				return ctx.Err()
			case <-time.After(t.interval):
			}
		}
		s, err := t.look(ctx, c, t.interval)
		if err != nil {
			return err
		}
		m.add(s)
	}
	v := newTopView(unicodeGlyphs)
	return t.a.print(m.data, func() string { return v.plain(m.data) })
}

// watch shows it on the terminal.
func (t *topRun) watch(ctx context.Context) error {
	out, ok := t.a.out.(*os.File)
	if !ok || !isTerminal(out) {
		return errors.New("top needs a terminal to show itself on; `vswitchctl top --once` prints one screen")
	}
	term := t.a.getenv("TERM")
	if term == "" || term == "dumb" {
		return fmt.Errorf("top needs a terminal that can move its cursor, and TERM is %q; `vswitchctl top --once` prints one screen", term)
	}
	// The first look is before the screen: who has no daemon is told so as ever.
	c := t.client()
	defer c.Close()
	first, err := t.look(ctx, c, t.interval)
	if err != nil {
		return err
	}
	screen, err := tcell.NewScreen()
	if err == nil {
		err = screen.Init()
	}
	if err != nil {
		return fmt.Errorf("open the terminal %s: %w; `vswitchctl top --once` prints one screen", term, err)
	}
	glyphs := unicodeGlyphs
	// The Linux console's font has no eighths of a block.
	if term == "linux" || !screen.CanDisplay('▁', false) {
		glyphs = asciiGlyphs
	}
	return t.show(ctx, c, screen, glyphs, first)
}
