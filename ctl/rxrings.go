package ctl

import (
	"runtime"
	"sync"
	"time"

	"vswitch/ctl/config"
	"vswitch/ports"
	vswitch "vswitch/switch"
)

// Defaults of receive rings: half a MiB a queue, for the first 128 queues.
const (
	DefaultRxRings = 64 << 20 // bytes
	autoRxSlots    = 2048
)

// rxRings bounds the memory of the receive rings that no option asked for: a host with
// a thousand ports keeps its memory, and its later ports do without.
type rxRings struct{ limit, used int }

// leave gives back what a port's rings took.
func (r *rxRings) leave(p *portState) {
	r.used -= p.rxShare
	p.rxSlots, p.rxShare = 0, 0
}

// opening is the device of a port on its way: it has its sockets, or soon will, and
// is bound to nothing.
//
// Thread-safety: make is for one goroutine; the rest may be read once done is closed.
type opening struct {
	name    string
	options ports.PacketOptions
	auto    bool // the ring may be done without

	done   chan struct{}
	device *ports.Packet
	err    error
	noRing error // why it does without the ring
}

// openingLocked makes room for the rings that a port's option n_rxq_desc asks for.
func (r *reconciler) openingLocked(p *portState) *opening {
	options := p.port.Options
	o := &opening{name: p.port.Name, done: make(chan struct{}), options: ports.PacketOptions{
		Queues: options.Int("n_rxq"), RxBuffer: options.Int("rx-buffer"), RxSlots: options.Int("n_rxq_desc"),
	}}
	if options.Text("n_rxq_desc") == "auto" {
		if n := o.options.Queues * ports.RxRingLen(autoRxSlots); r.rxRings.used+n <= r.rxRings.limit {
			o.auto, o.options.RxSlots = true, autoRxSlots
			p.rxShare = n
			r.rxRings.used += n
		}
	}
	p.rxSlots = o.options.RxSlots
	return o
}

// make makes the sockets, which for each ring waits for the kernel. Where a ring of
// "auto" cannot be had it goes without.
func (o *opening) make() {
	defer close(o.done)
	o.device, o.err = ports.NewPacket(o.name, o.options)
	if o.err != nil && o.auto {
		o.noRing, o.options.RxSlots = o.err, 0
		o.device, o.err = ports.NewPacket(o.name, o.options)
	}
}

// openPacket opens a port's interface, for which ready may have prepared.
func (r *reconciler) openPacket(p *portState, l ports.Link) (*ports.Packet, error) {
	o := p.opening
	if p.opening = nil; o == nil {
		o = r.openingLocked(p)
		o.make()
	}
	<-o.done
	if o.noRing != nil {
		r.log.Warn("no receive ring", "port", p.port.Name, "err", o.noRing)
		r.rxRings.leave(p)
	}
	err := o.err
	if err == nil {
		err = o.device.Open(l.Index)
	}
	if err != nil {
		r.rxRings.leave(p)
		return nil, err
	}
	return o.device, nil
}

// opensAtOnce is how many devices are made at a time; each takes a thread.
const opensAtOnce = 16

// readyLocked begins to make the devices of those ports that linkLocked will open and that
// wait for rings, in their order, while it works: one after the other, 128 take
// 1.7 s. What is left of them in the end, since a port failed before its device was
// asked for, settle closes.
func (r *reconciler) readyLocked(all []*portState, now time.Time) (settle func()) {
	var waiting []*portState
	var openings []*opening
	for _, p := range all {
		if !r.opensLocked(p, now) {
			continue
		}
		if o := r.openingLocked(p); o.options.RxSlots > 0 {
			p.opening = o
			waiting, openings = append(waiting, p), append(openings, o)
		}
	}
	var makers sync.WaitGroup
	next := make(chan *opening, len(openings))
	for _, o := range openings {
		next <- o
	}
	close(next)
	for range min(opensAtOnce, len(openings)) {
		makers.Go(func() { // ends when all are made
			runtime.LockOSThread() // and the thread, too
			for o := range next {
				o.make()
			}
		})
	}
	return func() {
		makers.Wait()
		var unused []vswitch.Device
		for _, p := range waiting {
			if o := p.opening; o != nil {
				p.opening = nil
				r.rxRings.leave(p)
				if o.err == nil {
					unused = append(unused, o.device)
				}
			}
		}
		if err := vswitch.CloseDevices(unused); err != nil {
			r.log.Warn("sockets not closed cleanly", "err", err)
		}
	}
}

// opensLocked reports whether linkLocked will open a port's interface.
func (r *reconciler) opensLocked(p *portState, now time.Time) bool {
	l, exists := r.links[p.port.Name]
	return p.port.Object() == config.PacketPort && p.device == nil && exists && l.Ether &&
		(l.Index != p.failedOn || !now.Before(p.retryAt))
}
