package main

import (
	"context"
	"fmt"
	"math"
	"strings"
	"sync/atomic"
	"syscall"
	"time"
	"unicode/utf8"

	"github.com/gdamore/tcell/v2"

	"vswitch/ctl/api"
)

// lineStyle is how a line of the screen looks.
type lineStyle int

const (
	stylePlain lineStyle = iota
	styleHead
	styleBad
	styleWarn
	styleTitles
	styleDim
)

var tcellStyles = [...]tcell.Style{
	stylePlain:  tcell.StyleDefault,
	styleHead:   tcell.StyleDefault.Bold(true),
	styleBad:    tcell.StyleDefault.Foreground(tcell.ColorRed).Bold(true),
	styleWarn:   tcell.StyleDefault.Foreground(tcell.ColorYellow),
	styleTitles: tcell.StyleDefault.Reverse(true),
	styleDim:    tcell.StyleDefault.Dim(true),
}

type screenLine struct {
	text  string
	style lineStyle
}

// header says who and how much, in at most two lines, and what is wrong.
func (v *topView) header(d *topData, interval time.Duration, lost string) []screenLine {
	sep := "  "
	first := "vswitch on " + clean(d.Host) + sep + clean(d.Version) + sep + "up " + ago(time.Duration(d.Uptime*float64(time.Second))) +
		sep + d.Time.Format("15:04:05") + sep + "every " + interval.String()
	t := d.Total
	second := fmt.Sprintf("rx %s/s %sbit/s  tx %s/s %sbit/s  drops %s/s  %s, %s", amount(t.RxFrames), unit(t.RxBits), amount(t.TxFrames), unit(t.TxBits), amount(t.Drops),
		count(len(d.Ports), "port"), wellText(d.NotUp))
	if d.Interval == 0 {
		second = fmt.Sprintf("rates come with the next look  %s, %s", count(len(d.Ports), "port"), wellText(d.NotUp))
	}
	lines := []screenLine{{first, styleHead}, {second, stylePlain}}
	if lost != "" {
		lines = append(lines, screenLine{"LOST, trying again: " + clean(lost), styleBad})
	}
	for i, w := range d.Warnings {
		if i == 2 {
			lines = append(lines, screenLine{fmt.Sprintf("WARNING: and %d more; `vswitchctl show` has them", len(d.Warnings)-i), styleWarn})
			break
		}
		lines = append(lines, screenLine{"WARNING: " + clean(w), styleWarn})
	}
	return lines
}

// amount is a number a second in a sentence, where nothing is 0.
func amount(n float64) string {
	if n == 0 {
		return "0"
	}
	return hz(n)
}

// unit is a number of bits with room before its unit.
func unit(n float64) string {
	s := amount(n)
	if s != "" && s[len(s)-1] >= 'A' {
		return s[:len(s)-1] + " " + s[len(s)-1:]
	}
	return s + " "
}

// tabs names the panes with how many rows they have; the chosen one stands in brackets.
func (v *topView) tabs(d *topData) string {
	n := []int{len(d.Ports), len(d.Tunnels), len(d.MACs), len(d.Flows), len(d.Workers)}
	var b strings.Builder
	for i, p := range v.panes {
		text := fmt.Sprintf("%d %s %d", i+1, p.name, n[i])
		if i == v.active {
			text = "[" + text + "]"
		} else {
			text = " " + text + " "
		}
		b.WriteString(text)
	}
	if v.filter != "" {
		b.WriteString("  only " + clean(v.filter))
	}
	return b.String()
}

// paneLines are a pane's titles and rows in w columns and n lines.
func (v *topView) paneLines(p *pane, d *topData, w, n, from int) (lines []screenLine, more int) {
	rows := v.sorted(p, d)
	titles, texts := v.table(p, rows, w, from, max(n-1, 0))
	lines = append(append(lines, screenLine{titles, styleTitles}), texts...)
	if len(rows) == 0 {
		lines = append(lines, screenLine{v.nothing(p, d), styleDim})
	}
	return lines, len(rows)
}

