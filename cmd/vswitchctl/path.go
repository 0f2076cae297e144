package main

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

// tracePath shows the way of marked frames from a port to an address. words are P [BR],
// or in_port=P, and vlan=N.
func (a *app) tracePath(cmd *cobra.Command, target string, words []string) error {
	q := api.PathQuery{Target: target}
	var bare []string
	for _, w := range words {
		if port, ok := strings.CutPrefix(w, "in_port="); ok {
			q.FromPort = port
		} else if vlan, ok := strings.CutPrefix(w, "vlan="); ok {
			n, err := strconv.Atoi(vlan)
			if err != nil || n < 0 || n > 4094 {
				return &usageError{fmt.Sprintf("%q: a VLAN from 0 (untagged) to 4094 is wanted", w), cmd}
			}
			q.VLAN = &n
		} else {
			bare = append(bare, w)
		}
	}
	if q.FromPort == "" && len(bare) > 0 {
		q.FromPort, bare = bare[0], bare[1:]
	}
	switch {
	case q.FromPort == "":
		return &usageError{"--path MAC|IP wants the port that the probes come in by: trace --path 10.0.0.2 veth1", cmd}
	case len(bare) > 1 || len(bare) == 1 && strings.Contains(bare[0], "="):
		return &usageError{fmt.Sprintf("%q: with --path there are a port, its bridge, and vlan=N", bare[len(bare)-1]), cmd}
	case len(bare) == 1:
		q.Bridge = bare[0]
	}
	c := a.client()
	defer c.Close()
	p, err := c.Path(cmd.Context(), q)
	if err != nil {
		return err
	}
	return a.print(p, func() string { return pathText(p) })
}

// pathText is a hop a line, and what it comes to.
func pathText(p api.Path) string {
	var b strings.Builder
	to := p.Target
	if p.MAC != p.Target {
		to += " (" + p.MAC + ")"
	}
	from := p.Source
	if p.Made {
		from += " (nobody's: the probe's own)"
	}
	vlan := ""
	if p.VLAN != 0 {
		vlan = fmt.Sprintf(" in VLAN %d", p.VLAN)
	}
	wrapTo(&b, "", width, fmt.Sprintf("to %s from %s%s", to, from, vlan))
	t := pathTable(p, true)
	if _, w := t.widths(); w > width {
		t = pathTable(p, false)
	}
	b.WriteString(t.String())
	wrapTo(&b, "", width, "verdict: "+p.Verdict)
	if p.Fix != "" {
		wrapTo(&b, "     ", width, "fix: "+p.Fix)
	}
	return b.String()
}

// pathTable has a hop a row; where its output is not inline, it stands beneath.
func pathTable(p api.Path, inline bool) *table {
	inVLAN := slices.ContainsFunc(p.Hops, func(h api.PathHop) bool { return h.VLAN != 0 })
	titles := []string{">HOP", "HOST", "BRIDGE", ">VLAN", "WAY", ">RTT", ">MORE", ">DWELL"}
	if !inVLAN {
		titles = slices.Delete(titles, 3, 4)
	}
	t := newTable("", titles...)
	var last float64
	for _, h := range p.Hops {
		rtt, more, here := millis(h.RTT), "", millis(h.Dwell)
		switch {
		case h.Silent:
			rtt, here = "*", ""
		case h.Hop > 0:
			more = fmt.Sprintf("%+.2f", (h.RTT-last)/1000)
			last = h.RTT
		default:
			rtt, last = "", 0
		}
		way, under := wayText(h, inline)
		cells := []any{h.Hop + 1, cmp.Or(h.Host, "?"), cmp.Or(h.Bridge, "?"), h.VLAN, way, rtt, more, here}
		if !inVLAN {
			cells = slices.Delete(cells, 3, 4)
		}
		r := t.add(cells...)
		r.under = append(under, h.Notes...)
	}
	return t
}

func millis(us float64) string { return fmt.Sprintf("%.2f ms", us/1000) }

// wayText is by which ports a frame comes and leaves, and what does not fit in there.
func wayText(h api.PathHop, inline bool) (way string, under []string) {
	for _, x := range h.Drops {
		where := "dropped"
		if x.Out || x.Bridge != "" {
			where = "dropped at " + outText(api.PathOutput{Bridge: x.Bridge, Port: x.Port})
		}
		under = append(under, where+": "+x.Reason+helpAfter(x.Help))
	}
	n := len(h.Outputs) + h.More
	switch {
	case h.Silent:
		return "no answer", under
	case n == 0 && len(h.Drops) > 0:
		return h.InPort + " -> dropped", under
	case n == 0:
		return h.InPort + " -> nowhere", under
	case n == 1 && inline && len(h.Outputs) == 1:
		return h.InPort + " -> " + outText(h.Outputs[0]), under
	}
	for _, o := range h.Outputs {
		under = append(under, "-> "+outText(o))
	}
	if h.More > 0 {
		under = append(under, fmt.Sprintf("-> %d more", h.More))
	}
	return h.InPort + " -> " + count(uint64(n), "port"), under
}

func helpAfter(help string) string {
	if help == "" {
		return ""
	}
	return ": " + help
}

func outText(o api.PathOutput) string {
	text := o.Port
	if o.Bridge != "" {
		text += " of " + o.Bridge
	}
	if o.Remote != "" {
		text += " (" + o.Type + " " + o.Remote
		if o.Key != nil {
			text += fmt.Sprintf(" key %d", *o.Key)
		}
		text += ")"
	}
	return text
}
