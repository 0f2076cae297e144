package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"go.yaml.in/yaml/v3"

	"vswitch/ctl/api"
)

// width is what human output keeps to, except where an exact count is wider.
const width = 100

// print writes v as -o asks: as JSON or YAML of the API's own shape, or as the
// text that table makes.
func (a *app) print(v any, table func() string) error {
	var text []byte
	var err error
	switch a.format {
	case "json":
		text, err = toJSON(v)
	case "yaml":
		text, err = toYAML(v)
	default:
		text = []byte(table())
	}
	if err != nil {
		return fmt.Errorf("print the answer as %s: %w", a.format, err)
	}
	if _, err := a.out.Write(text); err != nil {
		return fmt.Errorf("write output: %w", err)
	}
	return nil
}

func toJSON(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	err := enc.Encode(v)
	return b.Bytes(), err
}

// toYAML writes the JSON shape as YAML, its fields in the same order.
func toYAML(v any) ([]byte, error) {
	text, err := toJSON(v)
	if err != nil {
		return nil, err
	}
	var root yaml.Node
	if err := yaml.Unmarshal(text, &root); err != nil { // JSON is YAML
		return nil, err
	}
	plain(&root)
	var b bytes.Buffer
	enc := yaml.NewEncoder(&b)
	enc.SetIndent(2)
	if err := enc.Encode(&root); err != nil {
		return nil, err
	}
	return b.Bytes(), enc.Close()
}

// plain gives a tree that was JSON the manner of YAML. What an older reader takes
// for a boolean or a number to base sixty keeps its quotes.
func plain(n *yaml.Node) {
	if n.Kind != yaml.ScalarNode && len(n.Content) > 0 {
		n.Style = 0
	}
	if n.Kind == yaml.ScalarNode && !ambiguous(n.Value) {
		n.Style = 0
	}
	for _, c := range n.Content {
		plain(c)
	}
}

func ambiguous(s string) bool {
	switch strings.ToLower(s) {
	case "y", "n", "yes", "no", "on", "off":
		return true
	}
	return s != "" && strings.Trim(s, "0123456789:_") == ""
}

// done prints what a change did. Silence is success; what is not well is said on
// stderr, and does not make the change a failure: the document was accepted.
func (a *app) done(r api.EditResult, table func() string) error {
	for _, p := range r.Ports {
		if p.State == api.PortWaiting || p.State == api.PortError {
			fmt.Fprintln(a.err, clean(p.Name+": "+p.State+": "+outlook(p)))
		}
		for _, note := range p.Notes {
			fmt.Fprintln(a.err, clean(p.Name+": "+note))
		}
	}
	for _, m := range r.Mirrors {
		fmt.Fprintln(a.err, clean("mirror "+m.Name+" of "+m.Bridge+": "+m.State+": "+m.Reason))
	}
	if table == nil {
		table = func() string { return "" }
	}
	return a.print(r, table)
}

// outlook is why a port is not up, and what will happen next.
func outlook(p api.PortStatus) string {
	reason := p.Reason
	if strings.Contains(reason, ";") {
		return reason // says it itself
	}
	next := ""
	switch {
	case isTunnel(p.Type) && (p.State == api.PortWaiting || p.State == api.PortError):
		next = "it is tried again"
	case p.State == api.PortWaiting && p.Type == "patch":
		next = "it comes up when the peer is added"
	case p.State == api.PortWaiting:
		next = "it will be attached when it appears"
	case p.State == api.PortError:
		next = "it is tried again"
	}
	switch {
	case reason == "":
		return next
	case next == "":
		return reason
	}
	return reason + "; " + next
}

// clean keeps what others wrote (comments, interface names, reasons) from
// steering the terminal.
func clean(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) {
			return r
		}
		return '?'
	}, s)
}

func cleanLines(s string) string {
	lines := strings.Split(s, "\n")
	for i := range lines {
		lines[i] = clean(strings.ReplaceAll(lines[i], "\t", " "))
	}
	return strings.Join(lines, "\n")
}

// ago is a span in the two largest units that say something.
func ago(d time.Duration) string {
	d = max(d, 0).Round(time.Second)
	s := int64(d / time.Second)
	switch {
	case s < 60:
		return fmt.Sprintf("%ds", s)
	case s < 3600:
		return fmt.Sprintf("%dm%02ds", s/60, s%60)
	case s < 86400:
		return fmt.Sprintf("%dh%02dm", s/3600, s/60%60)
	}
	return fmt.Sprintf("%dd%02dh", s/86400, s/3600%24)
}

func (a *app) clock(t time.Time) string {
	if t.IsZero() {
		return "-"
	}
	return t.In(a.now().Location()).Format("2006-01-02 15:04:05")
}

// deadline is a time to come: how far it is, and when, with the zone.
func (a *app) deadline(t time.Time) string {
	return fmt.Sprintf("in %s (%s)", ago(t.Sub(a.now())), t.In(a.now().Location()).Format("2006-01-02 15:04:05 MST"))
}

// count is "1 port", "2 ports".
func count[N int | uint64](n N, one string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %ss", n, one)
}

// wrapTo writes text in lines that begin with indent and end within limit columns.
// A word that is longer stays whole.
func wrapTo(b *strings.Builder, indent string, limit int, text string) {
	line := indent
	for _, word := range strings.Fields(clean(text)) {
		switch {
		case line == indent:
			line += word
		case utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) <= limit:
			line += " " + word
		default:
			b.WriteString(line + "\n")
			line = indent + word
		}
	}
	if line != indent {
		b.WriteString(line + "\n")
	}
}