func (v *topView) nothing(p *pane, d *topData) string {
	switch {
	case v.filter != "":
		return "nothing here has " + clean(v.filter) + " in it"
	case d.Note != "" && (p.name == "MACs" || p.name == "flows"):
		return clean(d.Note)
	}
	return p.empty
}

// Beneath the chosen pane the others are shown in part, where the screen is tall.
const (
	tallScreen = 40
	otherRows  = 4
)

// screen is all lines of a screen of w columns and h lines; foot is the last one.
func (v *topView) screen(d *topData, w, h int, interval time.Duration, lost, foot string) []screenLine {
	lines := v.header(d, interval, lost)
	lines = append(lines, screenLine{v.tabs(d), styleHead})
	var others []screenLine
	if h >= tallScreen {
		for i, p := range v.panes {
			if i == v.active {
				continue
			}
			part, _ := v.paneLines(p, d, w, 1+otherRows, 0)
			others = append(append(others, screenLine{"", stylePlain}), part...)
		}
	}
	room := h - len(lines) - len(others) - 1
	if room < 6 { // the others take too much
		others, room = nil, h-len(lines)-1
	}
	v.scroll = max(min(v.scroll, lastScroll(v.sorted(v.panes[v.active], d), room-1)), 0)
	part, _ := v.paneLines(v.panes[v.active], d, w, room, v.scroll)
	lines = append(lines, part...)
	for len(lines)+len(others) < h-1 {
		lines = append(lines, screenLine{})
	}
	lines = append(lines, others...)
	lines = append(lines[:max(min(len(lines), h-1), 0)], screenLine{foot, styleDim})
	for i := range lines {
		lines[i].text = clip(lines[i].text, w)
	}
	return lines
}

// lastScroll is the row from which on all others fit in a number of lines.
func lastScroll(rows []viewRow, lines int) int {
	for i := len(rows) - 1; i >= 0; i-- {
		if lines -= 1 + btoi(rows[i].tail != ""); lines < 0 {
			return i + 1
		}
	}
	return 0
}

// plain is one screen of all panes, for --once.
func (v *topView) plain(d *topData) string {
	var b strings.Builder
	for _, l := range v.header(d, time.Duration(d.Interval*float64(time.Second)).Round(100*time.Millisecond), "") {
		b.WriteString(l.text + "\n")
	}
	for _, p := range v.panes {
		const most = 20
		lines, n := v.paneLines(p, d, width, 1+most, 0)
		if n == 0 && p.name == "tunnels" {
			continue
		}
		b.WriteString("\n" + p.name)
		if n > most {
			fmt.Fprintf(&b, ", the first %d of %d", most, n)
		}
		b.WriteString("\n")
		for _, l := range lines {
			b.WriteString(strings.TrimRight("  "+clip(l.text, width-2), " ") + "\n")
		}
	}
	return b.String()
}

const footText = "? help  q quit  Tab 1-5 panes  <> sort  S reverse  / filter  p hold  +- pace"

var helpText = []string{
	"1 to 5, Tab      ports, tunnels, MACs, flows, workers",
	"s or >, <        sort by the next column, the one before",
	"S or r           the other way round",
	"/                only rows that hold a word; Enter keeps it, Esc ends it",
	"p or space       hold the screen; again: go on",
	"+ and -          look less often, more often",
	"arrows, PgUp, PgDn, Home, End    scroll",
	"Ctrl-L           draw anew",
	"q, Esc, Ctrl-C   quit",
	"",
	"Rates are of the interval; a super-frame is one frame. The graph is bits a",
	"second both ways, each port's against its own most. MACs and flows are",
	"estimated from the flight recorder. BUSY is a share of the interval, BATCH the",
	"frames moved at once, up to 64.",
	"",
	"any key: back",
}

