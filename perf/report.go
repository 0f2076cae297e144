package perf

import (
	"fmt"
	"strconv"
	"strings"
)

// ours is the subject that the others are compared with.
const ours = "vswitch"

// table is what the terminal and the page show of one scenario: a row a subject,
// and for each metric a column with medians and spreads, and one with the ratios
// of ours to the others' where the metric is compared.
type table struct {
	Name, Title string
	Rounds      int // the most that a subject has samples of
	Head        []string
	Rows        [][]string
	Notes       []string // reasons and errors
}

// tabulate leaves out columns in which nobody has a value, and subjects that have
// none; those are told of in the notes.
func (r *Results) tabulate(s *ScenarioResult) table {
	t := table{Name: s.Name, Title: s.Title, Head: []string{"switch"}}
	for _, o := range s.Outcomes {
		t.Rounds = max(t.Rounds, len(o.Samples))
		if len(o.Samples) > 0 {
			t.Rows = append(t.Rows, []string{o.Subject})
		}
		if o.Cannot != "" {
			t.Notes = append(t.Notes, o.Subject+" was not measured: "+o.Cannot)
		}
		t.Notes = append(t.Notes, failureNotes(&o)...)
	}
	if few := fewerRounds(s, t.Rounds); few != "" {
		t.Notes = append(t.Notes, few)
	}
	for _, m := range s.Metrics {
		var values, ratios []string
		mine := Stat{}
		if o := s.Outcome(ours); o != nil && m.Better != None {
			mine = o.Stat(m.Name)
		}
		anyValue, anyRatio := false, false
		for _, o := range s.Outcomes {
			if len(o.Samples) == 0 {
				continue
			}
			stat := o.Stat(m.Name)
			values = append(values, stat.spread())
			anyValue = anyValue || stat.N > 0
			cell := ""
			if quotient, ok := ratio(mine, stat); ok && o.Subject != ours {
				cell, anyRatio = times(quotient), true
			}
			ratios = append(ratios, cell)
		}
		if anyValue {
			t.add(m.head(), values)
		}
		if anyRatio {
			t.add(ours+" is", ratios)
		}
	}
	return t
}

func (t *table) add(head string, cells []string) {
	t.Head = append(t.Head, head)
	for i := range t.Rows {
		t.Rows[i] = append(t.Rows[i], cells[i])
	}
}

// fewerRounds names the subjects that have samples of fewer rounds than others.
func fewerRounds(s *ScenarioResult, most int) string {
	var some []string
	for _, o := range s.Outcomes {
		if n := len(o.Samples); n > 0 && n < most {
			some = append(some, o.Subject+" "+plural(n, "round"))
		}
	}
	if len(some) == 0 {
		return ""
	}
	return "fewer: " + strings.Join(some, ", ")
}

// failureNotes tells of an error that came in several rounds once, and of each by
// its first line.
func failureNotes(o *Outcome) (notes []string) {
	rounds := make(map[string][]string)
	var order []string
	for _, f := range o.Failures {
		line, _, _ := strings.Cut(f.Error, "\n")
		if rounds[line] == nil {
			order = append(order, line)
		}
		rounds[line] = append(rounds[line], strconv.Itoa(f.Round))
	}
	for _, line := range order {
		word := "round"
		if len(rounds[line]) > 1 {
			word = "rounds"
		}
		notes = append(notes, fmt.Sprintf("%s failed in %s %s: %s", o.Subject, word, strings.Join(rounds[line], ", "), line))
	}
	return notes
}
