package ctl

import (
	"cmp"
	"context"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"

	"vswitch/ctl/api"
	"vswitch/frame"
	"vswitch/probe"
	vswitch "vswitch/switch"
)

// pathSilence is how long the last report may be ago until no other is waited for;
// pathLimit is how long a path is measured at most.
const (
	pathSilence = 2 * time.Second
	pathLimit   = api.MaxPath - time.Second
)

// Path is described at api.Service.
func (d *Daemon) Path(ctx context.Context, q api.PathQuery) (api.Path, error) {
	p := d.probes
	w, err := d.way(q)
	if err != nil {
		return api.Path{}, err
	}
	id, answers, done, ok := p.measure()
	if !ok {
		return api.Path{}, &api.Error{Status: 503, Message: "too many measurements are under way; try again"}
	}
	defer done()
	begun := time.Now()
	first := probe.Probe{
		Dst: w.target, Src: w.source, Kind: probe.Path, Hop: 1, TTL: probe.MaxTTL, ID: id, Span: newSpan(), Sent: begun.UnixNano(),
	}
	hop, err := p.hop(w.bridge, w.port, w.vid, w.tag, first, nil)
	if err != nil {
		return api.Path{}, err
	}
	hop.Dwell = time.Since(begun)
	t := newPathTree(hop)
	t.group = w.target[0]&1 != 0
	t.collect(ctx, answers, begun)
	t.listen(ctx, p)

	res := api.Path{
		Target: q.Target, MAC: macText(w.target), Source: macText(w.source), Made: w.made, VLAN: int(w.vid), Hops: t.hops(),
	}
	judgePath(&res)
	if state, reason := p.stateOf(w.port); state != api.PortUp {
		note := fmt.Sprintf("%s itself is %s: nothing comes in by it now", w.port, state)
		if reason != "" {
			note += ": " + reason
		}
		res.Hops[0].Notes = append(res.Hops[0].Notes, note)
	}
	return res, nil
}

// way is where a probe begins, and for whom it is.
type way struct {
	bridge, port   string
	vid            uint16
	tag            frame.Tag
	target, source [6]byte
	made           bool // the source is nobody's
}

// way finds out what a frame for the target would look like that comes in by the port.
func (d *Daemon) way(q api.PathQuery) (w way, err error) {
	v, bridge, ok := d.probes.vlanOf(q.FromPort)
	switch {
	case !ok || !d.hasPort("", q.FromPort):
		return w, unknown("port", q.FromPort)
	case q.Bridge != "" && q.Bridge != bridge:
		if _, err := d.chosen(q.Bridge); err != nil {
			return w, err
		}
		return w, &api.Error{Status: 404, Field: "from_port", Value: q.FromPort, Message: fmt.Sprintf("port %s is not in bridge %s, but in %s", q.FromPort, q.Bridge, bridge)}
	}
	w.bridge, w.port = bridge, q.FromPort
	target, _ := net.ParseMAC(q.Target) // nil for an IP address
	table, err := d.sw.FDB(bridge, func(e vswitch.FDBEntry) bool { return e.Port == q.FromPort || string(e.MAC[:]) == string(target) })
	if err != nil {
		return w, err
	}
	if w.target, w.vid, err = d.targetOf(q, bridge, v, table); err != nil {
		return w, err
	}
	w.tag = tagOf(v, w.vid)
	w.source, w.made = d.sourceOf(w, table)
	return w, nil
}

// targetOf finds out which MAC address is meant, and in which VLAN.
func (d *Daemon) targetOf(q api.PathQuery, bridge string, v vswitch.VLAN, table []vswitch.FDBEntry) (mac [6]byte, vid uint16, err error) {
	vids := vlansAt(q, v, table)
	if len(vids) == 0 {
		return mac, 0, &api.Error{Status: 400, Field: "vlan", Value: fmt.Sprint(*q.VLAN), Message: fmt.Sprintf("port %s does not take frames of VLAN %d", q.FromPort, *q.VLAN)}
	}
	if hw, err := net.ParseMAC(q.Target); err == nil && len(hw) == len(mac) {
		mac = [6]byte(hw)
		for _, vid := range vids {
			if slices.ContainsFunc(table, func(e vswitch.FDBEntry) bool { return e.VLAN == vid && e.MAC == mac }) {
				return mac, vid, nil
			}
		}
		return mac, vids[0], nil
	}
	ip, err := netip.ParseAddr(q.Target)
	if err != nil {
		return mac, 0, &api.Error{Status: 400, Field: "target", Value: q.Target, Message: fmt.Sprintf("target: %q is no MAC and no IP address", q.Target)}
	}
	rank := func(vid uint16) int {
		if at := slices.Index(vids, vid); at >= 0 || q.VLAN != nil || !takes(v, vid) {
			return at
		}
		return len(vids)
	}
	var found *neighborKey
	d.seen.neighbors.list(func(k neighborKey, n *neighbor) bool {
		at := rank(k.vlan)
		if k.bridge == bridge && k.ip == ip && at >= 0 && (found == nil || at < rank(found.vlan)) {
			found, mac = &k, n.mac
		}
		return false
	})
	if found == nil {
		return mac, 0, &api.Error{Status: 404, Field: "target", Value: q.Target, Message: fmt.Sprintf(
			"nobody has said yet in bridge %s which MAC address %s has: ping it once from behind %s, or give the MAC address", bridge, ip, q.FromPort)}
	}
	return mac, found.vlan, nil
}

