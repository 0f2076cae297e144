package ctl

import (
	"vswitch/ports"
)

// Defaults of receive rings: half a MiB a queue, for the first 128 queues.
const (
	DefaultRxRings = 64 << 20 // bytes
	autoRxSlots    = 2048
)

// rxRings bounds the memory of the receive rings that no option asked for: a host with
// a thousand ports keeps its memory, and its later ports do without.
type rxRings struct{ limit, used int }

// openPacket opens a port's interface, with receive rings as its option n_rxq_desc
// says. Where those of "auto" cannot be had it goes without.
func (r *reconciler) openPacket(p *portState, l ports.Link) (*ports.Packet, error) {
	options := p.port.Options
	o := ports.PacketOptions{Queues: options.Int("n_rxq"), RxBuffer: options.Int("rx-buffer"), RxSlots: options.Int("n_rxq_desc")}
	share := 0
	if options.Text("n_rxq_desc") == "auto" {
		if n := o.Queues * ports.RxRingLen(autoRxSlots); r.rxRings.used+n <= r.rxRings.limit {
			o.RxSlots, share = autoRxSlots, n
		}
	}
	d, err := ports.OpenPacket(l.Name, l.Index, o)
	if err != nil && share > 0 {
		r.log.Warn("no receive ring", "port", p.port.Name, "err", err)
		o.RxSlots, share = 0, 0
		d, err = ports.OpenPacket(l.Name, l.Index, o)
	}
	if err != nil {
		return nil, err
	}
	r.rxRings.used += share
	p.rxSlots, p.rxShare = o.RxSlots, share
	return d, nil
}

// leave gives back what a port's rings took.
func (r *rxRings) leave(p *portState) {
	r.used -= p.rxShare
	p.rxSlots, p.rxShare = 0, 0
}
