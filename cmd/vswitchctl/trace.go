package main

import (
	"cmp"
	"context"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/capture"
	"vswitch/capture/reader"
	"vswitch/ctl/api"
	"vswitch/ctl/craft"
)

// traceFlags are what trace is told beside words.
type traceFlags struct {
	frame, pcap, path string
	live              bool
	count             int
}

func (a *app) trace() *cobra.Command {
	var f traceFlags
	cmd := &cobra.Command{
		Use:        "trace [BR] in_port=P WORD…|--frame HEX|--pcap FILE",
		SuggestFor: []string{"ofproto/trace", "packet-tracer"},
		Short:      "Show what the switch would do with a frame, or does with real ones (--live), step by step",
		Long: `Show what the switch would do with a frame that comes in by port P, step by step, and by which
ports it would leave. The steps are taken by the code that forwards, on a copy of its state:
nothing is sent, counted or learned.

The frame is made of words, or given in hexadecimal digits (--frame), or read from a capture file
(--pcap; of a pcapng file, a frame comes in by the port that its interface is named after, unless
in_port= says otherwise). "-" is standard input.

--live shows the same for real frames as they pass: trace --live [BR|in_port=P] ['FILTER'], the
filter as tcpdump has it.
--path MAC|IP sends marked frames from a port, and shows each switch on the way:
trace --path MAC|IP P [BR] [vlan=N].

` + wordsHelp(),
		Example: `  vswitchctl trace br0 in_port=veth1 eth_dst=02:00:00:00:00:02 ip_dst=10.0.0.2 proto=tcp port=80
  vswitchctl trace in_port=veth1 eth_dst=broadcast arp arp_tpa=10.0.0.2
  vswitchctl trace in_port=veth1 --pcap seen.pcapng -c 3
  vswitchctl trace --live br0 'icmp' -c 2`,
		Args: between(0, -1),
		RunE: func(cmd *cobra.Command, args []string) error {
			var ways []string
			for name, given := range map[string]bool{"--frame": f.frame != "", "--pcap": f.pcap != "", "--live": f.live, "--path": f.path != ""} {
				if given {
					ways = append(ways, name)
				}
			}
			slices.Sort(ways)
			switch {
			case len(ways) > 1:
				return &usageError{strings.Join(ways, " and ") + ": one of them is wanted", cmd}
			case f.path != "":
				return a.tracePath(cmd, f.path, args)
			case f.count < 0:
				return &usageError{fmt.Sprintf("-c %d: a number above zero is wanted", f.count), cmd}
			case f.live:
				return a.traceLive(cmd, args, f)
			}
			return a.traceGiven(cmd, args, f)
		},
		ValidArgsFunction: a.complete(a.bridges, a.traceWords),
	}
	cmd.Flags().StringVar(&f.frame, "frame", "", "the frame in `HEX`adecimal digits, its VLAN tag included")
	cmd.Flags().StringVar(&f.pcap, "pcap", "", "the frames of a capture `FILE`, pcap or pcapng")
	cmd.Flags().BoolVar(&f.live, "live", false, "real frames, as they pass")
	cmd.Flags().IntVarP(&f.count, "count", "c", 0, fmt.Sprintf("end after `N` frames; with --live %d unless given", api.DefaultTraceCount))
	cmd.Flags().StringVar(&f.path, "path", "", "the way to this `MAC|IP` over all hosts, by probes")
	cmd.RegisterFlagCompletionFunc("frame", cobra.NoFileCompletions)
	cmd.RegisterFlagCompletionFunc("path", cobra.NoFileCompletions)
	return cmd
}

// wordsHelp lists the words that make a frame.
func wordsHelp() string {
	var b strings.Builder
	b.WriteString("Words (OVS's spellings such as nw_dst, tp_dst and dl_vlan are understood, too):\n")
	t := newTable("  ", "WORD", "WHAT IT IS")
	for _, w := range craft.Words() {
		if help := craft.Help(w); help != "" {
			t.add(w, help)
		}
	}
	_, rest, _ := strings.Cut(t.String(), "\n")
	b.WriteString(rest)
	wrapTo(&b, "  ", width, "alone: tcp, udp, icmp, icmp6, tcp6, udp6, arp")
	return strings.TrimRight(b.String(), "\n")
}

// traceWords are the ports of the bridge that was typed first, and the words.
func (a *app) traceWords(before []string) []string {
	out := []string{"in_port="}
	for _, p := range a.ports(before) {
		out = append(out, "in_port="+p)
	}
	return append(out, craft.Words()...)
}