// takes reports whether frames of a VLAN may come in by a port.
func takes(v vswitch.VLAN, vid uint16) bool {
	switch {
	case v.Mode == vswitch.Access || v.Mode != vswitch.Trunk && vid == v.Tag:
		return vid == v.Tag
	case v.Mode != vswitch.Trunk && vid == 0:
		return false
	}
	return v.Trunks == nil || v.Trunks.Has(vid)
}

// vlansAt lists the VLANs in which a frame may come in by a port, the likeliest first:
// the one asked for; or those in which somebody speaks there, the latest first, those
// in which the rest of the table knows somebody, and the one of untagged frames.
func vlansAt(q api.PathQuery, v vswitch.VLAN, table []vswitch.FDBEntry) (vids []uint16) {
	add := func(vid uint16) {
		if takes(v, vid) && !slices.Contains(vids, vid) {
			vids = append(vids, vid)
		}
	}
	if q.VLAN != nil {
		add(uint16(*q.VLAN))
		return vids
	}
	heard := slices.Clone(table)
	slices.SortFunc(heard, func(a, b vswitch.FDBEntry) int { return cmp.Compare(a.Age, b.Age) })
	for _, here := range []bool{true, false} {
		for _, e := range heard {
			if (e.Port == q.FromPort) == here {
				add(e.VLAN)
			}
		}
	}
	if v.Mode != vswitch.Trunk {
		add(v.Tag)
	}
	add(0)
	for vid := uint16(1); vid < 4095 && len(vids) == 0; vid++ {
		add(vid)
	}
	return vids
}

// tagOf is the tag with which a frame in a VLAN comes in by a port.
func tagOf(v vswitch.VLAN, vid uint16) frame.Tag {
	if vid == 0 || v.Mode != vswitch.Trunk && vid == v.Tag {
		return frame.Tag{}
	}
	return frame.Tag{TPID: frame.TPID8021Q, TCI: vid}
}

// sourceOf is the source address of a probe: that of somebody who is behind the port, so
// that switches which learn from the probe learn what is true already; the host's own at
// a local port; else one that nobody has, so that nobody is looked for here who is not.
func (d *Daemon) sourceOf(w way, table []vswitch.FDBEntry) (mac [6]byte, made bool) {
	if mac, ok := d.probes.isLocal(w.port); ok {
		return mac, false
	}
	best := -1
	for i, e := range table {
		if e.Port == w.port && e.VLAN == w.vid && e.MAC != w.target && (best < 0 || e.Age < table[best].Age) {
			best = i
		}
	}
	if best >= 0 {
		return table[best].MAC, false
	}
	return d.probes.mac(w.port), true
}

// pathTree is what is known of a path: a hop for each copy that was reported on.
type pathTree struct {
	root   *pathNode
	group  bool // the target is a group address
	bySpan map[uint32]*pathNode
	waits  map[uint32]bool // copies that nothing was heard of yet
}

type pathNode struct {
	probe.Hop
	there  map[uint32]bool // copies by whose tunnel a vswitch answers, which did not report
	number int
	rtt    time.Duration
}

func newPathTree(first probe.Hop) *pathTree {
	t := &pathTree{bySpan: map[uint32]*pathNode{}, waits: map[uint32]bool{}}
	t.root = t.add(first, 0, 0)
	return t
}

// add adds a hop; a second one of the same copy is nothing new.
func (t *pathTree) add(h probe.Hop, number int, rtt time.Duration) *pathNode {
	if t.bySpan[h.Span] != nil {
		return nil
	}
	n := &pathNode{Hop: h, number: number, rtt: rtt}
	t.bySpan[h.Span] = n
	delete(t.waits, h.Span)
	for _, o := range h.Outs {
		if o.Span != 0 && t.bySpan[o.Span] == nil {
			t.waits[o.Span] = true
		}
	}
	return n
}

// maxHops bounds a tree: what a forger may make grow.
const maxHops = 256

// collect takes reports until every copy was reported on, nothing was heard for
// pathSilence, or ctx ends.
func (t *pathTree) collect(ctx context.Context, answers <-chan probeAnswer, begun time.Time) {
	ctx, cancel := context.WithTimeout(ctx, pathLimit)
	defer cancel()
	silence := time.NewTimer(pathSilence)
	defer silence.Stop()
	for len(t.waits) > 0 && len(t.bySpan) < maxHops {
		select {
		case <-ctx.Done():
			return
		case <-silence.C:
			return
		case a := <-answers:
			if !t.asked(a) {
				continue
			}
			h, err := probe.DecodeHop(a.Payload)
			if err != nil {
				continue
			}
			// The probe has the number of who hears it next: one more than that of
			// who sent it.
			if t.add(h, int(a.Hop)-1, a.at.Sub(begun)) != nil {
				silence.Reset(pathSilence)
			}
		}
	}
}

