package vswitch

import "sync/atomic"

// portCounters are one worker's counters of one port. Only that worker writes
// them; anybody reads. A super-frame is one frame.
type portCounters struct {
	rxFrames, rxBytes atomic.Uint64
	txFrames, txBytes atomic.Uint64
	drops             [numReasons]dropCounter
	_                 [64]byte // keeps the next worker's counters off our cache line
}

type dropCounter struct {
	count atomic.Uint64
	last  atomic.Uint32 // seconds on the switch's clock
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
	c.drops[r].count.Add(n)
	c.drops[r].last.Store(now)
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
		for r := range w.drops {
			c.Drops[r].add(w.drops[r].count.Load(), w.drops[r].last.Load())
		}
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
