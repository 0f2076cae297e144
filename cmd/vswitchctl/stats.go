package main

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

func (a *app) stats() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "stats [BR [PORT]]",
		Short: "Show exact counters of bridges, ports and workers",
		Long: `Show exact counters. A super-frame counts as one frame. For each bridge, the frames received, the
copies made, and the answers that told senders of a tunnel's MTU, are the frames sent and dropped,
but for those in flight at that moment.`,
		Example: "  vswitchctl stats br0 veth1",
		Args:    between(0, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			stats, err := c.Stats(cmd.Context(), arg(args, 0), arg(args, 1))
			if err != nil {
				return err
			}
			return a.print(stats, func() string { return statsText(stats) })
		},
		ValidArgsFunction: a.complete(a.bridges, a.ports),
	}
	cmd.AddCommand(a.workers())
	return cmd
}

func statsText(stats []api.BridgeStats) string {
	var b strings.Builder
	for i, s := range stats {
		if i > 0 {
			b.WriteString("\n")
		}
		c := s.Counters
		b.WriteString(clean(s.Bridge) + "\n")
		answered := ""
		if c.Answers > 0 {
			answered = fmt.Sprintf(" + answered %d", c.Answers)
		}
		wrapTo(&b, "  ", width, fmt.Sprintf("received %d + copied %d (flood %d, mirror %d, split %d)%s = sent %d + dropped %d%s",
			c.Received, c.FloodCopies+c.MirrorCopies+c.SplitCopies, c.FloodCopies, c.MirrorCopies, c.SplitCopies, answered,
			c.Sent, c.Dropped, inFlight(c)))
		t := newTable("  ", "PORT", ">RX FRAMES", ">RX BYTES", ">RX MISSED", ">TX FRAMES", ">TX BYTES", ">DROPPED")
		for _, p := range s.Ports {
			c := p.Counters
			r := t.add(p.Port, c.RxFrames, c.RxBytes, c.RxMissed, c.TxFrames, c.TxBytes, c.Dropped)
			if d := reasons(c.Drops); d != "" {
				r.under = append(r.under, "dropped: "+d)
			}
		}
		b.WriteString(t.String())
	}
	return b.String()
}

// inFlight is what the sum is short of: frames that were read and not yet sent.
func inFlight(c api.BridgeCounters) string {
	in, out := c.Received+c.FloodCopies+c.MirrorCopies+c.SplitCopies+c.Answers, c.Sent+c.Dropped
	if in == out {
		return ""
	}
	return fmt.Sprintf(" + in flight %d", int64(in-out))
}

func reasons(drops map[string]uint64) string {
	var names []string
	for name := range drops {
		names = append(names, name)
	}
	slices.SortFunc(names, func(x, y string) int {
		return cmp.Or(cmp.Compare(drops[y], drops[x]), cmp.Compare(x, y))
	})
	for i, name := range names {
		names[i] = fmt.Sprintf("%s %d", name, drops[name])
	}
	return strings.Join(names, ", ")
}

func (a *app) workers() *cobra.Command {
	return &cobra.Command{
		Use:   "workers",
		Short: "Show the forwarding threads and their load",
		Long: `Show the forwarding threads. BUSY is the share of the time since the start; MEAN BATCH the
frames moved with one round of system calls: near 1 is an idle switch, near 64 a full one.`,
		Example: "  vswitchctl stats workers",
		Args:    between(0, 0),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			workers, err := c.Workers(cmd.Context())
			if err != nil {
				return err
			}
			return a.print(workers, func() string {
				t := newTable("", ">WORKER", ">BUSY", ">SPINNING", ">FRAMES", ">BATCHES", ">MEAN BATCH", ">WAKEUPS", ">BUFFERS", ">FREE")
				for _, w := range workers {
					ports := "no ports"
					if len(w.Ports) > 0 {
						ports = count(len(w.Ports), "port") + ": " + strings.Join(w.Ports, " ")
					}
					r := t.add(w.Worker, fmt.Sprintf("%.1f%%", 100*w.Busy), fmt.Sprintf("%.1f%%", 100*w.Spinning), w.Frames, w.Batches,
						fmt.Sprintf("%.1f", w.MeanBatch), w.Wakeups, w.Buffers, w.Free)
					r.under = append(r.under, ports)
				}
				return t.String()
			})
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
}