// topUI is the screen and what its keys changed.
//
// Thread-safety: it belongs to show's goroutine, but for interval.
type topUI struct {
	run      *topRun
	screen   tcell.Screen
	view     *topView
	model    *topModel
	data     *topData // what is shown; not the model's while it is held
	interval atomic.Int64

	held, help, typing bool
	lost               string // why the daemon does not answer; "": it does
	kick               chan struct{}
}

type topLook struct {
	sample topSample
	err    error
	panic  any
}

// show draws until q, or until ctx ends. The screen is given back in any case.
func (t *topRun) show(ctx context.Context, c *api.Client, screen tcell.Screen, g glyphs, first topSample) (err error) {
	defer screen.Fini()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	u := &topUI{run: t, screen: screen, view: newTopView(g), model: newTopModel(), kick: make(chan struct{}, 1)}
	u.interval.Store(int64(t.interval))
	u.model.add(first)
	u.data = u.model.data
	looks, events := make(chan topLook), make(chan tcell.Event, 16)
	go u.look(ctx, c, looks) // ended by cancel
	quit := make(chan struct{})
	defer close(quit)
	go screen.ChannelEvents(events, quit) // ended by quit, or Fini
	for {
		u.draw()
		select {
		case <-ctx.Done():
			return nil // SIGINT or SIGTERM: how it may end
		case l := <-looks:
			if l.panic != nil {
				panic(l.panic) // here, where the screen is given back
			}
			u.took(l)
		case e, ok := <-events:
			if !ok || u.event(e) {
				return nil
			}
		}
	}
}

// look asks the daemon again and again. It panics in show's goroutine, if it must.
func (u *topUI) look(ctx context.Context, c *api.Client, looks chan<- topLook) {
	give := func(l topLook) {
		select {
		case looks <- l:
		case <-ctx.Done():
		}
	}
	defer func() {
		if p := recover(); p != nil {
			give(topLook{panic: p})
		}
	}()
	for {
		interval := time.Duration(u.interval.Load())
		select {
		case <-ctx.Done():
			return
		case <-u.kick:
			continue // with the new interval
		case <-time.After(interval):
		}
		s, err := u.run.look(ctx, c, interval)
		give(topLook{sample: s, err: err})
	}
}

func (u *topUI) took(l topLook) {
	if l.err != nil {
		u.lost, _, _ = strings.Cut(l.err.Error(), "; a change") // none was asked for
		u.model.forget()
		return
	}
	u.lost = ""
	u.model.add(l.sample)
	if !u.held {
		u.data = u.model.data
	}
}

func (u *topUI) draw() {
	w, h := u.screen.Size()
	u.screen.Clear()
	u.screen.HideCursor()
	var lines []screenLine
	switch {
	case u.help:
		lines = append(lines, screenLine{"keys", styleHead})
		for _, l := range helpText {
			lines = append(lines, screenLine{clip(l, w), stylePlain})
		}
	default:
		foot := footText
		if u.held {
			foot = "HELD since " + u.data.Time.Format("15:04:05") + "; p goes on"
		}
		if u.typing {
			foot = "/" + u.view.filter
		}
		lines = u.view.screen(u.data, w, h, time.Duration(u.interval.Load()), u.lost, foot)
	}
	for y, l := range lines {
		if y >= h {
			break
		}
		text := l.text
		if l.style == styleTitles {
			text += strings.Repeat(" ", max(w-utf8.RuneCountInString(text), 0))
		}
		u.screen.PutStrStyled(0, y, text, tcellStyles[l.style])
	}
	if u.typing {
		u.screen.ShowCursor(1+utf8.RuneCountInString(u.view.filter), h-1)
	}
	u.screen.Show()
}

// event does what a key says, and reports whether that was to quit.
func (u *topUI) event(e tcell.Event) (quit bool) {
	switch e := e.(type) {
	case *tcell.EventResize:
		u.screen.Sync()
	case *tcell.EventError:
		return true // the terminal is gone
	case *tcell.EventKey:
		switch {
		case e.Key() == tcell.KeyCtrlC:
			return true
		case e.Key() == tcell.KeyCtrlL:
			u.screen.Sync()
		case e.Key() == tcell.KeyCtrlZ:
			u.suspend()
		case u.help:
			u.help = false
		case u.typing:
			u.typed(e)
		default:
			return u.key(e)
		}
	}
	return false
}

