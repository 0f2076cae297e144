package perf

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// WriteTable writes one scenario for a terminal.
func (r *Results) WriteTable(w io.Writer, s *ScenarioResult) error {
	t := r.tabulate(s)
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %s (%s)\n", t.Name, t.Title, plural(t.Rounds, "round"))
	if len(t.Rows) > 0 {
		columns(&b, append([][]string{t.Head}, t.Rows...))
	}
	for _, note := range t.Notes {
		fmt.Fprintf(&b, "  %s\n", note)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// WriteTables writes the whole run for a terminal.
func (r *Results) WriteTables(w io.Writer) error {
	fmt.Fprintf(w, "%s\nmedian (lowest–highest); \"%s is\" compares its median with that row's\n", r.Machine, ours)
	for i := range r.Scenarios {
		fmt.Fprintln(w)
		if err := r.WriteTable(w, &r.Scenarios[i]); err != nil {
			return err
		}
	}
	return r.writeStandings(w)
}

// writeStandings tells of the targets that the run was about.
func (r *Results) writeStandings(w io.Writer) error {
	rows := [][]string{{"target", "against", "want", "measured", ""}}
	for _, s := range r.Standings() {
		if s.Met != LeftOut {
			rows = append(rows, []string{s.Title, s.Against, s.Want, s.Measured, strings.TrimSuffix(string(s.Met)+": "+s.Why, ": ")})
		}
	}
	if len(rows) == 1 {
		return nil
	}
	var b strings.Builder
	b.WriteString("\n")
	columns(&b, rows)
	_, err := io.WriteString(w, b.String())
	return err
}

// columns writes rows of cells below each other, the first one indented.
func columns(b *strings.Builder, rows [][]string) {
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range rows {
		line := " "
		for i, cell := range row {
			line += " " + cell + strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell)+1)
		}
		b.WriteString(strings.TrimRight(line, " "))
		b.WriteString("\n")
	}
}

func plural(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}
