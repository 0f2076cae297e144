package vswitch

import "sync/atomic"

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
// fills a cache line of its own.
type dropBlock struct {
	counts [3]dropCounter
	more   atomic.Pointer[dropBlock] // nil while there is room here
	_      [cacheLine - 3*16 - 8]byte
}

type dropCounter struct {
	count  atomic.Uint64
	last   atomic.Uint32 // seconds on the switch's clock
	reason atomic.Uint32 // DropNone: the place is free, and so are those behind it
}

func (c *portCounters) received(frames, bytes uint64) {
	c.rxFrames.Add(frames)
	c.rxBytes.Add(bytes)
}

func (c *portCounters) sent(frames, bytes uint64) {
	c.txFrames.Add(frames)
	c.txBytes.Add(bytes)
}

func (c *portCounters) dropped(r Reason, n uint64, now uint32) {
	d := c.drop(r)
	d.count.Add(n)
	d.last.Store(now)
}

// drop returns the counter of a reason. It allocates a block when the port meets
// its first reason, and its fourth, and so on.
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