// typed takes a key of the filter.
func (u *topUI) typed(e *tcell.EventKey) {
	f := []rune(u.view.filter)
	switch e.Key() {
	case tcell.KeyEnter:
		u.typing = false
	case tcell.KeyEscape:
		u.typing, f = false, nil
	case tcell.KeyBackspace, tcell.KeyBackspace2:
		f = f[:max(len(f)-1, 0)]
	case tcell.KeyCtrlU:
		f = nil
	case tcell.KeyRune:
		if len(f) < 60 {
			f = append(f, e.Rune())
		}
	}
	u.view.filter, u.view.scroll = string(f), 0
}

func (u *topUI) key(e *tcell.EventKey) (quit bool) {
	_, h := u.screen.Size()
	v := u.view
	p := v.panes[v.active]
	switch e.Key() {
	case tcell.KeyEscape:
		if v.filter == "" {
			return true
		}
		v.filter = ""
	case tcell.KeyTab:
		v.choose(v.active + 1)
	case tcell.KeyBacktab:
		v.choose(v.active - 1)
	case tcell.KeyUp:
		v.scroll--
	case tcell.KeyDown:
		v.scroll++
	case tcell.KeyPgUp:
		v.scroll -= h / 2
	case tcell.KeyPgDn:
		v.scroll += h / 2
	case tcell.KeyHome:
		v.scroll = 0
	case tcell.KeyEnd:
		v.scroll = math.MaxInt32
	case tcell.KeyLeft:
		v.sortBy(p.sort - 1)
	case tcell.KeyRight:
		v.sortBy(p.sort + 1)
	case tcell.KeyRune:
		switch r := e.Rune(); r {
		case 'q':
			return true
		case '?', 'h':
			u.help = true
		case '1', '2', '3', '4', '5':
			v.choose(int(r - '1'))
		case 's', '>', '.':
			v.sortBy(p.sort + 1)
		case '<', ',':
			v.sortBy(p.sort - 1)
		case 'S', 'r':
			p.back = !p.back
		case '/':
			u.typing = true
		case 'p', ' ':
			if u.held = !u.held; !u.held {
				u.data = u.model.data
			}
		case 'k':
			v.scroll--
		case 'j':
			v.scroll++
		case '+', '=':
			u.pace(2)
		case '-', '_':
			u.pace(0.5)
		}
	}
	v.scroll = max(v.scroll, 0)
	return false
}

func (v *topView) choose(pane int) {
	v.active, v.scroll = (pane+len(v.panes))%len(v.panes), 0
}

func (v *topView) sortBy(column int) {
	p := v.panes[v.active]
	p.sort, p.back, v.scroll = (column+len(p.columns))%len(p.columns), false, 0
}

// pace makes the interval longer or shorter, in steps that are easily read.
func (u *topUI) pace(factor float64) {
	steps := []time.Duration{minInterval, 200 * time.Millisecond, 500 * time.Millisecond, time.Second, 2 * time.Second, 5 * time.Second,
		10 * time.Second, 30 * time.Second, time.Minute}
	now := time.Duration(u.interval.Load())
	next := now
	for i := range steps {
		if s := steps[len(steps)-1-i]; factor < 1 && s < now {
			next = s
			break
		}
		if s := steps[i]; factor > 1 && s > now {
			next = s
			break
		}
	}
	u.interval.Store(int64(next))
	select {
	case u.kick <- struct{}{}:
	default:
	}
}

// suspend gives the terminal back to the shell until it is taken to the foreground.
func (u *topUI) suspend() {
	if u.screen.Suspend() != nil {
		return
	}
	syscall.Kill(syscall.Getpid(), syscall.SIGTSTP)
	u.screen.Resume()
}
