package fdb

import "fmt"

const (
	// evictionScan bounds what a Learn looks at to find a victim: 512 buckets,
	// 32 KiB read in order. With three slots in four used those hold some 1100
	// entries, a fair sample since the hash strews each port's entries evenly.
	// A port with one entry in a hundred is missing from it once in 100,000
	// times.
	evictionScan = 512
	// evictionSample is how many entries of the fullest port are compared for
	// age. Of eight, the oldest is on average among the oldest ninth. To gather
	// them, no more than sampleScan buckets are looked at once there is one.
	evictionSample = 8
	sampleScan     = 64
	// shrinkSlice is how many entries SetLimits evicts before it lets others in.
	shrinkSlice = 1024
)

// evictLocked takes one learned entry out of the table, from the port that
// holds most, and returns false if it came upon none in scan buckets.
func (f *FDB) evictLocked(scan int) bool {
	t := f.table.Load()
	i, j, ok := f.victimLocked(t, scan)
	if !ok {
		return false
	}
	k, v := Key(t.buckets[i].keys[j].Load()), value(t.buckets[i].values[j].Load())
	f.removeLocked(t, i, j, v)
	f.evicted++
	f.tell(EventEvicted, k, v.port(), v.port())
	return true
}

// victimLocked walks the clock hand over the table until it has seen enough
// entries of a port that holds most, or scan buckets, or all.
// The victim is the oldest entry of the fullest port that it saw. That is the
// fullest port of all unless none of its entries lie in scan buckets: ports
// without number that hold almost nothing each. Then it is one nearly as full.
func (f *FDB) victimLocked(t *table, scan int) (bi, bj int, ok bool) {
	if f.entries == f.static {
		return 0, 0, false
	}
	var (
		most   = f.ports.most()
		seen   int
		fullth uint32
		best   value
	)
	for looked := range min(scan, len(t.buckets)) {
		i := f.evictHand
		if f.evictHand++; f.evictHand >= len(t.buckets) {
			f.evictHand = 0
		}
		b := &t.buckets[i]
		for j := range b.keys {
			if b.keys[j].Load() == 0 {
				continue
			}
			v := value(b.values[j].Load())
			if v.static() {
				continue
			}
			n := f.ports.ports[v.port()].learned
			if n > fullth || n == fullth && int32(v.seen()-best.seen()) < 0 {
				bi, bj, fullth, best, ok = i, j, n, v, true
			}
			if n == most {
				seen++
			}
		}
		if seen >= evictionSample || seen > 0 && looked >= sampleScan {
			break
		}
	}
	return bi, bj, ok
}

// SetLimits changes the table's limits. What is above a smaller size is evicted
// before it returns, in slices, so that workers do not wait. A new FlapHold is
// for the holds that begin from now on; a FlapLimit of 0 ends all holds. Fewer places than static entries are refused with an error wrapping ErrFull.
func (f *FDB) SetLimits(l Limits) error {
	if err := l.check(); err != nil {
		return err
	}
	if err := f.setLimits(l); err != nil {
		return err
	}
	if l.FlapLimit == 0 {
		f.change(func(_ Key, v value) bool { return v.flapped() }, f.releaseLocked)
	}
	return nil
}

func (f *FDB) setLimits(l Limits) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.static > l.Size {
		return fmt.Errorf("set MAC table size to %d with %d static entries: %w", l.Size, f.static, ErrFull)
	}
	f.boundLocked(l)
	// Others may learn, or set limits, whenever the lock is let go: f.size is
	// whatever was set last, and nobody adds an entry while there are more.
	for f.entries > f.size {
		for n := 0; n < shrinkSlice && f.entries > f.size; n++ {
			if !f.evictLocked(len(f.table.Load().buckets)) {
				break
			}
		}
		f.mu.Unlock()
		f.mu.Lock()
	}
	if want := max(minBuckets, bucketsFor(f.size)); want < len(f.table.Load().buckets) {
		f.rebuildLocked(want)
	}
	return nil
}