// listen finds out whether there is a vswitch at the other end of this one's tunnels
// from which no report came: then it is the frame that does not get there.
func (t *pathTree) listen(ctx context.Context, p *prober) {
	var mu sync.Mutex
	var running sync.WaitGroup
	t.root.there = map[uint32]bool{}
	for _, o := range t.root.Outs {
		if !t.waits[o.Span] {
			continue
		}
		running.Go(func() { // ended by the answer, or by its time
			v, _, _ := p.vlanOf(o.Port)
			if _, ok := p.echo(ctx, o.Port, echoTag(v), probe.MinLen, echoWithin); ok {
				mu.Lock()
				t.root.there[o.Span] = true
				mu.Unlock()
			}
		})
	}
	running.Wait()
}

// asked reports whether a report came by a port that a copy was sent by.
func (t *pathTree) asked(a probeAnswer) bool {
	if a.Kind != probe.Report {
		return false
	}
	return slices.ContainsFunc(t.root.Outs, func(o probe.Out) bool { return o.Span == a.Span && o.Port == a.port })
}

// hops lists the tree's hops, depth first. What no hop says that it sent comes last.
func (t *pathTree) hops() []api.PathHop {
	all := []api.PathHop{}
	done := map[*pathNode]bool{}
	var walk func(n *pathNode)
	walk = func(n *pathNode) {
		done[n] = true
		at := len(all)
		all = append(all, n.hop(t.group))
		for i, o := range n.Outs {
			if o.Span == 0 {
				continue
			}
			next := t.bySpan[o.Span]
			switch {
			case next == nil:
				all[at].Outputs[i].Silent = true
				all = append(all, api.PathHop{Hop: n.number + 1, Host: "", VLAN: int(n.VLAN), Silent: true, Notes: []string{silentText(o, n)}})
			case !done[next]:
				walk(next)
			}
		}
	}
	walk(t.root)
	var rest []*pathNode
	for _, n := range t.bySpan {
		if !done[n] {
			rest = append(rest, n)
		}
	}
	slices.SortFunc(rest, func(a, b *pathNode) int { return cmp.Or(cmp.Compare(a.number, b.number), cmp.Compare(a.Span, b.Span)) })
	for _, n := range rest {
		if !done[n] {
			walk(n)
		}
	}
	return all
}

func silentText(o probe.Out, from *pathNode) string {
	if from.there[o.Span] {
		return fmt.Sprintf("no answer from %s, where a vswitch is that answers others: its tunnel port is not in VLAN %d, or the answer was lost, or it is too busy answering others", o.Remote, from.VLAN)
	}
	return fmt.Sprintf("no answer from %s: not a vswitch, or unreachable, or its answer was lost, or it is too busy answering others, or its tunnel port is not in the frame's VLAN", o.Remote)
}

// hop is what the API tells of a node; group says that the target is a group address.
func (n *pathNode) hop(group bool) api.PathHop {
	h := api.PathHop{
		Hop: n.number, Host: n.Host, Bridge: n.Bridge, InPort: n.Port, VLAN: int(n.VLAN), Known: n.Known, More: n.More,
		RTT: micros(n.rtt), Dwell: micros(n.Dwell),
	}
	for _, o := range n.Outs {
		h.Outputs = append(h.Outputs, api.PathOutput{Bridge: o.Bridge, Port: o.Port, Type: o.Type, Remote: o.Remote, Key: o.Key})
	}
	for _, x := range n.Drops {
		h.Drops = append(h.Drops, api.PathDrop{Bridge: x.Bridge, Port: x.Port, Out: x.Out, Reason: x.Reason, Help: helpOf(x.Reason)})
	}
	if n.Loop {
		h.Notes = append(h.Notes, "a loop: the frame has been in this bridge before")
	}
	if n.End {
		h.Notes = append(h.Notes, fmt.Sprintf("the probe goes no further than %d switches", probe.MaxTTL))
	}
	switch {
	case n.Known || len(n.Outs) == 0:
	case group:
		h.Notes = append(h.Notes, "a group address: the frame is flooded")
	default:
		h.Notes = append(h.Notes, "the address is not in the table here: the frame is flooded")
	}
	for _, not := range n.Not {
		h.Notes = append(h.Notes, "not by "+not)
	}
	if n.Other != nil {
		h.Notes = append(h.Notes, fmt.Sprintf("the address is behind %s here, in VLAN %d", n.Other.Port, n.Other.VLAN))
	}
	return h
}

func micros(d time.Duration) float64 { return float64(d.Round(100*time.Nanosecond)) / 1000 }

// helpOf is what a reason means, by its name, which another switch may have told.
func helpOf(reason string) string {
	for _, r := range vswitch.Reasons() {
		if r.String() == reason {
			return r.Help()
		}
	}
	return ""
}
