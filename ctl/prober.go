package ctl

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"vswitch/ctl/config"
	"vswitch/ctl/translate"
	"vswitch/frame"
	"vswitch/probe"
	vswitch "vswitch/switch"
)

// Probes go from switch to switch by their tunnels. The control side of each does with
// a Path what its pipeline would do with the frame: it asks the pipeline (Switch.Trace),
// sends the probe on by each tunnel port that the frame would leave by (Switch.Emit),
// and answers by the port it came from with a Report. A Report is passed back the way
// that the Path came. Nothing is put out to a container, and nothing is learned.

// Bounds of probes.
const (
	probeQueue   = 512              // that wait to be answered
	maxVisits    = 2048             // what shareAll lets in within probeAge
	probeAge     = 15 * time.Second // how long a probe is remembered
	maxMeasuring = 1024             // measurements of this host's own under way
	maxCopies    = 64               // of a probe that is flooded
	answersEach  = 256              // to one measurement that wait
)

// prober answers other switches' probes, and sends those of this one.
//
// Thread-safety: safe for concurrent use.
type prober struct {
	sw       *vswitch.Switch // these three are begin's
	r        *reconciler
	instance string
	host     string // this host's name
	queue    chan heardProbe

	budget budget // run's

	hearing sync.Mutex     // guards waiting
	waiting map[string]int // in the queue, by port

	mu        sync.Mutex // guards the rest
	visits    *simplelru.LRU[visit, time.Time]
	measuring map[probe.ID]chan<- probeAnswer
}

// heardProbe is a probe that came in by a tunnel port.
type heardProbe struct {
	bridge, port string
	vlan         uint16
	tag          frame.Tag
	data         []byte // its beginning: what follows a probe's payload is padding
	length       int    // of the whole, without its tag
	at           time.Time
}

// relayKey names a copy of a probe that this switch sent.
type relayKey struct {
	id   probe.ID
	span uint32
}

// relay is where the reports about such a copy go.
type relay struct {
	out  string // the port that it was sent by
	back string // the port that the probe came in by
	tag  frame.Tag
	span uint32 // of the copy that came in
	at   time.Time
}

// visit is a probe in a VLAN of a bridge.
type visit struct {
	id     probe.ID
	bridge string
	vlan   uint16
}

// probeAnswer is a Report or an EchoReply to a measurement of this switch.
type probeAnswer struct {
	probe.Probe
	port string
	at   time.Time
}

// newProber makes a prober that hears, and answers from begin on.
func newProber() *prober {
	p := &prober{
		queue: make(chan heardProbe, probeQueue), waiting: map[string]int{}, budget: newBudget(), measuring: map[probe.ID]chan<- probeAnswer{},
	}
	p.host, _ = os.Hostname()
	p.visits, _ = simplelru.NewLRU[visit, time.Time](maxVisits, nil) // the size is above zero
	return p
}

// begin tells the prober whose probes it answers, before run and before anything is
// measured.
func (p *prober) begin(sw *vswitch.Switch, r *reconciler, instance string) {
	p.sw, p.r, p.instance = sw, r, instance
}

// hear takes a probe that a worker overheard; x is valid during the call. What comes
// faster than it is answered is lost: of one port, what would take more places in the
// queue than it leaves free for others.
func (p *prober) hear(x *vswitch.Sighting) {
	p.hearing.Lock()
	defer p.hearing.Unlock()
	if p.waiting[x.Port] >= cap(p.queue)-len(p.queue) {
		return
	}
	h := heardProbe{bridge: x.Bridge, port: x.Port, vlan: x.VLAN, tag: x.Tag, at: time.Now(), length: len(x.Data)}
	h.data = slices.Clone(x.Data[:min(len(x.Data), probe.HeaderLen+probe.MaxPayload)])
	select {
	case p.queue <- h:
		p.waiting[x.Port]++
	default:
	}
}

// next notes that a probe has left the queue.
func (p *prober) next(port string) {
	p.hearing.Lock()
	defer p.hearing.Unlock()
	if p.waiting[port]--; p.waiting[port] <= 0 {
		delete(p.waiting, port)
	}
}

