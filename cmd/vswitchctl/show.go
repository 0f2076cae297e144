package main

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"vswitch/ctl/api"
)

func (a *app) show() *cobra.Command {
	return &cobra.Command{
		Use:        "show [BR]",
		SuggestFor: []string{"ls", "status", "st"},
		Short:      "Show what is true now: bridges, ports, and what is wrong",
		Long: `Show what is true now. First what needs attention, then each bridge with its ports; beneath a
port that is not up, why. Frames are counted exactly as long as 100 columns hold them; ` + "`stats`" + `
always counts exactly.`,
		Example: "  vswitchctl show br0",
		Args:    between(0, 1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c := a.client()
			defer c.Close()
			st, err := c.Status(cmd.Context(), arg(args, 0))
			if err != nil {
				return err
			}
			return a.print(st, func() string { return a.statusText(st) })
		},
		ValidArgsFunction: a.complete(a.bridges),
	}
}

func (a *app) statusText(st api.Status) string {
	var b strings.Builder
	if p := st.Confirm; p != nil {
		wrapTo(&b, "", width, fmt.Sprintf(
			"CONFIRM: version %d goes back to %d %s unless `vswitchctl confirm` comes",
			p.Version, p.Previous, a.deadline(p.Deadline)))
	}
	for _, w := range st.Warnings {
		wrapTo(&b, "", width, "WARNING: "+w)
	}
	if b.Len() > 0 {
		b.WriteString("\n")
	}
	if len(st.Bridges) == 0 {
		return b.String() + "no bridges; `vswitchctl add-br BR` adds one\n"
	}
	for i, br := range st.Bridges {
		if i > 0 {
			b.WriteString("\n")
		}
		a.bridgeText(&b, br)
	}
	return b.String()
}

// vlanOptions are shown in the column VLANS, all others beneath the port.
var vlanOptions = []string{"tag", "trunks", "vlan_mode", "cvlans"}

func (a *app) bridgeText(b *strings.Builder, br api.BridgeStatus) {
	notUp := 0
	for _, p := range br.Ports {
		if p.State != api.PortUp && p.State != api.PortSelf && !idle(p) {
			notUp++
		}
	}
	facts := count(len(br.Ports), "port") + ", " + wellText(notUp)
	notUp = 0
	for _, m := range br.Mirrors {
		if m.State != "up" {
			notUp++
		}
	}
	if len(br.Mirrors) > 0 {
		facts += "; " + count(len(br.Mirrors), "mirror") + ", " + wellText(notUp)
	}
	facts += fmt.Sprintf("; %d of %d MACs; %s dropped", br.FDB.Entries, br.FDB.Size, count(br.Counters.Dropped, "frame"))
	wrapTo(b, "", width, "bridge "+br.Name+": "+facts)
	wrapTo(b, "  ", width, optionsText(br.Options, nil))
	b.WriteString(a.portTable(br.Ports))
	for _, f := range br.Flaps {
		wrapTo(b, "  ", width, fmt.Sprintf("FLAPPING: %s in VLAN %d between %s and %s (%s): held at %s for %s more; look for a loop, or for two machines with that MAC",
			f.MAC, f.VLAN, f.Held, f.Other, count(f.Count, "time"), f.Held, ago(f.Until.Sub(a.now()))))
	}
	for _, m := range br.Mirrors {
		text := fmt.Sprintf("mirror %s: %s, %d frames copied", m.Name, stateText(m.State), m.Frames)
		if m.Dropped > 0 {
			text += fmt.Sprintf(", %d lost", m.Dropped)
		}
		if m.File != "" {
			text += fmt.Sprintf("; %d bytes in %s", m.Written, m.File)
		}
		wrapTo(b, "  ", width, text)
		wrapTo(b, "      ", width, optionsText(m.Options, nil))
		if m.State != "up" {
			wrapTo(b, "      ", width, m.Reason)
		}
	}
}

// portTable says everything in full as long as 100 columns hold it; then it cuts
// VLANs (they stand in full beneath), and then it counts in short.
func (a *app) portTable(ports []api.PortStatus) string {
	t := a.portRows(ports, 30, exact)
	if _, w := t.widths(); w > width {
		t = a.portRows(ports, 18, exact)
	}
	if _, w := t.widths(); w > width {
		t = a.portRows(ports, 18, short)
	}
	return t.String()
}

// stateText makes what is not well stand out.
func stateText(state string) string {
	if state == api.PortUp || state == api.PortSelf || state == api.PlugPlugged {
		return state
	}
	return strings.ToUpper(state)
}

func wellText(notUp int) string {
	if notUp == 0 {
		return "all well"
	}
	return fmt.Sprintf("%d NOT UP", notUp)
}

// idle says that a port is down as it should be: a local port that nobody gave an
// address has nothing to do.
func idle(p api.PortStatus) bool {
	_, hasAddress := p.Options["ip"]
	return p.Type == "local" && p.State == api.PortDown && !hasAddress
}

