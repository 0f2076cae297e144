package ctl

import (
	"context"
	"time"

	"vswitch/frame"
	"vswitch/probe"
	vswitch "vswitch/switch"
)

// echoTo is the destination of an Echo and of its reply: a link-local group address
// (that of LLDP's nearest bridge, IEEE 802.1Q table 8-1), which no bridge forwards. The
// far end of a tunnel that is no vswitch keeps it from its containers.
var echoTo = [6]byte{0x01, 0x80, 0xc2, 0, 0, 0x0e}

// echoWithin is how long an answer may take that is waited for.
const echoWithin = 500 * time.Millisecond

// answerEcho tells the other end of a tunnel how long an Echo was that came in.
func (p *prober) answerEcho(h heardProbe, q probe.Probe) {
	n := h.length
	if h.tag.Present() {
		n += frame.TagLen
	}
	_ = p.send(h.port, h.tag, probe.Probe{
		Dst: echoTo, Kind: probe.EchoReply, Hop: 1, TTL: 1, ID: q.ID, Span: q.Span, Sent: q.Sent, Payload: probe.EchoLen(n),
	}) // one that cannot be sent is one that is lost
}

// echoTag is the tag with which an Echo leaves by a port: none, where untagged frames
// are admitted; else one of the VLANs that the port has. The other end's port is taken
// to have the same.
func echoTag(v vswitch.VLAN) frame.Tag {
	if v.Mode == vswitch.Trunk && v.Trunks != nil && !v.Trunks.Has(0) {
		for vid := uint16(1); vid < 4095; vid++ {
			if v.Trunks.Has(vid) {
				return frame.Tag{TPID: frame.TPID8021Q, TCI: vid}
			}
		}
	}
	return frame.Tag{}
}

// echo sends an Echo whose frame has n bytes, tag included, by a tunnel port, and
// reports whether the other end's vswitch had it whole within the time, and how long
// that took.
func (p *prober) echo(ctx context.Context, port string, tag frame.Tag, n int, within time.Duration) (took time.Duration, ok bool) {
	id, answers, done, ok := p.measure()
	if !ok {
		return 0, false
	}
	defer done()
	if tag.Present() {
		n -= frame.TagLen
	}
	begun := time.Now()
	q := probe.Probe{Dst: echoTo, Kind: probe.Echo, Hop: 1, TTL: 1, ID: id, Span: newSpan(), Sent: begun.UnixNano(), Len: n}
	if err := p.send(port, tag, q); err != nil {
		return 0, false
	}
	limit := time.NewTimer(within)
	defer limit.Stop()
	for {
		select {
		case <-ctx.Done():
			return 0, false
		case <-limit.C:
			return 0, false
		case a := <-answers:
			if a.Kind != probe.EchoReply || a.port != port || a.Span != q.Span {
				continue
			}
			whole := n
			if tag.Present() {
				whole += frame.TagLen
			}
			// A far end may have taken the tag off, never the rest.
			return a.at.Sub(begun), probe.ReadEchoLen(&a.Probe) >= whole-frame.TagLen
		}
	}
}