// run answers probes until ctx ends.
func (p *prober) run(ctx context.Context) {
	for {
		select {
		case <-ctx.Done():
			return
		case h := <-p.queue:
			p.next(h.port)
			p.answer(h)
		}
	}
}

func (p *prober) answer(h heardProbe) {
	q, err := probe.Decode(h.data)
	if err != nil {
		return
	}
	s, all := p.budget.of(h.port), &p.budget.all
	switch q.Kind {
	case probe.Path:
		if s.paths.take(h.at) && all.paths.take(h.at) {
			p.carry(h, q, s)
		}
	case probe.Echo:
		if s.echoes.take(h.at) && all.echoes.take(h.at) {
			p.answerEcho(h, q)
		}
	case probe.Report:
		if !p.mine(h, q) {
			p.passBack(h, q, s)
		}
	case probe.EchoReply:
		p.mine(h, q)
	}
}

// mine gives an answer to who waits for it, and reports whether somebody does.
func (p *prober) mine(h heardProbe, q probe.Probe) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	to := p.measuring[q.ID]
	if to == nil {
		return false
	}
	select {
	case to <- probeAnswer{q, h.port, h.at}:
	default:
	}
	return true
}

// measure begins a measurement, whose answers come by the channel until done is
// called; id is nobody's otherwise. It is false when there are too many.
func (p *prober) measure() (id probe.ID, answers <-chan probeAnswer, done func(), ok bool) {
	rand.Read(id[:])
	ch := make(chan probeAnswer, answersEach)
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.measuring) >= maxMeasuring {
		return id, nil, nil, false
	}
	p.measuring[id] = ch
	return id, ch, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.measuring, id)
	}, true
}

// carry does with a Path what this switch would do with its frame, and reports that.
func (p *prober) carry(h heardProbe, q probe.Probe, s *share) {
	hop, err := p.hop(h.bridge, h.port, h.vlan, h.tag, q, s)
	if err != nil {
		return // the port went this moment
	}
	hop.Dwell = time.Since(h.at)
	for i := range hop.Outs {
		hop.Outs[i].Key = nil // who has it may send into that tunnel: it is not for others
	}
	text, err := hop.Append(nil)
	if err != nil {
		return
	}
	_ = p.send(h.port, h.tag, probe.Probe{
		Dst: q.Src, Kind: probe.Report, Hop: q.Hop, TTL: q.TTL, ID: q.ID, Span: q.Span, Sent: q.Sent, Payload: text,
	}) // a report that cannot be sent is one that is lost
}

// hop carries a probe through this switch: it tells what becomes of the frame, and
// sends the probe on. The probe came in by a port with the share s; nil: it begins here,
// as somebody who may ask for it asked.
func (p *prober) hop(bridge, port string, vlan uint16, tag frame.Tag, q probe.Probe, s *share) (probe.Hop, error) {
	hop := probe.Hop{Span: q.Span, Host: p.host, Bridge: bridge, Port: port, VLAN: vlan}
	t, err := p.trace(port, tag, q)
	if err != nil {
		return hop, err
	}
	for _, s := range t.Steps {
		if s.Stage == "lookup" {
			hop.Known = s.Port != ""
		}
	}
	elsewhere := func(b string) string { // where that is to be told
		if b == bridge {
			return ""
		}
		return b
	}
	for i := range t.Drops {
		x := &t.Drops[i]
		if x.Direction != t.Direction && p.mirrored(x, vlan) {
			continue // a mirror's copy, as below
		}
		hop.Drops = append(hop.Drops, probe.Drop{
			Bridge: elsewhere(x.Bridge), Port: x.Port, Out: x.Direction != t.Direction, Reason: x.Reason.String(),
		})
	}
	hop.Loop = p.visited(visit{q.ID, bridge, vlan})
	hop.End = q.Hop >= q.TTL
	copies := 0
	for i := range t.Left {
		x := &t.Left[i]
		if x.Own || p.mirrored(x, vlan) || slices.ContainsFunc(hop.Outs, func(o probe.Out) bool { return o.Port == x.Port }) {
			continue
		}
		o := p.out(x.Port)
		o.Bridge = elsewhere(x.Bridge)
		if o.Remote != "" && !hop.Loop && !hop.End {
			if copies == maxCopies || !p.mayCopy(s) {
				hop.More++ // nobody follows it
				continue
			}
			copies++
			o.Span = p.sendOn(x, port, tag, q, s)
		}
		hop.Outs = append(hop.Outs, o)
	}
	slices.SortFunc(hop.Outs, func(a, b probe.Out) int { return strings.Compare(a.Bridge+" "+a.Port, b.Bridge+" "+b.Port) })
	if len(hop.Outs)+hop.More == 0 {
		hop.Not = p.notOut(t)
	}
	if len(hop.Outs)+hop.More == 0 && !hop.Known {
		hop.Other = p.elsewhere(bridge, port, vlan, q.Dst, s != nil)
	}
	return hop, nil
}

