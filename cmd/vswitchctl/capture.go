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

func (a *app) capture() *cobra.Command {
	var q api.CaptureQuery
	var file string
	var in, out, local bool
	cmd := &cobra.Command{
		Use:        "capture BR|PORT [-w FILE] [-i|-o] [--drops] [-c N] ['FILTER']",
		SuggestFor: []string{"tcpdump", "sniff", "dump", "pcap"},
		Short:      "Show the frames that pass a bridge or a port, or write them to a file for Wireshark",
		Long: `Show the frames that pass a bridge or a port as they pass, a line each, until interrupted; drops
among them, with what to do about each reason, once. FILTER is tcpdump's language.

With -w FILE they are written in pcapng format, each with a comment that says where it was and what
became of it; -w - is standard output:

  vswitchctl capture br0 -w - | wireshark -k -i -
  ssh host vswitchctl capture br0 -w - | wireshark -k -i -

A bridge's name is that of its local port, too: it means the bridge, and with --local the port.
Checksums are finished; a super-frame stays one frame unless --split is given. -o json prints JSON
lines, -o yaml YAML documents; another or no word behind -o makes it --out.`,
		Example: `  vswitchctl capture veth1 arp or icmp
  vswitchctl capture br0 --drops
  vswitchctl capture br0 -w br0.pcapng 'host 10.0.0.1 and tcp port 80'
  vswitchctl capture vx0 --tunnel outer`,
		Args: between(1, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			q.Name, q.Filter = args[0], strings.Join(args[1:], " ")
			if local {
				q.Name, q.Port = "", args[0]
			}
			switch {
			case q.Count < 0:
				return &usageError{fmt.Sprintf("-c %d: a number of frames above zero is wanted", q.Count), cmd}
			case q.Snap < 0 || q.Snap > api.MaxSnap:
				return &usageError{fmt.Sprintf("-s %d: a number of bytes from 0 (all) to %d is wanted", q.Snap, api.MaxSnap), cmd}
			case q.Tunnel != "inner" && q.Tunnel != "outer":
				return &usageError{fmt.Sprintf("--tunnel %q: there are inner and outer", q.Tunnel), cmd}
			case in && !out:
				q.Direction = "in"
			case out && !in:
				q.Direction = "out"
			}
			c := a.client()
			defer c.Close()
			if file != "" {
				if err := a.mayWrite(file); err != nil {
					return err
				}
				f, err := c.CaptureFile(cmd.Context(), q)
				if err != nil {
					return a.refusedCapture(err, args[0])
				}
				a.capturing(f.Of, local)
				n, err := a.save(f.Body, file)
				return a.ended(n, err, q.Count)
			}
			p := a.framePrinter()
			err := c.CaptureLines(cmd.Context(), q, func(of string) { a.capturing(of, local) }, p.frame)
			if _, refused := errors.AsType[*api.Error](err); refused {
				return a.refusedCapture(err, args[0])
			}
			return a.ended(p.n, err, q.Count)
		},
		ValidArgsFunction: a.complete(a.bridgesAndPorts),
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVarP(&file, "write", "w", "", "write the frames to `FILE` in pcapng format; - is standard output")
	f.BoolVarP(&in, "in", "i", false, "only frames that come in")
	f.BoolVar(&out, "out", false, "only frames that leave (also -o, with no format behind it)")
	f.BoolVar(&q.Drops, "drops", false, "only frames that are dropped")
	f.StringVar(&q.Tunnel, "tunnel", "inner", "`outer`: the packets of tunnels on the underlay, inner: the frames within")
	f.IntVarP(&q.Count, "count", "c", 0, "end after `N` frames")
	f.IntVarP(&q.Snap, "snaplen", "s", 0, "keep only `N` bytes of a frame; 0 is all")
	f.BoolVar(&q.Split, "split", false, "super-frames as the segments they stand for")
	f.BoolVar(&local, "local", false, "the local port of the bridge, not the bridge")
	cmd.RegisterFlagCompletionFunc("tunnel", cobra.FixedCompletions([]string{"inner", "outer"}, cobra.ShellCompDirectiveNoFileComp))
	for _, name := range []string{"count", "snaplen"} {
		cmd.RegisterFlagCompletionFunc(name, cobra.NoFileCompletions)
	}
	return cmd
}

// outFlag makes capture's -o what it was meant to be: the format of the output where
// one follows, as with any verb, and else the direction.
func outFlag(args []string) []string {
	verb := slices.Index(args, "capture")
	if verb < 0 || args[0] == cobra.ShellCompRequestCmd || args[0] == cobra.ShellCompNoDescRequestCmd {
		return args
	}
	done := slices.Clone(args[:verb])
	for i := verb; i < len(args); i++ {
		switch {
		case args[i] == "--":
			return append(done, args[i:]...)
		case args[i] != "-o":
			done = append(done, args[i])
		case i+1 < len(args) && slices.Contains([]string{"table", "json", "yaml"}, args[i+1]):
			i++
			done = append(done, "--output="+args[i])
		default:
			done = append(done, "--out")
		}
	}
	return done
}

// capturing says what is captured, to a human who would else see nothing.
func (a *app) capturing(of string, local bool) {
	if bridge, ok := strings.CutPrefix(of, "bridge "); ok && !local {
		of += " (its local port alone: capture " + bridge + " --local)"
	}
	fmt.Fprintln(a.err, clean("capturing on "+of))
}

// counts is what became of a capture's frames.
type counts struct{ frames, missed uint64 }

// ended says how many frames a capture had, and why it ended, if it was not meant to.
// One that was asked for so many frames ends by itself.
func (a *app) ended(n counts, err error, asked int) error {
	fmt.Fprintf(a.err, "%s, %d missed\n", count(n.frames, "frame"), n.missed)
	switch {
	case errors.Is(err, context.Canceled):
		return nil // interrupted: how it is meant to end
	case err == nil && (asked == 0 || n.frames < uint64(asked)):
		return &api.UnreachableError{Socket: a.socket, Reason: "the daemon ended the capture: it stops"}
	}
	return err
}

// refusedCapture says how a port is reached whose name was taken for something else.
func (a *app) refusedCapture(err error, name string) error {
	if e, ok := errors.AsType[*api.Error](err); ok && e.Field == "name" {
		return fmt.Errorf("%w; `vswitchctl show` lists what there is", err)
	}
	return err
}

// framePrinter prints captured frames as -o asks.
type framePrinter struct {
	*app
	n      counts
	helped map[string]bool // reasons whose help was printed
	ports  int             // width of the longest port so far
}

func (a *app) framePrinter() *framePrinter {
	return &framePrinter{app: a, helped: map[string]bool{}}
}

func (p *framePrinter) frame(f *api.CapturedFrame) (err error) {
	p.n.frames++
	p.n.missed += f.Missed
	switch p.format {
	case "json":
		enc := json.NewEncoder(p.out) // one line, unlike print
		enc.SetEscapeHTML(false)
		err = enc.Encode(f)
	case "yaml":
		var text []byte
		if text, err = toYAML(f); err == nil {
			_, err = fmt.Fprintf(p.out, "---\n%s", text)
		}
	default:
		_, err = fmt.Fprint(p.out, p.line(f))
	}
	if err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

// line is a frame as a human reads it:
//
//	03:14:15.000001 veth1 in  vlan 10  02:…:01 > 02:…:02, IPv4 10.0.0.1 > …  -> veth2
//	03:14:15.000002 veth1 in  DROPPED vlan-not-trunked  02:…:01 > 02:…:02, …
//	    the frame's VLAN is not among the port's trunks; …
func (p *framePrinter) line(f *api.CapturedFrame) string {
	var b strings.Builder
	if f.Missed > 0 {
		fmt.Fprintf(&b, "(%s missed here)\n", count(f.Missed, "frame"))
	}
	port := clean(f.Port)
	if f.Interface != "" {
		port += " on " + clean(f.Interface)
	}
	p.ports = max(p.ports, len(port))
	fmt.Fprintf(&b, "%s %-*s %-3s ", f.Time.In(p.now().Location()).Format("15:04:05.000000"), p.ports, port, f.Direction)
	if f.VLAN != 0 {
		fmt.Fprintf(&b, "vlan %d  ", f.VLAN)
	}
	if f.Reason != "" {
		fmt.Fprintf(&b, "DROPPED %s  ", clean(f.Reason))
	}
	b.WriteString(clean(f.Summary))
	if f.Output != "" {
		fmt.Fprintf(&b, "  -> %s", clean(f.Output))
		if f.Outputs > 1 {
			fmt.Fprintf(&b, " and %d more", f.Outputs-1)
		}
	}
	if f.Own {
		b.WriteString(", made by the switch")
	}
	if f.Skipped > 0 {
		fmt.Fprintf(&b, ", stands for 1+%d frames", f.Skipped)
	}
	if f.Note != "" {
		fmt.Fprintf(&b, " (%s)", clean(f.Note))
	}
	b.WriteString("\n")
	if f.Reason != "" && f.Help != "" && !p.helped[f.Reason] {
		p.helped[f.Reason] = true
		wrapTo(&b, "    ", width, f.Help)
	}
	return b.String()
}
