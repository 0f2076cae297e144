package perf

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// method says how things are measured, for those who want to do it again.
const method = `
Each topology is made of network namespaces and veth pairs (VDE: TAPs), MTU 1500. One subject stands at a time; it is warmed up by a
ping and half a second of frames.

- **TCP**: iperf3, what the receiver got. **Ping-pong**: sockperf, one way (half the way there and back).
- **Frames**: stamped and numbered, sent as fast as the sender can for a second; what the receiving interface got, from the first
  arrival to the last. Sizes are with the frame check sequence. With many receiving ports their interfaces count, between two moments at
  which all queues are full.
- **Without loss**: RFC 2544 section 26.1, a binary search to 2 %, in trials of one second.
- **Learning**: after RFC 2889 section 5.8: new addresses as fast as they can be sent; how many the table then has; after up to three
  more passes at 200,000 a second, how many it holds.
- **Memory**: proportional set size of the processes that forward.
`

// WriteMarkdown writes the whole run as a page. chart is the chart's address as
// seen from the page; empty leaves it out.
func (r *Results) WriteMarkdown(w io.Writer, chart string) error {
	var b strings.Builder
	b.WriteString("# Benchmarks\n\n")
	fmt.Fprintf(&b, "Made by `%s`; do not edit.\n\n", r.Command)
	if r.Interrupted {
		b.WriteString("**The run was interrupted: what follows is what had been measured.**\n\n")
	}
	fmt.Fprintf(&b, "- **Machine**: %s. Senders, switch and receivers share its CPUs.\n", r.Machine)
	fmt.Fprintf(&b, "- **Source**: commit %s. **Run**: %s, %s.\n", r.Commit, r.Started.UTC().Format("2006-01-02 15:04 UTC"),
		time.Duration(r.Seconds*float64(time.Second)).Round(time.Second))
	b.WriteString("- **How to read**: median (lowest–highest) of interleaved rounds. \"" + ours +
		" is\" compares its median with that row's. Only ratios within a run count: absolute figures of a machine drift.\n")
	b.WriteString("- **CPU time** is of the switch's own processes, and of the whole machine with senders and receivers; for a frame or a GB delivered. " +
		"A switch inside the kernel has no process.\n\n")
	rows := [][]string{{"subject", "what", "version", "how it is set up"}}
	for _, s := range r.Subjects {
		rows = append(rows, []string{s.Name, s.Title, s.Version, s.Notes})
	}
	markdownTable(&b, rows)
	b.WriteString(method)
	if chart != "" {
		fmt.Fprintf(&b, "\n![Medians with the lowest and the highest](%s)\n", chart)
	}
	b.WriteString("\n## Targets\n")
	rows = [][]string{{"scenario", "against", "wanted", "measured", "reached"}}
	for _, s := range r.Standings() {
		measured, met := s.Measured, string(s.Met)
		switch s.Met {
		case No:
			met = "**" + met + "**"
		case Unknown:
			measured = s.Why
		}
		rows = append(rows, []string{s.Title, s.Against, s.Want, measured, met})
	}
	markdownTable(&b, rows)
	for i := range r.Scenarios {
		t := r.tabulate(&r.Scenarios[i])
		fmt.Fprintf(&b, "\n## %s\n`%s`, %s.\n\n", t.Title, t.Name, plural(t.Rounds, "round"))
		if len(t.Rows) > 0 {
			markdownTable(&b, append([][]string{t.Head}, t.Rows...))
		}
		if len(t.Notes) > 0 {
			b.WriteString("\n")
		}
		for _, note := range t.Notes {
			fmt.Fprintf(&b, "- %s\n", note)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// markdownTable writes rows of cells, the first one as the head.
func markdownTable(b *strings.Builder, rows [][]string) {
	escape := strings.NewReplacer("|", `\|`, "\n", " ")
	for i, row := range rows {
		b.WriteString("|")
		for _, cell := range row {
			b.WriteString(strings.TrimRight(" "+escape.Replace(cell), " ") + " |")
		}
		b.WriteString("\n")
		if i == 0 {
			b.WriteString("|" + strings.Repeat("---|", len(row)) + "\n")
		}
	}
}