// notOut tells by which ports a flooded frame did not leave, and why. A local port that
// is down is one that nobody uses.
func (p *prober) notOut(t *vswitch.Traced) (not []string) {
	for _, s := range t.Steps {
		why, passed := strings.CutPrefix(s.Text, "not: ")
		if !passed || s.Stage != "flood" || len(not) == probe.MaxNot {
			continue
		}
		if _, local := p.isLocal(s.Port); !local || !strings.HasSuffix(why, "is down") {
			not = append(not, s.Port+": "+why)
		}
	}
	return not
}

// trace asks the pipeline what becomes of a probe's frame.
func (p *prober) trace(port string, tag frame.Tag, q probe.Probe) (*vswitch.Traced, error) {
	b, err := q.Append(make([]byte, frame.TagLen))
	if err != nil {
		return nil, err
	}
	if tag.Present() {
		return p.sw.TraceProbe(port, tag.Insert(b), frame.Offload{})
	}
	return p.sw.TraceProbe(port, b[frame.TagLen:], frame.Offload{})
}

// mayCopy reports whether one copy more may be sent on of what came in by a port.
func (p *prober) mayCopy(s *share) bool {
	now := time.Now()
	return s == nil || s.copies.take(now) && p.budget.all.copies.take(now)
}

// sendOn sends a copy of a probe as the frame x left, and returns the copy's span, 0
// if it could not be sent. Reports about it go back by the port that the probe came by;
// those about a probe that began here are this switch's own, and go nowhere: the port
// that it would have come by may be a container's.
func (p *prober) sendOn(x *vswitch.Sighting, back string, tag frame.Tag, q probe.Probe, s *share) uint32 {
	key := relayKey{q.ID, newSpan()}
	if s != nil {
		p.budget.remember(s, key, relay{out: x.Port, back: back, tag: tag, span: q.Span, at: time.Now()})
	}
	on := q
	on.Hop, on.Span, on.Len = q.Hop+1, key.span, 0
	b, err := on.Append(nil)
	if err == nil {
		err = p.sw.Emit(x.Port, x.Tag, b)
	}
	if err != nil {
		return 0
	}
	return key.span
}

// newSpan returns a number that is not 0.
func newSpan() uint32 {
	var b [4]byte
	rand.Read(b[:])
	return max(binary.NativeEndian.Uint32(b[:]), 1)
}

// passBack passes a report on to where its probe came from. What nobody asked for takes
// nothing of what others may.
func (p *prober) passBack(h heardProbe, q probe.Probe, s *share) {
	to, known := p.budget.relays.Get(relayKey{q.ID, q.Span})
	if !known || to.out != h.port || h.at.Sub(to.at) > probeAge {
		return // nobody asked for it, or not there
	}
	if !s.reports.take(h.at) || !p.budget.all.reports.take(h.at) {
		return
	}
	q.Span = to.span
	q.Len = 0
	_ = p.send(to.back, to.tag, q)
}

