package ctl

import (
	"time"

	"vswitch/ports"
)

// Receive rings that no option asked for: a port that brings in many small frames gets
// one while they come, and keeps it until it is detached. An idle port takes no memory for it.
const (
	DefaultRxRings = 64 << 20 // bytes that all such rings may take
	autoRxSlots    = 4096     // 1 MiB

	busyEvery  = 200 * time.Millisecond // between looks
	busyFrames = 2000                   // a look: 10,000 a second
	busyLength = 512                    // bytes a frame, on average at most
	growAtOnce = 2                      // rings made in one look; each takes some 30 ms
	growAgain  = time.Minute            // after one that could not be made
)

// rxRings bounds the memory of rings that no option asked for.
type rxRings struct {
	limit, used int // bytes
	looked      time.Time
}

// openPacket opens a port's interface, with receive rings as its option n_rxq_desc
// says. With "auto" it may get one later: see growLocked.
func (r *reconciler) openPacket(p *portState, l ports.Link) (*ports.Packet, error) {
	options := p.port.Options
	slots := options.Int("n_rxq_desc")
	if p.deaf {
		slots = 0
	}
	d, err := ports.OpenPacket(l.Name, l.Index, ports.PacketOptions{
		Queues: options.Int("n_rxq"), RxBuffer: options.Int("rx-buffer"), RxSlots: slots,
		Growable: options.Text("n_rxq_desc") == "auto" && r.rxRings.limit > 0 && !p.deaf,
		MACNAT:   natMAC(options, l),
	})
	if err != nil {
		return nil, err
	}
	p.rxSlots, p.rxShare = slots, 0
	p.rxFrames, p.rxBytes = r.sw.Received(p.port.Name)
	return d, nil
}

// leave gives back what a port's rings took.
func (r *rxRings) leave(p *portState) {
	r.used -= p.rxShare
	p.rxSlots, p.rxShare = 0, 0
}

// growLocked gives receive rings to ports that have become busy with small frames, and
// opens ports anew whose ring is deaf.
func (r *reconciler) growLocked(now time.Time) {
	// A look that comes late must not take a trickle for a rush.
	since := min(max(now.Sub(r.rxRings.looked), busyEvery), time.Hour)
	frames := uint64(busyFrames * since / busyEvery)
	r.rxRings.looked = now
	grown := 0
	var deaf []*portState
	for _, p := range r.ports {
		d, ok := p.device.(*ports.Packet)
		if !ok {
			continue
		}
		if p.rxSlots > 0 {
			if d.Missed(); d.Deaf() {
				deaf = append(deaf, p)
			}
			continue
		}
		if !d.CanGrow() || now.Before(p.growAt) {
			continue
		}
		f, b := r.sw.Received(p.port.Name)
		newFrames, newBytes := f-p.rxFrames, b-p.rxBytes
		p.rxFrames, p.rxBytes = f, b
		share := ports.RxRingLen(autoRxSlots)
		if newFrames < frames || newBytes > newFrames*busyLength || grown == growAtOnce || r.rxRings.used+share > r.rxRings.limit {
			continue
		}
		grown++
		if err := d.Grow(autoRxSlots); err != nil {
			p.growAt = now.Add(growAgain)
			r.log.Warn("port gets no receive ring", "port", p.port.Name, "err", err)
			continue
		}
		r.rxRings.used += share
		p.rxSlots, p.rxShare = autoRxSlots, share
		err := r.sw.AddQueue(p.port.Name)
		if err == nil {
			err = d.Turn()
		}
		if err != nil { // it stays with the queue that it had
			r.log.Warn("port does not use its receive ring", "port", p.port.Name, "err", err)
			continue
		}
		r.log.Debug("port is busy with small frames and has a receive ring now", "port", p.port.Name)
	}
	if len(deaf) == 0 {
		return
	}
	r.detachTogetherLocked(deaf)
	for _, p := range deaf {
		p.deaf = true
		r.log.Warn("port's receive ring took no more frames: it is opened anew without one", "port", p.port.Name)
		r.linkLocked(p, now)
	}
}
