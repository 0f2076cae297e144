package vswitch

import (
	"sync"
	"sync/atomic"
)

// portCounters are one worker's counters of one port. Only that worker writes
// them; anybody reads. A super-frame is one frame. They fill one cache line, so
// that workers do not share any; most ports drop for few reasons, or none, so
// reasons take memory only once they are met.
type portCounters struct {
	rxFrames, rxBytes atomic.Uint64
	txFrames, txBytes atomic.Uint64
	drops             atomic.Pointer[dropBlock] // nil: none yet
	_                 [cacheLine - 5*8]byte
}

const cacheLine = 64

// dropBlock counts a few reasons, in the order in which they were first met. It
// fills cache lines of its own.
type dropBlock struct {
	counts [5]dropCounter
	more   atomic.Pointer[dropBlock] // nil while there is room here
}

type dropCounter struct {
	count  atomic.Uint64
	last   atomic.Uint32                // seconds on the switch's clock
	reason atomic.Uint32                // DropNone: the place is free, and so are those behind it
	frame  atomic.Pointer[droppedFrame] // the last, or one of the last few
}

// droppedFrame is the head of a frame that was dropped.
//
// Thread-safety: the worker writes it unless somebody reads it at that moment.
type droppedFrame struct {
	mu   sync.Mutex
	rec  record
	data [droppedLen]byte
}

// droppedLen is how much of a dropped frame is kept: what a line about it tells.
const droppedLen = 128

func (c *portCounters) received(frames, bytes uint64) {
	c.rxFrames.Add(frames)
	c.rxBytes.Add(bytes)
}

func (c *portCounters) sent(frames, bytes uint64) {
	c.txFrames.Add(frames)
	c.txBytes.Add(bytes)
}

func (c *portCounters) dropped(r Reason, n uint64, now uint32) {
	c.drop(r).add(n, now)
}

func (d *dropCounter) add(n uint64, now uint32) {
	d.count.Add(n)
	d.last.Store(now)
}

// keep keeps the frame that was dropped: the first of each batch, which is as good as
// the last, at a cost that a flood of them does not feel.
func (d *dropCounter) keep(r *record, data []byte) {
	k := d.frame.Load()
	if k == nil {
		k = &droppedFrame{}
		d.frame.Store(k)
	} else if k.rec.at == r.at {
		return
	}
	if k.mu.TryLock() {
		k.rec = *r
		k.rec.n = copy(k.data[:], data)
		k.mu.Unlock()
	}
}

// drop returns the counter of a reason. It allocates a block when the port meets
// its first reason, and its sixth, and so on.
func (c *portCounters) drop(r Reason) *dropCounter {
	at := &c.drops
	for {
		b := at.Load()
		if b == nil {
			b = new(dropBlock)
			at.Store(b)
		}
		for i := range b.counts {
			d := &b.counts[i]
			switch Reason(d.reason.Load()) {
			case r:
				return d
			case DropNone:
				d.reason.Store(uint32(r))
				return d
			}
		}
		at = &b.more
	}
}

// addTo adds what was dropped to a sum by reason.
func (c *portCounters) addTo(sum *[numReasons]DropCount) {
	for b := c.drops.Load(); b != nil; b = b.more.Load() {
		for i := range b.counts {
			d := &b.counts[i]
			if r := d.reason.Load(); r != uint32(DropNone) {
				sum[r].add(d.count.Load(), d.last.Load())
			}
		}
	}
}

// bridgeCounters are one worker's counters of one bridge, beyond its ports'.
type bridgeCounters struct {
	floodCopies, mirrorCopies, splitCopies atomic.Uint64
	captured                               atomic.Uint64 // sent to capture files' rings
	answers                                atomic.Uint64 // made by the switch itself
	_                                      [64]byte
}

