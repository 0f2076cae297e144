package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"unicode/utf8"

	"vswitch/ctl/api"
)

// traced prints one of several traces.
func (a *app) traced(t *api.Trace, title string, again bool) error {
	switch a.format {
	case "json":
		enc := json.NewEncoder(a.out) // one line, unlike print
		enc.SetEscapeHTML(false)
		return enc.Encode(t)
	case "yaml":
		text, err := toYAML(t)
		if err == nil {
			_, err = fmt.Fprintf(a.out, "---\n%s", text)
		}
		return err
	}
	var b bytes.Buffer
	if again {
		b.WriteString("\n")
	}
	fmt.Fprintf(&b, "%s\n%s", title, traceText(t))
	_, err := a.out.Write(b.Bytes())
	return err
}

// traceText is a trace for eyes: the frame, its steps, what leaves, the verdict.
//
//	in by veth1: 02:00:00:00:00:01 > 02:00:00:00:00:02, IPv4 10.0.0.1.49152 > 10.0.0.2.80: tcp S
//	br0
//	  admission  veth1  an access port: the frame is in VLAN 10
//	  output     p0     put out through the patch, untagged
//	  br1
//	    admission  …
func traceText(t *api.Trace) string {
	var b strings.Builder
	hang(&b, "in by "+t.InPort+": ", t.Frame.Summary)
	portWidth := 0
	for _, s := range t.Steps {
		portWidth = max(portWidth, utf8.RuneCountInString(clean(s.Port)))
	}
	portWidth = min(portWidth, 24)
	bridge, depth := "", -1
	for _, s := range t.Steps {
		indent := strings.Repeat("  ", min(s.Depth, 8))
		if s.Bridge != bridge || s.Depth != depth {
			fmt.Fprintf(&b, "%s%s\n", indent, clean(s.Bridge))
			bridge, depth = s.Bridge, s.Depth
		}
		text := s.Text
		if s.Reason != "" && strings.Contains(t.Verdict, text) {
			text = s.Reason // what to do about it is said below
		}
		hang(&b, fmt.Sprintf("%s  %-9s  %-*s  ", indent, s.Stage, portWidth, clean(s.Port)), text)
	}
	if len(t.Out) > 0 {
		b.WriteString("\n")
		tab := newTable("", "OUT", "TAG", ">BYTES", "FRAME")
		for i := range t.Out {
			o := &t.Out[i]
			tag, note := "-", ""
			if o.Tag != nil {
				tag = fmt.Sprint(o.Tag.VID)
				if o.Tag.PCP > 0 {
					tag += fmt.Sprintf(" pcp %d", o.Tag.PCP)
				}
			}
			var under []string
			switch {
			case o.Own:
				note = "made by the switch"
			case o.GSOSize > 0:
				note = fmt.Sprintf("super-frame, segments of %d bytes", o.GSOSize)
			case o.Summary == t.Frame.Summary:
				note = "as it came in"
			}
			if o.Summary != t.Frame.Summary {
				under = []string{o.Summary}
			}
			tab.add(o.Port, tag, o.Length, note).under = under
		}
		b.WriteString(tab.String())
	}
	b.WriteString("\n")
	hang(&b, "", t.Verdict)
	return b.String()
}

// hang writes text after head in lines within width, the later ones beneath the
// first one's text.
func hang(b *strings.Builder, head, text string) {
	head = clean(head)
	under := strings.Repeat(" ", min(utf8.RuneCountInString(head), width/2))
	var lines strings.Builder
	wrapTo(&lines, under, width, text)
	rest, ok := strings.CutPrefix(lines.String(), under)
	if !ok { // no text
		rest = "\n"
	}
	b.WriteString(strings.TrimRight(head+strings.TrimSuffix(rest, "\n"), " ") + "\n")
}