// portArgs takes [BR] and in_port=P out of args.
func portArgs(cmd *cobra.Command, args []string) (bridge, port string, rest []string, err error) {
	for i, arg := range args {
		value, isPort := strings.CutPrefix(arg, "in_port=")
		switch {
		case isPort && (port != "" || value == ""):
			return "", "", nil, &usageError{fmt.Sprintf("%q: one port is wanted, once", arg), cmd}
		case isPort:
			port = value
		case i == 0 && !strings.ContainsAny(arg, "=,") && !craft.IsWord(arg):
			bridge = arg
		default:
			rest = append(rest, arg)
		}
	}
	return bridge, port, rest, nil
}

// traceGiven traces frames that the command line gives.
func (a *app) traceGiven(cmd *cobra.Command, args []string, f traceFlags) error {
	bridge, port, words, err := portArgs(cmd, args)
	if err != nil {
		return err
	}
	switch {
	case f.pcap != "" && len(words) == 0:
		return a.tracePcap(cmd.Context(), api.TraceRequest{Bridge: bridge, InPort: port}, f)
	case (f.pcap != "" || f.frame != "") && len(words) > 0:
		return &usageError{fmt.Sprintf("%q: words make a frame, and here it is given", words[0]), cmd}
	case port == "":
		return &usageError{"in_port=P is missing: the port that the frame comes in by", cmd}
	}
	c := a.client()
	defer c.Close()
	r := api.TraceRequest{Bridge: bridge, InPort: port}
	if f.frame != "" {
		if f.frame == "-" {
			text, err := io.ReadAll(io.LimitReader(a.in, 1<<20))
			if err != nil {
				return fmt.Errorf("read standard input: %w", err)
			}
			f.frame = string(text)
		}
		data, err := reader.Hex(f.frame)
		if err != nil {
			return &usageError{"frame: " + err.Error(), cmd}
		}
		r.Frame = hex.EncodeToString(data)
	} else {
		made, err := a.crafted(cmd, c, bridge, port, words)
		if err != nil {
			return err
		}
		r.Frame = hex.EncodeToString(made.Data)
		if o := api.TraceOffload(made.Offload); o != (api.TraceOffload{}) {
			r.Offload = &o
		}
	}
	t, err := c.Trace(cmd.Context(), r)
	if err != nil {
		return err
	}
	return a.print(t, func() string { return traceText(&t) })
}

// crafted makes a frame of words. Addresses that they leave out are what the daemon
// knows, if that is one.
func (a *app) crafted(cmd *cobra.Command, c *api.Client, bridge, port string, words []string) (craft.Frame, error) {
	s, err := craft.Parse(words)
	if err != nil {
		return craft.Frame{}, &usageError{err.Error(), nil}
	}
	if s.NeedsSource() {
		mac, err := a.sourceAt(cmd, c, bridge, port)
		if err != nil {
			return craft.Frame{}, err
		}
		s.SetSource(mac)
	}
	if ip := s.Destination(); s.NeedsDestination() && ip.IsValid() {
		mac, err := a.ownerOf(cmd, c, bridge, ip.String())
		if err != nil {
			return craft.Frame{}, err
		}
		s.SetDestination(mac)
	}
	made, err := s.Frame()
	if err != nil {
		return craft.Frame{}, &usageError{err.Error(), nil}
	}
	return made, nil
}

// maxOffered is how many addresses a refusal names.
const maxOffered = 3

// sourceAt is the one MAC address that was learned at a port.
func (a *app) sourceAt(cmd *cobra.Command, c *api.Client, bridge, port string) (net.HardwareAddr, error) {
	entries, err := c.FDB(cmd.Context(), api.FDBQuery{Bridge: bridge, Port: port, VLAN: -1})
	if err != nil {
		return nil, err
	}
	var macs []string
	for _, e := range entries {
		if !slices.Contains(macs, e.MAC) {
			macs = append(macs, e.MAC)
		}
	}
	return a.one("eth_src", macs, fmt.Sprintf("no MAC address is known at %s", port), fmt.Sprintf("of the %d that are known at %s", len(macs), port), "is known at "+port)
}

// ownerOf is the one MAC address that says it has an IP address.
func (a *app) ownerOf(cmd *cobra.Command, c *api.Client, bridge, ip string) (net.HardwareAddr, error) {
	why, err := c.Why(cmd.Context(), api.WhyQuery{Address: ip, Bridge: bridge})
	if err != nil {
		return nil, err
	}
	var macs []string
	for _, n := range why.Neighbors {
		if n.IP == ip && !slices.Contains(macs, n.MAC) {
			macs = append(macs, n.MAC)
		}
	}
	return a.one("eth_dst", macs, "nobody was heard to say that he has "+ip, fmt.Sprintf("of the %d that say they have %s", len(macs), ip), "said that it has "+ip)
}