// LastDrop returns a frame that a port dropped for a reason: the last one, or one of
// the same batch; of missed frames, which the kernel dropped, none is known.
func (s *Switch) LastDrop(port string, why Reason) (x Sighting, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.ports[port]
	if p == nil {
		return x, false
	}
	var last record
	var data []byte
	for i := range p.counters {
		for b := p.counters[i].drops.Load(); b != nil; b = b.more.Load() {
			for j := range b.counts {
				k := b.counts[j].frame.Load()
				if k == nil || b.counts[j].reason.Load() != uint32(why) {
					continue
				}
				k.mu.Lock()
				if data == nil || k.rec.at > last.at {
					last, data = k.rec, append(data[:0], k.data[:k.rec.n]...)
				}
				k.mu.Unlock()
			}
		}
	}
	if data == nil {
		return x, false
	}
	s.sighting(&last, data, &x)
	return x, true
}

// EachDrop calls each with the count of every reason that a port has met, but for what
// the kernel lost (EachMissed). Workers' counts are added up; it takes no lock, and no
// memory for ports that drop nothing.
func (s *Switch) EachDrop(each func(bridge, port string, why Reason, n DropCount)) {
	snap := s.snap.Load()
	var sum [numReasons]DropCount
	for _, p := range snap.ports {
		if p == nil {
			continue
		}
		met := false
		for i := range p.counters {
			if p.counters[i].drops.Load() != nil {
				p.counters[i].addTo(&sum)
				met = true
			}
		}
		if !met {
			continue
		}
		for why := range sum {
			if sum[why].Count > 0 {
				each(snap.bridges[p.bridge].name, p.name, Reason(why), sum[why])
			}
		}
		sum = [numReasons]DropCount{}
	}
}

// EachMissed calls each with how many frames the kernel lost before a port could
// receive them, for the ports where it did. It asks the kernel for each port.
func (s *Switch) EachMissed(each func(bridge, port string, n uint64)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, p := range s.byID {
		if p == nil {
			continue
		}
		n := p.missed
		if p.device != nil {
			n += p.device.Missed()
		}
		if n > 0 {
			each(p.bridge.name, p.name, n)
		}
	}
}

// Counters is what a port, or a bridge's ports together, did since they were
// made.
type Counters struct {
	RxFrames, RxBytes uint64
	RxMissed          uint64 // lost by the kernel before they were read
	TxFrames, TxBytes uint64
	Drops             [numReasons]DropCount
}

// DropCount is how often a reason was met, and when last, in seconds on the
// switch's clock (see Switch.Time).
type DropCount struct {
	Count uint64
	Last  uint32
}

// Dropped is the sum over all reasons.
func (c *Counters) Dropped() (sum uint64) {
	for i := range c.Drops {
		sum += c.Drops[i].Count
	}
	return sum
}

// Add adds o to c.
func (c *Counters) Add(o *Counters) {
	c.RxFrames += o.RxFrames
	c.RxBytes += o.RxBytes
	c.RxMissed += o.RxMissed
	c.TxFrames += o.TxFrames
	c.TxBytes += o.TxBytes
	for i := range o.Drops {
		c.Drops[i].add(o.Drops[i].Count, o.Drops[i].Last)
	}
}

func (d *DropCount) add(count uint64, last uint32) {
	d.Count += count
	d.Last = max(d.Last, last)
}

// sum adds up all workers' counters of a port.
func sum(workers []portCounters) (c Counters) {
	for i := range workers {
		w := &workers[i]
		c.RxFrames += w.rxFrames.Load()
		c.RxBytes += w.rxBytes.Load()
		c.TxFrames += w.txFrames.Load()
		c.TxBytes += w.txBytes.Load()
		w.addTo(&c.Drops)
	}
	// What the kernel lost counts as received too, so that the sums meet.
	c.RxMissed = c.Drops[DropMissed].Count + c.Drops[DropUnreadable].Count
	return c
}

// BridgeCounters are a bridge's, its ports' and removed ports' together:
// Received + FloodCopies + MirrorCopies + SplitCopies + Answers == Sent + Dropped
// when no frame is in flight.
type BridgeCounters struct {
	Received, Sent, Dropped                uint64
	FloodCopies, MirrorCopies, SplitCopies uint64
	Answers                                uint64 // ICMP that told a sender of a tunnel's MTU
	Drops                                  [numReasons]DropCount
}
