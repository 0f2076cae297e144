package main

import (
	"cmp"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"vswitch/ctl/api"
)

// glyphs are what is drawn with beside letters.
type glyphs struct {
	spark    []rune // from nothing to most
	down, up string // the sorted column
}

var (
	unicodeGlyphs = glyphs{[]rune("▁▂▃▄▅▆▇█"), "▼", "▲"}
	asciiGlyphs   = glyphs{[]rune("_.-=+*%#"), "v", "^"}
)

// cell is one value of a row: its text, and what it is sorted by, a number or else the
// text.
type cell struct {
	text string
	num  float64
}

func textCell(s string) cell { return cell{text: clean(s), num: math.NaN()} }

func numCell(n float64, format func(float64) string) cell { return cell{format(n), n} }

// column is a pane's column.
type column struct {
	title string
	right bool
	least int // columns that it may be cut to; 0: it is not cut
	spare int // above 0: it is left out where there is no room, the highest first
}

type viewRow struct {
	cells []cell
	bad   bool
	spark []float64 // drawn in what is left of the line
	tail  string    // or said there, or, where it does not fit, beneath
}

// pane is one of the tables.
type pane struct {
	name    string
	columns []column
	sort    int  // column
	back    bool // the other way round: numbers begin with the largest
	graph   int  // columns that are kept for what is behind the others
	rows    func(v *topView, d *topData) []viewRow
	empty   string
}

// topView turns data into lines: which pane, sorted how, from where on.
//
// Thread-safety: none.
type topView struct {
	glyphs glyphs
	panes  []*pane
	active int
	scroll int
	filter string
	now    time.Time // of data
}

func newTopView(g glyphs) *topView {
	return &topView{glyphs: g, panes: []*pane{
		{name: "ports", sort: 3, graph: 12, rows: portPane, empty: "no ports; `vswitchctl add-port BR NAME` adds one", columns: []column{
			{title: "PORT", least: 8}, {title: "BRIDGE", least: 6, spare: 2}, {title: "STATE"}, {title: "RX/s", right: true},
			{title: "RX bit/s", right: true}, {title: "TX/s", right: true}, {title: "TX bit/s", right: true}, {title: "DROPS/s", right: true}, {title: "TYPE", spare: 3}}},
		{name: "tunnels", sort: 0, rows: tunnelPane, empty: "no tunnels", columns: []column{
			{title: "PORT", least: 8}, {title: "BRIDGE", least: 6, spare: 3}, {title: "REMOTE", least: 8}, {title: "STATE"}, {title: "BFD"}, {title: "PATH MTU", right: true},
			{title: "RX bit/s", right: true}, {title: "TX bit/s", right: true}, {title: "DROPS/s", right: true, spare: 1}, {title: "HEARD", right: true, spare: 2}}},
		{name: "MACs", sort: 6, rows: macPane, empty: "nobody sent anything", columns: []column{
			{title: "MAC"}, {title: "IP", least: 10}, {title: "BRIDGE", least: 6, spare: 1}, {title: "VLAN", right: true}, {title: "PORT", least: 8}, {title: "FRAMES/s", right: true}, {title: "bit/s", right: true}}},
		{name: "flows", sort: 8, rows: flowPane, empty: "nobody sent anything", columns: []column{
			{title: "PROTO"}, {title: "SOURCE", least: 21}, {title: "DESTINATION", least: 21}, {title: "BRIDGE", least: 6, spare: 3}, {title: "VLAN", right: true, spare: 1},
			{title: "IN", least: 6}, {title: "OUT", least: 6, spare: 2}, {title: "FRAMES/s", right: true}, {title: "bit/s", right: true}}},
		{name: "workers", sort: 0, rows: workerPane, empty: "no workers", columns: []column{
			{title: "WORKER", right: true}, {title: "BUSY", right: true}, {title: "SPINNING", right: true}, {title: "FRAMES/s", right: true}, {title: "BATCH", right: true},
			{title: "WAKEUPS/s", right: true}, {title: "BUFFERS", right: true}, {title: "PORTS", right: true}}},
	}}
}