// one takes the only address of a list, and says so; or says what to give.
func (a *app) one(word string, macs []string, none, many, because string) (net.HardwareAddr, error) {
	switch {
	case len(macs) == 0:
		say := fmt.Sprintf("%s= is missing, and %s: give it", word, none)
		if word == "eth_dst" {
			say += ", or eth_dst=broadcast"
		}
		return nil, &usageError{say, nil}
	case len(macs) > 1:
		offered := strings.Join(macs[:min(len(macs), maxOffered)], ", ")
		if len(macs) > maxOffered {
			offered += ", …"
		}
		return nil, &usageError{fmt.Sprintf("%s= is missing: give one %s: %s", word, many, offered), nil}
	}
	mac, err := net.ParseMAC(macs[0])
	if err != nil {
		return nil, fmt.Errorf("read the daemon's answer: %w", err)
	}
	fmt.Fprintf(a.err, "%s=%s, which %s\n", word, clean(macs[0]), clean(because))
	return mac, nil
}

// tracePcap traces the frames of a capture file, those that came in.
func (a *app) tracePcap(ctx context.Context, r api.TraceRequest, f traceFlags) error {
	file, err := a.open(f.pcap)
	if err != nil {
		return err
	}
	defer file.Close()
	in, err := reader.New(file)
	if err != nil {
		return fmt.Errorf("%s: %w", f.pcap, err)
	}
	c := a.client()
	defer c.Close()
	traced := 0
	var mtus map[string]int // of ports; nil: not asked for yet
	for f.count == 0 || traced < f.count {
		p, err := in.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return fmt.Errorf("%s: %w", f.pcap, err)
		}
		if p.Direction == capture.Outbound {
			continue
		}
		data, cut, err := p.Frame()
		if err != nil {
			fmt.Fprintf(a.err, "frame %d: %s\n", p.Number, err)
			continue
		}
		one := r
		if one.InPort == "" {
			one.InPort = p.Interface
		}
		if one.InPort == "" {
			return &usageError{fmt.Sprintf("in_port=P is missing: %s does not say by which port frame %d came in", f.pcap, p.Number), nil}
		}
		if len(data) > mtuOfEthernet { // perhaps a super-frame: the file does not say
			if mtus == nil {
				mtus = a.mtus()
			}
			if o, ok := reader.Restore(data, cmp.Or(mtus[one.InPort], mtuOfEthernet)); ok {
				offload := api.TraceOffload(o)
				one.Offload = &offload
			}
		}
		one.Frame = hex.EncodeToString(data)
		t, err := c.Trace(ctx, one)
		if err != nil {
			return fmt.Errorf("frame %d: %w", p.Number, err)
		}
		title := fmt.Sprintf("frame %d", p.Number)
		if cut {
			title += fmt.Sprintf(", of which %d bytes of %d are in the file: the rest is zeros", len(p.Data), p.Len)
		}
		if err := a.traced(&t, title, traced > 0); err != nil {
			return err
		}
		traced++
	}
	if traced == 0 {
		fmt.Fprintf(a.err, "no frame of %s came in by a port\n", clean(f.pcap))
	}
	return nil
}

// mtuOfEthernet is an interface's, where nothing is known of it.
const mtuOfEthernet = 1500

// mtus returns the ports' MTUs.
func (a *app) mtus() map[string]int {
	all := map[string]int{}
	for _, b := range a.status().Bridges {
		for _, p := range b.Ports {
			all[p.Name] = p.MTU
		}
	}
	return all
}

// open opens a file, or standard input for "-".
func (a *app) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(a.in), nil
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	return f, nil
}

// traceLive shows real frames.
func (a *app) traceLive(cmd *cobra.Command, args []string, f traceFlags) error {
	q := api.TraceQuery{Count: f.count}
	var words []string
	for _, arg := range args {
		if port, ok := strings.CutPrefix(arg, "in_port="); ok {
			q.Port = port
			continue
		}
		words = append(words, arg)
	}
	if len(words) > 0 && slices.Contains(a.bridges(nil), words[0]) {
		q.Bridge, words = words[0], words[1:]
	}
	q.Filter = strings.Join(words, " ")
	c := a.client()
	defer c.Close()
	first := true
	end, err := c.TraceLive(cmd.Context(), q, nil, func(t *api.Trace) error {
		title := t.Time.In(a.now().Location()).Format("15:04:05.000000")
		again := !first
		first = false
		return a.traced(t, title, again)
	})
	if errors.Is(err, context.Canceled) {
		return nil // interrupted: how it may end
	}
	if end.Missed > 0 {
		fmt.Fprintf(a.err, "%s matched, too, and came too fast to be traced\n", count(end.Missed, "frame"))
	}
	return err
}
