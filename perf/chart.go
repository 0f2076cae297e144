package perf

import (
	"encoding/xml"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
)

// chartPanels are what the chart shows, where it was measured: the run at a
// glance, not all of it.
var chartPanels = []struct{ scenario, metric, title string }{
	{"tcp-1", "rate", "TCP, one stream"},
	{"tcp-8", "rate", "TCP, eight streams"},
	{"ping-pong", "p50", "UDP ping-pong, median"},
	{"ping-pong", "p99", "UDP ping-pong, 99th percentile"},
	{"frames-64", "rate", "64-byte frames delivered"},
	{"frames-1518", "rate", "1518-byte frames delivered"},
	{"macs-100k", "rate", "64-byte frames, 100k MACs"},
	{"idle-1000", "rate", "64-byte frames, 1,000 idle ports"},
	{"vxlan-tcp", "rate", "TCP over VXLAN, offloads off"},
	{"vxlan-on-tcp", "rate", "TCP over VXLAN, offloads on"},
	{"vxlan-ping-pong", "p50", "VXLAN ping-pong, median"},
	{"gre-tcp", "rate", "TCP over GRE, offloads off"},
}

// The chart's measures, in its own pixels.
const (
	panelWidth  = 430
	panelGap    = 26
	chartMargin = 24
	panelHead   = 44 // title and unit
	rowHeight   = 22
	barHeight   = 13
	labelWidth  = 76 // subjects' names
	valueWidth  = 84 // room for a value right of the longest bar
)

// chartStyle follows the reader's light or dark; a renderer that knows no media
// queries shows light on its own paper, which is legible on any page.
const chartStyle = `
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 12px; fill: #24292f }
.paper { fill: #ffffff }
.title { font-weight: 600; font-size: 13px }
.unit, .none { fill: #656d76; font-size: 11px }
.ours { fill: #1f6feb }
.peer { fill: #aab4c0 }
.axis { stroke: #d0d7de }
.spread { stroke: #24292f; stroke-width: 1.2; fill: none }
.cut { stroke: #ffffff; stroke-width: 2; fill: none }
.mine { font-weight: 600 }
@media (prefers-color-scheme: dark) {
text { fill: #e6edf3 }
.paper { fill: #0d1117 }
.unit, .none { fill: #9198a1 }
.ours { fill: #4493f8 }
.peer { fill: #566170 }
.axis { stroke: #3d444d }
.spread { stroke: #e6edf3 }
.cut { stroke: #0d1117 }
}
`

// panel is one scenario's metric in the chart.
type panel struct {
	title, unit string
	bars        []bar
}

type bar struct {
	subject string
	stat    Stat
	none    string // said instead of a bar
}

