package main

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// table is aligned text. A column whose title begins with ">" is aligned to the
// right; a row can have lines of its own beneath it.
type table struct {
	indent string
	titles []string
	rows   []row
}

type row struct {
	cells []string
	under []string // whole sentences, wrapped
}

func newTable(indent string, titles ...string) *table { return &table{indent: indent, titles: titles} }

func (t *table) add(cells ...any) *row {
	r := row{cells: make([]string, len(cells))}
	for i, c := range cells {
		r.cells[i] = clean(fmt.Sprint(c))
	}
	t.rows = append(t.rows, r)
	return &t.rows[len(t.rows)-1]
}

func (t *table) widths() (w []int, total int) {
	w = make([]int, len(t.titles))
	for i, title := range t.titles {
		w[i] = utf8.RuneCountInString(strings.TrimPrefix(title, ">"))
	}
	for _, r := range t.rows {
		for i, c := range r.cells {
			w[i] = max(w[i], utf8.RuneCountInString(c))
		}
	}
	total = len(t.indent)
	for i, n := range w {
		total += n
		if i > 0 {
			total += 2
		}
	}
	return w, total
}

func (t *table) String() string {
	w, _ := t.widths()
	var b strings.Builder
	line := func(cells []string) {
		var l strings.Builder
		l.WriteString(t.indent)
		for i, c := range cells {
			if i > 0 {
				l.WriteString("  ")
			}
			pad := strings.Repeat(" ", w[i]-utf8.RuneCountInString(c))
			if strings.HasPrefix(t.titles[i], ">") {
				l.WriteString(pad + c)
			} else {
				l.WriteString(c + pad)
			}
		}
		b.WriteString(strings.TrimRight(l.String(), " ") + "\n")
	}
	heads := make([]string, len(t.titles))
	for i, title := range t.titles {
		heads[i] = strings.TrimPrefix(title, ">")
	}
	line(heads)
	for _, r := range t.rows {
		line(r.cells)
		for _, u := range r.under {
			wrapTo(&b, t.indent+"    ", width, u)
		}
	}
	return b.String()
}
