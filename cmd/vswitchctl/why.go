package main

import (
	"cmp"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

func (a *app) why() *cobra.Command {
	return &cobra.Command{
		Use:        "why MAC|IP [BR]",
		SuggestFor: []string{"where", "who", "arp", "neigh", "neighbors"},
		Short:      "Tell where an address is, how it is doing, and which drops named it",
		Long: `Tell all that the switch knows of a MAC or IP address, the verdict first: behind which port it is
and in which VLAN, since when, how often it moved and between which ports; what ARP and neighbour
discovery said of it; how its port is; which dropped frames named it lately, as the flight recorder
has them; what contradicts itself; and what to try next.`,
		Example: "  vswitchctl why 10.0.0.5\n  vswitchctl why 02:00:00:00:00:05 br0",
		Args:    between(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			address, err := api.ParseAddress(args[0])
			if err != nil {
				return &usageError{fmt.Sprintf("%q is not a MAC address such as 02:00:00:00:00:01, nor an IP address such as 10.0.0.5", args[0]), cmd}
			}
			c := a.client()
			defer c.Close()
			w, err := c.Why(cmd.Context(), api.WhyQuery{Address: address, Bridge: arg(args, 1)})
			if err != nil {
				return err
			}
			return a.print(w, func() string { return a.whyText(w) })
		},
		ValidArgsFunction: a.complete(func([]string) []string { return a.macs(nil) }, a.bridges),
	}
}

func (a *app) whyText(w api.Why) string {
	var b strings.Builder
	wrapTo(&b, "", width, w.Verdict)
	for _, c := range w.Contradictions {
		wrapTo(&b, "", width, "CONTRADICTION: "+c)
	}
	if len(w.Places) > 0 {
		b.WriteString("\n" + a.placesTable(w.Places).String())
	}
	if len(w.Neighbors) > 0 {
		b.WriteString("\n" + a.neighborsTable(w.Neighbors).String())
	}
	b.WriteString("\n" + a.whyDrops(w))
	if len(w.Try) > 0 {
		b.WriteString("\ntry\n")
		for _, t := range w.Try {
			wrapTo(&b, "  ", width, t)
		}
	}
	return b.String()
}

func (a *app) placesTable(places []api.WhyPlace) *table {
	t := newTable("", "MAC", "BRIDGE", ">VLAN", "PORT", "STATE", "LEARNED", "LAST HEARD", ">MOVED")
	for _, p := range places {
		state := stateText(cmp.Or(p.State, "removed"))
		if p.Gone != "" {
			state = "was there"
		}
		learned, heard := "long ago", "-"
		switch {
		case p.Static:
			learned = "static"
		case p.Learned != nil:
			learned = ago(a.now().Sub(*p.Learned)) + " ago"
		case p.Own && p.LastHeard == nil:
			learned = "-"
		}
		switch {
		case p.LastHeard != nil:
			heard = ago(a.now().Sub(*p.LastHeard)) + " ago"
		case p.GoneAt != nil:
			heard = p.Gone + " " + ago(a.now().Sub(*p.GoneAt)) + " ago"
		case p.Gone != "":
			heard = p.Gone
		}
		r := t.add(p.MAC, p.Bridge, p.VLAN, p.Port, state, learned, heard, p.Moves)
		r.under = append(r.under, a.placeFacts(p)...)
	}
	return t
}

// placeFacts are the sentences beneath a place.
func (a *app) placeFacts(p api.WhyPlace) (facts []string) {
	if p.Own {
		facts = append(facts, "this host's own")
	}
	if p.Remote != "" {
		facts = append(facts, "a "+p.Type+" tunnel to "+p.Remote)
	}
	if p.State != "" && p.State != api.PortUp && p.Gone == "" {
		text := "the port is " + p.State
		if !p.Since.IsZero() {
			text += " for " + ago(a.now().Sub(p.Since))
		}
		if p.Reason != "" {
			text += ": " + p.Reason
		}
		facts = append(facts, text)
	}
	if len(p.Moved) > 0 {
		var moves []string
		for _, m := range p.Moved {
			moves = append(moves, fmt.Sprintf("%s ago from %s to %s", ago(a.now().Sub(m.Time)), m.From, m.To))
		}
		facts = append(facts, "moved "+strings.Join(moves, ", "))
	}
	if f := p.Flap; f != nil {
		facts = append(facts, fmt.Sprintf("FLAPPING between %s and %s: held at %s for %s more", f.Held, f.Other, f.Held, ago(f.Until.Sub(a.now()))))
	}
	if p.Dropped > 0 && p.Gone == "" {
		facts = append(facts, fmt.Sprintf("%s at this port, whoever they were of: `vswitchctl drops %s %s`", droppedText(p.Dropped), p.Bridge, p.Port))
	}
	if len(p.Limits) > 0 {
		facts = append(facts, strings.Join(p.Limits, "; "))
	}
	return facts
}

func droppedText(n uint64) string {
	if n == 1 {
		return "1 frame was dropped"
	}
	return count(n, "frame") + " were dropped"
}

func (a *app) neighborsTable(neighbors []api.Neighbor) *table {
	t := newTable("", "IP", "MAC", "BRIDGE", ">VLAN", "PORT", "SAID BY", "LAST", "FIRST")
	for _, n := range neighbors {
		r := t.add(n.IP, n.MAC, n.Bridge, n.VLAN, n.Port, n.By, ago(a.now().Sub(n.LastSeen))+" ago", ago(a.now().Sub(n.FirstSeen))+" ago")
		if c := n.Conflict; c != nil {
			r.under = append(r.under, fmt.Sprintf("and by %s at %s within a minute, %s, last %s ago", c.MAC, c.Port, count(c.Count, "time"), ago(a.now().Sub(c.Last))))
		}
	}
	return t
}

// whyDrops tells of the drops that named the address, or how far back there are none.
func (a *app) whyDrops(w api.Why) string {
	if len(w.Drops) == 0 {
		switch {
		case !w.Recorder:
			return "no drop is known to have named it; the flight recorder is off\n"
		case w.Since == nil:
			return "no dropped frame is known to have named it\n"
		}
		return fmt.Sprintf("no dropped frame named it in the last %s\n", ago(a.now().Sub(*w.Since)))
	}
	t := newTable("", "DROPPED", "BRIDGE", "PORT", ">COUNT", "NAMED AS", "LAST SEEN")
	for _, d := range w.Drops {
		as := d.As
		if as == "both" {
			as = "source and destination"
		}
		r := t.add(d.Reason, d.Bridge, d.Port, d.Count, as, ago(a.now().Sub(d.LastSeen))+" ago")
		r.under = append(r.under, "last: "+d.LastFrame, d.Help)
	}
	return t.String()
}
