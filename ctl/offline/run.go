package offline

import (
	"fmt"
	"io"
	"slices"

	"vswitch/capture"
	"vswitch/capture/reader"
	"vswitch/capture/summary"
	"vswitch/ctl/config"
)

// Result is what became of a capture's frames.
type Result struct {
	Frames  []Frame
	FDB     []MAC    // what was learned, by bridge, VLAN and address
	Refused []string // packets that are no frames: which and why
	Skipped int      // frames that the capture says went out
}

// Run puts the frames of a capture into a switch of doc, which must be valid. links says
// what the document does not of its interfaces. inPort is the port that all frames come
// in by; with "" it is the one that the capture's interface is named after.
func Run(doc config.Document, links map[string]Link, file io.Reader, inPort string) (*Result, error) {
	b, err := newBench(doc, links)
	if err != nil {
		return nil, err
	}
	defer b.close()
	c, err := reader.New(file)
	if err != nil {
		return nil, err
	}
	r := &Result{}
	for {
		p, err := c.Next()
		if err == io.EOF {
			break
		}
		if err != nil {
			return nil, err
		}
		if err := b.packet(p, inPort, r); err != nil {
			return nil, err
		}
	}
	r.FDB, err = b.macs()
	return r, err
}

// packet puts one packet into the switch, unless it is one that went out.
func (b *bench) packet(p *reader.Packet, inPort string, r *Result) error {
	if p.Direction == capture.Outbound {
		r.Skipped++
		return nil
	}
	port := inPort
	if port == "" {
		port = p.Interface
	}
	of, known := b.ports[port]
	switch {
	case port == "":
		return fmt.Errorf("frame %d: the capture does not say by which port it came in: --in-port does", p.Number)
	case !known:
		return fmt.Errorf("frame %d came in by %s, and the document has no such port: --in-port says which it is", p.Number, port)
	}
	data, _, err := p.Frame()
	if err != nil {
		r.Refused = append(r.Refused, fmt.Sprintf("frame %d: %s", p.Number, err))
		return nil
	}
	f := Frame{Number: p.Number, InPort: port, Summary: summary.Of(data, len(data))}
	o, _ := reader.Restore(data, of.mtu)
	if f.Out, f.Drop, err = b.put(port, data, o); err != nil {
		return fmt.Errorf("frame %d: %w", p.Number, err)
	}
	r.Frames = append(r.Frames, f)
	return nil
}

// Expectation is what the result would have been expected to be.
func (r *Result) Expectation(links map[string]Link) *Expectation {
	return &Expectation{Ports: links, Frames: r.Frames, FDB: r.FDB}
}

// Difference is one frame that went another way, or, with Number 0, what is different
// in the MAC table.
type Difference struct {
	Number  int      `json:"frame,omitempty"`
	InPort  string   `json:"in_port,omitempty"`
	Summary string   `json:"summary,omitempty"`
	Missing []string `json:"missing,omitempty"` // expected, and did not happen
	Surplus []string `json:"surplus,omitempty"` // happened, and was not expected
}

// Compare tells how what happened differs from what was expected, the MAC table last.
func (r *Result) Compare(want *Expectation) (all []Difference) {
	expected := map[int]*Frame{}
	for i := range want.Frames {
		expected[want.Frames[i].Number] = &want.Frames[i]
	}
	for i := range r.Frames {
		got := &r.Frames[i]
		w := expected[got.Number]
		delete(expected, got.Number)
		d := Difference{Number: got.Number, InPort: got.InPort, Summary: got.Summary}
		if w == nil {
			d.Surplus = []string{"comes in, and nothing is expected of it"}
		} else {
			if w.InPort != got.InPort && w.InPort != "" {
				d.Missing, d.Surplus = append(d.Missing, "comes in by "+w.InPort), append(d.Surplus, "comes in by "+got.InPort)
			}
			d.compareOut(w.Out, got.Out)
			d.compareDrops(w.Drop, got.Drop)
		}
		if len(d.Missing)+len(d.Surplus) > 0 {
			all = append(all, d)
		}
	}
	for i := range want.Frames {
		if f := &want.Frames[i]; expected[f.Number] != nil {
			all = append(all, Difference{Number: f.Number, InPort: f.InPort, Missing: []string{"comes in: the capture has no such frame that does"}})
		}
	}
	slices.SortStableFunc(all, func(a, b Difference) int { return a.Number - b.Number })
	if d := compareMACs(want.FDB, r.FDB); want.FDB != nil && len(d.Missing)+len(d.Surplus) > 0 {
		all = append(all, d)
	}
	return all
}

// compareOut tells which outputs differ, port by port: the order in which one port
// sends counts.
func (d *Difference) compareOut(want, got []Out) {
	for len(want) > 0 || len(got) > 0 {
		port := ""
		for _, list := range [][]Out{want, got} {
			if len(list) > 0 && (port == "" || list[0].Port < port) {
				port = list[0].Port
			}
		}
		var w, g []Out
		w, want = ofPort(want, port)
		g, got = ofPort(got, port)
		if !slices.EqualFunc(w, g, Out.equal) {
			for _, o := range w {
				d.Missing = append(d.Missing, o.String())
			}
			for _, o := range g {
				d.Surplus = append(d.Surplus, o.String())
			}
		}
	}
}

// ofPort splits a sorted list behind what leaves by a port.
func ofPort(list []Out, port string) (of, rest []Out) {
	n := 0
	for n < len(list) && list[n].Port == port {
		n++
	}
	return list[:n], list[n:]
}

func (d *Difference) compareDrops(want, got Drops) {
	left := slices.Clone(got)
	// Those that name their port have the first choice.
	for _, named := range []bool{true, false} {
		for _, w := range want {
			if (w.Port != "") != named {
				continue
			}
			if i := slices.IndexFunc(left, w.matches); i >= 0 {
				left = slices.Delete(left, i, i+1)
			} else {
				d.Missing = append(d.Missing, w.String())
			}
		}
	}
	for _, g := range left {
		d.Surplus = append(d.Surplus, g.String())
	}
}

func compareMACs(want, got []MAC) (d Difference) {
	for _, w := range want {
		if !slices.Contains(got, w) {
			d.Missing = append(d.Missing, w.String())
		}
	}
	for _, g := range got {
		if !slices.Contains(want, g) {
			d.Surplus = append(d.Surplus, g.String())
		}
	}
	return d
}