// visited reports whether a probe has been in a VLAN of a bridge before, and notes
// that it has.
func (p *prober) visited(v visit) bool {
	now := time.Now()
	p.mu.Lock()
	defer p.mu.Unlock()
	at, known := p.visits.Get(v)
	p.visits.Add(v, now)
	return known && now.Sub(at) < probeAge
}

// send sends a probe of this switch's own by a port, which has to be a tunnel's: the
// one that a probe came by may be a container's by now.
func (p *prober) send(port string, tag frame.Tag, q probe.Probe) error {
	if !p.isTunnel(port) {
		return fmt.Errorf("send a probe by port %s: it is no tunnel", port)
	}
	q.Src = p.mac(port)
	b, err := q.Append(nil)
	if err != nil {
		return err
	}
	return p.sw.Emit(port, tag, b)
}

// mac is the source address of what this switch sends of its own by a port: of that
// port alone, so that nobody who learns it sees it move.
func (p *prober) mac(port string) (a [6]byte) {
	sum := sha256.Sum256([]byte(p.instance + " probe " + port))
	copy(a[:], sum[:])
	a[0] = a[0]&^1 | 2 // unicast, locally administered
	return a
}

// out tells what kind of port one is. A tunnel's Remote is never empty.
func (p *prober) out(port string) probe.Out {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	o := probe.Out{Port: port}
	if st := p.r.ports[port]; st != nil {
		o.Type = string(st.port.Object())
		if t := tunnelStatus(st); t != nil {
			o.Remote, o.Key = t.RemoteAddr, t.OutKey
			if o.Remote == "" {
				o.Remote = t.Remote
			}
		}
	}
	return o
}

// isTunnel reports whether a port leads to another host.
func (p *prober) isTunnel(port string) bool {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	st := p.r.ports[port]
	return st != nil && st.port.Object().IsTunnel()
}

// mirrored reports whether a frame that left, or should have, is a mirror's copy; vlan
// is that in which it came.
func (p *prober) mirrored(x *vswitch.Sighting, vlan uint16) bool {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	b := p.r.bridges[x.Bridge]
	if b == nil {
		return false
	}
	for _, m := range b.mirrors {
		o := m.mirror.Options
		if o.IsSet("output_port") && o.Text("output_port") == x.Port || o.IsSet("output_vlan") && o.Int("output_vlan") == int(x.VLAN) && x.VLAN != vlan {
			return true
		}
	}
	return false
}

// elsewhere tells in which other VLAN of a bridge a MAC address is, or nil; where others
// ask, only in those that the port which the probe came by is in, too.
func (p *prober) elsewhere(bridge, port string, vlan uint16, mac [6]byte, others bool) *probe.Elsewhere {
	v, _, ok := p.vlanOf(port)
	if others && !ok {
		return nil
	}
	all, err := p.sw.FDB(bridge, func(e vswitch.FDBEntry) bool {
		return e.MAC == mac && e.VLAN != vlan && (!others || takes(v, e.VLAN))
	})
	if err != nil || len(all) == 0 {
		return nil
	}
	return &probe.Elsewhere{VLAN: all[0].VLAN, Port: all[0].Port}
}

// vlanOf returns a port's VLANs; false for one that is not there.
func (p *prober) vlanOf(port string) (v vswitch.VLAN, bridge string, ok bool) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	st := p.r.ports[port]
	if st == nil {
		return v, "", false
	}
	return translate.Port(st.port).VLAN, st.bridge, true
}

// stateOf returns a port's state, and why it has that.
func (p *prober) stateOf(port string) (state, reason string) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if st := p.r.ports[port]; st != nil {
		return st.state, st.reason
	}
	return "gone", ""
}

// isLocal reports whether the host itself is behind a port, and its MAC address there.
func (p *prober) isLocal(port string) (mac [6]byte, ok bool) {
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	st := p.r.ports[port]
	if st == nil || len(st.link.MAC) != len(mac) {
		return mac, false
	}
	o := st.port.Object()
	return [6]byte(st.link.MAC), o == config.LocalPort || o == config.InternalPort
}