// hz is a number a second in few columns.
func hz(n float64) string {
	switch {
	case n == 0:
		return "-"
	case n < 0.05:
		return "0.0"
	case n < 9.95:
		return strconv.FormatFloat(n, 'f', 1, 64)
	case n < 9999.5:
		return strconv.FormatFloat(n, 'f', 0, 64)
	}
	for _, unit := range "kMGTPE" {
		if n /= 1000; n < 999.5 {
			return strconv.FormatFloat(n, 'f', btoi(n < 99.95), 64) + string(unit)
		}
	}
	return "much"
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

func percent(n float64) string { return fmt.Sprintf("%.1f%%", 100*n) }

func portPane(_ *topView, d *topData) (rows []viewRow) {
	for _, p := range d.Ports {
		state := stateText(p.State)
		if p.idle {
			state = p.State
		}
		r := viewRow{cells: []cell{textCell(p.Port), textCell(p.Bridge), textCell(state), numCell(p.RxFrames, hz), numCell(p.RxBits, hz),
			numCell(p.TxFrames, hz), numCell(p.TxBits, hz), numCell(p.Drops, hz), textCell(p.Type)}, spark: p.Lately}
		if p.State != api.PortUp && p.State != api.PortSelf && !p.idle {
			r.bad, r.tail, r.spark = true, clean(p.Reason), nil
		}
		rows = append(rows, r)
	}
	return rows
}

func tunnelPane(v *topView, d *topData) (rows []viewRow) {
	for _, t := range d.Tunnels {
		mtu, bfd, heard := numCell(float64(t.PathMTU), func(n float64) string { return strconv.Itoa(int(n)) }), "-", cell{"never", math.MaxFloat64}
		if t.PathMTU == 0 {
			mtu.text = "-"
		}
		if t.BFD != "" {
			bfd = bfdState(t.BFD)
		}
		if t.LastHeard != nil {
			heard = numCell(v.now.Sub(*t.LastHeard).Seconds(), func(n float64) string { return ago(time.Duration(n * float64(time.Second))) })
		}
		r := viewRow{cells: []cell{textCell(t.Port), textCell(t.Bridge), textCell(t.Remote), textCell(stateText(t.State)), textCell(bfd), mtu,
			numCell(t.RxBits, hz), numCell(t.TxBits, hz), numCell(t.Drops, hz), heard}}
		if t.State != api.PortUp {
			r.bad, r.tail = true, clean(t.Reason)
		}
		rows = append(rows, r)
	}
	return rows
}

func intCell(n int) cell { return cell{strconv.Itoa(n), float64(n)} }

func macPane(_ *topView, d *topData) (rows []viewRow) {
	for _, m := range d.MACs {
		rows = append(rows, viewRow{cells: []cell{textCell(m.MAC), textCell(cmp.Or(m.IP, "-")), textCell(m.Bridge), intCell(m.VLAN), textCell(m.Port),
			numCell(m.Frames, hz), numCell(m.Bits, hz)}})
	}
	return rows
}

func flowPane(_ *topView, d *topData) (rows []viewRow) {
	end := func(ip string, port int) string {
		if port == 0 {
			return ip
		}
		return net.JoinHostPort(ip, strconv.Itoa(port))
	}
	for _, f := range d.Flows {
		rows = append(rows, viewRow{cells: []cell{textCell(f.Proto), textCell(end(f.Src, f.SrcPort)), textCell(end(f.Dst, f.DstPort)), textCell(f.Bridge), intCell(f.VLAN),
			textCell(f.Port), textCell(cmp.Or(f.Output, "-")), numCell(f.Frames, hz), numCell(f.Bits, hz)}})
	}
	return rows
}

func workerPane(_ *topView, d *topData) (rows []viewRow) {
	for _, w := range d.Workers {
		buffers := cell{fmt.Sprintf("%d of %d", w.Used, w.Buffers), float64(w.Used)}
		rows = append(rows, viewRow{cells: []cell{{strconv.Itoa(w.Worker), -float64(w.Worker)}, numCell(w.Busy, percent), numCell(w.Spinning, percent), numCell(w.Frames, hz),
			numCell(w.Batch, func(n float64) string { return fmt.Sprintf("%.1f", n) }), numCell(w.Wakeups, hz), buffers, intCell(w.Ports)},
			bad: w.Buffers > 0 && w.Used*10 > w.Buffers*9})
	}
	return rows
}

// sorted returns a pane's rows that match the filter, in its order.
func (v *topView) sorted(p *pane, d *topData) []viewRow {
	v.now = d.Time
	rows := p.rows(v, d)
	if v.filter != "" {
		want := strings.ToLower(v.filter)
		rows = slices.DeleteFunc(rows, func(r viewRow) bool {
			return !slices.ContainsFunc(r.cells, func(c cell) bool { return strings.Contains(strings.ToLower(c.text), want) })
		})
	}
	slices.SortStableFunc(rows, func(a, b viewRow) int {
		x, y := a.cells[p.sort], b.cells[p.sort]
		order := cmp.Compare(y.num, x.num) // NaN is equal to NaN here
		if math.IsNaN(x.num) {
			order = cmp.Compare(x.text, y.text)
		}
		if p.back {
			order = -order
		}
		return order
	})
	return rows
}

// table lays a pane's rows out in w columns: first its titles, then the rows from
// number from on, in at most n lines.
func (v *topView) table(p *pane, rows []viewRow, w, from, n int) (titles string, lines []screenLine) {
	shown := rows[min(from, len(rows)):]
	columns := make([]int, len(p.columns)) // widths; 0: left out
	for i, c := range p.columns {
		columns[i] = utf8.RuneCountInString(c.title)
		if i == p.sort {
			columns[i]++
		}
		for _, r := range rows {
			columns[i] = max(columns[i], utf8.RuneCountInString(r.cells[i].text))
		}
	}
	total := v.fit(p, columns, w)
	line := func(r viewRow, title bool) string {
		var b strings.Builder
		for i, c := range p.columns {
			if columns[i] == 0 {
				continue
			}
			if b.Len() > 0 {
				b.WriteString("  ")
			}
			text := clip(r.cells[i].text, columns[i])
			pad := strings.Repeat(" ", columns[i]-utf8.RuneCountInString(text))
			if c.right {
				text = pad + text
			} else {
				text += pad
			}
			b.WriteString(text)
		}
		if left := w - total - 2; left >= 6 && !title {
			if r.tail != "" {
				if utf8.RuneCountInString(r.tail) <= left {
					b.WriteString("  " + r.tail)
				}
			} else if len(r.spark) > 0 {
				b.WriteString("  " + v.sparkline(r.spark, min(left, 30)))
			}
		}
		return clip(strings.TrimRight(b.String(), " "), w)
	}
	head := viewRow{}
	for i, c := range p.columns {
		title := c.title
		if i == p.sort {
			mark := v.glyphs.down
			if p.back {
				mark = v.glyphs.up
			}
			title += mark
		}
		head.cells = append(head.cells, cell{text: title})
	}
	for _, r := range shown {
		if len(lines) >= n {
			break
		}
		style := stylePlain
		if r.bad {
			style = styleBad
		}
		lines = append(lines, screenLine{line(r, false), style})
		if r.tail != "" && utf8.RuneCountInString(r.tail) > w-total-2 {
			lines = append(lines, screenLine{clip("    "+r.tail, w), style})
		}
	}
	return line(head, true), lines[:min(len(lines), n)]
}

// fit cuts and leaves out columns until all have room in w, and returns how many
// columns they take.
func (v *topView) fit(p *pane, columns []int, w int) (total int) {
	sum := func() (n int) {
		for _, c := range columns {
			if c > 0 {
				n += c + 2
			}
		}
		return n - 2
	}
	least := func(i int) int {
		if p.columns[i].least == 0 {
			return columns[i]
		}
		return min(columns[i], max(p.columns[i].least, utf8.RuneCountInString(p.columns[i].title)+1))
	}
	// What can be left out goes before what must be cut to its least.
	for {
		need := 0
		spare := -1
		for i := range columns {
			if columns[i] == 0 {
				continue
			}
			need += least(i) + 2
			if s := p.columns[i].spare; s > 0 && i != p.sort && (spare < 0 || s > p.columns[spare].spare) {
				spare = i
			}
		}
		if need-2 <= w-p.graph || spare < 0 {
			break
		}
		columns[spare] = 0
	}
	// Then the widest that may be cut is cut, a column at a time.
	for total = sum(); total > w; total = sum() {
		widest := -1
		for i := range columns {
			if columns[i] > least(i) && (widest < 0 || columns[i] > columns[widest]) {
				widest = i
			}
		}
		if widest < 0 {
			break
		}
		columns[widest]--
	}
	return total
}

// sparkline draws the last values in up to n columns, the latest at the right.
func (v *topView) sparkline(values []float64, n int) string {
	values = values[max(len(values)-n, 0):]
	most := slices.Max(values)
	var b strings.Builder
	for _, x := range values {
		i := 0
		if most > 0 && x > 0 {
			i = min(1+int(x/most*float64(len(v.glyphs.spark)-1)), len(v.glyphs.spark)-1)
		}
		b.WriteRune(v.glyphs.spark[i])
	}
	return b.String()
}
