package fdb

// Sweep ages: it takes out what was learned and not seen again for the aging
// time by now, the second on the clock that Learn is given. It looks at the
// next slots places of the table from where the last call stopped (all of them,
// once, if slots is 0 or less), and returns how many entries it took out. It
// holds the table's lock only for a bucket with something to take out. Call it
// once a second for everything, or oftener for a part of Stats().Slots.
func (f *FDB) Sweep(now uint32, slots int) (expired int) {
	f.clock.Store(now)
	aging := int32(f.aging.Load())
	if aging == 0 {
		return 0
	}
	f.sweepMu.Lock()
	defer f.sweepMu.Unlock()
	t := f.table.Load()
	buckets := len(t.buckets)
	if slots > 0 {
		buckets = min(buckets, (slots+slotsPerBucket-1)/slotsPerBucket)
	}
	old := func(k Key, v value) bool { return !v.static() && v.idle(now) >= aging }
	for range buckets {
		if f.sweepHand >= len(t.buckets) {
			f.sweepHand = 0
		}
		n, same := f.changeBucket(t, f.sweepHand, old, f.ageLocked)
		expired += n
		if !same {
			break // grown under us: the next call goes on in the new array
		}
		f.sweepHand++
	}
	return expired
}

// ageLocked takes out an entry unless a worker refreshes it right now.
func (f *FDB) ageLocked(t *table, i, j int, k Key, v value) bool {
	if !t.buckets[i].values[j].CompareAndSwap(uint64(v), uint64(v|flagFrozen)) {
		return false
	}
	f.removeLocked(t, i, j, v)
	f.expired++
	f.tell(EventAged, k, v.port(), v.port())
	return true
}

func (f *FDB) flushLocked(t *table, i, j int, _ Key, v value) bool {
	f.removeLocked(t, i, j, v)
	f.flushed++
	return true
}

// change is what is done to the entry in slot j of bucket i, with the table
// locked. It returns false if it left it as it was.
type change func(t *table, i, j int, k Key, v value) bool

// changeBucket changes the entries of bucket i that match. It returns how many
// were changed, and false if t is no longer the table.
func (f *FDB) changeBucket(t *table, i int, match func(Key, value) bool, changeLocked change) (n int, same bool) {
	any := false
	for j := range slotsPerBucket {
		k, v, ok := t.entry(i, j)
		any = any || ok && match(k, v)
	}
	if !any {
		return 0, true
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.table.Load() != t {
		return 0, false
	}
	for j := range slotsPerBucket {
		if k, v, ok := t.entry(i, j); ok && match(k, v) && changeLocked(t, i, j, k, v) {
			n++
		}
	}
	return n, true
}

// change changes the entries that match, and returns how many.
func (f *FDB) change(match func(Key, value) bool, changeLocked change) (changed int) {
	for {
		t := f.table.Load()
		for i := range t.buckets {
			n, same := f.changeBucket(t, i, match, changeLocked)
			changed += n
			if !same {
				break
			}
		}
		if f.table.Load() == t {
			return changed
		}
	}
}

func (f *FDB) flush(match func(Key, value) bool) (flushed int) {
	return f.change(match, f.flushLocked)
}

// flushOn flushes what matches of the ports' entries. Before that they are no MAC's
// home any more, to be put back to. Ports without entries cost no look through the
// table, and those that go together one: it takes 8.6 ms with a million entries, and
// thousands of tunnels may go down, or be removed.
func (f *FDB) flushOn(ports []Port, match func(value) bool) (flushed int) {
	set := makePortSet(ports)
	if !f.forgetHomes(ports, set) {
		return 0
	}
	return f.flush(func(_ Key, v value) bool { return set.has(v.port()) && match(v) })
}

// Flush takes out each learned entry for which match is true, and returns how
// many. match may be called more than once for an entry, and with the table
// locked: it must be quick and not call the table. Here as in the methods
// below, an entry that is learned during the call may stay.
func (f *FDB) Flush(match func(Entry) bool) int {
	return f.flush(func(k Key, v value) bool { return !v.static() && match(makeEntry(k, v)) })
}

// FlushPort takes out all that was learned on p, and returns how many.
func (f *FDB) FlushPort(p Port) int {
	return f.flushOn([]Port{p}, func(v value) bool { return !v.static() })
}

// FlushVLAN takes out all that was learned in vlan, and returns how many.
func (f *FDB) FlushVLAN(vlan uint16) int {
	return f.flush(func(k Key, v value) bool { return !v.static() && k.VLAN() == vlan })
}

// DropPorts takes out all entries of ports, static ones too, and returns how many:
// for ports that are removed.
func (f *FDB) DropPorts(ports ...Port) int {
	return f.flushOn(ports, func(value) bool { return true })
}
