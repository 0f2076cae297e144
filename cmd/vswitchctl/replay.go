package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

func (a *app) replay() *cobra.Command {
	var speed string
	var loop int
	cmd := &cobra.Command{
		Use:        "replay [BR] in_port=P FILE",
		SuggestFor: []string{"tcpreplay", "inject"},
		Short:      "Put the frames of a capture file into the switch, as if they came in by a port",
		Long: `Put the frames of a capture file (pcap or pcapng; "-" is standard input) into the switch, as if
they came in by port P: they are learned, forwarded and counted like any other. They keep the
pace of the capture, times --speed. Frames that the capture says went out are left out. It ends
with the file, or with this command.`,
		Example: `  vswitchctl replay br0 in_port=veth1 seen.pcapng --speed 10
  tcpdump -i eth0 -w - | vswitchctl replay in_port=veth1 - --speed max`,
		Args: between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			bridge, port, rest, err := replayArgs(cmd, args)
			if err != nil {
				return err
			}
			v, err := api.ParseSpeed(speed)
			if err != nil {
				return &usageError{"--speed " + speed + ": max, or a number is wanted: times the speed of the capture", cmd}
			}
			switch {
			case loop < 1:
				return &usageError{fmt.Sprintf("--loop %d: a number above zero is wanted", loop), cmd}
			case loop > 1 && rest == "-":
				return &usageError{"--loop: standard input can be read only once", cmd}
			}
			return a.replayFile(cmd.Context(), api.ReplayQuery{Bridge: bridge, Port: port, Speed: v}, rest, loop)
		},
		ValidArgsFunction: a.completeReplay,
	}
	cmd.Flags().StringVar(&speed, "speed", "1", "times the speed of the capture, or max: `N`")
	cmd.Flags().IntVar(&loop, "loop", 1, "replay it `N` times")
	cmd.RegisterFlagCompletionFunc("speed", cobra.FixedCompletions([]string{"1", "10", "max"}, cobra.ShellCompDirectiveNoFileComp))
	cmd.RegisterFlagCompletionFunc("loop", cobra.NoFileCompletions)
	return cmd
}

// replayArgs reads [BR] in_port=P FILE.
func replayArgs(cmd *cobra.Command, args []string) (bridge, port, file string, err error) {
	var rest []string
	for _, arg := range args {
		if value, ok := strings.CutPrefix(arg, "in_port="); ok && port == "" {
			port = value
			continue
		}
		rest = append(rest, arg)
	}
	switch {
	case port == "":
		return "", "", "", &usageError{"in_port=P is missing: the port that the frames come in by", cmd}
	case len(rest) == 0:
		return "", "", "", &usageError{"the capture file is missing", cmd}
	case len(rest) > 2:
		return "", "", "", &usageError{fmt.Sprintf("%q is one argument too many", rest[2]), cmd}
	case len(rest) == 2:
		bridge = rest[0]
	}
	return bridge, port, rest[len(rest)-1], nil
}

// completeReplay offers bridges, then ports, then files.
func (a *app) completeReplay(cmd *cobra.Command, args []string, typed string) ([]string, cobra.ShellCompDirective) {
	for _, arg := range args {
		if strings.HasPrefix(arg, "in_port=") {
			return nil, cobra.ShellCompDirectiveDefault
		}
	}
	ports := func(before []string) []string {
		out := []string{"in_port="}
		for _, p := range a.ports(before) {
			out = append(out, "in_port="+p)
		}
		return out
	}
	return a.complete(func(b []string) []string { return append(a.bridges(b), ports(b)...) }, ports)(cmd, args, typed)
}

// replayFile sends a file so many times, and prints what became of all.
func (a *app) replayFile(ctx context.Context, q api.ReplayQuery, name string, times int) error {
	file, err := a.open(name)
	if err != nil {
		return err
	}
	defer file.Close()
	c := a.client()
	defer c.Close()
	var all api.ReplayResult
	for i := range times {
		if i > 0 {
			f, ok := file.(*os.File)
			if !ok {
				break
			}
			if _, err := f.Seek(0, io.SeekStart); err != nil {
				return fmt.Errorf("read %s again: %w", name, err)
			}
		}
		var r api.ReplayResult
		r, err = c.Replay(ctx, q, file, nil)
		addReplay(&all, r)
		if err != nil {
			break
		}
	}
	if err != nil && all.Frames == 0 && len(all.Refused) == 0 {
		return err
	}
	if errors.Is(err, context.Canceled) {
		return err // what was done by then is not known
	}
	return errors.Join(a.print(all, func() string { return replayText(all) }), err)
}

func addReplay(all *api.ReplayResult, r api.ReplayResult) {
	all.Frames += r.Frames
	all.Bytes += r.Bytes
	all.Seconds += r.Seconds
	all.Cut += r.Cut
	all.Skipped += r.Skipped
next:
	for _, x := range r.Refused {
		for i := range all.Refused {
			if all.Refused[i].Reason == x.Reason {
				all.Refused[i].Packets += x.Packets
				continue next
			}
		}
		all.Refused = append(all.Refused, x)
	}
}

func replayText(r api.ReplayResult) string {
	var b strings.Builder
	fmt.Fprintf(&b, "replayed %s, %s, in %.3f s", count(r.Frames, "frame"), count(r.Bytes, "byte"), r.Seconds)
	if r.Seconds > 0 && r.Frames > 0 {
		fmt.Fprintf(&b, ": %.0f frames a second", float64(r.Frames)/r.Seconds)
	}
	b.WriteString("\n")
	if r.Cut > 0 {
		wrapTo(&b, "  ", width, fmt.Sprintf("of these, %s had been cut in the capture: zeros stand for what is missing", count(r.Cut, "frame")))
	}
	if r.Skipped > 0 {
		wrapTo(&b, "  ", width, fmt.Sprintf("left out: %s that the capture says went out", count(r.Skipped, "frame")))
	}
	for _, x := range r.Refused {
		wrapTo(&b, "  ", width, fmt.Sprintf("refused: %s (the first is number %d): %s", count(x.Packets, "packet"), x.First, x.Reason))
	}
	return b.String()
}