// WriteSVG writes the chart: medians as bars, lowest and highest as whiskers, each
// panel on a scale of its own that begins with zero.
func (r *Results) WriteSVG(w io.Writer) error {
	panels := r.panels()
	rows := 0 // of bars, in the tallest panel: all are as tall
	for _, p := range panels {
		rows = max(rows, len(p.bars))
	}
	height := panelHead + rows*rowHeight + panelGap
	lines := (len(panels) + 1) / 2
	width, total := 2*chartMargin+2*panelWidth+panelGap, 2*chartMargin+lines*height+20

	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" width="%d" height="%d" role="img">`+"\n", width, total, width, total)
	fmt.Fprintf(&b, "<title>%s</title>\n<style>%s</style>\n", escaped(ours+" and its peers on the same work"), chartStyle)
	fmt.Fprintf(&b, `<rect class="paper" width="%d" height="%d" rx="8"/>`+"\n", width, total)
	for i, p := range panels {
		x, y := chartMargin+i%2*(panelWidth+panelGap), chartMargin+i/2*height
		fmt.Fprintf(&b, `<g transform="translate(%d %d)">`+"\n", x, y)
		p.draw(&b)
		b.WriteString("</g>\n")
	}
	for i, line := range []string{"bar: median; whiskers: lowest and highest round; what is cut or has no end goes further", r.Machine.String()} {
		fmt.Fprintf(&b, `<text class="unit" x="%d" y="%d">%s</text>`+"\n", chartMargin, total-chartMargin-8+16*i, escaped(line))
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

func (r *Results) panels() (some []panel) {
	for _, c := range chartPanels {
		s := r.Scenario(c.scenario)
		if s == nil {
			continue
		}
		m, _ := s.Metric(c.metric)
		p := panel{title: c.title, unit: m.Unit + ", less is better"}
		if m.Better == More {
			p.unit = m.Unit + ", more is better"
		}
		measured := false
		for _, o := range s.Outcomes {
			one := bar{subject: o.Subject, stat: o.Stat(c.metric)}
			switch {
			case one.stat.N > 0:
				measured = true
			case o.Cannot != "":
				one.none = "cannot"
			case len(o.Failures) > 0:
				one.none = "failed"
			default:
				one.none = "not measured"
			}
			p.bars = append(p.bars, one)
		}
		if measured {
			some = append(some, p)
		}
	}
	return some
}

// draw draws a panel with its upper left corner at the origin.
func (p panel) draw(b *strings.Builder) {
	fmt.Fprintf(b, `<text class="title" x="0" y="12">%s</text><text class="unit" x="0" y="28">%s</text>`+"\n", escaped(p.title), escaped(p.unit))
	end := p.end()
	at := func(v float64) float64 {
		return labelWidth + min(v, end)/max(end, math.SmallestNonzeroFloat64)*(panelWidth-labelWidth-valueWidth)
	}
	for i, one := range p.bars {
		y := panelHead + i*rowHeight
		middle := float64(y) + float64(barHeight)/2
		kind, weight := "peer", ""
		if one.subject == ours {
			kind, weight = "ours", ` class="mine"`
		}
		fmt.Fprintf(b, `<text%s x="%d" y="%.1f" text-anchor="end">%s</text>`, weight, labelWidth-8, middle+4, escaped(one.subject))
		if one.none != "" {
			fmt.Fprintf(b, `<text class="none" x="%d" y="%.1f">%s</text>`+"\n", labelWidth+6, middle+4, one.none)
			continue
		}
		fmt.Fprintf(b, `<rect class="%s" x="%d" y="%d" width="%.1f" height="%d" rx="1.5"/>`, kind, labelWidth, y, at(one.stat.Median)-labelWidth, barHeight)
		if one.stat.Median > end {
			fmt.Fprintf(b, `<path class="cut" d="M%.1f %dl-5 %dm5 0l5 -%d"/>`, at(end)-14, y-1, barHeight+2, barHeight+2)
		} else if one.stat.High > one.stat.Low {
			low, high := at(one.stat.Low), at(one.stat.High)
			fmt.Fprintf(b, `<path class="spread" d="M%.1f %.1fH%.1fM%.1f %.1fv7`, low, middle, high, low, middle-3.5)
			if one.stat.High <= end { // else it goes on
				fmt.Fprintf(b, `M%.1f %.1fv7`, high, middle-3.5)
			}
			b.WriteString(`"/>`)
		}
		fmt.Fprintf(b, `<text%s x="%.1f" y="%.1f">%s</text>`+"\n", weight, max(at(one.stat.High), at(one.stat.Median))+6, middle+4, number(one.stat.Median))
	}
	fmt.Fprintf(b, `<path class="axis" d="M%d %dv%d"/>`+"\n", labelWidth, panelHead-4, len(p.bars)*rowHeight)
}

// end is the value at the end of the panel's scale. One bar far longer than all
// others, or one round far from the rest, would make points of them: it is cut.
func (p panel) end() float64 {
	var medians []float64
	for _, one := range p.bars {
		if one.stat.N > 0 {
			medians = append(medians, one.stat.Median)
		}
	}
	slices.Sort(medians)
	longest := medians[len(medians)-1]
	if n := len(medians); n > 1 && longest > 6*medians[n-2] && medians[n-2] > 0 {
		longest = 2 * medians[n-2]
	}
	end := longest
	for _, one := range p.bars {
		if one.stat.Median <= longest {
			end = max(end, min(one.stat.High, 1.5*longest))
		}
	}
	return end
}

func escaped(text string) string {
	var b strings.Builder
	if err := xml.EscapeText(&b, []byte(text)); err != nil {
		return "" // a strings.Builder never fails
	}
	return b.String()
}