func (a *app) portRows(ports []api.PortStatus, maxVLANs int, number func(uint64) string) *table {
	t := newTable("  ", "PORT", "TYPE", "STATE", "VLANS", ">MTU", ">WORKER", ">RX FRAMES", ">TX FRAMES", ">DROPPED")
	for _, p := range ports {
		mtu := "-"
		if p.MTU > 0 {
			mtu = strconv.Itoa(p.MTU)
		} else if p.Tunnel != nil && p.Tunnel.MTU > 0 {
			mtu = strconv.Itoa(p.Tunnel.MTU)
		}
		vlans := vlanText(p.Options)
		cell := vlans
		if r := []rune(cell); len(r) > maxVLANs {
			cell = string(r[:maxVLANs-1]) + "…"
		}
		state := stateText(p.State)
		if idle(p) {
			state = p.State
		}
		r := t.add(p.Name, p.Type, state, cell, mtu, workerText(p.Workers),
			number(p.Counters.RxFrames), number(p.Counters.TxFrames), number(p.Counters.Dropped))
		if p.State == api.PortSelf && p.Reason != "" {
			r.under = append(r.under, p.Reason)
		} else if idle(p) {
			r.under = append(r.under, fmt.Sprintf("no address; `vswitchctl set-br %s ip=…` brings it up", p.Name))
		} else if p.State != api.PortUp && p.State != api.PortSelf {
			why := outlook(p)
			if why == "" {
				why = "no reason given"
			}
			if !p.Since.IsZero() {
				why = "for " + ago(a.now().Sub(p.Since)) + ": " + why
			}
			r.under = append(r.under, why)
		}
		if cell != vlans {
			r.under = append(r.under, "VLANs: "+strings.ReplaceAll(vlans, ",", ", "))
		}
		if p.Tunnel != nil {
			r.under = append(r.under, a.tunnelText(p.Tunnel))
		}
		if o := portOptionsText(p); o != "" {
			r.under = append(r.under, o)
		}
		r.under = append(r.under, p.Notes...)
	}
	return t
}

// portOptionsText is the options that stand nowhere else: a local port's are the
// bridge's, a mesh's port has the mesh's, and a tunnel's ends have a line.
func portOptionsText(p api.PortStatus) string {
	switch {
	case p.Type == "local":
		return ""
	case p.Tunnel == nil:
		return optionsText(p.Options, vlanOptions)
	case p.Tunnel.Mesh != "":
		return ""
	}
	return optionsText(p.Options, append([]string{"remote_ip", "key", "in_key", "out_key"}, vlanOptions...))
}

func exact(n uint64) string { return strconv.FormatUint(n, 10) }

// short has three digits and a letter: 12.3M. Powers of 1000.
func short(n uint64) string {
	if n < 100_000 {
		return exact(n)
	}
	f := float64(n)
	for _, unit := range "kMGTPE" {
		f /= 1000
		switch {
		case f < 9.95:
			return fmt.Sprintf("%.1f%c", f, unit)
		case f < 99.95:
			return fmt.Sprintf("%.1f%c", f, unit)
		case f < 999.5:
			return fmt.Sprintf("%.0f%c", f, unit)
		}
	}
	return exact(n)
}

// vlanText says what a port does with VLANs in the fewest words.
func vlanText(o map[string]any) string {
	text := func(name string) string {
		if v, ok := o[name]; ok {
			return optionText(v)
		}
		return ""
	}
	mode, tag, trunks := text("vlan_mode"), text("tag"), text("trunks")
	var s string
	switch {
	case mode == "native-tagged" || mode == "native-untagged":
		s = mode + " " + tag
		if trunks != "" {
			s += " trunk " + trunks
		}
	case tag != "" && mode != "trunk":
		s = tag
	case mode == "access": // without tag: VLAN 0
		s = "0"
	case trunks != "":
		s = "trunk " + trunks
	default:
		s = "all"
	}
	if c := text("cvlans"); c != "" {
		s += " cvlans " + c
	}
	return s
}

func workerText(w []int) string {
	switch len(w) {
	case 0:
		return "-"
	case 1, 2, 3:
		var s []string
		for _, n := range w {
			s = append(s, strconv.Itoa(n))
		}
		return strings.Join(s, ",")
	}
	return fmt.Sprintf("%d,%d…", w[0], w[1])
}

// optionsText is options as they are typed, by name, without some.
func optionsText(o map[string]any, without []string) string {
	var kv []string
	for name, v := range o {
		if !slices.Contains(without, name) {
			kv = append(kv, name+"="+optionText(v))
		}
	}
	slices.Sort(kv)
	return strings.Join(kv, " ")
}

// optionText undoes what JSON does to numbers.
func optionText(v any) string {
	if f, ok := v.(float64); ok {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	return fmt.Sprint(v)
}
